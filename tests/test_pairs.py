"""Sums over pairs: blocks against the matrix, derivatives, precision, and bounded memory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook import _pairs


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_matrix(a: Tensor, b: Tensor, skip: Tensor) -> Tensor:
    left_out = torch.zeros(len(a), len(b), dtype=torch.bool).scatter(1, skip, True)
    return (a @ b.T).masked_fill(left_out, -math.inf).logsumexp(1)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of large batches at sizes that can be checked: three rows at a time."""
    monkeypatch.setattr(_pairs, "_SMALL", 0)
    monkeypatch.setattr(_pairs, "rows_of_a_block", lambda columns, device: 3)


def problem() -> tuple[Tensor, Tensor, Tensor]:
    return normal(8, 3), normal(6, 3, seed=1), torch.arange(16).view(8, 2) % 6


@pytest.mark.usefixtures("in_blocks")
def test_blocks_are_the_matrix() -> None:
    a, b, skip = problem()
    torch.testing.assert_close(_pairs.log_sum_exp(a, b, skip), by_matrix(a, b, skip))
    nothing = skip[:, :0]
    torch.testing.assert_close(_pairs.log_sum_exp(a, b, nothing), by_matrix(a, b, nothing))


@pytest.mark.usefixtures("in_blocks")
def test_derivatives_of_blocks() -> None:
    a, b, skip = problem()
    leaves = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: _pairs.log_sum_exp(a, b, skip), leaves)
    assert torch.autograd.gradgradcheck(lambda a, b: _pairs.log_sum_exp(a, b, skip), leaves)
    anchors, keys = (leaf.detach() for leaf in leaves)  # one of them fixed, as a queue of keys is
    for of_one, leaf in (
        (lambda a: _pairs.log_sum_exp(a, keys, skip), a),
        (lambda b: _pairs.log_sum_exp(anchors, b, skip), b),
    ):
        assert torch.autograd.gradcheck(of_one, leaf)
        assert torch.autograd.gradgradcheck(of_one, leaf)


@pytest.mark.usefixtures("in_blocks")
def test_one_set_may_be_both() -> None:
    """As in a contrastive loss, where anchors are keys too."""
    z = normal(7, 3).requires_grad_()
    skip = torch.arange(7)[:, None]
    ours = torch.autograd.grad(_pairs.log_sum_exp(z / 0.1, z, skip).sum(), z)[0]
    expected = torch.autograd.grad(by_matrix(z / 0.1, z, skip).sum(), z)[0]
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_large_batch_goes_in_blocks_and_agrees(dtype: torch.dtype) -> None:
    n = 600
    assert n * n > _pairs._SMALL and n > _pairs.rows_of_a_block(n, torch.device("cpu"))
    z = _pairs.unit(normal(n, 16, dtype=dtype)).requires_grad_()
    skip, weights = torch.arange(n)[:, None], normal(n, seed=2, dtype=dtype)
    results = []
    for function in (_pairs.log_sum_exp, by_matrix):
        value = function(z / 0.1, z, skip)
        results.append((value, *torch.autograd.grad((weights * value).sum(), z)))
    for ours, expected in zip(*results, strict=True):
        assert (ours - expected).norm() <= 1e-6 * expected.norm()


def test_memory_does_not_grow_with_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor in forward or backward has more than a block's numbers."""
    n, largest = 3000, 0
    inner = _pairs.inner

    def watched(a: Tensor, b: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(a) * len(b))
        return inner(a, b)

    monkeypatch.setattr(_pairs, "inner", watched)
    z = normal(n, 4, dtype=torch.float32).requires_grad_()
    value = _pairs.log_sum_exp(z, z, torch.arange(n)[:, None])
    held = [x for x in value.grad_fn.saved_tensors if x.numel() > 16 * n]  # type: ignore[union-attr]
    value.sum().backward()
    assert 0 < largest <= 128 * n and held == []


