"""What gets past all that is counted beforehand is stopped by the system."""

import struct
import subprocess
import sys

import pytest
from PIL import Image
from test_jpeg2000 import HOSTILE

from fakeface.cli.main import main
from fakeface.images import bound
from fakeface.images.workers import Worker
from fakeface.infer.checker import checker
from fakeface.testing.images import image_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process may write to")

UNGUARDED = """
import pathlib, re, sys
from fakeface.images import bound, decode
assert bound.bound_memory()
bound._BESIDE = int(sys.argv[1])
decode.why_too_much = lambda image, stream: ""
for path in sys.argv[2:]:
    try:
        print(decode.decode(path).image.size)
    except decode.ImageError as error:
        print(error.reason)
# not ru_maxrss, which a process takes over from the one that started it
print(int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1000)
"""


def unguarded(*paths, beside=bound._BESIDE) -> list[str]:
    "What is said of files where nothing is counted beforehand, and the most memory in MB."
    command = [sys.executable, "-c", UNGUARDED, str(beside), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_file_that_no_guard_knows_is_stopped(tmp_path):
    bomb, sound = tmp_path / "bomb.j2k", tmp_path / "sound.png"
    # two and a half gigabytes where nothing stops it
    bomb.write_bytes(HOSTILE["bare"]())
    sound.write_bytes(image_bytes(Image.new("RGB", (40, 30)), "PNG"))
    of_bomb, of_sound, megabytes = unguarded(bomb, sound)
    assert "cannot be decoded" in of_bomb or "takes more than" in of_bomb
    assert of_sound == "(40, 30)" and int(megabytes) < 900


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "GIF"])
def test_a_sound_one_is_read(tmp_path, format):
    path = tmp_path / "sound"
    path.write_bytes(image_bytes(Image.new("RGB", (3000, 2000), (200, 120, 40)), format))
    assert unguarded(path)[0] == "(3000, 2000)"


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_jpeg_2000_takes_what_is_counted(tmp_path, mode):
    # whole numbers of 32 bits for each value: 16 bytes a pixel are not enough
    path = tmp_path / "sound.jp2"
    Image.linear_gradient("L").resize((3000, 3000)).convert(mode).save(path)
    assert unguarded(path, beside=2**25)[0] == "(3000, 3000)"


def test_workers_and_pages_are_bounded_and_other_programs_are_not(monkeypatch):
    worker = Worker(None, int)
    try:
        assert worker.ask(60, getattr, bound._Process, "is_bounded") is True
    finally:
        worker.end()
    monkeypatch.setattr(bound._Process, "is_bounded", False)
    checker("no such detector")
    assert not bound._Process.is_bounded
    monkeypatch.setenv("FAKEFACE_PAGE", "1")
    checker("no such detector")
    assert bound._Process.is_bounded


ABOUT = """
import pathlib, re, sys
from fakeface.images import bound, clues, decode, header
most = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1000
assert bound.bound_memory()
bound._BESIDE = 2**26
for module in (clues, decode):
    module.why_too_much = lambda image, stream: ""
before = most()
print(clues.clues(sys.argv[1]))
header.read_header(sys.argv[1])
print(most() - before)
"""


def test_what_a_file_says_is_read_within_the_bound(tmp_path):
    "As many numbers as a TIFF may have: as fractions of Python they take a quarter of a gigabyte, if they may."
    count = 1_900_000
    whole = struct.pack("<2sHI HHHIII HHHIII", b"II", 42, 8, 1, 0x8769, 4, 1, 26, 0, 1, 1000, 5, count, 44, 0)
    path = tmp_path / "numbers.png"
    path.write_bytes(image_bytes(Image.new("RGB", (40, 30)), "PNG", exif=whole + bytes(8 * count)))
    done = subprocess.run([sys.executable, "-c", ABOUT, path], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 180


def test_check_of_one_file_is_bounded_and_then_the_process_is_free_again(tiny, monkeypatch):
    found = []

    def score(*_, **__):
        found.append(bound._Process.is_bounded)
        return dict(files=1, unread=0)

    monkeypatch.setattr("fakeface.infer.folder.score_paths", score)
    # a page may have been tested in this process
    monkeypatch.setattr(bound._Process, "is_bounded", False)
    assert main(["check", __file__, "--bundle", str(tiny)]) == 0
    assert found == [True] and not bound._Process.is_bounded
