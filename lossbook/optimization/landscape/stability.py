r"""The stability of training: which minima and which step sizes gradient descent can live with.

Near a minimum the loss of example i is a quadratic with Hessian :math:`H_i`, their mean is
:math:`H`, and gradient descent with step size :math:`\eta` is the linear map
:math:`w \leftarrow (I - \eta H) w`. It contracts while :math:`\lambda_1(H) < 2 / \eta`. A random
batch of B replaces H by a random matrix, and the mean of :math:`\|w\|^2` may grow where gradient
descent is stable. :func:`mean_square_step_limit` says exactly when, :func:`sgd_step_limits` in
simple conditions.

The per-example Hessians come as *factors* (n, r, P): :math:`H_i = A_i^\top A_i`, so that no P x P
matrix is ever formed. :func:`gauss_newton_factors` takes them from a network,
:func:`hessian_factors` from dense matrices.

Then, for what happens far from a minimum: the sharpness of the point that gradient flow would reach
(:func:`scalar_gfs_sharpness`, :func:`gfs_sharpness`), networks whose step size keeps its meaning
when the width changes (:class:`ScaledMLP`), and optimizers that find their step size from a lower
bound of the loss (:class:`Momo`, :class:`MomoAdam`).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lossbook._contract import check_float, is_concrete, promote, require
from lossbook.optimization.landscape.curvature import hessian, top_eigenpairs

__all__ = [
    "FlowEnd",
    "Momo",
    "MomoAdam",
    "ScaledMLP",
    "StepLimits",
    "coherence_matrix",
    "gauss_newton_factors",
    "gfs_sharpness",
    "gradient_flow",
    "hessian_coherence",
    "hessian_factors",
    "linear_stability_probe",
    "mean_square_growth",
    "mean_square_step_limit",
    "polyak_step",
    "scalar_flow_end",
    "scalar_gfs_sharpness",
    "second_moment_operator",
    "sgd_step_limits",
]

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]
Sampling = Literal["bernoulli", "minibatch"]

# The operator on symmetric matrices has about m^4 / 4 numbers.
_LARGEST = 64


# --- Factors of the per-example Hessians ------------------------------------------------------


def hessian_factors(hessians: Tensor) -> Tensor:
    r"""Factors A with :math:`H_i = A_i^\top A_i` of dense positive semidefinite matrices.

    Args:
        hessians: (n, P, P), symmetric without negative eigenvalues (up to rounding).

    Returns:
        (n, P, P), in the dtype of the Hessians.

    Raises:
        ValueError: If a matrix is not square, not symmetric or has a negative eigenvalue.

    Pitfall: the Hessian of an example that is not fitted exactly is usually indefinite; its
    Gauss-Newton part (:func:`gauss_newton_factors`) is not.

    Example:
        >>> hessian_factors(torch.tensor([[[4.0, 0.0], [0.0, 0.0]]])).square().sum()
        tensor(4.)
    """
    matrices = check_float(hessians, "hessians")
    shape = tuple(matrices.shape)
    square = len(shape) == 3 and shape[1] == shape[2] and min(shape) > 0
    require(square, "the shape of hessians", shape, "(n, P, P)")
    if is_concrete(matrices):
        symmetric = torch.allclose(matrices, matrices.mT, rtol=1e-4, atol=1e-6)
        require(symmetric, "hessians", "a matrix that is not", "symmetric")
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    if is_concrete(matrices):
        floor = -100 * torch.finfo(matrices.dtype).eps * values.abs().amax() * shape[1]
        least = float(values.min())
        require(least >= floor, "the smallest eigenvalue of hessians", least, "non-negative")
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(1)).mT.to(hessians.dtype)


def gauss_newton_factors(
    model: nn.Module, inputs: Tensor, *, loss: Literal["cross_entropy", "square"] = "cross_entropy"
) -> Tensor:
    r"""Factors of each example's Gauss-Newton matrix, the Hessian of the loss where it is fitted.

    .. math:: H_i = J_i^\top M_i J_i, \qquad
        M_i = \mathrm{diag}(p_i) - p_i p_i^\top = L_i L_i^\top, \quad
        L_i = \mathrm{diag}(\sqrt{p_i}) - p_i \sqrt{p_i}^\top, \qquad A_i = L_i^\top J_i

    with the Jacobian :math:`J_i` of the outputs in the parameters and the probabilities
    :math:`p_i`. For half the squared error, :math:`\frac12 \|z - y\|^2`, :math:`M_i = I`.

    Args:
        model: Maps inputs (n, ...) to outputs (n, C), each example on its own; its parameters that
            require a gradient are the P variables, in the order of ``model.parameters()``.
        inputs: (n, ...).
        loss: ``"cross_entropy"`` of logits, or ``"square"``.

    Returns:
        (n, C, P).

    Raises:
        ValueError: On an unknown loss, no inputs, no parameters, or outputs of another shape.

    Pitfall: n C P numbers are stored; take a few hundred examples of a small network. Batch norm
    in training mode makes examples depend on each other.
    """
    require(loss in ("cross_entropy", "square"), "loss", loss, "'cross_entropy' or 'square'")
    require(len(inputs) > 0, "inputs", tuple(inputs.shape), "not empty")
    named = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}
    require(len(named) > 0, "model", type(model).__name__, "a module with a parameter to train")
    others = {k: p.detach() for k, p in model.named_parameters() if not p.requires_grad}
    others |= dict(model.named_buffers())

    def outputs(parameters: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        z = functional_call(model, {**parameters, **others}, (x.unsqueeze(0),)).squeeze(0)
        return z, z

    jacobians, z = vmap(jacrev(outputs, has_aux=True), (None, 0))(named, inputs)
    require(z.ndim == 2, "the shape of the model's outputs", tuple(z.shape), "(n, C)")
    jacobian = torch.cat([j.flatten(2) for j in jacobians.values()], 2)
    if loss == "square":
        return jacobian
    p = z.softmax(1)
    root = p.sqrt()
    return root.unsqueeze(2) * (jacobian - p.unsqueeze(1) @ jacobian)


def _check_factors(factors: Tensor) -> Tensor:
    matrices = check_float(factors, "factors")
    shape = tuple(matrices.shape)
    require(len(shape) == 3 and min(shape) > 0, "the shape of factors", shape, "(n, r, P)")
    return matrices


def coherence_matrix(factors: Tensor) -> Tensor:
    r"""How much the per-example Hessians overlap, pair by pair.

    .. math:: S_{ij} = \|H_i^{1/2} H_j^{1/2}\|_F = \sqrt{\mathrm{tr}(H_i H_j)} = \|A_i A_j^\top\|_F

    Args:
        factors: (n, r, P), :math:`H_i = A_i^\top A_i`.

    Returns:
        S, (n, n), symmetric, non-negative.

    Raises:
        ValueError: If factors have another shape or are empty.

    Source: ``dexter2024precise``.

    Pitfall: n^2 numbers, by way of n^2 r^2: take a few hundred examples.

    Example:
        >>> coherence_matrix(torch.eye(2).unsqueeze(1))  # two orthogonal directions
        tensor([[1., 0.],
                [0., 1.]])
    """
    a = _check_factors(factors)
    n, r, _ = a.shape
    rows = a.flatten(0, 1)
    gram = (rows @ rows.T).reshape(n, r, n, r)
    return gram.square().sum((1, 3)).sqrt().to(factors.dtype)


def hessian_coherence(factors: Tensor) -> Tensor:
    r"""The coherence of the per-example Hessians: 1 if they share no direction, n if all are equal.

    .. math:: \sigma = \frac{\lambda_1(S)}{\max_i \lambda_1(H_i)}

    The range from 1 to n is that of rank-one Hessians of equal size; with r directions each it can
    reach :math:`n \sqrt r`.

    Args:
        factors: (n, r, P), :math:`H_i = A_i^\top A_i`.

    Returns:
        A scalar.

    Raises:
        ValueError: If factors have another shape or are empty, or all are zero.

    Source: ``dexter2024precise``. The paper's text was not at hand when this was written, and the
    normalization is from memory; that with it the paper's condition holds is proved in
    :func:`sgd_step_limits`.

    Pitfall: it grows with n, so compare it only between equally many examples.

    Example:
        >>> round(float(hessian_coherence(torch.ones(5, 1, 3))), 4)
        5.0
    """
    a = _check_factors(factors)
    largest = _example_sharpness(a)
    if is_concrete(largest):
        require(float(largest) > 0, "factors", "zero", "not all zero")
    return (torch.linalg.eigvalsh(coherence_matrix(a))[-1] / largest).to(factors.dtype)


def _example_sharpness(a: Tensor) -> Tensor:
    """The largest eigenvalue of any example's Hessian."""
    return torch.linalg.matrix_norm(a, 2).amax().square()


