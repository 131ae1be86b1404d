"Small files that ask for much: scans, pages, gigabytes, decoders without an end; each is a row that says so, soon."

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakeface.data.orl import demo_faces
from fakeface.images import memory
from fakeface.images.clues import clues
from fakeface.images.decode import ImageError, decode, open_image
from fakeface.images.facts import file_info
from fakeface.images.header import read_header
from fakeface.images.limits import MAX_BYTES
from fakeface.infer.detector import Detector
from fakeface.infer.folder import score_paths
from fakeface.infer.inputs import read_input
from fakeface.infer.pool import check_paths
from fakeface.testing.images import image_bytes, png_chunk, portrait, raw_png

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
SOON = 5.0  # seconds; a bomb takes minutes
PATIENCE = 100.0  # seconds, on a machine that has much else to do
COMMAND = [sys.executable, "-m", "fakeface", "check"]


def scan_bomb(scans, side=1_500):
    "A progressive JPEG that comes so many times."
    data = image_bytes(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + scans * data[start:end] + data[end:]


def page_bomb(pages):
    "A TIFF of which each page is followed by another."
    data = image_bytes(portrait(), "TIFF")
    start = int.from_bytes(data[4:8], "little")
    entries = data[start : start + 2 + 12 * data[start]]
    link = start + len(entries)
    chain = bytearray(data)
    for _ in range(pages - 1):
        chain[link : link + 4] = len(chain).to_bytes(4, "little")
        link = len(chain) + len(entries)
        chain += entries + bytes(4)
    return bytes(chain)


def text_bomb(kind):
    "A PNG whose text or profile is 500 MB once it is unpacked."
    packed = zlib.compress(bytes(500_000_000), 1)
    data = raw_png(8, 8, 8, 0, (b"\0" + bytes(8)) * 8)
    head = data.index(b"IDAT") - 4
    body = b"name\0\0" + packed
    return data[:head] + png_chunk(kind, body) + data[head:]


def tile_bomb(side):
    "A TIFF of 100 × 100 pixels in a tile of `side` × `side`, which is all black."
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    values = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 325: len(packed)}
    values[324] = 8 + 2 + 12 * 10 + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(values)) + entries + bytes(4) + packed


def frame_bomb(frames):
    "A GIF of so many frames."
    data = image_bytes(Image.new("P", (8, 8), 1), "GIF")
    frame = data[data.index(b",\0\0\0\0") : -1]
    return data[:-1] + (b"\x21\xf9\x04\0\0\0\0\0" + frame) * frames + b";"


def entry_bomb(pages, entries):
    "A TIFF whose pages begin one entry after the other, and share the rest of their entries."
    data = image_bytes(portrait(16, 16), "TIFF")
    start = int.from_bytes(data[4:8], "little")
    first = data[start : start + 2 + 12 * data[start]]
    base = len(data)
    # each entry ends with the count of a page that begins in it
    shared = bytearray(struct.pack("<HHII", entries, 1, 1, 0) * (pages + entries + 1))
    shared[12 * pages + 2 : 12 * pages + len(first)] = first[2:]
    for i in range(pages):
        at = 12 * (i + entries) + 2
        shared[at : at + 4] = struct.pack("<I", base + 12 * (i + 1) if i < pages - 1 else 0)
    link = start + len(first)
    return data[:link] + struct.pack("<I", base) + data[link + 4 :] + bytes(shared)


def chunk_bomb(chunks, kind=b"tEXt"):
    "A PNG of so many empty chunks before its last."
    data = image_bytes(portrait(16, 16), "PNG")
    at = 33 if kind == b"tEXt" else data.index(b"IEND") - 4
    return data[:at] + png_chunk(kind, b"a\0" if kind == b"tEXt" else b"") * chunks + data[at:]


def segment_bomb(filling, times):
    "A JPEG with something before its first segment, so many times."
    data = image_bytes(portrait(16, 16), "JPEG")
    return data[:2] + filling * times + data[2:]


def box_bomb(boxes):
    "A JPEG 2000 file with so many empty boxes before its header."
    data = image_bytes(portrait(16, 16), "JPEG2000")
    return data[:12] + b"\0\0\0\x08free" * boxes + data[12:]


