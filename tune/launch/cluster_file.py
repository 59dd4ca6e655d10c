"""Finds the head of a cluster by its launcher file, and its dashboard and token by SSH.

The dashboard of a cluster listens on its head alone, and only the head knows its token. Users who may start the cluster
may open its head with SSH, so one SSH connection brings both: the token as its output, and a tunnel from a port of this
machine to the dashboard.
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

from semprior.errors import UserError
from semprior.reading.yaml_text import read_yaml
from tune.launch.ray_internals import cloud_head

_CONNECT_TIMEOUT = 10  # seconds for SSH to connect
_TOKEN_TIMEOUT = 30.0  # seconds for the head to print its token
_PRINT_TOKEN = "cat ~/.ray/auth_token 2>/dev/null; echo; exec cat >/dev/null"  # ends when this side disconnects
_DASHBOARD_OPTION = re.compile(r"--dashboard-(host|port)[= ](\S+)")


@dataclass(frozen=True)
class Head:
    """How the head of a cluster is reached.

    Attributes:
        file: launcher file.
        user: user on the head.
        address: address of the head, for SSH.
        key: path of the private key; None: SSH chooses among its own.
        proxy: SSH's proxy command, if any.
        dashboard: host and port of the dashboard, as seen from the head.
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
        UserError: the file cannot be read, or is not a launcher file.
    """
    try:
        content = read_yaml(file).content
    except UserError as error:
        raise UserError(f"--cluster {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise UserError(f"--cluster {file}: expected a file for `ray up`, with a `provider:`")
    return content


def find_head(file: Path) -> Head:
    """The head of the cluster of a launcher file.

    Raises:
        UserError: the cluster is not up, or its provider does not answer.
    """
    content = read_cluster(file)
    provider, auth = content["provider"], content.get("auth") or {}
    if provider.get("type") == "local":
        internal, key = provider.get("head_ip"), auth.get("ssh_private_key")
        if not internal:
            raise UserError(f"--cluster {file}: provider.head_ip: is missing")
        address = provider.get("external_head_ip") or internal
    else:
        address, internal, key = _ask_provider(file, content)
    key = str(Path(key).expanduser()) if key else None
    dashboard = _dashboard(content, str(internal))
    return Head(file, auth.get("ssh_user") or "root", str(address), key, auth.get("ssh_proxy_command"), dashboard)


def _ask_provider(file: Path, content: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """What `cloud_head` returns; Ray's progress messages are not shown to the user."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return cloud_head(file, content)
    except Exception as error:  # credentials, network, rights, a cluster that is down: each provider raises its own
        raise UserError(f"--cluster {file}: its head cannot be found ({_reason(file, error)})") from error


def _reason(file: Path, error: BaseException) -> str:
    """Why a provider found no head. Ray's launcher prints the cause and raises only that it gives up."""
    from click import ClickException

    while isinstance(error, ClickException) and (cause := error.__cause__ or error.__context__):
        error = cause
    if type(error).__module__.startswith("botocore."):
        from tune.launch.aws_provider import aws_fault

        return aws_fault(error)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text}; `ray up {file}` first" if "Head node of cluster" in text else text


def _dashboard(content: Mapping[str, Any], internal: str) -> tuple[str, int]:
    """Where the start command of the head puts the dashboard; ``$NODE_ADDRESS`` is the head's internal address."""
    options = {"host": "127.0.0.1", "port": "8265"}
    for command in content.get("head_start_ray_commands") or ():
        options |= dict(_DASHBOARD_OPTION.findall(str(command)))
    host = internal if options["host"].startswith("$") else options["host"]
    return ("127.0.0.1" if host == "0.0.0.0" else host), int(options["port"])


@contextmanager
def tunnel(head: Head) -> Iterator[tuple[int, str]]:
    """Open an SSH connection to a head.

    Yields:
        A port of this machine that leads to the head's dashboard, and the head's token.

    Raises:
        UserError: the head cannot be reached, or has no token.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    host, remote_port = head.dashboard
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": os.devnull,
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ConnectTimeout": str(_CONNECT_TIMEOUT),
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    } | ({"ProxyCommand": head.proxy} if head.proxy else {})
    # The head would refuse an agent with many keys before the one that fits is tried.
    command = ["ssh", "-T", *(["-i", head.key, "-o", "IdentitiesOnly=yes"] if head.key else [])]
    command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command += ["-L", f"127.0.0.1:{port}:{host}:{remote_port}", f"{head.user}@{head.address}", _PRINT_TOKEN]
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
        line = process.stdout.readline() if selector.select(_TOKEN_TIMEOUT) else b""
    if line:
        return line.decode().strip()
    process.kill()
    output = process.stderr.read().decode(errors="replace").strip().splitlines()
    reason = output[-1] if output else f"no answer in {_TOKEN_TIMEOUT:.0f} s"
    raise UserError(f"--cluster {head.file}: its head {head.user}@{head.address} cannot be reached by SSH ({reason})")
