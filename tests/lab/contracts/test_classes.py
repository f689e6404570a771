"""Labels and probabilities: least risks in closed form and by linear programming, and evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from lossbook.classification import exponential, logistic, squared, squared_hinge
from lossbook.lab.contracts import Finding, classes, contract, kinds
from lossbook.lab.contracts.classes import PROPERTIES, minima
from lossbook.lab.contracts.kinds import Subject, kind_of
from lossbook.lab.contracts.search import ONE_BY_ONE

LOSSES = kinds.losses()
FEW = 20


@cache
def subject_of(name: str, *settings: tuple[str, Any]) -> Subject:
    return Subject(name, LOSSES[name], kind_of(LOSSES[name]), dict(settings))


def examine(name: str, *properties: str, **settings: Any) -> list[Finding]:
    subject = subject_of(name, *settings.items())
    return [PROPERTIES[each](subject, FEW) for each in properties]


# --- The search finds the least risk ----------------------------------------------------------


def entropy(q: Tensor) -> Tensor:
    return -(q * q.log()).sum(1)


def of_squares(q: Tensor, k: float, m: float) -> Tensor:
    """rescaled_square_loss: each logit has a quadratic of its own, q k (z - M)^2 + (1 - q) z^2."""
    return (q * k * (1 - q) * m**2 / (q * k + 1 - q)).sum(1) / q.shape[1]


LEAST: list[tuple[str, dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ("cross_entropy", {}, entropy),
    ("comp_sum_loss", {"tau": 0.0}, lambda q: q.sqrt().sum(1).square() - 1),
    ("comp_sum_loss", {"tau": 2.0}, lambda q: 1 - q.amax(1)),
    ("brier_loss", {}, lambda q: 1 - q.square().sum(1)),
    ("spherical_loss", {}, lambda q: 1 - q.norm(dim=1)),
    ("spherical_softmax_loss", {}, entropy),
    ("harmonic_loss", {"epsilon": 0.0}, entropy),
    ("sparsemax_loss", {}, lambda q: (1 - q.square().sum(1)) / 2),
    ("entmax_loss", {}, lambda q: (q - q**1.5).sum(1) / 0.75),
    ("rescaled_square_loss", {}, lambda q: of_squares(q, 1, 1)),
    ("rescaled_square_loss", {"scale": 15.0, "magnitude": 30.0}, lambda q: of_squares(q, 15, 30)),
    ("margin_loss", {}, lambda q: 2 * q.amin(1)),
    ("margin_loss", {"phi": logistic}, entropy),
    ("margin_loss", {"phi": exponential}, lambda q: 2 * q.prod(1).sqrt()),
    ("margin_loss", {"phi": squared}, lambda q: 4 * q.prod(1)),
    ("margin_loss", {"phi": squared_hinge}, lambda q: 4 * q.prod(1)),
    # The least of q_k losses k of the margin, the others at -(C - 1) times it, at C times the rest.
    ("lee_lin_wahba_loss", {}, lambda q: 3 * (1 - q.amax(1))),
]


def titled(name: str, settings: dict[str, Any]) -> str:
    words = [f"{key}={getattr(value, '__name__', value)}" for key, value in settings.items()]
    return "-".join([name, *words])


@pytest.mark.parametrize(
    ("name", "settings", "least"), LEAST, ids=[titled(*row[:2]) for row in LEAST]
)
def test_least_risk(name: str, settings: dict[str, Any], least: Callable[[Tensor], Tensor]) -> None:
    found = minima(subject_of(name, *settings.items()), FEW)
    torch.testing.assert_close(found.least, least(found.q), rtol=0, atol=3e-5)
    assert (found.least >= least(found.q) - 1e-9).all()
    torch.testing.assert_close(found.game.risk(found.best, found.q), found.least)


def hinge_program(name: str, q: list[float], leader: int | None) -> float:
    """The least conditional risk of a hinge loss, exactly: a linear program.

    Variables are z and a slack for each hinge, which is at least 0 and at least 1 - its margin.
    """
    c = len(q)
    cost, rows, bounds = [0.0] * c, [], []

    def hinge(weight: float, *margins: list[float]) -> None:
        """weight * max(0, 1 - the least of the margins)."""
        cost.append(weight)
        rows.extend((margin, len(cost) - 1) for margin in margins)

    unit = np.eye(c)
    for y in range(c):
        rivals = [k for k in range(c) if k != y]
        if name == "crammer_singer_loss":
            hinge(q[y], *[unit[y] - unit[k] for k in rivals])
        else:
            centered = {k: -(unit[k] - 1 / c) for k in rivals}
            pairs = {k: unit[y] - unit[k] for k in rivals}
            margins = centered if name == "lee_lin_wahba_loss" else pairs
            for k in rivals:
                hinge(q[y], margins[k])
    matrix, right = [], []
    for margin, slack in rows:  # 1 - margin . z <= slack
        row = np.zeros(len(cost))
        row[:c] = -np.asarray(margin)
        row[slack] = -1
        matrix.append(row)
        right.append(-1)
    if leader is not None:
        for k in range(c):
            row = np.zeros(len(cost))
            row[:c] = unit[k] - unit[leader]
            matrix.append(row)
            right.append(0)
    bounds = [(-20, 20)] * c + [(0, None)] * (len(cost) - c)
    return float(linprog(cost, np.array(matrix), right, bounds=bounds).fun)


@pytest.mark.parametrize(
    "name", ["crammer_singer_loss", "weston_watkins_loss", "lee_lin_wahba_loss"]
)
def test_least_risk_of_hinges_by_linear_programming(name: str) -> None:
    found = minima(subject_of(name), FEW)
    for i, q in enumerate(found.q.tolist()):
        assert float(found.least[i]) == pytest.approx(hinge_program(name, q, None), abs=1e-4)
        for k in range(3):
            exact = hinge_program(name, q, k)
            assert float(found.led_risk[i, k]) == pytest.approx(exact, abs=1e-4)


def test_a_leader_leads() -> None:
    found = minima(subject_of("cross_entropy"), FEW)
    torch.testing.assert_close(
        found.game.risk(found.led.flatten(0, 1), found.q.repeat_interleave(3, 0)),
        found.led_risk.flatten(),
    )
    for k in range(3):
        others = found.led[:, k, [j for j in range(3) if j != k]]
        assert (found.led[:, k, k, None] - others).min() >= classes.STRICT * 0.99


def test_least_risk_under_a_leader_pools_those_that_would_lead_it() -> None:
    """For cross-entropy: the leader and all likelier classes share their probability evenly."""
    found = minima(subject_of("cross_entropy"), FEW)
    for q, risks in zip(found.q.tolist(), found.led_risk.tolist(), strict=True):
        for k, risk in enumerate(risks):
            p, pool = list(q), {k}
            while max(p) > p[k] + 1e-12:
                pool.add(p.index(max(p)))
                for j in pool:
                    p[j] = sum(q[i] for i in pool) / len(pool)
            expected = -sum(a * math.log(b) for a, b in zip(q, p, strict=True))
            assert risk == pytest.approx(expected, abs=1e-5)


def test_distributions_are_of_all_sorts() -> None:
    q = minima(subject_of("cross_entropy"), 200).q
    torch.testing.assert_close(q.sum(1), torch.ones(200).double())
    assert 0.05 < (q.amax(1) < 0.5).double().mean() < 0.5  # 1/4 have no majority
    assert q.amax() > 0.95 and q.amin() > 0
    assert q.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.05)


# --- Proper -----------------------------------------------------------------------------------

PROPER: list[tuple[str, dict[str, Any], bool]] = [
    ("proper_loss", {}, True),
    (
        "weston_watkins_loss",
        {"phi": logistic},
        True,
    ),  # pairs of classes, each a logistic regression
    ("poly_focal_loss", {"gamma": 0.0, "epsilon": 0.0}, True),  # a logistic loss for each class
    ("poly_focal_loss", {}, False),
    ("sparse_softmax_loss", {"k": 2}, True),
    ("fenchel_young_loss", {}, True),
    ("squentropy_loss", {}, False),
    ("halted_focal_loss", {}, False),
    ("z_loss", {}, False),
]


@pytest.mark.parametrize(("name", "settings", "holds"), PROPER, ids=lambda x: str(x)[:30])
def test_proper(name: str, settings: dict[str, Any], holds: bool) -> None:
    (finding,) = examine(name, "proper", **settings)
    assert finding.verdict == ("not refuted" if holds else "refuted")
    assert finding.value is not None
    assert finding.value < 1e-3 if holds else finding.value > 0.05


def test_risks_in_the_evidence_against_propriety() -> None:
    evidence = examine("comp_sum_loss", "proper", tau=2.0)[0].evidence
    for logits, risk in (("logits of the truth", "their risk"), ("other logits", "risk of those")):
        weights = [math.exp(z) for z in evidence[logits]]
        p = [w / sum(weights) for w in weights]
        expected = sum(q * (1 - x) for q, x in zip(evidence["q"], p, strict=True))
        assert evidence[risk] == pytest.approx(expected)
        if logits == "logits of the truth":
            assert p == pytest.approx(evidence["q"])
    assert evidence["risk of those"] < evidence["their risk"] - 1e-3
    assert evidence["link"] == "the softmax"


def test_a_shift_that_leaves_the_truth_is_granted() -> None:
    """Cross-entropy, and a pull of the largest logit to zero: of all shifts one is best."""

    def anchored(logits: Tensor, target: Tensor) -> Tensor:
        plain = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        return plain + logits.logsumexp(1).square()

    found = contract(anchored, kind="logits, target", properties=["proper", "strictly proper"])
    assert [finding.verdict for finding in found.findings.values()] == ["not refuted"] * 2


def test_a_shift_that_does_not_leave_the_truth_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logistic loss for each class, of logits that are 1 too high: read as sigmoids, improper."""

    def lifted(logits: Tensor, target: Tensor) -> Tensor:
        labels = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits)
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        return bce(logits - 1, labels, reduction="none").sum(1)

    monkeypatch.setitem(classes.LINKS, "lifted", lambda x, **_: x.sigmoid())
    found = contract(lifted, kind="logits, target", trials=20, properties=["proper"])["proper"]
    assert found.verdict == "refuted"


