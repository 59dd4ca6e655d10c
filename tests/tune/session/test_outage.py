"""A temporary failure of the storage only delays a sweep: a server that stops, a full disk."""

import os
import resource
import threading
import time
from collections import Counter

import boto3
import pytest

from semprior.io.storage import open_storage
from tests.tune.real_sweep import new_sweep, ray_cluster, wait_for
from tune.session.session import run_sweep
from tune.store.results_store import ResultsStore
from tune.store.sweeps import create_sweep

pytestmark = [pytest.mark.slow, pytest.mark.ray]

AWAY = 5.0  # seconds, several epochs


class Server:
    """An S3 server that can be stopped and restarted with its content."""

    def __init__(self):
        self.port = 0
        self.start()

    def start(self):
        from moto.server import ThreadedMotoServer

        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()
        _, self.port = self.server.get_host_and_port()

    def stop(self):
        self.server.stop()


@pytest.fixture(scope="module")
def server():
    made = Server()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in (
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}"),
        ):
            patch.setenv(variable, value)
        boto3.client("s3").create_bucket(Bucket="outage")
        yield made
    made.stop()


@pytest.fixture(scope="module")
def cluster(cache, server):
    with ray_cluster(1) as made:
        yield made


def worker():
    """The process id of the one worker."""
    from ray._private.state import actors

    (pid,) = [a["Pid"] for a in actors().values() if a["State"] == "ALIVE" and a["ActorClassName"] == "RayTrainWorker"]
    return pid


def run_with_an_outage(sweep, begin, end):
    """Run a sweep whose storage fails for `AWAY` seconds after the first epoch."""
    store, struck = ResultsStore(sweep.storage), []

    def strike():
        wait_for(lambda: store.curve("0000"))
        begin()
        time.sleep(AWAY)
        end()
        struck.append(True)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    thread.join(60)
    assert struck
    for trial, told in store.records().items():
        assert {record.attempt for record in told} == {1}, trial
        assert Counter(record.epoch for record in told if record.kind == "report") == Counter(range(12)), trial
        assert [record.state for record in told if record.kind == "end"] == ["completed"], trial
        (kept,) = store.storage.list(f"checkpoints/{trial}/1")
        assert store.storage.exists(f"{kept.name}/manifest.json")


def test_a_server_stops(cluster, server, tmp_path):
    sweep = new_sweep(tmp_path, "away", trials=2, epochs=12)
    spec = sweep.spec.model_copy(update={"storage": "s3://outage/runs"})
    made = create_sweep(open_storage("s3://outage/runs"), "away", spec, sweep.data)
    run_with_an_outage(made, server.stop, server.start)


def test_a_disk_is_full(cluster, tmp_path):
    sweep = new_sweep(tmp_path, "full", trials=1, epochs=12)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    struck = []

    def fill():
        struck.append(worker())
        resource.prlimit(struck[0], resource.RLIMIT_FSIZE, (0, limits[1]))

    def free():
        os.kill(struck[0], 0)  # it lives
        resource.prlimit(struck[0], resource.RLIMIT_FSIZE, limits)

    run_with_an_outage(sweep, fill, free)
