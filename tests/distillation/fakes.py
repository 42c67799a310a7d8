"""Outputs of detectors that do not exist: random taps and heads that share places, as a teacher and a student of one
grid do.
"""

from __future__ import annotations

import torch

from lidistill.types import Anchors, Batch, Boxes, DetectorOutput, FeatureMap, FeatureSet, HeadOutput, MapGrid, TapSpec

ORIGIN, CELL, CELLS = (0.0, -4.0), (0.5, 0.5), (16, 12)  # rows along y, columns along x
GRID = MapGrid(ORIGIN, CELL, (CELLS[1], CELLS[0]))
COARSE = MapGrid(ORIGIN, (2 * CELL[0], 2 * CELL[1]), (CELLS[1] // 2, CELLS[0] // 2))
CLASSES = (0, 1, 2)
ANCHORS = 6
CENTER_MAPS = {"offset": 2, "height": 1, "size": 3, "rotation": 2}
# classes of each head; "centers" are two centre heads
HEADS = {"anchor": (CLASSES,), "center": (CLASSES,), "centers": ((0,), (1, 2))}


def specs(width: int, kind: str = "anchor") -> dict[str, TapSpec]:
    return {
        "encoder": TapSpec("set", width),
        "bev.0": TapSpec("map", width, 1),
        "bev.1": TapSpec("map", 2 * width, 2),
        "neck": TapSpec("map", 3 * width, 1),
        "points": TapSpec("set", width),
        **{
            f"head.{index}": TapSpec("head", len(classes) + (9 if kind == "anchor" else 8))
            for index, classes in enumerate(HEADS[kind])
        },
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
        if spec.kind == "head":
            continue
        if spec.kind == "set":
            counts = (batch.points[:, 0] * 32).long() + 1 if name == "encoder" else None
            taps[name] = FeatureSet(
                random(len(batch.points), spec.channels), batch.batch_index, batch.points[:, :3], counts
            )
        else:
            cells = grid(spec.stride * coarser)
            taps[name] = FeatureMap(random(batch.size, spec.channels, *cells.shape), cells)
    cells = grid(coarser)
    heads = []
    for classes in HEADS[kind]:
        if kind == "anchor":
            widths, anchors = (
                {"class": ANCHORS * 3, "box": ANCHORS * 7, "direction": ANCHORS * 2},
                anchor_boxes(cells),
            )
        else:
            widths, anchors = {"heatmap": len(classes), **CENTER_MAPS}, None
        maps = {name: random(batch.size, channels, *cells.shape) for name, channels in widths.items()}
        heads.append(HeadOutput("anchor" if kind == "anchor" else "center", classes, maps, cells, anchors))
    return DetectorOutput(taps, tuple(heads))


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
    return values | {
        f"head {index} {name}": value for index, head in enumerate(result.heads) for name, value in head.maps.items()
    }
