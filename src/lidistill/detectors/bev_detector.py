"""What the one-stage detectors have in common: an encoder that turns voxels into a bird's-eye view map, a trunk and a
neck on it, and a head.

PointPillars, SECOND and CenterPoint differ in which encoder and which head they put together; each states that in its
own file.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

import torch
from pydantic import InstanceOf
from torch import Tensor, nn

from lidistill.detector_inputs import Inputs, VoxelGrid, Voxels
from lidistill.detectors.backbones import BevConfig, BevNeck, BevTrunk
from lidistill.detectors.canvas import Canvas
from lidistill.detectors.detector import Detector, DetectorConfig
from lidistill.detectors.folding import fold_norms
from lidistill.detectors.width import WidthRule
from lidistill.ops.kernels.voxelise import voxelise
from lidistill.ops.layer_graph import ChannelBlock, Layer
from lidistill.outputs import DetectorOutput, FeatureMap, FeatureSet, HeadOutput, HeadSpec, MapSpec, SetSpec, TapSpec
from lidistill.settings import Channels, Range, Settings
from lidistill.types import Batch, Boxes, InputError, Losses, as_batch


class BevEncoder(nn.Module, ABC):
    """Voxels -> features of pillars or voxels, and the bird's-eye view map made of them."""

    @abstractmethod
    def forward(self, voxels: Voxels) -> tuple[FeatureSet, Canvas]:
        """The rows for the tap `encoder`, and the trunk's input."""

    @abstractmethod
    def exportable(self) -> nn.Module:
        """The same function in standard operators, which torch.export can trace: padded voxels -> the map.

        Its inputs are (M, S, 3 + F) points with any filling behind the kept ones, (M,) counts and (M, 4) coords as in
        Voxels, of one frame. An InputError where the encoder has no such form.
        """

    @abstractmethod
    def layer_graph(self) -> tuple[list[Layer], tuple[ChannelBlock, ...]]:
        """Its layers, and the channels of the map."""


class EncoderConfig(Settings, ABC):
    """Settings of a BevEncoder."""

    place: ClassVar[str] = "encoder"

    channels: Channels  # of the rows

    @property
    def stride(self) -> int:
        """Cells of the voxel grid per cell of the map, along x and y."""
        return 1

    @abstractmethod
    def map_channels(self, grid: VoxelGrid) -> int:
        """Channels of the map."""

    @abstractmethod
    def check_grid(self, grid: VoxelGrid) -> None:
        """An InputError unless the encoder can work on `grid`."""

    @abstractmethod
    def thinner(self, rule: WidthRule) -> EncoderConfig:
        """The same encoder with fewer channels."""

    @abstractmethod
    def build(self, grid: VoxelGrid, num_point_features: int) -> BevEncoder:
        """`num_point_features` counts the columns after x, y, z."""


class BevHead(nn.Module, ABC):
    """The joined map (B, C, H, W) -> raw head maps; loss and boxes are read off them."""

    @abstractmethod
    def forward(self, features: Tensor) -> tuple[HeadOutput, ...]:
        """One output a task."""

    @abstractmethod
    def specs(self, stride: int) -> tuple[HeadSpec, ...]:
        """What is known of each output before the first batch; `stride` is that of the map."""

    @abstractmethod
    def loss(
        self, outputs: tuple[HeadOutput, ...], batch: Batch, ranked_by: tuple[HeadOutput, ...] | None = None
    ) -> Losses:
        """Weighted terms; `ranked_by` as in Detector.loss."""

    @abstractmethod
    def decode(self, outputs: tuple[HeadOutput, ...]) -> list[Boxes]:
        """Detections of each frame, best first."""

    @abstractmethod
    def layer_graph(self, joined: tuple[ChannelBlock, ...]) -> list[Layer]:
        """Its layers, given the channels of the joined map."""


class HeadConfig(Settings, ABC):
    """Settings of a BevHead."""

    place: ClassVar[str] = "head"

    @abstractmethod
    def check_classes(self, classes: tuple[str, ...]) -> None:
        """An InputError unless the head predicts just these classes."""

    @abstractmethod
    def thinner(self, rule: WidthRule) -> HeadConfig:
        """The same head with fewer channels."""

    @abstractmethod
    def build(
        self, in_channels: int, classes: tuple[str, ...], point_range: tuple[float, ...], size: tuple[int, int]
    ) -> BevHead:
        """`size` is the width and height of the map, in cells."""


Config = TypeVar("Config", bound="BevDetectorConfig")


@dataclass(frozen=True)
class BevDetectorConfig(DetectorConfig, ABC):
    """Settings of a BevDetector. A detector's own config says which kinds of encoder and head it has."""

    grid: VoxelGrid = field(kw_only=True)
    encoder: InstanceOf[EncoderConfig] = field(kw_only=True)
    head: InstanceOf[HeadConfig] = field(kw_only=True)
    bev: BevConfig = field(default_factory=BevConfig)

    def __post_init__(self) -> None:
        self.head.check_classes(self.classes)
        self.encoder.check_grid(self.grid)
        self.bev.check_grid(self.grid, self.encoder.stride)

    @property
    def point_range(self) -> Range:
        return self.grid.point_range

    def build(self) -> BevDetector:
        return BevDetector(self)

    def thinner(self: Config, rule: WidthRule) -> Config:
        """Fewer channels in the encoder, in trunk and neck (`rule.backbone`), and in the head where it has channels of
        its own.
        """
        return replace(
            self, encoder=self.encoder.thinner(rule), bev=self.bev.thinner(rule), head=self.head.thinner(rule)
        )


