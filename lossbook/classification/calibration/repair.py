"""Repair after training: temperature and vector scaling, and the outcomes that causal calibration needs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import (
    check_distribution,
    check_float,
    check_scores,
    check_target,
    is_concrete,
    require,
    require_shape,
    restore,
)
from lossbook.classification.calibration.measurement import _check_classes

__all__ = [
    "doubly_robust_outcome",
    "fit_temperature",
    "fit_vector_scaling",
]


# --- Repair after training --------------------------------------------------------------------


def _check_held_out(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and probabilities of the labels (N, C), detached, in float64."""
    z = check_scores(logits)
    require(z.ndim == 2, "the shape of logits", tuple(z.shape), "(N, C)")
    require(z.shape[0] >= 1, "the number of rows in logits", 0, "at least 1")
    if isinstance(target, Tensor) and target.is_floating_point():
        check_target(target, z.shape, -100)
        check_distribution(target)
        return z.detach().double(), target.double()
    _check_classes(logits, target)
    return z.detach().double(), F.one_hot(target, z.shape[1]).double()


def fit_temperature(logits: Tensor, target: Tensor) -> Tensor:
    r"""The temperature at which held-out examples are most likely.

    .. math:: \hat T = \arg\min_T \; \frac1n \sum_i -\log \mathrm{softmax}(z_i / T)_{y_i}

    In :math:`\beta = 1 / T` the loss is convex, with derivatives :math:`\mathbb{E}_p z - z_y` and
    :math:`\mathrm{Var}_p z`: Newton's steps, kept between bounds on the root.

    Args:
        logits: (N, C), of examples that the model was not trained on.
        target: class indices (N,), int64, or probabilities (N, C).

    Returns:
        The temperature by which to divide logits, a positive scalar in their dtype, without gradient.

    Raises:
        ValueError: on shapes or labels, and where no temperature is best: if every label has the largest
            logit (T falls to 0), or labels fare no better than the mean logit (T grows without end).
        TypeError: on logits or a target of the wrong dtype.

    Source: ``guo2017calibration``.

    Pitfall: fitted on training examples it is about 1 and useless. It changes no decision, and cannot help
    where a model is too sure of one class and too unsure of another.

    Example:
        >>> z = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
        >>> fit_temperature(z, torch.tensor([0, 0, 1]))  # 2 / T = log 2
        tensor(2.8854)
    """
    z, q = _check_held_out(logits, target)
    z = z - z.amax(1, keepdim=True)
    scale = float(z.abs().amax())
    goal = (q * z).sum(1).mean()
    solvable = bool(goal < 0) and bool(z.mean() < goal)
    reason = "better than chance, and not all right: they give no temperature"
    require(solvable, "logits", f"mean label logit {float(goal):.3g} below the largest", reason)
    z, goal = z / scale, goal / scale  # now in [-1, 0]

    def slope(beta: float) -> tuple[float, float]:
        p = (beta * z).softmax(1)
        mean = (p * z).sum(1, keepdim=True)
        variance = (p * (z - mean).square()).sum(1).mean()
        return float(mean.mean() - goal), float(variance)

    low, high = 0.0, 1.0
    while slope(high)[0] < 0:
        low, high = high, 2 * high
    beta = high
    for _ in range(100):
        value, curvature = slope(beta)
        low, high = (beta, high) if value < 0 else (low, beta)
        step = beta - value / curvature if curvature > 0 else low
        before, beta = beta, step if low < step < high else (low + high) / 2
        if abs(beta - before) <= 1e-14 * beta:
            break
    return torch.tensor(scale / beta, dtype=logits.dtype, device=logits.device)


