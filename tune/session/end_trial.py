"""The end of a trial, recorded by whoever ends it from outside: its driver, or the process that ran its attempts."""

from __future__ import annotations

import contextlib
import platform
import time
from dataclasses import replace

from semprior.errors import StorageError
from tune.session.attempt_spec import Order
from tune.store.checkpoints import SupersededError, prune
from tune.store.records import Record, State
from tune.store.results_store import ResultsStore


def end_trial(store: ResultsStore, order: Order, state: State, reason: str) -> Record:
    """Record how a trial ended, unless its end is recorded; it keeps its best.

    Args:
        store: of the sweep.
        order: of the trial, whichever attempt.
        state: to record.
        reason: in words.

    Returns:
        The end that counts.

    Raises:
        StorageError: the storage cannot be read or written; the trial has not ended then.
    """
    history = store.history(order.trial)
    ended = [record for record in history if record.kind == "end"]
    if ended:
        return ended[0]
    reports = [record for record in history if record.kind == "report"]
    known = reports or history
    about = known[-1] if known else _unknown(order)
    attempt = max([order.attempt, *(record.attempt for record in history)])
    end = replace(
        about,
        kind="end",
        attempt=attempt,
        epoch=reports[-1].epoch + 1 if reports else 0,
        values=reports[-1].values if reports else (),
        metrics={},
        best=False,
        state=state,
        reason=reason,
        checkpoint=None,
        sha256=None,
        wall_s=0.0,
        device_s=0.0,
        writer="",
        time=time.time(),
    )
    store.append([end])
    # What is recorded has happened. Another attempt that began meanwhile will prune; what a storage does not let go of
    # stays there, but no reader takes it for kept.
    with contextlib.suppress(SupersededError, StorageError):
        prune(store, order.trial, attempt)
    return end


def _unknown(order: Order) -> Record:
    return Record(
        kind="end",
        trial=order.trial,
        configuration=order.configuration,
        seed=int(order.leaves["seed"]),
        attempt=max(1, order.attempt),
        epoch=0,
        config=dict(order.leaves),
        params=dict(order.params),
        host=platform.node(),
    )
