"""Does the fast path of `semprior` compute what the plain path does? Losses and gradients on equal features.

Networks of ReLUs and maxima amplify rounding: where a pre-activation lies at 0 to within rounding, two orders of the
same sum give different gradients, and one activation in a million moves the whole gradient by 1e-3. In fp32 the plain
path itself is that far from its own result in float64 (`noise`). So the mathematics is compared in float64, in the
fast memory layout, over three steps; and fp32 is compared in the plain layout, where most operations round alike, as
the median of three draws, so that one unlucky activation does not decide.
"""

import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.plain import bilevel as plain_bilevel
from benchmarks.plain.bilevel import PlainBatch
from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.scam import Modulator
from benchmarks.plain.scam import Teacher as PlainTeacher
from benchmarks.plain.transfer import copy_weights
from semprior import bilevel as fast_bilevel
from semprior.config import Config, resolve
from semprior.data.batches import Batch
from semprior.models.detector import create_detector
from semprior.models.scam import SCAM
from semprior.models.teacher import Teacher as FastTeacher

TOLERANCE = 1e-4  # of fp32; float64 is held to a hundredth of it
_CLUSTERS = 6
_Gradients = dict[str, Tensor]  # by group: detector and either modulator or alpha


@dataclass(frozen=True)
class Check:
    """Relative differences of fast from plain, |a - b| / |b|.

    Of losses, and of gradients as whole vectors: the largest over detector, modulator and alpha, inner and outer.

    Attributes:
        loss: in fp32; the median of the draws, like all that is in fp32.
        gradient: in fp32, plain layout.
        channels_last: in fp32, fast layout; not held to the tolerance.
        noise: of the plain path in fp32 from itself in float64; says nothing of ours.
        gradient64: in float64, fast layout, over three steps (losses are taken in float32 even then).
        running64: of BatchNorm's running statistics after those steps.
    """

    loss: float
    gradient: float
    channels_last: float
    noise: float
    gradient64: float
    running64: float

    @property
    def passed(self) -> bool:
        """Whether fast and plain agree."""
        return max(self.loss, self.gradient) <= TOLERANCE and max(self.gradient64, self.running64) <= TOLERANCE / 100


@dataclass(frozen=True)
class _Fast:
    """Ours as the preset `paper` sets it: no clipping, cross-entropy, no autocast."""

    model: FastTeacher
    alpha: nn.Parameter
    config: Config

    def to(self, dtype: torch.dtype, layout: torch.memory_format) -> "_Fast":
        model = copy.deepcopy(self.model).to(dtype).to(memory_format=layout)
        return replace(self, model=model, alpha=nn.Parameter(self.alpha.detach().to(dtype, copy=True)))

    def gradients(self, kind: str, data: PlainBatch) -> tuple[float, _Gradients]:
        objective = fast_bilevel.inner_objective if kind == "inner" else fast_bilevel.outer_objective
        loss = objective(self.model, self.alpha, _ours(data), self.config)
        return _grouped(kind, loss, self.model.detector, self.model.scam, self.alpha)


@dataclass(frozen=True)
class _Plain:
    model: PlainTeacher
    alpha: nn.Parameter

    def to(self, dtype: torch.dtype) -> "_Plain":
        model = copy.deepcopy(self.model).to(dtype)
        return _Plain(model, nn.Parameter(self.alpha.detach().to(dtype, copy=True)))

    def gradients(self, kind: str, data: PlainBatch) -> tuple[float, _Gradients]:
        objective = plain_bilevel.inner_objective if kind == "inner" else plain_bilevel.outer_objective
        loss = objective(self.model, self.alpha, data)
        return _grouped(kind, loss, self.model.detector, self.model.modulator, self.alpha)


def check_gradients(name: str, batch: int = 2, size: int = 64, seeds: Sequence[int] = (0, 1, 2)) -> Check:
    """Compare both paths of a detector on random images and maps, on the CPU.

    Args:
        name: `mlclnet` or `alclnet`.
        batch: images.
        size: their side, pixels, a multiple of 32.
        seeds: of weights, images and maps, one a draw.
    """
    draws = []
    for seed in seeds:
        fast, plain = _pair(name, seed)
        fast64, plain64 = fast.to(torch.float64, torch.channels_last), plain.to(torch.float64)
        draws.append(_one_step(fast, plain, _batch(batch, size)))
    loss, gradient, channels_last, noise = (statistics.median(column) for column in zip(*draws, strict=True))
    data = [_as(_batch(batch, size), torch.float64) for _ in range(2)]
    gradient64, running64 = _three_steps(fast64, plain64, data, DETECTORS[name].learning_rate)
    return Check(loss, gradient, channels_last, noise, gradient64, running64)


