"""The README's commands work as they stand, on small data and few epochs; what it names exists."""

import re
import shlex
import tomllib
from pathlib import Path

import optuna
import pytest
import yaml

import semprior.cli.app
import tune.cli.app
from semprior.config.schema import Config, flatten, preset_names
from tests.repository import ROOT

pytestmark = pytest.mark.ray

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines() if line.strip()
]
CLOUD = ("ray up ", "ray down ", "semprior data push ", "--cluster cluster.yaml")
"""What marks the commands that no test runs here, for they need a cloud; tests/cluster/ runs their like on hosts."""
SHORT = ["epochs=2", "data.crop=64", "data.batch=4", "clusters.count=4", "outer.every=1", "outer.steps=1"]
SHORTER = {"epochs": 2, "data.crop": 64, "data.batch": 4, "select.after": 0.0, "select.every": 1, "detector": "mlclnet"}
MAINS = {"semprior": semprior.cli.app.main, "tune": tune.cli.app.main}


def expand(word: str, places: dict[str, Path]) -> list[str]:
    """A word of a command with its placeholders filled in, and as the shell would match it."""
    for placeholder, place in places.items():
        word = re.sub(rf"^{re.escape(placeholder)}(?=/|$)", str(place), word)
    folder, _, pattern = word.rpartition("/")
    return [str(path) for path in sorted(Path(folder).glob(pattern))] if "*" in pattern else [word]


def needs_cloud(command: str) -> bool:
    return any(mark in command for mark in CLOUD)


def test_commands_of_one_run_work_in_their_order(tmp_path, capsys):
    names = ("DIR", "RUN", "PREDICTED", "SCENES", "student.onnx", "int8.onnx")
    places = {name: tmp_path / name.lower() for name in names}
    assert semprior.cli.app.main(["data", "synth", str(places["DIR"]), "--count", "12"]) == 0
    ran = set()
    for command in COMMANDS:
        program, *words = shlex.split(command)
        if program != "semprior" or needs_cloud(command) or {"BEST", "FINAL"} & set(words):
            continue
        arguments = [argument for word in words for argument in expand(word, places)]
        if words[0] == "train" and "--resume" not in words:
            arguments += [part for setting in SHORT for part in ("--set", setting)]
        elif words[0] == "train":
            arguments += ["--set", "epochs=3"]
        elif "--count" in words:
            arguments[arguments.index("--count") + 1] = "3"
        elif words[0] == "cost":
            arguments += ["--size", "32"]
        assert semprior.cli.app.main(arguments) == 0, (command, capsys.readouterr())
        ran.add(words[0])
    assert ran == {"train", "evaluate", "predict", "export", "report", "cost", "data"}
    assert len(list(places["PREDICTED"].glob("*.png"))) >= 24
    assert (places["PREDICTED"] / "detections.csv").is_file()
    assert len((places["RUN"] / "metrics.jsonl").read_text().splitlines()) == 3
    assert places["student.onnx"].is_file() and places["int8.onnx"].is_file()


def write_sweep(folder: Path, data: Path) -> None:
    """The README's sweep file, with few trials of few epochs."""
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    content = yaml.safe_load(text)
    content["data"] = str(data)
    content["base"] |= SHORTER
    content["budget"]["trials"] = 2
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_commands_of_sweeps_work_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    names = ("DIR", "BEST", "FINAL", "final.onnx")
    places = {name: tmp_path / name.lower() for name in names}
    assert semprior.cli.app.main(["data", "synth", str(places["DIR"]), "--count", "15"]) == 0
    write_sweep(tmp_path, places["DIR"])
    fewer = {"--top": "1", "--seeds": "2", "--set": "epochs=3", "--trials": "+1"}
    ran = []
    for command in COMMANDS:
        program, *words = shlex.split(command)
        ours = words[:2] == ["-m", "tune"] or (program == "semprior" and {"BEST", "FINAL"} & set(words))
        if not ours or needs_cloud(command):
            continue
        program, words = ("tune", words[2:]) if program == "python" else (program, words)
        arguments = [argument for word in words for argument in expand(word, places)]
        arguments = [fewer.get(before, word) for before, word in zip(["", *arguments], arguments, strict=False)]
        assert MAINS[program](arguments) == 0, (command, capsys.readouterr())
        ran.append(words[0])
        shown = capsys.readouterr().out
        if words[0] == "top":
            assert "0000, the preset itself" in shown
    commands = {name for line in COMMANDS for name in re.findall(r"^python -m tune ([a-z]+)", line)}
    assert commands == {command.name for command in tune.cli.app.app.registered_commands if command.name} | {
        command.callback.__name__ for command in tune.cli.app.app.registered_commands if not command.name
    }
    assert commands <= set(ran)
    assert places["final.onnx"].is_file()
    # what the README gives to a browser, to tensorboard and to optuna-dashboard
    assert "first" in (tmp_path / "first.html").read_text(encoding="utf-8")
    (exported,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path}/first.db")
    assert exported.n_trials == 3
    assert any((tmp_path / "runs/first/tensorboard").rglob("events.out.tfevents.*"))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "runs/first/study.journal"))
    (study,) = optuna.get_all_study_summaries(optuna.storages.JournalStorage(backend))
    assert study.n_trials == 3  # two, and the one that `extend` added


def test_make_targets_and_extras_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for program, *words in map(shlex.split, COMMANDS):
        assert program in ("semprior", "python", "make", "pip", "ray", "tensorboard", "optuna-dashboard")
        if program == "make":
            assert set(words) <= targets
    assert set(re.findall(r"`\[([a-z]+)\]`", TEXT)) <= set(extras)


PAGES = sorted(str(page.relative_to(ROOT)) for of in (".", "docs", "benchmarks") for page in (ROOT / of).glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_presets_and_keys_exist():
    assert set(re.findall(r"^\| `([a-z]+)` \|", TEXT, re.MULTILINE)) == set(preset_names())
    keys = set(re.findall(r"\b(?:data|vfm|scam|optim|select|labels|clusters)\.[a-z_]+", TEXT)) - {"data.md"}
    assert keys and keys <= set(flatten(Config()))
