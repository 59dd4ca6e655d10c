"""The mixture of a ViT's maps, read in 16 bit from where they lie."""

import pytest
import torch

from semprior.kernels import build
from semprior.kernels.mixture import _side_by_side, mix

pytestmark = pytest.mark.avx2


def stored_maps(count=5, channels=32, dtype=torch.float16):
    torch.manual_seed(0)
    tokens = torch.randn(3, 4, 6, count * channels + channels).to(dtype)  # with a neighbour that is not ours
    return [part.permute(0, 3, 1, 2) for part in tokens.split(channels, dim=3)][:count]


def run(maps):
    shares = torch.softmax(torch.arange(len(maps), dtype=torch.float32), 0).requires_grad_()
    out = mix(maps, shares)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return out.detach(), shares.grad


@pytest.mark.skipif(build.library() is None, reason="there is no C++ compiler")
def test_it_is_the_sum_of_the_widened_maps():
    maps = stored_maps()
    assert _side_by_side(maps)
    mine = run(maps)
    with build.torch_layers():
        reference = run([values.float() for values in maps])
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_maps_that_lie_elsewhere_are_mixed_too():
    maps = [values.contiguous() for values in stored_maps()]
    assert not _side_by_side(maps)
    torch.testing.assert_close(run(maps), run([values.float() for values in maps]))
