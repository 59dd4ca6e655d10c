"""Every fault of a data set is one line that names the file: the check lists them all, a reader raises the first."""

import shutil
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

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


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def number_targets(root, name):
    """Write the number of each target in the place of 255."""
    _, labels = cv2.connectedComponents(read(root / name))
    write_picture(root / name, (labels + (labels > 1)).astype(np.uint8))


def in_alpha(picture):
    return np.dstack([np.zeros((*picture.shape, 3), np.uint8), picture])


def as_palette(path, background, target):
    indices = Image.fromarray((read(path) > 0).astype(np.uint8), "P")
    indices.putpalette([*background, *target])
    indices.save(path)


def animate(path):
    frame = Image.open(path)
    frame.save(path, save_all=True, append_images=[frame.transpose(Image.Transpose.ROTATE_180)])


def as_pages(path):
    page = Image.open(path)
    page.load()
    page.save(path, "TIFF", save_all=True, append_images=[page])


def as_tiff(path, picture=None, cut=0):
    picture = read(path) if picture is None else picture
    Image.fromarray(picture).save(path, "TIFF")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])


def rename_lists(folder, root):
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(root / f"all_{number}.txt")
    folder.rmdir()


SIGHTS = ("masks_centroid", "labels")

FAULTS = {
    "no images": (lambda r: (r / "images").rename(r / "pictures"), "images: no such folder"),
    "images is a file": (
        lambda r: ((r / "images").rename(r / "pictures"), (r / "images").write_text("")),
        "images: not a folder",
    ),
    "images is empty": (
        lambda r: [p.unlink() for p in (r / "images").iterdir()],
        "images: holds no PNG, BMP, TIFF or JPEG image",
    ),
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
        lambda r: (r / "mode/train.txt").write_bytes(b"\xff\x00"),
        r"mode/train.txt:1: cannot be read as text",
    ),
    "no image": (lambda r: (r / "images/Tiny_2.png").unlink(), r"images: no image Tiny_2, which .*train.txt lists"),
    "two images": (lambda r: write_picture(r / "images/Tiny_2.bmp", np.zeros((4, 4))), "Tiny_2.png: Tiny_2.bmp has"),
    "cut image": (lambda r: cut(r, "images/Tiny_2.png", 40), "images/Tiny_2.png: truncated PNG"),
    "empty image": (lambda r: (r / "images/Tiny_2.png").write_bytes(b""), "images/Tiny_2.png: the file is empty"),
    "text as image": (lambda r: (r / "images/Tiny_2.png").write_text("GIF"), "images/Tiny_2.png: neither a PNG"),
    "mask size": (lambda r: resize(r, "labels/Tiny_2.png"), "labels/Tiny_2.png: the mask is 32x23, its image 32x24"),
    "numbered mask": (
        lambda r: number_targets(r, "labels/Tiny_2.png"),
        "labels/Tiny_2.png: 1 of its regions lies wholly below half of its largest value 3; if values number",
    ),
    "inverted mask": (
        lambda r: write_picture(r / "labels/Tiny_2.png", 255 - read(r / "labels/Tiny_2.png")),
        "labels/Tiny_2.png: the mask covers 98% of the image; is it inverted",
    ),
    "mask in the alpha channel": (
        lambda r: write_picture(r / "labels/Tiny_2.png", in_alpha(read(r / "labels/Tiny_2.png"))),
        "labels/Tiny_2.png: the mask lies in the alpha channel; save it as grey",
    ),
    "image in the alpha channel": (
        lambda r: write_picture(r / "images/Tiny_2.png", in_alpha(read(r / "images/Tiny_2.png"))),
        "images/Tiny_2.png: the picture lies in the alpha channel; save it as grey",
    ),
    "palette of one colour": (
        lambda r: as_palette(r / "labels/Tiny_2.png", (9, 9, 9), (9, 9, 9)),
        "labels/Tiny_2.png: its palette shows every index in one colour",
    ),
    "image with a palette of one colour": (
        lambda r: (
            shutil.copy(r / "labels/Tiny_2.png", r / "images/Tiny_2.png"),
            as_palette(r / "images/Tiny_2.png", (9, 9, 9), (9, 9, 9)),
        ),
        "images/Tiny_2.png: its palette shows every index in one colour",
    ),
    "points with a palette of one colour": (
        lambda r: [
            shutil.rmtree(r / "labels"),
            *(as_palette(p, (0, 0, 0), (0, 0, 0)) for p in (r / "masks_centroid").iterdir()),
        ],
        "masks_centroid/Tiny_1.png: its palette shows every index in one colour",
    ),
    "points in the alpha channel": (
        lambda r: write_picture(r / "masks_centroid/Tiny_2.png", in_alpha(read(r / "masks_centroid/Tiny_2.png"))),
        "masks_centroid/Tiny_2.png: the points lie in the alpha channel",
    ),
    "a TIFF of doubles": (
        lambda r: (
            write_picture(r / "images/Tiny_2.tif", np.zeros((24, 32))),
            (r / "images/Tiny_2.tif").replace(r / "images/Tiny_2.png"),
        ),
        r"images/Tiny_2.png: .* TIFF \(its values may be of 64 bits; save it as 8 bit, 16 bit or 32-bit float\)",
    ),
    "masks as points": (
        lambda r: shutil.copy(r / "labels/Tiny_2.png", r / "masks_centroid/Tiny_2.png"),
        "masks_centroid/Tiny_2.png: 18 of 18 points touch; a point is one pixel",
    ),
    "no point anywhere": (
        lambda r: [write_picture(p, np.zeros((24, 32), np.uint8)) for f in SIGHTS for p in (r / f).iterdir()],
        "no training image has a target; is masks_centroid/ the right file",
    ),
    "images that are not read": (
        lambda r: [p.rename(p.with_suffix(".webp")) for p in sorted((r / "images").iterdir())[:7]],
        r"images: 7 files \(7 .webp\) cannot be read, such as Tiny_0.webp; save them as PNG",
    ),
    "masks that are not read": (
        lambda r: (r / "labels/Tiny_2.png").rename(r / "labels/Tiny_2.gif"),
        r"labels: 1 file \(1 .gif\) cannot be read",
    ),
    "images in folders below": (
        lambda r: write_picture(r / "images/more/Tiny_2.png", np.zeros((4, 4))),
        "images/more: images in folders below are not read; `semprior data import`",
    ),
    "masks of other names": (
        lambda r: [p.rename(p.with_stem(f"gt{p.stem}")) for p in (r / "labels").iterdir()],
        "labels: no mask is named like an image .* such as gtTiny_0.png",
    ),
    "an animation": (lambda r: animate(r / "images/Tiny_2.png"), "images/Tiny_2.png: an animated PNG"),
    "pages": (
        lambda r: as_pages(r / "images/Tiny_2.png"),
        "images/Tiny_2.png: a TIFF file of 2 pages; save each as an image",
    ),
    "GIF as image": (lambda r: (r / "images/Tiny_2.png").write_bytes(b"GIF89a"), "Tiny_2.png: a GIF or WebP image"),
    "cut TIFF": (lambda r: as_tiff(r / "images/Tiny_2.png", cut=100), "images/Tiny_2.png: .* TIFF"),
    "not a number in a TIFF": (
        lambda r: as_tiff(r / "images/Tiny_2.png", np.full((24, 32), np.nan, np.float32)),
        "images/Tiny_2.png: holds values that are not finite",
    ),
    "other lists beside mode": (
        lambda r: (r / "test.txt").write_text("Tiny_0\nTiny_1\n"),
        "both mode/ and the folder itself list splits; keep one",
    ),
    "a list that tells no split": (
        lambda r: ((r / "mode").rename(r / "lists"), rename_lists(r / "lists", r)),
        "all_0.txt: lists images, but its name tells no split; name it train.txt",
    ),
    "a list of other images": (
        lambda r: (shutil.rmtree(r / "mode"), (r / "test.txt").write_text("Tony_1\nTony_2\n")),
        "test.txt: names no images, such as 'Tony_1'; correct the names, or move it away",
    ),
    "a list that is no text": (
        lambda r: (shutil.rmtree(r / "mode"), (r / "test.txt").write_bytes(b"\xff\x00")),
        "test.txt:1: cannot be read as text",
    ),
    "a list of another suffix": (
        lambda r: (shutil.rmtree(r / "mode"), (r / "test.csv").write_text("name\nTiny_1.png\nTiny_2.png\n")),
        "test.csv: lists images, but lists are read from .txt files; save it as test.txt, one name a line",
    ),
    "lists behind a link to nothing": (
        lambda r: (shutil.rmtree(r / "mode"), (r / "mode").symlink_to("nowhere")),
        "mode: a link to nothing; mend it, or delete it",
    ),
    "groups behind a link to nothing": (
        lambda r: (r / "groups.csv").symlink_to("nowhere"),
        "groups.csv: a link to nothing; mend it, or delete it",
    ),
    "a parted group": (
        lambda r: (r / "groups.csv").write_text("name,group\nTiny_1,a\nTiny_2,a\nTiny_9,a\n"),
        "groups.csv: the group a is parted: .*train.txt and .*test.txt list",
    ),
    "a group of no image": (
        lambda r: (r / "groups.csv").write_text("name,group\nTony,a\n"),
        "groups.csv: line 2: no image is named 'Tony'",
    ),
    "a table of another kind": (
        lambda r: (r / "groups.csv").write_text("image;sequence\nTiny_1;a\n"),
        "groups.csv: line 1: the header must be name,group",
    ),
    "a subset is missing": (
        lambda r: (r / "subset.csv").write_text("name,subset\nTiny_1,a\n"),
        "subset.csv: no subset for the image Tiny_0 and 10 more",
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
    "touching": (
        lambda r: edit(r, "points.csv", "Tiny_1,7,6", "Tiny_1,7,6\nTiny_1,8,7"),
        "2 of the 2 points of Tiny_1",
    ),
    "outside the box": (
        lambda r: (r / "points.csv").write_text("name,x,y,left,top,right,bottom\nTiny_1,7,6,8,5,9,7\n"),
        "line 2: x=7, y=6 is outside its box",
    ),
    "half a box": (
        lambda r: (r / "points.csv").write_text("name,x,y,left,top,right,bottom\nTiny_1,7,6,8,5,,\n"),
        "line 2: the box 8, 5, ,  is not four whole numbers",
    ),
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


def test_points_in_a_dark_colour_count(tiny_dataset):
    root = tiny_dataset()
    for path in (root / "masks_centroid").iterdir():
        as_palette(path, (0, 0, 0), (0, 0, 1))  # OpenCV's grey value of this blue is 0
    assert [len(scene.points) for scene in read_training(root)] == [0, 1, 2, 0, 1, 2]


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
    cut(root, "labels/Tiny_7.png", 9)
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


@pytest.mark.parametrize("content", ["name;x;y\nTiny_1;7;6\n", "\u00e9"], ids=["separators", "encoding"])
def test_a_table_that_cannot_be_read_is_one_fault(tiny_dataset, content):
    root = tiny_dataset(points="points.csv")
    (root / "points.csv").write_text(content, encoding="latin-1")
    (fault,) = check_dataset(root)
    assert fault.startswith(f"{root / 'points.csv'}:")


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
