r"""Surrogates: what is minimized instead of the error rate, and what that says about the error rate.

The 0-1 loss has no slope to follow, so one minimizes a function :math:`\phi` of the margin
:math:`m = y f(x)`, with :math:`y = \pm 1` here, and hopes. The hope has a measure. Where one label has
the probability :math:`\eta`, a score :math:`f` costs

.. math:: C_\eta(f) = \eta \, \phi(f) + (1 - \eta) \, \phi(-f),

and :math:`\phi` is *calibrated* if the best score on the wrong side always costs more than the best
score of all. How much more, as a function of :math:`\theta = |2 \eta - 1|`, bounds what is lost in
errors by what is lost in the surrogate.
"""

import math
from collections.abc import Callable
from itertools import product

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
from lossbook.classification.cross_entropy import _sum_of_others, comp_sum_transform

__all__ = [
    "calibration_transform",
    "checkered_log_terms",
    "checkered_regression_loss",
    "conditional_risk",
    "coverage_at_precision",
    "crammer_singer_loss",
    "deep_ntk",
    "exponential",
    "grownet_loss",
    "hinge",
    "lee_lin_wahba_loss",
    "logistic",
    "logistic_excess_bound",
    "margin_loss",
    "margin_regret",
    "multiclass_margin",
    "naive_bayes_head",
    "newton_targets",
    "perceptron",
    "perceptron_step",
    "pointwise_regret",
    "polynomial_dual",
    "psi_bound",
    "psi_transform",
    "ramp",
    "rejection_beta",
    "rejection_cost",
    "rejection_loss",
    "rejection_minimizer",
    "relu_dual",
    "singular_kernel_scores",
    "singularity_exponent",
    "squared",
    "squared_hinge",
    "sum_log_concave_majorant",
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


# --- Calibration ------------------------------------------------------------------------------


def _check_probability(x: Tensor, name: str) -> Tensor:
    p = check_float(x, name)
    if is_concrete(p):
        require(bool(((p >= 0) & (p <= 1)).all()), name, x, "in [0, 1]")
    return p


def conditional_risk(scores: Tensor, eta: Tensor, *, phi: Callable[[Tensor], Tensor]) -> Tensor:
    r"""What a score costs on average where class 1 has the probability eta.

    .. math:: C_\eta(f) = \eta \, \phi(f) + (1 - \eta) \, \phi(-f)

    Args:
        scores: any shape, f.
        eta: in [0, 1], of a shape that broadcasts with the scores.
        phi: maps margins to losses elementwise.

    Returns:
        The risk, in the broadcast shape.

    Raises:
        ValueError: if eta is out of range.
        TypeError: if an argument is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: eta is the truth at a point, not the model's estimate of it.
    """
    f, p = check_float(scores, "scores"), _check_probability(eta, "eta")
    return p * phi(f) + (1 - p) * phi(-f)


def _least_risk(eta: Tensor, phi: Callable[[Tensor], Tensor], low: float, high: float) -> Tensor:
    """The smallest conditional risk over scores in [low, high], for every eta (E,) in float64.

    A grid finds the valley, thirds its bottom; phi may have several valleys, but none that is narrower
    than the grid.
    """
    scores = torch.linspace(low, high, 2001, dtype=eta.dtype, device=eta.device)
    least, where = conditional_risk(scores.unsqueeze(1), eta, phi=phi).min(0)
    step = (high - low) / 2000
    left, right = (scores[where] - step).clamp(min=low), (scores[where] + step).clamp(max=high)
    for _ in range(100):
        third = (right - left) / 3
        a, b = left + third, right - third
        lower = conditional_risk(a, eta, phi=phi) <= conditional_risk(b, eta, phi=phi)
        left, right = torch.where(lower, left, a), torch.where(lower, b, right)
    return torch.minimum(least, conditional_risk((left + right) / 2, eta, phi=phi))


def calibration_transform(
    theta: Tensor, *, phi: Callable[[Tensor], Tensor], bound: float = 50.0
) -> Tensor:
    r"""What a decision for the wrong side costs in the surrogate at least, found numerically.

    .. math:: \tilde\psi(\theta) = \inf_{-B \le f \le 0} C_\eta(f) - \inf_{|f| \le B} C_\eta(f),
        \qquad \eta = \frac{1 + \theta}2

    Positive for every :math:`\theta > 0` if and only if :math:`\phi` is calibrated. Scores up to a
    finite bound make it the transform of a hypothesis set: all functions into [-B, B], for which
    regrets count against the best of the set.

    Args:
        theta: any shape, in [0, 1], how far the probability is from a half, times 2.
        phi: maps margins to losses elementwise.
        bound: B, positive; the default is as good as no bound for the functions of this chapter.

    Returns:
        The transform, in the shape and dtype of theta; it carries no gradient.

    Raises:
        ValueError: if theta or bound is out of range.
        TypeError: if theta is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: over many points the bound holds for the largest convex function below it. For convex
    phi that is the transform itself, else (a :func:`ramp` with s = -0.5) it may not be.
    """
    t = _check_probability(theta, "theta").detach().double()
    require(bound > 0, "bound", bound, "positive")
    eta = (1 + t.reshape(-1)) / 2
    gap = _least_risk(eta, phi, -bound, 0.0) - _least_risk(eta, phi, -bound, bound)
    return restore(gap.clamp(min=0).reshape(t.shape), theta.dtype)


_PSI: dict[Callable[..., Tensor], Callable[[Tensor], Tensor]] = {
    perceptron: torch.zeros_like,
    hinge: torch.clone,
    ramp: torch.clone,
    squared: torch.square,
    squared_hinge: torch.square,
    logistic: lambda t: comp_sum_transform(t, tau=1),
    exponential: lambda t: t.square() / (1 + (1 - t.square()).sqrt()),
}


def psi_transform(theta: Tensor, *, phi: Callable[..., Tensor]) -> Tensor:
    r"""The calibration transform in closed form: psi(0-1 regret) <= surrogate regret.

    .. math:: \psi(\theta) = \begin{cases}
        0 & \text{perceptron} \\
        \theta & \text{hinge, ramp with } s = -1 \\
        \theta^2 & \text{squared, squared hinge} \\
        \frac{1 + \theta}2 \log(1 + \theta) + \frac{1 - \theta}2 \log(1 - \theta)
            & \text{logistic} \\
        1 - \sqrt{1 - \theta^2} & \text{exponential}
        \end{cases}

    For all scores without a bound. Convex, so that by Jensen's inequality the bound that holds at a
    point holds on average.

    Args:
        theta: any shape, in [0, 1].
        phi: one of the functions of the margin in this module, by itself, but for :func:`zero_one`.

    Returns:
        psi(theta), in the shape and dtype of theta.

    Raises:
        ValueError: if theta is out of range or there is no closed form for phi.
        TypeError: if theta is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: a steep transform is no quality: twice a loss has twice the transform. Compare at losses
    of one scale.

    Example:
        >>> psi_transform(torch.tensor([0.0, 0.6, 1.0]), phi=exponential)
        tensor([0.0000, 0.2000, 1.0000])
    """
    t = _check_probability(theta, "theta")
    known = ", ".join(function.__name__ for function in _PSI)
    require(phi in _PSI, "phi", phi, f"one of {known}")
    return restore(_PSI[phi](t), theta.dtype)


def psi_bound(excess: Tensor, *, phi: Callable[..., Tensor]) -> Tensor:
    r"""The largest 0-1 regret that a surrogate regret allows: inverts :func:`psi_transform`.

    .. math:: R_{01}(f) - R_{01}^* \le \max \{\theta \in [0, 1] : \psi(\theta) \le R_\phi(f) - R_\phi^*\}

    Args:
        excess: any shape, surrogate regret, at least 0.
        phi: as in :func:`psi_transform`.

    Returns:
        The bound in [0, 1], in the shape and dtype of excess; it carries no gradient.

    Raises:
        ValueError: if excess is negative or there is no closed form for phi.
        TypeError: if excess is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: both regrets are against the best of all functions. A linear model on curved data has a
    surrogate regret that no training removes, and the bound keeps it.
    """
    t = check_float(excess, "excess").detach()
    if is_concrete(t):
        require(bool((t >= 0).all()), "excess", excess, "at least 0")
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(60):  # bisection: more halvings than float64 has digits
        middle = (low + high) / 2
        below = psi_transform(middle, phi=phi) <= t
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return restore(high, excess.dtype)


def margin_regret(
    scores: Tensor,
    eta: Tensor,
    marginal: Tensor,
    *,
    phi: Callable[[Tensor], Tensor],
    bound: float = 50.0,
) -> Tensor:
    r"""How much more a classifier costs than the best, exactly, on a distribution over X points.

    .. math:: \sum_x p(x) \Bigl[ C_{\eta(x)}(f(x)) - \inf_{|g| \le B} C_{\eta(x)}(g) \Bigr]

    With :func:`zero_one` it is the regret in errors, with another function that of a surrogate: the
    two sides of the bound that :func:`psi_transform` states.

    Args:
        scores: (X,), f at every point, within the bound.
        eta: (X,), in [0, 1], probability of class 1 at every point.
        marginal: (X,), probabilities of the points.
        phi: maps margins to losses elementwise.
        bound: B, positive; the default is as good as no bound for the functions of this chapter.

    Returns:
        The regret, a non-negative scalar in the dtype of the scores.

    Raises:
        ValueError: on shapes, an eta out of range, or scores beyond the bound.
        TypeError: if an argument is not floating-point.

    Source: ``bartlett2006convexity``.

    Pitfall: the best is chosen at each point by itself. Against the best of a smaller set of functions
    there is a gap besides: see :func:`pointwise_regret`.
    """
    f, p = check_float(scores, "scores").double(), _check_probability(eta, "eta").double()
    weights = check_float(marginal, "marginal").double()
    require(f.ndim == 1, "the shape of scores", tuple(f.shape), "(X,)")
    require_shape(eta, f.shape, "eta")
    require_shape(marginal, f.shape, "marginal")
    require(bound > 0, "bound", bound, "positive")
    if is_concrete(f):
        require(bool((f.abs() <= bound).all()), "scores", scores, f"within +-{bound}")
    regret = conditional_risk(f, p, phi=phi) - _least_risk(p, phi, -bound, bound)
    return restore((weights * regret.clamp(min=0)).sum(), scores.dtype)


def pointwise_regret(losses: Tensor, conditional: Tensor, marginal: Tensor) -> Tensor:
    r"""How much more each hypothesis costs than a choice of hypothesis at every point.

    .. math:: R(h) - R^*_H + M_H = \mathbb{E}_x \bigl[ C(h, x) - \inf_{g \in H} C(g, x) \bigr],
        \qquad C(h, x) = \sum_y p(y \mid x) L(h, x, y)

    A bound of H-consistency compares this number for the 0-1 loss with that for a surrogate. Its
    smallest entry is the minimizability gap M, ``minimizability_gap``, and what is above that the
    regret within H.

    Args:
        losses: (H, X, C), loss of hypothesis h at point x under label y.
        conditional: (X, C), probabilities of the labels at each point.
        marginal: (X,), probabilities of the points.

    Returns:
        (H,), non-negative, in the dtype of the losses.

    Raises:
        ValueError: if the shapes do not fit each other.
        TypeError: if an argument is not floating-point.

    Source: ``mao2023crossentropy``.

    Pitfall: the bound needs a set in which, at every point, every class can lead; a few hypotheses
    seldom are one.
    """
    values = check_float(losses, "losses")
    require(values.ndim == 3, "the shape of losses", tuple(values.shape), "(H, X, C)")
    require_shape(conditional, values.shape[1:], "conditional")
    require_shape(marginal, values.shape[1:2], "marginal")
    risk = (values * check_float(conditional, "conditional")).sum(2)
    return restore((risk - risk.amin(0)) @ check_float(marginal, "marginal"), losses.dtype)


def logistic_excess_bound(excess: Tensor) -> Tensor:
    r"""A 0-1 regret that a regret in cross-entropy allows, by its square root.

    .. math:: R_{01}(h) - R_{01}^* + M_{01} \le \sqrt{2 \, (R_{\log}(h) - R_{\log}^* + M_{\log})}

    for any number of classes. It follows from :math:`\psi(\theta) \ge \theta^2 / 2`; the sharp bound
    is ``comp_sum_bound`` at tau = 1. The paper's abstract announces an explicit bound for the
    logistic loss; its constant was not checked, this one is derived.

    Args:
        excess: any shape, regret in nats, minimizability gap included, at least 0.

    Returns:
        The bound, at most 1, in the shape and dtype of excess; it carries no gradient.

    Raises:
        ValueError: if excess is negative.
        TypeError: if excess is not floating-point.

    Source: ``zheng2023revisiting``.

    Pitfall: it says nothing from half a nat of regret on.

    Example:
        >>> logistic_excess_bound(torch.tensor([0.0, 0.02, 3.0]))
        tensor([0.0000, 0.2000, 1.0000])
    """
    t = check_float(excess, "excess").detach()
    if is_concrete(t):
        require(bool((t >= 0).all()), "excess", excess, "at least 0")
    return restore((2 * t).sqrt().clamp(max=1), excess.dtype)


# --- Rejection with a fixed predictor ---------------------------------------------------------


def _check_cost(cost: float, alpha: float) -> None:
    require(0 < cost < 1, "cost", cost, "in (0, 1)")
    require(alpha > 0, "alpha", alpha, "positive")


def rejection_cost(rejector: Tensor, target: Tensor, *, cost: float = 0.05) -> Tensor:
    r"""What accepting and rejecting really cost: 1 for a wrong answer, c for none.

    .. math:: [a = -1] \, [r > 0] + c \, [r \le 0]

    Args:
        rejector: (N,), its scores r; an answer is given where they are positive.
        target: (N,), 1 where the predictor is right (a = +1), 0 where it is wrong.
        cost: c, in (0, 1).

    Returns:
        (N,), in the dtype of the rejector's scores, without a gradient.

    Raises:
        ValueError: on shapes, targets other than 0 and 1, or a cost out of range.
        TypeError: on scores that are not floating-point.

    Source: ``mohri2023learning``.

    Pitfall: it is best to answer where the predictor errs with a probability below c. So c is the price
    of silence and not the error rate of the answers, which comes out lower.
    """
    r = check_float(rejector, "rejector")
    _check_cost(cost, 1.0)
    right = _check_binary(target, r)
    return restore(torch.where(r > 0, 1 - right, cost), rejector.dtype)


def rejection_beta(cost: float, *, alpha: float = 2.0) -> float:
    r"""The beta at which the surrogate's best score changes sign where the best decision changes.

    .. math:: \beta = \frac{\alpha}{2 c} \bigl[ (1 - c) e^{-\alpha / 2} + c \, e^{\alpha / 2} \bigr]

    Args:
        cost: c, in (0, 1).
        alpha: positive.

    Returns:
        beta, a number.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``mohri2023learning``.

    Pitfall: it is large when rejecting is cheap: 9.7 for a cost of 0.05, and rejected examples
    then pull that much harder.

    Example:
        >>> round(rejection_beta(0.05), 2)
        9.71
    """
    _check_cost(cost, alpha)
    half = alpha / 2
    return half / cost * ((1 - cost) * math.exp(-half) + cost * math.exp(half))


def rejection_minimizer(probability: Tensor, *, cost: float = 0.05, alpha: float = 2.0) -> Tensor:
    r"""The score that minimizes the rejection surrogate where the predictor is right with this chance.

    .. math:: r^*(p) = \frac{1}{\alpha / 2 + \beta} \log \frac{I(1 - c)}{I(p)}, \qquad
        I(p) = p \, e^{-\alpha / 2} + (1 - p) \, e^{\alpha / 2}

    with the beta of :func:`rejection_beta`. I falls in p, so that the score is positive exactly where
    p is above 1 - c. Derived here from the loss.

    Args:
        probability: any shape, p in [0, 1].
        cost: c, in (0, 1).
        alpha: positive.

    Returns:
        The score, in the shape and dtype of the probability.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if probability is not floating-point.

    Source: ``mohri2023learning``.

    Pitfall: scores span little: at the defaults from -0.16 to 0.03. Their sign is the result, their size
    no confidence.

    Example:
        >>> torch.allclose(rejection_minimizer(torch.tensor(0.95)), torch.tensor(0.0), atol=1e-7)
        True
    """
    p = _check_probability(probability, "probability")
    beta, half = rejection_beta(cost, alpha=alpha), alpha / 2
    cut = (1 - cost) * math.exp(-half) + cost * math.exp(half)
    mean = p * math.exp(-half) + (1 - p) * math.exp(half)
    return restore((math.log(cut) - mean.log()) / (half + beta), probability.dtype)


def rejection_loss(
    rejector: Tensor,
    target: Tensor,
    *,
    cost: float = 0.05,
    alpha: float = 2.0,
    beta: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Learns when not to trust a predictor that is left as it is.

    .. math:: L = e^{\frac\alpha2 (r - a)} + c \, e^{-\beta r}

    a is +1 where the predictor is right and -1 where it is wrong. Convex in r and above the
    :func:`rejection_cost`; with the beta of :func:`rejection_beta` its best score is positive exactly
    where the predictor is right with a probability above 1 - c, so that 0 is the threshold. The paper
    was not at hand: the rule for beta is from a figure's caption as it is quoted elsewhere, it was
    derived again, and the form of the loss is the one that it fits.

    Args:
        rejector: (N,), its scores r; an answer is given where they are positive.
        target: (N,), 1 where the predictor is right, 0 where it is wrong.
        cost: c, in (0, 1), what it costs to reject; 0.05 as in that figure.
        alpha: positive; 2 as in that figure.
        beta: positive; by default that of :func:`rejection_beta`.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the rejector's scores, or (N,) unreduced.

    Raises:
        ValueError: on shapes, targets other than 0 and 1, or a hyperparameter out of range.
        TypeError: on scores that are not floating-point.

    Source: ``mohri2023learning``.

    Pitfall: take the targets from data that the predictor was not trained on; on its training data it
    is right too often. Exponentials go on along their tangents where they exceed the dtype's largest
    number to the power 0.8.

    Example:
        >>> round(float(rejection_loss(torch.tensor([0.0]), torch.tensor([1]))), 4)
        0.4179
    """
    r = check_float(rejector, "rejector")
    check_reduction(reduction)
    require(r.ndim == 1, "the shape of rejector", tuple(r.shape), "(N,)")
    _check_cost(cost, alpha)
    require(beta is None or beta > 0, "beta", beta, "positive")
    beta = rejection_beta(cost, alpha=alpha) if beta is None else beta
    sign = 2 * _check_binary(target, r) - 1
    wrong = _exp(alpha / 2 * (r - sign), rejector.dtype)
    losses = wrong + cost * _exp(-beta * r, rejector.dtype)
    return reduce(losses, torch.ones_like(losses), reduction, rejector.dtype)


def coverage_at_precision(scores: Tensor, correct: Tensor, *, precision: float) -> Tensor:
    r"""The largest share of answers that can be given at a precision.

    .. math:: \max_\tau \, \frac1N \sum_i [s_i \ge \tau] \quad \text{such that} \quad
        \sum_i [s_i \ge \tau] \, a_i \ge \text{precision} \cdot \sum_i [s_i \ge \tau]

    Args:
        scores: (N,), in which higher means more trust; equal scores are accepted together.
        correct: (N,), 1 where the predictor is right, 0 where it is wrong.
        precision: in [0, 1].

    Returns:
        The coverage, a float64 scalar; 0 if no threshold has the precision.

    Raises:
        ValueError: on shapes or a precision out of range.
        TypeError: on scores that are not floating-point.

    Pitfall: the threshold is chosen on the data that it is judged on. For an honest number choose it on
    other data.

    Example:
        >>> scores, correct = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([1, 0, 1, 0])
        >>> float(coverage_at_precision(scores, correct, precision=0.6))
        0.75
    """
    s = check_float(scores, "scores")
    require(s.ndim == 1 and s.numel() > 0, "the shape of scores", tuple(s.shape), "(N,), N > 0")
    require(0 <= precision <= 1, "precision", precision, "in [0, 1]")
    right = _check_binary(correct, s, "correct").double()
    ordered, order = s.sort(descending=True)
    accepted = torch.arange(1, len(s) + 1, device=s.device, dtype=torch.float64)
    last = torch.cat([ordered[1:] != ordered[:-1], torch.ones_like(ordered[:1], dtype=torch.bool)])
    enough = last & (right[order].cumsum(0) / accepted >= precision)
    return (accepted * enough).amax() / len(s)


# --- Generative against discriminative --------------------------------------------------------


def naive_bayes_head(
    embeddings: Tensor, labels: Tensor, *, classes: int, epsilon: float = 1e-9
) -> tuple[Tensor, Tensor]:
    r"""A linear classifier in closed form: Gaussian naive Bayes with variances that all classes share.

    .. math:: z_k(x) = \log \pi_k - \sum_d \frac{(x_d - \mu_{kd})^2}{2 s_d^2} + \text{const}(x)
        = w_k \cdot x + b_k

    with the class means, :math:`s_d^2 = \sum_k \pi_k s_{kd}^2` and frequencies :math:`\pi`. The square
    of x cancels between classes, and so does what their overall mean c contributes: here
    :math:`w_k = (\mu_k - c) / s^2`, which keeps digits where features are far from 0.

    Args:
        embeddings: (N, D).
        labels: (N,), class indices, int64.
        classes: number C of classes, at least 1.
        epsilon: positive, is added to the variances; 1e-9 as in the authors' code.

    Returns:
        Weight (C, D) and bias (C,), so that ``x @ weight.T + bias`` are logits, and log posteriors
        after a log-softmax. A class without examples has bias minus infinity.

    Raises:
        ValueError: on shapes, labels or hyperparameters out of range.
        TypeError: on embeddings or labels of the wrong dtype.

    Source: ``zheng2023revisiting``.

    Pitfall: features that say the same count as often as they are there, which makes the posteriors
    far too sure; the decision suffers less.

    Example:
        >>> x, y = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])
        >>> weight, bias = naive_bayes_head(x, y, classes=2)
        >>> (weight[1] - weight[0], bias[1] - bias[0])  # means 1 and 5, variance 1
        (tensor([4.]), tensor(-12.))
    """
    x = check_float(embeddings, "embeddings")
    require(x.ndim == 2, "the shape of embeddings", tuple(x.shape), "(N, D)")
    require(classes >= 1, "classes", classes, "at least 1")
    require(epsilon > 0, "epsilon", epsilon, "positive")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {getattr(labels, 'dtype', type(labels))}")
    require_shape(labels, x.shape[:1], "labels")
    if is_concrete(labels):
        known = bool(((labels >= 0) & (labels < classes)).all())
        require(known, "labels", labels, f"classes 0 to {classes - 1}")
    member = F.one_hot(labels, classes).to(x.dtype)  # (N, C)
    counts, center = member.sum(0), x.mean(0)
    means = member.T @ (x - center) / counts.clamp(min=1).unsqueeze(1)
    variance = (x - center - means[labels]).square().mean(0) + epsilon
    weight = means / variance
    bias = (counts / len(x)).log() - (weight * (means / 2 + center)).sum(1)
    return restore(weight, embeddings.dtype), restore(bias, embeddings.dtype)


# --- Infinitely wide and deep -----------------------------------------------------------------


def relu_dual(cosines: Tensor) -> tuple[Tensor, Tensor]:
    r"""The dual of the ReLU, scaled to be 1 at 1, and its slope.

    .. math:: \check\phi(\xi) = \frac{\xi \, (\pi - \arccos \xi) + \sqrt{1 - \xi^2}}{\pi}, \qquad
        \check\phi'(\xi) = \frac{\pi - \arccos \xi}{\pi}

    Args:
        cosines: any shape, in [-1, 1].

    Returns:
        Value and slope, in the shape of the cosines.

    Raises:
        TypeError: if cosines are not floating-point.

    Source: ``cho2009kernel``.

    Pitfall: it maps 0 to :math:`1 / \pi`, so that layer after layer all points come together; but
    slowly, :math:`1 - \xi` falls like one over the depth squared.
    """
    xi = check_float(cosines, "cosines").clamp(-1, 1)
    slope = 1 - xi.acos() / math.pi
    return xi * slope + (1 - xi.square()).sqrt() / math.pi, slope


def polynomial_dual(cosines: Tensor, *, coefficients: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    r"""The dual of a sum of Hermite polynomials, and its slope.

    .. math:: \check\phi(\xi) = \sum_k a_k \xi^k, \qquad a_k \ge 0, \; \sum_k a_k = 1

    is the dual of the activation :math:`\sum_k \sqrt{a_k} \, h_k` with the Hermite polynomials that are
    orthonormal under the normal distribution. The authors' code has
    :math:`(\xi + \xi^7) / 2` for the circle and :math:`(\xi + \xi^3) / 2` for the sphere in three
    dimensions.

    Args:
        cosines: any shape, in [-1, 1].
        coefficients: :math:`a_0, a_1, \dots`, at least 0, summing to 1.

    Returns:
        Value and slope, in the shape of the cosines.

    Raises:
        ValueError: on coefficients that are negative or do not sum to 1.
        TypeError: if cosines are not floating-point.

    Source: ``radhakrishnan2022wide``.

    Pitfall: :math:`a_0 = 0` alone keeps orthogonal inputs apart in great depth. And an odd dual sets
    antipodes against each other: there one's label counts for the other with its sign turned.
    """
    xi = check_float(cosines, "cosines").clamp(-1, 1)
    fair = min(coefficients, default=-1) >= 0 and abs(sum(coefficients) - 1) < 1e-6
    require(fair, "coefficients", coefficients, "at least 0 and of sum 1")
    value, slope = torch.zeros_like(xi), torch.zeros_like(xi)
    for a in reversed(coefficients):  # Horner, and the same for the derivative
        value, slope = value * xi + a, slope * xi + value
    return value, slope


def deep_ntk(
    cosines: Tensor, *, dual: Callable[[Tensor], tuple[Tensor, Tensor]], depth: int
) -> Tensor:
    r"""The neural tangent kernel of a deep network of infinite width, for inputs of length 1.

    .. math:: \Sigma_{l + 1} = \check\phi(\Sigma_l), \qquad
        K_{l + 1} = \Sigma_{l + 1} + K_l \, \check\phi'(\Sigma_l), \qquad
        \Sigma_0 = K_0 = x \cdot x'

    A network trained to the end predicts :math:`k(x)^\top K^{-1} y`; in great depth the diagonal of K
    may dwarf the rest, and the decision is then the sign of :math:`\sum_i k(x, x_i) \, y_i`.

    Args:
        cosines: any shape, inner products of unit vectors.
        dual: gives value and slope of the dual activation, as :func:`relu_dual` does.
        depth: number of layers, at least 0.

    Returns:
        The kernel, in the shape of the cosines and their dtype, half precision promoted.

    Raises:
        ValueError: if depth is negative.
        TypeError: if cosines are not floating-point.

    Source: ``radhakrishnan2022wide``.

    Pitfall: entries grow or shrink like powers of the slopes at 1 and 0: in float32 some thirty layers
    can be too many, float64 bears 200.
    """
    kernel = sigma = check_float(cosines, "cosines")
    require(depth >= 0, "depth", depth, "at least 0")
    for _ in range(depth):
        sigma, slope = dual(sigma)
        kernel = sigma + kernel * slope
    return kernel


def singularity_exponent(slope_at_zero: float, slope_at_one: float) -> float:
    r"""How strongly the limiting kernel of a deep network blows up where two inputs meet.

    .. math:: K_L(x, x') / K_L(x, x_0) \to \frac{h(x, x')}{h(x, x_0)}, \quad
        h \sim \|x - x'\|^{-\alpha}, \qquad
        \alpha = -2 \, \frac{\log \check\phi'(0)}{\log \check\phi'(1)}

    for a dual activation with :math:`\check\phi(0) = 0`, up to a factor that stays bounded. Derived here:
    :math:`h \circ \check\phi = \check\phi'(0) \, h`, and near 1 a layer multiplies :math:`1 - \xi` by
    :math:`\check\phi'(1)`. It gives the dimension of the sphere, 1, 2, 4 and 8, for the four activations
    that the authors' code calls optimal.

    Args:
        slope_at_zero: :math:`\check\phi'(0)`, in (0, 1); at 0 the limit is the nearest neighbor.
        slope_at_one: :math:`\check\phi'(1)`, above 1.

    Returns:
        The exponent alpha, for :func:`singular_kernel_scores`.

    Raises:
        ValueError: if a slope is out of range.

    Source: ``radhakrishnan2022wide``.

    Pitfall: the limit comes slowly. Points with a cosine nearer to 1 than about 1 / L still see
    :math:`\alpha + 2` at depth L, for a layer also multiplies K by its slope there. And it says
    nothing of duals with :math:`\check\phi(0) > 0`, such as the ReLU's, which forget where an input
    lies.

    Example:
        >>> singularity_exponent(0.5, 4.0)  # (x + x ** 7) / 2
        1.0
    """
    require(0 < slope_at_zero < 1, "slope_at_zero", slope_at_zero, "in (0, 1)")
    require(slope_at_one > 1, "slope_at_one", slope_at_one, "above 1")
    return -2 * math.log(slope_at_zero) / math.log(slope_at_one)


def singular_kernel_scores(
    inputs: Tensor, points: Tensor, values: Tensor, *, alpha: float
) -> Tensor:
    r"""Averages the values of all points, weighed by a power of the distance that is infinite at 0.

    .. math:: f(x) = \frac{\sum_i \|x - x_i\|^{-\alpha} \, y_i}{\sum_i \|x - x_i\|^{-\alpha}}

    It passes through every point, and with alpha equal to the dimension (of the sphere, for points on
    one) its sign is consistent: as data grow it errs as seldom as possible. It is the mean of all
    values for alpha = 0 and the nearest neighbor's value as alpha grows.

    Args:
        inputs: (N, D).
        points: (P, D), P at least 1.
        values: (P,), say labels +-1, or (P, C), say one-hot labels.
        alpha: at least 0.

    Returns:
        (N,) or (N, C), in the dtype of the inputs.

    Raises:
        ValueError: on shapes or a negative alpha.
        TypeError: if an argument is not floating-point.

    Source: ``devroye1998hilbert``.

    Pitfall: consistent does not mean fast. At alpha equal to the dimension weights fall like 1 over
    the rank, so that the nearest point alone, noise and all, keeps a share of about 1 / log P.

    Example:
        >>> points, values = torch.tensor([[0.0], [3.0]]), torch.tensor([1.0, -1.0])
        >>> singular_kernel_scores(torch.tensor([[1.0], [3.0]]), points, values, alpha=1)
        tensor([ 0.3333, -1.0000])
    """
    x, centers = check_float(inputs, "inputs"), check_float(points, "points")
    y = check_float(values, "values")
    require(x.ndim == 2, "the shape of inputs", tuple(x.shape), "(N, D)")
    require(centers.ndim == 2, "the shape of points", tuple(centers.shape), "(P, D)")
    require_shape(centers, (centers.shape[0], x.shape[1]), "points")
    require(len(centers) >= 1, "the number of points", len(centers), "at least 1")
    fits = y.ndim in (1, 2) and y.shape[0] == centers.shape[0]
    require(
        fits, "the shape of values", tuple(y.shape), f"({len(centers)},) or ({len(centers)}, C)"
    )
    require(alpha >= 0, "alpha", alpha, "at least 0")
    # By logarithms, as powers of small distances overflow; at distance 0 the tiniest number does.
    distance = torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist")
    log_distance = distance.clamp(min=torch.finfo(x.dtype).tiny).log()
    return restore((-alpha * log_distance).softmax(1) @ y, inputs.dtype)


# --- Boosting by second derivatives -----------------------------------------------------------


def newton_targets(scores: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    r"""What the next learner of a boosted ensemble is to fit, and how much each example counts.

    .. math:: t_i = -\frac{g_i}{h_i}, \qquad g_i = \ell'(F_i), \quad h_i = \ell''(F_i)

    The learner minimizes :math:`\sum_i h_i (f(x_i) - t_i)^2`: a Newton step in function space. For the
    logistic loss these are the authors' :math:`t = y (1 + e^{-y F})` and
    :math:`h = 1 / ((1 + e^{y F})(1 + e^{-y F}))`.

    Args:
        scores: (N,), those of the ensemble so far, F.
        loss: maps scores (N,) to the losses (N,) of the examples, one by one, twice differentiably.

    Returns:
        Targets t and weights h, each (N,), in the dtype of the scores.

    Raises:
        ValueError: if the loss returns another shape.
        TypeError: on scores that are not floating-point.

    Source: ``badirli2020gradient``.

    Pitfall: where an example is badly wrong, h vanishes and t is infinite: use
    :func:`grownet_loss`, the same step without the division.

    Example:
        >>> newton_targets(torch.zeros(1), logistic)  # all of class 1
        (tensor([2.]), tensor([0.2500]))
    """
    f = check_float(scores, "scores")
    shape = tuple(f.shape)
    value_shape = tuple(loss(f).shape)
    require(value_shape == shape, "the shape of loss(scores)", value_shape, f"{shape}")

    def slopes(s: Tensor) -> Tensor:
        return torch.func.grad(lambda s: loss(s).sum())(s)

    g, h = slopes(f), torch.func.grad(lambda s: slopes(s).sum())(f)
    return restore(-g / h, scores.dtype), restore(h, scores.dtype)


def grownet_loss(
    step: Tensor, scores: Tensor, target: Tensor, *, reduction: str = "mean"
) -> Tensor:
    r"""The logistic loss after one more learner, to second order: what GrowNet fits a learner by.

    .. math:: L = \ell(F) + g f + \tfrac12 h f^2 = \tfrac12 h \Bigl( f + \frac gh \Bigr)^2 + \text{const},
        \qquad g = p - t, \quad h = p (1 - p), \quad p = \sigma(F)

    Half of the authors' weighted squares, up to a constant in f, and finite where their targets
    -g/h are not. Constant in the scores it is not: detach them, as earlier learners stand still while
    a new one is fitted.

    Args:
        step: (N,), what the new learner adds, its boost rate included: f.
        scores: (N,), those of the ensemble so far, F.
        target: (N,), 0 or 1.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the step, or (N,) unreduced.

    Raises:
        ValueError: on shapes or targets other than 0 and 1.
        TypeError: on a step or scores that are not floating-point.

    Source: ``badirli2020gradient``.

    Pitfall: where scores are sure, the curvature is next to nothing and a step costs nothing more to
    second order. Bound the steps: by the boost rate, weight decay, few epochs.
    """
    f, score = check_float(step, "step"), check_float(scores, "scores")
    check_reduction(reduction)
    require(f.ndim == 1, "the shape of step", tuple(f.shape), "(N,)")
    require_shape(scores, f.shape, "scores")
    t = _check_binary(target, f)
    p = score.sigmoid()
    curvature = p * (-score).sigmoid()
    losses = -F.logsigmoid((2 * t - 1) * score) + (p - t) * f + curvature * f.square() / 2
    return reduce(losses, torch.ones_like(losses), reduction, step.dtype)


# --- From logistic regression to the perceptron -----------------------------------------------


def perceptron_step(
    weight: Tensor,
    inputs: Tensor,
    target: Tensor,
    *,
    gamma: float = math.inf,
    normalize: bool = False,
) -> Tensor:
    r"""A step of gradient descent on logistic regression, seen at the scale of its step size.

    .. math:: w \leftarrow w + \frac1N \sum_i c_i \, y_i x_i, \qquad
        c_i = \sigma(-\gamma \, y_i \, w \cdot x_i)

    With :math:`\theta = \gamma w` this is :math:`\theta \leftarrow \theta - \gamma \nabla L(\theta)`. As
    the step size grows, :math:`c_i` becomes the 0-1 loss of the example and the method the batch
    perceptron. Normalized, the c are divided by their mean, so that they sum to N: then it separates
    the data within :math:`R^2 / \mu^2 + 2 \log(2 N - 1) / (\gamma \mu^2)` steps from 0 (radius R,
    margin :math:`\mu`), where the batch perceptron may need N times as many.

    Args:
        weight: (D,), the parameters over the step size: w.
        inputs: (N, D), with a column of ones if there is to be an intercept.
        target: (N,), 0 or 1, with y = 2 t - 1.
        gamma: step size, positive; infinite, the default, for the perceptron.
        normalize: whether to divide by the mean of c.

    Returns:
        The next w, (D,).

    Raises:
        ValueError: on shapes, targets other than 0 and 1, or a gamma that is not positive.
        TypeError: on weight or inputs that are not floating-point.

    Source: ``tyurin2024logistic``.

    Pitfall: an example on the boundary counts one half, as in the limit of the sigmoid; the paper's batch
    perceptron counts it in full from the second step on. Almost no data are ever there but at the
    start, w = 0.

    Example:
        >>> x, y = torch.tensor([[1.0, -1.0], [-1.0, -4.0]]), torch.tensor([1, 0])
        >>> w = perceptron_step(torch.zeros(2), x, y)
        >>> w, perceptron_step(w, x, y)  # the paper's example: separated by its second step
        (tensor([0.5000, 0.7500]), tensor([1.0000, 0.2500]))
    """
    w, x = check_float(weight, "weight"), check_float(inputs, "inputs")
    require(x.ndim == 2, "the shape of inputs", tuple(x.shape), "(N, D)")
    require_shape(weight, x.shape[1:], "weight")
    require(gamma > 0, "gamma", gamma, "positive")
    signed = (2 * _check_binary(target, x[:, 0]) - 1).unsqueeze(1) * x
    margin = signed @ w
    if gamma == math.inf:
        counts = zero_one(margin)
        shares = counts / counts.sum().clamp(min=0.5) if normalize else counts / len(x)
    elif normalize:  # by logarithms: far into the separated they all underflow
        shares = F.logsigmoid(-gamma * margin).softmax(0)
    else:
        shares = (-gamma * margin).sigmoid() / len(x)
    return restore(w + shares @ signed, weight.dtype)


# --- Sums of log-concave likelihoods ----------------------------------------------------------


def _check_planes(planes: Tensor, target: Tensor) -> Tensor:
    """Promoted scores of the planes (N, M), the first with the sign of the label."""
    z = check_float(planes, "planes")
    require(z.ndim == 2, "the shape of planes", tuple(z.shape), "(N, M)")
    require(z.shape[1] >= 1, "the number of planes", z.shape[1], "at least 1")
    sign = 2 * _check_binary(target, z[:, 0]) - 1
    return torch.cat([sign.unsqueeze(1) * z[:, :1], z[:, 1:]], 1)


def checkered_regression_loss(planes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Checkered regression: minus the log-likelihood of classes that alternate across M hyperplanes.

    .. math:: L = -\log P(y \mid x), \qquad
        P(1 \mid x) = \frac12 \Bigl( 1 + \prod_{m=1}^M \tanh \frac{z_m}2 \Bigr), \quad
        z_m = w_m \cdot x + b_m

    Toss a coin for every plane that shows +1 with probability :math:`\sigma(z_m)`: this is the chance
    that the product is +1. One plane is logistic regression, two solve XOR. Computed by following the
    parity plane by plane, in logarithms.

    Args:
        planes: (N, M), scores of the hyperplanes, z.
        target: (N,), 0 or 1.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the planes, or (N,) unreduced.

    Raises:
        ValueError: on shapes or targets other than 0 and 1.
        TypeError: on planes that are not floating-point.

    Source: ``achab2023logconcavity``.

    Pitfall: where all scores are 0 so is the gradient, from two planes on: start at random. It is not
    convex, and planes that coincide undo each other.

    Example:
        >>> planes, target = torch.tensor([[9.0, 9.0], [9.0, -9.0]]), torch.tensor([1, 0])
        >>> bool(checkered_regression_loss(planes, target) < 1e-3)
        True
    """
    check_reduction(reduction)
    first, *others = _check_planes(planes, target).unbind(1)
    even, odd = F.logsigmoid(first), F.logsigmoid(-first)  # of how many coins show -1
    for z in others:
        plus, minus = F.logsigmoid(z), F.logsigmoid(-z)
        even, odd = (
            torch.logaddexp(even + plus, odd + minus),
            torch.logaddexp(even + minus, odd + plus),
        )
    return reduce(-even, torch.ones_like(even), reduction, planes.dtype)


