"What a step at the published resolution needs."

import json
import os
import subprocess
import sys
import pytest

STEP = """
import json, resource, sys
from pathlib import Path
from fakeface.testing.datasets import TOY_TRAINING
from fakeface.testing.datasets import toy_run
from fakeface.data.manifest import read_manifest
from fakeface.train.recipe import train_config
from fakeface.train.trainer import start, train_step
out = Path(sys.argv[1]); toy_run(out, "big", count=4, size=1024); manifest = read_manifest(out/"big/prepare/manifest.parquet")
run = start(train_config("finetune", "fakeface", domains="", arch="resnet50", weights="none", init="none", size=1024, batch=2, workers=0), manifest, out/"big/finetune")
for i, b in enumerate(run.loader):
    train_step(run, [b])
    if i == 1: break
print(json.dumps(dict(steps=run.step, loss=float(run.pending[0]), shape=list(b["x"].shape), engine=run.engine.precision, gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20)))
"""


@pytest.mark.slow
def test_a_1024_px_step_of_resnet50_fits_in_16_gb(tmp_path):
    r = subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path)],
        cwd=os.path.dirname(__file__),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert r.returncode == 0, r.stderr[-2000:]
    found = json.loads(r.stdout.strip().splitlines()[-1])
    print(found)
    assert found["steps"] == 2 and found["shape"] == [2, 3, 1024, 1024] and found["gib"] < 16 / 1.0737
