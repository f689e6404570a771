"""Entmax and its losses against sorting and halving in plain Python, identities, and extremes."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.classification import (
    cross_entropy,
    entmax,
    entmax_loss,
    fenchel_young_loss,
    sparsemax,
    sparsemax_loss,
)
from lossbook.classification.softmax import maps


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def by_sorting(z: list[float]) -> list[float]:
    """Sparsemax: the largest support whose threshold lies below all that it holds."""
    ordered = sorted(z, reverse=True)
    for k in range(len(z), 0, -1):
        tau = (sum(ordered[:k]) - 1) / k
        if ordered[k - 1] > tau:
            return [max(x - tau, 0.0) for x in z]
    raise AssertionError


def by_halving(z: list[float], alpha: float) -> list[float]:
    """Entmax: the threshold between the largest score minus one, and the largest score."""
    x, power = [(alpha - 1) * y for y in z], 1 / (alpha - 1)
    low, high = max(x) - 1, max(x)
    for _ in range(200):
        tau = (low + high) / 2
        total = sum(max(y - tau, 0.0) ** power for y in x)
        low, high = (tau, high) if total > 1 else (low, tau)
    return [max(y - low, 0.0) ** power for y in x]


def by_formula(z: list[float], y: int, alpha: float) -> float:
    p = by_halving(z, alpha)
    entropy = sum(q - q**alpha for q in p) / (alpha * (alpha - 1))
    return sum(q * s for q, s in zip(p, z, strict=True)) + entropy - z[y]


ALPHAS = [1.05, 1.25, 1.5, 1.75, 2.0]


@pytest.fixture
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether values may be looked at, which chooses between two ways to the same numbers."""
    monkeypatch.setattr(maps, "is_concrete", lambda x: request.param)
    return request.param


two_ways = pytest.mark.parametrize("seen", [True, False], ids=["packed", "dense"], indirect=True)


@two_ways
@pytest.mark.parametrize("alpha", ALPHAS)
def test_probabilities_are_those_of_the_formula(alpha: float, seen: bool) -> None:
    for scale in (0.1, 1.0, 10.0):
        z = scale * normal(6, 9)
        expected = exactly([by_halving(row, alpha) for row in z.tolist()])
        torch.testing.assert_close(entmax(z, alpha=alpha), expected, rtol=1e-9, atol=1e-12)
        if alpha == 2:
            expected = exactly([by_sorting(row) for row in z.tolist()])
            torch.testing.assert_close(sparsemax(z), expected, rtol=1e-9, atol=1e-12)