def value_bomb(entries, length, start=b"II*\0\x08\0\0\0"):
    "A page of a TIFF without pixels, or EXIF data, whose entries all have the same value."
    value = len(start) + 2 + 12 * entries + 4
    rows = (struct.pack("<HHII", 30_000 + i, 7, length, value) for i in range(entries))
    return start + struct.pack("<H", entries) + b"".join(rows) + bytes(4 + length)


def numbers_bomb(count):
    "A TIFF whose page has a list of so many numbers, of a kind that nobody asks for."
    start = b"II*\0\x08\0\0\0"
    return start + struct.pack("<HHHII", 1, 273, 4, count, 26) + bytes(4 + 4 * count)


def exif_bomb(kind):
    "An image whose EXIF data are small, and ask for a gigabyte."
    if kind == "JPEG":
        exif = value_bomb(20_000, 50_000)
        parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
        return segment_bomb(segments, 1)
    data = image_bytes(portrait(16, 16), kind)
    return data[:33] + png_chunk(b"eXIf", value_bomb(20_000, 50_000)) + data[33:]


def nested_bomb():
    "A TIFF that is read, with EXIF data inside whose entries share one value."
    data = bytearray(image_bytes(portrait(16, 16), "TIFF", tiffinfo={0x8769: 0}))
    at = data.index(struct.pack("<HHI", 0x8769, 4, 1))
    data[at + 8 : at + 12] = struct.pack("<I", len(data))
    return value_bomb(20_000, 50_000, bytes(data))


def size_bomb(data):
    "An image whose header says 100 × 75."
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 100, 75) + data[at + 8 :]


BOMBS = {
    "scans": (lambda: scan_bomb(20_000), "more than 100 scans"),
    "pages": (lambda: page_bomb(30_000), "more than 1,000 pages"),
    "tiles": (lambda: tile_bomb(10_000), "tiles of 10,000 × 10,000 pixels for 100 × 100"),
    "zTXt": (lambda: text_bomb(b"zTXt"), "too large|cannot be|exceeds"),
    "iCCP": (lambda: text_bomb(b"iCCP"), "too large|cannot be|exceeds"),
    "entries": (lambda: entry_bomb(990, 3_000), "more than 250,000 entries"),
    "more entries": (lambda: entry_bomb(990, 50_000), "more than 250,000 entries"),
    "frames": (lambda: frame_bomb(2_000_000), "more than 250,000 frames and blocks"),
    "tEXt": (lambda: chunk_bomb(2_000_000), "more than 250,000 chunks"),
    "IDAT": (lambda: chunk_bomb(2_000_000, b"IDAT"), "more than 250,000 chunks"),
    "segments": (lambda: segment_bomb(b"\xff\xe1\0\2", 8_000_000), "more than 250,000 segments"),
    "padding": (lambda: segment_bomb(b"\xff", 60_000_000), "more than 250,000 segments"),
    "boxes": (lambda: box_bomb(8_000_000), "more than 250,000 boxes"),
    "comments": (lambda: b"P6\n#" + b" " * 100_000_000 + b"\n1 1\n255\n123", "more than 65,536 bytes before"),
    "shared values": (lambda: value_bomb(1_000, 1_000_000), "entries that ask for 1,000,000,000 bytes"),
    "numbers": (lambda: numbers_bomb(5_000_000), "more than 2,000,000 numbers"),
    "EXIF of a JPEG": (lambda: exif_bomb("JPEG"), "entries that ask for 1,000,000,000 bytes"),
    "EXIF of a PNG": (lambda: exif_bomb("PNG"), "entries that ask for 1,000,000,000 bytes"),
    "EXIF of a TIFF": (nested_bomb, "entries that ask for 1,000,000,000 bytes"),
    "AVIF": (
        lambda: size_bomb(image_bytes(Image.new("RGB", (1200, 900), "tan"), "AVIF", speed=10)),
        "AVIF of 100 × 75 pixels in its header and 1,200 × 900 in its data",
    ),
    "claims much": (lambda: raw_png(60_000, 60_000, 8, 2, rows=b"\0" * 64), "pixels"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_soon_by_every_door(kind, tmp_path):
    make, said = BOMBS[kind]
    data = make()
    (tmp_path / "bomb").write_bytes(data)
    for door in (open_image, read_header, lambda data: decode(data, reduce=64)):
        started = time.monotonic()
        with pytest.raises(ImageError, match=said):
            door(data)
        assert time.monotonic() - started < SOON
    started = time.monotonic()
    clues(data)
    assert time.monotonic() - started < SOON
    assert file_info(tmp_path / "bomb").reason, "prepare leaves it out with the reason"


def test_a_heic_that_is_larger_than_its_header_says_is_not_decoded():
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (800, 600), "tan")).save(file)
    assert open_image(file.getvalue()).size == (800, 600)
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_image(size_bomb(file.getvalue()))


