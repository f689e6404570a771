"""Losses that calibrate while they train, and what the focal ones really minimize."""

import math

import torch
from torch import Tensor

from lossbook._contract import (
    check_float,
    check_scores,
    expectation,
    require,
    restore,
)
from lossbook.classification.cross_entropy import cross_entropy, halted_focal_loss, log_complement

__all__ = [
    "correctness_aware_loss",
    "dual_focal_loss",
    "focal_loss",
    "focal_posterior",
    "odd_k_out_sets",
    "oko_loss",
]


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Focal loss over a softmax: examples that are well classified count for little.

    .. math:: L = -(1 - p_y)^\gamma \log p_y

    The detector's loss, of a sigmoid for each class with a balance alpha, is
    :func:`~lossbook.classification.cross_entropy.poly_focal_loss` with epsilon 0; its first
    step needs output biases at the logit of the rare foreground's probability, 0.01 in the paper.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        gamma: at least 0; 0 is cross-entropy.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, or a negative gamma.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``lin2017focal``.

    Pitfall: not proper. Its softmax understates what it believes; :func:`focal_posterior` translates.
    """
    return halted_focal_loss(
        logits,
        target,
        gamma=gamma,
        halt=1.0,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def focal_posterior(logits: Tensor, *, gamma: float = 2.0) -> Tensor:
    r"""The class probabilities that a model trained with focal loss believes in.

    .. math:: q_k = \frac{h(p_k)}{\sum_j h(p_j)}, \qquad
        h(p) = \frac{p}{(1 - p)^\gamma - \gamma \, p \, (1 - p)^{\gamma - 1} \log p}

    Where p minimizes the expected focal loss under q, each :math:`q_k` times the slope of the loss at
    :math:`p_k` is the same number; 1 / h is this slope, up to the sign.

    Args:
        logits: (N, C) or (N, C, d1, ...), trained with :func:`focal_loss`.
        gamma: at least 0, as in training.

    Returns:
        Probabilities, in the shape and dtype of the logits.

    Raises:
        ValueError: on a shape or a gamma out of range.
        TypeError: if logits are not floating-point.

    Source: ``charoenphakdee2021focal``.

    Pitfall: the rule is that of a minimizer. A network that overfits is too sure already, and becomes
    more so.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    log_p = z.log_softmax(1)
    log_rest = log_complement(z).clamp(min=-1e6)  # of a single class the rest is nothing
    rest = log_rest.exp()
    # -p log p / (1 - p) is 1 where the label is certain and both sides vanish.
    vanishes = rest < torch.finfo(z.dtype).eps
    ratio = torch.where(vanishes, 1, -log_p.exp() * log_p / torch.where(vanishes, 1, rest))
    log_h = log_p - gamma * log_rest - (gamma * ratio).log1p()
    return restore(log_h.softmax(1), logits.dtype)


