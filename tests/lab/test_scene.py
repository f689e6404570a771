"""A scene must say in the page, in a widget and on paper what its functions say, from every side."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from torch import Tensor

from lossbook.lab import controls, explore, plots

TIMES = (0.0, 0.5, 1.0)
CONTROLS = {
    "time": explore.slider("time t", TIMES, 0.6),
    "form": explore.choice("form", ["wide", "tall"], "tall"),
}
GROUPS = torch.tensor([0, 1, 1, 0, 2])
PLACES = torch.tensor(
    [[1, 0, 0], [0, 1, 0.1], [0, 0, 1], [-1, 0.5, 0.25], [0.1, -0.7, -1]], dtype=torch.float64
)


def points(form: str, time: float) -> Tensor:
    return PLACES * torch.tensor({"wide": [2, 2, 1], "tall": [1, 1, 2]}[form]) * (1 + time)


def lines(time: float) -> list[Tensor]:
    """As many polylines as it is late, of different lengths."""
    return [PLACES[: k + 2] * (1 + time) for k in range(round(2 * time) + 1)]


def energy(time: float) -> dict[str, float]:
    return {"energy": time**2, "NC1": 1 / 3}


def figure(**changes: Any) -> explore.Scene:
    settings = {
        "controls": CONTROLS,
        "points": points,
        "groups": GROUPS,
        "labels": ["first", "second & more", "third"],
        "lines": lines,
        "readouts": energy,
        "alt": 'Five points in "space"',
        "question": "Which is < the other?",
    }
    return explore.scene("toy", **(settings | changes))


X, Y = torch.linspace(-1, 1, 4), torch.linspace(0, 5, 3)


def heights(time: float) -> tuple[Tensor, Tensor, Tensor]:
    return X, Y, X[:, None] ** 2 + time * Y


def landscape(**changes: Any) -> explore.Scene:
    settings = {
        "controls": CONTROLS,
        "surface": heights,
        "axes": ["x", "y", "loss"],
        "alt": "A bowl in space",
    }
    return explore.scene("bowl", **(settings | changes))


RISING = {name: explore.slider(name, [0.0, 1.0, 3.0], 1.0) for name in ("time", "form")}
FALLING = RISING | {"form": explore.slider("form", [1.0, 0.5], 1.0)}


def flat(**changes: Any) -> explore.Scene:
    settings = {
        "points": lambda time: points("wide", time)[:, :2],
        "lines": lambda: [PLACES[:, :2]],
        "circle": True,
    }
    return figure(**(settings | changes))


def soup(scene: explore.Scene) -> BeautifulSoup:
    return BeautifulSoup(scene._html(), "html.parser")


def specification(scene: explore.Scene) -> dict[str, Any]:
    script = soup(scene).find("script", type="application/json")
    return json.loads(script.get_text(), parse_constant=pytest.fail)  # NaN is no JSON


def stored(spec: dict[str, Any], part: str, positions: tuple[int, ...]) -> Tensor:
    """The values of a part where the page's script looks for them."""
    entry = spec["parts"][part]
    stop = 0
    for control in entry["controls"]:
        stop = stop * len(spec["controls"][control]["shown"]) + positions[control]
    data = np.frombuffer(base64.b64decode(entry["data"]), "<f4").astype(float)
    return torch.from_numpy(data[stop * entry["size"] : (stop + 1) * entry["size"]])


# --- values


def test_values_are_the_functions_at_the_controls_that_they_take() -> None:
    values = figure().values({"time": 0.5, "form": "wide"})
    torch.testing.assert_close(values.points, points("wide", 0.5))
    torch.testing.assert_close(list(values.lines), lines(0.5))
    assert values.surface is None and values.readouts == {"energy": 0.25, "NC1": 1 / 3}
    bowl = landscape().values({"time": 0.5, "form": "wide"})
    torch.testing.assert_close(bowl.surface, heights(0.5))
    assert bowl.points.shape == (0, 3) and bowl.lines == () and bowl.readouts == {}
    assert figure().start() == {"time": 0.5, "form": "tall"}


