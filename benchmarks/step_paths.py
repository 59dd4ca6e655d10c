"""The two paths that `benchmarks.step` times, each in a process of its own.

Of their own, because ours keeps freed memory in the process (`semprior.runtime.process_setup`), which would speed the
plain path
up too, and because the peak of memory is a process's.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.machine import describe_machine, peak_memory
from benchmarks.plain import augment, bilevel
from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.scam import Modulator, Teacher
from benchmarks.plain.vfm import PUBLISHED_VFM, PlainViT
from benchmarks.step_graph import RecordedStep, record_inner, record_outer

MEAN, STD = 0.4339, 0.1152  # SIRST v1
IMAGES = 24
CLUSTERS = 8


@dataclass(frozen=True)
class Setting:
    """What is timed.

    Attributes:
        detector: its name.
        device: `cpu` or `cuda`.
        batch: images.
        size: side of the crops, pixels.
        repeats: timed steps of each kind; one more before them warms up.
        outer: whether outer steps are timed too.
        cache: folder of the feature bank.
        vfm: timm's name of the ViT.
        precision: of ours, `bf16` or `fp32`.
        variant: of ours: `eager`; `compiled` (encoder and decoder by `torch.compile`); `graph` (a CUDA graph a step).
    """

    detector: str
    device: str
    batch: int
    size: int
    repeats: int
    outer: bool
    cache: str
    vfm: str = PUBLISHED_VFM
    precision: str = "bf16"
    variant: str = "eager"


@dataclass(frozen=True)
class Timing:
    """Medians over the repeats, in seconds a step, and gigabytes.

    Attributes:
        inner_s: an inner step, its batch included.
        range_s: the shortest and the longest of them.
        batch_s: of it, cropping, augmenting and, from the bank, the VFM's maps.
        vfm_s: of it, the VFM's forward; 0 with a bank.
        inner_cpu_s: processor time of an inner step, over all threads: what it costs where the machine is shared.
        outer_s: an outer step with both its batches; none if not asked for.
        outer_cpu_s: its processor time.
        peak_gb: most memory held; on an accelerator, its own; none where the system does not say.
        machine: in one line.
        start_s: seconds of the first inner step, compilation included.
        kernel_share: share of an inner step in which the accelerator computes; none on a CPU.
    """

    inner_s: float
    range_s: tuple[float, float]
    batch_s: float
    vfm_s: float
    inner_cpu_s: float
    outer_s: float | None
    outer_cpu_s: float | None
    peak_gb: float | None
    machine: str
    start_s: float
    kernel_share: float | None = None


class Watch:
    """Seconds since its last lap, the accelerator's queue emptied first."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self.lap()

    def lap(self) -> float:
        """Seconds since the lap before."""
        if self._cuda:
            torch.cuda.synchronize()
        now = time.perf_counter()
        passed, self._since = now - getattr(self, "_since", now), now
        return passed


