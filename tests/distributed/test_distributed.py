"Two processes on this machine (gloo) follow the single process."

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
import numpy as np
import pandas as pd
import psutil
import pytest
from fakeface.core.files import read_json, write_json
from fakeface.data.manifest import read_manifest
from fakeface.evaluate.stage import EvaluateConfig, the_bundle
from fakeface.models.storage import read_bundle
from fakeface.testing.datasets import TOY_TRAINING, toy_run
from fakeface.train.recipe import train_config
from fakeface.train.trainer import start_training

# nothing that mixes the images of a batch in the order in which a process sees them
PLAIN = dict(TOY_TRAINING, mixup=0.0, augment="light", optimizer="sgd", lr=0.05, batch=16)


def history_of(out: Path, processes: int, **fields) -> pd.DataFrame:
    "Train with so many processes; `fields` of the config."
    run = f"processes{processes}"
    toy_run(out, run)
    frozen = dict(freeze_bn=True, ema_buffers="raw", bn_batches=0)
    config = dict(PLAIN, **frozen, stage="finetune", out=str(out), run=run, processes=processes) | fields
    path = write_json(out / f"{run}.json", config)
    launcher = []
    if processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "fakeface.train", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return pd.read_csv(out / run / "finetune/history.csv")


def test_two_processes_follow_one(tmp_path):
    one, two = history_of(tmp_path, 1), history_of(tmp_path, 2)
    # the same draws, split; sums differ in their order only
    np.testing.assert_allclose(one.train_loss, two.train_loss, rtol=2e-4)
    np.testing.assert_allclose(one.valid_raw_loss, two.valid_raw_loss, rtol=2e-3)
    assert (one.step == two.step).all()


@pytest.mark.slow
def test_several_processes_end_with_the_comparison_with_the_start(tmp_path):
    "As the stage's notebook does: otherwise evaluate would take a detector that may be worse."
    history_of(tmp_path, 1)
    start = tmp_path / "processes1/finetune/bundle"
    history_of(tmp_path, 2, init=str(start))
    stage = tmp_path / "processes2/finetune"
    found = read_json(stage / "before_after.json")
    assert found["start_hash"] == read_bundle(start).hash and found["bundle_hash"] == read_bundle(stage / "bundle").hash
    assert read_json(stage / "metrics.json")["before_after"] == found
    chosen = the_bundle(EvaluateConfig(run="processes2", out=str(tmp_path)))
    assert chosen == (start if found["keep_start"] else stage / "bundle")


def test_accumulation_is_the_large_batch(tmp_path):
    "Four micro-batches of 4 and one batch of 16 give the same weights; the network has no BatchNorm."
    toy_run(tmp_path, "toy")
    manifest = read_manifest(tmp_path / "toy/prepare/manifest.parquet")
    before, after = {}, {}
    for accumulate in (1, 4):
        cfg = train_config("finetune", **PLAIN | dict(arch="test_convnext", accumulate=accumulate))
        trainer = start_training(cfg, manifest, tmp_path / f"accumulate{accumulate}")
        before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
        trainer.train_step(list(itertools.islice(trainer.data.loader, accumulate)))
        after[accumulate] = trainer.model.state_dict()
    for name, weight in after[1].items():
        np.testing.assert_allclose(after[4][name], weight, rtol=0, atol=1e-6, err_msg=name)
    moved = max(float((weight - before[name]).abs().max()) for name, weight in after[1].items())
    assert moved > 1e-3, "they did move"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def started_by_hand(out: Path, configs: list[dict]) -> list[subprocess.Popen]:
    "One process for each config, as on so many machines; what they say lies in 0.txt, 1.txt, …"
    count = str(len(configs))
    place = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE=count, OMP_NUM_THREADS="1")
    running = []
    for rank, config in enumerate(configs):
        path = write_json(out / f"{rank}.json", config)
        environment = {**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": count}
        command = [sys.executable, "-m", "fakeface.train", str(path)]
        with open(out / f"{rank}.txt", "w") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
        running.append(process)
    return running


@pytest.mark.slow
def test_processes_that_were_started_with_other_settings_say_so(tmp_path):
    "They trained on, each with its own, and what was fitted on validation was of two networks."
    toy_run(tmp_path, "two")
    config = dict(PLAIN, stage="finetune", out=str(tmp_path), run="two", processes=2)
    running = started_by_hand(tmp_path, [config, config | dict(lr=0.5, batch=8)])
    try:
        codes = [process.wait(120) for process in running]
    finally:
        for process in running:
            process.kill()
    for rank in "01":
        said = (tmp_path / f"{rank}.txt").read_text()
        assert codes == [1, 1], (codes, said[-3000:])
        assert "The processes have different settings" in said and "lr: 0.05 -> 0.5" in said, said[-3000:]
    assert not (tmp_path / "two/finetune/bundle").exists()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
    "Nobody else passes it on here: two processes that were started by hand, as on two machines."
    toy_run(tmp_path, "two")
    config = dict(PLAIN, stage="finetune", out=str(tmp_path), run="two", processes=2, epochs=200, checkpoint_every=3)
    running = started_by_hand(tmp_path, [config, config])
    try:
        folder = tmp_path / "two/finetune/checkpoints"
        deadline = time.monotonic() + 200
        while not list(folder.glob("step-*/state.json")):
            texts = [(tmp_path / f"{rank}.txt").read_text()[-2000:] for rank in "01"]
            assert all(process.poll() is None for process in running) and time.monotonic() < deadline, texts
            time.sleep(0.1)
        running[1].terminate()
        # the one that got the signal says so with its exit code, the other with the same
        assert [process.wait(60) for process in running] == [143, 143]
    finally:
        for process in running:
            process.kill()
    assert not list(folder.glob(".*")), "nothing half-written is left"


def machine(rank: int, port: int, config: Path, said: Path) -> subprocess.Popen:
    "What is typed on one of two machines; both are this one."
    place = ["--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"]
    address = ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    command = [sys.executable, "-m", "torch.distributed.run", *place, *address, "-m", "fakeface.train", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(said, "w") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)


def children(process: subprocess.Popen) -> list[int]:
    "The processes that one has started."
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in text.split()]


