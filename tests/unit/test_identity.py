"""One thing is not another without a word: the network of a bundle, a manifest, image files, a checkpoint's disk."""

import ast
import dataclasses
import errno
import json
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors import SafetensorError

from fakeface.core import files
from fakeface.core.files import DiskFullError, atomic_dir, sha256_file, to_json, write_atomic
from fakeface.infer.detector import Detector
from fakeface.infer.reference import add_reference
from fakeface.infer.verdict import InferError
from fakeface.models.bundle import INDEX, ONNX, WEIGHTS
from fakeface.models.storage import read_bundle
from fakeface.testing.bundles import brightness_onnx, tiny_bundle


def swap_network(folder, data):
    "Another network, with its hash corrected, as a careful attacker would."
    (folder / ONNX).write_bytes(data)
    record = json.loads((folder / INDEX).read_text())
    record["files"][ONNX] = sha256_file(folder / ONNX)
    (folder / INDEX).write_text(json.dumps(record))


def test_another_network_is_another_identity(tmp_path):
    was = tiny_bundle(tmp_path / "tiny")
    swap_network(tmp_path / "tiny", brightness_onnx(-3.0)[1])
    assert read_bundle(tmp_path / "tiny").files[WEIGHTS] == was.files[WEIGHTS]
    assert read_bundle(tmp_path / "tiny").hash != was.hash


def test_an_inverted_network_is_refused_by_the_score_it_is_known_by(tmp_path):
    tiny_bundle(tmp_path / "tiny")
    add_reference(tmp_path / "tiny")
    assert Detector.load(tmp_path / "tiny").check(Image.new("RGB", (64, 64), "white")).label == "fake"
    swap_network(tmp_path / "tiny", brightness_onnx(-3.0)[1])
    with pytest.raises(InferError, match="another network"):
        Detector.load(tmp_path / "tiny")


@pytest.mark.parametrize(
    "change",
    [
        dict(temperature=2.0),
        dict(bias=0.1),
        dict(thresholds={"0.5": 0.4}),
        dict(band=[0.1, 0.2]),
        dict(framing="face"),
        dict(limits=dict(least_side=2)),
    ],
    ids=lambda change: next(iter(change)),
)
def test_identity_covers_all_that_makes_a_word(tmp_path, change):
    bundle = tiny_bundle(tmp_path / "tiny")
    assert dataclasses.replace(bundle, **change).hash != bundle.hash
    assert dataclasses.replace(bundle, spec=dataclasses.replace(bundle.spec, size=96)).hash != bundle.hash


def test_resume_refuses_rows_of_another_network(tmp_path, monkeypatch, capsys):
    from fakeface.cli.main import main

    tiny_bundle(tmp_path / "tiny")
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    monkeypatch.chdir(tmp_path)
    asked = ["check", "white.png", "--bundle", "tiny", "--csv", "rows.csv", "--resume"]
    assert main(asked) == 0
    swap_network(tmp_path / "tiny", brightness_onnx(-3.0)[1])
    assert main(asked) == 2
    assert "rows.csv" in capsys.readouterr().err


def test_the_shipped_detector_is_known_by_a_score(root):
    bundle = read_bundle(root / "outputs/models/fakeface-lite0")
    assert "pattern 0" in [score["name"] for score in bundle.reference]
    assert f"Identity of this bundle: `{bundle.hash[:12]}`" in (
        root / "outputs/models/fakeface-lite0/README.md"
    ).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    "A toy run that is prepared; tests copy it."
    from fakeface.testing.datasets import toy_run

    out = tmp_path_factory.mktemp("identity")
    toy_run(out, "toy", count=12, size=48)
    return out


@pytest.fixture
def out(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "out")


def exchange_labels(manifest, split):
    "Exchange the labels of a split in a manifest, with the project's own functions."
    from fakeface.data.manifest import read_manifest, write_manifest

    table = read_manifest(manifest)
    table.loc[table.split == split, "label"] = 1 - table.label
    write_manifest(table, manifest)


def toy_config(out, stage="pretrain", **changes):
    from fakeface.testing.datasets import TOY_TRAINING
    from fakeface.train.recipe import train_config

    return train_config(stage, **dict(TOY_TRAINING, run="toy", out=str(out), epochs=1) | changes)


def toy_evaluation(out, **changes):
    from fakeface.evaluate.stage import EvaluateConfig

    return EvaluateConfig(run="toy", out=str(out), workers=1, why_n=0, **changes)


def some_bundle(out, stage="finetune"):
    tiny_bundle(out / "toy" / stage / "bundle", size=48)


