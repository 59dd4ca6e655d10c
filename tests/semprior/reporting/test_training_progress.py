"""Epoch, loss, metric and time left: a bar on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from semprior.reporting.terminal import clock
from semprior.reporting.training_progress import TrainingProgress
from semprior.training.crossfit import ShortEpoch
from semprior.training.trainer import EpochReport

METRIC = "holdout/point_score"


def report(epoch, score=None, best=False, **rest):
    scores = {} if score is None else {METRIC: score}
    fields = {"outer_loss": None, "rate": 1e-3, "pool": 9, "admitted": 0, "evolved": False, "seconds": 1.0, **rest}
    return EpochReport(epoch=epoch, inner_loss=0.5, scores=scores, best=best, **fields)


def shown(terminal, reports, done=0):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    with TrainingProgress(5, done, METRIC, console) as display:
        for one in reports:
            display.report(one)
        display.say("a remark with [brackets] and a path " + "x" * 120)
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    reports = [report(0), report(1, 0.25, best=True), report(2, 0.125, evolved=True), report(3, admitted=2)]
    lines = shown(False, reports).splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == ["epoch 1/5", "epoch 2/5", "epoch 3/5", "epoch 4/5"]
    assert "loss 0.5000" in lines[0]
    assert "point_score" not in lines[0]
    assert "point_score 0.2500 (best 0.2500)" in lines[1]
    assert lines[1].endswith("(best so far)")
    assert "point_score 0.1250 (best 0.2500)" in lines[2]
    assert lines[2].endswith("(labels evolved)")
    assert lines[3].endswith("(2 images admitted)")
    assert "0:00 left" in lines[0]
    assert lines[4] == "a remark with [brackets] and a path " + "x" * 120


def test_a_bar_on_a_terminal():
    text = shown(True, [report(2, 0.25, best=True)], done=2)
    for word in ("epoch 3/5", "━", "loss 0.5000", "point_score 0.2500 (best 0.2500)", "left", "a remark"):
        assert word in text


def test_short_runs_count_in_the_time_left(monkeypatch):
    clock = iter(range(0, 1000, 30))  # every epoch takes 30 seconds, of short runs as of the run
    monkeypatch.setattr("semprior.reporting.training_progress.time.perf_counter", lambda: float(next(clock)))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with TrainingProgress(4, 0, METRIC, console, short_epochs=4, short_cost=0.5) as display:
        for number in range(4):
            score = {"holdout/teacher/point_score": 0.25} if number % 2 else {}
            display.report_short(ShortEpoch(number // 2, 2, number % 2, 2, 0.5, 30.0, score))
        display.report(report(0))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "short run 1/2, epoch 1/2  loss 0.5000  5:30 left"  # 3 more short epochs, 4 that cost twice that
    assert lines[1].startswith("short run 1/2, epoch 2/2  loss 0.5000  point_score 0.2500  5:00")
    assert lines[3].endswith("4:00 left")
    assert lines[4].startswith("epoch 1/4")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3600, "1:00:00"), (3599.6, "1:00:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text
