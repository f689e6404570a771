"""The pages of the loss contracts: every finding in its cell, every cell with its evidence."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, expect

from lossbook.lab.contracts import facts, kinds
from lossbook.lab.contracts.finding import Finding, shown

ROOT = Path(__file__).parents[2]
SIGNS = {"refuted": "✗", "not refuted": "✓", "measured": "≈", "not applicable": "·"}
UNIVERSAL = ("refuted", "not refuted")


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    """The contracts as they were measured."""
    return json.loads((ROOT / "_build" / "contracts" / "contracts.json").read_text())["contracts"]


def title(one: dict[str, Any]) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in one["settings"].items())
    return f"{one['loss']}({settings})" if settings else one["loss"]


@cache
def read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page: Path) -> dict[str, Tag]:
    return {tag["id"]: tag for tag in read(page).find_all(id=True)}


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def matrix(site: Path) -> Path:
    return site / "book" / "contracts" / "index.html"


def linked(page: Path, link: Tag) -> Tag:
    """The element that a link leads to."""
    file, fragment = link["href"].split("#")
    return anchors((page.parent / file).resolve() if file else page)[fragment]


# --- the matrix and the cards


def cells(matrix: Path) -> dict[str, dict[str, Tag]]:
    """The matrix as a reader sees it: loss, heading of the column, cell."""
    table = read(matrix).select_one(".lossbook-matrix table")
    names = [words(th.text) for th in table.select("thead tr:last-child th")][1:]
    return {
        words(tr.th.text): dict(zip(names, tr.find_all("td"), strict=True))
        for tr in table.select("tr[data-kind]")
    }


def test_every_loss_and_setting_is_a_row(matrix: Path, measured: list[dict[str, Any]]) -> None:
    assert list(cells(matrix)) == [title(one) for one in measured]
    assert {one["loss"] for one in measured if not one["settings"]} == set(kinds.losses())


def test_every_finding_stands_in_its_cell(matrix: Path, measured: list[dict[str, Any]]) -> None:
    found = cells(matrix)
    for one in measured:
        row = found[title(one)]
        assert list(row) == list(one["findings"])
        for name, finding in one["findings"].items():
            verdict, value = finding["verdict"], finding["value"]
            parts = words(row[name].text).split()
            signs = [part for part in parts if part in SIGNS.values()]
            numbers = [float(part) for part in parts if part not in SIGNS.values()]
            only = verdict == "measured" and value is not None
            assert signs == ([] if only else [SIGNS[verdict]])
            assert len(numbers) == 1 if only else len(numbers) <= 1
            assert all(number == pytest.approx(value, rel=0.051) for number in numbers)
            assert verdict.replace(" ", "-") in row[name]["class"]


def test_every_cell_leads_to_its_evidence(matrix: Path, measured: list[dict[str, Any]]) -> None:
    found = cells(matrix)
    for one in measured:
        for name, finding in one["findings"].items():
            target = linked(matrix, found[title(one)][name].a)
            line = words((target.summary or target).text)
            verdict = Finding(**finding).short
            assert line.startswith(f"{SIGNS[finding['verdict']]} {name} {verdict}"), (
                title(one),
                name,
            )
            assert words(finding["text"]) in line
            points = [words(li.text) for li in target.select("details li")]
            expected = finding["evidence"].items()
            assert points == [words(f"{key}: {shown(value)}") for key, value in expected]


def test_a_card_names_its_loss_and_links_to_the_reference(
    matrix: Path, measured: list[dict[str, Any]]
) -> None:
    rows = read(matrix).select("tr[data-kind] > th > a")
    for one, link in zip(measured, rows, strict=True):
        card = linked(matrix, link)
        section = card if card.name == "section" else card.find_parent("section")
        assert words(section.h2.text).rstrip("#") == title(one)
        (entry,) = section.select("p a.reference.internal:has(code.py-func)")
        page = (matrix.parent / link["href"].split("#")[0]).resolve()
        assert linked(page, entry).name == "dt"


def test_every_column_is_defined(matrix: Path) -> None:
    for heading in read(matrix).select(".lossbook-matrix th[scope=col] a"):
        term = linked(matrix, heading).find_parent("dt")
        assert words(term.text) == words(heading.text)
        assert words(term.find_next_sibling("dd").text).endswith(".")


def test_no_page_is_heavy(matrix: Path) -> None:
    sizes = {page.name: page.stat().st_size for page in matrix.parent.glob("*.html")}
    assert len(sizes) > 2 and max(sizes.values()) < 1_500_000, sizes


def test_the_reference_and_the_prose_quote_the_contracts(
    site: Path, measured: list[dict[str, Any]]
) -> None:
    """Under each loss of the reference a line leads to its cards; a quoted finding is the measured one."""
    found = {title(one): one for one in measured}
    lines = [p for page in (site / "book" / "api").glob("*.html") for p in read(page).find_all("p")]
    lines = [p for p in lines if p.text.startswith("Contract:")]
    quoted = {words(link.text) for line in lines for link in line.find_all("a")}
    assert quoted == set(found)
    for line in lines:
        one = found[words(line.a.text)]
        for verdict in UNIVERSAL:
            listed = re.search(rf"(?:: |; ). {verdict}: ([^;]*);", words(line.text))
            names = set(listed[1].split(", ")) if listed else set()
            holding = {name for name, f in one["findings"].items() if f["verdict"] == verdict}
            assert names <= holding and (names or not {"convex", "symmetric"} & holding)


# --- theory


def test_facts_stand_on_the_cards(matrix: Path, measured: list[dict[str, Any]]) -> None:
    """Every fact about a loss and setting that is measured, with its paper and whether it agrees."""
    found = cells(matrix)
    by_title = {title(one): one for one in measured}
    known = [fact for fact in facts.load() if title(vars(fact)) in by_title]
    assert len(known) > 30
    for fact in known:
        row, name = title(vars(fact)), fact.property
        cell, finding = found[row][name], Finding(**by_title[row]["findings"][name])
        assert "known" in cell["class"]
        said = [words(p.text) for p in linked(matrix, cell.a).find_all("p")]
        verdict = "disagrees" if facts.disagreement(fact, finding) else "agrees"
        assert any(p.startswith("Theory, ") and verdict in p for p in said), fact


def test_facts_at_settings_of_the_package_are_measured(measured: list[dict[str, Any]]) -> None:
    titles = {title(one) for one in measured}
    surrogates = import_module("lossbook.classification.surrogates")
    for fact in facts.load():
        values = fact.settings.values()
        here = all(not isinstance(value, str) or hasattr(surrogates, value) for value in values)
        if fact.loss in kinds.losses() and here:
            assert title(vars(fact)) in titles


# --- a reader's own loss


def test_the_example_gives_what_the_page_says(matrix: Path) -> None:
    section = read(matrix).find(id="your-own-loss-in-three-lines")
    code, answer = (pre.text.strip() for pre in section.find_all("pre"))
    *definition, question = code.splitlines()
    scope: dict[str, Any] = {}
    exec("\n".join(definition), scope)
    assert repr(eval(question, scope)) == answer


# --- in a browser


@contextmanager
def tab_of(
    browser: Browser, page: Path, fragment: str = "", scheme: str = "light", width: int = 1280
) -> Iterator[Page]:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844})
    try:
        tab = context.new_page()
        tab.goto(page.as_uri() + fragment)
        yield tab
    finally:
        context.close()


def visible_rows(tab: Page) -> list[str]:
    return tab.locator(".lossbook-matrix tr[data-kind]").evaluate_all(
        "(rows) => rows.filter((r) => r.getClientRects().length).map((r) => r.cells[0].textContent)"
    )


def has(name: str, verdict: str) -> Callable[[dict[str, Any]], bool]:
    return lambda one: one["findings"][name]["verdict"] == verdict


FILTERS: list[tuple[dict[str, str], Callable[[dict[str, Any]], bool]]] = [
    ({"kind": "anchor-positive"}, lambda one: one["kind"] == "anchor, positive"),
    ({"finding": "convex-refuted"}, has("convex", "refuted")),
    (
        {"finding": "convex-not-refuted", "and": "symmetric-not-refuted"},
        lambda one: has("convex", "not refuted")(one) and has("symmetric", "not refuted")(one),
    ),
    (
        {"part": "classification", "finding": "proper-not-refuted"},
        lambda one: (
            kinds.losses()[one["loss"]].__module__.split(".")[1] == "classification"
            and has("proper", "not refuted")(one)
        ),
    ),
    ({"chapter": "imbalance"}, lambda one: "imbalance" in kinds.losses()[one["loss"]].__module__),
]


@pytest.mark.parametrize(("choice", "wanted"), FILTERS)
def test_filters_show_what_was_asked_for(
    browser: Browser,
    matrix: Path,
    measured: list[dict[str, Any]],
    choice: dict[str, str],
    wanted: Callable[[dict[str, Any]], bool],
) -> None:
    expected = [title(one) for one in measured if wanted(one)]
    with tab_of(browser, matrix) as tab:
        assert visible_rows(tab) == [title(one) for one in measured]
        for menu, value in choice.items():
            tab.locator(f".lossbook-filters [name={menu}]").select_option(value)
        assert visible_rows(tab) == expected
        headings = tab.locator("th[scope=rowgroup]").evaluate_all(
            "(all) => all.filter((h) => h.getClientRects().length).length"
        )
        chapters = {
            kinds.losses()[name.split("(")[0]].__module__.split(".")[2] for name in expected
        }
        assert headings == len(chapters)
        fragment = tab.evaluate("location.hash")
    with tab_of(browser, matrix, fragment) as tab:  # the address holds the choice
        assert visible_rows(tab) == expected


def test_search_finds_a_loss(
    browser: Browser, matrix: Path, measured: list[dict[str, Any]]
) -> None:
    with tab_of(browser, matrix) as tab:
        tab.locator(".lossbook-filters [name=q]").fill("focal")
        assert visible_rows(tab) == [title(one) for one in measured if "focal" in title(one)]


def test_groups_of_columns_can_be_put_away(browser: Browser, matrix: Path) -> None:
    with tab_of(browser, matrix) as tab:
        names = tab.locator(".lossbook-columns label")
        for i, name in enumerate(names.all_inner_texts()):
            group = re.sub(r"\W+", "-", name.strip().lower())
            columns = tab.locator(f".lossbook-matrix .{group}")
            assert columns.count() > len(cells(matrix))
            expect(columns.first).to_be_visible()
            names.nth(i).locator("input").uncheck()
            assert columns.evaluate_all("(all) => all.every((c) => !c.getClientRects().length)")
        tab.locator(".lossbook-columns input").first.check()
        expect(tab.locator(".lossbook-matrix .shape").first).to_be_visible()


def test_the_matrix_is_read_with_the_keyboard(
    browser: Browser, matrix: Path, measured: list[dict[str, Any]]
) -> None:
    """One stop of the tab key; arrows from cell to cell, over what is filtered away; Enter opens."""
    with tab_of(browser, matrix, "#finding=convex-refuted") as tab:
        rows = visible_rows(tab)
        tab.locator(".lossbook-columns input").last.focus()
        tab.keyboard.press("Tab")
        expect(tab.locator(".lossbook-matrix")).to_be_focused()
        tab.keyboard.press("ArrowDown")
        said = tab.locator(".lossbook-words")
        expect(said).to_have_text(rows[0])
        names = list(measured[0]["findings"])
        for name in names[:3]:
            tab.keyboard.press("ArrowRight")
            expect(said).to_contain_text(f"{rows[0]} · {name}: ")
        tab.keyboard.press("ArrowDown")
        one = next(one for one in measured if title(one) == rows[1])
        finding = Finding(**one["findings"][names[2]])
        expect(said).to_have_text(f"{rows[1]} · {names[2]}: {finding.short}: {finding.text}")
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("ArrowLeft")
        expect(said).to_contain_text(f"{rows[0]} · {names[1]}: ")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**#contract-*")
        target = tab.locator(":target")
        expect(target).to_be_in_viewport()
        expect(target).to_contain_text(names[1])
        tab.go_back()
        tab.locator(".lossbook-matrix").focus()
        tab.keyboard.press("Tab")
        assert not tab.evaluate("document.activeElement.closest('.lossbook-matrix')")


@pytest.mark.parametrize("width", [390, 1280])
def test_headings_stay_while_the_matrix_scrolls(browser: Browser, matrix: Path, width: int) -> None:
    with tab_of(browser, matrix, width=width) as tab:
        box = tab.locator(".lossbook-matrix")
        box.evaluate("(box) => box.scrollTo(300, 600)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width + 1
        edge, above = box.evaluate(
            "(box) => { const r = box.getBoundingClientRect(); return [r.left, r.top]; }"
        )
        row = tab.locator("tr[data-kind] > th").nth(40).bounding_box()
        heading = tab.locator("thead th[scope=col]").nth(20).bounding_box()
        assert row["x"] == pytest.approx(edge, abs=2) and heading["y"] > above
        assert heading["y"] < above + 60
        assert row["width"] < 0.5 * width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cells_are_legible(browser: Browser, matrix: Path, scheme: str) -> None:
    """Contrast of at least 4.5 between a cell's words and its color."""
    with tab_of(browser, matrix, scheme=scheme) as tab:
        contrasts = tab.locator(".lossbook-matrix td:has(a):not(.not-applicable)").evaluate_all(
            CONTRASTS
        )
        assert len(contrasts) > 500 and min(contrasts) >= 4.5


