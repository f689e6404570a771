r"""Data for the chapters: small, seeded, mostly with a known truth, and no network unless asked.

Everything is a :class:`Dataset` (inputs and labels as tensors) or a :class:`Split` of two. Equal
seeds give equal data; different functions draw from streams of their own, so the seed of one never
correlates with the same seed of another. Origin and license of the real data: ``data/README.md``.
"""

from __future__ import annotations

import gzip
import math
import tarfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import Tensor
from torch.nn import functional

__all__ = [
    "BayesRisk",
    "Dataset",
    "GaussianMixture",
    "Split",
    "breast_cancer",
    "cifar10",
    "corrupt",
    "digits",
    "dots",
    "fashion_mnist",
    "generator",
    "long_tail",
    "modular_addition",
    "moons",
    "pair_noise",
    "polygon_mixture",
    "subsample",
    "symmetric_noise",
    "wine",
]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labeled examples.

    Args:
        inputs: Shape ``(N, ...)``, float32 except where a set says otherwise.
        labels: Shape ``(N,)``, int64, in ``[0, classes)``.
        classes: Number of classes, also those without an example.
        name: What figures and messages call it.

    Raises:
        TypeError: If ``labels`` is not int64.
        ValueError: If the lengths differ or a label is out of range.
    """

    inputs: Tensor
    labels: Tensor
    classes: int
    name: str

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels must be int64, got {self.labels.dtype}")
        if self.labels.ndim != 1 or self.inputs.shape[:1] != self.labels.shape:
            raise ValueError(
                "inputs (N, ...) and labels (N,) must agree in N, "
                f"got {tuple(self.inputs.shape)} and {tuple(self.labels.shape)}"
            )
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < self.classes:
            raise ValueError(
                f"labels must lie in [0, {self.classes}), "
                f"got {int(self.labels.min())} to {int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = tuple(self.inputs.shape[1:])
        return f"<{self.name}: {len(self)} examples of shape {shape}, {self.classes} classes>"

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on another device."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))

    def take(self, index: Tensor | Sequence[int] | slice) -> Dataset:
        """The examples at ``index`` (positions, a boolean mask or a slice), classes unchanged."""
        return replace(self, inputs=self.inputs[index], labels=self.labels[index])


@dataclass(frozen=True, eq=False)
class Split:
    """A training and a test set of the same kind."""

    train: Dataset
    test: Dataset

    def to(self, device: torch.device | str) -> Split:
        """The same data on another device."""
        return Split(self.train.to(device), self.test.to(device))


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU random stream that belongs to one seed and one purpose.

    Pitfall: two draws with ``torch.manual_seed(0)`` use the same numbers, so noise can follow the
    very sample it is meant to disturb; two purposes never share a stream.
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{purpose}:{seed}".encode()))


# ---------------------------------------------------------------------------------- real data


def digits(
    seed: int = 0, test_fraction: float = 0.3, classes: Sequence[int] | None = None
) -> Split:
    """Handwritten digits, 8 x 8 pixels in ``[0, 1]`` as 64 inputs (1797 examples, 10 classes).

    Args:
        seed: Chooses the split, which keeps the class proportions.
        test_fraction: Share of test examples, in (0, 1).
        classes: Digits to keep; ``(3, 8)`` makes 3 class 0 and 8 class 1.

    Example:
        >>> digits(classes=(3, 8)).train
        <digits: 250 examples of shape (64,), 2 classes>
    """
    inputs, labels = load_digits(return_X_y=True)
    data = Dataset(torch.tensor(inputs / 16).float(), torch.tensor(labels).long(), 10, "digits")
    return _split(data if classes is None else _keep(data, classes), seed, test_fraction)


def wine(seed: int = 0, test_fraction: float = 0.3) -> Split:
    """Chemistry of Italian wines (178 examples, 13 standardized inputs, 3 cultivars).

    Mean and standard deviation come from the training part alone.
    """
    return _tabular(load_wine, 3, "wine", seed, test_fraction)


def breast_cancer(seed: int = 0, test_fraction: float = 0.3) -> Split:
    """Cell nuclei (569 examples, 30 standardized inputs, class 0 malignant, class 1 benign).

    Mean and standard deviation come from the training part alone.
    """
    return _tabular(load_breast_cancer, 2, "breast cancer", seed, test_fraction)


def _tabular(load: Callable, classes: int, name: str, seed: int, test_fraction: float) -> Split:
    inputs, labels = load(return_X_y=True)
    data = Dataset(torch.tensor(inputs), torch.tensor(labels).long(), classes, name)
    split = _split(data, seed, test_fraction)
    deviation, mean = torch.std_mean(split.train.inputs, dim=0, correction=0)
    train, test = (
        replace(part, inputs=((part.inputs - mean) / deviation).float())
        for part in (split.train, split.test)
    )
    return Split(train, test)


def _keep(data: Dataset, classes: Sequence[int]) -> Dataset:
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= {*range(10)}:
        raise ValueError(f"classes must be distinct numbers from 0 to 9, got {classes!r}")
    matches = data.labels[:, None] == torch.tensor(list(classes))
    kept = matches.any(dim=1)
    return Dataset(data.inputs[kept], matches[kept].int().argmax(dim=1), len(classes), data.name)


def _split(data: Dataset, seed: int, test_fraction: float) -> Split:
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction!r}")
    chosen = torch.zeros(len(data), dtype=torch.bool)
    chosen[_stratified(data, round(test_fraction * len(data)), generator(seed, "split"))] = True
    return Split(data.take(~chosen), data.take(chosen))


# ------------------------------------------------------------------------- choosing examples


def subsample(dataset: Dataset, samples: int, seed: int = 0) -> Dataset:
    """Random examples in the classes' original proportions (up to rounding).

    Raises:
        ValueError: If ``samples`` is not in ``[1, len(dataset)]``.
    """
    if not 1 <= samples <= len(dataset):
        raise ValueError(f"samples must lie in [1, {len(dataset)}], got {samples!r}")
    return dataset.take(_stratified(dataset, samples, generator(seed, "subsample")))


def long_tail(dataset: Dataset, imbalance: float = 100.0, seed: int = 0) -> Dataset:
    r"""Thin the classes out so that their sizes fall exponentially.

    .. math:: n_k = n_0 \, \rho^{-k / (C - 1)}

    with the largest :math:`n_0` that the data allow, rounded, and at least one example a class.

    Args:
        dataset: With at least one example in each class.
        imbalance: :math:`\rho \ge 1`, the largest class over the smallest.
        seed: Chooses the examples.

    Raises:
        ValueError: If ``imbalance`` is below 1 or a class is empty.

    Pitfall: with few examples the rounded tail cannot follow; read the counts, not ``imbalance``.
    """
    if not 1 <= imbalance < math.inf:
        raise ValueError(f"imbalance must be finite and at least 1, got {imbalance!r}")
    counts = dataset.labels.bincount(minlength=dataset.classes).double().cpu()
    if counts.min() == 0:
        raise ValueError(f"dataset must have examples of every class, counts are {counts.tolist()}")
    profile = imbalance ** -torch.linspace(0, 1, dataset.classes, dtype=torch.float64)
    quotas = ((counts / profile).min() * profile).round().clamp(min=1).long()
    return dataset.take(_draw(dataset, quotas, generator(seed, "long_tail")))


def _stratified(dataset: Dataset, samples: int, stream: torch.Generator) -> Tensor:
    """Indices of ``samples`` examples, shared among the classes by largest remainder."""
    counts = dataset.labels.bincount(minlength=dataset.classes).cpu()
    quotas = counts * samples // len(dataset)
    remainders = counts * samples % len(dataset)
    quotas[remainders.argsort(descending=True, stable=True)[: samples - int(quotas.sum())]] += 1
    return _draw(dataset, quotas, stream)


def _draw(dataset: Dataset, quotas: Tensor, stream: torch.Generator) -> Tensor:
    """Indices, in the data's order, of ``quotas[k]`` random examples of each class k."""
    order = torch.randperm(len(dataset), generator=stream)
    labels = dataset.labels.cpu()[order]
    chosen = [order[labels == k][:quota] for k, quota in enumerate(quotas.tolist())]
    return torch.cat(chosen).sort().values.to(dataset.labels.device)


