"""Data sets as people hold them become ours; what cannot be meant is one line and exit code 2."""

import csv
import json
import re
import shutil
import unicodedata

import cv2
import numpy as np
import pytest

from semprior.cli.app import main
from semprior.data.images import IntensityRange
from semprior.data.layout import check_dataset, find_layout, intensity_range, read_scenes
from tests.conftest import tiny_picture, write_picture

NAMES = [f"Tiny_{index}" for index in range(6)]  # image i has i % 3 targets of 3x3 pixels
SHAPE = (24, 32)


@pytest.fixture
def source(tmp_path):
    """A function that writes six images, and masks, into a new folder."""

    def write(images="images", masks="", ending="", names=NAMES, suffix=".png"):
        root = tmp_path / "source"
        for index, name in enumerate(names):
            image, mask, _ = tiny_picture(index)
            write_picture(root / images / f"{name}{suffix}", image)
            if masks:
                write_picture(root / masks / f"{name}{ending}.png", mask.astype(np.uint8) * 255)
        return root

    return write


@pytest.fixture
def convert(tmp_path, capsys):
    """A function that imports a folder and returns the scenes by name and what was said."""

    def run(root, *options):
        folder = tmp_path / "ours"
        assert main(["data", "import", str(root), str(folder), *options]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        layout = find_layout(folder)
        pointed = (folder / "points.csv").exists()
        scenes = {
            scene.name: scene
            for split in layout.splits
            for scene in read_scenes(
                layout, split, intensity_range(layout), masks="optional" if pointed else "required"
            )
        }
        return scenes, said

    return run


@pytest.fixture
def refuse(tmp_path, capsys):
    """A function that imports a folder in vain and returns the one line that says why."""

    def run(root, *options):
        assert main(["data", "import", str(root), str(tmp_path / "ours"), *options]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        assert not (tmp_path / "ours").exists()
        return line

    return run


def boxes(index):
    """Boxes (left, top, right, bottom) of an image's targets, the last column and row exclusive."""
    return [(column - 1, row - 1, column + 2, row + 2) for row, column in tiny_picture(index)[2].tolist()]


def assert_points(scenes, names=NAMES, within=0):
    assert sorted(scenes) == sorted(names)
    for index, name in enumerate(names):
        image, _, points = tiny_picture(index)
        np.testing.assert_array_equal(scenes[name].image, image)
        assert scenes[name].points.shape == points.shape
        assert np.abs(scenes[name].points - points).max(initial=0) <= within


def assert_boxes(scenes):
    assert_points(scenes, within=1)
    for index, name in enumerate(NAMES):
        expected = [[top, left, bottom, right] for left, top, right, bottom in boxes(index)]
        found = scenes[name].boxes
        assert (found is None) == (not expected)
        assert found is None or found.tolist() == expected


def voc(root, first=1, folder="Annotations"):
    for index, name in enumerate(NAMES):
        things = "".join(
            f"<object><name>ship</name><bndbox><xmin>{left + first}</xmin><ymin>{top + first}</ymin>"
            f"<xmax>{right + first - 1}</xmax><ymax>{bottom + first - 1}</ymax></bndbox></object>"
            for left, top, right, bottom in boxes(index)
        )
        put(root / folder / f"{name}.xml", f"<annotation><filename>x.jpg</filename>{things}</annotation>")


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def coco(root, name="annotations.json"):
    images = [{"id": index, "file_name": f"images/{name}.png"} for index, name in enumerate(NAMES)]
    marks = [
        {"id": 1, "image_id": index, "category_id": 1, "bbox": [left, top, right - left, bottom - top]}
        for index in range(len(NAMES))
        for left, top, right, bottom in boxes(index)
    ]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "ship"}]}
    put(root / name, json.dumps(content))


def yolo(root):
    for index, name in enumerate(NAMES):
        lines = [
            f"0 {(left + right) / 2 / SHAPE[1]} {(top + bottom) / 2 / SHAPE[0]} "
            f"{(right - left) / SHAPE[1]} {(bottom - top) / SHAPE[0]}"
            for left, top, right, bottom in boxes(index)
        ]
        put(root / f"labels/{name}.txt", "\n".join(lines))
    put(root / "classes.txt", "ship\n")


def labelme(root):
    for index, name in enumerate(NAMES):
        shapes = [
            {"label": "ship", "shape_type": "rectangle", "points": [[left, top], [right, bottom]]}
            for left, top, right, bottom in boxes(index)
        ]
        put(root / f"images/{name}.json", json.dumps({"shapes": shapes, "imagePath": f"{name}.png"}))


def cvat(root):
    images = "".join(
        f'<image name="{name}.png">'
        + "".join(
            f'<box label="ship" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
            for left, top, right, bottom in boxes(index)
        )
        + "</image>"
        for index, name in enumerate(NAMES)
    )
    put(root / "annotations.xml", f"<annotations>{images}</annotations>")


def datumaro(root):
    items = [
        {
            "id": name,
            "annotations": [
                {"type": "bbox", "label_id": 0, "bbox": [left, top, right - left, bottom - top]}
                for left, top, right, bottom in boxes(index)
            ],
        }
        for index, name in enumerate(NAMES)
    ]
    put(root / "default.json", json.dumps({"items": items, "categories": {}}))


