"""cluster.yaml and deploy/onprem.yaml: what Ray and AWS (mocked) make of them."""

import copy
import importlib.metadata
import json
import re
import tempfile
import tomllib
from pathlib import Path

import boto3
import pytest
import yaml
from botocore import exceptions
from botocore.exceptions import ClientError
from click import ClickException
from moto import mock_aws
from packaging.requirements import Requirement
from ray.autoscaler._private import commands, providers
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws import node_provider as aws_nodes
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_STATUS,
)

from semprior.errors import UserError
from tests.repository import ROOT
from tune.launch import aws_provider as aws
from tune.launch.cluster_file import find_head

look_up_image = aws.find_image
FILES = {"aws": ROOT / "cluster.yaml", "onprem": ROOT / "deploy" / "onprem.yaml"}
OWN = {  # what only one of the files has, or each has for itself
    *("cluster_name", "provider", "auth", "max_workers", "idle_timeout_minutes", "upscaling_speed"),
    *("head_node_type", "available_node_types"),
}


def read(name):
    return yaml.safe_load(FILES[name].read_text())


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A mocked AWS, the user's file with a bucket filled in, and what two launches in a row make of it."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(key, "testing")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)  # a user's own S3 server
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes the key pair to ~/.ssh
        patch.setattr(aws, "_PROPAGATION_S", 0.0)
        patch.setattr(aws, "find_image", lambda parameter, region: "ami-12c6146b")  # one that moto knows
        places = (aws_utils, aws_nodes, aws_config)
        caches = {made for place in places for made in vars(place).values() if hasattr(made, "cache_clear")}
        for cached in caches:
            cached.cache_clear()
        config = read("aws")
        config["provider"]["storage"] = "s3://some-bucket/semprior"
        yield config, *(commands._bootstrap_config(config, no_config_cache=True) for _ in range(2))
        for cached in caches:
            cached.cache_clear()


def test_both_files_set_nodes_up_the_same_way():
    ours, cloud = read("onprem"), read("aws")
    shared = [{key: value for key, value in config.items() if key not in OWN} for config in (ours, cloud)]
    assert shared[0] == shared[1]
    assert "setup_commands" in shared[0]
    tails = [path.read_text().partition("# From here on")[2].partition("\n")[2] for path in FILES.values()]
    assert tails[0] == tails[1]  # comments, too


@pytest.mark.parametrize("name", FILES)
def test_the_files_satisfy_rays_schema(name):
    config = prepare_config(read(name))
    if name == "aws":
        config["available_node_types"]["worker"]["resources"] = {"CPU": 4, "GPU": 1}  # as AWS would answer
    validate_config(config)


@pytest.mark.parametrize("name", FILES)
def test_token_stays_on_and_the_dashboard_stays_in(name):
    config = read(name)
    start = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--node-ip-address=$NODE_ADDRESS" in start
    assert "ray get-auth-token --generate" in config["head_setup_commands"][-1]
    assert config["cluster_synced_files"] == ["~/.ray/auth_token"]
    assert "RAY_AUTH_MODE=token" in (ROOT / "deploy" / "node.sh").read_text()


@pytest.mark.slow
def test_aws_gets_a_small_head_and_spot_workers_that_share_one_role(cloud):
    _, config, _ = cloud
    kinds = config["available_node_types"]
    assert kinds["head"]["resources"]["CPU"] == 0
    assert kinds["worker"]["resources"]["GPU"] == 1
    assert (kinds["worker"]["min_workers"], kinds["worker"]["max_workers"]) == (0, 8)
    profiles = {kind["node_config"]["IamInstanceProfile"]["Arn"] for kind in kinds.values()}
    assert len(profiles) == 1
    assert Path(config["auth"]["ssh_private_key"]).is_file()

    provider = providers._get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    for name, kind in (("head", NODE_KIND_HEAD), ("worker", NODE_KIND_WORKER)):
        provider.create_node(copy.deepcopy(kinds[name]["node_config"]), {TAG_RAY_NODE_KIND: kind}, 1)
    machines = [
        machine
        for reservation in boto3.client("ec2", region_name="us-east-1").describe_instances()["Reservations"]
        for machine in reservation["Instances"]
    ]
    assert sorted(machine["InstanceType"] for machine in machines) == ["g6.xlarge", "m7i.xlarge"]
    spot = {machine["InstanceType"]: machine.get("InstanceLifecycle") for machine in machines}
    assert spot == {"m7i.xlarge": None, "g6.xlarge": "spot"}
    assert all(machine["IamInstanceProfile"]["Arn"] in profiles for machine in machines)


