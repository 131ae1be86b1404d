"""HEIC put together of tiles, as phones write it, is read; what holds far more than it shows is not."""

import io
import struct

import pillow_heif
import pytest
from PIL import Image
from fakeface.images.avif import why_larger_within
from fakeface.images.decode import ImageError, decode

TILE, GRID = 1, 9  # items


def box(kind: bytes, content: bytes, version: int | None = None) -> bytes:
    "A box; with a version, of the full kind."
    if version is not None:
        content = struct.pack(">I", version << 24) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def boxes(data: bytes) -> dict[bytes, bytes]:
    "Letters → content; of several boxes of a kind the last."
    found, at = {}, 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + length]
        at += length
    return found


def one_tile() -> tuple[dict[bytes, bytes], bytes]:
    "What encodes a tan tile of 64 × 64: the boxes that describe it, and its data."
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "tan")).save(file)
    whole = boxes(file.getvalue())
    inside = boxes(whole[b"meta"][4:])
    described = boxes(boxes(inside[b"iprp"])[b"ipco"])
    return described | {b"hdlr": inside[b"hdlr"], b"ftyp": whole[b"ftyp"]}, whole[b"mdat"]


def grid_file(shown: int, becomes: int, kind: bytes = b"grid", side: int = 2) -> bytes:
    "`side` × `side` tiles; what the header says of the grid's sides, and what the grid says."
    known, coded = one_tile()
    properties = [box(b"hvcC", known[b"hvcC"]), box(b"ispe", known[b"ispe"])]
    properties += [box(b"ispe", struct.pack(">II", shown, shown), 0)]
    grid = bytes([0, 1, side - 1, side - 1]) + struct.pack(">II", becomes, becomes)
    entry = b"".join(
        box(b"infe", struct.pack(">HH", item, 0) + name + b"\0", 2) for item, name in ((TILE, b"hvc1"), (GRID, kind))
    )
    uses = struct.pack(">HBBB", TILE, 2, 0x81, 2) + struct.pack(">HBB", GRID, 1, 3)
    tiles = [TILE] * side**2
    refers = box(b"dimg", struct.pack(f">HH{len(tiles)}H", GRID, len(tiles), *tiles))

    def meta(at: int) -> bytes:
        places = struct.pack(">HHHHII", TILE, 0, 0, 1, at, len(coded))
        places += struct.pack(">HHHHII", GRID, 1, 0, 1, 0, len(grid))
        content = box(b"hdlr", known[b"hdlr"]) + box(b"pitm", struct.pack(">H", GRID), 0)
        content += box(b"iloc", b"\x44\x00" + struct.pack(">H", 2) + places, 1)
        content += box(b"iinf", struct.pack(">H", 2) + entry, 0) + box(b"iref", refers, 0)
        associated = box(b"ipma", struct.pack(">I", 2) + uses, 0)
        content += box(b"iprp", box(b"ipco", b"".join(properties)) + associated) + box(b"idat", grid)
        return box(b"ftyp", known[b"ftyp"]) + box(b"meta", content, 0)

    return meta(len(meta(0)) + 8) + box(b"mdat", coded)


@pytest.mark.parametrize("becomes", [128, 100])
def test_tiles_side_by_side_are_read(becomes):
    found = decode(grid_file(becomes, becomes))
    assert found.image.size == (becomes, becomes)
    for place in ((5, 5), (becomes - 5, 5), (becomes // 2, becomes - 5)):
        assert found.image.getpixel(place) == pytest.approx((210, 180, 140), abs=4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: grid_file(128, 24_000), "24,000 × 24,000 pixels behind 128 × 128"),
        (lambda: grid_file(128, 128, b"iovl"), "lays images over one another"),
        (lambda: grid_file(128, 128, b"iden"), "lays images over one another"),
    ],
)
def test_more_than_is_shown_is_refused(data, said):
    with pytest.raises(ImageError, match=said):
        decode(data())


def transparent() -> bytes:
    "A HEIC whose transparency is an item of its own."
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGBA", (64, 64), (210, 180, 140, 128))).save(file)
    return file.getvalue()


def test_transparency_of_transparency_is_refused():
    data = transparent()
    assert decode(data).image.size == (64, 64)
    at = data.index(b"auxl") + 4
    alpha, count, master = struct.unpack_from(">HHH", data, at)
    assert (count, master) == (1, 1)
    chained = data[:at] + struct.pack(">HHH", alpha, count, alpha) + data[at + 6 :]
    assert "belongs to a part of it" in why_larger_within(io.BytesIO(chained), 64, 64)
    assert why_larger_within(io.BytesIO(data), 64, 64) == ""


def test_an_item_that_is_there_twice_is_refused():
    data = transparent()
    at = data.index(b"iinf") + 8
    (count,) = struct.unpack_from(">H", data, at)
    with pytest.raises(ImageError, match="twice, or not counted"):
        decode(data[:at] + struct.pack(">H", count - 1) + data[at + 2 :])
