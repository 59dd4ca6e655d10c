import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from semprior.errors import UserError
from semprior.foundation import feature_file as feature_store
from semprior.foundation.feature_bank import FeatureBank
from semprior.foundation.vfm import load_vfm

pytestmark = pytest.mark.trains

STUB = '''
import hashlib
import torch

class Stub:
    """Stands in for a VFM: two maps that depend on place and surroundings, and a count of images."""

    name = "stub"
    map_channels = (3, 2)
    key = hashlib.sha256(b"stub").hexdigest()

    def __init__(self):
        self.count = 0

    def __call__(self, grey):
        self.count += len(grey)
        pooled = torch.nn.functional.avg_pool2d(grey, 16)
        context = torch.nn.functional.avg_pool2d(pooled, 3, 1, 1)
        rows = torch.arange(pooled.shape[2]).view(1, 1, -1, 1).expand_as(pooled) / 8
        cols = torch.arange(pooled.shape[3]).view(1, 1, 1, -1).expand_as(pooled) / 8
        return [torch.cat([pooled, rows, cols], 1), torch.cat([context, 1 - pooled], 1)]
'''
space = {}
exec(STUB, space)
Stub = space["Stub"]


def pictures(seed=0, shapes=((100, 150), (64, 64), (33, 300), (270, 280))):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 256, shape, dtype=np.uint8) for shape in shapes]


