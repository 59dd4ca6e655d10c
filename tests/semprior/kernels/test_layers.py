"""The compiled layers compute what torch's own do: values, gradients, running statistics."""

import copy
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from semprior.kernels import build
from semprior.kernels.layers import gated_sum, join_relu, norm_pool_relu, norm_relu, scale_and_shift, sum_relu

pytestmark = pytest.mark.avx2
SHAPES = ((2, 16, 8, 12), (3, 32, 6, 4), (2, 64, 4, 10), (1, 128, 6, 6), (2, 256, 2, 4))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 2e-2}

needs_compiler = pytest.mark.skipif(build.library() is None, reason="there is no C++ compiler")


@pytest.fixture
def anew():
    """A function that loads the library once more, as the variables have it now; others find their own again."""
    yield lambda: build._load.cache_clear() or build._load()
    build._load.cache_clear()


def norm_of(channels, seed):
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(channels).train()
    with torch.no_grad():
        norm.weight.normal_()  # of both signs
        norm.bias.normal_()
    return norm


def maps(shape, count, dtype, offset=0.0):
    torch.manual_seed(1)
    layout = torch.channels_last
    return [(torch.randn(shape, dtype=torch.float64) + offset).to(dtype).to(memory_format=layout) for _ in range(count)]


def run(function, norms, tensors, wide):
    """Result, gradients of maps and norms, and running statistics; norms as wide as the maps or as float32."""
    norms = [copy.deepcopy(norm).to(wide) for norm in norms]
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    out = function(norms, leaves)
    torch.manual_seed(2)
    (out.to(wide) * torch.randn(out.shape, dtype=torch.float64).to(wide)).sum().backward()
    found = [out, *(leaf.grad for leaf in leaves)]
    for norm in norms:
        found += [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var, norm.num_batches_tracked]
    return [t.detach().double() for t in found]


LAYERS = {
    "relu": (1, 1, lambda n, t: norm_relu(n[0], t[0])),
    "residual": (1, 2, lambda n, t: norm_relu(n[0], t[0], residual=t[1])),
    "pool": (1, 1, lambda n, t: norm_pool_relu(n[0], t[0])),
    "sum of three": (3, 3, lambda n, t: sum_relu(n, t)),
    "sum of four": (4, 4, lambda n, t: sum_relu(n, t)),
    "join": (2, 2, lambda n, t: join_relu(n[0], t[0], n[1], t[1])),
    "gate": (2, 3, lambda n, t: gated_sum(t[0], n[0], t[1], n[1], t[2])),
}


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_compiled_layer_is_torchs(layer, shape, dtype):
    norms, count, function = LAYERS[layer]
    norms = [norm_of(shape[1], seed) for seed in range(norms)]
    tensors = maps(shape, count, dtype)
    mine = run(function, norms, tensors, dtype)
    with build.torch_layers():
        reference = run(function, norms, tensors, dtype)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)


@needs_compiler
@pytest.mark.parametrize("layer", LAYERS)
def test_in_16_bit_it_is_as_near_to_exact_as_torch(layer):
    norms, count, function = LAYERS[layer]
    norms = [norm_of(32, seed) for seed in range(norms)]
    tensors = maps((4, 32, 16, 16), count, torch.bfloat16)
    mine = run(function, norms, tensors, torch.float32)
    with build.torch_layers():
        torchs = run(function, norms, tensors, torch.float32)
        exact = run(function, norms, [t.double() for t in tensors], torch.float64)
    for a, b, c in zip(mine, torchs, exact, strict=True):
        assert (a - c).norm() <= 1.1 * (b - c).norm() + 1e-2 * c.norm()


@needs_compiler
def test_statistics_do_not_cancel_far_from_zero():
    (y,) = maps((2, 16, 32, 32), 1, torch.float32, offset=1000.0)
    mine = run(lambda n, t: norm_relu(n[0], t[0]), [norm_of(16, 0)], [y], torch.float32)
    with build.torch_layers():
        exact = run(lambda n, t: norm_relu(n[0], t[0]), [norm_of(16, 0)], [y.double()], torch.float64)
    torch.testing.assert_close(mine[0], exact[0], rtol=1e-3, atol=1e-3)


