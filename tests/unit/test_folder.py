"Folders of images through the command line: killed and resumed without a row lost or doubled, in constant memory."

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from fakeface.core.seeds import rng
from fakeface.infer.detector import Detector
from fakeface.infer.folder import score_paths
from fakeface.infer.listing import FolderError, names_in, walk
from fakeface.infer.pool import check_paths
from fakeface.infer.rows import ROW_COLUMNS, Rows
from fakeface.testing.images import image_bytes

COMMAND = [sys.executable, "-m", "fakeface", "check"]


def many(folder: Path, n: int) -> list[str]:
    "n little images in folders of 1,000: links to 40 files, one of which is torn."
    seeds = folder / ".seeds"
    seeds.mkdir(parents=True)
    for i in range(40):
        Image.fromarray(rng("many", i).integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(seeds / f"{i}.jpg")
    (seeds / "7.jpg").write_bytes((seeds / "7.jpg").read_bytes()[:400])
    out = []
    for i in range(n):
        if i % 1000 == 0:
            (folder / f"{i // 1000:03}").mkdir()
        out.append(str(folder / f"{i // 1000:03}/{i:06}.jpg"))
        os.link(seeds / f"{i % 40}.jpg", out[-1])
    return out


def heard():
    "What a shell starts in the background is born deaf to an interrupt, and so are its children."
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(args, stdin=subprocess.DEVNULL):
    return subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )


def bash(script, *args):
    return subprocess.run(
        ["bash", "-c", script, "-", *COMMAND, *map(str, args)], capture_output=True, text=True, timeout=60
    )


def finish(p) -> tuple[int, str, float]:
    "Exit code, standard error and peak memory in MiB of a child."
    p.stdout.read()
    err = p.stderr.read()
    _, status, use = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    return p.returncode, err, use.ru_maxrss / 1024


def killed_and_resumed(folder, names, out, tiny, kind, stops) -> list[float]:
    "Kill the command when so many rows are there, tear the last row, go on; gives the peak memory of each run."
    memory = []
    for i, stop in enumerate([*stops, None]):
        resume = ["--resume"] if i else []
        p = start([folder, "--bundle", tiny, f"--{kind}", out, "--quiet", *resume])
        while stop and p.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") <= stop):
            time.sleep(0.02)
        if stop:
            p.send_signal(signal.SIGKILL)
        code, err, mib = finish(p)
        memory.append(mib)
        # a few hundred may be done before the signal comes
        done_before = code == 1 and len(names) < 1000
        assert code == (-signal.SIGKILL if stop else 1) or done_before, err
        if stop and i % 2 == 0:
            with open(out, "rb+") as f:
                f.truncate(f.seek(0, 2) - 11)
    rows = [json.loads(line) for line in out.open()] if kind == "json" else list(csv.DictReader(out.open()))
    assert [row["name"] for row in rows] == names and list(rows[0]) == list(ROW_COLUMNS), "every file once, in order"
    torn = [i % 40 == 7 for i in range(len(names))]
    assert [bool(row["error"]) for row in rows] == torn
    scores = {}
    for i, row in enumerate(rows):
        scores.setdefault(i % 40, set()).add(row["p_fake"])
    assert all(len(same) == 1 for same in scores.values()), "an image's score is the same before and after"
    counts = json.loads(out.with_name(out.name + ".run.json").read_text())["counts"]
    assert counts["files"] == len(names) and counts["unread"] == sum(torn)
    return memory


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_killed_and_resumed(tmp_path, tiny, kind):
    names = many(tmp_path / "in", 300)
    killed_and_resumed(tmp_path / "in", names, tmp_path / f"rows.{kind}", tiny, kind, (60, 150))


@pytest.mark.slow
def test_twenty_thousand_killed_and_resumed_in_constant_memory(tmp_path, tiny, capsys):
    few = many(tmp_path / "few", 300)
    least = killed_and_resumed(tmp_path / "few", few, tmp_path / "few.csv", tiny, "csv", ())[0]
    names = many(tmp_path / "in", 20_000)
    started = time.time()
    memory = killed_and_resumed(tmp_path / "in", names, tmp_path / "rows.csv", tiny, "csv", (3000, 9000, 15000))
    peaks = ", ".join(f"{mib:.0f}" for mib in memory)
    with capsys.disabled():
        print(f"\n20,000 images, killed three times: {time.time() - started:.0f} s; ", end="")
        print(f"peak memory {peaks} MiB (300 images: {least:.0f} MiB)")
    assert max(memory) < least + 48


