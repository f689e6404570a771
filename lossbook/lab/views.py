r"""Learning from views: random changes to pictures, and how good the embeddings are that they teach.

A view maker ``view(pictures, stream)`` takes pictures written out in rows, ``(N, H * W)`` with pixels
about in [0, 1], and a CPU random stream, and returns changed ones of the same shape. :func:`several`
makes of it what :func:`lossbook.lab.training.fit` takes as ``views``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, normalize, one_hot

__all__ = [
    "View",
    "chain",
    "dimmed",
    "erased",
    "knn_accuracy",
    "moved",
    "noisy",
    "probe_accuracy",
    "several",
    "with_cue",
]

View = Callable[[Tensor, torch.Generator], Tensor]


# --- Views --------------------------------------------------------------------------------------


def moved(shift: float = 1.0, angle: float = 0.3) -> View:
    """Pictures shifted by up to ``shift`` pixels each way and turned by up to ``angle`` radians."""
    _check_sizes(shift=shift, angle=angle)

    def view(pictures: Tensor, stream: torch.Generator) -> Tensor:
        square = _square(pictures)
        turn = angle * _uniform(pictures, stream)
        steps = 2 * shift / square.shape[-1] * _uniform(pictures, stream, 2)
        theta = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(-1, 2, 2)
        grid = affine_grid(
            torch.cat([theta, steps[:, :, None]], 2), list(square.shape), align_corners=False
        )
        return grid_sample(square, grid, align_corners=False).flatten(1)

    return view


def noisy(deviation: float = 0.1) -> View:
    """Pictures with Gaussian noise of this standard deviation on every pixel."""
    _check_sizes(deviation=deviation)

    def view(pictures: Tensor, stream: torch.Generator) -> Tensor:
        noise = torch.randn(pictures.shape, generator=stream)
        return pictures + deviation * noise.to(pictures.device)

    return view


def dimmed(share: float = 0.5) -> View:
    """Pictures with all pixels times a factor between ``1 - share`` and ``1 + share``."""
    _check_sizes(share=share)
    return lambda pictures, stream: pictures * (1 + share * _uniform(pictures, stream)).unsqueeze(1)


def erased(pixels: int = 3) -> View:
    """Pictures with a square of this edge set to zero, anywhere."""
    _check_sizes(pixels=pixels)

    def view(pictures: Tensor, stream: torch.Generator) -> Tensor:
        square = _square(pictures)
        side = square.shape[-1]
        corner = torch.randint(0, side - pixels + 1, (len(pictures), 2), generator=stream)
        offset = torch.arange(side) - corner[:, :, None]  # (N, 2, side)
        inside = (offset >= 0) & (offset < pixels)
        hole = inside[:, 0, :, None] & inside[:, 1, None, :]
        return square.masked_fill(hole[:, None].to(square.device), 0).flatten(1)

    return view


def chain(*views: View) -> View:
    """One view maker after the other."""

    def view(pictures: Tensor, stream: torch.Generator) -> Tensor:
        for change in views:
            pictures = change(pictures, stream)
        return pictures

    return view


def several(view: View, number: int = 2) -> View:
    """Independent views of each picture: (N, ...) to (number, N, ...)."""
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number!r}")
    return lambda pictures, stream: torch.stack([view(pictures, stream) for _ in range(number)])


def with_cue(pictures: Tensor, cue: Tensor, brightness: float = 1.0) -> Tensor:
    """Digits with a second factor that is easy to see: a bright stripe in one of four borders.

    Args:
        pictures: (N, H * W).
        cue: (N,), int64 from 0 to 3: top, right, bottom, left.
        brightness: Of the stripe; a digit's pixels go up to 1.
    """
    if cue.shape != pictures.shape[:1]:
        raise ValueError(f"cue must have shape {tuple(pictures.shape[:1])}, got {tuple(cue.shape)}")
    square = _square(pictures)
    stripe = torch.zeros(4, *square.shape[-2:], device=pictures.device)
    stripe[0, 0] = stripe[1, :, -1] = stripe[2, -1] = stripe[3, :, 0] = brightness
    return torch.maximum(square[:, 0], stripe[cue]).flatten(1)


def _square(pictures: Tensor) -> Tensor:
    """Pictures (N, 1, H, H)."""
    if pictures.ndim != 2 or math.isqrt(pictures.shape[1]) ** 2 != pictures.shape[1]:
        raise ValueError(
            f"pictures must be square ones in rows, (N, H * H), got {tuple(pictures.shape)}"
        )
    side = math.isqrt(pictures.shape[1])
    return pictures.view(-1, 1, side, side)


def _uniform(pictures: Tensor, stream: torch.Generator, *further: int) -> Tensor:
    """Numbers from -1 to 1, one or several for each picture."""
    numbers = torch.rand(len(pictures), *further, generator=stream)
    return (2 * numbers - 1).to(pictures)


def _check_sizes(**sizes: float) -> None:
    for name, size in sizes.items():
        if not size >= 0:
            raise ValueError(f"{name} must be at least 0, got {size!r}")


# --- How good embeddings are --------------------------------------------------------------------


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    neighbors: int = 20,
    temperature: float = 0.1,
) -> Tensor:
    """How often the nearest training embeddings vote for the right class.

    A neighbor's vote weighs exp(cosine / temperature).

    Args:
        train: (S, N, D), embeddings of each seed.
        train_labels: (N,).
        test: (S, M, D).
        test_labels: (M,).
        neighbors: How many vote; all there are if fewer.
        temperature: Positive.

    Returns:
        (S,), between 0 and 1.
    """
    similarity = normalize(test, dim=2) @ normalize(train, dim=2).transpose(1, 2)
    nearest = similarity.topk(min(neighbors, train.shape[1]), dim=2)
    weights = ((nearest.values - 1) / temperature).exp()
    ballots = one_hot(train_labels.to(train.device))[nearest.indices]  # (S, M, k, C)
    votes = (weights.unsqueeze(3) * ballots).sum(2)
    return (votes.argmax(2) == test_labels.to(test.device)).float().mean(1)


def probe_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    ridge: float = 1e-2,
) -> Tensor:
    """How well a linear map of the frozen embeddings tells the classes: ridge regression on one-hot.

    Embeddings are standardized on the training part; classes that are rare count as much as others.

    Args:
        train: (S, N, D), embeddings of each seed.
        train_labels: (N,).
        test: (S, M, D).
        test_labels: (M,).
        ridge: Penalty on the squared weights, of the mean squared error; positive.

    Returns:
        (S,), between 0 and 1.
    """
    mean, deviation = train.mean(1, keepdim=True), train.std(1, keepdim=True)
    scale = torch.where(deviation > 1e-6 * deviation.amax(2, keepdim=True), deviation, torch.inf)
    x, y = ((part - mean).double() / scale.double() for part in (train, test))
    classes = int(train_labels.max()) + 1
    answers = one_hot(train_labels.to(x.device), classes).double()
    weight = (answers / answers.sum(0).clamp(min=1)).sum(1, keepdim=True)
    weight = weight / weight.sum()
    center = (weight * x).sum(1, keepdim=True), (weight * answers).sum(0)
    x, y, goal = x - center[0], y - center[0], answers - center[1]
    penalty = ridge * torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
    maps = torch.linalg.solve((weight * x).mT @ x + penalty, (weight * x).mT @ goal)
    scores = y @ maps + center[1]
    return (scores.argmax(2) == test_labels.to(scores.device)).float().mean(1)
