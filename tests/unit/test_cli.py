"The command as a process of its own: standard input, signals, dead kernels, exit codes, the demo's chain."

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.checkouts import tiny_checkout
from fakeface.testing.images import write_noise_image

COMMAND = [sys.executable, "-m", "fakeface"]
PATIENCE = 600  # seconds until a command counts as hanging, also on a machine that has much else to do
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")


@pytest.fixture
def checkout(tmp_path):
    "A checkout with five tiny stages."
    return tiny_checkout(tmp_path, STAGES)


def fakeface(folder, *args, **options):
    "Run the command in a folder."
    return subprocess.run([*COMMAND, *args], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, **options)


def test_stage_runs_from_a_subfolder_in_this_interpreter_whatever_is_on_stdin(checkout):
    # a run that was unpacked may hold another name of a file
    (checkout / "diary.txt").write_text("dear diary")
    (checkout / "outputs/demo").mkdir(parents=True)
    (checkout / "outputs/demo/prepare.ipynb").hardlink_to(checkout / "diary.txt")
    ran = fakeface(checkout / "nbs", "prepare", "-p", "epochs", "1", input='{"cells": []}')
    assert ran.returncode == 0, ran.stderr
    assert (checkout / "diary.txt").read_text() == "dear diary"
    assert "epoch 1 of 1" in ran.stdout and ran.stdout.strip().endswith("outputs/demo/prepare/notebook.ipynb")
    done = json.loads((checkout / "outputs/demo/prepare/metrics.json").read_text())
    assert done == {"epochs": 1, "python": sys.executable}
    noted = nbformat.read(checkout / "outputs/demo/prepare/notebook.ipynb", 4).metadata.papermill
    assert noted.input_path == "nbs/run_prepare.ipynb" and noted.output_path == "outputs/demo/prepare.ipynb"


