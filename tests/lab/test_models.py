"""The builders' shapes and counts by formula, and that seeds, second derivatives and skips work."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, relu

from lossbook.lab.datasets import digits, generator
from lossbook.lab.models import convnet, residual_mlp, resnet, transformer
from lossbook.lab.training import Ensemble, accuracy, fit

BUILDS = {
    "residual": residual_mlp(64, 12, 4, 10),
    "plain": residual_mlp(64, 12, 4, 10, skips=False),
    "convnet": convnet(1, 10, width=4),
    "group": resnet(1, 10, width=4),
    "plain group": resnet(1, 10, width=4, skips=False),
    "none": resnet(1, 10, width=4, blocks=2, norm=None),
    "batch": resnet(1, 10, width=4, norm="batch"),
    "transformer": transformer(1, 10, width=8),
}
VECTORIZED = [name for name in BUILDS if name != "batch"]


def made(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double()


def pictures(n=6, *shape, seed=0):
    shape = shape or (64,)
    return torch.rand(n, *shape, dtype=torch.float64, generator=generator(seed, "models"))


def count(build):
    return sum(p.numel() for p in build().parameters())


# --- shapes and numbers of parameters


@pytest.mark.parametrize("name", BUILDS)
def test_flat_and_square_pictures_give_the_same_logits(name):
    model, flat = made(BUILDS[name]).eval(), pictures()
    logits = model(flat)
    assert logits.shape == (6, 10) and logits.dtype == torch.float64 and logits.isfinite().all()
    torch.testing.assert_close(model(flat.view(6, 1, 8, 8)), logits)
    torch.testing.assert_close(model(flat.view(6, 8, 8)), logits)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_convolutions_take_pictures_of_any_size(shape):
    channels, size, _ = shape
    builds = [convnet(channels, 7, width=2), transformer(channels, 7, size=size, patch=4, width=8)]
    builds += [resnet(channels, 7, width=2, skips=s, norm=n) for s in (True, False)
               for n in ("group", "batch", None)]  # fmt: skip
    for build in builds:
        assert made(build)(pictures(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("skips", [True, False])
def test_parameters_are_counted_by_formula(skips):
    i, w, d, c = 64, 12, 5, 10
    assert count(residual_mlp(i, w, d, c, skips=skips)) == (i * w + w + d * (w * w + w) + w * c + c)
    k, w, b = 3, 8, 2
    convolutions = [(k, w), *[(w, w)] * 2 * b]
    for n in (2 * w, 4 * w):
        convolutions += [(n // 2, n), *[(n, n)] * (2 * b - 1)]
    for norm, extra in (("group", 2), ("batch", 2), (None, 1)):
        expected = sum(9 * n * m + extra * m for n, m in convolutions) + 4 * w * c + c
        assert count(resnet(k, c, width=w, blocks=b, skips=skips, norm=norm)) == expected
    assert len(convolutions) + 1 == 6 * b + 2  # layers with weights


def test_the_other_parameters_are_counted_by_formula():
    k, w, c = 3, 5, 7
    sizes = [(k, w), (w, 2 * w), (2 * w, 2 * w)]
    assert count(convnet(k, c, width=w)) == (sum(9 * n * m + m for n, m in sizes) + 2 * w * c + c)
    w, p, size, depth = 8, 4, 12, 3
    block = 2 * 2 * w + (3 * w * w + 3 * w) + (w * w + w) + (4 * w * w + 3 * w)
    expected = k * p * p * w + w + (size // p) ** 2 * w + depth * block + 2 * w + w * c + c
    assert count(transformer(k, c, size=size, patch=p, width=w, depth=depth)) == expected


def test_the_usual_depths():
    """Blocks of 3 and 9 give the networks of 20 and 56 layers."""
    for blocks, layers in ((3, 20), (9, 56)):
        model = resnet(3, 10, width=1, blocks=blocks)()
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == layers


# --- what they compute


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 16])
def test_residual_mlp_is_its_formula(skips, depth):
    model, x = made(residual_mlp(64, 12, depth, 10, skips=skips)), pictures()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    h = x @ layers[0].weight.T + layers[0].bias
    for layer in layers[1:-1]:
        change = relu(h) @ layer.weight.T + layer.bias
        h = h + change / math.sqrt(depth) if skips else change
    torch.testing.assert_close(model(x), relu(h) @ layers[-1].weight.T + layers[-1].bias)


@pytest.mark.parametrize("skips", [True, False])
def test_the_signal_keeps_its_size_at_any_depth(skips):
    """He's start: the mean square of what a deep network ends in is near that of a shallow one."""
    sizes = []
    for depth in (1, 32):
        bodies = [made(residual_mlp(64, 64, depth, 10, skips=skips), s)[:-2] for s in range(20)]
        sizes.append(torch.stack([body(pictures()).square().mean() for body in bodies]).mean())
    assert 0.3 < sizes[1] / sizes[0] < 3


