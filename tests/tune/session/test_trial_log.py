"""A trial's log and events, in a folder and in a bucket, over two attempts."""

import pytest

from semprior.io.storage import open_storage
from semprior.training.trainer import EpochReport
from tests.tiny import optional
from tune.session.trial_log import TrialLog


def report(epoch):
    scores = {"holdout/point_score": 0.25} if epoch else {}
    return EpochReport(epoch, 0.5, None, 1e-3, 4, 0, False, 1.0, scores)


@pytest.fixture
def storage(place):
    return open_storage(place)


def test_the_log_grows_over_attempts_and_each_has_its_own_events(storage):
    optional("tensorboardX")
    for attempt in (1, 2):
        files = TrialLog(storage, "0003", attempt, enabled=True)
        files.line(f"attempt {attempt} begins")
        for epoch in range(2):
            files.epoch(report(epoch))
            assert f"epoch {epoch}: inner loss 0.5000" in storage.read("logs/0003.log").decode()
        files.line("the end")
        files.close()
    lines = [line.split("  ", 1)[1] for line in storage.read("logs/0003.log").decode().splitlines()]
    assert [line for line in lines if not line.startswith("epoch")] == [
        *("attempt 1 begins", "the end", "attempt 2 begins", "the end")
    ]
    assert sum("holdout/point_score 0.2500" in line for line in lines) == 2
    for attempt in (1, 2):
        (events,) = storage.list(f"tensorboard/0003/{attempt}")
        assert b"train/inner_loss" in storage.read(events.name)


def test_lines_before_the_first_epoch_are_written_on_close(storage):
    files = TrialLog(storage, "0003", 1, enabled=True)
    files.line("stopped: another attempt began")
    files.close()
    assert storage.read("logs/0003.log").decode().endswith("  stopped: another attempt began\n")
    assert not storage.exists("tensorboard")


def test_other_workers_write_nothing(storage):
    files = TrialLog(storage, "0003", 1, enabled=False)
    files.line("not written")
    files.epoch(report(0))
    files.close()
    assert not storage.exists("logs/0003.log")
    assert not storage.list("")
