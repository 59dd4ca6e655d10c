"""Folders and buckets behave alike: whole files, listings, copies of folders, and one-line faults."""

import os
import stat

import pytest

from semprior.errors import UserError
from semprior.io.storage import join_uri, open_storage
from semprior.reading.names import checked_name


def test_files_are_written_read_listed_and_removed(place):
    storage = open_storage(place)
    assert storage.list() == []
    assert not storage.exists("a/b.json")
    storage.put("a/b.json", b"one")
    storage.put("a/c.json", b"three")
    storage.put("a/b.json", b"two")
    assert storage.read("a/b.json") == b"two"
    assert [(entry.name, entry.size, entry.is_folder) for entry in storage.list("a")] == [
        ("a/b.json", 3, False),
        ("a/c.json", 5, False),
    ]
    assert storage.child("a").read("c.json") == b"three"
    storage.delete("a/b.json")
    storage.delete("a/b.json")
    assert not storage.exists("a/b.json")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.json")
    storage.delete_folder("a")
    storage.delete_folder("a")
    assert not storage.exists("a/c.json")


def test_a_file_is_created_once(place):
    storage = open_storage(place)
    storage.create("sweep.json", b"mine")
    with pytest.raises(FileExistsError):
        storage.create("sweep.json", b"yours")
    assert storage.read("sweep.json") == b"mine"


def test_a_folder_is_uploaded_whole(place, tmp_path):
    source = tmp_path / "checkpoint"
    (source / "deep").mkdir(parents=True)
    (source / "manifest.json").write_bytes(b"{}")
    (source / "deep" / "weights").write_bytes(os.urandom(20 << 20))
    storage = open_storage(place)
    storage.upload(source, "checkpoints/0000/1", last=("manifest.json",))
    for name in ("manifest.json", "deep/weights"):
        assert storage.read(f"checkpoints/0000/1/{name}") == (source / name).read_bytes()


def test_files_have_the_rights_of_their_neighbours(tmp_path):
    storage = open_storage(tmp_path / "runs")
    (tmp_path / "source").mkdir()
    storage.put("a", b"")
    storage.upload(tmp_path / "source", "b")
    assert stat.S_IMODE((tmp_path / "runs" / "a").stat().st_mode) == 0o666 & ~_umask()
    assert stat.S_IMODE((tmp_path / "runs" / "b").stat().st_mode) == 0o777 & ~_umask()


def test_addresses_of_one_folder_are_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_storage("./runs").put("a", b"1")
    for address in (
        tmp_path / "runs",
        f"file://{tmp_path}/runs",
        f"file://localhost{tmp_path}/runs",
        f"{tmp_path}/x/../runs/",
    ):
        assert open_storage(address).read("a") == b"1"


def test_an_address_may_name_the_server(s3, s3_server, monkeypatch):
    open_storage(f"{s3}/runs").put("a", b"1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    address = join_uri(f"{s3}?endpoint_override={s3_server}", "runs")
    assert address == f"{s3}/runs?endpoint_override={s3_server}"
    assert open_storage(address).child("x").uri == f"{s3}/runs/x?endpoint_override={s3_server}"
    assert open_storage(address).read("a") == b"1"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3://bucket/runs?region=a&colour=red", "'colour' is not understood"),
        ("s3://key:secret@bucket/runs", "keys do not belong"),
        ("nowhere://x", "nowhere"),
        ("s3://[bucket/x", "s3://"),
        ("s3://bucket/runs#2", "'#' and control characters"),
        ("file:///data/runs#2", "'#' and control characters"),
        ("file:///data\t/runs", "'#' and control characters"),
        ("file://HOST/data/runs", "names no folder of this machine; write file:///FOLDER"),
        ("file://data", "names no folder of this machine"),
        ("file://", "names no folder of this machine"),
        ("file:///data?x=1", "names no folder of this machine"),
        ("file:/data/runs", r"write file:// for an address, or \./file:/data/runs for a folder"),
        ("s3:/bucket/runs", r"write s3:// for an address"),
    ],
)
def test_a_wrong_address_is_one_line(address, message):
    with pytest.raises(UserError, match=message) as caught:
        open_storage(address)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_refusal_of_s3_is_one_line(s3, monkeypatch):
    storage = open_storage("s3://no-such-bucket-here/runs")
    with pytest.raises(UserError, match=r"^s3://no-such-bucket-here/runs/a: there is no such bucket"):
        storage.put("a", b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for call in (lambda s: s.put("a", b""), lambda s: s.read("a"), lambda s: s.list()):
        with pytest.raises(UserError, match="the server cannot be reached"):
            call(open_storage(f"{s3}/runs"))


def test_a_refusal_of_the_disk_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        open_storage(tmp_path / "file" / "runs").put("a", b"")


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "a//b", "", ".", "a\\b", "a\nb"])
def test_no_name_leads_out(name):
    with pytest.raises(UserError, match="is not a name"):
        checked_name(name)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
