"The command as a process of its own: standard input, signals, dead kernels, exit codes, the demo's chain."

import json
import os
import signal
import subprocess
import sys
import time
import nbformat
import pytest

COMMAND = [sys.executable, "-c", "from fakeface.cli.cli import main; raise SystemExit(main())"]


@pytest.fixture
def checkout(root, tmp_path):
    "A checkout with five tiny stages, made by the helper of 17_cli's notebook."
    cells = nbformat.read(root / "nbs/13_cli/01_cli.ipynb", 4).cells
    space = {}
    exec(
        "import nbformat\nfrom pathlib import Path\n"
        + next(c.source for c in cells if "def tiny_checkout" in c.source),
        space,
    )
    return space["tiny_checkout"](tmp_path, ("prepare", "pretrain", "finetune", "evaluate", "report"))


def fakeface(checkout, *args, **kw):
    return subprocess.run([*COMMAND, *args], cwd=checkout, capture_output=True, text=True, timeout=120, **kw)


def test_stage_runs_from_a_subfolder_in_this_interpreter_whatever_is_on_stdin(checkout):
    r = subprocess.run(
        [*COMMAND, "prepare", "-p", "epochs", "1"],
        cwd=checkout / "nbs",
        capture_output=True,
        text=True,
        timeout=120,
        input='{"cells": []}',
    )
    assert r.returncode == 0, r.stderr
    assert "epoch 1 of 1" in r.stdout and r.stdout.strip().endswith("outputs/demo/prepare/notebook.ipynb")
    done = json.loads((checkout / "outputs/demo/prepare/metrics.json").read_text())
    assert done == {"epochs": 1, "python": sys.executable}
    nb = nbformat.read(checkout / "outputs/demo/prepare/notebook.ipynb", 4)
    assert (
        nb.metadata.papermill.input_path == "nbs/run_prepare.ipynb"
        and nb.metadata.papermill.output_path == "outputs/demo/prepare.ipynb"
    )


