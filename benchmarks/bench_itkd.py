"""The autoencoder branch of itKD compared with its straightforward form, a stack of 1x1 convolutions on whole maps.

Forward and backward run on maps of 234 x 234 cells with 384 channels of a teacher and 96 of a student (half of
CenterPoint-Pillar's resolution on Waymo). The maps are in channels_last format, as the detectors return them. "rows" is
the same stack as linear layers on rows of cells. Memory is the peak of a fresh process beyond its inputs, including the
gradient of the student's map.

    python benchmarks/bench_itkd.py [--batches 1 2] [--device cuda] [--repeats 5] [--threads 1]
        [--out docs/results/itkd.json]
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measure import compare, environment, print_ratios, record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the slow twins under tests/reference

from torch import Tensor, nn

from lidistill.distillation.shared_autoencoder import SharedAutoencoder
from lidistill.ops.kernels.interchanged_difference import Shares, interchanged_difference
from tests.reference.itkd import Straightforward

SEED = 0
CELLS = 234
TEACHER_CHANNELS, STUDENT_CHANNELS, WIDTHS = 384, 96, (128, 64, 32)


class Problem:
    """Random maps, and one set of weights for every form."""

    def __init__(self, device: str, batch: int) -> None:
        draw = torch.Generator().manual_seed(SEED)
        torch.manual_seed(SEED)

        def features(width: int) -> Tensor:
            values = torch.randn(batch, width, CELLS, CELLS, generator=draw).relu()
            return values.to(device).contiguous(memory_format=torch.channels_last)

        self.teacher_map, self.student_map = features(TEACHER_CHANNELS), features(STUDENT_CHANNELS).requires_grad_()
        self.autoencoder = SharedAutoencoder(TEACHER_CHANNELS, STUDENT_CHANNELS, WIDTHS, buffer_last=False).to(device)
        self.stack = Straightforward(self.autoencoder).to(device)

    def ours(self) -> Tensor:
        return torch.stack(
            interchanged_difference(
                self.teacher_map, self.student_map, self.autoencoder.paths(), Shares(1.0, 1.0, fixed_target=False)
            )
        ).sum()

    def straightforward(self) -> Tensor:
        return torch.stack(self.stack(self.teacher_map, self.student_map)).sum()

    def rows(self) -> Tensor:
        teacher_rows, student_rows = (
            values.permute(0, 2, 3, 1).flatten(0, 2) for values in (self.teacher_map, self.student_map)
        )
        module = self.autoencoder
        code, other_code = through(module.encoder, module.widening(student_rows)), through(module.encoder, teacher_rows)
        wide, narrow = module.widening(through(module.decoder, code)), through(module.decoder, other_code)
        return (
            (wide - teacher_rows).abs().mean() + (narrow - student_rows).abs().mean() + (code - other_code).abs().mean()
        )

    def step(self, form: str) -> tuple[Tensor, Tensor]:
        """Return the value of the loss and the gradient of the student's map."""
        self.student_map.grad = None
        for module in (self.autoencoder, self.stack):
            module.zero_grad()
        value = getattr(self, form)()
        value.backward()
        assert self.student_map.grad is not None
        return value.detach(), self.student_map.grad


def through(layers: Any, rows: Tensor) -> Tensor:
    """Apply linear layers with a ReLU after each but the last."""
    for layer in layers[:-1]:
        rows = nn.functional.relu(layer(rows))
    return layers[-1](rows)  # type: ignore[no-any-return]


FORMS = ("straightforward", "rows", "ours")


def peak_memory(device: str, batch: int, form: str) -> int:
    """Measure the bytes that one step needs beyond its inputs, in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (device, batch, form, torch.get_num_threads()))


def _peak_memory(device: str, batch: int, form: str, threads: int) -> int:
    torch.set_num_threads(threads)
    problem = Problem(device, batch)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        problem.step(form)
        return torch.cuda.max_memory_allocated() - before
    # Making the inputs needed more memory than they hold, so the peak is counted from here (Linux).
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _resident("VmRSS")
    problem.step(form)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def accuracy(problem: Problem) -> dict[str, float]:
    """Return the relative error of each form against the straightforward one in double precision."""
    single = {form: [tensor.clone() for tensor in problem.step(form)] for form in FORMS}
    problem.teacher_map, problem.student_map = (
        problem.teacher_map.double(),
        problem.student_map.detach().double().requires_grad_(),
    )
    problem.stack.double()
    value, gradient = problem.step("straightforward")
    errors = {f"{form}_value": abs(own.item() / value.item() - 1) for form, (own, _) in single.items()}
    return errors | {
        f"{form}_gradient": ((own - gradient).norm() / gradient.norm()).item() for form, (_, own) in single.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    print(environment(device))
    results: dict[str, Any] = {
        "seed": SEED,
        "cells": CELLS,
        "channels": [TEACHER_CHANNELS, STUDENT_CHANNELS],
        "repeats": arguments.repeats,
    }
    for batch in arguments.batches:
        memory = {form: peak_memory(device, batch, form) for form in FORMS}
        problem = Problem(device, batch)
        times = compare({form: partial(problem.step, form) for form in FORMS}, arguments.repeats)
        print_ratios(f"batch of {batch}", times)
        print("  memory: " + ", ".join(f"{form} {value / 2**20:.0f} MiB" for form, value in memory.items()))
        results[f"batch {batch}"] = {
            "times": times,
            "memory_bytes": memory,
        }
        if batch == min(arguments.batches):
            errors = accuracy(problem)
            print(
                "  relative error against double precision: "
                + ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
            )
            results["relative_error"] = errors
    if arguments.out:
        record(arguments.out, "itkd", results, device)


if __name__ == "__main__":
    main()
