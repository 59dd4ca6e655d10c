"""The benchmark of seeds on a small data set."""

import json

import numpy as np
import pytest

from benchmarks import seeds


def test_one_object_on_standard_output(tiny_dataset, capsys):
    assert seeds.main(["--data", str(tiny_dataset()), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["images"], figures["points"], figures["true_pixels"]) == (9, 9, 81)
    for name in ("edges", "recipe", "contrast"):
        for kind in ("centroid", "coarse"):
            found = figures[name][kind]
            assert 0 <= found["iou"] <= 1
            assert found["ms_per_point"] >= 0
            assert found["sizes"]["1-9"]["targets"] == 9
    assert figures["contrast"]["centroid"]["iou"] > 0.9
    assert figures["contrast"]["coarse"]["iou"] > 0.9
    assert set(figures[seeds.BOXED]) == {"centroid", "coarse", "box"}
    assert figures[seeds.BOXED]["box"]["iou"] > 0.9


def test_tables(tiny_dataset, capsys):
    assert seeds.main(["--data", str(tiny_dataset())]) == 0
    printed = capsys.readouterr().out
    assert "9 training and validation images" in printed
    assert "contrast" in printed


def test_a_data_set_without_masks(tiny_dataset, capsys):
    assert seeds.main(["--data", str(tiny_dataset(masks=None))]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert not said.out


def test_the_test_split_is_not_read(tiny_dataset, capsys):
    root = tiny_dataset()
    for index in range(9, 12):  # the names of the test split
        (root / "images" / f"Tiny_{index}.png").write_bytes(b"spoilt")
    assert seeds.main(["--data", str(root), "--json"]) == 0


@pytest.mark.parametrize("fraction", [0.35, 0.4])
def test_the_plain_recipe(fraction):
    image = np.full((60, 60), 50, np.uint8)
    image[30:33, 30:33], image[29, 31] = 150, 80  # the pixel above rises by 0.3 of the peak's rise
    seed = seeds.recipe_seed(image, np.array([[31, 31]]), fraction)
    assert np.count_nonzero(seed.mask) == 9
    assert seed.succeeded.all()
