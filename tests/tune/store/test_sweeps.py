"""What a sweep is, is fixed: an edited sweep file, other code, and what is left of an earlier sweep are refused."""

import json

import pytest

import semprior
from semprior.errors import StorageError, UserError
from semprior.io.storage import open_storage
from tests.tune.small_sweep import spec_of
from tune.store.sweeps import (
    SWEEP_FILE,
    SweepExistsError,
    create_sweep,
    find_sweep,
    open_sweep,
    read_each,
    require_present,
    require_unchanged,
    sweep_ids,
)


@pytest.fixture
def storage(tmp_path):
    return open_storage(tmp_path / "runs")


@pytest.fixture
def sweep(tmp_path, storage):
    return create_sweep(storage, "small", spec_of(tmp_path), "digest of the data")


def test_a_sweep_is_opened_as_it_was_created(sweep):
    assert open_sweep(sweep.storage.uri) == sweep


def budget(content):
    content["spec"]["budget"]["trials"] = 1000


def learning_rate(content):
    content["spec"]["base"]["optim.rate"] = 0.1


def other_data(content):
    content["data"] = "digest of other data"


@pytest.mark.parametrize("edit", [budget, learning_rate, other_data])
def test_an_edited_sweep_is_refused(sweep, edit):
    content = json.loads(sweep.storage.read(SWEEP_FILE))
    edit(content)
    sweep.storage.put(SWEEP_FILE, json.dumps(content).encode())
    with pytest.raises(UserError, match=r"sweep\.json: was changed after the sweep had begun; restore it, or begin"):
        open_sweep(sweep.storage.uri)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is damaged"),
        (b'{"schema": 2', "is damaged"),
        (b"[]", "expected keys and values"),
        (b'{"schema": "x"}', "is damaged"),
        (b'{"schema": 2}', "is damaged"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"schema": 99}', r"newer version \(schema 99\); upgrade semprior"),
        (b'{"schema": 1}', r"before the first release \(schema 1\)"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_one_line_and_hides_no_other(sweep, storage, tmp_path, content, fault):
    create_sweep(storage, "other", spec_of(tmp_path))
    sweep.storage.put(SWEEP_FILE, content)
    (storage.local / "a \\ folder").mkdir()
    with pytest.raises(UserError, match=fault):
        find_sweep(storage, "small")
    assert sweep_ids(storage) == ["other", "small"]
    found, unreadable = read_each(storage, lambda sweep: sweep.id)
    assert [name for _, name in found] == ["other"]
    assert list(unreadable) == ["small"]


def test_an_id_with_leftovers_is_refused_and_a_taken_one_is_told_apart(sweep, storage, tmp_path):
    with pytest.raises(SweepExistsError):
        create_sweep(storage, "small", spec_of(tmp_path))
    sweep.storage.put("records/new/x", b"")
    sweep.storage.delete(SWEEP_FILE)
    with pytest.raises(
        UserError, match=r"small: .*/small holds records, perhaps of an earlier sweep; remove the folder"
    ):
        create_sweep(storage, "small", spec_of(tmp_path))
    assert not sweep.storage.exists(SWEEP_FILE)


def test_other_data_and_other_code_are_refused(sweep, monkeypatch):
    require_unchanged(sweep, "digest of the data")
    with pytest.raises(UserError, match=r"^small: its data, .*scenes, were changed after the sweep had begun"):
        require_unchanged(sweep, "another digest")
    monkeypatch.setattr(semprior, "NUMERICS", semprior.NUMERICS + 1)
    with pytest.raises(UserError, match=r"^small: was begun by a version of semprior that computes other numbers"):
        require_unchanged(sweep, "digest of the data")


def test_a_removed_sweep_is_not_waited_for(sweep):
    require_present(sweep.storage)
    sweep.storage.delete(SWEEP_FILE)
    with pytest.raises(StorageError, match="the folder of the sweep was removed while it ran"):
        require_present(sweep.storage)
