"One image, one probability: the detector against evaluation and torch; bad images, bundles and names; its weight."

import csv
import io
import json
import os
import pickle
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from fakeface.faces import networks
from fakeface.faces.frame import Square, cut_square
from fakeface.faces.networks import FacesError
from fakeface.models import shelf
from fakeface.models.bundle import FEATURES_FILE, INDEX, ONNX, SEEN_FILE, WEIGHTS, Bundle, BundleError, p_fake
from fakeface.infer.checker import open_desk
from fakeface.core.seeds import rng
from fakeface.core.files import sha256_file
from fakeface.evaluate.predict import predict
from fakeface.images.preprocess import eval_views, normalise
from fakeface.images.jpeg import jpeg_bytes
from fakeface.images.decode import open_image
from fakeface.infer.batch import score_batch
from fakeface.infer import detector as detector_room
from fakeface.infer.detector import Detector
from fakeface.infer.folder import score_paths
from fakeface.infer.verdict import InferError
from fakeface.models.shelf import list_bundles
from fakeface.models.backbone import LITE0
from fakeface.models.network import build_model
from fakeface.models.persistence import load_model, save_model
from fakeface.data.orl import demo_faces
from fakeface.testing.images import image_bytes

TOLERANCE = 1e-3  # of p_fake: torch in fp32, ONNX, evaluation, detector
XSS = "<img src=x onerror=alert(1)>.jpg"
BUNDLE_FILES = [INDEX, ONNX, WEIGHTS, "README.md", "LICENSE"]


