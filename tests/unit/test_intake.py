"""A folder as people have them: mixed sizes, HEIC, notes beside the images; `audit` and `prepare` say the same."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakeface.cli.tools import audit_command
from fakeface.core.seeds import rng
from fakeface.data.audit import audit, read_audit, verdicts, write_audit
from fakeface.data.intake import intake_line, tell_intake
from fakeface.data.manifest import read_manifest, write_manifest
from fakeface.data.orl import demo_faces
from fakeface.data.prepare import PrepareConfig, build_dataset, collect_sources, index_images, write_prepared
from fakeface.testing.datasets import TOY_TRAINING, toy_run
from fakeface.train.data_choice import TrainError, prepared_manifest
from fakeface.train.recipe import train_config

SIDES = (80, 160, 320, 320, 320, 480)  # of images of both classes, again and again
COUNT = 24  # images of each class


def noise(name: str, side: int) -> Image.Image:
    "An image that resembles no other."
    small = rng("mixed", name).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def write_image(image: Image.Image, path: Path, number: int) -> None:
    "As JPEG, PNG or HEIC, in turn."
    ending = (".jpg", ".heic", ".png")[number // len(SIDES) % 3]
    if ending == ".heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(image).save(path.with_suffix(ending))
    else:
        image.save(path.with_suffix(ending))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    "A folder of photographs and fakes in the same sizes and formats, with notes beside them."
    folder = tmp_path_factory.mktemp("intake") / "mixed"
    for kind in ("Photos", "ai"):
        (folder / kind).mkdir(parents=True)
        for number in range(COUNT):
            image = noise(f"{kind} {number}", SIDES[number % len(SIDES)])
            write_image(image, folder / kind / f"{number}", number)
    for number in range(10):
        (folder / "ai" / f"{number}.txt").write_text("a prompt")
    for name in ("ai/settings.json", "about.json"):
        (folder / name).write_text("{}")
    return folder


def prepared(mixed: Path, folder: Path, **options):
    "The manifest to train on, both audits, and the numbers of the stage."
    cfg = PrepareConfig(run="mixed", sources=str(mixed), workers=0, **options)
    found = index_images(cfg, collect_sources(cfg, folder), folder)
    built = build_dataset(cfg, found, folder)
    write_prepared(cfg, found, built, folder)
    return built, read_audit(folder / "audit_found.json"), read_audit(folder / "audit.json")


def test_mixed_folder_says_what_was_lost_and_what_keeps_it(mixed, tmp_path, capsys):
    built, before, after = prepared(mixed, tmp_path / "as it is")
    tell_intake(built, verdicts(before, after))
    told = capsys.readouterr()
    counted = (
        f"{2 * COUNT} images in 1 domain: {2 * COUNT} used, 0 left out. Not images: 12 other files: 10 .txt, 2 .json."
    )
    assert told.out.startswith(counted)
    # 8 of 48 images are 80 px, more than one in twenty: none is left out unasked, and that is a warning
    assert set(built.width) == {80} and after.harmonised["side"] == {"mixed": 80}
    assert "WARNING: mixed: every image was made 80 px" in told.err
    assert "8 of 48 images are under 160 px" in told.err and "WARNING" not in told.out
    assert "min_side=160 and overwrite=True" in told.err

    # and what it advises does what it says
    built, before, after = prepared(mixed, tmp_path / "as advised", min_side=160)
    used = built[built.split != "excluded"]
    assert len(used) == 40 and set(used.width) == {160} and after.harmonised["losses"] == []
    assert intake_line(built).startswith(
        "48 images in 1 domain: 40 used, 8 left out (its shorter side is under … px: 8)."
    )


@pytest.mark.parametrize("endings, verdict", [((".png", ".png"), "pass"), ((".png", ".jpg"), "refuse")])
def test_audit_and_prepare_say_the_same(endings, verdict, tmp_path, capsys):
    for kind, ending in zip(("Photos", "ai"), endings):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(COUNT):
            image = noise(f"{kind} {number}", SIDES[number % len(SIDES)])
            image.save(tmp_path / "set" / kind / f"{number}{ending}")
    (tmp_path / "set/ai/prompts.csv").touch()
    (tmp_path / "run").mkdir()
    cfg = PrepareConfig(run="same", sources=str(tmp_path / "set"), workers=0)
    found = index_images(cfg, collect_sources(cfg, tmp_path / "run"), tmp_path / "run")
    as_found = audit(found, workers=0)
    code = audit_command(argparse.Namespace(folder=str(tmp_path / "set")))
    told = capsys.readouterr().out
    assert as_found.verdict == verdict and code == (verdict == "refuse")
    assert verdicts(as_found).to_string() in told and intake_line(found) in told
    assert "48 used, 0 left out. Not images: 1 other file: 1 .csv." in told


ROOMS = ((1200, 900), (900, 1200), (1600, 900), (800, 800))  # width and height of photographs


def photograph(number: int) -> Image.Image:
    "A head (ORL face database, AT&T Laboratories Cambridge) that is small in a large image."
    width, height = ROOMS[number % len(ROOMS)]
    image = noise(f"room {number}", 64).resize((width, height))
    head = demo_faces(number + 1)[number].resize((230, 280), Image.Resampling.BICUBIC)
    image.paste(head, (width // 5 + 10 * number, height // 3))
    return image


def test_folders_that_are_torn_over_splits_get_a_hint(tmp_path, capsys):
    "Films, each in a folder of its own, of which no list says so; with a list nothing is torn."
    films = tmp_path / "films"
    for number in range(48):
        film = films / ("real", "fake")[number % 2] / f"film {number // 12}"
        film.mkdir(parents=True, exist_ok=True)
        noise(f"film {number}", 80).save(film / f"{number:03}.png")
    built, before, after = prepared(films, tmp_path / "run")
    tell_intake(built, verdicts(before, after))
    (hint,) = [line for line in capsys.readouterr().err.splitlines() if "folders have images in several splits" in line]
    assert hint.startswith("HINT: 8 of 8 folders") and "identities.csv" in hint
    paths = [path.relative_to(films).as_posix() for path in sorted(films.rglob("*.png"))]
    (films / "identities.csv").write_text("\n".join(["path,identity", *(f"{path},{path[:-8]}" for path in paths)]))
    built, before, after = prepared(films, tmp_path / "known")
    tell_intake(built, verdicts(before, after))
    assert "several splits" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "rooms, said",
    [
        (range(8), "HINT: photos: in 4 of 4 real and 4 of 4 fake images"),
        (range(5), "HINT: photos: in 3 of 4 real and 2 of 4 fake images"),
        (range(4), ""),
        # a detector of rooms would tell them apart
        ((0, 2, 4, 6), "WARNING: photos: in 4 of 4 real and 0 of 4 fake images"),
        ((0, 2), "WARNING: photos: in 2 of 4 real and 0 of 4 fake images"),
    ],
)
def test_photographs_that_nobody_has_framed_get_a_hint(rooms, said, tmp_path, capsys):
    "Of eight images, some are photographs of a room with a head in it, the others heads that fill the image."
    for number in range(8):
        head = demo_faces(40)[39 - number].resize((460, 560))
        image = photograph(number) if number in rooms else head
        folder = tmp_path / "photos" / ("real", "fake")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.jpg", quality=90)
    built, before, after = prepared(tmp_path / "photos", tmp_path / "run")
    tell_intake(built, verdicts(before, after))
    told = capsys.readouterr()
    hints = [line for line in told.err.splitlines() if "does not fill the image" in line]
    assert len(hints) == bool(said) and "HINT" not in told.out
    assert all(hint.startswith(said) and "framing=face" in hint for hint in hints)
    if len(rooms) == 8:
        # what it advises does what it says: nothing is left to hint at
        built, before, after = prepared(tmp_path / "photos", tmp_path / "as advised", framing="face")
        tell_intake(built, verdicts(before, after))
        assert "HINT" not in capsys.readouterr().err and (built.faces == 1).sum() == 8


@pytest.mark.parametrize("split, reason", [("train", "source 'raw!' cannot stand"), ("test", None)])
def test_a_source_that_no_bundle_can_name_is_refused_before_training(tmp_path, split, reason):
    "It was refused when the finished detector was written; images that are only tested may have any name."
    folder = toy_run(tmp_path, count=8) / "prepare"
    manifest = read_manifest(folder / "manifest.parquet")
    manifest.loc[manifest["split"] == split, "source"] = "raw!"
    write_manifest(manifest, folder / "manifest.parquet")
    write_audit(audit(manifest, workers=0), folder / "audit.json")
    cfg = train_config("pretrain", **TOY_TRAINING | dict(run="toy", out=str(tmp_path)))
    if reason is None:
        assert len(prepared_manifest(cfg)) == len(manifest)
    else:
        with pytest.raises(TrainError, match=reason):
            prepared_manifest(cfg)


def test_heads_that_are_cut_closer_than_the_square_are_told_in_both_framings(tmp_path, capsys):
    "Around a head that fills its image no square can be cut: it stays larger than one that is cut out of a room."
    for number in range(20):
        kind = ("real", "fake")[number % 2]
        head = demo_faces(40)[39 - number].crop((8, 14, 84, 104)).resize((380, 450))
        folder = tmp_path / "photos" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (photograph(number) if kind == "real" else head).save(folder / f"{number}.jpg", quality=90)
    for framing in ("centre", "face"):
        built, before, after = prepared(tmp_path / "photos", tmp_path / framing, framing=framing)
        tell_intake(built, verdicts(before, after))
        told = capsys.readouterr().err
        assert ("the size of the head tells real images from fake ones" in told) == (framing == "face"), told
        assert "WARNING: photos" in told
