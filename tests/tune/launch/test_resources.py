"""How many trials fit; what does not fit is refused with the numbers."""

import pytest

from semprior.errors import UserError
from tests.tune.small_sweep import spec_of
from tune.launch.resources import concurrency

RESOURCES = "resources: {workers: 1, cpus: 1, gpus: 0}"


def sweep(folder, resources, concurrent="auto", trials=12):
    changes = [(RESOURCES, f"resources: {resources}"), ("concurrent: auto", f"concurrent: {concurrent}")]
    return spec_of(folder, *changes, ("trials: 12", f"trials: {trials}"))


@pytest.mark.parametrize(
    ("resources", "nodes", "fitting"),
    [
        ("{}", [{"CPU": 2}], 2),
        ("{cpus: 2}", [{"CPU": 3}, {"CPU": 2}], 2),
        ("{cpus: 1, gpus: 0.25}", [{"CPU": 16, "GPU": 1}], 4),
        ("{cpus: 4, gpus: 1}", [{"CPU": 8}, {"CPU": 16, "GPU": 2}], 2),
        ("{cpus: 1, gpus: 2}", [{"CPU": 16, "GPU": 4}], 2),
        ("{workers: 2, cpus: 2, gpus: 2}", [{"CPU": 16, "GPU": 1}] * 3, 1),
        ("{workers: 2, cpus: 2, gpus: 4}", [{"CPU": 16, "GPU": 4}] * 2, 2),
        ("{workers: 4, cpus: 4}", [{"CPU": 2}, {"CPU": 3}, {"CPU": 3}], 2),
        ("{cpus: 0.5}", [{"CPU": 100}], 12),  # no more than there are trials
    ],
)
def test_as_many_trials_run_as_fit(tmp_path, resources, nodes, fitting):
    assert concurrency(sweep(tmp_path, resources), nodes) == fitting


@pytest.mark.parametrize(
    ("resources", "concurrent", "nodes", "message"),
    [
        ("{gpus: 1}", "auto", [{"CPU": 8}], "takes 1 CPUs and 1 GPUs, but there is one node, with 8 CPUs and 0 GPUs"),
        ("{cpus: 4}", "auto", [{"CPU": 2}, {"CPU": 3}], "there are 2 nodes, with 2 CPUs and 0 GPUs, or 3 CPUs"),
        ("{workers: 3, cpus: 3}", "auto", [{"CPU": 2}], "3 CPUs for 3 workers"),
        ("{}", "3", [{"CPU": 2}], "concurrent: 3 trials of 1 CPUs do not fit, 2 do"),
        ("{}", "auto", [], "there is no node"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(tmp_path, resources, concurrent, nodes, message):
    with pytest.raises(UserError) as refused:
        concurrency(sweep(tmp_path, resources, concurrent), nodes)
    assert message in str(refused.value)
