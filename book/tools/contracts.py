"""The contract of every loss of the package: measured once, and shown as a matrix with its evidence.

As a script it measures, in two processes, and keeps the findings in ``_build/contracts``; `pages` writes the
matrix and, for each chapter, a page of cards.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import torch
import yaml
from filters import controls, slug
from tqdm import tqdm

from lossbook.classification.surrogates.margins import (
    exponential,
    logistic,
    perceptron,
    ramp,
    squared,
    squared_hinge,
)
from lossbook.lab.contracts import GROUPS, Contract, Finding, contract, facts
from lossbook.lab.contracts.finding import SIGNS, shown
from lossbook.lab.contracts.kinds import losses

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
RESULTS = ROOT / "_build" / "contracts" / "contracts.json"
PROCESSES = 2

#: Every loss is examined at its defaults; these at further settings, which change what it promises. Among
#: them are all of which data/facts.yml knows something.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "comp_sum_loss": [{"tau": 0.0}, {"tau": 1.7}, {"tau": 2.0}],
    "crammer_singer_loss": [{"phi": logistic}],
    "cross_entropy": [{"label_smoothing": 0.1}],
    "encouraging_loss": [{"end_point": 1.0}],
    "entmax_loss": [{"alpha": 1.0}, {"alpha": 2.0}],
    "focal_loss": [{"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 5.0}],
    "hard_contrastive_loss": [{"temperature": 0.1}],
    "harmonic_loss": [{"epsilon": 0.0}],
    "info_nce_loss": [{"temperature": 0.5}],
    "ldr_kl_loss": [{"margin": 1.0}],
    "lee_lin_wahba_loss": [{"phi": phi} for phi in (squared_hinge, logistic, exponential)],
    "margin_loss": [
        {"phi": phi} for phi in (squared_hinge, squared, logistic, exponential, ramp, perceptron)
    ],
    "nt_xent_loss": [{"temperature": 0.1}],
    "poly_loss": [{"epsilon": -1.0}, {"epsilon": 0.0}],
    "sparse_softmax_loss": [{"k": 2}],  # by default k = 10, more than the classes that are tried
    "vector_scaling_loss": [{"gamma": 0.0}],
    "weston_watkins_loss": [{"phi": phi} for phi in (squared_hinge, logistic, exponential)],
    "z_loss": [{"sharpness": 5.0}],
}

#: Properties whose finding comes with a number worth a place in the matrix, when they have this verdict: the
#: bounds and constants of what is not refuted, how far from the truth the best forecast is, and up to which
#: size of the inputs all is well.
CONSTANTS = {
    "bounded below": "not refuted",
    "bounded above": "not refuted",
    "Lipschitz": "not refuted",
    "smooth": "not refuted",
    "proper": "refuted",
    "range in float64": "refuted",
    "range in float32": "refuted",
    "range in float16": "refuted",
    "range in bfloat16": "refuted",
}


# --- measuring


class Row(NamedTuple):
    """A loss at a setting, which is a row of the matrix."""

    loss: str
    settings: dict[str, Any]


def rows() -> list[Row]:
    """All that is examined, in the order of reading: parts and chapters, in a chapter the module's order."""
    places = list(titles())
    names = sorted(losses(), key=lambda name: places.index(place(name)))
    return [Row(name, settings) for name in names for settings in ({}, *SETTINGS.get(name, []))]


def place(loss: str) -> tuple[str, str]:
    """Part and chapter of a loss: its module's path says them."""
    _, part, chapter, *_ = losses()[loss].__module__.split(".")
    return part, chapter


@cache
def titles() -> dict[tuple[str, str], str]:
    """What the chapters are called, by part and chapter, in the order of reading."""
    parts = yaml.safe_load((ROOT / "data" / "chapters.yml").read_text())
    return {
        (part["part"], chapter): title
        for part in parts
        for chapter, title in part["chapters"].items()
    }


def measure(row: Row) -> Contract:
    return contract(losses()[row.loss], name=row.loss, **row.settings)


def fingerprint() -> str:
    """A hash of everything that the findings depend on."""
    sources = [path.read_bytes().decode() for path in sorted((ROOT / "lossbook").rglob("*.py"))]
    examined = [
        (row.loss, {key: getattr(value, "__name__", value) for key, value in row.settings.items()})
        for row in rows()
    ]
    return hashlib.sha256(json.dumps([sources, examined, torch.__version__]).encode()).hexdigest()


