"""Hard voxelisation point by point, as its definition reads."""

import numpy as np


def voxelise(points, batch_index, batch_size, grid, max_voxels):
    """Voxels in order: a list of ((batch, z, y, x), [rows of its points])."""
    minimum, size = np.asarray(grid.point_range[:3], dtype=np.float32), np.asarray(grid.voxel_size, dtype=np.float32)
    voxels = []
    for frame in range(batch_size):
        rows_of = {}
        for row in range(len(points)):
            if batch_index[row] != frame or not np.isfinite(points[row]).all():
                continue
            x, y, z = np.floor((points[row, :3].astype(np.float32) - minimum) / size).tolist()
            if not (0 <= x < grid.shape[0] and 0 <= y < grid.shape[1] and 0 <= z < grid.shape[2]):
                continue
            cell = (frame, int(z), int(y), int(x))
            if cell not in rows_of:
                if len(rows_of) == max_voxels:
                    continue
                rows_of[cell] = []
            if len(rows_of[cell]) < grid.max_points_per_voxel:
                rows_of[cell].append(row)
        voxels.extend(rows_of.items())
    return voxels
