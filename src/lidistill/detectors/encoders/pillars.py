"""The pillar encoder: from points to one feature vector per pillar.

The published encoder works on padded pillars: (M, T, C) slots, of which most are empty. This one works on real points,
with at most one row for all empty slots of a pillar. It computes the same numbers, because of four facts:

* The empty slots of a pillar have equal features. In the first layer, all empty slots are zero.
* A layer is linear, so the batch statistics over all M * T slots follow from the weighted mean and covariance of the
  input features.
* Equal rows share one maximum, and its gradient in equal parts.
* BatchNorm and ReLU are monotone per channel, so they can be applied after the maximum over a pillar instead of before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lidistill.detector_inputs import VoxelGrid, Voxels
from lidistill.detectors.bev_detector import BevEncoder, EncoderConfig
from lidistill.detectors.canvas import Canvas
from lidistill.detectors.detector import NORM_EPS, NORM_MOMENTUM
from lidistill.detectors.encoders.padded_pillars import AffineLayer, PaddedPillars
from lidistill.detectors.norms import move_running_statistics
from lidistill.detectors.width import WidthRule
from lidistill.ops.kernels.segment_max import segment_max
from lidistill.ops.kernels.sparse_convolution import Sites
from lidistill.ops.layer_graph import INPUT, ChannelBlock, Layer
from lidistill.outputs import FeatureSet
from lidistill.settings import Channels
from lidistill.types import InputError

CHANNELS_FROM_GEOMETRY = 6  # offsets to the mean of the pillar's points, and to the pillar's centre
Hidden = Annotated[tuple[Channels, ...], Field(max_length=32)]
NO_CAP = 2**31 - 1  # for the caps of a VoxelGrid: more points than a frame ever has


@dataclass(frozen=True)
class PillarEncoderConfig(EncoderConfig):
    """Settings of a PillarEncoder. Defaults are PointPillars'; OpenPCDet's CenterPoint has `hidden_channels=(32,)`."""

    channels: Channels = 64
    # mmdetection3d's KITTI networks: x, y, z themselves are replaced by the offsets to the pillar's centre
    legacy_features: bool = False
    # of the layers before the last; the next layer's input has twice as many: a point's and its pillar's maxima
    hidden_channels: Hidden = ()
    # "counted": empty slots take part in the batch statistics and in the maximum, as in hard voxelisation.
    # "absent": empty slots do not exist, as in dynamic voxelisation, whose grid has NO_CAP.
    empty_slots: Literal["counted", "absent"] = "counted"

    def map_channels(self, grid: VoxelGrid) -> int:
        return self.channels

    def check_grid(self, grid: VoxelGrid) -> None:
        if grid.shape[2] != 1:
            tall = grid.point_range[5] - grid.point_range[2]
            raise InputError(
                f"grid: {grid.shape[2]} cells along z; a pillar is as tall as the range, so set the voxel height to "
                f"{tall:.6g} m"
            )
        if self.empty_slots == "counted" and grid.max_points_per_voxel >= NO_CAP:
            raise InputError(
                "encoder: empty slots cannot be counted without a cap on points; set max_points_per_voxel, or "
                "empty_slots to absent"
            )

    def thinner(self, rule: WidthRule) -> PillarEncoderConfig:
        hidden = tuple(rule.width(channels, rule.encoder) for channels in self.hidden_channels)
        return replace(self, channels=rule.width(self.channels, rule.encoder), hidden_channels=hidden)

    def build(self, grid: VoxelGrid, num_point_features: int) -> PillarEncoder:
        return PillarEncoder(self, grid, num_point_features)


class StatedNorm(nn.BatchNorm1d):
    """BatchNorm that is given the statistics of a batch instead of its rows. Its state_dict is that of BatchNorm1d."""

    def scale_and_shift(self, mean: Tensor, variance: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,) over all `num_rows` rows -> scale (C,) and shift (C,) of the normalisation.

        In training this updates the running statistics. In evaluation mode, or without rows, the running statistics are
        used instead.
        """
        assert self.running_mean is not None and self.running_var is not None
        if self.training and num_rows > 0:
            move_running_statistics(self, mean, variance, num_rows)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale


