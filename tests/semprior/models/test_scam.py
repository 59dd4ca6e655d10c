"""SCAM against its formula, its published counts and the freedom to place it."""

import numpy as np
import pytest
import torch

from semprior.errors import UserError
from semprior.models.scam import SCAM
from semprior.models.stages import placed_stages

MLCLNET, ALCLNET = (16, 32, 64), (16, 32, 64, 128, 256)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _features(stages, batch=2, size=32, dtype=torch.float64):
    return [torch.randn(batch, c, size >> level, size >> level, dtype=dtype) for level, c in enumerate(stages)]


def _randomised(*args, **kwargs):
    scam = SCAM(*args, **kwargs).double()
    with torch.no_grad():
        for parameter in scam.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return scam


def _plain(scam, features, maps):
    """The method's section 3, one image and one number at a time."""
    weights = {name: value.detach().numpy() for name, value in scam.named_parameters()}
    shares = np.exp(weights["mixture"]) / np.exp(weights["mixture"]).sum()
    result = [feature.numpy().copy() for feature in features]
    for i in range(features[0].shape[0]):
        raw = [values[i].numpy() for values in maps]
        if "project.0.weight" in weights:
            for k, values in enumerate(raw):
                kernel, bias = weights[f"project.{k}.weight"][:, :, 0, 0], weights[f"project.{k}.bias"]
                raw[k] = np.einsum("oc,chw->ohw", kernel, values) + bias[:, None, None]
        fused = sum(share * values for share, values in zip(shares, raw, strict=True))
        tokens = [fused[:, r, c] for r in range(fused.shape[1]) for c in range(fused.shape[2])]
        scores = np.array([weights["score.weight"][0] @ token + weights["score.bias"][0] for token in tokens])
        attention = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        pooled = sum(a * token for a, token in zip(attention, tokens, strict=True))
        hidden = np.maximum(weights["mlp.0.weight"] @ pooled + weights["mlp.0.bias"], 0)
        numbers = weights["mlp.2.weight"] @ hidden + weights["mlp.2.bias"]
        start = gate_start = 0
        for stage in scam.placed:
            count = features[stage].shape[1]
            gamma, beta = numbers[start : start + count], numbers[start + count : start + 2 * count]
            gamma = 1 + np.tanh(weights["gates"][gate_start : gate_start + count] * gamma)
            for channel in range(count):
                result[stage][i, channel] = (1 + scam.scale * (gamma[channel] - 1)) * result[stage][
                    i, channel
                ] + scam.scale * beta[channel]
            start, gate_start = start + 2 * count, gate_start + count
    return result


@pytest.mark.parametrize(("stages", "count"), [(MLCLNET, 78_686), (ALCLNET, 178_142)])
def test_published_counts(stages, count):
    scam = SCAM([384] * 13, stages, range(len(stages)), 0.5)
    assert sum(p.numel() for p in scam.parameters()) == count


@pytest.mark.parametrize("placed", [(0, 1, 2), (1,), (0, 2)])
@pytest.mark.parametrize("cnn", [False, True])
def test_agrees_with_the_formula(placed, cnn):
    channels = (6, 10, 7) if cnn else (12,) * 4
    scam = _randomised(channels, MLCLNET, placed, 0.55, width=9 if cnn else None)
    features = _features(MLCLNET)
    maps = [torch.randn(2, c, 2, 3, dtype=torch.float64) for c in channels]
    modulated = scam(features, maps)
    for mine, plain in zip(modulated, _plain(scam, features, maps), strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), plain, rtol=1e-10, atol=1e-10)
    assert all((modulated[i] is features[i]) == (i not in placed) for i in range(3))


