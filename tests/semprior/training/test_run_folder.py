"""The folder of a run appears whole, keeps every epoch once, and says what is wrong with it in one line."""

import errno
import json
import os

import numpy as np
import pytest
import yaml

from semprior.config.schema import flatten, resolve, unflatten
from semprior.errors import UserError
from semprior.labels.label_history import LabelWindow
from semprior.reporting.tensorboard import EventFile, open_event_file
from semprior.training.run_folder import RunFolder
from tests.tiny import optional

CONFIG = unflatten({"epochs": 7, "scam.stages": [1, 3], "optim.clip": None})


@pytest.fixture
def run(tmp_path):
    (tmp_path / "data").mkdir()
    return RunFolder.create(tmp_path / "run", CONFIG, tmp_path / "data")


def test_every_leaf_is_written_and_read_back(run, tmp_path):
    assert run.config() == CONFIG
    assert run.data() == str(tmp_path / "data")
    written = yaml.safe_load((run.root / "config.yaml").read_text())
    assert written["scam"]["stages"] == [1, 3]
    assert {key for key in flatten(CONFIG) if "." not in key} <= set(written)
    assert sorted(os.listdir(run.root)) == ["checkpoints", "config.yaml", "log.txt", "metrics.jsonl", "run.json"]


def test_the_written_config_serves_another_run(run):
    assert resolve(file=run.root / "config.yaml", environment={}).config == CONFIG


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link", "run"])
def test_what_exists_is_refused_and_left_alone(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    elif kind == "run":
        RunFolder.create(out, CONFIG, tmp_path)
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match="--resume" if kind == "run" else "exists already; choose another"):
        RunFolder.create(out, CONFIG, tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_cannot_be_finished_does_not_appear(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space"):
        RunFolder.create(tmp_path / "run", CONFIG, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("make", "fault"), [(False, "there is no run to resume"), (True, "not the folder of a run")])
def test_only_a_run_is_opened(tmp_path, make, fault):
    out = tmp_path / "out"
    if make:
        out.mkdir()
    with pytest.raises(UserError, match=fault):
        RunFolder.open(out)


def test_one_process_at_a_time(run):
    with run.locked(), pytest.raises(UserError, match="another process"), run.locked():
        pass
    with run.locked():
        pass


def test_metrics_are_one_object_an_epoch(run):
    run.append({"epoch": 0, "inner_loss": 0.5, "holdout/pd": float("nan"), "best": True})
    run.append({"epoch": 1, "inner_loss": 0.25})
    texts = (run.root / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text)["epoch"] for text in texts] == [0, 1]
    assert "NaN" not in texts[0]
    assert run.lines()[0] == {"epoch": 0, "inner_loss": 0.5, "holdout/pd": None, "best": True}


def test_a_line_cut_short_by_a_kill_is_forgotten(run):
    run.append({"epoch": 0})
    with (run.root / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "inner')
    assert run.lines() == [{"epoch": 0}]
    run.rewind(1)
    run.append({"epoch": 1})
    assert run.lines() == [{"epoch": 0}, {"epoch": 1}]


def test_pseudo_masks_of_epochs_that_are_trained_again_are_dropped(run):
    assert run.labels() == {}
    window = LabelWindow("صورة", np.zeros((4, 5), np.uint8), np.full((4, 5), 255, np.uint8))
    for epoch in (0, 5, 10):
        run.keep_labels(epoch, [window])
    (run.root / "pseudo-masks" / "notes.txt").touch()
    run.rewind(6)
    kept = run.labels()
    assert list(kept) == [0, 5]
    assert kept[5][0].name == "صورة"
    (run.root / "pseudo-masks" / "epoch-0005.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"epoch-0005\.npz: is damaged"):
        run.labels()


def test_a_damaged_line_before_the_last_is_named(run):
    (run.root / "metrics.jsonl").write_text('{"epoch": 0}\nrubbish\n{"epoch": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is damaged"):
        run.lines()


@pytest.mark.parametrize(
    "text", ['{"epokh": 0}', '{"epoch": "0"}', "[]", '{"epoch": 0, "holdout/iou": "high"}', '{"epoch": 0, "best": 1}']
)
def test_a_line_of_another_type_is_named(run, text):
    (run.root / "metrics.jsonl").write_text(f'{text}\n{{"epoch": 1}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: is damaged"):
        run.rewind(1)


@pytest.mark.parametrize("epoch", [0, 2, 5, 9])
def test_rewinding_drops_what_will_be_trained_again(run, epoch):
    for number in range(5):
        run.append({"epoch": number})
    run.rewind(epoch)
    assert [line["epoch"] for line in run.lines()] == list(range(min(epoch, 5)))


def test_a_full_disk_while_rewinding_keeps_the_metrics(run, monkeypatch):
    run.append({"epoch": 0})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run.rewind(0)
    monkeypatch.undo()
    assert run.lines() == [{"epoch": 0}]
    assert not [name for name in os.listdir(run.root) if name.startswith(".")]


def test_settings_are_replaced_at_once(run):
    run.set_config(unflatten({"epochs": 9}))
    assert run.config().epochs == 9


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "not json"])
def test_a_damaged_record_asks_for_the_data(run, text):
    (run.root / "run.json").write_text(text)
    with pytest.raises(UserError, match="give --data"):
        run.data()


def test_the_log_has_times(run):
    run.log("hello")
    assert (run.root / "log.txt").read_text().endswith("  hello\n")


def test_the_board_is_read_by_what_wrote_it(tmp_path):
    optional("tensorboardX")
    import numpy as np
    from tensorboardX.proto.event_pb2 import Event

    events = open_event_file(tmp_path / "tensorboard", 3)
    events.add_scalars({"train/inner_loss": 0.5}, 3)
    events.add_image("predictions", np.zeros((4, 6, 3), np.uint8), 3)
    events.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    assert [event.step for event in events] == [0, 3, 3, 3]
    assert events[2].summary.value[0].simple_value == 0.5
    assert events[3].summary.value[0].image.width == 6


def test_without_tensorboardx_the_board_is_silent():
    events = EventFile(None)
    events.add_scalars({"a": 1.0}, 0)
    events.close()
    assert not events.writes
