"""The shape of a loss as a function of its inputs: bounds, convexity, slopes and curvatures.

A loss of single examples is examined as a function of the inputs of one example, any other as a function of
all inputs of a small batch. Points are ordinary inputs of the loss's kind, multiplied by powers of ten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import Subject
from lossbook.lab.contracts.search import (
    Landscape,
    descend,
    gradient,
    hessian,
    landscape,
    numbers,
    once,
)

# What ordinary inputs are multiplied by.
SCALES = [10.0**power for power in range(-4, 5)]
# Growth from decade to decade that falls by more than this factor may come to an end.
STEADY = 0.9
# Differences below this, relative to the numbers compared, may be rounding.
ROUNDING = 1e-9
# A constant above this is none in practice: losses that would overflow go on along their tangent.
CONSTANT = 1e12
# How often a segment is halved: a thousandfold for a first look, then a thousandfold again.
HALVINGS = 10
# From how many points the infimum and the supremum are sought, and how many second derivatives are taken.
DESCENTS, ENTRIES = 32, 400_000


# --- Rays -------------------------------------------------------------------------------------


class Rays(NamedTuple):
    """Ordinary points, multiplied by those of the scales at which the loss takes them."""

    land: Landscape
    scales: list[float]
    points: Tensor  # (S, T, D)
    values: Tensor  # (S, T)
    slopes: Tensor  # (S, T), norms of the gradient

    def each(self, function: Callable[[Tensor, Tensor], Tensor], rays: int) -> Tensor:
        """The function of points and labels on the first so many rays, (S, rays, ...)."""
        points, labels = self.points[:, :rays], self.land.labels[:rays].repeat(len(self.scales))
        result = function(points.flatten(0, 1), labels)
        return result.unflatten(0, points.shape[:2])


def slope(land: Landscape, points: Tensor, labels: Tensor) -> Tensor:
    return gradient(lambda x: land.value(x, labels), points)


@once
def rays(subject: Subject, trials: int) -> Rays:
    """Values and slopes along one ray for each trial."""
    land = landscape(subject, trials)
    scales = [s for s in SCALES if all(land.admits(s * x) for x in land.points[:10])]
    points = torch.tensor(scales, dtype=land.points.dtype).reshape(-1, 1, 1) * land.points
    bare = Rays(land, scales, points, torch.empty(0), torch.empty(0))
    slopes = bare.each(lambda x, y: slope(land, x, y).norm(dim=1), trials)
    return bare._replace(values=bare.each(land.value, trials).detach(), slopes=slopes)


def runs_off(values: Tensor, scales: list[float]) -> tuple[int, bool] | None:
    """The ray, and whether outward, on which values (S, T) grow by no less from decade to decade."""
    for outward in (True, False):
        if (SCALES[-1] if outward else SCALES[0]) not in scales:
            continue  # the inputs have an end before
        last = (values if outward else values.flip(0))[-4:]
        step = last.diff(dim=0)
        steady = (step[1:] >= STEADY * step[:-1]).all(0) & (step[0] > 0)
        noticed = step[-1] > 1e-6 * (1 + last[-1].abs())
        endless = (steady & noticed) | (last[-1] == torch.inf)
        if endless.any():
            growth = torch.where(endless, last[-1], -torch.inf)
            return int(growth.argmax()), outward
    return None


def ray_evidence(found: Rays, ray: int, values: Tensor, what: str) -> dict[str, Any]:
    return {
        **place(found.land, found.land.points[ray], int(found.land.labels[ray])),
        "multiplied by": found.scales,
        what: numbers(values[:, ray]),
    }


def place(land: Landscape, point: Tensor, label: int) -> dict[str, Any]:
    """A point by the names of its arguments."""
    return {", ".join(land.names): numbers(point), "label": float(label)}


# --- Bounds -----------------------------------------------------------------------------------


def bounded_below(subject: Subject, trials: int) -> Finding:
    """There is a number that no value of the loss is below.

    Values are followed along rays, at 1e-4 to 1e4 times ordinary inputs: refuted where they fall by no less from
    one power of ten to the next, up to the last. The infimum is then sought by descent from the lowest points.
    """
    return _bounded(subject, trials, sign=1)


def bounded_above(subject: Subject, trials: int) -> Finding:
    """There is a number that no value of the loss is above.

    Values are followed along rays, at 1e-4 to 1e4 times ordinary inputs: refuted where they rise by no less from
    one power of ten to the next, up to the last. The supremum is then sought by ascent from the highest points.
    """
    return _bounded(subject, trials, sign=-1)


def _bounded(subject: Subject, trials: int, sign: int) -> Finding:
    found = rays(subject, trials)
    land, values = found.land, found.values
    if end := runs_off(-sign * values, found.scales):
        ray, outward = end
        last = values[-1 if outward else 0, ray]
        return Finding(
            "refuted",
            f"{'falls' if sign > 0 else 'rises'} on to {last:.3g} as the inputs "
            f"{'grow' if outward else 'shrink'}",
            trials,
            evidence=ray_evidence(found, ray, values, "values"),
        )
    lowest = (sign * values).nan_to_num(torch.inf).flatten().topk(min(DESCENTS, values.numel()), largest=False)
    labels = land.labels.repeat(len(found.scales))[lowest.indices]
    starts = found.points.flatten(0, 1)[lowest.indices]
    points, least = descend(lambda x: sign * land.value(x, labels), starts, steps=100)
    for i in least.argsort().tolist():
        if least[i] < lowest.values[0] and land.admits(points[i]):
            point, label, value = points[i], labels[i], sign * least[i]
            break
    else:
        point, label, value = starts[0], labels[0], sign * lowest.values[0]
    name = "infimum" if sign > 0 else "supremum"
    return Finding(
        "not refuted",
        f"{name} found {value:.4g}",
        trials,
        float(value),
        {**place(land, point, int(label)), name: float(value), "scales tried": found.scales},
    )


# --- Convexity --------------------------------------------------------------------------------


def convex(subject: Subject, trials: int) -> Finding:
    """Along every segment the loss lies below its chord.

    Tried at the middles of segments, which sees kinks, and by the smallest eigenvalue of the Hessian; a point
    where that is negative is made the middle of a segment along its eigenvector. Refuted by two points whose
    middle has a value above the mean of theirs.
    """
    found = rays(subject, trials)
    land = found.land
    points, labels, spectrum, directions = _curvatures(found)
    smallest = spectrum[:, 0].nan_to_num(torch.inf)

    # Segments between points of one label, long and short, and along directions of negative curvature.
    classes = int(land.labels.max()) + 1
    every = found.points.flatten(0, 1)
    every_label = land.labels.repeat(len(found.scales))
    partner = land.points.roll(classes, 0).repeat(len(found.scales), 1)
    kept = every_label == land.labels.roll(classes).repeat(len(found.scales))
    steps = [0.5 * (partner - every), 0.05 * partner, 5.0 * partner]
    middles = [every + step for step in steps]
    most = smallest.argsort()[:DESCENTS]
    for length in (3.0, 1.0, 0.3, 0.1, 0.01):
        middles.append(points[most])
        steps.append(length * directions[most, :, 0])
    middle, step = torch.cat(middles), torch.cat(steps)
    label = torch.cat([every_label] * 3 + [labels[most]] * 5)
    usable = torch.cat([kept] * 3 + [torch.ones_like(most, dtype=torch.bool)] * 5)
    with torch.no_grad():
        value, left, right = (land.value(middle + s * step, label) for s in (0, -1, 1))
    excess = value - (left + right) / 2
    tolerance = ROUNDING * (1 + value.abs() + left.abs() + right.abs())
    excess = torch.where(usable & (excess > tolerance), excess, 0).nan_to_num(0, 0, 0)
    eigenvalue = float(smallest.min())
    for i in excess.argsort(descending=True)[:DESCENTS].tolist():
        ends = middle[i] - step[i], middle[i] + step[i]
        if excess[i] > 0 and all(map(land.admits, ends)):
            return Finding(
                "refuted",
                f"{value[i]:.4g} in the middle of a segment, {(left[i] + right[i]) / 2:.4g} on its chord; "
                f"smallest eigenvalue found {eigenvalue:.3g}",
                trials,
                eigenvalue,
                {
                    **place(land, middle[i], int(label[i])),
                    "one end": numbers(ends[0]),
                    "other end": numbers(ends[1]),
                    "values at the ends": [float(left[i]), float(right[i])],
                    "value in the middle": float(value[i]),
                    "smallest eigenvalue found": eigenvalue,
                },
            )
    return Finding(
        "not refuted",
        f"smallest eigenvalue of the Hessian found {eigenvalue:.2g}",
        trials,
        eigenvalue,
        {"segments": float(len(middle)), "scales tried": found.scales},
    )


def _curvatures(found: Rays) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points (M, D) on the rays, labels, and the eigenvalues and eigenvectors of the Hessians there."""
    dimension = found.points.shape[2]
    count = max(8, ENTRIES // (len(found.scales) * dimension**2))
    count = min(count, found.points.shape[1])
    points, labels = found.points[:, :count].flatten(0, 1), found.land.labels[:count]
    labels = labels.repeat(len(found.scales))
    matrices = hessian(lambda x: found.land.value(x, labels), points).nan_to_num(0, 0, 0)
    return points, labels, *torch.linalg.eigh(matrices)


# --- Slopes -----------------------------------------------------------------------------------


class Jump(NamedTuple):
    """Two points of a segment that halving made short, and by how much a function differs there."""

    left: Tensor
    right: Tensor
    label: int
    size: float
    middle: Tensor  # (M, D), where the halving of every segment stood after a first look


def _jump(found: Rays, function: Callable[[Tensor, Tensor], Tensor]) -> Jump | None:
    """Halves segments between points, keeping the half on which the function (M, K) changes more.

    A function with a slope changes ever less on ever shorter halves. Where the change keeps more than
    half its size while the segment gets a thousand times shorter, the function jumps.
    """
    land = found.land
    classes = int(land.labels.max()) + 1
    usable = land.labels == land.labels.roll(classes)
    lefts, rights = [], []
    for scale, points in zip(found.scales, found.points, strict=True):
        if 0.1 <= scale <= 10:
            lefts.append(points[usable])
            rights.append(points.roll(classes, 0)[usable])
    left, right = torch.cat(lefts), torch.cat(rights)
    label = land.labels[usable].repeat(len(lefts))
    at_left, at_right = function(left, label), function(right, label)
    sizes, middles = [], []
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
        middles.append(left)
    noise = 1e-6 * (1 + at_left.norm(dim=1))
    jumps = (sizes[2] > 0.5 * sizes[1]) & (sizes[1] > 0.5 * sizes[0]) & (sizes[2] > noise)
    size = torch.where(jumps, sizes[2], 0)
    i = int(size.argmax())
    return Jump(left[i], right[i], int(label[i]), float(size[i]), middles[0])


def lipschitz(subject: Subject, trials: int) -> Finding:
    """The gradient has a largest norm.

    Norms are followed along rays, at 1e-4 to 1e4 times ordinary inputs: refuted where they grow by no less from
    one power of ten to the next, up to the last, or where the value itself jumps between two points that
    halving brought together.
    """
    found = rays(subject, trials)
    land = found.land
    jump = _jump(found, lambda x, y: land.value(x, y).detach().unsqueeze(1))
    if jump and jump.size > 0:
        return _jumps("the value", found, jump, lambda x, y: land.value(x, y).detach())
    norms = found.slopes.nan_to_num(0, torch.inf)
    largest = float(norms.max())
    return _growth(found, norms, trials, "norm of the gradient", largest)


def smooth(subject: Subject, trials: int) -> Finding:
    """The gradient is Lipschitz: it has a largest rate of change, the largest curvature.

    The spectral norm of the Hessian is followed along rays, at 1e-4 to 1e4 times ordinary inputs: refuted where
    it grows by no less from one power of ten to the next, up to the last, or by a kink: two points that halving
    brought together and between which the gradient jumps.
    """
    found = rays(subject, trials)
    land = found.land
    jump = _jump(found, lambda x, y: slope(land, x, y))
    if jump and jump.size > 0:
        return _jumps("the gradient", found, jump, lambda x, y: slope(land, x, y))
    _, _, spectrum, _ = _curvatures(found)
    norms = spectrum.abs().amax(1).unflatten(0, (len(found.scales), -1))
    largest = float(norms.max())
    return _growth(found, norms, trials, "curvature", largest)


def _jumps(
    what: str, found: Rays, jump: Jump, function: Callable[[Tensor, Tensor], Tensor]
) -> Finding:
    ends = function(torch.stack([jump.left, jump.right]), torch.tensor([jump.label] * 2))
    distance = float((jump.right - jump.left).norm())
    return Finding(
        "refuted",
        f"{what} jumps by {jump.size:.3g} between two points {distance:.1g} apart",
        len(found.land.points),
        evidence={
            **place(found.land, jump.left, jump.label),
            "other point": numbers(jump.right),
            "distance": distance,
            f"{what} at both": numbers(ends),
        },
    )


def _growth(found: Rays, norms: Tensor, trials: int, what: str, largest: float) -> Finding:
    end = runs_off(norms, found.scales)
    if end is None and largest > CONSTANT:
        end = int(norms.amax(0).argmax()), True
    if end:
        ray, outward = end
        return Finding(
            "refuted",
            f"{what} grows on to {norms[-1 if outward else 0, ray]:.3g} as the inputs "
            f"{'grow' if outward else 'shrink'}",
            trials,
            evidence=ray_evidence(found, ray, norms, what),
        )
    scale, ray = divmod(int(norms.argmax()), norms.shape[1])
    return Finding(
        "not refuted",
        f"largest {what} found {largest:.4g}",
        trials,
        largest,
        {
            **place(found.land, found.points[scale, ray], int(found.land.labels[ray])),
            f"largest {what}": largest,
            "scales tried": found.scales,
        },
    )


PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {
    "bounded below": bounded_below,
    "bounded above": bounded_above,
    "convex": convex,
    "Lipschitz": lipschitz,
    "smooth": smooth,
}
