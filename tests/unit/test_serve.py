"`fakeface serve` as a stranger meets it: without the token, from other pages, too often, too slowly; its files."

import asyncio
import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.images import write_noise_image

for package in ("voila", "anywidget"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'fakeface[checker]'")

V1 = ["v1.kernel.websocket.jupyter.org"]
PATIENCE = 120  # seconds, on a machine that has much else to do
UNKNOWN = "11111111-2222-3333-4444-555555555555"  # a kernel that is not there
TOKEN_IS_MISSING = b"The token is missing or wrong."
# every kind of address that the server or Voila knows
PATHS = [
    "/",
    "/?token=wrong",
    "/voila/render/check.ipynb",
    "/voila/static/voila.js",
    "/voila/templates/lab/static/voila.js",
    "/voila/labextensions/anywidget/package.json",
    "/voila/files/check.ipynb",
    "/voila/tree",
    f"/voila/api/shutdown/{UNKNOWN}",
    f"/api/kernels/{UNKNOWN}",
    f"/api/kernels/{UNKNOWN}/channels",
    "/fakeface/checker_page.js",
    "/login",
    "/nothing",
]
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Server(NamedTuple):
    "A server that runs, and what its user knows."

    process: subprocess.Popen
    port: int
    token: str
    cookie: str
    base: str  # below which the page lives
    folder: Path  # working directory; log.txt is in it
    temporary: Path  # for its temporary files; short, since a socket's path must be

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path="/", method="GET", body=None, cookie=True, **headers):
        "The answer to a request; names of headers are written with `_` for `-`."
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie:
            named["Cookie"] = self.cookie
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            # addresses are told from the page's own; what begins with // is meant as it stands
            whole = path[1:] if path.startswith("//") else self.base + path[1:]
            connection.request(method, whole, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def kernels(self):
        "Process ids of its kernels, by their connection files."
        lines = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
                found = re.search(re.escape(str(self.temporary)) + r"[^\0]*kernel-([\w-]{36})\.json", command)
                if found:
                    lines[found[1]] = int(folder.name)
        return lines

    def shut(self, kernel):
        "End a kernel as a page does that is closed."
        return self.ask(f"/voila/api/shutdown/{kernel}", "POST", Origin=self.origin).status

    def log(self):
        return (self.folder / "log.txt").read_text()


def heed_signals():
    "In a child process: tests in the background of a shell, or under nohup, would hand on that these are ignored."
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def start(folder, *options, **environment):
    "A server of a tiny detector in a folder of its own."
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))
    tiny_bundle(folder / "tiny", band=[0.4, 0.6])
    # what a folder of somebody else's may hold
    (folder / "voila.py").write_text(f"open({str(folder / 'was_run')!r}, 'w')")
    (folder / "voila.json").write_text(json.dumps({"VoilaConfiguration": {"show_tracebacks": True}}))
    root = str(Path(__file__).resolve().parents[2])
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAKEFACE_")}
    env |= dict(TMPDIR=str(temporary), PYTHONPATH=root) | environment
    # -P: as the installed command, which does not look for modules where it is called
    command = [sys.executable, "-P", "-m", "fakeface", "serve", "--bundle", str(folder / "tiny"), "--port", "0"]
    with open(folder / "log.txt", "w") as log:
        pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        process = subprocess.Popen([*command, *options], cwd=folder, env=env, preexec_fn=heed_signals, **pipes)
    address = process.stdout.readline()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{32,})\n", address)
    if not found:
        process.kill()
        pytest.fail(f"the first line is no address with a token: {address!r} {(folder / 'log.txt').read_text()}")
    port, token = int(found[1]), found[2]
    server = Server(process, port, token, f"fakeface-{port}={token}", "/", folder, temporary)
    return server._replace(base=server.ask(f"/?token={token}", cookie=False).headers["Location"])


def stop(server, how=signal.SIGTERM):
    server.process.send_signal(how)
    try:
        return server.process.wait(PATIENCE)
    finally:
        server.process.kill()
        shutil.rmtree(server.temporary)


