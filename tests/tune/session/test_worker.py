"""A worker without a cluster, in a process whose threads and memory it sets up."""

import json
import os
import platform
import subprocess
import sys

import pytest

from tests.tiny import SETTINGS
from tests.tune.real_sweep import new_sweep
from tune.comparison.paired import Comparison
from tune.comparison.stored_sums import read_sums
from tune.store.checkpoints import short_checkpoints
from tune.store.results_store import ResultsStore

pytestmark = pytest.mark.ray

ATTEMPT = """
import json, sys
import cv2, torch
from tests.page_faults import refaulted
from semprior.config.schema import flatten, parse_settings, resolve
from tune.session.worker import AttemptWorker
from tune.session.attempt_registry import AttemptRegistry
from tune.session.attempt_spec import AttemptSpec
from tune.store.sweeps import open_sweep

uri, *settings = sys.argv[1:]
sweep = open_sweep(uri)
config = flatten(resolve("quick", flags=parse_settings(settings), environment={}).config)
spec = AttemptSpec(
    uri=uri, registry=AttemptRegistry("not asked for the first epoch"), data=sweep.spec.data, trial="0000",
    configuration=0, config=config, params={}, objectives=("holdout/point_score", "cost/params"), attempt=1, workers=2,
    cpus=7.0,
    sweep=sweep.digest,
)
torch.set_num_threads(1)
cv2.setNumThreads(1)

def tell(report):
    found = {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads(), "refaulted": refaulted()}
    found["compiler"] = "torch._dynamo" in sys.modules
    print(json.dumps({**report, **found}))

AttemptWorker(spec, tell).run()
"""


def run_attempt(sweep, program=ATTEMPT, settings=()):
    return subprocess.run(
        [sys.executable, "-c", program, sweep.storage.uri, *SETTINGS, "epochs=1", *settings],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )


def test_a_worker_trains_with_its_share_of_the_threads_and_keeps_freed_memory(tmp_path):
    run_attempt(new_sweep(tmp_path, "first", trials=1))  # it measures what the detector costs, once per machine
    done_sweep = new_sweep(tmp_path / "second", "one", trials=1)
    done = run_attempt(done_sweep)
    assert done.returncode == 0, done.stderr
    (told,) = map(json.loads, done.stdout.splitlines())
    assert told["epoch"] == 0
    store = ResultsStore(done_sweep.storage)
    (report,) = store.curve("0000")
    images = read_sums(store.storage, report.images_address)  # the metrics of the epoch, image by image
    assert set(images.names) < {path.stem for path in (tmp_path / "second" / "data" / "images").iterdir()}
    for metric in ("point_score", "point_fa", "iou", "teacher/iou"):
        own = Comparison([{0: images}], metric)
        assert own.value(0) == pytest.approx(report.metrics[f"holdout/{metric}"], rel=1e-5)
    assert own.error(0) == pytest.approx(report.metrics["holdout/teacher/iou_se"], rel=0.2)
    assert told["values"][1:] == [657249]  # the objectives include what the detector costs
    assert (told["torch"], told["opencv"]) == (3, 3)  # two share seven processors
    assert not told["compiler"]  # it takes over a second to import, and each attempt would
    if platform.libc_ver()[0] == "glibc":
        assert told["refaulted"] < 0.1


CROSSFIT = ("labels.refine=crossfit", "labels.crossfit_epochs=1", "data.batch=2")
KILLED = """
import os
import tune.session.worker as worker
put = worker.put_short_checkpoint

def put_and_die(*arguments):
    put(*arguments)
    os._exit(9)

worker.put_short_checkpoint = put_and_die
"""
AGAIN = "attempt=2, short_points=tuple(short_checkpoints(sweep.storage, '0000')),"


def test_the_short_runs_of_a_trial_go_on_in_its_next_attempt(tmp_path):
    alone, sweep = new_sweep(tmp_path, "alone", trials=1), new_sweep(tmp_path, "one", trials=1)
    assert run_attempt(alone, settings=CROSSFIT).returncode == 0
    before, after = ATTEMPT.split("AttemptWorker(spec")
    assert run_attempt(sweep, f"{before}{KILLED}AttemptWorker(spec{after}", CROSSFIT).returncode == 9
    assert [one.address for one in short_checkpoints(sweep.storage, "0000")] == ["crossfit/0000/1/epoch-0001"]
    program = ATTEMPT.replace("attempt=1,", AGAIN)
    done = run_attempt(sweep, f"from tune.store.checkpoints import short_checkpoints\n{program}", CROSSFIT)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "runs" / "one" / "logs" / "0000.log").read_text()
    assert "attempt 2 begins after 0 of 1 epochs and 1 epochs of short runs" in log
    assert log.count("short run 1 of 2") == 0 and "short run 2 of 2, epoch 0 of 1: inner loss" in log
    assert short_checkpoints(sweep.storage, "0000") == []
    curves = [ResultsStore(one.storage).curve("0000") for one in (alone, sweep)]
    first, second = ({k: v for k, v in report.metrics.items() if k != "seconds"} for (report,) in curves)
    assert "holdout/threshold" in first and first == second


def test_no_attempt_trains_on_data_that_were_changed_since_the_sweep_began(tmp_path):
    sweep = new_sweep(tmp_path, "one", trials=1)
    image = sorted((tmp_path / "data" / "images").iterdir())[0]
    image.write_bytes(image.read_bytes() + b"one byte more, behind the end of the image")
    done = run_attempt(sweep)
    assert "UserError: one: its data, " in done.stderr
    assert ResultsStore(sweep.storage).records() == {}


def test_an_attempt_does_not_make_the_folder_of_a_removed_sweep_anew(tmp_path):
    sweep = new_sweep(tmp_path, "one", trials=1)
    moved = tmp_path / "runs" / "two"
    (tmp_path / "runs" / "one").rename(moved)
    program = ATTEMPT.replace("sweep = open_sweep(uri)", f"sweep = open_sweep({str(moved)!r})")
    done = run_attempt(sweep, program)
    assert "SweepRemovedError" in done.stderr and "the folder of the sweep was removed" in done.stderr
    assert not (tmp_path / "runs" / "one").exists()
