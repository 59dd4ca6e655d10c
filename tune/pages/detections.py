"""Pictures of what the best configuration and the preset find on the same images, for the page of a sweep.

PyTorch is imported when pictures are made: a page without them needs none of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semprior.errors import UserError
from semprior.io.foreign_text import page_name
from semprior.io.storage import Storage, open_storage
from semprior.io.temporary_folders import temporary_folder
from semprior.pages.blocks import Block, Text
from tune.pages.gathered import SweepData
from tune.pages.settings import number_of
from tune.store.checkpoints import StoredCheckpoint, fetch_checkpoint
from tune.store.records import run_index
from tune.store.sweeps import Sweep
from tune.store.trial_summary import TrialSummary

if TYPE_CHECKING:
    from semprior.deployment.load_model import Student
    from semprior.pages.detections import ExaminedImage, Findings

HOLDOUT = "holdout"
"""The training images that a run has held out (`semprior.deployment.evaluate.HOLDOUT`)."""
MOST_RUNS = 10  # of each configuration, whose checkpoints are loaded


@dataclass(frozen=True)
class Wanted:
    """The images of which pictures are wanted.

    Attributes:
        data: folder or address of the data set; None for that of the sweep.
        split: name of the split, or ``holdout``: the training images that the runs have held out.
    """

    data: str | None = None
    split: str = HOLDOUT


def detection_blocks(data: SweepData, wanted: Wanted) -> list[Block]:
    """The best configuration beside the preset on the same images, those first on which they differ most.

    Where pictures cannot be made, as the data are elsewhere or checkpoints are not kept, a sentence says so.
    """
    place = data.sweep.spec.data if wanted.data is None else wanted.data
    if data.best is None or data.base is None:
        return [Text("There are no pictures yet: both a best configuration and the preset need a value.", "note")]
    best, base = data.best.entry, data.base
    pairs: list[tuple[TrialSummary, TrialSummary | None]]
    if best.configuration == base.configuration:
        pairs = [(data.trials[trial], None) for trial in best.trials]
        names = [f"preset ({number_of(base)})"]
    else:
        others = {run_index(trial): data.trials[trial] for trial in base.trials}
        pairs = [(data.trials[t], others[run_index(t)]) for t in best.trials if run_index(t) in others]
        names = [f"best ({number_of(best)})", f"preset ({number_of(base)})"]
    if not pairs:
        return [Text("There are no pictures: the best configuration and the preset have no run in common.", "note")]
    if "://" not in place and not Path(place).is_dir():
        return [
            Text(f"There are no pictures: the data, {page_name(place)}, are not here; --data DIR names them.", "note")
        ]
    pairs = pairs[: 1 if wanted.split != HOLDOUT else MOST_RUNS]
    try:
        images = [image for pair in pairs for image in _examined(data.sweep, pair, wanted)]
    except UserError as error:
        return [Text(f"There are no pictures, because they cannot be made here: {error}", "note")]
    where = "training images that the runs have held out"
    if wanted.split != HOLDOUT:
        where = f"images of the split {page_name(wanted.split)}"
    count = len({image.name for image in images})
    which = "the preset, which is the best," if len(names) == 1 else "the best configuration and the preset"
    told = f"What the students of {which} find in {count} {where}."
    from semprior.pages.detections import detection_pictures

    return [Text(told), detection_pictures(images, names)]


def _examined(
    sweep: Sweep, pair: tuple[TrialSummary, TrialSummary | None], wanted: Wanted
) -> tuple[ExaminedImage, ...]:
    """What the student of each run finds in the images."""
    stored = []
    for trial in pair:
        if trial is None:
            continue
        if trial.checkpoint is None or trial.sha256 is None:
            raise UserError(f"no checkpoint of trial {trial.trial} is kept")
        stored.append(StoredCheckpoint(trial.checkpoint, trial.sha256))
    return _found(sweep.storage.uri, sweep.spec.data, sweep.data, tuple(stored), wanted)


@functools.lru_cache(4 * MOST_RUNS)  # a page that is written again and again makes its pictures once
def _found(
    uri: str, data: str, identity: str, stored: tuple[StoredCheckpoint, ...], wanted: Wanted
) -> tuple[ExaminedImage, ...]:
    """What the student of each checkpoint finds.

    Args:
        uri: address of the sweep.
        data: folder or address of its data.
        identity: digest of these data when the sweep began; empty if it is not known.
        stored: the checkpoints.
        wanted: the images of which pictures are wanted.
    """
    from semprior.data.layout import find_layout
    from semprior.data.remote_data import data_identity, local_data
    from semprior.deployment.evaluate import split_scenes
    from semprior.pages.detections import ExaminedImage, examine

    students = [_student(open_storage(uri), checkpoint) for checkpoint in stored]
    if wanted.data is None and identity and data_identity(data) != identity:
        raise UserError(f"the data, {data}, were changed after the sweep had begun")
    layout = find_layout(local_data(wanted.data or data))
    first = students[0].info
    scenes = split_scenes(layout, wanted.split, first.config, first.intensity, masks="optional")
    masked = all(scene.mask is not None for scene in scenes)
    findings: list[list[Findings]] = [[] for _ in scenes]
    for student in students:
        for index, probability in sorted(student.each([scene.image for scene in scenes]), key=lambda pair: pair[0]):
            scene = scenes[index]
            mask = scene.mask if masked else None
            findings[index].append(examine(probability, scene.points, mask, student.info.threshold))
    return tuple(
        ExaminedImage(scene.name, scene.image, tuple(found)) for scene, found in zip(scenes, findings, strict=True)
    )


def _student(storage: Storage, checkpoint: StoredCheckpoint) -> Student:
    from semprior.deployment.load_model import load_student
    from semprior.runtime.device import choose_device

    with temporary_folder("semprior-page-") as scratch:
        folder = scratch / "checkpoint"
        fetch_checkpoint(storage, checkpoint, folder)
        return load_student(folder, choose_device("auto"))