def run_alone(work):
    "What a coroutine gives; in a thread of its own, since a browser's tests may have left a loop running in this one."
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "One server for all that only ask; two pages at a time."
    folder = tmp_path_factory.mktemp("serve")
    pictures = folder / "shown"
    pictures.mkdir()
    write_noise_image(pictures / "light.png", 200)
    running = start(folder, "--sessions", "2", "--paths", str(pictures))
    yield running
    stop(running)


@pytest.fixture(scope="module")
def opened(server):
    "The page's HTML and its kernel."
    page = server.ask("/")
    assert page.status == 200
    return page, re.search(r'"kernelId": "([\w-]{36})"', page.body.decode())[1]


# ---- the token
@pytest.mark.parametrize("path", PATHS)
def test_nothing_answers_without_the_token(server, path):
    for method, below in itertools.product(("GET", "HEAD", "POST", "DELETE"), ("", "/")):
        headers = {} if method in ("GET", "HEAD") else {"Origin": server.origin}
        answer = server.ask(below + path, method, cookie=False, **headers)
        assert answer.status == 403, method
        assert TOKEN_IS_MISSING in answer.body or method == "HEAD"
        assert "Set-Cookie" not in answer.headers
    assert server.ask(path, cookie=False, Cookie=f"fakeface-{server.port}={server.token[:-1]}").status == 403


def test_token_goes_from_the_address_into_a_cookie(server):
    answer = server.ask(f"//?token={server.token}", cookie=False)
    assert answer.status == 303 and re.fullmatch(r"/[\w-]{8}/", answer.headers["Location"])
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(server.cookie + ";")
    assert {"HttpOnly", "SameSite=Strict", f"Path={server.base}"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie and "Max-Age" not in cookie and "Expires" not in cookie
    # only at the door
    assert server.ask(f"/?token={server.token}", cookie=False).status == 403
    assert server.ask("//").status == 404, "the page is not at the door"
    assert server.ask(f"/fakeface/checker_page.js?token={server.token}", cookie=False).status == 403
    assert server.ask("/fakeface/checker_page.js").status == 200


def test_no_other_cookie_is_set(server, opened):
    page, kernel = opened
    stale = f"{server.cookie}; username-127-0-0-1-{server.port}=2|1:0|10:1|x"
    for answer in (page, server.ask(f"/api/kernels/{kernel}"), server.ask(f"/api/kernels/{kernel}", Cookie=stale)):
        assert answer.status == 200 and answer.headers.get_all("Set-Cookie") is None


@pytest.mark.parametrize("other", ['prefs={"a":1}', "nameless", "a[b]=1", "a/b=1", "SAME=stale"])
def test_cookies_of_other_programs_keep_nobody_out(server, other):
    other = other.replace("SAME", f"fakeface-{server.port}")
    for header in (f"{other}; {server.cookie}", f"{server.cookie}; {other}"):
        assert server.ask("/fakeface/checker_page.js", cookie=False, Cookie=header).status == 200, header
    assert server.ask("/fakeface/checker_page.js", cookie=False, Cookie=other).status == 403


def asked_raw(port, head):
    "What a server answers to bytes; it may close before it has read them all."
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        said = b""
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(4096):
                said += block
        return said


@pytest.mark.parametrize(
    "more",
    ["Cookie: " + "; ".join(f"c{i}={'x' * 4000}" for i in range(180)), "\r\n".join("a: b" for _ in range(9_000))],
    ids=["cookies", "lines"],
)
def test_a_head_that_is_too_long_is_a_sentence_and_others_go_on(server, opened, more):
    "As many cookies as a browser keeps for an address; as many lines as fit into a small head."
    head = f"GET {server.base} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n{more}\r\n\r\n"
    begun = time.monotonic()
    said = asked_raw(server.port, head.encode())
    assert said.startswith(b"HTTP/1.1 431 ") and b"private window" in said and b"cookies of 127.0.0.1" in said
    assert b"Content-Security-Policy: default-src 'none'" in said and b"X-Frame-Options: DENY" in said
    assert time.monotonic() - begun < 20
    assert server.ask("/fakeface/checker_page.css").status == 200


def test_a_head_without_end_is_closed(server):
    said = asked_raw(server.port, b"GET / HTTP/1.1\r\nCookie: " + b"x" * 3_000_000)
    assert said == b"" and server.ask("/fakeface/checker_page.css").status == 200


@pytest.mark.parametrize("kind", [b"a", b"a: b\r\n"], ids=["a line without end", "lines"])
def test_a_long_head_that_trickles_in_costs_little(server, kind):
    "A byte at a time behind a megabyte: all that had arrived was searched again for each of them, 40 ms every time."
    process = psutil.Process(server.process.pid)
    before = process.cpu_times()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"GET / HTTP/1.1\r\nCookie: " + (kind * 1_000_000)[:1_000_000])
        for _ in range(1000):
            connection.sendall(b"a")
            time.sleep(0.005)
    after = process.cpu_times()
    # all of the five seconds before
    assert after.user + after.system - before.user - before.system < 1.5
    assert server.ask("/fakeface/checker_page.css").status == 200


