"Killed at random moments and resumed, a run ends with the same bytes as one that was left alone."
import os, random, subprocess, sys, time
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

@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("out"); prepared(out, "alone"); prepared(out, "killed")
    t = time.time(); finish(begin(out, "alone")); return out, time.time() - t

def kills(out: Path, seconds: float, n: int, seed: int) -> int:
    "Kill `killed` n times, each at a random moment of a whole run's time, then let it end; workers differ from start to start."
    rand, killed = random.Random(seed), 0
    while killed < n:
        p = begin(out, "killed", workers=killed % 3)
        try: p.wait(rand.uniform(.3, 1.)*seconds)
        except subprocess.TimeoutExpired: p.kill(); p.wait(); killed += 1
        else: finish(p)
        if Stage.state(out/"killed/finetune") == "finished": return killed
    finish(begin(out, "killed"))
    return killed

def test_three_kills(undisturbed):
    out, seconds = undisturbed
    assert kills(out, seconds, 3, seed=1) >= 1
    assert result(out, "killed") == result(out, "alone")

@pytest.mark.slow
def test_twenty_kills(undisturbed):
    out, seconds = undisturbed; total = 0
    for k in range(20):
        if total >= 20: break
        prepared(out, f"killed{k}") if not (out/f"killed{k}").exists() else None
        (out/"killed").exists() and __import__("shutil").rmtree(out/"killed"); (out/f"killed{k}").rename(out/"killed")
        total += kills(out, seconds, 20 - total, seed=100 + k)
        assert result(out, "killed") == result(out, "alone")
    assert total == 20

def test_sigterm_writes_a_checkpoint(undisturbed):
    out, _ = undisturbed; prepared(out, "term"); p = begin(out, "term", epochs=50)
    while not list((out/"term/finetune/checkpoints").glob("step-*/state.json")):
        assert p.poll() is None; time.sleep(.1)
    p.terminate()
    assert p.wait(60) == 143 and not list((out/"term/finetune/checkpoints").glob(".*"))
