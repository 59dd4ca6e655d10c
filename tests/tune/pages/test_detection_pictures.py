"""Pictures of what the best configuration and the preset find need data and checkpoints, which the page verifies."""

import dataclasses
import shutil

import pytest

from semprior.data.synthetic.scenes import write_scenes
from semprior.io.checkpoint import load_checkpoint
from semprior.io.storage import open_storage
from semprior.pages.blocks import Pictures, Text
from tests.tiny import write_checkpoint
from tests.tune.made_up import made_up_sweep
from tune.pages.detections import Wanted, detection_blocks
from tune.pages.gathered import gather
from tune.store.checkpoints import put_checkpoint
from tune.store.results_store import ResultsStore
from tune.store.sweeps import create_sweep, open_sweep

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the made-up sweep, where the best epochs of the preset and of trial 0001 have checkpoints."""
    folder = tmp_path_factory.mktemp("pictures")
    sweep = made_up_sweep(folder)
    records = [record for history in ResultsStore(sweep.storage).histories().values() for record in history]
    there = create_sweep(open_storage(folder / "runs"), "kept", sweep.spec, sweep.data).storage
    shutil.copytree(sweep.storage.local / "image-sums", there.local / "image-sums")
    snapshot = load_checkpoint(write_checkpoint(folder / "checkpoint"))
    stored = {trial: put_checkpoint(there, trial, 1, snapshot) for trial in ("0000", "0001")}
    peaks = {("0000", 4): stored["0000"], ("0001", 2): stored["0001"]}
    for index, record in enumerate(records):
        checkpoint = peaks.get((record.trial, record.epoch)) if record.kind == "report" else None
        if checkpoint is not None:
            records[index] = dataclasses.replace(record, checkpoint=checkpoint.address, sha256=checkpoint.sha256)
    ResultsStore(there).append(records)
    return folder


@pytest.fixture
def data(folder):
    return gather(open_sweep(str(folder / "runs" / "kept")))


def test_best_and_preset_are_seen_on_the_images_that_were_held_out(data):
    text, pictures = detection_blocks(data, Wanted())
    assert isinstance(text, Text) and isinstance(pictures, Pictures)
    assert "What the students of the best configuration and the preset find" in text.text
    assert "training images that the runs have held out" in text.text
    alts = " ".join(picture.alt for strip in pictures.strips for picture in strip.pictures)
    assert "best (0001)" in alts and "preset (0000)" in alts


def test_another_split_of_other_data_is_named(data, tmp_path):
    write_scenes(tmp_path / "other", 12, 1)
    text, pictures = detection_blocks(data, Wanted(str(tmp_path / "other"), "test"))
    assert "images of the split test" in text.text
    assert pictures.strips


def test_data_that_were_changed_give_no_pictures_of_the_holdout(data, folder):
    image = next((folder / "scenes" / "images").iterdir())
    hidden = image.with_name(f".{image.name}")
    image.rename(hidden)
    try:
        (note,) = detection_blocks(data, Wanted(split="val"))
    finally:
        hidden.rename(image)
    assert "were changed after the sweep had begun" in note.text
