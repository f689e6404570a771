"""Bounds, convexity, slopes and curvatures: losses whose shape is known, and what evidence says."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossbook.classification import exponential, logistic, squared
from lossbook.lab.contracts import Finding, contract, kinds
from lossbook.lab.contracts.kinds import Subject, kind_of
from lossbook.lab.contracts.search import (
    by_example,
    descend,
    gradient,
    hessian,
    landscape,
    once,
    per_example,
)
from lossbook.lab.contracts.shape import PROPERTIES

LOSSES = kinds.losses()


def examine(loss: Any, name: str, kind: str | None = None, **settings: Any) -> Finding:
    loss = LOSSES[loss] if isinstance(loss, str) else loss
    return contract(loss, kind=kind, properties=[name], **settings)[name]


# --- Shapes that are known in closed form -----------------------------------------------------

CURVED = torch.tensor([[3.0, 1.0, 0, 0], [1, 3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0.5]]).double()
SADDLE = torch.diag(torch.tensor([1.0, 1.0, -2.0, 3.0])).double()


def quadratic(matrix: Tensor) -> Any:
    return lambda logits, target: ((logits @ matrix) * logits).sum(1) / 2


def test_a_convex_quadratic() -> None:
    """Its curvature is the largest eigenvalue, 4, and its smallest is 1/2."""
    found = contract(quadratic(CURVED), kind="logits, target", properties=list(PROPERTIES))
    assert found["bounded below"].value == pytest.approx(0, abs=1e-6)
    assert found["bounded above"].verdict == "refuted"
    assert found["convex"].verdict == "not refuted"
    assert found["convex"].value == pytest.approx(0.5)
    assert found["Lipschitz"].verdict == "refuted"
    assert found["smooth"].verdict == "not refuted"
    assert found["smooth"].value == pytest.approx(4.0)


def test_a_saddle() -> None:
    found = contract(quadratic(SADDLE), kind="logits, target", properties=list(PROPERTIES))
    assert found["bounded below"].verdict == "refuted"
    assert found["bounded above"].verdict == "refuted"
    assert found["convex"].verdict == "refuted"
    assert found["convex"].value == pytest.approx(-2.0)
    evidence = found["convex"].evidence
    left, right = (
        torch.tensor(evidence[name]).double() for name in ("one end: logits", "other end")
    )
    middle = (left + right) / 2
    values = [float(x @ SADDLE @ x / 2) for x in (left, right, middle)]
    assert evidence["values at the ends"] == pytest.approx(values[:2])
    assert evidence["value in the middle"] == pytest.approx(values[2])
    assert values[2] > (values[0] + values[1]) / 2


@pytest.mark.parametrize(
    ("function", "verdicts"),
    [
        # lower and upper bound, convex, Lipschitz, smooth
        (lambda f: f.sin(), "nn-nn"),
        (lambda f: f.abs(), "n-nn-"),
        (lambda f: -f.abs(), "-n-n-"),
        (lambda f: f.exp(), "n-n--"),
        (lambda f: (1 + f.square()).log(), "n--nn"),
        (lambda f: (1e-300 + f.square()).log(), "-----"),
        (lambda f: f.abs().sqrt(), "n----"),
        (lambda f: f.clamp(-1, 1), "nn-n-"),
        (lambda f: (f > 0).double() + 0 * f, "nn---"),
        (lambda f: 0 * f, "nnnnn"),
    ],
    ids=["sine", "absolute", "hat", "exponential", "log", "pole", "root", "ramp", "step", "zero"],
)
def test_functions_of_one_score(function: Any, verdicts: str) -> None:
    found = contract(
        lambda scores, target: function(scores),
        kind="scores, target",
        properties=list(PROPERTIES),
    )
    signs = {"refuted": "-", "not refuted": "n"}
    assert "".join(signs[finding.verdict] for finding in found.findings.values()) == verdicts


def test_extremes_of_a_bounded_function() -> None:
    def wave(scores: Tensor, target: Tensor) -> Tensor:
        return (scores - 0.3).sin()

    assert examine(wave, "bounded below", "scores, target").value == pytest.approx(-1, abs=1e-9)
    assert examine(wave, "bounded above", "scores, target").value == pytest.approx(1, abs=1e-9)


def test_slopes_and_curvatures_of_the_margin() -> None:
    assert examine("margin_loss", "smooth", phi=logistic).value == pytest.approx(0.25, abs=1e-3)
    assert examine("margin_loss", "Lipschitz", phi=logistic).value == pytest.approx(1, abs=1e-3)
    assert examine("margin_loss", "Lipschitz", phi=squared).verdict == "refuted"
    finding = examine("margin_loss", "Lipschitz", phi=exponential)
    assert finding.verdict == "refuted" and "far out" in finding.text


# --- Evidence is to be checked by hand --------------------------------------------------------


def brier(z: list[float], label: int) -> float:
    total = sum(math.exp(x - max(z)) for x in z)
    p = [math.exp(x - max(z)) / total for x in z]
    return sum((p[k] - (k == label)) ** 2 for k in range(len(z)))


def test_a_segment_on_which_the_brier_score_is_above_its_chord() -> None:
    evidence = examine("brier_loss", "convex").evidence
    left, right, label = (evidence[x] for x in ("one end: logits", "other end", "label"))
    middle = [(x + y) / 2 for x, y in zip(left, right, strict=True)]
    chord = (brier(left, label) + brier(right, label)) / 2
    assert brier(middle, label) > chord + 1e-3
    assert evidence["value in the middle"] == pytest.approx(brier(middle, label))
    assert evidence["value of the chord there"] == pytest.approx(chord)


def test_a_kink_of_the_hinge() -> None:
    evidence = examine("margin_loss", "smooth").evidence
    ends = evidence["point: scores"] + evidence["other point"]
    margins = [f if evidence["label"] else -f for f in ends]
    assert min(margins) <= 1 <= max(margins)
    assert evidence["distance"] == pytest.approx(abs(ends[0] - ends[1])) and max(ends) < 10
    assert evidence["distance"] < 1e-6
    sizes = sorted(abs(slope) for (slope,) in evidence["the gradient at both"])
    assert sizes == pytest.approx([0, 1])


def test_a_ray_on_which_cross_entropy_rises() -> None:
    evidence = examine("cross_entropy", "bounded above").evidence
    start, direction, label = (
        evidence[name] for name in ("ray from", "direction: logits", "label")
    )
    for t, value in zip(evidence["multiplied by"], evidence["values"], strict=True):
        z = [x + t * d for x, d in zip(start, direction, strict=True)]
        top = max(z)
        expected = top + math.log(sum(math.exp(x - top) for x in z)) - z[int(label)]
        assert value == pytest.approx(expected)


def test_a_jump_of_a_value() -> None:
    evidence = examine("correctness_aware_loss", "Lipschitz").evidence
    assert evidence["distance"] < 1e-6
    first, second = (value for (value,) in evidence["the value at both"])
    assert abs(first - second) > 0.1


def test_distances_stay_distances() -> None:
    evidence = examine("harmonic_loss", "convex").evidence
    assert min(evidence["one end: distances"] + evidence["other end"]) >= 0
    lowest = examine("harmonic_loss", "bounded below").evidence
    assert min(lowest["point: distances"]) >= 0


def test_an_infimum_at_the_end_of_the_inputs() -> None:
    """The distance to the label: least at 0, and no loss of what is below."""

    def nearest(distances: Tensor, target: Tensor) -> Tensor:
        if bool((distances < 0).any()):
            raise ValueError("distances must not be negative")
        return distances.gather(1, target.unsqueeze(1)).squeeze(1)

    found = examine(nearest, "bounded below", "distances, target")
    assert found.value == pytest.approx(0, abs=1e-9)
    assert min(found.evidence["point: distances"]) >= 0


def test_points_stay_in_the_ball() -> None:
    """pairwise_confusion_loss has curvature -0.1: its points are shorter than the root of 10."""
    for name in ("bounded above", "convex", "Lipschitz"):
        evidence = examine("pairwise_confusion_loss", name).evidence
        points = [value for key, value in evidence.items() if "points" in key or "other" in key]
        norms = torch.tensor(points).reshape(-1, 4).norm(dim=1)
        assert norms.max() < 10**0.5


# --- Every kind, and a reader's own loss ------------------------------------------------------

# One loss of each kind, and one that couples a batch that has a target.
EXAMPLES = {kind_of(loss): name for name, loss in LOSSES.items()} | {"coupled": "ens_loss"}


@pytest.mark.parametrize("name", EXAMPLES.values(), ids=list(EXAMPLES))
def test_every_kind_is_examined(name: str) -> None:
    subject = Subject(name, LOSSES[name], kind_of(LOSSES[name]))
    for function in PROPERTIES.values():
        finding = function(subject, 2)
        untried = "the edge of the inputs was not tried" in finding.text
        assert finding.verdict in ("refuted", "measured" if untried else "not refuted")
        assert finding.trials == 2
        assert "nan" not in json.dumps(finding.evidence, allow_nan=True).lower()


def own(logits: Tensor, target: Tensor) -> Tensor:
    """The mean alone, and no reduction to choose."""
    return torch.nn.functional.cross_entropy(logits, target)


def looking(logits: Tensor, target: Tensor) -> Tensor:
    """Looks at its values, which a vectorized loss cannot."""
    assert float(logits.detach().sum()) == float(logits.detach().sum())
    return torch.nn.functional.cross_entropy(logits, target)


@pytest.mark.parametrize("loss", [own, looking, torch.nn.CrossEntropyLoss()])
def test_a_readers_own_loss(loss: Any) -> None:
    for name in PROPERTIES:
        known = contract(LOSSES["cross_entropy"], trials=20, properties=[name])[name]
        found = contract(loss, kind="logits, target", trials=20, properties=[name])[name]
        assert found.verdict == known.verdict
        assert (found.value is None) == (known.value is None)
        if known.value is not None:
            assert found.value == pytest.approx(known.value, abs=1e-6)


def test_a_single_trial_is_enough() -> None:
    for name in ("compactness_loss", "margin_loss", "nt_xent_loss"):
        found = contract(LOSSES[name], trials=1, properties=list(PROPERTIES))
        assert {finding.trials for finding in found.findings.values()} == {1}


def test_a_loss_that_is_at_fault_says_so() -> None:
    def broken(logits: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        examine(broken, "convex", "logits, target")


def test_a_loss_without_values_says_so() -> None:
    with pytest.raises(ValueError, match="own has no value at ordinary inputs"):
        contract(
            lambda scores, target: scores * torch.nan,
            kind="scores, target",
            name="own",
            properties=["convex"],
        )


# --- The search beneath -----------------------------------------------------------------------


def subject_of(name: str) -> Subject:
    return Subject(name, LOSSES[name], kind_of(LOSSES[name]))


def test_losses_of_single_examples() -> None:
    assert by_example(subject_of("cross_entropy"))
    assert by_example(subject_of("checkered_regression_loss"))
    assert not by_example(subject_of("ens_loss"))
    assert not by_example(subject_of("info_nce_loss"))
    assert not by_example(subject_of("pretext_contrastive_loss"))


def test_a_value_for_each_example() -> None:
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    y = torch.tensor([0, 3, 2, 1, 1])
    expected = torch.nn.functional.cross_entropy(z, y, reduction="none")
    for loss in (own, looking, LOSSES["cross_entropy"]):
        values = per_example(Subject("own", loss, "logits, target"), (z,), y)
        torch.testing.assert_close(values, expected)
    entries = per_example(subject_of("poly_focal_loss"), (z,), y)
    torch.testing.assert_close(entries.sum(), 20 * LOSSES["poly_focal_loss"](z, y))


def test_partners_have_the_label_of_their_point() -> None:
    land = landscape(subject_of("cross_entropy"), 11)
    for i in range(11):
        j = int((land.points == land.partners[i]).all(1).nonzero()[0])
        assert j != i and land.labels[i] == land.labels[j]


def test_a_batch_is_one_point() -> None:
    subject = subject_of("info_nce_loss")
    land = landscape(subject, 3)
    x = land.points[1].reshape(2, kinds.N, kinds.C)
    expected = subject((x[0], x[1]), subject.target())
    torch.testing.assert_close(land.value(land.points, land.labels)[1], expected)


def test_derivatives() -> None:
    points = torch.tensor([[1.0, 2.0], [0.5, -1.0]]).double()
    slopes = gradient(lambda x: x[:, 0] ** 2 * x[:, 1], points)
    torch.testing.assert_close(slopes, torch.tensor([[4.0, 1.0], [-1.0, 0.25]]).double())
    matrices = hessian(lambda x: x[:, 0] ** 2 * x[:, 1], points)
    expected = torch.tensor([[[4.0, 2.0], [2.0, 0.0]], [[-2.0, 1.0], [1.0, 0.0]]]).double()
    torch.testing.assert_close(matrices, expected)
    assert (hessian(lambda x: x.sum(1), points) == 0).all()
    assert (gradient(lambda x: torch.ones(2), points) == 0).all()


def test_descent_comes_to_rest_in_valleys_and_at_kinks() -> None:
    start = torch.tensor([[3.0, -2.0], [-8.0, 9.0]]).double()
    point, value = descend(lambda x: (x - 1).square() @ torch.tensor([1.0, 30.0]).double(), start)
    assert value.max() < 1e-9 and (point - 1).abs().max() < 1e-4
    point, value = descend(lambda x: (x[:, 0] - x[:, 1]).abs() + 0.1 * x.abs().sum(1), start)
    assert value.max() < 1e-6


def test_descent_follows_a_minimum_to_infinity_and_keeps_the_best() -> None:
    start = torch.zeros(1, 2).double()
    _, value = descend(lambda x: 1 - x.softmax(1)[:, 0], start)
    assert value < 1e-6
    # Each row has its own first step; one too short gets longer, one too long is taken back.
    first = torch.tensor([1e-3, 100.0]).double().reshape(2, 1, 1)
    point, _ = descend(lambda x: (x - 50).square().sum(1), start.repeat(2, 1), first=first)
    assert (point - 50).abs().max() < 1e-6


def test_descent_comes_back_from_where_there_is_no_value() -> None:
    start = torch.full((1, 2), 3.0).double()
    point, value = descend(lambda x: (x - x.log()).sum(1), start, first=50.0)
    assert value == pytest.approx(2) and (point - 1).abs().max() < 1e-4


def test_once_remembers_the_latest_subject_and_trials() -> None:
    calls = []

    @once
    def count(subject: Subject, trials: int) -> int:
        calls.append((subject.name, trials))
        return len(calls)

    first, second = subject_of("cross_entropy"), subject_of("cross_entropy")
    assert [count(first, 5), count(first, 5), count(first, 6), count(second, 6)] == [1, 1, 2, 3]
    assert count(first, 5) == 4
