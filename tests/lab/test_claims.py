"""A verdict must follow from the evidence, be written down, and stop a notebook that disagrees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats

from lossbook.lab import claims, papers, training
from lossbook.lab.claims import Evidence

KEY = "leng2022polyloss"
BETTER = torch.tensor([0.91, 0.93, 0.92, 0.95, 0.94, 0.92])
WORSE = torch.tensor([0.90, 0.88, 0.91, 0.90, 0.89, 0.91])


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository to record in, from within one of its folders, at the small scale."""
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "chapters").mkdir()
    monkeypatch.chdir(tmp_path / "chapters")
    monkeypatch.delenv("LOSSBOOK_SCALE", raising=False)
    return tmp_path


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch):
    """Lets the atlas say a given verdict about the paper."""

    def say(words: str) -> None:
        atlas = papers.load() | {KEY: replace(papers.load()[KEY], verdict=words)}
        monkeypatch.setattr(papers, "load", lambda: atlas)

    return say


def evidence(low: float, high: float) -> Evidence:
    return Evidence((low + high) / 2, low, high, 5, "measured")


# --- evidence


@pytest.mark.parametrize(
    ("low", "high", "supports"),
    [(0.1, 0.3, True), (-0.3, -0.1, False), (-0.1, 0.3, None), (0.0, 0.3, None), (-0.3, 0.0, None)],
)
def test_an_interval_supports_what_it_lies_above(
    low: float, high: float, supports: bool | None
) -> None:
    assert evidence(low, high).supports is supports


def test_a_difference_is_the_paired_t_interval() -> None:
    found = claims.difference(BETTER, WORSE)
    expected = stats.ttest_rel(BETTER.double(), WORSE.double()).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert found.mean == pytest.approx(float((BETTER - WORSE).mean()))
    assert found.seeds == 6 and found.supports is True
    assert claims.difference(WORSE, BETTER).supports is False
    assert "0.928 ±" in found.text and "0.898 ±" in found.text


def test_a_difference_to_a_constant() -> None:
    found = claims.difference(BETTER, 0.9)
    expected = stats.ttest_1samp(BETTER.double() - 0.9, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert found.text.endswith("against 0.9")


@pytest.mark.parametrize(
    ("larger", "smaller", "message"),
    [
        (BETTER[:4], WORSE[:4], "at least 5 seeds, got 4"),
        (BETTER, WORSE[:5], r"one value per seed; got shapes \(6,\) and \(5,\)"),
        (BETTER[None], WORSE[None], "one value per seed"),
        (BETTER.where(BETTER < 0.95, torch.nan), WORSE, "must be finite"),
        (BETTER, torch.inf, "must be finite"),
    ],
)
def test_a_difference_refuses_what_proves_nothing(
    larger: torch.Tensor, smaller: torch.Tensor | float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        claims.difference(larger, smaller)


def test_a_fact_has_no_chance_in_it() -> None:
    assert claims.fact(True, "equal").supports is True
    assert claims.fact(torch.tensor(False), "unequal").supports is False
    assert claims.fact(True, "equal").seeds == 0


YES, NO, OPEN = evidence(1, 2), evidence(-2, -1), evidence(-1, 2)


@pytest.mark.parametrize(
    ("items", "outcome"),
    [
        ([YES, YES], "reproduced"),
        ([YES, OPEN], "not at this scale"),
        ([OPEN], "not at this scale"),
        ([YES, NO], "contradicted"),
        ([OPEN, NO], "contradicted"),
    ],
)
def test_a_claim_is_as_good_as_its_weakest_part(items: list[Evidence], outcome: str) -> None:
    assert claims.outcome({str(i): item for i, item in enumerate(items)}) == outcome


# --- recording


def test_a_claim_that_agrees_is_written_to_the_ledger(repository: Path, verdict) -> None:
    verdict("reproduced")
    claim = claims.record(KEY, "It is better.", test_accuracy=claims.difference(BETTER, WORSE))
    assert (claim.outcome, claim.scale) == ("reproduced", "small")
    written = json.loads((repository / "_build" / "claims" / "small" / f"{KEY}.json").read_text())
    assert written["outcome"] == "reproduced" and written["statement"] == "It is better."
    assert written["evidence"]["test accuracy"] == vars(claim.evidence["test accuracy"])


@pytest.mark.parametrize("recorded", ["planned", "contradicted", "not at this scale"])
def test_a_claim_that_disagrees_stops_the_notebook(
    repository: Path, verdict, recorded: str
) -> None:
    verdict(recorded)
    with pytest.raises(claims.VerdictError, match=f"records '{recorded}' for {KEY}.*'reproduced'"):
        claims.record(KEY, "It is better.", accuracy=YES)


def test_a_full_run_is_written_apart_and_never_stops(
    repository: Path, verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict("contradicted")
    monkeypatch.setenv("LOSSBOOK_SCALE", "full")
    assert claims.record(KEY, "It is better.", accuracy=YES).outcome == "reproduced"
    assert [p.parent.name for p in repository.rglob("*.json")] == ["full"]


def test_a_run_on_a_gpu_is_written_apart_and_says_what_the_book_records(
    repository: Path, verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict("contradicted")
    monkeypatch.setattr(training, "device", lambda: torch.device("cuda"))
    claim = claims.record(KEY, "It is better.", accuracy=YES)
    assert claim.outcome == "reproduced"
    assert "small-cuda run; the book records: contradicted" in claim._repr_html_()
    assert [p.parent.name for p in repository.rglob("*.json")] == ["small-cuda"]


def test_outside_a_repository_nothing_is_written(
    tmp_path: Path, verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict("reproduced")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOSSBOOK_SCALE", raising=False)
    claims.record(KEY, "It is better.", accuracy=YES)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_and_no_evidence_are_refused(repository: Path) -> None:
    with pytest.raises(KeyError, match="nobody2020nothing"):
        claims.record("nobody2020nothing", "It is better.", accuracy=YES)
    with pytest.raises(ValueError, match="at least one piece of evidence"):
        claims.record(KEY, "It is better.")
    assert list(repository.rglob("*.json")) == []


# --- the card


@pytest.mark.parametrize(
    ("item", "outcome"),
    [(YES, "reproduced"), (NO, "contradicted"), (OPEN, "not at this scale")],
)
def test_the_card_says_the_outcome_the_claim_and_the_numbers(
    repository: Path, verdict, item: Evidence, outcome: str
) -> None:
    verdict(outcome)
    claim = claims.record(KEY, "x < y & z", the_gap=replace(item, text="1 < 2"))
    card = claim._repr_html_()
    assert f"{outcome}</strong>" in card and "x &lt; y &amp; z" in card and "1 &lt; 2" in card
    assert papers.load()[KEY].title in card and "the gap: " in card
    assert f"{item.mean:+.3g} [{item.low:+.3g}, {item.high:+.3g}], 5 seeds" in card
    assert 'role="img" aria-label="difference' in card
    assert repr(claim) == f"{outcome}: x < y & z [{KEY}]\n  the gap: 1 < 2"


def test_a_fact_is_not_drawn_as_an_interval(repository: Path, verdict) -> None:
    verdict("reproduced")
    card = claims.record(KEY, "It is.", identity=claims.fact(True, "equal"))._repr_html_()
    assert "identity: equal" in card and "<svg" not in card
