"""The whole site: which pages there are, in which order they stand, and where each name is told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docs.api import api_page, module_paths
from docs.pages import (
    NOTEBOOK_START,
    PROJECT,
    START,
    DocsError,
    Page,
    Tree,
    card_paths,
    carried_files,
    chapter_page,
    chapters_page,
    is_door,
    markdown_page,
    module_of,
    notebook_page,
    notebooks,
    public_names,
    read_cells,
    room_paths,
    stage_paths,
)

Maths = Callable[[str, bool], str]
OPEN_REPORT = "[The report with its figures](report.html), as it ships beside the detector."


@dataclass(frozen=True)
class Site:
    "Pages by their place, their order, the public names, and the files of the repository that the site has."

    pages: dict[str, Page]
    nav: list[dict[str, object]]
    names: dict[str, str]  # public name → place
    places: set[str]
    carried: list[str]


def as_nav(tree: Tree) -> list[dict[str, object]]:
    "The tree as MkDocs reads it."
    return [{title: below if isinstance(below, str) else as_nav(below)} for title, below in tree]


def exported_modules(root: Path) -> dict[str, Path]:
    "Module → file, in the order of the rooms; raises `DocsError` where a room's module is not there."
    found = module_paths(root / "fakeface")
    ordered = {}
    for path in (path for rooms in room_paths(root).values() for path in rooms):
        module = module_of(read_cells(root / path))
        if module is None or is_door(module):
            continue
        if module not in found:
            raise DocsError(f"{path} exports {module}, and there is no such file: run nbdev_export.")
        ordered[module] = found[module]
    return ordered


def results_page(report: str, root: Path) -> Page:
    "The text of a shipped report, with a link to the report itself; raises `DocsError` where the text is missing."
    folder = report.rsplit("/", 1)[0]
    source = root / folder / "report.md"
    if not source.is_file():
        raise DocsError(f"{report} has no report.md beside it: `fakeface report` writes both.")
    page = markdown_page(f"{folder}/report.md", root)
    head, _, rest = page.text.partition("\n")
    name = folder.rsplit("/", 1)[1].removesuffix(".results")
    return Page(page.source, f"{folder}/index.md", f"{name}: results", f"{head}\n\n{OPEN_REPORT}\n{rest}")


def build_tree(root: Path, maths: Maths) -> Site:
    "Read everything; nothing is written."
    readme = (root / START).read_text(encoding="utf-8")
    pages: dict[str, Page] = {}

    def added(page: Page) -> tuple[str, str]:
        pages[page.uri] = page
        return page.title, page.uri

    def of_notebooks(paths: list[str]) -> list[tuple[str, str]]:
        return [added(notebook_page(path, root, maths)) for path in paths]

    chapters: list[tuple[str, Tree]] = []
    firsts: list[Page] = []
    for chapter, rooms in room_paths(root).items():
        below = of_notebooks(rooms)
        first = chapter_page(chapter, [pages[uri] for _, uri in below], readme)
        chapters.append((first.title, [added(first), *below]))
        firsts.append(first)
    modules = exported_modules(root)
    reference: list[tuple[str, str]] = []
    for chapter in dict.fromkeys(module.split(".")[1] for module in modules):
        of_chapter = {module: path for module, path in modules.items() if module.split(".")[1] == chapter}
        reference.append(added(api_page(chapter, of_chapter)))
    detector = [added(markdown_page(path, root)) for path in card_paths(root)]
    detector += [added(results_page(path, root)) for path in carried_files(root) if path.endswith("/report.html")]
    tree: Tree = [
        ("Start", added(markdown_page(START, root))[1]),
        ("Tutorials", of_notebooks(notebooks(root, "nbs/tutorials"))),
        ("Stages", of_notebooks(stage_paths(root))),
        ("Chapters", [added(chapters_page(firsts, readme)), *chapters]),
        ("Benchmarks", of_notebooks(notebooks(root, "nbs/benchmarks"))),
        ("Reference", reference),
        ("Detector", detector),
        ("Project", [added(markdown_page(path, root)) for path in PROJECT]),
    ]
    carried = carried_files(root)
    places = {NOTEBOOK_START, *carried, *pages, *(page.source for page in pages.values() if page.source)}
    return Site(pages, as_nav(tree), public_names(modules), places, carried)
