"""The layout of the real data, made small: the README's commands run on it to a report in the published form."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakeface.core.files import read_json
from fakeface.data.manifest import read_manifest
from fakeface.data.plan import plan_sources
from fakeface.data.sources import read_sources, scan_all
from fakeface.testing.datasets import toy_image

COUNT = 40  # images of each class and set
SPLITS = {"train": 28, "valid": 6, "test": 6}
SOURCES = """name,kind,path,ids
140k,140k,data/140k,
tpdne,tpdne,data/tpdne,
tpdne,ffhq,data/ffhq/images1024x1024,auto:40
dalle2,dalle2,data/dalle2,
dalle2,ffhq,data/ffhq/images1024x1024,auto:40
"""


def write_140k(folder: Path) -> None:
    "Folders of splits and classes beside three tables in which 1 is real; photographs are called by FFHQ's numbers."
    number = 0
    for split, count in SPLITS.items():
        lines = [",original_path,id,label,label_str,path"]
        for label, name in ((0, "real"), (1, "fake")):
            part = folder / "real_vs_fake/real-vs-fake" / split / name
            part.mkdir(parents=True)
            for i in range(count):
                stem = f"{number + i:05d}" if label == 0 else f"FAKE{number + i}"
                toy_image("stripes", split, label, number + i, 64).save(part / f"{stem}.jpg", quality=90)
                lines.append(f"{i},,{stem},{1 - label},{name},{split}/{name}/{stem}.jpg")
        number += count
        (folder / f"{split}.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    "A folder with data/ and sources.csv."
    home = tmp_path_factory.mktemp("real")
    write_140k(home / "data/140k")
    for name, domain in (("tpdne", "dots"), ("dalle2", "stripes")):
        folder = home / "data" / name
        folder.mkdir()
        for i in range(COUNT):
            toy_image(domain, name, 1, i, 96).save(folder / f"{name}{i}.jpg", quality=90)
    thousand = home / "data/ffhq/images1024x1024/00000"
    thousand.mkdir(parents=True)
    for i in range(3 * COUNT):
        toy_image("dots", "ffhq", 0, i, 96).save(thousand / f"{i:05d}.png")
    (home / "sources.csv").write_text(SOURCES)
    return home


def test_photographs_are_drawn_for_each_domain_and_follow_the_splits_of_140k(project, tmp_path):
    rows = scan_all(read_sources(project / "sources.csv"), tmp_path / "lists")
    reals = rows[rows.label == 0]
    drawn = {name: set(reals.identity[reals.domain == name]) for name in ("tpdne", "dalle2")}
    assert len(drawn["tpdne"]) == len(drawn["dalle2"]) == COUNT and not drawn["tpdne"] & drawn["dalle2"]
    lists = sorted((tmp_path / "lists").iterdir())
    assert [len(path.read_text().split()) for path in lists] == [COUNT, COUNT]
    again = scan_all(read_sources(project / "sources.csv"), tmp_path / "again")
    assert again.equals(rows)


def test_the_plan_knows_what_there_is_and_writes_nothing(project, tmp_path):
    before = sorted(project.rglob("*"))
    found = plan_sources(project / "sources.csv", tmp_path / "outputs")
    assert found.is_ready and {(cell.domain, cell.label): cell.images for cell in found.cells} == {
        (domain, label): COUNT for domain in ("140k", "tpdne", "dalle2") for label in (0, 1)
    }
    assert sorted(project.rglob("*")) == before and not (tmp_path / "outputs").exists()


# in a process of its own: its peak of memory is then nobody else's
PLANNED = """
import json
import resource
import sys
import time

from fakeface.data.plan import plan_sources

started = time.monotonic()
found = plan_sources(sys.argv[1], sys.argv[2])
seconds = time.monotonic() - started
gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(dict(images=sum(cell.images for cell in found.cells), seconds=seconds, gib=gib)))
"""
FOLDER = 1_000  # images of a folder: a file has so many names at most on some file systems


def planned(home: Path, sources: int, folders: int) -> dict:
    "Plan sources of so many folders a class, every image of a folder under another name of one file."
    image = toy_image("dots", "plan", 0, 0)
    lines = ["name,kind,path"]
    for number in range(sources):
        lines.append(f"big{number},folder,big{number}")
        for name, part in itertools.product(("real", "fake"), range(folders)):
            folder = home / f"big{number}/{name}/part{part:03d}"
            folder.mkdir(parents=True)
            image.save(folder / "0.jpg")
            for i in range(1, FOLDER):
                os.link(folder / "0.jpg", folder / f"{i}.jpg")
    (home / "sources.csv").write_text("\n".join(lines))
    command = [sys.executable, "-c", PLANNED, str(home / "sources.csv"), str(home)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    print(found)
    return found


@pytest.mark.slow
def test_300_000_files_are_planned_in_constant_memory(tmp_path):
    "Ten sources take no more than one of them does; the time is printed and decides nothing."
    one = planned(tmp_path / "one", 1, 15)
    ten = planned(tmp_path / "ten", 10, 15)
    assert (one["images"], ten["images"]) == (30_000, 300_000)
    assert ten["gib"] < 1.15 * one["gib"], "of each source only counts and a few paths are kept"


SMALL = "-p size 64 -p batch 8 -p epochs 1 -p epoch_len 16 -p weights none -p bn_batches 2 -p workers 0 -p device cpu"


@pytest.mark.slow
def test_the_five_commands_run_to_a_report_in_the_published_form(project):
    out = f"-p out {project / 'outputs'}"
    commands = [
        f"prepare  -p run real -p sources {project / 'sources.csv'} {out}",
        f"pretrain -p run real -p domains 140k {SMALL} {out}",
        f"finetune -p run real -p domains 140k,tpdne,dalle2 {SMALL} {out}",
        f"evaluate -p run real -p domains 140k,tpdne,dalle2 -p device cpu -p why_n 0 {out}",
        f"report   -p run real {out}",
    ]
    for command in commands:
        line = [sys.executable, "-m", "fakeface", *command.split()]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    run = project / "outputs/real"
    manifest = read_manifest(run / "prepare/manifest.parquet")
    used = manifest[(manifest.split != "excluded") & (manifest.label == 0)]
    photographs = used[used.source.str.contains("ffhq") | used.domain.isin(("tpdne", "dalle2"))]
    assert photographs.groupby("group").split.nunique().max() == 1, "a photograph is in one split, whatever its domain"
    assert read_json(run / "finetune/engine.json")["engine"]["precision"] in ("fp32", "bf16")
    page = (run / "report.md").read_text()
    table = page.split("Results in the published form")[1].split("As published")[0]
    names = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert [name for name in names if name in ("TPDNE", "140K", "DALL-E 2", "Combined")] == [
        "TPDNE",
        "140K",
        "DALL-E 2",
        "Combined",
    ]
