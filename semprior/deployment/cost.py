"""What a deployed detector costs: parameters, floating-point operations, latency, memory, size of its file.

**Parameters** are those of the deployed form. **FLOP** are two for each product and sum of convolutions, linear layers
and matrix products; norms, activations and interpolation are not counted, as is usual. **Latency** is measured one
image at a time. **Memory** is the peak of a process while it loads and runs the network, less what it held before.

Each form is measured in a process of its own: only there the peak is that of this form alone.
"""

from __future__ import annotations

import copy
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from semprior.config.schema import Config, unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.deployment.load_model import CheckpointInfo, Student, load_student
from semprior.deployment.onnx_export import INPUT, example_image, exported, require_onnx, source_values
from semprior.deployment.onnx_int8 import quantise
from semprior.errors import UserError
from semprior.models.detector import Detector, create_detector, detector_names
from semprior.runtime.device import is_memory_full, uses_bf16

_WARM_UP = 2  # runs that do not count
_RUNS = 10, 100  # at least and at most; in between, as many as _SECONDS allow
_SECONDS = 5.0
_CALIBRATION = 4, 128  # made-up images, and their side: they decide what int8 computes, not what it costs
_GREY_LEVELS = Normalisation(0.3, 0.15)  # of an untrained detector, of no consequence for its cost
_OUTPUT_BIAS = -2.0  # as a trained one, it finds no target at most pixels


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image.

    Attributes:
        fastest: of all runs.
        median: of all runs.
        p95: 95th percentile.
    """

    fastest: float
    median: float
    p95: float


@dataclass(frozen=True)
class FormCost:
    """What one form of a detector costs.

    Attributes:
        runtime: what runs it.
        numbers: what its convolutions compute in.
        median_ms: median latency, in milliseconds.
        p95_ms: 95th percentile.
        memory_mb: peak memory, in 10^6 bytes; None where the system does not say.
        file_mb: size of its file, in 10^6 bytes.
    """

    runtime: str
    numbers: str
    median_ms: float
    p95_ms: float
    memory_mb: float | None
    file_mb: float


@dataclass(frozen=True)
class DetectorCost:
    """What a detector costs.

    Attributes:
        detector: its name.
        size: height and width of the images, in pixels.
        threads: number of CPU threads.
        parameters: of the deployed form.
        gflop: 10^9 floating-point operations for one image.
        forms: the forms in which it can be deployed.
    """

    detector: str
    size: int
    threads: int
    parameters: int
    gflop: float
    forms: tuple[FormCost, ...]


def detector_cost(target: str, size: int, threads: int) -> DetectorCost:
    """Measure a detector in PyTorch and in onnxruntime, in float32 and in int8.

    In PyTorch it is measured in bfloat16 as well, if it would run in it here.

    Args:
        target: name of a detector, which is measured untrained; or the folder of a run or checkpoint.
        size: height and width of the images, in pixels.
        threads: number of CPU threads.

    Raises:
        UserError: there is no such detector, run or checkpoint, the extra `export` is not installed, or the memory is
            too small for images of this size.
    """
    require_onnx("cost")
    import onnx

    student = load_target(target)
    with tempfile.TemporaryDirectory(prefix="semprior-cost-") as scratch:
        plain, int8, weights = (Path(scratch) / name for name in ("plain.onnx", "int8.onnx", "weights.safetensors"))
        detector = copy.deepcopy(student.detector)
        _save(detector, weights)
        _, model = exported(student)
        onnx.save(model, plain)
        rng, (count, side) = np.random.default_rng(0), _CALIBRATION
        grey = (example_image(rng, (side, side), student.info.normalisation) for _ in range(count))
        images = [image.astype(np.uint8) for image in grey]
        onnx.save(quantise(model, images, student.info.intensity), int8)
        precisions = ("fp32", "bf16") if uses_bf16(student.info.config.precision, student.device) else ("fp32",)
        forms = (
            *(_measured("PyTorch", name, weights, _TORCH[name], target, size, threads) for name in precisions),
            _measured("ONNX Runtime", "fp32", plain, _onnx_cost, str(plain), size, threads),
            _measured("ONNX Runtime", "int8", int8, _onnx_cost, str(int8), size, threads),
        )
    name = student.info.config.detector
    return DetectorCost(name, size, threads, parameters(detector), gflop(detector, size), forms)


def load_target(target: str) -> Student:
    """The untrained student of a detector, if `target` is the name of one; else that of a run or checkpoint.

    Raises:
        UserError: it is neither.
    """
    cpu = torch.device("cpu")
    if target in detector_names():
        config = unflatten({"detector": target})
        info = CheckpointInfo(Path(target), config, 0, _GREY_LEVELS, IntensityRange(), None)
        return Student(untrained(config), info, cpu)
    if not target or not Path(target).exists() or Path(target).is_file():
        known = f"{target or repr(target)}: is neither a detector ({', '.join(detector_names())})"
        raise UserError(f"{known} nor the folder of a run or checkpoint")
    return load_student(Path(target), cpu)


def untrained(config: Config) -> Detector:
    """The deployed form of a config's detector with fresh weights; the global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = create_detector(config.detector, output_bias=_OUTPUT_BIAS)
    detector = trained.eval().deployed().eval().requires_grad_(False)
    return detector.to(memory_format=torch.channels_last) if config.channels_last else detector


