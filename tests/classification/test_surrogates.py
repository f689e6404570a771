"""Surrogates against loops over the formulas, exact risks on finite distributions, and limits."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.classification import (
    calibration_transform,
    checkered_log_terms,
    checkered_regression_loss,
    comp_sum_bound,
    comp_sum_transform,
    conditional_risk,
    coverage_at_precision,
    crammer_singer_loss,
    cross_entropy,
    deep_ntk,
    exponential,
    grownet_loss,
    hinge,
    lee_lin_wahba_loss,
    logistic,
    logistic_excess_bound,
    margin_loss,
    margin_regret,
    minimizability_gap,
    multiclass_margin,
    naive_bayes_head,
    newton_targets,
    perceptron,
    perceptron_step,
    pointwise_regret,
    polynomial_dual,
    psi_bound,
    psi_transform,
    ramp,
    rejection_beta,
    rejection_cost,
    rejection_loss,
    rejection_minimizer,
    relu_dual,
    singular_kernel_scores,
    singularity_exponent,
    squared,
    squared_hinge,
    sum_log_concave_majorant,
    weston_watkins_loss,
    zero_one,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: object) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


same = torch.testing.assert_close


# --- Functions of the margin ------------------------------------------------------------------

BY_FORMULA = {
    zero_one: lambda m: 1.0 if m < 0 else 0.5 if m == 0 else 0.0,
    perceptron: lambda m: max(0.0, -m),
    hinge: lambda m: max(0.0, 1 - m),
    squared_hinge: lambda m: max(0.0, 1 - m) ** 2,
    squared: lambda m: (1 - m) ** 2,
    logistic: lambda m: math.log1p(math.exp(-abs(m))) + max(0.0, -m),
    exponential: lambda m: math.exp(-m),
    ramp: lambda m: min(2.0, max(0.0, 1 - m)),
}
SURROGATES = [phi for phi in BY_FORMULA if phi is not zero_one]
CLOSED = [phi for phi in SURROGATES if phi is not perceptron]
every_phi = pytest.mark.parametrize("phi", BY_FORMULA, ids=lambda phi: phi.__name__)
every_surrogate = pytest.mark.parametrize("phi", SURROGATES, ids=lambda phi: phi.__name__)


@every_phi
def test_functions_of_the_margin(phi) -> None:
    margins = [-40.0, -3.0, -1.0, -0.3, 0.0, 0.5, 1.0, 2.0, 40.0]
    expected = exactly([BY_FORMULA[phi](m) for m in margins])
    same(phi(exactly(margins)), expected, rtol=1e-14, atol=0)
    assert phi(exactly([math.nan])).isnan().all()
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert phi(torch.zeros(2, 3, dtype=dtype)).dtype == dtype
    with pytest.raises(TypeError, match="margin"):
        phi(torch.tensor([1, 2]))


@every_surrogate
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_slopes_stay_finite_and_point_downhill(phi, dtype: torch.dtype) -> None:
    m = torch.tensor([-1e4, -100.0, -0.5], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(phi(m).float().sum(), m)
    assert phi(m).isfinite().all() and slope.isfinite().all()
    moving = slope[2:] if phi is ramp else slope
    assert (moving < 0).all()


def test_exponential_goes_on_along_its_tangent() -> None:
    limit = 0.8 * math.log(torch.finfo(torch.float32).max)
    m = torch.tensor([-limit + 1, -limit - 10.0], requires_grad=True)
    values = exponential(m)
    expected = [math.exp(limit - 1), math.exp(limit) * 11]
    same(values, torch.tensor(expected), rtol=1e-4, atol=0)
    (slope,) = torch.autograd.grad(values.sum(), m)
    same(slope, -torch.tensor([math.exp(limit - 1), math.exp(limit)]), rtol=1e-4, atol=0)


def test_ramp_is_a_difference_of_hinges_and_symmetric() -> None:
    m = 3 * normal(50)
    for s in (-2.0, -1.0, 0.0, 0.5):
        same(ramp(m, s=s), hinge(m) - (s - m).clamp(min=0))
    same(ramp(m) + ramp(-m), torch.full_like(m, 2))
    for s in (1.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="s must be below 1"):
            ramp(m, s=s)


@every_surrogate
def test_margin_loss(phi) -> None:
    scores, labels, soft = normal(7), torch.tensor([0, 1, 1, 0, 1, 0, 1]), uniform(7)
    f = BY_FORMULA[phi]
    expected = [f((2 * t - 1) * s) for s, t in zip(scores.tolist(), labels.tolist(), strict=True)]
    for target in (labels, labels.double(), labels.bool()):
        same(margin_loss(scores, target, phi=phi, reduction="none"), exactly(expected))
    same(margin_loss(scores, labels, phi=phi), exactly(sum(expected) / 7))
    mixed = [
        t * f(s) + (1 - t) * f(-s) for s, t in zip(scores.tolist(), soft.tolist(), strict=True)
    ]
    same(margin_loss(scores, soft, phi=phi, reduction="none"), exactly(mixed))
    same(conditional_risk(scores, soft, phi=phi), exactly(mixed))
    grid = scores[:6].view(3, 2)
    same(
        margin_loss(grid, labels[:6].view(3, 2), phi=phi, reduction="none"),
        exactly(expected[:6]).view(3, 2),
    )


def test_margin_loss_second_opinions() -> None:
    scores, labels = normal(9), torch.tensor([0, 1, 1, 0, 1, 0, 1, 1, 0])
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    same(margin_loss(scores, labels, phi=logistic), bce(scores, labels.double()))
    metrics = pytest.importorskip("sklearn.metrics")
    same(
        margin_loss(scores, labels).item(),
        float(metrics.hinge_loss(labels.numpy(), scores.numpy())),
    )
    with pytest.raises(ValueError, match="target"):
        margin_loss(scores, 2 * labels - 1)
    with pytest.raises(ValueError, match=r"phi\(margin\)"):
        margin_loss(scores, labels, phi=torch.mean)


# --- Several classes --------------------------------------------------------------------------


def multiclass(name: str, f, z: list[float], y: int) -> float:
    others = [k for k in range(len(z)) if k != y]
    if name == "crammer_singer":
        return f(z[y] - max(z[k] for k in others))
    if name == "weston_watkins":
        return sum(f(z[y] - z[k]) for k in others)
    mean = sum(z) / len(z)
    return sum(f(-(z[k] - mean)) for k in others)


FORMS = {
    "crammer_singer": crammer_singer_loss,
    "weston_watkins": weston_watkins_loss,
    "lee_lin_wahba": lee_lin_wahba_loss,
}
every_form = pytest.mark.parametrize("form", FORMS)


@every_form
@every_surrogate
def test_multiclass_forms(form: str, phi) -> None:
    z, y = 2 * normal(8, 5), torch.tensor([0, 1, 2, 3, 4, 0, 2, 4])
    rows = zip(z.tolist(), y.tolist(), strict=True)
    expected = exactly([multiclass(form, BY_FORMULA[phi], row, k) for row, k in rows])
    same(FORMS[form](z, y, phi=phi, reduction="none"), expected)
    one_hot = torch.nn.functional.one_hot(y, 5).double()
    same(FORMS[form](z, one_hot, phi=phi, reduction="none"), expected)


@every_form
def test_two_classes_are_a_margin(form: str) -> None:
    z, y = normal(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    scale = 0.5 if form == "lee_lin_wahba" else 1.0
    for phi in (hinge, logistic, squared):
        expected = margin_loss(scale * (z[:, 1] - z[:, 0]), y, phi=phi)
        same(FORMS[form](z, y, phi=phi), expected)


def test_multiclass_margin() -> None:
    z = normal(6, 4)
    expected = [
        [row[k] - max(row[j] for j in range(4) if j != k) for k in range(4)] for row in z.tolist()
    ]
    same(multiclass_margin(z), exactly(expected))
    same(
        multiclass_margin(z.view(2, 3, 4).movedim(2, 1)).movedim(1, 2).reshape(6, 4),
        exactly(expected),
    )
    tie = multiclass_margin(exactly([[2.0, 2.0, 0.0]]))
    same(tie, exactly([[0.0, 0.0, -2.0]]))
    assert ((multiclass_margin(z) > 0).sum(1) == 1).all()
    with pytest.raises(ValueError, match="classes in logits"):
        multiclass_margin(z[:, :1])


def test_multiclass_second_opinions() -> None:
    z, y = normal(9, 4), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])
    same(weston_watkins_loss(z, y), 4 * torch.nn.functional.multi_margin_loss(z, y))
    squares = 4 * torch.nn.functional.multi_margin_loss(z, y, p=2)
    same(weston_watkins_loss(z, y, phi=squared_hinge), squares)
    metrics = pytest.importorskip("sklearn.metrics")
    theirs = metrics.hinge_loss(y.numpy(), z.numpy(), labels=[0, 1, 2, 3])
    same(crammer_singer_loss(z, y).item(), float(theirs))


def test_papers_scales() -> None:
    """Weston and Watkins' lead of 2; Lee, Lin and Wahba's 1 / (C - 1)."""
    z, y = normal(5, 4), torch.tensor([0, 3, 1, 2, 0])
    watkins = lee = 0.0
    for row, k in zip(z.tolist(), y.tolist(), strict=True):
        f = [s - sum(row) / 4 for s in row]
        watkins += sum(max(0.0, 2 + row[j] - row[k]) for j in range(4) if j != k)
        lee += sum(max(0.0, f[j] + 1 / 3) for j in range(4) if j != k)
    same(2 * weston_watkins_loss(z / 2, y, reduction="sum"), exactly(watkins))
    same(lee_lin_wahba_loss(3 * z, y, reduction="sum") / 3, exactly(lee))


def least(form: str, p: Tensor, phi=hinge) -> tuple[float, Tensor]:
    """The best scores for class probabilities p, among all on a grid of thirds and halves."""
    axis = torch.linspace(-3, 3, 37, dtype=torch.float64)  # 1, 1/2 and 1/3 among its differences
    z = torch.cartesian_prod(axis, axis)
    z = torch.cat([z, torch.zeros_like(z[:, :1])], 1)  # shifting all scores changes nothing
    risk = FORMS[form](z, p.expand(len(z), 3), phi=phi, reduction="none")
    return risk.min().item(), z[risk <= risk.min() + 1e-9]


def test_which_hinge_is_calibrated() -> None:
    """With probabilities below a half, only Lee, Lin and Wahba's best scores single out the class."""
    p = exactly([0.45, 0.35, 0.2])
    _, best = least("lee_lin_wahba", p)
    assert (multiclass_margin(best)[:, 0] > 0.5).all()
    risk, best = least("crammer_singer", p)
    assert abs(risk - 1) < 1e-9 and (best.abs() < 1e-9).all(1).any()
    _, best = least("weston_watkins", p)
    assert (multiclass_margin(best)[:, 0] <= 1e-9).any()
    _, best = least("crammer_singer", exactly([0.6, 0.25, 0.15]))  # with a majority it is
    assert (multiclass_margin(best)[:, 0] > 0.5).all()


