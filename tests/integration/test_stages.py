"""The stage notebooks as people start them: with papermill alone, and with the command, on a small set of their own."""

import json
import re
import subprocess
import sys
from functools import partial

import nbformat
import pytest
from fakeface.core.config import split_csv, stage_config
from fakeface.core.project import FakefaceError
from fakeface.core.stages import Stage
from fakeface.data.demo import DEMO_SIZE
from fakeface.data.demo_plan import DEMO_DOMAINS
from fakeface.data.prepare import PrepareConfig
from fakeface.testing.datasets import write_toy_set
from fakeface.train.data_choice import prepared_manifest
from fakeface.train.recipe import stage_train_config

COMMAND = [sys.executable, "-c", "from fakeface.cli.main import main; raise SystemExit(main())"]


def run(root, command, *parameters):
    "Run a command with `-p name value` for each parameter."
    options = [text for name, value in parameters for text in ("-p", name, str(value))]
    quiet = dict(capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    return subprocess.run([*command, *options], cwd=root, **quiet)


def papermill(root, tmp_path, stage, *parameters, option="--no-progress-bar"):
    notebooks = [f"nbs/run_{stage}.ipynb", tmp_path / "out.ipynb"]
    command = [sys.executable, "-m", "papermill", option, *notebooks]
    return run(root, command, ("out", tmp_path), *parameters)


def fakeface(root, tmp_path, stage, *parameters):
    return run(root, [*COMMAND, stage], ("out", tmp_path), *parameters)


both_ways = pytest.mark.parametrize("start", [papermill, fakeface])


@both_ways
def test_wrong_name_is_refused_with_the_right_one(root, tmp_path, start):
    ended = start(root, tmp_path, "finetune", ("epochz", 3))
    assert ended.returncode == 1 and "Did you mean 'epochs'" in ended.stderr
    assert not (tmp_path / "demo/finetune/stage.json").exists()


def test_a_name_that_resembles_nothing_is_not_likened_to_anything(root, tmp_path):
    ended = fakeface(root, tmp_path, "finetune", ("lerning_rate", 0.1))
    assert ended.returncode == 1 and "There is no parameter" in ended.stderr and "'calibrate'" not in ended.stderr


@both_ways
def test_a_field_that_the_notebook_does_not_show_is_accepted_and_checked(root, tmp_path, start):
    ended = start(root, tmp_path, "pretrain", ("weight_decay", -1))
    assert ended.returncode == 1 and "weight_decay = -1" in ended.stderr and "not be negative" in ended.stderr


def test_params_lists_every_field_with_the_presets_value(root, tmp_path):
    # a run that nothing is known of: after `make demo`, the run called demo has a preset of its own
    listed = run(root, [*COMMAND, "pretrain", "--params"], ("run", "new"))
    values = {line.split()[0]: line.split()[1] for line in listed.stdout.splitlines()}
    assert values["weight_decay"] == "0.0001" and values["batch"] == "200" and values["preset"] == "'fakeface'"
    demo = run(root, [*COMMAND, "pretrain", "--params"], ("preset", "demo"))
    assert "\n  batch " in demo.stdout and dict(line.split()[:2] for line in demo.stdout.splitlines())["batch"] == "32"


def test_missing_input_names_the_stage_that_makes_it(root, tmp_path):
    ended = fakeface(root, tmp_path, "finetune")
    assert ended.returncode == 1 and "'prepare'" in ended.stderr and "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Two folders of images, one image of them broken."
    toys = write_toy_set(tmp_path_factory.mktemp("mine"), count=60, size=72)
    folder = (toys / "stripes/train").rename(tmp_path_factory.mktemp("own") / "photos")
    (folder / "fake/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


EPOCH = re.compile(r"^(?:\[.*\] |.* - INFO - )?(epoch +\d+  loss .*)$", re.MULTILINE)  # as papermill's log has it


def epochs_shown(ended) -> list[str]:
    "The lines about an epoch that a command has shown in the terminal."
    return EPOCH.findall(f"{ended.stdout}\n{ended.stderr}")


def test_the_option_that_shows_epochs_is_where_papermill_is(root):
    "papermill has no other way to show what a stage prints; every place that says so names the option."
    readme = (root / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^papermill .*$", readme, re.MULTILINE)
    assert command.startswith("papermill --log-output nbs/run_pretrain.ipynb ")
    for stage in ("pretrain", "finetune"):
        assert "`papermill` with the option `--log-output`" in (root / f"nbs/run_{stage}.ipynb").read_text()


def opened(root, stage, **injected) -> dict:
    "What `globals()` of a stage's notebook holds after its parameters cell and the one that papermill adds."
    cells = nbformat.read(root / f"nbs/run_{stage}.ipynb", 4).cells
    (shown,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    added = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in injected.items())])
    space = dict(In=["", shown, added])
    exec(f"{shown}\n{added}", space)
    return space


def test_prepare_then_pretrain_with_their_defaults(root, tmp_path):
    "What the second notebook chooses by itself fits what the first one leaves by itself."
    prepared = stage_config(PrepareConfig, opened(root, "prepare", out=str(tmp_path)))
    asked = opened(root, "pretrain", out=str(tmp_path))
    with pytest.raises(FakefaceError, match="run the stage 'prepare' first"):
        prepared_manifest(stage_train_config("pretrain", asked))

    Stage.begin("prepare", prepared).finish({})
    cfg = stage_train_config("pretrain", asked)
    assert cfg.run == prepared.run and cfg.preset == "demo"
    assert set(split_csv(cfg.domains)) <= set(DEMO_DOMAINS) and cfg.size <= DEMO_SIZE


@pytest.mark.slow
@both_ways
def test_prepare_then_pretrain_run_with_nothing_said(root, tmp_path, start):
    for stage in ("prepare", "pretrain"):
        ended = start(root, tmp_path, stage)
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert (tmp_path / "demo/pretrain/bundle/bundle.json").exists()


def test_own_images_from_two_folders_to_a_report(root, tmp_path, photos):
    """Prepare, pretrain a tiny network, finetune from its bundle, evaluate, report: the five share nothing but files.
    One of them with papermill alone: with --log-output it shows a line an epoch, as the command does."""
    tiny = dict(preset="demo", domains="", size=32, batch=16, epochs=1, workers=0, precision="fp32")
    stages = dict(
        prepare=dict(sources=photos, workers=1),
        pretrain=dict(arch="test_resnet", weights="none", **tiny),
        finetune=dict(init=tmp_path / "mine/pretrain/bundle", **tiny),
        evaluate={},
        report={},
    )
    home = tmp_path / "mine"
    for stage, parameters in stages.items():
        start = partial(papermill, option="--log-output") if stage == "finetune" else fakeface
        ended = start(root, tmp_path, stage, ("run", "mine"), *parameters.items())
        assert ended.returncode == 0, f"{stage}: {ended.stdout}\n{ended.stderr}"
        assert json.loads((home / stage / "stage.json").read_text())["state"] == "finished"
        assert len(epochs_shown(ended)) == (stage in ("pretrain", "finetune")), f"{ended.stdout}\n{ended.stderr}"
        kept = tmp_path / "out.ipynb" if stage == "finetune" else home / stage / "notebook.ipynb"
        assert nbformat.read(kept, 4).metadata.papermill
    assert "broken.png" in "".join(path.read_text() for path in (home / "prepare").glob("*.csv"))
    assert (home / "finetune/bundle/bundle.json").exists() and (home / "evaluate/predictions.parquet").exists()
    page = (home / "report.html").read_text(encoding="utf-8")
    assert "photos" in page and 'http-equiv="refresh"' not in page
