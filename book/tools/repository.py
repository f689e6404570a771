"""The repository's public address, which stands in pyproject.toml alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PLAIN = '"lossbook[lab]"'


def repository() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["urls"]["Repository"])


def installing_from_repository(set_up: str) -> str:
    """The code of a set-up that installs lossbook on Colab, with the address to install it from.

    Raises:
        ValueError: it installs no ``"lossbook[lab]"``.
    """
    if _PLAIN not in set_up:
        raise ValueError(f"the set-up does not install {_PLAIN}:\n{set_up}")
    return set_up.replace(_PLAIN, f'"lossbook[lab] @ git+{repository()}"')
