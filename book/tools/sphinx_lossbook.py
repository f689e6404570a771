"""What the book needs from Sphinx beyond Jupyter Book: offline pages, the repository's address, the atlas.

* Browser files fetched by ``vendor.py`` are served by the book itself.
* The public address of the repository is read from ``pyproject.toml``, where alone it stands.
* ``{colab}`` draws the badge that opens the chapter on Colab.
* ``{papers}`` lists the papers of the chapter with their recorded verdicts.
* ``{verdict}`key` `` says what came of a paper's claim and links to its entry in the claims ledger.
* ``{item} part=classification year=2019`` holds Markdown in a block with these data attributes, for filters.
* ``{filters} .card`` with menus in YAML puts the search field and the menus for such blocks on a page.
* ``{contract}`focal_loss: proper` `` says what came of a property of a loss and links to the evidence.
* ``{assignments}`` lists the course's assignments.
* ``{chapters} part`` lists a part's chapters, written and planned; without a part, all seven parts.
* A function's entry in the reference ends with the papers that it implements something of, a loss's with its
  contract.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from string import ascii_lowercase
from typing import Any, ClassVar

import contracts
import filters
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from repository import ROOT, repository
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective, SphinxRole

from lossbook.lab import papers

VENDOR = ROOT / "_build" / "vendor"
COPIES = "book/colab"  # the chapters as colab.py writes them


def configure(app: Sphinx, config: Config) -> None:
    """The repository's address for the theme's buttons; local files for mathematics and widgets."""
    config.html_theme_options = {
        **config.html_theme_options,
        "repository_url": repository(),
        "repository_branch": "main",
        "path_to_docs": COPIES,  # where the launch button finds a notebook
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
    if VENDOR.exists():
        config.mathjax_path = "vendor/mathjax/es5/tex-mml-chtml.js"
        config.nb_ipywidgets_js = {"vendor/html-manager/dist/embed.js": {}}


def serve_vendored_files(app: Sphinx) -> None:
    # Copied past html_static_path, because Jupyter Book puts a script tag on every page for every .js in it.
    if VENDOR.exists():
        shutil.copytree(VENDOR, Path(app.outdir) / "_static" / "vendor", dirs_exist_ok=True)


def leave_out_thebe(app: Sphinx) -> None:
    # Jupyter Book always loads sphinx-thebe, whose constant, declared twice, is an error on every page.
    for listeners in app.events.listeners.values():
        listeners[:] = [
            entry for entry in listeners if not entry.handler.__module__.startswith("sphinx_thebe")
        ]


def skip_fields(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool:
    """A named tuple's fields stand in its docstring already."""
    return skip or str(getattr(member, "__doc__", "")).startswith("Alias for field number")


@cache
def papers_of_functions() -> dict[str, list[papers.Paper]]:
    """The papers of each function, which is named with the module that it is defined in."""
    found = defaultdict(list)
    for paper in papers.load().values():
        for path in paper.functions:
            module, name = path.rsplit(".", 1)
            found[f"{getattr(import_module(module), name).__module__}.{name}"].append(paper)
    return found


def name_papers(
    app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]
) -> None:
    """The papers of a function and what came of their claims, below its docstring."""
    named = [
        f":cite:t:`{p.key}` (:ref:`atlas <paper-{p.key}>`, "
        + (f":verdict:`{p.key}`)" if p.verdict in papers.MEASURED else f"{p.verdict})")
        for p in papers_of_functions().get(name, ())
    ]
    if named:
        lines += ["", f"Papers: {'; '.join(named)}."]


def copy_on_colab(chapter: Path) -> str:
    """The address on Colab of a chapter's copy, which ``colab.py`` writes."""
    address = repository().removeprefix("https://github.com/")
    file = chapter.relative_to(ROOT)
    return f"https://colab.research.google.com/github/{address}/blob/main/{COPIES}/{file}"


