"""A stage that is made again: refused, it is as it was; killed at any step, no result is lost or shown as another's."""

import os
import shutil
import signal
from dataclasses import make_dataclass, replace
from pathlib import Path

import pytest

from fakeface.core.files import read_json, write_json
from fakeface.core.project import FakefaceError
from fakeface.core.stages import Stage, bring_back, under_way
from fakeface.data.prepare import PrepareConfig, build_dataset, collect_sources, index_images, write_prepared
from fakeface.evaluate.leave_one_out import LeaveoutConfig, one_round
from fakeface.evaluate.stage import EvaluateConfig, evaluate
from fakeface.report.page import ReportConfig, run_report_stage
from fakeface.testing.datasets import TOY_TRAINING, toy_run, write_toy_set
from fakeface.train.recipe import train_config
from fakeface.train.stage import run_training_stage

Config = make_dataclass("Config", ["run", "out", "seed"])
NEVER = 1000


def killed_at(step, work):
    "Do something in a process that is killed as it is about to rename for the `step`th time; whether it was."
    child = os.fork()
    if not child:
        left, rename = iter(range(step)), os.replace

        def renamed(*paths):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*paths)

        os.replace = renamed
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def content(folder):
    "What a folder holds, but for what a killed process leaves: its lock, and what is half-written."
    left = (".lock", ".tmp")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(left)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def old(tmp_path):
    "The folder of a finished stage, and what it holds."
    stage = Stage.begin("finetune", Config("first", str(tmp_path), 1))
    for name in ("bundle/bundle.json", "checkpoints/last", "history.csv"):
        write_json(stage.dir / name, "old")
    stage.finish(dict(auc=0.9))
    return stage.dir, content(stage.dir)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that were forked")


@needs_fork
def test_killed_while_it_is_put_aside(old, tmp_path, capfd):
    folder, before = old
    new = Config("first", str(tmp_path), 2)
    for step in range(NEVER):
        was_killed = killed_at(step, lambda: Stage.begin("finetune", new, overwrite=True))
        found = content(folder)
        if Stage.state(folder) == "finished":
            assert {name: found[name] for name in before} == before, "nothing has been touched"
        if not (folder / ".before").exists():
            # the next one that begins puts it back, whatever it is told
            with pytest.raises(FakefaceError, match="is finished"):
                Stage.begin("finetune", new, resume=True)
        else:
            stage = Stage.begin("finetune", new, resume=True)
            assert read_json(folder / "config.json")["seed"] == 2 and not (folder / "metrics.json").exists()
            bring_back(folder)
            stage.release()
        assert content(folder) == before, step
        if not was_killed:
            break
    assert 6 < step < NEVER


@needs_fork
def test_killed_while_it_is_brought_back(old, tmp_path, capfd):
    folder, before = old
    for step in range(NEVER):
        stage = Stage.begin("finetune", Config("first", str(tmp_path), 2), overwrite=True)
        write_json(folder / "bundle/bundle.json", "new")
        stage.release()
        was_killed = killed_at(step, lambda: bring_back(folder))
        with pytest.raises(ZeroDivisionError):
            with Stage.begin("finetune", Config("first", str(tmp_path), 3), overwrite=True):
                1 / 0
        assert content(folder) == before, step
        if not was_killed:
            break
    assert 4 < step < NEVER


