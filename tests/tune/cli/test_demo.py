"""The demo, much shortened: a sweep of its own, the ranking, the best checkpoint pulled and scored, the picture."""

import io
import os

import cv2
import pytest
from rich.console import Console

from semprior.errors import UserError
from tune.cli.demo import demo, main
from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep

pytestmark = pytest.mark.ray


def shortened(spec):
    small = {"detector": "mlclnet", "epochs": 2, "data.crop": 64, "data.batch": 4, "clusters.count": 4}
    base = {**spec.base, **small, "select.after": 0.0}
    return spec.model_copy(update={"base": base, "budget": spec.budget.model_copy(update={"trials": 2})})


@pytest.mark.slow
def test_demo_ends_in_a_ranking_a_table_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPRIOR__OPTIM__RATE", "3e-3")
    monkeypatch.setenv("SEMPRIOR_STORAGE", str(tmp_path / "elsewhere"))
    (tmp_path / "demo" / "runs" / "demo").mkdir(parents=True)  # of an earlier demo
    (tmp_path / "demo" / "best").mkdir()
    shown = io.StringIO()
    student, teacher = demo(tmp_path / "demo", os.environ, Console(file=shown, width=120), count=15, shorten=shortened)
    assert student.split == teacher.split == "test"
    assert student.metrics.targets == teacher.metrics.targets > 0
    for text in ("demo is done", "point_score", "the preset itself", "student", "teacher", "IoU", "picture.png"):
        assert text in shown.getvalue()
    trials = ResultsStore(open_sweep(str(tmp_path / "demo" / "runs" / "demo")).storage).trials()
    assert [trial.config["optim.rate"] for trial in trials] == [3e-3, 3e-3]
    assert not (tmp_path / "elsewhere").exists()
    picture = cv2.imread(str(tmp_path / "demo" / "picture.png"))
    assert picture.shape[1] > picture.shape[0] > 100


@pytest.mark.parametrize("variable", ["SEMPRIOR__EPOCH", "SEMPRIOR__EPOCHS", "SEMPRIOR__SCAM__SCALE"])
def test_a_mistaken_variable_is_one_line_before_anything_is_drawn(tmp_path, monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "0.5")
    assert main([str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("semprior-tune: ") and error.count("\n") == 1
    assert variable in error or variable.removeprefix("SEMPRIOR__").lower() in error
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_a_fault_that_ends_the_demo_is_its_one_line(tmp_path):
    def too_large(spec):
        return spec.model_copy(update={"resources": spec.resources.model_copy(update={"cpus": 1000})})

    with pytest.raises(UserError, match=r"demo: resources: a trial takes 1000 CPUs, but there is one node"):
        demo(tmp_path / "demo", os.environ, Console(quiet=True), count=5, shorten=too_large)
