"""The claims ledger, from data/papers.yml and the last run of the chapters."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import filters
import yaml
from docutils import nodes

from lossbook.lab import claims, papers

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "_build" / "claims" / "small"

HEADER = """# Claims ledger

Each chapter repeats the experiments of its papers at a scale that a laptop can run, and records what came of
them. This page is written by the build from the last run. Contradicted claims stand first: they teach most.
What each paper claims, tried or not, is in the [paper atlas](atlas.md).

A claim is **reproduced** when every measured quantity supports it (for quantities with chance in them: the
95 % interval over seeds lies on the claim's side of zero), **contradicted** when one of them clearly says the
opposite, and **not at this scale** when the interval holds zero. None of these verdicts is about the paper's
own experiments, which are larger; they say what a reader can see here. Seeds differ in initial weights, in
the order of the batches and in what is drawn at random; the split of the data is one.

In the small pictures the vertical line is zero, the dot the mean difference over seeds and the bar its 95 %
interval, each drawn to its own scale: to the right of the line it supports the claim.
"""


def pages() -> dict[str, str]:
    """Totals, then every claim that was tried, contradicted ones first."""
    atlas = papers.load()
    tried = [p for p in atlas.values() if p.verdict in papers.MEASURED]
    missing = [p.key for p in tried if not (LEDGER / f"{p.key}.json").exists()]
    if missing:
        raise SystemExit(f"no recorded run for {', '.join(missing)}: execute their chapters first")
    menus = {
        "part": list(dict.fromkeys(p.part for p in tried)),
        "chapter": list(dict.fromkeys(p.chapter for p in tried)),
        "verdict": list(papers.MEASURED),
    }
    controls = filters.controls(".lossbook-item", menus)
    sections = [HEADER, totals(), f"```{{raw}} html\n{controls}\n```\n"]
    for verdict in papers.MEASURED:
        chosen = [p for p in tried if p.verdict == verdict]
        if chosen:
            sections.append(f"## {verdict.capitalize()}\n")
        sections += [entry(p, run(p)) for p in chosen]
    return {"claims.md": "\n".join(sections)}


def entry(paper: papers.Paper, run: claims.Claim) -> str:
    """One claim: what the paper says, what was tested, what was measured."""
    where = f"part={paper.part} chapter={paper.chapter} verdict={filters.slug(paper.verdict)}"
    return f"""````{{item}} {where}
:name: claim-{paper.key}

{{cite:t}}`{paper.key}` in {place(paper)}. *The paper:* {paper.claim}

```{{raw}} html
{run._repr_html_()}
```
````
"""


def run(paper: papers.Paper) -> claims.Claim:
    """What the last run of the chapters recorded for a paper."""
    recorded = json.loads((LEDGER / f"{paper.key}.json").read_text())
    evidence = {name: claims.Evidence(**item) for name, item in recorded.pop("evidence").items()}
    return claims.Claim(**recorded, evidence=evidence)


class Home(NamedTuple):
    """Where the book tries a claim."""

    document: str
    heading: str


def home(paper: papers.Paper) -> Home:
    """The notebook of the paper's chapter that records its claim, and the heading above that cell."""
    single = ROOT / "chapters" / paper.part / f"{paper.chapter}.ipynb"
    for notebook in [single] if single.exists() else sorted(single.with_suffix("").glob("*.ipynb")):
        if paper.key not in claims.recorded_in(notebook):
            continue
        heading = ""
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heading = [heading, *re.findall(r"^##+ (.+)$", source, re.MULTILINE)][-1]
            elif re.search(rf"""\bclaims\.record\(\s*["']{paper.key}["']""", source):
                return Home(str(notebook.relative_to(ROOT).with_suffix("")), heading)
    raise LookupError(f"no notebook of {paper.part}/{paper.chapter} records {paper.key}")


def place(paper: papers.Paper) -> str:
    """A link to the section of the book that tries a paper's claim."""
    document, heading = home(paper)
    return f'<a href="../{document}.html#{nodes.make_id(heading)}">{heading}</a>'


@cache
def parts() -> list[dict[str, Any]]:
    """The seven parts and their chapters, in the order of reading."""
    return yaml.safe_load((ROOT / "data" / "chapters.yml").read_text())


def totals() -> str:
    """How many papers each part has, by verdict, as a table."""
    count = Counter((part, p.verdict) for p in papers.load().values() for part in (p.part, "all"))
    titles = {part["part"]: part["title"] for part in parts()} | {"all": "all"}
    lines = ["```{container} lossbook-totals", ""]
    lines += [f"| part | {' | '.join(papers.VERDICTS)} | all |", f"|---|{'--:|' * 6}"]
    for part, title in titles.items():
        numbers = [count[part, verdict] for verdict in papers.VERDICTS]
        lines.append(f"| {title} | {' | '.join(map(str, [*numbers, sum(numbers)]))} |")
    return "\n".join([*lines, "```\n"])
