"""Second computations for the explorable figures of the notebook on curvature, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Settings = dict[str, str]


def stop(shown: str, stops: list[float]) -> float:
    """The stop of a slider that shows as this text, which has four digits."""
    return min(stops, key=lambda number: abs(number - float(shown)))


# --- Ritz values against a known spectrum


def bells(t: Tensor, centers: Tensor, shares: Tensor, width: float) -> Tensor:
    """log10 of a sum of Gaussians, never below a millionth."""
    total = torch.zeros_like(t)
    for center, share in zip(centers.tolist(), shares.tolist(), strict=True):
        exponent = -((t - center) ** 2) / (2 * width**2)
        total = total + share * exponent.exp() / (width * math.sqrt(2 * math.pi))
    return total.clamp(min=1e-6).log10()


def lanczos(t: Tensor, settings: Settings) -> list[Tensor]:
    """The Ritz values from an orthonormal basis of the Krylov space, by projecting the matrix."""
    known = torch.cat([torch.linspace(-0.5, 1.5, 195), torch.tensor([3.0, 4, 6, 7, 10])]).double()
    width = stop(settings["width"], [0.1, 0.2, 0.4])
    steps = int(settings["steps"])
    basis = torch.ones(200, 1, dtype=torch.float64) / math.sqrt(200)
    while basis.shape[1] < steps:
        new = known[:, None] * basis[:, -1:]
        for _ in range(3):
            new = new - basis @ (basis.T @ new)
        basis = torch.cat([basis, new / new.norm()], 1)
    values, vectors = torch.linalg.eigh(basis.T @ (known[:, None] * basis))
    exact = bells(t, known, torch.full((200,), 1 / 200).double(), width)
    return [exact[None], bells(t, values, vectors[0] ** 2, width)[None]]


# --- outliers and classes


@cache
def spectra(classes: int, steps: int) -> tuple[Tensor, Tensor]:
    """log10 of the largest eigenvalues after gradient descent with hand-written gradients."""
    g = torch.Generator().manual_seed(classes)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    y = torch.arange(20 * classes) % classes
    means = draw(classes, 10)
    x = 0.5 * (means[y] + draw(20 * classes, 10))
    weights = [draw(*shape) / 4 for shape in [(16, 10), (16,), (classes, 16), (classes,)]]
    target = torch.eye(classes, dtype=torch.float64)[y]

    def outputs(w: Tensor) -> Tensor:
        first, bias, second, offset = w.split([160, 16, 16 * classes, classes])
        hidden = torch.relu(x @ first.reshape(16, 10).T + bias)
        return hidden @ second.reshape(classes, 16).T + offset

    for _ in range(steps):
        first, bias, second, offset = weights
        hidden = torch.relu(x @ first.T + bias)
        error = ((hidden @ second.T + offset).softmax(1) - target) / len(x)
        back = (error @ second) * (hidden > 0)
        slopes = [back.T @ x, back.sum(0), error.T @ hidden, error.sum(0)]
        weights = [w - 0.5 * slope for w, slope in zip(weights, slopes, strict=True)]

    w = torch.cat([part.flatten() for part in weights])
    p, jacobian = outputs(w).softmax(1), torch.func.jacrev(outputs)(w)
    centered = jacobian - (p[:, :, None] * jacobian).sum(1, keepdim=True)
    gauss_newton = torch.einsum("nk,nkp,nkq->pq", p, centered, centered) / len(x)
    full = torch.func.hessian(lambda w: -(target * outputs(w).log_softmax(1)).sum() / len(x))(w)
    return tuple(  # type: ignore[return-value]
        torch.linalg.eigvalsh(matrix).flip(0)[:20].clamp(min=1e-4).log10()
        for matrix in (full, gauss_newton)
    )


def classes(_: Tensor, settings: Settings) -> list[Tensor]:
    return [values[None] for values in spectra(int(settings["classes"]), int(settings["steps"]))]


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "curvature-lanczos": lanczos,
    "curvature-classes": classes,
}

SCENES: dict[str, Callable[[Settings], Tensor]] = {}
