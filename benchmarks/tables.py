"""The published tables of the field and, beside them, what our checkpoints reach on the same test images.

    python -m benchmarks.tables [--table sirst3|v1|nudt|irstd] [--detector NAME ...] [--results FILE] [--json]
    python -m benchmarks.tables --runs RUN ... --data DIR --table v1 [--results FILE]

Published rows are those of `benchmarks/published.csv`. Ours are those of a results file; ``--runs`` evaluates the
students and teachers of runs on the test split of a data set first, by the convention `paper` of docs/metrics.md, and
adds them to that file. On a joined data set with `subset.csv`, the subsets `sirst-v1`, `nudt-sirst` and `irstd-1k` are
rows of their own tables, too. Runs that differ in nothing but their seed are one row: with several seeds the mean and
its standard error over seeds, with one seed the bootstrap error over images. Rows that were measured on other test
images than those of the table are marked.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from semprior.config.schema import flatten
from semprior.deployment.evaluate import Evaluation, evaluate
from semprior.deployment.load_model import CheckpointInfo, load_student, load_teacher
from semprior.errors import UserError
from semprior.evaluation.breakdown import Part, part_of
from semprior.evaluation.conventions import CONVENTIONS
from semprior.io.atomic_files import write_atomically

PUBLISHED = Path(__file__).with_name("published.csv")
RESULTS = Path(__file__).with_name("results.jsonl")
METRICS = ("iou", "niou", "pd", "fa")
FACTORS = {"iou": 100, "niou": 100, "pd": 100, "fa": 1}
CONVENTION = "paper"
MARK = "†"


@dataclass(frozen=True)
class TestSet:
    """The test images that a table is about.

    Attributes:
        title: of the table.
        images: number of them.
        targets: number of true components in them.
        subset: name of the part of SIRST3 that it is, as `data join` writes it; None for SIRST3.
    """

    __test__ = False  # for pytest, which collects classes of this name

    title: str
    images: int
    targets: int
    subset: str | None


TABLES = {
    "sirst3": TestSet("SIRST3", 1079, 1505, None),
    "v1": TestSet("SIRST v1", 214, 263, "sirst-v1"),
    "nudt": TestSet("NUDT-SIRST", 664, 945, "nudt-sirst"),
    "irstd": TestSet("IRSTD-1k", 201, 297, "irstd-1k"),
}


@dataclass(frozen=True)
class Row:
    """A row of a table; metrics that are unknown are None.

    Attributes:
        detector: its name.
        method: that trained it.
        trained_on: the table whose training images it was trained on.
        supervision: ``points``, ``coarse points`` or ``masks``.
        metrics: IoU, nIoU and Pd in percent, Fa in 1e-6.
        errors: standard errors of the same; None for published rows.
        seeds: of our runs; empty for published rows.
        images: number of test images; None if it is not stated.
        targets: number of their targets; None if it is not stated.
        remark: what else a reader must know.
    """

    detector: str
    method: str
    trained_on: str
    supervision: str
    metrics: Mapping[str, float | None]
    errors: Mapping[str, float | None]
    seeds: tuple[int, ...]
    images: int | None
    targets: int | None
    remark: str


@dataclass(frozen=True)
class Result:
    """One network of one run on the test images of one table: a line of the results file.

    Attributes:
        table: key of `TABLES`.
        trained_on: the same, of the training images.
        detector: name of the detector.
        network: ``student`` or ``teacher``.
        preset: of the run.
        recipe: digest of all settings but the seed.
        seed: of the run.
        epoch: number of epochs after which the checkpoint was taken.
        epochs: number of epochs that the run was to train.
        names: digest of the names of the test images.
        images: number of them.
        targets: number of their true components.
        metrics: IoU, nIoU and Pd in 0..1, Fa in 1e-6; None where it is undefined.
        errors: bootstrap standard errors of the same over images.
    """

    table: str
    trained_on: str
    detector: str
    network: str
    preset: str
    recipe: str
    seed: int
    epoch: int
    epochs: int
    names: str
    images: int
    targets: int
    metrics: Mapping[str, float | None]
    errors: Mapping[str, float | None]

    @property
    def key(self) -> tuple[object, ...]:
        """What two results of the same measurement share."""
        return self.table, self.trained_on, self.network, self.recipe, self.seed, self.names


def published_rows(table: str) -> list[Row]:
    """The published rows of a table, in the order of the file."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == table]
    return [
        Row(
            detector=row["detector"],
            method=row["method"],
            trained_on=row["trained_on"],
            supervision=row["supervision"],
            metrics={name: float(row[name]) if row[name] else None for name in METRICS},
            errors=dict.fromkeys(METRICS),
            seeds=(),
            images=int(row["images"]) if row["images"] else None,
            targets=int(row["targets"]) if row["targets"] else None,
            remark="; ".join(filter(None, (row["remark"], row["source"]))),
        )
        for row in rows
    ]


