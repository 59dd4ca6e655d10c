"""Which faults end a sweep, as records tell them; and what a line of an exception has in common with the next one."""

import pytest

from tune.monitor.exception_text import describe, signature, without_variable_parts
from tune.session.trial_records import retry_trials
from tune.store.faults import Fault, FaultKind, ending_in_words
from tune.store.records import Record
from tune.store.results_store import ResultsStore


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "small")


def tell(store, trial, kind, attempt, epoch=0, mark="a", what=FaultKind.ERROR, epochs=0, **more):
    """One record of a trial; ``epochs`` are those of the attempt that broke off."""
    fault = Fault(what, f"RuntimeError: {mark}", mark, epochs).to_json() if kind == "fault" else {}
    number = int(trial.partition(".")[0])
    reason = f"RuntimeError: {mark}" if kind == "fault" else ""
    store.append(
        [
            Record(
                kind=kind,
                trial=trial,
                configuration=number,
                seed=0,
                attempt=attempt,
                epoch=epoch,
                fault=fault,
                reason=reason,
                **more,
            )
        ]
    )


def ending(store):
    return [(record.trial, record.attempt) for record in store.faults().ending()]


def test_the_same_exception_in_two_trials_or_twice_in_the_first_ends_the_sweep(store):
    tell(store, "0000", "fault", 1)
    assert ending(store) == []
    tell(store, "0001", "fault", 1, mark="b")
    assert ending(store) == []
    tell(store, "0001", "fault", 2)
    assert ending(store) == [("0000", 1), ("0001", 2)]
    said = ending_in_words(store.faults().ending(), "s3://b/runs/small?scheme=http")
    assert said == (
        "RuntimeError: a, in trials 0000 and 0001, before an epoch was trained; log: s3://b/runs/small/logs/0001.log"
    )


def test_twice_in_one_trial(store):
    tell(store, "0000", "fault", 1)
    tell(store, "0000", "fault", 2)
    assert ending(store) == [("0000", 1), ("0000", 2)]
    assert "twice in trial 0000, before" in ending_in_words(store.faults().ending(), "runs/small")


def test_a_fault_that_did_not_come_again_is_over(store):
    tell(store, "0000", "fault", 1)
    tell(store, "0000", "report", 2)
    tell(store, "0001", "fault", 1)
    assert ending(store) == []


@pytest.mark.parametrize("kind", [FaultKind.MEMORY, FaultKind.WORKER, FaultKind.OWN, FaultKind.PREEMPTED])
def test_faults_of_single_trials_end_no_sweep(store, kind):
    for trial in ("0000", "0001", "0002"):
        tell(store, trial, "fault", 1, what=kind, mark="")
        tell(store, trial, "fault", 2, what=kind, mark="")
    assert ending(store) == []


@pytest.mark.parametrize("kind", [FaultKind.MEMORY, FaultKind.WORKER, FaultKind.OWN])
def test_a_sweep_whose_first_three_trials_failed_alike_ends(store, kind):
    tell(store, "0003", "start", 1)
    for trial in ("0000", "0001", "0002"):
        assert ending(store) == []
        tell(store, trial, "fault", 1, what=kind, mark="")
        tell(store, trial, "fault", 2, what=kind, mark="")
        assert ending(store) == []
        tell(store, trial, "end", 2, state="failed")
    assert ending(store) == [("0000", 2), ("0001", 2), ("0002", 2)]
    assert "in trials 0000, 0001 and 0002, before an epoch" in ending_in_words(store.faults().ending(), "runs/small")
    retry_trials(store, ["0000", "0001", "0002"], "mended")
    assert ending(store) == []


@pytest.mark.parametrize("difference", ["runs", "trained", "kind", "completed later"])
def test_a_sweep_goes_on_if_one_of_its_first_trials_did_not_fail_like_the_others(store, difference):
    tell(store, "0000", "start", 1)
    for trial in ("0000", "0001", "0002", "0003"):
        if (trial, difference) == ("0000", "runs"):  # where others fail at once
            continue
        other = (trial, difference) == ("0001", "kind")
        tell(store, trial, "fault", 1, what=FaultKind.WORKER if other else FaultKind.OWN, mark="")
        tell(store, trial, "end", 1, state="failed")
    if difference == "trained":
        tell(store, "0004", "report", 1)
    if difference == "completed later":
        retry_trials(store, ["0001"], "mended")
        tell(store, "0001", "report", 2)
    assert ending(store) == []


