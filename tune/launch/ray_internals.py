"""The private names of Ray on which this room relies. Read in Ray 2.60.

Ray has no public way to do what these functions do. `tests/tune/launch/test_ray_internals.py` fails first when a name
moves. Nothing is imported before it is needed: the AWS provider needs boto3, and commands that only read a storage do
without Ray.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.autoscaler.node_provider import NodeProvider
    from ray.job_submission import JobSubmissionClient

BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves its file on the head. A literal in `ray.autoscaler._private.commands`."""
HEAD_RESOURCE = "node:__internal_head__"
"""The resource that only the head node has: `ray._common.constants.HEAD_NODE_RESOURCE_NAME`."""
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # ray._private.runtime_env.constants
_JOB_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk")  # the second sets a level of its own
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@contextmanager
def loopback_only() -> Iterator[None]:
    """Within the context, a local Ray takes 127.0.0.1 as the address of its node, and so listens there alone.

    Ray's variable RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER has the same effect, on Linux, too, but only if it is set before
    Ray is first imported. The argument `_node_ip_address="127.0.0.1"` of `ray.init` is replaced by the outer address.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def reload_authentication() -> None:
    """Make Ray read RAY_AUTH_MODE and RAY_AUTH_TOKEN again; it keeps what it read first."""
    from ray import _raylet

    raylet: Any = _raylet  # the extension module has no types
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def in_a_job() -> bool:
    """Whether Ray's job server started this process; it sets a variable in the environment of its jobs."""
    return _JOB_VARIABLE in os.environ


def job_client(address: str, token: str | None) -> JobSubmissionClient:
    """Connect to a job server.

    Ray's client prefers the addresses in RAY_API_SERVER_ADDRESS and RAY_ADDRESS to the one that it is given, so they
    are hidden from it while it connects.
    """
    from ray.job_submission import JobSubmissionClient

    with _without_variables(_ADDRESS_VARIABLES):
        client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    for name in _JOB_LOGGERS:  # the client logs how it packs the two packages
        logging.getLogger(name).setLevel(logging.WARNING)
    return client


def server_version(client: JobSubmissionClient) -> str:
    """The version of Ray that a job server runs; its client asks for it when it connects."""
    return str(client._server_ray_version)


@contextmanager
def _without_variables(names: Collection[str]) -> Iterator[None]:
    removed = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


def cloud_head(file: Path, content: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Ask the provider of a launcher file for the cluster's head; may raise whatever that provider raises.

    Returns:
        The head's address from outside, its address within the cluster, and the path of the private SSH key.
    """
    from ray.autoscaler._private.commands import _bootstrap_config, _get_running_head_node, get_head_node_ip
    from ray.autoscaler._private.providers import _get_node_provider

    address = get_head_node_ip(str(file))
    provider = _get_node_provider(content["provider"], content["cluster_name"])
    internal = provider.internal_ip(_get_running_head_node(dict(content), str(file), None, _provider=provider))
    return address, str(internal), _bootstrap_config(dict(content))["auth"].get("ssh_private_key")


def being_set_up(cluster: str, workers: Collection[str]) -> bool:
    """Whether the launcher, on this head, copies files to one of these machines or runs set-up commands there.

    Args:
        cluster: name of a cluster of the launcher's "local" provider, which keeps its state in a JSON file.
        workers: addresses as in the launcher file.
    """
    from ray.autoscaler._private.local.config import get_state_path
    from ray.autoscaler.tags import STATUS_SETTING_UP, STATUS_SYNCING_FILES, TAG_RAY_NODE_STATUS

    try:
        state = json.loads(Path(get_state_path(cluster)).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the file does not exist yet, or is being written
        return False
    states = {state.get(worker, {}).get("tags", {}).get(TAG_RAY_NODE_STATUS) for worker in workers}
    return bool(states & {STATUS_SYNCING_FILES, STATUS_SETTING_UP})


def aws_node_provider() -> type[NodeProvider]:
    """Ray's AWS provider, of which ours is a subclass; the launcher loads providers by name. Needs boto3."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    return AWSNodeProvider
