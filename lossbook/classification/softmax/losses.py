r"""The losses that belong to maps from scores to probabilities.

Each map comes with a loss of its own, the *Fenchel-Young loss*, whose gradient is
:math:`\hat p - q`, prediction minus label: what cross-entropy is to the softmax. One loss here stands
apart: noisy softmax keeps the softmax, and keeps it from being sure too early.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import (
    check_float,
    check_scores,
    expectation,
    require,
    require_shape,
    restore,
)
from lossbook._pairs import inner
from lossbook.classification.cross_entropy import log_complement
from lossbook.classification.softmax.maps import entmax

__all__ = [
    "alignment_gap",
    "entmax_loss",
    "fenchel_young_loss",
    "noisy_softmax_loss",
    "sparse_softmax_loss",
    "sparsemax_loss",
]


# --- Fenchel-Young losses ---------------------------------------------------------------------


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
    p = entmax(z, alpha=alpha)
    return z.logsumexp(1) if alpha == 1 else _Conjugate.apply(z, p, alpha)


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

    Pitfall: predict with :func:`~lossbook.classification.softmax.maps.entmax` of the same alpha; the
    softmax of scores trained so is too unsure.

    Example:
        >>> entmax_loss(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))  # leads by 2
        tensor(0.)
    """
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

    with S the scores above the threshold :math:`\tau` of the
    :func:`~lossbook.classification.softmax.maps.sparsemax`. With two classes and
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


def sparse_softmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    k: int = 10,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The loss of sparse-softmax: cross-entropy against the k largest scores alone.

    .. math:: L(z, y) = \log \sum_{j \in \Omega_k} e^{z_j} - z_y

    with :math:`\Omega_k` the classes of the k largest scores. Cross-entropy for k at least C, the
    perceptron's loss for k = 1, convex for all: log-sum-exp of the k largest is the largest of the
    log-sum-exps of k scores. A label that is not among the k largest still counts, linearly, with
    the slope -1 that pulls it up.

    The rule and k = 10 were checked against an earlier training script of one of the authors (Su's
    SPACES), not against the paper.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        k: at least 1.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced; at least 0. A label
        that leads its k - 1 runners-up by g each has :math:`\log(1 + (k - 1) e^{-g})`.

    Raises:
        ValueError: on shapes or labels out of range, or a k below 1.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``sun2021sparsesoftmax``.

    Pitfall: classes beyond the k-th are never pushed down. That is the point with a trained network
    and thousands of classes; from scratch, it is slow.

    Example:
        >>> logits = torch.zeros(1, 1000)
        >>> [round(float(sparse_softmax_loss(logits, torch.tensor([0]), k=k)), 2) for k in (2, 1000)]
        [0.69, 6.91]
    """
    require(k >= 1, "k", k, "at least 1")
    return fenchel_young_loss(
        logits,
        target,
        conjugate=lambda z: z.topk(min(k, z.shape[1]), 1).values.logsumexp(1),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


# --- Noisy softmax ----------------------------------------------------------------------------


def alignment_gap(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    r"""How far each logit is below what it would be if embedding and class vector were aligned.

    .. math:: \|w_k\| \|h\| - w_k \cdot h = \|w_k\| \|h\| (1 - \cos \theta_k)

    Args:
        embeddings: h, (N, d).
        prototypes: w, (C, d), the last layer's weights.

    Returns:
        Gaps (N, C), at least 0, in the dtype of the embeddings.

    Raises:
        ValueError: on shapes that do not fit.
        TypeError: on tensors that are not floating-point.

    Source: ``chen2017noisy``.

    Pitfall: it shrinks not only as directions align but as norms do; weight decay closes it too.

    Example:
        >>> alignment_gap(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        tensor([[0., 2.]])
    """
    h, w = _check_geometry(embeddings, prototypes)
    return restore(_gap(h, w), embeddings.dtype)


def _check_geometry(embeddings: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    h, w = check_scores(embeddings, "embeddings"), check_float(prototypes, "prototypes")
    require(h.ndim == 2, "the shape of embeddings", tuple(h.shape), "(N, d)")
    require(w.ndim == 2, "the shape of prototypes", tuple(w.shape), "(C, d)")
    require_shape(prototypes, (w.shape[0], h.shape[1]), "prototypes")
    return h, w.to(h.dtype)


def _gap(h: Tensor, w: Tensor) -> Tensor:
    return (h.norm(dim=1, keepdim=True) * w.norm(dim=1) - inner(h, w)).clamp(min=0)


def noisy_softmax_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    prototypes: Tensor,
    bias: Tensor | None = None,
    alpha: float = math.sqrt(0.1),
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Noisy softmax: cross-entropy with a random handicap for the label, that anneals itself.

    .. math:: L = -\log \frac{e^{z_y - n}}{e^{z_y - n} + \sum_{k \ne y} e^{z_k}}, \qquad
        n = \alpha \, \|w_y\| \|h\| (1 - \cos \theta_y) \, |\xi|, \quad \xi \sim N(0, 1)

    with :math:`z_k = w_k \cdot h + b_k`. The handicap never helps and is drawn anew for each
    example. It is added to the log-odds against the label, so that
    :math:`L = \log(1 + u_y e^n)`; where the label's direction is found it is gone.

    The noise was checked against a summary of the paper, which has good results at about 0.1; that
    this is :math:`\alpha^2` is from memory.

    Args:
        embeddings: h, (N, d), the input of the last layer.
        target: class indices (N,), int64, or probabilities (N, C).
        prototypes: w, (C, d), the last layer's weights.
        bias: b, (C,), by default 0; it does not count for the angle.
        alpha: at least 0; 0 is cross-entropy.
        noise: :math:`\xi`, (N,), or a scalar for all; by default drawn.
        generator: source of randomness; torch's own by default.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced; at least cross-entropy.

    Raises:
        ValueError: on shapes that do not fit, labels out of range, or a negative alpha.
        TypeError: on embeddings, prototypes or a target of the wrong dtype.

    Source: ``chen2017noisy``.

    Pitfall: for training only. Measure with cross-entropy, on both sides, or training looks worse
    than it is.

    Example:
        >>> h, w, y = torch.tensor([[1.0, 1.0]]), torch.eye(2), torch.tensor([0])
        >>> noise = torch.tensor([0.0, 1.0, -2.0])  # its sign is of no account
        >>> noisy_softmax_loss(
        ...     h.expand(3, 2), y.expand(3), prototypes=w, alpha=1, noise=noise, reduction="none"
        ... )
        tensor([0.6931, 0.9215, 1.1908])
    """
    h, w = _check_geometry(embeddings, prototypes)
    require(alpha >= 0, "alpha", alpha, "at least 0")
    z = inner(h, w)
    if bias is not None:
        require_shape(bias, (w.shape[0],), "bias")
        z = z + bias.to(z.dtype)
    if noise is None:
        noise = torch.randn(len(h), dtype=h.dtype, device=h.device, generator=generator)
    rows = (len(h),)
    require(noise.shape in ((), rows), "the shape of noise", tuple(noise.shape), f"() or {rows}")
    handicap = alpha * noise.to(z.dtype).abs().unsqueeze(-1) * _gap(h, w)
    log_odds_against = log_complement(z) - z.log_softmax(1)
    return expectation(
        -F.logsigmoid(-log_odds_against - handicap),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=embeddings.dtype,
    )
