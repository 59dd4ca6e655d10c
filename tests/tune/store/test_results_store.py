"""The results store as its users see it: what is appended can be read, summarised and ranked."""

import numpy as np

from tune.store.records import Record
from tune.store.results_store import ResultsStore

LEAVES = {"detector": "mlclnet", "scam.stages": [1, 3], "optim.rate": None, "clusters.count": 64}


def test_an_empty_store_has_no_results(place):
    store = ResultsStore(place)
    assert (store.trials(), store.curve("0000"), store.curves(), store.rank({"holdout/iou": "max"})) == ([], [], {}, [])


def test_a_record_is_read_as_it_was_written(place):
    written = Record(
        kind="report",
        trial="0007.2",
        configuration=7,
        seed=2,
        attempt=3,
        epoch=11,
        config=LEAVES,
        params={"clusters.count": 64, "scam.stages": [1, 3]},
        metrics={"inner_loss": 0.1, "holdout/iou": 0.6, "holdout/pd": float("inf")},
        values=(0.6, 12.0),
        best=True,
        checkpoint="checkpoints/0007.2/3/epoch-0011",
        sha256="ab",
        wall_s=1.5,
        device_s=3.0,
        host="node-1",
        device="cpu",
        revision="abc",
        versions={"torch": "2"},
        data="cd",
        writer="me",
        time=123.25,
    )
    store = ResultsStore(place)
    store.append([written])
    assert ResultsStore(place).curve("0007.2") == [written]


def test_summaries_follow_from_the_records(place, make_report):
    store = ResultsStore(place)
    store.append([Record(kind="start", trial="0000", configuration=0, seed=0, attempt=1, epoch=0, config=LEAVES)])
    for epoch, score in enumerate([None, 0.2, None, 0.5, None, 0.4]):
        address = f"checkpoints/0000/1/epoch-{epoch:04d}"
        best, values = score in (0.2, 0.5), () if epoch == 0 else (0.2,) if epoch < 3 else (0.5,)
        store.append([make_report("0000", epoch, score=score, best=best, values=values, checkpoint=address)])
    store.append([make_report("0001", 0)])
    first, second = store.trials()
    assert (first.trial, first.state, first.epochs, first.values, first.best_epoch) == ("0000", "running", 6, (0.5,), 3)
    assert first.metrics == {"inner_loss": 0.5, "holdout/point_score": 0.5}
    assert first.checkpoint == "checkpoints/0000/1/epoch-0003"
    assert first.device_s == 6.0
    assert (second.trial, second.state, second.values, second.best_epoch) == ("0001", "running", (), None)
    end = {"trial": "0000", "configuration": 0, "seed": 0, "attempt": 1, "epoch": 6}
    store.append([Record(kind="end", state="stopped", reason="stopped by asha at epoch 5", **end)])
    (first, _) = store.trials()
    assert (first.state, first.reason, first.epochs) == ("stopped", "stopped by asha at epoch 5", 6)


def test_only_checkpoints_that_are_kept_have_an_address(place, make_report):
    store = ResultsStore(place)
    for epoch, best in enumerate([True, False, True, False, False, False]):
        store.append([make_report("0000", epoch, score=0.5, best=best, checkpoint=f"epoch-{epoch:04d}")])
    addresses = [record.checkpoint for record in store.curve("0000")]
    assert addresses == [None, None, "epoch-0002", None, "epoch-0004", "epoch-0005"]
    store.append([Record(kind="end", trial="0000", configuration=0, seed=0, attempt=1, epoch=6, state="completed")])
    assert [record.checkpoint for record in store.curve("0000")] == [None, None, "epoch-0002", None, None, None]
    assert store.rank({"holdout/point_score": "max"})[0].checkpoint == "epoch-0002"


def test_a_superseded_worker_does_not_affect_the_trial(place, make_report):
    gone, back = ResultsStore(place), ResultsStore(place)
    for epoch in range(5):
        gone.append([make_report("0000", epoch, attempt=1, score=0.1)])
    start = Record(kind="start", trial="0000", configuration=0, seed=0, attempt=2, epoch=4)
    back.append([start])
    gone.append([make_report("0000", epoch, attempt=1, score=0.9, best=True) for epoch in range(5, 9)])
    back.append([make_report("0000", 4, attempt=2, score=0.2)])
    gone.append([Record(kind="end", trial="0000", configuration=0, seed=0, attempt=1, epoch=9, state="completed")])
    assert [(r.epoch, r.attempt) for r in back.curve("0000")] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2)]
    (entry,) = back.rank({"holdout/point_score": "max"})
    assert (entry.values, entry.epoch, entry.state) == ((0.2,), 4, "running")
    (trial,) = back.trials()
    assert (trial.attempt, trial.epochs, trial.state, trial.best_epoch) == (2, 5, "running", None)


def test_curves_hold_what_is_visible_and_costs_all_that_was_spent(place, make_report):
    store = ResultsStore(place)
    assert (store.metric_curves(["holdout/iou"]).trials, store.costs()) == ([], [])
    first = [
        make_report("0000", epoch, score=0.1 * epoch, host="a", wall_s=2.0, time=float(epoch)) for epoch in range(3)
    ]
    again = make_report("0000", 2, 2, score=0.9, host="b", wall_s=2.0, time=9.0)
    other = make_report("0001", 0, host="a", wall_s=2.0, time=5.0)
    store.append([*first, again, other])
    curves = store.metric_curves(["holdout/point_score", "holdout/iou"])
    assert (curves.trials, curves.trial.tolist()) == (["0000", "0001"], [0, 0, 0, 1])
    assert (curves.epochs.tolist(), curves.times.tolist()) == ([0, 1, 2, 0], [0.0, 1.0, 9.0, 5.0])
    np.testing.assert_allclose(curves.metrics["holdout/point_score"], [0.0, 0.1, 0.9, np.nan])
    assert np.isnan(curves.metrics["holdout/iou"]).all()
    told = [(cost.host, cost.trials, cost.epochs, cost.wall_s, cost.device_s) for cost in store.costs()]
    assert told == [("a", 2, 4, 8.0, 4.0), ("b", 1, 1, 2.0, 1.0)]
