"""What a chain of trainings forgets is said: by the bundle in the middle, and before the head at the end is used."""

import dataclasses

import numpy as np
import pytest

from fakeface.core.project import FakefaceError
from fakeface.models.feature_stats import class_features
from fakeface.models.storage import copy_bundle, read_bundle, read_stats
from fakeface.testing.datasets import TOY_TRAINING, toy_manifest
from fakeface.train.fit import fit
from fakeface.train.recipe import train_config

DOTS = [{"domain": "dots", "class": name, "n": 24} for name in ("fake", "real")]
FORGETS = "learned from images of which nothing is recalled: dots fake (24), dots real (24). The head may forget them"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    "A manifest, and a function that trains on a domain of it and gives the bundle's folder."
    root = tmp_path_factory.mktemp("chain")
    manifest = toy_manifest(root / "data", count=24)

    def trained(name, domains, init="none", **changes):
        about = TOY_TRAINING | dict(epochs=1, domains=domains, init=str(init), out=str(root)) | changes
        fit(train_config("finetune", **about), manifest, root / name)
        return root / name / "bundle"

    first = trained("first", "dots")
    return trained, trained("second", "stripes", first, trains="last:1")


def test_a_head_says_what_a_training_before_it_lost(chain, capsys):
    trained, second = chain
    assert read_bundle(second).undescribed == dict(cells=DOTS, whole=True)
    assert {one.domain for one in read_stats(second)} == {"stripes"}, "the backbone has changed"
    head = dict(trains="head", recalled=20, augmented=0)
    capsys.readouterr()
    third = trained("third", "stripes", second, **head)
    said = capsys.readouterr().out
    assert f"demo-finetune, or a detector before, {FORGETS}" in said and "recalled: 40 features" in said
    fourth = trained("fourth", "stripes", third, **head)
    assert FORGETS in capsys.readouterr().out, "a head on a head on it says so, too"
    assert read_bundle(fourth).undescribed == dict(cells=DOTS, whole=True)


def test_images_that_are_trained_on_again_are_not_forgotten(chain, capsys):
    trained, second = chain
    capsys.readouterr()
    both = trained("both", "dots,stripes", second, trains="head", recalled=20, augmented=0)
    assert "nothing is recalled" not in capsys.readouterr().out
    assert read_bundle(both).undescribed == dict(cells=[], whole=True)


def test_a_boastful_start_does_not_cost_the_bundle(chain, tmp_path):
    "Counts that were made up, whose sum no record could hold."
    trained, second = chain
    counted = [row | dict(n=2**63 - 1) for row in read_bundle(second).data]
    start = tmp_path / "boastful"
    copy_bundle(second, start, data=counted, undescribed={})
    for name, changes in dict(all={}, head=dict(trains="head", recalled=20, augmented=0)).items():
        assert read_bundle(trained(f"after boastful, {name}", "dots,stripes", start, **changes)).stage == "finetune"


def of_many_classes(second):
    one = read_stats(second)[0]
    return dict(stats=tuple(dataclasses.replace(one, domain=f"d{i}") for i in range(4_096)))


def of_other_features(second):
    return dict(stats=(class_features(np.zeros((9, 3)), "stripes", 0),))


def of_long_names(second):
    names = [f"{i} {'x' * 900}" for i in range(18_000)]
    return dict(began_with=[dict(name="first", hash="0" * 64, domains=names, whole=True)])


@pytest.mark.parametrize("change", [of_many_classes, of_other_features, of_long_names])
def test_a_start_that_leaves_no_room_is_refused_before_the_first_step(chain, tmp_path, change):
    trained, second = chain
    copy_bundle(second, tmp_path / "start", **change(second))
    head = dict(trains="head", recalled=0, augmented=0)
    with pytest.raises(FakefaceError, match="has room|describes 3 features"):
        trained(f"after {change.__name__}", "dots", tmp_path / "start", **head)
    assert not list(second.parent.parent.glob(f"after {change.__name__}/*.csv"))


def test_a_start_of_a_broken_network_is_refused_before_the_first_step(chain, tmp_path):
    "The new detector is compared with it at the end, by its ONNX file."
    trained, second = chain
    copy_bundle(second, tmp_path / "start", onnx=b"no network")
    with pytest.raises(FakefaceError, match="start: model.onnx is not a network"):
        trained("after broken", "dots", tmp_path / "start")
    assert not list(second.parent.parent.glob("after broken/*.csv"))
