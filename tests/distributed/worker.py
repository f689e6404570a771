"""Every gathered loss on the ranks of torchrun, beside one process on the joined batch.

    torchrun --nproc_per_node 2 tests/distributed/worker.py RESULT.json

Functions and modules with an argument ``gather`` are run. Each rank holds its own rows, as many as its rank
is late: batches need not be equal. A small network under DistributedDataParallel makes the embeddings, so
that the gradients compared are those that a user's parameters get. Rank 0 writes the relative errors.
"""

import copy
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[1]))
import test_contracts
from test_contracts import PUBLIC, C, Case

# How modules are made, and whether they are told the places of the examples beside two views.
MODULES = {
    "AdaptiveMultiHead": ({"dimension": C}, False),
    "ISogCLR": ({"size": 20, "rho": 0.5}, True),
    "SogCLR": ({"size": 20}, True),
}


class Embed(nn.Module):
    """One linear map for all inputs of a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(C, C, dtype=torch.float64)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.map(x) for x in inputs)


def gathered() -> Iterator[Case]:
    """The losses that know how to gather, with every setting of the contract tests."""
    for parameters in test_contracts.CASES:
        case = parameters.values[0]
        if "gather" in inspect.signature(case.loss).parameters:
            yield case


def rows_of(rank: int, ranks: int) -> slice:
    """Rank r holds 3 + r examples."""
    starts = [sum(3 + r for r in range(upto)) for upto in range(ranks + 1)]
    return slice(starts[rank], starts[rank + 1])


def compute(case: Case, model: nn.Module, rows: slice, options: dict[str, Any]) -> list[Tensor]:
    """Value and gradient of all parameters with some rows of the batch."""
    number = rows_of(dist.get_world_size() - 1, dist.get_world_size()).stop
    torch.manual_seed(0)
    inputs = case.kind.inputs(torch.Size((number, C)))
    target = torch.arange(number) % 2
    model.zero_grad()
    value = case(model(*(x[rows] for x in inputs)), target[rows], **options)
    value.sum().backward()
    module = model.module if isinstance(model, DistributedDataParallel) else model
    return [value.detach(), torch.cat([p.grad.flatten() for p in module.parameters()])]


class Whole(nn.Module):
    """Embeddings and a loss with parameters or state of its own."""

    def __init__(self, name: str, gather: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        settings, self.indexed = MODULES[name]
        self.embed, self.loss = Embed(), PUBLIC[name](**settings, gather=gather).double()

    def forward(self, first: Tensor, second: Tensor, index: Tensor) -> Tensor:
        return self.loss(*self.embed(first, second), *([index] if self.indexed else []))


def two_steps(name: str, rows: slice, gather: bool) -> list[Tensor]:
    """Value and gradient of the second step, after which state counts, and the state it leaves."""
    ranks = dist.get_world_size()
    number = rows_of(ranks - 1, ranks).stop
    whole = Whole(name, gather)
    model = DistributedDataParallel(whole, broadcast_buffers=False) if gather else whole
    index = 2 * torch.arange(number)
    for seed in (1, 2):
        torch.manual_seed(seed)
        first, second = torch.randn(2, number, C, dtype=torch.float64)
        model.zero_grad()
        value = model(first[rows], second[rows], index[rows])
        value.backward()
    gradient = torch.cat([p.grad.flatten() for p in whole.parameters()])
    state = [b.flatten()[::2].nan_to_num(neginf=0) for b in whole.loss.buffers()]
    return [value.detach(), gradient, torch.cat([*state, torch.ones(1, dtype=torch.float64)])]


def error(ours: Tensor, expected: Tensor) -> float:
    return float((ours - expected).norm() / expected.norm().clamp(min=1e-12))


def main() -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    single = Embed()
    parallel = DistributedDataParallel(copy.deepcopy(single))
    own, everything = rows_of(rank, ranks), slice(None)
    results = {}
    for case in gathered():
        for reduction in ("mean", "sum"):
            options = {} if case.default_reduction is None else {"reduction": reduction}
            together = compute(case, parallel, own, {"gather": True, **options})
            alone = compute(case, single, everything, options)
            worst = torch.tensor([error(x, y) for x, y in zip(together, alone, strict=True)])
            dist.all_reduce(worst, dist.ReduceOp.MAX)
            results[f"{case.name} {case.settings} {reduction}"] = {
                "loss": case.name,
                "value": float(worst[0]),
                "gradient": float(worst[1]),
                "size": float(alone[1].norm()),
            }
            if "reduction" not in options:
                break
            unreduced = {"reduction": "none"}
            joined = compute(case, single, everything, unreduced)[0]
            mine = compute(case, parallel, own, {"gather": True, **unreduced})[0]
            if joined.shape[0] == rows_of(ranks - 1, ranks).stop:
                results[f"{case.name} {case.settings} {reduction}"]["rows"] = error(
                    mine, joined[own]
                )
    for name in MODULES:
        together, alone = two_steps(name, own, True), two_steps(name, everything, False)
        worst = torch.tensor([error(x, y) for x, y in zip(together, alone, strict=True)])
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        value, gradient, state = worst.tolist()
        size = float(alone[1].norm())
        results[name] = {
            "loss": name,
            "value": value,
            "gradient": gradient,
            "size": size,
            "rows": state,
        }
    try:  # all ranks hear of a rank without examples; none waits for it
        PUBLIC["nt_xent_loss"](*torch.randn(2, min(rank, 1), C), gather=True)
    except ValueError as refusal:
        results["empty"] = {"loss": "empty", "message": str(refusal)}
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