def test_interrupt_keeps_rows_and_says_how_to_go_on(tmp_path, tiny):
    names = many(tmp_path / "in", 2000)
    out = tmp_path / "rows.csv"
    # it cannot end by itself: more names could come
    p = start([tmp_path / "in", "-", "--bundle", tiny, "--csv", out], stdin=subprocess.PIPE)
    while not out.exists() or out.read_bytes().count(b"\n") < 20:
        time.sleep(0.02)
    timer = threading.Timer(60, p.kill)
    timer.start()
    p.send_signal(signal.SIGINT)
    code, err, _ = finish(p)
    timer.cancel()
    assert code == 130 and "--resume" in err and "Traceback" not in err, (code, err)
    done = [row["name"] for row in csv.DictReader(out.open())]
    assert done == names[: len(done)] and 20 <= len(done) + 1


def test_a_name_in_a_list_is_never_a_pattern(tmp_path, tiny):
    many(tmp_path / "in", 1)
    (tmp_path / "in/000/000000.jpg").rename(tmp_path / "photo1.jpg")
    for end in ("\n", "\0"):
        ask = dict(input=f"photo[1].jpg{end}", cwd=tmp_path, capture_output=True, text=True)
        done = subprocess.run([*COMMAND, "-", "--bundle", tiny, "--json", "-"], **ask)
        (row,) = map(json.loads, done.stdout.splitlines())
        assert row["name"] == "photo[1].jpg" and "oes not exist" in row["error"] and done.returncode == 1


def test_names_on_standard_input_are_answered_as_they_come(tmp_path, tiny):
    names = many(tmp_path / "in", 6)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p = subprocess.Popen([*COMMAND, "-", "--bundle", tiny, "--json", "-"], **pipes)
    timer = threading.Timer(60, p.kill)
    timer.start()
    # each is answered before the next is asked
    for name in names[:3]:
        p.stdin.write(name.encode() + b"\n")
        p.stdin.flush()
        assert json.loads(p.stdout.readline())["name"] == name
    p.stdin.close()
    assert p.wait(30) == 0 and not p.stdout.read()
    timer.cancel()
    listed = b"\0".join(map(os.fsencode, names))
    r = subprocess.run([*COMMAND, "-", "--bundle", tiny], input=listed, capture_output=True, timeout=60)
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 6
    r = subprocess.run([*COMMAND, "-", "--bundle", tiny], stdin=open(names[0], "rb"), capture_output=True, timeout=60)
    assert r.returncode == 2 and b"holds an image" in r.stderr


IMAGE_LETTERS = ["GIF89_a.jpg", "GIF89a", "GIF8", "BM1234", "RIFF0000WEBP.jpg", "GIF87a ü.gif"]


class Slowly(io.BytesIO):
    "A file that gives one byte at a time."

    def read(self, size=-1):
        return super().read(min(size, 1))


@pytest.mark.parametrize("file", [io.BytesIO, Slowly])
@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\0"])
@pytest.mark.parametrize("name", IMAGE_LETTERS)
def test_a_list_may_begin_with_the_letters_of_an_image(tmp_path, monkeypatch, name, between, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    data = between.join([name.encode(), b"b.jpg", b""])
    assert list(names_in(file(data))) == [name, "b.jpg"]
    assert list(names_in(file(str(tmp_path / name).encode() + between))) == [str(tmp_path / name)]


@pytest.mark.parametrize("width", [10, 65, 256, 0x2141])
@pytest.mark.parametrize("kind", ["GIF", "GIF, slowly", "BMP", "WEBP", "PNG", "JPEG", "PPM"])
def test_an_image_is_no_list(tmp_path, monkeypatch, kind, width):
    "Also where its width is a line break or a letter."
    monkeypatch.chdir(tmp_path)
    data = image_bytes(Image.new("L", (width, 2)), kind.split(",")[0])
    with pytest.raises(FolderError, match="holds an image"):
        list(names_in((Slowly if "slowly" in kind else io.BytesIO)(data)))


@pytest.mark.parametrize("file", [io.BytesIO, Slowly])
@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "AVIF", "HEIC", "archive"])
def test_a_file_that_is_no_list_never_names_the_whole_disk(tmp_path, monkeypatch, kind, file):
    "In HEIC and JPEG 2000 there are null bytes around single letters, / among them: that would be all files."
    monkeypatch.chdir(tmp_path)
    if kind == "HEIC":
        data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0/\0.\0" * 9
    elif kind == "archive":
        data = b"PK\3\4\x14\0\0\0\x08\0/\0.\0"
    else:
        data = image_bytes(Image.new("RGB", (65, 65)), kind)
    with pytest.raises(FolderError, match="holds an image|holds no list"):
        names = list(names_in(file(data)))
        assert not names, names