def test_exchanged_labels_stop_every_stage(out):
    from fakeface.core.project import FakefaceError
    from fakeface.evaluate.stage import evaluate
    from fakeface.report.page import ReportConfig, run_report_stage
    from fakeface.train.stage import run_training_stage

    some_bundle(out)
    exchange_labels(out / "toy/prepare/manifest.parquet", "test")
    for stage in (
        lambda: run_training_stage(toy_config(out)),
        lambda: evaluate(toy_evaluation(out)),
        lambda: run_report_stage(ReportConfig(run="toy", out=str(out))),
    ):
        with pytest.raises(FakefaceError, match="has changed since it was audited"):
            stage()


def test_a_set_prepared_anew_is_not_the_one_that_was_trained_on(out):
    from fakeface.core.files import read_json, write_json
    from fakeface.core.project import FakefaceError
    from fakeface.data.audit import audit, write_audit
    from fakeface.data.manifest import read_manifest
    from fakeface.evaluate.stage import evaluate
    from fakeface.train.stage import run_training_stage

    some_bundle(out)
    run_training_stage(toy_config(out))
    recorded = read_json(out / "toy/pretrain/env.json")["manifest_hash"]
    write_json(out / "toy/finetune/env.json", dict(manifest_hash=recorded))
    manifest = out / "toy/prepare/manifest.parquet"
    exchange_labels(manifest, "test")
    write_audit(audit(read_manifest(manifest), grid=0), out / "toy/prepare/audit.json")
    with pytest.raises(FakefaceError, match="pretrain was trained on"):
        run_training_stage(toy_config(out, "finetune", init=""))
    with pytest.raises(FakefaceError, match="finetune was trained on"):
        evaluate(toy_evaluation(out))
    # on purpose: the bundle is named
    named = toy_evaluation(out, bundle=str(out / "toy/finetune/bundle"))
    assert evaluate(named, lambda images, desc: images)["test_reads"] == 1


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_changed_image_stops_evaluation_and_training(out, damage):
    from fakeface.core.project import FakefaceError
    from fakeface.data.manifest import image_path, read_manifest
    from fakeface.evaluate.stage import evaluate
    from fakeface.train.stage import run_training_stage

    some_bundle(out)
    table = read_manifest(out / "toy/prepare/manifest.parquet")
    for split in ("test", "train"):
        file = image_path(table[table.split == split].iloc[3], table.attrs["root"])
        if damage == "gone":
            file.unlink()
        else:
            # the same image to the eye, another file
            image = Image.open(file)
            image.putpixel((0, 0), (0, 0, 0))
            image.save(file)
    with pytest.raises(FakefaceError, match="1 of 24 image files are missing or have changed"):
        evaluate(toy_evaluation(out))
    with pytest.raises(FakefaceError, match="1 of .* image files are missing or have changed"):
        run_training_stage(toy_config(out))
    assert not (out / "toy/evaluate").exists() and not (out / "toy/pretrain").exists()


def test_labels_exchanged_in_the_file_itself_are_noticed(out):
    from fakeface.data.manifest import ManifestError, read_manifest

    manifest = out / "toy/prepare/manifest.parquet"
    table = pd.read_parquet(manifest)
    table["label"] = (1 - table.label).astype("int8")
    table.to_parquet(manifest)
    with pytest.raises(ManifestError, match="damaged, or was changed by hand"):
        read_manifest(manifest)


def take_seal_off(file):
    "The record as a version without seals would have written it."
    from fakeface.data.manifest import read_manifest

    if file.suffix == ".parquet":
        table = read_manifest(file)
        table.attrs.pop("root")
        table.to_parquet(file)
        return
    record = json.loads(file.read_text())
    del record["seal"]
    file.write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["manifest.parquet", "audit.json"])
def test_what_has_no_seal_stops_every_stage(out, name):
    from fakeface.core.project import FakefaceError
    from fakeface.evaluate.leave_one_out import LeaveoutConfig, leave_out_rounds
    from fakeface.evaluate.stage import evaluate
    from fakeface.report.page import ReportConfig, run_report_stage
    from fakeface.train.stage import run_training_stage

    some_bundle(out)
    take_seal_off(out / "toy/prepare" / name)
    stages = [
        lambda: run_training_stage(toy_config(out)),
        lambda: evaluate(toy_evaluation(out)),
        lambda: run_report_stage(ReportConfig(run="toy", out=str(out))),
    ]
    if name == "manifest.parquet":
        # its rounds begin with a training, which reads the audit
        stages.append(lambda: leave_out_rounds(LeaveoutConfig(run="toy", out=str(out))))
    for stage in stages:
        with pytest.raises(FakefaceError, match=f"{name} has no seal.*Run prepare again with overwrite=True"):
            stage()
    assert sorted(path.name for path in (out / "toy").iterdir()) == ["finetune", "prepare"]


