"""Both command lines where the terminal knows ASCII alone, and where there is no home."""

import os
import subprocess
import sys

import pytest

from tests.repository import ROOT
from tests.tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.trains

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PLAIN = """
import sys
from semprior.reporting.terminal import command_line, console, run
from tune.monitor.tables import print_table

app = command_line()

@app.command()
def say():
    print("0.5 ± 0.1, naïve → \\udce9")
    print_table(console(), {"a": "left"}, [["1 ± 2"]], "Tafel…")
    sys.stderr.write("± é\\n")

sys.exit(run(app, "plain", []))
"""


def run(*arguments, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, check=False)


def test_what_a_terminal_cannot_show_is_replaced(tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN, encoding="utf-8")
    done = run(tmp_path / "plain.py", **ASCII)
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.decode("ascii").splitlines()]
    assert lines[:2] == ["0.5 +- 0.1, naive ? ?", "Tafel..."]
    assert any(line.strip("| ") == "1 +- 2" for line in lines)
    assert done.stderr == b"+- e\n"


@pytest.mark.parametrize("variables", [ASCII, {"HOME": "/proc/nonexistent"}], ids=["ascii", "no home"])
def test_the_commands_of_a_run(tmp_path, variables, kernels):
    data, out = write_dataset(tmp_path / "données"), tmp_path / "läuft"
    if "HOME" in variables:
        variables = variables | {"SEMPRIOR_CACHE": "", "TMPDIR": str(tmp_path)}
        cache = tmp_path / f"semprior-{os.getuid()}"  # where it is without a home
        cache.mkdir(mode=0o700)
        (cache / "kernels").symlink_to(kernels)
    settings = [word for setting in (*SETTINGS, "epochs=1") for word in ("--set", setting)]
    for words in (
        ["train", "--data", data, "--out", out, *settings],
        ["evaluate", out, "--data", data],
        ["predict", out, data / "images" / "test00.png", "--out", tmp_path / "found", "--overlay"],
        ["evaluate", tmp_path / "é", "--data", data],
    ):
        done = run("-m", "semprior", *words, **variables)
        assert done.returncode == (2 if words[1] == tmp_path / "é" else 0), done.stderr
        assert b"Traceback" not in done.stderr
