"""JupyterLab starts from the environment, and notebooks run in it from the menu, as a person would do it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from fakeface.core.files import read_json

PlaywrightTimeout = pytest.importorskip("playwright.sync_api").TimeoutError

NBS = Path(__file__).resolve().parents[2] / "nbs"
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address, seconds=60):
    "Wait until somebody answers."
    deadline = time.time() + seconds
    while time.time() < deadline:
        try:
            return urllib.request.urlopen(address, timeout=1)
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory, root):
    "A copy of the notebooks in a project of its own, served as `make lab` does; gives (project, address)."
    project = tmp_path_factory.mktemp("lab")
    shutil.copytree(root / "nbs", project / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(root / "outputs/bench", project / "outputs/bench")
    shutil.copy(root / "settings.ini", project)
    port = free_port()
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=t", "--allow-root"]
    command = [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={project}"]
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert 'JUPYTER_CONFIG_PATH="$(CURDIR)/.jupyter"' in (root / "Makefile").read_text(encoding="utf-8")
    environment = os.environ | dict(JUPYTER_CONFIG_PATH=str(root / ".jupyter"))
    with subprocess.Popen(command, env=environment, **quiet) as server:
        wait_for(f"http://127.0.0.1:{port}/api?token=t")
        yield project, f"http://127.0.0.1:{port}"
        server.terminate()


def open_notebook(browser, address, notebook):
    "Open a notebook and wait until its kernel is there; gives the page."
    page = browser.new_page(viewport=dict(width=1400, height=1000))
    page.goto(f"{address}/lab/tree/nbs/{notebook}?token=t&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    if page.get_by_role("button", name="Select Kernel").is_visible():
        page.get_by_role("button", name="Select Kernel").click()
    page.get_by_text("| Idle").wait_for(timeout=90_000)
    page.wait_for_timeout(3_000)  # before the kernel is there, "Run All" does nothing
    return page


def run_all(browser, address, notebook):
    "Open a notebook, choose Run All Cells, wait until its kernel is idle again; gives the page."
    page = open_notebook(browser, address, notebook)
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    page.locator(".lm-MenuBar-item").get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    with contextlib.suppress(PlaywrightTimeout):  # a quick notebook is idle again before anybody looks
        page.get_by_text("| Busy").wait_for(timeout=5_000)
    page.get_by_text("| Idle").wait_for(timeout=300_000)
    page.wait_for_timeout(1_000)
    return page


def saved_cells(page, notebook, seconds=120):
    "Save until the file on disk holds a run of every cell; gives its code cells as they are then."
    deadline = time.time() + seconds
    while True:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(2_000)
        cells = [cell for cell in read_json(notebook)["cells"] if cell["cell_type"] == "code"]
        if all(cell["execution_count"] for cell in cells) or time.time() > deadline:
            return cells


def test_a_notebook_opens_saved(lab, browser):
    project, address = lab
    room = "07_metrics/01_intervals.ipynb"
    before = (project / "nbs" / room).read_bytes()
    page = open_notebook(browser, address, room)
    dot = page.locator(".lm-DockPanel-tabBar .jp-mod-dirty")
    assert dot.count() == 0, "JupyterLab has changed the notebook's metadata"
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.keyboard.type("# changed")
    dot.wait_for(timeout=10_000)
    assert (project / "nbs" / room).read_bytes() == before
    page.close()


def test_a_stage_runs_in_jupyterlab(lab, browser):
    project, address = lab
    page = run_all(browser, address, "run_prepare.ipynb")
    folder = project / "outputs/demo/prepare"
    # between two cells the kernel is idle, too
    saved_cells(page, project / "nbs/run_prepare.ipynb")
    page.close()
    assert read_json(folder / "stage.json")["state"] == "finished" and (folder / "manifest.parquet").exists()


def first_rooms():
    "The first room of each chapter."
    for chapter in sorted(path for path in NBS.glob("[0-9]*") if path.is_dir()):
        room = sorted(chapter.glob("[0-9]*.ipynb"))[0]
        yield pytest.param(str(room.relative_to(NBS)), id=chapter.name)


@pytest.mark.parametrize("room", list(first_rooms()))
def test_a_room_of_each_chapter_runs_in_jupyterlab(lab, browser, room):
    project, address = lab
    page = run_all(browser, address, room)
    cells = saved_cells(page, project / "nbs" / room)
    page.close()
    assert all(cell["execution_count"] for cell in cells), "not every cell has run, or the notebook was not saved"
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
