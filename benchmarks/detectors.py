"""The seven detectors beside each other: what runs of them reach, and what they cost where they are deployed.

    python -m benchmarks.detectors RUN ... --data DIR [--size 256] [--threads 1] [--out FILE] [--json]

For each run, the test split is read once by its student, by its teacher, and by the student as an exported model in
float32 and in int8, which is calibrated on the training images. The loss of int8 is the difference of the last two,
image by image. Costs are those of `semprior cost`, minutes those that the run recorded. Rows are kept in a file, line
by line; a run whose row is there is not read again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import METRICS, sums_of
from benchmarks.machine import describe_machine
from semprior.config.schema import flatten
from semprior.deployment.cost import detector_cost
from semprior.deployment.evaluate import evaluate
from semprior.deployment.load_model import Student, load_student, load_teacher
from semprior.deployment.onnx_export import export
from semprior.deployment.onnx_int8 import calibration_images, export_int8
from semprior.deployment.onnx_model import load_onnx
from semprior.errors import UserError
from semprior.io.atomic_files import write_atomically
from semprior.training.run_folder import METRICS_FILE
from tune.comparison.paired import Comparison

KEPT = Path("runs/detectors.jsonl")
_STORED = ("detector", "preset", "seed", "optim.rate", "scam.scale", "epochs")


def measure(run: Path, data: Path, size: int, threads: int) -> dict[str, Any]:
    """The row of one run.

    Raises:
        UserError: the run, the data set or one of its masks has a fault.
    """
    cpu = torch.device("cpu")
    student = load_student(run, cpu)
    settings = flatten(student.info.config)
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
    row: dict[str, Any] = {key: settings[key] for key in _STORED}
    row |= {"epoch": student.info.epoch, "trained": len(lines), "minutes": sum(line["seconds"] for line in lines) / 60}
    models = {"student": student, **({"teacher": load_teacher(run, cpu)} if student.info.vfm else {})}
    for who, model in models.items():
        found = evaluate(model, data)
        row[who] = {name: getattr(found.metrics, name) for name in METRICS}
        row[f"{who}_iou_error"] = found.errors["iou"]
    row["int8_iou_change"], row["int8_iou_change_error"] = int8_change(student, data)
    cost = detector_cost(str(run), size, threads)
    row |= {"parameters": cost.parameters, "gflop": cost.gflop}
    row["ms"] = {f"{form.runtime} {form.numbers}": form.median_ms for form in cost.forms}
    return row


def int8_change(student: Student, data: Path) -> tuple[float, float | None]:
    """Test IoU of the exported int8 model less that of the exported float32 one, and its standard error."""
    with tempfile.TemporaryDirectory(prefix="semprior-detectors-") as scratch:
        plain, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        export(student, plain)
        export_int8(student, int8, calibration_images(data, student.info.intensity))
        sides = [{0: sums_of(evaluate(load_onnx(path), data))} for path in (int8, plain)]
    difference = Comparison(sides, "iou").difference(0, 1)
    assert difference is not None  # both read the same images
    return difference.value, difference.error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where a run or the data set has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detectors", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        kept = _read(options.out)
        for run in options.runs:
            key = str(run.resolve())
            if key not in kept:
                kept[key] = measure(run, options.data, options.size, options.threads)
                lines = [json.dumps({"run": name, **row}) for name, row in kept.items()]
                options.out.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(options.out, ("\n".join(lines) + "\n").encode())
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    rows = [kept[str(run.resolve())] for run in options.runs]
    if options.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))
    else:
        (Console() if sys.stdout.isatty() else Console(width=200)).print(_table(rows))
    return 0


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row.pop("run"): row for row in rows}


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    forms = list(dict.fromkeys(form for row in rows for form in row["ms"]))
    table = Table(title="test split: IoU / nIoU / Pd / Fa (1e-6)", box=box.SIMPLE_HEAD)
    for name in ("detector, seed", "rate, scale", "epoch", "student", "teacher", "int8 less fp32, IoU"):
        table.add_column(name)
    for name in ("parameters", "GFLOP", *(f"ms, {form}" for form in forms), "minutes"):
        table.add_column(name, justify="right")

    def four(found: dict[str, float] | None) -> str:
        if found is None:
            return ""
        return f"{found['iou']:.3f} / {found['niou']:.3f} / {found['pd']:.3f} / {found['fa']:.1f}"

    for row in rows:
        error = row["int8_iou_change_error"]
        table.add_row(
            f"{row['detector']}, {row['seed']}",
            f"{_shown(row['optim.rate'])}, {_shown(row['scam.scale'])}",
            f"{row['epoch']} of {row['trained']}",
            four(row["student"]),
            four(row.get("teacher")),
            f"{row['int8_iou_change']:+.4f}" + ("" if error is None else f" +- {error:.4f}"),
            f"{row['parameters']:,}",
            f"{row['gflop']:.2f}",
            *(f"{row['ms'][form]:.1f}" if form in row["ms"] else "" for form in forms),
            f"{row['minutes']:.0f}",
        )
    return table


def _shown(value: float | None) -> str:
    return "the detector's" if value is None else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
