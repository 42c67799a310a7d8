import numpy as np
import pytest
import torch

from tests.ops.kernels.host_waits import HostWaits

X = torch.rand(4, 3)
WAITING = {
    "item": lambda: X.sum().item(),
    "float": lambda: float(X.sum()),
    "bool": lambda: bool((X > 0).any()),
    "range": lambda: range(X.sum().long()),
    "tolist": lambda: X.tolist(),
    "numpy": lambda: X.numpy(),
    "cpu": lambda: X.cpu(),
    "to": lambda: X.to(X.device),
    "nonzero": lambda: (X > 0.5).nonzero(),
    "where": lambda: torch.where(X > 0.5),
    "a mask": lambda: X[X > 0.5],
    "writing rows through a mask": lambda: torch.zeros(4).__setitem__(X[:, 0] > 2, torch.zeros(0)),
    "masked_select": lambda: X.masked_select(X > 0.5),
    "unique": lambda: torch.unique(X),
    "unique_consecutive": lambda: torch.unique_consecutive(X),
    "bincount": lambda: torch.bincount(torch.ones(3, dtype=torch.int64)),
    "equal": lambda: torch.equal(X, X),
    "repeat_interleave": lambda: torch.repeat_interleave(X, torch.ones(4, dtype=torch.int64), dim=0),
    "a constant": lambda: X.new_tensor([1.0, 2.0]),
    "a list as index": lambda: X[:, [2, 1]],
    "to the host and into numpy": lambda: (X * 2).cpu().numpy(),
    "from numpy to a device": lambda: torch.from_numpy(np.ones(2)).to(X.device),
    "in backward": lambda: _Reading.apply(X.clone().requires_grad_()).sum().backward(),
}
FREE = {
    "arithmetic": lambda: (X * 2 + 1).sum(dim=0).clamp(min=0),
    "writing a number": lambda: X.clone().__setitem__(slice(1, None), 0.0),
    "writing a number through a mask": lambda: X.clone().__setitem__(X > 0.5, 0.0),
    "torch.where with values": lambda: torch.where(X > 0.5, X, 0.0),
    "repeat_interleave of known size": lambda: torch.repeat_interleave(
        X, torch.ones(4, dtype=torch.int64), dim=0, output_size=4
    ),
    "an index": lambda: X[torch.arange(2)],
    "sort": lambda: X.sort(),
    "from numpy, on the host": lambda: torch.from_numpy(np.ones(2)),
    "another type": lambda: X.to(torch.float64),
}


class _Reading(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float(gradient.sum())


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_seen_once(name):
    with HostWaits() as waits:
        WAITING[name]()
    assert len(waits.seen) == 1


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait_is_not_counted(name):
    with HostWaits() as waits:
        FREE[name]()
    assert waits.seen == []
