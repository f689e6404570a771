"""Cross-entropy and its relatives, against loops written from the formulas.

What all losses share (reductions, dtypes, extremes, derivatives, bad input) is tested in
test_contracts.py.
"""

import cmath
import doctest
import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.classification import (
    AldrKlLoss,
    DistanceLayer,
    EnsLoss,
    HrrLoss,
    SphericalLayer,
    comp_sum_bound,
    comp_sum_loss,
    comp_sum_transform,
    cross_entropy,
    encouraging_loss,
    ens_derivatives,
    ens_loss,
    halted_focal_loss,
    harmonic_loss,
    hrr_bind,
    hrr_loss,
    hrr_project,
    hrr_unbind,
    inverse_box_cox,
    ldr_kl_loss,
    log_complement,
    margin_shift_attack,
    minimizability_gap,
    poly_focal_loss,
    poly_loss,
    rescaled_square_loss,
    smooth_adversarial_comp_sum_loss,
    spherical_softmax,
    spherical_softmax_loss,
    spherical_softmax_loss_from_statistics,
    squentropy_loss,
    z_loss,
    z_loss_from_statistics,
)

Vector = list[float]
close = torch.testing.assert_close
quick = settings(max_examples=30, deadline=None)
logit = st.floats(-20, 20)
vectors = st.integers(2, 6).flatmap(lambda n: st.lists(logit, min_size=n, max_size=n))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def double(*values: object) -> Tensor:
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64)


def row(z: Vector) -> Tensor:
    return double([z])


def label(y: int) -> Tensor:
    return torch.tensor([y])


# --- The formulas, in loops ---------------------------------------------------------------------


def softmax(z: Vector) -> Vector:
    exponentials = [math.exp(x) for x in z]
    return [e / sum(exponentials) for e in exponentials]


def wrong_classes(z: Vector, y: int) -> list[int]:
    return [k for k in range(len(z)) if k != y]


def reference_comp_sum(z: Vector, y: int, tau: float) -> float:
    u = sum(math.exp(z[k] - z[y]) for k in wrong_classes(z, y))
    return math.log(1 + u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau)


def reference_ldr(
    z: Vector, y: int, temperature: float = 1.0, margin: float = 2.0, normalize: bool = False
) -> float:
    if normalize:
        positive = [math.log(1 + math.exp(x)) for x in z]
        z = [x / (sum(positive) / len(z)) for x in positive]
    terms = [math.exp((z[k] - z[y] + margin * (k != y)) / temperature) for k in range(len(z))]
    return temperature * math.log(sum(terms) / len(z))


def reference_poly(z: Vector, y: int, epsilon: tuple[float, ...]) -> float:
    p = softmax(z)[y]
    return -math.log(p) + sum(e * (1 - p) ** (j + 1) for j, e in enumerate(epsilon))


def reference_encouraging(z: Vector, y: int, end: float) -> float:
    p = softmax(z)[y]
    bonus = math.log(1 - p) if p <= end else math.log(1 - end) - (p - end) / (1 - end)
    return -math.log(p) + bonus


def reference_halted_focal(z: Vector, y: int, gamma: float, halt: float) -> float:
    p = softmax(z)[y]
    if p <= halt:
        return -((1 - p) ** gamma) * math.log(p)
    focal_at_halt, entropy_at_halt = -((1 - halt) ** gamma) * math.log(halt), -math.log(halt)
    return -math.log(p) - (entropy_at_halt - focal_at_halt)


def reference_squentropy(z: Vector, y: int) -> float:
    squares = [z[k] ** 2 for k in wrong_classes(z, y)]
    return -math.log(softmax(z)[y]) + sum(squares) / len(squares)


def reference_square(z: Vector, y: int, scale: float, magnitude: float) -> float:
    wrong = sum(z[k] ** 2 for k in wrong_classes(z, y))
    return (scale * (z[y] - magnitude) ** 2 + wrong) / len(z)


def reference_z(z: Vector, y: int, a: float, b: float) -> float:
    mean = sum(z) / len(z)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in z) / len(z))
    return math.log(1 + math.exp(a * (b - (z[y] - mean) / deviation))) / a


def reference_spherical(z: Vector, y: int, epsilon: float) -> float:
    return -math.log((z[y] ** 2 + epsilon) / sum(x**2 + epsilon for x in z))


def reference_harmonic(z: Vector, y: int, n: float, epsilon: float) -> float:
    powers = [(x**2 + epsilon) ** (-n / 2) for x in z]
    return -math.log(powers[y] / sum(powers))


REFERENCES: list[tuple[Callable[..., Tensor], Callable[[Vector, int], float]]] = [
    (cross_entropy, lambda z, y: -math.log(softmax(z)[y])),
    *[
        (partial(comp_sum_loss, tau=tau), partial(reference_comp_sum, tau=tau))
        for tau in (0.0, 0.3, 0.999999, 1.0, 1.000001, 1.7, 2.0, 3.5)
    ],
    (ldr_kl_loss, reference_ldr),
    (
        partial(ldr_kl_loss, temperature=0.5, margin=0.7),
        partial(reference_ldr, temperature=0.5, margin=0.7),
    ),
    (partial(ldr_kl_loss, normalize=True), partial(reference_ldr, normalize=True)),
    (poly_loss, partial(reference_poly, epsilon=(1.0,))),
    (partial(poly_loss, epsilon=-1), partial(reference_poly, epsilon=(-1.0,))),
    (partial(poly_loss, epsilon=(2.0, -1.0, 0.5)), partial(reference_poly, epsilon=(2, -1, 0.5))),
    (encouraging_loss, partial(reference_encouraging, end=0.75)),
    (partial(encouraging_loss, end_point=0.1), partial(reference_encouraging, end=0.1)),
    (partial(encouraging_loss, end_point=1), partial(reference_encouraging, end=1)),
    (halted_focal_loss, partial(reference_halted_focal, gamma=2, halt=0.5)),
    (
        partial(halted_focal_loss, gamma=0.5, halt=0.2),
        partial(reference_halted_focal, gamma=0.5, halt=0.2),
    ),
    (squentropy_loss, reference_squentropy),
    (rescaled_square_loss, partial(reference_square, scale=1, magnitude=1)),
    (
        partial(rescaled_square_loss, scale=15, magnitude=30),
        partial(reference_square, scale=15, magnitude=30),
    ),
    (z_loss, partial(reference_z, a=1, b=1)),
    (partial(z_loss, sharpness=4, offset=-0.5), partial(reference_z, a=4, b=-0.5)),
    (spherical_softmax_loss, partial(reference_spherical, epsilon=1e-4)),
    (partial(spherical_softmax_loss, epsilon=0.5), partial(reference_spherical, epsilon=0.5)),
    (
        lambda z, y, **k: harmonic_loss(z.abs(), y, **k),
        partial(reference_harmonic, n=2, epsilon=1e-4),
    ),
    (
        lambda z, y, **k: harmonic_loss(z.abs(), y, exponent=5, epsilon=0, **k),
        partial(reference_harmonic, n=5, epsilon=0),
    ),
]


