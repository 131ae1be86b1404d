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
from fakeface.testing.datasets import TOY_TRAINING
from fakeface.testing.datasets import toy_run


def begin(out: Path, run: str, **over) -> subprocess.Popen:
    config = write_json(
        out / f"{run}.json",
        dict(TOY_TRAINING, stage="finetune", run=run, out=str(out), resume=True, checkpoint_every=3, **over),
    )
    return subprocess.Popen(
        [sys.executable, "-m", "fakeface.train.trainer", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def result(out: Path, run: str) -> dict:
    folder = out / run / "finetune"
    return {n: sha256_file(folder / n) for n in ("bundle/model.safetensors", "history.csv")}


def finish(p: subprocess.Popen) -> None:
    assert p.wait(300) == 0, p.stderr.read().decode()[-2000:]


def steps(out: Path, run: str) -> int:
    "The step of a run's newest checkpoint; 0 where there is none."
    return max(
        (int(d.name[5:]) for d in (out / run / "finetune/checkpoints").glob("step-*") if d.name[5:].isdigit()),
        default=0,
    )


def kill_and_resume(out: Path, n: int, seed: int, spread: int = 5, **over) -> list[int]:
    """One run killed `n` times, then left to end. Each kill comes at a random moment: while it starts, or after fewer than `spread` more checkpoints (every 3 steps)
    and some tenths of a second. Loader workers differ from start to start. Gives the step it had reached each time."""
    toy_run(out, "killed")
    rand, reached = random.Random(seed), []
    for k in range(n):
        p = begin(out, "killed", workers=k % 3, **over)
        target = steps(out, "killed") + 3 * rand.randrange(spread)
        if target == steps(out, "killed"):
            time.sleep(rand.uniform(0, 6))
        else:
            while steps(out, "killed") < target and p.poll() is None:
                time.sleep(0.01)
            time.sleep(rand.uniform(0, 0.4))
        assert p.poll() is None, f"the run ended before kill {k + 1} of {n}"
        p.kill()
        p.wait()
        reached.append(steps(out, "killed"))
    finish(begin(out, "killed", **over))
    return reached


def compare(out: Path, n: int, seed: int, spread: int = 5, **over) -> list[int]:
    "Kill one run, leave another alone, and compare their bytes."
    toy_run(out, "alone")
    finish(begin(out, "alone", **over))
    reached = kill_and_resume(out, n, seed, spread, **over)
    print(f"steps reached at each of {n} kills: {reached}; the whole run has {steps(out, 'alone')}")
    assert result(out, "killed") == result(out, "alone")
    return reached


def test_three_kills(tmp_path):
    compare(tmp_path, 3, 1, epochs=5)


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    assert len(set(compare(tmp_path, 20, 100, 9, epochs=30))) > 12  # spread over the run


def test_sigterm_writes_a_checkpoint(tmp_path):
    toy_run(tmp_path, "term")
    p = begin(tmp_path, "term", epochs=50)
    while not list((tmp_path / "term/finetune/checkpoints").glob("step-*/state.json")):
        assert p.poll() is None
        time.sleep(0.1)
    p.terminate()
    assert p.wait(60) == 143 and not list((tmp_path / "term/finetune/checkpoints").glob(".*"))


def test_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    import torch
    from fakeface.train import checkpoint

    folder = tmp_path / "checkpoints"
    one = dict(model={"w": torch.ones(4)})
    checkpoint.save_checkpoint(folder, dict(step=1, identity={}, data="d"), one, dict(optimizer={}))

    def full(*a, **k):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_checkpoint(folder, dict(step=2, identity={}, data="d"), one, dict(optimizer={}))
    monkeypatch.undo()
    state, tensors, _ = checkpoint.load_checkpoint(checkpoint.checkpoints(folder)[-1], {})
    assert state["step"] == 1 and torch.equal(tensors["model"]["w"], torch.ones(4)) and len(list(folder.iterdir())) == 1
