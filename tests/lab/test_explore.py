"""An explorable figure must say in the page, in a widget and on paper what its functions say."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup, Tag
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lossbook.lab import controls, explore, plots

X = torch.linspace(-2, 3, 11, dtype=torch.float64)
SHIFTS = (-1.0, 0.25, 1 / 3)
CONTROLS = {
    "shift": explore.slider("shift s", SHIFTS, 0.3),
    "form": explore.choice("form", ["square", "cube"], "cube"),
}


def power(x: Tensor, shift: float, form: str) -> tuple[Tensor, Tensor]:
    n = {"square": 2, "cube": 3}[form]
    return (x - shift) ** n, n * (x - shift) ** (n - 1)


def line(x: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    return x + shift, torch.ones_like(x)


def still(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.sin(), x.cos()


def figure(**changes: Any) -> explore.Explorable:
    settings = {
        "x": ("place", X),
        # The controls in another order than the figure's, and not all of them.
        "curves": {
            "power {form}, s = {shift}": (power, "form", "shift"),
            "line": (line, "shift"),
            "sine": still,
        },
        "controls": CONTROLS,
        "panels": {"value": (-4, 8), "slope": (-1, 12)},
        "alt": 'Two curves & a "line"',
        "question": "Which is < the other?",
    }
    return explore.curves("toy", **(settings | changes))


def soup(explorable: explore.Explorable) -> BeautifulSoup:
    return BeautifulSoup(explorable._repr_mimebundle_()["text/html"], "html.parser")


def specification(explorable: explore.Explorable) -> dict[str, Any]:
    script = soup(explorable).find("script", type="application/json")
    return json.loads(script.get_text())


def decode(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").astype(float))


# --- controls


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), st.floats(-1e3, 1e3))
def test_a_slider_starts_at_the_stop_nearest_to_its_start(stops: list[float], start: float) -> None:
    control = explore.slider("s", stops, start)
    chosen = control.stops[control.start]
    assert all(abs(chosen - start) <= abs(stop - start) for stop in stops)
    assert control.stops == tuple(stops)


def test_a_slider_takes_a_tensor_and_shows_four_digits() -> None:
    control = explore.slider("s", torch.tensor([0.0, 1 / 3, 12345.678]), 0)
    assert control.shown == ["0", "0.3333", "1.235e+04"]
    assert [type(stop) for stop in control.stops] == [float, float, float]


def test_a_choice_shows_its_names_and_refuses_an_unknown_start() -> None:
    control = explore.choice("form", ["square", "cube"], "cube")
    assert (control.shown, control.start) == (["square", "cube"], 1)
    with pytest.raises(ValueError, match="sphere"):
        explore.choice("form", ["square", "cube"], "sphere")


# --- values and slopes


def test_with_slope_gives_the_derivative_even_where_gradients_are_off() -> None:
    with torch.no_grad():
        value, slope = explore.with_slope(lambda x, n: x**n)(X, n=3)
    torch.testing.assert_close(value, X**3)
    torch.testing.assert_close(slope, 3 * X**2)
    assert not X.requires_grad and not value.requires_grad and not slope.requires_grad


def test_values_are_the_function_s_in_each_panel() -> None:
    toy = figure()
    settings = {"shift": 0.25, "form": "square"}
    values = toy.values(toy.curves[0], settings)
    torch.testing.assert_close(values, torch.stack(power(X, **settings)))
    assert toy.start() == {"shift": 1 / 3, "form": "cube"}


# --- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alt": " "}, "alt must say"),
        ({"x": ("place", X.flip(0))}, "increasing"),
        ({"x": ("place", torch.zeros(3))}, "increasing"),
        ({"x": ("place", X[None])}, "increasing"),
        ({"curves": {"line": (line, "shft")}}, r"'line'.*unknown controls \['shft'\]"),
    ],
)
def test_bad_input_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure(**changes)


@pytest.mark.parametrize(
    "function",
    [torch.sin, lambda x: (x, x, x), lambda x: (x[1:], x[1:]), lambda x: (x.sum(), x.sum())],
)
def test_values_of_a_wrong_shape_are_refused(function: Callable[..., Any]) -> None:
    wrong = figure(curves={"wrong": function})
    with pytest.raises(ValueError, match=r"'wrong' must give 2 tensors of shape \(11,\)"):
        wrong._repr_mimebundle_()


# --- in the page


def test_the_page_holds_every_value_where_its_script_looks_for_it() -> None:
    """As its script does: controls row-major in the curve's order, then panels, then points."""
    toy = figure()
    spec = specification(toy)
    torch.testing.assert_close(decode(spec["x"]), X, rtol=1e-7, atol=1e-7)
    assert [c["shown"] for c in spec["controls"]] == [["-1", "0.25", "0.3333"], ["square", "cube"]]
    assert [curve["controls"] for curve in spec["curves"]] == [[1, 0], [0], []]
    for curve, stored in zip(toy.curves, spec["curves"], strict=True):
        data = decode(stored["data"])
        for positions in itertools.product(range(3), range(2)):
            stop = 0
            for control in stored["controls"]:
                stop = stop * len(spec["controls"][control]["shown"]) + positions[control]
            start = stop * spec["panels"] * len(X)
            found = data[start : start + 2 * len(X)].reshape(2, len(X))
            settings = {"shift": SHIFTS[positions[0]], "form": ("square", "cube")[positions[1]]}
            expected = curve.function(X, **{name: settings[name] for name in curve.controls})
            torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-6)


