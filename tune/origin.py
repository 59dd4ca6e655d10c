"""Which code makes a result: the git revision of this checkout and the versions of the packages that matter."""

from __future__ import annotations

import functools
import os
import subprocess
from importlib import metadata
from pathlib import Path

import semprior

REVISION_VARIABLE = "SEMPRIOR_REVISION"
"""Carries the revision to a cluster, where the packages arrive without their repository."""
_PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "pyarrow", "ray", "optuna")


@functools.cache
def revision() -> str:
    """The commit that this code was checked out at, with ``+`` where files differ from it; empty outside git."""
    if REVISION_VARIABLE in os.environ:
        return os.environ[REVISION_VARIABLE]
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False, encoding="utf-8", errors="replace")
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return ""
    return done.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    """Of semprior and of what it computes with."""
    return {"semprior": semprior.__version__} | {name: metadata.version(name) for name in _PACKAGES}
