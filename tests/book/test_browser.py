"""The pages as a reader meets them: in a browser, from disk, without a network, light and dark."""

from __future__ import annotations

import base64
import json
import re
import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from lossbook.lab import explore, plots

# One file for each chapter, or each notebook of a chapter.
REGISTRIES = [runpy.run_path(str(f)) for f in Path(__file__).parent.glob("explorables/*.py")]
EXPECTED = {name: f for registry in REGISTRIES for name, f in registry["EXPECTED"].items()}
SCENES = {name: f for registry in REGISTRIES for name, f in registry["SCENES"].items()}
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
LOCAL = ("file:", "data:", "blob:")


@dataclass
class Visit:
    """A page in a tab, what it asked of the network and what it complained about."""

    tab: Page
    requests: list[str]
    errors: list[str]


@contextmanager
def visit(
    browser: Browser, address: str, scheme: str = "light", server: str | None = None
) -> Iterator[Visit]:
    """Open a page where there is no network: only files and the given local server answer."""
    local = "|".join(map(re.escape, filter(None, (*LOCAL, server))))
    outside = re.compile(f"^(?!{local})")
    requests: list[str] = []
    errors: list[str] = []
    context = browser.new_context(color_scheme=scheme, viewport=DESKTOP)
    context.set_default_timeout(20_000)
    context.route(outside, lambda route: route.abort())
    context.on("request", lambda r: requests.append(r.url) if outside.match(r.url) else None)
    context.on("console", lambda c: errors.append(c.text) if c.type == "error" else None)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    try:
        tab = context.new_page()
        tab.goto(address)
        tab.evaluate("window.MathJax?.startup?.promise")
        yield Visit(tab, requests, errors)
    finally:
        context.close()


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def opened(browser: Browser, page: Path, scheme: str) -> Iterator[Visit]:
    with visit(browser, page.as_uri(), scheme) as opened:
        yield opened


# --- every page, light and dark


def test_a_page_from_disk_asks_nothing_of_the_network(vendored: None, opened: Visit) -> None:
    assert opened.requests == []


def test_a_page_has_nothing_to_complain_about(vendored: None, opened: Visit) -> None:
    assert opened.errors == []


def test_mathematics_is_typeset(vendored: None, opened: Visit) -> None:
    assert mathematics(opened.tab)[1:] == ([], [])


def mathematics(tab: Page) -> tuple[int, list[str], list[str]]:
    """How many formulas a page has; those that are still TeX; what MathJax could not read in them.

    It marks a formula with an error, and writes a command that it does not know in red.
    """
    formulas = tab.locator(".math")
    return (
        formulas.count(),
        formulas.filter(has_not=tab.locator("mjx-container")).all_inner_texts(),
        tab.locator("mjx-merror, mjx-mtext[style*='color: red']").all_inner_texts(),
    )


def test_the_page_follows_the_reader_s_color_scheme(opened: Visit, scheme: str) -> None:
    assert opened.tab.locator("html").get_attribute("data-theme") == scheme


def test_a_phone_need_not_scroll_sideways(opened: Visit) -> None:
    opened.tab.set_viewport_size(PHONE)
    width = opened.tab.evaluate("document.documentElement.scrollWidth")
    culprits = opened.tab.evaluate(WIDE) if width > PHONE["width"] + 1 else []
    opened.tab.set_viewport_size(DESKTOP)
    assert width <= PHONE["width"] + 1, culprits


def test_a_phone_reads_tables_of_sentences_without_scrolling_them(opened: Visit) -> None:
    opened.tab.set_viewport_size(PHONE)
    tables = opened.tab.locator(".bd-article table:has(> colgroup):has(> thead)")
    wide = tables.evaluate_all(
        "(all) => all.map((t) => [t.scrollWidth, t.clientWidth, t.offsetTop])"
    )
    opened.tab.set_viewport_size(DESKTOP)
    assert [table for table in wide if table[0] > table[1] or table[1] > PHONE["width"]] == []


# The innermost elements that reach beyond the window and do not scroll inside another.
WIDE = """() => {
  const scrolls = (box) =>
    box && (getComputedStyle(box).overflowX !== "visible" || scrolls(box.parentElement));
  const reach = (box) =>
    box.getBoundingClientRect().left + Math.max(box.offsetWidth, box.scrollWidth);
  const wide = [...document.querySelectorAll("body *")].filter(
    (box) => reach(box) > innerWidth + 1 && !scrolls(box));
  return wide.filter((box) => !wide.some((other) => other !== box && box.contains(other)))
    .map((box) => box.outerHTML.slice(0, 80));
}"""


