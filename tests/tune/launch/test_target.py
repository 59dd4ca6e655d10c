"""Which storage, cluster and token a command uses, and the commands that messages propose."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.tune.small_sweep import spec_of
from tune.cli.submit import read_spec
from tune.launch import target as target_module
from tune.launch.target import Target, read_target
from tune.store.sweeps import create_sweep


@pytest.fixture
def cluster_file(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(json.dumps({"provider": {"type": "local", "storage": f"file://{tmp_path}/cluster"}}))
    return path


@pytest.mark.parametrize(
    ("option", "with_cluster", "variable", "expected"),
    [
        ("option", True, "variable", "option"),
        (None, True, "variable", "cluster"),
        (None, False, "variable", "variable"),
        (None, False, None, "runs"),
        (None, False, "", "runs"),
    ],
)
def test_the_storage_is_that_of_the_option_the_cluster_the_variable_or_the_usual_folder(
    tmp_path, monkeypatch, cluster_file, option, with_cluster, variable, expected
):
    monkeypatch.chdir(tmp_path)
    environment = {} if variable is None else {"SEMPRIOR_STORAGE": variable and str(tmp_path / variable)}
    storage = str(tmp_path / option) if option else None
    target = read_target(environment, storage, cluster_file if with_cluster else None)
    assert target.storage().local == tmp_path / expected


def test_a_sweep_file_gets_the_storage_of_the_target_and_the_variables_of_the_environment(
    tmp_path, cluster_file, monkeypatch
):
    monkeypatch.setattr("tune.cli.submit.check_data", lambda _: None)
    monkeypatch.chdir(tmp_path)
    spec_of(tmp_path)
    file, environment = tmp_path / "sweep.yaml", {"SEMPRIOR__SCAM__DROP": "0.25", "HOME": "/nowhere"}
    spec = read_spec(file, read_target(environment), Console())
    assert (spec.base["scam.drop"], spec.storage) == (0.25, str(tmp_path / "runs"))
    assert read_spec(file, read_target({}, cluster=cluster_file), Console()).storage == f"file://{tmp_path}/cluster"
    assert read_spec(file, read_target({}, str(tmp_path / "own"), cluster_file), Console()).storage.endswith("/own")


def test_commands_name_what_the_next_command_would_not_find_by_itself(tmp_path, cluster_file):
    sweep = create_sweep(read_target({}, str(tmp_path / "runs")).storage(), "demo", spec_of(tmp_path))
    usual = Target(usual_storage=str(tmp_path / "runs"))
    assert usual.command("resume", sweep) == "semprior-tune resume demo"
    assert usual.command("pull", sweep, "--out", "DIR", trial="0007") == "semprior-tune pull demo:0007 --out DIR"
    elsewhere = Target(usual_storage=str(tmp_path / "other"), cluster=Path("my cluster.yaml"))
    assert elsewhere.command("top", sweep).endswith("/runs --cluster 'my cluster.yaml'")
    assert elsewhere.command("top", sweep).startswith("semprior-tune top demo --storage ")


def test_the_token_is_that_of_rays_variables_or_file_and_jobs_get_the_storage_server(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("of the file\n")
    monkeypatch.setattr(target_module, "connect", lambda server: server)
    environment = {"RAY_AUTH_TOKEN_PATH": str(file), "AWS_ENDPOINT_URL": "http://s3", "AWS_SECRET_ACCESS_KEY": "secret"}
    server = read_target(environment, address="http://head:8265").connect()
    assert (server.token, server.variables) == ("of the file", {"AWS_ENDPOINT_URL": "http://s3"})
    assert server.option == "--address http://head:8265"
    environment |= {"RAY_AUTH_TOKEN": " of the variable "}
    assert read_target(environment, address="http://head:8265").connect().token == "of the variable"
    environment |= {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}
    assert read_target(environment, address="http://head:8265").connect().token is None
    assert read_target({}).connect() is None
