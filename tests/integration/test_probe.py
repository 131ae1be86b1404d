"""A head on a frozen transformer through every stage: features, head, ONNX, evaluation, report, one's own images."""

import numpy as np
import pandas as pd
import pytest
import torch

from fakeface.core.files import read_json
from fakeface.core.project import ConfigError
from fakeface.data.manifest import read_manifest
from fakeface.evaluate.predict import pick_split
from fakeface.evaluate.stage import EvaluateConfig, evaluate
from fakeface.images.decode import open_image
from fakeface.images.preprocess import eval_views, normalise
from fakeface.infer.detector import Detector
from fakeface.models.bundle import p_fake
from fakeface.models.persistence import load_model, require_one_network
from fakeface.report.page import ReportConfig, run_report_stage
from fakeface.testing.datasets import TOY_TRAINING, toy_run
from fakeface.train.recipe import train_config
from fakeface.train.stage import run_training_stage


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    "The root of all runs, and the folder of a run whose head was fitted on a random transformer's features."
    root = tmp_path_factory.mktemp("runs")
    home = toy_run(root, count=32)
    run_training_stage(settings(root))
    return root, home


def settings(root, **changes):
    about = dict(trains="head", arch="test_vit", augment="mild", augmented=1, out=str(root), run="toy")
    return train_config("finetune", **TOY_TRAINING | about | changes)


def test_weights_onnx_and_detector_are_one_network(probe):
    root, home = probe
    bundle = home / "finetune/bundle"
    assert require_one_network(bundle) > 0
    network, record = load_model(bundle)
    rows = pick_split(read_manifest(home / "prepare/manifest.parquet"), [], "test")
    paths = [home / "prepare" / path for path in rows.path[:6]]
    views = np.concatenate([normalise(eval_views(open_image(path), record.spec), record.spec) for path in paths])
    with torch.no_grad():
        expected = p_fake(network(torch.from_numpy(views)).numpy(), record.temperature, record.bias)
    verdicts = Detector.load(bundle).check_many(paths, framing="centre")
    np.testing.assert_allclose([verdict.p_fake for verdict in verdicts], expected, atol=1e-3)


def test_it_is_evaluated_and_reported_like_any_other(probe):
    root, home = probe
    metrics = evaluate(EvaluateConfig("toy", str(root), device="cpu", why_n=4))
    assert metrics["result"]["macro"]["auc"]["value"] > 0.8, "stripes are seen by random features as well"
    page = run_report_stage(ReportConfig("toy", str(root)))
    text = page.read_text(encoding="utf-8")
    assert "test_vit" in text and len(text) > 20_000
    record = read_json(home / "finetune/metrics.json")
    assert record["epochs"] == 0 and record["megabytes"] > 0 and record["ms_an_image"] > 0


def test_a_second_run_reads_the_features_of_the_first(probe, monkeypatch):
    root, home = probe
    import fakeface.train.features as features

    def never(*_):
        raise AssertionError("the backbone ran again")

    store = next((root / "features").iterdir())
    before = {path.name: path.stat().st_mtime_ns for path in store.glob("*.f32")}
    monkeypatch.setattr(features, "features_of", never)
    again = run_training_stage(settings(root, run="toy", overwrite=True, epochs=7, batch=8))
    assert again["valid"]["macro"]["auc"]["value"] > 0.8
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("*.f32")} == before
    strengths = pd.read_csv(home / "finetune/strength.csv")
    assert strengths.loss.min() < np.log(2), "better than a coin on groups that were held out"


def test_a_size_that_is_no_number_of_patches_is_refused_before_anything_is_read(probe):
    root, _ = probe
    with pytest.raises(ConfigError, match="patches of 16 px"):
        run_training_stage(settings(root, size=40, overwrite=True))
