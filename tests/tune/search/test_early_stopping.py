"""Early stopping by the trial's own epoch, and the same after a restart."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler

from semprior.config.schema import resolve
from tests.tune.small_sweep import spec_of
from tune.search.early_stopping import make_scheduler, replay_curves
from tune.search.ray_tune_internals import EPOCH, VALUE, SuccessiveHalving
from tune.spec.rungs import default_rung, first_rung

NAMES = ("asha", "hyperband", "median")


def scheduled(folder, name, *changes):
    return make_scheduler(spec_of(folder, ("{name: asha, factor: 3}", f"{{name: {name}}}"), *changes))


def curve(trial, epochs=45, first=6, every=3):
    """Best so far of an imagined trial; none before its first evaluation."""
    level, best, found = random.Random(trial).random(), None, []
    for epoch in range(epochs):
        if epoch >= first and (epoch - first) % every == 0:
            best = max(best or 0, level * (1 - 0.9 ** (epoch + 1)))
        found.append((epoch, best))
    return found


def vectors(curves):
    """Curves as the store has them: a tuple of objectives an epoch, empty before the first evaluation."""
    return {trial: [(e, () if v is None else (v,)) for e, v in curve] for trial, curve in curves.items()}


def tell(scheduler, trial, epoch, value):
    result = {EPOCH: epoch} | ({VALUE: value} if value is not None else {})
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), result)


class Sweep:
    """Trials that run side by side, four at a time, one epoch a step."""

    def __init__(self, trials):
        self.waiting, self.running, self.told, self.ended = list(trials), [], {}, {}

    def step(self, scheduler):
        while self.waiting and len(self.running) < 4:
            self.running.append(self.waiting.pop(0))
            self.told[self.running[-1]] = []
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=self.running[-1]))
        for trial in list(self.running):
            epoch, value = curve(trial)[len(self.told[trial])]
            self.told[trial].append((epoch, value))
            stop = tell(scheduler, trial, epoch, value) == "STOP"
            if stop or epoch == 44:
                self.ended[trial] = (epoch, stop)
                self.running.remove(trial)
                if not stop:
                    result = {EPOCH: epoch, VALUE: value}
                    scheduler.on_trial_complete(None, SimpleNamespace(trial_id=trial), result)


@pytest.mark.parametrize("name", NAMES)
def test_a_scheduler_that_is_fed_decides_as_one_that_never_stopped(tmp_path, name):
    trials = [f"{number:04d}" for number in range(24)]
    whole, cut = scheduled(tmp_path, name), scheduled(tmp_path, name)
    unbroken, broken = Sweep(trials), Sweep(trials)
    step = 0
    while unbroken.waiting or unbroken.running:
        if step in (8, 31, 60):
            cut = scheduled(tmp_path, name)
            replay_curves(cut, vectors(broken.told))
            for trial in broken.running:  # whoever goes on adds those that still run
                cut.on_trial_add(None, SimpleNamespace(trial_id=trial))
        unbroken.step(whole)
        broken.step(cut)
        assert broken.ended == unbroken.ended
        if isinstance(whole, SuccessiveHalving):
            assert cut.rungs == whole.rungs
        step += 1
    stopped = [epoch for epoch, stop in unbroken.ended.values() if stop]
    assert len(stopped) > 6
    assert min(stopped) >= first_rung(spec_of(tmp_path).base_config())


def quick(**labels):
    """It evaluates at 5, 8, 11 ...; labels evolve after 9, on multiples of 5."""
    return resolve("quick", flags={"epochs": 45} | {f"labels.{key}": value for key, value in labels.items()}).config


def test_the_first_rung_is_an_evaluation_after_an_evolution_and_an_outer_pass():
    assert first_rung(quick()) == 5
    assert first_rung(quick(refine="evolve")) == 11
    assert first_rung(quick(refine="evolve", evolve_after=0.5)) == 26


def test_trials_are_first_judged_in_the_second_half_and_brackets_begin_as_early_as_they_may(tmp_path):
    assert default_rung(quick()) == default_rung(quick(refine="evolve")) == 23
    late = quick(refine="evolve", evolve_after=0.8)
    assert default_rung(late) == first_rung(late) > 23
    assert [sorted(rungs) for rungs in scheduled(tmp_path, "asha").rungs] == [[23]]
    assert min(epoch for rungs in scheduled(tmp_path, "hyperband").rungs for epoch in rungs) == first_rung(quick())


def test_trials_wait_for_the_latest_evolution_that_the_search_may_draw(tmp_path):
    plain = spec_of(tmp_path)
    assert plain.base_config().labels.refine == "none"
    for searched, first in (("none, crossfit", 5), ("none, evolve", 11)):
        dimension = ("search:\n", f"search:\n  labels.refine: {{values: [{searched}]}}\n")
        assert first_rung(spec_of(tmp_path, dimension).slowest_config()) == first
    later = (
        "search:\n",
        "search:\n  labels.refine: {values: [none, evolve]}\n  labels.evolve_after: {float: [0.1, 0.5]}\n",
    )
    assert first_rung(spec_of(tmp_path, later).slowest_config()) == 26
    rungs = scheduled(tmp_path, "hyperband", later).rungs
    assert min(epoch for bracket in rungs for epoch in bracket) == 26


@pytest.mark.parametrize("name", NAMES)
def test_the_base_is_never_stopped(tmp_path, name):
    scheduler = scheduled(tmp_path, name)
    trials = ["0000", "0000.1", *(f"{number:04d}" for number in range(1, 7))]
    for trial in trials:
        scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial))
    decisions = {trial: set() for trial in trials}
    for epoch in range(6, 44):
        for place, trial in enumerate(reversed(trials)):  # the base is worst, and told last
            decisions[trial].add(tell(scheduler, trial, epoch, 0.9 - 0.1 * place))
    assert decisions["0000"] == decisions["0000.1"] == {"CONTINUE"}
    assert any("STOP" in of for trial, of in decisions.items() if trial > "0001")


def test_rungs_hold_the_value_at_the_trials_own_epochs(tmp_path):
    scheduler = make_scheduler(spec_of(tmp_path, ("asha, factor: 3", "asha, factor: 3, first: 11")))
    replay_curves(scheduler, vectors({"0000": curve("0000"), "0001": curve("0001")[:20]}))
    values = {trial: dict(curve(trial)) for trial in ("0000", "0001")}
    assert scheduler.rungs == [
        {33: {"0000": values["0000"][33]}, 11: {"0000": values["0000"][11], "0001": values["0001"][11]}}
    ]


def test_an_epoch_that_is_told_twice_changes_nothing(tmp_path):
    for name in NAMES:
        scheduler = scheduled(tmp_path, name)
        replay_curves(scheduler, vectors({f"{number:04d}": curve(f"{number:04d}") for number in range(6)}))
        scheduler.on_trial_add(None, SimpleNamespace(trial_id="0006"))
        decisions = [tell(scheduler, "0006", epoch, 2.0) for epoch in (11, 11, 12)]
        assert decisions == ["CONTINUE"] * 3


def test_several_objectives_and_short_trials_are_not_stopped(tmp_path):
    assert type(scheduled(tmp_path, "none")) is FIFOScheduler
    short = ("detector: alclnet, epochs: 45", "epochs: 2, select.every: 1")
    assert type(scheduled(tmp_path, "asha", short)) is FIFOScheduler


def test_a_trial_that_trained_its_last_epoch_is_never_stopped_there(tmp_path):
    scheduler = scheduled(
        tmp_path, "asha", ("detector: alclnet, epochs: 45", "epochs: 34")
    )  # 33 would be a rung, and is the end
    rungs = {epoch for bracket in scheduler.rungs for epoch in bracket}
    assert rungs
    assert max(rungs) < 33


def test_brackets_begin_later_and_a_trials_bracket_follows_from_its_id(tmp_path):
    longer = ("detector: alclnet, epochs: 45", "epochs: 300")
    scheduler = scheduled(tmp_path, "hyperband", longer)
    first = [min(bracket) for bracket in scheduler.rungs]
    assert first == [first[0], 3 * first[0], 9 * first[0]][: len(first)]
    assert len(first) > 1
    again = scheduled(tmp_path, "hyperband", longer)
    for made in (scheduler, again):
        replay_curves(made, {f"{number:04d}": [(299, (0.5,))] for number in range(30)})
    assert scheduler.rungs == again.rungs
    assert all(any(passed for passed in bracket.values()) for bracket in scheduler.rungs)


def within_average(folder, name, group_of):
    given = ("{name: asha, factor: 3}", f"{{name: {name}, within: optim.average}}")
    return make_scheduler(
        spec_of(folder, given, ("search:\n", "search:\n  optim.average: {values: [0, 0.97]}\n")), group_of
    )


def parity(trial):
    return int(trial) % 2


@pytest.mark.parametrize("name", NAMES)
def test_within_a_leaf_trials_are_judged_as_in_a_sweep_of_their_own_value_even_after_a_restart(tmp_path, name):
    mixed, both = Sweep(f"{number:04d}" for number in range(1, 25)), within_average(tmp_path, name, parity)
    step = 0
    while mixed.waiting or mixed.running:
        if step in (8, 31, 60):
            both = within_average(tmp_path, name, parity)
            replay_curves(both, vectors(mixed.told))
            for trial in mixed.running:
                both.on_trial_add(None, SimpleNamespace(trial_id=trial))
        mixed.step(both)
        step += 1
    alone = {value: scheduled(tmp_path, name) for value in (0, 1)}
    for trial in mixed.told:
        alone[parity(trial)].on_trial_add(None, SimpleNamespace(trial_id=trial))
    decided = {}
    for epoch in range(45):  # in another order, hence only what does not depend on it is compared
        for trial, told in mixed.told.items():
            if epoch < len(told):
                decided[trial] = tell(alone[parity(trial)], trial, *told[epoch])
    assert decided.keys() == mixed.ended.keys()
    if isinstance(alone[0], SuccessiveHalving):
        assert [both.of(f"{2 + value:04d}").rungs for value in (0, 1)] == [alone[value].rungs for value in (0, 1)]
    assert {parity(trial) for trial, (_, stopped) in mixed.ended.items() if stopped} == {0, 1}


def test_the_best_of_a_group_that_is_worse_throughout_goes_on(tmp_path):
    going = {}
    for scheduler in (scheduled(tmp_path, "asha"), within_average(tmp_path, "asha", parity)):
        for trial, level in (("0001", 0.9), ("0002", 0.3), ("0003", 0.8), ("0004", 0.2)):
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=trial))
            if tell(scheduler, trial, 23, level) == "CONTINUE":
                going.setdefault(type(scheduler), set()).add(trial)
    assert list(going.values()) == [{"0001", "0003"}, {"0001", "0002"}]
