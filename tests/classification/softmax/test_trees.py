"""Splits, paths and weights of trees against loops, and an ensemble that must be what they make."""

import math

import pytest
import torch
from torch import Tensor

from lossbook.classification import (
    TreeEnsemble,
    entmax,
    leaf_membership,
    leaf_weighted_mean,
    soft_split,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


KINDS = ["softsign", "sigmoid", "entmoid"]
every_kind = pytest.mark.parametrize("kind", KINDS)

# --- Splits


def test_splits_are_those_of_the_formulas() -> None:
    s = exactly([-1e4, -3.0, -2.0, -0.7, 0.0, 1.3, 1.999, 5.0, 1e4])
    expected = exactly([(x / (1 + abs(x)) + 1) / 2 for x in s.tolist()])
    torch.testing.assert_close(soft_split(s, hard=False), expected)
    torch.testing.assert_close(soft_split(s, kind="sigmoid", hard=False), s.sigmoid())
    two = torch.stack([s, torch.zeros_like(s)], 1)  # entmax of a score against 0
    torch.testing.assert_close(soft_split(s, kind="entmoid", hard=False), entmax(two)[:, 0])


@every_kind
def test_splits_are_symmetric_and_differentiable(kind: str) -> None:
    s = normal(50).requires_grad_()
    p = soft_split(s, kind=kind, hard=False)
    torch.testing.assert_close(soft_split(-s, kind=kind, hard=False), 1 - p)
    assert torch.autograd.gradcheck(lambda x: soft_split(x, kind=kind, hard=False), s)
    hard = soft_split(s, kind=kind)
    assert torch.equal(hard, (s > 0).double())
    outer = normal(50, seed=1)
    slopes = [torch.autograd.grad((x * outer).sum(), s)[0] for x in (p, hard)]
    torch.testing.assert_close(*slopes)


def test_slopes_far_from_the_threshold() -> None:
    s = exactly([10.0]).requires_grad_()
    slopes = [torch.autograd.grad(soft_split(s, kind=kind), s)[0].item() for kind in KINDS]
    assert slopes[0] == pytest.approx(1 / (2 * 11**2))
    assert slopes[1] == pytest.approx(math.exp(-10), rel=1e-3) and slopes[2] == 0
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        far = torch.tensor([1e4, -1e4, 0.0], dtype=dtype, requires_grad=True)
        for kind in KINDS:
            out = soft_split(far, kind=kind)
            assert out.dtype == dtype and out.tolist() == [1, 0, 0]
            assert torch.autograd.grad(out.sum(), far)[0].isfinite().all()


# --- Paths


def along_paths(splits: list[float], depth: int) -> list[float]:
    memberships = []
    for leaf in range(2**depth):
        node, product = 0, 1.0
        for level in reversed(range(depth)):
            right = (leaf >> level) & 1
            product *= splits[node] if right else 1 - splits[node]
            node = 2 * node + 1 + right
        memberships.append(product)
    return memberships


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_memberships_are_products_along_paths(depth: int) -> None:
    s = normal(3, 5, 2**depth - 1).sigmoid()
    ours = leaf_membership(s)
    expected = [[along_paths(row, depth) for row in rows] for rows in s.tolist()]
    torch.testing.assert_close(ours, exactly(expected))
    torch.testing.assert_close(ours.sum(-1), torch.ones(3, 5, dtype=s.dtype))
    assert torch.equal(leaf_membership(s.round()).sum(-1), torch.ones(3, 5, dtype=s.dtype))


def test_hard_paths_have_a_gradient_at_their_nodes_alone() -> None:
    s = exactly([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).requires_grad_()  # right, left, right
    values = exactly([1, 2, 3, 4, 50, 600, 7000, 80000])
    (slope,) = torch.autograd.grad(leaf_membership(s) @ values, s)
    # On the path are nodes 0, 2 and 5; each weighs the leaf reached against that on its other side.
    assert slope.tolist() == [600 - 1, 0, 80000 - 600, 0, 0, 600 - 50, 0]


def test_leaf_weighted_mean() -> None:
    outputs, scores = normal(4, 3, 2), 2 * normal(4, 3, seed=1)
    for row, f, w in zip(
        leaf_weighted_mean(outputs, scores).tolist(), outputs.tolist(), scores.tolist(), strict=True
    ):
        shares = [math.exp(x) / sum(map(math.exp, w)) for x in w]
        for c in range(2):
            assert row[c] == pytest.approx(sum(s * g[c] for s, g in zip(shares, f, strict=True)))


# --- An ensemble


def ensemble(**options: object) -> TreeEnsemble:
    generator = torch.Generator().manual_seed(0)
    return TreeEnsemble(5, 3, trees=4, depth=2, generator=generator, **options).double()


@every_kind
def test_ensemble_is_what_its_trees_say(kind: str) -> None:
    model, inputs = ensemble(kind=kind), normal(6, 5)
    selection, thresholds = model.selection.tolist(), model.thresholds.tolist()
    outputs = model(inputs)
    for x, out in zip(inputs.tolist(), outputs, strict=True):
        said, weights = [], []
        for e in range(4):
            node = 0
            while node < 3:
                j = max(range(5), key=lambda j, e=e, node=node: selection[e][node][j])
                node = 2 * node + 1 + (x[j] > thresholds[e][node][j])
            said.append(model.values[e, node - 3])
            weights.append(model.leaf_weights[e, node - 3])
        expected = (torch.stack(weights).softmax(0)[:, None] * torch.stack(said)).sum(0)
        torch.testing.assert_close(out, expected)


def test_all_parameters_learn() -> None:
    for options in ({}, {"hard": False}, {"instance_weights": False}, {"kind": "sigmoid"}):
        model = ensemble(**options)
        names = [name for name, _ in model.named_parameters()]
        assert ("leaf_weights" in names) == options.get("instance_weights", True)
        model(normal(50, 5)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name


def test_without_instance_weights_trees_weigh_the_same() -> None:
    model, plain = ensemble(), ensemble(instance_weights=False)
    plain.load_state_dict({k: x for k, x in model.state_dict().items() if k != "leaf_weights"})
    torch.nn.init.constant_(model.leaf_weights, 0.3)
    torch.testing.assert_close(model(normal(6, 5)), plain(normal(6, 5)))


def test_choices_of_features() -> None:
    hard, soft = ensemble().choices(), ensemble(hard=False).choices()
    assert torch.equal(hard.argmax(-1), soft.argmax(-1))
    assert set(hard.unique().tolist()) == {0, 1} and soft.unique().numel() > 20
    torch.testing.assert_close(soft.sum(-1), torch.ones(4, 3, dtype=soft.dtype))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="kind"):
        soft_split(normal(3), kind="step")
    with pytest.raises(ValueError, match="kind"):
        ensemble(kind="step")
    with pytest.raises(TypeError, match="scores"):
        soft_split(torch.tensor([1]))
    for nodes in (0, 2, 4, 6):
        with pytest.raises(ValueError, match="number of splits"):
            leaf_membership(torch.zeros(1, nodes))
    with pytest.raises(ValueError, match="number of splits"):
        leaf_membership(torch.tensor(0.5))
    with pytest.raises(ValueError, match="outputs"):
        leaf_weighted_mean(normal(4, 3), normal(4, 3))
    with pytest.raises(ValueError, match="leaf_scores"):
        leaf_weighted_mean(normal(4, 3, 2), normal(4, 2))
    with pytest.raises(ValueError, match="inputs"):
        ensemble()(normal(6, 4))
    for size in ("features", "classes", "trees", "depth"):
        with pytest.raises(ValueError, match=size):
            TreeEnsemble(**({"features": 2, "classes": 2} | {size: 0}))