@two_ways
@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_derivatives_both_ways(alpha: float, seen: bool) -> None:
    z = (2 * normal(4, 6)).requires_grad_()
    assert torch.autograd.gradcheck(partial(entmax, alpha=alpha), z)
    assert torch.autograd.gradgradcheck(partial(entmax, alpha=alpha), z)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=12),
    st.sampled_from(ALPHAS),
)
def test_any_scores(z: list[float], alpha: float) -> None:
    p = entmax(exactly([z]), alpha=alpha)[0]
    assert abs(p.sum().item() - 1) < 1e-12 and p.min() >= 0
    expected = torch.tensor(by_halving(z, alpha), dtype=torch.float64)
    torch.testing.assert_close(p, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("power", [1, 2, 20])
def test_the_number_of_steps_suffices_for_the_worst(power: int) -> None:
    """Scores that halve their distance to the threshold make Newton's method work hardest."""
    x = torch.cat([-(2.0 ** -torch.arange(0, 50)).double(), torch.zeros(1000).double()])
    x = (x - x.max())[None]
    p = maps._powers(x, power)
    expected = by_halving((x[0] * power).tolist(), 1 + 1 / power)
    torch.testing.assert_close(p[0], exactly(expected), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(maps._few_powers(x, power), p)


def test_limits_and_invariances() -> None:
    z = normal(5, 7)
    torch.testing.assert_close(entmax(z, alpha=1.0), z.softmax(1))
    torch.testing.assert_close(entmax(z, alpha=1 + 1e-5), z.softmax(1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(entmax(z + 1000), entmax(z))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(entmax(z[:, order]), entmax(z)[:, order])
    torch.testing.assert_close(entmax(z.T, dim=0), entmax(z).T)
    torch.testing.assert_close(entmax(z.view(5, 7, 1), dim=-2).view(5, 7), entmax(z))
    torch.testing.assert_close(entmax(z[0], dim=0), entmax(z)[0])
    sizes = [int((entmax(3 * z, alpha=alpha) > 0).sum()) for alpha in (1.0, 1.25, 1.5, 2.0)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 35 and sizes[-1] < 20


def test_sparsemax_is_the_nearest_distribution() -> None:
    z = 2 * normal(1, 4)
    p = sparsemax(z)
    for seed in range(200):
        other = normal(1, 4, seed=seed).softmax(1)
        assert (p - z).norm() <= (other - z).norm() + 1e-12


@pytest.mark.parametrize("alpha", ALPHAS)
def test_losses_are_those_of_the_formula(alpha: float) -> None:
    z, y = 3 * normal(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = [by_formula(row, int(k), alpha) for row, k in zip(z.tolist(), y, strict=True)]
    ours = entmax_loss(z, y, alpha=alpha, reduction="none")
    torch.testing.assert_close(ours, exactly(expected), rtol=1e-7, atol=1e-9)
    leaf = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(entmax_loss(leaf, y, alpha=alpha, reduction="sum"), leaf)
    one_hot = torch.nn.functional.one_hot(y, 5)
    torch.testing.assert_close(slope, entmax(z, alpha=alpha) - one_hot)


def test_two_classes_give_a_huber_loss() -> None:
    for t in (-3.0, -1.0, -0.4, 0.0, 0.7, 1.0, 2.0):
        expected = 0.0 if t >= 1 else -t if t <= -1 else (t - 1) ** 2 / 4
        ours = sparsemax_loss(exactly([[t, 0.0]]), torch.tensor([0]))
        assert ours.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_the_margin(alpha: float) -> None:
    lead = 1 / (alpha - 1)
    for more, zero in ((1e-9, True), (-1e-3, False)):
        z = exactly([[lead + more, 0.0, -1.0]])
        assert (entmax_loss(z, torch.tensor([0]), alpha=alpha) == 0) == zero


def test_one_construction_many_losses() -> None:
    z, y = 2 * normal(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    by = partial(fenchel_young_loss, z, y)
    torch.testing.assert_close(by(conjugate=lambda z: z.logsumexp(1)), cross_entropy(z, y))
    perceptron = (z.amax(1) - z.gather(1, y[:, None]).squeeze(1)).mean()
    torch.testing.assert_close(by(conjugate=lambda z: z.amax(1)), perceptron)
    torch.testing.assert_close(entmax_loss(z, y, alpha=1.0), cross_entropy(z, y))
    torch.testing.assert_close(entmax_loss(z, y, alpha=2.0), sparsemax_loss(z, y))

    def squared(z: Tensor) -> Tensor:  # by the threshold of the formula, not by the conjugate
        p = exactly([by_sorting(row) for row in z.tolist()])
        tau = ((z * (p > 0)).sum(1) - 1) / (p > 0).sum(1)
        return ((z.square() - tau[:, None] ** 2) * (p > 0)).sum(1) / 2 + 0.5

    torch.testing.assert_close(by(conjugate=squared), sparsemax_loss(z, y))
    # Never negative, and zero only where the map is sure of the label.
    for alpha in (1.0, 1.5, 2.0):
        losses = entmax_loss(z, y, alpha=alpha, reduction="none")
        sure = entmax(z, alpha=alpha).gather(1, y[:, None]).squeeze(1) == 1
        assert (losses >= 0).all() and torch.equal(losses == 0, sure)


def test_a_library_says_the_same() -> None:
    theirs = pytest.importorskip("entmax")
    z, y = 3 * normal(6, 50), torch.arange(6)
    torch.testing.assert_close(sparsemax(z), theirs.sparsemax(z, dim=1))
    torch.testing.assert_close(entmax(z), theirs.entmax15(z, dim=1))
    torch.testing.assert_close(
        sparsemax_loss(z, y, reduction="none"), theirs.sparsemax_loss(z, y), atol=1e-9, rtol=1e-7
    )


@two_ways
def test_extremes(seen: bool) -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype=dtype)
        p = entmax(z)
        assert p.dtype == dtype and p[0].tolist() == [1, 0, 0]
        assert p[1].float().tolist() == pytest.approx([1 / 3] * 3, rel=1e-2)
    z = torch.tensor([[math.nan, 0.0], [1.0, -math.inf]])
    p = entmax(z)
    assert p[0].isnan().all() and p[1].tolist() == [1, 0]
    assert entmax(torch.zeros(0, 3)).shape == (0, 3)
    assert sparsemax(torch.zeros(2, 1)).tolist() == [[1], [1]]


def test_bad_input() -> None:
    z, y = normal(3, 4), torch.tensor([0, 1, 2])
    for alpha in (0.9, 2.1, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            entmax(z, alpha=alpha)
        with pytest.raises(ValueError, match="alpha"):
            entmax_loss(z, y, alpha=alpha)
    with pytest.raises(TypeError, match="logits"):
        sparsemax(torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match="conjugate"):
        fenchel_young_loss(z, y, conjugate=lambda z: z.sum())