def checkered_log_terms(planes: Tensor, target: Tensor) -> Tensor:
    r"""The log-concave terms whose sum is the likelihood of checkered regression.

    .. math:: P(y \mid x) = \sum_{\epsilon : \, \prod_m \epsilon_m = y} \; \prod_m \sigma(\epsilon_m z_m),
        \qquad y, \epsilon_m = \pm 1

    Args:
        planes: (N, M), scores of the hyperplanes, z.
        target: (N,), 0 or 1.

    Returns:
        (N, 2 ** (M - 1)), logarithms of the terms; minus their log-sum-exp is
        :func:`checkered_regression_loss`.

    Raises:
        ValueError: on shapes or targets other than 0 and 1.
        TypeError: on planes that are not floating-point.

    Source: ``achab2023logconcavity``.

    Pitfall: their number doubles with every plane. The loss itself costs M.
    """
    z = _check_planes(planes, target)
    signs = [s for s in product((1.0, -1.0), repeat=z.shape[1]) if math.prod(s) > 0]
    patterns = torch.tensor(signs, dtype=z.dtype, device=z.device)
    return restore(F.logsigmoid(z.unsqueeze(1) * patterns).sum(2), planes.dtype)


def sum_log_concave_majorant(log_terms: Tensor, *, weights: Tensor) -> Tensor:
    r"""A convex function above minus the logarithm of a sum of log-concave terms.

    .. math:: \sum_s \mu_s \bigl( \log \mu_s - \log p_s \bigr)
        = -\log \sum_s p_s + \mathrm{KL}(\mu \,\|\, \pi), \qquad \pi_s = \frac{p_s}{\sum_r p_r}

    Fixed weights make it convex in what the terms depend on; at :math:`\mu = \pi(a)` it touches at a, has
    there the gradient of the loss, and its tangent gives

    .. math:: F(x) \ge F(a) + \nabla F(a) \cdot (x - a) - \mathrm{KL}(\pi(a) \,\|\, \pi(x)).

    Its gradient :math:`-\sum_s \mu_s \nabla \log p_s` is a re-weighted gradient, of which the paper's
    cross-gradient is one. With which weights could not be checked. Derived here: the harmful KL term
    is gone at :math:`\mu = \pi(x^*)` with a minimizer :math:`x^*`, for then
    :math:`F(a) - F(x^*) \le -\sum_s \mu_s \nabla \log p_s(a) \cdot (a - x^*)`.

    Args:
        log_terms: (..., S), logarithms of the terms.
        weights: mu, (S,) or (..., S), at least 0 and summing to 1 over the last dimension.

    Returns:
        (...), in the dtype of the log-terms.

    Raises:
        ValueError: on weights of another shape or that are no distribution.
        TypeError: if an argument is not floating-point.

    Source: ``achab2023logconcavity``.

    Pitfall: weights that follow the parameters, mu = pi at every step, detached or not, are gradient
    descent once more.
    """
    log_p, mu = check_float(log_terms, "log_terms"), check_float(weights, "weights")
    require(log_p.ndim >= 1, "the shape of log_terms", tuple(log_p.shape), "(..., S)")
    fits = tuple(mu.shape) in (tuple(log_p.shape), tuple(log_p.shape[-1:]))
    require(fits, "the shape of weights", tuple(mu.shape), "(S,) or that of log_terms")
    if is_concrete(mu):
        one = (mu.sum(-1) - 1).abs() <= 1e-4
        require(bool((mu >= 0).all() & one.all()), "weights", weights, "a distribution")
    return restore((torch.xlogy(mu, mu) - mu * log_p).sum(-1), log_terms.dtype)
