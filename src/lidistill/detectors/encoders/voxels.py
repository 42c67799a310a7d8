"""The sparse voxel encoder: from voxels to a bird's-eye view map by convolutions on occupied voxels only (SECOND,
Sensors 2018; CenterPoint's voxel networks).

The first stage keeps the resolution, and each further stage halves it with its first convolution. A last convolution
reduces the number of layers along z. All other convolutions are submanifold: their output sites are their input sites,
so the occupied voxels do not spread. Sites, strides and paddings are those of OpenPCDet and mmdetection3d; as there,
the grid has one more layer along z than the range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from lidistill.detector_inputs import VoxelGrid, Voxels
from lidistill.detectors.bev_detector import BevEncoder, EncoderConfig
from lidistill.detectors.canvas import Canvas
from lidistill.detectors.encoders.sparse_blocks import ResidualBlock, SparseBlock
from lidistill.detectors.width import WidthRule
from lidistill.ops.grid_cells import Triple, cell_numbers, numbered_cells
from lidistill.ops.kernels.sparse_convolution import KernelMap, Sites, strided_map, submanifold_map
from lidistill.ops.layer_graph import INPUT, ChannelBlock, Layer
from lidistill.outputs import FeatureSet
from lidistill.settings import Channels, LayersOrNone, Widths
from lidistill.types import InputError

KERNEL: Triple = (3, 3, 3)
DOWN: Triple = (2, 2, 2)
FLAT_KERNEL: Triple = (3, 1, 1)
FLAT_STRIDE: Triple = (2, 1, 1)
FLAT_PADDING: Triple = (0, 0, 0)


@dataclass(frozen=True)
class SparseEncoderConfig(EncoderConfig):
    """Settings of a SparseEncoder. The defaults are those of SECOND; CenterPoint's residual networks have stages of 16,
    32, 64 and 128 channels with 2 blocks each.
    """

    kind: Literal["plain", "residual"] = "plain"  # a block is one convolution, or two with a skip
    stage_channels: Widths = (16, 32, 64, 64)
    stage_blocks: tuple[LayersOrNone, ...] = (1, 2, 2, 2)  # besides the convolution that opens the stage
    channels: Channels = 128  # of the last convolution
    bias: bool = False  # of the convolutions in residual blocks: OpenPCDet's have one, mmdetection3d's none

    def __post_init__(self) -> None:
        if len(self.stage_blocks) != len(self.stage_channels):
            raise InputError(
                f"encoder: stage_blocks has {len(self.stage_blocks)} entries for {len(self.stage_channels)} stages; "
                "give one for each stage"
            )
        if self.bias and self.kind == "plain":
            raise InputError("encoder: only residual blocks have a bias; set kind to residual, or bias to false")

    @property
    def stride(self) -> int:
        return int(2 ** (len(self.stage_channels) - 1))

    @property
    def paddings(self) -> tuple[Triple, ...]:
        """Paddings (z, y, x) of the strided convolutions that open all stages but the first; the last has 0 along z."""
        halvings = len(self.stage_channels) - 1
        return tuple((0, 1, 1) if index == halvings - 1 else (1, 1, 1) for index in range(halvings))

    def map_channels(self, grid: VoxelGrid) -> int:
        return self.channels * self.depth(grid.shape[2])

    def depth(self, cells: int) -> int:
        """Layers along z after the last convolution, for a grid with `cells` layers; below 1 if none remains."""
        left = cells + 1
        for padding in self.paddings:
            left = (left + 2 * padding[0] - KERNEL[0]) // DOWN[0] + 1
        return (left - FLAT_KERNEL[0]) // FLAT_STRIDE[0] + 1

    def check_grid(self, grid: VoxelGrid) -> None:
        cells = grid.shape[2]
        if self.depth(cells) < 1:
            enough = next(more for more in range(cells + 1, 8 * self.stride + 1) if self.depth(more) >= 1)
            tall = grid.point_range[5] - grid.point_range[2]
            raise InputError(
                f"grid: {cells} cells along z are too few for the encoder, which needs {enough}; "
                f"set the voxel height to {tall / enough:.6g} m or the maximum of z to "
                f"{grid.point_range[2] + enough * grid.voxel_size[2]:.6g} m"
            )

    def thinner(self, rule: WidthRule) -> SparseEncoderConfig:
        widths = tuple(rule.width(channels, rule.encoder) for channels in self.stage_channels)
        return replace(self, stage_channels=widths, channels=rule.width(self.channels, rule.encoder))

    def build(self, grid: VoxelGrid, num_point_features: int) -> SparseEncoder:
        return SparseEncoder(self, grid, num_point_features)


@dataclass(frozen=True)
class Level:
    """The sites of one stage, and the kernel maps of its convolutions."""

    sites: Sites
    entry: KernelMap  # of the convolution that opens the stage
    around: KernelMap  # of all convolutions that keep the sites


class SparseEncoder(BevEncoder):
    """Mean of each voxel's points, then stages of sparse convolutions, then a map of channels * depth channels, where
    depth is the number of layers along z.
    """

    def __init__(self, config: SparseEncoderConfig, grid: VoxelGrid, num_point_features: int) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        widths = (3 + num_point_features, *config.stage_channels)
        self.stages = nn.ModuleList(
            nn.ModuleList([SparseBlock(before, after), *(_block(config, after) for _ in range(blocks))])
            for before, after, blocks in zip(widths, config.stage_channels, config.stage_blocks, strict=False)
        )
        self.output = SparseBlock(config.stage_channels[-1], config.channels, kernel_volume=FLAT_KERNEL[0])

    def forward(self, voxels: Voxels) -> tuple[FeatureSet, Canvas]:
        """M voxels -> features (N, channels) at the sites of the last convolution, and the map.

        A cell of the map has one site for each of its occupied layers along z.
        """
        # Half precision would round coordinates of 70 m to 0.25 m.
        with torch.autocast(voxels.points.device.type, enabled=False):
            levels, sites, flattening = self.index_maps(voxels)
            features = self.output(self.trunk(voxel_means(voxels), levels), flattening)
            rows = FeatureSet(
                features=features,
                batch_index=sites.coords[:, 0],
                positions=self.receptive_centres(sites.coords),
                occupancy=points_under(voxels, sites, self.config.stride),
            )
            return rows, flattened(features, sites)

    def index_maps(self, voxels: Voxels) -> tuple[list[Level], Sites, KernelMap]:
        """Return the levels of all stages, and the sites and the kernel map of the last convolution."""
        width, height, layers = self.grid.shape
        sites = Sites(voxels.coords, (layers + 1, height, width), voxels.batch_size)
        around = submanifold_map(sites, KERNEL)
        levels = [Level(sites, around, around)]
        for padding in self.config.paddings:
            sites, entry = strided_map(sites, KERNEL, DOWN, padding)
            levels.append(Level(sites, entry, submanifold_map(sites, KERNEL)))
        return levels, *strided_map(sites, FLAT_KERNEL, FLAT_STRIDE, FLAT_PADDING)

    def trunk(self, features: Tensor, levels: Sequence[Level]) -> Tensor:
        """Features (M, 3 + F) of the voxels -> features at the sites of the last level."""
        for stage, level in zip(self.stages, levels, strict=True):
            opening, *blocks = stage.children()
            features = opening(features, level.entry)
            for block in blocks:
                features = block(features, level.around)
        return features

    def exportable(self) -> nn.Module:
        raise InputError(
            "a sparse encoder has no form in standard operators: its convolutions look up neighbours in tables that "
            "are built for each frame; export only the dense part, and run the encoder with lidistill before it"
        )

    def receptive_centres(self, coords: Tensor) -> Tensor:
        """Centres (N, 3), in metres, of the receptive fields of the last convolution's sites (N, 4: batch, z, y, x)."""
        layers = [(KERNEL, DOWN, padding) for padding in self.config.paddings] + [
            (FLAT_KERNEL, FLAT_STRIDE, FLAT_PADDING)
        ]
        places = []
        for axis in (2, 1, 0):  # x, y, z; kernels, strides and paddings are ordered z, y, x
            step, first = 1.0, 0.5  # stride, and centre of the receptive field of site 0, in voxels
            for kernel, stride, padding in layers:
                first += step * ((kernel[axis] - 1) / 2 - padding[axis])
                step *= stride[axis]
            low, size = self.grid.point_range[2 - axis], self.grid.voxel_size[2 - axis]
            places.append(coords[:, 1 + axis].to(torch.float32) * (step * size) + (low + first * size))
        return torch.stack(places, dim=1)

    def layer_graph(self) -> tuple[list[Layer], tuple[ChannelBlock, ...]]:
        layers, blocks = [], (ChannelBlock(INPUT),)
        for index, stage in enumerate(self.stages):
            for place, block in enumerate(stage.children()):
                name, output = f"stages.{index}.{place}", f"encoder.{index}.{place}"
                # the second convolution is added to the block's input, so both have the same channels
                if isinstance(block, ResidualBlock):
                    layers += [
                        _layer(f"{name}.first", blocks, output),
                        _layer(f"{name}.second", (ChannelBlock(output),), blocks[0].source),
                    ]
                else:
                    layers.append(_layer(name, blocks, output))
                    blocks = (ChannelBlock(output),)
        layers.append(_layer("output", blocks, "encoder.output"))
        return layers, (ChannelBlock("encoder.output", copies=self.config.depth(self.grid.shape[2])),)


