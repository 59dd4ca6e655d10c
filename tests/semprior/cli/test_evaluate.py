"""`semprior evaluate`: parts, files and faults of its arguments; the detector is one that is right on these images."""

import csv
import json
from pathlib import Path

import cv2
import pytest

from semprior.cli import evaluate as command
from semprior.cli.app import main
from tests.tiny import bright_student, write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set whose images come from two subsets."""
    root = write_dataset(tmp_path_factory.mktemp("evaluate") / "data")
    names = [path.stem for path in sorted((root / "images").iterdir())]
    lines = [f"{name},{'odd' if int(name[-2:]) % 2 else 'even'}" for name in names]
    (root / "subset.csv").write_text("\n".join(["name,subset", *lines]) + "\n")
    return root


@pytest.fixture
def output_of(data, capsys, monkeypatch):
    """A function that runs `semprior evaluate` on the data set and returns its output."""
    monkeypatch.setattr(command, "load_exported_or_trained", lambda *_: bright_student())

    def run(*arguments):
        assert main(["evaluate", "run", "--data", str(data), *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def fault_of(data, refused, monkeypatch):
    """A function that runs `semprior evaluate` on the data set, which must be refused, and returns the line."""
    monkeypatch.setattr(command, "load_exported_or_trained", lambda *_: bright_student())
    return lambda *arguments: refused("evaluate", "run", "--data", data, *arguments)


def test_tables_by_everything(output_of):
    out = output_of("--by", "all")
    for heading in ("by subset", "by size", "by contrast", "by kind"):
        assert heading in out
    assert "1.000±0.000" in out
    assert "4 images, 8 targets, split test, threshold 0.5, convention semprior" in out
    assert "0 predicted pixels belong to no target" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_threshold_that_the_run_chose_is_stated(output_of, monkeypatch):
    monkeypatch.setattr(command, "load_exported_or_trained", lambda *_: bright_student(threshold=0.35))
    assert "threshold 0.35, chosen on held-out images" in " ".join(output_of().split())
    assert "threshold 0.4, convention" in output_of("--threshold", 0.4)
    assert json.loads(output_of("--json"))["threshold"] == 0.35


def test_parts_in_json(output_of):
    found = json.loads(output_of("--by", "all", "--json"))["by"]
    assert list(found) == ["subset", "size", "contrast", "kind"]
    assert [(part["part"], part["images"], part["targets"]) for part in found["subset"]] == [
        ("even", 2, 4),
        ("odd", 2, 4),
    ]
    (size,) = found["size"]
    assert (size["part"], size["iou"], size["iou_se"], size["targets"]) == ("1-9", 1, 0, 8)
    assert list(json.loads(output_of("--by", "kind", "--json"))["by"]) == ["kind"]


def test_without_subsets_all_is_the_rest(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "load_exported_or_trained", lambda *_: bright_student())
    data = write_dataset(tmp_path / "data")
    assert main(["evaluate", "run", "--data", str(data), "--by", "all", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["by"]) == ["size", "contrast", "kind"]
    assert main(["evaluate", "run", "--data", str(data), "--by", "subset"]) == 2
    assert "has no subset.csv" in capsys.readouterr().err


def test_curve_and_rows_of_images(output_of, tmp_path):
    curve, images = tmp_path / "curve.csv", tmp_path / "images.csv"
    out = output_of("--curve", curve, "--per-image", images, "--threshold", 0.4)
    assert "threshold 0.4" in out
    assert "chosen on the test split flatters" in out
    rows = list(csv.DictReader(curve.open()))
    thresholds = [float(row["threshold"]) for row in rows]
    assert thresholds == sorted(thresholds)
    (half,) = (row for row in rows if row["threshold"] == "0.5")
    assert (half["pd"], half["pd_se"], half["fa"]) == ("1", "0", "0")
    assert cv2.imread(str(tmp_path / "curve.png")) is not None
    rows = list(csv.DictReader(images.open()))
    assert [row["name"] for row in rows] == ["test00", "test01", "test02", "test03"]
    assert rows[1]["subset"] == "odd"
    assert (rows[0]["width"], rows[0]["targets"], rows[0]["matched"], rows[0]["sizes"]) == ("80", "2", "2", "9 9")
    assert len(rows[0]["kinds"].split()) == 2
    assert "chosen on the test split" not in output_of("--curve", curve, "--split", "holdout")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--by", "colour"), "--by colour: must be subset, size, contrast, kind or all"),
        (("--threshold", "1.5"), "--threshold 1.5: must be at least 0 and less than 1"),
        (("--convention", "ours"), "--convention ours: must be semprior, paper or dnanet"),
        (("--curve", "curve.pdf"), "--curve curve.pdf: the name must end in .csv"),
        (("--per-image", "nowhere/images.csv"), "no folder nowhere"),
        (("--per-image", "one.csv", "--curve", "one.csv"), "both name one.csv"),
        (("--per-image", "one.csv", "--curve", "../{here}/one.csv"), "both name ../"),
    ],
)
def test_mistaken_arguments(fault_of, arguments, fault):
    assert fault in fault_of(*(argument.format(here=Path.cwd().name) for argument in arguments))


@pytest.mark.parametrize("name", ["points.csv", "subset.csv"])
def test_tables_of_the_data_set_are_not_overwritten(fault_of, data, name):
    before = (data / name).read_text()
    assert f"{name}: is a table of the data set" in fault_of("--per-image", data / name)
    assert (data / name).read_text() == before


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("image,part\n", "line 1: the header must be name,subset"),
        ("name,subset\ntest00,a\ntest00.png,b\n", "line 3: test00 has a subset already"),
        ("name,subset\ntest00\n", "line 2: 1 values instead of 2"),
        ("name,subset\ntest00,\n", "line 2: a name and a subset are needed"),
    ],
)
def test_a_faulty_table_of_subsets(tmp_path, refused, monkeypatch, text, fault):
    monkeypatch.setattr(command, "load_exported_or_trained", lambda *_: bright_student())
    data = write_dataset(tmp_path / "data")
    (data / "subset.csv").write_text(text)
    assert f"subset.csv: {fault}" in refused("evaluate", "run", "--data", data)
