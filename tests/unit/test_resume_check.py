"Going on with rows: a row counts for the same file in the same state, and for no other."

import csv
import json
import os
import subprocess
import sys
import time
import unicodedata
from functools import cache

import fakeface
import pytest
from PIL import Image

from fakeface.infer.detector import Detector
from fakeface.infer.folder import score_paths
from fakeface.infer.listing import FolderError
from fakeface.infer.rows import ROW_COLUMNS, Rows, file_mark
from fakeface.testing.bundles import tiny_bundle


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grey(path, level):
    os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
    Image.new("L", (32, 32), level).save(path, "PNG")


def check(*args, cwd=None, code=0):
    command = [sys.executable, "-m", "fakeface", "check", *map(str, args)]
    r = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
    assert r.returncode == code, (r.returncode, r.stderr)
    return r.stderr


def rows_of(path, kind="csv"):
    text = path.read_text(encoding="utf-8")
    return (
        [json.loads(line) for line in text.splitlines()] if kind == "json" else list(csv.DictReader(text.splitlines()))
    )


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_changed_file_is_judged_again_and_has_one_row(inside, tiny, kind):
    for i in range(5):
        grey(f"in/{i}.png", 40 * i)
    args = ["in", "--bundle", tiny, f"--{kind}", inside / "rows"]
    check(*args)
    before = {row["name"]: row for row in rows_of(inside / "rows", kind)}
    grey("in/1.png", 250)
    said = check(*args, "--resume")
    after = rows_of(inside / "rows", kind)
    assert "5 images" in said and "4 of them in an earlier run" in said
    assert sorted(row["name"] for row in after) == sorted(before), "one row a file"
    for row in after:
        assert (row["p_fake"] == before[row["name"]]["p_fake"]) == (row["name"] != "in/1.png")
    kept = (inside / "rows").read_bytes()
    check(*args, "--resume")
    assert (inside / "rows").read_bytes() == kept


def test_rows_behind_a_link_stay_there_and_keep_their_rights(inside, tiny):
    grey("in/a.png", 100)
    (inside / "disk").mkdir()
    (inside / "rows.csv").symlink_to("disk/november.csv")
    detector = Detector.load(tiny, threads=1)
    score_paths(detector, ["in"], Rows("rows.csv"))
    (inside / "disk/november.csv").chmod(0o600)
    os.utime("in/a.png", ns=(10**9, 10**9))
    score_paths(detector, ["in"], Rows("rows.csv", resume=True))
    assert (inside / "rows.csv").is_symlink() and os.listdir("disk") == ["november.csv"]
    assert len(rows_of(inside / "disk/november.csv")) == 1, "the row of its earlier state was taken out"
    assert (inside / "disk/november.csv").stat().st_mode & 0o777 == 0o600


def test_the_same_size_with_another_time_is_another_state(inside, tiny):
    grey("in/a.png", 100)
    detector = Detector.load(tiny, threads=1)
    score_paths(detector, ["in"], Rows("rows.csv"))
    os.utime("in/a.png", ns=(10**9, 10**9))
    again = score_paths(detector, ["in"], Rows("rows.csv", resume=True))
    assert (again["files"], again["before"]) == (1, 0) and len(rows_of(inside / "rows.csv")) == 1


def test_another_folder_of_the_same_names_is_refused(inside, tiny):
    grey("one/ph/1.png", 40)
    grey("two/ph/1.png", 220)
    args = ["ph", "--bundle", tiny, "--csv", inside / "rows.csv"]
    check(*args, cwd=inside / "one")
    said = check(*args, "--resume", cwd=inside / "two", code=2)
    assert "working_directory" in said and str(inside / "one") in said and str(inside / "two") in said
    # names that do not depend on where one stands may be gone on with from anywhere
    args = [inside / "one/ph", "--bundle", tiny, "--csv", inside / "whole.csv"]
    check(*args, cwd=inside / "one")
    assert "1 of them in an earlier run" in check(*args, "--resume", cwd=inside / "two")


