r"""Neural collapse: the geometry that training ends in, and what imbalance does to it.

Throughout, :math:`H \in \mathbb{R}^{N \times D}` are features (a row for each example),
:math:`\mu_k` the mean of class :math:`k`, :math:`W \in \mathbb{R}^{K \times D}` the last layer's
weights, :math:`n_k` the number of examples of class :math:`k` and :math:`N = \sum_k n_k`.

The *unconstrained features model* takes the network away: the features themselves are the
parameters. What is left is small enough to be solved, by :func:`square_loss_optimum`,
:func:`cross_entropy_optimum` and :func:`contrastive_bound`, and is what networks are measured
against with :func:`collapse_metrics`.

Features that are products of matrices make the nuclear norm: with :math:`M` layers,
:math:`p = 2 / (M + 1)` and :math:`\Lambda = (\lambda_H \lambda_1 \cdots \lambda_M)^{1/(M+1)}`,

.. math:: \min_{W_M \cdots W_1 H = Z} \sum_i \frac{\lambda_i}{2} \|W_i\|_F^2
    + \frac{\lambda_H}{2} \|H\|_F^2 = \frac{\Lambda}{p} \sum_j \sigma_j(Z)^p ,

by the inequality of arithmetic and geometric means, with equality where every factor has its share
:math:`\Lambda \sigma_j^p / \lambda_i` of each squared singular value.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import check_float, is_concrete, require, require_shape, restore
from lossbook.representation.contrastive import supervised_contrastive_loss

__all__ = [
    "Optimum",
    "SparseFrame",
    "batch_binding",
    "binds",
    "class_means",
    "class_scatter",
    "collapse_metrics",
    "contrastive_bound",
    "contrastive_objective",
    "cross_entropy_optimum",
    "feature_cosines",
    "fisher_ratio",
    "frame_distance",
    "frame_gram",
    "max_norm",
    "minority_threshold",
    "nearest_center_agreement",
    "orthogonal_frame",
    "realign",
    "self_duality",
    "simplex_etf",
    "sparse_etf",
    "square_loss_optimum",
    "unconstrained_objective",
    "within_class_variability",
]


# --- Checks -----------------------------------------------------------------------------------


def _check_features(features: Tensor, name: str = "features") -> Tensor:
    h = check_float(features, name)
    shape = tuple(h.shape)
    require(h.ndim == 2 and 0 not in shape, f"the shape of {name}", shape, "(N, D), not empty")
    return h


def _check_labels(labels: Tensor, examples: int, classes: int) -> Tensor:
    """Checks labels and gives the membership (N, K) of examples in classes, none of them empty."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, got {getattr(labels, 'dtype', labels)}")
    require_shape(labels, (examples,), "labels")
    require(classes >= 1, "classes", classes, "at least 1")
    member = labels[:, None] == torch.arange(classes, device=labels.device)
    if is_concrete(labels):
        if bool(((labels < 0) | (labels >= classes)).any()):
            raise ValueError(
                f"labels must hold classes 0 to {classes - 1}, "
                f"got values from {int(labels.min())} to {int(labels.max())}"
            )
        empty = (~member.any(0)).nonzero().flatten().tolist()
        require(not empty, "labels", f"none of class {empty}", "of every class at least once")
    return member


def _check_counts(class_counts: Tensor) -> Tensor:
    """Numbers of examples (K,) in float64, each at least one."""
    if not isinstance(class_counts, Tensor) or class_counts.dtype == torch.bool:
        raise TypeError(f"class_counts must be a tensor of numbers, got {class_counts!r}")
    shape = tuple(class_counts.shape)
    require(len(shape) == 1 and shape[0] >= 2, "the shape of class_counts", shape, "(K,), K >= 2")
    if is_concrete(class_counts):
        valid = (class_counts > 0) & class_counts.isfinite()
        require(bool(valid.all()), "class_counts", class_counts, "positive, for every class")
    return class_counts.double()


def _check_decay(
    weight_decay: float | Sequence[float], feature_decay: float
) -> tuple[list[float], float, float]:
    """Weight decays as a list, the exponent p and the common rate Lambda."""
    decays = [weight_decay] if isinstance(weight_decay, int | float) else list(weight_decay)
    require(len(decays) >= 1, "weight_decay", weight_decay, "a number for each layer")
    require(all(0 < d < math.inf for d in decays), "weight_decay", weight_decay, "positive")
    require(0 < feature_decay < math.inf, "feature_decay", feature_decay, "positive")
    factors = len(decays) + 1
    logs = sum(math.log(d) for d in [*decays, feature_decay])
    return decays, 2 / factors, math.exp(logs / factors)


def _check_frame(frame: str) -> None:
    require(frame in ("simplex", "orthogonal"), "frame", frame, "'simplex' or 'orthogonal'")


# --- Frames -----------------------------------------------------------------------------------


