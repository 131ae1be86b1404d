"""Bundles, names, numbers and folders that mean harm: exit code 2 or 1 and a sentence, never a traceback."""

import csv
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pyarrow import parquet

import fakeface
from fakeface.core.files import sha256_file
from fakeface.core.project import ConfigError, FakefaceError
from fakeface.data.manifest import ManifestError, read_manifest
from fakeface.infer.detector import Detector
from fakeface.infer.verdict import InferError
from fakeface.models.bundle import INDEX, ONNX, BundleError
from fakeface.models.program import read_program
from fakeface.models.session import RunError, open_session, run_network
from fakeface.models.storage import check_tensors, copy_bundle, read_bundle
from fakeface.testing.bundles import tiny_bundle

DEEP = "[" * 10_000 + "]" * 10_000
LESS_DEEP = "[" * 950 + "]" * 950
HUGE = "9" * 5000
LARGE = "9" * 400

# each replaces the value of a field in bundle.json, as text
HOSTILE_VALUES = {
    "temperature 1e400": ("temperature", "1e400"),
    "temperature NaN": ("temperature", "NaN"),
    "bias of 400 digits": ("bias", LARGE),
    "bias of 5000 digits": ("bias", HUGE),
    "seed of 400 digits": ("seed", LARGE),
    "format of 400 digits": ("format", LARGE),
    "format true": ("format", "true"),
    "size of 400 digits": ("spec", f'{{"size": {LARGE}}}'),
    "band of large numbers": ("band", f"[0, {LARGE}]"),
    "band 1e400": ("band", "[0, 1e400]"),
    "threshold 1e400": ("thresholds", '{"0.5": 1e400}'),
    "metrics 10,000 deep": ("metrics", f'{{"a": {DEEP}}}'),
    "metrics 950 deep": ("metrics", f'{{"a": {LESS_DEEP}}}'),
    "metrics 1e400": ("metrics", '{"a": 1e400}'),
    "sizes that are text": ("metrics", '{"sizes": "large"}'),
    "limits NaN": ("limits", '{"least_side": NaN}'),
    "limits 1e400": ("limits", '{"least_side": 1e400}'),
    "limits of 400 digits": ("limits", f'{{"least_side": {LARGE}}}'),
    "limits nested": ("limits", f'{{"least_side": {LESS_DEEP}}}'),
    "framing a list": ("framing", '["face"]'),
    "framing a dictionary": ("framing", '{"face": 1}'),
    "name of a megabyte": ("name", json.dumps("a" * 10**6)),
    "domain that clears the screen": ("domains", json.dumps(["\x1b[2J"])),
    "domain of two lines": ("domains", json.dumps(["a\nb"])),
    "domain that is a formula": ("domains", '["=HYPERLINK(1)"]'),
    "domain that is a formula of mathematics": ("domains", '["$\\\\frac{$"]'),
    "domain that is HTML": ("domains", '["<img src=x onerror=alert(1)>"]'),
    "domain that is a link": ("domains", json.dumps(["[a](javascript:1)"])),
    "domain that is an image": ("domains", json.dumps(["![x](http://a/b.png)"])),
    "domain with a formula behind a semicolon": ("domains", json.dumps(["a; =1+1"])),
    "threshold that is a formula": ("thresholds", '{"0.5": 0.5, "=1+1": 0.5}'),
    "lone surrogate": ("stage", '"\\ud800"'),
    "reference 1e400": ("reference", '[{"name": "a", "sha256": "' + "0" * 64 + '", "p_fake": 1e400}]'),
    "reference of lists": ("reference", "[[[]]]"),
    "files a list": ("files", "[1]"),
    "everything null": ("spec", "null"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "tiny"
    tiny_bundle(folder)
    return folder


@pytest.fixture
def bundle(sound, tmp_path):
    import shutil

    return shutil.copytree(sound, tmp_path / "tiny")


def put(folder, field, text):
    record = json.loads((folder / INDEX).read_text())
    record[field] = "HERE"
    (folder / INDEX).write_text(json.dumps(record).replace('"HERE"', text))


def replace_network(folder, nodes, initializers=(), functions=()):
    "Another ONNX file, its hash corrected."
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "g", [x], [logits], list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (folder / ONNX).write_bytes(model.SerializeToString())
    put(
        folder,
        "files",
        json.dumps(json.loads((folder / INDEX).read_text())["files"] | {ONNX: sha256_file(folder / ONNX)}),
    )


@pytest.mark.parametrize("what", HOSTILE_VALUES)
def test_hostile_record_is_a_sentence_and_exit_code_2(bundle, what, capsys, monkeypatch):
    from fakeface.cli.main import main

    put(bundle, *HOSTILE_VALUES[what])
    with pytest.raises(BundleError) as said:
        read_bundle(bundle)
    assert len(str(said.value)) < 700 and str(said.value).isprintable()
    monkeypatch.chdir(bundle.parent)
    Image.new("RGB", (64, 64)).save("a.png")
    assert main(["check", "a.png", "--bundle", "tiny"]) == 2
    assert INDEX in capsys.readouterr().err


def endless(kind):
    "A network with a loop or a branch in it."
    value = helper.make_tensor_value_info
    go = value("go", TensorProto.BOOL, [])
    step = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["was"], ["is"])]
    gives = [value("go_on", TensorProto.BOOL, []), value("is", TensorProto.FLOAT, None)]
    takes = [value("i", TensorProto.INT64, []), go, value("was", TensorProto.FLOAT, None)]
    body = helper.make_graph(step, "body", takes, gives)
    branch = helper.make_graph([helper.make_node("Identity", ["first"], ["out"])], "b", [], gives[1:])
    last = {
        "Loop": helper.make_node("Loop", ["", "true", "first"], ["logits"], body=body),
        "If": helper.make_node("If", ["true"], ["logits"], then_branch=branch, else_branch=branch),
        "Scan": helper.make_node("Scan", ["first"], ["logits"], body=body, num_scan_inputs=1),
    }[kind]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["first"]),
        last,
    ]
    known = [
        helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.1] * 6),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    ]
    return nodes, known


@pytest.mark.parametrize("kind", ["Loop", "If", "Scan"])
def test_a_network_with_loops_is_refused_before_it_runs(bundle, kind):
    replace_network(bundle, *endless(kind))
    with pytest.raises(InferError, match=f"the operation '{kind}'"):
        Detector.load(bundle)


def test_a_network_that_reads_other_files_is_refused(bundle, tmp_path):
    outside = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.1] * 6)
    outside.ClearField("float_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="/etc/passwd")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
    ]
    replace_network(bundle, nodes, [outside])
    with pytest.raises(InferError, match="data in other files"):
        Detector.load(bundle)


SMALL = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0)
LOGITS = helper.make_node("MatMul", ["mean", "w"], ["logits"])


def values(name="w", shape=(3, 2), sort=TensorProto.FLOAT):
    return helper.make_tensor(name, sort, shape, [1] * math.prod(shape))


def in_another_file(name="w"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="other.bin")
    return tensor


def sparse(tensor):
    return helper.make_sparse_tensor(tensor, values("at", (6,), TensorProto.INT64), [3, 2])