def voxel_means(voxels: Voxels) -> Tensor:
    """Mean of the points of each voxel in every column: (M, 3 + F)."""
    sums = torch.segment_reduce(voxels.points, "sum", lengths=voxels.counts, axis=0, unsafe=True)
    return sums / voxels.counts[:, None].to(sums.dtype)


def flattened(features: Tensor, sites: Sites) -> Canvas:
    """Features (N, C) at sites on D layers -> a map of C * D channels: channel c of layer d becomes c * D + d."""
    depth, height, width = sites.shape
    batch, z, y, x = sites.coords.unbind(dim=1)
    # The number of occupied cells depends on the sites, so the host waits for the device, as for the kernel maps.
    cells, column = torch.unique((batch * height + y) * width + x, return_inverse=True)
    layers = features.new_zeros((len(cells) * depth, features.shape[1])).index_copy(0, column * depth + z, features)
    columns = layers.view(len(cells), depth, features.shape[1]).transpose(1, 2).flatten(1)
    return Canvas(columns, Sites(numbered_cells(cells, (1, height, width)), (1, height, width), sites.batch_size))


def points_under(voxels: Voxels, sites: Sites, stride: int) -> Tensor:
    """Number of kept points in the block of voxels that belongs to each site: (N,) int64.

    A block has `stride` voxels along x and y, and 2 * `stride` along z; the blocks of the topmost layer of sites also
    take the voxels above. Blocks do not overlap, so a point counts once. A site has 0 points if all points in its
    receptive field lie in other blocks.
    """
    batch, z, y, x = voxels.coords.unbind(dim=1)
    blocks = torch.stack([batch, (z // (2 * stride)).clamp(max=sites.shape[0] - 1), y // stride, x // stride], dim=1)
    totals = voxels.counts.new_zeros(voxels.batch_size * math.prod(sites.shape))
    totals = totals.index_add(0, cell_numbers(blocks, sites.shape), voxels.counts)
    return totals[cell_numbers(sites.coords, sites.shape)]


def _layer(name: str, inputs: tuple[ChannelBlock, ...], output: str) -> Layer:
    """The layer of a SparseBlock."""
    return Layer(f"{name}.conv", f"{name}.norm", inputs, output, axes=(2, 1))


def _block(config: SparseEncoderConfig, channels: int) -> nn.Module:
    if config.kind == "residual":
        return ResidualBlock(channels, config.bias)
    return SparseBlock(channels, channels)
