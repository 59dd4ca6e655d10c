"""The pictures of the README, from what `make demo` left: ``python -m benchmarks.readme_pictures [FOLDER]``.

``docs/detections.png`` is the demo's own picture; ``docs/sweep.png`` shows the curves of the sweep's trials.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep

DOCS = Path(__file__).resolve().parents[1] / "docs"
_METRIC = "holdout/point_score"


def draw_sweep(uri: str, target: Path) -> None:
    """Draw the curves of a sweep's trials; those that were stopped early are faded, the best one is thick."""
    store = ResultsStore(open_sweep(uri).storage)
    ranked = store.rank({_METRIC: "max"})
    states = {trial.trial: trial.state for trial in store.trials()}
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    for place, entry in enumerate(ranked):
        points = [
            (record.epoch + 1, record.metrics[_METRIC])
            for record in store.curve(entry.trial)
            if _METRIC in record.metrics
        ]
        stopped = states[entry.trial] == "stopped"
        label = (
            f"trial {entry.trial}{', the preset' if entry.configuration == 0 else ''}{', stopped' if stopped else ''}"
        )
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            markersize=3,
            alpha=0.35 if stopped else 1.0,
            linewidth=2.5 if place == 0 else 1.2,
            label=label,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("point score of the held-out images")
    axes.legend(fontsize=7)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Draw both pictures; the exit code."""
    folder = Path(arguments[0] if arguments else "demo")
    (DOCS / "detections.png").write_bytes((folder / "picture.png").read_bytes())
    draw_sweep(str(folder / "runs" / "demo"), DOCS / "sweep.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
