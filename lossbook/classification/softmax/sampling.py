r"""Gradients through a choice: Gumbel-softmax samples and the estimators they are measured against.

A network that chooses one of C classes, :math:`k \sim p = \mathrm{softmax}(z)`, and pays
:math:`f(e_k)` minimizes

.. math:: F(z) = \sum_k p_k f(e_k)

and for few classes that can be written out: :func:`categorical_mean` is F itself, and automatic
differentiation gives its gradient exactly. Each estimator of that gradient, from one draw, has a
bias and a variance against it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lossbook._contract import check_float, require, require_shape, restore
from lossbook.classification.softmax.maps import straight_through

__all__ = [
    "categorical_mean",
    "gumbel_noise",
    "gumbel_softmax",
    "pathwise_gradients",
    "reinforce_gradients",
]


# --- Samples ----------------------------------------------------------------------------------


def gumbel_noise(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Noise that turns an argmax into a draw: the largest of z + g is class k with probability p_k.

    .. math:: g_k = -\log(-\log U_k), \quad U_k \sim \mathrm{Uniform}(0, 1)

    Args:
        logits: tells shape, dtype and device.
        generator: source of randomness; torch's own by default.

    Returns:
        Independent noise in the shape and dtype of the logits.

    Raises:
        TypeError: if logits are not floating-point.

    Source: ``jang2016categorical``.

    Pitfall: use the same noise for the estimators that are compared, or their difference drowns in
    it.

    Example:
        >>> z = torch.tensor([0.0, 1.0]).expand(10000, 2)
        >>> chosen = (z + gumbel_noise(z, generator=torch.Generator().manual_seed(0))).argmax(1)
        >>> abs(chosen.float().mean() - z[0].softmax(0)[1]) < 0.01
        tensor(True)
    """
    z = check_float(logits, "logits")
    exponential = torch.empty_like(z).exponential_(generator=generator)
    return restore(-exponential.log(), logits.dtype)


def gumbel_softmax(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    hard: bool = False,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    dim: int = 1,
) -> Tensor:
    r"""Gumbel-softmax: a draw of a class, softened so that gradients pass through it.

    .. math:: y_k = \frac{e^{(z_k + g_k) / \tau}}{\sum_j e^{(z_j + g_j) / \tau}}

    As the temperature falls y becomes one-hot, the draw itself; as it rises, uniform. ``hard`` gives
    the one-hot at once and the soft one's gradient: straight-through. With torch's own generator the
    values are those of ``torch.nn.functional.gumbel_softmax``, which takes no noise.

    Args:
        logits: log-probabilities up to a constant, of any shape with dimension ``dim``.
        temperature: positive; in training it is often let fall.
        hard: whether to return one-hot vectors, with the gradient of the soft ones.
        noise: g, in the shape of the logits; by default drawn by :func:`gumbel_noise`.
        generator: source of randomness; torch's own by default.
        dim: the dimension of the classes.

    Returns:
        Points of the simplex, or its corners, in the shape and dtype of the logits.

    Raises:
        ValueError: on a temperature that is not positive, or noise of another shape.
        TypeError: if logits are not floating-point.

    Source: ``jang2016categorical``.

    Pitfall: a low temperature is no free lunch: gradients come rarely and large. A high one gives
    the gradient of another problem, of averages in place of choices.

    Example:
        >>> z, noise = torch.zeros(1, 3), torch.tensor([[0.0, 2.0, 1.0]])
        >>> gumbel_softmax(z, noise=noise), gumbel_softmax(z, noise=noise, hard=True)
        (tensor([[0.0900, 0.6652, 0.2447]]), tensor([[0., 1., 0.]]))
    """
    z = check_float(logits, "logits")
    require(temperature > 0, "temperature", temperature, "positive")
    noise = gumbel_noise(z, generator=generator) if noise is None else noise
    require_shape(noise, tuple(z.shape), "noise")
    y = ((z + noise.to(z.dtype)) / temperature).softmax(dim)
    if hard:
        corner = torch.zeros_like(y).scatter(dim, y.argmax(dim, keepdim=True), 1)
        y = straight_through(y, corner)
    return restore(y, logits.dtype)


# --- Gradients --------------------------------------------------------------------------------


