"""Write the generated pages: the claims ledger, from data/papers.yml and the last run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from lossbook.lab import claims, papers

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "_build" / "claims" / "small"
ORDER = ("contradicted", "not at this scale", "reproduced")

HEADER = """# Claims ledger

Each chapter repeats the experiments of its papers at a scale that a laptop can run, and records what came of
them. This page is written by the build from the last run. Contradicted claims stand first: they teach most.

A claim is **reproduced** when every measured quantity supports it (for quantities with chance in them: the
95 % interval over seeds lies on the claim's side of zero), **contradicted** when one of them clearly says the
opposite, and **not at this scale** when the interval holds zero. None of these verdicts is about the paper's
own experiments, which are larger; they say what a reader can see here. Seeds differ in initial weights, in
the order of the batches and in what is drawn at random; the split of the data is one.
"""


def ledger() -> str:
    atlas = papers.load()
    tried = [p for p in atlas.values() if p.verdict in ORDER]
    missing = [p.key for p in tried if not (LEDGER / f"{p.key}.json").exists()]
    if missing:
        raise SystemExit(f"no recorded run for {', '.join(missing)}: execute their chapters first")
    totals = Counter(p.verdict for p in tried)
    waiting = len(atlas) - len(tried)
    sections = [HEADER, "| verdict | papers |", "|---|---|"]
    sections += [f"| {verdict} | {totals[verdict]} |" for verdict in ORDER]
    sections += [f"| not tried yet, or without an experiment | {waiting} |", ""]
    for verdict in ORDER:
        chosen = [p for p in tried if p.verdict == verdict]
        if chosen:
            sections.append(f"## {verdict.capitalize()}\n")
        sections += [entry(p, json.loads((LEDGER / f"{p.key}.json").read_text())) for p in chosen]
    return "\n".join(sections)


def entry(paper: papers.Paper, run: dict[str, Any]) -> str:
    """One claim: what the paper says, what was tested, what was measured."""
    lines = [
        f"### {paper.title}\n",
        f"{{cite:t}}`{paper.key}`, in {{doc}}`/{chapter(paper)}`\n",
        f"*The paper:* {paper.claim}\n",
        f"*Tested here:* {run['statement']}\n",
    ]
    for name, item in run["evidence"].items():
        measured = f"- {name}: {item['text']}"
        if item["seeds"]:
            measured += (
                f"; difference {item['mean']:+.3g} "
                f"[{item['low']:+.3g}, {item['high']:+.3g}] over {item['seeds']} seeds"
            )
        lines.append(measured)
    return "\n".join(lines) + "\n"


def chapter(paper: papers.Paper) -> str:
    """The document that records the paper's claim: the chapter, or the notebook of its folder that does."""
    single = ROOT / "chapters" / paper.part / f"{paper.chapter}.ipynb"
    notebooks = [single] if single.exists() else sorted(single.with_suffix("").glob("*.ipynb"))
    home = next(n for n in notebooks if paper.key in claims.recorded_in(n))
    return str(home.relative_to(ROOT).with_suffix(""))


if __name__ == "__main__":
    (ROOT / "book" / "claims.md").write_text(ledger())
