r"""Cross-entropy and its relatives: losses on logits, on distances and on holographic vectors.

Throughout, :math:`z \in \mathbb{R}^C` are the logits of one example,
:math:`p = \mathrm{softmax}(z)` and :math:`y` its label. Two quantities carry most of the chapter:
:math:`-\log p_y`, and

.. math:: u_y = \sum_{k \ne y} e^{z_k - z_y} = \frac{1 - p_y}{p_y},

the odds against the label. :func:`log_complement` gives :math:`\log(1 - p)` without losing it when
:math:`p` is close to one.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossbook._contract import (
    check_float,
    check_reduction,
    check_scores,
    check_target,
    check_weight,
    expectation,
    is_concrete,
    reduce,
    require,
    require_shape,
    restore,
)

__all__ = [
    "AldrKlLoss",
    "DistanceLayer",
    "EnsLoss",
    "HrrLoss",
    "SphericalLayer",
    "comp_sum_bound",
    "comp_sum_loss",
    "comp_sum_transform",
    "cross_entropy",
    "encouraging_loss",
    "ens_derivatives",
    "ens_loss",
    "halted_focal_loss",
    "harmonic_loss",
    "hrr_bind",
    "hrr_loss",
    "hrr_project",
    "hrr_unbind",
    "inverse_box_cox",
    "ldr_kl_loss",
    "log_complement",
    "margin_shift_attack",
    "minimizability_gap",
    "poly_focal_loss",
    "poly_loss",
    "rescaled_square_loss",
    "smooth_adversarial_comp_sum_loss",
    "spherical_softmax",
    "spherical_softmax_loss",
    "spherical_softmax_loss_from_statistics",
    "squentropy_loss",
    "z_loss",
    "z_loss_from_statistics",
]


# --- Cross-entropy ----------------------------------------------------------------------------


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy between the label and the softmax of the logits: minus the log-likelihood.

    .. math:: L = -\log p_y, \qquad p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}

    Equals ``torch.nn.functional.cross_entropy``, label smoothing and class weights included, but
    for two cases: a batch in which every element is ignored gives 0 where torch gives nan, and the
    mean over weighted soft targets divides by the weights (a one-hot soft target is worth its
    index).

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        label_smoothing: in [0, 1], share of the label that is spread evenly over the classes.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes, labels or a label_smoothing out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``good1952rational``.

    Pitfall: give it logits. Probabilities are accepted as readily as any other numbers and train
    badly.

    Example:
        >>> float(cross_entropy(torch.zeros(1, 4), torch.tensor([2])))  # log 4
        1.3862943649291992
    """
    z = check_scores(logits)
    require(0 <= label_smoothing <= 1, "label_smoothing", label_smoothing, "in [0, 1]")
    return expectation(
        -z.log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        dtype=logits.dtype,
    )


def log_complement(logits: Tensor) -> Tensor:
    r"""log(1 - softmax) for every class, accurate also where the softmax rounds to one.

    .. math:: \log(1 - p_k) = \log \sum_{j \ne k} e^{z_j} - \log \sum_j e^{z_j}

    One class, the largest, can have :math:`p_k > 1/2`: for it the sum over the others is formed
    explicitly. For the rest ``log1p(-p)`` loses nothing, so that all C values cost O(C).

    Args:
        logits: (N, C) or (N, C, d1, ...).

    Returns:
        log(1 - p), in the shape and dtype of the logits; minus infinity for a single class.

    Raises:
        ValueError: if logits have fewer than two dimensions.
        TypeError: if logits are not floating-point.

    Pitfall: ``torch.log(1 - p)`` is minus infinity in float32 from a logit margin of about 17.

    Example:
        >>> log_complement(torch.tensor([[200.0, 0.0]]))
        tensor([[-200.,   -0.]])
    """
    z = check_scores(logits)
    if z.shape[1] == 1:  # nothing is left to sum over
        return torch.full_like(logits, -math.inf)
    log_p = z.log_softmax(1)
    largest = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, log_p.argmax(1, True), True)
    others = log_p.masked_fill(largest, -math.inf)
    result = torch.where(largest, others.logsumexp(1, True), torch.log1p(-others.exp()))
    return restore(result, logits.dtype)


def _log_odds_against(z: Tensor) -> Tensor:
    """log((1 - p) / p) for every class: the log of the sum of exp(z_j - z_k) over the others."""
    return log_complement(z) - z.log_softmax(1)


# --- Comp-sum losses --------------------------------------------------------------------------


def _comp_sum(z: Tensor, tau: float, dtype: torch.dtype) -> Tensor:
    """Phi_tau of every class, with 1 + u = 1 / p; past the largest exponent, its tangent."""
    surprise = -z.log_softmax(1)
    if tau == 1:
        return surprise
    exponent = (1 - tau) * surprise
    inside = exponent.clamp(max=0.8 * math.log(torch.finfo(dtype).max))
    return (inside.expm1() + inside.exp() * (exponent - inside)) / (1 - tau)