def table(header, row, points=False):
    def write(root):
        lines = [header]
        for index, name in enumerate(NAMES):
            if points:
                lines += [row.format(name=name, x=x, y=y) for y, x in tiny_picture(index)[2].tolist()]
            else:
                lines += [
                    row.format(name=name, l=x, t=y, r=r - 1, b=b - 1, w=r - x, h=b - y) for x, y, r, b in boxes(index)
                ]
        put(root / "targets.csv", "\n".join(lines))

    return write


BOXES = {
    "voc": voc,
    "voc counted from 0": None,
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "cvat": cvat,
    "datumaro": datumaro,
    "csv of corners": table("filename,class,type,xmin,ymin,xmax,ymax", "{name}.jpg,ship,3,{l},{t},{r},{b}"),
    "csv of sizes": table("Image Name;Left;Top;Width;Height", "{name};{l};{t};{w};{h}"),
}


@pytest.mark.parametrize("form", BOXES)
def test_boxes_become_points_and_are_kept(source, convert, form):
    root = source()
    if BOXES[form] is None:
        voc(root, first=0)
        edge = root / "Annotations/Tiny_0.xml"  # a box at the border tells that boxes are counted from 0
        put(edge, edge.read_text().replace("</annotation>", thing(0, 0, 2, 2) + "</annotation>"))
    else:
        BOXES[form](root)
    scenes, said = convert(root)
    assert "points of boxes: " in said
    if BOXES[form] is None:
        assert scenes.pop("Tiny_0").boxes.tolist() == [[0, 0, 3, 3]]
        assert scenes["Tiny_2"].boxes.tolist() == [[t, left, b, r] for left, t, r, b in boxes(2)]
        return
    assert_boxes(scenes)


def cvat_turned(root):
    """Masks, and boxes of one column and nine rows that are turned into nine columns and one row."""
    cvat(root)
    text = (root / "annotations.xml").read_text()
    for index in range(len(NAMES)):
        for left, top, right, bottom in boxes(index):
            box = f'<box label="ship" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>'
            assert box in text
            mask = (
                f'<mask label="ship" rle="9" left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"/>'
            )
            x, y = (left + right) / 2, (top + bottom) / 2
            turned = (
                f'<box label="ship" xtl="{x - 0.5}" ytl="{y - 4.5}" xbr="{x + 0.5}" ybr="{y + 4.5}" rotation="90.0"/>'
            )
            text = text.replace(box, mask if index % 3 == 2 else turned)
    (root / "annotations.xml").write_text(text)


def test_masks_and_turned_boxes_of_cvat(source, convert):
    root = source()
    cvat_turned(root)
    scenes, _ = convert(root)
    assert_points(scenes, within=1)
    assert scenes["Tiny_2"].boxes.tolist() == [[t, left, b, r] for left, t, r, b in boxes(2)]
    ((row, column),) = scenes["Tiny_1"].points.tolist()
    assert scenes["Tiny_1"].boxes.tolist() == [[row, column - 4, row + 1, column + 5]]


def test_several_points_of_a_labelme_shape(source, convert):
    root = source()
    for index, name in enumerate(NAMES):
        points = [[x + 0.5, y + 0.5] for y, x in tiny_picture(index)[2].tolist()]
        shapes = [{"label": "ship", "shape_type": "points", "points": points}] if points else []
        put(root / f"images/{name}.json", json.dumps({"shapes": shapes, "imageWidth": None, "imageHeight": None}))
    scenes, _ = convert(root)
    assert_points(scenes)


def parted_table(root, column=False):
    rows = {n: [f"{n},{x},{y}" for y, x in tiny_picture(i)[2].tolist()] or [f"{n},,"] for i, n in enumerate(NAMES)}
    if column:
        lines = [f"{row},{split_of(name).title()}" for name, own in rows.items() for row in own]
        put(root / "targets.csv", "\n".join(["name,x,y,Set", *lines]))
        return
    for split in ("train", "valid", "test"):
        lines = [row for name, own in rows.items() for row in own if split_of(name) == split]
        put(root / f"{split}.csv", "\n".join(["name,x,y", *lines]))


def split_of(name):
    return {"4": "valid", "5": "test"}.get(name[-1], "train")


def parted_coco(root):
    coco(root)
    whole = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").unlink()
    for split in ("train", "valid", "test"):
        images = [image for image in whole["images"] if split_of(image["file_name"][:-4]) == split]
        ids = {image["id"] for image in images}
        marks = [mark for mark in whole["annotations"] if mark["image_id"] in ids]
        put(root / f"instances_{split}2017.json", json.dumps({"images": images, "annotations": marks}))


def parted_cvat(root):
    cvat(root)
    text = (root / "annotations.xml").read_text()
    for name in NAMES:
        text = text.replace(f'name="{name}.png"', f'name="{name}.png" subset="{split_of(name)}"')
    (root / "annotations.xml").write_text(text)


PARTED = {
    "COCO files": parted_coco,
    "subsets of CVAT": parted_cvat,
    "tables": parted_table,
    "a column of a table": lambda r: parted_table(r, column=True),
}


@pytest.mark.parametrize("form", PARTED)
def test_annotations_tell_splits(source, convert, tmp_path, form):
    root = source()
    PARTED[form](root)
    scenes, said = convert(root)
    assert_points(scenes, within=1)
    assert "splits by the annotation files: 4 train, 1 val, 1 test" in said
    assert find_layout(tmp_path / "ours").splits["test"] == ("Tiny_5",)


