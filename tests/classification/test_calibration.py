"""Proper losses, calibration errors, repair and conformal prediction against loops and enumeration."""

import itertools
import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook.classification import (
    LegendreLink,
    black_box_brier,
    bootstrap_interval,
    brier_decomposition,
    brier_loss,
    calibration_error,
    classwise_calibration_error,
    conformal_quantile,
    conformal_risk_control,
    correctness_aware_loss,
    cross_entropy,
    debiased_calibration_error,
    doubly_robust_outcome,
    dual_focal_loss,
    expected_calibration_error,
    fit_temperature,
    fit_vector_scaling,
    focal_loss,
    focal_posterior,
    halted_focal_loss,
    inverse_sampling_surprise,
    kernel_calibration_error,
    odd_k_out_sets,
    oko_loss,
    poisson_surprise,
    proper_loss,
    reliability_curve,
    smooth_calibration_error,
    spherical_loss,
    top_label,
)
from lossbook.classification.calibration import measurement


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(x - max(z)) for x in z]
    return [x / sum(powers) for x in powers]


Z, Y = 2 * normal(7, 4), torch.tensor([0, 1, 2, 3, 3, 1, 0])
ROWS = [(softmax(z), y) for z, y in zip(Z.tolist(), Y.tolist(), strict=True)]


def entropy(p: Tensor) -> Tensor:
    return torch.xlogy(p, p).sum(1)


# --- Proper losses ----------------------------------------------------------------------------


def test_scores_are_those_of_the_formula() -> None:
    brier = [sum((q - (k == y)) ** 2 for k, q in enumerate(p)) for p, y in ROWS]
    torch.testing.assert_close(brier_loss(Z, Y, reduction="none"), exactly(brier))
    spherical = [1 - p[y] / math.hypot(*p) for p, y in ROWS]
    torch.testing.assert_close(spherical_loss(Z, Y, reduction="none"), exactly(spherical))


def test_savage_makes_them_all() -> None:
    by = partial(proper_loss, Z, Y, reduction="none")
    of_all = {"reduction": "none"}
    torch.testing.assert_close(by(convex=entropy), cross_entropy(Z, Y, **of_all))
    square = by(convex=lambda p: p.square().sum(1))
    torch.testing.assert_close(square, brier_loss(Z, Y, **of_all) - 1)
    norm = by(convex=lambda p: p.norm(dim=1))
    torch.testing.assert_close(norm, spherical_loss(Z, Y, **of_all) - 1)
    # Adding a linear function to G changes nothing.
    tilted = by(convex=lambda p: p.norm(dim=1) + 3 * p[:, 1])
    torch.testing.assert_close(tilted, norm - 3 * (Y == 1))


@pytest.mark.parametrize(
    "loss, divergence",
    [
        (cross_entropy, lambda q, p: (q * (q / p).log()).sum()),
        (brier_loss, lambda q, p: (q - p).square().sum()),
        (spherical_loss, lambda q, p: q.norm() - (q * p).sum() / p.norm()),
        (
            partial(proper_loss, convex=lambda p: (p**3).sum(1)),
            lambda q, p: (q**3 - p**3 - 3 * p**2 * (q - p)).sum(),
        ),
    ],
    ids=["log", "brier", "spherical", "cubic"],
)
def test_honesty_costs_least(loss, divergence) -> None:
    """The loss above the least possible is the Bregman divergence: positive but for p = q."""
    for seed in range(20):
        z, believed = normal(1, 4, seed=seed), normal(1, 4, seed=seed + 100)
        q, p = believed.softmax(1), z.softmax(1)
        excess = loss(z, q) - loss(believed, q)
        torch.testing.assert_close(excess, divergence(q[0], p[0]))
        assert excess > 0


def test_brier_keeps_its_digits_where_it_is_nearly_zero() -> None:
    for lead in (1.0, 20.0, 100.0):
        expected = 2 * (1 / (1 + math.exp(lead))) ** 2
        loss = brier_loss(exactly([[lead, 0.0]]), torch.tensor([0])).item()
        assert loss == pytest.approx(expected, rel=1e-12)
    # In float32 it is never negative, as a difference from 1 would be.
    z = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * 10
    assert (brier_loss(z, z.argmax(1), reduction="none") >= 0).all()


@pytest.mark.parametrize("blocks", [1, 3])
def test_learned_link_is_increasing_and_invertible(blocks: int) -> None:
    torch.manual_seed(0)
    link = LegendreLink(4, width=5, depth=3, blocks=blocks).double()
    with torch.no_grad():
        for x in link.parameters():
            x.add_(torch.randn_like(x))
    s = 3 * normal(6, 3)
    assert link(s).shape == (6, 4) and (link(s)[:, -1] == 0).all()
    for potential in link.potentials:
        slope = torch.func.grad(lambda x, f=potential: f(x).sum())
        least = torch.nn.functional.softplus(potential.curvature)
        a, b = 5 * normal(200, 3, seed=1), 5 * normal(200, 3, seed=2)
        gain = ((slope(a) - slope(b)) * (a - b)).sum(1)
        assert (gain >= least * (a - b).square().sum(1) * (1 - 1e-9)).all()
        hessian = torch.func.hessian(lambda x, f=potential: f(x[None]).sum())(s[0])
        assert torch.linalg.eigvalsh(hessian)[0] >= least * (1 - 1e-9)
        assert hessian.std() > 1e-3  # not merely the quadratic
    for x in s:
        jacobian = torch.func.jacrev(lambda x: link(x[None])[0, :-1])(x)
        assert torch.linalg.det(jacobian) > 0


