"""What is recorded of a trial from outside, by its driver or by the process that runs its attempts.

Its end; what an attempt broke off by; and that it is begun again.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from semprior.errors import StorageError
from tune.faults import Fault
from tune.order import Order
from tune.records import Record, State
from tune.results import ResultsStore
from tune.retention import SupersededError, prune


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
    attempt = max([order.attempt, *(record.attempt for record in history)])
    about = _about(history) if history else _unknown(order)
    end = replace(about, kind="end", attempt=attempt, state=state, reason=reason)
    store.append([end])
    # What is recorded has happened. Another attempt that began meanwhile will prune; what a storage does not let go of
    # stays there, but no reader takes it for kept.
    with contextlib.suppress(SupersededError, StorageError):
        prune(store, order.trial, attempt)
    return end


def record_fault(store: ResultsStore, order: Order, fault: Fault) -> Fault:
    """Record what an attempt of a trial broke off by.

    Args:
        store: of the sweep.
        order: of the attempt.
        fault: but for the epochs that the attempt trained.

    Returns:
        The fault, with these epochs.

    Raises:
        StorageError: the storage cannot be read or written.
    """
    history = store.history(order.trial)
    trained = sum(record.kind == "report" and record.attempt == order.attempt for record in history)
    fault = replace(fault, epochs=trained)
    about = _about(history) if history else _unknown(order)
    told = replace(about, kind="fault", attempt=order.attempt, reason=fault.reason, fault=fault.to_json())
    store.append([told])
    return fault


def begin_again(store: ResultsStore, trials: Collection[str], reason: str) -> None:
    """Let trials go on from their last checkpoints, as if they had neither ended nor failed.

    Args:
        store: of the sweep.
        trials: ids of trials that the store knows.
        reason: in words.

    Raises:
        StorageError: the storage cannot be read or written; none of them is begun again then.
    """
    known = store.histories(trials) if trials else {}
    store.append(
        replace(_about(history), kind="retry", attempt=1 + max(record.attempt for record in history), reason=reason)
        for history in known.values()
    )


def _about(history: Sequence[Record]) -> Record:
    """What a trial's records say of it, for one more, after the epochs that count."""
    reports = [record for record in history if record.kind == "report"]
    return replace(
        (reports or history)[-1],
        epoch=reports[-1].epoch + 1 if reports else 0,
        values=reports[-1].values if reports else (),
        metrics={},
        best=False,
        state="running",
        reason="",
        fault={},
        checkpoint=None,
        sha256=None,
        wall_s=0.0,
        device_s=0.0,
        writer="",
        time=time.time(),
    )


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
