"""One process a stage's folder: with overwrite and resume too; who dies gives it free; nobody gets it twice."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, make_dataclass
from pathlib import Path

import pytest

from fakeface.core.locks import LOCK, give_lock, take_lock
from fakeface.core.project import FakefaceError
from fakeface.core.stages import Stage

HOLD = """
import sys, time
from dataclasses import make_dataclass
from fakeface.core.project import FakefaceError
from fakeface.core.stages import Stage
cfg = make_dataclass("Config", ["run", "out"])("first", sys.argv[1])
try:
    stage = Stage.begin("finetune", cfg, **{name: True for name in sys.argv[3:]})
except FakefaceError as error:
    print("refused:", error, flush=True)
    sys.exit(3)
print("begun", flush=True)
time.sleep(float(sys.argv[2]))
stage.finish()
"""


def other_process(out, seconds, *how):
    command = [sys.executable, "-c", HOLD, str(out), str(seconds), *how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def config(tmp_path):
    return make_dataclass("Config", ["run", "out"])("first", str(tmp_path))


@pytest.mark.parametrize("how", [[], ["overwrite"], ["resume"]], ids=["plainly", "overwrite", "resume"])
def test_a_second_run_is_told_who_was_first(tmp_path, config, how):
    first = other_process(tmp_path, 60)
    try:
        assert first.stdout.readline() == "begun\n"
        with pytest.raises(FakefaceError) as said:
            Stage.begin("finetune", config, **dict.fromkeys(how, True))
        assert f"process {first.pid} on" in str(said.value) and "since 2" in str(said.value)
        config_of_the_first = json.loads((tmp_path / "first/finetune/config.json").read_text())
        assert config_of_the_first["out"] == str(tmp_path)
    finally:
        first.kill()
        first.wait()


TAKE = """
import sys, time
from fakeface.core.locks import take_lock
take_lock(sys.argv[1])
print("taken", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [{}, dict(overwrite=True), dict(resume=True)], ids=["plainly", "overwrite", "resume"])
def test_a_round_that_is_being_trained_is_not_removed(tmp_path, how):
    "With overwrite, leaveout made the folder of a round anew that another process was training in."
    from fakeface.evaluate.leave_one_out import LeaveoutConfig, one_round
    from fakeface.testing.datasets import toy_run

    toy_run(tmp_path, "toy", count=8)
    kept = tmp_path / "toy-without-dots/finetune/checkpoint"
    kept.parent.mkdir(parents=True)
    kept.write_text("hours of work")
    command = [sys.executable, "-c", TAKE, str(tmp_path / "toy-without-dots/.lock")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "taken\n"
        with pytest.raises(FakefaceError, match=f"is being written by process {first.pid} on"):
            one_round(LeaveoutConfig(run="toy", out=str(tmp_path), **how), ["dots"])
        assert kept.read_text() == "hours of work"
    finally:
        first.kill()
        first.wait()


def test_who_is_killed_gives_the_folder_free_and_a_line_says_so(tmp_path, config, capsys):
    first = other_process(tmp_path, 60)
    assert first.stdout.readline() == "begun\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / "first/finetune/.lock").exists()
    stage = Stage.begin("finetune", config, resume=True)
    assert f"process {first.pid} on" in capsys.readouterr().out
    stage.finish()
    assert not (tmp_path / "first/finetune/.lock").exists()
    assert Stage.state(stage.dir) == "finished"


def test_who_looks_through_its_own_folder_keeps_it(config):
    "A lock of POSIX ends when its holder opens and closes the file a second time."
    stage = Stage.begin("finetune", config)
    for path in stage.dir.rglob("*"):
        path.read_bytes()
    second = other_process(config.out, 0, "resume")
    assert f"process {os.getpid()} on" in second.communicate(timeout=60)[0] and second.returncode == 3
    stage.finish()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_keep_the_folder_of_one_that_was_killed(tmp_path, config):
    # the worker itself says that it runs; two that print would mix their digits
    told = "import os; child = os.fork(); child or print(os.getpid(), flush=True); time.sleep"
    forking = HOLD.replace("time.sleep", told)
    first = subprocess.Popen([sys.executable, "-c", forking, str(tmp_path), "60"], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "begun\n"
    child = int(first.stdout.readline())
    try:
        first.kill()
        first.wait()
        os.kill(child, 0)
        Stage.begin("finetune", config, resume=True).finish()
    finally:
        os.kill(child, signal.SIGKILL)


def test_of_many_at_once_one_gets_it(tmp_path):
    runs = [other_process(tmp_path, 3, "resume") for _ in range(6)]
    words = [run.communicate(timeout=60)[0].split()[0] for run in runs]
    # who comes late may find it finished; nobody else may be in it
    assert words.count("begun") == 1 and words.count("refused:") == 5


def test_a_cell_that_is_run_again_is_the_same_process(config):
    Stage.begin("prepare", config)
    again = Stage.begin("prepare", config, resume=True)
    (again.dir / "half.csv").touch()
    made_anew = Stage.begin("prepare", config, overwrite=True)
    assert not (made_anew.dir / "half.csv").exists() and (made_anew.dir / ".lock").exists()
    made_anew.finish()


def test_a_refusal_leaves_no_lock(config):
    Stage.begin("prepare", config).finish()
    with pytest.raises(FakefaceError, match="is finished"):
        Stage.begin("prepare", config)
    assert not (Path(config.out) / "first/prepare/.lock").exists()


def test_a_lock_that_finds_no_room_can_be_taken_when_there_is(tmp_path, monkeypatch):
    "By the same process, as in JupyterLab: it was told that another process has the folder."

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "write", full)
        take_lock(tmp_path / LOCK)
    assert not list(tmp_path.iterdir())
    assert take_lock(tmp_path / LOCK) is None
    give_lock(tmp_path / LOCK)


def test_a_lock_of_another_machine_is_believed(config):
    folder = Path(config.out) / "first/prepare"
    folder.mkdir(parents=True)
    (folder / ".lock").write_text(json.dumps(dict(pid=os.getpid(), host="elsewhere", since="2026-01-01")))
    with pytest.raises(FakefaceError, match="on elsewhere, since 2026-01-01.*remove .*lock"):
        Stage.begin("prepare", config)


def test_what_a_lock_s_link_leads_to_stays_as_it_is(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    (tmp_path / ".lock").symlink_to(diary)
    with pytest.raises(FakefaceError, match="is a link; a lock is a file of its own"):
        take_lock(tmp_path / ".lock")
    assert diary.read_text() == "dear diary"


def test_no_file_is_written_that_has_another_name(config, tmp_path):
    "An archive may hold a second name of a file that lies where it is unpacked, and tar makes it without a word."
    import pandas as pd

    from fakeface.data.cache import decoded_cache
    from fakeface.images.facts import file_infos

    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    run = Path(config.out) / "first"
    (run / "report").mkdir(parents=True)
    (run / "cache-64").mkdir()
    rows = pd.DataFrame(dict(sha256=["0" * 64], width=[8], height=[8]))
    for name, writes in (
        ("report/.lock", lambda: Stage.begin("report", config)),
        (".facts.sqlite-wal", lambda: file_infos([], run / ".facts.sqlite")),
        ("cache-64/pixels.u8", lambda: decoded_cache(rows, run / "cache-64", 64)),
    ):
        os.link(diary, run / name)
        with pytest.raises(FakefaceError, match=f"{name} has another name in another place"):
            writes()
        (run / name).unlink()
    os.link(diary, run / ".facts.sqlite")
    with pytest.raises(FakefaceError, match="cannot be used .file is not a database"):
        file_infos([], run / ".facts.sqlite")
    assert diary.read_text() == "dear diary"


def test_a_run_that_was_copied_by_hard_links_has_a_cache_of_its_own(tmp_path):
    from fakeface.images.facts import file_infos
    from fakeface.testing.images import write_noise_image

    image, cache = tmp_path / "a.png", tmp_path / "run/.facts.sqlite"
    write_noise_image(image, 100)
    file_infos([], cache)
    os.link(cache, tmp_path / "backup.sqlite")
    before = cache.read_bytes()
    file_infos([image], cache)
    assert (tmp_path / "backup.sqlite").read_bytes() == before != cache.read_bytes()


WAYS = ({}, {"overwrite": True}, {"resume": True})


@pytest.mark.parametrize("way", WAYS, ids=["plainly", "overwrite", "resume"])
@pytest.mark.parametrize("link", ["", ".lock", ".before.part", "bundle", "parts/1", "notebook.ipynb"])
def test_no_stage_is_written_through_a_link(config, tmp_path, link, way):
    "In a run that was unpacked it may lead to anybody's documents."
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    folder = Path(config.out) / "first/report"
    path = folder / link
    path.parent.mkdir(parents=True)
    is_file = path.name.startswith((".lock", "notebook"))
    path.symlink_to(documents / "thesis.txt" if is_file else documents)
    if link:
        (folder / "stage.json").write_text('{"state": "running"}')
    with pytest.raises(FakefaceError, match="is a link; no stage reads or writes through one"):
        Stage.begin("report", config, **way)
    assert [file.read_text() for file in documents.iterdir()] == ["years of work"]


def test_nor_is_what_a_run_remembers(tmp_path):
    import pandas as pd

    from fakeface.data.cache import decoded_cache
    from fakeface.images.facts import file_infos

    (tmp_path / "cache-64").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(FakefaceError, match="cache-64 is a link"):
        decoded_cache(pd.DataFrame(dict(sha256=["0" * 64], width=[8], height=[8])), tmp_path / "cache-64", 64)
    (tmp_path / ".facts.sqlite").symlink_to("cookies.sqlite")
    with pytest.raises(FakefaceError, match="facts.sqlite is a link"):
        file_infos([], tmp_path / ".facts.sqlite")
    assert sorted(os.listdir(tmp_path)) == [".facts.sqlite", "cache-64"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
@pytest.mark.parametrize("name", ["evaluate/env.json", "evaluate/deep/er", "test_reads.json", "report.ipynb"])
def test_a_run_with_a_pipe_in_it_is_not_waited_for(config, tmp_path, name):
    from fakeface.core.files import read_json, sha256_file
    from fakeface.report.findings import collect_findings

    path = tmp_path / "first" / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    for waits in (collect_findings, lambda run: Stage.begin("report", config)):
        with pytest.raises(FakefaceError, match="neither a file nor a folder"):
            waits(tmp_path / "first")
    for read in (read_json, sha256_file):
        with pytest.raises(FakefaceError, match="neither a file nor a folder"):
            read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_an_image_that_is_a_pipe_is_not_waited_for(tmp_path):
    from fakeface.data.manifest import compare_files
    from fakeface.testing.datasets import toy_manifest

    rows = toy_manifest(tmp_path, count=4)
    image = tmp_path / rows.path[0]
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(FakefaceError, match="neither a file nor a folder"):
        compare_files(rows)


def test_a_round_is_not_written_through_links(tmp_path):
    from fakeface.evaluate.leave_one_out import LeaveoutConfig, one_round, share_prepared
    from fakeface.testing.datasets import toy_run

    home = toy_run(tmp_path, "theirs", count=4)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    new = tmp_path / "theirs-without-stripes"
    (new / "prepare").mkdir(parents=True)
    (new / "prepare/audit.json").symlink_to(thesis)
    cfg = LeaveoutConfig(run="theirs", out=str(tmp_path), groups="stripes", resume=True)
    with pytest.raises(FakefaceError, match="audit.json is a link"):
        one_round(cfg, ["stripes"])
    share_prepared(home, new)
    assert thesis.read_text() == "years of work" and not (new / "prepare/audit.json").is_symlink()


def test_a_run_of_somebody_else_does_not_choose_what_its_rounds_replay(tmp_path):
    from fakeface.core.files import write_json
    from fakeface.core.project import ConfigError
    from fakeface.evaluate.leave_one_out import LeaveoutConfig, one_round
    from fakeface.testing.datasets import TOY_TRAINING, toy_run
    from fakeface.train.recipe import train_config

    mine = toy_run(tmp_path, "mine", count=4)
    theirs = toy_run(tmp_path, "theirs", count=4)
    for home, replay in ((theirs, str(mine)), (mine, "")):
        settings = TOY_TRAINING | dict(run=home.name, out=str(tmp_path), replay=replay)
        (home / "finetune").mkdir()
        write_json(home / "finetune/config.json", asdict(train_config("finetune", **settings)))
    with pytest.raises(ConfigError, match="trained with replay = .*mine.*-p replay with the same value"):
        one_round(LeaveoutConfig(run="theirs", out=str(tmp_path)), ["stripes"])
    with pytest.raises(ConfigError, match="the run mine was trained without"):
        one_round(LeaveoutConfig(run="mine", out=str(tmp_path), replay=str(theirs)), ["stripes"])
    assert not list(tmp_path.glob("*-without-*/finetune"))


def test_what_was_being_moved_is_not_moved_out_of_a_folder_that_a_link_leads_to(tmp_path):
    from fakeface.evaluate.leave_one_out import LeaveoutConfig, one_round
    from fakeface.testing.datasets import toy_run

    toy_run(tmp_path, "theirs", count=4)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/thesis.txt").write_text("years of work")
    (tmp_path / "theirs-without-stripes").mkdir()
    (tmp_path / "theirs-without-stripes/.before.part").symlink_to(tmp_path / "documents")
    with pytest.raises(FakefaceError, match="before.part is a link"):
        one_round(LeaveoutConfig(run="theirs", out=str(tmp_path), groups="stripes"), ["stripes"])
    assert (tmp_path / "documents/thesis.txt").read_text() == "years of work"


def test_to_ask_whether_a_round_is_being_made_changes_nothing_where_its_link_leads(config):
    "`prepare` asks that of every folder that is called like a round of its run."
    Stage.begin("prepare", config).finish()
    out = Path(config.out)
    (out / "app").mkdir()
    (out / "app/.lock").write_text("of another program")
    (out / "first-without-x").symlink_to("app")
    with Stage.begin("prepare", config, overwrite=True):
        assert (out / "app/.lock").read_text() == "of another program"


@pytest.mark.parametrize("is_link", [True, False], ids=["a link", "a folder"])
def test_no_round_takes_the_place_of_what_no_round_made(tmp_path, is_link):
    "Its name follows from the run's: an archive may bring a link of that name, and overwrite is not asked of it."
    from fakeface.evaluate.leave_one_out import LeaveoutConfig, collect_rounds, one_round
    from fakeface.testing.datasets import toy_run

    toy_run(tmp_path, "theirs", count=4)
    new = tmp_path / "theirs-without-stripes"
    documents = tmp_path / "documents" if is_link else new
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    if is_link:
        new.symlink_to(documents)
        with pytest.raises(FakefaceError, match="theirs-without-stripes is a link"):
            collect_rounds("theirs", str(tmp_path), [["stripes"]])
    cfg = LeaveoutConfig(run="theirs", out=str(tmp_path), groups="stripes", overwrite=True)
    with pytest.raises(FakefaceError, match="is a link" if is_link else "holds no stage, so no round made it"):
        one_round(cfg, ["stripes"])
    assert (documents / "thesis.txt").read_text() == "years of work"


def test_no_features_are_written_through_a_link(tmp_path):
    from fakeface.models.network import build_model
    from fakeface.testing.datasets import toy_manifest
    from fakeface.train.engine import Engine
    from fakeface.train.features import open_store

    rows, model = toy_manifest(tmp_path / "set", count=4), build_model("test_resnet", None, size=64)
    store = open_store(tmp_path / "features", model, rows, Engine())
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    (store.folder / "base.f32").symlink_to(thesis)
    with pytest.raises(FakefaceError, match="base.f32 is a link"):
        open_store(tmp_path / "features", model, rows, Engine())
    assert thesis.read_text() == "years of work"


def test_a_copy_of_a_pretraining_follows_no_link_and_fills_no_disk(tmp_path):
    from fakeface.evaluate.leave_one_out import _copy_pretraining

    source, target = tmp_path / "theirs/pretrain", tmp_path / "new/pretrain"
    (source / "bundle").mkdir(parents=True)
    (source / "bundle/model").write_text("weights")
    target.parent.mkdir()
    (source / "checkpoints").mkdir()
    (source / "bundle").chmod(0o500)
    (source / "bundle/model").chmod(0o400)
    for _ in range(2):
        _copy_pretraining(source, target)
    assert (target / "bundle/model").read_text() == "weights" and not (target / "checkpoints").exists()
    for copied in (target / "bundle", target / "bundle/model"):
        assert os.stat(copied).st_mode & 0o200, "a round can go on with what it copied of a read-only run"
    (source / "bundle").chmod(0o700)
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    (target / "bundle/model").unlink()
    os.link(diary, target / "bundle/model")
    _copy_pretraining(source, target)
    assert (target / "bundle/model").read_text() == "weights" and diary.read_text() == "dear diary"
    (source / "hole").touch()
    os.truncate(source / "hole", 2**43)
    with pytest.raises(FakefaceError, match="needs 8,796.1 GB for a copy"):
        _copy_pretraining(source, target)
    (source / "hole").unlink()
    (source / "above").symlink_to("..")
    with pytest.raises(FakefaceError, match="above is a link"):
        _copy_pretraining(source, target)


@pytest.mark.skipif(not os.path.exists("/proc/self/pagemap"), reason="there are no such files")
def test_a_file_without_an_end_is_not_hashed():
    from fakeface.core.files import sha256_file

    with pytest.raises(FakefaceError, match="more than it says"):
        sha256_file("/proc/self/pagemap")