def test_learned_link_by_loops() -> None:
    torch.manual_seed(1)
    link = LegendreLink(3, width=2, depth=2).double().requires_grad_(False)
    (f,) = link.potentials

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    def potential(s: list[float]) -> float:
        hidden: list[float] = []
        for layer, skip in enumerate(f.skips):
            rows = []
            for unit, (row, bias) in enumerate(zip(skip.weight, skip.bias, strict=True)):
                x = float(bias) + sum(float(w) * v for w, v in zip(row, s, strict=True))
                if layer > 0:
                    positive = [softplus(float(w)) for w in f.raw[layer - 1][unit]]
                    x += sum(w * h for w, h in zip(positive, hidden, strict=True)) / len(hidden)
                rows.append(x if layer == 2 else softplus(x))
            hidden = rows
        return softplus(float(f.strength)) * hidden[0] + softplus(float(f.curvature)) * sum(
            x * x / 2 for x in s
        )

    s, step = [0.7, -1.3], 1e-5
    slopes = []
    for k in range(2):
        up, down = list(s), list(s)
        up[k], down[k] = s[k] + step, s[k] - step
        slopes.append((potential(up) - potential(down)) / (2 * step))
    torch.testing.assert_close(link(exactly([s]))[0], exactly([*slopes, 0.0]), rtol=1e-7, atol=1e-7)


def test_learned_link_trains() -> None:
    torch.manual_seed(0)
    link = LegendreLink(3, blocks=2)
    loss = cross_entropy(link(torch.randn(9, 2)), torch.arange(9) % 3)
    slopes = torch.autograd.grad(loss, list(link.parameters()), allow_unused=True)
    constant = [
        name for (name, _), g in zip(link.named_parameters(), slopes, strict=True) if g is None
    ]
    assert constant == ["potentials.0.skips.4.bias", "potentials.1.skips.4.bias"]
    scores = torch.randn(9, 2)
    with torch.no_grad():
        quiet = link(scores)
    torch.testing.assert_close(quiet, link(scores).detach())
    assert link(scores.bfloat16()).dtype == torch.bfloat16
    assert link(1e4 * scores).isfinite().all()


# --- Calibration errors -----------------------------------------------------------------------


def binned(c: list[float], a: list[float], bins: int, norm: str) -> float:
    """By equal width, each bin open below and closed above; 0 belongs to the first."""
    gaps = []
    for m in range(bins):
        lower, upper = m / bins, (m + 1) / bins
        rows = [i for i, x in enumerate(c) if lower < x <= upper or (m == 0 and x == 0)]
        if rows:
            gap = abs(sum(c[i] - a[i] for i in rows) / len(rows))
            gaps.append((len(rows) / len(c), gap))
    if norm == "max":
        return max(g for _, g in gaps)
    if norm == "l2":
        return math.sqrt(sum(w * g * g for w, g in gaps))
    return sum(w * g for w, g in gaps)


pairs = st.lists(
    st.tuples(st.floats(0, 1) | st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 1.0]), st.integers(0, 1)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=100)
@given(pairs, st.integers(1, 12), st.sampled_from(["l1", "l2", "max"]))
def test_binned_error(data: list, bins: int, norm: str) -> None:
    c, a = [float(x) for x, _ in data], [float(y) for _, y in data]
    error = calibration_error(exactly(c), exactly(a), bins=bins, norm=norm)
    assert error.item() == pytest.approx(binned(c, a, bins, norm), abs=1e-12)


def test_bins_of_equal_mass() -> None:
    c = torch.rand(100, generator=torch.Generator().manual_seed(0)).double()
    a = (c > 0.4).double()
    curve = reliability_curve(c, a, bins=7, scheme="mass")
    order = c.argsort().tolist()
    cuts = [math.ceil(m * 100 / 7) for m in range(8)]
    for m in range(7):
        rows = order[cuts[m] : cuts[m + 1]]
        assert curve.counts[m] == len(rows)
        assert curve.confidence[m].item() == pytest.approx(
            sum(c[i].item() for i in rows) / len(rows)
        )
        assert curve.outcome[m].item() == pytest.approx(sum(a[i].item() for i in rows) / len(rows))
    # Equal forecasts share a bin, whatever their order; values need be no probabilities.
    tied = exactly([5.0, -2.0, 5.0, 5.0, -2.0, 9.0])
    curve = reliability_curve(tied, exactly([1, 2, 3, 4, 5, 6]), bins=3, scheme="mass")
    assert curve.counts.tolist() == [2, 3, 1]
    assert curve.outcome.tolist() == pytest.approx([3.5, 8 / 3, 6])
    few = reliability_curve(tied[:2], tied[:2], bins=5, scheme="mass")
    assert few.counts.sum() == 2 and few.confidence.isnan().sum() == 3


