"""Second computations for the explorable figures of the chapter on neural collapse, in float64.

Gradients are written by hand, the convex problem is solved without acceleration, and the closed form
is found on a grid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Settings = dict[str, str]

SIZES = {"balanced": (8, 8, 8, 8), "13 : 3": (13, 13, 3, 3)}
STOPS = [0, 2, 4, 7, 10, 14, 19, 25, 32, 40, 50, 65, 80, 100, 130, 170, 220, 300, 500]
ROOM = (13, 13, 8, 8)


def draws(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes]


def one_hot(counts: tuple[int, ...]) -> Tensor:
    return torch.cat([torch.eye(len(counts))[[k] * n] for k, n in enumerate(counts)]).double()


# --- features in time


def unit(h: Tensor) -> Tensor:
    return h / h.square().sum(1, keepdim=True).sqrt()


def contrast_slope(h: Tensor, target: Tensor) -> Tensor:
    """Derivative of the sum over anchors of the supervised contrastive loss at temperature 1/2."""
    u, others = unit(h), 1 - torch.eye(len(h)).double()
    share = (2 * u @ u.T).exp() * others
    positive = target @ target.T * others
    pull = share / share.sum(1, keepdim=True) - positive / positive.sum(1, keepdim=True)
    slope = 2 * (pull + pull.T) @ u
    return (slope - u * (u * slope).sum(1, keepdim=True)) / h.square().sum(1, keepdim=True).sqrt()


@cache
def film(loss: str, data: str) -> Tensor:
    """The features (stops, N, 3) along gradient descent."""
    target = one_hot(SIZES[data])
    total = len(target)
    h, w, b = (0.2 * x for x in draws(3, (total, 3), (4, 3), (4,)))
    frames = [h]
    for step in range(1, STOPS[-1] + 1):
        if loss == "supervised contrast":
            h = unit(h - 0.1 * contrast_slope(h, target))
        else:
            z = h @ w.T + b
            error = (z if loss == "square loss" else z.softmax(1)) - target
            h, w, b = (
                h - 0.05 * (error @ w + 0.01 * total * h),
                w - 0.05 * (error.T @ h + 0.01 * total * w),
                b - 0.05 * error.sum(0),
            )
        if step in STOPS:
            frames.append(h)
    means = target.T @ h / target.sum(0)[:, None]
    return torch.stack(frames) / means.square().sum(1).max().sqrt()


def collapse_film(settings: Settings) -> Tensor:
    found = film(settings["loss"], settings["data"])[int(settings["time"])]
    points, first = [], 0
    for room, size in zip(ROOM, SIZES[settings["data"]], strict=True):
        empty = torch.full((room - size, 3), torch.nan, dtype=torch.float64)
        points += [found[first : first + size], empty]
        first += size
    return torch.cat(points)


# --- rows that merge


@cache
def merged(rare: float, decay: float) -> Tensor:
    """Rows of W where the convex problem has its minimum, by plain proximal gradient steps."""
    counts = torch.tensor([40, 40, rare, rare], dtype=torch.float64)
    total, root = counts.sum(), counts.sqrt()
    identity = torch.eye(4, dtype=torch.float64)
    x = torch.zeros_like(identity)
    for _ in range(20_000):
        slope = ((x / root).softmax(0) - identity) * root / total
        left, sigma, right = torch.linalg.svd(x - 2 * total * slope)
        new = left @ torch.diag((sigma - 2 * total * decay).clamp(min=0)) @ right
        done = (new - x).abs().max() < 1e-13
        x = new
        if done:
            break
    left, sigma, _ = torch.linalg.svd(x)
    rows = left @ torch.diag(sigma.clamp(min=0).sqrt())
    # A simplex, by hand: the columns of the Helmert matrix.
    columns = [[1, 1, 1], [-1, 1, 1], [0, -2, 1], [0, 0, -3]]
    corners = torch.tensor(columns, dtype=torch.float64) / torch.tensor([2, 6, 12]).double().sqrt()
    first, _, second = torch.linalg.svd(rows.T @ corners, full_matrices=False)
    return rows @ first @ second / rows.square().sum(1).max().sqrt()


def collapse_merger(settings: Settings) -> Tensor:
    return merged(float(settings["rare"]), float(settings["decay"]))


# --- lengths

CLASSES = (100, 20, 4)
LOGS = torch.linspace(-3, -1, 21, dtype=torch.float64)


@cache
def trained(layers: int) -> Tensor:
    """Lengths of W's rows (decays, classes) after Adam, everything by hand."""
    target = one_hot(CLASSES)
    total, decay = len(target), (10**LOGS)[:, None, None]
    start = draws(layers, (total, 4), *[(4, 4)] * (layers - 1), (3, 4))
    parts = [x.expand(len(LOGS), *x.shape) for x in start]
    first = [torch.zeros_like(x) for x in parts]
    second = [torch.zeros_like(x) for x in parts]
    for step in range(600):
        outputs = [parts[0]]
        for w in parts[1:]:
            outputs.append(outputs[-1] @ w.mT)
        back = (outputs[-1] - target) / total
        slopes = []
        for w, inputs in zip(reversed(parts[1:]), reversed(outputs[:-1]), strict=True):
            slopes.insert(0, back.mT @ inputs + decay * w)
            back = back @ w
        slopes.insert(0, back + decay * parts[0])
        rate = 0.05 * (1 - step / 600)
        for i, slope in enumerate(slopes):
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = 0.95 * second[i] + 0.05 * slope**2
            ahead = first[i] / (1 - 0.9 ** (step + 1))
            spread = (second[i] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-4
            parts[i] = parts[i] - rate * ahead / spread
    return parts[-1].square().sum(2).sqrt()


def shrunk(target: float, rate: float, layers: int) -> float:
    """The minimizer of (s - t)^2 / 2 + rate / p s^p: the better of zero and the larger root."""
    p = 2 / (layers + 1)

    def cost(s: float) -> float:
        return (s - target) ** 2 / 2 + rate / p * s**p

    grid = torch.linspace(0, target, 20_001, dtype=torch.float64)
    values = (grid - target) ** 2 / 2 + rate / p * grid**p
    best = int(values.argmin())
    if best == 0:
        return 0.0
    s = float(grid[best])
    for _ in range(50):  # Newton's method
        s -= (s - target + rate * s ** (p - 1)) / (1 + rate * (p - 1) * s ** (p - 2))
    return s if cost(s) < cost(0.0) else 0.0


def collapse_lengths(x: Tensor, settings: Settings) -> list[Tensor]:
    layers, total = int(settings["layers"]), sum(CLASSES)
    p, curves = 2 / (layers + 1), []
    for k, number in enumerate(CLASSES):
        sigma = [shrunk(number**0.5, total * decay, layers) for decay in (10**x).tolist()]
        curves.append(torch.tensor(sigma, dtype=torch.float64)[None] ** (p / 2))
        curves.append(trained(layers)[None, :, k])
    return curves


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "collapse-lengths": collapse_lengths,
}

SCENES: dict[str, Callable[[Settings], Tensor]] = {
    "collapse-film": collapse_film,
    "collapse-merger": collapse_merger,
}
