"""Files as people have them: sizes, places, draws that know no class, and the figures against counting by hand."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from fakeface.core.project import FakefaceError
from fakeface.core.seeds import rng
from fakeface.evaluate.predict import open_net
from fakeface.evaluate.scene_grid import (
    SCENE_FIGURES,
    UNTOUCHED,
    file_score,
    scene_scores,
    scene_summary,
    scene_table,
    words_of,
)
from fakeface.augment.backdrops import backdrop
from fakeface.evaluate.scenes import SCENES, scene_file
from fakeface.faces.detect import find_faces
from fakeface.faces.frame import cut_square, ffhq_square
from fakeface.images.decode import open_image
from fakeface.images.preprocess import eval_views
from fakeface.infer.detector import Detector
from fakeface.metrics.intervals import proportion
from fakeface.models.bundle import p_fake
from fakeface.report.charts import plot_scenes
from fakeface.testing.bundles import tiny_bundle

ALL = (
    *("512 px", "1024 px", "sent at 1600 px", "12-MP scene", "letter-boxed", "phone screenshot", "messenger copy"),
    *("tight crop", "padded", "turned", "192 px in a frame"),
)
SIZES = {
    "512 px": ((512, 640),),
    "1024 px": ((1024, 1280),),
    "sent at 1600 px": ((1280, 1600),),
    "12-MP scene": ((4000, 3000),),
    "letter-boxed": ((1920, 1080), (1080, 1920)),
    "phone screenshot": ((1080, 2340),),
    "messenger copy": ((1600, 1200),),
    "turned": ((200, 250), (250, 200)),
    "192 px in a frame": ((1280, 720),),
}
SIDES = {"12-MP scene": (600, 1100), "192 px in a frame": (192, 192), "512 px": (512, 512), "1024 px": (1024, 1024)}
DRAWS = range(3)


def magenta(width=200, height=250):
    "An image of a colour that no backdrop or screen has, so that its place can be seen."
    return Image.new("RGB", (width, height), (255, 0, 255))


FADES = ("12-MP scene", "messenger copy", "192 px in a frame")


def made_and_opened(name, draw=0, image=None):
    made = scene_file(name, image or magenta(), rng(draw, "scene", name))
    return made, Image.open(io.BytesIO(made.data))


def test_there_are_these_scenes():
    assert tuple(SCENES) == ALL


@pytest.mark.parametrize("name", ALL)
def test_file_is_what_it_says(name):
    for draw in DRAWS:
        made, opened = made_and_opened(name, draw)
        assert opened.size == made.size and made.size in SIZES.get(name, (made.size,))
        assert opened.format == ("PNG" if name == "phone screenshot" else "JPEG")
        assert not opened.getexif(), "nothing says how it is to be turned"


@pytest.mark.parametrize("name", ALL)
def test_image_is_where_the_scene_says(name):
    "The magenta pixels of the file are those of the place; in a photograph its surroundings fade out around it."
    for draw in DRAWS:
        made, opened = made_and_opened(name, draw)
        pixels = np.asarray(opened.convert("RGB")).astype(int)
        seen = np.abs(pixels - (255, 0, 255)).max(-1) < 60
        left, top, right, bottom = np.clip(made.place, 0, [*made.size] * 2)
        around = round(0.25 * min(right - left, bottom - top)) if name in FADES else 0
        within = np.zeros_like(seen)
        within[max(0, top - around) : bottom + around, max(0, left - around) : right + around] = True
        core = seen[top + 3 : bottom - 3, left + 3 : right - 3]  # the codec smears an edge
        assert core.mean() > 0.99 and seen[~within].sum() <= 0.02 * within.size
        least, most = SIDES.get(name, (0, 10_000))
        shorter = min(made.place[2] - made.place[0], made.place[3] - made.place[1])
        assert least - 1 <= shorter <= most + 1


def test_sides_in_the_large_scene_spread_over_their_range():
    places = [made_and_opened("12-MP scene", draw)[0].place for draw in range(6)]
    sides = [right - left for left, _, right, _ in places]
    assert len(set(sides)) == 6 and max(sides) - min(sides) > 100


@pytest.mark.parametrize("name", ALL)
def test_same_draw_same_bytes_and_another_draw_another_file(name):
    image = backdrop((200, 250), rng("image"))
    files = [scene_file(name, image, rng(draw, "scene", name)) for draw in (0, 0, 1, 2, 3)]
    assert files[0] == files[1]
    assert name in ("512 px", "1024 px", "sent at 1600 px") or len({file.data for file in files}) > 1


@pytest.mark.parametrize("turns, corner", [(1, (1, 0)), (2, (1, 1)), (3, (0, 1))])
def test_turned_says_by_how_much_clockwise(turns, corner):
    "A white upper left corner goes to the upper right, the lower right, the lower left."
    image = Image.new("RGB", (100, 100))
    image.paste("white", (0, 0, 40, 40))
    draws = (scene_file("turned", image, rng(draw)) for draw in range(40))
    made = next(each for each in draws if each.turns == turns)
    grey = Image.open(io.BytesIO(made.data)).convert("L")
    assert grey.getpixel((90 if corner[0] else 10, 90 if corner[1] else 10)) > 200
    assert np.asarray(grey).mean() < 80


def test_tight_crop_leaves_out_and_padded_adds():
    for draw in DRAWS:
        tight = made_and_opened("tight crop", draw)[0]
        padded = made_and_opened("padded", draw)[0]
        assert 0.58 <= tight.size[0] / 200 <= 0.77 and tight.place[0] < 0 and tight.place[2] > tight.size[0]
        assert 1.5 <= padded.size[0] / 200 <= 2.2 and padded.place[2] - padded.place[0] == 200


@pytest.mark.parametrize(
    "image", [Image.new("L", (100, 100)), Image.new("RGB", (31, 400)), Image.new("RGBA", (99, 99))]
)
def test_what_is_no_headshot_is_refused(image):
    with pytest.raises(FakefaceError, match="RGB image of 32 pixels or more"):
        scene_file("padded", image, rng(0))
    with pytest.raises(FakefaceError, match="no scene 'paded'.*padded"):
        scene_file("paded", magenta(), rng(0))


# ---- words


@pytest.mark.parametrize("band", [None, (0.3, 0.7), (0.5, 0.9), (0.5, 0.5), (0.1, 0.2), (0.7, 0.8)])
def test_words_follow_the_rule_written_out(band):
    chances = np.linspace(0, 1, 101)
    low, high = band or (0.5, 0.5)
    by_hand = ["real" if p < low else "fake" if p >= max(high, 0.5) else "unsure" for p in chances]
    assert list(words_of(chances, 0.5, band)) == by_hand


def test_words_outside_the_band_are_unsure_up_to_the_higher_of_both():
    assert list(words_of([0.1, 0.25, 0.4, 0.5, np.nan], 0.5, (0.2, 0.3))) == ["real", *["unsure"] * 2, "fake", "unsure"]
    assert list(words_of([0.5, 0.65, 0.8], 0.4, (0.6, 0.8))) == ["real", "unsure", "fake"]


# ---- figures


def made_up(seed=0, n=30, domains=("a", "b")):
    "Scores of images in two scenes, some not scored, and their words."
    gen = rng("made up", seed)
    rows = []
    for domain in domains:
        for i in range(n):
            for scene in (UNTOUCHED, "padded", "turned"):
                p = np.nan if gen.random() < 0.15 else gen.random()
                about = dict(path=f"{domain}/{i}", domain=domain, label=i % 2, scene=scene)
                # whatever the scene
                about["whole"] = i % 3 > 0
                rows.append(about | dict(p_fake=p, earned=not np.isnan(p) and gen.random() < 0.9))
    pred = pd.DataFrame(rows)
    return pred.assign(word=words_of(pred.p_fake.where(pred.earned), 0.5, (0.4, 0.6)))


def test_share_of_changed_labels_against_a_loop():
    pred = made_up()
    table = scene_table(pred).set_index(["scene", "domain"])
    for scene in (UNTOUCHED, "padded", "turned"):
        for domain in ("a", "b"):
            words = {
                state: {r.path: r.word for r in pred.itertuples() if r.scene == state and r.domain == domain}
                for state in (UNTOUCHED, scene)
            }
            pairs = [(words[UNTOUCHED][path], words[scene][path]) for path in words[scene]]
            changed = sum(before != after for before, after in pairs)
            row = table.loc[scene, domain]
            assert row.changed == changed / 30 and row.n == 30
            assert (row.fake_to_real, row.real_to_fake) == (
                pairs.count(("fake", "real")),
                pairs.count(("real", "fake")),
            )
            expected = proportion(changed, 30)
            assert (row.changed_low, row.changed_high) == (expected.low, expected.high)
            wholes = [words[scene][f"{domain}/{i}"] != words[UNTOUCHED][f"{domain}/{i}"] for i in range(30) if i % 3]
            assert row.changed_whole == np.mean(wholes) and row.n_whole == 20
    assert 0 < table.loc["padded", "macro"].changed < 1, "the made-up words do change"


def test_other_figures_against_their_definitions():
    pred = made_up()
    table = scene_table(pred).set_index(["scene", "domain"])
    some = pred[(pred.scene == "padded") & (pred.domain == "b")]
    scored = some.dropna(subset="p_fake")
    row = table.loc["padded", "b"]
    assert row.auc == pytest.approx(roc_auc_score(scored.label, scored.p_fake))
    assert row.unearned == (~some.earned).mean() > row.unscored
    assert row.unscored == some.p_fake.isna().mean() > 0
    assert row.unsure == (some.word == "unsure").mean() > row.unscored, "what was not scored is unsure too"
    assert row.fpr == (some.word[some.label == 0] == "fake").mean() and row.n_real == 15
    assert row.fnr == (some.word[some.label == 1] == "real").mean() and row.n_fake == 15
    both = [table.loc["padded", domain].fpr for domain in ("a", "b")]
    assert table.loc["padded", "macro"].fpr == pytest.approx(np.mean(both))
    for name in SCENE_FIGURES:
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_classes_exchanged_exchange_their_errors():
    "Labels and words mirrored: what was said of the one class is said of the other, digit by digit."
    pred = made_up()
    names = dict(real="fake", fake="real", unsure="unsure")
    mirrored = pred.assign(label=1 - pred.label, word=pred.word.map(names), p_fake=1 - pred.p_fake)
    one, other = scene_table(pred), scene_table(mirrored)
    np.testing.assert_allclose(one.fpr, other.fnr)
    np.testing.assert_allclose(one.fnr, other.fpr)
    np.testing.assert_allclose(one.auc, other.auc)
    assert (one.fake_to_real == other.real_to_fake).all() and (one.changed == other.changed).all()


def test_one_line_holds_means_and_sums():
    table = scene_table(made_up())
    line = scene_summary(table)
    means = table[(table.domain == "macro") & (table.scene != UNTOUCHED)]
    assert line["scenes"] == 2 and line["n"] == 60 and line["n_real"] == line["n_fake"] == 30
    for name in SCENE_FIGURES:
        assert line[name]["value"] == pytest.approx(means[name].mean())
        assert line[name]["low"] == pytest.approx(means[f"{name}_low"].mean())
    assert line["fake_to_real"] == means.fake_to_real.sum() > 0
    assert line["worst"] == means.set_index("scene").changed.idxmax()
    with pytest.raises(FakefaceError, match="no scene to summarise"):
        scene_summary(table[table.scene == UNTOUCHED])


def test_table_refuses_what_it_cannot_compare():
    pred = made_up()
    untouched = pred.scene == UNTOUCHED
    for broken in (pred[~untouched], pred.iloc[:0], pd.concat([pred, pred[untouched]])):
        with pytest.raises(FakefaceError, match="one row of the scene 'as it is'"):
            scene_table(broken)


def test_a_domain_of_one_class_has_no_auc_and_the_mean_is_of_the_others():
    pred = made_up()
    table = scene_table(pred[(pred.domain == "a") | (pred.label == 0)]).set_index(["scene", "domain"])
    assert np.isnan(table.loc["padded", "b"].auc) and np.isnan(table.loc["padded", "b"].fnr)
    assert table.loc["padded", "macro"].auc == table.loc["padded", "a"].auc
    assert table.loc["padded", "macro"].n == 45


# ---- from files


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    "Two headshots of each class, a file that is no image, one without a face, and a detector of brightness."
    from fakeface.data.orl import demo_faces

    root = tmp_path_factory.mktemp("scenes")
    rows = []
    for i, face in enumerate(demo_faces(4)):
        page = backdrop((256, 256), rng("page", i))
        page.paste(face.resize((150, 182)), (53, 40))
        page.save(root / f"{i}.png")
        rows.append(dict(path=f"{i}.png", domain="orl", label=i % 2))
    (root / "broken.png").write_bytes(b"no image")
    backdrop((256, 256), rng("nobody")).save(root / "nobody.png")
    rows += [dict(path="broken.png", domain="orl", label=0), dict(path="nobody.png", domain="orl", label=1)]
    tiny_bundle(root / "bundle", slope=2.0)
    table = pd.DataFrame(rows)
    table.attrs["root"] = str(root)
    return root, table, *open_net(root / "bundle")


def test_scores_know_no_label(shelf):
    _, rows, net, bundle = shelf
    swapped = rows.assign(label=1 - rows.label)
    swapped.attrs = rows.attrs
    names = ["messenger copy", "padded", "turned"]
    one, other = (scene_scores(net, bundle, some, names, seed=3) for some in (rows, swapped))
    pd.testing.assert_series_equal(one.p_fake, other.p_fake)
    assert (one.label == 1 - other.label).all()


def test_no_face_is_unsure_and_a_broken_file_has_no_row(shelf):
    _, rows, net, bundle = shelf
    pred = scene_scores(net, bundle, rows, ["padded"])
    assert "broken.png" not in set(pred.path) and pred.path.nunique() == 5
    nobody = pred[pred.path == "nobody.png"]
    assert nobody.p_fake.isna().all() and (nobody.word == "unsure").all()
    heads = pred[pred.path != "nobody.png"]
    assert heads.p_fake.notna().all()
    assert scene_table(pred).query("domain == 'orl' and scene == 'padded'").unscored.item() == 1 / 5


def test_a_turned_head_scores_as_the_same_square_of_the_upright_one(shelf):
    "The finder brings it upright: the network sees nearly what FFHQ's square around the upright head shows."
    root, rows, net, bundle = shelf
    pred = scene_scores(net, bundle, rows.iloc[:4], ["turned"], seed=1).query("scene == 'turned'")
    for path, p in zip(pred.path, pred.p_fake):
        image = open_image(root / path)
        square = ffhq_square(find_faces(image)[0])
        upright = eval_views(cut_square(image, square, 2 * net.spec.size), net.spec)
        assert p == pytest.approx(p_fake(net(upright)[None])[0], abs=0.02)


def test_words_are_those_that_the_detector_gives_to_the_same_file(shelf):
    "Every scene's file, judged by `Detector` as anyone's file: the same score and the same word."
    root, rows, net, bundle = shelf
    some = rows.iloc[:4]
    pred = scene_scores(net, bundle, some, seed=5).set_index(["path", "scene"])
    detector = Detector.load(root / "bundle")
    for path in some["path"]:
        files = {UNTOUCHED: root / path}
        for name in SCENES:
            files[name] = scene_file(name, open_image(root / path), rng(5, "scene", name, path)).data
        for name, file in files.items():
            verdict = detector.check(file, framing="face")
            ours = pred.loc[(path, name)]
            assert verdict.label == ours.word and bool(verdict.reason) != ours.earned, (path, name)
            np.testing.assert_allclose(verdict.p_fake, ours.p_fake, rtol=1e-6)
    assert set(pred.word) >= {"unsure", "real"}, "more than one word is compared"


def test_a_file_scores_as_its_bytes(shelf):
    root, _, net, bundle = shelf
    ours, theirs = (file_score(net, file, bundle.limits) for file in (root / "0.png", (root / "0.png").read_bytes()))
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert ours.reason == theirs.reason


def test_figure_marks_what_changed():
    table = scene_table(made_up())
    means = table[table.domain == "macro"]
    drawn = plot_scenes(table).axes[0].lines[-1]
    np.testing.assert_allclose(drawn.get_xdata(), means.changed)