def test_error_of_the_predicted_class(monkeypatch: pytest.MonkeyPatch) -> None:
    z = normal(500, 6, seed=3)
    y = torch.randint(6, (500,), generator=torch.Generator().manual_seed(0))
    c = [max(softmax(row)) for row in z.tolist()]
    a = [float(row.index(max(row)) == k) for row, k in zip(z.tolist(), y.tolist(), strict=True)]
    whole = top_label(z, y)
    torch.testing.assert_close(whole[0], exactly(c))
    assert whole[1].tolist() == a
    for norm in ("l1", "l2", "max"):
        error = expected_calibration_error(z, y, norm=norm)
        assert error.item() == pytest.approx(binned(c, a, 15, norm), abs=1e-12)
    monkeypatch.setattr(measurement, "_CHUNK", 6 * 7)  # parts of 7 rows
    assert all(torch.equal(x, w) for x, w in zip(top_label(z, y), whole, strict=True))
    half = expected_calibration_error(z.bfloat16(), y)
    assert half.item() == pytest.approx(binned(c, a, 15, "l1"), abs=1e-2)
    assert expected_calibration_error(1e4 * z, y).item() == pytest.approx(1 - sum(a) / 500)


def test_error_of_every_class() -> None:
    z, y = (
        normal(200, 3, seed=4),
        torch.randint(3, (200,), generator=torch.Generator().manual_seed(0)),
    )
    errors = classwise_calibration_error(z, y, bins=10)
    p = [softmax(row) for row in z.tolist()]
    for k in range(3):
        expected = binned([row[k] for row in p], [float(x == k) for x in y.tolist()], 10, "l1")
        assert errors[k].item() == pytest.approx(expected, abs=1e-12)


def test_a_library_says_the_same() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    z = normal(2000, 5, seed=5)
    y = torch.randint(5, (2000,), generator=torch.Generator().manual_seed(1))
    for norm in ("l1", "l2", "max"):
        ours = expected_calibration_error(z, y, norm=norm).item()
        other = theirs.multiclass_calibration_error(z, y, num_classes=5, norm=norm)
        assert ours == pytest.approx(other.item(), abs=1e-5)


def test_debiased_error_is_unbiased() -> None:
    """All samples of three pairs (forecast, outcome) from one bin, weighed by their probability."""
    law = {(0.3, 1.0): 0.2, (0.3, 0.0): 0.3, (0.25, 1.0): 0.4, (0.31, 0.0): 0.1}
    mean = sum(w * (c - a) for (c, a), w in law.items())
    expectation = plug_in = 0.0
    for sample in itertools.product(law, repeat=3):
        chance = math.prod(law[x] for x in sample)
        c, a = exactly([x for x, _ in sample]), exactly([x for _, x in sample])
        expectation += chance * debiased_calibration_error(c, a, bins=2, scheme="width").item()
        plug_in += chance * calibration_error(c, a, bins=2, norm="l2").item() ** 2
    assert expectation == pytest.approx(mean**2, abs=1e-14)
    assert plug_in > mean**2 + 0.01


def test_debiased_error_of_a_binned_forecaster() -> None:
    c = exactly([0.2] * 5 + [0.7] * 4 + [0.95])
    a = exactly([0, 1, 0, 0, 1, 1, 1, 0, 1, 1])
    first = (0.2 - 0.4) ** 2 - 0.4 * 0.6 / 4
    second = (0.7 - 0.75) ** 2 - 0.75 * 0.25 / 3
    expected = 0.5 * first + 0.4 * second  # the bin of one counts nothing
    for scheme, bins in (("width", 5), ("mass", 10)):
        error = debiased_calibration_error(c, a, bins=bins, scheme=scheme)
        assert error.item() == pytest.approx(expected, abs=1e-14)
    assert error < 0


def test_partition_of_the_brier_score() -> None:
    generator = torch.Generator().manual_seed(0)
    c = exactly([0.05, 0.3, 0.55, 0.9])[torch.randint(4, (80,), generator=generator)]
    a = torch.randint(2, (80,), generator=generator).double()
    reliability, resolution, uncertainty = brier_decomposition(reliability_curve(c, a, bins=10))
    score = (c - a).square().mean()
    torch.testing.assert_close(reliability - resolution + uncertainty, score)
    assert min(reliability, resolution, uncertainty) > 0
    z = torch.stack([c.logit(), torch.zeros_like(c)], 1)  # class 0 is the event
    torch.testing.assert_close(brier_loss(z, (1 - a).long()), 2 * score)


def reflected(t: float, c: float, sigma: float) -> float:
    images = [2 * k + sign * c for k in range(-4, 5) for sign in (1, -1)]
    norm = sigma * math.sqrt(2 * math.pi)
    return sum(math.exp(-((t - x) ** 2) / (2 * sigma**2)) for x in images) / norm


def smoothed_error(c: list[float], a: list[float], sigma: float, points: int = 400) -> float:
    total = 0.0
    for j in range(points):
        t = (j + 0.5) / points
        terms = zip(c, a, strict=True)
        total += abs(sum((x - y) * reflected(t, x, sigma) for x, y in terms)) / len(c)
    return total / points