@pytest.mark.usefixtures("in_blocks")
def test_nothing_left_is_the_lowest_number() -> None:
    a, b = normal(4, 3).requires_grad_(), normal(1, 3)
    value = _pairs.log_sum_exp(a, b, torch.zeros(4, 1, dtype=torch.int64))
    assert (value == torch.finfo(value.dtype).min).all()
    loss = torch.nn.functional.softplus(value).sum()
    assert loss == 0 and (torch.autograd.grad(loss, a)[0] == 0).all()


@pytest.mark.usefixtures("in_blocks")
def test_large_exponents_do_not_overflow() -> None:
    a = 1e3 * normal(5, 3, dtype=torch.float32).requires_grad_()
    value = _pairs.log_sum_exp(a, a.detach(), torch.arange(5)[:, None])
    assert value.isfinite().all() and value.abs().max() > 1e5
    assert torch.autograd.grad(value.sum(), a)[0].isfinite().all()


@pytest.mark.parametrize("n", [20, 600])
def test_autocast_does_not_halve_the_precision(n: int) -> None:
    z = _pairs.unit(normal(n, 16, dtype=torch.float32)).requires_grad_()
    skip = torch.arange(n)[:, None]
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = _pairs.log_sum_exp(z / 0.01, z, skip)
        results.append((value, *torch.autograd.grad(value.sum(), z)))
    for plain, cast in zip(*results, strict=True):
        assert torch.equal(plain, cast)


@pytest.mark.usefixtures("in_blocks")
def test_blocks_compile_to_one_graph() -> None:
    torch._dynamo.reset()
    a, b, skip = problem()
    leaves = a.requires_grad_(), b.requires_grad_()
    compiled = torch.compile(_pairs.log_sum_exp, fullgraph=True, backend="aot_eager")
    results = [f(*leaves, skip) for f in (_pairs.log_sum_exp, compiled)]
    torch.testing.assert_close(*results)
    slopes = [torch.autograd.grad(value.square().sum(), leaves) for value in results]
    torch.testing.assert_close(*slopes)


@pytest.mark.usefixtures("in_blocks")
def test_transforms_take_the_plain_way() -> None:
    z = torch.stack([normal(7, 3), normal(7, 3, seed=1)])
    skip = torch.arange(7)[:, None]

    def loss(z: Tensor) -> Tensor:
        return _pairs.log_sum_exp(z, z, skip).sum()

    ours = torch.func.vmap(torch.func.grad(loss))(z)
    expected = torch.stack([torch.func.grad(lambda z: by_matrix(z, z, skip).sum())(x) for x in z])
    torch.testing.assert_close(ours, expected)


@pytest.mark.usefixtures("in_blocks")
def test_over_rows_is_the_function() -> None:
    a, b = normal(8, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    weight = normal(8, seed=2)

    def function(rows: Tensor, w: Tensor) -> Tensor:
        return w * (rows @ b.T).sigmoid().square().sum(1)

    ours, expected = _pairs.over_rows(function, 5, a, weight), function(a, weight)
    torch.testing.assert_close(ours, expected)
    for x, y in zip(*(torch.autograd.grad(v.sum(), (a, b)) for v in (ours, expected)), strict=True):
        torch.testing.assert_close(x, y)
    assert torch.autograd.gradgradcheck(lambda a: _pairs.over_rows(function, 5, a, weight), a)


def test_unit_rows() -> None:
    h = normal(4, 3)
    h[0] = 0
    for scale in (1e-300, 1.0, 1e200):
        u = _pairs.unit(scale * h)
        assert (u[0] == 0).all()
        torch.testing.assert_close(u[1:], h[1:] / h[1:].norm(dim=1, keepdim=True))


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=12))
def test_groups_tell_labels_apart(labels: list[int]) -> None:
    ours = _pairs.groups(torch.tensor(labels, dtype=torch.int64)).tolist()
    assert [x == y for x in ours for y in ours] == [x == y for x in labels for y in labels]
    assert sorted({*ours}) == list(range(len({*labels})))
