"""What a dry run tells: epochs that early stopping leaves, the cost of recorded trials, and all of it as a table."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import pytest
import torch

from semprior.config.schema import flatten
from semprior.data.remote_data import data_identity
from semprior.data.synthetic.scenes import write_scenes
from semprior.errors import UserError
from semprior.io.storage import open_storage
from semprior.training.prepare import prepare_trainer
from tests.tune.made_up import made_up_sweep
from tests.tune.small_sweep import spec_of
from tune.cli.app import main
from tune.cli.cost_estimate import epochs_expected, recorded_cost, short_runs_expected
from tune.monitor.sweep_progress import ProgressReader
from tune.session.attempt_spec import AttemptSpec
from tune.session.worker import AttemptWorker
from tune.spec.sweep_file import Resources
from tune.store.sweeps import create_sweep

pytestmark = pytest.mark.trains

BASE = "base: {preset: quick, detector: alclnet, epochs: 45}"
SHORT = "base: {preset: quick, detector: mlclnet, epochs: 4, data.crop: 64, data.batch: 4, scam.stages: none}"


def test_epochs_that_successive_halving_leaves(tmp_path):
    spec = spec_of(tmp_path, ("{name: asha, factor: 3}", "{name: asha, factor: 2, first: 11}"))
    config = spec.base_config()
    assert config.epochs == 45
    # epochs 0 to 11 in all, to 22 in a half, to 44 in a quarter
    assert epochs_expected(spec, config) == 12 + 11 / 2 + 22 / 4
    assert epochs_expected(spec_of(tmp_path, ("asha, factor: 3", "none")), config) == 45


def test_short_runs_count_in_the_cost_of_a_trial(tmp_path):
    base = "base: {preset: quick, labels.refine: crossfit, labels.crossfit_folds: 3, epochs: 45}"
    spec = spec_of(tmp_path, (BASE, base))
    assert short_runs_expected(spec, spec.base_config()) == 2 * 14  # each on two thirds of the images
    searched = ("search:\n", "search:\n  labels.refine: {values: [none, evolve, crossfit]}\n")
    assert short_runs_expected(spec_of(tmp_path, (BASE, base), searched), spec.base_config()) == pytest.approx(28 / 3)
    assert short_runs_expected(spec_of(tmp_path), spec_of(tmp_path).base_config()) == 0
    sweep = made_up_sweep(tmp_path, (BASE, base))  # of 6 epochs; three short runs of 2 cost 4 of them
    spec = sweep.spec.model_copy(update={"base": {**sweep.spec.base, "scam.stages": [2]}})
    cost = recorded_cost(open_storage(sweep.storage.local.parent), spec, here=False, say=print)
    assert cost.seconds == 4 * 2.0 / (4 + 4)
    row = next(row for row in ProgressReader(sweep)().rows if row.trial == "0002")
    assert (row.epoch, row.before, row.seconds) == (3, 4.0, 3 * 2.0 / (3 + 4))
    assert row.left == row.seconds * 3


def test_recorded_trials_that_are_alike_tell_the_cost(tmp_path):
    sweep = made_up_sweep(tmp_path)
    storage = open_storage(sweep.storage.local.parent)
    spec = sweep.spec.model_copy(update={"base": {**sweep.spec.base, "scam.stages": [2]}})  # as trial 0001 has it
    said = []
    cost = recorded_cost(storage, spec, here=False, say=said.append)
    assert cost.seconds == 2.0
    assert cost.source == "the median of 1 recorded trial of small"
    assert recorded_cost(storage, spec, here=True, say=said.append) is None
    others = {"data": "elsewhere"}, {"resources": Resources(cpus=4)}, {"base": {**spec.base, "data.crop": 64}}
    for other in others:
        assert recorded_cost(storage, spec.model_copy(update=other), here=False, say=said.append) is None
    assert said == []
    storage.child("broken").put("sweep.json", b"{")
    assert recorded_cost(storage, spec, here=False, say=said.append) == cost
    (line,) = said
    assert line.startswith("broken cannot be read and is left out of the estimate: ")


@pytest.mark.parametrize(("gpus", "device"), [("0", "cpu"), ("0.5", "auto")])
def test_an_epoch_is_timed_on_what_the_trials_train_on(tmp_path, monkeypatch, capsys, gpus, device):
    def asked(name):
        raise UserError(f"asked for {name}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("semprior.runtime.device.choose_device", asked)
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", 9, 0)
    spec_of(tmp_path, ("gpus: 0", f"gpus: {gpus}"))
    assert main(["submit", "sweep.yaml", "--dry-run"]) == 2
    assert f"asked for {device}\n" in capsys.readouterr().err


def test_a_dry_run_trains_an_epoch_tells_what_it_takes_and_begins_nothing(tmp_path, monkeypatch, capsys):
    write_scenes(tmp_path / "scenes", 15, 0)
    monkeypatch.chdir(tmp_path)
    spec_of(tmp_path, (BASE, SHORT.replace("epochs: 4", "epochs: 4, labels.refine: crossfit")))
    assert main(["submit", "sweep.yaml", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "short runs of crossfit" in shown
    assert "more or less than the base other values of scam.stages" in shown
    for text in ("12, of 4 epochs at most", "s an epoch", "one epoch of the base, trained now", "a checkpoint", "0001"):
        assert text in shown
    assert not (tmp_path / "runs").exists()
    spec_of(tmp_path, (BASE, SHORT), ("cpus: 1,", "cpus: 999,"))
    assert main(["submit", "sweep.yaml", "--dry-run"]) == 2
    assert "a trial takes 999 CPUs" in capsys.readouterr().err
    spec_of(tmp_path, (BASE, SHORT), ("concurrent: auto", "concurrent: 999"))
    assert main(["submit", "sweep.yaml", "--dry-run"]) == 2
    assert "concurrent: 999 trials of 1 CPUs do not fit" in capsys.readouterr().err


def test_a_dry_run_times_the_process_and_the_settings_of_a_trial(tmp_path, monkeypatch):
    """Allocator, threads and config as used are half of what a step takes; speed itself is not asserted."""
    write_scenes(tmp_path / "scenes", 15, 0)
    monkeypatch.chdir(tmp_path)
    short = SHORT.replace("epochs: 4", "epochs: 1, clusters.count: 100")  # more than there are images
    spec = spec_of(tmp_path, (BASE, short), ("workers: 1, cpus: 1", "workers: 2, cpus: 4"))
    prepared = []

    def record(resolved, data, device, *, threads, cache, say):
        kept = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("semprior.training.prepare.keep_freed_memory", lambda: kept.append(True))
            trainer = prepare_trainer(resolved, data, device, threads=threads, cache=cache, say=say)
        config = replace(trainer.config, select=None)  # an evaluation is timed, too
        process = torch.get_num_threads(), cv2.getNumThreads(), kept
        arguments = replace(resolved.config, select=None), resolved.chosen, data.resolve(), device, threads, cache
        prepared.append((config, process, arguments))
        return trainer

    monkeypatch.setattr("semprior.training.prepare.prepare_trainer", record)
    monkeypatch.setattr("tune.session.worker.prepare_trainer", record)
    monkeypatch.setattr("tune.cli.dry_run.usable_cpus", lambda: 8)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    assert main(["submit", "sweep.yaml", "--dry-run"]) == 0
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, threads[1])
    sweep = create_sweep(open_storage(tmp_path / "runs"), "small", spec, data_identity(spec.data))
    attempt = AttemptSpec(
        sweep=sweep.digest,
        registry=SimpleNamespace(wait=lambda *_: None),
        uri=sweep.storage.uri,
        data=spec.data,
        trial="0000",
        configuration=0,
        config=flatten(spec.base_config()),
        params={},
        objectives=("holdout/point_score",),
        attempt=1,
        workers=2,
        cpus=4.0,
    )
    try:
        AttemptWorker(attempt, lambda report: None).run()
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    dry_run, trial = prepared
    assert dry_run == trial
    config, process, _ = trial
    assert process == (2, 2, [True])
    assert config.clusters.count < 100
