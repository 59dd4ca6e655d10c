"""What is remembered of a trial: when an attempt starts or breaks off, each epoch, its end, and when it is begun again.

A record stands for itself: it holds the whole configuration, where and with what it was made, and what it cost. Its
Parquet form has one column a field and one a metric, ``metric/holdout/iou``; what is nested is JSON.

Schema versions: 1, the first; 2 adds ``data``; 3 adds ``precision``, ``instructions``, ``fault``, and the kinds
``fault`` and ``retry``. A newer program reads older files, whose records have the defaults of what they lack; an older
program refuses newer files.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

SCHEMA_VERSION = 3
METRIC = "metric/"
KINDS = ("retry", "start", "report", "fault", "end")
Kind = Literal["retry", "start", "report", "fault", "end"]
BEGINNING = ("retry", "start", "report")
"""Kinds that say at which epoch an attempt begins."""
State = Literal["running", "completed", "stopped", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One thing that happened to a trial.

    Attributes:
        kind: ``start`` of an attempt, ``report`` of an epoch, ``fault`` that an attempt broke off by, ``end`` of the
            trial, ``retry``: the trial is begun again, and neither its end nor its faults until then count.
        trial: its id, "0007", or "0007.2" for configuration 7 with its third seed.
        configuration: its number; 0 is the preset itself.
        seed: of the run.
        attempt: counted from 1 over the starts of the trial.
        epoch: of a report, counted from 0. Of a start, the first epoch that this attempt will train: whatever lower
            attempts say of it and of later ones no longer counts. Of a retry likewise, which has a number among the
            attempts. Of a fault and an end, the number of epochs trained.
        config: every leaf of the run's settings, resolved, by flat keys.
        params: what the search chose, by flat keys.
        metrics: what the trainer reported, flat: ``inner_loss``, ``holdout/iou``, ``holdout/iou_se``.
        values: the objectives at the best evaluation so far, in the sweep file's order; empty before the first.
        best: whether this epoch's evaluation is the best so far.
        state: of the trial: ``running`` but in an end.
        reason: of the state, in words: "stopped by asha at epoch 9"; or what broke off.
        fault: of a fault, what else is known of it (`tune.faults.Fault`): kind, mark, epochs of that attempt.
        checkpoint: of this epoch, or that a start goes on from; its address relative to the sweep's folder.
        sha256: of that checkpoint's manifest.json.
        wall_s: seconds since this attempt's record before (of a start: since the process started).
        device_s: the same in device seconds, times the trial's workers or GPUs. Their sum is what a trial cost.
        host: name of the machine.
        device: name of the device.
        precision: in which networks ran there, ``bf16`` or ``fp32``, whatever the setting says; empty where not known.
        instructions: of the processor, as far as torch uses them (`semprior.devices.instruction_set`); empty likewise.
        revision: git revision of the code.
        versions: of the packages that matter, by name.
        data: SHA-256 of what the run takes from its data (`semprior.trainer.data_digest`); empty where it is not known.
        writer: who wrote it, from `new_writer`; of two with equal attempts the later one counts.
        time: seconds since 1970, when it was made.
    """

    kind: Kind
    trial: str
    configuration: int
    seed: int
    attempt: int
    epoch: int
    config: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    best: bool = False
    state: State = "running"
    reason: str = ""
    fault: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    sha256: str | None = None
    wall_s: float = 0.0
    device_s: float = 0.0
    host: str = ""
    device: str = ""
    precision: str = ""
    instructions: str = ""
    revision: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    writer: str = ""
    time: float = field(default_factory=time.time)

    @property
    def made_on(self) -> str:
        """Device, precision and instruction set, as far as they are known: ``x86_64, fp32, AVX2``."""
        return ", ".join(word for word in (self.device, self.precision, self.instructions) if word)


