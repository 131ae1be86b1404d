"""Domains whose names look like numbers, or like nothing, keep them from one stage's file to the next."""

import numpy as np
import pandas as pd
import pytest
from fakeface.evaluate import cross_validate
from fakeface.report.findings import _csv
from fakeface.train.recipe import train_config

NAMES = ["2024", "007", "NA", "nan", "1e5", "true", "None"]


@pytest.fixture
def rows() -> pd.DataFrame:
    "Four images of each class of each domain."
    paths = [f"{name}/{label}/{i}.jpg" for name in NAMES for label in (0, 1) for i in range(4)]
    domain, label, _ = zip(*(path.split("/") for path in paths))
    return pd.DataFrame(dict(path=paths, domain=domain, label=np.array(label, int), split="train", group=paths))


def test_no_image_is_lost_between_the_parts_of_a_cross_validation(tmp_path, rows, monkeypatch):
    def trained(cfg, table, folder):
        (folder / "bundle").mkdir(parents=True)

    def scored(bundle, held, device):
        return held.assign(p_fake=0.5, pred=0)[["path", "domain", "label", "p_fake", "pred"]]

    monkeypatch.setattr(cross_validate, "fit", trained)
    monkeypatch.setattr(cross_validate, "_scores_of", scored)
    monkeypatch.setattr(cross_validate, "_begin_parts", lambda folder, *_: folder.mkdir() or "")
    part = np.arange(len(rows)) % 4
    cfg = train_config("finetune", "demo", folds=4)
    got = cross_validate.out_of_fold(cfg, rows, part, tmp_path / "parts")
    assert len(got) == len(rows) and got.groupby("domain").size().to_dict() == dict.fromkeys(NAMES, 8)


def test_a_report_reads_the_names_that_were_written(tmp_path, rows):
    rows.assign(auc=0.5).to_csv(tmp_path / "figures.csv", index=False)
    assert _csv(tmp_path / "figures.csv")["domain"].tolist() == rows["domain"].tolist()


def test_of_one_person_nothing_is_shown():
    from fakeface.evaluate.before_after import compare_scores, headline_of, is_better
    from fakeface.models.bundle import Bundle

    label = np.repeat([0, 1], 25)
    before = pd.DataFrame(dict(path=np.arange(50).astype(str), domain="mine", label=label, p_fake=0.5))
    # the photographs show one person
    before["group"] = np.where(label == 0, "anna", before["path"])
    after = before.assign(p_fake=0.1 + 0.8 * label)
    bundle = Bundle("toy", "test_resnet", None, band=[0.4, 0.6])
    table = compare_scores(before, after, (bundle, bundle))
    assert not is_better(table) and (table.auc_before[0], table.auc_after[0]) == (0.5, 1.0)
    said = headline_of(table, "start")
    assert "not shown to be better" in said and "[-1.000 to +1.000]" in said
    alone = before.drop(columns="group")
    assert is_better(compare_scores(alone, after, (bundle, bundle))), "fifty images that are not of one person"
