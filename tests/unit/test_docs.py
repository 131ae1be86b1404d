"""The documentation site's own parts: pages in order, names and files as links, the reference, dead links."""

import base64
import html
import importlib
import inspect
import json
import pkgutil
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs import api, build, links, pages, site_tree  # noqa: E402

NOTEBOOKS = sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("nbs/**/*.ipynb") if "checkpoints" not in str(p))
ROOMS = ("nbs/01_core/01_labels.ipynb", "nbs/04_data/15_gate.ipynb", "nbs/05_augment/06_mixup.ipynb")
CODE = re.compile(r"<code>([\w.]+)</code>")


@pytest.fixture(scope="module")
def site():
    return site_tree.build_tree(ROOT, lambda formula, block: f"<math>{html.escape(formula)}</math>")


def leaves(nav):
    "The pages of a navigation, from its first to its last line."
    for line in nav:
        for below in line.values():
            yield from [below] if isinstance(below, str) else leaves(below)


def branch(nav, title):
    return next(line[title] for line in nav if title in line)


# ---- order
def test_chapters_stand_in_their_order_and_each_page_once(site):
    rooms = [uri for uri in leaves(branch(site.nav, "Chapters")) if not uri.endswith("/index.md")]
    assert rooms == [p.replace(".ipynb", ".md") for p in NOTEBOOKS if re.match(r"nbs/\d", p)]
    overview, *chapters = branch(site.nav, "Chapters")
    assert overview == {"Chapters": "nbs/index.md"}, "a reader lands on an overview, not in the first chapter"
    titles = [title for chapter in chapters for title in chapter]
    folders = sorted(path.name for path in (ROOT / "nbs").iterdir() if re.match(r"\d", path.name))
    assert titles == [folder.split("_", 1)[1] for folder in folders]
    everything = list(leaves(site.nav))
    assert len(everything) == len(set(everything)) and set(everything) == set(site.pages)


def test_every_notebook_is_a_page(site):
    sources = {page.source for page in site.pages.values()}
    assert set(NOTEBOOKS) - sources == {"nbs/index.ipynb"}, "its text is README.md, the start page"
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} <= sources
    assert any(path.endswith("/report.html") for path in site.carried)


def test_the_overview_leads_to_each_chapter_with_its_sentence(site):
    text = site.pages["nbs/index.md"].text
    links = re.findall(r"^\| \[(\w+)\]\((\w+)/index.md\) \| (.+) \|$", text, re.M)
    folders = sorted(path.name for path in (ROOT / "nbs").iterdir() if re.match(r"\d", path.name))
    assert [folder for _, folder, _ in links] == folders and all(len(said) > 10 for _, _, said in links)


def test_no_two_pages_of_the_tree_have_one_title(site):
    titles = [title for line in [*branch(site.nav, "Tutorials"), *branch(site.nav, "Stages")] for title in line]
    start = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len({*titles, *start}) == len(titles) + len(start)


def test_a_chapter_without_its_line_in_the_index_is_refused():
    with pytest.raises(pages.DocsError, match="no line '\\*\\*data\\.\\*\\*"):
        pages.chapter_sentence("**core.** What everything stands on.\n", "04_data")


# ---- one notebook
def notebook(*cells):
    "A notebook's text from (kind, source, outputs)."
    made = [dict(cell_type=kind, source=source, outputs=list(outputs)) for kind, source, *outputs in cells]
    return json.dumps(dict(cells=made))


def test_directives_are_obeyed_and_outputs_carried(tmp_path):
    png = b"\x89PNG not looked at"
    shown = dict(output_type="display_data", data={"image/png": base64.b64encode(png).decode()})
    said = dict(output_type="stream", text=["\x1b[31m<b>\x1b[0m\n", " 1%\r100%\n"])
    text = notebook(
        ("markdown", "# room\n\n> One sentence.\n\n- skip_exec: true\n\n$a_1$ and `$b_1$`"),
        ("code", "#| default_exp data.room"),
        ("code", "#| hide\nimport secret"),
        ("code", "#| export\nx = '```' + '`````'", shown, said),
    )
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs/1_room.ipynb").write_text(text)
    page = pages.notebook_page("nbs/1_room.ipynb", tmp_path, lambda formula, block: f"<math>{formula}</math>")
    made = pages.with_pieces(page.text, page.pieces)
    assert page.title == "room" and page.files == {"nbs/1_room.0.png": png}
    assert "default_exp" not in made and "#|" not in made and "skip_exec" not in made
    assert re.search(r"<details><summary>[^<]+</summary>\n\n```python\nimport secret\n```\n\n</details>", made)
    assert "``````python title=\"fakeface.data.room\"\nx = '```' + '`````'\n``````" in made
    assert '<img class="output" src="1_room.0.png"' in made
    assert '<pre class="output">&lt;b&gt;\n100%</pre>' in made
    assert "<math>a_1</math> and `$b_1$`" in made, "code is no formula"
    assert '<a href="1_room.ipynb?source">' in made and '<a href="../api/data.md#fakeface.data.room">' in made


