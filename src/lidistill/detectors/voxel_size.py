"""The same network with larger or smaller voxels, such as the students of SparseKD (NeurIPS 2022) and RDD (ICCV 2023)
with coarser pillars.
"""

from __future__ import annotations

import math
from dataclasses import replace

from lidistill.detectors.bev_detector import Config
from lidistill.types import InputError

DECIMALS = 6  # of the range in metres; rounding to them hides the rounding errors of cells * size


def with_voxel_size(config: Config, size: float, max_points_per_voxel: int | None = None) -> Config:
    """`config` with voxels of `size` metres along x and y; channels, layers and the voxel height stay unchanged.

    The range becomes the nearest one that divides into whole cells of the coarsest map; of two equally near ones, the
    smaller. With 0.64 m, Waymo's +-74.88 m becomes +-74.24 m, as in SparseKD's settings. With 0.4 m it becomes
    +-75.2 m, while SparseKD's settings have +-73.6 m. An axis whose range is centred on the sensor stays centred; any
    other axis keeps its minimum.

    `max_points_per_voxel` is the new cap; None keeps the old one. Coarser voxels hold more points: the published
    students have caps of 28, 36 and 50 on pillars of 0.4, 0.48 and 0.64 m, against 20 on 0.32 m.

    Raises InputError if the size is not a positive number of metres, or so large that the coarsest map has no cell.
    """
    if not 0 < size < float("inf"):
        raise InputError(f"voxel size {size} m; give a positive number of metres")
    # voxels per cell of the coarsest map
    coarsest = config.encoder.stride * math.lcm(config.bev.stage_strides[-1], config.bev.neck_stride)
    low, high = list(config.grid.point_range[:3]), list(config.grid.point_range[3:])
    for axis in range(2):
        extent = high[axis] - low[axis]
        num_blocks = math.ceil(extent / (coarsest * size) - 0.5 - 1e-9)
        if num_blocks < 1:
            raise InputError(
                f"voxel size {size} m: {coarsest} voxels, which make one cell of the coarsest map, do not fit into "
                f"{extent:.6g} m along {'xy'[axis]}; "
                f"use at most {extent / coarsest:.6g} m"
            )
        snapped = num_blocks * coarsest * size
        if low[axis] == -high[axis]:
            low[axis] = round(-snapped / 2, DECIMALS)
        high[axis] = round(low[axis] + snapped, DECIMALS)
    grid = replace(
        config.grid,
        point_range=(low[0], low[1], low[2], high[0], high[1], high[2]),
        voxel_size=(size, size, config.grid.voxel_size[2]),
        max_points_per_voxel=config.grid.max_points_per_voxel if max_points_per_voxel is None else max_points_per_voxel,
    )
    return replace(config, grid=grid)
