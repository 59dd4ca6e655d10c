"""Pseudo-masks held against the true masks of training and validation images; the test split is never read.

    python -m benchmarks.labels [--data DIR ...] [--runs RUN ...] [--json]

For each data set: the first masks that every method of `labels.seed` makes of the data set's own points. For each run:
the masks of its pool and validation images, as they were at first and after each change (`labels/iou` in its
metrics), which the run itself never decides by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.seeds import measure
from semprior.data.layout import find_layout, intensity_range, read_scenes
from semprior.errors import UserError
from semprior.labels.seeds import SEEDS

DATA = tuple(Path("../shared/data") / name for name in ("sirst-v1", "nudt-sirst", "irstd-1k"))


def first_masks(folder: Path) -> dict[str, dict[str, float]]:
    """IoU and nIoU of each method's masks of a data set's training and validation images.

    Raises:
        UserError: the data set has a fault, or an image without a mask.
    """
    layout = find_layout(folder)
    intensity = intensity_range(layout)
    scenes = [s for split in ("train", "val") for s in read_scenes(layout, split, intensity, masks="optional")]
    for scene in scenes:
        if scene.mask is None:
            raise UserError(f"{folder}: image {scene.name} has no mask to hold seeds against")
    points, boxes = [[scene.points for scene in scenes]], [scene.boxes for scene in scenes]
    measured = {name: measure(make, scenes, points, boxes, layout.subsets) for name, make in SEEDS.items()}
    return {name: {"iou": found["iou"], "niou": found["niou"]} for name, found in measured.items()}


def masks_over_epochs(run: Path) -> list[dict[str, float]]:
    """Epoch from 1, IoU and nIoU of the pseudo-masks where a run reported them.

    Raises:
        UserError: the folder is not of a run.
    """
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{run}: not the folder of a run: {error.strerror}") from None
    rows = [row for row in map(json.loads, lines) if "labels/iou" in row]
    return [{"epoch": row["epoch"] + 1, "iou": row["labels/iou"], "niou": row["labels/niou"]} for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where a data set or a run has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=list(DATA), help="data sets with points and masks")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of runs on data with masks")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        first = {str(folder): first_masks(folder) for folder in options.data}
        later = {str(run): masks_over_epochs(run) for run in options.runs}
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    if options.json:
        print(json.dumps({"first": first, "runs": later, "machine": describe_machine()}))
        return 0
    console = Console(soft_wrap=True)
    table = Table("data", *SEEDS, title="first masks, IoU / nIoU", title_justify="left")
    for name, methods in first.items():
        table.add_row(Path(name).name, *(f"{found['iou']:.3f} / {found['niou']:.3f}" for found in methods.values()))
    console.print(table)
    for name, rows in later.items():
        table = Table("epoch", "IoU", "nIoU", title=f"masks of {name}", title_justify="left")
        for row in rows:
            table.add_row(str(row["epoch"]), f"{row['iou']:.3f}", f"{row['niou']:.3f}")
        console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
