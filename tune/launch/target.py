"""Where a command finds its sweeps and where it runs them: on this machine or on a cluster.

The command line reads options and environment into a `Target` once and hands it on. Example::

    target = read_target(os.environ, storage=None, cluster=Path("cluster.yaml"), address=None)
    sweep = target.sweep("demo")
    with target.reached() as target:  # through an SSH tunnel
        jobs = target.connect()
    print(target.command("resume", sweep))  # semprior-tune resume demo --cluster cluster.yaml
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from semprior.config.schema import ENVIRONMENT_PREFIX
from semprior.errors import UserError
from semprior.io.storage import Storage, open_storage
from tune.launch.cluster_file import find_head, read_cluster, tunnel
from tune.launch.ray_jobs import Jobs, JobServer, connect
from tune.spec.sweep_file import STORAGE_VARIABLE
from tune.store.sweeps import DEFAULT_STORAGE, Sweep, find_sweep

_JOB_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
"""Which server an address means. Credentials do not travel: the cluster has its own."""


@dataclass(frozen=True)
class Target:
    """Where the sweeps of a command are stored, and where they run.

    Attributes:
        storage_option: address of the sweeps that ``--storage`` gives; None: `usual_storage`.
        usual_storage: address of the sweeps without ``--storage``.
        cluster: launcher file of the cluster; None: this machine, or the job server at `address`.
        address: address of a job server; None: this machine, unless there is a `cluster`.
        token: token of the cluster; None: the content of `token_file`, if that file exists.
        token_file: file with the token.
        sweep_variables: environment variables that change a sweep file (`tune.spec.sweep_file.load_sweep`).
        job_variables: environment variables that jobs get.
    """

    storage_option: str | None = None
    usual_storage: str = DEFAULT_STORAGE
    cluster: Path | None = None
    address: str | None = None
    token: str | None = None
    token_file: Path | None = None
    sweep_variables: Mapping[str, str] = field(default_factory=dict)
    job_variables: Mapping[str, str] = field(default_factory=dict)

    def storage(self) -> Storage:
        """The storage of the sweeps."""
        return open_storage(self.storage_option or self.usual_storage)

    def sweep(self, name: str) -> Sweep:
        """Open a sweep by its id.

        Raises:
            UserError: the storage has no such sweep.
        """
        return find_sweep(self.storage(), name)

    @contextmanager
    def reached(self) -> Iterator[Target]:
        """Open an SSH tunnel to the job server of the cluster; without a launcher file there is nothing to open.

        Yields:
            The target with the address and the token of the job server.

        Raises:
            UserError: a launcher file and an address are given, or the head does not answer or has no token.
        """
        if self.cluster is None:
            yield self
            return
        if self.address is not None:
            raise UserError("--cluster and --address: give one of them")
        with tunnel(find_head(self.cluster)) as (port, token):
            yield replace(self, address=f"http://127.0.0.1:{port}", token=token)

    def connect(self) -> Jobs | None:
        """Connect to the job server; None: sweeps run on this machine.

        Raises:
            UserError: the job server does not answer, refuses the token or runs another version of Ray.
        """
        if self.address is None:
            return None
        token = self.token
        if token is None and self.token_file is not None and self.token_file.is_file():
            token = self.token_file.read_text(encoding="utf-8").strip()
        return connect(JobServer(self.address, self.cluster, token, self.job_variables))

    def command(self, verb: str, sweep: Sweep, *words: str, trial: str = "") -> str:
        """The command that a user types next, like ``semprior-tune resume demo``, for messages.

        It names the storage unless that is the usual one.

        Args:
            verb: subcommand.
            sweep: the sweep that the command is about.
            words: further words.
            trial: id of a trial, as in ``demo:0007``.
        """
        path, mark, query = sweep.storage.uri.partition("?")
        storage = path.rpartition("/")[0] + mark + query
        words += () if storage == open_storage(self.usual_storage).uri else ("--storage", storage)
        words += ("--cluster", str(self.cluster)) if self.cluster else ()
        return shlex.join(["semprior-tune", verb, f"{sweep.id}:{trial}" if trial else sweep.id, *words])


def read_target(
    environment: Mapping[str, str], storage: str | None = None, cluster: Path | None = None, address: str | None = None
) -> Target:
    """Read a target from the options of a command and the environment.

    The storage is that of ``--storage``, else ``provider.storage`` of the launcher file, else SEMPRIOR_STORAGE, else
    ``./runs``. Ray's own variables and file give the token.

    Args:
        environment: environment variables.
        storage: value of ``--storage``.
        cluster: value of ``--cluster``.
        address: value of ``--address``.

    Raises:
        UserError: the launcher file cannot be read.
    """
    sweep_variables = {name: value for name, value in environment.items() if name.startswith(ENVIRONMENT_PREFIX)}
    usual = (read_cluster(cluster)["provider"].get("storage") if cluster else None) or environment.get(STORAGE_VARIABLE)
    if usual:
        sweep_variables[STORAGE_VARIABLE] = str(usual)
    return Target(
        storage_option=storage,
        usual_storage=str(usual or DEFAULT_STORAGE),
        cluster=cluster,
        address=address,
        token=environment.get("RAY_AUTH_TOKEN", "").strip() or None,
        token_file=Path(environment.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")),
        sweep_variables=sweep_variables,
        job_variables={name: environment[name] for name in _JOB_VARIABLES if name in environment},
    )
