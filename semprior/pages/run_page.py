"""The page of a run, from what its folder holds and, where there are images, what its student finds in them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from semprior.config.differences import differences, setting_text
from semprior.config.true_masks import true_masks_remark
from semprior.data.training_set import TrainingSet
from semprior.io.foreign_text import page_name
from semprior.labels.label_history import LabelWindow
from semprior.models.detector import detector_spec
from semprior.models.stages import placed_stages
from semprior.pages.blocks import Block, Column, Facts, Page, Picture, Pictures, Section, Strip, Table, Text
from semprior.pages.detections import detection_pictures
from semprior.pages.run_charts import (
    MOST_SCORES,
    SCORES,
    cluster_chart,
    gate_chart,
    mixture_chart,
    most_missed,
    parts_chart,
    parts_table,
    score_chart,
    trade_off_chart,
    training_chart,
    whole_table,
)
from semprior.pages.run_images import SplitFindings
from semprior.pages.run_state import RunState
from semprior.reporting.evaluation_tables import with_error
from semprior.training.losses import cluster_weights

_RATES = (("iou", "IoU"), ("pd", "Pd"))
_EPOCHS_SHOWN = 7  # of pseudo-masks, beside the image
_EXTREME = 3  # clusters of either end that are shown with images
_SAMPLES = 6  # images of a cluster
_THUMBNAIL = 128  # pixels
_MASK_ZOOM = 2.0


def run_page(state: RunState, found: SplitFindings | str, images: TrainingSet | str) -> Page:
    """The page of a run.

    Args:
        state: of its folder.
        found: by its student in a split; or a sentence that says why there is nothing.
        images: of the run, with the clusters of the last checkpoint; or a sentence that says why there are none.
    """
    sections = (
        Section("Overview", tuple(_overview(state, found))),
        Section("Settings", tuple(_settings(state))),
        Section("Curves", tuple(_curves(state))),
        Section("What is found and what is missed", tuple(_parts(found))),
        Section("Pictures of detections", tuple(_detections(found))),
        Section("Pseudo-masks over epochs", tuple(_labels(state))),
        Section("Cluster weights", tuple(_clusters(state, images))),
        Section("SCAM gates", tuple(_gates(state))),
    )
    return Page(f"Run {page_name(state.name)}", _summary(state, found), sections)


def _summary(state: RunState, found: SplitFindings | str) -> str:
    config = state.config
    learned = true_masks_remark(config.labels.seed) or "trained on points"
    sentences = [f"The detector is {config.detector}, {learned}, with the preset {config.preset}."]
    if state.lines and len(state.lines) < config.epochs:
        sentences.append(f"It is at epoch {len(state.lines)} of {config.epochs}.")
    best = state.best_line
    if best is not None:
        sentences.append(f"Its best epoch is {best['epoch'] + 1}.")
    if isinstance(found, SplitFindings):
        evaluation = found.evaluation
        one = [image.findings[0] for image in found.images]
        targets, misses = sum(len(each.targets) for each in one), sum(each.misses for each in one)
        false = sum(len(each.false_alarms) for each in one)
        sentences.append(
            f"On the {found.split} split, {len(one)} images, its student finds {targets - misses} of {targets} targets"
            f" and raises {false} false alarm{'' if false == 1 else 's'}."
        )
        if evaluation is not None:
            rates = ((label, getattr(evaluation.metrics, name), evaluation.errors[name]) for name, label in _RATES)
            sentences.append(f"{', '.join(f'{label} {with_error(value, error, 3)}' for label, value, error in rates)}.")
    return " ".join(sentences)


def _overview(state: RunState, found: SplitFindings | str) -> list[Block]:
    config, facts = state.config, []
    facts.append(("Detector", config.detector))
    facts.append(("Preset", config.preset))
    if state.lines:
        facts.append(("Epochs", f"{len(state.lines)} of {config.epochs}"))
        facts.append(("Training took", _duration(sum(line.get("seconds") or 0.0 for line in state.lines))))
    if state.best_line is not None:
        facts.append(("Best epoch", str(state.best_line["epoch"] + 1)))
    elif state.info is not None:
        facts.append(("Trained epochs", str(state.info.epoch)))
    if state.last is not None:
        facts.append(("Parameters of the student", f"{_parameters(state):,}"))
    if state.data is not None:
        facts.append(("Data", page_name(state.data)))
    blocks: list[Block] = [Facts(tuple(facts))]
    if remark := true_masks_remark(config.labels.seed):
        blocks.append(Text(f"This detector was {remark}.", "note"))
    if config.vfm.weights == "random":
        blocks.append(Text(f"{config.vfm.name} has RANDOM weights (vfm.weights=random).", "note"))
    if state.best_line is not None:
        blocks.append(_best_table(state))
    if isinstance(found, SplitFindings) and found.split == "test":
        blocks.append(Text("The numbers of the test split are of this one look; choose nothing by them.", "note"))
    return blocks


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _parameters(state: RunState) -> int:
    assert state.last is not None
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    weights = state.last.tensors["student"].items()
    return sum(tensor.numel() for name, tensor in weights if not name.endswith(buffers))


def _best_table(state: RunState) -> Table:
    """Student and teacher at the best epoch."""
    line = state.best_line or {}
    place = _place(state)
    rows = []
    for name, label, digits in SCORES:
        cells = []
        for prefix in (place, f"{place}/teacher"):
            value, error = line.get(f"{prefix}/{name}"), line.get(f"{prefix}/{name}_se")
            spread = float("nan") if error is None else error
            cells.append("" if value is None else with_error(value, spread, digits))
        if any(cells):
            rows.append((label, *cells))
    columns = (Column("Metric"), Column("Student", numeric=True), Column("Teacher", numeric=True))
    return Table(
        columns, tuple(rows[:MOST_SCORES]), f"At the best epoch, on the {place} split, with standard errors over images"
    )


def _place(state: RunState) -> str:
    return "test" if state.config.select.by == "test/iou" else "holdout"


def _settings(state: RunState) -> list[Block]:
    config, changed = state.config, differences(state.config)
    blocks: list[Block] = []
    if changed:
        columns = (Column("Setting"), Column(f"Preset {config.preset}"), Column("This run"))
        rows = tuple((one.key, setting_text(one.preset), setting_text(one.value)) for one in changed)
        blocks.append(Table(columns, rows, "Settings that differ from the preset; all others are its own"))
    else:
        blocks.append(Text(f"All settings are those of the preset {config.preset}."))
    words = ["semprior", "train", "--data", state.data or "DIR", "--out", "RUN", "--preset", config.preset]
    for one in changed:
        words += ["--set", f"{one.key}={setting_text(one.value)}"]
    return [*blocks, Text("This command repeats the run:"), Text(shlex.join(words), "code")]


def _curves(state: RunState) -> list[Block]:
    if not state.lines:
        return [Text("There are no curves: the folder has no metrics of epochs.")]
    scores = score_chart(state.lines, _place(state))
    missing = Text("No epoch was evaluated yet, or the run holds out no image.")
    return [scores if scores is not None else missing, training_chart(state.lines)]


def _parts(found: SplitFindings | str) -> list[Block]:
    if isinstance(found, str):
        return [Text(found)]
    if found.evaluation is None:
        return [
            Text(
                f"The {found.split} split has no full masks. Metrics by size, contrast and kind of the targets, and Pd"
                " against Fa over thresholds, need them; the pictures below go by points."
            )
        ]
    evaluation = found.evaluation
    breakdowns = evaluation.breakdowns("all")
    blocks: list[Block] = [
        Text(most_missed(breakdowns)),
        whole_table(
            evaluation,
            f"The student on the {found.split} split: {evaluation.metrics.images} images,"
            f" {evaluation.metrics.targets} targets, convention {evaluation.convention}",
        ),
    ]
    chart = parts_chart(breakdowns)
    blocks += [chart] if chart is not None else []
    blocks += [parts_table(parts, by) for by, parts in breakdowns.items()]
    blocks.append(
        Text(
            "Size is in pixels. Contrast is the local signal-to-clutter ratio. Filamentary targets are long and thin,"
            " salient ones stand out clearly, faint ones lie on a calm background, camouflaged ones on clutter."
        )
    )
    return [*blocks, trade_off_chart(evaluation.curve, evaluation.threshold)]


def _detections(found: SplitFindings | str) -> list[Block]:
    return [Text(found)] if isinstance(found, str) else [detection_pictures(found.images, ["student"])]


def _labels(state: RunState) -> list[Block]:
    if not state.labels:
        return [
            Text(
                "There are no pseudo-masks to show: they are kept in the folder of a run from its first epoch on, and"
                " runs of earlier versions did not keep them."
            )
        ]
    epochs = sorted(state.labels)
    chosen = [epochs[i] for i in np.unique(np.linspace(0, len(epochs) - 1, _EPOCHS_SHOWN).round().astype(int))]
    strips = [
        _label_strip(window, [(epoch, _window_of(state.labels[epoch], window.name)) for epoch in chosen])
        for window in state.labels[epochs[-1]]
    ]
    caption = (
        "The part of an image around its first target, and its soft pseudo-mask there: the first one, made from the"
        " points, and, if masks evolve, those after evolutions towards the teacher. White is certain, black is"
        " background."
    )
    return [Pictures(tuple(strips), caption)]


def _window_of(windows: Sequence[LabelWindow], name: str) -> LabelWindow | None:
    return next((window for window in windows if window.name == name), None)


def _label_strip(window: LabelWindow, history: Sequence[tuple[int, LabelWindow | None]]) -> Strip:
    name = page_name(window.name)
    pictures = [Picture(window.image, f"Part of image {name}.", "image", zoom=_MASK_ZOOM)]
    for epoch, then in history:
        if then is None:
            continue
        pixels = int(np.count_nonzero(then.soft >= 128))
        when = f"epoch {epoch + 1}" if epoch else "first"
        caption = f"{when}: {pixels} pixels"
        alt = f"Pseudo-mask of {name}, {caption}."
        pictures.append(Picture(then.soft, alt, caption, zoom=_MASK_ZOOM))
    return Strip(name, tuple(pictures))


def _clusters(state: RunState, images: TrainingSet | str) -> list[Block]:
    if state.last is None:
        return [Text("The run has no checkpoint yet, which would hold the weights of the clusters.")]
    alpha, clusters = state.last.tensors["training"]["alpha"], state.last.arrays["clusters"]
    if len(alpha) < 2:
        return [Text("The run has one cluster (clusters.count=1): all images have the same weight.")]
    if not bool(alpha.any()):
        return [Text("No outer step was taken: all clusters still have the same weight.")]
    own = cluster_weights(alpha, torch.from_numpy(clusters)).numpy()
    counts = np.bincount(clusters, minlength=len(alpha))
    known = np.flatnonzero(counts)
    weights = np.zeros(len(alpha))
    weights[clusters] = own
    blocks: list[Block] = [
        Text(
            "Images are clustered by their statistics. The outer loop learns how much the teacher and the student trust"
            " each cluster in their losses: a cluster whose pseudo-masks help on the validation images gains weight."
        ),
        cluster_chart(known, weights[known], counts[known]),
    ]
    if isinstance(images, str):
        return [*blocks, Text(f"{images} Sample images of the clusters are left out.")]
    order = known[np.argsort(weights[known], kind="stable")]
    few = min(_EXTREME, len(order) // 2)
    strips = [
        _cluster_strip(images, int(cluster), float(weights[cluster]), what)
        for chosen, what in ((order[::-1][:few], "most"), (order[:few], "least"))
        for cluster in chosen
    ]
    return [*blocks, Pictures(tuple(strips), "Images of the clusters that are trusted most, and of those least.")]


def _cluster_strip(images: TrainingSet, cluster: int, weight: float, what: str) -> Strip:
    members = np.flatnonzero(images.clusters == cluster)
    pictures = []
    for index in members[:_SAMPLES]:
        scene = images.scenes[index]
        scale = min(1.0, _THUMBNAIL / max(scene.image.shape))
        height, width = (max(1, round(side * scale)) for side in scene.image.shape)
        small = cv2.resize(scene.image, (width, height), interpolation=cv2.INTER_AREA)
        pictures.append(Picture(small, f"Image {page_name(scene.name)} of cluster {cluster}.", page_name(scene.name)))
    number = f"{len(members)} image{'' if len(members) == 1 else 's'}"
    return Strip(f"Trusted {what}: cluster {cluster}, weight {weight:.3f}, {number}", tuple(pictures))


def _gates(state: RunState) -> list[Block]:
    if state.last is None or state.info is None:
        return [Text("The run has no checkpoint yet, which would hold the gates.")]
    modulator = state.last.tensors["modulator"]
    stages = detector_spec(state.config.detector).stages
    placed = placed_stages(state.config.scam.stages, len(stages))
    if not placed or "scam.gates" not in modulator:
        return [Text("No stage is modulated (scam.stages=none): the teacher is its student.")]
    parts = torch.split(modulator["scam.gates"].float(), [stages[index] for index in placed])
    gates = {index + 1: part.numpy() for index, part in zip(placed, parts, strict=True)}
    shares = torch.softmax(modulator["scam.mixture"].float(), dim=0).numpy()
    return [
        Text(
            "SCAM scales and shifts the channels of the teacher's features by what the vision model sees; each channel"
            f" has a learned gate. After {state.info.epoch} epochs, by stage of the detector:"
        ),
        gate_chart(gates),
        mixture_chart(shares),
    ]