def fit_vector_scaling(
    logits: Tensor, target: Tensor, *, penalty: float = 1e-4
) -> tuple[Tensor, Tensor]:
    r"""A factor and an offset for each class at which held-out examples are most likely.

    .. math:: \min_{w, b} \; \frac1n \sum_i -\log \mathrm{softmax}(w \odot z_i + b)_{y_i}
        + \frac{\lambda}{2} \bigl( \|w - 1\|^2 + \|b\|^2 \bigr)

    Convex; solved by Newton's method with halved steps. The penalty is ours: without it the offsets
    are fixed only up to a constant, and there may be no solution at all.

    Args:
        logits: (N, C), of examples that the model was not trained on.
        target: class indices (N,), int64, or probabilities (N, C).
        penalty: positive, :math:`\lambda`.

    Returns:
        w and b, (C,) in the dtype of the logits without gradient.

    Raises:
        ValueError: on shapes, labels or a penalty out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``guo2017calibration``.

    Pitfall: 2 C parameters from a held-out set can be overfit, and unlike a temperature they change
    decisions.
    """
    z, q = _check_held_out(logits, target)
    require(penalty > 0, "penalty", penalty, "positive")
    n, classes = z.shape
    features = torch.stack([z, torch.ones_like(z)], 1)  # (N, 2, C): what w and b multiply
    start = features.new_tensor([[1.0], [0.0]]).expand(2, classes)

    def loss(x: Tensor) -> Tensor:
        surprise = -(q * (x * features).sum(1).log_softmax(1)).sum(1).mean()
        return surprise + penalty / 2 * (x - start).square().sum()

    x = start.clone()
    value = loss(x)
    for _ in range(100):
        p = (x * features).sum(1).softmax(1).unsqueeze(1)
        gradient = ((p - q.unsqueeze(1)) * features).mean(0) + penalty * (x - start)
        weighed = p * features
        blocks = torch.einsum("nac,nbc->abc", weighed, features) / n
        hessian = torch.diag_embed(blocks).permute(0, 2, 1, 3).reshape(2 * classes, 2 * classes)
        flat = weighed.reshape(n, 2 * classes)
        hessian = hessian - flat.T @ flat / n
        hessian.diagonal().add_(penalty)
        step = torch.linalg.solve(hessian, gradient.flatten()).view(2, classes)
        descent = (gradient * step).sum()
        if float(descent) <= 1e-24 * max(1.0, abs(float(value))):
            break
        size = 1.0
        while size > 1e-10 and not bool(loss(x - size * step) <= value - size * descent / 4):
            size /= 2
        if size <= 1e-10:  # the loss can no longer tell: as near as its digits go
            break
        x = x - size * step
        value = loss(x)
    w, b = x.to(logits.dtype)
    return w, b


# --- Effects of a treatment -------------------------------------------------------------------


def doubly_robust_outcome(
    outcome: Tensor,
    treated: Tensor,
    *,
    propensity: Tensor,
    treated_mean: Tensor,
    control_mean: Tensor,
) -> Tensor:
    r"""What stands in for the effect of a treatment on one person, of whom only one outcome is seen.

    .. math:: \chi = \mu_1(x) - \mu_0(x) + \frac{a - e(x)}{e(x) (1 - e(x))} \bigl( y - \mu_a(x) \bigr)

    Given x its mean is the effect, if either the propensity e or both means :math:`\mu` are right. *Causal
    isotonic calibration* is isotonic regression of :math:`\chi` on a predictor of the effect, on held-out
    people or on predictions from cross-fitting; scikit-learn's ``IsotonicRegression`` does that.
    :func:`~lossbook.classification.calibration.measurement.reliability_curve` and
    :func:`~lossbook.classification.calibration.measurement.debiased_calibration_error`, with bins of equal
    mass, measure the calibration of effects with it.

    Args:
        outcome: y, (N,).
        treated: a, (N,), 0 or 1.
        propensity: e(x), (N,), in (0, 1): the probability of being treated.
        treated_mean: estimate of the mean outcome at x if treated, (N,).
        control_mean: the same if not.

    Returns:
        Pseudo-outcomes (N,), in the dtype of outcome.

    Raises:
        ValueError: on shapes, or a treatment or a propensity out of range.
        TypeError: if outcome is not floating-point.

    Source: ``vanderlaan2023causal``.

    Pitfall: where the propensity nears 0 or 1 a few people have enormous pseudo-outcomes. Estimates of e
    and the means must not have seen the person they are applied to.
    """
    y = check_float(outcome, "outcome")
    shapes = {"treated": treated, "propensity": propensity}
    shapes |= {"treated_mean": treated_mean, "control_mean": control_mean}
    for name, x in shapes.items():
        require_shape(x, tuple(y.shape), name)
    if is_concrete(y):
        inside = bool(((propensity > 0) & (propensity < 1)).all())
        require(inside, "propensity", "values outside", "in (0, 1)")
        require(bool(((treated == 0) | (treated == 1)).all()), "treated", "others", "0 or 1")
    a = treated.to(y.dtype)
    own = torch.where(a == 1, treated_mean, control_mean)
    chance = torch.where(a == 1, propensity, 1 - propensity)
    sign = 2 * a - 1
    return restore(treated_mean - control_mean + sign * (y - own) / chance, outcome.dtype)
