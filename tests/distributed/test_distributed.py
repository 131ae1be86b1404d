"Two processes on this machine (gloo) follow the single process."

import itertools
import os
import subprocess
import sys
import numpy as np
import pandas as pd
from fakeface.core.files import write_json
from fakeface.testing.datasets import TOY_TRAINING
from fakeface.testing.datasets import toy_run


def test_two_processes_follow_one(tmp_path):
    over = dict(
        TOY_TRAINING,
        stage="finetune",
        out=str(tmp_path),
        mixup=0.0,
        augment="light",
        freeze_bn=True,
        ema_buffers="raw",
        bn_batches=0,
        optimizer="sgd",
        lr=0.05,
        batch=16,
    )
    loss = {}
    for n in (1, 2):
        toy_run(tmp_path, f"p{n}")
        config = write_json(tmp_path / f"p{n}.json", dict(over, run=f"p{n}", processes=n))
        cmd = [
            sys.executable,
            "-m",
            *(["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"] if n == 2 else []),
        ]
        r = subprocess.run(
            [*cmd, "fakeface.train.trainer", str(config)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert r.returncode == 0, r.stderr[-3000:]
        loss[n] = pd.read_csv(tmp_path / f"p{n}/finetune/history.csv")
    a, b = loss[1], loss[2]
    np.testing.assert_allclose(
        a.train_loss, b.train_loss, rtol=2e-4
    )  # the same draws, split; sums differ in their order only
    np.testing.assert_allclose(a.valid_raw_loss, b.valid_raw_loss, rtol=2e-3)
    assert (a.step == b.step).all()


def test_accumulation_is_the_large_batch(tmp_path):
    "Four micro-batches of 4 and one batch of 16 give the same weights; the network has no BatchNorm, which would see other batches."
    from fakeface.data.manifest import read_manifest
    from fakeface.train.recipe import train_config
    from fakeface.train.trainer import start, train_step

    toy_run(tmp_path, "a")
    manifest = read_manifest(tmp_path / "a/prepare/manifest.parquet")
    weights = {}
    over = {
        **TOY_TRAINING,
        "arch": "test_convnext",
        "mixup": 0.0,
        "augment": "light",
        "optimizer": "sgd",
        "lr": 0.05,
        "batch": 16,
    }
    for n in (1, 4):
        run = start(train_config("finetune", **over, accumulate=n), manifest, tmp_path / f"n{n}")
        first = {k: v.clone() for k, v in run.model.state_dict().items()}
        train_step(run, list(itertools.islice(run.loader, n)))
        weights[n] = run.model.state_dict()
    for k, v in weights[1].items():
        np.testing.assert_allclose(weights[4][k], v, rtol=0, atol=1e-6, err_msg=k)
    assert max(float((v - first[k]).abs().max()) for k, v in weights[1].items()) > 1e-3  # they did move
