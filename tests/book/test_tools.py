"""The build's tools: what runs again, what may be skipped, and how a failure is told."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from lossbook.lab import claims, papers

TOOLS = Path(__file__).parents[2] / "book" / "tools"
KEY = "leng2022polyloss"


def tool(name: str) -> ModuleType:
    """A fresh copy of one of the scripts in book/tools, as a module; it finds the others beside it."""
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))
    specification = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """execute.py, at work on a small book of its own."""
    module = tool("execute")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(module, "STAMPS", tmp_path / "_build" / "executed.json")
    # Threads see what is patched here; processes would only where they are forked.
    monkeypatch.setattr(module, "ProcessPoolExecutor", ThreadPoolExecutor)
    for name in ("LOSSBOOK_STATIC", "OMP_NUM_THREADS", "LOSSBOOK_SCALE", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return module


def write(execute: ModuleType, name: str, *cells: str, first: str = "# A title") -> Path:
    notebook = execute.ROOT / "chapters" / "part" / f"{name}.ipynb"
    notebook.parent.mkdir(parents=True, exist_ok=True)
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(first), *code])
    nbformat.write(document, notebook)
    return notebook


def package(notebook: Path, answer: int) -> None:
    """A lossbook beside the notebook, which its kernel finds before the installed one."""
    folder = notebook.parent / "lossbook"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "toy.py").write_text(f"answer = {answer}  # {'*' * answer}\n")


def test_a_failure_names_its_cell_and_stays_until_it_is_repaired(
    execute: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(execute, "good", "from lossbook import toy", "print(toy.answer)")
    package(good, 1)
    write(execute, "bad", "import os", "assert os.environ['LOSSBOOK_STATIC']\n1 / 0")
    for todo in (2, 1):  # red again on the second run, when the good one is skipped
        assert execute.main() == 1
        printed = capsys.readouterr()
        assert f"2 chapter notebooks, {todo} to execute" in printed.out
        assert "chapters/part/bad.ipynb FAILED in cell 2 (assert os.environ" in printed.out
        assert "ZeroDivisionError: division by zero" in printed.out
        assert f"1 of {todo} notebooks failed; the book is not built" in printed.err

    write(execute, "bad", "1 / 1")
    assert execute.main() == 0 and "1 to execute" in capsys.readouterr().out
    assert execute.main() == 0 and "0 to execute" in capsys.readouterr().out

    package(good, 2)  # only one of the two imports it
    assert execute.main() == 0 and "1 to execute" in capsys.readouterr().out
    cache = execute.get_cache(execute.BUILD / ".jupyter_cache")
    record = cache.match_cache_file(str(good))
    outputs = cache.get_cache_bundle(record.pk).nb.cells[-1].outputs
    assert [output["text"] for output in outputs] == ["2\n"]
    assert len(cache.list_cache_records()) == 2

    (good.parent / "lossbook" / "toy.py").write_text("answer = 1 / 0")
    assert execute.main() == 1 and "good.ipynb FAILED in cell 1" in capsys.readouterr().out
    with pytest.raises(KeyError):  # the outputs of the better days are gone
        cache.match_cache_file(str(good))


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("import time\ntime.sleep(60)", "cell 1 (import time)\n    timeout: over 1 s"),
        ("raise KeyError('gone')", "cell 1 (raise KeyError('gone'))\n    KeyError: 'gone'"),
    ],
)
def test_a_cell_that_fails_or_never_ends_is_told(
    execute: ModuleType, monkeypatch: pytest.MonkeyPatch, cell: str, told: str
) -> None:
    monkeypatch.setattr(execute, "CELL_TIMEOUT", 1)
    with pytest.raises(RuntimeError) as failure:
        execute.run(write(execute, "slow", cell))
    assert str(failure.value) == told


def test_the_book_may_stand_in_a_folder_of_any_name(
    execute: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(execute, "ROOT", tmp_path / "José's book")
    notebook = write(execute, "chapter", "import lossbook.toy")
    package(notebook, 1)
    _, modules, _ = execute.run(notebook)
    folder = notebook.parent / "lossbook"
    assert modules == [str(folder / "__init__.py"), str(folder / "toy.py")]


@pytest.fixture
def atlas(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, papers.Paper]]:
    """One paper, of the chapter part/chapter."""
    paper = replace(papers.load()[KEY], part="part", chapter="chapter", verdict="reproduced")
    rows = {KEY: paper}
    monkeypatch.setattr(papers, "load", lambda: rows)
    return rows


def test_a_fingerprint_changes_with_all_that_outputs_stand_on_and_with_nothing_else(
    execute: ModuleType,
    atlas: dict[str, papers.Paper],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    module = tmp_path / "module.py"
    module.write_text("1")
    notebook = write(execute, "chapter", "1 + 1")
    seen = [execute.fingerprint(notebook, [str(module)])]

    write(execute, "chapter", "1 + 1", first="# Another title")
    module.touch()
    assert execute.fingerprint(notebook, [str(module)]) == seen[0]

    module.write_text("2")
    seen.append(execute.fingerprint(notebook, [str(module)]))
    write(execute, "chapter", "1 + 2")
    seen.append(execute.fingerprint(notebook, [str(module)]))
    monkeypatch.setenv("LOSSBOOK_SCALE", "full")
    seen.append(execute.fingerprint(notebook, [str(module)]))
    atlas[KEY] = replace(atlas[KEY], verdict="contradicted")
    seen.append(execute.fingerprint(notebook, [str(module)]))
    monkeypatch.setattr(execute.metadata, "distributions", list)
    seen.append(execute.fingerprint(notebook, [str(module)]))
    module.unlink()
    seen.append(execute.fingerprint(notebook, [str(module)]))
    (execute.ROOT / "lossbook").mkdir()
    (execute.ROOT / "lossbook" / "figure.js").write_text("draw()")
    seen.append(execute.fingerprint(notebook, [str(module)]))
    assert len(set(seen)) == len(seen) == 8


def test_a_chapter_may_be_a_folder_of_notebooks(
    execute: ModuleType, atlas: dict[str, papers.Paper]
) -> None:
    chapters = execute.ROOT / "chapters" / "part"
    assert execute.rows_of(chapters / "chapter.ipynb") == [vars(atlas[KEY])]
    assert execute.rows_of(chapters / "chapter" / "one.ipynb") == [vars(atlas[KEY])]
    assert execute.rows_of(chapters / "other.ipynb") == []


def test_what_an_earlier_run_recorded_is_forgotten(
    execute: ModuleType, atlas: dict[str, papers.Paper]
) -> None:
    ledger = execute.BUILD / "claims" / "small"
    ledger.mkdir(parents=True)
    for key in (KEY, "other"):
        (ledger / f"{key}.json").touch()
    execute.forget(write(execute, "chapter"))  # it records nothing: another notebook may have
    assert {file.stem for file in ledger.iterdir()} == {KEY, "other"}
    execute.forget(write(execute, "chapter", f'claims.record("{KEY}", "A claim")'))
    assert {file.stem for file in ledger.iterdir()} == {"other"}


def test_checkpoints_are_no_chapters(execute: ModuleType) -> None:
    write(execute, ".ipynb_checkpoints/draft")
    notebook = write(execute, "chapter")
    assert execute.chapters() == [notebook]


# --- the claims ledger


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = tool("ledger")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "LEDGER", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chapters.yml").write_text("[{part: part, title: The part}]")
    return module


def test_the_ledger_is_not_written_without_a_recorded_run(
    ledger: ModuleType, atlas: dict[str, papers.Paper]
) -> None:
    with pytest.raises(SystemExit, match=f"no recorded run for {KEY}"):
        ledger.pages()


def test_the_ledger_shows_contradicted_claims_first(
    ledger: ModuleType, atlas: dict[str, papers.Paper], tmp_path: Path
) -> None:
    atlas["b"] = replace(atlas[KEY], key="b", verdict="contradicted")
    atlas["c"] = replace(atlas[KEY], key="c", verdict="planned")
    gap = claims.Evidence(0.5, 0.25, 0.75, 5, "high")
    for paper in (atlas[KEY], atlas["b"]):
        evidence = {"gap": gap, "identity": claims.fact(True, "equal")}
        claim = claims.Claim(paper.key, "Said.", paper.verdict, "small", evidence)
        (tmp_path / f"{paper.key}.json").write_text(json.dumps(asdict(claim)))
    chapter = tmp_path / "chapters" / "part" / "chapter" / "two.ipynb"
    chapter.parent.mkdir(parents=True)
    cells = [
        nbformat.v4.new_markdown_cell("## First\n\n### The $k$ largest"),
        nbformat.v4.new_code_cell(f"claims.record('{KEY}')\nclaims.record('b')"),
        nbformat.v4.new_markdown_cell("## Last"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), chapter)
    cites = nbformat.v4.new_markdown_cell(f"{KEY} and b are recorded elsewhere")
    nbformat.write(nbformat.v4.new_notebook(cells=[cites]), chapter.with_stem("one"))
    text = ledger.pages()["claims.md"]
    assert text.index("## Contradicted") < text.index("{cite:t}`b`") < text.index("## Reproduced")
    assert text.index("## Reproduced") < text.index(f"{{cite:t}}`{KEY}`")
    assert "chapter=chapter verdict=contradicted\n:name: claim-b\n" in text
    assert (
        "| The part | 1 | 1 | 0 | 1 | 0 | 3 |" in text and "| all | 1 | 1 | 0 | 1 | 0 | 3 |" in text
    )
    link = '<a href="../chapters/part/chapter/two.html#the-k-largest">The $k$ largest</a>'
    assert text.count(link) == 2
    assert text.count(">Said.<") == text.count("gap: high") == text.count("identity: equal") == 2
    assert text.count('aria-label="difference 0.5, 95 percent interval 0.25 to 0.75"') == 2
    assert text.count("+0.5 [+0.25, +0.75], 5 seeds") == 2


# --- the page on performance


def test_the_performance_page_says_what_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    performance = tool("performance")
    monkeypatch.setattr(performance, "RESULTS", tmp_path)
    row = {
        "name": "sum of numbers",
        "tolerance": 1e-4,
        "contestants": [
            {"name": "lossbook", "seconds": 0.5, "megabytes": 10.0, "error": 1e-7},
            {"name": "exact", "seconds": 2.0, "megabytes": 100.0, "error": 1e-7},
            {"name": "sloppy", "seconds": 0.1, "megabytes": 1.0, "error": 1e-2},
        ],
        "goals": [
            {"rival": "exact", "quantity": "time", "limit": 0.3, "ratio": 0.25},
            {"rival": "exact", "quantity": "memory", "limit": 0.05, "ratio": 0.1},
            {"rival": None, "quantity": "megabytes", "limit": 120, "ratio": 99.6},
        ],
    }
    parity = {
        "name": "mean",
        "errors": {"float32": 1e-7, "bfloat16": 0.5},
        "tolerances": {"float32": 1e-5, "bfloat16": 1e-2},
    }
    machine = {"device": "A", "cpu": "A", "torch": "2", "python": "3", "threads": 2, "date": "D"}
    result = {"machine": machine, "parts": {"parity": [parity], "bench_sum": [row]}}
    (tmp_path / "a.json").write_text(json.dumps(result))
    (tmp_path / "b.json").write_text(json.dumps(result | {"machine": machine | {"device": "B"}}))
    text = performance.pages()["performance.md"]
    assert text.index("## A\n") < text.index("### Sum of numbers") < text.index("## B\n")
    assert text.index("### Sum of numbers") < text.index("### Agreement")  # whichever ran first
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    assert "| lossbook | 500 ms |  | 10 MB | 1·10⁻⁷ |" in text
    assert "| exact | 2.00 s | 0.25 | 100 MB | 1·10⁻⁷ |" in text
    assert "| *sloppy* | 100 ms | 5.00 | 1 MB | 1·10⁻² |" in text
    assert "0.3 of the time of exact; reached with 0.25" in text
    assert "0.05 of the memory of exact; **missed** with 0.10" in text
    assert "at most 120 MB of memory; reached with 100 MB" in text
    assert "| mean | 1·10⁻⁷ | **5·10⁻¹** |" in text
    assert "threads, beside A;" in text  # on B, whose CPU is A
