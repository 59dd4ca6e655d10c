"""The images of the training, validation, test and holdout splits.

A seeded choice orders names by a hash of seed and name. It depends neither on the order nor on the number of the files
read, and an additional image leaves the order of the others unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from semprior.data.finding.split_lists import (
    BY_SEED,
    SPLITS,
    Resolve,
    is_trainval,
    read_names,
    resolver,
    split_files,
    split_places,
)
from semprior.data.image_tables import GROUP_TABLE
from semprior.data.images import FaultHandler, raise_fault
from semprior.errors import UserError
from semprior.io.wording import plural

Splits = dict[str, tuple[str, ...]]
"""Names of images without extension, by split."""

SEED = 0
SHARE = 0.2  # of all images for test and for validation; of the training images if only validation is missing
_NO_GROUPS: Mapping[str, str] = {}


def hash_order(names: Sequence[str], purpose: str, seed: int) -> list[int]:
    """Indices of names in an order that depends on names, purpose and seed alone."""
    keys = [hashlib.sha256(f"{purpose}:{seed}:{name}".encode(errors="surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def find_splits(
    root: Path,
    images: Collection[str],
    on_fault: FaultHandler = raise_fault,
    groups: Mapping[str, str] = _NO_GROUPS,
) -> tuple[Splits, dict[str, str]]:
    """The splits of a data set: those that its lists give, else seeded ones.

    Lists are text files whose names start with ``train``, ``val`` or ``test``, in ``mode/``, ``img_idx/``, the folder
    itself or any other folder in it; see `split_places`. If training images are listed but no validation images, a
    seeded fifth of the training images becomes validation: the outer steps need some.

    Args:
        root: folder of the data set.
        images: names of its images.
        on_fault: receives each fault: missing or ambiguous files, an empty split, names given twice, a parted group.
        groups: of images, by name, which no split may part.

    Returns:
        The splits, and for each of them, for messages, the file that lists it.
    """
    listed = listed_splits(root, images, resolver(images), on_fault)
    if listed is None:
        listed_in = dict.fromkeys(SPLITS, f"{root} ({BY_SEED})")
        return seeded_splits(images, root, on_fault, groups), listed_in
    splits, files = listed
    listed_in = {split: str(path) for split, path in files.items()}
    report_overlaps(splits, listed_in, on_fault)
    report_parted_groups(splits, listed_in, groups, str(root / GROUP_TABLE), on_fault)
    if "val" not in splits and len(splits.get("train", ())) > 1:
        splits["train"], splits["val"] = _take_validation(splits["train"], groups)
        listed_in["val"] = listed_in["train"]
    return splits, listed_in


def listed_splits(
    root: Path, images: Collection[str], resolve: Resolve, on_fault: FaultHandler
) -> tuple[Splits, dict[str, Path]] | None:
    """The splits that the text files of a folder list, and the file of each; None if there are no such files.

    Several folders may list the same splits.

    Args:
        root: folder of the data set.
        images: names of its images.
        resolve: names the image that a line means.
        on_fault: receives each fault.
    """
    places = split_places(root, images, resolve, on_fault)
    if not places:
        return None
    splits, files = _listed(places[0], resolve, on_fault)
    for place in places[1:]:
        faults: list[str] = []
        others, _ = _listed(place, resolve, faults.append)
        if faults or {split: set(names) for split, names in others.items()} != {
            split: set(n) for split, n in splits.items()
        }:
            on_fault(f"{root}: both {_shown(places[0], root)} and {_shown(place, root)} list splits; keep one")
    return splits, files


def _listed(folder: Path, resolve: Resolve, on_fault: FaultHandler) -> tuple[Splits, dict[str, Path]]:
    files = split_files(folder, on_fault)
    splits = {split: read_names(path, resolve, on_fault) for split, path in files.items()}
    if "val" in splits and "train" in files and is_trainval(files["train"]):
        validation = set(splits["val"])
        splits["train"] = tuple(name for name in splits["train"] if name not in validation)
    return splits, files


def _shown(folder: Path, root: Path) -> str:
    return "the folder itself" if folder == root else f"{folder.relative_to(root)}/"


def seeded_splits(
    images: Collection[str],
    root: Path,
    on_fault: FaultHandler = raise_fault,
    groups: Mapping[str, str] = _NO_GROUPS,
) -> Splits:
    """Split names 60 / 20 / 20 into train, val and test; the result depends on the names and groups alone."""
    names = sorted(images)
    units = _units(names, groups, "split", SEED)
    if len(units) < 3:
        what = plural(len(names), "image") if not groups else f"{len(units)} groups of images"
        on_fault(f"{root}: {what} are too few to split; list them in {root / 'mode'}/train.txt, test.txt")
        return {}
    part = max(1, round(SHARE * len(names)))
    test = _take(units, part, leave=2)
    rest = _without(units, test)
    validation = _take(rest, part, leave=1)
    parts = {"test": test, "val": validation, "train": _without(rest, validation)}
    return {split: tuple(sorted(name for unit in parts[split] for name in unit)) for split in SPLITS}


def _units(names: Sequence[str], groups: Mapping[str, str], purpose: str, seed: int) -> list[tuple[str, ...]]:
    """Groups and single images in the order of a seeded choice; each is chosen whole."""
    members: dict[tuple[str, str], list[str]] = {}
    for name in names:
        members.setdefault(("group", groups[name]) if name in groups else ("", name), []).append(name)
    keys = list(members)
    order = hash_order([f"group {key}" if kind else key for kind, key in keys], purpose, seed)
    return [tuple(members[keys[i]]) for i in order]


def _take(units: Sequence[tuple[str, ...]], count: int, leave: int) -> list[tuple[str, ...]]:
    """The first units that bring the number of their images nearest to `count`; at least `leave` units remain.

    A unit that is too large is passed over. If all are, the smallest is taken.
    """
    taken: list[tuple[str, ...]] = []
    total = 0
    for unit in units:
        if total >= count or len(units) - len(taken) <= leave:
            break
        if abs(total + len(unit) - count) < abs(total - count):
            taken.append(unit)
            total += len(unit)
    return taken or [min(units, key=len)]


def _without(units: Sequence[tuple[str, ...]], taken: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    gone = set(taken)
    return [unit for unit in units if unit not in gone]


def _take_validation(train: tuple[str, ...], groups: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count = max(1, round(SHARE * len(train)))
    units = _units(train, groups, "validation", SEED)
    chosen = {name for unit in _take(units, count, leave=1) for name in unit} if len(units) > 1 else set()
    rest = tuple(name for name in train if name not in chosen)
    return rest, tuple(name for name in train if name in chosen)


def report_overlaps(splits: Splits, listed_in: Mapping[str, str], on_fault: FaultHandler) -> None:
    """Report images that two splits share; `listed_in` tells for messages what lists each split."""
    pairs = [("train", "test"), ("train", "val"), ("val", "test")]
    for first, second in pairs:
        shared = sorted(set(splits.get(first, ())) & set(splits.get(second, ())))
        if shared:
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            on_fault(f"{listed_in[second]}: {shared[0]}{more} also in {listed_in[first]}; splits may not share images")


def report_parted_groups(
    splits: Splits,
    listed_in: Mapping[str, str],
    groups: Mapping[str, str],
    place: str,
    on_fault: FaultHandler,
    way_out: str = "",
) -> None:
    """Report groups whose images lie in several splits; `place` tells for messages what gives the groups."""
    seen: dict[str, str] = {}
    for split, names in splits.items():
        for group in dict.fromkeys(groups[name] for name in names if name in groups):
            if seen.setdefault(group, split) != split:
                on_fault(
                    f"{place}: the group {group} is parted: {listed_in[seen[group]]} and {listed_in[split]} list images"
                    f" of it; its images look alike, so keep them in one split{way_out}"
                )


def split_holdout(
    names: Sequence[str],
    points_per_image: Sequence[int],
    fraction: float,
    seed: int,
    groups: Mapping[str, str] = _NO_GROUPS,
) -> tuple[list[int], list[int]]:
    """Choose training images to hold out, stratified by the number of points.

    The choice depends on names, points, fraction, seed and groups, but not on the order of the names. If there are
    groups, whole groups are held out, in a seeded order and without regard to their points.

    Args:
        names: of the training images, without duplicates.
        points_per_image: number of points of each image.
        fraction: of the images to hold out, 0..1; at least one image remains.
        seed: of the order in which images are chosen.
        groups: of images, by name.

    Returns:
        Indices of the images to train on and of those held out, both ascending.

    Raises:
        UserError: images are to be held out, but all belong to one group.
    """
    total = min(round(fraction * len(names)), max(len(names) - 1, 0))
    if total and any(name in groups for name in names):
        units = _units(sorted(names), groups, "holdout", seed)
        if len(units) == 1:
            raise UserError(
                f"{GROUP_TABLE}: all training images belong to the group {groups[names[0]]}, so that none can be held"
                " out; set data.holdout=0, or make more groups"
            )
        chosen = {name for unit in _take(units, total, leave=1) for name in unit}
        return (
            [i for i, name in enumerate(names) if name not in chosen],
            [i for i, name in enumerate(names) if name in chosen],
        )
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


def assign_folds(
    names: Sequence[str],
    strata: Sequence[tuple[int, ...]],
    folds: int,
    seed: int,
    groups: Mapping[str, str] = _NO_GROUPS,
    key: str = "data.folds",
) -> list[int]:
    """Divide images into folds of about equal size, none of which parts a group, and each with its share of the strata.

    The division depends on names, strata, folds, seed and groups, but not on the order of the names. Whole groups, the
    largest first, then single images stratum by stratum, each in a seeded order, go to the fold with the fewest images.

    Args:
        names: of the images, without duplicates.
        strata: of each image, such as its number of points.
        folds: their number, at least 2.
        seed: of the order.
        groups: of images, by name.
        key: the setting that gives their number, for the message.

    Returns:
        The fold of each image, 0..folds-1.

    Raises:
        UserError: there are fewer images, or groups and single images, than folds.
    """
    stratum = dict(zip(names, strata, strict=True))
    units = _units(sorted(names), groups, "folds", seed)
    if len(units) < folds:
        what = (
            f"{len(units)} groups of images" if any(name in groups for name in names) else plural(len(names), "image")
        )
        raise UserError(f"{key}: {what} are too few for {folds} folds")
    units = sorted(units, key=lambda unit: (-len(unit), stratum[unit[0]] if len(unit) == 1 else ()))
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    for unit in units:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(unit)
        fold_of |= dict.fromkeys(unit, fold)
    return [fold_of[name] for name in names]
