"The checker in a real browser: as a page of its own and, slowly, in JupyterLab. And what a saved notebook holds."

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from fakeface.models.bundle import Bundle
from fakeface.core.seeds import rng
from fakeface.images.jpeg import jpeg_bytes

HEADS = {"real": "Looks like a photograph", "fake": "Looks generated", "unsure": "Unsure"}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EVIL = "<img src=x onerror=alert(1)>.jpg"
for name in ("voila", "anywidget"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    "A tiny untrained detector whose threshold lies between two pictures; gives (its folder, the pictures' folder)."
    from fakeface.infer.detector import Detector
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model
    import torch

    torch.manual_seed(0)
    d = tmp_path_factory.mktemp("checker")
    pics = d / "pictures"
    pics.mkdir()
    for i in range(3):
        x = rng("checker", i).normal(128, 25 * (i + 1), (96, 80, 3)).clip(0, 255).astype(np.uint8)
        (pics / f"{'abc'[i]}.jpg").write_bytes(jpeg_bytes(Image.fromarray(x), 90))
    model = build_model("test_resnet", weights=None, size=32)

    def make(name, **fields):
        save_model(model, d / name, Bundle(name, "test_resnet", model.spec, domains=["noise"], **fields))
        return Detector.load(d / name)

    probe = make("probe")
    views = [probe_views(path, model.spec) for path in sorted(pics.glob("*.jpg"))]
    z = [float(np.subtract(*probe.logits(x)[0, ::-1])) for x in views]
    temperature = float(np.std(z))
    bias = -float(np.mean(z)) / temperature
    p = sorted(1 / (1 + np.exp(-(logit / temperature + bias))) for logit in z)
    cut = (p[0] + p[1]) / 2
    detector = make(
        "tiny",
        temperature=temperature,
        bias=bias,
        thresholds={"youden": cut, "0.5": 0.5},
        threshold="youden",
        band=[cut - 0.01, cut + 0.01],
    )
    return d / "tiny", pics, detector


def probe_views(path, spec):
    from fakeface.images.preprocess import eval_views
    from fakeface.images.decode import open_image

    return eval_views(open_image(path), spec)


def wait_for(port, process, seconds=60):
    for _ in range(seconds * 5):
        if process.poll() is not None:
            raise RuntimeError("the server has ended")
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve(root, log, **env):
    "Voila with the checker's page; gives (process, address)."
    from fakeface.infer.page import voila_args

    port = free_port()
    command = [sys.executable, "-m", "voila", *voila_args(root / "nbs/check.ipynb", port=port)]
    with open(log, "w") as f:
        p = subprocess.Popen(command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
    wait_for(port, p)
    return p, f"http://127.0.0.1:{port}/"


def stop(p):
    p.terminate()
    try:
        p.wait(20)
    except subprocess.TimeoutExpired:
        p.kill()


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if not BROWSER:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield b
        b.close()


@pytest.fixture(scope="module")
def opened(browser, bundle, root, tmp_path_factory):
    "The page, once for all tests; in the end: no dialog, no script error, nothing asked of another address."
    log = tmp_path_factory.mktemp("voila") / "log.txt"
    p, url = serve(root, log, FAKEFACE_BUNDLE=str(bundle[0]), FAKEFACE_UPLOAD_MB="3")
    context = browser.new_context(viewport=dict(width=1200, height=900), accept_downloads=True)
    page = context.new_page()
    wrong = []
    asked = {}
    page.on("dialog", lambda d: (wrong.append(f"dialog {d.message}"), d.dismiss()))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("requestfinished", lambda r: asked.setdefault(r.url))
    page.on("filechooser", lambda c: None)  # from now on, so that none opens before somebody listens
    try:
        page.goto(url)
        page.get_by_role("button", name="Choose pictures").wait_for(timeout=60_000)
        yield page
        assert not wrong, wrong
        assert not [u for u in asked if not u.startswith((url, "data:", "blob:"))], (
            "something was fetched from elsewhere"
        )
        assert "Traceback" not in log.read_text()
    finally:
        context.close()
        stop(p)


@pytest.fixture
def page(opened):
    "The page without cards."
    opened.set_viewport_size(dict(width=1200, height=900))
    if opened.locator(".ff-card").count():
        opened.get_by_role("button", name="Remove all").click()
        opened.locator(".ff-card").first.wait_for(state="detached")
    opened.get_by_role("button", name="youden (stored)").click()
    return opened


def upload(page, *files):
    "Through the file chooser: paths, or (name, bytes)."
    before = page.locator(".ff-card").count()
    page.locator(".ff input[type=file]").set_input_files(
        [f if isinstance(f, dict) else named(f.name, f.read_bytes()) for f in files]
    )
    settled(page, before + len(files))


def named(name, data):
    return dict(name=name, mimeType="image/jpeg", buffer=data)


def settled(page, n):
    page.locator(".ff-card[data-state=done]").nth(n - 1).wait_for(timeout=30_000)
    page.locator(".ff-cards[aria-busy=false]").wait_for()
    assert page.locator(".ff-card").count() == n


def card(page, name):
    return page.locator(".ff-card").filter(has=page.locator(".ff-name", has_text=re.compile(f"^{re.escape(name)}$")))


def verdicts(page):
    return page.locator(".ff-body > .ff-verdict").all_inner_texts()


def said(page, text):
    page.locator(".ff-status").get_by_text(text).wait_for()


SLIDE = """([id, value]) => {
  const slider = document.getElementById(id);
  slider.value = value;
  slider.dispatchEvent(new Event('input', { bubbles: true })); }"""


def slide(page, id, value):
    page.evaluate(SLIDE, [id, str(value)])


FILES = """files => {
  const t = new DataTransfer(), bytes = b64 => Uint8Array.from(atob(b64), c => c.charCodeAt(0));
  for (const [name, b64] of files) t.items.add(new File([bytes(b64)], name, { type: 'image/jpeg' }));
  return t; }"""


def transfer(page, *files):
    return page.evaluate_handle(FILES, [[n, base64.b64encode(b).decode()] for n, b in files])


# ---- the page
def test_page_says_what_it_is_and_what_it_keeps(page, bundle):
    text = page.locator(".ff").inner_text()
    for s in (
        "Nothing is kept and nothing is sent",
        "Up to 3 MB a picture",
        "not proof",
        "trained on noise",
        bundle[2].hash[:12],
    ):
        assert s in text
    assert (
        page.title() == "fakeface: is this face a photograph?"
        and page.locator("h1:visible").count() == 1
        and page.locator(".ff-empty").is_visible()
    )
    assert "default-src 'self'" in page.request.get(page.url).headers["content-security-policy"]
    assert page.request.get(page.url, headers={"Host": "evil.example"}).status == 403, (
        "a page elsewhere that resolves to this computer is refused"
    )


def test_three_files_one_broken(page, bundle):
    a = (bundle[1] / "a.jpg").read_bytes()
    upload(page, bundle[1] / "a.jpg", named("broken.jpg", a[: len(a) // 2]), bundle[1] / "b.jpg")
    broken = card(page, "broken.jpg")
    assert "Not checked" in broken.inner_text() and "cannot be decoded" in broken.inner_text().lower()
    for name in "ab":  # the same number as the library's
        v = bundle[2].check(bundle[1] / f"{name}.jpg", stability=True)
        c = card(page, f"{name}.jpg")
        assert c.locator(".ff-score").inner_text() == f"score {v.p_fake:.3f}"
        assert HEADS[v.label] == c.locator(".ff-body > .ff-verdict").inner_text()
        assert f"between {v.stability['low']:.3f} and {v.stability['high']:.3f}" in c.inner_text()
        assert f"Score {v.p_fake:.3f} on a scale" in c.locator("svg.ff-bar").get_attribute("aria-label")
        assert c.locator("img").get_attribute("src").startswith("data:image/jpeg;base64,") and name in c.locator(
            "img"
        ).get_attribute("alt")
    said(page, "3 pictures:")
    said(page, "1 not checked")
    shapes = {h: page.locator(".ff-verdict .ff-shape").nth(i).get_attribute("d") for i, h in enumerate(verdicts(page))}
    assert len(set(shapes.values())) == len(shapes) >= 2, "verdicts differ in shape, not only in colour"


PASTE = """t => document.dispatchEvent(
  new ClipboardEvent('paste', { clipboardData: t, bubbles: true, cancelable: true }))"""


def test_drop_and_paste(page, bundle):
    data = (bundle[1] / "a.jpg").read_bytes()
    files = transfer(page, ("dropped.jpg", data), ("too.jpg", data))
    for event in ("dragover", "drop"):
        page.dispatch_event(".ff-drop", event, dict(dataTransfer=files))
    settled(page, 2)
    assert (
        page.locator(".ff-name").all_inner_texts() == ["dropped.jpg", "too.jpg"]
        and not page.locator(".ff-over").count()
    )
    page.evaluate(PASTE, transfer(page, ("image.png", data)))
    settled(page, 3)
    assert re.fullmatch(r"pasted picture \d+\.png", page.locator(".ff-name").nth(2).inner_text())


def test_path_and_folder(page, bundle, tmp_path):
    field = page.get_by_label("Or a file or folder on this computer")
    field.fill(str(bundle[1]))
    field.press("Enter")
    settled(page, 3)
    assert page.locator(".ff-name").all_inner_texts() == ["a.jpg", "b.jpg", "c.jpg"]
    field.fill(str(bundle[1] / "none.jpg"))
    page.get_by_role("button", name="Check", exact=True).click()
    settled(page, 4)
    assert "does not exist" in card(page, "none.jpg").inner_text().lower()
    field.fill(str(tmp_path))
    field.press("Enter")
    said(page, "There is no picture in")


def test_too_big_is_refused_and_large_is_cut_in_pieces(page):
    noise = rng("noise").integers(0, 256, (900, 900, 3), dtype=np.uint8)
    buf = io.BytesIO()
    Image.fromarray(noise).save(buf, "BMP")
    large = buf.getvalue()
    assert 2 * 2**20 < len(large) < 3 * 2**20, "three pieces"
    bad = {"huge.jpg": (bytes(3 * 2**20 + 1), "up to 3 MB a picture"), "empty.jpg": (b"", "is empty (0 bytes)")}
    bad["zip.jpg"] = (b"PK\3\4" + bytes(99), "is not a picture")
    upload(page, named("large.bmp", large), *[named(n, data) for n, (data, _) in bad.items()])
    assert card(page, "large.bmp").locator(".ff-score").count() == 1
    for name, (_, why) in bad.items():
        assert why in card(page, name).inner_text().replace("Is ", "is ")


def test_sliders_move_labels_not_scores(page, bundle):
    upload(page, *sorted(bundle[1].glob("*.jpg")))
    scores = page.locator(".ff-score").all_inner_texts()
    before = verdicts(page)
    summary = page.locator(".ff-status").inner_text()
    slide(page, "ff-threshold", 0)
    said(page, "3 generated")
    assert verdicts(page) == [HEADS["fake"]] * 3
    slide(page, "ff-threshold", 1)
    said(page, "3 photographed")
    assert verdicts(page) == [HEADS["real"]] * 3
    assert (
        page.locator("#ff-threshold").get_attribute("aria-valuetext") == "1.000"
        and "has been moved" in page.locator("#ff-note").inner_text()
    )
    page.get_by_role("button", name="youden (stored)").click()
    said(page, summary)
    assert verdicts(page) == before
    slide(page, "ff-prior", 3)
    page.locator(".ff-prior", has_text="Where 1% of the pictures").nth(2).wait_for()
    assert verdicts(page) == before and page.locator(".ff-score").all_inner_texts() == scores
    slide(page, "ff-prior", 9)


def test_heatmap_goes_on_and_off(page, bundle):
    upload(page, bundle[1] / "a.jpg")
    small = page.locator(".ff-pic img").get_attribute("src")
    page.get_by_role("button", name="Heat-map").click()
    off = page.get_by_role("button", name="Hide heat-map")
    off.wait_for(timeout=60_000)
    assert off.get_attribute("aria-pressed") == "true" and page.locator(".ff-pic img").get_attribute("src") != small
    assert page.evaluate("document.activeElement.textContent") == "Hide heat-map", "the focus stays on the button"
    off.click()
    assert page.locator(".ff-pic img").get_attribute("src") == small
    assert page.get_by_role("button", name="Heat-map").get_attribute("aria-pressed") == "false"


def test_csv_holds_what_the_cards_show(page, bundle):
    upload(page, bundle[1] / "a.jpg", named("=cmd()|x.jpg", b"no"), named(EVIL, (bundle[1] / "b.jpg").read_bytes()))
    with page.expect_download() as d:
        page.get_by_role("button", name="Save as CSV").click()
    t = pd.read_csv(d.value.path(), keep_default_na=False)
    assert (
        d.value.suggested_filename == "fakeface.csv"
        and list(t.name) == ["a.jpg", "./=cmd()|x.jpg", EVIL]
        and t.label[1] == ""
        and t.error[1]
    )
    assert float(t.p_fake[0]) == bundle[2].check(bundle[1] / "a.jpg").p_fake and set(t.bundle_hash) == {bundle[2].hash}


def test_names_are_text(page, bundle):
    data = (bundle[1] / "a.jpg").read_bytes()
    names = [EVIL, "<script>alert(2)<script>.jpg", '"><svg onload=alert(3)>.jpg', "x\u202egpj.exe.jpg"]
    upload(page, *[named(n, data) for n in names], named(EVIL, b"not a picture"))
    page.get_by_role("button", name="Heat-map").first.click()
    page.wait_for_timeout(300)
    assert (
        page.locator(".ff-name").all_inner_texts()[:3] == names[:3] and "\u202e" not in page.locator(".ff").inner_text()
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.ff img')].every(e => e.src.startsWith('data:image/jpeg;base64,'))"
    )
    assert not page.locator(".ff script, .ff [onerror], .ff [onload]").count()


# ids, keys, or the first eight letters of what has the focus
TAB_ORDER = ["ff-path", "Check", "Settings", "ff-threshold", "youden (", "0.5", "ff-prior", "ff-faces", "ff-stability"]
TAB_ORDER += ["Save as ", "Remove a", "heat 0", "facts"]


def test_keyboard_only(page, bundle):
    def tab():
        page.keyboard.press("Tab")
        return page.evaluate("(e => e.id || e.dataset.key || e.textContent.trim().slice(0, 8))(document.activeElement)")

    page.get_by_role("button", name="Choose pictures").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(bundle[1] / "a.jpg"), str(bundle[1] / "b.jpg")])
    settled(page, 2)
    page.get_by_role("button", name="Choose pictures").focus()
    assert [tab() for _ in TAB_ORDER] == TAB_ORDER
    page.keyboard.press("Enter")
    assert "80 × 96 pixels" in card(page, "a.jpg").locator("dl").inner_text(), "opened"
    t = page.locator("#ff-threshold")
    t.focus()
    was = t.input_value()
    page.keyboard.press("ArrowRight")
    assert t.input_value() != was
    page.wait_for_timeout(200)
    page.get_by_role("button", name="Remove a.jpg").focus()
    page.keyboard.press("Space")
    page.locator(".ff-card").nth(1).wait_for(state="detached")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove b.jpg", (
        "the focus goes to the next card"
    )


EVERY_DRAWING_IS_NAMED_OR_HIDDEN = """() => [...document.querySelectorAll('.ff svg')].every(
  e => e.closest('[aria-hidden=true]') || e.closest('[role=img][aria-label]'))"""
LEVELS_OF_HEADINGS = """() => [...document.querySelectorAll('.ff :is(h1, h2, h3, h4)')]
  .filter(e => !e.closest('[hidden]')).map(e => +e.tagName[1])"""


def test_page_is_named_and_fits(page, bundle):
    upload(page, bundle[1] / "a.jpg", named("x" * 200 + ".jpg", b"no"))
    assert page.evaluate(
        "[...document.querySelectorAll('.ff input:not([type=file])')].every(e => e.labels.length === 1)"
    ), "every field has a label"
    assert page.evaluate(EVERY_DRAWING_IS_NAMED_OR_HIDDEN)
    levels = page.evaluate(LEVELS_OF_HEADINGS)
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert (
        page.locator(".ff-status").get_attribute("aria-live") == "polite"
        and not page.locator(".ff [role=button]").count()
    )
    for width in (390, 320):
        page.set_viewport_size(dict(width=width, height=800))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"nothing sticks out sideways at {width}"
        )
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.locator(f".ff[data-theme={scheme}]").wait_for()
        contrast(page)


CONTRAST = """() => {
  const channel = x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
  const behind = e => {
    const c = e ? rgb(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return (c[3] ?? 1) > .99 ? c : behind(e.parentElement); };
  const ratio = e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => x - y);
    return (b + .05) / (a + .05); };
  const text = e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const all = [...document.querySelectorAll('.ff *')].filter(text);
  return all.map(e => [e.className || e.tagName, ratio(e)]).filter(x => x[1] < 4.5); }"""


def contrast(page):
    "Text against what is behind it: at least 4.5 to 1."
    assert not (low := page.evaluate(CONTRAST)), low


def test_page_without_a_detector_and_its_end(browser, root, tmp_path):
    p, url = serve(root, tmp_path / "log.txt", FAKEFACE_BUNDLE=str(tmp_path / "nothing"))
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        alert = page.get_by_role("alert")
        alert.wait_for(timeout=60_000)
        assert (
            "fakeface demo" in alert.inner_text()
            and not page.get_by_role("button", name="Choose pictures").is_visible()
        )
        page.goto("about:blank")
        for _ in range(50):
            if "Kernel shutdown" in (tmp_path / "log.txt").read_text():
                break
            time.sleep(0.2)
        else:
            pytest.fail("the kernel has outlived its page")
    finally:
        context.close()
        stop(p)


# ---- what a notebook keeps
NOTEBOOK = """
from fakeface.infer.checker import checker, plain_checker
from fakeface.infer.desk import Desk
data = open(PICTURE, "rb").read()
w = checker(BUNDLE); w
#
message = dict(kind="part", id="1", name="a.jpg", part=0, parts=1, size=len(data))
for a in w.desk.handle(message, [memoryview(data)]): w.send(a)
w.desk.summary()
#
desk = Desk(w.desk.detector); plain = plain_checker(desk); up = plain.children[1]
value = dict(name="a.jpg", type="image/jpeg", size=len(data), content=memoryview(data), last_modified=0)
up.set_state(dict(value=[value]))  # as the browser does
assert up.value == () and len(desk.cards) == 1; plain
"""


def test_executed_notebook_holds_no_picture(bundle, root):
    import nbclient
    import nbformat

    code = (
        NOTEBOOK.replace("PICTURE", repr(str(bundle[1] / "a.jpg"))).replace("BUNDLE", repr(str(bundle[0]))).split("#\n")
    )
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c.strip()) for c in code])
    nbclient.NotebookClient(
        nb, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(root / "nbs")}}
    ).execute()
    clean(json.dumps(nb), bundle)
    state = nb.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert {"AnyModel", "FileUploadModel"} <= {m["model_name"] for m in state.values()} and "1 picture: " in nb.cells[
        1
    ].outputs[0]["data"]["text/plain"]


