"""A sweep whose trials never ran: its records are made up."""

from semprior.config.schema import flatten
from semprior.data.remote_data import data_identity
from semprior.data.synthetic.scenes import write_scenes
from semprior.io.storage import open_storage
from tests.tune.images import noisy_scores, store_images
from tests.tune.small_sweep import spec_of
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import create_sweep

EPOCHS = 6


def made_up_sweep(folder, *changes):
    """A sweep ``small`` in ``folder/runs`` with three trials: the preset itself, a better one, one that runs."""
    write_scenes(folder / "scenes", 9, 0)
    spec = spec_of(folder, ("data: scenes", f"data: {folder / 'scenes'}"), ("./runs", f"{folder / 'runs'}"), *changes)
    sweep = create_sweep(open_storage(spec.storage), spec.name, spec, data_identity(spec.data))
    leaves = flatten(spec.base_config()) | {"epochs": EPOCHS}
    store, records = ResultsStore(sweep.storage), []
    for number, (params, peak, epochs, state) in enumerate(
        [
            ({"clusters.count": 64, "scam.stages": [1, 2, 3], "scam.scale": 0.05}, 0.5, 6, "completed"),
            ({"clusters.count": 7, "scam.stages": [2], "scam.scale": 0.25}, 0.8, 4, "stopped"),
            ({"clusters.count": 20, "scam.stages": []}, 0.6, 3, None),
        ]
    ):
        of = {
            "trial": f"{number:04d}",
            "configuration": number,
            "seed": 0,
            "attempt": 1,
            "params": params,
            "config": leaves | params,
            "host": "elsewhere",
            "device": "cpu",
            "revision": "abc",
            "versions": {"torch": "2"},
        }
        records.append(Record(kind="start", epoch=0, **of))
        for epoch in range(epochs):
            value = peak - 0.1 * abs(epochs - 2 - epoch)
            best = epoch <= epochs - 2
            metrics = {"inner_loss": 1.0 / (epoch + 1), "cost/params": 657249.0, "cost/gflop": 14.02}
            metrics["cost/latency_ms"] = 30.0 + number
            if epoch:
                metrics |= {"holdout/point_score": value, "holdout/point_score_se": 0.01, "holdout/iou": value / 2}
            evaluated = epoch and state  # of the trial that runs, nothing is stored image by image
            images = store_images(sweep.storage, of["trial"], epoch, noisy_scores(value, number)) if evaluated else None
            values = (min(peak, value if best else peak),) if epoch else ()
            told = {"metrics": metrics, "values": values, "best": bool(epoch) and best, "wall_s": 2.0, "device_s": 2.0}
            told["images"] = images
            records.append(Record(kind="report", epoch=epoch, **of, **told))
        if state:
            reason = "stopped by asha at epoch 4" if state == "stopped" else ""
            records.append(Record(kind="end", epoch=epochs, state=state, reason=reason, **of))
    store.append(records)
    return sweep
