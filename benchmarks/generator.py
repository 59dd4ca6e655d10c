"""Train the generator of masks on made-up windows, and hold it against true masks of real training images.

    python -m benchmarks.generator --out FILE [--windows 96000] [--seed 0] [--data DIR ...]

`semprior/labels/generator.safetensors` is what this writes by default settings: no real image and no real mask is in
it. With `--data`, the seeds that it draws are held against the true masks of training and validation images now and
then; that decides nothing. A run that is stopped goes on from `FILE.state` as if it had not been; equal seeds on equal
machines give equal weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.data.layout import find_layout, intensity_range, read_scenes
from semprior.data.points import centroid_points
from semprior.data.synthetic.windows import draw_background, draw_window
from semprior.evaluation.metrics import count_image, summarise
from semprior.io.atomic_files import atomic_file, write_atomically
from semprior.labels.generator_network import SIDE, MaskGenerator, seen, window_channels
from semprior.labels.generator_seed import generator_regions
from semprior.labels.seeds import assembled

BATCH = 32
RATE = 4e-3
BACKGROUND_SIDE = 256
WINDOWS_OF_A_BACKGROUND = 40
OPEN_BACKGROUNDS = 64  # from which a batch draws, so that its windows differ
REPORT = 300  # steps


def windows(seed: int, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Channels (5,65,65) and masks (65,65) without end, those of the steps from one report to the next."""
    rng = np.random.default_rng([seed, step])
    backgrounds = [draw_background(rng, BACKGROUND_SIDE) for _ in range(OPEN_BACKGROUNDS)]
    count = 0
    while True:
        drawn = draw_window(rng, backgrounds[rng.integers(OPEN_BACKGROUNDS)], SIDE)
        yield window_channels(drawn.image), drawn.mask
        count += 1
        if count % WINDOWS_OF_A_BACKGROUND == 0:
            backgrounds[rng.integers(OPEN_BACKGROUNDS)] = draw_background(rng, BACKGROUND_SIDE)


def overlap_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The soft IoU of each window, and half the cross-entropy by the size of its target; (B,1,H,W) both."""
    likely = logits.sigmoid()
    both = (likely * masks).sum((1, 2, 3))
    either = (likely + masks - likely * masks).sum((1, 2, 3))
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").sum((1, 2, 3))
    return (1 - (both + 1) / (either + 1) + 0.5 * entropy / (masks.sum((1, 2, 3)) + 10)).mean()


def train(out: Path, total: int, seed: int, data: Sequence[Path]) -> None:
    """Train, and write the weights in float16."""
    torch.manual_seed(seed)
    network = MaskGenerator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=total)
    begin, saved = 0, out.with_name(out.name + ".state")
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        begin = state["step"]
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    losses: list[float] = []
    for step in range(begin, total):
        if step % REPORT == 0:  # where a state is saved, so that a run that was stopped draws the same
            stream = windows(seed, step)
        batch = [next(stream) for _ in range(BATCH)]
        channels = seen(np.stack([given for given, _ in batch]))
        masks = seen(np.stack([mask for _, mask in batch])[:, None].astype(np.float32))
        loss = overlap_loss(network(channels.contiguous(memory_format=torch.channels_last)), masks)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % REPORT == 0 or step + 1 == total:
            _write(network, out)
            state = {"step": step + 1, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
            with atomic_file(saved) as path:
                torch.save(state | {"schedule": schedule.state_dict()}, path)
            held = "  ".join(_against_masks(network, folder) for folder in data)
            print(
                f"step {step + 1}/{total}  loss {np.mean(losses):.4f}  {time.process_time():.0f} s  {held}", flush=True
            )
            losses = []


def _write(network: MaskGenerator, out: Path) -> None:
    weights = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    write_atomically(out, safetensors.torch.save(weights))


def _against_masks(network: MaskGenerator, folder: Path) -> str:
    layout = find_layout(folder)
    intensity = intensity_range(layout)
    network.eval()
    counts = []
    for scene in (s for split in ("train", "val") for s in read_scenes(layout, split, intensity, masks="required")):
        points = centroid_points(scene.mask)
        seed = assembled(scene.image, points, generator_regions(scene.image, points, network=network))
        counts.append(count_image(seed.mask, scene.mask))
    network.train()
    summary = summarise(counts)
    return f"{folder.name} {summary.iou:.3f} / {summary.niou:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generator", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the file of weights to write")
    parser.add_argument("--windows", type=int, default=96_000, help="to train on (default 96,000)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and windows (default 0)")
    parser.add_argument(
        "--data", type=Path, action="append", default=[], help="a data set with masks to hold it against"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    train(options.out, options.windows // BATCH, options.seed, options.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
