r"""What a contrastive representation keeps, and when that helps with another task.

An encoder :math:`f` is trained on pairs of views :math:`a(x), a'(x)`, changed copies of one
example. Three things decide what classes it can tell apart later, though it never saw them: how
well the views of an example agree, how far apart the centers of the classes are, and how near views
of different examples of a class come to each other. Only the last is decided before training. In a
linear-Gaussian world all of it can be written down: information, what a linear encoder loses of it,
and the error of a regression on what is left.
"""

import math

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
    restore,
)
from lossbook._distributed import reduce_everywhere, total
from lossbook._pairs import check_embeddings, inner, over_rows, unit
from lossbook.representation.contrastive._batch import check_labels
from lossbook.representation.contrastive.infonce import nt_xent_loss

__all__ = [
    "augmentation_concentration",
    "augmentation_distance",
    "center_divergence",
    "class_centers",
    "cross_correlation_loss",
    "fixed_reweighting_head",
    "gaussian_information",
    "gaussian_regression_error",
    "kl_sufficiency_gap",
    "layerwise_feature_weights",
    "misaligned_share",
    "nearest_center_error",
    "pretext_contrastive_loss",
]


# --- Losses -------------------------------------------------------------------------------------


def cross_correlation_loss(
    anchor: Tensor,
    positive: Tensor,
    *,
    redundancy_weight: float = 5e-3,
    gather: bool = False,
) -> Tensor:
    r"""Each feature correlates with itself in the other view, and with no other feature.

    .. math:: L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2, \qquad
        C = \frac1N \sum_n z_n z_n^{+\top}

    where :math:`z, z^+` are the two views' features, each with mean 0 and variance 1 over the
    batch. There are no negatives: what keeps the features from collapsing is that a constant
    correlates with nothing.

    Args:
        anchor: (N, D), embeddings of one view, N at least 2.
        positive: (N, D), embeddings of the other, row by row.
        redundancy_weight: at least 0, the :math:`\lambda` of what lies off the diagonal.
        gather: whether the batch is that of all ranks; means, variances and correlations are then
            taken over all of them.

    Returns:
        A scalar in the dtype of the anchors, at least 0. A feature that is constant in the batch
        (to rounding) counts as uncorrelated with all.

    Raises:
        ValueError: on shapes that differ, fewer than two rows or a negative weight.
        TypeError: if an argument is not floating-point.

    Source: ``zbontar2021barlow``, whose form ``huang2021generalization`` studies.

    Pitfall: it is a sum over features and their pairs, so its size, and the right weight with it,
    depend on D.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> cross_correlation_loss(z, 3 * z + 5)
        tensor(0.)
        >>> cross_correlation_loss(z, -z)
        tensor(8.)
    """
    a, b = check_embeddings(anchor, "anchor"), check_embeddings(positive, "positive")
    require_shape(positive, tuple(anchor.shape), "positive")
    require(redundancy_weight >= 0, "redundancy_weight", redundancy_weight, "at least 0")
    rows = total(a.new_tensor(float(len(a))), gather)
    if not gather:
        require(len(a) >= 2, "the number of anchors", len(a), "at least 2")
    a, b = _standardized(a, rows, gather), _standardized(b, rows, gather)
    correlation = total(inner(a.mT, b.mT), gather) / rows
    own = correlation.diagonal()
    others = correlation - own.diag_embed()
    loss = (1 - own).square().sum() + redundancy_weight * others.square().sum()
    return restore(loss, anchor.dtype)


def _standardized(x: Tensor, rows: Tensor, gather: bool) -> Tensor:
    """Features of mean 0 and variance 1; those without variance stay 0, with a gradient of moderate size."""
    size = total(x.detach().abs().sum(0) / rows, gather)  # correlations do not depend on it
    x = x / size.where(size > 0, 1)
    x = x - total(x.sum(0), gather) / rows
    variance = total(x.square().sum(0), gather) / rows
    varies = variance > (8 * torch.finfo(x.dtype).eps) ** 2  # of numbers of size one
    return x * variance.where(varies, 1).rsqrt()