def whole_maps(vfm, image):
    """Plain version: maps of the image padded with 0 to a multiple of 32, rounded to float16."""
    rows, cols = (-(-side // 32) * 32 for side in image.shape)
    padded = torch.zeros(1, 1, rows, cols)
    padded[0, 0, : image.shape[0], : image.shape[1]] = torch.from_numpy(image) / 255
    return [m[0].half().float() for m in vfm(padded)]


def plain_crop(vfm, image, row, col, height, width):
    """Plain version: one token at a time."""
    black = [m[0, :, 8, 8].half().float() for m in vfm(torch.zeros(1, 1, 256, 256))]
    crops = []
    for maps, dark in zip(whole_maps(vfm, image), black, strict=True):
        crop = torch.empty(maps.shape[0], height // 16, width // 16)
        for y in range(crop.shape[1]):
            for x in range(crop.shape[2]):
                r, c = (row + 8) // 16 + y, (col + 8) // 16 + x
                inside = r < maps.shape[1] and c < maps.shape[2]
                crop[:, y, x] = maps[:, r, c] if inside else dark
        crops.append(crop)
    return crops


@pytest.mark.parametrize("size", [32, 96, 256, (96, 160), (288, 288)])
def test_a_crop_is_the_nearest_tokens_of_the_whole_image_and_black_beyond(tmp_path, size):
    images = pictures()
    bank = FeatureBank.build(tmp_path, Stub(), images)
    rng = np.random.default_rng(1)
    indices = rng.integers(0, len(images), 40)
    rows, cols = (np.array([rng.integers(0, images[i].shape[axis]) for i in indices]) for axis in (0, 1))
    maps = bank.crop(torch.from_numpy(indices), list(rows), cols, size)
    height, width = (size, size) if isinstance(size, int) else size
    assert [m.shape for m in maps] == [(40, c, height // 16, width // 16) for c in (3, 2)]
    for place, (i, r, c) in enumerate(zip(indices, rows, cols, strict=True)):
        for ours, plain in zip(maps, plain_crop(Stub(), images[i], r, c, height, width), strict=True):
            assert torch.equal(ours[place], plain)


def test_a_real_network_through_the_bank_is_its_whole_image_forward_in_16_bit(tmp_path):
    vfm = load_vfm("mobilenetv3_small_050", "random")
    (image,) = pictures(shapes=[(120, 170)])
    bank = FeatureBank.build(tmp_path, vfm, [image])
    for ours, plain in zip(bank.crop([0], [0], [0], (128, 192)), whole_maps(vfm, image), strict=True):
        assert torch.equal(ours[0].float(), plain) and ours.dtype == torch.float16 and ours.stride(1) == 1
    half = bank.crop([0], [0], [0], (128, 192), dtype=torch.bfloat16)
    assert all(m.dtype == torch.bfloat16 for m in half)
    assert [m.shape[1] for m in half] == list(vfm.map_channels)


def test_a_second_build_runs_nothing_and_shares_what_other_lists_hold(tmp_path):
    images, seen = pictures(), []
    first = FeatureBank.build(tmp_path, Stub(), images, progress=lambda done, of: seen.append((done, of)))
    assert first.forwards == 4
    assert seen == [(k, 4) for k in range(5)]
    vfm = Stub()
    again = FeatureBank.build(tmp_path, vfm, images, progress=lambda *_: pytest.fail("nothing to do"))
    assert again.forwards == vfm.count == 0
    mixed = FeatureBank.build(tmp_path, Stub(), [*pictures(seed=9)[:1], images[2], images[2], images[0]])
    assert mixed.forwards == 1
    for ours, before in zip(
        mixed.crop([1, 3], [0, 0], [0, 0], 64), first.crop([2, 0], [0, 0], [0, 0], 64), strict=True
    ):
        assert torch.equal(ours, before)


def test_equal_pixels_of_another_shape_are_another_image(tmp_path):
    image = pictures()[0]
    bank = FeatureBank.build(tmp_path, Stub(), [image, image.reshape(150, 100)])
    assert bank.forwards == 2


def test_another_network_has_features_of_its_own(tmp_path):
    other = Stub()
    other.key = "0" * 64
    assert FeatureBank.build(tmp_path, Stub(), pictures()).forwards == 4
    assert FeatureBank.build(tmp_path, other, pictures()).forwards == 4


def test_images_beyond_the_budget_are_computed_per_crop_and_counted(tmp_path):
    images = pictures()
    budget = 1e-9 * 2 * 5 * (8 * 10 + 4 * 4)  # what the first two take: 16 bits, 5 channels, 8x10 and 4x4 tokens
    bank = FeatureBank.build(tmp_path, Stub(), images, budget_gb=budget)
    assert bank.overflow == (2, 3) and bank.forwards == 2
    assert "2 images" in bank.describe() and "2 beyond vfm.bank_gb" in bank.describe()
    maps = bank.crop([3, 0, 2], [100, 3, 0], [7, 0, 250], 96)
    assert bank.forwards == 4
    for place, (i, r, c) in ((0, (3, 100, 7)), (2, (2, 0, 250))):
        crop = np.zeros((96, 96), np.uint8)
        part = images[i][r : r + 96, c : c + 96]
        crop[: part.shape[0], : part.shape[1]] = part
        for ours, exact in zip(maps, Stub()(torch.from_numpy(crop)[None, None] / 255), strict=True):
            assert torch.equal(ours[place], exact[0].half())
    for ours, plain in zip(maps, plain_crop(Stub(), images[0], 3, 0, 96, 96), strict=True):
        assert torch.equal(ours[1], plain)
    assert FeatureBank.build(tmp_path, Stub(), images, budget_gb=0).overflow == (0, 1, 2, 3)


def test_wrong_crops_are_refused(tmp_path):
    bank = FeatureBank.build(tmp_path, Stub(), pictures())
    with pytest.raises(ValueError, match="multiples of 16"):
        bank.crop([0], [0], [0], 100)
    with pytest.raises(ValueError, match="0 or more"):
        bank.crop([0], [-1], [0], 64)


DAMAGES = {
    "a byte of the features": lambda data, index: flip(data, 1000),
    "the features cut short": lambda data, index: os.truncate(data, data.stat().st_size - 100),
    "the features gone": lambda data, index: data.unlink(),
    "a byte of the index": lambda data, index: flip(index, index.stat().st_size // 2),
    "the index cut in a line": lambda data, index: os.truncate(index, index.stat().st_size - 20),
    "the index gone": lambda data, index: index.unlink(),
    "a killed writer's tail": lambda data, index: data.write_bytes(data.read_bytes() + b"torn"),
    "binary rubbish as index": lambda data, index: index.write_bytes(os.urandom(300)),
}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_mended(tmp_path, damage, caplog):
    images = pictures()
    before = FeatureBank.build(tmp_path, Stub(), images).crop(range(4), [0] * 4, [0] * 4, 288)
    before = [m.clone() for m in before]
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    DAMAGES[damage](folder / "features.bin", folder / "index.jsonl")
    mended = FeatureBank.build(tmp_path, Stub(), images)
    for ours, expected in zip(mended.crop(range(4), [0] * 4, [0] * 4, 288), before, strict=True):
        assert torch.equal(ours, expected)
    if damage == "a killed writer's tail":
        assert mended.forwards == 0
    elif "gone" not in damage:
        assert mended.forwards >= 1 and "damaged" in caplog.text
    more = [*images, *pictures(seed=4)]
    assert FeatureBank.build(tmp_path, Stub(), more).forwards == 4
    assert FeatureBank.build(tmp_path, Stub(), more).forwards == 0


def test_a_full_disk_is_one_line_and_leaves_a_store_that_works(tmp_path, monkeypatch, full_disk):
    images = pictures()
    FeatureBank.build(tmp_path, Stub(), images[:1])

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"feature bank: .*No space left on device"):
        patch.setattr(feature_store, "_sync", full)
        FeatureBank.build(tmp_path, Stub(), images)
    assert FeatureBank.build(tmp_path, Stub(), images).forwards == 3
    with full_disk(), pytest.raises(UserError, match=r"feature bank: .* cannot be written"):
        FeatureBank.build(tmp_path, Stub(), pictures(seed=5))
    assert FeatureBank.build(tmp_path, Stub(), images).forwards == 0
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        FeatureBank.build(tmp_path / "file", Stub(), images)


def test_values_beyond_16_bit_are_cut_and_said(tmp_path, caplog):
    class Loud(Stub):
        def __call__(self, grey):
            return [m * 1e6 for m in super().__call__(grey)]

    bank = FeatureBank.build(tmp_path, Loud(), pictures()[:1])
    assert all(torch.isfinite(m).all() for m in bank.crop([0], [0], [0], 64))
    assert "range of float16" in bank.describe() and "range of float16" in caplog.text


def test_two_processes_share_the_work(tmp_path):
    script = STUB + (
        "import sys, time, types, numpy as np\n"
        "sys.modules['timm'] = types.ModuleType('timm')  # not needed here, and slow to import\n"
        "from pathlib import Path\n"
        "from semprior.foundation.feature_bank import FeatureBank\n"
        "rng = np.random.default_rng(0)\n"
        "images = [rng.integers(0, 256, (40, 50), dtype=np.uint8) for _ in range(30)]\n"
        "(Path(sys.argv[1]) / sys.argv[2]).touch()\n"
        "while len(list(Path(sys.argv[1]).glob('ready*'))) < 2:\n"
        "    time.sleep(0.01)\n"
        "bank = FeatureBank.build(Path(sys.argv[1]) / 'bank', Stub(), images)\n"
        "print(bank.forwards, sum(float(m.sum()) for m in bank.crop(range(30), [0] * 30, [0] * 30, 64)))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen([*command, f"ready{k}"], stdout=subprocess.PIPE, text=True) for k in range(2)]
    (first, total), (second, same) = (process.communicate()[0].split() for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert int(first) + int(second) == 30 and total == same
