"""Rooms and modules: the order of imports, what a module may import, one meaning a name, light imports."""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fakeface"
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("[0-9]*.ipynb") if ".ipynb_checkpoints" not in p.parts)
ENTRANCES = ("__init__", "__main__")  # front doors: they import lazily, or everything
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.stem not in (*ENTRANCES, "_modidx"))


def exported_module(notebook):
    "What the notebook's `default_exp` names, or None."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = re.search(r"#\| *default_exp +(\S+)", "\n".join("".join(c["source"]) for c in cells))
    return found and found[1]


# module → notebook; the notebooks' sorted names are their order: chapter, then number
ROOMS = {module: str(p.relative_to(ROOT / "nbs")) for p in NOTEBOOKS if (module := exported_module(p))}


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def resolved(node, package):
    "The modules that an import statement names, relative ones resolved against `package`."
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parents = package[: len(package) - node.level + 1] if node.level else ()
    base = ".".join([*parents, *filter(None, [node.module])])
    if base.removeprefix("fakeface.") in ROOMS:
        return [base]
    return [f"{base}.{alias.name}" for alias in node.names]


def imports(path):
    "(module, at top level?) for every import in a file of the package."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("fakeface", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((name, node in tree.body) for name in resolved(node, package))


each_module = pytest.mark.parametrize("path", MODULES, ids=module_name)


@each_module
def test_room_imports_only_earlier_rooms(path):
    assert module_name(path) in ROOMS, f"no notebook exports {path.name}"
    here = ROOMS[module_name(path)]
    for name, _ in imports(path):
        room = ROOMS.get(name.removeprefix("fakeface."))
        assert room is None or room < here, f"{here} imports {room}"


@each_module
def test_room_reads_well_alone(path):
    for name, at_top in imports(path):
        library = name.split(".")[0]
        assert library not in ("nbdev", "fastcore", "execnb", "ghapi"), f"{name} is only there for development"
        if at_top:
            assert library not in ("papermill", "IPython", "ipykernel", "nbformat"), f"imports {name} at its top"
        if library == "ipywidgets":
            assert path.stem.startswith("checker"), f"only the checker imports {name}"


def test_a_public_name_has_one_meaning():
    homes = defaultdict(set)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            for name in names:
                homes[name].add(module_name(path))
    twice = {n: sorted(where) for n, where in homes.items() if len(where) > 1 and not n.startswith("_") and n != "main"}
    assert not twice


def loaded_by(statement):
    "The heavy libraries that an import brings into a fresh interpreter."
    heavy = "torch torchvision timm pandas sklearn matplotlib IPython ipywidgets".split()
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return run.stdout.strip() + run.stderr


LIGHT = "images.decode models.bundle models.shelf models.session infer.detector infer.folder infer.doctor infer"


@pytest.mark.parametrize("module", LIGHT.split())
def test_light_rooms_stay_light(module):
    assert loaded_by(f"import fakeface.{module}") == "[]"


INDEX_ROW = re.compile(r"^\| \[\w+\]\((\d\d_\w+/\w+\.ipynb)\)", re.MULTILINE)


def following_rooms():
    "(room, the room after it) in the order of the tables in nbs/index.ipynb; a stage follows the last one."
    cells = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    listed = INDEX_ROW.findall("\n".join("".join(cell["source"]) for cell in cells))
    assert sorted(listed) == [
        str(path.relative_to(ROOT / "nbs")) for path in NOTEBOOKS if path.parent.name[0].isdigit()
    ]
    return list(zip(listed, [*listed[1:], "run_prepare.ipynb"], strict=True))


def test_a_room_ends_with_the_way_to_the_next():
    lost = []
    for room, following in following_rooms():
        place = ROOT / "nbs" / room
        last = json.loads(place.read_text(encoding="utf-8"))["cells"][-1]
        links = re.findall(r"\]\(([^)]+\.ipynb)\)", "".join(last["source"]).rpartition("Next:")[2])
        leads_on = [(place.parent / link).resolve() for link in links] == [(ROOT / "nbs" / following).resolve()]
        if last["cell_type"] != "markdown" or not leads_on:
            lost.append(f"{room} should end with a cell 'Next:' and one link, to {following}")
    assert not lost, lost