FIGURES = ".lossbook-figure, figure.lossbook-explorable, .lossbook-claim"
# A canvas mixes colors as the page does, and reads any way of writing them.
COLORS = """(figures) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (color) => { brush.fillStyle = color; brush.fillRect(0, 0, 1, 1); };
  const pixel = () => [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
  return figures.map((figure) => {
    const boxes = [];
    for (let box = figure; box; box = box.parentElement) boxes.unshift(box);
    paint("white");
    boxes.forEach((box) => paint(getComputedStyle(box).backgroundColor));
    const ground = pixel();
    paint(getComputedStyle(figure).color);
    return [ground, pixel()];
  });
}"""


def test_figures_have_the_page_s_ground_and_legible_ink(opened: Visit, scheme: str) -> None:
    for ground, ink in opened.tab.locator(FIGURES).evaluate_all(COLORS):
        light, dark = sorted([luminance(ground), luminance(ink)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5
        assert luminance(ground) > 0.8 if scheme == "light" else luminance(ground) < 0.05


def luminance(color: list[int]) -> float:
    """Relative luminance of an sRGB color (WCAG 2)."""
    c = np.array(color) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# --- the checks above can fail


FAULTY = """<!doctype html><html><body style="background: black; color: #333">
<p class="math">x</p><p class="math"><mjx-container><mjx-merror>y</mjx-merror></mjx-container></p>
<div style="background: #fff8"><figure class="lossbook-explorable">ink</figure></div>
<div style="width: 500px">wide</div>
<script>console.error("loud"); new Image().src = "https://example.org/a.png"; oops()</script>"""


def test_a_faulty_page_is_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(FAULTY)
    with visit(browser, (tmp_path / "page.html").as_uri()) as faulty:
        assert faulty.requests == ["https://example.org/a.png"]
        for complaint in ("loud", "net::ERR_FAILED", "oops is not defined"):
            assert complaint in " ".join(faulty.errors)
        assert mathematics(faulty.tab) == (2, ["x"], ["y"])
        with pytest.raises(AssertionError, match="500px"):
            test_a_phone_need_not_scroll_sideways(faulty)
        assert faulty.tab.locator(FIGURES).evaluate_all(COLORS) == [[[136] * 3, [51] * 3]]
        with pytest.raises(AssertionError):
            test_figures_have_the_page_s_ground_and_legible_ink(faulty, "dark")


def test_luminance_runs_from_black_to_white() -> None:
    assert luminance([0, 0, 0]) == 0 and luminance([255, 255, 255]) == pytest.approx(1)
    assert luminance([188, 188, 188]) == pytest.approx(0.5, abs=0.01)


# --- the book as a whole


def test_notation_is_a_page_with_mathematics(vendored: None, browser: Browser, site: Path) -> None:
    with visit(browser, (site / "book/notation.html").as_uri()) as notation:
        assert mathematics(notation.tab)[0] > 20


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    """The book as a web server on this machine serves it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_introduction_and_chapters_from_a_server(
    vendored: None, browser: Browser, site: Path, pages: list[Path], server: str
) -> None:
    paths = [str(page.relative_to(site)) for page in pages]
    served = [path for path in paths if path.startswith(("book/intro", "chapters/"))]
    assert len(served) > 1
    for path in served:
        with visit(browser, server + path, server=server) as opened:
            assert (opened.requests, opened.errors) == ([], []), path
            assert mathematics(opened.tab)[1:] == ([], []), path


def test_search_finds_from_disk(browser: Browser, site: Path) -> None:
    with visit(browser, f"{(site / 'search.html').as_uri()}?q=cross-entropy") as search:
        found = search.tab.locator("#search-results li a")
        expect(search.tab.get_by_text(re.compile("Search finished, found [1-9]"))).to_be_visible()
        assert "Cross-entropy" in " ".join(found.all_inner_texts())
        found.first.click()
        expect(search.tab.locator("article h1")).to_be_visible()
        assert search.requests == []


# --- explorable figures


def test_every_explorable_has_its_own_name_and_expectation(explorable_names: list[str]) -> None:
    assert sorted(explorable_names) == sorted(EXPECTED)


@dataclass
class Reading:
    """What a figure shows at one position of its controls."""

    settings: dict[str, str]
    legend: list[str]
    curves: list[list[str]]  # the polylines' points: curves by panels


def read(figure: Locator, specification: dict) -> Reading:
    shown = figure.locator("[data-output]").all_text_contents()
    settings = {}
    for control, text in zip(specification["controls"], shown, strict=True):
        assert text in control["shown"]
        settings[control["name"]] = text
    points = """(lines) => lines.map((line) => line.getAttribute("points"))"""
    curves = [
        figure.locator(f'polyline[data-curve="{index}"]').evaluate_all(points)
        for index in range(len(specification["curves"]))
    ]
    legend = figure.locator("[data-legend]").all_text_contents()
    return Reading(settings, legend, curves)


def in_units(points: str, axes: str) -> Tensor:
    """The (N, 2) points of a polyline, back from pixels to the units of the axes."""
    left, bottom, across, up = map(float, axes.split())
    pixels = [[float(number) for number in pair.split(",")] for pair in points.split()]
    origin, unit = torch.tensor([[left, bottom], [across, up]], dtype=torch.float64)
    return (torch.tensor(pixels, dtype=torch.float64).reshape(-1, 2) - origin) / unit


def check(name: str, reading: Reading, axes: list[str], x: Tensor, labels: list[str]) -> None:
    """Every curve equals the registry's in all panels, and the legend says which one it is."""
    expected = EXPECTED[name](x, reading.settings)
    assert len(expected) == len(reading.curves)
    for panels, values in zip(reading.curves, expected, strict=True):
        for points, row, place in zip(panels, values, axes, strict=True):
            drawn = in_units(points, place)
            kept = row.float().isfinite()  # the script leaves out what float32 cannot say
            torch.testing.assert_close(drawn[:, 0], x[kept], rtol=1e-9, atol=1e-9)
            size = row[kept].abs().clamp(min=1)
            torch.testing.assert_close(drawn[:, 1] / size, row[kept] / size, rtol=0, atol=1e-6)
    quoted = [re.sub(r"\{(\w+)\}", lambda m: reading.settings[m[1]], label) for label in labels]
    assert reading.legend == quoted


def moves(control: Locator, stops: int) -> Iterator[int]:
    """Move a control as a reader does to its first, two middle and last stops, and a step back."""
    middle = (stops // 3, 2 * stops // 3)
    if control.evaluate("(element) => element.tagName") == "SELECT":
        for stop in (0, *middle, stops - 1):
            control.select_option(str(stop))
            yield stop
        return
    control.press("Home")
    yield 0
    for stop in middle:
        control.fill(str(stop))
        yield stop
    control.press("End")
    yield stops - 1
    control.press("ArrowLeft")
    yield max(stops - 2, 0)


def test_an_explorable_draws_what_torch_computes(
    browser: Browser, page: Path, explorable: str
) -> None:
    with visit(browser, page.as_uri()) as opened:
        figure = opened.tab.locator(f'figure.lossbook-explorable[data-name="{explorable}"]')
        complaints = list(opened.errors)
        move_every_control(figure, explorable)
        assert opened.errors == complaints


def move_every_control(figure: Locator, name: str) -> None:
    """Move every control of a figure and compare what it draws at every stop."""
    specification = json.loads(figure.locator("script[type='application/json']").text_content())
    x = torch.from_numpy(np.frombuffer(base64.b64decode(specification["x"]), "<f4").astype(float))
    labels = [curve["label"] for curve in specification["curves"]]
    axes = figure.locator("svg[data-panel]").evaluate_all("(all) => all.map((p) => p.dataset.axes)")
    assert len(axes) == specification["panels"] > 0
    check(name, read(figure, specification), axes, x, labels)

    for index, control in enumerate(specification["controls"]):
        readings = []
        for stop in moves(figure.locator("[data-control]").nth(index), len(control["shown"])):
            readings.append(read(figure, specification))
            assert readings[-1].settings[control["name"]] == control["shown"][stop]
            check(name, readings[-1], axes, x, labels)
        assert len({reading.settings[control["name"]] for reading in readings}) > 1
        for row, curve in enumerate(specification["curves"]):
            distinct = {tuple(reading.curves[row]) for reading in readings}
            assert (len(distinct) > 1) == (index in curve["controls"]), curve["label"]
            if f"{{{control['name']}}}" in curve["label"]:
                assert len({reading.legend[row] for reading in readings}) > 1

    readout, legend = figure.locator("[data-readout]"), figure.locator("[data-legend]")
    figure.locator("svg[data-panel]").first.hover()
    expect(readout).to_have_text(re.compile(r"^at -?[\d.]+"))
    assert all(text in readout.text_content() for text in legend.all_text_contents())
    figure.page.mouse.move(0, 0)
    expect(readout).to_have_text("")


# --- the explorables' checks can fail


def powers(x: Tensor, shift: float, form: str) -> tuple[Tensor, Tensor]:
    n = {"log": 0, "square": 2, "cube": 3}[form]
    return ((x - shift) ** n, n * x) if n else ((x - shift).log(), x)


TOY = explore.curves(
    "toy",
    x=("x", torch.linspace(-2, 2, 41, dtype=torch.float64)),
    curves={
        "{form}, s = {shift}": (powers, "form", "shift"),
        "line {slope}": (lambda x, slope: (slope * x, 1 - x), "slope"),
        "still": lambda x: (x.sin(), x.cos()),
    },
    controls={
        "shift": explore.slider("s", torch.linspace(-1, 1, 7), 1 / 3),
        "form": explore.choice("form", ["square", "cube", "log"], "cube"),
        "slope": explore.slider("slope", (1, 2), 1),
    },
    panels={"first": (-3, 3), "second": (-2, 2)},
    alt="Three curves for a test",
)


def toy(x: Tensor, settings: dict[str, str]) -> list[Tensor]:
    (shift,) = (s for s in torch.linspace(-1, 1, 7).tolist() if f"{s:.4g}" == settings["shift"])
    lines = (float(settings["slope"]) * x, 1 - x)
    return list(map(torch.stack, (powers(x, shift, settings["form"]), lines, (x.sin(), x.cos()))))


@pytest.mark.parametrize(
    ("original", "broken"),
    [
        ("", ""),
        ("AAAAA", "AAAAB"),  # a value (or a point) of the data
        ('addEventListener("input"', 'addEventListener("click"'),
        ("Number(inputs[control].value)", "0"),
        (".length + position(control)", ".length"),
        ("panels + panel", "panels"),
        ("textContent = shown(control)", "textContent = '1'"),
        ("textContent = label", "textContent = curve.label"),
        ("Number.isFinite(values[i])", "i % 2"),
        ('"pointermove"', '"click"'),
    ],
)
def test_a_broken_explorable_is_seen(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: str, broken: str
) -> None:
    monkeypatch.setitem(EXPECTED, "toy", toy)
    html = TOY._repr_mimebundle_()["text/html"]
    assert original in html
    (tmp_path / "page.html").write_text(f"<!doctype html>{html.replace(original, broken)}")
    with visit(browser, (tmp_path / "page.html").as_uri()) as opened:
        opened.tab.set_default_timeout(1000)
        figure = opened.tab.locator("figure")
        if original == broken:
            move_every_control(figure, "toy")
        else:
            with pytest.raises(AssertionError):
                move_every_control(figure, "toy")


# --- scenes


def test_every_scene_has_its_own_name_and_expectation(scene_names: list[str]) -> None:
    assert sorted(scene_names) == sorted(SCENES)


def test_a_scene_shows_what_torch_computes(browser: Browser, page: Path, built_scene: str) -> None:
    with visit(browser, page.as_uri()) as opened:
        figure = opened.tab.locator(f'figure.lossbook-scene[data-name="{built_scene}"]')
        complaints = list(opened.errors)
        explore_scene(figure, built_scene)
        assert opened.errors == complaints


@dataclass
class Look:
    """What a scene shows at one position of its controls, seen from one side."""

    settings: dict[str, str]
    coordinates: Tensor  # (N, 2 or 3)
    drawn: Tensor  # (N, 2), NaN where nothing is drawn
    view: list[float]


LOOK = """(figure) => ({
  outputs: [...figure.querySelectorAll("[data-output]")].map((output) => output.textContent),
  coordinates: figure.lossbookScene.coordinates(),
  view: figure.lossbookScene.view(),
  readouts: figure.lossbookScene.readouts(),
  readout: figure.querySelector("[data-readout]")?.textContent ?? "",
  drawn: [...figure.querySelectorAll("[data-point]")]
    .sort((one, other) => one.dataset.point - other.dataset.point)
    .map((circle) => getComputedStyle(circle).display === "none" ? [NaN, NaN]
      : ["cx", "cy"].map((name) => Number(circle.getAttribute(name)))),
})"""


def look(figure: Locator, name: str, specification: dict) -> Look:
    """Read a scene, and compare it with the registry's coordinates seen from where it says it is seen."""
    seen = figure.evaluate(LOOK)
    settings = {}
    for control, text in zip(specification["controls"], seen["outputs"], strict=True):
        assert text in control["shown"]
        settings[control["name"]] = text
    expected = SCENES[name](settings).double()
    dimension, rows = specification["dimension"], len(expected)
    coordinates = torch.tensor(seen["coordinates"]).double().reshape(rows, dimension)
    size = expected.abs().clamp(min=1)
    torch.testing.assert_close(
        coordinates / size, expected / size, rtol=0, atol=1e-6, equal_nan=True
    )
    drawn = torch.tensor(seen["drawn"]).double().reshape(rows, 2)
    torch.testing.assert_close(
        drawn,
        projected(coordinates, seen["view"], specification),
        rtol=0,
        atol=2e-3,
        equal_nan=True,
    )
    for label, value in seen["readouts"].items():
        shown = re.search(rf"(?:^|·)\s*{re.escape(label)} (\S+)", seen["readout"])[1]
        assert float(shown.replace("–", "nan")) == pytest.approx(value, rel=1e-3, nan_ok=True)
    return Look(settings, coordinates, drawn, seen["view"])


def projected(coordinates: Tensor, view: list[float], specification: dict) -> Tensor:
    """Turn the scene so that the reader sits on the x axis, and look along it."""
    center, scale = (torch.tensor(specification[key]).double() for key in ("center", "scale"))
    solid = torch.nn.functional.pad(coordinates, (0, 3 - coordinates.shape[1]))
    x, y, z = ((solid - center) * scale).T
    azimuth, elevation = np.deg2rad(view)
    x, y = x * np.cos(azimuth) + y * np.sin(azimuth), y * np.cos(azimuth) - x * np.sin(azimuth)
    z = z * np.cos(elevation) - x * np.sin(elevation)
    return 200 + specification["unit"] * torch.stack([y, -z], 1)


def drag(figure: Locator, right: int, down: int) -> None:
    """Drag a scene from its middle."""
    svg, mouse = figure.locator("svg[data-scene]"), figure.page.mouse
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right, y + down, steps=4)
    mouse.up()
    mouse.move(x + 2 * right, y)  # let go: this turns nothing


def explore_scene(figure: Locator, name: str) -> None:
    """Move every control of a scene and turn it, and compare what it shows each time."""
    specification = json.loads(figure.locator("script[type='application/json']").text_content())
    svg = figure.locator("svg[data-scene]")
    items = svg.locator("[data-items]")

    def now() -> Look:
        return look(figure, name, specification)

    now()
    for index, control in enumerate(specification["controls"]):
        looks, pictures = [], set()
        for stop in moves(figure.locator("[data-control]").nth(index), len(control["shown"])):
            looks.append(now())
            readout = figure.locator("[data-readout]").all_inner_texts()
            pictures.add((items.inner_html(), *readout))
            assert looks[-1].settings[control["name"]] == control["shown"][stop]
        assert len({one.settings[control["name"]] for one in looks}) > 1
        assert len(pictures) > 1, f"{control['name']} changes nothing"

    if specification["drag"]:
        drag_the_ring(figure, specification, now)
        return
    before, picture = now(), items.inner_html()
    drag(figure, 60, -25)
    after = now()
    torch.testing.assert_close(
        after.coordinates, before.coordinates, rtol=0, atol=0, equal_nan=True
    )
    if specification["dimension"] == 2:
        assert (after.view, items.inner_html()) == (before.view, picture)
        return
    assert all(a != b for a, b in zip(after.view, before.view, strict=True))
    assert items.inner_html() != picture
    if after.drawn.isfinite().any():
        assert (after.drawn - before.drawn).abs().nan_to_num().max() > 1
    turned = after.view
    svg.focus()
    for key, (azimuth, elevation) in ARROWS.items():
        svg.press(key)
        change = [new - old for new, old in zip(now().view, turned, strict=True)]
        change[0] = (change[0] + 180) % 360 - 180
        assert change == pytest.approx([azimuth, elevation])
        turned = now().view
    svg.dblclick()
    assert now().view == specification["view"]


def drag_the_ring(figure: Locator, specification: dict, now: Callable[[], Look]) -> None:
    """Take a scene's ring with the mouse and with the keys, and see where it and its sliders go."""
    svg, mouse = figure.locator("svg[data-scene]"), figure.page.mouse
    ring = svg.locator("[data-handle]")
    sliders = [
        figure.locator("[data-control]").nth(one["control"]) for one in specification["drag"]
    ]
    stops = [torch.tensor(one["stops"]).double() for one in specification["drag"]]

    def positions() -> list[int]:
        """The sliders' positions, after the ring and the texts have been seen to agree with them."""
        found = [int(slider.input_value()) for slider in sliders]
        drawn = [float(ring.get_attribute(name)) for name in ("cx", "cy")]
        place = torch.stack([s[i] for s, i in zip(stops, found, strict=True)])
        expected = projected(place[None], specification["view"], specification)[0]
        assert drawn == pytest.approx(expected.tolist(), abs=2e-3)
        shown = now().settings
        for one, i in zip(specification["drag"], found, strict=True):
            control = specification["controls"][one["control"]]
            assert shown[control["name"]] == control["shown"][i]
        return found

    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    per_unit = box["width"] / 400
    corners = torch.cartesian_prod(*(s[[0, -1]] for s in stops))
    on_screen = per_unit * projected(corners, specification["view"], specification)
    (left, top), (right, bottom) = on_screen.amin(0).tolist(), on_screen.amax(0).tolist()
    places = [(0.9, 0.2), (0.15, 0.7), (0, 1)]  # as shares of the rectangle of the stops
    mouse.move(box["x"] + (left + right) / 2, box["y"] + (top + bottom) / 2)
    mouse.down()
    for across, down in places:
        x, y = left + across * (right - left), top + down * (bottom - top)
        mouse.move(box["x"] + x, box["y"] + y, steps=3)
        drawn = torch.tensor([x, y]).double() / per_unit
        origin = torch.tensor([200.0, 200.0]).double()
        center, scale = (torch.tensor(specification[k][:2]).double() for k in ("center", "scale"))
        target = (drawn - origin) * torch.tensor([1, -1]) / specification["unit"] / scale + center
        nearest = [int((s - t).abs().argmin()) for s, t in zip(stops, target, strict=True)]
        assert positions() == nearest
    mouse.up()
    mouse.move(box["x"] + (left + right) / 2, box["y"] + top)
    assert positions() == nearest  # let go
    svg.focus()
    for key, k, step in (
        ("ArrowRight", 0, 1),
        ("ArrowUp", 1, 1),
        ("ArrowLeft", 0, -1),
        ("ArrowDown", 1, -1),
    ):
        wanted = positions()
        wanted[k] = min(max(wanted[k] + step, 0), len(stops[k]) - 1)
        svg.press(key)
        assert positions() == wanted


ARROWS = {"ArrowRight": (-5, 0), "ArrowUp": (0, -5), "ArrowLeft": (5, 0), "ArrowDown": (0, 5)}


# --- the scenes' checks can fail

CORNERS = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [0, 0.3, 0.2]])


