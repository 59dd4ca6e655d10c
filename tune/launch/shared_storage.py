"""Whether machines share a storage: what one of them writes there, the others must read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from semprior.errors import UserError
from semprior.io.storage import open_storage


@contextmanager
def marked(uri: str) -> Iterator[str]:
    """A new file in a storage, for as long as the block lasts.

    Yields:
        Its name, which no other file had before; it is its content, too.

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


def unseen(uri: str, name: str) -> str:
    """Why this machine does not see a mark that another one made; empty where it does."""
    try:
        return "" if open_storage(uri).read(name).decode(errors="replace") == name else "something else is there"
    except FileNotFoundError:
        return "nothing is there"
    except UserError as error:
        return str(error)