def pretext_contrastive_loss(
    anchor: Tensor,
    positive: Tensor,
    logits: Tensor,
    target: Tensor,
    *,
    pretext_weight: float = 0.3,
    temperature: float = 0.5,
    gather: bool = False,
) -> Tensor:
    r"""Two views must agree, and a third must show how it was changed.

    .. math:: L = L_{\text{NT-Xent}}(z, z^+)
        + \lambda\, \frac1M \sum_m -\log \operatorname{softmax}(g(h_m))_{t_m}

    A classifier :math:`g` on the representation :math:`h` before the projection head names the
    change :math:`t_m`, such as one of four rotations or of some permutations of tiles. The contrast
    makes the representation blind to changes; this term keeps the one that is asked for.

    Args:
        anchor: (N, D), projected embeddings of one view.
        positive: (N, D), of the other.
        logits: (M, T), scores of the changes for further views.
        target: (M,), int64, the change that was made to each.
        pretext_weight: at least 0, the :math:`\lambda`; the default is that of the authors' code.
        temperature: positive, that of ``nt_xent_loss``.
        gather: whether the batch is that of all ranks.

    Returns:
        A scalar in the dtype of the anchors.

    Raises:
        ValueError: on shapes, targets out of range or a hyperparameter out of range.
        TypeError: on an argument of the wrong dtype.

    Source: ``kinakh2021scatsimclr``.

    Pitfall: with views that are turned at random the two terms pull against each other: one asks for a
    representation that knows the angle, the other for one that does not.
    """
    first, second = (
        check_embeddings(x, n) for x, n in ((anchor, "anchor"), (positive, "positive"))
    )
    scores = check_float(logits, "logits")
    require(pretext_weight >= 0, "pretext_weight", pretext_weight, "at least 0")
    if not gather:
        require(len(first) >= 1, "the number of anchors", len(first), "at least 1")
    require(scores.ndim == 2, "the shape of logits", tuple(scores.shape), "(M, T)")
    if not isinstance(target, Tensor) or target.dtype != torch.int64:
        raise TypeError(f"target must be an int64 tensor, got {getattr(target, 'dtype', target)}")
    check_target(target, scores.shape, -100)
    contrast = nt_xent_loss(first, second, temperature=temperature, gather=gather)
    surprise = F.cross_entropy(scores, target, reduction="none")
    weights = torch.ones_like(surprise)
    pretext = reduce_everywhere(surprise, weights, "mean", surprise.dtype, gather)
    return restore(contrast + pretext_weight * pretext, anchor.dtype)


# --- Alignment, class centers, concentration ----------------------------------------------------


def _views(views: Tensor, name: str) -> Tensor:
    """Checks for (V, N, ...) and writes out what is behind in rows, (V, N, D)."""
    x = check_float(views, name)
    require(x.ndim >= 3, f"the shape of {name}", tuple(x.shape), "(V, N, ...)")
    require(x.shape[0] >= 1, f"the number of {name}", x.shape[0], "at least 1")
    return x.flatten(2)


def misaligned_share(views: Tensor, *, epsilon: float) -> Tensor:
    r"""How many examples have two views whose embeddings are far apart.

    .. math:: R_\epsilon = P\Bigl[\max_{a, a'} \|u_{a(x)} - u_{a'(x)}\| > \epsilon\Bigr],
        \qquad u = \frac{h}{\|h\|}

    Args:
        views: (V, N, D), the embeddings of V views of each example.
        epsilon: at least 0.

    Returns:
        A scalar between 0 and 1, in the dtype of the views.

    Raises:
        ValueError: on the shape, or an epsilon that is negative.
        TypeError: if views are not floating-point.

    Source: ``huang2021generalization``; that alignment is one of its three factors is in the
    abstract, this form of it is from memory.

    Pitfall: the maximum is over the views that are given. More views can only raise it.
    """
    u = unit(_views(views, "views")).transpose(0, 1)  # (N, V, D)
    require(epsilon >= 0, "epsilon", epsilon, "at least 0")
    apart = over_rows(
        lambda rows: (rows[:, :, None] - rows[:, None]).square().sum(3).amax((1, 2)),
        u.shape[1] ** 2 * u.shape[2],
        u,
    ).sqrt()
    return restore((apart > epsilon).to(u.dtype).mean(), views.dtype)


