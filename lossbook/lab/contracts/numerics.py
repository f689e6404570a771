"""Properties of the numbers: limits, precision, derivatives, transformations and memory.

These properties are about failing too: a loss that works when it is called but raises under `torch.compile`,
say, is refuted, by the first line of the error. What it raises when it is merely called is let through.
"""

from __future__ import annotations

import inspect
import math
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lossbook.lab.contracts.finding import Finding
from lossbook.lab.contracts.kinds import REQUIRED, C, N, Subject, kind_of, losses

Batch = tuple[tuple[Tensor, ...], Tensor]
Results = tuple[Tensor, ...]


def batch(subject: Subject, rows: int = N, classes: int = C, seed: int = 0) -> Batch:
    """Ordinary inputs of the kind, and labels; of two classes an example has another of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = subject.kind.inputs(torch.Size((rows, classes)))
        many = subject.kind.classes
        target = torch.randint(0, classes, (rows,)) if many else torch.randperm(rows) % 2
    return inputs, target


def leaves(inputs: tuple[Tensor, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Copies to differentiate."""
    return tuple(x.detach().to(dtype, copy=True).requires_grad_() for x in inputs)


def gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of the sum of the values; 0 for an input that the value does not depend on."""
    return torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True)


def named(subject: Subject, inputs: tuple[Tensor, ...], target: Tensor) -> dict[str, Any]:
    """The point as evidence."""
    tensors = (*inputs, target) if subject.kind.target else inputs
    return {name: x.detach().tolist() for name, x in zip(subject.arguments, tensors, strict=True)}


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


# --- Limits in the hyperparameters ------------------------------------------------------------

BATCHES = 12  # of N examples: enough points for a fit of two numbers, also for a loss of the batch
CLASSES = 12  # more than the ten that sparse softmax keeps, or it would be cross-entropy
DECADES = range(1, 7)  # by which an end is approached; its neighbor is then 1e-6 away
SAME = 1e-4  # residual of a fit, relative to the spread of the values, 100 times that distance
CONVERGES = 0.9  # ratio of steps: below this for what shrinks like a power, 1 for a logarithm
ROUNDING = 1e-9  # what is smaller than this share of the values may be rounding


def limits(subject: Subject, trials: int) -> Finding:
    """What the loss becomes as each hyperparameter goes to the ends of its range.

    An end that is not allowed is approached by decades and judged by the last value. The values at fixed
    random examples are compared with the other losses of the kind at their defaults, up to a positive factor
    and a constant. The range is what the docstring says, 0 to infinity where it says nothing.
    """
    found = {
        f"{name} -> {end:g}": tendency(subject, name, value, end)
        for name, value in hyperparameters(subject).items()
        for end in ends(described(subject.loss, name))
    }
    if not found:
        return Finding("not applicable", "it has no numeric hyperparameter")
    text = "; ".join(f"{end}: {what}" for end, what in found.items())
    return Finding("measured", text, BATCHES * N, evidence=found)


def hyperparameters(subject: Subject) -> dict[str, Any]:
    """The numeric ones, with their values as examined."""
    given = {**subject.extra(batch(subject)[0][0]), **subject.settings}
    found = {}
    for name, parameter in subject.parameters.items():
        value = given.get(name, parameter.default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        unset = value is None and "float" in str(parameter.annotation)
        if name != "ignore_index" and (number or unset):
            found[name] = value
    return found


def described(loss: Callable[..., Tensor], parameter: str) -> str:
    """The entry of a parameter in the Args of a docstring, ``name: ...`` or ``name (type): ...``."""
    text = inspect.cleandoc(loss.__doc__ or "")
    kind = r"(?: \(.*?\))?"
    entry = re.search(
        rf"^ +{parameter}{kind}: (.*?)(?=^ +\w+{kind}: |^\S|\Z)", text, re.MULTILINE | re.DOTALL
    )
    return " ".join(entry[1].split()) if entry else ""


def ends(description: str) -> tuple[float, float]:
    """The ends of the range that a description gives first; 0 and infinity if it gives none."""
    number = r"(-?\d+(?:\.\d+)?)"
    found = re.search(
        rf"in [\[(]{number}, {number}[\])]|(?:at least|above) {number}|positive|(any sign)",
        description,
    )
    low, high, least, any_sign = found.groups() if found else (None,) * 4
    return (-math.inf if any_sign else float(low or least or 0)), float(high or math.inf)


def tendency(subject: Subject, name: str, value: float | None, end: float) -> str:
    """Where the loss goes as one hyperparameter goes from its value to an end of its range."""
    sequence: list[Tensor] = []
    refusal = ""
    for point in approach(1.0 if value is None else value, end):
        option = {name: int(point) if isinstance(value, int) else point}
        try:
            values = examples(subject, option)
        except Exception as error:  # a loss may refuse the end of its range
            refusal = f"at {point:g} it raises {first_line(error)}"
            continue
        if point == end and not values.isfinite().all():
            continue
        sequence, refusal = [*sequence, values], ""
        if point == end:
            break
    if refusal:
        return refusal
    large = name if math.isinf(end) else f"1/|{name} - {end:g}|" if end else f"1/{name}"
    return judged(subject, sequence, option, large)


def approach(value: float, end: float) -> Iterator[float]:
    """The end, and should that not do, points on the way to it from inside the range."""
    if math.isinf(end):
        yield from (math.copysign(10.0**decade, end) for decade in DECADES)
    else:
        yield end
        yield from (end + math.copysign(10.0**-decade, value - end) for decade in DECADES)


def judged(subject: Subject, sequence: list[Tensor], option: dict[str, float], large: str) -> str:
    """Where a sequence of values leads, in words; ``large`` names what goes to infinity in it."""
    last, spreads = sequence[-1], [spread(values) for values in sequence]
    if not last.isfinite().all():
        return "not a number" if last.isnan().any() else "diverges"
    level = last.abs().mean().item()
    steps = [(b - a).abs().mean().item() for a, b in pairwise(sequence)]
    alike = fits(subject, last) if spreads[-1] > ROUNDING * level else {}
    varying = f", varying like {' and '.join(alike)}" if alike else ""
    if steps[1:] and steps[-2] and steps[-1] > max(CONVERGES * steps[-2], ROUNDING * level):
        order = round(math.log10(steps[-1] / steps[-2]), 1)
        power = large if order == 1 else f"({large})^{order:g}"
        return f"diverges like {power if order > 0 else f'log({large})'}{varying}"
    if spreads[-1] <= ROUNDING * level or (steps and spreads[-1] < CONVERGES * spreads[-2]):
        return f"the constant {round(last.mean().item(), 4) + 0.0:g}{varying}"
    if alike:
        return " and ".join(affine(name, *line) for name, line in alike.items())
    turned = (examples(subject, option, turn=1) - last).abs().max().item()
    if subject.kind.target and turned <= SAME * spreads[-1]:
        return "finite, and the same for all labels"
    return "finite, none of the other losses"


def affine(name: str, slope: float, offset: float) -> str:
    """A multiple of a loss and a constant, in words."""
    factor = f"{slope:g} " if slope != 1 else ""
    constant = f" {'+' if offset > 0 else '-'} {abs(offset):g}" if offset else ""
    return f"{factor}{name}{constant}"


def spread(values: Tensor) -> float:
    return values.std().item()


def fits(subject: Subject, values: Tensor) -> dict[str, tuple[float, float]]:
    """The other losses of the kind that these values are, up to a slope and an offset."""
    found = {}
    for name, (loss, reference) in others(subject.kind_name).items():
        if loss is subject.loss:
            continue
        pair = values, reference
        if values.shape != reference.shape:
            pair = values.mean(1), reference.mean(1)
        slope = spread(pair[0]) / spread(pair[1])
        offset = (pair[0] - slope * pair[1]).mean()
        if spread(pair[0] - slope * pair[1]) <= SAME * spread(pair[0]):
            found[name] = float(f"{slope:.3g}"), round(offset.item(), 3) + 0.0
    # Cross-entropy goes first: it has other names, as the default of a family.
    return dict(sorted(found.items(), key=lambda item: item[0].endswith("_loss")))


def examples(subject: Subject, options: dict[str, Any], turn: int = 0) -> Tensor:
    """The loss at fixed examples, (12, 5), or (12, 1) if it gives one number for a batch.

    The labels are turned by ``turn`` places among the examples of a batch.
    """
    classes = CLASSES if subject.kind.dense else C
    none = {"reduction": "none"} if "reduction" in subject.parameters else {}
    rows = []
    for seed in range(BATCHES):
        inputs, target = batch(subject, N, classes, seed)
        values = subject(inputs, target.roll(turn), **none, **options).detach().double()
        rows.append(values.reshape(*(values.shape[:1] or (1,)), -1).sum(1))
    return torch.stack(rows)


@lru_cache
def others(kind: str) -> dict[str, tuple[Callable[..., Tensor], Tensor]]:
    """The losses of a kind that need nothing beyond it, and their values at their defaults."""
    subjects = [Subject(name, loss, kind) for name, loss in losses().items()]
    return {
        each.name: (each.loss, examples(each, {}))
        for each in subjects
        if kind_of(each.loss) == kind and each.name not in REQUIRED
    }


# --- Precision --------------------------------------------------------------------------------

PROMISE = 1e4  # 0 and numbers up to this must do; tiny vectors have gradients too large for float16
POWERS = 38  # powers of ten that are tried either way, as far as float32 goes


class Probe(NamedTuple):
    """What came of trying one scale of the numbers after another."""

    tried: int
    fine: float = 0.0  # the last scale at which nothing was wrong
    failed: float = 0.0  # the first at which something was
    fault: str = ""
    point: dict[str, Any] | None = None

    @property
    def refutes(self) -> bool:
        """A fault within what must do; an input that is refused has no value that could be wrong."""
        must_do = self.failed == 0 or 1 <= self.failed <= PROMISE
        return bool(self.fault) and must_do and not self.fault.startswith("refused")


def range_in(dtype: torch.dtype) -> Callable[[Subject, int], Finding]:
    """The property of working in a precision."""

    def examine(subject: Subject, trials: int) -> Finding:
        powers = range(min(POWERS, int(math.log10(torch.finfo(dtype).max))) + 1)
        upward = probe(subject, dtype, [10.0**power for power in powers])
        downward = probe(subject, dtype, [10.0**-power for power in powers[1:]])
        zero = probe(subject, dtype, [0.0])
        probes = (upward, downward, zero) if upward.fine else (upward,)
        text = "; ".join(f"at {each.failed:g} {each.fault}" for each in probes if each.fault)
        refuting = [each for each in probes if each.refutes]
        evidence = {"largest scale": upward.fine, "smallest scale": downward.fine}
        if refuting:
            verdict, evidence = "refuted", evidence | (refuting[0].point or {})
        else:
            verdict = "not refuted" if upward.fine else "not applicable"
        if not text:
            text = f"all is well from 0 to {upward.fine:g}"
        elif not refuting and upward.fine:
            lowest = downward.fine if downward.fault else 10.0 ** -(len(powers) - 1)
            text = f"all is well from {lowest or 1:g} to {upward.fine:g}; {text}"
        tried = sum(each.tried for each in probes)
        return Finding(verdict, text, tried, upward.fine, evidence)

    examine.__doc__ = (
        f"In {str(dtype).removeprefix('torch.')}, value and gradient are finite for 0 and for numbers "
        "of size 1 to 1e4, and the gradient of a badly wrong example is not 0."
    )
    return examine


def probe(subject: Subject, dtype: torch.dtype, scales: list[float]) -> Probe:
    """Tries the worst and the best inputs of the kind, scaled, until something is wrong."""
    wrong = subject.kind.wrong()
    right = subject.kind.right() if subject.kind.right else tuple(-x for x in wrong)
    if "distances" in subject.arguments:
        right = tuple(x.max() - x for x in wrong)
    if subject.kind.classes:  # one example says it all, and can be checked by hand
        wrong, right = (tuple(x[:1] for x in inputs) for inputs in (wrong, right))
    fine = 0.0
    for tried, scale in enumerate(scales, 1):
        for inputs in (wrong, right):
            units = (x.abs().max().clamp(min=1e-300) for x in inputs)
            point = leaves(
                tuple(scale * x / unit for x, unit in zip(inputs, units, strict=True)), dtype
            )
            target = torch.zeros(len(point[0]), dtype=torch.int64)
            if subject.arguments[-1] == "labels":
                target[-1] = 1  # a batch of one class alone may have nothing to learn
            what = fault(subject, point, target, useful=inputs is wrong and scale >= 1)
            if what:
                return Probe(tried, fine, scale, what, named(subject, point, target))
        fine = scale
    return Probe(len(scales), fine)


def fault(subject: Subject, point: tuple[Tensor, ...], target: Tensor, *, useful: bool) -> str:
    """What is wrong with value and gradient at a point, if anything is."""
    try:
        value = subject(point, target)
        slopes = gradients(value, point)
    except ValueError as error:
        return f"refused: {first_line(error)}"
    except Exception as error:
        return first_line(error)
    bad = [x[~x.isfinite()] for x in (value, *slopes)]
    if bad[0].numel():
        return f"the value is {bad[0][0].item()}"
    if any(x.numel() for x in bad):
        return "the gradient is not finite"
    if useful and not slopes[0].any():
        return "the gradient of a badly wrong example is 0"
    return ""


# --- Reductions and derivatives -----------------------------------------------------------------


def reductions(subject: Subject, trials: int) -> Finding:
    """Mean and sum are the mean and the sum of the unreduced values."""
    if "reduction" not in subject.parameters:
        return Finding("not applicable", "it has no reduction")
    tried, worst = min(trials, BATCHES), 0.0
    for seed in range(tried):
        inputs, target = batch(subject, seed=seed)
        none, mean, total = (
            subject(inputs, target, reduction=reduction) for reduction in ("none", "mean", "sum")
        )
        error = max((none.mean() - mean).abs().item(), (none.sum() - total).abs().item())
        relative = error / max(none.abs().sum().item(), 1e-300)
        if not relative <= ROUNDING:
            reduced = {"none": none.tolist(), "mean": mean.tolist(), "sum": total.tolist()}
            point = named(subject, inputs, target)
            return Finding("refuted", f"off by {error:.3g}", seed + 1, error, point | reduced)
        worst = max(worst, relative)
    return Finding("not refuted", f"relative difference up to {worst:.1g}", tried, worst)


def derivative_check(
    check: Callable[..., bool], derivatives: str, values: str
) -> Callable[[Subject, int], Finding]:
    """The property that derivatives are right, by a check of torch."""

    def examine(subject: Subject, trials: int) -> Finding:
        inputs, target = batch(subject)
        subject(*batch(subject))  # what fails here is let through: it is not the derivative
        point = leaves(inputs)
        numbers = sum(x.numel() for x in point)
        try:
            check(lambda *x: subject(x, target).sum(), point)
        except Exception as error:
            evidence = named(subject, inputs, target) | {"error": " ".join(str(error).split())}
            return Finding("refuted", first_line(error), numbers, evidence=evidence)
        return Finding("not refuted", f"{derivatives} agree with differences", numbers)

    examine.__doc__ = f"Its {derivatives}, by autograd, are the differences of its {values}."
    return examine


# --- Transformations ------------------------------------------------------------------------------

SLACK = 1e-9  # relative difference that another order of float64 operations may make


def compiles(subject: Subject, trials: int) -> Finding:
    """`torch.compile` makes one graph of it, with the same values and gradients."""

    def pair(inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Results, Results]:
        torch._dynamo.reset()
        plain = partial(called, subject, target)
        compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
        return with_gradients(compiled, inputs), with_gradients(plain, inputs)

    return compared(subject, pair)


def vmaps(subject: Subject, trials: int) -> Finding:
    """`torch.func.vmap` over a stack of batches gives the values and gradients that a loop gives."""

    def pair(inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Results, Results]:
        stack = [(inputs, target), *(batch(subject, seed=seed) for seed in (1, 2))]
        many = tuple(torch.stack(each) for each in zip(*(x for x, _ in stack), strict=True))
        targets = torch.stack([each for _, each in stack])
        places = tuple(range(len(inputs)))
        values = vmap(lambda t, *x: called(subject, t, *x))(targets, *many)
        slopes = vmap(grad(lambda *x: called(subject, x[-1], *x[:-1]).sum(), places))(
            *many, targets
        )
        loop = [with_gradients(partial(called, subject, t), x) for x, t in stack]
        return (values, *slopes), tuple(torch.stack(each) for each in zip(*loop, strict=True))

    return compared(subject, pair)


def called(subject: Subject, target: Tensor, *inputs: Tensor) -> Tensor:
    return subject(inputs, target)


def with_gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Results:
    point = leaves(inputs)
    value = function(*point)
    return value.detach(), *gradients(value, point)


def compared(
    subject: Subject, pair: Callable[[tuple[Tensor, ...], Tensor], tuple[Results, Results]]
) -> Finding:
    """Whether a pair of values and gradients can be had, and agrees."""
    inputs, target = batch(subject)
    point = named(subject, inputs, target)
    subject(*batch(subject))  # what fails here is let through: it is not the transformation
    try:
        actual, expected = pair(inputs, target)
    except Exception as error:
        return Finding("refuted", first_line(error), 1, evidence=point)
    largest = max(1.0, *(x.abs().max().item() for x in expected))
    off = max((x - y).abs().max().item() for x, y in zip(actual, expected, strict=True))
    numbers = sum(x.numel() for x in expected)
    if not off <= SLACK * largest:
        return Finding("refuted", f"off by {off:.3g}", numbers, off, point)
    text = f"values and gradients differ by {off:.1g} at most"
    return Finding("not refuted", text, numbers, off)


# --- Memory ---------------------------------------------------------------------------------------

FEW = 4  # of what does not grow
SIZES = (64, 128, 256, 512, 1024, 2048)
ENOUGH = 2**24  # bytes after which no larger size is tried


class LiveBytes(TorchDispatchMode):
    """The most bytes of new storages that are alive at once while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.live: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        self.live.update(x.untyped_storage() for x in tree_leaves(results) if isinstance(x, Tensor))
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.live))
        return results


