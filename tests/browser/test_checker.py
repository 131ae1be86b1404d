"The checker in a real browser: as a page of its own and, slowly, in JupyterLab. And what a saved notebook holds."

import base64
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from fakeface.models.bundle import Bundle
from fakeface.core.seeds import rng
from fakeface.images.jpeg import jpeg_bytes
from fakeface.testing.credentials import manifest, signatory, signed
from fakeface.testing.images import image_bytes

HEADS = {"real": "Looks like a photograph", "fake": "Looks generated", "unsure": "Unsure"}
EVIL = "<img src=x onerror=alert(1)>.jpg"
TOKEN = "t"  # of JupyterLab
for name in ("voila", "anywidget"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")


class Given(NamedTuple):
    "What a person has: a detector and images."

    folder: Path  # of the detector's bundle
    images: Path  # folder of a.jpg, b.jpg, c.jpg
    detector: object
    sure: Path  # of the same without an unsure range


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    "A tiny untrained detector whose threshold lies between two of three images."
    from fakeface.images.decode import open_image
    from fakeface.images.preprocess import eval_views
    from fakeface.infer.detector import Detector
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model
    import torch

    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("checker")
    images = home / "pictures"
    images.mkdir()
    for i, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        pixels = rng("checker", i).normal(128, 25 * (i + 1), (96, 80, 3)).clip(0, 255).astype(np.uint8)
        (images / name).write_bytes(jpeg_bytes(Image.fromarray(pixels), 90))
    model = build_model("test_resnet", weights=None, size=32)

    def make(name, **fields):
        # noise shows no face: it is judged whole
        about = dict(domains=["noise"], framing="centre", limits={"least_side": 1}) | fields
        save_model(model, home / name, Bundle(name, "test_resnet", model.spec, **about))
        return Detector.load(home / name)

    probe = make("probe")
    log_odds = []
    for path in sorted(images.glob("*.jpg")):
        real, fake = probe.logits(eval_views(open_image(path), model.spec))[0]
        log_odds.append(float(fake - real))
    temperature = float(np.std(log_odds))
    bias = -float(np.mean(log_odds)) / temperature
    scores = sorted(1 / (1 + np.exp(-(value / temperature + bias))) for value in log_odds)
    cut = (scores[0] + scores[1]) / 2
    detector = make(
        "tiny",
        temperature=temperature,
        bias=bias,
        thresholds={"youden": cut, "0.5": 0.5},
        threshold="youden",
        band=[cut - 0.01, cut + 0.01],
    )
    make("sure", temperature=temperature, bias=bias, thresholds={"youden": cut}, threshold="youden")
    return Given(home / "tiny", images, detector, home / "sure")


def wait_for(port, process, seconds=60):
    "Wait until a server answers."
    for _ in range(seconds * 5):
        if process.poll() is not None:
            raise RuntimeError("the server has ended")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


SERVE = """
import sys
from pathlib import Path
from fakeface.infer.page import PageSettings
from fakeface.infer.server import serve_page
settings = dict(SETTINGS)
if "paths" in settings:
    settings["paths"] = Path(settings["paths"])
serve_page(PageSettings(port=0, **settings), lambda address: print(address, flush=True))
"""


def serve(log, **settings):
    "The checker's page, told `settings`; gives (process, address with the token)."
    command = [sys.executable, "-c", SERVE.replace("SETTINGS", repr(settings))]
    with open(log, "w") as file:
        streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, text=True)
        process = subprocess.Popen(command, **streams)
    address = process.stdout.readline().strip()
    assert address, log.read_text()
    return process, address


