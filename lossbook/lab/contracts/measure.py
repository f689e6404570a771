"""`contract` examines a loss: every property of its kind, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lossbook.lab.contracts import classes, embeddings, numerics, shape
from lossbook.lab.contracts.finding import Contract, Finding
from lossbook.lab.contracts.kinds import KINDS, Subject, kind_of

#: What is examined, in groups, with the function that looks for each property. The first line of its
#: docstring defines the property.
GROUPS: dict[str, dict[str, Callable[[Subject, int], Finding]]] = {
    "shape": shape.PROPERTIES,
    "labels and probabilities": classes.PROPERTIES,
    "geometry": embeddings.PROPERTIES,
    "numbers": numerics.PROPERTIES,
}


def contract(
    loss: Callable[..., Tensor],
    *,
    kind: str | None = None,
    name: str | None = None,
    trials: int = 200,
    properties: Sequence[str] | None = None,
    link: Callable[[Tensor], Tensor] | None = None,
    **settings: Any,
) -> Contract:
    """Measure the mathematical properties of a loss.

    Nothing is ever proved: a property of all inputs is *refuted* by a point, which the finding keeps, or
    *not refuted* in so many trials. The points are drawn from a fixed seed, so a contract is repeatable.

    Args:
        loss: the loss. A function of the package, or your own: it returns a value for each example, (N,), or
            the mean over the examples.
        kind: the names of the arguments of its kind, such as ``"logits, target"``, ``"scores, target"`` or
            ``"anchor, positive"``; by default the names of its positional parameters.
        name: what to call it; by default the name of the function.
        trials: how many points to try for each property, at least 1.
        properties: the properties to examine; by default all that `GROUPS` lists.
        link: how the inputs are read as probabilities, (M, C) to (M, C), or of one score (M,) to the chance
            of class 1; by default the softmax, the sigmoid, or the one that a loss of the package has.
        **settings: hyperparameters, passed on to the loss.

    Returns:
        The contract. It prints as a table, shows itself as a card, and holds the evidence, as in
        ``contract(...)["convex"].evidence``.

    Raises:
        ValueError: for an unknown kind or property, and for trials below 1.
        Exception: what the loss itself raises when it is called, with a note that names the property.

    Pitfall: the trials are points of moderate size in few dimensions. A property that fails only far out, or
    only with hundreds of classes, is not refuted here.
    """
    kind = kind_of(loss) if kind is None else kind
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {'; '.join(KINDS)}, got {kind!r}")
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    examiners = {name: function for group in GROUPS.values() for name, function in group.items()}
    chosen = list(examiners) if properties is None else list(properties)
    if unknown := set(chosen) - set(examiners):
        raise ValueError(f"properties must be among {', '.join(examiners)}, got {sorted(unknown)}")
    subject = Subject(name or str(getattr(loss, "__name__", "loss")), loss, kind, settings, link)
    findings = {}
    for each in chosen:
        try:
            findings[each] = examiners[each](subject, trials)
        except Exception as error:
            error.add_note(f"raised while {each!r} of {subject.name} was examined")
            raise
    words = {name: getattr(value, "__name__", str(value)) for name, value in settings.items()}
    return Contract(subject.name, kind, words, findings)
