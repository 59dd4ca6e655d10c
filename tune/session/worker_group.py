"""A Ray Train worker group whose controller runs in the process of the trial.

`TorchTrainer.fit` starts its controller as an actor, with three more actors: one that removes the placement group if
the controller dies, one that watches for preemption, and one for data sets. A sweep would wait for these processes,
which import for seconds, in every trial. The one that removes placement groups needs the dashboard: without one, the
placement groups of stopped trials remain, until the sweep has no resources left. With its controller in its own
process, a trial can end its workers at any moment and free their placement group without help.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tune.launch.resources import needs
from tune.session.attempt_spec import AttemptSpec, ReportHandler, Workers
from tune.session.ray_internals import FailureConfig, InProcessTrainer, RunConfig, ScalingConfig

_RAY_TRAIN_SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # an actor
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default, 2 s, delays each report and each end by that
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",  # after which the controller waits for resources again
}


def worker_group(spec: AttemptSpec, folder: str, on_report: ReportHandler) -> Workers:
    """Make the worker group of an attempt.

    Args:
        spec: the specification of the attempt.
        folder: a folder of this machine for the files of Ray Train.
        on_report: receives what the first worker reports.
    """
    configure_ray_train()
    return InProcessTrainer(
        on_report,
        train_loop_per_worker=train_worker,
        train_loop_config={"spec": spec},
        scaling_config=scaling(spec),
        run_config=RunConfig(
            name=f"{spec.trial}-{spec.attempt}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
        ),
    )


def configure_ray_train() -> None:
    """Set what Ray Train reads from the environment of its controller's process only, which is this one."""
    os.environ.update(_RAY_TRAIN_SETTINGS)


def scaling(spec: AttemptSpec) -> ScalingConfig:
    """The resources of a trial as Ray Train's `ScalingConfig`."""
    resources = needs(spec.workers, spec.cpus, spec.gpus)
    return ScalingConfig(num_workers=spec.workers, use_gpu=bool(spec.gpus), resources_per_worker=resources)


def train_worker(settings: Mapping[str, Any]) -> None:
    """Run one worker of an attempt to its end.

    Args:
        settings: the specification of the attempt as ``spec``.

    Raises:
        WorkerFailedError: the worker failed.
    """
    from ray.train import report
    from ray.util import get_current_placement_group

    from semprior.runtime.distributed import rank
    from tune.session.failures import WorkerFailedError, fault_from
    from tune.session.worker import AttemptWorker

    spec: AttemptSpec = settings["spec"]
    try:
        group = get_current_placement_group()
        if rank() == 0 and group is not None:
            spec.registry.hold(spec.name, group.id.hex())
        AttemptWorker(spec, report).run()
    except Exception as error:  # only this process knows the line that raised it
        raise WorkerFailedError(fault_from(error, spec.params)) from None
