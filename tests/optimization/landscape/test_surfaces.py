"""Surfaces against dense loops and known quadratics, matchings against all permutations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

from lossbook.lab.models import residual_mlp, resnet
from lossbook.lab.training import mlp
from lossbook.optimization.landscape.surfaces import (
    activation_matching,
    curve_coefficients,
    curve_point,
    filter_normalize,
    filter_normalized_direction,
    interpolate,
    invert,
    learn_landscape,
    loss_along,
    loss_barrier,
    loss_line,
    loss_surface,
    loss_values,
    matching_score,
    nonconvexity,
    permute,
    random_direction,
    snapshot,
    straight_through_matching,
    train_curve,
    trajectory_plane,
    weight_matching,
)

F64 = torch.float64


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def net(*widths, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(*widths)().double()


def data(n=12, inputs=3, classes=4, seed=0):
    x = torch.randn(n, inputs, dtype=F64, generator=stream(seed))
    return x, torch.randint(classes, (n,), generator=stream(seed + 1))


def in_batches(x, y, sizes=(7, 5)):
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def by_hand(loss, model, x, y, point):
    """The loss of a deep copy whose parameters are set one by one."""
    with torch.no_grad():
        return float(loss(functional_call(model, dict(point), (x,)), y))


def flat(point):
    return torch.cat([p.flatten() for p in point.values()])


# --- directions


def test_snapshot_is_a_copy():
    model = net(3, 5, 4)
    point = snapshot(model)
    assert list(point) == [name for name, _ in model.named_parameters()]
    with torch.no_grad():
        model[1].weight.zero_()
    assert point["1.weight"].abs().sum() > 0 and not point["1.weight"].requires_grad


def test_random_directions_are_standard_normal_and_seeded():
    point = snapshot(net(60, 70, 50))
    d = random_direction(point, stream())
    assert {n: t.shape for n, t in d.items()} == {n: t.shape for n, t in point.items()}
    assert d["1.weight"].dtype == F64
    values = flat(d)
    assert abs(values.mean()) < 4 / len(values) ** 0.5
    assert abs(values.var() - 1) < 4 * (2 / len(values)) ** 0.5
    again = random_direction(point, stream())
    assert all(torch.equal(d[n], again[n]) for n in d)
    assert not torch.equal(d["1.weight"], random_direction(point, stream(1))["1.weight"])


def test_filters_get_the_norm_of_the_weights_filters():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4)
        ).double()
    theta = snapshot(model)
    theta["0.weight"][1] = 0.0
    raw = random_direction(theta, stream())
    d = filter_normalize(raw, theta)
    for name in ("0.weight", "3.weight"):
        for j, weight in enumerate(theta[name]):
            length = math.sqrt(sum(v * v for v in weight.flatten().tolist()))
            raw_length = math.sqrt(sum(v * v for v in raw[name][j].flatten().tolist()))
            torch.testing.assert_close(d[name][j], raw[name][j] * length / raw_length)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert (d[name] == 0).all() and d[name].shape == theta[name].shape
    assert (d["0.weight"][1] == 0).all()
    direct = filter_normalized_direction(theta, stream())
    assert all(torch.equal(direct[n], d[n]) for n in d)


def test_a_zero_direction_stays_zero():
    theta = {"w": torch.ones(2, 3)}
    assert (filter_normalize({"w": torch.zeros(2, 3)}, theta)["w"] == 0).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 20), st.integers(0, 100))
def test_a_filter_normalized_slice_does_not_see_rescaling(scale, seed):
    """Rows times c, the next layer over c: same function, same slice, but another raw slice."""
    model, (x, y) = net(3, 6, 4, seed=seed), data(seed=seed)
    with torch.no_grad():
        model[1].bias.zero_()  # biases have no direction, so the scaled rows must have none
    theta = snapshot(model)
    scaled = dict(theta)
    scaled["1.weight"] = theta["1.weight"] * scale
    scaled["3.weight"] = theta["3.weight"] / scale
    raw = random_direction(theta, stream(seed))
    steps = torch.linspace(-1, 1, 5, dtype=F64)
    lines = [
        loss_line(cross_entropy, model, [(x, y)], filter_normalize(raw, p), steps, origin=p)
        for p in (theta, scaled)
    ]
    torch.testing.assert_close(lines[0], lines[1])
    if not 0.7 < scale < 1.4:
        raws = [
            loss_line(cross_entropy, model, [(x, y)], raw, steps, origin=p) for p in (theta, scaled)
        ]
        assert (raws[0] - raws[1]).abs().max() > 1e-3


def test_trajectory_plane_is_numpys_pca():
    points = [{"a": torch.randn(2, 3, generator=stream(s), dtype=F64) * (s + 1),
               "b": torch.randn(4, generator=stream(s + 50), dtype=F64)} for s in range(6)]  # fmt: skip
    plane = trajectory_plane(points)
    rows = np.stack([flat(p).numpy() - flat(points[-1]).numpy() for p in points])
    covariance = np.cov(rows.T)
    values, vectors = np.linalg.eigh(covariance)
    for k in range(2):
        axis = vectors[:, -1 - k]
        axis = axis * np.sign(rows[0] @ axis)
        ours = flat(plane.directions[k]).numpy()
        np.testing.assert_allclose(ours, axis, atol=1e-9)
        np.testing.assert_allclose(plane.coordinates[:, k].numpy(), rows @ axis, atol=1e-9)
        np.testing.assert_allclose(float(plane.explained[k]), values[-1 - k] / values.sum())
    assert (plane.coordinates[-1] == 0).all() and (plane.coordinates[0] >= 0).all()


def test_directions_point_to_where_the_way_begins():
    way = [{"w": torch.tensor(w, dtype=F64)} for w in ([1.0, 0.1], [-2.0, -0.5], [3.0, -1], [0, 0])]
    assert (trajectory_plane(way).coordinates[0] > 0).all()
    back = [{"w": -point["w"]} for point in way]
    assert (trajectory_plane(back).coordinates[0] > 0).all()


def test_a_straight_way_lies_on_one_axis():
    a, b = ({"w": torch.randn(3, 3, dtype=F64, generator=stream(s))} for s in (0, 1))
    plane = trajectory_plane([interpolate(a, b, t) for t in (0, 0.2, 0.7, 1)])
    torch.testing.assert_close(plane.explained, torch.tensor([1.0, 0.0], dtype=F64))
    length = (a["w"] - b["w"]).norm()
    expected = length * torch.tensor([1, 0.8, 0.3, 0], dtype=F64)
    torch.testing.assert_close(plane.coordinates[:, 0], expected)


# --- values


def test_values_are_a_dense_loop():
    model, (x, y) = net(3, 6, 5, 4), data()
    basis = [snapshot(net(3, 6, 5, 4, seed=s)) for s in range(3)]
    coefficients = torch.randn(11, 3, dtype=F64, generator=stream())
    expected = []
    for c in coefficients.tolist():
        point = {n: sum(ci * v[n] for ci, v in zip(c, basis, strict=True)) for n in basis[0]}
        expected.append(by_hand(cross_entropy, model, x, y, point))
    before = snapshot(model)
    for chunk in (1, 4, 50):
        for batches in ([(x, y)], in_batches(x, y)):
            values = loss_values(cross_entropy, model, batches, basis, coefficients, chunk=chunk)
            torch.testing.assert_close(values, torch.tensor(expected, dtype=F64))
    assert not values.requires_grad
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


def test_a_surface_is_its_grid_and_a_line_its_edge():
    model, (x, y) = net(3, 6, 4), data()
    theta = snapshot(model)
    first, second = (filter_normalized_direction(theta, stream(s)) for s in (0, 1))
    a, b = torch.linspace(-1, 1, 4, dtype=F64), torch.linspace(-0.5, 2, 3, dtype=F64)
    grid = loss_surface(cross_entropy, model, in_batches(x, y), first, second, a, b)
    assert grid.shape == (4, 3)
    for i, j in itertools.product(range(4), range(3)):
        point = {n: theta[n] + a[i] * first[n] + b[j] * second[n] for n in theta}
        assert float(grid[i, j]) == pytest.approx(by_hand(cross_entropy, model, x, y, point))
    origin = {n: theta[n] + b[2] * second[n] for n in theta}
    line = loss_line(cross_entropy, model, [(x, y)], first, a, origin=origin)
    torch.testing.assert_close(line, grid[:, 2])
    zero = torch.zeros(1, dtype=F64)
    middle = loss_line(cross_entropy, model, [(x, y)], first, zero)
    assert float(middle) == pytest.approx(by_hand(cross_entropy, model, x, y, theta))


def test_a_linear_model_with_the_square_loss_has_a_known_paraboloid():
    model = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(9, 3, dtype=F64, generator=stream())
    target = torch.randn(9, 1, dtype=F64, generator=stream(1))
    w, d, e = (torch.randn(1, 3, dtype=F64, generator=stream(s)) for s in (2, 3, 4))
    grid = loss_surface(
        mse_loss, model, [(x, target)], {"weight": d}, {"weight": e},
        torch.tensor([-1.0, 0.5], dtype=F64), torch.tensor([0.0, 2.0, 3.0], dtype=F64),
        origin={"weight": w},
    )  # fmt: skip
    hessian, residual = 2 * x.T @ x / 9, x @ w.T - target
    slope = 2 * x.T @ residual / 9
    for i, a in enumerate((-1.0, 0.5)):
        for j, b in enumerate((0.0, 2.0, 3.0)):
            step = (a * d + b * e).T
            expected = residual.square().mean() + slope.T @ step + step.T @ hessian @ step / 2
            torch.testing.assert_close(grid[i, j], expected.squeeze())


def test_float32_and_gradients_are_left_alone():
    model = net(3, 5, 4).float()
    x, y = data()
    values = loss_line(
        cross_entropy, model, [(x.float(), y)], random_direction(snapshot(model)),
        torch.linspace(0, 1, 3),
    )  # fmt: skip
    assert values.dtype == torch.float32
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("statistics", ["stored", "batch"])
def test_batch_norm_uses_what_it_is_told_and_keeps_its_statistics(statistics):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = resnet(1, 4, width=2, norm="batch")().double()
    x, y = data(20, 64)
    model.train()
    model(3 * x + 1)  # statistics of other data
    model[2].eval()  # a mixture of modes must come back as it was
    modes = [m.training for m in model.modules()]
    state = {n: b.clone() for n, b in model.named_buffers()}
    theta, steps = snapshot(model), torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    d = filter_normalized_direction(theta, stream())
    batches = in_batches(x, y, (12, 8))
    values = loss_line(cross_entropy, model, batches, d, steps, statistics=statistics)
    assert all(torch.equal(state[n], b) for n, b in model.named_buffers())
    assert modes == [m.training for m in model.modules()]
    for value, a in zip(values, steps, strict=True):
        with torch.random.fork_rng():
            other = resnet(1, 4, width=2, norm="batch")().double()
        other.load_state_dict({**{n: theta[n] + a * d[n] for n in theta}, **state})
        other.train(statistics == "batch")
        expected = 0.0
        for inputs, targets in batches:
            other.load_state_dict(state, strict=False)
            expected += len(inputs) / 20 * float(cross_entropy(other(inputs), targets).detach())
        assert float(value) == pytest.approx(expected)


def test_dropout_is_off():
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 4)).double().train()
    x, y = data()
    d, steps = random_direction(snapshot(model), stream()), torch.zeros(2, dtype=F64)
    values = loss_line(cross_entropy, model, [(x, y)], d, steps)
    assert values[0] == values[1] and model.training


# --- shapes of curves


def test_nonconvexity_by_hand():
    assert nonconvexity(torch.tensor([0.0, 1, 2, 3])) == 0
    assert nonconvexity(torch.tensor([4.0, 1, 0, 1, 4])) == 0
    assert nonconvexity(-torch.tensor([4.0, 1, 0, 1, 4])) == 1
    # bends +2, -4, +1
    values = torch.tensor([0.0, 0, 2, 0, -1])
    assert values.diff(n=2).tolist() == [2, -4, 1]
    torch.testing.assert_close(nonconvexity(values[None]), torch.tensor([4 / 7]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=9), st.floats(0.1, 10), st.floats(-3, 3))
def test_barrier_by_loop_and_its_invariances(numbers, scale, tilt):
    values = torch.tensor(numbers, dtype=F64)
    T = len(numbers)
    t = torch.linspace(0, 1, T, dtype=F64)
    above = [
        v - ((1 - i / (T - 1)) * numbers[0] + i / (T - 1) * numbers[-1])
        for i, v in enumerate(numbers)
    ]
    barrier = loss_barrier(values)
    assert float(barrier) == pytest.approx(max(above), abs=1e-12) and barrier >= 0
    torch.testing.assert_close(loss_barrier(scale * values + tilt * t), scale * barrier)
    torch.testing.assert_close(loss_barrier(values.flip(0), t), barrier)


def test_barriers_come_in_batches_and_uneven():
    values = torch.tensor([[0.0, 1, 0], [2, 1, 4]])
    assert loss_barrier(values, torch.tensor([0, 0.25, 1])).tolist() == [1.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.floats(0, 1), st.sampled_from(["bezier", "chain"]))
def test_curve_points_by_de_casteljau_and_by_segment(points, t, curve):
    controls = [{"w": torch.randn(2, 2, dtype=F64, generator=stream(s))} for s in range(points)]
    weights = curve_coefficients(torch.tensor([t], dtype=F64), points, curve=curve)
    assert (weights >= 0).all() and float(weights.sum()) == pytest.approx(1)
    if curve == "bezier":
        layer = [c["w"] for c in controls]
        while len(layer) > 1:
            layer = [(1 - t) * a + t * b for a, b in itertools.pairwise(layer)]
        expected = layer[0]
    else:
        k = min(int(t * (points - 1)), points - 2)
        within = t * (points - 1) - k
        expected = (1 - within) * controls[k]["w"] + within * controls[k + 1]["w"]
    torch.testing.assert_close(curve_point(controls, t, curve=curve)["w"], expected)


@pytest.mark.parametrize("curve", ["bezier", "chain"])
def test_loss_along_is_the_loss_at_its_points(curve):
    model, (x, y) = net(3, 5, 4), data()
    controls = [snapshot(net(3, 5, 4, seed=s)) for s in range(3)]
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=F64)
    values = loss_along(cross_entropy, model, [(x, y)], controls, t, curve=curve)
    for value, place in zip(values, t.tolist(), strict=True):
        point = curve_point(controls, place, curve=curve)
        assert float(value) == pytest.approx(by_hand(cross_entropy, model, x, y, point))


def test_interpolation():
    a, b = ({"w": torch.full((2,), v)} for v in (1.0, 3.0))
    assert [interpolate(a, b, t)["w"][0].item() for t in (0, 0.5, 1, 2)] == [1, 2, 3, 5]


class Ring(nn.Module):
    """Two parameters whose loss is lowest on the unit circle."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=F64))

    def forward(self, x):
        return (self.w.square().sum() - 1).expand(len(x))