def test_a_single_class_has_nothing_to_confuse() -> None:
    for loss in FORMS.values():
        assert loss(normal(3, 1), torch.zeros(3, dtype=torch.int64), phi=squared) == 0


# --- Calibration ------------------------------------------------------------------------------

THETA = torch.linspace(0, 1, 21, dtype=torch.float64)


def by_grid(phi, theta: float, bound: float = 10.0) -> float:
    """Brute force over plain scores."""
    eta, f = (1 + theta) / 2, BY_FORMULA[phi]
    scores = [bound * i / 4000 for i in range(-4000, 4001)]
    risk = {s: eta * f(s) + (1 - eta) * f(-s) for s in scores}
    return min(r for s, r in risk.items() if s <= 0) - min(risk.values())


@every_surrogate
def test_closed_transforms_are_the_numeric_ones(phi) -> None:
    closed = psi_transform(THETA, phi=phi)
    same(calibration_transform(THETA, phi=phi), closed, rtol=1e-9, atol=1e-12)
    for theta in (0.0, 0.35, 0.8):
        assert abs(by_grid(phi, theta) - psi_transform(exactly(theta), phi=phi).item()) < 1e-5
    assert (closed[1:] - closed[:-1] >= 0).all() and closed[0] == 0
    assert (closed[2:] - 2 * closed[1:-1] + closed[:-2] > -1e-12).all()  # convex


