"""Compaction in the background: nothing is lost and nothing doubled, whoever crashes, writes or compacts at once."""

import multiprocessing
import threading

import pytest

from tune.store import compaction
from tune.store.compaction import compact, compacting
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.snapshot import MERGED, NEW, take_view


def filled(place, make_report, trials=3, epochs=8):
    """A store of single appends, which come in turn from trials that run side by side."""
    store = ResultsStore(place)
    for epoch in range(epochs):
        for trial in range(trials):
            score = trial / 10 + epoch / 100
            store.append([make_report(f"{trial:04d}", epoch, score=score, values=(score,), best=True)])
    return store


def told(store):
    """All that the store tells."""
    return store.records(), store.trials(), store.curves(), store.rank({"holdout/point_score": "max"})


def test_what_the_store_tells_stays_the_same(place, make_report):
    store = filled(place, make_report)
    before = told(store)
    assert store.compact() == 24
    assert (len(take_view(store.storage).appended), len(take_view(store.storage).merged)) == (0, 1)
    assert told(store) == before
    assert compact(store.storage, grace=0) == 0
    assert store.storage.list(NEW) == []
    assert told(store) == before
    store.append([make_report("0001", 8, score=0.9)])
    assert store.rank({"holdout/point_score": "max"})[0].trial == "0001"
    assert store.curve("0000") == before[2]["0000"]


def test_it_goes_on_over_many_rounds(tmp_path, make_report):
    store = ResultsStore(tmp_path)
    for epoch in range(60):
        store.append([make_report("0000", epoch, score=epoch / 100), make_report("0001", epoch)])
        compact(store.storage, least=3, full=40, grace=0)
    view = take_view(store.storage)
    assert len(view.heads) == 1
    assert len(view.merged) < 8
    assert all(file.rows <= 60 for file in view.merged)
    assert len(store.storage.list(NEW)) <= 6
    assert [record.epoch for record in store.curve("0001")] == list(range(60))


def test_two_at_once_double_nothing(tmp_path, make_report, monkeypatch):
    """The second one starts, reads and commits while the first is about to commit, on the same files."""
    store = filled(tmp_path, make_report)
    before = told(store)
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
    assert len(take_view(store.storage).heads) == 2
    assert told(store)[1:] == before[1:]
    store.append([make_report("0000", epoch, score=0.1) for epoch in (8, 9)])
    compact(store.storage, least=1, grace=0)
    assert len(take_view(store.storage).heads) == 1
    compact(store.storage, least=1, grace=0)
    for trial in ("0001", "0002"):
        assert store.records([trial])[trial] == before[0][trial]


def test_one_that_started_long_ago_loses_nothing(tmp_path, make_report, monkeypatch):
    """Others compact, twice, and remove what they absorbed, while it is about to commit what it saw before."""
    store = filled(tmp_path, make_report)
    store.compact()
    filled(tmp_path, make_report, trials=1, epochs=20)
    before = told(store)
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
def test_a_crash_loses_and_doubles_nothing(tmp_path, make_report, monkeypatch, at):
    store = filled(tmp_path, make_report)
    before = told(store)
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
    assert told(store) == before
    compact(store.storage, grace=0)
    compact(store.storage, grace=0)
    assert told(store) == before
    assert store.storage.list(NEW) == []


def test_what_a_crash_left_is_removed_after_a_day(tmp_path, make_report, monkeypatch):
    store = filled(tmp_path, make_report)
    store.storage.put(f"{MERGED}/0-lost.v1.parquet", b"half a file")
    store.compact()
    assert store.storage.exists(f"{MERGED}/0-lost.v1.parquet")
    monkeypatch.setattr(compaction, "LEFTOVER", -1.0)
    store.compact()
    assert not store.storage.exists(f"{MERGED}/0-lost.v1.parquet")
    assert len(store.curve("0000")) == 8


def test_a_reader_takes_a_new_view_where_a_file_has_gone(tmp_path, make_report, monkeypatch):
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


def test_a_failure_in_the_background_is_told_and_tried_again(tmp_path, make_report):
    store = filled(tmp_path, make_report)
    (tmp_path / NEW / "0.v1.parquet").write_bytes(b"damaged")
    complaints, heard = [], threading.Event()

    def complain(text):
        complaints.append(text)
        if len(complaints) > 1:
            heard.set()

    with compacting(store.storage, complain, every=0.01):
        assert heard.wait(60)
        (tmp_path / NEW / "0.v1.parquet").unlink()
    assert "0.v1.parquet: cannot be read" in complaints[0]
    assert take_view(store.storage).appended == ()


def write(place, number, appends):
    store = ResultsStore(place)
    given = {"kind": "report", "configuration": number, "seed": 0, "attempt": 1}
    for epoch in range(appends):
        store.append([Record(trial=f"{number:04d}", epoch=epoch, metrics={"holdout/iou": epoch + number}, **given)])


@pytest.mark.slow
def test_what_64_processes_write_at_once_is_all_there(tmp_path):
    """While two others compact, and one reads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tune.store.results_store"])  # so that it is imported once
    writers = [context.Process(target=write, args=(str(tmp_path), number, 12)) for number in range(64)]
    store = ResultsStore(tmp_path)
    with (
        compacting(store.storage, pytest.fail, every=0.1),
        compacting(ResultsStore(tmp_path).storage, pytest.fail, every=0.1),
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
