"""What depends on the data alone is made once a machine: images, seeds and statistics, mapped by every run."""

import mmap
import os
import threading

import numpy as np
import pytest

import semprior.training.image_cache
from semprior.config.schema import parse_settings, resolve
from semprior.data.layout import find_layout
from semprior.io.array_cache import cached_arrays
from semprior.training.prepare import read_training_set
from tests.tiny import write_dataset


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data")


def prepared(root, cache, *settings):
    flags = parse_settings(["labels.seed=contrast", "scam.stages=none", "clusters.count=3", "data.batch=4", *settings])
    return read_training_set(find_layout(root), resolve("quick", flags=flags, environment={}), lambda _: None, cache)


@pytest.fixture
def made(monkeypatch):
    """Names of what is made anew, in their order."""
    told = []

    def counting(name, function):
        def counted(*arguments, **named):
            told.append(name)
            return function(*arguments, **named)

        return counted

    for name in ("iter_scenes", "image_statistics", "cluster"):
        monkeypatch.setattr(
            semprior.training.image_cache, name, counting(name, getattr(semprior.training.image_cache, name))
        )
    seeds = {how: counting(how, make) for how, make in semprior.training.image_cache.SEEDS.items()}
    monkeypatch.setattr(semprior.training.image_cache, "SEEDS", seeds)
    return told


def root(array):
    """What the memory of an array belongs to."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def equal(one, other):
    for a, b in zip(one.scenes, other.scenes, strict=True):
        assert a.name == b.name and np.array_equal(a.image, b.image) and np.array_equal(a.points, b.points)
        assert (a.mask is None) == (b.mask is None) and (a.mask is None or np.array_equal(a.mask, b.mask))
    for a, b in zip(one.seeds, other.seeds, strict=True):
        assert np.array_equal(a.mask, b.mask) and np.array_equal(a.succeeded, b.succeeded)
    assert np.array_equal(one.clusters, other.clusters)
    assert (one.normalisation, one.intensity, one.train) == (other.normalisation, other.intensity, other.train)
    return True


def test_a_second_run_finds_everything_and_gets_the_same(data, tmp_path, made):
    plain = prepared(data, None)
    first = prepared(data, tmp_path / "cache")
    made.clear()
    second = prepared(data, tmp_path / "cache")
    assert made == []
    assert equal(plain, first) and equal(first, second)
    for found in (plain, first, second):  # none has an image in memory of its own
        assert {type(root(s.image)) for s in found.scenes} | {type(root(s.mask)) for s in found.seeds} == {mmap.mmap}


def test_another_number_of_clusters_redoes_the_kmeans_alone(data, tmp_path, made):
    prepared(data, tmp_path / "cache")
    made.clear()
    other = prepared(data, tmp_path / "cache", "clusters.count=5")
    assert made == ["cluster"] and len(set(other.clusters)) == 5


def test_other_seeds_are_made_from_the_same_images(data, tmp_path, made):
    prepared(data, tmp_path / "cache")
    made.clear()
    prepared(data, tmp_path / "cache", "labels.seed=edges")
    assert set(made) == {"edges"}


def test_changed_data_are_read_anew(data, tmp_path, made):
    before = prepared(data, tmp_path / "cache")
    table = data / "points.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines()[:-1]))  # a target of the test split
    file = next((data / "images").glob("train*.png"))
    file.write_bytes((data / "images" / "test00.png").read_bytes())
    (data / "labels").rename(data / "kept")  # its mask would not fit the new image
    made.clear()
    after = prepared(data, tmp_path / "cache")
    assert "iter_scenes" in made
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(before.scenes, after.scenes, strict=True))


def test_points_moved_within_one_size_and_one_second_are_read_anew(data, tmp_path, made):
    before = prepared(data, tmp_path / "cache")
    table = data / "points.csv"
    stamp = table.stat()
    content = table.read_bytes()
    row = next(line for line in content.splitlines() if line.startswith(b"train"))
    digit = (int(row[-1:]) + 1) % 10
    table.write_bytes(content.replace(row, row[:-1] + str(digit).encode()))
    os.utime(table, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert table.stat().st_size == stamp.st_size
    after = prepared(data, tmp_path / "cache")
    assert not all(np.array_equal(a.points, b.points) for a, b in zip(before.scenes, after.scenes, strict=True))


def test_boxes_limit_the_seeds_and_are_kept(data, tmp_path):
    free = prepared(data, None)
    first, *rows = (data / "points.csv").read_text().splitlines()
    boxed = [f"{row},{x},{y},{x + 1},{y + 1}" for row in rows for x, y in [map(int, row.split(",")[1:])]]
    boxed[-1] = f"{rows[-1]},,,,"
    (data / "points.csv").write_text("\n".join([f"{first},left,top,right,bottom", *boxed]) + "\n")
    plain, made, found = prepared(data, None), prepared(data, tmp_path / "cache"), prepared(data, tmp_path / "cache")
    assert equal(plain, made) and equal(made, found)
    for before, scene, seed in zip(free.seeds, found.scenes, found.seeds, strict=True):
        limits = np.zeros_like(seed.mask)
        for top, left, bottom, right in scene.boxes.tolist():
            limits[top:bottom, left:right] = True
        assert scene.boxes.shape == (2, 4) and not (seed.mask & ~limits).any()
        assert np.count_nonzero(seed.mask) == 8 < np.count_nonzero(before.mask)


@pytest.mark.parametrize(
    ("constant", "redone"),
    [
        ("SCENES_VERSION", {"iter_scenes", "contrast", "image_statistics", "cluster"}),
        ("SEEDS_VERSION", {"contrast"}),
        ("STATISTICS_VERSION", {"image_statistics", "cluster"}),
        ("CLUSTERS_VERSION", {"cluster"}),
        ("COMPUTED_BY", {"iter_scenes", "contrast", "image_statistics", "cluster"}),
    ],
)
def test_a_raised_version_makes_anew_what_depends_on_it(data, tmp_path, made, monkeypatch, constant, redone):
    first = prepared(data, tmp_path / "cache")
    made.clear()
    raised = ("numpy 99.0",) if constant == "COMPUTED_BY" else 99
    monkeypatch.setattr(semprior.training.image_cache, constant, raised)
    assert equal(first, prepared(data, tmp_path / "cache"))
    assert set(made) == redone


def test_a_damaged_file_is_made_anew(data, tmp_path, made):
    first = prepared(data, tmp_path / "cache")
    for file in (tmp_path / "cache" / "arrays").glob("*/*.npy"):
        content = file.read_bytes()
        file.unlink()  # the first run has it mapped
        file.write_bytes(content[:40])
    assert equal(first, prepared(data, tmp_path / "cache"))


def test_of_many_who_need_it_at_once_one_makes_it(tmp_path):
    made, found, together = [], [], threading.Barrier(4)

    def make():
        made.append(1)
        return [{"numbers": np.arange(2)}, {"numbers": np.arange(2, 5)}]

    def need():
        together.wait()
        found.append(cached_arrays(tmp_path, "key", make)["numbers"].tolist())

    threads = [threading.Thread(target=need) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0, 1, 2, 3, 4]] * 4
    assert made == [1]