def drawn(panel: Tag) -> list[Tensor]:
    """The points of a panel's curves in the units of its axes."""
    left, bottom, across, up = map(float, panel["data-axes"].split())
    return [
        torch.tensor(
            [
                [(float(x) - left) / across, (float(y) - bottom) / up]
                for x, y in (pair.split(",") for pair in line["points"].split())
            ]
        )
        for line in panel.find_all("polyline")
    ]


def test_the_page_starts_with_the_curves_drawn_on_its_axes() -> None:
    toy = figure()
    panels = soup(toy).select("svg[data-panel]")
    for panel, (svg, limits) in enumerate(zip(panels, toy.panels.values(), strict=True)):
        left, bottom, across, up = map(float, svg["data-axes"].split())
        clip = svg.find("clippath" if svg.find("clippath") else "clipPath").find("rect")
        x0, y0, width, height = (float(clip[name]) for name in ("x", "y", "width", "height"))
        for x, y in ((X[0], limits[0]), (X[-1], limits[1])):  # the corners of the frame
            corner = (x0 if x == X[0] else x0 + width, y0 + height if y == limits[0] else y0)
            assert (left + across * x, bottom + up * y) == pytest.approx(corner)
        for curve, points in zip(toy.curves, drawn(svg), strict=True):
            expected = toy.values(curve, toy.start())[panel].float()
            torch.testing.assert_close(points[:, 0], X.float(), rtol=0, atol=1e-3)
            torch.testing.assert_close(points[:, 1], expected, rtol=0, atol=1e-3)


def test_ticks_stand_where_they_say() -> None:
    (panel, _) = soup(figure()).select("svg[data-panel]")
    left, bottom, across, up = map(float, panel["data-axes"].split())
    ticks = panel.find_all("text", attrs={"text-anchor": "end"})
    assert len(ticks) > 2
    for tick in ticks:
        assert float(tick["y"]) - 4 == pytest.approx(bottom + up * float(tick.get_text()), abs=0.01)
    numbers = [t for t in panel.find_all("text") if re.fullmatch(r"-?[\d.]+", t.get_text())]
    for tick in (t for t in numbers if t not in ticks):
        assert float(tick["x"]) == pytest.approx(left + across * float(tick.get_text()), abs=0.01)


def test_values_that_are_not_finite_are_left_out_of_the_drawing() -> None:
    hole = figure(curves={"log": lambda x: (x.log(), 1 / x)}, x=("place", torch.linspace(-1, 1, 5)))
    for panel in soup(hole).select("svg[data-panel]"):
        (line,) = panel.find_all("polyline")
        numbers = [float(n) for pair in line["points"].split() for n in pair.split(",")]
        assert np.isfinite(numbers).all() and numbers


def test_the_page_says_in_words_what_it_shows() -> None:
    page = soup(figure())
    labels = [svg["aria-label"] for svg in page.select('svg[role="img"]')]
    assert labels == [f'{panel}. Two curves & a "line"' for panel in ("value", "slope")]
    assert all(svg.get("role") or svg.get("aria-hidden") == "true" for svg in page.find_all("svg"))
    assert page.figcaption.get_text() == "Which is < the other?"
    assert [label.get_text(" ", strip=True).split()[0] for label in page.find_all("label")] == [
        "shift",
        "form",
    ]


def test_the_page_s_controls_stand_at_the_start() -> None:
    slider, menu = soup(figure()).select("[data-control]")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")
    assert [o.get_text() for o in menu.find_all("option")] == ["square", "cube"]
    assert menu.find("option", selected=True).get_text() == "cube"
    assert [o.get_text() for o in soup(figure()).select("[data-output]:not([hidden])")] == [
        "0.3333"
    ]


def test_two_figures_on_a_page_keep_apart() -> None:
    first, second = (soup(figure()) for _ in range(2))
    ids = [tag["id"] for page in (first, second) for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids)) > 0
    assert f'getElementById("{first.figure["id"]}")' in first.find_all("script")[-1].get_text()


def test_a_figure_without_controls_is_a_figure() -> None:
    page = soup(figure(controls={}, curves={"sine": still}, question=""))
    assert len(page.find_all("polyline")) == 2 and not page.find("figcaption")


def test_a_figure_has_a_picture_for_paper_and_leaves_none_open() -> None:
    open_before = plt.get_fignums()
    bundle = figure()._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == '[Two curves & a "line"]'
    assert plt.get_fignums() == open_before


