"""A Ray on this machine for one sweep: it listens on loopback only, asks for a token, and stops with its context."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semprior.errors import UserError
from semprior.io.temporary_folders import temporary_folder
from semprior.runtime.process_setup import THREADS_SHARE
from tune.launch.ray_internals import loopback_only, reload_authentication

_ATTEMPTS = 4
_OBJECT_STORE = 256 * 2**20  # bytes: trials exchange nothing large through Ray's object store
_SOCKET_PATH_LIMIT = 103  # bytes that the path of a socket may have on Linux and on macOS
_SOCKET_PATH_BELOW = len("/st-12345678/r/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.10")
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where Ray's files go if the path of the user's folder for temporary files is too long."""
_TOKEN = secrets.token_hex(32)


@contextmanager
def local_ray(cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """Start a Ray of one node, and stop it at the end of the context.

    It has no dashboard, whose processes take seconds to start; trials return their placement groups themselves
    (`tune.session.worker_group`). All servers listen on 127.0.0.1 alone, and clients need a token that this process
    draws and hands to its own processes. The token is not written anywhere, so that no home folder is needed.

    Args:
        cpus: slots for workers; None: the processors that this process may use.
        gpus: GPUs for workers; None: those that PyTorch can use.

    Raises:
        UserError: Ray does not start; the message tells the cause.
    """
    with temporary_folder("st-", _short_folder()) as private, _ray_environment(), loopback_only():
        import ray

        folder = private / "r"  # Ray makes its own folder readable for everybody
        _start(
            folder,
            address="local",
            num_cpus=cpus if cpus is not None else usable_cpus(),
            num_gpus=gpus if gpus is not None else usable_gpus(),
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            _temp_dir=str(folder),
        )
        try:
            yield
        finally:
            ray.shutdown()


def _short_folder() -> str:
    """The user's folder for temporary files, or another one where the paths of sockets are short enough.

    Raises:
        UserError: there is none.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, *SHORT_FOLDERS):
        if len(os.fsencode(folder)) + _SOCKET_PATH_BELOW <= _SOCKET_PATH_LIMIT and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise UserError(
        f"TMPDIR: {usual}: is too long for the paths of Ray's sockets, and /tmp cannot be written; name a folder of at "
        f"most {_SOCKET_PATH_LIMIT - _SOCKET_PATH_BELOW} characters"
    )


@contextmanager
def _ray_environment() -> Iterator[None]:
    """Within the context, this process has the environment that Ray and the workers that it starts are to have.

    Ray takes these settings from variables only. They are set here and nowhere else, before Ray is imported, and the
    user's own values come back at the end. Variables about other clusters, like RAY_ADDRESS and the user's token, do
    not concern this Ray.
    """
    ours: dict[str, str | None] = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # for processes that Ray starts; for this one: `loopback_only`
        "RAY_ADDRESS": None,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
    }
    defaults = THREADS_SHARE | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "120000",  # Ray's own 30 s are short on a busy machine
    }
    ours |= {name: os.environ.get(name, value) for name, value in defaults.items()}
    before = {name: os.environ.get(name) for name in ours}
    _set_variables(ours)
    reload_authentication()
    try:
        yield
    finally:
        _set_variables(before)
        reload_authentication()


def _set_variables(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _start(folder: Path, **settings: Any) -> None:  # noqa: ANN401  # as `ray.init` takes them
    """Start Ray; try again where its servers were late: Ray waits 30 s, which a busy machine may exceed."""
    import ray

    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            cause, may_pass = startup_fault(error, folder)
            if not attempts_left or not may_pass:
                raise UserError(f"Ray does not start on this machine: {cause}") from error


_CAUSES = (
    (r"AF_UNIX path length", "the path of its sockets is too long; set TMPDIR to a shorter one"),
    (
        r"No space left on device|Disk quota exceeded|\bENOSPC\b",
        "the disk is full ({line}); TMPDIR names another place",
    ),
    (r"Address already in use|Failed to bind|EADDRINUSE", "a port on 127.0.0.1 that it needs is taken"),
    (r"Cannot allocate memory|bad_alloc|Out ?Of ?Memory|\bENOMEM\b|MemoryError", "there is too little memory"),
    (r"Too many open files|\bEMFILE\b", "too many files are open; raise `ulimit -n`"),
    (r"Resource temporarily unavailable|can't start new thread", "too many processes run; raise `ulimit -u`"),
    (r"Read-only file system|Permission denied|Operation not permitted", "it may not do what it needs to ({line})"),
)
"""Patterns of lines in exceptions and logs, each with the cause in words for the user."""
_LATE = r"timed? ?out|Timeout|overloaded|not.*within|DEADLINE_EXCEEDED"


def startup_fault(error: BaseException, folder: Path) -> tuple[str, bool]:
    """Why Ray does not start, and whether another attempt may succeed.

    Args:
        error: exception of `ray.init`.
        folder: folder of Ray's session; its servers write their own faults to logs there.

    Returns:
        The cause in one line; True if the servers were late or the cause is unknown, so that trying again may help.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    messages = [" ".join(str(link).split()) or type(link).__name__ for link in chain]
    for line in (*messages, *_log_lines(folder)):
        for pattern, cause in _CAUSES:
            if re.search(pattern, line):
                return cause.format(line=line), False
    for link in chain:
        if isinstance(link, OSError) and link.errno:
            return f"{link.filename}: {link.strerror}" if link.filename else str(link.strerror), False
    if any(re.search(_LATE, message) for message in messages):
        return f"its servers did not answer in time; the machine may be overloaded ({messages[0]})", True
    return messages[0], True


def _log_lines(folder: Path) -> Iterator[str]:
    """The last lines of each log of Ray's servers, newest first."""
    for log in sorted(folder.glob("session_2*/logs/*.*")):
        if log.suffix in (".err", ".out", ".log"):
            yield from reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:])


def usable_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_gpus() -> int:
    """Number of accelerators that PyTorch can use."""
    import torch

    # device_count asks NVML, which also counts GPUs whose driver is too old for this PyTorch
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
