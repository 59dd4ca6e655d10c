"""Checkpoints of trials in a sweep's storage: what is kept, who may remove, what is refused."""

import json

import numpy as np
import pytest
import torch

from semprior.io.checkpoint import Snapshot
from semprior.io.manifest import DamagedError
from tune.store.checkpoints import (
    StoredCheckpoint,
    SupersededError,
    get_checkpoint,
    prune,
    put_checkpoint,
    put_short_checkpoint,
    remove_short_checkpoints,
    short_checkpoints,
)
from tune.store.records import Record
from tune.store.results_store import ResultsStore


def snapshot(epoch):
    return Snapshot({"student": {"w": torch.full((3,), float(epoch))}}, {"a": np.arange(3)}, {"epoch": epoch})


class Attempt:
    """What a trial's rank 0 does with its checkpoints."""

    def __init__(self, place, make_report, number):
        self.store, self.make_report, self.number = ResultsStore(place), make_report, number

    def start(self, epoch):
        self.store.append(
            [Record(kind="start", trial="0000", configuration=0, seed=0, attempt=self.number, epoch=epoch)]
        )

    def train(self, epoch, best=False):
        kept = put_checkpoint(self.store.storage, "0000", self.number, snapshot(epoch + 1))
        given = {"best": best, "checkpoint": kept.address, "sha256": kept.sha256}
        self.store.append([self.make_report("0000", epoch, attempt=self.number, score=0.5, **given)])
        prune(self.store, "0000", self.number)

    def end(self):
        self.store.append(
            [Record(kind="end", trial="0000", configuration=0, seed=0, attempt=self.number, epoch=0, state="completed")]
        )
        prune(self.store, "0000", self.number)

    def folders(self):
        found = self.store.storage.list("checkpoints/0000", recursive=True)
        return sorted(
            e.name.removeprefix("checkpoints/0000/").removesuffix("/manifest.json")
            for e in found
            if e.name.endswith("manifest.json")
        )

    def recorded(self):
        return sorted(
            {r.checkpoint.removeprefix("checkpoints/0000/") for r in self.store.history("0000") if r.checkpoint}
        )


def test_a_checkpoint_is_read_as_it_was_written(place):
    storage = ResultsStore(place).storage
    kept = put_checkpoint(storage, "0003", 2, snapshot(7))
    assert kept.address == "checkpoints/0003/2/epoch-0007"
    back = get_checkpoint(storage, kept)
    assert torch.equal(back.tensors["student"]["w"], torch.full((3,), 7.0))
    assert back.values == {"epoch": 7}


def test_the_last_two_and_the_best_are_kept_and_after_the_end_only_the_best(place, make_report):
    trial = Attempt(place, make_report, 1)
    for epoch in range(6):
        trial.train(epoch, best=epoch in (0, 2))
        assert trial.folders() == trial.recorded()
    assert trial.folders() == ["1/epoch-0003", "1/epoch-0005", "1/epoch-0006"]
    trial.end()
    assert trial.folders() == trial.recorded() == ["1/epoch-0003"]


def test_a_superseded_attempt_removes_and_overwrites_nothing(tmp_path, make_report):
    gone, back = Attempt(tmp_path, make_report, 1), Attempt(tmp_path, make_report, 2)
    for epoch in range(4):
        gone.train(epoch, best=epoch == 1)
    back.start(3)  # it goes on from epoch-0003, for epoch-0004 was not to be read
    for epoch in range(4, 7):
        with pytest.raises(SupersededError):
            gone.train(epoch, best=True)
    assert back.recorded() == ["1/epoch-0002", "1/epoch-0003"]
    assert set(back.recorded()) < set(back.folders())
    back.train(3)
    back.train(4)
    assert back.recorded() == back.folders() == ["1/epoch-0002", "2/epoch-0004", "2/epoch-0005"]
    with pytest.raises(SupersededError):
        gone.train(9)
    back.end()
    assert back.recorded() == back.folders() == ["1/epoch-0002"]