# -------------------------------------------------------------------- synthetic, truth known


def moons(samples: int, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Two interleaved half circles in the plane, blurred by Gaussian noise.

    Args:
        samples: Number of examples, class 0 and 1 in turn.
        noise: Standard deviation of the blur, at least 0 (the radius is 1).
        seed: Chooses the points.
    """
    _check_samples(samples)
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be finite and at least 0, got {noise!r}")
    stream = generator(seed, "moons")
    labels = torch.arange(samples) % 2
    angle = math.pi * torch.rand(samples, generator=stream)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.tensor([1.0, 0.5]) - upper
    points = torch.where(labels[:, None] == 0, upper, lower)
    return Dataset(points + noise * torch.randn(samples, 2, generator=stream), labels, 2, "moons")


class BayesRisk(NamedTuple):
    """The smallest possible error rate; ``standard_error`` is 0 unless it was estimated."""

    value: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    r"""Isotropic Gaussian classes: posterior and Bayes risk are known.

    .. math:: p(x, c) = \pi_c \, \mathcal N(x;\, \mu_c,\, \sigma^2 I)

    Args:
        means: :math:`\mu`, shape ``(C, D)``, at least two classes.
        scale: :math:`\sigma > 0`, in the inputs' units.
        priors: :math:`\pi`, shape ``(C,)``, positive and summing to one; uniform if not given.

    Raises:
        ValueError: If a shape or a range is wrong.

    Example:
        >>> mixture = GaussianMixture(torch.tensor([[-1.0], [1.0]]), scale=1.0)
        >>> round(mixture.bayes_risk().value, 4)
        0.1587
    """

    means: Tensor
    scale: float
    priors: Tensor | None = None

    def __post_init__(self) -> None:
        if self.means.ndim != 2 or len(self.means) < 2 or not self.means.isfinite().all():
            raise ValueError(f"means must be finite, of shape (C >= 2, D), got {self.means}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale!r}")
        if self.priors is None:
            return
        if self.priors.shape != self.means.shape[:1] or not (self.priors > 0).all():
            raise ValueError(f"priors must be {len(self.means)} positive numbers: {self.priors}")
        if abs(self.priors.sum() - 1) > 1e-6:
            raise ValueError(f"priors must sum to one, got {self.priors}")

    @property
    def _priors(self) -> Tensor:
        given = torch.ones(len(self.means)) if self.priors is None else self.priors
        return given.double() / given.double().sum()

    def sample(self, samples: int, seed: int = 0) -> Dataset:
        """Independent draws, labels from the priors."""
        _check_samples(samples)
        stream = generator(seed, "mixture")
        labels = torch.multinomial(self._priors, samples, replacement=True, generator=stream)
        noise = torch.randn(samples, self.means.shape[1], generator=stream)
        inputs = self.means.float()[labels] + self.scale * noise
        return Dataset(inputs, labels, len(self.means), "Gaussian mixture")

    def posterior(self, inputs: Tensor) -> Tensor:
        r""":math:`p(c \mid x)` of inputs (N, D), shape (N, C), in the inputs' dtype."""
        if inputs.ndim != 2 or inputs.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"inputs must have shape (N, {self.means.shape[1]}), got {tuple(inputs.shape)}"
            )
        means, priors = self.means.double().to(inputs.device), self._priors.to(inputs.device)
        standard = (inputs.double()[:, None] - means) / self.scale
        return (priors.log() - standard.square().sum(dim=2) / 2).softmax(dim=1).to(inputs.dtype)

    def bayes_risk(self) -> BayesRisk:
        r"""The error rate of the best classifier, :math:`1 - E[\max_c p(c \mid x)]`.

        Two classes: closed form. Means in a common plane (three classes always are): numerical
        integration to about 1e-8. Otherwise: the mean of :math:`1 - \max_c p(c \mid x)` over
        200,000 seeded draws, the only case with a nonzero standard error.
        """
        means, log_priors = self.means.double() / self.scale, self._priors.log()
        centered = means - means.mean(dim=0)
        _, extents, axes = torch.linalg.svd(centered, full_matrices=False)
        if len(means) == 2:
            distance = float((means[1] - means[0]).norm())
            return BayesRisk(_two_class_risk(distance, self._priors), 0.0)
        if (extents[2:] <= 1e-10 * extents[:1]).all():
            plane = functional.pad(centered @ axes[:2].T, (0, max(0, 2 - len(axes))))
            return BayesRisk(_plane_risk(plane, log_priors), 0.0)
        draws = self.sample(200_000).inputs.double().split(20_000)
        risks = torch.cat([1 - self.posterior(inputs).amax(dim=1) for inputs in draws])
        return BayesRisk(float(risks.mean()), float(risks.std() / math.sqrt(len(risks))))


