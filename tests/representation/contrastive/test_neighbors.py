"""Neighbor distributions against loops in float64; the losses that come out of one divergence."""

import math
from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.manifold._t_sne import _joint_probabilities, _kl_divergence
from torch import Tensor

from lossbook import representation as losses
from lossbook.classification import cross_entropy
from lossbook.representation import (
    MemoryBank,
    cluster_neighbors,
    cosine_neighbors,
    debias_neighbors,
    gaussian_neighbors,
    icon_loss,
    instance_nce_loss,
    label_neighbors,
    nearest_neighbors,
    perplexity_bandwidth,
    student_neighbors,
    walk_neighbors,
)

close = torch.testing.assert_close
Rows = list[list[float]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(kernel: Callable[[int, int], float], rows: int, columns: int) -> Tensor:
    """Rows of kernel values (i, j), each divided by its sum."""
    table = [[kernel(i, j) for j in range(columns)] for i in range(rows)]
    shares = [[k / sum(row) for k in row] for row in table]
    return torch.tensor(shares, dtype=torch.float64)


def square(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


# --- The divergence -----------------------------------------------------------------------------


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """By loops over probabilities; 0 log 0 is 0."""
    rows = [
        sum(a * math.log(a / b) for a, b in zip(*pair, strict=True) if a > 0)
        for pair in zip(p.tolist(), q.tolist(), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_divergence_is_that_of_the_formula(rows: int, columns: int, seed: int) -> None:
    learned, wanted = normal(rows, columns, seed=seed), 3 * normal(rows, columns, seed=seed + 1)
    wanted[:, 1:] = wanted[:, 1:].where(normal(rows, columns - 1, seed=seed + 2) > 0, -math.inf)
    expected = divergence(wanted.softmax(1), learned.softmax(1))
    close(icon_loss(learned, wanted, reduction="none"), expected)
    close(icon_loss(learned, wanted), expected.mean())
    close(icon_loss(wanted, wanted, reduction="none"), torch.zeros(rows, dtype=torch.float64))
    assert (expected > -1e-12).all()


def test_only_differences_of_scores_count() -> None:
    learned, wanted, shift = normal(4, 5), normal(4, 5, seed=1), 100 * normal(4, 1, seed=2)
    close(icon_loss(learned + shift, wanted - shift), icon_loss(learned, wanted))
    close(icon_loss(learned.log_softmax(1), wanted.log_softmax(1)), icon_loss(learned, wanted))


def test_gradient_is_q_minus_p() -> None:
    learned, wanted = normal(4, 5).requires_grad_(), normal(4, 5, seed=1).requires_grad_()
    (slope, other) = torch.autograd.grad(
        icon_loss(learned, wanted, reduction="sum"), (learned, wanted)
    )
    p, q = wanted.softmax(1), learned.softmax(1)
    close(slope, q - p)
    gap = (p / q).log()
    close(other, p * (gap - (p * gap).sum(1, keepdim=True)))


def test_a_row_without_a_neighbor_counts_for_nothing() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2])
    h, wanted = normal(5, 3).requires_grad_(), label_neighbors(labels)
    value = icon_loss(cosine_neighbors(h), wanted, reduction="none")
    assert value[2] == 0 and (value[[0, 1, 3, 4]] > 0).all()
    close(icon_loss(cosine_neighbors(h), wanted), value.sum() / 4)
    lonely = icon_loss(cosine_neighbors(h), label_neighbors(torch.arange(5)))
    assert lonely == 0 and (torch.autograd.grad(lonely, h)[0] == 0).all()


def test_what_the_learned_graph_excludes_costs_infinitely_much() -> None:
    wanted = torch.zeros(1, 2, requires_grad=True)
    learned = torch.tensor([[0.0, -math.inf]], requires_grad=True)
    value = icon_loss(learned, wanted)
    assert value == math.inf and torch.autograd.grad(value, learned)[0].isfinite().all()
    both = icon_loss(learned, torch.tensor([[0.0, -math.inf]]))
    assert both == 0


# --- The graphs ---------------------------------------------------------------------------------


def kernels(x: Rows, y: Rows) -> dict[str, Callable[[int, int], float]]:
    return {
        "cosine": lambda i, j: math.exp(cosine(x[i], y[j]) / 0.3),
        "gaussian": lambda i, j: math.exp(-square(x[i], y[j]) / (2 * 1.5**2)),
        "student": lambda i, j: (1 + square(x[i], y[j]) / 2.0) ** -1.5,
    }


GRAPHS: dict[str, Callable[..., Tensor]] = {
    "cosine": lambda *x: cosine_neighbors(*x, temperature=0.3),
    "gaussian": lambda *x: gaussian_neighbors(*x, bandwidth=1.5),
    "student": lambda *x: student_neighbors(*x, degrees=2.0),
    "cluster": cluster_neighbors,
}


@pytest.mark.parametrize("name", ["cosine", "gaussian", "student"])
def test_graphs_are_those_of_their_kernels(name: str) -> None:
    x, y = normal(5, 3), normal(4, 3, seed=1)
    among = kernels(x.tolist(), x.tolist())[name]
    expected = probabilities(lambda i, j: among(i, j) if i != j else 0.0, 5, 5)
    close(GRAPHS[name](x).softmax(1), expected)
    close(GRAPHS[name](x, x).softmax(1), probabilities(among, 5, 5))
    between = kernels(x.tolist(), y.tolist())[name]
    close(GRAPHS[name](x, y).softmax(1), probabilities(between, 5, 4))


def test_every_row_may_have_its_own_bandwidth() -> None:
    x, sigma = normal(4, 2), torch.tensor([0.3, 1.0, 2.0, 4.0], dtype=torch.float64)
    rows = [gaussian_neighbors(x, bandwidth=float(s))[i] for i, s in enumerate(sigma)]
    close(gaussian_neighbors(x, bandwidth=sigma), torch.stack(rows))


def test_cluster_walk_is_that_of_the_formula() -> None:
    logits, others = 2 * normal(5, 3), normal(4, 3, seed=1)
    for members, itself in ((logits, None), (logits, logits), (others, others)):
        pi, to = logits.softmax(1).tolist(), members.softmax(1).tolist()
        sizes = [sum(row[c] for row in to) for c in range(3)]
        walk = torch.tensor(
            [[sum(a[c] * b[c] / sizes[c] for c in range(3)) for b in to] for a in pi]
        ).double()
        if itself is None:
            walk.fill_diagonal_(0)
        else:
            close(walk.sum(1), torch.ones(5, dtype=torch.float64))
        close(cluster_neighbors(logits, itself).exp(), walk, atol=1e-6, rtol=1e-5)


def test_label_graph() -> None:
    scores = label_neighbors(torch.tensor([3, 5, 3, 3]))
    never = -math.inf
    expected = [[never, never, 0, 0], [never] * 4, [0, never, never, 0], [0, never, 0, never]]
    assert scores.tolist() == expected
    classes = label_neighbors(torch.tensor([1, 0]), torch.arange(3))
    assert classes.softmax(1).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_nearest_are_those_of_sorting() -> None:
    x, y = normal(7, 3), normal(6, 3, seed=1)
    for others, number in product((None, y), (1, 3, 5)):
        columns = (x if others is None else others).tolist()
        found = nearest_neighbors(x, others, number=number)
        for i, row in enumerate(x.tolist()):
            far = {j: square(row, c) for j, c in enumerate(columns) if others is not None or j != i}
            chosen = set(sorted(far, key=lambda j: far[j])[:number])
            assert {j for j, s in enumerate(found[i].tolist()) if s == 0} == chosen
            assert sum(math.isinf(s) for s in found[i].tolist()) == len(columns) - number


def test_debiasing_is_the_mixture() -> None:
    scores = cosine_neighbors(normal(5, 3), temperature=0.1)
    for alpha in (0.0, 0.3, 1.0):
        expected = (1 - alpha) * scores.softmax(1) + alpha / 4 * (1 - torch.eye(5))
        close(debias_neighbors(scores, alpha=alpha).exp(), expected)
    wide = normal(5, 3, seed=1)
    close(debias_neighbors(wide, alpha=0.3, itself=True).exp(), 0.7 * wide.softmax(1) + 0.1)


def test_debiasing_bounds_the_loss() -> None:
    learned = 1e4 * normal(6, 6).fill_diagonal_(-math.inf)
    wanted = nearest_neighbors(normal(6, 2, seed=1), number=1)
    assert icon_loss(learned, wanted) > 1000
    bound = math.log(5 / 0.1) + 1e-9
    assert (
        icon_loss(debias_neighbors(learned, alpha=0.1), wanted, reduction="none") <= bound
    ).all()


def test_walks_by_enumeration() -> None:
    scores = nearest_neighbors(normal(6, 2), number=2)
    p = scores.softmax(1).tolist()
    for steps in (1, 2, 3):
        total = torch.zeros(6, 6, dtype=torch.float64)
        for length in range(1, steps + 1):
            for path in product(range(6), repeat=length + 1):
                chance = math.prod(p[a][b] for a, b in pairwise(path))
                total[path[0], path[-1]] += chance
        total.fill_diagonal_(0)
        close(walk_neighbors(scores, steps=steps).softmax(1), total / total.sum(1, keepdim=True))
    longer = walk_neighbors(scores, steps=4) > -math.inf
    assert (longer >= (scores > -math.inf)).all() and longer.sum() > (scores > -math.inf).sum()


def test_perplexity_is_met() -> None:
    x = normal(40, 5) * torch.linspace(0.1, 3, 40, dtype=torch.float64)[:, None]
    for perplexity in (2.0, 10.0, 30.0):
        sigma = perplexity_bandwidth(x, perplexity=perplexity)
        p = gaussian_neighbors(x, bandwidth=sigma).softmax(1)
        close(torch.special.entr(p).sum(1).exp(), torch.full((40,), perplexity).double())
    assert perplexity_bandwidth(torch.ones(5, 2), perplexity=2.0).isfinite().all()


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_graphs_of_degenerate_points_have_gradients(name: str, dtype: torch.dtype) -> None:
    """Duplicates, zero vectors and long vectors: finite, in float32."""
    x = (
        torch.cat([torch.zeros(2, 3), torch.ones(2, 3), 100 * torch.eye(3)])
        .to(dtype)
        .requires_grad_()
    )
    scores = GRAPHS[name](x)
    value = icon_loss(scores, label_neighbors(torch.tensor([0, 0, 0, 0, 1, 1, 1])))
    assert scores.dtype == value.dtype == torch.float32 and value.isfinite()
    (slope,) = torch.autograd.grad(value, x)
    assert slope.isfinite().all() and (slope != 0).any()


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_have_derivatives_and_transform(name: str) -> None:
    x, wanted = normal(4, 3).requires_grad_(), label_neighbors(torch.tensor([0, 0, 1, 1]))

    def loss(points: Tensor) -> Tensor:
        return icon_loss(debias_neighbors(GRAPHS[name](points), alpha=0.1), wanted)

    assert torch.autograd.gradcheck(loss, x) and torch.autograd.gradgradcheck(loss, x)
    stack = normal(3, 4, 3, seed=1)
    close(torch.func.vmap(loss)(stack), torch.stack([loss(points) for points in stack]))
    torch._dynamo.reset()
    close(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), loss(x))


@pytest.mark.parametrize("name", GRAPHS)
def test_large_graphs_are_the_same_in_blocks(name: str) -> None:
    x = normal(400, 3).requires_grad_()
    weights = normal(400, 400, seed=1)
    columns = [GRAPHS[name](x, part) for part in x.split(50)]  # small enough for one block
    small = torch.cat(columns, 1)
    big = GRAPHS[name](x, x)
    if name == "cluster":  # shares of the whole, not of the part
        small = torch.cat([GRAPHS[name](part, x) for part in x.split(20)])
    close(big, small)
    slopes = [torch.autograd.grad((weights * s).sum(), x)[0] for s in (big, small)]
    close(*slopes)


# --- Losses that come out -----------------------------------------------------------------------


def number_of_partners(labels: Tensor) -> Tensor:
    return (labels[:, None] == labels).sum(1) - 1.0


def test_info_nce_comes_out() -> None:
    anchor, positive = normal(6, 4), normal(6, 4, seed=1)
    own = torch.arange(6)
    close(
        icon_loss(cosine_neighbors(anchor, positive, temperature=0.1), label_neighbors(own, own)),
        losses.info_nce_loss(anchor, positive, temperature=0.1),
    )


@pytest.mark.parametrize("views", [2, 3])
def test_nt_xent_comes_out(views: int) -> None:
    h = normal(views, 6, 4)
    wanted = label_neighbors(torch.arange(6).repeat(views))
    value = icon_loss(cosine_neighbors(h.flatten(0, 1), temperature=0.2), wanted)
    close(value + math.log(views - 1), losses.nt_xent_loss(*h, temperature=0.2))


def test_supervised_contrast_comes_out() -> None:
    h, labels = normal(9, 4), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    value = icon_loss(
        cosine_neighbors(h, temperature=0.1), label_neighbors(labels), reduction="none"
    )
    entropy = number_of_partners(labels).log()
    expected = losses.supervised_contrastive_loss(h, labels, temperature=0.1, reduction="none")
    close(value + entropy, expected)


def test_cross_entropy_comes_out() -> None:
    logits, target, classes = normal(7, 4), torch.tensor([0, 1, 2, 3, 3, 1, 0]), torch.arange(4)
    wanted = label_neighbors(target, classes)
    close(icon_loss(logits, wanted), cross_entropy(logits, target))
    smooth = debias_neighbors(wanted, alpha=0.1, itself=True)
    entropy = torch.special.entr(smooth.exp()).sum(1).mean().double()
    close(
        icon_loss(logits, smooth) + entropy,
        cross_entropy(logits, target, label_smoothing=0.1),
        rtol=1e-6,
        atol=1e-6,
    )
    h, w = normal(7, 3), normal(4, 3, seed=1)
    close(
        icon_loss(cosine_neighbors(h, w, temperature=1 / 16), wanted),
        losses.normalized_softmax_loss(h, target, prototypes=w, scale=16.0),
    )


def test_the_divergence_of_torch_comes_out() -> None:
    learned, wanted = normal(5, 4), normal(5, 4, seed=1)
    expected = F.kl_div(learned.log_softmax(1), wanted.softmax(1), reduction="batchmean")
    close(icon_loss(learned, wanted), expected)


def test_sne_comes_out() -> None:
    """One divergence per point, from conditional Gaussians; q has 2 sigma^2 = 1."""
    x, y = normal(8, 5), normal(8, 2, seed=1)
    sigma = perplexity_bandwidth(x, perplexity=4.0)
    points, plane, widths = x.tolist(), y.tolist(), sigma.tolist()

    def in_space(i: int, j: int) -> float:
        return math.exp(-square(points[i], points[j]) / (2 * widths[i] ** 2)) if i != j else 0.0

    def in_plane(i: int, j: int) -> float:
        return math.exp(-square(plane[i], plane[j])) if i != j else 0.0

    expected = divergence(probabilities(in_space, 8, 8), probabilities(in_plane, 8, 8))
    wanted = gaussian_neighbors(x, bandwidth=sigma)
    close(icon_loss(gaussian_neighbors(y, bandwidth=0.5**0.5), wanted, reduction="none"), expected)


def test_t_sne_comes_out() -> None:
    """The joint one, of all pairs in one row, against scikit-learn: p, value and gradient."""
    x, y = normal(60, 5), normal(60, 2, seed=1).requires_grad_()
    squares = (x[:, None] - x).square().sum(2).numpy().astype("float32")
    theirs = _joint_probabilities(squares, 10.0, 0)  # of the pairs i < j
    p = gaussian_neighbors(x, bandwidth=perplexity_bandwidth(x, perplexity=10.0)).softmax(1)
    joint = ((p + p.T) / 2).log().flatten()[None]
    above = torch.triu_indices(60, 60, 1)
    close(joint.softmax(1).view(60, 60)[*above], torch.from_numpy(theirs), rtol=1e-3, atol=1e-7)
    value = icon_loss(student_neighbors(y).flatten()[None], joint)
    (slope,) = torch.autograd.grad(value, y)
    expected, gradient = _kl_divergence(y.detach().numpy().ravel(), theirs, 1, 60, 2)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    close(slope, torch.from_numpy(gradient).view(60, 2), rtol=1e-3, atol=1e-6)


def test_k_means_comes_out() -> None:
    """With the roles exchanged: from the walk within hard clusters to Gaussian neighbors."""
    x, sigma = normal(30, 2), 0.7
    fitted = KMeans(3, n_init=1, random_state=0).fit(x.numpy())
    hard = 1e4 * F.one_hot(torch.from_numpy(fitted.labels_).long(), 3).double()
    sizes = torch.bincount(torch.from_numpy(fitted.labels_).long()).double()
    gauss = gaussian_neighbors(x, x, bandwidth=sigma)
    value = icon_loss(gauss, cluster_neighbors(hard, hard), reduction="sum")
    constant = gauss.logsumexp(1).sum()  # of the clusters
    expected = fitted.inertia_ / sigma**2 - (sizes * sizes.log()).sum() + constant
    close(value, expected)


def test_clusters_that_keep_neighbors_together_should_be_balanced() -> None:
    """Then all that is left is the entropy of the sizes: N log N minus theirs, and p's own."""
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    x = normal(8, 2) + 100.0 * labels[:, None]
    wanted = nearest_neighbors(x, number=2)
    hard = 1e4 * F.one_hot(labels, 2).double()
    value = icon_loss(cluster_neighbors(hard), wanted)
    close(value, number_of_partners(labels).double().log().mean() - math.log(2))


def test_soft_clusters_against_loops() -> None:
    x, logits = normal(7, 3), normal(7, 3, seed=1)
    pi, points = logits.softmax(1).tolist(), x.tolist()
    sizes = [sum(row[c] for row in pi) for c in range(3)]

    def walk(i: int, j: int) -> float:
        return sum(pi[i][c] * pi[j][c] / sizes[c] for c in range(3)) if i != j else 0.0

    def near(i: int, j: int) -> float:
        return math.exp(-square(points[i], points[j]) / 2) if i != j else 0.0

    expected = divergence(probabilities(near, 7, 7), probabilities(walk, 7, 7))
    close(icon_loss(cluster_neighbors(logits), gaussian_neighbors(x), reduction="none"), expected)


# --- Instance discrimination --------------------------------------------------------------------


def nce_by_loops(u: Rows, v: Rows, w: list[Rows], number: int, z: float, tau: float) -> list[float]:
    values = []
    for i, anchor in enumerate(u):
        ratio = len(w[i]) / number

        def h(row: list[float], anchor: list[float] = anchor, ratio: float = ratio) -> float:
            share = math.exp(cosine(anchor, row) / tau) / z
            return share / (share + ratio)

        values.append(-math.log(h(v[i])) - sum(math.log(1 - h(row)) for row in w[i]))
    return values


@pytest.mark.parametrize("shared", [True, False])
def test_nce_is_that_of_the_formula(shared: bool) -> None:
    u, v, w = normal(4, 3), normal(4, 3, seed=1), normal(4, 6, 3, seed=2)
    w = w[:1].expand_as(w) if shared else w
    noise = w[0] if shared else w
    settings = {"noise": noise, "number": 50, "temperature": 0.3}
    for z in (5.0, 200.0):
        value = instance_nce_loss(
            u, v, log_partition=torch.tensor(z).double().log(), **settings, reduction="none"
        )
        expected = nce_by_loops(u.tolist(), v.tolist(), w.tolist(), 50, z, 0.3)
        close(value, torch.tensor(expected, dtype=torch.float64))
    similarity = [
        cosine(a, b) for a, rows in zip(u.tolist(), w.tolist(), strict=True) for b in rows
    ]
    z = 50 * sum(math.exp(s / 0.3) for s in similarity) / len(similarity)
    expected = nce_by_loops(u.tolist(), v.tolist(), w.tolist(), 50, z, 0.3)
    close(instance_nce_loss(u, v, **settings), torch.tensor(sum(expected) / 4).double())


def test_nce_takes_no_gradient_through_its_own_estimate() -> None:
    u, v, noise = normal(4, 3).requires_grad_(), normal(4, 3, seed=1), normal(6, 3, seed=2)
    s = F.normalize(u.detach()) @ F.normalize(noise).T / 0.07
    log_z = (s.exp().mean() * 50).log()
    given = instance_nce_loss(u, v, noise=noise, number=50, log_partition=log_z)
    close(
        *(
            torch.autograd.grad(x, u)[0]
            for x in (given, instance_nce_loss(u, v, noise=noise, number=50))
        )
    )


def test_with_all_instances_as_noise_nce_has_the_gradient_of_the_softmax() -> None:
    """As m grows with n fixed: the noise is every instance, many times."""
    u, rows = normal(3, 4).requires_grad_(), F.normalize(normal(10, 4, seed=1))
    s = F.normalize(u) @ rows.T / 0.5
    (exact,) = torch.autograd.grad(F.cross_entropy(s, torch.arange(3), reduction="sum"), u)
    errors = []
    for copies in (1, 10, 100, 1000):
        slopes = [
            torch.autograd.grad(
                instance_nce_loss(
                    u[i : i + 1], rows[i : i + 1], noise=rows.repeat(copies, 1), number=10,
                    log_partition=s[i].detach().logsumexp(0), temperature=0.5,
                ),
                u,
            )[0]
            for i in range(3)
        ]  # fmt: skip
        errors.append(float((sum(slopes) - exact).norm() / exact.norm()))
    assert all(later < earlier / 5 for earlier, later in pairwise(errors))
    assert errors[-1] < 1e-3


def test_nce_survives_the_extremes() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        u = torch.tensor([[0.0, 0.0], [1e4, 0.0], [-1.0, 0.0]]).to(dtype).requires_grad_()
        v = torch.tensor([[1.0, 0.0]] * 3).to(dtype)
        value = instance_nce_loss(u, v, noise=v.repeat(50, 1), number=10**6, temperature=0.01)
        assert value.isfinite() and value.dtype == dtype
        (slope,) = torch.autograd.grad(value, u)
        assert slope.isfinite().all()


def test_exact_memory_is_the_softmax_over_all_rows() -> None:
    bank = MemoryBank(20, 4, temperature=0.2, proximal=0.7).double()
    h, index, rows = (
        normal(5, 4).requires_grad_(),
        torch.tensor([3, 0, 19, 7, 8]),
        bank.rows.clone(),
    )
    close(rows.norm(dim=1), torch.ones(20).double(), atol=1e-6, rtol=0)
    value = bank(h, index)
    u = F.normalize(h)
    expected = (
        F.cross_entropy(u @ rows.T / 0.2, index) + 0.7 * (u - rows[index]).square().sum(1).mean()
    )
    close(value, expected)
    close(*(torch.autograd.grad(x, h)[0] for x in (value, expected)))
    pulled = rows.clone()
    pulled[index] = F.normalize(0.5 * rows[index] + 0.5 * u.detach())
    close(bank.rows, pulled)
    bank.eval()(h, index)
    close(bank.rows, pulled)


def test_memory_is_the_normalized_softmax_of_its_rows() -> None:
    bank = MemoryBank(9, 4).eval()
    h, index = normal(5, 4).float(), torch.arange(5)
    expected = losses.normalized_softmax_loss(h, index, prototypes=bank.rows, scale=1 / 0.07)
    close(bank(h, index), expected)


def test_momentum_one_keeps_and_zero_replaces() -> None:
    h, index = normal(3, 4).float(), torch.arange(3)
    for momentum in (0.0, 1.0):
        bank = MemoryBank(5, 4, momentum=momentum)
        before = bank.rows.clone()
        bank(h, index)
        close(bank.rows[:3], before[:3] if momentum else F.normalize(h))
        close(bank.rows[3:], before[3:])


def test_memory_with_noise_estimates_its_partition_once() -> None:
    torch.manual_seed(0)
    bank = MemoryBank(200, 4, noise=5000, temperature=0.5, momentum=1.0)
    h, index = normal(6, 4).float().requires_grad_(), torch.arange(6)
    assert (
        bank.eval()(h, index).isfinite() and bank.log_partition.isnan()
    )  # no state outside training
    value = bank.train()(h, index)
    kept = bank.log_partition.clone()
    truth = (F.normalize(h) @ bank.rows.T / 0.5).logsumexp(1).exp().mean().log()
    close(kept, truth.detach(), atol=0.02, rtol=0)
    bank(2 * normal(6, 4, seed=5).float(), index)
    assert bank.log_partition == kept and not kept.requires_grad
    exact = MemoryBank(200, 4, temperature=0.5, momentum=1.0)
    exact.load_state_dict(bank.state_dict())
    slopes = [torch.autograd.grad(x, h)[0] for x in (value, exact(h, index))]
    assert F.cosine_similarity(*(s.flatten() for s in slopes), dim=0) > 0.98


def test_a_large_memory_is_taken_in_blocks() -> None:
    bank = MemoryBank(2000, 8, temperature=0.1)
    h, index, rows = normal(200, 8).float().requires_grad_(), torch.arange(200), bank.rows.clone()
    value = bank(h, index)
    expected = F.cross_entropy(F.normalize(h) @ rows.T / 0.1, index)
    close(value, expected)
    close(*(torch.autograd.grad(x, h)[0] for x in (value, expected)))


def test_memory_keeps_half_precision() -> None:
    bank = MemoryBank(8, 4)
    h = normal(3, 4).bfloat16().requires_grad_()
    value = bank(h, torch.arange(3))
    assert value.dtype == torch.bfloat16 and bank.rows.dtype == torch.float32
    assert torch.autograd.grad(value, h)[0].isfinite().all()


# --- Bad input ----------------------------------------------------------------------------------

X = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: icon_loss(X, X[:, :2]), ValueError, "supervisory"),
        (lambda: icon_loss(X, X.long()), TypeError, "supervisory"),
        (lambda: icon_loss(X[:, :0], X[:, :0]), ValueError, "learned"),
        (lambda: icon_loss(X, X, reduction="median"), ValueError, "reduction"),
        (lambda: cosine_neighbors(X, X[:, :2]), ValueError, "others"),
        (lambda: cosine_neighbors(X, temperature=0.0), ValueError, "temperature"),
        (lambda: cosine_neighbors(X.long()), TypeError, "embeddings"),
        (lambda: gaussian_neighbors(X[0]), ValueError, "points"),
        (lambda: gaussian_neighbors(X, bandwidth=0.0), ValueError, "bandwidth"),
        (lambda: gaussian_neighbors(X, bandwidth=torch.zeros(4)), ValueError, "bandwidth"),
        (lambda: gaussian_neighbors(X, bandwidth=torch.ones(3)), ValueError, "bandwidth"),
        (lambda: student_neighbors(X, degrees=-1.0), ValueError, "degrees"),
        (lambda: cluster_neighbors(X[None]), ValueError, "assignments"),
        (lambda: label_neighbors(X[:, 0]), TypeError, "labels"),
        (lambda: label_neighbors(X.long()), ValueError, "labels"),
        (lambda: label_neighbors(X[:, 0].long(), X[0]), TypeError, "others"),
        (lambda: nearest_neighbors(X, number=4), ValueError, "number"),
        (lambda: nearest_neighbors(X, number=0), ValueError, "number"),
        (lambda: debias_neighbors(X, alpha=0.1), ValueError, "scores"),
        (lambda: debias_neighbors(X[:3], alpha=1.1), ValueError, "alpha"),
        (lambda: walk_neighbors(X, steps=2), ValueError, "scores"),
        (lambda: walk_neighbors(X[:3], steps=0), ValueError, "steps"),
        (lambda: perplexity_bandwidth(X, perplexity=3.0), ValueError, "perplexity"),
        (lambda: perplexity_bandwidth(X, perplexity=1.0), ValueError, "perplexity"),
        (lambda: instance_nce_loss(X, X, noise=X[:, :2], number=9), ValueError, "noise"),
        (lambda: instance_nce_loss(X, X, noise=X[:0], number=9), ValueError, "noise"),
        (lambda: instance_nce_loss(X, X, noise=X, number=0), ValueError, "number"),
        (
            lambda: instance_nce_loss(X, X, noise=X, number=9, log_partition=X[0]),
            ValueError,
            "log_partition",
        ),
        (lambda: MemoryBank(0, 3), ValueError, "number"),
        (lambda: MemoryBank(9, 0), ValueError, "dimension"),
        (lambda: MemoryBank(9, 3, temperature=0.0), ValueError, "temperature"),
        (lambda: MemoryBank(9, 3, momentum=1.1), ValueError, "momentum"),
        (lambda: MemoryBank(9, 3, noise=0), ValueError, "noise"),
        (lambda: MemoryBank(9, 3, proximal=-1.0), ValueError, "proximal"),
        (lambda: MemoryBank(9, 3)(X, torch.arange(3)), ValueError, "index"),
        (lambda: MemoryBank(3, 3)(X, torch.arange(4)), ValueError, "index"),
        (lambda: MemoryBank(9, 3)(X, torch.arange(-1, 3)), ValueError, "index"),
        (lambda: MemoryBank(9, 3)(X, X[:, 0]), TypeError, "index"),
        (lambda: MemoryBank(9, 2)(X, torch.arange(4)), ValueError, "embeddings"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        call()
