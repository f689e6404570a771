"""Two processes with a gathered loss equal one process on the joined batch."""

import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import test_contracts
from test_contracts import PUBLIC, Case

WORKER = Path(__file__).with_name("worker.py")
GATHERED = sorted(
    name
    for name, thing in PUBLIC.items()
    if callable(thing) and "gather" in inspect.signature(thing).parameters
)
CASES: dict[str, Case] = {p.values[0].name: p.values[0] for p in test_contracts.PLAIN}


def torchrun(*script: Path) -> subprocess.CompletedProcess[str]:
    """A script with its arguments on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*command, *map(str, script)], capture_output=True, text=True, timeout=170
    )


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, float]]]:
    """By loss what torchrun's two processes found; they import torch, so once for all."""
    file = tmp_path_factory.mktemp("gather") / "errors.json"
    done = torchrun(WORKER, file)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, list[dict[str, float]]] = {}
    for result in json.loads(file.read_text()).values():
        found.setdefault(result["loss"], []).append(result)
    return found


def test_gathered_losses_are_found() -> None:
    assert {"info_nce_loss", "nt_xent_loss", "supervised_contrastive_loss"} <= set(GATHERED)


@pytest.mark.parametrize("loss", GATHERED)
def test_two_processes_equal_one(errors: dict[str, list[dict[str, float]]], loss: str) -> None:
    assert loss in errors, f"{loss} gathers, but the worker did not run it"
    for result in errors[loss]:
        assert result["value"] < 1e-10 and result["gradient"] < 1e-10
        assert result["size"] > 1e-6  # a gradient to compare
        assert result.get("rows", 0) < 1e-10


def test_a_rank_without_examples_is_refused_by_all(errors: dict[str, list[dict]]) -> None:
    (result,) = errors["empty"]
    assert "rows on each rank must be at least 1, got [0, 2]" in result["message"]


@pytest.mark.parametrize("loss", [name for name in GATHERED if name in CASES])
def test_gathering_alone_is_an_error(loss: str) -> None:
    case = CASES[loss]
    with pytest.raises(RuntimeError, match="init_process_group"):
        case(case.inputs(), case.target(), gather=True)


def test_the_script_of_the_book_runs(tmp_path: Path) -> None:
    """Word for word from the page: both ranks print one and the same loss."""
    page = (Path(__file__).parents[2] / "book" / "distributed.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(# train\.py.*?)```", page, re.DOTALL)
    (tmp_path / "train.py").write_text(script)
    done = torchrun(tmp_path / "train.py")
    assert done.returncode == 0, done.stderr[-4000:]
    losses = dict(re.findall(r"rank (\d): loss ([\d.]+)", done.stdout))
    assert set(losses) == {"0", "1"} and losses["0"] == losses["1"]
    assert 0 < float(losses["0"]) < math.log(2 * 128)
