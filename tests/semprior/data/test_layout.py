"""Data sets in every layout give the same scenes, and only evaluation opens masks."""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from semprior.data.images import IntensityRange, read_image
from semprior.data.layout import (
    all_masked,
    check_dataset,
    find_layout,
    intensity_range,
    normalisation,
    read_scenes,
    survey_dataset,
)
from semprior.errors import UserError
from semprior.reading.pixels import bits_per_channel
from tests.conftest import tiny_picture, write_picture


def read_all(root: Path, masks="optional"):
    layout = find_layout(root)
    intensity = intensity_range(layout)
    return {split: read_scenes(layout, split, intensity, masks=masks) for split in layout.splits}


def assert_tiny(scenes, first=0):
    for index, scene in enumerate(scenes, first):
        image, mask, points = tiny_picture(index)
        assert scene.name == f"Tiny_{index}"
        assert (scene.image.dtype, scene.points.dtype, scene.mask.dtype) == (np.uint8, np.int64, bool)
        np.testing.assert_array_equal(scene.image, image)
        np.testing.assert_array_equal(scene.mask, mask)
        np.testing.assert_array_equal(scene.points, points)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"masks": "masks", "split_folder": "img_idx", "split_file": "{}_NUAA-SIRST.txt"},
        {"suffix": ".bmp", "entry": "{}.bmp"},
        {"suffix": ".bmp", "colour": True, "entry": "{}.PNG"},
        {"colour": True, "points": "points.csv", "entry": "{}.png"},
        {"points": "points.csv", "suffix": ".bmp"},
        {"split_file": "{}ing list.TXT".lower()},
    ],
    ids=lambda form: ", ".join(f"{key}={value}" for key, value in form.items()) or "sirst",
)
def test_every_layout_gives_the_same_scenes(tiny_dataset, form):
    root = tiny_dataset(**form)
    splits = read_all(root)
    assert {split: len(scenes) for split, scenes in splits.items()} == {"train": 6, "val": 3, "test": 3}
    assert_tiny([scene for scenes in splits.values() for scene in scenes])
    assert check_dataset(root) == []


def test_masks_of_the_original_sirst_are_found_by_their_names(tiny_dataset):
    root = tiny_dataset()
    for path in list((root / "labels").iterdir()):
        path.rename(path.with_name(f"{path.stem}_pixels0.png"))
    assert_tiny(read_all(root)["train"])
    assert check_dataset(root) == []
    assert all_masked(find_layout(root), "train")


def test_names_may_contain_dots_and_other_files_are_ignored(tiny_dataset):
    root = tiny_dataset()
    for folder in ("images", "labels", "masks_centroid"):
        (root / folder / "Tiny_0.png").rename(root / folder / "a.b.2.png")
        (root / folder / "Thumbs.db").write_bytes(b"x")
        (root / folder / "._Tiny_1.png").write_bytes(b"x")
    names = (root / "mode/train.txt").read_text().replace("Tiny_0\n", "a.b.2\n\n")
    (root / "mode/train.txt").write_bytes(b"\xef\xbb\xbf" + names.replace("\n", "\r\n").encode())
    assert [scene.name for scene in read_all(root)["train"]][:2] == ["a.b.2", "Tiny_1"]
    assert check_dataset(root) == []


