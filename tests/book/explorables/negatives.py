"""What the figures of `representation/contrastive/negatives` must show: weights of negatives, by hand.

On an evenly filled circle the softmax has closed forms with Bessel functions, and the temperature of a
radius is the root of one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import optimize, special
from torch import Tensor

Settings = dict[str, str]


# --- Negatives all round a circle ---------------------------------------------------------------------


def softmax_weight(theta: Tensor, kappa: float) -> Tensor:
    """The von Mises density, as a multiple of the uniform one."""
    return torch.exp(kappa * (theta.cos() - 1)) / special.i0e(kappa)


def mean_cosine(kappa: float) -> float:
    return special.i1e(kappa) / special.i0e(kappa)


def divergence(kappa: float) -> float:
    return kappa * mean_cosine(kappa) - math.log(special.i0e(kappa)) - kappa


def weights(theta: Tensor, settings: Settings) -> list[Tensor]:
    """Weight and force under a temperature, a radius, and attached weights."""
    tau, rho, t = (float(settings[name]) for name in ("tau", "rho", "t"))
    of_radius = optimize.brentq(lambda kappa: divergence(kappa) - rho, 1e-3, 99.0, xtol=1e-12)
    attached = 1 + 2 * t * (theta.cos() - mean_cosine(2 * t))
    shown = [
        softmax_weight(theta, 1 / tau),
        softmax_weight(theta, of_radius),
        softmax_weight(theta, 2 * t) * attached,
    ]
    return [torch.stack([weight, weight * theta.sin()]) for weight in shown]


# --- Thirteen negatives -------------------------------------------------------------------------------

DEGREES = [18, -27, 41, 64, -66, 90, -95, 118, -122, 140, -150, 165, -175]


def who(settings: Settings) -> Tensor:
    """Anchor, positive, negatives and the ends of their bars."""
    tau = float(settings["tau"])
    places = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in DEGREES]
    exponentials = [math.exp((x - 1) / tau) for x, _ in places]
    shares = [e / math.fsum(exponentials) for e in exponentials]
    if settings["loss"] == "CACR attached":
        mean = math.fsum(p * x for p, (x, _) in zip(shares, places, strict=True))
        shares = [p * (1 + (x - mean) / tau) for p, (x, _) in zip(shares, places, strict=True)]
    tips = [(x * (1 + p), y * (1 + p)) for p, (x, y) in zip(shares, places, strict=True)]
    pair = [(1.0, 0.0), (math.cos(0.12), -math.sin(0.12))]
    return torch.tensor([*pair, *places, *tips], dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"negatives-weights": weights}

SCENES: dict[str, Callable[[Settings], Tensor]] = {"negatives-who": who}
