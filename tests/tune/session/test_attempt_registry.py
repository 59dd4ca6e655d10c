"""The registry of attempts: an epoch is recorded when it is permitted, and never after its attempt is over."""

import os
import signal
import threading

import pytest
import ray

from tests.tune.real_sweep import ray_cluster, wait_for
from tune.session.attempt_registry import AttemptOverError, AttemptRegistry, attempt_registry

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def running():
    with ray_cluster(2):
        yield


@pytest.fixture
def registry():
    with attempt_registry("the sweep#1") as made:
        yield made


class Waiting(threading.Thread):
    """A worker that waits for an epoch."""

    def __init__(self, registry, attempt, epoch):
        super().__init__(daemon=True)
        self.wait = lambda: AttemptRegistry(registry.name).wait(attempt, epoch)
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.wait()
            self.outcome = "permitted"
        except AttemptOverError:
            self.outcome = "over"


def test_an_epoch_waits_for_its_permission(registry):
    registry.permit("0001/1", 3)
    registry.wait("0001/1", 2)
    registry.wait("0001/1", 3)
    late, other = Waiting(registry, "0001/1", 5), Waiting(registry, "0001/1", 4)
    registry.permit("0001/1", 4)
    other.join(60)
    assert (other.outcome, late.outcome) == ("permitted", None)
    registry.permit("0001/1", 5)
    late.join(60)
    assert late.outcome == "permitted"


def test_an_attempt_that_is_over_records_nothing_more(registry):
    with pytest.raises(AttemptOverError):
        registry.wait("0002/1", 0)  # it was never begun
    registry.permit("0002/1", 0)
    waiting = Waiting(registry, "0002/1", 1)
    registry.end("0002/1")
    waiting.join(60)
    assert waiting.outcome == "over"
    registry.permit("0002/2", 9)
    with pytest.raises(AttemptOverError):
        registry.wait("0002/1", 1)


def test_the_placement_group_of_a_dead_trial_is_freed(registry):
    group = ray.util.placement_group([{"CPU": 1}])
    ray.get(group.ready())
    registry.permit("0003/1", 0)
    registry.hold("0003/1", group.id.hex())
    registry.permit("0003.1/1", 0)
    registry.hold("0003.1/1", "of another run")
    assert registry.holders() == ["0003.1/1", "0003/1"]
    assert registry.reclaim("0003") == 1
    assert registry.holders() == ["0003.1/1"]
    wait_for(lambda: ray.util.placement_group_table(group)["state"] == "REMOVED")
    with pytest.raises(AttemptOverError):
        registry.wait("0003/1", 0)
    registry.hold("0003/1", group.id.hex())  # by a worker that is about to die
    assert registry.holders() == ["0003.1/1"]


def test_ending_an_attempt_needs_no_registry():
    AttemptRegistry("of a driver that is gone").end("0001/1")


def test_a_registry_that_died_leaves_no_worker_waiting(registry):
    registry.permit("0004/1", 0)
    waiting = Waiting(registry, "0004/1", 1)
    actor = ray.get_actor(registry.name, namespace="semprior")
    pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    waiting.join(120)
    assert waiting.outcome == "over"
    wait_for(lambda: _answers(registry))
    registry.permit("0004/2", 0)
    registry.wait("0004/2", 0)


def _answers(registry):
    try:
        return registry.holders() == []
    except ray.exceptions.RayActorError:
        return False