def class_centers(embeddings: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    r"""The mean direction of each class, of a length that says how much its members agree.

    .. math:: \mu_k = \frac{1}{n_k} \sum_{i : y_i = k} u_i, \qquad u = \frac{h}{\|h\|}

    Args:
        embeddings: (N, D).
        labels: (N,), int64, classes; each must occur.
        classes: C, at least 1.

    Returns:
        (C, D), in the unit ball, in the dtype of the embeddings.

    Raises:
        ValueError: on shapes, labels out of range or a class without examples.
        TypeError: on an argument of the wrong dtype.

    Source: ``huang2021generalization``, whose abstract names centers, their divergence and
    concentration; the exact forms here are from memory.

    Pitfall: these are not unit vectors, and must not be normalized before they are compared: a class
    that is spread out has a short center.
    """
    members = _members(embeddings, labels, classes)
    u = unit(check_embeddings(embeddings, "embeddings"))
    return restore((members / members.sum(0)).mT @ u, embeddings.dtype)


def _members(embeddings: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Who belongs to which class, (N, C), after all checks."""
    x = check_embeddings(embeddings, "embeddings")
    require(classes >= 1, "classes", classes, "at least 1")
    check_labels(labels, len(x))
    if is_concrete(labels):
        present = set(labels.tolist())
        require(
            present == set(range(classes)), "labels", sorted(present), "all of 0 to classes - 1"
        )
    return F.one_hot(labels, classes).to(x.dtype)


def center_divergence(embeddings: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    r"""The largest inner product of two class centers: small if the classes lie apart.

    .. math:: \max_{k \ne l} \mu_k \cdot \mu_l

    Args:
        embeddings: (N, D).
        labels: (N,), int64, classes; each must occur.
        classes: C, at least 2.

    Returns:
        A scalar between -1 and 1, in the dtype of the embeddings.

    Raises:
        ValueError: on shapes, labels out of range or a class without examples.
        TypeError: on an argument of the wrong dtype.

    Source: ``huang2021generalization``.

    Pitfall: it is the worst pair; one pair of classes that look alike hides what happens to the others.
    """
    require(classes >= 2, "classes", classes, "at least 2")
    mu = promote(class_centers(embeddings, labels, classes=classes))
    itself = torch.eye(classes, dtype=torch.bool, device=mu.device)
    return restore(inner(mu, mu).masked_fill(itself, -2).amax(), embeddings.dtype)


def nearest_center_error(embeddings: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    r"""How often the nearest class center is that of another class.

    .. math:: P\bigl[\operatorname{argmin}_k \|u - \mu_k\| \ne y\bigr], \qquad u = \frac{h}{\|h\|}

    Args:
        embeddings: (N, D).
        labels: (N,), int64, classes.
        centers: (C, D), such as :func:`class_centers` of training examples.

    Returns:
        A scalar between 0 and 1, in the dtype of the embeddings.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on an argument of the wrong dtype.

    Source: ``huang2021generalization``.

    Pitfall: it is a weak classifier on purpose. A linear probe can do well where this one fails.
    """
    u = unit(check_embeddings(embeddings, "embeddings"))
    mu = check_embeddings(centers, "centers", "(C, D)")
    require_shape(centers, (len(centers), u.shape[1]), "centers")
    check_labels(labels, len(u))
    if is_concrete(labels):
        within = bool(((labels >= 0) & (labels < len(mu))).all())
        require(within, "labels", labels, f"0 to {len(mu) - 1}")
    scores = inner(u, mu) - mu.square().sum(1) / 2  # largest where the distance is smallest
    return restore((scores.argmax(1) != labels).to(u.dtype).mean(), embeddings.dtype)


def augmentation_distance(views: Tensor) -> Tensor:
    r"""How near views of two examples come to each other.

    .. math:: d_A(x, x') = \min_{a, a'} \| a(x) - a'(x') \|

    Args:
        views: (V, N, ...), V views of each of N examples, as the encoder sees them.

    Returns:
        (N, N), symmetric with zeros on the diagonal, in the dtype of the views.

    Raises:
        ValueError: on the shape.
        TypeError: if views are not floating-point.

    Source: ``huang2021generalization``; from memory, as only the abstract could be read.

    Pitfall: the minimum is over the views that are given, so at least that over all possible ones.
    And it is no metric: two examples that both come near a third may be far from each other.
    """
    x = _views(views, "views")
    number, examples = x.shape[:2]
    everyone = x.flatten(0, 1).double()  # in which the fast form of distances loses nothing
    squares = everyone.square().sum(1)

    def nearest(rows: Tensor) -> Tensor:  # (n, V, D)
        apart = rows.square().sum(2, keepdim=True) + squares - 2 * inner(rows, everyone)
        return apart.amin(1).unflatten(1, (number, examples)).amin(1)

    apart = over_rows(nearest, number * len(everyone), x.transpose(0, 1).double())
    itself = torch.eye(examples, dtype=torch.bool, device=x.device)
    return restore(apart.masked_fill(itself, 0).clamp(min=0).sqrt(), views.dtype)


def augmentation_concentration(
    distances: Tensor, labels: Tensor, *, classes: int, sigma: float = 0.9
) -> tuple[Tensor, Tensor]:
    r"""The smallest delta with which an augmentation is (sigma, delta)-concentrated, from below and above.

    .. math:: \delta(\sigma) = \max_k \; \min_{\substack{S \subseteq C_k \\ |S| \ge \sigma |C_k|}} \;
        \max_{x, x' \in S} d_A(x, x')

    Every class :math:`C_k` has a main part, a share of at least sigma, any two members of which
    have views within delta. To find the best main part is a clique problem, which nobody can solve
    fast, and here without even a triangle inequality. So two bounds are computed, with m the size
    of the main part:

    - above: from each member of the class as a center, the m members nearest to it and their
      diameter; and the whole class without its strays: of the two members that are farthest apart
      the one that is farther from the others goes, until m are left. The best set is a main part.
    - below: every member of a main part has m - 1 others within delta, so delta is at least the
      m-th smallest, over members, of the distance to the (m - 1)-th nearest other.

    Args:
        distances: (N, N), symmetric, of :func:`augmentation_distance`.
        labels: (N,), int64, classes; each must occur.
        classes: C, at least 1.
        sigma: in (0, 1], the share that the main part has of its class.

    Returns:
        The two bounds, scalars in the dtype of the distances; equal where sigma = 1.

    Raises:
        ValueError: on shapes, labels out of range, a class without examples or a sigma out of range.
        TypeError: on an argument of the wrong dtype.

    Source: ``huang2021generalization``; the abstract names the measure, its definition is from
    memory.

    Pitfall: it falls with every augmentation that brings examples together, also those of different
    classes. A small value says nothing by itself: compare it with the distances between classes.

    Example:
        >>> distances = torch.tensor([[0.0, 1.0, 5.0], [1.0, 0.0, 5.0], [5.0, 5.0, 0.0]])
        >>> labels = torch.zeros(3, dtype=torch.int64)
        >>> augmentation_concentration(distances, labels, classes=1, sigma=0.6)
        (tensor(1.), tensor(1.))
    """
    d = check_embeddings(distances, "distances", "(N, N)")
    require_shape(distances, (len(d), len(d)), "distances")
    require(0 < sigma <= 1, "sigma", sigma, "in (0, 1]")
    members = _members(distances, labels, classes) > 0
    bounds = [_main_part(d[own][:, own], sigma) for own in members.unbind(1)]
    lower, upper = (torch.stack(side).amax() for side in zip(*bounds, strict=True))
    return restore(lower, distances.dtype), restore(upper, distances.dtype)


def _main_part(d: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Bounds of the least diameter of a set of at least sigma n of n points with distances d (n, n)."""
    wanted = math.ceil(sigma * len(d) - 1e-9)  # 0.7 * 10 is a little more than 7
    near = d.topk(wanted, dim=1, largest=False)
    lower = near.values[:, -1].sort().values[wanted - 1]
    balls = d[near.indices[:, :, None], near.indices[:, None, :]].amax((1, 2)).amin()
    left = d
    while len(left) > wanted:
        worst = left.amax(1)
        stray = left.sum(1).where(worst == worst.amax(), -1).argmax()
        rest = torch.arange(len(left), device=d.device) != stray
        left = left[rest][:, rest]
    return lower, torch.minimum(balls, left.amax())


# --- A linear-Gaussian world --------------------------------------------------------------------


def _residual(
    x_covariance: Tensor, other: Tensor, cross: Tensor, encoder: Tensor | None, name: str
) -> tuple[Tensor, Tensor]:
    """Checks, and in float64 the covariance (E, E) of the other given W x (or x), and without it."""
    x = check_embeddings(x_covariance, "x_covariance", "(D, D)").double()
    y = check_embeddings(other, name, "(E, E)").double()
    c = check_embeddings(cross, "cross_covariance", "(D, E)").double()
    require_shape(x_covariance, (len(x), len(x)), "x_covariance")
    require_shape(other, (len(y), len(y)), name)
    require_shape(cross, (len(x), len(y)), "cross_covariance")
    if encoder is not None:
        w = check_embeddings(encoder, "encoder", "(K, D)").double()
        require_shape(encoder, (len(w), len(x)), "encoder")
        x, c = w @ x @ w.mT, w @ c
    # A pseudoinverse, as an encoder may give the same feature twice, or none.
    return y - c.mT @ torch.linalg.pinv(x, hermitian=True) @ c, y


def _information(x: Tensor, z: Tensor, cross: Tensor, encoder: Tensor | None) -> Tensor:
    """In float64, from the shares of z that stay unknown, one minus squared correlations."""
    left, whole = _residual(x, z, cross, encoder, "z_covariance")
    root = torch.linalg.cholesky(whole)
    left = torch.linalg.solve_triangular(root, left, upper=False)
    unknown = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, left.mT, upper=False))
    rounding = 8 * len(whole) * torch.finfo(unknown.dtype).eps
    return -unknown.where(unknown > rounding, 0).log().sum() / 2


