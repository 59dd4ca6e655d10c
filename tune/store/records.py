"""Records of trials: one when an attempt starts or fails, one for each epoch, one for the end, one for each retry.

A record is self-contained: it includes the whole configuration, the provenance and the cost. As Parquet, a record has
one column per field and one per metric, such as ``metric/holdout/iou``; nested fields are JSON.

Each file name contains the schema version. A program reads files of its own schema version only.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from semprior.config.schema import with_present_names
from semprior.errors import UserError
from semprior.reading.json_text import parse_json

SCHEMA_VERSION = 5
METRIC_PREFIX = "metric/"
IMAGE_SUMS = "image-sums"
"""Folder of a sweep with the terms of evaluations, image by image: ``image-sums/TRIAL/ATTEMPT-EPOCH-SHA256.npz``."""
RECORD_KINDS = ("retry", "start", "report", "fault", "end")
RecordKind = Literal["retry", "start", "report", "fault", "end"]
BEGINNING = ("retry", "start", "report")
"""Kinds that state the epoch at which an attempt begins."""
State = Literal["running", "completed", "stopped", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One event in the life of a trial.

    Attributes:
        kind: ``start`` of an attempt, ``report`` of an epoch, ``fault`` that ended an attempt, ``end`` of the trial, or
            ``retry``: the trial begins again, and neither its end nor its earlier faults count.
        trial: id of the trial: "0007", or "0007.2" for configuration 7 with its third seed.
        configuration: number of the configuration; 0 is the base configuration.
        seed: seed of the run.
        attempt: number of the attempt, from 1.
        epoch: in a report, the epoch, from 0. In a start, the first epoch that the attempt trains; it hides the reports
            of lower attempts of this epoch and later ones. So does a retry, which has its own attempt number. In a
            fault and in an end, the number of trained epochs.
        config: all leaves of the resolved configuration, by flat keys.
        params: the leaves that the search chose, by flat keys.
        metrics: the metrics that the trainer reported, by flat names: ``inner_loss``, ``holdout/iou``.
        values: the objectives at the best evaluation so far, in the order of the sweep file; empty before that.
        best: whether the evaluation of this epoch is the best so far.
        state: state of the trial; ``running`` except in an end.
        reason: reason of the state: "stopped by asha at epoch 9"; in a fault, its message.
        fault: in a fault, its kind, mark and epochs (`tune.store.faults.Fault`).
        checkpoint: address of the checkpoint of this epoch, or of the one that a start continues from, relative to the
            folder of the sweep.
        sha256: SHA-256 of the manifest of that checkpoint.
        images: in the report of an evaluated epoch, SHA-256 of the file with its terms, image by image
            (`tune.comparison.stored_sums`); they are kept as `kept_images` says.
        wall_s: seconds since the previous record of this attempt, by the monotonic clock; in a start, since the attempt
            began to wait for resources, or on another machine than the trial's process, since the worker began.
        device_s: the same in device seconds: multiplied by the number of the trial's workers or GPUs.
        host: name of the machine.
        device: name of the device.
        precision: in which networks ran there, ``bf16`` or ``fp32``, whatever the setting says; empty where not known.
        instructions: of the processor, as far as torch uses them (`semprior.runtime.device.instruction_set`); empty
        likewise.
        revision: git revision of the code.
        versions: versions of the relevant packages, by name.
        data: SHA-256 of the data that the run uses (`semprior.training.trainer.data_digest`); empty if unknown.
        writer: id of the writer, from `new_writer_id`. Of equal attempts, that of the later writer counts.
        time: time at which the record was made, in seconds since 1970.
    """

    kind: RecordKind
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
    images: str | None = None
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
    def images_address(self) -> str | None:
        """Address of the terms of this evaluation, image by image, relative to the sweep; None if there are none."""
        if self.images is None:
            return None
        return f"{IMAGE_SUMS}/{self.trial}/{self.attempt}-{self.epoch:04d}-{self.images}.npz"

    @property
    def made_on(self) -> str:
        """Device, precision and instruction set, as far as they are known: ``x86_64, fp32, AVX2``."""
        return ", ".join(word for word in (self.device, self.precision, self.instructions) if word)


