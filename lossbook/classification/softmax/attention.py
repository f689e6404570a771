r"""Attention without a softmax: a Gaussian kernel, symmetric and of low rank.

Softmax attention divides each row by its own sum, so that the n x n matrix must be written out. A
Gaussian kernel of queries that are their own keys,

.. math:: S_{ij} = \exp\Bigl(-\frac{\|q_i - q_j\|^2}{2 \sqrt d}\Bigr),

is positive semidefinite. Seen through m landmarks it is
:math:`S \approx P^\top A^{-1} P`, Nyström's approximation, and costs what is linear in n.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lossbook._contract import check_float, require, require_shape, restore
from lossbook._pairs import inner

__all__ = [
    "gaussian_attention",
    "gaussian_kernel",
    "newton_schulz_inverse",
    "nystrom_attention",
]


def gaussian_kernel(queries: Tensor, keys: Tensor) -> Tensor:
    r"""Gaussian similarities of queries and keys, 1 where they coincide.

    .. math:: S_{ij} = \exp\Bigl(-\frac{\|q_i - k_j\|^2}{2 \sqrt d}\Bigr)
        = \exp\Bigl(\frac{q_i \cdot k_j}{\sqrt d}\Bigr)
        \exp\Bigl(-\frac{\|q_i\|^2 + \|k_j\|^2}{2 \sqrt d}\Bigr)

    what softmax attention exponentiates, with a factor that is small for long vectors.

    Args:
        queries: (..., N, d).
        keys: (..., M, d).

    Returns:
        Similarities (..., N, M) from 0 to 1, in the dtype of the queries.

    Raises:
        ValueError: on shapes that do not fit.
        TypeError: on tensors that are not floating-point.

    Source: ``lu2022softmaxfree``.

    Pitfall: it forgets far tokens altogether. A query with no key near has similarities of 0 to all,
    and no gradient that would move it.

    Example:
        >>> gaussian_kernel(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0]]))
        tensor([[1.0000],
                [0.6065]])
    """
    q, k = _check_tokens(queries, "queries"), _check_tokens(keys, "keys")
    require(
        q.shape[-1] == k.shape[-1], "keys.shape[-1]", k.shape[-1], f"{q.shape[-1]}, as queries have"
    )
    return restore(_kernel(q, k.to(q.dtype)), queries.dtype)


def _check_tokens(tokens: Tensor, name: str) -> Tensor:
    x = check_float(tokens, name)
    require(x.ndim >= 2, f"the shape of {name}", tuple(x.shape), "(..., N, d)")
    return x


def _kernel(q: Tensor, k: Tensor) -> Tensor:
    center = k.mean(-2, keepdim=True)  # a common offset would cancel, and digits with it
    q, k = q - center, k - center
    squares = q.square().sum(-1, True) + k.square().sum(-1).unsqueeze(-2) - 2 * inner(q, k)
    return (-squares.clamp(min=0) / (2 * math.sqrt(q.shape[-1]))).exp()


def gaussian_attention(queries: Tensor, values: Tensor, *, normalize: bool = False) -> Tensor:
    r"""Attention with a Gaussian kernel, all n x n of it.

    .. math:: S v \qquad\text{or}\qquad D^{-1/2} S D^{-1/2} v, \quad D = \operatorname{diag}(S 1)

    Args:
        queries: (..., N, d), which are also the keys.
        values: (..., N, e).
        normalize: whether to divide by the roots of the degrees. Then the eigenvalues of what
            multiplies the values lie in [0, 1], at any length.

    Returns:
        (..., N, e) in the dtype of the values.

    Raises:
        ValueError: on shapes that do not fit.
        TypeError: on tensors that are not floating-point.

    Source: ``lu2022softmaxfree``.

    Pitfall: unnormalized, the result grows with the number of tokens: what was learned at one length
    is out of range at another.

    Example:
        >>> gaussian_attention(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]), normalize=True)
        tensor([[2.0000],
                [2.0000]])
    """
    q, v = _check_pair(queries, values)
    s = _kernel(q, q)
    if normalize:
        root = s.sum(-1, True).rsqrt()
        return restore(root * (s @ (root * v)), values.dtype)
    return restore(s @ v, values.dtype)


def _check_pair(queries: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    q, v = _check_tokens(queries, "queries"), _check_tokens(values, "values")
    require_shape(values, (*q.shape[:-1], v.shape[-1]), "values")
    return q, v.to(q.dtype)


class _Inverse(torch.autograd.Function):
    """Of matrices (..., m, m). The gradient is that of the inverse, not of the steps to it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, steps: int) -> Tensor:
        x = a.mT / (a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1))[..., None, None]
        for _ in range(steps):
            x = 2 * x - x @ a @ x
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return -x.mT @ outer[0] @ x.mT, None


