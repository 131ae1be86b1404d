"""Image files as people have them: HEIC, colour profiles, several frames, reduced decoding, threads, 60 megapixels."""

import io
import struct
import subprocess
import sys
import threading
import time
import unittest.mock as mock
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from fakeface.core.seeds import rng
from fakeface.images.decode import ImageError, decode, open_image
from fakeface.images.formats import IMAGE_SUFFIXES, NOT_READ, PILLOW_FORMATS, READ
from fakeface.images.header import read_header
from fakeface.images.profiles import _conversion
from fakeface.testing.images import (
    PRIMARIES,
    between_spaces,
    grey_profile,
    heic_bytes,
    image_bytes,
    ink_profile,
    orientation_exif,
    png_chunk,
    portrait,
    rgb_profile,
)

# orientation → how an upright image has to lie in the file, so that a viewer who obeys shows it upright
LIES = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def lying(image, orientation):
    turn = LIES[orientation]
    return image if turn is None else image.transpose(turn)


def exif_of(orientation):
    return orientation_exif(struct.pack(">HH", orientation, 0))


def mean_difference(one, other):
    return abs(np.asarray(one).astype(int) - np.asarray(other)).mean()


def in_space(name, image=None):
    "The portrait as numbers of another colour space."
    levels = between_spaces(np.asarray(image or portrait()), "sRGB", name)
    return Image.fromarray(np.rint(levels).astype(np.uint8))


# ---- one table
def test_every_ending_belongs_to_one_kind():
    endings = [ending for kind in (*READ, *NOT_READ) for ending in kind.suffixes.split()]
    assert len(endings) == len(set(endings)) and all(e.startswith(".") and e == e.lower() for e in endings)
    assert all(kind.instead for kind in NOT_READ) and not any(kind.instead for kind in READ)
    assert {".heic", ".heif", ".hif", ".mpo", ".avif", ".jpg"} <= IMAGE_SUFFIXES and ".jxl" not in IMAGE_SUFFIXES


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_every_kind_that_is_listed_is_read_and_called_so(kind):
    data = heic_bytes(portrait()) if kind.name == "HEIF" else image_bytes(portrait(), kind.name)
    assert decode(data).image.size == portrait().size
    assert read_header(data).format == kind.name
    assert kind.name == "HEIF" or kind.name in PILLOW_FORMATS


def test_each_module_that_lists_endings_uses_the_table():
    from fakeface.data import folders, rows
    from fakeface.infer import typed

    assert rows.IMAGE_SUFFIXES is folders.IMAGE_SUFFIXES is typed.IMAGE_SUFFIXES is IMAGE_SUFFIXES


# ---- HEIC
@pytest.mark.parametrize("orientation", LIES)
def test_heic_is_turned_once(orientation):
    "The file carries its rotation as a box; EXIF in it is not obeyed a second time."
    data = heic_bytes(lying(portrait(), orientation), orientation, quality=95, chroma=444)
    decoded = decode(data)
    assert decoded.native == decoded.image.size == portrait().size
    assert mean_difference(decoded.image, portrait()) < 1.5
    header = read_header(data)
    assert (header.width, header.height, header.format, header.frames) == (96, 120, "HEIF", 1)


@pytest.mark.parametrize("said", [3, 6, 8])
def test_exif_in_heic_without_a_box_turns_nothing(said):
    "The standard: only the box counts. Phones write both."
    data = heic_bytes(portrait(), 1, quality=95, chroma=444)
    upright = orientation_exif(b"\0\x01\0\0")[6:]
    assert data.count(upright) == 1
    data = data.replace(upright, orientation_exif(struct.pack(">HH", said, 0))[6:])
    assert mean_difference(decode(data).image, portrait()) < 1.5


def test_heic_of_ten_bits():
    import pillow_heif

    levels = np.asarray(portrait()).astype(np.uint16) * 257
    buffer = io.BytesIO()
    pillow_heif.encode("RGB;16", portrait().size, levels.tobytes(), buffer, quality=95, chroma=444)
    assert pillow_heif.open_heif(buffer.getvalue(), convert_hdr_to_8bit=False).info["bit_depth"] == 10
    assert mean_difference(decode(buffer.getvalue()).image, portrait()) < 1.5