def test_resnet_without_norm_is_its_formula():
    model, x = made(resnet(1, 10, width=2, norm=None)), pictures(3, 1, 8, 8)
    convolutions = iter([m for m in model.modules() if isinstance(m, nn.Conv2d)])
    h = relu(next(convolutions)(x))
    for stage in range(3):
        branch = next(convolutions)
        branch = next(convolutions)(relu(branch(h)))
        if stage:
            shortcut = torch.zeros_like(branch)
            shortcut[:, : h.shape[1]] = h[:, :, ::2, ::2]
            h = shortcut
        h = relu(h + branch / math.sqrt(3))
    torch.testing.assert_close(model(x), model[-1](h.mean((2, 3))))


def test_norms_are_where_they_should_be():
    names = {"group": nn.GroupNorm, "batch": nn.BatchNorm2d}
    for norm, kind in names.items():
        modules = list(resnet(1, 10, width=4, norm=norm)().modules())
        assert sum(isinstance(m, kind) for m in modules) == 7
        assert all(m.bias is None for m in modules if isinstance(m, nn.Conv2d))
    assert not any("Norm" in type(m).__name__ for m in BUILDS["none"]().modules())


def test_batch_norm_couples_the_examples_and_group_norm_does_not():
    x = pictures()
    for name, coupled in (("batch", True), ("group", False)):
        model = made(BUILDS[name]).train()
        alone, together = model(x[:2]), model(x)[:2]
        assert torch.allclose(alone, together) != coupled


@pytest.mark.parametrize(
    "make",
    [
        lambda skips: residual_mlp(64, 12, 4, 10, skips=skips),
        lambda skips: resnet(1, 10, width=4, skips=skips),
        lambda skips: resnet(1, 10, width=4, skips=skips, norm=None),
    ],
)
def test_skips_make_the_difference(make):
    """Same start, same names, other function; with branches at zero only skips let inputs pass."""
    models = [made(make(skips)) for skips in (True, False)]
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    outputs = [model(pictures()) for model in models]
    assert not torch.allclose(*outputs)
    for model in models:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "branch" in name:
                    parameter.zero_()
    passing, blocked = (model(pictures()) for model in models)
    assert passing.std(0).min() > 1e-3 and blocked.std(0).max() < 1e-12


def test_attention_is_its_formula():
    model, heads = made(transformer(1, 10, width=8, heads=2)), 2
    attention = next(m for m in model.modules() if type(m).__name__ == "_Attention")
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=generator(1, "models"))
    (q, k, v), mixed = attention.project(x).split(8, 2), torch.zeros(2, 5, 8).double()
    for n in range(2):
        for head in range(heads):
            own = slice(4 * head, 4 * head + 4)
            for i in range(5):
                scores = torch.stack([q[n, i, own] @ k[n, j, own] for j in range(5)]) / 2
                mixed[n, i, own] = scores.softmax(0) @ v[n, :, own]
    torch.testing.assert_close(attention(x), attention.mix(mixed))


def test_the_transformer_is_pre_norm():
    """With every branch's last map at zero, vectors reach the last norm as they were embedded."""
    model, x = made(transformer(1, 10, width=8)), pictures()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mix" in name or "branch.3" in name:
                parameter.zero_()
    embedded = model[1](model[0](x)).mean(1)
    torch.testing.assert_close(model(x), model[-1](model[-2](embedded)))


