"""The built book, its pages and a browser to open them with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
SOURCES = ("_*.yml", "pyproject.toml", "data/*.yml", "book/**/*", "chapters/**/*", "lossbook/**/*")
CURVES, SCENE = "lossbook-explorable", "lossbook-explorable lossbook-scene"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def built_pages() -> list[str]:
    """The paths of all pages; ``index.html`` only redirects, ``_static`` is the theme's."""
    found = [path.relative_to(SITE) for path in SITE.rglob("*.html")]
    return sorted(str(p) for p in found if p.parts[0] != "_static" and str(p) != "index.html")


def built_figures(kind: str) -> list[tuple[str, str]]:
    """Page and name of every explorable figure of a kind, which is its class in full."""
    figure = re.compile(rf'<figure class="{kind}"[^>]* data-name="([^"]*)"')
    texts = {page: (SITE / page).read_text(encoding="utf-8") for page in built_pages()}
    return [(page, name) for page, text in texts.items() for name in figure.findall(text)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a ``page`` runs on every page, one of an ``explorable`` on every such figure.

    Where nothing is built it runs once all the same, for the fixture ``site`` to fail it.
    """
    if "explorable" in metafunc.fixturenames:
        pairs = built_figures(CURVES) or [("book/intro.html", "")]
        ids = [f"{page}:{name}" for page, name in pairs]
        metafunc.parametrize("page, explorable", pairs, ids=ids, indirect=["page"], scope="module")
    elif "built_scene" in metafunc.fixturenames:  # none is none: skipped
        pairs = built_figures(SCENE)
        ids = [f"{page}:{name}" for page, name in pairs]
        metafunc.parametrize("page, built_scene", pairs, ids=ids, indirect=["page"], scope="module")
    elif "page" in metafunc.fixturenames:
        pages = built_pages() or ["book/intro.html"]
        if metafunc.module.__name__.endswith("test_browser"):
            # Listings of source code are all alike: one is opened in the browser for all.
            listings = [page for page in pages if page.startswith("_modules/lossbook/")]
            pages = sorted({*pages} - {*listings[1:]})
        metafunc.parametrize("page", pages, ids=pages, indirect=True, scope="module")


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built book, every page of it newer than everything it was built from."""
    pages = [SITE / page for page in built_pages()]
    if not pages or not (SITE / "searchindex.js").exists():  # Sphinx writes it last
        pytest.fail("the book is not built: run `make book` first", pytrace=False)
    found = {file for pattern in SOURCES for file in ROOT.glob(pattern) if file.is_file()}
    # A tool's cache (.ruff_cache, .ipynb_checkpoints) is no source.
    sources = [f for f in found if not any(p.startswith(".") for p in f.relative_to(ROOT).parts)]
    oldest = min(pages, key=modified)
    newest = max((file for file in sources if file.suffix != ".pyc"), key=modified)
    if modified(oldest) < modified(newest):
        page, source = oldest.relative_to(SITE), newest.relative_to(ROOT)
        pytest.fail(f"{page} is older than {source}: run `make book` again", pytrace=False)
    return SITE


def modified(file: Path) -> float:
    return file.stat().st_mtime


@pytest.fixture(scope="session")
def pages(site: Path) -> list[Path]:
    return [site / page for page in built_pages()]


@pytest.fixture(scope="session")
def explorable_names(site: Path) -> list[str]:
    return [name for _, name in built_figures(CURVES)]


@pytest.fixture(scope="session")
def scene_names(site: Path) -> list[str]:
    return [name for _, name in built_figures(SCENE)]


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest, site: Path) -> Path:
    return site / request.param


@pytest.fixture(scope="session")
def vendored() -> None:
    """For tests of a book that serves MathJax and the widget manager itself."""
    if not (ROOT / "_build" / "vendor").exists():
        pytest.skip("built without npm: pages load MathJax and the widget manager from the network")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        message = f"none of {', '.join(BROWSERS)} is installed: no page was opened in a browser"
        (pytest.fail if os.environ.get("LOSSBOOK_REQUIRE_BROWSER") else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
        yield browser
        browser.close()