def test_a_constant_loss_is_proper_but_not_strictly() -> None:
    found = contract(
        lambda logits, target: 0 * logits.sum(1),
        kind="logits, target",
        properties=["proper", "strictly proper", "calibrated"],
    )
    assert found["proper"].verdict == "not refuted"
    assert found["strictly proper"].verdict == "refuted"
    assert found["calibrated"].verdict == "refuted"


def test_a_link_of_ones_own() -> None:
    def cooled(logits: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits / 3, target)

    def halved(scores: Tensor, target: Tensor) -> Tensor:
        signs = 2 * target - 1
        return torch.nn.functional.softplus(-signs * scores / 2)

    def verdict(loss: Callable[..., Tensor], kind: str, **link: Any) -> str:
        found = contract(loss, kind=kind, properties=["proper"], **link)["proper"]
        assert ("its own link" in found.text) == bool(link)
        return found.verdict

    assert verdict(cooled, "logits, target") == "refuted"
    assert verdict(cooled, "logits, target", link=lambda x: (x / 3).softmax(1)) == "not refuted"
    assert verdict(halved, "scores, target") == "refuted"
    assert verdict(halved, "scores, target", link=lambda f: (f / 2).sigmoid()) == "not refuted"


# --- Decisions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["crammer_singer_loss", "weston_watkins_loss"])
def test_wrong_decisions_that_cost_nothing(name: str) -> None:
    """Exactly: by linear programming, under the q of the evidence."""
    evidence = examine(name, "calibrated")[0].evidence
    q, wrong = evidence["q"], evidence["logits that decide for a less likely class"]
    k = wrong.index(max(wrong))
    assert q[k] <= max(q) - classes.LEAD
    assert sorted(wrong)[-1] > sorted(wrong)[-2]
    assert hinge_program(name, q, k) == pytest.approx(hinge_program(name, q, None), abs=1e-9)
    assert evidence["their risk"] == pytest.approx(hinge_program(name, q, None), abs=1e-4)


