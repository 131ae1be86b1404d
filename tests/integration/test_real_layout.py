"""The layout of the real data, made small: the README's commands run on it to a report in the published form, and so do
the cells of the how-to for Kaggle, with a stand-in of Kaggle's server."""

import configparser
import http.server
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from fakeface.cli.parameters import given_parameters, stage_parameters
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


# ---- Kaggle: the commands are those of the how-to
ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "nbs/tutorials/howto_kaggle.ipynb"
MOUNT = "140k-real-and-fake-faces"
TINY = "-p arch test_resnet -p size 32 -p batch 8 -p epochs 2 -p epoch_len 64 -p weights none -p bn_batches 2"
# by command: what a CPU needs besides, to be done in seconds
BESIDES = dict(
    pretrain=f"{TINY} -p lr 1e-3 -p workers 0 -p device cpu",
    evaluate="-p device cpu -p why_n 2 -p workers 0",
    prepare="-p workers 0",
)


def how_to_cells() -> list[str]:
    cells = json.loads(HOW_TO.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_every_command_of_the_how_to_is_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line for cell in how_to_cells() for line in cell.splitlines() if re.match("!.*fakeface [a-z]", line)]
    commands = [shlex.split(line.removeprefix("!").removeprefix("timeout 8h "))[1:] for line in lines]
    assert [name for name, *_ in commands] == ["plan", "prepare", "pretrain", "pretrain", "evaluate", "report"]
    for name, *words in commands[1:]:
        pairs = [words[i + 1 : i + 3] for i in range(0, len(words), 3)]
        assert words[::3] == ["-p"] * len(pairs), name
        defaults = {key: parameter.default for key, parameter in stage_parameters(name).items()}
        given_parameters(pairs, defaults, f"parameter of {name}")
    first, second = commands[2:4]
    assert second == [*first, "-p", "resume", "True"], "what is gone on with is the same run"


class Proxy(http.server.BaseHTTPRequestHandler):
    "Says where the attached data set lies, as Kaggle does in its notebooks."

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["datasetRef"]["DatasetSlug"] == MOUNT
        answer = json.dumps(dict(wasSuccessful=True, result=dict(mountSlug=MOUNT, versionNumber=2))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def kaggle(tmp_path):
    "Folders as in Kaggle's notebooks; gives them and the environment of a session."
    top = tmp_path / "kaggle"
    (top / "working").mkdir(parents=True)
    write_140k(top / "input" / MOUNT)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        **os.environ,
        "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
        "KAGGLE_CACHE_MOUNT_FOLDER": str(top / "input"),
        "KAGGLE_DATA_PROXY_URL": f"http://127.0.0.1:{server.server_port}",
        "KAGGLE_DATA_PROXY_TOKEN": "proxy",
        "KAGGLE_USER_SECRETS_TOKEN": "user",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    yield top, environment
    server.shutdown()
    thread.join()
    server.server_close()


# a session of IPython: what cannot be done here has a stand-in, and a command that fails ends it
PRELUDE = """
import subprocess
import tests_hooks

shell = get_ipython()
shell.system = tests_hooks.command
shell.register_magic_function(tests_hooks.pip, magic_name="pip")
"""


def hooks(top: Path) -> str:
    "The module that stands in for `git clone` and `pip`, and for what the length of a session does to a training."
    return f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_real_layout
from pathlib import Path

def pip(line):
    test_real_layout.check_pip(line)

def command(line):
    test_real_layout.run_command(Path({str(top)!r}), line)
"""


def check_pip(line: str) -> None:
    "Nothing is installed; the extras are there."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini")
    for extra in re.search(r"\[(.+)\]", line)[1].split(","):
        assert f"{extra}_requirements" in settings["DEFAULT"], extra


def check_out(line: str) -> None:
    "A checkout of this project in place of the clone of its address."
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini")
    assert line.split()[-1] == settings["DEFAULT"]["git_url"]
    here = Path("fakeface")
    here.mkdir()
    for name in ("settings.ini", "nbs", "fakeface"):
        (here / name).symlink_to(ROOT / name)


def run_command(top: Path, line: str) -> None:
    "One line behind an exclamation mark; raises where it fails."
    print("$", line, flush=True)
    if line.startswith("git clone"):
        return check_out(line)
    limited = line.removeprefix("timeout 8h ")
    name = limited.split()[1]
    if limited.startswith("fakeface "):
        limited = f"{limited} {BESIDES.get(name, '')}".replace("checkpoint_every 500", "checkpoint_every 1")
    if limited.startswith("fakeface pretrain") and "resume" not in limited:
        return end_in_time(top, limited)
    done = subprocess.run(["bash", "-c", limited], stdin=subprocess.DEVNULL, timeout=600)
    assert done.returncode == 0, line


def end_in_time(top: Path, line: str) -> None:
    "What `timeout` does, as soon as there is a checkpoint; then the output is saved and attached to a new session."
    outputs = top / "working/outputs"
    process = subprocess.Popen(["bash", "-c", f"exec {line}"], stdin=subprocess.DEVNULL)
    try:
        while not list(outputs.glob("k140/pretrain/checkpoints/step-*/state.json")):
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM
    finally:
        process.kill()
    shutil.move(outputs, top / "input/k140/outputs")


@pytest.mark.slow
def test_the_how_to_for_kaggle_runs_over_the_end_of_a_session(kaggle, tmp_path):
    pytest.importorskip("kagglehub", reason="kagglehub is not installed (pip install fakeface[fetch])")
    top, environment = kaggle
    before = sorted((path, path.stat().st_mtime_ns) for path in (top / "input" / MOUNT).rglob("*"))
    cells = "\n".join(how_to_cells()).replace("/kaggle/", f"{top}/")
    (tmp_path / "tests_hooks.py").write_text(hooks(top))
    (tmp_path / "session.ipy").write_text(PRELUDE + cells)
    environment["PYTHONPATH"] += f":{tmp_path}"
    command = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", tmp_path / "session.ipy"]
    done = subprocess.run(
        command,
        cwd=top / "working",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        env=environment,
    )
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = top / "working/outputs/k140"
    assert "Continuing at step" in done.stdout
    history = pd.read_csv(run / "pretrain/history.csv")
    steps = 2 * SPLITS["train"] // 8
    assert history.step.tolist() == [steps, 2 * steps], "both epochs, whole"
    assert (run / "report.html").is_file() and (run.parent.parent / "k140.zip").is_file()
    saved = list((top / "input/k140/outputs/k140/pretrain").glob("bundle/bundle.json"))
    assert not saved, "the first session did not end by itself"
    after = sorted((path, path.stat().st_mtime_ns) for path in (top / "input" / MOUNT).rglob("*"))
    assert after == before, "nothing is written beside the data"
