"Report and slides in a real browser: sliders move the numbers, pages turn, nothing is fetched, no console error, right on a phone."

import json
import re
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from fakeface.evaluate.robustness import CORRUPTIONS
from fakeface.core.seeds import rng
from fakeface.core.files import write_json
from fakeface.metrics.summary import by_domain
from fakeface.report.page import build_report
from fakeface.report.findings import shown
from fakeface.evaluate.robustness import CORRUPTIONS
from fakeface.images.twins import cloud

BROWSER = Path("/usr/bin/chromium")
T = 0.42137


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run folder with invented predictions."
    home = tmp_path_factory.mktemp("runs") / "invented"
    d = home / "evaluate"
    d.mkdir(parents=True)
    out = []
    (home / "prepare").mkdir()
    for dom, gap in (("easy", 6.0), ("hard", 2.0)):
        y = np.repeat([0, 1], 80)
        z = rng("browser", dom).normal((y - 0.5) * gap, 1.1)
        out.append(
            pd.DataFrame(
                dict(
                    path=[f"{dom}/{i}.jpg" for i in range(160)],
                    domain=dom,
                    label=y,
                    split="test",
                    may_show=dom == "hard",
                    p_fake=1 / (1 + np.exp(-z)),
                )
            )
        )
    pred = pd.concat(out, ignore_index=True)
    pred.to_parquet(d / "predictions.parquet", index=False)
    write_json(d / "stage.json", dict(stage="evaluate", state="finished", started="2026-01-01T10:00:00Z", seconds=1.0))
    write_json(d / "config.json", dict(run="invented"))
    write_json(
        d / "metrics.json",
        dict(
            result=by_domain(pred, T, draws=50),
            split="test",
            threshold=T,
            threshold_name="youden",
            thresholds={"youden": T, "fpr<=1%": 0.9, "0.5": 0.5},
            band=None,
            seen=dict(easy="seen", hard="seen"),
            bundle="invented",
            bundle_hash="b" * 64,
            manifest_hash="a" * 64,
            trained_on=["easy", "hard"],
            test_reads=1,
            quarantined=0,
        ),
    )
    for r in pred.itertuples():
        (f := home / "prepare" / r.path).parent.mkdir(exist_ok=True)
        cloud(r.path, 40).save(f)
    result, f, g = by_domain(pred, T, draws=0), np.arange(1, 9) / 16, rng("why")
    write_json(
        home / "leaveout.json",
        dict(
            note="Finetuned for 3 epochs.",
            rounds=[
                dict(
                    left_out=["hard"],
                    domain="hard",
                    run="x",
                    unseen=result["hard"],
                    seen=result["easy"],
                    difference=dict(value=-0.1, low=-0.2, high=-0.05),
                )
            ],
        ),
    )
    pd.DataFrame(
        [
            dict(
                corruption=n,
                family=c.family,
                level=c.level,
                domain=dom,
                n=160,
                auc=0.9,
                accuracy=0.8,
                fpr=0.1,
                fnr=0.3,
                fpr_low=0.05,
                fpr_high=0.2,
                fnr_low=0.2,
                fnr_high=0.4,
            )
            | {"tpr@1%fpr": 0.5}
            for n, c in CORRUPTIONS.items()
            for dom in ("easy", "hard", "macro")
        ]
    ).to_csv(d / "robustness.csv", index=False)
    write_json(
        d / "why.json",
        dict(
            per_group=8,
            n=32,
            no_cams="",
            names=dict(spectrum=["easy", "hard"], cam=["easy", "hard"]),
            spectra={
                k: dict(
                    freq=f.tolist(),
                    real=dict(n=8, db=(-f).tolist(), se=[0.1] * 8),
                    fake=dict(n=8, db=(-2 * f).tolist(), se=[0.1] * 8),
                    gap=dict(db=-0.5, se=0.1, freq=0.5, rms=0.3),
                )
                for k in ("easy", "hard")
            },
            cams={k: dict(real=dict(n=8, centre=0.3), fake=dict(n=8, centre=0.4)) for k in ("easy", "hard")},
            sanity=[
                dict(random="the head", share=0.1, correlation=0.4, low=0.3, high=0.5, n=8),
                dict(random="everything", share=1.0, correlation=0.02, low=-0.1, high=0.1, n=8),
            ],
        ),
    )
    np.savez_compressed(
        d / "why.npz",
        **{f"{k}/{i}/{c}": g.random((16, 16), np.float32) for k in ("spectrum", "cam") for i in (0, 1) for c in (0, 1)},
    )
    return home, build_report(home)


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if not BROWSER.exists():
        pytest.skip(f"there is no {BROWSER}: apt-get install chromium")
    with sync.sync_playwright() as p:
        b = p.chromium.launch(executable_path=str(BROWSER), args=["--no-sandbox", "--disable-gpu"])
        yield b
        b.close()


