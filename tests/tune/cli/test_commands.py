"""The commands that read a sweep, and errors of the user: one line, exit code 2."""

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from semprior.io.storage import open_storage
from tests.repository import ROOT
from tests.tune.made_up import made_up_sweep
from tests.tune.small_sweep import SWEEP
from tune.cli.app import main
from tune.monitor.heartbeat import HeartbeatWriter, last_generation
from tune.monitor.wording import gain_over

SCORE = "holdout/point_score"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return made_up_sweep(tmp_path_factory.mktemp("made-up"))


@pytest.fixture
def output_of(sweep, capsys, monkeypatch):
    """A function that runs a command about the made-up sweep and returns its output."""
    monkeypatch.setenv("SEMPRIOR_STORAGE", str(open_storage(sweep.spec.storage).local))

    def run(*arguments, code=0):
        assert main([str(argument) for argument in arguments]) == code
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """A function that runs a command that must be refused, with exit code 2 and one line, and returns the line."""

    def run(*arguments):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("semprior-tune: ")
        assert error.count("\n") == 1
        return error

    return run


def test_list_tells_each_sweep_in_every_format(output_of):
    assert "small" in output_of("list")
    (entry,) = json.loads(output_of("list", "--format", "json"))
    assert (entry["sweep"], entry["state"], entry["ended"], entry["trials"]) == ("small", "waiting", 2, 12)
    (row,) = csv.DictReader(io.StringIO(output_of("list", "--format", "csv")))
    assert row["best"] == "0.8"


def test_status_tells_the_state_and_the_trials(output_of, sweep):
    shown = output_of("status", "small")
    assert "small: waiting, 2 of 12 trials ended" in shown
    assert "9 not begun, best: trial 0001, holdout/point_score 0.8000" in shown
    with HeartbeatWriter(sweep.storage, 1):
        assert "small: running" in output_of("status", "small")
    shown = output_of("status", "small", "--follow")
    assert "small: stopped" in shown
    assert "continue with: semprior-tune resume small\n" in shown


def test_top_ranks_with_errors_and_tells_the_gain(output_of):
    shown = output_of("top", "small")
    places = [shown.index(f" {place} │ 000{number} ") for place, number in ((1, 1), (2, 2), (3, 0))]
    assert places == sorted(places)
    for part in ("0.8000 ± 0.0100", "0.25", "1,2,3", "stopped", "-0.3000 ± 0.0030", "+0.3000 ± 0.0030", "P(best)"):
        assert part in shown
    assert "is better than trial 0000, the preset itself, by 0.3000 ± 0.0030" in shown
    assert "some differences are not known: the store lacks the values image by image" in shown
    assert "of trial 0002\n" in shown
    assert "importance of the dimensions: unknown until 8 configurations are evaluated; there are 3" in shown
    entries = json.loads(output_of("top", "small", "-n", 2, "--format", "json"))
    assert [entry["trial"] for entry in entries] == ["0001", "0002"]
    assert entries[0]["scam.stages"] == [2]
    told = [{name: entry[f"{SCORE}_{name}"] for name in ("from_best", "from_base", "p_best")} for entry in entries]
    assert told[0] == {"from_best": 0, "from_base": pytest.approx(0.3, abs=1e-4), "p_best": 1}
    assert told[1] == dict.fromkeys(told[1])  # not known
    assert (entries[0][f"{SCORE}_from_base_se"], entries[0]["band"]) == (pytest.approx(0.0030, abs=2e-4), 1)
    rows = list(csv.DictReader(io.StringIO(output_of("top", "small", "--by", "holdout/iou", "--format", "csv"))))
    assert [float(row["holdout/iou"]) for row in rows] == [0.4, 0.3, 0.25]
    assert [json.loads(row["scam.stages"]) for row in rows] == [[2], [], [1, 2, 3]]
    assert float(rows[0]["holdout/iou_from_base"]) == pytest.approx(0.15, abs=1e-4)
    assert "no differences are shown, because robust values" in output_of("top", "small", "--by", "robust")
    by_last = json.loads(output_of("top", "small", "--by", "last", "--format", "json"))
    assert by_last[0]["holdout/point_score"] == pytest.approx(0.7)