class TestMasks:
    def test_training_reads_open_no_mask(self, tiny_dataset):
        root = tiny_dataset()
        for path in (root / "labels").iterdir():
            path.write_bytes(b"not an image")
        scenes = read_all(root, masks="never")["train"]
        assert all(scene.mask is None for scene in scenes)

    def test_masks_deleted(self, tiny_dataset):
        root = tiny_dataset()
        before = read_all(root)["train"]
        shutil.rmtree(root / "labels")
        after = read_all(root)["train"]
        assert not find_layout(root).has_masks
        assert not all_masked(find_layout(root), "train")
        assert check_dataset(root) == []
        for old, new in zip(before, after, strict=True):
            assert new.mask is None
            np.testing.assert_array_equal(old.image, new.image)
            np.testing.assert_array_equal(old.points, new.points)
        layout = find_layout(root)
        with pytest.raises(UserError, match="no masks"):
            read_scenes(layout, "test", IntensityRange(), masks="required")

    def test_only_the_test_split_may_have_masks(self, tiny_dataset):
        root = tiny_dataset()
        for index in range(9):
            (root / f"labels/Tiny_{index}.png").unlink()
        splits = read_all(root)
        assert [scene.mask is None for scene in splits["train"] + splits["test"]] == 6 * [True] + 3 * [False]
        assert check_dataset(root) == []
        assert [all_masked(find_layout(root), split) for split in ("train", "val", "test")] == [False, False, True]

    def test_names_with_dots_and_one_that_is_missing(self, tiny_dataset):
        root = tiny_dataset(splits=(("test", 3),))
        for folder in ("images", "labels"):
            (root / folder / "Tiny_0.png").rename(root / folder / "a.b.2.bmp")
        (root / "mode/test.txt").write_text("a.b.2\nTiny_1\nTiny_2.png\n")
        assert all_masked(find_layout(root), "test")
        with pytest.raises(UserError, match="no split 'train'; there is test"):
            all_masked(find_layout(root), "train")
        (root / "labels/Tiny_2.png").unlink()
        assert not all_masked(find_layout(root), "test")

    def test_evaluation_needs_no_points(self, tiny_dataset):
        root = tiny_dataset(points="")
        scenes = read_scenes(find_layout(root), "test", IntensityRange(), masks="required")
        assert all(scene.mask is not None and scene.points.shape == (0, 2) for scene in scenes)
        with pytest.raises(UserError, match=r"no points; .*`semprior data points"):
            read_all(root)

    def test_a_pixel_is_target_above_half_of_the_largest_value(self, tiny_dataset):
        root = tiny_dataset()
        mask = tiny_picture(1)[1].astype(np.uint8) * 200
        mask[0, :5], mask[6, 6] = (1, 50, 99, 100, 100), 101
        write_picture(root / "labels/Tiny_1.png", mask)
        scene = read_all(root)["train"][1]
        np.testing.assert_array_equal(scene.mask, tiny_picture(1)[1])
        assert scene.graded == 6
        faults, remarks = survey_dataset(root)
        assert faults == []
        assert "1 of 12 masks holds other values than two; 6 pixels decided by > half of" in " ".join(remarks)

    def test_no_colour_but_black_is_background(self, tiny_dataset):
        root = tiny_dataset()
        mask = tiny_picture(1)[1]
        for name, colour in (("Tiny_1", (1, 0, 0)), ("Tiny_2", (0, 0, 128))):
            picture = np.zeros((*mask.shape, 3), np.uint8)
            picture[tiny_picture(int(name[5:]))[1]] = colour
            write_picture(root / f"labels/{name}.png", picture)
        for scene in read_all(root)["train"][1:3]:
            np.testing.assert_array_equal(scene.mask, tiny_picture(int(scene.name[5:]))[1])

    @pytest.mark.parametrize("value", [1, 128, 255])
    def test_any_value_may_mean_target(self, tiny_dataset, value):
        root = tiny_dataset()
        mask = tiny_picture(1)[1]
        write_picture(root / "labels/Tiny_1.png", mask.astype(np.uint8) * value)
        np.testing.assert_array_equal(read_all(root)["train"][1].mask, mask)


class TestSixteenBit:
    @pytest.mark.parametrize("colour", [False, True])
    def test_the_training_images_set_the_range(self, tiny_dataset, colour):
        root = tiny_dataset(bits=16, colour=colour)
        bright = cv2.imread(str(root / "images/Tiny_11.png"), cv2.IMREAD_UNCHANGED)
        write_picture(root / "images/Tiny_11.png", bright * np.uint16(9))  # test images do not count
        intensity = intensity_range(find_layout(root))
        assert intensity.bits == 16
        assert 3000 + 40 * 20 <= intensity.low <= 3000 + 45 * 20
        assert intensity.high == 3000 + 200 * 20
        splits = read_all(root)
        for index, scene in enumerate(splits["train"]):
            source = tiny_picture(index)[0] * 20.0 + 3000
            expected = np.clip((source - intensity.low) / (intensity.high - intensity.low) * 255, 0, 255)
            np.testing.assert_allclose(scene.image, expected, atol=0.51)
        assert splits["test"][2].image.min() == 255  # beyond the range
        assert check_dataset(root) == []

    def test_a_hot_and_a_dead_pixel_do_not_count(self, tiny_dataset):
        root = tiny_dataset(bits=16)
        before = intensity_range(find_layout(root))
        image = cv2.imread(str(root / "images/Tiny_0.png"), cv2.IMREAD_UNCHANGED)
        image[3, 3], image[12, 20] = 65535, 0
        write_picture(root / "images/Tiny_0.png", image)
        after = intensity_range(find_layout(root))
        assert abs(after.low - before.low) <= 40
        assert after.high == before.high

    def test_flat_and_dark_images_have_a_range(self, tmp_path):
        for level in (0, 255, 7000):
            root = tmp_path / str(level)
            for index in range(3):
                write_picture(root / f"images/{index}.png", np.full((8, 8), level * (index != 1), np.uint16))
            intensity = intensity_range(find_layout(root))
            assert intensity.bits == 16
            assert read_image(root / "images/0.png", intensity).max() in (0, 254, 255)

    def test_depths_are_not_mixed(self, tiny_dataset, tmp_path):
        deep, flat = tiny_dataset(bits=16), tiny_dataset(root=tmp_path / "flat")
        with pytest.raises(UserError, match=r"Tiny_0\.png: 8-bit image.*16 bit"):
            read_image(flat / "images/Tiny_0.png", IntensityRange(3000, 9000))
        with pytest.raises(UserError, match=r"Tiny_0\.png: 16-bit image.*8 bit"):
            read_image(deep / "images/Tiny_0.png", IntensityRange())
        shutil.copy(flat / "images/Tiny_4.png", deep / "images/Tiny_4.png")
        assert [fault for fault in check_dataset(deep) if "Tiny_4" in fault and "8-bit" in fault]

    def test_depth_is_read_from_the_header(self, tmp_path):
        for name, depth, dtype in (("a.png", 8, np.uint8), ("b.png", 16, np.uint16), ("c.bmp", 8, np.uint8)):
            write_picture(tmp_path / name, np.zeros((5, 5), dtype))
            assert bits_per_channel(tmp_path / name) == depth


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_colour_becomes_grey_and_equal_channels_keep_their_value(tmp_path, suffix):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / f"a{suffix}"
    for channels in (3, 4) if suffix == ".png" else (3,):
        write_picture(path, np.repeat(grey[:, :, None], channels, axis=2))
        np.testing.assert_array_equal(read_image(path, IntensityRange()), grey)
    write_picture(path, np.dstack([0 * grey, 0 * grey, grey]))
    np.testing.assert_allclose(read_image(path, IntensityRange()), 0.299 * grey, atol=1)