# --- seeds, functional calls, derivatives


@pytest.mark.parametrize("name", VECTORIZED)
def test_an_ensemble_is_its_modules(name):
    ensemble = Ensemble(lambda: BUILDS[name]().double(), range(3))
    expected = torch.stack([ensemble.module(i)(pictures()) for i in range(3)])
    torch.testing.assert_close(ensemble(pictures()), expected)
    assert not torch.allclose(expected[0], expected[1])


@pytest.mark.parametrize("name", BUILDS)
def test_a_functional_call_uses_the_given_weights(name):
    model, other = made(BUILDS[name], 0).eval(), made(BUILDS[name], 1).eval()
    state = dict(other.named_parameters()) | dict(other.named_buffers())
    torch.testing.assert_close(functional_call(model, state, (pictures(),)), other(pictures()))


@pytest.mark.parametrize("name", BUILDS)
def test_second_derivatives(name):
    """A Hessian-vector product against the central difference of gradients."""
    model, x = made(BUILDS[name]).eval(), pictures()
    parameters, labels = list(model.parameters()), torch.arange(6)
    stream = generator(2, "models")
    vector = [torch.randn(p.shape, dtype=p.dtype, generator=stream) for p in parameters]

    def gradient(step, create_graph=False):
        moved = [p + step * v for p, v in zip(parameters, vector, strict=True)]
        names = [name for name, _ in model.named_parameters()]
        logits = functional_call(model, dict(zip(names, moved, strict=True)), (x,))
        return torch.autograd.grad(cross_entropy(logits, labels), moved, create_graph=create_graph)

    slope = gradient(0.0, create_graph=True)
    inner = sum((g * v).sum() for g, v in zip(slope, vector, strict=True))
    product = torch.cat([h.flatten() for h in torch.autograd.grad(inner, parameters)])
    step = 1e-6  # small: a ReLU's kink on the way would not count in the product
    forth, back = (torch.cat([g.flatten() for g in gradient(s)]) for s in (step, -step))
    expected = (forth - back) / (2 * step)
    assert (product - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("name", VECTORIZED)
def test_they_learn(name):
    data = digits()
    settings = {"seeds": range(2), "steps": 40, "learning_rate": 1e-2, "progress": None}
    build = {**BUILDS, "transformer": transformer(1, 10, width=16, depth=1)}[name]
    run = fit(build, cross_entropy, data.train, device="cpu", **settings)
    assert accuracy(run.ensemble, data.test).mean() > 0.25


# --- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: residual_mlp(64, 0, 2, 10), "width must be at least 1, got 0"),
        (lambda: residual_mlp(64, 8, 0, 10), "depth must be at least 1, got 0"),
        (lambda: residual_mlp(-1, 8, 1, 10), "inputs must be at least 1, got -1"),
        (lambda: convnet(0, 10), "channels must be at least 1, got 0"),
        (lambda: convnet(1, 0), "classes must be at least 1, got 0"),
        (lambda: resnet(1, 10, blocks=0), "blocks must be at least 1, got 0"),
        (lambda: resnet(1, 10, norm="layer"), "norm must be 'group', 'batch' or None, got 'layer'"),
        (lambda: transformer(1, 10, patch=3), "size must be a multiple of 3, got 8"),
        (lambda: transformer(1, 10, heads=5), "width must be a multiple of 5, got 32"),
        (lambda: transformer(1, 10, depth=0), "depth must be at least 1, got 0"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("build", [convnet(1, 10), resnet(1, 10, width=4), transformer(1, 10)])
def test_bad_pictures_are_named(build):
    with pytest.raises(ValueError, match="square pictures, got 63 numbers each"):
        build()(torch.zeros(2, 63))
    with pytest.raises(ValueError, match=r"1 channel\(s\), got 3"):
        build()(torch.zeros(2, 3, 8, 8))


def test_pictures_of_another_size_do_not_fit_the_positions():
    with pytest.raises(ValueError, match="pictures of 16 patches, got 64"):
        transformer(1, 10)()(torch.zeros(2, 1, 16, 16))
