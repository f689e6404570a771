"""Products, eigenvalues and spectra of the Hessian, against curvlinops, scipy and PyHessian."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass

import torch
from harness import Benchmark, Goal
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from lossbook.lab import datasets, training
from lossbook.optimization.landscape import curvature

STEPS = 100  # of Lanczos, for the spectral density


@dataclass(frozen=True)
class Problem:
    """A network after a short training, and the examples on which its loss is taken."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.inputs, self.labels)]

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.model.parameters())

    def vector(self, columns: int = 1) -> Tensor:
        """The same random directions for everyone."""
        size = sum(p.numel() for p in self.parameters)
        generator = torch.Generator().manual_seed(1)
        return torch.randn(size, columns, generator=generator).to(self.inputs).squeeze(1)


def trained(build, inputs: Tensor, labels: Tensor, device: torch.device, dtype: torch.dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return Problem(model.to(device, dtype), inputs.to(device, dtype), labels.to(device))


def perceptron(device: torch.device, dtype: torch.dtype) -> Problem:
    """A 784-256-128-10 perceptron (235,146 weights) on 1,024 digits drawn to 28 x 28 pixels."""
    data = datasets.digits().train
    pictures = interpolate(data.inputs[:1024].reshape(-1, 1, 8, 8), size=28, mode="bilinear")
    build = training.mlp(784, 256, 128, 10)
    return trained(build, pictures.flatten(1), data.labels[:1024], device, dtype)


def convolutional(device: torch.device, dtype: torch.dtype) -> Problem:
    """A small convolutional network on 512 digits."""
    data = datasets.digits().train
    pictures = data.inputs[:512].reshape(-1, 1, 8, 8)

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 10),
        )

    return trained(build, pictures, data.labels[:512], device, dtype)


# --- products


def ours(problem: Problem):
    operator = curvature.hessian(cross_entropy, problem.model, problem.batches)
    v = problem.vector()
    return lambda: operator @ v


def theirs(problem: Problem):
    operator = linops(problem)
    v = problem.vector()
    return lambda: operator @ v


def linops(problem: Problem):
    from curvlinops import HessianLinearOperator

    return HessianLinearOperator(
        problem.model,
        nn.CrossEntropyLoss(),
        problem.parameters,
        problem.batches,
        check_deterministic=False,
    )


def plain(problem: Problem):
    """Double backward from scratch at every product."""
    v = curvature.unflatten(problem.vector(), problem.parameters)

    def call() -> Tensor:
        loss = cross_entropy(problem.model(problem.inputs), problem.labels)
        gradient = torch.autograd.grad(loss, problem.parameters, create_graph=True)
        return curvature.flatten(torch.autograd.grad(gradient, problem.parameters, v))

    return call


# --- eigenvalues


def largest(problem: Problem):
    def call() -> Tensor:
        operator = curvature.hessian(cross_entropy, problem.model, problem.batches)
        return curvature.top_eigenpairs(operator, 3, tolerance=1e-4).values

    return call


def eigsh(problem: Problem):
    """scipy's Lanczos on the operator of curvlinops, to the same tolerance."""
    from scipy.sparse.linalg import eigsh as lanczos

    def call() -> Tensor:
        operator = linops(problem).to_scipy()
        values = lanczos(operator, k=3, which="LA", tol=1e-4, return_eigenvectors=False)
        return torch.as_tensor(values.copy()).sort(descending=True).values

    return call


def pyhessian(tolerance: float):
    """Power iteration with deflation; the tolerance is on the change of an eigenvalue in a step."""

    def prepare(problem: Problem):
        from pyhessian import hessian

        def call() -> Tensor:
            with warnings.catch_warnings(), contextlib.redirect_stdout(None):
                warnings.simplefilter("ignore")  # of backward(create_graph=True), its own way
                cuda = problem.inputs.is_cuda
                data = (problem.inputs, problem.labels)
                found = hessian(problem.model, nn.CrossEntropyLoss(), data=data, cuda=cuda)
                values, _ = found.eigenvalues(maxIter=1000, tol=tolerance, top_n=3)
            problem.model.zero_grad()
            return torch.tensor(values)

        return call

    return prepare


def exact_largest(problem: Problem) -> Tensor:
    operator = curvature.hessian(cross_entropy, problem.model, problem.batches)
    return curvature.top_eigenpairs(operator, 3, tolerance=1e-8, max_steps=500).values


def worst(answer: Tensor, reference: Tensor) -> float:
    answer, reference = answer.cpu().double(), reference.cpu().double()
    return float(((answer - reference) / reference).abs().max())


# --- spectral density


def density(problem: Problem):
    """The largest and the smallest node, which say how far the spectrum was resolved."""

    def call() -> Tensor:
        operator = curvature.hessian(cross_entropy, problem.model, problem.batches)
        nodes = curvature.spectral_density(operator, steps=STEPS, probes=1).nodes
        return torch.stack([nodes.min(), nodes.max()])

    return call


def fast_lanczos(problem: Problem):
    """The quadrature of curvlinops, whose vectors are not orthogonalized again."""
    from curvlinops.papyan2020traces.spectrum import fast_lanczos as lanczos

    def call() -> Tensor:
        nodes, _ = lanczos(linops(problem), STEPS)
        return torch.stack([nodes.min(), nodes.max()])

    return call


def extremes(problem: Problem) -> Tensor:
    operator = curvature.hessian(cross_entropy, problem.model, problem.batches)
    ends = [
        curvature.top_eigenpairs(operator, 1, which=end, tolerance=1e-8, max_steps=500).values
        for end in ("smallest", "largest")
    ]
    return torch.cat(ends)


BENCHMARKS = [
    Benchmark(
        name="Hessian-vector product, perceptron of 235,146 weights, 1,024 examples",
        problem=perceptron,
        reference=lambda problem: plain(problem)(),
        contestants={"lossbook": ours, "curvlinops": theirs, "double backward": plain},
        goals=(Goal("curvlinops", time=0.3),),
        tolerance=1e-4,
    ),
    Benchmark(
        name="three largest Hessian eigenvalues of the same perceptron",
        problem=perceptron,
        reference=exact_largest,
        contestants={
            "lossbook": largest,
            "curvlinops and scipy's eigsh": eigsh,
            "PyHessian": pyhessian(1e-6),
            "PyHessian, default tolerance": pyhessian(1e-3),
        },
        goals=(Goal("curvlinops and scipy's eigsh", time=0.45), Goal("PyHessian", time=0.45)),
        tolerance=1e-4,
        error=worst,
    ),
    Benchmark(
        name=f"spectral density in {STEPS} Lanczos steps, small convolutional network",
        problem=convolutional,
        reference=extremes,
        contestants={"lossbook": density, "curvlinops": fast_lanczos},
        goals=(Goal("curvlinops", time=1.0),),
        tolerance=1e-3,
        error=worst,
    ),
]
