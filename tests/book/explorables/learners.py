"""What the figures of `classification/surrogates/learners` must show, computed a second time.

Kernels by their recursion in float64 or in closed form, planes by inner products in plain Python;
without the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Settings = dict[str, str]


def points() -> tuple[list[float], list[float]]:
    """Angles and labels of the fourteen examples: shares drawn from two Dirichlet distributions."""
    rng = np.random.default_rng(5)
    coin = rng.random(14)
    first, second = rng.dirichlet((1, 2), 14), rng.dirichlet((2, 1), 14)
    shares = [first[i] if coin[i] < 0.4 else second[i] for i in range(14)]
    return [math.atan2(b, a) for a, b in shares], [1.0 if c < 0.4 else -1.0 for c in coin]


def relu(xi: Tensor) -> tuple[Tensor, Tensor]:
    slope = (math.pi - xi.acos()) / math.pi
    return xi * slope + (1 - xi**2).sqrt() / math.pi, slope


DUALS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "(ξ + ξ⁷) / 2": lambda xi: ((xi + xi**7) / 2, (1 + 7 * xi**6) / 2),
    "(1 + ξ + ξ² + ξ³) / 4": lambda xi: (
        (1 + xi + xi**2 + xi**3) / 4,
        (1 + 2 * xi + 3 * xi**2) / 4,
    ),
    "ReLU": relu,
}


def depth(x: Tensor, settings: Settings) -> list[Tensor]:
    """The votes of a deep network, the nearest neighbor, the singular kernel and the majority."""
    angles, labels = (torch.tensor(values, dtype=torch.float64) for values in points())
    apart = torch.deg2rad(x.double())[:, None] - angles
    xi, layers = apart.cos(), int(float(settings["depth"]))
    if settings["activation"] == "ξ³":  # Σ = ξ^(3^l), and K is a constant times Σ
        weights = (3.0**layers * xi.log()).softmax(1)
    else:
        sigma = kernel = xi.clamp(max=1)
        for _ in range(layers):
            sigma, slope = DUALS[settings["activation"]](sigma)
            kernel = sigma + kernel * slope
        weights = kernel if settings["trained"] == "all layers" else sigma
    inverse = 1 / (apart / 2).sin().abs().clamp(min=1e-300)
    curves = [
        (weights * labels).sum(1) / weights.sum(1),
        labels[apart.abs().argmin(1)],
        (inverse * labels).sum(1) / inverse.sum(1),
        torch.full((len(x),), float(labels.mean()), dtype=torch.float64),
    ]
    return [curve[None] for curve in curves]


def product_of_sides(x: float, y: float, place: tuple[float, float, float, float]) -> float:
    across, up, turn, opening = place
    product = 1.0
    for angle in (math.radians(turn), math.radians(turn + opening)):
        product *= (x - across) * math.cos(angle) + (y - up) * math.sin(angle)
    return product


def checkers(settings: Settings) -> Tensor:
    """Thirty evenly spread points, and once more those that two crossing planes get wrong."""
    spots = [(2 * (0.7548777 * i % 1) - 1, 2 * (0.5698403 * i % 1) - 1) for i in range(1, 31)]
    place = tuple(float(settings[name]) for name in ("across", "up", "turn", "opening"))
    marked = []
    for x, y in spots:
        truth = product_of_sides(x, y, (0.3, -0.3, 30.0, 90.0)) > 0
        wrong = (product_of_sides(x, y, place) > 0) != truth
        marked.append((x, y) if wrong else (math.nan, math.nan))
    return torch.tensor(spots + marked, dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"learners-depth": depth}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"learners-checkers": checkers}
