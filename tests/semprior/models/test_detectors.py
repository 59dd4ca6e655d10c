"""Every detector against its specification and all that training and deployment ask of one; the registry."""

import dataclasses
import math
import multiprocessing
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.transfer import copy_weights
from semprior.config.schema import resolve
from semprior.data.batches import Batch, Normalisation
from semprior.data.images import IntensityRange
from semprior.data.training_set import TrainingSet
from semprior.deployment.load_model import load_student
from semprior.deployment.onnx_export import export
from semprior.errors import UserError
from semprior.evaluation.inference import student_probabilities
from semprior.foundation.feature_source import Features
from semprior.io.checkpoint import load_checkpoint, save_checkpoint
from semprior.labels.seeds import contrast_seed
from semprior.models import detectors
from semprior.models.build import build_teacher
from semprior.models.detector import _SPECS, Detector, create_detector, detector_names, detector_spec, register
from semprior.models.dropout import ChannelDropout
from semprior.models.scam import SCAM
from semprior.models.teacher import Teacher
from semprior.training import bilevel, losses
from semprior.training.trainer import Trainer
from tests.semprior.training.test_trainer import scenes
from tests.tiny import optional, write_checkpoint

pytestmark = pytest.mark.trains

COUNTS = {
    "mlclnet": 657_249,
    "alclnet": 5_668_145,
    "gglnet": 8_988_093,
    "mshnet": 4_065_513,
    "repisdnet": 558_497,
    "dnanet": 4_696_888,
    "sctransnet": 11_203_635,
}
GFLOPS = {"gglnet": 19.4, "mshnet": 12.0, "repisdnet": 23.9, "dnanet": 27.9, "sctransnet": 21.1}  # at 256x256
LOGITS = {"mshnet": 5, "dnanet": 4, "sctransnet": 6}  # in training; the others have one
DEPLOYED = {"repisdnet": 279_073}
SHORTER = {  # stages, for tests that take long of a whole network
    **dict.fromkeys(("alclnet", "gglnet", "mshnet", "dnanet"), (16, 32)),
    "sctransnet": (32, 64, 64),
}


@pytest.fixture
def shorter(monkeypatch):
    """Leaves a detector with few stages and blocks."""

    def shorten(name):
        shorten_by(name, monkeypatch)

    return shorten


def shorten_by(name, patch):
    spec = detector_spec(name)
    stages = SHORTER.get(name, spec.stages)
    patch.setattr(spec.build, "stages", stages)
    patch.setitem(_SPECS, name, dataclasses.replace(spec, stages=stages))
    patch.setattr("semprior.models.detectors.sctransnet._BLOCKS", 1)


def without_dropout(*networks):
    for network in networks:
        for part in network.modules():
            if isinstance(part, ChannelDropout | nn.Dropout2d):
                part.p = 0.0


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
def test_operations_and_the_deployed_form_are_as_specified(name):
    detector = create_detector(name).eval()
    deployed = detector.deployed()
    assert sum(p.numel() for p in deployed.parameters()) == DEPLOYED.get(name, COUNTS[name])
    assert (deployed is detector) == (name not in DEPLOYED)
    if name in GFLOPS:
        plain = DETECTORS[name]().to("meta")  # ours takes fewer
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            plain.decode(plain.encode(torch.empty(1, 3, 256, 256, device="meta")))
        assert counted.get_total_flops() / 1e9 == pytest.approx(GFLOPS[name], abs=0.05)