@pytest.mark.parametrize("loss, reference", REFERENCES)
def test_loss_equals_its_formula(
    loss: Callable[..., Tensor], reference: Callable[[Vector, int], float]
) -> None:
    logits = 2 * torch.randn(40, 5, dtype=torch.float64)
    target = torch.arange(40) % 5
    expected = [reference(z, y) for z, y in zip(logits.tolist(), target.tolist(), strict=True)]
    close(loss(logits, target, reduction="none"), double(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma, epsilon, alpha", [(2, 1, None), (0, 0, None), (1.5, -1, 0.25)])
def test_poly_focal_loss_equals_its_formula(
    gamma: float, epsilon: float, alpha: float | None
) -> None:
    logits = 2 * torch.randn(6, 4, dtype=torch.float64)
    target = torch.arange(6) % 4
    entries = []
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        for k in range(4):
            p = 1 / (1 + math.exp(-z[k]))
            p_t = p if k == y else 1 - p
            balance = 1.0 if alpha is None else (alpha if k == y else 1 - alpha)
            focal = -balance * (1 - p_t) ** gamma * math.log(p_t)
            entries.append(focal + epsilon * (1 - p_t) ** (gamma + 1))
    options = {"gamma": gamma, "epsilon": epsilon, "alpha": alpha}
    actual = poly_focal_loss(logits, target, reduction="none", **options)
    close(actual, double(entries).reshape(6, 4))
    close(poly_focal_loss(logits, target, **options), double(sum(entries) / 24))


def test_poly_focal_loss_takes_multi_label_targets() -> None:
    logits, target = torch.randn(5, 3, dtype=torch.float64), double([[1, 0, 1]] * 5)
    close(
        poly_focal_loss(logits, target, gamma=0, epsilon=0),
        F.binary_cross_entropy_with_logits(logits, target),
    )
    half = torch.full_like(target, 0.5)
    ones, zeros = torch.ones_like(target), torch.zeros_like(target)
    mean = (poly_focal_loss(logits, ones) + poly_focal_loss(logits, zeros)) / 2
    close(poly_focal_loss(logits, half), mean)


def test_smooth_adversarial_loss_equals_its_formula() -> None:
    clean, moved = torch.randn(2, 8, 4, dtype=torch.float64)
    target, tau, rho, nu = torch.arange(8) % 4, 0.5, 0.7, 1.3
    expected = []
    for z, x, y in zip(clean.tolist(), moved.tolist(), target.tolist(), strict=True):
        u = sum(math.exp(-(z[y] - z[k]) / rho) for k in wrong_classes(z, y))
        shifts = [(x[y] - x[k]) - (z[y] - z[k]) for k in wrong_classes(z, y)]
        penalty = math.sqrt(sum(s**2 for s in shifts))
        expected.append(((1 + u) ** (1 - tau) - 1) / (1 - tau) + nu * penalty)
    actual = smooth_adversarial_comp_sum_loss(
        clean, moved, target, tau=tau, rho=rho, nu=nu, reduction="none"
    )
    close(actual, double(expected))


def test_smooth_adversarial_loss_without_an_adversary_is_the_comp_sum_loss() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target = torch.arange(6) % 4
    value = smooth_adversarial_comp_sum_loss(logits, logits.detach() + 3, target)
    close(value, cross_entropy(logits, target))  # a common shift moves no margin
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()


# --- Cross-entropy ----------------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_that_of_torch(
    label_smoothing: float, reduction: str, weighted: bool
) -> None:
    logits = torch.randn(4, 5, 3, dtype=torch.float64)
    target = torch.randint(0, 5, (4, 3))
    target[1, 2] = -100
    weight = torch.rand(5, dtype=torch.float64) if weighted else None
    options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": reduction}
    close(cross_entropy(logits, target, **options), F.cross_entropy(logits, target, **options))
    soft = torch.randn(4, 5, 3, dtype=torch.float64).softmax(1)
    if not (weighted and reduction == "mean"):  # there torch forgets to divide by the weights
        close(cross_entropy(logits, soft, **options), F.cross_entropy(logits, soft, **options))


@quick
@given(vectors, st.data())
def test_gibbs_inequality(z: Vector, data: st.DataObject) -> None:
    q = row(data.draw(st.lists(logit, min_size=len(z), max_size=len(z)))).softmax(1)
    entropy = -torch.xlogy(q, q).sum()
    assert cross_entropy(row(z), q) >= entropy - 1e-9
    close(cross_entropy(q.log(), q), entropy)


def softmax_losses() -> list[Callable[..., Tensor]]:
    return [
        cross_entropy,
        partial(comp_sum_loss, tau=0.5),
        partial(comp_sum_loss, tau=1.7),
        ldr_kl_loss,
        poly_loss,
        encouraging_loss,
        partial(encouraging_loss, end_point=1),
        halted_focal_loss,
        z_loss,
    ]


@quick
@given(vectors, st.floats(-100, 100), st.randoms())
def test_shift_and_permutation(z: Vector, shift: float, random: object) -> None:
    order = list(range(len(z)))
    random.shuffle(order)  # type: ignore[attr-defined]
    spread = max(z) - min(z) > 1e-2
    for loss in softmax_losses():
        if loss is z_loss and not spread:
            continue  # nothing to standardize
        value = loss(row(z), label(order[0]))
        close(loss(row(z) + shift, label(order[0])), value, rtol=1e-6, atol=1e-9)
        close(loss(row([z[k] for k in order]), label(0)), value, rtol=1e-9, atol=1e-9)


# --- log(1 - p) -------------------------------------------------------------------------------


def exact_log_complement(z: Vector, k: int) -> float:
    with localcontext() as context:
        context.prec = 200
        exponentials = [Decimal(x).exp() for x in z]
        return float((sum(exponentials[j] for j in wrong_classes(z, k)) / sum(exponentials)).ln())


@pytest.mark.parametrize(
    "z",
    [[0, 0], [3, 1, -2], [40, 0, -1], [200, 1, 2, 3], [1e4, -1e4, 0], [-50, -50, 7], [0, 1e-9]],
)
def test_log_complement_to_the_last_digits(z: Vector) -> None:
    expected = double([[exact_log_complement(z, k) for k in range(len(z))]])
    close(log_complement(row(z)), expected, rtol=1e-13, atol=1e-300)
    close(log_complement(row(z).float()), expected.float(), rtol=1e-5, atol=0)


@quick
@given(vectors)
def test_log_complement_completes_to_one(z: Vector) -> None:
    close(row(z).softmax(1) + log_complement(row(z)).exp(), torch.ones(1, len(z)).double())


def test_log_complement_derivatives() -> None:
    for z in (torch.randn(3, 4, 2).double(), row([50, 0, 1]), row([1, 1]), row([2, 2, 2])):
        assert torch.autograd.gradcheck(log_complement, z.requires_grad_())
        assert torch.autograd.gradgradcheck(log_complement, z.requires_grad_())
    close(torch.func.vmap(log_complement)(z[None]), log_complement(z)[None])
    logits = torch.randn(3, 4)
    compiled = torch.compile(log_complement, fullgraph=True, backend="eager")
    close(compiled(logits), log_complement(logits))


def test_log_complement_of_one_class() -> None:
    assert (log_complement(torch.randn(3, 1)) == -math.inf).all()


# --- Comp-sum losses ---------------------------------------------------------------------------


def test_comp_sum_end_points() -> None:
    logits, target = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 4
    p = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
    close(comp_sum_loss(logits, target, tau=0, reduction="none"), 1 / p - 1)
    close(comp_sum_loss(logits, target, tau=1), cross_entropy(logits, target))
    close(comp_sum_loss(logits, target, tau=2, reduction="none"), 1 - p)
    q = 0.7  # generalized cross-entropy
    close(comp_sum_loss(logits, target, tau=1 + q, reduction="none"), (1 - p**q) / q)


@quick
@given(vectors, st.floats(1e-15, 1e-3))
def test_comp_sum_is_smooth_through_one(z: Vector, step: float) -> None:
    middle = comp_sum_loss(row(z), label(0), tau=1)
    below = comp_sum_loss(row(z), label(0), tau=1 - step)
    above = comp_sum_loss(row(z), label(0), tau=1 + step)
    assert above <= middle * (1 + 1e-12) and middle <= below * (1 + 1e-12)  # it falls with tau
    close(below, middle, rtol=step * 50, atol=1e-12)
    close(above, middle, rtol=step * 50, atol=1e-12)


def test_comp_sum_continues_by_its_tangent() -> None:
    for dtype, limit in ((torch.float32, 0.8 * 88.72), (torch.float16, 0.8 * 11.09)):
        gap = torch.tensor([limit - 1, limit + 2, limit + 5, limit + 8], dtype=torch.float64)
        z = torch.stack([-gap, torch.zeros_like(gap)], 1).to(dtype).requires_grad_()
        value = comp_sum_loss(z, torch.zeros(4, dtype=torch.int64), tau=0, reduction="none")
        assert value.isfinite().all()
        (gradient,) = torch.autograd.grad(value.sum(), z)
        slopes = -gradient[:, 0].double()
        close(slopes[0], (z[0, 1] - z[0, 0]).double().exp(), rtol=0.02, atol=0)  # still exact
        close(slopes[1:], torch.full((3,), math.exp(limit)).double(), rtol=0.02, atol=0)
    value = comp_sum_loss(row([-1e4, 1e4]).float(), label(0), tau=0)
    assert value.isfinite() and value > 1e30


def test_comp_sum_above_one_gives_up_on_the_badly_wrong() -> None:
    z = torch.tensor([[-100.0, 100.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(comp_sum_loss(z, label(0), tau=2), z)
    assert (gradient == 0).all()


def phi(q: np.ndarray, tau: float) -> np.ndarray:
    return -np.log(q) if tau == 1 else (q ** (tau - 1) - 1) / (1 - tau)


def simplex(classes: int, steps: int) -> np.ndarray:
    counts = itertools.product(range(steps + 1), repeat=classes - 1)
    return np.array([[*c, steps - sum(c)] for c in counts if sum(c) <= steps]) / steps


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_comp_sum_transform_bounds_every_regret_of_three_classes(tau: float) -> None:
    """All conditionals p and predictions q of a grid: 0-1 regret against surrogate regret."""
    p, q = simplex(3, 24), simplex(3, 60)
    q = np.maximum(q, 1e-9)
    conditional = p @ phi(q, tau).T  # (p, q): conditional surrogate risk
    predicted = q.argmax(1)
    tightest = np.inf
    for j in range(3):
        regret = conditional[:, predicted == j].min(1) - conditional.min(1)
        beta = p.max(1) - p[:, j]
        bound = comp_sum_transform(torch.tensor(beta), tau=tau, classes=3).numpy()
        assert (regret >= bound - 2e-3).all()  # up to the grid
        tightest = min(tightest, (regret - bound)[beta > 0.2].min())
    if tau <= 1:
        assert tightest < 5e-3
    if tau == 2:
        assert tightest < 1e-9


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 1.9, 2.0])
def test_comp_sum_transform_is_attained_by_two_classes(tau: float) -> None:
    q = np.linspace(1e-9, 1 - 1e-9, 40001)
    for beta in (0.05, 0.3, 0.8, 0.99):
        risk = (1 + beta) / 2 * phi(q, tau) + (1 - beta) / 2 * phi(1 - q, tau)
        regret = risk[q <= 0.5 + 1e-12].min() - risk.min()  # of predicting the less likely class
        bound = comp_sum_transform(double(beta), tau=tau, classes=2)
        close(bound, double(regret), rtol=1e-4, atol=1e-7)
        if tau <= 1:  # there the number of classes does not matter
            close(bound, comp_sum_transform(double(beta), tau=tau, classes=7))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_comp_sum_bound_inverts_the_transform(tau: float) -> None:
    beta = torch.linspace(0, 1, 21, dtype=torch.float64)
    excess = comp_sum_transform(beta, tau=tau, classes=4)
    close(comp_sum_bound(excess, tau=tau, classes=4), beta, rtol=0, atol=1e-6)
    assert excess[0] == 0 and (excess.diff() > 0).all()
    assert (excess.diff().diff() > -1e-12).all()  # convex
    assert comp_sum_bound(excess[-1] + 1, tau=tau, classes=4) == 1
    assert comp_sum_bound(excess.half(), tau=tau, classes=4).dtype == torch.float16


def test_comp_sum_bound_near_zero() -> None:
    t = double(1e-8)
    close(comp_sum_bound(t, tau=1), (2 * t).sqrt(), rtol=1e-3, atol=0)
    close(comp_sum_bound(t, tau=0), (2 * t).sqrt(), rtol=1e-3, atol=0)
    close(comp_sum_transform(double(1e-7), tau=0.999), double(0.5e-14), rtol=1e-2, atol=0)


def test_minimizability_gap_in_loops() -> None:
    losses = torch.rand(5, 3, 2, dtype=torch.float64)
    conditional = torch.rand(3, 2, dtype=torch.float64)
    conditional, marginal = conditional / conditional.sum(1, True), double(0.2, 0.3, 0.5)
    risks = [
        [sum(float(losses[h, x, y] * conditional[x, y]) for y in range(2)) for x in range(3)]
        for h in range(5)
    ]
    joint = min(sum(float(marginal[x]) * risks[h][x] for x in range(3)) for h in range(5))
    apart = sum(float(marginal[x]) * min(risks[h][x] for h in range(5)) for x in range(3))
    gap = minimizability_gap(losses, conditional, marginal)
    close(gap, double(joint - apart))
    assert gap > 0
    close(minimizability_gap(losses[:1], conditional, marginal), double(0.0))


def test_margin_shift_attack_finds_the_corner_of_a_linear_model() -> None:
    model = torch.nn.Linear(6, 2).double()
    inputs, target = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 0])
    radius = 0.1
    moved = margin_shift_attack(model, inputs, target, radius=radius, steps=20)
    assert not moved.requires_grad
    assert ((moved - inputs).abs() <= radius + 1e-12).all()
    shift = (model(moved) - model(inputs)).detach()
    best = radius * (model.weight[0] - model.weight[1]).abs().sum().detach()
    close((shift[:, 0] - shift[:, 1]).abs(), best.expand(5))
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():  # works where gradients are off
        margin_shift_attack(model, inputs, target, radius=radius, steps=1, step_size=0.01)


