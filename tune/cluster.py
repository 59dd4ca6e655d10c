"""Finds a cluster by its launcher file: the head, its dashboard and its token, and where its sweeps are kept.

``--cluster cluster.yaml`` takes the place of ``--address`` and ``--storage``. The dashboard of a cluster listens on its
head alone, and only the head knows its token; whoever may start the cluster may open its head with SSH. So one SSH
connection brings both: the token as its output, and a way from a port of this machine to the dashboard.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import selectors
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semprior.errors import UserError
from tune.jobs import CLUSTER_VARIABLE, TOKEN_VARIABLE
from tune.sweep import STORAGE_VARIABLE

_CONNECT = 10  # seconds for SSH to connect
_ANSWER = 30.0  # seconds for the head to tell its token
_TOKEN = "cat ~/.ray/auth_token 2>/dev/null; echo; exec cat >/dev/null"  # ends when this side goes away
_OPTION = re.compile(r"--dashboard-(host|port)[= ](\S+)")


@dataclass(frozen=True)
class Head:
    """How the head of a cluster is reached.

    Attributes:
        file: the launcher file.
        user: on the head.
        address: of the head, for SSH.
        key: private key; none: those that SSH takes by itself.
        proxy: command of SSH that leads there, if any.
        dashboard: host and port, as seen from the head.
    """

    file: Path
    user: str
    address: str
    key: str | None
    proxy: str | None
    dashboard: tuple[str, int]


def read_cluster(file: Path) -> dict[str, Any]:
    """The content of a launcher file.

    Raises:
        UserError: there is none, or it is no such file.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--cluster {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--cluster {file}: is no YAML") from error
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise UserError(f"--cluster {file}: expected a file for `ray up`, with a `provider:`")
    return content


@contextmanager
def storage_of_cluster(file: Path | None) -> Iterator[None]:
    """Let a command find the sweeps of a cluster: ``provider.storage`` of its file becomes the usual storage."""
    if file is None:
        yield
        return
    storage = read_cluster(file)["provider"].get("storage")
    with _environment({CLUSTER_VARIABLE: str(file)} | ({STORAGE_VARIABLE: str(storage)} if storage else {})):
        yield


@contextmanager
def reached(file: Path | None, address: str | None) -> Iterator[str | None]:
    """Let a command reach the jobs and the sweeps of a cluster.

    Args:
        file: launcher file; none: the command goes by `address`.
        address: of a job server.

    Yields:
        The address of the job server.

    Raises:
        UserError: both are given; the head does not answer, or has no token.
    """
    if file is None:
        yield address
        return
    if address is not None:
        raise UserError("--cluster and --address: give one of them")
    with storage_of_cluster(file), _tunnel(find_head(file)) as (port, token), _environment({TOKEN_VARIABLE: token}):
        yield f"http://127.0.0.1:{port}"


def find_head(file: Path) -> Head:
    """The head of a cluster.

    Raises:
        UserError: the cluster is not up, or its provider does not answer.
    """
    content = read_cluster(file)
    provider, auth = content["provider"], content.get("auth") or {}
    if provider.get("type") == "local":
        own, key = provider.get("head_ip"), auth.get("ssh_private_key")
        if not own:
            raise UserError(f"--cluster {file}: provider.head_ip: is missing")
        address = provider.get("external_head_ip") or own
    else:
        address, own, key = _ask_provider(file, content)
    key = str(Path(key).expanduser()) if key else None
    dashboard = _dashboard(content, str(own))
    return Head(file, auth.get("ssh_user") or "root", str(address), key, auth.get("ssh_proxy_command"), dashboard)


def _ask_provider(file: Path, content: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """From the cloud, by Ray's own code, whose chatter is kept from the user.

    Returns:
        the head's address for whoever is outside, its address among the nodes, and the private key.
    """
    from ray.autoscaler._private.commands import _bootstrap_config, _get_running_head_node, get_head_node_ip
    from ray.autoscaler._private.providers import _get_node_provider

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            address = get_head_node_ip(str(file))
            provider = _get_node_provider(content["provider"], content["cluster_name"])
            own = provider.internal_ip(_get_running_head_node(dict(content), str(file), None, _provider=provider))
            config = _bootstrap_config(dict(content))
    except Exception as error:  # credentials, network, rights, a cluster that is down: each provider has its own
        raise UserError(f"--cluster {file}: its head is not to be found ({_reason(file, error)})") from error
    return address, own, config["auth"].get("ssh_private_key")


def _reason(file: Path, error: BaseException) -> str:
    """Why a provider gave no head; Ray's launcher tells its terminal and raises nothing but that it gives up."""
    from click import ClickException

    while isinstance(error, ClickException) and (before := error.__cause__ or error.__context__):
        error = before
    if type(error).__module__.startswith("botocore."):
        from tune.aws_faults import aws_fault

        return aws_fault(error)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text}; `ray up {file}` first" if "Head node of cluster" in text else text


def _dashboard(content: Mapping[str, Any], own: str) -> tuple[str, int]:
    """Where the dashboard listens, by the start command of the head; ``$NODE_ADDRESS`` is the head's own address."""
    given = {"host": "127.0.0.1", "port": "8265"}
    for command in content.get("head_start_ray_commands") or ():
        given |= dict(_OPTION.findall(str(command)))
    host = own if given["host"].startswith("$") else given["host"]
    return ("127.0.0.1" if host == "0.0.0.0" else host), int(given["port"])


@contextmanager
def _tunnel(head: Head) -> Iterator[tuple[int, str]]:
    """A port of this machine that leads to the head's dashboard, and the head's token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host, remote = head.dashboard
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": os.devnull,
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ConnectTimeout": str(_CONNECT),
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    } | ({"ProxyCommand": head.proxy} if head.proxy else {})
    # An agent with many keys would be refused before it comes to the one that fits.
    command = ["ssh", "-T", *(["-i", head.key, "-o", "IdentitiesOnly=yes"] if head.key else [])]
    command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command += ["-L", f"127.0.0.1:{port}:{host}:{remote}", f"{head.user}@{head.address}", _TOKEN]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except FileNotFoundError as error:
        raise UserError("--cluster: needs the program `ssh`") from error
    try:
        token = _first_line(process, head)
        if not token:
            raise UserError(f"--cluster {head.file}: no token on its head {head.address}; `ray up {head.file}` first")
        yield port, token
    finally:
        process.kill()
        process.communicate()


def _first_line(process: subprocess.Popen[bytes], head: Head) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(_ANSWER) else b""
    if line:
        return line.decode().strip()
    process.kill()
    said = process.stderr.read().decode(errors="replace").strip().splitlines()
    reason = said[-1] if said else f"no answer in {_ANSWER:.0f} s"
    raise UserError(f"--cluster {head.file}: its head {head.user}@{head.address} cannot be reached by SSH ({reason})")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
