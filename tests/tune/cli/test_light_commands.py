"""Commands that only read a storage answer at once: they import neither PyTorch, OpenCV nor Ray."""

import csv
import io
import json
import subprocess
import sys

import pytest

from tests.repository import ROOT
from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.store.records import Record
from tune.store.results_store import ResultsStore

HEAVY = {"torch", "cv2", "ray"}
PROGRAM = """
import json, sys
from tune.cli.app import main
code = main(json.loads(sys.argv[1]))
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep with enough trials for the importance of its dimensions, with the stages of two detectors among them."""
    sweep = made_up_sweep(
        tmp_path_factory.mktemp("made-up"), ("search:\n", "search:\n  detector: {values: [alclnet, mlclnet]}\n")
    )
    base = ResultsStore(sweep.storage).trials()[0].config
    records = []
    for number in range(3, 15):
        stages = [1, 3] if number % 2 else "all"
        params = {
            "detector": ("alclnet", "mlclnet")[number % 3 == 0],
            "clusters.count": number,
            "scam.stages": stages,
            "scam.scale": 0.1,
        }
        shared = {
            "trial": f"{number:04d}",
            "configuration": number,
            "seed": 0,
            "attempt": 1,
            "params": params,
            "config": {**base, **params},
        }
        for epoch in range(4):
            score = 0.5 + number / 100 + (0.1 if stages == "all" else 0.0)
            metrics = {"holdout/point_score": score, "holdout/point_score_se": 0.01}
            records.append(Record(kind="report", epoch=epoch, metrics=metrics, values=(score,), best=True, **shared))
    ResultsStore(sweep.storage).append(records)
    return sweep


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "submit"),
        (["list"], "small"),
        (["list", "--format", "json"], "small"),
        (["status", "small"], "2 of 12 trials ended"),
        (["top", "small"], "importance of the dimensions over"),
        (["show", "small", "0001"], "stopped by asha at epoch 4"),
    ],
)
def test_a_command_that_only_reads_imports_nothing_heavy(arguments, expected, sweep):
    place = [] if arguments == ["--help"] else ["--storage", str(sweep.storage.local.parent)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([*arguments, *place])], cwd=ROOT, capture_output=True, text=True
    )
    assert expected in done.stdout, done.stderr
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert "tune" in modules and not HEAVY & set(modules)


NEWER = b'{"schema": 99, "id": "broken"}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NEWER, "was written by a newer version (schema 99); upgrade semprior"),
        (b'{"schema": 1, "id"', "is damaged"),
        (b'{"schema": 1, "id": "broken", "spec": null}', "broken/sweep.json"),
        (b"[]", "expected keys and values"),
        (b"\xff\x00", "is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_a_row_of_the_list(content, reason, tmp_path, capsys):
    runs = made_up_sweep(tmp_path).storage.local.parent
    (runs / "broken").mkdir()
    (runs / "broken" / "sweep.json").write_bytes(content)
    assert main(["list", "--storage", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "small" in shown and "unreadable" in shown
    assert reason in next(line for line in shown.splitlines() if line.startswith("broken cannot be read: "))
    assert main(["list", "--storage", str(runs), "--format", "json"]) == 0
    small, broken = json.loads(capsys.readouterr().out)
    assert (small["sweep"], small["state"]) == ("small", "waiting")
    assert (broken["sweep"], broken["state"], broken["best"]) == ("broken", "unreadable", None)
    assert reason in broken["reason"]
    assert main(["list", "--storage", str(runs), "--format", "csv"]) == 0
    assert [row["sweep"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == ["small", "broken"]


def test_records_that_cannot_be_read_are_counted_and_hide_no_sweep(tmp_path, capsys):
    sweep = made_up_sweep(tmp_path)
    (sweep.storage.local / "records" / "new" / "x.v99.parquet").touch()
    assert main(["list", "--storage", str(sweep.storage.local.parent)]) == 0
    shown = capsys.readouterr().out
    assert "waiting" in shown and "unreadable" not in shown
    assert "small: 1 file is left out: records/new/x.v99.parquet was written by a newer version (schema 99)" in shown
