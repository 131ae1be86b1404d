"""Pages of the documentation site: the repository's notebooks and Markdown files, in the repository's own tree.

A page is where its file is (`nbs/04_data/15_gate.ipynb` becomes `nbs/04_data/15_gate.html`), so a link
between files is right on the site once its ending is; README.md, which is made from nbs/index.ipynb, is the start.
Nothing is executed: a notebook is shown with the outputs that it carries. Only the standard library is needed here.
"""

import ast
import base64
import html
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START = "README.md"
NOTEBOOK_START = "nbs/index.ipynb"  # the same text as README.md
STAGES = ("prepare", "pretrain", "finetune", "leaveout", "evaluate", "report")
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
SHELF = "outputs/models"
# files that pages link to or show, carried as they are
CARRIED = ("LICENSE", "nbs/images/*", f"{SHELF}/*/LICENSE", f"{SHELF}/*.results/report.html")
IMAGE_ENDINGS = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "<p><em>A widget is shown here when the notebook runs.</em></p>"

CHAPTERS = (
    "Each chapter is a folder of notebooks and a package of `fakeface/`. A notebook of a chapter is called a *room*: it"
    " explains, shows and tests one part. A room builds only on rooms above it, so the order is one to read in."
)

Tree = Sequence[tuple[str, "str | Tree"]]  # title and page, or title and what lies below it


class DocsError(Exception):
    "The site cannot be built; the message says which file is wrong and what to do."


@dataclass
class Page:
    "One page: Markdown to render, the HTML to put into it afterwards, and image files beside it."

    source: str  # the file in the repository, "" for a page that is made here
    uri: str  # where its Markdown would stand: nbs/04_data/15_gate.md
    title: str  # its first heading
    text: str  # Markdown; ⟦7⟧ stands for `pieces[7]`
    pieces: list[str] = field(default_factory=list)  # HTML
    files: dict[str, bytes] = field(default_factory=dict)  # file's place on the site → its content


# ---- what there is, in order
def room_paths(root: Path = ROOT) -> dict[str, list[str]]:
    "Chapter's folder → its rooms, both in order; paths relative to the root."
    rooms: dict[str, list[str]] = {}
    for path in sorted(root.glob("nbs/[0-9]*/[0-9]*.ipynb")):
        rooms.setdefault(path.parent.name, []).append(path.relative_to(root).as_posix())
    return rooms


def notebooks(root: Path, folder: str) -> list[str]:
    "The notebooks of a folder, sorted; paths relative to the root."
    return sorted(path.relative_to(root).as_posix() for path in root.glob(f"{folder}/*.ipynb"))


def stage_paths(root: Path = ROOT) -> list[str]:
    "The stage notebooks in the order in which they run, then the checker's page."
    paths = [f"nbs/run_{stage}.ipynb" for stage in STAGES]
    return [path for path in [*paths, "nbs/check.ipynb"] if (root / path).is_file()]


def card_paths(root: Path = ROOT) -> list[str]:
    "The cards of the detectors that ship."
    return sorted(path.relative_to(root).as_posix() for path in root.glob(f"{SHELF}/*/README.md"))


def carried_files(root: Path = ROOT) -> list[str]:
    "Files that go onto the site unchanged."
    found = [path for pattern in CARRIED for path in root.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(root).as_posix() for path in found)


def chapter_sentence(readme: str, chapter: str) -> str:
    "What README.md says of a chapter, in the line above its table; raises `DocsError` where it says nothing."
    name = chapter.split("_", 1)[1]
    found = re.search(rf"^\*\*{name}\.\*\* (.+)$", readme, re.M)
    if not found:
        raise DocsError(f"nbs/index.ipynb has no line '**{name}.** …' for the folder nbs/{chapter}: write one.")
    return found[1]


# ---- one notebook
def read_cells(path: Path) -> list[dict[str, Any]]:
    "The cells of a notebook, each with its source as one text."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def heading(text: str, source: str) -> str:
    "The first heading of a Markdown text; raises `DocsError` where it does not begin with one."
    found = re.match(r"# (.+)", text)
    if not found:
        raise DocsError(f"{source} does not begin with '# title': the navigation takes its line from there.")
    return found[1].strip()


def directives(code: str) -> dict[str, str]:
    "nbdev's directives of a cell: `#| export` and the like, with what stands behind them."
    return dict(re.findall(r"^#\| *(\w+) *(.*)$", code, re.M))


def module_of(cells: list[dict[str, Any]]) -> str | None:
    "The module that a notebook exports, `fakeface.data.gate`, or None."
    for cell in cells:
        if cell["cell_type"] == "code" and (name := directives(cell["source"]).get("default_exp")):
            return f"fakeface.{name}"
    return None


def is_door(module: str) -> bool:
    "`__init__` or `__main__`, which names what other modules define."
    return module.rsplit(".", 1)[1].startswith("__")


