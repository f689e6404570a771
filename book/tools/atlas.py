"""The paper atlas: every paper of data/papers.yml, what it claims, what came of it; one picture of all."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from html import escape
from importlib import import_module
from math import ceil
from pathlib import Path

import filters
import ledger
from docutils import nodes
from pybtex.database import parse_file

from lossbook.lab import papers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

HEADER = """# Paper atlas

All {count} papers of the book: what each claims, where it is treated, the functions that implement something
of it, and what came of its claim here. Most are *planned*: their chapter is not written yet. A few claim what
needs data or hardware beyond a notebook (*no toy experiment*). What the three measured verdicts mean stands
in the [claims ledger](claims.md), with all the numbers.
"""


def pages() -> dict[str, str]:
    """Totals, the picture, the filters, then all papers in the order of the chapters."""
    atlas = papers.load()
    year = years()
    menus = {
        "part": [part["part"] for part in ledger.parts()],
        "chapter": [chapter for part in ledger.parts() for chapter in part["chapters"]],
        "role": list(papers.ROLES),
        "verdict": list(papers.VERDICTS),
        "year": sorted(set(year.values())),
    }
    above = picture(year) + filters.controls(".lossbook-item", menus)
    sections = [HEADER.format(count=len(atlas)), ledger.totals()]
    sections.append(f"```{{raw}} html\n{above}\n```\n")
    for part in ledger.parts():
        sections.append(f"## {part['title']}\n")
        for chapter, title in part["chapters"].items():
            sections.append(f"### {title}\n")
            chosen = [p for p in atlas.values() if (p.part, p.chapter) == (part["part"], chapter)]
            sections += [entry(p, year[p.key], title) for p in chosen]
    return {"atlas.md": "\n".join(sections)}


def years() -> dict[str, str]:
    """The year of each paper, as the bibliography has it."""
    works = parse_file(str(ROOT / "book" / "references.bib")).entries
    return {key: works[key].fields["year"] for key in papers.load()}


def entry(paper: papers.Paper, year: str, chapter: str) -> str:
    """One paper as Markdown."""
    data = {"part": paper.part, "chapter": paper.chapter, "role": paper.role, "year": year}
    data["verdict"] = filters.slug(paper.verdict)
    measured = paper.verdict in papers.MEASURED
    planned = f"{{doc}}`{chapter} <parts/{paper.part}>` ({paper.verdict})"
    where = f"{ledger.place(paper)} ({chapter})" if measured else planned
    lines = [
        f"```{{item}} {' '.join(f'{name}={value}' for name, value in data.items())}",
        f":name: paper-{paper.key}\n",
        f"**{plain(paper.title)}**\\",
        f"{{cite:t}}`{paper.key}` · {paper.role}\n",
        f"{plain(paper.claim)}\n",
        f"- *In the book:* {where}",
    ]
    if paper.also:
        others = [titles()[other] for other in paper.also]
        lines.append(f"- *Matters to:* {'; '.join(others)}")
    if paper.functions:
        lines.append(f"- *Functions:* {', '.join(map(function, paper.functions))}")
    if paper.code:
        lines.append(f"- *Authors' code:* [{paper.code}](https://github.com/{paper.code})")
    if measured:
        run = ledger.run(paper)
        lines.append(f"- *Seen here:* {{verdict}}`{paper.key}`. {plain(run.statement)}")
        for name, item in run.evidence.items():
            interval = f"; difference {item.mean:+.3g} [{item.low:+.3g}, {item.high:+.3g}]"
            words = f"{name}: {item.text}{interval if item.seeds else ''}"
            lines.append(f"  - {plain(words)}")
    return "\n".join([*lines, "```\n"])


def anchor(paper: papers.Paper) -> str:
    """The id of a paper's entry."""
    return nodes.make_id(f"paper-{paper.key}")


def titles() -> dict[str, str]:
    """The chapters' titles."""
    return {name: title for part in ledger.parts() for name, title in part["chapters"].items()}


def plain(words: str) -> str:
    """Words that mean nothing but themselves in Markdown."""
    return re.sub(r"([\\`*_$<\[\]{}~|])", r"\\\1", words)