def _rotate(
    vectors: Tensor,
    dimension: int,
    generator: torch.Generator | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """Puts vectors (K, R) into the first R of D dimensions, or into random ones."""
    rank = vectors.shape[1]
    if generator is None:
        placed = F.pad(vectors, (0, dimension - rank))
    else:
        noise = torch.randn(
            dimension, rank, generator=generator, dtype=torch.float64, device=generator.device
        ).cpu()
        q, r = torch.linalg.qr(noise)
        placed = vectors @ (q * r.diagonal().sign()).T  # the signs make it uniform over rotations
    return placed.to(dtype=dtype or torch.get_default_dtype(), device=device)


def simplex_etf(
    classes: int,
    dimension: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""A simplex equiangular tight frame: K unit vectors that are as far apart as can be.

    .. math:: m_k^\top m_k = 1, \qquad m_k^\top m_l = -\frac{1}{K - 1}, \qquad \sum_k m_k = 0

    Args:
        classes: number K of vectors, at least 2.
        dimension: D, at least K - 1.
        generator: draws a random orientation; without it the first K - 1 coordinates are used.
        dtype: of the result, torch's default if not given.
        device: of the result.

    Returns:
        The vectors as rows, (K, D).

    Raises:
        ValueError: if there are fewer than two classes or dimension is below K - 1.

    Source: ``papyan2020prevalence``.

    Pitfall: K vectors at these angles do not fit into fewer than K - 1 dimensions. A last layer
    narrower than the number of classes has to collapse to something else.

    Example:
        >>> vectors = simplex_etf(4, 3, dtype=torch.float64)
        >>> [round(number, 4) for number in (vectors @ vectors.T)[0].tolist()]
        [1.0, -0.3333, -0.3333, -0.3333]
    """
    require(classes >= 2, "classes", classes, "at least 2")
    require(dimension >= classes - 1, "dimension", dimension, f"at least {classes - 1}")
    row = torch.arange(classes, dtype=torch.float64)[:, None]
    column = torch.arange(1, classes, dtype=torch.float64)
    helmert = ((row < column).double() - column * (row == column)) / (column * (column + 1)).sqrt()
    vectors = math.sqrt(classes / (classes - 1)) * helmert
    return _rotate(vectors, dimension, generator, dtype, device)


def orthogonal_frame(
    classes: int,
    dimension: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """K unit vectors at right angles.

    Args:
        classes: number K of vectors, at least 1.
        dimension: D, at least K.
        generator: draws a random orientation; without it the vectors are axes.
        dtype: of the result, torch's default if not given.
        device: of the result.

    Returns:
        The vectors as rows, (K, D).

    Raises:
        ValueError: if there is no class or dimension is below K.

    Source: ``kini2023symmetric``.

    Pitfall: it needs one dimension more than the simplex. Centered by its mean it *is* a simplex,
    so a metric that centers cannot tell the two apart.

    Example:
        >>> orthogonal_frame(2, 3)
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """
    require(classes >= 1, "classes", classes, "at least 1")
    require(dimension >= classes, "dimension", dimension, f"at least {classes}")
    return _rotate(torch.eye(classes).double(), dimension, generator, dtype, device)


def frame_gram(
    classes: int,
    frame: str = "simplex",
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Inner products of the unit vectors of a frame.

    .. math:: G_\text{simplex} = \frac{K}{K - 1} \Bigl( I - \frac{1}{K} 1 1^\top \Bigr),
        \qquad G_\text{orthogonal} = I

    Args:
        classes: number K of vectors, at least 2.
        frame: "simplex" or "orthogonal".
        dtype: of the result, torch's default if not given.
        device: of the result.

    Returns:
        The Gram matrix (K, K).

    Raises:
        ValueError: for fewer than two classes or an unknown frame.

    Source: ``papyan2020prevalence``.

    Pitfall: a Gram matrix forgets the orientation; two frames with the same one differ by a
    rotation or a reflection.
    """
    require(classes >= 2, "classes", classes, "at least 2")
    _check_frame(frame)
    identity = torch.eye(classes, dtype=dtype, device=device)
    return identity if frame == "orthogonal" else (classes * identity - 1) / (classes - 1)


def frame_distance(vectors: Tensor, frame: str = "simplex") -> Tensor:
    r"""How far vectors are from a frame, whatever their scale and orientation.

    .. math:: \Bigl\| \frac{V V^\top}{\|V V^\top\|_F} - \frac{G}{\|G\|_F} \Bigr\|_F

    Args:
        vectors: (K, D), at least 2 rows: class means (centered, for the simplex) or weights.
        frame: "simplex" or "orthogonal", whose Gram matrix is G.

    Returns:
        The distance, a scalar between 0 and 2 in the dtype of the vectors.

    Raises:
        ValueError: on shapes, an unknown frame, or if all vectors are zero.
        TypeError: if vectors are not floating-point.

    Source: ``kini2023symmetric``.

    Pitfall: it asks for equal norms as well as for the angles; a class that has collapsed to zero
    shows as distance even where all others are perfect.

    Example:
        >>> frame_distance(torch.eye(3), "orthogonal")
        tensor(0.)
    """
    v = _check_features(vectors, "vectors")
    if is_concrete(v):
        require(bool(v.any()), "vectors", "only zeros", "not all zero")
    v = v / v.abs().amax()
    gram = v @ v.T
    target = frame_gram(len(v), frame, dtype=v.dtype, device=v.device)
    distance = torch.linalg.matrix_norm(
        gram / torch.linalg.matrix_norm(gram) - target / torch.linalg.matrix_norm(target)
    )
    return restore(distance, vectors.dtype)


# --- Metrics ----------------------------------------------------------------------------------


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    r"""The mean feature :math:`\mu_k` of every class.

    Args:
        features: (N, D).
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, each with at least one example.

    Returns:
        The means as rows, (K, D).

    Raises:
        ValueError: on shapes, labels out of range, or a class without an example.
        TypeError: on features or labels of the wrong dtype.

    Source: ``papyan2020prevalence``.

    Pitfall: on an accelerator, and under vmap, values are not looked at: there an empty class
    gives a row of nan.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
        tensor([[2.],
                [5.]])
    """
    h = _check_features(features)
    member = _check_labels(labels, len(h), classes).to(h.dtype)
    return restore(member.T @ h / member.sum(0)[:, None], features.dtype)


class _Classes(NamedTuple):
    """Class means, and the share of each class and of each example in an average."""

    means: Tensor  # (K, D), float64
    residuals: Tensor  # (N, D), what is left of the features
    share: Tensor  # (K,), sums to one
    weight: Tensor  # (N,), sums to one
    center: Tensor  # (D,), the mean of the class means by their share


def _classes(features: Tensor, labels: Tensor, classes: int, weighting: str) -> _Classes:
    expected = "'class' or 'example'"
    require(weighting in ("class", "example"), "weighting", weighting, expected)
    require(classes >= 2, "classes", classes, "at least 2")
    h = _check_features(features)
    h = h if h.device.type == "mps" else h.double()
    member = _check_labels(labels, len(h), classes).to(h.dtype)
    number = member.sum(0)
    means = member.T @ h / number[:, None]
    share = number / len(h) if weighting == "example" else torch.ones_like(number) / classes
    weight = member @ (share / number)
    return _Classes(means, h - member @ means, share, weight, share @ means)


def class_scatter(
    features: Tensor, labels: Tensor, classes: int, *, weighting: str = "class"
) -> tuple[Tensor, Tensor]:
    r"""Scatter within the classes and between them.

    .. math:: \Sigma_W = \sum_k \pi_k \frac{1}{n_k} \sum_{y_i = k} (h_i - \mu_k)(h_i - \mu_k)^\top,
        \qquad \Sigma_B = \sum_k \pi_k (\mu_k - \bar\mu)(\mu_k - \bar\mu)^\top

    with :math:`\bar\mu = \sum_k \pi_k \mu_k`, and :math:`\pi_k = 1/K` or :math:`n_k/N`.

    Args:
        features: (N, D).
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, at least 2, each with at least one example.
        weighting: "class" (all classes count the same) or "example" (all examples do).

    Returns:
        The matrices within and between, (D, D) each.

    Raises:
        ValueError: on shapes, labels out of range, an empty class or an unknown weighting.
        TypeError: on features or labels of the wrong dtype.

    Source: ``papyan2020prevalence``.

    Pitfall: with balanced classes the two weightings agree; under imbalance "example" looks at
    the frequent classes and hardly sees the rare ones.
    """
    c = _classes(features, labels, classes, weighting)
    offset = c.means - c.center
    within = (c.residuals * c.weight[:, None]).T @ c.residuals
    between = (offset * c.share[:, None]).T @ offset
    return restore(within, features.dtype), restore(between, features.dtype)


def within_class_variability(
    features: Tensor, labels: Tensor, classes: int, *, weighting: str = "class"
) -> Tensor:
    r"""NC1: how far features spread within their class, measured by how far apart classes are.

    .. math:: \frac{1}{K} \operatorname{tr} \bigl( \Sigma_W \Sigma_B^+ \bigr)

    Args:
        features: (N, D).
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, at least 2, each with at least one example.
        weighting: "class" or "example", see :func:`class_scatter`.

    Returns:
        A scalar in the dtype of the features, 0 when every class is a point, infinity when all
        class means coincide.

    Raises:
        ValueError: on shapes, labels out of range, an empty class or an unknown weighting.
        TypeError: on features or labels of the wrong dtype.

    Source: ``papyan2020prevalence``.

    Pitfall: spread in directions in which the means do not differ is not seen: the
    pseudo-inverse leaves it out.

    Example:
        >>> features = torch.tensor([[2.0], [4.0], [-2.0], [-4.0]])
        >>> within_class_variability(features, torch.tensor([0, 0, 1, 1]), 2)  # (1 / 9) / 2
        tensor(0.0556)
    """
    c = _classes(features, labels, classes, weighting)
    offset = (c.means - c.center) * c.share.sqrt()[:, None]
    # tr(S_W pinv(S_B)) without a D x D matrix: the residuals in the means' own coordinates.
    _, sigma, directions = torch.linalg.svd(offset, full_matrices=False)
    kept = sigma > 10 * max(offset.shape) * torch.finfo(sigma.dtype).eps * sigma[0]
    inverse = torch.where(kept, sigma.where(kept, 1).reciprocal(), 0)
    projected = c.residuals @ directions.T * inverse
    value = (projected.square().sum(1) * c.weight).sum() / classes
    return value.where(sigma[0] > 0, math.inf).to(features.dtype)


def self_duality(weight: Tensor, means: Tensor) -> Tensor:
    r"""NC3: how far the last layer's rows are from the class means, up to a common scale.

    .. math:: \Bigl\| \frac{W}{\|W\|_F} - \frac{M}{\|M\|_F} \Bigr\|_F

    Args:
        weight: (K, D).
        means: (K, D), class means, centered or not as the loss asks.

    Returns:
        The distance, a scalar between 0 and 2.

    Raises:
        ValueError: on shapes, or if one of the two is zero.
        TypeError: if one is not floating-point.

    Source: ``papyan2020prevalence``.

    Pitfall: compare with *centered* means where the loss does not see a common offset of the
    features (cross-entropy, or the square loss with a bias), with raw means where it does.
    """
    w, m = _check_features(weight, "weight"), _check_features(means, "means")
    require_shape(w, tuple(m.shape), "weight")
    for matrix, name in ((w, "weight"), (m, "means")):
        if is_concrete(matrix):
            require(bool(matrix.any()), name, "only zeros", "not all zero")
    gap = w / torch.linalg.matrix_norm(w) - m / torch.linalg.matrix_norm(m)
    return restore(torch.linalg.matrix_norm(gap), weight.dtype)


def nearest_center_agreement(features: Tensor, means: Tensor, outputs: Tensor) -> Tensor:
    """NC4: the share of examples for which the classifier answers with the nearest class mean.

    Args:
        features: (N, D).
        means: (K, D), class means of the training data.
        outputs: (N, K), the classifier's logits.

    Returns:
        A scalar from 0 to 1.

    Raises:
        ValueError: on shapes.
        TypeError: if an argument is not floating-point.

    Source: ``papyan2020prevalence``.

    Pitfall: it compares two classifiers with each other, not with the labels; both can be wrong.
    """
    h, m = _check_features(features), _check_features(means, "means")
    require(m.shape[1] == h.shape[1], "the shape of means", tuple(m.shape), f"(K, {h.shape[1]})")
    require_shape(outputs, (len(h), len(m)), "outputs")
    nearest = torch.cdist(h, m).argmin(1)
    agreement = (nearest == check_float(outputs, "outputs").argmax(1)).to(h.dtype).mean()
    return restore(agreement, features.dtype)


def collapse_metrics(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    frame: str = "simplex",
    weighting: str = "class",
) -> dict[str, Tensor]:
    r"""The four signs of neural collapse at once; each is 0 at full collapse.

    Args:
        features: (N, D).
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, at least 2, each with at least one example.
        weight: (K, D), the last layer; without it only the features are judged.
        bias: (K,), of the last layer.
        frame: "simplex" (means are centered) or "orthogonal" (they are not).
        weighting: "class" or "example", see :func:`class_scatter`.

    Returns:
        ``"variability"`` (NC1), ``"means"`` (NC2, distance of the means from the frame); with a
        weight also ``"weights"`` (NC2 of the rows), ``"duality"`` (NC3) and ``"disagreement"``
        (NC4, share of examples not answered with the nearest mean).

    Raises:
        ValueError: on shapes, labels out of range, an empty class, zero means or weights, an
            unknown frame or weighting.
        TypeError: on features, labels or weights of the wrong dtype.

    Source: ``papyan2020prevalence``.

    Pitfall: collapse is about the *training* examples. On test data NC1 stays well above zero.

    Example:
        >>> points = simplex_etf(3, 2).repeat_interleave(2, 0)
        >>> metrics = collapse_metrics(points, torch.tensor([0, 0, 1, 1, 2, 2]), 3)
        >>> {name: round(float(value), 5) for name, value in metrics.items()}
        {'variability': 0.0, 'means': 0.0}
    """
    _check_frame(frame)
    c = _classes(features, labels, classes, weighting)
    means = c.means - c.center if frame == "simplex" else c.means
    dtype = features.dtype
    metrics = {
        "variability": within_class_variability(features, labels, classes, weighting=weighting),
        "means": restore(frame_distance(means, frame), dtype),
    }
    if weight is not None:
        w = _check_features(weight, "weight").to(means.dtype)
        require_shape(w, tuple(means.shape), "weight")
        h = features.to(means.dtype)
        outputs = F.linear(h, w, None if bias is None else bias.to(means.dtype))
        metrics["weights"] = restore(frame_distance(w, frame), dtype)
        metrics["duality"] = restore(self_duality(w, means), dtype)
        agreement = nearest_center_agreement(h, c.means, outputs)
        metrics["disagreement"] = restore(1 - agreement, dtype)
    return metrics


def fisher_ratio(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    r"""Fisher's discriminant ratio: scatter between the classes, measured by that within them.

    .. math:: \operatorname{tr} (S_W^{-1} S_B), \qquad
        S_B = \sum_k n_k (\mu_k - \bar h)(\mu_k - \bar h)^\top, \quad
        S_W = \sum_i (h_i - \mu_{y_i})(h_i - \mu_{y_i})^\top

    Args:
        features: (N, D).
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, at least 2, each with at least one example.

    Returns:
        A scalar in the dtype of the features, at least 0. Directions in which nothing varies are
        left out; where means differ in a direction without any spread it is infinite.

    Raises:
        ValueError: on shapes, labels out of range or an empty class.
        TypeError: on features or labels of the wrong dtype.

    Source: ``hasegawa2023exploring``.

    Pitfall: with fewer than D + K examples :math:`S_W` is singular and the ratio infinite. It is
    blind to any invertible linear map of the features.

    Example:
        >>> features = torch.tensor([[2.0], [4.0], [-2.0], [-4.0]])
        >>> fisher_ratio(features, torch.tensor([0, 0, 1, 1]), 2)  # 36 / 4
        tensor(9.)
    """
    c = _classes(features, labels, classes, "example")
    offset = (c.means - c.center) * c.share.sqrt()[:, None]
    _, sigma, directions = torch.linalg.svd(c.residuals / len(c.residuals) ** 0.5, False)
    largest = torch.maximum(sigma[0], torch.linalg.matrix_norm(offset))
    small = 10 * max(c.residuals.shape) * torch.finfo(sigma.dtype).eps * largest
    kept = sigma > small
    projected = offset @ directions.T
    value = torch.where(kept, projected / sigma.where(kept, 1), 0).square().sum()
    seen = torch.where(kept, projected, 0) @ directions
    outside = torch.linalg.matrix_norm(offset - seen) > small
    return value.where(~outside, math.inf).to(features.dtype)


def feature_cosines(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    r"""Mean cosine of two features of one class, and of two features of different classes.

    Where the second is large all features lie in a narrow cone (the *cone effect*); at full
    collapse it is :math:`-1/(K - 1)`.

    Args:
        features: (N, D); a zero vector has cosine 0 with everything.
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, at least 2, each with at least one example.

    Returns:
        The means over all pairs within a class (an example is no pair with itself; nan if there
        is no pair) and over all pairs of different classes, two scalars from -1 to 1.

    Raises:
        ValueError: on shapes, labels out of range or an empty class.
        TypeError: on features or labels of the wrong dtype.

    Source: ``hasegawa2023exploring``.

    Pitfall: frequent classes have more pairs. Features after a ReLU have no negative cosines, so
    their cone is never empty.
    """
    require(classes >= 2, "classes", classes, "at least 2")
    h = _check_features(features)
    h = h if h.device.type == "mps" else h.double()
    member = _check_labels(labels, len(h), classes).to(h.dtype)
    u = F.normalize(h, dim=1, eps=torch.finfo(h.dtype).tiny)
    number, sums = member.sum(0), member.T @ u
    same, everything = sums.square().sum(), sums.sum(0).square().sum()
    itself = u.square().sum()
    pairs = number.square().sum()
    within = (same - itself) / (pairs - len(h))
    between = (everything - same) / (len(h) ** 2 - pairs)
    return restore(within, features.dtype), restore(between, features.dtype)


# --- The unconstrained features model ---------------------------------------------------------


def unconstrained_objective(
    features: Tensor,
    weights: Tensor | Sequence[Tensor],
    labels: Tensor,
    *,
    weight_decay: float | Sequence[float],
    feature_decay: float,
    loss: str = "square",
    bias: Tensor | None = None,
) -> Tensor:
    r"""What is minimized when the features are free: a loss of W h, and weight decay on all.

    .. math:: \frac{1}{2N} \| Z - Y \|_F^2 + \sum_i \frac{\lambda_i}{2} \|W_i\|_F^2
        + \frac{\lambda_H}{2} \|H\|_F^2, \qquad z = W_M \cdots W_1 h + b

    with one-hot rows in Y, or the mean cross-entropy in place of the square.

    Args:
        features: (N, D), free.
        weights: :math:`W_1, \dots, W_M` with shapes that chain, the last (K, ...); or one tensor.
        labels: (N,), int64, from 0 to K - 1.
        weight_decay: :math:`\lambda_i`, positive, one for each layer, or one for all.
        feature_decay: :math:`\lambda_H`, positive.
        loss: "square" or "cross_entropy".
        bias: (K,), not decayed.

    Returns:
        The objective, a scalar in the dtype of the features.

    Raises:
        ValueError: on shapes, labels out of range, decays that are not positive, unknown loss.
        TypeError: on tensors of the wrong dtype.

    Source: ``dang2023neural``.

    Pitfall: the feature decay multiplies the *sum* over examples. Twice the data at the same decay
    is a stronger decay.
    """
    h = _check_features(features)
    layers = [weights] if isinstance(weights, Tensor) else list(weights)
    require(len(layers) >= 1, "weights", weights, "at least one matrix")
    decays = [weight_decay] * len(layers) if isinstance(weight_decay, int | float) else weight_decay
    require(len(decays) == len(layers), "weight_decay", decays, f"{len(layers)} numbers")
    decays, _, _ = _check_decay(decays, feature_decay)
    require(loss in ("square", "cross_entropy"), "loss", loss, "'square' or 'cross_entropy'")
    z = h
    for i, layer in enumerate(layers):
        w = check_float(layer, f"weights[{i}]")
        fits = w.ndim == 2 and w.shape[1] == z.shape[1]
        require(fits, f"the shape of weights[{i}]", tuple(w.shape), f"(..., {z.shape[1]})")
        z = z @ w.T
    z = z if bias is None else z + bias
    classes = z.shape[1]
    target = (labels[:, None] == torch.arange(classes, device=labels.device)).to(z.dtype)
    if is_concrete(labels):
        inside = bool(((labels >= 0) & (labels < classes)).all())
        require(inside, "labels", labels, f"from 0 to {classes - 1}")
    require_shape(labels, (len(h),), "labels")
    if loss == "square":
        fit = (z - target).square().sum() / (2 * len(h))
    else:
        fit = -(target * z.log_softmax(1)).sum() / len(h)
    penalty = feature_decay * h.square().sum()
    for decay, layer in zip(decays, layers, strict=True):
        penalty = penalty + decay * layer.square().sum()
    return restore(fit + penalty / 2, features.dtype)


class Optimum(NamedTuple):
    """A global minimum of the unconstrained features model, up to a rotation.

    Pitfall: only products are unique. Features and weights may be turned together by any rotation
    between two layers, so compare Gram matrices, norms and logits, never coordinates.

    Attributes:
        features: (K, K), the feature that all examples of a class share, one row a class.
        weights: the matrices :math:`W_1, \\dots, W_M`, (K, K) each.
        bias: (K,), zero where there is none.
        objective: the value of :func:`unconstrained_objective` there, a scalar.
    """

    features: Tensor
    weights: tuple[Tensor, ...]
    bias: Tensor
    objective: Tensor

    @property
    def logits(self) -> Tensor:
        """The (K, K) logits, row k those of the examples of class k."""
        z = self.features
        for w in self.weights:
            z = z @ w.T
        return z + self.bias

    @property
    def weight_norms(self) -> Tensor:
        """(K,), lengths of the last layer's rows."""
        return torch.linalg.vector_norm(self.weights[-1], dim=1)

    @property
    def feature_norms(self) -> Tensor:
        """(K,), lengths of the features."""
        return torch.linalg.vector_norm(self.features, dim=1)


def _shrink(target: Tensor, rate: float, layers: int) -> Tensor:
    r"""The minimizers of (s - t)^2 / 2 + (rate / p) s^p over s >= 0, with p = 2 / (layers + 1)."""
    if layers == 1:
        return (target - rate).clamp(min=0)
    p = 2 / (layers + 1)
    # The smallest s that can beat 0; it does so where s + rate s^(p - 1) <= t.
    low = torch.full_like(target, (rate * (layers - 1)) ** (1 / (2 - p)))
    alive = target > low * layers / (layers - 1)
    low, high = torch.minimum(low, target), target
    for _ in range(64):  # bisection on the branch where s + rate s^(p - 1) grows
        middle = (low + high) / 2
        below = middle + rate * middle ** (p - 1) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(alive, high, 0)


def _factor(
    left: Tensor, sigma: Tensor, right: Tensor, counts: Tensor, decays: list[float],
    feature_decay: float, p: float, rate: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Features and weights whose product is left diag(sigma) right^T, at the least cost."""
    root = rate**0.5 * sigma ** (p / 2)
    features = right * (root / feature_decay**0.5) / counts.sqrt()[:, None]
    weights = [torch.diag(root / decay**0.5) for decay in decays]
    weights[-1] = left @ weights[-1]
    return features, tuple(weights)


def square_loss_optimum(
    class_counts: Tensor,
    *,
    weight_decay: float | Sequence[float],
    feature_decay: float,
    bias: bool = False,
) -> Optimum:
    r"""The global minimum of the unconstrained features model under the square loss.

    Write Z for the logits with column k times :math:`\sqrt{n_k}`. The decays act on its singular
    values (see the top of the module), so they are those of the target,
    :math:`t_k = \sqrt{n_k}` without a bias, each shrunk on its own:

    .. math:: \sigma_k = \arg\min_{\sigma \ge 0} \frac{1}{2N} (\sigma - t_k)^2
        + \frac{\Lambda}{p} \sigma^p .

    With one layer this is :math:`[t_k - N \Lambda]_+`, so that, :math:`\lambda_1 = \lambda_W`,

    .. math:: w_k^\top h_k = \Bigl[ 1 - N \sqrt{\lambda_W \lambda_H / n_k} \Bigr]_+, \qquad
        \|w_k\|^2 = \Bigl[ \sqrt{n_k \lambda_H / \lambda_W} - N \lambda_H \Bigr]_+ .

    With more layers :math:`\sigma + N \Lambda \sigma^{p - 1} = t_k` is solved by bisection, and a
    class vanishes with a jump. Without a bias the class directions are orthogonal; with one (not
    decayed) the target is centered, :math:`(I - \frac1N n 1^\top) \operatorname{diag}(\sqrt{n})`,
    and balanced classes form a simplex.

    Args:
        class_counts: (K,), numbers of examples, positive, K at least 2.
        weight_decay: :math:`\lambda_1, \dots, \lambda_M`, positive, one for each layer.
        feature_decay: :math:`\lambda_H`, positive.
        bias: whether the last layer has one.

    Returns:
        The optimum, in float64.

    Raises:
        ValueError: on counts or decays that are not positive.
        TypeError: if class_counts is not a tensor of numbers.

    Source: ``dang2023neural``.

    Pitfall: the features must have room: D at least K (K - 1 with a bias).

    Example:
        >>> counts = torch.tensor([100, 25, 4])
        >>> best = square_loss_optimum(counts, weight_decay=0.02, feature_decay=0.02)
        >>> best.logits.diagonal()  # 1 - 129 * 0.02 / sqrt(n), or 0
        tensor([0.7420, 0.4840, 0.0000], dtype=torch.float64)
    """
    counts = _check_counts(class_counts)
    decays, p, rate = _check_decay(weight_decay, feature_decay)
    total = counts.sum()
    left = right = torch.eye(len(counts), dtype=counts.dtype, device=counts.device)
    target = counts.sqrt()
    if bias:
        centered = torch.diag(target) - torch.outer(counts / total, target)
        left, target, right_t = torch.linalg.svd(centered)
        right = right_t.T
    rate_of_all = rate * float(total)
    sigma = _shrink(target, rate_of_all, len(decays))
    cost = (sigma - target).square() / 2 + rate_of_all / p * sigma**p
    features, weights = _factor(left, sigma, right, counts, decays, feature_decay, p, rate)
    offset = counts / total if bias else torch.zeros_like(counts)
    return Optimum(features, weights, offset, cost.sum() / total)


def minority_threshold(
    examples: float, *, weight_decay: float | Sequence[float], feature_decay: float
) -> float:
    r"""The number of examples at and below which a class vanishes under the square loss.

    .. math:: n^* = \Bigl( \frac{M}{M - 1} \Bigr)^2
        \bigl( (M - 1) N \Lambda \bigr)^{(M + 1)/M}, \qquad
        n^* = N^2 \lambda_W \lambda_H \text{ for } M = 1

    Args:
        examples: number N of all examples, positive.
        weight_decay: positive, one for each of the M layers.
        feature_decay: positive.

    Returns:
        The threshold, of :func:`square_loss_optimum` without a bias.

    Raises:
        ValueError: on arguments that are not positive.

    Source: ``dang2023neural``.

    Pitfall: N counts all classes, so adding examples of *another* class can make a rare class
    vanish.

    Example:
        >>> round(minority_threshold(129, weight_decay=0.02, feature_decay=0.02), 4)
        6.6564
    """
    require(0 < examples < math.inf, "examples", examples, "positive")
    decays, _, rate = _check_decay(weight_decay, feature_decay)
    layers = len(decays)
    if layers == 1:
        return (examples * rate) ** 2
    power = (layers + 1) / layers
    return (layers / (layers - 1)) ** 2 * ((layers - 1) * examples * rate) ** power


def cross_entropy_optimum(
    class_counts: Tensor,
    *,
    weight_decay: float | Sequence[float],
    feature_decay: float,
    tolerance: float = 1e-9,
) -> Optimum:
    r"""The global minimum of the unconstrained features model under cross-entropy.

    With one layer the problem is convex in the logits,

    .. math:: \min_Z \sum_k \frac{n_k}{N} \ell(z_k, k)
        + \Lambda \bigl\| Z \operatorname{diag}(\sqrt{n}) \bigr\|_* ,

    and is solved for any counts by accelerated proximal gradient steps. Balanced classes, whatever
    the number of layers, form a simplex: :math:`z_k - z_l = \zeta` for all :math:`l \ne k`, where
    :math:`\zeta` minimizes

    .. math:: \log \bigl( 1 + (K - 1) e^{-\zeta} \bigr)
        + (K - 1) \frac{\Lambda}{p} (\sqrt{n} \zeta)^p .

    For one layer :math:`\zeta = [\log(1/(\sqrt{n} \Lambda) - (K - 1))]_+`; for more the stationary
    point is found by bisection and compared with :math:`\zeta = 0`.

    Unequal counts bend the simplex. Two classes of equal counts :math:`n` have the same weights
    once :math:`n \le (N \Lambda)^2`, the :func:`minority_threshold` of the square loss: for logits
    that do not tell the two apart, the slope in the direction that would is :math:`\sqrt{n}/N`.

    Args:
        class_counts: (K,), numbers of examples, positive, K at least 2.
        weight_decay: :math:`\lambda_1, \dots, \lambda_M`, positive, one for each layer.
        feature_decay: :math:`\lambda_H`, positive.
        tolerance: positive, of the last step relative to the size of Z, for unequal counts.

    Returns:
        The optimum, in float64.

    Raises:
        ValueError: on counts or decays that are not positive, or unequal counts with more than
            one layer, for which no solution is known.
        RuntimeError: if the tolerance was not reached.
        TypeError: if class_counts is not a tensor of numbers.

    Source: ``dang2023neural``.

    Pitfall: for more than one layer the simplex is the minimum *among* simplices; that nothing
    else is lower is the theorem of the paper, not of this function.

    Example:
        >>> best = cross_entropy_optimum(
        ...     torch.tensor([10, 10, 10]), weight_decay=0.01, feature_decay=0.01
        ... )
        >>> z = best.logits[0]
        >>> float((z[0] - z[1]).exp().round(decimals=3))  # 1 / (sqrt(10) * 0.01) - 2
        29.623
    """
    counts = _check_counts(class_counts)
    decays, p, rate = _check_decay(weight_decay, feature_decay)
    require(tolerance > 0, "tolerance", tolerance, "positive")
    if bool((counts == counts[0]).all()):
        margin = _balanced_margin(len(counts), float(counts[0]), rate, len(decays))
        centered = torch.eye(len(counts)).to(counts) - 1 / len(counts)
        scaled = margin * counts[0].sqrt() * centered
    else:
        require(len(decays) == 1, "weight_decay", weight_decay, "one number for unequal counts")
        scaled = _peeled_logits(counts, rate, tolerance)
    left, sigma, right_t = torch.linalg.svd(scaled)
    sigma = torch.where(sigma > 1e-12 * (1 + sigma[0]), sigma, 0)
    features, weights = _factor(left, sigma, right_t.T, counts, decays, feature_decay, p, rate)
    surprise = -(scaled / counts.sqrt()).log_softmax(0).diagonal()
    objective = (counts * surprise).sum() / counts.sum() + rate / p * (sigma**p).sum()
    return Optimum(features, weights, torch.zeros_like(counts), objective)


def _balanced_margin(classes: int, number: float, rate: float, layers: int) -> float:
    """The margin that minimizes cross-entropy plus decay when all classes are alike."""
    others, p = classes - 1, 2 / (layers + 1)

    def share(margin: float) -> float:  # of one wrong class
        return math.exp(-margin) / (1 + others * math.exp(-margin))

    def value(margin: float) -> float:
        return (
            math.log1p(others * math.exp(-margin)) + others * rate / p * (number**0.5 * margin) ** p
        )

    def bisect(function: Callable[[float], bool], low: float, high: float) -> float:
        """Where a condition that holds at low stops to hold."""
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if function(middle) else (low, middle)
        return low

    # Stationary where margin^(1 - p) share(margin) = rate number^(p / 2); the left side rises to a
    # peak and falls, and the minimum, if there is one, is on the falling side.
    peak = bisect(lambda m: m < (1 - p) * (1 + others * math.exp(-m)), 0.0, float(classes))
    level = math.log(rate * number ** (p / 2))

    def above(m: float) -> bool:
        left = (1 - p) * math.log(m) if m > 0 and p < 1 else 0.0
        return left - m - math.log1p(others * math.exp(-m)) > level

    if not above(peak):
        return 0.0
    margin = bisect(above, peak, 2e3)
    return margin if value(margin) < value(0.0) else 0.0


_STEPS = 50_000  # of the solver below, before it gives up


def _peeled_logits(counts: Tensor, rate: float, tolerance: float) -> Tensor:
    """Minimizes sum_k n_k / N ce(x_k / sqrt(n_k)) + rate ||X||_*, columns x_k, to a tolerance."""
    total, root = counts.sum(), counts.sqrt()
    identity = torch.eye(len(counts)).to(counts)
    step = 2 * float(total)  # the curvature is at most 1 / (2 N)
    x = previous = torch.zeros_like(identity)
    momentum = 1.0
    for _ in range(_STEPS):
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = x + (momentum - 1) / faster * (x - previous)
        slope = ((ahead / root).softmax(0) - identity) * root / total
        left, sigma, right_t = torch.linalg.svd(ahead - step * slope)
        previous, x = x, (left * (sigma - step * rate).clamp(min=0)) @ right_t
        momentum = faster
        if ((ahead - x) * (x - previous)).sum() > 0:  # it overshoots: start the momentum anew
            momentum = 1.0
        if float((ahead - x).norm()) <= tolerance * (1 + float(x.norm())):
            return x
    raise RuntimeError(f"the tolerance {tolerance} was not reached; take a larger one")


# --- Supervised contrast ----------------------------------------------------------------------


def contrastive_objective(
    features: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    nonnegative: bool = False,
    batches: Sequence[Tensor] | None = None,
) -> Tensor:
    r"""The supervised contrastive loss of free features, over one batch or several.

    .. math:: \frac{1}{|\mathcal{B}|} \sum_{B \in \mathcal{B}}
        L_\text{SupCon} \bigl( \phi(h_i), y_i : i \in B \bigr), \qquad
        \phi(h) = h \text{ or } \max(h, 0)

    Args:
        features: (N, D), free.
        labels: (N,), int64, the classes.
        temperature: positive.
        nonnegative: whether a ReLU stands before the loss.
        batches: indices of the examples of each batch; all in one if not given.

    Returns:
        The objective, a scalar in the dtype of the features.

    Raises:
        ValueError: on shapes, no batches, or a temperature that is not positive.
        TypeError: on features or labels of the wrong dtype.

    Source: ``kini2023symmetric``.

    Pitfall: classes that never meet in a batch are never pushed apart, see :func:`binds`.
    """
    h = features.relu() if nonnegative else features
    if batches is None:
        return supervised_contrastive_loss(h, labels, temperature=temperature)
    require(len(batches) >= 1, "batches", batches, "at least one")
    values = [
        supervised_contrastive_loss(h[batch], labels[batch], temperature=temperature)
        for batch in batches
    ]
    return torch.stack(values).mean()


def contrastive_bound(
    class_counts: Tensor, *, temperature: float = 0.1, frame: str = "orthogonal"
) -> Tensor:
    r"""The smallest value of the supervised contrastive loss over free features.

    .. math:: \frac1N \sum_k n_k \log \bigl( n_k - 1 + (N - n_k) e^{-\delta/\tau} \bigr)

    With non-negative features :math:`\delta = 1` and the bound is attained by an orthogonal frame,
    whatever the counts. Without that constraint, and with equal counts,
    :math:`\delta = K/(K - 1)`: a simplex.

    Args:
        class_counts: (K,), numbers of examples, at least 2 each, K at least 2.
        temperature: positive.
        frame: "orthogonal" (features after a ReLU) or "simplex" (equal counts only).

    Returns:
        The bound on the mean over anchors, a scalar in float64.

    Raises:
        ValueError: on counts below 2, a temperature that is not positive, an unknown frame, or
            unequal counts with the simplex.
        TypeError: if class_counts is not a tensor of numbers.

    Source: ``kini2023symmetric``.

    Pitfall: the mean here is over anchors, as in the public code; the paper sums.
    """
    n = _check_counts(class_counts)
    _check_frame(frame)
    require(temperature > 0, "temperature", temperature, "positive")
    if is_concrete(n):
        require(bool((n >= 2).all()), "class_counts", class_counts, "at least 2")
        balanced = frame == "orthogonal" or bool((n == n[0]).all())
        require(balanced, "class_counts", class_counts, "equal for the simplex")
    gap = 1.0 if frame == "orthogonal" else len(n) / (len(n) - 1)
    each = (n - 1 + (n.sum() - n) * math.exp(-gap / temperature)).log()
    return (n * each).sum() / n.sum()


def batch_binding(batches: Sequence[Tensor], labels: Tensor, classes: int) -> list[Tensor]:
    """Adds the same example of every class to every batch, so that all classes meet in each.

    Args:
        batches: indices of the examples of each batch, (B,) int64 each.
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, each with at least one example.

    Returns:
        The batches, each followed by those of the binding examples (the first of every class)
        that it lacks.

    Raises:
        ValueError: on shapes, indices or labels out of range, or an empty class.
        TypeError: on labels or batches of the wrong dtype.

    Source: ``kini2023symmetric``.

    Pitfall: batches grow by up to K examples; with very many classes that is the whole batch.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> batch_binding([torch.tensor([0, 1]), torch.tensor([3])], labels, 2)
        [tensor([0, 1, 2]), tensor([3, 0, 2])]
    """
    member = _check_labels(labels, len(labels), classes)
    binding = member.int().argmax(0)
    for batch in batches:
        _check_batch(batch, len(labels))
    return [torch.cat([batch, binding[~torch.isin(binding, batch)]]) for batch in batches]


def _check_batch(batch: Tensor, examples: int) -> None:
    if not isinstance(batch, Tensor) or batch.dtype != torch.int64:
        raise TypeError(f"batches must be int64 tensors, got {getattr(batch, 'dtype', batch)}")
    require(batch.ndim == 1, "the shape of a batch", tuple(batch.shape), "(B,)")
    if is_concrete(batch):
        inside = bool(((batch >= 0) & (batch < examples)).all())
        require(inside, "batches", batch, f"indices from 0 to {examples - 1}")


def binds(batches: Sequence[Tensor], labels: Tensor, classes: int) -> bool:
    """Whether batches pin an orthogonal frame: whether it is their loss's only minimum.

    In each batch the loss is smallest where examples of one class agree and examples of different
    classes are orthogonal (one of them must have a positive in the batch, or they do not count).
    So the frame is the only answer if within each class the examples are connected by batches they
    share, and every two classes meet in some batch.

    Args:
        batches: indices of the examples of each batch, (B,) int64 each.
        labels: (N,), int64, from 0 to K - 1.
        classes: number K of classes, each with at least one example.

    Returns:
        Whether the condition holds.

    Raises:
        ValueError: on shapes, indices or labels out of range, or an empty class.
        TypeError: on labels or batches of the wrong dtype.

    Source: ``kini2023symmetric``.

    Pitfall: it speaks of features that are not negative and free, and of a *fixed* set of batches;
    batches drawn anew every epoch meet the condition in the long run.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> binds([torch.tensor([0, 1]), torch.tensor([2, 3])], labels, 2)
        False
    """
    member = _check_labels(labels, len(labels), classes).cpu()
    together = torch.eye(len(labels), dtype=torch.bool)
    met = torch.eye(classes, dtype=torch.bool)
    for batch in batches:
        _check_batch(batch, len(labels))
        here = batch.unique().cpu()
        together[here[:, None], here] = True
        number = member[here].sum(0)
        met |= (number >= 2)[:, None] & (number >= 1)
    met |= met.T.clone()
    same = member.int() @ member.int().T > 0
    reach = (together & same).float()
    for _ in range(max(1, math.ceil(math.log2(len(labels))))):
        reach = (reach @ reach > 0).float()
    return bool(met.all()) and bool((reach.bool() == same).all())


# --- Classifiers that are given or repaired ---------------------------------------------------


def max_norm(weight: Tensor, radius: float) -> Tensor:
    r"""Rows that are too long, shortened to a given length: projection onto balls.

    .. math:: w_k \mapsto w_k \min \bigl( 1, r / \|w_k\| \bigr)

    Args:
        weight: (K, D).
        radius: positive.

    Returns:
        The rows, (K, D), in the dtype of the weight; zero rows stay zero.

    Raises:
        ValueError: on shapes, or a radius that is not positive.
        TypeError: if weight is not floating-point.

    Source: ``alshammari2022longtailed``.

    Pitfall: it is a constraint, so it is applied after every step of the optimizer, not once.
    """
    w = _check_features(weight, "weight")
    require(radius > 0, "radius", radius, "positive")
    norm = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return restore(
        w * torch.where(norm > radius, radius / norm.where(norm > 0, 1), 1), weight.dtype
    )


def realign(weight: Tensor, reference: Tensor | None = None) -> Tensor:
    r"""A classifier's directions with equal norms, or with the norms of another classifier.

    .. math:: w_k \mapsto \frac{w_k}{\|w_k\|} \qquad \text{or} \qquad
        w_k \mapsto \frac{\|v_k\|}{\|w_k\|} w_k

    Under imbalance the rows of frequent classes are long. Equal norms take the preference out of a
    global classifier; the norms of a client's own classifier put the client's preference in.

    Args:
        weight: (K, D), rows not zero.
        reference: (K, ...), the rows :math:`v_k` whose norms are taken over.

    Returns:
        The rows, (K, D), in the dtype of the weight.

    Raises:
        ValueError: on shapes, or if a row of weight is zero.
        TypeError: if an argument is not floating-point.

    Source: ``xiao2024fedloge``.

    Pitfall: the paper's public code multiplies the global rows by the client's norms as they are
    and then trains the client's copy for a moment; here both start from unit rows and nothing is
    trained. Biases are not touched.

    Example:
        >>> realign(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """
    w = _check_features(weight, "weight")
    norm = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    if is_concrete(w):
        require(bool((norm > 0).all()), "weight", "a zero row", "without zero rows")
    if reference is None:
        return restore(w / norm, weight.dtype)
    v = _check_features(reference, "reference").to(w.dtype)
    require(len(v) == len(w), "the shape of reference", tuple(v.shape), f"({len(w)}, ...)")
    return restore(w / norm * torch.linalg.vector_norm(v, dim=1, keepdim=True), weight.dtype)


class SparseFrame(NamedTuple):
    """What :func:`sparse_etf` returns.

    Pitfall: look at the residual before use; a mask that leaves too few entries admits no frame.

    Attributes:
        weight: (K, D), unit rows with zeros outside the mask.
        mask: (K, D), bool, where entries may differ from zero.
        residual: a scalar, the largest distance of a cosine from :math:`-1/(K - 1)`.
    """

    weight: Tensor
    mask: Tensor
    residual: Tensor


def sparse_etf(
    classes: int,
    dimension: int,
    *,
    sparsity: float = 0.6,
    generator: torch.Generator | None = None,
    steps: int = 200,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> SparseFrame:
    r"""A simplex frame with zeros: equal norms and equal angles under a random fixed mask.

    A random frame is masked and its remaining entries are fitted, by L-BFGS, to

    .. math:: \min_V \sum_{k \ne l} \Bigl( \frac{v_k^\top v_l}{\|v_k\| \|v_l\|}
        + \frac{1}{K - 1} \Bigr)^2 .

    Args:
        classes: number K of vectors, at least 2.
        dimension: D, at least K - 1.
        sparsity: in [0, 1], the share of entries that are zero.
        generator: draws the orientation and the mask; seed 0 if not given.
        steps: at least 1, iterations of the fit; it stops when the gradient is tiny.
        dtype: of the result, torch's default if not given.
        device: of the result.

    Returns:
        Weight, mask and residual.

    Raises:
        ValueError: on arguments out of range, or a mask that leaves a class without an entry.

    Source: ``xiao2024fedloge``.

    Pitfall: the paper's public code reaches the same end by another road: it penalizes norms other
    than 0.1 and pushes the smallest angle of every row up with Adam. The scale of the rows is left
    to the user; here they have length one.
    """
    require(0 <= sparsity <= 1, "sparsity", sparsity, "in [0, 1]")
    require(steps >= 1, "steps", steps, "at least 1")
    stream = torch.Generator().manual_seed(0) if generator is None else generator
    start = simplex_etf(classes, dimension, generator=stream, dtype=torch.float64)
    order = torch.randperm(start.numel(), generator=stream, device=stream.device).cpu()
    mask = torch.ones(start.numel(), dtype=torch.bool)
    mask[order[: int(sparsity * start.numel())]] = False
    mask = mask.view_as(start)
    require(bool(mask.any(1).all()), "sparsity", sparsity, "low enough to leave every row an entry")

    target = frame_gram(classes, dtype=torch.float64)
    entries = (start * mask).requires_grad_()

    def unit_rows() -> Tensor:
        return F.normalize(entries * mask, dim=1)

    def misfit() -> Tensor:
        optimizer.zero_grad()
        rows = unit_rows()
        value = (rows @ rows.T - target).square().sum()
        value.backward()
        return value

    optimizer = torch.optim.LBFGS(
        [entries], max_iter=steps, tolerance_grad=1e-10, tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    with torch.enable_grad():
        optimizer.step(misfit)
    weight = unit_rows().detach()
    residual = (weight @ weight.T - target).abs().amax()
    dtype = dtype or torch.get_default_dtype()
    return SparseFrame(
        weight.to(device=device, dtype=dtype),
        mask.to(device=device),
        residual.to(device=device, dtype=dtype),
    )
