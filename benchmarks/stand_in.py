"""A stand-in for training: the trials of a sweep as they are, but their workers wait, and make scores up.

Everything else is the sweep's own: the process of a trial with its attempts, the leave for each epoch, the records, the
end. `StandIn` waits in the trial's process; `StandInApart` in an actor that takes the CPU of a node, as workers do.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tune.session.attempt_spec import Order, Take, Workers
from tune.session.ray_kv import EVERY
from tune.session.trainable import Trial
from tune.store.records import Record
from tune.store.results_store import ResultsStore

EPOCH_VARIABLE = "SEMPRIOR_BENCHMARK_EPOCH"
"""Seconds of an epoch; Ray's processes inherit it from the driver that starts them."""
WAITED = "waited_s"
"""The metric of an epoch that says how long it was held up: trained, but without the driver's leave to be recorded."""
_EVALUATE_EVERY = 3


def scores(trial: str, epochs: int) -> dict[int, float]:
    """By evaluated epoch: a curve that rises, in noise, to a height that is the trial's own."""
    rng = np.random.default_rng(zlib.crc32(trial.encode()))
    level, pace = rng.uniform(0.3, 0.8), epochs * rng.uniform(0.1, 0.3)
    due = range(_EVALUATE_EVERY - 1, epochs, _EVALUATE_EVERY)
    return {epoch: level * -math.expm1(-(epoch + 1) / pace) + float(rng.normal(0, 0.02)) for epoch in due}


class Epochs:
    """Trains the epochs of an attempt, so to speak, and records them.

    Args:
        order: what to do.
    """

    def __init__(self, order: Order) -> None:
        self.order, self.store = order, ResultsStore(order.uri)
        self.host = _node()
        self.epochs = int(order.leaves["epochs"])
        self.best: list[float] = []
        self.scores = scores(order.trial, self.epochs)

    def begin(self) -> int:
        """Record the start, after the epochs that earlier attempts have recorded; the first epoch."""
        known = self.store.curve(self.order.trial)
        first = known[-1].epoch + 1 if known else 0
        self.best = list(known[-1].values) if known else []
        self._append("start", first)
        return first

    def train(self) -> None:
        """Take the time of an epoch."""
        time.sleep(float(os.environ[EPOCH_VARIABLE]))

    def record(self, epoch: int, waited: float) -> list[float]:
        """Record an epoch, the last one with the trial's end; the best value so far."""
        score = self.scores.get(epoch)
        if score is not None:
            self.best = [max([score, *self.best])]
        self._append("report", epoch, {WAITED: waited, **({} if score is None else {"holdout/point_score": score})})
        return self.best

    def _append(self, kind: Any, epoch: int, metrics: dict[str, float] | None = None) -> None:  # noqa: ANN401
        order = self.order
        told: dict[str, Any] = {
            "trial": order.trial,
            "configuration": order.configuration,
            "seed": int(order.leaves["seed"]),
            "attempt": order.attempt,
            "config": dict(order.leaves),
            "params": dict(order.params),
            "values": tuple(self.best),
            "host": self.host,
            "device": "a clock",
        }
        records = [Record(kind=kind, epoch=epoch, metrics=metrics or {}, reason=order.note, **told)]
        if kind == "report" and epoch + 1 == self.epochs:
            records.append(Record(kind="end", epoch=self.epochs, state="completed", **told))
        self.store.append(records)


class _Clock:
    """The workers of an attempt, in the process of its trial.

    Args:
        order: what to do.
        report: takes what happens.
    """

    def __init__(self, order: Order, report: Take) -> None:
        self.order, self.report = order, report
        self.over = threading.Event()

    def fit(self) -> None:
        """Live through the epochs."""
        first = self.call("begin")
        for epoch in range(first, int(self.order.leaves["epochs"])):
            self.call("train")
            began = time.perf_counter()
            while epoch > first and not self.over.is_set() and not self.order.gate.is_open(epoch):
                time.sleep(EVERY)
            values = self.call("record", epoch, time.perf_counter() - began)
            self.report({"epoch": epoch, "values": values})

    def abort(self) -> None:
        """End it."""
        self.over.set()

    def call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        """Have something done, unless all is over."""
        if self.over.is_set():
            raise asyncio.CancelledError
        if not hasattr(self, "_epochs"):
            self._epochs = Epochs(self.order)
        return getattr(self._epochs, name)(*arguments)


class _ClockApart(_Clock):
    """The workers of an attempt, in an actor on whichever node has a CPU."""

    def fit(self) -> None:
        """Live through the epochs, and give the CPU back."""
        import ray

        # not among what Tune has set aside for the trial's own process
        apart = ray.remote(Epochs).options(num_cpus=1, scheduling_strategy="DEFAULT")
        self.actor = apart.remote(self.order)
        try:
            super().fit()
        except ray.exceptions.RayActorError as error:
            if self.over.is_set():
                raise asyncio.CancelledError from error
            raise
        finally:
            ray.kill(self.actor)

    def abort(self) -> None:
        """End it, also where it waits for a CPU."""
        import ray

        super().abort()
        if hasattr(self, "actor"):
            ray.kill(self.actor)

    def call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        """Have something done by the actor."""
        import ray

        if self.over.is_set():
            raise asyncio.CancelledError
        return ray.get(getattr(self.actor, name).remote(*arguments))


class StandIn(Trial):
    """A trial that waits in its own process."""

    @staticmethod
    def hire(order: Order, folder: str, report: Take, placed: Callable[[str], None]) -> Workers:
        """A clock."""
        del folder, placed
        return _Clock(order, report)


class StandInApart(Trial):
    """A trial that waits on a node with a free CPU."""

    @staticmethod
    def hire(order: Order, folder: str, report: Take, placed: Callable[[str], None]) -> Workers:
        """A clock elsewhere."""
        del folder, placed
        return _ClockApart(order, report)


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()