@pytest.mark.parametrize("make", [figure, landscape, flat])
def test_no_class_is_taken_for_an_icon(make: Callable[[], explore.Scene]) -> None:
    """The book's theme replaces whatever has one of these classes by a picture of its own."""
    icons = {"fa", "fab", "fad", "fal", "far", "fas", "fat"}
    classes = {name for tag in soup(make()).find_all(class_=True) for name in tag["class"]}
    assert {"behind", "before"} <= classes and not classes & icons


def test_values_carry_no_gradient() -> None:
    weight = torch.ones(1, requires_grad=True)
    scene = figure(
        points=lambda: weight * PLACES,
        lines=lambda: [weight * PLACES],
        readouts=lambda: {"norm": weight.detach()},
    )
    values = scene.values(scene.start())
    assert not values.points.requires_grad and not values.lines[0].requires_grad
    assert values.readouts == {"norm": 1.0}
    assert scene._repr_mimebundle_()["text/html"]


# --- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alt": " "}, "alt must say"),
        ({"points": None, "lines": None, "groups": None}, "needs points, lines or a surface"),
        ({"points": None}, "points and groups"),
        ({"groups": None}, "points and groups"),
        ({"groups": GROUPS.float()}, r"groups must be \(N,\) int64; got \(5,\) torch.float32"),
        ({"groups": GROUPS[None]}, r"groups must be \(N,\) int64; got \(1, 5\)"),
        ({"groups": GROUPS + 1}, "groups must index the 3 labels; got 3"),
        ({"groups": GROUPS - 1}, "groups must index the 3 labels; got -1"),
        ({"line_groups": [0, 5]}, "line_groups must index the 3 labels; got 5"),
        ({"points": lambda tim: PLACES}, r"points takes 'tim', .* \['form', 'time'\]"),
        ({"readouts": lambda t: {}}, "readouts takes 't'"),
        ({"controls": {"azimuth": CONTROLS["time"]}}, r"\['azimuth'\]"),
        ({"controls": {}, "points": lambda: PLACES, "lines": None, "readouts": None, "play": True},
         "play needs a control"),
        ({"surface": heights, "sphere": True}, "neither sphere nor circle"),
        ({"points": lambda: PLACES[:, :2], "lines": None, "sphere": True}, "sphere needs"),
        ({"axes": ["x", "y"]}, "axes must have 3 labels; got 2"),
        ({"drag": ["time"]}, r"drag must name two sliders with increasing stops; got \('time',\)"),
        ({"drag": ["time", "time"]}, "drag must name two sliders"),
        ({"drag": ["time", "form"]}, "drag must name two sliders"),
        ({"drag": ["time", "other"]}, "drag must name two sliders"),
        ({"controls": FALLING, "drag": ["time", "form"]}, "drag must name two sliders"),
        ({"controls": RISING, "drag": ["time", "form"], "points": None, "groups": None,
          "readouts": None}, "drag is for the plane"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": lambda: PLACES[:4]}, r"\(5, 2 or 3\).*got \(4, 3\)"),
        ({"points": lambda: PLACES[:, :1]}, r"got \(5, 1\)"),
        ({"points": lambda: PLACES[0]}, r"got \(3,\)"),
        ({"lines": lambda: [PLACES, PLACES[:, :2]]}, r"lines must give \(M, 3\).*got \(5, 2\)"),
        ({"lines": lambda: [PLACES], "line_groups": [0, 1]}, "2 polylines.*got 1"),
        ({"surface": lambda: (X, Y, torch.zeros(3, 4))}, r"got \(4,\), \(3,\) and \(3, 4\)"),
        ({"surface": lambda: (X[:1], Y, torch.zeros(1, 3))}, "at least 2"),
        ({"surface": lambda time: (X[: round(time) + 2], Y, torch.zeros(round(time) + 2, 3))},
         "same shape"),
        ({"readouts": lambda time: {f"at {time}": 1}}, "same names"),
        ({"points": lambda: PLACES * math.nan, "lines": None}, "finite"),
    ],
)  # fmt: skip
def test_values_of_a_wrong_shape_are_refused(changes: dict[str, Any], message: str) -> None:
    scene = figure(**changes)
    with pytest.raises(ValueError, match=message):
        scene._repr_mimebundle_()


