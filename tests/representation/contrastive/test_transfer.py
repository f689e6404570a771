"""What representations keep, against loops written from the formulas.

What all losses share (dtypes, extremes, derivatives, bad input) is tested in test_contracts.py.
"""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from lossbook.representation.contrastive import (
    augmentation_concentration,
    augmentation_distance,
    center_divergence,
    class_centers,
    cross_correlation_loss,
    fixed_reweighting_head,
    gaussian_information,
    gaussian_regression_error,
    kl_sufficiency_gap,
    layerwise_feature_weights,
    misaligned_share,
    nearest_center_error,
    nt_xent_loss,
    pretext_contrastive_loss,
)

close = torch.testing.assert_close
quick = settings(max_examples=25, deadline=None)
LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 2])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def unit(v: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def gap(u: list[float], v: list[float]) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


# --- Cross-correlation ----------------------------------------------------------------------------


def correlation(x: list[float], y: list[float]) -> float:
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    cross = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread_x = sum((a - mean_x) ** 2 for a in x)
    spread_y = sum((b - mean_y) ** 2 for b in y)
    return cross / math.sqrt(spread_x * spread_y)


@pytest.mark.parametrize("weight", [5e-3, 0.0, 2.0])
@pytest.mark.parametrize("shape", [(2, 1), (9, 4), (3, 6)])
def test_cross_correlation_equals_its_formula(weight: float, shape: tuple[int, int]) -> None:
    a, b = normal(*shape), normal(*shape)
    columns_a, columns_b = a.T.tolist(), b.T.tolist()
    expected = 0.0
    for (i, x), (j, y) in itertools.product(enumerate(columns_a), enumerate(columns_b)):
        c = correlation(x, y)
        expected += (1 - c) ** 2 if i == j else weight * c * c
    close(cross_correlation_loss(a, b, redundancy_weight=weight), double(expected))


@quick
@given(st.floats(1e-6, 1e6), st.floats(-100, 100), st.integers(0, 10**6))
def test_scale_and_offset_of_a_feature_change_nothing(size: float, shift: float, seed: int) -> None:
    torch.manual_seed(seed)
    a, b = normal(8, 3), normal(8, 3)
    scale, offset = double([size, 1.0, -1.0]), size * double([shift, 0.0, 0.0])
    expected = cross_correlation_loss(a, b * double([1.0, 1.0, -1.0]))
    close(cross_correlation_loss(a * scale.abs() + offset, b * scale), expected, rtol=1e-6, atol=0)


def test_cross_correlation_is_zero_for_whitened_features_only() -> None:
    q = torch.linalg.qr(normal(10, 4) - normal(10, 4).mean(0)).Q
    white = torch.linalg.qr(q - q.mean(0)).Q
    close(cross_correlation_loss(white, 7 * white), double(0.0))
    close(cross_correlation_loss(white, -white), double(16.0))  # 4 features, (1 + 1)^2 each
    twice = white[:, [0, 0]]
    close(cross_correlation_loss(twice, twice, redundancy_weight=0.5), double(1.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("constant", [0.0, 0.1, 300.0])
def test_a_constant_feature_counts_as_uncorrelated(dtype: torch.dtype, constant: float) -> None:
    a, b = normal(64, 3), normal(64, 3)
    a[:, 1] = constant
    leaf = a.to(dtype).requires_grad_()
    value = cross_correlation_loss(leaf, b.to(dtype))
    rest = [0, 2]
    others = cross_correlation_loss(a.to(dtype)[:, rest].double(), b.to(dtype)[:, rest].double())
    cross = [correlation(a[:, i].tolist(), b[:, 1].tolist()) for i in rest]
    expected = others + 1 + 5e-3 * sum(c * c for c in cross)
    close(value.double(), expected, rtol=3 * torch.finfo(dtype).eps + 1e-6, atol=0.02 * 5e-3)
    (slope,) = torch.autograd.grad(value, leaf)
    assert slope.isfinite().all() and slope.abs().max() < 100
    # Apart from the constant there is something to gain: the loss pulls the feature along.
    assert (slope[:, 1] * (b[:, 1] - b[:, 1].mean()).to(dtype)).sum() < 0


def test_collapse_is_finite_and_at_its_worst() -> None:
    x = torch.ones(5, 3, requires_grad=True)
    value = cross_correlation_loss(x, 2 * x)
    close(value, torch.tensor(3.0))
    assert (torch.autograd.grad(value, x)[0] == 0).all()


def test_tiny_and_huge_features_neither_under_nor_overflow() -> None:
    a, b = torch.randn(16, 3), torch.randn(16, 3)
    expected = cross_correlation_loss(a, b)
    for scale in (1e-30, 1e30):
        close(cross_correlation_loss(scale * a, scale * b), expected)


def test_cross_correlation_gradient_in_closed_form() -> None:
    """dL/da = (z^+ G' - projections on 1 and z) / (N s), with G = dL/dC."""
    a, b = normal(7, 3).requires_grad_(), normal(7, 3)
    (slope,) = torch.autograd.grad(cross_correlation_loss(a, b, redundancy_weight=0.3), a)
    n, s = 7, a.detach().std(0, correction=0)
    z = (a.detach() - a.detach().mean(0)) / s
    other = (b - b.mean(0)) / b.std(0, correction=0)
    c = z.T @ other / n
    pull = 2 * 0.3 * c
    pull.diagonal().copy_(2 * (c.diagonal() - 1))
    raw = other @ pull.T / n
    close(slope, (raw - raw.mean(0) - z * (raw * z).mean(0)) / s)


def test_a_single_row_is_refused() -> None:
    with pytest.raises(ValueError, match="number of anchors"):
        cross_correlation_loss(normal(1, 3), normal(1, 3))


# --- The pretext task -----------------------------------------------------------------------------


def test_pretext_loss_is_the_sum_of_its_parts() -> None:
    a, b, scores, target = normal(5, 3), normal(5, 3), normal(9, 4), torch.randint(0, 4, (9,))
    for weight, tau in ((0.3, 0.5), (2.0, 0.1), (0.0, 1.0)):
        value = pretext_contrastive_loss(
            a, b, scores, target, pretext_weight=weight, temperature=tau
        )
        expected = nt_xent_loss(a, b, temperature=tau) + weight * cross_entropy(scores, target)
        close(value, expected)
    with pytest.raises(ValueError, match="logits"):
        pretext_contrastive_loss(a, b, scores[0], target)
    with pytest.raises(TypeError, match="target"):
        pretext_contrastive_loss(a, b, scores, target.double())


# --- Alignment and centers ------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.9, 1.3, 2.0])
def test_misaligned_share_counts_the_worst_pair_of_views(epsilon: float) -> None:
    views = normal(4, 30, 3)
    worst = [
        max(
            gap(unit(views[a, i].tolist()), unit(views[b, i].tolist()))
            for a in range(4)
            for b in range(4)
        )
        for i in range(30)
    ]
    expected = sum(w > epsilon for w in worst) / 30
    assert float(misaligned_share(views, epsilon=epsilon)) == pytest.approx(expected)


def test_views_that_agree_in_direction_are_aligned() -> None:
    views = torch.stack([normal(5, 3)] * 2) * double([1.0, 4.0])[:, None, None]
    assert misaligned_share(views, epsilon=1e-6) == 0
    assert misaligned_share(views[:1].expand(2, 5, 3), epsilon=0.0) == 0  # beyond, not at


def reference_centers(x: Tensor) -> list[list[float]]:
    members: list[list[list[float]]] = [[], [], []]
    for v, k in zip(x.tolist(), LABELS.tolist(), strict=True):
        members[k].append(unit(v))
    return [[sum(c) / len(m) for c in zip(*m, strict=True)] for m in members]


def test_class_centers_and_what_is_made_of_them() -> None:
    x = normal(7, 3)
    mu = reference_centers(x)
    close(class_centers(x, LABELS, classes=3), double(mu))
    inner = [
        sum(a * b for a, b in zip(u, v, strict=True)) for u, v in itertools.combinations(mu, 2)
    ]
    close(center_divergence(x, LABELS, classes=3), double(max(inner)))
    nearest = [min(range(3), key=lambda k: gap(unit(v), mu[k])) for v in x.tolist()]
    wrong = sum(k != y for k, y in zip(nearest, LABELS.tolist(), strict=True)) / 7
    close(nearest_center_error(x, LABELS, double(mu)), double(wrong))
    close(nearest_center_error(9 * x, LABELS, double(mu)), double(wrong))
    assert class_centers(x.half(), LABELS, classes=3).dtype == torch.float16


def test_nearest_is_not_largest_inner_product() -> None:
    centers = double([[1.0, 0.0], [0.1, 0.1]])  # the second class is spread out: a short center
    u = double([[0.3, 1.0]])
    assert (u @ centers.T).argmax() == 0
    assert nearest_center_error(u, torch.tensor([1]), centers) == 0


@pytest.mark.parametrize("labels", [LABELS - 1, LABELS.clamp(max=1), LABELS + 1])
def test_labels_that_leave_a_class_out_are_refused(labels: Tensor) -> None:
    for function in (class_centers, center_divergence):
        with pytest.raises(ValueError, match="labels"):
            function(normal(7, 3), labels, classes=3)


def test_bad_labels_and_centers_are_refused() -> None:
    x, mu = normal(7, 3), normal(3, 3)
    with pytest.raises(TypeError, match="labels"):
        nearest_center_error(x, LABELS.double(), mu)
    with pytest.raises(ValueError, match="labels"):
        nearest_center_error(x, LABELS[:-1], mu)
    with pytest.raises(ValueError, match="labels"):
        nearest_center_error(x, LABELS, mu[:2])
    with pytest.raises(ValueError, match="centers"):
        nearest_center_error(x, LABELS, mu[:, :2])
    with pytest.raises(ValueError, match="classes"):
        center_divergence(x, LABELS.clamp(max=0), classes=1)
    with pytest.raises(TypeError, match="labels"):
        class_centers(x, LABELS.double(), classes=3)
    with pytest.raises(ValueError, match="epsilon"):
        misaligned_share(normal(2, 3, 4), epsilon=-1.0)


def test_few_misaligned_views_make_a_good_classifier() -> None:
    """The chapter's theorem: well-placed centers leave only what is misaligned or outside."""
    stream = torch.Generator().manual_seed(3)
    labels, held, wrong = torch.arange(3).repeat_interleave(40), 0, 0.0
    for _ in range(100):
        spread = 0.1 * torch.rand(1, generator=stream).item()
        noise = torch.randn(3, 120, 4, generator=stream).double()
        stray = torch.rand(120, generator=stream) < 0.02
        views = torch.eye(4).double()[labels] + torch.where(stray[:, None], 3, spread) * noise
        u = views / views.norm(dim=2, keepdim=True)
        apart = augmentation_distance(u)  # the encoder is the identity, so it does not stretch
        _, delta = augmentation_concentration(apart, labels, classes=3, sigma=0.95)
        epsilon, y, every = 0.15, labels.repeat(3), u.flatten(0, 1)
        share = misaligned_share(u, epsilon=epsilon)
        mu = class_centers(every, y, classes=3)
        d = 2 * epsilon + delta + 2 * (0.05 + 3 * share)
        room = mu.norm(dim=1).min() ** 2 - center_divergence(every, y, classes=3)
        if room > 2 * d**2:
            held += 1
            errors = [float(nearest_center_error(view, labels, mu)) for view in u]
            wrong = max([wrong, *errors])
            assert max(errors) <= 0.05 + share + 1e-9
    assert 10 < held < 100 and wrong > 0  # there was something to guarantee, and something to allow


# --- Concentration of the augmented data ------------------------------------------------------------


def test_augmentation_distance_is_the_least_over_views() -> None:
    views = normal(3, 6, 2, 2)
    expected = [
        [
            min(
                gap(a.flatten().tolist(), b.flatten().tolist())
                for a in views[:, i]
                for b in views[:, j]
            )
            for j in range(6)
        ]
        for i in range(6)
    ]
    close(augmentation_distance(views), double(expected))


def test_blocks_change_nothing() -> None:
    views = torch.randn(5, 330, 3)  # enough for several blocks
    d = augmentation_distance(views)
    close(
        d[200:260, 40], torch.cdist(views[:, 200:260], views[:, 40:41]).amin((0, 2)), atol=1, rtol=1
    )
    close(d, d.T)
    assert (d.diagonal() == 0).all()
    i, j = 17, 311
    close(d[i, j], torch.cdist(views[:, i].double(), views[:, j].double()).min().float())


def smallest_diameter(d: Tensor, size: int) -> float:
    """By trying all sets."""
    sets = itertools.combinations(range(len(d)), size)
    return min(float(d[list(s)][:, list(s)].max()) for s in sets)


@quick
@given(st.integers(1, 9), st.floats(0.05, 1.0), st.booleans(), st.integers(0, 10**6))
def test_concentration_is_between_its_bounds(n: int, sigma: float, metric: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x = normal(n, 2)
    d = (
        torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        if metric
        else normal(n, n).abs()
    )
    d = torch.minimum(d, d.T).fill_diagonal_(0)
    labels = torch.zeros(n, dtype=torch.int64)
    lower, upper = augmentation_concentration(d, labels, classes=1, sigma=sigma)
    size = math.ceil(sigma * n - 1e-9)
    exact = smallest_diameter(d, size)
    assert float(lower) <= exact + 1e-12 and exact <= float(upper) + 1e-12
    if size == n:
        assert float(lower) == float(upper) == exact


def test_concentration_finds_a_planted_main_part() -> None:
    x = torch.cat([0.1 * normal(18, 2), double([[50.0, 0.0], [0.0, -70.0]])])
    d = torch.cdist(x, x)
    labels = torch.zeros(20, dtype=torch.int64)
    lower, upper = augmentation_concentration(d, labels, classes=1, sigma=0.9)
    close(upper, d[:18, :18].max())
    assert lower > 0.3 * upper
    assert augmentation_concentration(d, labels, classes=1, sigma=0.95)[1] > 40


def test_the_upper_bound_is_mostly_the_answer() -> None:
    """More often than either of the two ways to a main part alone finds it."""
    labels, found = torch.zeros(9, dtype=torch.int64), 0
    for trial in range(200):
        x = normal(9, 2)
        d = torch.cdist(x, x) if trial % 2 else normal(9, 9).abs()
        d = torch.minimum(d, d.T).fill_diagonal_(0)
        _, upper = augmentation_concentration(d, labels, classes=1, sigma=6 / 9)
        found += float(upper) < smallest_diameter(d, 6) + 1e-9
    assert found > 155  # 142 and 139 by one way alone


def test_the_worst_class_decides() -> None:
    d = normal(10, 10).abs()
    d = (d + d.T).fill_diagonal_(0)
    labels = torch.tensor([0, 1] * 5)
    both = augmentation_concentration(d, labels, classes=2, sigma=0.7)  # 4 of 5: rounded up
    alone = [
        augmentation_concentration(
            d[labels == k][:, labels == k], labels[:5] * 0, classes=1, sigma=0.7
        )
        for k in range(2)
    ]
    close(both[0], torch.maximum(alone[0][0], alone[1][0]))
    close(both[1], torch.maximum(alone[0][1], alone[1][1]))
    assert float(both[1]) >= max(smallest_diameter(d[k::2, k::2], 4) for k in range(2))


def test_a_share_is_rounded_up_but_not_by_rounding_errors() -> None:
    d = 7 * (1 - torch.eye(100))
    d[:7, :7] = 1 - torch.eye(7)
    labels = torch.zeros(100, dtype=torch.int64)
    assert 0.07 * 100 > 7
    assert augmentation_concentration(d, labels, classes=1, sigma=0.07)[1] == 1
    assert augmentation_concentration(d, labels, classes=1, sigma=0.071)[1] == 7


def test_bad_distances_are_refused() -> None:
    d = torch.zeros(7, 7)
    with pytest.raises(ValueError, match="distances"):
        augmentation_concentration(d[:, :6], LABELS, classes=3)
    for sigma in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="sigma"):
            augmentation_concentration(d, LABELS, classes=3, sigma=sigma)
    with pytest.raises(ValueError, match="views"):
        augmentation_distance(torch.zeros(3, 4))
    with pytest.raises(TypeError, match="views"):
        augmentation_distance(torch.zeros(3, 4, 2, dtype=torch.int64))


# --- A linear-Gaussian world ------------------------------------------------------------------------


def world(x: int = 4, z: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances of a random Gaussian pair."""
    root = normal(x + z, x + z)
    joint = root @ root.T / (x + z) + 0.1 * torch.eye(x + z)
    return joint[:x, :x], joint[x:, x:], joint[:x, x:]


def determinant(m: list[list[float]]) -> float:
    if len(m) == 1:
        return m[0][0]
    return sum(
        (-1) ** j * m[0][j] * determinant([row[:j] + row[j + 1 :] for row in m[1:]])
        for j in range(len(m))
    )


def reference_information(x: Tensor, z: Tensor, cross: Tensor) -> float:
    """The entropies: half the log of det x det z / det joint, by Laplace's expansion."""
    joint = torch.cat([torch.cat([x, cross], 1), torch.cat([cross.T, z], 1)])
    dets = [determinant(m.tolist()) for m in (x, z, joint)]
    return 0.5 * math.log(dets[0] * dets[1] / dets[2])


def test_information_equals_the_entropies() -> None:
    x, z, cross = world()
    close(gaussian_information(x, z, cross), double(reference_information(x, z, cross)))
    w = normal(2, 4)
    expected = reference_information(w @ x @ w.T, z, w @ cross)
    close(gaussian_information(x, z, cross, encoder=w), double(expected))
    gap = reference_information(x, z, cross) - expected
    close(kl_sufficiency_gap(x, z, cross, w), double(gap))


def test_information_from_canonical_correlations() -> None:
    rho = double([0.9, 0.5, 0.0])
    a, b = normal(3, 3), normal(3, 3)
    value = gaussian_information(a @ a.T, b @ b.T, a @ rho.diag() @ b.T)
    close(value, -(1 - rho.square()).log().sum() / 2)
    assert gaussian_information(a @ a.T, b @ b.T, 0 * a) == pytest.approx(0, abs=1e-12)
    for root in (torch.eye(2), a):
        assert gaussian_information(*[root @ root.T] * 3) == math.inf


def test_information_does_not_depend_on_coordinates() -> None:
    x, z, cross = world()
    w, turn = normal(2, 4), normal(2, 2)
    close(
        gaussian_information(x, z, cross, encoder=turn @ w),
        gaussian_information(x, z, cross, encoder=w),
    )
    repeated = torch.cat([w, w[:1], 0 * w[:1]])  # no new feature: a singular covariance
    close(
        gaussian_information(x, z, cross, encoder=repeated),
        gaussian_information(x, z, cross, encoder=w),
    )
    close(kl_sufficiency_gap(x, z, cross, normal(4, 4)), double(0.0), atol=1e-9, rtol=0)


@quick
@given(st.integers(0, 10**6))
def test_gap_falls_with_every_feature_and_bounds_the_error(seed: int) -> None:
    """The error on any target of the other view grows at most by exp(2 gap)."""
    torch.manual_seed(seed)
    x, z, cross = world()
    w, v = normal(3, 4), normal(1, 3)
    gaps = [float(kl_sufficiency_gap(x, z, cross, w[:k])) for k in (1, 2, 3)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] >= -1e-12
    target, to_target = v @ z @ v.T, cross @ v.T
    best = gaussian_regression_error(x, target, to_target)
    for k, gap in enumerate(gaps, 1):
        error = gaussian_regression_error(x, target, to_target, encoder=w[:k])
        assert best - 1e-12 <= error <= best * math.exp(2 * gap) + 1e-9


def test_regression_error_is_that_of_least_squares() -> None:
    x, y = normal(400, 4), normal(400, 2)
    y = y + x @ normal(4, 2)
    x, y = x - x.mean(0), y - y.mean(0)
    w = normal(2, 4)
    for encoder, seen in ((None, x), (w, x @ w.T)):
        left = y - seen @ torch.linalg.lstsq(seen, y).solution
        value = gaussian_regression_error(
            x.T @ x / 400, y.T @ y / 400, x.T @ y / 400, encoder=encoder
        )
        close(value, left.square().sum() / 400)


def test_gaussian_quantities_have_gradients() -> None:
    x, z, cross = world()
    w = normal(2, 4).requires_grad_()
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda w: gaussian_information(x, z, cross, encoder=w),
        lambda w: kl_sufficiency_gap(x, z, cross, w),
        lambda w: gaussian_regression_error(x, z, cross, encoder=w),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, w)


def test_the_gap_is_the_excess_risk_with_many_negatives() -> None:
    """InfoNCE with the best critic of x against that with the best critic of its first entry."""
    rho, draws, negatives = double([0.8, 0.6]), 60, 400
    gaps = []
    for _ in range(draws):
        x = normal(negatives, 2)
        z = rho * x + (1 - rho.square()).sqrt() * normal(negatives, 2)
        density = -(z - rho * x[:, None]).square() / (2 * (1 - rho.square())) + z.square() / 2
        each = [
            cross_entropy(s, torch.arange(negatives)) for s in (density[..., 0], density.sum(2))
        ]
        gaps.append(float(each[0] - each[1]))
    eye = torch.eye(2, dtype=torch.float64)
    expected = kl_sufficiency_gap(eye, eye, rho.diag(), eye[:1])
    assert sum(gaps) / draws == pytest.approx(float(expected), abs=0.02)


def test_bad_covariances_are_refused() -> None:
    x, z, cross = world()
    with pytest.raises(ValueError, match="x_covariance"):
        gaussian_information(x[:, :3], z, cross)
    with pytest.raises(ValueError, match="cross_covariance"):
        gaussian_information(x, z, cross[:3])
    with pytest.raises(ValueError, match="z_covariance"):
        kl_sufficiency_gap(x, z[:, :2], cross, normal(2, 4))
    with pytest.raises(ValueError, match="encoder"):
        kl_sufficiency_gap(x, z, cross, normal(2, 3))
    with pytest.raises(ValueError, match="target_covariance"):
        gaussian_regression_error(x, z[:, :2], cross)
    with pytest.raises(TypeError, match="z_covariance"):
        gaussian_information(x, z.long(), cross)


# --- The projection head ------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [1.0, 1.05, 3.0])
def test_fixed_reweighting_head(kappa: float) -> None:
    h = normal(2, 5, 7).requires_grad_()
    expected = [[[x / kappa**i for i, x in enumerate(row)] for row in part] for part in h.tolist()]
    close(fixed_reweighting_head(h, kappa=kappa).detach(), double(expected))
    assert torch.autograd.gradcheck(lambda h: fixed_reweighting_head(h, kappa=kappa), h)


def test_a_head_that_weighs_up_is_refused() -> None:
    for kappa in (0.9, math.nan):
        with pytest.raises(ValueError, match="kappa"):
            fixed_reweighting_head(normal(3), kappa=kappa)


def test_layerwise_feature_weights_are_singular_values_of_products() -> None:
    first, second = normal(5, 6), normal(3, 5)
    values = layerwise_feature_weights(first, second)
    assert values.shape == (2, 3)
    for row, product in zip(values, (first, second @ first), strict=True):
        squares = torch.linalg.eigvalsh(product @ product.T).flip(0)
        close(row, (squares / squares[0])[:3].sqrt())
    many = layerwise_feature_weights(torch.stack([first, 9 * first]), torch.stack([second] * 2))
    close(many, torch.stack([values, values]))


def test_balanced_layers_share_the_inequality() -> None:
    """Equal layers: after l of them the weights are the l-th power of those of one."""
    w = double([[2.0, 0.0], [0.0, 0.5]])
    close(layerwise_feature_weights(w, w, w)[:, 1], double([0.25, 0.25**2, 0.25**3]))


def test_weights_that_vanish_or_do_not_fit() -> None:
    assert (layerwise_feature_weights(normal(2, 3), torch.zeros(2, 2).double())[1] == 0).all()
    with pytest.raises(ValueError, match="number of weights"):
        layerwise_feature_weights()
    with pytest.raises(ValueError, match=r"weights\[1\]"):
        layerwise_feature_weights(normal(2, 3), normal(2, 3))
    with pytest.raises(TypeError, match=r"weights\[0\]"):
        layerwise_feature_weights(torch.ones(2, 2, dtype=torch.int64))
