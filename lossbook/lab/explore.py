"""Explorable figures: curves, and scenes in space, that move with a control wherever the page is read.

One object, three lives. In the rendered book it is SVG and a little JavaScript over values that torch
computed for every position of its controls, so it works without a kernel and without a network. In
JupyterLab and on Colab, `Explorable.live` gives the same figure as ipywidgets, computed afresh at every move,
with the reader's own function plugged in. On paper it is a picture of its starting position. What has to be
trained at every move is no such object; `play` gives it widgets all the same.
"""

from __future__ import annotations

import functools
import html
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from string import Formatter
from typing import Any

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lossbook.lab import plots
from lossbook.lab.controls import (
    Control as Control,
)
from lossbook.lab.controls import (
    Settings,
    combinations,
    element,
    encode,
    show_widgets,
    taken,
)
from lossbook.lab.controls import (
    choice as choice,
)
from lossbook.lab.controls import (
    play as play,
)
from lossbook.lab.controls import (
    slider as slider,
)
from lossbook.lab.scene import Scene as Scene
from lossbook.lab.scene import scene as scene

#: Maps points (N,) and the values of its controls to one (N,) tensor for each panel.
CurveFunction = Callable[..., Tensor | tuple[Tensor, ...]]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 400, 280, 48, 10, 26, 44
_DASHES = ("", "7 4", "2 4", "9 3 2 3", "4 3", "12 4", "1 3", "6 2 1 2")


@dataclass(frozen=True)
class Curve:
    """A curve: its label (which may quote a control as ``{name}``), its function, its controls' names."""

    label: str
    function: CurveFunction
    controls: tuple[str, ...] = ()


def with_slope(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """A curve function for two panels: the value of `function` and its derivative by autograd."""

    @functools.wraps(function)
    def value_and_slope(x: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
        leaf = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = function(leaf, **settings)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope

    return value_and_slope


@dataclass(frozen=True)
class Explorable:
    """An explorable figure; show it by leaving it as the last value of a cell.

    Attributes:
        name: unique in the book; the browser tests know the figure by it.
        x_label: what runs along the horizontal axis.
        x: (N,) points, increasing.
        curves: what is drawn.
        controls: the controls by name.
        panels: for each panel its title and the limits of its vertical axis.
        alt: what the figure shows and how it changes, in words.
        question: what to find out by moving it.
    """

    name: str
    x_label: str
    x: Tensor
    curves: tuple[Curve, ...]
    controls: Mapping[str, Control]
    panels: Mapping[str, tuple[float, float]]
    alt: str
    question: str = ""

    def values(self, curve: Curve, settings: Settings) -> Tensor:
        """(P, N) values of a curve in each panel at the given settings of all controls."""
        result = curve.function(self.x, **{name: settings[name] for name in curve.controls})
        rows = torch.stack(result) if isinstance(result, tuple) else result[None]
        if rows.shape != (len(self.panels), len(self.x)):
            raise ValueError(
                f"curve {curve.label!r} must give {len(self.panels)} tensors of shape "
                f"({len(self.x)},), one a panel; got {tuple(rows.shape)}"
            )
        return rows.detach()

    def start(self) -> dict[str, float | str]:
        """The settings that the figure starts from."""
        return {name: control.stops[control.start] for name, control in self.controls.items()}

    def live(self, **own: CurveFunction) -> Explorable | None:
        """The figure on ipywidgets, computed at every move, with your own functions beside the book's.

        Args:
            **own: curve functions of `x`, and of any of the figure's controls by name.

        Returns:
            None, as the widget is displayed. In the rendered book (``LOSSBOOK_STATIC`` is set) there is no
            kernel to compute with, so the same figure comes back in static form, your curves included.
        """
        added = tuple(
            Curve(name.replace("_", " "), f, taken(f, self.controls)) for name, f in own.items()
        )
        figure = replace(self, name=f"{self.name}-live", curves=self.curves + added)
        if os.environ.get("LOSSBOOK_STATIC"):
            return figure
        show_widgets(figure.controls, figure._picture, figure.alt)
        return None

    def _picture(self, settings: Settings) -> Any:
        drawn = [self.values(curve, settings) for curve in self.curves]
        figure, axes = plots.canvas(1, len(self.panels), squeeze=False)
        shown = {
            name: control.shown[control.stops.index(settings[name])]
            for name, control in self.controls.items()
        }
        for row, curve in enumerate(self.curves):
            for panel, values in enumerate(drawn[row]):
                axes[0, panel].plot(
                    self.x, values, color=plots.PALETTE[row % len(plots.PALETTE)],
                    dashes=[float(dash) / 2 for dash in _dash(row).split()] or (1, 0),
                    label=curve.label.format(**shown),
                )  # fmt: skip
        for axis, (title, limits) in zip(axes[0], self.panels.items(), strict=True):
            axis.set(title=title, ylim=limits, xlabel=self.x_label)
        axes[0, 0].legend()
        return figure

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        figure = self._picture(self.start())
        png = plots._png(figure)
        plots.plt.close(figure)
        return {"text/html": self._html(), "image/png": png, "text/plain": f"[{self.alt}]"}

    def _html(self) -> str:
        identity = f"explore-{uuid.uuid4().hex[:12]}"
        names = list(self.controls)
        specification = {
            "x": encode(self.x),
            "panels": len(self.panels),
            "controls": [{"name": name, "shown": self.controls[name].shown} for name in names],
            "curves": [
                {
                    "label": curve.label,
                    "controls": [names.index(name) for name in curve.controls],
                    "data": encode(self._all_values(curve)),
                }
                for curve in self.curves
            ],
        }
        files = resources.files("lossbook.lab")
        script = files.joinpath("explore.js").read_text().replace("FIGURE", identity)
        return "\n".join(
            [
                f'<figure class="lossbook-explorable" id="{identity}" data-name="{self.name}">',
                f"<style>{files.joinpath('explore.css').read_text()}</style>",
                f'<div class="controls">{"".join(element(*item) for item in self.controls.items())}</div>',
                f'<div class="panels">{"".join(self._panel(i) for i in range(len(self.panels)))}</div>',
                f'<div class="legend">{"".join(self._legend(i) for i in range(len(self.curves)))}</div>',
                '<div class="readout" data-readout aria-live="polite"></div>',
                f"<figcaption>{html.escape(self.question)}</figcaption>" if self.question else "",
                f'<script type="application/json">{json.dumps(specification)}</script>',
                f"<script>{script}</script>",
                "</figure>",
            ]
        )

    def _all_values(self, curve: Curve) -> Tensor:
        """Values at every combination of the curve's own controls, row-major."""
        settings = combinations(self.controls, curve.controls)
        return torch.stack([self.values(curve, setting) for setting in settings])

    def _panel(self, panel: int) -> str:
        title, limits = list(self.panels.items())[panel]
        low, high = float(limits[0]), float(limits[1])
        first, last = float(self.x[0]), float(self.x[-1])
        across = (_WIDTH - _LEFT - _RIGHT) / (last - first)
        up = -(_HEIGHT - _TOP - _BOTTOM) / (high - low)
        left, bottom = _LEFT - across * first, _HEIGHT - _BOTTOM - up * low
        frame = (
            f'x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}"'
        )
        clip = f"clip-{uuid.uuid4().hex[:12]}"
        ticks = []
        for tick in _ticks(low, high):
            y = bottom + up * tick
            ticks.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}" '
                f'stroke="currentColor" stroke-opacity="{0.45 if tick == 0 else 0.13}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.2f}" text-anchor="end">{tick:g}</text>'
            )
        for tick in _ticks(first, last):
            x = left + across * tick
            ticks.append(
                f'<line y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" x1="{x:.2f}" x2="{x:.2f}" '
                f'stroke="currentColor" stroke-opacity="0.13"/>'
                f'<text x="{x:.2f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{tick:g}</text>'
            )
        start, lines = self.start(), []
        for row, curve in enumerate(self.curves):
            values = self.values(curve, start)[panel].double()
            pairs = zip(self.x.double().tolist(), values.tolist(), strict=True)
            points = " ".join(
                f"{left + across * x:.2f},{bottom + up * y:.2f}"
                for x, y in pairs
                if math.isfinite(y)
            )
            lines.append(
                f'<polyline data-curve="{row}" points="{points}" fill="none" {_stroke(row)}/>'
            )
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" data-panel="{panel}" '
            f'data-axes="{left!r} {bottom!r} {across!r} {up!r}" '
            f'aria-label="{html.escape(f"{title}. {self.alt}", quote=True)}">'
            f'<clipPath id="{clip}"><rect {frame}/></clipPath>{"".join(ticks)}'
            f'<text x="{_LEFT}" y="16" style="font-weight:600">{html.escape(title)}</text>'
            f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
            f'{html.escape(self.x_label)}</text><g clip-path="url(#{clip})">{"".join(lines)}'
            f'<line data-marker y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="currentColor" '
            f'stroke-dasharray="3 3" style="visibility:hidden"/></g></svg>'
        )

    def _legend(self, row: int) -> str:
        shown = {name: control.shown[control.start] for name, control in self.controls.items()}
        label = self.curves[row].label.format(**shown)
        return (
            f'<span><svg viewBox="0 0 30 10" aria-hidden="true"><line x1="0" x2="30" y1="5" y2="5" '
            f'{_stroke(row)}/></svg><span data-legend="{row}">{html.escape(label)}</span></span>'
        )


def curves(
    name: str,
    *,
    x: tuple[str, Tensor],
    curves: Mapping[str, CurveFunction | tuple[Any, ...]],
    controls: Mapping[str, Control],
    panels: Mapping[str, tuple[float, float]],
    alt: str,
    question: str = "",
) -> Explorable:
    """An explorable figure of curves.

    Args:
        name: a name unique in the book, such as ``"cross-entropy-family"``.
        x: the label of the horizontal axis and its (N,) increasing points.
        curves: for each label a function of `x`, or a tuple of the function and the names of the controls it
            takes as keyword arguments. It returns a tensor like `x` for each panel. A label may quote the
            value of a control as ``{name}``.
        controls: the controls by name, made with `slider` and `choice`.
        panels: for each panel its title and the limits (low, high) of its vertical axis.
        alt: what the figure shows and how it changes, in words.
        question: what to find out by moving it.

    Raises:
        ValueError: for an unknown control, points that do not increase, or missing `alt`; and, when the
            figure is drawn, for values of a wrong shape.
    """
    if not alt.strip():
        raise ValueError("alt must say in words what the figure shows")
    if x[1].ndim != 1 or len(x[1]) < 2 or not bool((x[1].diff() > 0).all()):
        raise ValueError("x must be a label and a tensor of at least two increasing points")
    drawn = []
    for label, entry in curves.items():
        function, *names = entry if isinstance(entry, tuple) else (entry,)
        quoted = {name for _, name, _, _ in Formatter().parse(label) if name}
        unknown = (quoted | set(names)) - set(controls)
        if unknown:
            raise ValueError(f"curves[{label!r}] names unknown controls {sorted(unknown)}")
        drawn.append(Curve(label, function, tuple(names)))
    return Explorable(name, *x, tuple(drawn), dict(controls), dict(panels), alt, question)


def _ticks(low: float, high: float) -> list[float]:
    ticks = MaxNLocator(5).tick_values(low, high)
    return [float(tick) for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]


def _dash(row: int) -> str:
    return _DASHES[row % len(_DASHES)]


def _stroke(row: int) -> str:
    dash = f' stroke-dasharray="{_dash(row)}"' if _dash(row) else ""
    return f'stroke="{plots.PALETTE[row % len(plots.PALETTE)]}" stroke-width="2.4"{dash}'