@every_surrogate
def test_convex_transforms_by_bartletts_formula(phi) -> None:
    """psi(theta) = phi(0) - H((1 + theta) / 2), with the best scores in closed form."""
    if phi in (ramp, perceptron):
        pytest.skip("not convex, or not calibrated")
    best = {
        hinge: lambda p: torch.ones_like(p),
        squared: lambda p: 2 * p - 1,
        squared_hinge: lambda p: 2 * p - 1,
        logistic: lambda p: p.logit(),
        exponential: lambda p: p.logit() / 2,
    }[phi]
    eta = (1 + THETA[:-1]) / 2
    expected = phi(exactly(0.0)) - conditional_risk(best(eta), eta, phi=phi)
    same(psi_transform(THETA[:-1], phi=phi), expected, rtol=1e-9, atol=1e-12)


def test_transform_of_bounded_scores() -> None:
    """For the hinge on [-B, B] it is min(B, 1) theta, by hand."""
    for bound in (0.25, 0.5, 1.0, 3.0):
        ours = calibration_transform(THETA, phi=hinge, bound=bound)
        same(ours, min(bound, 1.0) * THETA, rtol=1e-9, atol=1e-12)
    eta = (1 + THETA) / 2  # beyond the reach of the scores, the best is the largest
    for bound in (0.5, 2.0):
        best = eta.logit().clamp(max=bound)
        expected = math.log(2) - conditional_risk(best, eta, phi=logistic)
        same(calibration_transform(THETA, phi=logistic, bound=bound), expected)


def test_transform_that_is_not_convex() -> None:
    """The ramp that stops between -1 and 0, worked out by hand."""
    slope = 1.5
    expected = torch.minimum(slope * THETA, 1 - slope * (1 - THETA) / 2)
    ours = calibration_transform(THETA, phi=partial(ramp, s=-0.5))
    same(ours, expected, rtol=1e-9, atol=1e-12)
    assert (ours[2:] - 2 * ours[1:-1] + ours[:-2] < -1e-3).any()
    same(calibration_transform(THETA, phi=zero_one), THETA / 2, rtol=1e-9, atol=1e-12)


def test_transforms_of_small_regrets_keep_their_digits() -> None:
    tiny = exactly([1e-9])
    same(psi_transform(tiny, phi=exponential), exactly([5e-19]), rtol=1e-6, atol=0)
    same(psi_transform(THETA, phi=logistic), comp_sum_transform(THETA, tau=1))


@pytest.mark.parametrize("phi", CLOSED, ids=lambda phi: phi.__name__)
def test_bounds_invert_transforms(phi) -> None:
    same(psi_bound(psi_transform(THETA, phi=phi), phi=phi), THETA, rtol=1e-6, atol=1e-7)
    assert psi_bound(exactly(100.0), phi=phi) == 1
    assert psi_bound(exactly(0.0), phi=phi) < 1e-7


def test_perceptron_promises_nothing() -> None:
    assert psi_bound(exactly(0.0), phi=perceptron) == 1