def main() -> int:
    stamp, everything = fingerprint(), rows()
    if RESULTS.exists() and json.loads(RESULTS.read_text())["fingerprint"] == stamp:
        print(f"{len(everything)} loss contracts, none to measure")
        return 0
    began = time.monotonic()
    measured: dict[int, Contract] = {}
    failures = 0
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = {pool.submit(measure, row): i for i, row in enumerate(everything)}
        for job in tqdm(as_completed(jobs), "loss contracts", len(jobs)):
            try:
                measured[jobs[job]] = job.result()
            except Exception as error:
                failures += 1
                row, notes = everything[jobs[job]], getattr(error, "__notes__", [])
                print(f"{row.loss} {row.settings or ''}: {error!r}", *notes, sep="\n    ")
    print(f"{len(everything)} loss contracts in {time.monotonic() - began:.0f} s", flush=True)
    if failures:
        print(f"{failures} of them failed; none is kept", file=sys.stderr)
        return 1
    contracts = [measured[i].to_json() for i in range(len(everything))]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"fingerprint": stamp, "contracts": contracts}, indent=1))
    return 0


@cache
def load() -> dict[str, Contract]:
    """The measured contracts by title, ``focal_loss`` or ``focal_loss(gamma=5.0)``."""
    if not RESULTS.exists():
        raise SystemExit("no loss contracts: run python book/tools/contracts.py first")
    contracts = map(Contract.from_json, json.loads(RESULTS.read_text())["contracts"])
    return {one.title: one for one in contracts}


# --- where the evidence stands


def page_of(one: Contract) -> str:
    """The name of the page that has a contract's card."""
    return "-".join(place(one.loss))


def anchor(one: Contract, name: str = "") -> str:
    """The address of a card on its page, or of a finding in it."""
    words = f"contract {one.title} {name}".lower().replace("=-", " minus ")
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def line(loss: str) -> str:
    """What was found of a loss at its defaults, in a line of reStructuredText that leads to its cards."""
    one = load()[loss]
    mathematical = [name for group in GROUPS if group != "numbers" for name in GROUPS[group]]
    found = "; ".join(
        f"{SIGNS[verdict]} {verdict}: {', '.join(names)}"
        for verdict in ("not refuted", "refuted")
        if (names := [name for name in mathematical if one[name].verdict == verdict])
    )
    cards = [
        f":ref:`{other.title} <{anchor(other)}>`" for other in load().values() if other.loss == loss
    ]
    return f"Contract: {found}; evidence: {', '.join(cards)}."


# --- the pages


def pages() -> dict[str, str]:
    """The matrix and the cards: path under ``book`` and Markdown."""
    contracts = list(load().values())
    written = {"contracts/index.md": matrix_page(contracts)}
    for page, chapter in groupby(contracts, page_of):
        written[f"contracts/{page}.md"] = cards_page(list(chapter))
    return written


#: A loss that the package does not have, and the question; the last line is evaluated.
EXAMPLE = """import torch
from lossbook.lab.contracts import contract

def squared_miss(logits, target):
    wrong = 1 - torch.softmax(logits, 1).gather(1, target[:, None]).squeeze(1)
    return wrong.square()

contract(squared_miss, kind="logits, target")"""


def matrix_page(contracts: list[Contract]) -> str:
    """The whole matrix, what its words mean, and how to examine another loss."""
    return Template(_file("contracts.md")).substitute(
        losses=len({one.loss for one in contracts}),
        rows=len(contracts),
        properties=sum(map(len, GROUPS.values())),
        matrix=matrix(contracts),
        theory=theory(contracts),
        definitions=definitions(),
        example=EXAMPLE,
        answer=answer(),
        evidence="\n".join(
            f"- {{doc}}`{titles()[where]} <{'-'.join(where)}>`"
            for where in dict.fromkeys(place(one.loss) for one in contracts)
        ),
    )


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def matrix(contracts: list[Contract]) -> str:
    """Filters, the table with its legend, and the line that says a cell in words."""
    tried = {
        (name, finding.verdict)
        for one in contracts
        for name, finding in one.findings.items()
        if finding.verdict in ("refuted", "not refuted")
    }
    universal = [
        f"{name}: {verdict}"
        for group in GROUPS.values()
        for name in group
        for verdict in ("refuted", "not refuted")
        if (name, verdict) in tried
    ]
    places = [place(one.loss) for one in contracts]
    menus = {
        "part": list(dict.fromkeys(part for part, _ in places)),
        "chapter": list(dict.fromkeys(chapter for _, chapter in places)),
        "kind": sorted({one.kind for one in contracts}),
        "finding": universal,
        "and": universal,
    }
    groups = "".join(
        f'<label><input type="checkbox" id="show-{slug(group)}" checked> {group}</label>'
        for group in GROUPS
    )
    hiding = "".join(
        f".bd-article:has(#show-{slug(group)}:not(:checked)) .{slug(group)} {{ display: none; }}\n"
        for group in GROUPS
    )
    legend = "".join(
        f'<span><span class="{slug(verdict)} q3">{SIGNS[verdict]}</span> {verdict}</span>'
        for verdict in SIGNS
    )
    legend += "<span><span><u>✓</u></span> the literature knows</span>"
    return (
        f"<style>{_file('contracts.css')}{hiding}</style>"
        f"{controls('.lossbook-matrix tr[data-kind]', menus)}"
        f'<fieldset class="lossbook-columns"><legend>columns</legend>{groups}</fieldset>'
        f'<p class="lossbook-legend">{legend}</p>'
        '<div class="lossbook-matrix" role="region" tabindex="0" '
        'aria-label="Every loss and every property; the arrow keys go from cell to cell">'
        f'<table role="grid"><caption>Loss contracts</caption>{_head()}{_body(contracts)}</table></div>'
        '<output class="lossbook-words"></output>'
        f"<script>{_file('contracts.js')}</script>"
    )


