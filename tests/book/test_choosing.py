"""The page "Choosing a loss": cards that say what they rest on, and menus that find them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Locator, Page, expect

from lossbook.lab import papers

SOURCE = (Path(__file__).parents[2] / "book" / "choosing.md").read_text(encoding="utf-8")
ROWS = ["Use", "Expect", "Price", "Not when", "Evidence"]
EVIDENCE = {"eq", "verdict", "doc", "contract"}


@dataclass(frozen=True)
class Card:
    """One recommendation as its Markdown has it."""

    title: str
    menus: dict[str, list[str]]
    rows: dict[str, str]


def card(arguments: str, text: str) -> Card:
    title, *rows = text.strip().split("\n\n")
    menus = (pair.partition("=") for pair in shlex.split(arguments))
    return Card(
        title,
        {name: values.split() for name, _, values in menus},
        dict(row.split("\n: ", 1) for row in rows),
    )


def roles(text: str) -> list[tuple[str, str]]:
    """Every role of a text and what it names: ("eq", "eq:ce-gibbs")."""
    return re.findall(r"\{([\w:]+)\}`~?([^`]+)`", text)


def slug(value: str) -> str:
    return value.replace(" ", "-")


CARDS = [
    card(*found) for found in re.findall(r"^:::\{item\} ([^\n]*)\n(.*?)^:::$", SOURCE, re.M | re.S)
]
TITLES = [c.title for c in CARDS]
(MENUS,) = (
    {name: [slug(value) for value in values] for name, values in yaml.safe_load(text).items()}
    for text in re.findall(r"^```\{filters\} \.lossbook-item\n(.*?)^```$", SOURCE, re.M | re.S)
)
CHOICES = [(menu, value) for menu, values in MENUS.items() for value in values]


# --- what the Markdown says


def test_there_are_cards_for_every_choice_and_no_two_alike() -> None:
    assert len(CARDS) == SOURCE.count("{item}") >= 35
    assert len(set(TITLES)) == len(TITLES)
    assert list(MENUS) == ["task", "data", "need"]
    offered = {(menu, value) for c in CARDS for menu in c.menus for value in c.menus[menu]}
    assert offered == set(CHOICES)


@pytest.mark.parametrize("card", CARDS, ids=TITLES)
def test_a_card_is_complete(card: Card) -> None:
    assert re.fullmatch(r"\*\*[^*]+[.?]\*\*", card.title)
    assert list(card.rows) == ROWS
    assert list(card.menus) == list(MENUS) and all(card.menus.values())


@pytest.mark.parametrize("card", CARDS, ids=TITLES)
def test_a_card_recommends_what_the_package_has_and_says_what_it_rests_on(card: Card) -> None:
    assert {role for role, _ in roles(card.rows["Use"])} & {"func", "class"}
    assert {role for role, _ in roles(card.rows["Evidence"])} & EVIDENCE


def named(*wanted: str) -> list[str]:
    return sorted({name for role, name in roles(SOURCE) if role in wanted})


@pytest.mark.parametrize("path", named("func", "class"))
def test_every_function_imports(path: str) -> None:
    module, name = path.rsplit(".", 1)
    assert getattr(import_module(module), name).__module__ == module  # and is named by its home


@pytest.mark.parametrize("key", named("verdict"))
def test_every_verdict_is_a_measured_one_beside_its_paper(key: str) -> None:
    assert papers.load()[key].verdict in papers.MEASURED
    cited = f"{{cite:t}}`{key}`: {{verdict}}`{key}`"
    assert SOURCE.count(cited) == SOURCE.count(f"{{verdict}}`{key}`")


def test_no_result_is_typed() -> None:
    prose = re.sub(r"(?s)^```\{raw\}.*?^```$", "", SOURCE, flags=re.M)
    words = re.sub(r"`[^`\n]+`|\$[^$]*\$|float\d+|^:[a-z-]+:.*", "", prose, flags=re.M)
    assert re.findall(r".{0,20}\d.{0,20}", words) == []


@pytest.mark.parametrize("link", sorted(set(re.findall(r'href="#(\w+=[^"]*)"', SOURCE))))
def test_every_way_into_the_cards_is_a_choice_of_a_menu(link: str) -> None:
    assert tuple(link.split("=")) in CHOICES


# --- what a reader sees


@pytest.fixture(scope="module")
def tab(browser: Browser, site: Path) -> Iterator[Page]:
    page = browser.new_page()
    page.goto((site / "book" / "choosing.html").as_uri())
    yield page
    page.close()


def shown(tab: Page) -> list[str]:
    """The titles of the visible cards, in the source's words."""
    visible = tab.locator(".lossbook-item").evaluate_all(
        "cards => cards.map(card => card.checkVisibility())"
    )
    return [title for title, seen in zip(TITLES, visible, strict=True) if seen]