def test_top_ranks_by_what_a_detector_costs_and_show_tells_it(output_of):
    entries = json.loads(output_of("top", "small", "--by", "cost/latency_ms", "--format", "json"))
    assert [(entry["trial"], entry["cost/latency_ms"]) for entry in entries] == [
        *(("0000", 30.0), ("0001", 31.0), ("0002", 32.0)),
    ]
    shown = output_of("show", "small", "0001")
    assert "detector: 657,249 parameters, 14.02 GFLOP and 31.0 ms for an image of 256x256 on one thread" in shown


@pytest.fixture
def bounded(tmp_path, monkeypatch):
    """Makes the made-up sweep with a bound of the latency, which is 30, 31 and 32 ms, the best trial's 31."""

    def make(bound):
        made = made_up_sweep(tmp_path, ("sampler: ", f"constraints: {{cost/latency_ms: '<= {bound}'}}\nsampler: "))
        monkeypatch.setenv("SEMPRIOR_STORAGE", str(open_storage(made.spec.storage).local))

    return make


def test_trials_beyond_a_constraint_are_marked_rank_last_and_are_not_pulled_unless_named(
    bounded, capsys, refused, tmp_path
):
    bounded(30.5)

    def shown(*words):
        assert main(list(words)) == 0
        return capsys.readouterr().out

    entries = json.loads(shown("top", "small", "--format", "json"))
    assert [(entry["trial"], entry["unmet"]) for entry in entries] == [
        *(("0000", []), ("0001", ["cost/latency_ms"]), ("0002", ["cost/latency_ms"])),
    ]
    table = shown("top", "small")
    assert table.index("met") < table.index("latency_ms 31.0000") < table.index("latency_ms 32.0000")
    assert "no trial comes before trial 0000" in table
    assert "best: trial 0000" in shown("status", "small")
    error = refused("pull", "small:2", "--out", tmp_path / "out")
    assert (
        "small:2: trial 0001 does not meet cost/latency_ms <= 30.5; to fetch it nevertheless, name it: small:0001"
        in error
    )
    assert "trial 0001 has no checkpoint yet" in refused("pull", "small:0001", "--out", tmp_path / "out")


def test_where_nothing_meets_the_constraints_nothing_is_offered(bounded, capsys, refused, tmp_path):
    bounded(5)
    assert main(["top", "small"]) == 0
    shown = capsys.readouterr().out
    assert "no configuration meets the constraints: cost/latency_ms <= 5" in shown and "fetch" not in shown
    assert "small:best: trial 0001 does not meet" in refused("pull", "small", "--out", tmp_path / "out")
    assert "small: has no trial with a value that meets its constraints to promote" in refused("promote", "small")


@pytest.mark.parametrize(
    ("gain", "error", "said"),
    [
        (0.3, 0.05, "is better than trial 0000, the preset itself, by 0.3000 ± 0.0500"),
        (3.0, None, "is better than trial 0000, the preset itself, by 3.0000"),
        (0.02, 0.05, "is no better than trial 0000, the preset itself, within the standard error (+0.0200 ± 0.0500)"),
        (-0.02, 0.05, "is no better than trial 0000, the preset itself, within the standard error (-0.0200 ± 0.0500)"),
        (0.0, None, "is no better than trial 0000, the preset itself (+0.0000)"),
    ],
)
def test_the_gain_in_words(gain, error, said):
    assert gain_over("0001", "0000", gain, error) == f"trial 0001 {said}"


def test_show_tells_all_of_a_trial(output_of):
    shown = output_of("show", "small", "0001")
    for part in (
        "trial 0001 of small: stopped, stopped by asha at epoch 4",
        "45 in the base",
        "best so far",
        "best: holdout/point_score 0.8000 after epoch 3",
        "cost: 0:08, 0:08 on the device, 4 epochs",
        "from epoch 1, on elsewhere (cpu)",
        "revision abc; torch 2",
        "repeat it: OMP_NUM_THREADS=1 semprior train --data",
        "--preset quick --set epochs=6",
        "--set 'scam.stages=[2]'",
    ):
        assert part in shown


def test_show_tells_student_and_teacher_at_the_best_epoch(output_of, sweep):
    shown = output_of("show", "small", "0001")
    assert "0.8000 ± 0.0100" in shown
    assert "IoU" in shown


def test_parts_of_a_trial_need_its_checkpoint(refused, output_of):
    assert "trial 0001 has no checkpoint yet" in refused("show", "small", "0001", "--by", "size")