def test_token_stands_nowhere_else(server, opened):
    page, kernel = opened
    assert server.token.encode() not in page.body and server.token not in server.log()
    for pid in (server.process.pid, *server.kernels().values()):
        folder = Path(f"/proc/{pid}")
        if not folder.is_dir():
            pytest.skip("no /proc on this system")
        assert server.token.encode() not in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


# ---- ports
def listening(pid):
    "The ports on which a process and all that it has started wait for connections."
    top = psutil.Process(pid)
    found = [each for process in (top, *top.children(recursive=True)) for each in process.net_connections("inet")]
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


def test_a_page_opens_no_port(server, opened):
    "ipykernel alone would open one that takes whatever anyone sends, other web pages included."
    _, kernel = opened
    assert psutil.Process(server.kernels()[kernel]) in psutil.Process(server.process.pid).children(recursive=True)
    assert listening(server.process.pid) == {server.port}


NEWER = """
import socket, sys
from ipykernel import iostream, kernelapp
from fakeface.core.kernels import run_kernel

class Newer(iostream.IOPubThread):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.kept = socket.create_server(("127.0.0.1", 0))

def init_iopub(app, context, was=kernelapp.IPKernelApp.init_iopub):
    kernelapp.IOPubThread = iostream.IOPubThread
    was(app, context)

WAY
run_kernel()
"""


@pytest.mark.parametrize(
    "transport, way",
    [
        ("ipc", "iostream.IOPubThread = kernelapp.IOPubThread = Newer"),
        ("tcp", "kernelapp.IPKernelApp.init_iopub = init_iopub"),
    ],
    ids=["a port of another kind", "a class of another name"],
)
def test_a_kernel_of_a_newer_ipykernel_ends_with_a_sentence(transport, way):
    from jupyter_client.connect import write_connection_file

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        ip = f"{folder}/k" if transport == "ipc" else "127.0.0.1"
        path, _ = write_connection_file(f"{folder}/k.json", ip=ip, transport=transport)
        command = [sys.executable, "-c", NEWER.replace("WAY", way), "-f", path]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 1 and ended.stderr.strip().endswith("or a newer fakeface."), ended.stderr


def test_no_page_without_a_kernel_that_can_be_closed(monkeypatch):
    from ipykernel import kernelapp
    from fakeface.core.project import FakefaceError
    from fakeface.infer.page import PageSettings
    from fakeface.infer.server import serve_page

    monkeypatch.setattr(kernelapp, "IOPubThread", object)
    with pytest.raises(FakefaceError, match="No kernel was started: ipykernel"):
        serve_page(PageSettings(port=0), announce=pytest.fail)


