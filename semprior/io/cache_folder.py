"""The folder of what runs share: features, decoded images, seeds, clusters, fetched data, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

VARIABLE = "SEMPRIOR_CACHE"


def cache_folder() -> Path:
    """The cache that all runs of a user share. It may be deleted at any time; what is missing is computed again.

    The variable ``SEMPRIOR_CACHE`` names it. Without it, it is ``semprior`` in the platform's folder for caches:
    ``XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS.
    """
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("semprior")
