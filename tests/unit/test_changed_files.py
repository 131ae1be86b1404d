"""What was changed after it was looked at is noticed, by whatever looks at it next."""

import os
import shutil

import pytest

from fakeface.data.manifest import ManifestError
from fakeface.evaluate.mean import mean_of_bundles
from fakeface.images.facts import file_infos
from fakeface.images.twins import cloud
from fakeface.models import shelf
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.datasets import toy_manifest


def test_facts_of_a_file_that_was_replaced_with_its_times_kept(tmp_path):
    "`cp -p` keeps size and time of change of what it copies; the facts of what stood there are not believed."
    for i in (0, 1):
        cloud(i, 64).save(tmp_path / f"{i}.bmp")
    one_time = (1_700_000_000, 1_700_000_000)
    for i in (0, 1):
        os.utime(tmp_path / f"{i}.bmp", one_time)
    paths = [tmp_path / "0.bmp", tmp_path / "1.bmp"]
    first, second = file_infos(paths, tmp_path / "facts.sqlite", workers=0)
    assert first.sha256 != second.sha256
    shutil.copy2(paths[0], paths[1])
    assert paths[0].stat().st_mtime_ns == paths[1].stat().st_mtime_ns
    first, second = file_infos(paths, tmp_path / "facts.sqlite", workers=0)
    assert first.sha256 == second.sha256


def test_a_mean_is_not_fitted_on_images_that_were_exchanged(tmp_path):
    manifest = toy_manifest(tmp_path / "set", count=8, size=32)
    root = manifest.attrs["root"]
    valid = manifest[manifest.split == "valid"].reset_index(drop=True)
    real, fake = (valid.path[valid.label == label].iloc[0] for label in (0, 1))
    shutil.copy2(f"{root}/{real}", f"{root}/{fake}")
    for name, slope in (("one", 3.0), ("two", 4.0)):
        tiny_bundle(tmp_path / name, slope)
    with pytest.raises(ManifestError, match="1 of .* have changed since prepare"):
        mean_of_bundles([tmp_path / "one", tmp_path / "two"], tmp_path / "mean", manifest)
    assert not (tmp_path / "mean").exists()


def test_the_hub_is_asked_for_every_file_of_a_bundle(tmp_path, hub):
    bundle = tiny_bundle(tmp_path / "bundle")
    hub.serve(tmp_path / "bundle")
    shelf.from_hub("owner/name")
    assert {name for _, name, _ in hub.asked} == set(os.listdir(tmp_path / "bundle")), bundle


def test_a_detector_of_the_hub_is_said_once_and_a_mistyped_path_asks_for_none(tmp_path, monkeypatch, capsys, hub):
    from fakeface.models.bundle import BundleError

    tiny_bundle(tmp_path / "bundle")
    hub.serve(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    shelf._say_once.cache_clear()
    for _ in range(2):
        assert shelf.find_bundle("someone/detector").name == hub.commit
    out, err = capsys.readouterr()
    assert out == "" and err == f"The detector comes from the model hub: someone/detector, commit {hub.commit}.\n"
    # a folder of the first part: a path was meant
    (tmp_path / "someone").mkdir()
    with pytest.raises(BundleError, match="is a folder, and nothing of this name is in it.*someone/detector@main"):
        shelf.find_bundle("someone/detector")
    before = len(hub.asked)
    assert {(repo, revision) for repo, _, revision in hub.asked} == {("someone/detector", None)}
    shelf.find_bundle("someone/detector@main")
    assert {(repo, revision) for repo, _, revision in hub.asked[before:]} == {("someone/detector", "main")}
