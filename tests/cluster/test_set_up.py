"""What the commands of cluster.yaml and deploy/onprem.yaml do to a bare machine."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.repository import ROOT

CONFIG = yaml.safe_load((ROOT / "deploy" / "onprem.yaml").read_text())


@pytest.fixture
def node(tmp_path):
    """A bare machine's home with the mounted files, and pins that one local package satisfies."""
    home, wheels = tmp_path / "home", tmp_path / "wheels"
    for remote, local in CONFIG["file_mounts"].items():
        shutil.copytree(ROOT / local, home / remote.removeprefix("~/"), ignore=shutil.ignore_patterns("__pycache__"))
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_thing.py", "")
        wheel.writestr("tiny_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    (home / "semprior-cluster" / "deploy" / "requirements.txt").write_text("tiny-thing==1.0\n")
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "SSH_CONNECTION": "10.0.0.1 5000 10.0.0.2 22",
    }

    def start(command, **more):
        return subprocess.Popen(
            ["bash", "-c", command], env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(command, **more):
        process = start(command, **more)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    run.home, run.start = home, start
    return run


@pytest.mark.slow
def test_set_up_makes_one_environment_under_a_lock_then_needs_no_network_and_follows_the_pins(node):
    [command] = CONFIG["setup_commands"]
    both = [node.start(command), node.start(command)]  # two launchers at once
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    home = node.home
    python = home / "semprior-cluster" / ".venv" / "bin" / "python"
    assert subprocess.run([python, "-c", "import tiny_thing"], check=False).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.name not in {".setup-lock"}}
    assert node(command, PIP_FIND_LINKS="") == ""  # nothing to do, nothing said
    after = {path: path.stat().st_mtime_ns for path in before if path.exists()}
    assert after == before
    assert (home / ".bashrc").read_text().count("semprior-cluster/bin") == 1

    pins, ready = (home / "semprior-cluster" / name for name in ("deploy/requirements.txt", ".ready"))
    first = ready.read_text()
    pins.write_text("tiny-thing==2.0\n")
    process = node.start(command)
    assert process.wait(timeout=300) != 0  # and tried again next time
    assert ready.read_text() == first


def test_the_head_makes_a_token_that_only_the_user_reads_and_keeps_it(node):
    (node.home / "semprior-cluster" / ".venv").symlink_to(sys.prefix)
    [command] = CONFIG["head_setup_commands"]
    node(command)
    token = node.home / ".ray" / "auth_token"
    first = token.read_text()
    assert len(first) >= 32
    assert token.stat().st_mode & 0o077 == 0
    node(command)
    assert token.read_text() == first


def test_a_nodes_address_is_the_one_the_launcher_reached(node):
    output = node(
        ". ~/semprior-cluster/deploy/node.sh && echo $NODE_ADDRESS ${OMP_NUM_THREADS-unset}", OMP_NUM_THREADS="1"
    )
    assert output.split() == ["10.0.0.2", "unset"]


def programs(node, **scripts):
    """Put programs before all others of a bare machine; returns the value for PATH."""
    folder = node.home.parent / "programs"
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.slow
def test_set_up_begins_an_environment_again_that_was_cut_off(node):
    environment = node.home / "semprior-cluster" / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [command] = CONFIG["setup_commands"]
    node(command)
    assert subprocess.run([environment / "bin" / "python", "-c", "import tiny_thing"], check=False).returncode == 0


@pytest.mark.slow
def test_set_up_waits_for_what_a_new_machine_installs_itself(node):
    log, missing = node.home / "log", f"[ -e {node.home}/has-venv ] || exit 1"
    pythons = {name: f'{missing}; exec {sys.executable} "$@"' for name in ("python3", "python3.13", "python3.12")}
    path = programs(
        node,
        **pythons | {"python3.11": pythons["python3"]},
        id="echo 1000",
        sudo='env -u DEBIAN_FRONTEND "$@"',
        sleep="true",
        **{"cloud-init": f'echo "cloud-init $*" >>{log}'},
        **{
            "apt-get": f"""
            echo "apt-get $DEBIAN_FRONTEND $*" >>{log}
            case "$*" in
            *update*) [ $(grep -c update {log}) = 2 ] || exit 100 ;;
            *) touch {node.home}/has-venv ;;
            esac"""
        },
    )
    [command] = CONFIG["setup_commands"]
    node(command, PATH=path)
    options = "noninteractive --yes --quiet --option DPkg::Lock::Timeout=300"
    assert log.read_text().splitlines() == [
        "cloud-init status --wait",
        f"apt-get {options} update",
        f"apt-get {options} update",
        f"apt-get {options} install --no-install-recommends python3-venv",
    ]


def test_a_worker_whose_start_fails_is_started_again(node):
    folder = node.home / "semprior-cluster" / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "ray").write_text("""#!/bin/bash
        echo "$*" >>~/log
        [ "$1" = start ] || exit 0
        [ $(grep -c start ~/log) -gt 1 ] || { echo "no head"; exit 1; }
        echo "Ray runtime started"
        exec sleep 2""")
    (folder / "ray").chmod(0o755)
    [command] = CONFIG["worker_start_ray_commands"]
    assert "no head" in node(f"RAY_HEAD_IP=10.0.0.1; sleep() {{ command sleep 0.1; }}; export -f sleep; {command}")
    starts = [line for line in (node.home / "log").read_text().splitlines() if line.startswith("start")]
    words = "start --address=10.0.0.1:6379 --node-ip-address=10.0.0.2 --block --object-store-memory=500000000"
    assert starts == [words] * 2


def test_ones_own_machines_are_waited_for_and_those_of_a_cloud_are_replaced(node):
    command = ". ~/semprior-cluster/deploy/node.sh && echo ${AUTOSCALER_NODE_START_WAIT_S-usual}"
    config = node.home / "ray_bootstrap_config.yaml"
    assert node(command).strip() == "usual"
    for kind, wait in (("external", "usual"), ("local", "1000000000")):
        config.write_text(json.dumps({"cluster_name": "some", "provider": {"type": kind}}))
        assert node(command).strip() == wait
