"""The checks of a cluster before a sweep begins, without a cluster."""

import json
import types

import pytest
import ray

from semprior.errors import UserError
from semprior.io.storage import open_storage
from tests.tune.small_sweep import spec_of
from tune.launch import autoscaler, preflight
from tune.launch.ray_jobs import Jobs, JobServer
from tune.launch.shared_storage import probe_file, why_unreadable
from tune.launch.weights_check import check_weights
from tune.spec.sweep_file import Resources
from tune.store.provenance import versions

LINES = [json.dumps({"message": "waits"}), json.dumps({"fault": "no"})]


def test_packages_that_differ_are_named():
    here = {"semprior": "0.1.0", "torch": "2.14.1+cpu", "ray": "2.60.0", "timm": "1", "optuna": "5"}
    assert preflight.differences(here, {**here, "torch": "2.14.1"}) == ""
    assert preflight.differences(here, {**here, "ray": "2.61.0"}) == "ray 2.61.0 (here 2.60.0)"


def test_a_job_reports_by_lines_of_its_log():
    log = f"noise\npreflight: {LINES[0]}\nnoise\npreflight: {LINES[1]}\nnoise"
    assert preflight.read_report(log) == preflight.PreflightReport(("waits",), True, "no")
    assert preflight.read_report(log[:-30]) == preflight.PreflightReport(
        ("waits",), False, None
    )  # the second line is cut off
    assert preflight.read_report('preflight: {"fault": null}\n') == preflight.PreflightReport((), True, None)
    assert not preflight.read_report("Traceback").done


def test_messages_are_shown_as_they_come_and_the_client_puts_a_probe_file_into_the_storage(tmp_path, capsys):
    given, log = [], []

    class Client:
        def submit_job(self, entrypoint, **_):
            given.append(entrypoint.split()[-1])
            return "probing"

        def get_job_info(self, job):
            log.append(f"preflight: {LINES[len(log)]}\n")
            state = "RUNNING" if len(log) < len(LINES) else "SUCCEEDED"
            return types.SimpleNamespace(submission_id=job, status=state, message="", driver_exit_code=None)

        def get_job_logs(self, job):
            assert why_unreadable(spec.storage, given[0]) == ""
            return "".join(log)

    spec = spec_of(tmp_path, ("./runs", str(tmp_path / "runs")))
    with pytest.raises(UserError, match="--address http://head:8265: no"):
        Jobs(Client(), JobServer("http://head:8265")).check(spec)
    assert capsys.readouterr().out.endswith(": waits\n")
    assert open_storage(spec.storage).list() == []


def test_a_folder_that_only_the_client_has_is_no_storage_of_a_cluster(tmp_path, capsys):
    (tmp_path / "scenes").mkdir()
    spec = spec_of(tmp_path, ("./runs", str(tmp_path / "runs")), ("data: scenes", f"data: {tmp_path}/scenes"))
    assert preflight.main([spec.to_json(), json.dumps(versions()), "probe-of-the-client"]) == 0
    [line] = capsys.readouterr().out.splitlines(keepends=True)
    fault = preflight.read_report(line).fault
    assert "the cluster's head does not see what this machine writes (nothing is there)" in fault


def test_a_storage_is_shared_by_machines_that_read_the_probe_file(tmp_path):
    with probe_file(f"file://{tmp_path}/runs") as name:
        assert why_unreadable(str(tmp_path / "runs"), name) == ""
        assert why_unreadable(str(tmp_path / "other"), name) == "nothing is there"
        (tmp_path / "runs" / name).write_text("else")
        assert why_unreadable(str(tmp_path / "runs"), name) == "something else is there"
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.fixture
def nodes(monkeypatch):
    """A made-up cluster: the answer of each node but the first, and which nodes leave."""
    answers, alive = {}, {}

    def get(reference, timeout):
        if isinstance(answers[reference], Exception):
            raise answers[reference]
        return answers[reference]

    def options(scheduling_strategy):
        return types.SimpleNamespace(remote=lambda uri, name: scheduling_strategy.node_id)

    def listed():
        nodes = [{"NodeID": node, "NodeManagerAddress": f"at-{node}", "Alive": there} for node, there in alive.items()]
        alive.update(gone)
        return nodes

    gone = {}
    identity = types.SimpleNamespace(get_node_id=lambda: "head")
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: types.SimpleNamespace(options=options))
    monkeypatch.setattr(ray, "nodes", listed)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: identity)

    def cluster(going=(), **given):
        answers.update({node.ljust(56, "0"): answer for node, answer in given.items()})
        alive.update({"head": True} | dict.fromkeys(answers, True))
        gone.update({node.ljust(56, "0"): False for node in going})

    return cluster


