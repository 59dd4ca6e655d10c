"""The command that a user types next, for messages."""

from __future__ import annotations

import os
import shlex

from semprior.io.storage import open_storage
from tune.launch.ray_jobs import CLUSTER_VARIABLE
from tune.spec.sweep_file import STORAGE_VARIABLE
from tune.store.sweeps import DEFAULT_STORAGE, Sweep


def command(verb: str, sweep: Sweep, *more: str, which: str = "") -> str:
    """What a user types about a sweep: ``semprior-tune resume demo``, with its storage unless that is the usual one.

    Args:
        verb: the command.
        sweep: it is about.
        more: words after it.
        which: of its trials, as in ``demo:0007``.
    """
    head, mark, query = sweep.storage.uri.partition("?")
    home = head.rpartition("/")[0] + mark + query
    usual = open_storage(os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE).uri
    place = () if home == usual else ("--storage", home)
    cluster = os.environ.get(CLUSTER_VARIABLE)
    there = ("--cluster", cluster) if cluster else ()
    return shlex.join(["semprior-tune", verb, f"{sweep.id}:{which}" if which else sweep.id, *more, *place, *there])