@dataclass(frozen=True)
class SlotRows:
    """Features of all slots: those of each point, those of empty slots, and those that all slots of a pillar share."""

    points: Tensor  # (P, F), grouped by pillar
    empty: Tensor | None  # (M, F), or (1, F) if equal in all pillars; None if empty slots do not exist
    shared: Tensor | None = None  # (M, G), appended to the F features of every slot

    def projected(self, weight: Tensor, voxels: Voxels) -> SlotRows:
        """Multiply every slot's features by `weight` (C, F + G), and the shared features once per pillar."""
        own, rest = weight[:, : self.points.shape[1]], weight[:, self.points.shape[1] :]
        points = F.linear(self.points, own)
        empty = None if self.empty is None else F.linear(self.empty, own)
        if self.shared is None:
            return SlotRows(points, empty)
        common = F.linear(self.shared, rest)
        return SlotRows(points + common.index_select(0, voxels.voxel_index), None if empty is None else empty + common)

    def count(self, voxels: Voxels) -> int:
        """Number of slots, empty ones included if they exist."""
        return len(self.points) if self.empty is None else len(voxels.counts) * voxels.grid.max_points_per_voxel

    def times(self, voxels: Voxels) -> Tensor:
        """How many slots each row of `empty` stands for: (M,) or (1,)."""
        assert self.empty is not None
        free = voxels.grid.max_points_per_voxel - voxels.counts
        return free if len(self.empty) == len(free) else free.sum(dim=0, keepdim=True)


class PillarLayer(nn.Module):
    """Linear layer, BatchNorm and ReLU of every slot, then the maximum over each pillar (PointPillars, CVPR 2019,
    section 2.1). The returned Activations applies all steps after the linear layer.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = StatedNorm(out_channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)

    def forward(self, rows: SlotRows, voxels: Voxels) -> Activations:
        # A channel with a negative scale has its maximum where the projection is smallest, so it is negated first.
        scale = self.norm.weight.detach()
        sign = torch.where(scale < 0, -torch.ones_like(scale), torch.ones_like(scale))
        weight = self.linear.weight * sign[:, None]
        projected = rows.projected(weight, voxels)
        if not self.norm.training:
            statistics = self.norm.running_mean, self.norm.running_var
        else:  # the first layer usually has fewer input than output channels
            mean, variance = moments_behind(rows, weight, voxels) if rows.shared is None else moments(projected, voxels)
            statistics = mean * sign, variance
        scale, shift = self.norm.scale_and_shift(*statistics, rows.count(voxels))  # type: ignore[arg-type]
        return Activations(projected, scale * sign, shift)


@dataclass(frozen=True)
class Activations:
    """A layer's projections, before scale, shift and ReLU."""

    projected: SlotRows
    scale: Tensor  # (C,), at least 0
    shift: Tensor  # (C,)

    def maxima(self, voxels: Voxels) -> Tensor:
        """The maxima over the slots of each pillar, after scale, shift and ReLU: (M, C)."""
        peak = segment_max(self.projected.points, voxels.voxel_index, len(voxels.counts))
        if self.projected.empty is not None:
            partial = voxels.counts < voxels.grid.max_points_per_voxel
            peak = torch.where(partial[:, None], torch.maximum(peak, self.projected.empty), peak)
        return self._finished(peak)

    def joined(self, maxima: Tensor) -> SlotRows:
        """Each slot's own features after the ReLU, with its pillar's `maxima` (M, C) appended."""
        empty = self.projected.empty
        return SlotRows(self._finished(self.projected.points), None if empty is None else self._finished(empty), maxima)

    def _finished(self, projected: Tensor) -> Tensor:
        return F.relu(projected * self.scale + self.shift)


