"""SECOND's sparse trunk at KITTI's size, ours compared with spconv's: forward, backward, kernel maps, memory.

    python benchmarks/bench_sparse.py [--threads 1 2] [--repeats 9] [--frame FILE.bin] [--device cuda]
        [--out docs/results/sparse.json]

spconv 2.3.8 is used if it can be imported (`pip install --target FOLDER spconv==2.3.8` and PYTHONPATH=FOLDER leave the
environment unchanged). On a CPU, its backward pass requests a CUDA stream, which this file replaces by a stand-in; its
results are correct with one thread only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import compare, environment, print_ratios, record
from torch import Tensor, nn

from lidistill.detector_inputs import VoxelGrid
from lidistill.ops.kernels.sparse_convolution import (
    KernelMap,
    Sites,
    multiply_accumulates,
    sparse_convolution,
    strided_map,
    submanifold_map,
)
from lidistill.ops.kernels.voxelise import voxelise
from lidistill.ops.sparse_maps import cell_numbers
from lidistill.simulate import SimulatorSettings, simulate_frame

try:
    import spconv.pytorch as spconv
    import spconv.pytorch.ops as spconv_ops
    from spconv.core import ConvAlgo
except ImportError:
    spconv = None

SEED = 0
# gives as many voxels as a KITTI scan has in the camera's view
SETTINGS = SimulatorSettings(azimuth_window_deg=(-28.0, 28.0))
GRID = VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1), 5, 16000, 40000)
SHAPE = (41, 1600, 1408)  # along z one cell more than the grid has, as in SECOND
# in, out channels, kernel, stride, padding; stride None: submanifold. SECOND (sensors 18:3337) as OpenPCDet and
# mmdetection3d build it
LAYERS: list[tuple[int, int, tuple[int, int, int], tuple[int, int, int] | None, tuple[int, int, int]]] = [
    (4, 16, (3, 3, 3), None, (1, 1, 1)),
    (16, 16, (3, 3, 3), None, (1, 1, 1)),
    (16, 32, (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    (32, 32, (3, 3, 3), None, (1, 1, 1)),
    (32, 32, (3, 3, 3), None, (1, 1, 1)),
    (32, 64, (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    (64, 64, (3, 3, 3), None, (1, 1, 1)),
    (64, 64, (3, 3, 3), None, (1, 1, 1)),
    (64, 64, (3, 3, 3), (2, 2, 2), (0, 1, 1)),
    (64, 64, (3, 3, 3), None, (1, 1, 1)),
    (64, 64, (3, 3, 3), None, (1, 1, 1)),
    (64, 128, (3, 1, 1), (2, 1, 1), (0, 0, 0)),
]


class Trunk(nn.Module):
    """SECOND's twelve sparse layers on this package's convolution."""

    def __init__(self) -> None:
        super().__init__()
        scale = [(2 / (np.prod(kernel) * narrow)) ** 0.5 for narrow, _, kernel, _, _ in LAYERS]
        shapes = [(int(np.prod(kernel)), narrow, wide) for narrow, wide, kernel, _, _ in LAYERS]
        self.weights = nn.ParameterList(
            torch.randn(shape) * factor for shape, factor in zip(shapes, scale, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(wide, eps=1e-3, momentum=0.01) for _, wide, _, _, _ in LAYERS)

    def forward(self, features: Tensor, sites: Sites, maps: list[KernelMap]) -> Tensor:
        for weight, norm, kernel_map in zip(self.weights, self.norms, maps, strict=True):
            features = torch.relu(norm(sparse_convolution(features, weight, kernel_map)))
        return features


def frame_points(path: Path | None) -> Tensor:
    """Return the points (P, 4) of a simulated frame, or of a KITTI scan inside the camera's view."""
    if path is None:
        return torch.from_numpy(simulate_frame(SETTINGS, SEED, 1).points)
    points = torch.from_numpy(np.fromfile(path, dtype=np.float32).reshape(-1, 4))
    return points[points[:, 1].abs() < 0.85 * points[:, 0]]