def test_smooth_error_by_its_definition() -> None:
    c, a = [0.1, 0.35, 0.5, 0.8, 0.97, 1.0], [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    error = smooth_calibration_error(exactly(c), exactly(a)).item()
    assert smoothed_error(c, a, error) == pytest.approx(error, abs=2e-4)
    assert smoothed_error(c, a, 0.9 * error) > 0.9 * error
    # Its extremes, and the ends of the interval, where nothing may leak out.
    assert smooth_calibration_error(exactly([1, 1]), exactly([0, 0])).item() == pytest.approx(1)
    assert smooth_calibration_error(exactly([0, 0, 1]), exactly([0, 0, 1])).item() < 1e-5
    assert smooth_calibration_error(exactly([0.5, 0.5]), exactly([0, 1])).item() < 1e-5
    # Continuous: binned errors jump where forecasts pass an edge.
    for low, high in ((0.4999, 0.5001), (0.2, 0.2001)):
        one = smooth_calibration_error(exactly([low, 0.5]), exactly([0, 1]))
        two = smooth_calibration_error(exactly([high, 0.5]), exactly([0, 1]))
        assert abs(one - two) < 1e-3


def test_authors_of_the_smooth_error_say_the_same() -> None:
    theirs = pytest.importorskip("relplot")
    generator = torch.Generator().manual_seed(0)
    c = torch.rand(3000, generator=generator, dtype=torch.float64)
    a = (torch.rand(3000, generator=generator) < c**2).double()
    ours = smooth_calibration_error(c, a).item()
    assert ours == pytest.approx(theirs.smECE(c.numpy(), a.numpy()), abs=1e-3)


def test_kernel_error_by_loops() -> None:
    n, expected = len(ROWS), 0.0
    for i, j in itertools.permutations(range(n), 2):
        (p, y), (q, x) = ROWS[i], ROWS[j]
        kernel = math.exp(-math.dist(p, q) / 0.3)
        expected += kernel * sum(((k == y) - p[k]) * ((k == x) - q[k]) for k in range(4))
    error = kernel_calibration_error(Z, Y, bandwidth=0.3)
    assert error.item() == pytest.approx(expected / (n * (n - 1)), abs=1e-12)
    distances = [math.dist(ROWS[i][0], ROWS[j][0]) for i, j in itertools.permutations(range(n), 2)]
    median = exactly(distances).median().item()
    chosen = kernel_calibration_error(Z, Y)
    torch.testing.assert_close(chosen, kernel_calibration_error(Z, Y, bandwidth=median))


def test_kernel_error_of_a_calibrated_forecast_is_zero_on_average() -> None:
    z = normal(3, 3, seed=6)
    p, expectation = z.softmax(1), 0.0
    for labels in itertools.product(range(3), repeat=3):
        chance = math.prod(p[i, k].item() for i, k in enumerate(labels))
        expectation += (
            chance * kernel_calibration_error(z, torch.tensor(labels), bandwidth=1).item()
        )
    assert expectation == pytest.approx(0, abs=1e-15)


def test_bootstrap_interval() -> None:
    x = normal(400) + 1
    generator = torch.Generator().manual_seed(0)
    low, high = bootstrap_interval(lambda x: x.mean(0), x, level=0.9, generator=generator)
    half = 1.645 * x.std() / 20
    assert low.item() == pytest.approx((x.mean() - half).item(), abs=0.015)
    assert high.item() == pytest.approx((x.mean() + half).item(), abs=0.015)
    # It is reflected: the maximum only falls in resamples, so that the interval lies above it.
    low, high = bootstrap_interval(lambda x: x.amax(0), x, generator=generator)
    assert low == x.amax() and high > low
    # Rows stay together, and entries of a statistic are separate.
    columns = torch.stack([x, -x], 1)
    low, high = bootstrap_interval(
        lambda a, b: (a[:, 0] * b).mean() - b.square().mean(), columns, x
    )
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(0, abs=1e-12)
    assert bootstrap_interval(lambda x: x.mean(0), columns, resamples=9)[0].shape == (2,)


# --- Repair -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0, 40.0])
def test_temperature_is_recovered(scale: float, temperature: float) -> None:
    z = normal(50, 5)
    truth = (z / temperature).softmax(1)
    fitted = fit_temperature(scale * z, truth)
    assert fitted.item() == pytest.approx(scale * temperature, rel=1e-6)
    shifted = fit_temperature(scale * (z + normal(50, 1, seed=1)), truth)
    assert shifted.item() == pytest.approx(scale * temperature, rel=1e-6)


def test_temperature_is_the_best() -> None:
    z = 5 * normal(300, 4, seed=1)
    y = torch.distributions.Categorical(logits=z / 3).sample()
    best = fit_temperature(z, y)
    least = cross_entropy(z / best, y)
    for factor in (0.99, 1.01):
        assert cross_entropy(z / (factor * best), y) > least
    beta = (1 / best).requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(beta * z, y), beta)
    assert abs(slope) < 1e-12
    assert fit_temperature(z.half(), y).dtype == torch.float16


def test_where_there_is_no_temperature() -> None:
    z = normal(20, 3)
    for y in (z.argmax(1), z.argmin(1)):
        with pytest.raises(ValueError, match="logits"):
            fit_temperature(z, y)
    with pytest.raises(ValueError, match="logits"):
        fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 0]))