def images(size: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noise and small pseudo-masks, uint8, a little larger than the crops: what they show costs no time."""
    rng = np.random.default_rng(seed)
    height, width = size + 32, size + 96
    greys = [rng.integers(0, 256, (height, width), dtype=np.uint8) for _ in range(IMAGES)]
    softs = []
    for _ in greys:
        soft = np.zeros((height, width), np.uint8)
        for row, column in rng.integers(0, size, (3, 2)):
            soft[row : row + 5, column : column + 5] = 255
        softs.append(soft)
    return greys, softs


def time_plain(setting: Setting) -> Timing:
    """The published method to the letter."""
    torch.manual_seed(0)
    network = DETECTORS[setting.detector]
    vfm = PlainViT(setting.vfm, device=setting.device)
    width = vfm.model.num_features
    modulator = Modulator(network.stages, network.scam_scale, maps=len(vfm.model.blocks) + 1, width=width)
    model = Teacher(network(), modulator).to(setting.device)
    alpha = nn.Parameter(torch.zeros(CLUSTERS, device=setting.device))
    inner = bilevel.inner_optimizer(model, network.learning_rate)
    outer = bilevel.outer_optimizer(model, alpha, network.learning_rate)
    greys, softs = images(setting.size)
    rng = np.random.default_rng(0)

    def draw(watch: Watch) -> tuple[bilevel.PlainBatch, float, float]:
        chosen = rng.choice(IMAGES, setting.batch, replace=setting.batch > IMAGES)
        arrays = augment.batch([greys[i] for i in chosen], [softs[i] for i in chosen], rng, MEAN, STD, setting.size)
        inputs, masks, crops = (torch.from_numpy(array).to(setting.device) for array in arrays)
        batch_s = watch.lap()
        maps = vfm(crops)
        vfm_s = watch.lap()
        clusters = torch.from_numpy(chosen % CLUSTERS).to(setting.device)
        return bilevel.PlainBatch(inputs, masks, maps, clusters), batch_s, vfm_s

    def inner_step(watch: Watch) -> tuple[float, float, float]:
        batch, batch_s, vfm_s = draw(watch)
        bilevel.inner_step(model, alpha, batch, inner)
        return batch_s, vfm_s, watch.lap()

    def outer_step(watch: Watch) -> tuple[float, float, float]:
        (validation, *one), (training, *two) = draw(watch), draw(watch)
        bilevel.outer_step(model, alpha, validation, training, outer, network.learning_rate)
        return one[0] + two[0], one[1] + two[1], watch.lap()

    return _measure(setting, inner_step, outer_step)


def time_ours(setting: Setting) -> Timing:
    """The preset `standard` with the published crops, as a run steps it, and a warm feature bank."""
    from semprior.config.schema import DataConfig, resolve
    from semprior.data.batches import Batch, Normalisation, Pool, draw_batch
    from semprior.data.layout import Scene
    from semprior.foundation.feature_bank import FeatureBank
    from semprior.foundation.feature_source import Features
    from semprior.foundation.vfm import load_vfm
    from semprior.models.build import build_teacher
    from semprior.models.detector import detector_spec
    from semprior.runtime.process_setup import keep_freed_memory
    from semprior.training import bilevel as fast
    from semprior.training.ema import frozen_copy, update_average

    keep_freed_memory()
    torch.manual_seed(0)
    device = torch.device(setting.device)
    config = resolve(preset="standard", environment={}).config
    config = replace(
        config,
        detector=setting.detector,
        precision=setting.precision,
        data=DataConfig(batch=setting.batch, crop=setting.size, augment=0.5),
    )
    greys, softs = images(setting.size)
    vfm = load_vfm(setting.vfm, "random", device)
    bank = FeatureBank.build(Path(setting.cache), vfm, greys, config.vfm.bank_gb, device)
    features = Features(vfm, bank)
    model = build_teacher(config, vfm).to(device).train()
    average, updates = frozen_copy(model), itertools.count()
    alpha = nn.Parameter(torch.zeros(CLUSTERS, device=device))
    rate, decay = detector_spec(setting.detector).learning_rate, config.optim.weight_decay
    if setting.variant == "compiled":
        model.detector.encoder.compile()
        model.detector.decode = torch.compile(model.detector.decode)
    recorded = {"fused": True, "capturable": setting.variant == "graph"}
    inner = torch.optim.AdamW([*model.parameters()], lr=rate, weight_decay=decay, **recorded)
    outer = torch.optim.AdamW([*model.detector.parameters(), alpha], lr=rate, weight_decay=decay, **recorded)
    graphs: dict[str, RecordedStep] = {}
    points = np.zeros((0, 2), np.int64)
    scenes = [Scene(name=str(i), image=grey, points=points, mask=None) for i, grey in enumerate(greys)]
    pool = Pool(scenes, softs, np.arange(IMAGES) % CLUSTERS)
    rng = np.random.default_rng(0)

    def draw(watch: Watch, drop: float = 0.0) -> tuple[Batch, float]:
        chosen = rng.choice(IMAGES, setting.batch, replace=setting.batch > IMAGES).tolist()
        normalisation = Normalisation(MEAN, STD)
        batch = draw_batch(pool, chosen, config.data, normalisation, features.crops, device, rng, drop)
        return batch, watch.lap()

    def average_weights() -> None:
        update_average(average, model, config.optim.average, next(updates))

    def inner_step(watch: Watch) -> tuple[float, float, float]:
        batch, batch_s = draw(watch, config.scam.drop)
        if setting.variant != "graph":
            fast.inner_step(model, alpha, batch, inner, config)
        else:
            if "inner" not in graphs:
                graphs["inner"] = record_inner(model, alpha, batch, inner, config)
            graphs["inner"](batch)
        average_weights()
        return batch_s, 0.0, watch.lap()

    def outer_step(watch: Watch) -> tuple[float, float, float]:
        (validation, one), (training, two) = draw(watch), draw(watch)
        if setting.variant != "graph":
            fast.outer_step(model, alpha, validation, training, outer, rate, config)
        else:
            if "outer" not in graphs:
                graphs["outer"] = record_outer(model, alpha, [validation, training], outer, rate, config)
            graphs["outer"](validation, training)
        average_weights()
        return one + two, 0.0, watch.lap()

    return _measure(setting, inner_step, outer_step)


Step = Callable[[Watch], tuple[float, float, float]]  # seconds of batch, VFM and the rest


def _measure(setting: Setting, inner: Step, outer: Step) -> Timing:
    watch = Watch(setting.device)
    start_s = sum(inner(watch))  # warms up
    laps, busy = _repeated(inner, watch, setting.repeats)
    outer_s, outer_cpu_s = None, None
    if setting.outer:
        outer(watch)
        outer_laps, outer_busy = _repeated(outer, watch, setting.repeats)
        outer_s, outer_cpu_s = statistics.median(map(sum, outer_laps)), statistics.median(outer_busy)
    peak = torch.cuda.max_memory_allocated() if setting.device.startswith("cuda") else peak_memory()
    return Timing(
        inner_s=statistics.median(sum(lap) for lap in laps),
        range_s=(min(map(sum, laps)), max(map(sum, laps))),
        batch_s=statistics.median(lap[0] for lap in laps),
        vfm_s=statistics.median(lap[1] for lap in laps),
        inner_cpu_s=statistics.median(busy),
        outer_s=outer_s,
        outer_cpu_s=outer_cpu_s,
        peak_gb=peak / 1e9 if peak is not None else None,
        machine=describe_machine(setting.device),
        start_s=start_s,
        kernel_share=_kernel_share(inner, watch) if setting.device.startswith("cuda") else None,
    )


def _repeated(step: Step, watch: Watch, count: int) -> tuple[list[tuple[float, float, float]], list[float]]:
    """Laps of each of so many steps, and its processor seconds."""
    laps, busy = [], []
    for _ in range(count):
        before = time.process_time()
        laps.append(step(watch))
        busy.append(time.process_time() - before)
    return laps, busy


def _kernel_share(inner: Step, watch: Watch) -> float:
    """Of one more inner step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        watch.lap()
        seconds = sum(inner(watch))
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seconds