def test_a_subset_of_all_images_is_no_split(source, convert):
    root = source()
    cvat(root)
    rewrite(root, "annotations.xml", "<image ", '<image subset="Train" ')
    _, said = convert(root)
    assert "no lists of splits" in said


def test_annotations_of_images_of_the_same_name_lie_beside_them(convert, tmp_path):
    root = tmp_path / "source"
    for index, split in ((1, "train"), (4, "valid"), (2, "test")):
        write_picture(root / split / "1.png", tiny_picture(index)[0])
        images = [{"id": 0, "file_name": "1.png"}]
        marks = [{"image_id": 0, "bbox": [x, y, r - x, b - y]} for x, y, r, b in boxes(index)]
        put(root / split / "_annotations.coco.json", json.dumps({"images": images, "annotations": marks}))
    scenes, _ = convert(root)
    for index, name in ((1, "train_1"), (4, "val_1"), (2, "test_1")):
        assert len(scenes[name].points) == len(boxes(index))


def thing(left, top, right, bottom):
    corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object><name>ship</name><bndbox>{corners}</bndbox></object>"


POINTS = {
    "csv": table("name,x,y", "{name}.png,{x},{y}", points=True),
    "csv of rows": table("Image\tRow\tCol", "{name}\t{y}\t{x}.0", points=True),
    "csv of paths": table("image_path|target_x|Pos Y", "C:\\data\\{name}.png|{x}|{y}", points=True),
    "csv of centres": table("file_name, x_center , y_center", "a/b/{name}.tif,{x},{y}", points=True),
}


@pytest.mark.parametrize("form", POINTS)
def test_tables_of_points(source, convert, form):
    root = source()
    POINTS[form](root)
    scenes, said = convert(root)
    assert_points(scenes)
    assert "columns are read as" in said


def test_a_table_with_another_suffix_and_one_beside_it(source, convert):
    root = source()
    POINTS["csv"](root)
    shutil.copy(root / "targets.csv", root / "copy.txt")
    put(root / "labels.xlsx", "PK")
    scenes, said = convert(root)
    assert_points(scenes)
    assert "6 points left out, on the same pixel as another" in said
    assert "not read: labels.xlsx" in said


@pytest.mark.parametrize("folder", ["masks_centroid", "Centroid", "masks_coarse", "Point_label"])
@pytest.mark.parametrize("order", ["x y", "row column"])
def test_text_files_of_points_in_both_orders(source, convert, folder, order):
    root = source(masks="BinaryMask")
    for index, name in enumerate(NAMES):
        rows = tiny_picture(index)[2].tolist()
        lines = [f"{x} {y}" if order == "x y" else f"{y} {x}" for y, x in rows]
        put(root / folder / f"{name}.txt", "\r\n".join(lines))
    scenes, said = convert(root)
    assert_points(scenes)
    assert f"points are read as {order}: 6 of 6 lie on targets of the masks" in said


def test_of_centroids_and_coarse_points_the_centroids_are_read(source, convert):
    root = source()
    for index, name in enumerate(NAMES):
        rows = tiny_picture(index)[2].tolist()
        put(root / "Centroid" / f"{name}.txt", "\n".join(f"{x} {y}" for y, x in rows))
        put(root / "masks_coarse" / f"{name}.txt", "\n".join(f"{x + 1} {y + 1}" for y, x in rows))
    scenes, said = convert(root)
    assert_points(scenes)
    assert "points of the folder centroid are read, those of maskscoarse are not" in said


def test_without_masks_the_border_or_the_image_tells_the_order(source, convert):
    root = source()
    for index, name in enumerate(NAMES):
        lines = [f"{row} {column}" for row, column in tiny_picture(index)[2].tolist()]
        put(root / "Centroid" / f"{name}.txt", "\n".join(lines))
    scenes, said = convert(root)
    assert_points(scenes)
    assert "points are read as row column: " in said and "there are no masks to check it against" in said


def test_dots_become_points(source, convert):
    root = source()
    for index, name in enumerate(NAMES):
        write_picture(root / "Centroid" / f"{name}.png", tiny_picture(index)[1].astype(np.uint8) * 255)
    scenes, said = convert(root)
    assert_points(scenes)
    assert "6 dots of several pixels became points at their centres" in said


@pytest.mark.parametrize(
    ("images", "masks", "ending", "lists"),
    [
        ("images", "masks", "", "img_idx/{}_NUDT-SIRST.txt"),
        ("images", "masks", "_pixels0", "idx_427/{}.txt"),
        ("IRSTD1k_Img", "IRSTD1k_Label", "", "{}.txt"),
        ("mixed", "annotations/masks", "_pixels0", "splits/{}_full.txt"),
        ("PNGImages", "BinaryMask", "", "50_50/{}.txt"),
        ("SIRST/Images", "SIRST/labels", "_mask", "SIRST/ImageSets/Main/{}.txt"),
    ],
)
def test_published_layouts(source, convert, tmp_path, images, masks, ending, lists):
    root = source(images, masks, ending)
    first = "trainval" if "full" in lists or "427" in lists else "train"
    put(root / lists.format(first), "\ufeff" + "".join(f"{name}.png  \r\n" for name in NAMES[:4]))
    put(root / lists.format("test"), "Tiny_4\nimages/Tiny_5.png\n")
    scenes, said = convert(root)
    assert "4 train, 2 test" in said and "`semprior data points" in said
    splits = find_layout(tmp_path / "ours").splits
    assert set(splits["test"]) == {"Tiny_4", "Tiny_5"} and set(splits["train"] + splits["val"]) == set(NAMES[:4])
    for index, name in enumerate(NAMES):
        np.testing.assert_array_equal(scenes[name].mask, tiny_picture(index)[1])


