"""A checkpoint comes out of a folder or a bucket whole, verified and usable; nothing lands outside of its folder."""

import hashlib
import json
import os
import shlex
import shutil
from dataclasses import replace

import pytest

import semprior.cli.app
import tune.cli.pull
from semprior.io.checkpoint import load_checkpoint
from semprior.io.storage import open_storage
from tests.tiny import optional, write_checkpoint
from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.store.checkpoints import get_checkpoint, put_checkpoint, remove_checkpoint
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import create_sweep, open_sweep

pytestmark = pytest.mark.trains


def stored(folder, place, data=None):
    """The made-up sweep in a place, where trial 0001's best epoch has a checkpoint; its data may lie at an address."""
    sweep = made_up_sweep(folder)
    records = [record for records in ResultsStore(sweep.storage).histories().values() for record in records]
    shutil.rmtree(sweep.storage.local)  # the place may be the same
    spec = sweep.spec.model_copy(update={"data": data or sweep.spec.data})
    there = create_sweep(open_storage(place), "small", spec, sweep.data).storage
    snapshot = load_checkpoint(write_checkpoint(folder / "checkpoint"))
    checkpoint = put_checkpoint(there, "0001", 1, snapshot)
    store = ResultsStore(there)
    store.append([with_checkpoint(record, checkpoint) for record in records])
    return open_sweep(there.uri), checkpoint


def with_checkpoint(record: Record, checkpoint) -> Record:
    if (record.trial, record.kind, record.epoch) != ("0001", "report", 2):
        return record
    return replace(record, checkpoint=checkpoint.address, sha256=checkpoint.sha256)


