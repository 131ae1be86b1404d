"What holds for the project as a whole: rooms, stage notebooks, cleanliness, agreement of what is written twice."

import ast
import configparser
import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")
BIN = Path(sys.executable).parent  # where nbdev and jupyter are beside this interpreter


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def code(nb):
    return [c for c in nb["cells"] if c["cell_type"] == "code"]


def exports(path):
    return re.search(r"#\| *default_exp +(\S+)", "\n".join(map(source, code(read(path)))))


COMPONENTS = sorted(p for p in (ROOT / "nbs").rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in p.parts)
ROOMS = {
    m[1]: str(nb.relative_to(ROOT / "nbs")) for nb in COMPONENTS if (m := exports(nb))
}  # module → notebook; sorted names are the order: chapter, then number
MODULES = sorted(p for p in (ROOT / "fakeface").rglob("*.py") if p.stem not in ("__init__", "__main__", "_modidx"))
module_name = lambda p: ".".join(p.relative_to(ROOT / "fakeface").with_suffix("").parts)
by_name = dict(ids=lambda p: f"{p.parent.name}-{p.stem}" if isinstance(p, Path) else str(p))


def tracked():
    "Files that git knows or would add."
    r = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if r.returncode:
        pytest.skip("this is not a git checkout")
    return [ROOT / p for p in r.stdout.split("\0") if p and (ROOT / p).is_file()]


def imports(path):
    "(module, at top level?) for every import in a file of the package; relative ones are resolved."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("fakeface", *path.relative_to(ROOT / "fakeface").parent.parts)
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((a.name, top) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) - node.level + 1 if node.level else 0], *filter(None, [node.module])]
            )
            yield from (
                [(base, top)]
                if base.removeprefix("fakeface.") in ROOMS
                else [(f"{base}.{a.name}", top) for a in node.names]
            )


# ---- rooms
@pytest.mark.parametrize("path", MODULES, **by_name)
def test_room_imports_only_lower_rooms(path):
    assert module_name(path) in ROOMS, f"no notebook exports {path.name}"
    here = ROOMS[module_name(path)]
    for name, _ in imports(path):
        if (room := name.removeprefix("fakeface.")) in ROOMS:
            assert ROOMS[room] < here, f"{here} imports {ROOMS[room]}"


@pytest.mark.parametrize("path", MODULES, **by_name)
def test_room_reads_well_alone(path):
    for name, top in imports(path):
        first = name.split(".")[0]
        assert first not in ("nbdev", "fastcore", "execnb", "ghapi"), (
            f"{path.name} imports {name}, which is only there for development"
        )
        assert not (top and first in ("papermill", "IPython", "ipykernel", "nbformat")), (
            f"{path.name} imports {name} at its top"
        )
        assert first != "ipywidgets" or path.stem.startswith("checker"), f"only the checker imports {name}"


def test_light_rooms_stay_light():
    heavy = "torch torchvision timm pandas sklearn matplotlib IPython ipywidgets".split()
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, fakeface.images.decode, fakeface.models.bundle, fakeface.infer.detector, fakeface.infer.folder, fakeface.infer.doctor; print([m for m in {heavy} if m in sys.modules])",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert out.stdout.strip() == "[]", out.stdout + out.stderr


