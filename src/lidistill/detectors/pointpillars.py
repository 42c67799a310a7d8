"""PointPillars (CVPR 2019): a pillar encoder, a bird's-eye view network and an anchor head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from lidistill.detectors.anchor_head import AnchorHead, AnchorHeadConfig
from lidistill.detectors.backbones import BevConfig, BevNeck, BevTrunk, scatter_to_map
from lidistill.detectors.base import Detector, DetectorConfig, WidthRule, voxels_on
from lidistill.detectors.encoders import PillarEncoder, PillarEncoderConfig
from lidistill.types import Batch, Boxes, DetectorOutput, FeatureMap, FeatureSet, InputError, Losses, TapSpec, Voxels


@dataclass(frozen=True)
class PointPillarsConfig(DetectorConfig):
    """Settings of PointPillars; `presets.preset` gives the published ones."""

    name: ClassVar[str] = "pointpillars"
    encoder: PillarEncoderConfig = field(default_factory=PillarEncoderConfig)
    bev: BevConfig = field(default_factory=BevConfig)
    head: AnchorHeadConfig = field(default_factory=lambda: AnchorHeadConfig(anchors=()))

    def __post_init__(self) -> None:
        names = tuple(anchor.name for anchor in self.head.anchors)
        if not self.classes or names != self.classes:
            raise InputError(f"pointpillars: anchors for {names} do not fit the classes {self.classes}; give one anchor a class, in the same order")
        if self.grid.shape[2] != 1:
            raise InputError(
                f"pointpillars: {self.grid.shape[2]} cells along z; a pillar is as tall as the range, "
                f"so set the voxel height to {self.grid.point_range[5] - self.grid.point_range[2]:.6g} m"
            )
        self.bev.check_grid(self.grid.point_range, self.grid.voxel_size, self.grid.shape)

    def build(self) -> PointPillars:
        return PointPillars(self)

    def thinner(self, rule: WidthRule) -> PointPillarsConfig:
        """Fewer channels in the encoder, the trunk and the neck. The head has none of its own, so `rule.head` changes nothing here."""
        encoder = replace(self.encoder, channels=rule.width(self.encoder.channels, rule.encoder))
        bev = replace(
            self.bev,
            channels=tuple(rule.width(channels, rule.backbone) for channels in self.bev.channels),
            neck_channels=tuple(rule.width(channels, rule.backbone) for channels in self.bev.neck_channels),
        )
        return replace(self, encoder=encoder, bev=bev)


class PointPillars(Detector):
    """The network of a PointPillarsConfig.

    Maps follow the memory format of the trunk's weights. It is channels_last at first, which is faster; its training-mode BatchNorm, however, sums
    carelessly on a CPU (relative error of the variance up to 2e-4). `.to(memory_format=torch.contiguous_format)` is exact to rounding.
    """

    config: PointPillarsConfig

    def __init__(self, config: PointPillarsConfig) -> None:
        super().__init__()
        self.config = config
        stride = config.bev.neck_stride
        width, height, _ = config.grid.shape
        neck_channels = sum(config.bev.neck_channels)
        self.encoder = PillarEncoder(config.encoder, config.grid, len(config.point_features))
        self.trunk = BevTrunk(config.bev, config.encoder.channels)
        self.neck = BevNeck(config.bev)
        self.head = AnchorHead(config.head, neck_channels, config.grid.point_range, (width // stride, height // stride))
        self.tap_specs: Mapping[str, TapSpec] = {
            "encoder": TapSpec("set", config.encoder.channels),
            **{f"bev.{i}": TapSpec("map", c, s) for i, (c, s) in enumerate(zip(config.bev.channels, config.bev.stage_strides, strict=True))},
            "neck": TapSpec("map", neck_channels, stride),
        }
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch, voxels: Voxels | None = None) -> DetectorOutput:
        voxels = voxels_on(self.grid, self.voxelise(batch) if voxels is None else voxels)
        width, height, _ = self.grid.shape
        pillars = self.encoder(voxels)
        canvas = scatter_to_map(pillars, voxels.coords, voxels.batch_size, height, width)
        if not self.trunk.channels_last:
            canvas = canvas.contiguous()
        stages = self.trunk(canvas)
        joined = self.neck(stages)
        taps: dict[str, FeatureMap | FeatureSet] = {"encoder": pillars}
        for index, stage in enumerate(stages):
            taps[f"bev.{index}"] = self._map(stage, self.config.bev.stage_strides[index])
        taps["neck"] = self._map(joined, self.config.bev.neck_stride)
        return DetectorOutput(taps=taps, heads=(self.head(joined),))

    def loss(self, output: DetectorOutput, batch: Batch) -> Losses:
        return self.head.loss(output.heads[0], batch)

    def decode(self, output: DetectorOutput) -> list[Boxes]:
        return self.head.decode(output.heads[0])

    def _map(self, features: torch.Tensor, stride: int) -> FeatureMap:
        low, size = self.grid.point_range, self.grid.voxel_size
        return FeatureMap(features=features, origin=(low[0], low[1]), cell=(size[0] * stride, size[1] * stride))