def gaussian_information(
    x_covariance: Tensor,
    z_covariance: Tensor,
    cross_covariance: Tensor,
    *,
    encoder: Tensor | None = None,
) -> Tensor:
    r"""Mutual information of two Gaussian vectors, or of one and a linear map of the other.

    .. math:: I(Wx; z) = \frac12 \log \frac{\det \Sigma_z}{\det \Sigma_{z | Wx}}, \qquad
        \Sigma_{z | Wx} = \Sigma_z - \Sigma_{zx} W^\top (W \Sigma_x W^\top)^{+} W \Sigma_{xz}

    It is also :math:`-\frac12 \sum_i \log(1 - \rho_i^2)` with the canonical correlations of Wx and
    z.

    Args:
        x_covariance: (D, D), of x.
        z_covariance: (E, E), of z, positive definite.
        cross_covariance: (D, E), the mean of x z^T for centered x and z.
        encoder: (K, D), the W; without it x itself.

    Returns:
        A scalar in nats, in the dtype of x_covariance; infinite where z is a function of x.

    Raises:
        ValueError: on shapes.
        TypeError: if an argument is not floating-point.

    Source: ``lin2025statistical``, for the use; the formula is classical.

    Pitfall: covariances that are estimated from few samples overstate information, without bound as
    the number of samples comes down to the number of dimensions.

    Example:
        >>> one = torch.eye(1)
        >>> gaussian_information(one, one, 0.6 * one)  # -log(1 - 0.36) / 2
        tensor(0.2231)
    """
    nats = _information(x_covariance, z_covariance, cross_covariance, encoder)
    return nats.to(x_covariance.dtype)


