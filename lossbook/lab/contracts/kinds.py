"""The kinds of losses: what their arguments are called, and how inputs of a kind are made.

The names of a loss's positional parameters say what kind of loss it is: ``"logits, target"``, or
``"anchor, positive"``. `KINDS` knows how inputs of each kind are made, ordinary ones and the worst there are;
a `Subject` is one loss with its settings, ready to be called on them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import lossbook

N, C = 5, 4


class Kind(NamedTuple):
    """Inputs of one kind of loss.

    ``inputs`` makes the differentiable arguments from a shape (N, C, ...); ``wrong`` makes them as
    wrong as numbers up to 1e4 can be for label 0, ``right`` the other extreme; ``extra`` gives
    keyword arguments, of which a loss is passed those that it knows.
    """

    inputs: Callable[[torch.Size], tuple[Tensor, ...]]
    wrong: Callable[[], tuple[Tensor, ...]]
    extra: Callable[[Tensor], dict[str, Any]] = lambda scores: {}
    classes: bool = True  # the target may be soft or ignored, and classes have weights
    dense: bool = True  # inputs may have further dimensions
    target: bool = True  # the differentiable arguments are followed by a target or labels
    right: Callable[[], tuple[Tensor, ...]] | None = None  # by default minus ``wrong``
    elements: bool = True  # unreduced, there is a value for each of the N rows


def normal(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def wrong_logits() -> Tensor:
    """For label 0: the lowest logit, and others that differ in size and sign."""
    return 1e4 * torch.tensor([[-1.0, 1.0, 0.5, -0.5]] * N, dtype=torch.float64)


def wrong_embeddings() -> Tensor:
    """Large embeddings of one class that point apart."""
    return wrong_logits() + 5e3 * torch.randn(N, C, generator=torch.Generator().manual_seed(2))


KEY, PROTOTYPES = torch.randn(2, C, C, generator=torch.Generator().manual_seed(1)).double()


def holographic(embeddings: Tensor) -> dict[str, Tensor]:
    return {"key": KEY.to(embeddings.dtype), "prototypes": PROTOTYPES.to(embeddings.dtype)}


def cluster(rows: int = N) -> Tensor:
    """Directions that are all but the same, of length 1e4."""
    return 1e4 * (torch.eye(C, dtype=torch.float64)[:1] + 0.05 * spread(rows))


def spread(rows: int = N) -> Tensor:
    return torch.randn(rows, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


TEACHER = spread()


def in_ball(shape: tuple[int, ...]) -> Tensor:
    return 0.2 * normal(shape).tanh()


def at_the_boundary(rows: int = N) -> Tensor:
    """Points of the ball as far out as bfloat16 allows, in all directions."""
    return 0.96 * torch.nn.functional.normalize(spread(rows))


def hyperplanes(points: Tensor) -> dict[str, Tensor]:
    offsets, normals = KEY[:2].tanh() / 5, PROTOTYPES[:2]
    return {"offsets": offsets.to(points.dtype), "normals": normals.to(points.dtype)}


KINDS: dict[str, Kind] = {
    "logits, target": Kind(lambda shape: (normal(shape),), lambda: (wrong_logits(),)),
    "set_logits, target": Kind(
        lambda shape: (normal((*shape[:1], 3, *shape[1:])),),
        lambda: (wrong_logits().unsqueeze(1).expand(N, 3, C).clone(),),
        dense=False,
    ),
    "logits, adversarial_logits, target": Kind(
        lambda shape: (normal(shape), normal(shape)), lambda: (wrong_logits(), -wrong_logits())
    ),
    "distances, target": Kind(
        lambda shape: (normal(shape).abs() + 0.1,), lambda: (1e4 - wrong_logits(),)
    ),
    "embeddings, target": Kind(
        lambda shape: (normal(shape),), lambda: (wrong_logits(),), holographic, dense=False
    ),
    "embeddings, labels": Kind(
        lambda shape: (normal(shape),), lambda: (wrong_embeddings(),), classes=False, dense=False
    ),
    "scores, target": Kind(
        lambda shape: (normal(shape[:1]),),
        lambda: (torch.full((N,), 1e4, dtype=torch.float64),),
        lambda scores: {"derivatives": torch.linspace(0, 2, scores.numel(), dtype=scores.dtype)},
        classes=False,
        dense=False,
    ),
    # Scores of hyperplanes, whose signs multiply to that of the class.
    "planes, target": Kind(
        lambda shape: (normal(shape),),
        lambda: (wrong_logits().abs(),),
        classes=False,
        dense=False,
        right=lambda: (wrong_logits().abs() * torch.tensor([-1.0, 1.0, 1.0, 1.0]),),
    ),
    # Scores that a loss multiplies by about ten before it takes their exponential.
    "rejector, target": Kind(
        lambda shape: (0.2 * normal(shape[:1]),),
        lambda: (torch.full((N,), 1e4, dtype=torch.float64),),
        classes=False,
        dense=False,
    ),
    # What one more learner adds, to scores that are what they are.
    "step, scores, target": Kind(
        lambda shape: (normal(shape[:1]), normal(shape[:1])),
        lambda: (torch.zeros(N).double(), torch.full((N,), 1e4, dtype=torch.float64)),
        classes=False,
        dense=False,
    ),
    "embeddings": Kind(
        lambda shape: (normal(shape),),
        lambda: (cluster(),),
        classes=False,
        dense=False,
        target=False,
        right=lambda: (1e4 * spread(),),
    ),
    "prototypes": Kind(
        lambda shape: (normal(shape),),
        lambda: (cluster(),),
        classes=False,
        dense=False,
        target=False,
        right=lambda: (1e4 * spread(),),
    ),
    # Of unit vectors, of any others, or of points in the ball: small ones are all three.
    "anchor, positive": Kind(
        lambda shape: (in_ball(shape), in_ball(shape)),
        lambda: (at_the_boundary(), at_the_boundary().flip(0)),
        classes=False,
        dense=False,
        target=False,
        right=lambda: (at_the_boundary(), at_the_boundary() * 0.9),
    ),
    # Two views, and the classes of what was done to further ones.
    "anchor, positive, logits, target": Kind(
        lambda shape: (in_ball(shape), in_ball(shape), normal(shape)),
        lambda: (at_the_boundary(), at_the_boundary().flip(0), wrong_logits()),
        classes=False,
        dense=False,
        right=lambda: (at_the_boundary(), at_the_boundary() * 0.9, -wrong_logits()),
    ),
    "learned, supervisory": Kind(
        lambda shape: (normal(shape), normal(shape)),
        lambda: (wrong_logits(), -wrong_logits()),
        classes=False,
        dense=False,
        target=False,
        right=lambda: (wrong_logits(), wrong_logits()),
    ),
    "points": Kind(
        lambda shape: (in_ball((2 * shape[0], *shape[1:])),),
        lambda: (at_the_boundary(2 * N),),
        classes=False,
        dense=False,
        target=False,
    ),
    "anchor, positive, labels": Kind(
        lambda shape: (in_ball(shape), in_ball(shape)),
        lambda: (at_the_boundary(), at_the_boundary().flip(0)),
        classes=False,
        dense=False,
        right=lambda: (at_the_boundary(), at_the_boundary() * 0.9),
    ),
    "anchor, positive, anchor_traits, positive_traits": Kind(
        lambda shape: tuple(normal(shape) for _ in range(4)),
        lambda: (spread(), -spread(), 1e4 * spread(), cluster()),
        classes=False,
        dense=False,
        target=False,
        right=lambda: (spread(), spread(), spread(), spread()),
    ),
    "real, negative": Kind(
        lambda shape: (in_ball(shape), in_ball(shape)),
        lambda: (at_the_boundary(), at_the_boundary()),
        hyperplanes,
        classes=False,
        dense=False,
        target=False,
        elements=False,
    ),
    "weight": Kind(
        lambda shape: (normal(shape),),
        lambda: (wrong_logits(),),
        classes=False,
        dense=False,
        target=False,
        right=lambda: (torch.nn.functional.normalize(spread()),),
    ),
}

# Keyword arguments that a loss requires, beyond those of its kind, made from its first input.
REQUIRED: dict[str, Callable[[Tensor], dict[str, Any]]] = {
    "fenchel_young_loss": lambda z: {"conjugate": partial(torch.logsumexp, dim=1)},
    "instance_nce_loss": lambda z: {
        "noise": KEY.to(z.dtype),
        "number": 50,
        "log_partition": torch.tensor(5.0, dtype=z.dtype),
    },
    "noisy_softmax_loss": lambda h: {
        "noise": torch.tensor(0.7, dtype=h.dtype),
        "prototypes": torch.eye(C, dtype=h.dtype),
    },
    "nspt_loss": lambda h: {"teacher": TEACHER[: h.shape[:1].numel()].to(h.dtype)},
    "proper_loss": lambda z: {"convex": lambda p: p.square().sum(1)},
    "vector_scaling_loss": lambda z: {"class_counts": 1.0 + torch.arange(z.shape[1:2].numel())},
}


def public() -> dict[str, Any]:
    """Everything public in the parts of the book, by name."""
    found = {}
    for module_info in pkgutil.walk_packages(lossbook.__path__, "lossbook."):
        if module_info.name.startswith("lossbook.lab") or module_info.name.endswith("._contract"):
            continue
        module = importlib.import_module(module_info.name)
        for name in getattr(module, "__all__", []):
            found[name] = getattr(module, name)
    return found


def losses() -> dict[str, Callable[..., Tensor]]:
    """The losses of the package by name: found, not listed.

    A loss is a public function of a chapter whose name ends in ``_loss``, and ``cross_entropy``.
    """
    return {
        name: thing
        for name, thing in public().items()
        if name.endswith("_loss") or (name == "cross_entropy" and callable(thing))
    }


def kind_of(loss: Callable[..., Tensor]) -> str:
    """The names of a loss's positional parameters, which say its kind: ``"logits, target"``."""
    parameters = inspect.signature(loss).parameters.values()
    return ", ".join(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Subject:
    """A loss with a setting of its hyperparameters, and the kind that says how to call it."""

    name: str
    loss: Callable[..., Tensor]
    kind_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    link: Callable[[Tensor], Tensor] | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.kind_name]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the arguments of its kind are called, whatever this loss calls them."""
        return tuple(self.kind_name.split(", "))

    def __call__(self, inputs: tuple[Tensor, ...], target: Tensor, **options: Any) -> Tensor:
        arguments = (*inputs, target) if self.kind.target else inputs
        return self.loss(*arguments, **{**self.extra(inputs[0]), **self.settings, **options})

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.loss).parameters

    def extra(self, first: Tensor) -> dict[str, Any]:
        """Keyword arguments of its kind, as far as the loss knows them, and those it requires."""
        of_kind = {name: x for name, x in self.kind.extra(first).items() if name in self.parameters}
        return of_kind | REQUIRED.get(self.name, lambda _: {})(first)

    @property
    def default_reduction(self) -> str | None:
        """None for a loss that has no reduction, as one of a whole set of points has none."""
        known = self.parameters
        return known["reduction"].default if "reduction" in known else None

    def inputs(self, *further: int) -> tuple[Tensor, ...]:
        """Ordinary inputs (N, C, ...), always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.kind.inputs(torch.Size((N, C, *further)))

    def target(self, *further: int) -> Tensor:
        """Labels for them."""
        generator = torch.Generator().manual_seed(0)
        classes = C if self.kind.classes else 2
        return torch.randint(0, classes, (N, *further), generator=generator)