@needs_compiler
def test_of_equal_values_the_first_gets_the_gradient():
    norm = norm_of(32, 0)
    y = torch.randint(3, (2, 32, 8, 8)).float().to(memory_format=torch.channels_last)
    mine = run(lambda n, t: norm_pool_relu(n[0], t[0]), [norm], [y], torch.float32)
    with build.torch_layers():
        reference = run(lambda n, t: norm_pool_relu(n[0], t[0]), [norm], [y], torch.float32)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scale_and_shift(dtype):
    results = []
    for compiled in (True, False):
        (x,) = maps((3, 16, 8, 8), 1, dtype)
        torch.manual_seed(3)
        terms = [torch.randn(3, 16, dtype=dtype).requires_grad_() for _ in range(2)]
        x.requires_grad_()
        if compiled:
            out = scale_and_shift(x, *terms)
        else:
            with build.torch_layers():
                out = scale_and_shift(x, *terms)
        out.square().sum().backward()
        results.append([out.detach(), x.grad, *(term.grad for term in terms)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@needs_compiler
def test_the_number_of_threads_changes_nothing():
    before, results = torch.get_num_threads(), []
    (y,) = maps((4, 16, 64, 64), 1, torch.bfloat16)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(lambda n, t: norm_relu(n[0], t[0]), [norm_of(16, 0)], [y], torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_what_is_not_a_number_stays_visible():
    (y,) = maps((2, 16, 8, 8), 1, torch.bfloat16)
    y[0, 3, 2, 2] = float("nan")
    assert norm_relu(norm_of(16, 0), y)[:, 3].isnan().all()


@pytest.mark.parametrize("channels", [3, 48])
def test_other_shapes_and_evaluation_are_torchs(channels):
    (y,) = maps((2, channels, 6, 6), 1, torch.float32)
    norm = norm_of(channels, 0)
    for training in (True, False):
        norm.train(training)
        other = copy.deepcopy(norm)
        torch.testing.assert_close(norm_relu(norm, y), torch.relu(other(y)))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"CXX": "no-such-compiler"}, "CXX: no-such-compiler: no such command"),
        ({"CXX": "/bin/false"}, "/bin/false failed with code 1"),
        ({"CXX": "", "PATH": "/nowhere"}, "there is no C++ compiler"),
    ],
)
def test_without_a_compiler_it_says_so_once_and_goes_on(monkeypatch, caplog, tmp_path, anew, variables, told):
    for name, value in {"SEMPRIOR_CACHE": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        assert anew() is None
        (y,) = maps((2, 16, 8, 8), 1, torch.float32)
        norm = norm_of(16, 0)
        for _ in range(2):
            out = norm_relu(copy.deepcopy(norm), y)
    torch.testing.assert_close(out, torch.relu(norm(y)))
    assert [told in message for message in caplog.messages] == [True]


@pytest.mark.slow
def test_a_compiler_that_refuses_the_options_is_asked_with_fewer(monkeypatch, tmp_path, caplog, anew):
    """As Apple's does, which knows no -fopenmp, and others that do not know this processor."""
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path))
    picky = tmp_path / "picky"
    picky.write_text(
        '#!/bin/sh\nfor word; do case "$word" in -fopenmp|-m*) echo "error: $word?" >&2; exit 1;; esac; done\n'
        f'exec {" ".join(build._compiler())} "$@"\n',
        encoding="utf-8",
    )
    picky.chmod(0o755)
    monkeypatch.setenv("CXX", str(picky))
    assert anew() is not None
    assert ["on one thread" in message for message in caplog.messages] == [True]


@needs_compiler
@pytest.mark.parametrize("layer", LAYERS)
def test_compiled_for_any_processor_of_this_kind_it_is_torchs(monkeypatch, anew, layer):
    """Without instructions beyond the oldest, as for 64-bit Arm: what is written for one processor has a plain form."""
    monkeypatch.setattr(build, "_TUNED", {})
    assert anew() is not None
    norms, count, function = LAYERS[layer]
    norms = [norm_of(32, seed) for seed in range(norms)]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        wide = torch.promote_types(dtype, torch.float32)
        tensors = maps((2, 32, 6, 8), count, dtype)
        mine = run(function, norms, tensors, wide)
        with build.torch_layers():
            exact = run(function, norms, [t.double() for t in tensors], torch.float64)
        for a, b in zip(mine, exact, strict=True):
            assert (a - b).norm() <= 4 * TOLERANCE[dtype] * b.norm()


@needs_compiler
@pytest.mark.slow
def test_it_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path))
    compiler, options = build._compiler(), build._Options((), ("-fopenmp",))
    first = build._compiled_library(compiler, options)
    made = first.stat().st_mtime_ns
    assert build._compiled_library(compiler, options) == first and first.stat().st_mtime_ns == made
    assert {path.name for path in first.parent.iterdir()} == {first.name, ".lock"}


def test_processes_that_need_it_at_once_wait_for_the_first(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path / "cache"))
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit\necho "$*" >>"$0.calls"\n'
        'while [ "$1" != -o ]; do shift; done\n: >"$2"\n',
        encoding="utf-8",
    )
    compiler.chmod(0o755)
    with ThreadPoolExecutor() as threads:
        made = [threads.submit(build._compiled_library, [str(compiler)], build._Options()) for _ in range(3)]
    assert all(found.result() == made[0].result() and found.result().is_file() for found in made)
    assert len((tmp_path / "compiler.calls").read_text().splitlines()) == len(build._SOURCES) + 1  # with the linking
