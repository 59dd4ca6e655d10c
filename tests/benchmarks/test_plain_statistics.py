"""The plain image statistics of `benchmarks` against ours: scenes, real images, and pictures of extremes."""

import json
import warnings

import cv2
import numpy as np
import pytest

from benchmarks import statistics
from benchmarks.plain import statistics as plain
from semprior.clustering.statistics import STATISTICS, image_statistics


def cloudy(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """A smooth ground with sensor noise and a bright target."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.normal(0, 200, shape), (0, 0), 5) + 90 + rng.normal(0, 3, shape)
    ground[20:23, 30:33] += 80
    return np.clip(np.rint(ground), 0, 255).astype(np.uint8)


def square(ground: int, target: int, side: int) -> np.ndarray:
    image = np.full((64, 70), ground, np.uint8)
    image[20 : 20 + side, 30 : 30 + side] = target
    return image


def drawn(levels: int, shape: tuple[int, int], factor: int = 1) -> np.ndarray:
    return np.random.default_rng(levels).integers(0, levels, shape).astype(np.uint8) * np.uint8(factor)


ROWS, COLUMNS = np.indices((96, 128))
SCENES = {
    "even-sides": cloudy(0, (64, 96)),
    "odd-sides": cloudy(1, (61, 83)),
    "rings-of-whole-frequencies": cloudy(2, (240, 320)),  # many radii lie exactly between two rings
    "noise": drawn(256, (97, 131)),
    "two-levels": drawn(2, (97, 131)),
    "black-and-white": drawn(2, (97, 131), 255),
    "stripes": np.rint(120 + 100 * np.cos(2 * np.pi * COLUMNS / 8)).astype(np.uint8),
    "slope": (2 * COLUMNS).astype(np.uint8),
    "step": np.where(COLUMNS > 63, 255, 0).astype(np.uint8),
    "board": ((ROWS // 8 + COLUMNS // 8) % 2 * 255).astype(np.uint8),
    "square": square(20, 120, 20),
    "spot": square(20, 200, 3),
    "hot-pixel": square(0, 255, 1),
}
EXTREMES = {
    **{f"black-{shape}": np.zeros(shape, np.uint8) for shape in ((1, 1), (33, 20))},
    **{f"grey-{shape}": np.full(shape, 7, np.uint8) for shape in ((1, 1), (1, 9), (2, 2), (3, 3), (5, 1), (40, 50))},
    "white": np.full((40, 50), 255, np.uint8),
    "row": np.arange(40, dtype=np.uint8)[None],
    "column": np.arange(40, dtype=np.uint8)[:, None],
    "2x2": np.array([[0, 255], [255, 0]], np.uint8),
    "3x3": np.arange(9, dtype=np.uint8).reshape(3, 3),
    "diagonal": np.eye(17, dtype=np.uint8) * 255,
    "strip": drawn(256, (5, 60)),
}


@pytest.mark.parametrize("name", [*SCENES, *EXTREMES])
def test_plain_and_ours_agree(name):
    image = (SCENES | EXTREMES)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = plain.image_statistics(image)
    assert tuple(values) == STATISTICS
    assert statistics.disagreements(values, image_statistics(image)) == []


def test_they_agree_on_real_images(sirst):
    for name in (sirst / "mode" / "val.txt").read_text().split()[::8]:
        image = cv2.imread(str(sirst / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        assert statistics.disagreements(plain.image_statistics(image), image_statistics(image)) == [], name


def test_what_differs_is_named():
    image = SCENES["odd-sides"]
    values, found = plain.image_statistics(image), image_statistics(image)
    for name, factor in (("gini", 1 + 1e-5), ("spectrum_slope", 1 + 1e-4), ("gabor_8_45", np.nan)):
        changed = found.copy()
        changed[STATISTICS.index(name)] *= factor
        (said,) = statistics.disagreements(values, changed)
        assert said.startswith(f"{name}: plain")


def test_the_ratio_is_of_plain_and_ours(tiny_dataset, capsys):
    assert statistics.main(["--data", str(tiny_dataset()), "--rounds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["plain_images_per_s"] > 0 < figures["plain_images_per_s_clock"]
    assert figures["ratio"] == pytest.approx(figures["images_per_s"] / figures["plain_images_per_s"])


def test_no_figures_where_they_differ(tiny_dataset, capsys, monkeypatch):
    monkeypatch.setattr(statistics, "image_statistics", lambda image: 1.01 * image_statistics(image))
    assert statistics.main(["--data", str(tiny_dataset()), "--rounds", "1", "--json"]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert "height" in said.err
    assert not said.out
