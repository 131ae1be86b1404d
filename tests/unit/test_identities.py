"""Lists of persons anywhere in random collections: each person is known, or the list is refused for a reason."""

import os
import random
import shutil
import warnings
from pathlib import Path

import pytest

from fakeface.data.prepare import PrepareConfig, collect_sources
from fakeface.data.rows import SourceError
from fakeface.data.sources import read_sources, scan, scan_all


class Collection:
    "Sources of random kinds below `top`, some reached by a link, with lists of persons in random folders."

    def __init__(self, seed: int, top: Path):
        self.random, self.top = random.Random(seed), top
        self.images: list[Path] = []
        self.said: dict[Path, set[str]] = {}  # who is shown, as the lists have it
        self.is_lost = False  # does a list name an image that is not there?
        lines = [self._source(number) for number in range(self.random.randint(1, 3))]
        self._touch("other/stray.jpg")
        (top / "sources.csv").write_text("\n".join(["name,kind,path", *lines, ""]))
        for _ in range(self.random.randint(1, 3)):
            self._list_of_persons()

    def _touch(self, folder_and_name: str) -> Path:
        path = self.top / folder_and_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.images.append(path)
        return path

    def _source(self, number: int) -> str:
        "Make a source; its line in sources.csv."
        kind = self.random.choice(["folder", "real", "csv", "tree"])
        base = f"{self.random.choice(['a', 'b/c', 'd/e/f'])}/s{number}"
        below = {
            "folder": ["real", "fake", "real/sub", "fake/sub"],
            "tree": ["x/real", "x/fake", "y/real", "y/fake"],
            "real": ["", "p", "q/r"],
            "csv": ["", "in", "../../far/away"],
        }[kind]
        images = [self._touch(os.path.normpath(f"{base}/{part}/{number}{i}.jpg")) for i, part in enumerate(below)]
        path = base
        if kind == "csv":
            path = f"{base}/table.csv"
            rows = [f"{os.path.relpath(image, self.top / base)},real" for image in images]
            (self.top / path).write_text("\n".join(["path,label", *rows, ""]))
        elif self.random.random() < 0.4:
            path = f"link{number}"
            (self.top / path).symlink_to(self.top / base)
        return f"n{number},{kind},{path}"

    def _list_of_persons(self) -> None:
        "A list in a folder that holds images, directly or not, about images anywhere."
        holding = {folder for image in self.images for folder in image.parents if folder.is_relative_to(self.top)}
        folder = self.random.choice(sorted(holding - {self.top / "other", self.top / "far"}))
        lines = ["path,identity"]
        for image in self.random.sample(self.images, self.random.randint(1, 3)):
            person = self.random.choice(["anna", "anna", "bert", ""])
            lines.append(f"{os.path.relpath(image, folder)},{person}")
            self.said.setdefault(image, set()).add(person)
        if self.random.random() < 0.1:
            lines.append("gone.jpg,anna")
            self.is_lost = True
        path = folder / "identities.csv"
        if path.exists():
            lines = [*path.read_text().splitlines(), *lines[1:]]
        path.write_text("\n".join([*lines, ""]))

    def is_contradicted(self, among: set[Path]) -> bool:
        "Is one of the images shown to be two persons?"
        return any(len(people - {""}) > 1 for image, people in self.said.items() if image in among)


@pytest.mark.parametrize("seed", range(60))
def test_every_list_is_read_or_refused_for_a_reason(seed, tmp_path):
    collection = Collection(seed, Path(os.path.realpath(tmp_path)))
    sources = collection.top / "sources.csv"
    in_sources = set(collection.images) - {collection.top / "other/stray.jpg"}
    if collection.is_lost or collection.is_contradicted(in_sources):
        with pytest.raises(SourceError, match="not there|who is shown"):
            scan_all(read_sources(sources), listed_in=sources)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*none of the images that it names")
        rows = scan_all(read_sources(sources), listed_in=sources)
    assert len(rows) == len(in_sources)
    for path, identity in zip(rows.path, rows.identity):
        assert {identity} == collection.said.get(Path(os.path.realpath(path)), set()) - {""} or {""}, path


def test_the_collections_hold_each_case(tmp_path):
    "Refused and not, with and without a link."
    cases = []
    for seed in range(60):
        top = Path(os.path.realpath(tmp_path)) / "collection"
        top.mkdir()
        collection = Collection(seed, top)
        is_refused = collection.is_lost or collection.is_contradicted(set(collection.images))
        cases.append((is_refused, any(top.glob("link*"))))
        shutil.rmtree(top)
    assert set(cases) == {(False, False), (False, True), (True, False), (True, True)}


def test_a_source_by_itself_reads_the_lists_around_it(tmp_path):
    for name in ("photos/real/1.jpg", "photos/fake/2.jpg", "others/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "identities.csv").write_text("path,identity\nphotos/real/1.jpg,anna\nothers/3.jpg,bert\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photos = scan("folder", tmp_path / "photos", "photos")
        (tmp_path / "identities.csv").write_text("path,identity\nothers/3.jpg,bert\n")
        # about another source, perhaps, of which a source by itself knows nothing
        scan("folder", tmp_path / "photos", "photos")
    assert dict(zip(photos.path.map(os.path.basename), photos.identity)) == {"1.jpg": "anna", "2.jpg": ""}


@pytest.mark.parametrize("named", ["photos", "sources.csv"])
def test_prepare_reads_the_list_beside_a_link(named, tmp_path):
    "`sources` is a link: who is shown may stand beside it, or where it leads."
    for name in ("disk/photos/real/1.jpg", "disk/photos/fake/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "disk/sources.csv").write_text("name,kind,path\nphotos,folder,photos\n")
    (tmp_path / "disk/identities.csv").write_text("path,identity\nphotos/fake/2.jpg,bert\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / named).symlink_to(tmp_path / "disk" / named)
    (project / "identities.csv").write_text(f"path,identity\n{tmp_path}/disk/photos/real/1.jpg,anna\n")
    rows = collect_sources(PrepareConfig(sources=str(project / named)), tmp_path)
    assert dict(zip(rows.path.map(os.path.basename), rows.identity)) == {"1.jpg": "anna", "2.jpg": "bert"}


def test_a_folder_called_demo_is_not_the_demo(tmp_path, monkeypatch):
    "Whatever a list in it says, the demo that is made is about other images."
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/identities.csv").write_text("path,identity\ngone.jpg,anna\n")
    monkeypatch.chdir(tmp_path)
    rows = collect_sources(PrepareConfig(sources="demo"), tmp_path / "prepare")
    assert len(rows) and not (rows.identity == "anna").any()
