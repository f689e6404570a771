r"""Learners that a surrogate makes: Bayes' rule, wide networks, boosting, the perceptron, checkers.

Each section takes one loss of this chapter to a limit or into a machine, and says what classifier
comes out.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import (
    check_float,
    check_reduction,
    is_concrete,
    reduce,
    require,
    require_shape,
    restore,
)
from lossbook.classification.surrogates.margins import _check_binary, zero_one

__all__ = [
    "checkered_log_terms",
    "checkered_regression_loss",
    "deep_ntk",
    "grownet_loss",
    "naive_bayes_head",
    "newton_targets",
    "perceptron_step",
    "polynomial_dual",
    "relu_dual",
    "singular_kernel_scores",
    "singularity_exponent",
    "sum_log_concave_majorant",
]


# --- Generative against discriminative --------------------------------------------------------


def naive_bayes_head(
    embeddings: Tensor, labels: Tensor, *, classes: int, epsilon: float = 1e-9
) -> tuple[Tensor, Tensor]:
    r"""A linear classifier in closed form: Gaussian naive Bayes with variances that all classes share.

    .. math:: z_k(x) = \log \pi_k - \sum_d \frac{(x_d - \mu_{kd})^2}{2 s_d^2} + \text{const}(x)
        = w_k \cdot x + b_k

    with the class means, :math:`s_d^2 = \sum_k \pi_k s_{kd}^2` and frequencies :math:`\pi`. The square
    of x cancels between classes, and so does what their overall mean c contributes: here
    :math:`w_k = (\mu_k - c) / s^2`, which keeps digits where features are far from 0.

    Args:
        embeddings: (N, D).
        labels: (N,), class indices, int64.
        classes: number C of classes, at least 1.
        epsilon: positive, is added to the variances; 1e-9 as in the authors' code.

    Returns:
        Weight (C, D) and bias (C,), so that ``x @ weight.T + bias`` are logits, and log posteriors
        after a log-softmax. A class without examples has bias minus infinity.

    Raises:
        ValueError: on shapes, labels or hyperparameters out of range.
        TypeError: on embeddings or labels of the wrong dtype.

    Source: ``zheng2023revisiting``.

    Pitfall: features that say the same count as often as they are there, which makes the posteriors
    far too sure; the decision suffers less.

    Example:
        >>> x, y = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])
        >>> weight, bias = naive_bayes_head(x, y, classes=2)
        >>> (weight[1] - weight[0], bias[1] - bias[0])  # means 1 and 5, variance 1
        (tensor([4.]), tensor(-12.))
    """
    x = check_float(embeddings, "embeddings")
    require(x.ndim == 2, "the shape of embeddings", tuple(x.shape), "(N, D)")
    require(classes >= 1, "classes", classes, "at least 1")
    require(epsilon > 0, "epsilon", epsilon, "positive")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {getattr(labels, 'dtype', type(labels))}")
    require_shape(labels, x.shape[:1], "labels")
    if is_concrete(labels):
        known = bool(((labels >= 0) & (labels < classes)).all())
        require(known, "labels", labels, f"classes 0 to {classes - 1}")
    member = F.one_hot(labels, classes).to(x.dtype)  # (N, C)
    counts, center = member.sum(0), x.mean(0)
    means = member.T @ (x - center) / counts.clamp(min=1).unsqueeze(1)
    variance = (x - center - means[labels]).square().mean(0) + epsilon
    weight = means / variance
    bias = (counts / len(x)).log() - (weight * (means / 2 + center)).sum(1)
    return restore(weight, embeddings.dtype), restore(bias, embeddings.dtype)


# --- Infinitely wide and deep -----------------------------------------------------------------


def relu_dual(cosines: Tensor) -> tuple[Tensor, Tensor]:
    r"""The dual of the ReLU, scaled to be 1 at 1, and its slope.

    .. math:: \check\phi(\xi) = \frac{\xi \, (\pi - \arccos \xi) + \sqrt{1 - \xi^2}}{\pi}, \qquad
        \check\phi'(\xi) = \frac{\pi - \arccos \xi}{\pi}

    Args:
        cosines: any shape, in [-1, 1].

    Returns:
        Value and slope, in the shape of the cosines.

    Raises:
        TypeError: if cosines are not floating-point.

    Source: ``cho2009kernel``.

    Pitfall: it maps 0 to :math:`1 / \pi`, so that layer after layer all points come together; but
    slowly, :math:`1 - \xi` falls like one over the depth squared.
    """
    xi = check_float(cosines, "cosines").clamp(-1, 1)
    slope = 1 - xi.acos() / math.pi
    return xi * slope + (1 - xi.square()).sqrt() / math.pi, slope


def polynomial_dual(cosines: Tensor, *, coefficients: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    r"""The dual of a sum of Hermite polynomials, and its slope.

    .. math:: \check\phi(\xi) = \sum_k a_k \xi^k, \qquad a_k \ge 0, \; \sum_k a_k = 1

    is the dual of the activation :math:`\sum_k \sqrt{a_k} \, h_k` with the Hermite polynomials that are
    orthonormal under the normal distribution. The authors' code has
    :math:`(\xi + \xi^7) / 2` for the circle and :math:`(\xi + \xi^3) / 2` for the sphere in three
    dimensions.

    Args:
        cosines: any shape, in [-1, 1].
        coefficients: :math:`a_0, a_1, \dots`, at least 0, summing to 1.

    Returns:
        Value and slope, in the shape of the cosines.

    Raises:
        ValueError: on coefficients that are negative or do not sum to 1.
        TypeError: if cosines are not floating-point.

    Source: ``radhakrishnan2022wide``.

    Pitfall: :math:`a_0 = 0` alone keeps orthogonal inputs apart in great depth. And an odd dual sets
    antipodes against each other: there one's label counts for the other with its sign turned.
    """
    xi = check_float(cosines, "cosines").clamp(-1, 1)
    fair = min(coefficients, default=-1) >= 0 and abs(sum(coefficients) - 1) < 1e-6
    require(fair, "coefficients", coefficients, "at least 0 and of sum 1")
    value, slope = torch.zeros_like(xi), torch.zeros_like(xi)
    for a in reversed(coefficients):  # Horner, and the same for the derivative
        value, slope = value * xi + a, slope * xi + value
    return value, slope


def deep_ntk(
    cosines: Tensor, *, dual: Callable[[Tensor], tuple[Tensor, Tensor]], depth: int
) -> Tensor:
    r"""The neural tangent kernel of a deep network of infinite width, for inputs of length 1.

    .. math:: \Sigma_{l + 1} = \check\phi(\Sigma_l), \qquad
        K_{l + 1} = \Sigma_{l + 1} + K_l \, \check\phi'(\Sigma_l), \qquad
        \Sigma_0 = K_0 = x \cdot x'

    A network trained to the end predicts :math:`k(x)^\top K^{-1} y`; in great depth the diagonal of K
    may dwarf the rest, and the decision is then the sign of :math:`\sum_i k(x, x_i) \, y_i`.

    Args:
        cosines: any shape, inner products of unit vectors.
        dual: gives value and slope of the dual activation, as :func:`relu_dual` does.
        depth: number of layers, at least 0.

    Returns:
        The kernel, in the shape of the cosines and their dtype, half precision promoted.

    Raises:
        ValueError: if depth is negative.
        TypeError: if cosines are not floating-point.

    Source: ``radhakrishnan2022wide``.

    Pitfall: entries grow or shrink like powers of the slopes at 1 and 0: in float32 some thirty layers
    can be too many, float64 bears 200.
    """
    kernel = sigma = check_float(cosines, "cosines")
    require(depth >= 0, "depth", depth, "at least 0")
    for _ in range(depth):
        sigma, slope = dual(sigma)
        kernel = sigma + kernel * slope
    return kernel


def singularity_exponent(slope_at_zero: float, slope_at_one: float) -> float:
    r"""How strongly the limiting kernel of a deep network blows up where two inputs meet.

    .. math:: K_L(x, x') / K_L(x, x_0) \to \frac{h(x, x')}{h(x, x_0)}, \quad
        h \sim \|x - x'\|^{-\alpha}, \qquad
        \alpha = -2 \, \frac{\log \check\phi'(0)}{\log \check\phi'(1)}

    for a dual activation with :math:`\check\phi(0) = 0`, up to a factor that stays bounded. Derived here:
    :math:`h \circ \check\phi = \check\phi'(0) \, h`, and near 1 a layer multiplies :math:`1 - \xi` by
    :math:`\check\phi'(1)`. It gives the dimension of the sphere, 1, 2, 4 and 8, for the four activations
    that the authors' code calls optimal.

    Args:
        slope_at_zero: :math:`\check\phi'(0)`, in (0, 1); at 0 the limit is the nearest neighbor.
        slope_at_one: :math:`\check\phi'(1)`, above 1.

    Returns:
        The exponent alpha, for :func:`singular_kernel_scores`.

    Raises:
        ValueError: if a slope is out of range.

    Source: ``radhakrishnan2022wide``.

    Pitfall: the limit comes slowly. Points with a cosine nearer to 1 than about 1 / L still see
    :math:`\alpha + 2` at depth L, for a layer also multiplies K by its slope there. And it says
    nothing of duals with :math:`\check\phi(0) > 0`, such as the ReLU's, which forget where an input
    lies.

    Example:
        >>> singularity_exponent(0.5, 4.0)  # (x + x ** 7) / 2
        1.0
    """
    require(0 < slope_at_zero < 1, "slope_at_zero", slope_at_zero, "in (0, 1)")
    require(slope_at_one > 1, "slope_at_one", slope_at_one, "above 1")
    return -2 * math.log(slope_at_zero) / math.log(slope_at_one)


def singular_kernel_scores(
    inputs: Tensor, points: Tensor, values: Tensor, *, alpha: float
) -> Tensor:
    r"""Averages the values of all points, weighed by a power of the distance that is infinite at 0.

    .. math:: f(x) = \frac{\sum_i \|x - x_i\|^{-\alpha} \, y_i}{\sum_i \|x - x_i\|^{-\alpha}}

    It passes through every point, and with alpha equal to the dimension (of the sphere, for points on
    one) its sign is consistent: as data grow it errs as seldom as possible. It is the mean of all
    values for alpha = 0 and the nearest neighbor's value as alpha grows.

    Args:
        inputs: (N, D).
        points: (P, D), P at least 1.
        values: (P,), say labels +-1, or (P, C), say one-hot labels.
        alpha: at least 0.

    Returns:
        (N,) or (N, C), in the dtype of the inputs.

    Raises:
        ValueError: on shapes or a negative alpha.
        TypeError: if an argument is not floating-point.

    Source: ``devroye1998hilbert``.

    Pitfall: consistent does not mean fast. At alpha equal to the dimension weights fall like 1 over
    the rank, so that the nearest point alone, noise and all, keeps a share of about 1 / log P.

    Example:
        >>> points, values = torch.tensor([[0.0], [3.0]]), torch.tensor([1.0, -1.0])
        >>> singular_kernel_scores(torch.tensor([[1.0], [3.0]]), points, values, alpha=1)
        tensor([ 0.3333, -1.0000])
    """
    x, centers = check_float(inputs, "inputs"), check_float(points, "points")
    y = check_float(values, "values")
    require(x.ndim == 2, "the shape of inputs", tuple(x.shape), "(N, D)")
    require(centers.ndim == 2, "the shape of points", tuple(centers.shape), "(P, D)")
    require_shape(centers, (centers.shape[0], x.shape[1]), "points")
    require(len(centers) >= 1, "the number of points", len(centers), "at least 1")
    fits = y.ndim in (1, 2) and y.shape[0] == centers.shape[0]
    require(
        fits, "the shape of values", tuple(y.shape), f"({len(centers)},) or ({len(centers)}, C)"
    )
    require(alpha >= 0, "alpha", alpha, "at least 0")
    # By logarithms, as powers of small distances overflow; at distance 0 the tiniest number does.
    distance = torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist")
    log_distance = distance.clamp(min=torch.finfo(x.dtype).tiny).log()
    return restore((-alpha * log_distance).softmax(1) @ y, inputs.dtype)


# --- Boosting by second derivatives -----------------------------------------------------------


def newton_targets(scores: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    r"""What the next learner of a boosted ensemble is to fit, and how much each example counts.

    .. math:: t_i = -\frac{g_i}{h_i}, \qquad g_i = \ell'(F_i), \quad h_i = \ell''(F_i)

    The learner minimizes :math:`\sum_i h_i (f(x_i) - t_i)^2`: a Newton step in function space. For the
    logistic loss these are the authors' :math:`t = y (1 + e^{-y F})` and
    :math:`h = 1 / ((1 + e^{y F})(1 + e^{-y F}))`.

    Args:
        scores: (N,), those of the ensemble so far, F.
        loss: maps scores (N,) to the losses (N,) of the examples, one by one, twice differentiably.

    Returns:
        Targets t and weights h, each (N,), in the dtype of the scores.

    Raises:
        ValueError: if the loss returns another shape.
        TypeError: on scores that are not floating-point.

    Source: ``badirli2020gradient``.

    Pitfall: where an example is badly wrong, h vanishes and t is infinite: use
    :func:`grownet_loss`, the same step without the division.

    Example:
        >>> from lossbook.classification import logistic
        >>> newton_targets(torch.zeros(1), logistic)  # all of class 1
        (tensor([2.]), tensor([0.2500]))
    """
    f = check_float(scores, "scores")
    shape = tuple(f.shape)
    value_shape = tuple(loss(f).shape)
    require(value_shape == shape, "the shape of loss(scores)", value_shape, f"{shape}")

    def slopes(s: Tensor) -> Tensor:
        return torch.func.grad(lambda s: loss(s).sum())(s)

    g, h = slopes(f), torch.func.grad(lambda s: slopes(s).sum())(f)
    return restore(-g / h, scores.dtype), restore(h, scores.dtype)


def grownet_loss(
    step: Tensor, scores: Tensor, target: Tensor, *, reduction: str = "mean"
) -> Tensor:
    r"""The logistic loss after one more learner, to second order: what GrowNet fits a learner by.

    .. math:: L = \ell(F) + g f + \tfrac12 h f^2 = \tfrac12 h \Bigl( f + \frac gh \Bigr)^2 + \text{const},
        \qquad g = p - t, \quad h = p (1 - p), \quad p = \sigma(F)

    Half of the authors' weighted squares, up to a constant in f, and finite where their targets
    -g/h are not. Constant in the scores it is not: detach them, as earlier learners stand still while
    a new one is fitted.

    Args:
        step: (N,), what the new learner adds, its boost rate included: f.
        scores: (N,), those of the ensemble so far, F.
        target: (N,), 0 or 1.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the step, or (N,) unreduced.

    Raises:
        ValueError: on shapes or targets other than 0 and 1.
        TypeError: on a step or scores that are not floating-point.

    Source: ``badirli2020gradient``.

    Pitfall: where scores are sure, the curvature is next to nothing and a step costs nothing more to
    second order. Bound the steps: by the boost rate, weight decay, few epochs.
    """
    f, score = check_float(step, "step"), check_float(scores, "scores")
    check_reduction(reduction)
    require(f.ndim == 1, "the shape of step", tuple(f.shape), "(N,)")
    require_shape(scores, f.shape, "scores")
    t = _check_binary(target, f)
    p = score.sigmoid()
    curvature = p * (-score).sigmoid()
    losses = -F.logsigmoid((2 * t - 1) * score) + (p - t) * f + curvature * f.square() / 2
    return reduce(losses, torch.ones_like(losses), reduction, step.dtype)


# --- From logistic regression to the perceptron -----------------------------------------------


def perceptron_step(
    weight: Tensor,
    inputs: Tensor,
    target: Tensor,
    *,
    gamma: float = math.inf,
    normalize: bool = False,
) -> Tensor:
    r"""A step of gradient descent on logistic regression, seen at the scale of its step size.

    .. math:: w \leftarrow w + \frac1N \sum_i c_i \, y_i x_i, \qquad
        c_i = \sigma(-\gamma \, y_i \, w \cdot x_i)

    With :math:`\theta = \gamma w` this is :math:`\theta \leftarrow \theta - \gamma \nabla L(\theta)`. As
    the step size grows, :math:`c_i` becomes the 0-1 loss of the example and the method the batch
    perceptron. Normalized, the c are divided by their mean, so that they sum to N: then it separates
    the data within :math:`R^2 / \mu^2 + 2 \log(2 N - 1) / (\gamma \mu^2)` steps from 0 (radius R,
    margin :math:`\mu`), where the batch perceptron may need N times as many.

    Args:
        weight: (D,), the parameters over the step size: w.
        inputs: (N, D), with a column of ones if there is to be an intercept.
        target: (N,), 0 or 1, with y = 2 t - 1.
        gamma: step size, positive; infinite, the default, for the perceptron.
        normalize: whether to divide by the mean of c.

    Returns:
        The next w, (D,).

    Raises:
        ValueError: on shapes, targets other than 0 and 1, or a gamma that is not positive.
        TypeError: on weight or inputs that are not floating-point.

    Source: ``tyurin2024logistic``.

    Pitfall: an example on the boundary counts one half, as in the limit of the sigmoid; the paper's batch
    perceptron counts it in full from the second step on. Almost no data are ever there but at the
    start, w = 0.

    Example:
        >>> x, y = torch.tensor([[1.0, -1.0], [-1.0, -4.0]]), torch.tensor([1, 0])
        >>> w = perceptron_step(torch.zeros(2), x, y)
        >>> w, perceptron_step(w, x, y)  # the paper's example: separated by its second step
        (tensor([0.5000, 0.7500]), tensor([1.0000, 0.2500]))
    """
    w, x = check_float(weight, "weight"), check_float(inputs, "inputs")
    require(x.ndim == 2, "the shape of inputs", tuple(x.shape), "(N, D)")
    require_shape(weight, x.shape[1:], "weight")
    require(gamma > 0, "gamma", gamma, "positive")
    signed = (2 * _check_binary(target, x[:, 0]) - 1).unsqueeze(1) * x
    margin = signed @ w
    if gamma == math.inf:
        counts = zero_one(margin)
        shares = counts / counts.sum().clamp(min=0.5) if normalize else counts / len(x)
    elif normalize:  # by logarithms: far into the separated they all underflow
        shares = F.logsigmoid(-gamma * margin).softmax(0)
    else:
        shares = (-gamma * margin).sigmoid() / len(x)
    return restore(w + shares @ signed, weight.dtype)


# --- Sums of log-concave likelihoods ----------------------------------------------------------


def _check_planes(planes: Tensor, target: Tensor) -> Tensor:
    """Promoted scores of the planes (N, M), the first with the sign of the label."""
    z = check_float(planes, "planes")
    require(z.ndim == 2, "the shape of planes", tuple(z.shape), "(N, M)")
    require(z.shape[1] >= 1, "the number of planes", z.shape[1], "at least 1")
    sign = 2 * _check_binary(target, z[:, 0]) - 1
    return torch.cat([sign.unsqueeze(1) * z[:, :1], z[:, 1:]], 1)


def checkered_regression_loss(planes: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Checkered regression: minus the log-likelihood of classes that alternate across M hyperplanes.

    .. math:: L = -\log P(y \mid x), \qquad
        P(1 \mid x) = \frac12 \Bigl( 1 + \prod_{m=1}^M \tanh \frac{z_m}2 \Bigr), \quad
        z_m = w_m \cdot x + b_m

    Toss a coin for every plane that shows +1 with probability :math:`\sigma(z_m)`: this is the chance
    that the product is +1. One plane is logistic regression, two solve XOR. Computed by following the
    parity plane by plane, in logarithms.

    Args:
        planes: (N, M), scores of the hyperplanes, z.
        target: (N,), 0 or 1.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the planes, or (N,) unreduced.

    Raises:
        ValueError: on shapes or targets other than 0 and 1.
        TypeError: on planes that are not floating-point.

    Source: ``achab2023logconcavity``.

    Pitfall: where all scores are 0 so is the gradient, from two planes on: start at random. It is not
    convex, and planes that coincide undo each other.

    Example:
        >>> planes, target = torch.tensor([[9.0, 9.0], [9.0, -9.0]]), torch.tensor([1, 0])
        >>> bool(checkered_regression_loss(planes, target) < 1e-3)
        True
    """
    check_reduction(reduction)
    first, *others = _check_planes(planes, target).unbind(1)
    even, odd = F.logsigmoid(first), F.logsigmoid(-first)  # of how many coins show -1
    for z in others:
        plus, minus = F.logsigmoid(z), F.logsigmoid(-z)
        even, odd = (
            torch.logaddexp(even + plus, odd + minus),
            torch.logaddexp(even + minus, odd + plus),
        )
    return reduce(-even, torch.ones_like(even), reduction, planes.dtype)


