"""The README's commands work as they stand, on small data and few epochs; what it names exists."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from semprior.cli import main
from semprior.config import Config, flatten, preset_names

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines() if line.strip()
]
SHORT = ["epochs=2", "data.crop=64", "data.batch=4", "clusters.count=4", "outer.every=1", "outer.steps=1"]


def expand(word: str, places: dict[str, Path]) -> list[str]:
    """A word of a command with its placeholders filled in, and as the shell would match it."""
    for placeholder, place in places.items():
        word = re.sub(rf"^{re.escape(placeholder)}(?=/|$)", str(place), word)
    folder, _, pattern = word.rpartition("/")
    return [str(path) for path in sorted(Path(folder).glob(pattern))] if "*" in pattern else [word]


def test_commands_work_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path / "cache"))
    names = ("DIR", "RUN", "PREDICTED", "SCENES", "student.onnx")
    places = {name: tmp_path / name.lower() for name in names}
    assert main(["data", "synth", str(places["DIR"]), "--count", "12"]) == 0
    ran = set()
    for command in COMMANDS:
        program, *words = shlex.split(command)
        if program != "semprior":
            continue
        arguments = [argument for word in words for argument in expand(word, places)]
        if words[0] == "train" and "--resume" not in words:
            arguments += [part for setting in SHORT for part in ("--set", setting)]
        elif words[0] == "train":
            arguments += ["--set", "epochs=3"]
        elif "--count" in words:
            arguments[arguments.index("--count") + 1] = "3"
        assert main(arguments) == 0, (command, capsys.readouterr())
        ran.add(words[0])
    assert ran == {"train", "evaluate", "predict", "export", "data"}
    assert len(list(places["PREDICTED"].glob("*.png"))) >= 24
    assert (places["PREDICTED"] / "detections.csv").is_file()
    assert len((places["RUN"] / "metrics.jsonl").read_text().splitlines()) == 3
    assert places["student.onnx"].is_file()


def test_make_targets_and_extras_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for program, *words in map(shlex.split, COMMANDS):
        assert program in ("semprior", "make", "pip")
        if program == "make":
            assert set(words) <= targets
    assert set(re.findall(r"`\[([a-z]+)\]`", TEXT)) <= set(extras)


@pytest.mark.parametrize("page", ["README.md", "docs/data.md", "docs/point_score.md", "docs/configuration.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_presets_and_keys_exist():
    assert set(re.findall(r"^\| `([a-z]+)` \|", TEXT, re.MULTILINE)) == set(preset_names())
    keys = set(re.findall(r"\b(?:data|vfm|scam|optim|select|labels)\.[a-z_]+", TEXT)) - {"data.md"}
    assert keys and keys <= set(flatten(Config()))