def distribution(points: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    marginal = uniform(points, seed=seed + 1)
    return (
        2 * normal(points, seed=seed),
        uniform(points, seed=seed + 2),
        marginal / marginal.sum(),
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.integers(0, 10**6), st.sampled_from(SURROGATES))
def test_bound_holds_on_finite_distributions(points: int, seed: int, phi) -> None:
    scores, eta, marginal = distribution(points, seed)
    errors = margin_regret(scores, eta, marginal, phi=zero_one)
    excess = margin_regret(scores, eta, marginal, phi=phi)
    wrong = (scores > 0) != (eta > 0.5)
    same(errors, (marginal * (2 * eta - 1).abs() * wrong).sum(), rtol=1e-9, atol=1e-12)
    assert psi_transform(errors.clamp(max=1), phi=phi) <= excess + 1e-9


@every_surrogate
def test_bound_is_attained(phi) -> None:
    """One point, and the best score on the wrong side: no better bound is possible."""
    for theta in (0.2, 0.7):
        eta = exactly([(1 + theta) / 2])
        wrong = exactly([-1e-12])  # just on the wrong side, all these functions are at their best
        excess = margin_regret(wrong, eta, exactly([1.0]), phi=phi)
        errors = margin_regret(wrong, eta, exactly([1.0]), phi=zero_one)
        same(errors, exactly(theta))
        same(excess, psi_transform(exactly(theta), phi=phi), rtol=1e-9, atol=1e-11)


def test_margin_regret_by_hand() -> None:
    scores, eta, marginal = exactly([0.5, -2.0]), exactly([0.8, 0.3]), exactly([0.25, 0.75])
    expected = sum(
        p * (e * (1 - s) ** 2 + (1 - e) * (1 + s) ** 2 - 4 * e * (1 - e))
        for s, e, p in ((0.5, 0.8, 0.25), (-2.0, 0.3, 0.75))
    )
    same(margin_regret(scores, eta, marginal, phi=squared), exactly(expected))
    narrow = margin_regret(exactly([0.5]), exactly([0.9]), exactly([1.0]), phi=hinge, bound=0.5)
    assert narrow < 1e-12  # the best within its set
    with pytest.raises(ValueError, match="scores"):
        margin_regret(scores, eta, marginal, phi=squared, bound=1.0)
    with pytest.raises(ValueError, match="eta"):
        margin_regret(scores, 2 * eta, marginal, phi=squared)
    with pytest.raises(ValueError, match="marginal"):
        margin_regret(scores, eta, marginal[:1], phi=squared)


def test_pointwise_regret_is_regret_and_gap() -> None:
    losses, p = uniform(5, 3, 4), uniform(3, 4, seed=1)
    p, marginal = p / p.sum(1, keepdim=True), exactly([0.2, 0.5, 0.3])
    risk = [
        [sum(p[x, y].item() * losses[h, x, y].item() for y in range(4)) for x in range(3)]
        for h in range(5)
    ]
    best = [min(risk[h][x] for h in range(5)) for x in range(3)]
    expected = [
        sum(marginal[x].item() * (risk[h][x] - best[x]) for x in range(3)) for h in range(5)
    ]
    regret = pointwise_regret(losses, p, marginal)
    same(regret, exactly(expected))
    same(regret.min(), minimizability_gap(losses, p, marginal))
    with pytest.raises(ValueError, match="conditional"):
        pointwise_regret(losses, p[:2], marginal)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_logistic_bound_on_finite_distributions(seed: int) -> None:
    """Three classes at four points, against the best of all functions: entropy and largest p."""
    z = 2 * normal(4, 3, seed=seed)
    p = (2 * normal(4, 3, seed=seed + 1)).softmax(1)
    marginal = uniform(4, seed=seed + 2)
    marginal = marginal / marginal.sum()
    excess = (marginal * (cross_entropy(z, p, reduction="none") + (p * p.log()).sum(1))).sum()
    chosen = p.gather(1, z.argmax(1, keepdim=True)).squeeze(1)
    errors = (marginal * (p.amax(1) - chosen)).sum()
    sharp = comp_sum_bound(excess.clamp(min=0), tau=1.0, classes=3)
    assert errors <= sharp + 1e-9
    assert sharp <= logistic_excess_bound(excess.clamp(min=0)) + 1e-9


def test_logistic_bound_by_hand() -> None:
    same(logistic_excess_bound(exactly([0.0, 0.08, 0.5, 9.0])), exactly([0.0, 0.4, 1.0, 1.0]))
    with pytest.raises(ValueError, match="excess"):
        logistic_excess_bound(exactly([-0.1]))


def test_bad_input_of_calibration() -> None:
    for function in (calibration_transform, psi_transform):
        with pytest.raises(ValueError, match="theta"):
            function(exactly([1.5]), phi=hinge)
    with pytest.raises(ValueError, match="bound"):
        calibration_transform(THETA, phi=hinge, bound=0.0)
    with pytest.raises(ValueError, match="phi must be one of perceptron"):
        psi_transform(THETA, phi=zero_one)
    with pytest.raises(ValueError, match="excess"):
        psi_bound(exactly([-1.0]), phi=hinge)
    with pytest.raises(ValueError, match="eta"):
        conditional_risk(exactly([0.0]), exactly([-0.1]), phi=hinge)


# --- Rejection --------------------------------------------------------------------------------


def test_rejection_loss_is_that_of_the_formula() -> None:
    r, right = normal(6), torch.tensor([1, 0, 0, 1, 1, 0])
    cost, alpha, beta = 0.2, 3.0, 1.5
    expected = [
        math.exp(alpha / 2 * (s - (1 if t else -1))) + cost * math.exp(-beta * s)
        for s, t in zip(r.tolist(), right.tolist(), strict=True)
    ]
    ours = rejection_loss(r, right, cost=cost, alpha=alpha, beta=beta, reduction="none")
    same(ours, exactly(expected))
    costs = [
        (cost if s <= 0 else 0.0 if t else 1.0)
        for s, t in zip(r.tolist(), right.tolist(), strict=True)
    ]
    same(rejection_cost(r, right, cost=cost), exactly(costs))
    assert (ours >= rejection_cost(r, right, cost=cost)).all()
    assert rejection_cost(exactly([0.0]), torch.tensor([1]), cost=cost) == cost


@pytest.mark.parametrize("cost", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_beta_puts_the_threshold_at_zero(cost: float, alpha: float) -> None:
    left = 2 * rejection_beta(cost, alpha=alpha) * cost / alpha  # as the caption has it
    assert abs(left - (1 - cost) * math.exp(-alpha / 2) - cost * math.exp(alpha / 2)) < 1e-12
    for p in (0.1, 1 - cost - 0.02, 1 - cost, 1 - cost + 0.02, 1.0):
        best = rejection_minimizer(exactly(p), cost=cost, alpha=alpha)
        assert (best.abs() < 1e-12) if p == 1 - cost else (best > 0) == (p > 1 - cost)
        r = best.clone().requires_grad_()
        losses = [
            rejection_loss(r[None], torch.tensor([t]), cost=cost, alpha=alpha) for t in (1, 0)
        ]
        (slope,) = torch.autograd.grad(p * losses[0] + (1 - p) * losses[1], r)
        assert slope.abs() < 1e-12


def test_bad_input_of_rejection() -> None:
    r, right = normal(3), torch.tensor([0, 1, 1])
    for cost in (0.0, 1.0, math.nan):
        for call in (
            lambda c: rejection_beta(c),
            lambda c: rejection_cost(r, right, cost=c),
            lambda c: rejection_minimizer(exactly(0.5), cost=c),
        ):
            with pytest.raises(ValueError, match="cost"):
                call(cost)
    with pytest.raises(ValueError, match="alpha"):
        rejection_beta(0.1, alpha=0.0)
    with pytest.raises(ValueError, match="target"):
        rejection_loss(r, 2 * right - 1)
    with pytest.raises(ValueError, match="probability"):
        rejection_minimizer(exactly(1.2))


def coverage_by_loops(scores: list[float], correct: list[int], precision: float) -> float:
    best = 0.0
    for threshold in scores:
        taken = [a for s, a in zip(scores, correct, strict=True) if s >= threshold]
        if sum(taken) / len(taken) >= precision:
            best = max(best, len(taken) / len(scores))
    return best


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.3, 0.55, 0.7, 0.9, 1.0]),
)
def test_coverage_at_precision(pairs: list[tuple[int, int]], precision: float) -> None:
    scores, correct = [float(s) for s, _ in pairs], [a for _, a in pairs]
    ours = coverage_at_precision(exactly(scores), torch.tensor(correct), precision=precision)
    assert ours == coverage_by_loops(scores, correct, precision)


def test_equal_scores_are_accepted_together() -> None:
    scores, correct = exactly([1.0, 1.0, 0.0, 0.0]), torch.tensor([1, 0, 1, 1])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        ours = [
            coverage_at_precision(scores[order], correct[order], precision=p) for p in (0.7, 0.9)
        ]
        assert ours == [1.0, 0.0]


