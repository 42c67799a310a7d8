"""The sparse encoder on a dense grid: conv3d on every cell, and a mask of the occupied ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.detector_inputs import Voxels
from lidistill.detectors.encoders.sparse_blocks import ResidualBlock, SparseBlock
from lidistill.detectors.encoders.voxels import SparseEncoder


def dense_encoder(encoder: SparseEncoder, voxels: Voxels) -> tuple[Tensor, Tensor]:
    """Features (B, C, D, H, W) of the last layer, zero where there is no site, and the mask of the sites (B, 1, D, H,
    W).
    """
    nx, ny, nz = voxels.grid.shape
    dtype = encoder.output.norm.weight.dtype
    mask = torch.zeros(voxels.batch_size, 1, nz + 1, ny, nx, dtype=dtype)
    grid = torch.zeros(voxels.batch_size, voxels.points.shape[1], nz + 1, ny, nx, dtype=dtype)
    for row, (batch, z, y, x) in enumerate(voxels.coords.tolist()):
        mask[batch, 0, z, y, x] = 1
        grid[batch, :, z, y, x] = voxels.points[voxels.voxel_index == row].to(dtype).mean(dim=0)
    last = len(encoder.stages) - 1
    for index, stage in enumerate(encoder.stages):
        for place, block in enumerate(stage):
            if index and place == 0:
                padding = (0, 1, 1) if index == last else (1, 1, 1)
                mask = spread(mask, (3, 3, 3), (2, 2, 2), padding)
                grid = torch.relu(normalised(block, grid, mask, (3, 3, 3), 2, padding))
            elif isinstance(block, ResidualBlock):
                inner = torch.relu(normalised(block.first, grid, mask))
                grid = torch.relu(normalised(block.second, inner, mask) + grid)
            else:
                grid = torch.relu(normalised(block, grid, mask))
    mask = spread(mask, (3, 1, 1), (2, 1, 1), (0, 0, 0))
    return torch.relu(normalised(encoder.output, grid, mask, (3, 1, 1), (2, 1, 1), 0)), mask


def spread(
    mask: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: tuple[int, int, int]
) -> Tensor:
    """Cells that see an occupied one."""
    return (F.conv3d(mask, mask.new_ones(1, 1, *kernel), stride=stride, padding=padding) > 0.5).to(mask.dtype)


def normalised(block: SparseBlock, grid: Tensor, mask: Tensor, kernel=(3, 3, 3), stride=1, padding=1) -> Tensor:
    """Dense convolution, BatchNorm over the occupied cells, zero elsewhere."""
    weight = block.conv.weight  # (K, C_in, C_out)
    dense = weight.permute(2, 1, 0).reshape(weight.shape[2], weight.shape[1], *kernel)
    result = F.conv3d(grid, dense, block.conv.bias, stride=stride, padding=padding)
    occupied = mask[:, 0].bool()
    norm = block.norm
    rows = result.permute(0, 2, 3, 4, 1)[occupied]
    rows = F.batch_norm(
        rows,
        norm.running_mean.clone(),
        norm.running_var.clone(),
        norm.weight,
        norm.bias,
        training=norm.training,
        momentum=0.01,
        eps=norm.eps,
    )
    return (
        torch.zeros_like(result.permute(0, 2, 3, 4, 1)).masked_scatter(occupied[..., None], rows).permute(0, 4, 1, 2, 3)
    )
