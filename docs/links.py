"""The link check: every link, image, style and script on the built site leads to a file that is there, and every
`#place` to an element that is there. Other servers are not asked."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINKS = re.compile(r'<(?:a|img|link|script|iframe|source)\b[^>]*?\s(?:href|src)=("[^"]*"|\'[^\']*\'|[^\s>]+)')
PLACES = re.compile(r'<[^>]+?\s(?:id|name)="?([^"\s>]+)')


@cache
def read_page(page: Path) -> str:
    "A page without the text of its scripts."
    return re.sub(r"(<script\b[^>]*>).*?</script>", r"\1", page.read_text(encoding="utf-8"), flags=re.S)


@cache
def places(page: Path) -> set[str]:
    "The names of a page's elements, to which a `#place` can lead."
    return {unescape(name) for name in PLACES.findall(read_page(page))}


def target(site: Path, page: Path, path: str, base: str) -> Path:
    "The file that a path leads to from a page; `base` is the site's own path on its server."
    if path.startswith("/"):
        file = site / path.removeprefix(base).lstrip("/")
    else:
        file = page.parent / path if path else page
    return file / "index.html" if file.is_dir() else file


def dead_links(
    site: Path,  # folder of the built site
    base: str = "/",  # path of the site on its server
) -> Iterator[str]:
    "A line for each link that leads nowhere: the page, the link, and what is missing."
    read_page.cache_clear()
    places.cache_clear()
    for page in sorted(site.rglob("*.html")):
        for link in sorted({unescape(link.strip("\"'")) for link in LINKS.findall(read_page(page))}):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            file = target(site, page, unquote(parts.path), base)
            where = f"{page.relative_to(site)}: {link}"
            if not file.is_file():
                yield f"{where}: there is no such file"
            elif parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in places(file.resolve()):
                yield f"{where}: there is no such place on that page"


if __name__ == "__main__":
    found = list(dead_links(Path(sys.argv[1]), *sys.argv[2:]))
    sys.exit("\n".join(found) or None)