def test_bad_input_of_coverage() -> None:
    scores, correct = normal(3), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="precision"):
        coverage_at_precision(scores, correct, precision=1.1)
    with pytest.raises(ValueError, match="scores"):
        coverage_at_precision(scores[:0], correct[:0], precision=0.5)
    with pytest.raises(ValueError, match="correct"):
        coverage_at_precision(scores, 2 * correct, precision=0.5)


# --- Naive Bayes ------------------------------------------------------------------------------


def bayes_by_loops(x: Tensor, y: Tensor, queries: Tensor, classes: int) -> Tensor:
    """Log posteriors by the densities, with the variances pooled as in the authors' code."""
    n, d = x.shape
    prior = [sum(int(label == k) for label in y) / n for k in range(classes)]
    members = [[row for row, label in zip(x, y, strict=True) if label == k] for k in range(classes)]
    mean = [
        [sum(r[j] for r in members[k]) / len(members[k]) for j in range(d)] for k in range(classes)
    ]
    variance = [
        sum(
            prior[k] * (sum((r[j] - mean[k][j]) ** 2 for r in members[k]) / len(members[k]) + 1e-9)
            for k in range(classes)
        )
        for j in range(d)
    ]
    joint = [
        [
            math.log(prior[k])
            - sum(
                (q[j] - mean[k][j]) ** 2 / (2 * variance[j]) + 0.5 * math.log(variance[j])
                for j in range(d)
            )
            for k in range(classes)
        ]
        for q in queries
    ]
    return exactly(joint).log_softmax(1)


def test_naive_bayes_head() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
    x = normal(10, 3) * exactly([1.0, 3.0, 0.2]) + 100 + normal(3, 3, seed=1)[y]
    weight, bias = naive_bayes_head(x, y, classes=3)
    queries = 100 + normal(5, 3, seed=2)
    ours = (queries @ weight.T + bias).log_softmax(1)
    same(ours, bayes_by_loops(x, y, queries, 3), rtol=1e-8, atol=1e-8)
    half, _ = naive_bayes_head(x.half(), y, classes=3)
    assert half.dtype == torch.float16
    # Far from zero and constant features are no danger.
    far = torch.cat([x, torch.full_like(x[:, :1], 1e6)], 1)
    wide, _ = naive_bayes_head(far, y, classes=3)
    same(wide[:, 3], torch.zeros(3).double())


def test_naive_bayes_second_opinion() -> None:
    """With spherical data whitened by the pooled variances it is scikit-learn's nearest centroid."""
    neighbors = pytest.importorskip("sklearn.neighbors")
    y = torch.arange(30) % 3
    x = normal(30, 4) + 2 * normal(3, 4, seed=1)[y]
    means = torch.stack([x[y == k].mean(0) for k in range(3)])
    deviation = (x - means[y]).square().mean(0).sqrt()
    theirs = neighbors.NearestCentroid().fit((x / deviation).numpy(), y.numpy())
    queries = 3 * normal(50, 4, seed=2)
    weight, bias = naive_bayes_head(x, y, classes=3)
    ours = (queries @ weight.T + bias).argmax(1)
    assert (ours.numpy() == theirs.predict((queries / deviation).numpy())).all()


def test_naive_bayes_without_examples_of_a_class() -> None:
    weight, bias = naive_bayes_head(normal(4, 2), torch.tensor([0, 0, 2, 2]), classes=3)
    assert bias[1] == -math.inf and weight.isfinite().all()
    with pytest.raises(ValueError, match="labels"):
        naive_bayes_head(normal(2, 2), torch.tensor([0, 3]), classes=3)
    with pytest.raises(TypeError, match="labels"):
        naive_bayes_head(normal(2, 2), torch.tensor([0.0, 1.0]), classes=3)
    with pytest.raises(ValueError, match="epsilon"):
        naive_bayes_head(normal(2, 2), torch.tensor([0, 1]), classes=3, epsilon=0.0)
    with pytest.raises(ValueError, match="embeddings"):
        naive_bayes_head(normal(2), torch.tensor([0, 1]), classes=2)


# --- Infinitely wide and deep -----------------------------------------------------------------

OPTIMAL = {  # the four of the authors' code, by the dimension of the sphere
    1: (0, 0.5, 0, 0, 0, 0, 0, 0.5),
    2: (0, 0.5, 0, 0.5),
    4: (0, 0.25, 0.5, 0.25),
    8: (0, 1 / 16, 7 / 8, 1 / 16),
}


def test_relu_dual_is_an_expectation() -> None:
    """By quadrature over the angle of two correlated normals, radius integrated out."""
    for xi in (-0.9, 0.0, 0.3, 1.0):
        theta = math.acos(xi)
        steps = 20000
        angles = [(i + 0.5) / steps * 2 * math.pi for i in range(steps)]
        value = sum(max(0.0, math.cos(a)) * max(0.0, math.cos(a - theta)) for a in angles)
        value *= 2 / steps * 2  # E[radius squared] = 2, and normalized by E[relu(u)^2] = 1/2
        slope = sum(math.cos(a) > 0 and math.cos(a - theta) > 0 for a in angles) * 2 / steps
        ours = relu_dual(exactly(xi))
        assert abs(ours[0].item() - value) < 1e-4 and abs(ours[1].item() - slope) < 1e-3


@pytest.mark.parametrize("coefficients", OPTIMAL.values())
def test_polynomial_dual(coefficients: tuple[float, ...]) -> None:
    xi = torch.linspace(-1, 1, 9, dtype=torch.float64)
    value, slope = polynomial_dual(xi, coefficients=coefficients)
    same(value, sum(a * xi**k for k, a in enumerate(coefficients)))
    same(slope, sum(k * a * xi ** (k - 1) for k, a in enumerate(coefficients) if k))
    assert value[-1] == 1


def test_polynomial_dual_is_that_of_hermite_polynomials() -> None:
    """(h1 + h3) / sqrt 2 at two normals of correlation xi, by Gauss's quadrature."""
    nodes, weights = __import__("numpy").polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    xi = 0.4

    def phi(u: float) -> float:
        return (u + (u**3 - 3 * u) / math.sqrt(6)) / math.sqrt(2)

    expected = sum(
        p * q * phi(u) * phi(xi * u + math.sqrt(1 - xi**2) * v)
        for (u, p), (v, q) in product(zip(nodes, weights, strict=True), repeat=2)
    )
    assert abs(polynomial_dual(exactly(xi), coefficients=OPTIMAL[2])[0].item() - expected) < 1e-12