def test_a_notebook_without_a_title_is_refused(tmp_path):
    (tmp_path / "room.ipynb").write_text(notebook(("markdown", "no title")))
    with pytest.raises(pages.DocsError, match="room.ipynb does not begin with '# title'"):
        pages.notebook_page("room.ipynb", tmp_path)


def test_an_error_among_the_outputs_is_refused(tmp_path):
    failed = dict(output_type="error", ename="ValueError")
    (tmp_path / "room.ipynb").write_text(notebook(("markdown", "# room"), ("code", "1 / 0", failed)))
    with pytest.raises(pages.DocsError, match="run the notebook"):
        pages.notebook_page("room.ipynb", tmp_path)


# ---- names
def anchors(site, uri):
    return set(re.findall(r"\{#(\S+)\}", site.pages[uri].text))


def test_names_lead_to_places_of_the_reference(site):
    missing = []
    for name, place in site.names.items():
        uri, anchor = place.split("#")
        if anchor not in anchors(site, uri):
            missing.append(name)
    assert not missing


IN_MODULES = re.compile(r"`(fakeface(?:\.\w+)+)")
WHOSE = re.compile(r"`(\w+)(?:\([^`]*\))?` (?:of|in|from) `(fakeface(?:\.\w+)+)`")


def prose(path):
    "What a notebook or a Markdown file says outside its code."
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def is_there(name):
    "Whether a dotted name is a module, or something in one."
    try:
        return bool(pkgutil.resolve_name(name))
    except (ImportError, AttributeError):
        return False


def test_modules_and_their_names_are_where_prose_finds_them():
    named = {}
    for path in [*ROOT.glob("*.md"), *(ROOT / name for name in NOTEBOOKS)]:
        text = prose(path)
        for name in IN_MODULES.findall(text) + [f"{module}.{name}" for name, module in WHOSE.findall(text)]:
            named[name] = path.name
    assert named and not is_there("fakeface.infer.verdict.label_of")
    assert not {name: file for name, file in named.items() if not is_there(name)}


@pytest.mark.parametrize("path", ROOMS)
def test_every_public_name_in_backticks_becomes_a_link(site, path):
    "The oracle imports the modules: what `__all__` names, and where it was defined."
    page = site.pages[path.replace(".ipynb", ".md")]
    module = importlib.import_module(pages.module_of(pages.read_cells(ROOT / path)))
    for name in module.__all__:
        text = pages.link_names(f"<p>see <code>{name}</code></p>", site.names, page.uri)
        href = f"../../api/{module.__name__.split('.')[1]}.html#{module.__name__}.{name}"
        assert text == f'<p>see <a class="name" href="{href}"><code>{name}</code></a></p>'


def test_what_is_no_public_name_or_a_link_already_stays():
    names = {"wilson": "api/metrics.md#w", "Detector.check": "api/infer.md#c"}
    for kept in (
        "<p><code>no_such_name</code></p>",
        '<a href="x.html"><code>wilson</code></a>',
        "<pre><code>wilson</code></pre>",
        '<h2 id="w"><code>wilson</code></h2>',
        "<code>wilson = 1</code>",
    ):
        assert pages.link_names(kept, names, "nbs/01_core/room.md") == kept
    linked = pages.link_names("<code>Detector.check()</code>", names, "README.md")
    assert linked == '<a class="name" href="api/infer.html#c"><code>Detector.check()</code></a>'


