"""The local-graph loss of PointDistiller compared with its straightforward form, which builds every edge.

Forward and backward run at the size of one KITTI frame: with weights spread over the graphs (temperature 4), and with
those of the released code (temperature 0.01, at which only full pillars have a weight). Both forms use the same
neighbour search, which is timed separately. Memory is the peak of a fresh process beyond its inputs.

    python benchmarks/bench_pointdistiller.py [--device cuda] [--repeats 5] [--threads 1]
        [--out docs/results/pointdistiller.json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measure import compare, environment, measure, print_ratios, record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the slow twins under tests/reference

from torch import Tensor

from lidistill.distillation.important_rows import graph_weights, nearest_rows, select_queries
from lidistill.ops.kernels.graph_distance import EdgeEncoder, NeighbourGraphs, graph_distance
from tests.reference.pointdistiller import edge_layers, straightforward_graphs, straightforward_loss

SEED = 0
PILLARS, QUERIES, NEIGHBOURS = 16_000, 6_000, 128
TEACHER_CHANNELS, STUDENT_CHANNELS, EDGE_CHANNELS = 64, 32, 32
TEMPERATURES = {"spread weights (4)": 4.0, "released weights (0.01)": 0.01}


class Problem:
    """Random pillars: as on KITTI, two thirds hold one point, and about one in a hundred is full."""

    def __init__(self, device: str, temperature: float, neighbours: Tensor | None = None) -> None:
        draw = torch.Generator().manual_seed(SEED)
        torch.manual_seed(SEED)
        self.counts = torch.rand(PILLARS, generator=draw).pow(-0.7).long().clamp(1, 32).float().to(device)
        self.groups = torch.zeros(PILLARS, dtype=torch.int64, device=device)
        self.teacher_rows = torch.randn(PILLARS, TEACHER_CHANNELS, generator=draw).relu().to(device)
        self.student_rows = torch.randn(PILLARS, STUDENT_CHANNELS, generator=draw).relu().to(device).requires_grad_()
        self.queries = select_queries(self.counts, self.groups, QUERIES, "top", [""])
        self.neighbours = self.search() if neighbours is None else neighbours.to(device)
        self.weights = graph_weights(self.counts[self.queries], self.groups[self.queries], temperature)
        self.encoders = [EdgeEncoder(width, EDGE_CHANNELS).to(device) for width in (TEACHER_CHANNELS, STUDENT_CHANNELS)]
        self.layers = [edge_layers(encoder) for encoder in self.encoders]
        for layers in self.layers:
            layers.to(device)

    def search(self) -> Tensor:
        return nearest_rows(self.teacher_rows, self.groups, self.queries, NEIGHBOURS)

    def ours(self) -> Tensor:
        graphs = NeighbourGraphs.of(self.queries, self.neighbours, PILLARS)
        terms = [
            encoder(rows, graphs)
            for encoder, rows in zip(self.encoders, (self.teacher_rows, self.student_rows), strict=True)
        ]
        return 2 / QUERIES * graph_distance(terms[0], terms[1], graphs, self.weights)

    def straightforward(self, dtype: torch.dtype = torch.float32) -> Tensor:
        rows = self.teacher_rows.to(dtype), self.student_rows.to(dtype)
        encoded = [
            straightforward_graphs(row, self.queries, self.neighbours, layers.to(dtype))
            for row, layers in zip(rows, self.layers, strict=True)
        ]
        return straightforward_loss(encoded[0], encoded[1], self.weights.to(dtype))

    def step(self, form: str) -> tuple[Tensor, Tensor]:
        """Return the loss and the student's gradient of one forward and backward pass."""
        self.student_rows.grad = None
        for module in (*self.encoders, *self.layers):
            module.zero_grad()
        value = getattr(self, form)()
        value.backward()
        assert self.student_rows.grad is not None
        return value.detach(), self.student_rows.grad


