"""Speed and error of the operations on boxes, voxels and neighbours, compared with plainer versions.

python benchmarks/bench_ops.py [--device cuda] [--repeats 5] [--threads 1] [--out docs/results/ops.json]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
import torch
from measure import compare, environment, print_ratios, record
from torch import Tensor

from lidistill.detector_inputs import VoxelGrid
from lidistill.ops.boxes import corners_bev
from lidistill.ops.kernels.neighbours import k_nearest
from lidistill.ops.kernels.overlap import overlap_bev
from lidistill.ops.kernels.points_in_boxes import box_of_points
from lidistill.ops.kernels.suppression import nms_rotated
from lidistill.ops.kernels.voxelise import voxelise

SEED = 0
SCENE_M = 70.0


def random_boxes(num: int, seed: int, spread: float = SCENE_M) -> Tensor:
    """Draw boxes (num, 7) of the sizes of road users, anywhere in a square scene, at any yaw."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform([0, -spread / 2, -1.5], [spread, spread / 2, 0], (num, 3))
    sizes = rng.uniform([0.5, 0.5, 1.2], [5.5, 2.2, 2.0], (num, 3))
    return torch.from_numpy(np.hstack([centre, sizes, rng.uniform(-math.pi, math.pi, (num, 1))])).float()


def random_proposals(num: int, num_objects: int, seed: int) -> Tensor:
    """Draw boxes (num, 7) like a region proposal network's: many noisy copies of a few objects."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.normal(0, [0.5, 0.5, 0.1, 0.2, 0.1, 0.1, 0.2], (num, 7))).float()
    proposals = random_boxes(num_objects, seed)[rng.integers(num_objects, size=num)] + noise
    proposals[:, 3:6] = proposals[:, 3:6].abs()
    return proposals


def random_cloud(num: int, reach: float, seed: int) -> Tensor:
    """Draw points (num, 4) whose density falls with the distance, as that of a LiDAR does."""
    rng = np.random.default_rng(seed)
    distance, angle = reach * rng.beta(1, 3, num), rng.uniform(-math.pi / 4, math.pi / 4, num)
    return torch.from_numpy(
        np.stack(
            [distance * np.cos(angle), distance * np.sin(angle), rng.normal(-1, 0.6, num), rng.random(num)], axis=1
        )
    ).float()


def shapely_overlap(a: Tensor, b: Tensor) -> np.ndarray:
    """Return the overlap from above (N, M), by shapely's vectorised calls on pairs from its tree."""
    first, second = (shapely.polygons(corners_bev(boxes.double()).numpy()) for boxes in (a, b))
    rows, columns = shapely.STRtree(second).query(first, predicate="intersects")
    shared = shapely.area(shapely.intersection(first[rows], second[columns]))
    overlap = np.zeros((len(a), len(b)))
    overlap[rows, columns] = shared / (shapely.area(first)[rows] + shapely.area(second)[columns] - shared)
    return overlap


def dense_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Suppress by the whole matrix of overlaps and a loop over its rows."""
    order = scores.argsort(descending=True, stable=True)
    over = overlap_bev(boxes[order], boxes[order]) > threshold
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for row in range(len(order)):
        if alive[row]:
            kept.append(row)
            alive &= ~over[row]
    return order[torch.tensor(kept, device=boxes.device)]


def unique_cells(points: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Group points by cell with torch.unique, without caps and without the order of appearance."""
    minimum, size = points.new_tensor(grid.point_range[:3]), points.new_tensor(grid.voxel_size)
    cells = torch.floor((points[:, :3] - minimum) / size).long()
    cells = cells[((cells >= 0) & (cells < torch.tensor(grid.shape, device=points.device))).all(dim=1)]
    return torch.unique(cells, dim=0, return_inverse=True, return_counts=True)


