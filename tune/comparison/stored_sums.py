"""The terms of an evaluation, image by image, in the storage of a sweep: ``image-sums/TRIAL/ATTEMPT-EPOCH-SHA256.npz``.

An attempt writes the file before the record of the epoch, which has its SHA-256; the file never changes. It holds a
table of some kilobytes and the names of the images. Like checkpoints, the files of the best and of the last evaluation
of a trial are kept (`tune.store.records.kept_images`).
"""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np

from semprior.errors import UserError
from semprior.evaluation.image_sums import ImageSums
from semprior.io.manifest import DamagedError
from semprior.io.storage import Storage
from semprior.reading.tensors import parse_arrays
from tune.store.records import IMAGE_SUMS

_SEPARATOR = "\0"  # no name of a file holds it


def put_sums(storage: Storage, trial: str, attempt: int, epoch: int, images: ImageSums) -> str:
    """Write the terms of an evaluation. They are complete when this returns.

    Args:
        storage: the storage of the sweep.
        trial: id of the trial.
        attempt: number of the attempt.
        epoch: the epoch, from 0.
        images: the terms.

    Returns:
        The SHA-256 of the file, for the record of the epoch.

    Raises:
        StorageError: the storage cannot be written.
    """
    packed = BytesIO()
    np.savez(packed, table=images.table, names=_packed(images.names), terms=_packed(images.terms))
    content = packed.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    storage.put(f"{IMAGE_SUMS}/{trial}/{attempt}-{epoch:04d}-{digest}.npz", content)
    return digest


def read_sums(storage: Storage, address: str) -> ImageSums | None:
    """Read the terms of an evaluation; None if they are not kept any longer.

    Args:
        storage: the storage of the sweep.
        address: `Record.images_address`.

    Raises:
        DamagedError: the file is damaged.
        StorageError: the storage cannot be read.
    """
    place = f"{storage.uri.partition('?')[0]}/{address}"
    try:
        content = storage.read(address)
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != address.removesuffix(".npz").rpartition("-")[2]:
        raise DamagedError(f"{place}: is damaged; its digest is not the one recorded")
    try:
        arrays = parse_arrays(content, place)
        images = ImageSums(_unpacked(arrays["names"]), _unpacked(arrays["terms"]), arrays["table"])
    except (UserError, KeyError, UnicodeDecodeError) as error:
        raise DamagedError(f"{place}: is damaged ({error})") from error
    fits = images.table.shape == (len(images.names), len(images.terms)) and images.table.dtype == np.float32
    if not fits or len(set(images.names)) < len(images.names) or not np.isfinite(images.table).all():
        raise DamagedError(f"{place}: is damaged; its table is not one of numbers of each image")
    return images


def _packed(words: tuple[str, ...]) -> np.ndarray:
    return np.frombuffer(_SEPARATOR.join(words).encode("utf-8", "surrogateescape"), np.uint8)


def _unpacked(content: np.ndarray) -> tuple[str, ...]:
    return tuple(content.tobytes().decode("utf-8", "surrogateescape").split(_SEPARATOR))
