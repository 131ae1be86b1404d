"""One framing for `prepare`, training and evaluation: what each of them shows a network, against independent ways.

The heads are photographs of the ORL face database (AT&T Laboratories Cambridge)."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from scipy import stats

import fakeface.augment.operations as operations
import fakeface.data.frames as frames
from fakeface.augment.draws import REDUCE_KERNELS, draw_steps
from fakeface.augment.policies import POLICY_NAMES, policy_of, strong
from fakeface.augment.samples import SamplePart
from fakeface.core.files import read_figures, read_json
from fakeface.core.seeds import rng
from fakeface.data.audit import audit
from fakeface.data.cache import decoded_cache
from fakeface.data.dataset import EvalDataset, FaceDataset
from fakeface.data.frames import FileFrame
from fakeface.data.gate import AuditError
from fakeface.data.harmonise import harmonise
from fakeface.data.loaders import make_loader
from fakeface.data.manifest import build_manifest, read_manifest
from fakeface.core.files import sha256_file
from fakeface.data.orl import demo_faces
from fakeface.data.prepare import PrepareConfig, build_dataset, collect_sources, index_images, write_prepared
from fakeface.data.sources import read_sources, scan_all
from fakeface.evaluate.mistakes import show_mistakes
from fakeface.evaluate.robustness import GridDataset
from fakeface.evaluate.stage import EvaluateConfig, evaluate
from fakeface.evaluate.unseen import extra_rows
from fakeface.explain.averages import _first_views, azimuthal, explain_predictions, mean_spectra, spectrum
from fakeface.faces.earned import NO_FACE
from fakeface.faces.frame import FRAMED_ANGLE, frame
from fakeface.faces.shown import Shown, shown_of
from fakeface.images.decode import open_image
from fakeface.images.jpeg import data_uri
from fakeface.images.preprocess import InputSpec, eval_views, normalise
from fakeface.images.twins import cloud
from fakeface.infer.detector import Detector
from fakeface.report.findings import collect_findings
from fakeface.report.maps import gallery
from fakeface.report.result_sections import gallery_sections
from fakeface.testing.datasets import toy_run

GREY = (125, 130, 140)


def scene(*heads, size=(640, 480)):
    "A grey image with heads in it: (photograph, width in pixels, left, top) of each."
    image = Image.new("RGB", size, GREY)
    for photograph, width, left, top in heads:
        image.paste(photograph.resize((width, width * 112 // 92), Image.Resampling.BICUBIC), (left, top))
    return image


def distance(image, other):
    "Root mean square of the differences in levels."
    first, second = np.asarray(image, float), np.asarray(other, float)
    return math.sqrt(((first - second) ** 2).mean())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "Images as they come, framed and not, small and of twelve megapixels, and one without a face; as a table."
    folder = tmp_path_factory.mktemp("as they come")
    first, second, third = demo_faces(3)
    images = {
        "framed.png": first.resize((460, 560), Image.Resampling.BICUBIC),
        "in a scene.png": scene((first, 200, 300, 120)),
        "two heads.png": scene((second, 150, 60, 100), (third, 230, 330, 120)),
        "twelve megapixels.jpg": scene((second, 1100, 1500, 700), size=(4000, 3000)),
        "small in twelve megapixels.jpg": scene((third, 300, 600, 500), size=(4000, 3000)),
        "nobody.png": scene(),
    }
    for name, image in images.items():
        image.save(folder / name, **dict(quality=92) if name.endswith("jpg") else {})
    table = pd.DataFrame(dict(path=list(images), domain="x", label=[0, 1] * 3, split="test"))
    table.attrs = dict(root=str(folder))
    return table


SPECS = [InputSpec(112), InputSpec(224, interpolation="lanczos"), InputSpec(384, "multicrop")]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.size} {spec.view}")
@pytest.mark.parametrize("framing", ["centre", "face"])
def test_evaluation_yields_what_is_shown(files, framing, spec):
    dataset = EvalDataset(files, spec, framing)
    for row, name in enumerate(files.path):
        sample = dataset[row]
        shown = shown_of(f"{files.attrs['root']}/{name}", spec, framing)
        if name == "nobody.png" and framing == "face":
            assert shown == [] and sample["x"] is None and sample["bad"] == [(row, name, NO_FACE)]
            continue
        assert sample["x"].dtype == np.uint8 and sample["x"].shape == (spec.n_views, 3, spec.size, spec.size)
        assert sample["x"].tobytes() == shown[0].views(spec).tobytes() and sample["bad"] == []


def test_loader_processes_yield_the_same(files):
    spec = SPECS[0]
    dataset = EvalDataset(files, spec, "face")
    here = [dataset[row]["x"] for row in range(len(files))]
    there = [sample["x"] for batch in make_loader(dataset, range(len(files)), 2, 2, list) for sample in batch]
    assert [x is None for x in here] == [x is None for x in there] == [False] * 5 + [True]
    assert all(x.tobytes() == y.tobytes() for x, y in zip(here[:5], there[:5]))


def test_shown_is_what_the_finder_and_the_decoder_say(files):
    "The same views by hand: small files in full, large ones as the decoder reduces them; the largest face framed."
    spec = InputSpec(112)
    centre, face = EvalDataset(files, spec), EvalDataset(files, spec, "face")
    for row, name in enumerate(files.path[:5]):
        image = open_image(f"{files.attrs['root']}/{name}", reduce=720)
        assert (min(image.size) == 750) == name.endswith("jpg"), "a quarter of 3,000"
        assert np.array_equal(centre[row]["x"], eval_views(image, spec))
        head = frame(image, "face", max_side=224)[0].image
        assert name.startswith("small") or np.array_equal(face[row]["x"], eval_views(head, spec))
    views = [face[row]["x"] for row in range(5)]
    assert np.array_equal(views[0], centre[0]["x"]), "framed already"
    assert not any(np.array_equal(views[row], centre[row]["x"]) for row in range(1, 5))


@pytest.mark.parametrize("framing", ["centre", "face"])
def test_a_detector_scores_the_bytes_that_evaluation_scores(files, framing, monkeypatch):
    detector = Detector.load()
    spec = detector.bundle.spec
    scored = []

    def noting(shown, spec, true=Shown.views):
        scored.append(true(shown, spec))
        return scored[-1]

    evaluated = [sample["x"] for sample in map(EvalDataset(files, spec, framing).__getitem__, range(len(files)))]
    monkeypatch.setattr(Shown, "views", noting)
    for name, views in zip(files.path, evaluated):
        scored.clear()
        verdict = detector.check(f"{files.attrs['root']}/{name}", framing=framing)
        if views is None:
            assert not scored and verdict.reason == NO_FACE
            continue
        assert len(scored) == 1 and scored[0].tobytes() == views.tobytes()
        assert verdict.p_fake == pytest.approx(detector.scores(views)[0], abs=1e-6)


def test_grid_and_heat_maps_see_what_evaluation_sees(files):
    spec, framing = Detector.load().bundle.spec, "face"
    evaluated = EvalDataset(files, spec, framing)
    grid = GridDataset(files, spec, ["none"], framing=framing)
    looked_at = dict(_first_views(files, spec, framing=framing))
    for row in range(len(files)):
        views = evaluated[row]["x"]
        assert (views is None) == (grid[row]["x"] is None) == (row not in looked_at)
        if views is not None:
            assert np.array_equal(grid[row]["x"], views)
            assert np.array_equal(looked_at[row].numpy(), normalise(views[:1], spec))


def test_spectra_are_of_what_evaluation_sees(files):
    spec, side = InputSpec(112), 64
    curves, _ = mean_spectra(files, side, threads=1, framing="face", spec=spec)
    evaluated = EvalDataset(files, spec, "face")
    for label, name in enumerate(("real", "fake")):
        views = [evaluated[row]["x"] for row in np.flatnonzero(files["label"] == label)]
        seen = [Image.fromarray(x[0].transpose(1, 2, 0)) for x in views if x is not None]
        expected = np.mean([azimuthal(spectrum(image, side))[1] for image in seen], 0)
        assert curves["x"][name]["n"] == len(seen) and np.allclose(curves["x"][name]["db"], expected)


def test_mistakes_are_shown_as_they_were_judged(files):
    root = files.attrs["root"]
    hashes = [sha256_file(f"{root}/{name}") for name in files["path"][:5]]
    pred = files[:5].assign(p_fake=[0.9, 0.1] * 2 + [0.9], may_show=True, file_sha256=hashes)
    squares = [shown_of(f"{root}/{name}", InputSpec(), "face")[0].image for name in pred["path"]]
    thumbnails = gallery(pred, root, framing="face").items
    assert [item.src for item in thumbnails] == [data_uri(square, 112) for square in squares]
    figure = show_mistakes(pred, root, 0.5, framing="face")
    drawn = [image.get_array() for ax in figure.axes for image in ax.get_images()]
    assert len(drawn) == 5
    assert sorted(map(np.sum, drawn)) == sorted(np.sum(np.asarray(square)) for square in squares)
    whole = gallery(pred, root).items
    assert whole[0].src == thumbnails[0].src, "framed already"
    assert not any(item.src == other.src for item, other in zip(whole[1:], thumbnails[1:]))


def test_the_stage_counts_what_shows_no_face(tmp_path, root):
    heads = [*demo_faces(6), None]
    for i, head in enumerate(heads):
        for name, left in (("real", 100), ("fake", 300)):
            image = scene((head, 200 + i, left, 100)) if head else scene(size=(640, 480 + left))
            (tmp_path / "set/test" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "set/test" / name / f"{i}.png")
    folder = tmp_path / "run/prepare"
    folder.mkdir(parents=True)
    cfg = PrepareConfig(sources=str(tmp_path / "set"), workers=0)
    found = index_images(cfg, collect_sources(cfg, folder), folder)
    write_prepared(cfg, found, build_dataset(cfg, found, folder), folder)
    bundle = str(root / "outputs/models/fakeface-lite0")
    asked = EvaluateConfig(run="run", out=str(tmp_path), bundle=bundle, workers=1)
    whole = evaluate(asked, lambda images, desc: images)
    assert (whole["framing"], whole["missing"]) == ("centre", 0)
    assert len(pd.read_parquet(tmp_path / "run/evaluate/predictions.parquet")) == 14
    metrics = evaluate(replace(asked, framing="face", overwrite=True), lambda images, desc: images)
    assert (metrics["framing"], metrics["missing"], metrics["quarantined"]) == ("face", 2, 0)
    missing = pd.read_csv(tmp_path / "run/evaluate/missing.csv")
    assert set(missing.reason) == {NO_FACE} and missing.path.str.contains("/6__").all() and len(missing) == 2
    assert len(pd.read_parquet(tmp_path / "run/evaluate/predictions.parquet")) == 12
    # the grid of corruptions sees the same squares
    asked = replace(asked, framing="face", overwrite=True, robustness=True, grid_n=0)
    metrics = evaluate(asked, lambda images, desc="": images, also=[explain_predictions])
    headline = metrics["result"]["macro"]
    figures = read_figures(tmp_path / "run/evaluate/robustness.csv").query("corruption == 'none' and domain == 'macro'")
    assert figures["auc"].item() == pytest.approx(headline["auc"]["value"])
    assert figures["accuracy"].item() == pytest.approx(headline["accuracy"]["value"])
    # so do the spectra, and the images that the report shows
    pred = pd.read_parquet(tmp_path / "run/evaluate/predictions.parquet")
    pred.attrs = dict(root=str(folder))
    spec = Detector.load().bundle.spec
    spectra, _ = mean_spectra(pred, threads=1, framing="face", spec=spec)
    assert read_json(tmp_path / "run/evaluate/why.json")["spectra"]["set"]["gap"] == pytest.approx(
        spectra["set"]["gap"]
    )
    facts = collect_findings(tmp_path / "run")
    nearest = gallery_sections(replace(facts, pred=facts.pred.assign(may_show=True)))[-1].items
    squares = [shown_of(folder / path, spec, "face")[0].image for path in pred["path"]]
    assert len(nearest) == 12 and {item.src for item in nearest} == {data_uri(square, 112) for square in squares}


def rows_of(folder, images, framing="face", domain="set"):
    "The images as files, and as rows of a source; every second is fake."
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (name, image) in enumerate(images.items()):
        image.save(folder / name)
        rows.append(dict(path=str(folder / name), domain=domain, label=i % 2, source=domain, framing=framing))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    "(manifest as found, manifest as built) of a source that is framed by faces."
    root = tmp_path_factory.mktemp("prepared")
    heads = demo_faces(9)
    images = {f"{i}.png": scene((head, 150 + 10 * i, 40 * i, 60)) for i, head in enumerate(heads[:6])}
    images["large file.png"] = scene((heads[6], 170, 500, 400), size=(1600, 1200))
    images["two.png"] = scene((heads[7], 120, 20, 40), (heads[8], 220, 350, 100))
    # its middle square is smaller than any square that is cut out
    images["framed.png"] = heads[7].resize((138, 168), Image.Resampling.BICUBIC)
    images["nobody.png"] = scene()
    found = build_manifest(rows_of(root / "files", images), root, workers=0)
    return found, harmonise(found, root / "built", workers=0, cache=root / "facts.sqlite")


def test_prepare_cuts_the_largest_face_and_says_what_it_left_out(prepared):
    found, built = prepared
    by_name = built.set_index(found.path.str.removeprefix("files/"))
    assert by_name.reason["nobody.png"] == NO_FACE and by_name.split["nobody.png"] == "excluded"
    assert by_name.faces["nobody.png"] == 0 and by_name.faces["two.png"] == 2
    used = by_name[by_name.split != "excluded"]
    assert len(used) == 9 and (used.faces.drop("two.png") == 1).all()
    assert (found.width >= 138).all() and found.faces.isna().all(), "the rows as found are of the files"
    assert set(zip(used.width, used.height)) == {(138, 138)}, "the smallest square, not the smallest file"
    for name, row in used.iterrows():
        made = open_image(f"{built.attrs['root']}/{row.path}")
        file = open_image(f"{found.attrs['root']}/files/{name}")
        by_hand = frame(file, "face", max_side=4096)[0].image
        shorter = min(by_hand.size)
        left, top = (by_hand.width - shorter) // 2, (by_hand.height - shorter) // 2
        square = (left, top, left + shorter, top + shorter)
        middle = by_hand.crop(square).resize((138, 138), Image.Resampling.BICUBIC)
        assert distance(made, middle) < 6, name
        centre = file.resize((138, 138), Image.Resampling.BICUBIC)
        assert name == "framed.png" or distance(made, centre) > 20, "not the whole image"


def test_what_is_prepared_is_framed_already(prepared):
    "An image of a prepared set is shown alike with either framing."
    _, built = prepared
    used = built[built.split != "excluded"].reset_index(drop=True)
    used.attrs = built.attrs
    spec = InputSpec(112)
    centre, face = EvalDataset(used, spec), EvalDataset(used, spec, "face")
    alike = 0
    for row in range(len(used)):
        assert face[row]["x"] is not None, used.path[row]
        if face[row]["x"].tobytes() == centre[row]["x"].tobytes():
            alike += 1
            continue
        # turned by about as much as still counts as upright: the finder may say either
        shown = shown_of(f"{used.attrs['root']}/{used.path[row]}", spec)
        assert abs(abs(shown[0].angle) - FRAMED_ANGLE) < 2, used.path[row]
    assert alike >= len(used) - 1


def test_the_smallest_side_is_that_of_the_squares(tmp_path):
    head, other = demo_faces(2)
    images = {
        "small file.png": head.resize((368, 448)),
        "small head.png": scene((other, 130, 900, 500), size=(1600, 1200)),
    }
    manifest = build_manifest(rows_of(tmp_path / "files", images), tmp_path, workers=0)
    whole = harmonise(manifest.assign(framing="centre"), tmp_path / "whole", workers=0)
    framed = harmonise(manifest, tmp_path / "framed", workers=0)
    assert set(whole.width) == {368}, "the small file decides"
    assert 110 < framed.width.iloc[0] < 200 and framed.width.nunique() == 1, "the small head decides"
    assert framed.attrs["harmonised"]["shrunk"]["set"] != whole.attrs["harmonised"]["shrunk"]["set"]
    with pytest.raises(AuditError, match="1 × the square around its face is under 400 px") as raised:
        harmonise(manifest.assign(framing=["centre", "face"]), tmp_path / "none", workers=0, min_side=400)
    assert "1 × its shorter side is under 400 px" in str(raised.value)


def test_each_source_has_its_own_framing(tmp_path):
    heads = demo_faces(12)
    for i, head in enumerate(heads):
        for name, image in (("scenes", scene((head, 200, 300, 100))), ("heads", head.resize((230, 280)))):
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / f"{i}.png")
    (tmp_path / "sources.csv").write_text("name,kind,path,framing\nmix,real,scenes,face\nmix,fake,heads,\n")
    rows = scan_all(read_sources(tmp_path / "sources.csv"))
    manifest = build_manifest(rows, tmp_path, workers=0)
    assert manifest.groupby("framing").label.unique().map(list).to_dict() == {"centre": [1], "face": [0]}
    with pytest.raises(AuditError, match="parity = True leaves files as they are, but mix"):
        harmonise(manifest, tmp_path / "parity", parity=True)
    built = harmonise(manifest, tmp_path / "built", workers=0)
    assert built.faces[built.label == 0].eq(1).all() and built.faces[built.label == 1].isna().all()
    assert built.width.nunique() == 1 and audit(built).domains["mix"].verdict != "refuse"


def test_a_photograph_and_a_scene_of_it_are_in_one_split(tmp_path):
    "As originals and screenshots of them; what is cut out is the same square."
    generator = np.random.default_rng(0)
    heads = demo_faces(40)
    for number, head in enumerate(heads):
        folder = tmp_path / "photos" / ("real", "fake")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        head.resize((368, 448), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)
        patches = Image.fromarray(generator.integers(0, 255, (9, 12, 3), dtype=np.uint8))
        around = patches.resize((1200, 900), Image.Resampling.BICUBIC)
        width, left, top = generator.integers((220, 40, 40), (400, 700, 350))
        seen = ImageOps.mirror(head) if number % 4 > 1 else head
        around.paste(seen.resize((int(width), int(width) * 112 // 92), Image.Resampling.BICUBIC), (int(left), int(top)))
        around.save(folder / f"{number} seen.jpg", quality=85)
    cfg = PrepareConfig(run="mine", sources=str(tmp_path / "photos"), framing="face", workers=0)
    rows = collect_sources(cfg, tmp_path / "run/prepare")
    found = index_images(cfg, rows, tmp_path / "run/prepare")
    built = build_dataset(cfg, found, tmp_path / "run/prepare")
    person = found.path.str.extract(r"(\d+)(?: seen)?\.jpg$", expand=False)
    used = built[built.split != "excluded"]
    assert len(found) == 80 and len(used) > 70
    together = (found.groupby(person).group.nunique() == 1).sum()
    assert together >= 36, f"{together} of 40 photographs are known again in their scene"
    assert (person.groupby(found.group).nunique() == 1).all(), "of nobody else"
    assert (found.image == found.groupby("group").image.transform("first")).all(), "which is one image, not two"
    assert (used.groupby("group").split.nunique() == 1).all() and used.split.nunique() == 3
    assert build_manifest(rows, tmp_path, workers=0).group.nunique() == 80, "whole images do not look alike"


class Killed(BaseException):
    "Stands for the end of a process."


def test_looking_for_faces_goes_on_where_it_was(tmp_path, monkeypatch):
    images = {f"{i}.png": scene((head, 180 + i, 200, 100)) for i, head in enumerate(demo_faces(8))}
    manifest = build_manifest(rows_of(tmp_path / "files", images), tmp_path, workers=0)
    looked_at = []

    def dying(path, true=frames.file_frame):
        if len(looked_at) == 5:
            raise Killed
        looked_at.append(path)
        return true(path)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(frames, "file_frame", dying)
        harmonise(manifest, tmp_path / "killed", workers=0, cache=tmp_path / "facts.sqlite")
    before = set(looked_at)

    def counting(path, true=frames.file_frame):
        looked_at.append(path)
        return true(path)

    monkeypatch.setattr(frames, "file_frame", counting)
    killed = harmonise(manifest, tmp_path / "killed", workers=0, cache=tmp_path / "facts.sqlite")
    assert len(looked_at) == len(set(looked_at)) == 8 and len(before) == 5
    whole = harmonise(manifest, tmp_path / "whole", workers=0)
    assert killed.sha256.tolist() == whole.sha256.tolist()
    # squares that are found elsewhere would be cut from other places: such a folder is not gone on with
    monkeypatch.setattr(frames, "file_frame", lambda path: FileFrame(1, 300))
    with pytest.raises(AuditError, match="begun with other settings .side, framed differ"):
        harmonise(manifest, tmp_path / "whole", workers=0)


def test_processes_cut_the_same(tmp_path):
    heads = demo_faces(40)
    images = {f"{i}.png": scene((heads[i % 40], 150 + i, 200, 40), size=(480, 400)) for i in range(66)}
    manifest = build_manifest(rows_of(tmp_path / "files", images), tmp_path, workers=0)
    alone = harmonise(manifest, tmp_path / "alone", workers=0)
    together = harmonise(manifest, tmp_path / "together", workers=2)
    assert alone.sha256.tolist() == together.sha256.tolist() and alone.faces.equals(together.faces)


# random scale


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    "Training rows of two classes whose images are 96 px wide, and the size of the network that sees them."
    root = tmp_path_factory.mktemp("training")
    images = {f"{i}.jpg": cloud(i, 96) for i in range(12)}
    manifest = build_manifest(rows_of(root / "files", images, "centre"), root, workers=0)
    return manifest, 24


def parts(size, view="crop", **changes):
    "The sample part of the strong policy for a network that looks at its own scale."
    return SamplePart(strong("pretrain", size, **changes), InputSpec(size, view))


def test_scales_and_kernels_are_drawn_alike_for_both_classes(training, monkeypatch):
    rows, size = training
    dataset = FaceDataset(rows, parts(size), seed=7)
    drawn = defaultdict(list)
    now = []

    def noting(image, width, height, kernel, true=operations.reduce_image):
        assert image.size == (96, 96) and width == height <= 96, "nothing is enlarged"
        drawn[now[0]].append((width, kernel))
        return true(image, width, height, kernel)

    monkeypatch.setattr(operations, "reduce_image", noting)
    n = 1_200
    for draw in range(n):
        row = draw % len(rows)
        now[:] = [int(rows.label[row])]
        dataset[row, 0, draw]
    assert {label: len(steps) for label, steps in drawn.items()} == {0: n // 2, 1: n // 2}, "each sample, once"
    (real, real_kernels), (fake, fake_kernels) = (np.array(drawn[label]).T for label in (0, 1))
    assert stats.ks_2samp(real, fake).pvalue > 1e-3
    both = np.concatenate([real, fake])
    edges = np.geomspace(size, 96, 5)
    assert stats.chisquare(np.histogram(both, edges)[0]).pvalue > 1e-3, "uniform in the logarithm"
    assert both.min() == size and both.max() >= 95
    counts = [np.bincount(kernels, minlength=len(REDUCE_KERNELS)) for kernels in (real_kernels, fake_kernels)]
    assert stats.chisquare(sum(counts)).pvalue > 1e-3 and stats.chi2_contingency(counts).pvalue > 1e-3


def test_scale_depends_on_seed_epoch_and_draw_alone(training):
    rows, size = training
    asked = [(row, epoch, draw) for row in (0, 5) for epoch in (0, 3) for draw in (1, 2, 9)]
    first = FaceDataset(rows, parts(size), seed=7)
    again = FaceDataset(rows, parts(size), seed=7)
    pixels = {index: first[index]["x"].tobytes() for index in asked}
    assert {index: again[index]["x"].tobytes() for index in reversed(asked)} == pixels
    assert len(set(pixels.values())) == len(asked)
    other = FaceDataset(rows, parts(size), seed=8)
    assert other[asked[0]]["x"].tobytes() != pixels[asked[0]]


def test_an_image_of_the_networks_size_is_left_alone(training):
    "As in the demo: the same training samples as without a random scale."
    rows, _ = training
    plain = FaceDataset(rows, parts(96, "resize"), seed=7)
    policy = policy_of("strong", "pretrain", 96)
    assert policy.reduce_p == 1
    never = SamplePart(type(policy)(**{**vars(policy), "reduce_p": 0.0}), InputSpec(96))
    without = FaceDataset(rows, never, seed=7)
    assert all(np.array_equal(plain[row, 0, row]["x"], without[row, 0, row]["x"]) for row in range(len(rows)))


def test_a_frame_is_the_networks_scale(training):
    "A network that looks at a part of a framed image is trained at the scale of that frame, whatever was drawn."
    rows, size = training
    spec = InputSpec(size, "crop", frame=48)
    bare = dict(ops=0, flip=0.0, jitter_p=0.0, jpeg_p=0.0, blur_p=0.0)
    policy = type(strong())(**{**vars(strong("pretrain", size)), **bare})
    drawn = [draw_steps(policy, 96, 120, rng("frame", i), True, 48) for i in range(400)]
    sides = [plan[0][1] for plan in drawn]
    assert min(sides) == 48 and max(sides) >= 95, "from the frame to the image's own size"
    assert all(plan[-1][3:] == (size, size) for plan in drawn)
    assert all(max(plan[-1][1] + size - 48, plan[-1][2] + size - 60) <= 0 for plan in drawn), "within the frame"
    plain = type(policy)(**{**vars(policy), "reduce_p": 0.0})
    image = open_image(f"{rows.attrs['root']}/{rows.path[0]}")
    part = SamplePart(plain, spec)
    whole = np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC, reducing_gap=3)).transpose(2, 0, 1)
    places = np.lib.stride_tricks.sliding_window_view(whole, (3, size, size))[0].reshape(-1, 3, size, size)
    for i in range(20):
        assert (places == part(image, rng("part", i))).all((1, 2, 3)).any(), "a part of what evaluation frames"
    light = SamplePart(strong("pretrain", size), spec, light_epochs=1)
    seen = eval_views(image, spec)[0]
    assert {light(image, rng(i), 0).tobytes() for i in range(9)} == {seen.tobytes(), seen[..., ::-1].tobytes()}


def test_which_policies_draw_a_scale():
    drawn = {name: policy_of(name, "finetune", 64).reduce_p for name in POLICY_NAMES}
    assert drawn == dict(strong=1, light=0, mild=1, web=1, reframed=1)
    assert policy_of("strong", "finetune", 64, parity=True).reduce_p == 0, "as published"


def test_decoding_keeps_what_a_scale_is_drawn_from(training, tmp_path):
    rows, size = training
    part = parts(size, "resize")
    assert part.max_side == 2 * size < 96 and parts(size, "resize", parity=True).max_side < 2 * size
    cache = decoded_cache(rows, tmp_path / "cache", part.max_side, workers=0)
    stored = FaceDataset(rows, part, seed=7, cache=cache)
    opened = FaceDataset(rows, part, seed=7, max_side=part.max_side)
    assert stored.open(0).size == (2 * size, 2 * size)
    assert all(np.array_equal(stored[row, 1, row]["x"], opened[row, 1, row]["x"]) for row in range(len(rows)))


def test_a_photograph_in_several_scenes_of_an_extra_folder_is_one_image(tmp_path):
    "As in `prepare`: where squares are cut out around faces, scenes of one photograph are copies of each other."
    home = toy_run(tmp_path, "toy", count=4)
    manifest = read_manifest(home / "prepare/manifest.parquet")
    (tmp_path / "own/real").mkdir(parents=True)
    for number, head in enumerate(demo_faces(2)):
        for place in range(3):
            image = scene((head, 200 + 20 * place, 40 + 150 * place, 60 + 30 * number))
            image.save(tmp_path / f"own/real/{number}{place}.png")
    found = {}
    for framing in ("centre", "face"):
        rows, _ = extra_rows(f"own={tmp_path / 'own'}", manifest, home, 0, framing)
        found[framing] = (len(rows), rows.group.nunique(), rows.image.nunique())
    assert found == dict(centre=(6, 6, 6), face=(6, 2, 2))
