"What all tests share: one core a process, the marker `slow`, the project root."

import os
from pathlib import Path
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch; children inherit it
os.environ.setdefault("MPLBACKEND", "agg")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: runs with `make test-all` only")


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[1]