def _two_class_risk(distance: float, priors: Tensor) -> float:
    """Closed form; ``distance`` between the means in standard deviations."""
    if distance == 0:
        return float(priors.min())
    shift = (priors[1] / priors[0]).log() / distance
    errors = torch.special.ndtr(torch.stack([shift, -shift]) - distance / 2)
    return float((priors * errors).sum())


def _plane_risk(means: Tensor, log_priors: Tensor, angles: int = 2**15) -> float:
    """Exact along each ray from a mean, trapezoidal over the rays; unit variance, means (C, 2).

    Where class c wins is convex, so a ray from its mean crosses it in one interval of radii, and a
    unit Gaussian puts exp(-near^2 / 2) - exp(-far^2 / 2) on that interval.
    """
    angle = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    rays = torch.stack([angle.cos(), angle.sin()])
    correct = 0.0
    for c, (mean, log_prior) in enumerate(zip(means, log_priors, strict=True)):
        rivals = torch.arange(len(means))[torch.arange(len(means)) != c]
        away = means[rivals] - mean
        # Class c beats a rival while radius * slope <= bound.
        slope = away @ rays
        bound = (away.square().sum(dim=1) / 2 + log_prior - log_priors[rivals])[:, None]
        crossing = bound / slope
        far = torch.where(slope > 0, crossing, math.inf)
        # Of classes that coincide, the first takes all.
        beaten = (bound < 0) | ((bound == 0) & (rivals[:, None] < c))
        far = torch.where((slope == 0) & beaten, 0.0, far).amin(dim=0).clamp(min=0)
        near = torch.where(slope < 0, crossing, 0.0).amax(dim=0).clamp(min=0)
        mass = (-near.square() / 2).exp() - (-far.square() / 2).exp()
        correct += float(log_prior.exp() * mass.clamp(min=0).mean())
    return 1 - correct