def read_again(signature):
    "The parameters of a signature as the reference shows it."
    scope = {}
    exec(f"from __future__ import annotations\ndef {signature}: ...", scope)
    function = scope[signature.split("(")[0]]
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(
    "arguments",
    [
        "first, second=2, /, third=3, *, fourth, fifth=5",
        "first_that_has_a_long_name: int, second_that_has_a_long_name: int, /, third_that_has_a_long_name: int = 3",
        "first, *rest, second_that_has_a_long_name: int = 2, third_that_has_a_long_name: int = 3, **others: str",
        "first_that_has_a_long_name: int, *, second_that_has_a_long_name: int = 2, third_that_has_a_long_name: int",
        "first_that_has_a_long_name: int = 1, second_that_has_a_long_name: int = 2, **others_with_a_long_name: str",
        "",
    ],
)
def test_a_signature_is_called_as_it_was_written(arguments):
    function = api.ast.parse(f"def f({arguments}) -> int: ...").body[0]
    shown = api.signature(function, "f")
    assert read_again(shown) == read_again(f"f({arguments})")
    assert max(map(len, shown.split("\n"))) <= api.WIDTH


@pytest.mark.parametrize("name", ["fakeface.metrics.intervals", "fakeface.data.gate", "fakeface.infer.detector"])
def test_the_reference_says_what_inspect_says(site, name):
    module = importlib.import_module(name)
    text = "\n".join(api.module_parts(name, Path(module.__file__)))
    for word in module.__all__:
        thing = getattr(module, word)
        section = re.search(rf"^### {word} \{{.*?(?=^### |\Z)", text, re.M | re.S)
        assert section, word
        if inspect.isfunction(thing):
            signature = section[0].split("```python\n")[1].split("\n```")[0]
            shown = [(name, kind) for name, kind, _ in read_again(signature)]
            assert shown == [(p.name, p.kind) for p in inspect.signature(thing).parameters.values()]
        if inspect.getdoc(thing) and (inspect.isfunction(thing) or inspect.isclass(thing)):
            assert inspect.getdoc(thing).split("\n")[0] in section[0]


def test_docments_stand_beside_their_parameters():
    signature = "a: int,  # first | one\n    *rest: str,\n    b: str = 'x',  # second\n"
    source = f'def f(\n    {signature}) -> bool:  # both\n    "Doc."\n'
    function = api.ast.parse(source).body[0]
    rows = list(api.parameter_rows(function, api.comments_of(source)))
    assert rows == [("a", "int", "", "first | one"), ("b", "str", "'x'", "second"), ("→", "bool", "", "both")]
    everything = "def f(\n    *rest: int,  # all\n    **others,  # named\n): ...\n"
    rows_of_rest = list(api.parameter_rows(api.ast.parse(everything).body[0], api.comments_of(everything)))
    assert rows_of_rest == [("*rest", "int", "", "all"), ("**others", "", "", "named")]
    assert "first \\| one" in api.table(rows) and api.table([("a", "int", "", "")]) == ""


def test_a_method_is_shown_as_it_is_called():
    cls = api.ast.parse("class A:\n    def b(self, c: int): ...\n    def d(self): ...\n    def _e(self): ...\n").body[0]
    parts = "\n".join(api.class_parts(cls, "m.A", {}, []))
    assert "#### A.b {#m.A.b}" in parts and "\nA.b(c: int)\n" in parts and "\nA.d()\n" in parts and "_e" not in parts


def test_examples_in_docstrings_are_code():
    function = api.ast.parse('def f():\n    """Doc.\n\n    >>> f()\n    1\n\n    More > less.\n    """\n').body[0]
    assert api.described(function) == "Doc.\n\n```pycon\n>>> f()\n1\n```\n\nMore > less."


# ---- links
def test_links_between_files_are_those_of_the_site():
    on_site = {"nbs/index.ipynb", "README.md", "nbs/04_data/15_gate.ipynb", "LICENSE", "outputs/models/m/README.md"}

    def mended(href, source="nbs/01_core/01_labels.ipynb"):
        text = pages.mend_links(f'<a href="{href}">', source, source, on_site, "https://host/blob/main", ROOT)
        return text.removeprefix('<a href="').removesuffix('">')

    assert mended("../04_data/15_gate.ipynb#votes") == "../04_data/15_gate.html#votes"
    assert mended("../index.ipynb") == mended("../../README.md") == "../../index.html"
    assert mended("../../outputs/models/m/README.md") == "../../outputs/models/m/index.html"
    assert mended("../../LICENSE") == "../../LICENSE"
    assert mended("../../setup.py") == "https://host/blob/main/setup.py", "the site does not have it, the project does"
    assert mended("01_labels.ipynb?source") == "https://host/blob/main/nbs/01_core/01_labels.ipynb"
    for kept in ("no_such.ipynb", "https://example.org/a.ipynb", "#here", "mailto:a@b.c"):
        assert mended(kept) == kept