@pytest.mark.parametrize(("curve", "bends", "height"), [("bezier", 2, 0.02), ("chain", 2, 0.08)])
def test_a_trained_curve_goes_round_a_hill(curve, bends, height):
    """The ends of a diameter: the line goes over the top at 1, an arc stays low."""
    model, batch = Ring(), (torch.zeros(1, 1), torch.zeros(1, dtype=F64))
    a, b = ({"w": torch.tensor(w, dtype=F64)} for w in ([1.0, 0.05], [-1.0, 0.05]))
    t = torch.linspace(0, 1, 41, dtype=F64)
    line = loss_along(mse_loss, model, [batch], [a, b], t)
    assert line.max() == pytest.approx(1, abs=0.02)
    controls = train_curve(
        mse_loss, model, [batch], a, b, bends=bends, curve=curve, steps=250, learning_rate=0.03,
        samples=8, generator=stream(),
    )  # fmt: skip
    assert len(controls) == bends + 2
    assert torch.equal(controls[0]["w"], a["w"]) and torch.equal(controls[-1]["w"], b["w"])
    bent = loss_along(mse_loss, model, [batch], controls, t, curve=curve)
    assert bent.max() < height and bent.mean() < 0.2 * line.mean()


def test_training_a_curve_is_seeded_and_follows_its_gradient():
    """One step of Adam moves every number of the bend by the learning rate, downhill."""
    model, (x, y) = net(3, 5, 4), data()
    a, b = (snapshot(net(3, 5, 4, seed=s)) for s in (1, 2))
    runs = [
        train_curve(cross_entropy, model, [(x, y)], a, b, steps=1, samples=3, learning_rate=1e-3,
                    generator=stream(5)) for _ in range(2)
    ]  # fmt: skip
    bend = {n: p.clone().requires_grad_() for n, p in interpolate(a, b, 0.5).items()}
    total = 0.0
    for t in torch.rand(3, generator=stream(5), dtype=F64).tolist():
        point = {
            n: (1 - t) ** 2 * a[n] + 2 * t * (1 - t) * p + t**2 * b[n] for n, p in bend.items()
        }
        total = total + cross_entropy(functional_call(model, point, (x,)), y) / 3
    slopes = torch.autograd.grad(total, list(bend.values()))
    for (name, p), slope in zip(bend.items(), slopes, strict=True):
        assert torch.equal(runs[0][1][name], runs[1][1][name])
        torch.testing.assert_close(
            runs[0][1][name], (p - 1e-3 * slope / (slope.abs() + 1e-8)).detach()
        )


