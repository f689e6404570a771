"""Spheres and the Poincaré ball, against loops written from the formulas.

What all losses share (reductions, dtypes, extremes, derivatives, bad input) is tested in
test_contracts.py.
"""

import doctest
import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lossbook.representation import (
    HyperbolicClassifier,
    HypoLoss,
    PseudoNegatives,
    align_uniform_loss,
    alignment_loss,
    clip_norm,
    compactness_loss,
    conformal_factor,
    cross_polytope,
    dispersion_loss,
    energy_lower_bound,
    geodesic_distance,
    hybrid_contrastive_loss,
    hyperbolic_logits,
    hypersphere,
    hyperspherical_energy,
    inter_class_separation,
    intra_class_variation,
    mobius_add,
    mobius_scale,
    norm_loss,
    norm_penalty,
    normalized_softmax_logits,
    normalized_softmax_loss,
    one_class_hyperbolic_loss,
    pairwise_confusion_loss,
    poincare_distance,
    poincare_exp,
    poincare_geodesic,
    poincare_log,
    project_to_ball,
    simplex,
    spherical_class_means,
    uniformity_limit,
    uniformity_loss,
    update_prototypes,
    vmf_log_partition,
)

Vector = list[float]
close = torch.testing.assert_close
quick = settings(max_examples=25, deadline=None)
CURVATURES = [0.0, 0.1, 1.0, 2.5]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def unit(v: Vector) -> Vector:
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def units(x: Tensor) -> list[Vector]:
    return [unit(v) for v in x.tolist()]


def gap(u: Vector, v: Vector) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


def dot(u: Vector, v: Vector) -> float:
    return sum(a * b for a, b in zip(u, v, strict=True))


def pairs(points: list[Vector]) -> list[float]:
    return [gap(u, v) for u, v in itertools.combinations(points, 2)]


def derivatives_hold(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


# --- Angles ---------------------------------------------------------------------------------------


def test_geodesic_distance_is_the_angle() -> None:
    x, y = normal(6, 3), normal(6, 3)
    expected = [math.acos(dot(u, v)) for u, v in zip(units(x), units(y), strict=True)]
    close(geodesic_distance(x, 3 * y), double(expected))
    close(geodesic_distance(x[:, None], y)[2, 4], geodesic_distance(x[2], y[4]))
    derivatives_hold(geodesic_distance, x, y)


@pytest.mark.parametrize("angle", [1e-12, 1e-7, 1.0, math.pi - 1e-7])
def test_geodesic_distance_keeps_small_angles(angle: float) -> None:
    x, y = double([1.0, 0.0]), double([math.cos(angle), math.sin(angle)])
    close(geodesic_distance(x, y), double(angle), rtol=1e-9, atol=1e-16)
    assert math.acos(min(1.0, math.cos(1e-12))) == 0  # where the arc cosine has nothing left


def test_geodesic_distance_of_equal_and_opposite_vectors() -> None:
    x = double([[3.0, 4.0]]).requires_grad_()
    close(geodesic_distance(x, x.detach()), double([0.0]))
    close(geodesic_distance(x, -x.detach()), double([math.pi]))
    for y in (x.detach(), -x.detach()):
        (slope,) = torch.autograd.grad(geodesic_distance(x, y).sum(), x)
        assert slope.isfinite().all()


# --- Alignment and uniformity ---------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [2.0, 1.0, 0.5, 3.0])
def test_alignment_equals_its_formula(alpha: float) -> None:
    x, y = normal(7, 4), normal(7, 4)
    expected = [gap(u, v) ** alpha for u, v in zip(units(x), units(y), strict=True)]
    close(alignment_loss(x, y, alpha=alpha, reduction="none"), double(expected))
    derivatives_hold(partial(alignment_loss, alpha=alpha), x, y)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(alignment_loss(x, x.detach(), alpha=alpha), x)
    assert (slope == 0).all()  # also where alpha is small and the kink sharp


def reference_uniformity(points: list[Vector], t: float) -> float:
    potentials = [math.exp(-t * d * d) for d in pairs(points)]
    return math.log(sum(potentials) / len(potentials))


@pytest.mark.parametrize("t", [2.0, 0.1, 30.0])
@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (9, 2)])
def test_uniformity_equals_its_formula(t: float, shape: tuple[int, int]) -> None:
    x = normal(*shape)
    close(uniformity_loss(x, t=t), double(reference_uniformity(units(x), t)))
    derivatives_hold(partial(uniformity_loss, t=t), x[:, :])


def test_the_objective_is_the_sum_of_its_parts() -> None:
    x, y = normal(6, 3), normal(6, 3)
    spread = (uniformity_loss(x, t=3.0) + uniformity_loss(y, t=3.0)) / 2
    expected = alignment_loss(x, y, alpha=1.5) + 0.7 * spread
    close(align_uniform_loss(x, y, alpha=1.5, t=3.0, uniform_weight=0.7), expected)


@pytest.mark.parametrize("block", [1, 7, 40, 64, 2**22])
@pytest.mark.parametrize("points", [2, 3, 17])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int, points: int) -> None:
    monkeypatch.setitem(uniformity_loss.__globals__, "_BLOCK", block)
    x = normal(points, 3).requires_grad_()
    for function, reference in (
        (uniformity_loss, lambda x: (-2 * F.pdist(F.normalize(x)) ** 2).exp().mean().log()),
        (hyperspherical_energy, lambda x: (1 / F.pdist(F.normalize(x))).sum()),
    ):
        value, expected = function(x), reference(x)
        close(value, expected)
        close(torch.autograd.grad(value, x), torch.autograd.grad(expected, x))
        if points < 10:
            derivatives_hold(function, x.detach())


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor made on the way there or back has more than a block's numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, Tensor)]
            largest = max([largest, *sizes])
            return result

    monkeypatch.setitem(uniformity_loss.__globals__, "_BLOCK", 2000)
    x = torch.randn(300, 4, requires_grad=True)
    for function in (uniformity_loss, hyperspherical_energy):
        with Watch():
            torch.autograd.grad(function(x), x)
        assert largest <= 2000