def test_an_audit_that_was_made_to_pass_is_refused(out):
    from fakeface.core.project import FakefaceError
    from fakeface.train.stage import run_training_stage

    audit = out / "toy/prepare/audit.json"
    audit.write_text(audit.read_text().replace('"allow_bias": null', '"allow_bias": "none of your business"'))
    with pytest.raises(FakefaceError, match="audit.json is damaged, or was changed by hand"):
        run_training_stage(toy_config(out))


def test_a_checkpoint_on_a_full_disk_says_so(tmp_path, monkeypatch):
    import torch

    from fakeface.train import checkpoint

    real_save = checkpoint.save_file

    def on_a_disk_for_one(tensors, file):
        if file.stem == "optimizer":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real_save(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", on_a_disk_for_one)
    tensors = dict(model=dict(w=torch.zeros(4)), optimizer={"0.momentum_buffer": torch.zeros(100_000)})
    with pytest.raises(DiskFullError, match="disk is full.*step-000000007"):
        checkpoint.save_checkpoint(tmp_path, dict(step=7), tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["I/O error: No space left on device (os error 28)", "(os error 112)"])
def test_a_library_that_only_talks_of_a_full_disk(tmp_path, words):
    with pytest.raises(DiskFullError, match="bundle"), atomic_dir(tmp_path / "bundle"):
        raise ValueError(words)


@pytest.fixture
def repository(tmp_path):
    "A bundle that somebody keeps in a repository."
    path = tmp_path / "bundle"
    with atomic_dir(path) as unfinished:
        (unfinished / "a.txt").write_text("first")
    for name in (".git", ".gitattributes"):
        (path / name).mkdir()
    return path


def replaced(path):
    with atomic_dir(path, keep_hidden=True) as unfinished:
        (unfinished / "a.txt").write_text("second")


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "another's"), KeyboardInterrupt()])
@pytest.mark.parametrize("fails", [".git", ".gitattributes", "bundle"])
def test_what_cannot_be_replaced_whole_is_as_it_was(repository, monkeypatch, fails, error):
    "A colleague's repository in a shared folder cannot be moved; nor can the new folder be renamed, say."
    real_replace, was_raised = os.replace, []

    def replace(source, target):
        if Path(target).name == fails and not was_raised:
            was_raised.append(True)
            raise error
        return real_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(type(error)):
        replaced(repository)
    assert was_raised and (repository / "a.txt").read_text() == "first"
    assert {path.name for path in repository.iterdir()} == {"a.txt", ".git", ".gitattributes"}
    assert list(repository.parent.iterdir()) == [repository], "nothing is left beside it"


def test_interrupted_while_it_is_synced_hidden_entries_have_come_along(repository, monkeypatch):
    real_sync, parent = files._sync, repository.parent

    def sync(path):
        if path == parent:
            raise KeyboardInterrupt
        real_sync(path)

    monkeypatch.setattr(files, "_sync", sync)
    with pytest.raises(KeyboardInterrupt):
        replaced(repository)
    assert (repository / "a.txt").read_text() == "second" and (repository / ".git").is_dir()
    assert list(parent.iterdir()) == [repository]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_syncs_no_folder(repository, monkeypatch, number):
    "As VirtualBox shares one; a disk that fails is another matter, and so is a file."
    real_sync = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            replaced(repository)
        return
    replaced(repository)
    assert (repository / "a.txt").read_text() == "second"


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), atomic_dir(tmp_path / "bundle"):
        raise PermissionError(errno.EACCES, "no")
    write_atomic(tmp_path / "a", to_json(dict(a=np.float32(1))))
    assert json.loads((tmp_path / "a").read_text()) == {"a": 1.0}


# where the beginning of a hash is no identity: a place in [0, 1), a kind of table, names that are counted up
NO_IDENTITY = {
    "data/frames.py": "frames_hash",
    "data/groups.py": "_image_names",
    "data/harmonise.py": "_names",
    "evaluate/leave_one_out.py": "round_name",
    "images/header.py": "_tables_hash",
    "report/release.py": "restate_identity",
    "train/data_choice.py": "_place_of",
}


def shortened_hashes(tree):
    "Hashes of which fewer than 32 digits are taken, but for those that are shown: in a text, or as `hash12`."
    shown = [part for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) for part in ast.walk(node)]
    shown += [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "hash12"]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice) or node in shown:
            continue
        upper = node.slice.upper
        is_short = isinstance(upper, ast.Constant) and isinstance(upper.value, int) and upper.value < 32
        if is_short and re.search("hash|sha256|hexdigest", ast.unparse(node.value)):
            yield ast.unparse(node)


def test_the_beginning_of_a_hash_is_shown_and_never_compared(root):
    "Somebody who may choose what is hashed finds two that begin alike: twelve digits take minutes."
    found = {}
    for path in sorted((root / "fakeface").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and [*shortened_hashes(node)]
        ]
        if names:
            found[path.relative_to(root / "fakeface").as_posix()] = names[-1]
    assert found == NO_IDENTITY