def voxel_means(points: Tensor) -> tuple[Tensor, Sites]:
    voxels = voxelise(
        points, torch.zeros(len(points), dtype=torch.int64, device=points.device), 1, GRID, training=False
    )
    sums = points.new_zeros((len(voxels.counts), points.shape[1])).index_add_(0, voxels.voxel_index, voxels.points)
    return sums / voxels.counts[:, None], Sites(voxels.coords, SHAPE, 1)


def trunk_maps(sites: Sites) -> tuple[Sites, list[KernelMap]]:
    """Return the last layer's sites and the kernel map of every layer; submanifold layers of a level share one."""
    maps: list[KernelMap] = []
    shared: KernelMap | None = None
    for _, _, kernel, stride, padding in LAYERS:
        if stride is not None:
            sites, kernel_map = strided_map(sites, kernel, stride, padding)
            shared = None
        else:
            kernel_map = shared = submanifold_map(sites, kernel) if shared is None else shared
        maps.append(kernel_map)
    return sites, maps


def peer_trunk(trunk: Trunk) -> nn.Module:
    """Build the same layers and weights with spconv."""
    layers = []
    level = 0
    for number, (narrow, wide, kernel, stride, padding) in enumerate(LAYERS):
        level += stride is not None
        kind = spconv.SubMConv3d if stride is None else spconv.SparseConv3d
        options = {
            "padding": padding,
            "bias": False,
            "indice_key": f"level{level}" if stride is None else f"down{level}",
            "algo": ConvAlgo.Native,
        }
        convolution = kind(narrow, wide, kernel, **(options if stride is None else {**options, "stride": stride}))
        weight = trunk.weights[number].detach().reshape(*kernel, narrow, wide)
        convolution.weight.data = weight.permute(4, 0, 1, 2, 3).contiguous()
        norm = nn.BatchNorm1d(wide, eps=1e-3, momentum=0.01)
        norm.load_state_dict(trunk.norms[number].state_dict())
        layers += [convolution, norm, nn.ReLU()]
    return spconv.SparseSequential(*layers)


class Ours:
    """One training step in its parts."""

    def __init__(self, trunk: nn.Module, features: Tensor, sites: Sites) -> None:
        self.trunk, self.features, self.sites = trunk, features.clone().requires_grad_(), sites

    def maps(self) -> tuple[Sites, list[KernelMap]]:
        return trunk_maps(self.sites)

    def forward(self) -> Any:
        sites, maps = self.maps()
        return self.trunk(self.features, sites, maps), sites.coords

    def outcome(self) -> tuple[Tensor, Tensor]:
        """Return the features and cells of the last layer, sorted by cell."""
        return self.forward()

    def step(self) -> None:
        self.outcome()[0].square().mean().backward()


class Peers(Ours):
    def forward(self) -> Any:
        return self.trunk(spconv.SparseConvTensor(self.features, self.sites.coords.int(), list(SHAPE), 1))

    def outcome(self) -> tuple[Tensor, Tensor]:
        result = self.forward()
        order = cell_numbers(result.indices.long(), tuple(result.spatial_shape)).argsort()
        return result.features[order], result.indices[order].long()

    def step(self) -> None:
        self.forward().features.square().mean().backward()


def parties(points: Tensor, dtype: torch.dtype = torch.float32) -> dict[str, Ours]:
    torch.manual_seed(SEED)
    trunk = Trunk()
    features, sites = voxel_means(points)
    found = {"lidistill": Ours(deepcopy(trunk).to(points.device, dtype), features.to(dtype), sites)}
    if spconv is not None:
        spconv_ops.get_current_stream = lambda: 0
        found["spconv"] = Peers(peer_trunk(trunk).to(points.device, dtype), features.to(dtype), sites)
    return found


