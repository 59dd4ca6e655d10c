"""Sweep files: what is read, and how what is wrong is refused."""

import json
import os
import re

import pytest

from semprior.errors import UserError
from tests.repository import ROOT
from tests.tune.small_sweep import spec_of, write
from tune.search.space import Space
from tune.spec.sweep_file import SweepSpec, load_sweep

SHIPPED = sorted((ROOT / "tune" / "sweeps").glob("*.yaml"))


def test_the_file_says_what_the_sweep_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = spec_of(tmp_path)
    assert (spec.name, spec.budget.trials, spec.budget.hours, spec.concurrent) == ("small", 12, 2, "auto")
    assert spec.data == str(tmp_path / "scenes")  # relative paths count from the current folder
    assert spec.storage == str(tmp_path / "runs")
    assert spec.search["clusters.count"].bounds == (1, 128)
    assert spec.base_config().detector == "alclnet"
    assert spec.base_config().scam.scale == 0.05  # of the preset


def test_what_is_left_out_has_a_default(tmp_path):
    text = "data: d\nsearch: {scam.scale: {float: [1e-2, 1]}}\nobjective: {holdout/iou: max}\nbudget: {trials: 3}\n"
    spec = load_sweep(write(tmp_path, text), {})
    assert spec.name == "sweep"  # of the file
    assert (spec.sampler.name, spec.scheduler.name, spec.failures.retries) == ("tpe", "asha", 2)
    assert spec.base_config().select.by == "holdout/iou"  # a trial chooses its epoch by what is optimised
    assert spec.search["scam.scale"].bounds == (0.01, 1)


def test_the_first_objective_chooses_and_several_are_not_stopped_early(tmp_path):
    several = ("{holdout/point_score: max}", "{holdout/iou: max, holdout/fa: min}")
    spec = spec_of(tmp_path, several, ("scheduler: {name: asha, factor: 3}\n", ""))
    assert spec.scheduler.name == "none"
    assert spec.directions == ("max", "min")
    assert spec.needs_masks
    with pytest.raises(UserError, match="objective: holdout/iou needs true masks"):
        spec.require_masks(False)
    spec_of(tmp_path).require_masks(False)


def test_a_constraint_may_need_masks(tmp_path):
    bounds = "constraints: {holdout/fa: '<= 20', cost/latency_ms: '<=5', holdout/point_pd: ' >= 9e-1 '}\nsampler: "
    spec = spec_of(tmp_path, ("sampler: ", bounds))
    assert [str(limit) for limit in spec.limits] == [
        *("holdout/fa <= 20", "cost/latency_ms <= 5", "holdout/point_pd >= 0.9"),
    ]
    assert SweepSpec.from_json(spec.to_json()) == spec
    with pytest.raises(UserError, match="constraints: holdout/fa needs true masks"):
        spec.require_masks(False)


def test_a_stored_sweep_of_an_earlier_version_has_the_names_of_today(tmp_path):
    spec = spec_of(tmp_path)
    content = json.loads(spec.to_json())
    content["base"]["labels.evolve"] = False
    content["search"] |= {
        "labels.evolve": {"values": [True, False]},
        "labels.evolve_after": {"float": [0.1, 0.4], "when": {"labels.evolve": True}},
    }
    content["start"] = [{"labels.evolve": True}]
    read = SweepSpec.from_json(json.dumps(content))
    assert read.base_config().labels.refine == "none"
    assert read.search["labels.refine"].values == ("evolve", "none")
    assert read.search["labels.evolve_after"].when == {"labels.refine": "evolve"}
    assert read.start == ({"labels.refine": "evolve"},)
    assert Space(read).order
    with pytest.raises(UserError, match=r"search: unknown key 'labels\.evolve'; it is 'labels\.refine' now"):
        spec_of(tmp_path, ("search:\n", "search:\n  labels.evolve: {values: [true, false]}\n"))


def test_a_cost_is_an_objective_beside_the_first_and_needs_no_masks(tmp_path):
    without = ("scheduler: {name: asha, factor: 3}\n", "")
    spec = spec_of(
        tmp_path, ("{holdout/point_score: max}", "{holdout/point_score: max, cost/latency_ms: min}"), without
    )
    assert spec.directions == ("max", "min")
    spec.require_masks(False)
    first = ("{holdout/point_score: max}", "{cost/latency_ms: min}")
    with pytest.raises(UserError, match=r":9: objective: cost/latency_ms: expected holdout/point_score or holdout/iou"):
        spec_of(tmp_path, first)
    near = ("{holdout/point_score: max}", "{holdout/point_score: max, cost/latency: min}")
    with pytest.raises(UserError, match="or a cost; did you mean 'cost/latency_ms'"):
        spec_of(tmp_path, near, without)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_sweep_survives_the_round_trip_through_json(path):
    spec = load_sweep(path, {})
    assert SweepSpec.from_json(spec.to_json()) == spec


