"""Which data set each image of a joined one comes from: the table ``subset.csv`` of name, subset."""

from __future__ import annotations

import csv
from pathlib import Path

from semprior.data.images import raise_fault, stem

SUBSET_TABLE = "subset.csv"


def read_subsets(root: Path) -> dict[str, str]:
    """The subset of each image by its name without extension; empty if the data set has no table.

    Raises:
        UserError: the table cannot be read, or names an image twice or without a subset.
    """
    path = root / SUBSET_TABLE
    if not path.exists():
        return {}
    try:
        reader = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header != ["name", "subset"]:
            raise_fault(f"{path}: line 1: the header must be name,subset")
        found: dict[str, str] = {}
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != 2 or not all(cell.strip() for cell in cells):
                raise_fault(f"{path}: line {reader.line_num}: must be the name of an image and its subset")
            name, subset = stem(cells[0].strip()), cells[1].strip()
            if name in found:
                raise_fault(f"{path}: line {reader.line_num}: {name} is named twice; keep one line")
            found[name] = subset
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise_fault(f"{path}: cannot be read as a table ({error})")
    return found
