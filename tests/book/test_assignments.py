"""The assignments and their graders, tried with right, empty, wrong and hostile submissions.

``submissions/<assignment>/<name>.py`` is a submission: after its head, which says what it loses and what its
student is told, come the cells in which it differs from the right answer, each under ``# %% cell``. A star
loses everything.
"""

from __future__ import annotations

import csv
import re
import sys
import tomllib
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "book" / "tools"))
assignments, grading = import_module("assignments"), import_module("grading")

SUBMISSIONS = Path(__file__).parent / "submissions"
NAMES = assignments.names()
TIMEOUT = 30
SOLUTION = re.compile(r"[ \t]*### (BEGIN|END) SOLUTION\n?")


# --- Submissions


def source(name: str) -> NotebookNode:
    return nbformat.read(assignments.SOURCE / name / f"{name}.ipynb", as_version=4)


def solved(name: str, release: NotebookNode) -> NotebookNode:
    """The student's copy with the right answers."""
    answers = {grading.key(cell): cell.source for cell in source(name).cells}
    notebook = nbformat.from_dict(dict(release))
    notebook.cells = [nbformat.from_dict(dict(cell)) for cell in release.cells]
    for cell in notebook.cells:
        if grading.role(cell).get("solution"):
            cell.source = SOLUTION.sub("", answers[grading.key(cell)])
    return notebook


