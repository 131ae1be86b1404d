"What a step at the published resolution needs."

import json
import os
import subprocess
import sys
import pytest

STEP = """
import itertools
import json
import resource
import sys
from pathlib import Path

from fakeface.data.manifest import read_manifest
from fakeface.testing.datasets import toy_run
from fakeface.train.recipe import train_config
from fakeface.train.trainer import start_training

run = toy_run(Path(sys.argv[1]), "big", count=4, size=1024)
manifest = read_manifest(run / "prepare/manifest.parquet")
options = dict(domains="", arch="resnet50", weights="none", init="none", size=1024, batch=2, workers=0)
trainer = start_training(train_config("finetune", "fakeface", **options), manifest, run / "finetune")
for batch in itertools.islice(trainer.data.loader, 2):
    trainer.train_step([batch])
found = dict(
    steps=trainer.progress.step,
    loss=float(trainer.pending.value[0]),
    shape=list(batch["x"].shape),
    engine=trainer.engine.precision,
    gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_1024_px_step_of_resnet50_fits_in_16_gb(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path)],
        cwd=os.path.dirname(__file__),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(found)
    assert found["steps"] == 2 and found["shape"] == [2, 3, 1024, 1024]
    assert found["gib"] < 16 / 1.0737, "16 GB in GiB"
