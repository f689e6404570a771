r"""Pictures of a loss: slices through it, paths between its minima, and minima that are one.

A loss surface has a million dimensions and a page has two. Everything drawn here is a *slice*: the
loss at combinations :math:`c_1 v_1 + \dots + c_m v_m` of a few fixed points and directions in
parameter space. :func:`loss_values` computes such values, many at a time; :func:`loss_line`,
:func:`loss_surface` and :func:`loss_along` choose the combinations. What the picture shows depends
on the directions: :func:`filter_normalized_direction`, :func:`trajectory_plane`, another minimum,
a minimum permuted (:func:`weight_matching`) or the bend of a curve (:func:`train_curve`).

A point or direction is a mapping from parameter names to tensors, as :func:`snapshot` takes it from
a module. ``loss(outputs, targets)`` is the mean over a batch, ``batches`` are pairs
``(inputs, targets)``, and values are means over the *examples* of all batches.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lossbook._contract import check_float, is_concrete, require, require_shape

__all__ = [
    "Plane",
    "activation_matching",
    "curve_coefficients",
    "curve_point",
    "filter_normalize",
    "filter_normalized_direction",
    "interpolate",
    "invert",
    "learn_landscape",
    "loss_along",
    "loss_barrier",
    "loss_line",
    "loss_surface",
    "loss_values",
    "matching_score",
    "nonconvexity",
    "permute",
    "random_direction",
    "snapshot",
    "straight_through_matching",
    "train_curve",
    "trajectory_plane",
    "weight_matching",
]

Parameters = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]
Statistics = Literal["stored", "batch"]
Curve = Literal["bezier", "chain"]


# ------------------------------------------------------------------------- points and directions


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters by name, without gradient: a point in parameter space.

    Raises:
        ValueError: If the model has none.

    Pitfall: buffers, such as the running statistics of batch normalization, are no part of it.

    Example:
        >>> {name: tuple(w.shape) for name, w in snapshot(nn.Linear(3, 2)).items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    point = {name: p.detach().clone() for name, p in model.named_parameters()}
    require(len(point) > 0, "model", type(model).__name__, "a module with parameters")
    return point


def random_direction(
    parameters: Parameters, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """A direction of independent standard normal numbers, in the shapes of the parameters.

    Args:
        parameters: Names to tensors.
        generator: A CPU random stream; torch's global one if not given.

    Raises:
        ValueError: If there are no parameters.

    Pitfall: in d dimensions it has length close to the root of d, whatever the size of the weights,
    so a step of one means nothing until the direction is normalized.
    """
    _check_point("parameters", parameters)
    return {
        # Drawn on the CPU, so that a seed means the same direction on every device.
        name: torch.randn(p.shape, generator=generator, dtype=_at_least_float32(p)).to(p)
        for name, p in parameters.items()
    }


def filter_normalize(direction: Parameters, parameters: Parameters) -> dict[str, Tensor]:
    r"""Give each filter of a direction the length of the filter of the weights in its place.

    .. math:: d_{ij} \leftarrow \frac{d_{ij}}{\|d_{ij}\|} \, \|\theta_{ij}\|

    Filter j of layer i is a row of a linear layer's weight, all weights that lead to one output
    channel of a convolution: everything at one index of the first dimension. Tensors of one
    dimension, which are biases and the parameters of norm layers, get no direction at all.

    Args:
        direction: Names to tensors.
        parameters: The point that the direction starts from, of the same names and shapes.

    Raises:
        ValueError: If names or shapes differ, or there are no parameters.

    Source: ``li2017visualizing`` (and its code: one-dimensional tensors get zeros).

    Pitfall: blind to the scale of whole layers, and of filters that are normalized afterwards, but
    not of a single ReLU unit, whose outgoing weights are a column of the next layer and no filter.

    Example:
        >>> weight = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
        >>> filter_normalize({"weight": torch.ones(2, 2)}, {"weight": weight})["weight"].norm(dim=1)
        tensor([5.0000, 0.5000])
    """
    _check_point("parameters", parameters)
    _check_like("direction", direction, parameters)
    normalized = {}
    for name, weight in parameters.items():
        d = direction[name]
        if weight.ndim < 2:
            normalized[name] = torch.zeros_like(d)
            continue
        wanted, length = (
            torch.linalg.vector_norm(t.flatten(1), dim=1).reshape(-1, *[1] * (t.ndim - 1))
            for t in (weight, d)
        )
        normalized[name] = d * (wanted / length.where(length > 0, 1))
    return normalized


def filter_normalized_direction(
    parameters: Parameters, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """A random direction, normalized filter by filter; see :func:`filter_normalize`.

    Args:
        parameters: The point that the direction starts from.
        generator: A CPU random stream; torch's global one if not given.

    Raises:
        ValueError: If there are no parameters.

    Source: ``li2017visualizing``.

    Pitfall: biases and norm layers do not move along it, so two of these span no random plane
    of the whole space.
    """
    return filter_normalize(random_direction(parameters, generator), parameters)


class Plane(NamedTuple):
    """What :func:`trajectory_plane` returns.

    Attributes:
        directions: Two orthonormal directions.
        coordinates: (T, 2), the iterates' places in the plane; the last is the origin.
        explained: (2,), the share of the iterates' variance along each direction.

    Pitfall: the share explained says how much of the *path* is seen, nothing about the surface
    beside it.
    """

    directions: tuple[dict[str, Tensor], dict[str, Tensor]]
    coordinates: Tensor
    explained: Tensor


def trajectory_plane(iterates: Sequence[Parameters]) -> Plane:
    r"""The plane through the end of training that holds most of its way there.

    The directions are the first two principal components of the iterates
    :math:`\theta_1, \dots, \theta_T`, the coordinates those of :math:`\theta_t - \theta_T`. Each
    direction points to the side on which the first iterate lies.

    Args:
        iterates: At least three points of the same names and shapes, the last one the origin.

    Raises:
        ValueError: If there are fewer, their names or shapes differ, or they do not move.

    Source: ``li2017visualizing``.

    Pitfall: even a random walk in many dimensions has most of its variance in two principal
    components, and there it looks like a smooth curve. A high share is no sign of a simple way.
    """
    require(len(iterates) >= 3, "the number of iterates", len(iterates), "at least 3")
    last = iterates[-1]
    _check_point("iterates", last)
    for iterate in iterates:
        _check_like("iterates", iterate, last)
    rows = torch.stack([_flat(iterate) - _flat(last) for iterate in iterates])
    centered = rows - rows.mean(0)
    _, sizes, components = torch.linalg.svd(centered, full_matrices=False)
    if is_concrete(sizes):
        require(bool(sizes[0] > 0), "iterates", "equal points", "points that move")
    directions = components[:2]
    # The sign of a singular vector is arbitrary.
    signs = (rows[0] @ directions.T).sign()
    directions = directions * signs.where(signs != 0, 1)[:, None]
    first, second = (_shaped(direction, last) for direction in directions)
    explained = sizes[:2].square() / sizes.square().sum()
    return Plane((first, second), rows @ directions.T, explained)


def interpolate(first: Parameters, second: Parameters, t: float | Tensor) -> dict[str, Tensor]:
    r"""The point :math:`(1 - t) A + t B`; beyond the two where t lies outside of [0, 1].

    Args:
        first: A, names to tensors.
        second: B, of the same names and shapes.
        t: A number.

    Raises:
        ValueError: If names or shapes differ.

    Source: ``goodfellow2015qualitatively``.

    Pitfall: a point between two good networks need not be good: see :func:`loss_barrier`.
    """
    _check_like("second", second, first)
    return {name: (1 - t) * a + t * second[name] for name, a in first.items()}


# -------------------------------------------------------------------------------- loss at points


def loss_values(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    basis: Sequence[Parameters],
    coefficients: Tensor,
    *,
    statistics: Statistics = "stored",
    chunk: int = 16,
) -> Tensor:
    r"""The loss at many combinations of a few points and directions.

    .. math:: f(c) = L(c_1 v_1 + \dots + c_m v_m)

    One vectorized pass serves ``chunk`` combinations. The model itself is left as it is. Dropout is
    off.

    Args:
        loss: Mean over a batch of a loss of outputs and targets, a scalar; under ``vmap``.
        model: The module whose parameters are replaced.
        batches: Pairs (inputs, targets), on the device of the basis.
        basis: m points or directions :math:`v`, each with all of the model's parameters.
        coefficients: (K, m).
        statistics: How batch normalization normalizes: with the ``"stored"`` running statistics,
            as in evaluation, or with those of each ``"batch"`` at each point, as in training. The
            stored ones belong to one point: elsewhere the network they make is not one that
            training would see. Either way they are not changed.
        chunk: How many combinations at a time; memory grows with it.

    Returns:
        (K,) losses.

    Raises:
        ValueError: If batches are empty, names or shapes differ from the model's, the loss is not a
            scalar, or an argument is out of range.

    Source: ``li2017visualizing``.

    Pitfall: a mean over batches of different sizes weighs examples, not batches.
    """
    check_float(coefficients, "coefficients")
    shape = tuple(coefficients.shape)
    require(
        coefficients.ndim == 2 and shape[1] == len(basis) and shape[0] > 0,
        "the shape of coefficients", shape, f"(K, {len(basis)}) with K at least 1",
    )  # fmt: skip
    require(chunk >= 1, "chunk", chunk, "at least 1")
    batches = _checked(model, batches, basis)
    with torch.no_grad(), _mode(model, statistics):
        values = []
        for part in coefficients.split(chunk):
            stacked = _combined(basis, part)
            means = [len(x) * _values(loss, model, stacked, x, y) for x, y in batches]
            values.append(torch.stack(means).sum(0) / sum(len(x) for x, _ in batches))
    return torch.cat(values)


def loss_line(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    direction: Parameters,
    steps: Tensor,
    *,
    origin: Parameters | None = None,
    statistics: Statistics = "stored",
    chunk: int = 16,
) -> Tensor:
    r"""The loss along a line, :math:`f(a) = L(\theta + a d)`.

    Args:
        loss, model, batches, statistics, chunk: As in :func:`loss_values`.
        direction: d.
        steps: (A,) values of a.
        origin: :math:`\theta`; the model's own parameters if not given.

    Returns:
        (A,) losses.

    Raises:
        ValueError: As :func:`loss_values`.

    Source: ``li2017visualizing``.

    Pitfall: a line that rises on both sides is no evidence of a minimum: see
    :func:`nonconvexity`.
    """
    require(steps.ndim == 1, "the shape of steps", tuple(steps.shape), "(A,)")
    theta = snapshot(model) if origin is None else origin
    coefficients = torch.stack([torch.ones_like(steps), steps], 1)
    return loss_values(
        loss, model, batches, [theta, direction], coefficients, statistics=statistics, chunk=chunk
    )


def loss_surface(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    first: Parameters,
    second: Parameters,
    x: Tensor,
    y: Tensor,
    *,
    origin: Parameters | None = None,
    statistics: Statistics = "stored",
    chunk: int = 16,
) -> Tensor:
    r"""The loss on a grid in a plane, :math:`f(a, b) = L(\theta + a d_1 + b d_2)`.

    Args:
        loss, model, batches, statistics, chunk: As in :func:`loss_values`.
        first: :math:`d_1`.
        second: :math:`d_2`.
        x: (A,) values of a.
        y: (B,) values of b.
        origin: :math:`\theta`; the model's own parameters if not given.

    Returns:
        (A, B) losses, ``[i, j]`` at ``x[i], y[j]``.

    Raises:
        ValueError: As :func:`loss_values`.

    Source: ``li2017visualizing``.

    Pitfall: A B evaluations on all batches; take a few hundred examples.
    """
    for name, steps in (("x", x), ("y", y)):
        require(steps.ndim == 1, f"the shape of {name}", tuple(steps.shape), "one dimension")
    theta = snapshot(model) if origin is None else origin
    grid = torch.cartesian_prod(x, y).reshape(-1, 2)
    coefficients = torch.cat([torch.ones_like(grid[:, :1]), grid], 1)
    values = loss_values(
        loss, model, batches, [theta, first, second], coefficients,
        statistics=statistics, chunk=chunk,
    )  # fmt: skip
    return values.reshape(len(x), len(y))


def nonconvexity(values: Tensor) -> Tensor:
    r"""How much of a curve bends the wrong way: 0 for a convex one, 1 for a concave one.

    .. math:: \frac{\sum_i \max(-\Delta_i, 0)}{\sum_i |\Delta_i|}, \qquad
        \Delta_i = f_{i-1} - 2 f_i + f_{i+1}

    Args:
        values: (..., A), at A equally spaced points, at least 3.

    Returns:
        (...), in [0, 1]; 0 for a straight line.

    Raises:
        ValueError: If there are fewer points.

    Pitfall: it sees bends no narrower than the distance of the points, and it does not change when
    the values are scaled: a tiny ripple on a flat curve counts as much as a large one.

    Example:
        >>> x = torch.linspace(-1, 1, 21)
        >>> nonconvexity(torch.stack([x**2, -(x**2)]))
        tensor([0., 1.])
    """
    check_float(values, "values")
    require(values.ndim >= 1 and values.shape[-1] >= 3, "the shape of values",
            tuple(values.shape), "(..., A) with A at least 3")  # fmt: skip
    bends = values.diff(n=2, dim=-1)
    total = bends.abs().sum(-1)
    return (-bends).clamp(min=0).sum(-1) / total.where(total > 0, 1)


# ------------------------------------------------------------------------- between two minima


def loss_barrier(values: Tensor, t: Tensor | None = None) -> Tensor:
    r"""How high the loss rises above the chord between the ends of a path.

    .. math:: \max_{t \in [0, 1]} f(t) - \bigl[ (1 - t) f(0) + t f(1) \bigr]

    It is zero if the path is convex, and where both ends are equally good it is the rise above
    them.

    Args:
        values: (..., T), the loss along the path, at least at three points.
        t: (T,) places from 0 to 1, increasing; equally spaced if not given.

    Returns:
        (...), at least 0.

    Raises:
        ValueError: If the shapes do not fit or t does not run from 0 to 1.

    Source: ``ainsworth2022git``, ``entezari2022role``.

    Pitfall: the largest of the values given; a narrow ridge between two of them is missed.

    Example:
        >>> loss_barrier(torch.tensor([1.0, 4.0, 3.0]))
        tensor(2.)
    """
    check_float(values, "values")
    require(values.ndim >= 1 and values.shape[-1] >= 3, "the shape of values",
            tuple(values.shape), "(..., T) with T at least 3")  # fmt: skip
    if t is None:
        t = torch.linspace(0, 1, values.shape[-1], dtype=values.dtype, device=values.device)
    require_shape(t, values.shape[-1:], "t")
    if is_concrete(t):
        inside = bool(t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all())
        require(inside, "t", t.tolist(), "increasing from 0 to 1")
    chord = (1 - t) * values[..., :1] + t * values[..., -1:]
    return (values - chord).amax(-1)


def curve_coefficients(t: Tensor, points: int, *, curve: Curve = "bezier") -> Tensor:
    r"""The weights of a curve's control points at t.

    A ``"bezier"`` curve of degree n passes through its first and last point only,
    :math:`\phi(t) = \sum_k \binom nk (1 - t)^{n - k} t^k \, v_k`; a ``"chain"`` of n segments
    passes through all of them. With two points both are the straight line.

    Args:
        t: (T,) places in [0, 1].
        points: n + 1, at least 2.
        curve: ``"bezier"`` or ``"chain"``.

    Returns:
        (T, n + 1), each row of sum 1 and none of the weights negative.

    Raises:
        ValueError: If t leaves [0, 1], there are too few points or the curve is unknown.

    Source: ``garipov2018loss``.

    Pitfall: a Bezier curve does not pass through its inner control points.

    Example:
        >>> curve_coefficients(torch.tensor([0.0, 0.5, 1.0]), 3)
        tensor([[1.0000, 0.0000, 0.0000],
                [0.2500, 0.5000, 0.2500],
                [0.0000, 0.0000, 1.0000]])
    """
    check_float(t, "t")
    require(t.ndim == 1, "the shape of t", tuple(t.shape), "(T,)")
    require(points >= 2, "points", points, "at least 2")
    require(curve in ("bezier", "chain"), "curve", curve, "'bezier' or 'chain'")
    if is_concrete(t):
        require(bool(((t >= 0) & (t <= 1)).all()), "t", t.tolist(), "in [0, 1]")
    n = points - 1
    k = torch.arange(points, dtype=t.dtype, device=t.device)
    t = t[:, None]
    if curve == "chain":
        return (1 - (n * t - k).abs()).clamp(min=0)
    ways = torch.tensor([math.comb(n, i) for i in range(points)], dtype=t.dtype, device=t.device)
    return ways * (1 - t) ** (n - k) * t**k


def curve_point(
    points: Sequence[Parameters], t: float, *, curve: Curve = "bezier"
) -> dict[str, Tensor]:
    """The point of a curve at t, see :func:`curve_coefficients`.

    Args:
        points: The control points, at least two.
        t: In [0, 1].
        curve: ``"bezier"`` or ``"chain"``.

    Raises:
        ValueError: If t leaves [0, 1] or names or shapes differ.

    Source: ``garipov2018loss``.

    Pitfall: equal steps of t are not equal lengths along the curve.
    """
    for point in points:
        _check_like("points", point, points[0])
    place = torch.tensor([t], dtype=torch.float64)
    weights = curve_coefficients(place, len(points), curve=curve)
    return {name: value[0] for name, value in _combined(points, weights).items()}


def loss_along(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    points: Sequence[Parameters],
    t: Tensor,
    *,
    curve: Curve = "bezier",
    statistics: Statistics = "stored",
    chunk: int = 16,
) -> Tensor:
    """The loss along a curve, with two points along the straight line between them.

    Its mean over uniform t is what :func:`train_curve` makes small, its maximum the height of the
    pass, and :func:`loss_barrier` takes its values.

    Args:
        loss, model, batches, statistics, chunk: As in :func:`loss_values`.
        points: The control points, at least two.
        t: (T,) places in [0, 1].
        curve: ``"bezier"`` or ``"chain"``.

    Returns:
        (T,) losses.

    Raises:
        ValueError: As :func:`loss_values` and :func:`curve_coefficients`.

    Source: ``garipov2018loss``.

    Pitfall: a maximum between two values of t is not seen; take them close enough.
    """
    weights = curve_coefficients(t, len(points), curve=curve)
    return loss_values(loss, model, batches, points, weights, statistics=statistics, chunk=chunk)


def train_curve(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    first: Parameters,
    second: Parameters,
    *,
    bends: int = 1,
    curve: Curve = "bezier",
    steps: int = 200,
    learning_rate: float = 1e-2,
    samples: int = 4,
    statistics: Statistics = "stored",
    generator: torch.Generator | None = None,
) -> list[dict[str, Tensor]]:
    r"""A curve of low loss between two minima: mode connectivity.

    The ends stay, the control points between them move to make the expected loss on the curve small,

    .. math:: \min_\phi \; \mathbb{E}_{t \sim U(0, 1)} \, L(\phi(t)) ,

    by Adam, each step on one batch at a few random t. They start evenly on the straight line.

    Args:
        loss, model, statistics: As in :func:`loss_values`.
        batches: Used in turn, one a step.
        first: Where the curve begins.
        second: Where it ends.
        bends: How many control points between, at least 1.
        curve: ``"bezier"`` or ``"chain"``.
        steps: Number of updates.
        learning_rate: Of Adam.
        samples: Values of t in a step.
        generator: A CPU random stream; torch's global one if not given.

    Returns:
        The control points, ends included, for :func:`loss_along` and :func:`curve_point`.

    Raises:
        ValueError: As :func:`loss_values`, and if a number is below 1.

    Source: ``garipov2018loss``.

    Pitfall: the expectation is over t, not over length: where the curve is slow it counts more.
    """
    for name, number in {"bends": bends, "steps": steps, "samples": samples}.items():
        require(number >= 1, name, number, "at least 1")
    require(learning_rate > 0, "learning_rate", learning_rate, "positive")
    batches = _checked(model, batches, [first, second])
    points = bends + 2
    middle = [interpolate(first, second, k / (bends + 1)) for k in range(1, bends + 1)]
    free = [{n: p.detach().clone().requires_grad_() for n, p in point.items()} for point in middle]
    optimizer = torch.optim.Adam([p for point in free for p in point.values()], learning_rate)
    with _mode(model, statistics):
        for step in range(steps):
            t = torch.rand(samples, generator=generator, dtype=torch.float64)
            weights = curve_coefficients(t, points, curve=curve)
            stacked = _combined([first, *free, second], weights)
            value = _values(loss, model, stacked, *batches[step % len(batches)]).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    ends = [{n: p.detach().clone() for n, p in end.items()} for end in (first, second)]
    return [ends[0], *({n: p.detach() for n, p in point.items()} for point in free), ends[1]]


# ------------------------------------------------------------------- minima modulo permutations


def permute(parameters: Parameters, permutations: Sequence[Tensor]) -> dict[str, Tensor]:
    r"""The same multilayer perceptron with its hidden units in another order.

    .. math:: W_l \leftarrow P_l W_l P_{l-1}^\top, \qquad b_l \leftarrow P_l b_l

    Args:
        parameters: Of a perceptron of at least one hidden layer: matrices (out, in) in the order of
            the layers, and biases, or none.
        permutations: One for each hidden layer, int64 (width,): new unit i is old unit ``p[i]``.

    Raises:
        ValueError: If these are not the parameters of a perceptron, or not permutations that fit.

    Source: ``ainsworth2022git``.

    Pitfall: names do not tell a plain perceptron from one with skip connections, which ties the
    orders of all its layers: there the result is another function.
    """
    layers = _layers("parameters", parameters)
    _check_permutations(permutations, _widths(parameters, layers))
    return _permuted(parameters, layers, permutations)


def matching_score(first: Parameters, second: Parameters, permutations: Sequence[Tensor]) -> Tensor:
    r"""How well the units of two perceptrons match: what :func:`weight_matching` makes large.

    .. math:: \sum_l \langle W_l^A, \; P_l W_l^B P_{l-1}^\top \rangle + \langle b_l^A, P_l b_l^B \rangle

    Since a permutation changes no length, the largest score is the smallest distance between the
    two in parameter space.

    Args:
        first: A.
        second: B, of the same shapes, whose units are permuted.
        permutations: One for each hidden layer.

    Raises:
        ValueError: As :func:`permute`.

    Source: ``ainsworth2022git``.

    Pitfall: it compares weights, not functions, and grows with their size: compare permutations
    of the same two networks only.
    """
    _check_like("second", second, first)
    moved = permute(second, permutations)
    return torch.stack([(first[name] * moved[name]).sum() for name in first]).sum()


def weight_matching(
    first: Parameters,
    second: Parameters,
    *,
    start: Sequence[Tensor] | None = None,
    sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    r"""Permutations of B's hidden units that bring its weights near A's.

    One layer at a time, the others held: the best :math:`P_l` solves a linear assignment problem
    with the gains

    .. math:: W_l^A P_{l-1} W_l^{B\top} + b_l^A b_l^{B\top} + W_{l+1}^{A\top} P_{l+1} W_{l+1}^B .

    Sweeps over the layers in random order go on until none improves. :func:`matching_score` never
    falls, and with one hidden layer the result is the best there is; with more, a local optimum.
    Needs scipy.

    Args:
        first: A, the parameters of a perceptron, see :func:`permute`.
        second: B, of the same shapes.
        start: Where to begin; with all units as they are if not given.
        sweeps: At most so many.
        generator: A CPU random stream for the order of the layers; torch's global one if not given.

    Returns:
        One permutation for each hidden layer, for :func:`permute`.

    Raises:
        ValueError: If these are not two perceptrons of the same shape, or sweeps is below 1.

    Source: ``ainsworth2022git``.

    Pitfall: ReLU networks have more symmetries than these: a unit's incoming weights can grow as its
    outgoing ones shrink. Two such copies do not match in weights although they are the same.
    """
    layers = _layers("first", first)
    _check_like("second", second, first)
    require(sweeps >= 1, "sweeps", sweeps, "at least 1")
    a, b = ({n: p.detach().cpu().double() for n, p in side.items()} for side in (first, second))
    widths = _widths(a, layers)
    if start is not None:
        _check_permutations(start, widths)
    order = [torch.arange(width) for width in widths] if start is None else [p.cpu() for p in start]
    for _ in range(sweeps):
        improved = False
        for layer in torch.randperm(len(widths), generator=generator).tolist():
            (weight, bias), (outgoing, _) = layers[layer], layers[layer + 1]
            incoming = b[weight] if layer == 0 else b[weight][:, order[layer - 1]]
            onward = b[outgoing]
            if layer + 1 < len(widths):
                onward = onward[order[layer + 1]]
            gains = a[weight] @ incoming.T + a[outgoing].T @ onward
            if bias:
                gains = gains + torch.outer(a[bias], b[bias])
            best = _assignment(gains)
            units = torch.arange(widths[layer])
            change = gains[units, best].sum() - gains[units, order[layer]].sum()
            if change > 1e-12 * gains.abs().sum():  # a tie must not look like progress
                order[layer], improved = best, True
        if not improved:
            break
    return order


def activation_matching(
    model: nn.Module, first: Parameters, second: Parameters, inputs: Tensor
) -> list[Tensor]:
    r"""Permutations of B's hidden units that bring what they answer near what A's answer.

    .. math:: P_l = \arg\max_P \; \langle P, \; Z_l^A Z_l^{B\top} \rangle

    where :math:`Z_l` are the activations of hidden layer l after its nonlinearity, units by
    examples. Every layer is matched by itself, exactly. Needs scipy.

    Args:
        model: A perceptron that calls its linear layers in order, such as a sequence of them.
        first: A, its parameters.
        second: B, of the same shapes.
        inputs: (N, ...), examples.

    Returns:
        One permutation for each hidden layer, for :func:`permute`.

    Raises:
        ValueError: If there are no inputs, or these are not two perceptrons of the same shape.

    Source: ``ainsworth2022git``.

    Pitfall: inner products, not correlations: units that answer strongly decide first.
    """
    require(len(inputs) > 0, "inputs", tuple(inputs.shape), "at least one example")
    _layers("first", first)
    _check_like("second", second, first)
    with torch.no_grad():
        pairs = zip(*(_hidden(model, side, inputs) for side in (first, second)), strict=True)
        return [_assignment((a.T @ b).cpu().double()) for a, b in pairs]


def straight_through_matching(
    loss: Loss,
    model: nn.Module,
    batches: Batches,
    first: Parameters,
    second: Parameters,
    *,
    steps: int = 100,
    learning_rate: float = 1e-2,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    r"""Permutations of B's hidden units for which the loss halfway to A is low.

    A permutation has no gradient, so free weights :math:`\tilde\theta`, which start at A, stand in
    for the permuted B. Each step matches B to them by :func:`weight_matching`, measures the loss of
    one batch halfway between A and the matched B, and moves :math:`\tilde\theta` along that
    gradient as if the matching were not there. The best seen on any batch is kept. Needs scipy.

    Args:
        loss, model, batches: As in :func:`loss_values`; batches are used in turn.
        first: A.
        second: B.
        steps: Number of updates.
        learning_rate: Of gradient descent with momentum 0.9.
        generator: A CPU random stream for the order of the layers.

    Returns:
        One permutation for each hidden layer, for :func:`permute`.

    Raises:
        ValueError: As :func:`loss_values` and :func:`weight_matching`.

    Source: ``ainsworth2022git`` (read in its code).

    Pitfall: hundreds of times as dear as weight matching, as it solves that anew in every step.
    """
    require(steps >= 1, "steps", steps, "at least 1")
    _layers("first", first)
    batches = _checked(model, batches, [first, second])
    free = {name: p.detach().clone().requires_grad_() for name, p in first.items()}
    optimizer = torch.optim.SGD(free.values(), lr=learning_rate, momentum=0.9)
    best, lowest = None, math.inf
    order: list[Tensor] | None = None
    with _mode(model, "stored"):
        for step in range(steps):
            order = weight_matching(free, second, start=order, generator=generator)
            matched = permute(second, order)
            # The value of the matched weights, the gradient of the free ones.
            through = {n: matched[n] + (p - p.detach()) for n, p in free.items()}
            halfway = {n: p[None] for n, p in interpolate(first, through, 0.5).items()}
            value = _values(loss, model, halfway, *batches[step % len(batches)])[0]
            if float(value.detach()) < lowest:
                best, lowest = order, float(value.detach())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    if best is None:
        raise FloatingPointError("loss is not finite halfway between the two networks")
    return best


# --------------------------------------------------------------------------- a learned landscape


def invert(
    loss: Loss,
    targets: Tensor,
    start: Tensor,
    *,
    mapping: Callable[[Tensor], Tensor] | None = None,
    steps: int = 50,
    learning_rate: float = 0.1,
) -> Tensor:
    r"""Search inputs that a frozen model maps to the targets, by gradient descent.

    .. math:: \zeta_{k+1} = \zeta_k - \eta \, \nabla_\zeta \, \ell(m(\zeta_k), y)

    Every target has a search of its own; all run at once.

    Args:
        loss: ``loss(z, targets)`` compares what the frozen model makes of z (N, D) with the
            targets, one number for each, (N,).
        targets: (N, ...).
        start: (D,), or (N, D), where the searches begin.
        mapping: m, from the space of the search to that of z; the identity if not given.
        steps: How many.
        learning_rate: :math:`\eta`.

    Returns:
        (steps + 1, N, D), the way of each search, beginning included.

    Raises:
        ValueError: If there are no targets, shapes do not fit, or an argument is out of range.

    Source: ``liu2022landscape``.

    Pitfall: descent finds an input that fits, not the one that made the targets.
    """
    require(len(targets) > 0, "targets", tuple(targets.shape), "at least one target")
    require(steps >= 1, "steps", steps, "at least 1")
    require(learning_rate > 0, "learning_rate", learning_rate, "positive")
    check_float(start, "start")
    shape = (len(targets), start.shape[-1] if start.ndim else 0)
    fits = start.ndim == 1 or tuple(start.shape) == shape
    require(fits, "the shape of start", tuple(start.shape), f"(D,) or ({len(targets)}, D)")
    zeta = start.detach().expand(shape)
    way = [zeta]
    for _ in range(steps):
        leaf = zeta.detach().requires_grad_()
        with torch.enable_grad():
            each = loss(leaf if mapping is None else mapping(leaf), targets)
        require_shape(each, shape[:1], "loss")
        (slope,) = torch.autograd.grad(each.sum(), leaf)
        zeta = leaf.detach() - learning_rate * slope
        way.append(zeta)
    return torch.stack(way)


def learn_landscape(
    mapping: nn.Module,
    loss: Loss,
    targets: Tensor,
    start: Tensor,
    *,
    rounds: int = 100,
    steps: int = 20,
    learning_rate: float = 0.1,
    batch_size: int = 32,
    memory: int = 8,
    updates: int = 8,
    mapping_rate: float = 1e-2,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""Learn a space in which gradient descent inverts a frozen model quickly.

    Two things alternate: searches :math:`\zeta_0, \dots, \zeta_K` for random targets by
    :func:`invert` with the mapping held, whose ways are kept, and updates of the mapping m that
    lower the loss *everywhere on the ways kept*,

    .. math:: \min_m \; \sum_{(\zeta, y)} \sum_k \ell(m(\zeta_k), y) .

    Where a way was long and the loss high, the mapping learns to be further along.

    Args:
        mapping: m, a module from (N, D) to what the loss takes; a trained copy is returned.
        loss: As in :func:`invert`.
        targets: (N, ...), training targets.
        start: (D,), where all searches begin.
        rounds: How often the two alternate.
        steps, learning_rate: Of a search.
        batch_size: Targets in a round.
        memory: How many rounds' ways are kept.
        updates: Updates of the mapping in a round, each on the ways of a random kept round.
        mapping_rate: Adam's learning rate for the mapping.
        generator: A CPU random stream.

    Returns:
        The trained mapping.

    Raises:
        ValueError: As :func:`invert`; if the mapping has no parameters or a number is below 1.

    Source: ``liu2022landscape``; alternation and the loss over whole ways are the authors'
    description, the replay of earlier rounds is from a summary of it, sizes are ours.

    Pitfall: one start for all targets can make the mapping lazy: it is good near the ways it saw and
    nothing is promised elsewhere.
    """
    numbers = {"rounds": rounds, "batch_size": batch_size, "memory": memory, "updates": updates}
    for name, number in numbers.items():
        require(number >= 1, name, number, "at least 1")
    require(len(targets) > 0, "targets", tuple(targets.shape), "at least one target")
    require(start.ndim == 1, "the shape of start", tuple(start.shape), "(D,)")
    snapshot(mapping)  # has parameters
    mapping = copy.deepcopy(mapping)
    optimizer = torch.optim.Adam(mapping.parameters(), mapping_rate)
    kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
    for _ in range(rounds):
        chosen = torch.randperm(len(targets), generator=generator)[:batch_size]
        some = targets[chosen.to(targets.device)]
        way = invert(loss, some, start, mapping=mapping, steps=steps, learning_rate=learning_rate)
        kept.append((way.flatten(0, 1), some.repeat(len(way), *[1] * (some.ndim - 1))))
        for _ in range(updates):
            zeta, goals = kept[int(torch.randint(len(kept), (), generator=generator))]
            value = loss(mapping(zeta), goals).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return mapping