def test_an_exception_after_epochs_is_the_trials_own_unless_others_meet_it_at_once(store):
    tell(store, "0000", "report", 1)
    tell(store, "0000", "fault", 1, epoch=1, epochs=1)
    tell(store, "0000", "fault", 2, epoch=1)
    tell(store, "0000", "fault", 3, epoch=1)
    assert ending(store) == []
    tell(store, "0001", "fault", 1)
    assert [trial for trial, _ in ending(store)] == ["0000", "0000", "0000", "0001"]


def test_a_fault_of_the_data_ends_the_sweep_also_after_epochs(store):
    tell(store, "0000", "report", 1)
    tell(store, "0000", "fault", 1, epoch=1, epochs=1, what=FaultKind.SHARED, mark="x.png: is damaged")
    assert ending(store) == [("0000", 1)]
    assert ending_in_words(store.faults().ending(), "runs/small") == "RuntimeError: x.png: is damaged"


def test_trials_that_are_begun_again_have_no_fault_and_no_end(store):
    for trial in ("0000", "0001"):
        tell(store, trial, "fault", 1)
        tell(store, trial, "end", 1, state="failed")
    retry_trials(store, ["0000", "0001"], "mended")
    assert ending(store) == []
    assert [(trial.state, trial.attempt) for trial in store.trials()] == [("running", 2)] * 2
    assert store.faults().retried == {"0000": 2, "0001": 2}
    tell(store, "0000", "fault", 3)
    assert ending(store) == []
    tell(store, "0001", "fault", 3)
    assert ending(store) == [("0000", 3), ("0001", 3)]
    store.compact()
    assert ending(store) == [("0000", 3), ("0001", 3)]


def test_what_comes_in_one_trial_alone_does_not_keep_the_others_from_running(store):
    """It ends the sweep once; who goes on nevertheless gets the others, if there are any that train."""
    for attempt in (1, 2):
        tell(store, "0001", "fault", attempt)
    assert ending(store)
    retry_trials(store, ["0001"], "mended")
    for attempt in (4, 5):
        tell(store, "0001", "fault", attempt)
    assert ending(store)
    tell(store, "0000", "report", 1)
    assert not ending(store)


@pytest.mark.parametrize(("best", "kept"), [(0, {"0", "3"}), (3, {"3"})])
def test_a_failed_trial_keeps_its_last_checkpoint_and_goes_on_from_there(store, best, kept):
    for epoch in range(4):
        tell(store, "0000", "report", 1, epoch=epoch, best=epoch == best, checkpoint=str(epoch))
    tell(store, "0000", "end", 1, epoch=4, state="failed")
    assert {record.checkpoint for record in store.curve("0000")} - {None} == kept
    retry_trials(store, ["0000"], "")
    assert {record.checkpoint for record in store.curve("0000")} - {None} == kept
    tell(store, "0000", "start", 3, epoch=4)
    tell(store, "0000", "report", 3, epoch=4, checkpoint="4")
    assert {record.checkpoint for record in store.curve("0000")} - {None} == {*kept, "4"}
    assert [record.epoch for record in store.curve("0000")] == list(range(5))


def raised(message, deeper=False):
    try:
        int("x") if deeper else _raise(message)
    except (RuntimeError, ValueError) as error:
        return error


def _raise(message):
    raise RuntimeError(message)


def test_an_exception_is_told_with_its_place_and_known_again():
    first, second = raised("slot 7 at 0x7f3a of /tmp/a b"), raised("slot 12 at 0x7f4b of /tmp/c b")
    assert describe(first).startswith("RuntimeError: slot 7 at 0x7f3a of /tmp/a b (")
    assert describe(first).endswith(", _raise)")
    assert signature(first) == signature(second)
    assert signature(raised("slot 7 at another place")) != signature(first)
    assert signature(raised("", deeper=True)) != signature(first)
    assert describe(RuntimeError("of another process")) == "RuntimeError: of another process"
    assert without_variable_parts("loss is nan at epoch 12") == without_variable_parts("loss is nan at epoch 7")
