"""The data side on real images: what passes the gate, what is refused, what harmonising mends, which twins are found.
Needs FAKEFACE_FACES."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from fakeface.data.audit import audit, require_unbiased
from fakeface.data.gate import AuditError, header_gate
from fakeface.data.harmonise import harmonise
from fakeface.data.manifest import build_manifest, gaps, manifest_hash, read_manifest, write_manifest
from fakeface.data.sources import scan
from fakeface.faces.alike import face_looks, same_faces
from fakeface.faces.detect import find_faces
from fakeface.images.jpeg import jpeg_bytes, save_jpeg
from fakeface.images.decode import open_image
from fakeface.images.twins import candidates, confirmed, hamming, appearance

# a device is no folder, on any machine
FACES = Path(os.environ.get("FAKEFACE_FACES", os.devnull))
pytestmark = pytest.mark.skipif(
    not FACES.is_dir(), reason="FAKEFACE_FACES does not name the folder of development images; a user has none"
)


def few(rows, n):
    "`n` rows of each class."
    return rows.groupby("label", group_keys=False).sample(n, random_state=0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    "All of 140k and native/, a part of hfd, as found."
    rows = [
        scan("140k", FACES / "140k", "140k"),
        few(scan("folder", FACES / "hfd", "hfd"), 100),
        scan("folder", FACES / "native/tpdne", "native-tpdne"),
        scan("folder", FACES / "native/diffusion", "native-diffusion"),
    ]
    folder = tmp_path_factory.mktemp("faces")
    manifest = build_manifest(pd.concat(rows, ignore_index=True), folder, cache=folder / "facts.sqlite")
    return read_manifest(write_manifest(manifest, folder / "manifest.parquet"))


def test_140k_is_clean(found):
    clean = found[found.domain == "140k"]
    real = clean[clean.label == 0]
    assert len(clean) == 1615 and (clean.split != "excluded").all() and not gaps(clean)
    assert real.identity.str.fullmatch(r"ffhq:\d{5}").all() and real.identity.is_unique
    assert real.group.eq(real.identity).all() and (clean[clean.label == 1].identity == "").all()
    assert set(clean.quality) == {75} and set(clean.subsampling) == {"4:2:0"} and set(clean.width) == {256}


def test_gate_on_what_was_found(found):
    gate = header_gate(found)
    for domain, said in gate.items():
        print(domain, said.verdict, round(said.header_auc, 3), round(said.p, 3))
    refused = ("hfd", "native-tpdne", "native-diffusion")
    verdicts = {domain: said.verdict for domain, said in gate.items()}
    assert verdicts == {"140k": "pass", **dict.fromkeys(refused, "refuse")}
    assert gate["140k"].header_auc == 0.5 and min(gate[domain].header_auc for domain in refused) > 0.95
    with pytest.raises(AuditError, match="hfd: header AUC 1.000"):
        require_unbiased(found)
    assert require_unbiased(found, "to measure the shortcut") == "to measure the shortcut"


def test_harmonised_builds_pass(found, tmp_path):
    part = found[found.domain != "140k"].reset_index(drop=True)
    part.attrs = found.attrs
    alike = harmonise(part, tmp_path / "alike")
    audited = audit(alike, grid=30)
    for domain, said in audited.domains.items():
        print(domain, said.verdict, round(said.header_auc, 3), round(said.p, 3), audited.grid[domain])
    print(*audited.warnings, sep="\n")
    assert audited.verdict == "pass" and require_unbiased(audited) is None
    assert {said.verdict for said in audited.domains.values()} == {"pass"}
    side = {"hfd": 178, "native-tpdne": 512, "native-diffusion": 600}
    assert audited.harmonised["side"] == side
    left_out = alike.split == "excluded"
    assert (left_out.groupby([alike.domain, alike.label]).mean() <= 0.05).all(), "the smallest, one in twenty at most"
    assert alike.reason[left_out].str.startswith("is under the 512 px").all() and left_out.any()
    used, before = alike[~left_out], part[~left_out]
    assert (used.width == used.domain.map(side)).all() and (used.width == used.height).all()
    assert set(used.subsampling) == {"4:2:0"} and not used.exif.any()
    assert used.split.equals(before.split) and used.group.equals(before.group)
    assert manifest_hash(alike) != manifest_hash(part)
    pd.testing.assert_frame_equal(alike, harmonise(part, tmp_path / "alike"))


def test_no_strangers_are_linked(found):
    "Different aligned faces are no twins; the only twins here are images that the sets share."
    assert found.attrs["build"]["listed"] == [] and found.attrs["build"]["twins"] <= 5


WAYS = (
    lambda image, path: image.resize((128, 128), Image.Resampling.LANCZOS).save(f"{path}.png"),
    lambda image, path: save_jpeg(image, f"{path}.jpg", 30),
    lambda image, path: ImageOps.mirror(image).save(f"{path}.webp", quality=80),
    lambda image, path: image.resize((512, 512), Image.Resampling.BICUBIC).save(f"{path}.png"),
    lambda image, path: save_jpeg(ImageOps.mirror(image).resize((96, 96)), f"{path}.jpg", 60, "4:4:4"),
)


@pytest.fixture(scope="module")
def copied(found, tmp_path_factory):
    "(real rows of 140k, rows of their copies in another domain): other names, sizes and codecs, and mirrored."
    folder = tmp_path_factory.mktemp("copies")
    real = found[(found.domain == "140k") & (found.label == 0)].sort_values("path").groupby("split").head(20)
    for i, path in enumerate(real.path):
        WAYS[i % 5](open_image(Path(found.attrs["root"]) / path), folder / f"portrait {i:03d}")
    rows = [dict(path=str(path), domain="other", label=0) for path in sorted(folder.glob("portrait*"))]
    return real, pd.DataFrame(rows)


def test_same_faces_in_two_domains(found, copied, tmp_path):
    "Copies in a domain without splits and ids: each lands with its twin, none across splits."
    real, copies = copied
    tpdne = few(scan("folder", FACES / "tpdne", "tpdne"), 100)
    rows = pd.concat([scan("140k", FACES / "140k", "140k"), tpdne, copies])
    manifest = build_manifest(rows, tmp_path, cache=Path(found.attrs["root"]) / "facts.sqlite")
    other = manifest[manifest.domain == "other"].sort_values("path")
    assert len(other) == 60
    assert (other.group.to_numpy() == real.group.to_numpy()).all()
    assert (other.split.to_numpy() == real.split.to_numpy()).all()
    assert (manifest[manifest.split != "excluded"].groupby("group").split.nunique() == 1).all()


def test_same_faces_under_other_splits(found, copied, tmp_path):
    "Copies in a domain with splits of its own: a source's test set is untouched, and what clashes with it goes."
    real, copies = copied
    copies = copies.assign(split=np.where(copies.index % 2, "train", "valid"))
    rows = pd.concat([scan("140k", FACES / "140k", "140k"), copies])
    manifest = build_manifest(rows, tmp_path, cache=Path(found.attrs["root"]) / "facts.sqlite")
    kept = manifest[manifest.split != "excluded"]
    assert (kept.groupby("group").split.nunique() == 1).all()
    in_test = found.file_sha256[(found.domain == "140k") & (found.split == "test")]
    test = manifest[(manifest.domain == "140k") & manifest.file_sha256.isin(in_test)]
    assert len(test) == len(in_test) and (test.split == "test").all()
    out = manifest[(manifest.domain == "other") & manifest.group.isin(test.group)]
    assert len(out) == 20 and (out.split == "excluded").all() and out.reason.str.contains(r"in test$").all()


def smaller(image, factor):
    return image.resize((image.width // factor, image.height // factor), Image.Resampling.BICUBIC)


def quality_30(image):
    return open_image(jpeg_bytes(image, 30))


WORST_COPIES = {
    "quality 30": quality_30,
    "half": lambda image: smaller(image, 2),
    "quarter": lambda image: smaller(image, 4),
    "quarter, quality 30": lambda image: quality_30(smaller(image, 4)),
}


@pytest.mark.parametrize("how", WORST_COPIES)
def test_copies_lie_below_the_limit(how):
    "Bits of 64 and of 256 in which the worst copies of real faces differ."
    faces = sorted((FACES / "140k/real_vs_fake/real-vs-fake/valid/real").iterdir())[:40]
    for path in faces:
        image = open_image(path)
        original, copy = appearance(image), appearance(WORST_COPIES[how](image))
        assert hamming(original[:1], copy[:1]) <= 4 and hamming(original[2:6], copy[2:6]) <= 24


def test_strangers_lie_above_the_limit():
    "Bits of 256 in which the nearest strangers among generated faces differ that are all framed alike."
    looks = np.stack([appearance(open_image(path)) for path in sorted((FACES / "hfd/train/fake").iterdir())])
    pairs = candidates(looks[:, 0], looks[:, 1])
    first, second, mirrored = pairs.T
    fine = looks[second, 2:].reshape(-1, 2, 4)[np.arange(len(pairs)), mirrored]
    nearest = min(hamming(looks[first, 2:6], fine).min(), 256)
    print(f"{len(pairs)} pairs of strangers pass the first test, the nearest differs in {nearest} of 256 bits")
    assert len(pairs) > 30 and nearest > 24 and not len(confirmed(looks, pairs))


def test_faces_are_known_again_in_scenes_and_nobody_else_is():
    generator = np.random.default_rng(0)
    files = sorted((FACES / "140k").rglob("*.jpg"))[::26][:60]
    looks = []
    for file in files:
        head = open_image(file).crop((14, 22, 238, 246))
        patches = Image.fromarray(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        scene = patches.resize((1200, 900), Image.Resampling.BICUBIC)
        side, left, top = (int(number) for number in generator.integers((220, 40, 40), (420, 700, 400)))
        scene.paste(ImageOps.mirror(head).resize((side, side), Image.Resampling.BICUBIC), (left, top))
        for image in (head.resize((360, 360), Image.Resampling.BICUBIC), open_image(jpeg_bytes(scene, 80))):
            face = find_faces(image, 1)
            looks.append(face_looks(image, face[0].box, face[0].angle) if face else np.zeros((15, 10), np.uint64))
    pairs = same_faces(np.stack(looks)) // 2
    is_own = pairs[:, 0] == pairs[:, 1]
    assert is_own.sum() >= 51 and is_own.all(), (is_own.sum(), pairs[~is_own])