def opened(browser, path, width, height=900):
    "An open page; afterwards: no error and no request but for the page itself and what it carries."
    context = browser.new_context(viewport=dict(width=width, height=height))
    p = context.new_page()
    errors, requests = [], []
    p.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    p.on("pageerror", lambda e: errors.append(str(e)))
    p.on("request", lambda r: requests.append(r.url))
    p.goto(path.as_uri())
    yield p
    assert not errors and [r for r in requests if not r.startswith("data:image/")] == [path.as_uri()]
    context.close()


@pytest.fixture(params=[1200, 390], ids=["desk", "phone"])
def page(request, browser, run):
    yield from opened(browser, run[1], request.param)


@pytest.fixture(params=[(1280, 720), (390, 844)], ids=["desk", "phone"])
def talk(request, browser, run):
    yield from opened(browser, run[0] / "slides.html", *request.param)


def cells(page, row):
    return page.locator("#live tbody tr").nth(row).locator("td").all_inner_texts()


def slide(page, id, value):
    page.evaluate(
        "([id, v]) => { const e = document.getElementById(id); e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }",
        [id, str(value)],
    )


def test_sliders_move_the_numbers(page, run):
    metrics = json.loads((run[0] / "evaluate/metrics.json").read_text())["result"]
    percent = lambda d, k: shown(metrics[d][k]["value"], True)
    assert cells(page, 0)[:3] == [percent("easy", k) for k in ("fpr", "fnr", "accuracy")], (
        "at the stored threshold the page counts what evaluate counted"
    )
    assert cells(page, 1)[:3] == [percent("hard", k) for k in ("fpr", "fnr", "accuracy")]
    assert page.locator("#t-out").inner_text() == "0.421"
    before, said = cells(page, 1), page.locator("#say").inner_text()
    slide(page, "t", 0.9)
    after = cells(page, 1)
    assert float(after[0][:-1]) < float(before[0][:-1]) and float(after[1][:-1]) > float(before[1][:-1])
    page.get_by_role("button", name="stored").click()
    assert cells(page, 1) == before and page.locator("#say").inner_text() == said
    slide(page, "prior", 3)
    rare = cells(page, 1)
    assert (
        rare[:3] == before[:3]
        and float(rare[3][:-1]) < float(before[3][:-1])
        and page.locator("#prior-out").inner_text() == "1%"
    )
    assert rare[3] == percent("hard", "ppv@1%")


def test_keyboard_reaches_the_sliders(page):
    page.locator("#t").focus()
    old = page.locator("#t-out").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#t-out").inner_text() != old