def test_a_file_that_is_named_twice_has_one_row(inside, tiny):
    "By folders that overlap, by a list, by another way of writing its path; going on, nothing is counted below zero."
    for i in range(3):
        grey(f"in/sub/{i}.png", 40 * i)
    (inside / "in/sub/notes.txt").write_text("no image")
    args = ["in", "in/sub", "./in/sub/../sub/0.png", inside / "in/sub/1.png", "--bundle", tiny, "--csv", "rows.csv"]
    said = check(*args)
    assert said.startswith("3 images: ") and "1 other file beside" in said, said
    assert "5 were named again and judged once." in said
    whole = (inside / "rows.csv").read_bytes()
    assert "(3 of them in an earlier run)" in check(*args, "--resume") and (inside / "rows.csv").read_bytes() == whole
    for i in range(3):
        os.utime(f"in/sub/{i}.png", ns=(10**9, 10**9))
    said = check(*args, "--resume")
    assert said.startswith("3 images: ") and "earlier run" not in said and "5 were named again" in said
    counts = json.loads((inside / "rows.csv.run.json").read_text())["counts"]
    assert (counts["files"], counts["before"], counts["repeated"]) == (3, 0, 5)
    assert [row["name"] for row in rows_of(inside / "rows.csv")] == [f"in/sub/{i}.png" for i in range(3)]


def test_rows_that_an_earlier_version_wrote_twice_become_one(inside, tiny):
    for i in range(3):
        grey(f"in/{i}.png", 40 * i)
    detector = Detector.load(tiny, threads=1)
    score_paths(detector, ["in"], Rows("rows.csv"))
    whole = (inside / "rows.csv").read_bytes()
    for is_changed in (False, True):
        head, *lines = (inside / "rows.csv").read_bytes().splitlines(keepends=True)
        (inside / "rows.csv").write_bytes(head + b"".join(lines * 2))
        if is_changed:
            for i in range(3):
                os.utime(f"in/{i}.png", ns=(10**9, 10**9))
        again = score_paths(detector, ["in"], Rows("rows.csv", resume=True))
        assert (again["files"], again["before"]) == (3, 0 if is_changed else 3)
        assert len(rows_of(inside / "rows.csv")) == 3
    assert len((inside / "rows.csv").read_bytes()) <= len(whole)


def test_links_are_files_of_their_own(inside, tiny):
    "Two names never become one row, and two lists of one folder have the same rows."
    grey("in/a.png", 40)
    os.link("in/a.png", "in/b.png")
    os.symlink("a.png", "in/c.png")
    os.symlink("in", "other")
    done = score_paths(Detector.load(tiny, threads=1), ["in", "other"], Rows("rows.csv"))
    names = [f"{folder}/{name}.png" for folder in ("in", "other") for name in "abc"]
    assert [row["name"] for row in rows_of(inside / "rows.csv")] == names and done["repeated"] == 0


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_list_with_a_name_twice(inside, tiny, separator):
    grey("a.png", 40)
    listed = separator.join(["a.png", "gone.png", "./a.png", "gone.png", "a.png"])
    command = [sys.executable, "-m", "fakeface", "check", "-", "--bundle", tiny]
    r = subprocess.run(command, input=listed, capture_output=True, text=True, timeout=120)
    answered = [line.partition(":")[0] for line in r.stdout.splitlines() if not line.startswith(" ")]
    assert r.returncode == 1 and answered == ["a.png", "gone.png"]
    assert r.stderr.startswith("2 images: ") and "3 were named again and judged once." in r.stderr


