"""The chapters' copies for Colab: made from the chapters as they are, in words and code that Colab knows.

Their code runs, cell by cell, in ``make test-notebooks``.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_cache import get_cache
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "book" / "tools"
sys.path.append(str(TOOLS))
colab = import_module("colab")

CHAPTERS = sorted((ROOT / "chapters").rglob("*.ipynb"))
NAMES = [str(chapter.relative_to(ROOT)) for chapter in CHAPTERS]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]


def read(file: Path) -> NotebookNode:
    return nbformat.read(file, as_version=4)


@pytest.fixture(params=NAMES)
def chapter(request: pytest.FixtureRequest) -> Path:
    return ROOT / request.param


@pytest.fixture
def copied(chapter: Path) -> NotebookNode:
    file = ROOT / "book" / "colab" / chapter.relative_to(ROOT)
    assert file.exists(), "run `make colab` and commit what it writes"
    return read(file)


def words(notebook: NotebookNode) -> str:
    """The Markdown without listings."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"^```\w+\n[\s\S]*?^```", "", text, flags=re.MULTILINE)


def code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


# --- The copies that are committed


def test_there_is_a_copy_of_every_chapter_and_no_other() -> None:
    copies = (ROOT / "book" / "colab").rglob("*.ipynb")
    assert sorted(str(c.relative_to(ROOT / "book" / "colab")) for c in copies) == NAMES


def test_a_copy_is_what_its_chapter_gives(chapter: Path, copied: NotebookNode) -> None:
    now = colab.copy(chapter)
    stale = "the chapter has changed: run `make colab` and commit what it writes"
    assert [cell.source for cell in copied.cells] == [cell.source for cell in now.cells], stale
    assert dict(copied.metadata) == dict(now.metadata), stale


def test_a_copy_has_the_chapter_s_code_and_only_installs_from_elsewhere(
    chapter: Path, copied: NotebookNode
) -> None:
    first, *others = code(read(chapter))
    install, *copies = code(copied)
    assert others == copies
    assert install == first.replace('"lossbook[lab]"', f'"lossbook[lab] @ git+{REPOSITORY}"')
    assert re.search(r'if not find_spec\("lossbook"\):.*\n    %pip install', install)
    assert "torch" not in install


def test_nothing_is_left_of_what_colab_does_not_understand(copied: NotebookNode) -> None:
    assert list(strange(words(copied))) == []


def strange(text: str) -> Iterator[str]:
    """Directives, roles, labels, links without an address, the book's macros, and what does not close."""
    yield from re.findall(r"^(?:`{3,}|:{3,}).*|\{[\w:-]+\}`[^`]*`|^\([\w:-]+\)=", text, re.M)
    yield from re.findall(r"\$\$[ \t]*\([\w:-]+\)|\]\((?!https://)[^)]*\)", text)
    yield from re.findall(r"\\(?:softmax|logsumexp|KL|vec|R|E)(?![A-Za-z])", text)
    if text.count("$$") % 2 or text.count("<details>") != text.count("</details>"):
        yield "a formula or a fold-out does not end"
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.M):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        if len(counts) > 1:
            yield f"a table with rows of unequal length: {table[:60]}"


@pytest.mark.parametrize(
    "text",
    ["```{note}\n", "{eq}`eq:a`", "(here)=", "$$ x $$ (eq:a)", "[a](b.md)", r"$\R^2$", "$$ x", "<details>",
     "| a | b |\n|---|---|\n| a |"],
)  # fmt: skip
def test_what_is_left_is_seen(text: str) -> None:
    assert list(strange(text))


