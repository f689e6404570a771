"""The pages as a reader meets them: in a browser, from disk, without a network, light and dark."""

from __future__ import annotations

import base64
import json
import re
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from lossbook.lab import explore

EXPECTED = runpy.run_path(str(Path(__file__).with_name("explorables.py")))["EXPECTED"]
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