def test_deep_ntk_is_the_recursion() -> None:
    for xi in (-0.5, 0.2, 1.0):
        sigma = kernel = xi
        for _ in range(4):
            slope = (math.pi - math.acos(sigma)) / math.pi
            deeper = sigma * slope + math.sqrt(max(0.0, 1 - sigma**2)) / math.pi
            sigma, kernel = deeper, deeper + kernel * slope
        same(deep_ntk(exactly(xi), dual=relu_dual, depth=4), exactly(kernel))
    same(deep_ntk(exactly(0.3), dual=relu_dual, depth=0), exactly(0.3))
    same(deep_ntk(exactly(1.0), dual=relu_dual, depth=6), exactly(7.0))
    with pytest.raises(ValueError, match="depth"):
        deep_ntk(exactly(0.3), dual=relu_dual, depth=-1)
    for coefficients in ((0.5, 0.4), (1.5, -0.5), ()):
        with pytest.raises(ValueError, match="coefficients"):
            polynomial_dual(exactly(0.3), coefficients=coefficients)


def test_deep_ntk_of_a_finite_network() -> None:
    """Two layers of finite width, gradients by autograd: the kernel with depth 1."""
    width, x = 4000, torch.nn.functional.normalize(normal(3, 4))
    first = normal(width, 4, seed=1).requires_grad_()
    last = normal(width, seed=2).requires_grad_()
    grads = []
    for row in x:
        output = math.sqrt(2 / width) * last @ (first @ row).relu()
        grads.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(output, (first, last))]))
    kernel = torch.stack(grads) @ torch.stack(grads).T
    expected = deep_ntk(x @ x.T, dual=relu_dual, depth=1)
    assert (kernel - expected).abs().max() < 0.15


@pytest.mark.parametrize("dimension", OPTIMAL)
def test_exponent_is_the_dimension_and_that_of_the_kernel(dimension: int) -> None:
    dual = partial(polynomial_dual, coefficients=OPTIMAL[dimension])
    slopes = [dual(exactly(xi))[1].item() for xi in (0.0, 1.0)]
    alpha = singularity_exponent(*slopes)
    assert abs(alpha - dimension) < 1e-12
    # A point whose 1 - xi is smaller by the slope at 1 lags one layer behind.
    near, far = 1 - 1e-6 / slopes[1], 1 - 1e-6
    sigma = exactly([near, far])
    for _ in range(150):
        sigma = dual(sigma)[0]
    growth = math.log((sigma[0] / sigma[1]).item())
    closer = math.log((1 - far) / (1 - near)) / 2  # of the distance
    assert abs(growth / (alpha * closer) - 1) < 1e-3
    # So close, a kernel of this depth is steeper by two: see the pitfall.
    kernel = deep_ntk(exactly([near, far]), dual=dual, depth=150)
    growth = math.log((kernel[0] / kernel[1]).item())
    assert abs(growth / ((alpha + 2) * closer) - 1) < 1e-3


def test_deep_kernel_tends_to_the_singular_one() -> None:
    """At a distance, K is L times Sigma, up to 1 / L."""
    dual = partial(polynomial_dual, coefficients=OPTIMAL[2])
    for xi in (0.1, 0.6, 0.9):
        errors = []
        for depth in (200, 400, 800):
            sigma = exactly(xi)
            for _ in range(depth):
                sigma = dual(sigma)[0]
            kernel = deep_ntk(exactly(xi), dual=dual, depth=depth)
            errors.append((kernel / (depth * sigma) - 1).item())
        assert abs(errors[2]) < 0.05 and abs(errors[1] / errors[2] - 2) < 0.1


def test_deep_networks_are_singular_kernels_nearest_neighbors_or_votes() -> None:
    angles = exactly([0.1, 0.4, 0.7, 1.1, 1.4])
    x = torch.stack([angles.cos(), angles.sin()], 1)
    y = exactly([1.0, -1.0, -1.0, -1.0, 1.0])
    # Far from antipodes, which odd duals oppose.
    around = torch.linspace(0, 1.6, 40, dtype=torch.float64)
    queries = torch.stack([around.cos(), around.sin()], 1)

    def decide(dual, depth: int) -> Tensor:
        kernel = deep_ntk(x @ x.T, dual=dual, depth=depth)
        return (
            deep_ntk(queries @ x.T, dual=dual, depth=depth) @ torch.linalg.solve(kernel, y)
        ).sign()

    nearest = y[torch.cdist(queries, x).argmin(1)]
    steep = decide(partial(polynomial_dual, coefficients=(0, 0.01, 0, 0.99)), 40)
    assert (steep == nearest).double().mean() > 0.9
    vote = decide(partial(polynomial_dual, coefficients=(0.3, 0.2, 0.0, 0.5)), 60)
    assert (vote == y.sum().sign()).all()
    singular = singular_kernel_scores(queries, x, y, alpha=1.0).sign()
    deep = decide(partial(polynomial_dual, coefficients=OPTIMAL[1]), 150)
    assert (deep == singular).double().mean() > 0.9


def test_singular_kernel_scores() -> None:
    x, points, y = normal(4, 3), normal(5, 3, seed=1), exactly([1.0, -1.0, 1.0, 1.0, -1.0])
    expected = []
    for row in x.tolist():
        weights = [math.dist(row, p) ** -2.5 for p in points.tolist()]
        expected.append(sum(w * v for w, v in zip(weights, y.tolist(), strict=True)) / sum(weights))
    same(singular_kernel_scores(x, points, y, alpha=2.5), exactly(expected))
    one_hot = torch.stack([y > 0, y < 0], 1).double()
    both = singular_kernel_scores(x, points, one_hot, alpha=2.5)
    same(both[:, 0] - both[:, 1], exactly(expected))
    same(singular_kernel_scores(points, points, y, alpha=3.0), y)
    same(singular_kernel_scores(x, points, y, alpha=0.0), y.mean().expand(4))
    nearest = y[torch.cdist(x, points).argmin(1)]
    same(singular_kernel_scores(x, points, y, alpha=5000.0), nearest)
    twins = torch.cat([points, points[:1]])
    averaged = singular_kernel_scores(points[:1], twins, torch.cat([y, -y[:1]]), alpha=2.0)
    assert averaged.abs() < 1e-12
    for bad, name in (
        ({"alpha": -1.0}, "alpha"),
        ({"points": points[:, :2], "alpha": 1.0}, "points"),
        ({"values": y[:2], "alpha": 1.0}, "values"),
        ({"inputs": x[0], "alpha": 1.0}, "inputs"),
    ):
        with pytest.raises(ValueError, match=name):
            singular_kernel_scores(**({"inputs": x, "points": points, "values": y} | bad))


