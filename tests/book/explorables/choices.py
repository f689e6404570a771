"""What the figures of `classification/softmax/choices` must show, by formula and without the package.

Only the noise is shared with the notebook: the draws of a named stream of `lossbook.lab.datasets`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lossbook.lab.datasets import generator

Settings = dict[str, str]

HEIGHT = math.sqrt(3) / 2
CLOCKS = torch.empty(4000, 3, dtype=torch.float64).exponential_(generator=generator(0, "gliding"))


def in_the_triangle(shares: Tensor) -> Tensor:
    """Shares (N, 3) of the corners (0, 0), (1, 0) and (1/2, height), as places (N, 2)."""
    _, right, top = shares.T
    return torch.stack([right + top / 2, HEIGHT * top], 1)


def samples(settings: Settings) -> Tensor:
    """Sixty samples, the mean of all, and the probabilities they are drawn with.

    A score plus Gumbel noise, over the temperature, is minus the logarithm of a waiting time over its
    rate: the shares are powers of p / time.
    """
    tau, across, up = (float(settings[name]) for name in ("tau", "across", "up"))
    top = up / HEIGHT
    p = torch.tensor([max(v, 0.02) for v in (1 - across - top / 2, across - top / 2, top)]).double()
    p /= p.sum()
    speed = p / CLOCKS
    powers = (speed / speed.amax(1, keepdim=True)) ** (1 / tau)
    shares = powers / powers.sum(1, keepdim=True)
    return in_the_triangle(torch.cat([shares[:60], shares.mean(0)[None], p[None]]))


def splits(distance: Tensor, settings: Settings) -> list[Tensor]:
    """Share sent right and log10 of its slope for softsign, sigmoid and entmoid."""
    sharpness = float(settings["sharpness"])
    s = sharpness * distance
    softsign = (1 + s / (1 + s.abs())) / 2, 0.5 / (1 + s.abs()) ** 2
    sigmoid = 1 / (1 + (-s).exp())
    c = s.clamp(-2, 2)
    root = (8 - c**2).sqrt()
    entmoid = (c + root) ** 2 / 16
    slope = torch.where(s.abs() < 2, (c + root) * (1 - c / root) / 8, 0.0)
    pairs = [softsign, (sigmoid, sigmoid * (1 - sigmoid)), (entmoid, slope)]
    return [torch.stack([v, (sharpness * d).clamp(min=1e-6).log10()]) for v, d in pairs]


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"choices-splits": splits}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"choices-gumbel": samples}
