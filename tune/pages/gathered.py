"""What the page of a sweep is made of, read from its store at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tune.comparison.ranked import Compared, ComparedRanking, compare_first
from tune.monitor.sweep_progress import ProgressReader, SweepProgress
from tune.monitor.wording import why_ended
from tune.search.history import History
from tune.search.importance import Importance, importance
from tune.search.search import Search
from tune.store.ranking import Ranked
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep
from tune.store.trial_summary import Curves, MachineCost, TrialSummary

MOST_RANKED = 200  # configurations in the table
MOST_DRAWN = 400  # trials in charts, and behind the importance of the dimensions


@dataclass(frozen=True)
class SweepData:
    """A sweep as its page shows it.

    Attributes:
        sweep: the sweep.
        progress: its state and how its trials stand.
        ended: why it has ended, in a line; empty while it runs.
        ranking: its first `MOST_RANKED` configurations, compared on the same images.
        trials: all of its trials, by id.
        curves: the objectives of all epochs of all trials.
        costs: what the trials have cost, by machine.
        faults: what attempts of trials broke off by, in order of time.
        drawn: ids of the trials that charts show: all, or every so many-th and the best.
        history: the configurations of these trials, as the search sees them.
        importance: the importance of the dimensions, over these trials.
        left_out: what could not be used of the files of the store, a line each.
    """

    sweep: Sweep
    progress: SweepProgress
    ended: str
    ranking: ComparedRanking
    trials: Mapping[str, TrialSummary]
    curves: Curves
    costs: Sequence[MachineCost]
    faults: Sequence[Record]
    drawn: Collection[str]
    history: History
    importance: Importance
    left_out: Sequence[str]

    @property
    def metric(self) -> str:
        """The first objective."""
        return next(iter(self.sweep.spec.objective))

    @property
    def maximize(self) -> bool:
        """Whether a higher value of the first objective is better."""
        return self.sweep.spec.objective[self.metric] == "max"

    @property
    def best(self) -> Compared | None:
        """The configuration that ranks first, if it may be called the best."""
        shown = self.ranking.shown
        if not shown or shown[0].entry.unmet or (self.sweep.spec.races and shown[0].entry.front > 1):
            return None
        return shown[0]

    @property
    def base(self) -> Ranked | None:
        """Configuration 0, the preset itself; None if it has no value."""
        gains = self.ranking.gains
        return next((base for _, base, _ in gains.values()), None)

    @property
    def epochs(self) -> int:
        """Number of epochs that were trained in all, also those that were trained anew."""
        return sum(cost.epochs for cost in self.costs)

    @property
    def device_s(self) -> float:
        """Device seconds in all."""
        return sum(trial.device_s for trial in self.trials.values())


def gather(sweep: Sweep) -> SweepData:
    """Read a sweep.

    Raises:
        UserError: the storage cannot be read.
    """
    store, spec = ResultsStore(sweep.storage), sweep.spec
    progress = ProgressReader(sweep)()
    ranking = compare_first(
        store, dict(spec.objective), limit=MOST_RANKED, minimum=spec.runs_of_the_best, limits=spec.limits
    )
    trials = {trial.trial: trial for trial in store.trials()}
    first = [one.entry.configuration for one in ranking.shown[:20]]
    drawn = _thinned(list(trials.values()), {0, *first})
    reports = store.curves([trial.trial for trial in drawn])
    search = Search(spec)
    search.rebuild(drawn, reports)
    faults = store.faults().records
    return SweepData(
        sweep=sweep,
        progress=progress,
        ended=why_ended(sweep),
        ranking=ranking,
        trials=trials,
        curves=store.metric_curves(list(spec.objective)),
        costs=store.costs(),
        faults=faults,
        drawn=frozenset(trial.trial for trial in drawn),
        history=search.history,
        importance=importance(spec, drawn, reports, ranking.error),
        left_out=tuple(dict.fromkeys([*progress.left_out, *map(str, store.left_out)])),
    )


def _thinned(trials: Sequence[TrialSummary], kept: Collection[int]) -> list[TrialSummary]:
    """All trials, or those of so many configurations, evenly spread, that there are at most about `MOST_DRAWN`.

    Args:
        trials: the trials.
        kept: configurations whose trials are among them in any case.
    """
    if len(trials) <= MOST_DRAWN:
        return list(trials)
    runs: dict[int, list[TrialSummary]] = defaultdict(list)
    for trial in trials:
        runs[trial.configuration].append(trial)
    step = -(-len(trials) // MOST_DRAWN)
    chosen = {*list(runs)[::step], *kept}
    return [trial for trial in trials if trial.configuration in chosen]
