"""A Ray of our own on this machine: loopback only, with its token, its resources told, stopped at the end."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semprior.allocator import THREADS_SHARE
from semprior.errors import UserError

_TRIES = 4
_OBJECTS = 256 * 2**20  # bytes of Ray's object store: trials exchange nothing large through it
_SOCKET = 103  # bytes that the path of a socket may have on Linux and on macOS
_BELOW = len("/st-12345678/r/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.10")
_TOKEN = secrets.token_hex(32)


@contextmanager
def local_ray(cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """Start a Ray of one node and stop it.

    Without a dashboard, whose processes take seconds to start: nobody asks it, as trials give their placement groups
    back themselves (`tune.group`). All servers listen on 127.0.0.1 alone, and clients need a token that this process
    draws and hands to its own; nothing of it is written anywhere, so that no home is needed.

    Args:
        cpus: slots for workers; none: the processors that this process may use.
        gpus: none: those that PyTorch can use.

    Raises:
        UserError: it does not start, for a cause that is told.
    """
    # Read when ray is first imported. Its name says otherwise, but this is what makes Ray take 127.0.0.1 for the
    # address of its node, and thus listen there alone; `_node_ip_address="127.0.0.1"` is turned into the outer address.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # Ray's own 30 s are short on a busy machine
    for name, value in THREADS_SHARE.items():  # workers inherit it
        os.environ.setdefault(name, value)
    os.environ.pop("RAY_ADDRESS", None)  # a cluster of the user's is not ours to use here
    private = tempfile.mkdtemp(prefix="st-", dir=_short_folder())
    folder = Path(private) / "r"  # Ray opens its own folder to everybody
    try:
        with _own_token():
            import ray

            _started(
                folder,
                address="local",
                num_cpus=cpus if cpus is not None else usable_cpus(),
                num_gpus=gpus if gpus is not None else usable_gpus(),
                object_store_memory=_OBJECTS,
                include_dashboard=False,
                _temp_dir=str(folder),
            )
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _short_folder() -> str:
    """The user's folder for temporary files, or another where paths of sockets are short enough.

    Raises:
        UserError: there is none.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, "/tmp", "/var/tmp", "/dev/shm"):
        if len(os.fsencode(folder)) + _BELOW <= _SOCKET and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise UserError(
        f"TMPDIR: {usual}: is too long for the paths of Ray's sockets, and /tmp cannot be written; name a folder of at "
        f"most {_SOCKET - _BELOW} characters"
    )


@contextmanager
def _own_token() -> Iterator[None]:
    """Within the context, Ray asks for this process's token, whatever the user's variables say of clusters."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    from ray._raylet import AuthenticationTokenLoader, Config

    def read_again() -> None:  # both keep what they read first
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        read_again()


def _started(folder: Path, **settings: Any) -> None:  # noqa: ANN401
    """Start Ray, which gives a node 30 s and then up; a machine that is busy may take longer than that."""
    import ray

    for left in reversed(range(_TRIES)):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            cause, late = why_not(error, folder)
            if not left or not late:
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
"""What a line of an exception or a log means, for the person who reads it."""
_LATE = r"timed? ?out|Timeout|overloaded|not.*within|DEADLINE_EXCEEDED"


def why_not(error: BaseException, folder: Path) -> tuple[str, bool]:
    """Why Ray does not start, and whether it may if it is tried again.

    Args:
        error: that `ray.init` ended with.
        folder: of Ray's session, whose servers tell their own causes in its logs.

    Returns:
        One line; true where its servers were late, or the cause is not known.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    told = [" ".join(str(link).split()) or type(link).__name__ for link in chain]
    for line in (*told, *_logged(folder)):
        for pattern, words in _CAUSES:
            if re.search(pattern, line):
                return words.format(line=line), False
    for link in chain:
        if isinstance(link, OSError) and link.errno:
            return f"{link.filename}: {link.strerror}" if link.filename else str(link.strerror), False
    if any(re.search(_LATE, line) for line in told):
        return f"its servers did not answer in time; the machine may be overloaded ({told[0]})", True
    return told[0], True


def _logged(folder: Path) -> Iterator[str]:
    """Lines of the logs of Ray's servers, the last first."""
    for log in sorted(folder.glob("session_2*/logs/*.*")):
        if log.suffix in (".err", ".out", ".log"):
            yield from reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:])


def usable_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_gpus() -> int:
    """Number of accelerators that PyTorch can use."""
    import torch

    # device_count asks NVML, which also counts those whose driver is too old for this torch
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