def test_saved_for_backward_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uniformity_loss.__globals__, "_BLOCK", 2000)
    saved: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    x = torch.randn(300, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        uniformity_loss(x)
    assert sum(saved.values()) < 12 * x.numel() * 4  # a few vectors, nothing of size N squared


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_points_agree_with_the_dense_form(dtype: torch.dtype) -> None:
    x = torch.randn(2500, 16, dtype=dtype)
    x[:, 0] += 2  # not at the optimum, where the gradient is a difference of equal forces
    x = F.normalize(x).requires_grad_()
    exact = x.detach().double().requires_grad_()
    value, expected = uniformity_loss(x), (-2 * F.pdist(F.normalize(exact)) ** 2).exp().mean().log()
    close(value.double(), expected, rtol=1e-6, atol=0)
    (slope,), (expected_slope,) = (
        torch.autograd.grad(v, leaf) for v, leaf in ((value, x), (expected, exact))
    )
    assert (slope - expected_slope).norm() <= 1e-6 * expected_slope.norm()


def test_points_that_coincide() -> None:
    x = double([[1.0, 2.0]] * 4).requires_grad_()
    value = uniformity_loss(x)
    close(value, double(0.0))
    assert torch.autograd.grad(value, x)[0].abs().max() < 1e-12
    for kernel in ("riesz", "log"):
        energy = hyperspherical_energy(x, kernel=kernel)
        assert energy == math.inf
        assert (torch.autograd.grad(energy, x)[0] == 0).all()
    close(hyperspherical_energy(x, kernel="gaussian"), double(6.0))


def test_close_points_keep_their_energy_in_float32() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 1e-6], [1.0, -1e-6]])
    close(hyperspherical_energy(x), torch.tensor(2.5e6), rtol=1e-4, atol=0)


@quick
@given(st.floats(0.01, 100), st.integers(0, 10**6))
def test_length_and_turning_change_nothing(length: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = normal(6, 3)
    turn = torch.linalg.qr(normal(3, 3)).Q
    for function in (uniformity_loss, hyperspherical_energy, dispersion_loss):
        close(function(length * x @ turn), function(x), rtol=1e-9, atol=1e-9)
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(leaf), leaf)
        close((slope * x).sum(1), torch.zeros(6).double(), rtol=0, atol=1e-9)  # tangential


# --- The uniform distribution -----------------------------------------------------------------------


def quadrature(concentration: float, dimension: int) -> float:
    """E exp(kappa cos) with the density sin(angle)^(D - 2) of an angle, by the trapezoidal rule."""
    angles = torch.linspace(0, math.pi, 200_001, dtype=torch.float64)
    density = angles.sin() ** (dimension - 2)
    mean = torch.trapezoid(density * (concentration * (angles.cos() - 1)).exp(), angles)
    return float((mean / torch.trapezoid(density, angles)).log()) + concentration


@pytest.mark.parametrize("dimension", [2, 3, 5, 16, 128])
@pytest.mark.parametrize("concentration", [1e-3, 1.0, 4.0, 30.0, 1000.0])
def test_vmf_partition(concentration: float, dimension: int) -> None:
    value = vmf_log_partition(concentration, dimension)
    assert value == pytest.approx(quadrature(concentration, dimension), rel=1e-7, abs=1e-9)


def test_vmf_partition_in_closed_form() -> None:
    for kappa in (0.1, 3.0, 40.0):
        assert vmf_log_partition(kappa, 3) == pytest.approx(math.log(math.sinh(kappa) / kappa))
        assert vmf_log_partition(kappa, 1) == pytest.approx(math.log(math.cosh(kappa)))
    bessel = float(torch.special.i0(double(2.5)).log())
    assert vmf_log_partition(2.5, 2) == pytest.approx(bessel)
    assert vmf_log_partition(0.0, 7) == 0


@pytest.mark.parametrize("dimension", [2, 3, 16])
def test_uniform_points_come_down_to_the_limit(dimension: int) -> None:
    x = normal(4000, dimension)
    assert float(uniformity_loss(x)) == pytest.approx(uniformity_limit(dimension), abs=0.02)


def test_a_regular_polygon_reaches_the_limit_at_once() -> None:
    """Trapezoidal rule: the sum over all pairs, each point with itself included, is exact."""
    angles = torch.arange(40) * (2 * math.pi / 40)
    x = torch.stack([angles.cos(), angles.sin()], 1).double()
    mean = float(uniformity_loss(x).exp()) * 39 / 40 + 1 / 40
    assert math.log(mean) == pytest.approx(uniformity_limit(2), abs=1e-6)


