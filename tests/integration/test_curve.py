"""The curve over the number of images: the benchmark runs on toy data, and its choice is that of the numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fakeface.testing.datasets import toy_run

CURVE = Path(__file__).resolve().parents[2] / "nbs/benchmarks/bench_curve.ipynb"
TINY = dict(domain="stripes", trains="head,last:1", counts="20", seeds="1", arch="test_resnet", weights="none")


def curve_table(rows):
    "What the notebook's function makes of rows of the curve."
    cells = json.loads(CURVE.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (source,) = [text for text in sources if "def curve_table" in text]
    space = dict(pd=pd)
    exec(source.split("\n\n\nchoice")[0], space)
    return space["curve_table"](pd.DataFrame(rows))


def line(trains, count, low, seed=1, saw=False):
    "A row of the curve whose AUC lies .05 above the lower end and below the upper one."
    about = {"domain": "new", "start": "none", "trains": trains, "images a class": count, "seed": seed}
    return about | {"start_saw": saw, "auc low": low, "auc": low + 0.05, "auc high": low + 0.1}


@pytest.mark.slow
def test_bench_curve_runs_on_toy_data(root, tmp_path):
    toy_run(tmp_path / "runs", count=48)
    given = TINY | dict(run="toy", out=tmp_path / "runs", size=64, epochs=1, table=tmp_path / "curve.csv")
    options = [text for name, value in given.items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", CURVE, tmp_path / "done.ipynb", "--no-progress-bar", *options]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
    assert ended.returncode == 0, ended.stderr[-4000:]
    curve = pd.read_csv(tmp_path / "curve.csv")
    assert curve["trains"].tolist() == ["head", "last:1"] and (curve["images a class"] == 20).all()
    assert not curve["start_saw"].any() and (curve["megabytes"] > 0).all() and (curve["ms"] > 0).all()
    assert (curve["auc low"] <= curve["auc"]).all() and (curve["auc"] <= curve["auc high"]).all()
    (chosen,) = curve_table(curve).itertuples()
    assert chosen.best == curve["trains"][curve["auc low"].idxmax()] and chosen.of == "head, last:1"
    assert not (tmp_path / "runs/toy-curve").exists(), "its training is removed when it is measured"


def test_the_choice_follows_the_lower_end():
    rows = [line("head", 10, 0.7), line("last:1", 10, 0.55), line("all", 10, 0.4)]
    rows += [line("head", 500, 0.75), line("last:1", 500, 0.78), line("all", 500, 0.8)]
    few, many = curve_table(rows).to_dict("records")
    assert (few["images a class"], few["best"], few["open"]) == (10, "head", False)
    assert few["lead"] == pytest.approx(0.15) and few["auc"] == pytest.approx(0.75)
    assert (many["images a class"], many["best"], many["open"]) == (500, "all", True)


def test_only_seeds_that_all_have_are_compared_and_no_row_of_a_start_that_saw_the_domain():
    rows = [line("head", 10, 0.5), line("head", 10, 0.9, seed=2), line("all", 10, 0.6)]
    (row,) = curve_table(rows).to_dict("records")
    assert row["best"] == "all", "seed 2 of the head has nothing to be compared with"
    assert curve_table([line("head", 10, 0.5), line("all", 10, 0.6, seed=2)])["best"].tolist() == [""]
    assert curve_table([line("head", 10, 0.5), line("all", 10, 0.9, saw=True)])["best"].tolist() == ["head"]
