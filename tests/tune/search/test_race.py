"""A race gives runs to what may still be the best, and to nothing else."""

import dataclasses
import random

import pytest

from tests.tune.images import noisy_scores, scored_images
from tune.search.race import PER_RUN, Contender, Race

RUNS = 4
LEVELS = [0.50, 0.52, 0.30, 0.56, 0.45, 0.60, 0.20, 0.55, 0.58, 0.40]


def images(number, run):
    """What a run of a configuration scored on each image; all find the same images hard."""
    return scored_images(noisy_scores(LEVELS[number], 100 * number + run))


class Simulated:
    """Configurations whose runs end one at a time, `concurrent` of which last at a time."""

    def __init__(self, concurrent=1, out=()):
        self.race, self.concurrent, self.stopped = Race("point_score", RUNS), concurrent, set(out)
        self.contenders, self.lasting, self.begun = {}, [], []

    def state(self):
        found = list(self.contenders.values())
        random.Random(len(self.begun)).shuffle(found)
        return found

    def step(self):
        """Begin what is due, or end the run that lasts longest; False if there is nothing of both."""
        if len(self.lasting) < self.concurrent:
            more = len(self.contenders) < len(LEVELS)
            chosen = self.race.next_run(self.state(), more)
            assert chosen == Race("point_score", RUNS).next_run(self.state(), more)  # a new driver decides alike
            if chosen is None and more:
                chosen = len(self.contenders)
                self.contenders[chosen] = Contender(chosen, None, 0)
            if chosen is not None:
                assert not self.contenders[chosen].running
                assert chosen not in self.race.dropped_out(self.state()) or not self.contenders[chosen].runs
                self.contenders[chosen] = dataclasses.replace(self.contenders[chosen], running=True)
                self.lasting.append(chosen)
                self.begun.append(chosen)
                return True
        if not self.lasting:
            return False
        number = self.lasting.pop(0)
        known = self.contenders[number]
        runs = {**known.images, known.runs: images(number, known.runs)}
        values = [float(one.table[:, 0].sum() / one.table[:, 1].sum()) for one in runs.values()]
        self.contenders[number] = Contender(
            number, sum(values) / len(values), known.runs + 1, False, number in self.stopped, runs
        )
        return True

    def finish(self):
        while self.step():
            pass
        return self.race.leader(self.state())


@pytest.mark.parametrize("concurrent", [1, 3])
def test_the_best_has_all_runs_and_what_is_far_behind_has_one(concurrent):
    simulated = Simulated(concurrent)
    leader = simulated.finish()
    assert leader.number == 5
    runs = {number: one.runs for number, one in simulated.contenders.items()}
    out = simulated.race.dropped_out(simulated.state())
    assert all(runs[number] == RUNS for number in runs if number not in out)
    assert runs[2] == runs[6] == 1 and {2, 6} <= out
    assert sum(runs.values()) < 0.7 * RUNS * len(LEVELS)


def test_a_configuration_whose_run_was_stopped_races_no_more():
    simulated = Simulated(out=[5])
    assert simulated.finish().number == 8
    assert simulated.contenders[5].runs == 1


def test_the_leader_gets_a_second_run_after_some_configurations():
    simulated = Simulated()
    while len(simulated.begun) == len(set(simulated.begun)):
        assert simulated.step()
    assert len(simulated.contenders) == PER_RUN
    assert simulated.begun[-1] == 3  # the best of the first four


def test_configurations_whose_images_are_not_known_stay_in_the_race():
    race = Race("point_score", 2)
    contenders = [Contender(number, value, 1) for number, value in enumerate((0.9, 0.1))]
    assert race.dropped_out(contenders) == set()
    assert race.next_run(contenders, more=False) == 0
    contenders[0] = dataclasses.replace(contenders[0], runs=2)
    assert race.next_run(contenders, more=False) == 1


def test_before_anything_ended_a_configuration_begins():
    race = Race("point_score", 2)
    assert race.next_run([], more=True) is None
    assert race.next_run([Contender(0, None, 0, running=True)], more=False) is None
    assert race.dropped_out([Contender(0, None, 0, running=True)]) == set()


def fold_images(value, fold, own=0):
    return scored_images(noisy_scores(value, fold + own), [f"{fold}-{image}" for image in range(24)])


def test_beside_a_run_that_was_cut_off_the_leader_is_the_best_over_the_runs_of_both():
    """The second was cut off in the hard fold, and its mean is that of an easy one; it is worse where both were."""
    first = {0: fold_images(0.60, 0), 1: fold_images(0.40, 1)}
    second = {0: fold_images(0.50, 0), 2: fold_images(0.80, 2)}
    contenders = [Contender(0, 0.5, 2, images=first), Contender(1, 0.65, 2, images=second, cut_off=1)]
    race = Race("point_score", 3)
    assert race.leader(contenders).number == 0
    assert race.next_run(contenders, more=False) == 0
    better = {0: fold_images(0.70, 0), 2: fold_images(0.80, 2)}
    contenders[1] = Contender(1, 0.75, 2, images=better, cut_off=1)
    race = Race("point_score", 3)
    assert race.leader(contenders).number == 1  # all of its runs have begun
    assert race.next_run(contenders, more=False) is None  # the other one is worse where both were
    close = {0: fold_images(0.601, 0, own=7), 2: fold_images(0.80, 2)}
    contenders[1] = Contender(1, 0.7, 2, images=close, cut_off=1)
    assert Race("point_score", 3).next_run(contenders, more=False) == 0
