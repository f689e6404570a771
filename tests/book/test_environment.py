"""The ways to install the book ask for the same things."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "book" / "tools"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHON = "3.11"


def asked(extra: str) -> set[str]:
    """All requirements of ``lossbook[extra]``, with those of the extras that it names in turn."""
    found: set[str] = set(PROJECT["dependencies"])
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == PROJECT["name"]:
            found = found.union(*map(asked, requirement.extras))
        else:
            found.add(str(requirement))
    return found


def pins(file: Path) -> dict[str, Version]:
    """Name and version of every line ``name==version``."""
    lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    assert all(str(r.specifier).startswith("==") for r in requirements)
    return {canonicalize_name(r.name): Version(str(r.specifier)[2:]) for r in requirements}


def conda() -> tuple[list[str], list[str]]:
    """What environment.yml asks of conda, and of pip."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)], pip


def test_the_test_extra_asks_for_everything_but_the_oracles() -> None:
    named = {
        str(Requirement(r)) for extra in ("lab", "book", "course", "test") for r in EXTRAS[extra]
    }
    own = {r for r in named if Requirement(r).name == PROJECT["name"]}
    assert asked("test") == named - own | set(PROJECT["dependencies"])
    assert set(EXTRAS) == {"lab", "book", "course", "test", "oracles"}


def test_conda_installs_what_make_installs() -> None:
    from_conda, from_pip = conda()
    assert from_conda == [f"python={PYTHON}", "pip", "nodejs"]
    assert from_pip == [
        "-r book/tools/torch.txt",
        f"-c book/tools/constraints-{PYTHON}.txt",
        "-e .[test]",
    ]
    makefile = (ROOT / "Makefile").read_text()
    assert "-r $(TOOLS)/torch.txt" in makefile and "-e '.[test]'" in makefile
    assert "-c ,$(CONSTRAINTS)" in makefile and "$(TOOLS)/constraints-" in makefile


def test_conda_s_python_is_one_that_the_package_takes() -> None:
    assert PYTHON in SpecifierSet(PROJECT["requires-python"])


def test_what_is_pinned_is_what_is_asked_for() -> None:
    pinned = pins(TOOLS / f"constraints-{PYTHON}.txt") | pins(TOOLS / "torch.txt")
    wanted = {canonicalize_name(r.name): r.specifier for r in map(Requirement, asked("test"))}
    assert set(wanted) <= set(pinned)
    assert {n: str(pinned[n]) for n in wanted if pinned[n] not in wanted[n]} == {}


def test_torch_is_pinned_alone() -> None:
    assert list(pins(TOOLS / "torch.txt")) == ["torch"]
    assert "torch" not in pins(TOOLS / f"constraints-{PYTHON}.txt")
