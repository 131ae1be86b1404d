"""No line of the CUDA path needs a GPU to be found wrong: a linter for tensors that are made without a device, the
training step and the scoring on fake tensors that say "cuda", and what the GPU workflow asks of the stages."""

import ast
import contextlib
import csv
import itertools
import math
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from fakeface.augment.batches import BatchPart
from fakeface.augment.policies import policy_of
from fakeface.testing.datasets import TOY_TRAINING, toy_manifest
from fakeface.train import trainer as trainer_module
from fakeface.models.network import build_model
from fakeface.train.engine import Engine, activation_bytes, score
from fakeface.train.recipe import PRESETS, train_config
from fakeface.train.resume import restore_trainer, save_trainer
from fakeface.train.times import PEAK_SHARE
from fakeface.train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
ON_DEVICE = ("train", "evaluate", "explain", "augment")
FACTORIES = set("zeros ones empty full arange linspace eye rand randn randint randperm tensor as_tensor".split())
# made on the CPU on purpose: where the tensor goes is said in the second part
ON_CPU = {
    "augment/batches.py:_for_channels": "a buffer, which moves with its module",
    "augment/mixup.py:mixup_draw": "a few numbers, moved by the trainer",
    "evaluate/predict.py:one_row_a_form": "row numbers, which stay with the loader's",
    "explain/averages.py:_first_views": "moved by the batch in `_sum_cams` and `_test_sanity`",
}


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def is_moved(call, parents):
    "Is `.to(…)` called on what the call gives, perhaps after other methods?"
    node = parents.get(call)
    while isinstance(node, ast.Attribute) and isinstance(parents.get(node), ast.Call):
        if node.attr == "to":
            return True
        node = parents.get(parents[node])
    return False


def without_device(text):
    "(function, line) of each tensor that is made without `device=` and not moved at once."
    tree = ast.parse(text)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        is_made = name.removeprefix("torch.") in FACTORIES | {"from_numpy"} and name.startswith("torch.")
        if not is_made or any(keyword.arg == "device" for keyword in call.keywords) or is_moved(call, parents):
            continue
        node = call
        while node is not None and not isinstance(node, ast.FunctionDef):
            node = parents.get(node)
        yield (node.name if node else "", call.lineno)


def test_the_linter_finds_what_it_should():
    assert list(without_device("def f(d):\n    return torch.zeros(3)\n")) == [("f", 2)]
    fine = "def f(d, a):\n    return torch.zeros(3, device=d), torch.from_numpy(a).float().to(d), np.zeros(3)\n"
    assert not list(without_device(fine))


def test_tensors_are_made_on_their_device():
    found = set()
    for chapter in ON_DEVICE:
        for path in sorted((ROOT / "fakeface" / chapter).glob("*.py")):
            for name, line in without_device(path.read_text(encoding="utf-8")):
                place = f"{chapter}/{path.name}:{name}"
                assert place in ON_CPU, f"{place}, line {line}: give device=, or move the tensor at once with .to()"
                found.add(place)
    assert found == set(ON_CPU), "what is no longer made on the CPU leaves the list"


# ---- fake tensors: they have a device and a shape and no content; two devices in one operation are an error
@pytest.fixture
def fake_gpu(monkeypatch):
    "Tensors within are fake; a network made by the fixture is on a GPU that is not there."

    def numpy(tensor):
        assert tensor.device.type == "cpu", "numpy() of a tensor on the GPU"
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    with FakeTensorMode(), monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "numpy", numpy)

        def network():
            with torch.device("cuda"):
                return build_model("test_resnet", weights=None, size=32)

        yield network


def stand_in(cfg, model, policy, tmp_path):
    "A trainer whose accelerator says that it is a GPU."
    accelerator = SimpleNamespace(
        device=torch.device("cuda"),
        process_index=0,
        num_processes=1,
        no_sync=lambda module: contextlib.nullcontext(),
        # autograd asks for the GPU itself; gradients lie where the weights do
        backward=lambda loss: None,
    )
    fields = dict.fromkeys(("validator", "quarantine"))
    return Trainer(
        **fields,
        cfg=cfg,
        folder=tmp_path,
        accelerator=accelerator,
        engine=Engine("fp32", True),
        model=model,
        wrapped=model,
        # the fused form has no fake
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False),
        # a copy of fake tensors is of another mode
        ema=None,
        prepare=BatchPart(model.spec, policy).to("cuda"),
        data=SimpleNamespace(steps=10),
        data_hash="",
        parent="",
    )


def one_batch(count=4, side=32):
    x = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    return dict(x=x, y=torch.zeros(count, dtype=torch.int64), row=torch.arange(count))


