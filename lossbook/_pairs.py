"""Sums over pairs of embeddings, without the matrix of all pairs.

A batch of N embeddings has N squared pairs, and their matrix is what runs out of memory first. Here pairs are
taken in blocks of rows: only results are kept, and a block is computed again where its gradient is needed.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lossbook._contract import check_float, require

_SMALL = 2**18  # pairs up to which the matrix is the simplest and fastest


def check_embeddings(x: Tensor, name: str, shape: str = "(N, D)") -> Tensor:
    """Checks for floating-point rows (N, D) and promotes them."""
    rows = check_float(x, name)
    require(rows.ndim == 2, f"the shape of {name}", tuple(rows.shape), shape)
    return rows


def unit(h: Tensor) -> Tensor:
    """Rows (..., D) of length one, smooth also at zero, where they stay zero."""
    scale = h.detach().abs().amax(-1, keepdim=True)  # so that squares neither over- nor underflow
    h = h / scale.where(scale > 0, 1)
    return h * h.square().sum(-1, keepdim=True).clamp(min=0.5).rsqrt()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Without autocast, which would take inner products in half precision and then divide by tau."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """All inner products a_i . b_j."""
    with full_precision(a):
        return a @ b.mT


def _wrapped(*tensors: Tensor) -> bool:
    """Whether a transform of torch.func is at work, under which nothing can be recomputed."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return not torch.compiler.is_compiling() and any(wrapped(x) for x in tensors)


def rows_of_a_block(columns: int, device: torch.device) -> int:
    """Rows at a time: what stays in a CPU's caches; far more on a GPU, which wants large pieces."""
    if device.type == "cpu":
        return max(1, min(128, 2**22 // max(1, columns)))
    return max(1, 2**25 // max(1, columns))


def over_rows(function: Callable[..., Tensor], columns: int, *rows: Tensor) -> Tensor:
    """A function of rows, block by block: ``function(*rows)`` of (n, ...) tensors, one result a row.

    Args:
        function: Of blocks of the rows; it may close over other tensors, whose gradients arrive too.
        columns: How many numbers the function needs for each row.
        rows: Tensors of equally many rows.
    """
    size = rows_of_a_block(columns, rows[0].device)
    if len(rows[0]) * columns <= _SMALL or len(rows[0]) <= size or _wrapped(*rows):
        return function(*rows)
    again = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    blocks = zip(*(x.split(size) for x in rows), strict=True)
    return torch.cat([again(*block) for block in blocks])


def _without(exponents: Tensor, skip: Tensor) -> Tensor:
    """The lowest number, not minus infinity, in what is left out: nothing left must not give nan."""
    return exponents.scatter(1, skip, torch.finfo(exponents.dtype).min)


def _blocks(a: Tensor, b: Tensor) -> Iterator[slice]:
    size = rows_of_a_block(len(b), a.device)
    return (slice(first, first + size) for first in range(0, len(a), size))


class _LogSumExp(torch.autograd.Function):
    """Blocks are exponentiated in place, forward and once more backward.

    What a block leaves behind is written into tensors made beforehand: small ones made between blocks
    would sit in the room of the last block and keep the next from using it again. A backward pass that is
    itself to be differentiated computes the blocks with a graph.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, skip: Tensor) -> Tensor:
        result = a.new_empty(len(a))
        for block in _blocks(a, b):
            e = inner(a[block], b).scatter_(1, skip[block], torch.finfo(a.dtype).min)
            top = e.amax(1)
            result[block] = e.sub_(top[:, None]).exp_().sum(1).log() + top
        ctx.save_for_backward(a, b, skip, result)
        return result

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        a, b, skip, result = ctx.saved_tensors
        for_a, for_b, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():
            again = over_rows(partial(_plain, b), len(b), a, skip)
            wanted = [x for x, needed in ((a, for_a), (b, for_b)) if needed]
            slopes = iter(torch.autograd.grad(again, wanted, outer[0], create_graph=True))
            return next(slopes) if for_a else None, next(slopes) if for_b else None, None
        slope_a, slope_b, weights = torch.empty_like(a), torch.zeros_like(b), outer[0][:, None]
        with full_precision(a):
            for block in _blocks(a, b):
                e = inner(a[block], b).scatter_(1, skip[block], torch.finfo(a.dtype).min)
                share = e.sub_(result[block, None]).exp_()
                if for_a:
                    slope_a[block] = weights[block] * (share @ b)
                if for_b:
                    slope_b.addmm_(share.mT, weights[block] * a[block])
        return slope_a if for_a else None, slope_b if for_b else None, None


def _plain(b: Tensor, a: Tensor, skip: Tensor) -> Tensor:
    return _without(inner(a, b), skip).logsumexp(1)


def log_sum_exp(a: Tensor, b: Tensor, skip: Tensor) -> Tensor:
    r"""For each row :math:`\log \sum_j e^{a_i \cdot b_j}` over the columns that are not left out.

    Exact, with first and second derivatives; memory grows with the rows, not with the pairs. Where
    everything is left out it is the lowest number there is, with zero gradient into what follows by
    way of a softplus.

    Args:
        a: (n, D), with the temperature in it.
        b: (m, D), m at least 1.
        skip: (n, e), int64, for each row the columns to leave out.
    """
    if len(a) * len(b) <= _SMALL or _wrapped(a, b, skip):
        return _plain(b, a, skip)
    return _LogSumExp.apply(a, b, skip)


def groups(labels: Tensor) -> Tensor:
    """Integers (N,) renamed to 0, 1, ..., at most N - 1, equal ones alike, in shapes known beforehand."""
    ordered, order = labels.sort()
    new = torch.cat([ordered[:1] != ordered[:1], ordered[1:] != ordered[:-1]])
    return torch.empty_like(labels).scatter(0, order, new.cumsum(0))