def test_bad_slopes() -> None:
    for zero, one, name in ((0.0, 2.0, "slope_at_zero"), (0.5, 1.0, "slope_at_one")):
        with pytest.raises(ValueError, match=name):
            singularity_exponent(zero, one)


# --- Boosting ---------------------------------------------------------------------------------


def test_newton_targets_are_the_authors() -> None:
    scores, labels = 2 * normal(6), torch.tensor([1, 0, 0, 1, 1, 0])
    target, weight = newton_targets(
        scores, lambda f: margin_loss(f, labels, phi=logistic, reduction="none")
    )
    for i, (f, t) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
        y = 2 * t - 1
        assert abs(target[i].item() - y * (1 + math.exp(-y * f))) < 1e-10
        h = 1 / ((1 + math.exp(y * f)) * (1 + math.exp(-y * f)))
        assert abs(weight[i].item() - h) < 1e-12


def test_newton_targets_of_squares_are_residuals() -> None:
    scores, values = normal(5), normal(5, seed=1)
    target, weight = newton_targets(scores, lambda f: (f - values).square() / 2)
    same(target, values - scores)
    same(weight, torch.ones(5).double())
    with pytest.raises(ValueError, match=r"loss\(scores\)"):
        newton_targets(scores, lambda f: f.square().mean())


def test_grownet_loss_is_half_the_weighted_squares() -> None:
    scores, step, labels = 2 * normal(6), normal(6, seed=1), torch.tensor([1, 0, 0, 1, 1, 0])
    target, weight = newton_targets(
        scores, lambda f: margin_loss(f, labels, phi=logistic, reduction="none")
    )
    squares = weight * (step - target).square() / 2
    at_rest = weight * target.square() / 2
    base = margin_loss(scores, labels, phi=logistic, reduction="none")
    ours = grownet_loss(step, scores, labels, reduction="none")
    same(ours, base + squares - at_rest)
    # Taylor: the error is of third order.
    errors = [
        (
            grownet_loss(s * step, scores, labels, reduction="none")
            - margin_loss(scores + s * step, labels, phi=logistic, reduction="none")
        ).abs()
        for s in (1e-2, 1e-3)
    ]
    assert ((errors[0] / errors[1] - 1000).abs() < 100).all()
    with pytest.raises(ValueError, match="scores"):
        grownet_loss(step, scores[:-1], labels)


# --- Perceptron -------------------------------------------------------------------------------


def step_by_loops(w, x, y, gamma: float, normalize: bool) -> list[float]:
    shares = []
    for row, t in zip(x.tolist(), y.tolist(), strict=True):
        m = (2 * t - 1) * sum(a * b for a, b in zip(row, w.tolist(), strict=True))
        soft = 1 / (1 + math.exp(gamma * m)) if gamma < math.inf else BY_FORMULA[zero_one](m)
        shares.append(soft)
    total = sum(shares) if normalize else len(shares)
    moved = w.tolist()
    for share, row, t in zip(shares, x.tolist(), y.tolist(), strict=True):
        moved = [a + share / total * (2 * t - 1) * b for a, b in zip(moved, row, strict=True)]
    return moved


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 10.0, math.inf])
def test_perceptron_step(gamma: float, normalize: bool) -> None:
    x, y = normal(7, 3), torch.tensor([0, 1, 1, 0, 1, 0, 1])
    for w in (torch.zeros(3).double(), normal(3, seed=1)):
        ours = perceptron_step(w, x, y, gamma=gamma, normalize=normalize)
        same(ours, exactly(step_by_loops(w, x, y, gamma, normalize)))


def test_perceptron_step_is_gradient_descent() -> None:
    x, y, gamma = normal(7, 3), torch.tensor([0, 1, 1, 0, 1, 0, 1]), 20.0
    theta = normal(3, seed=1).requires_grad_()
    (slope,) = torch.autograd.grad(margin_loss(x @ theta, y, phi=logistic), theta)
    w = theta.detach() / gamma
    same(gamma * perceptron_step(w, x, y, gamma=gamma), theta.detach() - gamma * slope)
    m = (2 * y - 1) * (x @ theta.detach())
    beta = 1 / (1 / (1 + m.exp())).mean()  # the paper's normalizer
    normalized = gamma * perceptron_step(w, x, y, gamma=gamma, normalize=True)
    same(normalized, theta.detach() - gamma * beta * slope)