def head(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^# (loses|says|remark): ?(.*)$", file.read_text(), re.MULTILINE))


def cells_of(file: Path) -> dict[str, str]:
    parts = re.split(r"^# %% ([\w-]+)\n", file.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def students(name: str) -> dict[str, list[Path]]:
    """Who hands in which of an assignment's wrong answers.

    A student may err in several tasks: answers that change different cells and lose different checks are
    handed in together, for each must lose its own checks and no others. Hostile answers come alone.
    """
    found: list[list[Path]] = []
    for file in sorted((SUBMISSIONS / name).glob("*.py")):
        said = head(file)
        alone = "remark" in said or said["loses"] == "*"
        fits = (
            group
            for group in found
            if not alone
            and all("remark" not in head(other) for other in group)
            and not any(cells_of(file).keys() & cells_of(other).keys() for other in group)
            and not any(losses(file) & losses(other) for other in group)
        )
        group = next(fits, None)
        if group is None:
            found.append([file])
        else:
            group.append(file)
    return {f"wrong-{number}": group for number, group in enumerate(found)}


def losses(file: Path) -> set[str]:
    return set(head(file)["loses"].split())


def student_of(name: str, file: Path) -> str:
    return next(student for student, files in students(name).items() if file in files)


def changed(notebook: NotebookNode, file: Path) -> NotebookNode:
    """The notebook with the cells of a submission's file."""
    cells = cells_of(file)
    for cell in notebook.cells:
        cell.source = cells.pop(grading.key(cell), cell.source)
    assert not cells, f"{file} has cells that the assignment does not: {cells}"
    return notebook


def keyed(notebook: NotebookNode, role: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if grading.role(cell).get(role)]


def cells_deleted(notebook: NotebookNode) -> None:
    """The first answer and the check behind it are gone."""
    for cell in (keyed(notebook, "solution")[0], keyed(notebook, "grade")[0]):
        notebook.cells.remove(cell)


def metadata_lost(notebook: NotebookNode) -> None:
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"new-{number}"


def cell_duplicated(notebook: NotebookNode) -> None:
    """A wrong second answer beside the right first one."""
    first = keyed(notebook, "solution")[0]
    again = nbformat.from_dict(dict(first))
    again.source, again.id = "raise RuntimeError('an old try')", "again"
    notebook.cells.insert(notebook.cells.index(first) + 1, again)


def checks_edited(notebook: NotebookNode) -> None:
    """No answers, and checks that pass."""
    for cell in keyed(notebook, "solution"):
        cell.source = "nothing = None"
    for cell in keyed(notebook, "grade"):
        if cell.cell_type == "code":
            cell.source = "assert True"


#: Hostile changes of the right answer: what becomes of the points (all, none, or less), and the remark.
HOSTILE: dict[str, tuple[Callable[[NotebookNode], None], str, str]] = {
    "cells_deleted": (cells_deleted, "less", "is missing"),
    "metadata_lost": (metadata_lost, "all", "lost their metadata"),
    "cell_duplicated": (cell_duplicated, "all", "occurs twice"),
    "checks_edited": (checks_edited, "none", "was edited; the original was used"),
}


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All submissions of all assignments, graded in one go."""
    course, folder = (tmp_path_factory.mktemp(name) for name in ("course", "submissions"))
    assignments.prepare(course)
    for name in NAMES:
        release = nbformat.read(course / "release" / name / f"{name}.ipynb", as_version=4)

        def hand_in(student: str, notebook: NotebookNode, name: str = name) -> None:
            file = folder / student / f"{name}.ipynb"
            file.parent.mkdir(exist_ok=True)
            nbformat.write(notebook, file)

        hand_in("right", solved(name, release))
        hand_in("empty", release)
        for student, files in students(name).items():
            hand_in(student, reduce(changed, files, solved(name, release)))
        for student, (change, _, _) in HOSTILE.items():
            notebook = solved(name, release)
            change(notebook)
            hand_in(student, notebook)
    (folder / "garbled").mkdir()
    (folder / "garbled" / f"{NAMES[0]}.ipynb").write_text("no notebook")
    (folder / "right" / "poem.ipynb").write_text(
        (folder / "right" / f"{NAMES[0]}.ipynb").read_text()
    )
    grading.grade(folder, TIMEOUT)

    def read(file: str) -> list[dict[str, str]]:
        with (folder / file).open(newline="") as stream:
            return list(csv.DictReader(stream))

    return {
        "course": course,
        "folder": folder,
        **{f: read(f"{f}.csv") for f in ("grades", "checks", "by_hand")},
    }


def grade_of(graded: dict[str, Any], student: str, name: str) -> dict[str, str]:
    (row,) = (g for g in graded["grades"] if (g["student"], g["assignment"]) == (student, name))
    return row


def checks_of(graded: dict[str, Any], student: str, name: str) -> dict[str, dict[str, str]]:
    rows = (c for c in graded["checks"] if (c["student"], c["assignment"]) == (student, name))
    return {row["check"]: row for row in rows}


def lost(checks: dict[str, dict[str, str]]) -> set[str]:
    """The checks without full points, but for those that a person grades."""
    return {
        name
        for name, row in checks.items()
        if row["points"] != "" and float(row["points"]) < float(row["maximum"])
    }


# --- The graders


@pytest.mark.parametrize("name", NAMES)
def test_the_right_answer_gets_full_marks(graded: dict[str, Any], name: str) -> None:
    row, checks = grade_of(graded, "right", name), checks_of(graded, "right", name)
    assert lost(checks) == set() and row["remarks"] == ""
    assert row["status"] == grading.BY_HAND
    by_hand = [check for check in checks.values() if check["points"] == ""]
    assert by_hand and len(checks) - len(by_hand) >= 8
    assert float(row["points"]) == sum(float(c["maximum"]) for c in checks.values() if c["points"])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_submission_gets_nothing(graded: dict[str, Any], name: str) -> None:
    row = grade_of(graded, "empty", name)
    assert float(row["points"]) == 0 and row["remarks"] == ""
    assert any("no answer" in c["message"] for c in checks_of(graded, "empty", name).values())
    assert float(row["maximum"]) == float(grade_of(graded, "right", name)["maximum"])


@pytest.mark.parametrize("name", NAMES)
def test_a_student_s_copy_runs_on_colab_and_has_no_answers(
    graded: dict[str, Any], name: str
) -> None:
    copy = nbformat.read(graded["course"] / "release" / name / f"{name}.ipynb", as_version=4)
    first = next(cell.source for cell in copy.cells if cell.cell_type == "code")
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert f'%pip install -q "lossbook[lab] @ git+{address}"' in first
    text = "\n".join(cell.source for cell in copy.cells)
    assert not re.search(r"### (BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)", text)
    assert text.count("YOUR CODE HERE") >= 4


WRONG = [(name, file) for name in NAMES for file in sorted((SUBMISSIONS / name).glob("*.py"))]


@pytest.mark.parametrize(("name", "file"), WRONG, ids=[f"{n}-{f.stem}" for n, f in WRONG])
def test_a_wrong_answer_loses_what_it_should_and_is_told_why(
    graded: dict[str, Any], name: str, file: Path
) -> None:
    student = student_of(name, file)
    said, checks = head(file), checks_of(graded, student, name)
    automatic = {check for check, row in checks.items() if row["points"] != ""}
    loses = automatic if said["loses"] == "*" else losses(file)
    others = set().union(*(losses(other) for other in students(name)[student] if other != file))
    assert lost(checks) - others == loses
    assert all(float(checks[check]["points"]) == 0 for check in loses)
    messages = " ".join(checks[check]["message"] for check in loses)
    assert said["says"] in messages, messages
    row = grade_of(graded, student, name)
    assert said.get("remark", "") in row["remarks"]
    assert bool(row["remarks"]) == ("remark" in said)
    assert row["status"] == (grading.LOOK if row["remarks"] else grading.BY_HAND)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("student", HOSTILE)
def test_a_hostile_submission_gains_nothing_and_is_reported(
    graded: dict[str, Any], student: str, name: str
) -> None:
    _, points, remark = HOSTILE[student]
    row, right = grade_of(graded, student, name), grade_of(graded, "right", name)
    full = float(right["points"])
    expected = {"all": (full, full), "none": (0, 0), "less": (0.01, full - 0.01)}[points]
    assert expected[0] <= float(row["points"]) <= expected[1]
    assert row["status"] == grading.LOOK and remark in row["remarks"]


def test_what_cannot_be_read_is_reported_and_stops_nothing(graded: dict[str, Any]) -> None:
    garbled = grade_of(graded, "garbled", NAMES[0])
    assert garbled["points"] == "" and "no readable notebook" in garbled["remarks"]
    poem = grade_of(graded, "right", "poem")
    assert poem["points"] == "" and "no assignment of this name" in poem["remarks"]


@pytest.mark.parametrize("name", NAMES)
def test_every_graded_submission_has_a_feedback_page(graded: dict[str, Any], name: str) -> None:
    for row in graded["grades"]:
        page = graded["folder"] / "feedback" / f"{row['student']}-{row['assignment']}.html"
        assert page.exists() == (row["points"] != "")
    wrong = next(file for n, file in WRONG if n == name)
    page = graded["folder"] / "feedback" / f"{student_of(name, wrong)}-{name}.html"
    assert head(wrong)["says"] in page.read_text()
    assert not re.search("guard_|HIDDEN TESTS", page.read_text())


def test_points_by_hand_are_added_and_kept(graded: dict[str, Any], tmp_path: Path) -> None:
    """Graded once more with one of its two questions filled in, a submission still waits for the other."""
    name = NAMES[0]
    (tmp_path / "right").mkdir()
    notebook = graded["folder"] / "right" / f"{name}.ipynb"
    (tmp_path / "right" / notebook.name).write_text(notebook.read_text())
    own = [r for r in graded["by_hand"] if (r["student"], r["assignment"]) == ("right", name)]
    assert all(row["answer"] and not row["points"] for row in own)
    own[0]["points"] = own[0]["maximum"]
    gone = own[0] | {"student": "gone"}
    grading._write(tmp_path / "by_hand.csv", grading.HAND, [*own, gone])
    (row,) = grading.grade(tmp_path, TIMEOUT)
    assert grading._read(tmp_path / "by_hand.csv")[-1] == gone
    before = float(grade_of(graded, "right", name)["points"])
    assert float(row["points"]) == before + float(own[0]["maximum"])
    assert row["status"] == grading.BY_HAND
    kept = grading._read(tmp_path / "by_hand.csv")[0]["points"]
    assert float(kept) == float(own[0]["maximum"])
    page = (tmp_path / "feedback" / f"right-{name}.html").read_text()
    points = f"{float(own[0]['maximum'])} / {float(own[0]['maximum'])}"
    assert re.search(rf"Written response.{{0,40}}Score: {points}", page, re.DOTALL), page[:3000]


@pytest.mark.parametrize(
    ("points", "kept"), [("", None), ("2", 2.0), ("1,5", 1.5), ("9", 3.0), ("0", 0.0)]
)
def test_points_by_hand_are_numbers_up_to_the_maximum(
    tmp_path: Path, points: str, kept: float | None
) -> None:
    row = {"student": "ada", "assignment": "a", "task": "t", "maximum": "3.0", "points": points}
    grading._write(tmp_path / "by_hand.csv", grading.HAND, [row])
    found = grading.points_by_hand(tmp_path / "by_hand.csv")
    assert found == ({} if kept is None else {("ada", "a", "t"): kept})


@pytest.mark.parametrize("points", ["two", "-1", "nan"])
def test_points_that_are_no_number_are_named(tmp_path: Path, points: str) -> None:
    row = {"student": "ada", "assignment": "a", "task": "t", "maximum": "3.0", "points": points}
    grading._write(tmp_path / "by_hand.csv", grading.HAND, [row])
    with pytest.raises(ValueError, match=f"points of ada, a, t are no number: '{points}'"):
        grading.points_by_hand(tmp_path / "by_hand.csv")


# --- The assignments


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_wrong_answers(name: str) -> None:
    assert sum("remark" not in head(file) for n, file in WRONG if n == name) >= 6
    assert sum("remark" in head(file) for n, file in WRONG if n == name) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_an_assignment_is_well_formed(name: str) -> None:
    cells = source(name).cells
    keys = [grading.key(cell) for cell in cells]
    assert all(keys) and len(set(keys)) == len(keys)
    for cell in cells:
        role = grading.role(cell)
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        assert role["locked"] != role["solution"]
        if role["solution"] and cell.cell_type == "code":
            assert "### BEGIN SOLUTION" in cell.source
        if (
            role["grade"] and cell.cell_type == "code"
        ):  # nothing of the student's namespace but answers
            assert cell.source.startswith(("from lossbook.lab import checks", "import torch\n"))
    words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    tasks = re.findall(r"^## Task \d+ · .+\((★+), (\d+) minutes\)$", words, re.MULTILINE)
    minutes = sum(int(number) for _, number in tasks)
    assert len(tasks) >= 3 and 60 <= minutes <= 120
    assert f"**{minutes} minutes**" in words
    points = sum(grading.role(cell).get("points", 0) for cell in cells)
    assert f"{points:g} points" in words
    by_hand = [c for c in cells if grading.role(c)["grade"] and grading.role(c)["solution"]]
    assert by_hand and all("### BEGIN MARK SCHEME" in cell.source for cell in by_hand)
    hidden = [c for c in cells if "### BEGIN HIDDEN TESTS" in c.source]
    assert len(hidden) >= 4