def test_a_long_list_is_known_again_in_little_memory():
    "16 bytes a name, beside those that are not put away yet, and twice as many while they are."
    import tracemalloc

    from fakeface.infer.listing import walk

    count = 200_000
    names = [f"/nowhere/{i:06}.jpg" for i in range(count)]
    again = []
    tracemalloc.start()
    given = sum(1 for _ in walk(names + names[:1_000], repeated=again.append))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert given == count and again == names[:1_000]
    # the two lists of names that this test makes take 8 bytes a name each
    assert most < 10_000_000 + 64 * count


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize("how", ["--csv", "--json", ""], ids=["csv", "json", "terminal"])
def test_names_that_differ_in_broken_bytes_only_are_two(inside, tiny, capsys, how):
    from fakeface.cli.main import main

    for i, name in enumerate((b"a\xff.png", b"a\xfe.png", b"a\\xff.png")):
        grey(b"in/" + name, 100 + i)
    main(["check", "in", "--bundle", str(tiny), *filter(None, [how, how and "-"])])
    said = capsys.readouterr().out
    shown = [name.replace("\\", "\\\\") if how == "--json" else name for name in (r"a\xff", r"a\xfe", r"a\x5cxff")]
    assert [said.count(f"in/{name}.png") for name in shown] == [1, 1, 1]
    assert said.isascii() and said.replace("\n", "").isprintable()


def test_no_two_names_become_one_row(inside, tiny):
    composed = "é.png"
    names = [
        composed.encode(),
        unicodedata.normalize("NFD", composed).encode(),
        b"A.png",
        b"a.png",
        b"a.png ",
        b" a.png",
        b"a.png.",
        b"new\nline.png",
        b"new\\x0aline.png",
        b"caf\xe9.png",
        b"caf\\xe9.png",
        b"back\\slash.png",
        b"=1.png",
        b"tab\t.png",
        b"tab\\x09.png",
        b'quote".png',
        b"comma,.png",
        b"return\r.png",
        b"\xff.png",
        b"\xfe.png",
        b"\xc2\x85.png",
        b"\x85.png",
        b"\\x85.png",
        b"\\u0085.png",
        b"\\x5cx85.png",
    ]
    for i, name in enumerate(names):
        grey(b"in/" + name, 10 * i)
    detector = Detector.load(tiny, threads=1)
    done = score_paths(detector, ["in"], Rows("rows.csv"))
    assert done["files"] == len(names) and len({row["file_key"] for row in rows_of(inside / "rows.csv")}) == len(names)
    assert len({row["name"] for row in rows_of(inside / "rows.csv")}) == len(names)
    # each in turn is missing from the rows: it alone is judged
    text = (inside / "rows.csv").read_bytes()
    head, *lines = text.splitlines(keepends=True)
    for i in range(len(lines)):
        (inside / "rows.csv").write_bytes(head + b"".join(lines[:i] + lines[i + 1 :]))
        again = score_paths(detector, ["in"], Rows("rows.csv", resume=True))
        assert (again["files"], again["before"]) == (len(names), len(names) - 1)
        assert sorted((inside / "rows.csv").read_bytes().splitlines()) == sorted(text.splitlines())


def test_errors_are_tried_again_when_asked(inside, tiny):
    grey("in/a.png", 40)
    os.makedirs("away")
    os.symlink("../away/b.png", "in/b.png")
    args = ["in", "--bundle", tiny, "--csv", "rows.csv"]
    check(*args, code=1)
    check(*args, "--resume", code=1)
    check(*args, "--retry-errors", code=2)
    said = check(*args, "--resume", "--retry-errors", code=1)
    assert "1 of them in an earlier run" in said and len(rows_of(inside / "rows.csv")) == 2
    grey("away/b.png", 220)
    said = check(*args, "--resume")
    assert "1 could" not in said and "1 of them in an earlier run" in said
    assert [row["error"] for row in rows_of(inside / "rows.csv")] == ["", ""]


def test_killed_between_the_new_row_and_the_taking_out_of_the_old(inside, tiny):
    for i in range(4):
        grey(f"in/{i}.png", 40 * i)
    detector = Detector.load(tiny, threads=1)
    score_paths(detector, ["in"], Rows("rows.csv"))
    first = (inside / "rows.csv").read_bytes()
    grey("in/2.png", 250)
    score_paths(detector, ["in"], Rows("rows.csv", resume=True))
    whole = (inside / "rows.csv").read_bytes()
    (inside / "rows.csv").write_bytes(first + whole.splitlines(keepends=True)[-1])
    again = score_paths(detector, ["in"], Rows("rows.csv", resume=True))
    assert again["before"] == 4 and (inside / "rows.csv").read_bytes() == whole


