"""`semprior report`: the page of a run, from a made-up run whose student is right; what lacks is said, not left out."""

import json
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from semprior.cli import report as command
from semprior.cli.app import main
from semprior.config.schema import flatten, unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.data.layout import find_layout
from semprior.data.sparse_masks import SparseMasks
from semprior.data.training_set import TrainingSet
from semprior.deployment.evaluate import run_scenes
from semprior.io.checkpoint import Snapshot
from semprior.labels.label_history import label_windows
from semprior.models.detector import create_detector, detector_spec
from semprior.models.scam import SCAM
from semprior.training.run_folder import RunFolder
from semprior.training.trainer import data_digest
from tests.browser import browser
from tests.tiny import bright_student, write_dataset

CONFIG = unflatten(
    {"detector": "mlclnet", "epochs": 6, "data.holdout": 0.25, "scam.stages": [1, 3], "clusters.count": 4}
)
FOREIGN = "<script>صورة 图"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set whose held-out images have foreign names."""
    root = write_dataset(tmp_path_factory.mktemp("report") / "data")
    renamed = {name: f"{FOREIGN}{name}" for name in ("train00", "train01", "train02", "train03")}
    for before, after in renamed.items():
        for folder in ("images", "labels"):
            (root / folder / f"{before}.png").rename(root / folder / f"{after}.png")
        for table in ("mode/train.txt", "points.csv"):
            text = (root / table).read_text(encoding="utf-8")
            (root / table).write_text(re.sub(rf"^{before}\b", after, text, flags=re.MULTILINE), encoding="utf-8")
    return root


def run_set(data) -> TrainingSet:
    """The images of a run on the data set, in three clusters of four."""
    scenes, parts = run_scenes(find_layout(data), CONFIG, IntensityRange())
    ordered = [scenes[index] for index in (*parts.train, *parts.validation, *parts.held_out)]
    clusters = np.arange(len(ordered)) % 3
    counts = len(parts.train), len(parts.validation)
    return TrainingSet(ordered, *counts, [], clusters, Normalisation(0.3, 0.15), IntensityRange(), [])


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The folder of a run after four of six epochs."""
    folder = RunFolder.create(tmp_path_factory.mktemp("report") / "run <b>", CONFIG, data)
    images = run_set(data)
    soft = SparseMasks.pack(np.where(scene.mask, np.uint8(200), np.uint8(0)) for scene in images.scenes)
    for epoch in range(4):
        scores = {
            f"holdout/{who}{name}": 0.1 * epoch for who in ("", "teacher/") for name in ("iou", "iou_se", "pd", "fa")
        }
        scores |= {"holdout/point_score": 0.2 * epoch, "holdout/teacher/point_score": 0.1 * epoch} if epoch else {}
        line = {
            "epoch": epoch,
            "inner_loss": 1 / (epoch + 1),
            "outer_loss": None,
            "rate": 1e-3,
            "pool": 9,
            "seconds": 60.0,
        }
        folder.append(
            line | {"best": epoch == 2, "evolved": epoch == 2} | (scores if epoch else {}) | {"labels/iou": 0.5}
        )
        if epoch in (0, 2):
            folder.keep_labels(epoch, label_windows(images, soft.__getitem__))
    folder.checkpoints.save(snapshot(images, soft), best=True)
    return folder.root


def snapshot(images, soft) -> Snapshot:
    torch.manual_seed(0)
    scam = SCAM((8, 16), detector_spec("mlclnet").stages, (0, 2), 0.5, width=8)
    tensors = {
        "student": create_detector("mlclnet").state_dict(),
        "modulator": {f"scam.{name}": tensor for name, tensor in scam.state_dict().items()},
        "training": {"alpha": torch.tensor([0.5, 0.0, -0.5, 9.0])},
    }
    values = {"config": flatten(CONFIG), "epoch": 4, "normalisation": [0.3, 0.15], "intensity": [0.0, 255.0]}
    values |= {"vfm": "key", "data": data_digest(images)}
    return Snapshot(tensors, {**soft.stored("soft"), "clusters": images.clusters}, values)


@pytest.fixture(autouse=True)
def right_student(monkeypatch):
    monkeypatch.setattr(
        command, "load_student", lambda *_: bright_student(**flatten(replace(CONFIG, precision="fp32")))
    )


@pytest.fixture
def page_of(tmp_path, capsys):
    """A function that writes a page and returns its HTML."""

    def write(*arguments):
        out = tmp_path / "page.html"
        assert main(["report", *map(str, arguments), "--out", str(out)]) == 0
        assert f"{out}: the page of" in capsys.readouterr().out
        return out.read_text(encoding="utf-8")

    return write


def section(content, anchor):
    (part,) = re.findall(rf'<h2 id="{anchor}">(.*?)</section>', content, re.DOTALL)
    return part


def test_a_page_shows_all_of_a_run(run, page_of):
    content = page_of(run)
    assert "<h1><bdi>Run run &lt;b&gt;</bdi></h1>" in content
    assert "It is at epoch 4 of 6. Its best epoch is 3." in content
    overview = section(content, "overview")
    assert "4 min 0 s" in overview and "0.4000" in overview
    settings = section(content, "settings")
    assert "scam.stages" in settings and "[1, 3]" in settings and "data.crop" not in settings
    assert "--preset standard --set detector=mlclnet" in settings
    assert len(re.findall("data-chart", section(content, "curves"))) == 2
    parts = section(content, "what-is-found-and-what-is-missed")
    assert "By size" in parts and "By contrast" in parts and "By kind" in parts and "Threshold" in parts
    assert "no target is missed" in parts or "too few or too alike" in parts
    pictures = section(content, "pictures-of-detections")
    assert "Student: 6 of 6 targets hit, 0 missed, 0 false alarms." in pictures
    assert 'class="miss"' not in pictures and pictures.count('class="hit"') > 6
    masks = section(content, "pseudo-masks-over-epochs")
    assert masks.count("<h3>") == 6
    assert masks.count(">first: ") == 6 and masks.count(">epoch 3: ") == 6
    weights = section(content, "cluster-weights")
    assert "3 clusters; the weight is lowest for cluster 2" in weights
    assert "Trusted most: cluster 0" in weights and "Trusted least: cluster 2" in weights
    gates = section(content, "scam-gates")
    assert "stage 1" in gates and "stage 3" in gates and "stage 2" not in gates


def test_foreign_names_are_text(run, page_of):
    content = page_of(run, "--split", "train")
    assert f"\u2068{FOREIGN.replace('<', '&lt;').replace('>', '&gt;')}train00\u2069" in content
    assert FOREIGN not in content


def test_the_test_split_is_read_only_if_it_is_named(run, data, page_of, monkeypatch):
    opened = []
    monkeypatch.setattr("semprior.data.images.decode", _noting(opened))
    page_of(run)
    assert opened and not any("test" in name for name in opened)
    content = page_of(run, "--data", data, "--split", "test")
    assert any("test" in name for name in opened)
    assert "choose nothing by them" in content


def _noting(opened):
    from semprior.data.images import decode

    def note(path, *arguments):
        opened.append(path.stem)
        return decode(path, *arguments)

    return note


def test_without_masks_points_are_counted(run, data, tmp_path, page_of):
    points_only = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(points_only / "labels")
    content = page_of(run, "--data", points_only)
    assert "has no full masks" in section(content, "what-is-found-and-what-is-missed")
    assert "6 of 6 targets hit" in section(content, "pictures-of-detections")


def test_what_a_run_lacks_is_said(run, tmp_path, page_of):
    """Data that are gone, no pseudo-masks, no metrics, no checkpoint."""
    bare = shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(bare / "pseudo-masks")
    (bare / "run.json").write_text(json.dumps({"data": str(tmp_path / "gone")}))
    content = page_of(bare)
    assert "is not there: give --data DIR" in section(content, "pictures-of-detections")
    assert "Sample images of the clusters are left out" in section(content, "cluster-weights")
    assert "runs of earlier versions did not keep them" in section(content, "pseudo-masks-over-epochs")
    (bare / "metrics.jsonl").write_text("")
    shutil.rmtree(bare / "checkpoints")
    (bare / "checkpoints").mkdir()
    content = page_of(bare)
    assert "The run has no checkpoint yet" in section(content, "scam-gates")
    assert "has no metrics of epochs" in section(content, "curves")


def test_a_run_of_an_earlier_version_shows_its_first_and_last_pseudo_masks(run, tmp_path, page_of):
    earlier = shutil.copytree(run, tmp_path / "earlier")
    shutil.rmtree(earlier / "pseudo-masks")
    masks = section(page_of(earlier), "pseudo-masks-over-epochs")
    assert masks.count(">first: ") == 6 and masks.count(">epoch 4: ") == 6


def test_a_fetched_checkpoint_has_a_page(run, data, page_of):
    checkpoint = RunFolder(run).checkpoints.path("best")
    content = page_of(checkpoint, "--data", data)
    assert "has no metrics of epochs" in section(content, "curves")
    assert "6 of 6 targets hit" in section(content, "pictures-of-detections")


def test_the_page_lies_in_the_run_by_default(run, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    copied = shutil.copytree(run, tmp_path / "run")
    assert main(["report", str(copied), "--open"]) == 0
    assert opened == [(copied / "report.html").as_uri()]


def test_faults_are_one_line(run, data, tmp_path, refused):
    assert "must end in .html" in refused("report", run, "--out", tmp_path / "page.txt")
    assert "no folder" in refused("report", run, "--out", tmp_path / "none" / "page.html")
    assert "neither a run's folder nor a checkpoint" in refused("report", data)
    assert "neither a run's folder nor a checkpoint" in refused("report", tmp_path / "none")
    assert "no split" in refused("report", run, "--split", "nosuch", "--out", tmp_path / "page.html")
    other = shutil.copytree(data, tmp_path / "other")
    image = next(iter((other / "images").glob("train1*.png")))
    cv2.imwrite(str(image), cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) // 2)
    assert "is not the data set" in refused("report", run, "--data", other, "--out", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_the_page_of_a_run_renders_in_a_browser(run, tmp_path, page_of):
    page_of(run)
    with browser(tmp_path / "profile") as opened:
        reader = opened(tmp_path / "page.html")
        reader.page.screenshot(path=tmp_path / "run.png", full_page=True)
        assert reader.page.locator(".chart svg.main-svg").count() >= 6
        assert (reader.errors, reader.requests) == ([], [])