def corners(time: float, form: str) -> Tensor:
    """A tetrahedron that grows; its last point comes late."""
    return torch.where(
        torch.tensor([[time < 0.5]] * 5) & (torch.arange(5) == 4)[:, None],
        torch.nan,
        CORNERS * (1 + time) * torch.tensor({"even": [1.0, 1, 1], "long": [1.0, 1, 3]}[form]),
    )


def spokes(time: float) -> list[Tensor]:
    return [torch.stack([torch.zeros(3), corner * (1 + time)]) for corner in CORNERS[:3]]


def saddle(time: float) -> tuple[Tensor, Tensor, Tensor]:
    x, y = torch.linspace(-1, 1, 5), torch.linspace(0, 1, 4)
    return x, y, x[:, None] ** 2 - time * y**2


SPACE = explore.scene(
    "toy",
    points=corners,
    groups=torch.tensor([0, 1, 2, 0, 8]),
    labels=[f"class {k}" for k in range(9)],
    lines=spokes,
    line_groups=[0, 1, 2],
    controls={
        "time": explore.slider("time", torch.linspace(0, 1, 7), 0.5),
        "form": explore.choice("form", ["even", "long"], "even"),
    },
    readouts=lambda time, form: {"energy": 1 / (time + len(form)), "none": float("nan")},
    play=True,
    alt="A tetrahedron for a test",
)
PLANE = explore.scene(
    "toy",
    points=lambda time: corners(time, "even")[:, :2],
    groups=torch.tensor([0, 1, 2, 0, 1]),
    labels=["a", "b", "c"],
    controls={"time": SPACE.controls["time"]},
    circle=True,
    axes=["x", "y"],
    alt="Five points in a plane",
)
RING = explore.scene(
    "toy",
    points=lambda across, up: torch.tensor([[across, up], [-across, up]]),
    groups=torch.tensor([0, 1]),
    labels=["a", "b"],
    controls={
        "up": explore.slider("up", torch.linspace(0, 2, 9), 1.0),
        "across": explore.slider("across", torch.linspace(-1, 2, 7), 0.5),
    },
    drag=("across", "up"),
    alt="A point and its mirror image",
)
GROUND = explore.scene(
    "toy",
    surface=saddle,
    lines=lambda: [CORNERS[:4]],
    controls={"time": SPACE.controls["time"]},
    axes=["x", "y", "height"],
    alt="A surface and a line",
)


