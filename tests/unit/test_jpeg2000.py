"""A JPEG 2000 file cut into tiny pieces is refused before it is decoded, wherever it says so."""

import io
import struct

import pytest
from PIL import Image
from fakeface.images.decode import ImageError, decode
from fakeface.images.jpeg2000 import memory_of_pieces

SIDE = 1200  # tiny pieces would take some gigabytes


def plain(**options) -> bytes:
    "An ordinary file."
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(file, "JPEG2000", **options)
    return file.getvalue()


def style(data: bytes) -> int:
    "Where the segment that cuts the image begins."
    return data.index(b"\xff\x52")


def tiny(segment: bytes) -> bytes:
    "The same segment with precincts of two by two."
    head, levels = segment[:4], segment[9]
    content = bytes([segment[4] | 1]) + segment[5:14] + bytes([0x11] * (levels + 1))
    return head[:2] + struct.pack(">H", len(content) + 2) + content


def tiny_in_header() -> bytes:
    data = plain(no_jp2=True)
    at = style(data)
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at] + tiny(data[at : at + length]) + data[at + length :]


def tiny_in_tile() -> bytes:
    data = plain(no_jp2=True)
    at, tile = style(data), data.index(b"\xff\x90\x00\x0a")
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    added = tiny(data[at : at + length])
    (size,) = struct.unpack_from(">I", data, tile + 6)
    start = data[tile : tile + 6] + struct.pack(">I", size + len(added) if size else 0) + data[tile + 10 : tile + 12]
    return data[:tile] + start + added + data[tile + 12 :]


def boxed(codestream: bytes, long: bool) -> bytes:
    "In a JP2 file, its length in four bytes or in eight."
    whole = plain()
    at = whole.index(b"jp2c") - 4
    size = len(codestream)
    head = struct.pack(">I4sQ", 1, b"jp2c", size + 16) if long else struct.pack(">I4s", size + 8, b"jp2c")
    return whole[:at] + head + codestream


HOSTILE = {
    "bare": tiny_in_header,
    "in a tile's header": tiny_in_tile,
    "boxed": lambda: boxed(tiny_in_header(), False),
    "in a long box": lambda: boxed(tiny_in_header(), True),
    "small blocks": lambda: plain(codeblock_size=(4, 4), no_jp2=True),
    "small tiles": lambda: plain(tile_size=(8, 8)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_many_pieces_are_refused(name):
    data = HOSTILE[name]()
    assert memory_of_pieces(io.BytesIO(data)) > 7e7
    with pytest.raises(ImageError, match="so many pieces"):
        decode(data)


@pytest.mark.parametrize("options", [{}, dict(tile_size=(256, 256)), dict(precinct_size=(128, 128)), dict(no_jp2=True)])
def test_what_encoders_write_is_read(options):
    found = decode(plain(**options))
    assert found.image.size == (SIDE, SIDE)
    assert found.image.getpixel((SIDE // 2, SIDE // 2)) == pytest.approx((90, 120, 60), abs=1)


@pytest.mark.parametrize("kept", [30, 90, 130, 170])
def test_a_torn_header_is_a_sentence(kept):
    with pytest.raises(ImageError):
        decode(plain()[:kept])


@pytest.mark.parametrize("mark", [0x30, 0x50, 0x56, 0x59, 0x5A, 0x5B, 0x62, 0x93, 0xD9])
def test_what_the_decoder_would_search_for_marks_is_refused(mark):
    data = plain(no_jp2=True)
    at = style(data)
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    hidden = tiny(data[at : at + length])
    segment = bytes([0xFF, mark]) + struct.pack(">H", len(hidden) + 2) + hidden
    with pytest.raises(ImageError, match="not known"):
        decode(data[: at + length] + segment + data[at + length :])