def test_what_a_killed_attempt_was_writing_is_removed_by_the_next(tmp_path, make_report):
    store = ResultsStore(tmp_path)
    store.append([make_report("0000", 0, attempt=2)])
    cut_off, written = (tmp_path / f"checkpoints/0000/{attempt}/.epoch-0001-x" for attempt in (1, 2))
    for folder in (cut_off, written):
        folder.mkdir(parents=True)
        (folder / "student.safetensors").write_bytes(b"half")
    prune(store, "0000", 2)
    assert not cut_off.exists() and written.exists()


def test_a_checkpoint_without_a_record_is_not_removed(tmp_path, make_report):
    trial = Attempt(tmp_path, make_report, 1)
    for epoch in range(4):
        trial.train(epoch)
    put_checkpoint(trial.store.storage, "0000", 1, snapshot(5))
    assert prune(trial.store, "0000", 1) == []
    assert prune(trial.store, "0000", 2) == ["checkpoints/0000/1/epoch-0005"]


def test_damaged_and_missing_checkpoints_are_refused(tmp_path):
    storage = ResultsStore(tmp_path).storage
    kept = put_checkpoint(storage, "0000", 1, snapshot(1))
    with pytest.raises(DamagedError, match="is not there"):
        get_checkpoint(storage, StoredCheckpoint("checkpoints/0000/1/epoch-0002", kept.sha256))
    with pytest.raises(DamagedError, match="not the one recorded"):
        get_checkpoint(storage, StoredCheckpoint(kept.address, "0" * 64))
    weights = tmp_path / kept.address / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match="does not match the manifest"):
        get_checkpoint(storage, kept)
    weights.unlink()
    with pytest.raises(DamagedError, match="not whole"):
        get_checkpoint(storage, kept)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/b", "manifest.json", "", ".hidden"])
def test_a_manifest_cannot_write_outside_of_the_target(tmp_path, name):
    import hashlib

    storage = ResultsStore(tmp_path).storage
    manifest = json.dumps({"format": 2, "sha256": {name: hashlib.sha256(b"x").hexdigest()}}).encode()
    storage.put("checkpoints/0000/1/epoch-0001/manifest.json", manifest)
    stored = StoredCheckpoint("checkpoints/0000/1/epoch-0001", hashlib.sha256(manifest).hexdigest())
    with pytest.raises(DamagedError, match="not the name of a checkpoint's file"):
        get_checkpoint(storage, stored)
    with pytest.raises(Exception, match="is not a name"):
        get_checkpoint(storage, StoredCheckpoint("../../etc", stored.sha256))


def test_of_short_runs_the_last_two_checkpoints_are_kept_until_they_are_removed(place):
    storage = ResultsStore(place).storage
    assert short_checkpoints(storage, "0000") == []
    for attempt, epoch in ((1, 8), (1, 9), (1, 10), (2, 10), (2, 11)):
        put_short_checkpoint(storage, "0000", attempt, snapshot(epoch))
        put_short_checkpoint(storage, "0001", 1, snapshot(1))
        newest = short_checkpoints(storage, "0000")[0]
        assert newest.address == f"crossfit/0000/{attempt}/epoch-{epoch:04d}"
        assert get_checkpoint(storage, newest).values["epoch"] == epoch
    assert [one.address[-12:] for one in short_checkpoints(storage, "0000")] == ["2/epoch-0011", "2/epoch-0010"]
    storage.delete("crossfit/0000/2/epoch-0011/manifest.json")  # being written, or removed
    assert [one.address[-12:] for one in short_checkpoints(storage, "0000")] == ["2/epoch-0010"]
    storage.put("crossfit/0000/2/epoch-0010/student.safetensors", b"damaged")
    with pytest.raises(DamagedError):
        get_checkpoint(storage, short_checkpoints(storage, "0000")[0])
    for _ in range(2):
        remove_short_checkpoints(storage, "0000")
        assert short_checkpoints(storage, "0000") == []
    assert len(short_checkpoints(storage, "0001")) == 1
