"""Everything that goes wrong in a folder of images, planted on purpose: each gives the right answer or a clear reason,
and the rest goes through."""

import os
import unittest.mock as mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from pyarrow import parquet

from fakeface.data.audit import audit
from fakeface.data.gate import header_gate
from fakeface.data.groups import class_sizes, image_names
from fakeface.data.harmonise import harmonise
from fakeface.data.intake import intake_line
from fakeface.data.manifest import MANIFEST_COLUMNS, ManifestError, build_manifest, gaps, read_manifest, write_manifest
from fakeface.images.decode import open_image
from fakeface.images.jpeg import jpeg_bytes
from fakeface.images.twins import cloud
from fakeface.metrics.figures import by_domain
from fakeface.metrics.slices import by_source
from fakeface.models.card import are_too_few, groups_words
from fakeface.testing.images import image_bytes, raw_png


def half(image):
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


class Folder:
    "Collects files and the rows that name them."

    def __init__(self, root):
        self.root = root
        self.rows = []

    def add(self, name, content, label=0, split="", domain="d", identity=""):
        "Write a file, unless its content is None, and note its row."
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        self.rows.append(dict(path=str(path), domain=domain, label=label, split=split, identity=identity))
        return name

    def image(self, name):
        return open_image(self.root / name)

    def build(self, **options):
        "The manifest, by path."
        manifest = build_manifest(pd.DataFrame(self.rows), self.root, workers=0, **options)
        return manifest.set_index("path", drop=False)


