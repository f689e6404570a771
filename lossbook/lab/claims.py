"""The claims ledger: what a paper says, what was measured here, and whether the two agree.

A chapter ends each paper's experiment with `record`. The outcome follows from the evidence alone, is drawn
as a card, is written to the ledger of the build, and must equal the verdict that stands in
``data/papers.yml``: a run that comes out otherwise stops the notebook, so the ledger cannot rot. That verdict
belongs to the small scale on a CPU, where the book is built. At full scale, or on a GPU, whose rounding and
random numbers differ, a run shows its own outcome beside the recorded one.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lossbook.lab import papers, plots, training

MINIMUM_SEEDS = 5


class VerdictError(AssertionError):
    """The run's outcome is not the verdict recorded in ``data/papers.yml``."""


@dataclass(frozen=True)
class Evidence:
    """One measured quantity, oriented so that a positive value supports the claim.

    Attributes:
        mean: the mean over seeds.
        low, high: its 95 % interval (equal to the mean for a deterministic fact).
        seeds: how many independent seeds stand behind it; 0 for a deterministic fact.
        text: the quantity in words and numbers, made from the measured values.
    """

    mean: float
    low: float
    high: float
    seeds: int
    text: str

    @property
    def supports(self) -> bool | None:
        """True above zero, False below, None when the interval holds zero."""
        if self.low > 0:
            return True
        return False if self.high < 0 else None


def difference(larger: Tensor, smaller: Tensor | float) -> Evidence:
    """Evidence that `larger` exceeds `smaller`: the paired difference over seeds with a t interval.

    Args:
        larger: (S,) values, one per seed, that the claim says are larger.
        smaller: (S,) values of the same seeds, or a constant to exceed.

    Returns:
        Evidence that supports the claim when the 95 % interval of the mean difference lies above zero.

    Raises:
        ValueError: for fewer than five seeds, unequal shapes or values that are not finite.
    """
    first = torch.as_tensor(larger).detach().double().cpu()
    second = torch.as_tensor(smaller).detach().double().cpu()
    if first.ndim != 1 or second.shape not in (first.shape, torch.Size([])):
        raise ValueError(
            f"larger and smaller need one value per seed; got shapes {tuple(first.shape)} "
            f"and {tuple(second.shape)}"
        )
    if len(first) < MINIMUM_SEEDS:
        raise ValueError(f"larger needs at least {MINIMUM_SEEDS} seeds, got {len(first)}")
    gap = first - second
    if not gap.isfinite().all():
        raise ValueError(f"larger - smaller must be finite for every seed, got {gap.tolist()}")
    low, high = plots.interval(gap)
    text = f"{_with_interval(first)} against {_with_interval(second)}"
    return Evidence(float(gap.mean()), low, high, len(gap), text)


def fact(holds: bool | Tensor, text: str) -> Evidence:
    """Evidence without chance in it: an identity, a bound, a deterministic computation.

    Args:
        holds: whether it came out as the claim says.
        text: the finding in words; format measured numbers into it, never type them.
    """
    value = 1.0 if bool(holds) else -1.0
    return Evidence(value, value, value, 0, text)


def outcome(evidence: dict[str, Evidence]) -> str:
    """The verdict that the evidence gives: a claim is as good as its weakest part."""
    support = [item.supports for item in evidence.values()]
    if all(support):
        return "reproduced"
    return "contradicted" if False in support else "not at this scale"