def test_frames_and_scans_that_people_have_are_read():
    started = time.monotonic()
    assert decode(frame_bomb(100_000)).frames == 100_001 and time.monotonic() - started < SOON
    assert decode(scan_bomb(80, side=64)).image.size == (64, 64)
    assert decode(page_bomb(900)).frames == read_header(page_bomb(900)).frames == 900
    assert decode(chunk_bomb(100_000)).image.size == (16, 16)
    assert decode(entry_bomb(200, 1_000)).frames == 201 and time.monotonic() - started < 2 * SOON
    assert decode(tile_bomb(1_024)).image.size == (100, 100)


def test_the_largest_image_may_have_fewer_scans():
    data = scan_bomb(40, side=64)
    # nothing is decoded: the header alone says how large it is
    at = data.index(b"\xff\xc2") + 5
    large = data[:at] + (13_000).to_bytes(2, "big") * 2 + data[at + 4 :]
    with pytest.raises(ImageError, match="more than 23 scans, too many for 13,000 × 13,000"):
        open_image(large)


def sparse(path, start, size):
    "A file that begins like an image and has no end worth reading."
    path.write_bytes(start)
    os.truncate(path, size)
    return path


def looked_at_alone(path):
    "(what `prepare` says of a file, the peak memory of the process that looked, before and after)."
    script = (
        "import resource, sys\n"
        "from fakeface.images.facts import file_info\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "print(file_info(sys.argv[1]).reason or 'sound', before, peak(), sep='|')\n"
    )
    r = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    reason, before, after = r.stdout.split("|")
    return reason, int(after) - int(before)


def test_a_file_of_five_gigabytes_is_not_read(tmp_path):
    path = sparse(tmp_path / "sparse.jpg", image_bytes(portrait(), "JPEG"), 5_000_000_000)
    reason, more = looked_at_alone(path)
    assert "5,000 MB, more than 1,000 MB" in reason and more < 50_000_000
    with pytest.raises(ImageError, match="5,000 MB"):
        open_image(path)


def test_a_large_file_is_hashed_in_blocks(tmp_path):
    path = sparse(tmp_path / "long.jpg", image_bytes(portrait(), "JPEG"), 400_000_000)
    reason, more = looked_at_alone(path)
    assert reason == "sound" and more < 100_000_000, "not as a whole"


def test_an_open_file_without_an_end_is_given_up():
    class Endless(io.RawIOBase):
        asked = None

        def read(self, size=-1):
            self.asked = size
            return bytes(10)

    endless = Endless()
    read_input(endless)
    assert endless.asked == MAX_BYTES + 1


def test_grey_of_32_bits():
    "Nothing that looked grey comes out black."
    for levels, dtype in ((200, np.int32), (200.0, np.float32), (0.5, np.float32), (70_000, np.int32)):
        with pytest.raises(ImageError, match="no known range"):
            open_image(Image.fromarray(np.full((40, 40), levels, dtype)))
    sixteen = np.full((40, 40), 200 * 257, np.uint16)
    for image in (Image.fromarray(sixteen), Image.fromarray(sixteen.astype(np.int32))):
        assert open_image(image).getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.skipif(sys.platform == "win32", reason="shares are files that are locked")