def kl_sufficiency_gap(
    x_covariance: Tensor, z_covariance: Tensor, cross_covariance: Tensor, encoder: Tensor
) -> Tensor:
    r"""What a linear encoder loses of the information that one view has of the other.

    .. math:: I(x; z) - I(Wx; z) = I(x; z \mid Wx)
        = \frac12 \log \frac{\det \Sigma_{z | Wx}}{\det \Sigma_{z | x}} \ge 0

    With many negatives it is the excess of the InfoNCE risk with the best critic of (Wx, z) over
    that with the best critic of (x, z). Zero if Wx is sufficient for z.

    Args:
        x_covariance: (D, D), of the view that is encoded.
        z_covariance: (E, E), of the other view, positive definite.
        cross_covariance: (D, E), the mean of x z^T for centered views.
        encoder: (K, D), the W.

    Returns:
        A scalar in nats, in the dtype of x_covariance.

    Raises:
        ValueError: on shapes.
        TypeError: if an argument is not floating-point.

    Source: ``lin2025statistical``, whose abstract speaks of approximate sufficiency in the sense of
    the Kullback-Leibler divergence; that this is its form for Gaussians follows from the chain
    rule, shown in the chapter.

    Pitfall: sufficient for the other view is not sufficient for a task. What the augmentation
    destroys is not in the gap, and a task may need just that.

    Example:
        >>> kl_sufficiency_gap(torch.eye(2), torch.eye(2), 0.6 * torch.eye(2), torch.eye(2)[:1])
        tensor(0.2231)
    """
    whole, kept = (
        _information(x_covariance, z_covariance, cross_covariance, w) for w in (None, encoder)
    )
    return (whole - kept).to(x_covariance.dtype)


