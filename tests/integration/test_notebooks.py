"Every component notebook runs from top to bottom, each in a process of its own, so that nothing leaks from one to the next."

import re
import subprocess
import sys
from pathlib import Path
import pytest

NBS = Path(__file__).resolve().parents[2] / "nbs"


def notebooks():
    "A case for each notebook, and a slow one for each that has cells marked slow."
    for nb in sorted(
        [*(p for p in NBS.rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in p.parts), NBS / "index.ipynb"]
    ):
        yield pytest.param(nb, "", id=f"{nb.parent.name}-{nb.stem}")
        if re.search(r'"#\| *slow', nb.read_text(encoding="utf-8")):
            yield pytest.param(nb, "slow", id=f"{nb.parent.name}-{nb.stem}-slow", marks=pytest.mark.slow)


@pytest.mark.parametrize("nb,flags", list(notebooks()))
def test_notebook(nb, flags):
    run = [
        Path(sys.executable).with_name("nbdev_test"),
        "--path",
        nb,
        "--n_workers",
        "0",
        "--do_print",
        "--flags",
        flags,
    ]
    r = subprocess.run(run, cwd=NBS.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert r.returncode == 0 and "Success." in r.stdout, f"{r.stdout}\n{r.stderr}"