def toy_scene(settings: dict[str, str]) -> Tensor:
    (time,) = (t for t in torch.linspace(0, 1, 7).tolist() if f"{t:.4g}" == settings["time"])
    return corners(time, settings.get("form", "even"))


def mirrored(settings: dict[str, str]) -> Tensor:
    across, up = float(settings["across"]), float(settings["up"])
    return torch.tensor([[across, up], [-across, up]])


@contextmanager
def toy_page(
    browser: Browser, tmp_path: Path, html: str, scheme: str = "light"
) -> Iterator[tuple[Visit, Locator]]:
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset='utf-8'>{html}")
    with visit(browser, (tmp_path / "page.html").as_uri(), scheme) as opened:
        yield opened, opened.tab.locator("figure")


def html_of(scene: explore.Scene) -> str:
    return scene._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (SPACE, toy_scene),
        (PLANE, lambda settings: toy_scene(settings)[:, :2]),
        (RING, mirrored),
        (GROUND, lambda _: torch.zeros(0, 3)),
    ],
)
def test_a_whole_scene_passes(
    browser: Browser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scene: explore.Scene,
    expected: Callable[[dict[str, str]], Tensor],
) -> None:
    monkeypatch.setitem(SCENES, "toy", expected)
    with toy_page(browser, tmp_path, html_of(scene)) as (opened, figure):
        explore_scene(figure, "toy")
        test_a_phone_need_not_scroll_sideways(opened)
        assert (opened.errors, opened.requests) == ([], [])


