"""The centre head: for each task a heat map of object centres, and at every cell the box of an object that might be
centred there.

CenterPoint (CVPR 2021), section 4.1, with the layers, initial weights and losses of OpenPCDet and mmdetection3d.
Classes of similar size share a task: a task has its own branches behind one convolution that all tasks share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lidistill.detectors.bev_detector import BevHead, HeadConfig
from lidistill.detectors.heads.center.branches import Branch, ConvolutionBlock
from lidistill.detectors.heads.center.decoding import (
    CenterPostProcessing,
    find_candidates,
    score_with_overlap,
    suppress,
    within_range,
)
from lidistill.detectors.heads.center.losses import code_loss, heatmap_loss, peak_costs
from lidistill.detectors.heads.center.targets import CenterTargets, CenterTargetSettings, center_targets
from lidistill.detectors.heads.ranked_targets import cheapest_cells, check_same_places
from lidistill.detectors.width import WidthRule
from lidistill.ops.box_codes import decode_centers
from lidistill.ops.kernels.overlap import overlap_pairs_3d
from lidistill.ops.layer_graph import ChannelBlock, Layer
from lidistill.ops.precision import as_full
from lidistill.outputs import CenterHeadOutput, HeadOutput, HeadSpec
from lidistill.settings import Channels, Layers, Names, NonNegative
from lidistill.types import Batch, Boxes, InputError, Losses, MapGrid

CODES = {"offset": 2, "height": 1, "size": 3, "rotation": 2}  # maps in the order of ops.box_codes.encode_centers
CODE_SIZE = sum(CODES.values())


@dataclass(frozen=True)
class CenterHeadConfig(HeadConfig):
    """Settings of a CenterHead. The defaults are those of the published nuScenes networks, but with one task; the Waymo
    networks have no velocity and a box_weight of 2.
    """

    tasks: Annotated[
        tuple[Names, ...], Field(max_length=100)
    ] = ()  # classes that share a heat map branch; (): all classes in one task
    shared_channels: Channels = 64
    head_channels: Channels = 64  # of the hidden layers of every branch
    # Whether a thinner head has thinner hidden layers, too (OpenPCDet, and SparseKD's students for Waymo), or keeps
    # their width (mmdetection3d). The nuScenes students of 4.70, 3.48 and 1.38 M parameters keep it; with thinner ones
    # they would have 4.34, 3.13 and 1.09 M.
    head_follows_shared: bool = False
    hidden_layers: Layers = 1  # per branch
    bias_before_norm: bool = False  # OpenPCDet's networks have this bias; the following BatchNorm cancels it
    with_velocity: bool = True
    with_overlap: bool = False  # predict the overlap of each box with its object and use it in the score
    targets: CenterTargetSettings = field(default_factory=CenterTargetSettings)
    heatmap_weight: NonNegative = 1.0
    box_weight: NonNegative = 0.25
    overlap_weight: NonNegative = 1.0
    # x, y, z, length, width, height, sine, cosine, velocity along x and y; the last two only with velocity. The
    # nuScenes files of OpenPCDet have the 0.2 on sine and cosine instead: they copied the list of CenterPoint,
    # where the velocity comes before the rotation.
    code_weights: Annotated[tuple[NonNegative, ...], Field(min_length=10, max_length=10)] = (*(1.0,) * 8, 0.2, 0.2)
    post: CenterPostProcessing = field(default_factory=CenterPostProcessing)

    def check_classes(self, classes: tuple[str, ...]) -> None:
        tasks = self.tasks_of(classes)
        if not classes or not all(tasks):
            raise InputError(f"head: tasks {tasks} for the classes {classes}; give at least one class to each task")
        named = [name for task in tasks for name in task]
        for name in dict.fromkeys((*classes, *named)):
            if name not in classes:
                raise InputError(f"head: tasks name {name!r}, which is not among the classes {classes}; leave it out")
            if named.count(name) != 1:
                raise InputError(f"head: class {name!r} is in {named.count(name)} tasks; put each class in exactly one")
        self.post.check_counts(len(tasks), len(classes))

    def tasks_of(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The tasks of a detector with `classes`."""
        return self.tasks or (classes,)

    def thinner(self, rule: WidthRule) -> CenterHeadConfig:
        hidden = rule.width(self.head_channels, rule.head) if self.head_follows_shared else self.head_channels
        return replace(self, shared_channels=rule.width(self.shared_channels, rule.head), head_channels=hidden)

    def build(
        self, in_channels: int, classes: tuple[str, ...], point_range: tuple[float, ...], size: tuple[int, int]
    ) -> CenterHead:
        return CenterHead(self, in_channels, classes, point_range, size)


