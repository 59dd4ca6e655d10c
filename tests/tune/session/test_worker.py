"""A worker without a cluster, in a process whose threads and memory it sets up."""

import json
import os
import platform
import subprocess
import sys

import pytest

from tests.tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.ray

ATTEMPT = """
import json, sys
import cv2, torch
from tests.page_faults import refaulted
from semprior.config.schema import flatten, parse_settings, resolve
from tune.session.worker import AttemptWorker
from tune.session.attempt_registry import AttemptRegistry
from tune.session.attempt_spec import AttemptSpec

data, uri, *settings = sys.argv[1:]
config = flatten(resolve("quick", flags=parse_settings(settings), environment={}).config)
spec = AttemptSpec(
    uri=uri, registry=AttemptRegistry("not asked for the first epoch"), data=data, trial="0000", configuration=0,
    config=config, params={}, objectives=("holdout/point_score", "cost/params"), attempt=1, workers=2, cpus=7.0,
)
torch.set_num_threads(1)
cv2.setNumThreads(1)

def tell(report):
    found = {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads(), "refaulted": refaulted()}
    print(json.dumps({**report, **found}))

AttemptWorker(spec, tell).run()
"""


def test_a_worker_trains_with_its_share_of_the_threads_and_keeps_freed_memory(tmp_path):
    data = write_dataset(tmp_path / "data")
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPT, str(data), str(tmp_path / "sweep"), *SETTINGS, "epochs=1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (told,) = map(json.loads, done.stdout.splitlines())
    assert told["epoch"] == 0
    assert told["values"][1:] == [657249]  # the objectives include what the detector costs
    assert (told["torch"], told["opencv"]) == (3, 3)  # two share seven processors
    if platform.libc_ver()[0] == "glibc":
        assert told["refaulted"] < 0.1
