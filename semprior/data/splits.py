"""Which images belong to train, validation, test and holdout.

A choice by seed orders names by a hash of seed and name: it depends on the names alone, not on the order or the
number of files read, and one more image leaves the others where they are (but for the count).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from semprior.data.images import Report, fail, stem

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = ("mode", "img_idx")
SEED = 0
SHARE = 0.2  # of all images for test and for validation; of the training images where only validation is missing


def hash_order(names: Sequence[str], purpose: str, seed: int) -> list[int]:
    """Indices of names in an order that only the names, the purpose and the seed decide."""
    keys = [hashlib.sha256(f"{purpose}:{seed}:{name}".encode(errors="surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def find_splits(root: Path, images: Collection[str], report: Report = fail) -> tuple[dict[str, tuple[str, ...]], dict]:
    """The splits of a data set, from ``mode/*.txt`` or ``img_idx/*.txt``, else by seed.

    A split's file is the one whose name starts with ``train``, ``val`` or ``test``. Where there are training but no
    validation names, a seeded fifth of the training images becomes validation: the outer steps need one.

    Args:
        root: of the data set.
        images: names of its images, for the split by seed.
        report: takes each fault: files missing or ambiguous, a split that is empty, names given twice.

    Returns:
        Names without extension by split, and by split where they come from, for messages.
    """
    folders = [root / folder for folder in SPLIT_FOLDERS if (root / folder).is_dir()]
    if len(folders) > 1:
        report(f"{root}: both {folders[0].name}/ and {folders[1].name}/ list splits; keep one")
    if not folders:
        origins = dict.fromkeys(SPLITS, f"{root} (split by seed)")
        return seeded_splits(images, root, report), origins
    files = _split_files(folders[0], report)
    splits = {split: _read_names(path, report) for split, path in files.items()}
    origins = {split: str(path) for split, path in files.items()}
    _report_overlaps(splits, origins, report)
    if "val" not in splits and len(splits.get("train", ())) > 1:
        splits["train"], splits["val"] = _take_validation(splits["train"])
        origins["val"] = origins["train"]
    return splits, origins


def seeded_splits(images: Collection[str], root: Path, report: Report = fail) -> dict[str, tuple[str, ...]]:
    """Split names 60 / 20 / 20 into train, val and test, in an order that only the names decide."""
    names = sorted(images)
    if len(names) < 3:
        report(f"{root}: {len(names)} images are too few to split; list them in {root / 'mode'}/train.txt, test.txt")
        return {}
    order = [names[i] for i in hash_order(names, "split", SEED)]
    part = max(1, round(SHARE * len(names)))
    parts = {"test": order[:part], "val": order[part : 2 * part], "train": order[2 * part :]}
    return {split: tuple(sorted(parts[split])) for split in SPLITS}


def _take_validation(train: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count = max(1, round(SHARE * len(train)))
    chosen = set(hash_order(train, "validation", SEED)[:count])
    kept = tuple(name for i, name in enumerate(train) if i not in chosen)
    return kept, tuple(name for i, name in enumerate(train) if i in chosen)


def _split_files(folder: Path, report: Report) -> dict[str, Path]:
    found = {}
    for split in SPLITS:
        files = sorted(p for p in folder.glob("*.txt") if p.name.lower().startswith(split))
        exact = [path for path in files if path.stem.lower() == split]
        files = exact or files
        if len(files) > 1:
            report(f"{folder}: {', '.join(path.name for path in files)} all list the split {split}; keep one")
        if files:
            found[split] = files[0]
    if not found:
        report(f"{folder}: no split; no file is named train*.txt, val*.txt or test*.txt")
    return found


def _read_names(path: Path, report: Report) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        report(f"{path}: cannot be read as text ({error})")
        return ()
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = stem(line.strip())
        if name in names:
            report(f"{path}: line {number}: {name} is already on line {names[name]}")
        elif name:
            names[name] = number
    if not names:
        report(f"{path}: empty split")
    return tuple(names)


def _report_overlaps(splits: dict[str, tuple[str, ...]], origins: dict[str, str], report: Report) -> None:
    pairs = [("train", "test"), ("train", "val"), ("val", "test")]
    for first, second in pairs:
        shared = sorted(set(splits.get(first, ())) & set(splits.get(second, ())))
        if shared:
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            report(f"{origins[second]}: {shared[0]}{more} also in {origins[first]}; splits may not share images")


def split_holdout(
    names: Sequence[str], points_per_image: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Choose training images to hold out, each number of points in proportion.

    The choice depends on the names, their points, the fraction and the seed, not on the order of the names.

    Args:
        names: of the training images, each once.
        points_per_image: as many.
        fraction: of the images to hold out, 0..1; at least one image stays.
        seed: of the order in which images are taken.

    Returns:
        Indices of the images to train on and of those held out, both ascending.
    """
    total = min(round(fraction * len(names)), max(len(names) - 1, 0))
    strata: dict[int, list[int]] = {}
    for i in hash_order(names, "holdout", seed):
        strata.setdefault(points_per_image[i], []).append(i)
    # Each stratum's share rounded down; what is missing goes to the largest remainders.
    shares = {points: total * len(members) / len(names) for points, members in strata.items()}
    counts = {points: int(share) for points, share in shares.items()}
    by_remainder = sorted(shares, key=lambda points: (counts[points] - shares[points], points))
    for points in by_remainder[: total - sum(counts.values())]:
        counts[points] += 1
    held = {i for points, members in strata.items() for i in members[: counts[points]]}
    return [i for i in range(len(names)) if i not in held], sorted(held)
