"The importers on real folders, where FAKEFACE_FACES names a folder that has them."

import os
from pathlib import Path
import pytest
from fakeface.data.sources import SourceError, scan

FACES = os.environ.get("FAKEFACE_FACES")
pytestmark = pytest.mark.skipif(
    not FACES,
    reason="FAKEFACE_FACES is not set: it names a folder of real pictures to measure on, which only a development machine has.",
)


def faces(name: str) -> Path:
    return Path(FACES) / name


def test_140k():
    df = scan("140k", faces("140k"), "140k")
    real = df[df.label == 0]
    assert len(df) == len(list(faces("140k").rglob("*.jpg"))) and set(df.split) == {"train", "valid", "test"}
    assert (
        real.identity.str.fullmatch(r"ffhq:\d{5}").all()
        and real.identity.is_unique
        and (df.identity[df.label == 1] == "").all()
    )
    assert all(f"/{('real', 'fake')[l]}/" in p for p, l in zip(df.path, df.label)) and not df.may_show.any()


def test_140k_with_swapped_tables(tmp_path):
    (tmp_path / "real_vs_fake").symlink_to(faces("140k/real_vs_fake"))
    for s in ("train", "valid", "test"):
        head, *lines = (faces("140k") / f"{s}.csv").read_text().splitlines()
        cells = [l.split(",") for l in lines]
        (tmp_path / f"{s}.csv").write_text(
            "\n".join([head, *(",".join([*c[:3], str(1 - int(c[3])), *c[4:]]) for c in cells)])
        )
    with pytest.raises(SourceError, match="label .1 = real. disagrees with the folder"):
        scan("140k", tmp_path, "140k")


@pytest.mark.parametrize("name", ("tpdne", "diffusion", "hfd", "native/tpdne", "native/diffusion"))
def test_folders(name):
    df = scan("folder", faces(name), Path(name).name)
    assert len(df) == sum(p.is_file() for c in ("real", "fake") for p in faces(name).glob(f"**/{c}/*")) and set(
        df.label
    ) == {0, 1}
    assert set(df.split) == ({""} if "native" in name else {"train", "valid", "test"}) and df.source.nunique() > 1


def test_wrong_kind():
    with pytest.raises(SourceError, match="its kind is 'folder'"):
        scan("tpdne", faces("native/tpdne"), "tpdne")
    with pytest.raises(SourceError, match="is not Kaggle's 140K set"):
        scan("140k", faces("native/tpdne"), "140k")