def test_folders_of_splits_and_of_sequences(source, convert, tmp_path):
    root = source("train/images", names=["0001", "0002", "0003"])
    for index, place in enumerate(("valid/images/0009.png", "test/images/0010.png")):
        write_picture(root / place, tiny_picture(index)[0])
    put(root / "train/labels/0002.txt", "0 0.5 0.5 0.2 0.2")
    _, said = convert(root)
    assert "splits by the names of folders: 3 train, 1 val, 1 test" in said
    assert "without an annotation, counted as without targets: 4 images, such as" in said


@pytest.mark.parametrize(
    "images", ["Train_Set/images", "images/train2017", "train_images", "images_train", "img/Training", "TrainImages"]
)
def test_names_of_folders_that_mean_splits(tmp_path, convert, images):
    root = tmp_path / "source"
    for index in range(6):  # two images have the same name
        image, mask, _ = tiny_picture(index)
        place = images if index < 4 else images.replace("Train", "Test").replace("train", "test")
        write_picture(root / place / f"{index % 4}.png", image)
        place = re.sub("images|img", "masks", place).replace("Images", "Masks")
        write_picture(root / place / f"{index % 4}_mask.png", mask.astype(np.uint8) * 255)
    scenes, said = convert(root)
    assert "splits by the names of folders: 4 train, 2 test" in said
    for index, name in enumerate(["train_0", "train_1", "2", "3", "test_0", "test_1"]):
        np.testing.assert_array_equal(scenes[name].mask, tiny_picture(index)[1])


def test_what_is_in_no_split_is_said(source, convert):
    root = source(masks="masks")
    put(root / "train.txt", "\n".join(NAMES[:3]))
    put(root / "test.txt", NAMES[4])
    assert "in no split: 2 images, such as Tiny_3" in convert(root)[1]


def test_frames_of_a_sequence_stay_together(source, convert, tmp_path):
    root = source("images/a", masks="masks/a", names=["1", "2", "3"])
    for index in range(6):
        image, mask, _ = tiny_picture(index)
        write_picture(root / f"images/{'bc'[index % 2]}/{index // 2 + 1}.png", image)
        write_picture(root / f"masks/{'bc'[index % 2]}/{index // 2 + 1}.png", mask.astype(np.uint8) * 255)
    scenes, said = convert(root)
    assert "3 groups of 9 images, which stay together" in said and "names are not unique" in said
    assert sorted(scenes) == sorted(f"{sequence}_{frame}" for sequence in "abc" for frame in "123")
    layout = find_layout(tmp_path / "ours")
    assert all(len({name[0] for name in names}) == 1 for names in layout.splits.values())
    np.testing.assert_array_equal(scenes["b_2"].mask, tiny_picture(2)[1])


def test_annotations_of_frames_go_to_their_sequences(source, convert):
    root = source("images/a", names=["1", "2"])
    write_picture(root / "images/d/1.png", tiny_picture(0)[0])
    for index in range(2):
        write_picture(root / f"images/b/{index + 1}.png", tiny_picture(index + 1)[0])
    for sequence, frame, index in (("a", 2, 1), ("b", 1, 1), ("b", 2, 2)):
        shapes = [{"shape_type": "point", "points": [[x + 0.5, y + 0.5]]} for y, x in tiny_picture(index)[2].tolist()]
        put(root / f"json/{sequence}/{frame}.json", json.dumps({"shapes": shapes}))
    put(root / "json/c/1.json", json.dumps({"shapes": [{"shape_type": "point", "points": [[1, 1]]}]}))
    scenes, said = convert(root)
    assert "not used, for no image: 1 annotation, such as 1.json" in said
    assert "a_1" in said.split("counted as without targets: 2 images, such as ")[1]
    assert [len(scenes[name].points) for name in ("a_1", "a_2", "b_1", "b_2")] == [0, 1, 1, 2]
    assert scenes["b_2"].points.tolist() == tiny_picture(2)[2].tolist()


def test_masks_in_one_folder_of_images_in_several(source, convert):
    root = source("images/night", masks="masks", names=NAMES[:3])
    for index, name in enumerate(NAMES[3:], 3):
        image, mask, _ = tiny_picture(index)
        write_picture(root / f"images/day/{name}.png", image)
        write_picture(root / f"masks/{name}.png", mask.astype(np.uint8) * 255)
    put(root / "mode/train.txt", "\n".join(f"images/night/{name}.png" for name in NAMES[:3]))
    put(root / "mode/test.txt", "\n".join(f"day/{name}" for name in NAMES[3:]))
    scenes, said = convert(root)
    assert "2 groups of 6 images, which stay together" in said
    for index, name in enumerate(NAMES):
        np.testing.assert_array_equal(scenes[name].mask, tiny_picture(index)[1])


def test_two_groups_are_imported_and_what_they_lack_is_said(source, tmp_path, capsys):
    root = source("images/a")
    write_picture(root / "images/b/1.png", tiny_picture(0)[0])
    assert main(["data", "import", str(root), str(tmp_path / "ours")]) == 0
    assert f"before you train: {tmp_path / 'ours'}: 2 groups of images are too few to split" in capsys.readouterr().out


