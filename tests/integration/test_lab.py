"JupyterLab starts from the environment, and a stage notebook runs in it from the menu, as a person would do it."

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import pytest
from fakeface.core.files import read_json

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def lab(tmp_path, root):
    "A copy of the notebooks in a project of its own, served by JupyterLab; gives (project, address)."
    shutil.copytree(root / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(root / "settings.ini", tmp_path)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    cmd = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=t",
        "--allow-root",
        f"--ServerApp.root_dir={tmp_path}",
    ]
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=t", timeout=1)
            break
        except OSError:
            time.sleep(0.5)
    yield tmp_path, f"http://127.0.0.1:{port}"
    p.terminate()
    p.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_a_stage_runs_in_jupyterlab(lab, tmp_path):
    from playwright.sync_api import sync_playwright

    project, address = lab
    with sync_playwright() as pw:
        browser = pw.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport=dict(width=1300, height=1000))
        page.goto(f"{address}/lab/tree/nbs/run_prepare.ipynb?token=t&reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        if page.get_by_role("button", name="Select Kernel").is_visible():
            page.get_by_role("button", name="Select Kernel").click()
        page.get_by_text("| Idle").wait_for(timeout=90_000)
        page.wait_for_timeout(3_000)  # before the kernel is there, "Run All" does nothing
        page.locator(".jp-Notebook .jp-CodeCell").first.click()
        page.locator(".lm-MenuBar-item").get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).first.click()
        stage = project / "outputs/demo/prepare/stage.json"
        for _ in range(150):
            if stage.exists() and read_json(stage)["state"] == "finished":
                break
            time.sleep(1)
        page.wait_for_timeout(2_000)
        page.screenshot(path=str(tmp_path / "lab.png"))
        browser.close()
    assert read_json(stage)["state"] == "finished" and (project / "outputs/demo/prepare/manifest.parquet").exists()
