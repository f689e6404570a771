"""The chapters as files: stripped, short-celled, described, and without a typed result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = [
    path
    for path in sorted((ROOT / "chapters").rglob("*.ipynb"))
    if ".ipynb_checkpoints" not in path.parts
]
Notebook = dict[str, Any]


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def sources(notebook: Notebook, cell_type: str) -> list[str]:
    cells = notebook["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == cell_type]


def assert_none(faults: Iterable[str]) -> None:
    listed = list(faults)
    assert not listed, "\n".join(listed)


@pytest.fixture(params=NOTEBOOKS, ids=[str(path.relative_to(ROOT)) for path in NOTEBOOKS])
def notebook(request: pytest.FixtureRequest) -> Notebook:
    return read(request.param)


def test_there_are_chapters_with_one_and_the_same_set_up() -> None:
    assert NOTEBOOKS
    assert len({sources(read(path), "code")[0] for path in NOTEBOOKS}) == 1


# --- as a file


def stored(notebook: Notebook) -> Iterable[str]:
    """What a notebook keeps that belongs to a run, or that hides a cell from the tests."""
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"]):
            yield f"cell {number} has outputs: run nbstripout"
    hiding = r"skip-execution|raises-exception|nbval[-_](?:skip|raises)[-\w]*"
    yield from re.findall(hiding, json.dumps(notebook), re.IGNORECASE)


def test_a_notebook_is_stripped_and_runs_whole(notebook: Notebook) -> None:
    assert_none(stored(notebook))


# --- its code


def clumsy(notebook: Notebook) -> Iterable[str]:
    """Code cells that are too long, and figures without the book's style or a text alternative."""
    cells = sources(notebook, "code")
    lengths = [len(cell.splitlines()) for cell in cells]
    if lengths[0] > 8:
        yield f"the set-up has {lengths[0]} lines, more than 8"
    if median(lengths) > 6:
        yield f"the median cell has {median(lengths)} lines, more than 6"
    for cell, length in zip(cells, lengths, strict=True):
        if length > 25:
            yield f"a cell of {length} lines, more than 25: {cell.splitlines()[0]}"
    code = "\n".join(cells)
    yield from re.findall(r"\bplt\b|\bmatplotlib\.\w+|%matplotlib", code)
    if code.count("plots.canvas(") > code.count("plots.show(") + code.count("explore.play("):
        yield "a figure is drawn but not passed to plots.show"


def test_code_comes_in_small_cells_and_figures_with_words(notebook: Notebook) -> None:
    assert_none(clumsy(notebook))


def still(notebook: Notebook) -> Iterable[str]:
    if not any("explore.play(" in cell for cell in sources(notebook, "code")):
        yield "nothing is trained afresh at the move of a slider"


def test_a_reader_s_own_loss_is_trained_at_the_move_of_a_slider(notebook: Notebook) -> None:
    assert_none(still(notebook))


# --- its prose


