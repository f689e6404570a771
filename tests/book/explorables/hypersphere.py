"""What the figures of `representation/hypersphere` must show: forces in closed form, paths by hand.

Every path is computed again by formulas for the gradients, without autograd and without the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from lossbook.lab import datasets

Settings = dict[str, str]


# --- Kernels ----------------------------------------------------------------------------------------


def kernels(theta: Tensor, settings: Settings) -> list[Tensor]:
    """Potential and force of a pair, in terms of half the angle."""
    t, s = float(settings["t"]), float(settings["s"])
    half = theta / 2
    square = 4 * half.sin() ** 2
    gauss = torch.exp(-t * square)
    return [
        torch.stack([gauss, 4 * t * half.sin() * half.cos() * gauss]),
        torch.stack([square ** (-s / 2), s * half.cos() * square ** (-(s + 1) / 2)]),
        torch.stack([-half.sin().log(), half.cos() / half.sin() / 2]),
        torch.stack([square / 4, -half.sin() * half.cos()]),
    ]


# --- Points on a circle -----------------------------------------------------------------------------


def softmax_pull(exponents: Tensor) -> Tensor:
    """Softmax over all ordered pairs of different points."""
    return exponents.fill_diagonal_(-math.inf).flatten().softmax(0).view_as(exponents)


def circle_slope(name: str, u: Tensor, v: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Gradients with respect to both views, before they are made tangential."""
    n = len(u)
    align = (-v / n, -u / n)  # of half the mean squared distance, 1 - u.v
    if name == "alignment":
        return align
    if name == "uniformity":
        both = 2 * pair_weights(torch.cat([u, v]), tau) @ torch.cat([u, v])
        return both[:n], both[n:]
    if name == "alignment and uniformity":
        return align[0] + pair_weights(u, tau) @ u, align[1] + pair_weights(v, tau) @ v
    p = (u @ v.T / tau).softmax(1)
    return (p @ v - v) / n, (p.T @ u - u) / n


def pair_weights(x: Tensor, tau: float) -> Tensor:
    """Shares of the ordered pairs in the potential, (N, N); a point feels a pair from both ends."""
    return softmax_pull((x @ x.T - 1) / tau)


def tangential(slope: Tensor, x: Tensor) -> Tensor:
    return slope - (slope * x).sum(1, keepdim=True) * x


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(1, keepdim=True).sqrt()


@cache
def circle_path(name: str, tau: float) -> list[Tensor]:
    stream = datasets.generator(0, "circle")
    angle = 0.7 * torch.randn(6, 1, generator=stream).double()
    angle = angle + 0.3 * torch.randn(6, 2, generator=stream).double()
    u, v = (torch.stack([a.cos(), a.sin()], 1) for a in angle.T)
    path, rate = [], min(0.6, 5 * tau)
    for _ in range(161):
        path.append(torch.stack([u, v], 1).flatten(0, 1))
        first, second = circle_slope(name, u, v, tau)
        u, v = unit(u - rate * tangential(first, u)), unit(v - rate * tangential(second, v))
    return path


def circle(settings: Settings) -> Tensor:
    return circle_path(settings["loss"], float(settings["tau"]))[int(settings["time"])]


# --- Points on a sphere -----------------------------------------------------------------------------


def sphere_slope(name: str, x: Tensor) -> Tensor:
    """Gradient of the leveled energy: a sum over pairs of weights times differences."""
    n = len(x)
    difference = x[:, None] - x
    square = (difference**2).sum(2) + torch.eye(n, dtype=x.dtype)
    off = 1 - torch.eye(n, dtype=x.dtype)
    if name == "logarithm":  # -log d over pairs, in the mean
        weight = -2 / (n * (n - 1)) / square
    elif name == "Gaussian (t = 2)":  # log of the sum, over 2 t
        kernel = torch.exp(-2 * square) * off
        weight = -kernel / (kernel.sum() / 2) * 2 * 2 / 4
    else:
        s = {"Coulomb (s = 1)": 1, "steep (s = 6)": 6}[name]
        kernel = square ** (-s / 2) * off
        weight = -kernel / (kernel.sum() / 2) / square
    return ((weight * off)[:, :, None] * difference).sum(1)


PACE = {
    "Coulomb (s = 1)": 0.4,
    "steep (s = 6)": 0.06,
    "logarithm": 0.8,
    "Gaussian (t = 2)": 0.12,
}


@cache
def sphere_path(name: str, number: int) -> list[Tensor]:
    x = 0.3 * torch.randn(number, 3, generator=datasets.generator(1, "crowd")).double()
    x = unit(x + torch.tensor([0.0, 0.0, 1.0]))
    path, rate = [], PACE[name]
    for _ in range(161):
        path.append(x)
        move = -rate * number * tangential(sphere_slope(name, x), x)
        length = (move**2).sum(1, keepdim=True).sqrt()
        x = unit(x + move * (0.1 / length).clamp(max=1))
    return path


def sphere(settings: Settings) -> Tensor:
    x = sphere_path(settings["kernel"], int(settings["number"]))[int(settings["time"])]
    return torch.cat([x, torch.full((24 - len(x), 3), math.nan, dtype=x.dtype)])


# --- Two points in the disc -------------------------------------------------------------------------


def two_points(settings: Settings) -> Tensor:
    radius, half = float(settings["radius"]), math.radians(float(settings["angle"])) / 2
    x, y = radius * math.cos(half), radius * math.sin(half)
    return torch.tensor([[x, y], [x, -y]], dtype=torch.float64)


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {"hypersphere-kernels": kernels}

SCENES: dict[str, Callable[[Settings], Tensor]] = {
    "hypersphere-circle": circle,
    "hypersphere-sphere": sphere,
    "hypersphere-geodesic": two_points,
}
