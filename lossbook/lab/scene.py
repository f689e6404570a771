"""Scenes in space that move with a control and turn under the reader's hand; reached as `explore.scene`.

Like the curves of `lossbook.lab.explore` a scene lives three times: in the rendered book it is SVG and a
little JavaScript over values that torch computed for every stop, in a notebook `Scene.live` draws it afresh
at every move, and on paper it is a picture of its start. Page and paper share one orthographic camera: an
``azimuth`` and an ``elevation`` in degrees, z upwards, as matplotlib has them. What is far is small and pale.
"""

from __future__ import annotations

import html
import inspect
import itertools
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lossbook.lab import plots
from lossbook.lab.controls import (
    Control,
    Settings,
    combinations,
    element,
    encode,
    show_widgets,
    slider,
    taken,
)

#: Maps some of the controls to a scene's points, lines, surface or readouts.
SceneFunction = Callable[..., Any]

_PARTS = ("points", "lines", "surface", "readouts")
_SIZE, _LIMIT = 400, 1_500_000  # the edge of the drawing in its own units; bytes of base64
_FLAT = (-90.0, 90.0)  # from straight above, x to the right and y upwards
_LIGHT = (-0.40, -0.45, 0.80)
_COLORMAP = mpl.colormaps[plots.SEQUENTIAL](np.linspace(0.10, 0.92, 33))[:, :3]


class Values(NamedTuple):
    """What a scene shows at one position of its controls."""

    points: Tensor
    lines: tuple[Tensor, ...]
    surface: tuple[Tensor, Tensor, Tensor] | None
    readouts: dict[str, float]


