"""Measures of calibration: reliability, binned errors, errors without bins, and their intervals."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import (
    check_float,
    check_target,
    is_concrete,
    promote,
    require,
    require_shape,
)
from lossbook._pairs import inner

__all__ = [
    "ReliabilityCurve",
    "bootstrap_interval",
    "brier_decomposition",
    "calibration_error",
    "classwise_calibration_error",
    "debiased_calibration_error",
    "expected_calibration_error",
    "kernel_calibration_error",
    "reliability_curve",
    "smooth_calibration_error",
    "top_label",
]


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
            :func:`~lossbook.classification.calibration.repair.doubly_robust_outcome`).
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
    :func:`~lossbook.classification.calibration.scores.brier_loss` with two classes.
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


def _smoothed(masses: Tensor) -> Callable[[Tensor], Tensor]:
    """Masses on a grid of [0, 1], to be spread by a Gaussian of given width that is reflected at both ends.

    To reflect is to mirror what is spread and to let it go round; going round, a convolution is a product
    of Fourier coefficients. A mass that sits on an end is its own mirror image and counts twice.
    """
    ends = torch.zeros_like(masses)
    ends[0], ends[-1] = masses[0], masses[-1]
    period = torch.cat([masses + ends, masses[1:-1].flip(0)])
    spectrum = torch.fft.rfft(period)
    exponent = -torch.arange(len(spectrum), device=masses.device, dtype=masses.dtype).square() / 2

    def spread(sigma: Tensor) -> Tensor:
        damped = spectrum * (exponent * (math.pi * sigma).square()).exp()
        return torch.fft.irfft(damped, n=len(period))[: len(masses)]

    return spread


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
    spread = _smoothed(masses)
    low, high = torch.zeros_like(masses[0]), torch.ones_like(masses[0])
    for _ in range(20):  # smoothing more makes the error smaller: one crossing
        sigma = (low + high) / 2
        density = spread(sigma).abs()
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
    terms = (-distance / width).exp() * inner(residual, residual)
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

    Pitfall: the reflected interval of an error may reach below 0. A statistic that is unbiased already, such
    as :func:`debiased_calibration_error`, loses a bias that it does not have: its interval lies too low, and
    reflecting it back, from twice the estimate, covers better. Examples must be independent: frames of one
    video are not.
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
