"""Trials of a race that train nothing: image by image they score what their configuration's level says."""

import dataclasses

import numpy as np

from tests.tune.breaking import Breaking, BreakingClock
from tests.tune.images import noisy_scores, store_images

LEVELS = (0.50, 0.30, 0.56, 0.55)
"""By number of the configuration."""


class ScoredClock(BreakingClock):
    """Records the terms of each image with every epoch."""

    def call(self, name, *arguments):
        done = super().call(name, *arguments)
        if name == "begin":
            number, _, run = self.spec.trial.partition(".")
            scores = noisy_scores(LEVELS[int(number)], 100 * int(number) + int(run))
            names = [f"{run}-{image}" for image in range(len(scores))]  # each fold holds out other images
            self._epochs.scores = dict.fromkeys(range(self._epochs.epochs), float(np.mean(scores)))
            store, append = self._epochs.store, self._epochs.store.append

            def append_scored(records):
                append(
                    dataclasses.replace(
                        record,
                        best=True,
                        images=store_images(store.storage, record.trial, record.epoch, scores, record.attempt, names),
                    )
                    if record.kind == "report"
                    else record
                    for record in records
                )

            self._epochs.store.append = append_scored
        return done


class Racing(Breaking):
    """A trial of such workers."""

    @staticmethod
    def make_workers(spec, folder, on_report):
        return ScoredClock(spec, on_report)
