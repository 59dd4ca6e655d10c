"""The benchmark of the store on a few records."""

import json

import pytest

from benchmarks import store
from benchmarks.store_records import write_trials
from semprior.io.storage import open_storage
from tune.store.compaction import compact


def test_a_lost_record_is_counted(tmp_path):
    storage = open_storage(tmp_path)
    write_trials(storage.uri, range(4), 10, 5)
    assert store.count_lost(storage, 4, 10) == 0
    compact(storage, least=1)
    assert store.count_lost(storage, 4, 10) == 0
    write_trials(storage.uri, range(4, 6), 10, 5)
    assert store.count_lost(storage, 6, 10) == 0
    storage.delete(storage.list("records/new")[-1].name)
    assert store.count_lost(storage, 6, 10) == 5


@pytest.mark.slow
def test_one_object_on_standard_output(tmp_path, capsys):
    pytest.importorskip("moto.server")
    arguments = ["--trials", "8", "--epochs", "10", "--writers", "2", "--folder", str(tmp_path / "sweep"), "--json"]
    store.main(arguments)  # its exit code tells of this machine's speed
    figures = json.loads(capsys.readouterr().out)
    assert figures["lost"] == 0
    assert figures["tail_files"] > 0
    assert figures["top_first"] is not None
    assert figures["top_with_tail_first"] == figures["top_s3_with_tail_first"]
    assert figures["top_s3_with_tail_mb"] < 500
