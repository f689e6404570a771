"""The page on performance and agreement, from what ``make bench`` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "tests" / "benchmarks" / "results"

HEADER = """# Performance and agreement

How fast the package is, how much memory it takes, and whether a GPU says the same as float64 on a CPU.
The numbers were measured by `make bench` on the machines named, and stand in `tests/benchmarks/results`;
this page is written from them. A time is the median of at least ten calls, taken in turns with the
rivals' in one run after a warm-up. Memory is the peak above what data and model need, on a CPU in a
fresh process. An answer's error is relative to float64. A time counts only at an error below the
tolerance: a rival above it, in italics, answered another question.

To add your machine: `make bench`, or `make bench BENCH="--device cuda"`.
"""


def pages() -> dict[str, str]:
    """For each machine its benchmarks, then its parity table."""
    sections = [HEADER]
    for file in sorted(RESULTS.glob("*.json")):
        result = json.loads(file.read_text())
        machine = result["machine"]
        sections.append(f"## {machine['device']}\n\n{_described(machine)}\n")
        parts = result["parts"]
        sections += [
            benchmark(row) for part in sorted({*parts} - {"parity"}) for row in parts[part]
        ]
        if "parity" in parts:
            sections.append(parity(parts["parity"]))
    return {"performance.md": "\n".join(sections)}


def _described(machine: dict[str, Any]) -> str:
    on = "" if machine["device"] == machine["cpu"] else f", beside {machine['cpu']}"
    return (
        f"PyTorch {machine['torch']}, Python {machine['python']}, {machine['threads']} CPU threads{on}; "
        f"measured on {machine['date']}."
    )


def benchmark(row: dict[str, Any]) -> str:
    """One benchmark: its contestants, and how far the goals were reached."""
    ours = row["contestants"][0]
    lines = [f"### {row['name'][0].upper()}{row['name'][1:]}\n"]
    lines += ["| | time | ratio | peak memory | error |", "|---|--:|--:|--:|--:|"]
    for one in row["contestants"]:
        mark = "" if one["error"] <= row["tolerance"] else "*"
        ratio = "" if one is ours else f"{ours['seconds'] / one['seconds']:.2f}"
        lines.append(
            f"| {mark}{one['name']}{mark} | {_time(one['seconds'])} | {ratio} "
            f"| {one['megabytes']:.0f}\N{NO-BREAK SPACE}MB | {_power(one['error'])} |"
        )
    tolerance = _power(row["tolerance"])
    lines.append(f"\nTolerance {tolerance}. A ratio below 1 means that lossbook is faster.\n")
    for goal in row["goals"]:
        reached = "reached" if goal["ratio"] <= goal["limit"] else "**missed**"
        limit, ratio = f"{goal['limit']:g} of the {goal['quantity']} of {goal['rival']}", "{:.2f}"
        if goal["rival"] is None:
            limit, ratio = (
                f"{goal['limit']:g}\N{NO-BREAK SPACE}MB of memory",
                "{:.0f}\N{NO-BREAK SPACE}MB",
            )
        lines.append(f"- Goal: at most {limit}; {reached} with {ratio.format(goal['ratio'])}.")
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    number = f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
    return number.replace(" ", "\N{NO-BREAK SPACE}")


def _power(number: float) -> str:
    """A number to one digit, as 2·10⁻⁷."""
    if number == 0:
        return "0"
    digit, exponent = f"{number:.0e}".split("e")
    return f"{digit}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def parity(rows: list[dict[str, Any]]) -> str:
    """The largest errors of values and gradients in each precision, against float64 on the CPU."""
    lines = ["### Agreement with float64\n"]
    lines.append(
        "Every loss and geometric quantity, evaluated on this device at inputs that the precision holds "
        "exactly, against float64 on the CPU at the same inputs: the larger of the relative errors of value "
        "and gradient.\n"
    )
    dtypes = list(rows[0]["errors"])
    lines.append(f"| | {' | '.join(dtypes)} |\n|---|{'--:|' * len(dtypes)}")
    for row in rows:
        cells = []
        for dtype in dtypes:
            error, limit = row["errors"].get(dtype), row["tolerances"].get(dtype)
            mark = "**" if error is not None and error > limit else ""
            cells.append("" if error is None else f"{mark}{_power(error)}{mark}")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    tolerances = rows[0]["tolerances"].items()
    limits = ", ".join(f"{_power(limit)} in {dtype}" for dtype, limit in tolerances)
    lines.append(f"\nTolerances: {limits}. What exceeds one is bold.")
    return "\n".join(lines) + "\n"