@pytest.mark.slow
def test_a_machine_that_is_lost_ends_the_other_with_a_sentence(tmp_path):
    "Two machines, each with its launcher; one goes without a word. Then both start again, with too few and with all."
    if not Path("/proc/self/task").is_dir():
        pytest.skip("processes are found as Linux lists them")
    toy_run(tmp_path, "two")
    config = dict(PLAIN, stage="finetune", out=str(tmp_path), run="two", processes=2, epochs=200, checkpoint_every=3)
    path = write_json(tmp_path / "two.json", config)
    said = [tmp_path / f"{rank}.txt" for rank in range(2)]
    port = free_port()
    running = [machine(rank, port, path, said[rank]) for rank in range(2)]
    folder = tmp_path / "two/finetune/checkpoints"
    workers = []
    try:
        deadline = time.monotonic() + 200
        while not list(folder.glob("step-*/state.json")):
            texts = [file.read_text()[-2000:] for file in said]
            assert all(process.poll() is None for process in running) and time.monotonic() < deadline, texts
            time.sleep(0.1)
        workers = children(running[1])
        running[1].kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        assert running[0].wait(90) != 0
    finally:
        for process in running:
            process.kill()
            process.wait()
    text = said[0].read_text()
    assert text.count("gets no answer from another one") == 1 and "resume = true" in text
    assert "Traceback" not in text.split("gets no answer")[0].split("epoch")[-1], text[-3000:]
    assert not list(folder.glob(".*")), "nothing half-written is left"

    alone = write_json(tmp_path / "alone.json", config | dict(processes=1, resume=True))
    refused = subprocess.run(
        [sys.executable, "-m", "fakeface.train", str(alone)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert refused.returncode == 1 and "processes: 2 -> 1" in refused.stderr, refused.stderr[-2000:]


STAGE = """
import sys
from fakeface.core.files import read_json
from fakeface.train.recipe import train_config
from fakeface.train.stage import run_training_stage

run_training_stage(train_config("finetune", **read_json(sys.argv[1])))
"""


def stage_of_two(config: Path, said: Path) -> subprocess.Popen:
    "A stage that starts its two processes by itself, apart from this test as in a terminal of its own."
    command = [sys.executable, "-c", STAGE, str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(said, "w") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def wait_until(holds, seconds: float, text) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, text()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_stage_that_is_stopped_leaves_a_checkpoint_and_none_of_its_processes(tmp_path):
    "Ctrl-C in its terminal reaches everything that is started there; then it is killed and can pass nothing on."
    toy_run(tmp_path, "two")
    config = dict(PLAIN, out=str(tmp_path), run="two", processes=2, epochs=400, checkpoint_every=3)
    folder, said = tmp_path / "two/finetune/checkpoints", tmp_path / "said.txt"

    def text() -> str:
        return said.read_text()[-3000:]

    def training() -> list[psutil.Process]:
        of_config = str(tmp_path / "two/finetune/config.json")
        return [process for process in psutil.process_iter(["cmdline"]) if of_config in (process.info["cmdline"] or [])]

    def newest() -> str:
        return max((path.name for path in folder.glob("step-*")), default="")

    for way in ("interrupt", "kill"):
        path = write_json(tmp_path / f"{way}.json", config | dict(resume=way == "kill"))
        before = newest()
        stage = stage_of_two(path, said)
        try:
            wait_until(lambda: newest() > before or stage.poll() is not None, 200, text)
            assert stage.poll() is None and len(training()) == 3, f"the launcher and two processes; {text()}"
            if way == "interrupt":
                os.killpg(stage.pid, signal.SIGINT)
                assert stage.wait(60) == -signal.SIGINT, text()
                assert "resume=True continues" in text()
            else:
                stage.kill()
            wait_until(lambda: not training(), 30, text)
        finally:
            stage.kill()
            stage.wait()
            for process in training():
                process.kill()
        assert newest() > before and not list(folder.glob(".*")), "nothing half-written is left"


def launcher_of(stage: subprocess.Popen) -> list[psutil.Process]:
    "What starts a stage's processes; other children of it, as git, come and go before."
    started = []
    for child in psutil.Process(stage.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "torch.distributed.run" in child.cmdline():
                started.append(child)
    return started


@pytest.mark.slow
def test_a_signal_that_comes_before_the_processes_do_is_not_lost(tmp_path):
    "The launcher is there, and takes seconds to start what would hear it."
    toy_run(tmp_path, "two")
    said = tmp_path / "said.txt"
    path = write_json(tmp_path / "two.json", dict(PLAIN, out=str(tmp_path), run="two", processes=2, epochs=400))
    stage = stage_of_two(path, said)
    try:
        wait_until(lambda: launcher_of(stage) or stage.poll() is not None, 100, said.read_text)
        stage.terminate()
        assert stage.wait(100) == 128 + signal.SIGTERM, said.read_text()[-3000:]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(stage.pid).children(recursive=True):
                process.kill()
        stage.kill()
        stage.wait()