# --- permutations


def shuffled(point, seed=0):
    widths = [len(w) for w in point.values() if w.ndim == 2][:-1]
    order = [torch.randperm(width, generator=stream(seed + i)) for i, width in enumerate(widths)]
    return permute(point, order), order


@pytest.mark.parametrize("widths", [(3, 6, 4), (3, 6, 5, 4), (3, 4, 7, 6, 5, 4)])
def test_a_permuted_network_is_the_same_function(widths):
    model, (x, _) = net(*widths), data()
    theta = snapshot(model)
    moved, order = shuffled(theta)
    torch.testing.assert_close(functional_call(model, moved, (x,)), model(x))
    assert not torch.equal(moved["1.weight"], theta["1.weight"])
    # by matrices: P W P'^T
    before = torch.eye(widths[0], dtype=F64)
    for layer in range(len(widths) - 1):
        name = f"{1 + 2 * layer}"
        P = torch.eye(widths[layer + 1], dtype=F64)
        if layer < len(order):
            P = P[order[layer]]
        torch.testing.assert_close(moved[f"{name}.weight"], P @ theta[f"{name}.weight"] @ before.T)
        torch.testing.assert_close(moved[f"{name}.bias"], P @ theta[f"{name}.bias"])
        before = P
    inverse = [p.argsort() for p in order]
    back = permute(moved, inverse)
    assert all(torch.equal(back[n], theta[n]) for n in theta)


