"What a page may say to the checker: two thousand messages at random, numbers that are none, paths out, turns."

import dataclasses
import json
import math
import random
import shutil
from collections import Counter

import pytest
from fakeface.core.project import ConfigError
from fakeface.infer.desk import Desk
from fakeface.infer.detector import Detector
from fakeface.infer.messages import _FIELDS
from fakeface.infer.turns import Turn
from fakeface.testing.bundles import tiny_bundle
from fakeface.testing.detectors import BrightDetector, grey_jpeg

KINDS = "hello part refuse path open again set heatmap remove csv __init__ handle".split()
NAMES = "id ids name part parts size path threshold prior faces stability row page kind buffers".split()
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 0.5, 1e-9, 10**400, math.nan, math.inf, -math.inf),
    *("", "a", "nan", "0.5", "\ud800", "a\0b", "../../etc/passwd", "/etc/passwd", "~root/x", "x" * 5000, "=1+1"),
    *([], ["a"], [1], [["a"]], ["a"] * 3, {}, {"id": 1}),
]


def copied(card, **other):
    "A card as a page gets it."
    return json.loads(json.dumps(card | other))


def settings_of(desk):
    return desk.threshold, desk.prior, desk.faces, desk.stability


def is_sound(desk):
    threshold, prior, faces, stability = settings_of(desk)
    numbers = all(type(number) is float and math.isfinite(number) for number in (threshold, prior))
    return numbers and 0 <= threshold <= 1 and 0 < prior < 1 and type(faces) is type(stability) is bool


def test_whatever_a_page_says_the_desk_stays_sound(tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(grey_jpeg(60))
    desk = Desk(BrightDetector(), below=tmp_path, max_cards=20, limit=10_000)
    draw = random.Random(18)
    done = Counter()
    for _ in range(2000):
        kind = draw.choice([*KINDS, *VALUES]) if draw.random() < 0.1 else draw.choice(KINDS)
        fields = [*_FIELDS.get(kind, {})] if isinstance(kind, str) else []
        names = fields if draw.random() < 0.7 else draw.sample(NAMES, draw.randrange(6))
        message = {name: draw.choice(VALUES) for name in names} | dict(kind=kind)
        buffers = [grey_jpeg(90)] * draw.randrange(3)
        answers = desk.handle(message, buffers)
        text = json.dumps(answers, allow_nan=False)
        assert "Something went wrong in the program" not in text, message
        assert str(tmp_path) not in text, message
        done[answers[0]["kind"] if answers else ""] += 1
        assert is_sound(desk) and len(desk.cards) <= 20, message
    assert not caplog.records
    assert min(done[kind] for kind in ("", "say", "card", "removed", "relabel", "state", "csv", "heatmap")) > 0, done


@pytest.mark.parametrize("name", ["threshold", "prior"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1, 10**400, "0.5", True, None, [0.5], {}])
def test_number_that_is_none_changes_nothing(name, value):
    desk = Desk(BrightDetector())
    (card,) = desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [grey_jpeg(230)])
    before = settings_of(desk), json.dumps(desk.cards), desk.note()
    (answer,) = desk.handle({"kind": "set", name: value, "faces": False})
    assert answer["kind"] == "say" and answer["text"].startswith(f"{name} should be a number from 0 to 1")
    assert (settings_of(desk), json.dumps(desk.cards), desk.note()) == before
    assert card["card"]["label"] == "fake"


def test_unknown_fields_and_faces_are_refused():
    desk = Desk(BrightDetector())
    desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [grey_jpeg(230)])
    (said,) = desk.handle(dict(kind="set", threshold=0.5, detector="x"))
    assert said["kind"] == "say" and "not known here" in said["text"]
    (heat,) = desk.handle(dict(kind="heatmap", id="1", row=7))
    assert heat["kind"] == "heatmap" and heat["error"] == "This image has no such face." and heat["image"] == ""


def test_a_heatmap_is_of_the_word_that_is_shown_now():
    "Without an unsure range the slider moves the word, and what the map is evidence for with it."
    detector = BrightDetector()
    detector.bundle = dataclasses.replace(detector.bundle, band=None)
    desk = Desk(detector)
    (answer,) = desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [grey_jpeg(150)])
    score = answer["card"]["rows"][0]["score"]
    for threshold, word in ((score + 0.05, "real"), (score - 0.05, "fake")):
        desk.handle(dict(kind="set", threshold=threshold))
        assert desk.labels("1")["rows"][0]["label"] == word
        (heat,) = desk.handle(dict(kind="heatmap", id="1", row=0))
        assert heat["image"] and heat["shows"] == word


def typed(desk, path):
    "The texts of all answers to a typed path, opened where it can be."
    answers = desk.handle(dict(kind="path", path=path))
    for answer in [*answers]:
        for file in answer.get("files", []):
            answers += desk.handle(dict(kind="open", id=file["id"]))
    return json.dumps(answers)


