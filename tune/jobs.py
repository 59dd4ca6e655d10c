"""Sweeps on a cluster: Ray's job server takes the same command that runs a sweep here.

A job carries the packages `semprior` and `tune` as they are on this machine, so that the cluster runs the code that
submitted it; what they import must be installed there. Data and checkpoints do not travel: the job gets addresses.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from semprior.allocator import THREADS_SHARE
from semprior.errors import UserError
from semprior.progress import say
from semprior.terminal import console
from tune.origin import REVISION_VARIABLE, revision, versions
from tune.probe import report
from tune.shared import marked
from tune.sweep import SweepSpec

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
_REACH = 10.0  # seconds that a head may take to answer
_PORT = 8265
_POLL = 0.3  # seconds between two questions about a job that is waited for
_CARRIED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")  # which server an address means; rights stay where they are
CLUSTER_VARIABLE = "SEMPRIOR_CLUSTER"
"""Names the launcher file when no ``--cluster`` is given; set while a command runs with one."""
_TALKATIVE = ("ray", "ray.dashboard.modules.dashboard_sdk")  # the second sets a level of its own
_REDIRECTING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True)
class Target:
    """A cluster's job server, and how to be let in.

    Attributes:
        address: like ``http://HEAD:8265``.
        token: that the cluster was started with; none: Ray's own places are looked at (`found_token`).
        python: the interpreter on the head.
    """

    address: str
    token: str | None = None
    python: str = "python"

    @property
    def name(self) -> str:
        """What the user calls it: its launcher file, or its address."""
        return os.environ.get(CLUSTER_VARIABLE) or self.address

    @property
    def words(self) -> str:
        """How the user named it."""
        return f"--cluster {self.name}" if os.environ.get(CLUSTER_VARIABLE) else f"--address {self.name}"


@dataclass(frozen=True)
class Job:
    """A job as its cluster sees it.

    Attributes:
        id: its submission id.
        state: ``pending``, ``running``, ``stopped``, ``succeeded`` or ``failed``.
        message: what Ray says about it, one line.
        code: its exit code; none before it has ended.
    """

    id: str
    state: str
    message: str
    code: int | None = None

    @property
    def over(self) -> bool:
        """Whether it does no more."""
        return self.state not in ("pending", "running")


class Jobs:
    """The sweeps of one cluster. Make one with `connect`."""

    def __init__(self, client: Any, target: Target) -> None:  # noqa: ANN401
        self._client, self.target = client, target

    def submit(self, sweep: str, uri: str, generation: int) -> Job:
        """Start a driver of a sweep on the head.

        Args:
            sweep: its id.
            uri: where it is stored, as the cluster's nodes reach it.
            generation: of the driver.
        """
        metadata = {"sweep": sweep, "uri": uri, "generation": str(generation)}
        return self._start(["tune.drive", uri, str(generation)], metadata)

    def probe(self, spec: SweepSpec) -> None:
        """Ask the cluster whether it can run a sweep (`tune.probe`), and pass on what it tells meanwhile.

        Raises:
            UserError: it cannot, and why; or the sweep's storage cannot be written.
        """
        shown = 0
        with marked(spec.storage) as mark:
            job = self._start(["tune.probe", spec.to_json(), json.dumps(versions()), mark], {})
            while True:
                job = self.state(job.id)
                found = report(self.logs(job.id))
                for text in found.told[shown:]:
                    say(console(), f"{self.target.name}: {text}")
                shown = len(found.told)
                if job.over:
                    break
                time.sleep(_POLL)
        if not found.done:
            raise UserError(f"{self.target.words}: cannot run jobs: {job.message or job.state}")
        if found.fault:
            raise UserError(f"{self.target.words}: {found.fault}")

    def _start(self, module: list[str], metadata: dict[str, str]) -> Job:
        import semprior
        import tune

        packages = [str(Path(package.__file__).parent) for package in (semprior, tune) if package.__file__]
        carried = THREADS_SHARE | {REVISION_VARIABLE: revision()}
        carried |= {name: os.environ[name] for name in _CARRIED if name in os.environ}
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)  # its packing of the two folders is nobody's news
        with _told(self.target):
            job = self._client.submit_job(
                entrypoint=shlex.join([self.target.python, "-m", *module]),
                runtime_env={"py_modules": packages, "excludes": ["__pycache__", "*.pyc"], "env_vars": carried},
                metadata=metadata,
            )
        return self.state(job)

    def state(self, job: str) -> Job:
        """How a job is doing."""
        with _told(self.target):
            return _job(self._client.get_job_info(job))

    def find(self, uri: str) -> Job | None:
        """The newest job of a sweep; none if this cluster has seen none."""
        with _told(self.target):
            listed = self._client.list_jobs()
        ours = [job for job in listed if (job.metadata or {}).get("uri") == uri and job.submission_id]
        return _job(max(ours, key=lambda job: int((job.metadata or {})["generation"]))) if ours else None

    def logs(self, job: str) -> str:
        """What a job's driver wrote."""
        with _told(self.target):
            return self._client.get_job_logs(job)

    def stop(self, job: str) -> None:
        """End a job's processes."""
        with _told(self.target):
            self._client.stop_job(job)


def connect(target: Target) -> Jobs:
    """Reach a cluster.

    Raises:
        UserError: nobody answers, the token is refused, or the cluster's Ray is another version.
    """
    address = target.address if "://" in target.address else f"http://{target.address}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{target.words}: must look like http://HEAD:{_PORT}")
    port = parts.port or (443 if parts.scheme == "https" else _PORT)
    try:
        socket.create_connection((parts.hostname, port), timeout=_REACH).close()
    except OSError as error:
        raise UserError(
            f"{target.words}: nobody answers at {parts.hostname}:{port} ({error.strerror or error});"
            " is the cluster up, and its dashboard reachable from here?"
        ) from error
    from ray.job_submission import JobSubmissionClient

    token = target.token or found_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with _told(target), _undirected():
        client = JobSubmissionClient(f"{parts.scheme}://{parts.hostname}:{port}{parts.path}", headers=headers)
    _same_version(client, target)
    return Jobs(client, target)


def found_token() -> str | None:
    """The token where Ray looks for it: ``RAY_AUTH_TOKEN``, the file ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``."""
    if token := os.environ.get(TOKEN_VARIABLE):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token"))
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _same_version(client: Any, target: Target) -> None:  # noqa: ANN401
    import ray

    there = client._server_ray_version  # asked for by the client itself when it connects
    if there != ray.__version__:
        raise UserError(
            f"{target.words}: the cluster runs Ray {there}, this machine {ray.__version__};"
            f" install the same: pip install 'ray=={there}'"
        )


@contextmanager
def _told(target: Target) -> Iterator[None]:
    """Faults between us and the cluster, as one line each."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(
            f"{target.words}: the cluster refuses this machine's token; give the cluster's own with"
            " RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (on its head: ~/.ray/auth_token)"
        ) from error
    except (ConnectionError, requests.RequestException, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"{target.words}: {first or type(error).__name__}") from error


@contextmanager
def _undirected() -> Iterator[None]:
    """Without the variables that make Ray's client go elsewhere than it is told to."""
    kept = {name: os.environ.pop(name) for name in _REDIRECTING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _job(details: Any) -> Job:  # noqa: ANN401
    message = " ".join((details.message or "").split())
    return Job(
        details.submission_id,
        str(getattr(details.status, "value", details.status)).lower(),
        message,
        details.driver_exit_code,
    )
