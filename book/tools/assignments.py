"""The course's assignments: student copies and solutions, made from one source notebook each.

    python book/tools/assignments.py

writes `_build/assignments/<name>.ipynb` for students, without solutions and hidden checks, and
`_build/assignments/solutions/<name>.ipynb` for instructors. On Colab both install lossbook from its
repository, whose address is put in here.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbgrader.apps import NbGraderAPI
from repository import ROOT, installing_from_repository
from traitlets.config import Config

SOURCE = ROOT / "book" / "assignments" / "source"
RELEASE = ROOT / "_build" / "assignments"
CELL_TIMEOUT = 60  # seconds


def names() -> list[str]:
    """The assignments in alphabetical order."""
    return sorted(folder.name for folder in SOURCE.iterdir() if folder.is_dir())


def course(folder: Path, timeout: int = CELL_TIMEOUT) -> NbGraderAPI:
    """nbgrader's interface to the course in this folder, where a cell may run for `timeout` seconds."""
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.course_id = "lossbook"
    config.Execute.timeout = timeout
    config.Execute.interrupt_on_timeout = True
    api = NbGraderAPI(config=config)
    api.log.setLevel(logging.CRITICAL)  # its complaints come back with the result
    return api


def prepare(folder: Path) -> None:
    """Make a course there: its sources, their student copies in ``release``, and the gradebook of both.

    Raises:
        RuntimeError: nbgrader refuses a source; the message is its log.
    """
    shutil.copytree(SOURCE, folder / "source", dirs_exist_ok=True)
    for name in names():
        file = folder / "source" / name / f"{name}.ipynb"
        notebook = nbformat.read(file, as_version=4)
        set_up = next(cell for cell in notebook.cells if cell.cell_type == "code")
        set_up.source = installing_from_repository(set_up.source)
        nbformat.write(notebook, file)
        result = course(folder).generate_assignment(name, force=True)
        if not result["success"]:
            raise RuntimeError(f"{name}: {result.get('log') or result['error']}")


def main() -> None:
    shutil.rmtree(RELEASE, ignore_errors=True)
    (RELEASE / "solutions").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        for name in names():
            file = f"{name}/{name}.ipynb"
            shutil.copy(folder / "release" / file, RELEASE / f"{name}.ipynb")
            shutil.copy(folder / "source" / file, RELEASE / "solutions" / f"{name}.ipynb")
            print(f"{name}: {RELEASE / name}.ipynb")


if __name__ == "__main__":
    main()
