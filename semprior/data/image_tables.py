"""Tables of a data set with one row per image: ``subset.csv`` (name,subset) and ``groups.csv`` (name,group).

A subset is the data set that an image of a joined one came from; `semprior evaluate --by subset` reports them apart.
A group holds images that show the same scene, such as the frames of a sequence: splits never part them.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from semprior.data.images import FaultHandler, raise_fault, stem
from semprior.errors import UserError
from semprior.reading.csv_text import rows as csv_rows
from semprior.reading.files import read_utf8
from semprior.reading.schema import shown, shown_key

SUBSET_TABLE = "subset.csv"
GROUP_TABLE = "groups.csv"


def read_subsets(
    root: Path, images: Collection[str] | None = None, on_fault: FaultHandler = raise_fault
) -> dict[str, str]:
    """The subset of each image of a joined data set, by name; empty if the data set has no ``subset.csv``.

    Args:
        root: folder of the data set.
        images: names of its images, which the table must list without exception and may not exceed; None accepts any.
        on_fault: receives each fault of the table, with its line.
    """
    return _read(root / SUBSET_TABLE, "subset", images, on_fault, complete=True)


def read_groups(
    root: Path, images: Collection[str] | None = None, on_fault: FaultHandler = raise_fault
) -> dict[str, str]:
    """The group of each image that has one, by name; empty if the data set has no ``groups.csv``.

    Args:
        root: folder of the data set.
        images: names of its images; the table may name no others. An image that it does not name is a group of its own.
        on_fault: receives each fault of the table, with its line.
    """
    return _read(root / GROUP_TABLE, "group", images, on_fault, complete=False)


def _read(
    path: Path, column: str, images: Collection[str] | None, on_fault: FaultHandler, *, complete: bool
) -> dict[str, str]:
    if not path.exists():
        return {}
    values: dict[str, str] = {}
    faults: list[str] = []
    try:
        text = read_utf8(path)
    except UserError as error:
        on_fault(str(error))
        return values
    for number, cells in csv_rows(text, ("name", column), str(path), faults.append):
        where, name, value = f"{path}: line {number}", stem(cells["name"]), cells[column]
        if not name or not value:
            faults.append(f"{where}: a name and a {column} are needed")
        elif images is not None and name not in images:
            faults.append(f"{where}: no image is named {shown(name)}")
        elif name in values:
            faults.append(f"{where}: {shown_key(name)} has a {column} already")
        else:
            values[name] = value
    for fault in faults:
        on_fault(fault)
    readable = bool(values) or not faults
    if complete and readable and images is not None and (missing := sorted(set(images) - set(values))):
        on_fault(
            f"{path}: no {column} for the image {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
        )
    return values


def write_table(path: Path, column: str, values: dict[str, str]) -> None:
    """Write a table that `read_subsets` or `read_groups` reads.

    Args:
        path: of the file.
        column: ``subset`` or ``group``.
        values: by name of the image.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", column))
        writer.writerows(values.items())