# ------------------------------------------------------------------------------------- the parts


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _flat(point: Parameters) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in point.values()])


def _shaped(vector: Tensor, like: Parameters) -> dict[str, Tensor]:
    parts = vector.split([p.numel() for p in like.values()])
    return {n: part.view(p.shape) for (n, p), part in zip(like.items(), parts, strict=True)}


def _combined(basis: Sequence[Parameters], coefficients: Tensor) -> dict[str, Tensor]:
    """(K, ...) parameters: a combination of the basis for each row of coefficients (K, m)."""
    combined = {}
    for name, first in basis[0].items():
        stacked = torch.stack([vector[name] for vector in basis])
        combined[name] = torch.tensordot(coefficients.to(first), stacked, 1)
    return combined


def _values(
    loss: Loss, model: nn.Module, stacked: Parameters, inputs: Tensor, targets: Tensor
) -> Tensor:
    """(K,) losses of one batch at K stacked points."""
    number = len(next(iter(stacked.values())))
    # Copies, each point its own: batch normalization writes into its statistics.
    buffers = {
        name: buffer.detach().expand(number, *buffer.shape).clone()
        for name, buffer in model.named_buffers()
    }

    def one(parameters: Parameters, own: Parameters) -> Tensor:
        outputs = functional_call(model, ({**parameters}, {**own}), (inputs,))
        return loss(outputs, targets)

    values = vmap(one)(stacked, buffers)
    require(values.ndim == 1, "loss", f"shape {tuple(values.shape[1:])} per batch", "a scalar")
    return values


