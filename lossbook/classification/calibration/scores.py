r"""Proper losses: to say what one believes, also where one can only sample.

A loss is *proper* if nobody gains by reporting anything but his belief. What a proper loss costs above
the least possible is a divergence, and it splits in two: *calibration*, how far the forecast is from
the frequencies at which it comes true, and *refinement*, how much these frequencies leave open.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossbook._contract import (
    check_scores,
    expectation,
    is_concrete,
    require,
    require_shape,
    restore,
)
from lossbook.classification.cross_entropy import log_complement

__all__ = [
    "LegendreLink",
    "black_box_brier",
    "brier_loss",
    "inverse_sampling_surprise",
    "poisson_surprise",
    "proper_loss",
    "spherical_loss",
]


# --- Proper losses ----------------------------------------------------------------------------


def proper_loss(
    logits: Tensor,
    target: Tensor,
    *,
    convex: Callable[[Tensor], Tensor],
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The proper loss of a convex function: Savage's representation.

    .. math:: L(p, y) = -G(p) - \nabla G(p) \cdot (e_y - p), \qquad p = \mathrm{softmax}(z)

    minus the tangent of G at the forecast, read off at the outcome. Under a belief q the expected loss
    exceeds its least value -G(q) by the Bregman divergence
    :math:`G(q) - G(p) - \nabla G(p) \cdot (q - p) \ge 0`, and every proper loss has this form.
    :math:`G = \sum_k p_k \log p_k` gives cross-entropy, :math:`\|p\|^2` the :func:`brier_loss` less 1,
    :math:`\|p\|` the :func:`spherical_loss` less 1.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        convex: G, maps probabilities (N, C, ...) to (N, ...), each from its own distribution,
            differentiably and convexly; strictly for a strictly proper loss.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes, labels out of range, or a convex that returns another shape.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``savage1971elicitation``.

    Pitfall: composed with the softmax a proper loss need not be convex in the logits, and if it is
    bounded its gradient vanishes where the forecast is badly wrong. Where p underflows, a G with a
    logarithm has no gradient left: use the closed form.

    Example:
        >>> z, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
        >>> proper_loss(z, y, convex=lambda p: p.square().sum(1)), brier_loss(z, y)
        (tensor(-0.8553), tensor(0.1447))
    """
    z = check_scores(logits)
    p = z.softmax(1)
    value, pullback = torch.func.vjp(convex, p)[:2]
    shape = z.shape[:1] + z.shape[2:]
    require(value.shape == shape, "the shape of convex(p)", tuple(value.shape), f"{tuple(shape)}")
    (slope,) = pullback(torch.ones_like(value))
    return expectation(
        ((slope * p).sum(1) - value).unsqueeze(1) - slope,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def brier_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Brier's score: the squared distance of the forecast to what happened.

    .. math:: L = \sum_k (p_k - [k = y])^2, \qquad p = \mathrm{softmax}(z)

    In Brier's own scale, 0 to 2; for two classes twice the square of :math:`1 - p_y`.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...); under these the loss is
            the expectation over labels, which is the squared distance to q plus
            :math:`1 - \|q\|^2`.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``brier1950verification``.

    Pitfall: the gradient in the logits vanishes with :math:`p_y (1 - p_y)`, so that what is badly
    wrong stays so. Good for judging forecasts, slow for training them.
    """
    z = check_scores(logits)
    # Two sums over the other classes, neither of them by subtraction from one.
    miss = log_complement(z).exp().square()
    others = z.softmax(1).square().sum(1, True) * log_complement(2 * z).exp()
    return expectation(
        miss + others,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def spherical_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""The spherical score: one minus the cosine between the forecast and what happened.

    .. math:: L = 1 - \frac{p_y}{\|p\|_2}, \qquad p = \mathrm{softmax}(z)

    Computed as :math:`1 - \exp(\tfrac12 \log \mathrm{softmax}(2z)_y)`. Not to be confused with the
    spherical softmax, which is another map from scores to probabilities.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss in [0, 1], a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``gneiting2007strictly``.

    Pitfall: bounded, hence flat where the forecast is badly wrong, like the :func:`brier_loss`.
    """
    z = check_scores(logits)
    return expectation(
        -((2 * z).log_softmax(1) / 2).expm1(),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


class _ConvexPotential(nn.Module):
    """A convex function of (N, D), its second derivative bounded below: a quadratic and a network.

    The network is convex in its input: weights on what was computed before are positive, activations
    convex and increasing, and the input enters every layer anew with any sign.
    """

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [width] * depth + [1]
        self.skips = nn.ModuleList(nn.Linear(inputs, size) for size in sizes)
        self.raw = nn.ParameterList(torch.randn(size, width) for size in sizes[1:])
        self.strength = nn.Parameter(torch.tensor(-3.0))
        self.curvature = nn.Parameter(torch.tensor(math.log(math.e - 1)))  # softplus gives 1

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.softplus(self.skips[0](x))
        for depth, (raw, skip) in enumerate(zip(self.raw, self.skips[1:], strict=True)):
            hidden = skip(x) + F.linear(hidden, F.softplus(raw)) / raw.shape[1]
            if depth + 1 < len(self.raw):
                hidden = F.softplus(hidden)
        quadratic = x.square().sum(1) / 2
        return F.softplus(self.strength) * hidden[:, 0] + F.softplus(self.curvature) * quadratic


class LegendreLink(nn.Module):
    r"""LegendreTron's link: scores become probabilities by a map that is learned with the model.

    .. math:: \hat p = \mathrm{softmax}(u, 0), \qquad u = T_B \circ \dots \circ T_1 (s), \quad
        T_b(s) = \nabla_s \bigl[ \alpha_b \, f_b(s) + \tfrac12 \beta_b \|s\|^2 \bigr]

    with networks f that are convex in their input and positive :math:`\alpha, \beta`. Each T is the
    gradient of a strongly convex function, hence increasing (:math:`(T(s) - T(t)) \cdot (s - t) \ge
    \beta \|s - t\|^2`) and invertible; several of them remain invertible. Train with
    :func:`~lossbook.classification.cross_entropy` on the result: that is a proper loss
    composed with a learned link, and multinomial logistic regression for T the identity.

    The authors' network also normalizes its layers by the first batch and joins a second group of
    units to each, and starts :math:`\alpha, \beta` at random; ours has neither, and starts near the
    identity.

    Args:
        classes: C, at least 2.
        width: units in a layer of f, at least 1.
        depth: layers of f, at least 1.
        blocks: B, number of maps, at least 1.

    Raises:
        ValueError: if a size is out of range.

    Source: ``lam2023legendretron``.

    Pitfall: it takes C - 1 scores; the last class is the reference with score 0, and the outcome
    depends on which class that is.

    Example:
        >>> link = LegendreLink(3)
        >>> link(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(self, classes: int, *, width: int = 4, depth: int = 4, blocks: int = 1) -> None:
        super().__init__()
        require(classes >= 2, "classes", classes, "at least 2")
        for name, size in (("width", width), ("depth", depth), ("blocks", blocks)):
            require(size >= 1, name, size, "at least 1")
        self.classes = classes
        self.potentials = nn.ModuleList(
            _ConvexPotential(classes - 1, width, depth) for _ in range(blocks)
        )

    def forward(self, scores: Tensor) -> Tensor:
        """Logits (N, C), the last of them 0, of scores (N, C - 1)."""
        s = check_scores(scores, "scores")
        require_shape(s, (s.shape[0], self.classes - 1), "scores")
        for potential in self.potentials:
            s = torch.func.grad(lambda x, f=potential: f(x).sum())(s)
        return restore(F.pad(s, (0, 1)), scores.dtype)


# --- Models that can only be sampled from -----------------------------------------------------


def black_box_brier(samples: Tensor, observed: Tensor) -> Tensor:
    r"""A proper loss that sees nothing of a model but samples.

    .. math:: L = \frac{1}{n (n - 1)} \sum_{i \ne j} [x_i = x_j] - \frac{2}{n m} \sum_{i, j}
        [x_i = y_j], \qquad \mathbb{E} L = \|p - q\|^2 - \|q\|^2

    for x drawn from the model p and y from the target q: the Brier score, less 1. With n draws of the
    model and m of the target, expectations are polynomials in p and q of these degrees, which is all
    that a proper loss can then be. Minus the logarithm is none (it is unbounded): no loss of a fixed
    number of samples has the cross-entropy as its expectation.

    Args:
        samples: (..., n), int64, drawn independently from the model, n at least 2.
        observed: (..., m), int64, drawn from the target, m at least 1.

    Returns:
        The loss (...), in torch's default dtype.

    Raises:
        ValueError: on too few draws.

    Source: ``kimpara2022proper``.

    Pitfall: on many outcomes samples hardly ever meet, and the loss is nearly always 0. It has no
    gradient in the samples; train with the score function.

    Example:
        >>> black_box_brier(torch.tensor([1, 1]), torch.tensor([1]))
        tensor(-1.)
    """
    n, m = samples.shape[-1], observed.shape[-1]
    require(n >= 2, "the number of samples", n, "at least 2")
    require(m >= 1, "the number of observed", m, "at least 1")
    dtype = torch.get_default_dtype()
    meet = (samples.unsqueeze(-1) == samples.unsqueeze(-2)).to(dtype).sum((-1, -2)) - n
    hit = (samples.unsqueeze(-1) == observed.unsqueeze(-2)).to(dtype).mean((-1, -2))
    return meet / (n * (n - 1)) - 2 * hit


def inverse_sampling_surprise(draws: Tensor) -> Tensor:
    r"""An unbiased estimate of -log p(y): draw from the model until y appears.

    .. math:: \ell = \sum_{k=1}^{T - 1} \frac1k = \psi(T) + \gamma_E, \qquad
        \mathbb{E} \, \ell = \sum_{k \ge 1} \frac{(1 - p)^k}{k} = -\log p

    for the T-th draw being the first equal to y. The number of samples is random, which is the way out of
    what :func:`black_box_brier` says. The variance is the dilogarithm of 1 - p, at most
    :math:`\pi^2 / 6` however rare y may be; what grows is the expected number of draws, 1 / p.

    Args:
        draws: T, any shape, integers of at least 1.

    Returns:
        The estimates, in the shape of draws and torch's default dtype.

    Raises:
        ValueError: on draws below 1.

    Source: ``vanopheusden2020unbiased``.

    Pitfall: to give up after a fixed number of draws makes it biased, and most where the model is worst.

    Example:
        >>> inverse_sampling_surprise(torch.tensor([1, 2, 3]))
        tensor([0.0000, 1.0000, 1.5000])
    """
    if is_concrete(draws):
        require(bool((draws >= 1).all()), "draws", "smaller ones", "at least 1")
    harmonic = torch.digamma(draws.double()) - torch.digamma(torch.ones_like(draws).double())
    return harmonic.to(torch.get_default_dtype())


def poisson_surprise(misses: Tensor, *, rate: float) -> Tensor:
    r"""Another unbiased estimate of -log p(y), from a Poisson number of draws.

    .. math:: \ell = \sum_{k=1}^{M} \frac{M (M - 1) \cdots (M - k + 1)}{k \, \alpha^k}, \qquad
        \mathbb{E} \, \ell = \sum_{k \ge 1} \frac{(1 - p)^k}{k} = -\log p

    Of a Poisson number of draws with mean :math:`\alpha`, M are not y, again a Poisson number, with
    factorial moments :math:`(\alpha (1 - p))^k`. That Poisson sampling makes cross-entropy possible is
    the paper's result; this instance is ours, the paper's own could not be compared.

    Args:
        misses: M, any shape, integers of at least 0.
        rate: positive, :math:`\alpha`.

    Returns:
        The estimates, in the shape of misses, in float64; infinite where the largest number is passed.

    Raises:
        ValueError: on misses or a rate out of range.

    Source: ``kimpara2022proper``.

    Pitfall: its variance is infinite, as the second moment of the k-th term grows like :math:`k!`. It
    shows that an unbiased estimate exists, not that one should use it;
    :func:`inverse_sampling_surprise` is the better one.
    """
    require(rate > 0, "rate", rate, "positive")
    require(bool((misses >= 0).all()), "misses", "negative ones", "at least 0")
    m = misses.double().unsqueeze(-1)
    k = torch.arange(1, 1 + int(m.max() if m.numel() else 0), device=m.device, dtype=m.dtype)
    log_falling = torch.lgamma(m + 1) - torch.lgamma((m - k).clamp(min=0) + 1)
    terms = (log_falling - k * math.log(rate)).exp() / k
    return torch.where(k <= m, terms, 0).sum(-1)
