"""A manifest and a harmonised build whose processes are killed with SIGKILL at random moments end with the same bytes
as ones that were not."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from fakeface.images.jpeg import jpeg_bytes
from fakeface.images.twins import cloud

# arguments: rows.parquet, folder, workers; without workers every image takes 4 ms longer, so that there is time to kill
PREPARE = """
import sys
import time

import pandas as pd

import fakeface.data.harmonise as harmonise
import fakeface.data.manifest as manifest
import fakeface.images.facts as facts


def slow(function):
    def slowed(*arguments):
        time.sleep(0.004)
        return function(*arguments)

    return slowed


rows, folder, workers = pd.read_parquet(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if workers == 0:
    facts.file_info = slow(facts.file_info)
    harmonise.harmonise_one = slow(harmonise.harmonise_one)
print("ready", flush=True)
found = manifest.build_manifest(rows, folder, cache=folder + "/facts.sqlite", workers=workers)
alike = harmonise.harmonise(found, folder + "/alike", size=80, workers=workers)
manifest.write_manifest(found, folder + "/manifest.parquet")
manifest.write_manifest(alike, folder + "/alike/manifest.parquet")
print("done", flush=True)
"""
N_IMAGES = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Images, one of them empty, and rows.parquet."
    home = tmp_path_factory.mktemp("kill")
    (home / "pictures").mkdir()
    rows = []
    for i in range(N_IMAGES):
        image = cloud(i, 84 + i % 5)
        path = home / f"pictures/{i:03d}.{'png' if i % 2 else 'jpg'}"
        if i % 2:
            image.save(path)
        else:
            path.write_bytes(jpeg_bytes(image, 60 + i % 30))
        rows.append(dict(path=str(path), domain="ab"[i // 120], label=i % 2, split=""))
    (home / "pictures/017.png").write_bytes(b"")
    pd.DataFrame(rows).to_parquet(home / "rows.parquet")
    return home


def begin(home, name, workers):
    "Start a build of `home`/`name` in a process group of its own."
    (home / name).mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(home / "rows.parquet"), str(home / name), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def contents(folder):
    "{path: bytes} of all files but the cache."
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("facts.sqlite")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run_until(home, name, workers, n_images, seconds):
    "Run a build until it has made so many images or has taken so long; the images made if it had to be killed."

    def n_made():
        return len(list((home / name).rglob("[!.]*.jpg")))

    process = begin(home, name, workers)
    until = time.time() + seconds
    while process.poll() is None and time.time() < until and n_made() < n_images:
        time.sleep(0.002)
    killed_at = None
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        killed_at = n_made()
    process.wait()
    return killed_at


@pytest.fixture(scope="module")
def whole(folder):
    "What an undisturbed build of the folder makes."
    assert begin(folder, "whole", 0).wait() == 0
    return contents(folder / "whole")


def test_killed_builds_end_the_same(folder, whole):
    generator = np.random.default_rng()
    killed = []
    for workers in (0, 2):  # while hashing
        killed.append(run_until(folder, "killed", workers, N_IMAGES, seconds=generator.uniform(0.1, 0.8)))
    for low, high, workers in ((1, 80, 0), (80, 150, 2), (150, 220, 0)):  # while harmonising
        killed.append(run_until(folder, "killed", workers, generator.integers(low, high), seconds=60))
    killed = [n for n in killed if n is not None]
    assert len(killed) >= 3 and any(0 < n < N_IMAGES - 1 for n in killed), killed
    assert begin(folder, "killed", 2).wait() == 0
    again = contents(folder / "killed")
    print("images made when killed:", killed)
    # all images but the empty one, two manifests and the settings
    assert sorted(again) == sorted(whole) and len(whole) == N_IMAGES - 1 + 3
    assert [name for name in whole if again[name] != whole[name]] == []
    cache = sqlite3.connect(folder / "killed/facts.sqlite")
    assert cache.execute("SELECT count(*) FROM facts").fetchone() == (N_IMAGES - 1,)


def test_same_bytes_wherever_it_lies(folder, whole, tmp_path):
    "The build depends on pixels and settings, not on where the data lies or how many processes there are."
    shutil.copytree(folder / "pictures", tmp_path / "deep/er/pictures")
    rows = pd.read_parquet(folder / "rows.parquet")
    rows["path"] = rows.path.str.replace(str(folder), str(tmp_path / "deep/er"), regex=False)
    rows.sample(frac=1, random_state=1).to_parquet(tmp_path / "rows.parquet")
    assert begin(tmp_path, "out", 1).wait() == 0
    there = contents(tmp_path / "out")
    assert sorted(whole) == sorted(there)
    assert all(whole[name] == there[name] for name in whole if name.endswith(".jpg"))
    assert json.loads(whole["alike/harmonise.json"]) == json.loads(there["alike/harmonise.json"])