def gaussian_regression_error(
    x_covariance: Tensor,
    target_covariance: Tensor,
    cross_covariance: Tensor,
    *,
    encoder: Tensor | None = None,
) -> Tensor:
    r"""Mean squared error of the best regression of targets on a linear map of x.

    .. math:: \min_A \mathbb{E} \|y - A W x\|^2 = \operatorname{tr} \Sigma_{y | Wx}

    Args:
        x_covariance: (D, D), of x.
        target_covariance: (E, E), of the targets y.
        cross_covariance: (D, E), the mean of x y^T for centered x and y.
        encoder: (K, D), the W; without it x itself.

    Returns:
        A scalar in the dtype of x_covariance.

    Raises:
        ValueError: on shapes.
        TypeError: if an argument is not floating-point.

    Source: ``lin2025statistical``, for the use; the formula is classical.

    Pitfall: it knows the true covariances. A regression on few labels pays for every dimension of
    Wx as well.

    Example:
        >>> one = torch.eye(1)
        >>> gaussian_regression_error(one, one, 0.6 * one)  # 1 - 0.36
        tensor(0.6400)
    """
    left, _ = _residual(
        x_covariance, target_covariance, cross_covariance, encoder, "target_covariance"
    )
    return restore(left.diagonal().sum(), x_covariance.dtype)


# --- The projection head ------------------------------------------------------------------------


def fixed_reweighting_head(embeddings: Tensor, *, kappa: float) -> Tensor:
    r"""A projection head without weights: features count less and less, in a fixed order.

    .. math:: z_i = \frac{h_i}{\kappa^i}, \qquad i = 0, \dots, D - 1

    It stands between the representation and a contrastive loss during training, and is taken off
    afterwards.

    Args:
        embeddings: (..., D).
        kappa: at least 1; 1 changes nothing.

    Returns:
        (..., D), in the dtype of the embeddings.

    Raises:
        ValueError: on a scalar, or a kappa below 1.
        TypeError: if embeddings are not floating-point.

    Source: ``xue2024investigating``; the form is that of the authors' code.

    Pitfall: the powers are of the number of features: with kappa = 1.1 and 512 of them the last
    ones are gone, and the loss sees a space of a few dozen.

    Example:
        >>> fixed_reweighting_head(torch.ones(4), kappa=2.0)
        tensor([1.0000, 0.5000, 0.2500, 0.1250])
    """
    h = check_float(embeddings, "embeddings")
    require(h.ndim >= 1, "the shape of embeddings", tuple(h.shape), "(..., D)")
    require(kappa >= 1, "kappa", kappa, "at least 1")
    power = torch.arange(h.shape[-1], dtype=h.dtype, device=h.device)
    return restore(h * kappa**-power, embeddings.dtype)


def layerwise_feature_weights(*weights: Tensor) -> Tensor:
    r"""How unequally a linear network weighs features, after each of its layers.

    .. math:: \frac{\sigma_i(W_l \cdots W_1)}{\sigma_1(W_l \cdots W_1)}, \qquad l = 1, \dots, L

    Args:
        weights: matrices (H_1, D), (H_2, H_1), ..., in the order in which they are applied, as in
            :class:`torch.nn.Linear`; with equal dimensions in front for several networks at once.

    Returns:
        (..., L, R), falling from 1 along the last dimension, R the smallest width. Zero where a
        product is.

    Raises:
        ValueError: without weights, or if the widths do not fit.
        TypeError: if a weight is not floating-point.

    Source: ``xue2024investigating``.

    Pitfall: a singular value of zero is a feature that is lost; a small one is only weighed down,
    and a linear probe with enough labels undoes that.

    Example:
        >>> w = torch.diag(torch.tensor([2.0, 1.0]))
        >>> layerwise_feature_weights(w, w)
        tensor([[1.0000, 0.5000],
                [1.0000, 0.2500]])
    """
    require(len(weights) >= 1, "the number of weights", len(weights), "at least 1")
    products: list[Tensor] = []
    for number, weight in enumerate(weights):
        w = check_float(weight, f"weights[{number}]")
        require(w.ndim >= 2, f"the shape of weights[{number}]", tuple(w.shape), "(..., H, D)")
        if products:
            width = products[-1].shape[-2]
            shape = f"(..., H, {width})"
            fits = w.shape[-1] == width
            require(fits, f"the shape of weights[{number}]", tuple(w.shape), shape)
            w = w @ products[-1]
        products.append(w)
    rank = min(min(p.shape[-2:]) for p in products)
    values = torch.stack([torch.linalg.svdvals(p)[..., :rank] for p in products], -2)
    largest = values[..., :1]
    return restore(values / largest.where(largest > 0, 1), weights[0].dtype)
