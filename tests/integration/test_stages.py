"""The stage notebooks as people start them: with papermill alone, and with the command, on a small set of their own."""

import json
import subprocess
import sys

import nbformat
import pytest
from fakeface.testing.datasets import write_toy_set

COMMAND = [sys.executable, "-c", "from fakeface.cli.main import main; raise SystemExit(main())"]


def run(root, command, *parameters):
    "Run a command with `-p name value` for each parameter."
    options = [text for name, value in parameters for text in ("-p", name, str(value))]
    quiet = dict(capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    return subprocess.run([*command, *options], cwd=root, **quiet)


def papermill(root, tmp_path, stage, *parameters):
    notebooks = [f"nbs/run_{stage}.ipynb", tmp_path / "out.ipynb"]
    command = [sys.executable, "-m", "papermill", *notebooks, "--no-progress-bar"]
    return run(root, command, ("out", tmp_path), *parameters)


def fakeface(root, tmp_path, stage, *parameters):
    return run(root, [*COMMAND, stage], ("out", tmp_path), *parameters)


both_ways = pytest.mark.parametrize("start", [papermill, fakeface])


@both_ways
def test_wrong_name_is_refused_with_the_right_one(root, tmp_path, start):
    ended = start(root, tmp_path, "finetune", ("epochz", 3))
    assert ended.returncode == 1 and "Did you mean 'epochs'" in ended.stderr
    assert not (tmp_path / "demo/finetune/stage.json").exists()


@both_ways
def test_a_name_that_resembles_nothing_is_not_likened_to_anything(root, tmp_path, start):
    ended = start(root, tmp_path, "finetune", ("lerning_rate", 0.1))
    assert ended.returncode == 1 and "There is no parameter" in ended.stderr and "'calibrate'" not in ended.stderr


@both_ways
def test_a_field_that_the_notebook_does_not_show_is_accepted_and_checked(root, tmp_path, start):
    ended = start(root, tmp_path, "pretrain", ("weight_decay", -1))
    assert ended.returncode == 1 and "weight_decay = -1" in ended.stderr and "not be negative" in ended.stderr


def test_params_lists_every_field_with_the_presets_value(root, tmp_path):
    listed = run(root, [*COMMAND, "pretrain", "--params"])
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


def test_own_images_from_two_folders_to_a_report(root, tmp_path, photos):
    "Prepare, pretrain a tiny network, finetune from its bundle, evaluate, report: the five share nothing but files."
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
        ended = fakeface(root, tmp_path, stage, ("run", "mine"), *parameters.items())
        assert ended.returncode == 0, f"{stage}: {ended.stdout}\n{ended.stderr}"
        assert json.loads((home / stage / "stage.json").read_text())["state"] == "finished"
        assert nbformat.read(home / stage / "notebook.ipynb", 4).metadata.papermill
    assert "broken.png" in "".join(path.read_text() for path in (home / "prepare").glob("*.csv"))
    assert (home / "finetune/bundle/bundle.json").exists() and (home / "evaluate/predictions.parquet").exists()
    page = (home / "report.html").read_text(encoding="utf-8")
    assert "photos" in page and 'http-equiv="refresh"' not in page
