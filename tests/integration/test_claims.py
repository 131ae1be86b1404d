"""What is said to be new to a detector is new by its images, not only by the name of their domain."""

import dataclasses
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from fakeface.core.files import read_json
from fakeface.data.audit import audit, write_audit
from fakeface.data.manifest import build_manifest, write_manifest
from fakeface.data.sources import scan
from fakeface.evaluate.leave_one_out import LeaveoutConfig, leave_out_rounds
from fakeface.evaluate.stage import EvaluateConfig, evaluate
from fakeface.images.jpeg import jpeg_bytes
from fakeface.models.seen import MOST_MET, NOTHING_KNOWN
from fakeface.models.storage import copy_bundle, read_bundle, read_seen
from fakeface.report.findings import collect_findings, result_groups
from fakeface.report.release import card_leaveout, card_results, shipped_card
from fakeface.report.statements import below_headline, messages, verdict
from fakeface.testing.datasets import TOY_TRAINING, toy_image
from fakeface.train.recipe import train_config
from fakeface.train.stage import run_training_stage

MANY = 500
SPLITS = dict(train=48, valid=24, test=24)
LEARNED = SPLITS["train"] + SPLITS["valid"]
CLASSES = ("real", "fake")


def images(folder, name, domain, pattern="stripes", classes=CLASSES):
    "Rows of a source, whose files are made where they are not there."
    rows = []
    for split, count in SPLITS.items():
        for label, kind in enumerate(CLASSES):
            for number in range(count if kind in classes else 0):
                path = folder / name / split / kind / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():
                    toy_image(pattern, split + name, label, number).save(path)
                rows.append(dict(path=str(path), label=kind, split=split, domain=domain, source=f"{domain}/{name}"))
    return rows


def prepared(folder, rows):
    "The stage prepare, with these rows."
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "sources.csv", index=False)
    manifest = build_manifest(scan("csv", folder / "sources.csv", "toy"), folder, workers=0)
    write_manifest(manifest, folder / "manifest.parquet")
    write_audit(audit(manifest, workers=0), folder / "audit.json")


def trained(out, run, **changed):
    "The stage finetune."
    run_training_stage(train_config("finetune", **TOY_TRAINING | dict(epochs=1, run=run, out=str(out)) | changed))


def found(out, run, **changed):
    "The stage evaluate, as the report reads it."
    evaluate(EvaluateConfig(run=run, out=str(out), why_n=0, **changed), lambda batches, **_: batches)
    return collect_findings(out / run)


def all_said(facts):
    return " ".join([below_headline(facts), *(text for _, text in verdict(facts))])


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    "Runs: a source of a domain is left out; photographs stand in two domains; images have another domain's name."
    out = tmp_path_factory.mktemp("out")
    x, y = images(out, "x", "faces"), images(out, "y", "faces", "dots")
    others = images(out, "o", "other")
    prepared(out / "part/prepare", [*x, *y, *others])
    trained(out, "part", leave_out="faces/y")
    beside = images(out, "x", "B", classes=["real"]) + images(out, "o", "B", classes=["fake"])
    prepared(out / "shared/prepare", [*x, *y, *beside])
    prepared(out / "renamed/prepare", images(out, "x", "elsewhere"))
    return out


def test_a_new_source_is_not_called_a_new_domain(out):
    facts = found(out, "part", domains="faces/y", overwrite=True)
    said = all_said(facts)
    assert "It was not trained on faces/y (of faces)." in said and "On faces/y (of faces), which it was never" in said
    assert "on faces." not in said and "On faces," not in said
    assert [row.name for group in result_groups(facts.metrics) for row in group.rows] == ["faces/y (of faces)"]
    card = shipped_card(read_bundle(out / "part/finetune/bundle"), {}, [], {}, facts.metrics)
    assert "| faces/y (of faces) | no |" in card and "| faces | no |" not in card


def test_the_same_images_under_another_name_are_not_new(out):
    facts = found(out, "renamed", bundle=str(out / "part/finetune/bundle"), overwrite=True)
    met = f"{LEARNED} of the {LEARNED} photographs and {LEARNED} of the {LEARNED} generated images that elsewhere has"
    assert facts.metrics["seen"] == dict(elsewhere="met") and facts.metrics["known"]["met"] == 0
    assert met in all_said(facts) and "never trained on" not in all_said(facts)
    assert "were in the training" not in all_said(facts), "none of those that it was tested on"
    card = card_results(facts.metrics)
    assert "| elsewhere | under another name |" in card and met in card
    assert "mean of domains" not in card, "there is but one"