def function(path: str) -> str:
    """A function's name, linked to its entry in the reference and to its source."""
    module, name = path.rsplit(".", 1)
    home = getattr(import_module(module), name).__module__
    source = f"../_modules/{home.replace('.', '/')}.html#{name}"
    return f'{{py:obj}}`~{home}.{name}` (<a href="{source}">source</a>)'


# --- the picture

STACK = 3  # marks above each other before a year's column grows wider
MARKS = {  # drawn on a square of 12 by 12; what was measured is filled
    "planned": '<circle cx="6" cy="6" r="4" fill="none" stroke="currentColor"/>',
    "contradicted": '<path d="M2 2 10 10M10 2 2 10" stroke="#d9622b" stroke-width="3"/>',
    "not at this scale": '<path d="M6 .5 11.5 6 6 11.5 .5 6Z" fill="#b5830f"/>',
    "reproduced": '<circle cx="6" cy="6" r="5" fill="#1d9a6c"/>',
    "no toy experiment": '<path d="M2.5 2.5h7v7h-7Z" fill="none" stroke="currentColor"/>',
}


def picture(year: dict[str, str]) -> str:
    """The whole field as a table: chapters down, years across, in each cell a mark for every paper."""
    cells = defaultdict(list)
    for paper in sorted(papers.load().values(), key=lambda p: papers.VERDICTS.index(p.verdict)):
        cells[paper.chapter, year[paper.key]].append(paper)
    highest: dict[str, int] = {}
    for (_, column), chosen in sorted(cells.items(), key=lambda cell: cell[0][1]):
        highest[column] = max(highest.get(column, 0), len(chosen))
    widths = "".join(
        f".atlas tr > :nth-child({place}) {{ --marks: {ceil(number / STACK)}; }}"
        for place, number in enumerate(highest.values(), start=2)
    )
    head = "".join(
        f'<th scope="col"><a href="#year={column}" aria-label="{column}">’{column[2:]}</a></th>'
        for column in highest
    )
    body = ""
    for part in ledger.parts():
        body += (
            f'<tbody><tr><th scope="rowgroup" colspan="{len(highest) + 1}">'
            f'<a href="#part={part["part"]}">{escape(part["title"])}</a></th></tr>'
        )
        for chapter, title in part["chapters"].items():
            row = "".join(f"<td>{marks(cells[chapter, c], c)}</td>" for c in highest)
            name = f'<a href="#chapter={chapter}">{escape(title)}</a>'
            body += f'<tr><th scope="row">{name}</th>{row}</tr>'
        body += "</tbody>"
    return (
        f"<style>{(HERE / 'atlas.css').read_text()}{widths}</style>"
        f'<figure class="atlas" aria-label="All papers by chapter, year and verdict">{legend()}'
        f'<table><thead><tr><th scope="col">chapter</th>{head}</tr></thead>{body}</table>'
        '<output aria-live="off">Every mark is a paper. Point at one to read its title; click to go to its '
        "entry.</output>"
        f"</figure><script>{(HERE / 'atlas.js').read_text()}</script>"
    )


def marks(chosen: list[papers.Paper], year: str) -> str:
    """The papers of one chapter and one year."""
    links = "".join(
        f'<a href="#{anchor(paper)}" title="{escape(f"{paper.title} ({year}), {paper.verdict}")}">'
        f"{mark(paper.verdict)}</a>"
        for paper in chosen
    )
    return f"<div>{links}</div>" if links else ""


def mark(verdict: str) -> str:
    """The sign of a verdict."""
    return f'<svg aria-hidden="true"><use href="#mark-{filters.slug(verdict)}"/></svg>'


def legend() -> str:
    """What the marks mean, and how many there are of each; it also holds their drawings."""
    drawings = "".join(
        f'<symbol id="mark-{filters.slug(verdict)}" viewBox="0 0 12 12">{drawing}</symbol>'
        for verdict, drawing in MARKS.items()
    )
    count = Counter(p.verdict for p in papers.load().values())
    links = "".join(
        f'<a href="#verdict={filters.slug(v)}">{mark(v)} {v} ({count[v]})</a>' for v in MARKS
    )
    return f'<svg aria-hidden="true" style="display:none">{drawings}</svg><figcaption>{links}</figcaption>'
