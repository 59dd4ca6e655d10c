"""The benchmark of what surrounds the steps, on a data set of a few images."""

import json

import pytest

from benchmarks import throughput
from tests.tiny import write_dataset

pytestmark = pytest.mark.trains


def test_all_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "BATCH", 2)
    monkeypatch.setattr(throughput, "CROP", 64)
    data = write_dataset(tmp_path / "data")
    options = [
        "--data",
        str(data),
        "--vfm",
        "test_efficientnet",
        "test_vit",
        "--rounds",
        "1",
        "--images",
        "2",
        "--json",
    ]
    assert throughput.main(options) == 0
    found = json.loads(capsys.readouterr().out)
    lines = {"batches test_efficientnet", "batches test_vit", "evolution", "evaluation mlclnet", "evaluation alclnet"}
    assert lines < set(found)
    for line in lines:
        assert found[line]["ratio"] == pytest.approx(found[line]["ours"] / found[line]["plain"])
        assert ("bound" in found[line]) == (line != "evolution")
    assert "machine" in found


def test_a_fault_of_the_data_is_one_line(tmp_path, capsys):
    assert throughput.main(["--data", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