def test_a_pattern_finds_groups(source, convert, refuse, tmp_path):
    names = [f"seq{number // 2}_{number}" for number in range(6)]
    root = source(names=names, masks="masks")
    assert "not a regular expression" in refuse(root, "--groups", "(")
    assert "matches no name, such as seq0_0" in refuse(root, "--groups", "^clip")
    convert(root, "--groups", r"^(seq\d)_")
    assert find_layout(tmp_path / "ours").groups == {name: name[:4] for name in names}


@pytest.mark.parametrize("kind", ["tiff", "float", "16 bit", "jpeg", "rgba", "bmp"])
def test_kinds_of_images(source, convert, tmp_path, kind):
    suffix = {"tiff": ".tif", "float": ".tiff", "16 bit": ".TIF", "jpeg": ".jpg", "bmp": ".bmp"}.get(kind, ".png")
    root = source(suffix=suffix.lower(), masks="masks")
    for index, name in enumerate(NAMES):
        image = tiny_picture(index)[0]
        path = root / f"images/{name}{suffix.lower()}"
        if kind == "float":
            write_picture(path, image.astype(np.float32) / 100 + 273)
        elif kind == "16 bit":
            write_picture(path, image.astype(np.uint16) * 50 + 7000)
        elif kind == "rgba":
            write_picture(path, np.dstack([image, image, image, np.full_like(image, 255)]))
    scenes, _ = convert(root)
    intensity = intensity_range(find_layout(tmp_path / "ours"))
    assert intensity.bits == {"float": 32, "16 bit": 16}.get(kind, 8)
    assert IntensityRange.restored(intensity.stored()) == intensity
    for index, name in enumerate(NAMES):
        image = tiny_picture(index)[0].astype(float)
        found = scenes[name].image.astype(float)
        if intensity.bits == 8:
            assert np.abs(found - image).max() <= (60 if kind == "jpeg" else 0)
        else:
            assert np.corrcoef(found.ravel(), image.ravel())[0, 1] > 0.99
    main(["data", "points", str(tmp_path / "ours")])
    assert any(line.startswith("JPEG: 6 images; ") for line in find_layout(tmp_path / "ours").remarks()) == (
        kind == "jpeg"
    )


def test_names_that_are_not_ascii_and_of_a_mac(source, convert, tmp_path):
    names = ["été", "雪_1", "naïve b", "ö", "x", "y"]
    root = source(names=[unicodedata.normalize("NFD", name) for name in names], masks="masks")
    put(root / "mode/train.txt", "".join(f"{name}\n" for name in names[:4]))
    put(root / "mode/test.txt", "x\ny\n")
    scenes, _ = convert(root)
    assert sorted(scenes) == sorted(names)
    assert main(["data", "points", str(tmp_path / "ours")]) == 0
    assert check_dataset(tmp_path / "ours") == []


def test_masks_with_grey_pixels_are_read_and_counted(source, convert):
    root = source(masks="masks")
    mask = cv2.imread(str(root / "masks/Tiny_1.png"), cv2.IMREAD_UNCHANGED)
    mask[0, 0], mask[6, 7] = 127, 128
    write_picture(root / "masks/Tiny_1.png", mask)
    scenes, said = convert(root)
    np.testing.assert_array_equal(scenes["Tiny_1"].mask, tiny_picture(1)[1])
    assert "1 of 6 masks holds other values than two; 2 pixels decided by > half of the largest value" in said


def test_masks_beside_their_images(source, convert):
    root = source("data", masks="data", ending="_mask")
    scenes, said = convert(root)
    assert "masks beside their images, by their names: 6, such as Tiny_0_mask.png" in said
    assert sorted(scenes) == NAMES
    np.testing.assert_array_equal(scenes["Tiny_2"].mask, tiny_picture(2)[1])


def test_masks_of_jpeg_are_read(source, convert):
    root = source(masks="masks")
    for index, name in enumerate(NAMES):
        (root / f"masks/{name}.png").unlink()
        mask = cv2.dilate(tiny_picture(index)[1].astype(np.uint8) * 255, np.ones((3, 3)))
        write_picture(root / f"masks/{name}.jpg", mask)
    scenes, said = convert(root)
    assert "4 of 6 masks hold other values than two" in said
    assert all(scenes[name].mask[tiny_picture(i)[1]].all() for i, name in enumerate(NAMES))


def test_what_lies_beside_the_images_is_named(source, convert):
    root = source(masks="masks")
    (root / "masks/Tiny_4.png").rename(root / "masks/Tony.png")
    (root / "mode").mkdir()
    put(root / "mode/test.txt", "Tiny_1\n")
    put(root / "mode/train.txt", "Tiny_2\nTiny_3\n")
    write_picture(root / "figures/overview.png", tiny_picture(1)[0])
    put(root / "figures/overview.gif", "GIF89a")
    put(root / "meta.json", "{}")
    scenes, said = convert(root)
    assert sorted(scenes) == NAMES[1:4]
    assert "not read: 1 image in figures" in said
    assert "without a mask: 1 image, such as Tiny_4" in said
    assert "not read: 1 file (1 .gif), such as figures/overview.gif" in said
    assert "not read: meta.json" in said
    assert "not used, for no image: 1 mask, such as Tony.png" in said


