"""When a trial may first be judged."""

from __future__ import annotations

from semprior.config.epochs import evolution_due, is_due, share_of
from semprior.config.schema import Config


def first_rung(config: Config) -> int:
    """The earliest rung: the first epoch, from 0, whose evaluation saw what the method does beyond plain training.

    Before the first evolution of the labels and the first outer pass all configurations look alike, and stopping
    would choose by the seed. The rung is the first evaluated epoch in or before which both have happened; what the
    configuration switches off is not waited for.

    Args:
        config: of the trial.
    """
    labels, outer, select, epochs = config.labels, config.outer, config.select, config.epochs
    evolve_start, evaluate_start = share_of(labels.evolve_after, epochs), share_of(select.after, epochs)
    evolved, stepped = not labels.evolve, not outer.every
    for epoch in range(epochs):
        evolved = evolved or evolution_due(epoch, start=evolve_start, every=labels.evolve_every)
        stepped = stepped or epoch % outer.every == 0
        if epoch and evolved and stepped and is_due(epoch, evaluate_start, select.every):
            return epoch
    return epochs - 1


def usual_rung(config: Config) -> int:
    """The first rung unless a sweep says otherwise: an evaluation in the second half of a run, `first_rung` or later.

    On real runs the best so far at a quarter of the epochs hardly ranks trials as their ends do (Spearman 0.45), in
    the middle it does (0.67); benchmarks/sweeps.md has what that means for a search.

    Args:
        config: of the trial.
    """
    select, epochs = config.select, config.epochs
    evaluated = share_of(select.after, epochs)
    earliest = max(first_rung(config), epochs // 2)
    return next((epoch for epoch in range(earliest, epochs) if is_due(epoch, evaluated, select.every)), epochs - 1)