@pytest.mark.parametrize(
    ("original", "broken"),
    [
        ('addEventListener("input", settle)', 'addEventListener("click", settle)'),
        ("Number(inputs[control].value)", "0"),
        (".length + position(control)", ".length"),
        ("stop * part.size, (stop + 1)", "0 * part.size, 1"),
        ("textContent = shown(control)", "textContent = '1'"),
        ("value.toPrecision(4)", "value.toPrecision(1)"),
        ('visible ? "" : "none"', 'visible ? "" : ""'),
        ("(c * y - s * x)", "(c * y + s * x)"),
        ("(cc * z - ss *", "(cc * z + ss *"),
        ('addEventListener("pointermove"', 'addEventListener("click"'),
        ('addEventListener("pointerup"', 'addEventListener("click"'),
        ("elevation + up", "elevation"),
        ("ArrowDown: [0, 5]", "ArrowDown: [0, 0]"),
        ("= spec.view; draw()", "= spec.view"),
        ("turn(...turns)", "spec.parts.points.values.fill(0); settle()"),
    ],
)
def test_a_broken_scene_is_seen(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: str, broken: str
) -> None:
    monkeypatch.setitem(SCENES, "toy", toy_scene)
    assert_seen(browser, tmp_path, html_of(SPACE), original, broken)


