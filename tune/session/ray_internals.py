"""Everything of this package that relies on private names of Ray Train, as read in Ray 2.60.

`pyproject.toml` bounds Ray to the minor version that this was read in, and `tests/test_ray_internals.py` fails first
when one of the names moves.

The configuration and the trainer come from `ray.train.v2`, because `ray.train`, their public place, chooses between two
generations of classes when it is imported, and type checkers see the old one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.torch.config import TorchConfig, _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import RayTrainError
from ray.train.v2._internal.execution.callback import ReportCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.training_report import _TrainingReport
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer

from tune.session.attempt_spec import ReportHandler

__all__ = ["FailureConfig", "InProcessTrainer", "RayTrainError", "RunConfig", "ScalingConfig", "underlying_error"]


class _ReportListener(ReportCallback):
    """Passes on what the first worker reports.

    `ray.train.UserCallback`, the public way, belongs to the run's configuration, which Ray Train pickles.
    """

    def __init__(self, on_report: ReportHandler) -> None:
        self._on_report = on_report

    def after_report(self, training_report: _TrainingReport, metrics: list[dict[str, Any]]) -> None:
        del training_report
        self._on_report(metrics[0])


class _PlainWorkerGroup(WorkerGroup):
    """Workers without a runtime environment of their own, which therefore start in idle processes of Ray."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Mapping[str, Any]) -> dict[str, Any]:
        return dict(custom_runtime_env)


class _CancellableController(TrainController):
    """A controller that can be cancelled while it waits for resources, which blocks its event loop each time."""

    worker_group_cls = _PlainWorkerGroup

    async def _run_control_loop_iteration(self) -> None:
        await asyncio.sleep(0)
        await super()._run_control_loop_iteration()  # type: ignore[no-untyped-call]


class _UnannouncedScalingPolicy(FixedScalingPolicy):
    """A fixed number of workers, of which no autoscaling coordinator is told.

    The coordinator is one more actor, and Ray's autoscaler adds nodes for a placement group that waits without it.
    """

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        del train_run_context

    def _maybe_send_resource_request(self) -> None:
        return

    def _cancel_resource_request(self) -> None:
        return


_LOOPBACK = "127.0.0.1"
_meeting_point: list[Any] = []
"""The `TCPStore` at which the workers of an attempt meet; in the process of the first worker, which serves it."""


class _OneNodeBackend(_TorchBackend):
    """Sets up `torch.distributed`: workers of one node meet on loopback, and a single worker meets nobody.

    With Ray's own backend, which workers on several nodes get, the first worker listens on all interfaces, even if it
    is the only one, and asks for no token. Whoever reaches that port reads and writes what the workers agree on.
    """

    def on_start(self, worker_group: Any, backend_config: Any) -> None:  # noqa: ANN401 - of two generations of classes
        count = len(worker_group)
        if count == 1:
            return
        if len(set(worker_group.execute(_node))) > 1:
            super().on_start(worker_group, backend_config)
            return
        port = worker_group.execute_single(0, _serve, count)
        settings = (backend_config.backend, port, count, backend_config.timeout_s)
        ray.get([worker_group.execute_single_async(rank, _meet, rank, *settings) for rank in range(count)])


@dataclass
class _OneNodeConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[_OneNodeBackend]:
        return _OneNodeBackend


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _serve(count: int) -> int:
    """Start the store of a process group in this process, and return its port."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch re-exports it without saying so

    listener = socket.create_server((_LOOPBACK, 0))  # a TCPStore that opens its own listens on all interfaces
    port = int(listener.getsockname()[1])
    _meeting_point[:] = [
        TCPStore(_LOOPBACK, port, count, True, wait_for_workers=False, master_listen_fd=listener.detach())
    ]
    return port


def _meet(rank: int, backend: str, port: int, count: int, timeout_s: int) -> None:
    """Join the process group whose store listens at a port of this node."""
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    interface = "lo0" if sys.platform == "darwin" else "lo"
    os.environ |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    store = _meeting_point[0] if rank == 0 else TCPStore(_LOOPBACK, port, count, False)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timedelta(seconds=timeout_s))


class InProcessTrainer(TorchTrainer):
    """A `TorchTrainer` whose controller runs in this process. `fit` trains; `abort`, from another thread, ends it.

    Args:
        on_report: receives what the first worker reports, in the thread of `fit`.
        **settings: arguments of `TorchTrainer`.
    """

    def __init__(self, on_report: ReportHandler, **settings: Any) -> None:  # noqa: ANN401 - those of Ray Train
        super().__init__(torch_config=_OneNodeConfig(), **settings)
        self._listener = _ReportListener(on_report)
        self._lock = threading.Lock()
        self._aborted = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None

    def abort(self) -> None:
        """End the workers at once; `fit` then raises `asyncio.CancelledError`. Has no effect after the end."""
        with self._lock:
            self._aborted = True
            if self._running is not None:
                loop, task = self._running
                loop.call_soon_threadsafe(task.cancel)

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        # Each of the two starts an actor: one frees the placement group, which `fit` does itself, and the other serves
        # Ray data sets, which are not used.
        unused = (PlacementGroupCleanerCallback, DatasetsCallback)
        callbacks = super()._create_default_callbacks()
        return [*(callback for callback in callbacks if not isinstance(callback, unused)), self._listener]

    def _initialize_and_run_controller(self, **controller_init_kwargs: Any) -> Result:  # noqa: ANN401 - Ray Train's
        controller_init_kwargs["scaling_policy"] = _UnannouncedScalingPolicy(self.train_run_context.scaling_config)
        return asyncio.run(self._control(_CancellableController(**controller_init_kwargs)))

    async def _control(self, controller: TrainController) -> Result:
        task = asyncio.ensure_future(controller.run())  # type: ignore[no-untyped-call]
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
            group = controller.get_worker_group()
            if group is not None:
                group.abort()  # type: ignore[no-untyped-call]


def underlying_error(failure: BaseException) -> BaseException:
    """The error that Ray Train has wrapped: the worker's own exception, or the failure of its health check."""
    for attribute in ("_base_exc", "health_check_failure"):
        failure = getattr(failure, attribute, failure)
    return failure
