"""The trials of a sweep, as Ray Tune's search algorithm: under their own ids, from our search, as many as fit.

Ray's own way makes ids anew in every session and knows a search by its last results alone. Here a trial keeps its id
for good: what was begun before goes on first, then every configuration of the search gets its runs, until the budget
is spent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import SearchAlgorithm

from semprior.errors import UserError
from tune.ends import end_trial
from tune.order import Order
from tune.records import State
from tune.results import ResultsStore
from tune.search import Search, run_of, trial_ids
from tune.trial import Brief

Briefs = Callable[[Order], Brief]


class Proposals(SearchAlgorithm):
    """Gives Tune its trials and takes their results.

    Args:
        search: proposes configurations; knows what the store knows.
        store: of the sweep.
        unfinished: orders of trials that were begun, and of those that lack to configurations that were.
        make: the order of a new trial, from its id, configuration, leaves and parameters.
        brief: what a trial's process is told, from its order.
        at_once: how many trials may be alive.
        scheduler: its name, for the reason of an early stop.
        new: whether configurations are begun that were not.
    """

    def __init__(
        self,
        search: Search,
        store: ResultsStore,
        unfinished: Sequence[Order],
        make: Callable[[str, int, dict[str, Any], dict[str, Any]], Order],
        brief: Briefs,
        at_once: int,
        scheduler: str,
        new: bool = True,
    ) -> None:
        self.search, self.store, self.scheduler = search, store, scheduler
        self.waiting = deque(unfinished)
        self.live: dict[str, Order] = {}
        self.trials: dict[str, TuneTrial] = {}
        self.closed = ""
        self.broken = ""  # why the sweep cannot go on now
        self.cut: dict[str, str] = {}
        self._make, self._brief, self._at_once = make, brief, at_once
        self._experiment: Experiment | None = None
        self._exhausted = not new

    def add_configurations(self, experiments: list[Experiment]) -> None:
        """Tune's word on what to run."""
        self._experiment = experiments[0]

    @property
    def total_samples(self) -> int:
        """Trials that there will be."""
        return self.search.spec.budget.trials * self.search.spec.seeds

    def close(self, why: str) -> None:
        """Begin no trial any more."""
        self.closed = self.closed or why

    def break_off(self, why: str) -> None:
        """Begin no trial any more, and end none: those that run go on when the sweep does."""
        self.broken = self.broken or why
        self.close("broken")

    def is_finished(self) -> bool:
        """Whether no trial will be begun any more."""
        return bool(self.closed) or (not self.waiting and (self._exhausted or self.search.left <= 0))

    def set_finished(self) -> None:
        """Tune ends the session."""
        self.close("ended")

    def next_trial(self) -> TuneTrial | None:
        """The next trial, where one may be alive more."""
        if self.is_finished() or len(self.live) >= self._at_once:
            return None
        if not self.waiting:
            asked = self.search.ask()
            if asked is None:
                self._exhausted = True
                return None
            number, parameters, leaves = asked
            for trial in trial_ids(number, self.search.spec.seeds):
                self.waiting.append(self._make(trial, number, leaves, parameters))
        order = self.waiting.popleft()
        self.live[order.trial] = order
        self.trials[order.trial] = self._tune_trial(order)
        return self.trials[order.trial]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch of a trial that goes on."""
        self._learn(trial_id, result)

    def heard(self, trial_id: str, result: dict[str, Any]) -> None:
        """Any result, also the last: what a restarted process of this trial need not tell again."""
        if "epoch" in result and trial_id in self.trials:
            config = self.trials[trial_id].config
            config["brief"] = replace(config["brief"], heard=int(result["epoch"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ends: by itself, by the scheduler, because its process died too often, or for today.

        Tune takes whatever is raised here for a fault of the trial, and begins it anew: nothing is.
        """
        order = self.live.pop(trial_id, None)
        if order is None:
            return
        if result:
            self._learn(trial_id, result)
        if result and "left" in result:
            self.break_off(str(result["left"]))
        if self.broken or (trial_id in self.cut and not self.cut[trial_id]):
            return  # it goes on with the next session
        try:
            state, reason = self._reason(trial_id, result or {}, error)
            end = end_trial(self.store, order, state, reason)
        except UserError as fault:
            self.break_off(str(fault))
            return
        self.search.tell(order.configuration, end.state, end.values, run_of(trial_id))

    def _reason(self, trial_id: str, result: dict[str, Any], error: bool) -> tuple[State, str]:
        if error:
            return "failed", self._last_fault(trial_id) or "its process died, and again when it was restarted"
        if trial_id in self.cut:
            return "stopped", self.cut[trial_id]
        return "stopped", f"stopped by {self.scheduler} at epoch {result.get('epoch', -1)}"

    def _last_fault(self, trial_id: str) -> str:
        told = [record for record in self.store.history(trial_id) if record.kind in ("fault", "retry")]
        return told[-1].reason if told and told[-1].kind == "fault" else ""

    def _learn(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result:
            order = self.live.get(trial_id)
            number = order.configuration if order else int(trial_id.partition(".")[0])
            self.search.report(number, int(result["epoch"]), result.get("value"), run_of(trial_id))

    def _tune_trial(self, order: Order) -> TuneTrial:
        if self._experiment is None:
            raise RuntimeError("Tune asks for trials before it said of which experiment")
        spec = self._experiment.spec
        return TuneTrial(
            self._experiment.run_identifier,
            config={"brief": self._brief(replace(order, started=time.time()))},
            trial_id=order.trial,
            storage=spec["storage"],
            checkpoint_config=spec["checkpoint_config"],
            placement_group_factory=spec["resources_per_trial"],
            max_failures=spec["max_failures"],
            trial_dirname_creator=lambda trial: trial.trial_id,
        )

    def has_checkpoint(self, dirpath: str) -> bool:
        """Nothing of it is ever saved: the store is its memory."""
        del dirpath
        return False

    def save_to_dir(self, dirpath: str, **_: Any) -> None:  # noqa: ANN401
        """Save nothing."""
        del dirpath

    def restore_from_dir(self, dirpath: str) -> None:
        """Restore nothing."""
        del dirpath