def _checked(
    model: nn.Module, batches: Batches, basis: Sequence[Parameters]
) -> list[tuple[Tensor, Tensor]]:
    """The batches as a list, after a check of all that a picture is made from."""
    own = snapshot(model)
    require(len(basis) >= 1, "basis", [], "at least one point")
    for point in basis:
        _check_like("a point or direction", point, own)
    batches = list(batches)
    require(len(batches) > 0, "batches", [], "at least one batch")
    for inputs, _ in batches:
        require(len(inputs) > 0, "a batch", tuple(inputs.shape), "at least one example")
    return batches


@contextmanager
def _mode(model: nn.Module, statistics: str) -> Iterator[None]:
    """Evaluation mode meanwhile; batch normalization by each batch if asked."""
    require(statistics in ("stored", "batch"), "statistics", statistics, "'stored' or 'batch'")
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for module in model.modules():
            if statistics == "batch" and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _check_point(name: str, point: Parameters) -> None:
    require(len(point) > 0, name, {}, "at least one tensor")


def _check_like(name: str, point: Parameters, like: Parameters) -> None:
    if point.keys() != like.keys():
        raise ValueError(f"{name} must have the tensors {sorted(like)}, got {sorted(point)}")
    for key, tensor in like.items():
        require_shape(point[key], tensor.shape, f"{name} [{key!r}]")


