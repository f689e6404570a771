"""Fetch the browser files that the book serves itself, by name and version from the npm registry.

Mathematics and widgets then work without a network. Without npm the book still builds: it says so in one
line, and its pages load these files from a public server instead.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[2] / "_build" / "vendor"

#: Package and version, and which of its paths the pages need.
PACKAGES = {
    "mathjax@3.2.2": (
        "es5/tex-mml-chtml.js",
        "es5/input/tex/extensions",
        "es5/output/chtml/fonts/woff-v2",
    ),
    "@jupyter-widgets/html-manager@1.0.15": ("dist/embed.js",),
}


def needed(member: str, wanted: tuple[str, ...]) -> bool:
    path = member.removeprefix("package/")
    return any(path == place or path.startswith(f"{place}/") for place in wanted)


def fetch(package: str, wanted: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            members = [m for m in archive if m.isfile() and needed(m.name, wanted)]
            archive.extractall(folder, members, filter="data")
        name = package.rpartition("@")[0].rpartition("/")[2]
        shutil.rmtree(VENDOR / name, ignore_errors=True)
        shutil.copytree(Path(folder) / "package", VENDOR / name)


def main() -> None:
    stamp = VENDOR / "packages.txt"
    if stamp.exists() and stamp.read_text() == repr(PACKAGES):
        return
    try:
        for package, wanted in PACKAGES.items():
            fetch(package, wanted)
    except (OSError, subprocess.CalledProcessError):
        print(
            "npm could not fetch MathJax and the widget manager: pages will load them from the network"
        )
        shutil.rmtree(VENDOR, ignore_errors=True)
    else:
        stamp.write_text(repr(PACKAGES))


if __name__ == "__main__":
    main()