def stop(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def refuse_dialogs(page, noted):
    "Close every dialog that a page opens, and note what it said."

    def dismiss(dialog):
        noted.append(f"dialog {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismiss)


@pytest.fixture(scope="module")
def opened(browser, bundle, tmp_path_factory):
    "The page, once for all tests; in the end: no dialog, no script error, nothing refused, nothing from elsewhere."
    log = tmp_path_factory.mktemp("voila") / "log.txt"
    process, url = serve(log, bundle=str(bundle.folder), upload_mb=3, paths=str(bundle.images.parent))
    context = browser.new_context(viewport=dict(width=1200, height=900), accept_downloads=True)
    page = context.new_page()
    wrong = []
    asked = []
    refuse_dialogs(page, wrong)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("requestfinished", lambda request: asked.append(request.url))
    # from now on, so that none opens before somebody listens
    page.on("filechooser", lambda chooser: None)
    try:
        page.goto(url)
        page.get_by_role("button", name="Choose images").wait_for(timeout=60_000)
        yield page
        assert not wrong, wrong
        own = url.split("?")[0]  # the server's; the page is below it
        elsewhere = [address for address in asked if not address.startswith((own, "data:", "blob:"))]
        assert not elsewhere, "something was fetched from elsewhere"
        assert "Traceback" not in log.read_text()
    finally:
        context.close()
        stop(process)


@pytest.fixture
def page(opened):
    "The page without cards."
    opened.set_viewport_size(dict(width=1200, height=900))
    if opened.locator(".ff-card").count():
        opened.get_by_role("button", name="Remove all").click()
        opened.locator(".ff-card").first.wait_for(state="detached")
    opened.get_by_role("button", name="balanced (stored)").click()
    return opened


def upload(page, *files):
    "Through the file chooser: paths, or what `named` gives."
    before = page.locator(".ff-card").count()
    given = [file if isinstance(file, dict) else named(file.name, file.read_bytes()) for file in files]
    page.locator(".ff input[type=file]").set_input_files(given)
    settled(page, before + len(files))


def named(name, data):
    return dict(name=name, mimeType="image/jpeg", buffer=data)


def settled(page, count):
    "Wait until so many cards are there, and no more are on their way."
    page.locator(".ff-card[data-state=done]").nth(count - 1).wait_for(timeout=120_000)
    page.locator(".ff-cards[aria-busy=false]").wait_for()
    assert page.locator(".ff-card").count() == count


def card(page, name):
    label = page.locator(".ff-name", has_text=re.compile(f"^{re.escape(name)}$"))
    return page.locator(".ff-card").filter(has=label)


def all_of(page, selector, condition):
    "Whether a condition in JavaScript holds for `e`, each element of a page that fits a selector."
    return page.evaluate(f"[...document.querySelectorAll('{selector}')].every(e => {condition})")


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
  const transfer = new DataTransfer();
  const bytes = base64 => Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
  for (const [name, base64] of files) transfer.items.add(new File([bytes(base64)], name, { type: 'image/jpeg' }));
  return transfer; }"""


def transfer(page, *files):
    "Files, each (name, bytes), as the browser hands them over when they are dropped or pasted."
    return page.evaluate_handle(FILES, [[name, base64.b64encode(data).decode()] for name, data in files])


# ---- the page
def test_page_says_what_it_is_and_what_it_keeps(page, bundle):
    text = page.locator(".ff").inner_text()
    promises = ["Nothing is stored and nothing is sent", "Up to 3 MB per image", "not proof", "trained on noise"]
    for words in (*promises, bundle.detector.hash[:12]):
        assert words in text
    assert page.title() == "fakeface: is this face a photograph?"
    assert page.locator("h1:visible").count() == 1 and page.locator(".ff-empty").is_visible()
    assert page.get_by_role("main").locator(".ff").count() == 1, "a screen reader's way to the content"
    assert page.url.endswith("/") and "token" not in page.url, "the token does not stay in the address bar"
    answer = page.request.get(page.url, headers={"Host": "evil.example"})
    assert answer.status == 403, "a page elsewhere that resolves to this computer is refused"


def shows_the_verdict(shown, name, verdict):
    "A card has the same number as the library gives, in words, as a bar, and the image."
    assert shown.locator(".ff-score").inner_text() == f"score {verdict.p_fake:.3f}"
    assert shown.locator(".ff-body > .ff-verdict").inner_text() == HEADS[verdict.label]
    low, high = verdict.stability["low"], verdict.stability["high"]
    assert f"between {low:.3f} and {high:.3f}" in shown.inner_text()
    assert f"Score {verdict.p_fake:.3f} on a scale" in shown.locator("svg.ff-bar").get_attribute("aria-label")
    image = shown.locator("img")
    assert image.get_attribute("src").startswith("data:image/jpeg;base64,")
    assert name in image.get_attribute("alt")


def test_three_files_one_broken(page, bundle):
    data = (bundle.images / "a.jpg").read_bytes()
    upload(page, bundle.images / "a.jpg", named("broken.jpg", data[: len(data) // 2]), bundle.images / "b.jpg")
    broken = card(page, "broken.jpg")
    assert "Not checked" in broken.inner_text() and "cannot be decoded" in broken.inner_text().lower()
    for name in ("a.jpg", "b.jpg"):
        shows_the_verdict(card(page, name), name, bundle.detector.check(bundle.images / name, stability=True))
    said(page, "3 images:")
    said(page, "1 not checked")
    drawn = page.locator(".ff-verdict .ff-shape")
    shapes = {words: drawn.nth(i).get_attribute("d") for i, words in enumerate(verdicts(page))}
    assert len(set(shapes.values())) == len(shapes) >= 2, "verdicts differ in shape, not only in colour"


def listening(process):
    "The ports on which a process and all that it has started wait for connections."
    found = [each for one in (process, *process.children(recursive=True)) for each in one.net_connections("inet")]
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


def test_there_is_no_port_but_the_pages_after_an_image_was_checked(page, bundle):
    upload(page, bundle.images / "a.jpg")
    port = urlsplit(page.url).port
    (ports,) = [found for child in psutil.Process().children() if port in (found := listening(child))]
    assert ports == {port}


PASTE = """transfer => document.dispatchEvent(
  new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true }))"""


def test_drop_and_paste(page, bundle):
    data = (bundle.images / "a.jpg").read_bytes()
    files = transfer(page, ("dropped.jpg", data), ("too.jpg", data))
    for event in ("dragover", "drop"):
        page.dispatch_event(".ff-drop", event, dict(dataTransfer=files))
    settled(page, 2)
    assert page.locator(".ff-name").all_inner_texts() == ["dropped.jpg", "too.jpg"]
    assert not page.locator(".ff-over").count()
    page.evaluate(PASTE, transfer(page, ("image.png", data)))
    settled(page, 3)
    assert re.fullmatch(r"pasted image \d+\.png", page.locator(".ff-name").nth(2).inner_text())


def test_path_and_folder(page, bundle, tmp_path):
    field = page.get_by_label(f"Or a file or folder below {bundle.images.parent.name}")
    field.fill("pictures")
    field.press("Enter")
    settled(page, 3)
    assert page.locator(".ff-name").all_inner_texts() == ["a.jpg", "b.jpg", "c.jpg"]
    for outside in (bundle.images / "none.jpg", tmp_path, "../..", "/etc/passwd"):
        field.fill(str(outside))
        page.get_by_role("button", name="Check", exact=True).click()
        said(page, "There is no file or folder of this name below the folder that this page may read.")
        page.get_by_role("button", name="balanced (stored)").click()
    field.fill("tiny")
    field.press("Enter")
    said(page, "There is no image in tiny.")
    assert str(bundle.images.parent) not in page.locator(".ff").inner_text()


def test_too_big_is_refused_and_large_is_cut_in_pieces(page):
    noise = rng("noise").integers(0, 256, (900, 900, 3), dtype=np.uint8)
    large = image_bytes(Image.fromarray(noise), "BMP")
    assert 2 * 2**20 < len(large) < 3 * 2**20, "three pieces"
    bad = [
        ("huge.jpg", bytes(3 * 2**20 + 1), "up to 3 MB per image"),
        ("empty.jpg", b"", "is empty (0 bytes)"),
        ("zip.jpg", b"PK\3\4" + bytes(99), "is not an image"),
    ]
    upload(page, named("large.bmp", large), *[named(name, data) for name, data, _ in bad])
    assert card(page, "large.bmp").locator(".ff-score").count() == 1
    for name, _, why in bad:
        assert why in card(page, name).inner_text().replace("Is ", "is ")


def test_sliders_move_labels_not_scores(page, bundle):
    upload(page, *sorted(bundle.images.glob("*.jpg")))
    scores = page.locator(".ff-score").all_inner_texts()
    before = verdicts(page)
    summary = page.locator(".ff-status").inner_text()
    # below the band a threshold changes nothing, above it makes unsure what was generated; never a photograph
    slide(page, "ff-threshold", 0)
    page.locator("#ff-note", has_text="has been moved").wait_for()
    assert verdicts(page) == before
    slide(page, "ff-threshold", 1)
    said(page, "2 unsure")
    page.locator(".ff-key", has_text="Looks generated: a score of 1.000 or more").wait_for()
    assert sorted(verdicts(page)) == sorted([HEADS["real"], HEADS["unsure"], HEADS["unsure"]])
    assert page.locator("#ff-threshold").get_attribute("aria-valuetext") == "1.000"
    assert "has been moved" in page.locator("#ff-note").inner_text()
    stored = page.get_by_role("button", name="balanced (stored)")
    assert stored.get_attribute("title").startswith("youden = "), "the technical name is in the tooltip"
    stored.click()
    said(page, summary)
    assert verdicts(page) == before
    slide(page, "ff-prior", 3)
    page.locator(".ff-prior", has_text="If 1% of the images").nth(2).wait_for()
    assert verdicts(page) == before and page.locator(".ff-score").all_inner_texts() == scores
    slide(page, "ff-prior", 9)


def test_heatmap_goes_on_and_off(page, bundle):
    upload(page, bundle.images / "a.jpg")
    small = page.locator(".ff-pic img").get_attribute("src")
    page.get_by_role("button", name="Heat-map").click()
    off = page.get_by_role("button", name="Hide heat-map")
    off.wait_for(timeout=60_000)
    assert off.get_attribute("aria-pressed") == "true" and page.locator(".ff-pic img").get_attribute("src") != small
    assert page.evaluate("document.activeElement.textContent") == "Hide heat-map", "the focus stays on the button"
    label = bundle.detector.check(bundle.images / "a.jpg").label
    spoken_for = "a photograph" if label == "real" else "a generated image"
    assert page.get_by_text(f"what speaks for {spoken_for}").is_visible()
    off.click()
    assert page.locator(".ff-pic img").get_attribute("src") == small
    assert page.get_by_role("button", name="Heat-map").get_attribute("aria-pressed") == "false"


def test_csv_holds_what_the_cards_show(page, bundle):
    path = bundle.images / "a.jpg"
    upload(page, path, named("=cmd()|x.jpg", b"no"), named(EVIL, (bundle.images / "b.jpg").read_bytes()))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "fakeface.csv"
    rows = pd.read_csv(download.value.path(), keep_default_na=False)
    assert list(rows["name"]) == ["a.jpg", "./=cmd()|x.jpg", EVIL]
    assert rows["label"][1] == "" and rows["error"][1]
    assert float(rows["p_fake"][0]) == bundle.detector.check(path).p_fake
    assert set(rows["bundle_hash"]) == {bundle.detector.hash}


def test_names_are_text(page, bundle):
    data = (bundle.images / "a.jpg").read_bytes()
    names = [EVIL, "<script>alert(2)<script>.jpg", '"><svg onload=alert(3)>.jpg', "x\u202egpj.exe.jpg"]
    upload(page, *[named(name, data) for name in names], named(EVIL, b"not an image"))
    page.get_by_role("button", name="Heat-map").first.click()
    page.wait_for_timeout(300)
    assert page.locator(".ff-name").all_inner_texts()[:3] == names[:3]
    assert "\u202e" not in page.locator(".ff").inner_text()
    assert all_of(page, ".ff img", "e.src.startsWith('data:image/jpeg;base64,')")
    assert not page.locator(".ff script, .ff [onerror], .ff [onload]").count()


def test_what_a_file_says_stands_before_its_score(page, bundle):
    data = (bundle.images / "a.jpg").read_bytes()
    by = signatory("<b onclick=alert(4)>Studio</b>")
    upload(page, named("bare.jpg", data), named("signed.jpg", signed(data, manifest(tool=EVIL), by)))
    bare, claimed = page.locator(".ff-card").all()
    assert not bare.locator(".ff-says").count()
    says = claimed.locator(".ff-says")
    assert "made by a trained algorithm" in says.inner_text() and "<b onclick=alert(4)>Studio</b>" in says.inner_text()
    tops = [claimed.locator(part).bounding_box()["y"] for part in (".ff-name", ".ff-says", ".ff-body > .ff-verdict")]
    assert tops == sorted(tops), "name, what the file says, verdict"
    assert claimed.locator(".ff-score").inner_text() == bare.locator(".ff-score").inner_text()
    assert not page.locator(".ff b, .ff-says img").count()


# ids, keys, or the first eight letters of what has the focus
TAB_ORDER = [
    "ff-path",
    "Check",
    "Settings",
    "ff-threshold",
    "balanced",
    "even odd",
    "ff-prior",
    "ff-faces",
    "ff-stability",
]
TAB_ORDER += ["Save as ", "Remove a", "heat 0", "facts"]


def test_keyboard_only(page, bundle):
    def tab():
        page.keyboard.press("Tab")
        return page.evaluate("(e => e.id || e.dataset.key || e.textContent.trim().slice(0, 8))(document.activeElement)")

    page.get_by_role("button", name="Choose images").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(bundle.images / "a.jpg"), str(bundle.images / "b.jpg")])
    settled(page, 2)
    page.get_by_role("button", name="Choose images").focus()
    assert [tab() for _ in TAB_ORDER] == TAB_ORDER
    page.keyboard.press("Enter")
    assert "80 × 96 pixels" in card(page, "a.jpg").locator("dl").inner_text(), "opened"
    slider = page.locator("#ff-threshold")
    slider.focus()
    before = slider.input_value()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() != before
    page.wait_for_timeout(200)
    page.get_by_role("button", name="Remove a.jpg").focus()
    page.keyboard.press("Space")
    page.locator(".ff-card").nth(1).wait_for(state="detached")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "Remove b.jpg", "the focus goes to the next card"


LEVELS_OF_HEADINGS = """() => [...document.querySelectorAll('.ff :is(h1, h2, h3, h4)')]
  .filter(e => !e.closest('[hidden]')).map(e => +e.tagName[1])"""


def test_page_is_named_and_fits(page, bundle):
    upload(page, bundle.images / "a.jpg", named("x" * 200 + ".jpg", b"no"))
    assert all_of(page, ".ff input:not([type=file])", "e.labels.length === 1"), "every field has a label"
    named_or_hidden = "e.closest('[aria-hidden=true]') || e.closest('[role=img][aria-label]')"
    assert all_of(page, ".ff svg", named_or_hidden), "so has every drawing, or it is hidden from readers"
    levels = page.evaluate(LEVELS_OF_HEADINGS)
    assert levels[0] == 1 and all(below - above <= 1 for above, below in zip(levels, levels[1:]))
    assert page.locator(".ff-status").get_attribute("aria-live") == "polite"
    assert not page.locator(".ff [role=button]").count()
    for width in (390, 320):
        page.set_viewport_size(dict(width=width, height=800))
        fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert fits, f"nothing sticks out sideways at {width}"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.locator(f".ff[data-theme={scheme}]").wait_for()
        text_stands_out(page)


FAINT_TEXTS = """() => {
  const channel = x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => .2126 * channel(red) + .7152 * channel(green) + .0722 * channel(blue);
  const behind = e => {
    const color = e ? numbers(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return (color[3] ?? 1) > .99 ? color : behind(e.parentElement); };
  const contrast = e => {
    const text = light(numbers(getComputedStyle(e).color)), ground = light(behind(e));
    return (Math.max(text, ground) + .05) / (Math.min(text, ground) + .05); };
  const isText = node => node.nodeType === 3 && node.textContent.trim();
  const holdsText = e => e.checkVisibility() && [...e.childNodes].some(isText);
  const texts = [...document.querySelectorAll('.ff *')].filter(holdsText);
  return texts.map(e => [e.className || e.tagName, contrast(e)]).filter(found => found[1] < 4.5); }"""


def text_stands_out(page):
    "Text against what is behind it: at least 4.5 to 1."
    faint = page.evaluate(FAINT_TEXTS)
    assert not faint, faint


def test_page_without_a_detector_and_its_end(browser, tmp_path):
    log = tmp_path / "log.txt"
    process, url = serve(log, bundle=str(tmp_path / "nothing"))
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        alert = page.get_by_role("alert")
        alert.wait_for(timeout=60_000)
        assert "fakeface demo" in alert.inner_text() and str(tmp_path) not in alert.inner_text()
        assert not page.get_by_role("button", name="Choose images").is_visible()
        page.goto("about:blank")
        for _ in range(300):
            if "Kernel shutdown" in log.read_text():
                break
            time.sleep(0.2)
        else:
            pytest.fail("the kernel has outlived its page")
    finally:
        context.close()
        stop(process)


def kernel_of(page):
    "The process id of a page's kernel."
    kernel = json.loads(page.locator("#jupyter-config-data").text_content())["kernelId"]
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"kernel-{kernel}.json" in (folder / "cmdline").read_text():
                return int(folder.name)
    pytest.fail("the kernel is not there")


@pytest.fixture
def own(browser, bundle, tmp_path):
    "A page of a server of its own, to be broken; gives (page, process of the server)."
    process, url = serve(tmp_path / "log.txt", bundle=str(bundle.folder), sessions=1)
    context = browser.new_context(viewport=dict(width=390, height=800))
    page = context.new_page()
    try:
        page.goto(url)
        page.get_by_role("button", name="Choose images").wait_for(timeout=60_000)
        yield page, process
    finally:
        context.close()
        stop(process)


def test_a_heatmap_goes_with_the_word_that_it_is_for(browser, bundle, tmp_path):
    "Without an unsure range the slider turns the word; the map was of what speaks for the other one."
    process, url = serve(tmp_path / "log.txt", bundle=str(bundle.sure), sessions=1)
    context = browser.new_context()
    page = context.new_page()
    try:
        page.goto(url)
        upload(page, bundle.images / "a.jpg")
        for threshold, spoken_for in ((0, "a generated image"), (1, "a photograph")):
            slide(page, "ff-threshold", threshold)
            page.get_by_role("button", name="Hide heat-map").wait_for(state="detached")
            page.get_by_role("button", name="Heat-map").click()
            page.get_by_text(f"what speaks for {spoken_for}").wait_for(timeout=60_000)
    finally:
        context.close()
        stop(process)


ONE_CARD = """() => {
  const parse = JSON.parse;
  JSON.parse = (...given) => {
    const value = parse(...given), told = value?.data?.content ?? value?.content?.data?.content;
    if (told?.kind === 'state') told.limits.cards = 1;
    return value;
  };
}"""
NO_STATE = ONE_CARD.replace("told.limits.cards = 1", "told.kind = 'nothing'")
EARLY = """files => new MutationObserver((_, watch) => {
  if (!document.querySelector('.ff')) return;
  watch.disconnect();
  const transfer = FILES;
  document.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer(files), cancelable: true }));
}).observe(document, { childList: true, subtree: true })"""


@contextlib.contextmanager
def dropped_early(browser, bundle, tmp_path, script):
    "A page on which early.jpg is dropped as it appears, before its program has said a word; `script` runs before both."
    process, url = serve(tmp_path / "log.txt", bundle=str(bundle.folder), sessions=1)
    context = browser.new_context()
    page = context.new_page()
    data = base64.b64encode((bundle.images / "a.jpg").read_bytes()).decode()
    page.add_init_script(f"({EARLY.replace('FILES', FILES)})({json.dumps([['early.jpg', data]])})")
    page.add_init_script(f"({script})()")
    try:
        page.goto(url)
        yield page
    finally:
        context.close()
        stop(process)


def test_an_image_dropped_while_the_page_starts_is_judged(browser, bundle, tmp_path):
    "What was dropped before the program had spoken was lost."
    with dropped_early(browser, bundle, tmp_path, ONE_CARD) as page:
        page.get_by_role("button", name="Choose images").wait_for(timeout=60_000)
        settled(page, 1)
        assert card(page, "early.jpg").locator(".ff-score").count() == 1
        # full, as with 300 images
        another = transfer(page, ("another.jpg", (bundle.images / "b.jpg").read_bytes()))
        page.dispatch_event(".ff-drop", "drop", dict(dataTransfer=another))
        said(page, "Remove some; to check whole folders")
        assert page.locator(".ff-card").count() == 1


def test_an_image_dropped_while_the_page_starts_is_named_where_it_never_does(browser, bundle, tmp_path):
    "What the program says first does not arrive, and it is killed."
    with dropped_early(browser, bundle, tmp_path, NO_STATE) as page:
        page.locator(".ff-head").wait_for(timeout=60_000)
        os.kill(kernel_of(page), signal.SIGKILL)
        farewell = page.get_by_role("alert").filter(has_text="has ended")
        farewell.wait_for(timeout=20_000)
        assert "Not judged: early.jpg" in farewell.inner_text()


def test_page_says_when_its_kernel_has_died(own, bundle):
    page, _ = own
    upload(page, bundle.images / "a.jpg")
    pid = kernel_of(page)
    # stopped first, so that two images wait for certain
    os.kill(pid, signal.SIGSTOP)
    data = (bundle.images / "b.jpg").read_bytes()
    page.locator(".ff input[type=file]").set_input_files([named("b.jpg", data), named(EVIL, data)])
    page.locator(".ff-card").nth(2).wait_for()
    os.kill(pid, signal.SIGKILL)
    farewell = page.get_by_role("alert").filter(has_text="has ended")
    farewell.wait_for(timeout=20_000)
    assert f"Not judged: b.jpg, {EVIL}" in farewell.inner_text()
    assert card(page, "a.jpg").locator(".ff-score").count() == 1, "what was judged stays"
    for name in ("b.jpg", EVIL):
        assert "ended before this image was judged" in card(page, name).inner_text()
    assert page.locator(".ff-cards[aria-busy=false]").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    farewell.get_by_role("button", name="Reload the page").click()
    page.locator(".ff-empty").wait_for(timeout=60_000)
    upload(page, bundle.images / "b.jpg")
    page.reload()
    page.locator(".ff-empty").wait_for(timeout=60_000)


@contextlib.contextmanager
def held_up(page):
    "The program behind a page waits: what is done here is done while it is busy."
    pid = kernel_of(page)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def switch(page, id):
    "Move a switch of the settings, whether they are open or not."
    page.evaluate("id => document.getElementById(id).click()", id)


def saved_rows(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    return pd.read_csv(download.value.path(), keep_default_na=False)


def test_a_switch_moved_while_an_image_is_judged_is_of_that_image_too(own, bundle):
    page, _ = own
    upload(page, bundle.images / "c.jpg")
    with held_up(page):
        page.locator(".ff input[type=file]").set_input_files([bundle.images / "a.jpg", bundle.images / "b.jpg"])
        card(page, "a.jpg").and_(page.locator("[data-state=working]")).wait_for()
        switch(page, "ff-stability")
        assert not card(page, "c.jpg").locator(".ff-score").count(), "a verdict of before is not shown"
        said(page, "Checking: 0 of 3 done")
    settled(page, 3)
    assert "Re-saved and rescaled, its score" not in page.locator(".ff-cards").inner_text()
    assert set(saved_rows(page)["settings"]) == {"the middle of the whole image; without re-saved and rescaled copies"}
    with held_up(page):
        for _ in range(3):
            switch(page, "ff-stability")
    settled(page, 3)
    assert page.locator(".ff-cards").inner_text().count("Re-saved and rescaled, its score") == 3
    assert page.locator("#ff-stability").is_checked() and "earlier setting" not in page.locator(".ff").inner_text()


LARGE = """([names, base64, size]) => {
  const transfer = new DataTransfer();
  const image = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
  for (const name of names) transfer.items.add(new File([image, new Uint8Array(size)], name, { type: 'image/jpeg' }));
  return transfer; }"""


@pytest.mark.slow
def test_verdict_of_an_earlier_setting_says_so_if_its_image_is_no_longer_in_memory(own, bundle):
    page, _ = own
    data = base64.b64encode((bundle.images / "a.jpg").read_bytes()).decode()
    names = [f"{i}.jpg" for i in range(5)]
    # the page keeps 256 MB
    files = page.evaluate_handle(LARGE, [names, data, 60 * 2**20])
    page.dispatch_event(".ff-drop", "drop", dict(dataTransfer=files))
    settled(page, 5)
    switch(page, "ff-stability")
    settled(page, 5)
    marked = [name for name in names if "Judged with an earlier setting" in card(page, name).inner_text()]
    assert marked == ["0.jpg"] and "no longer in memory" in card(page, "0.jpg").inner_text()
    said(page, "1 image was judged with an earlier setting.")
    rows = saved_rows(page)
    tested = rows["settings"] == "the middle of the whole image; with re-saved and rescaled copies"
    assert list(rows["name"][tested]) == list(rows["name"][rows["stable_low"] != ""]) == marked
    switch(page, "ff-stability")
    settled(page, 5)
    assert "earlier setting" not in page.locator(".ff").inner_text()


VIEWS = """async ([script, count]) => {
  const { default: widget } = await import(`data:text/javascript;base64,${script}`);
  const hear = [];
  for (let i = 0; i < count; i++) {
    const el = document.body.appendChild(document.createElement('div'));
    const send = async message => { for (const answer of await ask(message)) for (const view of hear) view(answer); };
    widget.render({ model: { on: (_, view) => hear.push(view), off() {}, send }, el });
  } }"""


def test_two_views_of_the_same_cards_show_the_same_switches(browser, bundle, root):
    "As JupyterLab opens them; what one view switches, the other shows."
    from fakeface.infer.desk import Desk

    desk = Desk(bundle.detector)
    data = (bundle.images / "a.jpg").read_bytes()
    desk.handle(dict(kind="part", id="a", name="a.jpg", part=0, parts=1), [data])
    page = browser.new_page()
    asked = []

    def ask(message):
        asked.append(message["kind"])
        return json.loads(json.dumps(desk.handle(message)))

    page.expose_function("ask", ask)
    script = base64.b64encode((root / "fakeface/static/checker.js").read_bytes()).decode()
    page.evaluate(VIEWS, [script, 2])
    switches = page.locator("#ff-stability")
    page.locator(".ff-card[data-state=done]").nth(1).wait_for()
    assert switches.count() == 2 and switches.nth(0).is_checked() and switches.nth(1).is_checked()
    switches.nth(0).click()
    page.locator(".ff-cards[aria-busy=false]").nth(1).wait_for()
    page.wait_for_timeout(500)
    assert not switches.nth(0).is_checked() and not switches.nth(1).is_checked()
    assert "Re-saved and rescaled, its score" not in page.locator("body").inner_text()
    assert asked.count("again") <= 2, "it ends"
    page.close()


def test_an_image_removed_while_it_is_uploaded_does_not_come_back(own, bundle):
    page, _ = own
    noise = rng("noise").integers(0, 256, (900, 900, 3), dtype=np.uint8)
    large = named("large.bmp", image_bytes(Image.fromarray(noise), "BMP"))
    with held_up(page):
        page.locator(".ff input[type=file]").set_input_files([large])
        card(page, "large.bmp").and_(page.locator("[data-state=working]")).wait_for()
        page.wait_for_timeout(500)
        card(page, "large.bmp").get_by_role("button", name="Remove").click()
    page.locator(".ff-card").wait_for(state="detached")
    upload(page, bundle.images / "b.jpg")
    assert page.locator(".ff-name").all_inner_texts() == ["b.jpg"]


def test_a_file_that_went_before_it_was_read_is_not_only_called_empty(own, bundle, tmp_path):
    page, _ = own
    file = tmp_path / "went.jpg"
    file.write_bytes((bundle.images / "a.jpg").read_bytes())
    with held_up(page):
        page.locator(".ff input[type=file]").set_input_files([bundle.images / "b.jpg", file])
        card(page, "b.jpg").and_(page.locator("[data-state=working]")).wait_for()
        file.unlink()
    settled(page, 2)
    assert "no longer exists" in card(page, "went.jpg").inner_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_page_says_when_its_server_has_gone_and_sends_nothing_to_who_takes_its_port(own, bundle, how):
    "Another account of the machine may wait for the port; Jupyter's client would open its connection again, to anyone."
    page, process = own
    upload(page, bundle.images / "a.jpg")
    process.send_signal(how)
    process.wait(60)
    port = int(page.evaluate("location.port"))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        other.settimeout(0.1)
        farewell = page.get_by_role("alert").filter(has_text="The connection to the program behind this page has ended")
        farewell.wait_for(timeout=20_000)
        page.locator(".ff input[type=file]").set_input_files(bundle.images / "b.jpg")
        page.wait_for_timeout(8_000)
        with pytest.raises(TimeoutError):
            other.accept()
    assert page.locator(".ff-card").count() == 1


FOREIGN = """<!DOCTYPE html><title>elsewhere</title><img src="URL"><script>
const heard = [];
const note = what => { heard.push(what); document.title = heard.join(" "); };
fetch("URL").then(r => r.text()).then(text => note(`read ${text.length}`), () => note("refused"));
const socket = new WebSocket("URL".replace("http", "ws") + "api/kernels/x/channels");
socket.onopen = () => note("open"); socket.onerror = () => note("closed");
const frame = document.createElement("iframe"); frame.src = "URL"; document.body.append(frame);
</script>"""


@pytest.fixture
def neighbour():
    "A server of another user's on this machine: what it sends is `page`; gives (address, cookies that it was sent)."
    cookies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        page = ""

        def do_GET(self):
            cookies.append(self.headers.get("Cookie"))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(self.page.encode())

        def log_message(self, format, *args):
            "Nothing is printed."

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", Handler, cookies
    server.shutdown()
    server.server_close()


def test_another_page_reads_and_starts_nothing(own, neighbour, tmp_path):
    page, _ = own
    # the same host, which is the same site to the browser
    address, handler, cookies = neighbour
    handler.page = FOREIGN.replace("URL", page.url)
    window = page.context.new_page()
    window.goto(address)
    window.wait_for_function("document.title.split(' ').length >= 2")
    window.wait_for_timeout(1000)
    assert sorted(window.title().split()) == ["closed", "refused"]
    # a link there leads to a refusal, cookie or not
    window.evaluate(f"location.href = '{page.url}'")
    window.wait_for_url(page.url)
    assert "comes from another page" in window.locator("body").inner_text()
    assert cookies and not any(cookies), "the token goes to no other port"
    assert started(tmp_path) == ["Kernel started"]


def started(tmp_path):
    return re.findall("Kernel started", (tmp_path / "log.txt").read_text())


# ---- what a notebook keeps
NOTEBOOK = """
from fakeface.infer.checker import checker, plain_checker
from fakeface.infer.desk import Desk
data = open(PICTURE, "rb").read()
page = checker(BUNDLE)
page
#
message = dict(kind="part", id="1", name="a.jpg", part=0, parts=1, size=len(data))
for answer in page.desk.handle(message, [memoryview(data)]):
    page.send(answer)
