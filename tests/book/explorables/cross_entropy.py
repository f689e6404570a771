"""What every explorable figure must draw, computed a second time, in float64.

An entry takes the points x (N,) and what the controls show, and returns for each curve its (P, N)
values in the P panels: from the formula or with `lossbook`, never from the notebook's own cell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lossbook import classification as losses

Settings = dict[str, str]


def stop(shown: str, stops: Tensor) -> float:
    """The stop of a slider that shows as this text, which has four digits."""
    return min(stops.tolist(), key=lambda number: abs(number - float(shown)))


def cross_entropy_family(p: Tensor, settings: Settings) -> list[Tensor]:
    """Loss f(p) and force -f'(p) p (1 - p), each by its formula."""
    tau = stop(settings["tau"], torch.linspace(0, 2, 21))
    epsilon = stop(settings["epsilon"], torch.linspace(-1, 4, 21))
    end = stop(settings["end_point"], torch.linspace(0.5, 1, 11))
    surprise = -p.log()
    comp_sum = surprise if tau == 1 else (p ** (tau - 1) - 1) / (1 - tau)
    bonus, pull = (1 - p).log(), torch.ones_like(p)
    if end < 1:
        tangent = torch.tensor(1 - end).double().log() - (p - end) / (1 - end)
        bonus = torch.where(p > end, tangent, bonus)
        pull = torch.where(p > end, (1 - p) * (1 + p / (1 - end)), pull)
    return [
        torch.stack([surprise, 1 - p]),
        torch.stack([comp_sum, p ** (tau - 1) * (1 - p)]),
        torch.stack([surprise + epsilon * (1 - p), (1 - p) * (1 + epsilon * p)]),
        torch.stack([surprise + bonus, pull]),
    ]


DUELISTS: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": losses.cross_entropy,
    "label smoothing": partial(losses.cross_entropy, label_smoothing=0.1),
    "generalized cross-entropy (τ = 1.7)": partial(losses.comp_sum_loss, tau=1.7),
    "expected error (τ = 2)": lambda z, y, **_: 1 - z.softmax(1)[:, 0],
    "poly-1 (ε = 2)": partial(losses.poly_loss, epsilon=2.0),
    "encouraging (e = 0.75)": losses.encouraging_loss,
    "halted focal (γ = 2)": losses.halted_focal_loss,
    "squentropy": losses.squentropy_loss,
    "square loss": lambda z, y, **_: ((z[:, 0] - 1) ** 2 + (z[:, 1:] ** 2).sum(1)) / 10,
    "LDR-KL (λ = 1, c = 2)": partial(losses.ldr_kl_loss, temperature=1.0, margin=2.0),
    "spherical softmax": losses.spherical_softmax_loss,
    "Z-loss (a = 1, b = 2)": partial(losses.z_loss, sharpness=1.0, offset=2.0),
}


def duelist(name: str, m: Tensor) -> Tensor:
    """Loss and force with the label's logit at m and nine others at zero."""
    logit = m.clone().requires_grad_()
    z = torch.cat([logit[:, None], torch.zeros(len(m), 9).double()], 1)
    value = DUELISTS[name](z, torch.zeros(len(m)).long(), reduction="none")
    (slope,) = torch.autograd.grad(value.sum(), logit)
    return torch.stack([value.detach(), -slope])


def cross_entropy_duel(m: Tensor, settings: Settings) -> list[Tensor]:
    return [duelist(settings["first"], m), duelist(settings["second"], m)]


def cross_entropy_duel_live(m: Tensor, settings: Settings) -> list[Tensor]:
    capped = softplus(2 - m) < 6
    ramp = torch.where(capped, softplus(2 - m), 6.0)
    force = torch.where(capped, torch.sigmoid(2 - m), 0.0)
    return [*cross_entropy_duel(m, settings), torch.stack([ramp, force])]


# What a scene must show: its points (N, 3), or (N, 2) in the plane, for what the controls show.
SCENES: dict[str, Callable[[Settings], Tensor]] = {}

EXPECTED: dict[str, Callable[[Tensor, Settings], list[Tensor]]] = {
    "cross-entropy-family": cross_entropy_family,
    "cross-entropy-duel": cross_entropy_duel,
    "cross-entropy-duel-live": cross_entropy_duel_live,
}
