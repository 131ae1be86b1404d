"""The cache of image facts in a run of somebody else: opening it removes nothing, and it ends."""

import sqlite3
import struct
from pathlib import Path

import pytest
from PIL import Image

from fakeface.core.project import FakefaceError
from fakeface.images.facts import file_infos

MAGIC = bytes.fromhex("d9d505f920a163d7")
PAGE, SECTOR = 4096, 512


def hot_journal(database: bytes, names: Path) -> bytes:
    "A journal that SQLite rolls back when the database is opened, and whose end names another file (its format, 3.1)."
    page = database[:PAGE]
    # every 200th byte, from the end
    checksum = sum(page[at] for at in range(PAGE - 200, 0, -200)) + 1
    header = MAGIC + struct.pack(">IIIII", 1, 1, len(database) // PAGE, SECTOR, PAGE)
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    name = bytes(names)
    end = struct.pack(">I", 2**30 // PAGE + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    return header.ljust(SECTOR, b"\0") + record + end


@pytest.fixture
def cache(tmp_path) -> Path:
    path = tmp_path / "theirs/.facts.sqlite"
    path.parent.mkdir()
    file_infos([], path)
    return path


def test_a_journal_removes_no_other_file(cache, tmp_path):
    thesis = tmp_path / "thesis.txt"
    journal = Path(f"{cache}-journal")

    def attack():
        thesis.write_text("years of work")
        journal.write_bytes(hot_journal(cache.read_bytes(), thesis))

    attack()
    with pytest.raises(FakefaceError, match="would remove another file"):
        file_infos([], cache)
    assert thesis.read_text() == "years of work"
    # the attack is a real one: SQLite by itself does what the journal says
    attack()
    sqlite3.connect(cache).execute("SELECT * FROM sqlite_master").fetchall()
    assert not thesis.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
        "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
        "CREATE TABLE other (path TEXT PRIMARY KEY, stamp TEXT, facts TEXT AS (zeroblob(1000000000)))",
    ],
    ids=["view", "trigger", "computed column"],
)
def test_nothing_in_it_is_carried_out(cache, statement):
    file = sqlite3.connect(cache)
    (table,) = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchone()
    file.execute(statement.format(table=table))
    file.close()
    with pytest.raises(FakefaceError, match="no cache of image facts that fakeface made"):
        file_infos([], cache)


def page_of_links(child: int, children: int, begins: bytes = b"") -> bytes:
    "A page of SQLite that says `children` times that the next rows are on page `child` (its format, 1.6)."
    cells = [struct.pack(">IBB", child, *divmod(128 * 129 + i, 128)) for i in range(children)]
    starts = [PAGE - 6 * (i + 1) for i in range(children)]
    head = begins + struct.pack(">BHHHBI", 5, 0, children, starts[-1], 0, child)
    head += struct.pack(f">{children}H", *starts)
    return head + bytes(PAGE - len(head) - 6 * children) + b"".join(reversed(cells))


@pytest.mark.parametrize("of", ["the list of tables", "a table"])
def test_rows_without_end_are_not_waited_for(cache, of, capsys):
    "Twelve pages, each of which is 400 times the next one: 400^12 rows in 60 kB."
    pages = cache.read_bytes()
    (tables,) = struct.unpack(">H", pages[103:105])
    cells = pages[100 : 108 + 2 * tables]
    rows = cells + bytes(PAGE - 1000 - len(cells)) + pages[PAGE - 1000 : PAGE]  # the list of tables as a page by itself
    first = 2 if of == "a table" else 1
    head = pages[:28] + struct.pack(">I", first + 12) + pages[32:100]  # how many pages there are
    loops = [page_of_links(n + 1, 400, head if n == 1 else b"") for n in range(first, first + 12)]
    before = head + pages[100:PAGE] if of == "a table" else b""
    cache.write_bytes(before + b"".join(loops) + rows)
    assert file_infos([], cache) == []
    assert "is damaged" in capsys.readouterr().out


def test_a_row_that_is_longer_than_ours_is_not_read(cache, capsys):
    file = sqlite3.connect(cache)
    file.execute("INSERT INTO facts VALUES ('a.png', 'now', ?)", ("x" * 3_000_000,))
    file.commit()
    file.close()
    assert file_infos([], cache) == []
    assert "is damaged (string or blob too big)" in capsys.readouterr().out and cache.stat().st_size < 20_000


def test_what_may_only_be_read_is_left_as_it_is(cache, tmp_path, monkeypatch):
    "A run of another account: what is found in its images is remembered nowhere."
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "red").save(image)
    before = cache.read_bytes()
    monkeypatch.setattr("fakeface.images.facts.os.access", lambda path, mode: False)
    assert file_infos([image], cache)[0].width == 64
    assert cache.read_bytes() == before and not Path(f"{cache}-journal").exists()
