"""The private names of Ray that `tune.launch` relies on: this fails first when a new version moves one."""

import ast
import inspect
import os
from pathlib import Path

import pytest
import ray
from ray.autoscaler.node_provider import NodeProvider
from ray.job_submission import JobSubmissionClient

from tests.repository import ROOT
from tune.launch import ray_internals
from tune.launch.local_ray import local_ray

REASON = f"Ray {ray.__version__} moved a private name; read tune/launch/ray_internals.py and adapt it"
ROOM = ROOT / "tune" / "launch"


def test_ray_is_the_version_whose_private_names_were_read():
    assert ray.__version__.startswith("2.60."), REASON


def test_constants_are_rays():
    from ray._common.constants import HEAD_NODE_RESOURCE_NAME
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
    from ray.autoscaler._private import commands
    from ray.dashboard.modules import dashboard_sdk

    assert ray_internals.HEAD_RESOURCE == HEAD_NODE_RESOURCE_NAME, REASON
    assert ray_internals._JOB_VARIABLE == RAY_JOB_CONFIG_JSON_ENV_VAR, REASON
    assert f'"{ray_internals.BOOTSTRAP_CONFIG}": remote_config_file' in inspect.getsource(commands), REASON
    assert dashboard_sdk.logger.name in ray_internals._JOB_LOGGERS, REASON
    assert 'kwargs.pop("_temp_dir"' in inspect.getsource(ray.init), REASON


def test_functions_of_the_launcher_take_what_they_are_given():
    from ray.autoscaler._private.commands import _bootstrap_config, _get_running_head_node, get_head_node_ip
    from ray.autoscaler._private.local.config import get_state_path
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import STATUS_SETTING_UP, STATUS_SYNCING_FILES, TAG_RAY_NODE_STATUS

    inspect.signature(get_head_node_ip).bind("file")
    inspect.signature(_get_node_provider).bind({}, "name")
    inspect.signature(_get_running_head_node).bind({}, "file", None, _provider=None)
    inspect.signature(_bootstrap_config).bind({})
    assert get_state_path("name").endswith("cluster-name.state"), REASON
    assert (TAG_RAY_NODE_STATUS, STATUS_SYNCING_FILES, STATUS_SETTING_UP) == (
        "ray-node-status",
        "syncing-files",
        "setting-up",
    ), REASON


def test_the_provider_of_aws_has_what_ours_replaces():
    provider = ray_internals.aws_node_provider()
    assert issubclass(provider, NodeProvider)
    inspect.signature(provider.bootstrap_config).bind({})
    inspect.signature(provider.fillout_available_node_types_resources).bind({})


class Server:
    """A job server's answer to the first request of a client, which asks for the version."""

    status_code = 200

    def raise_for_status(self):
        pass

    def json(self):
        return {"ray_version": "2.60.0", "version": "4"}


def test_a_job_client_goes_where_it_is_sent_and_knows_the_servers_version(monkeypatch):
    requests = []

    def answer(self, method, path, **_):
        requests.append((self._address, dict(self._headers)))
        return Server()

    for name in ray_internals._ADDRESS_VARIABLES:
        monkeypatch.setenv(name, "http://elsewhere:1")
    monkeypatch.setattr(JobSubmissionClient, "_do_request", answer)
    client = ray_internals.job_client("http://127.0.0.1:8265", "secret")
    assert requests[0] == ("http://127.0.0.1:8265", {"Authorization": "Bearer secret"}), REASON
    assert ray_internals.server_version(client) == "2.60.0", REASON
    assert all(os.environ[name] == "http://elsewhere:1" for name in ray_internals._ADDRESS_VARIABLES)


def test_authentication_is_read_again():
    from ray._raylet import AuthenticationMode, get_authentication_mode

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        ray_internals.reload_authentication()
        assert get_authentication_mode() == AuthenticationMode.TOKEN, REASON
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray_internals.reload_authentication()
        assert get_authentication_mode() == AuthenticationMode.DISABLED, REASON
    ray_internals.reload_authentication()


def private_names(path: Path) -> set[str]:
    """Modules of Ray with a private part, and names with an underscore, that a module imports from Ray."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ray":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "ray"}
    return {name for name in found if any(part.startswith("_") for part in name.split("."))}


def test_no_other_module_of_the_room_uses_private_names():
    users = {path.name: names for path in ROOM.glob("*.py") if (names := private_names(path))}
    assert set(users) == {"ray_internals.py"}


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_although_ray_was_imported_before(monkeypatch):
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    with local_ray(cpus=1, gpus=0):
        (node,) = ray.nodes()
        assert node["NodeManagerAddress"] == "127.0.0.1", REASON