def unfit(notebook: Notebook) -> Iterable[str]:
    """What is wrong with a chapter's card, length or pictures."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    if not (cells[0][0] == "markdown" and re.search(r"^(```|:::){colab}", cells[0][1], re.M)):
        yield "the card does not open on Colab"
    prose = "\n".join(sources(notebook, "markdown"))
    words = len(re.findall(r"\w+(?:[-’']\w+)*", without_code_and_mathematics(prose)))
    if not 2000 <= words <= 4500:
        yield f"{words} words, not 2000 to 4500"
    for pattern in (r"!\[\s*\]", r"<img(?![^>]*\balt=\"[^\"])[^>]*>"):
        yield from (f"no alt: {found}" for found in re.findall(pattern, prose))
    for directive, options in re.findall(r"{(figure|image)} *\S*\n((?::.*\n)*)", prose):
        if not re.search(r"^:alt: *\S", options, re.M):
            yield f"no alt: {{{directive}}}"
    image = r"(?:!\[[^\]]*\]\(|<img[^>]*src=\"|{(?:figure|image)} *)(https?://[^\s)\"]*)"
    yield from (f"an image from outside: {found}" for found in re.findall(image, prose))


def test_a_chapter_has_card_length_and_described_pictures(notebook: Notebook) -> None:
    assert_none(unfit(notebook))


def without_code_and_mathematics(prose: str) -> str:
    """The words: without listings, the fences of directives, formulas and code within a line."""
    parts = r"^(`{3,})(?:python|sh)\n[\s\S]*?^\1|^[`:]{3,}.*|\$\$[\s\S]*?\$\$|\$[^$]*\$|`[^`]*`"
    return re.sub(parts, "", prose, flags=re.M)


def typed_results(notebook: Notebook) -> list[str]:
    """Decimals and percentages in the prose that no cell computed.

    Not counted: code, mathematics, links, the level of an interval, the exercises, and a cell that
    says why its numbers are typed: ``<!-- typed: reason -->``.
    """
    allowed = re.compile(r"<!-- *typed: *\w.*?-->", re.S)
    cells = [cell for cell in sources(notebook, "markdown") if not allowed.search(cell)]
    prose = without_code_and_mathematics("\n\n".join(cells))
    prose = re.sub(r"^## Exercises$.*?(?=^## |\Z)", "", prose, flags=re.S | re.M)
    prose = re.sub(r"\]\([^)]*\)|<?https?://\S+|\b95 ?% (?:confidence )?intervals?", "", prose)
    return re.findall(r"\d+\.\d\d+|\d[\d.]* ?(?:%|percent\b)", prose)


def test_no_result_is_typed(notebook: Notebook) -> None:
    assert_none(typed_results(notebook))


# --- the checks above can fail


def cell(source: str, kind: str = "markdown", **more: Any) -> dict[str, Any]:
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **code, **more}


def chapter(*cells: dict[str, Any], words: int = 2500) -> Notebook:
    card = cell("# Title\n\n```{colab}\n```\n" + "word " * words)
    kernel = {"kernelspec": {"name": "python3"}}
    return {"metadata": kernel, "cells": [card, cell("import torch", "code"), *cells]}


def test_a_sound_chapter_passes() -> None:
    sound = chapter(
        cell("figure, axes = plots.canvas()\nplots.show(figure, 'A line')", "code"),
        cell("![A curve](curve.svg) and <img src='curve.svg' alt=\"A curve\">"),
        cell("```{figure} curve.svg\n:width: 60%\n:alt: A curve\n```\n<!-- typed: a width -->"),
    )
    for faults in (stored, clumsy, unfit, typed_results):
        assert list(faults(sound)) == []


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": [{"output_type": "stream"}]},
        {"execution_count": 3},
        {"metadata": {"tags": ["skip-execution"]}},
        {"metadata": {"tags": ["raises-exception"]}},
        {"metadata": {"tags": ["nbval-skip"]}},
        {"source": "# NBVAL_SKIP\nassert False"},
        {"source": "# NBVAL_RAISES_EXCEPTION\nassert False"},
    ],
)
def test_what_a_run_leaves_or_a_test_would_pass_over_is_seen(more: dict[str, Any]) -> None:
    assert len(list(stored(chapter(cell("1", "code") | more)))) == 1


def test_another_kernel_is_seen() -> None:
    assert list(stored({"metadata": {}, "cells": []})) == ["the kernel is not python3"]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("\n".join("a" * 26), "a cell of 26 lines"),
        ("plt.plot(x)", "plt"),
        ("import matplotlib.pyplot", "matplotlib.pyplot"),
        ("%matplotlib inline", "%matplotlib"),
        ("figure, axes = plots.canvas()", "not passed to plots.show"),
    ],
)
def test_clumsy_code_is_seen(code: str, fault: str) -> None:
    (found,) = clumsy(chapter(cell("1", "code"), cell("2", "code"), cell(code, "code")))
    assert fault in found


def test_a_chapter_without_sliders_is_seen() -> None:
    assert len(list(still(chapter()))) == 1
    assert list(still(chapter(cell("explore.play(draw, 'A line', k=k)", "code")))) == []


def test_long_cells_are_seen() -> None:
    seven = cell("\n".join("a" * 7), "code")
    assert list(clumsy(chapter(seven, seven))) == ["the median cell has 7 lines, more than 6"]
    (found,) = clumsy({"cells": [cell("\n" * 9, "code"), *(cell("1", "code") for _ in "ab")]})
    assert found == "the set-up has 9 lines, more than 8"


@pytest.mark.parametrize(
    ("prose", "fault"),
    [
        ("![](curve.svg)", "no alt"),
        ('<img src="curve.svg">', "no alt"),
        ('<img src="curve.svg" alt="">', "no alt"),
        ("```{image} curve.svg\n:width: 60%\n```", "no alt"),
        ("![A curve](https://x.org/curve.svg)", "from outside: https://x.org/curve.svg"),
        ("```{image} https://x.org/a.png\n:alt: A\n```", "from outside: https://x.org/a.png"),
        ("word " * 3000, "words, not 2000 to 4500"),
    ],
)
def test_unfit_prose_is_seen(prose: str, fault: str) -> None:
    (found,) = unfit(chapter(cell(prose)))
    assert fault in found


def test_a_chapter_without_a_card_or_too_short_is_seen() -> None:
    assert list(unfit({"cells": [cell("word " * 2500)]})) == ["the card does not open on Colab"]
    (found,) = unfit(chapter(cell("```python\n" + "word " * 3000 + "\n```"), words=1990))
    assert found == "1991 words, not 2000 to 4500"


@pytest.mark.parametrize(
    ("prose", "typed"),
    [
        ("It reaches 0.93 on test data.", ["0.93"]),
        ("It gains 7 %, or 7.5%, or 8 percent.", ["7 %", "7.5%", "8 percent"]),
        ("## Results\n0.25\n## Exercises\nCompute 0.75.\n## Summary\n0.50", ["0.25", "0.50"]),
        ("A 95 % interval of $0.25$ and `0.33`, version 2.0 of [a](https://x.org/0.12).", []),
        ("```python\n0.25\n```", []),
        ("```{note}\n0.25\n```", ["0.25"]),
        ("Half is 0.50. <!-- typed: a definition -->", []),
        ("Half is 0.50. <!-- typed: -->", ["0.50"]),
    ],
)
def test_typed_results_are_seen(prose: str, typed: list[str]) -> None:
    assert typed_results(chapter(cell(prose))) == typed
