"""What the figures of `representation/contrastive/infonce` must show, from closed forms.

Forces are computed by the formula, probability minus truth, without autograd and without the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Settings = dict[str, str]


def forces(settings: Settings) -> Tensor:
    """Where the forces lead that are felt, then the points: anchor, positive, six negatives.

    On a circle a point at angle a has the tangent (-sin a, cos a). A candidate at angle b pulls the
    anchor along its tangent by sin(b - a), and is pulled by sin(a - b) along its own.
    """
    tau = float(settings["tau"])
    angles = [0.0, float(settings["positive"]), float(settings["negative"])]
    angles = [math.radians(a) for a in [*angles, 70.0, 120.0, 165.0, 215.0, 285.0]]
    weights = [math.exp((math.cos(a) - 1) / tau) for a in angles[1:]]
    p = [w / sum(weights) for w in weights]
    pull = [(1.0 if j == 0 else 0.0) - p[j] for j in range(7)]
    along = [-pull[j] * math.sin(angles[j + 1]) for j in range(7)]
    along.insert(0, -sum(along))
    points = [[math.cos(a), math.sin(a)] for a in angles]
    ends = [
        [x - 0.35 * f * y, y + 0.35 * f * x] if 0.35 * abs(f) > 0.02 else [math.nan, math.nan]
        for (x, y), f in zip(points, along, strict=True)
    ]
    return torch.tensor(ends + points, dtype=torch.float64)


def coupling(cosine: Tensor, settings: Settings) -> list[Tensor]:
    """Loss and pull of a pair among 2 (N - 1) orthogonal negatives, for NT-Xent and DCL."""
    tau, negatives = float(settings["tau"]), 2 * (float(settings["batch"]) - 1)
    e = (cosine / tau).exp()
    return [
        torch.stack([(e + negatives).log() - e.log(), negatives / (e + negatives)]),
        torch.stack([math.log(negatives) - cosine / tau, torch.ones_like(cosine)]),
    ]


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"infonce-coupling": coupling}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"infonce-forces": forces}
