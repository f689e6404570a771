r"""Points on spheres and in hyperbolic space: where losses on embeddings want them to go.

On the sphere :math:`S^{D-1}` embeddings are directions: every function here normalizes its
embeddings itself, so that their length does not matter and every force is tangential. All of
``uniformity_loss``, ``hyperspherical_energy`` and the contrastive losses are sums of a kernel over
pairs; with unit vectors :math:`u, v` the kernels

.. math:: e^{-t \|u - v\|^2} = e^{2t (u \cdot v - 1)}

of Gauss and of von Mises and Fisher are the same one, with concentration :math:`\kappa = 2t`, and a
temperature is :math:`\tau = 1/\kappa`.

The Poincaré ball of curvature :math:`-c` is the set :math:`c \|x\|^2 < 1`. Its functions compute in
float64 whatever comes in and form :math:`1 - c\|x\|^2` and differences without cancellation; they
keep a margin of four units in the last place of the input's dtype to the boundary. With c = 0 they
are those of Euclidean space (with the distance doubled).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lossbook._contract import (
    check_float,
    check_reduction,
    check_target,
    expectation,
    is_concrete,
    reduce,
    require,
    require_shape,
    restore,
)
from lossbook._pairs import full_precision, inner, unit

__all__ = [
    "HyperbolicClassifier",
    "HypoLoss",
    "PseudoNegatives",
    "align_uniform_loss",
    "alignment_loss",
    "clip_norm",
    "compactness_loss",
    "conformal_factor",
    "cross_polytope",
    "dispersion_loss",
    "energy_lower_bound",
    "geodesic_distance",
    "hybrid_contrastive_loss",
    "hyperbolic_logits",
    "hyperspherical_energy",
    "inter_class_separation",
    "intra_class_variation",
    "mobius_add",
    "mobius_scale",
    "norm_loss",
    "norm_penalty",
    "normalized_softmax_logits",
    "normalized_softmax_loss",
    "one_class_hyperbolic_loss",
    "pairwise_confusion_loss",
    "poincare_distance",
    "poincare_exp",
    "poincare_geodesic",
    "poincare_log",
    "project_to_ball",
    "simplex",
    "spherical_class_means",
    "uniformity_limit",
    "uniformity_loss",
    "update_prototypes",
    "vmf_log_partition",
]

_BLOCK = 2**22  # numbers in a block of pairs


# --- Directions -------------------------------------------------------------------------------


def _directions(x: Tensor, name: str, shape: str = "(N, D)") -> Tensor:
    """Checks for vectors (N, D), none of them zero, promotes and normalizes them."""
    vectors = check_float(x, name)
    require(vectors.ndim == 2, f"the shape of {name}", tuple(vectors.shape), shape)
    require(vectors.shape[1] >= 1, f"the dimension of {name}", vectors.shape[1], "at least 1")
    if is_concrete(vectors) and not bool((vectors != 0).any(1).all()):
        raise ValueError(f"{name} must not hold zero vectors: they have no direction")
    return unit(vectors)


def _pair(first: Tensor, second: Tensor, name: str, other: str) -> tuple[Tensor, Tensor]:
    u, v = _directions(first, name), _directions(second, other)
    require_shape(second, tuple(first.shape), other)
    return u, v


def _root(x: Tensor) -> Tensor:
    """Square root with derivative zero at zero, where the true one is infinite."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    r"""Angle between vectors: the length of the shortest way between them on the unit sphere.

    .. math:: d(u, v) = 2 \operatorname{atan2}(\|u - v\|, \|u + v\|)

    which, unlike the arc cosine of :math:`u \cdot v`, keeps small angles and those near
    :math:`\pi`.

    Args:
        first: (..., D), not zero; of any length.
        second: (..., D), of a shape that broadcasts with first.

    Returns:
        (...), angles in radians from 0 to pi, in the dtype of first.

    Raises:
        ValueError: on scalars, or if the last dimensions differ.
        TypeError: if an argument is not floating-point.

    Pitfall: at 0 and pi the angle has a kink; its gradient there is given as zero.

    Example:
        >>> geodesic_distance(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0]))
        tensor(1.5708)
    """
    u, v = check_float(first, "first"), check_float(second, "second")
    require(u.ndim >= 1, "the shape of first", tuple(u.shape), "(..., D)")
    require(
        v.ndim >= 1 and v.shape[-1] == u.shape[-1],
        "the shape of second", tuple(v.shape), f"(..., {u.shape[-1]})",
    )  # fmt: skip
    u, v = unit(u), unit(v)
    apart = _root((u - v).square().sum(-1))
    angle = 2 * torch.atan2(apart, _root((u + v).square().sum(-1)))
    return restore(angle, first.dtype)


# --- Alignment and uniformity -----------------------------------------------------------------


def alignment_loss(
    anchor: Tensor, positive: Tensor, *, alpha: float = 2.0, reduction: str = "mean"
) -> Tensor:
    r"""How far the two views of a thing lie apart on the sphere.

    .. math:: L = \| u_i - v_i \|_2^\alpha, \qquad u = \frac{x}{\|x\|}

    Args:
        anchor: (N, D), embeddings of one view, not zero.
        positive: (N, D), embeddings of the other, row by row.
        alpha: positive.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced; at most 2 to the alpha.

    Raises:
        ValueError: on shapes that differ, zero vectors or an alpha that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``wang2020alignment``.

    Pitfall: alone it is solved by mapping everything to one point.

    Example:
        >>> alignment_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]]))
        tensor(4.)
    """
    u, v = _pair(anchor, positive, "anchor", "positive")
    require(alpha > 0, "alpha", alpha, "positive")
    check_reduction(reduction)
    squares = (u - v).square().sum(1)
    if alpha != 2:
        apart = squares > 0
        squares = torch.where(apart, torch.where(apart, squares, 1) ** (alpha / 2), 0)
    return reduce(squares, torch.ones_like(squares), reduction, anchor.dtype)


def _rows_of_a_block(x: Tensor, width: int = 1) -> int:
    """How many points are paired at a time; more on a GPU, where starting work costs as much as it."""
    return max(1, (8 if x.is_cuda else 1) * _BLOCK // (len(x) * width))


def _over_pairs(block: Callable[[Tensor, Tensor], Tensor], x: Tensor, width: int = 1) -> Tensor:
    """A function of all pairs i < j, block by block: ``block(rows, rows and all after them)``.

    Only results are kept; a block is computed again where its gradient is needed. `width` is how
    many numbers a block needs for each pair. Under the transforms of torch.func, which cannot
    recompute, the blocks of the gradient are kept.
    """
    points = x.shape[0]
    size = _rows_of_a_block(x, width)
    single = size >= points - 1 or torch._C._functorch.is_functorch_wrapped_tensor(x)
    call: Callable[..., Tensor] = block
    if not single:
        call = partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
    starts = range(0, points - 1, size)
    return torch.stack([call(x[i : min(i + size, points - 1)], x[i:]) for i in starts])


def _below(rows: Tensor, others: Tensor) -> Tensor:
    """Which entries (rows, others) are no pairs i < j, where others begin with the rows."""
    return torch.ones(len(rows), len(others), dtype=torch.bool, device=rows.device).tril()


def _log_gaussian(rows: Tensor, others: Tensor, t: float) -> Tensor:
    with full_precision(rows):
        offset = torch.full((), -2 * t, dtype=rows.dtype, device=rows.device)
        exponents = torch.addmm(offset, rows, others.T, alpha=2 * t)
    return exponents.masked_fill(_below(rows, others), -math.inf).logsumexp((0, 1))


class _LogGaussianSum(torch.autograd.Function):
    """The sum over the blocks with its gradient taken in the same pass, as no block is kept.

    A backward pass that is itself to be differentiated computes the blocks again, with a graph.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: float) -> Tensor:
        points, size = len(x), _rows_of_a_block(x)
        top, total = x.new_full((), -math.inf), x.new_zeros(())
        pull = torch.zeros_like(x)
        with full_precision(x):
            for i in range(0, points - 1, size):
                rows, others = x[i : i + size], x[i:]
                e = torch.addmm(x.new_full((), -2 * t), rows, others.T, alpha=2 * t)
                e[:, : len(rows)].masked_fill_(_below(rows, rows), -math.inf)
                before, top = top, torch.maximum(top, e.amax())
                e, rescale = e.sub_(top).exp_(), (before - top).exp()
                total = total * rescale + e.sum()
                pull *= rescale
                pull[i : i + size] += e @ others
                pull[i:] += e.T @ rows
        ctx.t = t
        ctx.save_for_backward(x, pull * (2 * t / total))
        return top + total.log()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        x, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            value = _over_pairs(partial(_log_gaussian, t=ctx.t), x).logsumexp(0)
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return outer[0] * gradient, None


