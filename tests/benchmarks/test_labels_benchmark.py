"""The benchmark of pseudo-masks on a small data set and on the metrics of a run."""

import json

import pytest

from benchmarks import labels


def test_first_masks_and_those_of_a_run(tiny_dataset, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    rows = [{"epoch": 0, "labels/iou": 0.5, "labels/niou": 0.6}, {"epoch": 1}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = str(tiny_dataset())
    assert labels.main(["--data", data, "--runs", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][str(run)] == [{"epoch": 1, "iou": 0.5, "niou": 0.6}]
    assert found["first"][data]["contrast"]["iou"] > 0.9
    assert labels.main(["--data", data, "--runs", str(run)]) == 0
    assert "0.500" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["data", "run"])
def test_a_fault_is_one_line(tiny_dataset, tmp_path, capsys, fault):
    words = ["--data", str(tiny_dataset(masks=None))] if fault == "data" else ["--data", "--runs", str(tmp_path)]
    assert labels.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
