"""Joined data sets keep splits, groups and boxes, and name the subset of each image."""

import shutil

import pytest

from semprior.cli.app import main
from semprior.data.image_tables import read_subsets
from semprior.data.images import IntensityRange
from semprior.data.layout import check_dataset, find_layout, read_scenes
from tests.conftest import tiny_picture


def join(*arguments):
    return main(["data", "join", *map(str, arguments)])


def renamed(root, first):
    """The data set with another beginning of all names."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if path.suffix in (".txt", ".csv"):
            path.write_text(path.read_text().replace("Tiny_", first))
        else:
            path.rename(path.with_name(path.name.replace("Tiny_", first)))
    return root


@pytest.fixture
def two(tiny_dataset, tmp_path):
    """One data set with boxes and a group, and one without points."""
    one = tiny_dataset(points="points.csv", root=tmp_path / "one")
    lines = ["name,x,y,left,top,right,bottom", *(one / "points.csv").read_text().splitlines()[1:]]
    lines = [f"{line},0,0,31,9" if ",6" in line[-2:] else f"{line},,,," if i else line for i, line in enumerate(lines)]
    (one / "points.csv").write_text("\n".join(lines))
    (one / "groups.csv").write_text("name,group\nTiny_1,a\nTiny_2,a\n")
    other = tiny_dataset((("train", 4), ("test", 2)), points="", masks="masks", root=tmp_path / "other")
    return one, other


def test_what_a_source_lacks_is_said(two, tiny_dataset, tmp_path, capsys):
    one, _ = two
    (one / "subset.csv").write_text("name,subset\n" + "".join(f"Tiny_{i},{'ab'[i % 2]}\n" for i in range(12)))
    other = renamed(tiny_dataset(None, count=6, masks="", root=tmp_path / "bare"), "Big_")
    assert join(tmp_path / "joined", f"one={one}", f"other={other}") == 0
    said = capsys.readouterr().out
    assert "one: its own subsets a, b become one" in said
    assert "other: 4 train, 1 val, 1 test (split by seed); 6 points" in said
    assert "other: without a mask, which evaluation needs: 6 images" in said
    assert "one: without a mask" not in said


def test_a_place_in_a_source_is_refused(two, capsys):
    one, other = two
    assert join(other / "joined", f"one={one}", f"other={other}") == 2
    assert "where nothing is changed; choose another place" in capsys.readouterr().err


def test_splits_are_kept_and_subsets_named(two, tmp_path, capsys):
    one, other = two
    joined = tmp_path / "joined"
    assert join(joined, f"one={one}", f"other={renamed(other, 'Big_')}") == 0
    assert "6 points made from the centroids of its masks" in capsys.readouterr().out
    assert check_dataset(joined) == []
    found, first, second = (find_layout(root) for root in (joined, one, other))
    assert found.splits == {split: first.splits[split] + second.splits[split] for split in ("train", "val", "test")}
    assert read_subsets(joined) == {
        name: "one" if name.startswith("Tiny") else "other" for names in found.splits.values() for name in names
    }
    assert found.groups == {"Tiny_1": "one/a", "Tiny_2": "one/a"}
    before = read_scenes(first, "train", IntensityRange())
    after = read_scenes(found, "train", IntensityRange(), masks="optional")
    for old, new in zip(before, after, strict=False):
        assert old.name == new.name and old.points.tolist() == new.points.tolist()
        assert (None if old.boxes is None else old.boxes.tolist()) == (
            None if new.boxes is None else new.boxes.tolist()
        )
    assert any(scene.boxes is not None for scene in after)
    for scene in after[6:]:
        assert len(scene.points) == len(tiny_picture(int(scene.name[4:]))[2])


def test_equal_names_need_a_prefix(two, tmp_path, capsys):
    one, other = two
    assert join(tmp_path / "joined", f"one={one}", f"other={other}") == 2
    assert "Tiny_0.png: one has an image Tiny_0, too; --prefix tells them apart" in capsys.readouterr().err
    assert not (tmp_path / "joined").exists()
    assert join(tmp_path / "joined", f"one={one}", f"other={other}", "--prefix") == 0
    assert {"one_Tiny_0", "other_Tiny_0"} <= set(find_layout(tmp_path / "joined").images)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("one={one}",), "name at least two data sets"),
        (("one={one}", "two"), "write NAME=SOURCE"),
        (("one={one}", "one={other}"), "two data sets have the same name"),
        (("one={one}", "a/b={other}"), "has letters, digits, dots"),
        (("one={one}", "two={one}/nowhere"), "nowhere: no such folder"),
        (("one={one}", "deep={deep}"), "deep and one: their images differ in depth, [8, 16] bit"),
    ],
)
def test_what_cannot_be_joined(two, tiny_dataset, tmp_path, capsys, arguments, expected):
    deep = tiny_dataset(bits=16, root=tmp_path / "deep")
    places = [argument.format(one=two[0], other=two[1], deep=deep) for argument in arguments]
    assert join(tmp_path / "joined", *places) == 2
    said = capsys.readouterr()
    assert expected in said.err and len(said.err.splitlines()) == 1
    assert not (tmp_path / "joined").exists()


def test_a_damaged_image_is_found(two, tmp_path, capsys):
    one, other = two
    shutil.copy(one / "points.csv", other / "images/Tiny_5.png")
    assert join(tmp_path / "joined", f"one={one}", f"other={other}", "--prefix") == 2
    assert "images/Tiny_5.png: neither a PNG" in capsys.readouterr().err