def test_heic_of_several_images_shows_the_main_one():
    import pillow_heif

    file = pillow_heif.from_pillow(portrait())
    file.add_from_pillow(Image.new("RGB", (64, 64), "red"))
    buffer = io.BytesIO()
    file.save(buffer, primary_index=1)
    decoded = decode(buffer.getvalue())
    assert (decoded.image.size, decoded.frames, decoded.notes) == ((64, 64), 2, ("frame 2 of 2",))


def test_heic_cut_off_anywhere_is_refused():
    data = heic_bytes(portrait(200, 260), quality=80)
    for cut in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(ImageError):
            decode(data[:cut])
    assert decode(data).image.size == (200, 260)


def test_a_large_heic_is_refused_before_it_is_decoded():
    import pillow_heif.heif

    data = heic_bytes(portrait(200, 260))
    with mock.patch.object(pillow_heif.heif.BaseImage, "load", side_effect=AssertionError("decoded")):
        with pytest.raises(ImageError, match="200 × 260 pixels"):
            decode(data, max_pixels=200 * 260 - 1)
        read_header(data)


def test_heic_leaves_pillow_alone_and_is_imported_late():
    code = (
        "import sys, fakeface.images.decode as d; from PIL import Image; assert 'pillow_heif' not in sys.modules;"
        "d.decode(sys.stdin.buffer.read()); assert 'pillow_heif' in sys.modules and 'HEIF' not in Image.OPEN"
    )
    run = subprocess.run([sys.executable, "-c", code], input=heic_bytes(portrait()), capture_output=True)
    assert run.returncode == 0, run.stderr.decode()


def test_heic_without_its_reader_says_what_to_install():
    code = (
        "import sys; sys.modules['pillow_heif'] = None; import fakeface.images.decode as d\n"
        "try: d.decode(sys.stdin.buffer.read())\nexcept d.ImageError as error: print(error.reason)"
    )
    run = subprocess.run([sys.executable, "-c", code], input=heic_bytes(portrait()), capture_output=True, text=False)
    assert b"pip install pillow-heif" in run.stdout, run.stderr.decode()


# ---- kinds that are not read
def boxes(*brands):
    content = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 4 + len(content)) + content + bytes(64)


def one_grey_pixel(mark):
    "A TIFF of one pixel, 200, with four bytes behind its header as Canon puts them there."
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 12, 278: 1, 279: 1}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + mark + b"\xc8\0\0\0" + directory


def test_a_tiff_without_a_cameras_mark_is_read():
    assert decode(one_grey_pixel(bytes(4))).image.getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\xff\x0a" + bytes(range(90)), "JPEG XL, .*save it as"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + boxes(b"jxl "), "JPEG XL, .*save it as"),
        (boxes(b"crx ", b"isom"), "camera raw, .*develop"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(90), "camera raw"),
        (boxes(b"qt  "), "a video, .*frames"),
        (boxes(b"isom", b"mp42"), "a video"),
        (b"\x1aE\xdf\xa3" + bytes(90), "a video"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"8BPS\0\1" + bytes(90), "Photoshop"),
        (boxes(b"heic", b"mif1"), "cannot be read"),
        (boxes(b"avif", b"mif1"), "cannot be read|AVIF"),
        (b"<html><svg/></html>", "is a text file"),
        (image_bytes(portrait(), "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "camera raw, from which only a preview"),
        (one_grey_pixel(b"CR\2\0"), "camera raw, from which only a preview"),
    ],
)
def test_what_is_not_read_is_called_by_its_name(data, said):
    with pytest.raises(ImageError, match=said):
        decode(data)
    with pytest.raises(ImageError, match=said):
        read_header(data)


def test_a_folder_names_what_it_leaves_out(tmp_path):
    from fakeface.data.rows import image_files

    for name in ("a.heic", "b.HIF", "c.mpo", "d.jxl", "e.jxl", "f.dng", "g.xyz", "h.txt"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning) as told:
        assert [path.name for path in image_files(tmp_path)] == ["a.heic", "b.HIF", "c.mpo"]
    text = str(told[0].message)
    assert "2 *.jxl (JPEG XL, not read here" in text and "1 *.dng (camera raw" in text and "1 *.xyz" in text