CALIBRATED: list[tuple[str, dict[str, Any], bool]] = [
    ("z_loss", {}, True),
    ("squentropy_loss", {}, True),
    ("rescaled_square_loss", {"scale": 15.0, "magnitude": 30.0}, True),  # its minima are far out
    ("poly_focal_loss", {}, True),
    ("correctness_aware_loss", {}, False),
    ("vector_scaling_loss", {}, False),
    ("sparse_softmax_loss", {"k": 1}, False),  # the perceptron's loss: equal scores cost nothing
]


@pytest.mark.parametrize(("name", "settings", "holds"), CALIBRATED, ids=lambda x: str(x)[:30])
def test_calibrated(name: str, settings: dict[str, Any], holds: bool) -> None:
    (finding,) = examine(name, "calibrated", **settings)
    assert finding.verdict == ("not refuted" if holds else "refuted")


def test_the_hinge_charges_what_the_error_costs() -> None:
    """At a score of zero the hinge loss is 1, at best 2 min(q): the difference is the lead."""
    (finding,) = examine("margin_loss", "calibrated")
    assert finding.value == pytest.approx(abs(1 - 2 * finding.evidence["q"][0]), abs=1e-5)


# --- Symmetry and invariance ------------------------------------------------------------------


def test_the_sum_over_labels() -> None:
    (finding,) = examine("comp_sum_loss", "symmetric", tau=2.0)
    assert finding.verdict == "not refuted"
    assert finding.evidence["their sum"] == pytest.approx(3)  # of four classes
    (finding,) = examine("brier_loss", "symmetric")
    for inputs, total in (("inputs", "their sum"), ("other inputs", "the sum of those")):
        p = torch.tensor(finding.evidence[inputs][0]).double().softmax(0)
        expected = sum((p - torch.eye(4)[k]).square().sum() for k in range(4))
        assert finding.evidence[total] == pytest.approx(float(expected))


