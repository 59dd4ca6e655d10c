"""``--cluster FILE``: what is found, and what is refused in one line before anything starts."""

import os
import subprocess

import pytest
import yaml

from semprior.errors import UserError
from tests.repository import ROOT
from tune.cli.app import main
from tune.launch.autoscaler import coming_nodes
from tune.launch.cluster_file import find_head
from tune.launch.target import read_target


@pytest.fixture
def file(tmp_path):
    """A launcher file for machines that nobody has."""
    content = yaml.safe_load((ROOT / "deploy" / "onprem.yaml").read_text())
    content["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2"], "storage": f"file://{tmp_path}/runs"}
    content["auth"] = {"ssh_user": "nobody", "ssh_private_key": str(tmp_path / "none")}
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused in one line, which is returned."""

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return run


def ssh(tmp_path, monkeypatch, script):
    """A program `ssh` that does what a shell script says."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


def test_the_storage_of_the_file_is_the_usual_one(file, capsys):
    assert main(["list", "--cluster", str(file)]) == 0
    assert "runs: no sweeps" in capsys.readouterr().out


def test_files_that_launch_nothing(refused, tmp_path):
    assert "No such file" in refused("list", "--cluster", tmp_path / "none.yaml")
    (tmp_path / "other.yaml").write_text("name: sweep\n")
    assert "expected a file for `ray up`" in refused("top", "small", "--cluster", tmp_path / "other.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    assert "broken.yaml:1: is not valid YAML" in refused("status", "small", "--cluster", tmp_path / "broken.yaml")


def test_a_head_that_cannot_be_reached(file, refused, tmp_path, monkeypatch):
    ssh(tmp_path, monkeypatch, "echo 'connect to host 127.0.0.1 port 22: No route to host' >&2; exit 255")
    error = refused("stop", "small", "--cluster", file)
    assert "its head nobody@127.0.0.1 cannot be reached by SSH (connect to host" in error


def test_a_head_without_a_token(file, refused, tmp_path, monkeypatch):
    ssh(tmp_path, monkeypatch, "echo; cat >/dev/null")
    assert f"`ray up {file}` first" in refused("stop", "small", "--cluster", file)


def test_one_place_is_enough(file, refused):
    assert "give one of them" in refused("stop", "small", "--cluster", file, "--address", "http://127.0.0.1:8265")


def test_data_of_this_machine_alone_names_the_push(file, refused, tmp_path, monkeypatch, tiny_dataset):
    ssh(tmp_path, monkeypatch, "echo token; cat >/dev/null")
    data = tiny_dataset()
    sweep = tmp_path / "sweep.yaml"
    keys = {"search": {"optim.rate": {"float": [0.001, 0.01]}}, "budget": {"trials": 2}}
    sweep.write_text(yaml.safe_dump({"data": str(data), "objective": {"holdout/point_score": "max"}, **keys}))
    monkeypatch.setattr("tune.launch.target.connect", lambda server: object())
    assert f"`semprior data push {data} URI`" in refused("submit", sweep, "--cluster", file)
    weights = tmp_path / "own weights.pth"
    weights.touch()
    sweep.write_text(sweep.read_text() + f"base: {{preset: quick, vfm.weights: {weights}}}\n")
    push = f"`semprior vfm push tf_efficientnet_lite2 URI --weights '{weights}'`"
    assert push in refused("submit", sweep, "--cluster", file)
    keys["data"] = f"file://{tmp_path}/nothing"
    sweep.write_text(yaml.safe_dump({"objective": {"holdout/point_score": "max"}, **keys}))
    assert "nothing is there; put it there with" in refused("submit", sweep, "--cluster", file)


def test_the_dashboard_is_where_the_start_command_puts_it(file):
    content = yaml.safe_load(file.read_text())
    assert find_head(file).dashboard == ("127.0.0.1", 8265)
    start = content["head_start_ray_commands"]
    start[-1] = start[-1].replace("--dashboard-host=127.0.0.1", "--dashboard-host=$NODE_ADDRESS --dashboard-port=9000")
    content["provider"]["head_ip"] = "10.0.0.7"
    file.write_text(yaml.safe_dump(content))
    assert find_head(file).dashboard == ("10.0.0.7", 9000)


def test_the_tunnel_ends_with_the_command(file, tmp_path, monkeypatch):
    ssh(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/pid; echo secret; exec cat >/dev/null")
    before = dict(os.environ)
    with read_target({"RAY_AUTH_TOKEN": "of another cluster"}, cluster=file).reached() as target:
        assert target.address.startswith("http://127.0.0.1:")
        assert target.token == "secret"
        assert dict(os.environ) == before
    assert subprocess.run(["kill", "-0", (tmp_path / "pid").read_text().strip()], stderr=-3, check=False).returncode


def test_nodes_that_are_coming_count():
    head = {"CPU": 0.0}
    kinds = {
        "head": {"resources": {"CPU": 0}},
        "worker": {"resources": {"CPU": 4, "GPU": 1, "memory": 10}, "max_workers": 8},
    }
    config = {
        "provider": {"type": "external"},
        "max_workers": 8,
        "head_node_type": "head",
        "available_node_types": kinds,
    }
    assert coming_nodes([head], config) == [{"CPU": 4.0, "GPU": 1.0, "memory": 10.0}] * 8
    assert len(coming_nodes([head, {"CPU": 4.0, "GPU": 1.0}], config)) == 7
    local = {"provider": {"type": "local", "worker_ips": ["a", "b"]}}
    assert coming_nodes([{"CPU": 2.0}], local) == []  # nobody knows what they are


def test_a_provider_that_does_not_answer_is_one_line(tmp_path):
    path = tmp_path / "cloud.yaml"
    path.write_text(
        (ROOT / "cluster.yaml")
        .read_text()
        .replace("tune.launch.aws_provider.Provider", "tune.launch.aws_provider.Nothing")
    )
    with pytest.raises(UserError, match="its head cannot be found"):
        find_head(path)


def test_the_cause_is_told_and_a_launch_is_proposed_only_where_it_helps(tmp_path, monkeypatch):
    from botocore.exceptions import ClientError
    from ray.autoscaler._private import commands
    from ray.autoscaler._private.aws.utils import boto_exception_handler

    path = tmp_path / "cloud.yaml"
    path.write_text((ROOT / "cluster.yaml").read_text())

    def expired(file):
        with boto_exception_handler("no instances"):  # as Ray's provider asks
            raise ClientError({"Error": {"Code": "RequestExpired", "Message": "Request has expired."}}, "Describe")

    def down(file):
        raise RuntimeError("Head node of cluster (semprior) not found!")

    monkeypatch.setattr(commands, "get_head_node_ip", expired)
    with pytest.raises(UserError, match="AWS: the session has expired; log in again") as refused:
        find_head(path)
    assert "ray up" not in str(refused.value)
    monkeypatch.setattr(commands, "get_head_node_ip", down)
    with pytest.raises(UserError, match=r"not found!; `ray up .*cloud.yaml` first"):
        find_head(path)


def test_a_key_that_is_given_is_the_only_one_that_is_tried(file, tmp_path, monkeypatch):
    ssh(tmp_path, monkeypatch, f"echo $* >{tmp_path}/words; echo secret; exec cat >/dev/null")
    with read_target({}, cluster=file).reached():
        pass
    assert f"-i {tmp_path}/none -o IdentitiesOnly=yes" in (tmp_path / "words").read_text()