# --- Linear stability of stochastic gradient descent ------------------------------------------


class StepLimits(NamedTuple):
    """Step sizes above which SGD is certain to be unstable; the smallest is the best known.

    Attributes:
        sharpness: 2 over the largest eigenvalue of the mean Hessian: gradient descent's own limit.
        example: From the sharpest single example.
        coherence: From the sharpness and the coherence.

    Pitfall: the three are not alternatives: SGD is unstable above *any* of them.
    """

    sharpness: Tensor
    example: Tensor
    coherence: Tensor


def sgd_step_limits(factors: Tensor, batch_size: float) -> StepLimits:
    r"""Step sizes above which the mean of :math:`\|w\|^2` under SGD is certain to grow.

    With Bernoulli sampling (each example is in the batch with probability B / n)

    .. math:: \mathbb{E}[w w^\top] \leftarrow
        (I - \eta H)\, \mathbb{E}[w w^\top] (I - \eta H)
        + \frac{\eta^2}{n^2} \Bigl(\frac nB - 1\Bigr) \sum_i H_i\, \mathbb{E}[w w^\top] H_i ,

    two maps that keep matrices positive, so it grows if either alone does. The first grows for
    :math:`\eta > 2 / \lambda_1(H)`. The second does for

    .. math:: \eta > \frac{n}{\max_i \lambda_1(H_i)} \Bigl(\frac nB - 1\Bigr)^{-1/2}
        \qquad\text{and so for}\qquad
        \eta > \frac{\sigma}{\lambda_1(H)} \Bigl(\frac nB - 1\Bigr)^{-1/2} ,

    since one term of the sum already grows like :math:`\lambda_1(H_i)^2`, and since
    :math:`n \lambda_1(H) \le \lambda_1(S) = \sigma \max_i \lambda_1(H_i)`: a block matrix has no
    larger norm than the matrix of its blocks' norms. The last is the paper's condition. The one
    before it, ours, is never weaker.

    Args:
        factors: (n, r, P), :math:`H_i = A_i^\top A_i`.
        batch_size: B, the expected number of examples in a batch, in (0, n].

    Returns:
        :class:`StepLimits`; those of the noise are infinite for B = n.

    Raises:
        ValueError: If factors have another shape or are all zero, or batch_size is out of range.

    Source: ``dexter2024precise`` for the condition with the coherence, proved above; the rest is
    ours.

    Pitfall: sufficient for instability only; below all three SGD may still diverge, and
    :func:`mean_square_step_limit` says where.

    Example:
        >>> sgd_step_limits(torch.eye(4).unsqueeze(1), 1).example  # 4 / sqrt(3)
        tensor(2.3094)
    """
    a = _check_factors(factors)
    n = len(a)
    require(0 < batch_size <= n, "batch_size", batch_size, f"in (0, {n}]")
    largest = _example_sharpness(a)
    if is_concrete(largest):
        require(float(largest) > 0, "factors", "zero", "not all zero")
    mean = torch.linalg.matrix_norm(a.flatten(0, 1), 2).square() / n
    noise = (n / batch_size - 1) ** -0.5 if batch_size < n else math.inf
    sigma = hessian_coherence(a)
    limits = (2 / mean, n * noise / largest, sigma * noise / mean)
    return StepLimits(*(limit.to(factors.dtype) for limit in limits))