def test_rows_that_do_not_know_their_files_are_not_gone_on_with(inside, tiny):
    grey("in/a.png", 40)
    score_paths(Detector.load(tiny, threads=1), ["in"], Rows("rows.csv"))
    old = [column for column in ROW_COLUMNS if not column.startswith("file_")]
    (inside / "rows.csv").write_text(",".join(old) + "\n" + "," * (len(old) - 1) + "\n")
    with pytest.raises(FolderError, match="not a file of rows"):
        Rows("rows.csv", resume=True)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_rows_that_know_their_files_by_fewer_digits_are_said_to_be_old(inside, tiny, kind):
    "128 bits, so that nobody can make a file that passes for another."
    grey("in/a.png", 40)
    detector = Detector.load(tiny, threads=1)
    score_paths(detector, ["in"], Rows("rows", kind))
    text = (inside / "rows").read_text()
    (row,) = rows_of(inside / "rows", kind)
    assert len(row["file_key"]) == 32
    (inside / "rows").write_text(text.replace(row["file_key"], row["file_key"][:16]))
    note = json.loads((inside / "rows.run.json").read_text())
    del note["format"]
    (inside / "rows.run.json").write_text(json.dumps(note))
    with pytest.raises(FolderError, match="earlier version of fakeface.*--overwrite"):
        Rows("rows", kind, resume=True)
    score_paths(detector, ["in"], Rows("rows", kind, overwrite=True))
    assert (inside / "rows").read_text() == text


def test_a_run_goes_on_with_names_that_are_written_otherwise(inside, tiny):
    "`find .` writes ./in/a.png, a shell in/a.png."
    for i in range(3):
        grey(f"in/{i}.png".encode(), 60 * i)
    detector = Detector.load(tiny, threads=1)
    score_paths(detector, [f"./in/{i}.png" for i in range(3)], Rows("rows.csv"))
    before = (inside / "rows.csv").read_bytes()
    for again in ([f"in/{i}.png" for i in range(3)], ["in"], [".//in/"]):
        done = score_paths(detector, again, Rows("rows.csv", resume=True))
        assert done["files"] == done["before"] == 3, again
    assert (inside / "rows.csv").read_bytes() == before


def test_rows_of_an_earlier_version_are_gone_on_with_in_its_way(inside, tiny, monkeypatch):
    "There, ./in/a.png was another file than in/a.png: README's own list of `find .` is gone on with all the same."
    from fakeface.infer import rows as room

    detector, names = Detector.load(tiny, threads=1), [f"./in/{i}.png" for i in range(3)]
    for name in names:
        grey(name[2:].encode(), 60)
    new = room.file_mark
    with monkeypatch.context() as earlier:
        earlier.setattr(room, "_FORMAT", 2)
        score_paths(detector, names[:2], Rows("rows.csv"))
    assert rows_of(inside / "rows.csv")[0]["file_key"] != new("in/0.png").file_key, "as it was"
    done = score_paths(detector, names, Rows("rows.csv", resume=True))
    assert (done["files"], done["before"]) == (3, 2)
    grey(b"in/0.png", 250)
    done = score_paths(detector, names, Rows("rows.csv", resume=True))
    assert (done["files"], done["before"]) == (3, 2), "a file that has changed is judged again, and has one row"
    assert sorted(row["name"] for row in rows_of(inside / "rows.csv")) == names
    assert json.loads((inside / "rows.csv.run.json").read_text())["format"] == 2
    score_paths(detector, names, Rows("rows.csv", overwrite=True))
    assert json.loads((inside / "rows.csv.run.json").read_text())["format"] == 3


