"""Files and folders appear whole; what is there survives a block that fails."""

import stat

import pytest

from semprior.errors import StorageError, UserError
from semprior.io.atomic_files import atomic_file, atomic_folder, umask


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    with atomic_file(path) as scratch:
        scratch.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.onnx"]


def test_a_block_that_fails_leaves_file_and_folder_as_they_were(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "file") as scratch:
        scratch.write_bytes(b"new")
        1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "folder", replace=True) as scratch:
        (scratch / "a").write_bytes(b"new")
        1 / 0  # noqa: B018
    assert (tmp_path / "file").read_bytes() == (tmp_path / "folder" / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["file", "folder"]


def test_a_folder_appears_whole_with_the_usual_rights(tmp_path):
    folder = tmp_path / "deep" / "folder"
    with atomic_folder(folder) as scratch:
        (scratch / "a").write_bytes(b"1")
        assert not folder.exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask()
    with pytest.raises(UserError, match="folder: exists already"), atomic_folder(folder):
        pass
    with atomic_folder(folder, replace=True) as scratch:
        (scratch / "b").write_bytes(b"2")
    assert names(folder) == ["b"]
    assert names(folder.parent) == ["folder"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/folder: cannot be written"), atomic_folder(tmp_path / "file/folder"):
        pass
