"""A made-up sweep with enough configurations for all charts of its page."""

import dataclasses
import time

import numpy as np

from tests.tune.images import noisy_scores, store_images
from tests.tune.made_up import made_up_sweep
from tune.store.results_store import ResultsStore

SCORE = "holdout/point_score"
NAMES = ("مركب", "Straße", "红外", "<script>alert(1)</script>")
"""Of machines."""


def searched(folder, *changes, several=False):
    """The made-up sweep with twelve more configurations, whose score depends on the number of clusters."""
    if several:
        changes = (("{holdout/point_score: max}", "{holdout/point_score: max, cost/latency_ms: min}"), *changes)
        changes = (*changes, ("scheduler: {name: asha, factor: 3}", "scheduler: {name: none}"))
    sweep = made_up_sweep(folder, *changes)
    store, rng = ResultsStore(sweep.storage), np.random.default_rng(0)
    base, records = store.trials()[0].last, []
    for number in range(3, 15):
        params = {"clusters.count": int(rng.integers(1, 129)), "scam.stages": [[], [1], [2, 3]][number % 3]}
        params |= {"scam.scale": 0.1 + number / 40} if params["scam.stages"] else {}
        score = 0.3 + params["clusters.count"] / 400
        images = store_images(sweep.storage, f"{number:04d}", 1, noisy_scores(score, number))
        shared = {"trial": f"{number:04d}", "configuration": number, "params": params, "host": NAMES[number % 4]}
        record = dataclasses.replace(base, **shared, config={**base.config, **params}, writer="", time=time.time())
        metrics = {SCORE: score, f"{SCORE}_se": 0.02, "cost/latency_ms": 50.0 - number}
        values = (score, 50.0 - number) if several else (score,)
        last = {"epoch": 1, "metrics": metrics, "values": values, "best": True, "images": images}
        records += [
            dataclasses.replace(record, epoch=0, metrics={}, values=(), images=None),
            dataclasses.replace(record, **last),
        ]
        ended = {"epoch": 2, "state": "completed", "metrics": {}, "images": None}
        records.append(dataclasses.replace(record, kind="end", **ended))
    fault = {"kind": "worker", "mark": "w", "epochs": 0}
    lost = {"fault": fault, "reason": "lost: <b>node</b>", "attempt": 1, "epoch": 0, "metrics": {}, "images": None}
    records.append(dataclasses.replace(base, kind="fault", writer="", **lost))
    store.append(records)
    return sweep
