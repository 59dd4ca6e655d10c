"""Trials whose modulator is too wide for any machine, which no setting can ask for."""

from collections.abc import Mapping
from typing import Any

from tune.session.attempt_spec import AttemptSpec, ReportHandler, Workers
from tune.session.trainable import TrialTrainable

WIDTHS = {16: 2**38, 32: 2**62}
"""By ``vfm.width``, the channels that the modulator gets: many terabytes, and more than a number of bytes can say."""


def train_widened(settings: Mapping[str, Any]) -> None:
    """Train, or fail while the modulator is made."""
    from semprior.models.scam import SCAM
    from tune.session.worker_group import train_worker

    width, make = settings["spec"].config["vfm.width"], SCAM.__init__

    def widened(self, *rest, **named):
        make(self, *rest, **{**named, "width": WIDTHS.get(width, width)})

    SCAM.__init__ = widened
    train_worker(settings)


class Widened(TrialTrainable):
    """A trial of such workers."""

    @staticmethod
    def make_workers(spec: AttemptSpec, folder: str, on_report: ReportHandler) -> Workers:
        from tests.tune import widened
        from tune.session import worker_group

        own = worker_group.train_worker
        worker_group.train_worker = widened.train_widened
        try:
            return worker_group.worker_group(spec, folder, on_report)
        finally:
            worker_group.train_worker = own
