"The stage notebooks as people start them: with papermill alone, and with the command, on a small set of one's own."

import json
import subprocess
import sys
import nbformat
import pytest
from fakeface.testing.datasets import write_toy_set

COMMAND = [sys.executable, "-c", "from fakeface.cli.cli import main; raise SystemExit(main())"]


def run(root, command, *params):
    return subprocess.run(
        [*command, *(a for n, v in params for a in ("-p", n, str(v)))],
        cwd=root,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def papermill(root, tmp_path, stage, *params):
    return run(
        root,
        [sys.executable, "-m", "papermill", f"nbs/run_{stage}.ipynb", tmp_path / "out.ipynb", "--no-progress-bar"],
        ("out", tmp_path),
        *params,
    )


def fakeface(root, tmp_path, stage, *params):
    return run(root, [*COMMAND, stage], ("out", tmp_path), *params)


@pytest.mark.parametrize("how", [papermill, fakeface])
def test_wrong_name_is_refused_with_the_right_one(root, tmp_path, how):
    r = how(root, tmp_path, "finetune", ("epochz", 3))
    assert r.returncode == 1 and "Did you mean 'epochs'" in r.stderr
    assert not (tmp_path / "demo/finetune/stage.json").exists()


def test_missing_input_names_the_stage_that_makes_it(root, tmp_path):
    r = fakeface(root, tmp_path, "finetune")
    assert r.returncode == 1 and "'prepare'" in r.stderr and "Traceback" not in r.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Two folders of pictures, one of them broken."
    folder = (write_toy_set(tmp_path_factory.mktemp("mine"), count=60, size=72) / "stripes/train").rename(
        tmp_path_factory.mktemp("own") / "photos"
    )
    (folder / "fake/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


def test_own_pictures_from_two_folders_to_a_report(root, tmp_path, photos):
    "prepare, pretrain a tiny network, finetune from its bundle, evaluate, report: five processes that share nothing but files."
    tiny = [("preset", "demo"), ("size", 32), ("batch", 16), ("epochs", 1), ("workers", 0), ("precision", "fp32")]
    steps = [
        ("prepare", ("sources", photos), ("workers", 1)),
        ("pretrain", ("arch", "test_resnet"), ("weights", "none"), ("domains", ""), *tiny),
        ("finetune", ("init", tmp_path / "mine/pretrain/bundle"), ("domains", ""), *tiny),
        ("evaluate",),
        ("report",),
    ]
    for stage, *params in steps:
        r = fakeface(root, tmp_path, stage, ("run", "mine"), *params)
        assert r.returncode == 0, f"{stage}: {r.stdout}\n{r.stderr}"
        assert json.loads((tmp_path / f"mine/{stage}/stage.json").read_text())["state"] == "finished"
        assert nbformat.read(tmp_path / f"mine/{stage}/notebook.ipynb", 4).metadata.papermill
    assert "broken.png" in "".join(p.read_text() for p in (tmp_path / "mine/prepare").glob("*.csv"))
    assert (tmp_path / "mine/finetune/bundle/bundle.json").exists() and (
        tmp_path / "mine/evaluate/predictions.parquet"
    ).exists()
    page = (tmp_path / "mine/report.html").read_text(encoding="utf-8")
    assert "photos" in page and 'http-equiv="refresh"' not in page
