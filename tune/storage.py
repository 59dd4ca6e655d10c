"""The storage of sweeps is semprior's own: see `semprior.storage`."""

from semprior.storage import (
    CHUNK,
    OBJECT_STORES,
    REASONS,
    TIMEOUT,
    Entry,
    Storage,
    checked_name,
    explain,
    join_uri,
    open_storage,
)

__all__ = [
    "CHUNK",
    "OBJECT_STORES",
    "REASONS",
    "TIMEOUT",
    "Entry",
    "Storage",
    "checked_name",
    "explain",
    "join_uri",
    "open_storage",
]
