"""What all tests share: one core a process, markers (each folder, what is slow), the project root, a browser."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch; children inherit it
os.environ.setdefault("MPLBACKEND", "agg")

MARKERS = {
    "unit": "one part at a time, in seconds",
    "integration": "commands, stages and notebooks as people run them",
    "browser": "report and checker in headless Chromium",
    "distributed": "several processes",
    "real_images": "needs FAKEFACE_FACES, a folder of development images that a user does not have",
    "slow": "runs with `make test-all` only",
}


def pytest_configure(config):
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


# of the files of tests, those whose single tests take longest
LONG = ("test_tutorials", "test_stages", "test_faces_scenes", "test_resume", "test_distributed", "test_notebooks")


def begins(item) -> int:
    "Long tests begin first: what is left at the end, when a process has nothing else to do, is short."
    return LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG)


def pytest_collection_modifyitems(items):
    "A test carries the name of its folder as a marker."
    items.sort(key=begins)
    for item in items:
        if (folder := item.path.parent.name) in MARKERS:
            item.add_marker(folder)


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[1]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def browser():
    "Headless Chromium, started once; who asks for it is skipped where it or playwright is missing."
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()