def test_dead_links_are_found_and_live_ones_are_not(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.svg").write_text("")
    (tmp_path / "index.html").write_text('<h1 id="top">x</h1><a href="sub/">s</a><a href=\'sub/index.html#one\'>s</a>')
    (tmp_path / "sub/index.html").write_text(
        '<p id=one>x</p><img src="../a%20b.svg"><a href="/base/index.html#top">t</a><a href="#one">1</a>'
        '<a href="https://example.org/none">e</a><script>"<a href=\'none\'>"</script>'
    )
    assert list(links.dead_links(tmp_path, "/base/")) == []
    (tmp_path / "dead.html").write_text(
        '<a href="none.html">n</a><a href="index.html#none">p</a><img alt="" src=no.png>'
    )
    found = list(links.dead_links(tmp_path, "/base/"))
    assert [line.split(": ")[1] for line in found] == ["index.html#none", "no.png", "none.html"]
    assert "no such place" in found[0] and "no such file" in found[1] and found[2].startswith("dead.html: ")


# a generator for tests: Markdown's links, images, names and places as HTML, everything else as it is
GENERATOR = r"""
import re, sys
from pathlib import Path
folder = Path(sys.argv[-1]).parent
for path in (folder / "pages").rglob("*"):
    if path.is_file():
        to = folder / "site" / path.relative_to(folder / "pages")
        to = to.with_name("index.md") if to.name == "README.md" else to
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix != ".md":
            to.write_bytes(path.read_bytes())
            continue
        text = re.sub(r"!\[[^\]]*\]\(([^)]+)\)", r'<img src="\1">', path.read_text())
        text = re.sub(r"\[([^\]]*)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)
        text = re.sub(r"\{#(\S+)\}", r'<i id="\1"></i>', re.sub(r"`([\w.]+)`", r"<code>\1</code>", text))
        text = re.sub(r'(href="[^":?]+)\.md([#"])', r"\1.html\2", text)
        to.with_suffix(".html").write_text(f"<html><article>{text}</article></html>")
"""


def small_project(root):
    "Three rooms of one chapter, and what the site asks for beside them."
    for path in ("nbs/01_core", "nbs/images", "fakeface/core"):
        (root / path).mkdir(parents=True)
    for name in ("first", "second", "third"):
        text = f"# {name}\n\n> A room. `answer_{name}` is told here."
        exported = ("code", f"#| default_exp core.{name}")
        (root / f"nbs/01_core/0_{name}.ipynb").write_text(notebook(("markdown", text), exported))
        module = f'"""A room."""\n__all__ = ["answer_{name}"]\nanswer_{name} = 42  # as everybody knows\n'
        (root / f"fakeface/core/{name}.py").write_text(module)
    (root / "README.md").write_text(
        "# project\n\n**core.** All.\n\n[first](nbs/01_core/0_first.ipynb), [log](CHANGELOG.md)\n"
    )
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        (root / f"{name}.md").write_text(f"# {name}\n")
    (root / "settings.ini").write_text((ROOT / "settings.ini").read_text())


def test_a_small_project_is_built_and_a_dead_link_fails_it(tmp_path):
    root = tmp_path / "project"
    small_project(root)
    generator = [sys.executable, "-c", GENERATOR]
    assert build.build(tmp_path / "out", generator, root) == 3 + 1 + 1 + 1 + 1 + 3, (
        "rooms, chapter, overview, reference, start, project"
    )
    start = (tmp_path / "out/index.html").read_text()
    assert '<a href="nbs/01_core/0_first.html">first</a>' in start
    room = (tmp_path / "out/nbs/01_core/0_second.html").read_text()
    assert '<a class="name" href="../../api/core.html#fakeface.core.second.answer_second">' in room
    (root / "CHANGELOG.md").write_text("# changes\n\n[gone](nbs/01_core/0_fourth.ipynb)\n")
    with pytest.raises(pages.DocsError, match=r"CHANGELOG\.html: nbs/01_core/0_fourth\.ipynb: .*\n1 links"):
        build.build(tmp_path / "out", generator, root)


def test_a_room_whose_module_was_not_exported_is_refused(tmp_path):
    small_project(tmp_path)
    (tmp_path / "fakeface/core/third.py").unlink()
    with pytest.raises(pages.DocsError, match="run nbdev_export"):
        site_tree.build_tree(tmp_path, lambda formula, block: formula)
