"""Many inputs of a loss at once: values, gradients, curvatures, and a search for minima.

A property of all inputs is tried on hundreds of them. `Landscape` makes of a loss a function of the
rows of one matrix, whatever its kind; `descend` minimizes such a function for all rows together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import C, N, Subject

SEED = 0
# Trials of a loss that must be called for one input after another.
ONE_BY_ONE = 10
# Where a search for a minimum at infinity ends, before rounding is all there is.
FAR = 1e3
Result = TypeVar("Result")


def once(function: Callable[[Subject, int], Result]) -> Callable[[Subject, int], Result]:
    """Remembers the latest result: the properties of one loss are examined one after another."""
    latest: list[Any] = [None, None, None]

    @functools.wraps(function)
    def remembered(subject: Subject, trials: int) -> Result:
        if latest[0] is not subject or latest[1] != trials:
            latest[:] = subject, trials, function(subject, trials)
        result: Result = latest[2]
        return result

    return remembered


# --- Values -----------------------------------------------------------------------------------


def row_by_row(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """The function of each row of the arguments, all at once unless it looks at its values."""
    try:
        return torch.func.vmap(function, randomness="same")(*arguments)
    except Exception:  # of whatever type it is, the loop raises it again if the loss is at fault
        return torch.stack([function(*row) for row in zip(*arguments, strict=True)])


def per_example(subject: Subject, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """The loss of each example, (N,); of a loss with a value for each entry, the sum over these."""
    options = {"reduction": "none"} if subject.default_reduction is not None else {}
    values = subject(inputs, target, **options)
    if values.ndim == 0:  # a loss that only knows the mean
        return row_by_row(lambda y, *x: alone(subject, y, *x), target, *inputs)
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def alone(subject: Subject, label: Tensor, *inputs: Tensor) -> Tensor:
    """The loss of one example, a scalar."""
    options = {"reduction": "sum"} if subject.default_reduction is not None else {}
    return subject(tuple(x[None] for x in inputs), label[None], **options).sum()


def sparing(examine: Callable[[Subject, int], Finding]) -> Callable[[Subject, int], Finding]:
    """Fewer trials for a loss that must be called for one input after another."""

    @functools.wraps(examine)
    def examined(subject: Subject, trials: int) -> Finding:
        return examine(subject, min(trials, ONE_BY_ONE) if one_by_one(subject) else trials)

    return examined


def one_by_one(subject: Subject) -> bool:
    """Whether a loss has no value for each example, and looks at values, as `vmap` forbids."""
    inputs, target = subject.inputs(), subject.target()
    known = subject.default_reduction is not None
    if by_example(subject) and (known or subject(inputs, target).ndim > 0):
        return False
    rows = tuple(torch.stack([x, x]) for x in inputs)
    try:
        torch.func.vmap(lambda *x: subject(x, target), randomness="same")(*rows)
    except Exception:
        return True
    return False


def by_example(subject: Subject) -> bool:
    """Whether the loss is one of single examples: has a target, and does not look at the batch."""
    if subject.arguments[-1] != "target" or subject.arguments[0] == "anchor":
        return False
    inputs, target = subject.inputs(), subject.target()
    alone = [
        per_example(subject, tuple(x[i : i + 1] for x in inputs), target[i : i + 1])
        for i in range(len(target))
    ]
    return torch.allclose(torch.cat(alone), per_example(subject, inputs, target), equal_nan=True)


def draw(subject: Subject, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Inputs of the subject's kind, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return subject.kind.inputs(torch.Size(shape))


class Landscape(NamedTuple):
    """A loss as a function of the rows of a matrix.

    ``value`` maps points (M, D) and labels (M,) to (M,). A point is one example of a loss of single
    examples, and else the whole of a small batch, whose labels stay what they are.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    points: Tensor  # (M, D), ordinary inputs
    labels: Tensor  # (M,)
    partners: Tensor  # (M, D), to each point another one that has the same label
    single: bool  # whether a point is one example
    names: tuple[str, ...]  # of the arguments that lie one after another in a row
    admits: Callable[[Tensor], bool]  # whether the loss accepts a point (D,), or all of (K, D)
    inside: Callable[[Tensor], Tensor]  # moves points to where the inputs may be

    def height(self, points: Tensor, labels: Tensor) -> Tensor:
        """The values without a graph, (M, 1)."""
        with torch.no_grad():
            return self.value(points, labels).unsqueeze(1)

    def slope(self, points: Tensor, labels: Tensor) -> Tensor:
        """The gradients, (M, D)."""
        return gradient(lambda x: self.value(x, labels), points)

    def hessian(self, points: Tensor, labels: Tensor) -> Tensor:
        """The second derivatives, (M, D, D); zero where they are not finite."""
        return hessian(lambda x: self.value(x, labels), points).nan_to_num(0, 0, 0)


