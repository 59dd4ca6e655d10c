"""The cost of a trial's detector as metrics, measured once for each architecture and machine.

They are the parameters of the deployed form, GFLOP for an image of 256x256, and the latency of such an image on one
thread of the processor, in PyTorch and float32, whatever the trial itself computes on and in. The latency is that of
the fastest run, since other trials of the machine compute meanwhile; `semprior cost` prints medians.

Nothing heavy is imported before something is measured: commands that only read a sweep need the names.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from semprior import __version__
from semprior.config.schema import Config

if TYPE_CHECKING:
    from semprior.models.detector import Detector

COST_METRICS = ("cost/params", "cost/gflop", "cost/latency_ms")
"""Parameters, 10^9 floating-point operations, and milliseconds."""
SIZE = 256  # pixels
THREADS = 1
_VERSION = 1  # of what is measured; a change must increase it


def cost_metrics(config: Config, trained: Detector, cache: Path | None) -> dict[str, float]:
    """The cost of a config's detector, by the names `COST_METRICS`.

    Args:
        config: of the trial.
        trained: its detector, whose shapes tell architectures apart; another one is measured.
        cache: folder that runs share: what it holds is not measured again. None: measure now.
    """
    import numpy as np

    from semprior.io.array_cache import cached_arrays

    def measure() -> list[dict[str, np.ndarray]]:
        from semprior.deployment.cost import gflop, parameters, torch_latency, untrained

        detector = untrained(config)
        latency = torch_latency(detector, SIZE, False, THREADS).fastest
        return [{"cost": np.array([parameters(detector), gflop(detector, SIZE), latency])}]

    found = cached_arrays(cache, _key(config, trained), measure)["cost"]
    return dict(zip(COST_METRICS, map(float, found), strict=True))


def _key(config: Config, trained: Detector) -> str:
    """The name of the measurement: architecture, versions, threads and processor; caches may be shared by machines."""
    import torch

    from semprior.io.array_cache import key_of
    from semprior.kernels.build import library
    from semprior.runtime.device import instruction_set, processor_name

    shapes = hashlib.sha256()
    for name, tensor in trained.state_dict().items():
        shapes.update(f"{name} {tuple(tensor.shape)}\n".encode())
    return key_of(
        (
            *("cost", _VERSION, config.detector, shapes.hexdigest(), config.channels_last, SIZE, THREADS),
            *(__version__, torch.__version__, platform.node(), processor_name(), instruction_set()),
            library() is not None,
        )
    )
