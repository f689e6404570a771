"""Gumbel-softmax against its formula and torch's own, estimators against enumeration."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from lossbook.classification import (
    categorical_mean,
    gumbel_noise,
    gumbel_softmax,
    pathwise_gradients,
    reinforce_gradients,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


Z, COSTS = normal(4), exactly([0.3, -1.0, 2.0, 0.5])
MANY = 40_000


def linear(y: Tensor) -> Tensor:
    return y @ COSTS


def squared(y: Tensor) -> Tensor:
    return y.square() @ COSTS


def noise(rows: int = MANY, seed: int = 0) -> Tensor:
    return gumbel_noise(Z.expand(rows, 4), generator=torch.Generator().manual_seed(seed))


# --- Samples


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_samples_are_those_of_the_formula(temperature: float) -> None:
    z, g = normal(3, 5), normal(3, 5, seed=1)
    ours = gumbel_softmax(z, temperature=temperature, noise=g)
    for row, a, b in zip(ours.tolist(), z.tolist(), g.tolist(), strict=True):
        powers = [math.exp((x + y) / temperature) for x, y in zip(a, b, strict=True)]
        assert row == pytest.approx([x / sum(powers) for x in powers])
    torch.testing.assert_close(
        gumbel_softmax(z.T, temperature=temperature, noise=g.T, dim=0).T, ours
    )
    assert torch.autograd.gradcheck(
        partial(gumbel_softmax, temperature=temperature, noise=g), z.requires_grad_()
    )


@pytest.mark.parametrize("hard", [False, True])
def test_torch_says_the_same(hard: bool) -> None:
    z = normal(50, 6).requires_grad_()
    torch.manual_seed(0)
    ours = gumbel_softmax(z, temperature=0.7, hard=hard)
    torch.manual_seed(0)
    theirs = torch.nn.functional.gumbel_softmax(z, tau=0.7, hard=hard, dim=1)
    torch.testing.assert_close(ours, theirs)
    outer = normal(50, 6, seed=1)
    slopes = [torch.autograd.grad((y * outer).sum(), z)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*slopes)


def test_the_largest_is_a_draw_at_any_temperature() -> None:
    g = noise()
    for temperature in (0.2, 3.0):
        y = gumbel_softmax(Z.expand(MANY, 4), temperature=temperature, noise=g)
        shares = torch.bincount(y.argmax(1), minlength=4) / MANY
        p = Z.softmax(0)
        assert ((shares - p).abs() < 5 * (p * (1 - p) / MANY).sqrt()).all()
    assert abs(g.mean() - 0.5772156649) < 0.01  # Euler's constant
    assert abs(g.var() - math.pi**2 / 6) < 0.03


def test_hard_samples_are_corners_with_the_soft_gradient() -> None:
    z, g = normal(20, 5).requires_grad_(), normal(20, 5, seed=1)
    soft, hard = gumbel_softmax(z, noise=g), gumbel_softmax(z, noise=g, hard=True)
    assert torch.equal(hard, torch.nn.functional.one_hot((z + g).argmax(1), 5).double())
    outer = normal(20, 5, seed=2)
    slopes = [torch.autograd.grad((y * outer).sum(), z)[0] for y in (soft, hard)]
    torch.testing.assert_close(*slopes)


def test_the_generator_is_the_only_source() -> None:
    z, draw = Z.expand(5, 4), partial(torch.Generator().manual_seed, 3)
    torch.testing.assert_close(
        gumbel_softmax(z, generator=draw()),
        gumbel_softmax(z, noise=gumbel_noise(z, generator=draw())),
    )


def test_sampling_at_the_extremes() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        z = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
        y = gumbel_softmax(z, temperature=0.01, hard=True)
        assert y.dtype == dtype and y.tolist() == [[1, 0, 0]]
        assert torch.autograd.grad(y.sum(), z)[0].isfinite().all()
        assert gumbel_noise(torch.zeros(10_000, dtype=dtype)).isfinite().all()


# --- Gradients


def exact_gradient(costs: Tensor, z: Tensor) -> Tensor:
    p = z.softmax(0).tolist()
    mean = sum(a * b for a, b in zip(p, costs.tolist(), strict=True))
    return exactly([a * (b - mean) for a, b in zip(p, costs.tolist(), strict=True)])


def test_the_mean_and_its_gradient() -> None:
    z = Z.clone().requires_grad_()
    for objective in (linear, squared):  # the same at the corners
        value = categorical_mean(objective, z)
        torch.testing.assert_close(value, (Z.softmax(0) * COSTS).sum())
        (slope,) = torch.autograd.grad(value, z)
        torch.testing.assert_close(slope, exact_gradient(COSTS, Z))


def test_reinforce_is_unbiased_and_its_best_baseline_is_best() -> None:
    p, every = Z.softmax(0), torch.arange(4)

    def moments(baseline: float) -> tuple[Tensor, float]:
        estimates = reinforce_gradients(linear, Z, every, baseline=baseline)
        mean = p @ estimates
        return mean, float(p @ (estimates - mean).square().sum(1))

    sizes = (torch.eye(4).double() - p).square().sum(1)
    best = float((p * sizes) @ COSTS / (p @ sizes))
    for baseline in (0.0, 5.0, best):
        torch.testing.assert_close(moments(baseline)[0], exact_gradient(COSTS, Z))
    least = moments(best)[1]
    assert least < moments(best + 0.01)[1] and least < moments(best - 0.01)[1]
    assert moments(100.0)[1] > 1000 * least


def test_reinforce_with_a_baseline_for_each_draw() -> None:
    samples = torch.tensor([2, 0, 1])
    baseline = exactly([0.1, 0.2, 0.3])
    ours = reinforce_gradients(linear, Z, samples, baseline=baseline)
    p = Z.softmax(0)
    for row, k, b in zip(ours, samples.tolist(), baseline.tolist(), strict=True):
        expected = (COSTS[k] - b) * exactly([(j == k) - p[j].item() for j in range(4)])
        torch.testing.assert_close(row, expected)


def test_pathwise_gradients_are_those_of_each_sample() -> None:
    g = noise(3)
    for hard in (False, True):
        ours = pathwise_gradients(squared, Z, g, temperature=0.5, hard=hard)
        for row, n in zip(ours, g, strict=True):
            y = ((Z + n) / 0.5).softmax(0)
            jacobian = (torch.diag(y) - torch.outer(y, y)) / 0.5
            point = torch.nn.functional.one_hot(y.argmax(), 4).double() if hard else y
            torch.testing.assert_close(row, jacobian @ (2 * point * COSTS))
    assert not ours.requires_grad


def test_bias_falls_and_variance_rises_with_the_temperature() -> None:
    exact, g = exact_gradient(COSTS, Z), noise()
    bias, variance = [], []
    for temperature in (0.1, 0.5, 2.0):
        estimates = pathwise_gradients(squared, Z, g, temperature=temperature)
        bias.append(float((estimates.mean(0) - exact).norm()))
        variance.append(float(estimates.var(0).sum()))
    assert bias[0] < bias[1] < bias[2] and variance[0] > variance[1] > variance[2]


def test_no_graph_is_needed_around() -> None:
    with torch.no_grad():
        assert (pathwise_gradients(linear, Z, noise(5)) != 0).any()


def test_bad_input() -> None:
    g = noise(3)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            gumbel_softmax(Z[None], temperature=temperature)
    with pytest.raises(ValueError, match="noise"):
        gumbel_softmax(Z[None], noise=g)
    for shape in ((4,), (3, 5)):
        with pytest.raises(ValueError, match="noise"):
            pathwise_gradients(linear, Z, torch.zeros(shape))
    with pytest.raises(TypeError, match="logits"):
        gumbel_softmax(Z[None].long())
    with pytest.raises(TypeError, match="logits"):
        gumbel_noise(Z.long())
    with pytest.raises(ValueError, match="logits"):
        categorical_mean(linear, Z[None])
    with pytest.raises(ValueError, match="objective"):
        categorical_mean(lambda y: y.sum(), Z)
    with pytest.raises(TypeError, match="samples"):
        reinforce_gradients(linear, Z, g)
    with pytest.raises(ValueError, match="samples"):
        reinforce_gradients(linear, Z, torch.zeros(1, 1, dtype=torch.int64))