# ---- colour profiles
@pytest.mark.parametrize("name", [name for name in PRIMARIES if name != "sRGB"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "HEIF", "AVIF"])
def test_a_profile_is_converted_in_every_format(kind, name):
    options = {
        "WEBP": dict(lossless=True),
        "JPEG": dict(quality=100, subsampling=0),
        "AVIF": dict(quality=100, subsampling="4:4:4"),
    }
    profile = rgb_profile(name)
    if kind == "HEIF":
        data = heic_bytes(in_space(name), icc_profile=profile, icc_profile_type="prof", quality=-1, chroma=444)
    else:
        data = image_bytes(in_space(name), kind, icc_profile=profile, **options.get(kind, {}))
    decoded = decode(data)
    assert decoded.notes == (f"its colours were converted from {name} to sRGB",)
    difference = abs(np.asarray(decoded.image).astype(int) - np.asarray(portrait()))
    if kind in ("PNG", "TIFF", "WEBP"):
        # ProPhoto's 8 bits are too coarse for some dark colours
        assert difference.max() <= (4 if name == "ProPhoto RGB" else 2)
    assert difference.mean() < 2.5 < 6 < mean_difference(in_space(name), portrait())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_srgb_profile_changes_no_byte(kind):
    options = dict(quality=90) if kind in ("JPEG", "WEBP") else {}
    without = decode(image_bytes(portrait(), kind, **options))
    with_it = decode(image_bytes(portrait(), kind, icc_profile=rgb_profile("sRGB"), **options))
    assert with_it.image.tobytes() == without.image.tobytes() and with_it.notes == without.notes == ()


@pytest.mark.parametrize("broken", [b"nonsense", bytes(200), rgb_profile("Adobe RGB")[:400], grey_profile(2.2)])
def test_a_profile_that_cannot_be_used_is_noted_and_not_half_applied(broken):
    decoded = decode(image_bytes(portrait(), "PNG", icc_profile=broken))
    assert decoded.image.tobytes() == portrait().tobytes()
    assert len(decoded.notes) == 1 and decoded.notes[0].endswith("it is not applied")


def test_grey_and_ink_profiles():
    grey = decode(image_bytes(portrait().convert("L"), "PNG", icc_profile=grey_profile(1.0)))
    light = np.asarray(portrait().convert("L")) / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert abs(np.asarray(grey.image)[..., 0] - expected).max() <= 1
    inks = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    printed = decode(image_bytes(inks, "TIFF", icc_profile=ink_profile([50, 0, 0])))
    # L* = 50 is 119 of 255
    assert abs(np.asarray(printed.image).astype(int) - 119).max() <= 2
    assert decode(image_bytes(inks, "TIFF")).image.getpixel((0, 0)) == (0, 255, 255), "without a profile as before"


def test_sixteen_bit_grey_and_transparency_go_through_their_profile():
    levels = np.asarray(portrait().convert("L"))
    eight = decode(image_bytes(Image.fromarray(levels), "PNG", icc_profile=grey_profile(1.0)))
    sixteen = decode(image_bytes(Image.fromarray(levels.astype(np.uint16) * 257), "PNG", icc_profile=grey_profile(1.0)))
    assert eight.image.tobytes() == sixteen.image.tobytes() and eight.notes == sixteen.notes != ()
    clear = in_space("Adobe RGB")
    clear.putalpha(Image.new("L", clear.size, 0))
    assert (
        decode(image_bytes(clear, "PNG", icc_profile=rgb_profile("Adobe RGB"))).image.getextrema() == ((255, 255),) * 3
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_grey_of_few_bits_in_sixteen_is_noted(bits):
    "Its values are read as they are: nearly black, which nobody would see in a score."
    levels = np.asarray(portrait().convert("L")).astype(np.uint32) * (2**bits - 1) // 255
    for name in ("PNG", "TIFF"):
        notes = decode(image_bytes(Image.fromarray(levels.astype(np.uint16)), name)).notes
        assert [note.split(" of ")[0] for note in notes] == [f"its 16-bit grey values end at {levels.max():,}"] * (
            bits < 16
        )


@pytest.mark.parametrize("name", ["AVIF", "PNG"])
def test_a_colour_space_by_number_is_noted_as_in_heic(name):
    data = image_bytes(portrait(), name)
    if name == "PNG":
        wide = data[:33] + png_chunk(b"cICP", bytes([9, 16, 0, 1])) + data[33:]
    else:
        at = data.index(b"nclx") + 4
        wide = data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]
    assert decode(data).notes == ()
    (note,) = decode(wide).notes
    assert "HDR" in note and "read as sRGB" in note