# --- LDR --------------------------------------------------------------------------------------


def test_ldr_kl_limits() -> None:
    logits, target = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    close(
        ldr_kl_loss(logits, target, margin=0), cross_entropy(logits, target) - math.log(5)
    )  # temperature 1
    chosen = logits.gather(1, target[:, None])
    violation = logits - chosen + 2.0
    violation.scatter_(1, target[:, None], 0)
    none = partial(ldr_kl_loss, logits, target, reduction="none")
    close(none(temperature=1e-6), violation.amax(1), rtol=0, atol=1e-5)  # Crammer and Singer
    close(none(temperature=1e7), violation.mean(1), rtol=1e-5, atol=1e-5)


@quick
@given(vectors, st.floats(0.05, 20), st.floats(0, 5), st.data())
def test_ldr_kl_is_a_maximum_over_label_weights(
    z: Vector, temperature: float, margin: float, data: st.DataObject
) -> None:
    value = float(ldr_kl_loss(row(z), label(0), temperature=temperature, margin=margin))
    gains = [x - z[0] + margin * (k > 0) for k, x in enumerate(z)]

    def objective(q: Vector) -> float:
        divergence = sum(p * math.log(p * len(z)) for p in q if p > 0)
        return sum(p * g for p, g in zip(q, gains, strict=True)) - temperature * divergence

    largest = max(gains)
    best = softmax([(g - largest) / temperature for g in gains])
    assert value == pytest.approx(objective(best), rel=1e-6, abs=1e-6)
    any_weights = softmax(data.draw(st.lists(logit, min_size=len(z), max_size=len(z))))
    assert value >= objective(any_weights) - 1e-6


