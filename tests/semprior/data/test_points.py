"""Points from masks: one on each target, at its centroid or at a seeded random pixel."""

import numpy as np
import pytest
from scipy import ndimage

from semprior.data.images import IntensityRange
from semprior.data.layout import check_dataset, find_layout, read_scenes
from semprior.data.points import centroid_points, coarse_points, write_points
from semprior.data.synthetic.scenes import scene_at
from semprior.errors import UserError


def blobs(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((60, 70)), 2)
    return noise > 1.5 * noise.std()


def labelled(mask):
    return ndimage.label(mask, np.ones((3, 3)))


@pytest.mark.parametrize("seed", range(3))
def test_centroids_against_a_direct_search(seed):
    mask = blobs(seed)
    labels, count = labelled(mask)
    expected = set()
    for label in range(1, count + 1):
        pixels = [tuple(pixel) for pixel in np.argwhere(labels == label)]
        centre = np.mean(pixels, axis=0)
        expected.add(min(pixels, key=lambda pixel: (np.hypot(*(pixel - centre)), pixel)))
    points = centroid_points(mask)
    assert points.dtype == np.int64
    assert {tuple(point) for point in points} == expected


def test_a_ring_gets_a_point_on_itself():
    mask = np.zeros((11, 11), bool)
    mask[2:9, 2:9] = True
    mask[3:8, 3:8] = False
    (point,) = centroid_points(mask)
    assert mask[tuple(point)]


@pytest.mark.parametrize("seed", range(3))
def test_coarse_points_lie_one_on_each_target(seed):
    mask = blobs(seed)
    labels, count = labelled(mask)
    points = coarse_points(mask, seed)
    assert sorted(labels[points[:, 0], points[:, 1]]) == list(range(1, count + 1))
    np.testing.assert_array_equal(points, coarse_points(mask, np.random.default_rng(seed)))
    assert not np.array_equal(points, coarse_points(mask, seed + 1))


def test_coarse_points_reach_every_pixel_of_a_target():
    mask = np.zeros((5, 5), bool)
    mask[1:3, 1:4] = True
    assert {tuple(coarse_points(mask, seed)[0]) for seed in range(100)} == {tuple(p) for p in np.argwhere(mask)}


def test_no_target_no_point():
    for points in (centroid_points(np.zeros((4, 4), bool)), coarse_points(np.zeros((4, 4), bool), 0)):
        assert points.shape == (0, 2)
        assert points.dtype == np.int64


def test_centroids_of_sirst_are_its_points(sirst):
    layout = find_layout(sirst)
    for scene in read_scenes(layout, "val", IntensityRange(), masks="optional"):
        assert {tuple(p) for p in centroid_points(scene.mask)} == {tuple(p) for p in scene.points}


def marked(root):
    layout = find_layout(root)
    return {s.name: s.points.tolist() for split in layout.splits for s in read_scenes(layout, split, IntensityRange())}


@pytest.mark.parametrize("coarse", [False, True])
def test_written_points_are_read_back(tiny_dataset, tmp_path, coarse):
    root = tiny_dataset(points="", masks="masks")
    assert write_points(root, coarse, seed=1) == 12
    assert sorted(path.name for path in root.iterdir()) == ["images", "masks", "masks_centroid", "mode"]
    assert check_dataset(root) == []
    smaller = tiny_dataset((("train", 4), ("test", 2)), points="", root=tmp_path / "smaller")
    write_points(smaller, coarse, seed=1)
    assert {name: marked(root)[name] for name in marked(smaller)} == marked(smaller)
    if not coarse:
        assert marked(root) == marked(tiny_dataset(root=tmp_path / "centroids"))


def test_existing_points_are_not_overwritten(tiny_dataset, tmp_path):
    for points in ("masks_centroid", "points.csv"):
        root = tiny_dataset(points=points, root=tmp_path / points)
        with pytest.raises(UserError, match=f"{points}: exists already"):
            write_points(root)


def test_a_faulty_mask_leaves_nothing_behind(tiny_dataset):
    root = tiny_dataset(points="")
    (root / "labels/Tiny_11.png").unlink()
    with pytest.raises(UserError, match="no mask for the image Tiny_11"):
        write_points(root)
    assert sorted(path.name for path in root.iterdir()) == ["images", "labels", "mode"]


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tiny_dataset, monkeypatch):
    root = tiny_dataset(points="")

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=r"masks_centroid: cannot be written \(No space left on device\)"):
        write_points(root)
    assert sorted(path.name for path in root.iterdir()) == ["images", "labels", "mode"]


def test_synthetic_points_are_the_centroids():
    scene = scene_at(1, 0)
    np.testing.assert_array_equal(scene.points, centroid_points(scene.mask))
