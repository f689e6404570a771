"""Grade a folder of submissions, each by itself, into tables and a feedback page each.

    make grade DIR=submissions            with submissions/<student>/<assignment>.ipynb

Written beside them: ``grades.csv`` (a row a submission), ``checks.csv`` (a row a check), ``by_hand.csv`` (the
answers that a person grades: fill in the points and run again) and ``feedback/<student>-<assignment>.html``.

A submission runs in a process of its own with limits of time and memory and, where the system allows it,
without a network. Only the student's answers are taken from it: the checks are the source's own, and what the
answers replaced in the functions that checks use is put back before each. Whatever cannot be graded is
reported and given no points, never silently zero.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import itertools
import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import assignments
import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

HERE = Path(__file__).parent
SUBMISSION_TIMEOUT = 600  # seconds, of the clock
MEMORY = 12 * 2**30  # bytes of address space; torch alone reserves several GB
PROCESSES = 2
GUARD = "guard"
HIDDEN = re.compile("### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", re.DOTALL)

GRADED, LOOK, BY_HAND = "graded", "needs a look", "waits for grading by hand"
GRADES = ("student", "assignment", "points", "maximum", "status", "remarks")
CHECKS = ("student", "assignment", "check", "points", "maximum", "message")
HAND = ("student", "assignment", "task", "maximum", "points", "answer")


# --- The notebook that is graded: our checks, the student's answers


def role(cell: NotebookNode) -> Mapping[str, Any]:
    """nbgrader's note on a cell; empty for one that the student added."""
    return cell.metadata.get("nbgrader", {}) if isinstance(cell.metadata, dict) else {}


def key(cell: NotebookNode) -> str:
    return str(role(cell).get("grade_id", ""))


