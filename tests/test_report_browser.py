"The report in a real browser: sliders move the numbers, nothing is fetched, no console error, right on a phone."
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from fakeface.core import rng, write_json
from fakeface.metrics import by_domain
from fakeface.report import build_report, shown

BROWSER = Path("/usr/bin/chromium")
T = .42137

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run folder with invented predictions."
    home = tmp_path_factory.mktemp("runs")/"invented"; d = home/"evaluate"; d.mkdir(parents=True); out = []
    for dom, gap in (("easy", 6.), ("hard", 2.)):
        y = np.repeat([0, 1], 80); z = rng("browser", dom).normal((y - .5)*gap, 1.1)
        out.append(pd.DataFrame(dict(path=[f"{dom}/{i}.jpg" for i in range(160)], domain=dom, label=y, split="test", may_show=True, p_fake=1/(1 + np.exp(-z)))))
    pred = pd.concat(out, ignore_index=True); pred.to_parquet(d/"predictions.parquet", index=False)
    write_json(d/"stage.json", dict(stage="evaluate", state="finished", started="2026-01-01T10:00:00Z", seconds=1.)); write_json(d/"config.json", dict(run="invented"))
    write_json(d/"metrics.json", dict(result=by_domain(pred, T, draws=50), split="test", threshold=T, threshold_name="youden", thresholds={"youden": T, "fpr<=1%": .9, "0.5": .5}, band=None,
        seen=dict(easy="seen", hard="seen"), bundle="invented", bundle_hash="b"*64, manifest_hash="a"*64, trained_on=["easy", "hard"], test_reads=1, quarantined=0))
    return home, build_report(home)

@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if not BROWSER.exists(): pytest.skip(f"there is no {BROWSER}: apt-get install chromium")
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=str(BROWSER), args=["--no-sandbox", "--disable-gpu"])
        yield b
        b.close()

@pytest.fixture(params=[1200, 390], ids=["desk", "phone"])
def page(request, browser, run):
    "The open report; afterwards: no error and no request but for the page itself."
    context = browser.new_context(viewport=dict(width=request.param, height=900)); p = context.new_page(); errors, requests = [], []
    p.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None); p.on("pageerror", lambda e: errors.append(str(e))); p.on("request", lambda r: requests.append(r.url))
    p.goto(run[1].as_uri()); yield p
    assert not errors and requests == [run[1].as_uri()]
    context.close()

def cells(page, row): return page.locator("#live tbody tr").nth(row).locator("td").all_inner_texts()
def slide(page, id, value): page.evaluate("([id, v]) => { const e = document.getElementById(id); e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }", [id, str(value)])

def test_sliders_move_the_numbers(page, run):
    metrics = json.loads((run[0]/"evaluate/metrics.json").read_text())["result"]; percent = lambda d, k: shown(metrics[d][k]["value"], True)
    assert cells(page, 0)[:3] == [percent("easy", k) for k in ("fpr", "fnr", "accuracy")], "at the stored threshold the page counts what evaluate counted"
    assert cells(page, 1)[:3] == [percent("hard", k) for k in ("fpr", "fnr", "accuracy")]
    assert page.locator("#t-out").inner_text() == "0.421"
    before, said = cells(page, 1), page.locator("#say").inner_text()
    slide(page, "t", .9); after = cells(page, 1)
    assert float(after[0][:-1]) < float(before[0][:-1]) and float(after[1][:-1]) > float(before[1][:-1])
    page.get_by_role("button", name="stored").click()
    assert cells(page, 1) == before and page.locator("#say").inner_text() == said
    slide(page, "prior", 3); rare = cells(page, 1)
    assert rare[:3] == before[:3] and float(rare[3][:-1]) < float(before[3][:-1]) and page.locator("#prior-out").inner_text() == "1%"
    assert rare[3] == percent("hard", "ppv@1%")

def test_keyboard_reaches_the_sliders(page):
    page.locator("#t").focus(); old = page.locator("#t-out").inner_text(); page.keyboard.press("ArrowRight")
    assert page.locator("#t-out").inner_text() != old

def test_page_fits_and_is_named(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
    assert page.evaluate("document.documentElement.lang") == "en" and page.locator("h1").count() == 1
    assert page.evaluate("[...document.querySelectorAll('svg')].every(e => e.getAttribute('role') === 'img' && e.getAttribute('aria-label').length > 20)")
    assert page.evaluate("[...document.querySelectorAll('input')].every(e => e.labels.length === 1)")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
