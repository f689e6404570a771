"""The stability module against brute force: all batches, all steps, written out in float64."""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lossbook.optimization.landscape import stability
from lossbook.optimization.landscape.stability import (
    Momo,
    MomoAdam,
    ScaledMLP,
    coherence_matrix,
    gauss_newton_factors,
    gfs_sharpness,
    gradient_flow,
    hessian_coherence,
    hessian_factors,
    linear_stability_probe,
    mean_square_growth,
    mean_square_step_limit,
    polyak_step,
    scalar_flow_end,
    scalar_gfs_sharpness,
    second_moment_operator,
    sgd_step_limits,
)

DOUBLE = torch.float64


def random_factors(n: int, r: int, dimension: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(n, r, dimension, generator=stream, dtype=DOUBLE)


def close(found: Tensor | float, expected: Tensor | float, tolerance: float = 1e-9) -> None:
    found, expected = (torch.as_tensor(x, dtype=DOUBLE) for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# --- the second moment, by listing every batch


def batches(n: int, size: float, sampling: str) -> list[tuple[float, list[int]]]:
    """Every batch with its probability."""
    if sampling == "minibatch":
        chosen = list(itertools.combinations(range(n), int(size)))
        return [(1 / len(chosen), list(batch)) for batch in chosen]
    listed = []
    for mask in itertools.product((0, 1), repeat=n):
        p = size / n
        probability = math.prod(p if bit else 1 - p for bit in mask)
        listed.append((probability, [i for i in range(n) if mask[i]]))
    return listed


def brute_operator(factors: Tensor, step: float, size: float, sampling: str) -> Tensor:
    """E[J kron J] on all P x P matrices."""
    n, _, dimension = factors.shape
    hessians = [factors[i].T @ factors[i] for i in range(n)]
    total = torch.zeros(dimension**2, dimension**2, dtype=DOUBLE)
    for probability, batch in batches(n, size, sampling):
        jacobian = torch.eye(dimension, dtype=DOUBLE)
        for i in batch:
            jacobian -= step / size * hessians[i]
        total += probability * torch.kron(jacobian, jacobian)
    return total


CASES = [(5, "minibatch"), (3, "minibatch"), (1, "minibatch"), (5, "bernoulli"), (2.5, "bernoulli")]


@pytest.mark.parametrize(("size", "sampling"), CASES)
@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
def test_the_second_moment_is_the_mean_over_all_batches(
    size: float, sampling: str, step: float
) -> None:
    factors = random_factors(5, 2, 3)
    brute = brute_operator(factors, step, size, sampling)
    growth = mean_square_growth(factors, step, size, sampling=sampling)
    close(growth, torch.linalg.eigvals(brute).abs().max())
    operator = second_moment_operator(factors, step, size, sampling=sampling)
    assert operator.shape == (6, 6)
    close(operator, operator.T)
    # The mean of ||w||^2 after k steps from the identity, both ways.
    start, ours = torch.eye(3, dtype=DOUBLE).flatten(), torch.tensor([1.0] * 3 + [0.0] * 3).double()
    for _ in range(4):
        start, ours = brute @ start, operator @ ours
        close(ours[:3].sum(), start.reshape(3, 3).trace())


@pytest.mark.parametrize(("size", "sampling"), CASES)
def test_the_step_limit_is_where_the_growth_passes_one(size: float, sampling: str) -> None:
    for seed in range(5):
        factors = random_factors(5, 1, 4, seed)
        limit = float(mean_square_step_limit(factors, size, sampling=sampling))
        low, high = 1e-6, 100.0
        for _ in range(80):
            middle = (low + high) / 2
            radius = torch.linalg.eigvals(brute_operator(factors, middle, size, sampling))
            low, high = (middle, high) if radius.abs().max() < 1 else (low, middle)
        close(limit, low, 1e-7)


def test_directions_that_no_example_feels_do_not_count() -> None:
    flat = random_factors(4, 1, 3)
    wide = torch.cat([flat, torch.zeros(4, 1, 20, dtype=DOUBLE)], 2)
    turn = torch.linalg.qr(random_factors(1, 23, 23)[0])[0]
    for size in (1, 2.5):
        close(mean_square_growth(wide @ turn, 0.3, size), mean_square_growth(flat, 0.3, size))
        close(mean_square_step_limit(wide @ turn, size), mean_square_step_limit(flat, size))


def test_closed_forms_of_equal_and_of_orthogonal_examples() -> None:
    n = 6
    equal = torch.ones(n, 1, 1, dtype=DOUBLE)
    orthogonal = torch.eye(n, dtype=DOUBLE).unsqueeze(1) * n**0.5  # sharpness 1 too
    for size in (1.0, 2.0, 4.5, 6.0):
        noise = n / size - 1
        close(mean_square_growth(equal, 1.7, size), 0.7**2 + 1.7**2 * noise / n)
        close(mean_square_step_limit(equal, size), 2 / (1 + noise / n))
        close(mean_square_growth(orthogonal, 0.3, size), 0.7**2 + 0.3**2 * noise)
        close(mean_square_step_limit(orthogonal, size), 2 * size / n)
        close(sgd_step_limits(equal, size).sharpness, 2)
        if size < n:
            close(sgd_step_limits(equal, size).coherence, n * noise**-0.5)
            close(sgd_step_limits(orthogonal, size).coherence, noise**-0.5)


@pytest.mark.parametrize("sampling", ["bernoulli", "minibatch"])
def test_without_noise_it_is_gradient_descent(sampling: str) -> None:
    factors = random_factors(5, 2, 4)
    sharpness = torch.linalg.eigvalsh((factors.mT @ factors).mean(0))[-1]
    close(mean_square_step_limit(factors, 5, sampling=sampling), 2 / sharpness)
    limits = sgd_step_limits(factors, 5)
    close(limits.sharpness, 2 / sharpness)
    assert limits.example == limits.coherence == math.inf


@pytest.mark.parametrize("sampling", ["bernoulli", "minibatch"])
def test_the_probe_agrees_with_the_exact_mean(sampling: str) -> None:
    factors = random_factors(6, 1, 3) / 2
    steps, runs, size, step = 4, 40_000, 2, 0.5
    norms = linear_stability_probe(factors, step, size, steps=steps, runs=runs, sampling=sampling)
    assert norms.shape == (steps + 1, runs)
    close(norms[0], torch.ones(runs, dtype=DOUBLE))
    operator = second_moment_operator(factors, step, size, sampling=sampling)
    moment = torch.tensor([1 / 3] * 3 + [0.0] * 3).double()
    for row in norms[1:]:
        moment = operator @ moment
        error = row.std() / runs**0.5
        assert (row.mean() - moment[:3].sum()).abs() < 4 * error
    again = linear_stability_probe(factors, step, size, steps=steps, runs=runs, sampling=sampling)
    assert torch.equal(norms, again)


def test_the_probe_takes_the_step_it_says() -> None:
    factors = random_factors(4, 2, 3)
    norms = linear_stability_probe(factors, 0.1, 4, steps=3, runs=1, sampling="minibatch", seed=3)
    hessian = (factors.mT @ factors).mean(0)
    values = torch.linalg.eigvalsh(hessian)
    # It starts from a random direction in the eigenbasis, largest first.
    w = torch.randn(1, 3, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)[0]
    w = w / w.norm()
    expected = [(w**2 * (1 - 0.1 * values.flip(0)) ** (2 * k)).sum() for k in range(4)]
    close(norms[:, 0], torch.stack(expected))


# --- coherence


def root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


def test_coherence_is_the_norm_of_products_of_roots() -> None:
    factors = random_factors(5, 2, 4)
    hessians = factors.mT @ factors
    expected = torch.zeros(5, 5, dtype=DOUBLE)
    for i in range(5):
        for j in range(5):
            expected[i, j] = (root(hessians[i]) @ root(hessians[j])).norm()
    close(coherence_matrix(factors), expected)
    largest = max(torch.linalg.eigvalsh(h)[-1] for h in hessians)
    close(hessian_coherence(factors), torch.linalg.eigvalsh(expected)[-1] / largest)


def test_coherence_runs_from_one_to_the_number_of_examples() -> None:
    close(hessian_coherence(torch.eye(7, dtype=DOUBLE).unsqueeze(1)), 1)
    close(hessian_coherence(torch.ones(7, 1, 3, dtype=DOUBLE)), 7)
    sharp = torch.eye(7, dtype=DOUBLE).unsqueeze(1)
    sharp[0] *= 3
    close(hessian_coherence(sharp), 1)


@given(
    n=st.integers(1, 5), r=st.integers(1, 3), dimension=st.integers(1, 4),
    share=st.floats(0.05, 1.0), seed=st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_sufficient_condition_calls_a_stable_point_unstable(
    n: int, r: int, dimension: int, share: float, seed: int
) -> None:
    factors = random_factors(n, r, dimension, seed)
    limits = sgd_step_limits(factors, share * n)
    exact = mean_square_step_limit(factors, share * n)
    assert exact <= min(limits) * (1 + 1e-9)
    assert limits.example <= limits.coherence * (1 + 1e-9)  # the simple one is never weaker


def test_the_limits_by_their_formulas() -> None:
    factors = random_factors(5, 2, 4)
    hessians = factors.mT @ factors
    mean = torch.linalg.eigvalsh(hessians.mean(0))[-1]
    largest = torch.linalg.eigvalsh(hessians)[:, -1].max()
    limits = sgd_step_limits(factors, 2)
    close(limits.example, 5 / largest / (5 / 2 - 1) ** 0.5)
    close(limits.coherence, hessian_coherence(factors) / mean / (5 / 2 - 1) ** 0.5)


def test_factors_of_dense_hessians() -> None:
    dense = random_factors(4, 2, 5).mT @ random_factors(4, 2, 5)
    found = hessian_factors(dense)
    close(found.mT @ found, dense, 1e-8)
    single = hessian_factors(dense.float())
    assert single.dtype == torch.float32 and single.isfinite().all()


@pytest.mark.parametrize("loss", ["cross_entropy", "square"])
def test_gauss_newton_factors_against_loops(loss: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    model[0].bias.requires_grad_(False)
    inputs = torch.randn(3, 2, dtype=DOUBLE)
    factors = gauss_newton_factors(model, inputs, loss=loss)
    trained = [p for p in model.parameters() if p.requires_grad]
    for x, factor in zip(inputs, factors, strict=True):
        outputs = model(x[None])[0]
        rows = []
        for output in outputs:
            grads = torch.autograd.grad(output, trained, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
        jacobian, p = torch.stack(rows), outputs.softmax(0)
        middle = (
            torch.diag(p) - p[:, None] * p if loss == "cross_entropy" else torch.eye(4).double()
        )
        close(factor.T @ factor, jacobian.T @ middle @ jacobian)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_have_the_dtype_of_the_factors(dtype: torch.dtype) -> None:
    factors = random_factors(4, 1, 3).to(dtype)
    for value in (
        coherence_matrix(factors), hessian_coherence(factors), mean_square_growth(factors, 0.1, 2),
        mean_square_step_limit(factors, 2), second_moment_operator(factors, 0.1, 2),
        linear_stability_probe(factors, 0.1, 2, runs=3), *sgd_step_limits(factors, 2),
    ):  # fmt: skip
        assert value.dtype == dtype
    exact = mean_square_step_limit(factors.double(), 2)
    close(mean_square_step_limit(factors, 2), exact, 1e-5 if dtype == torch.float32 else 1e-2)


# --- gradient flow


def flow_by_small_steps(w: Tensor, h: float = 0.02) -> Tensor:
    """Gradient flow of the scalar network by classical Runge-Kutta steps, in plain numbers."""

    def velocity(w: list[float]) -> list[float]:
        product = math.prod(w)
        return [(1 - product) * math.prod(w[:i] + w[i + 1 :]) for i in range(len(w))]

    def moved(w: list[float], v: list[float], h: float) -> list[float]:
        return [a + h * b for a, b in zip(w, v, strict=True)]

    x = w.tolist()
    while abs(math.prod(x) - 1) > 1e-10:
        first = velocity(x)
        second = velocity(moved(x, first, h / 2))
        third = velocity(moved(x, second, h / 2))
        fourth = velocity(moved(x, third, h))
        for share, v in ((1, first), (2, second), (2, third), (1, fourth)):
            x = moved(x, v, h * share / 6)
    return torch.tensor(x, dtype=DOUBLE)


@pytest.mark.parametrize(
    "start",
    [[2.2, 0.8, 0.7, 0.65], [0.5, 0.3], [-2.0, -0.4, 1.5], [1.5, -0.2, 0.9], [0.0, 1.3], [3.0]],
)
def test_the_end_of_the_flow_against_small_steps(start: list[float]) -> None:
    w = torch.tensor(start, dtype=DOUBLE)
    end = scalar_flow_end(w)
    close(end.prod(), 1)
    close(end, flow_by_small_steps(w), 1e-5)
    squares, ends = w.square(), end.square()
    close(squares - squares[0], ends - ends[0])  # what the flow conserves


def test_the_flow_may_be_caught_by_the_saddle() -> None:
    for caught in ([-1.0, 1.0], [0.0, 0.0, 2.0], [-0.5, 0.5, 2.0]):
        assert scalar_flow_end(torch.tensor(caught)).isnan().all()
    assert scalar_flow_end(torch.tensor([-1.0, -1.0, 2.0])).isfinite().all()
    rows = scalar_flow_end(torch.tensor([[-1.0, 1.0], [2.0, 3.0]]))
    assert rows[0].isnan().all() and rows[1].isfinite().all()


@given(st.lists(st.floats(-30, 30).filter(lambda w: abs(w) > 1e-3), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_the_end_is_a_minimum_with_the_conserved_differences(start: list[float]) -> None:
    w = torch.tensor(start, dtype=DOUBLE)
    end = scalar_flow_end(w)
    if end.isnan().any():
        return
    close(end.prod(), 1, 1e-8)
    conserved = w.square() - w.square().min()
    close(end.square() - end.square().min(), conserved, 1e-8 * (1 + float(conserved.max())))
    assert scalar_gfs_sharpness(w) >= len(start) * (1 - 1e-9)


def test_the_sharpness_there_is_that_of_the_dense_hessian() -> None:
    w = torch.tensor([2.2, 0.8, 0.7, 0.65], dtype=DOUBLE)
    end = scalar_flow_end(w)
    dense = torch.autograd.functional.hessian(lambda v: (v.prod() - 1) ** 2 / 2, end)
    close(scalar_gfs_sharpness(w), torch.linalg.eigvalsh(dense)[-1])
    # From a minimum itself nothing moves.
    close(scalar_flow_end(end), end)
    minimum = torch.tensor([1.0, -1.0, -1.0], dtype=DOUBLE)
    close(scalar_gfs_sharpness(minimum), 3)


def test_the_end_can_be_differentiated() -> None:
    w = torch.tensor([[2.2, 0.8, 0.7], [0.4, -0.3, -2.0]], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(scalar_flow_end, w)
    assert torch.autograd.gradcheck(scalar_gfs_sharpness, w)


class Product(nn.Module):
    """A scalar network as a module."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights.prod()


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean() / 2


ONE = [(torch.ones(1, 1, dtype=DOUBLE), torch.ones(1, 1, dtype=DOUBLE))]


def test_integrated_flow_ends_where_the_closed_form_says() -> None:
    for weights in ([2.2, 0.8, 0.7, 0.65], [1.5, -0.4, 0.9]):
        model = Product(weights)
        end = gradient_flow(half_square, model, ONE, tolerance=1e-8, accuracy=1e-7)
        assert end.converged and end.gradient_norm <= 1e-8 and end.time > 0
        expected = scalar_flow_end(model.weights.detach())
        close(end.model.weights.detach(), expected, 1e-5)
        close(model.weights.detach(), torch.tensor(weights, dtype=DOUBLE))  # untouched
        found = gfs_sharpness(half_square, model, ONE, tolerance=1e-8, accuracy=1e-7)
        close(found, scalar_gfs_sharpness(model.weights.detach()), 1e-4)


def test_flow_on_a_quadratic_and_its_time() -> None:
    """w' = -a w, a the mean square of four inputs, ends at t = log(a w0 / tolerance) / a."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 3.0)
    x = torch.tensor([[1.0], [2.0], [2.0], [3.0]], dtype=DOUBLE)  # mean square 4.5
    data = [(x[:1], torch.zeros(1, 1).double()), (x[1:], torch.zeros(3, 1).double())]
    end = gradient_flow(half_square, model, data, tolerance=1e-6, accuracy=1e-7)
    arrived = math.log(4.5 * 3 / 1e-6) / 4.5
    assert arrived <= end.time * (1 + 1e-3) and end.time < arrived * 1.2
    close(end.model.weight.item(), 3 * math.exp(-4.5 * end.time), 1e-6)


def test_an_unfinished_flow_says_so() -> None:
    with pytest.warns(UserWarning, match="stopped after 3 steps"):
        end = gradient_flow(half_square, Product([2.2, 0.8]), ONE, max_steps=3)
    assert not end.converged and end.steps == 3


# --- scaled networks


def by_hand(model: ScaledMLP, x: Tensor, gamma: float, residual: str | None) -> Tensor:
    """The formula for one example, neuron by neuron."""
    layers = [w.detach().double() for w in model.weights]
    width, depth = len(layers[0]), len(layers) - 1
    h = [sum(w[j] * x[j] for j in range(len(x))) / len(x) ** 0.5 for w in layers[0]]
    for layer in layers[1:-1]:
        active = [max(float(value), 0.0) for value in h]
        change = [float(sum(w[j] * active[j] for j in range(width))) / width**0.5 for w in layer]
        start = h if residual else [0.0] * width
        share = depth**-0.5 if residual == "scaled" else 1.0
        h = [old + share * new for old, new in zip(start, change, strict=True)]
    active = [max(float(value), 0.0) for value in h]
    return torch.stack(
        [sum(w[j] * active[j] for j in range(width)) / (gamma * width**0.5) for w in layers[-1]]
    )


@pytest.mark.parametrize("residual", [None, "scaled", "plain"])
@pytest.mark.parametrize("parametrization", ["mup", "ntk"])
def test_scaled_networks_compute_their_formula(parametrization: str, residual: str | None) -> None:
    torch.manual_seed(0)
    model = ScaledMLP(6, 5, 3, 2, parametrization=parametrization, residual=residual).double()
    x = torch.randn(4, 2, 3, dtype=DOUBLE)
    gamma = 5**0.5 if parametrization == "mup" else 1.0
    expected = torch.stack([by_hand(model, row.flatten(), gamma, residual) for row in x])
    close(model(x).detach(), expected)
    assert model.learning_rate_scale == pytest.approx(gamma**2)


def test_statistics_at_the_start() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 32)
    for width in (64, 1024):
        for parametrization, size in (("mup", width**-0.5), ("ntk", 1.0)):
            model = ScaledMLP(32, width, 2, 10, parametrization=parametrization)
            for weight in model.weights:
                assert weight.std().item() == pytest.approx(1, abs=0.06)
            # Each ReLU halves the second moment: outputs have variance 1/4 under NTK.
            assert model(x).std().item() == pytest.approx(size / 2, rel=0.25)


def test_one_step_changes_features_alike_at_every_width_under_mup() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 16), torch.randint(3, (64,))

    def change(width: int, parametrization: str) -> float:
        model = ScaledMLP(16, width, 2, 3, parametrization=parametrization)
        before = x @ model.weights[0].T / 4
        nn.functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            rate = 0.5 * model.learning_rate_scale
            after = x @ (model.weights[0] - rate * model.weights[0].grad).T / 4
        return (after - before).square().mean().sqrt().item()

    narrow, wide = (sum(change(w, "mup") for _ in range(5)) for w in (64, 1024))
    assert narrow / wide == pytest.approx(1, abs=0.25)
    narrow, wide = (sum(change(w, "ntk") for _ in range(5)) for w in (64, 1024))
    assert narrow / wide == pytest.approx(4, rel=0.25)


# --- MoMo


def problem(seed: int = 0) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """A start and ten noisy quadratics 0.5 ||A x - b||^2 + 0.3."""
    stream = torch.Generator().manual_seed(seed)
    draws = [torch.randn(6, generator=stream, dtype=DOUBLE) for _ in range(21)]
    matrices = [torch.outer(d, d) / 3 + torch.eye(6, dtype=DOUBLE) for d in draws[:10]]
    return draws[20] * 3, list(zip(matrices, draws[10:20], strict=True))


def value_at(x: Tensor, part: tuple[Tensor, Tensor]) -> Tensor:
    a, b = part
    return (a @ x - b).square().sum() / 2 + 0.3


def reference(
    x: Tensor, parts: list[tuple[Tensor, Tensor]], *, lr: float, beta: float, decay: float = 0.0,
    bound: float = 0.0, correct: bool = False, estimate: bool = False,
    adam: tuple[float, float] | None = None,
) -> list[Tensor]:  # fmt: skip
    """MoMo in plain numbers, from the paper's formulas; keeps whole histories, averages anew."""
    floor, path, losses, gradients, products = bound, [], [], [], []
    for k, part in enumerate(parts, 1):
        leaf = x.clone().requires_grad_()
        f = value_at(leaf, part)
        (g,) = torch.autograd.grad(f, leaf)
        losses.append(float(f.detach()))
        gradients.append(g)
        products.append(float(g @ x))
        weights = [(1 - beta) * beta ** (k - j) for j in range(1, k + 1)]
        if not correct:
            weights[0] += beta**k  # what a start from the first value amounts to
        fbar = sum(w * f for w, f in zip(weights, losses, strict=True))
        gamma = sum(w * p for w, p in zip(weights, products, strict=True))
        d = sum(w * g for w, g in zip(weights, gradients, strict=True))
        rho = 1 - beta**k if correct else 1.0
        metric = torch.ones_like(x)
        if adam:
            second = sum(
                (1 - adam[0]) * adam[0] ** (k - j - 1) * g**2 for j, g in enumerate(gradients)
            )
            metric = adam[1] + (second / (1 - adam[0] ** k)).sqrt()
        reach, norm, grow = float(d @ x), float((d * d / metric).sum()), 1 + lr * decay
        if estimate:
            cap = grow * (fbar - gamma) + reach
            if cap < grow * rho * bound:
                bound = max(cap / (2 * grow * rho), floor)
        tau = min(lr / rho, max(grow * (fbar - rho * bound - gamma) + reach, 0.0) / norm)
        if estimate:
            bound = max((fbar + reach - gamma - tau * norm / 2) / rho, floor)
        x = (x - tau * d / metric) / grow
        path.append(x)
    return path


def run(make, x: Tensor, parts: list[tuple[Tensor, Tensor]], closure: bool = False) -> list[Tensor]:
    first, second = nn.Parameter(x[:2].clone()), nn.Parameter(x[2:].clone().reshape(2, 2))
    optimizer = make([first, second])
    path = []
    for part in parts:

        def evaluate(part: tuple[Tensor, Tensor] = part) -> Tensor:
            optimizer.zero_grad()
            loss = value_at(torch.cat([first, second.flatten()]), part)
            loss.backward()
            return loss

        if closure:
            optimizer.step(evaluate)
        else:
            optimizer.step(loss=evaluate())
        path.append(torch.cat([first, second.flatten()]).detach())
    return path


SETTINGS = [
    {"lr": 1.0, "beta": 0.9},
    {"lr": 0.02, "beta": 0.9},
    {"lr": 1.0, "beta": 0.0},
    {"lr": 1.0, "beta": 0.9, "correct": True},
    {"lr": 1.0, "beta": 0.7, "decay": 0.1},
    {"lr": 1.0, "beta": 0.9, "decay": 0.1, "correct": True},
    {"lr": 1.0, "beta": 0.9, "bound": 0.3},
    {"lr": 1.0, "beta": 0.9, "estimate": True},
    {"lr": 0.3, "beta": 0.9, "estimate": True, "correct": True, "decay": 0.02, "bound": -1.0},
]


def named(s: dict) -> dict:
    names = {"decay": "weight_decay", "bound": "lower_bound", "correct": "bias_correction",
             "estimate": "estimate_bound"}  # fmt: skip
    return {names.get(name, name): value for name, value in s.items()}


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("s", SETTINGS)
def test_momo_step_by_step(s: dict, closure: bool) -> None:
    x, parts = problem()
    found = run(lambda p: Momo(p, **named(s)), x, parts, closure)
    for ours, expected in zip(found, reference(x, parts, **s), strict=True):
        close(ours, expected, 1e-8)


@pytest.mark.parametrize("s", [s for s in SETTINGS if not s.get("correct")])
def test_momo_adam_step_by_step(s: dict) -> None:
    x, parts = problem(1)
    keywords = named(s)
    betas = (keywords.pop("beta"), 0.99)
    found = run(lambda p: MomoAdam(p, betas=betas, eps=1e-3, **keywords), x, parts)
    for ours, expected in zip(
        found, reference(x, parts, **s | {"correct": True}, adam=(0.99, 1e-3)), strict=True
    ):
        close(ours, expected, 1e-8)


def test_the_settings_above_reach_both_branches() -> None:
    x, parts = problem()
    small = reference(x, parts, lr=0.02, beta=0.9)
    large = reference(x, parts, lr=1.0, beta=0.9)
    assert (small[-1] - large[-1]).norm() > 1e-3
    estimated = reference(x, parts, lr=1.0, beta=0.9, estimate=True)
    assert (estimated[-1] - large[-1]).norm() > 1e-3


def test_without_momentum_it_is_the_polyak_step() -> None:
    x, parts = problem()
    found = run(lambda p: Momo(p, lr=0.2, beta=0.0, lower_bound=0.3), x, parts)
    for part, ours in zip(parts, found, strict=True):
        leaf = x.clone().requires_grad_()
        loss = value_at(leaf, part)
        (g,) = torch.autograd.grad(loss, leaf)
        x = x - polyak_step(loss.detach(), g.square().sum(), lower_bound=0.3, cap=0.2) * g
        close(ours, x)


def test_without_a_bound_it_is_momentum_and_adam() -> None:
    x, parts = problem()
    ours = run(lambda p: Momo(p, lr=0.01, lower_bound=-math.inf, bias_correction=True), x, parts)
    average = torch.zeros_like(x)
    for k, (part, found) in enumerate(zip(parts, ours, strict=True), 1):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(value_at(leaf, part), leaf)
        average = 0.9 * average + 0.1 * g
        x = x - 0.01 / (1 - 0.9**k) * average
        close(found, x)

    x, parts = problem()
    ours = run(lambda p: MomoAdam(p, lr=0.01, lower_bound=-math.inf), x, parts)
    leaf = nn.Parameter(x.clone())
    adam = torch.optim.Adam([leaf], lr=0.01)
    for part, found in zip(parts, ours, strict=True):
        adam.zero_grad()
        value_at(leaf, part).backward()
        adam.step()
        close(found, leaf.detach(), 1e-8)


def test_a_quadratic_in_closed_form() -> None:
    """On x^2 / 2 without momentum half the way is left after every step: exact for any large cap."""
    x = nn.Parameter(torch.tensor([8.0], dtype=DOUBLE))
    optimizer = Momo([x], lr=1e6, beta=0.0)
    for k in range(1, 6):
        optimizer.zero_grad()
        loss = x.square().sum() / 2
        loss.backward()
        optimizer.step(loss=loss)
        close(x.item(), 8 / 2**k)


@pytest.mark.parametrize("make", [Momo, MomoAdam])
def test_stacked_models_are_separate_runs(make) -> None:
    x, parts = problem()
    starts = torch.stack([x, -x, x / 2])
    rates = torch.tensor([0.01, 0.1, 1.0], dtype=DOUBLE)
    stacked = nn.Parameter(starts.clone())
    keywords = {"weight_decay": 0.01, "estimate_bound": True}
    optimizer = make([stacked], lr=rates, **keywords)
    for part in parts:
        optimizer.zero_grad()
        losses = torch.stack([value_at(row, part) for row in stacked])
        losses.sum().backward()
        assert optimizer.step(loss=losses) is losses
    for i in range(3):
        alone = nn.Parameter(starts[i].clone())
        single = make([alone], lr=float(rates[i]), **keywords)
        for part in parts:
            single.zero_grad()
            loss = value_at(alone, part)
            loss.backward()
            single.step(loss=loss)
        close(stacked[i].detach(), alone.detach())


@pytest.mark.parametrize("make", [Momo, MomoAdam])
def test_it_goes_on_from_a_saved_state_and_under_a_schedule(make) -> None:
    x, parts = problem()

    def train(parts, leaf, optimizer, schedule=None) -> None:
        for part in parts:
            optimizer.zero_grad()
            loss = value_at(leaf, part)
            loss.backward()
            optimizer.step(loss=loss)
            if schedule:
                schedule.step()

    whole = nn.Parameter(x.clone())
    train(parts, whole, make([whole], estimate_bound=True))
    first = nn.Parameter(x.clone())
    optimizer = make([first], estimate_bound=True)
    train(parts[:4], first, optimizer)
    later = nn.Parameter(first.detach().clone())
    resumed = make([later], estimate_bound=True)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(parts[4:], later, resumed)
    close(later.detach(), whole.detach())

    warm = nn.Parameter(x.clone())
    optimizer = make([warm], lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    train(parts, warm, optimizer, schedule)
    assert warm.isfinite().all() and not torch.equal(warm.detach(), x)


@pytest.mark.parametrize("make", [Momo, MomoAdam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_missing_gradients_and_the_minimum(make, dtype: torch.dtype) -> None:
    x = nn.Parameter(torch.tensor([2.0, -1.0], dtype=dtype))
    unused = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = make([x, unused], lr=0.1)
    loss = x.square().sum()
    loss.backward()
    optimizer.step(loss=loss)
    assert (
        x.dtype == dtype
        and x.isfinite().all()
        and torch.equal(unused.detach(), torch.ones(3).to(dtype))
    )
    still = nn.Parameter(torch.zeros(2, dtype=dtype))
    optimizer = make([still])
    for _ in range(2):
        optimizer.zero_grad()
        loss = still.square().sum()
        loss.backward()
        optimizer.step(loss=loss)
    assert (still == 0).all()


def test_polyak_step_at_its_ends() -> None:
    loss, norm = torch.tensor([2.0, 0.0, 5.0, 1.0]), torch.tensor([4.0, 0.0, 0.0, 0.1])
    close(polyak_step(loss, norm, cap=3.0), torch.tensor([0.5, 0.0, 3.0, 3.0]))


# --- bad input

FACTORS = torch.ones(3, 1, 2)
MODEL = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hessian_factors(torch.ones(2, 3)), "shape of hessians"),
        (lambda: hessian_factors(torch.ones(0, 2, 2)), "shape of hessians"),
        (lambda: hessian_factors(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])), "symmetric"),
        (lambda: hessian_factors(-torch.eye(2)[None]), "non-negative"),
        (lambda: coherence_matrix(torch.ones(3, 2)), "shape of factors"),
        (lambda: hessian_coherence(torch.zeros(3, 1, 2)), "not all zero"),
        (lambda: hessian_coherence(torch.ones(0, 1, 2)), "shape of factors"),
        (lambda: sgd_step_limits(FACTORS, 0), "batch_size"),
        (lambda: sgd_step_limits(FACTORS, 4), "batch_size"),
        (lambda: sgd_step_limits(torch.zeros(3, 1, 2), 1), "not all zero"),
        (lambda: mean_square_growth(FACTORS, -1.0, 1), "step_size"),
        (lambda: mean_square_growth(FACTORS, math.nan, 1), "step_size"),
        (lambda: mean_square_growth(FACTORS, 0.1, 1.5, sampling="minibatch"), "whole number"),
        (lambda: mean_square_growth(FACTORS, 0.1, 1, sampling="epoch"), "sampling"),
        (lambda: mean_square_step_limit(torch.zeros(3, 1, 2), 1), "not all zero"),
        (lambda: mean_square_step_limit(torch.eye(70)[:, None], 1), "at most 64"),
        (lambda: linear_stability_probe(FACTORS, 0.1, 1, steps=0), "steps"),
        (lambda: linear_stability_probe(FACTORS, 0.1, 1, runs=0), "runs"),
        (lambda: gauss_newton_factors(MODEL, torch.ones(2, 2), loss="hinge"), "loss"),
        (lambda: gauss_newton_factors(MODEL, torch.ones(0, 2)), "inputs"),
        (lambda: gauss_newton_factors(nn.ReLU(), torch.ones(2, 2)), "a parameter"),
        (lambda: gauss_newton_factors(nn.Conv1d(1, 1, 1), torch.ones(2, 1, 3)), "outputs"),
        (lambda: scalar_flow_end(torch.tensor(1.0)), "shape of weights"),
        (lambda: gradient_flow(half_square, nn.ReLU(), ONE), "a parameter"),
        (lambda: gradient_flow(half_square, Product([1.0]), []), "batches"),
        (lambda: gradient_flow(half_square, Product([1.0]), ONE, tolerance=0), "tolerance"),
        (lambda: gradient_flow(half_square, Product([1.0]), ONE, accuracy=0), "accuracy"),
        (lambda: gradient_flow(half_square, Product([1.0]), ONE, max_steps=0), "max_steps"),
        (lambda: ScaledMLP(0, 2, 1, 2), "inputs"),
        (lambda: ScaledMLP(2, 2, 0, 2), "depth"),
        (lambda: ScaledMLP(2, 2, 1, 2, parametrization="sp"), "parametrization"),
        (lambda: ScaledMLP(2, 2, 1, 2, residual=True), "residual"),
        (lambda: polyak_step(torch.ones(1), torch.ones(1), cap=0.0), "cap"),
        (lambda: Momo(MODEL.parameters(), lr=-1.0), "lr"),
        (lambda: Momo(MODEL.parameters(), beta=1.0), "beta"),
        (lambda: Momo(MODEL.parameters(), weight_decay=-1.0), "weight_decay"),
        (lambda: Momo(MODEL.parameters(), lower_bound=math.inf), "lower_bound"),
        (lambda: Momo([]), "empty"),
        (lambda: Momo([{"params": [MODEL.weight]}, {"params": [MODEL.bias]}]), "groups"),
        (lambda: MomoAdam(MODEL.parameters(), betas=(0.9, 1.0)), "betas"),
        (lambda: MomoAdam(MODEL.parameters(), eps=0.0), "eps"),
        (lambda: Momo(MODEL.parameters()).step(), "needs the loss"),
        (
            lambda: Momo(MODEL.parameters()).step(lambda: torch.ones(()), loss=torch.ones(())),
            "both",
        ),
        (lambda: Momo(MODEL.parameters()).step(loss=torch.ones(2, 2)), "shape of loss"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_types_and_losses() -> None:
    with pytest.raises(TypeError, match="factors"):
        coherence_matrix(torch.ones(2, 1, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="loss must be a tensor"):
        Momo(nn.Linear(1, 1).parameters()).step(lambda: None)
    with pytest.raises(TypeError, match="weights"):
        scalar_flow_end([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape of loss"):
        gradient_flow(lambda z, y: z - y, Product([1.0, 3.0]), ONE)
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ValueError, match="shape of a parameter"):
        Momo(model.parameters()).step(loss=torch.ones(5))
    with warnings.catch_warnings(), pytest.raises(FloatingPointError):
        warnings.simplefilter("ignore")
        gradient_flow(lambda z, y: (z * torch.nan).mean(), Product([1.0, 3.0]), ONE)


def test_everything_public_is_listed() -> None:
    assert stability.__all__ == sorted(stability.__all__)
