"No library reports the use of the project to its maker: nothing is sent, and no identifier is written."

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakeface.testing.images import portrait

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
# nothing else is passed on: where CI, GITHUB_ACTIONS or the like is set, onnxruntime reports nothing of itself
PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LANG", "OMP_NUM_THREADS")
DETECTOR = "from fakeface import Detector; print(Detector.load().check({path!r}).label)"
# a kernel or a worker is a process that is started by one that has imported fakeface
PARENT = """
import subprocess, sys
from fakeface.models.shelf import find_bundle
child = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
subprocess.run([sys.executable, "-c", child, str(find_bundle() / "model.onnx")], check=True)
"""


def _files_at_home(command: list[str], home: Path, **said: str) -> list[str]:
    "What a command leaves in an empty home folder."
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    home.mkdir()
    subprocess.run(command, env=kept | dict(HOME=str(home)) | said, check=True, capture_output=True, timeout=120)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.fixture
def image(tmp_path) -> str:
    path = tmp_path / "drawn.png"
    portrait(300, 360).save(path)
    return str(path)


def test_a_check_leaves_no_identifier(tmp_path, image):
    command = [sys.executable, "-m", "fakeface", "check", image, "--framing", "centre"]
    assert _files_at_home(command, tmp_path / "home") == []


def test_a_detector_leaves_no_identifier(tmp_path, image):
    script = DETECTOR.format(path=image)
    assert _files_at_home([sys.executable, "-c", script], tmp_path / "home") == []


@pytest.mark.skipif(not version("onnxruntime").startswith("1.32."), reason="known of onnxruntime 1.32 only")
def test_the_switch_is_what_counts(tmp_path, image):
    "Switched on by the user, the identifier is written: the other tests look in the right place."
    script = DETECTOR.format(path=image)
    left = _files_at_home([sys.executable, "-c", script], tmp_path / "home", ORT_DISABLE_TELEMETRY="0")
    assert ".cache/Microsoft/DeveloperTools/.onnxruntime/deviceid" in left


def test_a_child_process_leaves_no_identifier(tmp_path):
    assert _files_at_home([sys.executable, "-c", PARENT], tmp_path / "home") == []


def _imports(code: str) -> list[tuple[int, str]]:
    "(line, package) of each import, in the order of the lines."
    found = []
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found += [(node.lineno, name.split(".")[0]) for name in names]
    return sorted(found)


def _code_of(notebook: Path) -> str:
    "The code cells of a notebook, without magics."
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def _comes_too_early(code: str) -> bool:
    "Whether code imports onnxruntime with no import of fakeface before it."
    packages = [package for _, package in _imports(code)]
    if "onnxruntime" not in packages:
        return False
    return "fakeface" not in packages[: packages.index("onnxruntime")]


def test_onnxruntime_is_imported_after_fakeface(root):
    "Its switch is read at import. In the package `fakeface/__init__.py` runs first, elsewhere an import must say so."
    assert _comes_too_early("import onnxruntime as ort\nimport fakeface")
    assert _comes_too_early("def f():\n    from onnxruntime import InferenceSession")
    assert not _comes_too_early("from fakeface.infer import Detector\nimport onnxruntime")
    code = {path: _code_of(path) for path in (root / "nbs").rglob("*.ipynb") if "checkpoints" not in str(path)}
    for folder in ("tests", "docs"):
        code |= {path: path.read_text() for path in (root / folder).rglob("*.py")}
    assert len(code) > 200
    early = [str(path) for path, text in code.items() if _comes_too_early(text)]
    assert not early, "import something of fakeface first: it switches off what onnxruntime sends"


def test_nothing_runs_before_the_switches(root):
    "`fakeface/__init__.py` imports nothing but the standard library before it sets them."
    tree = ast.parse((root / "fakeface/__init__.py").read_text())
    at_import = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name for node in at_import for _, name in _imports(ast.unparse(node))}
    assert names <= sys.stdlib_module_names
    calls = [ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Expr)]
    assert "_send_nothing()" in calls


SAYS = """
import os, subprocess, sys
import fakeface
child = "import os; print(os.environ['RAY_USAGE_STATS_ENABLED'])"
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""


@pytest.mark.parametrize("said, seen", [(None, "0"), ("", "0"), ("1", "1"), ("0", "0")])
def test_ray_finds_its_reports_switched_off(said, seen):
    "Ray reads the variable when it starts, takes 0 and 1 and nothing else, and hands it to its processes."
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    given = {} if said is None else dict(RAY_USAGE_STATS_ENABLED=said)
    ran = subprocess.run([sys.executable, "-c", SAYS], env=kept | given, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == seen


def test_ray_starts_after_fakeface_in_the_how_to(root):
    code = _code_of(root / "nbs/tutorials/howto_ray.ipynb")
    assert code.index("import score_batch") < code.index("ray.init(")


def test_ray_takes_the_switch_at_its_word():
    "Ray's own answer, where it is installed (extra `ray`)."
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'fakeface[ray]'")
    script = "import fakeface; from ray._private.usage import usage_lib; print(usage_lib.usage_stats_enabled())"
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    ran = subprocess.run([sys.executable, "-c", script], env=kept, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_every_switch_is_in_the_promise(root):
    promise = (root / "SECURITY.md").read_text()
    tree = ast.parse((root / "fakeface/__init__.py").read_text())
    (switches,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and "_QUIET" in ast.unparse(node)
    ]
    assert set(switches) == set(SWITCHES)
    assert all(f"`{name}={value}`" in promise for name, value in switches.items())


def test_jupyterlab_asks_for_no_news(root):
    settings = SimpleNamespace(ServerApp=SimpleNamespace(), LabApp=SimpleNamespace())
    path = root / ".jupyter/jupyter_server_config.py"
    exec(compile(path.read_text(), str(path), "exec"), dict(c=settings))
    jupyterlab = pytest.importorskip("jupyterlab")
    assert settings.LabApp.news_url is None
    assert settings.LabApp.check_for_updates_class == "jupyterlab.NeverCheckForUpdate"
    assert issubclass(jupyterlab.NeverCheckForUpdate, jupyterlab.handlers.announcements.CheckForUpdateABC)