def test_rows_of_another_version_are_gone_on_with_and_both_are_named(inside, tiny):
    "A version may warn of something in the same image of which another does not."
    for i in range(2):
        grey(f"in/{i}.png".encode(), 60 * i)
    asked = ("in", "--bundle", tiny, "--framing", "centre", "--csv", "rows.csv")
    check(*asked)
    note = json.loads((inside / "rows.csv.run.json").read_text())
    (version,) = note["versions"]
    assert version == f"fakeface {fakeface.__version__}"
    (inside / "rows.csv.run.json").write_text(json.dumps(note | dict(versions=["fakeface 0.0.9"])))
    grey(b"in/2.png", 200)
    said = check(*asked, "--resume")
    assert f"rows.csv has rows of fakeface 0.0.9; those to come are of {version}." in said
    assert json.loads((inside / "rows.csv.run.json").read_text())["versions"] == ["fakeface 0.0.9", version]
    for odd in (["\x1b]0;owned\x07"], [1], None, "abc"):
        (inside / "rows.csv.run.json").write_text(json.dumps(note | dict(versions=odd)))
        said = check(*asked, "--resume")
        assert "\x1b" not in said and "Traceback" not in said and version in said, said
    del note["versions"]
    (inside / "rows.csv.run.json").write_text(json.dumps(note))
    assert f"rows.csv has rows of an earlier version; those to come are of {version}." in check(*asked, "--resume")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_folder_whose_name_is_no_utf8_gets_rows(inside, tiny, kind):
    "Unpacked from an old archive; named, or worked in."
    grey(b"Fotos-Jos\xe9/a.png", 60)
    folder = os.fsdecode(b"Fotos-Jos\xe9")
    asked = ("--bundle", tiny, "--framing", "centre", f"--{kind}")
    for paths, place, name in (([folder], inside, "rows"), (["a.png"], inside / folder, "own")):
        for again in ([], ["--resume"]):
            check(*paths, *asked, inside / name, *again, cwd=place)
        assert len(rows_of(inside / name, kind)) == 1


