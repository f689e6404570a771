"""The repository's shape: what stands where, said once, and in agreement with itself."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

import lossbook
from lossbook.lab import papers

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOP = {
    *("book", "chapters", "lossbook", "data", "tests"),
    *("README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "environment.yml", "Makefile"),
    *("_config.yml", "_toc.yml", ".ci", ".gitignore"),
}


@cache
def tracked() -> dict[str, str]:
    """Every text file that git tracks, or would with ``git add``: its path and its text."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            texts[name] = (ROOT / name).read_text(encoding="utf-8", errors="ignore")
    return texts


def where(pattern: str) -> dict[str, list[str]]:
    """The tracked files that match a pattern, with what matched."""
    found = {name: re.findall(pattern, text) for name, text in tracked().items()}
    return {name: matches for name, matches in found.items() if matches}


# --- said once


def test_the_public_address_stands_in_one_place() -> None:
    address = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", address)
    found = where(rf"(?<![\w.-]){re.escape(address)}(?![\w-])")
    assert {name for name in found if not name.startswith("book/colab/")} == {"pyproject.toml"}


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    places = "|".join(["home", "root", "tmp", "work"])
    assert where(rf"(?<![\w.~$}}-])/(?:{places})/[\w.-]*") == {}


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert lossbook.__version__ == PROJECT["version"] == citation["version"]


# --- the rooms


def test_the_top_level_holds_what_was_agreed() -> None:
    assert {name.split("/")[0] for name in tracked()} == TOP


def test_the_table_of_contents_and_the_files_agree() -> None:
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
    assert sorted(set(listed)) == sorted(listed)
    pages = r"(?:book/(?!tools/|assignments/|colab/)|chapters/).*\.(?:md|ipynb)$"
    written = [name for name in tracked() if re.match(pages, name)]
    generated = [
        f"book/{name}" for name in ("atlas", "claims", "contracts/index", "explorer", "performance")
    ]
    assert sorted(listed) == sorted([re.sub(r"\.\w+$", "", n) for n in written] + generated)


def test_chapters_and_papers_agree() -> None:
    parts = yaml.safe_load((ROOT / "data" / "chapters.yml").read_text())
    planned = [(part["part"], chapter) for part in parts for chapter in part["chapters"]]
    atlas = [(paper.part, paper.chapter) for paper in papers.load().values()]
    assert list(dict.fromkeys(atlas)) == planned
    for part in parts:
        assert part["title"] and part["question"].endswith("?") and all(part["chapters"].values())


def rooms(tree: str) -> set[tuple[str, str]]:
    """The parts and chapters that a tree has files for."""
    known = {(paper.part, paper.chapter) for paper in papers.load().values()}
    files = [Path(name).with_suffix("").parts[1:3] for name in tracked() if name.startswith(tree)]
    return {(file[0], file[-1].removeprefix("test_")) for file in files} & known


def test_every_chapter_has_its_module_and_every_module_its_test() -> None:
    assert set() != rooms("chapters/") <= rooms("lossbook/") <= rooms("tests/")


# --- the reference


def public_modules() -> list[str]:
    """``lossbook.<part>.<chapter>``, or the modules in a chapter's folder, and ``lossbook.lab.<name>``."""
    module = r"lossbook/\w+/(?:[a-z]\w*/)?[a-z]\w*\.py"
    paths = [Path(name) for name in tracked() if re.fullmatch(module, name)]
    return [".".join(path.with_suffix("").parts) for path in paths]


@pytest.mark.parametrize("module", public_modules())
def test_every_public_module_is_in_the_reference(module: str) -> None:
    pages = where(rf"automodule:: {re.escape(module)}\n")
    assert len(pages) == 1, pages
    (page,) = pages
    assert page.startswith("book/api/")
    assert f"file: {page.removesuffix('.md')}\n" in (ROOT / "_toc.yml").read_text()


# --- the front page


def test_the_readme_gives_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {"make book", "make test"} <= set(re.findall(r"^\$? ?(make \w+)$", readme, re.M))


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name in ("README.md", "book/how_to_use.md", "book/intro.md", ".ci/run"):
        named = re.findall(r"(?:^|`|= ?\w+ )\s*make ([a-z-]+)", tracked()[name], re.M)
        assert set(named) <= targets, name
