"""Gradients of every method in double precision against finite differences, on outputs in which half of the places and
rows are copies of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lidistill.distillation.proposals import find_proposals
from lidistill.outputs import DetectorOutput
from tests.distillation import fakes
from tests.distillation.test_contract import build, each_method_and_kind
from tests.reference.slopes import slope_along

STEP = 1e-6  # so small that hardly any value passes the bend of a ReLU or changes places with another on the way


def row_axis(values: Tensor) -> int:
    """Of a set (N, C) the first, of a map (B, C, H, W) the third."""
    return 2 if values.dim() == 4 else 0


def halved(output: DetectorOutput) -> dict[str, Tensor]:
    """Every second row of each set, and of the cells of each map, in double precision."""
    found = {}
    for name, values in fakes.tensors(output).items():
        axis = row_axis(values)
        found[name] = values.double().index_select(axis, torch.arange(0, values.shape[axis], 2))
    return found


def tied(output: DetectorOutput, leaves: dict[str, Tensor]) -> DetectorOutput:
    """The output with each of these rows in its own place and in that of the next row, so that copies move together."""
    taps = {
        name: replace(tap, features=_doubled(leaves[f"tap {name}"], tap.features)) for name, tap in output.taps.items()
    }
    heads = [
        replace(
            head, maps={name: _doubled(leaves[f"head {index} {name}"], values) for name, values in head.maps.items()}
        )
        for index, head in enumerate(output.heads)
    ]
    return DetectorOutput(taps, tuple(heads))


def _doubled(leaf: Tensor, like: Tensor) -> Tensor:
    axis = row_axis(like)
    return leaf.index_select(axis, torch.arange(like.shape[axis]) // 2)


class FirstTime:
    """In place of a function whose results a method takes as constant: the first pass calls it, all others get what it
    said then.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.said: list[Any] = []
        self.replayed: Iterator[Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self.replayed is not None:
            return next(self.replayed)
        self.said.append(self.function(*arguments))
        return self.said[-1]

    def again(self) -> None:
        """Another pass begins."""
        self.replayed = iter(self.said)


def snapshot(values: Tensor) -> Tensor:
    return values.data.clone()


# What follows the student without a gradient: where it is taught, and how much.
CONSTANTS = {
    "logits": {"torch.Tensor.detach": snapshot},
    "crd": {"torch.Tensor.detach": snapshot},
    "fkd": {"torch.Tensor.detach": snapshot},
    "gid": {"torch.Tensor.detach": snapshot},
    "rdd": {"lidistill.distillation.rdd.find_proposals": find_proposals},
}


@each_method_and_kind
def test_the_gradient_is_that_of_finite_differences(config, kind, monkeypatch):
    """Along random directions: of all values of a tap or of a head's map at once, and of the adapters."""
    if config.name == "se_ssd":
        config = replace(config, min_overlap=0.0)  # random boxes hardly overlap
    if config.name == "itkd":
        # held fixed inside of a function of autograd; tests/distillation/test_itkd.py has both forms
        config = replace(config, detach_target=False)
    batch = fakes.make_batch()
    wide, narrow = fakes.output(8, batch, 1, kind=kind), fakes.output(5, batch, 2, kind=kind)
    taught, free = tied(wide, halved(wide)), halved(narrow)
    method = build(config, kind).double()

    constants = {path: FirstTime(function) for path, function in CONSTANTS.get(config.name, {}).items()}
    for path, constant in constants.items():
        monkeypatch.setattr(path, lambda *arguments, constant=constant: constant(*arguments))

    def loss() -> Tensor:
        total = torch.stack(list(method(taught, tied(narrow, free), batch).terms.values())).sum()
        for constant in constants.values():
            constant.again()
        return total

    for leaf in free.values():
        leaf.requires_grad_()
    total = loss()
    assert total.dtype == torch.float64
    total.backward()
    draw = torch.Generator().manual_seed(3)
    leaves = {**free, **dict(method.named_parameters())}
    for name, leaf in leaves.items():
        direction = torch.randn(leaf.shape, generator=draw, dtype=torch.float64)
        direction /= direction.norm()
        found = slope_along([direction], [leaf], loss, STEP)
        stated = 0.0 if leaf.grad is None else (leaf.grad * direction).sum().item()
        assert stated == pytest.approx(found, rel=1e-5, abs=1e-7 * abs(total.item())), name
