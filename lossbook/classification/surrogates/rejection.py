"""Rejection: when a classifier that is given, and stays as it is, had better say nothing."""

import math

import torch
from torch import Tensor

from lossbook._contract import (
    check_float,
    check_reduction,
    reduce,
    require,
    restore,
)
from lossbook.classification.surrogates.consistency import _check_probability
from lossbook.classification.surrogates.margins import _check_binary, _exp

__all__ = [
    "coverage_at_precision",
    "rejection_beta",
    "rejection_cost",
    "rejection_loss",
    "rejection_minimizer",
]


def _check_cost(cost: float, alpha: float) -> None:
    require(0 < cost < 1, "cost", cost, "in (0, 1)")
    require(0 < alpha <= 1400, "alpha", alpha, "positive, at most 1400 lest e^(alpha/2) overflow")


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