def _log_gaussian_sum(x: Tensor, t: float) -> Tensor:
    """Log of the sum of exp(2 t (x_i . x_j - 1)) over pairs, in blocks where they are many."""
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
    if traced or len(x) * (len(x) - 1) <= _BLOCK:
        return _over_pairs(partial(_log_gaussian, t=t), x).logsumexp(0)
    return _LogGaussianSum.apply(x, t)


def uniformity_loss(embeddings: Tensor, *, t: float = 2.0) -> Tensor:
    r"""How unevenly points lie on the sphere: the log of their mean Gaussian potential.

    .. math:: L = \log \frac{2}{N (N - 1)} \sum_{i < j} e^{-t \| u_i - u_j \|_2^2},
        \qquad u = \frac{x}{\|x\|}

    Zero where all points coincide; for many evenly spread ones it comes down to
    :func:`uniformity_limit`. Pairs are taken in blocks of bounded memory, never as an N by N
    matrix; value, gradient and second derivatives are those of the formula.

    Args:
        embeddings: (N, D), N at least 2, none of them zero.
        t: positive; 1 / sqrt(t) is how far points see each other.

    Returns:
        A scalar in the dtype of the embeddings, between -4 t and 0.

    Raises:
        ValueError: on shapes, fewer than two embeddings, zero vectors or a t that is not positive.
        TypeError: if embeddings are not floating-point.

    Source: ``wang2020alignment``.

    Pitfall: it judges the batch it sees. With few points in many dimensions all pairs are far
    apart, and the loss says little; and where all points coincide its gradient is zero.

    Example:
        >>> round(float(uniformity_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))), 4)
        -8.0
    """
    x = _directions(embeddings, "embeddings")
    require(t > 0, "t", t, "positive")
    require(x.shape[0] >= 2, "the number of embeddings", x.shape[0], "at least 2")
    pairs = x.shape[0] * (x.shape[0] - 1) / 2
    return restore(_log_gaussian_sum(x, t) - math.log(pairs), embeddings.dtype)


def align_uniform_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    alpha: float = 2.0,
    t: float = 2.0,
    uniform_weight: float = 1.0,
) -> Tensor:
    r"""Alignment and uniformity, weighed: what contrastive learning asks for, said directly.

    .. math:: L = L_{\mathrm{align}}(x, x^+) + \lambda\,
        \frac{L_{\mathrm{uniform}}(x) + L_{\mathrm{uniform}}(x^+)}{2}

    Args:
        anchor: (N, D), embeddings of one view, N at least 2.
        positive: (N, D), embeddings of the other.
        alpha: positive, as in :func:`alignment_loss`.
        t: positive, as in :func:`uniformity_loss`.
        uniform_weight: at least 0, the weight of uniformity.

    Returns:
        A scalar in the dtype of the anchors.

    Raises:
        ValueError: on shapes, zero vectors or a hyperparameter out of range.
        TypeError: if an argument is not floating-point.

    Source: ``wang2020alignment``.

    Pitfall: a t that is too large for the dimension sees no neighbors, and uniformity then stops
    pushing.
    """
    u, v = _pair(anchor, positive, "anchor", "positive")
    require(uniform_weight >= 0, "uniform_weight", uniform_weight, "at least 0")
    require(len(u) >= 2, "the number of anchors", len(u), "at least 2")
    align = alignment_loss(u, v, alpha=alpha)
    spread = (uniformity_loss(u, t=t) + uniformity_loss(v, t=t)) / 2
    return restore(align + uniform_weight * spread, anchor.dtype)


def vmf_log_partition(concentration: float, dimension: int) -> float:
    r"""Log of the mean of exp(kappa u.v) over the sphere: what normalizes von Mises and Fisher.

    .. math:: \log \mathbb{E}_{u \sim S^{D-1}} e^{\kappa\, u \cdot v}
        = \log {}_0F_1\bigl(; \tfrac D2; \tfrac{\kappa^2}{4}\bigr)
        = \log \frac{\Gamma(D/2)\, I_{D/2 - 1}(\kappa)}{(\kappa/2)^{D/2 - 1}}

    summed as a series of positive terms, so without cancellation. The density of a direction u
    around v, with respect to the uniform distribution, is the exponential of kappa u.v minus this.

    Args:
        concentration: kappa, at least 0.
        dimension: D of the space around the sphere, at least 1.

    Returns:
        The logarithm, at least 0.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``wang2020alignment``.

    Pitfall: densities in directional statistics are usually taken with respect to the area; they
    differ from these by the area of the sphere.

    Example:
        >>> round(vmf_log_partition(1.0, 3), 6)  # log(sinh(1))
        0.161439
    """
    require(concentration >= 0, "concentration", concentration, "at least 0")
    require(dimension >= 1, "dimension", dimension, "at least 1")
    if concentration == 0:
        return 0.0
    # Terms grow up to about kappa / 2, and fall at least ninefold a step from 3 kappa / 2 on.
    k = torch.arange(int(1.5 * concentration) + 60, dtype=torch.float64)
    half = dimension / 2
    logs = 2 * k * math.log(concentration / 2) - (k + 1).lgamma() - (k + half).lgamma()
    return float(logs.logsumexp(0)) + math.lgamma(half)


def uniformity_limit(dimension: int, *, t: float = 2.0) -> float:
    r"""The uniformity of infinitely many uniform points: the least that can be reached.

    .. math:: \log \mathbb{E}_{u, v \sim S^{D-1}} e^{-t \|u - v\|^2}
        = -2t + \log {}_0F_1\bigl(; \tfrac D2; t^2\bigr)

    Args:
        dimension: D of the space around the sphere, at least 1.
        t: positive, as in :func:`uniformity_loss`.

    Returns:
        The limit, between -2 t and 0; it falls towards -2 t as D grows.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``wang2020alignment``.

    Pitfall: a finite set can lie below it, since the mean is over distinct points: two opposite
    points have -4 t.

    Example:
        >>> round(uniformity_limit(2, t=2.0), 4)
        -1.575
    """
    require(t > 0, "t", t, "positive")
    return vmf_log_partition(2 * t, dimension) - 2 * t


# --- Energies and their optima ----------------------------------------------------------------


def _riesz(rows: Tensor, others: Tensor, s: float) -> Tensor:
    """Sum of d^-s over the pairs, or of -log d for s = 0; from differences, exact also when close.

    A pair that coincides is infinite and pulls nowhere, having no direction.
    """
    squares = (rows[:, None] - others).square().sum(-1)
    apart = squares > 0
    safe = torch.where(apart, squares, 1)
    values = safe ** (-s / 2) if s > 0 else -safe.log() / 2
    values = torch.where(apart, values, math.inf)
    return values.masked_fill(_below(rows, others), 0).sum()


def _check_kernel(kernel: str, s: float, t: float) -> None:
    require(kernel in ("riesz", "log", "gaussian"), "kernel", kernel, "'riesz', 'log', 'gaussian'")
    require(s > 0, "s", s, "positive")
    require(t > 0, "t", t, "positive")