def model_bytes(nodes, known=(), sparse_known=(), opset=13):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "g", [x], [logits], list(known), sparse_initializer=list(sparse_known))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def of_constant(**attribute):
    return model_bytes([helper.make_node("Constant", [], ["w"], **attribute), SMALL, LOGITS])


def test_a_constant_that_reads_another_file_is_refused(bundle, tmp_path, monkeypatch):
    # onnxruntime would read it next to where the command runs
    monkeypatch.chdir(tmp_path)
    np.full((3, 2), 7, np.float32).tofile("other.bin")
    replace_network(bundle, [helper.make_node("Constant", [], ["w"], value=in_another_file()), SMALL, LOGITS])
    with pytest.raises(InferError, match="data in other files"):
        Detector.load(bundle)


ELSEWHERE = {
    "initializer": lambda: model_bytes([SMALL, LOGITS], [in_another_file()]),
    "constant": lambda: of_constant(value=in_another_file()),
    "tensors of an attribute": lambda: of_constant(value=values(), more=[values(), in_another_file()]),
    "sparse constant": lambda: of_constant(sparse_value=sparse(in_another_file())),
    "sparse initializer": lambda: model_bytes([SMALL, LOGITS], [], [sparse(in_another_file())]),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_data_in_other_files_are_refused_wherever_they_are_named(where):
    with pytest.raises(BundleError, match="data in other files|has field (15|22) in a"):
        read_program(ELSEWHERE[where]())


@pytest.mark.parametrize("tag", [b"\xba\x80\x80\x80\x10", b"\xba\x00", b"\xba\x80\x80\x00"])
def test_a_graph_that_hides_behind_its_tag_is_seen(tag):
    model = model_bytes(*endless("Loop"))
    at = model.index(b"\x3a")
    hidden = model[:at] + tag + model[at + 1 :]
    with pytest.raises(BundleError, match="is not a network \\("):
        open_session(hidden, 64)


@pytest.mark.parametrize("more", [b"\x3a\x00", b"\xca\x01\x00", b"\xa2\x01\x00", b"\x9a\x06\x00", b"\x02\x00"])
def test_a_second_graph_and_unknown_fields_are_refused(more):
    plain = model_bytes([SMALL, LOGITS], [values()])
    assert read_program(plain).may_fold
    with pytest.raises(BundleError, match="twice|functions|has field|is not a network"):
        read_program(plain + more)


def whole(name, *numbers):
    return helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers)


GROWING = {
    "ConstantOfShape": [helper.make_node("ConstantOfShape", ["large"], ["much"])],
    "Expand": [helper.make_node("Expand", ["w", "large"], ["much"])],
    "Tile": [helper.make_node("Tile", ["w", "large"], ["much"])],
    "Range": [helper.make_node("Range", ["one", "one", "one"], ["much"])],
    "RandomNormal": [helper.make_node("RandomNormal", [], ["much"], shape=[40_000, 40_000])],
    "RandomUniformLike": [helper.make_node("RandomUniformLike", ["w"], ["much"])],
    "NonZero": [helper.make_node("NonZero", ["x"], ["much"])],
    "EyeLike": [helper.make_node("EyeLike", ["w"], ["much"])],
    "OneHot": [helper.make_node("OneHot", ["one", "large", "w"], ["much"])],
    "com.microsoft:FusedMatMul": [helper.make_node("FusedMatMul", ["w", "w"], ["much"], domain="com.microsoft")],
}


@pytest.mark.parametrize("operator", GROWING)
def test_operations_that_make_much_of_a_number_are_refused_by_name(operator):
    known = [values(), whole("large", 40_000, 40_000), whole("one", 1)]
    with pytest.raises(BundleError, match=f"the operation '{operator}'"):
        open_session(model_bytes([*GROWING[operator], SMALL, LOGITS], known), 64)


def test_products_of_constants_are_not_computed_when_a_file_is_opened():
    # half a gigabyte, were they computed, and twice while they are: a row of 12,000 beside a column of as many
    known = [values(), values("row", (1, 12_000)), values("column", (12_000, 1))]
    nodes = [helper.make_node("Mul", ["column", "row"], ["much"]), helper.make_node("ReduceMean", ["much"], ["one"])]
    last = [SMALL, helper.make_node("Mul", ["mean", "one"], ["less"])]
    data = model_bytes([*nodes, *last, helper.make_node("MatMul", ["less", "w"], ["logits"])], known)
    assert not read_program(data).may_fold
    before = peak_bytes()
    open_session(data, 64, threads=1)
    assert peak_bytes() - before < 2**27


def peak_bytes():
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PADDED = [helper.make_node("Pad", ["x", "pads"], ["much"])]
LENGTH_FROM_PIXELS = [
    helper.make_node("Abs", ["x"], ["positive"]),
    helper.make_node("ReduceMax", ["positive"], ["largest"], keepdims=0),
    helper.make_node("Mul", ["largest", "many"], ["length"]),
    helper.make_node("Cast", ["length"], ["whole"], to=TensorProto.INT64),
    helper.make_node("Unsqueeze", ["whole", "zero"], ["row"]),
    helper.make_node("Concat", ["one_three", "row", "row"], ["sizes"], axis=0),
    helper.make_node("Resize", ["x", "", "", "sizes"], ["much"], mode="nearest"),
]
GIANTS = {
    "Pad": PADDED,
    "Conv": [helper.make_node("Conv", ["x", "kernel"], ["much"], pads=[30_000] * 4)],
    "ConvTranspose": [helper.make_node("ConvTranspose", ["x", "kernel"], ["much"], strides=[900, 900])],
    "MatMul": [
        helper.make_node("Reshape", ["x", "as_column"], ["column"]),
        helper.make_node("Pad", ["column", "more_rows"], ["long"]),
        helper.make_node("Reshape", ["long", "as_row"], ["row"]),
        helper.make_node("MatMul", ["long", "row"], ["much"]),
    ],
    "Add": [
        helper.make_node("Reshape", ["x", "as_column"], ["column"]),
        helper.make_node("Pad", ["column", "more_rows"], ["long"]),
        helper.make_node("Reshape", ["long", "as_row"], ["row"]),
        helper.make_node("Add", ["long", "row"], ["much"]),
    ],
    "ConstantOfShape": [*PADDED, helper.make_node("Shape", ["much"], ["as_much"])]
    + [helper.make_node("ConstantOfShape", ["as_much"], ["more"])],
    "Expand": [*PADDED, helper.make_node("Shape", ["much"], ["as_much"])]
    + [helper.make_node("Expand", ["w1", "as_much"], ["more"])],
}


@pytest.mark.parametrize("operator", GIANTS)
def test_a_giant_value_is_refused_before_memory_is_touched(bundle, operator):
    last = GIANTS[operator][-1].output[0]
    nodes = [
        *GIANTS[operator],
        helper.make_node("ReduceMean", [last], ["one"], keepdims=0),
        SMALL,
        helper.make_node("Mul", ["mean", "one"], ["less"]),
        helper.make_node("MatMul", ["less", "w"], ["logits"]),
    ]
    known = [
        values(),
        values("w1", (1,)),
        values("kernel", (3, 3, 1, 1)),
        whole("pads", 0, 0, 30_000, 30_000, 0, 0, 30_000, 30_000),
        whole("more_rows", 0, 0, 50_000, 0, 0, 0, 50_000, 0),
        whole("as_column", 1, 1, -1, 1),
        whole("as_row", 1, 1, 1, -1),
    ]
    replace_network(bundle, nodes, known)
    before = peak_bytes()
    with pytest.raises(InferError, match="GB of memory that networks may have here"):
        Detector.load(bundle, threads=1)
    # of 40 GB and more
    assert peak_bytes() - before < 2**28