def test_reader_that_goes_away(tmp_path, tiny):
    many(tmp_path / "in", 300)
    r = bash('set -o pipefail; "$@" | head -n 2', tmp_path / "in", "--bundle", tiny)
    assert r.returncode == 141 and r.stderr == "" and len(r.stdout.splitlines()) == 2


def test_one_writer_at_a_time_and_other_detectors_are_refused(tmp_path, tiny):
    many(tmp_path / "in", 40)
    out = tmp_path / "rows.csv"
    args = [tmp_path / "in", "--bundle", tiny, "--csv", out]
    rows = Rows(out, "csv", {})
    code, err, _ = finish(start([*args, "--overwrite"]))
    assert code == 2 and "another run" in err
    rows.close()
    assert finish(start([*args, "--overwrite", "--quiet"]))[:2] == (1, "")
    for more, why in (
        (["--threshold", ".7", "--resume"], "threshold = 0.5"),
        (["--stability", "--resume"], "stability"),
        ([], "--overwrite"),
    ):
        code, err, _ = finish(start([*args, *more]))
        assert code == 2 and why in err
    kept = out.read_bytes()
    assert kept.count(b"\n") == 41 and finish(start([*args, "--resume"]))[0] == 1 and out.read_bytes() == kept


def test_odd_folders(tmp_path, tiny, monkeypatch):
    detector = Detector.load(tiny, threads=1)
    base = tmp_path / "in"
    base.mkdir()
    Image.new("RGB", (32, 32), "grey").save(base / "a.png")
    odd = [
        b"caf\xe9.png",
        b"new\nline.png",
        b"<img src=x onerror=alert(1)>.png",
        b"'; rm ~.png",
        "照片.png".encode(),
        b"-n.png",
        b"\x1b]0;x.png",
        b"none",
    ]
    for name in odd:
        os.link(base / "a.png", os.path.join(os.fsencode(base), name))
    os.mkfifo(base / "pipe.png")
    (base / "loop.png").symlink_to("loop.png")
    (base / "away.png").symlink_to("/nowhere")
    (base / "empty").mkdir()
    (base / "empty.jpg").touch()
    score_paths(detector, [base], Rows(tmp_path / "rows.csv"))
    text = (tmp_path / "rows.csv").read_text(encoding="utf-8")
    rows = {row["name"].removeprefix(f"{base}/"): row for row in csv.DictReader(text.splitlines())}
    bad = {name for name, row in rows.items() if row["error"]}
    assert bad == {"pipe.png", "loop.png", "away.png", "empty.jpg"} and len(rows) == len(odd) + 5
    assert "\x1b" not in text
    monkeypatch.chdir(base)
    judged = check_paths(detector, walk(["-n.png", "=x.png"]))
    assert [verdict.name for _, (verdict,) in judged] == ["./-n.png", "./=x.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_without_rights(tmp_path, tiny):
    detector = Detector.load(tiny, threads=1)
    (tmp_path / "in/shut").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "in/z.png")
    (tmp_path / "in/shut").chmod(0)
    try:
        judged = list(check_paths(detector, walk([tmp_path / "in"])))
    finally:
        (tmp_path / "in/shut").chmod(0o700)
    errors = [verdict.error for _, (verdict,) in judged]
    assert "Permission denied" in errors[0] and errors[1] == ""


def test_full_disk(tmp_path, tiny):
    "What does not fit is said, and what is there stays whole."
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    many(tmp_path / "in", 5)
    r = bash('"$@" > /dev/full', tmp_path / "in", "--bundle", tiny, "--csv", "-")
    assert r.returncode == 2 and "No space left" in r.stderr and "Traceback" not in r.stderr
    out = tmp_path / "rows.csv"
    r = bash('ulimit -f 1; trap "" XFSZ; "$@"', tmp_path / "in", "--bundle", tiny, "--csv", out, "--quiet")
    assert r.returncode == 2 and "--resume" in r.stderr and "Traceback" not in r.stderr, r.stderr
    code, _, _ = finish(start([tmp_path / "in", "--bundle", tiny, "--csv", out, "--quiet", "--resume"]))
    assert code == 0 and len(list(csv.DictReader(out.open()))) == 5