def newton_schulz_inverse(matrix: Tensor, *, steps: int = 20) -> Tensor:
    r"""The inverse by matrix products alone, with the gradient of the inverse.

    .. math:: X_{t+1} = 2 X_t - X_t A X_t, \qquad
        X_0 = \frac{A^\top}{\|A\|_1 \|A\|_\infty}, \qquad
        \frac{\partial L}{\partial A} = -X^\top \frac{\partial L}{\partial X} X^\top

    From this start it converges for every invertible A. An eigenvalue :math:`\lambda` of
    :math:`X_0 A` leaves the error :math:`(1 - \lambda)^{2^t}`: the smallest needs about
    :math:`\log_2(1 / \lambda)` steps to be seen at all, and a few more. For a singular A the limit is
    the pseudo-inverse, and the gradient lacks the terms that turn the null space.

    Args:
        matrix: A, (..., m, m).
        steps: at least 1; 20 as in the authors' code.

    Returns:
        (..., m, m), in the dtype of the matrix.

    Raises:
        ValueError: on matrices that are not square, or fewer than one step.
        TypeError: if the matrix is not floating-point.

    Source: ``lu2022softmaxfree``.

    Pitfall: 20 steps do not see singular values below about a thousandth of the norm, and a Gaussian
    kernel has many. Add a ridge first.

    Example:
        >>> newton_schulz_inverse(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.2500]])
    """
    a = _check_tokens(matrix, "matrix")
    require(a.shape[-1] == a.shape[-2], "the shape of matrix", tuple(a.shape), "(..., m, m)")
    require(steps >= 1, "steps", steps, "at least 1")
    return restore(_Inverse.apply(a, steps), matrix.dtype)


def nystrom_attention(
    queries: Tensor,
    values: Tensor,
    *,
    landmarks: Tensor,
    steps: int = 20,
    ridge: float = 0.01,
    normalize: bool = False,
) -> Tensor:
    r"""Gaussian attention through m landmarks, in time linear in the number of tokens.

    .. math:: P^\top B \, P \, v, \qquad P_{li} = S(\ell_l, q_i), \quad A_{lm} = S(\ell_l, \ell_m), \quad
        B = (A + \rho I)^{-1} \;\text{ or }\; D^{-1/2} (A + \rho I)^{-1} D^{-1/2}

    with :math:`D = \operatorname{diag}(A 1)`, the degrees of the landmarks. Steps and ridge are those
    of the authors' code.

    Args:
        queries: (..., N, d), which are also the keys.
        values: (..., N, e).
        landmarks: (..., m, d), for instance means of stretches of queries,
            ``F.adaptive_avg_pool1d(queries.mT, m).mT``.
        steps: at least 1, of :func:`newton_schulz_inverse`.
        ridge: at least 0, :math:`\rho`.
        normalize: whether to divide by the degrees of the landmarks.

    Returns:
        (..., N, e) in the dtype of the values.

    Raises:
        ValueError: on shapes that do not fit, a negative ridge, or fewer than one step.
        TypeError: on tensors that are not floating-point.

    Source: ``lu2022softmaxfree``.

    Pitfall: normalized, it approximates nothing exactly. The degrees are those of landmarks and stand
    between P and the inverse; even with every token a landmark the result is not that of
    :func:`gaussian_attention`.

    Example:
        >>> q, v = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [0.0]])
        >>> seen = nystrom_attention(q, v, landmarks=q, ridge=0.0)
        >>> torch.allclose(seen, gaussian_attention(q, v), atol=1e-6)
        True
    """
    q, v = _check_pair(queries, values)
    m = _check_tokens(landmarks, "landmarks")
    require_shape(landmarks, (*q.shape[:-2], m.shape[-2], q.shape[-1]), "landmarks")
    require(ridge >= 0, "ridge", ridge, "at least 0")
    m = m.to(q.dtype)
    p, a = _kernel(m, q), _kernel(m, m)
    inner = p @ v
    root = a.sum(-1, True).rsqrt() if normalize else torch.ones_like(a[..., :1])
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    inner = root * (newton_schulz_inverse(a + ridge * eye, steps=steps) @ (root * inner))
    return restore(p.mT @ inner, values.dtype)