def assert_seen(browser: Browser, tmp_path: Path, html: str, original: str, broken: str) -> None:
    """The toy scene fails its checks once a piece of its script is exchanged."""
    assert original in html
    with (
        toy_page(browser, tmp_path, html.replace(original, broken)) as (_, figure),
        pytest.raises(AssertionError),
    ):
        explore_scene(figure, "toy")


@pytest.mark.parametrize(
    ("original", "broken"),
    [
        ("[right, -down]", "[right, down]"),
        ("gaps.indexOf(Math.min(", "gaps.indexOf(Math.max("),
        ("/ spec.scale[k] + spec.center[k]", "/ spec.scale[k]"),
        ("if (event.pointerId === pointer) reach(event)", "reach(event)"),
        ('handle.setAttribute("cy", y', 'handle.setAttribute("cy", x'),
        ("ArrowUp: [1, 1]", "ArrowUp: [1, -1]"),
        ("Math.max(stop, 0)", "Math.max(stop, 1)"),
        ("settle();\n    };\n    svg", "};\n    svg"),
    ],
)
def test_a_broken_ring_is_seen(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: str, broken: str
) -> None:
    monkeypatch.setitem(SCENES, "toy", mirrored)
    assert_seen(browser, tmp_path, html_of(RING), original, broken)


