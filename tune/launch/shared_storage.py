"""Whether machines share a storage: files that one of them writes, the others must be able to read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from semprior.errors import UserError
from semprior.io.storage import open_storage


@contextmanager
def probe_file(uri: str) -> Iterator[str]:
    """Within the context, a storage holds a new file whose content is its name.

    Yields:
        The name, which is unique.

    Raises:
        UserError: the storage cannot be written.
    """
    storage = open_storage(uri)
    name = f"probe-{uuid.uuid4().hex}"
    storage.put(name, name.encode())
    try:
        yield name
    finally:
        storage.delete(name)


def why_unreadable(uri: str, name: str) -> str:
    """Why this machine cannot read the probe file of another machine; empty if it can."""
    try:
        return "" if open_storage(uri).read(name).decode(errors="replace") == name else "something else is there"
    except FileNotFoundError:
        return "nothing is there"
    except UserError as error:
        return str(error)
