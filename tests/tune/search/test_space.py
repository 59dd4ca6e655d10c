"""Dimensions, conditions and switches, as Optuna samples them and as semprior's leaves."""

import optuna
import pytest

from semprior.models.detector import detector_spec
from tests.tune.small_sweep import SWEEP, spec_of
from tune.search.space import Space


@pytest.fixture
def sampled():
    """Parameters of many random trials of a sweep, each held against Optuna's own record of it."""

    def sample(spec, count=60):
        space, study = Space(spec), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        found = []
        for _ in range(count):
            trial = study.ask()
            parameters = space.sample(trial)
            assert space.encoded(parameters) == (trial.params, trial.distributions, True)
            found.append(parameters)
        return space, found

    return sample


def test_stages_have_a_switch_each_and_conditions_follow_them(tmp_path, sampled):
    space, found = sampled(spec_of(tmp_path), 200)
    placements = {str(parameters["scam.stages"]) for parameters in found}
    assert {"none", "all"} < placements
    assert len(placements) > 25  # of 32
    for parameters in found:
        assert ("scam.scale" in parameters) == (parameters["scam.stages"] != "none")
        leaves = space.leaves(parameters)
        assert leaves["scam.scale"] == parameters.get("scam.scale", 0.05)  # else as the base has it
        assert leaves["clusters.count"] == parameters["clusters.count"]


def test_switches_follow_a_detector_that_is_itself_searched(tmp_path, sampled):
    searched = (
        "  scam.stages: {subset: all}\n",
        "  scam.stages: {subset: all}\n  detector: {values: [alclnet, mlclnet]}\n",
    )
    _, found = sampled(spec_of(tmp_path, searched), 200)
    deepest = {"alclnet": 0, "mlclnet": 0}
    for parameters in found:
        if isinstance(parameters["scam.stages"], list):
            name = parameters["detector"]
            deepest[name] = max(deepest[name], *parameters["scam.stages"])
    assert deepest == {name: len(detector_spec(name).stages) for name in deepest}


def test_a_condition_can_name_a_leaf_that_is_not_searched_and_several_values(tmp_path, sampled):
    _, found = sampled(spec_of(tmp_path, ("when: {scam.stages: nonempty}}", "when: {detector: mlclnet}}")), 5)
    assert all("scam.scale" not in parameters for parameters in found)
    several = ("when: {scam.stages: nonempty}}", "when: {detector: [mlclnet, alclnet]}}")
    _, found = sampled(spec_of(tmp_path, several), 5)
    assert all("scam.scale" in parameters for parameters in found)


def test_a_dimension_whose_condition_is_not_searched_is_not_either(tmp_path, sampled):
    chained = ("[1, 8], when: {scam.stages: nonempty}}", "[1, 8], when: {scam.scale: 0.2}}")
    space, found = sampled(spec_of(tmp_path, ("{float: [0.05, 1.0], ", "{values: [0.1, 0.2], "), chained), 100)
    assert any("distill.temperature" in parameters for parameters in found)
    for parameters in found:
        assert ("distill.temperature" in parameters) == (parameters.get("scam.scale") == 0.2)
    assert space.order.index("scam.scale") < space.order.index("distill.temperature")


def test_the_base_is_known_to_the_sampler_even_outside_of_the_ranges(tmp_path):
    space = Space(spec_of(tmp_path))
    assert space.base_parameters()["scam.stages"] == "all"
    values, _, exact = space.encoded(space.base_parameters())
    assert exact
    assert values["scam.stages[5]"] is True
    # null is the published scale, and a number outside is taken to the nearest end
    space = Space(spec_of(tmp_path, ("preset: quick", "preset: standard"), ("[1, 8]", "[1, 3]")))
    values, _, exact = space.encoded(space.base_parameters())
    assert not exact
    assert values["scam.scale"] == detector_spec("alclnet").scam_scale
    assert values["clusters.count"] == 128
    assert values["distill.temperature"] == 3
    assert space.leaves(space.base_parameters()) == space.base  # what is trained is the base all the same


def test_a_finite_space_can_be_listed(tmp_path):
    finite = (
        ("{int: [1, 128], log: true}", "{values: [1, 64]}"),
        ("{float: [0.05, 1.0]", "{float: [0.1, 0.3], step: 0.1"),
    )
    space = Space(spec_of(tmp_path, *finite, ("{float: [1, 8]", "{int: [1, 2]")))
    found = space.all(1000)
    assert len(found) == 2 * (1 + 31 * 3 * 2)  # without a modulated stage neither scale nor temperature
    assert len({repr(parameters) for parameters in found}) == len(found)
    assert space.all(100) is None
    assert Space(spec_of(tmp_path)).all(10**6) is None


@pytest.mark.parametrize(
    ("count", "listed"),
    [("{int: [0, 4294967295]}", None), ("{int: [0, 4]}", 5), ("{int: [0, 4294967295], step: 4294967295}", 2)],
)
def test_a_range_is_never_listed_to_see_how_large_it_is(tmp_path, count, listed):
    text = SWEEP.partition("search:")[0] + f"search:\n  clusters.seed: {count}\n" + SWEEP[SWEEP.index("objective") :]
    found = Space(spec_of(tmp_path, text=text)).all(20_000)
    assert (found if listed is None else len(found)) == listed


def test_lists_can_be_choices(tmp_path, sampled):
    space, found = sampled(spec_of(tmp_path, ("{subset: all}", "{values: [none, [1, 3], [5]]}")))
    assert {str(parameters["scam.stages"]) for parameters in found} == {"none", "[1, 3]", "[5]"}
    values, _, exact = space.encoded(space.base_parameters())
    assert not exact
    assert "scam.stages" not in values  # the base's placement is no choice of this sweep
