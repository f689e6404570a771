"""What holds for all of the room: vmap, one graph, no look at a value, no edit of an input."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lossbook import classification as c
from lossbook.classification import GaussianExperts

EXPERTS = GaussianExperts(
    *(torch.linspace(-1, 1, 3)[:, None].expand(3, 4), torch.zeros(3)) * 2, torch.ones(3)
)


def density(x: Tensor) -> Tensor:
    experts = GaussianExperts(*(part.to(x) for part in EXPERTS))
    return c.experts_log_density(experts, x, x[:, 0], k=2)


def sampled(x: Tensor, hard: bool) -> Tensor:
    return c.gumbel_softmax(x, noise=x.sin(), temperature=0.5, hard=hard)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "alignment_gap": lambda x: c.alignment_gap(x, x.flip(0)),
    "entmax": c.entmax,
    "experts_log_density": density,
    "gaussian_attention": lambda x: c.gaussian_attention(x, x, normalize=True),
    "gumbel_softmax": partial(sampled, hard=False),
    "gumbel_softmax-hard": partial(sampled, hard=True),
    "leaf_membership": lambda x: c.leaf_membership(x[:, :3].sigmoid()),
    "leaf_weighted_mean": lambda x: c.leaf_weighted_mean(x.unsqueeze(2), x),
    "nystrom_attention": lambda x: c.nystrom_attention(x, x, landmarks=x[:2] + 1),
    "self_adjust_softmax": c.self_adjust_softmax,
    "soft_split": c.soft_split,
    "soft_split-entmoid": partial(c.soft_split, kind="entmoid", hard=False),
    "sparse_softmax": partial(c.sparse_softmax, k=2),
}
every_function = pytest.mark.parametrize("own", FUNCTIONS.values(), ids=FUNCTIONS)
X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slope(own: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(own(x).sin().sum(), x)[0]


@every_function
def test_vmap(own: Callable[[Tensor], Tensor]) -> None:
    torch.testing.assert_close(torch.func.vmap(own)(X), torch.stack([own(x) for x in X]))
    slopes = torch.func.vmap(torch.func.grad(lambda x: own(x).sin().sum()))(X)
    torch.testing.assert_close(slopes, torch.stack([slope(own, x) for x in X]))


@every_function
def test_compiles_to_one_graph(own: Callable[[Tensor], Tensor]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(own, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X[0]), own(X[0]))
    torch.testing.assert_close(slope(compiled, X[0]), slope(own, X[0]))


@every_function
def test_no_value_is_read_and_none_edited(own: Callable[[Tensor], Tensor]) -> None:
    assert own(X[0].to("meta")).is_meta
    x = X[0].clone()
    own(x)
    assert torch.equal(x, X[0])


@every_function
def test_half_precision_is_computed_in_single(own: Callable[[Tensor], Tensor]) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        out, exact = own(X[0].to(dtype)), own(X[0].to(dtype).double())
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-2)
