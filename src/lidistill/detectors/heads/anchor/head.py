"""The anchor head: 1 x 1 convolutions for classes, boxes and directions, their losses, and decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lidistill.detectors.bev_detector import BevHead, HeadConfig
from lidistill.detectors.heads.anchor.anchors import (
    AnchorClass,
    DirectionBins,
    anchor_grid,
    direction_bin,
    with_direction,
)
from lidistill.detectors.heads.anchor.assignment import assign_anchors
from lidistill.detectors.heads.anchor.decoding import PostProcessing, candidates, detections
from lidistill.detectors.heads.anchor.losses import box_costs, box_loss, direction_loss, focal_costs, focal_loss
from lidistill.detectors.heads.ranked_targets import AnchorCosts, cheapest_anchors, check_same_places
from lidistill.detectors.width import WidthRule
from lidistill.ops.anchor_matching import Matching
from lidistill.ops.box_codes import decode_anchors, encode_anchors
from lidistill.ops.layer_graph import ChannelBlock, Layer
from lidistill.ops.precision import as_full
from lidistill.outputs import AnchorHeadOutput, Anchors, HeadOutput, HeadSpec
from lidistill.settings import NonNegative, Number, Share, Softness, Turn
from lidistill.types import Batch, Boxes, InputError, Losses, MapGrid

CODE_SIZE = 7
DIRECTION_BINS = 2
# initial score of every anchor, so that the loss of the many background anchors starts small (RetinaNet, section 3.3)
PRIOR = 0.01


@dataclass(frozen=True)
class AnchorHeadConfig(HeadConfig):
    """Settings of an AnchorHead. The defaults are those of OpenPCDet's KITTI networks."""

    anchors: Annotated[tuple[AnchorClass, ...], Field(max_length=100)] = ()  # one per class, in their order
    rotations: Annotated[tuple[Turn, ...], Field(min_length=1, max_length=32)] = (0.0, 1.57)
    placement: Literal["corners", "centres"] = "corners"  # see anchor_grid
    matching: Matching = "openpcdet"  # see assign_anchors
    # divide each frame's loss by its own number of positives, or the batch's loss by the batch's (mmdetection3d)
    normaliser: Literal["frame", "batch"] = "frame"
    direction: DirectionBins = field(default_factory=DirectionBins)
    class_weight: NonNegative = 1.0
    box_weight: NonNegative = 2.0
    direction_weight: NonNegative = 0.2
    focal_alpha: Share = 0.25
    focal_gamma: Annotated[Number, Field(ge=0, le=100)] = 2.0
    box_beta: Softness = 1 / 9  # error at which smooth L1 turns from quadratic to linear
    code_weights: Annotated[tuple[NonNegative, ...], Field(min_length=7, max_length=7)] = (
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
    )
    post: PostProcessing = field(default_factory=PostProcessing)

    def check_classes(self, classes: tuple[str, ...]) -> None:
        names = tuple(anchor.name for anchor in self.anchors)
        if not classes or names != classes:
            raise InputError(
                f"head: anchors for {names} do not fit the classes {classes}; give one anchor per class, in the same "
                "order"
            )

    def thinner(self, rule: WidthRule) -> AnchorHeadConfig:
        """Return the head unchanged: it has no hidden channels."""
        return self

    def build(
        self, in_channels: int, classes: tuple[str, ...], point_range: tuple[float, ...], size: tuple[int, int]
    ) -> AnchorHead:
        return AnchorHead(self, in_channels, point_range, size)


