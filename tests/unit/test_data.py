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
import sys
import time

import pandas as pd
from fakeface.data import cache, dataset

manifest, root, folder, workers = sys.argv[1:]
open_at_most = dataset.open_at_most


def slow(path, max_side):
    time.sleep(0.004)
    return open_at_most(path, max_side)


dataset.open_at_most = slow
frame = pd.read_parquet(manifest)
frame.attrs["root"] = root
print("ready", flush=True)
cache.decoded_cache(frame, folder, max_side=40, workers=int(workers), every=64)
print("done", flush=True)
"""
COLUMNS = ["path", "domain", "label", "width", "height", "sha256"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "400 noisy images, one of them an empty file, and their manifest."
    folder = tmp_path_factory.mktemp("cache")
    rows = []
    for i in range(400):
        width, height = 48 + i % 3, 52
        pixels = rng("kill", i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append((f"{i}.png", "a", i % 2, width, height, f"{i:064x}"))
    (folder / "7.png").write_bytes(b"")
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(folder / "m.parquet")
    return folder


def begin(folder, name, workers):
    "A process that builds the cache `name`, ready to decode."
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder / "m.parquet"), str(folder), str(folder / name), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def contents(folder):
    return {name: (folder / name).read_bytes() for name in ("pixels.u8", "shape.i32", "cache.json")}


def shapes(folder):
    "int32 [n, 2]"
    return np.fromfile(folder / "shape.i32", np.int32).reshape(-1, 2)


def test_killed_build_ends_the_same(folder):
    assert begin(folder, "whole", 0).wait() == 0
    gen = np.random.default_rng()
    killed = 0
    for workers in (0, 2, 2):
        process = begin(folder, "killed", workers)
        time.sleep(gen.uniform(0.1, 0.7))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed, "nothing was killed: make the build slower"
    assert begin(folder, "killed", 2).wait() == 0
    assert contents(folder / "killed") == contents(folder / "whole")
    height = shapes(folder / "killed")[:, 0]
    assert (height > 0).sum() == 399
    assert (height < 0).sum() == 1


def test_two_processes_share_one_build(folder):
    processes = [begin(folder, "shared", 0) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    outputs = [process.stdout.read() for process in processes]
    assert sum("GB of disk" in output for output in outputs) == 1
    assert all("done" in output for output in outputs)
    assert (shapes(folder / "shared") != 0).all()
