r"""Proper losses and calibration: to say what one believes, to measure and to repair what was said.

A loss is *proper* if nobody gains by reporting anything but his belief. What a proper loss costs above
the least possible is a divergence, and it splits in two: *calibration*, how far the forecast is from
the frequencies at which it comes true, and *refinement*, how much these frequencies leave open.
The module follows this line: proper losses, measures of calibration, repair after training, losses that
calibrate during training, losses for models that can only be sampled from, and conformal prediction,
which asks for no probabilities at all.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossbook._contract import (
    check_distribution,
    check_float,
    check_scores,
    check_target,
    expectation,
    is_concrete,
    promote,
    require,
    require_shape,
    restore,
)
from lossbook.classification.cross_entropy import cross_entropy, log_complement

__all__ = [
    "LegendreLink",
    "ReliabilityCurve",
    "black_box_brier",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_loss",
    "calibration_error",
    "classwise_calibration_error",
    "conformal_quantile",
    "conformal_risk_control",
    "correctness_aware_loss",
    "debiased_calibration_error",
    "doubly_robust_outcome",
    "dual_focal_loss",
    "expected_calibration_error",
    "fit_temperature",
    "fit_vector_scaling",
    "focal_loss",
    "focal_posterior",
    "inverse_sampling_surprise",
    "kernel_calibration_error",
    "odd_k_out_sets",
    "oko_loss",
    "poisson_surprise",
    "proper_loss",
    "reliability_curve",
    "smooth_calibration_error",
    "spherical_loss",
    "top_label",
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


# --- Reliability and binned errors ------------------------------------------------------------

_CHUNK = 2**20  # scores that are worked on at a time on a CPU


def top_label(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    r"""The confidence of the predicted class, and whether it was right.

    .. math:: c = \max_k p_k, \qquad a = [\arg\max_k z_k = y]

    Works through large inputs in parts, without ever holding their softmax.

    Args:
        logits: (N, C).
        target: class indices (N,), int64.

    Returns:
        Confidences (N,), of at least float32, and correctness (N,) in the same dtype, 0 or 1. Of
        classes that share the largest logit the one that ``argmax`` names is predicted.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Pitfall: confidences speak of the predicted class only. A model can be calibrated in these and wrong
    about all other probabilities.
    """
    _check_classes(logits, target)
    confidences, correct = [], []
    cpu = logits.device.type == "cpu"
    rows = max(1, _CHUNK // logits.shape[1]) if cpu else max(1, logits.shape[0])
    for z, y in zip(logits.split(rows), target.split(rows), strict=True):
        z = promote(z)
        best, predicted = z.max(1)
        confidences.append((z - best.unsqueeze(1)).exp().sum(1).reciprocal())
        correct.append(predicted == y)
    confidence = torch.cat(confidences)
    return confidence, torch.cat(correct).to(confidence.dtype)


def _check_classes(logits: Tensor, target: Tensor) -> None:
    check_float(logits, "logits")
    require(logits.ndim == 2, "the shape of logits", tuple(logits.shape), "(N, C)")
    require(logits.shape[0] >= 1, "the number of rows in logits", 0, "at least 1")
    require(logits.shape[1] >= 1, "the number of classes in logits", 0, "at least 1")
    if isinstance(target, Tensor) and target.is_floating_point():
        raise TypeError("target must hold class indices, got probabilities")
    check_target(target, logits.shape, ignore_index=-1)  # no index is ignored, as none is below 0
    if is_concrete(target):
        require(bool((target >= 0).all()), "target", int(target.min()), "at least 0")


def _check_pair(confidences: Tensor, outcomes: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, in which sums over a million examples keep their digits."""
    c = check_float(confidences, "confidences")
    require(c.ndim == 1, "the shape of confidences", tuple(c.shape), "(N,)")
    require(c.shape[0] >= 1, "the number of confidences", 0, "at least 1")
    require_shape(outcomes, tuple(c.shape), "outcomes")
    return c.double(), outcomes.double()


def _check_probabilities(confidences: Tensor) -> None:
    if is_concrete(confidences):
        inside = bool(((confidences >= 0) & (confidences <= 1)).all())
        require(inside, "confidences", "values outside", "in [0, 1]")


