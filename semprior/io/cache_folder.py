"""The folder of what runs share: features, decoded images, seeds, clusters, costs, fetched data, compiled kernels."""

from __future__ import annotations

import functools
import logging
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from semprior.errors import UserError

VARIABLE = "SEMPRIOR_CACHE"
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The cache that all runs of a user share. It may be deleted at any time; what is missing is computed again.

    The variable ``SEMPRIOR_CACHE`` names it. Without it, it is ``semprior`` in the platform's folder for caches:
    ``XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS. If that cannot be written, it is a
    folder in the temporary directory that belongs to this user alone, and a warning says so once.

    Raises:
        UserError: the folder cannot be written.
    """
    named = os.environ.get(VARIABLE)
    if named:
        fault = _fault(Path(named))
        if fault:
            raise UserError(f"{VARIABLE}: {named}: cannot be written ({fault})")
        return Path(named)
    usual = platformdirs.user_cache_path("semprior")
    fault = _fault(usual)
    return _temporary_cache(f"{usual}: cannot be written ({fault})") if fault else usual


def _fault(folder: Path) -> str:
    """Why a folder, which is created, cannot be written; empty if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"


@functools.cache
def _temporary_cache(fault: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"semprior-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UserError(f"{fault}, nor {folder} ({error.strerror}); name a folder in {VARIABLE}") from error
    # Compiled code in this folder is run, so that nobody else may have put it there.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(f"{fault}, and {folder} does not belong to this user alone; name a folder in {VARIABLE}")
    _log.warning("%s; the cache is kept in %s (%s names another folder)", fault, folder, VARIABLE)
    return folder