def test_linking_copies_nothing(source, convert, tmp_path):
    root = source(masks="masks")
    convert(root, "--link")
    assert (tmp_path / "ours/images/Tiny_0.png").readlink() == root / "images/Tiny_0.png"
    assert (tmp_path / "ours/labels/Tiny_0.png").is_symlink()


def test_faulty_images_are_left_out_and_listed(source, convert, refuse, tmp_path):
    root = source(masks="masks")
    write_picture(root / "masks/Tiny_1.png", np.zeros((30, 40), np.uint8))
    put(root / "mode/train.txt", "\n".join(NAMES[:3]) + "\nTiny_99")
    put(root / "mode/test.txt", "\n".join(NAMES[3:]))
    line = refuse(root)
    assert "masks/Tiny_1.png: the mask is 40x30, its image 32x24" in line and "--skip-faulty leaves such" in line
    scenes, said = convert(root, "--skip-faulty")
    assert sorted(scenes) == sorted({*NAMES} - {"Tiny_1"})
    with (tmp_path / "ours/skipped.csv").open() as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["name", "Tiny_1", "Tiny_99"]
    assert "left out 2 images" in said


def rewrite(root, name, old, new):
    path = root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def numbers(index):
    """An image of points in which values number them."""
    found = np.zeros(SHAPE, np.uint8)
    for number, (row, column) in enumerate(tiny_picture(index)[2].tolist(), 1):
        found[row, column] = number
    return found


def folder(name, root, number):
    found = root / name / "ab"[number]
    found.mkdir(exist_ok=True)
    return found


def with_labels(spoil, make):
    def run(root):
        make(root)
        spoil(root)

    return run


VOC_SIZE = "<size><width>64</width><height>48</height><depth>1</depth></size>"