# ---- notebooks
@pytest.mark.parametrize("path", COMPONENTS, **by_name)
def test_component_notebook_shows_what_it_did(path):
    nb = read(path)
    outputs = [o for c in code(nb) for o in c["outputs"]]
    assert outputs, "run it (make notebooks): a component notebook carries its outputs"
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert source(nb["cells"][0]).startswith("# ") and "\n> " in source(nb["cells"][0]), (
        "the first cell is a title and one sentence"
    )
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize("stage", STAGES)
def test_stage_notebook_only_calls_the_library(stage):
    nb = read(ROOT / f"nbs/run_{stage}.ipynb")
    tagged = [c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and len(nb["cells"]) <= 15
    first = source(tagged[0])
    assert first.lower().startswith("# parameters"), "core.stage_config finds the cell by this line"
    tree = ast.parse(first)
    lines = first.splitlines()
    assert all(isinstance(n, ast.Assign) and len(n.targets) == 1 for n in tree.body)
    values = {n.targets[0].id: ast.literal_eval(n.value) for n in tree.body}
    assert all(isinstance(v, (bool, int, float, str, type(None))) for v in values.values()), "papermill passes scalars"
    assert all("#" in lines[n.lineno - 1] for n in tree.body), "a comment for each parameter"
    assert {"run", "out", "overwrite", "resume"} <= set(values)
    for c in code(nb):
        plain = "\n".join("pass" if l.lstrip().startswith(("%", "!")) else l for l in source(c).splitlines())
        assert not any(
            isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for n in ast.walk(ast.parse(plain))
        )


def test_notebooks_hold_nothing_private():
    for path in tracked():
        if path.suffix != ".ipynb":
            continue
        nb, text = read(path), path.read_text(encoding="utf-8")
        where = json.dumps(nb["metadata"].get("papermill", {})) + "".join(
            json.dumps(c["metadata"].get("papermill", {})) for c in nb["cells"]
        )
        assert not re.search(r'"(/|[A-Za-z]:\\\\)', where), f"{path.name}: absolute paths in metadata.papermill"
        assert "FileUploadModel" not in json.dumps(nb["metadata"].get("widgets", {})), (
            f"{path.name}: an upload's bytes are stored in it"
        )
        assert not (m := re.search(r"(?<![\w./-])/(home|root|Users|work|mnt)/\w+", text)), (
            f"{path.name}: speaks of {m[0]}"
        )


def test_no_pictures_of_people_are_tracked():
    "Raster pictures under outputs/ may show faces, so there are none; and no picture of the development sets is anywhere."
    pictures = [
        p
        for p in tracked()
        if p.suffix.lower()
        in (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".pgm", ".tif", ".tiff", ".avif", ".heic")
    ]
    assert not [p for p in pictures if p.is_relative_to(ROOT / "outputs")]
    if faces := os.environ.get("FAKEFACE_FACES"):
        known = set(
            re.findall(r"\b[0-9a-f]{64}\b", Path(faces, "MANIFEST.csv").read_text(encoding="utf-8", errors="replace"))
        )
        assert not [p for p in pictures if hashlib.sha256(p.read_bytes()).hexdigest() in known]


# ---- what is written twice agrees
def test_clean_and_export_change_nothing(tmp_path):
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for d in ("nbs", "fakeface"):
        shutil.copytree(ROOT / d, tmp_path / d, ignore=skip)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run(
            [BIN / command], cwd=tmp_path, env=env, check=True, stdin=subprocess.DEVNULL, capture_output=True
        )
    for d in ("nbs", "fakeface"):
        files = sorted(
            {
                p.relative_to(b)
                for b in (ROOT / d, tmp_path / d)
                for p in b.rglob("*")
                if p.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)
            }
        )
        _, differ, missing = filecmp.cmpfiles(ROOT / d, tmp_path / d, files, shallow=False)
        assert not (differ or missing), f"{d}/: run nbdev_clean and nbdev_export: {[*map(str, differ + missing)]}"


def test_readme_is_the_index(tmp_path):
    subprocess.run(
        ["make", "readme", f"BIN={BIN}", f"README={tmp_path / 'README.md'}"],
        cwd=ROOT,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == (tmp_path / "README.md").read_text(encoding="utf-8"), "run make readme"
    assert not [p.name for p in COMPONENTS if f"(nbs/{p.relative_to(ROOT / 'nbs')})" not in text], (
        "a notebook is missing in the index"
    )
    links = [l for l in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", l)]
    assert not [l for l in links if not (ROOT / l.split("#")[0]).exists()], "a link leads nowhere"


def test_version_and_metadata_are_stated_once():
    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = ini["DEFAULT"]
    assert re.search(r'"(.+)"', (ROOT / "fakeface/__init__.py").read_text())[1] == cfg["version"]
    assert f"## {cfg['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert cfg["tst_flags"].split() == ["notest", "cuda", "slow"] and cfg["allowed_cell_metadata_keys"] == "tags"


def test_constraints_satisfy_the_requirements():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    lines = [l for l in (ROOT / "constraints.txt").read_text().splitlines() if l and not l.startswith("#")]
    pins = {canonicalize_name(r.name): str(r.specifier)[2:] for r in map(Requirement, lines)}
    assert not [n for n in pins if re.match("nvidia|cuda|triton|fakeface", n)]
    for r in (Requirement(r) for k, v in ini["DEFAULT"].items() if k.endswith("requirements") for r in v.split()):
        assert r.specifier.contains(pins[canonicalize_name(r.name)], prereleases=True), r


@pytest.mark.slow
def test_wheel_carries_templates_and_bundles(tmp_path):
    for d in ("fakeface", "outputs/models", "nbs"):
        shutil.copytree(ROOT / d, tmp_path / d, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for f in ("settings.ini", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / f, tmp_path)
    (tmp_path / "outputs/models/planted").mkdir()
    (tmp_path / "outputs/models/planted/bundle.json").write_text("{}")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path / "dist", tmp_path],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    names = zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))).namelist()
    package = [
        str(p.relative_to(ROOT)) for p in (ROOT / "fakeface").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    assert set(package) | {
        "fakeface/bundles/planted/bundle.json",
        "fakeface/bundles/README.md",
        "fakeface/pages/check.ipynb",
    } <= set(names)


def test_what_must_be_there_is_there():
    for name in (
        "README.md LICENSE CHANGELOG.md MANIFEST.in Makefile constraints.txt settings.ini setup.py .gitignore .ci/run outputs/README.md outputs/models".split()
        + [f".github/workflows/{w}.yml" for w in ("test", "gpu", "docs")]
        + [f"nbs/run_{s}.ipynb" for s in STAGES]
    ):
        assert (ROOT / name).exists(), name
    assert os.access(ROOT / ".ci/run", os.X_OK)