class _Linearized(NamedTuple):
    """The dynamics in the span of the Hessians, where their mean is diagonal."""

    mean: Tensor  # (m,), the eigenvalues of the mean Hessian
    rows: Tensor  # (n, r, m), the factors
    noise: float  # how much of sum_i H_i X H_i and ...
    shared: float  # ... how little of H X H a random batch adds


def _linearize(factors: Tensor, batch_size: float, sampling: Sampling) -> _Linearized:
    a = _check_factors(factors)
    n, r, _ = a.shape
    require(
        sampling in ("bernoulli", "minibatch"), "sampling", sampling, "'bernoulli' or 'minibatch'"
    )
    require(0 < batch_size <= n, "batch_size", batch_size, f"in (0, {n}]")
    if sampling == "minibatch":
        require(float(batch_size).is_integer(), "batch_size", batch_size, "a whole number")
    u, s, _ = torch.linalg.svd(a.flatten(0, 1).double(), full_matrices=False)
    floor = torch.finfo(a.dtype).eps * max(n * r, a.shape[2])
    rank = int((s > floor * s[0]).sum())
    require(rank > 0, "factors", "zero", "not all zero")
    rows = (u[:, :rank] * s[:rank]).reshape(n, r, rank)
    shared = 0.0 if sampling == "bernoulli" or n == 1 else (n - batch_size) / (batch_size * (n - 1))
    noise = shared / n if sampling == "minibatch" else (n / batch_size - 1) / n**2
    return _Linearized(s[:rank].square() / n, rows, noise, shared)