@needs_fork
def test_killed_while_it_is_removed(old, tmp_path):
    folder, _ = old
    stage = Stage.begin("finetune", Config("first", str(tmp_path), 2), overwrite=True)
    write_json(folder / "bundle/bundle.json", "new")
    stage.release()
    child = os.fork()
    if not child:
        shutil.rmtree = lambda path, **_: os.kill(os.getpid(), signal.SIGKILL) if Path(path).exists() else None
        under_way(folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    bring_back(folder)
    assert read_json(folder / "bundle/bundle.json", str) == "new", "what is half removed does not come back"
    Stage.begin("finetune", Config("first", str(tmp_path), 2), resume=True).finish()
    assert not list(folder.glob(".*"))


def test_what_cannot_be_moved_leaves_all_in_its_place(old, tmp_path, monkeypatch):
    "A disk that is mounted in the folder, say."
    folder, before = old
    rename = os.replace

    def renamed(source, target):
        if Path(source).name == "checkpoints" and Path(target).parent.name.startswith(".before"):
            raise OSError(16, "Device or resource busy", str(source))
        rename(source, target)

    monkeypatch.setattr(os, "replace", renamed)
    with pytest.raises(FakefaceError, match=r"checkpoints cannot be put aside \(Device or resource busy\)"):
        Stage.begin("finetune", Config("first", str(tmp_path), 2), overwrite=True)
    assert content(folder) == before


def prepare(cfg):
    stage = Stage.begin("prepare", cfg, cfg.overwrite, cfg.resume)
    rows = collect_sources(cfg, stage.dir)
    found = index_images(cfg, rows, stage.dir)
    built = build_dataset(cfg, found, stage.dir)
    stage.finish(write_prepared(cfg, found, built, stage.dir))
    return stage.dir


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_toy_set(tmp_path_factory.mktemp("images"), count=8, size=72)


@pytest.fixture
def prepared(images, tmp_path):
    "A prepared run's config, and its folder."
    cfg = PrepareConfig(run="toy", out=str(tmp_path / "out"), sources=str(images / "dots"), workers=0)
    return replace(cfg, overwrite=True), prepare(cfg)


@pytest.mark.parametrize(
    "changed",
    [dict(sources="nowhere"), dict(min_side=1024), dict(framing="face"), dict(sources="OWN"), dict(sources="TABLE")],
    ids=["a path misspelt", "too small", "no faces", "its own images", "a table that lists its own images"],
)
def test_a_refused_prepare_leaves_the_earlier_one(prepared, changed, tmp_path):
    cfg, folder = prepared
    before = content(folder)
    (tmp_path / "own.csv").write_text(f"name,kind,path\nown,tree,{folder}/dataset\n")
    words = dict(OWN=str(folder / "dataset/dots"), TABLE=str(tmp_path / "own.csv"))
    changed = {name: words.get(value, value) for name, value in changed.items()}
    with pytest.raises(FakefaceError) as said:
        prepare(replace(cfg, **changed))
    assert content(folder) == before
    if changed.get("sources") in words.values():
        assert "which overwrite=True would empty first" in str(said.value)
    assert Stage.state(prepare(cfg)) == "finished" and content(folder).keys() == before.keys()


def test_the_room_of_the_earlier_copies_counts(prepared, monkeypatch):
    from fakeface.data import plan

    cfg, folder = prepared
    usage = make_dataclass("Usage", ["free"])
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: usage(2**10))
    assert Stage.state(prepare(cfg)) == "finished"


def test_copies_of_sources_that_are_no_longer_listed_are_removed(images, prepared, tmp_path):
    "Begun with one source, stopped, and continued with another."
    table = tmp_path / "sources.csv"
    cfg = replace(prepared[0], run="other", sources=str(table), overwrite=False)
    table.write_text(f"name,kind,path\nmine,folder,{images}/dots\n")
    with Stage.begin("prepare", cfg) as stage:
        earlier = build_dataset(cfg, index_images(cfg, collect_sources(cfg, stage.dir), stage.dir), stage.dir)
    by_hand = stage.dir / "dataset/mine/own.jpg"
    by_hand.write_text("no copy")
    table.write_text(f"name,kind,path\nmine,folder,{images}/stripes\n")
    folder = prepare(replace(cfg, resume=True))
    copies = {path.relative_to(folder / "dataset").as_posix() for path in folder.rglob("*__*.jpg")}
    assert len(copies) == read_json(folder / "metrics.json")["pictures"] == 32
    assert not copies & set(earlier["path"]) and by_hand.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A run with a detector, an evaluation and a report."
    out = tmp_path_factory.mktemp("out")
    toy_run(out, count=16)
    settings = TOY_TRAINING | dict(run="toy", out=str(out), epochs=1, folds=0)
    run_training_stage(train_config("finetune", **settings))
    evaluate(EvaluateConfig(run="toy", out=str(out), why_n=0, workers=0))
    run_report_stage(ReportConfig(run="toy", out=str(out)))
    return settings | dict(overwrite=True), out / "toy"


