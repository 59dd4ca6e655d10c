"""Sweeps on a cluster: Ray's job server runs the same driver that runs a sweep on this machine.

A job carries the packages `semprior` and `tune` as they are on this machine, so that the cluster runs the code that
submitted it; their dependencies must be installed there. Data and checkpoints do not travel: the job gets addresses.
"""

from __future__ import annotations

import json
import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from semprior.errors import UserError
from semprior.reporting.terminal import console, say
from semprior.runtime.process_setup import THREADS_SHARE
from tune.launch.preflight import read_report
from tune.launch.ray_internals import job_client, server_version
from tune.launch.shared_storage import probe_file
from tune.spec.sweep_file import SweepSpec
from tune.store.provenance import REVISION_VARIABLE, revision, versions

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_CONNECT_TIMEOUT = 10.0  # seconds that a head may take to answer
_PORT = 8265
_POLL = 0.3  # seconds between two questions about the state of a pre-flight job


@dataclass(frozen=True)
class JobServer:
    """A cluster's job server, and how it is reached.

    Attributes:
        address: address like ``http://HEAD:8265``.
        cluster: launcher file that the server was found by; None: the user gave the address.
        token: token of the cluster; None: it needs none.
        variables: environment variables of the jobs.
    """

    address: str
    cluster: Path | None = None
    token: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the user calls the cluster: its launcher file or its address."""
        return str(self.cluster or self.address)

    @property
    def option(self) -> str:
        """The option of the command line that names the cluster."""
        return f"--cluster {self.cluster}" if self.cluster else f"--address {self.address}"


@dataclass(frozen=True)
class Job:
    """A job on a cluster.

    Attributes:
        id: submission id.
        state: ``pending``, ``running``, ``stopped``, ``succeeded`` or ``failed``.
        message: Ray's message about the state, in one line.
        code: exit code; None before the job has ended.
    """

    id: str
    state: str
    message: str
    code: int | None = None

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state not in ("pending", "running")


class Jobs:
    """The jobs of one cluster, made by `connect`."""

    def __init__(self, client: JobSubmissionClient, server: JobServer) -> None:
        self._client, self.server = client, server

    def submit(self, sweep: str, uri: str, generation: int) -> Job:
        """Start a driver of a sweep on the head.

        Args:
            sweep: id of the sweep.
            uri: address of the sweep, as the cluster's nodes reach it.
            generation: generation of the driver.
        """
        metadata = {"sweep": sweep, "uri": uri, "generation": str(generation)}
        return self._start(["tune.session.driver_process", uri, str(generation)], metadata)

    def check(self, spec: SweepSpec) -> None:
        """Run `tune.launch.preflight` on the cluster and show its messages as they come.

        Raises:
            UserError: the cluster cannot run the sweep, or the sweep's storage cannot be written.
        """
        shown = 0
        with probe_file(spec.storage) as name:
            job = self._start(["tune.launch.preflight", spec.to_json(), json.dumps(versions()), name], {})
            while True:
                job = self.state(job.id)
                report = read_report(self.logs(job.id))
                for message in report.messages[shown:]:
                    say(console(), f"{self.server.name}: {message}")
                shown = len(report.messages)
                if job.over:
                    break
                time.sleep(_POLL)
        if not report.done:
            raise UserError(f"{self.server.option}: cannot run jobs: {job.message or job.state}")
        if report.fault:
            raise UserError(f"{self.server.option}: {report.fault}")

    def _start(self, module: list[str], metadata: dict[str, str]) -> Job:
        import semprior
        import tune

        packages = [str(Path(package.__file__).parent) for package in (semprior, tune) if package.__file__]
        variables = THREADS_SHARE | {REVISION_VARIABLE: revision()} | dict(self.server.variables)
        with _faults_in_one_line(self.server):
            job = self._client.submit_job(
                entrypoint=shlex.join(["python", "-m", *module]),
                runtime_env={"py_modules": packages, "excludes": ["__pycache__", "*.pyc"], "env_vars": variables},
                metadata=metadata,
            )
        return self.state(job)

    def state(self, job: str) -> Job:
        """A job as it stands, by its id."""
        with _faults_in_one_line(self.server):
            return _job(self._client.get_job_info(job))

    def find(self, uri: str) -> Job | None:
        """The newest job of the sweep at an address; None if this cluster has none."""
        with _faults_in_one_line(self.server):
            jobs = self._client.list_jobs()
        ours = [job for job in jobs if (job.metadata or {}).get("uri") == uri and job.submission_id]
        return _job(max(ours, key=lambda job: int((job.metadata or {})["generation"]))) if ours else None

    def logs(self, job: str) -> str:
        """The output of a job's driver."""
        with _faults_in_one_line(self.server):
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> None:
        """End a job's processes."""
        with _faults_in_one_line(self.server):
            self._client.stop_job(job)


def connect(server: JobServer) -> Jobs:
    """Connect to a cluster.

    Raises:
        UserError: the server does not answer, refuses the token, or runs another version of Ray.
    """
    address = server.address if "://" in server.address else f"http://{server.address}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{server.option}: must look like http://HEAD:{_PORT}")
    port = parts.port or (443 if parts.scheme == "https" else _PORT)
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT).close()
    except OSError as error:
        raise UserError(
            f"{server.option}: nobody answers at {parts.hostname}:{port} ({error.strerror or error});"
            " is the cluster up, and its dashboard reachable from here?"
        ) from error
    with _faults_in_one_line(server):
        client = job_client(f"{parts.scheme}://{parts.hostname}:{port}{parts.path}", server.token)
    _require_same_version(client, server)
    return Jobs(client, server)


def _require_same_version(client: JobSubmissionClient, server: JobServer) -> None:
    import ray

    there = server_version(client)
    if there != ray.__version__:
        raise UserError(
            f"{server.option}: the cluster runs Ray {there}, this machine {ray.__version__};"
            f" install the same: pip install 'ray=={there}'"
        )


@contextmanager
def _faults_in_one_line(server: JobServer) -> Iterator[None]:
    """Within the context, a fault between this machine and the cluster becomes a `UserError`."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(
            f"{server.option}: the cluster refuses this machine's token; give the cluster's own with"
            " RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (on its head: ~/.ray/auth_token)"
        ) from error
    except (ConnectionError, requests.RequestException, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"{server.option}: {first or type(error).__name__}") from error


def _job(details: JobDetails) -> Job:
    message = " ".join((details.message or "").split())
    state = str(getattr(details.status, "value", details.status)).lower()
    return Job(details.submission_id or "", state, message, details.driver_exit_code)
