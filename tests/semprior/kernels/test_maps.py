"""Concatenation and interpolation have torch's values and torch's gradients."""

import pytest
import torch
import torch.nn.functional as F

from semprior.kernels import build
from semprior.kernels.maps import concatenate, upsample

pytestmark = [
    pytest.mark.avx2,
    pytest.mark.skipif(build.library() is None, reason="there is no C++ compiler"),
]


def run(function, tensors):
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    out = function(leaves)
    torch.manual_seed(2)
    out.backward(torch.randn(out.shape, dtype=torch.float64).to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def draw(shape, dtype):
    return torch.randn(shape, dtype=torch.float64).to(dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("widths", [(16, 32), (16, 16, 48), (64,)])
def test_concatenation(widths, dtype):
    torch.manual_seed(0)
    parts = [draw((2, width, 8, 12), dtype) for width in widths]
    mine = run(concatenate, parts)
    for a, b in zip(mine, run(lambda leaves: torch.cat(leaves, dim=1), parts), strict=True):
        assert torch.equal(a, b)
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in mine[1:])


def test_concatenation_of_other_widths_and_dtypes_is_torchs():
    torch.manual_seed(0)
    for parts in (
        [draw((2, 3, 4, 4), torch.float32), draw((2, 16, 4, 4), torch.float32)],
        [draw((2, 16, 4, 4), torch.float32), draw((2, 16, 4, 4), torch.bfloat16)],
    ):
        for a, b in zip(run(concatenate, parts), run(lambda leaves: torch.cat(leaves, dim=1), parts), strict=True):
            assert torch.equal(a, b)


def test_a_part_without_gradient():
    fixed, moved = draw((2, 16, 4, 4), torch.float32), draw((2, 16, 4, 4), torch.float32).requires_grad_()
    concatenate([fixed, moved]).square().sum().backward()
    assert fixed.grad is None
    torch.testing.assert_close(moved.grad, 2 * moved.detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("small", "large"),
    [((4, 6), (8, 12)), ((5, 3), (20, 24)), ((1, 1), (7, 4)), ((1, 8), (4, 8)), ((16, 16), (16, 16)), ((8, 8), (4, 6))],
)
def test_interpolation(small, large, dtype):
    torch.manual_seed(0)
    x, like = draw((2, 32, *small), dtype), torch.empty(1, 1, *large)
    mine = run(lambda leaves: upsample(leaves[0], like), [x])
    reference = run(
        lambda leaves: F.interpolate(leaves[0], like.shape[-2:], mode="bilinear", align_corners=True),
        [x.double() if dtype == torch.bfloat16 else x],
    )
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2}[dtype]
    for a, b in zip(mine, reference, strict=True):
        assert (a.double() - b.double()).norm() <= tolerance * b.double().norm()
