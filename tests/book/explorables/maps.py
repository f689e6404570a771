"""What the figures of `classification/softmax/maps` must show, from thresholds found by halving.

Without the package and without autograd; with two classes the probability solves one equation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Settings = dict[str, str]


def threshold(z: Tensor, alpha: float) -> Tensor:
    """Entmax of one row of scores; the softmax for alpha = 1."""
    if alpha == 1:
        weights = (z - z.max()).exp()
        return weights / weights.sum()
    x, power = (alpha - 1) * z, 1 / (alpha - 1)
    low, high = float(x.max()) - 1, float(x.max())
    for _ in range(100):
        tau = (low + high) / 2
        mass = float(((x - tau).clamp(min=0) ** power).sum())
        low, high = (tau, high) if mass > 1 else (low, tau)
    return (x - low).clamp(min=0) ** power


def triangle(settings: Settings) -> Tensor:
    """The images under the chosen map, softmax and sparsemax, in the plane with equal edges."""
    a, b = float(settings["across"]), float(settings["up"])
    root2, root6 = 2**0.5, 6**0.5
    z = torch.tensor([-a / root2 - b / root6, a / root2 - b / root6, 2 * b / root6]).double()
    found = []
    for alpha in (float(settings["alpha"]), 1.0, 2.0):
        p1, p2, p3 = threshold(z, alpha).tolist()
        found.append([(p2 - p1) / root2, (2 * p3 - p1 - p2) / root6])
    return torch.tensor(found, dtype=torch.float64)


def two_classes(m: Tensor, alpha: float) -> Tensor:
    """Probability of the label, its slope, the loss and its pull, 1 - p, against the lead m.

    The probability solves p^(alpha-1) - (1-p)^(alpha-1) = (alpha-1) m unless the lead is 1 / (alpha-1).
    """
    if alpha == 1:
        p = 1 / (1 + (-m).exp())
        return torch.stack([p, p * (1 - p), (1 + (-m).exp()).log(), 1 - p])
    k = alpha - 1
    low, high = torch.zeros_like(m), torch.ones_like(m)
    for _ in range(100):
        p = (low + high) / 2
        above = p**k - (1 - p) ** k > k * m
        low, high = torch.where(above, low, p), torch.where(above, p, high)
    inside = (m * k).abs() < 1
    p = torch.where(inside, p, (m > 0).double())
    slope = torch.where(inside, 1 / (p ** (alpha - 2) + (1 - p) ** (alpha - 2)), 0.0)
    entropy = (1 - p**alpha - (1 - p) ** alpha) / (alpha * k)
    return torch.stack([p, slope, p * m + entropy - m, 1 - p])


def leads(m: Tensor, settings: Settings) -> list[Tensor]:
    return [two_classes(m, alpha) for alpha in (float(settings["alpha"]), 1.0, 2.0)]


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"maps-curves": leads}
SCENES: dict[str, Callable[[Settings], Tensor]] = {"maps-triangle": triangle}
