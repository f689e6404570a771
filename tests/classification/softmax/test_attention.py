"""Gaussian attention against loops, its low-rank form against the whole, and the inverse's gradient."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from lossbook.classification import (
    gaussian_attention,
    gaussian_kernel,
    newton_schulz_inverse,
    nystrom_attention,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


Q, V, L = normal(7, 3), normal(7, 2, seed=1), normal(4, 3, seed=2)


def similarities(queries: Tensor, keys: Tensor) -> list[list[float]]:
    scale = 2 * math.sqrt(queries.shape[1])
    return [
        [math.exp(-(math.dist(q, k) ** 2) / scale) for k in keys.tolist()] for q in queries.tolist()
    ]


# --- The kernel


def test_kernel_is_that_of_the_formula() -> None:
    torch.testing.assert_close(gaussian_kernel(Q, L), exactly(similarities(Q, L)))
    softmax_like = (Q @ L.T / math.sqrt(3)).exp()
    lengths = (-(Q.square().sum(1)[:, None] + L.square().sum(1)) / (2 * math.sqrt(3))).exp()
    torch.testing.assert_close(gaussian_kernel(Q, L), softmax_like * lengths)
    assert torch.linalg.eigvalsh(gaussian_kernel(Q, Q)).min() > 0
    batch = torch.stack([Q, Q + 1])[:, None]
    torch.testing.assert_close(gaussian_kernel(batch, batch)[1, 0], gaussian_kernel(Q, Q))


def test_kernel_derivatives_also_where_query_and_key_coincide() -> None:
    a, b = Q.clone().requires_grad_(), L.clone().requires_grad_()
    assert torch.autograd.gradcheck(gaussian_kernel, (a, b))
    assert torch.autograd.gradgradcheck(gaussian_kernel, (a, b))
    assert torch.autograd.gradcheck(lambda q: gaussian_kernel(q, q), a)
    assert torch.autograd.gradgradcheck(lambda q: gaussian_kernel(q, q), a)


def test_kernel_far_from_the_origin_and_far_apart() -> None:
    offset = gaussian_kernel(Q.float() + 1000, Q.float() + 1000)
    torch.testing.assert_close(offset, gaussian_kernel(Q, Q).float(), atol=1e-3, rtol=1e-3)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        tokens = torch.tensor([[1e4, 0.0], [-1e4, 0.0]], dtype=dtype, requires_grad=True)
        s = gaussian_kernel(tokens, tokens)
        assert s.dtype == dtype and s.tolist() == [[1, 0], [0, 1]]
        assert torch.autograd.grad(s.sum(), tokens)[0].isfinite().all()


# --- The whole


def test_attention_is_that_of_the_formula() -> None:
    s = similarities(Q, Q)
    degrees = [sum(row) for row in s]
    for normalize in (False, True):
        expected = [
            [
                sum(
                    s[i][j]
                    / (math.sqrt(degrees[i] * degrees[j]) if normalize else 1)
                    * V[j, c].item()
                    for j in range(7)
                )
                for c in range(2)
            ]
            for i in range(7)
        ]
        ours = gaussian_attention(Q, V, normalize=normalize)
        torch.testing.assert_close(ours, exactly(expected))


def test_normalized_eigenvalues_lie_between_zero_and_one() -> None:
    for n in (5, 50):
        q = normal(n, 2)
        matrix = gaussian_attention(q, torch.eye(n, dtype=q.dtype), normalize=True)
        values = torch.linalg.eigvalsh(matrix)
        assert values.min() > -1e-12 and values.max() == pytest.approx(1)
    plain = gaussian_attention(q, torch.eye(50, dtype=q.dtype))
    assert torch.linalg.eigvalsh(plain).max() > 10  # grows with the number of tokens


# --- The inverse


@pytest.mark.parametrize("steps", [25])
def test_inverse_and_its_gradient(steps: int) -> None:
    for a in (normal(3, 4, 4) + 3 * torch.eye(4), gaussian_kernel(L, L) + 0.1 * torch.eye(4)):
        own = partial(newton_schulz_inverse, steps=steps)
        torch.testing.assert_close(own(a), torch.linalg.inv(a))
        outer = normal(*a.shape, seed=5)
        leaf = a.clone().requires_grad_()
        (ours,) = torch.autograd.grad((own(leaf) * outer).sum(), leaf)
        (theirs,) = torch.autograd.grad((torch.linalg.inv(leaf) * outer).sum(), leaf)
        torch.testing.assert_close(ours, theirs)
        x = torch.linalg.inv(a)
        torch.testing.assert_close(ours, -x.mT @ outer @ x.mT)
        assert torch.autograd.gradcheck(own, leaf)
        assert torch.autograd.gradgradcheck(own, leaf)


def test_inverse_is_pseudo_where_there_is_none() -> None:
    a = normal(5, 2) @ normal(2, 5, seed=1)
    torch.testing.assert_close(newton_schulz_inverse(a, steps=16), torch.linalg.pinv(a))


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_error_of_an_eigenvalue_after_some_steps(steps: int) -> None:
    values = exactly([1.0, 0.3, 0.05])
    x = newton_schulz_inverse(torch.diag(values), steps=steps).diagonal()
    expected = [(1 - (1 - a * a) ** (2**steps)) / a for a in values.tolist()]
    assert x.tolist() == pytest.approx(expected)


def test_twenty_steps_see_a_thousandth_and_no_less() -> None:
    x = newton_schulz_inverse(torch.diag(exactly([1.0, 1e-2, 1e-3, 1e-4])))
    seen = (x.diagonal() * exactly([1.0, 1e-2, 1e-3, 1e-4])).tolist()
    assert seen[1] == pytest.approx(1) and 0.5 < seen[2] < 0.9 and seen[3] < 0.02


def test_inverse_under_vmap_and_compiled() -> None:
    a = normal(3, 4, 4) + 3 * torch.eye(4)
    torch.testing.assert_close(torch.func.vmap(newton_schulz_inverse)(a), newton_schulz_inverse(a))
    torch._dynamo.reset()
    compiled = torch.compile(newton_schulz_inverse, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a), newton_schulz_inverse(a))


# --- Low rank


@pytest.mark.parametrize("normalize", [False, True])
def test_nystrom_is_that_of_the_formula(normalize: bool) -> None:
    p, a = exactly(similarities(L, Q)), exactly(similarities(L, L))
    inner = torch.linalg.inv(a + 0.01 * torch.eye(4))
    if normalize:
        root = torch.diag(a.sum(1) ** -0.5)
        inner = root @ inner @ root
    ours = nystrom_attention(Q, V, landmarks=L, steps=40, normalize=normalize)
    torch.testing.assert_close(ours, p.T @ inner @ p @ V)


def test_every_token_a_landmark_is_the_whole() -> None:
    whole = gaussian_attention(Q, V)
    ours = nystrom_attention(Q, V, landmarks=Q, ridge=0, steps=50)
    torch.testing.assert_close(ours, whole, atol=1e-6, rtol=1e-6)
    # But not so normalized: the degrees stand between P and the inverse.
    whole = gaussian_attention(Q, V, normalize=True)
    ours = nystrom_attention(Q, V, landmarks=Q, ridge=0, steps=50, normalize=True)
    assert (ours - whole).norm() > 0.05 * whole.norm()


def test_more_landmarks_are_nearer() -> None:
    q, v = normal(64, 2), normal(64, 3, seed=1)
    whole, errors = gaussian_attention(q, v), []
    for m in (2, 4, 8, 16):
        ours = nystrom_attention(q, v, landmarks=q[:m], ridge=1e-6, steps=60)
        errors.append(float((ours - whole).norm() / whole.norm()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 < errors[0]


def test_nystrom_derivatives_and_batches() -> None:
    leaves = [x.clone().requires_grad_() for x in (Q, V, L)]
    for normalize in (False, True):

        def own(q: Tensor, v: Tensor, m: Tensor, normalize: bool = normalize) -> Tensor:
            return nystrom_attention(q, v, landmarks=m, steps=40, normalize=normalize)

        assert torch.autograd.gradcheck(own, leaves)
    heads = nystrom_attention(
        Q.expand(2, 3, 7, 3), V.expand(2, 3, 7, 2), landmarks=L.expand(2, 3, 4, 3)
    )
    torch.testing.assert_close(heads[1, 2], nystrom_attention(Q, V, landmarks=L))
    half = nystrom_attention(Q.half(), V.half(), landmarks=L.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.double(), heads[0, 0], atol=0.02, rtol=0.02)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="keys"):
        gaussian_kernel(Q, L[:, :2])
    with pytest.raises(ValueError, match="queries"):
        gaussian_kernel(Q[0], L)
    with pytest.raises(TypeError, match="queries"):
        gaussian_kernel(Q.long(), L)
    with pytest.raises(ValueError, match="values"):
        gaussian_attention(Q, V[:5])
    with pytest.raises(ValueError, match="landmarks"):
        nystrom_attention(Q, V, landmarks=L[:, :2])
    with pytest.raises(ValueError, match="ridge"):
        nystrom_attention(Q, V, landmarks=L, ridge=-0.1)
    with pytest.raises(ValueError, match="steps"):
        nystrom_attention(Q, V, landmarks=L, steps=0)
    with pytest.raises(ValueError, match="matrix"):
        newton_schulz_inverse(Q)