def fenced(text: str, info: str = "") -> str:
    "Text as a fenced block, whatever backticks it contains."
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{info}\n{text}\n{fence}"


def preformatted(text: str) -> str:
    "What a terminal would show in the end: colours dropped, a line that was overwritten shown once."
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).rstrip("\n")
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in plain.split("\n")]
    return f'<pre class="output">{html.escape(chr(10).join(lines))}</pre>'


class Drawn:
    "A page while it is written: pieces of HTML and image files are put aside and named."

    def __init__(
        self,
        uri: str,  # the page's place
        maths: Callable[[str, bool], str],  # LaTeX, in a line of its own? → HTML
    ):
        self.uri = uri
        self.maths = maths
        self.pieces: list[str] = []
        self.files: dict[str, bytes] = {}

    def put(self, piece: str) -> str:
        "Keep some HTML; what stands for it in the Markdown."
        self.pieces.append(piece)
        return f"⟦{len(self.pieces) - 1}⟧"

    def image(self, kind: str, content: bytes) -> str:
        "Keep an image; the HTML that shows it."
        stem = posixpath.splitext(posixpath.basename(self.uri))[0]
        name = f"{stem}.{len(self.files)}.{IMAGE_ENDINGS[kind]}"
        self.files[posixpath.join(posixpath.dirname(self.uri), name)] = content
        return f'<img class="output" src="{name}" alt="Output of the cell above" loading="lazy">'

    def output(self, output: Mapping[str, Any]) -> str:
        "One output of a cell as HTML; raises `DocsError` for one that cannot be shown."
        if output["output_type"] == "stream":
            return preformatted("".join(output["text"]))
        data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if kind != WIDGET}
        for kind in ("image/png", "image/jpeg"):
            if kind in data:
                return self.image(kind, base64.b64decode(data[kind]))
        if "image/svg+xml" in data:
            return self.image("image/svg+xml", data["image/svg+xml"].encode())
        if WIDGET in output.get("data", {}):
            return NO_WIDGET
        if "text/html" in data:
            return f'<div class="output">{data["text/html"]}</div>'
        if "text/markdown" in data or "text/plain" in data:
            return preformatted(data.get("text/markdown") or data["text/plain"])
        raise DocsError(f"{self.uri}: an output that the site cannot show ({output['output_type']}); run the notebook.")

    def prose(self, text: str) -> str:
        "A Markdown cell with its formulas put aside, so that nothing reads their underscores as emphasis."
        text = re.sub(r"^- skip_\w+: true\n*", "", text, flags=re.M)
        parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.M | re.S)
        for i in range(0, len(parts), 2):
            parts[i] = re.sub(r"\$\$(.+?)\$\$", lambda m: self.put(self.maths(m[1], True)), parts[i], flags=re.S)
            parts[i] = re.sub(r"\$([^$\n]+)\$", lambda m: self.put(self.maths(m[1], False)), parts[i])
        return "".join(parts)

    def code(self, cell: Mapping[str, Any], module: str | None) -> Iterator[str]:
        "A code cell: hidden ones folded, exported ones under the name of their module, then the outputs."
        told = directives(cell["source"])
        code = re.sub(r"^#\|.*\n?", "", cell["source"], flags=re.M).strip("\n")
        if not code:
            return
        if "hide" in told:
            yield self.put("<details><summary>Preparations</summary>")
            yield fenced(code, "python")
            yield self.put("</details>")
        else:
            title = f' title="{module}"' if "export" in told and module else ""
            yield fenced(code, f"python{title}")
        for output in cell["outputs"]:
            yield self.put(self.output(output))


def notebook_page(
    path: str,  # relative to the root
    root: Path = ROOT,
    maths: Callable[[str, bool], str] = lambda formula, block: html.escape(formula),
) -> Page:
    "A notebook as a page; raises `DocsError` where its first cell has no title."
    cells = read_cells(root / path)
    drawn = Drawn(posixpath.splitext(path)[0] + ".md", maths)
    module = module_of(cells)
    text = []
    for i, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            text.append(drawn.prose(cell["source"]))
        elif cell["cell_type"] == "code":
            text += drawn.code(cell, module)
        if i == 0:
            text.append(drawn.put(whence(path, module)))
    title = heading(cells[0]["source"], path)
    return Page(path, drawn.uri, title, "\n\n".join(text), drawn.pieces, drawn.files)


def whence(path: str, module: str | None) -> str:
    "The line below a notebook's title: its file, and the module that it exports."
    name = posixpath.basename(path)
    line = f'<a href="{name}?source">{name}</a>'
    if module and not is_door(module):
        place = "../" * path.count("/") + f"api/{module.split('.')[1]}.md#{module}"
        line += f' · <a href="{place}"><code>{module}</code></a>'
    return f'<p class="whence">{line}</p>'


def with_pieces(text: str, pieces: list[str]) -> str:
    "HTML of a page with what was put aside, in its places."
    return re.sub(r"<p>⟦(\d+)⟧</p>|⟦(\d+)⟧", lambda match: pieces[int(match[1] or match[2])], text)


