"""Records that a driver, or the process of a trial, writes about a trial: its end, a fault, a retry.

The other records, of the start of an attempt and of its epochs, are written by the attempt's first worker.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from semprior.errors import StorageError
from tune.session.attempt_spec import AttemptSpec
from tune.store.checkpoints import SupersededError, prune
from tune.store.faults import Fault
from tune.store.records import Record, State
from tune.store.results_store import ResultsStore


def end_trial(store: ResultsStore, spec: AttemptSpec, state: State, reason: str) -> Record:
    """Record the end of a trial, unless an end is recorded already. The trial keeps its best checkpoint.

    Args:
        store: the store of the sweep.
        spec: the specification of any attempt of the trial.
        state: the final state of the trial.
        reason: the reason of this state.

    Returns:
        The end that counts.

    Raises:
        StorageError: the storage cannot be read or written, and the trial has not ended.
    """
    history = store.history(spec.trial)
    ended = [record for record in history if record.kind == "end"]
    if ended:
        return ended[0]
    attempt = max([spec.attempt, *(record.attempt for record in history)])
    end = replace(_template(history, spec), kind="end", attempt=attempt, state=state, reason=reason)
    store.append([end])
    # The end is recorded, whatever happens to the checkpoints: a later attempt prunes them itself, and readers ignore
    # those that a storage does not delete.
    with contextlib.suppress(SupersededError, StorageError):
        prune(store, spec.trial, attempt)
    return end


def record_fault(store: ResultsStore, spec: AttemptSpec, fault: Fault) -> Fault:
    """Record the fault that ended an attempt.

    Args:
        store: the store of the sweep.
        spec: the specification of the attempt.
        fault: the fault, without the number of epochs that the attempt trained.

    Returns:
        The fault with this number.

    Raises:
        StorageError: the storage cannot be read or written.
    """
    history = store.history(spec.trial)
    trained = sum(record.kind == "report" and record.attempt == spec.attempt for record in history)
    fault = replace(fault, epochs=trained)
    record = replace(
        _template(history, spec), kind="fault", attempt=spec.attempt, reason=fault.reason, fault=fault.to_json()
    )
    store.append([record])
    return fault


def retry_trials(store: ResultsStore, trials: Collection[str], reason: str) -> None:
    """Let trials continue from their last checkpoints, as if they had neither ended nor failed.

    Args:
        store: the store of the sweep.
        trials: ids of trials that the store knows.
        reason: the reason of the retry.

    Raises:
        StorageError: the storage cannot be read or written, and none of the trials is retried.
    """
    histories = store.histories(trials) if trials else {}
    store.append(
        replace(_following(history), kind="retry", attempt=1 + max(record.attempt for record in history), reason=reason)
        for history in histories.values()
    )


def _template(history: Sequence[Record], spec: AttemptSpec) -> Record:
    return _following(history) if history else _without_history(spec)


def _following(history: Sequence[Record]) -> Record:
    """A record with what the records of a trial have in common, after the epochs that count."""
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
        images=None,
        wall_s=0.0,
        device_s=0.0,
        writer="",
        time=time.time(),
    )


def _without_history(spec: AttemptSpec) -> Record:
    return Record(
        kind="end",
        trial=spec.trial,
        configuration=spec.configuration,
        seed=int(spec.config["seed"]),
        attempt=max(1, spec.attempt),
        epoch=0,
        config=dict(spec.config),
        params=dict(spec.params),
        host=platform.node(),
    )