def test_a_scene_too_large_for_a_page_says_what_to_reduce() -> None:
    many = torch.zeros(2000, dtype=torch.int64)
    times = explore.slider("time", torch.linspace(0, 1, 60), 0)
    large = figure(
        controls={"time": times},
        points=lambda time: torch.full((2000, 3), time),
        groups=many,
        lines=None,
    )
    with pytest.raises(
        ValueError, match=r"'toy' would put 1\.9 MB.*points 60 stops x 6000 numbers"
    ):
        large._repr_mimebundle_()


# --- in the page


def test_the_page_holds_every_value_where_its_script_looks_for_it() -> None:
    spec = specification(figure())
    assert [c["shown"] for c in spec["controls"]] == [["0", "0.5", "1"], ["wide", "tall"]]
    assert {name: part["controls"] for name, part in spec["parts"].items()} == {
        "points": [1, 0],
        "lines": [0],
        "readouts": [0],
    }
    for t, f in itertools.product(range(3), range(2)):
        time, form = TIMES[t], ("wide", "tall")[f]
        found = stored(spec, "points", (t, f)).reshape(-1, 3)
        torch.testing.assert_close(found, points(form, time), rtol=1e-6, atol=1e-6)
        numbers = dict(
            zip(spec["readouts"], stored(spec, "readouts", (t, f)).tolist(), strict=True)
        )
        assert numbers == pytest.approx(energy(time), rel=1e-6)
        rows = stored(spec, "lines", (t, f)).reshape(-1, 3)
        for line in lines(time):
            here, rows = rows[: len(line)], rows[len(line) :]
            torch.testing.assert_close(here, line, rtol=1e-6, atol=1e-6)
            assert rows[0].isinf().all()
            rows = rows[1:]
        assert rows.isnan().all()


def test_the_page_holds_the_surface() -> None:
    spec = specification(landscape())
    assert spec["surface"]["shape"] == [4, 3]
    for t, time in enumerate(TIMES):
        x, y, z = stored(spec, "surface", (t, 0)).split([4, 3, 12])
        for found, expected in zip((x, y, z.reshape(4, 3)), heights(time), strict=True):
            torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)
    low, high = spec["surface"]["heights"]
    center, scale = spec["center"][2], spec["scale"][2]
    assert low / scale + center == pytest.approx(1 / 9)  # over all stops
    assert high / scale + center == pytest.approx(6)


def placed(spec: dict[str, Any], rows: Tensor) -> Tensor:
    return (rows - torch.tensor(spec["center"])) * torch.tensor(spec["scale"])


def test_a_scene_fills_the_unit_ball_and_keeps_lengths() -> None:
    spec = specification(figure())
    everything = torch.cat([points(form, t) for form in ("wide", "tall") for t in TIMES])
    assert placed(spec, everything).norm(dim=1).max() == pytest.approx(1, abs=0.2)
    assert placed(spec, everything).norm(dim=1).max() <= 1 + 1e-6
    assert len(set(spec["scale"])) == 1


def test_a_scene_in_the_plane_fills_its_square() -> None:
    scene = flat(points=lambda: torch.tensor([[3.0, 1.0], [7.0, 2.0]]), lines=None, circle=False,
                 groups=torch.tensor([0, 1]), labels=["first", "second"])  # fmt: skip
    corners = placed(specification(scene), torch.tensor([[3.0, 1.0, 0.0], [7.0, 2.0, 0.0]]))
    torch.testing.assert_close(corners, torch.tensor([[-1.0, -0.25, 0.0], [1.0, 0.25, 0.0]]))


