"""Damage without end: bundles, manifests, checkpoints. Each gives the documented error or the untouched content."""

import json
import random
import shutil
from collections import Counter

import pytest

from fakeface.models.bundle import INDEX, BundleError
from fakeface.models.storage import load_tensors, read_bundle
from fakeface.testing.bundles import tiny_bundle

pytestmark = pytest.mark.slow

ODD_VALUES = [None, True, [], {}, "", "\x1b[2J", "=1+1", "$x$", 10**400, -(10**30), 1e308, [[]], {"a": {}}, "9" * 10**5]
ODD_TEXTS = [
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "[" * 10_000,
    "[" * 900 + "]" * 900,
    '"\\ud800"',
    "9" * 5000,
    "{",
    "",
]


def changed_bytes(dice, data):
    "A file with a bit, some bytes, its end, or a part of it damaged."
    damaged = bytearray(data)
    kind = dice.randrange(4)
    at = dice.randrange(len(damaged))
    if kind == 0:
        damaged[at] ^= 1 << dice.randrange(8)
    elif kind == 1:
        length = min(dice.randrange(1, 64), len(damaged) - at)
        damaged[at : at + length] = dice.randbytes(length)
    elif kind == 2:
        del damaged[at:]
    else:
        damaged[at:at] = dice.randbytes(dice.randrange(1, 16))
    return bytes(damaged)


def places(value, path=()):
    "The path of every value in a record."
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


def changed_record(dice, text):
    "A bundle.json with another value somewhere: of JSON, or of what is none."
    record = json.loads(text)
    *parents, last = dice.choice([path for path in places(record) if path])
    holder = record
    for key in parents:
        holder = holder[key]
    if dice.random() < 0.2 and isinstance(holder, dict):
        del holder[last]
        return json.dumps(record)
    if dice.random() < 0.6:
        holder[last] = dice.choice(ODD_VALUES)
        return json.dumps(record)
    holder[last] = "HERE"
    return json.dumps(record).replace('"HERE"', dice.choice(ODD_TEXTS))


def test_2000_damaged_bundles(tmp_path):
    from fakeface.infer.detector import Detector
    from fakeface.infer.reference import add_reference
    from fakeface.infer.verdict import InferError
    from PIL import Image

    dice = random.Random(18)
    sound = tmp_path / "sound"
    about = dict(domains=["a", "b"], metrics=dict(a=dict(auc=0.5), sizes=[64, 64]), band=[0.4, 0.6])
    tiny_bundle(sound, **about)
    known = add_reference(sound)
    tensors = load_tensors(sound)
    image = Image.new("RGB", (64, 64), (90, 120, 150))
    score = Detector.load(sound).check(image).p_fake
    names = sorted(path.name for path in sound.iterdir())
    ends = Counter()
    for i in range(2000):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        path = folder / (INDEX if i % 2 else dice.choice(names))
        if i % 2 and dice.random() < 0.8:
            path.write_text(changed_record(dice, path.read_text()))
        else:
            path.write_bytes(changed_bytes(dice, path.read_bytes()))
        try:
            bundle = read_bundle(folder)
            detector = Detector.load(folder, threads=1)
        except (BundleError, InferError) as error:
            assert 10 < len(str(error)) < 1000 and str(error).replace("\n", "").isprintable()
            ends["refused"] += 1
            continue
        if bundle.hash == known.hash:
            ends["untouched"] += 1
            assert detector.check(image).p_fake == score
            assert all((load_tensors(folder)[name] == values).all() for name, values in tensors.items())
        else:
            # another record that keeps every rule says so by its identity
            ends["another identity"] += 1
            detector.check(image)
    print(dict(ends))
    assert sum(ends.values()) == 2000 and ends["refused"] > 1000


def test_300_damaged_manifests(tmp_path):
    from fakeface.data.manifest import ManifestError, read_manifest
    from fakeface.testing.datasets import toy_manifest

    dice = random.Random(18)
    true = toy_manifest(tmp_path / "toy", 12)
    sound = (tmp_path / "toy/manifest.parquet").read_bytes()
    ends = Counter()
    for _ in range(300):
        path = tmp_path / "toy/damaged.parquet"
        path.write_bytes(changed_bytes(dice, sound))
        try:
            found = read_manifest(path)
        except ManifestError as error:
            assert "damaged.parquet" in str(error)
            ends["refused"] += 1
            continue
        ends["untouched"] += 1
        assert found.to_csv() == true.to_csv() and found.attrs == true.attrs
    print(dict(ends))
    assert sum(ends.values()) == 300 and ends["refused"] > 200


def test_60_damaged_checkpoints(tmp_path):
    import torch
    from fakeface.core.project import FakefaceError
    from fakeface.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint

    dice = random.Random(18)
    weights = dict(weight=torch.arange(300.0), bias=torch.ones(3))
    tensors = dict(model=weights, ema=weights, optimizer={"0.momentum_buffer": torch.zeros(300)})
    state = dict(
        step=5, identity=dict(lr=0.1), data="hash", history=[dict(epoch=i, loss=0.5 / i) for i in range(1, 30)]
    )
    sound = save_checkpoint(tmp_path / "sound", state, tensors)
    true = load_checkpoint(sound)
    ends = Counter()
    for i in range(60):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        names = sorted(path.name for path in folder.iterdir())
        # state.json holds what no other hash covers: half of the damage is there
        path = folder / ("state.json" if i % 2 else names[i // 2 % len(names)])
        path.write_bytes(changed_bytes(dice, path.read_bytes()))
        try:
            found = load_checkpoint(folder, dict(identity=dict(lr=0.1), data="hash"))
        except FakefaceError as error:
            assert "damaged" in str(error)
            ends["refused"] += 1
            continue
        ends["untouched"] += 1
        assert found.state == true.state
        assert all(torch.equal(found.tensors["model"][name], values) for name, values in weights.items())
    print(dict(ends))
    assert sum(ends.values()) == 60 and ends["refused"] >= 50
    assert checkpoints(tmp_path / "sound") == [sound]
