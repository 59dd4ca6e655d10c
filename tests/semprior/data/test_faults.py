"""Every fault of a data set is one line that names the file: the check lists them all, a reader raises the first."""

import zlib

import cv2
import numpy as np
import pytest

from semprior.data.images import IntensityRange, decode
from semprior.data.layout import check_dataset, find_layout, intensity_range, read_scenes
from semprior.errors import UserError
from tests.conftest import tiny_picture, write_picture


def cut(root, name, by):
    path = root / name
    path.write_bytes(path.read_bytes()[:-by])


def edit(root, name, old, new):
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def paint(root, name, **changes):
    """Set pixels of an image, given as ``row_column=value`` with a leading underscore."""
    picture = cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED)
    for place, value in changes.items():
        row, column = map(int, place[1:].split("_"))
        picture[row, column] = value
    write_picture(root / name, picture)


def resize(root, name):
    write_picture(root / name, cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED)[:-1])


FAULTS = {
    "no images": (lambda r: (r / "images").rename(r / "pictures"), "images: no such folder"),
    "images is a file": (
        lambda r: ((r / "images").rename(r / "pictures"), (r / "images").write_text("")),
        "images: not a folder",
    ),
    "images is empty": (lambda r: [p.unlink() for p in (r / "images").iterdir()], "images: holds no PNG or BMP"),
    "no split files": (lambda r: [p.unlink() for p in (r / "mode").iterdir()], "mode: no split"),
    "no train split": (lambda r: (r / "mode/train.txt").unlink(), "no split 'train'"),
    "empty split": (lambda r: (r / "mode/train.txt").write_text("\n \n"), "mode/train.txt: empty split"),
    "two files of a split": (
        lambda r: ((r / "mode/train.txt").rename(r / "mode/train_a.txt"), (r / "mode/train_b.txt").write_text("x")),
        "train_a.txt, train_b.txt all list the split train",
    ),
    "two folders of splits": (lambda r: (r / "img_idx").mkdir(), "both mode/ and img_idx/"),
    "two folders of masks": (lambda r: (r / "masks").mkdir(), "both labels/ and masks/"),
    "two kinds of points": (
        lambda r: (r / "points.csv").write_text("name,x,y\n"),
        "both masks_centroid/ and points.csv",
    ),
    "name twice": (lambda r: edit(r, "mode/train.txt", "Tiny_3", "Tiny_1.png"), "line 4: Tiny_1 is already on line 2"),
    "overlap": (lambda r: edit(r, "mode/test.txt", "Tiny_9", "Tiny_4"), "mode/test.txt: Tiny_4 also in"),
    "overlap with val": (lambda r: edit(r, "mode/val.txt", "Tiny_7", "Tiny_4"), "mode/val.txt: Tiny_4 also in"),
    "split is no text": (
        lambda r: (r / "mode/train.txt").write_bytes(b"\xff\xfe\x00"),
        r"mode/train.txt:1: cannot be read as text",
    ),
    "no image": (lambda r: (r / "images/Tiny_2.png").unlink(), r"images: no image Tiny_2, which .*train.txt lists"),
    "two images": (lambda r: write_picture(r / "images/Tiny_2.bmp", np.zeros((4, 4))), "Tiny_2.png: Tiny_2.bmp has"),
    "cut image": (lambda r: cut(r, "images/Tiny_2.png", 40), "images/Tiny_2.png: truncated PNG"),
    "empty image": (lambda r: (r / "images/Tiny_2.png").write_bytes(b""), "images/Tiny_2.png: the file is empty"),
    "text as image": (lambda r: (r / "images/Tiny_2.png").write_text("GIF"), "images/Tiny_2.png: neither a PNG"),
    "mask size": (lambda r: resize(r, "labels/Tiny_2.png"), "labels/Tiny_2.png: the mask is 32x23, its image 32x24"),
    "mask values": (
        lambda r: paint(r, "labels/Tiny_2.png", _0_0=3),
        "labels/Tiny_2.png: not two-valued; it holds 3 values",
    ),
    "cut mask": (lambda r: cut(r, "labels/Tiny_2.png", 40), "labels/Tiny_2.png: truncated PNG"),
    "no points at all": (
        lambda r: [*(p.unlink() for p in (r / "masks_centroid").iterdir()), (r / "masks_centroid").rmdir()],
        "no points; give masks_centroid/ or points.csv",
    ),
    "no points of an image": (
        lambda r: (r / "masks_centroid/Tiny_2.png").unlink(),
        "masks_centroid: no points for the image Tiny_2",
    ),
    "points size": (lambda r: resize(r, "masks_centroid/Tiny_2.png"), "masks_centroid/Tiny_2.png: 32x23, but"),
    "points values": (
        lambda r: paint(r, "masks_centroid/Tiny_2.png", _0_0=3),
        "masks_centroid/Tiny_2.png: not two-valued",
    ),
    "point off target": (
        lambda r: paint(r, "masks_centroid/Tiny_2.png", _1_30=255),
        "masks_centroid/Tiny_2.png: the point x=30, y=1 of Tiny_2 is outside every target",
    ),
    "target without point": (
        lambda r: write_picture(r / "masks_centroid/Tiny_2.png", np.zeros((24, 32), np.uint8)),
        "masks_centroid/Tiny_2.png: Tiny_2 has targets in its mask and no point",
    ),
}

