"""Real sweeps on a real Ray, small enough for a test: trials of fractions of a second an epoch."""

import time
from contextlib import contextmanager
from pathlib import Path

import yaml

from semprior.config.schema import parse_settings
from semprior.data.remote_data import data_identity
from semprior.io.storage import open_storage
from tests.tiny import SETTINGS, write_dataset
from tune.spec.sweep_file import load_sweep
from tune.store.results_store import ResultsStore
from tune.store.sweeps import create_sweep

PLAIN = {
    "search": {"optim.rate": {"float": [1e-3, 1e-2], "log": True}},
    "objective": {"holdout/point_score": "max"},
    "sampler": {"name": "random"},
    "scheduler": {"name": "none"},
    "concurrent": 1,
}
STOPPING = {
    "search": {"optim.rate": {"float": [1e-6, 1e-5], "log": True}},
    "scheduler": {"name": "asha", "factor": 4, "first": 4},
}
"""Trials of at least six epochs: the base, which learns, and others, which do not and are stopped at epoch 4."""


@contextmanager
def ray_cluster(*nodes):
    """A Ray cluster of loopback nodes with so many CPUs, this process its driver; without a dashboard.

    Gives Ray's `Cluster`; the first node is the head.
    """
    import ray
    from ray.cluster_utils import Cluster

    from tune.launch.ray_internals import loopback_only

    settings = {"object_store_memory": 80 << 20, "num_gpus": 0}
    with loopback_only():
        cluster = Cluster(True, True, head_node_args={"num_cpus": nodes[0], "include_dashboard": False, **settings})
    try:
        with loopback_only():
            for cpus in nodes[1:]:
                cluster.add_node(num_cpus=cpus, **settings)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def joined_cluster(address):
    """Within the context, this process is a driver of a `ray_cluster` of another one."""
    import ray

    from tune.launch.ray_internals import loopback_only

    with loopback_only():  # else Ray takes the outer address of this machine for 127.0.0.1
        ray.init(address=address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def new_sweep(folder: Path, name: str, trials: int, epochs: int = 3, base=(), **keys):
    """A sweep of tiny scenes in ``folder/runs``, as `submit` leaves it."""
    data = folder / "data"
    if not data.exists():
        write_dataset(data)
    settings = parse_settings([*SETTINGS, f"epochs={epochs}", *base])
    spec = {"name": name, "data": str(data), "base": settings, "budget": {"trials": trials}, **PLAIN, **keys}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**spec, "storage": str(folder / "runs")}))
    return create_sweep(open_storage(folder / "runs"), name, load_sweep(file, {}), data_identity(data))


def results(sweep):
    """All that must be the same however a sweep was interrupted: every trial's curve and how it ended."""
    store = ResultsStore(sweep.storage)
    unlike = ("seconds",)
    curves = {
        trial: [(r.epoch, {k: v for k, v in r.metrics.items() if k not in unlike}, r.values, r.best) for r in curve]
        for trial, curve in store.curves().items()
    }
    return curves, {trial.trial: (trial.state, trial.params, trial.config) for trial in store.trials()}


def wait_for(what, seconds=300.0):
    """Wait until `what()` says something true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came of it in {seconds:.0f} s")
