"""Outputs of detectors that do not exist: random taps and heads that share places, as a teacher and a student of one
grid do.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lidistill.outputs import (
    AnchorHeadOutput,
    Anchors,
    CenterHeadOutput,
    DetectorOutput,
    FeatureMap,
    FeatureSet,
    HeadSpec,
    MapSpec,
    PointHeadOutput,
    RoiHeadOutput,
    SetSpec,
    TapSpec,
)
from lidistill.types import Batch, Boxes, MapGrid

ORIGIN, CELL, CELLS = (0.0, -4.0), (0.5, 0.5), (16, 12)  # rows along y, columns along x
GRID = MapGrid(ORIGIN, CELL, (CELLS[1], CELLS[0]))
COARSE = MapGrid(ORIGIN, (2 * CELL[0], 2 * CELL[1]), (CELLS[1] // 2, CELLS[0] // 2))
CLASSES = (0, 1, 2)
ANCHORS = 6
ANYWHERE = torch.tensor([[3.0, 0.0, -1.0, 1.6, 0.9, 1.5, 0.0]])
CENTER_MAPS = {"offset": 2, "height": 1, "size": 3, "rotation": 2}
# classes of each head; "centers" are two centre heads
HEADS = {"anchor": (CLASSES,), "center": (CLASSES,), "centers": ((0,), (1, 2))}


def specs(width: int, kind: str = "anchor") -> dict[str, TapSpec]:
    codes, head = (9, AnchorHeadOutput) if kind == "anchor" else (8, CenterHeadOutput)
    return {
        "encoder": SetSpec(width),
        "bev.0": MapSpec(width, 1),
        "bev.1": MapSpec(2 * width, 2),
        "neck": MapSpec(3 * width, 1),
        "points": SetSpec(width),
        **{f"head.{index}": HeadSpec(len(classes) + codes, head) for index, classes in enumerate(HEADS[kind])},
    }


def point_specs(width: int) -> dict[str, TapSpec]:
    """Of a detector with two stages that has no grid: it classifies points, then refines its own proposals."""
    return {
        "points": SetSpec(width),
        "proposals": SetSpec(2 * width, has_own_places=True),
        "stage.0.head.0": HeadSpec(len(CLASSES) + 8, PointHeadOutput),
        "head.0": HeadSpec(len(CLASSES) + 7, RoiHeadOutput, stage=1),
    }


def make_batch(rows=(40, 30), objects=2) -> Batch:
    """`rows` pillars a frame, one point each, and `objects` boxes a frame."""
    draw = torch.Generator().manual_seed(1)
    boxes = []
    for _ in rows:
        places = torch.rand(objects, 2, generator=draw) * torch.tensor([5.0, 7.0]) + torch.tensor([0.5, -3.5])
        sizes = torch.tensor([[-1.0, 1.6, 0.9, 1.5]]).expand(objects, 4)
        geometry = torch.cat([places, sizes, torch.rand(objects, 1, generator=draw)], dim=1)
        boxes.append(Boxes(geometry, torch.randint(3, (objects,), generator=draw)))
    index = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))
    points = torch.rand(len(index), 4, generator=draw)
    return Batch(tuple(f"frame-{i}" for i in range(len(rows))), points, index, tuple(boxes))


def output(width: int, batch: Batch, seed: int, *, requires_grad=False, kind="anchor", coarser=1) -> DetectorOutput:
    """Features depend on `seed`, places on the batch alone; maps have cells `coarser` times as large as CELL along both
    axes.
    """
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return (torch.randn(shape, generator=draw) + 0.2).requires_grad_(requires_grad)

    def grid(stride):
        return MapGrid(ORIGIN, (CELL[0] * stride, CELL[1] * stride), (CELLS[1] // stride, CELLS[0] // stride))

    taps = {}
    for name, spec in specs(width).items():
        if spec.is_head:
            continue
        if spec.is_map:
            cells = grid(spec.stride * coarser)
            taps[name] = FeatureMap(random(batch.size, spec.channels, *cells.shape), cells)
        else:
            counts = (batch.points[:, 0] * 32).long() + 1 if name == "encoder" else None
            taps[name] = FeatureSet(
                random(len(batch.points), spec.channels), batch.batch_index, batch.points[:, :3], counts
            )
    cells = grid(coarser)
    heads = []
    for classes in HEADS[kind]:
        if kind == "anchor":
            widths = {"class": ANCHORS * 3, "box": ANCHORS * 7, "direction": ANCHORS * 2}
        else:
            widths = {"heatmap": len(classes), **CENTER_MAPS}
        maps = {name: random(batch.size, channels, *cells.shape) for name, channels in widths.items()}
        if kind == "anchor":
            heads.append(AnchorHeadOutput(classes, maps, cells, anchor_boxes(cells)))
        else:
            heads.append(CenterHeadOutput(classes, maps, cells))
    return DetectorOutput(taps, tuple(heads))


def point_output(width: int, batch: Batch, seed: int, *, requires_grad=False, num_proposals=12) -> DetectorOutput:
    """Of the detector of `point_specs`: its points are those of the batch; where its proposals lie depends on `seed`,
    near the objects of the batch.
    """
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return (torch.randn(shape, generator=draw) + 0.2).requires_grad_(requires_grad)

    num, frames = len(batch.points), batch.batch_index
    with_rows = frames.unique()
    of_proposal = with_rows.repeat_interleave(num_proposals)
    boxes = []
    for frame in with_rows.tolist():
        objects = batch.boxes[frame].geometry
        objects = objects if len(objects) else ANYWHERE
        near = objects[torch.arange(num_proposals) % len(objects)]
        boxes.append(near + 0.1 * torch.randn(num_proposals, 7, generator=draw).clamp(-2, 2))
    proposals = torch.cat([torch.zeros(0, 7), *boxes])
    refined = (proposals + 0.05 * torch.randn(len(proposals), 7, generator=draw)).requires_grad_(requires_grad)
    points = PointHeadOutput(
        CLASSES, random(num, len(CLASSES)), frames, batch.size, random(num, 8), batch.points[:, :3]
    )
    rois = RoiHeadOutput(CLASSES, random(len(proposals), len(CLASSES)), of_proposal, batch.size, refined, proposals)
    taps = {
        "points": FeatureSet(random(num, width), frames, batch.points[:, :3]),
        "proposals": FeatureSet(random(len(proposals), 2 * width), of_proposal, proposals[:, :3]),
    }
    return DetectorOutput(taps, (rois,), ((points,),))


def points_on_objects(rows=(40, 30), objects=2) -> Batch:
    """As `make_batch`, half of the points lie inside of objects."""
    batch = make_batch(rows, objects)
    points = batch.points.clone()
    for row, frame in enumerate(batch.batch_index.tolist()):
        boxes = batch.boxes[frame].geometry
        if row % 2 == 0 and len(boxes):
            points[row, :3] = boxes[row // 2 % len(boxes), :3] + 0.2 * (points[row, :3] - 0.5)
    return replace(batch, points=points)


def anchor_boxes(grid=GRID) -> Anchors:
    """Two anchors of each class on the centre of every cell."""
    boxes = torch.zeros(*grid.shape, len(CLASSES), 2, 7)
    boxes[..., :2] = grid.centres()[:, :, None, None]
    boxes[..., 2:6] = torch.tensor([-1.0, 1.6, 0.9, 1.5])
    boxes[..., 1, 6] = 1.57
    return Anchors(boxes.reshape(-1, 7), rotations=2, matched=(0.5, 0.4, 0.4))


def tensors(result: DetectorOutput) -> dict[str, torch.Tensor]:
    """Every tensor of taps and heads by name."""
    values = {f"tap {name}": tap.features for name, tap in result.taps.items()}
    heads = [head for stage in result.stages for head in stage]
    return values | {
        f"head {index} {name}": value for index, head in enumerate(heads) for name, value in head.tensors().items()
    }
