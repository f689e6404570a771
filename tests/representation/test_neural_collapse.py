"""Neural collapse: metrics against loops, closed forms against training and brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lossbook import representation as nc

F64 = torch.float64


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=stream(seed), dtype=F64)


def cloud(counts: list[int], dimension: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features around random class means, and their labels, in mixed order."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=stream(seed + 7))]
    means = 3 * normal(len(counts), dimension, seed=seed + 1)
    return means[labels] + normal(len(labels), dimension, seed=seed), labels


# --- Frames -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize(("classes", "dimension"), [(2, 1), (4, 3), (4, 9), (10, 64)])
def test_simplex_is_a_simplex(classes: int, dimension: int, seed: int | None) -> None:
    generator = None if seed is None else stream(seed)
    vectors = nc.simplex_etf(classes, dimension, generator=generator, dtype=F64)
    assert vectors.shape == (classes, dimension)
    for k, j in itertools.product(range(classes), repeat=2):
        inner = sum(a * b for a, b in zip(vectors[k].tolist(), vectors[j].tolist(), strict=True))
        assert inner == pytest.approx(1 if k == j else -1 / (classes - 1), abs=1e-12)
    torch.testing.assert_close(vectors.sum(0), torch.zeros(dimension, dtype=F64))
    torch.testing.assert_close(nc.frame_gram(classes, dtype=F64), vectors @ vectors.T)
    assert nc.frame_distance(vectors) < 1e-12


@pytest.mark.parametrize("seed", [None, 0])
def test_orthogonal_frame_is_orthogonal(seed: int | None) -> None:
    generator = None if seed is None else stream(seed)
    vectors = nc.orthogonal_frame(4, 6, generator=generator, dtype=F64)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(4, dtype=F64))
    assert nc.frame_distance(5 * vectors, "orthogonal") < 1e-12
    # Its centered form is a simplex; by itself it is far from one.
    assert nc.frame_distance(vectors - vectors.mean(0)) < 1e-12 < 0.1 < nc.frame_distance(vectors)


def test_random_frames_differ_and_repeat() -> None:
    one, again, other = (nc.simplex_etf(3, 5, generator=stream(s)) for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.allclose(one, other)
    assert one.dtype == torch.float32
    assert nc.simplex_etf(3, 5, device="meta", dtype=torch.float16).is_meta


def test_frame_distance_by_loops() -> None:
    vectors = normal(4, 3)
    for frame in ("simplex", "orthogonal"):
        gram = [[float(vectors[k] @ vectors[j]) for j in range(4)] for k in range(4)]
        off = -1 / 3 if frame == "simplex" else 0.0
        target = [[1.0 if k == j else off for j in range(4)] for k in range(4)]
        size = [math.sqrt(sum(x * x for row in m for x in row)) for m in (gram, target)]
        total = sum(
            (gram[k][j] / size[0] - target[k][j] / size[1]) ** 2
            for k, j in itertools.product(range(4), repeat=2)
        )
        assert nc.frame_distance(vectors, frame).item() == pytest.approx(math.sqrt(total))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_frame_distance_knows_neither_scale_nor_rotation(
    classes: int, seed: int, scale: float
) -> None:
    vectors = normal(classes, 4, seed=seed)
    turn, _ = torch.linalg.qr(normal(4, 4, seed=seed + 1))
    for frame in ("simplex", "orthogonal"):
        one = nc.frame_distance(vectors, frame)
        assert 0 <= one <= 2
        torch.testing.assert_close(nc.frame_distance(scale * vectors @ turn, frame), one)


def test_frames_reject_bad_input() -> None:
    for classes in (1, 0):
        with pytest.raises(ValueError, match="classes"):
            nc.simplex_etf(classes, 3)
        with pytest.raises(ValueError, match="classes"):
            nc.frame_gram(classes)
    with pytest.raises(ValueError, match="dimension must be at least 3"):
        nc.simplex_etf(4, 2)
    with pytest.raises(ValueError, match="dimension must be at least 4"):
        nc.orthogonal_frame(4, 3)
    with pytest.raises(ValueError, match="frame"):
        nc.frame_gram(3, "hexagon")
    with pytest.raises(ValueError, match="zero"):
        nc.frame_distance(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="classes"):  # one class has no angles
        nc.frame_distance(torch.ones(1, 2))
    with pytest.raises(TypeError, match="vectors"):
        nc.frame_distance(torch.ones(3, 2).long())


# --- Metrics ----------------------------------------------------------------------------------

COUNTS = [7, 4, 2]


def scatter_by_loops(
    h: Tensor, y: Tensor, weighting: str
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    classes = int(y.max()) + 1
    members = [[h[i] for i in range(len(h)) if y[i] == k] for k in range(classes)]
    means = [sum(rows) / len(rows) for rows in members]
    share = [len(r) / len(h) if weighting == "example" else 1 / classes for r in members]
    center = sum(s * m for s, m in zip(share, means, strict=True))
    within = sum(
        s / len(rows) * torch.outer(x - m, x - m)
        for s, rows, m in zip(share, members, means, strict=True)
        for x in rows
    )
    between = sum(
        s * torch.outer(m - center, m - center) for s, m in zip(share, means, strict=True)
    )
    return within, between, means, center


@pytest.mark.parametrize("weighting", ["class", "example"])
@pytest.mark.parametrize("counts", [COUNTS, [4, 4, 4]])
def test_metrics_are_those_of_the_formulas(counts: list[int], weighting: str) -> None:
    h, y = cloud(counts, 5)
    within, between, means, center = scatter_by_loops(h, y, weighting)
    torch.testing.assert_close(nc.class_means(h, y, 3), torch.stack(means))
    ours = nc.class_scatter(h, y, 3, weighting=weighting)
    torch.testing.assert_close(ours[0], within)
    torch.testing.assert_close(ours[1], between)
    # The scatter between three means has rank two; a careful pseudo-inverse keeps it so.
    values, vectors = torch.linalg.eigh(between)
    inverse = sum(torch.outer(v, v) / s for s, v in zip(values[-2:], vectors.T[-2:], strict=True))
    expected = (within @ inverse).trace() / 3
    variability = nc.within_class_variability(h, y, 3, weighting=weighting)
    torch.testing.assert_close(variability, expected)
    if len(set(counts)) == 1:
        other = nc.within_class_variability(h, y, 3, weighting="example")
        torch.testing.assert_close(other, variability)

    w, b, centered = normal(3, 5, seed=3), normal(3, seed=4), torch.stack(means) - center
    metrics = nc.collapse_metrics(h, y, 3, weight=w, bias=b, weighting=weighting)
    torch.testing.assert_close(metrics["variability"], variability)
    torch.testing.assert_close(metrics["means"], nc.frame_distance(centered))
    torch.testing.assert_close(metrics["weights"], nc.frame_distance(w))
    duality = (w / w.norm() - centered / centered.norm()).norm()
    torch.testing.assert_close(metrics["duality"], duality)
    differ = 0
    for x in h:
        answer = max(range(3), key=lambda k: float(w[k] @ x + b[k]))
        nearest = min(range(3), key=lambda k: float((x - means[k]).norm()))
        differ += answer != nearest
    assert 0 < differ < len(h)
    assert metrics["disagreement"].item() == pytest.approx(differ / len(h))

    orthogonal = nc.collapse_metrics(h, y, 3, weight=w, frame="orthogonal", weighting=weighting)
    raw = torch.stack(means)
    torch.testing.assert_close(orthogonal["means"], nc.frame_distance(raw, "orthogonal"))
    torch.testing.assert_close(orthogonal["duality"], nc.self_duality(w, raw))


@pytest.mark.parametrize("frame", ["simplex", "orthogonal"])
@pytest.mark.parametrize("counts", [[3, 3, 3], [9, 2, 1]])
def test_full_collapse_is_zero(counts: list[int], frame: str) -> None:
    make = nc.simplex_etf if frame == "simplex" else nc.orthogonal_frame
    vectors = make(3, 4, generator=stream(), dtype=F64)
    y = torch.arange(3).repeat_interleave(torch.tensor(counts))
    offset = 10.0 if frame == "simplex" else 0.0  # centering takes a common offset away
    metrics = nc.collapse_metrics(vectors[y] + offset, y, 3, weight=2 * vectors, frame=frame)
    assert all(value < 1e-6 for name, value in metrics.items() if name != "disagreement")
    if frame == "orthogonal":
        assert metrics["disagreement"] == 0
    assert nc.fisher_ratio(vectors[y], y, 3) == math.inf


def test_variability_at_the_limits() -> None:
    h = torch.tensor([[0.0], [2.0], [0.0], [2.0]])
    assert nc.within_class_variability(h, torch.tensor([0, 0, 1, 1]), 2) == math.inf
    y = torch.tensor([0, 0, 1, 1])
    spread = torch.tensor([[1.0, 5.0], [1.0, -5.0], [-1.0, 3.0], [-1.0, -3.0]])
    assert nc.within_class_variability(spread, y, 2) == 0  # orthogonal to the means
    assert nc.fisher_ratio(spread, y, 2) == math.inf
    assert nc.fisher_ratio(h, y, 2) == 0


@pytest.mark.parametrize("counts", [[7, 6, 9], [20, 4, 2]])
def test_fisher_ratio_by_loops(counts: list[int]) -> None:
    h, y = cloud(counts, 3)
    mean = h.mean(0)
    within = sum(
        torch.outer(x - m, x - m) for x, m in zip(h, nc.class_means(h, y, 3)[y], strict=True)
    )
    between = sum(torch.outer(m - mean, m - mean) for m in nc.class_means(h, y, 3)[y])
    expected = torch.linalg.solve(within, between).trace()
    torch.testing.assert_close(nc.fisher_ratio(h, y, 3), expected)
    # Dimensions in which nothing varies do not count, invertible maps change nothing.
    padded = torch.cat([h, torch.full((len(h), 2), 4.0, dtype=F64)], 1)
    torch.testing.assert_close(nc.fisher_ratio(padded, y, 3), expected)
    torch.testing.assert_close(nc.fisher_ratio(h @ normal(3, 3) + 2, y, 3), expected)


def test_cosines_by_loops() -> None:
    h, y = cloud(COUNTS, 4)
    h[0] = 0
    same, different = [], []
    for i, j in itertools.combinations(range(len(h)), 2):
        size = float(h[i].norm() * h[j].norm())
        (same if y[i] == y[j] else different).append(float(h[i] @ h[j]) / size if size else 0.0)
    within, between = nc.feature_cosines(h, y, 3)
    assert within.item() == pytest.approx(sum(same) / len(same))
    assert between.item() == pytest.approx(sum(different) / len(different))
    etf = nc.simplex_etf(3, 4, dtype=F64)
    assert nc.feature_cosines(etf[y], y, 3)[1].item() == pytest.approx(-0.5)
    assert nc.feature_cosines(etf, torch.arange(3), 3)[0].isnan()  # no pair within a class


def test_metrics_keep_the_dtype_and_the_inputs() -> None:
    h, y = cloud(COUNTS, 5)
    weight = normal(3, 5)
    exact = nc.collapse_metrics(h, y, 3, weight=weight)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low, w = h.to(dtype), weight.to(dtype)
        before = low.clone()
        for name, value in nc.collapse_metrics(low, y, 3, weight=w).items():
            assert value.dtype == dtype
            size = 30 * torch.finfo(dtype).eps * max(1, exact[name].item())
            assert abs(value.item() - exact[name].item()) <= size
        assert nc.fisher_ratio(low, y, 3).dtype == nc.feature_cosines(low, y, 3)[1].dtype == dtype
        assert torch.equal(low, before)


def test_metrics_work_for_many_seeds_at_once() -> None:
    clouds = [cloud(COUNTS, 5, seed=s) for s in range(3)]
    h, y = (torch.stack(part) for part in zip(*clouds, strict=True))
    many = torch.func.vmap(lambda h, y: nc.collapse_metrics(h, y, 3, weight=h[:3]))(h, y)
    for s in range(3):
        for name, value in nc.collapse_metrics(h[s], y[s], 3, weight=h[s, :3]).items():
            torch.testing.assert_close(many[name][s], value)


def test_variability_and_distance_differentiate() -> None:
    h, y = cloud(COUNTS, 4)
    leaf = h.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nc.frame_distance(nc.class_means(x, y, 3)), leaf)
    assert torch.autograd.gradcheck(
        lambda x: nc.collapse_metrics(x, y, 3, frame="orthogonal")["means"], leaf
    )


@pytest.mark.parametrize(
    "metric",
    [
        nc.class_means,
        nc.class_scatter,
        nc.within_class_variability,
        nc.fisher_ratio,
        nc.feature_cosines,
        nc.collapse_metrics,
    ],
)
def test_metrics_reject_bad_input(metric) -> None:
    h, y = cloud(COUNTS, 4)
    with pytest.raises(ValueError, match=r"none of class \[3\]"):
        metric(h, y, 4)
    with pytest.raises(ValueError, match="from 0 to 2"):
        metric(h, y, 2)
    with pytest.raises(ValueError, match="labels"):
        metric(h, y[:-1], 3)
    with pytest.raises(TypeError, match="labels"):
        metric(h, y.double(), 3)
    with pytest.raises(TypeError, match="features"):
        metric(h.long(), y, 3)
    for bad in (h[:0], h[:, :0], h[0]):
        with pytest.raises(ValueError, match="features"):
            metric(bad, y[: len(bad)], 3)
    if metric is not nc.class_means:
        with pytest.raises(ValueError, match="classes"):
            metric(h, torch.zeros_like(y), 1)


def test_further_bad_input_of_the_metrics() -> None:
    h, y = cloud(COUNTS, 4)
    with pytest.raises(ValueError, match="weighting"):
        nc.class_scatter(h, y, 3, weighting="none")
    with pytest.raises(ValueError, match="weight"):
        nc.collapse_metrics(h, y, 3, weight=normal(3, 5))
    with pytest.raises(ValueError, match="zero"):
        nc.collapse_metrics(0 * h, y, 3)
    with pytest.raises(ValueError, match="weight"):
        nc.self_duality(torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match="outputs"):
        nc.nearest_center_agreement(h, normal(3, 4), normal(2, 3))
    with pytest.raises(ValueError, match="means"):
        nc.nearest_center_agreement(h, normal(3, 5), normal(len(h), 3))


# --- The unconstrained features model ---------------------------------------------------------


def objective_by_loops(
    h: Tensor, layers: list[Tensor], y: Tensor, decays: list[float], feature_decay: float,
    loss: str, bias: Tensor | None,
) -> float:  # fmt: skip
    total = 0.0
    for x, label in zip(h, y.tolist(), strict=True):
        z = x
        for w in layers:
            z = torch.stack([row @ z for row in w])
        z = (z if bias is None else z + bias).tolist()
        if loss == "square":
            total += sum((v - (k == label)) ** 2 for k, v in enumerate(z)) / 2
        else:
            total += math.log(sum(math.exp(v) for v in z)) - z[label]
    total /= len(h)
    for decay, w in zip([*decays, feature_decay], [*layers, h], strict=True):
        total += decay / 2 * sum(v * v for v in w.flatten().tolist())
    return total


@pytest.mark.parametrize("loss", ["square", "cross_entropy"])
@pytest.mark.parametrize("bias", [None, normal(3, seed=9)])
@pytest.mark.parametrize("layers", [1, 2])
def test_objective_is_that_of_the_formula(layers: int, bias: Tensor | None, loss: str) -> None:
    h, y = cloud(COUNTS, 4)
    weights = [normal(3, 4, seed=1)] if layers == 1 else [normal(6, 4, seed=1), normal(3, 6)]
    decays = [0.3, 0.2][:layers]
    expected = objective_by_loops(h, weights, y, decays, 0.1, loss, bias)
    ours = nc.unconstrained_objective(
        h, weights, y, weight_decay=decays, feature_decay=0.1, loss=loss, bias=bias
    )
    assert ours.item() == pytest.approx(expected)
    if layers == 1:
        same = nc.unconstrained_objective(
            h, weights[0], y, weight_decay=0.3, feature_decay=0.1, loss=loss, bias=bias
        )
        assert same == ours


def spread(best: nc.Optimum, counts: list[int]) -> tuple[Tensor, Tensor]:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return best.features[labels], labels


def descend(
    counts: list[int], decays: list[float], feature_decay: float, loss: str, bias: bool, seed: int,
    width: int = 5, scale: float = 0.7,
) -> tuple[float, Tensor, Tensor]:  # fmt: skip
    """Trains free features and weights; the objective, class means and last weights it ends in."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    generator = stream(seed)
    shapes = [(len(labels), width), *[(width, width)] * (len(decays) - 1), (len(counts), width)]
    parts = [
        (scale * torch.randn(shape, generator=generator, dtype=F64)).requires_grad_()
        for shape in shapes
    ]
    offset = torch.zeros(len(counts), dtype=F64, requires_grad=bias)
    optimizer = torch.optim.LBFGS(
        [*parts, offset] if bias else parts, max_iter=600, tolerance_grad=1e-9,
        tolerance_change=0, history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = nc.unconstrained_objective(
            parts[0], parts[1:], labels, weight_decay=decays, feature_decay=feature_decay,
            loss=loss, bias=offset if bias else None,
        )  # fmt: skip
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        means = nc.class_means(parts[0], labels, len(counts))
        return float(closure_value(closure)), means, parts[-1].detach()


def closure_value(closure) -> Tensor:
    with torch.enable_grad():
        return closure().detach()


SETTINGS = [
    ([12, 6, 3, 2], [0.02], 0.01, False),
    ([12, 6, 3, 1], [0.05], 0.05, False),  # the last class vanishes: 1 <= 22^2 / 400
    ([5, 5, 5, 5], [0.02], 0.01, False),
    ([12, 6, 3, 2], [0.02], 0.01, True),
    ([5, 5, 5, 5], [0.02], 0.01, True),
    ([12, 6, 3, 2], [0.01, 0.02], 0.01, False),
    ([12, 6, 3, 2], [0.006, 0.004, 0.01], 0.005, False),
    ([6, 6, 6], [0.01, 0.02], 0.01, True),
]


@pytest.mark.parametrize(("counts", "decays", "feature_decay", "bias"), SETTINGS)
def test_square_loss_optimum_is_the_end_of_training(
    counts: list[int], decays: list[float], feature_decay: float, bias: bool
) -> None:
    best = nc.square_loss_optimum(
        torch.tensor(counts), weight_decay=decays, feature_decay=feature_decay, bias=bias
    )
    h, labels = spread(best, counts)
    options = {"weight_decay": decays, "feature_decay": feature_decay}
    # The closed form is where it says, as low as it says, and there is no slope.
    leaves = [x.clone().requires_grad_() for x in (h, *best.weights, best.bias)]
    value = nc.unconstrained_objective(
        leaves[0], leaves[1:-1], labels, bias=leaves[-1] if bias else None, **options
    )
    torch.testing.assert_close(value.detach(), best.objective, rtol=1e-12, atol=0)
    slopes = torch.autograd.grad(value, leaves, allow_unused=True)
    assert all(g.abs().max() < 1e-10 for g in slopes if g is not None)
    # Training from random starts never gets below it, and gets there.
    ends = [descend(counts, decays, feature_decay, "square", bias, seed) for seed in range(3)]
    lowest = min(ends, key=lambda end: end[0])
    assert lowest[0] == pytest.approx(best.objective.item(), rel=1e-7)
    assert all(end[0] >= best.objective.item() * (1 - 1e-9) for end in ends)
    _, means, weight = lowest
    torch.testing.assert_close(means.norm(dim=1), best.feature_norms, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(weight.norm(dim=1), best.weight_norms, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        weight @ weight.T, best.weights[-1] @ best.weights[-1].T, rtol=1e-3, atol=1e-3
    )


def test_square_loss_optimum_by_the_catalogue() -> None:
    """One layer, no bias: the formulas for each class, one by one."""
    counts, decay, feature_decay = [100, 30, 10, 3], 0.004, 0.006
    total = sum(counts)
    best = nc.square_loss_optimum(
        torch.tensor(counts), weight_decay=decay, feature_decay=feature_decay
    )
    for k, n in enumerate(counts):
        logit = max(0.0, 1 - total * math.sqrt(decay * feature_decay / n))
        weight = max(0.0, math.sqrt(n * feature_decay / decay) - total * feature_decay)
        assert best.logits[k, k].item() == pytest.approx(logit, abs=1e-12)
        assert best.weight_norms[k].item() ** 2 == pytest.approx(weight, abs=1e-12)
        feature = weight * decay / (feature_decay * n)
        assert best.feature_norms[k].item() ** 2 == pytest.approx(feature, abs=1e-12)
    off = best.logits - best.logits.diagonal().diag()
    assert off.abs().max() == 0


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_shrinkage_by_brute_force(layers: int) -> None:
    """Each singular value is the global minimum of its scalar problem, found on a fine grid."""
    p = 2 / (layers + 1)
    counts = torch.tensor([400, 100, 60, 30, 8, 2])
    # So strong that 20 examples are just too few.
    strength = math.sqrt(20) * max(layers - 1, 1) / (layers if layers > 1 else 1)
    decay = strength ** (2 * layers / (layers + 1)) / max(layers - 1, 1) / 600
    best = nc.square_loss_optimum(counts, weight_decay=[decay] * layers, feature_decay=decay)
    rate, total = decay, float(counts.sum())
    sigma = (best.logits.diagonal() * counts.sqrt()).tolist()
    for value, n in zip(sigma, counts.tolist(), strict=True):
        grid = torch.linspace(0, n**0.5, 400_001, dtype=F64)
        cost = (grid - n**0.5) ** 2 / (2 * total) + rate / p * grid**p
        assert value == pytest.approx(grid[cost.argmin()].item(), abs=2 * n**0.5 / 400_000)
    alive = counts > nc.minority_threshold(
        total, weight_decay=[decay] * layers, feature_decay=decay
    )
    assert torch.equal(best.weight_norms > 0, alive) and 0 < alive.sum() < len(counts)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.integers(2, 30))
def test_threshold_is_where_a_class_vanishes(
    layers: int, weight_decay: float, feature_decay: float, others: int
) -> None:
    decays = [weight_decay] * layers
    for factor in (1 - 1e-6, 1 + 1e-6):
        # Find the total for which the threshold is just above or below the smaller class.
        n, low, high = 5.0, 1e-9, 1e9
        for _ in range(200):
            middle = math.sqrt(low * high)
            threshold = nc.minority_threshold(
                middle, weight_decay=decays, feature_decay=feature_decay
            )
            low, high = (middle, high) if threshold < n * factor else (low, middle)
        if low <= n + 1e-3:
            return
        counts = torch.tensor([n, low - n], dtype=F64)
        best = nc.square_loss_optimum(counts, weight_decay=decays, feature_decay=feature_decay)
        assert bool(best.weight_norms[0] > 0) == (factor < 1)


def test_balanced_square_loss_with_a_bias_is_a_simplex() -> None:
    best = nc.square_loss_optimum(
        torch.tensor([8, 8, 8, 8]), weight_decay=0.01, feature_decay=0.01, bias=True
    )
    assert nc.frame_distance(best.features) < 1e-9 > nc.frame_distance(best.weights[-1])
    assert nc.self_duality(best.weights[-1], best.features) < 1e-9
    torch.testing.assert_close(best.bias, torch.full((4,), 0.25, dtype=F64))
    plain = nc.square_loss_optimum(
        torch.tensor([8, 8, 8, 8]), weight_decay=0.01, feature_decay=0.01
    )
    assert nc.frame_distance(plain.features, "orthogonal") < 1e-9


CROSS_ENTROPY = [
    ([5, 5, 5, 5], [0.02], 0.01),
    ([6, 6, 6], [0.01, 0.01], 0.01),
    ([4, 4, 4], [0.004, 0.003, 0.005], 0.004),
    ([12, 6, 3, 2], [0.02], 0.01),
    ([16, 16, 1, 1], [0.03], 0.02),  # the rare classes merge
]


@pytest.mark.parametrize(("counts", "decays", "feature_decay"), CROSS_ENTROPY)
def test_cross_entropy_optimum_is_the_end_of_training(
    counts: list[int], decays: list[float], feature_decay: float
) -> None:
    best = nc.cross_entropy_optimum(
        torch.tensor(counts), weight_decay=decays, feature_decay=feature_decay
    )
    h, labels = spread(best, counts)
    leaves = [x.clone().requires_grad_() for x in (h, *best.weights)]
    options = {"weight_decay": decays, "feature_decay": feature_decay, "loss": "cross_entropy"}
    value = nc.unconstrained_objective(leaves[0], leaves[1:], labels, **options)
    torch.testing.assert_close(value.detach(), best.objective, rtol=1e-9, atol=0)
    slopes = torch.autograd.grad(value, leaves)
    assert all(g.abs().max() < 1e-7 for g in slopes)
    ends = [descend(counts, decays, feature_decay, "cross_entropy", False, s) for s in range(3)]
    lowest = min(ends, key=lambda end: end[0])
    assert lowest[0] == pytest.approx(best.objective.item(), rel=1e-7)
    assert all(end[0] >= best.objective.item() * (1 - 1e-8) for end in ends)
    if len(set(counts)) == 1:
        assert nc.frame_distance(best.features) < 1e-9
        assert nc.frame_distance(lowest[1]) < 1e-3 > nc.frame_distance(lowest[2])
    torch.testing.assert_close(lowest[2].norm(dim=1), best.weight_norms, rtol=1e-2, atol=1e-2)


def test_balanced_margin_is_that_of_the_formula() -> None:
    for classes, number, decay in ((3, 10, 0.01), (10, 50, 0.001), (2, 1, 0.2), (4, 4, 0.2)):
        rate = decay * math.sqrt(number)
        inside = 1 / rate - (classes - 1)
        margin = max(0.0, math.log(inside)) if inside > 0 else 0.0
        best = nc.cross_entropy_optimum(
            torch.full((classes,), number), weight_decay=decay, feature_decay=decay
        )
        found = (best.logits[0, 0] - best.logits[0, 1]).item()
        assert found == pytest.approx(margin, abs=1e-9)
    assert margin == 0  # the last setting has collapsed altogether


@pytest.mark.parametrize("layers", [2, 3])
def test_deep_margin_by_brute_force(layers: int) -> None:
    classes, number, p = 4, 9, 2 / (layers + 1)
    for decay in (0.002, 0.02, 0.06, 0.076, 0.2):
        best = nc.cross_entropy_optimum(
            torch.full((classes,), number), weight_decay=[decay] * layers, feature_decay=decay
        )
        grid = torch.linspace(0, 30, 3_000_001, dtype=F64)
        cost = (3 * (-grid).exp()).log1p() + 3 * decay / p * (3 * grid) ** p
        found = (best.logits[0, 0] - best.logits[0, 1]).item()
        assert found == pytest.approx(grid[cost.argmin()].item(), abs=2e-5)
        assert best.objective.item() == pytest.approx(cost.min().item(), abs=1e-9)
    assert found == 0


def test_peeled_solution_agrees_with_the_balanced_formula() -> None:
    """The solver for unequal counts, on counts that are nearly equal."""
    options = {"weight_decay": 0.01, "feature_decay": 0.02}
    equal = nc.cross_entropy_optimum(torch.tensor([7.0, 7.0, 7.0]), **options)
    nearly = nc.cross_entropy_optimum(torch.tensor([7.0, 7.0, 7.0 + 1e-7]), **options)
    torch.testing.assert_close(nearly.logits, equal.logits, rtol=1e-6, atol=1e-6)


def test_minority_collapse_of_cross_entropy() -> None:
    """The rarer two classes, the smaller the angle between them, down to zero."""
    cosines = []
    for rare in (20, 8, 4, 2):
        best = nc.cross_entropy_optimum(
            torch.tensor([40, 40, rare, rare]), weight_decay=0.02, feature_decay=0.02
        )
        w = torch.nn.functional.normalize(best.weights[-1])
        cosines.append(float(w[2] @ w[3]))
    assert cosines == sorted(cosines) and cosines[0] < 0 and cosines[-1] > 1 - 1e-6


@pytest.mark.parametrize(("decay", "feature_decay"), [(0.02, 0.02), (0.05, 0.01)])
def test_rare_classes_merge_at_the_threshold_of_the_square_loss(
    decay: float, feature_decay: float
) -> None:
    for rare in (1.0, 2.0, 2.6, 3.4, 4.0, 8.0):
        counts = torch.tensor([40.0, 40.0, rare, rare])
        options = {"weight_decay": decay, "feature_decay": feature_decay}
        w = nc.cross_entropy_optimum(counts, **options).weights[-1]
        merged = bool((w[2] - w[3]).norm() < 1e-5 * w[2].norm())
        assert merged == (rare <= nc.minority_threshold(float(counts.sum()), **options))


def test_optima_reject_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.tensor([3, 2])
    options = {"weight_decay": 0.1, "feature_decay": 0.1}
    for solve in (nc.square_loss_optimum, nc.cross_entropy_optimum):
        for bad in ([3], [3, 0], [[3, 2]], [3.0, math.nan]):
            with pytest.raises(ValueError, match="class_counts"):
                solve(torch.tensor(bad), **options)
        with pytest.raises(TypeError, match="class_counts"):
            solve([3, 2], **options)
        for bad in (0.0, -1.0, math.nan, []):
            with pytest.raises(ValueError, match="weight_decay"):
                solve(counts, **(options | {"weight_decay": bad}))
        with pytest.raises(ValueError, match="feature_decay"):
            solve(counts, **(options | {"feature_decay": 0.0}))
    with pytest.raises(ValueError, match="one number for unequal counts"):
        nc.cross_entropy_optimum(counts, weight_decay=[0.1, 0.1], feature_decay=0.1)
    monkeypatch.setitem(nc.cross_entropy_optimum.__globals__, "_STEPS", 3)
    with pytest.raises(RuntimeError, match="tolerance"):
        nc.cross_entropy_optimum(torch.tensor([30, 2]), weight_decay=0.01, feature_decay=0.01)
    with pytest.raises(ValueError, match="examples"):
        nc.minority_threshold(0, **options)


def test_objective_rejects_bad_input() -> None:
    h, y = cloud(COUNTS, 4)
    w, options = normal(3, 4), {"weight_decay": 0.1, "feature_decay": 0.1}
    with pytest.raises(ValueError, match="loss"):
        nc.unconstrained_objective(h, w, y, loss="hinge", **options)
    with pytest.raises(ValueError, match=r"weights\[1\]"):
        nc.unconstrained_objective(h, [w, w], y, **options)
    with pytest.raises(ValueError, match="weights"):
        nc.unconstrained_objective(h, [], y, **options)
    with pytest.raises(ValueError, match="labels"):
        nc.unconstrained_objective(h, w, y + 1, **options)
    with pytest.raises(ValueError, match="weight_decay"):
        nc.unconstrained_objective(h, w, y, weight_decay=[0.1, 0.1], feature_decay=0.1)
    with pytest.raises(ValueError, match="features"):
        nc.unconstrained_objective(h[:0], w, y[:0], **options)


# --- Supervised contrast ----------------------------------------------------------------------


def contrast(
    counts: list[int], nonnegative: bool, batches: list[Tensor] | None = None, steps: int = 400,
    seed: int = 0, temperature: float = 0.5,
) -> tuple[float, Tensor, Tensor]:  # fmt: skip
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    h = normal(len(labels), 8, seed=seed)
    h = (h.abs() if nonnegative else h).requires_grad_()
    optimizer = torch.optim.Adam([h], lr=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        optimizer.zero_grad()
        value = nc.contrastive_objective(
            h, labels, temperature=temperature, nonnegative=nonnegative, batches=batches
        )
        value.backward()
        optimizer.step()
    u = torch.nn.functional.normalize(h.detach().relu() if nonnegative else h.detach())
    return float(value.detach()), u, labels


def test_contrastive_bound_is_the_value_of_the_frame() -> None:
    for counts, frame in (([6, 3, 2], "orthogonal"), ([4, 4, 4], "simplex")):
        make = nc.simplex_etf if frame == "simplex" else nc.orthogonal_frame
        labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
        h = make(3, 5, generator=stream(), dtype=F64)[labels]
        value = nc.supervised_contrastive_loss(h, labels, temperature=0.3)
        bound = nc.contrastive_bound(torch.tensor(counts), temperature=0.3, frame=frame)
        torch.testing.assert_close(value, bound)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.lists(st.integers(2, 5), min_size=2, max_size=4))
def test_nothing_is_below_the_bound(seed: int, counts: list[int]) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = normal(len(labels), 6, seed=seed)
    frame = nc.orthogonal_frame(len(counts), 6, dtype=F64)[labels]
    for h in (noise, frame + 0.1 * noise):
        value = nc.contrastive_objective(h, labels, temperature=0.4, nonnegative=True)
        bound = nc.contrastive_bound(torch.tensor(counts), temperature=0.4)
        assert value >= bound - 1e-12
    if len(set(counts)) == 1:
        simplex = nc.contrastive_bound(torch.tensor(counts), temperature=0.4, frame="simplex")
        assert nc.contrastive_objective(noise, labels, temperature=0.4) >= simplex - 1e-12


def test_training_reaches_the_frames() -> None:
    value, u, labels = contrast([9, 3, 2], nonnegative=True)
    bound = nc.contrastive_bound(torch.tensor([9, 3, 2]), temperature=0.5)
    assert value == pytest.approx(bound.item(), rel=1e-4)
    assert nc.frame_distance(nc.class_means(u, labels, 3), "orthogonal") < 1e-2
    value, u, labels = contrast([4, 4, 4], nonnegative=False)
    bound = nc.contrastive_bound(torch.tensor([4, 4, 4]), temperature=0.5, frame="simplex")
    assert value == pytest.approx(bound.item(), rel=1e-4)
    assert nc.frame_distance(nc.class_means(u, labels, 3)) < 1e-2
    # Imbalance bends the simplex where there is no ReLU.
    _, u, labels = contrast([9, 3, 2], nonnegative=False)
    assert nc.frame_distance(nc.class_means(u, labels, 3)) > 0.1


def test_batch_binding() -> None:
    labels = torch.tensor([1, 0, 0, 1, 2, 2, 0])
    batches = [torch.tensor([1, 2, 6]), torch.tensor([0, 3, 4, 5])]
    assert not nc.binds(batches, labels, 3)
    bound = nc.batch_binding(batches, labels, 3)
    assert [b.tolist() for b in bound] == [[1, 2, 6, 0, 4], [0, 3, 4, 5, 1]]
    assert nc.binds(bound, labels, 3)
    assert [b.tolist() for b in batches] == [[1, 2, 6], [0, 3, 4, 5]]
    assert nc.binds([torch.arange(7)], labels, 3)


def test_binding_needs_both_conditions() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    # Classes meet, but the four examples of class 0 fall into two groups.
    split = [torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 4, 5])]
    assert not nc.binds(split, labels, 2)
    assert nc.binds([*split, torch.tensor([1, 2])], labels, 2)
    # All connected within, but the classes meet only where neither has a positive.
    apart = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5]), torch.tensor([0, 4])]
    assert not nc.binds(apart, labels, 2)
    assert nc.binds([*apart, torch.tensor([0, 1, 4])], labels, 2)