def test_a_million_rows_take_little_memory():
    "48 bytes a row once walk and rows have parted, and nothing before."
    import tracemalloc

    from fakeface.infer.folder import LeftToDo
    from fakeface.infer.rows import file_mark

    count = 20_000
    paths = [f"nowhere/{i:06}.jpg" for i in range(count)]

    def before(skip):
        for path in paths[skip:]:
            key, state = file_mark(path)
            yield [dict(file_key=key, file_state=state, error="")]

    for skip, bytes_a_row in ((0, 5), (1, 120)):
        tracemalloc.start()
        left = list(LeftToDo(((path, "") for path in paths), before(skip)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(left) == skip and most < 200_000 + bytes_a_row * count


REPLACING = """
import shutil
import sys
from fakeface.infer import pool
from fakeface.testing.bundles import tiny_bundle

began = pool._InProcesses


class Late(began):
    "The bundle becomes another after it was read, and before a worker reads it."

    def __init__(self, detector, seconds):
        shutil.rmtree(detector.path)
        tiny_bundle(detector.path, slope=-12.0, size=16, band=[0.4, 0.6])
        super().__init__(detector, seconds)


pool._InProcesses = Late
from fakeface.cli.main import main

sys.exit(main(sys.argv[1:]))
"""


def test_a_bundle_that_is_replaced_meanwhile_ends_the_run(inside):
    "No file has rows of two detectors."
    tiny_bundle("mine", slope=12.0, size=16, band=[0.4, 0.6])
    grey("in/a.png", 200)
    grey("in/b.png", 40)
    command = [
        sys.executable,
        "-c",
        REPLACING,
        "check",
        "in",
        "--bundle",
        "mine",
        "--csv",
        "rows.csv",
        "--workers",
        "1",
    ]
    r = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert r.returncode == 2 and "was replaced while images were judged" in r.stderr, r.stderr
    assert rows_of(inside / "rows.csv") == []


def test_a_row_of_another_detector_is_not_gone_on_with(inside, tiny):
    grey("in/a.png", 40)
    grey("in/b.png", 80)
    args = ["in", "--bundle", tiny, "--csv", "rows.csv"]
    check(*args)
    detector = Detector.load(tiny)
    *start, last = (inside / "rows.csv").read_text().splitlines(keepends=True)
    other = last.replace(detector.hash, 64 * "e")
    assert other != last
    (inside / "rows.csv").write_text("".join(start) + other)
    said = check(*args, "--resume", code=2)
    assert "a row of the detector 'eeeeeeeeeeee'" in said and "--overwrite" in said and "Traceback" not in said


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("key", ["zz", "-1", "0" * 40, "0" * 16])
def test_a_damaged_key_is_a_sentence(inside, tiny, kind, key):
    for name in ("a", "b", "c"):
        grey(f"in/{name}.png", 40)
    args = ["in", "--bundle", tiny, f"--{kind}", "rows"]
    check(*args)
    good = rows_of(inside / "rows", kind)[1]["file_key"]
    text = (inside / "rows").read_text()
    assert text.count(good) == 1
    (inside / "rows").write_text(text.replace(good, key))
    said = check(*args, "--resume", code=2)
    assert "is not a row that fakeface wrote" in said and "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="there the third number is when a file was made")
def test_other_content_of_the_same_size_and_time_is_another_state(inside):
    (inside / "a").write_bytes(b"1234")
    os.utime("a", ns=(10**9, 10**9))
    before = file_mark("a")
    time.sleep(0.05)
    (inside / "a").write_bytes(b"5678")
    os.utime("a", ns=(10**9, 10**9))
    after = file_mark("a")
    assert before.file_key == after.file_key and before.file_state != after.file_state


@cache
def certificate(name):
    "That of an authority of this name, as text."
    from fakeface.testing.credentials import signatory

    return signatory(name).authority.decode()


def test_rows_of_another_trust_list_are_not_gone_on_with(inside, tiny, monkeypatch):
    "The state of a credential depends on it."
    pytest.importorskip("c2pa")
    monkeypatch.delenv("FAKEFACE_TRUST", raising=False)
    grey("in/a.png", 40)
    args = ["in", "--bundle", tiny, "--csv", "rows.csv"]
    check(*args)
    (inside / "list.pem").write_text(certificate("First"))
    monkeypatch.setenv("FAKEFACE_TRUST", "list.pem")
    said = check(*args, "--resume", code=2)
    assert "'verified, no trust list', but now it is 'verified, trust list of SHA-256 " in said
    check(*args, "--overwrite")
    # the same certificates under another name, with a comment: the same list
    (inside / "moved.pem").write_text("# ours\n" + certificate("First"))
    monkeypatch.setenv("FAKEFACE_TRUST", "moved.pem")
    assert "1 of them in an earlier run" in check(*args, "--resume")
    for text in (certificate("Second"), "no certificate"):
        (inside / "moved.pem").write_text(text)
        assert "content_credentials" in check(*args, "--resume", code=2)


def test_rows_that_were_verified_are_not_gone_on_with_where_nothing_is(inside, tiny, monkeypatch, capsys):
    pytest.importorskip("c2pa")
    from fakeface.cli.main import main
    from fakeface.images import provenance

    grey("in/a.png", 40)
    args = ["in", "--bundle", str(tiny), "--csv", "rows.csv"]
    check(*args)
    monkeypatch.setattr(provenance, "find_spec", lambda name: None)
    assert main(["check", *args, "--resume"]) == 2
    assert "now it is 'not verified, without c2pa-python'" in capsys.readouterr().err


def test_rows_of_a_version_that_did_not_note_the_trust_list_are_gone_on_with(inside, tiny, monkeypatch):
    pytest.importorskip("c2pa")
    grey("in/a.png", 40)
    args = ["in", "--bundle", tiny, "--csv", "rows.csv"]
    check(*args)
    note = inside / "rows.csv.run.json"
    old = json.loads(note.read_text())
    assert old.pop("content_credentials")
    note.write_text(json.dumps(old))
    grey("in/b.png", 80)
    (inside / "list.pem").write_text(certificate("First"))
    monkeypatch.setenv("FAKEFACE_TRUST", "list.pem")
    assert "1 of them in an earlier run" in check(*args, "--resume")
    assert "content_credentials" not in json.loads(note.read_text()), "of the first row it is not known"