def test_the_limit_falls_with_the_dimension() -> None:
    limits = [uniformity_limit(d) for d in (1, 2, 3, 10, 1000)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == pytest.approx(-4, abs=0.01)


# --- Energies and known optima ----------------------------------------------------------------------

# The least Coulomb energies that are known for N points on the sphere: the tables of Thomson's
# problem (Amore et al. 2025 search them again); proved for N up to 6 and for 12.
THOMSON = {
    2: 0.500000000, 3: 1.732050808, 4: 3.674234614, 5: 6.474691495, 6: 9.985281374,
    7: 14.452977414, 8: 19.675287861, 9: 25.759986531, 10: 32.716949460, 11: 40.596450510,
    12: 49.165253058,
}  # fmt: skip
# The largest possible least angle, in degrees: Tammes's problem, proved for N up to 14 and 24
# (the history is in Musin and Tarasov 2015).
TAMMES = {
    3: 120.0, 4: math.degrees(math.acos(-1 / 3)), 5: 90.0, 6: 90.0, 7: 77.86954,
    8: math.degrees(math.acos((math.sqrt(8) - 1) / 7)), 9: math.degrees(math.acos(1 / 3)),
    10: 66.14682, 12: math.degrees(math.acos(1 / math.sqrt(5))),
}  # fmt: skip


def pull(x: Tensor, optimizer: torch.optim.Optimizer, kernel: dict[str, object]) -> float:
    optimizer.zero_grad()
    energy = hyperspherical_energy(x, **kernel)  # type: ignore[arg-type]
    energy = energy if kernel.get("kernel") == "log" else energy.log()
    energy.backward()
    return float(energy.detach())


def relax(number: int, seed: int, *stages: dict[str, object]) -> Tensor:
    """Points on the sphere at a minimum of an energy, from a random start, by easier ones."""
    torch.manual_seed(seed)
    x = normal(number, 3).requires_grad_()
    for kernel in stages:
        optimizer = torch.optim.LBFGS(
            [x], max_iter=100, tolerance_grad=1e-9, tolerance_change=0, history_size=20,
            line_search_fn="strong_wolfe",
        )  # fmt: skip
        optimizer.step(partial(pull, x, optimizer, kernel))  # type: ignore[arg-type]
    return F.normalize(x.detach())


@pytest.mark.parametrize("number, energy", THOMSON.items())
def test_thomson(number: int, energy: float) -> None:
    found = min(float(hyperspherical_energy(relax(number, seed, {}))) for seed in range(3))
    assert found == pytest.approx(energy, abs=1e-7)
    assert found >= energy_lower_bound(number) - 1e-9


@pytest.mark.parametrize("number, degrees", TAMMES.items())
def test_tammes(number: int, degrees: float) -> None:
    """With a steep kernel only the closest pairs count, and the optimum becomes that of Tammes."""
    found = 0.0
    for seed in range(2):
        x = relax(number, seed, {"s": 8.0}, {"s": 60.0})
        angles = geodesic_distance(x[:, None], x)[~torch.eye(number, dtype=torch.bool)]
        found = max(found, math.degrees(float(angles.min())))
    assert found <= degrees + 1e-4
    assert found == pytest.approx(degrees, rel=0.015)


def kernels() -> list[dict[str, object]]:
    return [{"s": 1.0}, {"s": 6.0}, {"kernel": "log"}, {"kernel": "gaussian", "t": 1.5}]


def reference_energy(
    points: list[Vector], kernel: str = "riesz", s: float = 1, t: float = 2
) -> float:
    f = {
        "riesz": lambda d: d**-s,
        "log": lambda d: -math.log(d),
        "gaussian": lambda d: math.exp(-t * d * d),
    }[kernel]
    return sum(f(d) for d in pairs(points))


@pytest.mark.parametrize("kernel", kernels())
def test_energy_equals_its_formula(kernel: dict[str, object]) -> None:
    x = normal(7, 3)
    energy = partial(hyperspherical_energy, **kernel)
    close(energy(x), double(reference_energy(units(x), **kernel)))  # type: ignore[arg-type]
    derivatives_hold(energy, x[:4])
    compiled = torch.compile(energy, fullgraph=True, backend="eager")
    close(compiled(x), energy(x))
    close(torch.func.vmap(energy)(x[None]), energy(x)[None])


@pytest.mark.parametrize("number", [2, 3, 4, 8])
def test_simplex(number: int) -> None:
    x = simplex(number, dtype=torch.float64)
    assert x.shape == (number, number - 1)
    eye = torch.eye(number, dtype=torch.float64)
    close(x @ x.T, (eye * number - 1) / (number - 1))
    for kernel in kernels():
        bound = energy_lower_bound(number, **kernel)  # type: ignore[arg-type]
        close(hyperspherical_energy(x, **kernel), double(bound))  # type: ignore[arg-type]


@quick
@given(st.integers(2, 8), st.integers(2, 5), st.integers(0, 10**6))
def test_no_configuration_beats_the_bound(number: int, dimension: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = normal(number, dimension)
    for kernel in kernels():
        bound = energy_lower_bound(number, **kernel)  # type: ignore[arg-type]
        assert hyperspherical_energy(x, **kernel) >= bound - 1e-9  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", kernels())
def test_the_cross_polytope_is_a_minimum(kernel: dict[str, object]) -> None:
    x = cross_polytope(3, dtype=torch.float64)
    close(x @ x.T, torch.kron(double([[1, -1], [-1, 1]]), torch.eye(3).double()))
    energy = partial(hyperspherical_energy, **kernel)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.grad(energy(leaf), leaf)[0].abs().max() < 1e-12
    for seed in range(5):
        torch.manual_seed(seed)
        assert energy(x) <= energy(normal(6, 3))
    found = min(float(energy(relax(6, seed, kernel))) for seed in range(2))
    assert found == pytest.approx(float(energy(x)), rel=1e-9)


# --- Norm loss ----------------------------------------------------------------------------------------


def test_norm_loss_equals_its_formula() -> None:
    filters = normal(3, 2, 2, 2)
    expected = [(1 - gap(w, [0.0] * 8)) ** 2 for w in filters.flatten(1).tolist()]
    close(norm_loss(filters, reduction="none"), double(expected))
    close(norm_loss(filters), double(sum(expected)))
    derivatives_hold(norm_loss, filters)


def test_norm_loss_pushes_along_the_filter() -> None:
    w = double([[3.0, 4.0], [0.3, 0.4]]).requires_grad_()
    (slope,) = torch.autograd.grad(norm_loss(w), w)
    close(slope, double([[8 * 0.6, 8 * 0.8], [-0.6, -0.8]]))
    zero = torch.zeros(2, 3, requires_grad=True)
    value = norm_loss(zero)
    assert value == 2
    assert (torch.autograd.grad(value, zero)[0] == 0).all()


def test_norm_penalty_adds_up_the_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    close(norm_penalty(model), norm_loss(model[0].weight) + norm_loss(model[3].weight))
    with pytest.raises(ValueError, match="weights of model"):
        norm_penalty(nn.ReLU())


# --- Normalized softmax -------------------------------------------------------------------------------


def test_normalized_softmax_equals_its_formula() -> None:
    x, w, y, s = normal(6, 3), normal(4, 3), torch.arange(6) % 4, 7.0
    expected = []
    for u, k in zip(units(x), y.tolist(), strict=True):
        z = [s * dot(u, v) for v in units(w)]
        expected.append(math.log(sum(math.exp(a) for a in z)) - z[k])
    loss = partial(normalized_softmax_loss, target=y, scale=s)
    close(loss(x, prototypes=w, reduction="none"), double(expected))
    derivatives_hold(lambda x, w, s: normalized_softmax_loss(x, y, prototypes=w, scale=s),
                     x, w, double(s))  # fmt: skip
    close(loss(5 * x, prototypes=w / 3), loss(x, prototypes=w))


@pytest.mark.parametrize("classes, scale", [(3, 1.0), (5, 16.0)])
def test_the_simplex_attains_the_bound(classes: int, scale: float) -> None:
    x, y = simplex(classes, dtype=torch.float64), torch.arange(classes)
    bound = math.log1p((classes - 1) * math.exp(-scale * classes / (classes - 1)))
    close(normalized_softmax_loss(x, y, prototypes=x, scale=scale), double(bound))
    for _ in range(20):
        w, u = normal(classes, classes - 1), normal(classes, classes - 1)
        assert normalized_softmax_loss(u, y, prototypes=w, scale=scale) >= bound


def test_class_means_and_nearest_mean() -> None:
    x, y = normal(30, 4), torch.arange(30) % 3
    means = spherical_class_means(x, y, classes=3)
    for k in range(3):
        mine = [u for u, label in zip(units(x), y.tolist(), strict=True) if label == k]
        close(means[k], double(unit([sum(column) for column in zip(*mine, strict=True)])))
    scores = normalized_softmax_logits(x, means, scale=1.0)
    distances = [[gap(u, m) for m in means.tolist()] for u in units(x)]
    assert scores.argmax(1).tolist() == [d.index(min(d)) for d in distances]
    with pytest.raises(ValueError, match="every class"):
        spherical_class_means(x, y, classes=4)
    with pytest.raises(ValueError, match="zero vectors"):
        spherical_class_means(double([[1.0, 0], [-2.0, 0]]), torch.tensor([0, 0]), classes=1)


# --- HYPO ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_domains", [False, True])
def test_compactness_equals_its_formula(with_domains: bool) -> None:
    x, mu, tau = normal(6, 3), normal(3, 3), 0.3
    y, domains = torch.tensor([0, 1, 2, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 1])
    u, m, expected = units(x), units(mu), []
    for i in range(6):
        bottom = sum(math.exp(dot(u[i], v) / tau) for v in m)
        if with_domains:
            bottom += sum(
                math.exp(dot(u[i], u[j]) / tau)
                for j in range(6)
                if domains[j] == domains[i] and y[j] != y[i]
            )
        expected.append(math.log(bottom) - dot(u[i], m[int(y[i])]) / tau)
    given = domains if with_domains else None
    loss = partial(compactness_loss, target=y, temperature=tau, domains=given)
    close(loss(x, prototypes=mu, reduction="none"), double(expected))
    derivatives_hold(lambda x, mu: loss(x, prototypes=mu), x, mu)
    if not with_domains:
        close(loss(x, prototypes=mu), normalized_softmax_loss(x, y, prototypes=mu, scale=1 / tau))


def test_ignored_examples_are_no_negatives() -> None:
    x, mu, domains = normal(4, 3), normal(3, 3), torch.zeros(4, dtype=torch.int64)
    y = torch.tensor([0, 1, -100, 2])
    kept = torch.tensor([0, 1, 3])
    close(
        compactness_loss(x, y, prototypes=mu, domains=domains),
        compactness_loss(x[kept], y[kept], prototypes=mu, domains=domains[kept]),
    )
    sharp = compactness_loss(1e4 * x, y, prototypes=mu, domains=domains, temperature=1e-3)
    assert sharp.isfinite()


def test_dispersion_equals_its_formula() -> None:
    mu, tau = normal(4, 3), 0.2
    m = units(mu)
    expected = []
    for i in range(4):
        others = [math.exp(dot(m[i], m[j]) / tau) for j in range(4) if j != i]
        expected.append(math.log(sum(others) / 3))
    close(dispersion_loss(mu, temperature=tau, reduction="none"), double(expected))
    close(dispersion_loss(simplex(5).double(), temperature=tau), double(-1 / (4 * tau)))
    assert dispersion_loss(mu) >= -1 / (3 * 0.1)


def reference_update(prototypes: Tensor, x: Tensor, y: Tensor, a: float) -> Tensor:
    mu = units(prototypes)
    for u, k in zip(units(x), y.tolist(), strict=True):
        mu[k] = unit([a * m + (1 - a) * v for m, v in zip(mu[k], u, strict=True)])
    return double(mu)


def test_prototypes_follow_one_example_after_another() -> None:
    mu, x = normal(4, 3), normal(9, 3)
    y = torch.tensor([0, 2, 2, 0, 1, 2, 2, 0, 1])  # no example of class 3
    close(update_prototypes(mu, x, y, momentum=0.8), reference_update(mu, x, y, 0.8))
    order = torch.tensor([1, 0, 4, 2, 8, 3, 5, 7, 6])
    same = update_prototypes(mu, x[order[[1, 0, 3, 5, 2, 6, 8, 7, 4]]], y, momentum=0.8)
    assert same.shape == mu.shape
    close(update_prototypes(mu, x[:0], y[:0]), F.normalize(mu))
    close(update_prototypes(mu, x, y, momentum=1.0), F.normalize(mu))
    derivatives_hold(lambda mu, x: update_prototypes(mu, x, y), mu, x)
    compiled = torch.compile(update_prototypes, fullgraph=True, backend="eager")
    close(compiled(mu, x, y), update_prototypes(mu, x, y))


def test_hypo_differentiates_dispersion_through_the_last_step() -> None:
    module = HypoLoss(3, 4, momentum=0.9, variation_weight=0.0).double()
    before = module.prototypes.clone()
    x, y = normal(6, 4).requires_grad_(), torch.arange(6) % 3
    value = module(x, y)
    moved = reference_update(before, x.detach(), y, 0.9)
    close(module.prototypes, moved)
    assert not module.prototypes.requires_grad
    close(value, dispersion_loss(moved))
    (slope,) = torch.autograd.grad(value, x)
    assert slope.abs().max() > 1e-3  # detached prototypes would push nothing apart


def test_hypo_is_the_sum_of_its_terms_and_rests_when_evaluated() -> None:
    module = HypoLoss(3, 4, variation_weight=2.0).double().eval()
    x, y = normal(6, 4), torch.arange(6) % 3
    mu = module.prototypes.clone()
    close(module(x, y), 2 * compactness_loss(x, y, prototypes=mu) + dispersion_loss(mu))
    close(module.prototypes, mu)
    assert set(module.state_dict()) == {"prototypes"}
    close(module.logits(x), normalized_softmax_logits(x, mu, scale=10.0))


def test_variation_and_separation() -> None:
    x, y = normal(12, 3), torch.arange(12) % 2
    domains = torch.arange(12) // 4
    worst = 0.0
    for k in range(2):
        means = [F.normalize(x[(y == k) & (domains == e)]).mean(0).tolist() for e in range(3)]
        worst = max([worst, *(gap(a, b) for a, b in itertools.combinations(means, 2))])
    close(intra_class_variation(x, y, domains), double(worst))
    assert intra_class_variation(x, y, torch.zeros(12)) == 0
    m = units(x[:5])
    apart = [1 - dot(a, b) for a, b in itertools.combinations(m, 2)]
    close(inter_class_separation(x[:5]), double(sum(apart) / len(apart)))
    close(inter_class_separation(simplex(4)), torch.tensor(4 / 3))


# --- The ball, in fifty digits -------------------------------------------------------------------------


def exact_distance(x: Vector, y: Vector, c: float) -> float:
    """From the Möbius difference and artanh, the formula that float arithmetic cannot use."""
    with localcontext() as context:
        context.prec = 60
        xs, ys, k = [-Decimal(a) for a in x], [Decimal(a) for a in y], Decimal(c)
        xy = sum(a * b for a, b in zip(xs, ys, strict=True))
        xx, yy = sum(a * a for a in xs), sum(a * a for a in ys)
        bottom = 1 + 2 * k * xy + k * k * xx * yy
        z = [
            ((1 + 2 * k * xy + k * yy) * a + (1 - k * xx) * b) / bottom
            for a, b in zip(xs, ys, strict=True)
        ]
        norm = sum(a * a for a in z).sqrt()
        if k == 0:
            return float(2 * norm)
        root = k.sqrt()
        return float(((1 + root * norm) / (1 - root * norm)).ln() / root)


def ball_points(count: int, c: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points from the center out to the last that the dtype has inside the ball."""
    direction = F.normalize(normal(count, 3))
    eps = torch.finfo(dtype).eps
    depth = 10 ** torch.linspace(0, math.log10(4 * eps), count, dtype=torch.float64)
    x = (direction * ((1 - depth) / math.sqrt(c or 1))[:, None]).to(dtype)
    return x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("c", CURVATURES)
def test_distance_to_the_last_digits_up_to_the_boundary(c: float, dtype: torch.dtype) -> None:
    x, y = ball_points(12, c, dtype), ball_points(12, c, dtype)[torch.randperm(12)]
    expected = [exact_distance(a, b, c) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    # A float64 point near the boundary is exact, its 1 - c|x|^2 has a rounding error of eps.
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    actual = poincare_distance(x, y, c=c)
    inner = double(
        [min(1 - c * dot(v, v) for v in p) for p in zip(x.tolist(), y.tolist(), strict=True)]
    )
    error = (actual.double() - double(expected)).abs()
    if dtype == torch.float32:
        assert (error <= tolerance * double(expected)).all()
    else:
        assert (error <= 1e-14 * double(expected) + 1e-15 / inner).all()


def test_artanh_loses_what_arsinh_keeps() -> None:
    """The wrong turn: in float32 the Möbius difference of these points rounds to the boundary."""
    x, y = torch.tensor([0.9999, 0.0]), torch.tensor([-0.9999, 0.0])
    xx = x.square().sum()
    difference = ((1 + 2 * (-x @ y) + xx) * -x + (1 - xx) * y) / (1 + 2 * (-x @ y) + xx * xx)
    assert torch.atanh(difference.norm()).isinf()
    close(poincare_distance(x, y), torch.tensor(4 * math.atanh(0.9999)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("c", CURVATURES)
def test_close_points(c: float) -> None:
    x = 0.4 * F.normalize(normal(5, 3))
    y = x + 1e-9 * normal(5, 3)
    expected = [exact_distance(a, b, c) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    close(poincare_distance(x, y, c=c), double(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["tanh", "atanh", "asinh", "sinh"])
def test_series_meet_their_functions_at_the_cutoff(name: str) -> None:
    quotient = {
        "tanh": hypersphere._tanhc,
        "atanh": hypersphere._artanhc,
        "asinh": hypersphere._arsinhc,
        "sinh": hypersphere._sinhc,
    }[name]
    s = double([0.0, 1e-9, 3e-4, 9.99e-4, 1.01e-3, 0.5])
    exact = [getattr(math, name)(math.sqrt(x)) / math.sqrt(x) if x else 1.0 for x in s.tolist()]
    close(quotient(s), double(exact), rtol=5e-15, atol=0)


def radius(x: Tensor, c: float) -> Tensor:
    return math.sqrt(c) * x.norm(dim=-1)


def loop_mobius(x: Vector, y: Vector, c: float) -> Vector:
    xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
    bottom = 1 + 2 * c * xy + c * c * xx * yy
    return [
        ((1 + 2 * c * xy + c * yy) * a + (1 - c * xx) * b) / bottom
        for a, b in zip(x, y, strict=True)
    ]


def inside(count: int, c: float, size: float = 0.8) -> Tensor:
    return size / math.sqrt(c or 1) * torch.rand(count, 1).double() * F.normalize(normal(count, 3))


@pytest.mark.parametrize("c", CURVATURES)
def test_ball_operations_equal_their_formulas(c: float) -> None:
    x, y = inside(6, c), inside(6, c)
    root = math.sqrt(c)
    added = [loop_mobius(a, b, c) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    close(mobius_add(x, y, c=c), double(added))
    close(conformal_factor(x, c=c), double([2 / (1 - c * dot(a, a)) for a in x.tolist()]))
    if c == 0:
        close(mobius_add(x, y, c=0), x + y)
        close(mobius_scale(x, 2.5, c=0), 2.5 * x)
        close(poincare_exp(y, x, c=0), x + y)
        close(poincare_log(y, x, c=0), y - x)
        close(poincare_distance(x, y, c=0), 2 * (x - y).norm(dim=1))
        return
    norms = [math.sqrt(dot(a, a)) for a in x.tolist()]
    for factor in (2.5, -0.7, 0.0):
        scaled = [
            [math.tanh(factor * math.atanh(root * n)) * v / (root * n) for v in a]
            for a, n in zip(x.tolist(), norms, strict=True)
        ]
        close(mobius_scale(x, factor, c=c), double(scaled))
    close(mobius_scale(x, double([2.0] * 6), c=c), mobius_add(x, x, c=c))
    at_zero = [[math.tanh(root * n) * v / (root * n) for v in a]
               for a, n in zip(x.tolist(), norms, strict=True)]  # fmt: skip
    close(poincare_exp(x, c=c), double(at_zero))
    close(poincare_log(double(at_zero), c=c), x)
    tangent, expected = normal(6, 3), []
    for base, v in zip(x.tolist(), tangent.tolist(), strict=True):
        n, factor = math.sqrt(dot(v, v)), 2 / (1 - c * dot(base, base))
        step = [math.tanh(root * factor * n / 2) * a / (root * n) for a in v]
        expected.append(loop_mobius(base, step, c))
    close(poincare_exp(tangent, x, c=c), double(expected))


@quick
@given(st.sampled_from(CURVATURES), st.integers(0, 10**6))
def test_laws_of_the_ball(c: float, seed: int) -> None:
    torch.manual_seed(seed)
    x, y, v = inside(4, c), inside(4, c), 0.3 * normal(4, 3)
    rule = {"c": c}
    close(mobius_add(-x, mobius_add(x, y, **rule), **rule), y, rtol=1e-6, atol=1e-9)
    close(poincare_log(poincare_exp(v, x, **rule), x, **rule), v, rtol=1e-6, atol=1e-9)
    close(poincare_exp(poincare_log(y, x, **rule), x, **rule), y, rtol=1e-6, atol=1e-9)
    d = poincare_distance(x, y, **rule)
    close(conformal_factor(x, **rule) * poincare_log(y, x, **rule).norm(dim=1), d)
    close(poincare_distance(mobius_add(v.tanh() / 3 / max(1, c), x, **rule),
                            mobius_add(v.tanh() / 3 / max(1, c), y, **rule), **rule), d,
          rtol=1e-6, atol=1e-9)  # fmt: skip
    way = poincare_geodesic(x, y, double([0.0, 0.3, 1.0]), **rule)
    close(way[0], x, rtol=1e-6, atol=1e-9)
    close(way[2], y, rtol=1e-6, atol=1e-9)
    close(poincare_distance(x, way[1], **rule), 0.3 * d, rtol=1e-6, atol=1e-9)
    close(poincare_distance(way[1], y, **rule), 0.7 * d, rtol=1e-6, atol=1e-9)
    by_mobius = mobius_add(x, mobius_scale(mobius_add(-x, y, **rule), 0.3, **rule), **rule)
    close(way[1], by_mobius, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("c", [1e-4, 1e-8])
def test_small_curvature_is_nearly_euclidean(c: float) -> None:
    x, y = normal(5, 3), normal(5, 3)
    close(mobius_add(x, y, c=c), x + y, rtol=0, atol=100 * c)
    close(poincare_distance(x, y, c=c), 2 * (x - y).norm(dim=1), rtol=0, atol=100 * c)
    close(poincare_exp(y, x, c=c), x + y, rtol=0, atol=100 * c)
    p, a = normal(2, 3), normal(2, 3)
    flat = 4 * ((x[:, None] - p) * a).sum(2)
    close(hyperbolic_logits(x, p, a, c=c), flat, rtol=0, atol=1000 * c)
    close(hyperbolic_logits(x, p, a, c=0.0), flat)


def test_derivatives_in_the_ball() -> None:
    x, y = inside(3, 0.7), inside(3, 0.7)
    for c in (0.0, 0.7):
        derivatives_hold(lambda x, y, c=c: poincare_distance(x, y, c=c), x, y)
        derivatives_hold(lambda x, y, c=c: poincare_exp(y, x, c=c), x, y)
        derivatives_hold(lambda x, y, c=c: poincare_log(y, x, c=c), x, y)
        derivatives_hold(lambda x, c=c: mobius_scale(x, 1.7, c=c), x)
    for function in (poincare_exp, poincare_log, partial(mobius_scale, factor=2.0)):
        derivatives_hold(function, torch.zeros(2, 3).double())  # the center is no exception
    time = double([0.2, 0.9])
    derivatives_hold(lambda x, y: poincare_geodesic(x, y, time), x, y)
    compiled = torch.compile(poincare_distance, fullgraph=True, backend="eager")
    close(compiled(x, y), poincare_distance(x, y))
    close(torch.func.vmap(poincare_distance)(x, y), poincare_distance(x, y))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [0.1, 1.0])
def test_results_stay_inside_the_ball(c: float, dtype: torch.dtype) -> None:
    far = (100 * normal(50, 3)).to(dtype)
    edge = project_to_ball(far, c=c)
    assert edge.dtype == dtype
    for points in (
        edge,
        poincare_exp(far, c=c),
        mobius_add(edge, edge.flip(0), c=c),
        mobius_scale(edge, 3.0, c=c),
        poincare_exp(far, edge, c=c),
        poincare_geodesic(edge, edge.flip(0), torch.linspace(0, 1, 5, dtype=dtype), c=c),
    ):
        assert points.dtype == dtype
        assert (radius(points.double(), c) < 1).all()
    farthest = poincare_distance(edge.double(), torch.zeros(3).double(), c=c).min()
    assert farthest * math.sqrt(c) > math.log(1 / torch.finfo(dtype).eps) - 2.5
    inner = edge.clone() * 0.5
    close(project_to_ball(inner, c=c), inner, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_at_the_boundary_are_finite(dtype: torch.dtype) -> None:
    edge = project_to_ball(100 * torch.randn(6, 3, dtype=dtype)).requires_grad_()
    other = project_to_ball(100 * torch.randn(6, 3, dtype=dtype)).requires_grad_()
    p, a = 0.3 * torch.randn(2, 3, dtype=dtype), torch.randn(2, 3, dtype=dtype)
    for value in (
        poincare_distance(edge, other),
        poincare_log(other, edge),
        hyperbolic_logits(edge, p / 3, a, c=1.0),
        poincare_geodesic(edge, other, torch.tensor([0.5], dtype=dtype)),
    ):
        assert value.isfinite().all()
        for slope in torch.autograd.grad(value.sum(), (edge, other), allow_unused=True):
            assert slope is None or slope.isfinite().all()
    assert poincare_distance(edge, other).min() > 10


def test_geodesics_meet_the_boundary_at_right_angles() -> None:
    """The circle through two boundary points that is orthogonal to the unit circle."""
    x, y = double([1 - 1e-12, 0.0]), double([0.0, 1 - 1e-12])
    way = poincare_geodesic(x, y, torch.linspace(0, 1, 9).double())
    close((way - double([1.0, 1.0])).norm(dim=1), torch.ones(9).double(), rtol=0, atol=1e-6)
    close(way[4], double([1 - math.sqrt(0.5)] * 2), rtol=0, atol=1e-6)


# --- Classification in the ball ----------------------------------------------------------------------


def test_hyperbolic_logits_equal_the_formula_of_ganea() -> None:
    c, root = 0.6, math.sqrt(0.6)
    x, p, a = inside(5, c), inside(3, c), normal(3, 3)
    expected = []
    for point in x.tolist():
        row = []
        for offset, normal_vector in zip(p.tolist(), a.tolist(), strict=True):
            w = loop_mobius([-v for v in offset], point, c)
            size = math.sqrt(dot(normal_vector, normal_vector))
            sine = 2 * root * dot(w, normal_vector) / ((1 - c * dot(w, w)) * size)
            factor = 2 / (1 - c * dot(offset, offset))
            row.append(factor * size / root * math.asinh(sine))
        expected.append(row)
    close(hyperbolic_logits(x, p, a, c=c), double(expected))
    derivatives_hold(lambda x, p, a: hyperbolic_logits(x, p, a, c=c), x, p, a)
    close(hyperbolic_logits(p, p, a, c=c).diagonal(), torch.zeros(3).double())
    zero = hyperbolic_logits(x, p, torch.zeros(3, 3).double(), c=c)
    close(zero, torch.zeros(5, 3).double())


def test_the_classifier_transports_its_normals() -> None:
    layer = HyperbolicClassifier(3, 2, c=0.5).double()
    offsets, normals = layer.hyperplanes()
    close(offsets, poincare_exp(layer.offset, c=0.5))
    close(normals, layer.normal * (2 / conformal_factor(offsets, c=0.5))[:, None])
    x = inside(4, 0.5)
    close(layer(x), hyperbolic_logits(x, offsets, normals, c=0.5))


def test_one_class_loss_is_cross_entropy_of_two_classes() -> None:
    x, fake, p, a = inside(4, 0.1), inside(3, 0.1), inside(2, 0.1), normal(2, 3)
    logits = hyperbolic_logits(torch.cat([x, fake]), p, a, c=0.1)
    expected = F.cross_entropy(logits, torch.tensor([0] * 4 + [1] * 3), reduction="none")
    actual = one_class_hyperbolic_loss(x, fake, offsets=p, normals=a, reduction="none")
    close(actual, expected)


def test_pairwise_confusion_equals_its_formula() -> None:
    x, c = inside(6, 0.4), 0.4
    expected = sum(exact_distance(x[i].tolist(), x[i + 3].tolist(), c) for i in range(3)) / 6
    close(pairwise_confusion_loss(x, c=c), double(expected))
    with pytest.raises(ValueError, match="even"):
        pairwise_confusion_loss(x[:5])


def test_pseudo_negatives_surround_a_moving_mean() -> None:
    sampler = PseudoNegatives(2, momentum=0.75, deviation=0.5)
    first, second = torch.full((4, 2), 8.0), torch.zeros(3, 2)
    assert sampler(first).shape == (4, 2)
    close(sampler.mean, torch.tensor([8.0, 8.0]))
    sampler(second)
    close(sampler.mean, torch.tensor([6.0, 6.0]))
    sampler.eval()
    drawn = sampler(torch.ones(4000, 2, requires_grad=True))
    close(sampler.mean, torch.tensor([6.0, 6.0]))
    assert not drawn.requires_grad
    close(drawn.mean(0), sampler.mean, rtol=0, atol=0.05)
    close(drawn.std(0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.03)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_hybrid_contrastive_equals_its_formula(mix: float) -> None:
    x, y, tau, c = inside(3, 0.1), inside(3, 0.1), 0.4, 0.1
    views = [*x.tolist(), *y.tolist()]

    def info_nce(similarity: Callable[[Vector, Vector], float]) -> Vector:
        losses = []
        for i in range(6):
            terms = {j: similarity(views[i], views[j]) / tau for j in range(6) if j != i}
            total = sum(math.exp(term) for term in terms.values())
            losses.append(math.log(total) - terms[(i + 3) % 6])
        return [(losses[i] + losses[i + 3]) / 2 for i in range(3)]

    angle = info_nce(lambda u, v: dot(unit(u), unit(v)))
    far = info_nce(lambda u, v: -exact_distance(u, v, c))
    expected = [(1 - mix) * a + mix * b for a, b in zip(angle, far, strict=True)]
    loss = partial(hybrid_contrastive_loss, mix=mix, temperature=tau, c=c)
    close(loss(x, y, reduction="none"), double(expected))


def test_clip_norm() -> None:
    x = double([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]).requires_grad_()
    close(clip_norm(x), double([[1.2, 1.6], [0.3, 0.4], [0.0, 0.0]]))
    (slope,) = torch.autograd.grad(clip_norm(x).sum(), x)
    assert slope.isfinite().all()


# --- Bad input, examples -------------------------------------------------------------------------------


OUT, ZERO = torch.tensor([[1.0, 0.0]]), torch.zeros(2, 2)
ONES, LABELS = torch.ones(2, 2), torch.tensor([0, 1])


@pytest.mark.parametrize(
    "call, argument",
    [
        (lambda: uniformity_loss(ZERO), "embeddings must not hold zero"),
        (lambda: uniformity_loss(ONES[:1]), "number of embeddings"),
        (lambda: uniformity_loss(torch.ones(2, 0)), "dimension of embeddings"),
        (lambda: alignment_loss(ONES, ZERO), "positive"),
        (lambda: alignment_loss(ZERO, ONES), "anchor"),
        (lambda: hyperspherical_energy(ZERO), "points"),
        (lambda: hyperspherical_energy(ONES[:1]), "number of points"),
        (lambda: hyperspherical_energy(ONES, kernel="cubic"), "kernel"),
        (lambda: hyperspherical_energy(ONES, s=0), "s must"),
        (lambda: energy_lower_bound(1), "number"),
        (lambda: simplex(1), "number"),
        (lambda: cross_polytope(0), "dimension"),
        (lambda: vmf_log_partition(-1.0, 3), "concentration"),
        (lambda: uniformity_limit(0), "dimension"),
        (lambda: geodesic_distance(ONES, torch.ones(2, 3)), "second"),
        (lambda: norm_loss(torch.ones(3)), "weight"),
        (lambda: normalized_softmax_logits(ONES, torch.ones(2, 3)), "prototypes"),
        (lambda: normalized_softmax_logits(ONES, ZERO), "prototypes"),
        (lambda: normalized_softmax_logits(ONES, ONES, scale=0), "scale"),
        (lambda: spherical_class_means(ONES, torch.tensor([0, 5]), classes=2), "target"),
        (lambda: dispersion_loss(ONES[:1]), "number of prototypes"),
        (lambda: compactness_loss(ONES, LABELS, prototypes=ONES, domains=LABELS[:1]), "domains"),
        (lambda: compactness_loss(ONES, ONES / 2, prototypes=ONES, domains=LABELS), "target"),
        (lambda: update_prototypes(ONES, ONES, torch.tensor([0, 2])), "target"),
        (lambda: update_prototypes(ONES, torch.ones(2, 3), LABELS), "embeddings"),
        (lambda: update_prototypes(ONES, ONES, LABELS, momentum=1.5), "momentum"),
        (lambda: HypoLoss(1, 3), "classes"),
        (lambda: HypoLoss(2, 3, temperature=0), "temperature"),
        (lambda: intra_class_variation(ONES[:0], LABELS[:0], LABELS[:0]), "number of embeddings"),
        (lambda: intra_class_variation(ONES, LABELS[:1], LABELS), "target"),
        (lambda: inter_class_separation(ONES[:1]), "number of prototypes"),
        (lambda: poincare_distance(OUT, OUT / 2), "x must lie inside"),
        (lambda: poincare_distance(OUT / 2, 2 * OUT), "y must lie inside"),
        (lambda: poincare_distance(OUT / 2, OUT / 2, c=-1), "c must"),
        (lambda: poincare_distance(OUT / 2, torch.ones(1, 3) / 2), "y"),
        (lambda: mobius_add(OUT, OUT / 2), "x must lie inside"),
        (lambda: mobius_scale(OUT, 2.0), "x must lie inside"),
        (lambda: conformal_factor(OUT), "x must lie inside"),
        (lambda: poincare_exp(OUT, OUT), "base must lie inside"),
        (lambda: poincare_log(OUT), "y must lie inside"),
        (lambda: poincare_geodesic(OUT / 2, OUT / 2, torch.tensor(0.5)), "time"),
        (lambda: clip_norm(OUT, radius=0), "radius"),
        (lambda: hyperbolic_logits(5 * OUT, ONES / 2, ONES), "points must lie inside"),
        (lambda: hyperbolic_logits(OUT, 5 * ONES, ONES), "offsets must lie inside"),
        (lambda: hyperbolic_logits(OUT, ONES / 2, ONES[:1]), "normals"),
        (lambda: one_class_hyperbolic_loss(OUT, ONES, offsets=OUT, normals=OUT), "offsets"),
        (
            lambda: one_class_hyperbolic_loss(OUT, 9 * ONES, offsets=ONES, normals=ONES),
            "negative must lie inside",
        ),
        (lambda: hybrid_contrastive_loss(ZERO, ONES), "anchor"),
        (lambda: hybrid_contrastive_loss(ONES, 9 * ONES), "positive must lie inside"),
        (lambda: PseudoNegatives(2)(torch.ones(2, 3)), "features"),
        (lambda: PseudoNegatives(2, deviation=0), "deviation"),
        (lambda: HyperbolicClassifier(0, 2), "dimension"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        call()


@pytest.mark.parametrize(
    "call, argument",
    [
        (lambda: poincare_distance(LABELS, OUT), "x"),
        (lambda: geodesic_distance(LABELS, ONES), "first"),
        (lambda: spherical_class_means(ONES, ONES, classes=2), "target"),
        (lambda: update_prototypes(ONES, ONES, ONES), "target"),
        (lambda: project_to_ball([1.0]), "x"),  # type: ignore[arg-type]
    ],
)
def test_wrong_type_is_named(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(TypeError, match=argument):
        call()


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(import_module("lossbook.representation.hypersphere"))
    assert result.attempted > 5 and result.failed == 0
