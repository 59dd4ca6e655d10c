"""Does the fast path of `semprior` compute what the plain path does? Losses and gradients over three steps.

Networks of ReLUs and maxima amplify rounding: where a pre-activation lies at 0 to within rounding, two orders of the
same sum give different gradients, and one activation in a million moves the whole gradient by 1e-3. In fp32 the plain
path itself is that far from its own result in float64 (`noise`), and AdamW, whose first step goes by the signs of a
gradient, makes 1e-2 of it two steps later. So the plain path takes two inner steps and an outer one, and ours is asked
for its own from the weights that plain has come to:

- in fp32 and the plain layout, where most operations round alike, losses are held to `TOLERANCE`, and gradients to it
  or, where that is more, to the plain path's own rounding: sums of the deep networks are taken in another order;
- in fp32 and the fast layout, with the compiled layers, losses are held to it. Winograd's convolutions round by 1e-6
  where direct ones round by 2e-7, so that five times as many activations tip (`COARSER`), and some do in nearly every
  draw: gradients may be that many times as far from float64 as the plain path's own, or as far as a few activations
  move them (`TIPPED`);
- in float64 and the fast layout all is held to it, running statistics and the move of an outer step, too.

There are three draws, and of gradients in fp32 the best one counts, against the plain path's worst: what is wrong shows
in every draw, an unlucky activation in some. Of all else the worst counts.
"""

import copy
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.plain import bilevel as plain_bilevel
from benchmarks.plain.bilevel import PlainBatch
from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.scam import Modulator
from benchmarks.plain.scam import Teacher as PlainTeacher
from benchmarks.plain.transfer import copy_weights
from semprior.config.schema import Config, resolve
from semprior.data.batches import Batch
from semprior.models.detector import create_detector
from semprior.models.dropout import ChannelDropout
from semprior.models.scam import SCAM
from semprior.models.teacher import Teacher as FastTeacher
from semprior.training import bilevel as fast_bilevel

TOLERANCE = 1e-5  # relative
TIPPED = 4e-3  # relative; draws of MLCLNet and ALCLNet gave 3e-4 to 9e-3, the best of three at most 2.4e-3 (AVX2)
COARSER = 5  # times the rounding of a direct convolution
_CLUSTERS = 6
_Gradients = dict[str, Tensor]  # by group: detector and either modulator or alpha


@dataclass(frozen=True)
class Check:
    """Relative differences of fast from plain, |a - b| / |b|, the largest over the three steps.

    Of losses, and of gradients as whole vectors: the largest over detector, modulator and alpha.

    Attributes:
        loss: in fp32, both layouts.
        gradient: in fp32, plain layout; of the best draw.
        channels_last: in fp32, fast layout, from the plain path in float64; of the best draw.
        noise: of the plain path in fp32 from itself in float64; says nothing of ours.
        gradient64: in float64, fast layout, the hypergradient included (losses are taken in float32 even then).
        running64: of BatchNorm's running statistics, likewise.
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
        equal = max(self.loss, self.gradient64, self.running64) <= TOLERANCE
        rounded = self.gradient <= max(self.noise, TOLERANCE)
        return equal and rounded and self.channels_last <= max(COARSER * self.noise, TIPPED)


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
        name: of a detector.
        batch: images.
        size: their side, pixels, a multiple of 32.
        seeds: of weights, images and maps, one a draw.
    """
    draws = [_draw(name, seed, batch, size) for seed in seeds]
    worst, best = (Check(*map(of, zip(*map(astuple, draws), strict=True))) for of in (max, min))
    return replace(worst, gradient=best.gradient, channels_last=best.channels_last)