@pytest.mark.parametrize("mixup", (0.0, 0.2))
@pytest.mark.parametrize("pairs", (0.0, 0.1))
def test_a_training_step_mixes_no_devices(fake_gpu, tmp_path, monkeypatch, mixup, pairs):
    cfg = train_config("finetune", mixup=mixup, pairs=pairs, optimizer="sgd", size=32, init="none")
    policy = policy_of("strong", "finetune", 32, False)
    # torch makes no generator for a GPU that is not there; the rest of the noise is as it is
    cpu_generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: cpu_generator())
    monkeypatch.setattr(torch, "randn", lambda shape, generator, device: torch.zeros(shape, device=device))
    trainer = stand_in(cfg, fake_gpu(), policy, tmp_path)
    batch = one_batch()
    batch["x"] = batch["x"].repeat(cfg.views, 1, 1, 1)
    batch["row"] = SimpleNamespace(tolist=lambda: [0] * 4)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    images = batch["x"].to("cuda")
    assert trainer.prepare(images, seed=1, training=True).device.type == "cuda"
    trainer.train_step([batch])
    assert trainer.pending.value.device.type == "cuda" and trainer.progress.step == 1


def test_scoring_mixes_no_devices(fake_gpu):
    model = fake_gpu()
    prepare = BatchPart(model.spec)
    with pytest.raises(Exception, match="same device"):
        score(model, [one_batch()], prepare)
    _, logits = score(model, [one_batch()], prepare.to("cuda"), Engine(channels_last=True), flip=True)
    assert logits.shape == (4, 2)


def test_word_limits_are_measured_where_the_network_is(fake_gpu, monkeypatch):
    "The last thing that a run does before its bundle; on a GPU it ended with two devices in one operation."
    from fakeface.train import word_limits

    model = fake_gpu()
    monkeypatch.setattr(word_limits, "make_loader", lambda *_, **__: [one_batch()])
    monkeypatch.setattr(word_limits, "ChangedRows", lambda *_: None)
    numbers, logits = word_limits._scores(model, [0] * 4, model.spec, lambda image: image)
    assert len(numbers) == len(logits) == 4


def test_averages_of_maps_are_made_where_the_network_is(fake_gpu, monkeypatch):
    from fakeface.explain import averages

    monkeypatch.setattr(averages, "sample_rows", lambda rows, *_: rows)
    views = [(i, torch.zeros(1, 3, 32, 32)) for i in range(3)]
    monkeypatch.setattr(averages, "_first_views", lambda *_, **__: iter(views))
    seen = []
    monkeypatch.setattr(averages, "sanity", lambda model, x, seed: seen.append(x.device.type) or [])
    rows = pd.DataFrame(dict(domain=["a"] * 3, label=[0, 1, 1]))
    averages._test_sanity(fake_gpu(), rows, 4, 0)
    assert seen == ["cuda"]


# ---- float16 with its scaler, which Accelerate gives to GPUs only: autocast and scaler of the CPU stand for theirs
@pytest.fixture
def half(monkeypatch):
    "Trainings in float16 on the CPU."
    usual = trainer_module.fresh_accelerator

    def accelerator(cfg, precision):
        made = usual(cfg, "fp32")
        made.state._mixed_precision = "fp16"
        made.native_amp = True
        made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
        return made

    monkeypatch.setattr(trainer_module, "fresh_accelerator", accelerator)


def steps_of(cfg, manifest, folder, count):
    trainer = trainer_module.start_training(cfg, manifest, folder, Engine("fp32", accumulate=cfg.accumulate))
    trainer.wrapped.train()
    batches = iter(trainer.data.loader)
    for _ in range(count):
        trainer.train_step(list(itertools.islice(batches, cfg.accumulate)))
    return trainer


def test_scaled_gradients_are_clipped_and_accumulated_as_float32_ones_are(half, tmp_path, monkeypatch):
    "A clip of the scaled gradient would make a step a thousandth as long; two pieces must be one step."
    manifest = toy_manifest(tmp_path / "data")
    options = TOY_TRAINING | dict(optimizer="sgd", lr=0.1, momentum=0.0, accumulate=2, clip=0.1)
    options |= dict(warmup=0.0, weight_decay=0.0)
    cfg = train_config("finetune", **options)
    in_half = steps_of(cfg, manifest, tmp_path / "half", 1)
    half_weights = {name: tensor.detach().clone() for name, tensor in in_half.model.named_parameters()}
    assert in_half.wrapped(torch.zeros(2, 3, 32, 32)).dtype == torch.float32, "logits come back in float32"
    monkeypatch.undo()
    start = trainer_module.start_training(cfg, manifest, tmp_path / "start").model
    before = {name: tensor.detach() for name, tensor in start.named_parameters()}
    single = steps_of(cfg, manifest, tmp_path / "single", 1).model
    single = {name: tensor.detach() for name, tensor in single.named_parameters()}
    length = sum(float((single[name] - before[name]).square().sum()) for name in single) ** 0.5
    apart = sum(float((single[name] - half_weights[name]).square().sum()) for name in single) ** 0.5
    assert length == pytest.approx(0.1 * 0.1, rel=0.01), "learning rate times clip"
    assert apart < 0.1 * length, "but for float16's rounding"


