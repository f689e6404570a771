"""Run the chapters' copies as Colab would, each a test with all its cells.

    python book/tools/as_on_colab.py [copy ...]

Each copy lies alone in a folder outside the repository and runs in an environment that has torch, what Colab
preinstalls (colab.txt, in Colab's versions) and lossbook's wheel, nothing else. After its last cell every
slider and menu that it has displayed is moved, and the picture must change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path

import nbformat
from execute import CELL_TIMEOUT, ROOT
from packaging.requirements import Requirement
from sphinx_lossbook import COPIES

INSTALLED = Path(__file__).with_name("colab.txt")
NEWEST = (3, 12)  # Colab's Python; its versions have no wheels for later ones

MOVE_EVERY_CONTROL = """
def _move_every_control():  # a function, for the chapter's own names are in use
    import ipywidgets
    from lossbook.lab import plots

    pictures = []
    plots.show = lambda figure, alt: pictures.append(plots._png(figure))
    kinds = (ipywidgets.SelectionSlider, ipywidgets.Dropdown)
    controls = [w for w in ipywidgets.Widget.widgets.values() if isinstance(w, kinds)]
    assert controls, "no slider was displayed"
    for control in controls:
        start = control.index
        for index in (0 if start else 1, start):
            before = len(pictures)
            control.index = index
            assert len(pictures) == before + 1, f"{control.description}: an error, no picture"
        assert pictures[-1] != pictures[-2], f"{control.description}: the picture does not change"

_move_every_control()
"""


def link(name: str, folder: Path, done: set[str]) -> None:
    """Lend a package of this environment, and what it depends on, to another environment."""
    if name in done:
        return
    done.add(name)
    package = metadata.distribution(name)
    site = Path(str(package.locate_file("")))
    for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        if not (folder / top).exists():
            (folder / top).symlink_to(site / top)
    for requirement in map(Requirement, package.requires or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            link(requirement.name, folder, done)


def environment(folder: Path) -> Path:
    """Make the environment there; gives its Python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    lines = [line for line in INSTALLED.read_text().splitlines() if not line.startswith("#")]
    if sys.version_info[:2] > NEWEST:
        lines = [line.split("==")[0] for line in lines]
    subprocess.run([*pip, "install", "-q", "--no-deps", *lines], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    link("torch", site, set())
    wheels = folder / "wheels"
    make = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels), str(ROOT)]
    subprocess.run(make, check=True)
    subprocess.run([*pip, "install", "-q", "--no-deps", *map(str, wheels.iterdir())], check=True)
    return python


def alone(copy: Path, folder: Path) -> Path:
    """The copy in a folder of its own, with a last cell that moves what it has displayed."""
    notebook = nbformat.read(copy, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(MOVE_EVERY_CONTROL, id="move-every-control"))
    file = folder / copy.stem / copy.name
    file.parent.mkdir(parents=True)
    nbformat.write(notebook, file)
    return file


def main(copies: list[Path]) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = environment(folder / "environment")
        kernel = folder / "share" / "kernels" / "colab" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel.write_text(
            json.dumps({"argv": start, "display_name": "Colab", "language": "python"})
        )
        files = [alone(copy, folder / "notebooks") for copy in copies]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOSSBOOK_", "PYTHON"))}
        # Two notebooks run side by side, so each keeps to one core.
        home = {"HOME": str(folder), "JUPYTER_PATH": str(folder / "share"), "OMP_NUM_THREADS": "1"}
        test = f"-m pytest -q -c {os.devnull} -p no:cacheprovider --nbval-lax --nbval-kernel-name colab"
        pace = f"--nbval-cell-timeout {CELL_TIMEOUT} -n 2 --dist loadfile --no-loadscope-reorder"
        command = [sys.executable, *test.split(), *pace.split(), *map(str, files)]
        return subprocess.run(command, env=kept | home, cwd=folder).returncode


if __name__ == "__main__":
    named = [Path(name).resolve() for name in sys.argv[1:]]
    sys.exit(main(named or sorted((ROOT / COPIES).rglob("*.ipynb"))))
