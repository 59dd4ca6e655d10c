"""The provenance of results: the git revision of this checkout and the versions of the relevant packages."""

from __future__ import annotations

import functools
import os
import subprocess
from importlib import metadata
from pathlib import Path

import semprior

REVISION_VARIABLE = "SEMPRIOR_REVISION"
"""Passes the revision to a cluster, where the code arrives without its repository."""
_PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "pyarrow", "ray", "optuna")


@functools.cache
def revision() -> str:
    """The commit of this checkout, followed by ``+`` if files are modified; empty outside of a git repository."""
    if REVISION_VARIABLE in os.environ:
        return os.environ[REVISION_VARIABLE]
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False, encoding="utf-8", errors="replace")
    except (OSError, subprocess.TimeoutExpired):  # git is not installed or does not answer
        return ""
    return done.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    """The versions of semprior and of the packages that it computes with, by name."""
    return {"semprior": semprior.__version__} | {name: metadata.version(name) for name in _PACKAGES}
