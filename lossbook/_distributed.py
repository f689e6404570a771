"""One loss over the batches of several processes, as if they were one batch.

Every rank computes the losses of its own anchors against the embeddings of all ranks. Rows are gathered
*with* their gradient, and the value is that of the joined batch on every rank. Each rank then differentiates
the same value, so the gradients of a parameter sum, over k ranks, to k times that of one process: the average
that ``DistributedDataParallel`` takes is exactly it.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lossbook._contract import reduce, require


def _check_ranks() -> None:
    """Raises RuntimeError where there are no ranks to meet."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "gather=True needs a process group: call torch.distributed.init_process_group first"
        )


def _rows(x: Tensor) -> list[int]:
    """How many rows each rank holds; all of them some, for one without would not meet the others in

    the backward pass and leave them waiting.
    """
    _check_ranks()
    own = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    rows = [int(count) for count in counts]
    require(min(rows) > 0, "the number of rows on each rank", rows, "at least 1")
    return rows


class _Everyone(torch.autograd.Function):
    """Rows of all ranks in the order of the ranks, which may hold different numbers of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = _rows(x)
        padded = x.new_zeros(max(rows), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        first = sum(rows[: dist.get_rank()])
        ctx.own = slice(first, first + len(x))
        return torch.cat([part[:number] for part, number in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        return _Total.apply(outer[0])[ctx.own]


class _Total(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, as every rank depends on every summand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        _check_ranks()
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        return _Total.apply(outer[0])


def everyone(x: Tensor, gather: bool) -> Tensor:
    """The rows of all ranks, with gradient; without ``gather`` x itself."""
    return _Everyone.apply(x) if gather else x


def first_row(x: Tensor, gather: bool) -> int:
    """Where the rows of this rank begin among those of all."""
    return sum(_rows(x)[: dist.get_rank()]) if gather else 0


def total(x: Tensor, gather: bool) -> Tensor:
    """The sum of x over all ranks, with gradient; without ``gather`` x itself."""
    return _Total.apply(x) if gather else x


def reduce_everywhere(
    losses: Tensor, weights: Tensor, reduction: str, dtype: torch.dtype, gather: bool
) -> Tensor:
    """As :func:`lossbook._contract.reduce`, over the elements of all ranks; "none" keeps to the own."""
    if gather and reduction != "none":
        sums = total(torch.stack([losses.sum(), weights.sum()]), gather)
        losses, weights = sums[:1], sums[1:]
    return reduce(losses, weights, reduction, dtype)
