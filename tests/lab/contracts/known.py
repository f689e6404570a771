"""Losses of the literature that the package does not have, as a reader would write them in a few lines."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lossbook.classification import cross_entropy, focal_loss

# --- Of the margin


def unhinged(margin: Tensor) -> Tensor:
    return 1 - margin


def sigmoid(margin: Tensor) -> Tensor:
    return (-margin).sigmoid()


def savage(margin: Tensor) -> Tensor:
    return (-2 * margin).sigmoid().square()


# --- Convex functions of probabilities, and of scores


def norm_three(p: Tensor) -> Tensor:
    return p.pow(3).sum(1).pow(1 / 3)


def largest(scores: Tensor) -> Tensor:
    return scores.amax(1)


# --- Of logits and a target


def mean_absolute_error(logits: Tensor, target: Tensor) -> Tensor:
    """The distance of the probabilities to the one-hot label, summed over the classes."""
    p = logits.softmax(1)
    return (p - one_hot(target, p.shape[1])).abs().sum(1)


def normalized(loss: Callable[..., Tensor], logits: Tensor, target: Tensor) -> Tensor:
    """A loss divided by its sum over all labels."""
    labels = range(logits.shape[1])
    total = sum(loss(logits, torch.full_like(target, k), reduction="none") for k in labels)
    return loss(logits, target, reduction="none") / total


def normalized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return normalized(cross_entropy, logits, target)


def normalized_focal(logits: Tensor, target: Tensor) -> Tensor:
    return normalized(focal_loss, logits, target)


def reverse_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The label's cross-entropy under the prediction, with -4 for log 0."""
    p = logits.softmax(1)
    return 4 * (p * (1 - one_hot(target, p.shape[1]))).sum(1)


def symmetric_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits, target, reduction="none") + reverse_cross_entropy(logits, target)


def active_passive(logits: Tensor, target: Tensor) -> Tensor:
    return normalized_cross_entropy(logits, target) + mean_absolute_error(logits, target)


LOSSES: dict[str, Callable[..., Tensor]] = {
    loss.__name__: loss
    for loss in (
        mean_absolute_error,
        normalized_cross_entropy,
        normalized_focal,
        reverse_cross_entropy,
        symmetric_cross_entropy,
        active_passive,
    )
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function for function in (unhinged, sigmoid, savage, norm_three, largest)
}