def hyperspherical_energy(
    points: Tensor, *, kernel: str = "riesz", s: float = 1.0, t: float = 2.0
) -> Tensor:
    r"""Energy of points on the sphere that repel each other, summed over pairs.

    .. math:: E = \sum_{i < j} f(\| u_i - u_j \|), \qquad f(d) =
        \begin{cases} d^{-s} & \text{riesz} \\ -\log d & \text{log} \\
        e^{-t d^2} & \text{gaussian} \end{cases}

    On :math:`S^2` with s = 1 this is Thomson's problem of electrons on a sphere. For N up to D + 1
    every kernel is least on the :func:`simplex`, for N = 2 D on the :func:`cross_polytope`
    (both are universally optimal).

    Args:
        points: (N, D), N at least 2, none of them zero.
        kernel: "riesz", "log" or "gaussian".
        s: positive, exponent of the Riesz kernel; the larger, the more only the closest pair counts.
        t: positive, sharpness of the Gaussian kernel.

    Returns:
        A scalar in the dtype of the points; infinite where points coincide, but for Gaussians.

    Raises:
        ValueError: on shapes, fewer than two points, zero vectors or an unknown kernel.
        TypeError: if points are not floating-point.

    Source: ``cohn2007universally``.

    Pitfall: a sum grows like N squared, so energies of different N do not compare. Riesz and log
    kernels form differences, which is exact but takes D numbers for each pair in a block: for many
    thousands of points use :func:`uniformity_loss`.

    Example:
        >>> float(hyperspherical_energy(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])))
        0.5
    """
    x = _directions(points, "points")
    _check_kernel(kernel, s, t)
    require(x.shape[0] >= 2, "the number of points", x.shape[0], "at least 2")
    if kernel == "gaussian":
        return restore(_log_gaussian_sum(x, t).exp(), points.dtype)
    block = partial(_riesz, s=s if kernel == "riesz" else 0.0)
    return restore(_over_pairs(block, x, x.shape[1]).sum(), points.dtype)


def energy_lower_bound(
    number: int, *, kernel: str = "riesz", s: float = 1.0, t: float = 2.0
) -> float:
    r"""No N points on any sphere have less energy than a regular simplex would.

    .. math:: E \ge \frac{N (N - 1)}{2}\, f\Bigl( \sqrt{\tfrac{2 N}{N - 1}} \Bigr)

    since the mean of :math:`\|u_i - u_j\|^2` over pairs is :math:`2 N / (N - 1)` minus
    :math:`2 \|\sum_i u_i\|^2 / (N (N - 1))`, and all kernels fall convexly in the squared distance.

    Args:
        number: N, at least 2.
        kernel: "riesz", "log" or "gaussian", as in :func:`hyperspherical_energy`.
        s: positive.
        t: positive.

    Returns:
        The bound; attained if and only if N is at most D + 1.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``cohn2007universally``.

    Pitfall: for N beyond D + 1 it is not attained, and for many points it is far from the least
    energy.

    Example:
        >>> round(energy_lower_bound(4), 4)  # the regular tetrahedron
        3.6742
    """
    require(number >= 2, "number", number, "at least 2")
    _check_kernel(kernel, s, t)
    square = 2 * number / (number - 1)
    value = {"riesz": square ** (-s / 2), "log": -math.log(square) / 2, "gaussian": None}[kernel]
    return number * (number - 1) / 2 * (math.exp(-t * square) if value is None else value)


def simplex(number: int, *, dtype: torch.dtype | None = None) -> Tensor:
    r"""The corners of a regular simplex: N unit vectors in N - 1 dimensions, all equally far apart.

    .. math:: u_i \cdot u_j = -\frac{1}{N - 1}, \quad i \ne j

    Args:
        number: N, at least 2.
        dtype: torch's default if not given.

    Returns:
        (N, N - 1).

    Raises:
        ValueError: if number is below 2.

    Source: ``cohn2007universally``.

    Pitfall: for classes there must be room: N points need N - 1 dimensions.

    Example:
        >>> (simplex(3, dtype=torch.float64) @ simplex(3, dtype=torch.float64).T).round(decimals=4)
        tensor([[ 1.0000, -0.5000, -0.5000],
                [-0.5000,  1.0000, -0.5000],
                [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    require(number >= 2, "number", number, "at least 2")
    k = torch.arange(1, number, dtype=torch.float64)
    corner = torch.arange(number)[:, None]
    # Helmert's basis of the space orthogonal to (1, ..., 1), one vector a column.
    basis = torch.where(corner < k, 1.0, torch.where(corner == k, -k, 0.0)) / (k * (k + 1)).sqrt()
    return (basis * math.sqrt(number / (number - 1))).to(dtype or torch.get_default_dtype())


def cross_polytope(dimension: int, *, dtype: torch.dtype | None = None) -> Tensor:
    r"""The corners of the cross-polytope: the 2 D unit vectors along the axes, both ways.

    .. math:: \pm e_1, \dots, \pm e_D

    Args:
        dimension: D, at least 1.
        dtype: torch's default if not given.

    Returns:
        (2 D, D).

    Raises:
        ValueError: if dimension is below 1.

    Source: ``cohn2007universally``.

    Pitfall: between D + 1 and 2 D points there is no configuration that is best for every kernel.
    """
    require(dimension >= 1, "dimension", dimension, "at least 1")
    axes = torch.eye(dimension, dtype=dtype)
    return torch.cat([axes, -axes])


# --- Norms of weights -------------------------------------------------------------------------


def norm_loss(weight: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""Pushes every filter of a layer towards unit norm.

    .. math:: R = \sum_i (1 - \| w_i \|_2)^2

    Its zeros are the oblique manifold, a product of unit spheres. Added to the loss of the task
    with a coefficient of the user's; see :func:`norm_penalty` for all layers of a model.

    Args:
        weight: (R, ...), a filter in every row: of a linear layer (out, in), of a convolution
            (out, in, height, width).
        reduction: "none", "mean" or "sum".

    Returns:
        The penalty, a scalar in the dtype of the weight, or (R,) unreduced.

    Raises:
        ValueError: if weight has fewer than two dimensions.
        TypeError: if weight is not floating-point.

    Source: ``georgiou2021norm``.

    Pitfall: a filter of zeros has no direction to grow in, so its gradient is zero and it stays.

    Example:
        >>> norm_loss(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
        tensor(16.)
    """
    w = check_float(weight, "weight")
    require(w.ndim >= 2, "the shape of weight", tuple(w.shape), "(R, ...)")
    check_reduction(reduction)
    penalty = (1 - _root(w.flatten(1).square().sum(1))).square()
    return reduce(penalty, torch.ones_like(penalty), reduction, weight.dtype)


def norm_penalty(model: nn.Module) -> Tensor:
    r"""The :func:`norm_loss` of every weight of a model, summed.

    .. math:: \sum_{\text{layers}} \sum_i (1 - \| w_i \|_2)^2

    Args:
        model: every parameter of it with two or more dimensions counts as a weight.

    Returns:
        A scalar.

    Raises:
        ValueError: if the model has no weight.

    Source: ``georgiou2021norm``.

    Pitfall: the last layer and tables of embeddings are weights, too.
    """
    weights = [p for p in model.parameters() if p.ndim >= 2]
    require(bool(weights), "the number of weights of model", 0, "at least 1")
    return torch.stack([norm_loss(weight) for weight in weights]).sum()


# --- Normalized softmax -----------------------------------------------------------------------


def _check_scale(scale: float | Tensor) -> None:
    if not isinstance(scale, Tensor):
        require(scale > 0, "scale", scale, "positive")


def normalized_softmax_logits(
    embeddings: Tensor, prototypes: Tensor, *, scale: float | Tensor = 16.0
) -> Tensor:
    r"""Scaled cosines between embeddings and one direction per class.

    .. math:: z_k = s\, \frac{x}{\|x\|} \cdot \frac{w_k}{\|w_k\|}

    With class means from :func:`spherical_class_means` as prototypes their largest entry is the
    nearest class mean, for classes that the model was never trained on too.

    Args:
        embeddings: (N, D), none of them zero.
        prototypes: (C, D), none of them zero.
        scale: positive, or a tensor that is learned.

    Returns:
        (N, C), in the dtype of the embeddings.

    Raises:
        ValueError: on shapes that do not fit, zero vectors or a scale that is not positive.
        TypeError: if an argument is not floating-point.

    Source: ``wang2017normface``.

    Pitfall: with scale 1 the softmax of C classes cannot exceed e / (e + C - 1); see
    :func:`normalized_softmax_loss`.
    """
    x, w = _directions(embeddings, "embeddings"), _directions(prototypes, "prototypes", "(C, D)")
    require(
        w.shape[1] == x.shape[1],
        "the shape of prototypes", tuple(w.shape), f"(C, {x.shape[1]})",
    )  # fmt: skip
    _check_scale(scale)
    return restore(scale * inner(x, w.to(x.dtype)), embeddings.dtype)


