r"""Mixtures of experts behind a top-k gate, and how far a fitted one is from the truth.

The gate of a mixture of experts is a softmax of affine scores, of which only the k largest may speak:

.. math:: p(y \mid x) = \sum_i g_i(x) \, N\bigl(y \mid a_i \cdot x + e_i,\; v_i\bigr), \qquad
    g(x) = \text{sparse-softmax}_k \bigl(b_i \cdot x + c_i\bigr)

As many parameters say the same thing, a distance between parameters must first say which fitted
expert stands for which true one: the nearest. These are the Voronoi cells.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lossbook._contract import check_float, require, require_shape, restore

__all__ = ["GaussianExperts", "experts_log_density", "voronoi_distance"]


class GaussianExperts(NamedTuple):
    """The parameters of E Gaussian experts, each a linear regression, and of their gate.

    Source: ``nguyen2023statistical``.

    Pitfall: adding one vector to all rows of ``gate_weight``, or one number to ``gate_bias``, changes
    nothing that can be observed. Parameters are compared with those of one expert set to 0.
    """

    gate_weight: Tensor  #: b, (E, D)
    gate_bias: Tensor  #: c, (E,)
    weight: Tensor  #: a, (E, D)
    bias: Tensor  #: e, (E,)
    variance: Tensor  #: v, (E,), positive


def experts_log_density(
    experts: GaussianExperts, inputs: Tensor, outputs: Tensor, *, k: int
) -> Tensor:
    r"""The log-density of outputs under a top-k mixture of Gaussian experts.

    .. math:: \log \sum_{i \in \Omega_k(x)} g_i(x) \, N\bigl(y \mid a_i \cdot x + e_i,\; v_i\bigr)

    Args:
        experts: E experts on inputs of D dimensions.
        inputs: x, (N, D).
        outputs: y, (N,).
        k: at least 1, how many experts speak at each input.

    Returns:
        Log-densities (N,) in the dtype of the outputs; minus their mean is what is minimized.

    Raises:
        ValueError: on shapes that do not fit, or a k below 1.
        TypeError: on tensors that are not floating-point.

    Source: ``nguyen2023statistical``.

    Pitfall: with k = 1 the gate is always 1, so that it has no gradient: who speaks is not learned.

    Example:
        >>> one = GaussianExperts(*(torch.zeros(1, 1), torch.zeros(1)) * 2, torch.ones(1))
        >>> experts_log_density(one, torch.zeros(1, 1), torch.zeros(1), k=1)  # -log sqrt(2 pi)
        tensor([-0.9189])
    """
    gate_weight, gate_bias, weight, bias, variance = _checked(experts, "experts")
    x, y = check_float(inputs, "inputs"), check_float(outputs, "outputs")
    require(y.ndim == 1, "the shape of outputs", tuple(y.shape), "(N,)")
    require_shape(inputs, (len(y), weight.shape[1]), "inputs")
    require(k >= 1, "k", k, "at least 1")
    scores, speaking = (x @ gate_weight.T + gate_bias).topk(min(k, len(bias)), 1)
    error = y.unsqueeze(1) - x @ weight.T - bias
    log_normal = -(error.square() / variance + (2 * math.pi * variance).log()) / 2
    joint = scores.log_softmax(1) + log_normal.gather(1, speaking)
    return restore(joint.logsumexp(1), outputs.dtype)


def voronoi_distance(fitted: GaussianExperts, true: GaussianExperts, *, k: int) -> Tensor:
    r"""How far fitted experts are from the true ones, by the rate at which each can be learned.

    Each fitted expert belongs to the cell :math:`A_j` of the true one that is nearest in
    :math:`\|b\| + \|a\| + |e| + |v|`, gaps added up. Over the cells J of k true experts, at the worst
    choice of them,

    .. math:: \max_{|J| = k} \; \sum_{j \in J} \; \sum_{i \in A_j} e^{c_i} \Bigl[
        \|\Delta b_{ij}\|^{r} + |\Delta e_{ij}|^{r} + \|\Delta a_{ij}\|^{s} + |\Delta v_{ij}|^{s} \Bigr]
        + \sum_{j \in J} \Bigl| \sum_{i \in A_j} e^{c_i} - e^{c^*_j} \Bigr|

    with r = s = 1 in a cell of one. A cell of several is a true expert that was split, and it is
    identified worse: :math:`r = \bar r(|A_j|)`, s = r / 2, with :math:`\bar r(2) = 4` and
    :math:`\bar r(3) = 6`: where the distance falls like :math:`n^{-1/2}`, gate weights and intercepts
    of an expert split in two fall like :math:`n^{-1/8}`, slopes and variances like
    :math:`n^{-1/4}`. Cells of one and the maximum were checked against the authors' code for the
    top-k gate, the exponents against their code for the dense gate (``nguyen2023demystifying``).

    Args:
        fitted: F experts.
        true: E experts on inputs of as many dimensions.
        k: from 1 to E, how many experts speak under the true gate.

    Returns:
        The distance, a scalar, at least 0; 0 for the same experts in any order.

    Raises:
        ValueError: on shapes, a k out of range, or a cell of more than 3, whose exponent is not
            known.
        TypeError: on tensors that are not floating-point.

    Source: ``nguyen2023statistical``.

    Pitfall: pin both gates first. Subtract from gate weights and biases those of one and the same
    expert, or equal mixtures are at a distance.

    Example:
        >>> true = GaussianExperts(*(torch.zeros(1, 1), torch.zeros(1)) * 2, torch.ones(1))
        >>> voronoi_distance(true._replace(bias=torch.full((1,), 0.5)), true, k=1)
        tensor(0.5000)
    """
    f, g = _checked(fitted, "fitted"), _checked(true, "true")
    shape, number = (len(f.bias), g.weight.shape[1]), len(g.bias)
    require_shape(fitted.weight, shape, "fitted.weight")
    require(1 <= k <= number, "k", k, f"from 1 to {number}")
    b = (f.gate_weight.unsqueeze(1) - g.gate_weight).norm(dim=2)
    a = (f.weight.unsqueeze(1) - g.weight).norm(dim=2)
    e = (f.bias.unsqueeze(1) - g.bias).abs()
    v = (f.variance.unsqueeze(1) - g.variance).abs()
    member = F.one_hot((b + a + e + v).argmin(1), number)
    size = member.sum(0)
    require(bool((size <= 3).all()), "the number of experts in a cell", size.tolist(), "at most 3")
    r = torch.tensor([1.0, 1.0, 4.0, 6.0], dtype=b.dtype, device=b.device)[size]
    s = torch.where(size > 1, r / 2, 1)
    mass = f.gate_bias.exp().unsqueeze(1) * member
    cells = (mass * (b**r + e**r + a**s + v**s)).sum(0) + (mass.sum(0) - g.gate_bias.exp()).abs()
    return restore(cells.topk(k).values.sum(), fitted.weight.dtype)


def _checked(experts: GaussianExperts, name: str) -> GaussianExperts:
    shape = tuple(experts.weight.shape)
    require(len(shape) == 2, f"the shape of {name}.weight", shape, "(E, D)")
    for field, value in experts._asdict().items():
        require_shape(value, shape if "weight" in field else shape[:1], f"{name}.{field}")
    return GaussianExperts(
        *(check_float(value, f"{name}.{field}") for field, value in experts._asdict().items())
    )
