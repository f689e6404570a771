"""Does a device say what float64 on the CPU says? Every loss, and the geometry, in three precisions.

The inputs are rounded to the precision first, so that the error is that of the computation. A loss is
judged by its value and its gradient, the rest by what it returns; errors are relative, in the Euclidean norm.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import relative_error
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lossbook.lab import datasets, training
from lossbook.optimization.landscape import curvature, surfaces
from lossbook.representation import contrastive, hypersphere, neural_collapse

sys.path.insert(0, str(Path(__file__).parents[1]))
import test_contracts

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Quantity:
    """Something to compare: inputs in float64 on the CPU, a function of them, how near it must come."""

    name: str
    inputs: tuple[Tensor, ...]
    function: Callable[..., Tensor]
    differentiable: bool = False
    dtypes: tuple[torch.dtype, ...] = tuple(TOLERANCES)

    def __call__(
        self, device: torch.device, dtype: torch.dtype, held_in: torch.dtype
    ) -> list[Tensor]:
        """The value, and the gradient if it is asked for, at the inputs as ``held_in`` holds them."""
        inputs = [x.to(held_in).to(device, dtype) for x in self.inputs]
        if not self.differentiable:
            return [self.function(*inputs)]
        leaves = [x.requires_grad_() for x in inputs]
        value = self.function(*leaves)
        gradients = torch.autograd.grad(value, leaves)
        return [value.detach(), torch.cat([g.flatten() for g in gradients])]

    def error(self, device: torch.device, dtype: torch.dtype) -> float:
        """The larger of the errors of value and gradient."""
        expected = self(CPU, torch.float64, dtype)
        return max(map(relative_error, self(device, dtype, dtype), expected))


def losses() -> Iterator[Quantity]:
    """Every loss of the package, with the inputs of its contract."""
    for parameters in test_contracts.PLAIN:
        case = parameters.values[0]
        if case.name in test_contracts.NO_GRADCHECK:
            continue  # its gradient is drawn at random
        options = {} if case.default_reduction is None else {"reduction": "mean"}

        def function(*inputs: Tensor, case=case, options=options) -> Tensor:
            first = inputs[0]
            extra = test_contracts.moved(case.extra(first), first.device)
            target = [case.target().to(first.device)] if case.kind.target else []
            return case.loss(*inputs, *target, **extra, **options)

        yield Quantity(case.name, case.inputs(), function, differentiable=True)


def points(number: int, dimension: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, dimension, generator=generator, dtype=torch.float64)


def sphere() -> Iterator[Quantity]:
    crowd = normalize(points(5000, 64) + 2 * torch.eye(64, dtype=torch.float64)[0])
    uniformity = hypersphere.uniformity_loss
    yield Quantity("uniformity of 5,000 points, in blocks", (crowd,), uniformity, True)
    many, pairs = points(2000, 3), (points(100, 8), points(100, 8, 1))
    energy = hypersphere.hyperspherical_energy
    yield Quantity("Riesz energy of 2,000 points", (many,), energy, True)
    yield Quantity("geodesic distance", pairs, hypersphere.geodesic_distance)


def contrast() -> Iterator[Quantity]:
    pairs = points(2000, 64), points(2000, 64) + points(2000, 64, 1)
    nt_xent, supervised = contrastive.nt_xent_loss, contrastive.supervised_contrastive_loss
    yield Quantity("NT-Xent of 2,000 pairs, in blocks", pairs, nt_xent, True)
    labels = torch.arange(2000) % 10

    def labeled(h: Tensor) -> Tensor:
        return supervised(h, labels.to(h.device))

    yield Quantity("supervised contrast of 2,000 points, in blocks", pairs[:1], labeled, True)


def ball() -> Iterator[Quantity]:
    """Points at 0.7 of the radius, for nearer to the boundary bfloat16 holds too few points of the ball."""
    x, y = (0.7 * normalize(points(200, 4, seed)) for seed in (2, 3))
    yield Quantity("Poincaré distance", (x, y), hypersphere.poincare_distance)
    yield Quantity("Möbius addition", (x, y), hypersphere.mobius_add)
    yield Quantity("exponential map of the ball", (y, x), hypersphere.poincare_exp)
    yield Quantity("logarithm of the ball", (y, x), hypersphere.poincare_log)


def collapse() -> Iterator[Quantity]:
    labels = torch.arange(400) % 10
    features = neural_collapse.simplex_etf(10, 32).double()[labels] + 0.1 * points(400, 32)
    weight = points(10, 32, 4)

    def metrics(features: Tensor, weight: Tensor) -> Tensor:
        found = neural_collapse.collapse_metrics(
            features, labels.to(features.device), 10, weight=weight
        )
        return torch.stack([*found.values()])

    yield Quantity("neural collapse, NC1 to NC4", (features, weight), metrics)

    def ratio(features: Tensor) -> Tensor:
        return neural_collapse.fisher_ratio(features, labels.to(features.device), 10)

    yield Quantity("Fisher's discriminant ratio", (features,), ratio)


def network() -> tuple[torch.nn.Module, datasets.Dataset]:
    data = datasets.digits().train.take(torch.arange(256))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = training.mlp(64, 32, 10, activation=torch.nn.Tanh)().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(50):
        optimizer.zero_grad()
        cross_entropy(model(data.inputs.double()), data.labels).backward()
        optimizer.step()
    return model, data


def landscape() -> Iterator[Quantity]:
    """Of a trained network whose weights are the first input; bfloat16 is no precision for a spectrum."""
    model, data = network()
    weights = curvature.flatten(model.parameters()).detach()
    dtypes = (torch.float64, torch.float32)

    def on(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def of_weights(weights: Tensor, inputs: Tensor) -> Tensor:
            own = copy.deepcopy(model).to(weights)
            torch.nn.utils.vector_to_parameters(weights, own.parameters())
            return function(own, [(inputs, data.labels.to(weights.device))])

        return of_weights

    def operators(model, batches) -> Tensor:
        makers = (curvature.hessian, curvature.gauss_newton, curvature.fisher)
        v = points(sum(p.numel() for p in model.parameters()), 1, 5).squeeze(1).to(batches[0][0])
        return torch.cat([make(cross_entropy, model, batches) @ v for make in makers])

    def eigenvalues(model, batches) -> Tensor:
        operator = curvature.hessian(cross_entropy, model, batches)
        return curvature.top_eigenpairs(operator, 5, tolerance=1e-5).values

    def moments(model, batches) -> Tensor:
        operator = curvature.hessian(cross_entropy, model, batches)
        spectrum = curvature.spectral_density(operator, steps=40, probes=2, seed=0)
        return torch.stack([spectrum.moment(power) for power in (1, 2, 3)])

    def surface(model, batches) -> Tensor:
        theta = surfaces.snapshot(model)
        directions = []
        for seed in (0, 1):
            stream = torch.Generator().manual_seed(seed)
            d = surfaces.random_direction({n: p.double() for n, p in theta.items()}, stream)
            like = {n: d[n].to(p) for n, p in theta.items()}
            directions.append(surfaces.filter_normalize(like, theta))
        steps = torch.linspace(-1, 1, 9).to(batches[0][0])
        return surfaces.loss_surface(cross_entropy, model, batches, *directions, steps, steps)

    for name, function in [
        ("products with Hessian, Gauss-Newton and Fisher", operators),
        ("five largest Hessian eigenvalues", eigenvalues),
        ("moments of the Hessian's spectrum", moments),
        ("loss surface along filter-normalized directions", surface),
    ]:
        inputs = (weights, data.inputs.double())
        yield Quantity(name, inputs, on(function), dtypes=dtypes)


def quantities() -> list[Quantity]:
    return [*losses(), *sphere(), *contrast(), *ball(), *collapse(), *landscape()]


def table(device: torch.device) -> list[dict]:
    """For each quantity its errors by precision, with the tolerances."""
    rows = []
    for quantity in quantities():
        errors = {_short(dtype): quantity.error(device, dtype) for dtype in quantity.dtypes}
        tolerances = {_short(dtype): TOLERANCES[dtype] for dtype in quantity.dtypes}
        rows.append({"name": quantity.name, "errors": errors, "tolerances": tolerances})
        worst = {k: f"{e:.0e}{'' if e <= tolerances[k] else ' !'}" for k, e in errors.items()}
        print(f"{quantity.name:50s} {worst}")
    return rows


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
