"""Three hosts on this machine, made by the script `hosts`, and a launcher file for them."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from semprior.kernels.build import library
from tests.repository import ROOT

SCRIPT = Path(__file__).with_name("hosts")
FOLDER = Path(os.environ.get("HOSTS_DIR", "/srv/semprior-hosts"))
COUNT = 3


@dataclass(frozen=True)
class Hosts:
    """The hosts, their launcher file, and a folder that all of them share with this machine."""

    file: Path
    shared: Path

    def __call__(self, *arguments) -> str:
        """Call the script."""
        done = subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"hosts {arguments}: {done.stderr}"
        return done.stdout

    def processes(self, host) -> list[str]:
        """What runs on a host beside its sshd."""
        return self("processes", host).splitlines()


def lack() -> str | None:
    """What this machine lacks to make hosts; none if nothing."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    missing = [name for name in ("sshd", "ssh", "rsync", "ip", "unshare") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: openssh-server, openssh-client, rsync, iproute2, util-linux)"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"cannot make namespaces here ({tried.stderr.strip()})" if tried.returncode else None


@pytest.fixture(scope="session")
def hosts(kernels):
    """Hosts with nothing running, and the environment and the compiled layers of this machine ready on each."""
    reason = lack()
    if reason:
        (pytest.fail if os.environ.get("SEMPRIOR_REQUIRE_ALL") == "1" else pytest.skip)(f"hosts: {reason}")
    assert library() is not None  # compiled here, once
    made = subprocess.run([SCRIPT, "up", str(COUNT)], capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    try:
        head, *workers = made.stdout.split()
        pins = hashlib.sha256((ROOT / "deploy" / "requirements.txt").read_bytes()).hexdigest()
        for host in range(COUNT):
            node = FOLDER / str(host) / "semprior-cluster"
            (node / ".venv").symlink_to(sys.prefix)
            (node / ".ready").write_text(f"{pins}  -")
            cached = FOLDER / str(host) / ".cache" / "semprior" / "kernels"
            shutil.copytree(kernels, cached, ignore=shutil.ignore_patterns(".*"))
            with (FOLDER / str(host) / "bashrc").open("a") as bashrc:
                # All hosts see, and would fill, the same memory; and share processors with what else runs here, to
                # which Ray's workers would give way, with a niceness of 15.
                bashrc.write("export RAY_memory_monitor_refresh_ms=0 RAY_worker_niceness=0\n")
        content = (ROOT / "deploy" / "onprem.yaml").read_text()
        for place, filled in (
            ("cluster_name: semprior", f"cluster_name: hosts-{os.getpid()}"),
            ("HEAD_ADDRESS", head),
            ("[WORKER_ADDRESS]", f"[{', '.join(workers)}]"),
            ("file:///STORAGE", f"file://{FOLDER}/shared/runs"),
            ("USER", "root"),
            ("~/.ssh/id_ed25519", str(FOLDER / "id")),
        ):
            assert place in content
            content = content.replace(place, filled)
        file = FOLDER / "shared" / "onprem.yaml"
        file.write_text(content)
        assert yaml.safe_load(content)["provider"]["head_ip"] == head
        yield Hosts(file, FOLDER / "shared")
    finally:
        subprocess.run([SCRIPT, "down"], capture_output=True, timeout=120, check=False)