def test_vector_scaling() -> None:
    z, w, b = 2 * normal(400, 4), exactly([0.5, 1.0, 2.0, 1.5]), exactly([0.3, -0.3, 0.6, -0.6])
    truth = (w * z + b).softmax(1)
    fitted = fit_vector_scaling(z, truth, penalty=1e-9)
    torch.testing.assert_close(fitted[0], w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted[1], b, rtol=1e-5, atol=1e-5)
    y = torch.distributions.Categorical(probs=truth).sample()
    for target, penalty in ((y, 1e-4), (y, 1.0), (z.argmax(1), 1e-4)):  # the last is separable
        leaves = [x.requires_grad_() for x in fit_vector_scaling(z, target, penalty=penalty)]
        excess = (leaves[0] - 1).square().sum() + leaves[1].square().sum()
        loss = cross_entropy(leaves[0] * z + leaves[1], target) + penalty / 2 * excess
        assert all(g.abs().max() < 1e-8 for g in torch.autograd.grad(loss, leaves))
        assert abs(leaves[1].sum()) < 1e-6  # the offsets' common constant is penalized away


# --- Losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_losses_by_loops(gamma: float) -> None:
    focal, dual = [], []
    for p, y in ROWS:
        below = max([q for q in p if q < p[y]], default=0.0)
        focal.append(-((1 - p[y]) ** gamma) * math.log(p[y]))
        dual.append(-((1 - p[y] + below) ** gamma) * math.log(p[y]))
    ours = {"gamma": gamma, "reduction": "none"}
    torch.testing.assert_close(focal_loss(Z, Y, **ours), exactly(focal))
    torch.testing.assert_close(dual_focal_loss(Z, Y, **ours), exactly(dual))
    torch.testing.assert_close(
        focal_loss(Z, Y, **ours), halted_focal_loss(Z, Y, gamma=gamma, halt=1.0, reduction="none")
    )


def test_rival_is_strictly_below() -> None:
    z = exactly([[1.0, 2.0, 2.0, 0.0, 1.0]])
    p = z.softmax(1)[0].tolist()
    for y, rival in ((0, p[3]), (1, p[0]), (2, p[0]), (3, 0.0), (4, p[3])):
        expected = -((1 - p[y] + rival) ** 2) * math.log(p[y])
        loss = dual_focal_loss(z, torch.tensor([y]), gamma=2.0)
        assert loss.item() == pytest.approx(expected)
    leaf = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)  # all equal: no rivals
    target = torch.tensor([0, 1])
    slopes = [
        torch.autograd.grad(loss(leaf, target, gamma=2.0), leaf)[0]
        for loss in (dual_focal_loss, focal_loss)
    ]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 5.0])
def test_focal_posterior_is_what_the_minimizer_believes(gamma: float) -> None:
    """Under these probabilities the gradient of the expected focal loss is zero where it stands."""
    sure = exactly([[6.0, 0.0, -1.0, 0.5], [12.0, 0.0, 1.0, -2.0]])
    z = torch.cat([2 * normal(20, 4), sure]).requires_grad_()
    q = focal_posterior(z.detach(), gamma=gamma)
    (slope,) = torch.autograd.grad(focal_loss(z, q, gamma=gamma, reduction="sum"), z)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-13, rtol=0)
    p = z.detach().softmax(1)

    def h(p: float) -> float:
        return p / ((1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * math.log(p))

    expected = exactly([[h(x) for x in row] for row in p.tolist()])
    torch.testing.assert_close(q, expected / expected.sum(1, True))
    if gamma > 0:
        assert (q.amax(1) > p.amax(1))[p.amax(1) > 0.5].all()  # it says less than it believes


def test_focal_posterior_at_the_extremes() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        z = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [20.0, 0.0, -1.0]], dtype=dtype)
        q = focal_posterior(z)
        assert q.dtype == dtype and q[0].tolist() == [1, 0, 0]
        assert q[1].float().tolist() == pytest.approx([1 / 3] * 3, rel=1e-2)
    assert focal_posterior(torch.zeros(2, 1)).tolist() == [[1], [1]]
    # Past the switch to the limit, and before it: h(p) is about (1 - p)^-gamma / (1 + gamma).
    for lead in (30.0, 36.0, 37.0, 60.0):
        q = focal_posterior(exactly([[lead, 0.0]]), gamma=2.0)[0, 1].item()
        assert q == pytest.approx(3 * math.exp(-3 * lead), rel=1e-9)


def test_correctness_aware_loss_by_loops() -> None:
    for k in range(4):  # each row is right once
        expected = [(max(p) - (p.index(max(p)) == k)) ** 2 for p, _ in ROWS]
        loss = correctness_aware_loss(Z, torch.full_like(Y, k), reduction="none")
        torch.testing.assert_close(loss, exactly(expected))
    # On a narrowly wrong example it asks for less confidence, and cross-entropy for more.
    z, y = exactly([[0.42, 0.40, 0.18]]).log(), torch.tensor([1])
    beta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (aware,) = torch.autograd.grad(correctness_aware_loss(beta * z, y), beta)
    (likely,) = torch.autograd.grad(cross_entropy(beta * z, y), beta)
    assert aware > 0 > likely


