"""A detector small enough for a test, and batches for it."""

from __future__ import annotations

import math

import torch

from lidistill.detector_inputs import VoxelGrid, Voxels
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.encoders.pillars import PillarEncoderConfig
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.detectors.presets import CLASSES, KITTI_ANCHORS
from lidistill.types import Batch, Boxes

GRID = VoxelGrid(
    (0.0, -3.84, -3.0, 10.24, 3.84, 1.0),
    (0.32, 0.32, 4.0),
    max_points_per_voxel=5,
    max_voxels_train=200,
    max_voxels_eval=400,
)


def small_config(**head: object) -> PointPillarsConfig:
    """32 x 24 pillars, two stages, a few channels."""
    return PointPillarsConfig(
        classes=CLASSES,
        grid=GRID,
        encoder=PillarEncoderConfig(channels=8),
        bev=BevConfig(channels=(8, 16), layers=(1, 1), strides=(2, 2), neck_channels=(8, 8), neck_strides=(1, 2)),
        head=AnchorHeadConfig(anchors=KITTI_ANCHORS, **head),
    )


def scene(generator: torch.Generator, num_points: int = 600) -> tuple[torch.Tensor, Boxes]:
    """Points (P, 4) over and around the grid, more of them near the sensor, and one box of each class."""
    points = torch.rand(num_points, 4, generator=generator)
    points[:, 0] = points[:, 0] ** 2 * 12 - 0.5
    points[:, 1] = (points[:, 1] - 0.5) * 9
    points[:, 2] = points[:, 2] * 5 - 3.5
    boxes = Boxes(
        geometry=torch.tensor(
            [
                [4.0, 1.0, -1.0, 3.9, 1.6, 1.56, 0.2],
                [7.1, -2.2, 0.27, 0.8, 0.6, 1.73, math.pi / 2],
                [2.2, -3.1, 0.27, 1.76, 0.6, 1.73, -3.0],
            ]
        ),
        labels=torch.tensor([0, 1, 2]),
    )
    return points, boxes


def batch_of(*frames: tuple[torch.Tensor, Boxes]) -> Batch:
    counts = torch.tensor([len(points) for points, _ in frames])
    return Batch(
        frame_ids=tuple(str(index) for index in range(len(frames))),
        points=torch.cat([points for points, _ in frames]),
        batch_index=torch.repeat_interleave(torch.arange(len(frames)), counts),
        boxes=tuple(boxes for _, boxes in frames),
    )


def small_batch(seed: int = 0, size: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return batch_of(*(scene(generator) for _ in range(size)))


def random_voxels(seed: int = 0, num_voxels: int = 20, grid: VoxelGrid = GRID) -> Voxels:
    """Voxels of two frames with random counts, the fullest of them full."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(grid.shape[0] * grid.shape[1], generator=generator)[:num_voxels]
    counts = torch.randint(1, grid.max_points_per_voxel + 1, (num_voxels,), generator=generator)
    counts[:2] = grid.max_points_per_voxel
    batch = (torch.arange(num_voxels) >= num_voxels // 2).long()
    coords = torch.stack([batch, torch.zeros_like(cells), cells // grid.shape[0], cells % grid.shape[0]], dim=1)
    rows = torch.repeat_interleave(torch.arange(num_voxels), counts)
    low, size = torch.tensor(grid.point_range[:3]), torch.tensor(grid.voxel_size)
    inside = torch.rand(len(rows), 3, generator=generator) * size + low + coords[rows][:, [3, 2, 1]] * size
    points = torch.cat([inside, torch.rand(len(rows), 1, generator=generator)], dim=1)
    return Voxels(points=points, voxel_index=rows, counts=counts, coords=coords, grid=grid, batch_size=2)
