"""Records of made-up trials."""

import pytest

from tune.store.records import Record


def report(trial, epoch, attempt=1, score=None, **fields):
    """A report of a made-up trial; its configuration is the number that its id begins with."""
    metrics = {"inner_loss": 0.5} | ({} if score is None else {"holdout/point_score": score})
    given = {"metrics": metrics, "configuration": int(trial.partition(".")[0]), "seed": 0, "device_s": 1.0} | fields
    return Record(kind="report", trial=trial, attempt=attempt, epoch=epoch, **given)


@pytest.fixture
def make_report():
    """The function `report`."""
    return report
