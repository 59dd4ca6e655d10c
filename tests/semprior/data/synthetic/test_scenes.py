"""Synthetic scenes: masks match targets, backgrounds have their spectra, equal seeds give equal files."""

import filecmp
import os
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from semprior.data.images import IntensityRange
from semprior.data.layout import check_dataset, find_layout, read_scenes
from semprior.data.synthetic.backgrounds import BACKGROUNDS, power_law
from semprior.data.synthetic.scenes import BACKGROUND_SHARES, scene_at, synth_scene, write_scenes
from semprior.data.synthetic.targets import KINDS, LARGEST, SMALLEST, add_target, draw_target
from semprior.errors import UserError


@pytest.fixture(scope="module")
def scenes():
    return [scene_at(index, 0) for index in range(45)]


def areas(mask):
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.bincount(labels.ravel())[1:]


def test_scenes_have_the_types_and_points_of_read_scenes(scenes):
    for scene in scenes:
        assert (scene.image.dtype, scene.points.dtype, scene.mask.dtype) == (np.uint8, np.int64, bool)
        assert scene.image.shape == scene.mask.shape
        assert len(areas(scene.mask)) == len(scene.points) <= 3
        assert all(SMALLEST <= area <= LARGEST for area in areas(scene.mask))
        assert scene.mask[scene.points[:, 0], scene.points[:, 1]].all()
        assert scene.image.std() > 0.5
        assert (scene.image == 255).mean() < 0.2


def test_images_vary_in_size_and_number_of_targets(scenes):
    assert len({scene.image.shape for scene in scenes}) > 35
    counts = np.bincount([len(scene.points) for scene in scenes], minlength=4)
    assert (counts > 0).all()
    assert counts[1] > 0.4 * len(scenes)


def test_targets_outshine_their_surroundings(scenes):
    rises = []
    for scene in scenes:
        labels, count = ndimage.label(scene.mask, np.ones((3, 3)))
        for label in range(1, count + 1):
            inside = labels == label
            near = ndimage.binary_dilation(inside, iterations=8) & ~ndimage.binary_dilation(inside, iterations=4)
            rises.append(scene.image[inside].mean() - scene.image[near & ~scene.mask].mean())
    assert np.mean(np.array(rises) > 0) > 0.95
    assert np.percentile(rises, 10) < 20 < 40 < np.percentile(rises, 90)  # from faint to salient


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_where_the_target_exceeds_its_share(kind):
    for seed in range(20):
        target = draw_target(np.random.default_rng(seed), kind)
        np.testing.assert_array_equal(target.mask, target.light > 0.35 * target.light.max())
        assert target.light.max() == pytest.approx(1)
        assert len(areas(target.mask)) == 1
        assert SMALLEST <= target.mask.sum() <= LARGEST


def test_filaments_are_long():
    def elongation(kind, seed):
        pixels = np.argwhere(draw_target(np.random.default_rng(seed), kind).mask)
        spread = np.linalg.eigvalsh(np.cov((pixels - pixels.mean(0)).T) + np.eye(2) / 12)
        return np.sqrt(spread[1] / spread[0])

    assert np.median([elongation("filamentary", seed) for seed in range(30)]) > 2.5
    assert np.median([elongation("faint", seed) for seed in range(30)]) < 1.8


def test_faint_targets_seek_calm_and_camouflaged_ones_clutter():
    radiance = np.full((120, 160), 90, np.float32)
    radiance[:, 80:] += 12 * power_law(np.random.default_rng(0), (120, 80), 2.0)
    for kind, side in (("faint", 0), ("camouflaged", 1)):
        right = [
            np.argwhere(add_target(np.random.default_rng(seed), radiance, np.zeros((120, 160), bool), kind, 1.0)[1])
            .mean(axis=0)[1] >= 80
            for seed in range(12)
        ]  # fmt: skip
        assert np.mean(right) == side


def test_a_target_that_does_not_fit_is_omitted():
    radiance, mask = np.full((64, 64), 249, np.float32), np.zeros((64, 64), bool)
    same, still = add_target(np.random.default_rng(0), radiance, mask, "salient", 1.0)
    assert same is radiance
    assert not still.any()


@pytest.mark.parametrize("slope", [0.0, 2.0, 3.5])
def test_fields_have_the_requested_spectrum(slope):
    field = power_law(np.random.default_rng(0), (256, 256), slope, tile=True)
    assert (field.mean(), field.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    power = np.abs(np.fft.fft2(field)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    rings = np.geomspace(0.03, 0.45, 12)
    means = [power[(radius >= low) & (radius < high)].mean() for low, high in pairwise(rings)]
    middles = np.sqrt(rings[1:] * rings[:-1])
    assert np.polyfit(np.log(middles), np.log(means), 1)[0] == pytest.approx(-slope, abs=0.15)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_background_takes_every_kind(background, kind):
    rng = np.random.default_rng(5)
    found = [
        len(synth_scene(rng, (96, 128), background=background, kinds=[kind]).points) for _ in range(2)
    ]  # fmt: skip
    assert max(found) == 1


def test_shares_name_every_background_and_sum_to_one():
    assert set(BACKGROUND_SHARES) == set(BACKGROUNDS)
    assert sum(BACKGROUND_SHARES.values()) == pytest.approx(1)
    assert sum(KINDS.values()) == pytest.approx(1)


def test_no_target_on_demand():
    scene = synth_scene(np.random.default_rng(0), (64, 64), kinds=[])
    assert not scene.mask.any()
    assert scene.points.shape == (0, 2)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_written_scenes_are_a_data_set_without_faults(tmp_path):
    root = tmp_path / "new" / "scenes"
    write_scenes(root, 10, seed=3)
    assert check_dataset(root) == []
    layout = find_layout(root)
    assert {split: len(names) for split, names in layout.splits.items()} == {"train": 6, "val": 2, "test": 2}
    (first, *_) = read_scenes(layout, "test", IntensityRange(), masks="optional")
    expected = scene_at(int(first.name.split("_")[1]), 3)
    np.testing.assert_array_equal(first.image, expected.image)
    np.testing.assert_array_equal(first.mask, expected.mask)
    assert {tuple(p) for p in first.points} == {tuple(p) for p in expected.points}
    assert os.listdir(root.parent) == ["scenes"]


def test_equal_seeds_give_equal_files_and_more_scenes_keep_the_first(tmp_path):
    for folder, count, seed in (("a", 3, 1), ("b", 3, 1), ("c", 4, 1), ("d", 3, 2)):
        write_scenes(tmp_path / folder, count, seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files(tmp_path / "a"), shallow=False)[1:] == ([], [])
    pictures = [name for name in files(tmp_path / "a") if name.endswith(".png")]
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", pictures, shallow=False)[1:] == ([], [])
    images = [name for name in pictures if name.startswith("images")]
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "d", images, shallow=False)[0] == []


def test_an_existing_folder_and_too_few_scenes_are_refused(tmp_path):
    with pytest.raises(UserError, match="exists already"):
        write_scenes(tmp_path, 5)
    with pytest.raises(UserError, match="at least 3"):
        write_scenes(tmp_path / "new", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written"):
        write_scenes(tmp_path / "file" / "new", 3)
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("semprior.data.synthetic.scenes.seeded_splits", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_scenes(tmp_path / "new", 3)
    assert os.listdir(tmp_path) == []