def test_page_fits_and_is_named(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
    assert page.evaluate("document.documentElement.lang") == "en" and page.locator("h1").count() == 1
    assert page.evaluate(
        "[...document.querySelectorAll('svg')].every(e => e.getAttribute('role') === 'img' && e.getAttribute('aria-label').length > 20)"
    )
    assert page.evaluate("[...document.querySelectorAll('input')].every(e => e.labels.length === 1)")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    text = page.evaluate(
        "Math.min(...[...document.querySelectorAll('figure svg text')].map(e => e.getBoundingClientRect()).filter(r => r.width).map(r => Math.min(r.width, r.height)))"
    )
    assert text >= 7, "text in figures is large enough to read: wide figures scroll, they do not shrink"


def test_every_section_says_what_it_has(page):
    for id, words in dict(
        unseen="Finetuned for 3 epochs", robustness=f"{len(CORRUPTIONS)} states", why="Nearest to the threshold"
    ).items():
        assert words in page.locator(f"section[aria-labelledby={id}]").inner_text()
    for id in ("run", "training", "data"):
        assert "Not run" in page.locator(f"section[aria-labelledby={id}]").inner_text()
    assert page.evaluate(
        "[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href')))"
    )


def test_only_pictures_that_may_be_shown_are_shown(page, run):
    pictures = page.locator(".gallery li")
    texts = pictures.all_inner_texts()
    assert (
        0 < len(texts) <= 24
        and all(t.strip().startswith("hard") for t in texts)
        and "may not be shown" in page.locator("section[aria-labelledby=why]").inner_text()
    )
    assert page.evaluate(
        "[...document.querySelectorAll('img')].every(i => i.naturalWidth > 0 && i.alt.length > 10 && i.src.startsWith('data:image/jpeg'))"
    )


def test_text_stands_out(page):
    "WCAG AA: 4.5 : 1 between text and what lies behind it."
    low = page.evaluate("""() => {
      const lum = c => { const v = c.map(x => { x /= 255; return x <= .03928 ? x/12.92 : ((x + .055)/1.055)**2.4; }); return .2126*v[0] + .7152*v[1] + .0722*v[2]; };
      const rgb = s => s.match(/[\\d.]+/g).map(Number), back = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
      return [...document.querySelectorAll('h1,h2,h3,h4,p,li,th,td,dt,dd,a,figcaption,label,button,span,code,summary')].filter(e => e.innerText && e.innerText.trim()).map(e => { const a = lum(rgb(getComputedStyle(e).color)), b = lum(back(e)); return [(Math.max(a, b) + .05)/(Math.min(a, b) + .05), e.tagName, e.innerText.slice(0, 40)]; }).filter(r => r[0] < 4.5); }""")
    assert not low, low[:5]


def test_slides(talk, run):
    n = talk.locator("section").count()
    assert n > 12 and talk.locator("h1").count() == 1 and talk.locator("h2").count() == n - 1
    assert talk.evaluate("document.documentElement.scrollWidth <= innerWidth") and talk.evaluate(
        "getComputedStyle(document.documentElement).scrollSnapType"
    ).startswith("y")
    assert talk.evaluate(
        "[...document.querySelectorAll('svg')].every(e => e.getAttribute('role') === 'img' && e.getAttribute('aria-label').length > 20)"
    )
    for title in (
        "Results on the test split",
        "What happens to pictures on their way",
        "Without a domain in training",
        "Where it looks",
    ):
        assert talk.get_by_role("heading", name=title).count() == 1
    assert "Not run" in talk.locator("section", has_text="no training stage").inner_text()
    top = "[...document.querySelectorAll('section')].findIndex(s => Math.abs(s.getBoundingClientRect().top) < 2)"
    if talk.viewport_size["width"] > 1000:
        for key, at in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", n - 1)):
            talk.keyboard.press(key)
            for _ in range(100):
                if talk.evaluate(top) == at:
                    break
                talk.wait_for_timeout(50)
            assert talk.evaluate(top) == at, f"{key} leads to page {at + 1}"
        assert talk.evaluate(
            "[...document.querySelectorAll('section')].every(s => s.scrollHeight <= s.clientHeight + 1)"
        ), "no slide is too full"


def test_slides_print_one_a_sheet(browser, run):
    for p in opened(browser, run[0] / "slides.html", 1280, 720):
        n, pdf = p.locator("section").count(), p.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == n and {
        tuple(map(float, m)) for m in re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    } == {(1152.0, 648.0)}