def test_images_of_a_folder_of_ones_own_are_no_test_images(out):
    folder, bundle = out / "o/train", out / "marked"
    # with a face that none of these shows: they are looked at for it
    seen = dataclasses.replace(read_seen(out / "part/finetune/bundle"), faces=np.ones((1, 5), np.uint64))
    copy_bundle(out / "part/finetune/bundle", bundle, seen)
    facts = found(out, "renamed", bundle=str(bundle), extra=f"own={folder}", overwrite=True)
    met, n = 2 * SPLITS["train"], 2 * (SPLITS["train"] + SPLITS["test"])
    assert f"{met} of {n} test and extra images were in the training of part-finetune" in all_said(facts)
    assert facts.metrics["seen"]["own"] == "seen"


def test_photographs_that_stand_in_another_domain_are_not_unseen(out, capsys):
    trained(out, "shared", leave_out="faces")
    line = "leave_out = faces: 72 of its 288 training and validation images stand in B/x, too"
    assert line in capsys.readouterr().out
    facts = found(out, "shared", domains="faces")
    said = all_said(facts)
    assert f"{LEARNED} of the {2 * LEARNED} photographs that faces has" in said and "never trained on" not in said
    assert "real faces called fake" in said and "not those of unseen images" in said


def test_a_round_gives_each_domain_its_own_figures_and_says_what_it_met(out):
    trained(out, "shared", overwrite=True)
    found(out, "shared", overwrite=True)
    table = leave_out_rounds(
        LeaveoutConfig("shared", str(out), groups="faces;faces/y,B", device="cpu"), None, lambda batches, **_: batches
    )
    facts = collect_findings(out / "shared")
    rounds = {record["run"]: record for record in facts.leaveout["rounds"] if record["domain"] == "faces"}
    assert [record["claim"] for record in rounds.values()] == ["met", "unseen"]
    said = all_said(facts)
    assert "for 1 epoch without faces/y (of faces; nor B)" in said and "for 1 epoch without B (nor faces/y)" in said
    assert "1 epochs" not in said + facts.leaveout["note"]
    met = f"{LEARNED} of the {2 * LEARNED} photographs that faces has"
    assert met in said and met in facts.leaveout["note"] and met in card_leaveout(table)
    assert read_json(out / "shared/leaveout.json")["rounds"][0]["met"]
    assert messages(facts)["rounds"].startswith("Trained without faces/y and B, it reaches AUC")
    assert messages(facts)["rounds"].endswith((" on B", " on faces/y"))


def more(folder, label, count):
    "Images of one class in a folder of their own."
    folder.mkdir(parents=True)
    for number in range(count):
        toy_image("stripes", "more", label, number).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def diluted(out):
    "A test of photographs that were all trained on, among many new fakes."
    more(out / "more/fake", 1, MANY)
    (out / "more/real").mkdir()
    for number in range(10):
        shutil.copy(out / f"x/train/real/{number}.png", out / "more/real")
    about = dict(split="test", domain="web", source="web")
    web = [dict(path=str(file), label=file.parent.name, **about) for file in sorted((out / "more").glob("*/*.png"))]
    prepared(out / "diluted/prepare", [*web, *images(out, "new", "other")])
    prepared(out / "beside/prepare", images(out, "new", "other"))
    return out


def test_photographs_that_were_trained_on_are_not_new_among_many_fakes(diluted):
    bundle = str(diluted / "part/finetune/bundle")
    facts = found(diluted, "diluted", bundle=bundle, domains="web", overwrite=True)
    assert facts.metrics["known"]["met"] <= MOST_MET * facts.metrics["known"]["images"], "few of all"
    assert facts.metrics["seen"] == dict(web="seen") and "never trained on" not in all_said(facts)
    assert "other images of the same kind" not in all_said(facts), "these very images"
    assert "| web | yes |" in card_results(facts.metrics)


def test_photographs_of_a_folder_of_ones_own_are_not_new_among_many_fakes(diluted):
    bundle, folder = diluted / "part/finetune/bundle", diluted / "more"
    facts = found(diluted, "beside", bundle=str(bundle), extra=f"own={folder}", overwrite=True)
    assert facts.metrics["seen"]["own"] == "seen" and "On own, which it was never" not in all_said(facts)


