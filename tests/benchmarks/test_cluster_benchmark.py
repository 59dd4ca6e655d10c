"""The benchmark of one head and of a simulated cluster, on a few trials."""

import json

import pytest

from benchmarks import cluster
from tune.store.records import Record

pytestmark = pytest.mark.ray


def told(*kinds, **fields):
    return [Record(kind=kind, trial="0000", configuration=0, seed=0, attempt=1, epoch=0, **fields) for kind in kinds]


def test_a_trial_that_does_not_end_once_is_a_fault():
    ended = told("start", "report") + told("end", state="completed")
    assert cluster.faults_of({"0000": ended}, 1, 1) == []
    assert cluster.faults_of({"0000": ended}, 2) == ["1 of 2 trials"]
    assert cluster.faults_of({"0000": told("start", "report")}, 1) == ["0000: ended 0 times", "0000: running"]
    assert cluster.faults_of({"0000": [*ended, ended[-1]]}, 1) == ["0000: ended 2 times"]
    assert cluster.faults_of({"0000": [*ended, ended[1]]}, 1) == ["0000: epochs [0, 0]"]
    assert cluster.faults_of({"0000": ended}, 1, 2) == ["0000: epochs [0]"]


@pytest.mark.slow
def test_one_object_on_standard_output(capsys):
    arguments = ["--trials", "4", "--slots", "2", "--epochs", "20", "--epoch", "0.1", "--nodes", "3", "--json"]
    assert cluster.main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    head, nodes = figures["head"], figures["nodes"]
    assert head["done"]
    assert head["faults"] == []
    assert 0 < head["decisions_per_s"] <= head["records_per_s"] <= 2 / 0.1 + 2 * head["trials_per_s"]
    assert 0 <= head["waiting_share"] < 1
    assert head["trial_process_mb"] > 0
    assert nodes["done"]
    assert nodes["faults"] == []
    assert nodes["nodes_used"] == 3
    assert nodes["trials_that_went_on_elsewhere"] > 0
