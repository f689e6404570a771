"""Class imbalance: every formula against loops in float64, limits, and bad input."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lossbook.supervision import class_balanced_weights, logit_adjustment, vector_scaling_loss

COUNTS = torch.tensor([500, 60, 8])


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- class_balanced_weights -------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.9999, 1.0])
def test_weights_are_those_of_the_formula(beta: float) -> None:
    exact = Fraction(beta)  # the sum 1 + beta + ... + beta^(n - 1) never cancels
    raw = [1 / float(sum(exact**i for i in range(n))) for n in (50, 7, 1)]
    expected = torch.tensor([w * 3 / sum(raw) for w in raw], dtype=torch.float64)
    weights = class_balanced_weights(torch.tensor([50.0, 7.0, 1.0]).double(), beta)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)


def test_weights_keep_their_digits_next_to_one() -> None:
    beta = 1 - 2.0**-40  # 1 - beta^n loses 12 digits when formed directly
    counts = torch.tensor([3.0, 2.0]).double()
    exact = [1 / sum((1 - 2.0**-40) ** i for i in range(n)) for n in (3, 2)]
    expected = torch.tensor(exact, dtype=torch.float64) * 2 / sum(exact)
    torch.testing.assert_close(class_balanced_weights(counts, beta), expected, rtol=1e-14, atol=0)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20), st.floats(0, 1))
def test_weights_favor_the_rare_and_have_mean_one(counts: list[int], beta: float) -> None:
    weights = class_balanced_weights(torch.tensor(counts).double(), beta)
    assert weights.mean().item() == pytest.approx(1)
    order = torch.tensor(counts).argsort()
    assert (weights[order].diff() <= 1e-9).all()


def test_weights_have_the_dtype_of_the_counts() -> None:
    assert class_balanced_weights(COUNTS).dtype == torch.float32
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert class_balanced_weights(COUNTS.to(dtype)).dtype == dtype


@pytest.mark.parametrize("counts", [[1, 0], [-1, 2], [math.nan, 1.0], [math.inf, 1.0], [], [[1]]])
def test_weights_reject_bad_counts(counts: list) -> None:
    with pytest.raises(ValueError, match="class_counts"):
        class_balanced_weights(torch.tensor(counts))


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_weights_reject_a_bad_beta(beta: float) -> None:
    with pytest.raises(ValueError, match="beta"):
        class_balanced_weights(COUNTS, beta)


@pytest.mark.parametrize("counts", [[1, 2], torch.tensor([True, True]), torch.tensor([1j, 2.0])])
def test_weights_reject_what_is_no_number(counts: object) -> None:
    with pytest.raises(TypeError, match="class_counts"):
        class_balanced_weights(counts)


# --- logit_adjustment -------------------------------------------------------------------------


@pytest.mark.parametrize("additive", [0.0, 1.0, 0.4])
@pytest.mark.parametrize("multiplicative", [0.0, 0.5, -1.0])
def test_adjustment_is_that_of_the_formula(additive: float, multiplicative: float) -> None:
    z = logits(4, 3, 2)
    expected = torch.empty_like(z)
    counts = COUNTS.tolist()
    for c, n in enumerate(counts):
        scale = (max(counts) / n) ** multiplicative
        expected[:, c] = z[:, c] * scale - additive * math.log(n / sum(counts))
    adjusted = logit_adjustment(z, COUNTS, additive=additive, multiplicative=multiplicative)
    torch.testing.assert_close(adjusted, expected, rtol=1e-13, atol=1e-13)


def test_adjustment_is_bayes_rule() -> None:
    """Posteriors under the priors, adjusted, are the posteriors under uniform priors."""
    likelihood = logits(5, 3).exp()
    prior = COUNTS.double() / COUNTS.sum()
    z = (likelihood * prior).log()
    uniform = likelihood / likelihood.sum(1, keepdim=True)
    torch.testing.assert_close(logit_adjustment(z, COUNTS).softmax(1), uniform)


def test_adjustment_keeps_the_dtype_and_differentiates() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert logit_adjustment(logits(2, 3, dtype=dtype), COUNTS).dtype == dtype
    z = logits(2, 3).requires_grad_()

    def adjusted(x: Tensor) -> Tensor:
        return logit_adjustment(x, COUNTS, multiplicative=0.5)

    assert torch.autograd.gradcheck(adjusted, z)
    compiled = torch.compile(adjusted, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), adjusted(z))


def test_adjustment_rejects_bad_input() -> None:
    with pytest.raises(ValueError, match="class_counts"):
        logit_adjustment(logits(2, 4), COUNTS)
    with pytest.raises(ValueError, match="class_counts"):
        logit_adjustment(logits(2, 3), torch.tensor([1, 0, 2]))
    with pytest.raises(ValueError, match="logits"):
        logit_adjustment(logits(3), COUNTS)
    with pytest.raises(TypeError, match="logits"):
        logit_adjustment(torch.ones(2, 3, dtype=torch.int64), COUNTS)


# --- vector_scaling_loss ----------------------------------------------------------------------


def by_loops(z: Tensor, y: Tensor, gamma: float, tau: float) -> list[float]:
    counts = COUNTS.tolist()
    losses = []
    for row, label in zip(z.tolist(), y.tolist(), strict=True):
        scores = [
            (n / max(counts)) ** gamma * value + tau * math.log(n / sum(counts))
            for value, n in zip(row, counts, strict=True)
        ]
        losses.append(math.log(sum(math.exp(s - scores[label]) for s in scores)))
    return losses


@pytest.mark.parametrize(("gamma", "tau"), [(0.3, 1.0), (0.0, 1.0), (0.5, 0.0), (0.0, 0.0)])
def test_loss_is_that_of_the_formula(gamma: float, tau: float) -> None:
    z, y = 3 * logits(9, 3), torch.arange(9) % 3
    ours = vector_scaling_loss(z, y, class_counts=COUNTS, gamma=gamma, tau=tau, reduction="none")
    torch.testing.assert_close(ours, torch.tensor(by_loops(z, y, gamma, tau), dtype=torch.float64))


def test_loss_without_scale_and_shift_is_cross_entropy() -> None:
    z, y, weight = logits(9, 3), torch.arange(9) % 3, torch.tensor([1.0, 2.0, 5.0]).double()
    ours = vector_scaling_loss(z, y, class_counts=COUNTS, gamma=0, tau=0, weight=weight)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(z, y, weight=weight))


def test_defaults_are_the_paper_s_code() -> None:
    z, y = logits(9, 3), torch.arange(9) % 3
    ours = vector_scaling_loss(z, y, class_counts=COUNTS, reduction="none")
    torch.testing.assert_close(ours, torch.tensor(by_loops(z, y, 0.3, 1.0), dtype=torch.float64))


def test_adjusted_logits_undo_the_shift() -> None:
    """Shifting in training and adjusting afterwards are the same correction, once."""
    z, y = logits(9, 3), torch.arange(9) % 3
    shifted = vector_scaling_loss(logit_adjustment(z, COUNTS), y, class_counts=COUNTS, gamma=0)
    torch.testing.assert_close(shifted, torch.nn.functional.cross_entropy(z, y))


def test_loss_rejects_bad_counts() -> None:
    z, y = logits(9, 3), torch.arange(9) % 3
    for counts in (torch.tensor([1, 2]), torch.tensor([1, 2, 0])):
        with pytest.raises(ValueError, match="class_counts"):
            vector_scaling_loss(z, y, class_counts=counts)
    with pytest.raises(TypeError, match="class_counts"):
        vector_scaling_loss(z, y, class_counts=[1, 2, 3])
