"""What the figures of `representation/contrastive/transfer` must show: a world of four factors, by loops.

Information is summed factor by factor, the choice of a code is made by sorting tuples, and errors are
those of regressions on one factor; nothing of the package is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Settings = dict[str, str]


# --- A world where everything is known ----------------------------------------------------------------

OTHERS = (0.6, 1.0, 1.6)


def nats(noise: float) -> float:
    """Information of one view of a factor about the other: half the log of total over residual variance."""
    total = 1 + noise * noise
    residual = total - 1 / total
    return 0.5 * math.log(total / residual)


def error(noise: float) -> float:
    """The root of what is left of a factor, given a view of it."""
    return noise / math.sqrt(1 + noise * noise)


def at(noise: float, settings: Settings) -> list[tuple[float, float]]:
    """Both panels of the three curves for one noise on the task's factor."""
    factors = [(nats(noise), True)]
    factors += [(nats(float(settings["others"]) * other), False) for other in OTHERS]
    kept = sorted(factors, reverse=True)[: int(settings["k"])]
    known, everything = sum(n for n, _ in kept), sum(n for n, _ in factors)
    coded = error(noise) if any(is_task for _, is_task in kept) else 1.0
    # The other view forecasts the factor by a share of itself, known up to this given the first view:
    share = 1 / (1 + noise * noise)
    forecast = share * share * ((1 + noise * noise) - share)
    bound = math.exp(everything - known) * math.sqrt(forecast) + error(noise)
    return [(everything, error(noise)), (known, coded), (everything - known, bound)]


def world(x: Tensor, settings: Settings) -> list[Tensor]:
    rows = torch.tensor([at(noise, settings) for noise in x.tolist()], dtype=torch.float64)
    return list(rows.permute(1, 2, 0))


# --- The reach of a view ------------------------------------------------------------------------------


def reach(settings: Settings) -> Tensor:
    """Eight points on each side of the top, mirror images."""
    half = float(settings["gap"]) / 2
    steps = [0.0, 0.11, 0.3, 0.41, 0.7, 0.83, 1.2, 1.31]
    right = [(math.sin(half + s), math.cos(half + s)) for s in steps]
    return torch.tensor([*right, *((-x, y) for x, y in right)], dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"transfer-world": world}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"transfer-reach": reach}