class PillarEncoder(BevEncoder):
    """Layers on the points of each pillar; the maxima of the last layer form the map."""

    def __init__(self, config: PillarEncoderConfig, grid: VoxelGrid, num_point_features: int) -> None:
        super().__init__()
        self.grid = grid
        self.legacy_features = config.legacy_features
        self.counts_empty_slots = config.empty_slots == "counted"
        inputs = (
            3 + num_point_features + CHANNELS_FROM_GEOMETRY,
            *(2 * channels for channels in config.hidden_channels),
        )
        outputs = (*config.hidden_channels, config.channels)
        self.layers = nn.ModuleList(PillarLayer(before, after) for before, after in zip(inputs, outputs, strict=True))

    def forward(self, voxels: Voxels) -> tuple[FeatureSet, Canvas]:
        """M pillars with P' kept points -> features (M, C) of the pillars, and the map that holds them."""
        # Half precision would round coordinates of 70 m to 0.25 m.
        with torch.autocast(voxels.points.device.type, enabled=False):
            features = decorated_points(voxels, self.legacy_features)
            rows = SlotRows(features, features.new_zeros(1, features.shape[1]) if self.counts_empty_slots else None)
            *hidden, last = self.layers
            for layer in hidden:
                activations = layer(rows, voxels)
                rows = activations.joined(activations.maxima(voxels))
            pillars = last(rows, voxels).maxima(voxels)
        found = FeatureSet(
            features=pillars, batch_index=voxels.coords[:, 0], positions=voxel_centres(voxels), occupancy=voxels.counts
        )
        width, height, _ = self.grid.shape
        return found, Canvas(pillars, Sites(voxels.coords, (1, height, width), voxels.batch_size))

    def exportable(self) -> nn.Module:
        layers = [AffineLayer.of(layer.linear, layer.norm) for layer in self.layers]  # type: ignore[arg-type]
        return PaddedPillars(layers, self.grid, self.legacy_features, self.counts_empty_slots)

    def layer_graph(self) -> tuple[list[Layer], tuple[ChannelBlock, ...]]:
        layers: list[Layer] = []
        blocks: tuple[ChannelBlock, ...] = (ChannelBlock(INPUT),)
        for index in range(len(self.layers)):
            output = f"encoder.{index}"
            layers.append(Layer(f"layers.{index}.linear", f"layers.{index}.norm", blocks, output))
            blocks = (ChannelBlock(output), ChannelBlock(output))  # a slot's own features, and its pillar's maxima
        return layers, blocks[:1]


def decorated_points(voxels: Voxels, legacy_features: bool) -> Tensor:
    """Features (P', 3 + F + 6) of the kept points: the point's own columns, its offset to the mean of the pillar's
    points, and its offset to the pillar's centre.

    With `legacy_features`, the last offset also replaces x, y, z (mmdetection3d).
    """
    rows = voxels.voxel_index
    from_centre = voxels.points[:, :3] - voxel_centres(voxels)[rows]
    # Averaging the offsets is precise, because they are small. A mean of coordinates of 70 m is rounded to 4e-6 m.
    sums = torch.segment_reduce(from_centre, "sum", lengths=voxels.counts, axis=0, unsafe=True)
    from_mean = from_centre - (sums / voxels.counts[:, None].to(sums.dtype))[rows]
    own = torch.cat([from_centre, voxels.points[:, 3:]], dim=1) if legacy_features else voxels.points
    return torch.cat([own, from_mean, from_centre], dim=1)


def voxel_centres(voxels: Voxels) -> Tensor:
    """Centres (M, 3) of the voxels in metres."""
    # The half voxel is added to the range first, as OpenPCDet and mmdetection3d do, so that rounding agrees.
    axes = zip((3, 2, 1), voxels.grid.point_range[:3], voxels.grid.voxel_size, strict=True)
    places = [voxels.coords[:, column].to(voxels.points.dtype) * step + (low + step / 2) for column, low, step in axes]
    return torch.stack(places, dim=1)


def moments(rows: SlotRows, voxels: Voxels) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (F,) over all slots of `rows`, which have no shared features."""
    num_slots = max(rows.count(voxels), 1)
    total, times = rows.points.sum(dim=0), None
    if rows.empty is not None:
        times = rows.times(voxels).to(total.dtype)
        total = total + times @ rows.empty
    mean = total / num_slots
    squares = (rows.points - mean).square().sum(dim=0)
    if rows.empty is not None and times is not None:
        squares = squares + times @ (rows.empty - mean).square()
    return mean, squares / num_slots


def moments_behind(rows: SlotRows, weight: Tensor, voxels: Voxels) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) over all slots of the features times `weight` (C, F), computed from the mean and
    covariance of the F features.

    `rows` are those of the first layer: they have no shared features, and zeros in empty slots.
    """
    num_slots = max(rows.count(voxels), 1)
    # Double precision, since features that are nearly copies of each other make the covariance nearly singular.
    points, wide = rows.points.double(), weight.double()
    feature_mean = points.sum(dim=0) / num_slots  # empty slots of the first layer are zero
    centred = points - feature_mean
    covariance = (centred.T @ centred + (num_slots - len(points)) * torch.outer(feature_mean, feature_mean)) / num_slots
    variance = torch.einsum("cf,fg,cg->c", wide, covariance, wide).clamp(min=0)
    return (wide @ feature_mean).to(weight.dtype), variance.to(weight.dtype)
