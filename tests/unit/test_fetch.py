"`fetch` against a stand-in of Kaggle's server: whole, broken off, refused, unreachable, full disk, wrong content."

import http.server
import io
import json
import shutil
import threading
import types
import zipfile
import pytest

kagglehub = pytest.importorskip("kagglehub", reason="kagglehub is not installed (pip install fakeface[fetch])")
from kagglesdk import kaggle_env
from kagglesdk.kaggle_http_client import KaggleHttpClient
from fakeface.data.sources import SourceError, fetch, scan


def archive_140k() -> bytes:
    "A small 140K as Kaggle packs it."
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, "w") as z:
        for s in ("train", "valid", "test"):
            names = [f"{s}/real/{i:05d}.jpg" for i in range(3)] + [f"{s}/fake/A{i}.jpg" for i in range(3)]
            lines = [f"{k},/x,{k},{int('/real/' in n)},{n.split('/')[1]},{n}" for k, n in enumerate(names)]
            z.writestr(f"{s}.csv", "\n".join([",original_path,id,label,label_str,path", *lines]))
            for n in names:
                z.writestr(f"real_vs_fake/real-vs-fake/{n}", n.encode() * 20_000)  # kagglehub writes pieces of 1 MiB
    return buf.getvalue()


@pytest.fixture
def kaggle(monkeypatch):
    "A server that answers as Kaggle's does; `.data` is what it sends, `.cut` after how many bytes it hangs up, `.status` what it says."
    on = types.SimpleNamespace(data=archive_140k(), cut=None, status=200, asked=[], ranges=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            on.asked.append(self.path.rsplit("/", 1)[-1])
            if on.status != 200:
                return self.reply(
                    json.dumps(dict(code=on.status, message="no")).encode(), "application/json", on.status
                )
            if self.path.endswith("GetDataset"):
                return self.reply(
                    json.dumps(dict(currentVersionNumber=2, licenseName="a licence", totalBytes=len(on.data))).encode(),
                    "application/json",
                )
            self.file()

        def do_GET(self):
            self.file()

        def file(self):
            r = self.headers.get("Range")
            start = int(r.split("=")[1].split("-")[0]) if r else 0
            if r:
                on.ranges.append(start)
            self.reply(on.data[start:], "application/octet-stream", 206 if r else 200, on.cut)

        def reply(self, body, kind, status=200, cut=None):
            self.send_response(status)
            for k, v in {"Content-Type": kind, "Content-Length": len(body), "Accept-Ranges": "bytes"}.items():
                self.send_header(k, str(v))
            self.end_headers()
            self.wfile.write(body[:cut])
            if cut:
                self.close_connection = True

        def log_message(self, *a):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, f"http://127.0.0.1:{server.server_port}"
    )
    monkeypatch.setattr(
        KaggleHttpClient, "_print_response", lambda *a: None
    )  # in its test mode it would read the whole file to print it
    for k, v in dict(KAGGLE_API_ENVIRONMENT="TEST", NO_PROXY="127.0.0.1", no_proxy="127.0.0.1").items():
        monkeypatch.setenv(k, v)
    for k in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLEHUB_CACHE"):
        monkeypatch.delenv(k, raising=False)
    on.stop = lambda: (server.shutdown(), server.server_close())
    yield on
    on.stop()


def test_whole(kaggle, tmp_path, capsys):
    path = fetch("140k", tmp_path)
    df = scan("140k", path, "140k")
    assert (
        len(df) == 18
        and df.label.mean() == 0.5
        and df.origin[0].endswith("version 2")
        and path.is_relative_to(tmp_path)
    )
    assert "a licence" in capsys.readouterr().out and not list(tmp_path.rglob("*.archive"))
    kaggle.stop()
    assert fetch("140k", tmp_path) == path, "loaded once, needs no network"


def test_broken_off_goes_on(kaggle, tmp_path):
    kaggle.cut = len(kaggle.data) // 2
    with pytest.raises(SourceError, match="What was loaded is kept; run it again") as e:
        fetch("140k", tmp_path)
    assert "By hand: download https://www.kaggle.com/datasets/xhlulu/140k" in str(e.value)
    got = next(tmp_path.rglob("*.archive")).stat().st_size
    assert 0 < got < len(kaggle.data)
    kaggle.cut = None
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18 and kaggle.ranges == [got]


def test_broken_archive_is_removed(kaggle, tmp_path):
    good, kaggle.data = kaggle.data, b"no archive" * 100
    with pytest.raises(SourceError, match="was broken and is removed"):
        fetch("140k", tmp_path)
    kaggle.data = good
    assert len(scan("140k", fetch("140k", tmp_path), "x")) == 18


@pytest.mark.parametrize("status", (403, 404, 500))
def test_refused(kaggle, tmp_path, status):
    kaggle.status = status
    with pytest.raises(SourceError, match="Nothing was loaded.*By hand"):
        fetch("tpdne", tmp_path)


def test_unreachable(kaggle, tmp_path):
    kaggle.stop()
    with pytest.raises(SourceError, match="Nothing was loaded.*By hand"):
        fetch("140k", tmp_path)


def test_full_disk(kaggle, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: types.SimpleNamespace(free=1000))
    with pytest.raises(SourceError, match="GiB free"):
        fetch("140k", tmp_path)
    assert kaggle.asked == ["GetDataset"], "nothing is loaded that does not fit"


def test_other_content(kaggle, tmp_path):
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, "w") as z:
        z.writestr("faces/1.jpg", b"x")
    kaggle.data = buf.getvalue()
    with pytest.raises(SourceError, match="is not Kaggle's 140K set"):
        fetch("140k", tmp_path / "a")
    assert len(scan("tpdne", fetch("tpdne", tmp_path / "b"), "tpdne")) == 1
