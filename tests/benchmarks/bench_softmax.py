"""Sparse maps to the simplex on many classes, against the package that introduced them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import Benchmark, Goal, relative_error
from torch import Tensor

from lossbook.classification import entmax, sparsemax

ROWS, CLASSES = 256, 32_000


def problem(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scores of many classes, and a direction for the gradient."""
    scores, weights = torch.randn(2, ROWS, CLASSES, generator=torch.Generator().manual_seed(0))
    return scores.to(device, dtype), weights.to(device, dtype)


def with_gradient(make: Callable[[], Callable[[Tensor], Tensor]]):
    """Probabilities and their gradient, one after the other."""

    def prepare(problem: tuple[Tensor, Tensor]):
        (scores, weights), function = problem, make()

        def call() -> Tensor:
            leaf = scores.detach().requires_grad_()
            p = function(leaf)
            (gradient,) = torch.autograd.grad(p, leaf, weights)
            return torch.stack([p.detach(), gradient])

        return call

    return prepare


def peer(name: str) -> Callable[[Tensor], Tensor]:
    import entmax as package

    return lambda z: getattr(package, name)(z, dim=1)


def by_halving(power: float) -> Callable[[Tensor], Tensor]:
    """The reference: the threshold by bisection, the gradient by its formula."""

    class Halving(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z: Tensor) -> Tensor:
            x = z / power
            low, high = x.amax(1, True) - 1, x.amax(1, True)
            for _ in range(60):
                tau = (low + high) / 2
                large = ((x - tau).clamp(min=0) ** power).sum(1, True) > 1
                low, high = torch.where(large, tau, low), torch.where(large, high, tau)
            p = (x - low).clamp(min=0) ** power
            ctx.save_for_backward(p)
            return p

        @staticmethod
        def backward(ctx, outer: Tensor) -> Tensor:
            (p,) = ctx.saved_tensors
            s = torch.where(p > 0, p ** (1 - 1 / power), 0)
            return s * (outer - (s * outer).sum(1, True) / s.sum(1, True))

    return Halving.apply


def measure(name: str, ours, theirs: str, power: float, limit: float) -> Benchmark:
    package = f"entmax.{theirs}"
    return Benchmark(
        name=f"{name} of {ROWS} x {CLASSES:,} scores, value and gradient",
        problem=problem,
        reference=lambda data: with_gradient(lambda: by_halving(power))(data)(),
        contestants={
            "lossbook": with_gradient(lambda: ours),
            package: with_gradient(lambda: peer(theirs)),
            "softmax": with_gradient(lambda: lambda z: z.softmax(1)),
        },
        goals=(Goal(package, time=limit),),
        tolerance=1e-6,
        error=relative_error,
    )


BENCHMARKS = [
    measure("entmax-1.5", entmax, "entmax15", 2, 0.2),
    measure("sparsemax", sparsemax, "sparsemax", 1, 0.3),
]