def test_the_best_is_pulled_with_settings_metrics_and_a_card_and_works(tmp_path, place, capsys):
    _, checkpoint = stored(tmp_path, place)
    out = tmp_path / "best"
    assert main(["pull", "small:best", "--out", str(out), "--storage", place]) == 0
    said = capsys.readouterr().out
    assert "trial 0001 of small after epoch 3, holdout/point_score 0.8000; verified" in said
    assert hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest() == checkpoint.sha256
    about = json.loads((out / "metrics.json").read_text())
    assert (about["trial"], about["epoch"], about["objectives"]) == ("0001", 3, {"holdout/point_score": 0.8})
    card = (out / "README.md").read_text()
    for part in (
        "trial `0001` of `small`",
        "`clusters.count`: `7`",
        "| point_score | 0.8000 | 0.0100 |",
        checkpoint.sha256,
    ):
        assert part in card
    assert "points alone" in card and "arXiv 2605.14346" in card
    assert "clusters.count: 7" in (out / "config.yaml").read_text()
    assert str(tmp_path / "scenes") in said
    run_the_line_that_evaluates(said)
    image = str(next((tmp_path / "scenes" / "images").iterdir()))
    assert semprior.cli.app.main(["predict", str(out), image, "--out", str(tmp_path / "seen")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_the_line_that_evaluates_works_where_the_data_lie_at_an_address(tmp_path, place, capsys):
    data = f"{place if '://' in place else f'file://{place}'}/scenes"
    stored(tmp_path, place, data)
    assert semprior.cli.app.main(["data", "push", str(tmp_path / "scenes"), data]) == 0
    capsys.readouterr()
    assert main(["pull", "small", "--out", str(tmp_path / "the best"), "--storage", place]) == 0
    said = capsys.readouterr().out
    assert f"--data {data}\n" in said
    run_the_line_that_evaluates(said)


def test_show_breaks_the_held_out_images_down(tmp_path, capsys):
    runs = tmp_path / "elsewhere"
    stored(tmp_path, str(runs))
    data = tmp_path / "scenes"
    for name in (data / "mode" / "test.txt").read_text().split():
        (data / "labels" / f"{name}.png").unlink()  # the test split is not read
    assert main(["show", "small", "0001", "--by", "all", "--storage", str(runs)]) == 0
    shown = capsys.readouterr().out
    for part in ("student of trial 0001, after 3 epochs", "split holdout", "by size", "by contrast", "by kind"):
        assert part in shown
    assert "teacher of trial" not in shown  # no stage is modulated
    for by, fault in (("colour", "--by colour: must be subset, size"), ("subset", "has no subset.csv")):
        assert main(["show", "small", "0001", "--by", by, "--storage", str(runs)]) == 2
        assert fault in capsys.readouterr().err


@pytest.mark.slow
def test_a_pulled_folder_is_exported(tmp_path):
    optional("onnxscript")
    optional("onnxruntime")
    stored(tmp_path, tmp_path / "place")
    assert main(["pull", "small", "--out", str(tmp_path / "best"), "--storage", str(tmp_path / "place")]) == 0
    assert semprior.cli.app.main(["export", str(tmp_path / "best"), "--out", str(tmp_path / "student.onnx")]) == 0
    assert (tmp_path / "student.onnx").is_file()


def run_the_line_that_evaluates(said):
    """Run the command that `pull` ends with as it is printed."""
    program, *words = shlex.split(said[said.index("try: ") + len("try: ") :])
    assert (program, words[0]) == ("semprior", "evaluate")
    assert semprior.cli.app.main(words) == 0


@pytest.mark.parametrize("which", ["small", "small:1", "small:0001"])
def test_ways_to_say_which(tmp_path, which):
    stored(tmp_path, tmp_path / "place")
    assert main(["pull", which, "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["trial"] == "0001"


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        ("nothing", "nothing: no such sweep"),
        ("small:7", "small: has 3 configurations with a value, none at place 7"),
        ("small:0007", "small: no trial 0007; there are: 0000 to 0002"),
        ("small:worst", "small:worst: must be best, a place in `top` like 2, or a trial like 0007"),
        ("small:0", "small:0: must be best"),
        ("small:0000", "small: trial 0000 has no checkpoint yet"),
    ],
)
def test_what_is_not_there_is_one_line_and_nothing_is_written(tmp_path, which, fault, capsys):
    stored(tmp_path, tmp_path / "place")
    assert main(["pull", which, "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 2
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept(tmp_path, capsys):
    stored(tmp_path, tmp_path / "place")
    (tmp_path / "out").mkdir()
    assert main(["pull", "small", "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 2
    assert "out: exists already; choose another folder" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_a_link_in_its_place_is_not_followed(tmp_path, capsys):
    stored(tmp_path, tmp_path / "place")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    assert main(["pull", "small", "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 2
    assert "out: exists already" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


def test_a_trial_that_finds_a_better_epoch_meanwhile_is_pulled_there(tmp_path, monkeypatch):
    _, checkpoint = stored(tmp_path, tmp_path / "place")
    fetch = tune.cli.pull.fetch_checkpoint

    def late(storage, wanted, target):
        monkeypatch.undo()
        monkeypatch.setattr(tune.cli.pull, "fetch_checkpoint", fetch)
        better = put_checkpoint(storage, "0001", 1, replace_epoch(storage, checkpoint, 9))
        best = next(record for record in ResultsStore(storage).curve("0001") if record.epoch == 2)
        about = {"epoch": 8, "checkpoint": better.address, "sha256": better.sha256, "writer": ""}
        ResultsStore(storage).append([replace(best, **about)])
        remove_checkpoint(storage, checkpoint.address)
        fetch(storage, wanted, target)

    monkeypatch.setattr(tune.cli.pull, "fetch_checkpoint", late)
    assert main(["pull", "small:0001", "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["epoch"] == 9


def replace_epoch(storage, checkpoint, epoch):
    snapshot = get_checkpoint(storage, checkpoint)
    return replace(snapshot, values=snapshot.values | {"epoch": epoch})


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_file_is_refused_and_nothing_is_left(tmp_path, capsys):
    sweep, checkpoint = stored(tmp_path, tmp_path / "place")
    damage(sweep.storage.local / checkpoint.address / "student.safetensors")
    assert main(["pull", "small", "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 2
    assert "student.safetensors: is damaged; its digest does not match" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name", ["../escaped", "/tmp/escaped", "..", ".hidden", "con\n", "json.py", "torch.py", "README.md", "student.pth"]
)
def test_only_files_of_a_checkpoint_are_pulled(tmp_path, name, capsys):
    sweep, checkpoint = stored(tmp_path, tmp_path / "place")
    manifest = sweep.storage.local / checkpoint.address / "manifest.json"
    content = json.loads(manifest.read_text())
    content["sha256"][name] = "0" * 64
    manifest.write_text(json.dumps(content))
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (trial,) = [trial for trial in ResultsStore(sweep.storage).trials() if trial.trial == "0001"]
    best = next(record for record in ResultsStore(sweep.storage).curve("0001") if record.epoch == 2)
    ResultsStore(sweep.storage).append([replace(best, sha256=digest, checkpoint=checkpoint.address, writer="")])
    before = sorted(tmp_path.rglob("*"))
    assert main(["pull", "small:0001", "--out", str(tmp_path / "out"), "--storage", str(tmp_path / "place")]) == 2
    assert "is not the name of a checkpoint's file" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert trial.sha256 != digest