def _pair(name: str, seed: int) -> tuple[_Fast, _Plain]:
    """Both paths in fp32 and train mode, with equal weights."""
    torch.manual_seed(seed)
    network = DETECTORS[name]
    stages, scale = network.stages, network.scam_scale
    fast = FastTeacher(create_detector(name), SCAM((384,) * 13, stages, range(len(stages)), scale)).train()
    plain = PlainTeacher(network(), Modulator(stages, scale)).train()
    copy_weights(fast.detector, plain.detector)
    copy_weights(fast.scam, plain.modulator)
    alpha = torch.randn(_CLUSTERS)
    config = replace(resolve(preset="paper", environment={}).config, detector=name)
    return _Fast(fast, nn.Parameter(alpha), config), _Plain(plain, nn.Parameter(alpha.clone()))


def _one_step(fast: _Fast, plain: _Plain, data: PlainBatch) -> tuple[float, float, float, float]:
    """`loss`, `gradient`, `channels_last` and `noise` of one draw."""
    laid_out, exact = fast.to(torch.float32, torch.channels_last), plain.to(torch.float64)
    found: list[tuple[float, float, float, float]] = []
    for kind in ("inner", "outer"):
        loss, reference = plain.gradients(kind, data)
        mine, gradients = fast.gradients(kind, data)
        found.append(
            (
                abs(mine - loss) / abs(loss),
                _difference(gradients, reference),
                _difference(laid_out.gradients(kind, data)[1], reference),
                _difference(reference, exact.gradients(kind, _as(data, torch.float64))[1]),
            )
        )
    inner, outer = found
    return tuple(max(pair) for pair in zip(inner, outer, strict=True))  # type: ignore[return-value]


def _three_steps(fast: _Fast, plain: _Plain, data: Sequence[PlainBatch], rate: float) -> tuple[float, float]:
    """Two inner steps and an outer one on both; `gradient64` and `running64`."""
    fast_adam = torch.optim.AdamW(fast.model.parameters(), lr=rate, weight_decay=0.01)
    plain_adam = plain_bilevel.inner_optimizer(plain.model, rate)
    batches = [_ours(one) for one in data]
    worst = 0.0
    for one, batch in zip(data, batches, strict=True):
        worst = max(worst, _difference(fast.gradients("inner", one)[1], plain.gradients("inner", one)[1]))
        fast_bilevel.inner_step(fast.model, fast.alpha, batch, fast_adam, fast.config)
        plain_bilevel.inner_step(plain.model, plain.alpha, one, plain_adam)
    # Plain descent at rate 1, so that the move is the hypergradient.
    before = _phi(fast), _phi(plain)
    fast_sgd, plain_sgd = (torch.optim.SGD([*s.model.detector.parameters(), s.alpha], lr=1.0) for s in (fast, plain))
    fast_bilevel.outer_step(fast.model, fast.alpha, batches[0], batches[1], fast_sgd, rate, fast.config)
    plain_bilevel.outer_step(plain.model, plain.alpha, data[0], data[1], plain_sgd, rate)
    mine, theirs = (
        {group: after[group] - start[group] for group in start}
        for start, after in zip(before, (_phi(fast), _phi(plain)), strict=True)
    )
    running = _relative(_running(fast.model.detector), _running(plain.model.detector))
    return max(worst, _difference(mine, theirs)), running


def _batch(count: int, size: int) -> PlainBatch:
    return PlainBatch(
        images=torch.randn(count, 3, size, size),
        masks=(torch.rand(count, 1, size, size) < 0.01).float(),
        maps=[torch.randn(count, 384, size // 16, size // 16) for _ in range(13)],
        clusters=torch.randint(_CLUSTERS, (count,)),
    )


def _as(data: PlainBatch, dtype: torch.dtype) -> PlainBatch:
    maps = [values.to(dtype) for values in data.maps]
    return replace(data, images=data.images.to(dtype), masks=data.masks.to(dtype), maps=maps)


def _ours(data: PlainBatch) -> Batch:
    return Batch(data.images, data.masks, data.maps, data.clusters)


def _grouped(
    kind: str, loss: Tensor, detector: nn.Module, modulator: nn.Module, alpha: nn.Parameter
) -> tuple[float, _Gradients]:
    first = [*detector.parameters()]
    name, second = ("modulator", [*modulator.parameters()]) if kind == "inner" else ("alpha", [alpha])
    gradients = torch.autograd.grad(loss, [*first, *second])
    return loss.item(), {"detector": _flat(gradients[: len(first)]), name: _flat(gradients[len(first) :])}


def _phi(side: _Fast | _Plain) -> _Gradients:
    return {"detector": _flat([*side.model.detector.parameters()]), "alpha": _flat([side.alpha])}


def _running(detector: nn.Module) -> Tensor:
    return _flat([value for key, value in detector.state_dict().items() if "running" in key])


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors])


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _difference(a: _Gradients, b: _Gradients) -> float:
    return max(_relative(a[group], b[group]) for group in b)
