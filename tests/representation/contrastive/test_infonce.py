"""The InfoNCE family against loops in float64, closed-form gradients, limits, extremes, and bad input."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.representation import (
    decoupled_contrastive_loss,
    hard_contrastive_loss,
    info_loob_loss,
    info_nce_loss,
    mutual_information_bound,
    npc_multiplier,
    nt_xent_loss,
    relative_penalties,
    supervised_contrastive_in_loss,
    supervised_contrastive_loss,
    tolerance,
    weighted_decoupled_contrastive_loss,
)

Rows = list[list[float]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_rows(h: Tensor) -> Rows:
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in h.tolist()]


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


# --- Two views, by loops ----------------------------------------------------------------------


def loops_info_nce(u: Rows, v: Rows, tau: float) -> list[float]:
    losses = []
    for i, x in enumerate(u):
        e = [math.exp(dot(x, y) / tau) for y in v]
        losses.append(-math.log(e[i] / sum(e)))
    return losses


def loops_nt_xent(*views: Rows, tau: float) -> list[float]:
    n, everything = len(views[0]), [row for view in views for row in view]
    losses = [0.0] * n
    for a, x in enumerate(everything):
        e = [math.exp(dot(x, y) / tau) for y in everything]
        for p in range(len(everything)):
            if p % n == a % n and p != a:
                pairs = len(views) * (len(views) - 1)
                losses[a % n] -= math.log(e[p] / (sum(e) - e[a])) / pairs
    return losses


def loops_decoupled(
    u: Rows, v: Rows, tau: float, weight: Callable[[int], float] = lambda i: 1.0
) -> list[float]:
    losses = []
    for i in range(len(u)):
        others = [row for view in (u, v) for j, row in enumerate(view) if j != i]
        both = [math.log(sum(math.exp(dot(x, y) / tau) for y in others)) for x in (u[i], v[i])]
        losses.append(sum(both) / 2 - weight(i) * dot(u[i], v[i]) / tau)
    return losses


def loops_weighted(u: Rows, v: Rows, tau: float, sigma: float) -> list[float]:
    close = [math.exp(dot(x, y) / sigma) for x, y in zip(u, v, strict=True)]
    return loops_decoupled(u, v, tau, lambda i: 2 - close[i] / (sum(close) / len(close)))


def loops_loob(u: Rows, v: Rows, tau: float) -> list[float]:
    losses = []
    for i in range(len(u)):
        one = sum(math.exp(dot(u[i], v[j]) / tau) for j in range(len(u)) if j != i)
        two = sum(math.exp(dot(v[i], u[j]) / tau) for j in range(len(u)) if j != i)
        losses.append(-2 * dot(u[i], v[i]) / tau + math.log(one) + math.log(two))
    return losses


def loops_hard(u: Rows, v: Rows, tau: float, share: float) -> list[float]:
    losses = []
    for i, x in enumerate(u):
        others = sorted((dot(x, y) for j, y in enumerate(v) if j != i), reverse=True)
        kept = others[: max(1, math.ceil(share * len(others)))]
        positive = math.exp(dot(x, v[i]) / tau)
        total = positive + sum(math.exp(s / tau) for s in kept)
        losses.append(-math.log(positive / total))
    return losses


REFERENCES = {
    info_nce_loss: loops_info_nce,
    nt_xent_loss: lambda u, v, tau: loops_nt_xent(u, v, tau=tau),
    decoupled_contrastive_loss: loops_decoupled,
    partial(weighted_decoupled_contrastive_loss, sigma=0.7): partial(loops_weighted, sigma=0.7),
    info_loob_loss: loops_loob,
    partial(hard_contrastive_loss, share=0.4): partial(loops_hard, share=0.4),
    partial(hard_contrastive_loss, share=1.0): loops_info_nce,
}
PAIRS = list(REFERENCES)
IDS = [getattr(f, "func", f).__name__ for f in PAIRS]
every_pair_loss = pytest.mark.parametrize("loss", PAIRS, ids=IDS)


@every_pair_loss
@pytest.mark.parametrize("tau", [0.05, 0.3, 2.0])
def test_two_views_are_those_of_the_formula(loss: Callable[..., Tensor], tau: float) -> None:
    for n in (2, 7):
        anchor, positive = 3 * normal(n, 4), normal(n, 4, seed=1)
        expected = REFERENCES[loss](unit_rows(anchor), unit_rows(positive), tau)
        ours = loss(anchor, positive, temperature=tau, reduction="none")
        torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("views", [3, 5])
def test_more_views(views: int) -> None:
    h = [normal(4, 3, seed=s) for s in range(views)]
    expected = loops_nt_xent(*map(unit_rows, h), tau=0.3)
    ours = nt_xent_loss(*h, temperature=0.3, reduction="none")
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


def test_nt_xent_is_supervised_by_the_instance() -> None:
    h = [normal(4, 3, seed=s) for s in range(3)]
    for views in (2, 3):
        labels = torch.arange(4).repeat(views)
        expected = supervised_contrastive_loss(torch.cat(h[:views]), labels, temperature=0.2)
        torch.testing.assert_close(nt_xent_loss(*h[:views], temperature=0.2), expected)


def test_negatives_in_place_of_the_batch() -> None:
    anchor, positive, queue = normal(4, 3), normal(4, 3, seed=1), normal(6, 3, seed=2)
    u, v, q = map(unit_rows, (anchor, positive, queue))
    expected = []
    for x, y in zip(u, v, strict=True):
        e = math.exp(dot(x, y) / 0.2)
        expected.append(-math.log(e / (e + sum(math.exp(dot(x, z) / 0.2) for z in q))))
    ours = info_nce_loss(anchor, positive, negatives=queue, temperature=0.2, reduction="none")
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


# --- How they hang together -------------------------------------------------------------------


def test_gradients_in_closed_form() -> None:
    """Of InfoNCE on unit vectors: (sum of the shares times the candidates, minus the positive) / tau."""
    u, v = (torch.nn.functional.normalize(normal(5, 3, seed=s)) for s in (0, 1))
    leaf = u.clone().requires_grad_()
    (slope,) = torch.autograd.grad(info_nce_loss(leaf, v, temperature=0.3, reduction="sum"), leaf)
    for i in range(5):
        shares = (v @ u[i] / 0.3).softmax(0)
        free = ((shares[:, None] * v).sum(0) - v[i]) / 0.3
        torch.testing.assert_close(slope[i], free - (free @ u[i]) * u[i])


def test_the_positive_in_the_denominator_damps_by_the_multiplier() -> None:
    anchor, positive = normal(6, 3), normal(6, 3) + 0.5 * normal(6, 3, seed=1)
    q = npc_multiplier(anchor, positive, temperature=0.3)
    u, v = unit_rows(anchor), unit_rows(positive)
    for i in range(6):
        s = math.exp(dot(u[i], v[i]) / 0.3)
        others = [math.exp(dot(u[i], w[j]) / 0.3) for w in (u, v) for j in range(6) if j != i]
        assert q[0, i].item() == pytest.approx(1 - s / (s + sum(others)))
    # The slope of softplus(negatives - s), times that of its argument: an anchor's DCL, damped by q.
    s = torch.tensor([[0.3, -0.2], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    coupled = torch.nn.functional.softplus(s[1] - s[0])
    slope = torch.autograd.grad(coupled.sum(), s)[0]
    torch.testing.assert_close(slope[1], (s[1] - s[0]).sigmoid())
    assert torch.equal(slope[0], -slope[1])


def test_decoupled_is_the_limit_of_hard_positives() -> None:
    """Where q is near 1, losses and forces of NT-Xent are those of DCL."""
    u = torch.nn.functional.normalize(normal(40, 3))
    anchor, positive = u.clone().requires_grad_(), -u
    q = npc_multiplier(anchor, positive, temperature=0.1)
    assert q.min() > 1 - 1e-6
    slopes = [
        torch.autograd.grad(loss(anchor, positive, temperature=0.1), anchor)[0]
        for loss in (nt_xent_loss, decoupled_contrastive_loss)
    ]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-8)


def test_large_sigma_weighs_all_pairs_alike() -> None:
    h = normal(6, 3), normal(6, 3, seed=1)
    torch.testing.assert_close(
        weighted_decoupled_contrastive_loss(*h, sigma=1e9), decoupled_contrastive_loss(*h)
    )


def test_forces_on_negatives_are_the_relative_penalties() -> None:
    cosines = torch.tensor([0.9, 0.5, -0.3], dtype=torch.float64, requires_grad=True)
    loss = (cosines / 0.2).logsumexp(0)
    (slope,) = torch.autograd.grad(loss, cosines)
    cosines = cosines.detach()
    torch.testing.assert_close(0.2 * slope, relative_penalties(cosines, temperature=0.2))
    assert relative_penalties(cosines, temperature=1e-3)[0] == pytest.approx(1)
    torch.testing.assert_close(
        relative_penalties(cosines, temperature=1e6),
        torch.full_like(cosines, 1 / 3),
        rtol=1e-5,
        atol=0,
    )
    assert relative_penalties(cosines.half(), temperature=0.01).dtype == torch.float16


def test_tolerance_is_the_mean_over_pairs() -> None:
    h, labels = normal(8, 3), [0, 0, 1, 2, 1, 0, 3, 1]
    u = unit_rows(h)
    within = [
        dot(u[i], u[j]) for i in range(8) for j in range(8) if i != j and labels[i] == labels[j]
    ]
    ours = tolerance(h, torch.tensor(labels))
    assert ours.item() == pytest.approx(sum(within) / len(within))
    same = tolerance(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))
    assert same.item() == pytest.approx(1)
    assert tolerance(h, torch.arange(8)) == 0


def test_information_of_gaussians_is_bounded() -> None:
    """With the true density ratio as critic the bound is below, and near, the closed form."""
    rho, k = 0.8, 256
    x, noise = normal(40 * k), normal(40 * k, seed=1)
    y = rho * x + math.sqrt(1 - rho**2) * noise
    x, y = x.view(40, k, 1), y.view(40, 1, k)
    scores = (2 * rho * x * y - rho**2 * (x**2 + y**2)) / (2 * (1 - rho**2))
    losses = -scores.log_softmax(2).diagonal(dim1=1, dim2=2).mean(1)
    information = -0.5 * math.log(1 - rho**2)
    bound = mutual_information_bound(losses, k).mean().item()
    assert information - 0.05 < bound < information + 0.02
    assert mutual_information_bound(torch.tensor(0.0), k).item() == pytest.approx(math.log(k))


# --- Numbers that hold ------------------------------------------------------------------------


@every_pair_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_cold_with_far_positives(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """Temperature 0.01, positives opposite: exponents of 200, and the gradient of float64."""
    anchor = torch.nn.functional.normalize(normal(6, 8)).to(dtype)
    positive = -anchor + 0.1 * normal(6, 8, seed=1).to(dtype)
    results = []
    for exact in (dtype, torch.float64):
        leaf = anchor.to(exact).requires_grad_()
        value = loss(leaf, positive.to(exact), temperature=0.01)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for ours, expected in zip(*results, strict=True):
        error = (ours.double() - expected).norm() / expected.norm()
        assert error <= 10 * max(torch.finfo(dtype).eps, 1e-5) and expected.abs().max() > 1


@every_pair_loss
def test_cold_with_equal_embeddings(loss: Callable[..., Tensor]) -> None:
    h = torch.ones(4, 5, requires_grad=True)
    value = loss(h, h.detach(), temperature=0.01)
    (slope,) = torch.autograd.grad(value, h)
    assert value.isfinite() and slope.isfinite().all()


def test_a_won_game_keeps_its_digits() -> None:
    """Where every positive wins by far the loss is tiny, not zero, and never below."""
    u = torch.eye(4, 4, requires_grad=True)
    value = info_nce_loss(u, torch.eye(4), temperature=0.02)
    assert value.item() == pytest.approx(math.log1p(3 * math.exp(-50)), rel=1e-5)
    assert (torch.autograd.grad(value, u)[0] != 0).any()


def test_one_example_has_nothing_to_tell_apart() -> None:
    h = normal(1, 3).requires_grad_(), normal(1, 3, seed=1)
    for loss in (info_nce_loss, nt_xent_loss, hard_contrastive_loss):
        value = loss(*h)
        assert value == 0 and (torch.autograd.grad(value, h[0])[0] == 0).all()
    for loss in (decoupled_contrastive_loss, weighted_decoupled_contrastive_loss, info_loob_loss):
        with pytest.raises(ValueError, match="number of examples"):
            loss(*h)


@every_pair_loss
def test_lengths_of_views_do_not_matter(loss: Callable[..., Tensor]) -> None:
    anchor, positive = normal(6, 3), normal(6, 3, seed=1)
    for scale in (1e-200, 1e200):
        ours = loss(scale * anchor, positive / scale, temperature=0.2)
        torch.testing.assert_close(ours, loss(anchor, positive, temperature=0.2))


@every_pair_loss
def test_a_zero_vector_has_a_finite_gradient(loss: Callable[..., Tensor]) -> None:
    anchor = normal(5, 3)
    anchor[0] = 0
    anchor.requires_grad_()
    value = loss(anchor, normal(5, 3, seed=1), temperature=0.2)
    assert value.isfinite() and torch.autograd.grad(value, anchor)[0].isfinite().all()


@every_pair_loss
def test_large_batches_agree_with_small(loss: Callable[..., Tensor], monkeypatch) -> None:
    """The same function whichever way the pairs are taken; float32, to a millionth."""
    from lossbook import _pairs

    anchor, positive = normal(700, 8).float(), normal(700, 8, seed=1).float()
    results = []
    for small in (2**18, 2**40):
        monkeypatch.setattr(_pairs, "_SMALL", small)
        leaf = anchor.clone().requires_grad_()
        value = loss(leaf, positive, temperature=0.1)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for blocks, matrix in zip(*results, strict=True):
        assert (blocks - matrix).norm() <= 1e-6 * matrix.norm()


@pytest.mark.parametrize("loss", [supervised_contrastive_loss, supervised_contrastive_in_loss])
def test_large_labeled_batches_agree_with_small(loss: Callable[..., Tensor], monkeypatch) -> None:
    from lossbook import _pairs

    h, labels = normal(700, 8).float(), torch.arange(700) % 9
    results = []
    for small in (2**18, 2**40):
        monkeypatch.setattr(_pairs, "_SMALL", small)
        leaf = h.clone().requires_grad_()
        value = loss(leaf, labels)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for blocks, matrix in zip(*results, strict=True):
        assert (blocks - matrix).norm() <= 1e-6 * matrix.norm()


@pytest.mark.parametrize("loss", [info_nce_loss, supervised_contrastive_in_loss])
def test_second_derivatives_of_large_batches(loss: Callable[..., Tensor], monkeypatch) -> None:
    from lossbook import _pairs

    monkeypatch.setattr(_pairs, "_SMALL", 0)
    monkeypatch.setattr(_pairs, "rows_of_a_block", lambda columns, device: 2)
    second, h = normal(5, 3, seed=1), normal(5, 3).requires_grad_()
    if loss is supervised_contrastive_in_loss:
        second = torch.tensor([0, 0, 1, 1, 1])
    assert torch.autograd.gradgradcheck(lambda h: loss(h, second, temperature=0.5), h)


def test_bad_pairs() -> None:
    h = normal(4, 3)
    for loss in PAIRS:
        for temperature in (0.0, -1.0, math.nan):
            with pytest.raises(ValueError, match="temperature"):
                loss(h, h, temperature=temperature)
        with pytest.raises(ValueError, match="positive"):
            loss(h, h[:3])
        with pytest.raises(TypeError, match="anchor"):
            loss(h.long(), h)
    with pytest.raises(ValueError, match="positive"):
        nt_xent_loss(h, h, h[:, :2])
    with pytest.raises(ValueError, match="dimension of negatives"):
        info_nce_loss(h, h, negatives=h[:, :2])
    with pytest.raises(ValueError, match="number of negatives"):
        info_nce_loss(h, h, negatives=h[:0])
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="share"):
            hard_contrastive_loss(h, h, share=share)
    with pytest.raises(ValueError, match="sigma"):
        weighted_decoupled_contrastive_loss(h, h, sigma=0.0)
    with pytest.raises(ValueError, match="candidates"):
        mutual_information_bound(torch.tensor(1.0), 1)
    with pytest.raises(TypeError, match="similarity"):
        relative_penalties(torch.tensor([1, 2]))


# --- Labels -----------------------------------------------------------------------------------


def by_loops(h: Tensor, labels: list[int], tau: float, inside: bool = False) -> list[float]:
    """L_i of the "out" or "in" form; an anchor without a positive has 0."""
    rows, losses = unit_rows(h), []
    for i in range(len(rows)):
        others = [a for a in range(len(rows)) if a != i]
        s = {a: dot(rows[i], rows[a]) / tau for a in others}
        positives = [p for p in others if labels[p] == labels[i]]
        shares = [1 / sum(math.exp(s[a] - s[p]) for a in others) for p in positives]
        if not positives:
            losses.append(0.0)
        elif inside:
            losses.append(-math.log(sum(shares) / len(shares)))
        else:
            losses.append(-sum(map(math.log, shares)) / len(shares))
    return losses


LABELS = [0, 0, 1, 2, 1, 0, 3]  # classes 2 and 3 have a single example


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_value_is_that_of_the_formula(tau: float) -> None:
    h, labels = normal(7, 3), torch.tensor(LABELS)
    for loss, inside in (
        (supervised_contrastive_loss, False),
        (supervised_contrastive_in_loss, True),
    ):
        expected = torch.tensor(by_loops(h, LABELS, tau, inside), dtype=torch.float64)
        none = loss(h, labels, temperature=tau, reduction="none")
        torch.testing.assert_close(none, expected)
        mean = loss(h, labels, temperature=tau)
        torch.testing.assert_close(mean, expected.sum() / 5)  # over the anchors with a positive


def test_a_library_says_the_same() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    h, labels = normal(12, 5), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 3])
    theirs = losses.SupConLoss(temperature=0.2)(h, labels)
    ours = supervised_contrastive_loss(h, labels, temperature=0.2)
    torch.testing.assert_close(ours, theirs)
    pairs = torch.arange(6).repeat(2)
    theirs = losses.NTXentLoss(temperature=0.3)(h, pairs)
    torch.testing.assert_close(nt_xent_loss(*h.chunk(2), temperature=0.3), theirs)


def test_inside_is_at_most_outside() -> None:
    h, labels = normal(30, 3), torch.arange(30) % 4
    inside = supervised_contrastive_in_loss(h, labels, reduction="none")
    outside = supervised_contrastive_loss(h, labels, reduction="none")
    assert (inside < outside).all()
    pairs = torch.arange(15).repeat(2)  # with one positive each they are the same
    torch.testing.assert_close(
        supervised_contrastive_in_loss(h, pairs), supervised_contrastive_loss(h, pairs)
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(0, 10**6))
def test_any_labels(labels: list[int], seed: int) -> None:
    h = normal(len(labels), 4, seed=seed)
    expected = torch.tensor(by_loops(h, labels, 0.3), dtype=torch.float64)
    ours = supervised_contrastive_loss(h, torch.tensor(labels), temperature=0.3, reduction="none")
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_lengths_do_not_matter() -> None:
    h, labels = normal(7, 3), torch.tensor(LABELS)
    for scale in (1e-200, 1e200, torch.linspace(0.1, 9, 7).double()[:, None]):
        torch.testing.assert_close(
            supervised_contrastive_loss(h * scale, labels), supervised_contrastive_loss(h, labels)
        )


def test_cold_and_equal_embeddings() -> None:
    """At temperature 0.01 similarities reach 100, which float32 holds to the fifth decimal."""
    n = 6
    h = torch.ones(n, 5).requires_grad_()
    labels = torch.zeros(n, dtype=torch.int64)
    value = supervised_contrastive_loss(h, labels, temperature=0.01)
    assert value.item() == pytest.approx(math.log(n - 1), abs=2e-5)
    (gradient,) = torch.autograd.grad(value, h)
    assert gradient.isfinite().all() and gradient.abs().max() < 1e-4
    pairs = torch.eye(3, 5).repeat(2, 1).requires_grad_()
    value = supervised_contrastive_loss(pairs, torch.arange(3).repeat(2), temperature=0.01)
    assert 0 <= value.item() < 1e-6 and torch.autograd.grad(value, pairs)[0].isfinite().all()


def test_no_anchor_has_a_positive() -> None:
    for n in (1, 3):
        h = normal(n, 4).requires_grad_()
        value = supervised_contrastive_loss(h, torch.arange(n))
        assert value == 0 and (torch.autograd.grad(value, h)[0] == 0).all()


def test_a_zero_vector_is_orthogonal_to_all() -> None:
    h, labels = normal(7, 3), torch.tensor(LABELS)
    h[0] = 0
    instead = torch.cat([h, torch.zeros(7, 1).double()], 1)
    instead[0, 3] = 1
    leaf = h.clone().requires_grad_()
    value = supervised_contrastive_loss(leaf, labels)
    torch.testing.assert_close(value, supervised_contrastive_loss(instead, labels))
    assert torch.autograd.grad(value, leaf)[0].isfinite().all()


def test_derivatives() -> None:
    h, labels = normal(6, 3).requires_grad_(), torch.tensor([0, 0, 1, 2, 1, 0])

    def loss(x: Tensor) -> Tensor:
        return supervised_contrastive_loss(x, labels, temperature=0.5)

    assert torch.autograd.gradcheck(loss, h)
    assert torch.autograd.gradgradcheck(loss, h)
    # The length of an embedding does not matter, so no force acts along it.
    (gradient,) = torch.autograd.grad(loss(h), h)
    assert (gradient * h).sum(1).abs().max() < 1e-12


def test_one_step_pulls_positives_together() -> None:
    h = torch.tensor([[1.0, 0.2], [1.0, -0.2], [-1.0, 0.1]]).double().requires_grad_()
    labels = torch.tensor([0, 0, 1])
    (gradient,) = torch.autograd.grad(supervised_contrastive_loss(h, labels), h)
    moved = h - 0.01 * gradient
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(moved[0], moved[1], 0) > cosine(h[0], h[1], 0)


def test_order_does_not_matter() -> None:
    h, labels = normal(7, 3), torch.tensor(LABELS)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    one = supervised_contrastive_loss(h, labels, reduction="none")
    two = supervised_contrastive_loss(h[order], labels[order], reduction="none")
    torch.testing.assert_close(two, one[order])


def test_bad_input() -> None:
    h, labels = normal(4, 3), torch.tensor([0, 0, 1, 1])
    for bad in (h[0], h[None]):
        with pytest.raises(ValueError, match="embeddings"):
            supervised_contrastive_loss(bad, labels)
    with pytest.raises(ValueError, match="labels"):
        supervised_contrastive_loss(h, labels[:3])
    for bad in (labels.int(), [0, 0, 1, 1]):
        with pytest.raises(TypeError, match="labels"):
            supervised_contrastive_loss(h, bad)
    with pytest.raises(TypeError, match="embeddings"):
        supervised_contrastive_loss(h.long(), labels)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            supervised_contrastive_loss(h, labels, temperature=temperature)
    with pytest.raises(ValueError, match="reduction"):
        supervised_contrastive_loss(h, labels, reduction="average")
