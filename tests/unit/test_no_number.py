"A network that gives no number for one image: an error of that image, at every door, and of no other."

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fakeface.core.files import sha256_file
from fakeface.data.dataset import EvalDataset
from fakeface.data.quarantine import Quarantine
from fakeface.evaluate import predict as room
from fakeface.evaluate.scene_grid import file_score
from fakeface.faces.shown import shown_of
from fakeface.infer.batch import score_batch
from fakeface.infer.cards import Cards
from fakeface.infer.detector import Detector
from fakeface.infer.folder import score_paths
from fakeface.infer.verdict import InferError
from fakeface.models.bundle import INDEX, ONNX
from fakeface.testing.bundles import tiny_bundle

LEVELS = (200, 0, 120)  # the second is black


def shaky():
    "A network of the mean brightness that gives NaN for a black image."
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "lift"], ["lifted"]),
        helper.make_node("Sqrt", ["lifted"], ["root"]),
        helper.make_node("MatMul", ["root", "w"], ["logits"]),
    ]
    known = [
        numpy_helper.from_array(np.float32(0.9), "lift"),
        numpy_helper.from_array(np.array([[-1, 1]] * 3, np.float32), "w"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "shaky", [x], [logits], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A bundle of the shaky network and a folder of images."
    home = tmp_path_factory.mktemp("no_number")
    tiny_bundle(home / "shaky", size=16, band=[0.4, 0.6])
    (home / "shaky" / ONNX).write_bytes(shaky())
    record = json.loads((home / "shaky" / INDEX).read_text())
    record["files"][ONNX] = sha256_file(home / "shaky" / ONNX)
    (home / "shaky" / INDEX).write_text(json.dumps(record))
    (home / "in").mkdir()
    for i, level in enumerate(LEVELS):
        Image.new("RGB", (40, 40), (level,) * 3).save(home / f"in/{i}.png")
    return home


@pytest.fixture(scope="module")
def detector(home):
    return Detector.load(home / "shaky", threads=1)


def assert_second_only(errors):
    first, second, third = errors
    assert first == third == "" and "Could not be judged: the network gave logits that are not finite" in second


def test_python(home, detector):
    assert_second_only([verdict.error for verdict in detector.check_many(home / "in")])
    verdict = detector.check(home / "in/1.png")
    assert verdict.label == "" and np.isnan(verdict.p_fake)
    with pytest.raises(InferError, match=r"Image 1 .*1\.png.* cannot be judged: the network gave"):
        detector.predict_proba(home / "in")


def test_rows_of_a_folder(home, detector):
    errors = []
    done = score_paths(detector, [home / "in"], lambda found: errors.extend(verdict.error for verdict in found))
    assert_second_only(errors)
    assert (done["files"], done["unread"]) == (3, 1)


def test_the_command(home, tmp_path):
    command = [sys.executable, "-m", "fakeface", "check", home / "in", "--bundle", home / "shaky"]
    done = subprocess.run([*command, "--csv", tmp_path / "rows.csv"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    with open(tmp_path / "rows.csv", newline="") as file:
        assert_second_only([row["error"] for row in csv.DictReader(file)])


@pytest.mark.parametrize("what", ["path", "bytes", "x"])
def test_columns(home, what):
    files = sorted((home / "in").iterdir())
    columns = {
        "path": list(map(str, files)),
        "bytes": [file.read_bytes() for file in files],
        "x": np.stack([np.full((3, 16, 16), level, np.uint8) for level in LEVELS]),
    }
    assert_second_only(score_batch({what: columns[what]}, str(home / "shaky"))["error"])


def test_the_page(home, detector):
    cards = Cards(detector)
    found = [cards.look(str(i), f"{i}.png", (home / f"in/{i}.png").read_bytes()) for i in range(3)]
    assert ["not finite" in json.dumps(card) for card in found] == [False, True, False]


def manifest_of(folder, count):
    rows = pd.DataFrame(dict(path=[f"{i}.png" for i in range(count)], domain="toy", label=0, split="test"))
    rows.attrs = dict(root=str(folder))
    return rows


def test_evaluation(home, detector):
    net = room.OnnxNet(home / "shaky", detector.bundle)
    quarantine = Quarantine(None, 3)
    scored = room.predict(net, detector.bundle, manifest_of(home / "in", 3), workers=1, quarantine=quarantine)
    assert list(scored["path"]) == ["0.png", "2.png"]
    ((path, reason),) = quarantine.table()[["path", "reason"]].to_numpy()
    assert path == "1.png" and "not finite" in reason


def test_a_network_without_any_number_ends_the_evaluation(home, detector, tmp_path):
    shutil.copy(home / "in/1.png", tmp_path / "0.png")
    net = room.OnnxNet(home / "shaky", detector.bundle)
    with pytest.raises(room.EvaluateError, match="nor for any other"):
        room.predict(net, detector.bundle, manifest_of(tmp_path, 1), workers=1)


def test_the_way_through_torch(home, detector):
    dataset = EvalDataset(manifest_of(home / "in", 3), detector.bundle.spec)
    logits = np.zeros((3, 1, 2), np.float32)
    logits[1, 0, 0] = np.inf
    noted = []
    rows, kept = room._finite(np.arange(3), logits, dataset, noted.extend)
    assert rows.tolist() == [0, 2] and len(kept) == 2
    assert noted == [(1, dataset.path(1), room.NOT_FINITE)]


def test_scenes(home, detector, monkeypatch):
    from fakeface.evaluate import scene_grid

    monkeypatch.setattr(scene_grid, "shown_of", lambda source, spec, *_: shown_of(source, spec, "centre"))
    net = room.OnnxNet(home / "shaky", detector.bundle)
    score = file_score(net, home / "in/1.png", detector.bundle.limits)
    assert np.isnan(score.logits).all() and "not finite" in score.reason
