r"""What a loss on embeddings sees of them, where it wants them, and whom it pushes away.

Embeddings belong together in groups: the views of an example, the examples of a class and its
prototype. An arrangement is therefore one tensor of points (members, groups, D), and a `Layout`
says how a kind of loss takes it. In these terms every embedding loss can be asked the same: do the
members of a group come to one point, and do the groups go to the corners of a simplex?
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import C, N, Subject
from lossbook.representation import frame_distance, simplex

Arguments = tuple[tuple[Tensor, ...], Tensor | None, dict[str, Tensor]]

EXACT = 1e-9  # by how much, relative to 1 + |value|, two equal values may differ through rounding
REACHED = 1e-5  # share of the way from the starts to the best value that one as good may lack
TOGETHER = 1e-3  # spread of unit vectors around their mean up to which they are at one point
NEAR = 0.05  # distance of Gram matrices, between 0 and 2, up to which points look like a simplex
STARTS = 5
NOTHING = 1e-9  # of the gradient on the anchor: up to this a force is rounding
RADII = (3.0, 0.9)  # of the ball searched where length matters: hyperbolic ones end at 1 / sqrt(c)


class Layout(NamedTuple):
    """How a kind of loss takes points (members, groups, D).

    ``embeddings`` counts the leading inputs that are embeddings; ``group`` is what a group is
    called; ``arguments`` gives inputs, target and keyword arguments. Groups of different clusters,
    if there are several, are no negatives of each other: group i is in cluster i modulo their
    number.
    """

    embeddings: int
    group: str
    members: int
    groups: int
    arguments: Callable[[Tensor], Arguments]
    clusters: int = 1


def _flat(points: Tensor) -> Tensor:
    return points.flatten(0, 1)


def _labels(points: Tensor) -> Tensor:
    """The number of the group for each row of the flattened points."""
    return torch.arange(points.shape[1]).repeat(len(points))


def _clustered(points: Tensor, clusters: int) -> Arguments:
    return (points[0], points[1]), torch.arange(points.shape[1]) % clusters, {}


def _without_self(memory: Tensor) -> Tensor:
    """For each row all the others, (N, N - 1, D)."""
    return torch.stack([torch.cat([memory[:i], memory[i + 1 :]]) for i in range(len(memory))])


def _traits(points: Tensor) -> Arguments:
    """Traits of zero: one temperature for all pairs."""
    return (points[0], points[1], *torch.zeros_like(points)), None, {}


def _with_logits(points: Tensor) -> Arguments:
    logits = points.new_zeros(points.shape[1], C)
    return (points[0], points[1], logits), torch.zeros(points.shape[1], dtype=torch.long), {}


LAYOUTS: dict[str, Layout] = {
    "anchor, positive": Layout(2, "pair", 2, N, lambda p: ((p[0], p[1]), None, {})),
    "anchor, positive, labels": Layout(2, "pair", 2, 6, lambda p: _clustered(p, 2), clusters=2),
    "anchor, positive, anchor_traits, positive_traits": Layout(2, "pair", 2, N, _traits),
    "anchor, positive, logits, target": Layout(2, "pair", 2, N, _with_logits),
    "points": Layout(1, "pair", 2, C, lambda p: ((_flat(p),), None, {})),
    "embeddings, labels": Layout(1, "class", 3, C, lambda p: ((_flat(p),), _labels(p), {})),
    "embeddings, target": Layout(1, "class", 3, C, lambda p: ((_flat(p),), _labels(p), {})),
    "embeddings": Layout(1, "point", 1, N, lambda p: ((p[0],), None, {})),
    "prototypes": Layout(1, "prototype", 1, N, lambda p: ((p[0],), None, {})),
    "weight": Layout(1, "filter", 1, N, lambda p: ((p[0],), None, {})),
    "real, negative": Layout(2, "side", 3, 2, lambda p: ((p[:, 0], p[:, 1]), None, {})),
}

# Prototypes that are learned are a member of their class, the last one.
WITH_PROTOTYPES = LAYOUTS["embeddings, target"]._replace(
    members=4,
    arguments=lambda p: ((_flat(p[:-1]),), _labels(p[:-1]), {"prototypes": p[-1]}),
)

# Vectors that a loss compares with, taken from the points: a teacher that has the same embeddings,
# the memory of all other examples.
COMPANIONS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "nspt_loss": lambda p: {"teacher": _flat(p)},
    "instance_nce_loss": lambda p: {"noise": _without_self(p[1])},
}
# Never trained: with prototypes at zero nothing would be left to learn.
FIXED_PROTOTYPES = {"hrr_loss"}


def layout_of(subject: Subject) -> Layout | None:
    learned = "prototypes" in subject.parameters and subject.name not in FIXED_PROTOTYPES
    if subject.kind_name == "embeddings, target" and learned:
        return WITH_PROTOTYPES
    return LAYOUTS.get(subject.kind_name)


NOT_EMBEDDINGS = Finding("not applicable", "its arguments are not embeddings")


def _called(subject: Subject, layout: Layout, points: Tensor, **options: Any) -> Tensor:
    inputs, target, more = layout.arguments(points)
    companions = COMPANIONS.get(subject.name, lambda _: {})(points)
    return subject(inputs, target, **{**more, **companions, **options})  # type: ignore[arg-type]


# --- What it sees -----------------------------------------------------------------------------


class _Draws(NamedTuple):
    """Inputs, targets and the vectors the loss compares with, in so many trials."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    companions: dict[str, Tensor]


