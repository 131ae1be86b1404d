"What `import fakeface` offers: names, examples, weight, types; numbers for scikit-learn."

import doctest
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from fakeface.core.labels import FAKE, REAL
from fakeface.models.session import RunError
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.images import image_bytes, portrait, write_grey_images

import fakeface

NAMES = ("Detector", "InferError", "Verdict", "list_detectors")
HEAVY = "numpy PIL onnxruntime torch pandas scipy sklearn matplotlib".split()
IMPORT_ALONE = """
import sys, time
started = time.process_time()
import fakeface, fakeface.infer
seconds = time.process_time() - started
print(seconds, [name for name in sys.argv[1:] if name in sys.modules])
"""


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    tiny_bundle(folder, slope=1.5, band=[0.4, 0.6])
    return fakeface.Detector.load(folder, threads=1)


def test_names():
    assert set(NAMES) <= set(dir(fakeface)) and set(NAMES) == set(fakeface.__all__)
    assert fakeface.__version__ and fakeface.__doc__.startswith("Tell a photographed face")
    with pytest.raises(AttributeError, match="no attribute 'Detectr'"):
        fakeface.Detectr


def test_all_ways_to_import_a_name():
    import fakeface.infer as infer
    from fakeface.infer import Detector, InferError, Verdict, score_batch
    from fakeface.infer.detector import Detector as in_its_room

    assert Detector is in_its_room is fakeface.Detector and Verdict is fakeface.Verdict
    assert issubclass(InferError, Exception) and callable(score_batch)
    assert {"Detector", "Verdict", "InferError", "score_batch"} <= set(dir(infer))


def test_import_alone_is_light():
    command = [sys.executable, "-c", IMPORT_ALONE, *HEAVY]
    seconds = []
    for _ in range(5):
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        took, brought = ran.stdout.split(maxsplit=1)
        assert brought.strip() == "[]"
        seconds.append(float(took))
    assert min(seconds) < 0.05


@pytest.mark.parametrize("name", [name for name in NAMES if name != "InferError"])
def test_examples(name):
    "The examples in the docstrings, with the detector that ships."
    if not fakeface.list_detectors():
        pytest.skip("no detector is installed")
    thing = getattr(fakeface, name)
    examples = [test for test in doctest.DocTestFinder().find(thing, name) if test.examples]
    assert examples, f"{name} has no example"
    runner = doctest.DocTestRunner()
    for test in examples:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_way_of_asking_has_an_example():
    for method in ("check", "check_many", "check_faces", "predict_proba"):
        assert ">>> " in getattr(fakeface.Detector, method).__doc__


@pytest.mark.parametrize("error,said", [(RunError("took longer"), "took longer"), (MemoryError(), "more memory")])
def test_predict_proba_says_what_else_went_wrong(detector, monkeypatch, error, said):
    def failing(*_):
        raise error

    monkeypatch.setattr(type(detector), "scores", failing)
    with pytest.raises(fakeface.infer.InferError, match=rf"Image 0 .*cannot be judged: .*{said}"):
        detector.predict_proba([portrait()], framing="centre")


def test_predict_proba_is_p_fake(detector, tmp_path):
    folder = write_grey_images(tmp_path / "grey", 5)
    verdicts = detector.check_many(folder)
    chances = detector.predict_proba(folder)
    assert chances.dtype == np.float64 and chances.shape == (5, 2)
    assert chances[:, 1].tolist() == [verdict.p_fake for verdict in verdicts]
    np.testing.assert_allclose(chances.sum(1), 1)
    assert detector.classes_.tolist() == [REAL, FAKE] and not detector.classes_.flags.writeable
    (folder / "notes.txt").write_text("hello")
    assert len(detector.predict_proba(folder)) == 5, "a file beside the images is none"
    (folder / "notes.png").write_text("hello")
    with pytest.raises(fakeface.infer.InferError, match=r"notes\.png.* cannot be judged: Is a text file"):
        detector.predict_proba(folder)


def test_scikit_learn_takes_it(detector):
    from sklearn.metrics import log_loss, roc_auc_score

    images = [np.full((32, 32, 3), level, np.uint8) for level in (10, 90, 160, 240)]
    y = [0, 0, 1, 1]
    chances = detector.predict_proba(images)
    assert roc_auc_score(y, chances[:, 1]) == 1
    assert log_loss(y, chances, labels=detector.classes_) < 0.5
    assert detector.classes_[chances.argmax(1)].tolist() == y


def test_what_cannot_be_decoded_is_an_error_and_stops_nothing(detector, tmp_path):
    "A truncated image that Pillow has not decoded yet, a file that is open as text, one that is closed."
    data = image_bytes(portrait(), "JPEG", quality=90)
    truncated = Image.open(io.BytesIO(data[: len(data) // 2]))
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with open(path, "rb") as closed:
        pass
    *wrong, right = detector.check_many([truncated, io.StringIO(str(path)), closed, data])
    assert all(verdict.error and not verdict.label for verdict in wrong) and right.label
    assert "open as text" in wrong[1].error


def test_one_many_and_faces(detector):
    image = portrait()
    one = detector.check(image, name="drawn", stability=True, threshold=0.3, prior=0.1)
    assert isinstance(one, fakeface.Verdict) and (one.name, one.threshold, one.prior) == ("drawn", 0.3, 0.1)
    many = detector.check_many(
        (face for face in [image, b""]), names=["drawn"], stability=True, threshold=0.3, prior=0.1
    )
    assert many[0] == one and many[1].error and many[1].name == "image"
    assert all(isinstance(verdict, fakeface.Verdict) for verdict in detector.check_faces(image))
    assert detector.check_faces(b"")[0].error
    for wrong in ([image], (image,)):
        with pytest.raises(fakeface.infer.InferError, match="check_many"):
            detector.check(wrong)
    with pytest.raises(TypeError, match=r"Detector\.load\(\)"):
        fakeface.Detector()


def test_list_detectors():
    for installed in fakeface.list_detectors():
        assert (installed.path / "bundle.json").is_file()
        assert fakeface.Detector.load(installed.name, threads=1).hash == installed.identity


def test_types_of_the_how_to(root, tmp_path):
    "pyright understands what the how-to shows; the package says that it is typed."
    pytest.importorskip("pyright", reason="pyright is not installed")
    assert (root / "fakeface/py.typed").is_file()
    cells = json.loads((root / "nbs/tutorials/howto_use.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    reveal = "reveal_type(Detector.load().check(b''))\nreveal_type(Detector.load().check_many([b'']))\n"
    (tmp_path / "howto.py").write_text("\n\n".join(code) + "\n\n" + reveal, encoding="utf-8")
    settings = dict(include=["."], extraPaths=[str(root)], typeCheckingMode="basic")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path), "--outputjson"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    errors = [found["message"] for found in said["generalDiagnostics"] if found["severity"] == "error"]
    assert not errors
    revealed = [found["message"] for found in said["generalDiagnostics"] if found["severity"] == "information"]
    assert revealed and revealed[0].endswith('is "Verdict"') and revealed[1].endswith('is "list[Verdict]"')
