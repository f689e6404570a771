"""What the explorables of the notebook on loss surfaces must draw, computed a second time.

The networks are trained again, in float64 and on all data at once, by a loop of this file's own:
layers written out, optimizers by their formulas, matchings by one assignment problem.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from lossbook.lab import datasets

Settings = dict[str, str]
Weights = tuple[Tensor, ...]


@cache
def digits() -> tuple[Tensor, Tensor]:
    data = datasets.digits().train
    return data.inputs.double(), data.labels


def loss(weights: Weights) -> Tensor:
    """Mean surprise of a perceptron with one hidden layer."""
    x, y = digits()
    first, first_bias, second, second_bias = weights
    z = (x @ first.T + first_bias).clamp(min=0) @ second.T + second_bias
    return (z.logsumexp(1) - z[torch.arange(len(y)), y]).mean()


def along(points: list[Weights], coefficients: Tensor) -> Tensor:
    """The loss at each combination of the points."""
    with torch.no_grad():
        return torch.stack(
            [
                loss(tuple(sum(c * p[i] for c, p in zip(row, points, strict=True)) for i in range(4)))
                for row in coefficients.tolist()
            ]
        )  # fmt: skip


def beginning(width: int, seed: int) -> Weights:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(64, width), nn.Linear(width, 10)
    return tuple(p.detach().double() for layer in layers for p in (layer.weight, layer.bias))


def steps(
    width: int, seed: int, number: int, optimizer: str = "momentum", rate: float = 0.1
) -> list[Weights]:
    """The iterates after each of so many updates."""
    theta = list(beginning(width, seed))
    memory = [(torch.zeros_like(p), torch.zeros_like(p)) for p in theta]
    way = []
    for k in range(1, number + 1):
        leaves = [p.clone().requires_grad_() for p in theta]
        slopes = torch.autograd.grad(loss(tuple(leaves)), leaves)
        for i, g in enumerate(slopes):
            m, v = memory[i]
            if optimizer == "Adam":
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                step = (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
            else:
                m = (0.9 if optimizer == "momentum" else 0.0) * m + g
                step = m
            memory[i] = (m, v)
            theta[i] = theta[i] - rate * step
        way.append(tuple(theta))
    return way


@cache
def trained(width: int, seed: int) -> Weights:
    return steps(width, seed, 150)[-1]


# --- one function, two pictures


@cache
def directions() -> tuple[Weights, Weights]:
    """The numbers of the direction, as they are and as long all together as the network."""
    home = trained(16, 0)
    stream = torch.Generator().manual_seed(7)
    numbers = tuple(torch.randn(p.shape, generator=stream, dtype=torch.float64) for p in home)
    size = (sum((p**2).sum() for p in home) / sum((p**2).sum() for p in numbers)) ** 0.5
    return numbers, tuple(size * p for p in numbers)


def normalized(numbers: Weights, theta: Weights) -> Weights:
    rows = [
        torch.stack([d / d.norm() * w.norm() for d, w in zip(numbers[i], theta[i], strict=True)])
        for i in (0, 2)
    ]
    return rows[0], 0 * theta[1], rows[1], 0 * theta[3]


def both(theta: Weights, a: Tensor) -> Tensor:
    numbers, unit = directions()
    coefficients = torch.stack([torch.ones_like(a), a], 1)
    return torch.stack(
        [along([theta, d], coefficients) for d in (unit, normalized(numbers, theta))]
    )


@cache
def fixed(seed: int, a: tuple[float, ...]) -> Tensor:
    return both(trained(16, seed), torch.tensor(a, dtype=torch.float64))


def rescaling(a: Tensor, settings: Settings) -> list[Tensor]:
    stops = [2.0 ** (k / 2) for k in range(-8, 9)]
    c = min(stops, key=lambda stop: abs(stop - float(settings["c"])))
    w, b, v, d = trained(16, 0)
    twin = both((c * w, c * b, v / c, d), a)
    return [fixed(0, tuple(a.tolist())), fixed(1, tuple(a.tolist())), twin]


# --- the line between two networks


@cache
def matched(width: int) -> Weights:
    first, second = trained(width, 0), trained(width, 1)
    gains = first[0] @ second[0].T + torch.outer(first[1], second[1]) + first[2].T @ second[2]
    order = torch.tensor(linear_sum_assignment(gains.numpy(), maximize=True)[1])
    return second[0][order], second[1][order], second[2][:, order], second[3]


def matching(t: Tensor, settings: Settings) -> list[Tensor]:
    width = int(settings["width"])
    coefficients = torch.stack([1 - t, t], 1)
    start = trained(width, 0)
    return [along([start, end], coefficients)[None] for end in (trained(width, 1), matched(width))]


# --- the plane of training


def trajectory(settings: Settings) -> Tensor:
    """The iterates in their principal plane, from the eigenvectors of their inner products."""
    name = settings["optimizer"]
    rate = {"gradient descent": 0.3, "momentum": 0.1, "Adam": 0.01}[name]
    way = steps(16, 0, 40, name, rate)
    rows = torch.stack([torch.cat([p.flatten() for p in point]) for point in way])
    rows = rows - rows[-1]
    centered = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centered @ centered.T)
    axes = torch.stack([centered.T @ vectors[:, -k] / values[-k].sqrt() for k in (1, 2)], 1)
    axes = axes * (rows[0] @ axes).sign()
    places = rows @ axes
    ends = [p.numel() for p in way[-1]]
    basis = [way[-1]] + [
        tuple(part.view(p.shape) for part, p in zip(axis.split(ends), way[-1], strict=True))
        for axis in axes.T
    ]
    heights = along(basis, torch.cat([torch.ones(40, 1).double(), places], 1))
    return torch.cat([places, heights[:, None]], 1)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "surfaces-rescaling": rescaling,
    "surfaces-matching": matching,
}

SCENES: dict[str, Callable[[Settings], Tensor]] = {
    "surfaces-trajectory": trajectory,
    "surfaces-skips": lambda _: torch.zeros(0, 3),  # a surface alone: it has no points
}
