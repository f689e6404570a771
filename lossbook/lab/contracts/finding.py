"""What an examination of a loss finds, and the contract that collects it.

A property such as convexity speaks of all inputs. A finite number of trials can refute it, and then the point
that does so is kept; it can never prove it. A finding therefore says *refuted* or *not refuted*; what is a
quantity rather than a property is *measured*.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

VERDICTS = ("refuted", "not refuted", "measured", "not applicable")
SIGNS = {"refuted": "✗", "not refuted": "✓", "measured": "≈", "not applicable": "·"}


@dataclass(frozen=True)
class Finding:
    """What came of one property of one loss.

    Attributes:
        verdict: ``"refuted"``, ``"not refuted"``, ``"measured"`` or ``"not applicable"``.
        text: the finding in words and numbers, made from the measured values.
        trials: how many points were tried; 0 where nothing was.
        value: the number that stands for the finding, where there is one.
        evidence: named numbers, lists of numbers and strings: the point that refutes, the points tried.
    """

    verdict: str
    text: str
    trials: int = 0
    value: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}, got {self.verdict!r}")

    @property
    def short(self) -> str:
        """The verdict in the words of its trials, such as *not refuted in 200 trials*."""
        return (
            f"{self.verdict} in {self.trials} trials"
            if self.verdict == "not refuted"
            else self.verdict
        )


@dataclass(frozen=True)
class Contract:
    """The measured properties of a loss; prints as a table, shows itself as a card.

    Attributes:
        loss: the name of the loss.
        kind: the names of its arguments, ``"logits, target"``.
        settings: the hyperparameters that it was examined with, in words.
        findings: a :class:`~lossbook.lab.contracts.finding.Finding` for each property, by name.
    """

    loss: str
    kind: str
    settings: Mapping[str, str]
    findings: Mapping[str, Finding]

    def __getitem__(self, name: str) -> Finding:
        if name not in self.findings:
            raise KeyError(f"{name!r} was not examined; there are {', '.join(self.findings)}")
        return self.findings[name]

    @property
    def title(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.loss}({settings})" if settings else self.loss

    def __repr__(self) -> str:
        width = max(map(len, self.findings), default=0)
        lines = [f"{self.title}: a loss of {self.kind}"]
        for name, finding in self.findings.items():
            lines.append(
                f"  {SIGNS[finding.verdict]} {name:{width}}  {finding.short}: {finding.text}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(_row(name, finding) for name, finding in self.findings.items())
        return (
            '<div class="lossbook-contract" style="border-left:4px solid #2f7fd1;padding:.4em 1em;'
            'margin:.6em 0;background:rgba(128,128,128,.08);border-radius:4px">'
            f"<div><strong>{html.escape(self.title)}</strong> "
            f'<span style="opacity:.75">· a loss of {html.escape(self.kind)}</span></div>{rows}</div>'
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, which `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Contract:
        """The contract that `to_json` wrote."""
        findings = {name: Finding(**entry) for name, entry in data["findings"].items()}
        return cls(**{**data, "findings": findings})


_COLORS = {
    "refuted": "#d9622b",
    "not refuted": "#1d9a6c",
    "measured": "#2f7fd1",
    "not applicable": "#808080",
}


def _row(name: str, finding: Finding) -> str:
    """A line that opens on the evidence."""
    sign = f'<span style="color:{_COLORS[finding.verdict]}">{SIGNS[finding.verdict]}</span>'
    evidence = "".join(
        f"<li>{html.escape(key)}: <code>{html.escape(shown(value))}</code></li>"
        for key, value in finding.evidence.items()
    )
    line = (
        f"{sign} <strong>{html.escape(name)}</strong> "
        f'<span style="opacity:.75">{html.escape(finding.short)}</span> {html.escape(finding.text)}'
    )
    if not evidence:
        return f'<div style="font-size:.9em;padding-left:1.1em">{line}</div>'
    return (
        f'<details style="font-size:.9em"><summary>{line}</summary>'
        f'<ul style="margin:.2em 0 .5em 1em">{evidence}</ul></details>'
    )


def shown(value: Any) -> str:
    """A number to four digits, a list of them in brackets, a string as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)
