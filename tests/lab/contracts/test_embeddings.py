"""What is said of losses on embeddings, against closed forms and against losses made to have a property."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossbook.lab.contracts import Finding, contract, kinds
from lossbook.lab.contracts.embeddings import LAYOUTS, PROPERTIES, _rotations
from lossbook.lab.contracts.kinds import Subject, kind_of

LOSSES = {name: loss for name, loss in kinds.losses().items() if kind_of(loss) in LAYOUTS}
PAIRS = "anchor, positive"

Array = NDArray[np.float64]


def found(name: str, which: str, trials: int = 50, **settings: Any) -> Finding:
    loss = LOSSES[name]
    return PROPERTIES[which](Subject(name, loss, kind_of(loss), settings), trials)


def of_own(loss: Callable[..., Tensor], kind: str, which: str) -> Finding:
    return contract(loss, kind=kind, trials=50, properties=[which])[which]


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_the_losses_of_embeddings_are_examined() -> None:
    assert {"info_nce_loss", "supervised_contrastive_loss", "uniformity_loss"} <= set(LOSSES)
    assert {"normalized_softmax_loss", "dispersion_loss", "alignment_loss"} <= set(LOSSES)


@pytest.mark.parametrize("name", ["cross_entropy", "margin_loss", "icon_loss", "harmonic_loss"])
def test_other_losses_have_no_embeddings(name: str) -> None:
    loss = kinds.losses()[name]
    subject = Subject(name, loss, kind_of(loss))
    assert {f(subject, 5).verdict for f in PROPERTIES.values()} == {"not applicable"}


# --- What it sees -----------------------------------------------------------------------------

# Features have names (hrr, cross-correlation); lengths count (the ball, the oblique manifold, a
# linear layer's logits); pairs are made by position (the halves of a batch).
REFUTED = {
    "rotation invariant": {"hrr_loss", "cross_correlation_loss"},
    "norm invariant": {
        "hrr_loss", "hybrid_contrastive_loss", "noisy_softmax_loss", "norm_loss",
        "one_class_hyperbolic_loss", "pairwise_confusion_loss",
    },
    "order invariant": {"pairwise_confusion_loss"},
}  # fmt: skip


@pytest.mark.parametrize("which", REFUTED)
def test_what_a_loss_does_not_see(which: str) -> None:
    verdicts = {name: found(name, which).verdict for name in LOSSES}
    assert {name for name, verdict in verdicts.items() if verdict == "refuted"} == REFUTED[which]
    assert set(verdicts.values()) == {"refuted", "not refuted"}


def test_rotations_turn_and_do_not_mirror() -> None:
    drawn = _rotations(50, torch.Generator().manual_seed(0)).numpy()
    np.testing.assert_allclose(drawn @ drawn.mT, np.eye(4)[None].repeat(50, 0), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(drawn), 1)
    assert np.abs(drawn.mean(0)).max() < 0.3  # in all directions


def test_the_rotation_that_refutes() -> None:
    evidence = found("cross_correlation_loss", "rotation invariant").evidence
    x, y, rotation = (np.array(evidence[k]) for k in ("anchor", "positive", "rotation"))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(4), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)

    def barlow(x: Array, y: Array) -> float:
        a, b = ((v - v.mean(0)) / v.std(0) for v in (x, y))
        c = a.T @ b / len(x)
        off = np.sum(c**2) - np.sum(np.diag(c) ** 2)
        return float(np.sum((1 - np.diag(c)) ** 2) + 0.005 * off)

    assert barlow(x, y) == pytest.approx(evidence["value before"])
    assert barlow(x @ rotation.T, y @ rotation.T) == pytest.approx(evidence["value after"])
    assert evidence["value before"] != pytest.approx(evidence["value after"], rel=0.01)


def half_distances(x: Array, c: float = 0.1) -> float:
    """Half the mean hyperbolic distance between the halves, from the area cosine."""
    a, b = np.split(x, 2)
    room = (1 - c * (a**2).sum(1)) * (1 - c * (b**2).sum(1))
    distance = np.arccosh(1 + 2 * c * ((a - b) ** 2).sum(1) / room) / math.sqrt(c)
    return float(distance.mean() / 2)


def test_the_factor_that_refutes() -> None:
    evidence = found("pairwise_confusion_loss", "norm invariant").evidence
    x, factor = np.array(evidence["points"]), evidence["factor"]
    assert half_distances(x) == pytest.approx(evidence["value before"])
    assert half_distances(factor * x) == pytest.approx(evidence["value after"])


def test_the_order_that_refutes() -> None:
    evidence = found("pairwise_confusion_loss", "order invariant").evidence
    x, order = np.array(evidence["points"]), evidence["order"]
    assert sorted(order) == list(range(len(x)))
    assert half_distances(x) == pytest.approx(evidence["value before"])
    assert half_distances(x[order]) == pytest.approx(evidence["value after"])


def test_labels_move_with_their_examples() -> None:
    """Also where the labels matter: a class that counts twice."""

    def twice(embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.square().sum(1) * (1 + labels)

    finding = of_own(twice, "embeddings, labels", "order invariant")
    assert finding.verdict == "not refuted"
    assert finding.evidence["largest change"] < 1e-12
    assert finding.trials == 50


def test_prototypes_turn_with_the_embeddings() -> None:
    def distance(embeddings: Tensor, target: Tensor, *, prototypes: Tensor) -> Tensor:
        return (embeddings - prototypes[target]).square().sum(1)

    def to_the_axes(embeddings: Tensor, target: Tensor) -> Tensor:
        return (embeddings - torch.eye(4, dtype=embeddings.dtype)[target]).square().sum(1)

    kind = "embeddings, target"
    assert of_own(distance, kind, "rotation invariant").verdict == "not refuted"
    assert of_own(to_the_axes, kind, "rotation invariant").verdict == "refuted"
    assert of_own(distance, kind, "norm invariant").verdict == "refuted"


def test_one_factor_for_all_is_not_a_factor_for_each() -> None:
    def relative(embeddings: Tensor) -> Tensor:
        lengths = embeddings.norm(dim=1)
        return lengths / lengths.sum()

    def directions(embeddings: Tensor) -> Tensor:
        return (embeddings / embeddings.norm(dim=1, keepdim=True)).mean(0).norm()

    def first(embeddings: Tensor) -> Tensor:
        return relative(embeddings)[0]

    one, each, other = (
        of_own(loss, "embeddings", "norm invariant") for loss in (first, directions, lambda e: e)
    )
    assert one.verdict == "not refuted" and "a factor for each embedding takes" in one.text
    assert each.verdict == "not refuted" and "takes" not in each.text
    assert other.verdict == "refuted"


def test_a_loss_that_looks_at_values_is_called_trial_by_trial() -> None:
    def looks(anchor: Tensor, positive: Tensor) -> Tensor:
        distance = (anchor - positive).norm()
        return distance if float(distance) > 0.1 else 0 * distance

    assert of_own(looks, PAIRS, "rotation invariant").verdict == "not refuted"
    assert of_own(looks, PAIRS, "norm invariant").verdict == "refuted"


# --- Where it wants them ----------------------------------------------------------------------

SIMPLEX = [
    "adaptive_multi_head_loss", "align_uniform_loss", "cacr_loss", "compactness_loss",
    "decoupled_contrastive_loss", "dispersion_loss", "hybrid_contrastive_loss", "info_loob_loss",
    "info_nce_loss", "multistage_contrastive_loss", "noisy_softmax_loss", "normalized_softmax_loss",
    "nspt_loss", "nt_xent_loss", "pretext_contrastive_loss", "robust_global_contrastive_loss",
    "supervised_contrastive_in_loss", "supervised_contrastive_loss", "uniformity_loss",
    "weighted_decoupled_contrastive_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", SIMPLEX)
def test_contrast_leads_to_a_simplex(name: str) -> None:
    finding = found(name, "minimizer", trials=1)
    assert "at the corners of a simplex" in finding.text and "not at" not in finding.text
    assert finding.value is not None and finding.value < 1e-3
    points = unit(np.array(finding.evidence["points"]))
    corners = points.mean(0)
    assert np.abs(points - corners).max() < 0.01  # the groups have collapsed
    if name == "multistage_contrastive_loss":  # a triangle in each of two clusters
        corners = corners[::2]
    size = len(corners)
    gram = corners @ corners.T
    np.testing.assert_allclose(gram, (size * np.eye(size) - 1) / (size - 1), atol=0.01)


# With τ the temperature: a pair has one positive and, at a simplex of 5, negatives at -1/4; three
# examples of a class have two positives and nine negatives at -1/3.
SMALLEST = {
    "info_nce_loss": math.log(1 + 4 * math.exp(-1.25 / 0.1)),
    "nt_xent_loss": math.log(1 + 8 * math.exp(-1.25 / 0.5)),
    "decoupled_contrastive_loss": math.log(8) - 1.25 / 0.1,
    "supervised_contrastive_loss": math.log(2 + 9 * math.exp(-4 / 3 / 0.1)),
    "normalized_softmax_loss": math.log1p(3 * math.exp(-16 * 4 / 3)),
    "compactness_loss": math.log1p(3 * math.exp(-10 * 4 / 3)),
    "dispersion_loss": -1 / (4 * 0.1),
    "uniformity_loss": -2 * 2 * (1 + 1 / 4),
    "align_uniform_loss": -2 * 2 * (1 + 1 / 4),
    "multistage_contrastive_loss": math.log(1 + 4 * math.exp(-1.5 / 0.5)),
    "alignment_loss": 0.0,
    "pairwise_confusion_loss": 0.0,
    "cross_correlation_loss": 0.0,
    "norm_loss": 0.0,
    "hrr_loss": 0.0,
}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_value_is_the_known_one(name: str) -> None:
    evidence = found(name, "minimizer", trials=2).evidence
    assert evidence["value"] == pytest.approx(SMALLEST[name], rel=1e-4, abs=1e-7)
    assert evidence["value"] == min(evidence["values from the starts"])


def test_what_only_attracts_may_collapse() -> None:
    for name in ("alignment_loss", "pairwise_confusion_loss"):
        finding = found(name, "minimizer")
        assert finding.text.startswith("each pair at one point, anywhere: all at one point")
        assert finding.evidence["value with all at one point"] == 0


def test_what_attracts_all_collapses() -> None:
    def together(embeddings: Tensor) -> Tensor:
        return (embeddings - embeddings.mean(0)).square().sum()

    finding = of_own(together, "embeddings", "minimizer")
    assert finding.text.startswith("all at one point")
    assert finding.evidence["spread of all"] < 1e-6
    assert found("norm_loss", "minimizer").text.startswith("directions are free")


def test_what_repels_its_own_pair() -> None:
    def apart(anchor: Tensor, positive: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(anchor, positive)

    finding = of_own(apart, PAIRS, "minimizer")
    assert finding.text.startswith("the points of a pair are not at one point")
    assert finding.evidence["spread within groups"] == pytest.approx(1)
    a, b = np.array(finding.evidence["points"])
    np.testing.assert_allclose(a, -b, atol=1e-3)


def test_classes_at_fixed_places() -> None:
    """Neither a point nor a simplex: orthogonal axes, at the length that the loss asks for."""

    def to_the_axes(embeddings: Tensor, target: Tensor) -> Tensor:
        return (embeddings - 2 * torch.eye(4, dtype=embeddings.dtype)[target]).square().sum(1)

    finding = of_own(to_the_axes, "embeddings, target", "minimizer")
    assert "not at the corners of a simplex" in finding.text
    assert "length 2.00, at most 3; reached from 5 of 5 starts" in finding.text
    # The Gram matrices I/2 and (4 I - 1)/3 over its norm sqrt(16/3).
    etf = (4 * np.eye(4) - 1) / 3
    distance = np.linalg.norm(np.eye(4) / 2 - etf / np.linalg.norm(etf))
    assert finding.value == pytest.approx(distance, abs=1e-5)


def test_longer_is_better_without_normalization() -> None:
    finding = found("noisy_softmax_loss", "minimizer", trials=1)
    assert "length 3.00, at most 3" in finding.text


def test_a_better_arrangement_than_the_descent_finds_is_named() -> None:
    """A loss with kinks stops the descent; the simplex is still known to be better."""
    finding = found("hard_contrastive_loss", "minimizer", trials=2)
    assert finding.text.startswith("a simplex of the 5 pairs, better than the points found")
    simplex = math.log(1 + math.exp(-1.25))  # one negative is kept, τ is 1
    assert finding.evidence["value with a simplex"] == pytest.approx(simplex)
    assert finding.evidence["value"] > simplex


def test_decorrelation_needs_no_simplex() -> None:
    finding = found("cross_correlation_loss", "minimizer", trials=1)
    assert "but the points found are as good" in finding.text
    assert finding.evidence["value with all at one point"] == pytest.approx(4)  # D


def test_points_are_sought_inside_the_ball() -> None:
    for c in (0.1, 1.0):
        finding = found("pairwise_confusion_loss", "minimizer", trials=1, c=c)
        assert finding.evidence["lengths"][1] < c**-0.5
        assert finding.text.startswith("each pair at one point, anywhere")


def test_what_shrinks_ends_at_the_origin() -> None:
    finding = of_own(lambda embeddings: embeddings.square().sum(1), "embeddings", "minimizer")
    assert finding.evidence["value"] == pytest.approx(0, abs=1e-9)
    assert "length 0.00" in finding.text


def test_a_loss_of_another_dimension_is_refused_in_words() -> None:
    def five(embeddings: Tensor, labels: Tensor) -> Tensor:
        return (embeddings - torch.ones(5, 4)).square().sum(1)

    finding = of_own(five, "embeddings, labels", "minimizer")
    assert finding.verdict == "not applicable"
    assert finding.text.startswith("it does not take 4 classes in 4 dimensions")


# --- Whom it pushes ---------------------------------------------------------------------------

HARD = np.array([0.8, 0.5, 0.2, -0.1])
FALSE = np.array([0.8, 0.0, 0.0, 0.0])


def info_nce(similarities: Array, positive: float, temperature: float) -> float:
    logits = np.array([positive, *similarities]) / temperature
    return float(np.log(np.exp(logits).sum()) - logits[0])


def nt_xent(similarities: Array, positive: float, temperature: float) -> float:
    """Both views of the other examples are negatives; half the example's loss is this anchor's."""
    logits = np.array([positive, *similarities, *similarities]) / temperature
    return float(np.log(np.exp(logits).sum()) - logits[0]) / 2


def decoupled(similarities: Array, positive: float, temperature: float) -> float:
    return float(np.log(2 * np.exp(similarities / temperature).sum()) - positive / temperature) / 2


def estimated(similarities: Array, positive: float, temperature: float) -> float:
    """Noise-contrastive estimate: the four others among 50 instances, log Z = 5."""
    offset = 5 + math.log(4 / 50)
    others = np.log1p(np.exp(similarities / temperature - offset)).sum()
    return float(np.log1p(math.exp(offset - positive / temperature)) + others)


def attraction_and_repulsion(similarities: Array, positive: float) -> float:
    """Both other views as negatives, with equal weights: twice the same sum over two."""
    cost = 2 - 2 * similarities
    weights = np.exp(-cost) / np.exp(-cost).sum()
    return float(2 - 2 * positive - (weights * cost).sum()) / 2


def potential(similarities: Array, positive: float) -> float:
    """Mean potential of the ten pairs of anchor and negatives, which have an axis each besides."""
    rest = [
        np.exp(4 * (HARD[i] * HARD[j] - 1)) for i in range(4) for j in range(i)
    ]  # negatives among each other
    return float(np.log((np.exp(4 * (similarities - 1)).sum() + sum(rest)) / 10))


def slopes(loss: Callable[..., float], similarities: Array, *arguments: float) -> Array:
    h = 1e-6
    return np.array(
        [
            (loss(similarities + h * e, *arguments) - loss(similarities - h * e, *arguments))
            / (2 * h)
            for e in np.eye(len(similarities))
        ]
    )


@pytest.mark.parametrize(
    ("name", "loss", "temperature"),
    [
        ("info_nce_loss", info_nce, 0.1),
        ("nt_xent_loss", nt_xent, 0.5),
        ("decoupled_contrastive_loss", decoupled, 0.1),
        ("multistage_contrastive_loss", nt_xent, 0.5),
        ("instance_nce_loss", estimated, 0.07),
        ("uniformity_loss", potential, None),
    ],
)
def test_forces_are_derivatives_by_similarity(
    name: str, loss: Callable[..., float], temperature: float | None
) -> None:
    finding = found(name, "hard negatives")
    forces = finding.evidence["forces on the negatives"]
    assert finding.value == pytest.approx(forces[0] / forces[2])
    assert finding.evidence["similarities of the negatives"] == HARD.tolist()
    known = [0.8] if temperature is None else [0.8, temperature]
    np.testing.assert_allclose(forces, slopes(loss, HARD, *known), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 2.0])
def test_a_false_negatives_share_is_that_of_the_softmax(temperature: float) -> None:
    finding = found("info_nce_loss", "false negatives", temperature=temperature)
    share = 1 / (1 + 3 * math.exp(-0.8 / temperature))
    assert finding.value == pytest.approx(share)
    assert finding.verdict == "measured"
    np.testing.assert_allclose(
        finding.evidence["forces on the negatives"],
        slopes(info_nce, FALSE, 0.8, temperature),
        rtol=1e-4,
        atol=1e-8,
    )


@pytest.mark.parametrize("name", ["info_nce_loss", "nt_xent_loss", "supervised_contrastive_loss"])
def test_a_lower_temperature_singles_out_false_negatives(name: str) -> None:
    shares = [
        found(name, "false negatives", temperature=tau).value for tau in (10.0, 1.0, 0.3, 0.1)
    ]
    assert shares == sorted(shares)  # type: ignore[type-var]
    assert shares[0] == pytest.approx(0.25, abs=0.02)  # an even share


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_hardness_grows_exponentially(tau: float) -> None:
    for name in ("info_nce_loss", "nt_xent_loss", "decoupled_contrastive_loss"):
        finding = found(name, "hard negatives", temperature=tau)
        assert finding.value == pytest.approx(math.exp(0.6 / tau))
    assert found("uniformity_loss", "hard negatives", t=3.0).value == pytest.approx(math.exp(3.6))


def test_hard_negatives_alone_count_for_the_hard_loss() -> None:
    hard = found("hard_contrastive_loss", "hard negatives", share=0.5, temperature=1.0)
    plain = found("info_nce_loss", "hard negatives", temperature=1.0)
    kept = hard.evidence["forces on the negatives"]
    assert [force > 0 for force in kept] == [True, True, False, False]
    assert all(plain.evidence["forces on the negatives"][i] < kept[i] for i in (0, 1))
    assert hard.value == math.inf and "0.8 is pushed, one at 0.2 is left alone" in hard.text
    assert found("hard_contrastive_loss", "false negatives").value == 1


def test_decoupling_takes_the_positive_out_of_the_push() -> None:
    key = "push with the positive at 0.95, of that at 0.2"
    for name in ("decoupled_contrastive_loss", "info_loob_loss", "robust_global_contrastive_loss"):
        assert found(name, "hard negatives").evidence[key] == pytest.approx(1)
    coupled = found("info_nce_loss", "hard negatives").evidence[key]
    near, far = (slopes(info_nce, HARD, s, 0.1).sum() for s in (0.95, 0.2))
    assert coupled == pytest.approx(near / far, rel=1e-4)
    assert coupled < 0.5


def test_far_negatives_are_pulled_where_the_weights_are_attached() -> None:
    forces = found("cacr_loss", "hard negatives").evidence["forces on the negatives"]
    reference = slopes(attraction_and_repulsion, HARD, 0.8)
    np.testing.assert_allclose(forces, reference, rtol=1e-4)
    assert forces[3] < 0 < forces[2]


def test_prototypes_of_other_classes_are_negatives() -> None:
    finding = found("normalized_softmax_loss", "false negatives", scale=5.0)
    assert finding.value == pytest.approx(1 / (1 + 3 * math.exp(-5 * 0.8)))


@pytest.mark.parametrize(
    "name",
    [
        "alignment_loss", "hrr_loss", "norm_loss", "one_class_hyperbolic_loss",
        "pairwise_confusion_loss", "cross_correlation_loss",
    ],
)  # fmt: skip
def test_where_nothing_is_pushed(name: str) -> None:
    for which in ("false negatives", "hard negatives"):
        finding = found(name, which)
        assert finding.verdict == "not applicable"
    assert ("no function of" in finding.text) == (name == "cross_correlation_loss")


def test_a_loss_of_ones_own() -> None:
    """A triplet loss: whoever is within the margin is pushed as hard as any other."""

    def triplet(anchor: Tensor, positive: Tensor) -> Tensor:
        u, v = (torch.nn.functional.normalize(x) for x in (anchor, positive))
        s = u @ v.T
        others = 1 - torch.eye(len(s), dtype=s.dtype)
        return ((0.7 + s - s.diag()[:, None]).clamp(min=0) * others).mean(1)

    measured = contract(triplet, kind=PAIRS, properties=list(PROPERTIES), trials=20)
    assert measured["rotation invariant"].verdict == "not refuted"
    assert measured["hard negatives"].value == pytest.approx(1)
    assert measured["hard negatives"].evidence["forces on the negatives"][3] == 0
    assert measured["false negatives"].value == pytest.approx(1)
    assert measured["minimizer"].evidence["value"] == pytest.approx(0, abs=1e-9)


def test_a_loss_that_pulls_what_is_near() -> None:
    """The force on a negative is 1 - 2 s, from (s - s^2)."""

    def clumps(embeddings: Tensor) -> Tensor:
        u = torch.nn.functional.normalize(embeddings)
        s = u @ u.T
        return (s - s.square()).sum(1)

    finding = of_own(clumps, "embeddings", "hard negatives")
    forces = finding.evidence["forces on the negatives"]
    np.testing.assert_allclose(forces, 1 - 2 * HARD, atol=1e-12)
    assert finding.text == "a negative at 0.8 is pulled, one at 0.2 is pushed"
    assert finding.value is None


# --- All of it --------------------------------------------------------------------------------


def test_findings_repeat_and_are_plain_data() -> None:
    names = [name for name in PROPERTIES if name != "minimizer"]
    for name, loss in LOSSES.items():
        once, again = (contract(loss, trials=5, properties=names).to_json() for _ in range(2))
        assert once == again, name
        assert json.loads(json.dumps(once)) == once, name
    once, again = (found("info_nce_loss", "minimizer", trials=1) for _ in range(2))
    assert once == again


def test_every_property_is_defined_in_a_sentence() -> None:
    for name, function in PROPERTIES.items():
        first = (function.__doc__ or "").splitlines()[0]
        assert first.endswith("."), name
