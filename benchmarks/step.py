"""Seconds of an inner and of an outer step: the published method to the letter against ours, in one run.

    python -m benchmarks.step [--detectors NAME ...] [--json] [--repeats N] [--device cpu|cuda] [--precision bf16|fp32]

The plain path is `benchmarks.plain`: fp32, NCHW, ViT-S+/16 with random weights run on every crop, two full forwards.
Ours is the preset `standard` on the same crops of 256 in batches of 16: bf16 (fp32 where the device has none),
channels-last, one pass of the encoder, the same ViT's features from a warm bank, statistics of the teacher's own, half
of an inner batch bare, and the average of the weights moved after every step. Both include cropping and augmentation;
both take every core they are given. First the gradients of both are compared on equal features; the exit code is 1
where they differ. Beside the seconds stands the floor (`benchmarks.floor`): operations over the measured matrix rate,
bytes over the measured bandwidth.

On an accelerator ours is timed eager, compiled (`torch.compile` of encoder and decoder) and as recorded CUDA graphs; on
a CPU eager alone, unless `--variants` says otherwise.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.apart import apart
from benchmarks.floor import Floor, floor
from benchmarks.machine import load
from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.vfm import PUBLISHED_VFM
from benchmarks.step_check import Check, check_gradients
from benchmarks.step_paths import Setting, Timing, time_ours, time_plain
from semprior.kernels.build import library
from semprior.runtime.device import used_precision

Result = dict[str, float | list[float] | str | None]
VARIANTS = ("eager", "compiled", "graph")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 1 where gradients differ."""
    options = _parse(arguments)
    busy, results, passed = load(), {}, True
    for name in options.detectors:
        check = check_gradients(name)
        passed = passed and check.passed
        if not options.json:
            print(_describe_check(name, check), flush=True)
        if not check.passed:
            print(f"{name}: losses or gradients differ by more than rounding explains", file=sys.stderr)
    if not passed:
        return 1
    with tempfile.TemporaryDirectory(prefix="semprior-step-") as cache:
        for name in options.detectors:
            setting = Setting(
                detector=name,
                device=options.device,
                batch=options.batch,
                size=options.size,
                repeats=options.repeats,
                outer=options.outer,
                cache=cache,
                vfm=options.vfm,
                precision=options.precision,
            )
            plain = apart(time_plain, setting)
            bound = floor(name, options.batch, options.size, options.device, options.precision)
            for variant in options.variants or (VARIANTS if options.device == "cuda" else VARIANTS[:1]):
                ours = apart(time_ours, replace(setting, variant=variant))
                label = name if variant == "eager" else f"{name} {variant}"
                results[label] = _result(plain, ours, bound)
                if not options.json:
                    print(_describe(label, plain, ours, bound), flush=True)
    compiled = library() is not None
    if options.json:
        facts = {"machine": ours.machine, "precision": options.precision, "compiled_layers": compiled}
        print(json.dumps(results | facts | {"load_before": busy}))
    else:
        print(
            f"{ours.machine}; ours in {options.precision}, {'with' if compiled else 'without'} compiled layers; load"
            f" before: {'unknown' if busy is None else f'{busy:.1f}'}"
        )
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each kind; their median counts")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=256, help="side of the crops, a multiple of 32")
    parser.add_argument("--vfm", default=PUBLISHED_VFM, help="a timm ViT with patches of 16")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="of ours; graph needs an accelerator")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="of ours; default: bf16 where the device has it")
    parser.add_argument("--no-outer", dest="outer", action="store_false", help="time inner steps only")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and "graph" in (options.variants or ()):
        parser.error("--variants graph needs --device cuda")
    if options.precision is None:
        options.precision = used_precision("bf16", torch.device(options.device))
    return options


