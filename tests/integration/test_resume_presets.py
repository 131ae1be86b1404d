"""Stopped anywhere, a run under any preset ends as one that was left alone: sampler, augmentation, BatchNorm view,
schedule and selection are the preset's, only the network and the images are small."""

import signal

import pytest
import torch

from fakeface.testing.datasets import toy_manifest
from fakeface.train.fit import _all_epochs
from fakeface.train.recipe import train_config
from fakeface.train.resume import restore_trainer
from fakeface.train.trainer import start_training

SMALL = dict(
    domains="",
    arch="test_resnet",
    weights="none",
    init="none",
    size=32,
    batch=16,
    epochs=2,
    lr=2e-3,
    workers=0,
    precision="fp32",
    channels_last=False,
    device="cpu",
    checkpoint_every=3,
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return toy_manifest(tmp_path_factory.mktemp("toy"), count=20)


def ended(cfg, manifest, folder, stops=()):
    "The trainer of a run that a signal stopped after each of these steps; its epochs are over, there is no bundle."
    for stop in stops:
        trainer = start_training(cfg, manifest, folder)
        restore_trainer(trainer)
        take_step = trainer.train_step

        def until_stop(batches, trainer=trainer, take_step=take_step, stop=stop):
            take_step(batches)
            if trainer.progress.step == stop:
                trainer.note_signal(signal.SIGINT)

        trainer.train_step = until_stop
        with pytest.raises(KeyboardInterrupt, match=f"step {stop}"):
            _all_epochs(trainer, None)
    trainer = start_training(cfg, manifest, folder)
    restore_trainer(trainer)
    _all_epochs(trainer, None)
    return trainer


def assert_same(one, other):
    assert one.progress.history == other.progress.history and one.progress.best == other.progress.best
    for name in one.best_weights:
        assert torch.equal(one.best_weights[name], other.best_weights[name]), name
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "stage,preset", [("pretrain", "fakeface"), ("finetune", "fakeface"), ("finetune", "trueface"), ("finetune", "demo")]
)
def test_a_stopped_run_is_the_same_run(manifest, tmp_path, stage, preset):
    cfg = train_config(stage, preset, **SMALL)
    whole = ended(cfg, manifest, tmp_path / "whole")
    steps = whole.data.steps
    assert steps > 3 and len(whole.progress.history) == 2
    # in the middle of an epoch, in its last step, and in the last step of all
    stopped = ended(cfg, manifest, tmp_path / "stopped", (2, steps, steps + 3, 2 * steps))
    assert_same(whole, stopped)


def test_a_run_of_one_epoch_that_is_stopped_in_its_last_step_has_its_validation(manifest, tmp_path):
    "It ended with KeyError, or with 'no epoch has ended', when it went on."
    cfg = train_config("finetune", **SMALL | dict(epochs=1))
    whole = ended(cfg, manifest, tmp_path / "whole")
    stopped = ended(cfg, manifest, tmp_path / "stopped", (whole.data.steps,))
    assert len(stopped.progress.history) == 1
    assert_same(whole, stopped)
