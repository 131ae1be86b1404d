"""What a chain of trainings forgets is said: by the bundle in the middle, and before the head at the end is used."""

import pytest

from fakeface.models.storage import read_bundle, read_stats
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