def test_a_sphere_is_drawn_around_the_origin_at_its_size() -> None:
    for size in (0.5, 2.0):
        scene = figure(points=lambda s=size: s * PLACES / PLACES.norm(dim=1, keepdim=True),
                       lines=None, sphere=True)  # fmt: skip
        spec = specification(scene)
        assert spec["center"] == [0, 0, 0] and spec["sphere"] is True
        assert spec["scale"] == pytest.approx([1 / max(size, 1)] * 3)
        outline = soup(scene).select_one("circle.outline")
        assert float(outline["r"]) == pytest.approx(spec["unit"] * spec["scale"][0], abs=0.01)
        frame = torch.tensor([row for row in spec["frame"] if row])
        torch.testing.assert_close(
            frame.norm(dim=1), torch.full((len(frame),), 1 / max(size, 1)), rtol=1e-5, atol=1e-5
        )


def test_a_surface_fills_the_box_of_its_axes() -> None:
    scene = landscape()
    corners = placed(specification(scene), torch.tensor([[-1, 0, 1 / 9], [1, 5, 6]]))
    torch.testing.assert_close(corners[0], -corners[1], rtol=0, atol=1e-6)
    assert corners[1].tolist() == pytest.approx([1 / 1.45, 1 / 1.45, 0.62 / 1.45], abs=1e-6)
    marks = specification(scene)["axes"]
    assert [mark["texts"] for mark in marks] == [
        ["-1", "x", "1"],
        ["0", "y", "5"],
        ["0.11", "loss", "6"],
    ]
    assert [len(mark["edges"]) for mark in marks] == [2, 2, 4]
    for axis, mark in enumerate(marks):
        for start, end in torch.tensor(mark["edges"]):
            assert ((end - start).abs() > 0.1).nonzero().flatten().tolist() == [axis]


TURN = "Drag, or use the arrow keys, to turn it; double-click to turn it back."


def test_the_page_says_in_words_what_it_shows() -> None:
    page = soup(figure())
    (svg,) = page.select('svg[role="img"]')
    assert svg["aria-label"] == f'Five points in "space" {TURN}' and svg["tabindex"]
    assert all(s.get("role") or s.get("aria-hidden") == "true" for s in page.find_all("svg"))
    assert page.figcaption.get_text() == "Which is < the other?"
    legend = [span.get_text() for span in page.select(".legend > span")]
    assert legend == ["first", "second & more", "third"]
    drawn = [circle["fill"] for circle in page.select(".legend circle")]
    assert drawn == list(plots.PALETTE[:3])


def test_a_flat_scene_is_not_for_turning() -> None:
    (svg,) = soup(flat()).select('svg[role="img"]')
    assert "tabindex" not in svg.attrs and svg["aria-label"] == 'Five points in "space"'
    assert not soup(flat()).select(".hint")
    assert specification(flat())["view"] == [-90, 90]


def test_a_ring_stands_where_its_two_sliders_say_and_always_in_the_picture() -> None:
    across = explore.slider("across", [-9.0, 0.0, 2.0], 0.0)
    up = explore.slider("up", [1.0, 1.5], 1.5)
    scene = flat(
        controls=CONTROLS | {"across": across, "up": up}, drag=("across", "up"), circle=False
    )
    page, spec = soup(scene), specification(scene)
    assert len(page.select("svg[data-scene] circle[data-handle]")) == 1
    assert page.select_one("svg[data-scene]")["tabindex"] and "ring" in page.select(".hint")[0].text
    assert spec["drag"] == [
        {"control": 2, "stops": [-9.0, 0.0, 2.0]},
        {"control": 3, "stops": [1.0, 1.5]},
    ]
    assert float(scene._space.low[0]) == -9
    picture = scene._picture(scene.start())
    (ring,) = (line for line in picture.axes[0].lines if line.get_markersize() == 13)
    drawn = torch.tensor([ring.get_xdata()[0], ring.get_ydata()[0]])
    placed = (torch.tensor([0.0, 1.5]) - scene._space.center[:2]) * scene._space.scale[:2]
    torch.testing.assert_close(drawn.double(), 200 + scene._unit * placed * torch.tensor([1, -1]))
    plt.close(picture)


