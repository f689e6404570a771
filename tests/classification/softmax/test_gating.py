"""Mixtures of experts and the Voronoi distance against loops, and what changes neither."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from lossbook.classification import GaussianExperts, experts_log_density, voronoi_distance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(numbers: list) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def some_experts(number: int, width: int = 2, seed: int = 0) -> GaussianExperts:
    return GaussianExperts(
        normal(number, width, seed=seed),
        normal(number, seed=seed + 1),
        3 * normal(number, width, seed=seed + 2),
        3 * normal(number, seed=seed + 3),
        normal(number, seed=seed + 4).exp(),
    )


def density(experts: GaussianExperts, x: list[float], y: float, k: int) -> float:
    b, c, a, e, v = (part.tolist() for part in experts)

    def dot(u: list[float], w: list[float]) -> float:
        return sum(s * t for s, t in zip(u, w, strict=True))

    scores = [dot(row, x) + shift for row, shift in zip(b, c, strict=True)]
    chosen = sorted(range(len(c)), key=lambda i: -scores[i])[:k]
    total = sum(math.exp(scores[i]) for i in chosen)
    return sum(
        math.exp(scores[i])
        / total
        * math.exp(-((y - dot(a[i], x) - e[i]) ** 2) / (2 * v[i]))
        / math.sqrt(2 * math.pi * v[i])
        for i in chosen
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_density_is_that_of_the_formula(k: int) -> None:
    experts, x, y = some_experts(3), normal(6, 2, seed=8), 2 * normal(6, seed=9)
    expected = [
        math.log(density(experts, *row, k)) for row in zip(x.tolist(), y.tolist(), strict=True)
    ]
    torch.testing.assert_close(experts_log_density(experts, x, y, k=k), exactly(expected))
    leaves = [part.clone().requires_grad_() for part in experts]

    def own(*parts: Tensor) -> Tensor:
        return experts_log_density(GaussianExperts(*parts), x, y, k=k)

    assert torch.autograd.gradcheck(own, leaves)


def test_density_sums_to_one() -> None:
    experts, x = some_experts(4, width=1), exactly([[0.7]])
    y = torch.linspace(-60, 60, 40_001, dtype=torch.float64)
    for k in (1, 2, 4):
        values = experts_log_density(experts, x.expand(len(y), 1), y, k=k).exp()
        torch.testing.assert_close(torch.trapezoid(values, y), exactly(1.0))


def test_far_outputs_keep_a_gradient() -> None:
    experts = GaussianExperts(*(x.float().requires_grad_() for x in some_experts(3)))
    value = experts_log_density(experts, torch.zeros(1, 2), torch.tensor([1e4]), k=2)
    slopes = torch.autograd.grad(value.sum(), list(experts), allow_unused=True)
    assert value.isfinite().all() and all(s.isfinite().all() for s in slopes)
    assert (slopes[3] != 0).any()
    halves = GaussianExperts(*(x.half() for x in some_experts(3)))
    assert (
        experts_log_density(halves, normal(2, 2).half(), normal(2).half(), k=2).dtype == torch.half
    )


# --- The Voronoi distance


def by_cells(fitted: GaussianExperts, true: GaussianExperts, k: int) -> float:
    """As in the authors' code: the worst choice of k true experts."""
    f, g = [p.tolist() for p in fitted], [p.tolist() for p in true]
    size, number = len(f[1]), len(g[1])

    def gaps(i: int, j: int) -> tuple[float, float, float, float]:
        return (
            math.dist(f[0][i], g[0][j]),
            math.dist(f[2][i], g[2][j]),
            abs(f[3][i] - g[3][j]),
            abs(f[4][i] - g[4][j]),
        )

    cell = [min(range(number), key=lambda j, i=i: sum(gaps(i, j))) for i in range(size)]
    worst = 0.0
    for chosen in combinations(range(number), k):
        total = 0.0
        for j in chosen:
            members = [i for i in range(size) if cell[i] == j]
            r = {0: 1, 1: 1, 2: 4, 3: 6}[len(members)]
            s = r if r == 1 else r / 2
            for i in members:
                b, a, e, v = gaps(i, j)
                total += math.exp(f[1][i]) * (b**r + e**r + a**s + v**s)
            total += abs(sum(math.exp(f[1][i]) for i in members) - math.exp(g[1][j]))
        worst = max(worst, total)
    return worst