def test_the_role_may_use_one_bucket_and_pass_on_itself_and_a_second_launch_changes_nothing(cloud):
    _, first, again = cloud
    assert first["available_node_types"] == again["available_node_types"]
    iam = boto3.client("iam")
    name = "semprior-semprior-us-east-1"
    rights = iam.get_role_policy(RoleName=name, PolicyName="semprior")["PolicyDocument"]["Statement"]
    allowed = json.dumps([statement["Resource"] for statement in rights if "s3:" in json.dumps(statement["Action"])])
    assert set(re.findall(r"arn:aws:s3:::[^\"]*", allowed)) == {
        "arn:aws:s3:::some-bucket",
        "arn:aws:s3:::some-bucket/*",
    }
    assert [s["Resource"] for s in rights if s["Action"] == "iam:PassRole"] == [
        iam.get_role(RoleName=name)["Role"]["Arn"]
    ]
    roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    assert [role["RoleName"] for role in roles] == [name]


@pytest.mark.slow
def test_a_launch_that_was_cut_off_is_made_good(cloud):
    user, _, _ = cloud
    name = "semprior-semprior-us-east-1"
    iam = boto3.client("iam")
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    commands._bootstrap_config(user, no_config_cache=True)
    roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
    assert [role["RoleName"] for role in roles] == [name]


@pytest.mark.slow
def test_a_dashboard_that_listens_on_the_heads_address_is_reached_there(cloud, tmp_path, monkeypatch):
    user, config, _ = cloud
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Ray's cache
    provider = providers._get_node_provider(config["provider"], "open", use_cache=False)
    tags = {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE}
    provider.create_node(copy.deepcopy(config["available_node_types"]["head"]["node_config"]), tags, 1)
    [head] = provider.non_terminated_nodes({})
    start = user["head_start_ray_commands"][-1].replace("127.0.0.1", "$NODE_ADDRESS")
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(user | {"cluster_name": "open", "head_start_ray_commands": [start]}))
    found = find_head(file)
    assert (found.address, found.dashboard) == (provider.external_ip(head), (provider.internal_ip(head), 8265))
    assert provider.external_ip(head) != provider.internal_ip(head)


@pytest.mark.slow
def test_a_launch_without_a_right_or_a_type_of_machine_is_refused_in_one_line(cloud, monkeypatch):
    user, _, _ = cloud

    def refused(operation):
        def refuse(*_, **__):
            raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "x" * 1000}}, operation)

        return refuse

    with monkeypatch.context() as patch, pytest.raises(ClickException, match=r"AWS: refuses DescribeInstanceTypes \("):
        patch.setattr(aws_nodes, "list_ec2_instances", refused("DescribeInstanceTypes"))
        commands._bootstrap_config(user, no_config_cache=True)
    with monkeypatch.context() as patch, pytest.raises(ClickException, match="AWS: refuses CreateRole"):
        patch.setattr(aws, "ensure_profile", refused("CreateRole"))
        commands._bootstrap_config(user, no_config_cache=True)
    other = copy.deepcopy(user)
    other["available_node_types"]["worker"]["node_config"]["InstanceType"] = "g99.xlarge"
    with pytest.raises(ClickException, match=r"cluster.yaml: .* g99.xlarge is not available"):
        commands._bootstrap_config(other, no_config_cache=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (exceptions.NoCredentialsError(), "AWS: Unable to locate credentials; give them with `aws configure`"),
        (exceptions.UnauthorizedSSOTokenError(), "log in again, with `aws sso login`"),
        (exceptions.EndpointConnectionError(endpoint_url="https://ec2"), "AWS: cannot be reached"),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "GetRole"), "AWS: the session has expired; log in again"),
        (ClientError({"Error": {"Code": "AuthFailure"}}, "GetRole"), "AWS: the credentials are refused"),
    ],
)
def test_faults_of_aws_are_one_line_with_a_way_out(error, told, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(aws, "complete", fail)
    with pytest.raises(ClickException) as refused:
        aws.Provider.bootstrap_config({})
    assert told in refused.value.message
    assert "\n" not in refused.value.message


def test_images_are_looked_up_in_the_region():
    known = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "testing")
        assert look_up_image(known, "eu-west-1").startswith("ami-")
        with pytest.raises(UserError, match="no image /aws/service/none in eu-west-1"):
            look_up_image("/aws/service/none", "eu-west-1")


def test_a_bucket_that_was_not_filled_in_is_one_line():
    with pytest.raises(ClickException, match=re.escape("provider.storage: fill in s3://BUCKET/PREFIX")):
        aws.Provider.bootstrap_config(read("aws"))


def test_pins_cover_what_the_project_needs():
    lines = (ROOT / "deploy" / "requirements.txt").read_text().splitlines()
    pins = {}
    for line in lines:
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[name.lower().replace("_", "-")] = version
            assert version, line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["offline"], *extras["aws"]):
        need = Requirement(text)
        assert need.specifier.contains(pins[need.name.lower().replace("_", "-")]), text
    for extra in ("default", "tune", "train"):
        wanted = (Requirement(text) for text in importlib.metadata.requires("ray"))
        for need in wanted:
            if need.marker and need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""}):
                assert need.name.lower().replace("_", "-") in pins, need