@pytest.mark.parametrize("name", COUNTS)
def test_ours_is_the_plain_form_in_training_and_evaluation(name):
    ours, plain = create_detector(name).double(), DETECTORS[name]().double()
    without_dropout(ours, plain)
    copy_weights(ours, plain)
    ours = ours.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    for training in (True, False):
        mine, theirs = (net.train(training).decode(net.encode(x)) for net in (ours, plain))
        assert len(mine) == len(theirs) == LOGITS.get(name, 1)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    running = [value for key, value in ours.state_dict().items() if "running" in key]
    expected = [value for key, value in plain.state_dict().items() if "running" in key]
    torch.testing.assert_close(running, expected, rtol=1e-9, atol=1e-12)


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
    slack = 4 if name in ("mlclnet", "alclnet") else 8  # the others spread more of it over tokens of 16 pixels
    assert abs((share.sum(1) * places).sum() - 40) <= slack and abs((share.sum(0) * places).sum() - 21) <= slack


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
    without_dropout(detector)
    x = torch.randn(2, 3, 64, 64)
    reference = detector(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = detector.decode(detector.encode(x))
    sum(part.float().square().mean() for part in logits).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert (logits[0] - reference).norm() < 0.08 * reference.norm()


def _fan_out(conv):
    return math.sqrt(2 / (conv.weight.shape[0] * conv.weight[0, 0].numel()))


def _fan_in(conv):
    return math.sqrt(2 / conv.weight[0].numel())


def _xavier(conv):
    return math.sqrt(2 / (conv.weight[0].numel() + conv.weight.shape[0] * conv.weight[0, 0].numel()))


INITIAL_STD = {
    **dict.fromkeys(("mlclnet", "alclnet", "gglnet"), _fan_out),
    **dict.fromkeys(("mshnet", "dnanet"), None),  # PyTorch's, everywhere
    "repisdnet": _xavier,
    "sctransnet": _fan_in,
}
DEFAULT_PARTS = {
    "mlclnet": ("lateral", "head", "output"),
    "gglnet": ("excitation", "channel.", "spatial."),
}


@pytest.mark.parametrize("name", COUNTS)
def test_initialisation(name):
    default = 0
    for part, module in create_detector(name).named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert (module.momentum, module.eps) == (0.1, 1e-5)
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.Conv1d):
            continue
        if INITIAL_STD[name] is None or any(word in part for word in DEFAULT_PARTS.get(name, ())):
            default += 1
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.5 * bound < module.weight.abs().max() <= bound
            assert module.bias is None or (module.bias.abs().max() <= bound and (module.bias != 0).all())
            continue
        assert module.bias is None or (module.bias == 0).all()
        slack = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors of a standard deviation
        if module.weight.numel() > 8:
            assert abs(module.weight.std().item() / INITIAL_STD[name](module) - 1) < slack, part
    assert (default > 0) == (INITIAL_STD[name] is None or name in DEFAULT_PARTS)


def test_the_last_layer_of_alclnet_starts_with_std_sqrt_2():
    weights = torch.cat([create_detector("alclnet").output.weight.flatten() for _ in range(8)])
    assert abs(weights.std().item() - math.sqrt(2)) < 0.45  # five standard errors


@pytest.mark.parametrize("name", COUNTS)
def test_output_bias_makes_first_probabilities_small_and_changes_nothing_else(name):
    torch.manual_seed(1)
    published = create_detector(name)
    torch.manual_seed(1)
    ours = create_detector(name, output_bias=-4.0)
    names = {layer: part for part, layer in ours.named_modules()}
    for last in ours.output_layers():
        if last is not ours.fusion_layer():
            assert (last.bias == -4).all() and 0 < last.weight.std() < 0.03
    changed = {k for k, v in ours.state_dict().items() if not torch.equal(v, published.state_dict()[k])}
    given = {f"{names[layer]}.{kind}" for layer in ours.output_layers() for kind in ("weight", "bias")}
    unchanged = {f"{names[fusion]}.bias"} if (fusion := ours.fusion_layer()) is not None else set()  # 0 in some anyway
    assert given - unchanged <= changed <= given
    assert (ours.train()(torch.randn(2, 3, 64, 64)) + 4).abs().mean() < 1.5


@pytest.mark.parametrize("name", COUNTS)
def test_main_logits_that_are_made_of_others_begin_as_their_mean(name):
    detector = create_detector(name, output_bias=-4.0).eval()
    assert (detector.fusion_layer() is not None) == (name in ("mshnet", "sctransnet"))
    if detector.fusion_layer() is not None:
        main, *sides = detector.decode(detector.encode(torch.randn(1, 3, 64, 64)))
        whole = [
            nn.functional.interpolate(side, (64, 64), mode="bilinear", align_corners=name == "mshnet") for side in sides
        ]
        torch.testing.assert_close(main, torch.stack(whole).mean(0))


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


# ---- what training asks of a detector


class Pooled:
    """Stands in for a vision model: one map of averages."""

    map_channels = (3,)
    width_needed = False
    random = False
    key = "pooled"

    def __call__(self, grey):
        return [nn.functional.avg_pool2d(grey.expand(-1, 3, -1, -1), 16)]


def settings(name, preset="standard", **leaves):
    """A run of tiny crops."""
    flags = {"detector": name, "data.crop": 32, "data.batch": 2, "clusters.count": 2, "precision": "fp32", **leaves}
    return resolve(preset=preset, flags={key.replace("__", "."): value for key, value in flags.items()}).config


