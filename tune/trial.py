"""A trial as Ray Tune sees it: each step is an epoch of workers that this process controls, attempt after attempt."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ray import tune

from semprior.errors import StorageError, UserError
from semprior.storage import open_storage
from tune.diagnosis import fault_of
from tune.ends import end_trial, record_fault
from tune.faults import Fault, Kind, may_try_again
from tune.leases import Lease
from tune.order import Known, Order
from tune.records import Record
from tune.results import patient_store
from tune.standing import ending_in_words
from tune.workers import Hire, Take, Workers


@dataclass(frozen=True)
class Brief:
    """What a sweep's driver says of a trial.

    Attributes:
        order: for its workers; the attempt and what it goes on from are yet to be found out.
        before: the highest attempt of the trial when this driver began.
        heard: the last epoch that the driver knows of, -1 for none.
        retries: attempts that may follow one that failed.
        folder: of this machine, for what Ray Train writes.
    """

    order: Order
    before: int
    heard: int
    retries: int
    folder: str


class Trial(tune.Trainable):
    """Runs attempts of one trial until one of them ends it; then, if Tune likes, another trial in the same process."""

    @staticmethod
    def hire(order: Order, folder: str, report: Take, placed: Callable[[str], None]) -> Workers:
        """A Ray Train worker group."""
        from tune.group import group_for  # here: it takes seconds and memory that a benchmark's stand-in does without

        return group_for(order, folder, report, placed)

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the trial that ``config["brief"]`` describes."""
        self._attempts = Attempts(config["brief"], self.hire)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the trial that was stopped and begin another."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch; called when the driver has decided that the trial goes on.

        Returns:
            ``epoch``, ``values`` (the objectives at the best evaluation so far) and ``value``, the first of them, once
            there is one; ``done`` where the trial has ended by itself, or goes on when the sweep does, which has to
            stop now: with the reason as ``left``.
        """
        return self._attempts.next()

    def cleanup(self) -> None:
        """End the workers and give their slots back."""
        self._attempts.stop()


class Attempts:
    """The attempts of one trial, in a thread of their own.

    Args:
        brief: of the trial.
        hire: finds the workers of each.
    """

    def __init__(self, brief: Brief, hire: Hire) -> None:
        self.brief, self.heard, self._hire = brief, brief.heard, hire
        self.store = patient_store(brief.order.uri)
        self._told = brief.heard
        self._reports: queue.Queue[dict[str, Any] | Exception] = queue.Queue()
        self._order: Order | None = None
        self._workers: Workers | None = None
        self._leave = -1  # the epoch up to which there is leave
        self._stopped = False
        self._lock = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="attempts", daemon=True)
        self._thread.start()

    def next(self) -> dict[str, Any]:
        """Give leave for the epoch after the last one that was heard of, and wait for it.

        Raises:
            Exception: what nobody foresaw, so that the trial is begun anew.
        """
        with self._lock:
            self._leave = self.heard + 1
            if self._order is not None:
                self._order.gate.open(self._leave)
            self._lock.notify_all()
        report = self._reports.get()
        if isinstance(report, Exception):
            raise report
        with self._lock:
            self.heard = int(report.get("epoch", self.heard))
        return report

    def stop(self) -> None:
        """End the attempt that runs, and begin no other."""
        with self._lock:
            self._stopped = True
            if self._workers is not None:
                self._workers.abort()
            self._lock.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._reports.put(self._tried())
        except UserError as error:  # of the storage: nothing can be recorded now
            self._reports.put({"done": True, "left": str(error)})
        except asyncio.CancelledError as error:
            if not self._stopped:
                self._reports.put(RuntimeError(f"the workers were cancelled: {error}"))
        except Exception as error:
            self._reports.put(error if self._stopped else self._unforeseen(error))

    def _unforeseen(self, error: Exception) -> dict[str, Any] | Exception:
        """What to say of an error in this process: it is raised where Tune waits, which begins another one."""
        try:
            order = self._planned([])
            self._recorded(order, fault_of(error, order.params))
            return self._left() or error
        except Exception:  # the first error tells more
            return error

    def _tried(self) -> dict[str, Any]:
        """Run attempts until the trial has ended, or another process runs it."""
        faults: list[Fault] = self._known_faults()
        while not self._ended(faults):
            order = self._planned(faults)
            fault = self._attempt(order)
            if fault is None:
                continue
            if fault.kind is Kind.SUPERSEDED:
                return {"done": True, "left": f"{fault.reason}; another driver runs this sweep"}
            faults.append(self._recorded(order, fault))
            if left := self._left():
                return left
        return {"done": True}

    def _known_faults(self) -> list[Fault]:
        """Of attempts that a process of this trial saw before it died."""
        history = self.store.history(self.brief.order.trial)
        told = [record for record in history if record.kind == "fault" and record.attempt > self.brief.before]
        return [Fault.from_json(record.fault, record.reason) for record in told]

    def _recorded(self, order: Order, fault: Fault) -> Fault:
        """Log and record what an attempt broke off by, unless that was the storage."""
        from tune.trial_files import TrialFiles  # here: it takes seconds that few trials need

        if fault.kind is Kind.STORAGE:
            return fault
        files = TrialFiles(open_storage(order.uri), order.trial, order.attempt, writes=True)
        files.say(f"attempt {order.attempt} broke off: {fault.reason}" + (f"\n{fault.log}" if fault.log else ""))
        files.close()
        return record_fault(self.store, order, fault)

    def _left(self) -> dict[str, Any] | None:
        """What to say where faults, of whatever trials, end the sweep: this one goes on when it does."""
        ending = self.store.faults().ending()
        return {"done": True, "left": ending_in_words(ending, self.brief.order.uri)} if ending else None

    def _ended(self, faults: list[Fault]) -> bool:
        """Tell the driver what it missed; whether the trial has ended, or has to end because it failed too often."""
        history = self.store.history(self.brief.order.trial)
        for record in history:
            if record.kind == "report" and record.epoch > self._told:
                self._tell(record.epoch, record.values)
        if any(record.kind == "end" for record in history):
            return True
        told = max((record.attempt for record in history), default=0) - self.brief.before
        tried = max(told, len(faults))  # the store has none that it could not be told of
        if may_try_again(faults, tried, self.brief.retries):
            return False
        if faults and faults[-1].kind is Kind.STORAGE:
            raise StorageError(faults[-1].reason)
        reason = faults[-1].reason if faults else "its process died"
        times = f" (after {tried} attempts)" if tried > 1 else ""
        end_trial(self.store, self.brief.order, "failed", f"{reason}{times}")
        return True

    def _planned(self, faults: list[Fault]) -> Order:
        """The order of the next attempt, from what the store knows."""
        history = self.store.history(self.brief.order.trial)
        highest = max((record.attempt for record in history), default=0)
        note = faults[-1].reason if faults else "its process died" if highest > self.brief.before else ""
        note = history[-1].reason if history and history[-1].kind == "retry" else note
        known = [_known(record) for record in reversed(history) if record.kind == "report" and record.checkpoint]
        return replace(self.brief.order, attempt=highest + 1, resume=tuple(known), note=note, started=time.time())

    def _attempt(self, order: Order) -> Fault | None:
        lease = Lease(order.gate.name)
        workers = self._hire(order, self.brief.folder, self._take, lease.take)
        with self._lock:
            # what the driver had missed it may take for a reason to stop the trial: wait for what it says
            self._lock.wait_for(lambda: self._stopped or self._leave > self._told)
            if self._stopped:
                raise asyncio.CancelledError
            self._order, self._workers = order, workers
            order.gate.open(self._leave)
        try:
            workers.fit()
            return None
        except Exception as error:  # whatever ended the workers is counted and told
            if self._stopped:
                raise asyncio.CancelledError from error
            return fault_of(error, order.params)
        finally:
            with self._lock:
                self._order = self._workers = None
            order.gate.remove()
            lease.forget()

    def _take(self, metrics: Mapping[str, Any]) -> None:
        self._tell(int(metrics["epoch"]), tuple(metrics["values"]))

    def _tell(self, epoch: int, values: tuple[float, ...]) -> None:
        self._told = epoch
        self._reports.put({"epoch": epoch, "values": list(values), **({"value": values[0]} if values else {})})


def _known(record: Record) -> Known:
    return Known(str(record.checkpoint), str(record.sha256), record.values)