def test_a_long_chain_binds() -> None:
    labels = torch.cat([torch.zeros(17), torch.ones(2)]).long()
    chain = [torch.tensor([i, i + 1]) for i in range(16)] + [torch.tensor([0, 17, 18])]
    assert nc.binds(chain, labels, 2)
    assert not nc.binds(chain[:7] + chain[8:], labels, 2)


def test_batches_that_never_mix_leave_the_frame_open() -> None:
    """What `binds` says is what training does."""
    counts = [6, 4, 2]
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    apart = [torch.arange(10), torch.tensor([6, 7, 8, 9, 10, 11])]  # 0 and 2 never meet
    for batches, tight in ((apart, False), (nc.batch_binding(apart, labels, 3), True)):
        assert nc.binds(batches, labels, 3) == tight
        distances = [
            float(nc.frame_distance(nc.class_means(u, labels, 3), "orthogonal"))
            for seed in range(3)
            for _, u, _ in [contrast(counts, True, batches, seed=seed, steps=300)]
        ]
        assert (max(distances) < 0.02) == tight


def test_contrast_rejects_bad_input() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match="equal for the simplex"):
        nc.contrastive_bound(torch.tensor([3, 2]), frame="simplex")
    with pytest.raises(ValueError, match="at least 2"):
        nc.contrastive_bound(torch.tensor([3, 1]))
    with pytest.raises(ValueError, match="temperature"):
        nc.contrastive_bound(torch.tensor([3, 2]), temperature=0.0)
    with pytest.raises(ValueError, match="batches"):
        nc.contrastive_objective(normal(4, 2), labels, batches=[])
    for function in (nc.batch_binding, nc.binds):
        with pytest.raises(ValueError, match="batches"):
            function([torch.tensor([4])], labels, 2)
        with pytest.raises(TypeError, match="batches"):
            function([[0, 1]], labels, 2)
        with pytest.raises(ValueError, match="none of class"):
            function([torch.tensor([0])], labels, 3)


