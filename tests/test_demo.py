"""The demo, much shortened: it trains with pretrained weights, scores both networks and draws its picture."""

import io

import cv2
from rich.console import Console

from semprior.demo import SETTINGS, demo


def test_demo_ends_in_a_table_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "demo" / "run").mkdir(parents=True)  # of an earlier demo
    shown = io.StringIO()
    console = Console(file=shown, width=120)
    settings = (*SETTINGS, "epochs=2", "data.crop=64", "data.batch=4", "clusters.count=4")
    student, teacher = demo(tmp_path / "demo", console, count=12, settings=settings)
    assert student.split == teacher.split == "test"
    assert student.metrics.targets == teacher.metrics.targets > 0
    for text in ("student", "teacher", "IoU", "picture.png"):
        assert text in shown.getvalue()
    picture = cv2.imread(str(tmp_path / "demo" / "picture.png"))
    assert picture.shape[1] > picture.shape[0] > 100
    assert (tmp_path / "demo" / "run" / "checkpoints" / "index.json").is_file()
