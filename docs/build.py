"""`make docs`: writes the pages, lets the site generator render them, puts outputs and links in, checks every link.

python -m docs.build              # into _site/
python -m http.server -d _site    # to look at it; the search needs a server
"""

import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.links import dead_links
from docs.pages import ROOT, DocsError, Page, link_names, mend_links, page_address, with_pieces
from docs.site_tree import Site, build_tree

HERE = Path(__file__).resolve().parent


def maths(formula: str, block: bool) -> str:
    "LaTeX as MathML, which browsers draw without a script."
    from latex2mathml.converter import convert  # pyright: ignore[reportMissingImports]

    return convert(formula, display="block" if block else "inline")


def settings(root: Path) -> dict[str, str]:
    "Package metadata: settings.ini states it."
    ini = ConfigParser(delimiters=["="])
    ini.read(root / "settings.ini", encoding="utf-8")
    return dict(ini["DEFAULT"])


def write_pages(
    site: Site,
    folder: Path,
    config: dict[str, str],  # as from `settings`
    root: Path,  # of the repository
) -> None:
    "The Markdown of all pages, the files beside them, and the generator's configuration with the navigation."
    shutil.copytree(HERE / "static", folder / "pages")
    files: dict[str, bytes] = {path: (root / path).read_bytes() for path in site.carried}
    for page in site.pages.values():
        files[page.uri] = page.text.encode()
        files |= page.files
    for place, content in files.items():
        path = folder / "pages" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    stated = dict(
        site_name=config["title"],
        site_description=config["description"],
        site_url=f"{config['doc_host']}{config['doc_baseurl']}/",
        extra=dict(generator=False, social=[dict(icon="fontawesome/brands/git-alt", link=config["git_url"])]),
        nav=site.nav,
    )
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in stated.items()]
    text = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    (folder / "mkdocs.yml").write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def finish_page(
    text: str,  # HTML as the generator wrote it
    page: Page,
    site: Site,
    repository: str,  # where files that the site lacks are shown
    root: Path,
) -> str:
    "A page with its outputs and formulas, and its names and files as links."
    before, article, after = re.split(r"(<article\b.*</article>)", text, maxsplit=1, flags=re.S)
    article = with_pieces(link_names(article, site.names, page.uri), page.pieces)
    return before + mend_links(article, page.source, page.uri, site.places, repository, root) + after


def finish_search(folder: Path) -> None:
    "The search's index without the signs that stood for outputs."
    for path in folder.glob("search*.json"):
        path.write_text(re.sub(r"⟦\d+⟧", "", path.read_text(encoding="utf-8")), encoding="utf-8")


def build(
    out: Path,  # folder of the site
    generator: list[str],  # command that renders a folder with a mkdocs.yml
    root: Path = ROOT,
) -> int:
    "Make the site; how many pages it has. Raises `DocsError` for dead links, with a line for each."
    config = settings(root)
    site = build_tree(root, maths)
    with TemporaryDirectory() as name:
        work = Path(name)
        write_pages(site, work, config, root)
        subprocess.run([*generator, "-f", str(work / "mkdocs.yml")], check=True, stdin=subprocess.DEVNULL)
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(work / "site", out)
    repository = f"{config['git_url']}/blob/{config['branch']}"
    for page in site.pages.values():
        path = out / page_address(page.uri)
        text = finish_page(path.read_text(encoding="utf-8"), page, site, repository, root)
        path.write_text(text, encoding="utf-8")
    finish_search(out)
    if dead := list(dead_links(out, f"{config['doc_baseurl']}/")):
        raise DocsError("\n".join([*dead, f"{len(dead)} links lead nowhere: fix them where the page is written."]))
    return len(site.pages)


if __name__ == "__main__":
    try:
        n = build(ROOT / "_site", [sys.executable, "-m", "zensical", "build"])
    except DocsError as error:
        sys.exit(str(error))
    print(f"{n} pages in _site/")
