"The data side on real pictures: what passes the gate, what is refused, what harmonising mends, which twins are found. Needs FAKEFACE_FACES."

import os
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from fakeface.data.audit import AuditError, audit, harmonise, require_unbiased
from fakeface.data.gate import header_gate
from fakeface.images.decode import jpeg_bytes, open_image, save_jpeg
from fakeface.data.manifest import build_manifest, gaps, manifest_hash, read_manifest, write_manifest
from fakeface.data.sources import scan
from fakeface.images.twins import candidates, confirmed, hamming, look

FACES = Path(os.environ.get("FAKEFACE_FACES", os.devnull))  # a device is no folder, on any machine
pytestmark = pytest.mark.skipif(
    not FACES.is_dir(), reason="FAKEFACE_FACES does not name the folder of development images; a user has none"
)


def few(rows, n, seed=0):
    return rows.groupby("label", group_keys=False).sample(n, random_state=seed)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    "All of 140k and native/, a part of hfd, as found."
    rows = [scan("140k", FACES / "140k", "140k"), few(scan("folder", FACES / "hfd", "hfd"), 100)] + [
        scan("folder", FACES / "native" / d, f"native-{d}") for d in ("tpdne", "diffusion")
    ]
    folder = tmp_path_factory.mktemp("faces")
    m = build_manifest(pd.concat(rows, ignore_index=True), folder, cache=folder / "facts.sqlite")
    write_manifest(m, folder / "manifest.parquet")
    return read_manifest(folder / "manifest.parquet")


def test_140k_is_clean(found):
    k = found[found.domain == "140k"]
    real = k[k.label == 0]
    assert len(k) == 1615 and (k.split != "excluded").all() and not gaps(k)
    assert (
        real.identity.str.fullmatch(r"ffhq:\d{5}").all()
        and real.group.eq(real.identity).all()
        and real.identity.is_unique
        and (k[k.label == 1].identity == "").all()
    )
    assert set(k.quality) == {75} and set(k.subsampling) == {"4:2:0"} and set(k.width) == {256}


def test_gate_on_what_was_found(found):
    gate = header_gate(found)
    said = {d: (g["verdict"], round(g["header_auc"], 3), round(g["p"], 3)) for d, g in gate.items()}
    print(said)
    assert {d: v for d, (v, *_) in said.items()} == {
        "140k": "pass",
        "hfd": "refuse",
        "native-tpdne": "refuse",
        "native-diffusion": "refuse",
    }
    assert (
        gate["140k"]["header_auc"] == 0.5
        and min(gate[d]["header_auc"] for d in ("hfd", "native-tpdne", "native-diffusion")) > 0.95
    )
    with pytest.raises(AuditError, match="hfd: header AUC 1.000"):
        require_unbiased(found)
    assert require_unbiased(found, "to measure the shortcut") == "to measure the shortcut"


def test_harmonised_builds_pass(found, tmp_path):
    part = found[found.domain != "140k"].reset_index(drop=True)
    part.attrs = found.attrs
    h = harmonise(part, tmp_path / "alike")
    a = audit(h, grid=30)
    print(
        {d: (g["verdict"], round(g["header_auc"], 3), round(g["p"], 3), a["grid"][d]) for d, g in a["domains"].items()}
    )
    print(*a["warnings"], sep="\n")
    assert (
        a["verdict"] == "pass"
        and {g["verdict"] for g in a["domains"].values()} == {"pass"}
        and require_unbiased(a) is None
    )
    assert a["harmonised"]["side"] == {"hfd": 178, "native-tpdne": 256, "native-diffusion": 600}
    assert (
        (h.width == h.domain.map(a["harmonised"]["side"])).all()
        and (h.width == h.height).all()
        and set(h.subsampling) == {"4:2:0"}
        and not h.exif.any()
    )
    assert h.split.equals(part.split) and h.group.equals(part.group) and manifest_hash(h) != manifest_hash(part)
    again = harmonise(part, tmp_path / "alike")
    pd.testing.assert_frame_equal(h, again)


def test_no_strangers_are_linked(found):
    "Different aligned faces are no twins; the only twins here are pictures that the sets share."
    assert found.attrs["build"]["listed"] == [] and found.attrs["build"]["twins"] <= 5


