"""What a cross-validation has trained is there until its answer is written: a kill costs no part."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fakeface.core.files import read_json
from fakeface.evaluate import cross_validate as room
from fakeface.train.recipe import train_config

CLASS = 30  # images
PARTS = 3


@pytest.fixture
def manifest(tmp_path) -> pd.DataFrame:
    "Sixty images of one domain, all of them for training, and too small for a face to be looked for."
    label = np.repeat([0, 1], CLASS)
    path = [f"{number}.jpg" for number in range(2 * CLASS)]
    names = dict.fromkeys(("identity", "source"), "")
    names |= dict(width=8, height=8)
    rows = pd.DataFrame(dict(path=path, domain="mine", label=label, split="train", group=path, sha256=path, **names))
    rows.attrs = dict(root=str(tmp_path))
    return rows


@pytest.fixture
def trained(monkeypatch) -> list[Path]:
    "The folders in which a part was trained; a part takes no time here."
    folders = []

    def fit(cfg, table, folder):
        (folder / "bundle").mkdir(parents=True)
        folders.append(folder)

    def scored(bundle, held, device):
        p_fake = np.linspace(0, 1, len(held))
        return held.assign(p_fake=p_fake, pred=(p_fake > 0.5).astype(int))[
            ["path", "domain", "label", "p_fake", "pred"]
        ]

    monkeypatch.setattr(room, "fit", fit)
    monkeypatch.setattr(room, "_scores_of", scored)
    monkeypatch.setattr(room, "manifest_hash", lambda rows: "0" * 64)
    monkeypatch.setattr(room, "read_bundle", lambda path: SimpleNamespace(hash="1" * 64, parent=None, averaged=[]))
    return folders


@pytest.mark.parametrize("last", ["cross_validation.csv", "cross_validation.json", "nothing"])
def test_after_a_kill_no_part_is_trained_again(tmp_path, manifest, trained, monkeypatch, last):
    cfg = train_config("finetune", "demo", init="none", folds=PARTS, out=str(tmp_path), run="mine")
    folder = tmp_path / "mine/finetune"
    folder.mkdir(parents=True)

    def killed(path, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        for name in ("write_atomic", "write_json"):
            write = getattr(room, name)
            kill.setattr(room, name, lambda path, *more, w=write: (killed if path.name == last else w)(path, *more))
        if last == "nothing":
            kill.setattr(room, "compare_out_of_fold", killed)
        with pytest.raises(KeyboardInterrupt):
            room.cross_validate(cfg, folder, manifest)
    assert len(trained) == PARTS and len(list((folder / "parts").glob("*/scores.csv"))) == PARTS

    found = room.cross_validate(cfg, folder, manifest)
    assert len(trained) == PARTS, "no part again"
    assert found["cross_validation"] == read_json(folder / "cross_validation.json")
    assert found["cross_validation"]["images"] == 2 * CLASS and not (folder / "parts").exists()