def separable(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = normal(n, 2, seed=seed)
    direction = exactly([0.6, 0.8])
    y = (x @ direction > 0).long()
    return x + 0.2 * (2 * y - 1).unsqueeze(1) * direction, y


def steps_to_separate(x: Tensor, y: Tensor, **options) -> int:
    w, signed = torch.zeros(2).double(), (2 * y - 1).unsqueeze(1) * x
    for step in range(5000):
        if (signed @ w > 0).all():
            return step
        w = perceptron_step(w, x, y, **options)
    raise AssertionError


def test_large_steps_tend_to_the_perceptron_and_bounds_hold() -> None:
    for seed in range(3):
        x, y = separable(20, seed)
        w = v = torch.zeros(2).double()
        for _ in range(5):
            w, v = perceptron_step(w, x, y), perceptron_step(v, x, y, gamma=1e9)
        same(w, v)
        radius = x.norm(dim=1).max().item()
        ratio = (radius / 0.2) ** 2  # its margin is 0.2 at least
        assert steps_to_separate(x, y) <= 20 * ratio
        assert steps_to_separate(x, y, normalize=True) <= ratio
        for gamma in (1.0, 100.0):
            bound = ratio + 2 * math.log(2 * 20 - 1) / (gamma * 0.2**2)
            assert steps_to_separate(x, y, gamma=gamma, normalize=True) <= bound


def test_the_papers_worst_case_needs_steps_in_proportion_to_examples() -> None:
    counts = []
    for n in (50, 100):
        x = exactly([[0.5, -1.0], *[[-0.5, -1.0]] * (n - 1)])
        y = torch.tensor([1] + [0] * (n - 1))
        counts.append(steps_to_separate(x, y))
        assert steps_to_separate(x, y, normalize=True) <= 5
    assert 1.8 < counts[1] / counts[0] < 2.2


def test_perceptron_at_rest() -> None:
    """Separated data move the perceptron no more; normalized gradients go on and do not vanish."""
    x, y = separable(10, 0)
    w = 1e6 * exactly([0.6, 0.8])
    same(perceptron_step(w, x, y, normalize=True), w)
    moved = perceptron_step(w, x, y, gamma=1.0, normalize=True) - w
    hardest = ((2 * y - 1) * (x @ w)).argmin()
    same(moved, (2 * y[hardest] - 1) * x[hardest], rtol=1e-3, atol=1e-3)
    tie = perceptron_step(
        exactly([0.0, 1.0]), exactly([[3.0, 0.0], [0.0, 1.0]]), torch.ones(2), normalize=True
    )
    same(tie, exactly([3.0, 1.0]))  # half an error is all there is
    with pytest.raises(ValueError, match="gamma"):
        perceptron_step(w, x, y, gamma=0.0)
    with pytest.raises(ValueError, match="weight"):
        perceptron_step(w[:1], x, y)


# --- Sums of log-concave likelihoods ----------------------------------------------------------


@pytest.mark.parametrize("planes", [1, 2, 3, 5])
def test_checkered_regression(planes: int) -> None:
    z, y = 2 * normal(6, planes), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = []
    for row, t in zip(z.tolist(), y.tolist(), strict=True):
        one = (1 + math.prod(math.tanh(s / 2) for s in row)) / 2
        expected.append(-math.log(one if t else 1 - one))
    same(checkered_regression_loss(z, y, reduction="none"), exactly(expected))
    terms = checkered_log_terms(z, y)
    assert terms.shape == (6, 2 ** (planes - 1))
    same(-terms.logsumexp(1), exactly(expected))
    if planes == 1:
        same(checkered_regression_loss(z, y), margin_loss(z[:, 0], y, phi=logistic))


def test_checkered_regression_is_precise_where_tanh_is_not() -> None:
    z = exactly([[50.0, 60.0], [50.0, -60.0]])
    losses = checkered_regression_loss(z, torch.tensor([1, 1]), reduction="none")
    same(losses[1], exactly(50.0 - math.log1p(math.exp(-10.0))), rtol=1e-12, atol=0)
    assert 0 <= losses[0] < 1e-15
    (slope,) = torch.autograd.grad(
        checkered_regression_loss(
            q := torch.zeros(1, 2).double().requires_grad_(), torch.tensor([1])
        ),
        q,
    )
    assert (slope == 0).all()  # the pitfall: start at random


def test_terms_are_log_concave() -> None:
    y = torch.tensor([1])
    for seed in range(20):
        a, b = 3 * normal(1, 3, seed=seed), 3 * normal(1, 3, seed=100 + seed)
        middle = checkered_log_terms((a + b) / 2, y)
        assert (middle >= (checkered_log_terms(a, y) + checkered_log_terms(b, y)) / 2 - 1e-12).all()


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a / b).log()).sum(-1)


def gaussians(x: Tensor) -> Tensor:
    """Logarithms of two bumps over points (..., 1)."""
    return torch.cat([-(x - 2).square(), math.log(0.5) - (x + 2).square() / 2], -1)


@pytest.mark.parametrize("terms", [gaussians, lambda z: checkered_log_terms(z, torch.ones(len(z)))])
def test_majorant_and_tangent_inequality(terms) -> None:
    wide = 1 if terms is gaussians else 3
    for seed in range(10):
        x, a = 3 * normal(1, wide, seed=seed), 3 * normal(1, wide, seed=50 + seed)
        leaf = a.clone().requires_grad_()
        value = -terms(leaf).logsumexp(-1)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        pi_a, pi_x = terms(a).softmax(-1), terms(x).softmax(-1)
        at_x = -terms(x).logsumexp(-1)
        # Above by the divergence, touching at its own weights, with the same slope.
        same(sum_log_concave_majorant(terms(x), weights=pi_a), at_x + kl(pi_a, pi_x))
        touching = sum_log_concave_majorant(terms(leaf), weights=pi_a)
        same(touching, value)
        same(torch.autograd.grad(touching.sum(), leaf)[0], slope)
        tangent = value.detach() + (slope * (x - a)).sum(-1) - kl(pi_a, pi_x)
        assert (at_x >= tangent - 1e-10).all()


def test_reweighting_by_the_minimizer_removes_the_harm() -> None:
    """From the wrong hill the gradient points away from the minimizer, the re-weighted one to it."""
    best = exactly([[2.0]])
    for start in (-4.0, -2.5, -1.0):
        a = exactly([[start]]).requires_grad_()
        value = -gaussians(a).logsumexp(-1)
        (slope,) = torch.autograd.grad(value.sum(), a)
        weights = gaussians(best).softmax(-1)
        (cross,) = torch.autograd.grad(
            sum_log_concave_majorant(gaussians(a), weights=weights).sum(), a
        )
        gap = value + gaussians(best).logsumexp(-1)
        assert gap > 0 and gap <= (cross * (a - best)).sum() + 1e-6
        if start == -1.0:
            assert slope > 0 and cross < 0


def test_bad_weights() -> None:
    terms = normal(3, 2)
    for weights in (exactly([0.5, 0.6]), exactly([1.5, -0.5]), exactly([1.0])):
        with pytest.raises(ValueError, match="weights"):
            sum_log_concave_majorant(terms, weights=weights)
    same(sum_log_concave_majorant(terms, weights=exactly([1.0, 0.0])), -terms[:, 0])  # 0 log 0 is 0