def test_sets_name_the_class_of_their_pair() -> None:
    z, y = normal(6, 3, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = []
    for rows, label in zip(z.tolist(), y.tolist(), strict=True):
        p = softmax([sum(column) for column in zip(*rows, strict=True)])
        expected.append(-math.log(p[label]))
    torch.testing.assert_close(oko_loss(z, y, reduction="none"), exactly(expected))


@pytest.mark.parametrize("odd", [0, 1, 3])
def test_odd_k_out_sets(odd: int) -> None:
    labels = torch.tensor([7] * 50 + [-2] * 5 + [3] * 2 + [0])[torch.randperm(58)]
    generator = torch.Generator().manual_seed(0)
    indices, pair = odd_k_out_sets(labels, sets=6000, odd=odd, generator=generator)
    assert indices.shape == (6000, odd + 2)
    classes = labels[indices]
    assert (classes[:, :2] == pair.unsqueeze(1)).all()
    assert (indices[:, 0] != indices[:, 1]).all()
    distinct = classes[:, 1:].sort(1).values
    assert (distinct.diff(dim=1) > 0).all()
    # Uniform over classes with a pair, over the others, and over the examples of a class.
    for label in (7, -2, 3):
        assert (pair == label).double().mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert not (pair == 0).any()
    if odd == 1:
        of_three = classes[pair == 3, 2]
        for label in (7, -2, 0):
            assert (of_three == label).double().mean().item() == pytest.approx(1 / 3, abs=0.05)
    for column in (0, 1):
        uses = indices[pair == -2, column].bincount(minlength=58)[labels == -2]
        assert uses.min() > 0.8 * uses.double().mean()
    again = odd_k_out_sets(labels, sets=6000, odd=odd, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again[0], indices)


# --- Samples only -----------------------------------------------------------------------------


@pytest.mark.parametrize("n, m", [(2, 1), (3, 2)])
def test_black_box_loss_is_the_brier_score_on_average(n: int, m: int) -> None:
    p, q, expectation = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], 0.0
    for x in itertools.product(range(3), repeat=n):
        for y in itertools.product(range(3), repeat=m):
            chance = math.prod(p[k] for k in x) * math.prod(q[k] for k in y)
            expectation += chance * black_box_brier(torch.tensor(x), torch.tensor(y)).item()
    distance = sum((a - b) ** 2 for a, b in zip(p, q, strict=True))
    assert expectation == pytest.approx(distance - sum(b * b for b in q), abs=1e-6)
    batch = torch.randint(3, (4, 5, n)), torch.randint(3, (4, 5, m))
    assert black_box_brier(*batch).shape == (4, 5)


@pytest.mark.parametrize("p", [0.9, 0.5, 0.05])
def test_random_numbers_of_samples_estimate_the_logarithm(p: float) -> None:
    draws = torch.arange(1, 2000)
    chance = p * (1 - p) ** (draws.double() - 1)
    surprise = inverse_sampling_surprise(draws).double()
    by_hand = [sum(1 / k for k in range(1, t)) for t in range(1, 30)]
    assert surprise[:29].tolist() == pytest.approx(by_hand, rel=1e-6, abs=1e-7)
    mean = (chance * surprise).sum()
    assert mean.item() == pytest.approx(-math.log(p), rel=1e-5)
    dilogarithm = sum((1 - p) ** k / k**2 for k in range(1, 2000))
    variance = (chance * (surprise - mean).square()).sum()
    assert variance.item() == pytest.approx(dilogarithm, rel=1e-4)


@pytest.mark.parametrize("p, rate", [(0.9, 0.5), (0.5, 3.0), (0.3, 10.0)])
def test_poisson_numbers_of_samples_do_too(p: float, rate: float) -> None:
    misses = torch.arange(101)
    terms = poisson_surprise(misses, rate=rate)
    for m in (0, 1, 2, 5):
        by_hand = sum(math.perm(m, k) / (k * rate**k) for k in range(1, m + 1))
        assert terms[m].item() == pytest.approx(by_hand)
    mean = rate * (1 - p)
    count = misses.double()
    log_chance = count * math.log(mean) - mean - torch.lgamma(count + 1)
    assert (log_chance.exp() * terms).sum().item() == pytest.approx(-math.log(p), rel=1e-9)
    # The second moment has no limit: its terms grow.
    second = 2 * terms.log() + log_chance
    assert second[100] > second[60] > second[40]
    assert poisson_surprise(torch.zeros(0, dtype=torch.int64), rate=1.0).shape == (0,)


# --- Conformal prediction ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 9, 10, 19, 99, 100, 199, 999])
def test_ranks_are_exact(n: int) -> None:
    scores = torch.arange(1.0, n + 1)[torch.randperm(n)]
    for percent in range(1, 100):
        rank = math.ceil((n + 1) * (1 - Fraction(percent, 100)))
        expected = float(rank) if rank <= n else math.inf
        assert conformal_quantile(scores, alpha=percent / 100) == expected
        weights = 0.1 * torch.ones(n)  # 0.1 is no binary fraction
        same = conformal_quantile(scores, alpha=percent / 100, weights=weights, test_weight=0.1)
        if percent * (n + 1) % 100:  # rounding of 0.1 to float32 decides where they are equal
            assert same == expected


def test_coverage_by_exchange() -> None:
    """Each of ten scores is new once: the share that is covered is the rank over n + 1."""
    scores = normal(10)
    for percent in (10, 25, 30, 50):
        covered = 0
        for i in range(10):
            rest = torch.cat([scores[:i], scores[i + 1 :]])
            covered += int(scores[i] <= conformal_quantile(rest, alpha=percent / 100))
        assert covered == math.ceil(10 * (1 - Fraction(percent, 100)))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 8)), max_size=12),
    st.integers(0, 8),
    st.integers(1, 31),
)
def test_weighted_quantile(data: list, new: int, of_32: int) -> None:
    """In binary fractions, so that loops and tensors meet the same equalities."""
    alpha, total = of_32 / 32, sum(w for _, w in data) + new
    holds = [
        q
        for q in sorted({s for s, _ in data})
        if sum(w for s, w in data if s <= q) >= (1 - alpha) * total
    ]
    scores, weights = exactly([s for s, _ in data]), exactly([w for _, w in data])
    ours = conformal_quantile(scores, alpha=alpha, weights=weights, test_weight=float(new))
    assert ours == (holds[0] if holds else math.inf)