def checkered_log_terms(planes: Tensor, target: Tensor) -> Tensor:
    r"""The log-concave terms whose sum is the likelihood of checkered regression.

    .. math:: P(y \mid x) = \sum_{\epsilon : \, \prod_m \epsilon_m = y} \; \prod_m \sigma(\epsilon_m z_m),
        \qquad y, \epsilon_m = \pm 1

    Args:
        planes: (N, M), scores of the hyperplanes, z.
        target: (N,), 0 or 1.

    Returns:
        (N, 2 ** (M - 1)), logarithms of the terms; minus their log-sum-exp is
        :func:`checkered_regression_loss`.

    Raises:
        ValueError: on shapes or targets other than 0 and 1.
        TypeError: on planes that are not floating-point.

    Source: ``achab2023logconcavity``.

    Pitfall: their number doubles with every plane. The loss itself costs M.
    """
    z = _check_planes(planes, target)
    signs = [s for s in product((1.0, -1.0), repeat=z.shape[1]) if math.prod(s) > 0]
    patterns = torch.tensor(signs, dtype=z.dtype, device=z.device)
    return restore(F.logsigmoid(z.unsqueeze(1) * patterns).sum(2), planes.dtype)


def sum_log_concave_majorant(log_terms: Tensor, *, weights: Tensor) -> Tensor:
    r"""A convex function above minus the logarithm of a sum of log-concave terms.

    .. math:: \sum_s \mu_s \bigl( \log \mu_s - \log p_s \bigr)
        = -\log \sum_s p_s + \mathrm{KL}(\mu \,\|\, \pi), \qquad \pi_s = \frac{p_s}{\sum_r p_r}

    Fixed weights make it convex in what the terms depend on; at :math:`\mu = \pi(a)` it touches at a, has
    there the gradient of the loss, and its tangent gives

    .. math:: F(x) \ge F(a) + \nabla F(a) \cdot (x - a) - \mathrm{KL}(\pi(a) \,\|\, \pi(x)).

    Its gradient :math:`-\sum_s \mu_s \nabla \log p_s` is a re-weighted gradient, of which the paper's
    cross-gradient is one. With which weights could not be checked. Derived here: the harmful KL term
    is gone at :math:`\mu = \pi(x^*)` with a minimizer :math:`x^*`, for then
    :math:`F(a) - F(x^*) \le -\sum_s \mu_s \nabla \log p_s(a) \cdot (a - x^*)`.

    Args:
        log_terms: (..., S), logarithms of the terms.
        weights: mu, (S,) or (..., S), at least 0 and summing to 1 over the last dimension.

    Returns:
        (...), in the dtype of the log-terms.

    Raises:
        ValueError: on weights of another shape or that are no distribution.
        TypeError: if an argument is not floating-point.

    Source: ``achab2023logconcavity``.

    Pitfall: weights that follow the parameters, mu = pi at every step, detached or not, are gradient
    descent once more.
    """
    log_p, mu = check_float(log_terms, "log_terms"), check_float(weights, "weights")
    require(log_p.ndim >= 1, "the shape of log_terms", tuple(log_p.shape), "(..., S)")
    fits = tuple(mu.shape) in (tuple(log_p.shape), tuple(log_p.shape[-1:]))
    require(fits, "the shape of weights", tuple(mu.shape), "(S,) or that of log_terms")
    if is_concrete(mu):
        one = (mu.sum(-1) - 1).abs() <= 1e-4
        require(bool((mu >= 0).all() & one.all()), "weights", weights, "a distribution")
    return restore((torch.xlogy(mu, mu) - mu * log_p).sum(-1), log_terms.dtype)
