"""The private names of Ray that `tune` relies on. A version of Ray that moves one of them fails here first."""

import inspect
import re
from importlib.metadata import version

import pytest
from ray.exceptions import RayActorError
from ray.train.v2._internal import constants
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from tests.repository import ROOT
from tune.search import ray_tune_internals
from tune.session import ray_internals
from tune.session.worker_group import _RAY_TRAIN_SETTINGS

READ_IN = "2.60"


def own_classes():
    for module in (ray_internals, ray_tune_internals):
        for _, made in inspect.getmembers(module, inspect.isclass):
            if made.__module__ == module.__name__ and made.__base__ is not object:
                yield made


def parameters(function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, value in inspect.signature(function).parameters.items() if value.kind not in kinds]


OVERRIDDEN = [
    (made, name)
    for made in own_classes()
    for name, value in vars(made).items()
    if callable(getattr(made, name)) and hasattr(made.__base__, name) and not name.startswith("__")
]


def test_ray_is_bounded_to_the_version_that_was_read():
    assert version("ray").startswith(f"{READ_IN}.")
    (ray,) = re.findall(r'"ray\[\S*', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "<2.61" in ray and ">=2.60" in ray


def test_the_overridden_methods_are_those_that_were_meant():
    assert {(made.__name__, name) for made, name in OVERRIDDEN} == {
        ("InProcessTrainer", "_create_default_callbacks"),
        ("InProcessTrainer", "_initialize_and_run_controller"),
        ("_CancellableController", "_run_control_loop_iteration"),
        ("_CancellableController", "worker_group_cls"),
        ("_OneNodeBackend", "on_start"),
        ("_PlainWorkerGroup", "_get_worker_runtime_env"),
        ("_ReportListener", "after_report"),
        ("_UnannouncedScalingPolicy", "after_controller_start"),
        ("_UnannouncedScalingPolicy", "_maybe_send_resource_request"),
        ("_UnannouncedScalingPolicy", "_cancel_resource_request"),
        ("SuccessiveHalving", "on_trial_add"),
        ("SuccessiveHalving", "on_trial_result"),
        ("FirstRunHalving", "on_trial_result"),
        ("FirstRunHalving", "on_trial_complete"),
        ("FirstRunHalving", "replay"),
        ("MedianStopping", "on_trial_result"),
        ("MedianStopping", "on_trial_complete"),
    }


@pytest.mark.parametrize(("made", "name"), [pair for pair in OVERRIDDEN if pair[1] != "worker_group_cls"])
def test_an_overridden_method_takes_what_ray_gives(made, name):
    mine, base = getattr(made, name), getattr(made.__base__, name)
    assert parameters(mine) == parameters(base)
    assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(base)


def test_fit_calls_what_the_trainer_overrides():
    called = ray_internals.InProcessTrainer.fit.__code__.co_names
    assert {"_create_default_callbacks", "_initialize_and_run_controller"} <= set(called)
    made = inspect.getsource(ray_internals.TrainController._start_worker_group)
    assert "self.worker_group_cls.create(" in made
    started = inspect.getsource(ray_internals.WorkerGroup)
    assert "self._get_worker_runtime_env(" in started


@pytest.mark.parametrize("name", ["run", "get_result", "get_worker_group"])
def test_the_controller_has_the_methods_that_are_called(name):
    assert parameters(getattr(ray_internals.TrainController, name)) == ["self"]


def test_a_worker_group_can_be_aborted():
    assert parameters(ray_internals.WorkerGroup.abort) == ["self"]


def test_ray_train_reads_the_variables_that_are_set():
    assert set(_RAY_TRAIN_SETTINGS) <= constants.ENV_VARS_TO_PROPAGATE


def test_wrapped_errors_are_unwrapped():
    error = ValueError("of the worker")
    assert ray_internals.underlying_error(UserExceptionWithTraceback(error, "a traceback")) is error
    dead = RayActorError()
    assert ray_internals.underlying_error(WorkerHealthCheckFailedError("no answer", dead)) is dead
    assert ray_internals.underlying_error(error) is error


def test_the_schedulers_have_the_state_that_is_rebuilt():
    halving = AsyncHyperBandScheduler(time_attr="epoch", metric="value", mode="max", max_t=9, brackets=2)
    assert [epoch for epoch, _ in halving._brackets[0]._rungs] == sorted([1, 4], reverse=True)
    assert (halving._trial_info, halving._metric_op) == ({}, 1.0)
    median = MedianStoppingRule(time_attr="epoch", metric="value", mode="max")
    assert (median._stopped_trials, dict(median._results)) == (set(), {})
