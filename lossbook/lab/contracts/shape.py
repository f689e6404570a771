"""The shape of a loss as a function of its inputs: bounds, convexity, slopes and curvatures.

A loss of single examples is examined as a function of the inputs of one example, any other as a
function of all inputs of a small batch. Points are ordinary inputs of the loss's kind, multiplied
by powers of ten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import Subject
from lossbook.lab.contracts.search import (
    SEED,
    Landscape,
    descend,
    landscape,
    numbers,
    once,
    sparing,
)

# What ordinary inputs are multiplied by.
SCALES = [10.0**power for power in range(-4, 5)]
# Growth from decade to decade that falls by more than this factor may come to an end.
STEADY = 0.9
# Differences below this, relative to the numbers compared, may be rounding.
ROUNDING = 1e-9
# An extreme closer to zero than this is zero.
SMALL = 1e-12
# A constant above this is none in practice: losses that would overflow go on along their tangent.
CONSTANT = 1e12
# How often a segment is halved: a thousandfold for a first look, then a thousandfold again.
HALVINGS = 10
# From how many points extremes are sought, and how many second derivatives are taken at most.
DESCENTS, ENTRIES = 32, 150_000
# How many rays are tried for the scales at which a loss takes its inputs, and how many points at
# most for one that it accepts.
TRIED, SEARCHED = 10, 1000


# Between the powers of ten, how many points a ray that seems to run off is looked at again, and how
# many such rays.
STEPS, CANDIDATES = 31, 5
# A function of points (M, D) and labels (M,) to numbers (M,).
Size = Callable[[Tensor, Tensor], Tensor]


# --- Rays -------------------------------------------------------------------------------------


class Rays(NamedTuple):
    """Points along rays, from zero through ordinary points, or from these.

    The latter go in the direction of some coordinates, chosen at random, of another point.
    """

    land: Landscape
    scales: list[float]
    start: Tensor  # (T, D)
    direction: Tensor  # (T, D)
    points: Tensor  # (S, T, D), start + scale * direction
    labels: Tensor  # (S, T)
    values: Tensor  # (S, T)
    slopes: Tensor  # (S, T), norms of the gradient


@once
def rays(subject: Subject, trials: int) -> Rays:
    """Values and slopes along one ray for each trial."""
    land = landscape(subject, trials)
    generator = torch.Generator().manual_seed(SEED)
    odd = (torch.arange(trials) % 2 == 1).unsqueeze(1)
    chosen = torch.rand(land.points.shape, generator=generator) < 0.5
    start = torch.where(odd, land.points, 0)
    direction = torch.where(odd, land.points.roll(1, 0) * chosen, land.points)
    some = range(min(trials, TRIED))
    scales = [s for s in SCALES if all(land.admits(start[i] + s * direction[i]) for i in some)]
    if 1.0 not in scales:
        raise ValueError(f"{subject.name} has no value at ordinary inputs of its kind")
    points = start + torch.tensor(scales, dtype=start.dtype).reshape(-1, 1, 1) * direction
    labels = land.labels.expand(points.shape[:2])
    flat = points.flatten(0, 1), labels.flatten()
    values = land.height(*flat).reshape(labels.shape)
    slopes = lengths(land.slope(*flat)).reshape(labels.shape)
    return Rays(land, scales, start, direction, points, labels, values, slopes)


def lengths(vectors: Tensor) -> Tensor:
    """Norms of the rows, also of those whose squares would overflow."""
    top = vectors.abs().amax(1).clamp(min=torch.finfo(vectors.dtype).tiny)
    return top * (vectors / top.unsqueeze(1)).norm(dim=1)


def runs_off(found: Rays, values: Tensor, size: Size) -> tuple[int, bool] | None:
    """The ray on which values (S, T) of a size grow without end, and whether outward.

    They grow by no less from decade to decade over the last three, and nowhere fall between: else
    of many values that go up and down some would seem to grow.
    """
    for outward in (True, False):
        if len(found.scales) < 4 or (SCALES[-1] if outward else SCALES[0]) not in found.scales:
            continue  # the inputs have an end before
        last = (values if outward else values.flip(0))[-4:]
        step = last.diff(dim=0)
        steady = (step[1:] >= STEADY * step[:-1]).all(0) & (step[0] > 0)
        noticed = step[-1] > 1e-6 * (1 + last[-1].abs())
        endless = (steady & noticed) | (last[-1] == torch.inf)
        growth = torch.where(endless, last[-1], -torch.inf)
        scales = torch.logspace(1, 4, STEPS, dtype=values.dtype) ** (1 if outward else -1)
        for ray in growth.argsort(descending=True)[:CANDIDATES].tolist():
            points = found.start[ray] + scales.unsqueeze(1) * found.direction[ray]
            if endless[ray]:
                between = size(points, found.land.labels[ray].repeat(STEPS)).nan_to_num(torch.inf)
                if (between[1:] >= between[:-1] - ROUNDING * between[:-1].abs()).all():
                    return ray, outward
    return None


def edge(found: Rays) -> str:
    """What to add where inputs end, as in a ball: values may run off towards the edge.

    Then a bound is no promise, only what was measured inside.
    """
    return "" if found.scales[-1] == SCALES[-1] else "; the edge of the inputs was not tried"


def along(found: Rays, ray: int, values: Tensor, what: str) -> dict[str, Any]:
    """A ray and what was found on it."""
    return {
        "ray from": numbers(found.start[ray]),
        **place(found.land, found.direction[ray], found.land.labels[ray], "direction"),
        "multiplied by": found.scales,
        what: numbers(values[:, ray]),
    }


def place(land: Landscape, point: Tensor, label: Tensor, what: str = "point") -> dict[str, Any]:
    """A point, the arguments that it consists of, and the label of a loss of single examples."""
    named = {f"{what}: {', '.join(land.names)}": numbers(point)}
    return {**named, "label": float(label)} if land.single else named


def first_admitted(land: Landscape, points: Tensor, key: Tensor) -> int | None:
    """The point that the loss accepts with the largest key (M,), if that is above zero."""
    for i in key.argsort(descending=True)[:SEARCHED].tolist():
        if key[i] <= 0:
            return None
        if land.admits(points[i]):
            return int(i)
    return None


# --- Bounds -----------------------------------------------------------------------------------


def bounded_below(subject: Subject, trials: int) -> Finding:
    """There is a number that no value of the loss is below.

    Values are followed along rays, over eight powers of ten: refuted where they fall by no less
    from one to the next, up to the last. The infimum is then sought by descent from the lowest
    points.
    """
    return _bounded(subject, trials, sign=1)


def bounded_above(subject: Subject, trials: int) -> Finding:
    """There is a number that no value of the loss is above.

    Values are followed along rays, over eight powers of ten: refuted where they rise by no less
    from one to the next, up to the last. The supremum is then sought by ascent from the highest
    points.
    """
    return _bounded(subject, trials, sign=-1)


def _bounded(subject: Subject, trials: int, sign: int) -> Finding:
    found = rays(subject, trials)
    land, values = found.land, found.values
    if end := runs_off(found, -sign * values, lambda x, y: -sign * land.height(x, y).squeeze(1)):
        ray, outward = end
        last = values[-1 if outward else 0, ray]
        return Finding(
            "refuted",
            f"{'falls' if sign > 0 else 'rises'} on to {last:.3g} "
            f"{'far out' if outward else 'towards zero'}",
            trials,
            evidence=along(found, ray, values, "values"),
        )
    low = (sign * values).nan_to_num(torch.inf).flatten()
    first = low.argsort()[:DESCENTS]
    starts, labels = found.points.flatten(0, 1)[first], found.labels.flatten()[first]
    ends, _ = descend(lambda x: sign * land.value(land.inside(x), labels), starts, steps=100)
    points, labels = torch.cat([land.inside(ends), starts]), labels.repeat(2)
    reached = sign * land.height(points, labels).squeeze(1).nan_to_num(sign * torch.inf)
    i = next((i for i in reached.argsort().tolist() if land.admits(points[i])), -1)
    value = sign * float(reached[i])
    value = value if abs(value) > SMALL else 0.0
    name = "infimum" if sign > 0 else "supremum"
    return Finding(
        "measured" if edge(found) else "not refuted",
        f"{name} found {value:.4g}{edge(found)}",
        trials,
        value,
        {**place(land, points[i], labels[i]), name: value, "scales tried": found.scales},
    )


# --- Convexity --------------------------------------------------------------------------------


def convex(subject: Subject, trials: int) -> Finding:
    """Along every segment the loss lies below its chord.

    Tried at the middles of segments, which sees kinks, and by the smallest eigenvalue of the
    Hessian at 0.1 to 10 times ordinary inputs; a point where that is negative is made the middle of
    a segment along its eigenvector. Refuted by two points whose middle has a value above the mean
    of theirs.
    """
    found = rays(subject, trials)
    land = found.land
    points, labels, spectrum, vectors = curvatures(found, low=0.1, high=10.0)
    rounding = (ROUNDING * spectrum.abs().amax(1)).clamp(min=SMALL)
    smallest = torch.where(spectrum[:, 0].abs() > rounding, spectrum[:, 0], 0)
    most = smallest.argsort()[:DESCENTS]
    eigenvalue = float(smallest[most[0]])

    # Segments: between points of one label, long, and short from each of them; along eigenvectors.
    every, partner = found.points.flatten(0, 1), land.partners.repeat(len(found.scales), 1)
    lengths = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=every.dtype).reshape(-1, 1, 1)
    along_vectors = (lengths * vectors[most, :, 0]).flatten(0, 1)
    middle = torch.cat([(every + partner) / 2, every, points[most].repeat(4, 1)])
    step = torch.cat([(every - partner) / 2, 0.1 * partner, along_vectors])
    label = torch.cat([found.labels.flatten().repeat(2), labels[most].repeat(4)])
    left, right = land.inside(middle - step), land.inside(middle + step)
    middle = (left + right) / 2
    value, *ends = (land.height(x, label).squeeze(1) for x in (middle, left, right))
    chord = (ends[0] + ends[1]) / 2
    tolerance = ROUNDING * (1 + value.abs() + ends[0].abs() + ends[1].abs())
    excess = ((value - chord) / tolerance - 1).nan_to_num(0, 0, 0)
    # What is seen best is a large excess between moderate values of moderate inputs.
    clear = (value - chord) / (1 + chord.abs()) / (1 + middle.norm(dim=1))
    clear = torch.where(excess > 0, clear, 0)
    i = first_admitted(land, torch.stack([left, right], 1), clear)
    if i is None:
        return Finding(
            "not refuted",
            f"smallest eigenvalue of the Hessian found {eigenvalue:.2g}",
            trials,
            eigenvalue,
            {"segments": float(len(middle)), "smallest eigenvalue found": eigenvalue},
        )
    return Finding(
        "refuted",
        f"{value[i]:.6g} in the middle of a segment, {chord[i]:.6g} on its chord; "
        f"smallest eigenvalue found {eigenvalue:.2g}",
        trials,
        eigenvalue,
        {
            **place(land, left[i], label[i], "one end"),
            "other end": numbers(right[i]),
            "values at the ends": [float(ends[0][i]), float(ends[1][i])],
            "value in the middle": float(value[i]),
            "value of the chord there": float(chord[i]),
            "smallest eigenvalue found": eigenvalue,
        },
    )


def curvatures(found: Rays, low: float, high: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points (M, D) at these scales, labels, eigenvalues and eigenvectors of the Hessians there."""
    scales = [i for i, scale in enumerate(found.scales) if low <= scale <= high]
    count = max(8, ENTRIES // (len(scales) * found.points.shape[2] ** 2))
    points, labels = (x[scales, :count].flatten(0, 1) for x in (found.points, found.labels))
    return points, labels, *torch.linalg.eigh(found.land.hessian(points, labels))


# --- Slopes -----------------------------------------------------------------------------------


class Jump(NamedTuple):
    """Two points of a segment that halving made short, and by how much a function differs there."""

    left: Tensor
    right: Tensor
    label: Tensor
    values: Tensor  # (2, K)
    size: float


def jump(found: Rays, function: Callable[[Tensor, Tensor], Tensor]) -> Jump | None:
    """Halves segments between points, keeping the half on which the function (M, K) changes more.

    A function with a slope changes ever less on ever shorter halves. Where the change keeps more
    than half its size while the segment gets a thousand times shorter, and a thousand times again,
    the function jumps.
    """
    land = found.land
    near = [i for i, scale in enumerate(found.scales) if 0.1 <= scale <= 10]
    left, label = found.points[near].flatten(0, 1).repeat(2, 1), found.labels[near].repeat(2, 1)
    label = label.flatten()
    right = land.partners.repeat(2 * len(near), 1)
    # Long segments meet more kinks, on short ones less changes besides.
    right[len(right) // 2 :].lerp_(left[len(right) // 2 :], 0.9)
    at_left, at_right = function(left, label), function(right, label)
    sizes = []
    for _ in range(3):
        for _ in range(HALVINGS):
            middle = (left + right) / 2
            at_middle = function(middle, label)
            first = (at_middle - at_left).norm(dim=1) >= (at_right - at_middle).norm(dim=1)
            first = first.unsqueeze(1)
            left, right = torch.where(first, left, middle), torch.where(first, middle, right)
            at_left = torch.where(first, at_left, at_middle)
            at_right = torch.where(first, at_middle, at_right)
        sizes.append((at_right - at_left).norm(dim=1))
    kept = (sizes[2] > 0.5 * sizes[1]) & (sizes[1] > 0.5 * sizes[0])
    noticed = sizes[2] > 1e-6 * (1 + at_left.norm(dim=1))
    i = first_admitted(
        land, torch.stack([left, right], 1), torch.where(kept & noticed, sizes[2], 0)
    )
    if i is None:
        return None
    values = torch.stack([at_left[i], at_right[i]])
    return Jump(left[i], right[i], label[i], values, float(sizes[2][i]))


def lipschitz(subject: Subject, trials: int) -> Finding:
    """The gradient has a largest norm.

    Norms are followed along rays, over eight powers of ten: refuted where they grow by no less from
    one to the next, up to the last, or where the value itself jumps between two points that halving
    brought together.
    """
    found = rays(subject, trials)
    if leap := jump(found, found.land.height):
        return _jumps(found, leap, "the value", trials)
    flat = found.points.flatten(0, 1), found.labels.flatten()
    norm: Size = lambda x, y: lengths(found.land.slope(x, y))  # noqa: E731
    return _growth(found, *flat, found.slopes.flatten(), norm, "norm of the gradient", trials)


def smooth(subject: Subject, trials: int) -> Finding:
    """The gradient is Lipschitz: the curvature has a largest size.

    The spectral norm of the Hessian is followed along rays, over eight powers of ten: refuted where
    it grows by no less from one to the next, up to the last, or by a kink: two points that halving
    brought together and between which the gradient jumps.
    """
    found = rays(subject, trials)
    if leap := jump(found, found.land.height):
        return _jumps(found, leap, "the value", trials)
    if leap := jump(found, found.land.slope):
        return _jumps(found, leap, "the gradient", trials)
    points, labels, spectrum, _ = curvatures(found, low=SCALES[0], high=SCALES[-1])
    size: Size = lambda x, y: lengths(found.land.hessian(x, y).flatten(1))  # noqa: E731
    return _growth(found, points, labels, spectrum.abs().amax(1), size, "curvature", trials)


def _jumps(found: Rays, leap: Jump, what: str, trials: int) -> Finding:
    distance = float((leap.right - leap.left).norm())
    return Finding(
        "refuted",
        f"{what} jumps by {leap.size:.3g} between two points {distance:.0e} apart",
        trials,
        evidence={
            **place(found.land, leap.left, leap.label),
            "other point": numbers(leap.right),
            "distance": distance,
            f"{what} at both": numbers(leap.values),
        },
    )


def _growth(
    found: Rays, points: Tensor, labels: Tensor, sizes: Tensor, size: Size, what: str, trials: int
) -> Finding:
    """Whether sizes at points on all the scales have a largest one."""
    sizes = sizes.nan_to_num(0, torch.inf)
    table = sizes.unflatten(0, (len(found.scales), -1))
    end = runs_off(found, table, size)
    if end is None and sizes.max() > CONSTANT:
        end = int(table.amax(0).argmax()), True
    if end:
        ray, outward = end
        return Finding(
            "refuted",
            f"{what} grows on to {table[:, ray].max():.3g} "
            f"{'far out' if outward else 'towards zero'}",
            trials,
            evidence=along(found, ray, table, what),
        )
    i = first_admitted(found.land, points, sizes + torch.finfo(sizes.dtype).tiny)
    largest = 0.0 if i is None else float(sizes[i])
    at = {} if i is None else place(found.land, points[i], labels[i])
    return Finding(
        "measured" if edge(found) else "not refuted",
        f"largest {what} found {largest:.4g}{edge(found)}",
        trials,
        largest,
        {**at, f"largest {what}": largest, "scales tried": found.scales},
    )


PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {
    "bounded below": sparing(bounded_below),
    "bounded above": sparing(bounded_above),
    "convex": sparing(convex),
    "Lipschitz": sparing(lipschitz),
    "smooth": sparing(smooth),
}