def polygon_mixture(classes: int, radius: float = 2.0, scale: float = 1.0) -> GaussianMixture:
    """Equally likely Gaussian classes on the corners of a regular polygon around the origin."""
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes!r}")
    angle = torch.arange(classes) * (2 * math.pi / classes)
    return GaussianMixture(radius * torch.stack([angle.cos(), angle.sin()], dim=1), scale)


def dots(
    samples: int,
    counts: int = 6,
    size: int = 16,
    radius: float = 1.0,
    shape: Literal["disc", "square", "ring"] = "disc",
    inverted: bool = False,
    seed: int = 0,
) -> Dataset:
    """Pictures of 1 to ``counts`` dots, to be counted: the label is the count minus one.

    Dots lie inside the picture and do not touch, not even at corners.

    Args:
        samples: Number of pictures; the counts take turns, so classes are balanced.
        counts: Largest number of dots, at least 1.
        size: Height and width in pixels.
        radius: From a dot's center to its edge in pixels, at least 0.5.
        shape: Of the dots; a ring is about one pixel wide.
        inverted: Dark dots (0) on a bright ground (1) instead of the other way round.
        seed: Chooses the places.

    Returns:
        Inputs of shape ``(samples, 1, size, size)`` with values 0 and 1.

    Raises:
        ValueError: If an argument is out of range or the dots do not fit.

    Pitfall: the number of bright pixels gives the count away; vary radius and shape to test it.
    """
    _check_samples(samples)
    if counts < 1:
        raise ValueError(f"counts must be at least 1, got {counts!r}")
    if not 0.5 <= radius < math.inf:
        raise ValueError(f"radius must be finite and at least 0.5, got {radius!r}")
    if shape not in ("disc", "square", "ring"):
        raise ValueError(f"shape must be 'disc', 'square' or 'ring', got {shape!r}")
    reach = radius + 0.5 if shape == "ring" else radius
    margin = int(reach)
    if size < 2 * margin + 1:
        raise ValueError(f"size must be at least {2 * margin + 1} for this radius, got {size!r}")

    def distances(extent: int) -> Tensor:
        axis = torch.arange(-extent, extent + 1).abs()
        norm = torch.maximum if shape == "square" else torch.hypot
        return norm(axis[:, None].float(), axis[None, :].float())

    offsets = distances(margin)
    stamp = (offsets - radius).abs() <= 0.5 if shape == "ring" else offsets <= radius
    # Centers further apart than two reaches and a pixel's diagonal leave a gap between dots.
    crowded = distances(size) <= 2 * reach + 1.5

    labels = torch.arange(samples) % counts
    centers = _scatter(labels + 1, size - 2 * margin, crowded, generator(seed, "dots"))
    images = functional.conv2d(
        centers.float()[:, None], stamp.float()[None, None], padding=2 * margin
    )
    return Dataset(1 - images if inverted else images, labels, counts, "dots")