class AnchorHead(BevHead):
    """Class logits, box codes and direction logits of all anchors; AnchorHeadOutput states the layout of the maps."""

    anchors: Tensor  # (H * W * A, 7)
    code_weights: Tensor

    def __init__(
        self,
        config: AnchorHeadConfig,
        in_channels: int,
        point_range: tuple[float, ...],
        size: tuple[int, int],
    ) -> None:
        """`size` is the width and height of the map, in cells."""
        super().__init__()
        self.config = config
        self.grid = MapGrid.over(point_range, size)
        num_classes = len(config.anchors)
        per_cell = num_classes * len(config.rotations)
        self.conv_class = nn.Conv2d(in_channels, per_cell * num_classes, 1)
        self.conv_box = nn.Conv2d(in_channels, per_cell * CODE_SIZE, 1)
        self.conv_direction = nn.Conv2d(in_channels, per_cell * DIRECTION_BINS, 1)
        for layer in (self.conv_class, self.conv_box, self.conv_direction):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.conv_class.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        anchors = anchor_grid(config.anchors, config.rotations, point_range, *size, config.placement)
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("code_weights", torch.tensor(config.code_weights), persistent=False)

    def forward(self, features: Tensor) -> tuple[AnchorHeadOutput]:
        layers = {"class": self.conv_class, "box": self.conv_box, "direction": self.conv_direction}
        # One matrix product for the three layers: on one CPU thread, 1 x 1 convolutions take a slow path that costs a
        # quarter of a training step.
        weight = torch.cat([layer.weight.flatten(1) for layer in layers.values()])
        bias = torch.cat([layer.bias for layer in layers.values() if layer.bias is not None])
        joined = F.linear(features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
        maps = dict(zip(layers, joined.split([layer.out_channels for layer in layers.values()], dim=1), strict=True))
        matched = tuple(kind.matched for kind in self.config.anchors)
        anchors = Anchors(boxes=self.anchors, rotations=len(self.config.rotations), matched=matched)
        return (AnchorHeadOutput(tuple(range(len(matched))), maps, self.grid, anchors),)

    def specs(self, stride: int) -> tuple[HeadSpec]:
        return (HeadSpec(len(self.config.anchors) + CODE_SIZE + DIRECTION_BINS, AnchorHeadOutput, stride),)

    def loss(
        self, outputs: tuple[HeadOutput, ...], batch: Batch, ranked_by: tuple[HeadOutput, ...] | None = None
    ) -> Losses:
        """Return the weighted terms `class`, `box` and `direction`, and the log `positives`: the mean number of
        positive anchors per frame.

        With `ranked_by`, `cheapest_anchors` chooses the positive anchors by the losses of that head.
        """
        config = self.config
        num_classes, rotations = len(config.anchors), len(config.rotations)
        logits, codes, directions = self._rows(outputs[0])
        anchor_boxes = self.anchors.view(-1, num_classes, rotations, CODE_SIZE)
        costs = None if ranked_by is None else self._costs(outputs, ranked_by)
        sums, counts = [], []
        for frame, boxes in enumerate(batch.boxes):
            targets = assign_anchors(boxes, anchor_boxes, config.anchors, config.matching)
            if costs is not None:
                targets = cheapest_anchors(boxes, anchor_boxes, targets, costs[frame])
            positive = targets.positive
            truth = boxes.geometry[targets.truth[positive]].to(self.anchors.dtype)
            wanted = encode_anchors(truth, self.anchors[positive])
            sums.append(
                torch.stack(
                    [
                        focal_loss(logits[frame], targets.labels, config.focal_alpha, config.focal_gamma),
                        box_loss(codes[frame, positive], wanted, config.box_beta, self.code_weights),
                        direction_loss(directions[frame, positive], direction_bin(truth[:, 6], config.direction)),
                    ]
                )
            )
            counts.append(positive.shape[0])
        found = torch.tensor(counts, dtype=logits.dtype, device=logits.device)
        at_least_one = found.clamp(min=1)
        totals = torch.stack(sums)  # (B, 3)
        by_frame = config.normaliser == "frame"
        means = (totals / at_least_one[:, None]).mean(dim=0) if by_frame else totals.sum(dim=0) / at_least_one.sum()
        terms = {
            "class": means[0] * config.class_weight,
            "box": means[1] * config.box_weight,
            "direction": means[2] * config.direction_weight,
        }
        return Losses(terms=terms, logs={"positives": found.mean()})

    @torch.no_grad()
    def decode(self, outputs: tuple[HeadOutput, ...]) -> list[Boxes]:
        """Detections of each frame, best first."""
        logits, codes, directions = self._cells(outputs[0])
        per_cell = logits.shape[2]
        found = []
        for frame in range(logits.shape[0]):
            rows, scores = candidates(logits[frame].flatten(0, 1), self.config.post)
            cells, kinds = torch.div(rows, per_cell, rounding_mode="floor"), rows % per_cell
            boxes = decode_anchors(as_full(codes[frame, cells, kinds]), self.anchors[rows])
            yaw = with_direction(boxes[:, 6], directions[frame, cells, kinds].argmax(dim=1), self.config.direction)
            found.append(detections(torch.cat([boxes[:, :6], yaw[:, None]], dim=1), scores, self.config.post))
        return found

    def layer_graph(self, joined: tuple[ChannelBlock, ...]) -> list[Layer]:
        return [Layer(name, None, joined, None) for name in ("conv_class", "conv_box", "conv_direction")]

    @torch.no_grad()
    def _costs(self, outputs: tuple[HeadOutput, ...], ranked_by: tuple[HeadOutput, ...]) -> list[AnchorCosts]:
        """For each frame, a function that returns the costs of anchors for an object: the weighted class and box loss
        of the other head.
        """
        check_same_places(outputs, ranked_by)
        logits, codes, _ = self._rows(ranked_by[0])
        return [
            partial(self._costs_of, frame_logits, frame_codes)
            for frame_logits, frame_codes in zip(logits, codes, strict=True)
        ]

    def _costs_of(self, logits: Tensor, codes: Tensor, rows: Tensor, box: Tensor, label: int) -> Tensor:
        """Costs (P,) of the anchors `rows` (P,) if assigned to a box (7,) of class `label`, from the logits (A, K) and
        codes (A, 7) of a frame.
        """
        config = self.config
        wanted = encode_anchors(box.expand(len(rows), -1).to(self.anchors.dtype), self.anchors[rows])
        by_class = focal_costs(logits[rows], torch.full_like(rows, label), config.focal_alpha, config.focal_gamma)
        by_box = box_costs(codes[rows], wanted, config.box_beta, self.code_weights)
        return config.class_weight * by_class + config.box_weight * by_box

    def _rows(self, output: HeadOutput) -> tuple[Tensor, Tensor, Tensor]:
        """The maps as rows of anchors, at least in single precision: (B, A, K), (B, A, 7), (B, A, 2)."""
        logits, codes, directions = (as_full(values.flatten(1, 2)) for values in self._cells(output))
        return logits, codes, directions

    def _cells(self, output: HeadOutput) -> tuple[Tensor, Tensor, Tensor]:
        """The maps with K, 7 and 2 numbers per anchor: (B, H * W, anchors per cell, ...). They are views if the maps
        are channels_last.

        Raises InputError if the number of anchors is not this head's.
        """
        widths = {"class": len(self.config.anchors), "box": CODE_SIZE, "direction": DIRECTION_BINS}
        cells = [
            values.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (-1, width))
            for values, width in zip(map(output.tensors().__getitem__, widths), widths.values(), strict=True)
        ]
        num_anchors = cells[0].shape[1] * cells[0].shape[2]
        if num_anchors != self.anchors.shape[0]:
            raise InputError(
                f"head output with {num_anchors} anchors a frame does not belong to a head with "
                f"{self.anchors.shape[0]}; pass the output of this detector"
            )
        return cells[0], cells[1], cells[2]