def _result(plain: Timing, ours: Timing, bound: Floor) -> Result:
    result: Result = {
        "plain_s": plain.inner_s,
        "ours_s": ours.inner_s,
        "ratio": plain.inner_s / ours.inner_s,
        "outer_plain_s": plain.outer_s,
        "outer_ours_s": ours.outer_s,
        "outer_ratio": plain.outer_s / ours.outer_s if plain.outer_s and ours.outer_s else None,
        "cpu_ratio": plain.inner_cpu_s / ours.inner_cpu_s,
        "outer_cpu_ratio": (plain.outer_cpu_s / ours.outer_cpu_s if plain.outer_cpu_s and ours.outer_cpu_s else None),
        "ours_first_s": ours.start_s,
        "kernel_share": ours.kernel_share,
        "ours_range_s": list(ours.range_s),
        "plain_range_s": list(plain.range_s),
        "floor_s": bound.seconds,
        "outer_floor_s": 2 * bound.seconds,
        "floor_operations_s": bound.operations_s,
        "floor_bytes_s": bound.bytes_s,
        "matrix_tflops": bound.matrix_rate / 1e12,
        "bandwidth_gb_s": bound.bandwidth / 1e9,
    }
    for prefix, timing in (("plain", plain), ("ours", ours)):
        result |= {
            f"{prefix}_batch_s": timing.batch_s,
            f"{prefix}_vfm_s": timing.vfm_s,
            f"{prefix}_cpu_s": timing.inner_cpu_s,
            f"{prefix}_outer_cpu_s": timing.outer_cpu_s,
            f"{prefix}_peak_gb": timing.peak_gb,
        }
    return result


def _describe_check(name: str, check: Check) -> str:
    return (
        f"{name}: max relative difference of gradients {check.gradient:.1e} in fp32, {check.gradient64:.1e} in float64"
        f" over three steps; of losses {check.loss:.1e} (fp32 channels-last {check.channels_last:.1e}, where plain"
        f" fp32 is {check.noise:.1e} from plain float64)"
    )


def _describe(name: str, plain: Timing, ours: Timing, bound: Floor) -> str:
    lines = [_line(f"{name}: inner step", plain.inner_s, ours.inner_s, bound.seconds)]
    if plain.outer_s and ours.outer_s:
        lines.append(_line(f"{name}: outer step", plain.outer_s, ours.outer_s, 2 * bound.seconds))
    of_outer = ""
    if plain.outer_cpu_s is not None and ours.outer_cpu_s is not None:
        of_outer = f", of an outer step {plain.outer_cpu_s:.1f} s and {ours.outer_cpu_s:.1f} s"
    lines.append(
        f"{name}: inner steps from {_range(plain)} and {_range(ours)}; batches {_short(plain.batch_s)} and"
        f" {_short(ours.batch_s)}, the VFM {_short(plain.vfm_s)} and {_short(ours.vfm_s)}; processor time"
        f" {plain.inner_cpu_s:.1f} s and {ours.inner_cpu_s:.1f} s"
        f"{of_outer}; peak memory {plain.peak_gb or math.nan:.1f} GB and"
        f" {ours.peak_gb or math.nan:.1f} GB; ours' first step {_short(ours.start_s)}"
    )
    lines.append(
        f"{name}: floor of an inner step {_short(bound.operations_s)} of operations ({bound.operations / 1e9:.0f} GFLOP"
        f" at {bound.matrix_rate / 1e9:.0f} GFLOP/s), {_short(bound.bytes_s)} of bytes ({bound.bytes / 1e9:.1f} GB"
        f" at {bound.bandwidth / 1e9:.0f} GB/s)"
        f"{'' if ours.kernel_share is None else f'; kernels {ours.kernel_share:.0%} of ours'}"
    )
    return "\n".join(lines)


def _line(what: str, plain: float, ours: float, bound: float) -> str:
    return (
        f"{what}  plain {_short(plain)}  ours {_short(ours)}  ratio {plain / ours:.1f}  floor {_short(bound)}"
        f"  gap {_short(ours - bound)}"
    )


def _range(timing: Timing) -> str:
    least, most = timing.range_s
    return f"{_short(least)} to {_short(most)}"


def _short(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
