"The how-to for many machines, on a local Ray where it is installed (extra `ray`)."

import os
import subprocess
import sys

import nbformat
import pytest
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.images import write_grey_images

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'fakeface[ray]'")

BEFORE = """
import sys
import ray

images, bundle, out = sys.argv[1:]
address = None
ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
"""
AFTER = """
from fakeface import Detector
from fakeface.infer.listing import walk
from fakeface.infer.pool import check_paths

here = {path: verdicts[0] for path, verdicts in check_paths(Detector.load(bundle, threads=1), walk([images]))}
there = {row["path"]: row for row in rows.take_all()}
assert set(here) == set(there) and len(here) == 50
for path, verdict in here.items():
    row = there[path]
    assert verdict.label == row["label"] and verdict.error == row["error"]
    assert verdict.error or abs(verdict.p_fake - row["p_fake"]) < 1e-6
stricter = check_paths(Detector.load(bundle, threads=1), walk([images]), threshold=0.9)
expected = {path: verdicts[0].label for path, verdicts in stricter}
assert {row["path"]: row["label"] for row in strict.take_all()} == expected
print("agreed")
"""


def test_the_how_to_runs_and_agrees_with_one_machine(root, tmp_path):
    tiny_bundle(tmp_path / "tiny", slope=12.0, size=16, band=[0.4, 0.6])
    write_grey_images(tmp_path / "in", 50)
    (tmp_path / "in/00020.png").write_bytes(b"no image")
    cells = nbformat.read(root / "nbs/tutorials/howto_ray.ipynb", 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    steps = [cell.source for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    script = "\n".join([BEFORE, *steps, AFTER])
    folders = [str(tmp_path / name) for name in ("in", "tiny", "out")]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", script, *folders]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert ran.returncode == 0 and ran.stdout.rstrip().endswith("agreed"), ran.stdout[-2000:] + ran.stderr[-4000:]