def normalized_softmax_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    prototypes: Tensor,
    scale: float | Tensor = 16.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy over cosines: embeddings of a class gather around its direction.

    .. math:: L = -\log \frac{e^{s\, u \cdot w_y}}{\sum_k e^{s\, u \cdot w_k}}, \qquad
        L \ge \log\bigl( 1 + (C - 1)\, e^{-s\, C / (C - 1)} \bigr)

    with unit vectors u and w. It is the likelihood of classes that are von Mises-Fisher
    distributed with concentration s. The bound holds for balanced classes and is attained by a
    simplex.

    This is the loss that ``pereira2021hyperspherical`` trains novel classes with. What that paper
    adds, in its words a constraint on the latent representation, could not be verified beyond the
    abstract; what is constrained here is that embeddings and prototypes have unit norm.

    Args:
        embeddings: (N, D), none of them zero.
        target: class indices (N,), int64, or probabilities (N, C).
        prototypes: (C, D), the classifier's weight, none of them zero.
        scale: positive, or a tensor that is learned.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, zero vectors or a scale that is not positive.
        TypeError: on embeddings or a target of the wrong dtype.

    Source: ``pereira2021hyperspherical``.

    Pitfall: the scale is a temperature. Too small, and the bound above keeps the loss high and all
    examples pulling; too large, and only the worst example pulls.
    """
    x = check_float(embeddings, "embeddings")
    z = normalized_softmax_logits(x, prototypes, scale=scale)
    return expectation(
        -z.log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=embeddings.dtype,
    )


def spherical_class_means(embeddings: Tensor, target: Tensor, *, classes: int) -> Tensor:
    r"""The direction of each class: the normalized sum of its embeddings' directions.

    .. math:: \mu_k = \frac{\sum_{i : y_i = k} u_i}{\| \sum_{i : y_i = k} u_i \|}

    It is the maximum-likelihood mean of a von Mises-Fisher distribution.

    Args:
        embeddings: (N, D), none of them zero.
        target: (N,), int64, classes.
        classes: C, at least 1; each needs an example.

    Returns:
        (C, D), unit vectors in the dtype of the embeddings.

    Raises:
        ValueError: on shapes or labels out of range, a class without examples, or one whose
            embeddings cancel.
        TypeError: on embeddings or a target of the wrong dtype.

    Source: ``pereira2021hyperspherical``.

    Pitfall: for a class spread over the whole sphere it is a direction by accident.
    """
    x = _directions(embeddings, "embeddings")
    require(classes >= 1, "classes", classes, "at least 1")
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise TypeError(f"target must be an int64 tensor, got {getattr(target, 'dtype', target)}")
    check_target(target, torch.Size((x.shape[0], classes)), -100)
    members = F.one_hot(target, classes).to(x.dtype)
    if is_concrete(members) and not bool((members.sum(0) > 0).all()):
        raise ValueError("target must hold every class at least once")
    return restore(_directions(inner(members.T, x.T), "the class means"), embeddings.dtype)


# --- HYPO: one prototype for a class from all domains -------------------------------------------


def compactness_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    prototypes: Tensor,
    temperature: float = 0.1,
    domains: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Pulls embeddings to the prototype of their class: the variation term of HYPO.

    .. math:: L = -\log \frac{e^{u \cdot \mu_y / \tau}}{\sum_k e^{u \cdot \mu_k / \tau}
        + \sum_{j \in B} e^{u \cdot u_j / \tau}}

    where B, with ``domains``, are the batch's examples of the same domain and another class (the
    released training leaves them out) and is empty otherwise; then it is
    :func:`normalized_softmax_loss` with scale one over the temperature.

    Args:
        embeddings: (N, D), none of them zero.
        target: class indices (N,), int64, or probabilities (N, C) without domains.
        prototypes: (C, D), none of them zero.
        temperature: positive.
        domains: (N,), int64; examples of one domain serve each other as negatives.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, zero vectors or a temperature that is not
            positive.
        TypeError: on embeddings or a target of the wrong dtype.

    Source: ``bai2024hypo``.

    Pitfall: prototypes that follow the embeddings by a moving average give no gradient here; what
    keeps classes apart is :func:`dispersion_loss`.
    """
    require(temperature > 0, "temperature", temperature, "positive")
    x = _directions(embeddings, "embeddings")
    z = normalized_softmax_logits(x, prototypes, scale=1 / temperature)
    total = z.logsumexp(1, keepdim=True)  # (N, 1), or (N, C) with the negatives of each label
    if domains is not None:
        check_target(target, z.shape, ignore_index)
        require(not target.is_floating_point(), "target", target.dtype, "int64 with domains")
        require_shape(domains, (x.shape[0],), "domains")
        similar = inner(x, x) / temperature
        largest = torch.maximum(similar.amax(1, keepdim=True), total).detach()
        same_domain = (domains[:, None] == domains) & (target != ignore_index)
        others = (similar - largest).exp().where(same_domain, 0)
        other_class = (target[:, None] != torch.arange(z.shape[1], device=z.device)).to(z.dtype)
        total = largest + ((total - largest).exp() + inner(others, other_class.T)).log()
    return expectation(
        total - z,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=embeddings.dtype,
    )


def dispersion_loss(
    prototypes: Tensor, *, temperature: float = 0.1, reduction: str = "mean"
) -> Tensor:
    r"""Pushes prototypes apart: the separation term of HYPO.

    .. math:: L_i = \log \frac{1}{C - 1} \sum_{j \ne i} e^{\mu_i \cdot \mu_j / \tau}

    As in :func:`uniformity_loss` the kernel is that of von Mises and Fisher; the logarithm is taken
    for each prototype. ``ma2025protogcd`` separates its prototypes with the same term.

    Args:
        prototypes: (C, D), C at least 2, none of them zero.
        temperature: positive.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the prototypes, or (C,) unreduced; at least
        -1 / ((C - 1) tau) in the mean, attained by a simplex.

    Raises:
        ValueError: on shapes, fewer than two prototypes, zero vectors or a temperature that is not
            positive.
        TypeError: if prototypes are not floating-point.

    Source: ``bai2024hypo``.

    Pitfall: on detached prototypes it is a constant; :class:`HypoLoss` differentiates it through
    the last step of their moving average.
    """
    mu = _directions(prototypes, "prototypes", "(C, D)")
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)
    classes = mu.shape[0]
    require(classes >= 2, "the number of prototypes", classes, "at least 2")
    itself = torch.eye(classes, dtype=torch.bool, device=mu.device)
    z = (inner(mu, mu) / temperature).masked_fill(itself, -math.inf)
    losses = z.logsumexp(1) - math.log(classes - 1)
    return reduce(losses, torch.ones_like(losses), reduction, prototypes.dtype)


def update_prototypes(
    prototypes: Tensor, embeddings: Tensor, target: Tensor, *, momentum: float = 0.95
) -> Tensor:
    r"""Moves each prototype towards its class's embeddings, one after another in the batch's order.

    .. math:: \mu_y \leftarrow \frac{a \mu_y + (1 - a) u}{\| a \mu_y + (1 - a) u \|}

    Classes do not touch each other, so all of them take their r-th example at once.

    Args:
        prototypes: (C, D), none of them zero.
        embeddings: (N, D), none of them zero.
        target: (N,), int64, classes.
        momentum: in [0, 1], the share a of the past.

    Returns:
        (C, D), unit vectors in the dtype of the prototypes, differentiable in both arguments.

    Raises:
        ValueError: on shapes, labels or a momentum out of range, or zero vectors.
        TypeError: on an argument of the wrong dtype.

    Source: ``bai2024hypo``.

    Pitfall: the result depends on the order of the batch, a little.
    """
    mu = _directions(prototypes, "prototypes", "(C, D)")
    u = _directions(embeddings, "embeddings").to(mu.dtype)
    require(u.shape[1] == mu.shape[1], "the shape of embeddings", tuple(u.shape),
            f"(N, {mu.shape[1]})")  # fmt: skip
    require(0 <= momentum <= 1, "momentum", momentum, "in [0, 1]")
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise TypeError(f"target must be an int64 tensor, got {getattr(target, 'dtype', target)}")
    check_target(target, torch.Size((u.shape[0], mu.shape[0])), -100)
    number, classes = len(u), len(mu)
    turn = F.one_hot(target, classes).cumsum(0).gather(1, target[:, None]).squeeze(1) - 1
    # The r-th example of class k stands at (r, k); without looking there may be N of a class.
    rounds = int(turn.max()) + 1 if number and is_concrete(turn) else number
    place = turn * classes + target
    examples = u.new_zeros(rounds * classes, u.shape[1]).index_add(0, place, u)
    present = u.new_zeros(rounds * classes).index_add(0, place, torch.ones_like(u[:, 0])) > 0
    tiny = torch.finfo(mu.dtype).tiny
    for example, there in zip(
        examples.view(rounds, *mu.shape), present.view(rounds, classes, 1), strict=True
    ):
        moved = momentum * mu + (1 - momentum) * example
        moved = moved * moved.square().sum(1, keepdim=True).clamp(min=tiny).rsqrt()
        mu = torch.where(there, moved, mu)
    return restore(mu, prototypes.dtype)