def test_same_faces_in_two_domains(found, tmp_path):
    "FFHQ faces of 140k under other names, sizes, codecs and mirrored in a domain without splits and ids: each lands with its twin, none across splits."
    real = found[(found.domain == "140k") & (found.label == 0)].sort_values("path").groupby("split").head(20)
    rows = []
    ways = (
        lambda im, f: im.resize((128, 128), Image.Resampling.LANCZOS).save(f"{f}.png"),
        lambda im, f: save_jpeg(im, f"{f}.jpg", 30),
        lambda im, f: ImageOps.mirror(im).save(f"{f}.webp", quality=80),
        lambda im, f: im.resize((512, 512), Image.Resampling.BICUBIC).save(f"{f}.png"),
        lambda im, f: save_jpeg(ImageOps.mirror(im).resize((96, 96)), f"{f}.jpg", 60, "4:4:4"),
    )
    for k, p in enumerate(real.path):
        ways[k % 5](open_image(Path(found.attrs["root"]) / p), tmp_path / f"portrait {k:03d}")
    rows = pd.DataFrame([dict(path=str(f), domain="other", label=0) for f in sorted(tmp_path.glob("portrait*"))])
    m = build_manifest(
        pd.concat([scan("140k", FACES / "140k", "140k"), few(scan("folder", FACES / "tpdne", "tpdne"), 100), rows]),
        tmp_path,
        cache=Path(found.attrs["root"]) / "facts.sqlite",
    )
    other = m[m.domain == "other"].sort_values("path")
    assert (
        len(other) == 60
        and (other.group.to_numpy() == real.group.to_numpy()).all()
        and (other.split.to_numpy() == real.split.to_numpy()).all()
    )
    assert (m[m.split != "excluded"].groupby("group").split.nunique() == 1).all()
    other_split = np.where(rows.index % 2, "train", "valid")
    fixed = build_manifest(
        pd.concat([scan("140k", FACES / "140k", "140k"), rows.assign(split=other_split)]),
        tmp_path,
        cache=Path(found.attrs["root"]) / "facts.sqlite",
    )
    kept = fixed[fixed.split != "excluded"]
    assert (kept.groupby("group").split.nunique() == 1).all()
    test = fixed[(fixed.domain == "140k") & fixed.path.isin(m.path[m.split == "test"])]
    assert (test.split == "test").all(), "the source's own test set is untouched"
    out = fixed[(fixed.domain == "other") & fixed.group.isin(test.group)]
    assert len(out) == 20 and (out.split == "excluded").all() and out.reason.str.contains(r"in test$").all()


def test_copies_and_strangers_lie_on_two_sides_of_the_limit():
    "256-bit distances: the worst copies of real faces, and the nearest strangers among generated faces that are all framed alike."

    def smaller(im, k):
        return im.resize((im.width // k, im.height // k), Image.Resampling.BICUBIC)

    def q30(im):
        return open_image(jpeg_bytes(im, 30))

    ways = dict(
        q30=q30, half=lambda im: smaller(im, 2), quarter=lambda im: smaller(im, 4), both=lambda im: q30(smaller(im, 4))
    )
    faces = [open_image(p) for p in sorted((FACES / "140k/real_vs_fake/real-vs-fake/valid/real").iterdir())[:40]]
    h = [look(im) for im in faces]
    far = {
        name: [
            (int(hamming(a[:1], b[:1])), int(hamming(a[2:6], b[2:6])))
            for a, im in zip(h, faces)
            for b in [look(way(im))]
        ]
        for name, way in ways.items()
    }
    worst = {name: tuple(map(max, zip(*d))) for name, d in far.items()}
    assert all(a <= 4 and b <= 24 for a, b in worst.values()), worst
    looks = np.stack([look(open_image(p)) for p in sorted((FACES / "hfd/train/fake").iterdir())])
    pairs = candidates(looks[:, 0], looks[:, 1])
    i, j, mir = pairs.T
    near = np.minimum(hamming(looks[i, 2:6], looks[j, 2:].reshape(-1, 2, 4)[np.arange(len(j)), mir]), 256)
    print(
        f"copies: {worst}; {len(pairs)} pairs of strangers pass the first test, the nearest differs in {near.min()} of 256 bits"
    )
    assert len(pairs) > 30 and near.min() > 24 and not len(confirmed(looks, pairs))