def having(**choice: str) -> list[str]:
    return [c.title for c in CARDS if all(v in c.menus[menu] for menu, v in choice.items())]


def menu(tab: Page, name: str) -> Locator:
    return tab.locator(f".lossbook-filters select[name={name}]")


@pytest.fixture
def fresh(tab: Page) -> Page:
    tab.evaluate("location.hash = ''")
    tab.get_by_role("button", name="show all").click()
    expect(tab.locator(".lossbook-filters output")).to_have_text(f"{len(CARDS)} of {len(CARDS)}")
    return tab


def test_all_cards_are_there_at_first(fresh: Page) -> None:
    assert shown(fresh) == TITLES


@pytest.mark.parametrize("name", MENUS)
def test_each_menu_narrows_to_the_cards_that_have_its_value(fresh: Page, name: str) -> None:
    for value in MENUS[name]:
        menu(fresh, name).select_option(value)
        assert shown(fresh) == having(**{name: value}), value


def test_menus_and_search_work_together(fresh: Page) -> None:
    menu(fresh, "task").select_option("decide")
    menu(fresh, "data").select_option("rare-classes")
    both = having(task="decide", data="rare-classes")
    assert 0 < len(both) < len(having(task="decide")) and shown(fresh) == both
    fresh.get_by_role("searchbox", name="search").and_(fresh.locator(".lossbook-filters *")).fill(
        "threshold"
    )
    texts = {c.title: " ".join([c.title, *c.rows.values()]).lower() for c in CARDS}
    assert shown(fresh) == [title for title in both if "threshold" in texts[title]] != []


def test_a_choice_by_keyboard_is_said_and_stands_in_the_address(fresh: Page) -> None:
    menu(fresh, "need").focus()
    fresh.keyboard.press("ArrowDown")
    first = MENUS["need"][0]
    wanted = having(need=first)
    assert shown(fresh) == wanted
    expect(fresh.locator(".lossbook-filters output")).to_have_text(f"{len(wanted)} of {len(CARDS)}")
    assert fresh.url.endswith(f"#need={first}")


def test_an_address_opens_the_choice_it_names(tab: Page, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(tab.url.split("#")[0] + "#data=small-batches&need=speed-or-memory")
    assert shown(page) == having(data="small-batches", need="speed-or-memory")
    page.close()


def test_the_tree_leads_to_the_cards(fresh: Page) -> None:
    fresh.locator('.lossbook-tree a[href="#task=place-prototypes"]').press("Enter")
    expect(menu(fresh, "task")).to_have_value("place-prototypes")
    assert shown(fresh) == having(task="place-prototypes")
    expect(fresh.locator(".lossbook-filters")).to_be_in_viewport()


def test_a_heading_over_nothing_is_not_shown(fresh: Page) -> None:
    menu(fresh, "task").select_option("prune-or-merge")
    headings = fresh.locator("h3:visible").all_inner_texts()
    assert [h.rstrip("#") for h in headings] == ["Smaller networks, and two that should be one"]