@pytest.mark.parametrize(
    "changed",
    [dict(arch="resnet51"), dict(init="OWN"), dict(replay="OWN"), dict(batch=3, processes=2)],
    ids=["a network misspelt", "its own bundle", "replay", "in the processes"],
)
def test_a_refused_training_leaves_the_earlier_one(trained, changed):
    settings, home = trained
    before = content(home / "finetune")
    own = str(home / "finetune/bundle")
    named = [name for name, value in changed.items() if "OWN" in str(value)]
    changed |= {name: changed[name].replace("OWN", own) for name in named}
    with pytest.raises(FakefaceError) as said:
        run_training_stage(train_config("finetune", **settings | changed))
    assert not named or f"{named[0]}: {own} is in" in str(said.value)
    assert content(home / "finetune") == before


def test_stopped_in_the_first_epoch_both_are_there(trained, capsys):
    settings, home = trained
    before = content(home / "finetune")

    def stop(*_):
        os.kill(os.getpid(), signal.SIGINT)

    cfg = train_config("finetune", **settings | dict(epochs=3, seed=5))
    with pytest.raises(KeyboardInterrupt):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fakeface.train.trainer.Trainer.train_step", stop)
            run_training_stage(cfg)
    folder = home / "finetune"
    assert "is kept in" in capsys.readouterr().out and Stage.state(folder) == "running"
    assert content(folder / ".before") == before and (folder / "checkpoints").exists()
    run_training_stage(replace(cfg, overwrite=False, resume=True))
    assert Stage.state(folder) == "finished" and not (folder / ".before").exists()
    assert read_json(folder / "config.json")["seed"] == 5


@pytest.mark.parametrize(
    "stage,step",
    [("evaluate", "stage.note_test_read"), ("evaluate", "stage.by_domain"), ("report", "page.write_slides")],
)
def test_a_failed_evaluation_or_report_leaves_the_earlier_one(trained, stage, step, monkeypatch):
    _, home = trained
    before = content(home / stage)

    def fails(*_, **__):
        raise FakefaceError("as it happens")

    monkeypatch.setattr(f"fakeface.{stage}.{step}", fails)
    monkeypatch.setattr("fakeface.report.page._require_one_detector", lambda *_: None)
    out = str(home.parent)
    with pytest.raises(FakefaceError, match="as it happens"):
        if stage == "evaluate":
            evaluate(EvaluateConfig(run="toy", out=out, why_n=0, workers=0, overwrite=True))
        else:
            run_report_stage(ReportConfig(run="toy", out=out, overwrite=True))
    assert content(home / stage) == before


def test_a_refused_round_leaves_the_earlier_one(tmp_path, monkeypatch):
    toy_run(tmp_path, count=16)
    settings = TOY_TRAINING | dict(run="toy", out=str(tmp_path), epochs=1, folds=0)
    run_training_stage(train_config("finetune", **settings))
    cfg = LeaveoutConfig(run="toy", out=str(tmp_path))
    folder = one_round(cfg, ["dots"])
    before = content(folder)
    again = replace(cfg, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr("fakeface.train.fit.start_training", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            one_round(again, ["dots"])
    assert content(folder) == before
    one_round(again, ["dots"])
    assert not list(folder.rglob(".before*")) and content(folder).keys() == before.keys()
