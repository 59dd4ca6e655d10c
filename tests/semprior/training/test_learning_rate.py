"""When things are due, how fast to learn, and the average of weights."""

import pytest
import torch
from torch import nn

from semprior.config.epochs import is_due, share_of
from semprior.training.ema import frozen_copy, update_average
from semprior.training.learning_rate import learning_rate


def test_constant_rate_is_constant_and_one_cycle_rises_then_falls():
    assert {learning_rate("constant", 5e-4, p / 10) for p in range(11)} == {5e-4}
    rates = [learning_rate("one_cycle", 1.0, p / 100) for p in range(101)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.05 and 0 < rates[0] < 0.2


def test_shares_of_the_published_length():
    assert share_of(0.2, 300) == 60
    assert share_of(1 / 3, 300) == 100
    assert [e for e in range(12) if is_due(e, 4, 3)] == [4, 7, 10]


def test_an_average_of_constant_weights_is_those_weights_and_early_ones_are_forgotten():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = frozen_copy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(3.0)
    for updates in range(200):
        update_average(average, net, 0.9, updates)
    assert all(torch.allclose(p, torch.full_like(p, 3.0), atol=1e-3) for p in average.parameters())
    assert not average.training and not any(p.requires_grad for p in average.parameters())
    with torch.no_grad():
        net[1].running_mean.fill_(7.0)
    update_average(average, net, 0.0, 10)
    assert torch.equal(average[1].running_mean, net[1].running_mean)
