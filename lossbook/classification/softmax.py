r"""The softmax, its sparse alternatives, and the losses that belong to them.

A map from scores to probabilities answers a question: which distribution agrees best with the scores
and is still uncertain enough?

.. math:: \hat p(z) = \arg\max_{p \in \Delta} \; p \cdot z + H(p)

With Shannon's entropy it is the softmax, with Gini's the sparsemax, with those of Tsallis all
between. Each comes with a loss of its own, the *Fenchel-Young loss*, whose gradient is
:math:`\hat p - q`: what cross-entropy is to the softmax.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lossbook._contract import check_float, check_scores, expectation, is_concrete, require, restore

__all__ = ["entmax", "entmax_loss", "fenchel_young_loss", "sparsemax", "sparsemax_loss"]


# --- Maps to the simplex ----------------------------------------------------------------------


def _steps(classes: int, power: float, dtype: torch.dtype) -> int:
    r"""How many of Newton's steps give the root of :math:`\|(x - \tau)_+\|_p = 1` to rounding.

    The norm is convex in :math:`\tau` and falls. From the left the steps never pass the root, and each
    divides the product of excess and slope, at first below :math:`C^{2/p}`, by four at least.
    """
    digits = -math.log2(torch.finfo(dtype).eps)
    return math.ceil(math.log2(max(classes, 2)) / power + digits / 2)


def _step(gap: Tensor, power: float, total: Callable[[Tensor], Tensor]) -> Tensor:
    """One of them, from the gaps (x - tau)_+ and a sum over each row."""
    slopes = (gap > 0).to(gap.dtype) if power == 1 else gap ** (power - 1)
    norm = total(gap**power) ** (1 / power)
    return ((norm - 1) * norm ** (power - 1) / total(slopes)).clamp(min=0)


def _powers(x: Tensor, power: float) -> Tensor:
    r"""The distribution :math:`(x - \tau)_+^p` for each row of x (R, C), whose largest entry is 0."""
    tau = torch.full_like(x[:, :1], -1)
    for _ in range(_steps(x.shape[1], power, x.dtype)):
        tau = tau + _step((x - tau).clamp(min=0), power, lambda y: y.sum(1, True))
    p = (x - tau).clamp(min=0) ** power
    return p / p.sum(1, True)


def _few_powers(x: Tensor, power: float) -> Tensor:
    """The same from the few scores within 1 of their row's largest, where values may be looked at."""
    row, column = (~(x <= -1)).nonzero(as_tuple=True)  # with nan, which must stay nan
    near, tau = x[row, column], torch.full_like(x[:, 0], -1)
    for _ in range(_steps(x.shape[1], power, x.dtype)):
        gap, before = (near - tau[row]).clamp(min=0), tau
        tau = tau + _step(gap, power, partial(_over_rows, row, tau))
        if torch.equal(before, tau):
            break
    p = (near - tau[row]).clamp(min=0) ** power
    return torch.zeros_like(x).index_put((row, column), p / _over_rows(row, tau, p)[row])


def _over_rows(row: Tensor, like: Tensor, values: Tensor) -> Tensor:
    """Sums of values that belong to rows, (R,)."""
    return torch.zeros_like(like).index_add(0, row, values)


