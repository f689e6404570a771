"""The paper atlas: what each paper claims, where the book treats it, and how the claim fared.

>>> load()["leng2022polyloss"].chapter
'cross_entropy'
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROLES = ("loss", "method", "theory", "study")
MEASURED = ("contradicted", "not at this scale", "reproduced")
VERDICTS = ("planned", *MEASURED, "no toy experiment")


@dataclass(frozen=True)
class Paper:
    """One row of the atlas; ``data/papers.yml`` explains the fields."""

    id: str
    key: str
    title: str
    part: str
    chapter: str
    role: str
    claim: str
    verdict: str
    functions: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    code: str | None = None

    def __post_init__(self) -> None:
        for field, value, allowed in [
            ("role", self.role, ROLES),
            ("verdict", self.verdict, VERDICTS),
        ]:
            if value not in allowed:
                raise ValueError(
                    f"{self.key}: {field} is {value!r}, expected one of {', '.join(allowed)}"
                )


@cache
def load() -> dict[str, Paper]:
    """All papers by citation key, in the order of the book.

    Returns:
        The atlas; treat it as read-only, every caller gets the same dictionary.

    Raises:
        FileNotFoundError: neither an installed package nor a checkout holds the file.
        ValueError: a row has a duplicate key, a missing or unknown field, role or verdict.
    """
    package, checkout = Path(__file__).parent, Path(__file__).parents[2] / "data"
    for folder in (package, checkout):
        if (file := folder / "papers.yml").is_file():
            return read(file)
    raise FileNotFoundError(f"papers.yml is neither in {package} nor in {checkout}")


def read(file: Path) -> dict[str, Paper]:
    """The atlas written in ``file``, checked; :func:`load` finds the file and keeps the result.

    Raises:
        ValueError: see :func:`load`.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    papers: dict[str, Paper] = {}
    for row in yaml.load(file.read_text(encoding="utf-8"), Loader=loader):
        lists = {name: tuple(row.get(name, ())) for name in ("functions", "also")}
        try:
            paper = Paper(**row | lists)
        except TypeError as error:
            raise ValueError(f"{file}: row {row.get('id')}: {error}") from error
        if paper.key in papers:
            raise ValueError(f"{file}: two papers have the key {paper.key!r}")
        papers[paper.key] = paper
    return papers