def restored(submission: NotebookNode, release: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """The released notebook with the student's answers in it, and what was wrong with the submission.

    Cells that the student added stay behind the cell of the release that they follow.
    """
    remarks: list[str] = []
    ours = {key(cell): cell for cell in release.cells if key(cell)}
    cells = list(submission.cells)
    if lost := not any(key(cell) in ours for cell in cells):
        remarks.append("the cells have lost their metadata; answers were recognized by their text")
        cells = recognized(cells, release)

    answers: dict[str, NotebookNode] = {}
    added: dict[str, list[NotebookNode]] = {"": []}
    last = ""
    for cell in cells:
        name = key(cell)
        if name not in ours:
            cell.metadata.pop("nbgrader", None)
            added.setdefault(last, []).append(cell)
        elif name not in answers:
            last = name
            answers[name] = cell
        elif cell.source.strip() != answers[name].source.strip():
            remarks.append(f"cell {name!r} occurs twice and differs; the first was graded")
    for name, cell in ours.items():
        if name not in answers and (role(cell)["solution"] or (role(cell)["grade"] and not lost)):
            remarks.append(f"cell {name!r} is missing")

    result = nbformat.v4.new_notebook(metadata=release.metadata)
    result.cells += added[""]
    for cell in release.cells:
        if not key(cell):
            continue  # words and set-up of the release, which the student still has
        given = answers.get(key(cell))
        if (
            given is not None
            and role(cell)["locked"]
            and given.source.strip() != cell.source.strip()
        ):
            remarks.append(f"the check {key(cell)!r} was edited; the original was used")
        taken = nbformat.from_dict(dict(cell))
        if given is not None and role(cell)["solution"]:
            taken.source = given.source
        result.cells += [taken, *added.get(key(cell), [])]
    for number, cell in enumerate(result.cells):
        cell.id = f"cell-{number}"
    return result, remarks


def recognized(cells: Sequence[NotebookNode], release: NotebookNode) -> list[NotebookNode]:
    """Cells without metadata, with that of the released cells which they seem to be.

    A cell of the release is known by its text; an answer by the first name that it defines, or by standing
    behind the words that ask for it.
    """
    by_text = {cell.source.strip(): cell for cell in release.cells if not role(cell)["solution"]}
    asked_by, defines = {}, {}
    for before, cell in itertools.pairwise(release.cells):
        if role(cell)["solution"]:
            asked_by[before.source.strip()] = cell
            defines[first_definition(cell)] = cell
    before = ""
    for cell in cells:
        text = cell.source.strip()
        original = by_text.get(text) or defines.get(first_definition(cell)) or asked_by.get(before)
        if original is not None:
            cell.metadata["nbgrader"] = dict(role(original))
        before = text
    return list(cells)


def first_definition(cell: NotebookNode) -> str:
    """The first function or class that a cell defines; none is like that of another cell."""
    found = re.search(r"^(?:def|class) \w+", cell.source, re.MULTILINE)
    return found[0] if found else f"nothing in {id(cell)}"


def guarded(notebook: NotebookNode, name: str) -> NotebookNode:
    """The notebook with a guard at its start and before every check."""

    def guard(source: str) -> NotebookNode:
        return nbformat.v4.new_code_cell(source, metadata={"tags": [GUARD]})

    module = f"__import__('sys').modules[{name!r}]"
    first = (
        f"import sys as _sys, types as _types\n"
        f"_sys.modules[{name!r}] = _types.ModuleType({name!r})\n"
        f"_sys.modules[{name!r}].get_ipython = get_ipython\n"
        f"exec({(HERE / 'guard.py').read_text()!r}, vars(_sys.modules[{name!r}]))\n"
        f"_sys.modules[{name!r}].before = _sys.modules[{name!r}].take({name!r})\n"
        f"del _sys, _types"
    )
    cells = [guard(first)]
    for cell in notebook.cells:
        if role(cell).get("grade") and cell.cell_type == "code":
            cells.append(guard(f"{module}.restore({module}.before)"))
        cells.append(cell)
    notebook.cells = cells
    return notebook


# --- One submission, in a process of its own


def grade_one(
    file: Path,
    student: str,
    name: str,
    template: Path,
    folder: Path,
    timeout: int,
    by_hand: Mapping[str, float],
) -> dict[str, Any]:
    """Grade one notebook in a copy of the course, which is made in `folder`.

    The points that a person has given, by the name of the answer's cell, stand on the feedback page.
    """
    shutil.copytree(template, folder, dirs_exist_ok=True)
    try:
        submission = nbformat.read(file, as_version=4)
    except Exception as error:  # whatever is wrong with a student's file, it is reported
        return {"remarks": [f"no readable notebook: {type(error).__name__}"], "checks": []}
    release = nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
    notebook, remarks = restored(submission, release)
    secret = f"guard_{secrets.token_hex(8)}"
    inside = folder / "submitted" / student / name / f"{name}.ipynb"
    inside.parent.mkdir(parents=True)
    nbformat.write(guarded(notebook, secret), inside)

    course = assignments.course(folder, timeout)
    result = course.autograde(name, student, force=True)
    if not result["success"]:
        reason = (result.get("log") or result["error"]).strip().splitlines()[-1]
        return {"remarks": [*remarks, f"could not be run: {reason}"], "checks": []}

    graded = folder / "autograded" / student / name / f"{name}.ipynb"
    executed = nbformat.read(graded, as_version=4)
    doubtful, more = inspected(executed, secret, timeout)
    executed.cells = [c for c in executed.cells if GUARD not in c.metadata.get("tags", [])]
    nbformat.write(for_the_student(executed), graded)
    with course.gradebook as gradebook:
        for part in gradebook.find_submission(name, student).notebooks:
            for grade in part.grades:
                grade.manual_score = 0.0 if grade.name in doubtful else by_hand.get(grade.name)
        gradebook.db.commit()
    feedback = course.generate_feedback(name, student, force=True)
    if not feedback["success"]:
        more.append("no feedback page could be made")
    return {
        "remarks": [*remarks, *more],
        "checks": list(checks(course, student, name, executed, doubtful)),
    }


def for_the_student(notebook: NotebookNode) -> NotebookNode:
    """The executed notebook without hidden checks, and with what a check says in place of its traceback."""
    result = nbformat.reads(nbformat.writes(notebook), as_version=4)
    for cell in result.cells:
        if role(cell).get("grade") and cell.cell_type == "code":
            cell.source = HIDDEN.sub("# further checks, which are not shown", cell.source)
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [message(output)]
    return result


def inspected(notebook: NotebookNode, secret: str, timeout: int) -> tuple[set[str], list[str]]:
    """The checks that may not have been ours when they ran, and what was seen."""
    doubtful: set[str] = set()
    remarks: list[str] = []
    replaced: set[str] = set()
    for before, cell in itertools.pairwise(notebook.cells):
        if GUARD in before.metadata.get("tags", []) and role(cell).get("grade"):
            said = "".join(output.get("text", "") for output in before.outputs).split()
            replaced |= set(said) - {secret}
            if secret not in said:
                doubtful.add(key(cell))
                remarks.append(f"the guard before {key(cell)!r} did not run: no points for it")
    if replaced:
        remarks.append(f"functions that checks use were replaced: {', '.join(sorted(replaced))}")
    for cell in notebook.cells:
        if any(output.get("ename") == "KeyboardInterrupt" for output in cell.get("outputs", [])):
            whose = repr(key(cell)) if key(cell) else "added by the student"
            remarks.append(f"cell {whose} was stopped after {timeout} s")
    return doubtful, remarks


def checks(
    course: Any, student: str, name: str, notebook: NotebookNode, doubtful: set[str]
) -> Iterator[dict[str, Any]]:
    """Every graded cell with its points, and what it says where points are lost."""
    cells = {key(cell): cell for cell in notebook.cells if key(cell)}
    with course.gradebook as gradebook:
        for part in gradebook.find_submission(name, student).notebooks:
            for grade in part.grades:
                cell = cells.get(grade.name)
                by_hand = cell is not None and role(cell).get("solution", False)
                errors = [o for o in (cell or {}).get("outputs", []) if o.output_type == "error"]
                yield {
                    "check": grade.name,
                    "points": None if by_hand else 0.0 if grade.name in doubtful else grade.score,
                    "maximum": grade.max_score,
                    "message": message(errors[0]) if errors else "",
                    "answer": cell.source if cell is not None and by_hand else None,
                }


def message(error: NotebookNode) -> str:
    """What a check said, in one line."""
    if error.ename == "NotImplementedError" and not error.evalue:
        return "no answer: the line that raises NotImplementedError is still there"
    return f"{error.ename}: {error.evalue}"


def limit_resources() -> None:
    """For the child: no more memory than allowed, a group of its own, no core files."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def loopback() -> None:
    """Switches on the loopback interface of a process without a network: the kernel is spoken to over it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh", b"lo", 0x1)  # IFF_UP
        with contextlib.suppress(PermissionError):  # with a network it is up already, and not ours
            fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS


def without_network() -> list[str]:
    """The command that takes the network away from what follows it, where the system allows it."""
    command = ["unshare", "--map-root-user", "--net"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    return command if allowed else []


def run_one(
    file: Path,
    student: str,
    name: str,
    template: Path,
    out: Path,
    timeout: int,
    by_hand: Mapping[str, float],
) -> dict[str, Any]:
    """Grade a submission in a child process; whatever becomes of that, there is a result."""
    with tempfile.TemporaryDirectory() as temporary:
        answer = Path(temporary) / "result.json"
        hand = json.dumps(by_hand)
        values = (file, student, name, template, temporary, timeout, hand, answer)
        arguments = [str(value) for value in values]
        child = subprocess.Popen(
            [*without_network(), sys.executable, __file__, "--one", *arguments],
            preexec_fn=limit_resources,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, error = child.communicate(timeout=SUBMISSION_TIMEOUT)
        except subprocess.TimeoutExpired:
            error = f"stopped after {SUBMISSION_TIMEOUT} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # a kernel may have outlived it
            child.wait()
        page = Path(temporary) / "feedback" / student / name / f"{name}.html"
        if page.exists():
            shutil.copy(page, out / "feedback" / f"{student}-{name}.html")
        if answer.exists():
            return dict(json.loads(answer.read_text()))
        reason = (error.strip().splitlines() or ["no reason given"])[-1]
        return {"remarks": [f"could not be graded: {reason}"], "checks": []}


# --- The whole folder


def submissions(folder: Path) -> list[tuple[Path, str, str]]:
    """Every notebook under the folder with the student and the assignment that its place says."""
    found = []
    for file in sorted(folder.rglob("*.ipynb")):
        place = file.relative_to(folder).parts
        if ".ipynb_checkpoints" not in place:
            found.append((file, place[0] if len(place) > 1 else file.stem, file.stem))
    return found


def grade(folder: Path, timeout: int = assignments.CELL_TIMEOUT) -> list[dict[str, Any]]:
    """Grade all submissions of a folder; gives the rows of its ``grades.csv``."""
    (folder / "feedback").mkdir(exist_ok=True)
    by_hand, before = points_by_hand(folder / "by_hand.csv"), _read(folder / "by_hand.csv")
    known = assignments.names()
    with tempfile.TemporaryDirectory() as temporary:
        template = Path(temporary)
        assignments.prepare(template)
        found = submissions(folder)

        def result(one: tuple[Path, str, str]) -> dict[str, Any]:
            if one[2] not in known:
                names = ", ".join(known)
                return {"remarks": [f"no assignment of this name: there are {names}"], "checks": []}
            given = {task: points for (*who, task), points in by_hand.items() if who == [*one[1:]]}
            return run_one(*one, template, folder, timeout, given)

        with ThreadPoolExecutor(PROCESSES) as pool:
            results = list(tqdm(pool.map(result, found), total=len(found), desc="grading"))

    grades, details, hand = [], [], []
    for (_, student, name), one in zip(found, results, strict=True):
        whose = {"student": student, "assignment": name}
        waiting = False
        for check in one["checks"]:
            if check["points"] is None:
                given = by_hand.get((student, name, check["check"]))
                hand.append({**whose, "task": check["check"], **check, "points": given})
                check["points"] = given
                waiting = waiting or given is None
            details.append({**whose, **check})
        status = LOOK if one["remarks"] else BY_HAND if waiting else GRADED
        points = sum(c["points"] or 0 for c in one["checks"]) if one["checks"] else ""
        maximum = sum(c["maximum"] for c in one["checks"]) if one["checks"] else ""
        remarks = "; ".join(one["remarks"])
        grades.append(
            {**whose, "points": points, "maximum": maximum, "status": status, "remarks": remarks}
        )
    _write(folder / "grades.csv", GRADES, grades)
    _write(folder / "checks.csv", CHECKS, details)
    # What a person wrote is never thrown away, even if a submission is gone or could not be run this time.
    now = {tuple(row[column] for column in HAND[:3]) for row in hand}
    hand += [row for row in before if tuple(row[column] for column in HAND[:3]) not in now]
    _write(folder / "by_hand.csv", HAND, hand)
    return grades


def points_by_hand(file: Path) -> dict[tuple[str, ...], float]:
    """The points that a person has filled in, by student, assignment and task; at most the maximum.

    Raises:
        ValueError: points are no number of at least 0; the message names the row.
    """
    given = {}
    for row in _read(file):
        who = tuple(row[column] for column in HAND[:3])
        if not row["points"]:
            continue
        try:
            points = float(row["points"].replace(",", "."))
        except ValueError:
            points = -1
        if not points >= 0:
            raise ValueError(f"{file}: points of {', '.join(who)} are no number: {row['points']!r}")
        given[who] = min(points, float(row["maximum"]))
    return given


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="holds <student>/<assignment>.ipynb")
    parser.add_argument("--one", nargs=8, metavar="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        file, student, name, template, folder, timeout, hand, answer = options.one
        loopback()
        paths = Path(template), Path(folder)
        found = grade_one(Path(file), student, name, *paths, int(timeout), json.loads(hand))
        Path(answer).write_text(json.dumps(found))
        return 0
    if options.folder is None or not options.folder.is_dir():
        parser.error(f"DIR must be a folder of submissions, got {options.folder}")
    grades = grade(options.folder)
    counts = {
        status: sum(g["status"] == status for g in grades) for status in (GRADED, BY_HAND, LOOK)
    }
    print(", ".join(f"{number} {status}" for status, number in counts.items()))
    print(f"written to {options.folder}: grades.csv, checks.csv, by_hand.csv, feedback/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