@once
def landscape(subject: Subject, trials: int) -> Landscape:
    """The loss on as many points as there are trials."""
    single = by_example(subject)
    classes = C if subject.kind.classes else 2
    if single:
        inputs = draw(subject, (trials, C))
    else:
        inputs = draw(subject, (N * trials, C))
        inputs = tuple(x.reshape(trials, x.shape[0] // trials, *x.shape[1:]) for x in inputs)
    shapes = [x.shape[1:] for x in inputs]
    sizes = [shape.numel() for shape in shapes]
    target = subject.target()

    def parts(points: Tensor) -> tuple[Tensor, ...]:
        columns = points.split(sizes, 1)
        return tuple(x.reshape(-1, *s) for x, s in zip(columns, shapes, strict=True))

    def value(points: Tensor, labels: Tensor) -> Tensor:
        x = parts(points)
        if not single:
            return row_by_row(lambda *x: subject(x, target).mean(), *x)
        try:
            return per_example(subject, x, labels)
        except ValueError:  # some points it does not accept; `admits` will tell which
            return row_by_row(lambda y, *x: alone(subject, y, *x), labels, *x)

    def admits(points: Tensor) -> bool:
        """Asks the loss itself: where it is called by `vmap` it cannot look at its inputs."""
        x = parts(points.reshape(-1, sum(sizes)))
        try:
            if single:
                values = per_example(subject, x, target[:1].expand(len(x[0])))
            else:
                values = torch.stack([subject(row, target).sum() for row in zip(*x, strict=True)])
        except ValueError:
            return False
        return not bool(values.isnan().any())

    def inside(points: Tensor) -> Tensor:
        return points.clamp(min=0) if "distances" in subject.arguments else points

    points = torch.cat([x.reshape(trials, -1) for x in inputs], 1)
    index = torch.arange(trials)
    labels = index % classes
    partners = points[torch.where(index + classes < trials, index + classes, labels)]
    names = subject.arguments[: len(inputs)]
    return Landscape(value, points, labels, partners, single, names, admits, inside)


# --- Derivatives ------------------------------------------------------------------------------


def gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The gradient of the function of each row, (M, D); zero where it depends on nothing."""
    leaf = points.detach().requires_grad_()
    return _gradient(function(leaf), leaf).detach()


def _gradient(values: Tensor, leaf: Tensor, create_graph: bool = False) -> Tensor:
    if not values.requires_grad:
        return torch.zeros_like(leaf)
    (slope,) = torch.autograd.grad(
        values.sum(), leaf, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return slope


def hessian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The second derivatives of the function of each row, (M, D, D), made symmetric."""
    leaf = points.detach().requires_grad_()
    slope = _gradient(function(leaf), leaf, create_graph=True)
    rows = [_gradient(column, leaf) for column in slope.unbind(1)]
    matrix = torch.stack(rows, 1).detach()
    return (matrix + matrix.mT) / 2


# --- Minima -----------------------------------------------------------------------------------


def descend(
    function: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    steps: int = 150,
    first: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """The lowest point seen from each row of starts (M, D), and the value there.

    Shor's r-algorithm. A step goes down the gradient in a space of its own, where it has length 1.
    If the function still falls at its end, the space is stretched and the next step is longer; else
    it is halved along the difference of the last two gradients. So the search comes down along the
    bottom of a valley, smooth or with a kink, and follows minima at infinity, up to `FAR`.

    Args:
        function: maps rows (M, D) to values (M,).
        start: (M, D).
        steps: some 40 for each dimension.
        first: the length of the first step, one for all rows or (M, 1, 1).
    """
    x = lowest = start
    least = torch.full_like(start[:, 0], torch.inf)
    space = first * torch.eye(x.shape[1], dtype=x.dtype).expand(len(x), -1, -1)
    step, last = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(steps):
        leaf = x.detach().requires_grad_()
        values = function(leaf)
        slope = _gradient(values, leaf)
        lost = ~(values.isfinite() & slope.isfinite().all(1)).unsqueeze(1)
        slope = torch.where(lost, last, slope)
        better = values.detach() < least
        least = torch.where(better, values.detach(), least)
        lowest = torch.where(better.unsqueeze(1), x, lowest)

        falling = (slope * step).sum(1) <= 0
        turn = unit(space.mT @ (slope - last).unsqueeze(2))
        halved = space - 0.5 * space @ turn @ turn.mT
        space = torch.where(falling[:, None, None], 1.5 * space, halved)
        x, space = torch.where(lost, lowest, x), torch.where(lost.unsqueeze(2), space / 8, space)
        step = -(space @ unit(space.mT @ slope.unsqueeze(2))).squeeze(2)
        x, last = (x + step).clamp(-FAR, FAR), slope
    return lowest, least


def unit(columns: Tensor) -> Tensor:
    """Columns (M, D, 1) of length 1; zero ones as they are."""
    return columns / (columns.norm(dim=1, keepdim=True) + torch.finfo(columns.dtype).tiny)


def numbers(tensor: Tensor) -> Any:
    """A tensor as a number, or as a list of them, for the evidence."""
    return tensor.detach().double().tolist()
