"""What the scenes of `classification/surrogates/margins` must show, computed another way.

Slopes and curvatures are closed forms, one problem at a time: plain Newton steps for the convex losses,
and for the ramp, a difference of two convex functions, a sequence of convex problems in each of which the
part that is taken away is replaced by its tangent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

Settings = dict[str, str]

POINTS = [
    (0.6, 1.2), (1.3, 0.3), (1.5, 1.6), (-0.3, 0.7), (0.5, 2.1), (2.1, 0.9),
    (-0.7, -1.0), (-1.4, -0.1), (-1.4, -1.6), (0.4, -0.6), (-0.2, -2.0), (-2.2, -0.8),
]  # fmt: skip
SIGNS = [1.0] * 6 + [-1.0] * 6
RIDGE = 0.2

#: For each loss: phi, its slope and its curvature, functions of the margin.
Shape = tuple[Callable[[Tensor], Tensor], ...]
SHAPES: dict[str, Shape] = {
    "squared": (lambda m: (1 - m) ** 2, lambda m: 2 * m - 2, lambda m: 2 * torch.ones_like(m)),
    "exponential": (lambda m: (-m).exp(), lambda m: -(-m).exp(), lambda m: (-m).exp()),
    "logistic": (
        lambda m: softplus(-m),
        lambda m: -(-m).sigmoid(),
        lambda m: m.sigmoid() * (-m).sigmoid(),
    ),
    "hinge": (
        lambda m: softplus(4 * (1 - m)) / 4,
        lambda m: -(4 * (1 - m)).sigmoid(),
        lambda m: 4 * (4 * (1 - m)).sigmoid() * (4 * (m - 1)).sigmoid(),
    ),
}


def newton(shape: Shape, signed: Tensor, start: Tensor, tilt: Tensor) -> Tensor:
    """Minimizes the sum of phi(margin) + tilt * margin, and the ridge."""
    phi, slope, curvature = shape
    theta = start

    def cost(t: Tensor) -> float:
        margin = signed @ t
        return float((phi(margin) + tilt * margin).sum() + RIDGE / 2 * (t @ t))

    for _ in range(100):
        margin = signed @ theta
        gradient = signed.T @ (slope(margin) + tilt) + RIDGE * theta
        if gradient.norm() < 1e-13:
            break
        hessian = signed.T @ (curvature(margin)[:, None] * signed) + RIDGE * torch.eye(3).double()
        step = torch.linalg.solve(hessian, gradient)
        length = 1.0
        while length > 1e-6 and cost(theta - length * step) > cost(theta):
            length /= 2
        theta = theta - length * step
    return theta


def ramp_slope(margin: Tensor) -> Tensor:
    return (4 * (-1 - margin)).sigmoid() - (4 * (1 - margin)).sigmoid()


def fit(across: float, up: float) -> list[tuple[Tensor, float]]:
    """Parameters and the force of the reader's point, for each of the five losses."""
    x = torch.tensor([(*point, 1.0) for point in [*POINTS, (across, up)]], dtype=torch.float64)
    signed = torch.tensor([*SIGNS, 1.0], dtype=torch.float64)[:, None] * x
    zero = torch.zeros(3, dtype=torch.float64)
    found = []
    for shape in SHAPES.values():
        theta = newton(shape, signed, zero, torch.zeros(13).double())
        found.append((theta, -float(shape[1](signed[-1] @ theta))))
    theta = newton(SHAPES["hinge"], signed[:12], zero, torch.zeros(12).double())
    for _ in range(200):
        tilt = (4 * (-1 - signed @ theta)).sigmoid()  # minus the slope of what is taken away
        before, theta = theta, newton(SHAPES["hinge"], signed, theta, tilt)
        if (theta - before).norm() < 1e-13:
            break
    return [*found, (theta, -float(ramp_slope(signed[-1] @ theta)))]


def ends(theta: Tensor, reach: float = 3.0) -> list[list[float]]:
    """Where the boundary crosses the edges of the square, in the direction of (-w2, w1)."""
    a, b, c = theta.tolist()
    crossings = set()
    for edge in (-reach, reach):
        for x, y in ((edge, -(a * edge + c) / b), (-(b * edge + c) / a, edge)):
            if max(abs(x), abs(y)) <= reach + 1e-12:
                crossings.add((a * y - b * x, x, y))
    if len(crossings) < 2:
        return [[math.nan, math.nan]] * 2
    return [[x, y] for _, x, y in (min(crossings), max(crossings))]


def dragged(settings: Settings) -> Tensor:
    across, up = float(settings["across"]), float(settings["up"])
    fits = fit(across, up)
    pins = [end for theta, _ in fits for end in ends(theta)]
    bars = [[0.7 * force, -3.6 - 0.32 * row] for row, (_, force) in enumerate(fits)]
    return torch.tensor([*POINTS, (across, up), *pins, *bars], dtype=torch.float64)


def lowest_risks(settings: Settings) -> Tensor:
    """Where each loss is best, and what that costs, by hand."""
    eta = float(settings["eta"])
    less, decision = min(eta, 1 - eta), (eta > 0.5) - (eta < 0.5)
    odds = math.log(eta / (1 - eta))
    entropy = -eta * math.log(eta) - (1 - eta) * math.log(1 - eta)
    rows = [
        (2 * eta - 1, 4 * eta * (1 - eta)),
        (odds / 2, 2 * math.sqrt(eta * (1 - eta))),
        (odds, entropy),
        (decision, 2 * less),
        (decision, 2 * less),
        (0, 0),
    ]
    return torch.tensor(rows, dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {}

SCENES: dict[str, Callable[[Settings], Tensor]] = {
    "margins-drag": dragged,
    "margins-risk": lowest_risks,
}