def test_typed_paths_stay_below_the_folder(tmp_path):
    shown = tmp_path / "shown"
    shown.mkdir()
    (tmp_path / "secret.jpg").write_bytes(grey_jpeg(60))
    (shown / "a.jpg").write_bytes(grey_jpeg(60))
    (shown / "broken.jpg").write_bytes(b"\xff\xd8")
    (shown / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (shown / "up").symlink_to(tmp_path)
    desk = Desk(BrightDetector(), below=shown)
    nothing = {typed(desk, path) for path in ("none.jpg", "../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg")}
    nothing |= {typed(desk, path) for path in ("up/secret.jpg", "up", "/etc/passwd", "~", "/dev/zero", "/proc/self")}
    assert len(nothing) == 1, "what lies outside is answered like what does not exist"
    whole = typed(desk, str(shown))
    assert '"a.jpg"' in whole and '"broken.jpg"' in whole and "secret" not in whole and "link" not in whole
    assert str(tmp_path) not in whole
    # exchanged between the answer and the question
    (answer,) = desk.handle(dict(kind="path", path="a.jpg"))
    (shown / "a.jpg").unlink()
    (shown / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    (card,) = desk.handle(dict(kind="open", id=answer["files"][0]["id"]))
    assert "no file or folder of this name" in card["card"]["error"] and not card["card"]["thumb"]


def test_a_link_below_the_folder_keeps_its_own_name(tmp_path):
    "Collections of links to files that are named by their hashes are common."
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects/0f3a.jpg").write_bytes(grey_jpeg(60))
    (tmp_path / "mother.jpg").symlink_to("objects/0f3a.jpg")
    for path in ("mother.jpg", "."):
        desk = Desk(BrightDetector(), below=tmp_path)
        said = typed(desk, path)
        assert '"mother.jpg"' in said and "0f3a" not in said and [*desk.cards.values()][0]["label"] == "real"


def test_the_limit_of_an_image_holds_for_typed_paths_too(tmp_path):
    (tmp_path / "large.jpg").write_bytes(grey_jpeg(60) + bytes(2**20))
    (tmp_path / "small.jpg").write_bytes(grey_jpeg(60))
    desk = Desk(BrightDetector(), below=tmp_path, limit=2**20)
    typed(desk, ".")
    large, small = desk.cards.values()
    assert large["name"] == "large.jpg" and "takes up to 1 MB per image" in large["error"]
    assert small["label"] == "real" and not small["error"]


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("asked", ["open", "again", "heatmap"])
def test_a_link_that_comes_after_the_check_leads_nowhere(tmp_path, monkeypatch, what, asked):
    "Exchanged behind the comparison of paths, before the file is opened."
    from fakeface.infer import desk as room

    shown = tmp_path / "shown"
    (shown / "in").mkdir(parents=True)
    (shown / "in/a.jpg").write_bytes(grey_jpeg(60))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/a.jpg").write_bytes(grey_jpeg(230))
    desk = Desk(BrightDetector(), below=shown)
    (answer,) = desk.handle(dict(kind="path", path="in/a.jpg"))
    id = answer["files"][0]["id"]
    if asked != "open":
        (card,) = desk.handle(dict(kind="open", id=id))
        assert card["card"]["label"] == "real" and not card["card"]["error"]
        assert desk.source == {id: (shown / "in/a.jpg").resolve()}, "the path is kept, not the bytes"
        before = copied(card["card"])
        # an image is looked at again only with other settings
        desk.handle(dict(kind="set", stability=False))
    check = room.typed_path

    def checked_too_early(*args):
        real = check(*args)
        moved, target = ("in/a.jpg", "secret/a.jpg") if what == "file" else ("in", "secret")
        (shown / moved).rename(tmp_path / "away")
        (shown / moved).symlink_to(tmp_path / target)
        return real

    monkeypatch.setattr(room, "typed_path", checked_too_early)
    (answer,) = desk.handle(dict(kind=asked, id=id, row=0) if asked == "heatmap" else dict(kind=asked, id=id))
    if asked == "again":
        said = answer["card"]["outdated"]
        assert copied(answer["card"], outdated="") == before, "what was seen before stays, and nothing is added"
    else:
        said = answer["error"] if asked == "heatmap" else answer["card"]["error"]
        assert "data:image" not in json.dumps(answer)
    assert "no file or folder of this name" in said


def test_a_link_between_comparing_and_opening_leads_nowhere(tmp_path, monkeypatch):
    "The same, at the last moment there is."
    from fakeface.infer import typed as room

    (tmp_path / "shown").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    file = tmp_path / "shown/a.jpg"
    file.write_bytes(b"shown")
    compare = room._inside

    def compared_too_early(*args):
        real = compare(*args)
        file.unlink()
        file.symlink_to(tmp_path / "secret.jpg")
        return real

    assert room.read_typed(file, tmp_path / "shown") == b"shown"
    monkeypatch.setattr(room, "_inside", compared_too_early)
    with pytest.raises(ConfigError, match="no file or folder of this name"):
        room.read_typed(file, tmp_path / "shown")


def test_images_wait_for_their_turn(tmp_path):
    desk = Desk(BrightDetector(), turn=Turn(tmp_path / "turn", patience=0.2))
    upload = dict(kind="part", id="1", name="a.jpg", part=0, parts=1)
    with Turn(tmp_path / "turn"):
        (answer,) = desk.handle(upload, [grey_jpeg(230)])
        assert "Other pages are busy" in answer["card"]["error"]
    (answer,) = desk.handle(upload, [grey_jpeg(230)])
    assert answer["card"]["label"] == "fake"


def test_page_gets_its_settings_through_the_environment(monkeypatch, tmp_path):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    from fakeface.images import bound
    from fakeface.infer.checker import checker
    from fakeface.infer.page import PageSettings

    # a page bounds its process for good, and other tests run in this one
    monkeypatch.setattr(bound._Process, "is_bounded", False)
    for paths in (None, tmp_path):
        for name, value in PageSettings("no/such", paths=paths).environment(tmp_path / "turn").items():
            monkeypatch.setenv(name, value)
        desk = checker().desk
        assert desk.turn.path == str(tmp_path / "turn") and desk.limit == 64 * 2**20
        assert (desk.paths, desk.below) == (paths is not None, paths)


@pytest.mark.parametrize("late", ["no turn", "in the detector", "in its row", "while its facts are read"])
def test_a_second_look_that_is_late_leaves_the_first_verdict(tmp_path, monkeypatch, late):
    from fakeface.infer import cards as room

    desk = Desk(BrightDetector(), turn=Turn(tmp_path / "turn", patience=0.01))
    (first,) = desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [grey_jpeg(230)])
    before = copied(first["card"])
    assert before["label"] == "fake" and before["thumb"]
    desk.handle(dict(kind="set", stability=False))
    said = "Took longer than 60 s."
    with monkeypatch.context() as m:
        if late == "no turn":
            m.setattr("fakeface.infer.turns._take", lambda file: (_ for _ in ()).throw(OSError))
            said = "Other pages are busy with large images. Try this one again in a minute."
        elif late == "in the detector":
            m.setattr(desk.detector, "check_faces", lambda *_, **__: (_ for _ in ()).throw(ConfigError(said)))
        elif late == "in its row":
            m.setattr(desk.detector, "check_faces", lambda *_, **__: [desk.detector.verdict(error=said)])
        else:
            m.setattr(room, "_facts", lambda *_: (_ for _ in ()).throw(ConfigError(said)))
        (failed,) = desk.handle(dict(kind="again", id="1"))
    assert copied(failed["card"], outdated="") == before
    assert failed["card"]["outdated"].startswith("Judged with an earlier setting:")
    assert failed["card"]["outdated"].endswith(f"The new look was not done: {said}")
    assert "with re-saved" in desk.table() and desk.summary().endswith("1 image was judged with an earlier setting.")
    (again,) = desk.handle(dict(kind="again", id="1"))
    assert again["card"]["label"] == "fake" and not again["card"]["outdated"] and "without" in desk.table()


def test_back_to_the_earlier_setting_nothing_is_left_to_say(tmp_path, caplog):
    desk = Desk(BrightDetector())
    (first,) = desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [grey_jpeg(230)])
    before = copied(first["card"])
    # the folder of the lock is gone
    desk.turn = Turn(tmp_path / "none" / "turn")
    desk.handle(dict(kind="set", stability=False))
    desk.handle(dict(kind="again", id="1"))
    assert "The new look was not done" in desk.cards["1"]["outdated"]
    desk.handle(dict(kind="set", stability=True))
    assert copied(desk.cards["1"]) == before


def test_another_file_that_cannot_be_read_leaves_nothing_of_the_first():
    desk = Desk(BrightDetector())
    for data in (grey_jpeg(230), b"no image"):
        (answer,) = desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [data])
    assert answer["card"]["error"] and not answer["card"]["again"]
    (heat,) = desk.handle(dict(kind="heatmap", id="1", row=0))
    assert not heat["image"] and "no longer in memory" in heat["error"]


@pytest.mark.parametrize("lost", ["", "bundle.json", "model.safetensors"])
def test_a_page_does_not_learn_where_a_damaged_detector_lay(tmp_path, lost):
    bundle = tmp_path / "jane doe" / "my bundle"
    tiny_bundle(bundle)
    desk = Desk(Detector.load(bundle))
    desk.handle(dict(kind="part", id="1", name="a.jpg", part=0, parts=1), [grey_jpeg(60)])
    if lost:
        (bundle / lost).unlink()
    else:
        shutil.rmtree(bundle)
    (heat,) = desk.handle(dict(kind="heatmap", id="1", row=0))
    assert "my bundle" in heat["error"] and "jane doe" not in heat["error"] and not heat["image"]
