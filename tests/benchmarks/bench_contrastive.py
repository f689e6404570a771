"""The contrastive loss of two views: ours against the plain form, a library, and checkpointed blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from harness import Benchmark, Goal
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from lossbook.representation import nt_xent_loss

TEMPERATURE = 0.1
Loss = Callable[[Tensor], Tensor]  # of the two views one after the other, (2 N, D)


def views(number: int, dimension: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Pairs that lie near each other in a crowd, as embeddings do while they are learned."""
    generator = torch.Generator().manual_seed(0)
    first, change = torch.randn(2, number, dimension, generator=generator)
    first[:, 0] += 6.0
    return torch.cat([first, first + change]).to(device, dtype)


def ours(h: Tensor) -> Tensor:
    return nt_xent_loss(*h.chunk(2), temperature=TEMPERATURE)


def partners(h: Tensor) -> Tensor:
    return torch.arange(len(h), device=h.device).roll(len(h) // 2)


def matrix(h: Tensor) -> Tensor:
    """The matrix of all similarities, the diagonal masked, as logits of a cross-entropy."""
    u = normalize(h, dim=1)
    itself = torch.eye(len(h), dtype=torch.bool, device=h.device)
    logits = (u @ u.T / TEMPERATURE).masked_fill(itself, -math.inf)
    return cross_entropy(logits, partners(h))


def checkpointed(h: Tensor) -> Tensor:
    """The matrix in blocks of 256 rows, each computed again in the backward pass."""
    u = normalize(h, dim=1)

    def block(rows: Tensor, index: Tensor, answer: Tensor) -> Tensor:
        logits = (rows @ u.T / TEMPERATURE).scatter(1, index[:, None], -math.inf)
        return cross_entropy(logits, answer, reduction="sum")

    pieces = (x.split(256) for x in (u, torch.arange(len(h), device=h.device), partners(h)))
    sums = [checkpoint(block, *piece, use_reentrant=False) for piece in zip(*pieces, strict=True)]
    return torch.stack(sums).sum() / len(h)


def metric_learning(name: str) -> Loss:
    """A loss of pytorch-metric-learning, which takes labels: here the number of the example."""
    from pytorch_metric_learning import losses

    loss = getattr(losses, name)(temperature=TEMPERATURE)
    return lambda h: loss(h, torch.arange(len(h) // 2, device=h.device).repeat(2))


def with_gradient(make: Callable[[], Loss]):
    """Value and gradient as one vector."""

    def prepare(h: Tensor):
        loss = make()

        def call() -> Tensor:
            leaf = h.detach().requires_grad_()
            value = loss(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
            return torch.cat([value.detach()[None], gradient.flatten()])

        return call

    return prepare


def error(answer: Tensor, reference: Tensor) -> float:
    """The worse of value and gradient, each relative."""
    answer, reference = answer.cpu().double(), reference.cpu().double()
    value = (answer[0] - reference[0]).abs() / reference[0].abs()
    return float(max(value, (answer[1:] - reference[1:]).norm() / reference[1:].norm()))


def measure(
    number: int,
    dimension: int,
    rivals: dict[str, Callable[[], Loss]],
    goals: tuple[Goal, ...],
    devices: tuple[str, ...] = ("cpu", "cuda"),
) -> Benchmark:
    return Benchmark(
        name=f"NT-Xent of 2 x {number:,} embeddings in {dimension:,} dimensions, value and gradient",
        problem=partial(views, number, dimension),
        reference=lambda h: with_gradient(lambda: checkpointed)(h)(),
        contestants={
            "lossbook": with_gradient(lambda: ours),
            **{name: with_gradient(make) for name, make in rivals.items()},
        },
        goals=goals,
        tolerance=1e-5,
        error=error,
        devices=devices,
    )


MATRIX, BLOCKS = "matrix of all pairs", "checkpointed blocks of rows"
SUPCON, NTXENT = "pytorch-metric-learning's SupConLoss", "pytorch-metric-learning's NTXentLoss"

BENCHMARKS = [
    measure(
        256,
        128,
        {NTXENT: partial(metric_learning, "NTXentLoss"), MATRIX: lambda: matrix},
        (Goal(NTXENT, time=0.05),),
    ),
    measure(
        2048,
        128,
        {
            SUPCON: partial(metric_learning, "SupConLoss"),
            MATRIX: lambda: matrix,
            BLOCKS: lambda: checkpointed,
        },
        (Goal(SUPCON, time=0.08), Goal(MATRIX, time=1.0), Goal(megabytes=120)),
    ),
    measure(16384, 128, {BLOCKS: lambda: checkpointed}, (Goal(megabytes=300),)),
    measure(
        32768,
        1024,
        {BLOCKS: lambda: checkpointed},
        (Goal(megabytes=1500),),
        devices=("cuda",),
    ),
]
