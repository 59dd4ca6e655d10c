"""The benchmark of paired errors on a made-up sweep."""

import json

import pytest

from benchmarks.paired import _errors, main
from semprior.errors import UserError
from tests.tune.images import noisy_scores, scored_images
from tests.tune.made_up import made_up_sweep
from tune.comparison.paired import Comparison


def test_errors_on_the_same_images_are_smaller(tmp_path, capsys):
    sweep = made_up_sweep(tmp_path)
    assert main([sweep.storage.uri, "--metric", "point_score", "iou", "--json"]) == 0
    points, iou = json.loads(capsys.readouterr().out)
    assert (points["first"], points["second"], points["runs"], points["images"]) == ("0001", "0000", 1, 24)
    assert points["difference"] == pytest.approx(0.3, abs=1e-4)
    assert points["paired"] < points["unpaired"] / 4
    assert iou["paired"] == pytest.approx(points["paired"] / 2, rel=1e-3)
    assert main([sweep.storage.uri]) == 0
    assert "point_score, 1 run: medians 0.0030 paired, " in capsys.readouterr().out
    sweep.storage.delete_folder("image-sums")
    with pytest.raises(UserError, match="has no two configurations that were evaluated on the same images"):
        main([sweep.storage.uri])


def test_folds_together_have_smaller_errors_than_one():
    names = [[f"{fold}-{index}" for index in range(24)] for fold in range(4)]
    runs = [
        {fold: scored_images(noisy_scores(0.5, 10 * number + fold), names[fold]) for fold in range(4)}
        for number in range(2)
    ]
    (together,) = _errors(Comparison(runs, "point_score"), ["0000", "0001"])
    (alone,) = _errors(Comparison([{0: one[0]} for one in runs], "point_score"), ["0000", "0001"])
    assert (together["runs"], together["images"], alone["runs"], alone["images"]) == (4, 96, 1, 24)
    assert together["paired"] < 0.8 * alone["paired"]
