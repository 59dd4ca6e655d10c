"""An S3 server on loopback, and records of made-up trials."""

import uuid

import pytest

from tune.records import Record


@pytest.fixture(scope="session")
def s3_server():
    """Address of moto's S3 server, which runs in a thread of the tests."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """Address of a new bucket, ``s3://NAME``; the usual variables lead to the server."""
    import boto3

    for variable in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in (
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL", s3_server),
    ):
        monkeypatch.setenv(variable, value)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """An address that nothing is at yet: a folder, then one in a bucket."""
    return str(tmp_path / "runs") if request.param == "folder" else f"{request.getfixturevalue('s3')}/runs"


def report(trial, epoch, attempt=1, score=None, **fields):
    """A report of a made-up trial; its configuration is the number that its id begins with."""
    metrics = {"inner_loss": 0.5} | ({} if score is None else {"holdout/point_score": score})
    given = {"metrics": metrics, "configuration": int(trial.partition(".")[0]), "seed": 0, "device_s": 1.0} | fields
    return Record(kind="report", trial=trial, attempt=attempt, epoch=epoch, **given)


@pytest.fixture
def make_report():
    """The function `report`."""
    return report
