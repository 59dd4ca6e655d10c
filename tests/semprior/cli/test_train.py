"""A run from its first line to its last: what it leaves, stopped, killed, resumed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from semprior.cli.app import main
from semprior.config.schema import Resolved
from semprior.data.layout import find_layout
from semprior.deployment.evaluate import score
from semprior.deployment.load_model import load_student, load_teacher
from semprior.io.checkpoint import load_checkpoint, save_checkpoint
from semprior.training.crossfit import CrossFit
from semprior.training.prepare import read_training_set
from semprior.training.run_folder import RunFolder
from semprior.training.trainer import Trainer
from tests.tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.trains

FLAGS = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("cli") / "data")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--data", str(data), "--out", str(out), "--device", "cpu", *FLAGS]) == 0
    return out


def lines(run, drop=("seconds",)):
    return [{k: v for k, v in line.items() if k not in drop} for line in RunFolder(run).lines()]


def test_a_run_leaves_what_it_promises(trained):
    names = set(os.listdir(trained)) - {"tensorboard"}
    assert names == {"checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "pseudo-masks", "run.json"}
    assert sorted(os.listdir(trained / "checkpoints"))[-1] == "index.json"
    found = lines(trained)
    assert [line["epoch"] for line in found] == [0, 1, 2, 3]
    assert [line["outer_loss"] is not None for line in found] == [True, False, True, False]
    assert {"holdout/point_score", "holdout/iou", "holdout/iou_se", "holdout/teacher/iou"} <= set(found[-1])
    assert any(line["best"] for line in found)
    compared = ["labels/iou" in line and "labels/niou" in line for line in found]
    assert compared == [line["evolved"] or line["epoch"] == 0 for line in found]
    kept = RunFolder.open(trained).labels()
    assert list(kept) == [line["epoch"] for line in found if line["evolved"] or line["epoch"] == 0]
    assert len({tuple(window.name for window in windows) for windows in kept.values()}) == 1
    log = (trained / "log.txt").read_text()
    assert "9 training, 4 validation and 3 held-out images" in log
    assert "epoch 4/4" in log


def test_a_run_its_checkpoints_and_one_of_them_are_the_same_best_student(trained, data, capsys):
    best = RunFolder(trained).checkpoints.path("best")
    printed = set()
    for place in (trained, trained / "checkpoints", trained / "checkpoints" / "best", best):
        assert main(["evaluate", str(place), "--data", str(data), "--json"]) == 0
        printed.add(capsys.readouterr().out)
    assert len(printed) == 1
    assert json.loads(printed.pop())["images"] == 4


def test_the_best_checkpoint_scores_what_the_run_said_of_it(trained, data):
    config = RunFolder(trained).config()
    best = [line for line in lines(trained) if line["best"]][-1]
    training_set = read_training_set(find_layout(data), Resolved(config, frozenset()), lambda _: None)
    assert best["holdout/iou"] > 0
    held = [training_set.scenes[index] for index in training_set.holdout_indices]
    cpu = torch.device("cpu")
    for place, model in (("holdout", load_student(trained, cpu)), ("holdout/teacher", load_teacher(trained, cpu))):
        metrics, errors = score(model.probabilities([s.image for s in held]), [s.mask for s in held], config)
        for name in ("iou", "niou", "pd", "fa"):
            assert getattr(metrics, name) == pytest.approx(best[f"{place}/{name}"], nan_ok=True)
            assert errors[name] == pytest.approx(best[f"{place}/{name}_se"], nan_ok=True)


def test_a_damaged_index_is_one_line(trained, data, tmp_path, refused):
    out = shutil.copytree(trained, tmp_path / "run")
    (out / "checkpoints" / "index.json").write_text("{}")
    assert "index.json: is damaged" in refused("evaluate", out, "--data", data)
    assert "index.json: is damaged" in refused("train", "--out", out, "--resume")


def test_the_config_of_a_run_makes_the_same_run(trained):
    from semprior.config.schema import resolve

    config = RunFolder(trained).config()
    assert config.clusters.count == 3
    assert resolve(file=trained / "config.yaml", environment={}).config == config


def test_a_count_of_clusters_from_a_preset_is_capped_in_the_record(data, tmp_path, capsys):
    flags = [word for word in FLAGS if word not in ("clusters.count=3", "epochs=4")]
    flags = [word for word, after in zip(flags, [*flags[1:], ""], strict=True) if not (word == after == "--set")]
    out = tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(out), *flags, "--set", "epochs=1"]) == 0
    assert RunFolder(out).config().clusters.count == 16
    assert "clusters" in capsys.readouterr().out


def test_killed_and_resumed_it_is_the_run_that_never_stopped_and_needs_no_masks(data, trained, tmp_path):
    points_only = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(points_only / "labels")
    out = tmp_path / "run"
    arguments = ["train", "--data", points_only, "--out", out, "--device", "cpu", *FLAGS]
    with (tmp_path / "printed").open("wb") as printed:
        program = [sys.executable, "-m", "semprior"]
        process = subprocess.Popen([*program, *arguments], stdout=printed, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: len((out / "metrics.jsonl").read_text().splitlines()) >= 2, out, process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert (tmp_path / "printed").read_text().startswith("mlclnet on cpu, in ")
    assert main(["train", "--out", str(out), "--resume"]) == 0
    with_masks, without = lines(trained), lines(out)
    assert all(not key.endswith(("/iou", "/pd", "/iou_se")) for line in without for key in line)
    assert [{key: line[key] for key in other} for line, other in zip(with_masks, without, strict=True)] == without
    assert weights(out) == weights(trained)
    one, other = (sorted((run / "pseudo-masks").iterdir()) for run in (out, trained))
    assert [path.name for path in one] == [path.name for path in other]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def wait_for(reached, out, process):
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        if (out / "metrics.jsonl").exists() and reached():
            return
        time.sleep(0.02)
    raise AssertionError("the run did not get there")


def weights(run):
    """Digests of the student that is evaluated and of what is trained."""
    manifest = json.loads((RunFolder(run).checkpoints.path("last") / "manifest.json").read_text())
    return {name: manifest["sha256"][name] for name in ("student.safetensors", "training.safetensors")}


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(trained, tmp_path, capsys):
    out = shutil.copytree(trained, tmp_path / "run")
    weight_file = RunFolder(out).checkpoints.path("last") / "training.safetensors"
    weight_file.write_bytes(weight_file.read_bytes()[:-9])
    assert main(["train", "--out", str(out), "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "resuming from the checkpoint before it" in printed
    assert "resumed after 3 of 4 epochs" in printed
    assert lines(out) == lines(trained)
    assert weights(out) == weights(trained)


def test_a_finished_run_goes_on_with_more_epochs(trained, tmp_path, capsys):
    out = shutil.copytree(trained, tmp_path / "run")
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert "nothing is left to train" in capsys.readouterr().out
    assert lines(out) == lines(trained)
    assert main(["train", "--out", str(out), "--resume", "--set", "epochs=5", "--device", "cpu"]) == 0
    assert lines(out)[:4] == lines(trained)
    assert [line["epoch"] for line in lines(out)] == [0, 1, 2, 3, 4]
    assert RunFolder(out).config().epochs == 5


def test_ctrl_c_says_how_to_go_on(data, tmp_path, capsys, monkeypatch):
    whole = Trainer.run

    def interrupted(self):
        for report in whole(self):
            yield report
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    out = tmp_path / "my run"
    assert main(["train", "--data", str(data), "--out", str(out), *FLAGS]) == 130
    assert capsys.readouterr().err == f"semprior: interrupted; resume with: semprior train --out '{out}' --resume\n"
    monkeypatch.undo()
    assert main(["train", "--out", str(out), "--resume", "--set", "epochs=2"]) == 0
    assert [line["epoch"] for line in lines(out)] == [0, 1]
    assert "stopped: interrupted\n" in (out / "log.txt").read_text()


def test_short_runs_come_before_the_run_and_go_on_where_they_were_stopped(data, tmp_path, capsys, monkeypatch):
    short = ("labels.refine=crossfit", "labels.crossfit_epochs=0.5", "epochs=2", "data.batch=3", "data.hard_crops=0.3")
    flags = [*FLAGS, *(word for setting in short for word in ("--set", setting)), "--device", "cpu"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(whole), *flags]) == 0
    printed = capsys.readouterr().out
    assert "labels.refine=crossfit: 2 short runs of 1 epoch come first" in printed
    for place in ("short run 1/2, epoch 1/1  loss", "short run 2/2, epoch 1/1  loss", "epoch 1/2", "epoch 2/2"):
        assert place in printed
    assert not (whole / "crossfit").exists()
    assert {"labels/iou", "labels/first_iou"} <= lines(whole)[0].keys()
    assert json.loads((RunFolder(whole).checkpoints.path("last") / "state.json").read_text())["thresholds"]

    run = CrossFit.run

    def interrupted(self):
        for epoch in run(self):
            yield epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(CrossFit, "run", interrupted)
    assert main(["train", "--data", str(data), "--out", str(out), *flags]) == 130
    monkeypatch.undo()
    assert sorted(os.listdir(out / "crossfit"))[-1] == "index.json"
    assert main(["train", "--out", str(out), "--resume"]) == 0
    assert "resumed after 0 of 2 epochs and 1 epochs of short runs" in capsys.readouterr().out
    assert lines(out) == lines(whole)
    assert weights(out) == weights(whole)
    assert not (out / "crossfit").exists()
    assert main(["evaluate", str(out), "--data", str(data)]) == 0


@pytest.mark.parametrize("where", ["checkpoint", "metrics"])
def test_a_full_disk_is_one_line(data, tmp_path, monkeypatch, refused, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "checkpoint":
        monkeypatch.setattr("semprior.io.checkpoint._write", full)
    else:
        monkeypatch.setattr(RunFolder, "append", full)
    assert "No space left on device" in refused("train", "--data", data, "--out", tmp_path / "run", *FLAGS)


def test_a_disk_that_filled_up_before_a_resume_names_the_file(trained, tmp_path, refused, full_disk):
    out = shutil.copytree(trained, tmp_path / "run")
    with full_disk():
        assert f"{out / 'log.txt'}: " in refused("train", "--out", out, "--resume")
    assert lines(out) == lines(trained)


def test_outer_steps_that_lack_a_batch_are_said(data, tmp_path, capsys):
    flags = [*FLAGS, "--set", "data.batch=5", "--set", "epochs=1"]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *flags]) == 0
    assert "no outer steps: 4 validation images are fewer than a batch of 5" in capsys.readouterr().out
    assert lines(tmp_path / "run")[0]["outer_loss"] is None


def test_a_loss_that_is_not_finite_names_epoch_batch_and_images(data, tmp_path, refused):
    rate = ["--set", "optim.rate=1000", "--set", "optim.weight_decay=100"]
    error = refused("train", "--data", data, "--out", tmp_path / "run", *FLAGS, *rate)
    for word in ("at epoch", "batch", "train"):
        assert word in error
    assert "stopped: training stopped" in (tmp_path / "run" / "log.txt").read_text()


def test_random_weights_of_the_foundation_model_are_said_in_every_report(data, tmp_path, capsys, cache):
    scam = ["scam.stages=[2]", "vfm.name=mobilenetv3_small_050", "vfm.weights=random", "vfm.width=8", "epochs=2"]
    flags = [*FLAGS, *(word for setting in scam for word in ("--set", setting))]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "first"), *flags]) == 0
    printed = capsys.readouterr().out
    assert printed.count("RANDOM weights") == 2  # before the first epoch and over the results
    assert "(16 computed now)" in printed
    assert {line["vfm_weights"] for line in lines(tmp_path / "first")} == {"random"}
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "second"), *flags]) == 0
    assert "(0 computed now)" in capsys.readouterr().out
    assert lines(tmp_path / "second") == lines(tmp_path / "first")
    assert os.listdir(cache)
    assert main(["evaluate", str(tmp_path / "first"), "--data", str(data), "--json"]) == 0
    assert "RANDOM weights" in capsys.readouterr().err


def test_training_on_true_masks_is_said_in_every_report(data, tmp_path, capsys):
    out = tmp_path / "run"
    flags = [*FLAGS, "--set", "labels.seed=masks", "--set", "labels.refine=none", "--set", "epochs=1"]
    assert main(["train", "--data", str(data), "--out", str(out), *flags]) == 0
    assert capsys.readouterr().out.count("TRUE MASKS") == 2  # before the first epoch and over the results
    (line,) = lines(out)
    assert line["labels/iou"] == line["labels/niou"] == 1.0
    assert main(["evaluate", str(out), "--data", str(data), "--json"]) == 0
    assert "TRUE MASKS" in capsys.readouterr().err
    image = next((data / "images").iterdir())
    assert main(["predict", str(out), str(image), "--out", str(tmp_path / "predicted")]) == 0
    assert "TRUE MASKS" in capsys.readouterr().out


def test_true_masks_must_be_there(data, tmp_path, refused):
    some = shutil.copytree(data, tmp_path / "data")
    (some / "labels" / "val02.png").unlink()
    flags = [*FLAGS, "--set", "labels.seed=masks", "--set", "labels.refine=none"]
    arguments = ["train", "--data", some, "--out", tmp_path / "run", *flags]
    assert "labels.seed=masks: image val02 has no mask; start from points: contrast" in refused(*arguments)


def test_paper_says_that_it_reads_the_test_split(data, tmp_path, capsys):
    changed = ["epochs=1", "labels.pool=all", "data.holdout=0"]
    flags = ["--preset", "paper", *FLAGS, *(word for setting in changed for word in ("--set", setting))]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *flags]) == 0
    printed = capsys.readouterr().out
    assert "TEST split" in printed
    assert "the teacher's own best: IoU" in printed
    assert {"test/iou", "test/teacher/iou"} <= set(lines(tmp_path / "run")[0])


def test_paper_without_the_test_split_names_the_metric_that_chose(data, tmp_path, capsys):
    changed = ["epochs=1", "labels.pool=all", "data.holdout=0.3", "select.by=holdout/iou", "loss.output_bias=0"]
    flags = ["--preset", "paper", *FLAGS, *(word for setting in changed for word in ("--set", setting))]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *flags]) == 0
    found = lines(tmp_path / "run")[-1]
    own = f"the teacher's own best: IoU {found['holdout/teacher/iou']:.4f} after 1 epoch"
    assert (own in capsys.readouterr().out) == (found["holdout/teacher/iou"] > 0)


def test_without_any_best_epoch_the_last_one_is_deployed(data, tmp_path, capsys):
    """With `paper` an IoU of 0 is no best, and no epoch of this run finds anything."""
    changed = ["epochs=2", "labels.pool=all", "data.holdout=0", "loss.output_bias=-30", "optim.rate=1e-6"]
    flags = ["--preset", "paper", *FLAGS, *(word for setting in changed for word in ("--set", setting))]
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *flags]) == 0
    printed = capsys.readouterr().out
    assert "the IoU of the student was 0 after every epoch; the last one is kept" in printed
    assert "the teacher's own best" not in printed
    checkpoints = RunFolder(tmp_path / "run").checkpoints
    assert checkpoints.path("best") == checkpoints.path("last")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--set", "seed=2"], "seed: the run began with 1, not 2"),
        (["--set", "scam.stages=[1]"], "scam.stages"),
        (["--preset", "quick"], "preset: the run began with standard"),
        (["--set", "preset=quick"], "preset: the run began with standard"),
        (["--set", "sead=1"], "did you mean 'seed'"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--device", "tpu"], "--device"),
    ],
)
def test_only_epochs_and_the_device_change_on_resume(trained, refused, arguments, fault):
    before = (trained / "metrics.jsonl").read_bytes(), (trained / "config.yaml").read_bytes()
    assert fault in refused("train", "--out", trained, "--resume", *arguments)
    assert before == ((trained / "metrics.jsonl").read_bytes(), (trained / "config.yaml").read_bytes())


def test_settings_given_again_are_no_change(trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "run")
    again = ["--preset", "standard", "--set", "seed=1", "--config", str(trained / "config.yaml")]
    assert main(["train", "--out", str(out), "--resume", *again]) == 0


def test_a_variable_that_differs_is_refused_on_resume(trained, refused, monkeypatch):
    monkeypatch.setenv("SEMPRIOR__OUTER__STEPS", "9")
    assert "outer.steps: the run began with 1, not 9" in refused("train", "--out", trained, "--resume")


def test_a_run_of_a_version_without_a_setting_goes_on_with_its_default(trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "run")
    config = out / "config.yaml"
    assert "folds: 0" in config.read_text()
    config.write_text("".join(line for line in config.read_text().splitlines(True) if line.strip() != "folds: 0"))
    for folder in (f for f in (out / "checkpoints").iterdir() if f.is_dir()):
        snapshot = load_checkpoint(folder)
        del snapshot.values["config"]["data.folds"]
        shutil.rmtree(folder)
        save_checkpoint(folder, snapshot)
    assert main(["train", "--out", str(out), "--resume"]) == 0


def test_a_checkpoint_of_another_detector_is_refused_on_resume(trained, tmp_path, refused):
    out = shutil.copytree(trained, tmp_path / "run")
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("detector: mlclnet", "detector: alclnet"))
    assert "its checkpoint was trained with mlclnet" in refused("train", "--out", out, "--resume")


def test_other_data_are_refused_on_resume(trained, data, tmp_path, refused):
    other = write_dataset(tmp_path / "other", side=81)
    assert "the data set differs" in refused("train", "--out", trained, "--resume", "--data", other)
    assert RunFolder(trained).data() == str(data)


def test_data_that_moved_are_named_once(trained, data, tmp_path, capsys):
    out, moved = shutil.copytree(trained, tmp_path / "run"), shutil.copytree(data, tmp_path / "moved")
    assert main(["train", "--out", str(out), "--resume", "--data", str(moved)]) == 0
    assert f"--data {moved}" in capsys.readouterr().out
    assert RunFolder(out).data() == str(moved)
    assert "versions" in json.loads((out / "run.json").read_text())


def test_where_a_run_goes(trained, data, tmp_path, refused):
    begin = ["train", "--data", data, *FLAGS]
    assert "add --resume" in refused(*begin, "--out", trained)
    (tmp_path / "empty").mkdir()
    assert "choose another --out" in refused(*begin, "--out", tmp_path / "empty")
    assert "not the folder of a run" in refused("train", "--out", tmp_path / "empty", "--resume")
    assert "no run to resume" in refused("train", "--out", tmp_path / "nothing", "--resume")
    assert "--data" in refused("train", "--out", tmp_path / "nothing")
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(*begin, "--out", tmp_path / "file" / "run")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file"]
