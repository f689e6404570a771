"""What the losses of this room share: checked views and labels, and the batch of all ranks."""

import torch
from torch import Tensor

from lossbook._contract import require, require_shape
from lossbook._distributed import everyone, first_row
from lossbook._pairs import check_embeddings, unit


def pair(anchor: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Checks two views (N, D) and gives their directions."""
    u, v = check_embeddings(anchor, "anchor"), check_embeddings(positive, "positive")
    require_shape(positive, tuple(anchor.shape), "positive")
    return unit(u), unit(v)


def check_labels(labels: Tensor, number: int, name: str = "labels") -> None:
    """Checks for integers (N,)."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"{name} must be an int64 tensor, got {getattr(labels, 'dtype', labels)}")
    require_shape(labels, (number,), name)


def check_others(number: int) -> None:
    """A loss that pushes others alone needs some; an empty batch is left to torch."""
    require(number != 1, "the number of examples", number, "at least 2, for there to be negatives")


def own_columns(u: Tensor, gather: bool) -> Tensor:
    """(n, 1): where the rows of this rank stand among those of all: no anchor is its own other."""
    return first_row(u, gather) + torch.arange(len(u), device=u.device)[:, None]


def both_views(u: Tensor, v: Tensor, gather: bool) -> tuple[Tensor, Tensor, Tensor]:
    """All 2 n embeddings as anchors, those of all ranks as keys, and two columns (2 n, 2):

    where each anchor itself stands among the keys, and where its positive does.
    """
    z = torch.cat([u, v])
    own = own_columns(z, gather)
    return z, everyone(z, gather), torch.cat([own, own.roll(len(u), 0)], 1)