class Colab(SphinxDirective):
    """A badge that opens this chapter's copy on Colab."""

    def run(self) -> list[nodes.Node]:
        target = copy_on_colab(ROOT / f"{self.env.docname}.ipynb")
        badge = f'<p><a class="colab-badge" href="{target}">Open in Colab</a></p>'
        return [nodes.raw("", badge, format="html")]


class Papers(SphinxDirective):
    """The papers of this chapter: what each claims, and what was seen here."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / "data" / "papers.yml"))
        _, part, chapter, *_ = self.env.docname.split("/")
        rows = [p for p in papers.load().values() if (p.part, p.chapter) == (part, chapter)]
        lines = ["| paper | claim | verdict |", "|---|---|---|"]
        for p in rows:
            verdict = f"{{verdict}}`{p.key}`" if p.verdict in papers.MEASURED else p.verdict
            lines.append(f"| {{cite:t}}`{p.key}` | {p.claim} | {verdict} |")
        holder = nodes.container(classes=["lossbook-papers"])
        self.state.nested_parse(StringList(lines, self.env.docname), 0, holder)
        return [holder]


class Verdict(SphinxRole):
    """What came of a paper's claim, linked to the entry of the ledger that has the measurements."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.note_dependency(str(ROOT / "data" / "papers.yml"))
        link = pending_xref(
            refdomain="std",
            reftype="ref",
            reftarget=f"claim-{self.text}",
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        link += nodes.inline(text=papers.load()[self.text].verdict)
        return [link], []


class ContractOf(SphinxRole):
    """What came of a property of a loss, ``focal_loss(gamma=5.0): convex``, linked to the evidence."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.note_dependency(str(contracts.RESULTS))
        title, name = self.text.rsplit(": ", 1)
        one = contracts.load()[title]
        page = self.env.app.builder.get_relative_uri(
            self.env.docname, f"book/contracts/{contracts.page_of(one)}"
        )
        address = f"{page}#{contracts.anchor(one, name)}"
        return [nodes.reference("", contracts.brief(one[name]), internal=True, refuri=address)], []


def name_contract(
    app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]
) -> None:
    """What was measured of a loss, below its docstring."""
    loss = name.rsplit(".", 1)[-1]
    if contracts.losses().get(loss) is member:
        lines += ["", contracts.line(loss)]


class Chapters(SphinxDirective):
    """The chapters of a part, or of the whole book: linked when written, named as planned when not."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        source = ROOT / "data" / "chapters.yml"
        self.env.note_dependency(str(source))
        holder = nodes.container(classes=["lossbook-chapters"])
        for part in yaml.safe_load(source.read_text()):
            if not self.arguments or self.arguments[0] == part["part"]:
                self.state.nested_parse(StringList(self.table(part), self.env.docname), 0, holder)
        return [holder]

    def table(self, part: dict[str, Any]) -> list[str]:
        contents = (ROOT / "_toc.yml").read_text()
        lines = [] if self.arguments else [f"**{part['title']}.** {part['question']}", ""]
        lines += ["| chapter | papers | |", "|---|---|---|"]
        for chapter, title in part["chapters"].items():
            document = f"chapters/{part['part']}/{chapter}"
            documents = [d for d in self.env.found_docs if f"{d}/".startswith(f"{document}/")]
            documents.sort(key=contents.index)  # as the reader meets them
            names = [title] if len(documents) == 1 else [d.split("/")[-1] for d in documents]
            links = ", ".join(f"{{doc}}`{n} </{d}>`" for n, d in zip(names, documents, strict=True))
            name = links if len(documents) == 1 else f"{title}: {links}".removesuffix(": ")
            count = sum(
                (p.part, p.chapter) == (part["part"], chapter) for p in papers.load().values()
            )
            here = self.env.app.builder.get_relative_uri(self.env.docname, "book/atlas")
            link = f'<a href="{here}#chapter={chapter}">{count}</a>'
            lines.append(f"| {name} | {link} | {'' if documents else 'planned'} |")
        return [*lines, ""]


class item(nodes.General, nodes.Element):
    """A block with data attributes."""


class Item(SphinxDirective):
    """Markdown in a block that carries data attributes, by which filters.js finds it."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"class": directives.class_option, "name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        pairs = (pair.partition("=") for pair in shlex.split(" ".join(self.arguments)))
        block = item(classes=["lossbook-item", *self.options.get("class", [])])
        block["data"] = {f"data-{name}": value for name, _, value in pairs}
        self.add_name(block)
        self.state.nested_parse(self.content, self.content_offset, block)
        return [block]


def open_item(translator: Any, node: item) -> None:
    translator.body.append(translator.starttag(node, "div", **node["data"]))


def close_item(translator: Any, node: item) -> None:
    translator.body.append("</div>\n")


class Filters(SphinxDirective):
    """The search field and the menus for the elements that a CSS selector finds; see ``filters.controls``."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        menus = yaml.safe_load("\n".join(self.content))
        return [nodes.raw("", filters.controls(self.arguments[0], menus), format="html")]


class Assignments(SphinxDirective):
    """The course's assignments: what they are about, how long they take, what they are worth."""

    def run(self) -> list[nodes.Node]:
        lines = ["```{list-table}", ":header-rows: 1", ":widths: 30 50 20", ""]
        lines += ["* - Assignment", "  - Tasks", "  - Time and points"]
        for file in sorted((ROOT / "book" / "assignments" / "source").glob("*/*.ipynb")):
            self.env.note_dependency(str(file))
            cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
            words = "\n".join(
                "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
            )
            title = re.search(r"^# (.+)$", words, re.MULTILINE)
            tasks = re.findall(r"^## Task \d+ · (.+) \((★+), (\d+) minutes\)$", words, re.MULTILINE)
            points = sum(cell["metadata"]["nbgrader"].get("points", 0) for cell in cells)
            minutes = sum(int(number) for _, _, number in tasks)
            described = "; ".join(f"{name} {stars}" for name, stars, _ in tasks)
            name = f"*{title[1] if title else file.stem}* (`{file.stem}`)"
            lines += [
                f"* - {name}",
                f"  - {described}",
                f"  - {minutes} minutes, {points:g} points",
            ]
        holder = nodes.container(classes=["lossbook-assignments"])
        self.state.nested_parse(StringList([*lines, "```"], self.env.docname), 0, holder)
        return [holder]


class AuthorYearLabels(BaseLabelStyle):
    """Bibliography labels as the text cites: Leng et al., 2022; a letter where two would be alike."""

    def format_labels(self, entries: list[Entry]) -> Iterator[str]:
        labels = [self.label(entry) for entry in entries]
        for i, label in enumerate(labels):
            alike = labels[:i].count(label)
            yield label + (ascii_lowercase[alike] if labels.count(label) > 1 else "")

    def label(self, entry: Entry) -> str:
        people = [
            " ".join((*person.prelast_names, *person.last_names))
            for person in entry.persons.get("author", [])
        ]
        names = people[0] if people else entry.fields["title"].split(":")[0].strip("{}")
        if len(people) > 2 or "others" in people:
            names += " et al."
        elif len(people) == 2:
            names += f" and {people[1]}"
        return f"{names}, {entry.fields.get('year', 'undated')}"


class AuthorYear(PlainStyle):
    default_label_style = AuthorYearLabels
    default_sorting_style = "author_year_title"


def setup(app: Sphinx) -> dict[str, Any]:
    register_plugin("pybtex.style.formatting", "lossbook", AuthorYear)
    app.connect("config-inited", configure)
    app.connect("builder-inited", leave_out_thebe)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", name_papers, priority=900)  # after napoleon
    app.connect("builder-inited", serve_vendored_files)
    app.add_directive("colab", Colab)
    app.add_directive("papers", Papers)
    app.add_directive("chapters", Chapters)
    app.add_directive("assignments", Assignments)
    app.add_node(item, html=(open_item, close_item))
    app.add_directive("item", Item)
    app.add_directive("filters", Filters)
    app.add_role("verdict", Verdict())
    app.add_role("contract", ContractOf())
    app.connect("autodoc-process-docstring", name_contract, priority=900)  # after napoleon
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