def dense_box_of_points(points: Tensor, boxes: Tensor) -> Tensor:
    """Compare every point with every box in float32."""
    dx, dy, dz = (points[None, :, axis] - boxes[:, axis, None] for axis in range(3))
    cos, sin = torch.cos(boxes[:, 6, None]), torch.sin(boxes[:, 6, None])
    half = boxes[:, 3:6, None] / 2
    inside = (
        ((dx * cos + dy * sin).abs() <= half[:, 0])
        & ((dy * cos - dx * sin).abs() <= half[:, 1])
        & (dz.abs() <= half[:, 2])
    )
    return torch.where(inside.any(dim=0), inside.int().argmax(dim=0), -1)


def cdist_neighbours(queries: Tensor, database: Tensor, k: int) -> Tensor:
    """Search neighbours by torch.cdist and topk, 1,000 queries at a time; ties are broken arbitrarily."""
    return torch.cat([torch.cdist(part, database).topk(k, largest=False).indices for part in queries.split(1000)])


def bench_overlap(device: str, repeats: int) -> dict[str, Any]:
    a, b = random_boxes(1000, SEED), random_boxes(1000, SEED + 1)
    ours = overlap_bev(a.to(device), b.to(device)).cpu().double().numpy()
    exact = shapely_overlap(a, b)
    wide = overlap_bev(a.double(), b.double()).numpy()
    near = {"error_float32": float(np.abs(ours - exact).max()), "error_float64": float(np.abs(wide - exact).max())}
    far_a, far_b = a.clone(), b.clone()
    far_a[:, :2], far_b[:, :2] = far_a[:, :2] + 1e4, far_b[:, :2] + 1e4
    far = overlap_bev(far_a.to(device), far_b.to(device)).cpu().double().numpy()
    far_exact = shapely_overlap(far_a, far_b)
    errors = {**near, "error_float32_at_10_km": float(np.abs(far - far_exact).max())}
    on_device = a.to(device), b.to(device)
    times = compare(
        {"overlap_bev": lambda: overlap_bev(*on_device), "shapely, tree and vectorised": lambda: shapely_overlap(a, b)},
        repeats,
    )
    print_ratios(
        f"overlap of 1000 x 1000 boxes in {SCENE_M:g} m, {(exact > 0).sum()} pairs overlap; largest errors {errors}",
        times,
    )
    return {"times": times, **errors}


