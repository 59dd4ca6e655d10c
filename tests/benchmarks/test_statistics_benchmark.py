"""The benchmark of image statistics on a small data set."""

import json

import cv2

from benchmarks import statistics


def test_one_object_on_standard_output(tiny_dataset, capsys):
    threads = cv2.getNumThreads()
    assert statistics.main(["--data", str(tiny_dataset(masks=None)), "--count", "4", "--rounds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["images"], figures["pixels"], figures["clusters"]) == (9, 24 * 32, 4)
    assert figures["clusters_found"] == 4
    assert figures["images_per_s"] > 0 < figures["images_per_s_clock"]
    assert figures["cluster_s"] >= 0
    assert "cores" in figures["machine"]
    assert cv2.getNumThreads() == threads


def test_table(tiny_dataset, capsys):
    assert statistics.main(["--data", str(tiny_dataset()), "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "images/s" in printed
    assert "9 clusters" in printed  # of 64 asked for


def test_a_missing_data_set(tmp_path, capsys):
    assert statistics.main(["--data", str(tmp_path / "nowhere"), "--json"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert not said.out