TABLE_FAULTS = {
    "header": (lambda r: edit(r, "points.csv", "name,x,y", "Tiny_1,7,6"), "line 1: the header must be name,x,y"),
    "empty": (lambda r: (r / "points.csv").write_text(""), "line 1: the header must be"),
    "unknown name": (lambda r: edit(r, "points.csv", "Tiny_1,", "Tony_1,"), "line 2: no image is named 'Tony_1'"),
    "no number": (lambda r: edit(r, "points.csv", "Tiny_1,7,", "Tiny_1,seven,"), "line 2: x=seven, y=6 are not whole"),
    "fraction": (lambda r: edit(r, "points.csv", "Tiny_1,7,", "Tiny_1,7.5,"), "line 2: x=7.5, y=6 are not whole"),
    "short row": (lambda r: edit(r, "points.csv", "Tiny_1,7,6", "Tiny_1,7"), "line 2: 2 values instead of 3"),
    "twice": (lambda r: edit(r, "points.csv", "Tiny_1,7,6", "Tiny_1,7,6\nTiny_1,7,6"), "line 3: the same point"),
    "beyond": (lambda r: edit(r, "points.csv", "Tiny_1,7,", "Tiny_1,32,"), "line 2: x=32, y=6 is outside .* 32x24"),
    "negative": (lambda r: edit(r, "points.csv", "Tiny_1,7,", "Tiny_1,-1,"), "line 2: x=-1, y=6 is outside the image"),
    "off target": (lambda r: edit(r, "points.csv", "Tiny_1,7,6", "Tiny_1,0,0"), "x=0, y=0 of Tiny_1 is outside every"),
    "no point": (lambda r: edit(r, "points.csv", "Tiny_1,7,6\n", ""), "points.csv: Tiny_1 has targets in its mask and"),
    "no text": (lambda r: (r / "points.csv").write_bytes(b"\xff\xfe\x00"), r"points.csv:1: cannot be read as text"),
}


def read_training(root):
    layout = find_layout(root)
    return read_scenes(layout, "train", intensity_range(layout), masks="optional")


def assert_found(root, expected):
    with pytest.raises(UserError, match=expected) as raised:
        read_training(root)
    faults = check_dataset(root)
    assert str(raised.value) in faults
    for fault in faults:
        assert "\n" not in fault
        assert fault.startswith(str(root))