FAULTS = {
    "no folder": (lambda r: (r / "images").rename(r.parent / "away") and r.rmdir(), "source: no such folder"),
    "no image": (lambda r: [p.unlink() for p in (r / "images").iterdir()], "source: holds no PNG, BMP, TIFF or JPEG"),
    "pictures that are not read": (
        lambda r: (r / "images/Tiny_0.png").rename(r / "images/Tiny_0.gif"),
        r"1 file (1 .gif) cannot be read, such as images/Tiny_0.gif",
    ),
    "an image twice": (
        lambda r: write_picture(r / "images/Tiny_0.bmp", np.zeros((4, 4))),
        "would have the same name; keep one",
    ),
    "several data sets": (
        lambda r: [
            (write_picture(r / f"{n}/images/a.png", np.zeros((4, 4))), put(r / f"{n}/mode/train.txt", "a"))
            for n in "xy"
        ],
        "holds several data sets, x, y; import each, then `semprior data join` them",
    ),
    "entities": (
        lambda r: put(r / "a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>'),
        "a.xml: declares a document type or entities",
    ),
    "deep XML": (lambda r: put(r / "a.xml", "<annotation>" * 200), "a.xml: elements lie deeper than 100"),
    "broken XML": (lambda r: put(r / "a.xml", "<annotation>"), "a.xml: not XML"),
    "broken JSON": (lambda r: put(r / "a.json", "{"), "a.json: is damaged: not valid JSON ("),
    "deep JSON": (lambda r: put(r / "a.json", "[" * 100_000), "a.json: is nested too deeply"),
    "no number in JSON": (
        lambda r: put(r / "a.json", '{"shapes": NaN}'),
        "a.json: is damaged: not valid JSON (NaN is not a number)",
    ),
    "COCO without boxes": (
        with_labels(lambda r: rewrite(r, "annotations.json", '"bbox"', '"box"'), coco),
        "annotations.json: not as COCO writes it (KeyError: 'bbox')",
    ),
    "COCO of other images": (
        with_labels(lambda r: rewrite(r, "annotations.json", "Tiny", "Tony"), coco),
        "none of its coco annotations fits an image, such as images/Tony_0.png",
    ),
    "a word for a number": (
        with_labels(lambda r: rewrite(r, "Annotations/Tiny_1.xml", "<xmin>", "<xmin>a"), voc),
        "Tiny_1.xml: object 1: 'a7' is no number",
    ),
    "COCO of two images with one id": (
        with_labels(lambda r: rewrite(r, "annotations.json", '"id": 3,', '"id": 2,'), coco),
        "annotations.json: two images have the id 2; give each its own",
    ),
    "annotations of a larger COCO image": (
        with_labels(
            lambda r: rewrite(r, "annotations.json", '"file_name"', '"height": 24, "width": 64, "file_name"'), coco
        ),
        "images/Tiny_0.png: is 32x24, but was annotated as 64x24 (width x height); annotate it at its size",
    ),
    "annotations of a larger VOC image": (
        with_labels(lambda r: rewrite(r, "Annotations/Tiny_1.xml", "<object>", f"{VOC_SIZE}<object>"), voc),
        "images/Tiny_1.png: is 32x24, but was annotated as 64x48",
    ),
    "annotations of a larger LabelMe image": (
        with_labels(
            lambda r: rewrite(
                r, "images/Tiny_1.json", '"imagePath"', '"imageWidth": 64, "imageHeight": 48, "imagePath"'
            ),
            labelme,
        ),
        "images/Tiny_1.png: is 32x24, but was annotated as 64x48",
    ),
    "annotations of a larger CVAT image": (
        with_labels(lambda r: rewrite(r, "annotations.xml", "<image name", '<image width="64" height="48" name'), cvat),
        "images/Tiny_0.png: is 32x24, but was annotated as 64x48",
    ),
    "only types of annotations that are not read": (
        with_labels(lambda r: rewrite(r, "annotations.xml", "<box", "<cuboid"), cvat),
        "no image has a target; annotations of the type cuboid are not read: 6",
    ),
    "one YOLO file of another kind": (
        with_labels(lambda r: put(r / "labels/Tiny_1.txt", "\n0 0.2 0.3 0.1 0.1\n0 7 6 3 3\n"), yolo),
        "labels/Tiny_1.txt: line 3: '0 7 6 3 3' is no line of YOLO: a class, then shares of the image within 0..1",
    ),
    "points of three numbers": (
        lambda r: put(r / "Point_label/Tiny_1.txt", "7 6 255\n"),
        "Point_label/Tiny_1.txt: line 1: '7 6 255' is no line of two numbers",
    ),
    "a box outside": (
        with_labels(lambda r: rewrite(r, "annotations.json", '"bbox": [6', '"bbox": [60'), coco),
        "annotation 1: the box lies outside the image, 32x24, or is empty",
    ),
    "a point outside": (
        with_labels(lambda r: rewrite(r, "targets.csv", "7,6", "7,60"), POINTS["csv"]),
        "targets.csv: line 2: x=7, y=60 is outside the image",
    ),
    "points that touch": (
        with_labels(lambda r: put(r / "targets.csv", "name,x,y\nTiny_1,7,6\nTiny_1,8,7"), POINTS["csv"]),
        "Tiny_1.png: 2 of its 2 points touch",
    ),
    "a short row": (
        with_labels(lambda r: rewrite(r, "targets.csv", ",7,6", ",7"), POINTS["csv"]),
        "targets.csv: line 2: 2 values instead of 3",
    ),
    "columns that mean the same": (
        lambda r: put(r / "targets.csv", "name,image,x,y\n"),
        "line 1: 'name' and 'image' both seem to be the name; rename one",
    ),
    "an object without a box": (
        with_labels(lambda r: rewrite(r, "Annotations/Tiny_1.xml", "bndbox>", "polygon>"), voc),
        "Annotations/Tiny_1.xml: object 1: a number is missing",
    ),
    "a centre or a corner": (
        lambda r: put(r / "targets.csv", "name,x,y,w,h\nTiny_1,1,2,3,4"),
        "is x, y the centre or a corner of the box?",
    ),
    "frames of another sequence": (
        lambda r: put(r / "targets.csv", "name,x,y\na/Tiny_1.png,7,6\nb/Tiny_1.png,9,9"),
        "line 3: b/Tiny_1.png and a/Tiny_1.png both seem to be the image Tiny_1",
    ),
    "two files of an image": (
        with_labels(lambda r: put(r / "other/Tiny_1.xml", (r / "Annotations/Tiny_1.xml").read_text()), voc),
        "other/Tiny_1.xml and ",
    ),
    "two formats": (
        with_labels(coco, voc),
        "holds annotations in several formats, coco (annotations.json), voc (Annotations/Tiny_0.xml); choose with",
    ),
    "no target": (lambda r: put(r / "targets.csv", "name,x,y\nTiny_1,,"), "source: no image has a target"),
    "masks as points": (
        lambda r: [write_picture(r / f"Centroid/{n}.png", 255 * np.eye(24, 32, dtype=np.uint8)) for n in NAMES],
        "Tiny_0.png: holds regions, not points",
    ),
    "points with numbers": (
        lambda r: [write_picture(r / f"points/{n}.png", numbers(i)) for i, n in enumerate(NAMES)],
        "points/Tiny_2.png: 1 of its points lies below half of its largest value 2; if values number the points",
    ),
    "masks in a folder that is not known": (
        lambda r: [
            (r / "images").rename(r / "thermal"),
            *(write_picture(r / f"annotation/{n}.png", tiny_picture(i)[1] * np.uint8(1)) for i, n in enumerate(NAMES)),
            (r / "annotation/Tiny_0.png").unlink(),
            (r / "annotation/Tiny_3.png").unlink(),
        ],
        "annotation: every image in it holds two values only; if these are masks, name their folder masks/",
    ),
    "only pictures that are not read": (
        lambda r: [p.rename(p.with_suffix(".webp")) for p in (r / "images").iterdir()],
        "holds no PNG, BMP, TIFF or JPEG image; 6 files (6 .webp) cannot be read, such as images/Tiny_",
    ),
    "points that fit no mask": (
        lambda r: [
            (
                write_picture(r / f"masks/{n}.png", 255 * np.eye(24, 32, dtype=np.uint8)),
                put(r / f"points/{n}.txt", "3 9"),
            )
            for n in NAMES
        ],
        "fit its masks neither as x y (0 of 6) nor as row column (0)",
    ),
    "two lists that differ": (
        lambda r: [
            put(r / place, "\n".join(names))
            for place, names in (
                ("train.txt", NAMES[:3]),
                ("test.txt", NAMES[3:]),
                ("50_50/train.txt", NAMES[:4]),
                ("50_50/test.txt", NAMES[4:]),
            )
        ],
        "both the folder itself and 50_50/ list splits; keep one",
    ),
    "an unknown name": (
        lambda r: [put(r / "train.txt", "\n".join([*NAMES[:3], "Tony"])), put(r / "test.txt", "\n".join(NAMES[3:]))],
        "train.txt: lists Tony, but there is no such image; --skip-faulty leaves it out",
    ),
    "a test image that trains": (
        lambda r: [put(r / "train.txt", "\n".join(NAMES[:4])), put(r / "test.txt", "\n".join(NAMES[3:]))],
        "source/test.txt: Tiny_3 also in ",
    ),
    "sequences that lists part": (
        lambda r: [
            *((r / f"images/{n}.png").rename(folder("images", r, i % 2) / f"{n}.png") for i, n in enumerate(NAMES)),
            *(put(r / f"{s}.txt", "\n".join(n)) for s, n in (("train", NAMES[:3]), ("test", NAMES[3:]))),
        ],
        "in one split, or tell other groups with --groups",
    ),
    "a group of no image": (
        lambda r: put(r / "groups.csv", "name,group\nTiny_1,a\nTony,a\n"),
        "groups.csv: names Tony, but there is no such image; --skip-faulty leaves it out",
    ),
    "two groups of an image": (
        lambda r: put(r / "groups.csv", "name,group\nTiny_1.png,a\nimages/Tiny_1.png,b\n"),
        "groups.csv: the image Tiny_1 is named twice, for a and b",
    ),
    "mixed depths": (
        lambda r: write_picture(r / "images/Tiny_3.png", np.zeros((24, 32), np.uint16)),
        "images/Tiny_3.png: holds uint16, where most images hold uint8",
    ),
    "an image that is cut": (
        lambda r: (r / "images/Tiny_3.png").write_bytes((r / "images/Tiny_3.png").read_bytes()[:-20]),
        "images/Tiny_3.png: truncated PNG",
    ),
    "a link to nothing": (
        lambda r: ((r / "images/Tiny_3.png").unlink(), (r / "images/Tiny_3.png").symlink_to("nowhere")),
        "images/Tiny_3.png: cannot be read",
    ),
    "a name that ends with a blank": (
        lambda r: (r / "images/Tiny_3.png").rename(r / "images/Tiny_3 .png"),
        "its name 'Tiny_3 ' begins or ends with a blank, which lists do not tell; rename it",
    ),
    "a name with a line break": (
        lambda r: (r / "images/Tiny_3.png").rename(r / "images/Tiny\n3.png"),
        "its name holds control characters; rename it",
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_meant_is_one_line(source, refuse, spoil, expected):
    root = source()
    spoil(root)
    assert expected in refuse(root)


def test_a_place_in_the_source_is_refused(source, capsys):
    root = source(masks="masks")
    (root.parent / "nothing").symlink_to("nowhere")
    for place, fault in ((root / "ours", "where nothing is changed"), (root.parent / "nothing", "exists already")):
        assert main(["data", "import", str(root), str(place)]) == 2
        assert fault in capsys.readouterr().err
    assert sorted(path.name for path in root.iterdir()) == ["images", "masks"]


def test_groups_and_subsets_may_name_paths_and_skip_images(source, convert, tmp_path):
    root = source(masks="masks")
    write_picture(root / "images/a/extra.png", tiny_picture(1)[0])
    write_picture(root / "masks/a/extra.png", tiny_picture(1)[1].astype(np.uint8) * 255)
    convert(root)
    assert find_layout(tmp_path / "ours").groups == {"extra": "a"}
    shutil.rmtree(tmp_path / "ours")
    names = [*(f"images/{name}.png" for name in NAMES), "images\\a\\extra.png", "Tony"]
    put(root / "groups.csv", "name,group\n" + "".join(f"{name},{i // 3}\n" for i, name in enumerate(names)))
    put(root / "subset.csv", "name,subset\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(names)))
    convert(root, "--skip-faulty")
    layout = find_layout(tmp_path / "ours")
    assert layout.groups == {name: str(i // 3) for i, name in enumerate([*NAMES, "extra"])}
    assert layout.subsets == {name: str(i % 2) for i, name in enumerate([*NAMES, "extra"])}


def test_formats_can_be_chosen(source, convert, refuse):
    root = source(masks="masks")
    voc(root)
    coco(root)
    assert "unknown; there are auto, masks, voc" in refuse(root, "--format", "pascal")
    assert "holds no annotations of the format yolo; found: coco, voc" in refuse(root, "--format", "yolo")
    scenes, said = convert(root, "--format", "coco")
    assert_boxes(scenes)
    assert "6 targets (coco), 6 of them with a box" in said


def test_a_dark_target_a_double_and_a_box_over_the_border(source, convert, tmp_path):
    root = source(names=["a", "b", "c"])
    image = np.full(SHAPE, 120, np.uint8)
    image[10, 12], image[0, 31] = 20, 200
    write_picture(root / "images/a.png", image)
    rows = ["a,10,8,14,12", "a,10,8,14,12", "a,30,-2,40,2", "b,3,3,7,7", "c,20,12,21,13"]
    put(root / "boxes.csv", "\n".join(["name,x1,y1,x2,y2", *rows]))
    scenes, said = convert(root)
    assert scenes["a"].points.tolist() == [[0, 31], [10, 12]]
    assert scenes["a"].boxes.tolist() == [[0, 30, 3, 32], [8, 10, 13, 15]]
    assert "1 box cut at the border" in said and "1 box left out, which mark a target for the second time" in said