def batch(count=2, side=32):
    images = torch.randn(count, 3, side, side)
    masks = torch.zeros(count, 1, side, side)
    masks[:, :, 8:11, 17:20] = 1
    return Batch(images, masks, [torch.rand(count, 3, side // 16, side // 16)], torch.arange(count) % 2)


@pytest.mark.parametrize("name", COUNTS)
def test_any_stage_can_be_modulated_alone(name):
    detector, data = create_detector(name).eval(), batch(1)
    spec = detector_spec(name)
    with torch.no_grad():
        features = detector.encode(data.images)
        student = detector.decode(features)
        for stage in range(len(spec.stages)):
            scam = SCAM((3,), spec.stages, (stage,), 1.0)
            taught = Teacher(detector, scam).eval().teacher_from(features, data.maps)
            assert len(taught) == len(student)
            assert not torch.allclose(taught[0], student[0])


@pytest.mark.parametrize(
    ("name", "task"),
    [*((name, task) for name in COUNTS for task in ("bce", "iou_bce")), ("dnanet", "iou"), ("mshnet", "sls")],
)
def test_losses_reach_every_parameter_through_all_logits(name, task):
    config = settings(name, loss__task=task, scam__drop=0.0)
    teacher, data = build_teacher(config, Pooled()).train(), batch()
    alpha = torch.zeros(2, requires_grad=True)
    for objective, extra in ((bilevel.inner_objective, teacher.scam.parameters()), (bilevel.outer_objective, [alpha])):
        parameters = [*teacher.detector.parameters(), *extra]
        gradients = torch.autograd.grad(objective(teacher, alpha, data, config), parameters)
        assert all(gradient.isfinite().all() for gradient in gradients)
        weights = [gradient for parameter, gradient in zip(parameters, gradients, strict=True) if parameter.ndim > 1]
        assert all(gradient.any() for gradient in weights)  # a bias before a norm has none
    for objective, grad in ((losses.inner_loss, "teacher"), (losses.outer_loss, "student")):
        student, taught = teacher.both(data.images, data.maps, grad=grad)
        mine, others = (taught, student) if grad == "teacher" else (student, taught)
        penalty = (torch.zeros(()),) if grad == "teacher" else ()
        loss = objective(mine, others, data.masks, torch.ones(2), *penalty, config.loss, config.distill)
        assert len(mine) == LOGITS.get(name, 1)
        assert all(gradient.any() for gradient in torch.autograd.grad(loss, mine))


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("preset", ["paper", "standard", "quick"])
def test_every_preset_takes_its_steps(name, preset, shorter):
    shorter(name)
    config = settings(name, preset)
    teacher, data, alpha = build_teacher(config, Pooled()).train(), batch(), nn.Parameter(torch.zeros(2))
    rate = config.optim.rate or detector_spec(name).learning_rate
    before = [p.detach().clone() for p in teacher.detector.encoder.parameters()]
    inner = torch.optim.AdamW(teacher.parameters(), lr=rate)
    outer = torch.optim.AdamW([*teacher.detector.parameters(), alpha], lr=rate)
    found = bilevel.inner_step(teacher, alpha, data, inner, config)
    found += bilevel.outer_step(teacher, alpha, data, data, outer, rate, config)
    assert 0 < found < 100
    after = teacher.detector.encoder.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(after, before, strict=True) if a.ndim > 1)


@pytest.mark.parametrize("name", COUNTS)
def test_a_run_stopped_after_an_epoch_goes_on_to_the_last_bit(name, tmp_path, shorter):
    shorter(name)

    def run():
        config = settings(
            name, epochs=2, outer__every=1, outer__steps=1, labels__refine="none", select__after=1.0, data__holdout=0.25
        )
        return Trainer(config, small_training_set(), Features(Pooled(), None), torch.device("cpu"))

    whole = run()
    reports = []
    for report in whole.run():
        reports.append(dataclasses.replace(report, seconds=0))
        if report.epoch == 0:
            save_checkpoint(tmp_path / "first", whole.snapshot())
    resumed = run()
    resumed.restore(load_checkpoint(tmp_path / "first"))
    assert [dataclasses.replace(report, seconds=0) for report in resumed.run()] == reports[1:]
    for kind, tensors in whole.snapshot().tensors.items():
        others = resumed.snapshot().tensors[kind]
        assert all(torch.equal(tensor, others[key]) for key, tensor in tensors.items())


def small_training_set():
    every = scenes(8, 1, False)
    return TrainingSet(
        scenes=every,
        train=5,
        validation=3,
        seeds=[contrast_seed(scene.image, scene.points) for scene in every],
        clusters=np.arange(len(every)) % 2,
        normalisation=Normalisation(0.36, 0.07),
        intensity=IntensityRange(0, 255),
        test=[],
    )


# ---- two workers


def share_gradients(rank, folder, queue):
    """By detector, how far gradients of two workers' halves of a batch are from those of the whole batch."""
    torch.set_num_threads(1)
    for name in COUNTS:
        shorten_by(name, pytest.MonkeyPatch())
    whole = {name: both_gradients(name, slice(None)) for name in COUNTS} if rank == 0 else {}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=5)
    )
    shares = {name: both_gradients(name, slice(2 * rank, 2 * rank + 2)) for name in COUNTS}
    if rank == 0:
        queue.put({name: float((shares[name] - whole[name]).norm() / whole[name].norm()) for name in COUNTS})
    dist.barrier()
    dist.destroy_process_group()


