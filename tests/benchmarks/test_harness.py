"""The measurements measure: time in turns, the peak of a fresh process, the error against float64."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import harness

CPU = torch.device("cpu")
MEGABYTES = 200
CLOCK = [0.0]  # what the harness reads; a call moves it on by what it says to cost


def problem(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.ones(3, device=device, dtype=dtype)


def frugal(x: Tensor):
    def call() -> Tensor:
        CLOCK[0] += 1
        return 2 * x

    return call


def wasteful(x: Tensor):
    def call() -> Tensor:
        CLOCK[0] += 4
        large = torch.ones(MEGABYTES * 250_000)  # four bytes each
        return 2 * x + 1e-3 * large[:3]

    return call


BENCHMARKS = [
    harness.Benchmark(
        name="toy",
        problem=problem,
        reference=lambda x: 2 * x,
        contestants={"frugal": frugal, "wasteful": wasteful},
        goals=(harness.Goal("wasteful", time=0.5, memory=0.2), harness.Goal(megabytes=20)),
        tolerance=1e-6,
    )
]


@pytest.fixture(scope="module")
def row() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.time, "perf_counter", lambda: CLOCK[0])
        return harness.run("test_harness", BENCHMARKS[0], CPU, repeats=3)


def test_a_benchmark_tells_time_memory_and_error(row: dict) -> None:
    ours, theirs = row["contestants"]
    assert (ours["name"], theirs["name"]) == ("frugal", "wasteful")
    assert (ours["seconds"], theirs["seconds"]) == (1, 4)
    assert ours["error"] == 0 and theirs["error"] == pytest.approx(5e-4, rel=1e-3)
    assert ours["megabytes"] < 0.2 * MEGABYTES < MEGABYTES <= theirs["megabytes"] < 2 * MEGABYTES


def test_goals_are_ratios_to_a_rival_or_megabytes(row: dict) -> None:
    ours, theirs = row["contestants"]
    by_quantity = {goal["quantity"]: goal for goal in row["goals"]}
    assert by_quantity["time"]["ratio"] == ours["seconds"] / theirs["seconds"]
    assert by_quantity["memory"]["ratio"] == ours["megabytes"] / theirs["megabytes"]
    assert (by_quantity["time"]["limit"], by_quantity["memory"]["limit"]) == (0.5, 0.2)
    absolute = by_quantity["megabytes"]
    assert absolute == {
        "rival": None,
        "quantity": "megabytes",
        "limit": 20,
        "ratio": ours["megabytes"],
    }


def test_the_median_leaves_out_the_warm_up_and_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.time, "perf_counter", lambda: CLOCK[0])
    calls: list[str] = []
    costs = {"a": [50, 50, 1, 9, 2], "b": [50, 50, 3, 3, 30]}  # the first two are the warm-up

    def call(name: str):
        def run() -> None:
            CLOCK[0] += costs[name][calls.count(name)]
            calls.append(name)

        return run

    times = harness.median_seconds({"a": call("a"), "b": call("b")}, CPU, repeats=3)
    assert calls == ["a", "b"] * 5
    assert times == {"a": 2, "b": 3}


def test_the_machine_is_named() -> None:
    about = harness.machine(CPU)
    assert about["device"] == about["cpu"] != "" and about["threads"] == torch.get_num_threads()
