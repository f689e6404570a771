"""Conformal prediction and risk control, which ask for no probabilities at all."""

import math

import torch
from torch import Tensor

from lossbook._contract import (
    check_float,
    is_concrete,
    require,
    require_shape,
)

__all__ = [
    "conformal_quantile",
    "conformal_risk_control",
]


_SLACK = 1 + 1e-12  # so that alpha (n + 1) = 29 is not spoilt by its last digit


def conformal_quantile(
    scores: Tensor,
    *,
    alpha: float,
    weights: Tensor | None = None,
    test_weight: float | Tensor = 1.0,
) -> Tensor:
    r"""The threshold of split conformal prediction, with weights if the future differs from the past.

    .. math:: \hat q = \min \Bigl\{ q : \sum_{i: s_i \le q} w_i \ge (1 - \alpha) \Bigl( \sum_i w_i + w
        \Bigr) \Bigr\}

    The new example, of weight w, counts as the worst. Without weights :math:`\hat q` is the
    :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest score: the rank is exact, with no interpolation.
    The set :math:`\{y : s(x, y) \le \hat q\}` then holds the truth with probability at least
    :math:`1 - \alpha`; under a shift of the inputs it does with :math:`w_i` the ratio of the densities at
    each.

    Args:
        scores: (N,), how badly each held-out example fits its label; not nan.
        alpha: in (0, 1), allowed probability of a miss.
        weights: (N,), at least 0; all 1 by default.
        test_weight: at least 0, the weight of the new example, a number or a tensor of one for each.

    Returns:
        The threshold, in the dtype of the scores and the shape of test_weight; infinite where the held-out
        examples are too few to exclude anything.

    Raises:
        ValueError: on shapes, alpha or weights out of range.
        TypeError: if scores are not floating-point.

    Source: ``tibshirani2019conformal``.

    Pitfall: the guarantee is an average over held-out sets and new examples. It holds for no particular
    class or group, and not where the scores' model has seen the held-out examples.

    Example:
        >>> conformal_quantile(torch.arange(1.0, 10.0), alpha=0.1)  # rank 9 of 9
        tensor(9.)
    """
    s = check_float(scores, "scores")
    require(s.ndim == 1, "the shape of scores", tuple(s.shape), "(N,)")
    require(0 < alpha < 1, "alpha", alpha, "in (0, 1)")
    w = _check_weights(weights, s)
    new = torch.as_tensor(test_weight, dtype=torch.float64, device=s.device)
    require(bool((new >= 0).all()), "test_weight", test_weight, "at least 0")
    ordered, order = s.detach().sort()
    above = torch.cat([w[order].flip(0).cumsum(0).flip(0)[1:], w.new_zeros(1)])[: len(s)]
    allowed = alpha * (w.sum() + new) * _SLACK - new  # weight that may lie above the threshold
    index = torch.searchsorted(-above, -allowed.reshape(-1)).view(allowed.shape)
    padded = torch.cat([ordered, ordered.new_full((1,), math.inf)])  # if nothing is allowed
    return padded[index].to(scores.dtype)


def _check_weights(weights: Tensor | None, like: Tensor) -> Tensor:
    """Weights of held-out examples in float64, all 1 by default."""
    if weights is None:
        return torch.ones(like.shape[0], dtype=torch.float64, device=like.device)
    w = check_float(weights, "weights").detach()
    require_shape(w, (like.shape[0],), "weights")
    require(bool((w >= 0).all()), "weights", weights, "at least 0")
    return w.double()


def conformal_risk_control(
    losses: Tensor, *, alpha: float, bound: float = 1.0, weights: Tensor | None = None
) -> Tensor:
    r"""The least cautious setting whose expected loss is controlled, also if the data drift.

    .. math:: \hat\lambda = \inf \Bigl\{ \lambda : \frac{\sum_i w_i L_i(\lambda) + B}{\sum_i w_i + 1}
        \le \alpha \Bigr\}

    for losses between A and B that fall as :math:`\lambda` grows. Then :math:`\mathbb{E} L_{n + 1} \le
    \alpha + (B - A) \sum_i \tilde w_i \, d_{TV}(Z, Z^i)` with :math:`\tilde w_i = w_i / (\sum_j w_j + 1)`
    and :math:`Z^i` the data with the i-th example and the new one exchanged: no more than :math:`\alpha`
    for exchangeable data, whatever the weights; for a drift, little more if distant examples weigh
    little, such as :math:`w_i = 0.99^{n + 1 - i}`.

    Args:
        losses: (N, K), the loss of each held-out example at K settings in order of caution; falling along
            each row.
        alpha: positive, the expected loss that is allowed.
        bound: positive, B, the largest loss that is possible.
        weights: (N,), in [0, 1], chosen without looking at the losses; all 1 by default, which is ordinary
            conformal risk control.

    Returns:
        The index of the setting, int64. If none will do it is the last, for which the guarantee holds
        only if losses there never exceed alpha.

    Raises:
        ValueError: on shapes, alpha, bound or weights out of range, or losses that rise or exceed the bound.
        TypeError: if losses are not floating-point.

    Source: ``farinhas2023nonexchangeable``, ``angelopoulos2024conformal``.

    Pitfall: with weights falling by 0.99 there are never more than 100 effective examples, and an alpha
    below B / 100 can then only be met by the last setting.
    """
    x = check_float(losses, "losses").detach().double()
    require(x.ndim == 2 and x.shape[1] >= 1, "the shape of losses", tuple(x.shape), "(N, K)")
    require(alpha > 0, "alpha", alpha, "positive")
    require(bound > 0, "bound", bound, "positive")
    w = _check_weights(weights, x)
    if is_concrete(x):
        require(bool((w <= 1).all()), "weights", weights, "in [0, 1]")
        require(bool((x.diff(dim=1) <= 0).all()), "losses", "rising ones", "falling along rows")
        require(bool((x <= bound).all()), "losses", "larger ones", f"at most bound {bound}")
    unsafe = w @ x + bound > alpha * (w.sum() + 1) * _SLACK
    return unsafe.sum().clamp(max=x.shape[1] - 1)