def test_aldr_kl_equals_its_formula_over_two_visits() -> None:
    base, alpha, margin, classes = 0.8, 1.5, 1.2, 4
    loss = AldrKlLoss(10, classes, temperature=base, alpha=alpha, margin=margin).double()
    index, target = torch.tensor([7, 2, 5]), torch.tensor([0, 3, 1])
    temperatures = dict.fromkeys(index.tolist(), base)
    for _ in range(2):
        logits = 2 * torch.randn(3, classes, dtype=torch.float64)
        expected = 0.0
        for z, y, i in zip(logits.tolist(), target.tolist(), index.tolist(), strict=True):
            size = sum(abs(x) for x in z) / classes
            f = [x / size for x in z]
            q = [p + 1e-5 for p in softmax([x / temperatures[i] for x in f])]
            q = [p / sum(q) for p in q]
            divergence = sum(p * math.log(classes * p) for p in q)
            t = base - base * divergence / (alpha * math.log(classes))
            temperatures[i] = t
            expected += reference_ldr(f, y, temperature=t, margin=margin) / 3
            expected -= alpha * math.log(classes) / (2 * base) * (t - base) ** 2 / 3
        close(loss(logits, target, index), double(expected))
    for i in range(10):
        close(loss.temperatures[i], double(temperatures.get(i, base)))
    assert (
        base * (1 - 1 / alpha) <= loss.temperatures.min() < loss.temperatures.max() <= base + 1e-6
    )