def _head() -> str:
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(group)}" class="{slug(name)}">{name}</th>'
        for name, group in GROUPS.items()
        if group
    )
    names = "".join(
        f'<th scope="col" class="{slug(group)}"><a href="#property-{slug(name)}">{name}</a></th>'
        for group, properties in GROUPS.items()
        for name in properties
    )
    return f'<thead><tr><td></td>{groups}</tr><tr><th scope="col">loss</th>{names}</tr></thead>'


def _body(contracts: list[Contract]) -> str:
    shades = _shades(contracts)
    bodies = []
    for where, chapter in groupby(contracts, lambda one: place(one.loss)):
        lines = "".join(_line(one, shades) for one in chapter)
        heading = f'<tr><th scope="rowgroup" colspan="99"><span>{escape(titles()[where])}</span></th></tr>'
        bodies.append(f"<tbody>{heading}{lines}</tbody>")
    return "\n".join(bodies)


def _line(one: Contract, shades: dict[str, list[float]]) -> str:
    part, chapter = place(one.loss)
    found = " ".join(
        slug(f"{name}: {finding.verdict}")
        for name, finding in one.findings.items()
        if finding.verdict in ("refuted", "not refuted")
    )
    cells = "".join(
        _cell(one, name, group, shades.get(name, []))
        for group, properties in GROUPS.items()
        for name in properties
    )
    return (
        f'<tr data-part="{part}" data-chapter="{chapter}" data-kind="{slug(one.kind)}" '
        f'data-finding="{found}" data-and="{found}"><th scope="row">'
        f'<a href="{page_of(one)}.html#{anchor(one)}">{_breakable(one.title)}</a></th>{cells}</tr>\n'
    )


def _breakable(title: str) -> str:
    """A name that a narrow column may break between its words."""
    return re.sub("([_(=])", r"\1<wbr>", escape(title))


def _cell(one: Contract, name: str, group: str, values: list[float]) -> str:
    """Sign and number of a finding, linked to its evidence, in its words for those who hear the page."""
    finding = one[name]
    kind = slug(finding.verdict)
    if any(fact.property == name for fact in known(one)):
        kind += " known"
    if finding.verdict == "measured" and finding.value is not None:
        kind += f" q{sum(value < finding.value for value in values) * 5 // max(len(values), 1)}"
    return (
        f'<td class="{slug(group)} {kind}"><a href="{page_of(one)}.html#{anchor(one, name)}" '
        f'aria-label="{escape(f"{finding.short}: {finding.text}")}">{_shown(name, finding)}</a></td>'
    )


def brief(finding: Finding) -> str:
    """Sign and verdict, of a measured quantity its number: ✗ refuted, ≈ 0.23."""
    number = finding.value if finding.verdict == "measured" else None
    return f"{SIGNS[finding.verdict]} {finding.short if number is None else _number(number)}"


def _shown(name: str, finding: Finding) -> str:
    """What a cell shows of a finding: its sign, its number, or both."""
    if finding.value is not None and finding.verdict == "measured":
        return _number(finding.value)
    if finding.value is not None and finding.verdict == CONSTANTS.get(name):
        return f"{SIGNS[finding.verdict]} <small>{_number(finding.value)}</small>"
    return SIGNS[finding.verdict]