@pytest.fixture
def folder(tmp_path):
    "30 fine images: 04 and 05 are in test, 02 and 03 in valid, 00 and 01 in train, and so on."
    folder = Folder(tmp_path)
    for i in range(30):
        split = ("train", "valid", "test")[i // 2 % 3]
        folder.add(f"fine/{i:02d}.jpg", jpeg_bytes(cloud(i, 128), 85), i % 2, split)
    return folder


def sixteen_bit(image):
    "An image of 128 × 128 pixels as a PNG of 16 bits a channel."
    pixels = np.asarray(image).astype(np.uint16) * 257
    rows = [b"\0" + row.astype(">u2").tobytes() for row in pixels]
    return raw_png(128, 128, 16, 2, b"".join(rows))


def animated(image, format, **options):
    "An image as the first of two frames."
    second = Image.new("RGB", (128, 128), "red")
    return image_bytes(image, format, save_all=True, append_images=[second], **options)


COPIES = {
    "identical pixels in another container": lambda image: image_bytes(image, "PNG"),
    "identical pixels as lossless WebP": lambda image: image_bytes(image, "WEBP", lossless=True),
    "resized": lambda image: image_bytes(half(image), "PNG"),
    "enlarged": lambda image: jpeg_bytes(image.resize((256, 256), Image.Resampling.LANCZOS), 90),
    "mirrored": lambda image: jpeg_bytes(ImageOps.mirror(image), 90),
    "quality 30": lambda image: jpeg_bytes(image, 30),
    "resized, mirrored, quality 50, grey": lambda image: jpeg_bytes(ImageOps.mirror(half(image)).convert("L"), 50),
    "16-bit": sixteen_bit,
    "CMYK": lambda image: image_bytes(image.convert("CMYK"), "JPEG", quality=95),
    "first frame of a GIF": lambda image: animated(image, "GIF"),
    "first frame of a WebP": lambda image: animated(image, "WEBP", lossless=True),
}


@pytest.mark.parametrize("how", COPIES)
def test_copy_lands_with_its_twin(folder, how):
    copy = COPIES[how](folder.image("fine/04.jpg"))
    folder.add("x/in train.png", copy, 0, "train")
    folder.add("x/free.png", copy, 0, "", "other")
    manifest = folder.build()
    assert manifest.split["x/in train.png"] == "excluded"
    assert "fine/04.jpg in test" in manifest.reason["x/in train.png"]
    assert manifest.split["x/free.png"] == "test" and manifest.group["x/free.png"] == manifest.group["fine/04.jpg"]
    used = manifest[manifest.split != "excluded"]
    assert len(used) == 31 and (used.groupby("group").split.nunique() == 1).all()


def test_test_is_kept_then_valid_and_nothing_enters_test(folder):
    folder.add("x/of valid.png", image_bytes(folder.image("fine/02.jpg"), "PNG"), 0, "train")
    # a copy in test of an image in train: that one goes, not this one
    folder.add("x/in test.jpg", jpeg_bytes(folder.image("fine/00.jpg"), 40), 0, "test")
    manifest = folder.build()
    assert manifest.split["x/of valid.png"] == "excluded" and manifest.split["fine/02.jpg"] == "valid"
    assert manifest.split["x/in test.jpg"] == "test" and manifest.split["fine/00.jpg"] == "excluded"
    assert "x/in test.jpg in test" in manifest.reason["fine/00.jpg"]


def test_identity_clash_across_domains(folder):
    folder.add("ffhq/00007.png", image_bytes(cloud(900, 128), "PNG"), 0, "test", "ffhq", "ffhq:00007")
    folder.add("k/one.jpg", jpeg_bytes(cloud(901, 128), 80), 0, "train", "k", "ffhq:00007")
    folder.add("k/two.jpg", jpeg_bytes(cloud(902, 128), 80), 0, "", "k", "ffhq:00007")
    manifest = folder.build()
    assert manifest.split["k/one.jpg"] == "excluded" and manifest.split["k/two.jpg"] == "test"
    assert manifest.group["k/two.jpg"] == "ffhq:00007"


def test_look_alikes_are_listed_and_on_one_side_of_the_split(folder):
    names = []
    for i in range(48):
        frame = np.roll(np.asarray(cloud(77, 128)), i // 8, 1) + np.uint8(i % 8)
        names.append(folder.add(f"film/{i:02d}.png", image_bytes(Image.fromarray(frame), "PNG")))
    manifest = folder.build()
    assert len(manifest.attrs["build"]["listed"]) == 1
    listed = manifest.attrs["build"]["listed"][0]
    assert len(listed) > 20 and set(listed) <= set(names)
    assert (
        manifest.group[listed].nunique() == manifest.split[listed].nunique() == 1 and manifest.image[listed].is_unique
    )
    warnings = audit(manifest.reset_index(drop=True), grid=0).warnings
    assert any("look alike" in warning for warning in warnings)


def test_blank_pictures_are_nobodys_twins(folder):
    blank = []
    for i in range(30):
        plain = Image.new("RGB", (64 + i, 64), (i, i, i))
        blank.append(folder.add(f"blank/{i}.png", image_bytes(plain, "PNG")))
    manifest = folder.build()
    assert manifest.group[blank].is_unique and (manifest.phash[blank] == 0).all()


def test_label_conflict(folder):
    for label in (0, 1):
        folder.add(f"x/{label}.png", image_bytes(cloud(500, 128), "PNG"), label)
    manifest = folder.build()
    assert set(manifest.split[["x/0.png", "x/1.png"]]) == {"excluded"}
    assert "real in one place and fake in another" in manifest.reason["x/0.png"]


BAD = {
    "zero bytes": (b"", "empty"),
    "truncated": (jpeg_bytes(cloud(1, 128), 85)[:2000], "truncated"),
    "filled with zeros": (jpeg_bytes(cloud(1, 128), 85)[:2000] + bytes(20_000), "filled up with zeros"),
    "text": (b"<html><body>404 not found</body></html>", "is a text file"),
    "20,000 × 20,000": (raw_png(20_000, 20_000, 8, 2, b"\0" * 64), "pixels"),
    "noise": (bytes(range(256)) * 8, "not an image"),
    "missing": (None, "does not exist"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_file_is_excluded_with_its_reason(folder, what):
    content, said = BAD[what]
    folder.add("x/bad.jpg", content, 1)
    manifest = folder.build()
    reason = manifest.reason["x/bad.jpg"]
    assert manifest.split["x/bad.jpg"] == "excluded" and manifest.sha256["x/bad.jpg"] == ""
    assert said in reason and str(folder.root) not in reason
    assert (manifest.split != "excluded").sum() == 30
    written = write_manifest(manifest.reset_index(drop=True), folder.root / "manifest.parquet")
    assert read_manifest(written).reason.str.contains(said, regex=False).sum() == 1


def test_unreadable_files(folder):
    folder.add("x/locked.jpg", jpeg_bytes(cloud(60, 128), 85))
    os.mkfifo(folder.root / "x/pipe.jpg")
    (folder.root / "x/dir.jpg").mkdir()
    (folder.root / "x/link.jpg").symlink_to("nowhere")
    for name in ("pipe", "dir", "link"):
        folder.add(f"x/{name}.jpg", None)
    real_open = open

    def locked_open(path, *arguments, **options):
        if str(path).endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments, **options)

    with mock.patch("builtins.open", locked_open):
        manifest = folder.build()
    assert manifest.reason["x/locked.jpg"] == "cannot be read (Permission denied)"
    assert "ordinary file" in manifest.reason["x/pipe.jpg"]
    assert "folder" in manifest.reason["x/dir.jpg"]
    assert "does not exist" in manifest.reason["x/link.jpg"]
    assert (manifest.split != "excluded").sum() == 30


ODD_NAMES = (
    'with space/it\'s "quoted" & 100%.jpg',
    "ünï/人脸 — ñ.jpg",
    "new\nline.jpg",
    "-dash/.hidden.jpg",
    "a;b|c*?.jpg",
)


def test_odd_names(folder):
    odd = {folder.add("x/" + name, jpeg_bytes(cloud(200 + i, 128), 85), i % 2) for i, name in enumerate(ODD_NAMES)}
    manifest = folder.build()
    assert odd <= set(manifest.index) and (manifest.reason == "").all()
    alike = harmonise(manifest.reset_index(drop=True), folder.root / "out", workers=0)
    assert (alike.split != "excluded").all() and alike.path.is_unique
    assert all((folder.root / "out" / path).is_file() for path in alike.path)


def test_empty_class(folder):
    folder.rows = [row for row in folder.rows if row["label"] == 0]
    manifest = folder.build()
    assert "no usable fake images at all" in gaps(manifest)[0] and header_gate(manifest)["d"].verdict == "few"
    warnings = audit(manifest.reset_index(drop=True), grid=0).warnings
    assert any("no usable fake" in warning for warning in warnings)


def test_impossible_rows(folder):
    rows = pd.DataFrame(folder.rows)
    for bad, said in (
        (rows.assign(label=2), "neither 0"),
        (rows.assign(split="Train"), "'Train' is none"),
        (rows.drop(columns="label"), "no column label"),
        (rows[:0], "no rows"),
        (pd.concat([rows, rows.assign(label=1)]), "listed twice"),
    ):
        with pytest.raises(ManifestError, match=said):
            build_manifest(bad, folder.root, workers=0)
    assert len(build_manifest(pd.concat([rows, rows]), folder.root, workers=0)) == len(rows)


def test_adding_images_moves_none_that_an_earlier_manifest_knows(folder):
    for row in folder.rows:
        row["split"] = ""
    before = folder.build()
    for i in range(60):
        folder.add(f"more/{i:02d}.jpg", jpeg_bytes(cloud(1000 + i, 128), 85), i % 2)
    after = folder.build(previous=before.reset_index(drop=True))
    assert (after.split[before.index] == before.split).all()
    folder.add("more/twin.png", image_bytes(half(folder.image("fine/00.jpg")), "PNG"))
    again = folder.build(previous=after.reset_index(drop=True))
    assert (again.split[after.index] == after.split).all()
    assert again.split["more/twin.png"] == again.split["fine/00.jpg"]


def test_many_processes_one_answer(folder):
    for i in range(60):
        folder.add(f"more/{i:02d}.jpg", jpeg_bytes(cloud(1000 + i, 64), 85), i % 2)
    folder.add("x/zero.jpg", b"", 1)
    one = folder.build().reset_index(drop=True)
    rows, cache = pd.DataFrame(folder.rows), folder.root / "facts.sqlite"
    two = build_manifest(rows, folder.root, workers=2, cache=cache)
    cached = build_manifest(rows, folder.root, workers=2, cache=cache)
    pd.testing.assert_frame_equal(one, two)
    pd.testing.assert_frame_equal(two, cached)


def test_same_pixels_under_several_names_are_one_image(folder):
    same = image_bytes(cloud(700, 128), "PNG")
    for number in range(6):
        folder.add(f"copies/{number}.png", same, 1, "test" if number == 4 else "")
    folder.add("copies/elsewhere.png", same, 1, domain="second")
    manifest = folder.build()
    used = manifest[(manifest.sha256 == manifest.sha256["copies/0.png"]) & (manifest.split != "excluded")]
    assert used.index.tolist() == ["copies/4.png", "copies/elsewhere.png"]
    assert set(used.split) == {"test"}, "one group, where the publisher put it"
    left_out = manifest.loc[[f"copies/{number}.png" for number in (0, 1, 2, 3, 5)]]
    assert set(left_out.reason) == {"has the same pixels as copies/4.png"}
    assert (manifest.split[[f"fine/{i:02d}.jpg" for i in range(30)]] != "excluded").all()
    assert "5, each of which has the same pixels as another, which is used" in intake_line(manifest)


def test_of_copies_in_two_splits_the_one_that_may_stay_is_used(folder):
    same = image_bytes(cloud(700, 128), "PNG")
    for name, split in (("a", "train"), ("b", "test"), ("c", "test"), ("d", "valid"), ("e", "")):
        folder.add(f"copies/{name}.png", same, 1, split)
    manifest = folder.build()
    split = manifest.split[[f"copies/{name}.png" for name in "abcde"]]
    assert split.tolist() == ["excluded", "test", "excluded", "excluded", "excluded"]
    assert manifest.reason["copies/a.png"] == "same or similar image, or same person, as copies/b.png in test"
    # a twin of theirs that is in test takes the split of the one that has none
    folder.rows = [row for row in folder.rows if not row["path"].endswith(("b.png", "c.png"))]
    folder.add("copies/twin.png", image_bytes(half(cloud(700, 128)), "PNG"), 1, "test")
    manifest = folder.build()
    assert manifest.split["copies/e.png"] == manifest.split["copies/twin.png"] == "test"
    assert set(manifest.split[["copies/a.png", "copies/d.png"]]) == {"excluded"}


def test_rules_count_copies_once_and_photographs_of_a_person_each(folder):
    folder.rows = []
    for i in range(4):
        for k in range(6):
            shown = cloud(i, 256).resize((128 - 8 * k,) * 2)
            folder.add(f"saved/{i}{k}.jpg", jpeg_bytes(shown, 90 - 5 * k), 1)
            folder.add(f"person/{i}{k}.jpg", jpeg_bytes(cloud(100 + 10 * i + k, 128), 85), 0, identity=f"p:{i}")
    manifest = folder.build()
    assert (manifest.split != "excluded").all() and manifest.group.nunique() == 8
    assert class_sizes(manifest).to_numpy().tolist() == [[24, 4]]
    scores = manifest.assign(p_fake=np.linspace(0, 1, len(manifest)), image=image_names(manifest))
    record = by_domain(scores, draws=0)["d"].to_dict()
    assert record["n_fake"] == record["n_real"] == 24 and record["n_distinct_fake"] == 4
    assert record["n_groups_real"] == record["n_groups_fake"] == 4 and "n_distinct_real" not in record
    assert are_too_few(record) and by_source(scores.assign(source="s"), 0.5)[0].tpr is None
    assert "24 photographs of 4 groups in d, 24 generated images of 4 groups in d" in groups_words(dict(d=record))


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_a_named_person_count_once(folder, how):
    folder.rows = []
    for k in range(3):
        photograph = cloud(200 + k, 128)
        folder.add(f"person/{k}.jpg", jpeg_bytes(photograph, 85), identity="anna")
        folder.add(f"copies/{k}", COPIES[how](photograph), identity="anna" if k else "")
    manifest = folder.build()
    used = manifest.loc[manifest.split != "excluded"]
    assert used.group.nunique() == 1 and len(set(image_names(used))) == 3
    # also in files whose pixels were made alike, which may no longer be told by their looks
    assert len(set(image_names(used.assign(phash=0)))) == 3


def test_a_manifest_without_the_column_is_read(folder, tmp_path):
    manifest = folder.build().reset_index(drop=True)
    older = {name: kind for name, kind in MANIFEST_COLUMNS.items() if name != "image"}
    with mock.patch.dict(MANIFEST_COLUMNS, older, clear=True):
        path = write_manifest(manifest, tmp_path / "manifest.parquet")
    assert "image" not in parquet.read_schema(path).names
    table = read_manifest(path)
    assert (table.image == "").all() and len(set(image_names(table))) == len(set(image_names(manifest))) == 30
    changed = pd.read_parquet(path)
    changed.loc[0, "label"] = 1 - changed.loc[0, "label"]
    changed.to_parquet(path)
    with pytest.raises(ManifestError, match="changed by hand"):
        read_manifest(path)


def test_what_a_copy_knows_of_a_person_is_kept(tmp_path):
    "Of the same pixels the one with a split stays; another one names the person, and a third has another encoding."
    listed = []
    for name, number, split, identity in (
        ("a.png", 1, "test", ""),
        ("b.png", 1, "", "anna"),
        ("c.png", 2, "", "anna"),
        ("d.png", 3, "", "bert"),
        ("e.png", 3, "", ""),
    ):
        cloud(number, 96).save(tmp_path / name)
        row = dict(path=str(tmp_path / name), domain="own", label=0, split=split, identity=identity)
        listed.append(row)
    table = build_manifest(pd.DataFrame(listed), tmp_path, workers=0).set_index("path")
    used = table[table["split"] != "excluded"]
    assert used["identity"].to_dict() == {"a.png": "anna", "c.png": "anna", "d.png": "bert"}
    assert used["split"][["a.png", "c.png"]].tolist() == ["test", "test"], "one person, one split"
