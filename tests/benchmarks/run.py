"""Measure speed, memory and agreement on this machine, for the book's page on performance.

    python tests/benchmarks/run.py              on the CPU with two threads
    python tests/benchmarks/run.py --device cuda
    python tests/benchmarks/run.py --only parity bench_curvature

The result is results/<device>.json; the page is written from all files there. A run of some parts only keeps
what the file had of the others.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import harness
import torch

HERE = Path(__file__).parent
PARTS = [*sorted(file.stem for file in HERE.glob("bench_*.py")), "parity"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=10, help="timed calls of each contestant")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument(
        "--output", type=Path, default=HERE / "results", help="folder of the result"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    about = harness.machine(device)
    name = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    file = options.output / f"{name}.json"
    kept = json.loads(file.read_text())["parts"] if file.exists() else {}
    parts = kept | {part: measure(part, device, options.repeats) for part in options.only}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "parts": parts}, indent=1) + "\n")
    print(f"written to {file}")


def measure(part: str, device: torch.device, repeats: int) -> list[dict]:
    if part == "parity":
        import parity

        return parity.table(device)
    rows = []
    for benchmark in harness.load(part).values():
        if device.type not in benchmark.devices:
            continue
        rows.append(harness.run(part, benchmark, device, repeats))
        print(benchmark.name)
        for one in rows[-1]["contestants"]:
            print(
                "   {name:32s} {seconds:9.4f} s {megabytes:9.1f} MB   error {error:.1e}".format(
                    **one
                )
            )
        for goal in rows[-1]["goals"]:
            against = f" against {goal['rival']}" if goal["rival"] else ""
            print(f"   {goal['quantity']}{against}: {goal['ratio']:.2f}, goal {goal['limit']}")
    return rows


if __name__ == "__main__":
    main()
