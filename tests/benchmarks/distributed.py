"""One batch over several processes: time, memory of each, and agreement with one process.

    torchrun --nproc_per_node 2 tests/benchmarks/distributed.py
    torchrun --nproc_per_node 8 tests/benchmarks/distributed.py --device cuda --number 32768 --dimension 1024

Each rank embeds its share of the pairs by a linear map under DistributedDataParallel and takes the gathered
loss; rank 0 then does the whole batch alone, with as many threads as all ranks had. The result joins
results/<device>.json.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import harness
import torch
import torch.distributed as dist
from bench_contrastive import TEMPERATURE, error, views
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lossbook.representation import nt_xent_loss

HERE = Path(__file__).parent


class Embed(nn.Module):
    """The same linear map for both views."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(dimension, dimension)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return self.map(first), self.map(second)


def step(model: nn.Module, pair: tuple[Tensor, Tensor], gather: bool) -> Tensor:
    """Loss and gradient of the weights, as one vector."""
    model.zero_grad()
    loss = nt_xent_loss(*model(*pair), temperature=TEMPERATURE, gather=gather)
    loss.backward()
    return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters())])


def measure(model, pair, gather: bool, device: torch.device, repeats: int) -> tuple:
    """The answer, median seconds, and megabytes above what model and data take."""
    answer = step(model, pair, gather)
    harness.synchronize(device)
    before = harness._forget_peak(device)
    times = harness.median_seconds({"": lambda: step(model, pair, gather)}, device, repeats)
    return answer, times[""], (harness._peak(device) - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--number", type=int, default=4096, help="pairs over all processes")
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()

    dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device(options.device, rank if options.device == "cuda" else None)
    torch.set_num_threads(1)
    whole = views(options.number, options.dimension, device, torch.float32).chunk(2)
    share = tuple(view.tensor_split(ranks)[rank].clone() for view in whole)
    model = Embed(options.dimension).to(device)
    answer, seconds, megabytes = measure(
        DistributedDataParallel(model), share, True, device, options.repeats
    )
    slowest = torch.tensor([seconds, megabytes], device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    if rank == 0:
        torch.set_num_threads(ranks)
        alone, *cost = measure(model, whole, False, device, options.repeats)
        together = [*slowest.tolist(), error(answer, alone)]
        rows = [(f"lossbook, {ranks} processes (each)", together), ("lossbook, one", [*cost, 0.0])]
        keep(options, device, ranks, rows)
    dist.barrier()
    dist.destroy_process_group()


def keep(options: argparse.Namespace, device: torch.device, ranks: int, rows: list) -> None:
    """Print, and write beside the other results of this machine."""
    contestants = [
        {"name": name, "seconds": numbers[0], "megabytes": numbers[1], "error": numbers[2]}
        for name, numbers in rows
    ]
    size = f"2 x {options.number:,} embeddings in {options.dimension:,} dimensions"
    result = {
        "name": f"NT-Xent of {size} over {ranks} processes, value and gradient",
        "tolerance": 1e-5,
        "contestants": contestants,
        "goals": [],
    }
    about = harness.machine(device)
    file = options.output / f"{re.sub(r'[^a-z0-9]+', '-', about['device'].lower()).strip('-')}.json"
    kept = json.loads(file.read_text()) if file.exists() else {"machine": about, "parts": {}}
    kept["parts"]["distributed"] = [result]
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n")
    for one in contestants:
        print("{name:32s} {seconds:9.4f} s {megabytes:9.1f} MB   error {error:.1e}".format(**one))
    print(f"written to {file}")


if __name__ == "__main__":
    main()
