"""The published tables with our rows beside them."""

import json
from dataclasses import replace

import pytest

from benchmarks import tables
from benchmarks.tables import TABLES, Result, other_images, our_rows, published_rows
from tests.tiny import write_checkpoint, write_dataset

RESULT = Result(
    *("v1", "v1", "alclnet", "student", "quick", "recipe", 0, 60, 75, "names", 214, 263),
    metrics={"iou": 0.7, "niou": 0.7, "pd": 0.9, "fa": 30.0},
    errors={"iou": 0.02, "niou": 0.02, "pd": 0.01, "fa": 5.0},
)


def with_iou(iou, **changes):
    return replace(RESULT, metrics={**RESULT.metrics, "iou": iou}, **changes)


def test_published_rows_are_complete():
    rows = {table: published_rows(table) for table in TABLES}
    assert {table: len(found) for table, found in rows.items()} == {"sirst3": 30, "v1": 18, "nudt": 4, "irstd": 5}
    (student,) = (row for row in rows["sirst3"] if (row.detector, row.method) == ("ALCLNet", "paper, student"))
    assert student.metrics == {"iou": 53.0, "niou": 60.24, "pd": 91.5, "fa": 27.6}
    for table, found in rows.items():
        assert all(row.metrics["iou"] for row in found)
        assert {row.trained_on for row in found} <= {table, "sirst3"}


@pytest.mark.parametrize(
    ("table", "method", "marked"),
    [
        ("v1", "Diffuse-to-Detect", "measured on 85 images with 108 targets"),
        ("nudt", "Diffuse-to-Detect", "measured on 266 images with 344 targets"),
        ("irstd", "Diffuse-to-Detect", "test images not stated"),
        ("v1", "MCLC", ""),
        ("sirst3", "PAL", ""),
    ],
)
def test_rows_of_other_test_images_are_marked(table, method, marked):
    found = {other_images(row, TABLES[table]) for row in published_rows(table) if row.method == method}
    assert found == {marked}


def test_seeds_are_one_row_with_the_error_of_their_mean():
    (row,) = our_rows([with_iou(0.69, seed=2), with_iou(0.71, seed=0), with_iou(0.70, seed=1)], "v1")
    assert row.seeds == (0, 1, 2)
    assert row.metrics["iou"] == pytest.approx(70)
    assert row.errors["iou"] == pytest.approx(1 / 3**0.5)
    assert other_images(row, TABLES["v1"]) == ""


def test_one_seed_has_the_error_over_images():
    (row,) = our_rows([RESULT], "v1")
    assert (row.metrics["iou"], row.errors["iou"], row.errors["fa"]) == (70, 2, 5)
    assert "errors over images" in row.remark
    assert our_rows([RESULT], "nudt") == []


def test_other_settings_networks_and_images_are_rows_of_their_own():
    others = [replace(RESULT, seed=1, **{key: "other"}) for key in ("recipe", "network", "names", "detector")]
    assert len(our_rows([RESULT, *others], "v1")) == 5
    marked = other_images(our_rows([replace(RESULT, images=85, targets=108)], "v1")[0], TABLES["v1"])
    assert marked == "measured on 85 images with 108 targets"


def test_runs_are_evaluated_once_each_and_kept(tmp_path, capsys):
    data, results = write_dataset(tmp_path / "data"), tmp_path / "results.jsonl"
    names = sorted(path.stem for path in (data / "images").iterdir())
    lines = [f"{name},{'sirst-v1' if name < 'test02' else 'elsewhere'}" for name in names]
    (data / "subset.csv").write_text("\n".join(["name,subset", *lines]) + "\n")
    runs = [str(write_checkpoint(tmp_path / f"run{seed}", seed=seed)) for seed in (0, 1)]
    arguments = ["--runs", *runs, "--data", str(data), "--table", "sirst3", "--results", str(results)]
    for _ in range(2):
        assert tables.main(arguments) == 0
    assert len(results.read_text().splitlines()) == 4  # two runs, on all images and on those of the subset
    capsys.readouterr()
    assert tables.main(["--results", str(results), "--detector", "mlclnet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (ours,) = (row for row in found["sirst3"] if row["seeds"])
    assert (ours["seeds"], ours["images"], ours["other_images"]) == ([0, 1], 4, "measured on 4 images with 8 targets")
    (part,) = (row for row in found["v1"] if row["seeds"])
    assert (part["trained_on"], part["images"]) == ("sirst3", 2)
    assert {row["detector"].lower() for rows in found.values() for row in rows} == {"mlclnet"}


def test_the_printed_table(tmp_path, capsys):
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps(tables.asdict(replace(RESULT, images=85, targets=108))) + "\n")
    assert tables.main(["--table", "v1", "--results", str(results)]) == 0
    out = capsys.readouterr().out
    assert "SIRST v1, test split: 214 images, 263 targets" in out
    assert "70.00±2.00" in out
    assert "† not comparable, measured on 85 images with 108 targets: ALCLNet Diffuse-to-Detect, alclnet ours" in out


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--detector", "alcnet"], "--detector alcnet: no row has it; there are"),
        (["--runs", "run"], "--runs: needs --data, and --table"),
        (["--results", "RESULTS"], "line 1: is not a result of this benchmark"),
        (["--runs", "nowhere", "--data", "nowhere", "--table", "v1"], "nowhere"),
    ],
)
def test_mistaken_arguments(tmp_path, capsys, arguments, fault):
    (tmp_path / "spoilt.jsonl").write_text('{"table": "v1"}\n')
    words = [str(tmp_path / "spoilt.jsonl") if word == "RESULTS" else word for word in arguments]
    assert tables.main(words) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1