def both_gradients(name, part):
    """Gradients of the inner and of the outer objective, in training but for BatchNorm, in one vector."""
    torch.manual_seed(0)
    config = settings(name, scam__drop=0.0, channels_last=False)
    teacher, data, alpha = build_teacher(config, Pooled()).train(), batch(4), torch.zeros(2, requires_grad=True)
    data = Batch(data.images[part], data.masks[part], [values[part] for values in data.maps], data.clusters[part])
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # on a CPU each worker has its own statistics
    parameters = [*teacher.detector.parameters()]
    found = []
    for objective in (bilevel.inner_objective, bilevel.outer_objective):
        found += bilevel.gradients(objective(teacher, alpha, data, config), parameters)
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    folder, context = tmp_path_factory.mktemp("workers"), multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=share_gradients, args=(rank, folder, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = queue.get(timeout=300)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return found


@pytest.mark.parametrize("name", COUNTS)
def test_two_workers_have_the_gradients_of_one(name, distances):
    assert distances[name] < 1e-4


# ---- deployment


@pytest.mark.parametrize("name", COUNTS)
def test_images_of_odd_sizes_are_predicted_by_the_deployed_form(name, tmp_path):
    student = load_student(write_checkpoint(tmp_path / "checkpoint", detector=name), torch.device("cpu"))
    trained = create_detector(name)
    trained.load_state_dict(load_checkpoint(tmp_path / "checkpoint").tensors["student"])
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, size).astype(np.uint8) for size in ((33, 61), (7, 40), (35, 64))]
    found = student.probabilities(images)
    expected = student_probabilities(trained.eval(), images, student.info.normalisation, torch.device("cpu"), False)
    for image, mine, theirs in zip(images, found, expected, strict=True):
        assert mine.shape == image.shape
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
        assert mine.std() > 1e-3


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "mlclnet"])  # which test_onnx_export.py exports
def test_the_exported_graph_predicts_images_of_any_size(name, tmp_path, shorter):
    optional("onnxscript")
    runtime = optional("onnxruntime")
    shorter(name)
    student = load_student(write_checkpoint(tmp_path / "checkpoint", detector=name), torch.device("cpu"))
    assert export(student, tmp_path / "student.onnx") < 1e-3
    session = runtime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    for shape in ((2, 33, 100), (1, 1, 1), (1, 64, 96)):
        images = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        (found,) = session.run(None, {"image": images[:, None].astype(np.float32)})
        np.testing.assert_allclose(found[:, 0], student.probabilities(list(images)), atol=1e-3)


# ---- parts that one detector has


def test_pools_of_repisdnet_see_the_image_and_not_its_padding():
    detector = create_detector("repisdnet")
    x, heights, widths = torch.randn(3, 32, 64, 96), (64, 50, 7), (96, 33, 61)
    whole = detector.pyramid(x, torch.tensor([[64, 96]]))
    mixed = detector.pyramid(x, torch.tensor([heights, widths]).T)
    torch.testing.assert_close(mixed[:1], whole[:1])
    for index, (height, width) in enumerate(zip(heights, widths, strict=True)):
        image = x[index : index + 1, :, :height, :width]
        parts = [image]
        for bins, point in zip((1, 2, 3, 6), detector.pyramid.points, strict=True):
            pooled = point(nn.functional.adaptive_avg_pool2d(image, bins))
            size = (height, width)
            parts.append(nn.functional.interpolate(pooled, size, mode="bilinear", align_corners=True))
        torch.testing.assert_close(mixed[index : index + 1, :, :height, :width], torch.cat(parts, 1))


def test_branches_of_repisdnet_are_one_convolution_up_to_rounding():
    detector = create_detector("repisdnet").double()
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    detector(x)  # running statistics of their own
    detector.eval()
    torch.testing.assert_close(detector.deployed()(x), detector(x), rtol=1e-10, atol=1e-10)


def test_dropout_takes_its_random_numbers_from_its_state():
    layer, x = ChannelDropout(0.3), torch.ones(64, 64, 2, 2)
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    for found in (first, second):
        assert found.unique().tolist() == pytest.approx([0, 1 / 0.7])
        assert abs((found == 0).float().mean() - 0.3) < 0.03
        assert (found.amax((2, 3)) == found.amin((2, 3))).all()  # whole channels
    assert abs(torch.corrcoef(torch.stack([first[:, :, 0, 0].flatten(), second[:, :, 0, 0].flatten()]))[0, 1]) < 0.08
    other = ChannelDropout(0.3)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert layer.eval()(x) is x
