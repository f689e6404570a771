"""Uniformity of many points: ours, which never holds a matrix of all pairs, against the plain form."""

from __future__ import annotations

import torch
from harness import Benchmark, Goal
from torch import Tensor

from lossbook.representation import uniformity_loss

POINTS, DIMENSION, T = 16384, 128, 2.0


def problem(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Directions that crowd around one of them, as embeddings do, so that the loss is not at its optimum."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(POINTS, DIMENSION, generator=generator)
    points[:, 0] += 6.0
    return torch.nn.functional.normalize(points, dim=1).to(device, dtype)


def all_pairs(points: Tensor) -> Tensor:
    """The matrix of all pairs, its diagonal taken off afterwards: the plain form at its fastest.

    (``torch.pdist``, which the paper prints, takes a multiple of its time.)
    """
    n, points = len(points), torch.nn.functional.normalize(points, dim=1)
    total = (2 * T * (points @ points.T - 1)).exp().sum() - n
    return (total / (n * (n - 1))).log()


def with_gradient(loss):
    """Value and gradient as one vector."""

    def prepare(points: Tensor):
        def call() -> Tensor:
            leaf = points.detach().requires_grad_()
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


BENCHMARKS = [
    Benchmark(
        name="uniformity of 16,384 points in 128 dimensions, value and gradient",
        problem=problem,
        reference=lambda points: with_gradient(all_pairs)(points)(),
        contestants={
            "lossbook": with_gradient(lambda points: uniformity_loss(points, t=T)),
            "matrix of all pairs": with_gradient(all_pairs),
        },
        goals=(Goal("matrix of all pairs", time=1.1, memory=0.2),),
        tolerance=1e-5,
        error=error,
    )
]