def written(name, *numbers):
    "As an export writes whole numbers: in bytes."
    return numpy_helper.from_array(np.array(numbers), name)


RESIZED = {
    "by a number": [helper.make_node("Resize", ["x", "", "scales"], ["much"], mode="nearest")],
    "to what the pixels say": LENGTH_FROM_PIXELS,
    "to a long row": [helper.make_node("Resize", ["x", "", "", "long"], ["much"], mode="nearest")],
    "to less than nothing": [helper.make_node("Resize", ["x", "", "", "negative"], ["much"], mode="nearest")],
    "to two sizes": [helper.make_node("Resize", ["x", "", "scales", "moderate"], ["much"], mode="nearest")],
}


def resized(nodes):
    known = [
        values(),
        whole("one_three", 1, 3),
        whole("zero", 0),
        written("long", 1, 1, 1, 2**31),
        written("negative", 1, 3, -8, 8),
        written("moderate", 1, 3, 8_192, 2),
        helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 900, 900]),
        helper.make_tensor("many", TensorProto.FLOAT, [], [100_000]),
    ]
    mean = helper.make_node("ReduceMean", ["much"], ["mean"], axes=[2, 3], keepdims=0)
    return model_bytes([*nodes, mean, LOGITS], known)


@pytest.mark.parametrize("how", RESIZED)
def test_an_image_is_enlarged_to_a_stated_size_only(how):
    "What onnxruntime notes of every row and column while it enlarges lies outside the limited store."
    with pytest.raises(BundleError, match="'Resize'.*8,192"):
        read_program(resized(RESIZED[how]))


def test_an_image_is_enlarged_to_a_moderate_size():
    nodes = [helper.make_node("Resize", ["x", "", "", "moderate"], ["much"], mode="nearest")]
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    found = run_network(open_session(resized(nodes), 8, threads=1), x)
    # each row as often as any other, and two columns: those nearest to the middles of both halves, from the left
    means = x[:, :, :, [1, 5]].mean((2, 3))
    np.testing.assert_allclose(found, means @ np.ones((3, 2)), rtol=1e-4)


