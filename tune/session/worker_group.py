"""A Ray Train worker group whose controller runs in the process that asks for it.

Ray Train's `fit` starts its controller as an actor of its own, beside it a detached one that removes the placement
group if the controller dies, one that watches for preemption and one for data sets: processes that import for seconds
what each trial of a sweep needs once. The detached one asks the dashboard; where there is none, the placement groups
of stopped trials stay, and a sweep comes to a stand. Here the controller lives in the trial's own process, which can
therefore end its workers at any moment, and give their placement group back, without asking anybody.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR
from ray.train.v2._internal.execution.callback import RayTrainCallback, ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.training_report import _TrainingReport
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from tune.launch.resources import needs
from tune.session.attempt_spec import Order, Take

_POLL = 0.2  # seconds between two looks at the workers; Ray Train's own 2 s delay every report and every end
_PATIENCE = 60.0  # seconds to wait for slots before it is looked whether to go on waiting


class _Listener(ReportCallback, WorkerGroupCallback):
    """Passes on what rank 0 reports, and the id of the group's placement group when there is one."""

    def __init__(self, report: Take, placed: Callable[[str], None]) -> None:
        self._report, self._placed = report, placed

    def after_report(self, training_report: _TrainingReport, metrics: list[dict[str, Any]]) -> None:
        del training_report
        self._report(metrics[0])

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._placed(worker_group.get_worker_group_state().placement_group_handle.placement_group.id.hex())


class _Workers(WorkerGroup):
    """Workers that need no environment of their own, so that they start in processes that wait for work already."""

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **settings)
        self._worker_group_start_timeout_s = _PATIENCE

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Mapping[str, Any]) -> dict[str, Any]:
        return dict(custom_runtime_env)


class _Controller(TrainController):
    worker_group_cls = _Workers

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"
        super().__init__(**settings)
        self._health_check_interval_s = _POLL

    async def _run_control_loop_iteration(self) -> None:
        await asyncio.sleep(0)  # between two waits for slots, a moment to be cancelled in
        await super()._run_control_loop_iteration()


class _Fixed(FixedScalingPolicy):
    """As many workers as asked for; tells no coordinator, an actor more, as a group that waits makes Ray add nodes."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        del train_run_context

    def _maybe_send_resource_request(self) -> None:
        return

    def _cancel_resource_request(self) -> None:
        return


class Group(TorchTrainer):
    """Workers that train together. `fit` runs them; `abort`, from another thread, ends them.

    Args:
        report: takes what rank 0 reports, in the thread of `fit`.
        placed: takes the id of the placement group, likewise, before the workers train.
        **settings: of `TorchTrainer`.
    """

    def __init__(self, report: Take, placed: Callable[[str], None], **settings: Any) -> None:  # noqa: ANN401
        super().__init__(**settings)
        self._listener = _Listener(report, placed)
        self._lock = threading.Lock()
        self._aborted = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def abort(self) -> None:
        """End the workers at once; `fit` then raises `asyncio.CancelledError`. Without effect once it is over."""
        with self._lock:
            self._aborted = True
            if self._running is not None:
                loop, task = self._running
                loop.call_soon_threadsafe(task.cancel)

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        needless = (PlacementGroupCleanerCallback, DatasetsCallback)  # an actor each; no Ray data sets are used
        callbacks = super()._create_default_callbacks()
        return [*(callback for callback in callbacks if not isinstance(callback, needless)), self._listener]

    def _initialize_and_run_controller(self, **controller_init_kwargs: Any) -> Result:  # noqa: ANN401
        controller_init_kwargs["scaling_policy"] = _Fixed(self.scaling_config)
        return asyncio.run(self._control(_Controller(**controller_init_kwargs)))

    async def _control(self, controller: TrainController) -> Result:
        task = asyncio.ensure_future(controller.run())
        with self._lock:
            self._running = (asyncio.get_running_loop(), task)
            if self._aborted:
                task.cancel()
        try:
            await task
            return controller.get_result()
        finally:
            with self._lock:
                self._running = None
            if controller.get_worker_group() is not None:
                controller.get_worker_group().abort()


def group_for(order: Order, folder: str, report: Take, placed: Callable[[str], None]) -> Group:
    """The workers of an attempt.

    Args:
        order: for each of them.
        folder: of this machine, for what Ray Train writes.
        report: takes what rank 0 reports.
        placed: takes the id of the placement group.
    """
    return Group(
        report=report,
        placed=placed,
        train_loop_per_worker=work,
        train_loop_config={"order": order},
        scaling_config=scaling(order),
        run_config=RunConfig(
            name=f"{order.trial}-{order.attempt}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
        ),
    )


def scaling(order: Order) -> ScalingConfig:
    """Ray Train's word for what a trial takes."""
    each = needs(order.workers, order.cpus, order.gpus)
    return ScalingConfig(num_workers=order.workers, use_gpu=bool(order.gpus), resources_per_worker=each)


def work(settings: Mapping[str, Any]) -> None:
    """Run one worker of an attempt to its end.

    Args:
        settings: its ``order``.

    Raises:
        BrokenError: whatever ended it.
    """
    from ray.train import report

    from tune.session.failures import BrokenError, fault_of
    from tune.session.worker import Attempt

    order = settings["order"]
    try:
        Attempt(order, report).run()
    except Exception as error:  # its place is known here alone
        raise BrokenError(fault_of(error, order.params)) from None