def test_quantile_for_many_new_examples() -> None:
    scores, weights = normal(30), torch.rand(30, generator=torch.Generator().manual_seed(0))
    new = torch.tensor([0.0, 0.5, 3.0, 100.0])
    many = conformal_quantile(scores, alpha=0.1, weights=weights, test_weight=new)
    one = [
        conformal_quantile(scores, alpha=0.1, weights=weights, test_weight=float(w)) for w in new
    ]
    assert many.tolist() == [x.item() for x in one] and many[-1] == math.inf
    assert many.tolist() == sorted(many.tolist()) and many.dtype == torch.float64


def falling(rows: int, settings: int, seed: int) -> Tensor:
    return torch.sort(normal(rows, settings, seed=seed).sigmoid(), 1, descending=True).values


def test_risk_control_by_loops() -> None:
    losses = falling(40, 12, seed=0)
    weights = 0.9 ** torch.arange(40, 0, -1).double()
    for w in (None, weights):
        per_row = [1.0] * 40 if w is None else w.tolist()
        for alpha in (0.05, 0.3, 0.5, 0.7):
            safe = [
                k
                for k in range(12)
                if (sum(v * x for v, x in zip(per_row, losses[:, k].tolist(), strict=True)) + 1)
                / (sum(per_row) + 1)
                <= alpha
            ]
            index = conformal_risk_control(losses, alpha=alpha, weights=w)
            assert index == (safe[0] if safe else 11)
    assert conformal_risk_control(losses, alpha=0.5, bound=30.0) == 11


def test_risk_control_keeps_its_promise() -> None:
    """Each of 25 examples is new once; the last setting has no loss."""
    for seed in range(5):
        losses = falling(25, 40, seed=seed) * torch.linspace(1, 0, 40)
        for alpha in (0.05, 0.1, 0.3):
            total = 0.0
            for i in range(25):
                rest = torch.cat([losses[:i], losses[i + 1 :]])
                total += losses[i, conformal_risk_control(rest, alpha=alpha)].item()
            assert total / 25 <= alpha


def test_risk_control_of_misses_is_conformal_prediction() -> None:
    scores = normal(19)
    grid = scores.sort().values
    misses = (scores.unsqueeze(1) > grid).double()
    for alpha in (0.1, 0.2, 0.5):
        index = conformal_risk_control(misses, alpha=alpha)
        assert grid[index] == conformal_quantile(scores, alpha=alpha)


# --- Effects ----------------------------------------------------------------------------------


def test_doubly_robust_outcome() -> None:
    y, e = normal(8), torch.linspace(0.1, 0.9, 8).double()
    a = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    one, zero = normal(8, seed=1), normal(8, seed=2)
    means = {"treated_mean": one, "control_mean": zero}
    chi = doubly_robust_outcome(y, a, propensity=e, **means)
    own = torch.where(a == 1, one, zero)
    torch.testing.assert_close(chi, one - zero + (a - e) / (e * (1 - e)) * (y - own))


@pytest.mark.parametrize("right", ["propensity", "means"])
def test_one_right_model_is_enough(right: str) -> None:
    chance, means = 0.3, (2.0, 5.0)  # the truth: control, treated
    wrong = (0.0, 1.0)
    e, guess = (chance, wrong) if right == "propensity" else (0.6, means)
    expectation = 0.0
    for a, probability in ((1, chance), (0, 1 - chance)):
        chi = doubly_robust_outcome(
            exactly([means[a]]),
            torch.tensor([a]),
            propensity=exactly([e]),
            treated_mean=exactly([guess[1]]),
            control_mean=exactly([guess[0]]),
        )
        expectation += probability * chi.item()
    assert expectation == pytest.approx(means[1] - means[0])


def test_isotonic_regression_calibrates_effects() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4000, generator=generator).double()
    a = (torch.rand(4000, generator=generator) < 0.5).long()
    y = a * x + 0.1 * torch.randn(4000, generator=generator).double()
    half = torch.full_like(x, 0.5)
    chi = doubly_robust_outcome(
        y, a, propensity=half, treated_mean=torch.zeros_like(x), control_mean=torch.zeros_like(x)
    )
    predicted = 3 * x - 1  # in the right order, overconfident
    fitted = isotonic.IsotonicRegression(out_of_bounds="clip").fit(predicted[::2], chi[::2])
    repaired = torch.tensor(fitted.predict(predicted[1::2]))
    before = debiased_calibration_error(predicted[1::2], chi[1::2], bins=10)
    after = debiased_calibration_error(repaired, chi[1::2], bins=10)
    assert before > 0.2 and abs(after) < 0.01


# --- Bad input --------------------------------------------------------------------------------