def bench_nms(device: str, repeats: int) -> dict[str, Any]:
    results = {}
    scores = torch.from_numpy(np.random.default_rng(SEED).random(9000)).float().to(device)
    cases: list[tuple[str, Tensor, float]] = [
        ("spread, overlap 0.01", random_boxes(9000, SEED), 0.01),
        ("proposals of 30 objects, overlap 0.01", random_proposals(9000, 30, SEED), 0.01),
        ("proposals of 30 objects, overlap 0.8", random_proposals(9000, 30, SEED), 0.8),
    ]
    for title, boxes, threshold in cases:
        boxes = boxes.to(device)
        kept = nms_rotated(boxes, scores, threshold)
        same = torch.equal(kept, dense_nms(boxes, scores, threshold))
        candidates: dict[str, Callable[[], Tensor]] = {
            "nms_rotated": lambda boxes=boxes, threshold=threshold: nms_rotated(boxes, scores, threshold),
            "nms_rotated, 512 wanted": lambda boxes=boxes, threshold=threshold: nms_rotated(
                boxes, scores, threshold, max_after=512
            ),
            "whole matrix, then a loop": lambda boxes=boxes, threshold=threshold: dense_nms(boxes, scores, threshold),
        }
        times = compare(candidates, max(1, repeats // 2), warmup=0)
        print_ratios(f"suppression of 9000 boxes, {title}: {len(kept)} kept, same as the plain version: {same}", times)
        results[title] = {"times": times, "kept": len(kept), "same_as_plain": same}
    return results


def bench_voxels(device: str, repeats: int) -> dict[str, Any]:
    kitti = random_cloud(18_000, 100, SEED)
    merged = random_cloud(347_000, 80, SEED)
    turned = torch.from_numpy(np.random.default_rng(SEED).uniform(-math.pi, math.pi, len(merged))).float()
    x, y = merged[:, 0].clone(), merged[:, 1].clone()
    merged[:, 0], merged[:, 1] = x * turned.cos() - y * turned.sin(), x * turned.sin() + y * turned.cos()
    cases = [
        (
            "18000 points, 0.16 m pillars",
            kitti,
            VoxelGrid((0, -39.68, -3, 69.12, 39.68, 1), (0.16, 0.16, 4), 32, 16000, 40000),
        ),
        (
            "18000 points, 0.05 m voxels",
            kitti,
            VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1), 5, 16000, 40000),
        ),
        (
            "347000 points, 0.1 m voxels",
            merged,
            VoxelGrid((-51.2, -51.2, -5, 51.2, 51.2, 3), (0.1, 0.1, 0.2), 10, 120000, 160000),
        ),
    ]
    results = {}
    for title, points, grid in cases:
        points = points.to(device)
        batch_index = torch.zeros(len(points), dtype=torch.int64, device=device)
        candidates: dict[str, Callable[[], Any]] = {
            "voxelise": lambda points=points, batch_index=batch_index, grid=grid: voxelise(
                points, batch_index, 1, grid, False
            ),
            "torch.unique, no caps, no order": lambda points=points, grid=grid: unique_cells(points, grid),
        }
        times = compare(candidates, 3 * repeats)
        num_voxels = len(voxelise(points, batch_index, 1, grid, False).counts)
        print_ratios(f"voxels of {title}: {num_voxels}", times)
        results[title] = {"times": times, "voxels": num_voxels}
    return results


def bench_points_in_boxes(device: str, repeats: int) -> dict[str, Any]:
    points, boxes = random_cloud(16_384, 100, SEED).to(device), random_boxes(512, SEED).to(device)
    same = float((box_of_points(points, boxes) == dense_box_of_points(points, boxes)).float().mean())
    times = compare(
        {
            "box_of_points": lambda: box_of_points(points, boxes),
            "every pair": lambda: dense_box_of_points(points, boxes),
        },
        repeats,
    )
    print_ratios(f"the box of each of 16384 points among 512; {same:.6f} the same", times)
    return {"times": times, "same_share": same}


def bench_neighbours(device: str, repeats: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(SEED)
    results = {}
    dense = torch.randn(22_000, 64, generator=generator).relu()
    dying = dense.clone()
    dying[torch.rand(22_000, generator=generator) < 0.3] = 0
    for title, features in (("features after ReLU", dense), ("a third of the rows zero", dying)):
        queries, database = features[:6000].to(device), features[6000:].to(device)
        candidates: dict[str, Callable[[], Tensor]] = {
            "k_nearest": lambda queries=queries, database=database: k_nearest(queries, database, 128),
            "torch.cdist and topk": lambda queries=queries, database=database: cdist_neighbours(queries, database, 128),
        }
        times = compare(candidates, repeats)
        same = float((k_nearest(queries, database, 128) == cdist_neighbours(queries, database, 128)).float().mean())
        print_ratios(
            f"128 nearest of 16000 for 6000 queries, 64 channels, {title}; {same:.4f} of the rows the same", times
        )
        results[title] = {"times": times, "same_share": same}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="JSON file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment(arguments.device))
    benches = {
        "overlap": bench_overlap,
        "nms": bench_nms,
        "voxels": bench_voxels,
        "box_of_points": bench_points_in_boxes,
        "neighbours": bench_neighbours,
    }
    results = {name: bench(arguments.device, arguments.repeats) for name, bench in benches.items()}
    if arguments.out:
        record(arguments.out, "ops", {"seed": SEED, "repeats": arguments.repeats, **results}, arguments.device)


if __name__ == "__main__":
    main()