def test_a_finger_takes_the_ring_and_scrolls_elsewhere(browser: Browser, tmp_path: Path) -> None:
    with toy_page(browser, tmp_path, html_of(RING)) as (_, figure):
        svg, ring = figure.locator("svg[data-scene]"), figure.locator("[data-handle]")
        expect(ring).to_have_css("touch-action", "none")
        expect(svg).to_have_css("touch-action", "pan-y")
        box = svg.bounding_box()
        finger = {"pointerId": 7, "pointerType": "touch", "isPrimary": True, "button": 0, "bubbles": True,
                  "clientX": box["x"] + box["width"] - 5, "clientY": box["y"] + 5}  # fmt: skip
        across = figure.locator("[data-control]").nth(1)
        figure.evaluate(
            "(f) => { f.querySelector('svg[data-scene]').setPointerCapture = () => {}; }"
        )
        svg.dispatch_event("pointerdown", finger)
        assert across.input_value() == "3"
        ring.dispatch_event("pointerdown", finger)
        assert across.input_value() == "6"


def drawn_shapes(figure: Locator, tag: str) -> Tensor:
    """(K, corners, 2) what is visible of a kind of shape, in the order in which it is painted."""
    shapes = figure.locator(f"[data-items] {tag}").evaluate_all(
        """(shapes) => shapes.filter((shape) => shape.style.display !== "none").map((shape) => {
          if (shape.points) return [...shape.points].map(({ x, y }) => [x, y]);
          const [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map((name) => shape[name].baseVal.value);
          return [[x1, y1], [x2, y2]];
        })"""
    )
    return torch.tensor(shapes).double()


