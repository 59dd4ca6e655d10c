"""Compaction in the background: nothing is lost and nothing doubled, whoever crashes, writes or compacts at once."""

import multiprocessing
import threading

import pytest

from tune.store import compaction
from tune.store.compaction import compact, compact_in_background
from tune.store.records import SCHEMA_VERSION, Record
from tune.store.results_store import ResultsStore
from tune.store.snapshot import MERGED, NEW, take_snapshot


def filled(place, make_report, trials=3, epochs=8):
    """A store of single appends, which come in turn from trials that run side by side."""
    store = ResultsStore(place)
    for epoch in range(epochs):
        for trial in range(trials):
            score = trial / 10 + epoch / 100
            store.append([make_report(f"{trial:04d}", epoch, score=score, values=(score,), best=True)])
    return store


def contents(store):
    """All that the store tells."""
    return store.records(), store.trials(), store.curves(), store.rank({"holdout/point_score": "max"})


def test_compaction_does_not_change_what_is_read(place, make_report):
    store = filled(place, make_report)
    before = contents(store)
    assert store.compact() == 24
    assert (len(take_snapshot(store.storage).appended), len(take_snapshot(store.storage).merged)) == (0, 1)
    assert contents(store) == before
    assert compact(store.storage, grace=0) == 0
    assert store.storage.list(NEW) == []
    assert contents(store) == before
    store.append([make_report("0001", 8, score=0.9)])
    assert store.rank({"holdout/point_score": "max"})[0].trial == "0001"
    assert store.curve("0000") == before[2]["0000"]


def test_repeated_compactions_keep_all_records(tmp_path, make_report):
    store = ResultsStore(tmp_path)
    for epoch in range(60):
        store.append([make_report("0000", epoch, score=epoch / 100), make_report("0001", epoch)])
        compact(store.storage, least=3, full=40, grace=0)
    view = take_snapshot(store.storage)
    assert len(view.heads) == 1
    assert len(view.merged) < 8
    assert all(file.rows <= 60 for file in view.merged)
    assert len(store.storage.list(NEW)) <= 6
    assert [record.epoch for record in store.curve("0001")] == list(range(60))


def test_concurrent_compactions_duplicate_nothing(tmp_path, make_report, monkeypatch):
    """The second one starts, reads and commits while the first is about to commit, on the same files."""
    store = filled(tmp_path, make_report)
    before = contents(store)
    put = type(store.storage).put
    inside = []

    def put_late(self, name, content):
        if name.endswith(".json") and not inside:
            inside.append(0)
            inside[0] = compact(self)
        put(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.storage), "put", put_late)
        assert store.compact() == inside[0] == 24
    assert len(take_snapshot(store.storage).heads) == 2
    assert contents(store)[1:] == before[1:]
    store.append([make_report("0000", epoch, score=0.1) for epoch in (8, 9)])
    compact(store.storage, least=1, grace=0)
    assert len(take_snapshot(store.storage).heads) == 1
    compact(store.storage, least=1, grace=0)
    for trial in ("0001", "0002"):
        assert store.records([trial])[trial] == before[0][trial]


def test_a_slow_compaction_loses_nothing(tmp_path, make_report, monkeypatch):
    """Others compact, twice, and remove what they absorbed, while it is about to commit what it saw before."""
    store = filled(tmp_path, make_report)
    store.compact()
    filled(tmp_path, make_report, trials=1, epochs=20)
    before = contents(store)
    put = type(store.storage).put

    def put_late(self, name, content):
        if name.endswith(".json"):
            monkeypatch.undo()
            compact(self, grace=0)
            store.append([make_report("0002", 8, score=0.3)])
            compact(self, least=1, grace=0)
            compact(self, least=1, grace=0)
        put(self, name, content)

    monkeypatch.setattr(type(store.storage), "put", put_late)
    assert store.compact() > 0
    assert store.curves()["0000"] == before[2]["0000"]
    assert store.curves()["0001"] == before[2]["0001"]
    assert [record.epoch for record in store.curve("0002")] == list(range(9))
    compact(store.storage, least=0, grace=0)
    compact(store.storage, least=0, grace=0)
    assert [record.epoch for record in store.curve("0002")] == list(range(9))
    assert store.curves()["0000"] == before[2]["0000"]


