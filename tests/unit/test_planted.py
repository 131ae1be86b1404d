"Everything that goes wrong in a folder of pictures, planted on purpose: each gives the right answer or a clear reason, and the rest goes through."

import io
import os
import struct
import unittest.mock as mock
import zlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from fakeface.data.audit import audit, harmonise
from fakeface.data.gate import header_gate
from fakeface.images.decode import jpeg_bytes, open_image
from fakeface.data.manifest import ManifestError, build_manifest, gaps, read_manifest, write_manifest
from fakeface.images.twins import cloud


def stored(im, format, **kw):
    b = io.BytesIO()
    im.save(b, format, **kw)
    return b.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, depth, colour, raw):
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def half(im):
    return im.resize((im.width // 2, im.height // 2), Image.Resampling.BICUBIC)


class Folder:
    "Collects files and the rows that name them."

    def __init__(self, root):
        self.root, self.rows = root, []

    def add(self, name, data, label=0, split="", domain="d", identity=""):
        f = self.root / name
        f.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            f.write_bytes(data)
        self.rows.append(dict(path=str(f), domain=domain, label=label, split=split, identity=identity))
        return name

    def build(self, **kw):
        return build_manifest(pd.DataFrame(self.rows), self.root, workers=0, **kw).set_index("path", drop=False)


@pytest.fixture
def folder(tmp_path):
    f = Folder(tmp_path)
    for i in range(30):
        f.add(f"fine/{i:02d}.jpg", jpeg_bytes(cloud(i, 128), 85), i % 2, ("train", "valid", "test")[i // 2 % 3])
    return f


# fine/04 and 05 are in test, 02 and 03 in valid, 00 and 01 in train
COPIES = {
    "identical pixels in another container": lambda p: stored(open_image(p), "PNG"),
    "identical pixels as lossless WebP": lambda p: stored(open_image(p), "WEBP", lossless=True),
    "resized": lambda p: stored(half(open_image(p)), "PNG"),
    "enlarged": lambda p: jpeg_bytes(open_image(p).resize((256, 256), Image.Resampling.LANCZOS), 90),
    "mirrored": lambda p: jpeg_bytes(ImageOps.mirror(open_image(p)), 90),
    "quality 30": lambda p: jpeg_bytes(open_image(p), 30),
    "resized, mirrored, quality 50, grey": lambda p: jpeg_bytes(ImageOps.mirror(half(open_image(p))).convert("L"), 50),
    "16-bit": lambda p: png(
        128,
        128,
        16,
        2,
        b"".join(b"\0" + r.astype(">u2").tobytes() for r in np.asarray(open_image(p)).astype(np.uint16) * 257),
    ),
    "CMYK": lambda p: stored(open_image(p).convert("CMYK"), "JPEG", quality=95),
    "first frame of a GIF": lambda p: stored(
        open_image(p), "GIF", save_all=True, append_images=[Image.new("RGB", (128, 128), "red")]
    ),
    "first frame of a WebP": lambda p: stored(
        open_image(p), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (128, 128), "red")]
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_copy_lands_with_its_twin(folder, how):
    copy = COPIES[how](folder.root / "fine/04.jpg")
    folder.add("x/in train.png", copy, 0, "train")
    folder.add("x/free.png", copy, 0, "", "other")
    m = folder.build()
    assert m.split["x/in train.png"] == "excluded" and "fine/04.jpg in test" in m.reason["x/in train.png"]
    assert m.split["x/free.png"] == "test" and m.group["x/free.png"] == m.group["fine/04.jpg"]
    assert (m.split != "excluded").sum() == 31 and (
        m[m.split != "excluded"].groupby("group").split.nunique() == 1
    ).all()


def test_test_is_kept_then_valid_and_nothing_enters_test(folder):
    folder.add("x/a.png", stored(open_image(folder.root / "fine/02.jpg"), "PNG"), 0, "train")  # 02 is in valid
    folder.add(
        "x/b.jpg", jpeg_bytes(open_image(folder.root / "fine/00.jpg"), 40), 0, "test"
    )  # 00 is in train: it goes, not this one
    m = folder.build()
    assert m.split["x/a.png"] == "excluded" and m.split["fine/02.jpg"] == "valid"
    assert (
        m.split["x/b.jpg"] == "test"
        and m.split["fine/00.jpg"] == "excluded"
        and "x/b.jpg in test" in m.reason["fine/00.jpg"]
    )


def test_identity_clash_across_domains(folder):
    folder.add("ffhq/00007.png", stored(cloud(900, 128), "PNG"), 0, "test", "ffhq", "ffhq:00007")
    folder.add("k/one.jpg", jpeg_bytes(cloud(901, 128), 80), 0, "train", "k", "ffhq:00007")
    folder.add("k/two.jpg", jpeg_bytes(cloud(902, 128), 80), 0, "", "k", "ffhq:00007")
    m = folder.build()
    assert (
        m.split["k/one.jpg"] == "excluded" and m.split["k/two.jpg"] == "test" and m.group["k/two.jpg"] == "ffhq:00007"
    )


def test_look_alikes_are_listed_not_merged(folder):
    names = [
        folder.add(
            f"film/{k:02d}.png",
            stored(Image.fromarray(np.roll(np.asarray(cloud(77, 128)), k // 8, 1) + np.uint8(k % 8)), "PNG"),
        )
        for k in range(48)
    ]
    m = folder.build()
    listed = m.attrs["build"]["listed"]
    assert (
        len(listed) == 1
        and len(listed[0]) > 20
        and set(listed[0]) <= set(names)
        and m.group[listed[0]].nunique() == len(listed[0])
    )
    assert any("look alike" in w for w in audit(m.reset_index(drop=True), grid=0)["warnings"])


def test_blank_pictures_are_nobodys_twins(folder):
    blank = [folder.add(f"blank/{k}.png", stored(Image.new("RGB", (64 + k, 64), (k, k, k)), "PNG")) for k in range(30)]
    m = folder.build()
    assert m.group[blank].is_unique and (m.phash[blank] == 0).all()


def test_label_conflict(folder):
    for k in (0, 1):
        folder.add(f"x/{k}.png", stored(cloud(500, 128), "PNG"), k)
    m = folder.build()
    assert (
        set(m.split[["x/0.png", "x/1.png"]]) == {"excluded"}
        and "real in one place and fake in another" in m.reason["x/0.png"]
    )


BAD = {
    "zero bytes": (b"", "empty"),
    "truncated": (jpeg_bytes(cloud(1, 128), 85)[:2000], "truncated"),
    "text": (b"<html><body>404 not found</body></html>", "is text"),
    "20,000 × 20,000": (png(20_000, 20_000, 8, 2, b"\0" * 64), "pixels"),
    "noise": (bytes(range(256)) * 8, "not a picture"),
    "missing": (None, "does not exist"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_file_is_excluded_with_its_reason(folder, what):
    data, reason = BAD[what]
    folder.add("x/bad.jpg", data, 1)
    m = folder.build()
    assert (
        m.split["x/bad.jpg"] == "excluded"
        and reason in m.reason["x/bad.jpg"]
        and str(folder.root) not in m.reason["x/bad.jpg"]
        and m.sha256["x/bad.jpg"] == ""
    )
    assert (m.split != "excluded").sum() == 30
    write_manifest(m.reset_index(drop=True), folder.root / "manifest.parquet")
    assert read_manifest(folder.root / "manifest.parquet").reason.str.contains(reason, regex=False).sum() == 1


def test_unreadable_files(folder):
    folder.add("x/locked.jpg", jpeg_bytes(cloud(60, 128), 85))
    os.mkfifo(folder.root / "x/pipe.jpg")
    folder.add("x/pipe.jpg", None)
    (folder.root / "x/dir.jpg").mkdir()
    folder.add("x/dir.jpg", None)
    (folder.root / "x/link.jpg").symlink_to("nowhere")
    folder.add("x/link.jpg", None)
    real = open

    def locked(path, *a, **kw):
        if str(path).endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied")
        return real(path, *a, **kw)

    with mock.patch("builtins.open", locked):
        m = folder.build()
    assert (
        m.reason["x/locked.jpg"] == "cannot be read (Permission denied)"
        and "ordinary file" in m.reason["x/pipe.jpg"]
        and "folder" in m.reason["x/dir.jpg"]
        and "does not exist" in m.reason["x/link.jpg"]
    )
    assert (m.split != "excluded").sum() == 30


def test_odd_names(folder):
    odd = [
        'with space/it\'s "quoted" & 100%.jpg',
        "ünï/人脸 — ñ.jpg",
        "new\nline.jpg",
        "-dash/.hidden.jpg",
        "a;b|c*?.jpg",
    ]
    for k, n in enumerate(odd):
        folder.add("x/" + n, jpeg_bytes(cloud(200 + k, 128), 85), k % 2, "train")
    m = folder.build()
    assert not m.reason["x/" + n] and {"x/" + n for n in odd} <= set(m.index)
    h = harmonise(m.reset_index(drop=True), folder.root / "out", workers=0)
    assert (
        (h.split != "excluded").all() and all((folder.root / "out" / p).is_file() for p in h.path) and h.path.is_unique
    )


def test_empty_class(folder):
    folder.rows = [r for r in folder.rows if r["label"] == 0]
    m = folder.build()
    assert "no usable fake pictures at all" in gaps(m)[0] and header_gate(m)["d"]["verdict"] == "few"
    assert any("no usable fake" in w for w in audit(m.reset_index(drop=True), grid=0)["warnings"])


def test_impossible_rows(folder):
    rows = pd.DataFrame(folder.rows)
    for bad, match in (
        (rows.assign(label=2), "neither 0"),
        (rows.assign(split="Train"), "'Train' is none"),
        (rows.drop(columns="label"), "no column label"),
        (rows[:0], "no rows"),
        (pd.concat([rows, rows.assign(label=1)]), "listed twice"),
    ):
        with pytest.raises(ManifestError, match=match):
            build_manifest(bad, folder.root, workers=0)
    assert len(build_manifest(pd.concat([rows, rows]), folder.root, workers=0)) == len(rows)


def test_adding_pictures_moves_none(folder):
    for r in folder.rows:
        r["split"] = ""
    before = folder.build()
    for i in range(60):
        folder.add(f"more/{i:02d}.jpg", jpeg_bytes(cloud(1000 + i, 128), 85), i % 2)
    after = folder.build()
    assert (after.split[before.index] == before.split).all()
    folder.add("more/twin.png", stored(half(open_image(folder.root / "fine/00.jpg")), "PNG"))
    again = folder.build(previous=after.reset_index(drop=True))
    assert (again.split[after.index] == after.split).all() and again.split["more/twin.png"] == again.split[
        "fine/00.jpg"
    ]


def test_many_processes_one_answer(folder):
    for i in range(60):
        folder.add(f"more/{i:02d}.jpg", jpeg_bytes(cloud(1000 + i, 64), 85), i % 2)
    folder.add("x/zero.jpg", b"", 1)
    one = folder.build()
    two = build_manifest(pd.DataFrame(folder.rows), folder.root, workers=2, cache=folder.root / "facts.sqlite")
    three = build_manifest(pd.DataFrame(folder.rows), folder.root, workers=2, cache=folder.root / "facts.sqlite")
    pd.testing.assert_frame_equal(one.reset_index(drop=True), two)
    pd.testing.assert_frame_equal(two, three)
