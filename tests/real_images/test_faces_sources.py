"The importers on real folders, where FAKEFACE_FACES names a folder that has them."

import os
from pathlib import Path

import pytest

from fakeface.data.rows import SourceError
from fakeface.data.sources import scan

FACES = os.environ.get("FAKEFACE_FACES")
pytestmark = pytest.mark.skipif(
    not FACES,
    reason="FAKEFACE_FACES is not set: a folder of real images to measure on, which only a development machine has.",
)


def faces(name: str) -> Path:
    return Path(FACES) / name


def test_140k():
    rows = scan("140k", faces("140k"), "140k")
    real = rows[rows.label == 0]
    assert len(rows) == len(list(faces("140k").rglob("*.jpg"))) and set(rows.split) == {"train", "valid", "test"}
    assert real.identity.str.fullmatch(r"ffhq:\d{5}").all() and real.identity.is_unique
    assert (rows.identity[rows.label == 1] == "").all() and not rows.may_show.any()
    for path, label in zip(rows.path, rows.label):
        assert f"/{('real', 'fake')[label]}/" in path


def test_140k_with_swapped_tables(tmp_path):
    (tmp_path / "real_vs_fake").symlink_to(faces("140k/real_vs_fake"))
    for split in ("train", "valid", "test"):
        head, *lines = (faces("140k") / f"{split}.csv").read_text().splitlines()
        swapped = [head]
        for line in lines:
            cells = line.split(",")
            cells[3] = str(1 - int(cells[3]))
            swapped.append(",".join(cells))
        (tmp_path / f"{split}.csv").write_text("\n".join(swapped))
    with pytest.raises(SourceError, match="label .1 = real. disagrees with the folder"):
        scan("140k", tmp_path, "140k")


@pytest.mark.parametrize("name", ("tpdne", "diffusion", "hfd", "native/tpdne", "native/diffusion"))
def test_folders(name):
    rows = scan("folder", faces(name), Path(name).name)
    files = [path for label in ("real", "fake") for path in faces(name).glob(f"**/{label}/*") if path.is_file()]
    assert len(rows) == len(files) and set(rows.label) == {0, 1} and rows.source.nunique() > 1
    assert set(rows.split) == ({""} if "native" in name else {"train", "valid", "test"})


def test_wrong_kind():
    with pytest.raises(SourceError, match="its kind is 'folder'"):
        scan("tpdne", faces("native/tpdne"), "tpdne")
    with pytest.raises(SourceError, match="is not Kaggle's 140K set"):
        scan("140k", faces("native/tpdne"), "140k")