DOUBLING = """
import re
import sys
from pathlib import Path
from fakeface.data.manifest import ManifestError, read_manifest
from fakeface.infer.detector import Detector
from fakeface.infer.verdict import InferError
from fakeface.models import session

session.MOST_VALUES = 2**28
try:
    Detector.load(sys.argv[1], threads=1)
except InferError as error:
    print(error)
# not ru_maxrss, which begins with the peak of the process that started this one
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


def test_values_that_double_end_at_the_limit(bundle):
    "No one of them is giant."
    pytest.importorskip("resource")
    nodes = [helper.make_node("Concat", [f"x{i}" if i else "x"] * 2, [f"x{i + 1}"], axis=2) for i in range(30)]
    nodes += [helper.make_node("ReduceMean", ["x30"], ["mean"], axes=[2, 3], keepdims=0), LOGITS]
    replace_network(bundle, nodes, [values()])
    done = subprocess.run([sys.executable, "-c", DOUBLING, str(bundle)], capture_output=True, text=True, check=True)
    said, peak = done.stdout.splitlines()
    assert "more than the 0.3 GB of memory" in said and int(peak) < 2**29


def slow_for_some(most=2e5):
    "A network that is quick for an image with a black point, and for others lengthens a row by what is least."
    node = helper.make_node
    nodes = [
        node("Relu", ["x"], ["bright"]),
        node("ReduceMin", ["bright"], ["least"], keepdims=0),
        node("Mul", ["least", "many"], ["more"]),
        node("Cast", ["more"], ["length"], to=TensorProto.INT64),
        node("Unsqueeze", ["length", "zero"], ["row"]),
        node("Concat", ["nothing", "row"], ["pads"], axis=0),
        node("Pad", ["x", "pads"], ["v0"]),
        *(node("Erf", [f"v{i}"], [f"v{i + 1}"]) for i in range(200)),
        node("ReduceMean", ["v200"], ["mean"], axes=[2, 3], keepdims=0),
        LOGITS,
    ]
    many = helper.make_tensor("many", TensorProto.FLOAT, [], [most])
    return model_bytes(nodes, [values(), many, whole("zero", 0), whole("nothing", *[0] * 7)])


def test_a_later_run_is_stopped_as_well():
    session = open_session(slow_for_some(), 8, threads=1)
    black = np.zeros((1, 3, 8, 8), np.float32)
    assert run_network(session, black, seconds=1.0).shape == (1, 2)
    started = time.monotonic()
    with pytest.raises(RunError, match="more than 0.2 s"):
        run_network(session, black + 1, seconds=0.2)
    assert time.monotonic() - started < 5


def test_a_network_that_takes_too_long_later_is_a_verdict_with_an_error(sound, monkeypatch):
    from fakeface.infer import scorer

    def late(*_):
        raise RunError("the network needs more than 120 s for one image; it was stopped")

    monkeypatch.setattr(scorer, "run_views", late)
    verdict = Detector.load(sound, threads=1).check(Image.new("RGB", (64, 64)), framing="centre")
    assert "more than 120 s" in verdict.error


def test_a_network_that_takes_too_much_later_costs_the_image_and_not_the_evaluation(sound, tmp_path):
    "It asks for 24 GB for a bright image. Until then a MemoryError ended what was being done."
    from fakeface.evaluate.predict import open_net, predict
    from fakeface.infer.batch import score_batch

    copy_bundle(sound, tmp_path / "greedy", onnx=slow_for_some(3e8))
    for name, grey in dict(dark=0, bright=255).items():
        Image.new("RGB", (64, 64), (grey, grey, grey)).save(tmp_path / f"{name}.png")
    rows = pd.DataFrame(dict(path=["dark.png", "bright.png"], domain="d", label=[0, 1], split="test"))
    rows.attrs["root"] = str(tmp_path)
    net, bundle = open_net(tmp_path / "greedy")
    with pytest.warns(UserWarning, match="1 of 2 images have no score, e.g. bright.png .*more than the .* of memory"):
        assert predict(net, bundle, rows).path.tolist() == ["dark.png"]
    detector = Detector.load(tmp_path / "greedy", threads=1)
    verdict = detector.check(tmp_path / "bright.png", framing="centre")
    assert "more than the" in verdict.error
    white = np.full((1, 3, 64, 64), 255, np.uint8)
    assert "more than the" in score_batch(dict(x=[white]), str(tmp_path / "greedy"))["error"][0]


def test_a_tensor_that_claims_more_than_it_brings_is_refused():
    large = values()
    large.dims[0] = 2**40
    with pytest.raises(BundleError, match="fits no network"):
        read_program(model_bytes([SMALL, LOGITS], [large]))


def test_a_network_that_fails_when_it_runs_is_a_sentence(bundle):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
    ]
    replace_network(bundle, nodes, [helper.make_tensor("w", TensorProto.FLOAT, [5, 2], [0.1] * 10)])
    with pytest.raises(InferError, match="is not a network|cannot judge"):
        Detector.load(bundle)
    replace_network(bundle, [helper.make_node("ReduceMean", ["x"], ["logits"], axes=[2, 3], keepdims=0)])
    with pytest.raises(InferError, match="is not a network|two logits"):
        Detector.load(bundle)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x7f", b"\x0b" * 9])
def test_what_is_no_protobuf_is_a_sentence(data):
    with pytest.raises(BundleError, match="is not a network|should take x"):
        open_session(data, 64)


@pytest.mark.parametrize("threshold", [True, [1], {}, None.__class__, math.nan, "x", 10**400, np.array([0.5, 0.1])])
def test_odd_thresholds(sound, threshold):
    with pytest.raises(InferError, match="threshold = "):
        Detector.load(sound, threshold)


@pytest.mark.parametrize("prior", ["x", [0.5], True, math.nan, -1, 10**400, {}])
def test_odd_priors(sound, prior):
    with pytest.raises(InferError, match="prior = "):
        Detector.load(sound).check(Image.new("RGB", (64, 64)), prior=prior)


@pytest.mark.parametrize(
    "change",
    [dict(size=-5), dict(size=0), dict(size=10**40), dict(valid=math.nan), dict(test=math.inf), dict(workers=-7)]
    + [dict(quality_low=-1), dict(quality_high=101), dict(seed=10**400), dict(valid=-0.1)],
    ids=str,
)
def test_prepare_refuses_impossible_numbers(change):
    from fakeface.core.config import configure
    from fakeface.data.prepare import PrepareConfig

    with pytest.raises(ConfigError, match=next(iter(change))):
        configure(PrepareConfig, **change)


@pytest.mark.parametrize(
    "change",
    [dict(batch=0), dict(grid_n=-1), dict(scenes_n=-1), dict(why_n=-2), dict(workers=-3), dict(seed=10**400)],
    ids=str,
)
def test_evaluate_refuses_impossible_numbers(change):
    from fakeface.core.config import configure
    from fakeface.evaluate.stage import EvaluateConfig

    with pytest.raises(ConfigError, match=next(iter(change))):
        configure(EvaluateConfig, **change)


FRACTIONS = (
    "lr min_lr momentum weight_decay warmup clip mixup pairs max_repeats dropout smoothing ema tau share".split()
)
COUNTS = "epochs patience light_epochs epoch_len bn_batches checkpoint_every eval_size".split()


@pytest.mark.parametrize("name", FRACTIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5, "nan"])
def test_training_refuses_what_is_no_number(name, value):
    from fakeface.train.recipe import train_config

    with pytest.raises(ConfigError, match=name):
        train_config("finetune", **{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_training_refuses_negative_counts(name):
    from fakeface.train.recipe import train_config

    with pytest.raises(ConfigError, match=name):
        train_config("finetune", **{name: -1})


@pytest.mark.parametrize("name", ["$x$", "=1+1", "a\nb", "\x1b]0;x\x07", "<script>alert(1)</script>", "", "x" * 300])
def test_a_harmful_domain_is_refused_before_any_work(tmp_path, name):
    import pandas as pd
    from fakeface.data.manifest import ManifestError, build_manifest

    # the files are not there: nothing has been looked at
    rows = pd.DataFrame(dict(path=["nowhere/a.png", "nowhere/b.png"], domain=name, label=[0, 1]))
    with pytest.raises(ManifestError, match="A domain's name should be"):
        build_manifest(rows, tmp_path, workers=0)


def test_a_domain_with_a_bar_breaks_no_table():
    from fakeface.models.card import model_card
    from fakeface.models.bundle import Bundle
    from fakeface.images.preprocess import InputSpec

    odd = "a_b|c"
    figures = dict(n=3, auc=0.5)
    card = model_card(Bundle("x", "x", InputSpec(), domains=[odd], metrics={odd: figures, "macro": figures}).check())
    head, line = (row for row in card.splitlines() if row.startswith(("| domain", "| a_b")))
    assert line.count("|") - line.count("\\|") == head.count("|")


def test_paths_are_no_formulas(tmp_path):
    from fakeface.data.prepare import PrepareConfig, build_dataset, collect_sources, index_images, write_prepared

    source = tmp_path / "run/prepare"
    for label in ("real", "fake"):
        (source / "=set" / label).mkdir(parents=True)
        for i in range(8):
            noise = np.random.default_rng([i, label == "fake"]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((80, 80)).save(source / "=set" / label / f"{i}.png")
    (source / "=set/real/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    with pytest.raises(FakefaceError, match="A domain's name"):
        cfg = PrepareConfig(sources=str(source / "=set"), workers=0)
        index_images(cfg, collect_sources(cfg, source), source)
    (tmp_path / "sources.csv").write_text("name,kind,path\nmine,folder,run/prepare/=set\n")
    cfg = PrepareConfig(sources=str(tmp_path / "sources.csv"), workers=0)
    found = index_images(cfg, collect_sources(cfg, source), source)
    write_prepared(cfg, found, build_dataset(cfg, found, source), source)
    for table in source.glob("*.csv"):
        with open(table, newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "./=set/real/broken.png" in (source / "excluded.csv").read_text()


ACTING = "\x1b]0;pwned\x07\x1b[2J\u202e"


def named_file(folder):
    (folder / f"{ACTING}x.pkl").write_bytes(b"")
    return ["check", str(folder / "a.png"), "--bundle", str(folder)]


def named_node(folder):
    wrong = helper.make_node("MatMul", ["x", "w"], ["logits"], name=ACTING)
    replace_network(folder, [wrong], [helper.make_tensor("w", TensorProto.FLOAT, [5, 2], [0.1] * 10)])
    return ["check", str(folder / "a.png"), "--bundle", str(folder)]


def named_value(folder):
    replace_network(folder, [helper.make_node("Relu", [ACTING], ["logits"])])
    return ["check", str(folder / "a.png"), "--bundle", str(folder)]


def named_folder(folder):
    return ["audit", str(folder / ACTING)]


@pytest.mark.skipif(sys.platform == "win32", reason="there no name has such characters")
@pytest.mark.parametrize("where", [named_file, named_node, named_value, named_folder])
def test_no_error_acts_on_a_terminal(bundle, capsys, where):
    from fakeface.cli.main import main

    assert main(where(bundle)) > 0
    said = capsys.readouterr().err
    assert said.replace("\n", "").isprintable()
    assert where is named_value or "\\x1b]0;pwned\\x07" in said


def test_who_has_a_folder_does_not_act_on_a_terminal(tmp_path):
    from fakeface.core.locks import take_lock

    lock = tmp_path / ".lock"
    lock.write_text(json.dumps({"pid": 1, "host": ACTING, "since": "then"}))
    with pytest.raises(FakefaceError, match="being written by") as said:
        take_lock(lock)
    assert str(said.value).isprintable()


def test_warnings_of_prepare_do_not_act_on_a_terminal():
    import pandas as pd

    from fakeface.data.intake import require_readable, warning_line

    manifest = pd.DataFrame({"sha256": ["", "1"], "reason": [f"broken {ACTING}", ""], "path": [f"{ACTING}.png", "b"]})
    assert "pwned" in warning_line(manifest) and warning_line(manifest).isprintable()
    with pytest.raises(FakefaceError, match="could not be read") as said:
        require_readable(manifest.head(1))
    assert "pwned" in str(said.value) and str(said.value).isprintable()


@pytest.mark.parametrize("text", ["a;=1+1", "a; @SUM(1)", 'a;"=1', "＝1", "＋1", "a;－1", "a,b;=1", ' "=1'])
@pytest.mark.parametrize("separator", [",", ";"])
def test_no_separator_makes_a_formula_of_a_row(sound, text, separator):
    import dataclasses

    from fakeface.infer.rows import row_text

    verdict = Detector.load(sound, threads=1).verdict(text, error=text)
    line = row_text(dataclasses.replace(verdict, threshold_name=text))
    (cells,) = csv.reader([line], delimiter=separator)
    assert not [cell for cell in cells if cell.lstrip(' "')[:1] in tuple("=+-@＝＋－＠")]


def cached_facts(tmp_path):
    "A cache of the facts of some images; with what is true."
    from fakeface.images.facts import file_infos

    paths = []
    for i in range(30):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (9 + i, 9), (i, i, i)).save(paths[-1])
    return paths, file_infos(paths, tmp_path / ".facts.sqlite", workers=0)


def test_a_damaged_cache_never_says_something_else(tmp_path):
    from fakeface.images.facts import file_infos

    paths, true = cached_facts(tmp_path)
    cache = tmp_path / ".facts.sqlite"
    sound = cache.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for kind in range(60):
        damaged = bytearray(sound)
        if kind % 3 == 0:
            damaged[random.integers(len(damaged))] ^= 1 << int(random.integers(8))
        elif kind % 3 == 1:
            begin = int(random.integers(len(damaged)))
            damaged[begin : begin + 200] = random.bytes(min(200, len(damaged) - begin))
        else:
            damaged = damaged[: random.integers(len(damaged))]
        cache.write_bytes(damaged)
        try:
            assert file_infos(paths, cache, workers=0) == true
        except FakefaceError as error:
            refused += 1
            assert "cannot be used" in str(error)
    assert refused < 30
    cache.unlink()
    assert file_infos(paths, cache, workers=0) == true


def test_a_file_that_is_no_cache_is_not_removed(tmp_path):
    from fakeface.images.facts import file_infos

    paths, _ = cached_facts(tmp_path)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work " * 300)
    with pytest.raises(FakefaceError, match="Delete it"):
        file_infos(paths, thesis, workers=0)
    assert thesis.read_text().startswith("years")


def test_a_name_means_one_value():
    with pytest.raises(BundleError, match="the name 'w' to 2 values"):
        read_program(model_bytes([SMALL, LOGITS], [values(), values()]))
    constant = helper.make_node("Constant", [], ["w"], value=values())
    with pytest.raises(BundleError, match="the name 'w' to 2 values"):
        read_program(model_bytes([constant, SMALL, LOGITS], [values()]))


def test_operations_out_of_order_are_computed_late():
    early, late = helper.make_node("Add", ["w", "w"], ["v"]), helper.make_node("Add", ["v", "v"], ["u"])
    last = helper.make_node("MatMul", ["mean", "u"], ["logits"])
    assert read_program(model_bytes([early, late, SMALL, last], [values()])).may_fold
    assert not read_program(model_bytes([late, early, SMALL, last], [values()])).may_fold


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory):
    "A bundle whose weights are another network than its ONNX file, every hash in order, without a known score."
    import torch
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model

    home = tmp_path_factory.mktemp("two")
    torch.manual_seed(0)
    network = build_model("test_resnet", None, size=32).eval()
    about = Bundle("two", "test_resnet", network.spec, framing="centre")
    save_model(network, home / "one", about)
    with torch.no_grad():
        network.head.bias += torch.tensor([0.0, 1.0])
    save_model(network, home / "two", about)
    (home / "two" / ONNX).write_bytes((home / "one" / ONNX).read_bytes())
    record = json.loads((home / "two" / INDEX).read_text())
    record["files"][ONNX] = sha256_file(home / "two" / ONNX)
    (home / "two" / INDEX).write_text(json.dumps(record | dict(reference=[])))
    return home


@pytest.mark.parametrize("onnx", [True, False])
def test_a_bundle_of_two_networks_is_not_evaluated(two_networks, onnx):
    from fakeface.evaluate.predict import open_net

    open_net(two_networks / "one", onnx=onnx)
    with pytest.raises(BundleError, match="holds two networks"):
        open_net(two_networks / "two", onnx=onnx)


def test_the_doctor_names_a_bundle_of_two_networks(two_networks):
    from fakeface.infer.doctor import doctor

    *_, sound = doctor(two_networks / "one")
    assert sound.state == "ok" and "one network" in sound.said
    *_, two = doctor(two_networks / "two")
    assert two.state == "fault" and "holds two networks" in two.said


BROKEN_LIBRARIES = {
    "torch": "raise OSError('libcudart.so.12: cannot open shared object file')",
    "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
    "timm": "raise ImportError('cannot import name container_abcs')",
}


@pytest.mark.parametrize("library", BROKEN_LIBRARIES)
def test_the_doctor_looks_on_where_a_library_of_training_is_broken(tmp_path, library):
    "Verdicts need none of them."
    (tmp_path / library).mkdir()
    (tmp_path / library / "__init__.py").write_text(BROKEN_LIBRARIES[library])
    path = os.pathsep.join([str(tmp_path), str(Path(fakeface.__file__).parents[1])])
    command = [sys.executable, "-m", "fakeface", "doctor"]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=path))
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert f"{library} cannot be used (" in ran.stdout and "versions that belong together" in ran.stdout
    assert "detector fakeface-lite0" in ran.stdout and "were not compared" in ran.stdout


def test_the_doctor_finds_fault_with_a_bundle_without_known_scores(bundle):
    from fakeface.infer.doctor import doctor

    *_, found = doctor(bundle)
    assert found.state == "fault" and "no scores of known images" in found.said


@pytest.mark.parametrize("name, value", [("0.5", 0.9), (".5", 0.4), ("1e-1", 0.5), ("2", 0.5), ("nan", 0.5)])
def test_a_threshold_that_is_called_by_another_number_is_refused(bundle, name, value):
    put(bundle, "thresholds", json.dumps({"0.5": 0.5, "0.25": 0.25, "youden": 0.3}))
    read_bundle(bundle)
    put(bundle, "thresholds", json.dumps({"0.5": 0.5, name: value}))
    with pytest.raises(BundleError, match="a name that is a number"):
        read_bundle(bundle)


def test_what_cannot_be_opened_again_is_no_export(tmp_path):
    import torch
    from fakeface.models.export import export_onnx
    from fakeface.models.network import build_model

    class Sorting(torch.nn.Module):
        def forward(self, x):
            return x.sort(dim=1).values

    network = build_model("test_resnet", None, size=32).eval()
    network.drop = Sorting()
    with pytest.raises(FakefaceError, match="could not be exported.*TopK"):
        export_onnx(network, tmp_path / "model.onnx")


def chain(count, operator="Add"):
    "Each value is made of the one before, twice."
    names = ["w", *(f"v{i}" for i in range(count))]
    return [helper.make_node(operator, [a, a], [b]) for a, b in zip(names, names[1:])]


def dimensions(count):
    tensor = values()
    tensor.dims.extend([2**62] * count)
    return tensor


# each would keep a careless reader busy for hours
LENGTHY = {
    "doubled 20,000 times": lambda: model_bytes([*chain(20_000), SMALL, LOGITS], [values()]),
    "joined 20,000 times": lambda: model_bytes([*chain(20_000, "Concat"), SMALL, LOGITS], [values()]),
    "a tensor of 200,000 dimensions": lambda: model_bytes([SMALL, LOGITS], [dimensions(200_000)]),
    "10,000 shapes of 10,000 parts": lambda: model_bytes(
        [helper.make_node("Concat", ["w"] * 10_000, ["long"])]
        + [helper.make_node("Expand", ["w", "long"], [f"y{i}"]) for i in range(10_000)],
        [values()],
    ),
    "two million fields": lambda: model_bytes([SMALL, LOGITS], [values()]) + b"\x08\x08" * 2_000_000,
}


@pytest.mark.parametrize("what", LENGTHY)
def test_reading_a_program_takes_no_longer_than_its_length_allows(what):
    import time

    data = LENGTHY[what]()
    began = time.process_time()
    try:
        assert not read_program(data).may_fold
    except BundleError as error:
        assert len(str(error)) < 700
    assert time.process_time() - began < 20


def test_damaged_programs_are_sentences():
    sound = model_bytes(*endless("Loop")[:1], endless("Loop")[1])
    plain = of_constant(value=values())
    random = np.random.default_rng(0)
    for data in (sound, plain) * 500:
        damaged = bytearray(data)
        for at in random.integers(len(data), size=3):
            damaged[at] ^= 1 << int(random.integers(8))
        try:
            read_program(bytes(damaged))
        except BundleError as error:
            assert len(str(error)) < 700


@pytest.mark.skipif(sys.platform == "win32", reason="there a file of zeros takes its size on the disk")
@pytest.mark.parametrize("name, size", [(ONNX, 2**31 + 1), ("README.md", 2**24 + 1), ("LICENSE", 2**24 + 1)])
def test_a_file_that_is_too_large_is_refused_before_it_is_read(bundle, monkeypatch, name, size):
    from fakeface.models import storage

    with open(bundle / name, "wb") as file:
        file.truncate(size)
    record = json.loads((bundle / INDEX).read_text())
    put(bundle, "files", json.dumps({name: "0" * 64} | {other: "0" * 64 for other in record["files"] if other != name}))
    hashed = []
    monkeypatch.setattr(storage, "sha256_file", lambda path: hashed.append(path.name) or "0" * 64)
    with pytest.raises(BundleError, match=f"{name} has .* bytes"):
        read_bundle(bundle)
    assert name not in hashed


def test_json_that_is_nested_without_end_is_a_sentence(tmp_path):
    from fakeface.core.files import read_json

    (tmp_path / "deep.json").write_text("[" * 10**6)
    with pytest.raises(FakefaceError, match="deep.json is nested too deeply"):
        read_json(tmp_path / "deep.json")


# ---- what is large only in the number of its parts
def doubling(operations):
    "A network that doubles numbers again and again."
    steps = [helper.make_node("Add", [f"r{i}", f"r{i}"], [f"r{i + 1}"]) for i in range(operations)]
    last = helper.make_node("MatMul", [f"r{operations}", "w"], ["logits"])
    first = helper.make_node("ReduceMean", ["x"], ["r0"], axes=[2, 3], keepdims=0)
    return model_bytes([first, *steps, last], [values()])


def test_a_long_chain_of_operations_opens_in_proportion_to_its_length():
    data = doubling(10_000)
    started = time.process_time()
    session = open_session(data, 32)
    # simplified by onnxruntime it takes twenty times as long
    assert time.process_time() - started < 10
    assert run_network(session, np.zeros((1, 3, 32, 32), np.float32)).tolist() == [[0, 0]]


def test_a_longer_chain_is_refused():
    with pytest.raises(BundleError, match="more than 50,000 operations"):
        open_session(doubling(50_001), 32)


UNUSUAL_TENSORS = {
    "bfloat16": ("BF16", [12], 24, "weight holds BF16 values"),
    "float8": ("F8_E4M3", [24], 24, "weight holds F8_E4M3 values"),
    "a side that no memory has": ("F32", [0, 2**62], 0, "weight claims the shape"),
}


@pytest.mark.parametrize("how", UNUSUAL_TENSORS)
def test_tensors_that_numpy_does_not_have(tmp_path, how):
    kind, shape, size, said = UNUSUAL_TENSORS[how]
    header = json.dumps({"weight": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(BundleError, match=said):
        check_tensors(path)


def test_a_table_that_is_no_manifest_is_not_read(tmp_path):
    wide, long = tmp_path / "wide.parquet", tmp_path / "long.parquet"
    parquet.write_table(pa.table({f"column {i}": [0] for i in range(201)}), wide)
    with pytest.raises(ManifestError, match="201 columns; a manifest has at most 200"):
        read_manifest(wide)
    parquet.write_table(pa.table({"label": np.zeros(3_000_000, np.int8)}), long)
    with pytest.raises(ManifestError, match="claims 3,000,000 rows"):
        read_manifest(long)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("theirs", ["settings.ini", "nbs", "nbs/run_prepare.ipynb", "a link"])
def test_no_stage_runs_from_the_checkout_of_another_account(tmp_path, monkeypatch, root, capsys, theirs):
    "Planted above the working directory, in a folder that all may write to: its notebook would run."
    from fakeface.cli.main import main
    from fakeface.core.project import project_root
    from fakeface.models.shelf import list_bundles

    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = fakeface\n")
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs/run_prepare.ipynb").write_text("{}")
    (tmp_path / "outputs/models/theirs").mkdir(parents=True)
    (tmp_path / "outputs/models/theirs/bundle.json").write_text("{}")
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    assert project_root() == tmp_path.resolve() and "theirs" in list_bundles()
    if theirs == "a link":
        (tmp_path / "settings.ini").rename(tmp_path / "real")
        (tmp_path / "settings.ini").symlink_to("real")
        theirs = "settings.ini"
    os.chown(tmp_path / theirs, 65534, 65534, follow_symlinks=False)
    with pytest.raises(FakefaceError, match=r"belongs to another account.*pip install -e"):
        project_root()
    assert "theirs" not in list_bundles()
    assert main(["prepare", "-p", "run", "mine"]) != 0 and "another account" in capsys.readouterr().err
    # what this program runs from is trusted already
    assert project_root(root) == root


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name")
def test_a_pipe_called_settings_hangs_nothing(tmp_path):
    from fakeface.core.project import project_root

    os.mkfifo(tmp_path / "settings.ini")
    with pytest.raises(FakefaceError, match="is not inside a checkout"):
        project_root(tmp_path)


def test_what_a_stage_prints_does_not_act_on_a_terminal():
    "Its kernel's lines may quote a run that somebody else sent; how progress bars move the cursor is left out."
    from fakeface.cli.stages import _WholeLines

    shown = io.StringIO()
    lines = _WholeLines(shown)
    lines.write(f"domain {ACTING}: .93\nrounds 50%|##\r\x1b[A100%|####\nepoch\t1\r")
    lines.close()
    said = shown.getvalue()
    assert said.replace("\n", "").isprintable() and "\\x1b]0;pwned\\x07" in said
    assert "\n100%|####\n" in said and "\\x1b[A" not in said and "epoch   1" in said


def test_a_heatmap_takes_no_longer_than_an_image_may(tmp_path, monkeypatch):
    "The ONNX file that judges may be small, and the weights those of a network that takes for ever."
    from types import SimpleNamespace

    from fakeface.data.orl import demo_faces
    from fakeface.infer.folder import score_paths
    from fakeface.models import persistence
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model

    network = build_model("test_resnet", None, size=64)
    save_model(network, tmp_path / "b", Bundle("b", network.arch, network.spec))
    detector = Detector.load(tmp_path / "b")
    (tmp_path / "images").mkdir()
    for i, face in enumerate(demo_faces(2)):
        face.save(tmp_path / f"images/{i}.png")
    moments = iter(range(0, 10_000, 10))
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    found = []
    how = dict(heatmaps=tmp_path / "maps", framing="centre", timeout=25)
    monkeypatch.setattr(persistence, "time", clock)
    counts = score_paths(detector, [tmp_path / "images"], found.extend, **how)
    assert counts["unread"] == 2 and not list((tmp_path / "maps").glob("*"))
    assert {verdict.error for verdict in found} == {
        "Was judged, and then its heat-map took longer than 25 s, which is the limit."
    }


@pytest.mark.parametrize(("arch", "size"), [("test_resnet_x4", 4096), ("test_resnet", 2048)])
def test_weights_that_ask_for_gigabytes_are_not_loaded(tmp_path, arch, size):
    "Few of them, for images of 4,096 pixels: nothing of the memory is touched. An ordinary network may be large."
    import dataclasses

    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model
    from fakeface.models.persistence import load_model, save_model

    network = build_model(arch, None, size=64)
    network.spec = dataclasses.replace(network.spec, size=size)
    save_model(network, tmp_path / "b", Bundle("b", arch, network.spec), onnx=False)
    if arch == "test_resnet":
        assert load_model(tmp_path / "b")[0].spec.size == size
    else:
        with pytest.raises(BundleError, match="asks for 8.6 GB for one view of an image in one of its layers"):
            load_model(tmp_path / "b")


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit")
def test_tables_beside_the_store_are_bounded(tmp_path, monkeypatch):
    "Eight million matrices of one number: 67 MB of values, and .9 GB of tables that the store does not count."
    from fakeface.core.project import own_process
    from fakeface.images import bound
    from fakeface.models import session

    # a page may have been tested in this process
    monkeypatch.setattr(bound._Process, "is_bounded", False)
    shape = np.array([64, 64, 64, 32, 1, 1], np.int64)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Expand", ["m", "shape"], ["many"]),
        helper.make_node("MatMul", ["many", "many"], ["products"]),
        helper.make_node("ReduceMax", ["products"], ["largest"], axes=[0, 1, 2, 3, 4, 5], keepdims=0),
        helper.make_node("Mul", ["largest", "w"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.ones((1, 2), np.float32), "w"), numpy_helper.from_array(shape, "shape")]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [takes], [gives], constants)
    opset = [helper.make_opsetid("", 13)]
    opened = session.open_session(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString(), 64)
    x = np.zeros((1, 3, 64, 64), np.float32)
    monkeypatch.setattr(session, "values_limit", lambda: 2**28)
    with own_process(), pytest.raises(session.RunError, match="more than the 0.3 GB of memory that networks may have"):
        session.run_network(opened, x)
    # the limit would be one for all that a program does that imports fakeface
    assert session.run_network(opened, x).shape == (1, 2), "and so it is in any other process"
    monkeypatch.undo()
    before = bound.bytes_taken()
    with own_process():
        assert session.run_network(opened, x).shape == (1, 2), "where there is room, it runs"
    assert bound.bytes_taken() < before + 2**24, "what one run keeps would be beside the limit of the next"


def test_weights_for_which_there_is_no_room_are_not_loaded(tmp_path, monkeypatch):
    "An archive of ten kilobytes held a hole of four gigabytes, which became a network of seventeen."
    from fakeface.models import persistence
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model

    network = build_model("test_vit", None, size=96)
    persistence.save_model(network, tmp_path / "b", Bundle("b", network.arch, network.spec), onnx=False)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    # the network's own, the file, and the file taken apart: four bytes each, and the header twice
    monkeypatch.setattr(persistence, "machine_memory", lambda: 2 * (12 * numbers + 100_000), raising=False)
    assert persistence.load_model(tmp_path / "b")[1].name == "b"
    monkeypatch.setattr(persistence, "machine_memory", lambda: 2 * 12 * numbers, raising=False)
    built = []
    build = persistence.build_network
    monkeypatch.setattr(persistence, "build_network", lambda *asked: built.append(asked) or build(*asked))
    with pytest.raises(BundleError, match="half of what this machine has, is the most"):
        persistence.load_model(tmp_path / "b")
    assert len(built) == 1, "an outline without values"


def test_weights_that_run_out_of_memory_are_a_sentence(tmp_path, monkeypatch):
    "Five views were looked at together, and torch's own error ended `doctor`."
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import FaceNet, build_model
    from fakeface.models.persistence import require_scores, save_model

    network = build_model("test_resnet", None, size=64, view="multicrop")
    save_model(network, tmp_path / "b", Bundle("b", network.arch, network.spec))
    seen = []
    forward = FaceNet.forward
    monkeypatch.setattr(FaceNet, "forward", lambda net, x: seen.append(len(x)) or forward(net, x))
    require_scores(tmp_path / "b")
    assert set(seen) == {1}, "one view at a time"

    def greedy(net, x):
        if x.is_meta:
            return forward(net, x)
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 10156800000"
        )

    monkeypatch.setattr(FaceNet, "forward", greedy)
    with pytest.raises(
        BundleError, match="weights of the bundle b take too much for one image: .*can't allocate memory"
    ):
        require_scores(tmp_path / "b")


def test_a_table_of_very_many_columns_is_refused(tmp_path):
    "150,000 of them, in a list of 1.3 MB, took hours."
    from fakeface.data.rows import SourceError
    from fakeface.data.tables import read_table

    path = tmp_path / "wide.csv"
    path.write_text(",".join(["path", "identity", *map(str, range(999))]) + "\n")
    with pytest.raises(SourceError, match="line 1: 1,001 columns; no table of images has so many"):
        read_table(path, ("path", "identity"))


def test_a_table_that_is_a_pipe_is_refused(tmp_path):
    "A list of sources that somebody sends may name one, and nobody would ever write into it."
    from fakeface.data.rows import SourceError
    from fakeface.data.tables import text_of

    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match="pipe.csv is not an ordinary file"):
        text_of(tmp_path / "pipe.csv")


def test_a_round_is_not_given_more_than_there_is_room_for(tmp_path, monkeypatch):
    "A run may hold files of any size, or of any length without content: copied, they would fill the disk."
    from types import SimpleNamespace

    from fakeface.evaluate import leave_one_out
    from fakeface.testing.datasets import toy_run

    toy_run(tmp_path, "run")
    monkeypatch.setattr(leave_one_out.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(FakefaceError, match="for a copy of .*prepare; 0.0 GB are free there"):
        leave_one_out.share_prepared(tmp_path / "run", tmp_path / "round")
    assert not list((tmp_path / "round/prepare").iterdir())


def test_a_gallery_shows_no_file_that_was_not_scored(tmp_path):
    "Predictions of somebody else may name any file of the machine on which the report is made."
    from fakeface.report.maps import gallery

    (tmp_path / "run").mkdir()
    (tmp_path / "private").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "private/secret.png")
    paths = [str(tmp_path / "private/secret.png"), "../private/secret.png"]
    rows = pd.DataFrame(dict(path=paths, domain="d", label=0, p_fake=0.9, may_show=True, file_sha256="0" * 64))
    assert gallery(rows, tmp_path / "run").items == []
    known = rows.assign(file_sha256=sha256_file(tmp_path / "private/secret.png"))
    assert len(gallery(known, tmp_path / "run").items) == 2


def test_a_link_in_a_run_is_refused_whatever_it_is_called(tmp_path):
    "howto_ship publishes leaveout.csv: through a link it published another file of the user."
    from fakeface.core.stages import look_through

    (tmp_path / "secret.txt").write_text("SECRET")
    for name in ("leaveout.csv", "leaveout_plain.csv", "report.html", "leaveout.json", ".lock"):
        run = tmp_path / f"run-{name}"
        run.mkdir()
        (run / "notes.txt").write_text("no link")
        look_through(run)
        (run / name).symlink_to(tmp_path / "secret.txt")
        with pytest.raises(FakefaceError, match="is a link; no stage reads or writes through one"):
            look_through(run)
    for name in (".before", "leaveout.json"):
        run = tmp_path / f"with-{name}"
        (run / name).mkdir(parents=True)
        look_through(run)
        (run / name / "inside").symlink_to(tmp_path / "secret.txt")
        with pytest.raises(FakefaceError, match="is a link; no stage reads or writes through one"):
            look_through(run)


def test_large_images_are_looked_at_one_after_the_other(tmp_path, monkeypatch):
    "A small network of somebody else may be for 4,096 pixels and five views: 32 images of it took more than 10 GB."
    from fakeface.evaluate import predict
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import FaceNet, build_model
    from fakeface.models import memory, session
    from fakeface.testing.datasets import toy_manifest

    manifest = toy_manifest(tmp_path / "data")
    rows = predict.pick_split(manifest, [], "valid")
    network = build_model("test_resnet", None, size=32, view="multicrop").eval()
    bundle = Bundle("b", network.arch, network.spec)
    before = predict.predict(network, bundle, rows, workers=0)
    seen = []
    forward = FaceNet.forward
    one = memory.values_of(network, torch.zeros(1, 3, 32, 32)).most_kept
    monkeypatch.setattr(FaceNet, "forward", lambda net, x: seen.append(len(x)) or forward(net, x))
    monkeypatch.setattr(session, "MOST_VALUES", memory._SHARE * 2 * one)
    monkeypatch.setattr(predict, "_PIXELS", 3 * 5 * 32 * 32)
    after = predict.predict(network, bundle, rows, workers=0)
    assert max(seen) == 2 and np.allclose(before["z"], after["z"], atol=1e-5)


def test_what_a_network_computes_for_many_images_is_bounded_everywhere(tmp_path, monkeypatch):
    "A network of 24 MB may need a gigabyte for 512 pixels: its heat-maps and its features took 16 and 40 of them."
    from fakeface.explain import averages
    from fakeface.models import memory, session
    from fakeface.models.network import FaceNet, build_model
    from fakeface.testing.datasets import toy_manifest
    from fakeface.train.features import features_of

    rows = toy_manifest(tmp_path / "data").reset_index(drop=True)
    network = build_model("test_resnet", None, size=32).eval()
    x = torch.randn(7, 3, 32, 32)
    features, (maps, _) = features_of(network, x), averages.mean_cams(network, rows)
    one = memory.values_of(network, x[:1]).most_kept
    seen = []
    larger = FaceNet.larger
    monkeypatch.setattr(FaceNet, "larger", lambda net, x: seen.append(len(x)) or larger(net, x))
    monkeypatch.setattr(session, "MOST_VALUES", memory._SHARE * 3 * one)
    assert np.allclose(features_of(network, x), features, atol=1e-5) and seen == [3, 3, 1]
    bounded, _ = averages.mean_cams(network, rows)
    averages._test_sanity(network, rows, 24, 0)
    assert max(seen) == 3 and bounded.keys() == maps.keys()


def test_a_network_that_asks_for_too_much_has_no_heatmaps_and_the_evaluation_ends(tmp_path, monkeypatch):
    "Memory that ran out in the heat-maps ended an evaluation of which all images were scored."
    from fakeface.core.files import read_json
    from fakeface.evaluate.stage import EvaluateConfig
    from fakeface.explain import averages
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model
    from fakeface.testing.datasets import toy_manifest

    def greedy(*given):
        return torch.empty(2**60)

    network = build_model("test_resnet", None, size=32)
    save_model(network, tmp_path / "tiny", Bundle("tiny", network.arch, network.spec), onnx=False)
    rows = toy_manifest(tmp_path / "data").reset_index(drop=True)
    monkeypatch.setattr(averages, "gradcam", greedy)
    cfg = EvaluateConfig(bundle=str(tmp_path / "tiny"), why_n=2, workers=0, device="cpu", framing="centre")
    (tmp_path / "evaluate").mkdir()
    averages.explain_predictions(cfg, tmp_path / "evaluate", rows)
    assert "memory" in read_json(tmp_path / "evaluate/why.json")["no_cams"]


def test_large_images_are_explained_one_after_the_other(tmp_path, monkeypatch):
    "What explains an evaluation held 16 and 24 images of 4,096 pixels, and those decoded ahead: 15 GB."
    from fakeface.explain import averages
    from fakeface.models.network import build_model
    from fakeface.testing.datasets import toy_manifest

    rows = toy_manifest(tmp_path / "data").reset_index(drop=True)
    network = build_model("test_resnet", None, size=32, view="multicrop").eval()
    before, _ = averages.mean_cams(network, rows)
    seen, tasks = [], []
    looked, decoded_ahead, tested = averages.gradcam, averages.ahead, averages.sanity
    monkeypatch.setattr(averages, "gradcam", lambda net, x, *more: seen.append(len(x)) or looked(net, x, *more))
    monkeypatch.setattr(averages, "ahead", lambda *given: tasks.append(given[3]) or decoded_ahead(*given))
    monkeypatch.setattr(averages, "sanity", lambda net, x, **more: seen.append(len(x)) or tested(net, x, **more))
    monkeypatch.setattr(averages, "_PIXELS", 3 * 32 * 32)
    after, _ = averages.mean_cams(network, rows, 2)
    sane = averages._test_sanity(network, rows, 24, 0)
    assert max(seen) == 3 and set(tasks) == {1} and {state["n"] for state in sane} == {3}
    for domain, classes in before.items():
        for name, record in classes.items():
            assert after[domain][name]["n"] == record["n"]
            assert after[domain][name]["centre"] == pytest.approx(record["centre"], abs=1e-5)
