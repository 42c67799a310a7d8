"""Hard voxelisation compared with spconv's and with that of an earlier commit, in turns on one thread.

    python benchmarks/bench_voxels.py [--scan KITTI.bin] [--sweep NUSCENES.bin] [--before COMMIT]
        [--out docs/results/voxels.json]

Without files the point clouds are simulated. Ten sweeps are one sweep ten times, moved a little each time. spconv is
used if it can be imported, as in bench_sparse.py; its grid of voxel indices is allocated before the timing, and its
voxels are padded. The voxels of all versions are compared before they are timed. Times are processor seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_ops import random_cloud
from measure import compare, earlier_package, environment, first_module, print_ratios, record
from torch import Tensor

from lidistill.detector_inputs import VoxelGrid
from lidistill.ops.kernels.voxelise import voxelise

try:
    from cumm import tensorview
    from spconv.utils import Point2VoxelCPU3d
except ImportError:
    Point2VoxelCPU3d = None

SEED = 0
KITTI = {
    "KITTI, 0.16 m pillars": VoxelGrid((0, -39.68, -3, 69.12, 39.68, 1), (0.16, 0.16, 4), 32, 16000, 40000),
    "KITTI, 0.05 m voxels": VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1), 5, 16000, 40000),
}
NUSCENES = {
    "nuScenes, ten sweeps, 0.1 m voxels": VoxelGrid(
        (-51.2, -51.2, -5, 51.2, 51.2, 3), (0.1, 0.1, 0.2), 10, 120000, 160000
    ),
    "nuScenes, ten sweeps, 0.2 m pillars": VoxelGrid(
        (-51.2, -51.2, -5, 51.2, 51.2, 3), (0.2, 0.2, 8), 20, 30000, 60000
    ),
}


def kitti_scan(path: Path | None) -> Tensor:
    """Return the points (P, 4) inside the camera's view."""
    if path is None:
        return random_cloud(18_000, 100, SEED)
    points = torch.from_numpy(np.fromfile(path, dtype="<f4").reshape(-1, 4))
    return points[points[:, 1].abs() < 0.85 * points[:, 0]]


def ten_sweeps(path: Path | None) -> Tensor:
    """Return ten sweeps (P, 5) of a car that drives 0.4 m between sweeps, with the time in the last column."""
    rng = np.random.default_rng(SEED)
    if path is None:
        cloud = random_cloud(34_700, 80, SEED).numpy()
        turn = rng.uniform(-np.pi, np.pi, len(cloud))
        cos, sin = np.cos(turn), np.sin(turn)
        cloud = np.column_stack(
            [cloud[:, 0] * cos - cloud[:, 1] * sin, cloud[:, 0] * sin + cloud[:, 1] * cos, cloud[:, 2:], cloud[:, 3]]
        )
    else:
        cloud = np.fromfile(path, dtype="<f4").reshape(-1, 5)
    sweeps = []
    for number in range(10):
        sweep = cloud + rng.normal(0, 0.02, cloud.shape) * [1, 1, 1, 0, 0] + np.array([0.4 * number, 0, 0, 0, 0])
        sweep[:, 4] = 0.05 * number
        sweeps.append(sweep)
    return torch.from_numpy(np.concatenate(sweeps).astype(np.float32))


def compared(points: Tensor, grid: VoxelGrid, before: str | None, repeats: int) -> dict[str, Any]:
    """Return the times of each version and the ratio of ours to the first, after comparing the voxels."""
    batch_index = torch.zeros(len(points), dtype=torch.int64)
    parties: dict[str, Callable[[], Any]] = {}
    ours = voxelise(points, batch_index, 1, grid, False)
    if Point2VoxelCPU3d is not None:
        size, reach = list(grid.voxel_size), list(grid.point_range)
        maker = Point2VoxelCPU3d(size, reach, points.shape[1], grid.max_voxels_eval, grid.max_points_per_voxel)
        array = points.numpy()
        parties["spconv"] = lambda: maker.point_to_voxel(tensorview.from_numpy(array))
        _, cells, counts = parties["spconv"]()
        if not (
            np.array_equal(cells.numpy(), ours.coords[:, 1:].numpy())
            and np.array_equal(counts.numpy(), ours.counts.numpy())
        ):
            raise SystemExit("the voxels differ from spconv's")
    if before is not None:
        earlier = first_module(before, "ops.kernels.voxelise", "ops.voxels").voxelise
        parties["before"] = lambda: earlier(points, batch_index, 1, grid, False)
        old = parties["before"]()
        if not all(
            torch.equal(getattr(old, name), getattr(ours, name))
            for name in ("points", "voxel_index", "counts", "coords")
        ):
            raise SystemExit("the voxels differ from those of the earlier commit")
    parties["lidistill"] = lambda: voxelise(points, batch_index, 1, grid, False)
    return {"points": len(points), "voxels": len(ours.counts), "times": compare(parties, repeats, 3, time.process_time)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, help="a KITTI scan (.bin of four columns)")
    parser.add_argument("--sweep", type=Path, help="a nuScenes sweep (.bin of five columns)")
    parser.add_argument("--before", help="a commit of this repository to compare with")
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--out", help="JSON file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    real = {"KITTI": arguments.scan is not None, "nuScenes": arguments.sweep is not None}
    content: dict[str, Any] = {"seed": SEED, "repeats": arguments.repeats, "real": real, "before": arguments.before}
    with tempfile.TemporaryDirectory() as folder:
        before = earlier_package(arguments.before, Path(folder)) if arguments.before else None
        for grids, points in ((KITTI, kitti_scan(arguments.scan)), (NUSCENES, ten_sweeps(arguments.sweep))):
            for title, grid in grids.items():
                content[title] = compared(points, grid, before, arguments.repeats)
                print_ratios(f"{title}: {len(points)} points", content[title]["times"])
    if arguments.out:
        record(arguments.out, "voxels", content)


if __name__ == "__main__":
    main()
