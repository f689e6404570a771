"""Maps beside entmax: the k largest, self-adjustment, and how saturated a map is."""

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.classification import (
    entmax,
    jacobian_norm,
    self_adjust_softmax,
    sparse_softmax,
    straight_through,
)

softmax = partial(torch.softmax, dim=1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# --- Sparse-softmax


def of_the_largest(z: list[float], k: int) -> list[float]:
    chosen = sorted(range(len(z)), key=lambda i: -z[i])[:k]
    total = sum(math.exp(z[i]) for i in chosen)
    return [math.exp(z[i]) / total if i in chosen else 0.0 for i in range(len(z))]


@pytest.mark.parametrize("k", [1, 2, 4, 7, 9])
def test_sparse_softmax_is_that_of_the_formula(k: int) -> None:
    z = 3 * normal(5, 7)
    expected = exactly([of_the_largest(row, k) for row in z.tolist()])
    torch.testing.assert_close(sparse_softmax(z, k=k), expected)
    torch.testing.assert_close(sparse_softmax(z.T, k=k, dim=0), expected.T)
    assert torch.autograd.gradcheck(partial(sparse_softmax, k=k), z.requires_grad_())
    assert torch.autograd.gradgradcheck(partial(sparse_softmax, k=k), z)


def test_sparse_softmax_agrees_best_of_all_on_k_classes() -> None:
    """Of p . z + H(p), of which the softmax of k given classes has their log-sum-exp."""
    z = normal(6)
    p = sparse_softmax(z[None], k=3)[0]
    value = p @ z - torch.special.xlogy(p, p).sum()
    every = [z[list(chosen)].logsumexp(0) for chosen in combinations(range(6), 3)]
    torch.testing.assert_close(value, max(every))


def test_sparse_softmax_at_the_extremes() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype=dtype)
        p = sparse_softmax(z, k=2)
        assert p.dtype == dtype and p[0].tolist() == [1, 0, 0]
        assert p[1].sort().values.tolist() == [0, 0.5, 0.5]
    assert sparse_softmax(torch.zeros(2, 1)).tolist() == [[1], [1]]
    assert sparse_softmax(torch.zeros(0, 3)).shape == (0, 3)
    assert sparse_softmax(torch.tensor([[1.0, -math.inf]]), k=1).tolist() == [[1, 0]]


# --- Self-adjustment


def self_adjusted(z: list[float], normalize: bool) -> list[float]:
    total = sum(math.exp(x) for x in z)
    low, high = min(min(z), 0), max(max(z), 0)
    factor = [(x - low) / (high - low) if normalize else x for x in z]
    return [f * math.exp(x) / total for f, x in zip(factor, z, strict=True)]


@pytest.mark.parametrize("normalize", [True, False])
@settings(deadline=None, max_examples=40)
@given(z=st.lists(st.floats(-20, 20), min_size=1, max_size=6).filter(any))
def test_self_adjust_softmax_is_that_of_the_formula(normalize: bool, z: list[float]) -> None:
    ours = self_adjust_softmax(exactly([z]), normalize=normalize)
    torch.testing.assert_close(ours, exactly([self_adjusted(z, normalize)]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
def test_self_adjust_softmax_derivatives(normalize: bool) -> None:
    for shift in (-9.0, 0.0, 9.0):  # all negative, of both signs, all positive
        z = (2 * normal(4, 5) + shift).requires_grad_()
        own = partial(self_adjust_softmax, normalize=normalize)
        assert torch.autograd.gradcheck(own, z)
        assert torch.autograd.gradgradcheck(own, z)


@pytest.mark.parametrize("normalize", [True, False])
def test_masked_scores_count_for_nothing(normalize: bool) -> None:
    z = normal(3, 4)
    own = partial(self_adjust_softmax, normalize=normalize)
    masked = torch.cat([z, torch.full((3, 1), -math.inf, dtype=z.dtype)], 1).requires_grad_()
    torch.testing.assert_close(own(masked)[:, :4], own(z))
    assert (own(masked)[:, 4] == 0).all()
    (slope,) = torch.autograd.grad(own(masked)[:, 0].sum(), masked)
    assert slope.isfinite().all() and (slope[:, 4] == 0).all()


def test_normalized_weights_are_below_the_softmax() -> None:
    z = 5 * normal(50, 6)
    ours, p = self_adjust_softmax(z), z.softmax(1)
    assert (ours >= 0).all() and (ours <= p + 1e-15).all()
    assert (self_adjust_softmax(torch.zeros(2, 3)) == 0).all()
    assert (self_adjust_softmax(torch.full((2, 3), -4.0)) == 0).all()
    torch.testing.assert_close(self_adjust_softmax(z.T, dim=0), ours.T)
    for dtype in (torch.float16, torch.bfloat16):
        z = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype)
        assert self_adjust_softmax(z).tolist() == [[1, 0, 0]]
        assert self_adjust_softmax(z, normalize=False).dtype == dtype


# --- Saturation


def test_the_norm_of_the_softmax_jacobian() -> None:
    z = 2 * normal(5, 4)
    p = z.softmax(1)
    for row, norm in zip(p.tolist(), jacobian_norm(softmax, z).tolist(), strict=True):
        squares = sum(
            (a * ((i == j) - b)) ** 2 for i, a in enumerate(row) for j, b in enumerate(row)
        )
        assert norm == pytest.approx(math.sqrt(squares), rel=1e-12)
        two, three = sum(a**2 for a in row), sum(a**3 for a in row)
        assert norm == pytest.approx(math.sqrt(two - 2 * three + two**2), rel=1e-6)


def test_self_adjustment_keeps_a_gradient_where_the_softmax_has_none() -> None:
    z = exactly([[lead, 0.0, 0.0, 0.0] for lead in (5.0, 15.0, 30.0)])
    plain = jacobian_norm(softmax, z)
    product = jacobian_norm(partial(self_adjust_softmax, normalize=False), z)
    scaled = jacobian_norm(self_adjust_softmax, z)
    assert (plain.diff() < 0).all() and plain[2] < 1e-12
    assert product[2] == pytest.approx(1)  # d (z p) / dz = p + z dp / dz
    # Normalized, the largest's factor is 1 whatever it is: it saturates as the softmax does.
    assert scaled[2] < 1e-10
    assert (jacobian_norm(entmax, z) == 0).all()  # a lead of 2 is certain


def test_straight_through() -> None:
    soft = (0.3 * normal(4, 3)).requires_grad_()
    hard = soft.round()
    out = straight_through(soft, hard > 0)
    assert torch.equal(out, (hard > 0).double())
    (slope,) = torch.autograd.grad((out * exactly([1, 2, 3])).sum(), soft)
    assert torch.equal(slope, exactly([[1, 2, 3]] * 4))
    assert straight_through(torch.tensor([1e9]), torch.tensor([1.0])).item() == 1  # exactly


def test_bad_input() -> None:
    z = normal(3, 4)
    with pytest.raises(ValueError, match="k must be at least 1"):
        sparse_softmax(z, k=0)
    for own in (sparse_softmax, self_adjust_softmax, partial(jacobian_norm, softmax)):
        with pytest.raises(TypeError, match="logits"):
            own(z.long())
    with pytest.raises(ValueError, match="logits"):
        jacobian_norm(softmax, z[None])
    with pytest.raises(ValueError, match="hard"):
        straight_through(z, z[:2])
