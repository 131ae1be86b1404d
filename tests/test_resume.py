"Killed at random moments and resumed, a run ends with the same bytes as one that was left alone."
import errno, os, random, signal, subprocess, sys, time
from pathlib import Path
import pytest
from fakeface.core import Stage, sha256_file, write_json
from toy import SMALL, prepared

def begin(out: Path, run: str, **over) -> subprocess.Popen:
    config = write_json(out/f"{run}.json", dict(SMALL, stage="finetune", run=run, out=str(out), resume=True, checkpoint_every=3, **over))
    return subprocess.Popen([sys.executable, "-m", "fakeface.train", str(config)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})

def result(out: Path, run: str) -> dict:
    folder = out/run/"finetune"
    return {n: sha256_file(folder/n) for n in ("bundle/model.safetensors", "history.csv")}

def finish(p: subprocess.Popen) -> None:
    assert p.wait(300) == 0, p.stderr.read().decode()[-2000:]

def undisturbed(out: Path, **over) -> tuple[float, float]:
    "Seconds to the first checkpoint and to the end of a run that nobody kills."
    prepared(out, "alone"); t = time.time(); p = begin(out, "alone", **over); first = 0.
    while not first and p.poll() is None:
        if list((out/"alone/finetune/checkpoints").glob("step-*/state.json")): first = time.time() - t
        time.sleep(.05)
    finish(p); return first, time.time() - t

def kill_and_resume(out: Path, n: int, seed: int, longest: float, **over) -> list[str]:
    "One run killed `n` times, each at a random moment of its next `longest` seconds, then left to end; loader workers differ from start to start. What it had reached each time."
    prepared(out, "killed"); rand, reached = random.Random(seed), []
    for k in range(n):
        p = begin(out, "killed", workers=k % 3, **over)
        try: p.wait(rand.uniform(0, longest))
        except subprocess.TimeoutExpired: p.kill(); p.wait()
        else: pytest.fail(f"the run ended before kill {k + 1} of {n}")
        assert p.returncode == -signal.SIGKILL
        reached.append(max((d.name for d in (out/"killed/finetune/checkpoints").glob("step-*")), default="nothing"))
    finish(begin(out, "killed", **over))
    return reached

def test_three_kills(tmp_path):
    first, whole = undisturbed(tmp_path)
    print(kill_and_resume(tmp_path, 3, 1, first + .25*(whole - first)))
    assert result(tmp_path, "killed") == result(tmp_path, "alone")

@pytest.mark.slow
def test_twenty_kills(tmp_path):
    over = dict(epochs=24); first, whole = undisturbed(tmp_path, **over)
    reached = kill_and_resume(tmp_path, 20, 100, first + .12*(whole - first), **over)
    print(f"to the first checkpoint {first:.1f} s, whole run {whole:.1f} s; reached at each kill: {', '.join(reached)}")
    assert len(set(reached)) > 5                                  # the kills were spread over the run
    assert result(tmp_path, "killed") == result(tmp_path, "alone")

def test_sigterm_writes_a_checkpoint(tmp_path):
    prepared(tmp_path, "term"); p = begin(tmp_path, "term", epochs=50)
    while not list((tmp_path/"term/finetune/checkpoints").glob("step-*/state.json")):
        assert p.poll() is None; time.sleep(.1)
    p.terminate()
    assert p.wait(60) == 143 and not list((tmp_path/"term/finetune/checkpoints").glob(".*"))

def test_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    import torch
    from fakeface import checkpoint
    folder = tmp_path/"checkpoints"; one = dict(model={"w": torch.ones(4)}); checkpoint.save_checkpoint(folder, dict(step=1, identity={}, data="d"), one, dict(optimizer={}))
    def full(*a, **k): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"): checkpoint.save_checkpoint(folder, dict(step=2, identity={}, data="d"), one, dict(optimizer={}))
    monkeypatch.undo()
    state, tensors, _ = checkpoint.load_checkpoint(checkpoint.checkpoints(folder)[-1], {})
    assert state["step"] == 1 and torch.equal(tensors["model"]["w"], torch.ones(4)) and len(list(folder.iterdir())) == 1
