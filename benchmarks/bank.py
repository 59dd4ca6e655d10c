"""How far the feature bank is from exact features, and how fast it delivers.

    python -m benchmarks.bank [--data DIR] [--vfm NAME] [--weights W] [--crop 256] [--rounds 2] [--seed 0] [--json]

Random crops of all training and validation images (uniform offsets; grey 0 at the right and bottom where an image is
smaller, as in training) are taken from the bank and, exactly, through the frozen model. Per map it prints the cosine
between the two, over the channels of a token and averaged over tokens:

    token     every token, padding included
    inside    tokens whose 16x16 pixels all lie in the image
    centred   every token, after the map's mean token is taken from both (raw maps share a large mean)
    pooled    the mean token of a crop, centred likewise: closest to what SCAM sees, which pools a crop to one vector

Speeds are per second of processor time on one thread, so that other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import describe_machine
from semprior.data.layout import find_layout, intensity_range, read_scenes
from semprior.errors import UserError
from semprior.foundation.feature_bank import FeatureBank
from semprior.foundation.vfm import STRIDE, VFM, load_vfm

COSINES = ("token", "inside", "centred", "pooled")
BATCH = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its figures; returns the exit code."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    try:
        layout = find_layout(options.data)
        intensity = intensity_range(layout)
        scenes = [scene for split in ("train", "val") for scene in read_scenes(layout, split, intensity)]
        vfm = load_vfm(options.vfm, options.weights)
        images = [scene.image for scene in scenes]
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            bank = FeatureBank.build(Path(folder), vfm, images, options.gb)
            build = time.process_time() - began
            began = time.process_time()
            again = FeatureBank.build(Path(folder), vfm, images, options.gb)
            figures = {
                "vfm": vfm.name,
                "weights": vfm.source,
                "crop": options.crop,
                "images": len(images),
                "bank": bank.describe(),
                "build_images_per_s": len(images) / build,
                "reopen_s": time.process_time() - began,
                "reopen_forwards": again.forwards,
                "crops_per_s": crops_per_second(bank, images, options.crop, options.seed),
                "largest_value": largest_value(bank, images),
                "cosine": cosines(vfm, bank, images, options.crop, options.rounds, options.seed),
                "machine": describe_machine(),
            }
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    _print(figures, as_json=options.json)
    return 0


def cosines(
    vfm: VFM, bank: FeatureBank, images: Sequence[np.ndarray], size: int, rounds: int, seed: int
) -> dict[str, list[float]]:
    """Mean cosine per map of bank crops to exact crops, by the kinds described above."""
    batches = list(random_crops(images, size, rounds, seed))
    count = sum(len(indices) for indices, _, _ in batches)
    means = [torch.zeros(channels) for channels in vfm.map_channels]
    for batch in batches:
        for mean, maps in zip(means, bank.crop(*batch, size, torch.float32), strict=True):
            mean += maps.sum((0, 2, 3)) / (count * (size // STRIDE) ** 2)
    sums = torch.zeros(len(COSINES), len(means), dtype=torch.float64)
    weights = torch.zeros(len(COSINES), dtype=torch.float64)
    for indices, rows, cols in batches:
        crops = np.zeros((len(indices), 1, size, size), np.uint8)
        inside = torch.zeros(len(indices), size // STRIDE, size // STRIDE, dtype=torch.bool)
        for place, (i, row, col) in enumerate(zip(indices, rows, cols, strict=True)):
            part = images[i][row : row + size, col : col + size]
            crops[place, 0, : part.shape[0], : part.shape[1]] = part
            inside[place, : part.shape[0] // STRIDE, : part.shape[1] // STRIDE] = True
        exact = vfm(torch.from_numpy(crops).float() / 255)
        weights += torch.tensor([inside.numel(), int(inside.sum()), inside.numel(), len(indices)])
        for k, (ours, true) in enumerate(zip(bank.crop(indices, rows, cols, size, torch.float32), exact, strict=True)):
            mean = means[k].view(1, -1, 1, 1)
            raw = F.cosine_similarity(ours, true, dim=1)
            pooled = F.cosine_similarity((ours - mean).mean((2, 3)), (true - mean).mean((2, 3)), dim=1)
            centred = F.cosine_similarity(ours - mean, true - mean, dim=1)
            sums[:, k] += torch.stack([raw.sum(), raw[inside].sum(), centred.sum(), pooled.sum()])
    return dict(zip(COSINES, (sums / weights[:, None]).tolist(), strict=True))


def random_crops(
    images: Sequence[np.ndarray], size: int, rounds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of (indices, rows, columns): every image `rounds` times at uniform offsets, 0 where it is smaller."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        order = rng.permutation(len(images))
        for begin in range(0, len(order), BATCH):
            indices = order[begin : begin + BATCH]
            ends = np.array([[max(side - size, 0) for side in images[i].shape] for i in indices])
            rows, cols = rng.integers(0, ends + 1).T
            yield indices, rows, cols


def crops_per_second(
    bank: FeatureBank, images: Sequence[np.ndarray], size: int, seed: int, seconds: float = 2
) -> float:
    """Crops that the bank delivers in batches of 16, as the step takes them, per second of processor time."""
    batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = list(random_crops(images, size, 1, seed))
    bank.crop(*batches[0], size)
    done, began = 0, time.process_time()
    while (spent := time.process_time() - began) < seconds:
        for batch in batches:
            done += len(bank.crop(*batch, size)[0])
    return done / spent


def largest_value(bank: FeatureBank, images: Sequence[np.ndarray]) -> float:
    """Largest magnitude in the bank; float16 reaches to 65,504."""

    def peak(index: int, image: np.ndarray) -> Tensor:
        size = tuple(-(-side // 32) * 32 for side in image.shape)
        return torch.stack([maps.abs().max() for maps in bank.crop([index], [0], [0], size)]).max()

    return float(torch.stack([peak(i, image) for i, image in enumerate(images)]).max())


def _print(figures: dict, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures))
        return
    console = Console(soft_wrap=True)
    table = Table("cosine", *(f"map {k}" for k in range(len(figures["cosine"]["token"]))))
    for kind in COSINES:
        table.add_row(kind, *(f"{value:.4f}" for value in figures["cosine"][kind]))
    console.print(table)
    for key, value in figures.items():
        if key != "cosine":
            console.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}", highlight=False)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sirst-v1"), help="a data set")
    parser.add_argument("--vfm", default="tf_efficientnet_lite2", help="timm model (default: %(default)s)")
    parser.add_argument("--weights", default="offline", help="as the setting vfm.weights (default: %(default)s)")
    parser.add_argument("--gb", type=float, default=8.0, help="as the setting vfm.bank_gb (default: %(default)s)")
    parser.add_argument(
        "--crop", type=int, default=256, help="side of the crops, a multiple of 16 (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="crops per image (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
