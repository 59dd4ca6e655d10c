"""`export`: every trial, curve, setting and artefact, once; never over what is of another origin."""

import csv
import dataclasses
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
import yaml

from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.store.results_store import ResultsStore

SCORE = "holdout/point_score"
EPOCHS = {"0000": 6, "0001": 4, "0002": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of three trials, one of which is running, with a log and a settled checkpoint's address."""
    sweep = made_up_sweep(tmp_path_factory.mktemp("made-up"))
    (sweep.storage.local / "logs").mkdir()
    (sweep.storage.local / "logs" / "0001.log").write_text("=a line\n", encoding="utf-8")
    return sweep


@pytest.fixture
def export(made, capsys):
    """A function that exports the sweep; its exit code and what it said."""

    def run(to, sweep=made):
        code = main(["export", "small", "--storage", str(sweep.storage.local.parent), "--to", to])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def go_on(sweep):
    """The trial that runs trains an epoch and is completed."""
    store = ResultsStore(sweep.storage)
    last = store.trials()[2].last
    metrics = {**last.metrics, SCORE: 0.9}
    again = {"writer": "", "checkpoint": None, "sha256": None, "images": None}
    later = dataclasses.replace(last, epoch=3, metrics=metrics, values=(0.9,), best=True, time=time.time(), **again)
    store.append([later, dataclasses.replace(later, kind="end", epoch=4, state="completed", metrics={})])


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_files_hold_every_trial_curve_setting_and_artefact(made, export, tmp_path):
    out = tmp_path / "out"
    assert export(f"csv:{out}") == (0, f"{out}: 3 trials of small with 13 epochs, as CSV\n")
    trials = {row["trial"]: row for row in rows_of(out / "trials.csv")}
    assert list(trials) == list(EPOCHS)
    assert (trials["0001"]["state"], trials["0001"]["reason"]) == ("stopped", "stopped by asha at epoch 4")
    assert float(trials["0001"][f"objective/{SCORE}"]) == 0.8
    assert json.loads(trials["0000"]["search/scam.stages"]) == [1, 2, 3]
    curves = rows_of(out / "curves.csv")
    assert {trial: sum(row["trial"] == trial for row in curves) for trial in trials} == EPOCHS
    told = [row for row in curves if row["trial"] == "0001" and row[SCORE]]
    stored = [report for report in ResultsStore(made.storage).curve("0001") if SCORE in report.metrics]
    assert [float(row[SCORE]) for row in told] == [report.metrics[SCORE] for report in stored]
    config = ResultsStore(made.storage).trials()[1].config
    settings = {row["key"]: row["value"] for row in rows_of(out / "settings.csv") if row["trial"] == "0001"}
    assert settings.keys() == config.keys()
    assert (settings["clusters.count"], settings["scam.stages"]) == ("7", "[2]")
    artefacts = out / "artefacts" / "0001"
    assert (artefacts / "log.txt").read_text() == "=a line\n"
    assert yaml.safe_load((artefacts / "config.yaml").read_text()) == {**config, "scam.stages": [2]}
    assert (artefacts / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "sweep.json").read_text())["name"] == "small"


def test_a_repeated_export_of_csv_files_updates_them(tmp_path, export):
    sweep, out = made_up_sweep(tmp_path), tmp_path / "out"
    assert export(f"csv:{out}", sweep)[0] == 0
    before = (out / "artefacts" / "0000" / "curve.png").stat().st_mtime_ns
    go_on(sweep)
    assert export(f"csv:{out}", sweep)[0] == 0
    assert [row["state"] for row in rows_of(out / "trials.csv")] == ["completed", "stopped", "completed"]
    assert len(rows_of(out / "curves.csv")) == 14
    assert (out / "artefacts" / "0000" / "curve.png").stat().st_mtime_ns == before


