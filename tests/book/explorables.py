"""What every explorable figure must draw, computed a second time, in float64.

An entry takes the points x (N,) and what the controls show, and returns for each curve its (P, N)
values in the P panels: from the formula or with `lossbook`, never from the notebook's own cell.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

Settings = dict[str, str]


def stop(shown: str, stops: Tensor) -> float:
    """The stop of a slider that shows as this text, which has four digits."""
    return min(stops.tolist(), key=lambda number: abs(number - float(shown)))


def with_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Value and derivative, for the panels "loss" and "slope"."""
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return torch.stack([value.detach(), slope])


def smoke(x: Tensor, settings: Settings) -> list[Tensor]:
    epsilon = stop(settings["epsilon"], torch.linspace(-1, 5, 13))
    return [
        with_slope(lambda m: softplus(-m), x),
        with_slope(lambda m: softplus(-m) + epsilon * torch.sigmoid(-m), x),
    ]


def smoke_live(x: Tensor, settings: Settings) -> list[Tensor]:
    return [*smoke(x, settings), with_slope(lambda m: torch.relu(1 - m), x)]


EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "smoke": smoke,
    "smoke-live": smoke_live,
}
