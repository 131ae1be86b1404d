"""A verdict has to be earned: no face, turned, cut off, too small, drawn, animated; and no threshold makes *real*."""

import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from fakeface import Detector
from fakeface.core.seeds import rng
from fakeface.data.orl import demo_faces
from fakeface.evaluate.predict import open_net
from fakeface.evaluate.scene_grid import file_score
from fakeface.faces import shown
from fakeface.images.decode import ImageError, decode
from fakeface.images.jpeg import jpeg_bytes
from fakeface.infer.batch import score_batch
from fakeface.infer.checker import open_desk
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.images import heic_bytes, image_bytes


def backdrop(width, height, *name):
    "Soft colours with grain, and nobody in them."
    gen = rng("earned", *name)
    coarse = gen.integers(70, 190, (height // 60 + 2, width // 60 + 2, 3), dtype=np.uint8)
    wall = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), int)
    return Image.fromarray((wall + gen.integers(-5, 6, wall.shape)).clip(0, 255).astype(np.uint8))


def head(number=0, width=368):
    "A photograph of the ORL set."
    return demo_faces(number + 1)[number].convert("RGB").resize((width, width * 112 // 92), Image.Resampling.BICUBIC)


def scene(size=(1600, 1200), heads=1, width=368, turn=0):
    "Heads side by side before a backdrop."
    image = backdrop(*size, heads, width)
    for i in range(heads):
        left = int((i + 0.5) * size[0] / heads - width / 2)
        image.paste(head(i, width), (left, size[1] // 4))
    return image.rotate(turn, expand=True) if turn else image


def drawing():
    "A face of flat colours."
    image = Image.new("RGB", (400, 400), "skyblue")
    pen = ImageDraw.Draw(image)
    pen.ellipse((80, 50, 320, 360), "bisque", "black", 4)
    for x in (150, 250):
        pen.ellipse((x - 20, 150, x + 20, 180), "white", "black", 3)
        pen.ellipse((x - 8, 157, x + 8, 173), "black")
    pen.arc((140, 220, 260, 310), 0, 180, "red", 6)
    return image


def animation():
    "A head that moves, in six frames."
    frames = [scene((640, 480), width=200).rotate(i) for i in range(6)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    "Looks at brightness only, but at heads."
    folder = tmp_path_factory.mktemp("earned") / "tiny"
    limits = dict(least_side=112, most_angle=30)
    tiny_bundle(folder, slope=1.0, band=[0.3, 0.6], framing="face", limits=limits)
    return Detector.load(folder, threads=1)


NOT_EARNED = {
    "nobody": (lambda: image_bytes(backdrop(900, 700, "nobody"), "PNG"), "No face"),
    "flat": (lambda: image_bytes(Image.new("RGB", (300, 300), "tan"), "PNG"), "No face"),
    "upside down": (lambda: jpeg_bytes(scene(turn=180), 92), "turned by 1[67]\\d degrees"),
    "on its side": (lambda: jpeg_bytes(scene(turn=90), 92), "turned by [89]\\d degrees"),
    "on its other side": (lambda: jpeg_bytes(scene(turn=270), 92), "turned by [89]\\d degrees"),
    "small": (lambda: jpeg_bytes(scene((800, 600), width=60), 95), "pixels; below 112"),
    "drawn": (lambda: image_bytes(drawing(), "PNG"), "drawn|No face"),
    "animated": (animation, "one of its 6 frames"),
}


@pytest.mark.parametrize("kind", NOT_EARNED)
def test_what_is_not_earned_is_unsure_and_the_reason_comes_first(detector, kind):
    make, reason = NOT_EARNED[kind]
    content = make()
    for threshold in (None, 0.0, 0.3, 0.59, 1.0):
        for verdict in detector.check_faces(content, threshold=threshold, stability=threshold is None):
            assert verdict.label == "unsure" and not verdict.error, verdict.words()
            assert re.search(reason, verdict.reason), verdict.reason
            assert verdict.words().startswith(f"Unsure: {verdict.reason}")


class Rows(list):
    "Rows in one process, as the how-to for many machines maps over them."

    def map(self, function):
        return [function(dict(row)) for row in self]


def test_rows_of_many_machines_get_the_words_of_another_threshold(detector, root):
    "The cell of the how-to, as it stands, against the detector at that threshold."
    cells = json.loads((root / "nbs/tutorials/howto_ray.ipynb").read_text())["cells"]
    (cell,) = ["".join(cell["source"]) for cell in cells if "label_of" in "".join(cell["source"])]
    tan = image_bytes(Image.new("RGB", (300, 300), "tan"), "PNG")
    photo = scene((640, 480), width=200)
    contents = [tan, *(jpeg_bytes(ImageEnhance.Brightness(photo).enhance(light), 92) for light in (1, 2))]
    judged = score_batch(dict(bytes=[*contents, b"no image"]), str(detector.path))
    columns = ("p_fake", "label", "reason", "error")
    names = dict(bundle=detector.path)
    names["rows"] = Rows(dict(zip(columns, row)) for row in zip(*(judged[column] for column in columns)))
    exec(cell, names)
    expected = [detector.check(content, threshold=0.9).label for content in [*contents, b"no image"]]
    assert [row["label"] for row in names["strict"]] == expected
    assert expected == ["unsure", "unsure", "unsure", ""] and list(judged["label"])[2] == "fake"
    assert [bool(reason) for reason in judged["reason"]] == [True, False, False, False]


def test_a_head_is_judged_the_same_wherever_it_stands(detector):
    "In a scene of twelve megapixels, in a HEIC file, behind an EXIF note: one face, upright, with its place."
    (alone,) = detector.check_faces(jpeg_bytes(scene(), 95))
    assert alone.label in ("real", "fake", "unsure") and not alone.reason
    assert alone.looked_at == "face 1 of 1" and re.fullmatch(r"(top|middle|[a-z ]+), \d+ × \d+ px", alone.place)
    large = scene().resize((4000, 3000), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x112] = 6
    turned = image_bytes(scene().rotate(90, expand=True), "JPEG", quality=95, exif=exif)
    for content in (jpeg_bytes(large, 92), heic_bytes(scene()), turned):
        (verdict,) = detector.check_faces(content)
        assert not verdict.reason and abs(verdict.p_fake - alone.p_fake) < 0.02 and abs(verdict.angle) < 12
    left, top, right, bottom = alone.box
    assert 0 <= left < right <= 1600 and 0 <= top < bottom <= 1200 and right - left < 900


def test_each_face_has_a_row_with_its_place(detector):
    verdicts = detector.check_faces(jpeg_bytes(scene((2400, 1200), heads=3), 92), name="three.jpg")
    assert sorted(verdict.looked_at for verdict in verdicts) == [f"face {i} of 3" for i in (1, 2, 3)]
    assert {verdict.place.split(",")[0].split()[-1] for verdict in verdicts} >= {"left", "right"}
    largest = detector.check(jpeg_bytes(scene((2400, 1200), heads=3), 92))
    assert largest.looked_at == "face 1 of 3" and "2 more in the image" in largest.warnings[0]


def pages(kind, **options):
    "A file of several images: the first shows a head."
    file = io.BytesIO()
    scene().save(file, kind, save_all=True, append_images=[backdrop(1600, 1200, "second")], **options)
    return file.getvalue()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_pages_are_no_animation(detector, tmp_path, compression):
    "A TIFF of two pages by every way in; evaluation and check agree on what is an animation."
    content = pages("TIFF", compression=compression)
    (tmp_path / "two.tif").write_bytes(content)
    verdicts = [detector.check(way) for way in (tmp_path / "two.tif", content, Image.open(io.BytesIO(content)))]
    assert [verdict.reason for verdict in verdicts] == [""] * 3 and len({verdict.p_fake for verdict in verdicts}) == 1
    assert "Frame 1 of 2." in verdicts[0].warnings


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_one_by_every_way_in(detector, kind):
    content = pages(kind)
    for way in (content, Image.open(io.BytesIO(content))):
        verdict = detector.check(way)
        assert verdict.label == "unsure" and "one of its 2 frames" in verdict.reason


def test_reason_and_warning_agree_on_the_frame_of_an_animation(detector):
    "Whoever opens it chooses the frame."
    image = Image.open(io.BytesIO(animation()))
    image.seek(1)
    verdict = detector.check(image)
    assert "only one of its 6 frames" in verdict.reason and "Frame 2 of 6." in verdict.warnings
    assert "frame 1" not in " ".join([verdict.words(), *verdict.warnings])


def test_two_images_in_a_jpeg_are_no_animation(detector):
    content = pages("MPO")
    net, _ = open_net(detector.path)
    assert detector.check(content).reason == "" == file_score(net, content, {}).reason


def test_a_file_that_goes_between_two_reads_is_a_sentence(detector, tmp_path, monkeypatch):
    "A small head in a large JPEG is cut from the file in full: the second read may fail."
    path = tmp_path / "gone.jpg"
    path.write_bytes(jpeg_bytes(scene((4800, 3600), width=150), 90))

    def gone(source, *args, **options):
        if options.get("reduce"):
            return decode(source, *args, **options)
        raise ImageError("does not exist", str(source))

    monkeypatch.setattr(shown, "decode", gone)
    verdict = detector.check(path)
    assert verdict.error == "Does not exist." and verdict.label == ""


def test_coordinates_are_those_of_the_file(detector):
    "Sides that are no multiples of eight: the place of a head in a reduced JPEG, as in the same PNG."
    image = backdrop(4803, 3605, "odd")
    image.paste(head(0, 500), (3900, 2800))
    by_jpeg = detector.check(jpeg_bytes(image, 95))
    by_png = detector.check(image_bytes(image, "PNG", compress_level=1))
    assert np.allclose(by_jpeg.square, by_png.square, atol=8) and np.allclose(by_jpeg.face, by_png.face, atol=12)


def words_by_hand(p, threshold, band):
    "The rule, written out once more."
    low, high = band
    if p < low:
        return "real"
    return "fake" if p >= high and p >= threshold else "unsure"


def test_no_threshold_makes_a_photograph_of_what_is_unsure(detector, tmp_path):
    "Library, command and page, over thresholds below, in and above the band, and by name."
    files = []
    for i, level in enumerate((40, 110, 128, 150, 215)):
        path = tmp_path / f"{i}.png"
        path.write_bytes(image_bytes(Image.new("RGB", (160, 160), (level,) * 3), "PNG"))
        files.append(str(path))
    desk = open_desk(detector.path)
    desk.faces = False
    for i, path in enumerate(files):
        with open(path, "rb") as file:
            desk.handle(dict(kind="part", id=str(i), name=f"{i}.png", part=0, parts=1), [file.read()])
    scores = [detector.check(path, framing="centre").p_fake for path in files]
    assert min(scores) < 0.3 and max(scores) > 0.6 and any(0.3 <= p < 0.6 for p in scores)
    for threshold in np.linspace(0, 1, 21).round(3):
        want = [words_by_hand(p, threshold, (0.3, 0.6)) for p in scores]
        assert [detector.check(path, framing="centre", threshold=threshold).label for path in files] == want
        desk.handle(dict(kind="set", threshold=float(threshold)))
        assert [verdict.label for verdict in desk.verdicts()] == want
    for threshold in ("0.05", "0.45", "0.95"):
        command = [sys.executable, "-m", "fakeface", "check", *files, "--bundle", str(detector.path)]
        options = ["--framing", "centre", "--threshold", threshold, "--json", "-"]
        ran = subprocess.run(command + options, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran.stderr
        said = [json.loads(line)["label"] for line in ran.stdout.splitlines()]
        assert said == [words_by_hand(p, float(threshold), (0.3, 0.6)) for p in scores]


def test_rows_say_why_and_where(detector, tmp_path):
    for name, content in (("nobody.png", NOT_EARNED["nobody"][0]()), ("one.jpg", jpeg_bytes(scene(), 92))):
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "fakeface", "check", str(tmp_path), "--bundle", str(detector.path), "--csv", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    rows = list(csv.DictReader(io.StringIO(ran.stdout)))
    assert [row["label"] == "unsure" for row in rows][0] and rows[0]["reason"] == "No face was found"
    assert rows[0]["p_fake"] == "" and rows[1]["reason"] == "" and rows[1]["place"] and rows[1]["left"]
