"Killed at random moments and resumed, a run ends with the same bytes as one that was left alone."

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path
import pytest
from fakeface.core.files import sha256_file, write_json
from fakeface.testing.datasets import TOY_TRAINING, toy_run


def begin(out: Path, run: str, **options) -> subprocess.Popen:
    "Start the command in a process of its own."
    fields = dict(TOY_TRAINING, stage="finetune", run=run, out=str(out), resume=True, checkpoint_every=3)
    config = write_json(out / f"{run}.json", fields | options)
    return subprocess.Popen(
        [sys.executable, "-m", "fakeface.train", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def result(out: Path, run: str) -> dict[str, str]:
    "What must not differ."
    folder = out / run / "finetune"
    return {name: sha256_file(folder / name) for name in ("bundle/model.safetensors", "history.csv")}


def wait_for_end(process: subprocess.Popen) -> None:
    assert process.wait(300) == 0, process.stderr.read().decode()[-2000:]


def last_step(out: Path, run: str) -> int:
    "The step of a run's newest checkpoint; 0 where there is none."
    folders = (out / run / "finetune/checkpoints").glob("step-*")
    steps = [folder.name.removeprefix("step-") for folder in folders]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def kill_and_resume(out: Path, kills: int, seed: int, spread: int = 5, **options) -> list[int]:
    """One run killed `kills` times, then left to end. Each kill comes at a random moment: while it starts, or after
    fewer than `spread` more checkpoints (every 3 steps) and some tenths of a second. Loader workers differ from start
    to start. Gives the step it had reached each time."""
    toy_run(out, "killed")
    random_moment, reached = random.Random(seed), []
    for i in range(kills):
        process = begin(out, "killed", workers=i % 3, **options)
        before = last_step(out, "killed")
        target = before + 3 * random_moment.randrange(spread)
        if target == before:
            time.sleep(random_moment.uniform(0, 6))
        else:
            while last_step(out, "killed") < target and process.poll() is None:
                time.sleep(0.01)
            time.sleep(random_moment.uniform(0, 0.4))
        assert process.poll() is None, f"the run ended before kill {i + 1} of {kills}"
        process.kill()
        process.wait()
        reached.append(last_step(out, "killed"))
    wait_for_end(begin(out, "killed", **options))
    return reached


def compare(out: Path, kills: int, seed: int, spread: int = 5, **options) -> list[int]:
    "Kill one run, leave another alone, and compare their bytes."
    toy_run(out, "alone")
    wait_for_end(begin(out, "alone", **options))
    reached = kill_and_resume(out, kills, seed, spread, **options)
    print(f"steps reached at each of {kills} kills: {reached}; the whole run has {last_step(out, 'alone')}")
    assert result(out, "killed") == result(out, "alone")
    return reached


def test_two_kills(tmp_path):
    "With copies. BatchNorm is measured at the end, under evaluation's view on the images of the epoch's first draws."
    compare(tmp_path, 2, 1, epochs=3, bn_view="eval", ema=0.9, pairs=0.05)


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    reached = compare(tmp_path, 20, 100, 9, epochs=30)
    assert len(set(reached)) > 12, "spread over the run"


@pytest.mark.slow
def test_batchnorm_is_measured_on_the_whole_epoch_after_a_kill_too(tmp_path):
    "Under evaluation's view the images are those of the epoch's first draws, wherever the run went on."
    options = dict(bn_view="eval", ema=0.9, epochs=1)
    toy_run(tmp_path, "alone")
    wait_for_end(begin(tmp_path, "alone", **options))
    toy_run(tmp_path, "killed")
    process = begin(tmp_path, "killed", **options)
    while last_step(tmp_path, "killed") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 0 < last_step(tmp_path, "killed") < last_step(tmp_path, "alone")
    wait_for_end(begin(tmp_path, "killed", **options))
    assert result(tmp_path, "killed") == result(tmp_path, "alone")


def test_sigterm_writes_a_checkpoint(tmp_path):
    toy_run(tmp_path, "term")
    process = begin(tmp_path, "term", epochs=50)
    folder = tmp_path / "term/finetune/checkpoints"
    while not list(folder.glob("step-*/state.json")):
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 143
    assert not list(folder.glob(".*")), "nothing half-written is left"


def test_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    import torch
    from fakeface.train import checkpoint

    folder = tmp_path / "checkpoints"
    tensors = dict(model={"weight": torch.ones(4)})
    checkpoint.save_checkpoint(folder, dict(step=1, identity={}, data="hash"), tensors)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_checkpoint(folder, dict(step=2, identity={}, data="hash"), tensors)
    monkeypatch.undo()
    saved = checkpoint.load_checkpoint(checkpoint.checkpoints(folder)[-1], {})
    assert saved.state["step"] == 1 and torch.equal(saved.tensors["model"]["weight"], torch.ones(4))
    assert len(list(folder.iterdir())) == 1


HANGS = """
import sys
import time

from fakeface.core.config import configure
from fakeface.data import dataset
from fakeface.train.recipe import train_config

opened = 0
open_first = dataset.FaceDataset.__getitem__


def open_then_hang(self, index):
    "The first batches of a worker come, then none."
    global opened
    opened += 1
    if opened > 40:
        time.sleep(3600)
    return open_first(self, index)


dataset.FaceDataset.__getitem__ = open_then_hang
sys.argv = ["fakeface.train", sys.argv[1]]
import runpy

runpy.run_module("fakeface.train", run_name="__main__")
"""


def test_one_signal_ends_a_hanging_loader(tmp_path):
    "A worker sleeps for ever; the run leaves with what is done, and goes on from there."
    toy_run(tmp_path, "hangs")
    fields = dict(TOY_TRAINING, stage="finetune", run="hangs", out=str(tmp_path), workers=1, epochs=1)
    config = write_json(tmp_path / "hangs.json", fields | dict(resume=True, checkpoint_every=1))
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        # 40 images are two batches of 16
        while last_step(tmp_path, "hangs") < 2:
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            time.sleep(0.02)
        time.sleep(0.5)
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
    assert last_step(tmp_path, "hangs") == 2
    wait_for_end(begin(tmp_path, "hangs", epochs=1))


def test_a_signal_in_the_middle_of_an_image_costs_no_image(tmp_path, monkeypatch):
    "It was taken for a file that cannot be decoded, another one was trained on in its place, and the run went on."
    import signal

    from PIL import ImageFile

    from fakeface.testing.datasets import toy_manifest
    from fakeface.train.recipe import train_config
    from fakeface.train.trainer import StoppedWaiting, start_training

    cfg = train_config("finetune", **TOY_TRAINING | dict(workers=0))
    trainer = start_training(cfg, toy_manifest(tmp_path / "data"), tmp_path / "run")
    load = ImageFile.ImageFile.load

    def interrupted(image):
        monkeypatch.undo()
        trainer.note_signal(signal.SIGTERM)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupted)
    with pytest.raises(StoppedWaiting):
        trainer.next_batches(iter(trainer.data.loader))
    assert trainer.stop_signal == signal.SIGTERM and not len(trainer.quarantine)
