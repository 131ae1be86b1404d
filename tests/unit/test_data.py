"A decoded cache whose build is killed with SIGKILL ends with the same bytes as one that was not."

import os
import signal
import subprocess
import sys
import time
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from fakeface.core.seeds import rng

BUILD = """
import sys, time, pandas as pd
import fakeface.data.dataset as D
def slow(path, most, then=D.open_at_most): time.sleep(.004); return then(path, most)
D.open_at_most = slow
df = pd.read_parquet(sys.argv[1]); df.attrs["root"] = sys.argv[2]
print("ready", flush=True)
D.decoded_cache(df, sys.argv[3], most=40, workers=int(sys.argv[4]), every=64)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("cache")
    rows = []
    for i in range(400):
        size = (48 + i % 3, 52)
        Image.fromarray(rng("kill", i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(d / f"{i}.png")
        rows.append((f"{i}.png", "a", i % 2, *size, f"{i:064x}"))
    (d / "7.png").write_bytes(b"")
    pd.DataFrame(rows, columns=["path", "domain", "label", "width", "height", "sha256"]).to_parquet(d / "m.parquet")
    return d


def begin(d, to, workers):
    p = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(d / "m.parquet"), str(d), str(d / to), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert p.stdout.readline() == "ready\n"
    return p


def files(d):
    return {f: (d / f).read_bytes() for f in ("pixels.u8", "shape.i32", "cache.json")}


def test_killed_build_ends_the_same(folder):
    assert begin(folder, "whole", 0).wait() == 0
    g, killed = np.random.default_rng(), 0
    for workers in (0, 2, 2):
        p = begin(folder, "killed", workers)
        time.sleep(g.uniform(0.1, 0.7))
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
            killed += 1
        p.wait()
    assert killed, "nothing was killed: make the build slower"
    assert begin(folder, "killed", 2).wait() == 0
    assert files(folder / "killed") == files(folder / "whole")
    shape = np.fromfile(folder / "killed/shape.i32", np.int32).reshape(-1, 2)
    assert (shape[:, 0] > 0).sum() == 399 and (shape[:, 0] < 0).sum() == 1


def test_two_processes_share_one_build(folder):
    both = [begin(folder, "shared", 0) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    said = [p.stdout.read() for p in both]
    assert sum("GB of disk" in s for s in said) == 1 and all("done" in s for s in said)
    assert (np.fromfile(folder / "shared/shape.i32", np.int32) != 0).all()
