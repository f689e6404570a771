"""The paper atlas and the claims ledger as a reader uses them."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, expect
from pybtex.database import parse_file

from lossbook.lab import claims, papers

ROOT = Path(__file__).parents[2]
ATLAS = papers.load()
TRIED = [paper for paper in ATLAS.values() if paper.verdict in papers.MEASURED]
YEARS = {
    key: entry.fields["year"]
    for key, entry in parse_file(str(ROOT / "book" / "references.bib")).entries.items()
    if key in ATLAS
}
CHAPTERS = {
    name: title
    for part in yaml.safe_load((ROOT / "data" / "chapters.yml").read_text())
    for name, title in part["chapters"].items()
}
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
FORM = ".lossbook-filters"


@cache
def read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def atlas(site: Path) -> Path:
    return site / "book" / "atlas.html"


@pytest.fixture(scope="module")
def entries(atlas: Path) -> dict[str, Tag]:
    """The entries of the page by citation key."""
    keys = {anchor(key): key for key in ATLAS}
    return {keys[item["id"]]: item for item in read(atlas).select(".lossbook-item")}


def anchor(key: str) -> str:
    return f"paper-{key.replace('_', '-')}"  # as HTML has it


def slug(value: str) -> str:
    return value.replace(" ", "-")


def facts_of(paper: papers.Paper) -> dict[str, str]:
    """What the menus choose by, as the elements and the address have it."""
    return {
        "part": paper.part,
        "chapter": paper.chapter,
        "role": paper.role,
        "verdict": slug(paper.verdict),
        "year": YEARS[paper.key],
    }


def words(element: Tag) -> str:
    return " ".join(element.get_text().split())


def follow(page: Path, link: Tag) -> Tag:
    """The element that a link leads to."""
    path, _, fragment = link["href"].partition("#")
    target = (page.parent / path).resolve() if path else page
    return read(target).find(id=fragment) or pytest.fail(link["href"])


# --- what stands on the page


def test_every_paper_stands_there_once_in_the_order_of_the_book(
    atlas: Path, entries: dict[str, Tag]
) -> None:
    assert len(read(atlas).select(".lossbook-item")) == len(ATLAS)
    assert list(entries) == list(ATLAS)
    assert atlas.stat().st_size < 1_500_000


def test_an_entry_says_what_the_atlas_knows(entries: dict[str, Tag]) -> None:
    for key, entry in entries.items():
        paper, text = ATLAS[key], words(entry).replace("’", "'")
        facts = facts_of(paper)
        assert {name: entry[f"data-{name}"] for name in facts} == facts, key
        said = [paper.title, paper.claim, paper.role, paper.verdict, paper.code, YEARS[key]]
        said += [CHAPTERS[chapter] for chapter in (paper.chapter, *paper.also)]
        for words_said in filter(None, said):
            assert plain(words_said) in plain(text), (key, words_said)
        section = entry.find_parent("section")
        assert words(section.h3).startswith(CHAPTERS[paper.chapter])


def plain(text: str) -> str:
    """Without what typography changes: quotes and dashes."""
    return re.sub(r"[^\w]+", " ", text)


def test_a_function_leads_to_its_reference_and_to_its_source(
    atlas: Path, entries: dict[str, Tag]
) -> None:
    for key, entry in entries.items():
        names = [path.rsplit(".", 1)[1] for path in ATLAS[key].functions]
        reference = entry.select('a[href^="api/"]')
        source = entry.select('a[href*="_modules/"]')
        assert [words(link) for link in reference] == names, key
        for link, code, name in zip(reference, source, names, strict=True):
            assert follow(atlas, link).name == "dt" and link["href"].endswith(f".{name}")
            assert f"{name}" in words(follow(atlas, code))


def test_a_measured_claim_leads_to_its_section_and_to_its_numbers(
    site: Path, atlas: Path, entries: dict[str, Tag]
) -> None:
    for paper in TRIED:
        entry = entries[paper.key]
        section = follow(atlas, entry.select_one('a[href*="/chapters/"]'))
        cards = [words(card) for card in section.select(".lossbook-claim")]
        assert any(paper.title in card for card in cards), paper.key
        (verdict,) = entry.select('a[href^="claims.html"]')
        assert words(verdict) == paper.verdict
        assert paper.title in words(follow(atlas, verdict))
        for name, item in recorded(paper.key).evidence.items():
            assert plain(f"{name}: {item.text}") in plain(words(entry))
            if item.seeds:
                interval = f"{item.mean:+.3g} [{item.low:+.3g}, {item.high:+.3g}]"
                assert interval in words(entry)
    untried = [entries[key] for key in ATLAS if ATLAS[key] not in TRIED]
    assert not any(entry.select('a[href^="claims.html"]') for entry in untried)


def recorded(key: str) -> claims.Claim:
    """What was recorded by the run that the pages were made from."""
    run = json.loads((ROOT / "_build" / "claims" / "book" / f"{key}.json").read_text())
    evidence = {name: claims.Evidence(**item) for name, item in run.pop("evidence").items()}
    return claims.Claim(**run, evidence=evidence)


def totals(page: Path) -> dict[str, list[str]]:
    rows = read(page).select(".lossbook-totals tbody tr")
    return {words(row.td): [words(cell) for cell in row.select("td")[1:]] for row in rows}


@pytest.mark.parametrize("name", ["atlas", "claims"])
def test_the_totals_add_up(site: Path, name: str) -> None:
    expected = {}
    for part in yaml.safe_load((ROOT / "data" / "chapters.yml").read_text()):
        verdicts = [p.verdict for p in ATLAS.values() if p.part == part["part"]]
        counts = [verdicts.count(verdict) for verdict in papers.VERDICTS]
        expected[part["title"]] = [*map(str, counts), str(len(verdicts))]
    expected["all"] = [
        str(sum(map(int, column))) for column in zip(*expected.values(), strict=True)
    ]
    assert totals(site / "book" / f"{name}.html") == expected
    assert expected["all"][-1] == "365"


# --- the picture


def test_every_mark_stands_for_its_paper(atlas: Path) -> None:
    marks = read(atlas).select(".atlas td a")
    assert sorted(mark["href"] for mark in marks) == sorted(f"#{anchor(key)}" for key in ATLAS)
    papers_by_link = {f"#{anchor(key)}": paper for key, paper in ATLAS.items()}
    for mark in marks:
        paper = papers_by_link[mark["href"]]
        assert mark["title"] == f"{paper.title} ({YEARS[paper.key]}), {paper.verdict}"
        shape = mark.select_one("use")["href"]
        assert shape == f"#mark-{slug(paper.verdict)}" and follow(atlas, mark.select_one("use"))


def test_a_mark_stands_in_the_row_of_its_chapter_and_the_column_of_its_year(
    tab: Page, atlas: Path
) -> None:
    """As drawn: the middle of the mark lies between the edges of its column and of its row."""
    for size in (DESKTOP, PHONE):
        tab.set_viewport_size(size)
        columns = boxes(tab, ".atlas thead a", "th", "(link) => link.hash.slice(6)")
        rows = boxes(tab, ".atlas th[scope=row] a", "tr", "(link) => link.hash.slice(9)")
        marks = boxes(tab, ".atlas td a", "a", "(link) => link.hash")
        assert len(marks) == len(ATLAS) and set(rows) == set(CHAPTERS)
        for key, paper in ATLAS.items():
            left, right, top, bottom = marks[f"#{anchor(key)}"]
            column, row = columns[YEARS[key]], rows[paper.chapter]
            assert column[0] <= (left + right) / 2 <= column[1], (key, size)
            assert row[2] <= (top + bottom) / 2 <= row[3], (key, size)
            assert left >= 0 and right <= size["width"]
    assert [*columns] == sorted(set(YEARS.values()))


def boxes(tab: Page, selector: str, around: str, name: str) -> dict[str, list[float]]:
    """The edges (left, right, top, bottom) of the elements around the selected ones, by name."""
    script = f"""(all) => Object.fromEntries(all.map((element) => {{
      const box = element.closest("{around}").getBoundingClientRect();
      return [({name})(element), [box.left, box.right, box.top, box.bottom]];
    }}))"""
    return tab.locator(selector).evaluate_all(script)


def test_the_picture_is_used_with_the_keyboard(tab: Page) -> None:
    stops = tab.locator('.atlas td a:not([tabindex="-1"])')
    assert stops.count() == 1
    tab.locator('.atlas th a[href="#chapter=surrogates"]').focus()
    tab.keyboard.press("Tab")
    place = "() => [document.activeElement.hash, document.activeElement.title]"
    mark, title = tab.evaluate(place)
    first = next(p for p in ATLAS.values() if p.chapter == "surrogates" and YEARS[p.key] == "2020")
    assert mark == f"#{anchor(first.key)}" and first.title in title
    expect(tab.locator(".atlas output")).to_have_text(title)

    tab.keyboard.press("ArrowRight")  # the next paper of the chapter
    mark, title = tab.evaluate(place)
    assert "radhakrishnan2022wide" in mark and stops.count() == 1
    expect(tab.locator(".atlas output")).to_have_text(title)
    tab.keyboard.press("ArrowDown")  # the chapter below, the same year
    mark, _ = tab.evaluate(place)
    below = ATLAS[mark.removeprefix("#paper-")]
    assert below.chapter == "cross_entropy" and YEARS[below.key] == "2022"
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate(place)[0] == f"#{anchor(first.key)}"

    choose(tab, {"verdict": "contradicted"})  # then the arrows visit only these
    tab.locator(".atlas td a:not(.dimmed)").first.focus()
    visited = [tab.evaluate(place)[0]]
    for _ in range(8):
        tab.keyboard.press("ArrowRight")
        visited.append(tab.evaluate(place)[0])
    contradicted = {f"#{anchor(k)}" for k, p in ATLAS.items() if p.verdict == "contradicted"}
    assert set(visited[:-1]) == contradicted and visited[-1] == visited[-2]  # the last is the end

    tab.locator(f'.atlas td a[href="#{anchor(first.key)}"]').focus()
    tab.keyboard.press("Enter")
    assert tab.url.endswith(f"#{anchor(first.key)}")
    expect(tab.locator(f"#{anchor(first.key)}")).to_be_in_viewport()


# --- search and menus


@pytest.fixture
def tab(browser: Browser, atlas: Path) -> Iterator[Page]:
    context = browser.new_context(viewport=DESKTOP)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    tab = context.new_page()
    tab.goto(atlas.as_uri())
    yield tab
    context.close()
    assert errors == []


def shown(tab: Page) -> list[str]:
    items = tab.locator(".lossbook-item")
    return items.evaluate_all("(all) => all.filter((i) => i.checkVisibility()).map((i) => i.id)")


def choose(tab: Page, choice: dict[str, str]) -> None:
    for name, value in choice.items():
        field = tab.locator(f'{FORM} [name="{name}"]')
        field.fill(value) if name == "q" else field.select_option(value)


def fits(paper: papers.Paper, text: str, choice: dict[str, str]) -> bool:
    asked = letters(choice.get("q", "")).split()
    return all(word in letters(text) for word in asked) and all(
        facts_of(paper)[name] == value for name, value in choice.items() if name != "q"
    )


def letters(text: str) -> str:
    bare = unicodedata.normalize("NFKD", text)
    return "".join(c for c in bare if not unicodedata.combining(c)).lower()


def choices(number: int) -> Iterator[dict[str, str]]:
    """Random choices, each true of at least one paper."""
    draw = random.Random(0)
    for _ in range(number):
        paper = draw.choice(list(ATLAS.values()))
        query = draw.sample(re.findall(r"\w+", f"{paper.title} {paper.claim}"), k=2)
        everything = facts_of(paper) | {"q": " ".join(query)}
        names = draw.sample(sorted(everything), k=draw.choice([1, 1, 2, 3]))
        yield {name: everything[name] for name in names}


def test_exactly_the_chosen_papers_are_shown(tab: Page, entries: dict[str, Tag]) -> None:
    text = {key: entry.get_text() for key, entry in entries.items()}
    sizes = set()
    for choice in choices(30):
        choose(tab, choice)
        expected = [anchor(k) for k, paper in ATLAS.items() if fits(paper, text[k], choice)]
        assert shown(tab) == expected != [], choice
        expect(tab.locator(f"{FORM} output")).to_have_text(f"{len(expected)} of 365")
        assert dict(parse_qsl(tab.url.partition("#")[2])) == choice
        pale = tab.locator(".atlas td a.dimmed").count()
        assert pale == len(ATLAS) - len(expected), choice
        sizes.add(len(expected))
        tab.locator(f"{FORM} button[type=reset]").click()
        expect(tab.locator(f"{FORM} output")).to_have_text("365 of 365")
        assert "#" not in tab.url
    assert len(sizes) > 5


def test_every_menu_has_every_value(tab: Page) -> None:
    for name in ("part", "chapter", "role", "verdict", "year"):
        values = tab.locator(f'{FORM} [name="{name}"] option').evaluate_all(
            "(all) => all.map((option) => option.value)"
        )
        assert values[0] == "" and len(values) == len(set(values))
        assert set(values[1:]) == {facts_of(paper)[name] for paper in ATLAS.values()}


def test_a_title_finds_its_paper_and_nonsense_finds_nothing(tab: Page) -> None:
    for paper in random.Random(1).sample(list(ATLAS.values()), k=10):
        choose(tab, {"q": re.sub(r"[^\w\s]", " ", paper.title).upper()})
        assert anchor(paper.key) in shown(tab), paper.title
    choose(tab, {"q": "zebra-crossing losses"})
    assert shown(tab) == []
    assert tab.locator("article section section h2:visible").count() == 0  # no heading over nothing


def test_the_choice_survives_in_the_address(browser: Browser, tab: Page, atlas: Path) -> None:
    choice = {"q": "temperature é", "part": "representation", "verdict": "not-at-this-scale"}
    choose(tab, choice)
    chosen, address = shown(tab), tab.url
    context = browser.new_context(viewport=DESKTOP)
    other = context.new_page()
    other.goto(address)
    assert shown(other) == chosen
    for name, value in choice.items():
        expect(other.locator(f'{FORM} [name="{name}"]')).to_have_value(value)
    expect(other.locator(FORM)).to_be_in_viewport()
    context.close()

    tab.locator('.atlas a[href="#verdict=contradicted"]').click()  # a new choice, and back again
    contradicted = [anchor(key) for key, p in ATLAS.items() if p.verdict == "contradicted"]
    assert shown(tab) == contradicted
    tab.locator(f'.atlas a[href="#{contradicted[-1]}"]').click()  # a place asks for everything
    expect(tab.locator(f"#{contradicted[-1]}")).to_be_in_viewport()
    assert len(shown(tab)) == len(ATLAS)
    tab.go_back()
    expect(tab.locator(f"{FORM} output")).to_have_text(f"{len(contradicted)} of 365")
    tab.goto(f"{atlas.as_uri()}#{urlencode({'chapter': 'no_such'})}")
    tab.reload()
    assert len(shown(tab)) == len(ATLAS)


def test_without_a_script_all_papers_are_there(browser: Browser, atlas: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(atlas.as_uri())
    assert tab.locator(".lossbook-item:visible").count() == len(ATLAS)
    expect(tab.locator(FORM)).to_be_hidden()
    context.close()


# --- the map seen from the other side


def test_the_parts_lead_to_the_papers_of_each_chapter(site: Path, tab: Page) -> None:
    found = {}
    for page in (site / "book" / "parts").glob("*.html"):
        for link in read(page).select('.lossbook-chapters a[href*="atlas.html#chapter="]'):
            assert follow(page, link)["value"] == link["href"].partition("=")[2]
            found[link["href"].partition("=")[2]] = words(link)
    expected = {c: [anchor(k) for k, p in ATLAS.items() if p.chapter == c] for c in CHAPTERS}
    assert found == {chapter: str(len(keys)) for chapter, keys in expected.items()}
    for chapter, keys in expected.items():
        tab.evaluate(f"location.hash = 'chapter={chapter}'")
        expect(tab.locator(f"{FORM} output")).to_have_text(f"{len(keys)} of 365")
        assert shown(tab) == keys


def test_a_function_names_its_papers(site: Path, entries: dict[str, Tag]) -> None:
    named: dict[str, dict[str, list[str]]] = {}
    for page in (site / "book" / "api").glob("*.html"):
        for term in read(page).select("dt.sig[id]"):
            links = term.find_next_sibling("dd").select('a[href^="../atlas.html#paper-"]')
            if links and term.parent.parent.name != "dd":
                named[term["id"]] = [link["href"].partition("#paper-")[2] for link in links]
                verdicts = {ATLAS[key].verdict for key in named[term["id"]]}
                assert all(verdict in words(term.parent) for verdict in verdicts)
    expected: dict[str, list[str]] = {}
    for key, entry in entries.items():
        for link in entry.select('a[href^="api/"]'):
            expected.setdefault(link["href"].partition("#")[2], []).append(key)
    assert named == expected and expected


# --- the ledger


@pytest.fixture(scope="module")
def ledger(site: Path) -> Path:
    return site / "book" / "claims.html"


def test_the_ledger_has_every_claim_that_was_tried_contradicted_ones_first(ledger: Path) -> None:
    items = read(ledger).select(".lossbook-item")
    order = sorted(TRIED, key=lambda paper: papers.MEASURED.index(paper.verdict))
    assert [item["id"] for item in items] == [f"claim-{paper.key}" for paper in order]
    assert papers.MEASURED[0] == "contradicted"
    for item, paper in zip(items, order, strict=True):
        run = recorded(paper.key)
        assert plain(run.statement) in plain(words(item)) and run.outcome == paper.verdict
        pictures = [svg["aria-label"] for svg in item.select("svg[role=img]")]
        assert pictures == [
            f"difference {e.mean:.3g}, 95 percent interval {e.low:.3g} to {e.high:.3g}"
            for e in run.evidence.values()
            if e.seeds
        ]


def test_the_ledger_is_filtered(browser: Browser, ledger: Path) -> None:
    context = browser.new_context(viewport=PHONE)
    tab = context.new_page()
    tab.goto(ledger.as_uri())
    for name in ("part", "chapter", "verdict"):
        for value in {facts_of(paper)[name] for paper in TRIED}:
            tab.evaluate(f"location.hash = '{name}={value}'")
            chosen = {f"claim-{p.key}" for p in TRIED if facts_of(p)[name] == value}
            expect(tab.locator(f"{FORM} output")).to_have_text(f"{len(chosen)} of {len(TRIED)}")
            assert set(shown(tab)) == chosen, value
    choose(tab, {"verdict": "contradicted", "q": "squentropy"})
    assert shown(tab) == ["claim-hui2023cut"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
