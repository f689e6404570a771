"""The pages as files: whole, linked, described in words, with nothing fetched from elsewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from pybtex.database import parse_file

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARTS = [part["part"] for part in yaml.safe_load((ROOT / "data" / "chapters.yml").read_text())]


@cache
def read(page: Path) -> BeautifulSoup:
    return parse(page.read_text(encoding="utf-8"))


def parse(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def assert_none(faults: Iterable[str]) -> None:
    listed = list(faults)
    assert not listed, "\n".join(listed)


@pytest.fixture(scope="module")
def soup(page: Path) -> BeautifulSoup:
    return read(page)


# --- nothing is fetched from outside


FETCHING = ("src", "srcset", "poster", "data", "href", "xlink:href")
OUTSIDE = re.compile(r"(https?:)?//", re.IGNORECASE)


def fetched(soup: BeautifulSoup) -> Iterable[str]:
    """What a page makes the browser fetch from other places; links to follow are not among it."""
    for tag in soup.find_all(lambda tag: tag.name not in ("a", "base")):
        for name in FETCHING:
            value = tag.get(name, "")
            yield from (part for part in str(value).split() if OUTSIDE.match(part))
        yield from fetched_by_style(str(tag.get("style", "")))
    for style in soup.find_all("style"):
        yield from fetched_by_style(style.get_text())


def fetched_by_style(css: str) -> list[str]:
    address = r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^\s'\")]+)"
    return re.findall(address, css, re.IGNORECASE)


def test_a_page_fetches_nothing_from_outside(vendored: None, soup: BeautifulSoup) -> None:
    assert_none(fetched(soup))


def test_styles_fetch_nothing_from_outside(vendored: None, site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    assert {str(css): found for css in styles if (found := fetched_by_style(css.read_text()))} == {}


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://x.org/a.js"></script>',
        '<link rel="stylesheet" href="//x.org/a.css">',
        '<img alt="a" src="http://x.org/a.png">',
        '<img alt="a" src="a.png" srcset="b.png 1x, https://x.org/b.png 2x">',
        '<iframe src="https://x.org"></iframe>',
        '<svg><image xlink:href="https://x.org/a.png"/></svg>',
        '<p style="background: url(https://x.org/a.png)"></p>',
        "<style>@import '//x.org/a.css';</style>",
        "<style>@font-face { src: url( 'https://x.org/a.woff' ) }</style>",
    ],
)
def test_what_is_fetched_from_outside_is_seen(element: str) -> None:
    assert len(list(fetched(parse(element)))) == 1
    inside = re.sub(r"(https?:)?//x.org/?", "local/", element)
    assert list(fetched(parse(inside + '<a href="https://x.org">link</a>'))) == []


# --- links


@cache
def anchors(page: Path) -> set[str]:
    return {tag[name] for tag in read(page).find_all() for name in ("id", "name") if tag.get(name)}


def broken(page: Path, soup: BeautifulSoup) -> Iterable[str]:
    """The internal links of a page that lead nowhere, and its files that are not there."""
    for tag in soup.find_all(lambda tag: tag.get("href") or tag.get("src")):
        link = tag.get("href") or tag.get("src")
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (page.parent / unquote(url.path)).resolve() if url.path else page
        if not target.is_file():
            yield f"{link}: no such file"
        elif "=" in url.fragment and "lossbook-explorer" in anchors(target):
            continue  # a setting of the explorer, whose own test opens it
        elif url.fragment and unquote(url.fragment) not in anchors(target):
            yield f"{link}: no such anchor"


def test_internal_links_lead_somewhere(page: Path, soup: BeautifulSoup) -> None:
    assert_none(broken(page, soup))


def test_broken_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<p id="here">')
    links = ["there.html", "there.html#here", "there.html#gone", "gone.html", "https://x.org", "#"]
    page = tmp_path / "page.html"
    page.write_text("".join(f'<a href="{link}">a</a>' for link in links) + "<script src=a.js>")
    assert list(broken(page, read(page))) == [
        "there.html#gone: no such anchor",
        "gone.html: no such file",
        "a.js: no such file",
    ]


def test_the_front_door_opens_on_the_introduction(site: Path) -> None:
    refresh = parse((site / "index.html").read_text()).find("meta")["content"]
    assert refresh == "0; url=book/intro.html"


# --- pictures in words


def unnamed(soup: BeautifulSoup) -> Iterable[str]:
    """Pictures that a reader who cannot see them learns nothing about."""
    for image in soup.find_all("img"):
        if not image.get("alt", "").strip():
            yield f"<img src={image.get('src', '')[:60]!r}> has no alt"
    for svg in soup.find_all("svg"):
        label = svg.get("aria-label", "")
        if svg.get("role") == "img":
            if len(label.split()) < 3:
                yield f"<svg> is labelled {label!r}"
        elif svg.get("aria-hidden") != "true" and svg.find_parent(class_="cell_output"):
            yield "<svg> in an output is neither role=img nor aria-hidden"


def test_pictures_are_described(soup: BeautifulSoup) -> None:
    assert_none(unnamed(soup))


def test_undescribed_pictures_are_seen() -> None:
    good = '<img alt="a"><svg role="img" aria-label="Three rising curves"></svg><svg></svg>'
    assert list(unnamed(parse(good))) == []
    for bad in (
        "<img>",
        '<img alt=" ">',
        '<svg role="img"></svg>',
        '<svg role="img" aria-label="A figure"></svg>',
        '<div class="cell_output"><svg></svg></div>',
    ):
        assert len(list(unnamed(parse(bad)))) == 1, bad


# --- a page is complete


def text_of(main: Tag) -> str:
    """What a page says in its own words: without code."""
    return " ".join(
        string
        for string in main.find_all(string=True)
        if not string.find_parent(["pre", "code", "script", "style"])
    )


def test_a_page_has_language_title_and_heading(soup: BeautifulSoup) -> None:
    assert soup.html["lang"] == "en"
    assert soup.title.get_text().strip().endswith("lossbook")
    headings = soup.select("main h1:not(#jb-print-docs-body h1)")
    assert [h1 for h1 in headings if h1.get_text().strip("# ")]


def test_a_page_ends_with_copyright_and_licences(soup: BeautifulSoup) -> None:
    footer = soup.select_one("footer.bd-footer-content")
    assert re.search(r"© Copyright \d{4}", footer.get_text())
    assert "MIT" in footer.get_text()
    assert footer.find("a", href="https://creativecommons.org/licenses/by/4.0/")


def leftovers(text: str) -> list[str]:
    """Markup that should have become something: directives and roles, of Markdown and of reST."""
    return re.findall(r"```\{|:::\{|\{[a-z]+(?::[a-z]+)*\}`|:[a-z]+:`|\.\. [a-z]+::", text)


def test_no_markup_is_left_over(soup: BeautifulSoup) -> None:
    assert leftovers(text_of(soup.main)) == []


def test_leftover_markup_is_seen() -> None:
    for bad in ("```{papers}", ":::{note}", "{cite:t}`a`", "{eq}`a`", ":func:`f`", ".. math::"):
        assert leftovers(text_of(parse(f"<p>Say {bad} here</p>"))), bad
        assert leftovers(text_of(parse(f"<pre>Say <b>{bad}</b> here</pre>"))) == []
    assert leftovers("A set {a, b}, 3:2, and `code`.") == []


# --- the book is complete


def test_the_pages_of_the_book_exist(site: Path, pages: list[Path]) -> None:
    documents = {str(page.relative_to(site).with_suffix("")) for page in pages}
    front = ["intro", "how_to_use", "notation", "claims", "bibliography", "api/index", "api/lab"]
    assert {f"book/{name}" for name in front} <= documents
    assert {f"book/parts/{part}" for part in PARTS} <= documents and len(PARTS) == 7
    assert {"genindex", "search"} <= documents
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
    assert set(listed) <= documents


def test_a_chapter_opens_on_colab(page: Path, site: Path, soup: BeautifulSoup) -> None:
    document = page.relative_to(site).with_suffix("")
    colab = "https://colab.research.google.com/github/"
    repository = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    copy = f"book/colab/{document}.ipynb"
    links = {link["href"] for link in soup.select(f'a[href^="{colab}"]')}
    is_chapter = document.parts[0] == "chapters"
    assert links == ({f"{colab}{repository}/blob/main/{copy}"} if is_chapter else set())
    assert (ROOT / copy).exists() == is_chapter
    assert len(soup.select("article a.colab-badge")) == len(links)


def test_every_chapter_has_an_explorable_figure(site: Path, pages: list[Path]) -> None:
    chapters: dict[tuple[str, ...], int] = {}
    for page in pages:
        top, *chapter = page.relative_to(site).with_suffix("").parts[:3]
        if top == "chapters":
            figures = len(read(page).select("figure.lossbook-explorable"))
            chapters[tuple(chapter)] = chapters.get(tuple(chapter), 0) + figures
    assert chapters and all(chapters.values()), chapters


def test_the_bibliography_has_every_work(site: Path) -> None:
    works = parse_file(str(ROOT / "book" / "references.bib")).entries.values()
    page = read(site / "book" / "bibliography.html")
    shown = [entry.get_text() for entry in page.select(".citation")]
    assert len(shown) == len(works)
    everything = re.sub(r"\W+", " ", " ".join(shown))
    for work in works:
        title = re.sub(r"[{}]", "", work.fields["title"])
        if re.fullmatch(r"[\w\s:,-]+", title):  # without LaTeX
            assert re.sub(r"\W+", " ", title).lower() in everything.lower()


def test_a_verdict_leads_to_its_measurements(site: Path, pages: list[Path]) -> None:
    tables = [table for page in pages for table in read(page).select(".lossbook-papers table")]
    links = [row.select("td:last-child a") for table in tables for row in table.select("tbody tr")]
    ledger = read(site / "book" / "claims.html")
    assert any(links)  # a paper that is only planned has nothing to lead to
    for (link,) in filter(None, links):
        page, anchor = link["href"].split("#")
        entry = ledger.find(id=anchor) or pytest.fail(anchor)
        verdict = entry.find_previous("h2").get_text().rstrip("#").lower()
        assert page.endswith("book/claims.html") and link.get_text() == verdict


def test_instructors_see_every_assignment(site: Path) -> None:
    rows = read(site / "book" / "instructors.html").select(".lossbook-assignments tbody tr")
    names = {file.stem for file in (ROOT / "book" / "assignments" / "source").glob("*/*.ipynb")}
    assert names and {row.select_one("td code").get_text() for row in rows} == names
    minutes = [re.search(r"(\d+) minutes, \d+ points", row.get_text()) for row in rows]
    assert all(found and 60 <= int(found[1]) <= 120 for found in minutes)


def test_citations_say_author_and_year(pages: list[Path]) -> None:
    citations = [
        citation.get_text()
        for page in pages
        for citation in read(page).select("article .bibtex-citation")
    ]
    assert citations
    assert [c for c in citations if not re.search(r"[A-Z]\w+.*\b(19|20)\d\d[a-z]?\b", c)] == []


def test_the_build_stops_at_a_warning_on_any_page() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"^\t(jupyter-book build .*)$", makefile, re.MULTILINE)
    assert {"-W", "-n", "--all"} <= set(shlex.split(command))