page.desk.summary()
#
desk = Desk(page.desk.detector)
plain = plain_checker(desk)
upload = plain.children[1]
value = dict(name="a.jpg", type="image/jpeg", size=len(data), content=memoryview(data), last_modified=0)
upload.set_state(dict(value=[value]))  # as the browser does
assert upload.value == () and len(desk.cards) == 1
plain
"""


def test_executed_notebook_holds_no_picture(bundle, root):
    import nbclient
    import nbformat

    code = NOTEBOOK.replace("PICTURE", repr(str(bundle.images / "a.jpg"))).replace("BUNDLE", repr(str(bundle.folder)))
    cells = [nbformat.v4.new_code_cell(part.strip()) for part in code.split("#\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(root / "nbs")}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    holds_no_picture(json.dumps(notebook), bundle)
    state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert {"AnyModel", "FileUploadModel"} <= {widget["model_name"] for widget in state.values()}
    assert "1 image: " in notebook.cells[1].outputs[0]["data"]["text/plain"]


def holds_no_picture(text, bundle):
    "No piece of an image, in no way that a notebook could write it."
    data = (bundle.images / "a.jpg").read_bytes()
    assert "data:image" not in text and "/9j/" not in text, "a JPEG in base64"
    for part in (data[600:680], data[-80:]):
        assert part.hex() not in text
        # base64 writes three bytes at a time: a piece looks different from each of three starts
        assert not any(base64.b64encode(part[start : start + 60]).decode() in text for start in range(3))


@pytest.fixture
def lab(bundle, root, tmp_path):
    "JupyterLab in a copy of the notebooks, told to save widgets' state: the worst case. Gives (folder, address)."
    shutil.copytree(root / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    settings = tmp_path / "settings/@jupyter-widgets/jupyterlab-manager"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text('{"saveState": true}')
    port = free_port()
    env = dict(
        FAKEFACE_BUNDLE=str(bundle.folder),
        JUPYTERLAB_SETTINGS_DIR=str(tmp_path / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(tmp_path / "workspaces"),
    )
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    command = [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={tmp_path}"]
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(command, env={**os.environ, **env}, **quiet)
    try:
        wait_for(port, process)
        yield tmp_path, f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def menu(page, name, item):
    page.locator(".lm-MenuBar-item").get_by_text(name, exact=True).first.click()
    page.get_by_text(item, exact=True).first.click()


@pytest.mark.slow
def test_in_jupyterlab(browser, bundle, lab, tmp_path):
    project, address = lab
    context = browser.new_context(viewport=dict(width=1300, height=1000))
    page = context.new_page()
    wrong = []
    refuse_dialogs(page, wrong)
    page.goto(f"{address}/lab/tree/nbs/check.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    if page.get_by_role("button", name="Select Kernel").is_visible():
        page.get_by_role("button", name="Select Kernel").click()
    page.get_by_text("| Idle").wait_for(timeout=90_000)
    page.wait_for_timeout(3_000)
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    menu(page, "Run", "Run All Cells")
    page.get_by_role("button", name="Choose images").wait_for(timeout=90_000)
    assert not page.locator(".ff h1").count(), "the notebook has a title of its own"
    with_an_evil_name = named(EVIL, (bundle.images / "b.jpg").read_bytes())
    upload(page, bundle.images / "a.jpg", with_an_evil_name, named("broken.jpg", b"\xff\xd8no"))
    dropped = transfer(page, ("dropped.jpg", (bundle.images / "c.jpg").read_bytes()))
    page.dispatch_event(".ff-drop", "drop", dict(dataTransfer=dropped))
    settled(page, 4)
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.get_by_role("button", name="Remove all").focus()
    for key in "bx":
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    left = page.locator(".jp-Notebook .jp-Cell").count()
    assert left == cells, "a key pressed on the page is no command to the notebook"
    slide(page, "ff-threshold", 1)
    said(page, "2 unsure")
    page.get_by_role("button", name="Heat-map").first.click()
    page.get_by_role("button", name="Hide heat-map").wait_for(timeout=60_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert len(pd.read_csv(download.value.path())) == 4
    page.keyboard.press("Escape")
    menu(page, "File", "Save Notebook")
    for _ in range(60):
        text = (project / "nbs/check.ipynb").read_text()
        if "widget-view+json" in text:
            break
        time.sleep(0.5)
    page.screenshot(path=str(tmp_path / "lab.png"))
    context.close()
    assert "widget-view+json" in text and "vnd.jupyter.widget-state+json" in text, "the worst case was really tried"
    holds_no_picture(text, bundle)
    assert not wrong