def noise(generator, width, height):
    "An image of random colours."
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pictures(count):
    "Images with what a photograph has: coarse forms, fine detail, some of them faces."
    faces = demo_faces(count // 2)
    clouds = []
    for i in range(count - count // 2):
        coarse = noise(rng("pic", i), 9, 9 + i % 4)
        clouds.append(coarse.resize((200 + 7 * i, 180 + 11 * (i % 7)), Image.Resampling.BICUBIC))
    return faces + clouds


def all_views(images, spec):
    "What the network sees of some images, as one batch."
    return np.concatenate([eval_views(image, spec) for image in images])


def mean_logits(logits, count):
    "Logits of each of `count` images, from those of their views."
    return logits.numpy().reshape(count, -1, 2).mean(1)


@pytest.fixture(scope="module", params=["resize", "multicrop"])
def detector(request, tmp_path_factory):
    "lite0 with its ImageNet weights and a head whose scores spread over (0, 1)."
    torch.manual_seed(0)
    net = build_model(LITE0, "imagenet", size=96, view=request.param).eval()
    folder = tmp_path_factory.mktemp("bundle") / "lite"
    views = normalise(all_views(pictures(16), net.spec), net.spec)
    with torch.no_grad():
        logits = mean_logits(net(torch.from_numpy(views)), 16)
    log_odds = logits[:, 1] - logits[:, 0]
    temperature = float(log_odds.std())
    bias = -float(np.median(log_odds)) / temperature
    scores = np.sort(p_fake(logits, temperature, bias))
    bundle = Bundle(
        "lite",
        net.arch,
        net.spec,
        temperature=temperature,
        bias=bias,
        thresholds={"youden": 0.5},
        threshold="youden",
        band=[float(scores[6]), float(scores[9])],
        framing="centre",
        limits={"least_side": 1},
    )
    save_model(net, folder, bundle)
    return Detector.load(folder, threads=1)


@pytest.fixture()
def copy(detector, tmp_path):
    return shutil.copytree(detector.path, tmp_path / "copy")


# ---- the same number everywhere
def write_pictures(folder):
    "Sixteen images as files, and their manifest."
    rows = []
    for i, image in enumerate(pictures(16)):
        path = folder / f"{i}.{'png' if i % 3 else 'jpg'}"
        image.save(path)
        rows.append(dict(path=path.name, domain="x", label=i % 2, split="test", source="x"))
    manifest = pd.DataFrame(rows)
    manifest.attrs["root"] = str(folder)
    return manifest


def scores_of_the_command(files, bundle):
    "Name of each file → score, as a process of its own says."
    command = [sys.executable, "-m", "fakeface", "check", *map(str, files), "--bundle", str(bundle), "--json", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ran.returncode == 0, ran.stderr
    records = map(json.loads, ran.stdout.splitlines())
    return {Path(record["name"]).name: record["p_fake"] for record in records}


def hand_in(desk, files):
    "Give files to the checker's desk as the page does, each in one part."
    for number, path in enumerate(files):
        message = dict(kind="part", id=str(number), name=path.name, part=0, parts=1)
        answers = desk.handle(message, [path.read_bytes()])
        assert [answer["kind"] for answer in answers] == ["card"]


def scores_of_the_desk(desk):
    "Name of each file → score, as the checker saves it."
    (answer,) = desk.handle(dict(kind="csv"))
    return {row["name"]: float(row["p_fake"]) for row in csv.DictReader(io.StringIO(answer["text"]))}


def test_detector_evaluation_command_and_checker_agree(detector, tmp_path):
    model, bundle = load_model(detector.path)
    evaluated = predict(model, bundle, write_pictures(tmp_path), batch=5, workers=0)
    assert len(evaluated) == 16 and np.ptp(evaluated.p_fake) > 0.5, "scores that are all alike prove nothing"
    files = [tmp_path / path for path in evaluated.path]
    checked = [detector.check(file) for file in files]
    scores = [verdict.p_fake for verdict in checked]
    np.testing.assert_allclose(scores, evaluated.p_fake, atol=TOLERANCE)
    contents = np.array([file.read_bytes() for file in files], object)
    batch = score_batch(dict(bytes=contents), str(detector.path))
    np.testing.assert_allclose(batch["p_fake"], scores, atol=1e-6)
    assert batch["label"].tolist() == [verdict.label for verdict in checked]
    views = all_views([open_image(file) for file in files], bundle.spec)
    np.testing.assert_allclose(detector.scores(views), batch["p_fake"], atol=1e-6)
    # the command, in a process of its own, and the checker
    desk = open_desk(detector.path)
    hand_in(desk, files)
    for said in (scores_of_the_command(files, detector.path), scores_of_the_desk(desk)):
        np.testing.assert_allclose([said[file.name] for file in files], scores, atol=1e-6)


def test_own_threshold_gives_the_same_words_everywhere(detector, tmp_path):
    write_pictures(tmp_path)
    files = sorted(tmp_path.iterdir())
    desk = open_desk(detector.path)
    hand_in(desk, files)
    low, high = detector.bundle.band
    # within the unsure band, below and above it: no threshold makes a photograph of what is unsure
    for threshold in ((low + high) / 2, low / 2, (1 + high) / 2):
        desk.handle(dict(kind="set", threshold=threshold))
        words = [verdict.label for verdict in desk.verdicts()]
        assert words == [detector.check(file, threshold=threshold).label for file in files]
        for verdict in desk.verdicts():
            assert (verdict.label == "real") == (verdict.p_fake < low)
            assert (verdict.label == "fake") == (verdict.p_fake >= max(threshold, high))


def test_torch_onnx_and_bf16_agree(detector):
    model, bundle = load_model(detector.path)
    views = all_views(pictures(32), bundle.spec)
    x = torch.from_numpy(normalise(views, bundle.spec))
    with torch.inference_mode():
        in_fp32 = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            in_bf16 = model(x).float()
    scores_fp32 = p_fake(mean_logits(in_fp32, 32), bundle.temperature, bundle.bias)
    scores_bf16 = p_fake(mean_logits(in_bf16, 32), bundle.temperature, bundle.bias)
    np.testing.assert_allclose(detector.scores(views), scores_fp32, atol=TOLERANCE)
    moved = np.abs(scores_bf16 - scores_fp32)
    print(f"bf16 moves p_fake by up to {moved.max():.3f}, {np.median(moved):.3f} in the middle")
    # it is not within 1e-2: that is why the detector computes in fp32
    assert moved.max() < 0.25, "bf16 is the same network"


def test_heatmap_is_a_picture(detector):
    image = Image.new("RGB", (120, 90), "red")
    assert isinstance(detector.heatmap(image), Image.Image)
    assert detector.heatmap(jpeg_bytes(image, 90), (60, 45, 40, 30)).size == (192, 192)


def test_a_heatmap_is_of_the_image_that_was_judged(detector, tmp_path, monkeypatch):
    "The file is read a second time for it, and may be another by then."
    path, maps, found = tmp_path / "a.png", tmp_path / "maps", []
    Image.new("RGB", (120, 90), "red").save(path)
    maps.mkdir()

    def exchange(self, *given):
        Image.new("RGB", (130, 90), "blue").save(path)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(Detector, "heatmap", exchange)
    score_paths(detector, [path], found.extend, workers=0, heatmaps=maps, bar=False)
    assert [verdict.error for verdict in found] == ["Was judged, and then the file was changed. Check it again."]
    assert not list(maps.iterdir())


def test_heatmap_of_a_word(detector):
    "Of a photograph and of a generated image it shows other evidence; of an unsure one that for a generated image."
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    real, fake, unsure = (np.asarray(detector.heatmap(image, word=word)) for word in ("real", "fake", "unsure"))
    assert (fake == unsure).all() and (real != fake).any()


def test_a_heatmap_without_torch_is_a_sentence(detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("fakeface.explain")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InferError, match="Heat-maps need torch, which is not installed"):
        detector.heatmap(Image.new("RGB", (120, 90), "red"))


def test_three_threads_get_the_same(detector):
    faces = [jpeg_bytes(image, 90) for image in pictures(8)]
    want = [verdict.p_fake for verdict in detector.check_many(faces)]
    got = {}
    before = list(warnings.filters)

    def score(number):
        got[number] = [verdict.p_fake for verdict in detector.check_many(faces)]

    threads = [threading.Thread(target=score, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(got[number], want, atol=1e-6) for number in range(3))
    assert warnings.filters == before


# ---- bad images: a sentence each
def exif_turned(image):
    "An image stored upside down, with the note that it is."
    exif = Image.Exif()
    exif[0x112] = 3
    return image_bytes(image.rotate(180), "PNG", exif=exif)


def zipped():
    "A face in a ZIP file."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jpg", jpeg_bytes(demo_faces(1)[0], 90))
    return buffer.getvalue()


BAD = {
    "zip": (zipped, "not an image"),
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"hello", "text"),
    "1x1": (lambda: jpeg_bytes(Image.new("RGB", (1, 1)), 90), "1 × 1 pixels"),
    "strip": (lambda: jpeg_bytes(Image.new("RGB", (10_000, 10)), 90), "10,000 × 10 pixels"),
    "torn": (lambda: jpeg_bytes(demo_faces(1)[0], 90)[:700], "runcated"),
    "pickle": (lambda: pickle.dumps(dict(a=1)), "not an image"),
    "bomb": (lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x4e\x20\0\0\x4e\x20\x08\x02\0\0\0", ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_picture_is_a_sentence(detector, kind, tmp_path):
    make, said = BAD[kind]
    data = make()
    (tmp_path / XSS).write_bytes(data)
    file = detector.check(tmp_path / XSS)
    for verdict in (detector.check(data), file, *detector.check_faces(data, stability=True)):
        assert verdict.error and said in verdict.error and "Traceback" not in verdict.error
        assert verdict.label == "" and np.isnan(verdict.p_fake) and verdict.words().startswith("No verdict")
    assert file.name == XSS and json.loads(json.dumps(file.row()))["error"]


def test_strange_pictures_get_a_verdict(detector):
    big = jpeg_bytes(noise(rng("big"), 100, 60).resize((10_000, 6_000)), 80)
    started = time.time()
    verdict = detector.check(big, stability=True)
    print(f"60 megapixels with stability: {time.time() - started:.1f} s, 10,000 x 6,000")
    assert not verdict.error and verdict.native == (10_000, 6_000) and verdict.stability["n"] == 7
    strip = detector.check(Image.new("RGB", (10_000, 20), "red"))
    for word in ("Enlarged", "looked at"):
        assert any(word in warning for warning in strip.warnings)
    face = demo_faces(1)[0]
    assert detector.check(exif_turned(face)).p_fake == detector.check(face).p_fake, "turned by EXIF is upright"


def test_folder_list_and_errors_in_between(detector, tmp_path, monkeypatch):
    for name in ("a.jpg", "b/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg_bytes(demo_faces(1)[0], 90))
    for name in ("notes", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    got = {verdict.name: verdict.error for verdict in detector.check_many(tmp_path)}
    assert set(got) == {"a.jpg", "b/c.jpg", "notes", "pipe"}, "notes.txt says itself that it is no image"
    assert not got["a.jpg"] and "text" in got["notes"] and "ordinary" in got["pipe"]

    def closed(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    (verdict,) = detector.check_many(tmp_path)
    assert "Permission denied" in verdict.error and verdict.label == ""


def test_no_face_and_twenty_faces(detector):
    (verdict,) = detector.check_faces(Image.new("RGB", (300, 300), "white"))
    assert verdict.label == "unsure" and verdict.reason == "No face was found" and not verdict.error
    assert np.isnan(verdict.p_fake) and "No face" in verdict.words() and verdict.row()["reason"] == verdict.reason
    sheet = Image.new("RGB", (600, 560), "grey")
    for i, face in enumerate(demo_faces(20)):
        sheet.paste(face.resize((104, 126)), (8 + 120 * (i % 5), 7 + 140 * (i // 5)))
    many = detector.check_faces(sheet, name="twenty.png")
    assert 18 <= len(many) <= 22 and many[0].looked_at == f"face 1 of {len(many)}"
    assert len({verdict.box for verdict in many}) == len(many)
    parts = [cut_square(sheet, Square(*verdict.square), verdict.native[0]) for verdict in many]
    views = all_views(parts, detector.bundle.spec)
    np.testing.assert_allclose(detector.scores(views), [verdict.p_fake for verdict in many], atol=1e-6)


def test_a_crowd_is_cut_with_a_sentence(detector, monkeypatch):
    "More faces than are looked at: the image says so, an image with fewer does not."
    crowd = Image.new("RGB", (900, 300), "grey")
    for i, face in enumerate(demo_faces(3)):
        crowd.paste(face.convert("RGB").resize((150, 180)), (60 + 300 * i, 60))
    few = detector.check_faces(crowd)
    assert len(few) == 3 and not any("At most" in note for verdict in few for note in verdict.warnings)
    monkeypatch.setattr(detector_room, "MAX_FACES", 3)
    assert all(
        "At most 3 faces of an image are looked at" in verdict.warnings[0] for verdict in detector.check_faces(crowd)
    )


def test_without_the_finder(detector, monkeypatch):
    def damaged(name):
        raise FacesError(f"{name} is not the file that came with fakeface. Install fakeface again.")

    monkeypatch.setattr(networks, "face_network", damaged)
    with pytest.raises(InferError, match="Install fakeface again"):
        detector.check_faces(demo_faces(1)[0])


# ---- bad bundles: a sentence each, nothing run
def changed(folder, edit):
    "Change a bundle's index with a function."
    index = json.loads((folder / INDEX).read_text())
    edit(index)
    (folder / INDEX).write_text(json.dumps(index))


def noted_anew(folder, name):
    "Let a bundle's index say that the file as it is now is the one that was written."
    changed(folder, lambda index: index["files"].update({name: sha256_file(folder / name)}))


class Boom:
    def __reduce__(self):
        return os.system, ("touch BOOM",)


def test_bad_bundles_are_sentences(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fresh(name):
        return shutil.copytree(detector.path, tmp_path / name)

    def refused(folder, said):
        with pytest.raises(InferError, match=said) as caught:
            Detector.load(folder)
        assert "\n" not in str(caught.value) and caught.value.__cause__ is None

    for name in (ONNX, WEIGHTS, "README.md"):
        folder = fresh(f"byte-{name}")
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        refused(folder, f"{name} is not the file that was written")
    folder = fresh("newer")
    changed(folder, lambda index: index.update(format=99))
    refused(folder, "format 99")
    folder = fresh("pickled")
    (folder / WEIGHTS).write_bytes(pickle.dumps(Boom()))
    noted_anew(folder, WEIGHTS)
    refused(folder, "pickle, which could run arbitrary code")
    folder = fresh("extra")
    (folder / "weights.pt").write_bytes(b"x")
    refused(folder, "can hold code")
    folder = fresh("climbing")
    changed(folder, lambda index: index["files"].update({"../../etc/passwd": "0" * 64}))
    refused(folder, "does not belong in a bundle")
    folder = fresh("other-net")
    (folder / ONNX).write_bytes(b"\x08\x07nonsense")
    noted_anew(folder, ONNX)
    refused(folder, "is not a network")
    folder = fresh("no-onnx")
    (folder / ONNX).unlink()
    changed(folder, lambda index: index["files"].pop(ONNX))
    refused(folder, "fakeface export")
    folder = fresh("no-index")
    (folder / INDEX).unlink()
    refused(folder, f"no {INDEX}")
    folder = fresh("json")
    (folder / INDEX).write_text("{")
    refused(folder, "not JSON")
    refused(tmp_path / "nowhere", "There is no bundle")
    refused(folder / WEIGHTS, "is a file")
    refused(os.path.relpath("/etc/passwd", tmp_path), "is a file")
    refused("../x@../y", "There is no bundle")
    refused(7, "should be")
    assert not (tmp_path / "BOOM").exists()


def test_onnx_reaches_no_other_file(detector, copy, monkeypatch):
    "A network whose weights are said to lie in another file is refused: the session gets bytes, no folder."
    onnx = pytest.importorskip("onnx")
    network = onnx.load(str(copy / ONNX))
    weights = network.graph.initializer[0]
    secret = copy.parent / "secret"
    secret.write_bytes(weights.raw_data)
    monkeypatch.chdir(copy.parent)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secret")
    (copy / ONNX).write_bytes(network.SerializeToString())
    noted_anew(copy, ONNX)
    with pytest.raises(InferError, match="data in other files"):
        Detector.load(copy)


def test_changed_while_read(detector, monkeypatch):
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"x" if path.name == ONNX else read(path))
    with pytest.raises(InferError, match="changed while it was being read"):
        Detector.load(detector.path)


def test_pickled_detector_knows_its_bundle(detector, copy):
    loaded = Detector.load(copy, "youden", threads=1)
    data = pickle.dumps(loaded)
    again = pickle.loads(data)
    assert again.hash == loaded.hash and again.threshold == loaded.threshold
    changed(copy, lambda index: index.update(bias=index["bias"] + 1))
    with pytest.raises(InferError, match="another (one|network)"):
        pickle.loads(data)


HUB_FILES = [*BUNDLE_FILES, SEEN_FILE, FEATURES_FILE]


def test_hub(detector, hub):
    hub.serve(detector.path)
    assert Detector.load("someone/lite@v1", threads=1).hash == detector.hash
    there = [name for name in HUB_FILES if (detector.path / name).exists()]
    assert hub.asked == [("someone/lite", name, "v1") for name in there] and hub.cached == []
    hub.fail(OSError("no route to host\nand more"))
    with pytest.raises(InferError, match=r"could not be downloaded from the model hub \(OSError: no route to host\)"):
        Detector.load("someone/lite")
    assert hub.cached == [("someone/lite", None)], "what is in the cache would have done"
    for odd in ("someone/../lite", "a/b/c", "-x/y", "someone/lite@../../x", "someone/li te", "a--b/c", "someone\\lite"):
        with pytest.raises(InferError, match="There is no bundle"):
            Detector.load(odd)


COMMIT = "a" * 40


def hub_handler(folder, asked, sha=COMMIT, error=None, **headers_of_files):
    """A hub with one repository, `someone/lite`, of a bundle's files and two more; what is fetched goes into `asked`.
    The commit that it says, headers of each file, and those of an error for each may be given."""
    import hashlib
    from http.server import BaseHTTPRequestHandler

    names = [*sorted(path.name for path in folder.iterdir()), "evil.pkl", "sub/bundle.json"]
    tree = [dict(type="file", path=name, size=3, oid="0" * 40) for name in names]
    about = dict(id="someone/lite", sha=sha, private=False, tags=[])
    about["siblings"] = [dict(rfilename=name) for name in names]

    def answer(path):
        "Status, content and headers."
        if path.startswith("/api/models/someone/lite/tree/"):
            return 200, json.dumps(tree).encode(), {}
        if path.startswith("/api/models/someone/lite"):
            return 200, json.dumps(about).encode(), {}
        if path.startswith("/someone/lite/resolve/"):
            name = path.split("/", 5)[5]
            asked.append(name)
            if error:
                return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": error}
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                return 200, content, headers | headers_of_files
        return 404, b"", {}

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            code, content, headers = answer(self.path.split("?")[0])
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    return Hub


LOAD_FROM_HUB = "from fakeface.infer.detector import Detector; print(Detector.load('someone/lite@main').hash)"


def loaded_from(handler, home, load=LOAD_FROM_HUB):
    "What a process prints that loads the detector of a hub on the loopback with the real client, and its errors."
    from http.server import ThreadingHTTPServer

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", load]
    try:
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    finally:
        server.shutdown()
    return ran.stdout.strip(), ran.stderr


def test_hub_client_takes_the_five_files_and_no_other(detector, tmp_path):
    "A repository with a pickle and a second index in it."
    asked = []
    warning = {"X-HF-Warning": "topic; \x1b[31mred"}
    said, errors = loaded_from(hub_handler(detector.path, asked, **warning), tmp_path)
    assert said == detector.hash, errors[-500:]
    assert set(asked) == set(BUNDLE_FILES)
    assert "[31mred" in errors and "\x1b" not in errors, "what the hub says is shown in letters only"
    (gone,) = (tmp_path / "hub").glob("models--*/refs/main")
    assert gone.read_text() == COMMIT
    # it answers with nothing now, and what was downloaded is in the cache; or with what is refused
    said, errors = loaded_from(hub_handler(detector.path, asked, error="gone"), tmp_path)
    assert said == detector.hash, errors[-500:]
    said, errors = loaded_from(hub_handler(detector.path, asked, sha="../../none"), tmp_path)
    assert not said and "answers with a commit that is none" in errors, errors[-500:]


def test_who_names_a_commit_gets_no_other(detector, tmp_path):
    "A name that does not change is why somebody gives a commit."
    loads = [LOAD_FROM_HUB.replace("@main", f"@{commit}") for commit in (COMMIT, "b" * 40)]
    (said, errors), (other, refused) = (loaded_from(hub_handler(detector.path, []), tmp_path, load) for load in loads)
    assert said == detector.hash, errors[-500:]
    assert not other and "another commit than the one that was asked for" in refused, refused[-500:]


PATHS = [
    {"ETag": '"../../../../../escaped"'},
    {"X-Linked-Etag": '"../../../../../escaped"'},
    {"ETag": '"..\\..\\escaped"'},
    {"ETag": '".."'},
    {"X-Repo-Commit": "../../../../escaped"},
    {"X-Repo-Commit": "f" * 40},
    {"error": "../../../../escaped"},
    {"sha": "../../../../escaped"},
]
LOAD_ALL = """
from fakeface.infer.detector import Detector
for number in range(8):
    try:
        print(Detector.load(f"someone/lite{number}@main").hash)
    except Exception as error:
        print(error)
"""


def test_a_hub_that_answers_with_paths_writes_nothing(tiny, tmp_path):
    "Its client names files by what it is told; each of eight repositories tells it another way out."
    hubs = [hub_handler(tiny, [], **answer) for answer in PATHS]

    class Hub(hubs[0]):
        def do_GET(self):
            before, number, after = re.split(r"(?<=someone/lite)(\d)", self.path, maxsplit=1)
            self.path = before + after
            hubs[int(number)].do_GET(self)

    home = tmp_path / "one/two/home"
    home.mkdir(parents=True)
    said, errors = loaded_from(Hub, home, LOAD_ALL)
    lines = said.splitlines()
    assert len(lines) == len(PATHS), errors[-500:]
    for answer, line in zip(PATHS, lines):
        assert "could not be downloaded from the model hub" in line, (answer, line)
    outside = [path for path in tmp_path.rglob("*") if home not in (path, *path.parents) and path not in home.parents]
    assert not outside and not list(home.rglob("*escaped*"))


def test_what_a_hub_answers_is_checked_in_each_thread(monkeypatch, hub, tiny):
    from huggingface_hub import file_download

    path = SimpleNamespace(commit_hash=hub.commit, etag="../../elsewhere")
    monkeypatch.setattr(file_download, "get_hf_file_metadata", lambda *_: path)
    shelf._guard_client.cache_clear()
    first_is_done, second_has_begun = threading.Event(), threading.Event()

    def download(repo, name, revision=None):
        if repo == "first/lite":
            second_has_begun.wait(20)
        else:
            second_has_begun.set()
            first_is_done.wait(20)
            file_download.get_hf_file_metadata(name)
        return str(hub.snapshot / name)

    hub.serve(tiny)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with ThreadPoolExecutor(2) as threads:
        second = threads.submit(shelf.from_hub, "second/lite")
        threads.submit(shelf.from_hub, "first/lite").result(30)
        first_is_done.set()
        with pytest.raises(BundleError, match="no name of a file"):
            second.result(30)
    assert file_download.get_hf_file_metadata("a file of somebody else") is path, "what is not ours is left alone"
    shelf._guard_client.cache_clear()


def test_a_hub_that_does_not_answer_is_not_waited_for(detector, monkeypatch, tmp_path):
    "A proxy takes the connection and stays silent; what is in the cache is taken from there."
    monkeypatch.setattr(huggingface_hub, "snapshot_download", MagicMock(side_effect=FileNotFoundError))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        monkeypatch.setattr(shelf, "_ANSWERS_IN", 0.5)
        with pytest.raises(InferError, match="no answer in 0.5 s, and it is not in the cache"):
            Detector.load("someone/lite")
        asked = []

        def cached(repo, **options):
            asked.append(options["local_files_only"])
            return str(detector.path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
        assert Detector.load("someone/lite", threads=1).hash == detector.hash and asked == [True]


def test_shipped_bundle_comes_first(detector, monkeypatch, tmp_path):
    monkeypatch.setattr(shelf, "list_bundles", lambda: {"fakeface-lite0": detector.path})
    assert Detector.load(threads=1).hash == Detector.load("fakeface-lite0", threads=1).hash == detector.hash
    monkeypatch.setattr(shelf, "list_bundles", lambda: {})
    with pytest.raises(InferError, match="fakeface demo"):
        Detector.load()
    monkeypatch.chdir(tmp_path)
    assert all((folder / INDEX).is_file() for folder in list_bundles().values())


# ---- what it weighs
HEAVY = """
torch torchvision timm pandas sklearn scipy matplotlib IPython ipywidgets ipykernel nbformat papermill
huggingface_hub cv2 seaborn jinja2
""".split()
FIRST_VERDICT = """
import sys, time
times = [time.perf_counter()]
from fakeface import Detector
times.append(time.perf_counter())
detector = Detector.load(sys.argv[1])
times.append(time.perf_counter())
verdict = detector.check(sys.argv[2])
times.append(time.perf_counter())
names = ("import", "load", "first verdict")
took = [f"{name} {end - start:.2f} s" for name, start, end in zip(names, times, times[1:])]
brought = {name.split(".")[0] for name in sys.modules}
print(sorted(brought & set(sys.argv[3:])), ", ".join(took), verdict.error)
"""


def test_import_is_light(root, detector):
    image = detector.path.parent / "one.jpg"
    image.write_bytes(jpeg_bytes(demo_faces(1)[0], 90))
    command = [sys.executable, "-c", FIRST_VERDICT, str(detector.path), str(image), *HEAVY]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True)
    print(ran.stdout)
    assert ran.stdout.startswith("[] import") and not ran.stderr, ran.stdout + ran.stderr


# ---- broken files by the hundred
SOUND_FORMATS = [  # mode, format, options of Pillow's encoder
    ("RGB", "JPEG", dict(quality=85)),
    ("RGB", "JPEG", dict(quality=85, progressive=True)),
    ("RGB", "PNG", {}),
    ("RGB", "WEBP", {}),
    ("RGB", "GIF", {}),
    ("RGB", "BMP", {}),
    ("RGB", "TIFF", dict(compression="tiff_lzw")),
    ("RGB", "AVIF", {}),
    ("RGB", "JPEG2000", {}),
    ("RGBA", "PNG", {}),
]


def sound_files():
    "A face as a file of each format that this Pillow can write."
    faces = demo_faces(3)
    files = []
    for mode, kind, options in SOUND_FORMATS:
        face = faces[len(files) % 3].convert(mode)
        try:
            files.append(image_bytes(face, kind, **options))
        except (OSError, KeyError):
            # this Pillow was built without that codec
            continue
    return files


IN_HEADER, ANYWHERE, RUN, PIECE, TORN = range(5)  # ways to damage a file


def damaged(content, generator):
    "Bytes changed in the header or anywhere, a piece cut out, doubled or the end missing."
    data = bytearray(content)
    how = generator.integers(5)
    if how == TORN:
        return bytes(data[: generator.integers(0, len(data))])
    for _ in range(generator.integers(1, 9)):
        end = min(len(data), 64) if how == IN_HEADER else len(data)
        start = int(generator.integers(0, end))
        if how in (IN_HEADER, ANYWHERE):
            data[start] = generator.integers(256)
        elif how == RUN:
            data[start : start + 8] = generator.integers(0, 256, 8, dtype=np.uint8).tobytes()
        else:
            piece = slice(start, start + int(generator.integers(1, 200)))
            data[piece] = b"" if generator.random() < 0.5 else bytes(data[piece]) * 2
        if not data:
            return b""
    return bytes(data)


@pytest.mark.filterwarnings("ignore")  # Pillow's; pytest undoes what Detector.load says about them
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzz(detector, count):
    if detector.bundle.spec.view != "resize":
        pytest.skip("decoding is the same for every view")
    files = sound_files()
    worst, good = 0.0, 0
    detector.check(files[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(count):
        data = damaged(files[i % len(files)], rng("fuzz", i))
        started = time.process_time()
        verdicts = detector.check_faces(data) if i % 3 == 0 else [detector.check(data)]
        worst = max(worst, time.process_time() - started)
        for verdict in verdicts:
            assert bool(verdict.error) != bool(verdict.label)
            assert "\n" not in verdict.error and len(verdict.error) < 400
            good += not verdict.error
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{count} files: {good} verdicts, slowest {worst:.2f} s of processor, memory {grown:.0f} MiB more")
    assert worst < 5 and grown < 1500 and 0 < good


@pytest.mark.parametrize("given", [None, 5, [1, 2]])
def test_a_file_object_that_gives_no_bytes_is_a_sentence(tiny, given):
    class Odd:
        def read(self, size=-1):
            return given

    verdict, sound = Detector.load(tiny, threads=1).check_many([Odd(), jpeg_bytes(Image.new("RGB", (64, 64)), 90)])
    assert f"read gives {type(given).__name__}, not bytes" in verdict.error and not sound.error


def test_the_hub_s_errors_quote_no_token(monkeypatch, hub):
    "Its client quotes the header that cannot be sent."
    hub.fail(ValueError(r"Illegal header value b'Bearer hf_SECRET123\x1bKEY456' at http://me:word@proxy:80"))
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET123\x1bKEY456")
    with pytest.raises(BundleError, match="could not be downloaded.*Illegal header value") as raised:
        shelf.from_hub("someone/faces")
    assert not any(part in str(raised.value) for part in ("SECRET", "KEY456", "me:word"))


def test_a_heat_map_is_of_the_network_that_judged(tmp_path):
    "Somebody trains anew into the folder of a detector that is open."
    torch.manual_seed(0)
    for overwrite in (False, True):
        network = build_model("test_resnet", None, size=32).eval()
        save_model(network, tmp_path / "b", Bundle("b", "test_resnet", network.spec), overwrite=overwrite)
        if not overwrite:
            detector = Detector.load(tmp_path / "b")
            assert detector.heatmap(demo_faces(1)[0]).mode == "RGB"
    with pytest.raises(InferError, match="Another detector has been put in the place"):
        detector.heatmap(demo_faces(1)[0])
    assert Detector.load(tmp_path / "b").heatmap(demo_faces(1)[0]).mode == "RGB"
