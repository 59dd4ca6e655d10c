"""The detectors against the published counts, shapes and initialisation, and the registry."""

import math

import pytest
import torch
from torch import nn

from semprior.errors import UserError
from semprior.models import detectors
from semprior.models.detector import Detector, create_detector, detector_names, detector_spec, register

COUNTS = {"mlclnet": 657_249, "alclnet": 5_668_145}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_published_counts_and_settings():
    assert set(detector_names()) >= set(COUNTS)
    for name, count in COUNTS.items():
        assert sum(p.numel() for p in create_detector(name).parameters()) == count
    mlclnet, alclnet = detector_spec("mlclnet"), detector_spec("alclnet")
    assert (mlclnet.stages, mlclnet.scam_scale, mlclnet.learning_rate) == ((16, 32, 64), 0.55, 1e-3)
    assert (alclnet.stages, alclnet.scam_scale, alclnet.learning_rate) == ((16, 32, 64, 128, 256), 0.12, 5e-4)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_shapes(name, size):
    detector = create_detector(name).eval()
    x = torch.randn(2, 3, *size)
    features = detector.encode(x)
    assert [tuple(f.shape) for f in features] == [
        (2, channels, size[0] >> level, size[1] >> level) for level, channels in enumerate(detector.stages)
    ]
    logits = detector.decode(features)
    assert logits[0].shape == (2, 1, *size)
    torch.testing.assert_close(detector(x), logits[0])


@pytest.mark.parametrize("name", COUNTS)
def test_images_of_a_batch_do_not_mix_and_targets_stay_in_place(name):
    detector = create_detector(name, output_bias=-4.0).eval().double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    together = detector(x)
    torch.testing.assert_close(together[:1], detector(x[:1]))
    torch.testing.assert_close(together[1:], detector(x[1:]))
    # a bright pixel changes the logits around itself
    spot = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    dark = detector(spot)
    spot[:, :, 40, 21] = 8.0
    change = (detector(spot) - dark).square()[0, 0]
    share, places = change / change.sum(), torch.arange(64.0)
    assert abs((share.sum(1) * places).sum() - 40) <= 4 and abs((share.sum(0) * places).sum() - 21) <= 4


@pytest.mark.parametrize("name", COUNTS)
def test_channels_last_stays_and_agrees(name):
    detector = create_detector(name).eval()
    x = torch.randn(2, 3, 64, 64)
    plain = detector(x)
    detector = detector.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in detector.encode(x))
    assert (detector(x) - plain).norm() < 1e-4 * plain.norm()


@pytest.mark.parametrize("name", COUNTS)
def test_bf16_agrees_and_every_parameter_gets_a_gradient(name):
    detector = create_detector(name)
    x = torch.randn(2, 3, 64, 64)
    reference = detector(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = detector(x)
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert (logits - reference).norm() < 0.05 * reference.norm()


def _default_init(name, part):
    return name == "mlclnet" and part.startswith(("lateral", "head", "output"))


@pytest.mark.parametrize("name", COUNTS)
def test_initialisation(name):
    default = 0
    for part, module in create_detector(name).named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert (module.momentum, module.eps) == (0.1, 1e-5)
        if not isinstance(module, nn.Conv2d):
            continue
        if _default_init(name, part):
            default += 1
            bound = 1 / math.sqrt(module.in_channels)
            assert module.kernel_size == (1, 1)
            assert 0.5 * bound < module.weight.abs().max() <= bound
            assert module.bias.abs().max() <= bound and (module.bias != 0).all()
            continue
        assert (module.bias == 0).all()
        std = math.sqrt(2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1]))
        slack = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors of a standard deviation
        assert abs(module.weight.std().item() / std - 1) < slack
    assert default == {"mlclnet": 5, "alclnet": 0}[name]


def test_the_last_layer_of_alclnet_starts_with_std_sqrt_2():
    weights = torch.cat([create_detector("alclnet").output.weight.flatten() for _ in range(8)])
    assert abs(weights.std().item() - math.sqrt(2)) < 0.45  # five standard errors


@pytest.mark.parametrize("name", COUNTS)
def test_output_bias_makes_first_probabilities_small_and_changes_nothing_else(name):
    torch.manual_seed(1)
    published = create_detector(name)
    torch.manual_seed(1)
    ours = create_detector(name, output_bias=-4.0)
    (last,) = ours.output_layers()
    assert (last.bias == -4).all() and 0 < last.weight.std() < 0.03
    changed = {k for k, v in ours.state_dict().items() if not torch.equal(v, published.state_dict()[k])}
    assert changed == {"output.weight", "output.bias"}
    assert (ours.eval()(torch.randn(1, 3, 64, 64)) + 4).abs().mean() < 1.5


@pytest.mark.parametrize(("typo", "nearest"), [("alcnet", "alclnet"), ("MLCLNet", "mlclnet"), ("mlcl-net", "mlclnet")])
def test_unknown_name_suggests_the_nearest(typo, nearest):
    with pytest.raises(UserError, match=f"'{typo}'.*'{nearest}'"):
        create_detector(typo)


def test_a_name_like_no_other_lists_all():
    with pytest.raises(UserError, match=r"choose one of .*alclnet.*mlclnet"):
        detector_spec("zzz")


NEW_DETECTOR = """
from torch import nn
from semprior.models.detector import Detector, register
from semprior.models.encoder import Encoder


@register("tiny_for_this_test", stages=(4, 8), scam_scale=0.3, learning_rate=2e-3)
class Tiny(Detector):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder(self.stages)
        self.output = nn.Conv2d(4, 1, 1)

    def decode(self, features):
        return (self.output(features[0]),)

    def output_layers(self):
        return (self.output,)
"""


def test_a_new_detector_is_one_file(tmp_path, monkeypatch):
    from semprior.models import detector as registry

    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(detectors, "__path__", [*detectors.__path__, str(tmp_path)])
    (tmp_path / "tiny_for_this_test.py").write_text(NEW_DETECTOR)
    assert "tiny_for_this_test" in detector_names()
    assert detector_spec("tiny_for_this_test").stages == (4, 8)
    made = create_detector("tiny_for_this_test", output_bias=-3.0)
    assert made.stages == (4, 8) and made(torch.randn(1, 3, 32, 32)).shape == (1, 1, 32, 32)
    assert made.output.bias.item() == -3
    with pytest.raises(UserError, match="'tiny_for_this_test'"):
        detector_spec("tiny_for_this_tset")


def test_two_detectors_cannot_share_a_name():
    with pytest.raises(ValueError, match="already"):

        @register("alclnet", stages=(4,), scam_scale=1.0, learning_rate=1e-3)
        class Other(Detector):
            pass

    assert detector_spec("alclnet").stages == (16, 32, 64, 128, 256)
