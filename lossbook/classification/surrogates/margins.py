r"""Margin losses: functions of one margin, and their forms for several classes.

The 0-1 loss has no slope to follow, so one minimizes a function :math:`\phi` of the margin
:math:`m = y f(x)`, with :math:`y = \pm 1` here, and hopes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import (
    check_float,
    check_reduction,
    check_scores,
    check_target,
    expectation,
    is_concrete,
    promote,
    reduce,
    require,
    require_shape,
    restore,
)
from lossbook.classification.cross_entropy import _sum_of_others

__all__ = [
    "crammer_singer_loss",
    "exponential",
    "hinge",
    "lee_lin_wahba_loss",
    "logistic",
    "margin_loss",
    "multiclass_margin",
    "perceptron",
    "ramp",
    "squared",
    "squared_hinge",
    "weston_watkins_loss",
    "zero_one",
]


# --- Functions of the margin ------------------------------------------------------------------


def zero_one(margin: Tensor) -> Tensor:
    r"""The 0-1 loss; no margin is half an error, as if a coin were tossed.

    .. math:: \phi(m) = [m < 0] + \tfrac12 [m = 0]

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        0, 1/2 or 1, in the shape and dtype of the margin; its gradient is 0.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: a classifier whose scores are all 0 errs in half of all cases here, in none or all of
    them where ``>= 0`` decides.
    """
    m = check_float(margin, "margin")
    return restore(torch.where(m.isnan(), m, (1 - m.sign()) / 2), margin.dtype)  # nan has sign 0


def perceptron(margin: Tensor) -> Tensor:
    r"""The perceptron's loss: how far on the wrong side.

    .. math:: \phi(m) = \max(0, -m)

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        The loss, in the shape and dtype of the margin.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``rosenblatt1958perceptron``.

    Pitfall: the score 0 costs nothing, whatever the label. It is not calibrated, and a network may
    solve it by switching itself off.
    """
    return restore((-check_float(margin, "margin")).clamp(min=0), margin.dtype)


def hinge(margin: Tensor) -> Tensor:
    r"""The hinge loss: linear up to a margin of 1, then nothing.

    .. math:: \phi(m) = \max(0, 1 - m)

    Its best score is the sign of :math:`2 \eta - 1`: the decision, without how sure it is.

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        The loss, in the shape and dtype of the margin.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``cortes1995support``.

    Pitfall: scores are no log-odds, so that a sigmoid of them is no probability.

    Example:
        >>> hinge(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([2., 1., 0.])
    """
    return restore((1 - check_float(margin, "margin")).clamp(min=0), margin.dtype)


def squared_hinge(margin: Tensor) -> Tensor:
    r"""The squared hinge loss: smooth once, and its best score is :math:`2 \eta - 1`.

    .. math:: \phi(m) = \max(0, 1 - m)^2

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        The loss, in the shape and dtype of the margin.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: a wrong label far from the boundary pulls in proportion to its distance.
    """
    return restore((1 - check_float(margin, "margin")).clamp(min=0).square(), margin.dtype)


def squared(margin: Tensor) -> Tensor:
    r"""The squared loss: least squares on labels +-1.

    .. math:: \phi(m) = (1 - m)^2 = (y - f)^2

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        The loss, in the shape and dtype of the margin.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: too right is as bad as too wrong: a margin of 3 costs what -1 costs.
    """
    return restore((1 - check_float(margin, "margin")).square(), margin.dtype)


def logistic(margin: Tensor) -> Tensor:
    r"""The logistic loss: cross-entropy of two classes, in nats.

    .. math:: \phi(m) = \log(1 + e^{-m})

    Its best score is the log-odds :math:`\log \eta - \log(1 - \eta)`.

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        The loss, in the shape and dtype of the margin.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``friedman2000additive``.

    Pitfall: at margin 0 it is log 2, below 1: only over log 2, in bits, does it bound the 0-1 loss.
    """
    return restore(-F.logsigmoid(check_float(margin, "margin")), margin.dtype)


def _exp(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """The exponential; past the largest exponent that a gradient of this dtype bears, its tangent."""
    inside = exponent.clamp(max=0.8 * math.log(torch.finfo(dtype).max))
    return inside.exp() * (1 + exponent - inside)


def exponential(margin: Tensor) -> Tensor:
    r"""The exponential loss, which boosting minimizes.

    .. math:: \phi(m) = e^{-m}

    Its best score is half the log-odds.

    Args:
        margin: any shape, y f(x) with y = +-1.

    Returns:
        The loss, in the shape and dtype of the margin.

    Raises:
        TypeError: if margin is not floating-point.

    Source: ``friedman2000additive``.

    Pitfall: one wrong label can outweigh all other examples. Where the loss exceeds the dtype's
    largest number to the power 0.8 (7e30 in float32, 7e3 in float16) it goes on along its tangent.
    """
    return restore(_exp(-check_float(margin, "margin"), margin.dtype), margin.dtype)


def ramp(margin: Tensor, *, s: float = -1.0) -> Tensor:
    r"""The ramp loss: a hinge that gives up on examples whose margin is below s.

    .. math:: \phi(m) = \min(1 - s, \max(0, 1 - m))

    At s = -1, our default, :math:`\phi(m) + \phi(-m) = 2`: it is symmetric, so that flipping labels
    evenly moves no minimizer.

    Args:
        margin: any shape, y f(x) with y = +-1.
        s: below 1, the margin at which the loss stops to grow.

    Returns:
        The loss, in the shape and dtype of the margin, at most 1 - s.

    Raises:
        ValueError: if s is not below 1.
        TypeError: if margin is not floating-point.

    Source: ``collobert2006trading``.

    Pitfall: below s there is no gradient. Start from a solution of the hinge loss.
    """
    require(s < 1, "s", s, "below 1")
    m = check_float(margin, "margin")
    return restore((1 - m).clamp(min=0, max=1 - s), margin.dtype)


def _values(phi: Callable[[Tensor], Tensor], margin: Tensor) -> Tensor:
    """phi of the margins, which stay in the caller's dtype, as that limits what phi may return."""
    values = phi(margin)
    shape = tuple(margin.shape)
    require(values.shape == shape, "the shape of phi(margin)", tuple(values.shape), f"{shape}")
    return promote(values)


def _check_binary(target: Tensor, like: Tensor, name: str = "target") -> Tensor:
    """The target as numbers 0 and 1 in the dtype of the scores."""
    require_shape(target, like.shape, name)
    if is_concrete(target):
        require(bool(((target == 0) | (target == 1)).all()), name, target, "0 or 1")
    return target.to(like.dtype)


def margin_loss(
    scores: Tensor,
    target: Tensor,
    *,
    phi: Callable[[Tensor], Tensor] = hinge,
    reduction: str = "mean",
) -> Tensor:
    r"""Any function of the margin as a loss of two classes.

    .. math:: L = t \, \phi(f) + (1 - t) \, \phi(-f)

    which is :math:`\phi(y f)` for a target of 0 or 1 with :math:`y = 2 t - 1`, and the conditional
    risk for a soft one.

    Args:
        scores: (N, ...), real-valued scores f of class 1.
        target: the same shape, the probability t of class 1 in [0, 1], or labels 0 and 1.
        phi: maps margins to losses elementwise, as :func:`hinge` does; it sees the dtype of the scores.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the scores, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or targets out of range.
        TypeError: on scores that are not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: labels are 0 and 1, not -1 and +1.

    Example:
        >>> margin_loss(torch.tensor([2.0, -0.5]), torch.tensor([0, 1]), reduction="none")
        tensor([3.0000, 1.5000])
    """
    f = check_float(scores, "scores")
    check_reduction(reduction)
    require(f.ndim >= 1, "the shape of scores", tuple(f.shape), "(N, ...)")
    require_shape(target, f.shape, "target")
    if is_concrete(target):
        require(bool(((target >= 0) & (target <= 1)).all()), "target", target, "in [0, 1]")
    t = target.to(f.dtype)
    losses = t * _values(phi, scores) + (1 - t) * _values(phi, -scores)
    return reduce(losses, torch.ones_like(losses), reduction, scores.dtype)


# --- Several classes --------------------------------------------------------------------------


def multiclass_margin(logits: Tensor) -> Tensor:
    r"""How far each class leads the best of the others: its margin, were it the label.

    .. math:: m_k = z_k - \max_{j \ne k} z_j

    Args:
        logits: (N, C) or (N, C, d1, ...), C at least 2.

    Returns:
        The margins, in the shape and dtype of the logits; at most one class has a positive one.

    Raises:
        ValueError: on the shape of logits.
        TypeError: if logits are not floating-point.

    Source: ``crammer2001algorithmic``.

    Pitfall: where two classes tie at the top, the gradient goes to one of them.

    Example:
        >>> multiclass_margin(torch.tensor([[3.0, 1.0, 0.0]]))
        tensor([[ 2., -2., -3.]])
    """
    z = check_scores(logits)
    require(z.shape[1] >= 2, "the number of classes in logits", z.shape[1], "at least 2")
    top = z.topk(2, dim=1)
    first, second = top.values.split(1, dim=1)
    leads = torch.zeros_like(z, dtype=torch.bool).scatter(1, top.indices[:, :1], True)
    return restore(z - torch.where(leads, second, first), logits.dtype)


def crammer_singer_loss(
    logits: Tensor,
    target: Tensor,
    *,
    phi: Callable[[Tensor], Tensor] = hinge,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The multi-class hinge of Crammer and Singer: only the best rival counts.

    .. math:: L = \phi\Bigl( z_y - \max_{k \ne y} z_k \Bigr)

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        phi: maps margins to losses elementwise; the paper's is the :func:`hinge`.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced; 0 for a single class.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``crammer2001algorithmic``.

    Pitfall: with the hinge it is not calibrated. Where no class has more than half the probability,
    equal scores are a minimum, and which class leads is left to chance.

    Example:
        >>> float(crammer_singer_loss(torch.tensor([[1.0, 0.5, -3.0]]), torch.tensor([0])))
        0.5
    """
    z = check_scores(logits)
    losses = 0 * z if z.shape[1] == 1 else _values(phi, multiclass_margin(logits))
    return expectation(
        losses,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def weston_watkins_loss(
    logits: Tensor,
    target: Tensor,
    *,
    phi: Callable[[Tensor], Tensor] = hinge,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The multi-class hinge of Weston and Watkins: every rival counts.

    .. math:: L = \sum_{k \ne y} \phi(z_y - z_k)

    ``torch.nn.functional.multi_margin_loss`` is this with the hinge, over the number of classes. The
    paper's own hinge asks for a lead of 2 and is thus twice this one at half the logits.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        phi: maps margins to losses elementwise; the paper's is the :func:`hinge`.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``weston1999support``.

    Pitfall: with the hinge it is not calibrated, and its size grows with the number of classes. Soft
    targets need all C squared differences at once; labels need C.

    Example:
        >>> float(weston_watkins_loss(torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([0])))
        0.5
    """
    z = check_scores(logits)
    check_target(target, z.shape, ignore_index)
    classes = torch.arange(z.shape[1], device=z.device).reshape(1, -1, *[1] * (z.ndim - 2))
    label = classes if target.is_floating_point() else target.clamp(0, z.shape[1] - 1).unsqueeze(1)
    own = logits.gather(1, label.expand(z.shape[0], -1, *z.shape[2:]))
    values = _values(phi, own.unsqueeze(2) - logits.unsqueeze(1))  # labels against rivals
    losses = values.where(label.unsqueeze(2) != classes.unsqueeze(1), 0).sum(2)
    return expectation(
        losses.expand_as(z),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def lee_lin_wahba_loss(
    logits: Tensor,
    target: Tensor,
    *,
    phi: Callable[[Tensor], Tensor] = hinge,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The multi-class hinge of Lee, Lin and Wahba: the wrong classes shall be far below average.

    .. math:: L = \sum_{k \ne y} \phi(-f_k), \qquad f_k = z_k - \frac1C \sum_j z_j

    Scores that sum to zero are part of the definition; here the logits are centered, which says the
    same. The paper's hinge is :math:`\max(0, f_k + \frac1{C - 1})`: this one at :math:`C - 1` times
    the scores, over :math:`C - 1`. With it the loss is calibrated for every number of classes.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        phi: maps margins to losses elementwise; the paper's is the :func:`hinge`.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``lee2004multicategory``.

    Pitfall: the label's own score appears only through the mean. It is pushed up weakly when there
    are many classes, which trains slowly.

    Example:
        >>> float(lee_lin_wahba_loss(torch.tensor([[2.0, -1.0, -1.0]]), torch.tensor([0])))
        0.0
    """
    z = check_scores(logits)
    centered = (z - z.mean(1, keepdim=True)).to(logits.dtype)
    return expectation(
        _sum_of_others(_values(phi, -centered)),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )
