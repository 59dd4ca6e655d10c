"""What a folder as it was downloaded or annotated holds: images, masks, points, annotations, lists, by their names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semprior.data.finding.split_lists import SPLIT_FOLDERS, first_file
from semprior.data.finding.unread import PICTURES, counted
from semprior.data.formats.marks import SPLIT, SPLIT_WORDS
from semprior.data.images import READABLE, SUFFIXES, stem
from semprior.errors import UserError
from semprior.io.wording import plural

IMAGES = (
    *("images", "image", "imgs", "img", "irstd1kimg", "mixed", "pngimages", "jpegimages", "jpgimages"),
    *("original", "originals"),
)
MASKS = (
    *("masks", "mask", "labels", "label", "irstd1klabel", "binarymask", "binarymasks", "groundtruth", "gt", "truth"),
    "segmentationclass",
)
POINTS = ("maskscentroid", "centroid", "centroids", "pointlabel", "pointlabels", "points", "maskscoarse", "coarse")
"""Names of folders without capitals and signs; of several folders of points, the first in this order is read."""
MASK_ENDINGS = ("_pixels0", "_mask", "_gt", "_label", "_seg")
ANNOTATION_SUFFIXES = (".txt", ".xml", ".json")
MOST_FILES = 5_000_000
_HIDDEN = ("__MACOSX",)
_Picture = tuple[Path, tuple[str, ...], str]
"""A file, the folders of its path that name no role, and the one that does."""


@dataclass(frozen=True)
class SourceImage:
    """An image of a source.

    Attributes:
        name: in the new data set.
        path: of its file.
        folders: the folders that tell it from others, such as a sequence; none of them names a split or a role.
        split: that its folder names, or None.
    """

    name: str
    path: Path
    folders: tuple[str, ...]
    split: str | None


@dataclass
class Source:
    """The parts of a folder.

    Attributes:
        root: the folder.
        top: the folder in it that all images share, which may be itself; lists lie in either.
        images: by name.
        masks: files by name of the image.
        marks: files of point images by name of the image.
        points: name of the folders of points that count, one of `POINTS`; empty if there are none.
        others: files that are neither images nor hidden.
        notes: what was found and decided, one line each.
        by_stem: images by the names of their files without suffix.
        folders: all names in the `folders` of the images, case-folded.
    """

    root: Path
    top: Path
    images: dict[str, SourceImage]
    masks: dict[str, Path] = field(default_factory=dict)
    marks: dict[str, Path] = field(default_factory=dict)
    points: str = ""
    others: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    by_stem: dict[str, list[SourceImage]] = field(default_factory=dict, repr=False)
    folders: set[str] = field(default_factory=set)

    def find_image(self, name: str) -> str | None:
        """The image that an annotation or list names, by a bare name or a path; None if none or several fit."""
        parts = re.split(r"[/\\]", name.removeprefix(f"{self.root}/"))
        candidates = self.by_stem.get(bare(parts[-1]), [])
        around = {_folded(part) for part in parts[:-1]}
        if len(candidates) > 1 or around & self.folders:  # another sequence may have a frame of the same name
            split = next((split for part in parts[:-1] if (split := split_named(part, roles=True))), None)
            candidates = [
                image
                for image in candidates
                if {_folded(folder) for folder in image.folders} <= around
                and (len(candidates) == 1 or split in (None, image.split))
            ]
        if not candidates and (name in self.images or stem(name) in self.images):
            return name if name in self.images else stem(name)
        return candidates[0].name if len(candidates) == 1 else None

    def resolve(self, line: str) -> str:
        """The name of the image that a line of a list means, or the line without a suffix."""
        first = re.fullmatch(r"(\S+)\s+-?\d+", line)
        return (
            self.find_image(first_file(line))
            or self.find_image(line)
            or (first and self.find_image(first[1]))
            or stem(line)
        )


def _folded(part: str) -> str:
    return unicodedata.normalize("NFC", part).casefold()


def split_named(folder: str, *, roles: bool = False) -> str | None:
    """The split that the name of a folder means, such as ``Train``, ``val2017`` or ``test_set``; else None.

    With `roles`, a name may also say what the folder holds, as in ``train_masks``.
    """
    split, rest = _parted(folder)
    meant = rest in ("", "set", "data", "split") or rest.isdecimal() or (roles and rest in (*IMAGES, *MASKS, *POINTS))
    return split if meant else None


def _parted(folder: str) -> tuple[str | None, str]:
    """The split in the name of a folder, and the rest of the name, without capitals and signs."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", folder)  # TrainImages
    match = SPLIT.search(apart)
    if match is None:
        return None, _plain(folder)
    return SPLIT_WORDS[match[1].lower()], _plain(apart[: match.start(1)] + apart[match.end(1) :])


def bare(name: str) -> str:
    """The name of a file without the suffixes of annotations and images."""
    if name.lower().endswith(ANNOTATION_SUFFIXES):
        name = name.rpartition(".")[0]
    return stem(name)


def find_source(root: Path) -> Source:
    """Find the parts of a folder by names; nothing is opened.

    Folders are recognised by their names (`IMAGES`, `MASKS`, `POINTS`) in any case. If none is named so, all folders
    with images hold images. Folders between them may name splits (``train``, ``val``, ``test``) or sequences.

    Raises:
        UserError: there is no such folder or no image in it, images or masks are ambiguous, or several data sets lie
            side by side.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    pictures: dict[str, list[_Picture]] = defaultdict(list)
    others, unread = [], []
    for path in _walk(root):
        parts = path.relative_to(root).parts[:-1]
        if path.name.lower().endswith(SUFFIXES):
            role, rest, key = _role(parts)
            pictures[role].append((path, rest, key))
        elif path.suffix.lower() in PICTURES:
            unread.append(path)
        else:
            others.append(path)
    taken, spare = ("images", pictures[""]) if pictures["images"] else ("", [])
    if not pictures[taken]:
        others_than = f"; {counted(unread)} cannot be read, such as {unread[0].relative_to(root)}" if unread else ""
        raise UserError(f"{root}: holds no {READABLE} image{others_than}")
    beside = _masks_beside(pictures[taken])
    pictures[taken] = [picture for picture in pictures[taken] if picture not in beside]
    pictures["masks"] += beside
    read = {path.parent for role in {taken, "images", "masks", "points"} for path, _, _ in pictures[role]}
    if missed := [path for path in unread if path.parent in read]:
        raise UserError(
            f"{root}: {counted(missed)} cannot be read, such as {missed[0].relative_to(root)}; save them as {READABLE},"
            " or move them away"
        )
    shared = _shared([rest for _, rest, _ in pictures[taken]])
    source = Source(root, root.joinpath(*shared), {}, others=others)
    if beside:
        source.notes.append(f"masks beside their images, by their names: {len(beside)}, such as {beside[0][0].name}")
    if spare:
        folders = sorted({str(path.parent.relative_to(root)) for path, _, _ in spare})
        source.notes.append(f"not read: {plural(len(spare), 'image')} in {', '.join(folders[:5])}")
    if unread:
        source.notes.append(f"not read: {counted(unread)}, such as {unread[0].relative_to(root)}")
    _refuse_several(source.top, [rest[len(shared) :] for _, rest, _ in pictures[taken]])
    _name_images(source, [(path, rest[len(shared) :]) for path, rest, _ in pictures[taken]])
    source.masks = _matched(source, [path for path, _, _ in pictures["masks"]], "mask")
    _choose_points(source, [(path, key) for path, _, key in pictures["points"]])
    return source


def _walk(root: Path) -> Iterator[Path]:
    """The files of a folder and of those below it, sorted, without hidden ones; links to folders are followed once."""
    seen: set[str] = set()
    count = 0
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in _HIDDEN)
        for name in sorted(names):
            count += 1
            if count > MOST_FILES:
                raise UserError(f"{root}: holds more than {MOST_FILES:,} files")
            if not name.startswith("."):
                yield Path(folder) / name


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _role(parts: Sequence[str]) -> tuple[str, tuple[str, ...], str]:
    """The role of a folder by the deepest part of its path that names one; the other parts; and that name."""
    for place in reversed(range(len(parts))):
        split, plain = _parted(parts[place])
        role = "images" if plain in IMAGES else "masks" if plain in MASKS else "points" if plain in POINTS else ""
        if role:
            own = () if split is None else (split,)  # of train_images, for example
            return role, (*parts[:place], *own, *parts[place + 1 :]), plain
    return "", tuple(parts), ""


def _masks_beside(pictures: Sequence[_Picture]) -> list[_Picture]:
    """Those that are named like masks (``NAME_mask.png``) of others in the same folder (``NAME.png``)."""
    places = {(path.parent, stem(path.name)) for path, _, _ in pictures}
    return [
        picture
        for picture in pictures
        if any(
            (own := stem(picture[0].name)).endswith(ending) and (picture[0].parent, own.removesuffix(ending)) in places
            for ending in MASK_ENDINGS
        )
    ]


def _shared(rests: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that all images share, up to one that names a split."""
    lowest, highest = min(rests), max(rests)  # what these two share, all share
    length = 0
    for one, other in zip(lowest, highest, strict=False):
        if one != other or split_named(one):
            break
        length += 1
    return lowest[:length]


def _refuse_several(top: Path, rests: Sequence[tuple[str, ...]]) -> None:
    """Refuse data sets side by side: folders that hold lists of splits of their own."""
    owners = sorted(
        {rest[0] for rest in rests if rest and any((top / rest[0] / name).is_dir() for name in SPLIT_FOLDERS)}
    )
    if len(owners) > 1:
        raise UserError(
            f"{top}: holds several data sets, {', '.join(owners)}; import each, then `semprior data join` them"
        )


def _name_images(source: Source, files: Sequence[tuple[Path, tuple[str, ...]]]) -> None:
    words = [[split for part in rest if (split := split_named(part))] for _, rest in files]
    split_of = [found[0] if found else None for found in words]
    by_folders = all(split_of)
    if any(split_of) and not by_folders:
        source.notes.append("some folders name splits and others do not: they are not taken for splits")
    folders = [tuple(part for part in rest if not (by_folders and split_named(part))) for _, rest in files]
    stems = [stem(path.name) for path, _ in files]
    counts = Counter(stems)
    unique = len(counts) == len(stems)
    for (path, _), own, name, split in zip(files, folders, stems, split_of, strict=True):
        whole = name if unique else unicodedata.normalize("NFC", "_".join((*own, name)))
        if not unique and not own and by_folders and counts[name] > 1:
            whole = f"{split}_{name}"
        if any(not sign.isprintable() for sign in whole):
            raise UserError(f"{str(path)!r}: its name holds control characters; rename it")
        if whole != whole.strip():
            raise UserError(
                f"{path}: its name {whole!r} begins or ends with a blank, which lists do not tell; rename it"
            )
        if whole in source.images:
            raise UserError(f"{path}: {source.images[whole].path} would have the same name; keep one")
        image = SourceImage(whole, path, own, split if by_folders else None)
        source.images[whole] = image
        source.by_stem.setdefault(name, []).append(image)
        source.folders |= {_folded(folder) for folder in own}
    if not unique:
        source.notes.append(f"names are not unique without their folders: they become {next(iter(source.images))} etc.")


def _matched(source: Source, paths: Sequence[Path], what: str) -> dict[str, Path]:
    """Files by the image that they belong to, by their names and folders."""
    found: dict[str, Path] = {}
    spare = []
    for path in paths:
        own, place = stem(path.name), "/".join(path.relative_to(source.root).parts[:-1])
        name = source.find_image(f"{place}/{own}")
        ending = next((ending for ending in MASK_ENDINGS if own.endswith(ending)), "")
        if name is None and ending:
            name = source.find_image(f"{place}/{own.removesuffix(ending)}")
        if name is None:
            spare.append(path)
        elif name in found:
            raise UserError(f"{path}: {found[name]} is for the same image {name}; keep one")
        else:
            found[name] = path
    if spare:
        source.notes.append(f"not used, for no image: {plural(len(spare), what)}, such as {spare[0].name}")
    return found


def _choose_points(source: Source, files: Sequence[tuple[Path, str]]) -> None:
    """Choose one kind of folders of points, by the order of `POINTS`, and match its images."""
    found = {key for _, key in files}
    for path in (path for path in source.others if path.suffix.lower() == ".txt"):
        role, _, key = _role(path.relative_to(source.root).parts[:-1])
        found |= {key} if role == "points" else set()
    if not found:
        return
    source.points, *ignored = sorted(found, key=POINTS.index)
    if ignored:
        source.notes.append(f"points of the folder {source.points} are read, those of {', '.join(ignored)} are not")
    source.marks = _matched(source, [path for path, key in files if key == source.points], "point image")


def folder_role(source: Source, path: Path) -> tuple[str, str]:
    """The role of the folder of a file, and the part of its path that names the role, without capitals and signs."""
    role, _, key = _role(path.relative_to(source.root).parts[:-1])
    return role, key
