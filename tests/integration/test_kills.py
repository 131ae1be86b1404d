"""Each stage killed twenty times at any moment: resumed, it ends with the same bytes, or says in a sentence why not."""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that were forked"),
]
KILLS = 20
NOT_COMPARED = {"env.json", "stage.json", "config.json", "speed.csv", "test_reads.json", "README.md", "bundle.json"}
TIMES = ("pictures_per_s", "bundle_hash", "bundle_parents", "test_reads", "seconds", "ms_an_image")  # in metrics.json


def prepare(out, resume):
    from fakeface.core.stages import Stage
    from fakeface.data.prepare import PrepareConfig, build_dataset, collect_sources, index_images, write_prepared

    source = str(out.parent / "source/sources.csv")
    cfg = PrepareConfig(run="toy", out=str(out), sources=source, workers=0, resume=resume)
    with Stage.begin("prepare", cfg, cfg.overwrite, cfg.resume, seed=cfg.seed) as stage:
        found = index_images(cfg, collect_sources(cfg, stage.dir), stage.dir)
        stage.finish(write_prepared(cfg, found, build_dataset(cfg, found, stage.dir), stage.dir))


def train(out, resume, stage):
    from fakeface.testing.datasets import TOY_TRAINING
    from fakeface.train.recipe import train_config
    from fakeface.train.stage import run_training_stage

    options = dict(TOY_TRAINING, run="toy", out=str(out), epochs=2, checkpoint_every=1, resume=resume)
    cfg = train_config(stage, **options)
    run_training_stage(cfg if stage == "pretrain" else replace(cfg, init=""))


def evaluate(out, resume):
    from fakeface.evaluate.stage import EvaluateConfig
    from fakeface.evaluate.stage import evaluate as run

    run(EvaluateConfig(run="toy", out=str(out), workers=1, robustness=True, grid_n=2, resume=resume))


def report(out, resume):
    from fakeface.report.page import ReportConfig, run_report_stage

    run_report_stage(ReportConfig(run="toy", out=str(out), resume=resume))


STAGES = dict(
    prepare=prepare,
    pretrain=lambda out, resume: train(out, resume, "pretrain"),
    finetune=lambda out, resume: train(out, resume, "finetune"),
    evaluate=evaluate,
    report=report,
)


def started(stage, out, resume):
    "The stage in a process of its own; its words go into out.log."
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(out.parent / "out.log", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                STAGES[stage](out, resume)
                code = 0
            except BaseException:
                traceback.print_exc(file=log)
    finally:
        os._exit(code)


def ended(child, out):
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), (out.parent / "out.log").read_text()[-3000:]
    return code


def content(home):
    "What a run holds, without times and machines."
    found = {}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        is_aside = "checkpoints" in path.parts or path.name.startswith(".")
        if path.is_dir() or is_aside or path.name in NOT_COMPARED:
            continue
        found[name] = path.read_bytes()
        if path.name == "metrics.json":
            metrics = json.loads(found[name])
            found[name] = {key: value for key, value in metrics.items() if key not in TIMES}
        if path.name == "engine.json":
            record = json.loads(found[name])
            del record["engine"]["seconds"]  # of one image, as measured for the bill
            found[name] = record
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    "A run of all stages that nobody disturbed: the folder before each stage, and after it."
    import fakeface.data.prepare  # noqa: F401
    import fakeface.evaluate.stage  # noqa: F401
    import fakeface.report.page  # noqa: F401
    import fakeface.train.stage  # noqa: F401
    from fakeface.testing.datasets import write_toy_set

    base = tmp_path_factory.mktemp("kills")
    write_toy_set(base / "undisturbed/source", count=8, size=72)
    (base / "undisturbed/source/sources.csv").write_text("name,kind,path\ntoy,tree,.\n")
    out = base / "undisturbed/out"
    seconds = {}
    for stage in STAGES:
        (base / "before" / stage).mkdir(parents=True)
        if out.exists():
            shutil.copytree(out, base / "before" / stage / "out")
        begun = time.perf_counter()
        assert ended(started(stage, out, False), out) == 0
        seconds[stage] = time.perf_counter() - begun
        shutil.copytree(out, base / "after" / stage)
    return base, seconds


@pytest.mark.parametrize("stage", STAGES)
def test_twenty_kills(stage, reference, tmp_path):
    base, seconds = reference
    dice = random.Random(f"kill {stage}")
    true = content(base / "after" / stage / "toy")
    span, resumed, i = seconds[stage], 0, 0
    while resumed < KILLS:
        i += 1
        assert i <= 10 * KILLS, "it ends before it can be killed"
        # the same place each time: reports and manifests name paths
        home = tmp_path / "undisturbed"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(base / "undisturbed/source", home / "source")
        shutil.copytree(base / "before" / stage, home, dirs_exist_ok=True)
        out = home / "out"
        child = started(stage, out, False)
        time.sleep(dice.random() * span)
        os.kill(child, signal.SIGKILL)
        note = out / "toy" / stage / "stage.json"
        # a kill may come when all is done and only the process is still there
        is_done = ended(child, out) == 0 or (note.exists() and json.loads(note.read_text())["state"] == "finished")
        if is_done:
            # undisturbed it ran while the machine had more to do
            span *= 0.9
        else:
            resumed += 1
            assert ended(started(stage, out, True), out) == 0
        found = content(out / "toy")
        different = [name for name in {**true, **found} if true.get(name) != found.get(name)]
        assert not different, f"kill {i}: {different}"
        assert json.loads((out / "toy" / stage / "stage.json").read_text())["state"] == "finished"
        # killed between its last note and its lock, it leaves the file of a lock that nobody has
        assert is_done or not (out / "toy" / stage / ".lock").exists()
        assert not [path for path in Path(out).rglob("*.tmp")], "nothing half-written is left"
    print(stage, f"{i} kills, {resumed} of them while it ran, {seconds[stage]:.1f} s undisturbed")