def test_lines_and_surface_are_drawn_where_they_are(browser: Browser, tmp_path: Path) -> None:
    for scene in (SPACE, GROUND):
        with toy_page(browser, tmp_path, html_of(scene)) as (_, figure):
            specification = json.loads(figure.locator("[type='application/json']").text_content())
            now = scene.values(scene.start())
            drag(figure, 40, 30)
            view = figure.evaluate(LOOK)["view"]

            def seen(rows: Tensor, view=view, specification=specification) -> Tensor:
                return projected(rows.double(), view, specification)

            pairs = [pair for line in now.lines for pair in pairwise(line)]
            expected = torch.stack([seen(torch.stack(pair)) for pair in pairs])
            same_shapes(drawn_shapes(figure, "line"), expected, 0.006)
            if now.surface is None:
                colors = figure.locator("[data-items] line").evaluate_all(
                    """(lines) => lines.filter((line) => line.style.display !== "none")
                      .map((line) => line.getAttribute("stroke"))"""
                )
                assert sorted(colors) == sorted(plots.PALETTE[:3])
                continue
            x, y, z = now.surface
            quads = [
                seen(torch.stack([torch.stack([x[i], y[j], z[i, j]]) for i, j in (
                    (a, b), (a + 1, b), (a + 1, b + 1), (a, b + 1))]))
                for a in range(4) for b in range(3)
            ]  # fmt: skip
            same_shapes(drawn_shapes(figure, "polygon"), torch.stack(quads), 0.06)


def same_shapes(found: Tensor, expected: Tensor, within: float) -> None:
    """The same shapes in whatever order."""
    assert found.shape == expected.shape
    distance = (found[:, None] - expected[None]).abs().flatten(2).max(2).values
    assert distance.min(1).values.max() < within and distance.min(0).values.max() < within


def test_the_near_is_painted_over_the_far(browser: Browser, tmp_path: Path) -> None:
    with toy_page(browser, tmp_path, html_of(SPACE)) as (_, figure):
        for _ in range(2):
            painted = figure.locator("[data-point]").evaluate_all(
                """(circles) => circles.map((circle) =>
                  ["r", "opacity"].map((name) => Number(circle.getAttribute(name))))"""
            )
            assert painted == sorted(painted) and painted[0] < painted[-1]
            drag(figure, 150, 40)


@pytest.mark.parametrize(("motion", "pace"), [("no-preference", 700), ("reduce", 1000)])
def test_playing_walks_to_the_last_stop(
    browser: Browser, tmp_path: Path, motion: str, pace: int
) -> None:
    with toy_page(browser, tmp_path, html_of(SPACE)) as (opened, figure):
        opened.tab.emulate_media(reduced_motion=motion)
        opened.tab.clock.install()
        opened.tab.clock.pause_at(opened.tab.evaluate("Date.now() + 1000"))
        button, slider = figure.locator("[data-play]"), figure.locator("[data-control]").first
        slider.fill("4")
        expect(button).to_have_attribute("aria-pressed", "false")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        opened.tab.clock.run_for(70)
        assert slider.input_value() == "5"
        opened.tab.clock.run_for(pace - 30)
        assert slider.input_value() == "5"
        opened.tab.clock.run_for(60)
        assert slider.input_value() == "6"
        opened.tab.clock.run_for(pace)
        expect(button).to_have_attribute("aria-pressed", "false")
        button.click()  # from the start again
        opened.tab.clock.run_for(70)
        assert slider.input_value() == "1"
        slider.press("ArrowRight")  # the reader takes over
        expect(button).to_have_attribute("aria-pressed", "false")
        opened.tab.clock.run_for(5 * pace)
        assert slider.input_value() == "2"


def test_a_finger_may_scroll_past_a_scene(browser: Browser, tmp_path: Path) -> None:
    with toy_page(browser, tmp_path, html_of(SPACE)) as (opened, figure):
        svg = figure.locator("svg[data-scene]")
        expect(svg).to_have_css("touch-action", "pan-y")
        svg.hover()
        opened.tab.mouse.down()
        expect(svg).to_have_css("touch-action", "none")
        opened.tab.mouse.up()
        expect(svg).to_have_css("touch-action", "pan-y")
        drag(figure, 30, 20)
        view = figure.evaluate(LOOK)["view"]
        opened.tab.mouse.down()
        opened.tab.mouse.move(100, 100)
        assert figure.evaluate(LOOK)["view"] != view
        svg.dispatch_event("pointercancel")  # the page scrolls: nothing was turned
        assert figure.evaluate(LOOK)["view"] == view
        expect(svg).to_have_css("touch-action", "pan-y")


def test_a_scene_is_drawn_in_the_page_s_ink(browser: Browser, tmp_path: Path) -> None:
    html = "<style>@media (prefers-color-scheme: dark) { body { background: #121212; color: #ddd } }</style>"
    for scheme in ("light", "dark"):
        with toy_page(browser, tmp_path, html + html_of(GROUND), scheme) as (opened, figure):
            test_figures_have_the_page_s_ground_and_legible_ink(opened, scheme)
            ink = figure.evaluate("(figure) => getComputedStyle(figure).color")
            for part in ("[data-axes] text >> nth=0", "[data-items] line >> nth=0", ".before"):
                expect(figure.locator(part)).to_have_css(
                    "fill" if "text" in part else "stroke", ink
                )
