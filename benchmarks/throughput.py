"""Images a second of what surrounds the steps: batches, whole-image evaluation, label evolution; plain against ours.

    python -m benchmarks.throughput [--data DIR] [--lines batches evaluation evolution] [--vfm NAME ...] [--json]

- `batches`, one core: crops of 256, augmented, a line for each vision model. Plain decodes every image anew and works
  on one at a time, without features, as published; ours draws from the pictures and pseudo-masks of a run and delivers
  the model's features from a warm bank, too, as the step takes them.
- `evaluation`, all cores, by the clock: the test images through an untrained detector, and all metrics. Plain is fp32,
  one image at a time, and loops over components; ours is bf16, where the machine has it, in batches of one size. An
  untrained detector sees targets everywhere or nowhere, so that metrics are taken of the true masks, moved by a pixel.
- `evolution`, one core: one evolution of the soft masks of all images towards blurred true masks.

Figures are the best of the rounds. Of what runs on one core they are images per second of processor time, which other
work on the machine changes little; `_clock` are by the clock. Beside them stands what bounds ours (`benchmarks.floor`):
of evaluation the operations over the measured matrix rate, of batches the bytes that must be written, and of the
features also read, over the measured bandwidth of one core. Evolution is bound by neither.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.floor import bandwidth, forward_work, matrix_rate
from benchmarks.machine import describe_machine, load
from benchmarks.plain import augment, labels
from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.metrics import metrics
from benchmarks.plain.vfm import PUBLISHED_VFM
from semprior.config.schema import Config, resolve
from semprior.data.batches import Normalisation, Pool, draw_batch, epoch_batches
from semprior.data.layout import Layout, Scene, find_layout, intensity_range, read_scenes
from semprior.deployment.evaluate import score
from semprior.errors import UserError
from semprior.evaluation.inference import student_probabilities
from semprior.foundation.feature_bank import FeatureBank
from semprior.foundation.feature_source import Features
from semprior.foundation.vfm import STRIDE, load_vfm
from semprior.labels.evolve import evolve
from semprior.labels.pseudo_masks import PseudoMasks
from semprior.models.detector import create_detector
from semprior.runtime.device import uses_bf16
from semprior.runtime.process_setup import keep_freed_memory
from semprior.training.prepare import read_training_set

DATA = Path("../shared/data/sirst-v1")
LINES = ("batches", "evaluation", "evolution")
MEAN, STD = 0.4339, 0.1152  # SIRST v1
CROP, BATCH = 256, 16
EVALUATED = ("mlclnet", "alclnet")
VFMS = ("tf_efficientnet_lite2", PUBLISHED_VFM)
BARS = {"batches": 1500, "evaluation mlclnet": 40, "evaluation alclnet": 50, "evolution": 5000}
Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where the data set has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help=f"a data set with masks (default {DATA})")
    parser.add_argument("--lines", nargs="+", default=list(LINES), choices=list(LINES))
    parser.add_argument("--vfm", nargs="+", default=list(VFMS), help="whose features ours delivers; random weights")
    parser.add_argument("--rounds", type=int, default=2, help="the best of them counts")
    parser.add_argument("--images", type=int, default=48, help="of evaluation; plain takes a quarter of them")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    busy, figures = load(), {}
    try:
        layout = find_layout(options.data)
        intensity = intensity_range(layout)
        train = [s for split in ("train", "val") for s in read_scenes(layout, split, intensity, masks="required")]
        test = read_scenes(layout, "test", intensity, masks="required")[: options.images]
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    with tempfile.TemporaryDirectory(prefix="semprior-batches-") as cache:
        for vfm in options.vfm if "batches" in options.lines else ():
            drawn = _on_one_core(lambda vfm=vfm: batches(layout, vfm, options.rounds, Path(cache)))
            figures[f"batches {vfm}"] = drawn
    if "evolution" in options.lines:
        figures["evolution"] = _on_one_core(lambda: evolution(train, options.rounds))
    if "evaluation" in options.lines:  # last: it keeps freed memory in the process, which would speed the plain up
        plain = {name: plain_evaluation(name, test[: max(1, len(test) // 4)], options.rounds) for name in EVALUATED}
        keep_freed_memory()
        for name in EVALUATED:
            figures[f"evaluation {name}"] = _merged(plain[name], evaluation(name, test, options.rounds))
    if options.json:
        print(json.dumps(figures | {"machine": describe_machine(), "load_before": busy}))
        return 0
    columns = ("images a second", "plain", "ours", "ratio", "bar", "bound")
    table = Table(*columns, title=f"{describe_machine()}; load before: {busy}", title_justify="left")
    for name, found in figures.items():
        cells = f"{found['plain']:.1f}", f"{found['ours']:.1f}", f"{found['ratio']:.1f}"
        bar = next(str(value) for line, value in BARS.items() if name.startswith(line))
        table.add_row(name, *cells, bar, f"{found['bound']:.0f}" if "bound" in found else "")
    Console(soft_wrap=True).print(table)
    return 0


def batches(layout: Layout, vfm_name: str, rounds: int, cache: Path) -> Figures:
    """Crops a second on one core.

    Args:
        layout: of the data set.
        vfm_name: whose features ours delivers.
        rounds: passes that count.
        cache: folder of pictures, seeds and feature banks.
    """
    resolved = resolve("standard", flags={"data.crop": CROP, "data.batch": BATCH}, environment={})
    run = read_training_set(layout, resolved, _unheard, cache)
    pseudo_masks = PseudoMasks.start(resolved.config, run)
    softs = [pseudo_masks.soft[index] for index in pseudo_masks.members]
    rng = np.random.default_rng(0)

    def plain() -> int:
        chosen = epoch_batches(range(len(softs)), BATCH, rng)
        for places in chosen:
            names = [run.scenes[pseudo_masks.members[place]].name for place in places]
            decoded = [cv2.imread(str(layout.images[name][0]), cv2.IMREAD_GRAYSCALE) for name in names]
            augment.batch(decoded, [softs[place] for place in places], rng, MEAN, STD, CROP)
        return BATCH * len(chosen)

    vfm = load_vfm(vfm_name, "random")
    features = Features(vfm, FeatureBank.build(cache, vfm, [scene.image for scene in run.scenes]))
    pool = Pool(run.scenes, pseudo_masks.soft, run.clusters)

    def ours() -> int:
        chosen = epoch_batches(pseudo_masks.members, BATCH, rng)
        for indices in chosen:
            device, data = torch.device("cpu"), resolved.config.data
            draw_batch(pool, indices, data, run.normalisation, features.crops, device, rng)
        return BATCH * len(chosen)

    tokens = (CROP // STRIDE) ** 2 * sum(vfm.map_channels)
    crop_bytes = 4 * (3 + 1) * CROP**2 + 2 * 2 * tokens
    found = _merged(_rate("plain", plain, rounds), _rate("ours", ours, rounds))
    return found | {"bound": bandwidth("cpu") / crop_bytes}


def evolution(scenes: Sequence[Scene], rounds: int) -> Figures:
    """Images evolved a second on one core."""
    softs, probabilities = [], []
    for scene in scenes:
        softs.append(np.where(_mask(scene), 200, 0).astype(np.uint8))
        blurred = cv2.GaussianBlur(_mask(scene).astype(np.float32), (0, 0), 1.5)
        probabilities.append(np.minimum(1.5 * blurred, 1))

    def all_of(step: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> int:
        for soft, probability in zip(softs, probabilities, strict=True):
            step(soft, probability)
        return len(softs)

    plain = _rate("plain", lambda: all_of(labels.evolve), rounds)
    return _merged(plain, _rate("ours", lambda: all_of(evolve), rounds))


def plain_evaluation(name: str, scenes: Sequence[Scene], rounds: int) -> Figures:
    """The published way: fp32, image by image."""
    torch.manual_seed(0)
    detector = DETECTORS[name]().eval()

    @torch.no_grad()
    def run() -> int:
        for scene in scenes:
            height, width = scene.image.shape
            padded = np.pad(scene.image, ((0, -height % 32), (0, -width % 32)))
            x = torch.from_numpy((np.repeat(padded[None, None], 3, axis=1) / 255 - MEAN) / STD).float()
            torch.sigmoid(detector.decode(detector.encode(x))[0])[0, 0, :height, :width].numpy()
        metrics([_predicted(scene) for scene in scenes], [_mask(scene) for scene in scenes])
        return len(scenes)

    return _rate("plain", run, rounds, by_clock=True)


def evaluation(name: str, scenes: Sequence[Scene], rounds: int) -> Figures:
    """As a run evaluates its student."""
    torch.manual_seed(0)
    detector = create_detector(name).eval().to(memory_format=torch.channels_last)
    images, device = [scene.image for scene in scenes], torch.device("cpu")

    def run() -> int:
        student_probabilities(detector, images, Normalisation(MEAN, STD), device, uses_bf16("bf16", device))
        score([_predicted(scene).astype(np.float32) for scene in scenes], [_mask(scene) for scene in scenes], Config())
        return len(scenes)

    pixels = sum(-(-image.shape[0] // 32) * -(-image.shape[1] // 32) * 32**2 for image in images) / len(images)
    bound = matrix_rate("cpu") / forward_work(name, pixels)
    return _rate("ours", run, rounds, by_clock=True) | {"bound": bound}


def _rate(name: str, work: Callable[[], int], rounds: int, *, by_clock: bool = False) -> Figures:
    """Items a second; one round more, before those that count, warms up."""
    work()
    processor, clock = [], []
    for _ in range(rounds):
        began = time.process_time(), time.perf_counter()
        count = work()
        processor.append(count / (time.process_time() - began[0]))
        clock.append(count / (time.perf_counter() - began[1]))
    return {name: max(clock) if by_clock else max(processor), f"{name}_clock": max(clock)}


def _merged(plain: Figures, ours: Figures) -> Figures:
    return {**plain, **ours, "ratio": ours["ours"] / plain["plain"]}


def _on_one_core(work: Callable[[], Figures]) -> Figures:
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            return work()
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _unheard(_text: str) -> None:
    """What a run would be told of its data is not what is measured."""


def _mask(scene: Scene) -> np.ndarray:
    if scene.mask is None:
        raise ValueError(f"{scene.name} has no mask")
    return scene.mask


def _predicted(scene: Scene) -> np.ndarray:
    return np.roll(_mask(scene), 1, axis=1)


if __name__ == "__main__":
    raise SystemExit(main())
