"""Lists of names, wherever they lie: which of a folder's text files list the images of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from semprior.data.images import SUFFIXES, FaultHandler, stem
from semprior.errors import UserError
from semprior.reading.files import read_foreign_text
from semprior.reading.schema import shown, shown_key

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = ("mode", "img_idx")
BY_SEED = "split by seed"  # in the place of the file that lists a split
_LIKELY = re.compile(r"splits?|idx|idx_\d+|\d+_\d+|ImageSets", re.IGNORECASE)
_NESTED = ("Main",)  # ImageSets/Main of Pascal VOC
_DEEPEST = 4  # folders below that of the data set
_OTHER_LISTS = (".lst", ".list", ".csv", ".tsv", ".names")
_LISTED = 0.5  # share of a file's lines that must name images for it to be a list
_LONGEST = 1 << 12  # characters of two paths
_SUFFIX = "|".join(map(re.escape, SUFFIXES))
_TWO_FILES = re.compile(rf"(.+?(?:{_SUFFIX}))[\s,;]+\S.*(?:{_SUFFIX})", re.IGNORECASE)


Resolve = Callable[[str], str]
"""From a line of a list to the name of an image, or to the line itself if no image is meant."""


def resolver(names: Collection[str]) -> Resolve:
    """Names as lists write them: with or without suffix, behind a folder, before a label or a mask (``NAME 1``)."""

    def resolve(line: str) -> str:
        whole = stem(line)
        if whole in names:
            return whole
        for part in (first_file(line), line):
            last = stem(re.split(r"[/\\]", part)[-1])
            if last in names:
                return last
        first = re.fullmatch(r"(\S+)\s+-?\d+", line)
        return stem(first[1]) if first and stem(first[1]) in names else whole

    return resolve


def first_file(line: str) -> str:
    """The image of a line that names it and its mask, such as ``images/a.png masks/a.png``; else the line."""
    match = _TWO_FILES.fullmatch(line) if len(line) <= _LONGEST else None
    return match[1] if match else line


def split_places(root: Path, names: Collection[str], resolve: Resolve, on_fault: FaultHandler) -> list[Path]:
    """The folders whose text files list the images of splits.

    These are ``mode/`` and ``img_idx/`` in any case and, where a file ``train*.txt``, ``val*.txt`` or ``test*.txt``
    lists images, the data set's folder itself and every other folder in it; if there are none, those further below.

    Args:
        root: folder of the data set.
        names: of its images.
        resolve: names the image that a line means.
        on_fault: receives the fault of a file that seems to be a list and is not read, if there are no other lists:
            its name tells no split, it names no image, or it is no text.
    """
    folders = _folders_in(root)
    folders += [nested for path in folders for name in _NESTED if (nested := path / name).is_dir()]
    known = [root / name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    places = [path for path in (root, *folders) if path not in known]
    found = known + [place for place in places if _lists_splits(place, names, resolve)]
    if not found:
        found = [place for place in _deeper(folders) if _lists_splits(place, names, resolve)]
    if not found:
        likely = [place for place in places if place == root or _LIKELY.fullmatch(place.name)]
        for path in (path for place in likely for path in sorted(place.iterdir())):
            _refuse_unread_list(path, names, resolve, on_fault)
    return found


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:  # which tell folders from many images without opening any
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _deeper(folders: list[Path]) -> Iterator[Path]:
    """The folders below some; links to folders are not followed."""
    for _ in range(_DEEPEST):
        folders = [path for folder in folders if not folder.is_symlink() for path in _folders_in(folder)]
        yield from folders


def _lists_splits(folder: Path, names: Collection[str], resolve: Resolve) -> bool:
    named = (path for path in text_files(folder) if _split_of(path) and stem(path.stem) not in names)
    return any(lists_images(path, resolve, names) for path in named)


def _refuse_unread_list(path: Path, names: Collection[str], resolve: Resolve, on_fault: FaultHandler) -> None:
    """Report a file that was meant as a list of a split, or may have been, and would be passed over in silence."""
    if path.name.startswith(".") or path.is_dir() or stem(path.stem) in names:
        return
    split, suffix = _split_of(path), path.suffix.lower()
    if suffix == ".txt" and split is None and lists_images(path, resolve, names):
        on_fault(
            f"{path}: lists images, but its name tells no split; name it train.txt, val.txt or test.txt, or move it"
            " away"
        )
    elif suffix == ".txt" and (path.stem.lower() in SPLITS or is_trainval(path)):
        lines = [line for line in read_lines(path, on_fault) if line]
        if lines:
            unknown = next(line for line in lines if resolve(line) not in names)
            on_fault(f"{path}: names no images, such as {shown(unknown)}; correct the names, or move it away")
    elif suffix in _OTHER_LISTS and split is not None and lists_images(path, stem, names):
        on_fault(f"{path}: lists images, but lists are read from .txt files; save it as {split}.txt, one name a line")


def text_files(folder: Path) -> list[Path]:
    """The text files of a folder, without hidden ones; reading one tells if it is a pipe or a link to nothing."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".txt" and not path.is_dir() and not path.name.startswith(".")
    )


def lists_images(path: Path, resolve: Resolve, names: Collection[str]) -> bool:
    """Whether most lines of a text file name images."""
    lines = [line for line in read_lines(path, lambda _: None) if line]
    named = sum(resolve(line) in names for line in lines)
    return bool(lines) and named >= _LISTED * len(lines)


def read_lines(path: Path, on_fault: FaultHandler) -> list[str]:
    """The lines of a list, stripped; empty ones are kept, so that positions are line numbers."""
    try:
        return [line.strip() for line in read_foreign_text(path).splitlines()]
    except UserError as error:
        on_fault(str(error))
        return []


def split_files(folder: Path, on_fault: FaultHandler) -> dict[str, Path]:
    """The file of each split in a folder: the one named exactly after it, else the one whose name begins with it.

    A list of training and validation images together (``trainval*.txt``) is that of the training images where there
    is no other.
    """
    found = {}
    for split in SPLITS:
        files = [path for path in text_files(folder) if _split_of(path) == split]
        exact = [path for path in files if path.stem.lower() == split]
        files = exact or [path for path in files if not is_trainval(path)] or files
        if len(files) > 1:
            on_fault(f"{folder}: {', '.join(path.name for path in files)} all list the split {split}; keep one")
        if files:
            found[split] = files[0]
    if not found:
        on_fault(f"{folder}: no split; no file is named train*.txt, val*.txt or test*.txt")
    return found


def is_trainval(path: Path) -> bool:
    """Whether a file lists training and validation images together, by its name."""
    return re.match(r"train[_-]?val", path.stem.lower()) is not None


def _split_of(path: Path) -> str | None:
    return next((split for split in SPLITS if path.name.lower().startswith(split)), None)


def read_names(path: Path, resolve: Resolve, on_fault: FaultHandler) -> tuple[str, ...]:
    """The names that a list gives; a fault if it gives one twice or none."""
    names: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, on_fault), 1):
        name = resolve(line) if line else ""
        if name in names:
            on_fault(f"{path}: line {number}: {shown_key(name)} is already on line {names[name]}; delete one")
        elif name:
            names[name] = number
    if not names:
        on_fault(f"{path}: empty split; list names of images, one a line, or delete the file")
    return tuple(names)
