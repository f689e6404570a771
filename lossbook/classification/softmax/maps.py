r"""From scores to probabilities: the softmax, its sparse alternatives, and how they saturate.

A map from scores to probabilities answers a question: which distribution agrees best with the scores
and is still uncertain enough?

.. math:: \hat p(z) = \arg\max_{p \in \Delta} \; p \cdot z + H(p)

With Shannon's entropy it is the softmax, with Gini's the sparsemax, with those of Tsallis all
between. Shannon's entropy again, but among distributions on at most k classes, gives the softmax of
the k largest scores.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lossbook._contract import check_float, check_scores, is_concrete, require, restore

__all__ = [
    "entmax",
    "jacobian_norm",
    "self_adjust_softmax",
    "sparse_softmax",
    "sparsemax",
    "straight_through",
]


# --- Entmax -----------------------------------------------------------------------------------


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
    a likelihood the logarithm of zero is not: train with
    :func:`~lossbook.classification.softmax.losses.entmax_loss` instead.

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


# --- The k largest ----------------------------------------------------------------------------


def sparse_softmax(logits: Tensor, *, k: int = 10, dim: int = 1) -> Tensor:
    r"""Sparse-softmax: the softmax of the k largest scores, zero for the rest.

    .. math:: p_i = \frac{e^{z_i}}{\sum_{j \in \Omega_k} e^{z_j}} \; [i \in \Omega_k]

    with :math:`\Omega_k` the classes of the k largest scores. Of all distributions on at most k
    classes it is the one with the largest :math:`p \cdot z + H(p)`. On the scores
    :math:`b_i \cdot x + c_i` of experts it is the top-k gate of a mixture.

    Args:
        logits: of any shape with dimension ``dim``.
        k: at least 1; no fewer than there are classes gives the softmax.
        dim: the dimension of the classes.

    Returns:
        Probabilities in the shape and dtype of the logits. Of equal scores at the edge some are
        taken and some not, as ``torch.topk`` has it.

    Raises:
        ValueError: if k is below 1.
        TypeError: if logits are not floating-point.

    Source: ``sun2021sparsesoftmax``.

    Pitfall: it jumps. Where the k-th score and the next change places, a whole probability moves
    from one class to the other, and no gradient tells of it.

    Example:
        >>> sparse_softmax(torch.tensor([[1.0, 1.0, 0.0, -5.0]]), k=2)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    z = check_float(logits, "logits")
    require(k >= 1, "k", k, "at least 1")
    largest, classes = z.topk(min(k, z.shape[dim]), dim)
    return restore(torch.zeros_like(z).scatter(dim, classes, largest.softmax(dim)), logits.dtype)


# --- Saturation -------------------------------------------------------------------------------


def self_adjust_softmax(logits: Tensor, *, normalize: bool = True, dim: int = 1) -> Tensor:
    r"""Self-adjust softmax: the softmax times its own input, meant to keep a gradient in sure rows.

    .. math:: z_k \, p_k, \qquad\text{or normalized}\qquad
        \frac{z_k - \min(z_{\min}, 0)}{\max(z_{\max}, 0) - \min(z_{\min}, 0)} \; p_k,
        \qquad p = \mathrm{softmax}(z)

    for attention, where what multiplies the values need not sum to 1. In a sure row the product has
    the slope :math:`p_k \approx 1`. The normalized one has not, if its best score is positive: the
    factor of the best is 1 whatever it is, and the row saturates as the softmax's. Scores of minus
    infinity are masked: they get 0, and a row of them alone is nan, as in the softmax.

    Args:
        logits: attention scores, of any shape with dimension ``dim``.
        normalize: to factors from 0 to 1; else scores multiply as they are. The default is ours.
        dim: the dimension that is summed over.

    Returns:
        Weights in the shape and dtype of the logits; 0 where all scores are exactly 0.

    Raises:
        TypeError: if logits are not floating-point.

    Source: ``zheng2025selfadjust``.

    Pitfall: zero means something now. A row shifted by a constant has other weights, and equal
    negative scores, normalized, have none at all.

    Example:
        >>> self_adjust_softmax(torch.tensor([[9.0, 0.0]]))
        tensor([[0.9999, 0.0000]])
    """
    z = check_float(logits, "logits")
    x = z.masked_fill(z == -math.inf, 0)  # a masked score is neither the least nor the largest
    if normalize:
        low, high = x.amin(dim, True).clamp(max=0), x.amax(dim, True).clamp(min=0)
        x = (x - low) / torch.where(high == low, 1, high - low)
    return restore(x * z.softmax(dim), logits.dtype)


def jacobian_norm(transform: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    r"""How much a map still moves: the Frobenius norm of its Jacobian at each row of scores.

    .. math:: \Bigl\| \frac{\partial f(z)}{\partial z} \Bigr\|_F, \qquad
        \text{for the softmax} \quad
        \Bigl\| \operatorname{diag}(p) - p p^\top \Bigr\|_F
        = \sqrt{\textstyle \sum_i p_i^2 - 2 \sum_i p_i^3 + (\sum_i p_i^2)^2}

    Args:
        transform: maps scores (N, C) to (N, M), each row by itself.
        logits: (N, C).

    Returns:
        The norms (N,), in the dtype of the logits.

    Raises:
        ValueError: unless logits are (N, C).
        TypeError: if logits are not floating-point.

    Pitfall: it is what arithmetic makes of it. In float32, from a lead of about 17, 1 - p rounds to 0
    and the softmax's loses a part; measure in float64.

    Example:
        >>> jacobian_norm(partial(torch.softmax, dim=1), torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
        tensor([0.5000, 0.0904])
    """
    z = check_scores(logits)
    require(z.ndim == 2, "the shape of logits", tuple(z.shape), "(N, C)")
    row = torch.func.jacrev(lambda x: transform(x.unsqueeze(0)).squeeze(0))
    return restore(torch.func.vmap(row)(z).flatten(1).norm(dim=1), logits.dtype)


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    r"""The values of one tensor with the gradient of another.

    .. math:: \text{forward} \quad \text{hard}, \qquad \text{backward} \quad
        \frac{\partial \, \text{soft}}{\partial \, \cdot}

    Args:
        soft: what is differentiated.
        hard: of the same shape, for instance the one-hot argmax of ``soft``, or ``soft`` rounded.

    Returns:
        Exactly the values of ``hard``, in the dtype of ``soft``.

    Raises:
        ValueError: if the shapes differ.

    Source: ``bengio2013estimating``.

    Pitfall: gradcheck fails, as it must: the gradient is not that of the values. What it is worth
    depends on how near the two are.

    Example:
        >>> p = torch.tensor([0.7, 0.3], requires_grad=True)
        >>> straight_through(p, p.round()).detach(), torch.autograd.grad(
        ...     straight_through(p, p.round())[0], p
        ... )[0]
        (tensor([1., 0.]), tensor([1., 0.]))
    """
    require(
        soft.shape == hard.shape, "the shape of hard", tuple(hard.shape), f"{tuple(soft.shape)}"
    )
    return hard.detach().to(soft.dtype) + (soft - soft.detach())