class _Entmax(torch.autograd.Function):
    """Of rows (R, C). The gradient is written in terms of the result, and so are its own gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, alpha: float) -> Tensor:
        powers = _few_powers if is_concrete(z) else _powers
        return powers((z - z.amax(1, True)).mul_(alpha - 1), 1 / (alpha - 1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.alpha = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (p,), (slope,) = ctx.saved_tensors, outer
        if is_concrete(p):
            row, column = p.nonzero(as_tuple=True)
            s, pull = p[row, column] ** (2 - ctx.alpha), slope[row, column]
            total = partial(_over_rows, row, p[:, 0])
            s = s * (pull - (total(s * pull) / total(s))[row])
            return torch.zeros_like(p).index_put((row, column), s), None
        held = p > 0
        s = torch.where(held, torch.where(held, p, 1) ** (2 - ctx.alpha), 0)
        return s * (slope - (s * slope).sum(1, True) / s.sum(1, True)), None


def _check_alpha(alpha: float) -> None:
    require(1 <= alpha <= 2, "alpha", alpha, "in [1, 2]")


def _entmax(z: Tensor, alpha: float, dim: int) -> Tensor:
    if alpha == 1:
        return z.softmax(dim)
    last = z.movedim(dim, -1)
    rows = _Entmax.apply(last.reshape(math.prod(last.shape[:-1]), last.shape[-1]), alpha)
    return rows.view(last.shape).movedim(-1, dim)


def entmax(logits: Tensor, *, alpha: float = 1.5, dim: int = 1) -> Tensor:
    r"""Entmax: probabilities that are exactly zero where a score is too far below the best.

    .. math:: p_k = \bigl[(\alpha - 1) z_k - \tau\bigr]_+^{1 / (\alpha - 1)}, \qquad
        \tau: \sum_k p_k = 1

    The softmax as :math:`\alpha \to 1` and the :func:`sparsemax` at 2. It is the map of Tsallis'
    entropy :math:`H(p) = \sum_k (p_k - p_k^\alpha) / (\alpha (\alpha - 1))`. Exact to rounding for
    every alpha; second derivatives too.

    Args:
        logits: of any shape with dimension ``dim``.
        alpha: in [1, 2]; the larger, the sparser.
        dim: the dimension of the classes.

    Returns:
        Probabilities in the shape and dtype of the logits.

    Raises:
        ValueError: on an alpha out of range.
        TypeError: if logits are not floating-point.

    Source: ``peters2019sparse``.

    Pitfall: a score that has probability zero has gradient zero. As attention that is the point; in
    a likelihood the logarithm of zero is not: train with :func:`entmax_loss` instead.

    Example:
        >>> entmax(torch.tensor([[2.0, 1.0, -1.0]]))
        tensor([[0.8307, 0.1693, 0.0000]])
    """
    z = check_float(logits, "logits")
    _check_alpha(alpha)
    return restore(_entmax(z, alpha, dim), logits.dtype)


def sparsemax(logits: Tensor, *, dim: int = 1) -> Tensor:
    r"""Sparsemax: the nearest distribution to the scores.

    .. math:: p = \arg\min_{p \in \Delta} \|p - z\|^2, \qquad p_k = [z_k - \tau]_+

    Args:
        logits: of any shape with dimension ``dim``.
        dim: the dimension of the classes.

    Returns:
        Probabilities in the shape and dtype of the logits.

    Raises:
        TypeError: if logits are not floating-point.

    Source: ``martins2016softmax``.

    Pitfall: scale matters as it does not for an argmax. Two scores more than 1 apart are a certain
    decision, so a network says "certain" by merely growing its weights.

    Example:
        >>> sparsemax(torch.tensor([[0.7, 0.5, -1.0]]))
        tensor([[0.6000, 0.4000, 0.0000]])
    """
    return restore(_entmax(check_float(logits, "logits"), 2.0, dim), logits.dtype)


# --- Their losses -----------------------------------------------------------------------------


class _Conjugate(torch.autograd.Function):
    """max over p of p . z + H(p) along dimension 1: its gradient is the p that attains it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, p: Tensor, alpha: float) -> Tensor:
        entropy = (p - p**alpha) / (alpha * (alpha - 1))
        return (p * z + entropy).sum(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (p,) = ctx.saved_tensors
        return outer[0].unsqueeze(1) * p, None, None


def _conjugate(z: Tensor, alpha: float) -> Tensor:
    return z.logsumexp(1) if alpha == 1 else _Conjugate.apply(z, _entmax(z, alpha, 1), alpha)


def fenchel_young_loss(
    logits: Tensor,
    target: Tensor,
    *,
    conjugate: Callable[[Tensor], Tensor],
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The loss that belongs to a map: how much better the best distribution does than the label.

    .. math:: L(z, y) = \Omega^*(z) - z_y, \qquad
        \Omega^*(z) = \max_{p \in \Delta} \; p \cdot z - \Omega(p)

    for a convex :math:`\Omega = -H` that is 0 where there is no doubt. Convex in z, never negative, 0
    if and only if the map puts everything on the label; its gradient is
    :math:`\nabla \Omega^*(z) - e_y`, prediction minus label. The conjugate log-sum-exp gives
    cross-entropy; the maximum, the perceptron's loss; the maximum of the scores with 1 added to all
    but the label's is no such conjugate, as it looks at the label.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...); under these the loss is
            the expectation, which differs from the Fenchel-Young loss by the constant H(q).
        conjugate: maps (N, C, ...) to (N, ...), differentiably; adding a number to all scores adds
            it to the result.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes, labels out of range, or a conjugate that returns another shape.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``blondel2020learning``.

    Pitfall: the conjugate and its gradient, the map, must belong together. A loss made with one map
    and predictions made with another are not calibrated to each other.

    Example:
        >>> z, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
        >>> fenchel_young_loss(z, y, conjugate=lambda z: z.logsumexp(1))  # cross-entropy
        tensor(0.3133)
    """
    z = check_scores(logits)
    z = z - z.detach().amax(1, keepdim=True)
    best = conjugate(z)
    shape = z.shape[:1] + z.shape[2:]
    require(best.shape == shape, "the shape of conjugate(logits)", tuple(best.shape), f"{shape}")
    return expectation(
        best.unsqueeze(1) - z,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def entmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.5,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The Fenchel-Young loss of entmax: cross-entropy with a margin.

    .. math:: L(z, y) = p \cdot z + H(p) - z_y, \qquad p = \operatorname{entmax}_\alpha(z), \quad
        H(p) = \sum_k \frac{p_k - p_k^\alpha}{\alpha (\alpha - 1)}

    Exactly 0 once the label's score leads all others by :math:`1 / (\alpha - 1)`.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        alpha: in [1, 2]; 1 is cross-entropy, 2 the :func:`sparsemax_loss`.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced; at least 0.

    Raises:
        ValueError: on shapes, labels or an alpha out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``peters2019sparse``.

    Pitfall: predict with :func:`entmax` of the same alpha; the softmax of scores trained so is too
    unsure.

    Example:
        >>> entmax_loss(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))  # leads by 2
        tensor(0.)
    """
    _check_alpha(alpha)
    return fenchel_young_loss(
        logits,
        target,
        conjugate=lambda z: _conjugate(z, alpha),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def sparsemax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The Fenchel-Young loss of the sparsemax: a Huber loss for classes.

    .. math:: L(z, y) = \frac12 \sum_{k \in S} (z_k^2 - \tau^2) + \frac12 - z_y

    with S the scores above the threshold :math:`\tau` of the :func:`sparsemax`. With two classes and
    t the lead of the label's score: 0 for t at least 1, -t for t at most -1, and
    :math:`(t - 1)^2 / 4` between.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced; at least 0.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``martins2016softmax``.

    Pitfall: an example that leads by 1 is done with, for good. Probabilities come out sharper than
    the data warrant unless weights are held small.

    Example:
        >>> sparsemax_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2500)
    """
    return fenchel_young_loss(
        logits,
        target,
        conjugate=lambda z: _conjugate(z, 2.0),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )
