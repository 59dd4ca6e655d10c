"""A FIFO or a device in the place of a file is refused at once; none of the readers waits for it."""

import os
from pathlib import Path

import pytest

from semprior.config.schema import read_leaves, unflatten
from semprior.data.images import decode
from semprior.data.layout import find_layout, read_scenes
from semprior.errors import UserError
from semprior.foundation.feature_file import FeatureStore
from semprior.foundation.weights import read_state_dict
from semprior.io.atomic_files import locked
from semprior.io.checkpoint import CheckpointFolder, load_checkpoint
from semprior.io.manifest import sha256_of
from semprior.io.storage import open_storage
from semprior.reading.files import only_regular, read_bytes
from semprior.reading.pixels import bits_per_channel
from semprior.training.run_folder import RunFolder
from tests.tiny import write_checkpoint, write_dataset

READERS = {
    "bytes": read_bytes,
    "settings": read_leaves,
    "image": decode,
    "weights": read_state_dict,
    "digest": sha256_of,
    "storage": lambda path: open_storage(path.parent).read(path.name),
    "chunks": lambda path: list(open_storage(path.parent).chunks(path.name)),
    "sent file": lambda path: open_storage(path.parent).put_file("copy", path),
}


@pytest.fixture
def fifo(tmp_path):
    """Puts a FIFO in the place of a file."""

    def replace(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    return replace


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_fifo_is_refused(tmp_path, fifo, read):
    with pytest.raises((UserError, OSError), match="not a regular file"):
        read(fifo(tmp_path / "a"))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(tmp_path, device):
    (tmp_path / "a.png").symlink_to(device)
    for read in (read_bytes, decode):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / "a.png")
    assert bits_per_channel(tmp_path / "a.png") == 8


@pytest.mark.parametrize("name", ["images/train03.png", "points.csv", "mode/train.txt", "labels/test01.png"])
def test_a_fifo_in_a_data_set_is_refused(tmp_path, fifo, name):
    root = write_dataset(tmp_path / "data")
    fifo(root / name)
    with pytest.raises(UserError, match=rf"{name}: .*not a regular file"):
        layout = find_layout(root)
        for split in ("train", "test"):
            read_scenes(layout, split, read_range(), masks="optional")


def read_range():
    from semprior.data.images import IntensityRange

    return IntensityRange()


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "student.safetensors", "arrays.npz"])
def test_a_fifo_in_a_checkpoint_is_refused(tmp_path, fifo, name):
    folder = write_checkpoint(tmp_path / "c")
    fifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}: .*not a regular file"):
        load_checkpoint(folder)


def test_a_fifo_in_a_run_is_refused(tmp_path, fifo):
    run = RunFolder.create(tmp_path / "run", unflatten({}), tmp_path)
    fifo(run.root / "metrics.jsonl")
    for act in (run.lines, lambda: run.append({"epoch": 0}), lambda: run.rewind(0)):
        with pytest.raises((UserError, OSError), match="not a regular file"):
            act()
    fifo(run.root / "log.txt")
    with pytest.raises(OSError, match="not a regular file"):
        run.log("text")
    with pytest.raises(OSError, match="not a regular file"), locked(run.root / "log.txt"):
        pass
    fifo(run.root / "run.json")
    with pytest.raises(UserError, match="give --data"):
        run.data()
    fifo(run.root / "checkpoints" / "index.json")
    with pytest.raises(UserError, match="not a regular file"):
        CheckpointFolder(run.root / "checkpoints").index()


def test_a_fifo_in_a_feature_bank_is_refused(tmp_path, fifo):
    store = FeatureStore(tmp_path)
    fifo(tmp_path / "features.bin")
    assert store.entries(["a"]) == ({}, [])
    with pytest.raises(UserError, match="not a regular file"):
        store.append({"a": __import__("numpy").zeros((1, 1, 1))})


def test_regular_files_are_opened_as_ever(tmp_path):
    with open(tmp_path / "a", "w", opener=only_regular) as file:
        file.write("one")
    with open(tmp_path / "a", "a", opener=only_regular) as file:
        file.write("two")
    assert read_bytes(tmp_path / "a") == b"onetwo"
    with pytest.raises(UserError, match="holds"):
        read_bytes(tmp_path / "a", 5)
    with pytest.raises(UserError, match="Is a directory"):
        read_bytes(tmp_path)
    with pytest.raises(UserError, match="null"):
        read_bytes(Path("a\0b"))
