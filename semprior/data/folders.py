"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semprior.data.images import fail
from semprior.errors import StorageError
from semprior.files import usual_rights


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Fill a hidden folder beside a new one; at the end it takes its name, on any exception it goes.

    Args:
        folder: that does not exist; folders above it are made.

    Raises:
        UserError: it exists.
        StorageError: it cannot be made, or the disk is full.
    """
    if folder.exists():
        fail(f"{folder}: exists already; move it away or choose another place")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield partial
            usual_rights(partial, 0o777)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error