# The ratio of the luminances of ink and ground (WCAG 2), both painted over the page's own ground.
CONTRASTS = """(cells) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const page = getComputedStyle(document.body).backgroundColor;
  const luminance = (...paints) => {
    for (const paint of ["white", page, ...paints]) {
      brush.fillStyle = paint;
      brush.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...brush.getImageData(0, 0, 1, 1).data].map((c) =>
      c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const known = new Map();
  return cells.map((cell) => {
    const ground = getComputedStyle(cell).backgroundColor;
    const ink = getComputedStyle(cell.querySelector("a")).color;
    if (!known.has(ground + ink)) {
      const [dark, light] = [luminance(ground), luminance(ground, ink)].sort((a, b) => a - b);
      known.set(ground + ink, (light + 0.05) / (dark + 0.05));
    }
    return known.get(ground + ink);
  });
}"""


# --- measuring


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """contracts.py, at work on two losses and two properties of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "tools"))
    sys.modules.pop("contracts", None)
    module = import_module("contracts")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "contracts.json")
    # Threads see what is patched here; processes would only where they are forked.
    monkeypatch.setattr(module, "ProcessPoolExecutor", ThreadPoolExecutor)
    two = {name: kinds.losses()[name] for name in ("focal_loss", "brier_loss")}
    monkeypatch.setattr(module, "losses", lambda: two)
    monkeypatch.setattr(module, "SETTINGS", {"focal_loss": [{"gamma": 5.0}]})
    trials: list[str] = []

    def bounded(subject: kinds.Subject, number: int) -> Finding:
        trials.append(subject.name)
        return Finding("measured", "as it is", value=float(subject.settings.get("gamma", 1)))

    groups = {"shape": {"bounded": bounded}}
    monkeypatch.setattr(module, "GROUPS", groups)
    monkeypatch.setattr(import_module("lossbook.lab.contracts.measure"), "GROUPS", groups)
    module.trials = trials
    return module


def test_contracts_are_measured_once(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool.main() == 0
    assert sorted(tool.trials) == ["brier_loss", "focal_loss", "focal_loss"]
    found = {name: one["bounded"].value for name, one in tool.load().items()}
    assert found == {"brier_loss": 1, "focal_loss": 1, "focal_loss(gamma=5.0)": 5}
    assert tool.main() == 0 and len(tool.trials) == 3
    tool.SETTINGS["brier_loss"] = [{"weight": None}]
    assert tool.main() == 0 and len(tool.trials) == 7


def test_a_changed_source_is_measured_again(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "titles", lambda: [("classification", "calibration")])
    source = tmp_path / "lossbook" / "part" / "loss.py"
    source.parent.mkdir(parents=True)
    stamps = set()
    for text in ("a = 1", "a = 2"):
        source.write_text(text)
        stamps.add(tool.fingerprint())
    assert len(stamps) == 2


def test_a_property_that_raises_stops_the_build(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(subject: kinds.Subject, number: int) -> Finding:
        if subject.settings:
            raise ZeroDivisionError("no such point")
        return Finding("not refuted", "held", number)

    tool.GROUPS["shape"]["broken"] = broken
    assert tool.main() == 1
    assert not tool.RESULTS.exists()
    told = capsys.readouterr().out
    assert "focal_loss" in told and "5.0" in told and "broken" in told and "no such point" in told
    assert "brier_loss" not in told
