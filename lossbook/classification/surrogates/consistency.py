r"""Consistency: what a small surrogate loss says about the error rate.

Where one label has the probability :math:`\eta`, a score :math:`f` costs

.. math:: C_\eta(f) = \eta \, \phi(f) + (1 - \eta) \, \phi(-f),

and :math:`\phi` is *calibrated* if the best score on the wrong side always costs more than the best
score of all. How much more, as a function of :math:`\theta = |2 \eta - 1|`, bounds what is lost in
errors by what is lost in the surrogate.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lossbook._contract import (
    check_float,
    is_concrete,
    require,
    require_shape,
    restore,
)
from lossbook.classification.cross_entropy import comp_sum_transform
from lossbook.classification.surrogates.margins import (
    exponential,
    hinge,
    logistic,
    perceptron,
    ramp,
    squared,
    squared_hinge,
)

__all__ = [
    "calibration_transform",
    "conditional_risk",
    "logistic_excess_bound",
    "margin_regret",
    "pointwise_regret",
    "psi_bound",
    "psi_transform",
]


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
    phi that is the transform itself, else (a :func:`~lossbook.classification.surrogates.margins.ramp` with
    s = -0.5) it may not be.
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
        phi: one of the functions of the margin, by itself, but for
            :func:`~lossbook.classification.surrogates.margins.zero_one`.

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

    With :func:`~lossbook.classification.surrogates.margins.zero_one` it is the regret in errors, with
    another function that of a surrogate: the
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