def clean(text, bundle):
    "No piece of a picture, in no way that a notebook could write it."
    data = (bundle[1] / "a.jpg").read_bytes()
    assert "data:image" not in text and "/9j/" not in text, "a JPEG in base64"
    for part in (data[600:680], data[-80:]):
        assert part.hex() not in text and not any(base64.b64encode(part[k : k + 60]).decode() in text for k in range(3))


@pytest.fixture
def lab(bundle, root, tmp_path):
    "JupyterLab in a copy of the notebooks, told to save widgets' state: the worst case. Gives (folder, address)."
    shutil.copytree(root / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    settings = tmp_path / "settings/@jupyter-widgets/jupyterlab-manager"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text('{"saveState": true}')
    port = free_port()
    env = dict(
        FAKEFACE_BUNDLE=str(bundle[0]),
        JUPYTERLAB_SETTINGS_DIR=str(tmp_path / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(tmp_path / "workspaces"),
    )
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=t",
        "--allow-root",
    ]
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    p = subprocess.Popen([*command, f"--ServerApp.root_dir={tmp_path}"], env={**os.environ, **env}, **quiet)
    try:
        wait_for(port, p)
        yield tmp_path, f"http://127.0.0.1:{port}"
    finally:
        stop(p)


def menu(page, name, item):
    page.locator(".lm-MenuBar-item").get_by_text(name, exact=True).first.click()
    page.get_by_text(item, exact=True).first.click()


@pytest.mark.slow
def test_in_jupyterlab(browser, bundle, lab, tmp_path):
    context = browser.new_context(viewport=dict(width=1300, height=1000))
    page = context.new_page()
    wrong = []
    page.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
    page.goto(f"{lab[1]}/lab/tree/nbs/check.ipynb?token=t&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    if page.get_by_role("button", name="Select Kernel").is_visible():
        page.get_by_role("button", name="Select Kernel").click()
    page.get_by_text("| Idle").wait_for(timeout=90_000)
    page.wait_for_timeout(3_000)
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    menu(page, "Run", "Run All Cells")
    page.get_by_role("button", name="Choose pictures").wait_for(timeout=90_000)
    assert not page.locator(".ff h1").count(), "the notebook has a title of its own"
    upload(
        page, bundle[1] / "a.jpg", named(EVIL, (bundle[1] / "b.jpg").read_bytes()), named("broken.jpg", b"\xff\xd8no")
    )
    page.dispatch_event(
        ".ff-drop", "drop", dict(dataTransfer=transfer(page, ("dropped.jpg", (bundle[1] / "c.jpg").read_bytes())))
    )
    settled(page, 4)
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.get_by_role("button", name="Remove all").focus()
    for key in "bx":
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells, (
        "a key pressed on the page is no command to the notebook"
    )
    slide(page, "ff-threshold", 0)
    said(page, "3 generated")
    page.get_by_role("button", name="Heat-map").first.click()
    page.get_by_role("button", name="Hide heat-map").wait_for(timeout=60_000)
    with page.expect_download() as d:
        page.get_by_role("button", name="Save as CSV").click()
    assert len(pd.read_csv(d.value.path())) == 4
    page.keyboard.press("Escape")
    menu(page, "File", "Save Notebook")
    for _ in range(60):
        if "widget-view+json" in (text := (lab[0] / "nbs/check.ipynb").read_text()):
            break
        time.sleep(0.5)
    page.screenshot(path=str(tmp_path / "lab.png"))
    context.close()
    assert "widget-view+json" in text and "vnd.jupyter.widget-state+json" in text, "the worst case was really tried"
    clean(text, bundle)
    assert not wrong
