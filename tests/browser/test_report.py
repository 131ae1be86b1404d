"Report and slides in a real browser: sliders move the numbers, pages turn, nothing is fetched, right on a phone."

import json
import re

import pandas as pd
import pytest
from fakeface.core.files import read_json, sha256_file, write_json
from fakeface.evaluate.robustness import CORRUPTIONS
from fakeface.images.twins import cloud
from fakeface.report.page import build_report
from fakeface.report.records import format_figure
from fakeface.testing.runs import synthetic_explanations, synthetic_robustness, synthetic_run

THRESHOLD = 0.42137
GAPS = dict(easy=4.0, hard=2.0)


def write_leaveout(home):
    "One round: a detector that was trained without the domain `hard`."
    result = read_json(home / "evaluate/metrics.json")["result"]
    difference = dict(value=-0.1, low=-0.2, high=-0.05)
    record = dict(
        left_out=["hard"], domain="hard", run="x", unseen=result["hard"], seen=result["easy"], seen_by="b" * 64
    )
    write_json(
        home / "leaveout.json", dict(note="Finetuned for 3 epochs.", rounds=[record | dict(difference=difference)])
    )


def write_pictures(home):
    "A cloud for every prediction, which knows its file."
    table = home / "evaluate/predictions.parquet"
    pred = pd.read_parquet(table)
    for path in pred.path:
        target = home / "prepare" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        cloud(path, 40).save(target)
    pred["file_sha256"] = [sha256_file(home / "prepare" / path) for path in pred.path]
    pred.to_parquet(table)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run folder with invented predictions, and its report."
    home = tmp_path_factory.mktemp("runs") / "invented"
    synthetic_run(home, GAPS, count=80, threshold=THRESHOLD, hidden=("easy",))
    synthetic_explanations(home, tuple(GAPS))
    synthetic_robustness(home, tuple(GAPS))
    write_leaveout(home)
    write_pictures(home)
    return home, build_report(home)