def test_images_in_flight_share_the_budget(monkeypatch, tmp_path):
    "Eight that would fit two at a time are decoded two at a time, in threads as in processes."
    monkeypatch.setenv("FAKEFACE_MEMORY_MB", "1000")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = (
        "import sys, time\n"
        "from fakeface.images import memory\n"
        "with memory.held_memory():\n"
        "    memory.take_memory(30_000_000)\n"
        "    print('in', time.monotonic(), flush=True)\n"
        "    time.sleep(0.3)\n"
        "    print('out', time.monotonic(), flush=True)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    events = []
    for child in children:
        out, _ = child.communicate(timeout=60)
        events += [(float(at), 1 if what == "in" else -1) for what, at in map(str.split, out.splitlines())]
    running = np.cumsum([step for _, step in sorted(events)])
    assert len(events) == 12 and running.max() == 2


FORKS = """
import multiprocessing, threading, time
from fakeface.images import memory

def judge():
    with memory.held_memory():
        memory.take_memory(10**9)
        holding.set()
        time.sleep(1)

def child(ask, answer):
    # of the thread that forked it, it holds nothing; what ends here is not the parent's
    with memory.held_memory():
        pass
    answer.put("ended")
    ask.get()

context = multiprocessing.get_context("fork")
ask, answer = context.Queue(), context.Queue()
holding, waiting = threading.Event(), threading.Event()
memory.tell_of_waiting(lambda waits: waiting.set())
threads = [threading.Thread(target=judge) for _ in range(2)]
threads[0].start()
holding.wait()
threads[1].start()
waiting.wait()
time.sleep(0.1)
others = [context.Process(target=child, args=(ask, answer))]
others[0].start()
for thread in threads:
    thread.join()
memory.MEMORY_WAIT = 0.5
with memory.held_memory():
    memory.take_memory(10**9)
    print("given back although a child lives")
    others.append(context.Process(target=child, args=(ask, answer)))
    others[1].start()
    assert [answer.get(timeout=20), answer.get(timeout=20)] == ["ended", "ended"]
    assert memory._lock(memory._share_folder() / "00") is None
    print("and still held although a child ended its part")
for process in others:
    ask.put("end")
for process in others:
    process.join()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_process_keeps_no_memory(tmp_path):
    "A service judges in threads, of which one waits for another, and starts a process while they do."
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        env={**os.environ, "TMPDIR": str(tmp_path), "FAKEFACE_MEMORY_MB": "1000"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "given back although a child lives",
        "and still held although a child ended its part",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="shares are files that are locked")
def test_waiting_for_memory_is_not_taking_long(monkeypatch, tmp_path, tiny):
    "An image that waits longer than its time limit is judged all the same."
    monkeypatch.setenv("FAKEFACE_MEMORY_MB", "100")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(memory.tempfile, "tempdir", str(tmp_path))
    Image.new("L", (4_100, 4_100), 90).save(tmp_path / "large.png")
    with memory.held_memory():
        memory.take_memory(20_000_000)
        answers = check_paths(Detector.load(tiny, threads=1), [(str(tmp_path / "large.png"), "")], 1, timeout=3)
        waiting = iter(answers)
        got = []
        thread = threading.Thread(target=lambda: got.extend(waiting))
        thread.start()
        thread.join(6)
        assert thread.is_alive() and not got
    thread.join(60)
    ((_, (verdict,)),) = got
    assert not verdict.error


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders belong to nobody")
@pytest.mark.parametrize("taken", ["file", "link", "open to other users"])
def test_a_folder_of_shares_that_is_taken_stops_no_image(monkeypatch, tmp_path, taken):
    "What somebody else has made first makes way for the next name."
    monkeypatch.setenv("FAKEFACE_MEMORY_MB", "1000")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(memory.tempfile, "tempdir", str(tmp_path))
    first = tmp_path / f"fakeface-memory-{os.getuid()}-1000"
    if taken == "open to other users":
        first.mkdir()
        first.chmod(0o777)
    else:
        first.touch() if taken == "file" else first.symlink_to("/")
    data = image_bytes(Image.new("L", (4_100, 4_100), 90), "PNG")
    assert open_image(data).size == (4_100, 4_100)
    assert (tmp_path / f"{first.name}-1/gate").exists() and not (taken == "open to other users" and [*first.iterdir()])
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    assert open_image(data).size == (4_100, 4_100) and (own / first.name / "gate").exists()
    monkeypatch.setattr(memory, "_is_own", lambda folder: False)
    _, said = read_input(data)
    assert str(first) in said and "TMPDIR" in said and said.endswith("own.") and ".." not in said


STUCK = """
from fakeface.infer import detector as home


class Stuck(home.Detector):
    def check_faces(self, path, **options):
        if "stuck" in str(path):
            while True:
                pass
        return super().check_faces(path, **options)


home.Detector = Stuck
"""


def in_workers(monkeypatch, code):
    "Let worker processes run something before anything else."
    from fakeface.images import workers

    first = "from fakeface.images.workers"
    monkeypatch.setattr(workers, "_WORKER", workers._WORKER.replace(first, code + first))


@pytest.fixture
def stuck(monkeypatch):
    "Workers in which a file called so is never done with."
    in_workers(monkeypatch, STUCK)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_takes_too_long_is_a_row(tmp_path, tiny, stuck, workers):
    for i, name in enumerate(("a.png", "stuck1.png", "b.png", "stuck2.png", "c.png")):
        Image.new("L", (32, 32), 40 * i).save(tmp_path / name)
    got = []
    found = score_paths(Detector.load(tiny, threads=1), [tmp_path], got.append, workers, timeout=2.0)
    errors = {os.path.basename(verdict.name): verdict.error for (verdict,) in got}
    assert found["files"] == 5 and found["unread"] == 2
    assert [name for name, error in errors.items() if "longer than 2 s" in error] == ["stuck1.png", "stuck2.png"]


HOLDS_THE_INTERPRETER = """
import ctypes, sys
from fakeface.cli.main import main
from fakeface.infer.detector import Detector

# as a decoder in C does: no other thread of Python runs meanwhile
Detector.check_faces = lambda *_, **__: ctypes.PyDLL(None).sleep(30)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no sleep of C that is called so")
def test_a_single_file_that_holds_the_interpreter_is_ended(tmp_path, tiny):
    image = tmp_path / "café\n.png"
    Image.new("L", (32, 32)).save(image)
    started = time.monotonic()
    command = [sys.executable, "-c", HOLDS_THE_INTERPRETER, "check", image, "--bundle", tiny, "--timeout", "1"]
    done = subprocess.run(command, capture_output=True)
    assert time.monotonic() - started < 20
    assert done.returncode == 1 and not done.stderr
    (line,) = done.stdout.decode().splitlines()
    assert line.endswith("café\\x0a.png: No verdict: Took longer than 1 s, which is the limit (--timeout).")


KEEPS_PYTHON_BUSY = """
import faulthandler, sys
from fakeface.cli.main import main
from fakeface.infer.detector import Detector

# it reads the stacks of running threads, which crashes the process once in a while: only if nothing else can run
faulthandler.dump_traceback_later = lambda *_, **__: None


def busy(*_, **__):
    while True:
        sum(range(1000))


Detector.check_faces = busy
sys.exit(main(sys.argv[1:]))
"""


def test_a_single_file_that_keeps_python_busy_is_ended_without_the_other_clock(tmp_path, tiny):
    image = tmp_path / "a.png"
    Image.new("L", (32, 32)).save(image)
    command = [sys.executable, "-c", KEEPS_PYTHON_BUSY, "check", image, "--bundle", tiny, "--timeout", "0.5"]
    done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.returncode == 1 and not done.stderr
    (line,) = done.stdout.decode().splitlines()
    assert line.endswith("a.png: No verdict: Took longer than 0.5 s, which is the limit (--timeout).")


HOLDS_AND_IS_KILLED = """
import sys
from fakeface.images.workers import Worker

worker = Worker(None, len, "")
print(worker.process.pid, flush=True)
worker.ask(60, exec, sys.argv[1])
"""
# says that it has begun; then no other thread of Python runs
HOLDS = "open({begun!r}, 'w').close(); import ctypes; ctypes.PyDLL(None).sleep(240)"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a timer ends it, minutes later")
def test_a_worker_ends_when_its_parent_is_killed_while_a_decoder_holds_the_interpreter(tmp_path):
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", HOLDS_AND_IS_KILLED, HOLDS.format(begun=str(begun))]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker = Path(f"/proc/{int(parent.stdout.readline())}/stat")
    limit = time.monotonic() + PATIENCE
    while not begun.exists():
        assert time.monotonic() < limit and parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.communicate()
    # one that has ended may be waited for by nobody
    while worker.exists() and worker.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < limit, "it outlives its parent"
        time.sleep(0.05)


def test_the_timer_that_needs_no_interpreter_ends_a_worker(monkeypatch):
    "Where no system ends it."
    from fakeface.images import workers

    unwatched = "work.__globals__.update(_FAR_MORE=0.5, _ends_with=lambda parent: False); work(parent)"
    monkeypatch.setattr(workers, "_WORKER", workers._WORKER.replace("work(parent)", unwatched))
    worker = workers.Worker(None, len, "")
    monkeypatch.setattr(workers._Clock, "start", lambda clock: None)
    started = time.monotonic()
    with pytest.raises(workers.NoAnswer, match="died"):
        worker.ask(0.5, exec, "import ctypes; ctypes.PyDLL(None).sleep(240)")
    worker.end()
    assert time.monotonic() - started < PATIENCE


def test_no_process_is_left_when_the_answers_are_no_longer_wanted(tmp_path, tiny, stuck, children):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    before = children()
    answers = check_paths(
        Detector.load(tiny, threads=1), [(str(tmp_path / "a.png"), ""), ("stuck", "")], 2, timeout=600
    )
    next(answers)
    assert children() - before
    started = time.monotonic()
    answers.close()
    assert time.monotonic() - started < SOON
    assert not children() - before


STUCK_DECODER = """
import os
from fakeface.images import facts
from fakeface.data import harmonise


def stuck_at(word, true):
    def open_image(path):
        while f"stuck{word}" in os.fspath(path):
            pass
        if f"deadly{word}" in os.fspath(path):
            os._exit(9)
        return true(path)

    return open_image


facts.open_image = stuck_at("_at_once", facts.open_image)
harmonise.open_image = stuck_at("_later", harmonise.open_image)
"""


def test_an_image_that_hangs_or_kills_in_prepare_is_left_out_and_counted(tmp_path, monkeypatch):
    from fakeface.data.audit import read_audit
    from fakeface.data.intake import intake_line, reasons_counted
    from fakeface.data.prepare import PrepareConfig, build_dataset, collect_sources, index_images, write_prepared
    from fakeface.images.twins import cloud

    odd = {3: "stuck_at_once", 8: "deadly_at_once", 13: "stuck_later", 18: "deadly_later"}
    for i in range(80):
        path = tmp_path / "mine" / ("real", "fake")[i % 2] / f"{i}{odd.get(i, '')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cloud(i, 80).save(path)
    in_workers(monkeypatch, STUCK_DECODER)
    cfg = PrepareConfig(sources=str(tmp_path / "mine"), timeout=3.0, workers=2)
    folder = tmp_path / "out/run/prepare"
    found = index_images(cfg, collect_sources(cfg, folder), folder)
    built = build_dataset(cfg, found, folder)
    metrics = write_prepared(cfg, found, built, folder)
    reasons = {path.split("/")[-1]: reason for path, reason in zip(built.path, built.reason) if reason}
    assert len(reasons) == 4 == metrics["excluded"] and metrics["pictures"] == 76
    for name, reason in reasons.items():
        assert ("longer than 3 s" if "stuck" in name else "process that read it died") in reason
    assert sorted(reasons_counted(built)) == [2, 2] and "76 used, 4 left out" in intake_line(built)
    excluded = (folder / "excluded.csv").read_text()
    assert all(name in excluded for name in odd.values())
    assert "4 of 80 images are excluded" in " ".join(read_audit(folder / "audit.json").warnings)
    assert not list(folder.rglob(".*.tmp"))


def test_a_second_interrupt_ends_a_command_that_cannot_stop():
    "The first is heard and not heeded; the second needs nobody's consent."
    script = (
        "import time, fakeface.cli.main as main\n"
        "class Busy:\n"
        "    def parse_args(self, argv):\n"
        "        return self\n"
        "    def do(self, args):\n"
        "        word = 'busy'\n"
        "        while True:\n"
        "            try:\n"
        "                print(word, flush=True)\n"
        "                time.sleep(60)\n"
        "            except KeyboardInterrupt:\n"
        "                word = 'heard'\n"
        "main.command_parser = Busy\n"
        "main.main()\n"
    )
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    p = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, preexec_fn=heard)
    for word in ("busy", "heard"):
        assert p.stdout.readline().strip() == word
        p.send_signal(signal.SIGINT)
    assert p.wait(20) == -signal.SIGINT


