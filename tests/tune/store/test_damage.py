"""A file of records that is damaged, foreign or of another version costs its own records and no others."""

import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semprior.io.checked_file import BLOCK, CheckedFile, block_digests
from semprior.io.manifest import DamagedError
from tune.store import record_files
from tune.store.compaction import compact
from tune.store.record_files import file_name, write_file
from tune.store.records import SCHEMA_VERSION, to_table
from tune.store.results_store import ResultsStore
from tune.store.snapshot import COMMITS, MERGED, NEW, left_out_in_words


@pytest.fixture
def store(tmp_path, make_report):
    """Trials 0000 and 0001 with three epochs each, every epoch in a file of its own."""
    made = ResultsStore(tmp_path)
    for epoch in range(3):
        for trial in ("0000", "0001"):
            made.append([make_report(trial, epoch, score=epoch / 10)])
    return made


def epochs(store):
    return {trial: [record.epoch for record in curve] for trial, curve in store.curves().items()}


def files(store, folder=NEW):
    return sorted((store.storage.local / folder).iterdir())


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("small", [1 << 20, 0], ids=["read-whole", "read-in-parts"])
def test_no_flipped_bit_is_read_as_a_record(store, small, monkeypatch):
    monkeypatch.setattr(record_files, "SMALL", small)  # 0: as of a large file, only what is needed is read
    whole, (path, *_) = ResultsStore(store.storage).records(), files(store)
    content, rng = path.read_bytes(), random.Random(0)
    lost = {"0000": whole["0000"][1:], "0001": whole["0001"]}
    for bit in rng.sample(range(8 * len(content)), 300):
        path.write_bytes(flipped(content, bit))
        reader = ResultsStore(store.storage)
        read = reader.records()
        if read == whole:  # the bit is in none of the blocks that have to be read
            assert small == 0 and not reader.left_out
        else:
            assert read == lost
            (named,) = reader.left_out
            assert named.name == f"{NEW}/{path.name}"
            assert str(named).endswith("(records of trial 0000 are missing)")


def test_every_kind_of_unusable_file_is_named_and_counted(store, make_report):
    first, second, *_ = files(store)
    content = first.read_bytes()
    first.write_bytes(b"")
    second.write_bytes(content[: len(content) // 2])
    folder = first.parent
    (folder / "notes.json").write_text("{}")
    (folder / f"{first.name.removesuffix('.parquet')} (conflicted copy).parquet").write_bytes(content)
    (folder / "x.v99.parquet").write_bytes(content)
    (folder / "x.v1.parquet").write_bytes(content)
    (folder / f"y.{'0' * 64}.v{SCHEMA_VERSION}.parquet").write_bytes(content)
    (folder / "inside").mkdir()
    assert epochs(store) == {"0000": [1, 2], "0001": [1, 2]}
    reasons = {file.name.rpartition("/")[2]: str(file) for file in store.left_out}
    assert len(reasons) == 8
    assert re.search(r"is empty \(records of trial 0000 are missing\)", reasons[first.name])
    assert re.search(r"is damaged; .* \(records of trial 0001 are missing\)", reasons[second.name])
    assert "is not a file of records" in reasons["notes.json"]
    assert "newer version (schema 99); upgrade semprior" in reasons["x.v99.parquet"]
    assert "before the first release (schema 1)" in reasons["x.v1.parquet"]
    assert "does not match the SHA-256 in its name" in reasons[f"y.{'0' * 64}.v{SCHEMA_VERSION}.parquet"]
    words = left_out_in_words(store.left_out)
    assert words.startswith("8 files are left out: ") and words.endswith("; and 5 more")
    (entry,) = store.rank({"holdout/point_score": "max"}, limit=1)
    assert entry.values == (0.2,)
    assert [trial.trial for trial in store.trials()] == ["0000", "0001"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda table: table.append_column("mood", pa.array(["good"])), "has a column 'mood'"),
        (lambda table: table.append_column("metric/x", pa.array(["1"])), "has string in the column 'metric/x'"),
        (lambda table: table.drop_columns("seed"), "has no column 'seed'"),
        (lambda table: replaced(table, "epoch", pa.array(["0"])), "has string in the column 'epoch'"),
        (lambda table: replaced(table, "epoch", pa.array([None], pa.int32())), "without a value of 'epoch'"),
        (lambda table: replaced(table, "epoch", pa.array([-1], pa.int32())), "'epoch' below 0"),
        (lambda table: replaced(table, "values", pa.array([[None]], pa.list_(pa.float64()))), "a value of 'values'"),
        (lambda table: replaced(table, "trial", pa.array([""]).dictionary_encode()), "'' as its 'trial'"),
        (lambda table: replaced(table, "kind", pa.array(["party"]).dictionary_encode()), "'party' as its 'kind'"),
        (lambda table: replaced(table, "config", pa.array(["[1]"]).dictionary_encode()), "as its 'config'"),
        (lambda table: replaced(table, "params", pa.array(["{"]).dictionary_encode()), "as its 'params'"),
        (lambda table: replaced(table, "fault", pa.array(['{"a":1}']).dictionary_encode()), "as its 'fault'"),
    ],
)
def test_rows_that_are_no_records_are_left_out(store, make_report, change, fault):
    content = write_file(change(to_table([make_report("0001", 7, writer="foreign")])))
    store.storage.put(f"{NEW}/{file_name('foreign', {'0001'}, content)}", content)
    assert epochs(store) == {"0000": [0, 1, 2], "0001": [0, 1, 2]}
    assert [entry.trial for entry in store.rank({"holdout/point_score": "max"})] == ["0000", "0001"]
    (named,) = store.left_out
    assert fault in named.reason