def test_bad_input() -> None:
    c, a = exactly([0.2, 0.9]), exactly([0, 1])
    for measure in (calibration_error, debiased_calibration_error, reliability_curve):
        with pytest.raises(ValueError, match="bins"):
            measure(c, a, bins=0)
        with pytest.raises(ValueError, match="scheme"):
            measure(c, a, scheme="depth")
        with pytest.raises(ValueError, match="confidences"):
            measure(c + 0.5, a, scheme="width")
        with pytest.raises(ValueError, match="outcomes"):
            measure(c, a[:1])
        with pytest.raises(TypeError, match="confidences"):
            measure(a.long(), a)
    for bad in (exactly([math.nan, 0.5]), exactly([-0.1, 0.5])):
        with pytest.raises(ValueError, match="confidences"):
            calibration_error(bad, a)
        with pytest.raises(ValueError, match="confidences"):
            smooth_calibration_error(bad, a)
    with pytest.raises(ValueError, match="norm"):
        calibration_error(c, a, norm="l3")
    with pytest.raises(ValueError, match="number of confidences"):
        calibration_error(c[:0], a[:0])
    for measure in (expected_calibration_error, classwise_calibration_error, top_label):
        with pytest.raises(ValueError, match="logits"):
            measure(Z[0], Y)
        with pytest.raises(ValueError, match="target"):
            measure(Z, Y[:-1])
        with pytest.raises(ValueError, match="target"):
            measure(Z, Y - 1)
        with pytest.raises(ValueError, match="target"):
            measure(Z, Y + 1)
        with pytest.raises(TypeError, match="target"):
            measure(Z, Z.softmax(1))
        with pytest.raises(TypeError, match="logits"):
            measure(Y.unsqueeze(1), Y)
    with pytest.raises(ValueError, match="bandwidth"):
        kernel_calibration_error(Z, Y, bandwidth=0.0)
    with pytest.raises(ValueError, match="rows"):
        kernel_calibration_error(Z[:1], Y[:1])
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(torch.mean, c, level=1.0)
    with pytest.raises(ValueError, match="length"):
        bootstrap_interval(lambda x, y: x.mean(), c, c[:1])
    with pytest.raises(ValueError, match="data"):
        bootstrap_interval(torch.mean)
    with pytest.raises(ValueError, match="convex"):
        proper_loss(Z, Y, convex=lambda p: p.square())
    with pytest.raises(ValueError, match="classes"):
        LegendreLink(1)
    with pytest.raises(ValueError, match="blocks"):
        LegendreLink(3, blocks=0)
    with pytest.raises(ValueError, match="scores"):
        LegendreLink(3)(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="penalty"):
        fit_vector_scaling(Z, Y, penalty=0.0)
    for fit in (fit_temperature, fit_vector_scaling):
        with pytest.raises(ValueError, match="target"):
            fit(Z, Z)
        with pytest.raises(ValueError, match="target"):
            fit(Z, Y + 3)
    with pytest.raises(ValueError, match="gamma"):
        focal_posterior(Z, gamma=-1.0)


def test_bad_input_to_samplers_and_conformal_methods() -> None:
    with pytest.raises(ValueError, match="labels"):
        odd_k_out_sets(torch.arange(5), sets=1)
    with pytest.raises(ValueError, match="number of classes"):
        odd_k_out_sets(torch.tensor([0, 0, 1]), sets=1, odd=2)
    with pytest.raises(TypeError, match="labels"):
        odd_k_out_sets(torch.zeros(3), sets=1)
    with pytest.raises(ValueError, match="sets"):
        odd_k_out_sets(torch.tensor([0, 0, 1]), sets=0)
    with pytest.raises(ValueError, match="samples"):
        black_box_brier(torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="observed"):
        black_box_brier(torch.tensor([1, 1]), torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="draws"):
        inverse_sampling_surprise(torch.tensor([0]))
    with pytest.raises(ValueError, match="misses"):
        poisson_surprise(torch.tensor([-1]), rate=1.0)
    with pytest.raises(ValueError, match="rate"):
        poisson_surprise(torch.tensor([1]), rate=0.0)
    s = normal(5)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            conformal_quantile(s, alpha=alpha)
    with pytest.raises(ValueError, match="weights"):
        conformal_quantile(s, alpha=0.1, weights=-torch.ones(5))
    with pytest.raises(ValueError, match="weights"):
        conformal_quantile(s, alpha=0.1, weights=torch.ones(4))
    with pytest.raises(ValueError, match="test_weight"):
        conformal_quantile(s, alpha=0.1, test_weight=-1.0)
    losses = falling(5, 3, seed=0)
    with pytest.raises(ValueError, match="losses"):
        conformal_risk_control(losses.flip(1), alpha=0.1)
    with pytest.raises(ValueError, match="bound"):
        conformal_risk_control(losses, alpha=0.1, bound=0.1)
    with pytest.raises(ValueError, match="weights"):
        conformal_risk_control(losses, alpha=0.1, weights=2 * torch.ones(5))
    y, a = normal(2), torch.tensor([0, 1])
    nothing = {"treated_mean": y, "control_mean": y}
    with pytest.raises(ValueError, match="propensity"):
        doubly_robust_outcome(y, a, propensity=exactly([0.0, 0.5]), **nothing)
    with pytest.raises(ValueError, match="treated"):
        doubly_robust_outcome(y, 2 * a, propensity=exactly([0.5, 0.5]), **nothing)
    with pytest.raises(ValueError, match="control_mean"):
        doubly_robust_outcome(
            y, a, propensity=exactly([0.5, 0.5]), treated_mean=y, control_mean=y[:1]
        )
