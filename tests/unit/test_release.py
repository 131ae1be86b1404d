"""The card of a detector that ships: written into the bundle, restated, refused for another bundle."""

import dataclasses

import numpy as np
import pytest
from fakeface.core.project import FakefaceError
from fakeface.images.preprocess import InputSpec
from fakeface.models.bundle import CARD, Bundle
from fakeface.models.storage import WEIGHTS_LICENSE, read_bundle, write_bundle
from fakeface.report.release import restate_identity, shipped_card, write_card

RECORD = dict(value=0.95, low=0.93, high=0.97)
SUMMARY = dict(n_real=10, n_fake=12) | dict.fromkeys(("auc", "accuracy", "fpr", "fnr", "brier"), RECORD)


def card_of(bundle, of=None):
    "A card with figures that belong to the bundle `of`, its own if not given."
    evaluation = dict(bundle_hash=(of or bundle).hash, threshold_name="0.5", threshold=0.5, test_reads=1)
    evaluation |= dict(split="test", seen=dict(a="seen"), result=dict(a=SUMMARY))
    lines = ["fakeface finetune -p run r"]
    return shipped_card(
        bundle, dict(finetune=90.0), lines, dict(device="CPU"), evaluation, "## Where it fails\nAlways."
    )


@pytest.fixture
def folder(tmp_path):
    "A bundle of one weight."
    bundle = Bundle("tiny", "test_resnet", InputSpec(64), manifest_hash="0" * 64)
    write_bundle(tmp_path / "tiny", bundle, dict(weight=np.zeros(1, np.float32)), license=WEIGHTS_LICENSE)
    return tmp_path / "tiny"


def test_a_card_keeps_the_identity(folder):
    bundle = read_bundle(folder)
    assert write_card(folder, card_of(bundle)).hash == bundle.hash
    text = (folder / CARD).read_text()
    assert "| a | yes | 10 / 12 |" in text and "## Where it fails\nAlways." in text


def test_an_identity_that_was_counted_otherwise_is_restated_and_nothing_else(folder):
    bundle = read_bundle(folder)
    card = card_of(bundle)
    write_card(folder, card.replace(bundle.hash[:12], "0123456789ab"))
    assert restate_identity(folder).hash == bundle.hash and (folder / CARD).read_text() == card
    write_card(folder, "a card that names none")
    with pytest.raises(FakefaceError, match="names an identity 0 times"):
        restate_identity(folder)


def test_figures_of_another_bundle_are_refused(folder):
    bundle = read_bundle(folder)
    other = dataclasses.replace(bundle, bias=0.5)
    with pytest.raises(FakefaceError, match="Evaluate the bundle that ships"):
        card_of(bundle, of=other)
