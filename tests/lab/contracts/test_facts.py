"""What the literature proves about losses, `data/facts.yml`, measured."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lossbook import classification
from lossbook.lab.contracts import GROUPS, Contract, Finding, contract, facts, kinds
from lossbook.lab.contracts.facts import Fact, disagreement

sys.path.insert(0, str(Path(__file__).parent))
import known

ROOT = Path(__file__).parents[3]
FACTS = facts.read(ROOT / "data" / "facts.yml")
LOSSES = kinds.losses() | known.LOSSES
PROPERTIES = {name for group in GROUPS.values() for name in group}
BIBLIOGRAPHY = set(
    re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(), re.MULTILINE)
)


def function(name: str) -> Callable[[Tensor], Tensor]:
    return known.FUNCTIONS.get(name) or getattr(classification, name)


def name_of(fact: Fact) -> str:
    return f"{fact.subject}-{fact.property}"


@cache
def measured(subject: str) -> Contract:
    """The contract of a loss and its settings, with just the properties that facts speak of."""
    alike = [fact for fact in FACTS if fact.subject == subject]
    settings: dict[str, Any] = {
        key: function(value) if isinstance(value, str) else value
        for key, value in alike[0].settings.items()
    }
    properties = [fact.property for fact in alike]
    return contract(LOSSES[alike[0].loss], trials=80, properties=properties, **settings)


@pytest.mark.parametrize("fact", FACTS, ids=name_of)
def test_the_contract_agrees_with_the_literature(fact: Fact) -> None:
    finding = measured(fact.subject)[fact.property]
    assert disagreement(fact, finding) == "", f"{fact.source}: {fact.note}\n{finding}"


# --- by how much: what a loss that is not proper makes of the probabilities q


def proportional(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def half_the_log_odds(q: list[float]) -> list[float]:
    return proportional([p**0.5 for p in q])


def tilted(alpha: float) -> Callable[[list[float]], list[float]]:
    return lambda q: proportional([p**alpha for p in q])


FORECASTS: dict[str, Callable[[list[float]], list[float]]] = {
    "cross_entropy(label_smoothing=0.1)": lambda q: [0.9 * p + 0.1 / len(q) for p in q],
    "comp_sum_loss(tau=0.0)": tilted(1 / 2),
    "comp_sum_loss(tau=1.7)": tilted(10 / 3),
    "comp_sum_loss(tau=2.0)": lambda q: [float(p == max(q)) for p in q],
    "vector_scaling_loss(gamma=0.0)": lambda q: proportional([p / n for n, p in enumerate(q, 1)]),
    "margin_loss(phi=exponential)": half_the_log_odds,
    "margin_loss(phi=savage)": half_the_log_odds,
    "margin_loss": lambda q: [1 / (1 + math.e if p < 0.5 else 1 + 1 / math.e) for p in q],
}


@pytest.mark.parametrize("subject", FORECASTS)
def test_an_improper_loss_is_off_by_what_its_formula_says(subject: str) -> None:
    evidence = measured(subject)["proper"].evidence
    expected = FORECASTS[subject](evidence["q"])
    assert evidence["forecast at the minimizer"] == pytest.approx(expected, abs=1e-3)


def test_the_truth_is_a_function_of_the_forecast_of_focal_loss() -> None:
    """q is in proportion to one over minus the slope of (1 - p)^2 (-log p), Charoenphakdee et al."""
    evidence = measured("focal_loss")["proper"].evidence
    forecast = evidence["forecast at the minimizer"]
    slopes = [(1 - p) ** 2 / p - 2 * (1 - p) * math.log(p) for p in forecast]
    assert evidence["q"] == pytest.approx(proportional([1 / slope for slope in slopes]), abs=1e-3)


@pytest.mark.parametrize(
    ("tau", "factor", "loss"),
    [
        (0.0, 1, partial(LOSSES["weston_watkins_loss"], phi=function("exponential"))),
        (1.0, 1, LOSSES["cross_entropy"]),
        (2.0, 1 / 2, known.mean_absolute_error),
    ],
)
def test_comp_sum_losses_end_where_mao_et_al_say(
    tau: float, factor: float, loss: Callable[..., Tensor]
) -> None:
    """At sums of exponentials, cross-entropy and half the mean absolute error."""
    z = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 4
    expected = factor * loss(z, y).mean()
    torch.testing.assert_close(LOSSES["comp_sum_loss"](z, y, tau=tau), expected)


# --- the file


def test_there_are_at_least_sixty_facts_and_no_two_of_the_same_thing() -> None:
    assert len(FACTS) >= 60
    assert len({(fact.subject, fact.property) for fact in FACTS}) == len(FACTS)


@pytest.mark.parametrize("fact", FACTS, ids=name_of)
def test_every_fact_is_well_formed(fact: Fact) -> None:
    assert fact.source in BIBLIOGRAPHY
    assert fact.property in PROPERTIES
    assert re.fullmatch(r"\S.{3,}\.", fact.note), "a note is a sentence or two"
    parameters = inspect.signature(LOSSES[fact.loss]).parameters
    for name, value in fact.settings.items():
        default = parameters[name].default
        assert value not in (default, getattr(default, "__name__", None)), "not a setting: default"
        assert not isinstance(value, str) or callable(function(value))


def test_known_losses_are_none_of_the_packages() -> None:
    assert not set(known.LOSSES) & set(kinds.losses())
    assert not any(hasattr(classification, name) for name in known.FUNCTIONS)


# --- the loader


ROW = "loss: cross_entropy, property: convex, source: a, note: N."


def test_load_finds_the_facts_of_the_checkout_once() -> None:
    assert facts.load() == FACTS
    assert facts.load() is facts.load()


def test_facts_are_found_by_loss_and_settings() -> None:
    assert {fact.loss for fact in facts.of("focal_loss")} == {"focal_loss"}
    assert all(fact.settings == {} for fact in facts.of("focal_loss"))
    assert {fact.subject for fact in facts.of("focal_loss", {"gamma": "0.0"})} == {
        "focal_loss(gamma=0.0)"
    }
    assert facts.of("focal_loss", {"gamma": 0.5}) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("theory: maybe", "theory must be one of holds, fails, quantity, got 'maybe'"),
        ("theory: holds, value: 1.0", "a value needs a tolerance"),
        ("theory: holds, tolerance: 1.0", "a value needs a tolerance"),
        ("theory: holds, proof: none", "unexpected keyword argument 'proof'"),
    ],
)
def test_a_malformed_row_is_refused(row: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "facts.yml"
    file.write_text(f"- {{{ROW}, {row}}}")
    with pytest.raises(ValueError, match=re.escape(problem)):
        facts.read(file)


# --- what counts as agreement


def fact(theory: str, **more: Any) -> Fact:
    return Fact("loss", "property", theory, "source", "Note.", **more)


@pytest.mark.parametrize(
    ("theory", "agreeing"),
    [
        ("holds", {"not refuted", "measured"}),
        ("fails", {"refuted"}),
        ("quantity", {"not refuted", "measured"}),
    ],
)
def test_a_verdict_agrees_with_the_theory_or_not(theory: str, agreeing: set[str]) -> None:
    for verdict in ("refuted", "not refuted", "measured", "not applicable"):
        agrees = disagreement(fact(theory), Finding(verdict, "")) == ""
        assert agrees == (verdict in agreeing)


def test_a_value_agrees_within_its_tolerance() -> None:
    two = fact("holds", value=2.0, tolerance=0.1)
    assert disagreement(two, Finding("measured", "", value=1.95)) == ""
    assert (
        disagreement(two, Finding("measured", "", value=2.2))
        == "theory: 2.0 within 0.1; found: 2.2"
    )
    assert disagreement(two, Finding("measured", "", value=float("nan")))
    assert disagreement(two, Finding("measured", ""))


def test_words_must_occur_in_the_text_or_in_the_evidence() -> None:
    says = fact("quantity", says="gamma -> 0: cross_entropy")
    assert disagreement(says, Finding("measured", "as gamma -> 0: cross_entropy")) == ""
    assert (
        disagreement(says, Finding("measured", "", evidence={"gamma -> 0": "cross_entropy"})) == ""
    )
    assert disagreement(says, Finding("measured", "gamma -> 0: none"))