def test_starts_from_equal_shares_open_gates_and_default_layers():
    scam = SCAM([384] * 13, MLCLNET, (0, 1, 2), 0.55)
    assert (scam.mixture == 0).all() and (scam.gates == 1).all()
    for layer, inputs in ((scam.score, 384), (scam.mlp[0], 384), (scam.mlp[2], 128)):
        assert 0.5 * inputs**-0.5 < layer.weight.abs().max() <= inputs**-0.5
        assert layer.bias.abs().max() > 0
    features, maps = _features(MLCLNET, dtype=torch.float32), [torch.randn(2, 384, 2, 2) for _ in range(13)]
    # the last layer is not zeroed: teacher and student differ from the start
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(scam(features, maps), features, strict=True))


def test_gate_penalty_runs_over_modulated_channels():
    scam = SCAM([8] * 2, MLCLNET, (0, 2), 0.55)
    assert scam.gate_penalty().item() == 1
    with torch.no_grad():
        scam.gates[:16] = -3.0
    assert scam.gate_penalty().item() == pytest.approx((16 * 3 + 64) / 80)
    scam.gate_penalty().backward()
    torch.testing.assert_close(scam.gates.grad, torch.cat([torch.full((16,), -1 / 80), torch.full((64,), 1 / 80)]))


def test_parameters_follow_the_placement():
    shared = 2 + 8 + 1 + (8 + 1) * 128  # mixture, score, first layer
    for placed in [(0,), (2,), (0, 1), (0, 1, 2)]:
        scam = SCAM([8] * 2, MLCLNET, placed, 0.55)
        channels = sum(MLCLNET[i] for i in placed)
        assert sum(p.numel() for p in scam.parameters()) == shared + 129 * 2 * channels + channels


@pytest.mark.parametrize("width", [None, 8])
def test_placed_nowhere_it_is_nothing(width):
    scam = SCAM([8] * 2, MLCLNET, (), 0.55, width=width)
    features = _features(MLCLNET)
    assert not scam.state_dict() and scam.gate_penalty().item() == 0
    assert all(a is b for a, b in zip(scam(features, []), features, strict=True))


def test_projection_commutes_with_resampling():
    scam = _randomised((5, 9), MLCLNET, (1,), 0.5, width=6)
    fine = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    project = scam.project[0]
    halve = torch.nn.functional.avg_pool2d
    torch.testing.assert_close(project(halve(fine, 2)), halve(project(fine), 2))


def test_features_keep_dtype_and_layout_under_autocast_and_the_rest_is_float32():
    scam = SCAM([8] * 3, MLCLNET, (0, 1, 2), 0.55)
    maps = [100 * torch.randn(2, 8, 2, 2) for _ in range(3)]
    exact = scam.affine(maps)
    features = [f.bfloat16().to(memory_format=torch.channels_last) for f in _features(MLCLNET)]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = scam.affine(maps)
        modulated = scam(features, maps)
    for a, b in zip(exact, rounded, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    for after in modulated:
        assert after.dtype == torch.bfloat16 and after.is_contiguous(memory_format=torch.channels_last)


def test_half_precision_maps_are_taken():
    scam = SCAM([8] * 3, MLCLNET, (0,), 0.55)
    maps = [torch.randn(2, 8, 2, 2).half() for _ in range(3)]
    (a,), (b,) = scam.affine(maps), scam.affine([m.float() for m in maps])
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_what_cannot_be_built():
    with pytest.raises(ValueError, match="placed"):
        SCAM([8], MLCLNET, (3,), 0.5)
    with pytest.raises(ValueError, match="width"):
        SCAM([8, 16], MLCLNET, (0,), 0.5)


def test_placed_stages_of_a_setting():
    assert placed_stages("all", 3) == (0, 1, 2)
    assert placed_stages("none", 3) == () == placed_stages([], 3)
    assert placed_stages((3, 1), 3) == (0, 2)
    for wrong, words in [((0, 1), "outside 1..3"), ((4,), "outside 1..3"), ((2, 2), "twice")]:
        with pytest.raises(UserError, match=f"scam.stages.*{words}"):
            placed_stages(wrong, 3)