@pytest.mark.parametrize(("spoil", "expected"), FAULTS.values(), ids=FAULTS)
def test_fault(tiny_dataset, spoil, expected):
    root = tiny_dataset()
    spoil(root)
    assert_found(root, expected)


@pytest.mark.parametrize(("spoil", "expected"), TABLE_FAULTS.values(), ids=TABLE_FAULTS)
def test_fault_of_a_table(tiny_dataset, spoil, expected):
    root = tiny_dataset(points="points.csv")
    spoil(root)
    assert_found(root, expected)


def test_missing_folder(tmp_path):
    assert check_dataset(tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'}: no such folder"]
    with pytest.raises(UserError, match="nowhere: no such folder"):
        find_layout(tmp_path / "nowhere")


def test_training_from_points_ignores_a_faulty_mask(tiny_dataset):
    root = tiny_dataset()
    resize(root, "labels/Tiny_1.png")
    cut(root, "labels/Tiny_2.png", 40)
    assert len(read_scenes(find_layout(root), "train", IntensityRange())) == 6


def test_the_check_lists_every_fault_of_every_split(tiny_dataset):
    root = tiny_dataset()
    cut(root, "images/Tiny_0.png", 20)
    resize(root, "labels/Tiny_1.png")
    paint(root, "labels/Tiny_7.png", _0_0=9)
    cut(root, "masks_centroid/Tiny_7.png", 9)
    (root / "images/Tiny_10.png").unlink()
    (root / "labels/Tiny_11.png").unlink()
    edit(root, "mode/test.txt", "Tiny_9", "Tiny_4")
    faults = check_dataset(root)
    assert len(faults) == 7
    named = ["test.txt: Tiny_4", "images/Tiny_0", "labels/Tiny_1", "labels/Tiny_7", "masks_centroid/Tiny_7"]
    for name, fault in zip([*named, "image Tiny_10", "image Tiny_11"], faults, strict=True):
        assert name in fault
    (root / "mode/val.txt").write_text("")
    assert any("val.txt: empty" in fault for fault in check_dataset(root))


def test_a_point_and_its_mask_may_both_be_wrong(tiny_dataset):
    root = tiny_dataset()
    paint(root, "masks_centroid/Tiny_4.png", _0_0=255, _0_9=255)
    assert len(check_dataset(root)) == 2


@pytest.mark.parametrize("points", ["masks_centroid", "points.csv"])
def test_an_image_without_targets_has_no_fault(tiny_dataset, points):
    assert read_training(tiny_dataset(points=points))[0].points.shape == (0, 2)


def test_a_missing_split_lists_the_others(tiny_dataset):
    root = tiny_dataset((("test", 4),))
    assert len(read_scenes(find_layout(root), "test", IntensityRange(), masks="required")) == 4
    with pytest.raises(UserError, match="no split 'train'; there is test"):
        read_training(root)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
def test_a_file_cut_anywhere_is_found(tmp_path, capfd, suffix, dtype, colour):
    if suffix == ".bmp" and dtype == np.uint16:
        return  # there is no such file
    picture = np.random.default_rng(0).integers(0, 200, (5, 7, 3) if colour else (5, 7)).astype(dtype)
    path = tmp_path / f"a{suffix}"
    write_picture(path, picture)
    assert decode(path).shape == (5, 7)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        faults = []
        assert decode(path, faults.append) is None
        assert len(faults) == 1
        assert faults[0].startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


def test_a_changed_byte_and_a_hollow_picture_are_found(tmp_path):
    path = tmp_path / "a.png"
    write_picture(path, tiny_picture(1)[0])
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"a\.png: "):
            decode(path)

    def part(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    packed = zlib.compress(bytes(25 * 24))
    header = content[:33]
    for body in (packed[:-6], packed[:8], b"", b"rubbish"):
        path.write_bytes(header + part(b"IDAT", body) + part(b"IEND", b""))
        with pytest.raises(UserError, match="do not decompress"):
            decode(path)