def test_mlflow_holds_a_run_for_each_trial_and_repeated_exports_add_what_came_later(tmp_path, export):
    mlflow = pytest.importorskip("mlflow")
    sweep, uri = made_up_sweep(tmp_path), f"sqlite:///{tmp_path}/mlflow.db"
    code, said = export(f"mlflow:{uri}", sweep)
    assert code == 0, said
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small")

    def runs():
        return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}

    def curve(trial, metric=SCORE):
        return {one.step: one.value for one in client.get_metric_history(runs()[trial].info.run_id, metric)}

    first = runs()
    assert {name: run.info.status for name, run in first.items()} == {
        "0000": "FINISHED",
        "0001": "KILLED",
        "0002": "RUNNING",
    }
    stored = ResultsStore(sweep.storage).curve("0001")
    assert curve("0001") == {r.epoch + 1: r.metrics[SCORE] for r in stored if SCORE in r.metrics}
    assert first["0001"].data.params["scam.stages"] == "[2]"
    assert first["0001"].data.tags["reason"] == "stopped by asha at epoch 4"
    assert first["0001"].data.metrics[f"best/{SCORE}"] == 0.8
    names = {entry.path for entry in client.list_artifacts(first["0001"].info.run_id)}
    assert {"config.yaml", "curve.png", "image-sums"} <= names
    assert str(tmp_path) in first["0001"].info.artifact_uri  # beside the file, wherever the command was called

    go_on(sweep)
    assert export(f"mlflow:{uri}", sweep)[0] == 0
    assert export(f"mlflow:{uri}", sweep)[0] == 0
    second = runs()
    assert {name: run.info.run_id for name, run in second.items()} == {n: run.info.run_id for n, run in first.items()}
    assert second["0002"].info.status == "FINISHED"
    assert len(client.get_metric_history(second["0002"].info.run_id, "inner_loss")) == 4
    assert (curve("0002")[4], second["0002"].data.metrics[f"best/{SCORE}"]) == (0.9, 0.9)

    base = ResultsStore(sweep.storage).trials()[2].last  # a later attempt trains the last two epochs anew
    again = {"attempt": 2, "writer": "", "checkpoint": None, "sha256": None, "images": None, "time": time.time()}
    anew = [dataclasses.replace(base, kind="start", epoch=2, metrics={}, values=(), best=False, **again)]
    anew.append(dataclasses.replace(base, epoch=2, metrics={**base.metrics, SCORE: 0.1}, **again))
    ResultsStore(sweep.storage).append(anew)
    assert export(f"mlflow:{uri}", sweep)[0] == 0
    assert (len(runs()), curve("0002")[3]) == (3, 0.1)
    assert 4 not in curve("0002")


def test_an_optuna_study_is_opened_by_the_dashboard_with_pictures(tmp_path, export):
    sweep, file = made_up_sweep(tmp_path), tmp_path / "study.db"
    uri, folder = f"sqlite:///{file}", f"{file}.artifacts"
    optuna.create_study(storage=uri, study_name="of somebody else")
    code, said = export(f"optuna:{uri}", sweep)
    assert code == 0 and f"optuna-dashboard {uri} --artifact-dir {folder}" in said, said
    study = optuna.load_study(study_name="small", storage=uri)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert (study.trials[1].params["clusters.count"], study.trials[1].value) == (7, 0.8)
    assert study.trials[1].user_attrs["runs"][0]["reason"] == "stopped by asha at epoch 4"
    assert len(study.trials[0].intermediate_values) == 5

    assert "as they were exported before" in export(f"optuna:{uri}", sweep)[1]
    go_on(sweep)
    assert export(f"optuna:{uri}", sweep)[0] == 0
    assert sorted(optuna.get_all_study_names(uri)) == ["of somebody else", "small"]
    study = optuna.load_study(study_name="small", storage=uri)
    assert [trial.value for trial in study.trials] == [0.5, 0.8, 0.9]
    storage = optuna.storages.get_storage(uri)
    metas = [meta for trial in study.trials for meta in optuna.artifacts.get_all_artifact_meta(trial, storage=storage)]
    kept = {meta.artifact_id for meta in metas}
    assert {path.name for path in (tmp_path / "study.db.artifacts").iterdir()} == kept  # none of the former export

    with dashboard(uri, folder) as address:
        (shown,) = [one for one in fetched(f"{address}/api/studies")["study_summaries"] if one["study_name"] == "small"]
        detail = fetched(f"{address}/api/studies/{shown['study_id']}?after=0")
        trial = detail["trials"][1]
        assert len(detail["trials"]) == 3
        (picture,) = [one for one in trial["artifacts"] if one["filename"] == "0001-curve.png"]
        assert picture["mimetype"] == "image/png"
        place = f"{address}/artifacts/{shown['study_id']}/{trial['trial_id']}/{picture['artifact_id']}"
        with urllib.request.urlopen(place, timeout=30) as response:
            assert response.read().startswith(b"\x89PNG")


