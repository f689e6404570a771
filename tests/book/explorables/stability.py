"""What the stability chapter's figures must draw, computed a second time, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

Settings = dict[str, str]


def stop(shown: str, stops: list[float]) -> float:
    """The stop of a slider that shows as this text, which has four digits."""
    return min(stops, key=lambda number: abs(number - float(shown)))


# --- a scalar network's orbit

ORBIT_STEPS = [0.2, 0.28, 0.32, 0.36, 0.4, 0.44]


def stability_orbit(settings: Settings) -> Tensor:
    """The walker, weight by weight, and the end of the flow from a quadratic equation.

    With x^2 - y^2 = k and x y = 1, x^2 = (k + sqrt(k^2 + 4)) / 2.
    """
    eta, step = stop(settings["eta"], ORBIT_STEPS), int(settings["step"])
    x, y = 2.4, 0.5
    for _ in range(step):
        error = x * y - 1
        x, y = x - eta * error * y, y - eta * error * x
    conserved = x * x - y * y
    square = (conserved + (conserved**2 + 4) ** 0.5) / 2
    end = square**0.5
    sign = 1.0 if (x if abs(x) > abs(y) else y) > 0 else -1.0
    return torch.tensor([[x, y], [sign * end, sign / end]], dtype=torch.float64)


# --- the edge of stability

EDGE_STEPS = [0.1, 0.15, 0.2, 0.25, 0.3, 0.36, 0.5, 0.7]


class Tangents:
    """The 1-6-6-1 tanh network in numpy, its derivatives by hand."""

    def __init__(self) -> None:
        self.x = np.linspace(-1, 1, 20)
        self.y = np.sin(3 * self.x)

    def parts(self, v: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b, w, c, d = np.split(v, [6, 12, 48, 54])
        w = w.reshape(6, 6)
        first = np.tanh(np.outer(self.x, a) + b)
        second = np.tanh(first @ w.T / 6**0.5 + c)
        return w, d, first, second, second @ d / 6**0.5 - self.y

    def jacobian(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Errors (20,) and the derivatives of the outputs (20, 60)."""
        w, d, first, second, error = self.parts(v)
        inner = d / 6**0.5 * (1 - second**2)
        outer = inner @ w / 6**0.5 * (1 - first**2)
        weights = inner[:, :, None] * first[:, None, :] / 6**0.5
        columns = [self.x[:, None] * outer, outer, weights.reshape(20, 36), inner, second / 6**0.5]
        return error, np.concatenate(columns, 1)

    def gradient(self, v: np.ndarray) -> np.ndarray:
        error, jacobian = self.jacobian(v)
        return error @ jacobian / 20

    def loss(self, v: np.ndarray) -> float:
        return float((self.parts(v)[-1] ** 2).mean() / 2)

    def sharpness(self, v: np.ndarray, h: float = 4e-3) -> float:
        """Largest eigenvalue of the Hessian from gradients at six points along each axis."""
        weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
        rows = np.zeros((60, 60))
        for i in range(60):
            for k, weight in weights.items():
                move = np.zeros(60)
                move[i] = k * h
                rows[i] += weight * (self.gradient(v + move) - self.gradient(v - move)) / h
        return float(np.linalg.eigvalsh((rows + rows.T) / 2)[-1])


@cache
def edge(eta: float) -> Tensor:
    network = Tangents()
    stream = torch.Generator().manual_seed(0)
    v = 1.5 * torch.randn(60, generator=stream, dtype=torch.float64).numpy()
    rows = []
    for step in range(401):
        if step % 5 == 0:
            rows.append([network.sharpness(v), network.loss(v)])
        v = v - eta * network.gradient(v)
    return torch.tensor(rows, dtype=torch.float64).T


def stability_edge(x: Tensor, settings: Settings) -> list[Tensor]:
    eta = stop(settings["eta"], EDGE_STEPS)
    limit = torch.stack([torch.full_like(x, 2 / eta), torch.full_like(x, torch.nan)])
    return [edge(eta), limit]


# --- batch size and overlap

OVERLAPS = [0, 0.05, 0.1, 0.2, 0.4, 0.7, 1]


def rank_one(share: float, n: int = 16) -> np.ndarray:
    rows = (1 - share) ** 0.5 * np.eye(n) + (share / n) ** 0.5 * np.ones((n, n))
    # The largest singular value of a I + b 1 1^T is a + n b.
    return rows * n**0.5 / ((1 - share) ** 0.5 + n * (share / n) ** 0.5)


def exact_limit(rows: np.ndarray, size: float) -> float:
    """The step at which the second moment's largest factor passes one, by halving.

    The examples are alike, so the moment that grows fastest is alpha I + beta 1 1^T; there the map
    is a 2 x 2 matrix, found by applying it to I and to 1 1^T.
    """
    n = len(rows)
    mean = rows.T @ rows / n
    noise = (n / size - 1) / n**2
    eye, ones = np.eye(n), np.ones((n, n))

    def stepped(moment: np.ndarray, eta: float) -> np.ndarray:
        still = np.eye(n) - eta * mean
        extra = sum(row @ moment @ row * np.outer(row, row) for row in rows)
        return still @ moment @ still + eta**2 * noise * extra

    def factor(eta: float) -> float:
        columns = []
        for moment in (eye, ones):
            after = stepped(moment, eta)
            columns.append([after[0, 0] - after[0, 1], after[0, 1]])
        return float(np.abs(np.linalg.eigvals(np.array(columns).T)).max())

    low, high = 1e-6, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if factor(middle) <= 1 + 1e-12 else (low, middle)
    return low


def coherence_limit(rows: np.ndarray, size: float) -> float:
    """sigma / lambda_1 / sqrt(n / B - 1), infinite at the full batch; the sharpness is one."""
    n = len(rows)
    if size == n:
        return float("inf")
    overlaps = np.abs(rows @ rows.T)
    sigma = np.linalg.eigvalsh(overlaps)[-1] / max(row @ row for row in rows)
    return float(sigma / (n / size - 1) ** 0.5)


def stability_batch(x: Tensor, settings: Settings) -> list[Tensor]:
    rows = rank_one(stop(settings["overlap"], OVERLAPS))
    return [
        torch.tensor([[exact_limit(rows, size) for size in x.tolist()]], dtype=torch.float64),
        torch.tensor([[coherence_limit(rows, size) for size in x.tolist()]], dtype=torch.float64),
        torch.full_like(x, 2.0)[None],
    ]


SCENES: dict[str, Callable[[Settings], Tensor]] = {"stability-orbit": stability_orbit}

EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "stability-edge": stability_edge,
    "stability-batch": stability_batch,
}