def categorical_mean(objective: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    r"""The mean of an objective over a choice, by enumeration: its gradient is the exact one.

    .. math:: F(z) = \sum_k p_k f(e_k), \qquad
        \frac{\partial F}{\partial z_k} = p_k \, \bigl(f(e_k) - F(z)\bigr)

    Args:
        objective: f, maps points of the simplex (S, C) to values (S,).
        logits: (C,).

    Returns:
        F, a scalar in the dtype of the logits.

    Raises:
        ValueError: on logits that are not (C,), or an objective that returns another shape.
        TypeError: if logits are not floating-point.

    Source: ``jang2016categorical``.

    Pitfall: f is evaluated at every class. With several choices at once, at every combination.

    Example:
        >>> float(categorical_mean(lambda y: y @ torch.tensor([0.0, 1.0, 5.0]), torch.zeros(3)))
        2.0
    """
    z = _check_choice(logits)
    corners = torch.eye(len(z), dtype=z.dtype, device=z.device)
    return restore(z.softmax(0) @ _values(objective, corners), logits.dtype)


def reinforce_gradients(
    objective: Callable[[Tensor], Tensor],
    logits: Tensor,
    samples: Tensor,
    *,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    r"""REINFORCE: from each draw, how it paid, times the gradient of its log-probability.

    .. math:: \hat g = \bigl(f(e_k) - b\bigr) (e_k - p), \qquad k \sim p

    Unbiased for any baseline b that does not depend on the draw. The total variance is least for
    :math:`b = \sum_k p_k \|e_k - p\|^2 f(e_k) \,/\, \sum_k p_k \|e_k - p\|^2`. Called with every class
    once and weighed with p, the estimates give their own mean and variance exactly.

    Args:
        objective: f, maps corners of the simplex (S, C) to values (S,); it need not be
            differentiable.
        logits: (C,).
        samples: drawn classes (S,), int64.
        baseline: of any sign, one or (S,), for instance the mean of f over the other draws.

    Returns:
        Estimates (S, C), one for each draw, in the dtype of the logits, without a graph.

    Raises:
        ValueError: on shapes.
        TypeError: on logits or samples of the wrong dtype.

    Source: ``williams1992simple``.

    Pitfall: a constant added to f changes no gradient and any variance. Without a baseline, compare
    estimators on an objective that is centered.

    Example:
        >>> f = lambda y: y @ torch.tensor([0.0, 1.0])
        >>> reinforce_gradients(f, torch.zeros(2), torch.tensor([0, 1]), baseline=0.5)
        tensor([[-0.2500,  0.2500],
                [-0.2500,  0.2500]])
    """
    z = _check_choice(logits).detach()
    if not isinstance(samples, Tensor) or samples.dtype != torch.int64:
        raise TypeError(f"samples must be int64, got {getattr(samples, 'dtype', samples)}")
    require(samples.ndim == 1, "the shape of samples", tuple(samples.shape), "(S,)")
    corners = torch.eye(len(z), dtype=z.dtype, device=z.device)[samples]
    advantage = _values(objective, corners).detach() - baseline
    return restore(advantage.unsqueeze(1) * (corners - z.softmax(0)), logits.dtype)


def pathwise_gradients(
    objective: Callable[[Tensor], Tensor],
    logits: Tensor,
    noise: Tensor,
    *,
    temperature: float = 1.0,
    hard: bool = False,
) -> Tensor:
    r"""The gradient through each Gumbel-softmax sample, soft or straight-through.

    .. math:: \hat g = \Bigl(\frac{\partial y}{\partial z}\Bigr)^\top \nabla f(\tilde y), \qquad
        \tilde y = y \;\text{ or }\; e_{\arg\max y}

    The soft one is unbiased for the mean of f over soft samples, which is not F. The hard one is
    unbiased for nothing in general.

    Args:
        objective: f, maps points (S, C) to values (S,), each by itself and differentiably.
        logits: (C,).
        noise: Gumbel noise (S, C).
        temperature: positive.
        hard: whether f sees the corner.

    Returns:
        Estimates (S, C), one for each sample, in the dtype of the logits, without a graph.

    Raises:
        ValueError: on shapes, or a temperature that is not positive.
        TypeError: if logits are not floating-point.

    Source: ``jang2016categorical``.

    Pitfall: f must mean something between the corners. Two objectives that agree at all corners have
    the same exact gradient and different estimates: :math:`y_k` and :math:`y_k^2`, for instance.

    Example:
        >>> f = lambda y: y @ torch.tensor([0.0, 1.0])
        >>> pathwise_gradients(f, torch.zeros(2), torch.zeros(1, 2))
        tensor([[-0.2500,  0.2500]])
    """
    z = _check_choice(logits)
    shape = tuple(noise.shape)
    require(noise.ndim == 2 and shape[1] == len(z), "the shape of noise", shape, f"(S, {len(z)})")
    with torch.enable_grad():
        copies = z.detach().expand(noise.shape).clone().requires_grad_()
        y = gumbel_softmax(copies, temperature=temperature, hard=hard, noise=noise)
        (slopes,) = torch.autograd.grad(_values(objective, y).sum(), copies)
    return restore(slopes, logits.dtype)


def _check_choice(logits: Tensor) -> Tensor:
    z = check_float(logits, "logits")
    require(z.ndim == 1, "the shape of logits", tuple(z.shape), "(C,)")
    return z


def _values(objective: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    values = objective(points)
    shape = points.shape[:1]
    require(values.shape == shape, "the shape of objective(y)", tuple(values.shape), f"{shape}")
    return values
