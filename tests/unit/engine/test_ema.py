import torch
from torch import nn

from animegen.engine.ema import Ema


def test_average_follows_the_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = Ema({"g": network}, decay=0.9)
    expected = 0.0
    for n, value in enumerate([1.0, 2.0, 4.0]):
        network.weight.data.fill_(value)
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with ema.scope():
        torch.testing.assert_close(network.weight.item(), expected)
    assert network.weight.item() == 4.0


def test_buffers_are_copied_and_integers_left_alone() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema({"g": network}, decay=0.9)
    for _ in range(8):
        network(torch.randn(16, 2) + 5)
        ema.update()
    mean, count = network.running_mean.clone(), network.num_batches_tracked.item()
    with ema.scope():
        torch.testing.assert_close(network.running_mean, mean)
        assert network.num_batches_tracked.item() == count == 8


def test_state_round_trip() -> None:
    network = nn.Linear(2, 2)
    ema = Ema({"g": network}, decay=0.5)
    network.weight.data.add_(1.0)
    ema.update()
    other = Ema({"g": nn.Linear(2, 2)}, decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    torch.testing.assert_close(other.state_dict()["averages"]["g"], ema.state_dict()["averages"]["g"])