def with_closed(streams, *args, folder="/"):
    "Run the command with some of its standard streams closed: <&-, >&-, 2>&-."
    command = ["bash", "-c", f'exec "$0" "$@" {streams}', *COMMAND, *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def test_a_stage_needs_no_stdin_and_no_stderr(checkout):
    # a run that was unpacked may hold a link
    diary = checkout / "diary.txt"
    diary.write_text("dear diary")
    (checkout / "outputs/demo").mkdir(parents=True)
    (checkout / "outputs/demo/prepare.ipynb").symlink_to(diary)
    ran = with_closed("<&- 2>&-", "prepare", "-p", "epochs", "1", folder=checkout)
    assert ran.returncode == 0 and "epoch 1 of 1" in ran.stdout
    assert diary.read_text() == "dear diary"


def test_a_notebook_is_not_put_where_a_link_leads(checkout, tmp_path):
    (tmp_path / "notebook.ipynb").write_text("somebody's own")
    (checkout / "outputs/demo").mkdir(parents=True)
    (checkout / "outputs/demo/prepare").symlink_to(tmp_path, target_is_directory=True)
    ran = fakeface(checkout, "prepare")
    assert ran.returncode == 1 and "demo/prepare is a link" in ran.stderr and "Traceback" not in ran.stderr
    assert (tmp_path / "notebook.ipynb").read_text() == "somebody's own"


@pytest.mark.parametrize("args", [["--version"], ["check", "BUNDLE/README.md"], ["prepare"]], ids=lambda args: args[0])
def test_closed_stdout_is_a_sentence_and_nothing_is_done(tiny, checkout, args):
    args = [text.replace("BUNDLE", tiny) for text in args]
    for streams in (">&-", "<&- >&-"):
        ran = with_closed(streams, *args, folder=checkout)
        assert ran.returncode == 2 and ran.stderr.startswith("fakeface: Standard output is closed."), ran.stderr
        assert len(ran.stderr.splitlines()) == 1 and not (checkout / "outputs").exists()
    assert with_closed("<&- >&- 2>&-", *args, folder=checkout).returncode == 2


def test_closed_stderr_puts_nothing_into_the_rows(tiny):
    args = ["check", tiny, "--bundle", tiny, "--csv", "-"]
    plain, closed = with_closed("", *args), with_closed("2>&-", *args)
    assert "could not be judged" in plain.stderr and closed.stderr == ""
    assert closed.stdout == plain.stdout and closed.returncode == plain.returncode == 1


def test_out_outside_the_checkout(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere")
    ran = fakeface(checkout, "prepare", "-p", "out", str(out), "-p", "run", "2024")
    assert ran.returncode == 0, ran.stderr
    assert (out / "2024/prepare/notebook.ipynb").exists() and not (checkout / "outputs").exists()


def test_unknown_name_starts_nothing(checkout):
    ran = fakeface(checkout, "finetune", "-p", "epochz", "3")
    assert ran.returncode == 1 and "Did you mean 'epochs'" in ran.stderr and not (checkout / "outputs").exists()


def test_usage_errors(checkout):
    assert fakeface(checkout, "finetun").returncode == 2
    assert fakeface(checkout, "--version").stdout.startswith("fakeface ")


def test_dead_kernel(checkout):
    ran = fakeface(checkout, "pretrain", "-p", "fail", "kill")
    assert ran.returncode == 138 and "memory" in ran.stderr and "Traceback" not in ran.stderr
    assert (checkout / "outputs/demo/pretrain/notebook.ipynb").exists()


HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none


def heed_hangups():
    "In a child process: whoever runs the tests may ignore SIGHUP, as nohup does, and would hand that on."
    signal.signal(HANGUP, signal.SIG_DFL)


def began(checkout, temporary, preexec_fn=heed_hangups, **options):
    "A stage that takes long, with a folder of its own for temporary files; the kernel has begun to work."
    return subprocess.Popen(
        [*COMMAND, "pretrain", "-p", "seconds", str(PATIENCE)],
        cwd=checkout,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=None if sys.platform == "win32" else preexec_fn,
        **{**dict.fromkeys(("stdout", "stderr"), subprocess.PIPE), "stdin": subprocess.DEVNULL, **options},
    )


def assert_interrupted(checkout, temporary):
    "The kernel was interrupted, the notebook was kept, and nothing of the connection is left."
    notebook = nbformat.read(checkout / "outputs/demo/pretrain/notebook.ipynb", 4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == ["KeyboardInterrupt"]
    assert json.loads((checkout / "outputs/demo/pretrain/stage.json").read_text())["state"] == "running"
    assert not [*temporary.iterdir()]


@pytest.mark.parametrize("number", dict.fromkeys([signal.SIGINT, signal.SIGTERM, HANGUP]))
def test_signal_interrupts_the_stage(checkout, number, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("temporary")
    process = began(checkout, temporary, text=True)
    assert process.stdout.readline() == "epoch 1 of 2\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert "resume True" in err and "Traceback" not in err
    assert_interrupted(checkout, temporary)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_closed_terminal_interrupts_the_stage(checkout, tmp_path_factory):
    "Nothing can be printed from then on, and the shell may say it once more."
    import fcntl
    import termios

    def in_a_terminal():
        heed_hangups()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    temporary = tmp_path_factory.mktemp("temporary")
    terminal, inside = os.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), inside)
    process = began(checkout, temporary, start_new_session=True, preexec_fn=in_a_terminal, **streams)
    os.close(inside)
    seen = b""
    while b"epoch 1 of 2" not in seen:
        seen += os.read(terminal, 1000)
    os.close(terminal)
    process.send_signal(HANGUP)
    assert process.wait(PATIENCE) == 128 + HANGUP
    assert_interrupted(checkout, temporary)


def test_who_reads_only_the_first_line_does_not_end_the_stage(checkout):
    "As `fakeface prepare | head -1` does."
    process = subprocess.Popen(
        [*COMMAND, "prepare", "-p", "epochs", "20", "-p", "seconds", "0.05"],
        cwd=checkout,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"epoch 1 of 20\n"
    process.stdout.close()
    said = process.stderr.read()
    assert b"failed" not in said and b"Traceback" not in said, said
    assert process.wait(PATIENCE) in (0, 141)
    home = checkout / "outputs/demo/prepare"
    assert json.loads((home / "stage.json").read_text())["state"] == "finished" and (home / "notebook.ipynb").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_with_nohup_a_stage_continues(checkout, tmp_path_factory):
    def nohup():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    temporary = tmp_path_factory.mktemp("temporary")
    process = began(checkout, temporary, preexec_fn=nohup)
    assert process.stdout.readline() == b"epoch 1 of 2\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGTERM)
    assert b"SIGTERM" in process.communicate(timeout=PATIENCE)[1] and process.returncode == 128 + signal.SIGTERM
    assert_interrupted(checkout, temporary)


def test_demo_runs_the_five_and_only_its_own_run_is_made_anew(checkout):
    ran = fakeface(checkout, "demo", "-p", "epochs", "1")
    assert ran.returncode == 0, ran.stderr
    assert all((checkout / f"outputs/demo/{stage}/notebook.ipynb").exists() for stage in STAGES)
    headings = [line for line in ran.stdout.splitlines() if line.startswith("──")]
    assert headings == [f"── {stage}" for stage in STAGES] and "outputs/demo/report.html" in ran.stdout
    first = (checkout / "outputs/demo/report/notebook.ipynb").read_bytes()
    ran = fakeface(checkout, "demo", "-p", "fail", "No disk.")
    assert ran.returncode == 1 and "prepare failed: No disk." in ran.stderr
    assert (checkout / "outputs/demo/report/notebook.ipynb").read_bytes() == first, (
        "the chain stops at the stage that failed"
    )
    (checkout / "outputs/demo").rename(checkout / "outputs/mine")
    ran = fakeface(checkout, "demo", "-p", "run", "mine")
    assert ran.returncode == 1 and "overwrite=True" in ran.stderr
    ran = fakeface(checkout, "demo", "-p", "nothing", "1")
    assert ran.returncode == 1 and "parameter of any stage" in ran.stderr


# ---- check, export, doctor, serve
HEAVY = (
    "torch torchvision timm pandas sklearn scipy matplotlib IPython ipywidgets papermill huggingface_hub cv2".split()
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "The folder of a bundle that only looks at how bright an image is; two images lie beside it."
    folder = tmp_path_factory.mktemp("bundle")
    write_noise_image(folder / "light.png", 200)
    write_noise_image(folder / "dark.png", 60)
    tiny_bundle(folder / "tiny", band=[0.4, 0.6])
    return str(folder / "tiny")


CHECK_ONE = """
import sys
from fakeface.cli.main import main
code = main(["check", "light.png", "--bundle", "tiny"])
print(code, [name for name in sys.argv[1:] if name in sys.modules])
"""


def test_check_outside_a_checkout_is_light(tiny):
    command = [sys.executable, "-c", CHECK_ONE, *HEAVY]
    ran = subprocess.run(command, cwd=os.path.dirname(tiny), capture_output=True, text=True, timeout=PATIENCE)
    assert ran.stdout.startswith("light.png: Looks generated: p_fake 0.9") and not ran.stderr, ran.stdout + ran.stderr
    assert ran.stdout.endswith("0 []\n"), ran.stdout


@pytest.mark.parametrize("module", ["fakeface", "fakeface.cli"])
def test_command_as_a_module(tiny, module):
    command = [sys.executable, "-m", module, "check", "light.png", "--bundle", "tiny"]
    ran = subprocess.run(command, cwd=os.path.dirname(tiny), capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0 and ran.stdout.startswith("light.png: Looks generated"), ran.stderr


@pytest.mark.parametrize(
    "args,code,says",
    [
        (["light.png", "dark.png"], 0, "2 images: 1 look generated, 1 like photographs"),
        (["light.png", "missing.png"], 1, "1 could not be judged"),
        (["tiny"], 1, "could not be judged"),
        (["[ld]*.png"], 0, "2 images: 1 look generated, 1 like photographs"),
        (["light.png", "--bundle", "nowhere"], 2, "There is no bundle"),
        (["light.png", "--bundle", "../../etc/passwd\x1b[2J"], 2, "There is no bundle"),
        (["light.png", "--threshold", "2"], 2, "from 0 to 1"),
        (["light.png", "--prior", "7"], 2, "from 0 to 1"),
        (["light.png", "--workers", "0"], 2, "invalid choice"),
        (["light.png", "--resume"], 2, "need a file"),
        (["light.png", "--csv", "no/such/rows.csv"], 2, "cannot be written"),
        (["light.png", "--csv", "a", "--json", "b"], 2, "not allowed with"),
        (["light.png", "--csv", "light.png", "--overwrite"], 2, "not a file of rows"),
        (["empty"], 2, "None of the given paths"),
        ([], 2, "required"),
    ],
)
def test_exit_codes_of_check(tiny, args, code, says):
    home = os.path.dirname(tiny)
    os.makedirs(f"{home}/empty", exist_ok=True)
    bundle = [] if "--bundle" in args else ["--bundle", "tiny"]
    ran = fakeface(home, "check", *args, *bundle)
    assert ran.returncode == code and says in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr and "\x1b" not in ran.stdout + ran.stderr


def test_terminal_that_knows_only_ascii(tiny, tmp_path):
    os.link(f"{os.path.dirname(tiny)}/light.png", tmp_path / "照片.png")
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    ran = subprocess.run(
        [*COMMAND, "check", str(tmp_path), "--bundle", tiny], capture_output=True, timeout=PATIENCE, env=env
    )
    assert ran.returncode == 0 and ran.stdout.isascii() and b"Looks generated" in ran.stdout, ran.stderr


def test_export_gives_an_older_bundle_its_onnx_file(tmp_path, capsys, monkeypatch):
    import torch

    from fakeface.cli.main import main
    from fakeface.images.decode import open_image
    from fakeface.infer.reference import add_reference, pattern
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = build_model("test_resnet", None, size=32).eval()
    save_model(network, "old", Bundle("old", "test_resnet", network.spec), onnx=False)

    def run(*args):
        code = main(list(args))
        got = capsys.readouterr()
        return code, got.out, got.err

    code, _, err = run("check", "x.png", "--bundle", "old")
    assert code == 2 and "fakeface export" in err
    code, out, _ = run("export", "old", "--out", "new")
    assert code == 0 and "model.onnx" in out
    assert not (tmp_path / "old/model.onnx").exists()
    assert run("export", "old", "--out", "new")[0] == 1 and run("export", "nowhere")[0] == 1
    assert "1 reference scores agree" in run("doctor", "--bundle", "new")[1], "the one that training wrote"
    pattern(0).save("face.png")
    code, _, err = run("check", "face.png", "--bundle", "new", "--heatmap", "seen", "--csv", "rows.csv")
    assert code == 0, err
    (heatmap,) = (tmp_path / "seen").iterdir()
    assert heatmap.name.startswith("face.png-") and open_image(heatmap).size == (256, 256)
    # a heat-map is not judged, in whichever folder, nor by a later run
    open_image("face.png").save("seen/face.png")
    for how in (["--heatmap", "seen"], ["--heatmap", "seen", "--resume"]):
        beside = len(list((tmp_path / "seen").glob("face.png-*")))
        code, _, err = run("check", "seen", "--bundle", "new", "--csv", "seen.csv", *how)
        assert code == 0 and err.startswith("1 image:") and f"{beside} other file" in err, err
    # where none are expected, something that looks like one is not passed over without a word
    beside = len(list((tmp_path / "seen").glob("face.png-*")))
    code, out, err = run("check", "seen", "--bundle", "new", "--csv", "-")
    assert code == 1 and f"{beside} could not be judged" in err and out.count("Is a heat-map") == beside, err
    code, out, _ = run("check", f"seen/{heatmap.name}", "--bundle", "new")
    assert code == 1 and "No verdict: Is a heat-map" in out
    assert len(add_reference("new").reference) >= 4
    code, out, _ = run("doctor", "--bundle", "new")
    assert code == 0 and "reference scores agree" in out
    assert run("export", "new")[0] == 0
    for args, said in (("new", "--out", ""), "--out is empty"), (("fakeface-lite0",), "is an installed detector"):
        code, _, err = run("export", *args)
        assert code == 1 and said in err
    assert "reference scores agree" in run("doctor", "--bundle", "new")[1], "made again, the scores stay"
    (tmp_path / "new/model.onnx").write_bytes(b"changed")
    code, out, _ = run("doctor", "--bundle", "new")
    assert code == 1 and "FAULT detector" in out


def test_serve_listens_here_only_and_ends_with_its_process(tiny):
    import socket
    import urllib.error
    import urllib.request

    pytest.importorskip("voila")
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAKEFACE_")}

    def serve(*args):
        return subprocess.run([*COMMAND, "serve", *args], capture_output=True, text=True, timeout=PATIENCE)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        ran = serve("--bundle", tiny, "--port", str(port))
        assert ran.returncode == 1 and "Choose another" in ran.stderr
    for bad in (
        ["--bundle", "nowhere"],
        ["--bundle", tiny, "--port", "99999"],
        ["--bundle", tiny, "--ip", "not an address"],
        ["--bundle", tiny, "--ip", ""],
        ["--bundle", tiny, "--paths", "no/such/folder"],
    ):
        ran = serve(*bad)
        assert ran.returncode == 1 and "Traceback" not in ran.stderr, ran.stderr
    process = subprocess.Popen(
        [*COMMAND, "serve", "--bundle", tiny, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        address = process.stdout.readline().strip()
        assert address.startswith(f"http://127.0.0.1:{port}/?token=") and len(address) > 60
        assert "images up to 64 MB each" in process.stdout.readline()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = opener.open(address, timeout=PATIENCE).read().decode()
        assert "widget-view+json" in page
        elsewhere = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            opener.open(elsewhere, timeout=PATIENCE)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def full(tmp_path, monkeypatch):
    "Writing a file into a folder of this name, or copying one to it, meets a full disk."
    import errno
    import shutil
    from pathlib import Path

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_room)
    monkeypatch.setattr(shutil, "copyfile", no_room)
    return tmp_path / "on_a_full_disk/mine"


def test_mean_on_a_full_disk_is_a_sentence_that_names_the_bundle(tiny, full, monkeypatch, capsys):
    from fakeface.cli.main import main
    from fakeface.evaluate import mean

    def made(folders, out, *_):
        tiny_bundle(out)

    monkeypatch.setattr(mean, "mean_of_bundles", made)
    code = main(["mean", tiny, tiny, "--out", str(full), "--manifest", f"{tiny}/bundle.json"])
    said = capsys.readouterr().err
    assert code == 1 and said.startswith(f"fakeface: The disk is full (No space left on device): {full} could not be")
    assert said.count("\n") == 1 and ".tmp" not in said and not [*full.parent.iterdir()]


@pytest.fixture
def without_onnx(tmp_path):
    "A bundle that has weights alone."
    import torch
    from fakeface.models.bundle import Bundle
    from fakeface.models.network import build_model
    from fakeface.models.persistence import save_model

    torch.manual_seed(0)
    network = build_model("test_resnet", None, size=32).eval()
    save_model(network, tmp_path / "weights", Bundle("weights", "test_resnet", network.spec), onnx=False)
    return str(tmp_path / "weights")


def test_export_on_a_full_disk_is_a_sentence_and_leaves_no_half_copy(without_onnx, full, capsys):
    from fakeface.cli.main import main

    code = main(["export", without_onnx, "--out", str(full)])
    said = capsys.readouterr().err
    assert code == 1 and said.startswith("fakeface: The disk is full") and said.count("\n") == 1, said
    assert not [*full.parent.iterdir()]


def test_export_copies_what_a_bundle_has_and_nothing_else(without_onnx, tmp_path):
    "What is hidden beside it may be a repository of somebody's own, or a stranger's link to a key."
    from fakeface.cli.main import main

    (tmp_path / "key").write_text("secret")
    (tmp_path / "weights/.git").mkdir()
    (tmp_path / "weights/.key").symlink_to(tmp_path / "key")
    (tmp_path / "weights/.endless").symlink_to("/dev/zero")
    assert main(["export", without_onnx, "--out", str(tmp_path / "new")]) == 0
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert "model.onnx" in names and not [name for name in names if name.startswith(".")]
    assert main(["export", without_onnx]) == 0
    assert (tmp_path / "weights/.git").is_dir() and (tmp_path / "weights/.key").is_symlink()


def test_a_full_disk_under_any_command_is_a_sentence(monkeypatch, capsys):
    import errno

    from fakeface.cli.main import main
    from fakeface.infer import doctor

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/some\x1bthing")

    monkeypatch.setattr(doctor, "doctor", no_room)
    code = main(["doctor"])
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and "\x1b" not in said
    assert said.startswith(
        "fakeface: The disk is full (No space left on device): /tmp/some\\x1bthing could not be written"
    )


def test_a_name_of_two_bundles_is_refused_and_a_folder_is_judged_with_in_workers_too(tmp_path):
    for name, level in (("light.png", 200), ("dark.png", 60)):
        write_noise_image(tmp_path / name, level)
    made = tiny_bundle(tmp_path / "fakeface-lite0", band=[0.4, 0.6])
    images = ["light.png", "dark.png", "--framing", "centre", "--json", "-", "--bundle"]
    ran = fakeface(tmp_path, "check", *images, "fakeface-lite0")
    assert ran.returncode == 2 and "may mean more than one bundle" in ran.stderr and "./fakeface-lite0" in ran.stderr
    for folder in ("./fakeface-lite0", "fakeface-lite0/"):
        ran = fakeface(tmp_path, "check", *images, folder)
        assert ran.returncode == 0, ran.stderr
        assert {json.loads(line)["bundle_hash"] for line in ran.stdout.splitlines()} == {made.hash}


def test_ctrl_c_during_an_export_leaves_no_copy(without_onnx, tmp_path, monkeypatch):
    from fakeface.cli.tools import export_command
    from fakeface.models import storage

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "load_tensors", interrupted)
    before = {*tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        export_command(argparse.Namespace(folder=without_onnx, out=str(tmp_path / "new")))
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("args", [("empty",), ("light.png", "--heatmap", "light.png")])
def test_overwrite_of_a_run_that_is_refused_keeps_the_earlier_rows(tiny, tmp_path, args):
    os.link(f"{os.path.dirname(tiny)}/light.png", tmp_path / "light.png")
    (tmp_path / "empty").mkdir()
    assert fakeface(tmp_path, "check", "light.png", "--bundle", tiny, "--csv", "rows.csv").returncode == 0
    earlier = {name: (tmp_path / name).read_bytes() for name in ("rows.csv", "rows.csv.run.json")}
    again = ("--bundle", tiny, "--csv", "rows.csv", "--overwrite")
    ran = fakeface(tmp_path, "check", *args, *again)
    assert ran.returncode == 2 and "Traceback" not in ran.stderr, ran.stderr
    assert {name: (tmp_path / name).read_bytes() for name in earlier} == earlier
    os.link(tmp_path / "light.png", tmp_path / "second.png")
    assert fakeface(tmp_path, "check", "light.png", "second.png", *again).returncode == 0
    assert (tmp_path / "rows.csv").read_bytes().count(b"\n") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process has open")
def test_overwrite_that_is_stopped_before_its_first_row_says_what_the_file_holds(tiny, tmp_path):
    os.link(f"{os.path.dirname(tiny)}/light.png", tmp_path / "light.png")
    assert fakeface(tmp_path, "check", "light.png", "--bundle", tiny, "--csv", "rows.csv").returncode == 0
    earlier = (tmp_path / "rows.csv").read_bytes()

    def stopped_at(named, until, *how):
        "What is said where Ctrl-C comes once `until` is true, and no more names follow."
        command = [*COMMAND, "check", "-", "--bundle", tiny, "--csv", "rows.csv", *how]
        pipes = dict(stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        # what is started in the background inherits that Ctrl-C is not heard
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        process = subprocess.Popen(command, cwd=tmp_path, text=True, preexec_fn=heard, **pipes)
        process.stdin.write(named)
        process.stdin.flush()
        end = time.monotonic() + PATIENCE
        while not until(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        # from the lock to the first name is a moment
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        return said

    def is_open(pid):
        "Has the process opened the rows? To try the lock would be to hold it."
        files = (f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd"))
        return any(os.path.exists(file) and os.path.samefile(file, tmp_path / "rows.csv") for file in files)

    said = stopped_at("", is_open, "--overwrite")
    assert "still holds the results of the earlier run" in said and (tmp_path / "rows.csv").read_bytes() == earlier
    names = ["light.png", "second.png", "third.png"]
    for name in names[1:]:
        os.link(tmp_path / "light.png", tmp_path / name)
    listed = "".join(f"{name}\n" for name in names)
    said = stopped_at(listed, lambda pid: (tmp_path / "rows.csv").read_bytes() != earlier, "--overwrite")
    assert "holds the results so far; --resume continues" in said


@pytest.mark.parametrize("threshold, is_said", [("0.01", True), ("0.99", False)])
def test_a_threshold_that_the_unsure_range_outweighs_is_said(tmp_path, threshold, is_said):
    write_noise_image(tmp_path / "a.png", 120)
    tiny_bundle(tmp_path / "banded", band=[0.02, 0.9])
    ran = fakeface(tmp_path, "check", "a.png", "--bundle", "banded", "--threshold", threshold, "--csv", "-")
    assert ran.returncode == 0 and ("changes no verdict" in ran.stderr) == is_said, ran.stderr
    assert "changes no verdict" not in ran.stdout