def test_a_copy_has_the_outputs_of_the_last_execution(chapter: Path, copied: NotebookNode) -> None:
    """Not the same numbers, which are another machine's, but everywhere something of the same kind."""
    cache = get_cache(ROOT / "_build" / ".jupyter_cache")
    found = cache.match_cache_notebook(nbformat.read(chapter, nbformat.NO_CONVERT))
    runs = [c for c in cache.get_cache_bundle(found.pk).nb.cells if c.cell_type == "code"]
    copies = [cell for cell in copied.cells if cell.cell_type == "code"]
    for run, cell in zip(runs, copies, strict=True):
        assert [kind(output) for output in cell.outputs] == [kind(o) for o in run.outputs]
        assert all("widget" not in str(output.get("data", {}).keys()) for output in cell.outputs)
    outputs = [output for cell in copies for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    assert all(len(o.metadata["image/png"]["alt"].split()) > 5 for o in pictures)


def kind(output: NotebookNode) -> str:
    data = output.get("data", {})
    return next(
        (k for k in ("image/png", "text/html", "text/plain") if k in data), output.output_type
    )


def test_a_copy_is_small(chapter: Path, copied: NotebookNode) -> None:
    assert len(nbformat.writes(copied)) < 1_000_000


# --- What Colab brings


def pins() -> dict[str, Version]:
    lines = (TOOLS / "colab.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {name.lower().replace("_", "-"): Version(version) for name, version in pairs}


def test_lossbook_asks_for_nothing_that_colab_lacks_or_has_in_another_version() -> None:
    """So that pip installs lossbook alone there, and Colab keeps the torch that fits its GPU."""
    brought = pins() | {"torch": Version("2.10")}
    asked = map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"])
    assert [str(r) for r in asked if brought[r.name.lower()] not in r.specifier] == []


#: By the names that they are imported by. None but ipywidgets has widgets; of others Colab would have to be
#: told (google.colab.output.enable_custom_widget_manager).
BROUGHT = {
    *("IPython", "ipywidgets", "matplotlib", "numpy", "pandas", "pooch", "requests", "scipy"),
    *("seaborn", "sklearn", "torch", "tqdm", "yaml"),
}


def imported(code: str) -> set[str]:
    """The first names of the modules that code imports, where Python does not bring them."""
    names = set()
    for node in ast.walk(ast.parse(re.sub(r"^(\s*)%pip.*", r"\1pass", code, flags=re.M))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"lossbook"}


def test_chapters_and_package_import_nothing_that_colab_lacks() -> None:
    chapters = {name: "\n".join(code(read(ROOT / name))) for name in NAMES}
    package = {str(f): f.read_text() for f in (ROOT / "lossbook").rglob("*.py")}
    found = {name: imported(text) - BROUGHT for name, text in (chapters | package).items()}
    assert {name: modules for name, modules in found.items() if modules} == {}
    assert imported("import anywidget, os\nfrom a.b import c\n%pip install x") == {"anywidget", "a"}


# --- The translation


@pytest.fixture
def translated() -> Any:
    return colab.Page(ROOT / "chapters" / "classification" / "cross_entropy.ipynb")


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("An {index}`entropy` of $\\E[x]$ in $\\R^2$.", "An entropy of $\\mathbb{E}[x]$ in $\\mathbb{R}^2$."),
        ("$\\vec{x}$, $\\Rightarrow$", "$\\mathbf{x}$, $\\Rightarrow$"),
        ("{func}`~lossbook.a.b.f`", "`f`"),
        ("the [ledger](../../book/claims.md)", "the ledger"),
        ("a [site](https://x.org/a)", "a [site](https://x.org/a)"),
        ("```python\n{index}`a`\n```", "```python\n{index}`a`\n```"),
        ("a\n```{dropdown} Hint\nb {index}`c`\n```\nd",
         "a\n\n<details><summary>Hint</summary>\n\nb c\n\n</details>\n\nd"),
        ("````{admonition} 1 · Derive\n:class: tip\nA.\n```{dropdown} Hint\nB.\n```\n````",
         "### 1 · Derive\n\nA.\n\n<details><summary>Hint</summary>\n\nB.\n\n</details>\n\n"),
        ("```{list-table}\n:widths: 1 2\n:header-rows: 1\n\n* - a\n  - $|x|$\n* - b\n  - c\n    d | e\n```",
         "| a | $\\vert x\\vert $ |\n|---|---|\n| b | c d \\| e |\n"),
        ("```{list-table} Cards\n:widths: 1 2\n\n* - a\n  - b\n```",
         "**Cards**\n\n|  |  |\n|---|---|\n| a | b |\n"),
    ],
)  # fmt: skip
def test_myst_becomes_plain_markdown(translated: Any, myst: str, plain: str) -> None:
    assert translated.markdown(myst) == plain


def test_citations_become_links_and_are_remembered(translated: Any) -> None:
    text = translated.markdown(
        "{cite:t}`guo2017calibration` and {cite:p}`lin2017focal,murphy1973new`."
    )
    assert text.startswith(
        "[Guo et al. (2017)](https://arxiv.org/abs/1706.04599) and ([Lin et al., 2017](https://"
    )
    assert "; " in text and "Murphy, 1973" in text
    assert translated.cited == {"guo2017calibration", "lin2017focal", "murphy1973new"}
    lines = colab.references(translated.cited).splitlines()
    assert len(lines) == 3 and "On calibration of modern neural networks" in lines[0]


def test_chapters_lead_to_copies_and_pages_to_the_repository(translated: Any) -> None:
    place = f"{REPOSITORY.removeprefix('https://github.com/')}/blob/main/book/colab/chapters"
    host = f"https://colab.research.google.com/github/{place}"
    margins = f"{host}/classification/surrogates/margins.ipynb"
    assert translated.markdown("{doc}`this <surrogates/margins>`") == f"[this]({margins})"
    assert translated.markdown("[this](surrogates/margins.ipynb)") == f"[this]({margins})"
    choosing = f"{REPOSITORY}/blob/main/book/choosing_classification.md"
    assert translated.markdown("{doc}`/book/choosing_classification`").endswith(f"]({choosing})")
    for name in ("performance", "contracts/index"):  # pages that the repository does not hold
        assert translated.markdown(f"{{doc}}`how fast </book/{name}>`") == "how fast"


def test_equations_are_numbered_as_in_the_book(translated: Any) -> None:
    numbers = colab.equations()
    own = [name for name, (chapter, _) in numbers.items() if chapter == translated.chapter]
    assert [numbers[name][1] for name in own] == list(range(1, len(own) + 1))
    assert translated.markdown(f"$$ x $$ ({own[1]})\n\nSee {{eq}}`{own[1]}`.") == (
        "$$ x \\tag{2}\n$$\n\nSee (2)."
    )
    other = next(name for name, (chapter, _) in numbers.items() if chapter != translated.chapter)
    assert re.match(r"\(1\) of \[.+\]\(https://colab", translated.markdown(f"{{eq}}`{other}`"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("```{video} a\n```", "{video}"), ("{abbr}`a`", "{abbr}"), ("[a](nowhere.md)", "nowhere.md")],
)
def test_what_has_no_translation_is_an_error(translated: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        translated.markdown(text)
