"""The book's figure style and its few recurrent figures.

A figure is drawn once and is legible on a light page, on a dark page and on paper: it is shown as
inline SVG whose ink is the page's own text color, on a transparent ground, with colors that keep a
contrast of at least 3 to 1 on white and on near-black and that stay apart for color-blind readers.
"""

from __future__ import annotations

import base64
import html
import io
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

#: Categorical colors, in the order in which a chapter introduces its losses.
PALETTE = ("#2f7fd1", "#d9622b", "#1d9a6c", "#a966c9", "#b5830f", "#d0528f", "#2495a8", "#808080")
SEQUENTIAL = "viridis"
DIVERGING = "vlag"

# Nearly black, and in no colormap: whatever is drawn in it becomes the page's text color.
_INK = "#010203"


def style() -> None:
    """Set the book's look for every later figure."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette=list(PALETTE),
        rc={
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": _INK,
            "axes.labelcolor": _INK,
            "axes.titlecolor": _INK,
            "axes.titlesize": 11,
            "axes.labelsize": 10.5,
            "axes.grid": True,
            "grid.color": _INK,
            "grid.alpha": 0.12,
            "grid.linewidth": 0.7,
            "text.color": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.frameon": False,
            "legend.fontsize": 9.5,
            "lines.linewidth": 2.0,
            "image.cmap": SEQUENTIAL,
            "svg.fonttype": "path",
        },
    )


def canvas(
    rows: int = 1, columns: int = 1, *, width: float = 8.0, height: float = 3.2, **subplots: Any
) -> tuple[Figure, Any]:
    """A new figure and its axes: `plt.subplots` with the book's sizes.

    Args:
        rows, columns: the grid of axes.
        width: width of the figure in inches.
        height: height of one row in inches.
        **subplots: passed to `matplotlib.pyplot.subplots`.

    Returns:
        The figure, and one axes or an array of axes as `plt.subplots` gives them.
    """
    return plt.subplots(rows, columns, figsize=(width, height * rows), **subplots)


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an SVG element that takes its ink from the page and says what it shows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # Several figures share a page, so their parts must not share names.
    own = uuid.uuid4().hex[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", svg)
    width = float(re.search(r'width="([\d.]+)pt"', svg).group(1))  # type: ignore[union-attr]
    head = (
        f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" class="lossbook-figure" '
        f'style="width:100%;max-width:{width * 1.25:.0f}px;height:auto;'
        f'stroke-linejoin:round;stroke-linecap:butt" '
    )
    svg = svg.replace("<svg ", head, 1)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", dpi=150)
    return base64.b64encode(buffer.getvalue()).decode()


def show(figure: Figure, alt: str) -> None:
    """Display a figure with its text alternative, and close it.

    Args:
        figure: a matplotlib figure.
        alt: what the figure shows, in a sentence or two, for a reader who cannot see it.

    Raises:
        ValueError: if `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("alt must say in words what the figure shows")
    bundle = {"text/html": _svg(figure, alt), "image/png": _png(figure), "text/plain": f"[{alt}]"}
    plt.close(figure)
    display(bundle, raw=True)


def interval(values: Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of independent values (one per seed)."""
    sample = values.detach().double().cpu().flatten()
    half = stats.t.ppf(0.5 + confidence / 2, len(sample) - 1) * sample.std() / len(sample) ** 0.5
    return float(sample.mean() - half), float(sample.mean() + half)


def seeds(axes: Axes, results: Mapping[str, Tensor], label: str) -> None:
    """One row per method: a dot for each seed, and the mean with its 95 % interval.

    Args:
        axes: where to draw.
        results: for each method its (S,) values, one per seed.
        label: what the values are, for the axis.
    """
    for row, values in enumerate(results.values()):
        color = PALETTE[row % len(PALETTE)]
        axes.plot(values.cpu(), np.full(len(values), row), "o", color=color, alpha=0.35, ms=4.5)
        axes.plot(interval(values), (row, row), color=color, lw=3, solid_capstyle="round")
        axes.plot(float(values.mean()), row, "|", color=color, ms=14, mew=2.5)
    axes.set_yticks(range(len(results)), list(results))
    axes.set(xlabel=label, ylim=(len(results) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)


def curves(axes: Axes, steps: Tensor, history: Mapping[str, Tensor], label: str) -> None:
    """Mean over seeds against the training step, with a band of one standard deviation.

    Args:
        axes: where to draw.
        steps: (T,) training steps.
        history: for each method its (T, S) values.
        label: what the values are, for the axis.
    """
    x = steps.cpu()
    for row, (name, values) in enumerate(history.items()):
        color = PALETTE[row % len(PALETTE)]
        mean, spread = values.mean(1).cpu(), values.std(1).cpu()
        axes.plot(x, mean, color=color, label=name)
        axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.18, lw=0)
    axes.set(xlabel="training step", ylabel=label)


def regions(
    axes: Axes,
    probabilities: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    *,
    resolution: int = 160,
    highlight: Tensor | None = None,
) -> None:
    """A classifier in the plane: its regions, shaded by confidence, and the data on top.

    Args:
        axes: where to draw.
        probabilities: maps (N, 2) points to (N, C) class probabilities.
        inputs: (N, 2) points.
        labels: (N,) class indices.
        resolution: grid points along an edge.
        highlight: (N,) Boolean, points to ring (mislabelled ones, say).
    """
    low, high = inputs.min(0).values - 0.4, inputs.max(0).values + 0.4
    horizontal, vertical = (torch.linspace(low[i], high[i], resolution) for i in (0, 1))
    grid = torch.cartesian_prod(horizontal, vertical)
    with torch.no_grad():
        p = probabilities(grid).cpu()
    confidence, winner = p.max(1)
    colors = np.array([to_rgba(color) for color in PALETTE])
    image = colors[winner.numpy() % len(PALETTE)]
    chance = 1 / p.shape[1]
    image[:, 3] = 0.05 + 0.45 * ((confidence - chance) / (1 - chance)).clamp(0, 1).numpy()
    axes.imshow(
        image.reshape(resolution, resolution, 4).transpose(1, 0, 2),
        extent=(float(low[0]), float(high[0]), float(low[1]), float(high[1])),
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
    )
    first, second = inputs.cpu().T
    axes.scatter(
        first,
        second,
        c=[PALETTE[label % len(PALETTE)] for label in labels.tolist()],
        s=12,
        edgecolors="white",
        linewidths=0.4,
    )
    if highlight is not None:
        ringed = highlight.cpu()
        axes.scatter(
            first[ringed], second[ringed], s=42, facecolors="none", edgecolors=_INK, linewidths=1.0
        )
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
