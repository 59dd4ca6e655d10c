"""Numbers in sentences."""

from __future__ import annotations


def plural(count: int, noun: str, several: str = "") -> str:
    """``1 mask`` or ``2 masks``."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"