def _number(value: float) -> str:
    """Two digits in little space."""
    return f"{value + 0.0:.2g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def _shades(contracts: list[Contract]) -> dict[str, list[float]]:
    """For each property the numbers of its column: a number's rank among them is its shade."""
    columns: dict[str, list[float]] = {}
    for one in contracts:
        for name, finding in one.findings.items():
            if finding.verdict == "measured" and finding.value is not None:
                columns.setdefault(name, []).append(finding.value)
    return columns


def known(one: Contract) -> list[facts.Fact]:
    """What the literature says of a loss at these settings."""
    return facts.of(one.loss, one.settings)


def theory(contracts: list[Contract]) -> str:
    """How many facts of the literature stand beside the findings, and which findings contradict one."""
    pairs = [(one, fact) for one in contracts for fact in known(one)]
    differ = [
        f"{{contract}}`{one.title}: {fact.property}` ({one.title}: {fact.property})"
        for one, fact in pairs
        if facts.disagreement(fact, one[fact.property])
    ]
    verdict = f"These do not: {', '.join(differ)}." if differ else "All of them do."
    return f"There are {len(pairs)} such facts. {verdict}"


def definitions() -> str:
    """Every property in one sentence: the first line of its function's docstring."""
    lines = []
    for group, properties in GROUPS.items():
        lines.append(f"### {group.capitalize()}\n")
        for name, function in properties.items():
            sentence = (inspect.getdoc(function) or "").partition("\n")[0].replace("``", "`")
            lines.append(f'<span id="property-{slug(name)}"></span>**{name}**\n: {sentence}\n')
    return "\n".join(lines)


def answer() -> str:
    """What the example prints."""
    scope: dict[str, Any] = {}
    *definition, question = EXAMPLE.splitlines()
    exec("\n".join(definition), scope)
    return repr(eval(question, scope))


# --- cards


def cards_page(contracts: list[Contract]) -> str:
    """The cards of the losses of a chapter."""
    introduction = (
        f"# Contracts: {titles()[place(contracts[0].loss)]}\n\n"
        "The evidence behind the rows of {doc}`the matrix <index>`, which says what the properties mean. "
        "A line opens on the points that were tried.\n\n"
        f"```{{raw}} html\n<style>{_file('contracts.css')}</style>\n```\n"
    )
    return "\n".join([introduction, *map(card, contracts)])


def card(one: Contract) -> str:
    """All findings of a loss at a setting."""
    loss = losses()[one.loss]
    defaults = {
        name: getattr(p.default, "__name__", str(p.default))
        for name, p in inspect.signature(loss).parameters.items()
        if p.kind is p.KEYWORD_ONLY
        and p.default not in (p.empty, None, False)
        and name not in ("ignore_index", "reduction")
    }
    settings = ", ".join(
        f"{name} = {value}" for name, value in {**defaults, **one.settings}.items()
    )
    lines = [
        f"({anchor(one)})=\n## {one.title}\n",
        f"{{func}}`~{loss.__module__}.{one.loss}`, a loss of {one.kind}"
        + (f", with {settings}.\n" if settings else ".\n"),
    ]
    for group, properties in GROUPS.items():
        lines.append(f'<p class="lossbook-group">{group}</p>\n')
        lines += [evidence(one, name) for name in properties]
    return "\n".join(lines)


def evidence(one: Contract, name: str) -> str:
    """A finding with the points behind it, and what theory says."""
    finding = one[name]
    line = (
        f'<span class="sign">{SIGNS[finding.verdict]}</span> <strong>{name}</strong> '
        f"<em>{finding.short}</em>: {escape(finding.text)}"
    )
    points = "".join(
        f"<li>{escape(key)}: <code>{escape(shown(value))}</code></li>"
        for key, value in finding.evidence.items()
    )
    if points:
        line = f"<details><summary>{line}</summary><ul>{points}</ul></details>"
    parts = [
        f'<div class="lossbook-finding {slug(finding.verdict)}" id="{anchor(one, name)}">{line}',
        *(said(fact, finding) for fact in known(one) if fact.property == name),
        "</div>\n",
    ]
    return "\n\n".join(parts)


def said(fact: facts.Fact, finding: Finding) -> str:
    """A fact of the literature, and whether the finding agrees."""
    difference = facts.disagreement(fact, finding)
    agreement = (
        f"**The measurement disagrees** ({difference})." if difference else "Measured: agrees."
    )
    return f"Theory, {{cite:t}}`{fact.source}`: {fact.note} {agreement}"


if __name__ == "__main__":
    sys.exit(main())
