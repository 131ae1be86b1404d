"""The development images: what is in training under another size, codec or name is kept out of a folder that is said
to be new."""

import os
from pathlib import Path

import pytest

from fakeface.data.manifest import build_manifest
from fakeface.data.sources import scan
from fakeface.evaluate.unseen import MET, EvaluateError, extra_rows

FACES = os.environ.get("FAKEFACE_FACES")
pytestmark = pytest.mark.skipif(not FACES, reason="FAKEFACE_FACES names no folder with the development images")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    "tpdne at 256 px as a run's manifest."
    home = tmp_path_factory.mktemp("run")
    (home / "prepare").mkdir()
    rows = scan("folder", Path(FACES) / "tpdne", "tpdne")
    return home, build_manifest(rows, home / "prepare", cache=home / ".facts.sqlite")


def test_originals_of_training_pictures_are_not_unseen(known):
    "native/tpdne holds originals, at up to 1024 px, of images that training met at 256 px."
    home, manifest = known
    with pytest.raises(EvaluateError, match="no image .* is left") as raised:
        extra_rows(f"native={Path(FACES) / 'native/tpdne'}", manifest, home)
    assert "near-duplicate" in str(raised.value)


def test_near_duplicates_are_found_without_the_names(known):
    "The same with every source renamed: pixels alone. Those of the test split are left out of the run."
    home, manifest = known
    renamed = manifest[manifest.split != "test"].assign(source="x")
    renamed.attrs = manifest.attrs
    rows, left = extra_rows(f"native={Path(FACES) / 'native/tpdne'}", renamed, home)
    found = left["near-duplicate"] + left["same pixels"]
    assert found > 0.6 * left["pictures"], left
    trained = manifest.path[manifest.split.isin(("train", "valid"))]
    names = {Path(path).stem for path in trained}
    missed = [path for path in rows.path if Path(path).stem in names]
    assert not missed, missed[:5]


def test_another_collection_is_unseen(known):
    home, manifest = known
    rows, left = extra_rows(f"new={Path(FACES) / 'native/diffusion'}", manifest, home)
    assert left["used"] == len(rows) >= 0.95 * left["pictures"] and set(left) >= set(MET)