class _Space(NamedTuple):
    """Where the scene lies over all stops, and the map (x - center) * scale into the unit ball, or square."""

    low: Tensor
    high: Tensor
    center: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Scene:
    """An explorable scene; show it by leaving it as the last value of a cell. Made by `scene`."""

    name: str
    points: SceneFunction | None
    groups: Tensor
    labels: tuple[str, ...]
    controls: Mapping[str, Control]
    lines: SceneFunction | None
    line_groups: tuple[int, ...] | None
    surface: SceneFunction | None
    sphere: bool
    circle: bool
    axes: tuple[str, ...]
    view: tuple[float, float]
    readouts: SceneFunction | None
    drag: tuple[str, ...]
    play: bool
    alt: str
    question: str

    def start(self) -> dict[str, float | str]:
        """The settings that the scene starts from."""
        return {name: control.stops[control.start] for name, control in self.controls.items()}

    def values(self, settings: Settings) -> Values:
        """What the scene's functions say at the given settings of all controls.

        Raises:
            ValueError: for values of a wrong shape.
        """
        return Values(
            self._points(settings),
            self._lines(settings),
            self._surface(settings),
            self._readouts(settings),
        )

    def live(self, **own: SceneFunction) -> Scene | None:
        """The scene on ipywidgets, computed at every move, with your own functions in place of the book's.

        Args:
            **own: any of ``points``, ``lines``, ``surface`` and ``readouts``, as `scene` takes them.

        Returns:
            None, as the widget is displayed, with two more sliders that turn it. In the rendered book
            (``LOSSBOOK_STATIC`` is set) the same scene comes back in static form, your functions included.

        Raises:
            ValueError: for another name.
        """
        if unknown := set(own) - set(_PARTS):
            raise ValueError(f"own must be among {', '.join(_PARTS)}; got {sorted(unknown)}")
        figure = replace(self, name=f"{self.name}-live", **own)  # type: ignore[arg-type]
        for part in own:
            figure._check_parameters(part)
        if os.environ.get("LOSSBOOK_STATIC"):
            return figure
        turns = {
            "azimuth": slider("turn (°)", torch.linspace(-180, 180, 73), self.view[0]),
            "elevation": slider("tilt (°)", torch.linspace(-90, 90, 37), self.view[1]),
        }
        controls = {**self.controls, **(turns if self._dimension == 3 else {})}
        show_widgets(controls, figure._picture, self.alt)
        return None

    # --- the four parts, each at one setting of at least its own controls

    def _call(self, part: str, settings: Settings) -> Any:
        function = getattr(self, part)
        return function(**{name: settings[name] for name in taken(function, self.controls)})

    def _check_parameters(self, part: str) -> None:
        function = getattr(self, part)
        for name, parameter in inspect.signature(function).parameters.items() if function else ():
            if parameter.default is parameter.empty and name not in self.controls:
                raise ValueError(f"{part} takes {name!r}, which is none of {sorted(self.controls)}")

    def _points(self, settings: Settings) -> Tensor:
        if self.points is None:
            return torch.zeros(0, 3)
        points = self._call("points", settings)
        if points.ndim != 2 or len(points) != len(self.groups) or points.shape[1] not in (2, 3):
            raise ValueError(
                f"points must give ({len(self.groups)}, 2 or 3) coordinates, one row for each of "
                f"groups; got {tuple(points.shape)}"
            )
        return points.detach()

    def _lines(self, settings: Settings) -> tuple[Tensor, ...]:
        lines = () if self.lines is None else tuple(self._call("lines", settings))
        wrong = [tuple(line.shape) for line in lines if line.shape[1:] != (self._dimension,)]
        if wrong:
            raise ValueError(f"lines must give (M, {self._dimension}) tensors; got {wrong[0]}")
        if self.line_groups is not None and len(lines) != len(self.line_groups):
            raise ValueError(
                f"lines must give {len(self.line_groups)} polylines, one for each of line_groups; "
                f"got {len(lines)}"
            )
        return tuple(line.detach() for line in lines)

    def _surface(self, settings: Settings) -> tuple[Tensor, Tensor, Tensor] | None:
        if self.surface is None:
            return None
        x, y, z = (tensor.detach() for tensor in self._call("surface", settings))
        if x.ndim != 1 or y.ndim != 1 or z.shape != (len(x), len(y)) or min(z.shape) < 2:
            raise ValueError(
                "surface must give x (A,), y (B,) and heights (A, B) with A and B at least 2; got "
                f"{tuple(x.shape)}, {tuple(y.shape)} and {tuple(z.shape)}"
            )
        return x, y, z

    def _readouts(self, settings: Settings) -> dict[str, float]:
        found = {} if self.readouts is None else self._call("readouts", settings)
        return {name: float(value) for name, value in found.items()}

    @cached_property
    def _dimension(self) -> int:
        if self.surface is not None:
            return 3
        if self.points is not None:
            return self._points(self.start()).shape[1]
        return self._call("lines", self.start())[0].shape[1]

    def _handle(self, settings: Settings) -> Tensor:
        """Where the point that the reader drags stands: the values of its two sliders."""
        return torch.tensor([settings[name] for name in self.drag], dtype=torch.float64)

    # --- the four parts at every stop, as tables

    @cached_property
    def _tables(self) -> dict[str, Tensor]:
        """For each part (S, numbers): a row for each combination of the part's own controls, row-major.

        Polylines stand one after another, each ended by a row of infinities, and are filled up with rows of
        NaN; a surface is x, y and its heights in turn.
        """
        d = self._dimension
        tables = {}
        if self.points is not None:
            tables["points"] = [self._points(s).flatten() for s in self._stops("points")]
        if self.lines is not None:
            end = torch.full((1, d), torch.inf)
            joined = []
            for settings in self._stops("lines"):
                lines = [
                    line.cpu().where(line.cpu().isfinite(), torch.nan)
                    for line in self._lines(settings)
                ]
                joined.append(torch.cat([part for line in lines for part in (line, end)] or [end]))
            tables["lines"] = [*pad_sequence(joined, True, torch.nan).flatten(1)]
        if self.surface is not None:
            grids = [g for s in self._stops("surface") if (g := self._surface(s)) is not None]
            tables["surface"] = [torch.cat([t.flatten() for t in grid]) for grid in grids]
            if len({grid[-1].shape for grid in grids}) > 1:
                raise ValueError("surface must give heights of the same shape at every stop")
        if self.readouts is not None:
            found = [self._readouts(s) for s in self._stops("readouts")]
            if len({tuple(numbers) for numbers in found}) > 1:
                raise ValueError("readouts must give the same names at every stop")
            tables["readouts"] = [torch.tensor([*numbers.values()]) for numbers in found]
        return {part: torch.stack(rows).cpu().double() for part, rows in tables.items()}

    def _stops(self, part: str) -> list[Settings]:
        return [*combinations(self.controls, taken(getattr(self, part), self.controls))]

    @cached_property
    def _space(self) -> _Space:
        """A surface's axes have each its own scale; otherwise a length is a length in every direction."""
        tables, d = self._tables, self._dimension
        rows = [tables[part].reshape(-1, d) for part in ("points", "lines") if part in tables]
        surface = self._surface(self.start())
        if surface is not None:
            a, b = surface[2].shape
            parts = tables["surface"].split([a, b, a * b], 1)
            ends = [(part[part.isfinite()].min(), part[part.isfinite()].max()) for part in parts]
            rows.append(torch.tensor(ends, dtype=torch.float64).T)
        if self.drag:
            rows.append(torch.stack([*map(self._handle, combinations(self.controls, self.drag))]))
        every = torch.nn.functional.pad(torch.cat(rows), (0, 3 - d))
        every = every[every.isfinite().all(1)]
        if self.sphere or self.circle:
            size = max(1.0, float(every.norm(dim=1).max()) if len(every) else 1.0)
            low = torch.full((3,), -size, dtype=torch.float64)
            return _Space(low, -low, torch.zeros(3).double(), torch.full((3,), 1 / size).double())
        if not len(every):
            raise ValueError("a scene needs at least one finite coordinate")
        low, high = every.min(0).values, every.max(0).values
        center, half = (low + high) / 2, (high - low) / 2
        if surface is not None:
            scale = torch.tensor([1, 1, 0.62]).double() / half.where(half > 0, 1) / 1.45
        else:
            # In the plane nothing turns, so the drawing's square may be filled to its corners.
            radius = half.max() if d == 2 else (every - center).norm(dim=1).max()
            scale = (1 / radius.where(radius > 0, 1)).expand(3)
        return _Space(low, high, center, scale)

    # --- what stands around, and the camera

    @cached_property
    def _frame(self) -> list[Tensor]:
        """The faint polylines (M, 3) of the circle, of the sphere's grid and of the box of the axes."""
        turn = torch.linspace(0, 2 * torch.pi, 73, dtype=torch.float64)
        x, y, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
        lines = [torch.stack([x, y, zero], 1)] if self.circle and self._dimension == 3 else []
        if self.sphere:
            for angle in torch.arange(0, 180, 30).double().deg2rad():
                height = (angle - torch.pi / 2).sin()
                ring = (1 - height**2).sqrt()
                lines.append(torch.stack([x * angle.cos(), x * angle.sin(), y], 1))
                lines.append(torch.stack([x * ring, y * ring, zero + height], 1))
        lines += [edge for axis in range(len(self.axes)) for edge in self._edges(axis)]
        return lines

    def _edges(self, axis: int) -> list[Tensor]:
        """The edges (2, 3) of the box along an axis; in the plane the box has no height."""
        ends = torch.stack([self._space.low, self._space.high])
        others = [k for k in range(3) if k != axis]
        edges = []
        for corner in itertools.product(*(ends[:, k].unique().tolist() for k in others)):
            edge = ends.clone()
            edge[:, others] = torch.tensor(corner, dtype=torch.float64)
            edges.append(edge)
        return edges

    @property
    def _round(self) -> bool:
        """Whether what is drawn has a circle as its outline from every side."""
        return self.sphere or (self.circle and self._dimension == 2)

    @property
    def _radius(self) -> float:
        """Of a point midway between near and far: the more points, the smaller."""
        return max(2.0, min(6.0, 14 / max(len(self.groups), 1) ** 0.25))

    @property
    def _unit(self) -> int:
        """How long on the drawing the radius of the unit ball is."""
        return _SIZE // 2 - (46 if self.axes else 14)

    def _start_view(self) -> tuple[float, float]:
        return self.view if self._dimension == 3 else _FLAT

    def _place(self, coordinates: Tensor) -> Tensor:
        """Map (..., 2 or 3) coordinates into the unit ball, in three dimensions."""
        solid = torch.nn.functional.pad(coordinates.cpu().double(), (0, 3 - coordinates.shape[-1]))
        return (solid - self._space.center) * self._space.scale

    def _project(self, placed: Tensor, view: tuple[float, float]) -> Tensor:
        """Map (..., 3) places in the unit ball to drawn x and y, and to the depth towards the reader."""
        azimuth, elevation = torch.tensor(view, dtype=torch.float64).deg2rad()
        (c, s), (cc, ss) = (azimuth.cos(), azimuth.sin()), (elevation.cos(), elevation.sin())
        camera = torch.tensor([[-s, c, 0], [-ss * c, -ss * s, cc], [cc * c, cc * s, ss]]).double()
        right, up, toward = (placed @ camera.T).unbind(-1)
        return torch.stack(
            [_SIZE / 2 + self._unit * right, _SIZE / 2 - self._unit * up, toward], -1
        )

    # --- on paper and in widgets

    def _picture(self, settings: Settings) -> Figure:
        start = self._start_view()
        view = (
            float(settings.get("azimuth", start[0])),
            float(settings.get("elevation", start[1])),
        )
        now = self.values(settings)
        figure, axes = plots.canvas(width=4.8, height=4.8)
        axes.set(xlim=(0, _SIZE), ylim=(_SIZE, 0), aspect="equal")
        axes.axis("off")
        for line in self._frame:
            x, y, depth = self._project(self._place(line), view).T
            axes.plot(x, y, color=plots._INK, lw=0.7, alpha=0.12 if depth.mean() < 0 else 0.25)
        if self._round:
            edge = mpl.patches.Circle(
                (_SIZE / 2, _SIZE / 2),
                self._unit * float(self._space.scale[0]),
                edgecolor=(*mpl.colors.to_rgb(plots._INK), 0.4),
                facecolor=(*mpl.colors.to_rgb(plots._INK), 0.03),
            )
            axes.add_patch(edge)

        if items := self._items(now, view):
            _, paths, faces, edges, widths = zip(*items, strict=True)
            axes.add_collection(
                PathCollection(paths, facecolors=faces, edgecolors=edges, linewidths=widths)
            )
        if self.drag:
            x, y, _ = self._project(self._place(self._handle(settings)), view).tolist()
            axes.plot([x], [y], "o", ms=13, mfc="none", mec=plots._INK)
        for text, x, y in self._texts(view):
            axes.text(x, y, text, ha="center", va="center", fontsize=8, color=plots._INK)
        for group, label in enumerate(self.labels):
            axes.plot([], [], "o", color=_color(group), label=label,
                      mfc=None if group < len(plots.PALETTE) else "none")  # fmt: skip
        if self.labels:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
        axes.set_title("  ·  ".join(f"{k} {v:.4g}" for k, v in now.readouts.items()))
        return figure

    def _items(
        self, now: Values, view: tuple[float, float]
    ) -> list[tuple[float, Path, Any, Any, float]]:
        """What to draw from far to near: for each item its depth, path, face, edge and line width."""
        flat, solid = self._dimension == 2, now.surface is not None

        def near(depth: float) -> float:
            return 1.0 if flat else min(max((1 + depth) / 2, 0.0), 1.0)

        def opacity(depth: float) -> float:
            behind = min(max(-depth / 0.15, 0.0), 1.0) if self.sphere else 0.0
            return 1.0 if solid else (0.4 + 0.6 * near(depth)) * (1 - 0.6 * behind)

        items: list[tuple[float, Path, Any, Any, float]] = []
        lift = 0.0
        if now.surface is not None:
            corners, colors = self._quads(*now.surface)
            lift = _lift(now.surface)
            for quad, color in zip(self._project(corners, view), colors, strict=True):
                items.append(
                    (float(quad[:, 2].mean()), Path(quad[:, :2]), color, (*color, 0.6), 0.4)
                )
        for row, line in enumerate(now.lines):
            ink = plots._INK if self.line_groups is None else _color(self.line_groups[row])
            ends = self._project(self._place(line), view)
            pairs = torch.stack([ends[:-1], ends[1:]], 1)
            for pair in pairs[pairs.isfinite().all(2).all(1)]:
                depth = float(pair[:, 2].mean())
                edge_color = mpl.colors.to_rgba(ink, opacity(depth))
                items.append((depth + lift, Path(pair[:, :2]), "none", edge_color, 1.6))
        points = self._project(self._place(now.points), view)
        here = points.isfinite().all(1)
        groups = self.groups[here].tolist()
        for (x, y, depth), group in zip(points[here].tolist(), groups, strict=True):
            radius = self._radius * (1 if flat else 0.7 + 0.5 * near(depth))
            color = mpl.colors.to_rgba(_color(group), opacity(depth))
            face = color if group < len(plots.PALETTE) else "none"
            edge_color = (*mpl.colors.to_rgb(plots._INK), 0.3) if face == color else color
            items.append((depth + lift, Path.circle((x, y), radius), face, edge_color, 0.6))
        return sorted(items, key=lambda item: item[0])

    def _quads(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, list[tuple[float, ...]]]:
        """The (Q, 4, 3) placed corners of a surface's quads, and their colors by height and by light."""
        x, y, z = (tensor.cpu().double() for tensor in (x, y, z))
        placed = self._place(torch.stack([*torch.meshgrid(x, y, indexing="ij"), z], -1))
        corners = torch.stack(
            [placed[:-1, :-1], placed[1:, :-1], placed[1:, 1:], placed[:-1, 1:]], 2
        ).flatten(0, 1)
        corners = corners[corners.isfinite().all(2).all(1)]
        low, high = self._heights
        height = ((corners[:, :, 2] - low).mean(1) / ((high - low) or 1.0)).clamp(0, 1)
        normal = torch.linalg.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        light = torch.nn.functional.normalize(normal, dim=1) @ torch.tensor(_LIGHT).double()
        shades = torch.as_tensor(_COLORMAP)[(height * (len(_COLORMAP) - 1)).round().long()]
        colors = (shades * (0.72 + 0.36 * light.clamp(min=0))[:, None]).clamp(max=1)
        return corners, [tuple(color) for color in colors.tolist()]

    @cached_property
    def _heights(self) -> tuple[float, float]:
        """The placed heights between which a surface is colored, the same at every stop."""
        surface = self._surface(self.start())
        assert surface is not None
        z = self._tables["surface"][:, -surface[2].numel() :]
        z = (z[z.isfinite()] - self._space.center[2]) * self._space.scale[2]
        return float(z.min()), float(z.max())

    @cached_property
    def _marks(self) -> list[dict[str, Any]]:
        """For each axis its texts, and the edges (placed) where they may stand: for x and y, the floor's."""
        floor, marks = self._space.low[2], []
        for axis, label in enumerate(self.axes):
            edges = [edge for edge in self._edges(axis) if axis == 2 or edge[0, 2] == floor]
            ends = _limits(float(self._space.low[axis]), float(self._space.high[axis]))
            places = [self._place(edge).tolist() for edge in edges]
            marks.append({"texts": [ends[0], label, ends[1]], "edges": places})
        return marks

    def _texts(self, view: tuple[float, float]) -> list[tuple[str, float, float]]:
        """The axes' texts and where they stand: x and y at their lowest edge, z at its leftmost, outside."""
        found = []
        for axis, mark in enumerate(self._marks):
            edges = self._project(torch.tensor(mark["edges"]).double(), view)[..., :2]
            middles = edges.mean(1)
            rank = -middles[:, 0] if axis == 2 else middles[:, 1]
            edge = edges[int((rank > rank.max() - 1e-6).int().argmax())]
            outward = torch.nn.functional.normalize(edge.mean(0) - _SIZE / 2, dim=0)
            for text, share, gap in zip(
                mark["texts"], (0.05, 0.5, 0.95), (14, 26, 14), strict=True
            ):
                x, y = (edge[0] + share * (edge[1] - edge[0]) + gap * outward).tolist()
                found.append((text, x, y))
        return found

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        page = self._html()  # first, as it says what is too large
        figure = self._picture(self.start())
        png = plots._png(figure)
        plots.plt.close(figure)
        return {"text/html": page, "image/png": png, "text/plain": f"[{self.alt}]"}

    # --- in the page

    def _specification(self) -> dict[str, Any]:
        names = list(self.controls)
        surface, frame = self._surface(self.start()), []
        for line in self._frame:
            frame += [*self._place(line).tolist(), None]
        parts = {
            part: {
                "controls": [names.index(n) for n in taken(getattr(self, part), self.controls)],
                "size": table.shape[1],
                "data": encode(table),
            }
            for part, table in self._tables.items()
        }
        size = sum(len(str(part["data"])) for part in parts.values())
        if size > _LIMIT:
            sizes = ", ".join(
                f"{part} {len(table)} stops x {table.shape[1]} numbers"
                for part, table in self._tables.items()
            )
            raise ValueError(
                f"scene {self.name!r} would put {size / 1e6:.1f} MB into the page, at most "
                f"{_LIMIT / 1e6:.1f} MB; reduce its stops, points or grid: {sizes}"
            )
        return {
            "controls": [{"name": name, "shown": self.controls[name].shown} for name in names],
            "parts": parts,
            "dimension": self._dimension,
            "center": self._space.center.tolist(),
            "scale": self._space.scale.tolist(),
            "unit": self._unit,
            "view": self._start_view(),
            "sphere": self.sphere,
            "radius": self._radius,
            "groups": self.groups.tolist(),
            "lineGroups": self.line_groups,
            "palette": plots.PALETTE,
            "frame": frame,
            "axes": self._marks,
            "readouts": [*self._readouts(self.start())],
            "drag": [
                {"control": names.index(name), "stops": self.controls[name].stops}
                for name in self.drag
            ],
            "surface": surface
            and {
                "shape": surface[2].shape,
                "heights": self._heights,
                "lift": _lift(surface),
                "light": _LIGHT,
                "colors": (255 * _COLORMAP).round().astype(int).tolist(),
            },
        }

    def _html(self) -> str:
        identity = f"scene-{uuid.uuid4().hex[:12]}"
        files = resources.files("lossbook.lab")
        script = files.joinpath("scene.js").read_text().replace("FIGURE", identity)
        style = "".join(files.joinpath(f"{name}.css").read_text() for name in ("explore", "scene"))
        turns = self._dimension == 3
        hint = (
            "Drag, or use the arrow keys, to turn it; double-click to turn it back."
            if turns
            else ""
        )
        if self.drag:
            hint = "Drag the ring, or move it with the arrow keys."
        alt = f"{self.alt} {hint}".strip()
        outline = (
            f'<circle class="outline" cx="{_SIZE / 2}" cy="{_SIZE / 2}" '
            f'r="{self._unit * float(self._space.scale[0]):.2f}"/>'
        )
        first = next(iter(self.controls.values()), None)
        return "\n".join(
            [
                f'<figure class="lossbook-explorable lossbook-scene" id="{identity}" '
                f'data-name="{self.name}">',
                f"<style>{style}</style>",
                '<div class="controls">',
                "".join(element(*item) for item in self.controls.items()),
                f'<button type="button" data-play>Play: {html.escape(first.label)}</button>'
                if self.play and first
                else "",
                "</div>",
                f'<svg data-scene viewBox="0 0 {_SIZE} {_SIZE}" role="img" '
                f'{"tabindex=0 " if hint else ""}aria-label="{html.escape(alt, quote=True)}">',
                outline if self._round else "",
                '<path class="behind"/><g data-items></g><path class="before"/><g data-axes></g>',
                '<circle data-handle r="10"/></svg>' if self.drag else "</svg>",
                f'<div class="legend">{"".join(map(self._legend, range(len(self.labels))))}</div>',
                '<div class="readout" data-readout aria-live="polite"></div>'
                if self.readouts
                else "",
                f'<div class="hint">{hint}</div>' if hint else "",
                f"<figcaption>{html.escape(self.question)}</figcaption>" if self.question else "",
                f'<script type="application/json">{json.dumps(self._specification())}</script>',
                f"<script>{script}</script>",
                "</figure>",
            ]
        )

    def _legend(self, group: int) -> str:
        color = _color(group)
        fill = color if group < len(plots.PALETTE) else "none"
        return (
            '<span><svg viewBox="0 0 12 12" aria-hidden="true"><circle cx="6" cy="6" r="4.5" '
            f'fill="{fill}" stroke="{color}" stroke-width="1.4"/></svg>'
            f"{html.escape(self.labels[group])}</span>"
        )