def test_a_step_that_overflows_is_left_out_and_the_scale_goes_on_after_a_stop(half, tmp_path):
    manifest = toy_manifest(tmp_path / "data")
    cfg = train_config("finetune", **TOY_TRAINING | dict(clip=1.0))
    trainer = steps_of(cfg, manifest, tmp_path / "run", 1)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    scaler = trainer.accelerator.scaler
    scaler.update(2.0**100)
    trainer.train_step([next(iter(trainer.data.loader))])
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.named_parameters())
    assert scaler.get_scale() == 2.0**99, "halved, and the step is not taken"
    save_trainer(trainer)
    again = trainer_module.start_training(cfg, manifest, tmp_path / "run", trainer.engine)
    restore_trainer(again)
    assert again.accelerator.scaler.get_scale() == 2.0**99


# ---- memory
@pytest.mark.parametrize("stage", ("pretrain", "finetune"))
def test_the_default_runs_fit_a_card_of_16_gb(stage):
    "Activations of ResNet-50 in half precision, 4 copies of the images, 5 of the weights; 1 GiB is the context."
    cfg = train_config(stage)
    model = build_model("resnet50", weights=None, size=224).train()
    of_two, of_four = (activation_bytes(model, torch.zeros(n, 3, 224, 224), torch.bfloat16) for n in (2, 4))
    # without the weights in two bytes, which autocast makes once for all images
    kept = 2 * of_four - of_two
    scale = (cfg.size / 224) ** 2
    images = 4 * 3 * cfg.size**2 * 4
    weights = 5 * 4 * sum(parameter.numel() for parameter in model.parameters())
    total = cfg.micro_batch * (kept * scale + images) + weights
    assert 5e9 < total < 16e9 - 2**30, f"{total / 1e9:.1f} GB"


# ---- the workflow on a GPU runner
@pytest.fixture(scope="module")
def workflow():
    # YAML reads the key `on` as true
    loaded = yaml.safe_load((ROOT / ".github/workflows/gpu.yml").read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in loaded.items()}


def commands(workflow):
    "Every papermill command of the workflow: (notebook, its parameters)."
    for step in workflow["jobs"]["gpu"]["steps"]:
        for line in step.get("run", "").splitlines():
            words = shlex.split(line.split("</dev/null")[0])
            if words[:1] == ["papermill"]:
                given = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "-p"]
                yield Path(words[1]).stem, dict(given)


def test_the_workflow_asks_for_what_is_there(workflow):
    triggers = workflow["on"]
    assert "schedule" not in triggers, "a schedule fails every week where there is no runner"
    assert "concurrency" in workflow
    uses = [step["uses"] for step in workflow["jobs"]["gpu"]["steps"] if "uses" in step]
    assert any(name.startswith("actions/setup-python@") for name in uses)
    commits = dict(re.findall(r"uses: (\S+)@(\w+)", (ROOT / ".github/workflows/test.yml").read_text()))
    for name, commit in (name.split("@") for name in uses):
        assert commits.get(name, commit) == commit, f"test.yml uses {name}@{commits[name]}"


def test_the_stages_come_first_and_finetune_is_among_them(workflow):
    steps = [step.get("run", "") for step in workflow["jobs"]["gpu"]["steps"]]
    order = [next(iter(re.findall(r"run_(\w+)\.ipynb|(nbdev_test)", run)), ("", "")) for run in steps]
    names = [stage or test for stage, test in order if stage or test]
    assert names[:5] == ["prepare", "pretrain", "finetune", "evaluate", "report"]
    assert "nbdev_test" in names[5:]


def test_every_preset_is_an_input_that_can_be_trained(workflow):
    "The demo has no domain 140k: the domains have to be named, whatever the preset says."
    preset = workflow["on"]["workflow_dispatch"]["inputs"]["preset"]
    assert set(preset["options"]) <= set(PRESETS) and {"trueface", "fakeface", "demo"} <= set(preset["options"])
    trained = [(stage, given) for stage, given in commands(workflow) if stage in ("run_pretrain", "run_finetune")]
    assert len(trained) >= 3, "demo data with the preset, and ResNet-50 at 1024 px"
    for (notebook, given), name in itertools.product(trained, preset["options"]):
        inputs = {"$PRESET": name, "$EPOCHS": "2"}
        given = {key: inputs.get(value, value) for key, value in given.items()}
        values = {key: yaml.safe_load(value) if value else "" for key, value in given.items()}
        cfg = train_config(notebook.removeprefix("run_"), **values)
        assert cfg.domains == "", f"{notebook}: the demo's domains"
        assert cfg.epoch_len == 0 or cfg.epoch_len >= cfg.batch
    assert any(given.get("size") == "1024" and given.get("arch") == "resnet50" for _, given in trained)


def test_the_times_in_the_readme_are_those_of_the_run():
    "Each is computed; the table has a row for each row of the benchmark's file."
    with open(ROOT / "outputs/bench/times.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(rows) == 6 and f"{PEAK_SHARE:.0%} of each GPU's peak (an assumption)" in text
    for row in rows:
        per_second = min(float(row["gpu_per_s"]), float(row["loader_per_s"]))
        cells = [f"{row['stage']}, {row['pixels']} px", f"{row['gpu']}, {row['precision']}", f"{per_second:,.0f}"]
        cells += [str(math.ceil(float(row["cores_needed"]))), f"{float(row['hours']):.1f}"]
        assert f"| {' | '.join(cells)} |" in text, row