def _scatter(numbers: Tensor, width: int, crowded: Tensor, stream: torch.Generator) -> Tensor:
    """Random places (N, width, width) for numbers[n] points, none in another's ``crowded`` area.

    Places are filled one by one among the free ones; a picture that gets stuck starts again.
    """
    middle = len(crowded) // 2
    steps = torch.arange(width)
    # blocked[p, q]: a point on cell p leaves no room for one on cell q.
    offset = steps[:, None] - steps[None, :] + middle
    blocked = crowded[offset[:, None, :, None], offset[None, :, None, :]].reshape(width**2, -1)
    places = torch.zeros(len(numbers), width**2, dtype=torch.bool)
    todo = torch.arange(len(numbers))
    for _ in range(100):
        filled = torch.zeros(len(todo), width**2, dtype=torch.bool)
        free = torch.ones(len(todo), width**2)
        stuck = torch.zeros(len(todo), dtype=torch.bool)
        for dot in range(int(numbers[todo].max())):
            drawing = numbers[todo] > dot
            stuck |= drawing & (free.sum(dim=1) == 0)
            rows = (drawing & ~stuck).nonzero()[:, 0]
            if not len(rows):
                break
            cell = torch.multinomial(free[rows], 1, generator=stream)[:, 0]
            filled[rows, cell] = True
            free[rows] *= ~blocked[cell]
        places[todo[~stuck]] = filled[~stuck]
        todo = todo[stuck]
        if not len(todo):
            return places.view(-1, width, width)
    raise ValueError(
        f"{int(numbers[todo].max())} dots do not fit without touching; "
        "use fewer counts, a smaller radius or a larger size"
    )


def modular_addition(modulus: int) -> Dataset:
    """All sums modulo p: inputs are the p^2 pairs (int64, for an embedding), labels their sums."""
    if modulus < 1:
        raise ValueError(f"modulus must be at least 1, got {modulus!r}")
    numbers = torch.arange(modulus)
    pairs = torch.cartesian_prod(numbers, numbers)
    return Dataset(pairs, pairs.sum(dim=1) % modulus, modulus, "modular addition")


# ------------------------------------------------------------------------------- label noise


def symmetric_noise(classes: int, rate: float) -> Tensor:
    r"""Transition matrix of noise that prefers no class.

    .. math:: T_{ij} = (1 - \eta)\,[i = j] + \frac{\eta}{C - 1}\,[i \ne j]

    Args:
        classes: :math:`C \ge 2`.
        rate: :math:`\eta` in [0, 1], the share of labels that come out wrong.

    Returns:
        ``T[i, j] = P(noisy = j | clean = i)``, shape ``(C, C)``.

    Pitfall: some authors redraw among all C classes, so that their rate is
    :math:`\eta C / (C - 1)` for the same matrix.
    """
    _check_noise(classes, rate)
    matrix = torch.full((classes, classes), rate / (classes - 1))
    return matrix.fill_diagonal_(1 - rate)


def pair_noise(classes: int, rate: float) -> Tensor:
    """Transition matrix of noise that mistakes each class for the next (the last for the first).

    Args:
        classes: At least 2.
        rate: In [0, 1], the share of labels that come out wrong.

    Returns:
        ``T[i, j] = P(noisy = j | clean = i)``, shape ``(classes, classes)``.
    """
    _check_noise(classes, rate)
    identity = torch.eye(classes)
    return (1 - rate) * identity + rate * identity.roll(1, dims=1)