def test_a_folder_of_ones_own_whose_classes_are_saved_differently_is_told(diluted, tmp_path):
    "A detector that sees no faces at all may rank such a folder well."
    for kind, name in (("real", "{}.jpg"), ("fake", "{}.png")):
        (tmp_path / kind).mkdir()
        for number in range(24):
            toy_image("dots", "own", int(kind == "fake"), number).save(tmp_path / kind / name.format(number))
    bundle = diluted / "part/finetune/bundle"
    facts = found(diluted, "beside", bundle=str(bundle), extra=f"own={tmp_path}", overwrite=True)
    assert "In own, the extra folder, the class can be told from size, format and quality" in facts.metrics["telling"]
    assert facts.metrics["telling"] in all_said(facts)


def test_a_folder_of_ones_own_whose_classes_had_another_jpeg_before_is_told(diluted, tmp_path):
    "Saved in one way at last: the header is the same, and the blocks of before are not."
    for kind in ("real", "fake"):
        (tmp_path / kind).mkdir()
        for number in range(24):
            image = toy_image("dots", "own", int(kind == "fake"), number).resize((96, 96))
            if kind == "fake":
                image = Image.open(io.BytesIO(jpeg_bytes(image, 20)))
            (tmp_path / kind / f"{number}.jpg").write_bytes(jpeg_bytes(image.crop((3, 3, 91, 91)), 95))
    bundle = diluted / "part/finetune/bundle"
    facts = found(diluted, "beside", bundle=str(bundle), extra=f"own={tmp_path}", overwrite=True)
    assert "In own, the extra folder, 8×8 blocks tell the classes apart" in facts.metrics["telling"]
    assert "header AUC" not in facts.metrics["telling"] and facts.metrics["telling"] in all_said(facts)


def test_where_the_record_of_images_has_gaps_a_name_proves_nothing(out):
    if not (out / "gaps").exists():
        copy_bundle(out / "part/finetune/bundle", out / "gaps", NOTHING_KNOWN)
    facts = found(out, "renamed", bundle=str(out / "gaps"), overwrite=True)
    said = all_said(facts)
    assert facts.metrics["seen"] == dict(elsewhere="unknown") and "never trained on" not in said
    assert "not known whether it was trained on elsewhere: the list of its training images is incomplete" in said
    assert "may have been seen" not in said, "once is enough"
    assert "| elsewhere |  |" in card_results(facts.metrics)


@pytest.fixture(scope="module")
def by_source(out):
    "A domain that is left out by its name: a large new source, and a small one whose photographs stand elsewhere, too."
    small = images(out, "x", "B", classes=["real"]) + images(out, "new", "B", classes=["fake"])
    small = [row | dict(source="B/small") for row in small]
    large = more(out / "large/real", 0, 20 * LEARNED)
    big = [dict(path=str(file), label="real", split="train", domain="B", source="B/big") for file in large.iterdir()]
    big += images(out, "big", "B", "dots")
    prepared(out / "sources/prepare", [*images(out, "x", "A"), *small, *big])
    trained(out, "sources", leave_out="B")
    return out


def test_a_small_source_is_not_hidden_among_large_ones(by_source):
    facts = found(by_source, "sources", domains="B/small", overwrite=True)
    met = f"{LEARNED} of the {LEARNED} photographs that B/small (of B) has"
    assert facts.metrics["seen"] == dict(B="met") and met in all_said(facts)
    assert "never trained on" not in all_said(facts)
    assert [part["known"] for part in facts.metrics["sources"]] == ["met under another name"]


def test_a_new_source_is_not_doubted_for_another_that_was_not_tested(out):
    if not (out / "halves").exists():
        photos = [row | dict(source="B/photos") for row in images(out, "y", "B", "dots", classes=["real"])]
        fakes = [row | dict(source="B/gen") for row in images(out, "x", "B", classes=["fake"])]
        prepared(out / "halves/prepare", [*images(out, "x", "A"), *photos, *fakes])
        trained(out, "halves", leave_out="B")
    facts = found(out, "halves", domains="B/photos,A", overwrite=True)
    assert "It was not trained on B/photos (of B)." in all_said(facts)
    assert "detector was trained on:  " not in all_said(facts) and facts.metrics["seen"]["B"] == "unseen"


def test_what_was_met_and_not_tested_leaves_no_sentence_without_a_subject(out):
    fakes = [row for row in images(out, "x", "C", classes=["fake"]) if row["split"] != "test"]
    rows = [row | dict(source="C") for row in fakes + images(out, "new", "C", classes=["real"])]
    prepared(out / "untested/prepare", [*rows, *images(out, "o", "other")])
    facts = found(out, "untested", bundle=str(out / "part/finetune/bundle"), overwrite=True)
    said = all_said(facts)
    assert facts.metrics["seen"]["C"] == "met" and "trained on: " not in said
    assert "But 72 of the 72 generated images that C has" in said
