"""The bird's-eye view (BEV) network: a trunk and a neck.

The trunk's stages reduce the resolution. The neck brings their maps to one resolution and concatenates them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors.canvas import Canvas
from lidistill.detectors.detector import NORM_EPS, NORM_MOMENTUM
from lidistill.detectors.norms import MapNorm
from lidistill.detectors.width import WidthRule
from lidistill.ops.kernels.joined_maps import joined_maps
from lidistill.ops.layer_graph import ChannelBlock, Layer
from lidistill.settings import LayersOrNone, Number, Settings, Whole, Widths
from lidistill.types import InputError

Stride = Annotated[Whole, Field(ge=1, le=64)]
NeckStride = Annotated[Number, Field(gt=0, le=64)]


@dataclass(frozen=True)
class BevConfig(Settings):
    """Settings of trunk and neck, one entry per stage. The defaults are those of PointPillars on KITTI.

    Raises InputError if the neck does not bring all stages to one resolution.
    """

    place: ClassVar[str] = "bev"

    channels: Widths = (64, 128, 256)
    layers: tuple[LayersOrNone, ...] = (3, 5, 5)  # convolutions of each stage after its strided one
    strides: tuple[Stride, ...] = (2, 2, 2)
    neck_channels: Widths = (128, 128, 128)
    neck_strides: tuple[NeckStride, ...] = (1, 2, 4)  # upsampling factor of each stage; 0.5 halves the resolution

    def __post_init__(self) -> None:
        for name in ("layers", "strides", "neck_channels", "neck_strides"):
            if len(getattr(self, name)) != len(self.channels):
                raise InputError(
                    f"bev: {name} has {len(getattr(self, name))} entries for {len(self.channels)} stages; give one "
                    "for each stage"
                )
        if not all(stride == int(stride) or 1 / stride == int(1 / stride) for stride in self.neck_strides):
            raise InputError(
                f"bev: the neck's strides {self.neck_strides} must be whole numbers, or one over a whole number to "
                "shrink a stage"
            )
        ratios = [stride / up for stride, up in zip(self.stage_strides, self.neck_strides, strict=True)]
        if len(set(ratios)) != 1 or ratios[0] != int(ratios[0]):
            fitting = tuple(max(1, stride // self.stage_strides[0]) for stride in self.stage_strides)
            raise InputError(
                f"bev: the neck's strides {self.neck_strides} do not bring the trunk's {self.stage_strides} to one "
                f"resolution; try {fitting}"
            )

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Stride of each stage's output, relative to the trunk's input map."""
        strides, product = [], 1
        for stride in self.strides:
            product *= stride
            strides.append(product)
        return tuple(strides)

    @property
    def neck_stride(self) -> int:
        """Stride of the neck's output, relative to the trunk's input map."""
        return int(self.stage_strides[0] / self.neck_strides[0])

    def thinner(self, rule: WidthRule) -> BevConfig:
        """The same settings with fewer channels in trunk and neck (`rule.backbone`)."""
        return replace(
            self,
            channels=tuple(rule.width(channels, rule.backbone) for channels in self.channels),
            neck_channels=tuple(rule.width(channels, rule.backbone) for channels in self.neck_channels),
        )

    def check_grid(self, grid: VoxelGrid, encoder_stride: int = 1) -> None:
        """Raise InputError unless the grid divides into whole cells of every stage and of the neck.

        The trunk's input map has the stride `encoder_stride`. The error gives the nearest valid ranges. A grid whose
        coarsest map has a single cell is refused as well.
        """
        coarsest = math.lcm(self.stage_strides[-1], self.neck_stride) * encoder_stride
        shape = grid.shape
        for axis in range(2):
            if shape[axis] % coarsest:
                low, step = grid.point_range[axis], grid.voxel_size[axis]
                fewer, more = shape[axis] // coarsest * coarsest, -(-shape[axis] // coarsest) * coarsest
                valid = [f"{low + cells * step:.6g} m ({cells} cells)" for cells in (fewer, more) if cells > 0]
                raise InputError(
                    f"grid: {shape[axis]} cells along {'xy'[axis]} are not divisible by the stride {coarsest} of trunk "
                    "and neck; "
                    f"set the maximum of {'xy'[axis]} to {' or '.join(valid)}, or the voxel size to "
                    f"{(grid.point_range[axis + 3] - low) / more:.6g} m"
                )
        if shape[0] * shape[1] == (max(self.stage_strides[-1], self.neck_stride) * encoder_stride) ** 2:
            raise InputError(
                "grid: the coarsest map has a single cell, which BatchNorm cannot train on; enlarge the range or use "
                "smaller voxels"
            )


