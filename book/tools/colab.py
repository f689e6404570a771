"""Copies of the chapters that read and run on Colab, which knows neither Sphinx nor this repository.

    python book/tools/colab.py

writes ``book/colab/<chapter>``, to which a chapter's badge leads. Directives and roles have become plain
Markdown (admonitions, tables, citations with links and a list of references, numbered equations), links lead
to other copies or to the repository, and the set-up installs lossbook from there. The outputs are those of
the last execution, pictures as small PNG; ``make colab`` executes first what has changed.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from functools import cache
from itertools import takewhile
from pathlib import Path

import nbformat
from execute import BUILD, ROOT, chapters
from jupyter_cache import get_cache
from nbformat import NotebookNode
from PIL import Image
from pybtex.backends.markdown import Backend
from pybtex.database import Entry, parse_file
from repository import installing_from_repository, repository
from sphinx_lossbook import COPIES, AuthorYear, AuthorYearLabels, copy_on_colab

from lossbook.lab import papers

#: What the book's MathJax knows beyond LaTeX (_config.yml).
MACROS = {
    r"\vec": r"\mathbf",
    r"\R": r"\mathbb{R}",
    r"\E": r"\mathbb{E}",
    r"\KL": r"\operatorname{KL}",
    r"\softmax": r"\operatorname{softmax}",
    r"\logsumexp": r"\operatorname{logsumexp}",
}
#: Pages that only the built book has, so that nothing can lead there.
BUILT = {
    f"book/{name}.md" for name in ("atlas", "claims", "contracts/index", "explorer", "performance")
}

SHRINK = 0.6  # of pictures, which are drawn with the dots of a fine screen

FENCE = re.compile(r"^(`{3,}|:{3,})(?:\{([\w:-]+)\})?(.*)$")
OPTION = re.compile(r"^:[\w-]+:")
ROLE = re.compile(r"\{([\w:-]+)\}`([^`]+)`")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)\s]+)\)")
EQUATION = re.compile(r"\$\$[ \t]*\(([\w:-]+)\)")


def copy(chapter: Path) -> NotebookNode:
    """The chapter for Colab, without outputs."""
    notebook = nbformat.read(chapter, as_version=4)
    page = Page(chapter)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = page.markdown(cell.source)
    notebook.cells[1].source = installing_from_repository(notebook.cells[1].source)
    if page.cited:
        text = "## References\n\n" + references(page.cited)
        notebook.cells.append(nbformat.v4.new_markdown_cell(text, id="references"))
    notebook.metadata |= {"accelerator": "GPU", "colab": {"provenance": [], "toc_visible": True}}
    return notebook


# --- Markdown


class Page:
    """The translation of one chapter's words; it remembers what they cite."""

    def __init__(self, chapter: Path) -> None:
        self.chapter = chapter
        self.cited: set[str] = set()

    def markdown(self, text: str) -> str:
        """Plain Markdown for MyST Markdown."""
        done: list[str] = []
        plain: list[str] = []
        lines = iter(text.splitlines())
        for line in lines:
            fence = FENCE.match(line)
            if not fence:
                plain.append(line)
                continue
            if plain:
                done.append(self.inline("\n".join(plain)))
                plain = []
            marks, directive, title = fence.groups()
            body = []
            for inner in lines:
                if inner.rstrip() == marks:
                    break
                body.append(inner)
            if directive is None:  # a listing
                done += [line, *body, marks]
                continue
            options = list(takewhile(OPTION.match, body))
            content = "\n".join(body[len(options) :]).strip()
            done.append(self.directive(directive)(title.strip(), options, content))
        if plain:
            done.append(self.inline("\n".join(plain)))
        return "\n".join(done)

    def directive(self, name: str) -> Callable[[str, list[str], str], str]:
        known = {
            "admonition": self.admonition,
            "colab": self.card,
            "dropdown": self.dropdown,
            "list-table": self.list_table,
            "papers": self.papers,
        }
        if name not in known:
            raise ValueError(f"{self.chapter}: {{{name}}} is not known in plain Markdown")
        return known[name]

    def admonition(self, title: str, options: list[str], body: str) -> str:
        return f"### {self.inline(title)}\n\n{self.markdown(body)}\n"

    def dropdown(self, title: str, options: list[str], body: str) -> str:
        # Markdown stands between HTML where empty lines part them.
        summary = f"<summary>{self.inline(title)}</summary>"
        return f"\n<details>{summary}\n\n{self.markdown(body)}\n\n</details>\n"

    def card(self, title: str, options: list[str], body: str) -> str:
        source = f"{repository()}/blob/main/{self.chapter.relative_to(ROOT)}"
        return (
            f"*A chapter of [lossbook]({repository()}), made from [its source]({source}). Run the cells "
            "from the top; then sliders move, and what you change counts.*"
        )

    def list_table(self, title: str, options: list[str], body: str) -> str:
        rows = re.split(r"^\* - ", body, flags=re.MULTILINE)[1:]
        cells = [[self.cell(item) for item in re.split(r"\n  - ", row)] for row in rows]
        if ":header-rows: 1" not in options:
            cells.insert(0, [""] * len(cells[0]))
        caption = f"**{self.inline(title)}**\n\n" if title else ""
        return f"{caption}{table(cells)}\n"

    def papers(self, title: str, options: list[str], body: str) -> str:
        place = self.chapter.relative_to(ROOT / "chapters").with_suffix("").parts[:2]
        own = [p for p in papers.load().values() if (p.part, p.chapter) == place]
        rows = [[self.cite_in_text(p.key), self.cell(p.claim), p.verdict] for p in own]
        return table([["paper", "claim", "verdict"], *rows]) + "\n"

    def cell(self, text: str) -> str:
        """A table's cell: one line, without the sign that parts cells."""
        flat = self.inline(" ".join(text.split()))
        parts = re.split(r"(\$[^$]*\$)", flat)
        parts[::2] = [words.replace("|", r"\|") for words in parts[::2]]
        parts[1::2] = [
            formula.replace(r"\|", r"\Vert ").replace("|", r"\vert ") for formula in parts[1::2]
        ]
        return "".join(parts)

    # --- within a line

    def inline(self, text: str) -> str:
        text = EQUATION.sub(lambda found: rf"\tag{{{equations()[found[1]][1]}}}" + "\n$$", text)
        text = LINK.sub(lambda found: link(self.file(found[2]), found[1]), text)
        text = ROLE.sub(lambda found: self.role(found[1])(found[2]), text)
        for macro, meaning in MACROS.items():
            text = re.sub(re.escape(macro) + "(?![A-Za-z])", meaning.replace("\\", r"\\"), text)
        return text

    def role(self, name: str) -> Callable[[str], str]:
        known: dict[str, Callable[[str], str]] = {
            "cite:p": self.cite_in_parentheses,
            "cite:t": self.cite_in_text,
            "doc": self.document,
            "eq": self.equation,
            "func": lambda path: f"`{path.rsplit('.', 1)[-1]}`",
            "index": lambda words: words,
        }
        if name not in known:
            raise ValueError(f"{self.chapter}: {{{name}}} is not known in plain Markdown")
        return known[name]

    def cite_in_text(self, keys: str) -> str:
        return ", ".join(
            linked(re.sub(r", (\w+)$", r" (\1)", label(entry)), entry) for entry in self.cite(keys)
        )

    def cite_in_parentheses(self, keys: str) -> str:
        return f"({'; '.join(linked(label(entry), entry) for entry in self.cite(keys))})"

    def cite(self, keys: str) -> list[Entry]:
        names = [key.strip() for key in keys.split(",")]
        self.cited.update(names)
        return [bibliography()[name] for name in names]

    def equation(self, target: str) -> str:
        chapter, number = equations()[target]
        return f"({number})" if chapter == self.chapter else f"({number}) of {link(chapter)}"

    def document(self, target: str) -> str:
        words, _, path = target.rstrip(">").rpartition("<")
        return link(self.file(path), words.strip())

    def file(self, path: str) -> Path:
        """The file that a path leads to: from the book's root, or from this chapter's folder."""
        start = ROOT if path.startswith("/") else self.chapter.parent
        file = (start / path.removeprefix("/")).resolve()
        for found in (
            file,
            file.with_name(f"{file.name}.ipynb"),
            file.with_name(f"{file.name}.md"),
        ):
            if found.is_file() or str(found.relative_to(ROOT)) in BUILT:
                return found
        raise ValueError(f"{self.chapter} leads to {path}, which there is not")


