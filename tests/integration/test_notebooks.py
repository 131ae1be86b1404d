"""Every component notebook runs from top to bottom, each in a process of its own; tutorials: test_tutorials.py."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[2] / "nbs"


def notebooks():
    "A case for each notebook, and a slow one for each that has cells marked slow."
    elsewhere = {".ipynb_checkpoints", "tutorials"}
    components = [path for path in NBS.rglob("[0-9]*.ipynb") if not elsewhere & set(path.parts)]
    for path in sorted([*components, NBS / "index.ipynb"]):
        name = f"{path.parent.name}-{path.stem}"
        yield pytest.param(path, "", id=name)
        if re.search(r'"#\| *slow', path.read_text(encoding="utf-8")):
            yield pytest.param(path, "slow", id=f"{name}-slow", marks=pytest.mark.slow)


@pytest.mark.parametrize("path,flags", list(notebooks()))
def test_notebook(path, flags):
    nbdev_test = Path(sys.executable).with_name("nbdev_test")
    command = [nbdev_test, "--path", path, "--n_workers", "0", "--do_print", "--flags", flags]
    run = subprocess.run(command, cwd=NBS.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 0 and "Success." in run.stdout, f"{run.stdout}\n{run.stderr}"
