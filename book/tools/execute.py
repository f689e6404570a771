"""Execute every chapter, two at a time, and keep the outputs where the book's build finds them.

A chapter runs again when anything it stands on has changed: its code, a lossbook module that it imported
(however indirectly), the verdicts of its papers, the scale, or the version of an installed library. A cell
that fails names its notebook and its number, and the whole command then exits with 1; what failed is never
kept, so a second try fails the same way.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from lossbook.lab import claims, papers

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "_build"
STAMPS = BUILD / "executed.json"
CELL_TIMEOUT = 180  # seconds
PROCESSES = 2

# Runs after the chapter in the same kernel: which of our modules did it really use?
_USED_MODULES = """
import json, sys
json.dumps(sorted(m.__file__ for n, m in list(sys.modules.items())
                  if n.split(".")[0] == "lossbook" and getattr(m, "__file__", None)))
"""


def chapters() -> list[Path]:
    return sorted(
        p for p in (ROOT / "chapters").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    )


def rows_of(notebook: Path) -> list[dict[str, Any]]:
    """The atlas rows of a notebook's chapter (a chapter may be a notebook or a folder of them)."""
    place = notebook.relative_to(ROOT / "chapters").with_suffix("").parts
    return [vars(p) for p in papers.load().values() if (p.part, p.chapter) == place[:2]]


def fingerprint(notebook: Path, modules: list[str]) -> str:
    """A hash of everything that the outputs of a notebook depend on."""
    cells = nbformat.read(notebook, nbformat.NO_CONVERT).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    # An explorable figure carries its script and style into the page.
    resources = sorted(
        str(p) for kind in ("js", "css") for p in (ROOT / "lossbook").rglob(f"*.{kind}")
    )
    sources = [
        hashlib.sha256(Path(file).read_bytes()).hexdigest() if Path(file).exists() else "gone"
        for file in (*modules, *resources)
    ]
    versions = sorted(
        f"{d.name}=={d.version}" for d in metadata.distributions() if d.name != "lossbook"
    )
    everything = [
        code,
        modules,
        sources,
        rows_of(notebook),
        versions,
        os.environ.get("LOSSBOOK_SCALE"),
    ]
    return hashlib.sha256(json.dumps(everything, default=str).encode()).hexdigest()


def run(notebook: Path) -> tuple[nbformat.NotebookNode, list[str], float]:
    """Execute one notebook in a fresh kernel; gives it with outputs, the modules it used, the seconds."""
    os.environ.update(LOSSBOOK_STATIC="1", OMP_NUM_THREADS="1")
    began = time.monotonic()
    document = nbformat.read(notebook, nbformat.NO_CONVERT)
    document.cells.append(nbformat.v4.new_code_cell(_USED_MODULES))
    client = NotebookClient(
        document,
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(notebook.parent)}},
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        number = max(
            (i for i, c in enumerate(document.cells) if c.get("execution_count")), default=0
        )
        first_line = document.cells[number].source.strip().splitlines()[0]
        reason = error.evalue if isinstance(error, CellExecutionError) else f"over {CELL_TIMEOUT} s"
        name = error.ename if isinstance(error, CellExecutionError) else "timeout"
        raise RuntimeError(f"cell {number} ({first_line})\n    {name}: {reason}") from None
    answer = document.cells.pop().outputs[-1]["data"]["text/plain"]
    modules = json.loads(ast.literal_eval(answer))
    # Only the outputs are kept: what else a run leaves in a notebook would hide it from the cache's search.
    result = nbformat.read(notebook, nbformat.NO_CONVERT)
    for cell, executed in zip(result.cells, document.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    return result, modules, time.monotonic() - began


def forget(notebook: Path) -> None:
    """Remove what an earlier run left, so that a failure cannot hide behind it."""
    for key in claims.recorded_in(notebook):
        (BUILD / "claims" / "small" / f"{key}.json").unlink(missing_ok=True)
    cache = get_cache(BUILD / ".jupyter_cache")
    for record in cache.list_cache_records():
        if record.uri == str(notebook):
            cache.remove_cache(record.pk)


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    stamps = json.loads(STAMPS.read_text()) if STAMPS.exists() else {}
    todo = []
    for notebook in chapters():
        stamp = stamps.get(str(notebook.relative_to(ROOT)))
        if stamp is None or stamp["fingerprint"] != fingerprint(notebook, stamp["modules"]):
            todo.append(notebook)
            stamps.pop(str(notebook.relative_to(ROOT)), None)
            forget(notebook)
    STAMPS.write_text(json.dumps(stamps, indent=1))
    print(f"{len(chapters())} chapter notebooks, {len(todo)} to execute", flush=True)

    cache = get_cache(BUILD / ".jupyter_cache")
    failures = 0
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = {pool.submit(run, notebook): notebook for notebook in todo}
        for done, job in enumerate(as_completed(jobs), start=1):
            name = str(jobs[job].relative_to(ROOT))
            try:
                document, modules, seconds = job.result()
            except RuntimeError as error:
                failures += 1
                print(f"[{done}/{len(todo)}] {name} FAILED in {error}", flush=True)
                continue
            bundle = CacheBundleIn(document, str(jobs[job]), data={"execution_seconds": seconds})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
            stamps[name] = {
                "fingerprint": fingerprint(jobs[job], modules),
                "modules": modules,
                "seconds": round(seconds, 1),
            }
            STAMPS.write_text(json.dumps(stamps, indent=1))
            print(f"[{done}/{len(todo)}] {name} {seconds:.0f} s", flush=True)
    if failures:
        print(f"{failures} of {len(todo)} notebooks failed; the book is not built", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
