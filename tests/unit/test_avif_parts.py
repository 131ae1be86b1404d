"""AVIF of which parts lie in one place, or of two films, is read; what makes a small file long to look at is not."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from fakeface.images.avif import why_other_size
from fakeface.images.decode import decode
from fakeface.testing.images import image_bytes, portrait


def box(kind: bytes, content: bytes, version: int | None = None) -> bytes:
    "A box; with a version, of the full kind."
    if version is not None:
        content = struct.pack(">I", version << 24) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def film(mode: str, frames: int, **options) -> bytes:
    "A film of noise, which leaves little of the file that is no image; its transparency, if any, takes few bytes."
    first, *later = [noise(i).convert(mode) for i in range(frames)]
    return image_bytes(first, "AVIF", save_all=True, append_images=later, quality=90, speed=10, **options)


@pytest.mark.parametrize("frames", [2, 5])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_films_are_read_with_and_without_transparency(mode, frames):
    decoded = decode(film(mode, frames))
    assert decoded.animation_frames == frames and decoded.image.size == (64, 64)


def test_a_gif_saved_as_avif_is_read():
    moving = image_bytes(portrait(), "GIF", save_all=True, append_images=[portrait().rotate(20)])
    with Image.open(io.BytesIO(moving)) as gif:
        assert decode(image_bytes(gif, "AVIF", save_all=True)).frames == 2


def coded_of(image: Image.Image) -> bytes:
    "The AV1 data of an image."
    data = image_bytes(image, "AVIF", speed=10)
    return data[data.index(b"mdat") + 4 :]


def items_file(places: list[tuple[int, int]], coded: bytes) -> bytes:
    "Items, each from one byte to another of the data; the last one, which is shown, is a grid of them."
    grid = len(places) + 1
    kinds = [*[b"av01"] * len(places), b"grid"]
    listed = b"".join(box(b"infe", struct.pack(">HH", 1 + i, 0) + kind + b"\0", 2) for i, kind in enumerate(kinds))

    def meta(at: int) -> bytes:
        lie = [struct.pack(">HHHII", 1 + i, 0, 1, at + start, end - start) for i, (start, end) in enumerate(places)]
        content = box(b"pitm", struct.pack(">H", grid), 0)
        content += box(b"iinf", struct.pack(">H", grid) + listed, 0)
        content += box(b"iloc", b"\x44\x00" + struct.pack(">H", len(lie)) + b"".join(lie), 0)
        return box(b"meta", content, 0)

    return meta(len(meta(0)) + 8) + box(b"mdat", coded)


def said_of(data: bytes, *size: int) -> str:
    return why_other_size(io.BytesIO(data), *size)


def test_equal_tiles_may_lie_in_one_place():
    coded = coded_of(noise(0))
    assert said_of(items_file([(0, len(coded))] * 12, coded), 256, 192) == ""


def test_parts_that_overlap_are_not_read_for_ever():
    coded = bytes(20_000)
    sliding = [(i, len(coded)) for i in range(12)]
    assert "parts are longer than itself" in said_of(items_file(sliding, coded), 256, 192)


def test_a_large_part_is_found_among_equal_ones():
    small, large = coded_of(noise(0)), coded_of(Image.new("RGB", (4_096, 4_096)))
    tiles = [(0, len(small))] * 8 + [(len(small), len(small) + len(large))] * 2
    assert "4,096 × 4,096 in its data" in said_of(items_file(tiles, small + large), 256, 192)


def moved(data: bytes, kind: bytes, at: int, number: int) -> bytes:
    "With another number behind the letters of each box of a kind."
    parts = data.split(kind)
    return kind.join([parts[0], *[part[:at] + struct.pack(">I", number) + part[at + 4 :] for part in parts[1:]]])


@pytest.mark.parametrize("length_at", [4, 12], ids=["of all images", "of the first"])
def test_the_first_image_of_a_film_is_looked_at(length_at):
    still, large = film("RGB", 2), coded_of(Image.new("RGB", (8_000, 8_000)))
    # the first image lies behind what was the file's end
    hiding = moved(moved(still, b"stco", 8, len(still) + 8), b"stsz", length_at, len(large))
    assert "8,000 × 8,000 in its data" in said_of(hiding + box(b"mdat", large), 64, 64)
    assert "cut off" in said_of(hiding, 64, 64)


@pytest.mark.parametrize("kind", [b"stsz", b"stco"])
def test_a_film_with_two_lists_of_its_images_is_refused(kind):
    still = film("RGB", 2)
    at = still.index(b"stbl") - 4
    (length,) = struct.unpack_from(">I", still, at)
    inside = still[at + 8 : at + length]
    again = box(b"co64" if kind == b"stco" else kind, bytes(16), 0)
    track = box(b"stbl", inside + again)
    # what holds it is as much longer
    data = still[:at] + track + still[at + length :]
    for outer in (b"moov", b"trak", b"mdia", b"minf"):
        where = still.index(outer) - 4
        longer = struct.unpack_from(">I", still, where)[0] + len(again)
        data = data[:where] + struct.pack(">I", longer) + data[where + 4 :]
    assert "more than once" in said_of(data, 64, 64)