def without_biases(point):
    return {n: p for n, p in point.items() if p.ndim == 2}


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("widths", [(3, 5, 4), (2, 4, 3, 3), (3, 3, 3, 3, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_weight_matching_against_all_permutations(widths, biases, seed):
    a, b = (snapshot(net(*widths, seed=s)) for s in (seed, seed + 100))
    if not biases:
        a, b = without_biases(a), without_biases(b)
    found = weight_matching(a, b, generator=stream(seed))
    score = matching_score(a, b, found)
    choices = [
        [torch.tensor(p) for p in itertools.permutations(range(width))] for width in widths[1:-1]
    ]
    every = [matching_score(a, b, order) for order in itertools.product(*choices)]
    assert score <= max(every) + 1e-12
    if len(widths) == 3:  # one hidden layer: exact
        torch.testing.assert_close(score, max(every))
    for layer, options in enumerate(choices):  # no single layer can be improved
        for option in options:
            other = [*found[:layer], option, *found[layer + 1 :]]
            assert matching_score(a, b, other) <= score + 1e-9
    # the largest score is the smallest distance
    moved = permute(b, found)
    distance = (flat(a) - flat(moved)).square().sum()
    expected = flat(a).square().sum() + flat(b).square().sum() - 2 * score
    torch.testing.assert_close(distance, expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_score_never_falls_and_a_seed_fixes_the_result(seed):
    widths = (10, 16, 16, 16, 4)
    a, b = (snapshot(net(*widths, seed=s)) for s in (seed, seed + 50))
    identity = [torch.arange(16)] * 3
    scores = [matching_score(a, b, identity)]
    for sweeps in range(1, 8):
        found = weight_matching(a, b, sweeps=sweeps, generator=stream(seed))
        scores.append(matching_score(a, b, found))
    changes = torch.stack(scores).diff()
    assert (changes >= -1e-12).all() and changes[0] > 0.1
    again = weight_matching(a, b, generator=stream(seed))
    whole = weight_matching(a, b, generator=stream(seed))
    assert all(torch.equal(p, q) for p, q in zip(again, whole, strict=True))
    onward = weight_matching(a, b, start=whole, generator=stream(seed + 1))
    assert all(torch.equal(p, q) for p, q in zip(onward, whole, strict=True))


def test_weight_matching_finds_a_copy():
    a = snapshot(net(8, 30, 30, 4))
    b, order = shuffled(a)
    found = weight_matching(a, b, generator=stream())
    moved = permute(b, found)
    assert all(torch.equal(moved[n], a[n]) for n in a)
    assert all(torch.equal(p, q.argsort()) for p, q in zip(found, order, strict=True))


def test_the_best_of_ties_is_to_stay():
    a = {n: torch.ones_like(p) for n, p in snapshot(net(3, 5, 5, 4)).items()}
    start = [torch.randperm(5, generator=stream(s)) for s in (1, 2)]
    found = weight_matching(a, a, start=start, generator=stream())
    assert all(torch.equal(p, q) for p, q in zip(found, start, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_activation_matching_against_all_permutations(seed):
    model = net(3, 5, 4, 2)
    a, b = (snapshot(net(3, 5, 4, 2, seed=s)) for s in (seed, seed + 9))
    x, _ = data(30)
    found = activation_matching(model, a, b, x)
    hidden = []
    for point in (a, b):
        h, layers = x, []
        for name in ("1", "3"):
            h = (h @ point[f"{name}.weight"].T + point[f"{name}.bias"]).relu()
            layers.append(h)
        hidden.append(layers)
    for layer, width in enumerate((5, 4)):
        every = {
            p: float(sum(hidden[0][layer][:, i] @ hidden[1][layer][:, p[i]] for i in range(width)))
            for p in itertools.permutations(range(width))
        }
        assert every[tuple(found[layer].tolist())] == pytest.approx(max(every.values()))


def test_activation_matching_finds_a_copy_and_leaves_the_model_alone():
    model = net(3, 12, 9, 4).train()
    a = snapshot(model)
    b, order = shuffled(a)
    found = activation_matching(model, a, b, data(200)[0])
    moved = permute(b, found)
    answers = functional_call(model, moved, (data()[0],))
    torch.testing.assert_close(answers, model(data()[0]))
    alive = [torch.equal(p, q.argsort()) for p, q in zip(found, order, strict=True)]
    assert alive == [True, True] and model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_straight_through_matching_is_no_worse_than_where_it_starts():
    model, (x, y) = net(3, 8, 8, 4), data(60)
    a, b = (snapshot(net(3, 8, 8, 4, seed=s)) for s in (1, 2))

    def halfway(order):
        point = interpolate(a, permute(b, order), 0.5)
        return by_hand(cross_entropy, model, x, y, point)

    first = weight_matching(a, b, generator=stream())
    settings = {"learning_rate": 0.3, "generator": stream()}
    found = straight_through_matching(cross_entropy, model, [(x, y)], a, b, steps=60, **settings)
    assert halfway(found) < halfway(first) - 1e-3
    reached = [
        halfway(straight_through_matching(
            cross_entropy, model, [(x, y)], a, b, steps=k, learning_rate=2.0, generator=stream()
        ))
        for k in range(1, 25)
    ]  # fmt: skip
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(reached))
    once = straight_through_matching(
        cross_entropy, model, [(x, y)], a, b, steps=1, generator=stream()
    )
    assert all(torch.equal(p, q) for p, q in zip(once, first, strict=True))


# --- inversion


def bowl(scale):
    """Search z for A z = y with a badly conditioned A."""
    A = torch.diag(torch.tensor(scale, dtype=F64))
    return lambda z, y: (z @ A.T - y).square().sum(1)


def test_descent_is_its_recursion():
    targets = torch.randn(4, 2, dtype=F64, generator=stream())
    way = invert(bowl([1.0, 0.3]), targets, torch.zeros(2, dtype=F64), steps=5, learning_rate=0.2)
    assert way.shape == (6, 4, 2) and (way[0] == 0).all() and not way.requires_grad
    A = torch.tensor([1.0, 0.3], dtype=F64)
    for k in range(5):
        slope = 2 * A * (A * way[k] - targets)
        torch.testing.assert_close(way[k + 1], way[k] - 0.2 * slope)


def test_descent_through_a_mapping():
    targets = torch.randn(3, 2, dtype=F64, generator=stream())
    start = torch.randn(3, 2, dtype=F64, generator=stream(1))
    M = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=F64)
    way = invert(bowl([1.0, 1.0]), targets, start, mapping=lambda c: c @ M.T, steps=1)
    expected = start - 0.1 * 2 * (start @ M.T - targets) @ M
    torch.testing.assert_close(way[1], expected)


def test_a_learned_landscape_is_quicker_on_new_targets():
    loss, start = bowl([1.0, 0.05]), torch.zeros(2, dtype=F64)
    targets = torch.randn(64, 2, dtype=F64, generator=stream()) * torch.tensor([1.0, 0.05])
    fresh = torch.randn(64, 2, dtype=F64, generator=stream(1)) * torch.tensor([1.0, 0.05])
    mapping = nn.Linear(2, 2).double()
    with torch.no_grad():
        mapping.weight.copy_(torch.eye(2))
        mapping.bias.zero_()
    search = {"steps": 10, "learning_rate": 0.1}
    trained = learn_landscape(
        mapping, loss, targets, start, rounds=60, mapping_rate=0.05, generator=stream(), **search
    )
    assert torch.equal(mapping.weight, torch.eye(2, dtype=F64))  # a copy was trained
    plain = loss(invert(loss, fresh, start, **search)[-1], fresh).mean()
    way = invert(loss, fresh, start, mapping=trained, **search)
    with torch.no_grad():
        learned = loss(trained(way[-1]), fresh).mean()
    assert learned < 0.5 * plain
    again = learn_landscape(
        mapping, loss, targets, start, rounds=60, mapping_rate=0.05, generator=stream(), **search
    )
    assert torch.equal(again.weight, trained.weight)


# --- bad input

MODEL = net(3, 5, 4)
THETA = snapshot(MODEL)
BATCH = data()
STEPS = torch.zeros(3, dtype=F64)


def along(**changes):
    arguments = {"loss": cross_entropy, "model": MODEL, "batches": [BATCH], "direction": THETA}
    return loss_line(**{**arguments, "steps": STEPS, **changes})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: along(batches=[]), "batches must be at least one batch"),
        (lambda: along(batches=[(BATCH[0][:0], BATCH[1][:0])]), "at least one example"),
        (lambda: along(model=nn.ReLU()), "model must be a module with parameters, got 'ReLU'"),
        (lambda: snapshot(nn.Flatten()), "model must be a module with parameters"),
        (lambda: along(direction={"w": STEPS}), "must have the tensors"),
        (lambda: along(direction={**THETA, "1.bias": STEPS}), r"the shape of .*'1.bias'"),
        (lambda: along(loss=lambda z, y: cross_entropy(z, y, reduction="none")),
         "loss must be a scalar, got 'shape .12,. per batch'"),
        (lambda: along(steps=STEPS[None]), "the shape of steps"),
        (lambda: along(steps=STEPS[:0]), "K at least 1"),
        (lambda: along(chunk=0), "chunk must be at least 1, got 0"),
        (lambda: along(statistics="running"), "statistics must be 'stored' or 'batch'"),
        (lambda: loss_surface(cross_entropy, MODEL, [BATCH], THETA, THETA, STEPS, STEPS[None]),
         "the shape of y"),
        (lambda: loss_values(cross_entropy, MODEL, [BATCH], [THETA], STEPS[:, None][:, :0]),
         "the shape of coefficients"),
        (lambda: random_direction({}), "parameters must be at least one tensor"),
        (lambda: filter_normalize({"w": STEPS}, {"v": STEPS}), "direction must have the tensors"),
        (lambda: trajectory_plane([THETA, THETA]), "at least 3, got 2"),
        (lambda: trajectory_plane([THETA] * 3), "points that move"),
        (lambda: trajectory_plane([THETA, {"w": STEPS}, THETA]), "iterates must have the tensors"),
        (lambda: interpolate(THETA, {"w": STEPS}, 0.5), "second must have the tensors"),
        (lambda: nonconvexity(STEPS[:2]), "A at least 3"),
        (lambda: loss_barrier(STEPS[:2]), "T at least 3"),
        (lambda: loss_barrier(STEPS, torch.tensor([0, 0.5, 0.9], dtype=F64)), "from 0 to 1"),
        (lambda: loss_barrier(STEPS, torch.tensor([0.0, 1.0])), "the shape of t"),
        (lambda: curve_coefficients(torch.tensor([0.5, 1.1]), 3), r"t must be in \[0, 1\]"),
        (lambda: curve_coefficients(torch.tensor([0.5]), 1), "points must be at least 2"),
        (lambda: curve_coefficients(torch.tensor([0.5]), 2, curve="spline"), "'bezier' or 'chain'"),
        (lambda: curve_point([THETA, THETA], -0.1), "t must be in"),
        (lambda: train_curve(cross_entropy, MODEL, [BATCH], THETA, THETA, bends=0), "bends"),
        (lambda: train_curve(cross_entropy, MODEL, [BATCH], THETA, THETA, learning_rate=0.0),
         "learning_rate must be positive"),
        (lambda: train_curve(cross_entropy, MODEL, [], THETA, THETA), "at least one batch"),
        (lambda: permute({"w": torch.zeros(3, 2)}, []), "multilayer perceptron with a hidden"),
        (lambda: permute(snapshot(resnet(1, 3, width=2)()), []), "multilayer perceptron"),
        (lambda: permute(THETA, [torch.arange(4)]), "the shapes of permutations"),
        (lambda: permute(THETA, [torch.zeros(5).long()]), "each number from 0 to width - 1 once"),
        (lambda: weight_matching(THETA, snapshot(net(3, 6, 4))), "the shape of second"),
        (lambda: weight_matching(THETA, THETA, sweeps=0), "sweeps must be at least 1"),
        (lambda: activation_matching(MODEL, THETA, THETA, BATCH[0][:0]), "inputs must be at least"),
        (lambda: straight_through_matching(cross_entropy, MODEL, [], THETA, THETA), "one batch"),
        (lambda: invert(bowl([1.0]), torch.zeros(0, 1), torch.zeros(1)), "targets must be at least"),
        (lambda: invert(bowl([1.0]), torch.zeros(2, 1), torch.zeros(3, 1)), "the shape of start"),
        (lambda: invert(lambda z, y: z.sum(), torch.zeros(2, 1), torch.zeros(1)), "shape of loss"),
        (lambda: invert(bowl([1.0]), torch.zeros(2, 1), torch.zeros(1), steps=0), "steps must be"),
        (lambda: invert(bowl([1.0]), torch.zeros(2, 1), torch.zeros(1), learning_rate=-1.0),
         "learning_rate must be positive"),
        (lambda: learn_landscape(nn.Identity(), bowl([1.0]), torch.zeros(2, 1), torch.zeros(1)),
         "module with parameters"),
        (lambda: learn_landscape(nn.Linear(1, 1), bowl([1.0]), torch.zeros(2, 1), torch.zeros(1),
                                 rounds=0), "rounds must be at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="start must have a floating-point dtype"):
        invert(bowl([1.0]), torch.zeros(2, 1), torch.zeros(1).long())
    with pytest.raises(TypeError, match="values must be a tensor"):
        loss_barrier([0.0, 1.0, 0.0])


def test_a_residual_network_is_not_recognized_by_its_names():
    """The pitfall that `permute` warns of still exists."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = residual_mlp(3, 5, 2, 4)().double()
    moved, _ = shuffled(snapshot(model))
    x = data()[0]
    assert not torch.allclose(functional_call(model, moved, (x,)), model(x))
