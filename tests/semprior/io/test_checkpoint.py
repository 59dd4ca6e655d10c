"""Checkpoints survive a round trip and a kill at any moment; damage and other formats are refused."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save

from semprior.errors import UserError
from semprior.io.checkpoint import CheckpointFolder, Snapshot, find_checkpoint, load_checkpoint, save_checkpoint


def snapshot(epoch=3, fill=1.5):
    return Snapshot(
        tensors={"student": {"w": torch.full((3, 2), fill), "n": torch.tensor(7)}, "training": {"m": torch.ones(4)}},
        arrays={"soft.0": np.arange(6, dtype=np.uint8).reshape(2, 3)},
        values={"epoch": epoch, "rng": {"state": 2**120}},
    )


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "c", snapshot())
    found = load_checkpoint(tmp_path / "c")
    assert found.values == snapshot().values
    assert torch.equal(found.tensors["student"]["w"], torch.full((3, 2), 1.5))
    assert found.tensors["student"]["n"].item() == 7
    assert np.array_equal(found.arrays["soft.0"], snapshot().arrays["soft.0"])
    assert set(load_checkpoint(tmp_path / "c", ["student"]).tensors) == {"student"}


@pytest.mark.parametrize("name", ["student.safetensors", "training.safetensors", "arrays.npz", "state.json"])
def test_a_changed_byte_is_found(tmp_path, name):
    save_checkpoint(tmp_path / "c", snapshot())
    path = tmp_path / "c" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(name)}.*digest"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    with pytest.raises(UserError, match=r"student\.safetensors: the weights w are not finite"):
        save_checkpoint(tmp_path / "c", snapshot(fill=value))
    assert not list(tmp_path.iterdir())
    save_checkpoint(tmp_path / "c", snapshot())
    content = save({"w": torch.full((3, 2), value)})
    (tmp_path / "c" / "student.safetensors").write_bytes(content)
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"]["student.safetensors"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"student\.safetensors: the weights w are not finite"):
        load_checkpoint(tmp_path / "c", ["student"])


def test_a_missing_file_and_a_missing_manifest_are_named(tmp_path):
    save_checkpoint(tmp_path / "c", snapshot())
    (tmp_path / "c" / "arrays.npz").unlink()
    with pytest.raises(UserError, match=r"arrays\.npz"):
        load_checkpoint(tmp_path / "c")
    with pytest.raises(UserError, match="neither a run's folder nor a checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(("version", "refusal"), [(1, "older version"), (99, "newer version"), ("two", "is damaged")])
def test_another_format_is_refused(tmp_path, version, refusal):
    save_checkpoint(tmp_path / "c", snapshot())
    path = tmp_path / "c" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": version}))
    with pytest.raises(UserError, match=rf"manifest\.json: .*{refusal}"):
        load_checkpoint(tmp_path / "c")


def test_the_folder_keeps_last_previous_and_best(tmp_path):
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    for epoch, best in ((1, True), (2, False), (3, True), (4, False), (5, False)):
        folder.save(snapshot(epoch), best)
    assert [load_checkpoint(folder.path(w)).values["epoch"] for w in ("last", "previous", "best")] == [5, 4, 3]
    assert len([entry for entry in folder.root.iterdir() if entry.is_dir()]) == 3
    assert find_checkpoint(tmp_path / "run") == folder.path("best")
    assert find_checkpoint(folder.root / "last") == folder.path("last")


def test_an_epoch_written_again_replaces_the_one_before(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(snapshot(1, 1.0), True)
    folder.save(snapshot(1, 2.0), True)
    assert load_checkpoint(folder.path("last")).tensors["student"]["w"][0, 0] == 2.0


WRITER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_checkpoint import snapshot
    from semprior.io.checkpoint import CheckpointFolder
    folder = CheckpointFolder(Path(sys.argv[1]))
    for epoch in range(1, 100000):
        folder.save(snapshot(epoch, float(epoch)), best=epoch % 3 == 0)
        print(epoch, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    for attempt in range(2):
        root = tmp_path / str(attempt)
        script = textwrap.dedent(WRITER)
        command = [sys.executable, "-c", script, str(root), os.path.dirname(__file__)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            written = 0
            for line in process.stdout:
                written = int(line)
                if written == 3 + 5 * attempt:
                    break
            os.kill(process.pid, signal.SIGKILL)
        folder = CheckpointFolder(root)
        last = load_checkpoint(folder.path("last"))
        assert last.values["epoch"] >= written
        assert torch.all(last.tensors["student"]["w"] == float(last.values["epoch"]))
        assert load_checkpoint(folder.path("previous")).values["epoch"] == last.values["epoch"] - 1
        assert load_checkpoint(folder.path("best")).values["epoch"] % 3 == 0


def test_a_full_disk_is_one_line_and_leaves_the_last_one(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    folder.save(snapshot(1), True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        folder.save(snapshot(2), True)
    monkeypatch.undo()
    assert load_checkpoint(folder.path("last")).values["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_the_teachers_own_best_is_kept_and_found_where_there_is_one(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    for epoch, (best, best_teacher) in enumerate(((True, False), (False, True), (False, False), (True, False))):
        folder.save(snapshot(epoch), best=best, best_teacher=best_teacher)
        taught = load_checkpoint(find_checkpoint(tmp_path, teacher=True)).values["epoch"]
        assert taught == (0 if epoch == 0 else 1)
    assert load_checkpoint(find_checkpoint(tmp_path)).values["epoch"] == 3
    assert load_checkpoint(find_checkpoint(tmp_path / "checkpoints" / "best-teacher")).values["epoch"] == 1
    kept = {load_checkpoint(path).values["epoch"] for path in folder.root.iterdir() if path.is_dir()}
    assert kept == {1, 2, 3}


def test_a_run_without_a_checkpoint_is_told_from_what_is_no_run(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="neither a run's folder nor a checkpoint"):  # it may be a sweep
        find_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"run: the run has no checkpoint yet; continue it with: semprior train --out"):
        find_checkpoint(tmp_path / "run")
