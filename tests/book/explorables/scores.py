"""What the figures of `classification/calibration/scores` must show, from closed forms.

Descent is followed with each score's own gradient in the logits, without autograd or the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Settings = dict[str, str]


def partial_loss(name: str, p: Tensor) -> Tensor:
    """Loss of the outcome that was given probability p, of two."""
    return {
        "log": -p.log(),
        "Brier": (1 - p) ** 2 + (1 - p) ** 2,
        "spherical": 1 - p / torch.hypot(p, 1 - p),
        "linear": 1 - p,
        "focal (γ = 2)": -((1 - p) ** 2) * p.log(),
        "poly-1 (ε = 2)": -p.log() + 2 * (1 - p),
    }[name]


def belief(p: Tensor, settings: Settings) -> list[Tensor]:
    """Expected loss and its excess for the two scores chosen, and a line through the belief."""
    q = float(settings["belief"])
    drawn = []
    for name in (settings["honest"], settings["other"]):
        cost = q * partial_loss(name, p) + (1 - q) * partial_loss(name, 1 - p)
        drawn.append(torch.stack([cost, cost - min(cost.tolist())]))
    line = [8.0 * round(200 * (x - q)) if abs(x - q) < 0.0075 else math.nan for x in p.tolist()]
    return [*drawn, torch.tensor([line, line], dtype=torch.float64)]


BELIEF = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
HEIGHT = math.sqrt(3) / 2


def pull(name: str, p: Tensor) -> Tensor:
    """Minus the gradient in the logits of the expected loss, (N, 3)."""
    if name == "log":
        return BELIEF - p
    if name == "Brier":  # of |p - q|^2
        gap = 2 * (BELIEF - p)
    else:  # of p q / |p|
        size = p.square().sum(1, keepdim=True).sqrt()
        gap = BELIEF / size - p * (p * BELIEF).sum(1, keepdim=True) / size**3
    return p * (gap - (p * gap).sum(1, keepdim=True))


@cache
def paths(name: str) -> dict[tuple[str, str], Tensor]:
    """For every place of the report: the report, then 24 forecasts, each five steps after the last."""
    across = [i / 20 for i in range(21)]
    up = [HEIGHT * j / 18 for j in range(19)]
    p = torch.tensor(
        [[1 - a - u / HEIGHT / 2, a - u / HEIGHT / 2, u / HEIGHT] for a in across for u in up],
        dtype=torch.float64,
    ).clamp(min=0.01)
    z = (p / p.sum(1, keepdim=True)).log()
    found = [z.softmax(1)]
    for step in range(1, 121):
        z = z + 0.2 * pull(name, z.softmax(1))
        if step % 5 == 0:
            found.append(z.softmax(1))
    places = [(f"{a:.4g}", f"{u:.4g}") for a in across for u in up]
    return dict(zip(places, torch.stack(found, 1), strict=True))


def triangle(settings: Settings) -> Tensor:
    """Belief, report and descent as points of the triangle."""
    p = paths(settings["score"])[settings["across"], settings["up"]]
    p = torch.cat([BELIEF[None], p])
    return torch.stack([p[:, 1] + p[:, 2] / 2, HEIGHT * p[:, 2]], 1)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"scores-belief": belief}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"scores-savage": triangle}