def scene(
    name: str,
    *,
    controls: Mapping[str, Control],
    alt: str,
    points: SceneFunction | None = None,
    groups: Tensor | None = None,
    labels: Sequence[str] = (),
    lines: SceneFunction | None = None,
    line_groups: Sequence[int] | None = None,
    surface: SceneFunction | None = None,
    sphere: bool = False,
    circle: bool = False,
    axes: Sequence[str] = (),
    view: tuple[float, float] = (35.0, 20.0),
    readouts: SceneFunction | None = None,
    drag: Sequence[str] = (),
    play: bool = False,
    question: str = "",
) -> Scene:
    """An explorable scene of points, polylines and a surface, in space or in the plane.

    Each function takes those controls that are among its parameters, as keyword arguments, and is stored
    at the stops of these alone. Whatever is not finite is not drawn, so rows of NaN can stand for the
    points that a stop does not have.

    Args:
        name: a name unique in the book, such as ``"collapse"``.
        controls: the controls by name, made with `explore.slider` and `explore.choice`.
        alt: what the scene shows and how it changes, in words.
        points: gives (N, 3) coordinates, or (N, 2) for a flat scene; as many at every stop.
        groups: (N,) int64, for each point an index into `labels`, which gives its color.
        labels: the legend, one text for each group.
        lines: gives polylines (M, 3) or (M, 2), drawn in ink; their number and lengths may vary.
        line_groups: for each polyline an index into `labels`, to draw it in that group's color.
        surface: gives a height field: x (A,) and y (B,), increasing, and heights z (A, B) with
            ``z[i, j]`` at ``x[i], y[j]``. Points and lines on it are drawn over it.
        sphere: draw the unit sphere; what lies behind its center is pale.
        circle: draw the unit circle (of the plane z = 0).
        axes: the labels of x, y (and z), to draw a box with its limits.
        view: azimuth and elevation in degrees from which a scene in space is first seen.
        readouts: gives numbers by name, shown under the scene.
        drag: in the plane, the names of two sliders whose increasing stops are places along x and along y: a
            ring shows where they stand, and dragging it moves both.
        play: add a button that walks through the stops of the first control.
        question: what to find out by moving it.

    Returns:
        The scene. In the page ``figure.lossbookScene`` has ``coordinates()``, ``readouts()`` and ``view()``.

    Raises:
        ValueError: for bad arguments; and, when the scene is drawn, for values of a wrong shape or more than
            1.5 MB of them.
    """
    if not alt.strip():
        raise ValueError("alt must say in words what the scene shows")
    if points is None and lines is None and surface is None:
        raise ValueError("a scene needs points, lines or a surface")
    if reserved := {"azimuth", "elevation"} & set(controls):
        raise ValueError(f"controls must not be called {sorted(reserved)}: these turn the scene")
    if play and not controls:
        raise ValueError("play needs a control to move")
    if (points is None) != (groups is None):
        raise ValueError("points and groups must be given together")
    groups = torch.zeros(0, dtype=torch.int64) if groups is None else groups.cpu()
    if groups.ndim != 1 or groups.dtype != torch.int64:
        raise ValueError(f"groups must be (N,) int64; got {tuple(groups.shape)} {groups.dtype}")
    for argument, used in (("groups", groups.tolist()), ("line_groups", line_groups or ())):
        if wrong := [group for group in used if not 0 <= group < len(labels)]:
            raise ValueError(f"{argument} must index the {len(labels)} labels; got {wrong[0]}")
    figure = Scene(
        name, points, groups, tuple(labels), dict(controls), lines,
        None if line_groups is None else tuple(line_groups), surface, sphere, circle, tuple(axes),
        view, readouts, tuple(drag), play, alt, question,
    )  # fmt: skip
    for part in _PARTS:
        figure._check_parameters(part)
    if surface is not None and (sphere or circle):
        raise ValueError("a surface stretches its axes, so it goes with neither sphere nor circle")
    if sphere and figure._dimension == 2:
        raise ValueError("sphere needs (N, 3) points; in the plane there is circle")
    if drag:
        stops = [controls[name].stops for name in {*drag} & set(controls)]
        if len(drag) != 2 or len(stops) != 2 or not all(map(_rising, stops)):
            raise ValueError(f"drag must name two sliders with increasing stops; got {tuple(drag)}")
        if figure._dimension == 3:
            raise ValueError("drag is for the plane: its points or lines must have two coordinates")
    if axes and len(axes) != figure._dimension:
        raise ValueError(f"axes must have {figure._dimension} labels; got {len(axes)}")
    return figure


def _rising(stops: Sequence[float | str]) -> bool:
    return all(isinstance(a, float) and isinstance(b, float) and a < b for a, b in pairwise(stops))


def _color(group: int) -> str:
    return plots.PALETTE[group % len(plots.PALETTE)]


def _lift(surface: tuple[Tensor, Tensor, Tensor]) -> float:
    """How much nearer points and lines are taken to be, so that the surface's quads do not hide them."""
    return 2.5 / (min(surface[2].shape) - 1)


def _limits(low: float, high: float) -> tuple[str, str]:
    """The ends of an axis, to three digits of its length."""
    digits = 2 - math.floor(math.log10(high - low)) if high > low else 6
    return f"{round(low, digits) + 0.0:g}", f"{round(high, digits) + 0.0:g}"
