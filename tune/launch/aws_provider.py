"""Ray's AWS provider, with the things `ray up cluster.yaml` would otherwise leave to find out.

**Images.** An `ImageId` of the form ``resolve:ssm:NAME`` is looked up once, by the user's machine, in the cluster's
region. Ray's own default is an Ubuntu 18.04 that no current PyTorch runs on, and identifiers differ by region.

**Rights.** Ray gives an instance profile to the head alone, and its role may not pass a role on; but every trial writes
to the bucket. Here all nodes share one role, which may use the bucket of ``provider.storage`` and nothing else of S3,
start and end machines, and pass on itself. A profile named in the file is left alone.

**Faults.** What AWS refuses, and a kind of machine that it tells nothing of, is one line before anything starts.

Named in cluster.yaml as ``provider: {type: external, module: tune.launch.aws_provider.Provider}``; everything else is
Ray's.
"""

from __future__ import annotations

import copy
import json
import time
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from click import ClickException
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

from semprior.errors import UserError
from tune.launch.aws_errors import aws_fault

SSM = "resolve:ssm:"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}
_MACHINES = ["ec2:RunInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances", "ec2:CreateTags"]
_PROPAGATION_S = 15.0  # a new profile is not known at once everywhere; Ray's own code waits as long


class Provider(AWSNodeProvider):
    """The provider that Ray loads by name."""

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Fill in images and rights, then what Ray fills in: key pair, subnets, security group.

        Raises:
            ClickException: for a fault in the file or at AWS, in one line, as `ray up` shows its own.
        """
        try:
            return AWSNodeProvider.bootstrap_config(complete(cluster_config))
        except UserError as error:
            raise ClickException(str(error)) from error
        except (BotoCoreError, ClientError) as error:
            raise ClickException(aws_fault(error)) from error


def complete(cluster_config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with resources and images looked up and an instance profile on every kind of node.

    Raises:
        UserError: no bucket is filled in, or a type of machine or an image is not to be found.
        BotoCoreError: AWS cannot be asked.
        ClientError: it refuses something.
    """
    bucket = bucket_of(cluster_config["provider"].get("storage", ""))
    config = with_resources(cluster_config)
    region = config["provider"]["region"]
    nodes = [kind["node_config"] for kind in config["available_node_types"].values()]
    for node in nodes:
        if node.get("ImageId", "").startswith(SSM):
            node["ImageId"] = find_image(node["ImageId"].removeprefix(SSM), region)
    bare = [node for node in nodes if "IamInstanceProfile" not in node]
    if bare:
        arn = ensure_profile(config["cluster_name"], bucket, region)
        for node in bare:
            node["IamInstanceProfile"] = {"Arn": arn}
    return config


def with_resources(cluster_config: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which every kind of node has CPUs; without them no trial would ever make one start.

    Ray has asked AWS before, but only warns where that fails.

    Raises:
        UserError: there is no such type of machine in the region.
        ClientError: whoever asks may not ask.
    """
    if all("CPU" in kind.get("resources", {}) for kind in cluster_config["available_node_types"].values()):
        return copy.deepcopy(cluster_config)
    try:
        return AWSNodeProvider.fillout_available_node_types_resources(cluster_config)
    except ValueError as error:
        raise UserError(f"cluster.yaml: available_node_types: {error}") from error


def bucket_of(storage: str) -> str:
    """The bucket of an address like ``s3://BUCKET/PREFIX``.

    Raises:
        UserError: it is another kind of address, or the placeholder of the file as it is shipped.
    """
    address = urlsplit(storage)
    if address.scheme != "s3" or not address.netloc or address.netloc == "BUCKET":
        raise UserError(f"cluster.yaml: provider.storage: fill in s3://BUCKET/PREFIX (now {storage!r})")
    return address.netloc


def find_image(parameter: str, region: str) -> str:
    """The image that a public parameter names in a region.

    Raises:
        UserError: there is none.
        ClientError: whoever asks may not ask.
    """
    ssm = boto3.client("ssm", region_name=region)
    try:
        found = ssm.get_parameter(Name=parameter)
    except ssm.exceptions.ParameterNotFound as error:
        raise UserError(f"cluster.yaml: ImageId: no image {parameter} in {region}") from error
    return found["Parameter"]["Value"]


def ensure_profile(cluster: str, bucket: str, region: str) -> str:
    """The instance profile of a cluster's nodes, made where there is none; its rights are written anew each time.

    Args:
        cluster: its name; role and profile are called ``semprior-CLUSTER-REGION``.
        bucket: that the nodes may read and write.
        region: names are global at AWS, clusters are not.

    Returns:
        The profile's resource name.

    Raises:
        ClientError: whoever asks may not make it.
    """
    iam = boto3.client("iam", region_name=region)
    name = f"semprior-{cluster}-{region}"
    role = _made(lambda: iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST)))
    role = role or iam.get_role(RoleName=name)
    rights = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
                "Resource": f"arn:aws:s3:::{bucket}",
            },
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                "Resource": f"arn:aws:s3:::{bucket}/*",
            },
            {"Effect": "Allow", "Action": [*_MACHINES, "ec2:Describe*"], "Resource": "*"},
            {  # the account's first spot request makes this role
                "Effect": "Allow",
                "Action": "iam:CreateServiceLinkedRole",
                "Resource": "arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/*",
            },
            {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role["Role"]["Arn"]},
        ],
    }
    iam.put_role_policy(RoleName=name, PolicyName="semprior", PolicyDocument=json.dumps(rights))
    made = _made(lambda: iam.create_instance_profile(InstanceProfileName=name))
    profile = (made or iam.get_instance_profile(InstanceProfileName=name))["InstanceProfile"]
    if not profile["Roles"]:  # it is new, or an earlier launch ended just here
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        time.sleep(_PROPAGATION_S)
    return profile["Arn"]


def _made(make: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """What a call made; None if it exists."""
    try:
        return make()
    except ClientError as error:
        if error.response["Error"]["Code"] != "EntityAlreadyExists":
            raise
        return None
