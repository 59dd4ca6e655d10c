"""The made-up trials of the store's benchmark; what a record holds can be told again from its trial and epoch."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from semprior.config.schema import Config, flatten
from semprior.evaluation.image_sums import MASK_TERMS, POINT_TERMS, TEACHER, ImageSums, image_sums
from tune.comparison.stored_sums import put_sums
from tune.store.provenance import versions
from tune.store.records import Record
from tune.store.results_store import ResultsStore

EVALUATE_EVERY = 2
IMAGES = 26  # held out, as of SIRST v1
SCORES = [
    f"holdout/{who}point_{name}" for who in ("", "teacher/") for name in ("score", "score_se", "pd", "fa", "size")
]
METRICS = ["inner_loss", "outer_loss", "rate", "pool", "admitted", *SCORES]
SCORE = "holdout/point_score"


def trial_name(number: int) -> str:
    """Its id."""
    return f"{number:05d}"


def metrics_of(number: int, epochs: int) -> np.ndarray:
    """(epochs, metrics) of a trial; `SCORE` rises in noise, every trial to a height of its own."""
    rng = np.random.default_rng(number)
    found = rng.random((epochs, len(METRICS)))
    rise = 1 - np.exp(-np.arange(epochs) / (20 + 40 * rng.random()))
    found[:, METRICS.index(SCORE)] = 0.8 * rng.random() * rise + 0.02 * rng.standard_normal(epochs)
    found[:, METRICS.index(f"{SCORE}_se")] = 0.03
    return found


def records_of(number: int, epochs: int, writer: str) -> Iterator[Record]:
    """The reports of a trial, one an epoch."""
    config = flatten(Config()) | {"clusters.count": 1 + number % 128, "distill.outer_weight": 1 / (1 + number)}
    params = {name: config[name] for name in ("clusters.count", "distill.outer_weight")}
    installed, now, best = versions(), time.time(), -np.inf
    for epoch, row in enumerate(metrics_of(number, epochs).tolist()):
        evaluated = epoch % EVALUATE_EVERY == 1
        metrics = dict(zip(METRICS if evaluated else METRICS[:5], row, strict=False))
        improved = evaluated and metrics[SCORE] >= best
        best = metrics[SCORE] if improved else best
        yield Record(
            kind="report",
            trial=trial_name(number),
            configuration=number,
            seed=0,
            attempt=1,
            epoch=epoch,
            config=config,
            params=params,
            metrics=metrics,
            values=(best,) if np.isfinite(best) else (),
            best=improved,
            checkpoint=f"checkpoints/{trial_name(number)}/1/epoch-{epoch + 1:04d}",
            sha256=f"{number * epochs + epoch:064x}",
            images=hashlib.sha256(f"{number}.{epoch}".encode()).hexdigest() if evaluated else None,
            wall_s=20.0 + number % 7,
            device_s=20.0 + number % 7,
            host=f"node-{number % 64}",
            device="cpu",
            revision="0" * 40,
            versions=installed,
            writer=writer,
            time=now + 20.0 * epoch,
        )


def kept_evaluations(reports: Sequence[Record]) -> set[int]:
    """The places of the evaluations whose terms a trial keeps: the best and the last."""
    evaluated = [place for place, report in enumerate(reports) if SCORE in report.metrics]
    best = [place for place in evaluated if reports[place].best]
    return {*best[-1:], *evaluated[-1:]}


def images_of(number: int, score: float) -> ImageSums:
    """The terms of `IMAGES` images of student and teacher, whose point score is that of the evaluation."""
    rng = np.random.default_rng(number)
    tables = {f"{who}{term}": np.ones(IMAGES) for who in ("", TEACHER) for term in (*POINT_TERMS, *MASK_TERMS)}
    noise = rng.normal(0, 0.1, IMAGES)
    tables |= {"common_area": 100 * (score + noise - noise.mean()), "joint_area": np.full(IMAGES, 100.0)}
    return image_sums([f"Misc_{index}" for index in range(IMAGES)], tables)


def write_trials(uri: str, numbers: range, epochs: int, batch: int) -> None:
    """Append all epochs of some trials, `batch` of them in a file."""
    store = ResultsStore(uri)
    for number in numbers:
        reports = list(records_of(number, epochs, f"writer-{number:05d}"))
        for place in kept_evaluations(reports):
            report = reports[place]
            images = images_of(number, report.metrics[SCORE])
            digest = put_sums(store.storage, report.trial, report.attempt, report.epoch, images)
            reports[place] = replace(report, images=digest)
        for first in range(0, epochs, batch):
            store.append(reports[first : first + batch])
