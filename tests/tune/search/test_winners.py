"""The winners of earlier sweeps start another one, as far as the two spaces agree."""

import pytest

from semprior.errors import UserError
from semprior.io.storage import open_storage
from tests.tune.made_up import made_up_sweep
from tests.tune.small_sweep import spec_of
from tune.search.search import Search
from tune.search.winners import with_winners
from tune.spec.sweep_file import SweepSpec
from tune.store.sweeps import create_sweep


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Best first: 0001 (7 clusters, stage 2, scale .25), 0002 (20 clusters, no stage), 0000 (stages 1 to 3)."""
    return made_up_sweep(tmp_path_factory.mktemp("first"))


@pytest.fixture
def resolved(first, tmp_path):
    """A function that returns the list that a sweep with some ``from`` starts with, and what is said."""
    storage = open_storage(first.storage.local.parent)

    def resolve(start, *changes):
        spec, said = with_winners(spec_of(tmp_path, ("objective: ", f"start: {start}\nobjective: "), *changes), storage)
        assert SweepSpec.from_json(spec.to_json()) == spec  # it is a list that the checks of a sweep file accept
        return list(spec.start), said, spec

    return resolve


WINNERS = [{"clusters.count": 7, "scam.stages": (2,), "scam.scale": 0.25}, {"clusters.count": 20, "scam.stages": ()}]


def test_winners_become_a_list_without_repetitions(resolved, first):
    found, said, spec = resolved("{from: [small]}")
    assert found == [*WINNERS, {"scam.stages": (1, 2, 3)}]
    assert said == ["start: 3 configurations of small"]
    found, said, _ = resolved(f"{{from: [small, {first.storage.uri}], top: 1}}")
    assert found == WINNERS[:1]
    assert said[1] == "start: 0 configurations of small, 1 more of it equal the base or another one"
    search = Search(spec)
    asked = [search.ask() for _ in range(3)]
    assert [asked[number].leaves["clusters.count"] for number in (1, 2)] == [7, 20]


def test_values_outside_of_the_new_space_are_left_out_named_and_counted(resolved):
    found, said, _ = resolved(
        "{from: [small], top: 2}",
        ("{int: [1, 128], log: true}", "{int: [1, 16]}"),
        ("  scam.stages: {subset: all}\n", ""),
    )
    assert found == [{"clusters.count": 7, "scam.scale": 0.25}]
    assert said == [
        "start: 1 configuration of small, 1 more of it equal the base or another one; 3 values outside of this search"
        " left out: scam.stages=[2] of 0001, clusters.count=20 of 0002, scam.stages=[] of 0002"
    ]


def test_settings_of_a_winner_that_only_the_new_sweep_searches_are_taken_over(resolved):
    found, _, _ = resolved(
        "{from: [small], top: 1}", ("  clusters.count", "  data.batch: {int: [4, 32]}\n  clusters.count")
    )
    assert found == WINNERS[:1]  # its batch is that of the base
    base = ("epochs: 45}", "epochs: 45, data.batch: 24}")
    found, _, _ = resolved(
        "{from: [small], top: 1}", ("  clusters.count", "  data.batch: {int: [4, 32]}\n  clusters.count"), base
    )
    assert found == [{"data.batch": 16, **WINNERS[0]}]


def test_winners_are_within_the_constraints_of_their_sweep(tmp_path):
    bounds = ("sampler: ", "constraints: {cost/latency_ms: '<= 31.5'}\nsampler: ")
    first = made_up_sweep(tmp_path, bounds)
    spec, _ = with_winners(
        spec_of(tmp_path, ("objective: ", "start: {from: [small]}\nobjective: ")),
        open_storage(first.storage.local.parent),
    )
    assert list(spec.start) == [WINNERS[0], {"scam.stages": (1, 2, 3)}]  # 0002 takes 32 ms


def test_a_sweep_none_of_whose_configurations_is_called_the_best_has_no_winners(tmp_path):
    """None meets its constraints; none has enough runs of a race."""
    start = ("objective: ", "start: {from: [small]}\nobjective: ")
    bounds = ("sampler: ", "constraints: {cost/latency_ms: '<= 3'}\nsampler: ")
    race = (("name: asha, factor: 3", "name: race"), ("seeds: 1", "seeds: 3"))
    for name, changes, fault in (
        ("bounded", (bounds,), "small: has no trial with a value that meets its constraints"),
        ("race", race, "small: has no configuration with 2 completed runs"),
    ):
        (tmp_path / name).mkdir()
        storage = open_storage(made_up_sweep(tmp_path / name, *changes).storage.local.parent)
        with pytest.raises(UserError, match=f"^start: from: {fault}$"):
            with_winners(spec_of(tmp_path, start), storage)


@pytest.mark.parametrize(
    ("start", "changes", "fault"),
    [
        ("{from: [smal]}", (), "smal: no such sweep in .*; did you mean small"),
        ("{from: [empty]}", (), "start: from: empty: has no trial with a value"),
        (
            "{from: [small]}",
            (("trials: 12", "trials: 2"),),
            "start: expected no more than 1, as budget.trials",
        ),
    ],
)
def test_winners_that_cannot_be_had_are_refused_in_a_line(resolved, first, tmp_path, start, changes, fault):
    storage = open_storage(first.storage.local.parent)
    if not storage.exists("empty/sweep.json"):
        create_sweep(storage, "empty", spec_of(tmp_path))
    with pytest.raises(UserError, match=fault) as refusal:
        resolved(start, *changes)
    assert "\n" not in str(refusal.value)
