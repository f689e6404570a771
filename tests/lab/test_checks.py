"""Checks tell right from wrong, and which wrong it looks like."""

from __future__ import annotations

import pytest
import torch

from lossbook.lab import checks

RIGHT = torch.tensor([1.0, -2.0], dtype=torch.float64)


def message(actual: object, expected: object = RIGHT, **options: object) -> str:
    with pytest.raises(checks.Mistake) as caught:
        checks.same(actual, expected, "the answer", **options)
    return str(caught.value)


@pytest.mark.parametrize("right", [RIGHT, RIGHT.float(), [1.0, -2.0], RIGHT.numpy(), RIGHT + 1e-7])
def test_the_right_answer_passes_in_any_form(right: object) -> None:
    checks.same(right, RIGHT, "the answer", mistakes={"as it should be": RIGHT})


def test_a_known_slip_is_named() -> None:
    slips = {"it is doubled": 2 * RIGHT, "the sign is wrong": -RIGHT}
    assert (
        message(-RIGHT, mistakes=slips) == "the answer is [-1, 2], not [1, -2]: the sign is wrong"
    )
    assert message(3 * RIGHT, mistakes=slips) == "the answer is [3, -6], expected [1, -2]"


@pytest.mark.parametrize(
    ("actual", "said"),
    [
        (None, "is None: return the value, do not print it"),
        ("1", "is a str, expected a number or a tensor"),
        (RIGHT.sum(), r"has shape (), expected (2,)"),
        (RIGHT * torch.inf, "is not finite"),
        (torch.tensor([torch.nan, -2.0]), "is not finite"),
    ],
)
def test_what_is_no_value_is_told(actual: object, said: str) -> None:
    assert said in message(actual)


def test_a_detached_value_is_told() -> None:
    expected = RIGHT.clone().requires_grad_()
    assert "carries no gradient" in message(RIGHT, expected)
    assert "carries no gradient" in message([1.0, -2.0], expected)
    checks.same(RIGHT.clone().requires_grad_(), expected, "the answer")


def test_the_tolerance_is_relative_to_the_size_or_to_one() -> None:
    checks.same(1e6 + 0.5, 1e6, "the answer")
    assert "expected" in message(1e6 + 2, 1e6)
    assert "expected" in message(1e-5, 0.0)
    checks.same(torch.inf, torch.inf, "the answer")


def test_what_must_hold() -> None:
    checks.holds(torch.tensor([True, True]), "both")
    with pytest.raises(checks.Mistake, match="not both"):
        checks.holds(torch.tensor([True, False]), "not both")