def peak_memory(device: str, temperature: float, form: str, neighbours: Tensor) -> int:
    """Measure the bytes that one step needs beyond its inputs, in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (device, temperature, form, neighbours.cpu(), torch.get_num_threads()))


def _peak_memory(device: str, temperature: float, form: str, neighbours: Tensor, threads: int) -> int:
    torch.set_num_threads(threads)
    problem = Problem(device, temperature, neighbours)
    if device == "cpu":
        before = _peak_resident()
        problem.step(form)
        return _peak_resident() - before
    before = torch.cuda.memory_allocated()
    problem.step(form)
    return torch.cuda.max_memory_allocated() - before


def _peak_resident() -> int:
    """Return the peak of this process's resident memory in bytes (Linux).

    ru_maxrss is useless here, because a new process starts with its parent's value.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def accuracy(problem: Problem) -> dict[str, float]:
    """Return the relative error of both forms against the straightforward one in double precision."""
    single, single_gradient = (tensor.clone() for tensor in problem.step("straightforward"))
    own, own_gradient = (tensor.clone() for tensor in problem.step("ours"))
    problem.student_rows.grad = None
    exact = problem.straightforward(torch.float64)
    exact.backward()
    exact_gradient = problem.student_rows.grad
    for layers in problem.layers:
        layers.float()
    assert exact_gradient is not None
    return {
        "ours_value": abs(own.item() / exact.item() - 1),
        "straightforward_value": abs(single.item() / exact.item() - 1),
        "ours_gradient": ((own_gradient - exact_gradient).norm() / exact_gradient.norm()).item(),
        "straightforward_gradient": ((single_gradient - exact_gradient).norm() / exact_gradient.norm()).item(),
    }


def forms(problem: Problem) -> dict[str, Callable[[], Any]]:
    return {"straightforward": lambda: problem.step("straightforward"), "ours": lambda: problem.step("ours")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    print(environment(device))
    print(
        f"{PILLARS} pillars, {QUERIES} graphs of {NEIGHBOURS}, {TEACHER_CHANNELS} and {STUDENT_CHANNELS} to "
        f"{EDGE_CHANNELS} channels, seed {SEED}"
    )

    results: dict[str, Any] = {
        "seed": SEED,
        "pillars": PILLARS,
        "graphs": QUERIES,
        "neighbours": NEIGHBOURS,
        "repeats": arguments.repeats,
    }
    first = Problem(device, TEMPERATURES["spread weights (4)"])
    search = measure(first.search, arguments.repeats)
    results["search"] = search
    print(
        f"\nneighbour search, common to both: median {search['median_s'] * 1e3:.1f} ms ({search['min_s'] * 1e3:.1f} "
        f"to {search['max_s'] * 1e3:.1f})"
    )
    for title, temperature in TEMPERATURES.items():
        problem = Problem(device, temperature, first.neighbours)
        times = compare(forms(problem), arguments.repeats)
        print_ratios(f"{title}, forward and backward", times)
        totals = {name: row["median_s"] + search["median_s"] for name, row in times.items()}
        memory = {form: peak_memory(device, temperature, form, first.neighbours) for form in times}
        errors = accuracy(problem)
        share = totals["ours"] / totals["straightforward"]
        print(
            f"  with the search: {totals['ours'] * 1e3:.1f} ms of {totals['straightforward'] * 1e3:.1f} ms "
            f"({share:.3f})"
        )
        print(f"  memory: {memory['ours'] / 2**20:.0f} MiB of {memory['straightforward'] / 2**20:.0f} MiB")
        print(
            "  relative error against double precision: "
            + ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
        )
        results[title] = {
            "times": times,
            "with_search_s": totals,
            "ratio_with_search": share,
            "memory_bytes": memory,
            "relative_error": errors,
        }
    if arguments.out:
        record(arguments.out, "pointdistiller", results, device)


if __name__ == "__main__":
    main()