class BevTrunk(nn.Module):
    """Stages of 3 x 3 convolutions, the first of each stage strided: a map (B, C, H, W) -> one map per stage.

    The input is a Canvas, so that the first convolution can skip empty cells, or a dense tensor, for an export.
    """

    def __init__(self, config: BevConfig, in_channels: int) -> None:
        super().__init__()
        widths = (in_channels, *config.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *_convolution(before, after, stride),
                *(layer for _ in range(layers) for layer in _convolution(after, after, 1)),
            )
            for before, after, layers, stride in zip(
                widths, config.channels, config.layers, config.strides, strict=False
            )
        )

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of the weights, which the maps follow."""
        first = next(self.parameters())
        return (
            torch.channels_last if first.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )

    def forward(self, canvas: Canvas | Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages:
            opening, *layers = stage.children()
            assert isinstance(opening, nn.Conv2d)
            if maps:
                features = opening(maps[-1])
            elif isinstance(canvas, Canvas):
                features = canvas.convolved(opening).contiguous(memory_format=self.memory_format)
            else:
                features = opening(canvas)
            for layer in layers:
                features = layer(features)
            maps.append(features)
        return maps

    def layer_graph(self, canvas: tuple[ChannelBlock, ...]) -> tuple[list[Layer], tuple[ChannelBlock, ...]]:
        """The trunk's layers, and one block of output channels per stage."""
        layers: list[Layer] = []
        ends: list[ChannelBlock] = []
        blocks = canvas
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.Sequential)
            for place in range(0, len(stage), 3):  # convolution, norm, ReLU
                output = f"bev.{index}.{place}"
                layers.append(Layer(f"stages.{index}.{place}", f"stages.{index}.{place + 1}", blocks, output))
                blocks = (ChannelBlock(output),)
            ends += blocks
        return layers, tuple(ends)


class BevNeck(nn.Module):
    """Brings every stage to one resolution and concatenates them: -> (B, sum of neck channels, H, W)."""

    def __init__(self, config: BevConfig) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(_resizing(before, after, stride), _norm(after), nn.ReLU(inplace=True))
            for before, after, stride in zip(config.channels, config.neck_channels, config.neck_strides, strict=True)
        )

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        enlarged = [_enlarged(branch, stage) for branch, stage in zip(self.branches, stages, strict=True)]
        return joined_maps(enlarged).permute(0, 3, 1, 2)

    def layer_graph(self, stages: tuple[ChannelBlock, ...]) -> tuple[list[Layer], tuple[ChannelBlock, ...]]:
        """The neck's layers, and the channels of its output: one block per stage."""
        layers = []
        for index, (branch, stage) in enumerate(zip(self.branches, stages, strict=True)):
            assert isinstance(branch, nn.Sequential)
            axes = (1, 0) if isinstance(branch[0], nn.ConvTranspose2d) else (0, 1)
            layers.append(Layer(f"branches.{index}.0", f"branches.{index}.1", (stage,), f"neck.{index}", axes))
        return layers, tuple(ChannelBlock(f"neck.{index}") for index in range(len(layers)))


def _enlarged(branch: nn.Module, stage: Tensor) -> Tensor:
    """Apply a branch with upsampling factor s to a stage (B, C, h, w): -> (B, h, s, w, s, C'), for `joined_maps`.

    A transposed convolution whose outputs do not overlap is computed as one matrix product, in two thirds to nine
    tenths of its time. Norm and ReLU do not depend on the order of the cells, so they run before the cells are
    reordered.
    """
    resizing, norm, relu = branch.children()
    if isinstance(resizing, nn.Conv2d):
        return relu(norm(resizing(stage))).permute(0, 2, 3, 1)[:, :, None, :, None]
    assert isinstance(resizing, nn.ConvTranspose2d)
    step = resizing.stride[0]
    weight = resizing.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (s * s * C', C)
    bias = None if resizing.bias is None else resizing.bias.repeat(step * step)
    product = F.linear(stage.permute(0, 2, 3, 1), weight, bias)
    batch, height, width, _ = product.shape
    cells = product.view(batch, height, width * step * step, -1).permute(0, 3, 1, 2)
    rows = relu(norm(cells)).permute(0, 2, 3, 1).reshape(batch, height, width, step, step, -1)
    return rows.permute(0, 1, 3, 2, 4, 5)


def _resizing(in_channels: int, out_channels: int, stride: float) -> nn.Module:
    """The kernel equals the stride, so outputs do not overlap.

    A stride of 1 also gives a transposed convolution, as in OpenPCDet.
    """
    if stride < 1:
        return nn.Conv2d(in_channels, out_channels, int(1 / stride), int(1 / stride), bias=False)
    return nn.ConvTranspose2d(in_channels, out_channels, int(stride), int(stride), bias=False)


def _convolution(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return [convolution, _norm(out_channels), nn.ReLU(inplace=True)]


def _norm(channels: int) -> MapNorm:
    return MapNorm(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)