def test_aldr_kl_holds_the_temperature_constant() -> None:
    loss = AldrKlLoss(3, 4)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    target, index = torch.tensor([0, 1, 2]), torch.arange(3)
    (actual,) = torch.autograd.grad(loss(logits, target, index), logits)
    f = logits / logits.abs().mean(1, keepdim=True)
    rows = [
        ldr_kl_loss(f[i : i + 1], target[i : i + 1], temperature=t, margin=1.0)
        for i, t in enumerate(loss.temperatures.double().tolist())
    ]
    (expected,) = torch.autograd.grad(sum(rows) / 3, logits)
    close(actual, expected, rtol=1e-5, atol=1e-7)


def test_aldr_kl_cools_what_is_confident_and_rests_in_evaluation() -> None:
    loss = AldrKlLoss(2, 3)
    logits, target = torch.tensor([[9.0, 0, 0], [1.0, 1, 1]]), torch.tensor([0, 0])
    before = loss.eval()(logits, target, torch.arange(2))
    assert (loss.temperatures == 1).all()
    close(loss.train()(logits, target, torch.arange(2)), before)
    assert loss.temperatures[0] < 0.8 and loss.temperatures[1] > 0.999
    assert "temperatures" in loss.state_dict()
    zero = torch.zeros(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(zero, label(0), label(0)), zero)
    assert gradient.isfinite().all()
    for bad in (torch.tensor([2, 0]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match="index"):
            loss(logits, target, bad)
    for options in ({"alpha": 1.0}, {"temperature": 0.0}, {"margin": -1.0}, {"reduction": "max"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            AldrKlLoss(2, 3, **options)
    with pytest.raises(ValueError, match="logits"):
        loss(torch.randn(2, 4), target, torch.arange(2))


# --- EnsLoss ----------------------------------------------------------------------------------


def test_ens_loss_equals_its_formula() -> None:
    scores, target = torch.randn(12, dtype=torch.float64) * 2, torch.arange(12) % 2
    draws = 1.5 * torch.rand(12, dtype=torch.float64)
    margins = [f * (2 * t - 1) for f, t in zip(scores.tolist(), target.tolist(), strict=True)]
    slopes = sorted(-min(1.0, e) for e in draws.tolist())
    expected = [0.0] * 12
    for slope, i in zip(slopes, sorted(range(12), key=lambda i: margins[i]), strict=True):
        expected[i] = (slope / margins[i] if margins[i] > 1 else slope) - 1e-6
    close(ens_derivatives(double(margins), draws), double(expected))
    leaf = scores.clone().requires_grad_()
    value = ens_loss(leaf, target, derivatives=draws)
    close(value, double(sum(g * s for g, s in zip(expected, margins, strict=True)) / 12))
    (gradient,) = torch.autograd.grad(value, leaf)
    close(gradient, double(expected) * (2 * target - 1) / 12)
    close(ens_loss(scores, target.double(), derivatives=draws.flip(0)), value.detach())


@quick
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.data())
def test_ens_derivatives_make_a_calibrated_convex_loss(
    margins: Vector, data: st.DataObject
) -> None:
    size = len(margins)
    draws = data.draw(st.lists(st.floats(0, 3), min_size=size, max_size=size))
    slopes = ens_derivatives(double(margins), double(draws))
    assert (slopes < 0).all() and (slopes >= -1 - 1e-5).all()
    order = sorted((s, g) for s, g in zip(margins, slopes.tolist(), strict=True) if s <= 1)
    for (s, g), (s_next, g_next) in itertools.pairwise(order):
        assert g <= g_next + 1e-12 or s == s_next


def test_inverse_box_cox() -> None:
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    close(inverse_box_cox(z, 0.0), z.exp())
    close(inverse_box_cox(z, 1e-9), z.exp(), rtol=1e-6, atol=0)
    close(inverse_box_cox(z, torch.tensor(1.0)), (1 + z).clamp(min=0))
    for power in (-0.7, -0.2, 0.3, 0.9):
        values = inverse_box_cox(z, power)
        assert (values >= 0).all() and (values[1:] >= values[:-1]).all()
        inside = (1 + power * z > 0) & values.isfinite()
        close(((values**power - 1) / power)[inside], z[inside])


def test_ens_loss_module_draws_anew() -> None:
    scores, target = torch.randn(50), torch.arange(50) % 2
    losses = [EnsLoss(period=2, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    first, second = ([loss(scores, target) for _ in range(6)] for loss in losses)
    assert first == second and len({x.item() for x in first}) == 6
    loss, powers = EnsLoss(period=2), []
    for _ in range(6):
        loss(scores, target)
        powers.append(float(loss.power))
    assert powers[0] == powers[1] == 0 and powers[2] == powers[3] != powers[4] == powers[5]
    assert all(-1 <= power <= 1 for power in powers)
    with pytest.raises(ValueError, match="period"):
        EnsLoss(period=0)


def test_ens_loss_learns_separable_data() -> None:
    inputs = torch.randn(200, 3)
    target = (inputs @ torch.tensor([1.0, -2.0, 0.5]) > 0).long()
    weights = torch.zeros(3, requires_grad=True)
    loss, optimizer = EnsLoss(), torch.optim.SGD([weights], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        loss(inputs @ weights, target).backward()
        optimizer.step()
    assert ((inputs @ weights > 0) == target.bool()).float().mean() > 0.95


def test_ens_loss_bad_input() -> None:
    scores, target = torch.randn(4), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match="derivatives"):
        ens_loss(scores, target, derivatives=torch.ones(3))
    with pytest.raises(ValueError, match="derivatives"):
        ens_loss(scores, target, derivatives=-torch.ones(4))


# --- Polynomial and encouraging losses ---------------------------------------------------------


def test_poly_identities() -> None:
    logits, target = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 4
    close(poly_loss(logits, target, epsilon=0), cross_entropy(logits, target))
    close(poly_loss(logits, target, epsilon=2), poly_loss(logits, target, epsilon=[2]))
    p = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
    series = sum((1 - p) ** j / j for j in range(1, 2000))
    close(cross_entropy(logits, target, reduction="none"), series, rtol=1e-6, atol=1e-6)
    truncated = poly_loss(logits, target, epsilon=[-1, -1 / 2, -1 / 3], reduction="none")
    close(truncated, sum((1 - p) ** j / j for j in range(4, 2000)), rtol=1e-6, atol=1e-6)


def test_encouraging_with_normal_bonus_is_linear_in_the_margin() -> None:
    logits, target = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 4
    none = partial(encouraging_loss, target=target, end_point=1, reduction="none")
    others = logits.scatter(1, target[:, None], -math.inf)
    chosen = logits.gather(1, target[:, None]).squeeze(1)
    close(none(logits), others.logsumexp(1) - chosen)
    far = logits.scatter_add(1, target[:, None], torch.full((20, 1), 1e3, dtype=torch.float64))
    close(none(far), none(logits) - 1e3)  # where the authors' clamp has stopped long before
    with pytest.raises(ValueError, match="end_point"):
        encouraging_loss(torch.randn(2, 1), torch.tensor([0, 0]), end_point=1)


@pytest.mark.parametrize("end_point", [0.3, 0.5, 0.75, 0.9])
def test_encouraging_goes_over_into_its_tangent(end_point: float) -> None:
    def slope_at(p: float) -> Tensor:
        z = row([math.log(p / (1 - p)), 0]).requires_grad_()
        value = encouraging_loss(z, label(0), end_point=end_point)
        return torch.stack([value, torch.autograd.grad(value, z)[0][0, 0]]).detach()

    close(slope_at(end_point - 1e-9), slope_at(end_point + 1e-9), rtol=1e-6, atol=1e-6)
    # The bonus keeps a gradient where cross-entropy has almost none.
    z = row([8.0, 0]).requires_grad_()
    (steep,) = torch.autograd.grad(encouraging_loss(z, label(0), end_point=end_point), z)
    (flat,) = torch.autograd.grad(cross_entropy(z, label(0)), z)
    assert steep[0, 0] < 1.2 * flat[0, 0] < 0


def test_halted_focal_identities() -> None:
    logits, target = 2 * torch.randn(40, 4, dtype=torch.float64), torch.arange(40) % 4
    close(halted_focal_loss(logits, target, gamma=0), cross_entropy(logits, target))
    p = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
    focal = -((1 - p) ** 2) * p.log()
    none = partial(halted_focal_loss, logits, target, reduction="none")
    close(none(halt=1), focal)
    close(none()[p < 0.5], focal[p < 0.5])
    shift = (none() + p.log())[p > 0.5]
    close(shift, torch.full_like(shift, -(1 - 0.25) * math.log(2)))  # cross-entropy, shifted
    assert (p < 0.5).any() and (p > 0.5).any()
    at = [
        halted_focal_loss(row([math.log(p / (1 - p)), 0]), label(0))
        for p in (0.5 - 1e-9, 0.5 + 1e-9)
    ]
    close(at[0], at[1], rtol=0, atol=1e-7)  # continuous


# --- Square losses ----------------------------------------------------------------------------


def test_squentropy_parts() -> None:
    logits, target = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 4
    wrong = logits.scatter(1, target[:, None], 0)
    parts = cross_entropy(logits, target) + wrong.square().sum(1).mean() / 3
    close(squentropy_loss(logits, target), parts)


def test_squares_of_the_wrong_classes_survive_a_huge_label() -> None:
    z = torch.tensor([[1e4, 1.0, 2.0]])
    close(squentropy_loss(z, label(0)), torch.tensor(2.5))
    close(rescaled_square_loss(z, label(0), magnitude=1e4), torch.tensor(5 / 3))


def test_rescaled_square_loss_is_the_square_loss_at_one() -> None:
    logits, target = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 4
    close(rescaled_square_loss(logits, target), F.mse_loss(logits, F.one_hot(target, 4).double()))


# --- The spherical family ----------------------------------------------------------------------


@quick
@given(vectors, st.floats(0.01, 100), st.floats(-50, 50))
def test_z_loss_ignores_scale_and_shift(z: Vector, scale: float, shift: float) -> None:
    if max(z) - min(z) < 1e-2:
        return
    close(z_loss(scale * row(z) + shift, label(0)), z_loss(row(z), label(0)), rtol=1e-6, atol=1e-6)


@quick
@given(vectors)
def test_z_score_is_bounded(z: Vector) -> None:
    sharp = 1e3  # softplus becomes the hinge: offset - z_score
    score = 100 - float(z_loss(row(z), label(0), sharpness=sharp, offset=100.0))
    assert abs(score) <= math.sqrt(len(z) - 1) + 1e-9
    extreme = [1.0] + [0.0] * (len(z) - 1)
    best = 100 - float(z_loss(row(extreme), label(0), sharpness=sharp, offset=100.0))
    assert best == pytest.approx(math.sqrt(len(z) - 1))


def test_z_loss_cannot_train_two_classes() -> None:
    z = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(z_loss(z, torch.arange(6) % 2), z)
    close(gradient, torch.zeros_like(z), rtol=0, atol=1e-12)
    equal = torch.zeros(1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(z_loss(equal, label(0)), equal)
    assert gradient.isfinite().all()


def test_spherical_softmax_is_a_distribution() -> None:
    z = torch.randn(5, 4, 2, dtype=torch.float64)
    p = spherical_softmax(z)
    close(p.sum(1), torch.ones(5, 2, dtype=torch.float64))
    close(p, spherical_softmax(-z))
    target = torch.randint(0, 4, (5, 2))
    close(spherical_softmax_loss(z, target), -p.gather(1, target[:, None]).log().mean())
    assert spherical_softmax(z.half()).dtype == torch.float16
    with pytest.raises(ValueError, match="epsilon"):
        spherical_softmax(z, epsilon=0)


SPHERICAL = [
    (
        partial(z_loss_from_statistics, sharpness=2.0, offset=0.5),
        partial(z_loss, sharpness=2.0, offset=0.5),
    ),
    # A small epsilon makes the iteration chaotic: two dense runs part as fast.
    (
        partial(spherical_softmax_loss_from_statistics, epsilon=1.0),
        partial(spherical_softmax_loss, epsilon=1.0),
    ),
]


@pytest.mark.parametrize("from_statistics, dense", SPHERICAL)
def test_losses_from_statistics(
    from_statistics: Callable[..., Tensor], dense: Callable[..., Tensor]
) -> None:
    z, target = torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 5
    chosen = z.gather(1, target[:, None]).squeeze(1)
    actual = from_statistics(z.sum(1), z.square().sum(1), chosen, 5)
    close(actual, dense(z, target, reduction="none"))


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("from_statistics, dense", SPHERICAL)
def test_spherical_layer_is_dense_sgd(
    from_statistics: Callable[..., Tensor], dense: Callable[..., Tensor], batch: int
) -> None:
    weight, rate = torch.randn(30, 5, dtype=torch.float64), 0.3
    layer = SphericalLayer(weight)
    weight = weight.clone().requires_grad_()
    for _ in range(150):
        hidden = torch.randn(batch, 5, dtype=torch.float64, requires_grad=True)
        target = torch.randint(0, 4, (batch,))  # few labels, so that they repeat in a batch
        value = dense(hidden @ weight.T, target)
        weight_gradient, hidden_gradient = torch.autograd.grad(value, (weight, hidden))
        actual, actual_gradient = layer.step(hidden, target, rate, loss=from_statistics)
        close(actual, value.detach(), rtol=1e-9, atol=1e-9)
        close(actual_gradient, hidden_gradient, rtol=1e-9, atol=1e-9)
        weight.data -= rate * weight_gradient
    close(layer.weight, weight.detach(), rtol=1e-9, atol=1e-9)
    outputs = (hidden @ weight.T).detach()
    chosen = outputs.gather(1, target[:, None]).squeeze(1)
    for actual, expected in zip(
        layer.statistics(hidden.detach(), target),
        (outputs.sum(1), outputs.square().sum(1), chosen),
        strict=True,
    ):
        close(actual, expected, rtol=1e-9, atol=1e-9)


def square_loss(total: Tensor, squares: Tensor, chosen: Tensor, classes: int) -> Tensor:
    return squares - 2 * chosen + 1  # ||o - e_y||^2, of the family too


def test_spherical_layer_survives_singular_steps() -> None:
    """At 2 * rate * |h|^2 = 1 the square loss wipes out all rows along h: U becomes singular."""
    layer = SphericalLayer(torch.randn(20, 4, dtype=torch.float64))
    weight = layer.weight.clone().requires_grad_()
    for step in range(12):
        hidden, target = torch.randn(1, 4, dtype=torch.float64), label(step)
        rate = 0.5 / hidden.square().sum().item()
        value = (hidden @ weight.T - F.one_hot(target, 20)).square().sum()
        (gradient,) = torch.autograd.grad(value, weight)
        actual, _ = layer.step(hidden, target, rate, loss=square_loss)
        close(actual, value.detach(), rtol=1e-9, atol=1e-9)
        weight.data -= rate * gradient
        close(layer.weight, weight.detach(), rtol=1e-9, atol=1e-9)
        close(layer.gram, (weight.T @ weight).detach(), rtol=1e-9, atol=1e-9)
    close(layer.mixing @ layer.inverse, torch.eye(4, dtype=torch.float64))


def test_spherical_layer_refresh_removes_rounding_only() -> None:
    layer = SphericalLayer(torch.randn(20, 4, dtype=torch.float64))
    layer.step(torch.randn(3, 4).double(), torch.arange(3), 0.1, loss=z_loss_from_statistics)
    weight = layer.weight
    for drifted in (layer.gram, layer.row_sum):
        drifted += 1e-3
    layer.refresh()
    close(layer.weight, weight)
    close(layer.gram, weight.T @ weight)
    close(layer.row_sum, weight.sum(0))
    layer.gram += 1e-3  # and so does a step that cannot keep the factors
    hidden = torch.randn(1, 4, dtype=torch.float64)
    layer.step(hidden, label(0), 0.5 / hidden.square().sum().item(), loss=square_loss)
    close(layer.gram, layer.weight.T @ layer.weight)


def test_spherical_layer_bad_input() -> None:
    layer, hidden = SphericalLayer(torch.randn(6, 3)), torch.randn(2, 3)
    with pytest.raises(ValueError, match="target"):
        layer.statistics(hidden, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="hidden"):
        layer.statistics(hidden[:, :2], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="learning_rate"):
        layer.step(hidden, torch.tensor([0, 1]), 0.0, loss=square_loss)
    with pytest.raises(ValueError, match="weight"):
        SphericalLayer(torch.randn(3))
    weight = torch.randn(6, 3)
    before = weight.clone()
    SphericalLayer(weight).step(hidden, torch.tensor([0, 1]), 0.1, loss=square_loss)
    assert torch.equal(weight, before)


# --- Harmonic loss ----------------------------------------------------------------------------


def test_distance_layer_in_loops() -> None:
    layer = DistanceLayer(3, 4).double()
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = [
        [[math.dist(w, x) for w in layer.weight.tolist()] for x in pair] for pair in inputs.tolist()
    ]
    close(layer(inputs), double(expected))
    assert torch.autograd.gradcheck(layer, inputs.requires_grad_())
    assert torch.autograd.gradgradcheck(layer, inputs)
    assert layer(inputs.half()).dtype == torch.float16
    for sizes in ((0, 2), (2, 0)):
        with pytest.raises(ValueError, match="features"):
            DistanceLayer(*sizes)
    with pytest.raises(ValueError, match="inputs"):
        layer(torch.randn(2, 4))


def test_distance_layer_near_and_at_a_center() -> None:
    layer = DistanceLayer(16, 2)
    layer.weight.data += 100  # where |w|^2 + |x|^2 - 2 w.x has lost every digit
    near = (layer.weight[:1].detach().double() + 1e-3).float()
    exact = math.dist(near[0].double().tolist(), layer.weight[0].double().tolist())
    assert layer(near)[0, 0].item() == pytest.approx(exact, rel=1e-4)
    at = layer.weight[:1].detach().clone().requires_grad_()
    value = harmonic_loss(layer(at), label(0))
    gradients = torch.autograd.grad(value, (at, layer.weight))
    assert layer(at)[0, 0] == 0 and value.isfinite()
    assert all(g.isfinite().all() for g in gradients)


@quick
@given(st.lists(st.floats(0.1, 50), min_size=2, max_size=6), st.floats(0.1, 10), st.floats(0.5, 9))
def test_harmonic_loss_ignores_scale(d: Vector, scale: float, exponent: float) -> None:
    loss = partial(harmonic_loss, target=label(0), exponent=exponent, epsilon=0)
    close(loss(scale * row(d)), loss(row(d)))


def test_harmonic_loss_has_a_finite_optimum() -> None:
    d = row([0.0, 1.0, 2.0]).requires_grad_()
    value = harmonic_loss(d, label(0))
    (gradient,) = torch.autograd.grad(value, d)
    assert 0 < value < 1e-3 and gradient[0, 0] == 0
    with pytest.raises(ValueError, match="distances"):
        harmonic_loss(-d.detach(), label(0))
    close(harmonic_loss(row([1e-3, 5]), label(0)), harmonic_loss(row([1e-3, 5]), double([[1, 0]])))


# --- Holographic reduced representations --------------------------------------------------------


@pytest.mark.parametrize("d", [1, 4, 7])
def test_hrr_binding_is_circular_convolution(d: int) -> None:
    a, b = torch.randn(2, d, dtype=torch.float64)
    bound = [sum(a[j] * b[(i - j) % d] for j in range(d)) for i in range(d)]
    close(hrr_bind(a, b), torch.stack(bound))
    correlated = [sum(b[j] * a[(i + j) % d] for j in range(d)) for i in range(d)]
    close(hrr_unbind(a, b), torch.stack(correlated))
    spectrum = [
        sum(a[t].item() * cmath.exp(-2j * math.pi * f * t / d) for t in range(d)) for f in range(d)
    ]
    unit = [x / abs(x) for x in spectrum]
    projected = [
        sum(unit[f] * cmath.exp(2j * math.pi * f * t / d) for f in range(d)).real / d
        for t in range(d)
    ]
    close(hrr_project(a), double(projected))


@pytest.mark.parametrize("d", [8, 9])
def test_hrr_unbinding_inverts_binding_with_a_projected_key(d: int) -> None:
    values, keys = torch.randn(2, 5, d, dtype=torch.float64)
    keys = hrr_project(keys)
    close(keys.norm(dim=-1), torch.ones(5, dtype=torch.float64))
    close(hrr_unbind(hrr_bind(values, keys), keys), values)
    close(hrr_bind(values, keys).norm(dim=-1), values.norm(dim=-1))
    close(hrr_project(keys), keys)
    assert hrr_project(torch.zeros(d)).isfinite().all()
    assert hrr_bind(values.half(), keys.half()).dtype == torch.float16
    with pytest.raises(ValueError, match="length of b"):
        hrr_bind(values, keys[:, 1:])
    with pytest.raises(ValueError, match="length of key"):
        hrr_unbind(values, keys[:, 1:])
    with pytest.raises(TypeError, match="x must"):
        hrr_project(torch.ones(d, dtype=torch.int64))


@pytest.mark.parametrize("shared", [False, True])
def test_hrr_loss_equals_its_formula(shared: bool) -> None:
    d, classes = 6, 3
    s, target = torch.randn(4, d, dtype=torch.float64), torch.tensor([0, 2, 1, 2])
    prototypes = torch.randn(classes, d, dtype=torch.float64)
    key = torch.randn(d, dtype=torch.float64) if shared else torch.randn(classes, d).double()
    expected = []
    for x, y in zip(s, target.tolist(), strict=True):
        k, c = (key if shared else key[y]), prototypes[y]
        bound = [sum(k[j] * c[(i - j) % d] for j in range(d)) for i in range(d)]
        expected.append(sum((x[i] - bound[i]) ** 2 for i in range(d)))
    actual = hrr_loss(s, target, key=key, prototypes=prototypes, reduction="none")
    close(actual, torch.stack(expected))
    with pytest.raises(ValueError, match="prototypes"):
        hrr_loss(s, target, key=key, prototypes=prototypes[:, :5])
    with pytest.raises(ValueError, match="key"):
        hrr_loss(s, target, key=key[..., :5], prototypes=prototypes)


def test_hrr_module_predicts_what_it_was_trained_towards() -> None:
    loss = HrrLoss(6, 64, generator=torch.Generator().manual_seed(0))
    ideal, target = hrr_bind(loss.key, loss.prototypes), torch.arange(6)
    assert loss(ideal, target) < 1e-9
    scores = loss.logits(ideal)
    assert (scores.argmax(1) == target).all()
    close(scores.diagonal(), torch.ones(6))
    s = torch.randn(5, 64)
    close(loss.logits(s), F.cosine_similarity(s[:, None], ideal, dim=-1))  # unbinding is a rotation
    assert loss.logits(torch.zeros(1, 64)).isfinite().all()
    again = HrrLoss(6, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.key, loss.key) and not torch.equal(loss.key, loss.prototypes)
    assert {"key", "prototypes"} <= loss.state_dict().keys() and not list(loss.parameters())
    with pytest.raises(ValueError, match="classes"):
        HrrLoss(0, 4)


# --- Bad input of what is no loss; examples ------------------------------------------------------


@pytest.mark.parametrize(
    "call, argument",
    [
        (lambda: comp_sum_transform(double(1.5), tau=1), "beta"),
        (lambda: comp_sum_transform(double(0.5), tau=-1), "tau"),
        (lambda: comp_sum_transform(double(0.5), tau=1, classes=1), "classes"),
        (lambda: comp_sum_bound(double(-1.0), tau=1), "excess"),
        (
            lambda: minimizability_gap(torch.rand(2, 3), torch.rand(3, 2), torch.rand(3)),
            "losses",
        ),
        (
            lambda: minimizability_gap(torch.rand(2, 3, 2), torch.rand(2, 3), torch.rand(3)),
            "conditional",
        ),
        (
            lambda: minimizability_gap(torch.rand(2, 3, 2), torch.rand(3, 2), torch.rand(2)),
            "marginal",
        ),
        (lambda: log_complement(torch.rand(3)), "logits"),
        (
            lambda: margin_shift_attack(torch.nn.ReLU(), torch.rand(2, 3), label(0), radius=1.0),
            "target",
        ),
        (
            lambda: margin_shift_attack(torch.nn.ReLU(), torch.rand(1, 3), label(0), radius=0.0),
            "radius",
        ),
        (
            lambda: smooth_adversarial_comp_sum_loss(torch.rand(1, 3), torch.rand(1, 4), label(0)),
            "adversarial_logits",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        call()


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(import_module("lossbook.classification.cross_entropy"))
    assert result.attempted > 5 and result.failed == 0