def _layers(name: str, parameters: Parameters) -> list[tuple[str, str | None]]:
    """The names of each layer's weight and bias, for a perceptron with a hidden layer."""
    weights = [n for n, tensor in parameters.items() if tensor.ndim == 2]
    layers: list[tuple[str, str | None]] = []
    for weight in weights:
        bias = weight.removesuffix("weight") + "bias"
        fits = bias in parameters and parameters[bias].shape == parameters[weight].shape[:1]
        layers.append((weight, bias if fits else None))
    found = {n for layer in layers for n in layer if n}
    chain = all(
        parameters[before].shape[0] == parameters[after].shape[1]
        for before, after in pairwise(weights)
    )
    if len(layers) < 2 or found != set(parameters) or not chain:
        shapes = {n: tuple(tensor.shape) for n, tensor in parameters.items()}
        raise ValueError(
            f"{name} must be those of a multilayer perceptron with a hidden layer: matrices "
            f"(out, in) and biases in order; got {shapes}"
        )
    return layers


def _widths(parameters: Parameters, layers: list[tuple[str, str | None]]) -> list[int]:
    return [len(parameters[weight]) for weight, _ in layers[:-1]]


def _check_permutations(permutations: Sequence[Tensor], widths: list[int]) -> None:
    sizes = [tuple(p.shape) for p in permutations]
    fits = sizes == [(width,) for width in widths]
    require(fits, "the shapes of permutations", sizes, f"{[(width,) for width in widths]}")
    for p in permutations:
        valid = p.dtype == torch.int64
        if valid and is_concrete(p):
            valid = torch.equal(p.sort().values, torch.arange(len(p)))
        require(valid, "permutations", p.tolist(), "each number from 0 to width - 1 once, int64")