def test_logs_print_what_is_stored_and_name_what_is_there(output_of, sweep, capsys):
    assert main(["logs", "small"]) == 2
    assert "no log of its driver; there is: none yet" in capsys.readouterr().err
    sweep.storage.put("logs/driver-0001.log", b"began\n")
    sweep.storage.put("logs/0001.log", b"epoch 1\n")
    assert output_of("logs", "small") == "began\n"
    assert output_of("logs", "small", "0001", "--follow") == "epoch 1\n"
    assert main(["logs", "small", "0009"]) == 2
    assert "no log of 0009; there is: 0001, driver-0001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "Missing command"),
        (["tip", "small"], "No such command 'tip'"),
        (["status"], "'SWEEP'"),
        (["status", "smal"], "smal: no such sweep in"),
        (["status", "../small"], "no such sweep in"),
        (["top", "small", "--by", "beauty"], "--by beauty: must be best, last, robust or a metric"),
        (["top", "small", "--format", "xml"], "--format xml: must be table, json or csv"),
        (["show", "small", "0009"], "small: no trial 0009; there are: 0000 to 0002"),
        (["list", "--storage", "x3://somewhere"], "x3://somewhere"),
        (["submit", "nowhere.yaml"], "nowhere.yaml"),
        (["resume", "nothing"], "nothing: no such sweep"),
        (["submit", "SWEEP", "--address", "http://127.0.0.1:9"], "nobody answers at 127.0.0.1:9"),
        (["submit", "SWEEP", "--address", "ftp://head"], "must look like http://HEAD:8265"),
        (["submit", "SWEEP", "--id", "a/b"], "--id a/b"),
        (["submit", "SWEEP"], "small: exists already in"),
    ],
)
def test_mistaken_commands(output_of, refused, sweep, tmp_path, monkeypatch, arguments, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("data: scenes", f"data: {sweep.spec.data}"))
    assert fault in refused(*["sweep.yaml" if word == "SWEEP" else word for word in arguments])
    assert os.listdir(tmp_path) == ["sweep.yaml"]


def test_a_sweep_that_exists_is_refused_with_the_line_that_resumes(output_of, refused, sweep, tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("data: scenes", f"data: {sweep.spec.data}"))
    error = refused("submit", tmp_path / "sweep.yaml")
    assert "choose another --id, or continue that one: `semprior-tune resume small`" in error


def test_masks_that_an_objective_needs_and_the_data_lack_are_told_before_the_start(refused, tmp_path, monkeypatch):
    from semprior.data.synthetic.scenes import write_scenes

    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", 9, 0)
    next((tmp_path / "scenes" / "labels").iterdir()).unlink()
    for mask in (tmp_path / "scenes" / "labels").iterdir():
        mask.unlink()
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("holdout/point_score", "holdout/iou"))
    assert "holdout/iou needs true masks" in refused("submit", "sweep.yaml")
    assert not (tmp_path / "runs").exists()


def test_more_folds_than_images_are_told_before_the_start(refused, tmp_path, monkeypatch):
    from semprior.data.synthetic.scenes import write_scenes

    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path / "scenes", 9, 0)
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("seeds: 1", "runs: {folds: 40}"))
    for options in ((), ("--dry-run",)):
        assert "runs.folds: 7 images are too few for 40 folds" in refused("submit", "sweep.yaml", *options)
    assert not (tmp_path / "runs").exists()


def test_a_sweep_that_runs_or_is_done_is_not_resumed(sweep, refused, output_of):
    generation = last_generation(sweep.storage) + 1
    with HeartbeatWriter(sweep.storage, generation) as heart:
        assert "small: is running on" in refused("resume", "small")
        heart.finish("done")
    assert "small is done, nothing is left to run" in output_of("resume", "small")
    assert "small is done already" in output_of("stop", "small")


def test_help_answers_without_loading_ray_or_torch():
    program = (
        "import sys; from tune.cli.app import main;"
        "assert all(main(words) == 0 for words in (['--help'], ['submit', '--help'], ['top', '--help']));"
        "assert not {'ray', 'torch', 'pyarrow', 'optuna', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("submit", "resume", "promote", "--address", "--storage", "--dry-run", "--by"):
        assert word in done.stdout
