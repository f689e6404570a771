"""The supervised contrastive loss against loops in float64, its limits, and bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.representation import supervised_contrastive_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(h: Tensor, labels: list[int], tau: float) -> list[float]:
    """L_i of the "out" form, an anchor without a positive has 0."""
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in h.tolist()]
    losses = []
    for i in range(len(rows)):
        others = [a for a in range(len(rows)) if a != i]
        s = {a: sum(x * y for x, y in zip(rows[i], rows[a], strict=True)) / tau for a in others}
        positives = [p for p in others if labels[p] == labels[i]]
        each = [math.log(sum(math.exp(s[a] - s[p]) for a in others)) for p in positives]
        losses.append(sum(each) / len(each) if each else 0.0)
    return losses


LABELS = [0, 0, 1, 2, 1, 0, 3]  # classes 2 and 3 have a single example


@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_value_is_that_of_the_formula(tau: float) -> None:
    h, labels = normal(7, 3), torch.tensor(LABELS)
    expected = torch.tensor(by_loops(h, LABELS, tau), dtype=torch.float64)
    none = supervised_contrastive_loss(h, labels, temperature=tau, reduction="none")
    torch.testing.assert_close(none, expected)
    mean = supervised_contrastive_loss(h, labels, temperature=tau)
    torch.testing.assert_close(mean, expected.sum() / 5)  # over the anchors with a positive


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
