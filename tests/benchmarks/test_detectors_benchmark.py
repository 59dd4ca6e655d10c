"""The table of detectors, on an untrained checkpoint with the lines of a run."""

import json

import pytest

from benchmarks import detectors
from semprior.deployment.cost import DetectorCost, FormCost
from tests.tiny import optional, write_checkpoint, write_dataset

optional("onnx")
optional("onnxruntime")


COST = DetectorCost("mlclnet", 64, 1, 563_000, 0.5, (FormCost("ONNX Runtime", "int8", 3.25, 4.0, None, 0.2),))


def test_a_run_is_measured_once_and_kept(tmp_path, capsys, monkeypatch):
    data, run, out = write_dataset(tmp_path / "data"), tmp_path / "run", tmp_path / "rows.jsonl"
    write_checkpoint(run)
    (run / "metrics.jsonl").write_text("".join(json.dumps({"epoch": e, "seconds": 30.0}) + "\n" for e in range(4)))
    words = [str(run), "--data", str(data), "--size", "64", "--out", str(out)]
    asked = []
    monkeypatch.setattr(detectors, "detector_cost", lambda *given: asked.append(given) or COST)
    assert detectors.main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["detector"], row["trained"], row["minutes"]) == ("mlclnet", 4, 2.0)
    assert set(row["student"]) == {"iou", "niou", "pd", "fa"}
    assert (asked, row["ms"]) == ([(str(run), 64, 1)], {"ONNX Runtime int8": 3.25})
    assert abs(row["int8_iou_change"]) < 1

    monkeypatch.setattr(detectors, "measure", None)  # nothing is measured again
    assert detectors.main(words) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("mlclnet", "563,000", "3.2"))


@pytest.mark.parametrize("lacks", ["run", "data"])
def test_a_fault_is_one_line(tmp_path, capsys, lacks):
    run, data = tmp_path / "run", tmp_path / "data"
    if lacks == "data":
        write_checkpoint(run)
        (run / "metrics.jsonl").touch()
    assert detectors.main([str(run), "--data", str(data), "--out", str(tmp_path / "rows.jsonl")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
