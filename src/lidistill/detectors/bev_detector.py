"""The base of the one-stage detectors: an encoder turns voxels into a bird's-eye view map, a trunk and a neck process
the map, and a head predicts boxes.

PointPillars, SECOND and CenterPoint combine different encoders and heads; the file of each detector states which.
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
        """Return the features for the tap `encoder`, and the trunk's input."""

    @abstractmethod
    def exportable(self) -> nn.Module:
        """Return the encoder in standard operators that torch.export can trace: padded voxels of a frame -> the map.

        Its inputs are points (M, S, 3 + F), counts (M,) and coords (M, 4), the last two as in Voxels. Slots beyond a
        voxel's count may hold any finite values. Raises InputError if the encoder has no such form.
        """

    @abstractmethod
    def layer_graph(self) -> tuple[list[Layer], tuple[ChannelBlock, ...]]:
        """Return the encoder's layers, and the channels of its map."""


class EncoderConfig(Settings, ABC):
    """Settings of a BevEncoder."""

    place: ClassVar[str] = "encoder"

    channels: Channels  # of the tap `encoder`

    @property
    def stride(self) -> int:
        """Cells of the voxel grid per cell of the map, along x and y."""
        return 1

    @abstractmethod
    def map_channels(self, grid: VoxelGrid) -> int:
        """Number of channels of the map."""

    @abstractmethod
    def check_grid(self, grid: VoxelGrid) -> None:
        """Raise InputError unless the encoder can work on `grid`."""

    @abstractmethod
    def thinner(self, rule: WidthRule) -> EncoderConfig:
        """The same encoder with fewer channels."""

    @abstractmethod
    def build(self, grid: VoxelGrid, num_point_features: int) -> BevEncoder:
        """Return an encoder with fresh weights; `num_point_features` counts the columns after x, y, z."""


class BevHead(nn.Module, ABC):
    """The neck's map (B, C, H, W) -> raw head outputs, from which the loss and the boxes are computed."""

    @abstractmethod
    def forward(self, features: Tensor) -> tuple[HeadOutput, ...]:
        """Return one output per task."""

    @abstractmethod
    def specs(self, stride: int) -> tuple[HeadSpec, ...]:
        """Describe each output before the first batch. `stride` counts voxels per cell of the map."""

    @abstractmethod
    def loss(
        self, outputs: tuple[HeadOutput, ...], batch: Batch, ranked_by: tuple[HeadOutput, ...] | None = None
    ) -> Losses:
        """Return the weighted loss terms; `ranked_by` is explained in Detector.loss."""

    @abstractmethod
    def decode(self, outputs: tuple[HeadOutput, ...]) -> list[Boxes]:
        """Return the detections of each frame, best first."""

    @abstractmethod
    def layer_graph(self, joined: tuple[ChannelBlock, ...]) -> list[Layer]:
        """Return the head's layers; `joined` are the channels of the neck's map."""


class HeadConfig(Settings, ABC):
    """Settings of a BevHead."""

    place: ClassVar[str] = "head"

    @abstractmethod
    def check_classes(self, classes: tuple[str, ...]) -> None:
        """Raise InputError unless the head predicts exactly these classes."""

    @abstractmethod
    def thinner(self, rule: WidthRule) -> HeadConfig:
        """The same head with fewer channels."""

    @abstractmethod
    def build(
        self, in_channels: int, classes: tuple[str, ...], point_range: tuple[float, ...], size: tuple[int, int]
    ) -> BevHead:
        """Return a head with fresh weights for a map of `size` (width, height) cells over `point_range` in metres."""


Config = TypeVar("Config", bound="BevDetectorConfig")


@dataclass(frozen=True)
class BevDetectorConfig(DetectorConfig, ABC):
    """Settings of a BevDetector. Each detector's subclass fixes the kinds of encoder and head.

    Raises InputError if classes, grid, encoder, trunk, neck and head do not fit together.
    """

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
        """The same detector with fewer channels in the encoder (`rule.encoder`), in trunk and neck (`rule.backbone`),
        and in the head's hidden layers, if it has any (`rule.head`).
        """
        return replace(
            self, encoder=self.encoder.thinner(rule), bev=self.bev.thinner(rule), head=self.head.thinner(rule)
        )


class BevDetector(Detector):
    """The network of a BevDetectorConfig.

    Maps follow the memory format of the trunk's weights: by default channels_last, which is faster.
    `.to(memory_format=torch.contiguous_format)` changes it; the results agree to rounding.
    """

    config: BevDetectorConfig
    _has_warned = False  # whether it has warned of voxels beyond the cap

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
        """Voxelise the batch on this detector's grid. Warns once if a cap drops voxels."""
        batch = as_batch(batch)
        voxels = voxelise(batch.points, batch.batch_index, batch.size, self.grid, self.training)
        if voxels.num_over_cap and not self._has_warned:
            self._has_warned = True
            cap = "max_voxels_train" if self.training else "max_voxels_eval"
            warnings.warn(
                f"{voxels.num_over_cap} voxels in a batch with frames {', '.join(batch.frame_ids[:3])} are beyond "
                f"grid.{cap} = {getattr(self.grid, cap)} and were dropped with their points, as published; raise the "
                "cap to keep them (shown once)",
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

        It consists of standard operators on dense tensors. The encoder's `exportable` form comes before it, decoding
        after it.
        """
        heads = self.head(self.neck(self.trunk(canvas)))
        return {f"head.{i}.{name}": values for i, head in enumerate(heads) for name, values in head.maps.items()}

    def loss(self, output: DetectorOutput, batch: Batch, ranked_by: DetectorOutput | None = None) -> Losses:
        return self.head.loss(output.heads, batch, None if ranked_by is None else ranked_by.heads)

    def decode(self, output: DetectorOutput) -> list[Boxes]:
        return self.head.decode(output.heads)

    def for_inference(self) -> Detector:
        """As in Detector; every BatchNorm that follows a convolution is folded into it."""
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
    """Return `inputs` if they are voxels of `grid`; raise InputError otherwise.

    The caps on voxels per frame may differ, because the cap in use depends on the mode (training or evaluation).
    """
    if not isinstance(inputs, Voxels):
        raise InputError("a detector with a grid needs voxels; pass the result of its prepare(batch)")
    for name in ("point_range", "voxel_size", "max_points_per_voxel"):
        given, own = getattr(inputs.grid, name), getattr(grid, name)
        if given != own:
            raise InputError(
                f"voxels made with {name} {given} do not fit a detector with {own}; call prepare(batch) once per grid"
            )
    return inputs