def test_symmetry_of_losses_that_take_no_scores() -> None:
    assert examine("oko_loss", "symmetric")[0].verdict == "refuted"
    assert examine("checkered_regression_loss", "symmetric")[0].verdict == "refuted"
    assert examine("info_nce_loss", "symmetric")[0].verdict == "not applicable"
    # P(0 | x) + P(1 | x) = 1.
    finding = contract(
        lambda planes, target: (planes.tanh().prod(1) * (1 - 2 * target) + 1) / 2,
        kind="planes, target",
        properties=["symmetric"],
    )["symmetric"]
    assert finding.verdict == "not refuted"


INVARIANT = {
    "z_loss": ("not refuted", "not refuted", "not refuted"),
    "cross_entropy": ("not refuted", "refuted", "not refuted"),
    "spherical_softmax_loss": ("refuted", "refuted", "not refuted"),
    "harmonic_loss": ("refuted", "refuted", "not refuted"),
    "vector_scaling_loss": ("refuted", "refuted", "refuted"),
    "margin_loss": ("not applicable", "refuted", "not refuted"),
}


@pytest.mark.parametrize("name", INVARIANT)
def test_invariance(name: str) -> None:
    names = ("shift invariant", "scale invariant", "permutation equivariant")
    found = examine(name, *names)
    assert tuple(finding.verdict for finding in found) == INVARIANT[name]


def test_a_loss_that_prefers_a_class() -> None:
    def biased(scores: Tensor, target: Tensor) -> Tensor:
        return (1 + target) * (1 - (2 * target - 1) * scores).clamp(min=0)

    names = ["permutation equivariant", "calibrated"]
    found = contract(biased, kind="scores, target", properties=names)
    assert [finding.verdict for finding in found.findings.values()] == ["refuted", "refuted"]
    evidence = found[names[0]].evidence
    assert evidence["moved to"] == -evidence["inputs"]
    f, label = evidence["inputs"], int(evidence["label"])
    values = [
        float(biased(torch.tensor(x), torch.tensor(y))) for x, y in ((f, label), (-f, 1 - label))
    ]
    assert evidence["losses"] == pytest.approx(values)


