"""What a sweep is, is fixed: an edited sweep file, other code, and what is left of an earlier sweep are refused."""

import hashlib
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
    extend_sweep,
    find_sweep,
    open_sweep,
    read_each,
    require_present,
    require_unchanged,
    sweep_ids,
    with_extensions,
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


def test_the_budget_is_raised_beside_the_file_that_never_changes(sweep):
    content = sweep.storage.read(SWEEP_FILE)
    once = extend_sweep(sweep, 24, 0.0, begun=12, generation=1)
    twice = extend_sweep(sweep, 6, 1.5, begun=12, generation=1)  # by somebody who had opened it before
    assert (once.spec.budget.trials, once.spec.budget.hours) == (36, 2.0)
    assert (twice.spec.budget.trials, twice.spec.budget.hours) == (42, 3.5)
    assert with_extensions(sweep) == with_extensions(once) == twice == open_sweep(sweep.storage.uri)
    assert with_extensions(twice) is twice
    assert twice.spec.model_copy(update={"budget": sweep.spec.budget}) == sweep.spec
    assert (sweep.storage.read(SWEEP_FILE), twice.digest) == (content, sweep.digest)


def edited(folder):
    content = json.loads((folder / "0001.json").read_text())
    (folder / "0001.json").write_text(json.dumps(content | {"trials": 99}))


def first_removed(folder):
    (folder / "0001.json").unlink()


def exchanged(folder):
    first, second = ((folder / name).read_text() for name in ("0001.json", "0002.json"))
    (folder / "0001.json").write_text(second)
    (folder / "0002.json").write_text(first)


def forged(folder):
    content = json.loads((folder / "0002.json").read_text()) | {"trials": -5}
    content.pop("sha256")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / "0002.json").write_text(json.dumps(content | {"sha256": digest}))


def emptied(folder):
    (folder / "0002.json").write_text("")


def listed(folder):
    (folder / "0001.json").write_text("[]")


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (edited, r"0001\.json: was changed, or is of another sweep; restore it"),
        (exchanged, r"0001\.json: was changed, or is of another sweep; restore it"),
        (first_removed, r"0001\.json: is missing; restore it"),
        (forged, r"0002\.json: is damaged \(ValueError"),
        (emptied, r"0002\.json: is damaged"),
        (listed, r"0001\.json: expected keys and values"),
    ],
)
def test_a_raise_that_was_changed_afterwards_is_refused(sweep, edit, fault):
    for _ in range(2):
        extend_sweep(sweep, 1, 0.0, begun=0, generation=0)
    edit(sweep.storage.local / "extensions")
    with pytest.raises(UserError, match=fault) as refusal:
        open_sweep(sweep.storage.uri)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "raised", "fault"),
    [
        ((), (10**7, 0.0), r"^--trials \+10000000: must be at most \+999988, for 1000000 trials in all$"),
        ((), (0, 1e6), r"^--hours \+1e\+06: must be a number above 0, for 1e\+06 hours in all at most$"),
        ((), (0, float("nan")), r"^--hours \+nan: must be a number above 0"),
        ((", hours: 2", ""), (1, 1.0), r"^--hours \+1: small has no budget of hours, and ends by its trials alone$"),
    ],
)
def test_a_budget_that_cannot_be_raised_is_refused_in_a_line(tmp_path, storage, changes, raised, fault):
    sweep = create_sweep(storage, "small", spec_of(tmp_path, *([changes] if changes else [])))
    with pytest.raises(UserError, match=fault):
        extend_sweep(sweep, *raised, begun=0, generation=0)
    assert open_sweep(sweep.storage.uri) == sweep


def test_a_list_of_configurations_has_no_others_to_try(tmp_path, storage):
    text = "data: d\nconfigurations: [{clusters.count: 8}]\nobjective: {holdout/iou: max}\nbudget: {trials: 1}\n"
    sweep = create_sweep(storage, "listed", spec_of(tmp_path, text=text))
    with pytest.raises(UserError, match=r"listed: lists its configurations, 1, and has no others to try"):
        extend_sweep(sweep, 1, 0.0, begun=1, generation=1)
