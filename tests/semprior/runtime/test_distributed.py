"""Data-parallel training: two workers take the very steps that one takes on their batches together."""

import multiprocessing
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from queue import Empty

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from semprior.errors import UserError
from semprior.foundation.feature_source import Features
from semprior.models.detector import _SPECS, Detector, register
from semprior.runtime.distributed import average_statistics_, gather, global_mean, own_positions, shard
from semprior.training.crossfit import CrossFit
from semprior.training.trainer import DivergedError, Trainer
from tests.semprior.training.test_trainer import CPU, PooledVision, config, training_set

pytestmark = pytest.mark.trains

LEAVES = {"data.batch": 4, "epochs": 3, "precision": "fp32", "optim.schedule": "constant", "detector": "small"}


class Small(Detector):
    """Two stages of a few channels, BatchNorm in both halves."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.norm, self.up, self.last = nn.BatchNorm2d(4), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 1, 1)

    def decode(self, features):
        up = nn.functional.interpolate(self.up(features[1]), scale_factor=2, mode="nearest")
        return (self.last(torch.relu(self.norm(features[0] + up))),)

    def output_layers(self):
        return (self.last,)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        first = torch.relu(self.norm(self.first(x)))
        return [first, torch.relu(self.second(first))]


@pytest.fixture(scope="module", autouse=True)
def registered():
    register("small", stages=(4, 6), scam_scale=0.5, learning_rate=1e-2)(Small)
    yield
    _SPECS.pop("small")  # other tests go through all detectors that there are


def _worker(rank, folder, tasks, queue):
    torch.set_num_threads(1)
    register("small", stages=(4, 6), scam_scale=0.5, learning_rate=1e-2)(Small)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=5)
    )
    queue.put((rank, {task.__name__: task() for task in tasks}))
    dist.barrier()
    dist.destroy_process_group()


def _trainer(frozen_norms=True, **leaves):
    run = Trainer(config(**{**LEAVES, **leaves}), training_set(True), Features(PooledVision(), None), CPU)
    if frozen_norms:  # what SyncBatchNorm is for on CUDA does not exist on the CPU
        run.teacher.train = lambda mode=True: nn.Module.train(run.teacher, False)
    return run


def train():
    """Every number of a run, in float64 where it steps, so that only a different step can differ."""
    run = _trainer()
    for network in (run.teacher, run.average):
        network.double()
    run.alpha.data = run.alpha.data.double()
    draw = run._batch

    def double(indices, drop=0.0):
        batch = draw(indices, drop)
        wide = {name: getattr(batch, name).double() for name in ("images", "masks")}
        return type(batch)(**{**vars(batch), **wide, "maps": [maps.double() for maps in batch.maps]})

    run._batch = double
    for network in (run.teacher, run.average):  # inference feeds float32
        network.detector.register_forward_pre_hook(lambda _, inputs: tuple(x.double() for x in inputs))
        encode = network.encode
        network.encode = lambda x, encode=encode: encode(x.double())
        network.scam.register_forward_pre_hook(
            lambda _, inputs: (inputs[0], [maps.double() for maps in inputs[1]], *inputs[2:])
        )
    reports = [vars(report) | {"seconds": 0} for report in run.run()]
    snapshot = run.snapshot()
    tensors = {f"{of}.{name}": t.numpy() for of, held in snapshot.tensors.items() for name, t in held.items()}
    return reports, tensors, snapshot.arrays, snapshot.values


def own_statistics():
    run = _trainer(frozen_norms=False, epochs=1)
    if dist.get_rank():
        with torch.no_grad():
            next(run.teacher.parameters()).add_(1)  # another machine's rounding, exaggerated
    next(run.run())
    return {name: tensor.numpy() for name, tensor in run.evaluated.state_dict().items()}


def cross_fit():
    leaves = {"labels.refine": "crossfit", "labels.crossfit_epochs": 1.0, "data.hard_crops": 0.5, "epochs": 1}
    run = _trainer(**leaves)
    crossfit = CrossFit(run)
    make = crossfit._new_run

    def frozen():
        short = make()
        short.teacher.train = lambda mode=True: nn.Module.train(short.teacher, False)
        return short

    crossfit._new_run = frozen
    losses = [short.inner_loss for short in crossfit.run()]
    report = next(run.run())
    tensors = {name: t.numpy() for name, t in run.snapshot().tensors["student"].items()}
    return losses, list(crossfit.judged), run.snapshot().arrays, run.selector.thresholds, report.inner_loss, tensors


def diverge():
    run = _trainer()
    draw = run._batch
    if dist.get_rank():  # on one worker only
        run._batch = lambda *asked: replace(draw(*asked), images=torch.full((2, 3, 64, 64), float("nan")))
    with pytest.raises(DivergedError) as error:
        list(run.run())
    return str(error.value)


def exchange():
    with pytest.raises(UserError, match=r"data\.batch: 3 images do not divide among 2 workers"):
        _trainer(**{"data.batch": 3})
    local = torch.tensor([1.0 + 2 * dist.get_rank()], requires_grad=True)
    (global_mean(local) * (1 + dist.get_rank())).sum().backward()
    norm = nn.BatchNorm1d(1)
    norm.running_var.fill_(1.0 + dist.get_rank())
    average_statistics_(norm)
    own = {i: np.full(i, i, np.uint8) for i in own_positions(3)}
    parts = [(place, part.tolist()) for place, part in gather(own, 4).items()]
    return global_mean(local).item(), local.grad.item(), norm.running_var.item(), shard(range(4)), parts


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What a task returns on each of two workers that train together: ``both("train")``."""
    folder, context = tmp_path_factory.mktemp("workers"), multiprocessing.get_context("spawn")
    queue = context.Queue()
    tasks = (train, own_statistics, cross_fit, diverge, exchange)
    processes = [context.Process(target=_worker, args=(rank, folder, tasks, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found, end = {}, time.monotonic() + 300
    while len(found) < len(processes):
        assert all(process.exitcode in (None, 0) for process in processes), "a worker failed; see its traceback"
        assert time.monotonic() < end
        with suppress(Empty):
            found |= dict([queue.get(timeout=1)])
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return lambda name: [found[rank][name] for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return train()


def test_two_workers_take_the_steps_of_one_weight_by_weight(alone, both):
    alone = alone[1]
    for _, tensors, _, _ in both("train"):
        assert tensors.keys() == alone.keys()
        for name, tensor in tensors.items():
            np.testing.assert_allclose(tensor, alone[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_masks_reports_and_choice_are_those_of_one_worker(alone, both):
    reports, _, arrays, values = alone
    assert any(report["evolved"] for report in reports) and any(report["outer_loss"] for report in reports)
    for found, _, others, state in both("train"):
        for report, expected in zip(found, reports, strict=True):
            assert (report["images"] is None) == (expected["images"] is None)
            if expected["images"] is not None:
                assert report["images"].names == expected["images"].names
                np.testing.assert_allclose(report["images"].table, expected["images"].table, rtol=1e-6)
            for name in expected.keys() - {"images"}:
                value = expected[name]
                assert report[name] == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)), name
        assert others.keys() == arrays.keys()
        for name, array in others.items():
            np.testing.assert_array_equal(array, arrays[name], err_msg=name)
        assert state["selection"] == pytest.approx(values["selection"])
        assert state["rng"] == values["rng"]
        assert state["thresholds"] == values["thresholds"]


def test_the_workers_agree_to_the_last_bit(both):
    (_, tensors, arrays, _), (_, others, masks, _) = both("train")
    assert all(np.array_equal(tensor, others[name]) for name, tensor in tensors.items())
    assert all(np.array_equal(array, masks[name]) for name, array in arrays.items())


def test_with_batchnorm_of_their_own_shares_workers_still_hold_the_same_networks(both):
    first, second = both("own_statistics")
    assert all(np.array_equal(tensor, second[name]) for name, tensor in first.items())


def test_a_loss_that_is_not_finite_on_one_worker_stops_all_alike(both):
    first, second = both("diverge")
    assert first == second
    assert "epoch 0, inner batch 0" in first and first.count("scene_1_") == 4


def test_two_workers_cross_fit_as_one_does(both):
    losses, judged, arrays, thresholds, loss, _ = cross_fit()
    for found_losses, found, others, chosen, found_loss, _ in both("cross_fit"):
        assert found_losses == pytest.approx(losses, rel=1e-4)
        assert found_loss == pytest.approx(loss, rel=1e-3)
        assert all(abs(a.astype(int) - b).max() <= 1 for a, b in zip(found, judged, strict=True))
        assert others.keys() == arrays.keys() and "hard.packed" in arrays
        assert chosen.keys() == thresholds.keys() == {"student", "teacher"}
    first, second = both("cross_fit")
    assert (first[0], first[3], first[4]) == (second[0], second[3], second[4])
    assert all(np.array_equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    for mine, yours in ((first[2], second[2]), (first[5], second[5])):
        assert all(np.array_equal(array, yours[name]) for name, array in mine.items())


def test_what_workers_exchange(both):
    first, second = both("exchange")
    assert first == (2.0, 1.5, 1.5, [0, 1], [(0, []), (1, [1]), (2, [2, 2])])
    assert second == (2.0, 1.5, 1.5, [2, 3], [(0, []), (1, [1]), (2, [2, 2])])


def test_alone_nothing_is_exchanged():
    x = torch.tensor([3.0])
    assert global_mean(x) is x
    assert own_positions(3) == [0, 1, 2] and shard([5, 6]) == [5, 6]
    assert gather({0: np.ones(2, np.uint8)}, 1)[0].tolist() == [1, 1]