def _draw(subject: Subject, trials: int) -> _Draws:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [subject.kind.inputs(torch.Size((N, C))) for _ in range(trials)]
        classes = C if subject.kind.classes else 2
        targets = torch.randint(0, classes, (trials, N))
    inputs = tuple(map(torch.stack, zip(*drawn, strict=True)))
    first = inputs[0][0]
    given = {**subject.extra(first), **subject.settings}
    companions = {
        name: x.to(first.dtype).expand(trials, *x.shape)
        for name, x in given.items()
        if isinstance(x, Tensor) and x.ndim >= 2 and x.shape[-1] == C
    }
    return _Draws(inputs, targets, companions)


def _values(subject: Subject, draws: _Draws) -> Tensor:
    """The mean loss in each trial."""

    def one(inputs: tuple[Tensor, ...], target: Tensor, companions: dict[str, Tensor]) -> Tensor:
        return subject(inputs, target, **companions).mean()

    try:
        return torch.func.vmap(one)(*draws)
    except (RuntimeError, ValueError):  # a reader's own loss may look at values
        trial = [
            (tuple(x[i] for x in draws.inputs), y, {k: v[i] for k, v in draws.companions.items()})
            for i, y in enumerate(draws.targets)
        ]
        return torch.stack([one(*x) for x in trial])


def _compared(
    subject: Subject, trials: int, draws: _Draws, moved: _Draws, what: str, **evidence: Tensor
) -> Finding:
    """Refuted by the trial in which two values that should be equal differ most."""
    before, after = _values(subject, draws), _values(subject, moved)
    gap = ((before - after).abs() / (1 + before.abs())).nan_to_num(nan=math.inf)
    worst = int(gap.argmax())
    if bool(gap[worst] <= EXACT):
        text = f"{what} changes the loss by {float(gap[worst]):.0e} at most"
        return Finding("not refuted", text, trials, evidence={"largest change": float(gap[worst])})
    values = float(before[worst]), float(after[worst])
    names = subject.arguments
    point = {name: x[worst].tolist() for name, x in zip(names, draws.inputs, strict=False)}
    if subject.kind.target:
        point[names[-1]] = draws.targets[worst].tolist()
    point |= {name: x[worst].tolist() for name, x in draws.companions.items()}
    point |= {name.replace("_", " "): x[worst].tolist() for name, x in evidence.items()}
    return Finding(
        "refuted",
        f"{what} takes the loss from {values[0]:.4g} to {values[1]:.4g}",
        trials,
        evidence={**point, "value before": values[0], "value after": values[1]},
    )