def disagreement(points: Tensor) -> dict[str, float]:
    """Return the largest difference of the output and of the features' gradient, relative to the largest value of each.

    Computed in float64 on one thread.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    outcomes = []
    for party in parties(points, torch.float64).values():
        result, coords = party.outcome()
        weight = torch.randn(result.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        (gradient,) = torch.autograd.grad((result * weight.to(result.device)).sum(), party.features)
        outcomes.append((result, coords, gradient))
    torch.set_num_threads(before)
    (ours, our_coords, our_gradient), (theirs, their_coords, their_gradient) = outcomes
    if not torch.equal(our_coords, their_coords):
        raise SystemExit("the output sites differ from spconv's")
    return {
        "output": float((ours - theirs).detach().abs().max() / theirs.detach().abs().max()),
        "gradient": float((our_gradient - their_gradient).abs().max() / their_gradient.abs().max()),
    }


def peak_bytes(name: str, points: np.ndarray, threads: int, queue: Any) -> None:
    """Return the peak growth of a fresh process's resident memory over two training steps (Linux)."""
    torch.set_num_threads(threads)
    party = parties(torch.from_numpy(points))[name]
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    start = _status("VmRSS")
    for _ in range(2):
        party.step()
    queue.put(_status("VmHWM") - start)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def memory(points: Tensor, names: list[str], threads: int) -> dict[str, int]:
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in names:
        queue = context.Queue()
        process = context.Process(target=peak_bytes, args=(name, points.cpu().numpy(), threads, queue))
        process.start()
        found[name] = queue.get(timeout=300)
        process.join()
    return found


def bench_trunk(points: Tensor, threads: int, repeats: int) -> dict[str, Any]:
    found = parties(points)
    _, maps = found["lidistill"].maps()
    content: dict[str, Any] = {
        "voxels": len(found["lidistill"].sites),
        "pairs": [kernel_map.num_pairs for kernel_map in maps],
        "multiply_accumulates": sum(
            multiply_accumulates(each, narrow, wide) for each, (narrow, wide, *_) in zip(maps, LAYERS, strict=True)
        ),
    }
    print(f"\n{content['voxels']} voxels, {content['multiply_accumulates'] / 1e9:.2f} G multiply-accumulates forward")
    if "spconv" in found:
        content["spconv"] = version("spconv")
        content["largest_relative_difference"] = disagreement(points)
        print(
            "float64, one thread, difference from spconv over the largest value: "
            f"{content['largest_relative_difference']}"
        )
    else:
        print("spconv is not installed: nothing to compare with")
    for name, prefix in (("forward", "forward, maps included"), ("step", "forward and backward")):
        candidates: dict[str, Callable[[], Any]] = {
            party: getattr(each, name) for party, each in reversed(found.items())
        }
        content[name] = compare(candidates, repeats, 2, time.process_time if threads == 1 else time.perf_counter)
        print_ratios(f"{prefix}, {threads} threads", content[name])
    content["maps"] = compare({"lidistill": found["lidistill"].maps}, repeats)
    ours = {name: content[name]["lidistill"]["median_s"] for name in ("forward", "step", "maps")}
    print_ratios(f"the maps of our 12 layers: {ours['maps'] / ours['step']:.2f} of the step", content["maps"])
    if "spconv" in found:
        theirs = {name: content[name]["spconv"]["median_s"] for name in ("forward", "step")}
        backward = (ours["step"] - ours["forward"]) / (theirs["step"] - theirs["forward"])
        content["ratio_to_spconv"] = {
            "forward": ours["forward"] / theirs["forward"],
            "backward": backward,
            "sum": ours["step"] / theirs["step"],
        }
        print(
            "times as long as spconv, by the medians:",
            {name: round(value, 2) for name, value in content["ratio_to_spconv"].items()},
        )
    if Path("/proc/self/clear_refs").exists() and points.device.type == "cpu":
        content["peak_bytes"] = memory(points, list(found), threads)
        print(
            "memory over the process before the step, MiB:",
            {name: round(value / 2**20, 1) for name, value in content["peak_bytes"].items()},
        )
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--frame", type=Path, help="a KITTI scan (.bin) instead of a simulated frame")
    parser.add_argument("--out", help="JSON file for the figures")
    arguments = parser.parse_args()
    points = frame_points(arguments.frame).to(arguments.device)
    content: dict[str, Any] = {
        "seed": SEED,
        "repeats": arguments.repeats,
        "frame": "simulated" if arguments.frame is None else "KITTI",
    }
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(environment(arguments.device))
        content[f"threads_{threads}"] = bench_trunk(points, threads, arguments.repeats)
    if arguments.out:
        record(arguments.out, "sparse", content, arguments.device)


if __name__ == "__main__":
    main()