# --- Gradients --------------------------------------------------------------------------------


def test_gradients_of_right_and_wrong_examples() -> None:
    right, wrong = examine("cross_entropy", "gradient when right", "gradient when wrong")
    rest = math.exp(-10) / (1 + 2 * math.exp(-10))  # the probability of each other class
    assert right.value == pytest.approx(rest * 6**0.5)
    assert wrong.value == pytest.approx((1 - math.exp(-10) / (2 + math.exp(-10))) * 1.5**0.5)
    right, wrong = examine("margin_loss", "gradient when right", "gradient when wrong")
    assert (right.value, wrong.value) == (0, 1)
    right, wrong = examine("harmonic_loss", "gradient when right", "gradient when wrong")
    assert right.evidence["inputs"] == pytest.approx([0.1, 10.1, 10.1])
    assert wrong.evidence["inputs"] == pytest.approx([10.1, 0.1, 0.1])


def test_the_optimum_may_be_smooth_a_kink_or_far_out() -> None:
    (smooth,) = examine("cross_entropy", "gradient at the optimum")
    assert smooth.value is not None and smooth.value < 1e-7
    assert smooth.evidence["median number of flat directions"] == 1  # the shift
    (kink,) = examine("margin_loss", "gradient at the optimum")
    assert kink.evidence["largest norm"] > 0.05
    assert kink.evidence["median spread of the inputs"] == pytest.approx(1, abs=1e-4)
    (far,) = examine("comp_sum_loss", "gradient at the optimum", tau=2.0)
    assert far.evidence["median number of flat directions"] == 3
    assert far.evidence["median spread of the inputs"] > 10


# --- Every kind, and a reader's own loss ------------------------------------------------------

EXAMPLES = {kind_of(loss): name for name, loss in LOSSES.items()} | {"coupled": "ens_loss"}


@pytest.mark.parametrize("name", EXAMPLES.values(), ids=list(EXAMPLES))
def test_every_kind_is_examined(name: str) -> None:
    subject = Subject(name, LOSSES[name], kind_of(LOSSES[name]))
    for key, function in PROPERTIES.items():
        finding = function(subject, 1)
        scores = subject.kind_name in ("logits, target", "distances, target", "scores, target")
        if not scores and key != "symmetric":
            assert finding.verdict == "not applicable"
        assert "nan" not in json.dumps(finding.evidence, allow_nan=True).lower()


def test_a_loss_of_its_batch_has_no_risk_of_one_example() -> None:
    (finding,) = examine("ens_loss", "proper")
    assert finding.verdict == "not applicable" and "batch" in finding.text


def looking(logits: Tensor, target: Tensor) -> Tensor:
    """A mean that looks at its values, which a vectorized loss cannot."""
    assert float(logits.detach().sum()) == float(logits.detach().sum())
    return torch.nn.functional.cross_entropy(logits, target)


def alone(logits: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


@pytest.mark.parametrize(
    "loss", [torch.nn.functional.cross_entropy, alone, torch.nn.CrossEntropyLoss()]
)
def test_a_readers_own_loss(loss: Any) -> None:
    found = contract(loss, kind="logits, target", trials=20, properties=list(PROPERTIES))
    known = contract(LOSSES["cross_entropy"], trials=20, properties=list(PROPERTIES))
    for name, finding in found.findings.items():
        assert finding.verdict == known[name].verdict
        assert finding.value == pytest.approx(known[name].value, abs=1e-6)


def test_a_loss_that_cannot_be_vectorized_has_fewer_trials() -> None:
    short = contract(looking, kind="logits, target", properties=["shift invariant"])
    assert short["shift invariant"].trials == ONE_BY_ONE
    found = contract(looking, kind="logits, target", trials=1, properties=["proper", "symmetric"])
    assert found["proper"].verdict == "not refuted"
    assert found["symmetric"].verdict == "not refuted"  # at the only point