def _permuted(
    parameters: Parameters, layers: list[tuple[str, str | None]], permutations: Sequence[Tensor]
) -> dict[str, Tensor]:
    moved = dict(parameters)
    for layer, (weight, bias) in enumerate(layers):
        if layer > 0:
            moved[weight] = moved[weight][:, permutations[layer - 1].to(moved[weight].device)]
        if layer < len(permutations):
            order = permutations[layer].to(moved[weight].device)
            moved[weight] = moved[weight][order]
            if bias:
                moved[bias] = moved[bias][order]
    return moved


def _assignment(gains: Tensor) -> Tensor:
    """The permutation p with the largest sum of gains[i, p[i]]."""
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(gains.numpy(), maximize=True)[1]).long()


def _hidden(model: nn.Module, parameters: Parameters, inputs: Tensor) -> list[Tensor]:
    """(N, width) activations of each hidden layer: what every linear layer but the first is given."""
    given: list[Tensor] = []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [
        module.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
        for module in linear[1:]
    ]
    try:
        with _mode(model, "stored"):
            functional_call(model, dict(parameters), (inputs,))
    finally:
        for hook in hooks:
            hook.remove()
    widths = [tensor.shape[-1] for tensor in given]
    expected = [len(p) for p in parameters.values() if p.ndim == 2][:-1]
    require(widths == expected, "model", widths, f"a perceptron with hidden layers of {expected}")
    return given
