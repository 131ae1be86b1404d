"2,000 damaged images: each ends in a verdict or a sentence, in time; nothing crashes, and memory stays bounded."

import collections
import io
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fakeface.core.seeds import rng
from fakeface.data.orl import demo_faces
from fakeface.images.decode import ImageError, decode
from fakeface.images.facts import file_info
from fakeface.infer.detector import Detector
from fakeface.infer.folder import score_paths
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.images import heic_bytes, image_bytes

pytestmark = pytest.mark.filterwarnings("ignore")
COUNT = 2_000
LIMIT = 30.0  # seconds a file


def _saved(image, format, **options):
    "Pillow remembers in an image how it was saved last."
    if "append_images" in options:
        options["append_images"] = [later.copy() for later in options["append_images"]]
    return image_bytes(image.copy(), format, **options)


def seeds():
    "Small sound files of every kind that is read."
    face = demo_faces(1)[0].convert("RGB")
    small, wide = face.resize((64, 80)), face.resize((120, 72))
    exif = Image.Exif()
    exif[0x112] = 6
    later = [small.rotate(180), small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    moving = dict(save_all=True, append_images=later)
    return [
        _saved(wide, "JPEG", quality=90),
        _saved(small, "JPEG", quality=70, progressive=True, exif=exif),
        _saved(small.convert("CMYK"), "JPEG"),
        _saved(small, "MPO", **moving),
        _saved(small, "PNG"),
        _saved(small.quantize(32), "PNG", transparency=3),
        _saved(small, "PNG", **moving),
        _saved(Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257), "PNG"),
        _saved(small, "WEBP", quality=80),
        _saved(small, "WEBP", lossless=True, **moving),
        _saved(small, "GIF", **moving),
        _saved(wide, "BMP"),
        _saved(small, "TIFF", **moving),
        _saved(small, "TIFF", compression="tiff_lzw"),
        _saved(small, "TIFF", compression="jpeg"),
        _saved(small, "TIFF", compression="tiff_adobe_deflate"),
        _saved(small, "PPM"),
        _saved(small, "AVIF"),
        _saved(small, "JPEG2000"),
        heic_bytes(small, orientation=6),
    ]


def flipped(random, data, other):
    "Some bits are others."
    array = np.frombuffer(data, np.uint8).copy()
    # the head says how the rest is to be read: every other damage lies there
    end = len(array) if random.random() < 0.5 else min(len(array), 400)
    for at in random.integers(0, end, random.integers(1, 12)):
        array[at] ^= 1 << random.integers(8)
    return array.tobytes()


def cut(random, data, other):
    "The end is missing."
    return data[: random.integers(0, len(data))]


def spliced(random, data, other):
    "A piece of another file, of whatever kind, stands in it."
    start, length = random.integers(0, len(data)), random.integers(1, 2_000)
    piece = other[random.integers(0, len(other)) :][:length]
    return data[:start] + piece + data[start + random.integers(0, length) :]


def repeated(random, data, other):
    "A piece comes many times."
    start, length = random.integers(0, len(data)), random.integers(1, 200)
    return data[:start] + data[start : start + length] * int(random.integers(2, 300)) + data[start:]


def numbers(random, data, other):
    "Four bytes are the largest, the smallest or a random number."
    at = int(random.integers(0, min(len(data), 600)))
    number = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", random.bytes(4)][random.integers(4)]
    return data[:at] + number + data[at + 4 :]


DAMAGES = (flipped, cut, spliced, repeated, numbers)


def damaged(count, start=0):
    "So many damaged files, the same every time."
    sound = seeds()
    for i in range(start, start + count):
        random = rng("damage", i)
        data = sound[i % len(sound)]
        other = sound[random.integers(len(sound))]
        for _ in range(random.integers(1, 3)):
            data = DAMAGES[random.integers(len(DAMAGES))](random, data, other) or b"\0"
        yield data


def test_what_is_damaged_is_sound_before():
    for data in seeds():
        assert min(decode(data).native) >= 64


def test_some_damaged_images_in_this_process(tmp_path):
    "A hundred of them, by the doors of a verdict and of a data set."
    for i, data in enumerate(damaged(100, start=COUNT)):
        path = tmp_path / str(i)
        path.write_bytes(data)
        info = file_info(path)
        try:
            image = decode(io.BytesIO(data)).image
        except ImageError as error:
            assert error.reason and "\n" not in error.reason and info.reason
        else:
            assert image.mode == "RGB"
            # a data set also needs a header that makes sense
            assert (info.width, info.height) == image.size or "header" in info.reason, info


@pytest.mark.slow
def test_two_thousand_damaged_images(tmp_path, capsys):
    tiny_bundle(tmp_path / "tiny", slope=12.0, size=16, band=[0.4, 0.6])
    folder = tmp_path / "in"
    folder.mkdir()
    for i, data in enumerate(damaged(COUNT)):
        (folder / f"{i:04}").write_bytes(data)
    verdicts = []
    detector = Detector.load(tmp_path / "tiny", threads=1)
    score_paths(detector, [folder], verdicts.extend, 2, timeout=LIMIT)
    names = {verdict.name for verdict in verdicts}
    assert len(names) == COUNT, "each has its row"
    ends: collections.Counter[str] = collections.Counter()
    for verdict in verdicts:
        text = verdict.error or verdict.reason or verdict.label
        assert text and "\n" not in text and "Traceback" not in text
        ends[
            "longer" if "Took longer" in text else "died" if "died" in text else "error" if verdict.error else "verdict"
        ] += 1
    # of all children, the largest
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    with capsys.disabled():
        print(f"\n{COUNT:,} damaged images: {dict(ends)}; a worker's peak {peak:.0f} MiB")
    assert ends["error"] > 400 and ends["verdict"] > 200, "both ends are tried"
    assert ends["longer"] == ends["died"] == 0 and 50 < peak < 4_000
    unforeseen = [verdict.error for verdict in verdicts if verdict.error.startswith("Could not be judged")]
    assert not unforeseen, unforeseen[:5]


@pytest.mark.slow
def test_prepare_looks_at_damaged_images_in_bounded_memory(tmp_path):
    for i, data in enumerate(damaged(400)):
        (tmp_path / f"{i:03}").write_bytes(data)
    script = (
        "import pathlib, resource, sys\n"
        "from fakeface.images.facts import file_info\n"
        "bad = sum(bool(file_info(path).reason) for path in sorted(pathlib.Path(sys.argv[1]).iterdir()))\n"
        "print(bad, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    r = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=600)
    bad, peak = map(float, r.stdout.split())
    assert r.returncode == 0 and 50 < bad < 400 and peak < 4_000