# --- live


def my_loss(x: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    return (x - shift).abs(), (x - shift).sign()


def test_live_in_the_rendered_book_is_the_static_figure_with_the_added_curve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOSSBOOK_STATIC", "1")
    toy = figure()
    live = toy.live(my_loss=my_loss)
    assert live.name == "toy-live" and toy.name == "toy"
    assert live.curves[:3] == toy.curves
    assert (live.curves[3].label, live.curves[3].controls) == ("my loss", ("shift",))
    data = decode(specification(live)["curves"][3]["data"]).reshape(3, 2, len(X))
    expected = torch.stack([torch.stack(my_loss(X, shift)) for shift in SHIFTS])
    torch.testing.assert_close(data, expected, rtol=1e-6, atol=1e-6)


def test_live_takes_a_function_with_slope_and_its_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBOOK_STATIC", "1")
    live = figure().live(mine=explore.with_slope(lambda x, shift: (x - shift) ** 2))
    assert live.curves[3].controls == ("shift",)
    values = live.values(live.curves[3], {"shift": 0.25})
    torch.testing.assert_close(values, torch.stack([(X - 0.25) ** 2, 2 * (X - 0.25)]))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> tuple[list[ipywidgets.VBox], list[list[Tensor]]]:
    """What a notebook would show: the widgets, and for each redraw the heights of all lines."""
    shown: list[ipywidgets.VBox] = []
    drawings: list[list[Tensor]] = []

    def show(picture: plt.Figure, alt: str) -> None:
        assert alt == figure().alt
        lines = [line for axes in picture.axes for line in axes.get_lines()]
        drawings.append([torch.as_tensor(np.asarray(line.get_ydata())) for line in lines])
        plt.close(picture)

    monkeypatch.delenv("LOSSBOOK_STATIC", raising=False)
    monkeypatch.setattr(controls, "display", shown.append)
    monkeypatch.setattr(plots, "show", show)
    return shown, drawings


def test_live_shows_widgets_that_draw_afresh_at_every_move(
    screen: tuple[list[ipywidgets.VBox], list[list[Tensor]]],
) -> None:
    shown, drawings = screen
    assert figure().live(my_loss=my_loss) is None
    (box,) = shown
    slider, menu, picture = box.children
    assert isinstance(picture, ipywidgets.Output)
    assert (slider.description, slider.value, menu.value) == ("shift s", 1 / 3, "cube")

    def expected(shift: float, form: str) -> list[Tensor]:
        values = [power(X, shift, form), line(X, shift), still(X), my_loss(X, shift)]
        return [curve[panel] for panel in (0, 1) for curve in values]

    slider.value = -1.0
    menu.value = "square"
    settings = [(1 / 3, "cube"), (-1.0, "cube"), (-1.0, "square")]
    assert len(drawings) == len(settings)
    for drawing, setting in zip(drawings, settings, strict=True):
        torch.testing.assert_close(drawing, expected(*setting))


def test_live_quotes_the_controls_in_the_legend() -> None:
    picture = figure()._picture({"shift": 0.25, "form": "square"})
    texts = [text.get_text() for text in picture.axes[0].get_legend().get_texts()]
    assert texts == ["power square, s = 0.25", "line", "sine"]
    assert [axes.get_title() for axes in picture.axes] == ["value", "slope"]
    assert [axes.get_ylim() for axes in picture.axes] == [(-4, 8), (-1, 12)]
    plt.close(picture)


# --- play


def curve_of(form: str, shift: float) -> plt.Figure:
    picture, axes = plots.canvas()
    axes.plot(power(X, shift, form)[0])
    return picture


def test_play_draws_afresh_when_a_control_is_let_go(
    screen: tuple[list[ipywidgets.VBox], list[list[Tensor]]],
) -> None:
    shown, drawings = screen
    explore.play(curve_of, figure().alt, **CONTROLS)
    (box,) = shown
    slider, menu, _ = box.children
    assert not slider.continuous_update
    slider.value = -1.0
    menu.value = "square"
    settings = [(1 / 3, "cube"), (-1.0, "cube"), (-1.0, "square")]
    assert len(drawings) == len(settings)
    for (heights,), setting in zip(drawings, settings, strict=True):
        torch.testing.assert_close(heights, power(X, *setting)[0])


def test_play_in_the_rendered_book_is_the_picture_it_starts_from(
    screen: tuple[list[ipywidgets.VBox], list[list[Tensor]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, drawings = screen
    monkeypatch.setenv("LOSSBOOK_STATIC", "1")
    explore.play(curve_of, figure().alt, **CONTROLS)
    assert shown == [] and len(drawings) == 1


def test_play_wants_a_control_for_every_argument() -> None:
    with pytest.raises(ValueError, match=r"arguments \['form', 'shift'\], got \['shift'\]"):
        explore.play(curve_of, "alt", shift=CONTROLS["shift"])