def _rotations(number: int, generator: torch.Generator, dimension: int = C) -> Tensor:
    """Rotations drawn uniformly, (number, D, D)."""
    square = torch.randn(number, dimension, dimension, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(square)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    q[:, :, 0] *= torch.linalg.det(q).sign()[:, None]
    return q


def rotation_invariant(subject: Subject, trials: int) -> Finding:
    r"""Turning all embeddings, and what they are compared with, by one rotation changes nothing.

    :math:`\ell(x R^\top) = \ell(x)` for :math:`R^\top R = 1, \det R = 1`. Prototypes, keys, a
    teacher and a memory are turned along. Tried with rotations drawn uniformly.
    """
    layout = layout_of(subject)
    if layout is None:
        return NOT_EMBEDDINGS
    draws = _draw(subject, trials)
    rotation = _rotations(trials, torch.Generator().manual_seed(1))

    def turned(x: Tensor) -> Tensor:
        return torch.einsum("t...d,ted->t...e", x, rotation)

    k = layout.embeddings
    moved = draws._replace(
        inputs=(*map(turned, draws.inputs[:k]), *draws.inputs[k:]),
        companions={name: turned(x) for name, x in draws.companions.items()},
    )
    return _compared(subject, trials, draws, moved, "a rotation", rotation=rotation)


def norm_invariant(subject: Subject, trials: int) -> Finding:
    r"""Making all embeddings longer or shorter by one factor changes nothing.

    :math:`\ell(t x) = \ell(x)` for :math:`t > 0`, tried with t from 1/2 to 2; prototypes and other
    vectors that the embeddings are compared with stay. The text says whether each embedding may
    have a factor of its own.
    """
    layout = layout_of(subject)
    if layout is None:
        return NOT_EMBEDDINGS
    draws = _draw(subject, trials)
    factor = _factors(torch.Generator().manual_seed(2), trials, 1, 1)
    found = _compared(
        subject, trials, draws, _stretched(draws, layout, [factor] * layout.embeddings),
        "one factor for all lengths", factor=factor.flatten(),
    )  # fmt: skip
    if found.verdict == "refuted":
        return found
    each = [
        _factors(torch.Generator().manual_seed(3 + i), trials, x.shape[1], 1)
        for i, x in enumerate(draws.inputs[: layout.embeddings])
    ]
    alone = _compared(
        subject, trials, draws, _stretched(draws, layout, each), "a factor for each embedding",
        **{f"factors of input {i + 1}": x.squeeze(-1) for i, x in enumerate(each)},
    )  # fmt: skip
    return Finding(
        found.verdict,
        f"{found.text}; {alone.text}",
        trials,
        evidence={**found.evidence, **{f"each: {k}": v for k, v in alone.evidence.items()}},
    )


def _factors(generator: torch.Generator, *shape: int) -> Tensor:
    return 2 ** (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)


def _stretched(draws: _Draws, layout: Layout, factors: list[Tensor]) -> _Draws:
    longer = (x * t for x, t in zip(draws.inputs, factors, strict=False))
    return draws._replace(inputs=(*longer, *draws.inputs[layout.embeddings :]))


def order_invariant(subject: Subject, trials: int) -> Finding:
    r"""Taking the examples of the batch in another order changes nothing.

    :math:`\ell(x_{\pi(1)}, \dots, x_{\pi(N)}) = \ell(x_1, \dots, x_N)`, with views, labels and a
    teacher in the same new order. Tried with permutations drawn uniformly.
    """
    if layout_of(subject) is None:
        return NOT_EMBEDDINGS
    draws = _draw(subject, trials)
    rows = draws.inputs[0].shape[1]
    generator = torch.Generator().manual_seed(4)
    order = torch.rand(trials, rows, generator=generator).argsort(1)

    def reordered(x: Tensor) -> Tensor:
        if x.shape[1] != rows:  # prototypes and the like belong to no example
            return x
        return x.gather(1, order.reshape(trials, rows, *[1] * (x.ndim - 2)).expand_as(x))

    moved = _Draws(
        tuple(map(reordered, draws.inputs)),
        reordered(draws.targets),
        {name: reordered(x) for name, x in draws.companions.items()},
    )
    return _compared(subject, trials, draws, moved, "another order", order=order)


# --- Where it wants them ----------------------------------------------------------------------


def minimizer(subject: Subject, trials: int) -> Finding:
    r"""Where the embeddings go when nothing but the loss moves them.

    Points in D = 4 dimensions, few enough for a simplex (5 pairs or single points, 4 classes of 3
    with their learned prototypes), are moved by L-BFGS from 5 starts: on the unit sphere where the
    loss sees only directions, else in a ball of radius 3 (0.9 if it takes no longer ones). The
    value is the distance of the groups' mean directions from the corners of a regular simplex,
    :math:`\| G / \|G\| - S / \|S\| \|_F` with G and S the Gram matrices; the evidence holds the
    points (members, groups, D), their spread within groups, and the value with all at one point and
    with a simplex.
    """
    layout = layout_of(subject)
    if layout is None:
        return NOT_EMBEDDINGS
    try:
        radius = _room(subject, layout)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        size = f"{layout.groups} {_plural(layout)} in {C} dimensions"
        return Finding("not applicable", f"it does not take {size}: {error}")
    ends = (_descended(subject, layout, radius, seed) for seed in range(min(trials, STARTS)))
    found = [end for end in ends if math.isfinite(end[1] + end[2])]
    if not found:
        return Finding("not applicable", "the descent met no finite value")
    points, value, _ = min(found, key=lambda end: end[1])
    lengths = points.norm(dim=-1)
    known = {
        name: float(_called(subject, layout, shape * lengths.mean()).mean())
        for name, shape in _known(layout).items()
    }
    best = min(value, *known.values())
    limit = best + REACHED * (max(start for *_, start in found) - best)
    directions = points / lengths[..., None].clamp(min=1e-12)
    means = directions.mean(0)
    shape = _Shape(
        together=float((directions - means.mean(0)).square().sum(-1).mean()),
        spread=float((directions - means).square().sum(-1).mean()),
        distance=max(_from_simplex(means[i :: layout.clusters]) for i in range(layout.clusters)),
    )
    text = _in_words(layout, shape, value, limit, *known.values())
    if radius is not None:
        text += f"; length {float(lengths.mean()):.2f}, at most {radius:g}"
    text += f"; reached from {sum(end <= limit for _, end, _ in found)} of {len(found)} starts"
    evidence = {
        "value": value,
        **{f"value with {name}": x for name, x in known.items()},
        "values from the starts": [end for _, end, _ in found],
        "spread of all": shape.together,
        "spread within groups": shape.spread,
        "distance from a simplex": shape.distance,
        "uniformity of one of each group": _uniformity(directions[0]),
        "lengths": [float(lengths.min()), float(lengths.max())],
        "points": points.tolist(),
    }
    return Finding("measured", text, len(found), shape.distance, evidence)


class _Shape(NamedTuple):
    """How far directions are from one point, those of a group from one, and groups from a simplex.

    The first two are mean squared distances to a mean, the last is between Gram matrices.
    """

    together: float
    spread: float
    distance: float


def _from_simplex(means: Tensor) -> float:
    some = bool((means.norm(dim=1) > TOGETHER).any())
    return float(frame_distance(means)) if some else math.sqrt(2)


def _uniformity(directions: Tensor) -> float:
    return float(torch.pdist(directions).square().mul(-2).exp().mean().log())


def _room(subject: Subject, layout: Layout) -> float | None:
    """Radius of the ball to search in; None where every point may have any length."""
    generator = torch.Generator().manual_seed(5)
    shape = layout.members, layout.groups, C
    points = 0.1 * torch.randn(3, *shape, generator=generator, dtype=torch.float64).tanh()
    longer = points * _factors(generator, *points.shape[:-1], 1)
    a, b = (torch.stack([_called(subject, layout, x).mean() for x in y]) for y in (points, longer))
    if bool(((a - b).abs() <= EXACT * (1 + a.abs())).all()):
        return None
    farthest = torch.nn.functional.normalize(points[0], dim=-1)
    for radius in RADII[:-1]:
        try:
            _called(subject, layout, radius * farthest)
        except ValueError:  # outside its ball
            continue
        return radius
    return RADII[-1]


def _descended(
    subject: Subject, layout: Layout, radius: float | None, seed: int
) -> tuple[Tensor, float, float]:
    """Points at the end of a descent, the loss there, and at its start."""
    generator = torch.Generator().manual_seed(seed)
    shape = layout.members, layout.groups, C
    free = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def placed() -> Tensor:
        squares = free.square().sum(-1, keepdim=True)
        return free * squares.rsqrt() if radius is None else radius * free * (1 + squares).rsqrt()

    def value() -> Tensor:
        search.zero_grad()
        loss = _called(subject, layout, placed()).mean()
        loss.backward()
        return loss

    search = torch.optim.LBFGS(
        [free], max_iter=150, tolerance_grad=1e-12, tolerance_change=1e-15,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip
    start = float(search.step(value).detach())
    end = placed().detach()
    return end, float(_called(subject, layout, end).mean()), start


def _known(layout: Layout) -> dict[str, Tensor]:
    """The arrangements of theory: all at one point, the groups of a cluster at a simplex."""
    point = torch.eye(C, dtype=torch.float64)[0].expand(layout.groups, C)
    corners = simplex(layout.groups // layout.clusters, dtype=torch.float64)
    corners = torch.nn.functional.pad(corners, (0, C - corners.shape[1]))
    corners = corners.repeat_interleave(layout.clusters, 0)
    return {
        name: shape.expand(layout.members, -1, -1)
        for name, shape in {"all at one point": point, "a simplex": corners}.items()
    }


def _plural(layout: Layout) -> str:
    return "classes" if layout.group == "class" else f"{layout.group}s"


def _in_words(
    layout: Layout, shape: _Shape, value: float, limit: float, one_point: float, corners: float
) -> str:
    """What the best points found resemble, given their value and those of the known arrangements.

    A value up to the limit is as good as the best.
    """
    groups = _plural(layout)
    of = f"{layout.groups} {groups}" if layout.clusters == 1 else f"{groups} of each cluster"
    numbers = f"(distance {shape.distance:.1g}"
    numbers += ")" if layout.members == 1 else f", spread {shape.spread:.1g})"
    each = "" if layout.members == 1 else f"each {layout.group} at one point, "
    if max(one_point, corners) <= limit:
        free = f"{each}anywhere" if each else "directions are free"
        return f"{free}: all at one point is as good as a simplex"
    if one_point <= limit and shape.together > TOGETHER:
        return f"all at one point, but the points found are as good (spread {shape.together:.1g})"
    if one_point <= limit:
        return f"all at one point (spread {shape.together:.1g})"
    if corners <= limit < value:
        return f"a simplex of the {of}, better than the points found {numbers}"
    if corners <= limit and max(shape.distance, shape.spread) > NEAR:
        return f"a simplex of the {of}, but the points found are as good {numbers}"
    if corners <= limit:
        return f"{each}the {of} at the corners of a simplex {numbers}"
    if shape.spread <= TOGETHER:
        return f"{each}the {of} not at the corners of a simplex {numbers}"
    return f"the points of a {layout.group} are not at one point {numbers}"


# --- Whom it pushes ---------------------------------------------------------------------------


WITHOUT_NEGATIVES = [LAYOUTS[kind] for kind in ("weight", "real, negative", "embeddings, target")]
CLUSTERED = LAYOUTS["anchor, positive, labels"]
DIMENSION = 8  # room for the anchor, its positive and four negatives in directions of their own
NO_NEGATIVES = Finding("not applicable", "it pushes no two embeddings apart")


class _Forces(NamedTuple):
    """The derivatives of the anchor's loss by its similarity to each negative."""

    pushes: Tensor
    evidence: dict[str, Any]


def _forces(subject: Subject, similarities: list[float], positive: float) -> _Forces | Finding:
    """Forces on an anchor along the first axis.

    The positive and each negative have an axis of their own besides. So the anchor's gradient along
    the axis of a negative of similarity s is :math:`\\sqrt{1 - s^2}` times the derivative by s.
    """
    layout = layout_of(subject)
    if layout is None:
        return NOT_EMBEDDINGS
    if layout in WITHOUT_NEGATIVES:
        return NO_NEGATIVES
    if layout == CLUSTERED:  # the negatives are in the anchor's cluster
        layout = layout._replace(arguments=lambda p: _clustered(p, 1))
    known = torch.tensor([positive, *similarities], dtype=torch.float64)
    axes = torch.eye(DIMENSION, dtype=torch.float64)
    across = (1 - known.square()).sqrt()
    others = known[:, None] * axes[0] + across[:, None] * axes[1 : 1 + len(known)]

    def gradient(rotation: Tensor) -> Tensor:
        anchor = (axes[0] @ rotation).requires_grad_()
        turned = others @ rotation
        first = torch.cat([anchor[None], turned[1:]])
        points = torch.stack([first, turned])[: min(layout.members, 2)]
        options = {} if subject.default_reduction is None else {"reduction": "none"}
        loss = _called(subject, layout, points, **options)
        loss = loss[0] if loss.ndim else loss  # the anchor's own, where there is one
        return torch.autograd.grad(loss, anchor)[0] @ rotation.T

    try:
        slope = gradient(axes)
        turned = gradient(_rotations(1, torch.Generator().manual_seed(6), DIMENSION)[0])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        size = f"{N} unit vectors and partners in {DIMENSION} dimensions"
        return Finding("not applicable", f"it does not take {size}: {error}")
    if bool(((slope - turned).abs() > 1e-6 * (1 + slope.abs().max())).any()):
        return Finding("not applicable", "it is no function of the embeddings' similarities")
    forces = slope[1 : 1 + len(known)] / across
    if not bool(forces[1:].max() > NOTHING * slope.abs().max()):
        return NO_NEGATIVES
    evidence: dict[str, Any] = {
        "similarities of the negatives": similarities,
        "forces on the negatives": forces[1:].tolist(),
    }
    if layout.members > 1:
        evidence |= {
            "similarity of the positive": positive,
            "pull on the positive": -float(forces[0]),
        }
    return _Forces(forces[1:], evidence)


def false_negatives(subject: Subject, trials: int) -> Finding:
    r"""How much of the push on four negatives goes to one that is as near as the positive.

    An anchor, its positive at similarity 0.8, a negative at 0.8, which is really a positive, and
    three that are orthogonal to the anchor. The value is the share of the first in :math:`\sum_j
    \max(0, f_j)`, with :math:`f_j = \partial \ell / \partial s_j` the force on negative j; an even
    share would be 1/4.
    """
    forces = _forces(subject, [0.8, 0.0, 0.0, 0.0], positive=0.8)
    if isinstance(forces, Finding):
        return forces
    pushes = forces.pushes.clamp(min=0)
    share = float(pushes[0] / pushes.sum())
    text = f"the false negative takes {share:.1%} of the push on four; an even share is 25%"
    return Finding("measured", text, 1, share, forces.evidence)


def hard_negatives(subject: Subject, trials: int) -> Finding:
    r"""How many times as hard a negative is pushed at similarity 0.8 as one at 0.2.

    An anchor, its positive at similarity 0.8, and negatives at similarities 0.8, 0.5, 0.2 and -0.1.
    The value is :math:`f(0.8) / f(0.2)` with :math:`f = \partial \ell / \partial s`. The evidence
    has all four forces, and by what factor the push as a whole changes when the positive comes from
    similarity 0.2 to 0.95: it fades where negatives and positives are coupled.
    """
    similarities = [0.8, 0.5, 0.2, -0.1]
    forces, found, lost = (_forces(subject, similarities, positive=s) for s in (0.8, 0.95, 0.2))
    if isinstance(forces, Finding):
        return forces
    hard, _, easy, _ = forces.pushes.tolist()
    evidence = dict(forces.evidence)
    if (
        "pull on the positive" in evidence
        and isinstance(found, _Forces)
        and isinstance(lost, _Forces)
    ):
        change = float(found.pushes.sum() / lost.pushes.sum())
        evidence["push with the positive at 0.95, of that at 0.2"] = change
    if min(hard, easy) > 0:
        ratio = hard / easy
        times = f"{ratio:,.0f}" if 100 < ratio < 1e6 else f"{ratio:.3g}"
        text = f"a negative at 0.8 is pushed {times} times as hard as one at 0.2"
        return Finding("measured", text, 1, ratio, evidence)
    near, far = ("pushed" if f > 0 else "pulled" if f < 0 else "left alone" for f in (hard, easy))
    text = f"a negative at 0.8 is {near}, one at 0.2 is {far}"
    return Finding("measured", text, 1, math.inf if hard > 0 else None, evidence)


PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {
    "rotation invariant": rotation_invariant,
    "norm invariant": norm_invariant,
    "order invariant": order_invariant,
    "minimizer": minimizer,
    "false negatives": false_negatives,
    "hard negatives": hard_negatives,
}
