"""The atlas, the bibliography, the package and the notebooks tell one story."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from pybtex.database import BibliographyData, Entry, parse_file, parse_string

from lossbook.lab import claims, papers
from lossbook.lab.papers import ROLES, VERDICTS, Paper

ROOT = Path(__file__).parents[2]
ATLAS = papers.read(ROOT / "data" / "papers.yml")
BIBLIOGRAPHY = parse_file(str(ROOT / "book" / "references.bib"))

CHAPTERS = [
    (part, chapter)
    for part, chapters in {
        "classification": "surrogates cross_entropy softmax calibration",
        "supervision": "imbalance noisy_labels multilabel weak_supervision discovery",
        "representation": "margin_softmax metric_learning contrastive pairs multimodal "
        "noncontrastive hypersphere neural_collapse open_set",
        "structured": "regression segmentation detection transport ranking",
        "generation": "generative preference distillation",
        "optimization": "landscape sharpness dynamics numerics robustness multitask scaling",
        "deployment": "distribution_shift adaptation case_studies",
    }.items()
    for chapter in chapters.split()
]
UNMEASURED = ("planned", "no toy experiment")


# --- the atlas


def test_there_are_365_papers_in_36_chapters() -> None:
    assert len(ATLAS) == 365
    assert len({paper.id for paper in ATLAS.values()}) == 365
    assert {(paper.part, paper.chapter) for paper in ATLAS.values()} == set(CHAPTERS)


def test_papers_stand_in_the_order_of_the_book() -> None:
    places = [(CHAPTERS.index((p.part, p.chapter)), p.id) for p in ATLAS.values()]
    assert places == sorted(places)


@pytest.mark.parametrize("paper", ATLAS.values(), ids=ATLAS)
def test_every_row_is_well_formed(paper: Paper) -> None:
    assert re.fullmatch(r"S\d{3}", paper.id)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", paper.key)
    assert paper.title == paper.title.strip() != ""
    assert re.fullmatch(r"[A-Z0-9'].{20,}\.", paper.claim), "a claim is one sentence"
    assert len(set(paper.also)) == len(paper.also)
    assert set(paper.also) <= {chapter for _, chapter in CHAPTERS} - {paper.chapter}
    assert paper.code is None or re.fullmatch(r"[\w.-]+/[\w.-]+", paper.code)


@pytest.mark.parametrize("path", sorted({path for p in ATLAS.values() for path in p.functions}))
def test_every_function_of_the_atlas_imports(path: str) -> None:
    module, name = path.rsplit(".", 1)
    assert hasattr(import_module(module), name)


# --- the loader


ROW = "{id: S001, key: a, title: T, part: p, chapter: c, role: loss, claim: C., verdict: planned}"


def test_load_finds_the_atlas_of_the_checkout_once() -> None:
    assert papers.load() == ATLAS
    assert papers.load() is papers.load()


def test_load_prefers_the_copy_an_installed_package_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "site-packages" / "lossbook" / "lab" / "papers.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(papers, "__file__", str(module))
    with pytest.raises(FileNotFoundError, match=r"papers\.yml is neither in"):
        papers.load.__wrapped__()
    module.with_name("papers.yml").write_text(f"- {ROW}")
    assert list(papers.load.__wrapped__()) == ["a"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"- {ROW}\n- {ROW}", "two papers have the key 'a'"),
        (f"- {ROW}".replace("planned", "true-ish"), "a: verdict is 'true-ish', expected one of"),
        (f"- {ROW}".replace("loss", "poem"), "a: role is 'poem', expected one of loss, method"),
        (f"- {ROW}".replace("claim: C., ", ""), "row S001: .*claim"),
        (f"- {ROW}".replace("key:", "name: n, key:"), "row S001: .*name"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "papers.yml").write_text(rows)
    with pytest.raises(ValueError, match=message):
        papers.read(tmp_path / "papers.yml")


def test_a_paper_is_frozen_and_its_lists_are_tuples() -> None:
    paper = ATLAS["leng2022polyloss"]
    assert isinstance(paper.functions, tuple) and isinstance(paper.also, tuple)
    with pytest.raises(AttributeError):
        paper.verdict = "reproduced"  # type: ignore[misc]
    assert {p.role for p in ATLAS.values()} == set(ROLES)
    assert {p.verdict for p in ATLAS.values()} <= set(VERDICTS)


# --- the bibliography


def plain(latex: str) -> str:
    return re.sub(r"[{}\\]", "", latex)


def letters(name: str) -> str:
    name = name.translate(str.maketrans({"ø": "o", "Ø": "o", "ł": "l", "ß": "ss", "ı": "i"}))
    ascii_name = unicodedata.normalize("NFKD", plain(name)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]", "", ascii_name.lower())


def faults(key: str, entry: Entry) -> Iterable[str]:
    """What is wrong with one entry of the bibliography."""
    fields, authors = entry.fields, entry.persons.get("author", [])
    if authors:
        first = authors[0]
        family = letters("".join(first.prelast_names + first.last_names))
        if not re.fullmatch(rf"{family}\d{{4}}[a-z0-9]+", key):
            yield f"the key does not say {family}, year, word"
        if any(not person.last_names for person in authors):
            yield "an author has no family name"
    elif "not verified" not in fields.get("note", ""):
        yield "no authors, and no note that says why"
    if re.search("anon|unknown", key):
        yield "placeholder key"
    if "year" not in fields and authors:
        yield "no year"
    year = int(fields.get("year", 2000))
    if not 1900 <= year <= 2026:
        yield "implausible year"
    if "eprint" in fields:
        posted = re.fullmatch(r"(\d\d)(0[1-9]|1[0-2])\.\d{4,5}", fields["eprint"])
        if not posted:
            yield "eprint is no arXiv number"
        elif not -1 <= year - 2000 - int(posted[1]) <= 6:
            yield "the year does not fit the arXiv number"
        if fields.get("archivePrefix") != "arXiv" or not fields["url"].endswith(fields["eprint"]):
            yield "eprint, archivePrefix and url do not belong together"
    if entry.type == "article" and "journal" not in fields:
        yield "an article without a journal"
    if entry.type == "inproceedings" and "booktitle" not in fields:
        yield "a conference paper without a booktitle"
    if re.search(r"(?<!\\)[&%_#$]", fields["title"]):
        yield "the title is not LaTeX-safe"


@pytest.mark.parametrize("key", BIBLIOGRAPHY.entries)
def test_every_entry_is_sound(key: str) -> None:
    assert list(faults(key, BIBLIOGRAPHY.entries[key])) == []


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("@misc{roe2020loss, author={Doe, J}, title={T}, year=2020}", "key does not say doe"),
        ("@misc{loss, title={T}, year=2020}", "no authors, and no note"),
        ("@misc{anon2020loss, title={T}, note={authors not verified}}", "placeholder key"),
        ("@misc{doe2020loss, author={Doe, J}, title={T}}", "no year"),
        ("@misc{doe2020loss, author={Doe, J}, title={T}, year=3020}", "implausible year"),
        (
            "@misc{doe2020loss, author={Doe, J}, title={T}, year=2020, eprint={2301.00001},"
            " archivePrefix={arXiv}, url={https://arxiv.org/abs/2301.00001}}",
            "does not fit the arXiv number",
        ),
        (
            "@misc{doe2020loss, author={Doe, J}, title={T}, year=2020, eprint={2001.00001},"
            " archivePrefix={arXiv}, url={https://arxiv.org/abs/2001.00002}}",
            "do not belong together",
        ),
        ("@article{doe2020loss, author={Doe, J}, title={T}, year=2020}", "without a journal"),
        ("@misc{doe2020loss, author={Doe, J}, title={A & B}, year=2020}", "not LaTeX-safe"),
    ],
)
def test_a_faulty_entry_is_seen(entry: str, fault: str) -> None:
    [(key, parsed)] = parse_string(entry, "bibtex").entries.items()
    assert fault in "; ".join(faults(key, parsed))


def test_atlas_and_bibliography_agree_on_every_paper() -> None:
    titles = {key: plain(entry.fields["title"]) for key, entry in BIBLIOGRAPHY.entries.items()}
    assert {key: paper.title for key, paper in ATLAS.items()}.items() <= titles.items()


def repeated(bibliography: BibliographyData) -> set[str]:
    """Titles, arXiv numbers and DOIs that more than one entry has."""
    entries = [entry.fields for entry in bibliography.entries.values()]
    marks = [fields[name] for fields in entries for name in ("eprint", "doi") if name in fields]
    count = Counter([letters(fields["title"]) for fields in entries] + marks)
    return {mark for mark, times in count.items() if times > 1}


def test_no_work_is_listed_twice() -> None:
    assert repeated(BIBLIOGRAPHY) == set()
    titles = "@misc{a, title={One {L}oss}, doi={1}} @misc{b, title={One loss}, doi={2}}"
    assert repeated(parse_string(titles, "bibtex")) == {"oneloss"}
    numbers = "@misc{a, title={A}, eprint={2001.1}} @misc{b, title={B}, eprint={2001.1}}"
    assert repeated(parse_string(numbers, "bibtex")) == {"2001.1"}


def test_the_papers_are_sorted_and_the_other_works_follow() -> None:
    keys = list(BIBLIOGRAPHY.entries)
    assert keys == sorted(ATLAS) + sorted(set(keys) - set(ATLAS))


# --- the notebooks


def chapter_of(notebook: Path) -> tuple[str, str]:
    """``chapters/part/chapter.ipynb`` and ``chapters/part/chapter/any.ipynb`` -> part, chapter."""
    part, chapter = notebook.relative_to(ROOT / "chapters").parts[:2]
    return part, Path(chapter).stem


def disagreements(
    atlas: Mapping[str, Paper], records: Mapping[tuple[str, str], set[str]]
) -> Iterable[str]:
    """Where the verdicts of the atlas and the keys recorded in each chapter differ."""
    for key, paper in atlas.items():
        home = (paper.part, paper.chapter)
        if paper.verdict not in UNMEASURED and key not in records.get(home, set()):
            yield f"{key} is '{paper.verdict}' but {'/'.join(home)} records no claim for it"
    for home, keys in records.items():
        for key in sorted(keys):
            if key not in atlas:
                yield f"{'/'.join(home)} records {key}, which is not in the atlas"
            elif (atlas[key].part, atlas[key].chapter) != home:
                yield f"{'/'.join(home)} records {key}, which belongs to {atlas[key].chapter}"
            elif atlas[key].verdict in UNMEASURED:
                yield f"{'/'.join(home)} records {key}, whose verdict is '{atlas[key].verdict}'"


def test_atlas_and_notebooks_agree_on_what_was_measured() -> None:
    records: dict[tuple[str, str], set[str]] = {}
    for notebook in (ROOT / "chapters").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in notebook.parts:
            records.setdefault(chapter_of(notebook), set()).update(claims.recorded_in(notebook))
    assert list(disagreements(ATLAS, records)) == []


def test_chapters_are_recognized_as_a_file_and_as_a_folder() -> None:
    chapters = ROOT / "chapters"
    assert chapter_of(chapters / "part" / "chapter.ipynb") == ("part", "chapter")
    assert chapter_of(chapters / "part" / "chapter" / "one.ipynb") == ("part", "chapter")


def test_only_code_cells_record_claims(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ['claims.record("prose")']},
        {"cell_type": "code", "source": ["claims.record(\n", '    "key2020word", x)\n']},
        {"cell_type": "code", "source": "claims.record('b')"},
    ]
    (tmp_path / "chapter.ipynb").write_text(json.dumps({"cells": cells}))
    assert claims.recorded_in(tmp_path / "chapter.ipynb") == {"key2020word", "b"}


def test_every_disagreement_is_seen() -> None:
    planned = ATLAS["leng2022polyloss"]
    home = (planned.part, planned.chapter)
    atlas = {"a": replace(planned, verdict="reproduced"), "b": replace(planned, verdict="planned")}
    assert list(disagreements(atlas, {home: {"a"}})) == []
    for records, message in [
        ({}, "a is 'reproduced' but classification/cross_entropy records no claim for it"),
        ({home: {"a", "b"}}, "records b, whose verdict is 'planned'"),
        ({home: {"a", "x"}}, "records x, which is not in the atlas"),
        ({home: {"a"}, ("generation", "preference"): {"a"}}, "which belongs to cross_entropy"),
    ]:
        (found,) = disagreements(atlas, records)
        assert message in found
