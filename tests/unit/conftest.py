"""What several unit tests share: a bundle that is quick to judge by, and the list of started processes."""

from pathlib import Path

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