def test_path_bytes_and_pillow_image_agree_on_profiles(tmp_path):
    data = image_bytes(in_space("Display P3"), "JPEG", icc_profile=rgb_profile("Display P3"), exif=exif_of(6))
    (tmp_path / "a.jpg").write_bytes(data)
    images = [open_image(source) for source in (tmp_path / "a.jpg", data, Image.open(tmp_path / "a.jpg"))]
    assert len({image.tobytes() for image in images}) == 1
    assert open_image(images[0]).tobytes() == images[0].tobytes(), "nothing is left to be applied twice"


# ---- reduced decoding
@pytest.mark.parametrize("orientation", LIES)
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_reduced_decoding_knows_the_native_size(kind, orientation, tmp_path):
    image = portrait(803, 1001)
    several = dict(save_all=True, append_images=[image]) if kind == "MPO" else {}
    data = image_bytes(lying(image, orientation), kind, quality=90, exif=exif_of(orientation), **several)
    (tmp_path / "a.jpg").write_bytes(data)
    for reduce, factor in ((None, 1), (402, 1), (401, 2), (200, 4), (100, 8), (1, 8)):
        decoded = decode(data, reduce=reduce)
        assert (decoded.native, decoded.factor) == ((803, 1001), factor)
        assert decoded.image.size == (-(-803 // factor), -(-1001 // factor))
        assert factor == 1 or min(decoded.image.size) >= reduce
        assert decode(tmp_path / "a.jpg", reduce=reduce).image.tobytes() == decoded.image.tobytes()
        # the oracle: averages over blocks of the image as it lies in the file, turned by Pillow
        small = lying(image, orientation).reduce(factor)
        small.getexif()[0x112] = orientation
        assert mean_difference(decoded.image, ImageOps.exif_transpose(small)) < 2
        assert decoded.frames == (2 if kind == "MPO" else 1)


def test_reduced_decoding_with_a_profile_is_the_reduced_image_in_srgb():
    large = portrait(800, 1000)
    profile = rgb_profile("Adobe RGB")
    data = image_bytes(in_space("Adobe RGB", large), "JPEG", quality=95, subsampling=0, icc_profile=profile)
    decoded = decode(data, reduce=400)
    assert decoded.factor == 2 and decoded.notes == ("its colours were converted from Adobe RGB to sRGB",)
    assert mean_difference(decoded.image, large.reduce(2)) < 2


def test_only_jpeg_is_reduced_and_a_bad_value_is_refused():
    for kind in ("PNG", "WEBP", "GIF"):
        decoded = decode(image_bytes(portrait(400, 400), kind), reduce=50)
        assert (decoded.factor, decoded.image.size) == (1, (400, 400))
        with pytest.raises(ValueError, match="1 or more"):
            decode(image_bytes(portrait(), kind), reduce=0)


# ---- several frames
@pytest.mark.parametrize(
    "kind, options", [("GIF", {}), ("WEBP", dict(lossless=True)), ("PNG", {}), ("MPO", {}), ("TIFF", {})]
)
def test_the_first_of_several_frames_and_how_many_there_are(kind, options):
    later = [Image.new("RGB", portrait().size, colour) for colour in ("red", "lime", "blue", "white", "black")]
    data = image_bytes(portrait(), kind, save_all=True, append_images=later, **options)
    decoded = decode(data)
    assert (decoded.frames, decoded.notes) == (6, ("frame 1 of 6",)) and read_header(data).frames == 6
    alone = decode(image_bytes(portrait(), kind, **options))
    assert decoded.image.tobytes() == alone.image.tobytes() and alone.frames == 1 and not alone.notes


# ---- wrong EXIF
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("said", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(kind, said):
    exif = Image.Exif()
    exif[0x112] = said
    data = image_bytes(portrait(), kind, exif=exif)
    header = read_header(data)
    assert decode(data).image.size == (header.width, header.height) == portrait().size and not decode(data).notes


@pytest.mark.parametrize(
    "exif",
    [
        orientation_exif(b"six\0", type=2, count=4),
        orientation_exif(b"\xff\xff\xff\xff", type=5),
        orientation_exif(b"\0\0\0\x1a", type=12),
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0" + bytes(range(256)),
    ],
)
def test_exif_that_makes_no_sense_refuses_nothing(exif):
    data = image_bytes(portrait(), "JPEG", exif=exif)
    plain = image_bytes(portrait(), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(data).image.tobytes() == decode(plain).image.tobytes()
        assert (read_header(data).width, read_header(data).height) == portrait().size


# ---- threads
@pytest.fixture()
def lenient():
    "Pillow told to fill in what a file lacks, as some libraries do."
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    yield
    ImageFile.LOAD_TRUNCATED_IMAGES = before


def in_threads(work, count=8):
    failures = []

    def watched(k):
        try:
            work(k)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=watched, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_no_thread_fills_in_what_a_file_lacks(lenient):
    whole = image_bytes(portrait(300, 400), "JPEG", quality=90)
    half = whole[: len(whole) // 2]
    Image.open(io.BytesIO(half)).load()
    expected = decode(whole).image.tobytes()

    def work(k):
        for _ in range(25):
            with pytest.raises(ImageError, match="truncated"):
                decode(half)
            assert decode(whole).image.tobytes() == expected

    in_threads(work)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "afterwards it is as it was"
    Image.open(io.BytesIO(half)).load()


def test_a_switch_thrown_meanwhile_is_noticed():
    whole = image_bytes(portrait(), "JPEG")

    def throws(image):
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        return image, ""

    try:
        with mock.patch("fakeface.images.decode.to_srgb", throws):
            with pytest.raises(ImageError, match="switched on during decoding"):
                decode(whole)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "somebody else's value is left"
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    assert decode(whole).image.size == portrait().size


def test_threads_share_profiles():
    data = [image_bytes(in_space(name), "PNG", icc_profile=rgb_profile(name)) for name in PRIMARIES]
    expected = [decode(one).image.tobytes() for one in data]
    _conversion.cache_clear()

    def work(k):
        for step in range(20):
            chosen = (k + step) % len(data)
            assert decode(data[chosen]).image.tobytes() == expected[chosen]

    in_threads(work)


# ---- size
PEAK = """
import re
import sys
from pathlib import Path

from fakeface.images.decode import decode

decoded = decode(sys.stdin.buffer.read(), reduce=int(sys.argv[1]) or None)
# not ru_maxrss, which begins with the peak of the process that started this one
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(*decoded.native, *decoded.image.size, peak / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_sixty_megapixels_pass(capsys):
    "A turned JPEG of 60 megapixels with a profile: decoded whole it takes some copies of its 180 MB, reduced few."
    exif = exif_of(6)
    profile = rgb_profile("Display P3")
    image = Image.linear_gradient("L").resize((9_504, 6_336)).convert("RGB")
    data = image_bytes(image, "JPEG", quality=80, exif=exif, icc_profile=profile)
    del image
    peaks = {}
    for reduce in (0, 512):
        run = subprocess.run([sys.executable, "-c", PEAK, str(reduce)], input=data, capture_output=True)
        assert run.returncode == 0, run.stderr.decode()
        *sizes, peaks[reduce] = map(float, run.stdout.split())
        factor = 8 if reduce else 1
        assert sizes == [6_336, 9_504, 6_336 / factor, 9_504 / factor]
    with capsys.disabled():
        print(f"\n60 MP: whole {peaks[0]:.0f} MB, reduced {peaks[512]:.0f} MB at the peak")
    assert peaks[512] < 200 < peaks[0] < 1000


def levels_file(kind: str, most: int, side: int = 40) -> bytes:
    "A PPM or PGM of so many levels, some of which are above what it says is the most."
    stored = np.dtype(">u2" if most > 255 else "u1")
    shape = (side, side + 1, 3 if kind == "P6" else 1)
    levels = rng("levels", most).integers(0, min(most + most // 50 + 1, 256**stored.itemsize - 1), shape, endpoint=True)
    return f"{kind}\n{side + 1} {side}\n{most}\n".encode() + levels.astype(stored).tobytes()


@pytest.mark.parametrize("most", [1, 2, 100, 254, 256, 1023, 4095, 65534, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_ppm_of_any_number_of_levels_is_read_as_pillow_does(kind, most):
    data = levels_file(kind, most)
    by_pillow = Image.open(io.BytesIO(data))
    by_pillow.load()
    before = by_pillow.tobytes()
    opened = Image.open(io.BytesIO(data))
    read = [decode(source) for source in (by_pillow, data, opened)]
    assert {each.image.tobytes() for each in read} == {read[0].image.tobytes()} and read[0].notes == read[1].notes
    assert opened.tobytes() == by_pillow.tobytes() == before
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(data[:-100])


def test_ppm_of_many_levels_is_read_in_no_time():
    data = levels_file("P6", 65535, 700)
    seconds = []
    for read in (lambda: Image.open(io.BytesIO(data)).load(), lambda: decode(data)):
        start = time.process_time()
        read()
        seconds.append(time.process_time() - start)
    assert seconds[1] < seconds[0] / 4, seconds


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "WEBP"])
@pytest.mark.parametrize("how", ["with", "file"])
def test_a_pillow_image_that_was_closed_says_so(tmp_path, format, how):
    path = tmp_path / "a"
    portrait().save(path, format)
    with open(path, "rb") as file, Image.open(file if how == "file" else path) as image:
        pass
    if format in ("AVIF", "WEBP"):
        # Pillow holds their bytes
        assert decode(image).image.size == portrait().size
    else:
        with pytest.raises(ImageError, match=r"was closed before it was decoded; .*load\(\)"):
            decode(image)
    with Image.open(path) as image:
        image.load()
    assert decode(image).image.size == portrait().size


def phone_jpeg(upright, orientation, sides=True):
    "A JPEG as phones store it: on its side, with its stored sides in EXIF."
    stored = upright if LIES[orientation] is None else upright.transpose(LIES[orientation])
    exif = Image.Exif()
    exif[0x112] = orientation
    if sides:
        exif.get_ifd(0x8769).update({0xA002: stored.width, 0xA003: stored.height})
    return image_bytes(stored, "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_image_that_was_turned_by_hand_is_not_turned_again(orientation):
    upright = portrait()
    data = phone_jpeg(upright, orientation)

    def opened():
        return Image.open(io.BytesIO(data))

    back = ImageOps.exif_transpose(opened())
    turn = {5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    by_hand = opened().transpose(Image.Transpose(turn))
    assert by_hand.tobytes() == back.tobytes() and by_hand.getexif()[0x112] == orientation
    small = opened()
    small.thumbnail((60, 60))
    for image in (data, opened(), opened().convert("RGB"), opened().copy(), back, by_hand, by_hand.convert("RGB")):
        assert mean_difference(open_image(image), upright) < 5, image
    for image in (small, opened().resize((80, 64)), opened().crop((0, 0, 90, 60))):
        assert open_image(image).height > open_image(image).width
    assert "not turned as EXIF says" in str(decode(by_hand).notes) and decode(data).notes == decode(opened()).notes


def test_without_its_stored_sides_an_image_is_turned_as_exif_says():
    copy = Image.open(io.BytesIO(phone_jpeg(portrait(), 6, sides=False))).convert("RGB")
    assert open_image(copy).size == portrait().size and "(6)" in str(decode(copy).notes)