_WORD = pa.dictionary(pa.int32(), pa.string())
RECORD_SCHEMA = pa.schema(
    [
        # the columns that ranking reads of all records come first, so that they are adjacent in the file
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
        ("images", pa.string()),
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
"""The columns of all records. The columns of the metrics follow: float64, null if a record does not have the metric."""
JSON_COLUMNS = ("config", "params", "versions", "fault")
NULLABLE = ("checkpoint", "sha256", "images")
"""Columns that may be null, like those of the metrics."""
OUT_OF_HOURS = "the sweep's hours are over"
"""Reason of the end of a trial that was stopped because the budget of hours was spent."""


def trial_ids(number: int, runs: int) -> list[str]:
    """The trial ids of the runs of a configuration: ``0007``, or ``0007.0``, ``0007.1``, ... if there are several."""
    return [f"{number:04d}"] if runs == 1 else [f"{number:04d}.{run}" for run in range(runs)]


def run_index(trial: str) -> int:
    """The index of a trial among the runs of its configuration, from its id."""
    return int(trial.partition(".")[2] or 0)


def new_writer_id() -> str:
    """A unique id for a writer of records; later ids are greater."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}"


def to_table(records: Sequence[Record]) -> pa.Table:
    """Convert records to a table with one row per record."""
    texts: dict[int, str] = {}  # the records of a trial usually share one dictionary

    def text(value: Mapping[str, Any]) -> str:
        if id(value) not in texts:
            texts[id(value)] = json.dumps(dict(value))
        return texts[id(value)]

    arrays = []
    for column in RECORD_SCHEMA:
        values = [getattr(record, column.name) for record in records]
        if column.name in JSON_COLUMNS:
            values = [text(value) for value in values]
        array = pa.array(values, column.type.value_type if pa.types.is_dictionary(column.type) else column.type)
        arrays.append(array.dictionary_encode() if pa.types.is_dictionary(column.type) else array)
    metrics = dict.fromkeys(name for record in records for name in record.metrics)  # distinct, in order
    arrays += [pa.array([r.metrics.get(name) for r in records], pa.float64()) for name in metrics]
    columns = [*RECORD_SCHEMA, *(pa.field(METRIC_PREFIX + name, pa.float64()) for name in metrics)]
    return pa.table(arrays, schema=pa.schema(columns))


def from_table(table: pa.Table) -> list[Record]:
    """Convert a table to records. Fields without a column have their defaults."""
    known = {item.name for item in dataclasses.fields(Record)}
    metrics = [name for name in table.column_names if name.startswith(METRIC_PREFIX)]
    records = []
    for row in table.select([name for name in table.column_names if name in known or name in metrics]).to_pylist():
        fields = {name: value for name, value in row.items() if name in known and value is not None}
        fields |= {name: _parsed(fields[name]) for name in JSON_COLUMNS if name in fields}
        if "values" in fields:
            fields["values"] = tuple(fields["values"] or ())
        measured = {name.removeprefix(METRIC_PREFIX): row[name] for name in metrics if row[name] is not None}
        records.append(Record(metrics=measured, **fields))
    return records


@functools.lru_cache(1024)
def _parsed(text: str) -> dict[str, Any]:
    """The JSON object in a text, which is shared by all records that have it; leaves have their names of today.

    Raises:
        UserError: it is none.
    """
    return with_present_names(parse_json(text, dict[str, Any], "a record"))


def row_fault(table: pa.Table) -> str:
    """Why rows with the columns of records, or some of them, are no records; empty if they are.

    The types of the columns are right already.
    """
    for name in table.column_names:
        column = table[name]
        if name.startswith(METRIC_PREFIX) or name in NULLABLE:
            continue
        if column.null_count or (name == "values" and pc.list_flatten(column).null_count):
            return f"has a row without a value of {name!r}"
        if name in _SMALLEST and len(column) and pc.min(column).as_py() < _SMALLEST[name]:
            return f"has a row with a {name!r} below {_SMALLEST[name]}"
        if name in (*_WORDS, *JSON_COLUMNS, "trial"):
            for word in column.unique().to_pylist():
                if not _is_valid(name, word):
                    return f"has a row with {word[:80]!r} as its {name!r}"
    return ""


_SMALLEST = {"attempt": 0, "epoch": 0, "configuration": 0}
_WORDS: dict[str, tuple[str, ...]] = {"kind": RECORD_KINDS, "state": get_args(State)}


def _is_valid(column: str, word: str) -> bool:
    if column == "trial":
        return bool(word)
    if column in _WORDS:
        return word in _WORDS[column]
    try:
        content = _parsed(word)
    except UserError:
        return False
    return column != "fault" or not content or {"kind", "mark", "epochs"} <= content.keys()


def record_order(record: Record) -> tuple[str, int, str, int, int, float]:
    """The sort key of records: trial, attempt, writer, epoch, kind and time."""
    return record.trial, record.attempt, record.writer, record.epoch, RECORD_KINDS.index(record.kind), record.time


def visible(records: Iterable[Record]) -> list[Record]:
    """Select the records of one trial that count, in order.

    An attempt begins at an epoch: that of its start, or of its first report if there is no start. It hides the reports
    of lower attempts of that epoch and later ones, however late they are written, so that each epoch has one report. Of
    equal attempts, that of the later writer is the higher one. Of the ends of the highest attempt, the latest counts.
    Of records with the same trial, attempt, writer, epoch and kind, the latest counts.

    `tune.store.visible_records.find_visible_records` does the same for millions of rows.
    """
    distinct = sorted(records, key=record_order)
    distinct = list({(r.attempt, r.writer, r.epoch, r.kind): r for r in distinct}.values())
    begins: dict[tuple[int, str], int] = {}
    for record in distinct:
        if record.kind in BEGINNING:
            author = (record.attempt, record.writer)
            begins[author] = min(record.epoch, begins.get(author, record.epoch))
    ends = [r for r in distinct if r.kind == "end" and r.attempt == max(other.attempt for other in distinct)]
    end = max(ends, key=lambda r: r.time, default=None)
    counting = []
    for record in distinct:
        later = [epoch for author, epoch in begins.items() if author > (record.attempt, record.writer)]
        hidden = record.kind == "report" and bool(later) and record.epoch >= min(later)
        if record is end if record.kind == "end" else not hidden:
            counting.append(record)
    return counting


def kept_checkpoints(history: Sequence[Record]) -> set[str]:
    """The addresses of a trial's checkpoints that are kept.

    While the trial runs, those are the last two and the best; after its end, the best alone. Of a trial that failed the
    last is kept, too, because `retry` continues from it. They depend on the visible records alone, so that every reader
    of the store knows which addresses are still valid.

    Args:
        history: the visible records of the trial, in order (`records.visible`).
    """
    reports = [record for record in history if record.kind == "report" and record.checkpoint]
    best = [record for record in reports if record.best][-1:]
    states = [record.state for record in history if record.kind == "end"]
    if states:
        last = reports[-1:] if not best or states[-1] == "failed" else []
        return {str(record.checkpoint) for record in [*best, *last]}
    again = max((record.attempt for record in history if record.kind == "retry"), default=0)
    removed = [record for record in reports if record.attempt < again][:-1]  # when the trial had failed
    return {str(record.checkpoint) for record in [*best, *(r for r in reports[-2:] if r not in removed)]}


def kept_images(history: Sequence[Record]) -> set[str]:
    """The addresses of a trial's terms by image that are kept: those of the best evaluation and of the last one.

    Args:
        history: the visible records of the trial, in order (`records.visible`).
    """
    reports = [record for record in history if record.kind == "report" and record.images]
    best = [record for record in reports if record.best][-1:]
    return {str(record.images_address) for record in [*best, *reports[-1:]]}


def with_kept_checkpoints(history: Sequence[Record]) -> list[Record]:
    """The history of a trial, without the addresses of checkpoints that are not kept."""
    kept = kept_checkpoints(history)
    return [
        record
        if record.checkpoint is None or record.checkpoint in kept
        else dataclasses.replace(record, checkpoint=None)
        for record in history
    ]