def comp_sum_loss(
    logits: Tensor,
    target: Tensor,
    *,
    tau: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Comp-sum losses: one parameter from the sum-exponential loss over cross-entropy to 1 - p.

    .. math:: L = \Phi_\tau(u_y), \qquad
        \Phi_\tau(u) = \frac{(1 + u)^{1 - \tau} - 1}{1 - \tau}, \quad \Phi_1(u) = \log(1 + u)

    With :math:`1 + u_y = 1/p_y` this is :math:`(p_y^{\tau - 1} - 1)/(1 - \tau)`: the
    sum-exponential loss at 0, cross-entropy at 1, generalized cross-entropy with
    :math:`q = \tau - 1` between 1 and 2, the mean absolute error :math:`1 - p_y` at 2.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        tau: at least 0; below 1 wrong examples count more than in cross-entropy, above 1 less.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, or a negative tau.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``mao2023crossentropy``.

    Pitfall: at both ends gradients misbehave. For tau < 1 they grow like :math:`p_y^{\tau - 1}`;
    once that exceeds the dtype's largest number to the power 0.8 (7e30 in float32, 7e3 in float16)
    the loss goes on along its tangent. For tau > 1 they vanish like :math:`p_y^{\tau - 1}`: a badly
    wrong example no longer teaches anything.

    Example:
        >>> logits, target = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([2])
        >>> [round(float(comp_sum_loss(logits, target, tau=tau)), 3) for tau in (0, 1, 2)]
        [3.0, 1.386, 0.75]
    """
    z = check_scores(logits)
    require(tau >= 0, "tau", tau, "at least 0")
    return expectation(
        _comp_sum(z, tau, logits.dtype),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def comp_sum_transform(beta: Tensor, *, tau: float, classes: int = 2) -> Tensor:
    r"""Bounds 0-1 regret by the regret of a comp-sum loss: T(0-1 regret) <= surrogate regret.

    With :math:`a = 1/(2 - \tau)` and :math:`m = \tfrac12 [(1 + \beta)^a + (1 - \beta)^a]`,

    .. math:: T_\tau(\beta) = \begin{cases}
        \frac{2^{1 - \tau}}{1 - \tau} (1 - m^{2 - \tau}) & 0 \le \tau < 1 \\
        \frac{1 + \beta}{2} \log(1 + \beta) + \frac{1 - \beta}{2} \log(1 - \beta) & \tau = 1 \\
        \frac{1}{(\tau - 1) n^{\tau - 1}} (m^{2 - \tau} - 1) & 1 < \tau < 2 \\
        \frac{1}{(\tau - 1) n^{\tau - 1}} \beta & \tau \ge 2
        \end{cases}

    It is convex and increasing from T(0) = 0, and attained for :math:`\tau \le 1` or n = 2 by a
    conditional :math:`(\frac{1 + \beta}2, \frac{1 - \beta}2)` on two classes; otherwise it is a
    lower bound that can be loose.

    Args:
        beta: any shape, 0-1 regret in [0, 1].
        tau: at least 0, as in :func:`comp_sum_loss`.
        classes: number n of classes, at least 2.

    Returns:
        T(beta), in the shape and dtype of beta.

    Raises:
        ValueError: if beta is outside [0, 1], tau is negative or classes is below 2.
        TypeError: if beta is not floating-point.

    Source: ``mao2023crossentropy``.

    Pitfall: the number of classes enters for tau > 1 only, and there the guarantee weakens as n
    grows.
    """
    b = check_float(beta, "beta")
    require(tau >= 0, "tau", tau, "at least 0")
    require(classes >= 2, "classes", classes, "at least 2")
    if is_concrete(b):
        require(bool(((b >= 0) & (b <= 1)).all()), "beta", beta, "in [0, 1]")
    scale = 2 ** (1 - tau) if tau < 1 else float(classes) ** (1 - tau)
    if tau == 1:
        value = (torch.xlogy(1 + b, 1 + b) + torch.xlogy(1 - b, 1 - b)) / 2
    elif tau >= 2:
        value = scale * b / (tau - 1)
    else:  # m - 1 first, so that small betas keep their digits
        power = 1 / (2 - tau)
        excess = ((power * b.log1p()).expm1() + (power * (-b).log1p()).expm1()) / 2
        value = scale * ((2 - tau) * excess.log1p()).expm1() / (tau - 1)
    return restore(value, beta.dtype)


def comp_sum_bound(excess: Tensor, *, tau: float, classes: int = 2) -> Tensor:
    r"""The largest 0-1 regret that a comp-sum regret allows: inverts :func:`comp_sum_transform`.

    .. math:: \Gamma_\tau(t) = \max \{\beta \in [0, 1] : T_\tau(\beta) \le t\}

    so that, with the minimizability gaps M of the two losses,
    :math:`R_{01}(h) - R_{01}^* + M_{01} \le \Gamma_\tau(R_\tau(h) - R_\tau^* + M_\tau)`.

    Args:
        excess: any shape, surrogate regret t, at least 0.
        tau: at least 0, as in :func:`comp_sum_loss`.
        classes: number of classes, at least 2.

    Returns:
        The bound in [0, 1], in the shape and dtype of excess; it carries no gradient.

    Raises:
        ValueError: if excess or tau is negative or classes is below 2.
        TypeError: if excess is not floating-point.

    Source: ``mao2023crossentropy``.

    Pitfall: near zero :math:`\Gamma_1(t)` is about :math:`\sqrt{2t}`: a small surrogate regret is
    weak news.
    """
    t = check_float(excess, "excess").detach()
    if is_concrete(t):
        require(bool((t >= 0).all()), "excess", excess, "at least 0")
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(60):  # bisection: more halvings than float64 has digits
        middle = (low + high) / 2
        below = comp_sum_transform(middle, tau=tau, classes=classes) <= t
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return restore(high, excess.dtype)


def minimizability_gap(losses: Tensor, conditional: Tensor, marginal: Tensor) -> Tensor:
    r"""How far a hypothesis set is from choosing the best prediction at every point separately.

    .. math:: M = \inf_{h \in H} \mathbb{E}_x [C(h, x)] - \mathbb{E}_x [\inf_{h \in H} C(h, x)],
        \qquad C(h, x) = \sum_y p(y \mid x) L(h, x, y)

    Args:
        losses: (H, X, C), loss of hypothesis h at point x under label y.
        conditional: (X, C), probabilities of the labels at each point.
        marginal: (X,), probabilities of the points.

    Returns:
        The gap, a non-negative scalar; zero if one hypothesis is best everywhere.

    Raises:
        ValueError: if the shapes do not fit each other.
        TypeError: if an argument is not floating-point.

    Source: ``mao2023crossentropy``.

    Pitfall: a grid of hypotheses gives the gap of the grid, which over- or underestimates that of
    the set.
    """
    values = check_float(losses, "losses")
    require(values.ndim == 3, "the shape of losses", tuple(values.shape), "(H, X, C)")
    points = values.shape[1:]
    require_shape(conditional, points, "conditional")
    require_shape(marginal, points[:1], "marginal")
    risk = (values * check_float(conditional, "conditional")).sum(2)  # (H, X)
    weights = check_float(marginal, "marginal")
    return restore((risk @ weights).amin() - risk.amin(0) @ weights, losses.dtype)


def _safe_sqrt(x: Tensor) -> Tensor:
    """Square root with gradient 0 at 0, where the true one is infinite."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def _margin_shift(z: Tensor, shifted: Tensor) -> Tensor:
    """||D(x', k) - D(x, k)||^2 for every class k; D are the margins of class k over the others."""
    shift = shifted - z
    centered = shift - shift.mean(1, keepdim=True)
    return z.shape[1] * centered.square() + centered.square().sum(1, keepdim=True)


def smooth_adversarial_comp_sum_loss(
    logits: Tensor,
    adversarial_logits: Tensor,
    target: Tensor,
    *,
    tau: float = 1.0,
    rho: float = 1.0,
    nu: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""A comp-sum loss with a penalty on how far an adversary moves the margins.

    .. math:: L = \Phi_\tau \Bigl( \sum_{k \ne y} e^{-(z_y - z_k)/\rho} \Bigr)
        + \nu \, \| \Delta(x', y) - \Delta(x, y) \|_2,
        \qquad \Delta(x, y) = (z_y - z_k)_{k \ne y}

    The paper takes the supremum over x' around x; :func:`margin_shift_attack` searches for it.

    Args:
        logits: (N, C) or (N, C, d1, ...), at the clean inputs x.
        adversarial_logits: the same shape, at the perturbed inputs x'.
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        tau: at least 0, as in :func:`comp_sum_loss`.
        rho: positive, the scale of the margins.
        nu: at least 0, weight of the penalty.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, a negative tau or nu, or a rho that is not
            positive.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``mao2023crossentropy``.

    Pitfall: the penalty is a norm, not its square: it has a kink where both logits agree, and the
    gradient there is set to zero.
    """
    z, shifted = check_scores(logits), check_scores(adversarial_logits, "adversarial_logits")
    require(tau >= 0, "tau", tau, "at least 0")
    require(rho > 0, "rho", rho, "positive")
    require(nu >= 0, "nu", nu, "at least 0")
    require_shape(shifted, z.shape, "adversarial_logits")
    return expectation(
        _comp_sum(z / rho, tau, logits.dtype) + nu * _safe_sqrt(_margin_shift(z, shifted)),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def margin_shift_attack(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    target: Tensor,
    *,
    radius: float,
    steps: int = 10,
    step_size: float | None = None,
) -> Tensor:
    r"""Projected gradient ascent on the shift of the margins, in an l-infinity ball.

    .. math:: \max_{\|x' - x\|_\infty \le r} \| \Delta(x', y) - \Delta(x, y) \|_2

    Args:
        model: maps inputs (N, ...) to logits (N, C); its parameters gather no gradient.
        inputs: (N, ...), floating-point.
        target: class indices (N,), int64.
        radius: r, positive, in the units of the inputs.
        steps: number of ascent steps, at least 1.
        step_size: length of a step, positive; by default ``2.5 * radius / steps``.

    Returns:
        The perturbed inputs, detached; a random start makes them random.

    Raises:
        ValueError: if radius, steps or step_size is not positive, or the target does not fit.
        TypeError: if the target is not int64.

    Source: ``mao2023crossentropy``.

    Pitfall: it knows no bounds on the inputs (pixels may leave [0, 1]) and leaves the model's mode
    alone: call ``model.eval()`` first unless batch statistics should answer the attack.
    """
    step_size = 2.5 * radius / max(steps, 1) if step_size is None else step_size
    require(radius > 0, "radius", radius, "positive")
    require(steps >= 1, "steps", steps, "at least 1")
    require(step_size > 0, "step_size", step_size, "positive")
    with torch.no_grad():
        clean = check_scores(model(inputs), "model(inputs)")
    check_target(target, clean.shape, ignore_index=-100)
    if target.is_floating_point():
        raise TypeError("target must be class indices, got probabilities")
    # At x' = x the gradient is zero: start at random.
    shift = torch.empty_like(inputs).uniform_(-radius, radius)
    for _ in range(steps):
        shift.requires_grad_()
        with torch.enable_grad():
            moved = _margin_shift(clean, check_scores(model(inputs.detach() + shift)))
            distance = moved.gather(1, target.clamp(min=0).unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(distance, shift)
        shift = (shift.detach() + step_size * gradient.sign()).clamp(-radius, radius)
    return inputs.detach() + shift


# --- Label-distributionally robust losses -----------------------------------------------------


def _log_softplus(x: Tensor) -> Tensor:
    """log(softplus(x)); below -34 softplus is the exponential to the last digit of float64."""
    return torch.where(x > -34, (-F.logsigmoid(-x.clamp(min=-34))).log(), x)


def _ldr_kl(f: Tensor, temperature: float | Tensor, margin: float) -> Tensor:
    """temperature * log(mean_k exp((f_k - f_y + margin * 1[k != y]) / temperature)) for every y."""
    against = _log_odds_against(f / temperature) + margin / temperature
    return temperature * (-F.logsigmoid(-against) - math.log(f.shape[1]))


def ldr_kl_loss(
    logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    margin: float = 2.0,
    normalize: bool = False,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Label-distributionally robust loss: the worst margin violation, softened by a KL term.

    .. math:: L = \lambda \log \frac1C \sum_k e^{(z_k - z_y + c [k \ne y]) / \lambda}
        = \max_{q \in \Delta} \sum_k q_k (z_k - z_y + c [k \ne y])
          - \lambda \, \mathrm{KL}(q \,\|\, \tfrac1C)

    At :math:`\lambda = 1, c = 0` it is cross-entropy minus log C; for :math:`\lambda \to 0` the
    hinge loss of Crammer and Singer, for :math:`\lambda \to \infty` the mean margin, which is
    symmetric.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        temperature: the :math:`\lambda` of the paper, positive, in units of the logits.
        margin: c, at least 0, in units of the logits; 2 is the authors' default.
        normalize: replace z by softplus(z) over its mean, the authors' form for noisy labels.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced. It can be negative.

    Raises:
        ValueError: on shapes or labels out of range, a temperature that is not positive, a negative
            margin.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``zhu2021label``.

    Pitfall: the temperature divides the logits and the margin, so it also sets the size of a step:
    compare temperatures at learning rates tuned for each.
    """
    z = check_scores(logits)
    require(temperature > 0, "temperature", temperature, "positive")
    require(margin >= 0, "margin", margin, "at least 0")
    if normalize:
        log_f = _log_softplus(z)
        z = (log_f - log_f.logsumexp(1, True) + math.log(z.shape[1])).exp()
    return expectation(
        _ldr_kl(z, temperature, margin),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


class AldrKlLoss(nn.Module):
    r"""LDR-KL loss with a temperature of its own for every training example.

    .. math:: L_i = \lambda_i \log \frac1C \sum_k e^{(F_{ik} - F_{iy} + c [k \ne y]) / \lambda_i}
        - \frac{\alpha \log C}{2 \lambda_0} (\lambda_i - \lambda_0)^2, \qquad
        \lambda_i = \lambda_0 \Bigl( 1 - \frac{\mathrm{KL}(q_i \,\|\, \frac1C)}{\alpha \log C}
        \Bigr)

    with :math:`F_i = z_i / \mathrm{mean}_k |z_{ik}|` and :math:`q_i` the softmax of :math:`F_i` at
    the example's previous temperature. An example that is predicted confidently gets a low
    temperature, an unsure (often mislabeled) one stays near :math:`\lambda_0`.

    Each forward pass in training mode renews ``temperatures[index]``; in evaluation mode nothing is
    stored. The temperature is a constant to the gradient, as in the authors' code, so ``gradcheck``
    holds for a fixed temperature only.

    Args:
        examples: number of training examples, at least 1.
        classes: number C of classes, at least 2.
        temperature: :math:`\lambda_0`, positive.
        alpha: above 1; temperatures stay in :math:`[\lambda_0 (1 - 1/\alpha), \lambda_0]`. The
            authors' class defaults to 1, which lets them reach zero; 2 is our choice.
        margin: c, at least 0, in units of the normalized logits.
        weight: (C,), weights of the classes.
        reduction: "none", "mean" (over the weights) or "sum".

    Raises:
        ValueError: if an argument is out of its range.

    Source: ``zhu2021label``.

    Pitfall: ``index`` is the position in the training set, not in the batch; shuffle the two
    together.
    """

    temperatures: Tensor
    weight: Tensor | None

    def __init__(
        self,
        examples: int,
        classes: int,
        *,
        temperature: float = 1.0,
        alpha: float = 2.0,
        margin: float = 1.0,
        weight: Tensor | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        require(examples >= 1, "examples", examples, "at least 1")
        require(classes >= 2, "classes", classes, "at least 2")
        require(temperature > 0, "temperature", temperature, "positive")
        require(alpha > 1, "alpha", alpha, "above 1")
        require(margin >= 0, "margin", margin, "at least 0")
        check_reduction(reduction)
        self.classes, self.temperature, self.alpha = classes, temperature, alpha
        self.margin, self.reduction = margin, reduction
        self.register_buffer("weight", weight)
        self.register_buffer("temperatures", torch.full((examples,), float(temperature)))

    def forward(self, logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """The loss of logits (N, C), target as in :func:`ldr_kl_loss`, index (N,) of int64."""
        z = check_scores(logits)
        examples = self.temperatures.shape[0]
        require_shape(z, (index.shape[0], self.classes), "logits")
        if is_concrete(index):
            known = bool(((index >= 0) & (index < examples)).all())
            require(known, "index", index, f"in 0 to {examples - 1}")

        f = z / z.abs().mean(1, keepdim=True).clamp(min=1e-6)
        with torch.no_grad():
            q = (f / self.temperatures[index].to(f).unsqueeze(1)).softmax(1) + 1e-5
            q = q / q.sum(1, keepdim=True)
            scale = self.alpha * math.log(self.classes)
            divergence = (q * (self.classes * q).log()).sum(1)
            temperature = self.temperature * (1 - divergence / scale)
            penalty = scale / (2 * self.temperature) * (temperature - self.temperature).square()
            if self.training:
                self.temperatures[index] = temperature.to(self.temperatures)
        return expectation(
            _ldr_kl(f, temperature.unsqueeze(1), self.margin) - penalty.unsqueeze(1),
            target,
            weight=self.weight,
            ignore_index=-100,
            reduction=self.reduction,
            dtype=logits.dtype,
        )


# --- A random ensemble of losses ---------------------------------------------------------------


def inverse_box_cox(z: Tensor, power: float | Tensor) -> Tensor:
    r"""Inverse Box-Cox transformation: a family of positive, increasing functions.

    .. math:: B_\lambda^{-1}(z) = (1 + \lambda z)_+^{1/\lambda}, \qquad B_0^{-1}(z) = e^z

    Args:
        z: any shape, for instance standard normal draws.
        power: :math:`\lambda`, a number or a scalar tensor.

    Returns:
        Non-negative values in the shape of z, infinite where the base vanishes and power is
        negative.

    Source: ``dai2024ensloss``.

    Pitfall: standard normal draws are positive or negative alike; with positive power those below
    :math:`-1/\lambda` all map to 0.
    """
    power = torch.as_tensor(power, dtype=z.dtype, device=z.device)
    nonzero = torch.where(power == 0, 1, power)
    return torch.where(power == 0, z.exp(), (1 + nonzero * z).clamp(min=0) ** (1 / nonzero))


def ens_derivatives(margins: Tensor, draws: Tensor) -> Tensor:
    r"""Arranges random numbers into the derivatives of a convex, calibrated loss at given margins.

    .. math:: g_i = \frac{-\min(1, e_{(i)})}{\max(1, s_i)} - 10^{-6}

    with the margins :math:`s_i` in ascending, the draws :math:`e_{(i)}` in descending order: the
    worst margin gets the steepest derivative, so that the implied loss is convex where margins are
    below 1.

    Args:
        margins: (N,), y f(x) with y = +-1.
        draws: (N,), non-negative, in any order.

    Returns:
        (N,), negative, detached.

    Source: ``dai2024ensloss``.

    Pitfall: the derivatives belong to this batch: another batch is another loss.
    """
    rank = margins.detach().argsort().argsort()
    slopes = -draws.detach().clamp(max=1).sort(descending=True).values[rank]
    return slopes / margins.detach().clamp(min=1) - 1e-6


def ens_loss(
    scores: Tensor, target: Tensor, *, derivatives: Tensor, reduction: str = "mean"
) -> Tensor:
    r"""Ensemble loss: follows randomly drawn derivatives instead of those of one loss.

    .. math:: L = \frac1N \sum_i \mathrm{stop}(g_i) \, s_i, \qquad s_i = (2 t_i - 1) f(x_i)

    where g are the draws arranged by :func:`ens_derivatives`. Only the gradient means anything: it
    is :math:`g_i (2 t_i - 1) / N`. The value is no measure of fit, and since g is held constant
    second derivatives are zero: ``gradgradcheck``, Hessians and line searches do not apply.

    Args:
        scores: (N,), real-valued scores of binary classification.
        target: (N,), 0 or 1, integer or floating-point.
        derivatives: (N,), non-negative draws in any order; sizes above 1 count as 1.
        reduction: "none", "mean" or "sum".

    Returns:
        The loss, a scalar in the dtype of the scores, or (N,) unreduced.

    Raises:
        ValueError: on shapes, targets other than 0 and 1, or negative draws.
        TypeError: on scores that are not floating-point.

    Source: ``dai2024ensloss``.

    Pitfall: sorting couples the batch, so splitting it into micro-batches changes the gradient.
    """
    f = check_float(scores, "scores")
    check_reduction(reduction)
    require(f.ndim == 1, "the shape of scores", tuple(f.shape), "(N,)")
    require_shape(target, f.shape, "target")
    require_shape(derivatives, f.shape, "derivatives")
    if is_concrete(target):
        require(bool(((target == 0) | (target == 1)).all()), "target", target, "0 or 1")
    if is_concrete(derivatives):
        require(bool((derivatives >= 0).all()), "derivatives", derivatives, "non-negative")
    margins = (2 * target.to(f) - 1) * f
    losses = ens_derivatives(margins, derivatives.to(f)) * margins
    return reduce(losses, torch.ones_like(losses), reduction, scores.dtype)


class EnsLoss(nn.Module):
    """Ensemble loss that draws its derivatives itself: :func:`ens_loss` on inverse Box-Cox normals.

    The power of the transformation starts at 0 and is drawn anew, uniformly from (-1, 1), after
    every ``period`` calls. Only the gradient of the result is meaningful; see :func:`ens_loss`.

    Args:
        period: calls between two draws of the power, at least 1.
        generator: source of randomness on the device of the scores; torch's own by default.

    Raises:
        ValueError: if period is below 1.

    Source: ``dai2024ensloss``.

    Pitfall: two calls on the same batch differ. For a fixed loss call :func:`ens_loss` with fixed
    draws.
    """

    def __init__(self, *, period: int = 10, generator: torch.Generator | None = None) -> None:
        super().__init__()
        require(period >= 1, "period", period, "at least 1")
        self.period, self.generator, self.calls = period, generator, 0
        self.power: Tensor | float = 0.0

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch: scores (N,), target (N,) of 0 and 1."""
        f = check_float(scores, "scores").detach()
        if self.calls > 0 and self.calls % self.period == 0:
            self.power = 2 * torch.rand((), generator=self.generator, device=f.device) - 1
        self.calls += 1
        normal = torch.randn(f.shape, generator=self.generator, device=f.device, dtype=f.dtype)
        return ens_loss(scores, target, derivatives=inverse_box_cox(normal, self.power))


# --- Polynomial losses ------------------------------------------------------------------------


def poly_loss(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float | Sequence[float] = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy with its leading polynomial coefficients changed: Poly-1 and Poly-N.

    .. math:: L = -\log p_y + \sum_{j=1}^{N} \epsilon_j (1 - p_y)^j, \qquad
        -\log p_y = \sum_{j \ge 1} \tfrac1j (1 - p_y)^j

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        epsilon: :math:`\epsilon_1`, or the sequence :math:`\epsilon_1, ..., \epsilon_N`; any sign.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``leng2022polyloss``.

    Pitfall: :math:`\epsilon_1 < -1` turns the gradient around for well-classified examples.

    Example:
        >>> float(poly_loss(torch.zeros(1, 2), torch.tensor([0]), epsilon=2.0))  # log 2 + 2 / 2
        1.6931471824645996
    """
    z = check_scores(logits)
    coefficients = epsilon if isinstance(epsilon, Sequence) else [epsilon]
    complement = log_complement(z).exp()
    polynomial = torch.zeros_like(z)
    for coefficient in reversed(coefficients):  # Horner's rule
        polynomial = (polynomial + coefficient) * complement
    return expectation(
        polynomial - z.log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def poly_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    gamma: float = 2.0,
    alpha: float | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Poly-1 focal loss: every class is a binary decision with a sigmoid of its own.

    .. math:: L_k = -\alpha_t (1 - p_t)^\gamma \log p_t + \epsilon (1 - p_t)^{\gamma + 1}, \qquad
        p_t = \sigma(z_k) \text{ if } k \text{ applies, else } 1 - \sigma(z_k)

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or a multi-label target (N, C, ...) in [0, 1]. A
            fraction t means the expectation t * loss(applies) + (1 - t) * loss(does not apply).
        epsilon: added coefficient of the leading term; any sign. 0 is focal loss.
        gamma: at least 0; 0 (with epsilon 0) is binary cross-entropy.
        alpha: in [0, 1], weight of the first term where the class applies, 1 - alpha where not.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid entries) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or one value per entry, (N, C, ...),
        unreduced.

    Raises:
        ValueError: on shapes or labels out of range, a negative gamma, an alpha outside [0, 1].
        TypeError: on logits or a target of the wrong dtype.

    Source: ``leng2022polyloss``.

    Pitfall: the mean runs over all N * C entries, most of them easy negatives. Detectors use
    ``reduction="sum"`` and divide by the number of positives.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    require(alpha is None or 0 <= alpha <= 1, "alpha", alpha, "None or in [0, 1]")
    check_reduction(reduction)
    check_target(target, z.shape, ignore_index)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    def binary(x: Tensor, balance: float) -> Tensor:
        log_miss = F.logsigmoid(-x)  # log(1 - p_t)
        focal = -(gamma * log_miss).exp() * F.logsigmoid(x)
        return balance * focal + epsilon * ((gamma + 1) * log_miss).exp()

    valid = torch.ones_like(z)
    if target.is_floating_point():
        applies = target.to(z)
        if is_concrete(target):
            require(bool(((target >= 0) & (target <= 1)).all()), "target", target, "in [0, 1]")
    else:
        valid = valid * (target != ignore_index).unsqueeze(1)
        index = target.where(target != ignore_index, 0).unsqueeze(1)
        applies = torch.zeros_like(z).scatter(1, index, 1.0)
    losses = applies * binary(z, positive) + (1 - applies) * binary(-z, negative)
    weights = check_weight(weight, z)
    entry_weights = valid if weights is None else valid * weights
    return reduce(losses * entry_weights, entry_weights, reduction, logits.dtype)


# --- Well-classified examples -----------------------------------------------------------------


def encouraging_loss(
    logits: Tensor,
    target: Tensor,
    *,
    end_point: float = 0.75,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy plus a bonus that grows steeper as the label becomes certain.

    .. math:: L = -\log p_y + b(p_y), \qquad b(p) = \begin{cases}
        \log(1 - p) & p \le e \\
        \log(1 - e) - \frac{p - e}{1 - e} & p > e \end{cases}

    With :math:`e = 1`, the normal bonus, this is
    :math:`\log u_y = \log \sum_{k \ne y} e^{z_k} - z_y`: linear in the margin, never saturating. We
    compute it as such; the authors clamp :math:`1 - p` at 1e-5, which ends the bonus (and its
    gradient) beyond :math:`p = 0.99999`.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        end_point: e, in (0, 1]: probability at which the bonus goes over into its tangent. The
            authors take 0.75, and 0.5 where training is unstable.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced. It is negative for p >
        1/2.

    Raises:
        ValueError: on shapes or labels out of range, an end_point outside (0, 1], a single class
            with end_point 1.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``zhao2021wellclassified``.

    Pitfall: with end_point 1 the loss has no lower bound: separable data drive the logits to
    infinity at a constant rate. Watch the margin, not the loss.
    """
    z = check_scores(logits)
    require(0 < end_point <= 1, "end_point", end_point, "in (0, 1]")
    if end_point == 1:
        require(z.shape[1] >= 2, "end_point", end_point, "below 1 for a single class")
        losses = _log_odds_against(z)
    else:
        log_p = z.log_softmax(1)
        p = log_p.exp()
        tangent = math.log1p(-end_point) - (p - end_point) / (1 - end_point)
        losses = torch.where(p > end_point, tangent, log_complement(z)) - log_p
    return expectation(
        losses,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def halted_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    halt: float = 0.5,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Focal loss for hard examples, cross-entropy (shifted to fit) for well-classified ones.

    .. math:: L = \begin{cases}
        -(1 - p_y)^\gamma \log p_y & p_y \le h \\
        -\log p_y + \bigl(1 - (1 - h)^\gamma\bigr) \log h & p_y > h \end{cases}

    The authors apply it to the sigmoid outputs of a detector, halting at h = 1/2; here p is the
    softmax probability of the label, which for two classes is the sigmoid of the difference of the
    logits.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        gamma: at least 0, the focusing parameter; 0 is cross-entropy.
        halt: h, in (0, 1]; 1 is focal loss.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced. It is negative for p
        near 1.

    Raises:
        ValueError: on shapes or labels out of range, a negative gamma, a halt outside (0, 1].
        TypeError: on logits or a target of the wrong dtype.

    Source: ``zhao2021wellclassified``.

    Pitfall: the value is continuous at h but the slope jumps up by design: an example that passes h
    suddenly pulls harder.
    """
    z = check_scores(logits)
    require(gamma >= 0, "gamma", gamma, "at least 0")
    require(0 < halt <= 1, "halt", halt, "in (0, 1]")
    log_p = z.log_softmax(1)
    focus = (gamma * log_complement(z)).exp() if gamma > 0 else 1.0
    shift = (1 - (1 - halt) ** gamma) * math.log(halt)
    return expectation(
        torch.where(log_p.exp() > halt, -log_p + shift, -focus * log_p),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


# --- Square losses ----------------------------------------------------------------------------


def _sum_of_others(x: Tensor) -> Tensor:
    """The sum over the other classes, for every class, without subtracting from the total."""
    zero = torch.zeros_like(x[:, :1])
    before = torch.cat([zero, x[:, :-1].cumsum(1)], 1)
    after = torch.cat([x[:, 1:].flip(1).cumsum(1).flip(1), zero], 1)
    return before + after


def squentropy_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy plus the mean square of the logits of the wrong classes.

    .. math:: L = -\log p_y + \frac{1}{C - 1} \sum_{k \ne y} z_k^2

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``hui2023cut``.

    Pitfall: adding a constant to all logits changes it, unlike cross-entropy: the wrong ones are
    pulled to zero. In float16 the squares of logits beyond 256 saturate the value (the gradient
    stays right).
    """
    z = check_scores(logits)
    squares = _sum_of_others(z.square()) / max(z.shape[1] - 1, 1)
    return expectation(
        squares - z.log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def rescaled_square_loss(
    logits: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    magnitude: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Square loss to a one-hot target, with the label's entry enlarged for many classes.

    .. math:: L = \frac1C \Bigl( k (z_y - M)^2 + \sum_{j \ne y} z_j^2 \Bigr)

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        scale: k, positive, weight of the label's entry.
        magnitude: M, positive, the value that the label's logit should take.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, a scale or magnitude that is not positive.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``hui2021evaluation``.

    Pitfall: a label's logit above M is pulled back down: confidence is punished like an error.
    """
    z = check_scores(logits)
    require(scale > 0, "scale", scale, "positive")
    require(magnitude > 0, "magnitude", magnitude, "positive")
    return expectation(
        (scale * (z - magnitude).square() + _sum_of_others(z.square())) / z.shape[1],
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


# --- The spherical family ---------------------------------------------------------------------


def _z_loss(z_score: Tensor, sharpness: float, offset: float) -> Tensor:
    require(sharpness > 0, "sharpness", sharpness, "positive")
    return -F.logsigmoid(-sharpness * (offset - z_score)) / sharpness


def z_loss(
    logits: Tensor,
    target: Tensor,
    *,
    sharpness: float = 1.0,
    offset: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Z-loss: softplus of the standardized output of the label, blind to shift and scale.

    .. math:: L = \frac1a \log\bigl(1 + e^{a (b - \zeta_y)}\bigr), \qquad
        \zeta_y = \frac{z_y - \mu}{\sigma}, \quad
        \mu = \frac1C \sum_k z_k, \quad \sigma^2 = \frac1C \sum_k z_k^2 - \mu^2

    Not the penalty on the squared log-partition function that goes by the same name.

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        sharpness: a, positive. The paper tunes it; the default is ours.
        offset: b, any sign, in standard deviations. Since :math:`|\zeta_y| \le \sqrt{C - 1}`,
            choose it against that bound. The paper tunes it; the default is ours.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, a sharpness that is not positive.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``debrebisson2016zloss``.

    Pitfall: it cannot train two classes, where :math:`\zeta_y = \pm 1` whatever the logits, and the
    gradient vanishes for any C where the label's output is the only one that differs. Where all
    outputs are equal it is undefined; standard deviations below 1e-6 count as 1e-6, so start from
    random weights.
    """
    z = check_scores(logits)
    centered = z - z.mean(1, keepdim=True)
    deviation = centered.square().mean(1, keepdim=True).clamp(min=1e-12).sqrt()
    return expectation(
        _z_loss(centered / deviation, sharpness, offset),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def z_loss_from_statistics(
    total: Tensor,
    squares: Tensor,
    chosen: Tensor,
    classes: int,
    *,
    sharpness: float = 1.0,
    offset: float = 1.0,
) -> Tensor:
    r"""The :func:`z_loss` of outputs of which only three numbers are known.

    .. math:: \zeta_y = \frac{z_y - s/C}{\sqrt{q/C - s^2/C^2}}, \qquad
        s = \sum_k z_k, \quad q = \sum_k z_k^2

    Args:
        total: (N,), the sums s.
        squares: (N,), the sums of squares q.
        chosen: (N,), the outputs of the labels.
        classes: number C of outputs.
        sharpness: a, positive.
        offset: b.

    Returns:
        (N,), one loss per example.

    Raises:
        ValueError: if sharpness is not positive.

    Source: ``debrebisson2016zloss``.

    Pitfall: the variance is a difference; outputs far from zero lose digits that :func:`z_loss`
    keeps.
    """
    mean = total / classes
    deviation = (squares / classes - mean.square()).clamp(min=1e-12).sqrt()
    return _z_loss((chosen - mean) / deviation, sharpness, offset)


def _log_spherical_softmax(z: Tensor, epsilon: float) -> Tensor:
    require(epsilon > 0, "epsilon", epsilon, "positive")
    log_weights = (z.square() + epsilon).log()
    return log_weights.log_softmax(1)


def spherical_softmax(logits: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    r"""Spherical softmax: probabilities in proportion to squared outputs.

    .. math:: p_k = \frac{z_k^2 + \epsilon}{\sum_j (z_j^2 + \epsilon)}

    Args:
        logits: (N, C) or (N, C, d1, ...).
        epsilon: positive, keeps probabilities off zero.

    Returns:
        Probabilities in the shape and dtype of the logits.

    Raises:
        ValueError: if epsilon is not positive or logits have fewer than two dimensions.
        TypeError: if logits are not floating-point.

    Source: ``debrebisson2016zloss``.

    Pitfall: -3 is as good as 3, so predict with the largest square, not with the largest output.
    """
    return restore(_log_spherical_softmax(check_scores(logits), epsilon).exp(), logits.dtype)


def spherical_softmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1e-4,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Minus the log-likelihood of the label under the spherical softmax.

    .. math:: L = -\log \frac{z_y^2 + \epsilon}{\sum_j (z_j^2 + \epsilon)}

    Args:
        logits: (N, C) or (N, C, d1, ...).
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        epsilon: positive, keeps probabilities off zero.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the logits, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, an epsilon that is not positive.
        TypeError: on logits or a target of the wrong dtype.

    Source: ``debrebisson2016zloss``.

    Pitfall: an output of exactly zero has gradient zero and never leaves; do not start from zero
    weights.
    """
    z = check_scores(logits)
    return expectation(
        -_log_spherical_softmax(z, epsilon),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=logits.dtype,
    )


def spherical_softmax_loss_from_statistics(
    total: Tensor, squares: Tensor, chosen: Tensor, classes: int, *, epsilon: float = 1e-4
) -> Tensor:
    r"""The :func:`spherical_softmax_loss` of outputs of which only three numbers are known.

    .. math:: L = \log(q + C \epsilon) - \log(z_y^2 + \epsilon), \qquad q = \sum_k z_k^2

    Args:
        total: (N,), sums of the outputs; unused, all members of the family share one signature.
        squares: (N,), the sums of squares q.
        chosen: (N,), the outputs of the labels.
        classes: number C of outputs.
        epsilon: positive.

    Returns:
        (N,), one loss per example.

    Raises:
        ValueError: if epsilon is not positive.

    Source: ``debrebisson2016zloss``.

    Pitfall: as for the loss itself, an output of exactly zero has gradient zero.
    """
    require(epsilon > 0, "epsilon", epsilon, "positive")
    return (squares + classes * epsilon).log() - (chosen.square() + epsilon).log()


class SphericalLayer(nn.Module):
    r"""A linear output layer trained by exact SGD at a cost that does not depend on its width.

    A spherical loss sees the outputs :math:`o = W h` (D of them) only through :math:`\sum_k o_k`,
    :math:`\sum_k o_k^2` and :math:`o_y`. With :math:`Q = W^\top W` and the sum of the rows of W
    these cost O(d^2), and the gradient step

    .. math:: W \leftarrow W - \eta \, (\alpha \mathbf{1} + 2 \beta W h + \gamma e_y) h^\top

    is kept in factors, :math:`W = V U + \mathbf{1} \omega^\top`: a rank-one change of U (d x d) and
    of :math:`\omega`, one row of V. The inverse of U follows by the Woodbury identity. Once U is so
    ill-conditioned that digits are at stake it is multiplied into V, Q is recomputed, and U starts
    again as the identity (O(D d^2), rare at sensible learning rates).

    A batch of N examples takes one joint step on the mean loss, O(N d^2 + N^2 d). Steps decide on
    the host whether to refresh, so they do not compile and wait for an accelerator.

    Args:
        weight: (D, d), the initial W; it is copied.

    Raises:
        ValueError: if weight is not a matrix.
        TypeError: if weight is not floating-point.

    Source: ``vincent2015efficient``. Written from the algebra, not from the paper's pseudo-code;
    the joint step of a batch and the condition for starting again are our choices.

    Pitfall: this is plain SGD: momentum or Adam would need all of W. Q and the sum of the rows
    gather rounding errors; in float32 call :meth:`refresh` every few thousand steps.

    Example:
        >>> layer = SphericalLayer(torch.randn(1000, 8))
        >>> hidden, target = torch.randn(4, 8), torch.tensor([3, 1, 4, 1])
        >>> loss, hidden_gradient = layer.step(hidden, target, 0.1, loss=z_loss_from_statistics)
        >>> layer.weight.shape, hidden_gradient.shape
        (torch.Size([1000, 8]), torch.Size([4, 8]))
    """

    rows: Tensor
    mixing: Tensor
    inverse: Tensor
    offset: Tensor
    gram: Tensor
    row_sum: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        check_float(weight, "weight")
        require(weight.ndim == 2, "the shape of weight", tuple(weight.shape), "(D, d)")
        weight = weight.detach()
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        self.register_buffer("rows", weight.clone())  # V
        self.register_buffer("mixing", identity)  # U
        self.register_buffer("inverse", identity.clone())  # of U
        self.register_buffer("offset", torch.zeros_like(weight[0]))  # omega
        self.register_buffer("gram", weight.T @ weight)  # Q
        self.register_buffer("row_sum", weight.sum(0))

    @property
    def weight(self) -> Tensor:
        """The matrix W = V U + 1 omega^T, (D, d), formed anew at every call in O(D d^2)."""
        return self.rows @ self.mixing + self.offset

    def _chosen_rows(self, target: Tensor) -> Tensor:
        return self.rows[target] @ self.mixing + self.offset

    def statistics(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum, sum of squares and target entry of the outputs, each (N,), for hidden (N, d)."""
        classes, width = self.rows.shape
        require_shape(hidden, (*target.shape, width), "hidden")
        if is_concrete(target):
            known = bool(((target >= 0) & (target < classes)).all())
            require(known, "target", target, f"in 0 to {classes - 1}")
        squares = ((hidden @ self.gram) * hidden).sum(1).clamp(min=0)
        return hidden @ self.row_sum, squares, (self._chosen_rows(target) * hidden).sum(1)

    def step(
        self,
        hidden: Tensor,
        target: Tensor,
        learning_rate: float,
        *,
        loss: Callable[[Tensor, Tensor, Tensor, int], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """One SGD step on the mean loss of a batch.

        Args:
            hidden: (N, d), inputs of the layer.
            target: (N,), int64 labels.
            learning_rate: positive.
            loss: function of (total, squares, chosen, classes) giving (N,), for instance
                :func:`z_loss_from_statistics`; hyperparameters by ``functools.partial``.

        Returns:
            The mean loss before the step and its gradient with respect to hidden, (N, d).
        """
        require(learning_rate > 0, "learning_rate", learning_rate, "positive")
        classes, h = self.rows.shape[0], hidden.detach()
        total, squares, chosen = (s.requires_grad_() for s in self.statistics(h, target))
        with torch.enable_grad():
            mean = loss(total, squares, chosen, classes).mean()
        alpha, beta, gamma = (
            torch.zeros_like(s) if g is None else g
            for s, g in zip(
                (total, squares, chosen),
                torch.autograd.grad(mean, (total, squares, chosen), allow_unused=True),
                strict=True,
            )
        )
        with torch.no_grad():
            chosen_rows, images = self._chosen_rows(target), h @ self.gram
            gradient = (
                torch.outer(alpha, self.row_sum)
                + 2 * beta[:, None] * images
                + gamma[:, None] * chosen_rows
            )
            # Gram matrix of the output gradients alpha 1 + 2 beta o + gamma e_y, an (N, N) matrix.
            one_side = (
                torch.outer(alpha, 2 * beta * total + gamma)
                + 2 * beta[:, None] * (h @ chosen_rows.T) * gamma
            )
            same = (target[:, None] == target) * torch.outer(gamma, gamma)
            products = (
                one_side
                + one_side.T
                + classes * torch.outer(alpha, alpha)
                + 4 * torch.outer(beta, beta) * (images @ h.T)
                + same
            )
            output_sum = classes * alpha + 2 * beta * total + gamma

            rate = learning_rate
            self.row_sum -= rate * output_sum @ h
            cross = rate * gradient.T @ h
            self.gram += rate**2 * h.T @ products @ h - cross - cross.T
            shrink = 2 * rate * beta[:, None] * h  # W <- W (1 - shrink^T h) - ...
            self.offset -= (self.offset @ shrink.T) @ h + rate * alpha @ h
            restarted = self._mix(shrink, h)
            self.rows.index_add_(0, target, -rate * gamma[:, None] * (h @ self.inverse))
            if restarted:
                self.refresh()
        return mean.detach(), gradient

    def refresh(self) -> None:
        """Multiplies the factors out and recomputes what was updated step by step, in O(D d^2)."""
        dense = self.weight
        self.rows.copy_(dense)
        self.mixing.copy_(torch.eye(dense.shape[1]))
        self.inverse.copy_(self.mixing)
        self.offset.zero_()
        self.gram.copy_(dense.T @ dense)
        self.row_sum.copy_(dense.sum(0))

    def _mix(self, left: Tensor, right: Tensor) -> bool:
        """U <- U (1 - left^T right), and its inverse; True if U started again as the identity."""
        self.mixing -= (self.mixing @ left.T) @ right
        core = torch.eye(len(left), dtype=left.dtype, device=left.device) - right @ left.T
        solution, failed = torch.linalg.solve_ex(core, right @ self.inverse)
        self.inverse += left.T @ solution
        width = self.mixing.shape[0]
        condition = self.mixing.norm() * self.inverse.norm() / width
        restart = bool(failed) or not bool(condition < torch.finfo(left.dtype).eps ** -0.25)
        if restart:
            self.rows.copy_(self.rows @ self.mixing)
            self.mixing.copy_(torch.eye(width))
            self.inverse.copy_(self.mixing)
        return restart


# --- Harmonic loss ----------------------------------------------------------------------------


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Squared distances (N, C) by differences: exact near zero, where the optimum is."""
    return (x.unsqueeze(-2) - centers).square().sum(-1)


class DistanceLayer(nn.Module):
    r"""Distances to one learned center per class, in place of a linear layer's inner products.

    .. math:: d_k = \| w_k - x \|_2

    Distances are formed from differences, with gradient zero where :math:`x = w_k`. The expansion
    :math:`\|w\|^2 + \|x\|^2 - 2 w \cdot x` would need less memory (this takes N * C * D numbers)
    but has no correct digits left near the optimum.

    Args:
        in_features: D, dimension of the inputs, at least 1.
        out_features: C, number of centers, at least 1.

    Raises:
        ValueError: if a size is below 1.

    Source: ``baek2025harmonic``.

    Pitfall: the output is a cost, not a score: predict with ``argmin``.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        require(in_features >= 1, "in_features", in_features, "at least 1")
        require(out_features >= 1, "out_features", out_features, "at least 1")
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        """Distances (..., C) of inputs (..., D) to the centers."""
        x, width = check_float(inputs, "inputs"), self.weight.shape[1]
        require(x.shape[-1:] == (width,), "the shape of inputs", tuple(x.shape), f"(..., {width})")
        squares = _squared_distances(x, check_float(self.weight, "weight"))
        return restore(_safe_sqrt(squares), inputs.dtype)


def harmonic_loss(
    distances: Tensor,
    target: Tensor,
    *,
    exponent: float = 2.0,
    epsilon: float = 1e-4,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Harmonic loss: minus the log-likelihood under a power law in the distances to class centers.

    .. math:: L = -\log \frac{d_y^{-n}}{\sum_k d_k^{-n}} = n \log d_y + \log \sum_k d_k^{-n},
        \qquad d^2 \to d^2 + \epsilon

    The optimum is finite: zero distance to the label's center. As in the released code an epsilon
    is added to the squared distances; there the power is that of the square, n / 2 here.

    Args:
        distances: (N, C) or (N, C, d1, ...), non-negative; see :class:`DistanceLayer`.
        target: class indices (N, ...), int64, or probabilities (N, C, ...).
        exponent: n, positive; the paper suggests the order of the square root of the dimension.
        epsilon: at least 0, in squared units of the distances.
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the distances, or (N, ...) unreduced.

    Raises:
        ValueError: on shapes or labels out of range, negative distances, an exponent that is not
            positive, a negative epsilon.
        TypeError: on distances or a target of the wrong dtype.

    Source: ``baek2025harmonic``.

    Pitfall: blind to the scale of the distances, so representations may shrink together with the
    centers until epsilon takes over; with epsilon 0 a distance of zero is infinite trouble.
    """
    d = check_scores(distances, "distances")
    require(exponent > 0, "exponent", exponent, "positive")
    require(epsilon >= 0, "epsilon", epsilon, "at least 0")
    if is_concrete(d):
        require(not bool((d < 0).any()), "distances", "negative values", "non-negative")
    log_weights = -exponent / 2 * (d.square() + epsilon).log()
    return expectation(
        -log_weights.log_softmax(1),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=distances.dtype,
    )


# --- Holographic reduced representations -------------------------------------------------------


def _spectrum(x: Tensor, name: str) -> Tensor:
    return torch.fft.rfft(check_float(x, name))


def hrr_bind(a: Tensor, b: Tensor) -> Tensor:
    r"""Binds two vectors by circular convolution.

    .. math:: a \circledast b = \mathcal{F}^{-1}(\mathcal{F}a \cdot \mathcal{F}b)

    Args:
        a: (..., d).
        b: (..., d), of a shape that broadcasts with a.

    Returns:
        The bound vectors (..., d), in the dtype of a.

    Raises:
        ValueError: if the last dimensions differ.
        TypeError: if an argument is not floating-point.

    Source: ``plate1995holographic``.

    Pitfall: binding commutes, so it does not tell which of the two was the key.
    """
    require(a.shape[-1] == b.shape[-1], "the length of b", b.shape[-1], f"{a.shape[-1]}, that of a")
    bound = torch.fft.irfft(_spectrum(a, "a") * _spectrum(b, "b"), n=a.shape[-1])
    return restore(bound, a.dtype)


def hrr_unbind(bound: Tensor, key: Tensor) -> Tensor:
    r"""Recovers what was bound with a key: binding with the conjugate spectrum.

    .. math:: \mathcal{F}^{-1}(\mathcal{F} b \cdot \overline{\mathcal{F} k})

    Args:
        bound: (..., d).
        key: (..., d), of a shape that broadcasts with bound.

    Returns:
        The other vector (..., d), in the dtype of bound, exactly for a key from
        :func:`hrr_project`, approximately for a random one.

    Raises:
        ValueError: if the last dimensions differ.
        TypeError: if an argument is not floating-point.

    Source: ``plate1995holographic``.

    Pitfall: for a key that was not projected the result is blurred by the key's own spectrum.
    """
    length = bound.shape[-1]
    require(key.shape[-1] == length, "the length of key", key.shape[-1], f"{length}, that of bound")
    spectrum = _spectrum(bound, "bound") * _spectrum(key, "key").conj()
    return restore(torch.fft.irfft(spectrum, n=length), bound.dtype)


def hrr_project(x: Tensor) -> Tensor:
    r"""Projects a vector to unit spectrum, so that unbinding inverts binding exactly.

    .. math:: \pi(x) = \mathcal{F}^{-1} \bigl( \mathcal{F}x / |\mathcal{F}x| \bigr)

    Args:
        x: (..., d).

    Returns:
        (..., d), of Euclidean norm 1, in the dtype of x.

    Raises:
        TypeError: if x is not floating-point.

    Source: ``ganesan2021learning``.

    Pitfall: a frequency that is absent from x has no phase; it stays absent and the norm falls
    below 1.
    """
    spectrum = _spectrum(x, "x")
    size = spectrum.abs()
    unit = spectrum / torch.where(size > 0, size, 1)
    return restore(torch.fft.irfft(unit, n=x.shape[-1]), x.dtype)


def hrr_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    key: Tensor,
    prototypes: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Squared distance of the network's output to the bound key and prototype of its class.

    .. math:: L = \| s - k_y \circledast c_y \|_2^2

    The prediction is the class whose prototype is most similar, in cosine, to the output unbound
    with its key. The authors' script minimizes the norm of the whole batch of differences; its
    gradient has the direction of that of the mean square taken here, which lets examples be weighed
    one by one.

    Args:
        embeddings: (N, d), outputs s of the network (the authors put a tanh before).
        target: class indices (N,), int64, or probabilities (N, C).
        key: (C, d), one key per class as in the authors' code, or (d,) for all.
        prototypes: (C, d).
        weight: (C,), weights of the classes.
        ignore_index: class index of elements that count for nothing.
        reduction: "none", "mean" (over the weights of valid elements) or "sum".

    Returns:
        The loss, a scalar in the dtype of the embeddings, or (N,) unreduced.

    Raises:
        ValueError: on shapes that do not fit or labels out of range.
        TypeError: on embeddings or a target of the wrong dtype.

    Source: ``alam2023generalization``.

    Pitfall: key and prototypes are never trained, and useful only from :func:`hrr_project`.
    """
    s = check_scores(embeddings, "embeddings")
    require(s.ndim == 2, "the shape of embeddings", tuple(s.shape), "(N, d)")
    shape = (prototypes.shape[0], s.shape[1])
    require_shape(prototypes, shape, "prototypes")
    require(key.shape in (shape, shape[1:]), "the shape of key", tuple(key.shape), f"{shape}")
    return expectation(
        _squared_distances(s, hrr_bind(prototypes.to(s.dtype), key)),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        dtype=embeddings.dtype,
    )


class HrrLoss(nn.Module):
    r"""The loss of :func:`hrr_loss` with fixed random keys and prototypes, and its predictions.

    .. math:: \mathrm{score}_k = \cos \bigl( k_k^{-1} \circledast s,\; c_k \bigr)

    Keys and prototypes are projected normal vectors, as in the authors' code, one pair for each
    class.

    Args:
        classes: C, at least 1.
        dimension: d, at least 1; random vectors are the less alike the larger it is.
        generator: source of randomness; torch's own by default.
        weight: (C,), weights of the classes.
        reduction: "none", "mean" (over the weights) or "sum".

    Raises:
        ValueError: if a size is below 1.

    Source: ``alam2023generalization``.

    Pitfall: the random vectors are part of the model: save the ``state_dict``.
    """

    key: Tensor
    prototypes: Tensor
    weight: Tensor | None

    def __init__(
        self,
        classes: int,
        dimension: int,
        *,
        generator: torch.Generator | None = None,
        weight: Tensor | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        require(classes >= 1, "classes", classes, "at least 1")
        require(dimension >= 1, "dimension", dimension, "at least 1")
        check_reduction(reduction)
        self.reduction = reduction
        normal = torch.randn(2, classes, dimension, generator=generator)
        key, prototypes = hrr_project(normal)
        self.register_buffer("key", key)
        self.register_buffer("prototypes", prototypes)
        self.register_buffer("weight", weight)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Cosine scores (N, C) of embeddings (N, d): the largest is the prediction."""
        s = check_scores(embeddings, "embeddings")
        unbound = hrr_unbind(s.unsqueeze(1), self.key)
        scores = F.cosine_similarity(unbound, self.prototypes.to(s), dim=-1)
        return restore(scores, embeddings.dtype)

    def forward(self, embeddings: Tensor, target: Tensor) -> Tensor:
        """The loss of embeddings (N, d) under target (N,) or (N, C)."""
        return hrr_loss(
            embeddings,
            target,
            key=self.key,
            prototypes=self.prototypes,
            weight=self.weight,
            reduction=self.reduction,
        )