def peak_bytes(subject: Subject, rows: int, classes: int) -> int:
    """Of forward and backward, beside the inputs."""
    inputs, target = batch(subject, rows, classes)
    point = leaves(inputs)
    with LiveBytes() as counter:
        gradients(subject(point, target), point)
    return counter.peak


def memory_in_examples(subject: Subject, trials: int) -> Finding:
    """The power of the number of examples with which the peak memory of value and gradient grows.

    It is the logarithm to base 2 of how the peak of live bytes grows as the examples double, to 2048 or until
    16 MiB are passed.
    """
    return growth(subject, "examples", lambda size: (size, FEW))


def memory_in_classes(subject: Subject, trials: int) -> Finding:
    """The power of the number of classes with which the peak memory of value and gradient grows.

    It is the logarithm to base 2 of how the peak of live bytes grows as the classes double, to 2048 or until
    16 MiB are passed.
    """
    if not subject.kind.classes:
        return Finding("not applicable", "its inputs do not have a number for each class")
    if "embeddings" in subject.arguments:
        return Finding("not applicable", "the number of its prototypes is fixed here")
    return growth(subject, "classes", lambda size: (FEW, size))


def growth(subject: Subject, what: str, shape: Callable[[int], tuple[int, int]]) -> Finding:
    subject(*batch(subject))  # what fails here is let through
    peaks: list[int] = []
    for size in SIZES:
        try:
            peaks.append(peak_bytes(subject, *shape(size)))
        except Exception as error:
            return Finding("not applicable", f"no gradient of {size} {what}: {first_line(error)}")
        if peaks[-1] > ENOUGH:
            break
    powers = [math.log2(after / before) for before, after in pairwise(peaks)]
    text = f"grows with the power {powers[-1]:.2f} up to {size} {what}, {peaks[-1] / 2**20:.2g} MiB"
    if max(powers) > powers[-1] + 0.5:
        text += f"; with the power {max(powers):.2f} while they are fewer"
    evidence = {what: list(SIZES[: len(peaks)]), "bytes": peaks, "powers": powers}
    return Finding("measured", text, len(peaks), powers[-1], evidence)


PROPERTIES: dict[str, Callable[[Subject, int], Finding]] = {
    "limits": limits,
    "range in float64": range_in(torch.float64),
    "range in float32": range_in(torch.float32),
    "range in float16": range_in(torch.float16),
    "range in bfloat16": range_in(torch.bfloat16),
    "reductions": reductions,
    "gradcheck": derivative_check(gradcheck, "gradients", "values"),
    "gradgradcheck": derivative_check(gradgradcheck, "second derivatives", "gradients"),
    "compiles": compiles,
    "vmap": vmaps,
    "memory in examples": memory_in_examples,
    "memory in classes": memory_in_classes,
}
