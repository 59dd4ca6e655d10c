"""What a store holds may come from anybody: every command shows it as text, whatever it is."""

import csv
import io
import json
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from semprior.io.checkpoint import load_checkpoint
from tests.tiny import write_checkpoint
from tests.tune.made_up import made_up_sweep
from tests.tune.monitor.test_live_view import row, view
from tune.cli.app import main
from tune.monitor.live_view import progress_table
from tune.store.checkpoints import put_checkpoint
from tune.store.records import Record
from tune.store.results_store import ResultsStore

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
NAME = "[bold]:fire:\x9b31m\u202e"  # a storage refuses ASCII controls in names
HOSTILE = f"=[/x]:fire:<script>`{ESCAPES}\r\nsemprior: done"
COMMANDS = (
    *(
        ["list"],
        ["status", "small"],
        ["top", "small"],
        ["top", "small", "--by", "last"],
    ),
    *(["show", "small", "0009"], ["logs", "small", "0009"], ["pull", "small:0009", "--out", "{}"]),
    *(
        [name, *sweep, "--format", form]
        for name, sweep in (("list", []), ("top", ["small"]))
        for form in ("csv", "json")
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The made-up sweep with a trial, the best, each of whose texts is hostile; and a sweep of a hostile name."""
    folder = tmp_path_factory.mktemp("hostile")
    sweep = made_up_sweep(folder)
    kept = put_checkpoint(sweep.storage, "0009", 1, load_checkpoint(write_checkpoint(folder / "checkpoint")))
    config = next(iter(ResultsStore(sweep.storage).records().values()))[0].config
    of = {
        **{"trial": "0009", "configuration": 9, "seed": 0, "attempt": 1, "params": {"clusters.count": HOSTILE}},
        **{"config": config, "versions": {HOSTILE: HOSTILE}, "checkpoint": kept.address, "sha256": kept.sha256},
        **dict.fromkeys(("host", "device", "revision", "data", "instructions"), HOSTILE),
    }
    told = {"metrics": {"holdout/point_score": 0.9}, "values": (0.9,), "best": True}
    records = [Record(kind="start", epoch=0, reason=HOSTILE, **of), Record(kind="report", epoch=0, **of, **told)]
    ResultsStore(sweep.storage).append([*records, Record(kind="end", epoch=1, state="failed", reason=HOSTILE, **of)])
    sweep.storage.put("logs/0009.log", f"one\n{HOSTILE}\n".encode())
    (folder / "runs" / NAME).mkdir()
    (folder / "runs" / NAME / "sweep.json").write_text("{")
    return folder


def controls(text):
    """The characters of a text that a terminal would not print but obey."""
    return set(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_gives_a_terminal_anything_to_obey(folder, tmp_path, capsys, words):
    code = main([*(word.format(tmp_path / "out") for word in words), "--storage", str(folder / "runs")])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert controls(shown.out) == set()
    assert words[0] == "logs" or "\nsemprior: done" not in shown.out
    if words[0] == "top" and "csv" in words:
        (first, *_) = csv.DictReader(io.StringIO(shown.out))
        assert first["clusters.count"].startswith("'=[/x]:fire:<script>")
    elif words[0] in ("top", "show", "status"):
        assert "[/x]:fire:" in shown.out or words[0] == "status"


def test_an_error_line_shows_a_name_as_text(folder, capsys):
    assert main(["top", NAME, "--storage", str(folder / "runs")]) == 2
    shown = capsys.readouterr().err
    assert controls(shown) == set() and shown.count("\n") == 1 and "[bold]" in shown


def test_the_live_table_shows_a_value_as_text():
    file = io.StringIO()
    rows = [row(1, params={"clusters.count": HOSTILE, HOSTILE: 1}), row(2, "failed", reason=HOSTILE, params={})]
    for width in (60, 250):
        seen = view(*rows, name=HOSTILE, note=HOSTILE, trials=2)
        Console(file=file, width=width, color_system=None).print(progress_table(seen, width, 40))
    assert controls(file.getvalue()) == set()
    assert "=[/x]:fire:" in file.getvalue()


def test_a_model_card_has_no_html_and_no_links(folder, tmp_path, capsys):
    assert main(["pull", "small:0009", "--out", str(tmp_path / "out"), "--storage", str(folder / "runs")]) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert controls(card) == set()
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(card)
    kinds = {token.type for outer in tokens for token in (outer, *(outer.children or ()))}
    assert not kinds & {"html_block", "html_inline", "link_open", "image"}
    code = [token.content for outer in tokens for token in outer.children or () if token.type == "code_inline"]
    assert sum("<script>" in content for content in code) >= 4
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["host"] == HOSTILE  # data are not changed
