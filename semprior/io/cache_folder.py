"""Where what runs share is kept: features, decoded images, seeds, clusters, fetched data, compiled kernels."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "SEMPRIOR_CACHE"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder that all runs of a user share; it can be deleted at any time, and what is missing is made again.

    The variable ``SEMPRIOR_CACHE`` names it. Without it, it is the platform's place for caches: ``semprior`` under
    ``XDG_CACHE_HOME`` or ``~/.cache``, on macOS under ``~/Library/Caches``.
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    if environment.get("XDG_CACHE_HOME"):
        return Path(environment["XDG_CACHE_HOME"]) / "semprior"
    home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "semprior"
