"""Every component notebook runs from top to bottom, each in a process of its own; tutorials: test_tutorials.py."""

import multiprocessing
import os
import re
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parents[2] / "nbs"
# what most rooms import takes longer than most rooms: it is imported once, in the process that theirs are forked from
PRELOADED = """
    accelerate IPython.core.pylabtools ipywidgets matplotlib_inline.backend_inline matplotlib.pyplot nbdev.test
    onnxruntime pandas PIL.Image scipy.stats seaborn sklearn.linear_model sklearn.metrics timm torch
    torchvision.transforms.v2
"""
PATIENCE = 1200  # seconds until a room counts as hanging, also on a machine that has much else to do
ROOMS = multiprocessing.get_context("forkserver")
ROOMS.set_forkserver_preload(PRELOADED.split())


def notebooks():
    "A case for each notebook, and a slow one for each that has cells marked slow."
    elsewhere = {".ipynb_checkpoints", "tutorials"}
    components = [path for path in NBS.rglob("[0-9]*.ipynb") if not elsewhere & set(path.parts)]
    for path in sorted([*components, NBS / "index.ipynb"]):
        name = f"{path.parent.name}-{path.stem}"
        yield pytest.param(path, "", id=name)
        if re.search(r'"#\| *slow', path.read_text(encoding="utf-8")):
            yield pytest.param(path, "slow", id=f"{name}-slow", marks=pytest.mark.slow)


def run_notebook(path, flags, log):
    "`nbdev_test` on one notebook; what it prints goes into the file `log`."
    from nbdev.test import nbdev_test

    # as in a process that somebody starts: the way of starting processes, and what they import, is not this test's
    multiprocessing.set_start_method(None, force=True)
    ROOMS.set_forkserver_preload([])
    with open(os.devnull) as nothing, log.open("w") as out:
        os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    nbdev_test.__wrapped__(path=str(path), flags=flags, n_workers=0, do_print=True)


@pytest.mark.parametrize("path,flags", list(notebooks()))
def test_notebook(path, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(NBS.parent)
    log = tmp_path / "log.txt"
    # a room that looks at what is imported, or sets what an import reads, gets a process in which nothing is
    wants_nothing_imported = re.search(r"in sys\.modules|HF_HUB_OFFLINE", path.read_text(encoding="utf-8"))
    context = multiprocessing.get_context("spawn") if wants_nothing_imported else ROOMS
    process = context.Process(target=run_notebook, args=(path, flags, log))
    process.start()
    process.join(PATIENCE)
    process.kill()
    process.join()
    said = log.read_text(encoding="utf-8")
    assert process.exitcode == 0 and "Success." in said, said
