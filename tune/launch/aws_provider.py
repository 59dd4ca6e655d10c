"""Ray's AWS provider, completed so that `ray up cluster.yaml` needs nothing but the name of a bucket.

**Images.** An `ImageId` of the form ``resolve:ssm:NAME`` is looked up once, by the user's machine, in the cluster's
region. Ray's own default is an Ubuntu 18.04 that no current PyTorch runs on, and identifiers differ by region.

**Permissions.** Ray gives an instance profile to the head alone, and its role may not pass a role on; but every trial
writes to the bucket. Here all nodes share one role, which may use the bucket of ``provider.storage`` and nothing else
of S3, start and terminate instances, and pass on itself. A profile named in the file is left alone.

**Errors.** Whatever AWS refuses, and an instance type that it does not know, is one line before anything starts.

Named in cluster.yaml as ``provider: {type: external, module: tune.launch.aws_provider.Provider}``; everything else is
Ray's.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError
from click import ClickException

from semprior.errors import UserError
from tune.launch.ray_internals import aws_node_provider

SSM = "resolve:ssm:"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}
_INSTANCE_ACTIONS = [
    "ec2:RunInstances",
    "ec2:StartInstances",
    "ec2:StopInstances",
    "ec2:TerminateInstances",
    "ec2:CreateTags",
]
_PROPAGATION_S = 15.0  # until a new profile is known everywhere; Ray's own code waits as long
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN = {"AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"}
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_SIGNED_OUT = (exceptions.SSOError, exceptions.TokenRetrievalError, exceptions.CredentialRetrievalError)
_MISSING = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
_UNREACHABLE = (exceptions.HTTPClientError, exceptions.ConnectionError)
_LOG_IN = "log in again, with `aws sso login` or new AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"

AWSNodeProvider: Any = aws_node_provider()


class Provider(AWSNodeProvider):  # type: ignore[misc]  # the base class is imported in `ray_internals`
    """The provider that Ray loads by name."""

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Fill in images and permissions, then what Ray fills in: key pair, subnets, security group.

        Raises:
            ClickException: a fault in the file or at AWS, in one line, as `ray up` shows its own.
        """
        try:
            config: dict[str, Any] = AWSNodeProvider.bootstrap_config(complete(cluster_config))
            return config
        except UserError as error:
            raise ClickException(str(error)) from error
        except (BotoCoreError, ClientError) as error:
            raise ClickException(aws_fault(error)) from error


def complete(cluster_config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with resources and images looked up and an instance profile on every node type.

    Raises:
        UserError: no bucket is filled in, or an instance type or an image is not found.
        BotoCoreError: AWS cannot be reached, or there are no credentials.
        ClientError: AWS refuses an operation.
    """
    bucket = bucket_of(cluster_config["provider"].get("storage", ""))
    config = with_resources(cluster_config)
    region = config["provider"]["region"]
    nodes = [node_type["node_config"] for node_type in config["available_node_types"].values()]
    for node in nodes:
        if node.get("ImageId", "").startswith(SSM):
            node["ImageId"] = find_image(node["ImageId"].removeprefix(SSM), region)
    without_profile = [node for node in nodes if "IamInstanceProfile" not in node]
    if without_profile:
        arn = ensure_profile(config["cluster_name"], bucket, region)
        for node in without_profile:
            node["IamInstanceProfile"] = {"Arn": arn}
    return config


def with_resources(cluster_config: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which every node type has CPUs; without them no trial would ever make a node start.

    Ray asks AWS for them, too, but only warns where that fails.

    Raises:
        UserError: the region has no such instance type.
        ClientError: the user lacks the permission to ask.
    """
    node_types = cluster_config["available_node_types"].values()
    if all("CPU" in node_type.get("resources", {}) for node_type in node_types):
        return copy.deepcopy(cluster_config)
    try:
        config: dict[str, Any] = AWSNodeProvider.fillout_available_node_types_resources(cluster_config)
        return config
    except ValueError as error:
        raise UserError(f"cluster.yaml: available_node_types: {error}") from error


def bucket_of(storage: str) -> str:
    """The bucket of an address like ``s3://BUCKET/PREFIX``.

    Raises:
        UserError: the address is of another kind, or still has the placeholder of the file as it is shipped.
    """
    address = urlsplit(storage)
    if address.scheme != "s3" or not address.netloc or address.netloc == "BUCKET":
        raise UserError(f"cluster.yaml: provider.storage: fill in s3://BUCKET/PREFIX (now {storage!r})")
    return address.netloc


def find_image(parameter: str, region: str) -> str:
    """The image that a public parameter names in a region.

    Raises:
        UserError: the region has no such parameter.
        ClientError: the user lacks the permission to ask.
    """
    ssm = boto3.client("ssm", region_name=region)
    try:
        found = ssm.get_parameter(Name=parameter)
    except ssm.exceptions.ParameterNotFound as error:
        raise UserError(f"cluster.yaml: ImageId: no image {parameter} in {region}") from error
    return str(found["Parameter"]["Value"])


def ensure_profile(cluster: str, bucket: str, region: str) -> str:
    """Create the instance profile of a cluster's nodes unless it exists; its permissions are written each time.

    Args:
        cluster: name of the cluster; role and profile are called ``semprior-CLUSTER-REGION``.
        bucket: name of the bucket that the nodes may read and write.
        region: region of the cluster; names of roles are global, clusters are not.

    Returns:
        The profile's Amazon resource name.

    Raises:
        ClientError: the user lacks a permission.
    """
    iam = boto3.client("iam", region_name=region)
    name = f"semprior-{cluster}-{region}"
    role = _create(lambda: iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST)))
    role = role or iam.get_role(RoleName=name)
    permissions = {
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
            {"Effect": "Allow", "Action": [*_INSTANCE_ACTIONS, "ec2:Describe*"], "Resource": "*"},
            {  # the account's first spot request creates this role
                "Effect": "Allow",
                "Action": "iam:CreateServiceLinkedRole",
                "Resource": "arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/*",
            },
            {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role["Role"]["Arn"]},
        ],
    }
    iam.put_role_policy(RoleName=name, PolicyName="semprior", PolicyDocument=json.dumps(permissions))
    created = _create(lambda: iam.create_instance_profile(InstanceProfileName=name))
    profile = (created or iam.get_instance_profile(InstanceProfileName=name))["InstanceProfile"]
    if not profile["Roles"]:  # it is new, or an earlier launch was cut off before this line
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        time.sleep(_PROPAGATION_S)
    return str(profile["Arn"])


def _create(call: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The answer of a call that creates something; None if it exists."""
    try:
        return call()
    except ClientError as error:
        if error.response["Error"]["Code"] != "EntityAlreadyExists":
            raise
        return None


def aws_fault(error: BaseException) -> str:
    """An error of AWS in one line: what is wrong, and the way out."""
    text = " ".join(str(error).split())
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if code in _EXPIRED:
            return f"AWS: the session has expired; {_LOG_IN}"
        if code in _UNKNOWN:
            return f"AWS: the credentials are refused ({code}); {_LOG_IN}"
        if code in _FORBIDDEN:  # the text may hold an encoded message of a thousand characters
            return f"AWS: refuses {error.operation_name} ({code}); give the user who runs this that permission"
        return f"AWS: {text}"
    if isinstance(error, _SIGNED_OUT):
        return f"AWS: {text}; {_LOG_IN}"
    if isinstance(error, _MISSING):
        return (
            f"AWS: {text}; give them with `aws configure`, AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, _UNREACHABLE):
        return f"AWS: cannot be reached ({text}); check the network, and provider.region"
    return f"AWS: {text}"
