"""Weights from one implementation of a network to another."""

from collections.abc import Mapping

import torch
from torch import nn


def copy_weights(source: nn.Module, target: nn.Module, names: Mapping[str, str] | None = None) -> None:
    """Copy every parameter and buffer of `source` into `target`, but for counters of random numbers.

    Args:
        source: the module to read.
        target: the module to overwrite, in place; its dtype and device stay.
        names: the source's name for each of the target's names, where the orders of definition differ; without it the
            two `state_dict`s are paired in order.

    Raises:
        ValueError: the two hold different numbers of tensors, or a pair differs in shape or in kind (the last parts of
            the names: `weight`, `running_mean` ...).
    """
    read, write = (
        {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(".counter")}
        for module in (source, target)
    )
    if len(read) != len(write):
        raise ValueError(f"{len(read)} tensors do not fit into {len(write)}")
    pairs = [(names[name], name) for name in write] if names is not None else list(zip(read, write, strict=True))
    if len({mine for mine, _ in pairs}) != len(pairs):
        raise ValueError("a tensor of the source is named twice")
    for theirs, mine in pairs:
        if read[theirs].shape != write[mine].shape:
            raise ValueError(f"{theirs} {tuple(read[theirs].shape)} does not fit {mine} {tuple(write[mine].shape)}")
        kinds = theirs.rsplit(".", 1)[-1], mine.rsplit(".", 1)[-1]
        known = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
        if kinds[0] != kinds[1] and known & set(kinds):
            raise ValueError(f"{theirs} is not of the kind of {mine}")
    with torch.no_grad():
        for theirs, mine in pairs:
            write[mine].copy_(read[theirs])