def link(file: Path, words: str = "") -> str:
    """A link to a chapter's copy or to a page in the repository; words alone to what only the book has."""
    if str(file.relative_to(ROOT)) in BUILT:
        return words
    page = f"{repository()}/blob/main/{file.relative_to(ROOT)}"
    return f"[{words or title(file)}]({copy_on_colab(file) if file.suffix == '.ipynb' else page})"


def table(rows: list[list[str]]) -> str:
    """A Markdown table with its first row as head."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others])


@cache
def equations() -> dict[str, tuple[Path, int]]:
    """The chapter and the number of every labelled equation, numbered as in the book."""
    found = {}
    for chapter in chapters():
        cells = nbformat.read(chapter, as_version=4).cells
        words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for number, name in enumerate(EQUATION.findall(words), start=1):
            found[name] = (chapter, number)
    return found


def title(file: Path) -> str:
    text = (
        nbformat.read(file, as_version=4).cells[0].source
        if file.suffix == ".ipynb"
        else file.read_text(encoding="utf-8")
    )
    return text.splitlines()[0].removeprefix("# ")


# --- The bibliography


@cache
def bibliography() -> dict[str, Entry]:
    return dict(parse_file(ROOT / "book" / "references.bib").entries)


def label(entry: Entry) -> str:
    return AuthorYearLabels().label(entry)


def linked(words: str, entry: Entry) -> str:
    """The words with a link to the work, if it has an address."""
    doi, url = entry.fields.get("doi"), entry.fields.get("url")
    where = url or (f"https://doi.org/{doi}" if doi else None)
    return f"[{words}]({where})" if where else words


def references(keys: set[str]) -> str:
    """A list of these works, in the order of their authors."""
    entries = sorted((bibliography()[key] for key in keys), key=lambda entry: label(entry).lower())
    formatted = AuthorYear().format_entries(entries)
    return "\n".join("- " + " ".join(one.text.render(Backend()).split()) for one in formatted)


# --- Outputs


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The notebook with the outputs of its executed chapter, each in one form that Colab shows."""
    runs = (cell for cell in executed.cells if cell.cell_type == "code")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            run = next(runs)
            cell.outputs = [lean(output) for output in run.outputs]
            cell.execution_count = run.execution_count
    return notebook


def lean(output: NotebookNode) -> NotebookNode:
    data = output.get("data", {})
    if "image/png" in data:
        words = data["text/plain"]
        output.data = NotebookNode({"image/png": smaller(data["image/png"]), "text/plain": words})
        output.metadata = NotebookNode({"image/png": {"alt": words.strip("[]")}})
    return output


def smaller(png: str) -> str:
    """A picture in the size of the screen and 256 colors, in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    size = round(picture.width * SHRINK), round(picture.height * SHRINK)
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).quantize(256).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def main() -> None:
    cached = get_cache(BUILD / ".jupyter_cache")
    shutil.rmtree(ROOT / COPIES, ignore_errors=True)
    for chapter in chapters():
        executed = cached.get_cache_bundle(
            cached.match_cache_notebook(nbformat.read(chapter, nbformat.NO_CONVERT)).pk
        ).nb
        file = ROOT / COPIES / chapter.relative_to(ROOT)
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(with_outputs(copy(chapter), executed), file)
        print(file.relative_to(ROOT), f"{file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
