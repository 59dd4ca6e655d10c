"""The terms of evaluations in the store: what is written comes back, the best and the last are kept."""

from dataclasses import replace

import numpy as np
import pytest

from semprior.evaluation.image_sums import ImageSums
from semprior.io.manifest import DamagedError
from semprior.io.storage import open_storage
from tests.tune.images import scored_images
from tune.comparison.stored_sums import put_sums, read_sums
from tune.store.checkpoints import prune
from tune.store.records import IMAGE_SUMS, Record
from tune.store.results_store import ResultsStore

SCORE = "holdout/point_score"


@pytest.mark.parametrize("names", [["a", "b/ü", "c\udcff"], ["one", "two", "three"]])
def test_what_is_written_comes_back(place, names):
    storage, images = open_storage(place), scored_images([0.1, 0.2, 0.3], names)
    digest = put_sums(storage, "0007.1", 2, 5, images)
    assert put_sums(storage, "0007.1", 2, 5, images) == digest  # the same file
    record = Record(kind="report", trial="0007.1", configuration=7, seed=0, attempt=2, epoch=5, images=digest)
    back = read_sums(storage, record.images_address)
    assert (back.names, back.terms) == (images.names, images.terms)
    assert back.table.dtype == np.float32
    assert np.array_equal(back.table, images.table)
    assert read_sums(storage, record.images_address.replace("0007.1", "0008")) is None


def test_a_changed_file_is_refused(tmp_path):
    storage = open_storage(tmp_path)
    put_sums(storage, "0000", 1, 0, scored_images([0.5]))
    (entry,) = storage.list(f"{IMAGE_SUMS}/0000")
    storage.put(entry.name, storage.read(entry.name).replace(b"image-000", b"image-001"))
    with pytest.raises(DamagedError, match="its digest is not the one recorded"):
        read_sums(storage, entry.name)


@pytest.mark.parametrize(
    "changed",
    [
        {"names": ("a", "a")},
        {"names": ("a",)},
        {"table": np.full((2, 1), np.nan, np.float32)},
        {"table": np.array([["1"], ["2"]])},
        {"table": np.ones(2, np.float32)},
    ],
)
def test_what_is_no_table_of_images_is_refused(tmp_path, changed):
    storage = open_storage(tmp_path)
    whole = ImageSums(("a", "b"), ("points",), np.ones((2, 1), np.float32))
    digest = put_sums(storage, "0000", 1, 0, replace(whole, **changed))
    with pytest.raises(DamagedError, match="is damaged"):
        read_sums(storage, f"{IMAGE_SUMS}/0000/1-0000-{digest}.npz")


class Attempt:
    """What a trial's rank 0 does with the terms of its evaluations."""

    def __init__(self, place, make_report, number):
        self.store, self.make_report, self.number = ResultsStore(place), make_report, number

    def write(self, epoch, score):
        return put_sums(self.store.storage, "0000", self.number, epoch, scored_images([score, score / 2]))

    def evaluate(self, epoch, score, best):
        given = {"best": best, "images": self.write(epoch, score)}
        self.store.append([self.make_report("0000", epoch, attempt=self.number, score=score, **given)])
        prune(self.store, "0000", self.number)

    def begin(self, epoch):
        of = {"trial": "0000", "configuration": 0, "seed": 0, "attempt": self.number}
        self.store.append([Record(kind="start", epoch=epoch, **of)])

    def end(self):
        of = {"trial": "0000", "configuration": 0, "seed": 0, "attempt": self.number}
        self.store.append([Record(kind="end", epoch=9, state="completed", **of)])
        prune(self.store, "0000", self.number)

    def kept(self):
        """Attempt and epoch of the files."""
        names = [entry.name.rpartition("/")[2] for entry in self.store.storage.list(f"{IMAGE_SUMS}/0000")]
        return sorted(name.rpartition("-")[0] for name in names)


def test_the_best_and_the_last_are_kept_through_compaction(place, make_report):
    trial = Attempt(place, make_report, 1)
    trial.begin(0)
    for epoch, (score, best) in enumerate([(0.5, True), (0.7, True), (0.6, False), (0.65, False)]):
        trial.evaluate(epoch, score, best)
    assert trial.kept() == ["1-0001", "1-0003"]
    for number in range(1, 20):  # enough files for a compaction
        trial.store.append([make_report(f"{number:04d}", 0, score=0.1)])
    before = trial.store.records()
    assert trial.store.compact() > 0
    assert trial.store.records() == before
    for by, score in (("best", 0.7), ("last", 0.65)):
        (address,) = trial.store.rank({SCORE: "max"}, by)[0].images
        assert read_sums(trial.store.storage, address).table[:, 0].sum() == pytest.approx(1.5 * score * 1000)
    assert trial.store.trials()[0].images == trial.store.rank({SCORE: "max"})[0].images[0]
    assert trial.store.rank({SCORE: "max"}, "robust")[0].images == (None,)
    trial.end()
    assert trial.kept() == ["1-0001", "1-0003"]


def test_a_later_attempt_removes_what_an_earlier_one_left_and_not_what_it_writes(tmp_path, make_report):
    first, second = (Attempt(tmp_path, make_report, number) for number in (1, 2))
    first.begin(0)
    first.evaluate(0, 0.5, True)
    first.evaluate(1, 0.4, False)
    first.write(2, 0.7)  # and it was killed before the record
    assert first.kept() == ["1-0000", "1-0001", "1-0002"]
    second.begin(1)
    second.write(1, 0.45)
    prune(second.store, "0000", 2)
    assert second.kept() == ["1-0000", "2-0001"]
    second.evaluate(1, 0.55, True)
    assert second.kept() == ["2-0001"] * 2  # the one that it was writing is there as long as it may be recorded
    second.end()
    assert second.kept() == ["2-0001"]