@contextmanager
def dashboard(uri, folder):
    """The address of a real `optuna-dashboard` on a free port of the loopback."""
    program = Path(sys.executable).with_name("optuna-dashboard")
    if not program.exists():
        lack = pytest.fail if os.environ.get("SEMPRIOR_REQUIRE_ALL") == "1" else pytest.skip
        lack("optuna-dashboard is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program), "--port", str(port), "--artifact-dir", folder, "--server", "wsgiref", "--quiet", uri]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None, "optuna-dashboard ended"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < until, "optuna-dashboard does not listen"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def fetched(address):
    with urllib.request.urlopen(address, timeout=30) as response:
        return json.load(response)


def test_a_trial_of_several_seeds_is_one_trial_of_the_study_and_so_many_runs(tmp_path, export):
    sweep = made_up_sweep(tmp_path, ("seeds: 1", "seeds: 2"))
    store, uri = ResultsStore(sweep.storage), f"sqlite:///{tmp_path}/study.db"
    for trial, record in [(one.trial, one.last) for one in store.trials()[:1]]:
        again = {"trial": f"{trial}.1", "seed": 1, "writer": "", "images": None}
        later = dataclasses.replace(record, values=(0.7,), best=True, **again)
        store.append([later, dataclasses.replace(later, kind="end", epoch=6, state="completed", metrics={})])
    assert export(f"optuna:{uri}", sweep)[0] == 0
    study = optuna.load_study(study_name="small", storage=uri)
    assert [run["trial"] for run in study.trials[0].user_attrs["runs"]] == ["0000", "0000.1"]
    assert len(study.trials) == 3


def foreign_database(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE experiments (name TEXT)")


def foreign_study(path):
    optuna.create_study(storage=f"sqlite:///{path}", study_name="small")


def foreign_experiment(path):
    pytest.importorskip("mlflow").MlflowClient(tracking_uri=f"sqlite:///{path}").create_experiment("small")


def foreign_folder(path):
    path.mkdir()
    (path / "trials.csv").write_text("mine\n", encoding="utf-8")


def of_another_sweep(path):
    path.mkdir()
    (path / "export.json").write_text('{"sweep": "other", "sweep_sha256": "0"}', encoding="utf-8")


@pytest.mark.parametrize(
    ("to", "make", "reason"),
    [
        ("csv:{}", foreign_folder, "holds something else than an export of small; choose another folder"),
        ("csv:{}", of_another_sweep, "holds an export of another sweep, other"),
        ("csv:{}", lambda path: path.write_text("mine"), "holds something else"),
        (
            "optuna:sqlite:///{}",
            lambda path: path.write_text("mine, and no database"),
            "is not an SQLite file of Optuna",
        ),
        ("optuna:sqlite:///{}", foreign_database, "is not an SQLite file of Optuna"),
        ("optuna:sqlite:///{}", foreign_study, "has a study small that is not of this sweep"),
        (
            "mlflow:sqlite:///{}",
            lambda path: path.write_text("mine, and no database"),
            "is not an SQLite file of MLflow",
        ),
        ("mlflow:sqlite:///{}", foreign_database, "is not an SQLite file of MLflow"),
        ("mlflow:sqlite+pysqlite:///{}?timeout=5", foreign_database, "is not an SQLite file of MLflow"),
        ("mlflow:sqlite:///{}", foreign_study, "is not an SQLite file of MLflow"),
        ("mlflow:sqlite:///{}", foreign_experiment, "has an experiment small that is not of this sweep"),
    ],
)
def test_what_is_of_another_origin_is_refused_and_stays(to, make, reason, export, tmp_path):
    place = tmp_path / "place"
    make(place)
    before = place.read_bytes() if place.is_file() else {path: path.read_bytes() for path in place.iterdir()}
    code, said = export(to.format(place))
    assert (code, said.count("\n")) == (2, 1)
    assert reason in said
    assert before == (place.read_bytes() if place.is_file() else {path: path.read_bytes() for path in place.iterdir()})


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("csv", "must be mlflow:URI, csv:DIR or optuna:sqlite:///FILE"),
        ("tsv:out", "must be mlflow:URI"),
        ("optuna:study.db", "must be optuna:sqlite:///FILE"),
        ("optuna:sqlite:///no/such/folder/study.db", "no/such/folder: no such folder"),
        ("mlflow:nonsense://x", "nonsense"),
        ("mlflow:sqlite://", "names no file; write sqlite:///FILE"),
        ("optuna:sqlite:///:memory:", "names no file; write sqlite:///FILE"),
    ],
)
def test_an_impossible_place_is_one_line(to, reason, export, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = export(to)
    assert (code, said.count("\n")) == (2, 1)
    assert reason in said
    assert not list(tmp_path.iterdir())
