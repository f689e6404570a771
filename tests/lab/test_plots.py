"""Figures must be legible on any page, say what they show, and draw the numbers they are given."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from scipy import stats

from lossbook.lab import plots

SAMPLE = torch.tensor([0.3, 1.1, 0.7, 0.9, 0.2])


@pytest.fixture(autouse=True)
def book_style() -> Any:
    with plt.rc_context():
        plots.style()
        yield
        plt.close("all")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What `plots.show` hands to the notebook."""
    bundles: list[dict[str, str]] = []

    def display(bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        bundles.append(bundle)

    monkeypatch.setattr(plots, "display", display)
    return bundles


# --- showing


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_words_is_not_shown(alt: str, shown: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="alt must say in words"):
        plots.show(plots.canvas()[0], alt)
    assert shown == []


def test_a_figure_is_svg_in_the_page_s_ink_with_its_words(shown: list[dict[str, str]]) -> None:
    figure, axes = plots.canvas(1, 2)
    axes[0].plot([0, 1], label="line")
    axes[0].legend()
    plots.regions(axes[1], lambda g: g.softmax(1), torch.randn(9, 2), torch.arange(9) % 2,
                  highlight=torch.arange(9) < 3)  # fmt: skip
    axes[0].set(title="A title", xlabel="x")
    figure.set_facecolor("white")
    alt = 'A line that rises from 0 to 1 & is called "line" < rising'
    plots.show(figure, alt)
    (bundle,) = shown
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert bundle["text/plain"] == f"[{alt}]"

    svg = ElementTree.fromstring(bundle["text/html"])
    assert svg.tag.endswith("svg") and svg.get("role") == "img" and svg.get("aria-label") == alt
    assert svg.get("class") == "lossbook-figure" and svg.get("viewBox")
    assert svg.get("width") is None and svg.get("height") is None  # the page decides
    assert "#010203" not in bundle["text/html"] and "currentColor" in bundle["text/html"]
    (ground,) = (part for part in svg.iter() if part.get("id", "").endswith("-patch_1"))
    assert ground[0].get("style") == "fill: none"
    assert plt.get_fignums() == []


def test_figures_on_one_page_share_no_names_and_no_style(shown: list[dict[str, str]]) -> None:
    for _ in range(2):
        figure, axes = plots.canvas()
        axes.plot([0, 1])
        plots.show(figure, "A line")
    names = [re.findall(r'\bid="([^"]+)"', bundle["text/html"]) for bundle in shown]
    assert names[0] and not set(names[0]) & set(names[1])
    for own, bundle in zip(names, shown, strict=True):
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', bundle["text/html"])
        assert used and set(used) <= set(own)
        assert "<style" not in bundle["text/html"]


def test_a_figure_has_a_picture_for_paper(shown: list[dict[str, str]]) -> None:
    plots.show(plots.canvas()[0], "Empty axes")
    assert base64.b64decode(shown[0]["image/png"]).startswith(b"\x89PNG")


def test_a_canvas_grows_with_its_rows() -> None:
    figure, axes = plots.canvas(3, 2, width=7, height=2)
    assert axes.shape == (3, 2)
    assert tuple(figure.get_size_inches()) == (7, 6)


def luminance(color: str) -> float:
    c = np.array(to_rgba(color)[:3])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("color", plots.PALETTE)
@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_colors_stand_out_on_light_and_dark_pages(color: str, page: str) -> None:
    light, dark = sorted([luminance(color), luminance(page)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


# --- the recurrent figures


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_an_interval_is_student_s(confidence: float) -> None:
    expected = stats.ttest_1samp(SAMPLE.double(), 0).confidence_interval(confidence)
    assert plots.interval(SAMPLE, confidence) == pytest.approx(expected, abs=1e-6)
    assert plots.interval(SAMPLE.half()) == pytest.approx(plots.interval(SAMPLE), abs=1e-2)


def test_seeds_draws_every_value_its_mean_and_its_interval() -> None:
    _, axes = plots.canvas()
    results = {"first": SAMPLE, "second": SAMPLE + 1}
    plots.seeds(axes, results, "accuracy")
    for row, (dots, bar, mean) in enumerate(zip(*[iter(axes.get_lines())] * 3, strict=True)):
        values = SAMPLE + row
        assert dots.get_xdata() == pytest.approx(values.numpy())
        assert bar.get_xdata() == pytest.approx(plots.interval(values))
        assert mean.get_xdata() == pytest.approx(float(values.mean()))
        assert {float(y) for line in (dots, bar, mean) for y in np.ravel(line.get_ydata())} == {row}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.get_xlabel() == "accuracy"
    assert axes.yaxis_inverted()  # the first method on top


def test_curves_draws_the_mean_and_one_standard_deviation() -> None:
    _, axes = plots.canvas()
    steps, values = torch.arange(4), torch.randn(4, 6)
    plots.curves(axes, steps, {"method": values}, "loss")
    (line,), (band,) = axes.get_lines(), axes.collections
    assert line.get_ydata() == pytest.approx(values.mean(1).numpy(), abs=1e-6)
    for step, mean, spread in zip(steps, values.mean(1), values.std(1), strict=True):
        edge = band.get_paths()[0].vertices
        heights = edge[edge[:, 0] == step][:, 1]
        assert heights.min() == pytest.approx(float(mean - spread), abs=1e-5)
        assert heights.max() == pytest.approx(float(mean + spread), abs=1e-5)
    assert (line.get_label(), axes.get_ylabel()) == ("method", "loss")


def test_regions_colors_each_place_by_its_class_and_confidence() -> None:
    def quadrant(points: torch.Tensor) -> torch.Tensor:
        """Sure of class 0 on the left; on the right, class 1 below and class 2 above, half sure."""
        right, above = points[:, 0] > 0, points[:, 1] > 0
        p = torch.full((len(points), 3), 0.2)
        p[torch.arange(len(points)), right.long() * (1 + above.long())] = 0.6
        p[~right] = torch.tensor([1.0, 0.0, 0.0])
        return p

    _, axes = plots.canvas()
    inputs = torch.tensor([[-1.0, -2.0], [1.0, 2.0]])
    labels = torch.tensor([0, 2])
    plots.regions(axes, quadrant, inputs, labels, resolution=40, highlight=labels > 1)
    (image,) = axes.get_images()
    assert image.get_extent() == pytest.approx((-1.4, 1.4, -2.4, 2.4))
    picture = image.get_array()  # rows run upwards: origin is "lower"
    places = {(5, 5): (0, 1.0), (35, 5): (0, 1.0), (5, 35): (1, 0.4), (35, 35): (2, 0.4)}
    for (row, column), (k, certainty) in places.items():
        color = (*to_rgba(plots.PALETTE[k])[:3], 0.05 + 0.45 * certainty)
        assert tuple(picture[row, column]) == pytest.approx(color)
    points, rings = axes.collections
    assert points.get_offsets().data == pytest.approx(inputs.numpy())
    assert rings.get_offsets().data == pytest.approx(inputs[1:].numpy())
