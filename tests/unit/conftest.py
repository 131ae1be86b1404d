"""What several unit tests share: a bundle that is quick to judge by, and the list of started processes."""

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from fakeface.testing.bundles import tiny_bundle


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "The folder of a bundle that only looks at how bright an image is."
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    tiny_bundle(folder, slope=12.0, size=16, band=[0.4, 0.6])
    return folder


@pytest.fixture
def children():
    "A function that lists the processes started from here, ended ones among them that nobody has asked how."
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("processes are counted as Linux lists them")

    def started():
        return {int(number) for each in tasks.glob("*/children") for number in each.read_text().split()}

    return started


class FakeHub:
    "A model hub that has one bundle under any name, or fails."

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, folder: Path):
        self.snapshot = folder / self.commit
        self.asked: list[tuple] = []  # repository, file, revision
        self.cached: list[tuple] = []  # repository, revision: of what was looked for in the cache
        self.error: Exception | None = None

    def serve(self, bundle):
        "Have the files of a bundle."
        self.snapshot.symlink_to(bundle)

    def fail(self, error):
        "Answer no question."
        self.error = error

    def model_info(self, repo, **_):
        if self.error:
            raise self.error
        siblings = [SimpleNamespace(rfilename=path.name) for path in self.snapshot.iterdir()]
        return SimpleNamespace(sha=self.commit, siblings=siblings)

    def download(self, repo, name, revision=None):
        self.asked.append((repo, name, revision))
        return str(self.snapshot / name)

    def look_in_cache(self, repo, revision=None, local_files_only=False, **_):
        assert local_files_only
        self.cached.append((repo, revision))
        raise FileNotFoundError


@pytest.fixture
def hub(monkeypatch, tmp_path):
    "In the place of the model hub and of its client's cache."
    fake = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.look_in_cache)
    return fake
