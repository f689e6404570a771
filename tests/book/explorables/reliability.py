"""What the figures of `classification/calibration/reliability` must show, without autograd or the package.

Reports are found where the derivative of the expected loss vanishes; bins are filled one forecast at a time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import torch
from torch import Tensor

Settings = dict[str, str]


def bins(settings: Settings) -> Tensor:
    """Mean forecast and frequency of each of at most 50 bins, nan for those that are empty or missing."""
    stream = torch.Generator().manual_seed(zlib.crc32(b"reliability bins:0"))
    logits = (1.5 * torch.randn(5000, generator=stream, dtype=torch.float64)).tolist()
    draws = torch.rand(5000, generator=stream, dtype=torch.float64).tolist()
    number = int(settings["bins"])
    sums = [[0, 0.0, 0.0] for _ in range(50)]
    for logit, draw in list(zip(logits, draws, strict=True))[: int(settings["n"])]:
        said = 1 / (1 + math.exp(-float(settings["sureness"]) * logit))
        place = sums[max(math.ceil(said * number) - 1, 0)]
        place[0] += 1
        place[1] += said
        place[2] += draw < 1 / (1 + math.exp(-logit))
    means = [[c / n, a / n] if n else [math.nan, math.nan] for n, c, a in sums]
    return torch.tensor(means, dtype=torch.float64)


def slope(p: Tensor, gamma: float) -> Tensor:
    """Of -(1 - p)^gamma log p."""
    return -((1 - p) ** gamma) / p + gamma * (1 - p) ** (gamma - 1) * p.log()


def report(q: Tensor, gamma: float, weight: float = 1.0) -> Tensor:
    """Where weight q f'(p) = (1 - q) f'(1 - p), by bisection."""
    low, high = torch.zeros_like(q), torch.ones_like(q)
    for _ in range(100):
        p = (low + high) / 2
        falls = weight * q * slope(p, gamma) < (1 - q) * slope(1 - p, gamma)
        low, high = torch.where(falls, p, low), torch.where(falls, high, p)
    return p


def focal(q: Tensor, settings: Settings) -> list[Tensor]:
    gamma, dual, assumed = (float(settings[name]) for name in ("gamma", "dual", "assumed"))
    leads = q > 0.5
    of_leader = report(torch.where(leads, q, 1 - q), dual, 2**dual)
    p = report(q, gamma)
    translated = slope(1 - p, assumed) / (slope(p, assumed) + slope(1 - p, assumed))
    reports = [q, p, torch.where(leads, of_leader, 1 - of_leader), translated]
    return [torch.stack([x, x - q]) for x in reports]


def triangle(settings: Settings) -> Tensor:
    """What is said, and the belief under which the weighted slopes of the loss are equal."""
    across, up = float(settings["across"]), float(settings["up"])
    height = math.sqrt(3) / 2
    corners = [(0.0, 0.0), (1.0, 0.0), (0.5, height)]
    said = [1 - across - up / height / 2, across - up / height / 2, up / height]
    said = [max(x, 0.005) for x in said]
    p = torch.tensor([x / sum(said) for x in said], dtype=torch.float64)
    weights = (1 / slope(p, float(settings["gamma"]))).tolist()
    rows = [p.tolist(), [w / sum(weights) for w in weights]]
    points = [
        [sum(x * corner[i] for x, corner in zip(row, corners, strict=True)) for i in (0, 1)]
        for row in rows
    ]
    return torch.tensor(points, dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"reliability-focal": focal}

SCENES: dict[str, Callable[[Settings], Tensor]] = {
    "reliability-bins": bins,
    "reliability-triangle": triangle,
}