class BevDetector(Detector):
    """The network of a BevDetectorConfig.

    Maps follow the memory format of the trunk's weights, channels_last at first, which is faster.
    `.to(memory_format=torch.contiguous_format)` changes it; results are those of channels_last to rounding.
    """

    config: BevDetectorConfig
    _has_warned = False  # of voxels beyond the cap

    def __init__(self, config: BevDetectorConfig) -> None:
        super().__init__()
        self.config = config
        # voxels per cell
        self.stage_strides = tuple(config.encoder.stride * stride for stride in config.bev.stage_strides)
        self.neck_stride = config.encoder.stride * config.bev.neck_stride
        width, height, _ = config.grid.shape
        neck_channels = sum(config.bev.neck_channels)
        self.encoder = config.encoder.build(config.grid, len(config.point_features))
        self.trunk = BevTrunk(config.bev, config.encoder.map_channels(config.grid))
        self.neck = BevNeck(config.bev)
        size = (width // self.neck_stride, height // self.neck_stride)
        self.head = config.head.build(neck_channels, config.classes, config.grid.point_range, size)
        self.tap_specs: Mapping[str, TapSpec] = {
            "encoder": SetSpec(config.encoder.channels, config.encoder.stride),
            **{
                f"bev.{i}": MapSpec(c, s)
                for i, (c, s) in enumerate(zip(config.bev.channels, self.stage_strides, strict=True))
            },
            "neck": MapSpec(neck_channels, self.neck_stride),
            **{f"head.{i}": spec for i, spec in enumerate(self.head.specs(self.neck_stride))},
        }
        for part in (self.trunk, self.neck, self.head):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def grid(self) -> VoxelGrid:
        return self.config.grid

    def prepare(self, batch: Batch) -> Voxels:
        """The batch on this detector's grid."""
        batch = as_batch(batch)
        voxels = voxelise(batch.points, batch.batch_index, batch.size, self.grid, self.training)
        if voxels.num_over_cap and not self._has_warned:
            self._has_warned = True
            cap = "max_voxels_train" if self.training else "max_voxels_eval"
            warnings.warn(
                f"{voxels.num_over_cap} voxels in a batch with frames {', '.join(batch.frame_ids[:3])} are beyond "
                f"grid.{cap} = {getattr(self.grid, cap)} and were dropped with their points, as published; raise the "
                "cap to keep them (said once)",
                stacklevel=2,
            )
        return voxels

    def shares_input_with(self, other: Detector) -> bool:
        return isinstance(other, BevDetector) and self.grid == other.grid

    def forward(self, batch: Batch, inputs: Inputs | None = None) -> DetectorOutput:
        voxels = voxels_on(self.grid, self.prepare(batch) if inputs is None else inputs)
        rows, canvas = self.encoder(voxels)
        stages = self.trunk(canvas)
        joined = self.neck(stages)
        taps: dict[str, FeatureMap | FeatureSet] = {"encoder": rows}
        for index, stage in enumerate(stages):
            taps[f"bev.{index}"] = self._map(stage, self.stage_strides[index])
        taps["neck"] = self._map(joined, self.neck_stride)
        return DetectorOutput(taps=taps, heads=self.head(joined))

    def dense(self, canvas: Tensor) -> dict[str, Tensor]:
        """The part that is exported: the encoder's map (B, C, H, W) -> the raw head maps, named "head.0.class", ...

        Standard operators on dense tensors alone. What lies before is the encoder's `exportable` form; decoding comes
        after it.
        """
        heads = self.head(self.neck(self.trunk(canvas)))
        return {f"head.{i}.{name}": values for i, head in enumerate(heads) for name, values in head.maps.items()}

    def loss(self, output: DetectorOutput, batch: Batch, ranked_by: DetectorOutput | None = None) -> Losses:
        return self.head.loss(output.heads, batch, None if ranked_by is None else ranked_by.heads)

    def decode(self, output: DetectorOutput) -> list[Boxes]:
        return self.head.decode(output.heads)

    def for_inference(self) -> Detector:
        """As in Detector, with every norm folded into the convolution before it."""
        twin = super().for_inference()
        fold_norms(twin)
        return twin

    def layer_graph(self) -> tuple[Layer, ...]:
        encoder, canvas = self.encoder.layer_graph()
        trunk, stages = self.trunk.layer_graph(canvas)
        neck, joined = self.neck.layer_graph(stages)
        parts = {"encoder": encoder, "trunk": trunk, "neck": neck, "head": self.head.layer_graph(joined)}
        return tuple(layer.within(name) for name, layers in parts.items() for layer in layers)

    def _map(self, features: Tensor, stride: int) -> FeatureMap:
        low, size = self.grid.point_range, self.grid.voxel_size
        return FeatureMap.at(features, (low[0], low[1]), (size[0] * stride, size[1] * stride))


def voxels_on(grid: VoxelGrid, inputs: Inputs) -> Voxels:
    """`inputs`, if they are voxels and lie on `grid`; InputError if not.

    The caps of voxels a frame may differ, since they depend on the mode.
    """
    if not isinstance(inputs, Voxels):
        raise InputError("a detector with a grid needs voxels; hand it the result of its prepare(batch)")
    for name in ("point_range", "voxel_size", "max_points_per_voxel"):
        given, own = getattr(inputs.grid, name), getattr(grid, name)
        if given != own:
            raise InputError(
                f"voxels made with {name} {given} cannot feed a detector with {own}; prepare once per grid"
            )
    return inputs
