"The how-to for many machines, on a local Ray where it is installed (extra `ray`)."

import os
import subprocess
import sys
import nbformat
import pytest

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'fakeface[ray]'")


def test_the_how_to_runs_and_agrees_with_one_machine(root, tmp_path):
    cells = nbformat.read(root / "nbs/11_infer/04_folder.ipynb", 4).cells
    space = {}
    exec(
        "import numpy as np\nfrom pathlib import Path\nfrom PIL import Image\n"
        + next(c.source for c in cells if "def tiny_bundle" in c.source),
        space,
    )
    tiny = space["tiny_bundle"](tmp_path / "tiny")
    space["grey_pictures"](tmp_path / "in", 50)
    (tmp_path / "in/00020.png").write_bytes(b"no picture")
    steps = [
        c.source
        for c in nbformat.read(root / "nbs/tutorials/howto_ray.ipynb", 4).cells
        if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])
    ]
    script = "\n".join(
        [
            f"import os; pictures, bundle, out, address = {str(tmp_path / 'in')!r}, {str(tiny)!r}, {str(tmp_path / 'out')!r}, None",
            "import ray; ray.init(num_cpus=2, object_store_memory=100*2**20, include_dashboard=False, log_to_driver=False)",
            *steps,
            "from fakeface.infer.folder import check_paths, walk; from fakeface.infer.detector import Detector",
            "here = {p: vs[0] for p, vs in check_paths(Detector.load(bundle, threads=1), walk([pictures]))}; there = {r['path']: r for r in rows.take_all()}",
            "assert set(here) == set(there) and len(here) == 50",
            "same = lambda v, r: v.label == r['label'] and v.error == r['error'] and (v.error or abs(v.p_fake - r['p_fake']) < 1e-6)",
            "assert all(same(v, there[p]) for p, v in here.items()); print('agreed')",
        ]
    )
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    r = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=env
    )
    assert r.returncode == 0 and r.stdout.rstrip().endswith("agreed"), r.stdout[-2000:] + r.stderr[-4000:]
