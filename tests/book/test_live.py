"""Widgets as a person meets them: in JupyterLab a notebook is run, a slider is moved, the picture changes."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).parents[2]
START = 60  # seconds until the server answers
RUN = 900_000  # milliseconds until a chapter has run
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CHAPTER = (
    ROOT / "book/colab/chapters/representation/contrastive/infonce.ipynb"
)  # takes the least time

SET_UP = """
import torch
from lossbook.lab import explore, plots

plots.style()
strength = explore.slider("strength", [0.5, 1, 2, 4], 1)
x = torch.linspace(-3, 3, 61)
"""
CURVE = """
explore.Explorable(
    "toy", "x", x, (explore.Curve("softplus", lambda x, k: torch.nn.functional.softplus(k * x), ("k",)),),
    {"k": strength}, {"value": (-1, 13)}, "A curve that bends at zero",
).live(mine=lambda x, k: torch.relu(k * x))
"""
SCENE = """
explore.scene(
    "ring", controls={"k": strength}, alt="Two points", circle=True,
    points=lambda k: torch.tensor([[k, 0.0], [0.0, 1.0]]), groups=torch.tensor([0, 1]), labels=["a", "b"],
).live()
"""
PLAY = """
def fitted(steps, start):
    w, path = torch.tensor({"left": -2.0, "right": 2.0}[start], requires_grad=True), []
    for _ in range(int(steps)):
        (slope,) = torch.autograd.grad((w - 1) ** 2, w)
        w = (w - 0.1 * slope).detach().requires_grad_()
        path.append(float(w))
    figure, axes = plots.canvas()
    axes.plot(path)
    return figure


explore.play(
    fitted, "A weight on its way",
    steps=explore.slider("steps", [5, 10, 20], 10), start=explore.choice("from", ["left", "right"], "left"),
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves the folder, with the token to open it."""
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.port=0", "--ServerApp.root_dir=" + str(folder)),
        *("--IdentityProvider.token=" + token, "--LabApp.news_url=None"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    environment = {k: v for k, v in os.environ.items() if k != "LOSSBOOK_STATIC"}
    log = folder.parent / "lab.log"
    with log.open("w") as stream:
        server = subprocess.Popen(command, stderr=stream, stdout=stream, env=environment)
    try:
        deadline = time.monotonic() + START
        while not (found := re.search(r"(http://[\w.]+:\d+)/lab", log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"{found[1]}/lab/tree/{{}}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(20)


def run_all(browser: Browser, lab: str, folder: Path, notebook: NotebookNode) -> Page:
    """The notebook in JupyterLab, with all its cells sent to run."""
    nbformat.write(notebook, folder / "notebook.ipynb")
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.goto(lab.format("notebook.ipynb"))
    page.get_by_text("| Idle").wait_for(timeout=RUN)  # in the status bar: the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    return page


def move_everything(page: Page, widget: Locator) -> int:
    """Move each slider by an arrow key and each menu by a choice; the picture must follow every time."""
    picture = widget.locator("svg").last
    picture.wait_for(timeout=RUN)
    widget.scroll_into_view_if_needed()
    handles, menus = widget.locator(".noUi-handle").all(), widget.locator("select").all()
    for control in (*handles, *menus):
        before = picture.inner_html()
        if control in handles:
            at_the_end = control.get_attribute("aria-valuenow") == control.get_attribute(
                "aria-valuemax"
            )
            control.press("ArrowLeft" if at_the_end else "ArrowRight")
        else:
            control.select_option(index=0 if control.evaluate("menu => menu.selectedIndex") else 1)
        for _ in range(RUN // 200):
            if picture.count() and picture.inner_html() != before:
                break
            page.wait_for_timeout(200)
        else:
            pytest.fail("the picture has not changed")
    return len(handles) + len(menus)


def test_every_kind_of_widget_follows_its_controls(
    browser: Browser, lab: str, folder: Path
) -> None:
    cells = [new_code_cell(cell.strip()) for cell in (SET_UP, CURVE, SCENE, PLAY)]
    page = run_all(browser, lab, folder, new_notebook(cells=cells, metadata=KERNEL))
    widgets = page.locator(".jp-Notebook .jp-CodeCell .jp-Cell-outputArea:has(.jupyter-widgets)")
    page.locator(".jp-Notebook select").wait_for(timeout=RUN)  # the last of them
    assert [move_everything(page, widget) for widget in widgets.all()] == [1, 1, 2]
    page.close()


def test_a_chapter_s_own_loss_is_trained_when_a_slider_is_moved(
    browser: Browser, lab: str, folder: Path
) -> None:
    page = run_all(browser, lab, folder, nbformat.read(CHAPTER, as_version=4))
    played = page.locator(".jp-Notebook .jp-CodeCell:has-text('explore.play(') .jp-Cell-outputArea")
    assert move_everything(page, played) >= 2
    assert (
        page.locator(".jp-Notebook [data-mime-type='application/vnd.jupyter.error']").count() == 0
    )
    page.close()