def replaced(table, name, column):
    return table.set_column(table.column_names.index(name), name, column)


def test_a_damaged_merged_file_says_how_much_is_missing_and_compaction_leaves_it_in_place(store, make_report):
    compact(store.storage, least=1, grace=0)
    (merged,) = files(store, MERGED)
    content = merged.read_bytes()
    for epoch in (3, 4):
        store.append([make_report("0002", epoch)])
    appended = files(store)[-1]
    whole = appended.read_bytes()
    appended.write_bytes(whole[:-1])
    merged.write_bytes(content[:100])
    for _ in range(2):
        assert epochs(store) == {"0002": [3]}
        assert [file.missing for file in store.left_out] == [
            "6 records of trials 0000 to 0001 are missing",
            "records of trial 0002 are missing",
        ]
        compact(store.storage, least=1, grace=0)
    merged.write_bytes(content)  # from a copy, or the disk is mended
    appended.write_bytes(whole)
    assert epochs(ResultsStore(store.storage)) == {"0000": [0, 1, 2], "0001": [0, 1, 2], "0002": [3, 4]}
    merged.unlink()
    reader = ResultsStore(store.storage)
    assert epochs(reader) == {"0002": [3, 4]}
    assert "is missing (6 records of trials 0000 to 0001 are missing)" in str(reader.left_out[0])


@pytest.mark.parametrize("content", [b"", b'{"parents": []', b"[]", b'{"parents": [], "files": [1], "absorbed": {}}'])
def test_without_a_commit_all_records_are_still_read_and_the_next_compaction_writes_it_anew(
    store, make_report, content
):
    compact(store.storage, least=1, grace=0)
    compact(store.storage, least=1, grace=0)  # removes the appended files
    (commit,) = files(store, COMMITS)
    commit.write_bytes(content)
    (commit.parent / "notes.json").write_text("{}")
    assert epochs(store) == {"0000": [0, 1, 2], "0001": [0, 1, 2]}
    assert [file.name for file in store.left_out] == [f"{COMMITS}/{commit.name}", f"{COMMITS}/notes.json"]
    assert compact(store.storage, least=1) == 1
    compact(store.storage, least=1)
    assert not commit.exists()
    reader = ResultsStore(store.storage)
    assert epochs(reader) == {"0000": [0, 1, 2], "0001": [0, 1, 2]}
    assert [file.name for file in reader.left_out] == [f"{COMMITS}/notes.json"]


def test_large_files_are_read_in_parts(place, make_report, monkeypatch):
    monkeypatch.setattr(record_files, "SMALL", 0)
    monkeypatch.setattr(record_files, "ROW_GROUP", 7)
    store = ResultsStore(place)
    for trial in range(3):
        store.append([make_report(f"{trial:04d}", epoch, score=(trial + epoch) / 100) for epoch in range(20)])

    def told():
        return store.records(), store.curves(["0001"]), store.trials(), store.rank({"holdout/point_score": "max"})

    before = told()
    assert compact(store.storage, least=1) == 3
    assert told() == before
    assert before[3][0].values == (0.21,)


def test_the_files_are_plain_parquet(store):
    tables = [pq.read_table(path) for path in files(store)]
    assert sum(table.num_rows for table in tables) == 6


def test_a_checked_file_reads_any_part_and_no_damaged_block():
    content = random.Random(0).randbytes(2 * BLOCK + 77)
    tail, digests = b"the end", block_digests(content)

    def opened(stored):
        return CheckedFile(lambda count, first: stored[first : first + count], len(content), digests, tail)

    rng = random.Random(1)
    for prefetched in (False, True):
        file = opened(content)
        if prefetched:
            file.prefetch([(10, 5), (BLOCK + 3, 2)])
        for _ in range(200):
            first, count = rng.randrange(len(content) + len(tail)), rng.randrange(BLOCK)
            file.seek(first)
            assert file.read(count) == (content + tail)[first : first + count]
    damaged = opened(flipped(content, 8 * BLOCK + 1))
    assert damaged.read(BLOCK) == content[:BLOCK]
    with pytest.raises(DamagedError):
        damaged.read(1)
    with pytest.raises(DamagedError):
        opened(content[:-1]).prefetch([(2 * BLOCK, 77)])
    with pytest.raises(DamagedError):
        CheckedFile(lambda count, first: b"", len(content), digests[:-1], tail)
