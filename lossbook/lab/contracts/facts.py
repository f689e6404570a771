"""What the literature proves about losses, to hold the measured contracts against.

>>> [fact.source for fact in of("focal_loss") if fact.property == "proper"]
['charoenphakdee2021focal']
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from lossbook.lab.contracts.finding import Finding, shown

#: What a fact says of its property, and the verdicts of a finding that agree.
AGREES = {
    "holds": ("not refuted", "measured"),
    "fails": ("refuted",),
    "quantity": ("measured", "not refuted"),
}


@dataclass(frozen=True)
class Fact:
    """A property of a loss that a paper proves; ``data/facts.yml`` explains the fields."""

    loss: str
    property: str
    theory: str
    source: str
    note: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    tolerance: float | None = None
    says: str | None = None

    def __post_init__(self) -> None:
        if self.theory not in AGREES:
            raise ValueError(f"theory must be one of {', '.join(AGREES)}, got {self.theory!r}")
        if (self.value is None) != (self.tolerance is None):
            raise ValueError("a value needs a tolerance, and a tolerance a value")

    @cached_property  # as a field is called property
    def subject(self) -> str:
        """The loss and its settings, ``comp_sum_loss(tau=2.0)``: the title of its contract."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.loss}({settings})" if settings else self.loss


def disagreement(fact: Fact, finding: Finding) -> str:
    """How a finding differs from what is known, in words; empty where both agree.

    A value agrees within the tolerance of the fact. What the fact says, a regular expression, must occur
    in the text of the finding or in an entry of its evidence, ``name: value``.
    """
    words = [finding.text, *(f"{key}: {shown(entry)}" for key, entry in finding.evidence.items())]
    if finding.verdict not in AGREES[fact.theory]:
        return f"theory: {fact.theory}; found: {finding.short}: {finding.text}"
    if fact.value is not None and not near(finding.value, fact):
        return f"theory: {fact.value} within {fact.tolerance}; found: {finding.value}"
    if fact.says is not None and not any(re.search(fact.says, line) for line in words):
        return f"theory: {fact.says}; found: {'; '.join(words)}"
    return ""


def near(found: float | None, fact: Fact) -> bool:
    """Whether a number was found, and as near to the fact's as its tolerance asks for."""
    if found is None or fact.value is None or fact.tolerance is None:
        return False
    return abs(found - fact.value) <= fact.tolerance


def of(loss: str, settings: Mapping[str, Any] | None = None) -> list[Fact]:
    """What is known of a loss under settings, of which only those that are not defaults count.

    Args:
        loss: the name of the loss.
        settings: hyperparameters, as numbers or words; a function goes by its name.
    """
    wanted = {name: str(value) for name, value in (settings or {}).items()}
    return [
        fact
        for fact in load()
        if fact.loss == loss and {name: str(x) for name, x in fact.settings.items()} == wanted
    ]


@cache
def load() -> list[Fact]:
    """All facts, in the order of the file.

    Returns:
        The facts; treat the list as read-only, every caller gets the same one.

    Raises:
        FileNotFoundError: neither an installed package nor a checkout holds the file.
        ValueError: a row has a missing or unknown field, an unknown theory, or a value without a
            tolerance.
    """
    package, checkout = Path(__file__).parents[1], Path(__file__).parents[3] / "data"
    for folder in (package, checkout):
        if (file := folder / "facts.yml").is_file():
            return read(file)
    raise FileNotFoundError(f"facts.yml is neither in {package} nor in {checkout}")


def read(file: Path) -> list[Fact]:
    """The facts written in ``file``, checked; :func:`load` finds the file and keeps the result.

    Raises:
        ValueError: see :func:`load`.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    facts = []
    for row in yaml.load(file.read_text(encoding="utf-8"), Loader=loader):
        try:
            facts.append(Fact(**row))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {row}: {error}") from error
    return facts