def test_a_node_that_does_not_see_the_storage_is_named_and_one_that_is_gone_is_not_missed(nodes, tmp_path):
    nodes(a="", b=ray.exceptions.NodeDiedError("gone"), going=["b"])
    preflight._check_storage(str(tmp_path))
    nodes(c=ray.exceptions.GetTimeoutError("late"))
    with pytest.raises(
        UserError, match=r"at-c0* does not see what the head writes \(no answer in 120 s; is the storage mounted there"
    ):
        preflight._check_storage(str(tmp_path))
    nodes(c=ray.exceptions.RuntimeEnvSetupError("no room"))
    with pytest.raises(UserError, match=r"at-c0* does not see what the head writes \(RuntimeEnvSetupError: no room\)"):
        preflight._check_storage(str(tmp_path))
    nodes(c="nothing is there")
    with pytest.raises(UserError, match=r"\(nothing is there\); all nodes must share it"):
        preflight._check_storage(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


HEAD, GPU = {"CPU": 4.0, "node:__internal_head__": 1.0}, {"CPU": 4.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("gpus", "nodes", "warned"),
    [
        (0, [HEAD, GPU, GPU], True),
        (0.5, [HEAD, GPU], False),
        (0, [HEAD, GPU, {"CPU": 4.0}], False),
        (0, [HEAD], False),
        (0, [HEAD | GPU], True),
    ],
)
def test_gpus_that_would_idle_are_told(gpus, nodes, warned):
    assert bool(preflight.idle_gpus(Resources(gpus=gpus), nodes, "the cluster")) == warned


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """A function that writes the launcher's state of workers; its clock advances only in `sleep`."""
    now, path = [0.0], tmp_path / "state"

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr("ray.autoscaler._private.local.config.get_state_path", lambda cluster: str(path))
    monkeypatch.setattr(autoscaler, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))

    def state(**states):
        path.write_text(json.dumps({worker: {"tags": {"ray-node-status": word}} for worker, word in states.items()}))

    state.now = now
    return state


CONFIG = {"cluster_name": "own", "provider": {"type": "local", "head_ip": "h", "worker_ips": ["a.invalid", "b"]}}


def test_workers_that_are_set_up_are_waited_for(launcher, monkeypatch):
    monkeypatch.setattr(autoscaler, "_address", lambda host: host)
    messages = []
    launcher(**{"a.invalid": "setting-up", "b": "up-to-date"})

    def alive():
        return {"h", "b"} if launcher.now[0] < 300 else {"h", "b", "a.invalid"}

    autoscaler.wait_for_workers(CONFIG, alive, messages.append)
    assert (launcher.now[0], messages) == (300.0, ["waiting for 1 of 2 workers, 10 minutes at most"])
    autoscaler.wait_for_workers(CONFIG, lambda: {"h", "x", "y"}, messages.append)  # all, by other addresses
    assert len(messages) == 1


@pytest.mark.parametrize(("state", "seconds"), [("setting-up", 601), ("waiting-for-ssh", 31), (None, 31)])
def test_workers_that_do_not_come_are_named_and_not_waited_for_long(launcher, monkeypatch, state, seconds):
    monkeypatch.setattr(autoscaler, "_address", lambda host: host)
    messages = []
    if state:
        launcher(b=state)
    autoscaler.wait_for_workers(CONFIG, lambda: {"h", "a.invalid"}, messages.append)
    assert launcher.now[0] == seconds
    assert messages[1].startswith("not counted, because not there: b ")


def test_weights_that_are_not_there_are_refused_before_anything_starts(tmp_path):
    base = "base: {preset: quick, detector: alclnet, epochs: 45}"

    def sweep(weights):
        return spec_of(tmp_path, (base, base.replace("}", f", vfm.weights: {weights}}}")))

    check_weights(spec_of(tmp_path))  # the offline package
    with pytest.raises(UserError, match=r"vfm.weights: nowhere.pth: no such file; give a file"):
        check_weights(sweep("nowhere.pth"))
    with pytest.raises(UserError, match=r"vfm.weights: file://.*: nothing is there; put it there with `semprior vfm"):
        check_weights(sweep(f"file://{tmp_path}/typo"))
    search = "search:\n  vfm.weights: {values: [offline, nowhere.pth]}"
    with pytest.raises(UserError, match=r"nowhere.pth: no such file"):
        check_weights(spec_of(tmp_path, ("search:", search)))