def our_rows(results: Iterable[Result], table: str) -> list[Row]:
    """The rows of our results of a table: one for each recipe, network and set of test images."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        if result.table == table:
            same = (result.trained_on, result.detector, result.preset, result.recipe, result.network, result.names)
            groups.setdefault(same, []).append(result)
    return [_our_row(sorted(group, key=lambda result: result.seed)) for group in groups.values()]


def _our_row(group: Sequence[Result]) -> Row:
    first = group[0]
    metrics: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    for name, factor in FACTORS.items():
        values = [value * factor for result in group if (value := result.metrics[name]) is not None]
        metrics[name] = statistics.mean(values) if values else None
        if len(values) > 1:
            errors[name] = statistics.stdev(values) / math.sqrt(len(values))
        else:
            error = first.errors[name]
            errors[name] = None if error is None else error * factor
    remarks = [f"{first.epochs} epochs"]
    remarks += ["epoch chosen on the test split"] if first.preset == "paper" else []
    remarks += ["errors over images"] if len(group) == 1 else []
    return Row(
        detector=first.detector,
        method=f"ours, {first.preset}, {first.network}",
        trained_on=first.trained_on,
        supervision="points",
        metrics=metrics,
        errors=errors,
        seeds=tuple(result.seed for result in group),
        images=first.images,
        targets=first.targets,
        remark="; ".join(remarks),
    )


def other_images(row: Row, test: TestSet) -> str:
    """How the test images of a row differ from those of the table; empty if they are the same in number."""
    if row.images is None:
        return "test images not stated"
    if (row.images, row.targets) == (test.images, test.targets):
        return ""
    return f"measured on {row.images} images with {row.targets} targets"


def measure(run: Path, data: Path, table: str, device: torch.device) -> list[Result]:
    """Evaluate the student of a run and, if it has one, its teacher on the test split of a data set."""
    student = load_student(run, device)
    networks = {"student": student, **({"teacher": load_teacher(run, device)} if student.info.vfm else {})}
    found = []
    for network, model in networks.items():
        evaluation = evaluate(model, data, convention=CONVENTION)
        found.append(_result(student.info, network, table, table, evaluation, None))
        for name, test in TABLES.items():
            if test.subset is not None and any(image.subset == test.subset for image in evaluation.images):
                found.append(_result(student.info, network, name, table, evaluation, test.subset))
    return found


def _result(
    info: CheckpointInfo, network: str, table: str, trained_on: str, evaluation: Evaluation, subset: str | None
) -> Result:
    images = [image for image in evaluation.images if subset in (None, image.subset)]
    part: Part = part_of("", [image.counts for image in images], CONVENTIONS[CONVENTION])
    settings = {key: value for key, value in flatten(info.config).items() if key != "seed"}
    return Result(
        table=table,
        trained_on=trained_on,
        detector=info.config.detector,
        network=network,
        preset=info.config.preset,
        recipe=_digest(json.dumps(settings, sort_keys=True)),
        seed=info.config.seed,
        epoch=info.epoch,
        epochs=info.config.epochs,
        names=_digest("\n".join(sorted(image.name for image in images))),
        images=part.metrics.images,
        targets=part.metrics.targets,
        metrics={name: _finite(getattr(part.metrics, name)) for name in METRICS},
        errors={name: _finite(part.errors[name]) for name in METRICS},
    )


def read_results(path: Path) -> list[Result]:
    """The results of a file; none if it does not exist.

    Raises:
        UserError: a line is not a result.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Result(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {number}: is not a result of this benchmark; remove it ({error})") from error
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 where its arguments, a run or the data have a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=TABLES)
    parser.add_argument("--detector", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.runs and not (options.data and options.table):
            raise UserError("--runs: needs --data, and --table for the data set that the runs were trained on")
        results = {result.key: result for result in read_results(options.results)}
        for run in options.runs:
            for result in measure(run, options.data, options.table, torch.device(options.device)):
                results[result.key] = result
            lines = [json.dumps(asdict(result)) for result in results.values()]
            write_atomically(options.results, ("\n".join(lines) + "\n").encode())
        tables = {
            name: [*published_rows(name), *our_rows(results.values(), name)]
            for name in ([options.table] if options.table else TABLES)
        }
        chosen = _choose(tables, options.detector)
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    if options.json:
        marked = {
            name: [{**asdict(row), "other_images": other_images(row, TABLES[name])} for row in rows]
            for name, rows in chosen.items()
        }
        print(json.dumps(marked))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=120)
    for name, rows in chosen.items():
        _print(rows, TABLES[name], console)
    return 0


def _choose(tables: Mapping[str, list[Row]], detectors: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of the detectors that are named, in any case of letters; all if none is."""
    if not detectors:
        return dict(tables)
    known = {row.detector for rows in tables.values() for row in rows}
    wanted = {name.lower() for name in detectors}
    for name in detectors:
        if name.lower() not in {detector.lower() for detector in known}:
            raise UserError(f"--detector {name}: no row has it; there are {', '.join(sorted(known, key=str.lower))}")
    return {table: [row for row in rows if row.detector.lower() in wanted] for table, rows in tables.items()}


def _print(rows: Sequence[Row], test: TestSet, console: Console) -> None:
    console.print(f"\n[bold]{test.title}[/bold], test split: {test.images} images, {test.targets} targets")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for column in ("detector", "method", "trained on", "labels"):
        table.add_column(column)
    for column in ("IoU %", "nIoU %", "Pd %", "Fa 1e-6", "seeds"):
        table.add_column(column, justify="right", no_wrap=True)
    notes: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.detector.lower()):
        difference, who = other_images(row, test), f"{row.detector} {row.method}"
        if difference:
            notes.setdefault(f"{MARK} not comparable, {difference}", []).append(who)
        if row.remark:
            notes.setdefault(row.remark, []).append(who)
        cells = [row.detector, row.method + (f" {MARK}" if difference else "")]
        cells += [TABLES[row.trained_on].title, row.supervision]
        cells += [_cell(row.metrics[name], row.errors[name]) for name in METRICS]
        table.add_row(*map(Text, cells), ", ".join(map(str, row.seeds)))
    console.print(table if rows else "no row")
    for note, rows_of_it in sorted(notes.items(), key=lambda item: not item[0].startswith(MARK)):
        console.print(f"{note}: {', '.join(rows_of_it)}", markup=False, highlight=False, soft_wrap=True)


def _cell(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" + (f"±{error:.2f}" if error is not None else "")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
