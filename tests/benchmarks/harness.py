"""How the book measures speed: side by side in one run, at a stated accuracy, with peak memory.

A benchmark has a *problem* (data and model), and *contestants* that solve it, ours first. Contestants
take turns, so that what else the machine does meets all alike; the median counts. Memory is the peak (on a
CPU, in a fresh process) above what the problem itself needs.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Prepares a solver for a problem; what it returns is timed, and gives the answer.
Contestant = Callable[[Any], Callable[[], Tensor]]


@dataclass(frozen=True)
class Goal:
    """At most these multiples of a rival's time and memory, or so many megabytes."""

    rival: str | None = None
    time: float | None = None
    memory: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        name: says what is computed, and at what size.
        problem: makes data and model on a device and in a dtype; called again in every process.
        reference: the answer to compare with, from the problem in float64.
        contestants: by name, ours first.
        goals: what was set out to reach; the first rival named is the one of the ratio.
        tolerance: the largest relative error at which a time counts.
        error: the error of an answer against the reference; by default relative, in the Euclidean norm.
        devices: where it is measured; too large for one, perhaps.
    """

    name: str
    problem: Callable[[torch.device, torch.dtype], Any]
    reference: Callable[[Any], Tensor]
    contestants: Mapping[str, Contestant]
    goals: tuple[Goal, ...]
    tolerance: float
    error: Callable[[Tensor, Tensor], float] | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")


def relative_error(answer: Tensor, reference: Tensor) -> float:
    answer, reference = answer.detach().cpu().double(), reference.detach().cpu().double()
    return float((answer - reference).norm() / reference.norm())


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """The time of one call, the device's work included."""
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - began


def median_seconds(
    calls: Mapping[str, Callable[[], object]], device: torch.device, repeats: int = 10
) -> dict[str, float]:
    """The median time of each call, taken in turns after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            spent = seconds(call, device)
            if turn >= 2:
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(benchmark: Benchmark, contestant: str, device: torch.device) -> float:
    """Megabytes (10^6 bytes) that a contestant takes at its peak, above the problem's own."""
    problem = benchmark.problem(device, torch.float32)
    synchronize(device)
    before = _forget_peak(device)
    benchmark.contestants[contestant](problem)()
    synchronize(device)
    return (_peak(device) - before) / 1e6


def _forget_peak(device: torch.device) -> int:
    """Start the measurement of the peak anew, from the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _peak_apart(module: str, benchmark: Benchmark, contestant: str, device: torch.device) -> float:
    """The peak in a fresh process; a GPU's memory is counted by torch, which needs none."""
    if device.type == "cuda":
        return peak_memory(benchmark, contestant, device)
    arguments = (module, benchmark.name, contestant, torch.get_num_threads())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_in_own_process, arguments)


def _in_own_process(module: str, name: str, contestant: str, threads: int) -> float:
    torch.set_num_threads(threads)
    return peak_memory(load(module)[name], contestant, torch.device("cpu"))


def load(module: str) -> dict[str, Benchmark]:
    """The benchmarks that a file beside this one defines, by name."""
    return {b.name: b for b in __import__(module).BENCHMARKS}


def run(module: str, benchmark: Benchmark, device: torch.device, repeats: int = 10) -> dict:
    """All contestants of a benchmark: seconds, megabytes, relative error, and whether the goals are met."""
    compare = benchmark.error or relative_error
    reference = benchmark.reference(benchmark.problem(device, torch.float64))
    problem = benchmark.problem(device, torch.float32)
    calls = {name: make(problem) for name, make in benchmark.contestants.items()}
    errors = {name: compare(call(), reference) for name, call in calls.items()}
    times = median_seconds(calls, device, repeats)
    del problem, calls
    memory = {name: _peak_apart(module, benchmark, name, device) for name in times}
    contestants = [
        {"name": n, "seconds": times[n], "megabytes": memory[n], "error": errors[n]} for n in times
    ]
    measured = {"time": times, "memory": memory}
    goals = [
        {"rival": goal.rival, "quantity": quantity, "limit": limit, "ratio": ratio}
        for goal in benchmark.goals
        for quantity, limit, ratio in _ratios(goal, contestants[0]["name"], measured)
    ]
    return {
        "name": benchmark.name,
        "tolerance": benchmark.tolerance,
        "contestants": contestants,
        "goals": goals,
    }


def _ratios(goal: Goal, ours: str, measured: dict) -> Iterator[tuple[str, float, float]]:
    """What the goal is about, its limit, and what ours came to: a ratio, or megabytes."""
    if goal.megabytes is not None:
        yield "megabytes", goal.megabytes, measured["memory"][ours]
    for quantity, limit in (("time", goal.time), ("memory", goal.memory)):
        if limit is not None:
            table = measured[quantity]
            yield quantity, limit, table[ours] / table[goal.rival]


def machine(device: torch.device) -> dict[str, Any]:
    """What the measurements were taken on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            r.split(":")[1].strip() for r in info.read_text().splitlines() if "model name" in r
        ]
        cpu = models[0] if models else cpu
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {
        "device": name,
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[0], 1),
    }