class HypoLoss(nn.Module):
    r"""HYPO: embeddings of a class from all domains share one prototype on the sphere.

    .. math:: L = w\, L_{\mathrm{var}} + L_{\mathrm{sep}}

    of :func:`compactness_loss` and :func:`dispersion_loss`. In training mode the prototypes first
    follow the batch by :func:`update_prototypes`. As in the released code, compactness sees them as
    constants, while dispersion is differentiated through this last step: otherwise nothing would
    push classes apart.

    Args:
        classes: C, at least 2.
        dimension: D, at least 1.
        temperature: positive.
        momentum: in [0, 1], share of the past in a prototype.
        variation_weight: at least 0, the weight w; the released script has 2.
        generator: source of the first, random prototypes; torch's own by default. The released
            code starts from the class means instead: assign them to ``prototypes``.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``bai2024hypo``.

    Pitfall: the prototypes are a buffer: they are no parameter, but belong to the model.
    """

    prototypes: Tensor

    def __init__(
        self,
        classes: int,
        dimension: int,
        *,
        temperature: float = 0.1,
        momentum: float = 0.95,
        variation_weight: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        require(classes >= 2, "classes", classes, "at least 2")
        require(dimension >= 1, "dimension", dimension, "at least 1")
        require(temperature > 0, "temperature", temperature, "positive")
        require(0 <= momentum <= 1, "momentum", momentum, "in [0, 1]")
        require(variation_weight >= 0, "variation_weight", variation_weight, "at least 0")
        self.temperature, self.momentum = temperature, momentum
        self.variation_weight = variation_weight
        first = torch.randn(classes, dimension, generator=generator)
        self.register_buffer("prototypes", unit(first))

    def logits(self, embeddings: Tensor) -> Tensor:
        """Scores (N, C) of embeddings (N, D): the largest is the prediction."""
        return normalized_softmax_logits(embeddings, self.prototypes, scale=1 / self.temperature)

    def forward(self, embeddings: Tensor, target: Tensor, domains: Tensor | None = None) -> Tensor:
        """The loss of embeddings (N, D) with target (N,) and, if given, domains (N,)."""
        prototypes = self.prototypes
        if self.training:
            prototypes = update_prototypes(prototypes, embeddings, target, momentum=self.momentum)
            self.prototypes = prototypes.detach()
        variation = compactness_loss(
            embeddings,
            target,
            prototypes=prototypes.detach(),
            temperature=self.temperature,
            domains=domains,
        )
        separation = dispersion_loss(prototypes, temperature=self.temperature)
        return self.variation_weight * variation + separation.to(variation.dtype)


def intra_class_variation(embeddings: Tensor, target: Tensor, domains: Tensor) -> Tensor:
    r"""How much the mean of a class moves from domain to domain, at worst.

    .. math:: V = \max_k \max_{e, e'} \bigl\| \mathbb{E}[u \mid e, k]
        - \mathbb{E}[u \mid e', k] \bigr\|

    The means are those of directions, not normalized. The paper's variation is a supremum of a
    distance between distributions; this is its value for the distance of their means.

    Args:
        embeddings: (N, D), none of them zero.
        target: (N,), int64, classes.
        domains: (N,), int64.

    Returns:
        A scalar in the dtype of the embeddings; zero if no class is seen in two domains.

    Raises:
        ValueError: on shapes that do not fit, an empty batch or zero vectors.
        TypeError: if embeddings are not floating-point.

    Source: ``bai2024hypo``.

    Pitfall: means of few examples differ by chance alone.
    """
    u = _directions(embeddings, "embeddings")
    require(u.shape[0] >= 1, "the number of embeddings", 0, "at least 1")
    require_shape(target, (u.shape[0],), "target")
    require_shape(domains, (u.shape[0],), "domains")
    largest = u.new_zeros(())
    for k in target.unique():
        mine = target == k
        means = torch.stack([u[mine & (domains == e)].mean(0) for e in domains[mine].unique()])
        gaps = _root((means[:, None] - means).square().sum(-1))
        largest = torch.maximum(largest, gaps.max())
    return restore(largest, embeddings.dtype)


def inter_class_separation(prototypes: Tensor) -> Tensor:
    r"""How far apart the prototypes of classes are, in the mean over pairs.

    .. math:: S = \frac{1}{C (C - 1)} \sum_{i \ne j} (1 - \mu_i \cdot \mu_j)

    Args:
        prototypes: (C, D), C at least 2, none of them zero.

    Returns:
        A scalar in the dtype of the prototypes, from 0 (all equal) to C / (C - 1).

    Raises:
        ValueError: on shapes, fewer than two prototypes or zero vectors.
        TypeError: if prototypes are not floating-point.

    Source: ``bai2024hypo``.

    Pitfall: a mean hides two classes that coincide; look at the matrix of cosines as well.
    """
    mu = _directions(prototypes, "prototypes", "(C, D)")
    classes = mu.shape[0]
    require(classes >= 2, "the number of prototypes", classes, "at least 2")
    total = mu.sum(0).square().sum()  # the sum of all cosines, the diagonal's C included
    return restore(1 - (total - classes) / (classes * (classes - 1)), prototypes.dtype)


# --- The Poincaré ball --------------------------------------------------------------------------


def _even(
    s: Tensor, cutoff: float, coefficients: tuple[float, ...], exact: Callable[[Tensor], Tensor]
) -> Tensor:
    """f(sqrt(s)) / sqrt(s) for an odd f: a power series in s where s is small, exact elsewhere."""
    small = s < cutoff
    near = torch.where(small, s, 0.0)
    series = torch.zeros_like(s)
    for coefficient in reversed(coefficients):
        series = series * near + coefficient
    root = torch.where(small, 0.25, s).sqrt()
    return torch.where(small, series, exact(root) / root)


_TANH = (1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925)
_ARTANH = (1.0, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11)
_ARSINH = (1.0, -1 / 6, 3 / 40, -15 / 336, 105 / 3456, -945 / 42240)
_SINH = (1.0, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880, 1 / 39916800)


def _tanhc(s: Tensor) -> Tensor:
    return _even(s, 1e-3, _TANH, torch.tanh)


def _artanhc(s: Tensor) -> Tensor:
    return _even(s, 1e-3, _ARTANH, torch.atanh)


def _arsinhc(s: Tensor) -> Tensor:
    return _even(s, 1e-3, _ARSINH, torch.asinh)


def _sinhc(s: Tensor) -> Tensor:
    return _even(s, 1e-3, _SINH, torch.sinh)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def _vectors(x: Tensor, name: str, c: float) -> Tensor:
    """Checks for vectors (..., D) and a curvature, and takes them to float64."""
    vectors = check_float(x, name)
    require(vectors.ndim >= 1, f"the shape of {name}", tuple(vectors.shape), "(..., D)")
    require(0 <= c < math.inf, "c", c, "at least 0")
    return vectors.double()


def _ball(x: Tensor, name: str, c: float) -> Tensor:
    """Checks, besides, that the vectors are inside the ball."""
    points = _vectors(x, name, c)
    if is_concrete(points) and not bool((c * points.square().sum(-1) < 1).all()):
        raise ValueError(
            f"{name} must lie inside the ball c ||x||^2 < 1, got c ||x||^2 up to "
            f"{float((c * points.detach().square().sum(-1)).max()):.6g}: see project_to_ball"
        )
    return points


def _same_dimension(x: Tensor, y: Tensor, name: str) -> None:
    require(x.shape[-1] == y.shape[-1], f"the shape of {name}", tuple(y.shape),
            f"(..., {x.shape[-1]})")  # fmt: skip


def _inside(x: Tensor, c: float, dtype: torch.dtype) -> Tensor:
    """Pulls points back from the boundary to a margin of the dtype, and rounds them to it."""
    if c > 0:
        limit = (1 - 4 * torch.finfo(dtype).eps) / math.sqrt(c)
        norm = _root(x.square().sum(-1, keepdim=True))
        out = norm > limit
        x = torch.where(out, x * (limit / torch.where(out, norm, 1)), x)
    return restore(x, dtype)


def project_to_ball(x: Tensor, *, c: float = 1.0) -> Tensor:
    r"""Pulls points on or outside the boundary back into the ball, along their radius.

    .. math:: x \leftarrow x \min\Bigl( 1, \frac{1 - 4 \epsilon}{\sqrt c\, \|x\|} \Bigr)

    with the dtype's :math:`\epsilon`. The margin lies at distance :math:`\log(1/(2\epsilon))
    / \sqrt c` from the center: 15 in float32, 35 in float64, 6 in float16, 4 in bfloat16 for c = 1.

    Args:
        x: (..., D).
        c: at least 0, minus the curvature.

    Returns:
        (..., D), in the dtype of x.

    Raises:
        ValueError: on scalars or a negative c.
        TypeError: if x is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: distances between points that were pulled back are those of the margin, whatever they
    were before.

    Example:
        >>> project_to_ball(torch.tensor([3.0, 4.0], dtype=torch.float64)).norm() < 1
        tensor(True)
    """
    return _inside(_vectors(x, "x", c), c, x.dtype)


def clip_norm(x: Tensor, *, radius: float = 2.0) -> Tensor:
    r"""Shortens vectors that are longer than a radius: feature clipping before the ball.

    .. math:: x \leftarrow x \min\Bigl( 1, \frac{r}{\|x\|} \Bigr)

    Args:
        x: (..., D), Euclidean features.
        radius: positive; 2 in the code of Hyp-OC.

    Returns:
        (..., D), in the dtype of x.

    Raises:
        ValueError: on scalars or a radius that is not positive.
        TypeError: if x is not floating-point.

    Source: ``narayan2024hypoc``.

    Pitfall: a clipped vector has no radial gradient, so the loss cannot shorten it further.
    """
    vectors = _vectors(x, "x", 0.0)
    require(radius > 0, "radius", radius, "positive")
    norm = _root(vectors.square().sum(-1, keepdim=True))
    long = norm > radius
    clipped = torch.where(long, vectors * (radius / torch.where(long, norm, 1)), vectors)
    return restore(clipped, x.dtype)


def conformal_factor(x: Tensor, *, c: float = 1.0) -> Tensor:
    r"""By how much hyperbolic lengths exceed Euclidean ones at a point of the ball.

    .. math:: \lambda_x = \frac{2}{1 - c \|x\|^2}

    Args:
        x: (..., D), inside the ball.
        c: at least 0, minus the curvature.

    Returns:
        (...), at least 2, in the dtype of x.

    Raises:
        ValueError: on points outside the ball or a negative c.
        TypeError: if x is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: the gradient of a hyperbolic loss in coordinates grows with it; Riemannian gradients
    divide by its square.
    """
    points = _ball(x, "x", c)
    return restore(2 / (1 - c * points.square().sum(-1)), x.dtype)


def _mobius(x: Tensor, y: Tensor, c: float) -> Tensor:
    xy, xx, yy = _dot(x, y), _dot(x, x), _dot(y, y)
    over = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return over / (1 + 2 * c * xy + c * c * xx * yy)


def mobius_add(x: Tensor, y: Tensor, *, c: float = 1.0) -> Tensor:
    r"""Möbius addition: what adding vectors becomes in the ball.

    .. math:: x \oplus y = \frac{(1 + 2 c\, x \cdot y + c \|y\|^2)\, x + (1 - c \|x\|^2)\, y}
        {1 + 2 c\, x \cdot y + c^2 \|x\|^2 \|y\|^2}

    Args:
        x: (..., D), inside the ball.
        y: (..., D), inside the ball, of a shape that broadcasts with x.
        c: at least 0, minus the curvature.

    Returns:
        (..., D), inside the ball, in the dtype of x.

    Raises:
        ValueError: on points outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: it neither commutes nor associates; :math:`(-x) \oplus (x \oplus y) = y` holds.

    Example:
        >>> float(mobius_add(torch.tensor([0.5]), torch.tensor([0.5])))
        0.800000011920929
    """
    first, second = _ball(x, "x", c), _ball(y, "y", c)
    _same_dimension(first, second, "y")
    return _inside(_mobius(first, second, c), c, x.dtype)


def mobius_scale(x: Tensor, factor: float | Tensor, *, c: float = 1.0) -> Tensor:
    r"""Möbius scalar multiplication: r times as far from the center, in the same direction.

    .. math:: r \otimes x = \frac{\tanh(r \operatorname{artanh}(\sqrt c \|x\|))}{\sqrt c}
        \frac{x}{\|x\|}

    Args:
        x: (..., D), inside the ball.
        factor: a number r, or a tensor (...) of them.
        c: at least 0, minus the curvature.

    Returns:
        (..., D), inside the ball, in the dtype of x.

    Raises:
        ValueError: on points outside the ball or a negative c.
        TypeError: if x is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: large factors meet the margin of :func:`project_to_ball`.
    """
    points = _ball(x, "x", c)
    times = factor.double().unsqueeze(-1) if isinstance(factor, Tensor) else factor
    s = c * _dot(points, points)
    stretch = times * _artanhc(s)
    return _inside(points * stretch * _tanhc(stretch * stretch * s), c, x.dtype)


def poincare_distance(x: Tensor, y: Tensor, *, c: float = 1.0) -> Tensor:
    r"""Hyperbolic distance in the ball.

    .. math:: d(x, y) = \frac{2}{\sqrt c} \operatorname{artanh}\bigl(\sqrt c\, \|(-x) \oplus y\|\bigr)
        = \frac{2}{\sqrt c} \operatorname{arsinh}
        \sqrt{\frac{c\, \|x - y\|^2}{(1 - c \|x\|^2)(1 - c \|y\|^2)}}

    The second form is the one computed: the first loses everything once the Möbius difference
    rounds to the boundary. Computed in float64, it is exact to rounding for every float32 point
    inside the ball.

    Args:
        x: (..., D), inside the ball.
        y: (..., D), inside the ball, of a shape that broadcasts with x; ``x[:, None], y`` for all
            pairs.
        c: at least 0, minus the curvature; 0 gives twice the Euclidean distance, the limit.

    Returns:
        (...), in the dtype of x.

    Raises:
        ValueError: on points outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: where points coincide the distance has a kink; its gradient there is given as zero.

    Example:
        >>> poincare_distance(torch.zeros(2), torch.tensor([0.5, 0.0]))  # log 3
        tensor(1.0986)
    """
    first, second = _ball(x, "x", c), _ball(y, "y", c)
    _same_dimension(first, second, "y")
    return restore(_distance(first, second, c).squeeze(-1), x.dtype)


def _distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    room = (1 - c * _dot(x, x)) * (1 - c * _dot(y, y))
    squares = _dot(x - y, x - y) / room
    return 2 * _root(squares) * _arsinhc(c * squares)


def poincare_exp(v: Tensor, base: Tensor | None = None, *, c: float = 1.0) -> Tensor:
    r"""Exponential map: the point reached from a base along a tangent vector.

    .. math:: \exp_0(v) = \tanh(\sqrt c \|v\|) \frac{v}{\sqrt c \|v\|}, \qquad
        \exp_x(v) = x \oplus \exp_0\Bigl( \frac{\lambda_x v}{2} \Bigr)

    Args:
        v: (..., D), tangent vectors.
        base: (..., D), inside the ball, of a shape that broadcasts with v; the center by default.
        c: at least 0, minus the curvature.

    Returns:
        (..., D), inside the ball, in the dtype of v.

    Raises:
        ValueError: on bases outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: long vectors end at the margin of :func:`project_to_ball`, and their gradient with
    them: clip first, see :func:`clip_norm`.
    """
    tangent = _vectors(v, "v", c)
    if base is None:
        return _inside(_exp(tangent, c), c, v.dtype)
    x = _ball(base, "base", c)
    _same_dimension(tangent, x, "base")
    step = tangent / (1 - c * _dot(x, x))
    return _inside(_mobius(x, _exp(step, c), c), c, v.dtype)


def _exp(v: Tensor, c: float) -> Tensor:
    return v * _tanhc(c * _dot(v, v))


def poincare_log(y: Tensor, base: Tensor | None = None, *, c: float = 1.0) -> Tensor:
    r"""Logarithmic map: the tangent vector at a base that leads to a point; inverts the exponential.

    .. math:: \log_0(y) = \operatorname{artanh}(\sqrt c \|y\|) \frac{y}{\sqrt c \|y\|}, \qquad
        \log_x(y) = \frac{d(x, y)}{\lambda_x} \frac{(-x) \oplus y}{\|(-x) \oplus y\|}

    Args:
        y: (..., D), inside the ball.
        base: (..., D), inside the ball, of a shape that broadcasts with y; the center by default.
        c: at least 0, minus the curvature.

    Returns:
        (..., D), tangent vectors in the dtype of y.

    Raises:
        ValueError: on points outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: its length in coordinates is not the distance, but that over :math:`\lambda_x`.
    """
    point = _ball(y, "y", c)
    if base is None:
        return restore(point * _artanhc(c * _dot(point, point)), y.dtype)
    x = _ball(base, "base", c)
    _same_dimension(point, x, "base")
    difference = _mobius(-x, point, c)
    s = c * _dot(difference, difference)
    near = s < 0.5
    # Near the boundary artanh of the difference's norm has lost its digits; the distance has not.
    length = torch.where(near, 1.0, _dot(difference, difference)).sqrt()
    ratio = torch.where(near, _artanhc(s.where(near, 0.0)), _distance(x, point, c) / (2 * length))
    return restore((1 - c * _dot(x, x)) * difference * ratio, y.dtype)


def poincare_geodesic(x: Tensor, y: Tensor, time: Tensor, *, c: float = 1.0) -> Tensor:
    r"""Points on the shortest way from x (time 0) to y (time 1), at constant speed.

    .. math:: \gamma(t) = x \oplus \bigl( t \otimes ((-x) \oplus y) \bigr)

    In coordinates a line through the center or an arc of a circle that meets the boundary at right
    angles. Computed on the hyperboloid, as a sum of x and y with positive weights
    :math:`\sinh((1 - t) d) / \sinh d` and :math:`\sinh(t d) / \sinh d`, with d the distance times
    :math:`\sqrt c`: nothing is lost near the boundary.

    Args:
        x: (..., D), inside the ball.
        y: (..., D), inside the ball, of a shape that broadcasts with x.
        time: (T,), times.
        c: at least 0, minus the curvature.

    Returns:
        (T, ..., D), inside the ball, in the dtype of x.

    Raises:
        ValueError: on points outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: evenly spaced times look crowded near the boundary, where a step is shorter to the eye.
    """
    first, second = _ball(x, "x", c), _ball(y, "y", c)
    _same_dimension(first, second, "y")
    t = check_float(time, "time").double()
    require(t.ndim == 1, "the shape of time", tuple(t.shape), "(T,)")
    t = t.reshape(-1, *[1] * max(first.ndim, second.ndim))
    square = c * _distance(first, second, c) ** 2
    whole = _sinhc(square)
    start = (1 - t) * _sinhc((1 - t) ** 2 * square) / whole / (1 - c * _dot(first, first))
    end = t * _sinhc(t**2 * square) / whole / (1 - c * _dot(second, second))
    over = 2 * (start * first + end * second)
    height = start * (1 + c * _dot(first, first)) + end * (1 + c * _dot(second, second))
    return _inside(over / (1 + height), c, x.dtype)


# --- Classification in the ball -----------------------------------------------------------------


def hyperbolic_logits(
    points: Tensor, offsets: Tensor, normals: Tensor, *, c: float = 0.1
) -> Tensor:
    r"""Multinomial logistic regression in the ball: signed, weighed distances to hyperplanes.

    .. math:: z_k = \frac{\lambda_{p_k} \|a_k\|}{\sqrt c} \operatorname{arsinh}
        \frac{2 \sqrt c\, ((-p_k) \oplus x) \cdot a_k}
        {(1 - c \|(-p_k) \oplus x\|^2)\, \|a_k\|}

    With :math:`w = (-p) \oplus x` the fraction simplifies, since
    :math:`\frac{w \cdot a}{1 - c\|w\|^2} = \frac{(1 - c\|p\|^2)\,(x - p) \cdot a
    - c \|x - p\|^2\, p \cdot a}{(1 - c\|p\|^2)(1 - c\|x\|^2)}`, which is what is computed. For
    c to 0 the logits become :math:`4\, (x - p_k) \cdot a_k`.

    Args:
        points: (N, D), inside the ball.
        offsets: (C, D), points p inside the ball, one on each hyperplane.
        normals: (C, D), tangent vectors a at p, orthogonal to the hyperplanes.
        c: at least 0, minus the curvature.

    Returns:
        (N, C), in the dtype of the points.

    Raises:
        ValueError: on points outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``ganea2018hyperbolic``.

    Pitfall: normals are tangent vectors at their offsets; to learn them, keep them at the center
    and transport them, as :class:`HyperbolicClassifier` does.
    """
    x, p = _ball(points, "points", c), _ball(offsets, "offsets", c)
    a = _vectors(normals, "normals", c)
    require(x.ndim == 2, "the shape of points", tuple(x.shape), "(N, D)")
    require(p.ndim == 2 and p.shape[1] == x.shape[1], "the shape of offsets", tuple(p.shape),
            f"(C, {x.shape[1]})")  # fmt: skip
    require_shape(normals, tuple(p.shape), "normals")
    pp, pa = p.square().sum(1), (p * a).sum(1)  # (C,)
    room = 1 - c * x.square().sum(1, keepdim=True)  # (N, 1)
    apart = x.square().sum(1, keepdim=True) - 2 * x @ p.T + pp  # (N, C)
    slope = ((1 - c * pp) * (x @ a.T - pa) - c * apart * pa) / ((1 - c * pp) * room)
    size = a.square().sum(1)
    sine = 4 * c * slope.square() / torch.where(size > 0, size, 1)
    logits = 4 / (1 - c * pp) * slope * _arsinhc(sine)
    return restore(logits, points.dtype)


class HyperbolicClassifier(nn.Module):
    r"""A last layer for the ball: :func:`hyperbolic_logits` with learned hyperplanes.

    .. math:: p_k = \exp_0(\tilde p_k), \qquad a_k = (1 - c \|p_k\|^2)\, \tilde a_k

    Offsets and normals are learned as vectors at the center; normals are transported to their
    offsets along the radius.

    Args:
        dimension: D, at least 1.
        classes: C, at least 1.
        c: at least 0, minus the curvature.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``ganea2018hyperbolic``.

    Pitfall: it takes points of the ball, not features: :func:`poincare_exp` comes before.
    """

    def __init__(self, dimension: int, classes: int, *, c: float = 0.1) -> None:
        super().__init__()
        require(dimension >= 1, "dimension", dimension, "at least 1")
        require(classes >= 1, "classes", classes, "at least 1")
        require(0 <= c < math.inf, "c", c, "at least 0")
        self.c = c
        bound = dimension**-0.5
        self.offset = nn.Parameter(torch.empty(classes, dimension).uniform_(-bound, bound))
        self.normal = nn.Parameter(torch.empty(classes, dimension).uniform_(-bound, bound))

    def hyperplanes(self) -> tuple[Tensor, Tensor]:
        """Offsets inside the ball and normals at them, each (C, D)."""
        offsets = poincare_exp(self.offset, c=self.c)
        room = 1 - self.c * offsets.square().sum(1, keepdim=True)
        return offsets, self.normal * room

    def forward(self, points: Tensor) -> Tensor:
        """Logits (N, C) of points (N, D) inside the ball."""
        return hyperbolic_logits(points, *self.hyperplanes(), c=self.c)


def one_class_hyperbolic_loss(
    real: Tensor,
    negative: Tensor,
    *,
    offsets: Tensor,
    normals: Tensor,
    c: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy of real examples (class 0) against pseudo-negatives (class 1) in the ball.

    .. math:: L = -\log \mathrm{softmax}(z(x))_{[x \text{ is pseudo-negative}]}

    over the logits z of :func:`hyperbolic_logits`: the first loss of Hyp-OC, which learns from one
    class alone.

    Args:
        real: (N, D), real examples inside the ball.
        negative: (M, D), pseudo-negatives inside the ball; see :class:`PseudoNegatives`.
        offsets: (2, D), as in :func:`hyperbolic_logits`.
        normals: (2, D), as in :func:`hyperbolic_logits`.
        c: at least 0, minus the curvature.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the real points, or (N + M,) unreduced.

    Raises:
        ValueError: on points outside the ball, shapes that do not fit or a negative c.
        TypeError: if an argument is not floating-point.

    Source: ``narayan2024hypoc``.

    Pitfall: pseudo-negatives are drawn among features, before the map into the ball.
    """
    check_reduction(reduction)
    x, other = check_float(real, "real"), check_float(negative, "negative")
    require(x.ndim == 2, "the shape of real", tuple(x.shape), "(N, D)")
    require(other.ndim == 2 and other.shape[1] == x.shape[1], "the shape of negative",
            tuple(other.shape), f"(M, {x.shape[1]})")  # fmt: skip
    require_shape(offsets, (2, x.shape[1]), "offsets")
    for points, name in ((real, "real"), (negative, "negative")):
        _ball(points, name, c)
    z = hyperbolic_logits(torch.cat([x, other.to(x.dtype)]), offsets, normals, c=c)
    log_p = z.log_softmax(1)
    losses = -torch.cat([log_p[: len(x), 0], log_p[len(x) :, 1]])
    return reduce(losses, torch.ones_like(losses), reduction, real.dtype)


def pairwise_confusion_loss(points: Tensor, *, c: float = 0.1, reduction: str = "mean") -> Tensor:
    r"""Half the hyperbolic distance between the two halves of a batch: identities get confused.

    .. math:: L = \frac1N \sum_{i = 1}^{N/2} d(x_i, x_{i + N/2})

    The second loss of Hyp-OC draws real examples together, whatever else tells them apart. The
    released code has the arc tangent where :func:`poincare_distance` has artanh: it is bounded,
    and weaker the farther apart two points are. This is the distance as the paper defines it.

    Args:
        points: (N, D), inside the ball, N even.
        c: at least 0, minus the curvature.
        reduction: "none", "mean" (over pairs, of half the distance) or "sum".

    Returns:
        The loss, a scalar in the dtype of the points, or (N / 2,) unreduced.

    Raises:
        ValueError: on an odd number of points, points outside the ball or a negative c.
        TypeError: if points are not floating-point.

    Source: ``narayan2024hypoc``.

    Pitfall: pairs are made by position, so shuffle the batch.
    """
    check_reduction(reduction)
    x = check_float(points, "points")
    require(x.ndim == 2, "the shape of points", tuple(x.shape), "(N, D)")
    require(x.shape[0] % 2 == 0, "the number of points", x.shape[0], "even")
    _ball(points, "points", c)
    first, second = x.chunk(2) if x.shape[0] else (x, x)
    halves = poincare_distance(first, second, c=c) / 2
    return reduce(halves, torch.ones_like(halves), reduction, points.dtype)


class PseudoNegatives(nn.Module):
    r"""Gaussian noise around the moving mean of the real features, to stand for all that is not.

    .. math:: \mu \leftarrow a \mu + (1 - a)\, \bar x, \qquad \tilde x_i \sim N(\mu, \sigma^2 I)

    The first batch sets the mean. The released code stores the plain batch mean for the next step,
    so that it mixes two batches only; here it is the moving average that is stored.

    Args:
        dimension: D of the features, at least 1.
        momentum: in [0, 1], the share a of the past.
        deviation: positive, the standard deviation sigma.

    Raises:
        ValueError: if an argument is out of range.

    Source: ``narayan2024hypoc``.

    Pitfall: sigma is in units of the features: noise that is far from them teaches nothing, noise
    among them hides them.
    """

    mean: Tensor
    started: Tensor

    def __init__(self, dimension: int, *, momentum: float = 0.8, deviation: float = 1.0) -> None:
        super().__init__()
        require(dimension >= 1, "dimension", dimension, "at least 1")
        require(0 <= momentum <= 1, "momentum", momentum, "in [0, 1]")
        require(deviation > 0, "deviation", deviation, "positive")
        self.momentum, self.deviation = momentum, deviation
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, features: Tensor) -> Tensor:
        """As many pseudo-negatives as features (N, D); in training mode the mean moves first."""
        x = check_float(features, "features").detach()
        expected = f"(N, {self.mean.shape[0]})"
        require(x.ndim == 2 and x.shape[1] == self.mean.shape[0] and x.shape[0] >= 1,
                "the shape of features", tuple(x.shape), expected)  # fmt: skip
        if self.training:
            mean = x.mean(0).to(self.mean.dtype)
            mixed = self.momentum * self.mean + (1 - self.momentum) * mean
            self.mean = torch.where(self.started, mixed, mean)
            self.started = torch.ones_like(self.started)
        return restore(self.mean + self.deviation * torch.randn_like(x), features.dtype)


def hybrid_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    mix: float = 0.5,
    temperature: float = 0.07,
    c: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    r"""InfoNCE by angle and by hyperbolic distance, mixed.

    .. math:: L = (1 - \lambda)\, \ell_{\cos(\cdot, \cdot)} + \lambda\, \ell_{-d(\cdot, \cdot)},
        \qquad \ell_s = -\log \frac{e^{s(x_i, x_i^+)/\tau}}{\sum_{j \ne i} e^{s(x_i, x_j)/\tau}}

    where j runs over both views of the batch, and each of them is an anchor once. Hyperbolic
    category discovery ramps :math:`\lambda` up during training and mixes in a supervised term of
    the same form for labeled examples.

    Args:
        anchor: (N, D), one view, inside the ball, none of them zero.
        positive: (N, D), the other view.
        mix: in [0, 1], the share of the distance.
        temperature: positive.
        c: at least 0, minus the curvature.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the anchors, or (N,) unreduced (the mean of two views).

    Raises:
        ValueError: on points outside the ball, zero vectors, shapes or numbers out of range.
        TypeError: if an argument is not floating-point.

    Source: ``liu2025hyperbolic``.

    Pitfall: cosines end at one, distances do not, so the same temperature is far sharper for
    distances between points near the boundary.
    """
    u, v = _pair(anchor, positive, "anchor", "positive")
    x, y = _ball(anchor, "anchor", c), _ball(positive, "positive", c)
    require(0 <= mix <= 1, "mix", mix, "in [0, 1]")
    require(temperature > 0, "temperature", temperature, "positive")
    check_reduction(reduction)
    number = u.shape[0]
    views = torch.cat([x, y])
    angles = torch.cat([u, v]).double()
    partner = torch.arange(2 * number, device=u.device).roll(number)
    itself = torch.eye(2 * number, dtype=torch.bool, device=u.device)

    def info_nce(similarity: Tensor) -> Tensor:
        z = (similarity / temperature).masked_fill(itself, -math.inf)
        both = z.logsumexp(1) - z.gather(1, partner[:, None]).squeeze(1)
        return (both[:number] + both[number:]) / 2

    by_distance = info_nce(-_distance(views[:, None], views, c).squeeze(-1))
    losses = (1 - mix) * info_nce(inner(angles, angles)) + mix * by_distance
    return reduce(losses, torch.ones_like(losses), reduction, anchor.dtype)
