"""Checks of an answer that say what kind of mistake it looks like.

An assignment compares a student's value with the right one. When they differ, the check looks whether the
value is one that a common slip gives (the sign, a sum for a mean, the wrong axis), and names it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Mistake(AssertionError):
    """An answer is wrong; the message says how, as far as that can be told."""


def same(
    actual: object,
    expected: Tensor | float,
    what: str,
    *,
    mistakes: Mapping[str, Tensor | float] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Check that a value is what it should be.

    Args:
        actual: the student's value: a number or a tensor.
        expected: the right value. If it requires a gradient, so must the student's.
        what: what the value is, in words: ``"the loss of three examples"``.
        mistakes: values that common slips give, by a description of the slip, each compared in turn.
        tolerance: largest difference, relative to the size of the expected values or to 1; positive.

    Raises:
        Mistake: the value is wrong; the message names the slip that it looks like.

    Pitfall: the tolerance is one number for a whole tensor, so small entries beside large ones are hardly
    checked.
    """
    wanted = torch.as_tensor(expected).detach().double()
    given = _tensor(actual, what)
    if given.shape != wanted.shape:
        raise Mistake(
            f"{what} has shape {tuple(given.shape)}, expected {tuple(wanted.shape)}: "
            "look at what is summed or averaged, and over which axis"
        )
    if not given.isfinite().all() and wanted.isfinite().all():
        raise Mistake(
            f"{what} is {_shown(given)}, which is not finite: some exponential or logarithm overflows"
        )
    if not _close(given, wanted, tolerance):
        for slip, value in (mistakes or {}).items():
            wrong = torch.as_tensor(value).detach().double()
            if wrong.shape == given.shape and _close(given, wrong, tolerance):
                raise Mistake(f"{what} is {_shown(given)}, not {_shown(wanted)}: {slip}")
        raise Mistake(f"{what} is {_shown(given)}, expected {_shown(wanted)}")
    needs_gradient = isinstance(expected, Tensor) and expected.requires_grad
    if needs_gradient and not (isinstance(actual, Tensor) and actual.requires_grad):
        raise Mistake(
            f"{what} is right but carries no gradient: it was detached, turned into a number, "
            "or computed outside of torch"
        )


def holds(condition: bool | Tensor, message: str) -> None:
    """Check a condition.

    Raises:
        Mistake: it does not hold; the message is the given one.

    Pitfall: of a tensor with several entries all must hold.
    """
    if not bool(torch.as_tensor(condition).all()):
        raise Mistake(message)


def _tensor(value: object, what: str) -> Tensor:
    if value is None:
        raise Mistake(f"{what} is None: return the value, do not print it")
    try:
        return torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(
            f"{what} is a {type(value).__name__}, expected a number or a tensor"
        ) from None


def _close(first: Tensor, second: Tensor, tolerance: float) -> bool:
    finite = second[second.isfinite()].abs()
    size = max(1.0, float(finite.max())) if finite.numel() else 1.0
    return bool(((first == second) | ((first - second).abs() <= tolerance * size)).all())


def _shown(values: Tensor) -> str:
    if values.ndim == 0:
        return f"{float(values):.6g}"
    first = ", ".join(f"{x:.4g}" for x in values.flatten()[:4].tolist())
    return f"[{first}{', ...' if values.numel() > 4 else ''}]"