def test_the_shipped_sweeps_are_those_of_the_docs():
    assert {path.stem for path in SHIPPED} == {"demo", "sirst-v1", "detectors", "vfm", "pareto", "recipe"}


@pytest.mark.parametrize(
    ("start", "fault"),
    [
        ("{detector: zzz}", r":10: start: detector: expected one of 'alclnet', 'mlclnet', not 'zzz'"),
        ("{detector: mlclnet, scam.stages: [4]}", r":10: start: scam.stages: expected stages of the detector"),
    ],
)
def test_a_configuration_to_start_with_has_a_detector_that_is_searched_and_its_stages(tmp_path, start, fault):
    both = ("search:\n", "search:\n  detector: {values: [alclnet, mlclnet]}\n")
    with pytest.raises(UserError, match=fault):
        spec_of(tmp_path, both, ("objective: ", f"start: [{start}]\nobjective: "))
    spec_of(tmp_path, both, ("objective: ", "start: [{detector: mlclnet, scam.stages: [3]}]\nobjective: "))


def test_the_recipe_searches_method_and_training_in_12_to_16_dimensions():
    spec = load_sweep(ROOT / "tune" / "sweeps" / "recipe.yaml", {})
    assert 12 <= len(spec.search) <= 16
    assert {"clusters", "scam", "distill", "labels", "optim", "data", "loss"} == {
        key.split(".")[0] for key in spec.search
    }
    assert sum(bool(dimension.when) for dimension in spec.search.values()) >= 4
    base = Space(spec).base_parameters()
    assert Space(spec).encoded(base)[2]  # the preset itself is a point of the space


def test_an_address_stays_as_it_is(tmp_path):
    spec = spec_of(tmp_path, ("storage: ./runs", "storage: s3://bucket/runs"), ("data: scenes", "data: gs://b/scenes"))
    assert (spec.storage, spec.data) == ("s3://bucket/runs", "gs://b/scenes")


def test_the_environment_overrides_base_and_storage(tmp_path):
    environment = {"SEMPRIOR__SCAM__DROP": "0.25", "SEMPRIOR_STORAGE": "s3://other"}
    spec = spec_of(tmp_path, environment=environment)
    assert spec.base_config().scam.drop == 0.25
    assert spec.storage == "s3://other"
    with pytest.raises(UserError, match=r"sweep.yaml:7: search: scam.scale is also set in the environment"):
        spec_of(tmp_path, environment={"SEMPRIOR__SCAM__SCALE": "0.25"})


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("SEMPRIOR__SCAM__DROPP", "0.25", "environment: unknown key 'scam.dropp'; did you mean 'scam.drop'?"),
        ("SEMPRIOR__SCAM__DROP", "much", "environment: scam.drop must be a number, not 'much'"),
        ("SEMPRIOR__SCAM__DROP", "[1", "environment: SEMPRIOR__SCAM__DROP=[1: is not valid YAML"),
        ("SEMPRIOR__DETECTOR", "net", "environment: SEMPRIOR__DETECTOR: base: detector: unknown detector 'net'"),
        ("SEMPRIOR__SELECT__BY", "holdout/iou", "environment: SEMPRIOR__SELECT__BY: base: select.by: expected point"),
    ],
)
def test_a_mistaken_variable_is_named_and_not_the_file(tmp_path, variable, value, fault):
    with pytest.raises(UserError) as caught:
        spec_of(tmp_path, environment={variable: value})
    assert str(caught.value).startswith(fault)


