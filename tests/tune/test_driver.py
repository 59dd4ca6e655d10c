"""Real sweeps: their trials run, are recorded, stop when asked, and go on; nothing is left behind."""

import pytest

from semprior.errors import UserError
from tests.tune.real_sweep import new_sweep, ray_cluster, results
from tune.driver import run_sweep
from tune.results import ResultsStore


@pytest.fixture(scope="module")
def cluster(cache):
    with ray_cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


def left_behind():
    """Placement groups that are still there, and actors that still live."""
    import ray
    from ray._private.state import actors

    groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    return groups + [actor for actor in actors().values() if actor["State"] not in ("DEAD",)]


@pytest.mark.slow
def test_a_sweep_runs_its_trials_and_records_every_epoch_once(cluster, folder):
    sweep = new_sweep(folder, "plain", trials=2)
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    curves, trials = results(sweep)
    assert list(trials) == ["0000", "0001"]
    assert all(state == "completed" for state, _, _ in trials.values())
    assert all([epoch for epoch, *_ in curve] == [0, 1, 2] for curve in curves.values())
    assert trials["0000"][2]["optim.rate"] == 3e-3  # the base itself
    for trial in ResultsStore(sweep.storage).trials():
        assert trial.checkpoint and sweep.storage.exists(f"{trial.checkpoint}/manifest.json")
        assert sweep.storage.exists(f"logs/{trial.trial}.log")
        assert sweep.storage.exists(f"tensorboard/{trial.trial}/1")
    assert not left_behind()


def test_a_trial_that_fits_nowhere_is_refused_with_the_numbers(cluster, folder):
    sweep = new_sweep(folder, "large", trials=1, resources={"gpus": 2})
    with pytest.raises(UserError, match="a trial takes 1 CPUs and 2 GPUs, but there is one node, with 2 CPUs and 0"):
        run_sweep(sweep.spec, sweep.storage.uri, 1)
