"`fetch` against a stand-in of Kaggle's server: whole, broken off, refused, unreachable, full disk, wrong content."

import http.server
import io
import json
import shutil
import threading
import types
import zipfile

import pytest

from fakeface.data.fetch import fetch
from fakeface.data.rows import SourceError
from fakeface.data.sources import scan

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
        if cut:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def kaggle(monkeypatch):
    "A running server; `.data` is what it sends, `.cut` after how many bytes it hangs up, `.status` what it says."
    from kagglesdk import kaggle_env
    from kagglesdk.kaggle_http_client import KaggleHttpClient

    kaggle = types.SimpleNamespace(data=archive_140k(), cut=None, status=200, asked=[], ranges=[])
    monkeypatch.setattr(Handler, "kaggle", kaggle, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, address)
    # in its test mode it would read the whole file to print it
    monkeypatch.setattr(KaggleHttpClient, "_print_response", lambda *_: None)
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


def test_broken_archive_is_removed(kaggle, tmp_path):
    good, kaggle.data = kaggle.data, b"no archive" * 100
    with pytest.raises(SourceError, match="was broken and has been removed"):
        fetch("140k", tmp_path)
    kaggle.data = good
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18


@pytest.mark.parametrize("status", (403, 404, 500))
def test_refused(kaggle, tmp_path, status):
    kaggle.status = status
    with pytest.raises(SourceError, match="Nothing was downloaded.*By hand"):
        fetch("tpdne", tmp_path)


def test_unreachable(kaggle, tmp_path):
    kaggle.stop()
    with pytest.raises(SourceError, match="Nothing was downloaded.*By hand"):
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