COUNT = "{int: [1, 128], log: true}"
SCALE_WHEN = "{float: [0.05, 1.0], when: {scam.stages: nonempty}}"
REFUSED = [
    ("name: tpe", "name: tpo", r":10: sampler: name: expected tpe, random, gp, nsga2 or grid, not \"tpo\""),
    ("seeds: 1", "sedes: 1", r":13: sedes: unknown key; did you mean 'seeds'"),
    ("trials: 12", "trials: 1.5", r":12: budget: trials: expected a whole number, not 1.5"),
    ("trials: 12, ", "", r":12: budget: expected the key 'trials'"),
    ("data: scenes", "data:", r":2: data: expected text, not null"),
    ("name: small", "name: a/b", r":1: name: expected letters, digits"),
    ("concurrent: auto", "concurrent: many", r":15: concurrent: expected auto or a whole number, not \"many\""),
    (
        "name: asha",
        "name: moasha",
        r":11: scheduler: name: expected any but moasha with one objective",
    ),
    ("factor: 3", "factor: 1", r":11: scheduler: factor: expected a number above 1, not 1"),
    ("factor: 3", "first: 2", r":11: scheduler: first: expected auto or an epoch from 5, .* to 44, not 2"),
    ("name: small", "data: x", r":2: the key 'data' occurs twice; it is also on line 1"),
    ("name: small", "name: [a", r": is not valid YAML"),
    ("workers: 1, cpus: 1, gpus: 0", "workers: 2, gpus: 1", r":14: resources: gpus: expected 0 .* like 2, not 1: each"),
    ("workers: 1, cpus: 1, gpus: 0", "workers: 2, gpus: 3", r":14: resources: gpus: expected 0 .* like 4, not 3: each"),
    ("gpus: 0", "gpus: 1.5", r":14: resources: gpus: expected a number up to 1 or a whole one, not 1.5"),
    ("seeds: 1", "seeds: 100000000", r":13: seeds: expected a number at most 1000, not 100000000"),
    ("trials: 12", "trials: 10000000", r":12: budget: trials: expected a number at most 1e\+06, not 10000000"),
    ("trials: 12, hours: 2}\nseeds: 1", "trials: 900000}\nseeds: 9", r":13: seeds: expected at most 1000000 trials"),
    ("seeds: 1", "runs: {folds: 1}", r":13: runs: folds: expected a number at least 2, not 1"),
    ("seeds: 1", "seeds: 2\nruns: {folds: 5}", r":13: seeds: expected either this or runs.folds, not both"),
    ("seeds: 1", "runs: {fold: 5}", r":13: runs: fold: unknown key; did you mean 'folds'"),
    (
        "trials: 12, hours: 2}\nseeds: 1",
        "trials: 900000}\nruns: {folds: 9}",
        r":13: runs: folds: expected at most 1000000",
    ),
    (
        "alclnet, epochs: 45}",
        "alclnet, data.fold: 1, data.folds: 2}\nruns: {folds: 5}",
        r":3: base: data.folds: expected",
    ),
    ("alclnet, epochs: 45}", "alclnet, data.folds: 1}", r":3: base: data.folds must be 0, for none, or at least 2"),
    ("  clusters.count", "  data.fold", r":5: search: data.fold cannot be searched: `runs` sets it"),
    ("hours: 2", "hours: .inf", r":12: budget: hours: expected a finite number, not Infinity"),
    ("data: scenes", "data: 2001-99-99\nepochs: 0b_", r":3: '0b_' is not a whole number"),
    # leaves of semprior
    ("  clusters.count", "  cluster.count", r":5: search: unknown key 'cluster.count'; did you mean 'clusters.count'"),
    ("  clusters.count", "  clusters", r":5: search: clusters: expected a dotted key, like clusters.count"),
    ("detector: alclnet", "detector: alcnet", r":3: base: detector: unknown detector 'alcnet'; did you mean"),
    ("preset: quick", "preset: quik", r":3: base: preset: unknown preset 'quik'"),
    ("detector: alclnet", "scam: {scael: 2}", r":3: base: unknown key 'scam.scael'; did you mean 'scam.scale'"),
    ("detector: alclnet", "data.holdout: 0", r":3: base: data.holdout: expected more than 0: trials are compared on"),
    ("detector: alclnet", "labels.seed: masks", r":3: base: labels.seed: masks is a reference for benchmarks"),
    (
        "distill.temperature: {float: [1, 8]",
        "labels.seed: {values: [contrast, masks]",
        r":8: search: labels.seed: masks is a reference for benchmarks; a sweep learns from points",
    ),
    ("detector: alclnet", "scam.scale: 20", r":3: base: scam.scale must be between 0 and 10"),
    ("  clusters.count", "  seed", r":5: search: seed cannot be searched: `seeds` sets"),
    # dimensions
    (COUNT, "{int: [0, 128]}", r":5: search: clusters.count must be between 1 and 1000000, not 0"),
    (COUNT, "{int: [1, 1e400]}", r":5: search: clusters.count: int: 1: expected a whole number"),
    (COUNT, f"{{int: [1, {'9' * 90}]}}", r":5: search: clusters.count: int: 1: expected a number below"),
    ("[0.05, 1.0]", "[0.0, 1.0], step: 1e-300", r":7: search: scam.scale: step: expected one that divides"),
    (COUNT, "{float: [1, 128]}", r":5: search: clusters.count: expected int: or values:, not float:"),
    (COUNT, "{int: [1, 128, 4]}", r":5: search: clusters.count: int: expected a list of 2, \[low, high\]"),
    (COUNT, "{int: [128, 1]}", r":5: search: clusters.count: expected a range \[low, high\] with low below high"),
    (COUNT, "{int: [1, 128], lgo: true}", r":5: search: clusters.count: lgo: unknown key; did you mean 'log'"),
    (COUNT, "{}", r":5: search: clusters.count: expected one of int:"),
    (COUNT, "{subset: all}", r":5: search: clusters.count: expected int: or values:, not subset:"),
    (COUNT, "{values: [1, 1]}", r":5: search: clusters.count: values: expected each value once"),
    ("[1, 8]", "[0, 8], log: true", r":8: search: distill.temperature: log: expected a range above 0"),
    ("distill.temperature: {float: [1, 8]", "labels.seed: {int: [1, 8]", r":8: .* expected values: of contrast, edges"),
    ("distill.temperature: {float: [1, 8]", "data.crop: {int: [96, 128]", r":8: search: data.crop: expected step: 32"),
    ("{subset: all}", "{subset: [1, 9]}", r":6: search: scam.stages: \[1, 9\] names a stage outside 1..5"),
    ("name: tpe", "name: grid", r":7: search: scam.scale: expected values: or step: for the sampler grid"),
    (
        "{float: [1, 8], when: {scam.stages: nonempty}}\nobjective: {holdout/point_score: max}\nsampler: {name: tpe",
        "{float: [1, 8], step: 1.0e-6}\nobjective: {holdout/point_score: max}\nsampler: {name: grid",
        r"for the sampler grid",
    ),
    (COUNT, '{"new\\nline": 1}', r":5: search: clusters.count: 'new\\nline': unknown key"),
    (COUNT, f"{{log: {'x' * 1000}, values: [1]}}", r":5: search: clusters.count: log: .*, not \"x+\.\.\.$"),
    # conditions
    (SCALE_WHEN, "{float: [0, 1], when: {scam.stags: empty}}", r":7: search: scam.scale: when: unknown key"),
    (SCALE_WHEN, "{float: [0, 1], when: {detector: 3}}", r":7: search: scam.scale: when: detector must be text"),
    (SCALE_WHEN, "{float: [0, 1], when: {clusters.count: 999}}", r":7: .* expected a value that the sweep tries"),
    (
        "{subset: all}",
        "{subset: all, when: {scam.scale: 0.3}}",
        r":6: .* do not depend on each other in a circle: scam.stages and",
    ),
    # objectives
    (
        "point_score: max",
        "point_scor: max",
        r":9: objective: holdout/point_scor: .* did you mean 'holdout/point_score'",
    ),
    ("holdout/point_score: max", "test/iou: max", r":9: objective: test/iou: expected a metric of the holdout"),
    ("holdout/point_score: max", "holdout/fa: min", r":9: .* expected holdout/point_score or holdout/iou as the first"),
    ("point_score: max", "point_score: min", r":9: objective: holdout/point_score: expected max, not min"),
    (
        "{holdout/point_score: max}",
        "{holdout/iou: max, holdout/fa: min}",
        r":11: scheduler: name: expected moasha or none with 2",
    ),
    ("detector: alclnet", "select.by: holdout/iou", r":3: base: select.by: expected point_score"),
    # constraints
    *(
        ("sampler: ", f"constraints: {constraints}\nsampler: ", message)
        for constraints, message in (
            ("{holdout/point_fa: 20}", r":10: constraints: holdout/point_fa: expected text, not 20"),
            (
                "{holdout/point_fa: below 20}",
                r":10: constraints: holdout/point_fa: expected a bound like '<= 20' or .*not",
            ),
            ('{holdout/point_fa: "<= many"}', r":10: constraints: holdout/point_fa: expected a bound like"),
            ('{holdout/point_fa: "<= inf"}', r":10: constraints: holdout/point_fa: expected a bound like"),
            ('{holdout/point_fu: "<= 1"}', r":10: constraints: holdout/point_fu: .*did you mean 'holdout/point_fa'"),
            ('{test/fa: "<= 1"}', r":10: constraints: test/fa: expected a metric of the holdout or a cost"),
            ("3", r":10: constraints: expected keys and values, not 3"),
        )
    ),
    # configurations to start with
    *(
        ("objective: ", f"start: {start}\nobjective: ", message)
        for start, message in (
            ("[{scam.scael: 1}]", r":9: start: unknown key 'scam.scael'; did you mean 'scam.scale'"),
            ("[{scam.drop: 0.1}]", r":9: start: scam.drop: expected a leaf that is searched; .*scam.scale"),
            ("[{clusters.count: 129}]", r":9: start: clusters.count: expected a whole number from 1 to 128, not 129"),
            ("[{clusters.count: 8}, {clusters.count: 1.5}]", r":9: start: clusters.count must be a whole number"),
            ("[{scam.scale: null}]", r":9: start: scam.scale: expected a number from 0.05 to 1, not None"),
            ("[{scam.stages: [9]}]", r":9: start: scam.stages: expected stages of the detector, not \[9\]|\(9,\)"),
            (
                "[{scam.stages: none, scam.scale: 0.1}]",
                r":9: start: scam.scale: is not searched here, because its cond",
            ),
            ("8", r":9: start: expected a list, not 8"),
            ("[8]", r":9: start: 0: expected keys and values, not 8"),
            (str([{"clusters.count": n} for n in range(1, 14)]), r":9: start: expected no more than 11, as"),
            ("{from: first}", r":9: start: from: expected a list, not .first"),
            ("{from: []}", r":9: start: from: expected a list of at least one, not \[\]"),
            ("{from: [first], tpo: 3}", r":9: start: tpo: unknown key; did you mean 'top'"),
            ("{from: [first], top: 0}", r":9: start: top: expected a number at least 1, not 0"),
            ("{top: 3}", r":9: start: expected the key 'from'"),
        )
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[new for _, new, _ in REFUSED])
def test_a_fault_is_one_line_with_file_line_key_and_what_was_expected(tmp_path, old, new, message):
    with pytest.raises(UserError) as refusal:
        spec_of(tmp_path, (old, new))
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(str(tmp_path / "sweep.yaml"))
    assert re.search(message, str(refusal.value)), refusal.value


@pytest.mark.parametrize("text", ["", "- 1\n", "3\n"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="expected keys and values"):
        load_sweep(write(tmp_path, text), {})


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_sweep(tmp_path / "none.yaml", os.environ)


@pytest.mark.parametrize("value", ["!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd", "&a [*a]"])
def test_yaml_gives_plain_values_and_no_objects(tmp_path, value):
    with pytest.raises(UserError, match=r"sweep.yaml:1: (is not valid YAML|expected plain values|an alias refers)"):
        spec_of(tmp_path, ("name: small", f"name: {value}"))


LISTED = """\
data: d
configurations: [{clusters.count: 8}, {scam.scale: 0.2, scam.stages: [1]}]
objective: {holdout/point_score: max}
budget: {trials: 2}
"""


def test_configurations_can_be_listed_instead_of_searched(tmp_path):
    spec = spec_of(tmp_path, text=LISTED)
    assert spec.configurations[1] == {"scam.scale": 0.2, "scam.stages": [1]}
    assert SweepSpec.from_json(spec.to_json()).configurations == spec.configurations


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clusters.count: 8", "clusters.cuont: 8", r":2: configurations: unknown key 'clusters.cuont'"),
        (
            "clusters.count: 8",
            "clusters.count: 0",
            r":2: configurations: clusters.count must be between 1",
        ),
        ("clusters.count: 8", "epochs: 8", r":2: configurations: epochs cannot be set for a single configuration"),
        ("trials: 2", "trials: 3", r":4: budget: trials: expected 2, as many as configurations"),
        ("data: d", "data: d\nstart: [{scam.scale: 1}]", r":2: start: expected only with search"),
        ("data: d", "data: d\nsearch: {scam.scale: {float: [0, 1]}}", r":2: search: expected either this or config"),
    ],
)
def test_a_listed_configuration_that_does_not_fit_is_refused(tmp_path, old, new, message):
    with pytest.raises(UserError) as refusal:
        spec_of(tmp_path, (old, new), text=LISTED)
    assert re.search(message, str(refusal.value)), refusal.value


def test_runs_with_folds_hold_out_one_each_with_a_seed_of_its_own(tmp_path):
    spec = spec_of(tmp_path, ("seeds: 1", "runs: {folds: 3}"), ("epochs: 45", "epochs: 45, seed: 7, data.holdout: 0"))
    assert SweepSpec.from_json(spec.to_json()) == spec
    assert (spec.run_count, spec.holds_out) == (3, True)
    assert [spec.run_leaves(7, run) for run in (0, 2)] == [
        {"seed": 7, "data.folds": 3, "data.fold": 0},
        {"seed": 9, "data.folds": 3, "data.fold": 2},
    ]
    seeds = spec_of(tmp_path, ("seeds: 1", "seeds: 2"))
    assert (seeds.run_count, seeds.run_leaves(7, 1)) == (2, {"seed": 8})