@dataclass(frozen=True)
class Claim:
    """A recorded claim; shows itself as a card."""

    key: str
    statement: str
    outcome: str
    scale: str
    evidence: dict[str, Evidence]

    def __repr__(self) -> str:
        lines = [f"{self.outcome}: {self.statement} [{self.key}]"]
        lines += [f"  {name}: {item.text}" for name, item in self.evidence.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        sign, color = _SIGNS[self.outcome]
        rows = "".join(_row(name, item, color) for name, item in self.evidence.items())
        title, recorded = papers.load()[self.key].title, papers.load()[self.key].verdict
        here = (
            "" if self.outcome == recorded else f" ({self.scale} run; the book records: {recorded})"
        )
        return (
            f'<div class="lossbook-claim" style="border-left:4px solid {color};padding:.4em 1em;'
            f'margin:.6em 0;background:rgba(128,128,128,.08);border-radius:4px">'
            f'<div><strong><span style="color:{color}">{sign}</span> {self.outcome}</strong>{here} '
            f'<span style="opacity:.75">· {html.escape(title)}</span></div>'
            f'<div style="margin:.3em 0">{html.escape(self.statement)}</div>'
            f'<div style="font-size:.88em">{rows}</div></div>'
        )


def record(key: str, statement: str, **evidence: Evidence) -> Claim:
    """Record what came of a paper's claim.

    Args:
        key: the paper's citation key in ``data/papers.yml``.
        statement: the claim as tested here, in our words.
        **evidence: the measured quantities, named in words (underscores become spaces).

    Returns:
        The claim; as the last value of a cell it draws its card.

    Raises:
        KeyError: if the key is not in ``data/papers.yml``.
        ValueError: without evidence.
        VerdictError: if the outcome is not the recorded verdict. Runs at ``LOSSBOOK_SCALE=full`` or on a GPU
            are written to a ledger of their own and never raise: the verdict speaks of the book's own runs.
    """
    if key not in papers.load():
        raise KeyError(f"key {key!r} is not in data/papers.yml")
    if not evidence:
        raise ValueError(f"record({key!r}) needs at least one piece of evidence")
    named = {name.replace("_", " "): item for name, item in evidence.items()}
    device = training.device().type
    scale = training.scale() if device == "cpu" else f"{training.scale()}-{device}"
    claim = Claim(key, statement, outcome(named), scale, named)
    _write(claim)
    verdict = papers.load()[key].verdict
    if claim.scale == "small" and claim.outcome != verdict:
        raise VerdictError(
            f"data/papers.yml records {verdict!r} for {key}, but this run says {claim.outcome!r}:\n{claim!r}"
        )
    return claim


def recorded_in(notebook: Path) -> set[str]:
    """The keys of the papers that the code cells of a notebook record a claim for."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return set(re.findall(r"""\bclaims\.record\(\s*["'](\w+)["']""", code))


def _write(claim: Claim) -> None:
    """Into the build's ledger when run inside the repository; nowhere on Colab."""
    here = Path.cwd()
    roots = (
        p for p in (here, *here.parents) if (p / "_toc.yml").exists() and (p / "data").is_dir()
    )
    root = next(roots, None)
    if root is not None:
        folder = root / "_build" / "claims" / claim.scale
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{claim.key}.json").write_text(json.dumps(asdict(claim), indent=1))


_SIGNS = {
    "reproduced": ("✓", "#1d9a6c"),
    "not at this scale": ("○", "#b5830f"),
    "contradicted": ("✗", "#d9622b"),
}


def _with_interval(values: Tensor) -> str:
    if values.ndim == 0 or len(values) < 2:
        return f"{float(values):.3g}"
    low, high = plots.interval(values)
    return f"{float(values.mean()):.3g} ± {(high - low) / 2:.2g}"


def _row(name: str, item: Evidence, color: str) -> str:
    """Name, words, and for measured evidence the interval drawn against zero."""
    words = f'<span style="flex:1 1 22em">{html.escape(name)}: {html.escape(item.text)}</span>'
    if item.seeds == 0:
        return f"<div>{words}</div>"
    reach = max(abs(item.low), abs(item.high)) or 1.0
    low, mean, high = (70 + 60 * value / reach for value in (item.low, item.mean, item.high))
    picture = (
        f'<svg width="140" height="14" role="img" aria-label="difference {item.mean:.3g}, '
        f'95 percent interval {item.low:.3g} to {item.high:.3g}">'
        '<line x1="70" x2="70" y1="0" y2="14" stroke="currentColor" stroke-opacity=".5"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="7" y2="7" stroke="{color}" stroke-width="3"/>'
        f'<circle cx="{mean:.1f}" cy="7" r="4" fill="{color}"/></svg>'
    )
    numbers = f"{item.mean:+.3g} [{item.low:+.3g}, {item.high:+.3g}], {item.seeds} seeds"
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:0 1em;align-items:center">'
        f'{words}{picture}<span style="flex:0 0 auto;white-space:nowrap">{numbers}</span></div>'
    )