@pytest.mark.parametrize("at", ["the merged file", "the generation", "the first removal"])
def test_a_crash_loses_and_duplicates_nothing(tmp_path, make_report, monkeypatch, at):
    store = filled(tmp_path, make_report)
    before = contents(store)
    kind = type(store.storage)
    put, delete = kind.put, kind.delete

    def crash_in_put(self, name, content):
        if name.startswith(MERGED) and at == "the merged file":
            raise KeyboardInterrupt
        if name.endswith(".json") and at == "the generation":
            raise KeyboardInterrupt
        put(self, name, content)

    def crash_in_delete(self, name):
        delete(self, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kind, "put", crash_in_put)
        patch.setattr(kind, "delete", crash_in_delete)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(2):
                compact(store.storage, grace=0)
    assert contents(store) == before
    compact(store.storage, grace=0)
    compact(store.storage, grace=0)
    assert contents(store) == before
    assert store.storage.list(NEW) == []


def test_orphaned_files_are_removed_after_a_day(tmp_path, make_report, monkeypatch):
    store = filled(tmp_path, make_report)
    store.storage.put(f"{MERGED}/0-orphan.v{SCHEMA_VERSION}.parquet", b"half a file")
    store.compact()
    assert store.storage.exists(f"{MERGED}/0-orphan.v{SCHEMA_VERSION}.parquet")
    monkeypatch.setattr(compaction, "ORPHAN_AGE_S", -1.0)
    store.compact()
    assert not store.storage.exists(f"{MERGED}/0-orphan.v{SCHEMA_VERSION}.parquet")
    assert len(store.curve("0000")) == 8


def test_a_reader_takes_a_new_snapshot_if_a_file_was_removed(tmp_path, make_report, monkeypatch):
    from tune.store import snapshot as view

    store = filled(tmp_path, make_report)
    read, calls = view.read_file, []

    def read_late(storage, name, *arguments, **named):
        if not calls:
            calls.append(name)
            monkeypatch.setattr(view, "read_file", read)
            compact(storage, grace=0)
            compact(storage, grace=0)
        return read(storage, name, *arguments, **named)

    monkeypatch.setattr(view, "read_file", read_late)
    assert len(store.curve("0001")) == 8
    assert calls


def test_a_failed_background_compaction_is_reported_and_retried(tmp_path, make_report):
    store = filled(tmp_path, make_report)
    (tmp_path / "records" / "generations").write_text("a file, where a folder belongs")
    complaints, failed_twice = [], threading.Event()

    def complain(text):
        complaints.append(text)
        if len(complaints) > 1:
            failed_twice.set()

    with compact_in_background(store.storage, complain, every=0.01):
        assert failed_twice.wait(60)
        (tmp_path / "records" / "generations").unlink()
    assert complaints[0].startswith(f"records were not compacted: {tmp_path}/records/generations")
    assert take_snapshot(store.storage).appended == ()


def write(place, number, appends):
    store = ResultsStore(place)
    given = {"kind": "report", "configuration": number, "seed": 0, "attempt": 1}
    for epoch in range(appends):
        store.append([Record(trial=f"{number:04d}", epoch=epoch, metrics={"holdout/iou": epoch + number}, **given)])


@pytest.mark.slow
def test_the_records_of_64_concurrent_writers_are_all_read(tmp_path):
    """While two others compact, and one reads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tune.store.results_store"])  # so that it is imported once
    writers = [context.Process(target=write, args=(str(tmp_path), number, 12)) for number in range(64)]
    store = ResultsStore(tmp_path)
    with (
        compact_in_background(store.storage, pytest.fail, every=0.1),
        compact_in_background(ResultsStore(tmp_path).storage, pytest.fail, every=0.1),
    ):
        for writer in writers:
            writer.start()
        seen = 0
        while any(writer.is_alive() for writer in writers):
            now = sum(len(curve) for curve in store.curves().values())
            assert now >= seen
            seen = now
        for writer in writers:
            writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 64
    found = {trial: [r.metrics["holdout/iou"] for r in curve] for trial, curve in store.curves().items()}
    assert found == {f"{number:04d}": [epoch + number for epoch in range(12)] for number in range(64)}