_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        # first what ranking reads of every record, so that it lies together in the file
        ("trial", _WORD),
        ("attempt", pa.int32()),
        ("epoch", pa.int32()),
        ("kind", _WORD),
        ("configuration", pa.int32()),
        ("wall_s", pa.float64()),
        ("device_s", pa.float64()),
        ("writer", _WORD),
        ("time", pa.float64()),
        ("seed", pa.int64()),
        ("state", _WORD),
        ("reason", _WORD),
        ("values", pa.list_(pa.float64())),
        ("best", pa.bool_()),
        ("checkpoint", pa.string()),
        ("sha256", pa.string()),
        ("host", _WORD),
        ("device", _WORD),
        ("precision", _WORD),
        ("instructions", _WORD),
        ("revision", _WORD),
        ("versions", _WORD),
        ("data", _WORD),
        ("params", _WORD),
        ("config", _WORD),
        ("fault", _WORD),
    ]
)
"""The columns of every record; those of metrics follow, float64 each, null where a record has no such metric."""
ADDED = {"data": 2, "precision": 3, "instructions": 3, "fault": 3}
"""The schema version that a column came with; the others came with the first."""
JSON = ("config", "params", "versions", "fault")


def new_writer() -> str:
    """A name for whoever writes records, unlike any other; later ones are greater."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}"


def to_table(records: Sequence[Record]) -> pa.Table:
    """Records as a table, in their order."""
    texts: dict[int, str] = {}  # records of one trial mostly share one dictionary

    def text(value: Mapping[str, Any]) -> str:
        if id(value) not in texts:
            texts[id(value)] = json.dumps(dict(value))
        return texts[id(value)]

    arrays = []
    for column in SCHEMA:
        held = [getattr(record, column.name) for record in records]
        if column.name in JSON:
            held = [text(value) for value in held]
        array = pa.array(held, column.type.value_type if pa.types.is_dictionary(column.type) else column.type)
        arrays.append(array.dictionary_encode() if pa.types.is_dictionary(column.type) else array)
    metrics = {name: None for record in records for name in record.metrics}  # a set that keeps its order
    arrays += [pa.array([r.metrics.get(name) for r in records], pa.float64()) for name in metrics]
    columns = [*SCHEMA, *(pa.field(METRIC + name, pa.float64()) for name in metrics)]
    return pa.table(arrays, schema=pa.schema(columns))


def from_table(table: pa.Table) -> list[Record]:
    """The records of a table, in its order; columns that it lacks have their defaults."""
    known = {item.name for item in dataclasses.fields(Record)}
    metrics = [name for name in table.column_names if name.startswith(METRIC)]
    parsed: dict[str, dict[str, Any]] = {}

    def parse(text: str) -> dict[str, Any]:
        if text not in parsed:
            parsed[text] = json.loads(text)
        return parsed[text]

    found = []
    for row in table.select([name for name in table.column_names if name in known or name in metrics]).to_pylist():
        fields = {name: value for name, value in row.items() if name in known and value is not None}
        fields |= {name: parse(fields[name] or "{}") for name in JSON if name in fields}
        if "values" in fields:
            fields["values"] = tuple(fields["values"] or ())
        held = {name.removeprefix(METRIC): row[name] for name in metrics if row[name] is not None}
        found.append(Record(metrics=held, **fields))
    return found


def order(record: Record) -> tuple[str, int, str, int, int, float]:
    """The order in which records are kept and told: by trial, attempt, writer, epoch, kind and time."""
    return record.trial, record.attempt, record.writer, record.epoch, KINDS.index(record.kind), record.time


def visible(records: Iterable[Record]) -> list[Record]:
    """Of one trial's records those that count, in their order.

    An attempt begins at an epoch: that of its start, or of its first report where no start is known. What lower
    attempts say of that epoch and later ones does not count, however late it is written. So the reports that are left
    tell every epoch once. Of equal attempts the later writer's is the higher. One end counts: of those of the highest
    attempt the last in time. Where a writer says a thing twice, the later time counts.

    This is the plain form of `tune.arrange.arrange`, which does the same to millions of rows.
    """
    told = sorted(records, key=order)
    told = list({(r.attempt, r.writer, r.epoch, r.kind): r for r in told}.values())
    begins: dict[tuple[int, str], int] = {}
    for record in told:
        if record.kind in BEGINNING:
            who = (record.attempt, record.writer)
            begins[who] = min(record.epoch, begins.get(who, record.epoch))
    ends = [r for r in told if r.kind == "end" and r.attempt == max(other.attempt for other in told)]
    end = max(ends, key=lambda r: r.time, default=None)
    kept = []
    for record in told:
        cut = [epoch for who, epoch in begins.items() if who > (record.attempt, record.writer)]
        counts = record.epoch < min(cut) if record.kind == "report" and cut else True
        if record is end if record.kind == "end" else counts:
            kept.append(record)
    return kept
