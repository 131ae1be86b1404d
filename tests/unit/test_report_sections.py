"""What the rooms of the report promise beside what they show: one domain, no domain, names that could do harm."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fakeface.evaluate.robustness import grid_table
from fakeface.evaluate.scene_grid import UNTOUCHED, scene_summary, scene_table
from fakeface.metrics.figures import by_domain, by_domain_records
from fakeface.report.data_sections import training_sections
from fakeface.report.figures import report_figures
from fakeface.report.findings import StageFacts, collect_findings, result_groups, results_table
from fakeface.report.page import ReportConfig, run_report_stage
from fakeface.report.release import card_robustness, card_scenes
from fakeface.report.result_sections import (
    SCENE_COLUMNS,
    band_text,
    breakdown_section,
    gallery_sections,
    headline_cards,
    results_section,
    rounds_section,
    scenes_section,
    slider_data,
)
from fakeface.report.statements import below_headline, headline, messages, verdict
from fakeface.testing.runs import synthetic_run


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    "A run of invented scores."
    return collect_findings(synthetic_run(tmp_path_factory.mktemp("report") / "invented"))


def one_domain(metrics, name):
    "The same run, tested on one domain only."
    return dict(metrics, result={key: metrics["result"][key] for key in (name, "macro", "micro")}, extra={})


def test_with_one_domain_nothing_is_said_three_times(facts):
    alone = one_domain(facts.metrics, "hard")
    assert [len(group.rows) for group in result_groups(alone)] == [1]
    assert [len(group.rows) for group in results_section(alone).groups] == [1]
    assert results_section(alone).share == "" and headline_cards(alone)[0].name == "AUC"
    assert headline_cards(facts.metrics)[0].name == "AUC, mean of domains"


def test_table_has_a_line_for_each_domain_and_for_all(facts):
    table = results_table(facts)
    names = table.index.get_level_values(1).tolist()
    assert names == ["easy", "fair", "hard", "stranger", "combined", "mean of domains"]
    assert table.loc[("Unseen", "stranger"), "n"] == "120"


def test_scenes_are_one_line_of_the_table(facts):
    share = dict(value=0.25, low=0.2, high=0.31)
    line = dict(n=200, n_real=100, n_fake=100, scenes=10, auc=dict(value=0.9, low=0.85, high=0.94), changed=share)
    line |= dict(fpr=share, fnr=share, unsure=share, fake_to_real=30, real_to_fake=12)
    groups = result_groups(facts.metrics | dict(scenes=line))
    assert len(groups) == len(result_groups(facts.metrics)) + 1 and len(groups[-1].rows) == 1
    cells = [cell.text for cell in groups[-1].rows[0].cells]
    assert cells == ["0.900", "–", "–", "–", "–", "25.0%", "25.0%", "25.0%", "–"]


def test_scenes_of_one_domain_have_no_mean():
    figures = {name: 0.2 for key in SCENE_COLUMNS for name in (key, f"{key}_low", f"{key}_high")}
    counts = dict(n=40, fake_to_real=3, real_to_fake=1)
    scenes, domains = ("as it is", "padded", "turned"), ("easy", "hard", "macro")
    rows = pd.DataFrame([dict(scene=scene, domain=name, **figures, **counts) for scene in scenes for name in domains])
    section = scenes_section(rows)
    assert section.text.startswith("2 kinds of files made of 40 images")
    assert section.table.rows[1][-2:] == ["3", "1"]
    lone = scenes_section(rows.query("domain != 'hard'"))
    assert [row[1] for row in lone.table.rows] == ["easy"] * 3


def test_what_was_not_run_has_no_section(facts, tmp_path):
    nothing = collect_findings(tmp_path)
    assert scenes_section(None) is None and rounds_section(None) is None
    assert breakdown_section(None) == [] and gallery_sections(nothing) == []
    assert "no unsure band" in band_text((0.4, 0.4), facts.metrics["result"]["macro"])
    sections = gallery_sections(facts)
    assert sections and all(not section.items and "could not be read" in section.text for section in sections)


def test_a_part_with_one_class_has_no_auc(facts):
    hard = facts.metrics["result"]["hard"]
    camera = dict(part="camera", n=60, n_real=60, n_fake=0, auc=None, fnr=None)
    (table,) = breakdown_section(dict(breakdown=dict(source=[camera | {k: hard[k] for k in ("accuracy", "fpr")}])))
    assert table.rows[0][:3] == ["camera", "60 (60 real, 0 fake)", "–"]


def test_slider_counts_what_the_stage_counted_and_cannot_end_the_script(facts):
    test = facts.pred[facts.pred.split == "test"]
    domains = json.loads(slider_data(facts.metrics, test))["domains"]
    for name in ("easy", "fair", "hard"):
        real, fake = domains[name]
        confusion = facts.metrics["result"][name]["confusion"]
        assert sum(score >= facts.metrics["threshold"] for score in real) == confusion[0][1]
        assert sum(score < facts.metrics["threshold"] for score in fake) == confusion[1][0]
        assert real == sorted(real) and fake == sorted(fake)
    assert "</script" not in slider_data(facts.metrics, test.assign(domain="</script>"))


def with_metrics(facts, **changed):
    "The same run with other results."
    evaluated = replace(facts.stages["evaluate"], metrics=facts.metrics | changed)
    return replace(facts, stages=facts.stages | dict(evaluate=evaluated))


def test_images_that_were_trained_on_are_no_others_of_the_same_kind(facts):
    seen = dict.fromkeys(facts.metrics["seen"], "seen")
    alike = "It was trained on other images of the same kind."
    assert alike in below_headline(with_metrics(facts, seen=seen))
    known = dict(images=360, met=360, sentence="360 of 360 valid images were in the training of invented.")
    valid = with_metrics(facts, seen=seen, split="valid", known=known)
    assert headline(valid).startswith("360 of 360") and alike not in below_headline(valid)


def test_copies_are_said_and_counted_once(facts):
    result = {
        name: record | (dict(n_groups_fake=9, n_distinct_fake=9) if name in ("hard", "micro") else {})
        for name, record in facts.metrics["result"].items()
    }
    copied = with_metrics(facts, result=result)
    assert headline(copied).startswith("Not known: 180 real and 9 generated images (copies of one image count once)")
    said = [each.text for each in verdict(copied)]
    assert any("60 generated images of 9 groups in hard" in text and "too narrow" in text for text in said)
    assert not any("groups in" in each.text for each in verdict(facts))


@pytest.mark.parametrize("trains, says", [("head", "A head was fitted"), ("all", "No training")])
def test_training_without_epochs_says_what_was_done_and_with_what(trains, says):
    metrics = dict(best=0.9, select="auc_macro", best_epoch=0, temperature=1.31, bias=0.1, threshold="youden")
    metrics |= dict(thresholds=dict(youden=0.42), data=[dict(domain="mine", split="train", source="", n=9)])
    metrics["data"][0]["class"] = "real"
    history = pd.DataFrame([dict(epoch=0, train_loss=None, select=0.9)])
    found = StageFacts(history=history, metrics=metrics, config=dict(trains=trains, bn_batches=0))
    _, section = training_sections(dict(pretrain=StageFacts(), finetune=found))
    assert section.text.startswith(says) and "BatchNorm" not in section.text and section.fig is None
    assert "temperature 1.310" in section.text
    assert [table.caption for table in section.tables] == ["Images that were used"]


ONE_CLASS = (dict(easy=0), dict(easy=1), dict(easy=0, hard=1))
MEASURED_ON_COPIES = ("robustness", "scenes", "robustness scenes")


def one_class_run(home, kinds, measured):
    "A run whose domains have images of one class each, with its grid of corruptions, its scenes, or both."
    folder = synthetic_run(home) / "evaluate"
    pred = pd.read_parquet(folder / "predictions.parquet")
    pred = pred.loc[pred.label == pred.domain.map(kinds)]
    pred.to_parquet(folder / "predictions.parquet", index=False)
    metrics = json.loads((folder / "metrics.json").read_text())
    threshold, band = metrics["threshold"], tuple(metrics["band"])
    result = by_domain_records(by_domain(pred, threshold, band=band, draws=0))
    metrics |= dict(result=result, seen=dict.fromkeys(kinds, "seen"), extra={})
    if "robustness" in measured:
        names = ["none", "JPEG 50", "blur 1"]
        under = [pred.assign(corruption=name) for name in names]
        grid_table(pd.concat(under), names, threshold).to_csv(folder / "robustness.csv", index=False)
    if "scenes" in measured:
        words = np.where(pred.p_fake >= threshold, "fake", "real")
        copies = pred.assign(scene=UNTOUCHED, word=words, earned=True, whole=True)
        table = scene_table(pd.concat([copies, copies.assign(scene="padded", word="unsure")]))
        table.to_csv(folder / "scenes.csv", index=False)
        metrics["scenes"] = scene_summary(table)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return home


@pytest.mark.parametrize("measured", MEASURED_ON_COPIES)
@pytest.mark.parametrize("kinds", ONE_CLASS, ids=str)
def test_images_of_one_class_are_reported_without_the_others_figures(tmp_path, monkeypatch, kinds, measured):
    home = one_class_run(tmp_path / "out/one", kinds, measured)
    figures = {}

    def noted(facts):
        figures.update(report_figures(facts))
        return figures

    # the page's own: to draw them again takes a while
    monkeypatch.setattr("fakeface.report.contents.report_figures", noted)
    page = run_report_stage(ReportConfig(run="one", out=str(tmp_path / "out")))
    facts = collect_findings(home)
    said = [statement.text for statement in verdict(facts)] + list(messages(facts).values())
    said += [text for figure in figures.values() for text in (figure.alt, figure.caption)]
    cards = [
        card_robustness(facts.robustness) if "robustness" in measured else "",
        card_scenes(facts.scenes) if "scenes" in measured else "",
    ]
    for text in (*said, *cards, page.with_suffix(".md").read_text()):
        assert not re.search(r"\bnan\b", text), text
    expected = {"robust_accuracy", "robust_errors", "robust_jpeg"} if "robustness" in measured else set()
    assert {name for name in figures if name.startswith("robust")} == expected, "no AUC, no heat-map of it"
    assert ("scenes" in figures) == ("scenes" in measured)
    labels = set(kinds.values())
    tested = below_headline(facts)
    assert (" photographs fake." in tested, "it found" in tested) == (0 in labels, 1 in labels)
    if "robustness" in measured:
        alt = figures["robust_errors"].alt
        assert ("most called fake" in alt, "most missed" in alt) == (0 in labels, 1 in labels)
    if "scenes" in measured:
        assert ("most fakes called real" in figures["scenes"].alt) == (1 in labels)
