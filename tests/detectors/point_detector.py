"""A small detector of another build than those of the package: it reads points, works in two stages, has no grid.

Stage one gives every sampled point class scores and a box (tap `points`). Its best boxes are proposals; stage two pools
the features of the points in each and refines it (tap `proposals`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.detector_inputs import Inputs
from lidistill.detectors.detector import Detector, DetectorConfig
from lidistill.detectors.width import WidthRule
from lidistill.ops.box_codes import decode_points, encode_points
from lidistill.ops.kernels.neighbours import k_nearest
from lidistill.ops.kernels.points_in_boxes import points_in_boxes
from lidistill.ops.kernels.suppression import nms_rotated
from lidistill.outputs import DetectorOutput, FeatureSet, HeadSpec, PointHeadOutput, RoiHeadOutput, SetSpec, TapSpec
from lidistill.settings import Channels, Range
from lidistill.types import Batch, Boxes, Losses

CODE_SIZE = 8
BOX_SIZE = 7
MARGIN_M = 0.5  # by which a proposal is enlarged on each side to pool points
SCORE_THRESHOLD, NMS_THRESHOLD = 0.05, 0.3


@dataclass(frozen=True)
class SampledPoints(Inputs):
    """Points that are kept of a batch, grouped by frame."""

    points: Tensor  # (N, 3 + F)
    batch_index: Tensor  # (N,) int64, ascending
    batch_size: int

    def of_frame(self, row: int) -> SampledPoints:
        own = self.points[self.batch_index == row]
        return SampledPoints(own, torch.zeros(len(own), dtype=torch.int64, device=own.device), 1)

    def description(self) -> str:
        return f"{len(self.points)} sampled points"


@dataclass(frozen=True)
class PointDetectorConfig(DetectorConfig):
    name: ClassVar[str] = "small-points"

    extent: Range = (0.0, -16.0, -3.0, 32.0, 16.0, 1.0)
    num_points: Channels = 256  # a frame
    neighbours: Channels = 8
    channels: Channels = 32
    proposals: Channels = 12  # a frame

    @property
    def point_range(self) -> Range:
        return self.extent

    def build(self) -> PointDetector:
        return PointDetector(self)

    def thinner(self, rule: WidthRule) -> PointDetectorConfig:
        return replace(self, channels=rule.width(self.channels, rule.backbone))


class PointDetector(Detector):
    config: PointDetectorConfig

    def __init__(self, config: PointDetectorConfig) -> None:
        super().__init__()
        self.config = config
        classes, width = len(config.classes), config.channels
        columns = 3 + len(config.point_features)
        self.embedding = nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width))
        self.surroundings = nn.Sequential(nn.Linear(2 * width, width), nn.BatchNorm1d(width), nn.ReLU())
        self.point_scores, self.point_codes = nn.Linear(width, classes), nn.Linear(width, CODE_SIZE)
        self.pooling = nn.Sequential(nn.Linear(width + 3, width), nn.ReLU())
        self.roi_scores, self.roi_change = nn.Linear(width, classes), nn.Linear(width, BOX_SIZE)
        for layer in (self.point_scores, self.roi_scores):
            nn.init.constant_(layer.bias, -2.0)
        nn.init.normal_(self.roi_change.weight, std=0.01)
        self.tap_specs: dict[str, TapSpec] = {
            "points": SetSpec(width),
            "proposals": SetSpec(width, has_own_places=True),
            "stage.0.head.0": HeadSpec(classes + CODE_SIZE, PointHeadOutput),
            "head.0": HeadSpec(classes + BOX_SIZE, RoiHeadOutput, stage=1),
        }

    def prepare(self, batch: Batch) -> SampledPoints:
        """Evenly spaced rows of the points in range: the same whatever stands beside the frame."""
        low, high = torch.tensor(self.config.extent, device=batch.points.device).view(2, 3)
        inside = ((batch.points[:, :3] >= low) & (batch.points[:, :3] < high)).all(dim=1)
        kept = []
        for frame in range(batch.size):
            rows = (inside & (batch.batch_index == frame)).nonzero()[:, 0]
            steps = torch.linspace(0, max(len(rows) - 1, 0), min(len(rows), self.config.num_points)).round().long()
            kept.append(rows[steps.to(rows.device)])
        rows = torch.cat(kept)
        return SampledPoints(batch.points[rows], batch.batch_index[rows], batch.size)

    def shares_input_with(self, other: Detector) -> bool:
        return isinstance(other, PointDetector) and (
            (self.config.extent, self.config.num_points) == (other.config.extent, other.config.num_points)
        )

    def forward(self, batch: Batch, inputs: Inputs | None = None) -> DetectorOutput:
        given = self.prepare(batch) if inputs is None else inputs
        assert isinstance(given, SampledPoints)
        points, frames, num_frames = given.points, given.batch_index, given.batch_size
        positions = points[:, :3]
        embedded = self.embedding(torch.cat([positions / 16.0, points[:, 3:]], dim=1))
        around = embedded.new_zeros(embedded.shape)
        for frame in range(num_frames):
            own = (frames == frame).nonzero()[:, 0]
            if len(own):
                near = own[k_nearest(positions[own], positions[own], min(self.config.neighbours, len(own)))]
                around = around.index_copy(0, own, embedded[near].amax(dim=1))
        features = self._normed(torch.cat([embedded, around], dim=1))
        classes = tuple(range(len(self.config.classes)))
        first = PointHeadOutput(
            classes=classes,
            logits=self.point_scores(features),
            batch_index=frames,
            frames=num_frames,
            box_codes=self.point_codes(features),
            positions=positions,
        )
        proposals, of_frame = self._proposals(first)
        pooled = self._pooled(features, positions, frames, proposals, of_frame)
        second = RoiHeadOutput(
            classes=classes,
            logits=self.roi_scores(pooled),
            batch_index=of_frame,
            frames=num_frames,
            refined=proposals + self.roi_change(pooled),
            proposals=proposals,
        )
        taps = {
            "points": FeatureSet(features, frames, positions),
            "proposals": FeatureSet(pooled, of_frame, proposals[:, :3]),
        }
        return DetectorOutput(taps, (second,), earlier=((first,),))

    def loss(self, output: DetectorOutput, batch: Batch, ranked_by: DetectorOutput | None = None) -> Losses:
        """Of each stage a score for the rows that stand for objects, as the heads themselves say, and their boxes."""
        (first,), (second,) = output.stages
        terms = {}
        for name, head in (("point", first), ("roi", second)):
            places = head.positives(batch.boxes)
            objects = places.of(batch.boxes)
            logits, wanted = head.class_logits(), torch.zeros_like(head.class_logits())
            starts = torch.searchsorted(head.batch_index, torch.arange(batch.size))
            rows = starts[places.frames] + places.rows
            wanted[rows, head.columns_of(objects.labels)] = 1.0
            count = max(len(places), 1)
            terms[f"{name}_class"] = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / count / 10
            codes = head.values("box", places)
            right = encode_points(objects.geometry, first.positions[rows]) if head is first else objects.geometry
            terms[f"{name}_box"] = F.smooth_l1_loss(codes, right.to(codes.dtype), reduction="sum") / count
        return Losses(terms)

    @torch.no_grad()
    def decode(self, output: DetectorOutput) -> list[Boxes]:
        (head,) = output.heads
        found = []
        for frame in range(head.frames):
            own = head.batch_index == frame
            boxes, (scores, labels) = head.refined[own].float(), head.logits[own].float().sigmoid().max(dim=1)
            sound = (scores >= SCORE_THRESHOLD) & boxes.isfinite().all(dim=1)
            boxes, scores, labels = boxes[sound], scores[sound], labels[sound]
            boxes[:, 3:6] = boxes[:, 3:6].clamp(min=0.05)
            keep = nms_rotated(boxes, scores, NMS_THRESHOLD)
            found.append(Boxes(boxes[keep], labels[keep], scores[keep]))
        return found

    def _normed(self, features: Tensor) -> Tensor:
        """BatchNorm cannot learn from one row."""
        if self.training and len(features) < 2:
            return features[:, : features.shape[1] // 2]
        return self.surroundings(features)

    @torch.no_grad()
    def _proposals(self, head: PointHeadOutput) -> tuple[Tensor, Tensor]:
        """The boxes (R, 7) of the points with the best scores, and their frames (R,)."""
        scores = head.class_logits().amax(dim=1)
        chosen = []
        for frame in range(head.frames):
            own = (head.batch_index == frame).nonzero()[:, 0]
            best = scores[own].sort(descending=True, stable=True).indices[: self.config.proposals]
            chosen.append(own[best])
        rows = torch.cat(chosen)
        return decode_points(head.box_codes[rows].float(), head.positions[rows]), head.batch_index[rows]

    def _pooled(self, features: Tensor, positions: Tensor, frames: Tensor, boxes: Tensor, of_frame: Tensor) -> Tensor:
        """The largest features of the points in each enlarged box, with their places in it: (R, C); 0 if none."""
        enlarged = torch.cat([boxes[:, :3], boxes[:, 3:6] + 2 * MARGIN_M, boxes[:, 6:]], dim=1)
        held = points_in_boxes(positions, enlarged) & (of_frame[:, None] == frames[None])
        box, point = held.nonzero().unbind(dim=1)
        rows = self.pooling(torch.cat([features[point], positions[point] - boxes[box, :3]], dim=1))
        empty = rows.new_zeros((len(boxes), rows.shape[1]))
        if len(rows) == 0:
            return empty + features.sum() * 0
        return empty.scatter_reduce(0, box[:, None].expand_as(rows), rows, "amax")
