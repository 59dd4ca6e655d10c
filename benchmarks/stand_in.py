"""A stand-in for training: the trials of a sweep with workers that sleep and make up their scores.

Everything else is real: the process of a trial with its attempts, the permission for each epoch, the records, the end.
`StandIn` sleeps in the trial's process; `StandInApart` in an actor that takes the CPU of a node, as workers do.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
import zlib
from typing import Any

import numpy as np

from tune.session.attempt_spec import AttemptSpec, ReportHandler, Workers
from tune.session.trainable import TrialTrainable
from tune.store.records import Record
from tune.store.results_store import ResultsStore

EPOCH_VARIABLE = "SEMPRIOR_BENCHMARK_EPOCH"
"""Seconds of an epoch; Ray's processes inherit it from the driver that starts them."""
WAITED = "waited_s"
"""The metric that says how long a trained epoch waited for the permission to be recorded."""
_EVALUATE_EVERY = 3


def scores(trial: str, epochs: int) -> dict[int, float]:
    """By evaluated epoch: a curve that rises, in noise, to a height that is the trial's own."""
    rng = np.random.default_rng(zlib.crc32(trial.encode()))
    level, pace = rng.uniform(0.3, 0.8), epochs * rng.uniform(0.1, 0.3)
    due = range(_EVALUATE_EVERY - 1, epochs, _EVALUATE_EVERY)
    return {epoch: level * -math.expm1(-(epoch + 1) / pace) + float(rng.normal(0, 0.02)) for epoch in due}


class Epochs:
    """Makes up the epochs of an attempt and records them.

    Args:
        spec: the specification of the attempt.
    """

    def __init__(self, spec: AttemptSpec) -> None:
        self.spec, self.store = spec, ResultsStore(spec.uri)
        self.host = _node()
        self.epochs = int(spec.config["epochs"])
        self.best: list[float] = []
        self.scores = scores(spec.trial, self.epochs)

    def begin(self) -> int:
        """Record the start, after the epochs that earlier attempts have recorded; the first epoch."""
        known = self.store.curve(self.spec.trial)
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
        spec = self.spec
        common: dict[str, Any] = {
            "trial": spec.trial,
            "configuration": spec.configuration,
            "seed": int(spec.config["seed"]),
            "attempt": spec.attempt,
            "config": dict(spec.config),
            "params": dict(spec.params),
            "values": tuple(self.best),
            "host": self.host,
            "device": "a clock",
        }
        records = [Record(kind=kind, epoch=epoch, metrics=metrics or {}, reason=spec.reason, **common)]
        if kind == "report" and epoch + 1 == self.epochs:
            records.append(Record(kind="end", epoch=self.epochs, state="completed", **common))
        self.store.append(records)


class Clock:
    """The workers of an attempt, in the process of its trial.

    Args:
        spec: the specification of the attempt.
        on_report: receives each epoch.
    """

    def __init__(self, spec: AttemptSpec, on_report: ReportHandler) -> None:
        self.spec, self.on_report = spec, on_report
        self.over = threading.Event()

    def fit(self) -> None:
        """Sleep through the epochs."""
        first = self.call("begin")
        for epoch in range(first, int(self.spec.config["epochs"])):
            self.call("train")
            began = time.perf_counter()
            if epoch > first:
                self.spec.registry.wait(self.spec.name, epoch)
            values = self.call("record", epoch, time.perf_counter() - began)
            self.on_report({"epoch": epoch, "values": values})

    def abort(self) -> None:
        """End it."""
        self.over.set()

    def call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        """Call a method of the epochs, unless the attempt was aborted."""
        if self.over.is_set():
            raise asyncio.CancelledError
        if not hasattr(self, "_epochs"):
            self._epochs = Epochs(self.spec)
        return getattr(self._epochs, name)(*arguments)


class _ClockApart(Clock):
    """The workers of an attempt, in an actor on whichever node has a CPU."""

    def fit(self) -> None:
        """Sleep through the epochs, and free the CPU."""
        import ray

        # not among what Tune has set aside for the trial's own process
        apart = ray.remote(Epochs).options(num_cpus=1, scheduling_strategy="DEFAULT")
        self.actor = apart.remote(self.spec)
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
        """Call a method of the actor."""
        import ray

        if self.over.is_set():
            raise asyncio.CancelledError
        return ray.get(getattr(self.actor, name).remote(*arguments))


class StandIn(TrialTrainable):
    """A trial that waits in its own process."""

    @staticmethod
    def make_workers(spec: AttemptSpec, folder: str, on_report: ReportHandler) -> Workers:
        """Make a clock."""
        del folder
        return Clock(spec, on_report)


class StandInApart(TrialTrainable):
    """A trial that waits on a node with a free CPU."""

    @staticmethod
    def make_workers(spec: AttemptSpec, folder: str, on_report: ReportHandler) -> Workers:
        """Make a clock on another node."""
        del folder
        return _ClockApart(spec, on_report)


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()