def chapter_page(chapter: str, rooms: list[Page], readme: str) -> Page:
    "The first page of a chapter: its sentence, and its rooms with theirs."
    name = chapter.split("_", 1)[1]
    lines = [f"# {name}", chapter_sentence(readme, chapter), "| room | what it is about |\n|---|---|"]
    for room in rooms:
        sentence = re.search(r"^> (.+)$", room.text, re.M)
        if not sentence:
            raise DocsError(f"{room.source} has no sentence behind '> ' in its first cell.")
        lines[-1] += f"\n| [{room.title}]({posixpath.basename(room.uri)}) | {sentence[1]} |"
    return Page("", f"nbs/{chapter}/index.md", name, "\n\n".join(lines))


def chapters_page(chapters: Sequence[Page], readme: str) -> Page:
    "The page before all chapters: each with its sentence, in their order."
    lines = ["# Chapters", CHAPTERS, "| chapter | what it is about |\n|---|---|"]
    for chapter in chapters:
        folder = chapter.uri.split("/")[1]
        lines[-1] += f"\n| [{chapter.title}]({folder}/index.md) | {chapter_sentence(readme, folder)} |"
    return Page("", "nbs/index.md", "Chapters", "\n\n".join(lines))


def markdown_page(path: str, root: Path = ROOT) -> Page:
    "A Markdown file of the repository as a page."
    text = (root / path).read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.S)
    return Page(path, path, heading(text, path), text)


# ---- links and names
def public_names(modules: Mapping[str, Path]) -> dict[str, str]:
    "Public name, also `module.name` and `Class.method` → its place, `api/data.md#fakeface.data.gate.auc_of`."
    places = {}
    for module, path in modules.items():
        page = f"api/{module.split('.')[1]}.md"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = exported(tree)
        short = module.removeprefix("fakeface.")
        places[module] = places[short] = f"{page}#{module}"
        for name in names:
            place = f"{page}#{module}.{name}"
            for written in (name, f"{short}.{name}", f"{module}.{name}"):
                places[written] = place
        for cls in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in names):
            for method in public_methods(cls):
                places[f"{cls.name}.{method.name}"] = f"{page}#{module}.{cls.name}.{method.name}"
    return places


def exported(tree: ast.Module) -> list[str]:
    "What a module's `__all__` names."
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def public_methods(cls: ast.ClassDef) -> list[ast.FunctionDef]:
    "Methods without an underscore in front."
    return [node for node in cls.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def link_names(
    text: str,  # HTML of a page
    names: Mapping[str, str],  # as from `public_names`
    uri: str,  # the page
) -> str:
    "Each `<code>name</code>` of a public name becomes a link, except in links, headings, blocks and on its own place."

    def linked(match: re.Match[str]) -> str:
        place = names.get((match["name"] or "").removesuffix("()"))
        if place is None:
            return match[0]
        return f'<a class="name" href="{site_link(uri, place)}">{match[0]}</a>'

    kept = r"<a\b.*?</a>|<pre\b.*?</pre>|<h[1-6]\b.*?</h[1-6]>"
    return re.sub(rf"{kept}|<code>(?P<name>[\w.]+(?:\(\))?)</code>", linked, text, flags=re.S)


def site_link(uri: str, place: str) -> str:
    "The address on one page of another page's place."
    path, _, anchor = place.partition("#")
    address = posixpath.relpath(page_address(path), posixpath.dirname(page_address(uri)) or ".")
    return address + (f"#{anchor}" if anchor else "")


def page_address(path: str) -> str:
    "Where a page's or a notebook's file is on the site."
    if path in (START, NOTEBOOK_START):
        return "index.html"
    return re.sub(r"/README\.html$", "/index.html", re.sub(r"\.(md|ipynb)$", ".html", path))


def mend_links(
    text: str,  # HTML of a page
    source: str,  # the file that it was made from
    uri: str,  # the page
    on_site: set[str],  # files of the repository and pages that the site has
    repository: str,  # where everything else is shown: https://github.com/…/blob/main
    root: Path = ROOT,
) -> str:
    "Links between files of the repository, as the site has them; what is not on the site is shown in the repository."

    def mended(match: re.Match[str]) -> str:
        before, address, after = match.groups()
        if re.match(r"[a-z]+:|#|/", address):
            return match[0]
        address, hash_, anchor = address.partition("#")
        path, _, query = address.partition("?")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source or uri), path))
        if query == "source" or (path not in on_site and (root / path).exists()):
            return f"{before}{repository}/{path}{hash_}{anchor}{after}"
        if path in on_site:
            return f"{before}{site_link(uri, path)}{hash_}{anchor}{after}"
        return match[0]

    return re.sub(r'(<(?:a|img)\b[^>]*?\b(?:href|src)=")([^"]+)(")', mended, text)
