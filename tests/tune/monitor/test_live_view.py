"""What a user sees of a sweep: a table that fits its terminal, plain lines elsewhere, and how long it will take."""

import io

import pytest
from rich.console import Console

from semprior.errors import StorageError
from tune.monitor.live_view import ProgressLines, headline, progress_table, watch
from tune.monitor.sweep_progress import SweepProgress, TrialProgress
from tune.monitor.tables import short_names

PARAMS = {"clusters.count": 16, "scam.stages": [1, 2], "scam.scale": 0.123456, "distill.outer_weight": 0.7}


def row(number, state="running", epoch=3, **fields):
    fields = {"params": PARAMS if number else {}, **fields}
    return TrialProgress(f"{number:04d}", state, epoch, 10, 2.0, 0.5, 0.5 + number / 100, **fields)


def view(*rows, **fields):
    return SweepProgress(
        **{"name": "demo", "state": "running", "metric": "holdout/point_score", "maximize": True, **fields}, rows=rows
    )


def drawn(seen, width, height=40):
    file = io.StringIO()
    Console(file=file, width=width, height=height, color_system=None).print(progress_table(seen, width, height))
    return file.getvalue()


def test_the_table_shows_what_runs_and_the_best(capsys):
    shown = drawn(view(row(0, "completed", 10), row(1), row(2, "stopped", 4), trials=6, elapsed=60.0), 140)
    lines = shown.splitlines()
    assert lines[0].startswith("demo: running, 2 of 6 trials ended, 1 running, 1:00 elapsed, about ")
    for name in ("count", "stages", "scale", "outer_weight", "point_score", "best", "left"):
        assert name in lines[2]
    bodies = [line for line in lines if "│" in line]
    assert [line.split("│")[1].strip() for line in bodies] == ["0001", "0002", "0000"]
    assert "3/10" in bodies[0] and "0:14" in bodies[0] and "0.123" in bodies[0]
    assert "stopped" in bodies[1]
    assert lines[-1] == "3 not begun, best: trial 0002, holdout/point_score 0.5200"


def test_a_storage_that_is_away_for_a_while_does_not_end_the_watching():
    file, rows = io.StringIO(), [row(0, epoch=1), None, None, row(0, epoch=2), None, row(0, "completed", 10)]
    views = [one and view(one, trials=1, state="done" if one.state == "completed" else "running") for one in rows]

    def look():
        seen = views.pop(0)
        if seen is None:
            raise StorageError("s3://b/runs: the server cannot be reached")
        return seen

    assert watch(look, Console(file=file, width=200), poll=0).state == "done"
    assert file.getvalue().count("the sweep continues, and its storage is tried again and again: s3://b/runs") == 2
    views[:] = [None]
    with pytest.raises(StorageError):
        watch(look, Console(file=file), poll=0)
    views[:] = [view(trials=1), None]
    alive = iter([True, False])
    with pytest.raises(StorageError):  # nobody runs it any more
        watch(look, Console(file=file), poll=0, alive=lambda: next(alive))


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_fits_the_terminal(width):
    rows = [row(number, "stopped" if number < 36 else "running") for number in range(40)]
    shown = drawn(view(*rows, trials=100, elapsed=9999.0), width, 24)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24
    assert "0036" in shown and "more trials" in shown
    assert "point_score" in shown and "0.8900" in shown


def test_plain_lines_print_each_change_once():
    file = io.StringIO()
    lines = ProgressLines(Console(file=file, width=40))
    for seen in (
        view(trials=2),
        view(row(0, epoch=1), trials=2),
        view(row(0, epoch=2), trials=2),
        view(row(0, "completed", 10), row(1), trials=2),
        view(row(0, "completed", 10), row(1, "failed", 4, reason="out of memory"), trials=2),
    ):
        lines.update(seen)
    assert file.getvalue().splitlines() == [
        "demo: running, 0 of 2 trials ended, 0 running",
        "trial 0000 began: the preset itself",
        "best so far: trial 0000, holdout/point_score 0.5000",
        "trial 0000 completed after epoch 10/10, best 0.5000",
        "trial 0001 began: clusters.count=16  scam.stages=1,2  scam.scale=0.123  distill.outer_weight=0.7",
        "best so far: trial 0001, holdout/point_score 0.5100",
        "trial 0001 failed after epoch 4/10, best 0.5100: out of memory",
    ]


def test_time_left_counts_what_runs_and_what_waits():
    assert view(trials=4).left is None
    alone = view(row(0), trials=1)
    assert alone.left == 14  # 7 epochs of 2 s
    two_of_four = view(row(0), row(1), trials=4)
    assert two_of_four.left == (14 + 14 + 2 * 20) / 2
    budgeted = view(row(0), row(1), trials=400, hours=1.0, elapsed=3590.0)
    assert budgeted.left == 14  # nothing begins after the hours; running trials continue
    assert "about 0:34 left" in headline(two_of_four)


def test_watching_ends_with_the_sweep_or_with_its_driver():
    console = Console(file=io.StringIO())
    words = iter(["waiting", "running", "done"])
    assert watch(lambda: view(trials=1, state=next(words)), console, poll=0.0).state == "done"
    alive = iter([True, True, False])
    seen = []
    watch(lambda: seen.append(1) or view(trials=1), console, poll=0.0, alive=lambda: next(alive))
    assert len(seen) == 3


def test_short_names_stay_unlike():
    keys = ["clusters.count", "scam.scale", "data.scale", "epochs"]
    assert short_names(keys) == {
        "clusters.count": "count",
        "scam.scale": "scam.scale",
        "data.scale": "data.scale",
        "epochs": "epochs",
    }