def near(experts: GaussianExperts, rows: list[int], step: float, seed: int) -> GaussianExperts:
    moved = (x[rows] + step * normal(*x[rows].shape, seed=seed + i) for i, x in enumerate(experts))
    return GaussianExperts(*moved)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 1], [0, 1, 1, 2], [0, 0, 1, 1, 1, 2], [0, 1]])
def test_distance_is_that_of_the_formula(rows: list[int]) -> None:
    true = some_experts(3)
    for seed in range(3):
        fitted = near(true, rows, 0.3, 20 + 10 * seed)
        for k in (1, 2, 3):
            ours = voronoi_distance(fitted, true, k=k).item()
            assert ours == pytest.approx(by_cells(fitted, true, k), rel=1e-12)


def test_cells_are_told_apart_by_each_parameter() -> None:
    for part in GaussianExperts._fields:
        if part == "gate_bias":
            continue  # a weight, not a place
        true = GaussianExperts(*(x[[0, 0]].clone() for x in some_experts(1)))
        getattr(true, part)[1] += 5
        fitted = near(true, [1, 0], 0.1, 40)
        ours = voronoi_distance(fitted, true, k=2).item()
        assert ours == pytest.approx(by_cells(fitted, true, 2)) and ours < 3


def test_distance_of_the_same_experts_is_zero_in_any_order() -> None:
    true = some_experts(3)
    order = GaussianExperts(*(x[[2, 0, 1]] for x in true))
    assert voronoi_distance(order, true, k=3) < 1e-12
    # An expert said twice, each time with half its weight, is the same mixture.
    twice = GaussianExperts(*(x[[0, 1, 2, 2]] for x in true))
    twice.gate_bias[2:] -= math.log(2)
    assert voronoi_distance(twice, true, k=3) < 1e-12


def test_exponents_of_an_expert_that_was_split() -> None:
    """Steps a tenth as long: a tenth of the distance from one, and powers of it from two and three."""
    true = some_experts(1)
    parts = {
        "gate_weight": (1, 4, 6),
        "bias": (1, 4, 6),
        "weight": (1, 2, 3),
        "variance": (1, 2, 3),
    }
    for part, powers in parts.items():
        for copies, power in enumerate(powers, 1):
            distance = []
            for step in (0.1, 0.01):
                fitted = GaussianExperts(*(x[[0] * copies] for x in true))
                fitted.gate_bias.sub_(math.log(copies))
                getattr(fitted, part).add_(step)
                distance.append(voronoi_distance(fitted, true, k=1).item())
            assert math.log10(distance[0] / distance[1]) == pytest.approx(power, abs=1e-3)


def test_bad_input() -> None:
    true, x, y = some_experts(3), normal(5, 2), normal(5)
    for k in (0, 4):
        with pytest.raises(ValueError, match="k must be from 1 to 3"):
            voronoi_distance(true, true, k=k)
    with pytest.raises(ValueError, match="in a cell"):
        voronoi_distance(near(true, [0, 0, 0, 0], 0.01, 30), true, k=1)
    with pytest.raises(ValueError, match=r"fitted\.weight"):
        voronoi_distance(some_experts(3, width=1), true, k=1)
    with pytest.raises(ValueError, match=r"true\.variance"):
        voronoi_distance(true, true._replace(variance=true.variance[:2]), k=1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        experts_log_density(true, x, y, k=0)
    with pytest.raises(ValueError, match="inputs"):
        experts_log_density(true, x[:4], y, k=1)
    with pytest.raises(ValueError, match="outputs"):
        experts_log_density(true, x, y[:, None], k=1)
    with pytest.raises(ValueError, match=r"experts\.gate_bias"):
        experts_log_density(true._replace(gate_bias=true.bias[:, None]), x, y, k=1)
    with pytest.raises(TypeError, match=r"experts\.bias"):
        experts_log_density(true._replace(bias=true.bias.long()), x, y, k=1)
