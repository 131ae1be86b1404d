"""A checkpoint of somebody else, under a seal that is right: what no run of this config writes is refused, by name."""

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fakeface.core.files import sealed, sha256_file, write_json
from fakeface.core.project import FakefaceError
from fakeface.testing.datasets import TOY_TRAINING, toy_manifest
from fakeface.train.checkpoint import CheckpointError, checkpoints, save_checkpoint
from fakeface.train.fit import _engine_before
from fakeface.train.recipe import train_config
from fakeface.train.resume import restore_trainer, save_trainer
from fakeface.train.trainer import start_training


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    "A config, a manifest, and the folder of a run that has taken two steps."
    root = tmp_path_factory.mktemp("sound")
    manifest = toy_manifest(root / "data")
    cfg = train_config("finetune", **TOY_TRAINING)
    trainer = start_training(cfg, manifest, root / "run")
    for batch in itertools.islice(trainer.data.loader, 2):
        trainer.train_step([batch])
    trainer.progress.history = [dict(epoch=1, step=2, select=0.5)]
    trainer.progress.speed = [dict(epoch=1, seconds=1.0)]
    save_trainer(trainer)
    return cfg, manifest, root / "run"


def sealed_again(checkpoint, **changed):
    "The checkpoint with other values in its state, and with hashes and seal that are right."
    state = json.loads((checkpoint / "state.json").read_text()) | changed
    del state["seal"]
    if "files" not in changed:
        state["files"] = {file.name: sha256_file(file) for file in checkpoint.iterdir() if file.name != "state.json"}
    write_json(checkpoint / "state.json", sealed({name: value for name, value in state.items() if value != "gone"}))


def restored(sound, tmp_path, change):
    "Go on from a copy of the run whose checkpoint was changed."
    cfg, manifest, folder = sound
    shutil.copytree(folder, tmp_path / "run")
    (checkpoint,) = checkpoints(tmp_path / "run/checkpoints")
    change(checkpoint)
    trainer = start_training(cfg, manifest, tmp_path / "run")
    restore_trainer(trainer)
    return trainer


def test_an_honest_one_is_taken_over(sound, tmp_path):
    trainer = restored(sound, tmp_path, sealed_again)
    assert trainer.progress.step == 2 and trainer.ema.n == 2


STATES = {
    "step before the first": dict(step=-7),
    "step behind the last": dict(step=10**18),
    "step as text": dict(step="2"),
    "step in between": dict(step=1.5),
    "step true": dict(step=True),
    "no step": dict(step="gone"),
    "history of text": dict(history=["x", 1]),
    "history without steps": dict(history=[dict(epoch=1)]),
    "history of the future": dict(history=[dict(epoch=1, step=10**9, select=1.0)]),
    "history with an escape": dict(history=[{"epoch": 1, "step": 2, "\x1b]0;pwn\x07": 1}]),
    "history with a formula": dict(history=[dict(epoch=1, step=2, select="=cmd|' /C calc'!A0")]),
    "no speed": dict(speed=None),
    "loss of text": dict(loss_sum="x"),
    "best of the future": dict(best=dict(epoch=10**9, value=9e99)),
    "best of nothing": dict(best=dict(epoch=1, value=5.0)),
    "best as text": dict(best="x"),
}


@pytest.mark.parametrize("changed", STATES.values(), ids=STATES)
def test_a_state_that_no_run_writes(sound, tmp_path, changed):
    with pytest.raises(CheckpointError, match="step-000000002 is no checkpoint of this run: .*Remove it"):
        restored(sound, tmp_path, lambda checkpoint: sealed_again(checkpoint, **changed))


def without_a_file(checkpoint):
    (checkpoint / "ema.safetensors").unlink()


def with_a_best(checkpoint):
    save_file({"a": torch.zeros(2)}, checkpoint / "best.safetensors")


def with_another_network(checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    first = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    save_file(tensors | {first: torch.zeros(3)}, checkpoint / "model.safetensors")


def with_small_buffers(checkpoint):
    "The fused optimiser of torch would write beyond their end."
    tensors = load_file(checkpoint / "optimizer.safetensors")
    small = {name: torch.zeros(3, 3) if tensor.ndim else tensor for name, tensor in tensors.items()}
    save_file(small, checkpoint / "optimizer.safetensors")


def with_half_of_the_buffers(checkpoint):
    tensors = load_file(checkpoint / "optimizer.safetensors")
    half = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(half, checkpoint / "optimizer.safetensors")


def with_other_buffers(checkpoint):
    save_file({"0.x": torch.zeros(3)}, checkpoint / "optimizer.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        without_a_file,
        with_a_best,
        with_another_network,
        with_small_buffers,
        with_half_of_the_buffers,
        with_other_buffers,
    ],
)
def test_tensors_of_another_network(sound, tmp_path, change):
    def changed(checkpoint):
        change(checkpoint)
        sealed_again(checkpoint)

    with pytest.raises(CheckpointError, match="step-000000002 is no checkpoint of this run: .*Remove it"):
        restored(sound, tmp_path, changed)


@pytest.mark.parametrize("name", ["/etc/hostname", "/dev/zero", "../../engine.json", "a" * 100_000, "a\0b"])
def test_a_file_elsewhere_is_not_read(sound, tmp_path, name):
    def listed(checkpoint):
        files = json.loads((checkpoint / "state.json").read_text())["files"]
        sealed_again(checkpoint, files=files | {name: "0" * 64})

    with pytest.raises(CheckpointError, match="is missing or changed"):
        restored(sound, tmp_path, listed)


def test_a_pickle_is_not_read(sound, tmp_path):
    def older(checkpoint):
        torch.save(dict(optimizer={}), checkpoint / "optimizer.pt")
        sealed_again(checkpoint)

    with pytest.raises(CheckpointError, match="written by an earlier version"):
        restored(sound, tmp_path, older)


@pytest.mark.parametrize(
    "engine",
    ["gone", [1, 2], dict(zip="x"), dict(precision="\x1b[31mxx"), dict(channels_last=1), dict(accumulate=-1)],
    ids=str,
)
def test_an_engine_that_no_run_has(sound, tmp_path, engine):
    cfg, _, folder = sound
    shutil.copytree(folder, tmp_path / "run")
    sealed_again(checkpoints(tmp_path / "run/checkpoints")[0], engine=engine)
    with pytest.raises(FakefaceError, match="step-000000002 is damaged"):
        _engine_before(cfg, tmp_path / "run")


def test_a_checkpoint_is_called_after_its_step(sound, tmp_path):
    "One of step 2 in the folder of another would be the newest for ever, and each of the run's own be removed at once."

    def later(checkpoint):
        checkpoint.rename(checkpoint.with_name("step-999999999"))

    with pytest.raises(
        CheckpointError, match="step-999999999 is no checkpoint of this run: its state is that of step 2"
    ):
        restored(sound, tmp_path, later)


def test_the_checkpoint_that_was_just_written_is_kept(tmp_path):
    tensors = dict(model=dict(weight=torch.zeros(2)))
    for step in (7, 8, 3):
        written = save_checkpoint(tmp_path, dict(step=step), tensors)
        assert written in checkpoints(tmp_path)


def test_odd_folders_are_no_checkpoints(sound, tmp_path):
    shutil.copytree(sound[2], tmp_path / "run")
    home = tmp_path / "run/checkpoints"
    for name in ("step-z", "step-\x1b]0;pwn\x07", "step-1"):
        shutil.copytree(home / "step-000000002", home / name)
    assert [path.name for path in checkpoints(home)] == ["step-000000002"]