def test_a_full_disk_and_special_files_are_sentences(tmp_path, tiny):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    command = [*COMMAND, str(tmp_path), "--bundle", str(tiny), "--csv"]
    r = subprocess.run([*command, "/dev/full"], capture_output=True, text=True, timeout=60)
    assert r.returncode == 2 and "not an ordinary file" in r.stderr and not os.path.exists("/dev/full.run.json")
    # with a buffer, what could not be written would be tried again when the interpreter ends
    for unbuffered in ("", "1"):
        with open("/dev/full", "w") as full:
            env = os.environ | dict(PYTHONUNBUFFERED=unbuffered)
            told = subprocess.run(
                [*COMMAND[:-1], "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=env
            )
        assert told.returncode == 2 and told.stderr.count("\n") == 1 and "No space left" in told.stderr
    with open("/dev/full", "w") as full:
        r = subprocess.run([*command, "-"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert r.returncode == 2 and "No space left" in r.stderr


def test_a_second_read_that_fails_is_a_row(tmp_path, tiny, monkeypatch):
    detector = Detector.load(tiny, threads=1)
    demo_faces(1)[0].save(tmp_path / "a.png")
    Image.new("L", (32, 32), 90).save(tmp_path / "b.png")

    def gone(path, square, word, seconds):
        if path.endswith("a.png"):
            raise ImageError("does not exist", path)
        return portrait()

    monkeypatch.setattr(detector, "heatmap", gone)
    got = []
    found = score_paths(detector, [tmp_path], got.append, heatmaps=tmp_path.parent / "maps", framing="centre")
    assert found["files"] == 2 and found["unread"] == 1
    assert "and then does not exist" in got[0][0].error and not got[1][0].error


def tiff_of(*entries, pixels=bytes(64 * 64)):
    "A grey TIFF of 64 × 64 pixels with more entries: tag, kind, value."
    at = 8 + 2 + 12 * (8 + len(entries)) + 4
    plain = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, at), (278, 4, 64)]
    rows = sorted([*plain, (279, 4, len(pixels)), *entries], key=lambda row: row[0])
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in rows)
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + fields + bytes(4) + pixels


@pytest.mark.parametrize("entries", [[(256, 4, 46_000)], [(277, 3, 1), (277, 3, 30_000)], [(322, 17, 46_000)]])
def test_a_tiff_whose_sizes_readers_would_not_agree_on_is_refused(entries):
    assert open_image(tiff_of()).size == (64, 64)
    with pytest.raises(ImageError, match="states a size or an address twice, or in a way"):
        open_image(tiff_of(*entries))


PAUSED = """
import time
from fakeface.images.workers import _Clock

clock = _Clock(3.0, lambda: None)
clock.start()
before = time.monotonic()
print("begun", flush=True)
while (now := time.monotonic()) - before < 2:
    before = now
    time.sleep(0.05)
time.sleep(0.2)
print("late" if clock.has_struck else "in time")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot pause a process")
def test_an_image_has_its_time_also_where_everything_was_paused():
    "Ctrl-Z and fg, a job that a cluster suspends."
    command = [sys.executable, "-c", PAUSED]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "in time\n"