class CenterHead(BevHead):
    """Heat maps and box codes of every cell; see CenterHeadOutput for the maps.

    The branches are computed one by one. With the convolutions and BatchNorms of a task merged into one, training took
    1.1 to 1.3 times as long on a CPU (0.7 times on a map of 24 x 24 cells with 16 channels), because the merged map of
    all hidden layers does not fit into the cache.
    """

    code_weights: Tensor

    def __init__(
        self,
        config: CenterHeadConfig,
        in_channels: int,
        classes: tuple[str, ...],
        point_range: tuple[float, ...],
        size: tuple[int, int],
    ) -> None:
        """`size` is the width and height of the map, in cells."""
        super().__init__()
        self.config = config
        self.grid = MapGrid.over(point_range, size)
        self.task_classes = tuple(tuple(classes.index(name) for name in task) for task in config.tasks_of(classes))
        self.shared = ConvolutionBlock(in_channels, config.shared_channels, config.bias_before_norm)
        self.tasks = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: Branch(
                        config.shared_channels,
                        config.head_channels,
                        channels,
                        config.hidden_layers,
                        config.bias_before_norm,
                        is_heatmap=name == "heatmap",
                    )
                    for name, channels in _branches(config, len(task)).items()
                }
            )
            for task in self.task_classes
        )
        exponents = config.post.overlap_exponents
        self.overlap_exponents = exponents * len(classes) if len(exponents) == 1 else exponents
        weights = config.code_weights if config.with_velocity else config.code_weights[:CODE_SIZE]
        self.register_buffer("code_weights", torch.tensor(weights), persistent=False)

    def forward(self, features: Tensor) -> tuple[CenterHeadOutput, ...]:
        shared = self.shared(features)
        outputs = []
        for classes, branches in zip(self.task_classes, self.tasks, strict=True):
            assert isinstance(branches, nn.ModuleDict)
            maps = {name: branch(shared) for name, branch in branches.items()}
            outputs.append(CenterHeadOutput(classes, maps, self.grid))
        return tuple(outputs)

    def specs(self, stride: int) -> tuple[HeadSpec, ...]:
        per_object = CODE_SIZE + (2 if self.config.with_velocity else 0)
        return tuple(HeadSpec(len(task) + per_object, CenterHeadOutput, stride) for task in self.task_classes)

    def loss(
        self, outputs: tuple[HeadOutput, ...], batch: Batch, ranked_by: tuple[HeadOutput, ...] | None = None
    ) -> Losses:
        """Return the weighted terms `heatmap`, `box` and, if predicted, `overlap`, summed over tasks, and the log
        `positives`: the mean number of objects per frame.

        With `ranked_by`, `cheapest_cells` chooses the cell of an object's peak by the losses of that head.
        """
        terms, positives = [], 0
        if ranked_by is not None:
            check_same_places(outputs, ranked_by)
        others = None if ranked_by is None else self._checked(ranked_by)
        for task, output in enumerate(self._checked(outputs)):
            move = None
            if others is not None:
                move = partial(cheapest_cells, partial(self._costs_of, others[task]), self.grid.size)
            targets = center_targets(batch.boxes, output.classes, self.grid, self.config.targets, move)
            terms.append(self.task_terms(output, targets))
            positives += len(targets.codes)
        sums = {name: torch.stack([of_task[name] for of_task in terms]).sum() for name in terms[0]}
        return Losses(sums, logs={"positives": self.code_weights.new_tensor(positives / batch.size)})

    def task_terms(self, output: CenterHeadOutput, targets: CenterTargets) -> dict[str, Tensor]:
        """The weighted terms of one task, divided by the number of peaks (heat map) or objects (box, overlap)."""
        config = self.config
        codes = self._codes(output, targets.frames, targets.cells)
        wanted = torch.cat([targets.codes, targets.velocity], dim=1)[:, : codes.shape[1]]
        terms = {
            "heatmap": heatmap_loss(as_full(output.maps["heatmap"]), targets.heatmap) * config.heatmap_weight,
            "box": code_loss(codes, wanted, self.code_weights) * config.box_weight,
        }
        if config.with_overlap:
            boxes = decode_centers(codes[:, :CODE_SIZE].detach(), targets.cells, self.grid)
            overlap = 2 * overlap_pairs_3d(boxes, targets.boxes)[:, None] - 1
            stated = _at(output.maps["overlap"], targets.frames, targets.cells)
            terms["overlap"] = code_loss(stated, overlap, self.code_weights.new_ones(1)) * config.overlap_weight
        return terms

    @torch.no_grad()
    def decode(self, outputs: tuple[HeadOutput, ...]) -> list[Boxes]:
        """Detections of each frame, best first. The score of a box is that of the heat map, combined with its predicted
        overlap if there is one.
        """
        by_task = [self._decode_task(task, output) for task, output in enumerate(self._checked(outputs))]
        return [_best_first(parts) for parts in zip(*by_task, strict=True)]

    def layer_graph(self, joined: tuple[ChannelBlock, ...]) -> list[Layer]:
        layers = [Layer("shared.conv", "shared.norm", joined, "head.shared")]
        for task, branches in enumerate(self.tasks):
            assert isinstance(branches, nn.ModuleDict)
            for branch in branches:
                name, blocks = f"tasks.{task}.{branch}", (ChannelBlock("head.shared"),)
                for index in range(self.config.hidden_layers):
                    output = f"head.{task}.{branch}.{index}"
                    layers.append(Layer(f"{name}.hidden.{index}.conv", f"{name}.hidden.{index}.norm", blocks, output))
                    blocks = (ChannelBlock(output),)
                layers.append(Layer(f"{name}.output", None, blocks, None))
        return layers

    def _decode_task(self, task: int, output: CenterHeadOutput) -> list[Boxes]:
        """Detections of one task in each frame."""
        post = self.config.post
        found = []
        for frame, candidates in enumerate(find_candidates(output.maps["heatmap"], post)):
            frames = torch.full_like(candidates.channels, frame)
            codes = self._codes(output, frames, candidates.cells)
            labels = torch.tensor(output.classes, device=frames.device)[candidates.channels]
            scores = candidates.scores
            if self.config.with_overlap:
                exponents = scores.new_tensor(self.overlap_exponents)[labels]
                scores = score_with_overlap(
                    scores, _at(output.maps["overlap"], frames, candidates.cells)[:, 0], exponents
                )
            geometry = decode_centers(codes[:, :CODE_SIZE], candidates.cells, self.grid)
            velocity = codes[:, CODE_SIZE:] if self.config.with_velocity else None
            boxes = Boxes(geometry, labels, scores, velocity)[within_range(geometry, post) & torch.isfinite(scores)]
            found.append(boxes[suppress(boxes.geometry, _scores(boxes), task, post)])
        return found

    @torch.no_grad()
    def _costs_of(
        self, output: CenterHeadOutput, frames: Tensor, channels: Tensor, cells: Tensor, codes: Tensor
    ) -> Tensor:
        """Costs (N,) of having the peaks of objects with codes (N, 8) in `cells` (N, 2): the weighted heat map and box
        loss of `output`, without velocities.
        """
        config = self.config
        logits = _at(output.maps["heatmap"], frames, cells).gather(1, channels[:, None])[:, 0]
        errors = (self._codes(output, frames, cells)[:, :CODE_SIZE] - codes).abs() * self.code_weights[:CODE_SIZE]
        return config.heatmap_weight * peak_costs(logits) + config.box_weight * errors.sum(dim=1)

    def _codes(self, output: CenterHeadOutput, frames: Tensor, cells: Tensor) -> Tensor:
        """The codes, and velocities where predicted, at cells (N, 2) of frames (N,): (N, 8) or (N, 10)."""
        names = [*CODES, "velocity"] if self.config.with_velocity else [*CODES]
        return torch.cat([_at(output.maps[name], frames, cells) for name in names], dim=1)

    def _checked(self, outputs: tuple[HeadOutput, ...]) -> tuple[CenterHeadOutput, ...]:
        """Return `outputs` if their tasks and maps are those of this head; raise InputError otherwise."""
        if tuple(output.classes for output in outputs) != self.task_classes:
            given = [output.classes for output in outputs]
            raise InputError(
                f"head output for the tasks {given} does not belong to a centre head with the tasks "
                f"{list(self.task_classes)}; pass the output of this detector"
            )
        checked = []
        for output in outputs:
            if not isinstance(output, CenterHeadOutput):
                raise InputError(
                    f"head output of kind {output.name!r} does not belong to a centre head; pass the output of this "
                    "detector"
                )
            for name, channels in _branches(self.config, len(output.classes)).items():
                shape = tuple(output.maps[name].shape[1:]) if name in output.maps else None
                if shape != (channels, *self.grid.shape):
                    raise InputError(
                        f"head output whose {name!r} map is {shape} does not belong to a centre head with "
                        f"{(channels, *self.grid.shape)}; pass the output of this detector"
                    )
            checked.append(output)
        return tuple(checked)


def _branches(config: CenterHeadConfig, num_classes: int) -> dict[str, int]:
    """Channels of each map of a task."""
    extra = ({"velocity": 2} if config.with_velocity else {}) | ({"overlap": 1} if config.with_overlap else {})
    return {"heatmap": num_classes, **CODES, **extra}


def _at(values: Tensor, frames: Tensor, cells: Tensor) -> Tensor:
    """Values (B, C, H, W) at cells (N, 2: row, column) of frames (N,), at least in single precision: (N, C)."""
    return as_full(values[frames, :, cells[:, 0], cells[:, 1]])


def _scores(boxes: Boxes) -> Tensor:
    assert boxes.scores is not None
    return boxes.scores


def _best_first(parts: tuple[Boxes, ...]) -> Boxes:
    """Join the detections of all tasks of one frame, best first."""
    joined = Boxes.joined(parts)
    return joined[torch.sort(_scores(joined), descending=True, stable=True).indices]