def _bins(confidences: Tensor, bins: int, scheme: str) -> Tensor:
    """The bin of each confidence, intervals being open to the left: (lower, upper]."""
    require(bins >= 1, "bins", bins, "at least 1")
    require(scheme in ("width", "mass"), "scheme", scheme, "'width' or 'mass'")
    if scheme == "width":
        _check_probabilities(confidences)
        edges = torch.arange(1, bins, dtype=torch.float64, device=confidences.device) / bins
    else:  # the last of every N / M in order; equal confidences stay together
        ranks = torch.arange(1, bins, device=confidences.device) * confidences.shape[0]
        edges = confidences.detach().sort().values[(ranks + bins - 1) // bins - 1]
    return torch.bucketize(confidences.detach().contiguous(), edges.to(confidences.dtype))


def _sums(index: Tensor, values: Tensor, bins: int) -> Tensor:
    return torch.zeros(bins, dtype=values.dtype, device=values.device).index_add(0, index, values)


class ReliabilityCurve(NamedTuple):
    """What a reliability diagram draws: means in bins.

    Attributes:
        counts: (M,), number of forecasts in each bin.
        confidence: (M,), their mean; nan where there is none.
        outcome: (M,), the mean of what happened; nan where there is none.

    Pitfall: a bin of few forecasts is a mean of few. Draw the counts as well.
    """

    counts: Tensor
    confidence: Tensor
    outcome: Tensor


def reliability_curve(
    confidences: Tensor, outcomes: Tensor, *, bins: int = 15, scheme: str = "width"
) -> ReliabilityCurve:
    r"""Mean forecast and mean outcome in bins of the forecast.

    Args:
        confidences: (N,), forecasts, N at least 1; in [0, 1] for bins of equal width.
        outcomes: (N,), what happened, 0 or 1 (or any numbers whose mean was forecast, such as
            :func:`doubly_robust_outcome`).
        bins: M, at least 1.
        scheme: "width" for bins :math:`(\frac{m-1}{M}, \frac{m}{M}]`, "mass" for bins of equally many
            forecasts; forecasts that are equal share a bin, so that fewer bins may be filled.

    Returns:
        A :class:`ReliabilityCurve` in float64.

    Raises:
        ValueError: on shapes, forecasts, bins or a scheme out of range.
        TypeError: if confidences are not floating-point.

    Source: ``guo2017calibration``.

    Pitfall: within a bin errors of opposite sign cancel.
    """
    c, a = _check_pair(confidences, outcomes)
    index = _bins(c, bins, scheme)
    count = _sums(index, torch.ones_like(c), bins)
    return ReliabilityCurve(count, _sums(index, c, bins) / count, _sums(index, a, bins) / count)


def calibration_error(
    confidences: Tensor,
    outcomes: Tensor,
    *,
    bins: int = 15,
    scheme: str = "width",
    norm: str = "l1",
) -> Tensor:
    r"""How far forecasts are from frequencies, in bins: ECE and its relatives.

    .. math:: \mathrm{ECE} = \sum_m \frac{n_m}{n} \, |\bar c_m - \bar a_m|

    Args:
        confidences: (N,), forecasts, N at least 1; in [0, 1] for bins of equal width.
        outcomes: (N,), what happened.
        bins: M, at least 1.
        scheme: "width" or "mass", as in :func:`reliability_curve`; "mass" makes the error adaptive.
        norm: "l1"; "l2", the root of the mean square; "max", the largest gap of a bin (MCE).

    Returns:
        The error, a scalar in float64.

    Raises:
        ValueError: on shapes, forecasts, bins, a scheme or a norm out of range.
        TypeError: if confidences are not floating-point.

    Source: ``naeini2015obtaining``.

    Pitfall: positive for a perfect forecaster too, by about the noise of the bins' means, which
    grows with M. Compare models by the same bins on equally many examples, or use
    :func:`debiased_calibration_error`.

    Example:
        >>> calibration_error(torch.tensor([0.9, 0.9, 0.6]), torch.tensor([1.0, 0.0, 1.0]))
        tensor(0.4000, dtype=torch.float64)
    """
    require(norm in ("l1", "l2", "max"), "norm", norm, "'l1', 'l2' or 'max'")
    curve = reliability_curve(confidences, outcomes, bins=bins, scheme=scheme)
    gap = torch.where(curve.counts > 0, curve.confidence - curve.outcome, 0).abs()
    share = curve.counts / curve.counts.sum()
    if norm == "max":
        return gap.amax()
    return (share * gap).sum() if norm == "l1" else (share * gap.square()).sum().sqrt()


def expected_calibration_error(
    logits: Tensor, target: Tensor, *, bins: int = 15, scheme: str = "width", norm: str = "l1"
) -> Tensor:
    r"""The calibration error of the predicted class.

    .. math:: \mathrm{ECE} = \sum_m \frac{n_m}{n} \, \bigl|\bar c_m - \bar a_m\bigr|, \qquad
        c = \max_k p_k, \quad a = [\arg\max_k z_k = y]

    Args:
        logits: (N, C), N at least 1.
        target: class indices (N,), int64.
        bins: M, at least 1.
        scheme: "width" or "mass", as in :func:`reliability_curve`.
        norm: "l1", "l2" or "max", as in :func:`calibration_error`.

    Returns:
        The error, a scalar in float64.

    Raises:
        ValueError: on shapes, labels, bins, a scheme or a norm out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``guo2017calibration``.

    Pitfall: not a proper loss. To say the base rate of the most frequent class, always, scores 0.
    """
    return calibration_error(*top_label(logits, target), bins=bins, scheme=scheme, norm=norm)


def classwise_calibration_error(
    logits: Tensor, target: Tensor, *, bins: int = 15, scheme: str = "width", norm: str = "l1"
) -> Tensor:
    r"""The calibration error of each class's probability.

    .. math:: \mathrm{ECE}_k = \sum_m \frac{n_{mk}}{n} \, \bigl|\bar p_{mk} - \bar a_{mk}\bigr|,
        \qquad a_k = [y = k]

    Its mean over classes is the class-wise (static) calibration error.

    Args:
        logits: (N, C), N at least 1.
        target: class indices (N,), int64.
        bins: M, at least 1.
        scheme: "width" or "mass", as in :func:`reliability_curve`.
        norm: "l1", "l2" or "max", as in :func:`calibration_error`.

    Returns:
        The errors (C,) in float64.

    Raises:
        ValueError: on shapes, labels, bins, a scheme or a norm out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``kumar2019verified``.

    Pitfall: with many classes nearly all probabilities are nearly 0, and rightly so; the mean over
    classes shrinks like 1 / C. Use bins of equal mass.
    """
    _check_classes(logits, target)
    columns = promote(logits).softmax(1).T.contiguous()
    errors = [
        calibration_error(p, target == k, bins=bins, scheme=scheme, norm=norm)
        for k, p in enumerate(columns)
    ]
    return torch.stack(errors)


def debiased_calibration_error(
    confidences: Tensor, outcomes: Tensor, *, bins: int = 15, scheme: str = "mass"
) -> Tensor:
    r"""The squared binned calibration error without the noise of the bins' means.

    .. math:: \sum_m \frac{n_m}{n} \Bigl[ (\bar c_m - \bar a_m)^2 - \frac{s_m^2}{n_m} \Bigr], \qquad
        s_m^2 = \frac{1}{n_m - 1} \sum_{i \in m} \bigl(c_i - a_i - \bar c_m + \bar a_m\bigr)^2

    Given how many forecasts fall into each fixed bin it is unbiased, but for bins of a single one, which
    count 0. Where all forecasts of a bin are equal (the case of the paper, which bins the forecaster
    itself) :math:`s^2 / n` is its :math:`\bar a (1 - \bar a) / (n - 1)`.

    Args:
        confidences: (N,), forecasts, N at least 1; in [0, 1] for bins of equal width.
        outcomes: (N,), what happened; any numbers, as in :func:`reliability_curve`.
        bins: M, at least 1.
        scheme: "width" or "mass", as in :func:`reliability_curve`.

    Returns:
        The squared error, a scalar in float64, which may be negative.

    Raises:
        ValueError: on shapes, forecasts, bins or a scheme out of range.
        TypeError: if confidences are not floating-point.

    Source: ``kumar2019verified``.

    Pitfall: clamped at 0 and square-rooted, as an error is reported, it is biased again. It is free of
    noise, not of binning: a finer pattern than the bins stays unseen.
    """
    c, a = _check_pair(confidences, outcomes)
    index = _bins(c, bins, scheme)
    residual = c - a
    count = _sums(index, torch.ones_like(c), bins)
    mean = _sums(index, residual, bins) / count.clamp(min=1)
    squares = _sums(index, (residual - mean[index]).square(), bins)
    noise = squares / (count * (count - 1)).clamp(min=1)
    per_bin = torch.where(count >= 2, mean.square() - noise, 0)
    return (count * per_bin).sum() / count.sum()


def brier_decomposition(curve: ReliabilityCurve) -> tuple[Tensor, Tensor, Tensor]:
    r"""Murphy's partition of the Brier score: reliability - resolution + uncertainty.

    .. math:: \frac1n \sum_i (c_i - a_i)^2 = \sum_m \frac{n_m}{n} (\bar c_m - \bar a_m)^2
        - \sum_m \frac{n_m}{n} (\bar a_m - \bar a)^2 + \bar a (1 - \bar a)

    Calibration is the first term; the other two are refinement, with the sign of a cost.

    Args:
        curve: from :func:`reliability_curve`, of outcomes 0 or 1.

    Returns:
        Reliability, resolution and uncertainty, scalars in float64.

    Source: ``murphy1973new``.

    Pitfall: exact only where all forecasts of a bin are equal; otherwise their spread within bins, and
    its covariance with the outcome, are missing. This is the score of one event, half of the
    :func:`brier_loss` with two classes.
    """
    filled = curve.counts > 0
    share = curve.counts / curve.counts.sum()
    outcome = torch.where(filled, curve.outcome, 0)
    base = (share * outcome).sum()
    gap = torch.where(filled, curve.confidence - curve.outcome, 0)
    resolution = (share * (outcome - base).square()).sum()
    return (share * gap.square()).sum(), resolution, base * (1 - base)


# --- Errors without bins, and intervals -------------------------------------------------------

_GRID = 2**12  # intervals of the grid on which residuals are smoothed


def _smoothed(masses: Tensor, sigma: Tensor) -> Tensor:
    """Masses on a grid of [0, 1], spread by a Gaussian that is reflected at both ends.

    To reflect is to mirror what is spread and to let it go round; going round, a convolution is a product
    of Fourier coefficients. A mass that sits on an end is its own mirror image and counts twice.
    """
    ends = torch.zeros_like(masses)
    ends[0], ends[-1] = masses[0], masses[-1]
    period = torch.cat([masses + ends, masses[1:-1].flip(0)])
    spectrum = torch.fft.rfft(period)
    frequency = math.pi * torch.arange(len(spectrum), device=masses.device, dtype=masses.dtype)
    damped = spectrum * torch.exp(-(frequency * sigma).square() / 2)
    return torch.fft.irfft(damped, n=len(period))[: len(masses)]


def smooth_calibration_error(confidences: Tensor, outcomes: Tensor) -> Tensor:
    r"""Smooth ECE: kernel smoothing in place of bins, its bandwidth chosen by the data.

    .. math:: \mathrm{smECE}_\sigma = \int_0^1 \Bigl| \frac1n \sum_i K_\sigma(t, c_i) (c_i - a_i)
        \Bigr| \, dt, \qquad \mathrm{smECE} = \sigma^*: \; \mathrm{smECE}_{\sigma^*} = \sigma^*

    with a Gaussian kernel K reflected at 0 and 1. Continuous in the forecasts, as binned errors are not.
    Residuals are split between the points of a grid of 4,096 intervals.

    Args:
        confidences: (N,), forecasts in [0, 1], N at least 1.
        outcomes: (N,), what happened.

    Returns:
        The error, a scalar in float64 without gradient, resolved down to 1 / 4,096.

    Raises:
        ValueError: on shapes or forecasts out of range.
        TypeError: if confidences are not floating-point.

    Source: ``blasiok2024smooth``.

    Pitfall: upward biased by noise as all plug-in errors are, though with no choice of bins to blame.
    """
    c, a = _check_pair(confidences.detach(), outcomes.detach())
    _check_probabilities(c)
    place = c * _GRID
    left = place.floor().clamp(max=_GRID - 1)
    residual, right = (c - a) / len(c), place - left
    index = left.long()
    masses = _sums(index, residual * (1 - right), _GRID + 1)
    masses = masses + _sums(index + 1, residual * right, _GRID + 1)
    low, high = torch.zeros_like(masses[0]), torch.ones_like(masses[0])
    for _ in range(20):  # smoothing more makes the error smaller: one crossing
        sigma = (low + high) / 2
        density = _smoothed(masses, sigma).abs()
        error = density.sum() - (density[0] + density[-1]) / 2  # the trapezoidal rule
        low, high = torch.where(error > sigma, sigma, low), torch.where(error > sigma, high, sigma)
    return (low + high) / 2


def kernel_calibration_error(
    logits: Tensor, target: Tensor, *, bandwidth: float | None = None
) -> Tensor:
    r"""The squared kernel calibration error: of whole distributions, and unbiased.

    .. math:: \mathrm{SKCE} = \frac{1}{n (n - 1)} \sum_{i \ne j} k(p_i, p_j) \,
        (e_{y_i} - p_i) \cdot (e_{y_j} - p_j), \qquad k(p, p') = e^{-\|p - p'\| / \nu}

    Its expectation is 0 if, and only if, the whole forecast is calibrated: among all cases given the
    forecast p, class k has frequency p_k.

    Args:
        logits: (N, C), N at least 2.
        target: class indices (N,), int64.
        bandwidth: positive, :math:`\nu`; by default the median distance of the forecasts.

    Returns:
        The squared error, a scalar in the dtype of the promoted logits, which may be negative.

    Raises:
        ValueError: on shapes, labels or a bandwidth out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``widmann2019calibration``.

    Pitfall: N x N numbers are held at once. Its size means little by itself: compare it to its spread
    under outcomes drawn from the forecasts.
    """
    _check_classes(logits, target)
    n = logits.shape[0]
    require(n >= 2, "the number of rows in logits", n, "at least 2")
    require(bandwidth is None or bandwidth > 0, "bandwidth", bandwidth, "None or positive")
    p = promote(logits).softmax(1)
    residual = F.one_hot(target, p.shape[1]).to(p.dtype) - p
    distance = torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = ~torch.eye(n, dtype=torch.bool, device=p.device)
    width = bandwidth or distance.detach()[pairs].median().clamp(min=torch.finfo(p.dtype).tiny)
    terms = (-distance / width).exp() * (residual @ residual.T)
    return terms[pairs].mean()


def bootstrap_interval(
    statistic: Callable[..., Tensor],
    *data: Tensor,
    level: float = 0.95,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The basic bootstrap's interval for a statistic of examples, such as a calibration error.

    .. math:: \bigl[\, 2 \hat\theta - \theta^*_{(1 + \ell) / 2}, \; 2 \hat\theta -
        \theta^*_{(1 - \ell) / 2} \bigr]

    with quantiles of the statistic over resampled data. Resampling adds the noise of the data a second
    time, and with it the bias of a plug-in error; by reflection the basic interval takes it off instead
    of adding it.

    Args:
        statistic: of tensors like data; returns a scalar, or a tensor of which each entry is given its
            interval.
        data: at least one tensor, all (N, ...) with the same N, resampled by rows together.
        level: in (0, 1).
        resamples: at least 1.
        generator: source of randomness, on the CPU; torch's own by default.

    Returns:
        Lower and upper end, of the shape of the statistic.

    Raises:
        ValueError: on no data, unequal lengths, or a level or a number of resamples out of range.

    Pitfall: the reflected interval of an error may reach below 0. Examples must be independent: frames of
    one video are not.
    """
    require(len(data) >= 1, "the number of tensors in data", 0, "at least 1")
    size = data[0].shape[0]
    for x in data:
        require(
            x.shape[0] == size and size > 0, "the length of data", x.shape[0], f"{size}, above 0"
        )
    require(0 < level < 1, "level", level, "in (0, 1)")
    require(resamples >= 1, "resamples", resamples, "at least 1")
    draws = []
    for _ in range(resamples):
        rows = torch.randint(size, (size,), generator=generator).to(data[0].device)
        draws.append(statistic(*(x[rows] for x in data)))
    estimate, drawn = statistic(*data), torch.stack(draws)
    low, high = (torch.quantile(drawn, (1 + side * level) / 2, dim=0) for side in (1, -1))
    return 2 * estimate - low, 2 * estimate - high


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


# --- Losses that calibrate while they train ---------------------------------------------------


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Focal loss over a softmax: examples that are well classified count for little.

    .. math:: L = -(1 - p_y)^\gamma \log p_y

    The detector's loss, of a sigmoid for each class with a balance alpha, is
    :func:`~lossbook.classification.cross_entropy.poly_focal_loss` with epsilon 0; its first
    step needs output biases at the logit of the rare foreground's probability, 0.01 in the paper.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        gamma: at least 0; 0 is cross-entropy.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, or a negative gamma.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``lin2017focal``.

    Pitfall: not proper. Its softmax understates what it believes; :func:`focal_posterior` translates.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    focus = (gamma * log_complement(z)).exp() if gamma > 0 else 1.0
    return expectation(
        -focus * z.log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def focal_posterior(logits: Tensor, *, gamma: float = 2.0) -> Tensor:
    r"""The class probabilities that a model trained with focal loss believes in.

    .. math:: q_k = \frac{h(p_k)}{\sum_j h(p_j)}, \qquad
        h(p) = \frac{p}{(1 - p)^\gamma - \gamma \, p \, (1 - p)^{\gamma - 1} \log p}

    Where p minimizes the expected focal loss under q, each :math:`q_k` times the slope of the loss at
    :math:`p_k` is the same number; 1 / h is this slope, up to the sign.

    Args:
        logits: (N, C) or (N, C, d1, ...), trained with :func:`focal_loss`.
        gamma: at least 0, as in training.

    Returns:
        Probabilities, in the shape and dtype of the logits.

    Raises:
        ValueError: on a shape or a gamma out of range.
        TypeError: if logits are not floating-point.

    Source: ``charoenphakdee2021focal``.

    Pitfall: the rule is that of a minimizer. A network that overfits is too sure already, and becomes
    more so.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    log_p = z.log_softmax(1)
    log_rest = log_complement(z).clamp(min=-1e6)  # of a single class the rest is nothing
    rest = log_rest.exp()
    # -p log p / (1 - p) is 1 where the label is certain and both sides vanish.
    vanishes = rest < torch.finfo(z.dtype).eps
    ratio = torch.where(vanishes, 1, -log_p.exp() * log_p / torch.where(vanishes, 1, rest))
    log_h = log_p - gamma * log_rest - (gamma * ratio).log1p()
    return restore(log_h.softmax(1), logits.dtype)


def dual_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 5.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Dual focal loss: the focus also counts the best class below the label.

    .. math:: L = -(1 - p_y + p_j)^\gamma \log p_y, \qquad p_j = \max \{p_k : p_k < p_y\}

    with :math:`p_j = 0` if no class is below. If the label leads, j is its rival and the loss asks for a
    gap; if not, j is not the class that won.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        gamma: at least 0; 0 is cross-entropy. To be tuned on held-out examples; the default is ours.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum"; the authors' code
            sums by default.

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, or a negative gamma.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``tao2023dual``.

    Pitfall: discontinuous. Where the label's logit passes another's, :math:`p_j` jumps.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    log_p = z.log_softmax(1)
    # Of each logit in order, the place of the best that is strictly below, or -1.
    ordered, order = log_p.sort(1)
    place = torch.arange(z.shape[1], device=z.device).view(1, -1, *[1] * (z.ndim - 2))
    before = ordered.roll(1, 1)
    below = torch.where((ordered > before) & (place > 0), place - 1, -1).cummax(1).values
    below = below.gather(1, order.argsort(1))
    log_rest = log_complement(z)
    # The rival is part of the rest, so that their ratio is at most 1.
    log_ratio = ordered.gather(1, below.clamp(min=0)) - log_rest
    ratio = torch.where(below >= 0, log_ratio, -math.inf).exp()
    focus = (gamma * (log_rest + ratio.log1p())).exp() if gamma > 0 else 1.0
    return expectation(
        -focus * log_p,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def correctness_aware_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Correctness-aware loss: confidence should be 1 where the prediction is right, and 0 where wrong.

    .. math:: L = \bigl(c - [\hat y = y]\bigr)^2, \qquad c = \max_k p_k, \quad
        \hat y = \arg\max_k z_k

    For a calibrator that is trained after the model: its logits are those of the model divided by a
    temperature that a small network gives each example, in the paper from the largest probabilities of
    transformed copies of it. The paper's own text was not at hand: the gap between confidence and
    correctness is stated in its abstract, the square is our reading.

    Args:
        logits: (N, C) or (N, C, d1, ...), after the calibrator.
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss in [0, 1], a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``liu2024optimizing``.

    Pitfall: it is the Brier score of "is the prediction right?": proper for the confidence, blind to which
    class would have been right. Never train the classifier itself with it: without a temperature between
    them it makes wrong predictions uniform instead of right.
    """
    z = check_scores(logits)
    best, predicted = z.log_softmax(1).max(1, keepdim=True)
    right = torch.zeros_like(z).scatter(1, predicted, 1.0)
    return expectation(
        (best.exp() - right).square(),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def oko_loss(
    set_logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Odd-k-out: the summed logits of a set must name the class that occurs twice.

    .. math:: L = -\log \mathrm{softmax} \Bigl( \sum_{x \in S} z(x) \Bigr)_{y}

    for sets of k + 2 examples: two of class y, the others of k further classes, one each; draw them by
    :func:`odd_k_out_sets`. A single example is classified by its own logits. The authors' soft variant
    has as its target the frequencies of the classes in the set. A second head that some versions of
    their code train beside is left out.

    Args:
        set_logits: (N, S, C), logits of the S examples of N sets.
        target: class indices (N,), int64, or probabilities (N, C).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N,) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``muttenthaler2023set``.

    Pitfall: sets balance the classes by construction. Against a baseline on the raw frequencies that is
    part of what one measures.
    """
    z = check_float(set_logits, "set_logits")
    require(z.ndim == 3, "the shape of set_logits", tuple(z.shape), "(N, S, C)")
    loss = cross_entropy(
        z.sum(1), target, weight=weight, ignore_index=ignore_index, reduction=reduction
    )
    return restore(loss, set_logits.dtype)


def odd_k_out_sets(
    labels: Tensor, *, sets: int, odd: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draws sets for :func:`oko_loss`: a pair of one class, and single examples of other classes.

    The class of the pair is uniform over the classes that have two examples, the others are uniform over
    the rest without repetition, examples are uniform within their class and never twice in a set.

    Args:
        labels: (N,), int64, any integers.
        sets: number of sets, at least 1.
        odd: k, at least 0 (0 makes pairs).
        generator: source of randomness, on the CPU; torch's own by default.

    Returns:
        Indices of examples (sets, k + 2), the pair first, and the labels of the pairs (sets,).

    Raises:
        ValueError: if no class has two examples, there are too few classes, or a size is out of range.
        TypeError: if labels are not int64.

    Source: ``muttenthaler2023set``.

    Pitfall: classes are drawn uniformly, so a rare class shows its few examples over and over.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {labels!r}")
    require(labels.ndim == 1, "the shape of labels", tuple(labels.shape), "(N,)")
    require(sets >= 1, "sets", sets, "at least 1")
    require(odd >= 0, "odd", odd, "at least 0")
    order = labels.cpu().argsort(stable=True)
    _, counts = labels.cpu().unique(return_counts=True)
    require(len(counts) > odd, "the number of classes in labels", len(counts), f"above {odd}")
    twice = (counts >= 2).nonzero().squeeze(1)
    require(len(twice) > 0, "labels", "no class with two", "of a class with two examples at least")

    pair = twice[torch.randint(len(twice), (sets, 1), generator=generator)]
    keys = torch.rand(sets, len(counts), generator=generator).scatter(1, pair, -1.0)
    classes = keys.argsort(1)[:, : odd + 1]  # the pair's first, the rest in random order
    size, start = counts[classes], (counts.cumsum(0) - counts)[classes]
    first = _below(size, generator)
    shift = 1 + _below(size[:, :1] - 1, generator)  # to another example of the same class
    second = (first[:, :1] + shift) % size[:, :1]
    rows = torch.cat([start[:, :1] + second, start + first], 1)
    indices = order[rows].to(labels.device)
    return indices, labels[indices[:, 0]]


def _below(bounds: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform integers from 0 to below each bound."""
    draw = torch.rand(bounds.shape, generator=generator, dtype=torch.float64)
    return (draw * bounds).long()


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


# --- Conformal prediction ---------------------------------------------------------------------

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
    :func:`reliability_curve` and :func:`debiased_calibration_error` with bins of equal mass measure
    the calibration of effects with it.

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
