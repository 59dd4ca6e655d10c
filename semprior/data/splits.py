"""The images of the training, validation, test and holdout splits.

A seeded choice orders names by a hash of seed and name. It depends neither on the order nor on the number of the files
read, and an additional image leaves the order of the others unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from semprior.data.images import FaultHandler, raise_fault, stem
from semprior.errors import UserError
from semprior.reading.files import read_utf8

Splits = dict[str, tuple[str, ...]]
"""Names of images without extension, by split."""

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = ("mode", "img_idx")
SEED = 0
SHARE = 0.2  # of all images for test and for validation; of the training images if only validation is missing


def hash_order(names: Sequence[str], purpose: str, seed: int) -> list[int]:
    """Indices of names in an order that depends on names, purpose and seed alone."""
    keys = [hashlib.sha256(f"{purpose}:{seed}:{name}".encode(errors="surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def find_splits(
    root: Path, images: Collection[str], on_fault: FaultHandler = raise_fault
) -> tuple[Splits, dict[str, str]]:
    """The splits of a data set: those of ``mode/*.txt`` or ``img_idx/*.txt``, else seeded ones.

    A split's file is the one whose name starts with ``train``, ``val`` or ``test``. If training images are listed but
    no validation images, a seeded fifth of the training images becomes validation: the outer steps need some.

    Args:
        root: folder of the data set.
        images: names of its images, for seeded splits.
        on_fault: receives each fault: missing or ambiguous files, an empty split, names given twice.

    Returns:
        The splits, and for each of them, for messages, the file that lists it.
    """
    folders = [root / folder for folder in SPLIT_FOLDERS if (root / folder).is_dir()]
    if len(folders) > 1:
        on_fault(f"{root}: both {folders[0].name}/ and {folders[1].name}/ list splits; keep one")
    if not folders:
        listed_in = dict.fromkeys(SPLITS, f"{root} (split by seed)")
        return seeded_splits(images, root, on_fault), listed_in
    files = _split_files(folders[0], on_fault)
    splits = {split: _read_names(path, on_fault) for split, path in files.items()}
    listed_in = {split: str(path) for split, path in files.items()}
    _report_overlaps(splits, listed_in, on_fault)
    if "val" not in splits and len(splits.get("train", ())) > 1:
        splits["train"], splits["val"] = _take_validation(splits["train"])
        listed_in["val"] = listed_in["train"]
    return splits, listed_in


def seeded_splits(images: Collection[str], root: Path, on_fault: FaultHandler = raise_fault) -> Splits:
    """Split names 60 / 20 / 20 into train, val and test; the result depends on the names alone."""
    names = sorted(images)
    if len(names) < 3:
        on_fault(f"{root}: {len(names)} images are too few to split; list them in {root / 'mode'}/train.txt, test.txt")
        return {}
    order = [names[i] for i in hash_order(names, "split", SEED)]
    part = max(1, round(SHARE * len(names)))
    parts = {"test": order[:part], "val": order[part : 2 * part], "train": order[2 * part :]}
    return {split: tuple(sorted(parts[split])) for split in SPLITS}


def _take_validation(train: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count = max(1, round(SHARE * len(train)))
    chosen = set(hash_order(train, "validation", SEED)[:count])
    rest = tuple(name for i, name in enumerate(train) if i not in chosen)
    return rest, tuple(name for i, name in enumerate(train) if i in chosen)


def _split_files(folder: Path, on_fault: FaultHandler) -> dict[str, Path]:
    found = {}
    for split in SPLITS:
        files = sorted(p for p in folder.glob("*.txt") if p.name.lower().startswith(split))
        exact = [path for path in files if path.stem.lower() == split]
        files = exact or files
        if len(files) > 1:
            on_fault(f"{folder}: {', '.join(path.name for path in files)} all list the split {split}; keep one")
        if files:
            found[split] = files[0]
    if not found:
        on_fault(f"{folder}: no split; no file is named train*.txt, val*.txt or test*.txt")
    return found


def _read_names(path: Path, on_fault: FaultHandler) -> tuple[str, ...]:
    try:
        lines = read_utf8(path).splitlines()
    except UserError as error:
        on_fault(str(error))
        return ()
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = stem(line.strip())
        if name in names:
            on_fault(f"{path}: line {number}: {name} is already on line {names[name]}")
        elif name:
            names[name] = number
    if not names:
        on_fault(f"{path}: empty split")
    return tuple(names)


def _report_overlaps(splits: Splits, listed_in: dict[str, str], on_fault: FaultHandler) -> None:
    pairs = [("train", "test"), ("train", "val"), ("val", "test")]
    for first, second in pairs:
        shared = sorted(set(splits.get(first, ())) & set(splits.get(second, ())))
        if shared:
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            on_fault(f"{listed_in[second]}: {shared[0]}{more} also in {listed_in[first]}; splits may not share images")


def split_holdout(
    names: Sequence[str], points_per_image: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Choose training images to hold out, stratified by the number of points.

    The choice depends on names, points, fraction and seed, but not on the order of the names.

    Args:
        names: of the training images, without duplicates.
        points_per_image: number of points of each image.
        fraction: of the images to hold out, 0..1; at least one image remains.
        seed: of the order in which images are chosen.

    Returns:
        Indices of the images to train on and of those held out, both ascending.
    """
    total = min(round(fraction * len(names)), max(len(names) - 1, 0))
    strata: dict[int, list[int]] = {}
    for i in hash_order(names, "holdout", seed):
        strata.setdefault(points_per_image[i], []).append(i)
    # Each stratum's share is rounded down; the images still missing go to the largest remainders.
    shares = {points: total * len(members) / len(names) for points, members in strata.items()}
    counts = {points: int(share) for points, share in shares.items()}
    by_remainder = sorted(shares, key=lambda points: (counts[points] - shares[points], points))
    for points in by_remainder[: total - sum(counts.values())]:
        counts[points] += 1
    held_out = {i for points, members in strata.items() for i in members[: counts[points]]}
    return [i for i in range(len(names)) if i not in held_out], sorted(held_out)