# ---- other pages
def test_other_pages_start_nothing(server, opened):
    before = server.kernels()
    for site in ("cross-site", "same-site"):
        for extra in ({}, dict(Sec_Fetch_Dest="image"), dict(Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")):
            answer = server.ask(f"//?token={server.token}", Sec_Fetch_Site=site, **extra)
            assert answer.status == 403 and b"another page" in answer.body and "Set-Cookie" not in answer.headers
    for origin in ("null", "http://evil.example", f"http://127.0.0.1:{server.port + 1}"):
        assert server.ask("/", Origin=origin).status == 403
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", f"127.0.0.1:{server.port + 1}"):
        answer = server.ask("/", Host=host)
        assert answer.status == 403 and host.encode() not in answer.body
        assert "evil" not in str(answer.headers)
    assert server.kernels() == before


def test_pages_own_requests_are_let_in(server):
    for headers in (dict(Sec_Fetch_Site="same-origin"), dict(Sec_Fetch_Site="none"), dict(Origin=server.origin)):
        assert server.ask("/fakeface/checker_page.css", **headers).status == 200
    assert server.ask("/fakeface/checker_page.css", Host=f"localhost:{server.port}").status == 200


def websocket(server, kernel, protocols=None, **headers):
    "An open websocket to a kernel; raises what tornado raises where it is refused."
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    address = f"ws://127.0.0.1:{server.port}{server.base}api/kernels/{kernel}/channels?session_id=s"
    return websocket_connect(HTTPRequest(address, headers=headers), subprotocols=protocols)


def test_websocket_asks_for_token_and_origin(server, opened):
    from tornado.httpclient import HTTPClientError

    _, kernel = opened

    async def refused(**headers):
        with pytest.raises(HTTPClientError) as error:
            await websocket(server, kernel, **headers)
        return error.value.code

    async def tries():
        whole = dict(Cookie=server.cookie, Origin=server.origin)
        bad = [
            dict(Origin=server.origin),
            dict(Cookie=server.cookie),
            dict(whole, Origin="http://evil.example"),
            dict(whole, Origin=f"http://localhost:{server.port}"),
            {**whole, "Sec-Fetch-Site": "same-site"},
        ]
        assert [await refused(**headers) for headers in bad] == [403] * len(bad)
        (await websocket(server, kernel, **whole)).close()

    run_alone(tries())


def message(kind, **content):
    header = dict(msg_id=f"m-{kind}", msg_type=kind, session="s", username="", version="5.3", date="")
    return json.dumps(dict(channel="shell", header=header, parent_header={}, metadata={}, content=content, buffers=[]))


def test_websocket_runs_no_code_and_tells_no_traceback(server, opened):
    _, kernel = opened

    async def talk():
        socket_ = await websocket(server, kernel, Cookie=server.cookie, Origin=server.origin)
        code = f"open({str(server.folder / 'was_run')!r}, 'w')"
        await socket_.write_message(message("execute_request", code=code, silent=False))
        # the kernel prints a warning about a comm that it does not know
        await socket_.write_message(message("comm_msg", comm_id="nobody", data={}))
        await socket_.write_message(message("kernel_info_request"))
        heard = []
        while "kernel_info_reply" not in heard:
            answer = await asyncio.wait_for(socket_.read_message(), PATIENCE)
            heard.append(json.loads(answer)["msg_type"])
        await asyncio.sleep(1)
        socket_.close()
        while (answer := await socket_.read_message()) is not None:
            heard.append(json.loads(answer)["msg_type"])
        return heard

    heard = run_alone(talk())
    assert set(heard) <= {"status", "kernel_info_reply", "comm_info_reply", "comm_open", "comm_msg", "comm_close"}
    assert not (server.folder / "was_run").exists()
    assert "No such comm" in server.log(), "what is kept from the page stands in the log"


@pytest.mark.parametrize(
    "protocols,sent",
    [
        (V1, b"\xff" * 8),
        # the whole message once for every second place
        (V1, np.array([1000, *[0, 8008] * 500], "<u8").tobytes()),
        (None, b"\x3f" + b"\xff" * 3),
    ],
)
def test_a_message_whose_parts_do_not_lie_in_it_ends_the_connection(server, opened, protocols, sent):
    _, kernel = opened

    async def talk():
        socket_ = await websocket(server, kernel, protocols, Cookie=server.cookie, Origin=server.origin)
        await socket_.write_message(sent, binary=True)
        while await asyncio.wait_for(socket_.read_message(), PATIENCE) is not None:
            pass
        return socket_.close_code

    assert run_alone(talk()) == 1002
    assert server.ask("/fakeface/checker_page.css").status == 200, "and the page answers"


# ---- the page
def test_page_takes_no_theme_and_holds_no_script(server, opened):
    page, kernel = opened
    assert kernel in server.kernels()
    evil = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
    server.shut(kernel)
    asked = server.ask(f"/?theme={evil}&template={evil}&x={evil}")
    assert asked.status == 200 and b"alert(1)" not in asked.body
    text = asked.body.decode()
    tags = re.findall(r"<script([^>]*)>", text)
    assert len(tags) >= 4 and all('src="/' in tag or 'type="application/' in tag for tag in tags), tags
    assert not re.search(r"\son\w+=|javascript:|https?://", text), "no handlers, nothing from elsewhere"
    assert "widget-view+json" in text
    for secret in (str(server.folder), str(Path.home()), sys.prefix, "FAKEFACE_"):
        assert secret not in text
    server.shut(re.search(r'"kernelId": "([\w-]{36})"', text)[1])


def test_every_answer_has_the_headers(server):
    asked = {
        303: server.ask(f"//?token={server.token}"),
        200: server.ask("/voila/static/voila.js"),
        403: server.ask("/", cookie=False),
        404: server.ask("/nothing"),
        405: server.ask("/nothing", "POST", Origin=server.origin),
    }
    asked[500] = server.ask(f"/voila/api/shutdown/{UNKNOWN}", "POST", Origin=server.origin)
    for status, answer in asked.items():
        assert answer.status == status or status in (405, 500)
        got = {name: answer.headers[name] for name in HEADERS}
        assert got == HEADERS, status
        policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["script-src"] == "'self' blob:" and policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "Server" not in answer.headers
        if answer.status >= 400:
            assert answer.body.startswith(b"<!DOCTYPE html>") and b"Traceback" not in answer.body
            assert str(server.folder).encode() not in answer.body and b"/lib/" not in answer.body


@pytest.mark.parametrize("path", PATHS[2:5] + PATHS[6:8] + PATHS[-2:])
def test_what_the_page_does_not_need_is_not_there(server, path):
    expected = 200 if path == "/voila/static/voila.js" else 404
    assert server.ask(path).status == expected
    for way in ("/voila/static/../../../../etc/passwd", "/voila/static/%2e%2e/%2e%2e/app.py", "/fakeface/checker.js"):
        assert server.ask(way).status in (403, 404)


# ---- limits
def test_so_many_pages_at_a_time(server):
    for kernel in server.kernels():
        server.shut(kernel)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(server.ask("/"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]
    full = next(answer for answer in answers if answer.status == 503)
    assert b"No more pages can be open at a time." in full.body
    living = server.kernels()
    assert len(living) == 2
    assert server.shut([*living][0]) == 204
    again = server.ask("/")
    assert again.status == 200, "a page that was closed makes room"
    for kernel in server.kernels():
        server.shut(kernel)


@pytest.mark.parametrize("is_open", [False, True])
def test_a_page_that_was_left_before_it_opened_makes_room(monkeypatch, is_open):
    "Reloaded at once, a page never connects to its kernel; one that has connected keeps its place."
    from fakeface.infer import server as room
    from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

    async def start(self, kernel_id, **_):
        self._kernels[kernel_id] = object()
        return kernel_id

    async def end(self, kernel_id, now):
        del self._kernels[kernel_id]

    monkeypatch.setattr(AsyncMappingKernelManager, "start_kernel", start)
    monkeypatch.setattr(AsyncMappingKernelManager, "shutdown_kernel", end)
    monkeypatch.setattr(AsyncMappingKernelManager, "notify_connect", lambda *_: None)
    monkeypatch.setattr(room, "COMING", 0.3)
    monkeypatch.setattr(room, "_LOOKS", 10)

    async def two_pages():
        kernels = room.FewKernels(most=1)
        first = await kernels.start_kernel()
        if is_open:
            kernels.notify_connect(first)
        second = await kernels.start_kernel()
        return first != second and kernels.list_kernel_ids() == [second]

    if is_open:
        with pytest.raises(room.tornado.web.HTTPError, match="503"):
            run_alone(two_pages())
    else:
        assert run_alone(two_pages())


def test_half_open_connections_keep_nobody_out(server):
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
            with contextlib.suppress(OSError):
                # those before it may have been closed already
                half.sendall(b"GET / HTTP/1.1\r\nHost: ")
        begun = time.monotonic()
        assert server.ask("/fakeface/checker_page.css").status == 200
        assert time.monotonic() - begun < 10


@contextlib.contextmanager
def quick_server(monkeypatch, most):
    "The same connections with half a second of patience, in this process; gives the port."
    from fakeface.infer import server as room
    from fakeface.infer.lock import Lock

    monkeypatch.setattr(room, "PATIENCE", 0.5)
    monkeypatch.setattr(room, "MOST_CONNECTIONS", most)
    listening, *others = room._listening("127.0.0.1", 0)
    port = listening.getsockname()[1]
    loop = asyncio.new_event_loop()

    def run():
        asyncio.set_event_loop(loop)
        application = room.LockedApplication(Lock("t", "127.0.0.1", port))

        async def begin():
            room.FewConnections(application).add_sockets([listening, *others])

        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield port
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for each in (listening, *others):
        each.close()


def seconds_until_closed(connection):
    begun = time.monotonic()
    while connection.recv(4096):
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize(
    "half", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"]
)
def test_half_a_request_is_dropped_in_time(monkeypatch, half):
    with quick_server(monkeypatch, 9) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(half)
        assert 0.2 < seconds_until_closed(connection) < 10


def test_body_that_is_too_large_is_not_read(monkeypatch):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
    with quick_server(monkeypatch, 9) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head)
        assert seconds_until_closed(connection) < 0.4


def test_the_oldest_stranger_gives_way(monkeypatch):
    with quick_server(monkeypatch, 2) as port, contextlib.ExitStack() as stack:
        strangers = []
        for _ in range(3):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            stranger.sendall(b"GET")
            strangers.append(stranger)
            time.sleep(0.05)
        assert seconds_until_closed(strangers[0]) < 0.3
        assert seconds_until_closed(strangers[2]) > 0.2, "by its time, not at once"


# ---- what it writes, and its end
@pytest.mark.parametrize("how", dict.fromkeys([signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)]))
def test_what_is_written_is_for_its_user_only(tmp_path, how):
    # a home that can be written to, and one that cannot, as that of a service's account
    home = tmp_path / "home" if how == signal.SIGINT else tmp_path / "log.txt/home"
    os.makedirs(tmp_path / "home")
    running = start(tmp_path, HOME=str(home), XDG_CACHE_HOME=str(tmp_path / "cache"))
    try:
        assert running.ask("/").status == 200
        (kernel,) = running.kernels()
        seen = [*running.temporary.rglob("*")]
        open_to_others = [path for path in seen if stat.S_IMODE(path.lstat().st_mode) & 0o077]
        # IPython copies its README with the rights that it came with
        open_to_others = [path for path in open_to_others if path.name != "README"]
        assert seen and not open_to_others
        (connection,) = [path for path in seen if path.name == f"kernel-{kernel}.json"]
        assert json.loads(connection.read_text())["transport"] == "ipc", "no port that others can listen in on"
        assert not (tmp_path / "was_run").exists(), "a voila.py that lies there is not run"
    finally:
        running.process.send_signal(how)
        code = running.process.wait(PATIENCE)
        left = [*running.temporary.glob("fakeface-page-*")]
        stop(running)
    assert code == 0 and not left
    assert not [*(tmp_path / "home").rglob("*")], "nothing stays at home"
    for _ in range(50):
        if not running.kernels():
            break
        time.sleep(0.2)
    assert not running.kernels()
    assert "Traceback" not in running.log()
