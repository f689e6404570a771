"""Losses beside entmax's: of the k largest scores, and with a handicap for the label."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from lossbook.classification import (
    alignment_gap,
    cross_entropy,
    noisy_softmax_loss,
    sparse_softmax,
    sparse_softmax_loss,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# --- Sparse-softmax

Z, Y = 2 * normal(40, 7), torch.arange(40) % 7


@pytest.mark.parametrize("k", [1, 2, 4, 7, 10])
def test_sparse_softmax_loss_is_that_of_the_formula(k: int) -> None:
    expected = [
        math.log(sum(math.exp(x) for x in sorted(row, reverse=True)[:k])) - row[y]
        for row, y in zip(Z.tolist(), Y.tolist(), strict=True)
    ]
    ours = sparse_softmax_loss(Z, Y, k=k, reduction="none")
    torch.testing.assert_close(ours, exactly(expected))
    assert (ours >= 0).all()
    if k >= 7:
        torch.testing.assert_close(ours, cross_entropy(Z, Y, reduction="none"))


def test_its_gradient_is_prediction_minus_label_also_beyond_the_k_largest() -> None:
    z = Z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sparse_softmax_loss(z, Y, k=3, reduction="sum"), z)
    torch.testing.assert_close(
        slope, sparse_softmax(Z, k=3) - torch.nn.functional.one_hot(Y, 7).double()
    )
    beyond = sparse_softmax(Z, k=3).gather(1, Y[:, None])[:, 0] == 0
    assert beyond.sum() > 5 and (slope.gather(1, Y[:, None])[beyond, 0] == -1).all()


def test_it_is_convex() -> None:
    other = 2 * normal(40, 7, seed=1)
    for k in (1, 2, 4):
        at = partial(sparse_softmax_loss, target=Y, k=k, reduction="none")
        assert (at((Z + other) / 2) <= (at(Z) + at(other)) / 2 + 1e-12).all()


def test_its_floor_is_that_of_k_classes() -> None:
    gap, classes = 5.0, 1000
    z = torch.zeros(1, classes, dtype=torch.float64)
    z[0, 3] = gap
    for k in (1, 2, 10, classes):
        ours = sparse_softmax_loss(z, torch.tensor([3]), k=k).item()
        assert ours == pytest.approx(math.log1p((k - 1) * math.exp(-gap)), abs=1e-12)
    with pytest.raises(ValueError, match="k must be at least 1"):
        sparse_softmax_loss(z, torch.tensor([3]), k=0)


# --- Noisy softmax

H, W, LABELS = normal(6, 3), normal(4, 3, seed=1), torch.tensor([0, 1, 2, 3, 0, 1])
NOISE, BIAS = normal(6, seed=2), normal(4, seed=3)


def handicapped(n: int, alpha: float, bias: list[float]) -> float:
    h, y, xi = H[n].tolist(), int(LABELS[n]), NOISE[n].item()
    dots = [sum(a * b for a, b in zip(h, w, strict=True)) for w in W.tolist()]
    long, wide = math.hypot(*h), math.hypot(*W[y].tolist())
    cosine = dots[y] / (long * wide)
    z = [d + b for d, b in zip(dots, bias, strict=True)]
    z[y] -= alpha * wide * long * (1 - cosine) * abs(xi)
    return math.log(sum(math.exp(x) for x in z)) - z[y]


@pytest.mark.parametrize("alpha", [0.0, math.sqrt(0.1), 2.0])
def test_noisy_softmax_is_that_of_the_formula(alpha: float) -> None:
    for bias in (None, BIAS):
        numbers = [0.0] * 4 if bias is None else bias.tolist()
        ours = noisy_softmax_loss(
            H, LABELS, prototypes=W, bias=bias, alpha=alpha, noise=NOISE, reduction="none"
        )
        expected = exactly([handicapped(n, alpha, numbers) for n in range(6)])
        torch.testing.assert_close(ours, expected)


def test_no_handicap_is_cross_entropy() -> None:
    plain = cross_entropy(H @ W.T + BIAS, LABELS, reduction="none")
    own = partial(noisy_softmax_loss, H, LABELS, prototypes=W, bias=BIAS, reduction="none")
    torch.testing.assert_close(own(alpha=0), plain)
    torch.testing.assert_close(own(noise=torch.zeros(6)), plain)
    small, large = own(noise=NOISE), own(noise=2 * NOISE)
    assert (plain < small).all() and (small < large).all()
    torch.testing.assert_close(own(noise=-NOISE), small)


def test_the_handicap_is_gone_where_directions_agree() -> None:
    h = W[:2] * exactly([[0.3], [9.0]])
    own = partial(noisy_softmax_loss, h, torch.tensor([0, 1]), prototypes=W, reduction="none")
    torch.testing.assert_close(own(alpha=50, noise=NOISE[:2]), own(alpha=0))


def test_noise_is_drawn_once_for_each_example() -> None:
    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return noisy_softmax_loss(H, LABELS, prototypes=W, generator=generator, reduction="none")

    assert torch.equal(drawn(0), drawn(0)) and not torch.equal(drawn(0), drawn(1))
    noise = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = noisy_softmax_loss(H, LABELS, prototypes=W, noise=noise, reduction="none")
    torch.testing.assert_close(drawn(0), expected)
    assert noise.unique().numel() == 6


def test_all_that_is_learned_has_its_gradient() -> None:
    leaves = [x.clone().requires_grad_() for x in (H, W, BIAS)]

    def own(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return noisy_softmax_loss(h, LABELS, prototypes=w, bias=b, noise=NOISE, alpha=1)

    assert torch.autograd.gradcheck(own, leaves)
    assert torch.autograd.gradgradcheck(own, leaves)


def test_alignment_gap() -> None:
    expected = [
        [math.hypot(*h) * math.hypot(*w) - sum(a * b for a, b in zip(h, w, strict=True)) for w in W]
        for h in H.tolist()
    ]
    torch.testing.assert_close(alignment_gap(H, W), exactly(expected))
    assert (alignment_gap(W, W) >= 0).all() and alignment_gap(W, W).diagonal().max() < 1e-12
    half = alignment_gap(1e3 * H.half(), W.half())
    assert half.dtype == torch.float16 and half.isfinite().all()


def test_bad_input() -> None:
    own = partial(noisy_softmax_loss, H, LABELS)
    with pytest.raises(ValueError, match="prototypes"):
        own(prototypes=W[:, :2])
    with pytest.raises(ValueError, match="prototypes"):
        own(prototypes=W[0])
    with pytest.raises(TypeError, match="prototypes"):
        own(prototypes=W.long())
    with pytest.raises(ValueError, match="noise"):
        own(prototypes=W, noise=NOISE[:5])
    with pytest.raises(ValueError, match="bias"):
        own(prototypes=W, bias=BIAS[:3])
    with pytest.raises(ValueError, match="alpha"):
        own(prototypes=W, alpha=-1)
    with pytest.raises(ValueError, match="embeddings"):
        alignment_gap(H[None], W)