# --- Classifiers that are given or repaired ---------------------------------------------------


def test_max_norm_and_realign_by_loops() -> None:
    w = normal(5, 3)
    w[0] *= 0.1
    for row, ours in zip(w, nc.max_norm(w, 1.0), strict=True):
        size = math.sqrt(sum(x * x for x in row.tolist()))
        torch.testing.assert_close(ours, row * min(1.0, 1 / size))
    assert (nc.max_norm(torch.zeros(2, 3), 1.0) == 0).all()
    v = normal(5, 7, seed=1)
    for row, other, plain, ours in zip(w, v, nc.realign(w), nc.realign(w, v), strict=True):
        size = math.sqrt(sum(x * x for x in row.tolist()))
        torch.testing.assert_close(plain, row / size)
        torch.testing.assert_close(ours, row / size * math.sqrt(sum(x * x for x in other.tolist())))
    assert nc.realign(w.half(), v).dtype == torch.float16


@pytest.mark.parametrize(("classes", "dimension", "sparsity"), [(10, 32, 0.6), (4, 16, 0.5)])
def test_sparse_frame(classes: int, dimension: int, sparsity: float) -> None:
    frame = nc.sparse_etf(classes, dimension, sparsity=sparsity, generator=stream(), dtype=F64)
    assert (frame.weight[~frame.mask] == 0).all()
    assert int((~frame.mask).sum()) == int(sparsity * classes * dimension)
    torch.testing.assert_close(frame.weight.norm(dim=1), torch.ones(classes, dtype=F64))
    cosines = frame.weight @ frame.weight.T + torch.eye(classes) * (-1 - 1 / (classes - 1))
    assert cosines.add(1 / (classes - 1)).abs().max().item() == pytest.approx(
        frame.residual.item(), abs=1e-12
    )
    assert frame.residual < 1e-4
    # The mask alone breaks the angles; the fit mends them.
    dense = nc.simplex_etf(classes, dimension, generator=stream(), dtype=F64)
    assert nc.frame_distance(dense * frame.mask) > 0.1 > 1e-3 > nc.frame_distance(frame.weight)


def test_sparse_frame_repeats_and_says_when_it_fails() -> None:
    one, again = (nc.sparse_etf(3, 8, generator=stream(4)) for _ in range(2))
    assert torch.equal(one.weight, again.weight) and one.weight.dtype == torch.float32
    assert nc.sparse_etf(3, 8, sparsity=0.0).residual < 1e-6
    poor = nc.sparse_etf(6, 12, sparsity=0.85, generator=stream(1))
    assert poor.residual > 0.05


def test_classifiers_reject_bad_input() -> None:
    with pytest.raises(ValueError, match="radius"):
        nc.max_norm(normal(2, 2), 0.0)
    with pytest.raises(ValueError, match="zero row"):
        nc.realign(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="reference"):
        nc.realign(normal(2, 2), normal(3, 2))
    for sparsity in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="sparsity"):
            nc.sparse_etf(3, 4, sparsity=sparsity)
    with pytest.raises(ValueError, match="row"):
        nc.sparse_etf(3, 4, sparsity=1.0)
    with pytest.raises(ValueError, match="dimension"):
        nc.sparse_etf(6, 4)