def opened(browser, path, width, height=900):
    "An open page; afterwards: no error and no request but for the page itself and what it carries."
    context = browser.new_context(viewport=dict(width=width, height=height))
    page = context.new_page()
    errors, requests = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    if page.get_by_role("button", name="Open all").count():
        page.get_by_role("button", name="Open all").click()
    yield page
    assert not errors and [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
    context.close()


@pytest.fixture(params=[1200, 390], ids=["desk", "phone"])
def page(request, browser, run):
    yield from opened(browser, run[1], request.param)


@pytest.fixture(params=[(1280, 720), (390, 844)], ids=["desk", "phone"])
def talk(request, browser, run):
    yield from opened(browser, run[0] / "slides.html", *request.param)


def cells(page, row):
    "The figures in one row of the table under the sliders."
    return page.locator("#live tbody tr").nth(row).locator("td").all_inner_texts()


def slide(page, id, value):
    "Move a slider as a person would."
    page.evaluate(
        """([id, value]) => {
          const slider = document.getElementById(id);
          slider.value = value;
          slider.dispatchEvent(new Event('input', { bubbles: true }));
        }""",
        [id, str(value)],
    )


def all_of(page, selector, condition):
    "Whether a condition in JavaScript holds for `e`, each element of a page that fits a selector."
    return page.evaluate(f"[...document.querySelectorAll('{selector}')].every(e => {condition})")


def number(percent):
    return float(percent.removesuffix("%"))


def test_sliders_move_the_numbers(page, run):
    result = json.loads((run[0] / "evaluate/metrics.json").read_text())["result"]

    def percent(domain, key):
        return format_figure(result[domain][key]["value"], percent=True)

    for row, domain in enumerate(GAPS):
        counted = [percent(domain, key) for key in ("fpr", "fnr", "accuracy")]
        assert cells(page, row)[:3] == counted, "at the stored threshold the page counts what evaluate counted"
    assert page.locator("#t-out").inner_text() == "0.421"
    before, said = cells(page, 1), page.locator("#say").inner_text()
    slide(page, "t", 0.9)
    after = cells(page, 1)
    assert number(after[0]) < number(before[0]) and number(after[1]) > number(before[1])
    page.get_by_role("button", name="stored").click()
    assert cells(page, 1) == before and page.locator("#say").inner_text() == said
    slide(page, "prior", 3)
    rare = cells(page, 1)
    assert page.locator("#prior-out").inner_text() == "1%"
    assert rare[:3] == before[:3] and number(rare[3]) < number(before[3])
    assert rare[3] == percent("hard", "ppv@1%")


def test_table_and_sliders_agree(page):
    "At each stored threshold, and where 50, 10 and 1% are fake: the same share of right alarms."
    table = page.locator("section[aria-labelledby=points] > details > .scroll table")
    rows = table.locator("tbody tr")
    assert rows.count() == 3
    for i in range(rows.count()):
        name = rows.nth(i).locator("th").inner_text().removesuffix(" (stored)")
        shown = [text.split("\n")[0] for text in rows.nth(i).locator("td").all_inner_texts()[1:]]
        page.locator("#stored button").filter(has_text=re.compile(f"^{re.escape(name)} ")).click()
        for position, right in zip((9, 6, 3), shown[-3:], strict=True):
            slide(page, "prior", position)
            mean = cells(page, len(GAPS))
            assert mean[:3] == shown[:3] and mean[3] == right, (name, position)


def test_keyboard_reaches_the_sliders(page):
    page.locator("#t").focus()
    old = page.locator("#t-out").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#t-out").inner_text() != old


def test_page_fits_and_is_named(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
    assert page.evaluate("document.documentElement.lang") == "en" and page.locator("h1").count() == 1
    assert all_of(page, "svg", "e.getAttribute('role') === 'img' && e.getAttribute('aria-label').length > 20")
    assert all_of(page, "input", "e.labels.length === 1")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and all(below - above <= 1 for above, below in zip(levels, levels[1:]))
    # a single digit is narrower than its letters are high
    smallest = page.evaluate("""() => {
      const texts = [...document.querySelectorAll('figure svg text')].filter(e => e.textContent.trim().length > 1);
      const boxes = texts.map(e => e.getBoundingClientRect());
      return Math.min(...boxes.filter(box => box.width).map(box => Math.min(box.width, box.height)));
    }""")
    assert smallest >= 7, "text in figures is large enough to read: wide figures scroll, they do not shrink"


def section_text(page, id):
    return page.locator(f"section[aria-labelledby={id}]").inner_text()


def test_every_section_says_what_it_has(page):
    assert "Finetuned for 3 epochs" in section_text(page, "unseen")
    assert f"{len(CORRUPTIONS)} states" in section_text(page, "robustness")
    assert "Nearest to the threshold" in section_text(page, "why")
    for id in ("run", "training", "data"):
        assert "Not run" in section_text(page, id)
    assert "must not be used for" in section_text(page, "must-not")


def test_the_first_screen_says_what_matters(browser, run):
    "Without a click: headline, what was tested on what, four figures, what it must not be used for; on a phone, too."
    context = browser.new_context(viewport=dict(width=390, height=844))
    page = context.new_page()
    page.goto(run[1].as_uri())
    text = page.locator("body").inner_text()
    assert page.evaluate("document.documentElement.scrollHeight") < 3.5 * 844 and len(text.split()) < 450
    assert "Tested on 320 test images of 2 domains (easy and hard): 160 photographs and 160 generated ones." in text
    assert page.locator(".cards dt").count() == 4 and "What it must not be used for" in text
    assert page.locator("details[open], table:visible, figure:visible").count() == 0
    page.evaluate("location.hash = 'calibration'")
    page.locator("section[aria-labelledby=calibration] > details[open] figure").wait_for()
    scrolling = page.locator(".scroll.more").first
    assert "Scroll sideways" in scrolling.evaluate("e => getComputedStyle(e, '::before').content")
    assert scrolling.get_attribute("tabindex") == "0" and scrolling.get_attribute("aria-label")
    page.emulate_media(color_scheme="dark")
    page.get_by_role("button", name="Open all").click()
    assert not page.evaluate(FAINT_TEXTS), "text stands out in the dark, too"
    context.close()


def test_everything_is_printed(browser, run):
    "A fold that is shut on the screen is open on paper."
    for page in opened(browser, run[1], 1200):
        page.get_by_role("button", name="Close all").click()
        page.emulate_media(media="print")
        shut = len(re.findall(rb"/Type\s*/Page\b", page.pdf()))
        page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        assert shut == len(re.findall(rb"/Type\s*/Page\b", page.pdf())) > 5


A4 = 718  # pixels of CSS between the margins of a page that Chromium prints
CUT_ON_PAPER = """() => {
  const ground = document.documentElement.clientWidth;
  return [...document.querySelectorAll('figure, figure svg, table, img, pre')]
    .map(e => [e, e.getBoundingClientRect()])
    .filter(([e, box]) => box.width && (box.left < -1 || box.right > ground + 1))
    .map(([e]) => e)
    .map(e => e.outerHTML.slice(0, 120));
}"""
# the sliders do nothing on paper and are left out there
UNSEEN = (
    "[...document.querySelectorAll('figure, table')].filter(e => !e.closest('.play') && !e.checkVisibility()).length"
)


def test_paper_is_white_and_nothing_is_cut(browser, run):
    "All folds are open, also those within others; figures and tables fit; a dark screen does not print dark."
    for page in opened(browser, run[1], A4):
        page.get_by_role("button", name="Close all").click()
        assert page.evaluate(UNSEEN) > 5, "on the screen they are shut"
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.evaluate(UNSEEN)
        assert not page.evaluate(CUT_ON_PAPER)


def test_only_images_that_may_be_shown_are_shown(page, run):
    texts = page.locator(".gallery li").all_inner_texts()
    assert 0 < len(texts) <= 24 and all(text.strip().startswith("hard") for text in texts)
    assert "may not be shown" in section_text(page, "why")
    shown = "e.naturalWidth > 0 && e.alt.length > 10 && e.src.startsWith('data:image/jpeg')"
    assert all_of(page, "img", shown)


FAINT_TEXTS = """() => {
  const channel = x => { x /= 255; return x <= .03928 ? x/12.92 : ((x + .055)/1.055)**2.4; };
  const luminance = rgb => { const v = rgb.map(channel); return .2126*v[0] + .7152*v[1] + .0722*v[2]; };
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const contrast = e => {
    const a = luminance(numbers(getComputedStyle(e).color)), b = luminance(behind(e));
    return [(Math.max(a, b) + .05)/(Math.min(a, b) + .05), e.tagName, e.innerText.slice(0, 40)];
  };
  const texts = 'h1,h2,h3,h4,p,li,th,td,dt,dd,a,figcaption,label,button,span,code,summary';
  const visible = [...document.querySelectorAll(texts)].filter(e => e.innerText && e.innerText.trim());
  return visible.map(contrast).filter(found => found[0] < 4.5);
}"""


def test_text_stands_out(page):
    "WCAG AA: 4.5 : 1 between text and what lies behind it."
    faint = page.evaluate(FAINT_TEXTS)
    assert not faint, faint[:5]


TOP_SLIDE = """() => {
  const slides = [...document.querySelectorAll('section')];
  return slides.findIndex(slide => Math.abs(slide.getBoundingClientRect().top) < 2);
}"""


def arrives(talk, index):
    "Whether a page of the talk comes to the top within five seconds."
    for _ in range(100):
        if talk.evaluate(TOP_SLIDE) == index:
            return True
        talk.wait_for_timeout(50)
    return False


def test_slides(talk, run):
    count = talk.locator("section").count()
    assert 5 <= count <= 8 and talk.locator("h1").count() == 1 and talk.locator("h2").count() == count - 1
    assert talk.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert talk.evaluate("getComputedStyle(document.documentElement).scrollSnapType").startswith("y")
    assert all_of(talk, "svg", "e.getAttribute('role') === 'img' && e.getAttribute('aria-label').length > 20")
    for title in (
        r"^It is weakest on \w+: AUC 0\.\d+ \[0\.\d+–[01]\.\d+\]$",
        r"^No corruption costs more than five points",
        r"^Trained without \w+, it reaches AUC 0\.\d+ \[0\.\d+–[01]\.\d+\] there$",
        r"^Its limits$",
    ):
        assert talk.get_by_role("heading", name=re.compile(title)).count() == 1, title
    assert "not run" not in talk.locator("main").inner_text().lower(), "no slide says that only"
    if talk.viewport_size["width"] > 1000:
        for key, index in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", count - 1)):
            talk.keyboard.press(key)
            assert arrives(talk, index), f"{key} leads to page {index + 1}"
        assert all_of(talk, "section", "e.scrollHeight <= e.clientHeight + 1"), "no slide is too full"


def test_slides_print_one_a_sheet(browser, run):
    for page in opened(browser, run[0] / "slides.html", 1280, 720):
        count, pdf = page.locator("section").count(), page.pdf(prefer_css_page_size=True, print_background=True)
    boxes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == count
    assert {(float(width), float(height)) for width, height in boxes} == {(1152.0, 648.0)}