def corrupt(dataset: Dataset, transition: Tensor, seed: int = 0) -> tuple[Dataset, Tensor]:
    """Redraw each label from its row of a transition matrix.

    Args:
        dataset: With the clean labels.
        transition: ``T[i, j] = P(noisy = j | clean = i)``, shape ``(C, C)``, rows sum to one.
        seed: Chooses the noise.

    Returns:
        The data with noisy labels, and which labels changed, bool of shape ``(N,)``.

    Raises:
        ValueError: If ``transition`` is no transition matrix for the data's classes.
    """
    if transition.shape != (dataset.classes, dataset.classes):
        raise ValueError(
            f"transition must have shape ({dataset.classes}, {dataset.classes}), "
            f"got {tuple(transition.shape)}"
        )
    if not ((transition >= 0).all() and ((transition.sum(dim=1) - 1).abs() < 1e-5).all()):
        raise ValueError(f"transition must be nonnegative with rows summing to one: {transition}")
    rows = transition.cpu()[dataset.labels.cpu()]
    noisy = torch.multinomial(rows, 1, generator=generator(seed, "corrupt"))[:, 0]
    noisy = noisy.to(dataset.labels.device)
    return replace(dataset, labels=noisy), noisy != dataset.labels


def _check_noise(classes: int, rate: float) -> None:
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes!r}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must lie in [0, 1], got {rate!r}")


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples!r}")


# -------------------------------------------------------------------- downloads, on request

_FASHION_MNIST = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
)
_FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
# The binary edition: fixed-length records, where the Python edition would have us unpickle code.
_CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"


def fashion_mnist() -> Split:
    """Fashion-MNIST: 60,000 and 10,000 gray pictures (N, 1, 28, 28) in [0, 1] of 10 garments.

    Downloads 30 MB at the first call. Without a network it warns and returns :func:`digits` as
    pictures (N, 1, 8, 8): read sizes from ``inputs.shape`` and the truth from ``name``.
    """
    return _or_digits(_load_fashion_mnist, "Fashion-MNIST")


def cifar10() -> Split:
    """CIFAR-10: 50,000 and 10,000 color pictures (N, 3, 32, 32) in [0, 1] of 10 kinds of things.

    Downloads 162 MB at the first call and takes 0.7 GB of memory. Without a network it warns and
    returns :func:`digits` as pictures (N, 1, 8, 8): read sizes from ``inputs.shape`` and the truth
    from ``name``.
    """
    return _or_digits(_load_cifar10, "CIFAR-10")


def _or_digits(load: Callable[[], Split], name: str) -> Split:
    from requests import RequestException

    try:
        return load()
    except RequestException as error:
        reason = type(error).__name__
        warnings.warn(f"{name} cannot be downloaded ({reason}): digits instead", stacklevel=3)
    split = digits()
    train, test = (
        replace(part, inputs=part.inputs.view(-1, 1, 8, 8)) for part in (split.train, split.test)
    )
    return Split(train, test)


def _download(url: str, md5: str) -> Path:
    import pooch

    return Path(pooch.retrieve(url, f"md5:{md5}", path=pooch.os_cache("lossbook")))


def _load_fashion_mnist() -> Split:
    def read(name: str, header: int) -> Tensor:
        path = _download(_FASHION_MNIST + name, _FASHION_MNIST_MD5[name])
        content = bytearray(gzip.decompress(path.read_bytes()))
        return torch.frombuffer(content, dtype=torch.uint8, offset=header)

    def part(name: str) -> Dataset:
        images = read(f"{name}-images-idx3-ubyte.gz", header=16).view(-1, 1, 28, 28)
        labels = read(f"{name}-labels-idx1-ubyte.gz", header=8)
        return Dataset(images / 255, labels.long(), 10, "Fashion-MNIST")

    return Split(part("train"), part("t10k"))


def _load_cifar10() -> Split:
    def part(archive: tarfile.TarFile, names: Sequence[str]) -> Dataset:
        files = (archive.extractfile(f"cifar-10-batches-bin/{name}.bin") for name in names)
        content = bytearray().join(cast(IO[bytes], file).read() for file in files)
        records = torch.frombuffer(content, dtype=torch.uint8).view(-1, 1 + 3 * 32 * 32)
        images = records[:, 1:].reshape(-1, 3, 32, 32)
        return Dataset(images / 255, records[:, 0].long(), 10, "CIFAR-10")

    with tarfile.open(_download(_CIFAR10, _CIFAR10_MD5)) as archive:
        train = part(archive, [f"data_batch_{number}" for number in range(1, 6)])
        return Split(train, part(archive, ["test_batch"]))
