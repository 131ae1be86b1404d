"A manifest and a harmonised build whose processes are killed with SIGKILL at random moments end with the same bytes as ones that were not."

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import numpy as np
import pandas as pd
import pytest
from fakeface.images.decode import jpeg_bytes
from fakeface.images.twins import cloud

PREPARE = """
import sys, time, pandas as pd
import fakeface.data.audit as A, fakeface.images.facts as F, fakeface.data.manifest as M
rows, folder, workers = pd.read_parquet(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def slow(f, s): return lambda *a: (time.sleep(s), f(*a))[1]
if workers == 0: F.picture_facts = slow(F.picture_facts, .004); A.harmonise_one = slow(A.harmonise_one, .004)
print("ready", flush=True)
m = M.build_manifest(rows, folder, cache=folder + "/facts.sqlite", workers=workers)
h = A.harmonise(m, folder + "/alike", size=80, workers=workers)
M.write_manifest(m, folder + "/manifest.parquet"); M.write_manifest(h, folder + "/alike/manifest.parquet")
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("kill")
    rows = []
    for i in range(240):
        f = d / f"pictures/{i:03d}.{'png' if i % 2 else 'jpg'}"
        f.parent.mkdir(exist_ok=True)
        im = cloud(i, 84 + i % 5)
        f.write_bytes(jpeg_bytes(im, 60 + i % 30)) if i % 2 == 0 else im.save(f)
        rows.append(dict(path=str(f), domain="ab"[i // 120], label=i % 2, split=""))
    (d / "pictures/017.png").write_bytes(b"")
    pd.DataFrame(rows).to_parquet(d / "rows.parquet")
    return d


def begin(d, to, workers):
    (d / to).mkdir(exist_ok=True)
    p = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(d / "rows.parquet"), str(d / to), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert p.stdout.readline() == "ready\n"
    return p


def files(d):
    return {
        f.relative_to(d).as_posix(): f.read_bytes()
        for f in d.rglob("*")
        if f.is_file() and not f.name.startswith("facts.sqlite")
    }


def test_killed_builds_end_the_same(folder):
    assert begin(folder, "whole", 0).wait() == 0
    g, killed = np.random.default_rng(), []

    def made():
        return len(list((folder / "killed").rglob("[!.]*.jpg")))

    for at, workers in (
        (None, 0),
        (None, 2),
        (g.integers(1, 80), 0),
        (g.integers(80, 150), 2),
        (g.integers(150, 220), 0),
    ):  # while hashing, then while harmonising
        p = begin(folder, "killed", workers)
        until = time.time() + (g.uniform(0.1, 0.8) if at is None else 60)
        while p.poll() is None and time.time() < until and (at is None or made() < at):
            time.sleep(0.002)
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
            killed.append(made())
        p.wait()
    assert len(killed) >= 3 and any(0 < k < 239 for k in killed), killed
    assert begin(folder, "killed", 2).wait() == 0
    whole, got = files(folder / "whole"), files(folder / "killed")
    print("pictures made when killed:", killed)
    assert sorted(got) == sorted(whole) and [k for k in whole if got[k] != whole[k]] == [] and len(whole) == 239 + 3
    assert sqlite3.connect(folder / "killed/facts.sqlite").execute("SELECT count(*) FROM facts").fetchone() == (239,)


def test_same_bytes_wherever_it_lies(folder, tmp_path):
    "The build depends on pixels and settings, not on where the data lies or how many processes there are."
    import shutil

    shutil.copytree(folder / "pictures", tmp_path / "deep/er/pictures")
    rows = pd.read_parquet(folder / "rows.parquet")
    rows["path"] = rows.path.str.replace(str(folder), str(tmp_path / "deep/er"), regex=False)
    rows.sample(frac=1, random_state=1).to_parquet(tmp_path / "rows.parquet")
    assert begin(tmp_path, "out", 1).wait() == 0
    a, b = files(folder / "whole"), files(tmp_path / "out")
    jpg = [k for k in a if k.endswith(".jpg")]
    assert (
        sorted(a) == sorted(b)
        and all(a[k] == b[k] for k in jpg)
        and json.loads(a["alike/harmonise.json"]) == json.loads(b["alike/harmonise.json"])
    )