def test_closed_stdin(checkout):
    r = subprocess.run(
        ["bash", "-c", 'exec "$0" "$@" <&-', *COMMAND, "prepare", "-p", "epochs", "1"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert r.returncode == 0, r.stderr


def test_out_outside_the_checkout(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere")
    r = fakeface(checkout, "prepare", "-p", "out", str(out), "-p", "run", "2024")
    assert r.returncode == 0, r.stderr
    assert (out / "2024/prepare/notebook.ipynb").exists() and not (checkout / "outputs").exists()


def test_unknown_name_starts_nothing(checkout):
    r = fakeface(checkout, "finetune", "-p", "epochz", "3")
    assert r.returncode == 1 and "Did you mean 'epochs'" in r.stderr and not (checkout / "outputs").exists()


def test_usage_errors(checkout):
    assert fakeface(checkout, "finetun").returncode == 2
    assert fakeface(checkout, "--version").stdout.startswith("fakeface ")


def test_dead_kernel(checkout):
    r = fakeface(checkout, "pretrain", "-p", "fail", "kill")
    assert r.returncode == 138 and "memory" in r.stderr and "Traceback" not in r.stderr
    assert (checkout / "outputs/demo/pretrain/notebook.ipynb").exists()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_signal_interrupts_the_stage(checkout, sig):
    p = subprocess.Popen(
        [*COMMAND, "pretrain", "-p", "seconds", "60"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert p.stdout.readline() == "epoch 1 of 2\n"
    t = time.time()
    p.send_signal(sig)
    out, err = p.communicate(timeout=40)
    assert p.returncode == 128 + sig and "resume True" in err and "Traceback" not in err and time.time() - t < 30
    nb = nbformat.read(checkout / "outputs/demo/pretrain/notebook.ipynb", 4)
    assert [o.ename for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"] == [
        "KeyboardInterrupt"
    ]
    assert json.loads((checkout / "outputs/demo/pretrain/stage.json").read_text())["state"] == "running"


def test_demo_runs_the_five_and_only_its_own_run_is_made_anew(checkout):
    r = fakeface(checkout, "demo", "-p", "epochs", "1")
    assert r.returncode == 0, r.stderr
    stages = ("prepare", "pretrain", "finetune", "evaluate", "report")
    assert all((checkout / f"outputs/demo/{s}/notebook.ipynb").exists() for s in stages)
    assert [l for l in r.stdout.splitlines() if l.startswith("──")] == [
        f"── {s}" for s in stages
    ] and "outputs/demo/report.html" in r.stdout
    first = (checkout / "outputs/demo/report/notebook.ipynb").read_bytes()
    r = fakeface(checkout, "demo", "-p", "fail", "No disk.")
    assert r.returncode == 1 and "prepare failed: No disk." in r.stderr
    assert (checkout / "outputs/demo/report/notebook.ipynb").read_bytes() == first, (
        "the chain stops at the stage that failed"
    )
    (checkout / "outputs/demo").rename(checkout / "outputs/mine")
    r = fakeface(checkout, "demo", "-p", "run", "mine")
    assert r.returncode == 1 and "overwrite=True" in r.stderr
    r = fakeface(checkout, "demo", "-p", "nothing", "1")
    assert r.returncode == 1 and "parameter of any stage" in r.stderr


# ---- check, export, doctor, serve
HEAVY = (
    "torch torchvision timm pandas sklearn scipy matplotlib IPython ipywidgets papermill huggingface_hub cv2".split()
)


@pytest.fixture(scope="module")
def tiny(root, tmp_path_factory):
    "The bundle of 17_cli's notebook: its network only looks at how bright a picture is."
    cells = nbformat.read(root / "nbs/13_cli/01_cli.ipynb", 4).cells
    space = {}
    exec(next(c.source for c in cells if "def tiny_bundle" in c.source), space)
    folder = tmp_path_factory.mktemp("bundle")
    space["noise_picture"](folder / "light.png", 200)
    space["noise_picture"](folder / "dark.png", 60)
    return space["tiny_bundle"](folder / "tiny")


def test_check_outside_a_checkout_is_light_and_quick(tiny):
    code = f"""import sys, time; t = time.perf_counter()
from fakeface.cli.cli import main
code = main(["check", "light.png", "--bundle", "tiny"]); print(code, time.perf_counter() - t, [m for m in {HEAVY} if m in sys.modules])"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=os.path.dirname(tiny), capture_output=True, text=True, timeout=60
        )
        for _ in range(3)
    ]
    for r in runs:
        assert (
            r.stdout.startswith("light.png: Looks generated: p_fake 0.9") and r.stdout.endswith("[]\n") and not r.stderr
        ), r.stdout + r.stderr
    assert min(float(r.stdout.splitlines()[-1].split()[1]) for r in runs) < 3, "import, opening and one verdict"


@pytest.mark.parametrize(
    "args,code,says",
    [
        (["light.png", "dark.png"], 0, "2 pictures: 1 look generated, 1 like photographs"),
        (["light.png", "missing.png"], 1, "1 could not be judged"),
        (["tiny"], 1, "could not be judged"),
        (["light.png", "--bundle", "nowhere"], 2, "There is no bundle"),
        (["light.png", "--bundle", "../../etc/passwd\x1b[2J"], 2, "There is no bundle"),
        (["light.png", "--threshold", "2"], 2, "from 0 to 1"),
        (["light.png", "--prior", "7"], 2, "from 0 to 1"),
        (["light.png", "--workers", "0"], 2, "invalid choice"),
        (["light.png", "--resume"], 2, "need a file"),
        (["light.png", "--csv", "no/such/rows.csv"], 2, "cannot be written"),
        (["light.png", "--csv", "a", "--json", "b"], 2, "not allowed with"),
        (["light.png", "--csv", "light.png", "--overwrite"], 2, "no file of rows"),
        (["empty"], 2, "no file in what was named"),
        ([], 2, "required"),
    ],
)
def test_exit_codes_of_check(tiny, args, code, says):
    home = os.path.dirname(tiny)
    os.makedirs(f"{home}/empty", exist_ok=True)
    r = subprocess.run(
        [*COMMAND, "check", *args, *([] if "--bundle" in args else ["--bundle", "tiny"])],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        r.returncode == code and says in r.stderr and "Traceback" not in r.stderr and "\x1b" not in r.stdout + r.stderr
    ), r.stderr


def test_terminal_that_knows_only_ascii(tiny, tmp_path):
    os.link(f"{os.path.dirname(tiny)}/light.png", tmp_path / "照片.png")
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    r = subprocess.run([*COMMAND, "check", str(tmp_path), "--bundle", tiny], capture_output=True, timeout=60, env=env)
    assert r.returncode == 0 and r.stdout.isascii() and b"Looks generated" in r.stdout, r.stderr


def test_export_gives_an_older_bundle_its_onnx_file(tmp_path, capsys, monkeypatch):
    import torch
    from fakeface.models.bundle import Bundle
    from fakeface.cli.cli import main
    from fakeface.infer.doctor import add_reference, pattern
    from fakeface.images.decode import open_image
    from fakeface.models.network import build_model, save_model

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    m = build_model("test_resnet", None, size=32).eval()
    save_model(m, "old", Bundle("old", "test_resnet", m.spec), onnx=False)

    def run(*args):
        code = main(list(args))
        got = capsys.readouterr()
        return code, got.out, got.err

    code, _, err = run("check", "x.png", "--bundle", "old")
    assert code == 2 and "fakeface export" in err
    code, out, _ = run("export", "old", "--out", "new")
    assert code == 0 and "model.onnx" in out
    assert (
        not (tmp_path / "old/model.onnx").exists()
        and run("export", "old", "--out", "new")[0] == 1
        and run("export", "nowhere")[0] == 1
    )
    assert "note  detector: old" in run("doctor", "--bundle", "new")[1]
    pattern(0).save("face.png")
    code, _, err = run("check", "face.png", "--bundle", "new", "--heatmap", "seen", "--csv", "rows.csv")
    assert code == 0, err
    assert [p.name[:9] for p in (tmp_path / "seen").iterdir()] == ["face.png-"] and open_image(
        next((tmp_path / "seen").iterdir())
    ).size == (256, 256)
    assert len(add_reference("new").reference) >= 4
    code, out, _ = run("doctor", "--bundle", "new")
    assert code == 0 and "reference scores agree" in out
    assert run("export", "new")[0] == 0 and "reference scores agree" in run("doctor", "--bundle", "new")[1], (
        "made again, the scores stay"
    )
    (tmp_path / "new/model.onnx").write_bytes(b"changed")
    code, out, _ = run("doctor", "--bundle", "new")
    assert code == 1 and "FAULT detector" in out


def test_serve_listens_here_only_and_ends_with_its_process(tiny):
    import socket
    import urllib.error
    import urllib.request

    pytest.importorskip("voila")
    env = {k: v for k, v in os.environ.items() if not k.startswith("FAKEFACE_")}

    def serve(*args):
        return subprocess.run([*COMMAND, "serve", *args], capture_output=True, text=True, timeout=60)

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        s.listen()
        r = serve("--bundle", tiny, "--port", str(port))
        assert r.returncode == 1 and "Choose another" in r.stderr
    for bad in (
        ["--bundle", "nowhere"],
        ["--bundle", tiny, "--port", "99999"],
        ["--bundle", tiny, "--ip", "not an address"],
    ):
        r = serve(*bad)
        assert r.returncode == 1 and "Traceback" not in r.stderr, r.stderr
    p = subprocess.Popen(
        [*COMMAND, "serve", "--bundle", tiny, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        assert p.stdout.readline().startswith(f"http://127.0.0.1:{port}  (in a few seconds; pictures up to 64 MB")
        page, end = "", time.time() + 90
        while not page and time.time() < end:
            assert p.poll() is None, p.stderr.read()
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read().decode()
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        assert "jupyter-widgets" in page or "widget" in page
        elsewhere = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "elsewhere.example"})
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(elsewhere, timeout=30)
    finally:
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=30)
