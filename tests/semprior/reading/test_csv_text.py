"""CSV tables: rows by column with their lines, and whole numbers."""

import pytest

from semprior.reading.csv_text import rows, whole_number


def read(text):
    faults = []
    return list(rows(text, ("name", "x"), "t.csv", faults.append)), faults


def test_rows_have_their_line_and_cells_by_column():
    found, faults = read(' X ,Name,more\n3,a,\n\n 4 ,"b\nc",z\n')
    assert found == [(2, {"x": "3", "name": "a", "more": ""}), (5, {"x": "4", "name": "b\nc", "more": "z"})]
    assert not faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "t.csv: line 1: the header must be name,x"),
        ("name,y\na,1\n", "t.csv: line 1: the header must be name,x"),
        ("name,x,x\na,1,2\n", "t.csv: line 1: the column x is given twice"),
        ("name,x\na,1,2\n", "t.csv: line 2: 3 values instead of 2"),
        ("name,x\na,1\nb," + "9" * 140_000 + "\n", "t.csv: line 3: cannot be read as CSV (field larger than"),
        ('name,x\na,"' + "9" * 140_000 + "\n", "t.csv: line 2: cannot be read as CSV (field larger than"),
    ],
)
def test_a_fault_names_its_line(text, fault):
    found, faults = read(text)
    assert len(faults) == 1
    assert faults[0].startswith(fault)
    assert [number for number, _ in found] in ([], [2])


@pytest.mark.parametrize(
    ("text", "number"),
    [("21", 21), ("21.0", 21), ("21.", 21), ("-3", -3), ("+3", 3), ("007", 7), ("0", 0)],
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["1_0", "21.5", "1e3", "", "x", "٣", "0x10", "nan", "9" * 5000, "1 0", "--1"])
def test_what_is_not_a_whole_number(text):
    assert whole_number(text) is None