def _on_symmetric(problem: _Linearized) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index pairs (a, b), and H X H and the noise as matrices on symmetric X."""
    h, rows = problem.mean, problem.rows
    m = len(h)
    require(m <= _LARGEST, "the dimension that the factors span", m,
            f"at most {_LARGEST}: take fewer examples")  # fmt: skip
    upper = torch.triu_indices(m, m, 1, device=h.device)
    diagonal = torch.arange(m, device=h.device)
    a, b = torch.cat([diagonal, upper[0]]), torch.cat([diagonal, upper[1]])
    hessians = (rows.mT @ rows).flatten(1)
    gram = (hessians.T @ hessians).reshape(m, m, m, m)  # [a, c, b, d]: sum_i H_i[a, c] H_i[b, d]
    size = torch.where(
        a == b, h.new_tensor(0.5), h.new_tensor(0.5**0.5)
    )  # so that E_ab has norm one
    pairs = gram[a[:, None], a, b[:, None], b] + gram[a[:, None], b, b[:, None], a]
    noise = problem.noise * 2 * size[:, None] * size * pairs
    both = h[a] * h[b]
    return a, b, both, noise - problem.shared * torch.diag(both)


def second_moment_operator(
    factors: Tensor, step_size: float, batch_size: float, *, sampling: Sampling = "bernoulli"
) -> Tensor:
    r"""The exact map of one SGD step on the second moment :math:`\mathbb{E}[w w^\top]`.

    .. math:: T(X) = \mathbb{E}_{\text{batch}} \bigl[(I - \eta \hat H)\, X\, (I - \eta \hat H)\bigr]

    On the m directions in which the Hessians do anything at all, in an eigenbasis of their mean. As
    coordinates of a symmetric X serve its m diagonal entries and then its m (m - 1) / 2 upper ones
    times the root of 2, so that T is a symmetric matrix and the trace of X the sum of the first m.

    Args:
        factors: (n, r, P), :math:`H_i = A_i^\top A_i`.
        step_size: :math:`\eta`, non-negative.
        batch_size: B. An expected size in (0, n] for Bernoulli sampling, else a whole number.
        sampling: ``"bernoulli"``: each example is in the batch with probability B / n, and the sum
            is divided by B. ``"minibatch"``: B different examples, as in an epoch's loader.

    Returns:
        (M, M) with M = m (m + 1) / 2, in the dtype of the factors.

    Raises:
        ValueError: On arguments out of range, or if the factors span more than 64 dimensions.

    Pitfall: independent batches are assumed; within an epoch they exclude each other.
    """
    require(0 <= step_size < math.inf, "step_size", step_size, "non-negative and finite")
    problem = _linearize(factors, batch_size, sampling)
    a, b, _, noise = _on_symmetric(problem)
    contraction = 1 - step_size * problem.mean
    operator = torch.diag(contraction[a] * contraction[b]) + step_size**2 * noise
    return operator.to(factors.dtype)


def mean_square_growth(
    factors: Tensor, step_size: float, batch_size: float, *, sampling: Sampling = "bernoulli"
) -> Tensor:
    r"""The factor by which :math:`\mathbb{E}\|w\|^2` grows in a step of SGD, in the long run.

    The spectral radius of :func:`second_moment_operator`: SGD is linearly stable in mean square
    where it is below one.

    Args:
        factors, step_size, batch_size, sampling: As in :func:`second_moment_operator`.

    Returns:
        A scalar.

    Raises:
        ValueError: On arguments out of range, or if the factors span more than 64 dimensions.

    Pitfall: the mean square can grow while almost every single run shrinks: rare runs carry it.

    Example:
        >>> mean_square_growth(torch.ones(3, 1, 1, dtype=torch.float64), 1.5, 3)  # (1 - 1.5)^2
        tensor(0.2500, dtype=torch.float64)
    """
    operator = second_moment_operator(factors, step_size, batch_size, sampling=sampling)
    # The map keeps matrices positive, so its largest eigenvalue is also its spectral radius.
    return torch.linalg.eigvalsh(promote(operator))[-1].to(factors.dtype)


def mean_square_step_limit(
    factors: Tensor, batch_size: float, *, sampling: Sampling = "bernoulli"
) -> Tensor:
    r"""The step size at which SGD loses its linear stability in mean square: exact.

    :math:`T = 1 - \eta L + \eta^2 Q` with :math:`L(X) = H X + X H` and
    :math:`Q(X) = H X H + \text{noise}`, so no eigenvalue exceeds one just while
    :math:`\eta Q \preceq L`,

    .. math:: \eta^* = \frac{1}{\lambda_1(L^{-1/2} Q L^{-1/2})} ,

    which for B = n, without noise, is :math:`2 / \lambda_1(H)`.

    Args:
        factors, batch_size, sampling: As in :func:`second_moment_operator`.

    Returns:
        A scalar; stable below it, unstable above.

    Raises:
        ValueError: On arguments out of range, or if the factors span more than 64 dimensions.

    Source: ``mulayoff2023exact``, who first gave such a closed form.

    Pitfall: the limit of the *linear* dynamics. A network that leaves a minimum need not diverge:
    it may find a flatter one.

    Example:
        >>> round(float(mean_square_step_limit(torch.ones(3, 1, 2), 3)), 4)  # at sharpness 2
        1.0
    """
    problem = _linearize(factors, batch_size, sampling)
    a, b, both, noise = _on_symmetric(problem)
    scale = (problem.mean[a] + problem.mean[b]).rsqrt()
    ratio = scale[:, None] * (torch.diag(both) + noise) * scale
    return (1 / torch.linalg.eigvalsh(ratio)[-1]).to(factors.dtype)


def linear_stability_probe(
    factors: Tensor,
    step_size: float,
    batch_size: float,
    *,
    steps: int = 20,
    runs: int = 1000,
    sampling: Sampling = "bernoulli",
    seed: int = 0,
) -> Tensor:
    r"""Simulated linear SGD: :math:`\|w\|^2` over steps and runs, from random points of norm one.

    .. math:: w \leftarrow w - \frac{\eta}{B} \sum_{i \in \text{batch}} H_i w

    Args:
        factors, step_size, batch_size, sampling: As in :func:`second_moment_operator`, but for
            factors that span any number of dimensions. Points start in that span.
        steps: Number of steps.
        runs: Number of independent runs.
        seed: Of the starting points and batches.

    Returns:
        (steps + 1, runs).

    Raises:
        ValueError: On arguments out of range.

    Source: ``dexter2024precise``.

    Pitfall: the mean over the runs estimates :math:`\mathbb{E}\|w\|^2` only for a few dozen steps;
    later it hangs on runs too rare to be drawn.
    """
    require(0 <= step_size < math.inf, "step_size", step_size, "non-negative and finite")
    require(steps >= 1, "steps", steps, "at least 1")
    require(runs >= 1, "runs", runs, "at least 1")
    problem = _linearize(factors, batch_size, sampling)
    rows = problem.rows
    n, _, m = rows.shape
    random = torch.Generator().manual_seed(seed)
    w = torch.randn(runs, m, generator=random, dtype=torch.float64).to(rows)
    w = w / w.norm(dim=1, keepdim=True)
    norms = [w.square().sum(1)]
    for _ in range(steps):
        draws = torch.rand(runs, n, generator=random)
        if sampling == "bernoulli":
            chosen = draws < batch_size / n
        else:
            chosen = draws.argsort(1).argsort(1) < batch_size
        share = chosen.to(rows) / batch_size
        pushed = torch.einsum("irm,km->kir", rows, w) * share[:, :, None]
        w = w - step_size * torch.einsum("irm,kir->km", rows, pushed)
        norms.append(w.square().sum(1))
    return torch.stack(norms).to(factors.dtype)


# --- Where gradient flow would end ------------------------------------------------------------


def scalar_flow_end(weights: Tensor) -> Tensor:
    r"""The minimum that gradient flow reaches in a scalar network, in closed form.

    The loss is :math:`L(w) = \frac12 (\prod_i w_i - 1)^2`. Since
    :math:`\dot w_i w_i = (1 - \prod_j w_j) \prod_j w_j` is the same for all i, every difference
    :math:`w_i^2 - w_j^2` is conserved, and the flow ends at

    .. math:: w_i^\infty = \pm \sqrt{w_i^2 + c}, \qquad \prod_i \sqrt{w_i^2 + c} = 1 .

    Signs stay, but for a negative product: then the weight of least size crosses zero on the way.

    Args:
        weights: (..., D), D at least 1.

    Returns:
        (..., D), in the dtype of the weights; differentiable. NaN where the flow is caught by the
        saddle at zero instead, which takes two weights of the same least size and a product that
        is not positive.

    Raises:
        ValueError: If there is no weight.

    Source: ``kreisler2023gradient``.

    Pitfall: near that saddle the end depends on the weights arbitrarily sharply.

    Example:
        >>> scalar_flow_end(torch.tensor([2.0, 0.1], dtype=torch.float64)).prod()
        tensor(1., dtype=torch.float64)
    """
    w = check_float(weights, "weights")
    require(w.ndim >= 1 and w.shape[-1] >= 1, "the shape of weights", tuple(w.shape), "(..., D)")
    squares = w.square()
    least, where = squares.min(-1, keepdim=True)
    excess = squares - least

    # With c = e^s - least: a convex, increasing equation in s <= 0, so Newton's method from s = 0
    # comes down to its root without ever passing it.
    with torch.no_grad():
        s = torch.zeros_like(least)
        for _ in range(60):
            total = excess + s.exp()
            s = s - total.log().sum(-1, keepdim=True) / (s.exp() / total).sum(-1, keepdim=True)
    total = excess + s.exp()
    slope = (s.exp() / total).sum(-1, keepdim=True).detach()
    s = s - total.log().sum(-1, keepdim=True) / slope  # for the gradient: the implicit function's
    size = (excess + s.exp()).sqrt()

    signs = w.sign()
    others = signs.scatter(-1, where, 1.0).prod(-1, keepdim=True)
    signs = signs.scatter(-1, where, others)
    tied = (squares == least).sum(-1, keepdim=True) > 1
    caught = tied & (w.prod(-1, keepdim=True) <= 0)
    return torch.where(caught, torch.nan, signs * size).to(weights.dtype)


def scalar_gfs_sharpness(weights: Tensor) -> Tensor:
    r"""Sharpness of the minimum that gradient flow would reach in a scalar network.

    At a minimum of :math:`\frac12 (\prod_i w_i - 1)^2` the Hessian is :math:`g g^\top` with
    :math:`g_i = 1 / w_i^\infty`, so

    .. math:: S_{GF}(w) = \lambda_1\bigl(\nabla^2 L(w^\infty)\bigr) = \sum_i (w_i^\infty)^{-2} \ge D

    with equality where all weights have size one.

    Args:
        weights: (..., D).

    Returns:
        (...), NaN where the flow ends in the saddle.

    Raises:
        ValueError: If there is no weight.

    Source: ``kreisler2023gradient``.

    Pitfall: it is a property of the flow from here, not of the point: far from the minimum the
    Hessian's own largest eigenvalue is another number.

    Example:
        >>> scalar_gfs_sharpness(torch.tensor([2.2, 0.8, 0.7, 0.65], dtype=torch.float64))
        tensor(5.3612, dtype=torch.float64)
    """
    return scalar_flow_end(weights).square().reciprocal().sum(-1)


@dataclass(frozen=True, eq=False)
class FlowEnd:
    """What :func:`gradient_flow` returns.

    Attributes:
        model: A copy of the model with the weights at the end.
        time: How long the flow ran.
        steps: How many steps the integration took.
        gradient_norm: At the end.
        converged: Whether that is within the tolerance.

    Pitfall: where it has not converged the model is a point on the way, and its sharpness that
    of no minimum.
    """

    model: nn.Module
    time: float
    steps: int
    gradient_norm: float
    converged: bool


def gradient_flow(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    *,
    tolerance: float = 1e-5,
    accuracy: float = 1e-5,
    max_steps: int = 20_000,
) -> FlowEnd:
    r"""Follow gradient flow, :math:`\dot w = -\nabla L(w)`, to where it ends.

    By the Runge-Kutta pair of orders 3 and 2 of Bogacki and Shampine, whose difference sets the
    length of each step.

    Args:
        loss: ``loss(outputs, targets)``, the mean over a batch.
        model: Is not changed; float64 is advised.
        batches: Pairs ``(inputs, targets)``; the loss is the mean over all their examples.
        tolerance: Norm of the gradient at which the flow counts as ended.
        accuracy: Largest error of a step, relative to the size of the weights.
        max_steps: Give up after so many.

    Returns:
        :class:`FlowEnd`. A warning says where it did not converge.

    Raises:
        ValueError: If there is no batch, no parameter, a loss that is no scalar, or an argument
            out of range.
        FloatingPointError: If the gradient at the start is not finite.

    Source: ``kreisler2023gradient``.

    Pitfall: cross-entropy on separable data has no minimum, and the flow no end.
    """
    require(tolerance > 0, "tolerance", tolerance, "positive")
    require(accuracy > 0, "accuracy", accuracy, "positive")
    require(max_steps >= 1, "max_steps", max_steps, "at least 1")
    moving, data = copy.deepcopy(model), list(batches)
    parameters = [p for p in moving.parameters() if p.requires_grad]
    require(
        len(parameters) > 0, "model", type(model).__name__, "a module with a parameter to train"
    )
    require(len(data) > 0, "batches", [], "at least one batch")
    examples = sum(len(x) for x, _ in data)

    def velocity(w: Tensor) -> Tensor:
        vector_to_parameters(w, parameters)
        total = torch.zeros_like(w)
        for x, y in data:
            with torch.enable_grad():
                value = loss(moving(x), y)
                require(value.ndim == 0, "the shape of loss's value", tuple(value.shape), "()")
                slopes = torch.autograd.grad(value, parameters)
            total -= parameters_to_vector(slopes) * (len(x) / examples)
        return total

    w = parameters_to_vector(parameters).detach()
    v = velocity(w)
    norm, time, steps = float(v.norm()), 0.0, 0
    if not math.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradient at the start is {norm}")
    h = 0.01 * (1 + float(w.norm())) / (1 + norm)
    while norm > tolerance and steps < max_steps:
        second = velocity(w + h / 2 * v)
        third = velocity(w + 3 * h / 4 * second)
        arrived = w + h / 9 * (2 * v + 3 * second + 4 * third)
        fourth = velocity(arrived)
        gap = h * (5 / 72 * v - second / 12 - third / 9 + fourth / 8)
        # Near the end the weights hardly move, and an error small beside them could be all that
        # moves: the way made is a second measure.
        allowed = torch.minimum(accuracy * (w.norm() + 1e-3), 0.05 * (arrived - w).norm())
        error = float(gap.norm() / allowed)
        steps += 1
        if error <= 1:
            w, v, time, norm = arrived, fourth, time + h, float(fourth.norm())
        h *= min(3.0, max(0.2, 0.9 * max(error, 1e-9) ** (-1 / 3))) if math.isfinite(error) else 0.2
    vector_to_parameters(w, parameters)
    if norm > tolerance:
        warnings.warn(
            f"gradient flow stopped after {steps} steps with a gradient of norm {norm:.2g}, "
            f"above the tolerance {tolerance:.2g}",
            stacklevel=2,
        )
    return FlowEnd(moving, time, steps, norm, norm <= tolerance)


def gfs_sharpness(loss: Loss, model: nn.Module, batches: Batches, **flow: Any) -> float:
    r"""Sharpness of the point that gradient flow would reach from here.

    .. math:: S_{GF}(w) = \lambda_1\bigl(\nabla^2 L(w^\infty)\bigr), \qquad
        w^\infty = \lim_{t \to \infty} w(t), \quad \dot w = -\nabla L(w), \quad w(0) = w

    Args:
        loss, model, batches: As in :func:`gradient_flow`.
        **flow: ``tolerance``, ``accuracy`` and ``max_steps`` of :func:`gradient_flow`.

    Raises:
        ValueError, FloatingPointError: As :func:`gradient_flow`.

    Source: ``kreisler2023gradient``.

    Pitfall: as expensive as a training run with tiny steps. A flow that did not end (there is a
    warning) gives the sharpness of where it stopped.
    """
    data = list(batches)
    end = gradient_flow(loss, model, data, **flow)
    return float(top_eigenpairs(hessian(loss, end.model, data)).values[0])


# --- Networks whose step size does not depend on their size -----------------------------------


class ScaledMLP(nn.Module):
    r"""A multilayer perceptron in the maximal-update or in the neural-tangent parametrization.

    All weights are drawn from N(0, 1), and multipliers set the scale. With width N, inputs in D
    dimensions and L hidden layers

    .. math:: h_1 = \frac{W_0 x}{\sqrt D}, \qquad
        h_{l+1} = \frac{W_l\, \phi(h_l)}{\sqrt N}, \qquad
        f = \frac{V \phi(h_L)}{\gamma \sqrt N}, \qquad
        \gamma = \begin{cases} \sqrt N & \text{muP} \\ 1 & \text{NTK} \end{cases}

    and the learning rate of SGD is :math:`\eta = \eta_0 \gamma^2` for all layers: N times the base
    rate in muP (:attr:`learning_rate_scale`). Under muP the change of every hidden feature in a
    step has a limit as N grows, under NTK it vanishes. With ``residual="scaled"`` the layers
    between are :math:`h_{l+1} = h_l + W_l \phi(h_l) / \sqrt{L N}`, which also has a limit in depth;
    ``"plain"`` has the branches without the :math:`1 / \sqrt L`.

    Args:
        inputs: D; inputs of more dimensions are flattened.
        width: N.
        depth: L, the number of hidden layers, at least 1.
        outputs: Number of outputs.
        parametrization: ``"mup"`` or ``"ntk"``.
        residual: Whether and how the layers between add to what they get: None, ``"scaled"`` or
            ``"plain"``.
        activation: :math:`\phi`.

    Raises:
        ValueError: If a size is below 1, or the parametrization or the kind of residual unknown.

    Source: ``noci2024learning`` (setting), ``yang2021tensor`` (muP: this is its table with all
    standard deviations moved into multipliers), ``bordelon2024depthwise`` (depth).

    Pitfall: the table is that of SGD. Adam's steps do not shrink with the gradient, so its
    learning rates scale otherwise.

    Example:
        >>> ScaledMLP(64, 128, 2, 10, parametrization="mup").learning_rate_scale
        128.0
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        outputs: int,
        *,
        parametrization: Literal["mup", "ntk"] = "mup",
        residual: Literal["scaled", "plain"] | None = None,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        for name, size in {
            "inputs": inputs, "width": width, "depth": depth, "outputs": outputs
        }.items():  # fmt: skip
            require(size >= 1, name, size, "at least 1")
        require(
            parametrization in ("mup", "ntk"), "parametrization", parametrization, "'mup' or 'ntk'"
        )
        kinds = (None, "scaled", "plain")
        require(residual in kinds, "residual", residual, "None, 'scaled' or 'plain'")
        sizes = [inputs] + [width] * depth + [outputs]
        self.weights = nn.ParameterList(
            torch.randn(after, before) for before, after in pairwise(sizes)
        )
        self.residual, self.activation = residual, activation
        #: What to multiply the base learning rate of SGD with.
        self.learning_rate_scale = float(width) if parametrization == "mup" else 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (N, C) for inputs (N, ...)."""
        first, *between, last = self.weights
        x = inputs.flatten(1)
        h = x @ first.T / x.shape[1] ** 0.5
        width = h.shape[1]
        branch = (len(between) + 1) ** -0.5 if self.residual == "scaled" else 1.0
        for weight in between:
            update = self.activation(h) @ weight.T * (branch * width**-0.5)
            h = h + update if self.residual else update
        return self.activation(h) @ last.T / (self.learning_rate_scale * width) ** 0.5


# --- Step sizes from a lower bound of the loss ------------------------------------------------


def polyak_step(
    loss: Tensor, squared_norm: Tensor, *, lower_bound: float = 0.0, cap: float = math.inf
) -> Tensor:
    r"""Polyak's step size, capped: how far the tangent says it is to the lower bound.

    .. math:: \eta = \min\Bigl\{\alpha, \frac{(\ell - \ell^*)_+}{\|g\|^2}\Bigr\}

    Args:
        loss: (...), the minibatch's.
        squared_norm: (...), the squared norm of its gradient.
        lower_bound: :math:`\ell^*`.
        cap: :math:`\alpha`, positive.

    Returns:
        (...), zero where the loss is at its bound.

    Raises:
        ValueError: If the cap is not positive.

    Source: ``loizou2021stochastic``.

    Pitfall: with a bound that is too low the steps never shrink, and it does not converge.

    Example:
        >>> polyak_step(torch.tensor(2.0), torch.tensor(4.0))  # l = x^2 at a slope of 2: half way
        tensor(0.5000)
    """
    require(cap > 0, "cap", cap, "positive")
    gap = (check_float(loss, "loss") - lower_bound).clamp(min=0)
    norm = check_float(squared_norm, "squared_norm")
    return torch.where(gap > 0, (gap / norm).clamp(max=cap), 0.0).to(loss.dtype)


class _TruncatedModel(torch.optim.Optimizer):
    """What both optimizers share: one step to the minimum of the truncated model near here."""

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        rate = torch.as_tensor(defaults["lr"])
        require(bool((rate >= 0).all()), "lr", defaults["lr"], "non-negative")
        decay = defaults["weight_decay"]
        require(0 <= decay < math.inf, "weight_decay", decay, "non-negative")
        bound = defaults["lower_bound"]
        require(bound < math.inf, "lower_bound", bound, "below infinity")
        super().__init__(params, defaults)
        self.param_groups[0] |= {"steps": 0, "loss": None, "product": None, "bound": None}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The model is one for all parameters, so there is one group.

        Raises:
            ValueError: If there is one already.
        """
        require(not self.param_groups, "the number of parameter groups", 2, "1")
        super().add_param_group(param_group)

    def step(  # type: ignore[override]  # torch's own takes no loss
        self, closure: Callable[[], Tensor] | None = None, *, loss: Tensor | None = None
    ) -> Tensor:
        """One step, from the gradients and the loss they belong to.

        Args:
            closure: Evaluates the loss, calls backward and returns it.
            loss: The loss, if backward was called already. Shape () or, for S models stacked in
                parameters (S, ...), one each: (S,); they share nothing, and ``lr`` may be (S,) too.

        Returns:
            The loss.

        Raises:
            ValueError: If not just one of the two is given, or the loss has another shape.
        """
        if (closure is None) == (loss is None):
            raise ValueError("step needs the loss or a closure that returns it, and not both")
        value: Any = loss
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        with torch.no_grad():
            self._update(check_float(value, "loss").detach())
        return value

    def _average(self, old: Tensor | None, new: Tensor) -> Tensor:
        """Exponential average; it starts from zero if it will be corrected, else from the first."""
        group = self.param_groups[0]
        if old is None:
            old = torch.zeros_like(new) if group["bias_correction"] else new
        return torch.lerp(new, old, group["beta"])

    def _metric(self, parameter: Tensor, gradient: Tensor) -> Tensor | float:
        """The diagonal D that lengths are measured with."""
        return 1.0

    def _update(self, loss: Tensor) -> None:
        group = self.param_groups[0]
        moving = [p for p in group["params"] if p.grad is not None]
        stack = loss.shape
        require(loss.ndim <= 1, "the shape of loss", tuple(stack), "() or (S,)")
        for p in moving:
            require(p.shape[: loss.ndim] == stack, "the shape of a parameter", tuple(p.shape),
                    f"{tuple(stack)} + (...), as the loss has shape {tuple(stack)}")  # fmt: skip

        def inner(a: Tensor, b: Tensor) -> Tensor:
            return (promote(a) * promote(b)).reshape(*stack, -1).sum(-1)

        group["steps"] += 1
        zero = torch.zeros_like(loss)
        group["loss"] = self._average(group["loss"], loss)
        product, reach, norm = zero, zero, zero
        directions: list[Tensor] = []
        for p in moving:
            state = self.state[p]
            gradient = p.grad
            state["gradient"] = self._average(state.get("gradient"), gradient)
            directions.append(state["gradient"] / self._metric(p, gradient))
            product = product + inner(gradient, p)
            reach = reach + inner(state["gradient"], p)
            norm = norm + inner(state["gradient"], directions[-1])
        group["product"] = self._average(group["product"], product)

        rho = 1 - group["beta"] ** group["steps"] if group["bias_correction"] else 1.0
        rate = torch.as_tensor(group["lr"], dtype=loss.dtype, device=loss.device)
        shrink = 1 + rate * group["weight_decay"]
        level = group["loss"] - group["product"]  # of the model at the origin
        lowest = torch.full_like(loss, group["lower_bound"])
        bound = lowest if group["bound"] is None else group["bound"]
        if group["estimate_bound"]:
            room = shrink * level + reach
            halved = torch.maximum(room / (2 * shrink * rho), lowest)
            bound = torch.where(room < shrink * rho * bound, halved, bound)
        gap = (shrink * (level - rho * bound) + reach).clamp(min=0)
        # No gradient, no step; and zero over zero would be NaN.
        length = torch.where(norm > 0, torch.minimum(rate / rho, gap / norm), 0.0)
        if group["estimate_bound"]:
            reached = (level + reach - length * norm / 2) / rho
            group["bound"] = torch.maximum(reached, lowest)

        for p, direction in zip(moving, directions, strict=True):
            shape = (*stack, *[1] * (p.ndim - len(stack)))
            move = (length.reshape(shape) * direction).to(p.dtype)
            p.copy_((p - move) / shrink.expand(stack).reshape(shape).to(p.dtype))