def test_anchors_of_sirst(sirst):
    splits = {split: find_layout(sirst).splits[split] for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in splits.items()} == {"train": 171, "val": 42, "test": 214}
    layout = find_layout(sirst)
    train, val = (read_scenes(layout, split, IntensityRange()) for split in ("train", "val"))
    assert intensity_range(layout) == IntensityRange(0, 255)
    assert [sum(len(scene.points) for scene in scenes) for scenes in (train, val)] == [218, 52]
    mean, std = normalisation(train + val)
    assert (round(mean, 4), round(std, 4)) == (0.4339, 0.1152)


def test_sirst_has_no_faults(sirst):
    assert check_dataset(sirst) == []


def test_scenes_compare_by_identity(tiny_dataset):
    scenes = read_all(tiny_dataset())["train"]
    assert scenes[0] == scenes[0] != scenes[1]
    assert len({*scenes}) == len(scenes)


def test_nothing_is_printed(tiny_dataset, capfd):
    root = tiny_dataset()
    path = root / "images/Tiny_1.png"
    path.write_bytes(path.read_bytes()[:-30])
    check_dataset(root)
    sys.stderr.flush()
    assert capfd.readouterr() == ("", "")


def test_what_a_user_should_know_is_said(tiny_dataset):
    root = tiny_dataset((("train", 5), ("test", 4)), count=12)
    (root / "labels/Tiny_0.png").rename(root / "labels/Tony.png")
    (root / "images/read me.txt").write_text("x")
    for index in (1, 2):
        cv2.imwrite(str(root / f"images/Tiny_{index}.jpg"), cv2.imread(str(root / f"images/Tiny_{index}.png")))
        (root / f"images/Tiny_{index}.png").unlink()
    said = "\n".join(survey_dataset(root)[1])
    for line in (
        "splits of mode/test.txt, mode/train.txt: 4 train, 4 test, 1 val (a seeded fifth of the training images)",
        "not used, in no split: 3 of 12 images, such as Tiny_10",
        "images/: 1 file (1 .txt) not read",
        "JPEG: 2 images; the artefacts of this format look like small targets",
        "not used, for no image: 1 mask, such as Tony.png",
        "test: 4 images, 5 targets; 1 image without any",
    ):
        assert line in said


def test_a_data_set_without_a_test_split_is_sound_and_says_so(tiny_dataset):
    faults, remarks = survey_dataset(tiny_dataset((("train", 6), ("val", 3))))
    assert not faults
    assert "no test split: `semprior evaluate` can score val and train only" in remarks


def test_what_nothing_reads_is_named(tiny_dataset):
    root = tiny_dataset()
    assert not any("not read" in line for line in find_layout(root).remarks())
    (root / "labels").rename(root / "Masks")
    for name in ("group.csv", "README.md", ".hidden"):
        (root / name).write_text("name,group\n")
    assert "not read, under names that mean nothing: Masks/, group.csv" in find_layout(root).remarks()
