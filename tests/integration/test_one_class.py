"""A source of photographs as a domain of its own, and a domain that only the calibration knows, through the stages."""

import pandas as pd
import pytest
from fakeface.data.audit import audit, write_audit
from fakeface.data.manifest import build_manifest, write_manifest
from fakeface.data.sources import scan
from fakeface.evaluate.stage import EvaluateConfig, evaluate
from fakeface.models.storage import read_bundle
from fakeface.report.page import ReportConfig, run_report_stage
from fakeface.report.watch import metrics_table
from fakeface.testing.datasets import TOY_TRAINING, toy_image, write_toy_set
from fakeface.train.data_choice import TrainError
from fakeface.train.recipe import train_config
from fakeface.train.stage import run_training_stage

SPLITS = dict(train=48, valid=24, test=24)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Stripes and dots of both classes, and photographs that stand alone; trained on stripes and photographs."
    out = tmp_path_factory.mktemp("out")
    folder = out / "toy/prepare"
    write_toy_set(folder / "dataset")
    found = [scan("tree", folder / "dataset", "toy")]
    for split, count in SPLITS.items():
        photos = folder / "photos" / split
        photos.mkdir(parents=True)
        for index in range(count):
            toy_image("photos", split, 0, index).save(photos / f"{index}.png")
        found.append(scan("real", photos, "photos").assign(split=split))
    manifest = build_manifest(pd.concat(found, ignore_index=True), folder, workers=0)
    write_manifest(manifest, folder / "manifest.parquet")
    write_audit(audit(manifest, workers=0), folder / "audit.json")
    run_training_stage(train_config("finetune", **settings(out), calibrate_on="dots"))
    evaluate(EvaluateConfig(run="toy", out=str(out), why_n=0))
    return out / "toy"


def settings(out):
    return TOY_TRAINING | dict(epochs=1, run="toy", out=str(out))


def metrics_of(home):
    return pd.read_json(home / "evaluate/metrics.json", typ="series")


def test_photographs_alone_have_rates_but_no_auc(home):
    photos = metrics_of(home)["result"]["photos"]
    assert photos["auc"]["value"] is None and photos["fpr"]["n"] == SPLITS["test"] and photos["unsure"]["n"]
    table = metrics_table(metrics_of(home)["result"])
    assert table.loc["photos", "auc"] == table.loc["photos", "fnr"] == "n/a: one class"
    assert "nan" not in table.to_string().lower()
    history = (home / "finetune/history.csv").read_text()
    assert "auc_stripes" in history and "auc_photos" not in history


def test_the_calibration_knows_validation_and_nothing_else_of_a_domain(home):
    bundle = read_bundle(home / "finetune/bundle")
    assert bundle.domains == ["photos", "stripes"] and bundle.calibrated_on == ["dots"]
    used = pd.DataFrame(bundle.data)
    assert set(used["split"][used["domain"] == "dots"]) == {"valid, calibration only"}
    assert used["n"][used["domain"] == "dots"].sum() == 2 * SPLITS["valid"]
    assert used["n"][used["split"] == "train"].sum() == 3 * SPLITS["train"]
    assert metrics_of(home)["seen"] == dict(stripes="seen", photos="seen", dots="calibrated")
    assert metrics_of(home)["same_split"] is True
    assert metrics_of(home)["known"]["met"] == 0, "no test image was met"


def test_card_and_report_say_it(home):
    card = (home / "finetune/bundle/README.md").read_text()
    report = run_report_stage(ReportConfig(run="toy", out=str(home.parent)))
    for text in (card, report.read_text(), report.with_suffix(".md").read_text()):
        assert "known to the calibration" in text
        assert "n/a: one class" in text and "wrong words among all" in text
        assert "valid, calibration only" in text


def test_photographs_alone_cannot_be_trained_on(home):
    with pytest.raises(TrainError, match="train: there are no fake images in photos"):
        only = TOY_TRAINING | dict(domains="photos", overwrite=True, run="toy", out=str(home.parent))
        run_training_stage(train_config("finetune", **only))