def _pair(name: str, seed: int) -> tuple[_Fast, _Plain]:
    """Both paths in fp32 and train mode, with equal weights."""
    torch.manual_seed(seed)
    network = DETECTORS[name]
    stages, scale = network.stages, network.scam_scale
    config = replace(resolve(preset="paper", environment={}).config, detector=name)
    scam = SCAM((384,) * 13, stages, range(len(stages)), scale)
    fast = FastTeacher(create_detector(name), scam, teacher_first=config.follows_paper).train()
    plain = PlainTeacher(network(), Modulator(stages, scale)).train()
    for part in (*fast.modules(), *plain.modules()):
        if isinstance(part, ChannelDropout | nn.Dropout2d):
            part.p = 0.0  # both would draw other random numbers
    copy_weights(fast.detector, plain.detector)
    copy_weights(fast.scam, plain.modulator)
    alpha = torch.randn(_CLUSTERS)
    return _Fast(fast, nn.Parameter(alpha), config), _Plain(plain, nn.Parameter(alpha.clone()))


def _draw(name: str, seed: int, batch: int, size: int) -> Check:
    """One draw of weights, images and maps; plain steps in fp32, and after each step the others take its weights."""
    fast, plain = _pair(name, seed)
    laid_out = fast.to(torch.float32, torch.channels_last)
    fast64, plain64 = fast.to(torch.float64, torch.channels_last), plain.to(torch.float64)
    data, rate = [_batch(batch, size) for _ in range(2)], DETECTORS[name].learning_rate
    data64 = [_as(one, torch.float64) for one in data]
    adam = plain_bilevel.inner_optimizer(plain.model, rate)
    found: list[Check] = []
    for kind, place in (("inner", 0), ("inner", 1), ("outer", 0)):
        one, one64 = data[place], data64[place]
        loss, reference = plain.gradients(kind, one)
        mine, gradients = fast.gradients(kind, one)
        other, fast_layout = laid_out.gradients(kind, one)
        truth = plain64.gradients(kind, one64)[1]
        found.append(
            Check(
                loss=max(abs(mine - loss), abs(other - loss)) / abs(loss),
                gradient=_difference(gradients, reference),
                channels_last=_difference(fast_layout, truth),
                noise=_difference(reference, truth),
                gradient64=_difference(fast64.gradients(kind, one64)[1], truth),
                running64=_relative(_running(fast64.model.detector), _running(plain64.model.detector)),
            )
        )
        if kind == "inner":
            plain_bilevel.inner_step(plain.model, plain.alpha, one, adam)
            plain64.model.load_state_dict(plain.model.state_dict())
            for follower in (fast, laid_out, fast64):
                copy_weights(plain.model.detector, follower.model.detector)
                copy_weights(plain.model.modulator, follower.model.scam)
    worst = Check(*map(max, zip(*map(astuple, found), strict=True)))
    moved = _difference(*_hypergradients(fast64, plain64, data64, rate))
    running = _relative(_running(fast64.model.detector), _running(plain64.model.detector))
    return replace(worst, gradient64=max(worst.gradient64, moved), running64=max(worst.running64, running))


def _hypergradients(
    fast: _Fast, plain: _Plain, data: Sequence[PlainBatch], rate: float
) -> tuple[_Gradients, _Gradients]:
    """How an outer step moves both under plain descent at rate 1: by the hypergradient."""
    before = _phi(fast), _phi(plain)
    fast_sgd, plain_sgd = (torch.optim.SGD([*s.model.detector.parameters(), s.alpha], lr=1.0) for s in (fast, plain))
    fast_bilevel.outer_step(fast.model, fast.alpha, _ours(data[0]), _ours(data[1]), fast_sgd, rate, fast.config)
    plain_bilevel.outer_step(plain.model, plain.alpha, data[0], data[1], plain_sgd, rate)
    mine, theirs = (
        {group: after[group] - start[group] for group in start}
        for start, after in zip(before, (_phi(fast), _phi(plain)), strict=True)
    )
    return mine, theirs


def _batch(count: int, size: int) -> PlainBatch:
    return PlainBatch(
        images=torch.randn(count, 3, size, size),
        masks=(torch.rand(count, 1, size, size) < 0.01).float(),
        maps=[torch.randn(count, 384, size // 16, size // 16) for _ in range(13)],
        clusters=torch.randperm(_CLUSTERS)[
            torch.arange(count) % _CLUSTERS
        ],  # of one cluster alone, alpha has no gradient
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
