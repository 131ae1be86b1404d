"The command as a process of its own: standard input, signals, dead kernels, exit codes, the demo's chain."
import json, os, signal, subprocess, sys, time
import nbformat, pytest

COMMAND = [sys.executable, "-c", "from fakeface.cli import main; raise SystemExit(main())"]

@pytest.fixture
def checkout(root, tmp_path):
    "A checkout with five tiny stages, made by the helper of 17_cli's notebook."
    cells = nbformat.read(root/"nbs/17_cli.ipynb", 4).cells
    space = {}; exec("import nbformat\nfrom pathlib import Path\n" + next(c.source for c in cells if "def tiny_checkout" in c.source), space)
    return space["tiny_checkout"](tmp_path, ("prepare", "pretrain", "finetune", "evaluate", "report"))

def fakeface(checkout, *args, **kw): return subprocess.run([*COMMAND, *args], cwd=checkout, capture_output=True, text=True, timeout=120, **kw)

def test_stage_runs_from_a_subfolder_in_this_interpreter_whatever_is_on_stdin(checkout):
    r = subprocess.run([*COMMAND, "prepare", "-p", "epochs", "1"], cwd=checkout/"nbs", capture_output=True, text=True, timeout=120, input='{"cells": []}')
    assert r.returncode == 0, r.stderr
    assert "epoch 1 of 1" in r.stdout and r.stdout.strip().endswith("outputs/demo/prepare/notebook.ipynb")
    done = json.loads((checkout/"outputs/demo/prepare/metrics.json").read_text())
    assert done == {"epochs": 1, "python": sys.executable}
    nb = nbformat.read(checkout/"outputs/demo/prepare/notebook.ipynb", 4)
    assert nb.metadata.papermill.input_path == "nbs/run_prepare.ipynb" and nb.metadata.papermill.output_path == "outputs/demo/prepare.ipynb"

def test_closed_stdin(checkout):
    r = subprocess.run(["bash", "-c", 'exec "$0" "$@" <&-', *COMMAND, "prepare", "-p", "epochs", "1"], cwd=checkout, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr

def test_out_outside_the_checkout(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere")
    r = fakeface(checkout, "prepare", "-p", "out", str(out), "-p", "run", "2024")
    assert r.returncode == 0, r.stderr
    assert (out/"2024/prepare/notebook.ipynb").exists() and not (checkout/"outputs").exists()

def test_unknown_name_starts_nothing(checkout):
    r = fakeface(checkout, "finetune", "-p", "epochz", "3")
    assert r.returncode == 1 and "Did you mean 'epochs'" in r.stderr and not (checkout/"outputs").exists()

def test_usage_errors(checkout):
    assert fakeface(checkout, "finetun").returncode == 2
    assert fakeface(checkout, "--version").stdout.startswith("fakeface ")

def test_dead_kernel(checkout):
    r = fakeface(checkout, "pretrain", "-p", "fail", "kill")
    assert r.returncode == 138 and "memory" in r.stderr and "Traceback" not in r.stderr
    assert (checkout/"outputs/demo/pretrain/notebook.ipynb").exists()

@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_signal_interrupts_the_stage(checkout, sig):
    p = subprocess.Popen([*COMMAND, "pretrain", "-p", "seconds", "60"], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert p.stdout.readline() == "epoch 1 of 2\n"
    t = time.time(); p.send_signal(sig); out, err = p.communicate(timeout=40)
    assert p.returncode == 128 + sig and "resume True" in err and "Traceback" not in err and time.time() - t < 30
    nb = nbformat.read(checkout/"outputs/demo/pretrain/notebook.ipynb", 4)
    assert [o.ename for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"] == ["KeyboardInterrupt"]
    assert json.loads((checkout/"outputs/demo/pretrain/stage.json").read_text())["state"] == "running"

def test_demo_runs_the_five_and_only_its_own_run_is_made_anew(checkout):
    r = fakeface(checkout, "demo", "-p", "epochs", "1")
    assert r.returncode == 0, r.stderr
    stages = ("prepare", "pretrain", "finetune", "evaluate", "report")
    assert all((checkout/f"outputs/demo/{s}/notebook.ipynb").exists() for s in stages)
    assert [l for l in r.stdout.splitlines() if l.startswith("──")] == [f"── {s}" for s in stages] and "outputs/demo/report.html" in r.stdout
    first = (checkout/"outputs/demo/report/notebook.ipynb").read_bytes()
    r = fakeface(checkout, "demo", "-p", "fail", "No disk.")
    assert r.returncode == 1 and "prepare failed: No disk." in r.stderr
    assert (checkout/"outputs/demo/report/notebook.ipynb").read_bytes() == first, "the chain stops at the stage that failed"
    (checkout/"outputs/demo").rename(checkout/"outputs/mine")
    r = fakeface(checkout, "demo", "-p", "run", "mine")
    assert r.returncode == 1 and "overwrite=True" in r.stderr
    r = fakeface(checkout, "demo", "-p", "nothing", "1")
    assert r.returncode == 1 and "parameter of any stage" in r.stderr
