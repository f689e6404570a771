"""What the figures of `classification/calibration/repair` must show, from formulas, without the package.

The held-out examples of the triangle are data: they are drawn once more, in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Settings = dict[str, str]


def stop(shown: str, stops: Tensor) -> float:
    """The stop of a slider that shows as this text, which has four digits."""
    return min(stops.tolist(), key=lambda number: abs(number - float(shown)))


def three_losses(temperature: Tensor, settings: Settings) -> list[Tensor]:
    """Cross-entropy, squared error and correctness-aware loss; label second, then label first."""
    odds = [1.0, stop(settings["second"], torch.linspace(0.5, 0.95, 10)), float(settings["third"])]
    powers = torch.stack([torch.tensor(o).double() ** (1 / temperature) for o in odds])
    p = powers / powers.sum(0)
    cross, square, aware = [], [], []
    for label in (1, 0):
        cross.append(-p[label].log())
        square.append(sum((p[k] - float(k == label)) ** 2 for k in range(3)))
        aware.append((p[0] - float(label == 0)) ** 2)
    return [torch.stack(pair) for pair in (cross, square, aware)]


CORNERS = [(math.cos(a), math.sin(a)) for a in (math.pi / 2, 7 * math.pi / 6, -math.pi / 6)]


def held_out() -> tuple[list[list[float]], list[int]]:
    """What the overconfident model claims of sixty examples, and their labels."""
    stream = torch.Generator().manual_seed(3)
    beliefs = 1.2 * torch.randn(60, 3, generator=stream, dtype=torch.float64)
    labels = torch.multinomial(beliefs.softmax(1), 1, generator=stream)[:, 0]
    return (1.6 * beliefs).softmax(1).tolist(), labels.tolist()


def least(alpha: str) -> float:
    """The smallest probability with which a label is in the set."""
    claimed, labels = held_out()
    scores = sorted(1 - p[y] for p, y in zip(claimed, labels, strict=True))
    rank = math.ceil(round(61 * (1 - float(alpha)), 9))
    return 1 - scores[rank - 1] if rank <= 60 else -math.inf


def nearest(x: float, y: float) -> list[float]:
    """Barycentric coordinates of the nearest point of the triangle: the point itself, or of an edge."""
    w = [(1 + 2 * (x * a + y * b)) / 3 for a, b in CORNERS]
    if min(w) >= 0:
        return w
    best: tuple[float, list[float]] = (math.inf, w)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        (a, b), (c, d) = CORNERS[i], CORNERS[j]
        along = ((x - a) * (c - a) + (y - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2)
        along = min(max(along, 0.0), 1.0)
        away = math.hypot(x - a - along * (c - a), y - b - along * (d - b))
        edge = [0.0, 0.0, 0.0]
        edge[i], edge[j] = 1 - along, along
        best = min(best, (away, edge))
    return best[1]


def sets(settings: Settings) -> Tensor:
    """The corners of the classes in the set, and the forecast."""
    across = stop(settings["across"], torch.linspace(-0.9, 0.9, 25))
    up = stop(settings["up"], torch.linspace(-0.5, 1.0, 21))
    level, p = least(settings["alpha"]), nearest(across, up)
    corners = [
        (1.1 * a, 1.1 * b) if q >= level else (math.nan, math.nan)
        for q, (a, b) in zip(p, CORNERS, strict=True)
    ]
    place = [sum(q * c[i] for q, c in zip(p, CORNERS, strict=True)) for i in (0, 1)]
    return torch.tensor([*corners, tuple(place)], dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "repair-temperature": three_losses
}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"repair-sets": sets}