class Momo(_TruncatedModel):
    r"""Momentum with a model-based adaptive step size.

    Averages of gradients, losses and inner products make a linear model of the loss, which knows
    that no loss is below :math:`f^*`,

    .. math:: m_k(x) = \max\bigl\{\bar f_k + \langle d_k, x \rangle - \gamma_k,\; \rho_k f^*\bigr\},
        \qquad
        \begin{aligned} d_k &= \beta d_{k-1} + (1 - \beta) g_k, \\
        \bar f_k &= \beta \bar f_{k-1} + (1 - \beta) f_k, \\
        \gamma_k &= \beta \gamma_{k-1} + (1 - \beta) \langle g_k, x_k \rangle . \end{aligned}

    A step minimizes :math:`m_k(x) + \frac{\rho_k}{2 \alpha} \|x - x_k\|^2`,

    .. math:: x_{k+1} = x_k - \tau_k d_k, \qquad
        \tau_k = \min\Bigl\{\frac{\alpha}{\rho_k},
        \frac{(\bar f_k + \langle d_k, x_k \rangle - \gamma_k - \rho_k f^*)_+}{\|d_k\|^2}\Bigr\} ,

    so the learning rate :math:`\alpha` is a cap that is reached only where the bound is far away.
    With weight decay :math:`\lambda` the numerator is
    :math:`((1 + \alpha \lambda)(\bar f_k - \gamma_k - \rho_k f^*) + \langle d_k, x_k \rangle)_+` and
    the result is divided by :math:`1 + \alpha \lambda`. For :math:`\beta = 0` it is
    :func:`polyak_step`; for :math:`f^* = -\infty` it is SGD with averaged momentum.

    With ``estimate_bound`` the bound follows the run,

    .. math:: f^*_{k+1} = \max\Bigl\{f^*_{\text{given}}, \frac1{\rho_k} \Bigl(\bar f_k
        + \langle d_k, x_k \rangle - \gamma_k - \tfrac12 \tau_k \|d_k\|^2\Bigr)\Bigr\} ,

    and is halved towards the model first whenever it is above what the model admits.

    Args:
        params: Parameters, in one group.
        lr: :math:`\alpha`, non-negative; a tensor (S,) for S stacked models.
        beta: :math:`\beta` in [0, 1).
        weight_decay: :math:`\lambda`.
        lower_bound: :math:`f^*`, or the floor of its estimate.
        bias_correction: Averages start from zero and :math:`\rho_k = 1 - \beta^k`; without it they
            start from their first value and :math:`\rho_k = 1`.
        estimate_bound: Whether to estimate :math:`f^*`.

    Raises:
        ValueError: On arguments out of range or more than one parameter group.

    Source: ``schaipp2023momo``.

    Pitfall: ``step`` needs the loss: ``optimizer.step(loss=value)`` after ``value.backward()``. The
    loss must be that of the same minibatch and have its bound at :math:`f^*`; label smoothing lifts
    it.

    Example:
        >>> x = nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = Momo([x], lr=100.0, beta=0.0)
        >>> value = x.square().sum() / 2
        >>> value.backward()
        >>> _ = optimizer.step(loss=value)  # 4.5 / 9 of the gradient 3
        >>> x.item()
        1.5
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        lower_bound: float = 0.0,
        bias_correction: bool = False,
        estimate_bound: bool = False,
    ) -> None:
        require(0 <= beta < 1, "beta", beta, "in [0, 1)")
        defaults = {
            "lr": lr, "beta": beta, "weight_decay": weight_decay, "lower_bound": lower_bound,
            "bias_correction": bias_correction, "estimate_bound": estimate_bound,
        }  # fmt: skip
        super().__init__(params, defaults)


class MomoAdam(_TruncatedModel):
    r"""Adam with a model-based adaptive step size: :class:`Momo` in Adam's metric.

    With :math:`v_k` the average of squared gradients and
    :math:`D_k = \epsilon + \sqrt{v_k / (1 - \beta_2^k)}`,

    .. math:: x_{k+1} = x_k - \tau_k D_k^{-1} d_k, \qquad
        \tau_k = \min\Bigl\{\frac{\alpha}{\rho_k},
        \frac{(\bar f_k + \langle d_k, x_k \rangle - \gamma_k - \rho_k f^*)_+}
        {\langle d_k, D_k^{-1} d_k \rangle}\Bigr\}, \qquad \rho_k = 1 - \beta_1^k ,

    averages starting from zero. At the cap it is Adam. Weight decay divides by
    :math:`1 + \alpha \lambda`, apart from the metric.

    Args:
        params: Parameters, in one group.
        lr: :math:`\alpha`, non-negative; a tensor (S,) for S stacked models.
        betas: :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
        eps: :math:`\epsilon`, positive.
        weight_decay, lower_bound, estimate_bound: As in :class:`Momo`.

    Raises:
        ValueError: On arguments out of range or more than one parameter group.

    Source: ``schaipp2023momo``.

    Pitfall: as :class:`Momo`, ``step`` needs the loss.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        lower_bound: float = 0.0,
        estimate_bound: bool = False,
    ) -> None:
        require(all(0 <= beta < 1 for beta in betas), "betas", betas, "in [0, 1)")
        require(eps > 0, "eps", eps, "positive")
        defaults = {
            "lr": lr, "beta": betas[0], "second_beta": betas[1], "eps": eps,
            "weight_decay": weight_decay, "lower_bound": lower_bound,
            "bias_correction": True, "estimate_bound": estimate_bound,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _metric(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        group, state = self.param_groups[0], self.state[parameter]
        old = state.get("square", torch.zeros_like(gradient))
        state["square"] = torch.lerp(gradient.square(), old, group["second_beta"])
        correction = 1 - group["second_beta"] ** group["steps"]
        return (state["square"] / correction).sqrt() + group["eps"]
