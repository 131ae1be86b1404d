"`fetch` against a stand-in of Kaggle's server: whole, broken off, refused, unreachable, full disk, wrong content."

import errno
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import types
import zipfile

import pytest

import fakeface.data.fetch as fetch_module
from fakeface.core.project import FakefaceError
from fakeface.data.fetch import fetch
from fakeface.data.rows import SourceError
from fakeface.data.sources import scan

HTTPAdapter = pytest.importorskip("requests.adapters").HTTPAdapter
pytest.importorskip("kagglehub", reason="kagglehub is not installed (pip install fakeface[fetch])")


def archive_140k() -> bytes:
    "A small 140K as Kaggle packs it."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for split in ("train", "valid", "test"):
            names = [f"{split}/real/{i:05d}.jpg" for i in range(3)] + [f"{split}/fake/A{i}.jpg" for i in range(3)]
            lines = [",original_path,id,label,label_str,path"]
            for i, name in enumerate(names):
                lines.append(f"{i},/x,{i},{int('/real/' in name)},{name.split('/')[1]},{name}")
                # kagglehub writes pieces of 1 MiB
                archive.writestr(f"real_vs_fake/real-vs-fake/{name}", name.encode() * 20_000)
            archive.writestr(f"{split}.csv", "\n".join(lines))
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    "Answers as Kaggle's server does; `kaggle`, set below, says with what."

    kaggle: types.SimpleNamespace

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.kaggle.asked.append(self.path.rsplit("/", 1)[-1])
        if self.kaggle.status != 200:
            self.reply_json(dict(code=self.kaggle.status, message="no"), self.kaggle.status)
        elif self.path.endswith("GetDataset"):
            size = len(self.kaggle.data)
            self.reply_json(dict(currentVersionNumber=2, licenseName="a licence", totalBytes=size))
        else:
            self.reply_file()

    def do_GET(self):
        self.reply_file()

    def reply_json(self, answer, status=200):
        self.reply(json.dumps(answer).encode(), "application/json", status)

    def reply_file(self):
        wanted = self.headers.get("Range")
        start = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
        if wanted:
            self.kaggle.ranges.append(start)
        self.reply(self.kaggle.data[start:], "application/octet-stream", 206 if wanted else 200, self.kaggle.cut)

    def reply(self, body, kind, status=200, cut=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(body), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut and self.kaggle.silent:
            self.kaggle.silent.wait(60)
        if cut:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def kaggle(monkeypatch):
    """A running server; `.data` is what it sends, `.status` what it says, `.cut` after how many bytes it hangs up, or
    says nothing more until the event `.silent`."""
    from kagglesdk import kaggle_env
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    kaggle = types.SimpleNamespace(data=archive_140k(), cut=None, silent=None, status=200, asked=[], ranges=[])
    monkeypatch.setattr(Handler, "kaggle", kaggle, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # looks every 10 ms, not every half second, whether it is to end
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, address)
    # in its test mode it would read the whole file to print it
    monkeypatch.setattr(KaggleHttpClient, "_print_response", lambda *_: None)
    # for each request it would read the sources of all functions that called it, pytest's among them
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")
    for name, value in dict(KAGGLE_API_ENVIRONMENT="TEST", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1").items():
        monkeypatch.setenv(name, value)
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLEHUB_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def stop():
        server.shutdown()
        server.server_close()

    kaggle.stop = stop
    yield kaggle
    stop()


def test_whole(kaggle, tmp_path, capsys):
    path = fetch("140k", tmp_path)
    rows = scan("140k", path, "140k")
    assert len(rows) == 18 and rows.label.mean() == 0.5 and rows.origin[0].endswith("version 2")
    assert path.is_relative_to(tmp_path) and not list(tmp_path.rglob("*.archive"))
    assert "a licence" in capsys.readouterr().out
    kaggle.stop()
    assert fetch("140k", tmp_path) == path, "loaded once, needs no network"


def test_broken_off_goes_on(kaggle, tmp_path):
    kaggle.cut = len(kaggle.data) // 2
    with pytest.raises(SourceError, match="What was downloaded is kept; run it again") as raised:
        fetch("140k", tmp_path)
    assert "By hand: download https://www.kaggle.com/datasets/xhlulu/140k" in str(raised.value)
    loaded = next(tmp_path.rglob("*.archive")).stat().st_size
    assert 0 < loaded < len(kaggle.data)
    kaggle.cut = None
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18 and kaggle.ranges == [loaded]


def test_a_server_that_falls_silent_is_left_and_asked_again(kaggle, tmp_path, monkeypatch):
    kaggle.cut, kaggle.silent = len(kaggle.data) // 2, threading.Event()
    monkeypatch.setattr(fetch_module, "SILENCE", 1.0)
    try:
        with pytest.raises(SourceError, match="timed out.*What was downloaded is kept; run it again"):
            fetch("140k", tmp_path)
    finally:
        kaggle.silent.set()
    kaggle.cut = None
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18 and kaggle.ranges
    assert HTTPAdapter.send.__module__ == "requests.adapters", "other programs' requests are as they were"


def test_broken_archive_is_removed(kaggle, tmp_path):
    good, kaggle.data = kaggle.data, b"no archive" * 100
    with pytest.raises(SourceError, match="was broken and has been removed"):
        fetch("140k", tmp_path)
    kaggle.data = good
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18


def archive_with(name, change=lambda data: data, pack=zipfile.ZIP_DEFLATED):
    "An archive of one file, with something changed in its bytes."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", pack) as archive:
        archive.writestr(name, bytes(range(256)) * 4_000)
    return change(buffer.getvalue())


def damaged_stream(data):
    return data[:60] + b"\xff" * 40 + data[100:]


def said_to_be_locked(data):
    return data.replace(b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1").replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1")


def packed_in_an_unknown_way(data):
    local, central = data.index(b"PK\3\4") + 8, data.index(b"PK\1\2") + 10
    return data[:local] + b"\x63" + data[local + 1 : central] + b"\x63" + data[central + 1 :]


def tar_that_leads_out(_=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../../evil.jpg"), io.BytesIO())
    return buffer.getvalue()


def half_a_tar(_=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("1.jpg")
        member.size = 100_000
        archive.addfile(member, io.BytesIO(os.urandom(member.size)))
    return buffer.getvalue()[:50_000]


@pytest.mark.parametrize(
    "change", [damaged_stream, said_to_be_locked, packed_in_an_unknown_way, tar_that_leads_out, half_a_tar]
)
def test_an_archive_that_cannot_be_unpacked_is_removed_whatever_is_raised(kaggle, tmp_path, change):
    "It was kept, and every later try failed on it in the same way."
    kaggle.data = archive_with("1.jpg", change)
    with pytest.raises(SourceError, match=r"was broken and has been removed \(.*2.archive\); run it again") as raised:
        fetch("tpdne", tmp_path)
    assert str(tmp_path) in str(raised.value) and not list(tmp_path.rglob("*.archive"))
    kaggle.data = archive_with("1.jpg")
    assert len(scan("tpdne", fetch("tpdne", tmp_path), "tpdne")) == 1


@pytest.fixture
def half(kaggle, tmp_path):
    "The archive that a download left which broke off."
    kaggle.cut = len(kaggle.data) // 2
    with pytest.raises(SourceError, match="is kept"):
        fetch("140k", tmp_path)
    kaggle.cut = None
    return next(tmp_path.rglob("*.archive"))


def test_a_log_in_page_leaves_the_half_download(kaggle, tmp_path, half, monkeypatch):
    "The network of a hotel answers in Kaggle's place."
    size = half.stat().st_size
    with monkeypatch.context() as patch:
        page = b"<html>Log in</html>"
        patch.setattr(Handler, "reply_json", lambda self, answer, status=200: self.reply(page, "text/html"))
        with pytest.raises(SourceError, match="want you to log in first.*is kept; run it again") as raised:
            fetch("140k", tmp_path)
    assert "broken" not in str(raised.value) and str(half) in str(raised.value)
    assert half.stat().st_size == size
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18 and kaggle.ranges == [size]


def test_damaged_keys_leave_the_half_download(kaggle, tmp_path, half, monkeypatch):
    (tmp_path / "kaggle.json").write_text('{"username": "me", "key": "SECRETKEY123"')
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    with pytest.raises(SourceError, match="Invalid Kaggle credentials file.*is kept; run it again") as raised:
        fetch("140k", tmp_path)
    assert "SECRETKEY" not in str(raised.value) and half.exists()


def test_a_full_disk_while_unpacking_leaves_the_archive(kaggle, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(SourceError, match="No space left.*is kept; run it again"):
            fetch("140k", tmp_path)
    kaggle.asked.clear()
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18 and kaggle.ranges == []


def test_white_space_around_a_token_is_taken_off(kaggle, tmp_path, monkeypatch):
    "As secrets have it that a cluster hands on."
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_SECRETKEY123\r\n")
    sent = []
    reply = Handler.reply_json
    monkeypatch.setattr(
        Handler,
        "reply_json",
        lambda self, *args: (sent.append(self.headers["Authorization"]), reply(self, *args)),
    )
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18
    assert set(sent) == {"Bearer KGAT_SECRETKEY123"} and os.environ["KAGGLE_API_TOKEN"].endswith("\n")


@pytest.mark.parametrize(
    "name, secret",
    [
        ("KAGGLE_API_TOKEN", "KGAT_SECRETKEY123\nabcdef"),
        ("KAGGLE_API_TOKEN", "KGAT_SECRET\u2026KEY123"),
        ("KAGGLE_API_TOKEN", "SECRET" * 100),
        ("HTTPS_PROXY", "http://me:SECRET#KEY123@127.0.0.1:1"),
    ],
)
def test_no_message_quotes_a_secret(kaggle, tmp_path, half, monkeypatch, name, secret):
    monkeypatch.setenv(name, secret)
    if name == "HTTPS_PROXY":
        monkeypatch.setenv("HTTP_PROXY", secret)
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.delenv("no_proxy")
    if "\n" in secret or "SECRETSECRET" in secret or name == "HTTPS_PROXY":
        with pytest.raises(SourceError, match=r"\*\*\*.*is kept; run it again") as raised:
            fetch("140k", tmp_path)
    else:
        with pytest.raises(SourceError, match="is kept; run it again") as raised:
            fetch("140k", tmp_path)
    said = str(raised.value)
    assert not any(part in said for part in ("SECRET", "KEY123", "abcdef")), said
    assert half.exists()


def test_one_fetch_at_a_time(kaggle, tmp_path):
    "Two would write into one archive."
    code = (
        "import sys; from fakeface.core.locks import take_lock; take_lock(sys.argv[1]); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", code, tmp_path / ".140k.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(FakefaceError, match=f"is being written by process {other.pid} .*Wait until it has ended"):
            fetch("140k", tmp_path)
        other.communicate(b"\n")
    assert kaggle.asked == []
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18 and not list(tmp_path.glob(".*.lock"))


@pytest.mark.parametrize("note", ["{}", '{"path": ""}', '{"path": 3}', '{"path": null}'])
def test_a_note_without_a_folder_is_no_download(kaggle, tmp_path, note):
    (tmp_path / "140k.json").write_text(note)
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18


@pytest.mark.parametrize("status", (403, 404, 500))
def test_refused(kaggle, tmp_path, status):
    kaggle.status = status
    with pytest.raises(SourceError, match="Nothing of it is kept.*By hand"):
        fetch("tpdne", tmp_path)


def test_unreachable(kaggle, tmp_path):
    kaggle.stop()
    with pytest.raises(SourceError, match="Nothing of it is kept.*By hand"):
        fetch("140k", tmp_path)


def test_full_disk(kaggle, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(SourceError, match="GiB free"):
        fetch("140k", tmp_path)
    assert kaggle.asked == ["GetDataset"], "nothing is loaded that does not fit"


def test_other_content(kaggle, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("faces/1.jpg", b"x")
    kaggle.data = buffer.getvalue()
    with pytest.raises(SourceError, match="is not Kaggle's 140K set"):
        fetch("140k", tmp_path / "a")
    assert len(scan("tpdne", fetch("tpdne", tmp_path / "b"), "tpdne")) == 1


def test_without_a_home_folder_it_says_what_to_do(tmp_path, monkeypatch):
    "A container with an account of any number: kagglehub looks for its settings at home when it is imported."
    (tmp_path / "kagglehub.py").write_text('raise RuntimeError("Could not determine home directory.")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)
    with pytest.raises(SourceError, match=r"Could not determine home directory.*Set HOME to a folder"):
        fetch("140k", tmp_path / "sets")