def test_a_group_beyond_the_palette_is_hollow() -> None:
    scene = figure(groups=torch.tensor([0, 1, 7, 8, 9]), labels=[f"c{i}" for i in range(10)])
    circles = soup(scene).select(".legend circle")
    assert [c["fill"] for c in circles[7:]] == [plots.PALETTE[7], "none", "none"]
    assert circles[8]["stroke"] == plots.PALETTE[0]


def test_a_play_button_only_where_asked() -> None:
    assert not soup(figure()).select("button")
    (button,) = soup(figure(play=True)).select("button[data-play]")
    assert button.get_text() == "Play: time t"


def test_two_scenes_on_a_page_keep_apart() -> None:
    first, second = (soup(figure()) for _ in range(2))
    ids = [tag["id"] for page in (first, second) for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids)) > 0
    assert f'getElementById("{first.figure["id"]}")' in first.find_all("script")[-1].get_text()


# --- on paper


@given(st.floats(-180, 180), st.floats(-90, 90))
def test_the_camera_turns_and_neither_stretches_nor_mirrors(
    azimuth: float, elevation: float
) -> None:
    scene, drawn = figure(), []
    middle = scene._project(torch.zeros(3).double(), (azimuth, elevation))
    for axis in torch.eye(3).double():
        x, y, depth = scene._project(axis, (azimuth, elevation)) - middle
        drawn.append(torch.stack([x / scene._unit, -y / scene._unit, depth]))
    turned = torch.stack(drawn)
    torch.testing.assert_close(turned @ turned.T, torch.eye(3).double(), rtol=0, atol=1e-9)
    assert float(torch.linalg.det(turned)) == pytest.approx(1)
    a, e = math.radians(azimuth), math.radians(elevation)
    toward = [math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)]
    torch.testing.assert_close(turned[:, 2].tolist(), toward)  # the reader sits there
    assert turned[2, 0] == pytest.approx(0, abs=1e-9) and turned[2, 1] >= 0  # z is upwards


def test_the_plane_is_seen_as_it_is() -> None:
    scene = flat()
    x, y, _ = scene._project(torch.eye(3).double()[:2], scene._start_view()).T - 200
    torch.testing.assert_close(x / scene._unit, torch.tensor([1, 0]).double())
    torch.testing.assert_close(-y / scene._unit, torch.tensor([0, 1]).double())


@pytest.mark.parametrize("make", [figure, flat, landscape, lambda: figure(sphere=True)])
def test_a_scene_has_a_picture_for_paper_and_leaves_none_open(
    make: Callable[[], explore.Scene],
) -> None:
    open_before = plt.get_fignums()
    bundle = make()._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["text/plain"] == f"[{make().alt}]"
    assert plt.get_fignums() == open_before


def collection(picture: plt.Figure) -> PathCollection:
    (found,) = (c for c in picture.axes[0].collections if isinstance(c, PathCollection))
    return found


def test_the_picture_shows_the_points_from_far_to_near() -> None:
    scene = figure(lines=None, readouts=None)
    picture = scene._picture(scene.start())
    paths = collection(picture).get_paths()
    middles = np.array([(p.vertices.max(0) + p.vertices.min(0)) / 2 for p in paths])
    rows = scene._project(scene._place(points("tall", 0.5)), scene.view).numpy()
    order = rows[:, 2].argsort()
    np.testing.assert_allclose(middles, rows[order, :2], atol=1e-9)
    sizes = [np.ptp(path.vertices[:, 0]) for path in paths]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert [text.get_text() for text in picture.axes[0].get_legend().get_texts()] == [
        "first",
        "second & more",
        "third",
    ]
    plt.close(picture)