def parameters(detector: Detector) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in detector.parameters())


def gflop(detector: Detector, size: int) -> float:
    """10^9 floating-point operations for an image (1,3,size,size), as the module counts them.

    Nothing is computed: the detector runs on tensors without content, where no compiled layer replaces PyTorch's own,
    which are the ones that can be counted.
    """
    hollow = copy.deepcopy(detector).to("meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        hollow(torch.zeros(1, 3, padded(size), padded(size), device="meta"))
    return counter.get_total_flops() / 1e9


def padded(size: int) -> int:
    """The next multiple of 32, to which inference pads a side."""
    return -(-size // 32) * 32


def measure_latency(run: Callable[[], object]) -> Latency:
    """Run something again and again, 100 times or for some seconds, and state how long it takes."""
    for _ in range(_WARM_UP):
        run()
    least, most = _RUNS
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - began < _SECONDS):
        before = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - before))
    return Latency(min(times), float(np.median(times)), float(np.percentile(times, 95)))


def torch_latency(detector: Detector, size: int, bf16: bool, threads: int) -> Latency:
    """The latency of a detector on an image (1,3,size,size) in PyTorch, on the CPU with some threads."""
    image = torch.randn(1, 3, padded(size), padded(size), generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[size, size]])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return measure_latency(lambda: torch.sigmoid(detector(image, sizes).float()))
    finally:
        torch.set_num_threads(before)


def _save(detector: Detector, path: Path) -> None:
    import safetensors.torch

    path.write_bytes(safetensors.torch.save({k: t.contiguous() for k, t in detector.state_dict().items()}))


_Measured = tuple[Latency, int | None]


def _measured(
    runtime: str,
    numbers: str,
    file: Path,
    measure: Callable[[str, int, int], _Measured],
    target: str,
    size: int,
    threads: int,
) -> FormCost:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        try:
            latency, memory = alone.submit(measure, target, size, threads).result()
        except BrokenProcessPool as error:
            fault = f"{runtime} in {numbers} was killed, as happens where the memory is full"
            raise UserError(f"--size {size}: {fault}; choose a smaller one") from error
        except Exception as error:
            if not is_memory_full(error):
                raise
            fault = f"the memory is full where {runtime} computes in {numbers}"
            raise UserError(f"--size {size}: {fault}; choose a smaller one") from error
    held = None if memory is None else memory / 1e6
    return FormCost(runtime, numbers, latency.median, latency.p95, held, file.stat().st_size / 1e6)


def _fp32_cost(target: str, size: int, threads: int) -> _Measured:
    before = _memory("VmRSS")
    return torch_latency(load_target(target).detector, size, False, threads), _since(before)


def _bf16_cost(target: str, size: int, threads: int) -> _Measured:
    before = _memory("VmRSS")
    return torch_latency(load_target(target).detector, size, True, threads), _since(before)


_TORCH = {"fp32": _fp32_cost, "bf16": _bf16_cost}


def _onnx_cost(file: str, size: int, threads: int) -> _Measured:
    import onnxruntime

    before = _memory("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    grey = example_image(np.random.default_rng(0), (size, size), _GREY_LEVELS)
    image = source_values(grey, IntensityRange())[None, None]
    return measure_latency(lambda: session.run(None, {INPUT: image})), _since(before)


def _since(before: int | None) -> int | None:
    peak = _memory("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def _memory(name: str) -> int | None:
    """Bytes that this process holds (``VmRSS``), or held at most (``VmHWM``); None where /proc does not say."""
    status = Path("/proc/self/status")
    text = status.read_text(encoding="utf-8") if status.exists() else ""
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
