"""Where what runs share is kept: features, decoded images, seeds, clusters, fetched data, compiled kernels."""

from __future__ import annotations

import functools
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from semprior.errors import UserError

VARIABLE = "SEMPRIOR_CACHE"
_log = logging.getLogger(__name__)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder that all runs of a user share; it can be deleted at any time, and what is missing is made again.

    The variable ``SEMPRIOR_CACHE`` names it. Without it, it is the platform's place for caches: ``semprior`` under
    ``XDG_CACHE_HOME`` or ``~/.cache``, on macOS under ``~/Library/Caches``. Where that cannot be written, or there is
    no home, it is a folder of the user's among the temporary files, which is said once.

    Raises:
        UserError: the folder cannot be written.
    """
    if environment.get(VARIABLE):
        folder = Path(environment[VARIABLE])
        fault = _fault(folder)
        if fault:
            raise UserError(f"{VARIABLE}: {folder}: cannot be written ({fault})")
        return folder
    usual = _usual(environment)
    if usual is None:
        return _among_temporary_files("there is no home")
    fault = _fault(usual)
    return _among_temporary_files(f"{usual}: cannot be written ({fault})") if fault else usual


def _usual(environment: Mapping[str, str]) -> Path | None:
    """The platform's place; None where the user has no home."""
    if environment.get("XDG_CACHE_HOME"):
        return Path(environment["XDG_CACHE_HOME"]) / "semprior"
    try:
        home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    except RuntimeError:  # neither a variable nor the table of users knows one
        return None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "semprior"


def _fault(folder: Path) -> str:
    """Why a folder, which is made, cannot be written; empty if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"


@functools.cache
def _among_temporary_files(fault: str) -> Path:
    folder = Path(tempfile.gettempdir()) / f"semprior-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UserError(f"{fault}, nor {folder} ({error.strerror}); name a folder in {VARIABLE}") from error
    # What is compiled there is run, so that nobody else may have put it there.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(f"{fault}, and {folder} is not this user's alone; name a folder in {VARIABLE}")
    _log.warning("%s; what runs share is kept in %s (%s names another folder)", fault, folder, VARIABLE)
    return folder