def test_what_is_not_finite_is_left_out_of_the_picture() -> None:
    holes = PLACES.clone()
    holes[0] = math.nan
    scene = figure(points=lambda: holes, lines=lambda: [holes], readouts=lambda: {"n": math.nan})
    assert scene._repr_mimebundle_()["image/png"]
    picture = scene._picture(scene.start())
    assert len(collection(picture).get_paths()) == 4 + 3
    plt.close(picture)
    z = heights(0.5)[2].clone()
    z[0, 0] = math.inf
    bowl = landscape(surface=lambda: (X, Y, z))
    assert bowl._repr_mimebundle_()["image/png"]
    picture = bowl._picture(bowl.start())
    assert len(collection(picture).get_paths()) == 3 * 2 - 1
    plt.close(picture)


def test_a_level_surface_and_a_single_point_can_be_drawn() -> None:
    level = landscape(surface=lambda: (X, Y, torch.ones(4, 3)))
    single = figure(
        points=lambda: torch.ones(1, 3), groups=torch.zeros(1, dtype=torch.int64), lines=None
    )
    for scene in (level, single):
        assert scene._repr_mimebundle_()["image/png"]
        assert np.isfinite(specification(scene)["scale"]).all()


# --- live


def mine(form: str) -> Tensor:
    return PLACES * {"wide": 3, "tall": 4}[form]


def test_live_in_the_rendered_book_is_the_static_scene_with_the_reader_s_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOSSBOOK_STATIC", "1")
    toy = figure()
    live = toy.live(points=mine)
    assert live.name == "toy-live" and toy.name == "toy" and toy.points is points
    spec = specification(live)
    assert spec["parts"]["points"]["controls"] == [1]
    found = stored(spec, "points", (0, 1)).reshape(-1, 3)
    torch.testing.assert_close(found, 4 * PLACES, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("own", "message"),
    [({"curve": mine}, r"own must be among points.*\['curve'\]"),
     ({"points": lambda nothing: PLACES}, "points takes 'nothing'")],
)  # fmt: skip
def test_live_refuses_what_it_cannot_place(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure().live(**own)


@pytest.mark.parametrize("make", [figure, flat])
def test_live_shows_widgets_that_draw_afresh_and_turn(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], explore.Scene]
) -> None:
    shown: list[ipywidgets.VBox] = []
    settings: list[dict[str, Any]] = []
    monkeypatch.delenv("LOSSBOOK_STATIC", raising=False)
    monkeypatch.setattr(controls, "display", shown.append)
    monkeypatch.setattr(plots, "show", lambda picture, alt: plt.close(picture))
    draw = explore.Scene._picture
    monkeypatch.setattr(
        explore.Scene, "_picture", lambda self, now: settings.append(now) or draw(self, now)
    )
    assert make().live() is None
    (box,) = shown
    time, form, *turns, output = box.children
    assert isinstance(output, ipywidgets.Output)
    assert [turn.description for turn in turns] == (
        ["turn (°)", "tilt (°)"] if make is figure else []
    )
    time.value = 1.0
    form.value = "wide"
    for turn in turns:
        turn.value = 45.0
    expected = {"time": 1.0, "form": "wide"} | (
        {"azimuth": 45.0, "elevation": 45.0} if turns else {}
    )
    assert settings[-1] == expected and len(settings) == 3 + len(turns)


def test_a_picture_is_seen_from_where_its_settings_say() -> None:
    scene = figure(lines=None, axes=["x", "y", "z"])
    settings = scene.start() | {"azimuth": 0.0, "elevation": 90.0}
    picture = scene._picture(settings)
    paths = collection(picture).get_paths()
    middles = np.array([(p.vertices.max(0) + p.vertices.min(0)) / 2 for p in paths])
    rows = points("tall", 0.5)
    rows = rows[rows[:, 2].argsort(stable=True)]  # from above
    found = torch.from_numpy(middles - 200) / scene._unit
    shifted = (rows - scene._space.center) * scene._space.scale
    torch.testing.assert_close(found, torch.stack([shifted[:, 1], shifted[:, 0]], 1))
    plt.close(picture)
