"The how-to for networks that one GPU cannot hold, run as it stands: two processes that share the weights follow one."

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from timm.models import get_pretrained_cfg
from fakeface.core.files import read_json, write_json
from fakeface.models.persistence import load_model
from fakeface.testing.datasets import TOY_TRAINING, toy_run

# nothing that mixes the images of a batch in the order in which a process sees them, and no BatchNorm
CONFIG = TOY_TRAINING | dict(arch="test_vit", size=160, mixup=0.0, augment="light", optimizer="sgd", lr=0.05, batch=8)


def cells_of(root) -> list[str]:
    cells = json.loads((root / "nbs/tutorials/howto_scale.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def command(root, start: str) -> list[str]:
    "The words of the line that begins so."
    (line,) = [cell for cell in cells_of(root) if cell.startswith(f"!{start}")]
    return line[1:].split()


def test_the_size_suits_the_network(root):
    "The preset's 1,024 px are no whole number of its patches."
    arch = re.search(r'arch="(\w+)"', cells_of(root)[0])[1]
    size = int(re.search(r"size=(\d+)", cells_of(root)[0])[1])
    assert get_pretrained_cfg(arch).input_size == (3, size, size)
    words = command(root, "fakeface finetune")
    assert words[words.index("size") + 1] == str(size)


@pytest.mark.slow
def test_shared_weights_are_those_of_one_process_and_the_stage_goes_on_with_them(root, tmp_path):
    (script,) = [cell for cell in cells_of(root) if cell.startswith("%%writefile")]
    first, _, body = script.partition("\n")
    (tmp_path / first.split()[1]).write_text(body)
    toy_run(tmp_path / "outputs", "real", count=8)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    words = command(root, "torchrun")
    assert words[1] == "--nproc_per_node"
    for processes in (1, 2):
        config = CONFIG | dict(run="real", out=str(tmp_path / "outputs"), processes=processes, epochs=1, preset="demo")
        write_json(tmp_path / "sharded.json", config | dict(stage="finetune"))
        out = f"outputs/{processes}"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        done = subprocess.run(
            [*launcher, *words[3:5], out],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[:3000]
        assert "step 4: loss" in done.stdout
    one, two = (load_model(tmp_path / f"outputs/{processes}")[0].state_dict() for processes in (1, 2))
    for name, tensor in one.items():
        np.testing.assert_allclose(two[name], tensor, rtol=1e-3, atol=2e-5, err_msg=name)

    # the stage with the settings of the how-to, but for those of the run that is here
    line = command(root, "fakeface finetune")
    given = {line[place + 1]: line[place + 2] for place, word in enumerate(line) if word == "-p"}
    assert given.keys() == {"run", "domains", "preset", "init", "size", "epochs"} and given["epochs"] == "0"
    of_run = {name: value for name, value in CONFIG.items() if name not in ("preset", "epochs")}
    here = given | of_run | dict(out=str(tmp_path / "outputs"), init=str(tmp_path / "outputs/2"))
    settings = [word for name, value in here.items() for word in ("-p", name, str(value))]
    stage = [sys.executable, "-m", "fakeface", "finetune", *settings]
    done = subprocess.run(stage, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "outputs/real/finetune/before_after.json").exists(), "what the script leaves is no detector"
    after = load_model(tmp_path / "outputs/real/finetune/bundle")[0].state_dict()
    for name, tensor in after.items():
        np.testing.assert_array_equal(tensor, two[name], err_msg=name)
    assert "temperature" in read_json(tmp_path / "outputs/real/finetune/bundle/bundle.json")
