"""The benchmark of memory: what it draws is a data set without equals, and what it reads is private memory alone."""

import hashlib
import mmap

import numpy as np
import pytest

from benchmarks import memory
from semprior.data.layout import check_dataset, find_layout

pytestmark = pytest.mark.trains

MANY = 64 << 20  # bytes


def test_drawn_images_are_a_data_set_and_no_two_are_equal(tmp_path):
    memory.draw_data(tmp_path / "data", 300, 32)
    assert check_dataset(tmp_path / "data") == []
    layout = find_layout(tmp_path / "data")
    assert [len(layout.splits[split]) for split in ("train", "val")] == [285, 15]
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "data" / "images").iterdir()}
    assert len(digests) == 300


def test_mapped_files_do_not_count_and_arrays_do(tmp_path):
    (tmp_path / "file").write_bytes(b"\1" * MANY)
    private, mapped = memory.memory("RssAnon"), memory.memory("RssFile")
    shared = np.memmap(tmp_path / "file", np.uint8, "r")
    assert shared.sum() == MANY
    assert memory.memory("RssFile") > mapped + MANY // 2
    assert memory.memory("RssAnon") < private + MANY // 2
    with mmap.mmap(-1, MANY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:  # not of the heap, which may have room
        own.write(b"\1" * MANY)
        assert memory.memory("RssAnon") > private + MANY // 2
    del shared


def test_every_epoch_but_the_first_evolves(tmp_path):
    memory.draw_data(tmp_path / "data", 20, 32)
    settings = ["epochs=3", *memory.OFTEN, *memory.SMALL, "data.batch=4", "detector=mlclnet"]
    usage = memory.apart(memory.train, tmp_path / "data", "quick", settings, tmp_path)
    assert (usage.images, usage.evolved) == (20, 2)
    assert len(usage.private) == len(usage.largest) == 3
    assert all(0 < private <= most for private, most in zip(usage.private, usage.largest, strict=True))


def test_a_missing_data_set(tmp_path, capsys):
    assert memory.main(["--data", str(tmp_path / "nowhere"), "--json"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert not said.out