def dual_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 5.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Dual focal loss: the focus also counts the best class below the label.

    .. math:: L = -(1 - p_y + p_j)^\gamma \log p_y, \qquad p_j = \max \{p_k : p_k < p_y\}

    with :math:`p_j = 0` if no class is below. If the label leads, j is its rival and the loss asks for a
    gap; if not, j is not the class that won.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        gamma: at least 0; 0 is cross-entropy. To be tuned on held-out examples; the default is ours.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum"; the authors' code
            sums by default.

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, or a negative gamma.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``tao2023dual``.

    Pitfall: discontinuous. Where the label's logit passes another's, :math:`p_j` jumps.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    log_p = z.log_softmax(1)
    # Of each logit in order, the place of the best that is strictly below, or -1.
    ordered, order = log_p.sort(1)
    place = torch.arange(z.shape[1], device=z.device).view(1, -1, *[1] * (z.ndim - 2))
    before = ordered.roll(1, 1)
    below = torch.where((ordered > before) & (place > 0), place - 1, -1).cummax(1).values
    below = below.gather(1, order.argsort(1))
    log_rest = log_complement(z)
    # The rival is part of the rest, so that their ratio is at most 1.
    log_ratio = ordered.gather(1, below.clamp(min=0)) - log_rest
    ratio = torch.where(below >= 0, log_ratio, -math.inf).exp()
    focus = (gamma * (log_rest + ratio.log1p())).exp() if gamma > 0 else 1.0
    return expectation(
        -focus * log_p,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def correctness_aware_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Correctness-aware loss: confidence should be 1 where the prediction is right, and 0 where wrong.

    .. math:: L = \bigl(c - [\hat y = y]\bigr)^2, \qquad c = \max_k p_k, \quad
        \hat y = \arg\max_k z_k

    For a calibrator that is trained after the model: its logits are those of the model divided by a
    temperature that a small network gives each example, in the paper from the largest probabilities of
    transformed copies of it. The paper's own text was not at hand: the gap between confidence and
    correctness is stated in its abstract, the square is our reading.

    Args:
        logits: (N, C) or (N, C, d1, ...), after the calibrator.
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss in [0, 1], a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``liu2024optimizing``.

    Pitfall: it is the Brier score of "is the prediction right?": proper for the confidence, blind to which
    class would have been right. Never train the classifier itself with it: without a temperature between
    them it makes wrong predictions uniform instead of right.
    """
    z = check_scores(logits)
    best, predicted = z.log_softmax(1).max(1, keepdim=True)
    right = torch.zeros_like(z).scatter(1, predicted, 1.0)
    return expectation(
        (best.exp() - right).square(),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def oko_loss(
    set_logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Odd-k-out: the summed logits of a set must name the class that occurs twice.

    .. math:: L = -\log \mathrm{softmax} \Bigl( \sum_{x \in S} z(x) \Bigr)_{y}

    for sets of k + 2 examples: two of class y, the others of k further classes, one each; draw them by
    :func:`odd_k_out_sets`. A single example is classified by its own logits. The authors' soft variant
    has as its target the frequencies of the classes in the set. A second head that some versions of
    their code train beside is left out.

    Args:
        set_logits: (N, S, C), logits of the S examples of N sets.
        target: class indices (N,), int64, or probabilities (N, C).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N,) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``muttenthaler2023set``.

    Pitfall: sets balance the classes by construction. Against a baseline on the raw frequencies that is
    part of what one measures.
    """
    z = check_float(set_logits, "set_logits")
    require(z.ndim == 3, "the shape of set_logits", tuple(z.shape), "(N, S, C)")
    loss = cross_entropy(
        z.sum(1), target, weight=weight, ignore_index=ignore_index, reduction=reduction
    )
    return restore(loss, set_logits.dtype)


def odd_k_out_sets(
    labels: Tensor, *, sets: int, odd: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draws sets for :func:`oko_loss`: a pair of one class, and single examples of other classes.

    The class of the pair is uniform over the classes that have two examples, the others are uniform over
    the rest without repetition, examples are uniform within their class and never twice in a set.

    Args:
        labels: (N,), int64, any integers.
        sets: number of sets, at least 1.
        odd: k, at least 0 (0 makes pairs).
        generator: source of randomness, on the CPU; torch's own by default.

    Returns:
        Indices of examples (sets, k + 2), the pair first, and the labels of the pairs (sets,).

    Raises:
        ValueError: if no class has two examples, there are too few classes, or a size is out of range.
        TypeError: if labels are not int64.

    Source: ``muttenthaler2023set``.

    Pitfall: classes are drawn uniformly, so a rare class shows its few examples over and over.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {labels!r}")
    require(labels.ndim == 1, "the shape of labels", tuple(labels.shape), "(N,)")
    require(sets >= 1, "sets", sets, "at least 1")
    require(odd >= 0, "odd", odd, "at least 0")
    order = labels.cpu().argsort(stable=True)
    _, counts = labels.cpu().unique(return_counts=True)
    require(len(counts) > odd, "the number of classes in labels", len(counts), f"above {odd}")
    twice = (counts >= 2).nonzero().squeeze(1)
    require(len(twice) > 0, "labels", "no class with two", "of a class with two examples at least")

    pair = twice[torch.randint(len(twice), (sets, 1), generator=generator)]
    keys = torch.rand(sets, len(counts), generator=generator).scatter(1, pair, -1.0)
    classes = keys.argsort(1)[:, : odd + 1]  # the pair's first, the rest in random order
    size, start = counts[classes], (counts.cumsum(0) - counts)[classes]
    first = _below(size, generator)
    shift = 1 + _below(size[:, :1] - 1, generator)  # to another example of the same class
    second = (first[:, :1] + shift) % size[:, :1]
    rows = torch.cat([start[:, :1] + second, start + first], 1)
    indices = order[rows].to(labels.device)
    return indices, labels[indices[:, 0]]


def _below(bounds: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform integers from 0 to below each bound."""
    draw = torch.rand(bounds.shape, generator=generator, dtype=torch.float64)
    return (draw * bounds).long()
