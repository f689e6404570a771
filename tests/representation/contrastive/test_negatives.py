"""Weights of positives and negatives against loops over the formulas, and their duals against solvers."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

import lossbook._pairs
from lossbook.representation.contrastive import (
    AdaptiveMultiHead,
    ISogCLR,
    SogCLR,
    adaptive_multi_head_loss,
    cacr_loss,
    cluster_batches,
    decoupled_contrastive_loss,
    joint_clusters,
    multistage_contrastive_loss,
    negative_interpolation,
    nspt_loss,
    nt_xent_loss,
    positive_extrapolation,
    relative_penalties,
    robust_global_contrastive_loss,
    robust_temperature,
    score_statistics,
)

N, D = 6, 4
Rows = list[list[float]]


def draw(*shape: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=stream, dtype=torch.float64)


def unit(x: Tensor) -> Rows:
    return [[c / math.hypot(*row) for c in row] for row in x.tolist()]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def softmax(x: list[float]) -> list[float]:
    total = math.fsum(math.exp(v) for v in x)
    return [math.exp(v) / total for v in x]


def slopes(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value.sum(), inputs, retain_graph=True)


def error(of: Callable[[], object], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        of()


# --- CACR -------------------------------------------------------------------------------------


def cacr(views: list[Rows], t_pos: float, t_neg: float, shared: Rows | None = None) -> list[float]:
    """The loss of each example, in loops."""

    def cost(a: list[float], b: list[float]) -> float:
        return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    losses = []
    for i in range(len(views[0])):
        attraction, repulsion = [], []
        for x, view in enumerate(views):
            pulls = [cost(view[i], other[i]) for k, other in enumerate(views) if k != x]
            weights = softmax([t_pos * c for c in pulls])
            attraction.append(math.fsum(w * c for w, c in zip(weights, pulls, strict=True)))
            others = (
                [[row for j, row in enumerate(o) if j != i] for k, o in enumerate(views) if k != x]
                if shared is None
                else [shared]
            )
            for rows in others:
                pushes = [cost(view[i], row) for row in rows]
                weights = softmax([-t_neg * c for c in pushes])
                repulsion.append(math.fsum(w * c for w, c in zip(weights, pushes, strict=True)))
        mean = math.fsum(attraction) / len(attraction) - math.fsum(repulsion) / len(repulsion)
        losses.append(mean)
    return losses


@pytest.mark.parametrize("views", [2, 3, 5])
@pytest.mark.parametrize("t", [(1.0, 1.0), (0.0, 0.0), (3.0, 0.5)])
def test_cacr_is_its_formula(views: int, t: tuple[float, float]) -> None:
    x = list(draw(views, N, D))
    expected = cacr([unit(view) for view in x], *t)
    actual = cacr_loss(*x, t_pos=t[0], t_neg=t[1], reduction="none")
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_cacr_with_negatives_of_its_own() -> None:
    x, queue = draw(3, N, D), draw(9, D, seed=1)
    expected = cacr([unit(view) for view in x], 2.0, 1.5, unit(queue))
    actual = cacr_loss(*x, negatives=queue, t_pos=2.0, t_neg=1.5, reduction="none")
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))
    alone = cacr_loss(*x[:, :1], negatives=queue, t_pos=2.0, t_neg=1.5)
    torch.testing.assert_close(alone, actual[0])


def test_weights_have_no_gradient_when_detached() -> None:
    """With frozen weights the force on negative m is minus its weight times the slope of the cost."""
    u, queue = draw(1, D), draw(5, D, seed=1).requires_grad_()
    value = cacr_loss(u, u, negatives=queue, t_neg=2.0, attached=False)
    (force,) = slopes(value, queue)
    costs = (torch.nn.functional.normalize(queue, dim=1) - u / u.norm()).square().sum(1)
    weights = (-2 * costs).softmax(0).detach()
    (expected,) = slopes(-(weights * costs), queue)
    torch.testing.assert_close(force, expected)
    attached = cacr_loss(u, u, negatives=queue, t_neg=2.0)
    torch.testing.assert_close(attached, value)
    assert not torch.allclose(slopes(attached, queue)[0], force)


def test_attached_weights_turn_a_force_around() -> None:
    """The pitfall: beyond the weighted mean by more than 1 / t a negative is drawn in."""
    angle = torch.tensor([0.3, 2.8], dtype=torch.float64, requires_grad=True)
    queue = torch.stack([angle.cos(), angle.sin()], 1)
    u = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for attached, sign in ((False, -1), (True, 1)):
        (slope,) = slopes(cacr_loss(u, u, negatives=queue, t_neg=1.0, attached=attached), angle)
        assert slope[0] < 0 and slope[1].sign() == sign  # a negative slope moves to larger angles
    costs = 2 - 2 * angle.detach().cos()
    mean = ((-costs).softmax(0) * costs).sum()
    assert costs[1] - mean > 1


def test_without_tilt_it_is_the_mean() -> None:
    u, v = draw(2, N, D)
    rows = torch.nn.functional.normalize(torch.stack([u, v]), dim=2)
    costs = (rows[0][:, None] - rows[1]).square().sum(2)
    others = (costs.sum() - costs.diag().sum()) / (N * (N - 1))
    torch.testing.assert_close(cacr_loss(u, v, t_neg=0.0), costs.diag().mean() - others)


def test_cacr_refuses() -> None:
    u, v = draw(2, N, D)
    error(lambda: cacr_loss(u, v, v[:-1]), ValueError, r"further_views\[0\]")
    error(lambda: cacr_loss(u, v, v.long()), TypeError, r"further_views\[0\]")
    error(lambda: cacr_loss(u[:1], v[:1]), ValueError, "number of examples")
    error(lambda: cacr_loss(u, v, negatives=draw(3, D + 1)), ValueError, "dimension of negatives")
    error(lambda: cacr_loss(u, v, negatives=draw(0, D)), ValueError, "number of negatives")


# --- Individual temperatures ------------------------------------------------------------------


def robust(u: Rows, v: Rows, tau: list[float], rho: float) -> list[float]:
    losses = []
    for i in range(len(u)):
        both = []
        for a, b in ((u[i], v[i]), (v[i], u[i])):
            h = [dot(a, view[j]) - dot(a, b) for view in (u, v) for j in range(len(u)) if j != i]
            mean = math.fsum(math.exp(x / tau[i]) for x in h) / len(h)
            both.append(tau[i] * math.log(mean) + tau[i] * rho)
        losses.append(sum(both) / 2)
    return losses


def test_robust_loss_is_its_formula() -> None:
    u, v = draw(2, N, D)
    tau = torch.linspace(0.05, 1.0, N, dtype=torch.float64)
    expected = torch.tensor(robust(unit(u), unit(v), tau.tolist(), 0.7), dtype=torch.float64)
    actual = robust_global_contrastive_loss(u, v, temperature=tau, rho=0.7, reduction="none")
    torch.testing.assert_close(actual, expected)
    single = robust_global_contrastive_loss(u, v, temperature=0.3, rho=0.7)
    expected = torch.tensor(robust(unit(u), unit(v), [0.3] * N, 0.7), dtype=torch.float64)
    torch.testing.assert_close(single, expected.mean())


def test_slope_in_the_temperature_is_the_radius_less_the_divergence() -> None:
    u, v = draw(2, N, D)
    tau = torch.linspace(0.1, 1.0, N, dtype=torch.float64, requires_grad=True)
    value = robust_global_contrastive_loss(u, v, temperature=tau, rho=0.7, reduction="none")
    (slope,) = slopes(value, tau)
    z = torch.nn.functional.normalize(torch.cat([u, v]), dim=1)
    for i in range(N):
        keep = [j for j in range(2 * N) if j % N != i]
        divergences = []
        for anchor in (z[i], z[i + N]):
            p = (z[keep] @ anchor / tau[i].detach()).softmax(0)
            divergences.append((p * (p * len(keep)).log()).sum())
        torch.testing.assert_close(slope[i], 0.7 - (divergences[0] + divergences[1]) / 2)


def test_it_is_decoupled_contrast_times_the_temperature() -> None:
    u, v = (x.requires_grad_() for x in draw(2, N, D))
    ours = robust_global_contrastive_loss(u, v, temperature=0.2, rho=0.0)
    theirs = 0.2 * (decoupled_contrastive_loss(u, v, temperature=0.2) - math.log(2 * N - 2))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rho", [0.1, 0.6, 1.5])
@pytest.mark.parametrize("floor", [1e-3, 0.3])
def test_the_dual_solves_the_primal(rho: float, floor: float) -> None:
    """Over distributions in the ball, by a solver that knows nothing of temperatures."""
    s = torch.tensor([0.9, 0.4, 0.1, -0.2, -0.8, 0.35], dtype=torch.float64)
    m, scores = len(s), s.numpy()

    def divergence(p: np.ndarray) -> float:
        return sum(x * math.log(max(m * x, 1e-300)) for x in p.tolist())

    found = optimize.minimize(
        lambda p: -(p @ scores) + floor * divergence(p),
        torch.full((m,), 1 / m).double().numpy(),
        bounds=[(0, 1)] * m,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "ineq", "fun": lambda p: rho - divergence(p)},
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    tau = robust_temperature(s, rho=rho, lowest=floor, highest=10.0)
    dual = tau * (s / tau).logsumexp(0) - tau * math.log(m) + (tau - floor) * rho
    assert found.success
    assert float(dual) == pytest.approx(-found.fun, abs=2e-6)
    weights = relative_penalties(s, temperature=float(tau))
    assert weights.tolist() == pytest.approx(found.x.tolist(), abs=2e-3)


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=12),
    st.floats(0.01, 2.0),
    st.floats(0.02, 5.0),
)
@settings(max_examples=40, deadline=None)
def test_the_robust_temperature_is_the_best(scores: list[float], rho: float, tau: float) -> None:
    s = torch.tensor(scores, dtype=torch.float64)

    def dual(t: Tensor) -> Tensor:
        return t * ((s / t).logsumexp(0) - math.log(len(s)) + rho)

    best = robust_temperature(s, rho=rho, lowest=0.02, highest=5.0)
    assert dual(best) <= dual(torch.tensor(tau, dtype=torch.float64)) + 1e-9


def test_robust_temperatures_move_and_stretch_with_similarities() -> None:
    s = draw(3, 200, seed=4).sort(1).values
    tau = robust_temperature(s, rho=0.05, lowest=1e-3, highest=100.0)
    torch.testing.assert_close(
        robust_temperature(3 * s - 7, rho=0.05, lowest=1e-3, highest=100.0), 3 * tau
    )
    normal = s.std(1) / math.sqrt(2 * 0.05)
    torch.testing.assert_close(tau, normal, rtol=0.05, atol=0)
    flat = torch.tensor([[0.3, 0.3], [1.0, -1.0]])
    assert robust_temperature(flat, rho=1.0).tolist() == pytest.approx([0.05, 0.05])


def test_robust_functions_refuse() -> None:
    u, v = draw(2, N, D)
    loss = robust_global_contrastive_loss
    error(lambda: loss(u, v, temperature=torch.ones(N - 1)), ValueError, "temperature")
    error(lambda: loss(u, v, temperature=torch.zeros(N)), ValueError, "temperature")
    error(lambda: loss(u, v, temperature=torch.ones(N).long()), TypeError, "temperature")
    error(lambda: loss(u[:1], v[:1]), ValueError, "number of examples")
    error(lambda: robust_temperature(u, rho=-1.0), ValueError, "rho")
    error(lambda: robust_temperature(u, rho=1.0, lowest=0.0), ValueError, "lowest")
    error(lambda: robust_temperature(u, rho=1.0, lowest=2.0), ValueError, "highest")
    error(lambda: robust_temperature(torch.tensor(1.0), rho=1.0), ValueError, "similarity")


# --- Moving averages --------------------------------------------------------------------------


def to_negatives(u: Rows, v: Rows, i: int) -> list[list[float]]:
    """For both views of example i its similarities to both views of the others."""
    others = [view[j] for view in (u, v) for j in range(len(u)) if j != i]
    return [[dot(anchor, other) for other in others] for anchor in (u[i], v[i])]


def sogclr(
    u: Rows, v: Rows, past: list[float], tau: float, gamma: float
) -> tuple[list[float], list[float]]:
    """Losses and new averages, in loops."""
    losses, averages = [], []
    for i in range(len(u)):
        moved = []
        for s in to_negatives(u, v, i):
            g = math.fsum(math.exp(x / tau) for x in s) / len(s)
            moved.append(g if past[i] == 0 else (1 - gamma) * past[i] + gamma * g)
        averages.append(sum(moved) / 2)
        losses.append(sum(tau * math.log(m) for m in moved) / 2 - dot(u[i], v[i]))
    return losses, averages


def test_sogclr_follows_its_recursion() -> None:
    loss = SogCLR(10, temperature=0.3, gamma=0.6).double()
    index, past = torch.tensor([3, 0, 9, 4, 5, 6]), [0.0] * N
    for step in range(3):
        u, v = draw(2, N, D, seed=step)
        expected, past = sogclr(unit(u), unit(v), past, 0.3, 0.6)
        assert loss(u, v, index).item() == pytest.approx(sum(expected) / N)
        assert loss.log_average[index].exp().tolist() == pytest.approx(past)
    assert loss.log_average[torch.tensor([1, 2, 7, 8])].eq(-math.inf).all()


def test_the_gradient_is_that_of_the_batch_mean_divided_by_the_average() -> None:
    loss = SogCLR(N, temperature=0.3, gamma=0.6).double()
    index = torch.arange(N)
    loss(*draw(2, N, D, seed=1), index)
    past = loss.log_average.exp().tolist()
    u, v = (x.requires_grad_() for x in draw(2, N, D))
    found = slopes(loss(u, v, index), u, v)
    z, total = torch.nn.functional.normalize(torch.cat([u, v]), dim=1), torch.tensor(0.0).double()
    for i in range(N):
        keep = [j for j in range(2 * N) if j % N != i]
        for a, b in ((i, i + N), (i + N, i)):
            s = z[keep] @ z[a]
            average = 0.4 * past[i] + 0.6 * (s / 0.3).exp().mean().item()
            weights = ((s / 0.3).exp() / average).detach()
            total = total + ((weights * s).mean() - z[a] @ z[b]) / (2 * N)
    for ours, expected in zip(found, slopes(total, u, v), strict=True):
        torch.testing.assert_close(ours, expected)


def test_with_gamma_one_it_is_the_loss_of_the_batch() -> None:
    u, v = (x.requires_grad_() for x in draw(2, N, D))
    loss = SogCLR(N, temperature=0.3, gamma=1.0).double()
    loss(u.flip(0), v, torch.arange(N))
    value = loss(u, v, torch.arange(N))
    expected = robust_global_contrastive_loss(u, v, temperature=0.3, rho=0.0)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slopes(value, u, v), slopes(expected, u, v))


def test_evaluation_stores_nothing() -> None:
    u, v = draw(2, N, D)
    for loss in (SogCLR(N), ISogCLR(N)):
        before = {name: x.clone() for name, x in loss.state_dict().items()}
        loss.eval()(u, v, torch.arange(N))
        assert all(torch.equal(x, before[name]) for name, x in loss.state_dict().items())


def isogclr_step(
    u: Rows, v: Rows, state: dict[str, list[float]], rho: float, eta: float, beta: float
) -> dict[str, list[float]]:
    """The released update, in loops: mean of both views, clipped slope, momentum, clipped step."""
    new: dict[str, list[float]] = {"u": [], "tau": [], "m": []}
    for i in range(len(u)):
        tau, moved, found = state["tau"][i], [], []
        for s in to_negatives(u, v, i):
            e = [math.exp(x / tau) for x in s]
            g = math.fsum(e) / len(e)
            now = g if state["u"][i] == 0 else 0.2 * state["u"][i] + 0.8 * g
            weighted = math.fsum(x * y for x, y in zip(e, s, strict=True)) / len(e) / now
            moved.append(now)
            found.append(math.log(now) + rho - weighted / tau)
        slope = min(3.0, max(-3.0, sum(found) / 2))
        m = (1 - beta) * state["m"][i] + beta * slope
        new["u"].append(sum(moved) / 2)
        new["m"].append(m)
        new["tau"].append(min(1.0, max(0.05, tau - eta * m)))
    return new


def test_isogclr_follows_the_released_update() -> None:
    loss = ISogCLR(N, rho=0.4, step_size=0.05, temperature=0.2).double()
    state = {"u": [0.0] * N, "tau": loss.temperature.tolist(), "m": [0.0] * N}
    for step in range(4):
        u, v = draw(2, N, D, seed=step)
        loss(u, v, torch.arange(N))
        state = isogclr_step(unit(u), unit(v), state, 0.4, 0.05, 0.9)
        assert loss.log_average.exp().tolist() == pytest.approx(state["u"])
        assert loss.velocity.tolist() == pytest.approx(state["m"])
        assert loss.temperature.tolist() == pytest.approx(state["tau"])
    assert loss.temperature.std() > 1e-3


def test_individual_temperatures_find_the_robust_ones() -> None:
    """On a frozen representation the steps end where the dual has its minimum."""
    u, v = draw(2, N, D)
    loss = ISogCLR(N, rho=0.4, step_size=0.02, gamma=1.0, temperature=0.3).double()
    for _ in range(800):
        loss(u, v, torch.arange(N))
    tau = loss.temperature.clone().requires_grad_()
    value = robust_global_contrastive_loss(u, v, temperature=tau, rho=0.4)
    (slope,) = slopes(value, tau)
    inside = (tau > 0.0501) & (tau < 0.999)
    assert inside.sum() >= 3 and slope[inside].abs().max() < 1e-6


def test_averages_survive_small_temperatures() -> None:
    u, v = (x.float().requires_grad_() for x in draw(2, N, D))
    loss = SogCLR(N, temperature=0.005)
    for _ in range(2):
        value = loss(u, v, torch.arange(N))
    assert value.isfinite() and all(g.isfinite().all() for g in slopes(value, u, v))


@pytest.mark.parametrize("make", [SogCLR, ISogCLR])
def test_moving_averages_refuse(make: type[SogCLR]) -> None:
    u, v = draw(2, N, D)
    loss = make(N)
    error(lambda: loss(u, v, torch.arange(1, N + 1)), ValueError, "index must be from 0 to 5")
    error(lambda: loss(u, v, torch.arange(-1, N - 1)), ValueError, "index")
    error(lambda: loss(u, v, torch.arange(N - 1)), ValueError, "index")
    error(lambda: loss(u, v, torch.arange(N).float()), TypeError, "index")
    error(lambda: loss(u[:1], v[:1], torch.arange(1)), ValueError, "number of examples")
    error(lambda: make(0), ValueError, "size")
    error(lambda: make(N, gamma=0.0), ValueError, "gamma")
    error(lambda: make(N, temperature=0.0), ValueError, "temperature")


def test_isogclr_refuses() -> None:
    for options in ({"rho": -1.0}, {"lowest": 0.0}, {"highest": 0.01}, {"step_size": 0.0},
                    {"momentum": 1.5}, {"clip": 0.0}):  # fmt: skip
        error(lambda options=options: ISogCLR(N, **options), ValueError, next(iter(options)))


def test_state_moves_to_a_device_and_reads_no_value_there() -> None:
    u, v = (x.to("meta") for x in draw(2, N, D))
    for loss in (SogCLR(N), ISogCLR(N)):
        assert set(dict(loss.named_buffers())) >= {"log_average"}
        assert loss.to("meta")(u, v, torch.arange(N, device="meta")).is_meta


# --- Heads ------------------------------------------------------------------------------------


def adaptive(views: list[Tensor], traits: list[Tensor], beta: float) -> list[float]:
    """(N, C, D) views and (N, C, E) traits, in loops, with temperatures from 0.1 to 1.5."""
    n, heads, d = views[0].shape
    losses = [0.0] * n
    for c in range(heads):
        z = unit(torch.cat([view[:, c] for view in views]))
        r = torch.cat([trait[:, c] for trait in traits]).tolist()

        def exponent(i: int, j: int, z: Rows = z, r: Rows = r) -> float:
            tau = 0.1 + 1.4 / (1 + math.exp(dot(r[i], r[j])))
            return dot(z[i], z[j]) / tau - beta * (d / 2 * math.log(tau) + 1 / tau)

        for i in range(2 * n):
            total = math.fsum(math.exp(exponent(i, j)) for j in range(2 * n) if j != i)
            losses[i % n] += (math.log(total) - exponent(i, (i + n) % (2 * n))) / 2
    return losses


@pytest.mark.parametrize("beta", [0.0, 0.01, 1.0])
def test_adaptive_heads_are_their_formula(beta: float) -> None:
    views, traits = list(draw(2, N, 3, D)), list(draw(2, N, 3, 2, seed=1))
    expected = torch.tensor(adaptive(views, traits, beta), dtype=torch.float64)
    options = {"beta": beta, "lowest": 0.1, "highest": 1.5}
    actual = adaptive_multi_head_loss(*views, *traits, **options, reduction="none")
    torch.testing.assert_close(actual, expected)
    one = [x[:, 0] for x in (*views, *traits)]
    alone = adaptive_multi_head_loss(*one, **options)
    heads = [x[:, :1] for x in (*views, *traits)]
    torch.testing.assert_close(alone, adaptive_multi_head_loss(*heads, **options))


def test_with_equal_bounds_it_is_nt_xent_of_each_head() -> None:
    views, traits = draw(2, N, 3, D), draw(2, N, 3, 2, seed=1)
    value = adaptive_multi_head_loss(*views, *traits, lowest=0.4, highest=0.4)
    each = [nt_xent_loss(*views[:, :, c], temperature=0.4) for c in range(3)]
    torch.testing.assert_close(value, torch.stack(each).sum())


def test_the_exponential_is_a_gaussian_density() -> None:
    """With beta = 1, exp(a) is, up to a constant, N(v; u, tau I)."""
    u, v = torch.nn.functional.normalize(draw(2, D), dim=1)
    found = []
    for tau in (0.2, 0.9):
        normal = torch.distributions.MultivariateNormal(u, tau * torch.eye(D).double())
        ours = u @ v / tau - D / 2 * math.log(tau) - 1 / tau
        found.append(normal.log_prob(v) - ours)
    torch.testing.assert_close(found[0], found[1])


def test_the_module_is_the_function_with_its_traits() -> None:
    torch.manual_seed(0)
    module = AdaptiveMultiHead(
        D, hidden=7, beta=0.1, lowest=0.2, highest=0.9, gather=False
    ).double()
    views = draw(2, N, 3, D)
    traits = [module.traits(torch.nn.functional.normalize(view, dim=2)) for view in views]
    expected = adaptive_multi_head_loss(*views, *traits, beta=0.1, lowest=0.2, highest=0.9)
    value = module(*views)
    torch.testing.assert_close(value, expected)
    tau = module.temperature(*views)
    assert tau.shape == (N, 3) and 0.2 < tau.min() < tau.max() < 0.9
    assert all(g.abs().sum() > 0 for g in slopes(value, *module.parameters()))


def test_heads_refuse() -> None:
    x = draw(N, 3, D)
    loss = adaptive_multi_head_loss
    error(lambda: loss(x, x[:-1], x, x), ValueError, "positive")
    error(lambda: loss(x, x, x[:, 0], x[:, 0]), ValueError, "anchor_traits")
    error(lambda: loss(x, x, x, x[..., :2]), ValueError, "positive_traits")
    error(lambda: loss(x, x, x, x, lowest=2.0, highest=1.0), ValueError, "highest")
    for options in ({"dimension": 0}, {"hidden": 0}, {"beta": -1.0}, {"lowest": 0.0},
                    {"highest": 1e-9}):  # fmt: skip
        settings_of = {"dimension": D} | options
        error(lambda s=settings_of: AdaptiveMultiHead(**s), ValueError, next(iter(options)))


# --- Feature transformations ------------------------------------------------------------------


@given(st.floats(1.0, 2.0), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_extrapolation_lowers_scores_as_the_formula_says(lam: float, seed: int) -> None:
    u, v = torch.nn.functional.normalize(draw(2, N, D, seed=seed), dim=2)
    s = (u * v).sum(1)
    first, second = positive_extrapolation(u, v, weight=lam)
    moved = (first * second).sum(1)
    torch.testing.assert_close(moved, s - 2 * lam * (lam - 1) * (1 - s))
    assert (moved <= s + 1e-12).all()
    excess = 2 * lam * (lam - 1) * (1 - s)  # what the pitfall says of normalized views
    cosine = torch.cosine_similarity(first, second)
    torch.testing.assert_close(cosine, (s - excess) / (1 + excess))
    torch.testing.assert_close(first + second, u + v)


def test_weights_come_from_the_beta_distribution() -> None:
    stream = torch.Generator().manual_seed(0)
    u, v = torch.eye(2, dtype=torch.float64)
    drawn = torch.stack(
        [positive_extrapolation(u, v, alpha=2.0, generator=stream)[0][0] for _ in range(4000)]
    )
    assert drawn.min() > 1 and drawn.max() < 2
    assert drawn.mean().item() == pytest.approx(1.5, abs=0.02)
    assert drawn.var().item() == pytest.approx(1 / 20, rel=0.08)  # 1 / (4 (2 alpha + 1))
    again = positive_extrapolation(u, v, generator=torch.Generator().manual_seed(3))
    same = positive_extrapolation(u, v, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(again, same)


def test_interpolation_mixes_negatives() -> None:
    queue, order = draw(5, D), torch.tensor([1, 0, 3, 4, 2])
    mixed = negative_interpolation(queue, weight=0.7, order=order)
    for j in range(5):
        torch.testing.assert_close(mixed[j], 0.7 * queue[j] + 0.3 * queue[order[j]])
    stream = torch.Generator().manual_seed(0)
    drawn = negative_interpolation(queue, generator=stream)
    torch.testing.assert_close(drawn.mean(0), queue.mean(0))  # a permutation keeps the mean
    assert not torch.allclose(drawn, queue)
    assert negative_interpolation(queue.half(), generator=stream).dtype == torch.float16


def test_transformations_refuse() -> None:
    u, v = draw(2, N, D)
    error(lambda: positive_extrapolation(u, v[:-1]), ValueError, "positive")
    error(lambda: positive_extrapolation(u, v, alpha=0.0), ValueError, "alpha")
    error(lambda: negative_interpolation(u, alpha=-1.0), ValueError, "alpha")
    error(lambda: negative_interpolation(u, order=torch.arange(2)), ValueError, "order")
    error(lambda: negative_interpolation(u, order=torch.ones(N)), TypeError, "order")


@pytest.mark.parametrize("queue", [True, False])
def test_score_statistics_are_those_of_all_pairs(queue: bool) -> None:
    u, v, extra = draw(N, D), draw(N, D, seed=1), draw(9, D, seed=2)
    keys = unit(extra if queue else v)
    scores = [
        dot(a, b) for i, a in enumerate(unit(u)) for j, b in enumerate(keys) if queue or i != j
    ]
    positive = [dot(a, b) for a, b in zip(unit(u), unit(v), strict=True)]
    found = score_statistics(u, v, extra if queue else None)
    for values, mean, variance in ((positive, *found[:2]), (scores, *found[2:])):
        x = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(mean, x.mean())
        torch.testing.assert_close(variance, x.var(correction=0))
    error(lambda: score_statistics(u[:1], v[:1]), ValueError, "negative pairs")
    error(lambda: score_statistics(u, v, draw(3, D + 1)), ValueError, "dimension of negatives")


# --- Stages -----------------------------------------------------------------------------------


def multistage(u: Rows, v: Rows, labels: list[int], tau: float) -> list[float]:
    losses = []
    for i in range(len(u)):
        both, others = [], [j for j in range(len(u)) if j != i and labels[j] == labels[i]]
        for a, b in ((u[i], v[i]), (v[i], u[i])):
            plus = math.exp(dot(a, b) / tau)
            rest = math.fsum(math.exp(dot(a, w[j]) / tau) for w in (u, v) for j in others)
            both.append(-math.log(plus / (plus + rest)))
        losses.append(sum(both) / 2)
    return losses


def test_multistage_is_its_formula() -> None:
    u, v = draw(2, N, D)
    labels = [4, 7, 4, 4, 7, 9]
    expected = torch.tensor(multistage(unit(u), unit(v), labels, 0.3), dtype=torch.float64)
    actual = multistage_contrastive_loss(
        u, v, torch.tensor(labels), temperature=0.3, reduction="none"
    )
    torch.testing.assert_close(actual, expected)
    assert actual[5] == 0  # alone
    mean = multistage_contrastive_loss(u, v, torch.tensor(labels), temperature=0.3)
    torch.testing.assert_close(mean, expected[:5].mean())


def test_one_cluster_is_nt_xent_and_none_is_nothing() -> None:
    u, v = (x.requires_grad_() for x in draw(2, N, D))
    one = multistage_contrastive_loss(u, v, torch.zeros(N, dtype=torch.int64), temperature=0.3)
    torch.testing.assert_close(one, nt_xent_loss(u, v, temperature=0.3))
    alone = multistage_contrastive_loss(u, v, torch.arange(N), temperature=0.3)
    assert alone == 0 and all((g == 0).all() for g in slopes(alone, u, v))


def test_a_batch_of_one_cluster_is_the_mask() -> None:
    """Masking a batch of several clusters weighs them as their own batches, by size."""
    u, v = draw(2, N, D)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    parts = [nt_xent_loss(u[labels == k], v[labels == k], temperature=0.3) for k in (0, 1)]
    expected = (2 * parts[0] + 4 * parts[1]) / 6
    torch.testing.assert_close(multistage_contrastive_loss(u, v, labels, temperature=0.3), expected)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2), st.integers(0, 9)), min_size=1,
                max_size=12))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_joint_clusters_agree_where_all_stages_do(rows: list[tuple[int, int, int]]) -> None:
    joint = joint_clusters(torch.tensor(rows)).tolist()
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert (joint[i] == joint[j]) == (a == b)


def test_cluster_batches_keep_to_clusters() -> None:
    clusters = torch.arange(50) % 3  # 17, 17 and 16
    stream = torch.Generator().manual_seed(0)
    batches = list(cluster_batches(clusters, batch_size=4, generator=stream))
    assert len(batches) == 12
    assert all(len(batch) == 4 and len(clusters[batch].unique()) == 1 for batch in batches)
    assert len(torch.cat(batches).unique()) == 48
    names = [int(clusters[batch[0]]) for batch in batches]
    assert names != sorted(names)


def test_stages_refuse() -> None:
    u, v = draw(2, N, D)
    error(lambda: joint_clusters(torch.zeros(N, dtype=torch.int64)), ValueError, "assignments")
    error(lambda: joint_clusters(torch.zeros(N, 1)), TypeError, "assignments")
    error(lambda: list(cluster_batches(torch.zeros(N), batch_size=2)), TypeError, "clusters")
    zeros = torch.zeros(N, dtype=torch.int64)
    error(lambda: list(cluster_batches(zeros, batch_size=0)), ValueError, "batch_size")
    error(lambda: multistage_contrastive_loss(u, v[1:], zeros), ValueError, "positive")


# --- Rehearsal --------------------------------------------------------------------------------


def nspt(a: Rows, t: Rows, labels: list[int], tau: float) -> list[float]:
    losses = []
    for i in range(len(a)):
        same = [j for j in range(len(a)) if labels[j] == labels[i]]
        other = [j for j in range(len(a)) if labels[j] != labels[i]]
        total = math.fsum(math.exp(dot(a[i], t[j]) / tau) for j in same)
        total += math.fsum(math.exp(dot(a[i], a[j]) / tau) for j in other)
        logs = [dot(a[i], t[p]) / tau - math.log(total) for p in same]
        losses.append(-math.fsum(logs) / len(same))
    return losses


def test_nspt_is_its_formula() -> None:
    a, t = (x.requires_grad_() for x in draw(2, N, D))
    labels, old = torch.tensor([0, 1, 0, 2, 1, 3]), torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    expected = torch.tensor(nspt(unit(a), unit(t), labels.tolist(), 0.3), dtype=torch.float64)
    options = {"teacher": t, "temperature": 0.3}
    torch.testing.assert_close(nspt_loss(a, labels, **options, reduction="none"), expected)
    rehearsed = nspt_loss(a, labels, **options, rehearsal=old)
    torch.testing.assert_close(rehearsed, expected[:5].mean())
    first, second = torch.autograd.grad(rehearsed, (a, t), allow_unused=True)
    assert second is None  # the teacher is frozen
    assert first[5].abs().sum() > 0  # a new example is pushed, though it is no anchor
    nothing = nspt_loss(a, labels, **options, rehearsal=torch.zeros(N, dtype=torch.bool))
    assert nothing == 0 and (slopes(nothing, a)[0] == 0).all()


def test_nspt_refuses() -> None:
    a, labels = draw(N, D), torch.arange(N)
    error(lambda: nspt_loss(a, labels, teacher=a[1:]), ValueError, "teacher")
    error(lambda: nspt_loss(a, labels, teacher=a.long()), TypeError, "teacher")
    error(lambda: nspt_loss(a, labels, teacher=a, rehearsal=labels), TypeError, "rehearsal")
    wrong = torch.ones(2, dtype=torch.bool)
    error(lambda: nspt_loss(a, labels, teacher=a, rehearsal=wrong), ValueError, "rehearsal")


# --- Blocks and processes ---------------------------------------------------------------------

LABELS = torch.arange(N) % 2
BLOCKED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cacr": lambda u, v: cacr_loss(u, v, (u + v).flip(1)),
    "robust": lambda u, v: robust_global_contrastive_loss(u, v, temperature=0.3),
    "heads": lambda u, v: adaptive_multi_head_loss(u, v, v, u),
    "stages": lambda u, v: multistage_contrastive_loss(u, v, LABELS),
    "nspt": lambda u, v: nspt_loss(u, LABELS, teacher=v),
    "averages": lambda u, v: SogCLR(N).double()(u, v, torch.arange(N)),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    u, v = (x.requires_grad_() for x in draw(2, N, D))
    whole = BLOCKED[name](u, v)
    expected = torch.autograd.grad(whole, u)[0]
    taken = []
    monkeypatch.setattr(lossbook._pairs, "_SMALL", 0)

    def two_rows(*_: object) -> int:
        taken.append(2)
        return 2

    monkeypatch.setattr(lossbook._pairs, "rows_of_a_block", two_rows)
    blocks = BLOCKED[name](u, v)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(torch.autograd.grad(blocks, u)[0], expected)
    assert taken  # the blocks were used


SHARED_STATE = """
import torch, torch.distributed as dist
from lossbook.representation import ISogCLR
dist.init_process_group("gloo")
rank = dist.get_rank()
draw = lambda seed: torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed)).double()
index, own = torch.tensor([4, 0, 3, 1, 2]), slice(0, 2) if rank == 0 else slice(2, 5)
one = ISogCLR(6, rho=0.3, step_size=0.05).double()
many = ISogCLR(6, rho=0.3, step_size=0.05, gather=True).double()
for step in range(3):
    u, v = draw(step)
    value = many(u[own], v[own], index[own])
    torch.testing.assert_close(value, one(u, v, index))
for name, state in one.state_dict().items():
    torch.testing.assert_close(many.state_dict()[name], state)
dist.barrier()
dist.destroy_process_group()
"""


def test_processes_share_their_averages(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED_STATE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
