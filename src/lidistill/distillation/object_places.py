"""Where labelled objects lie in a detector's output: in which cells of a map, at which anchors of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.ops.kernels.overlap import overlap_nearest_bev
from lidistill.types import OBJECT_MAPS, Boxes, FeatureMap, HeadOutput, InputError


@dataclass(frozen=True)
class ObjectRows:
    """Places of objects, frame by frame."""

    frames: Tensor  # (P,) int64, ascending
    rows: Tensor  # (P,) int64, within the frame: a cell, y-major, or an anchor
    objects: Tensor  # (P,) int64, within the frame: row of its boxes

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, chosen: Tensor) -> ObjectRows:
        """The places at `chosen`, a mask or ascending indices."""
        return ObjectRows(self.frames[chosen], self.rows[chosen], self.objects[chosen])

    def within(self, rows_per_frame: int) -> Tensor:
        """Rows (P,) of the frames laid one after the other."""
        return self.frames * rows_per_frame + self.rows


def object_cells(like: FeatureMap | HeadOutput, boxes: Sequence[Boxes], most: int | None = None) -> ObjectRows:
    """The cell that holds the centre of each object, in the order of the labels; objects whose centre is not on the map
    are left out.

    Of a head only the objects of its classes count. A frame has the first `most` of its objects.
    """
    found = []
    for labelled in boxes:
        cells, inside = like.grid.cells_of(labelled.geometry[:, :2])
        if isinstance(like, HeadOutput):
            inside &= torch.isin(labelled.labels, labelled.labels.new_tensor(like.classes))
        objects = inside.nonzero()[:most, 0]
        found.append((like.grid.numbers_of(cells[objects]), objects))
    return _joined(found)


def positive_anchors(head: HeadOutput, boxes: Sequence[Boxes], most: int | None = None) -> ObjectRows:
    """The anchors that stand for objects of their class, in their own order: from the class's matched overlap on, and
    each object's best.

    Overlap is that of the ground rectangles turned to the nearest axis. An anchor stands for the object that it
    overlaps most; an object that overlaps no anchor has none. A frame has the `most` anchors of the largest overlap.
    This is the matching of OpenPCDet's anchor heads.
    """
    if head.anchors is None:
        raise InputError("the head says nothing of its anchors; let the detector fill HeadOutput.anchors")
    num_classes, rotations = len(head.classes), head.anchors.rotations
    anchors = head.anchors.boxes.view(-1, num_classes, rotations, 7)
    found = []
    for labelled in boxes:
        parts = []
        for index, (label, matched) in enumerate(zip(head.classes, head.anchors.matched, strict=True)):
            objects = (labelled.labels == label).nonzero()[:, 0]
            near = cells_near(anchors[:, index, 0], labelled.geometry[objects].to(anchors.dtype))
            overlap = overlap_nearest_bev(
                anchors[near, index].reshape(-1, 7), labelled.geometry[objects].to(anchors.dtype)
            )
            if overlap.numel() == 0:
                continue
            best, box = overlap.max(dim=1)
            best_of_box = overlap.amax(dim=0)
            positive = ((best >= matched) & (best > 0)) | ((overlap == best_of_box) & (best_of_box > 0)).any(dim=1)
            rows = (near[:, None] * num_classes + index) * rotations + torch.arange(rotations, device=near.device)
            parts.append((rows.reshape(-1)[positive], objects[box[positive]], best[positive]))
        found.append(_largest(parts, most, labelled.labels))
    return _joined(found)


def object_vectors(head: HeadOutput, places: ObjectRows) -> Tensor:
    """What the head says at each of its cells or anchors, its OBJECT_MAPS joined: (P, object_width)."""
    per_cell = head.maps["box"].shape[1] // 7 if head.kind == "anchor" else 1
    row, column = head.grid.numbered(places.rows // per_cell).unbind(dim=1)
    slots = places.rows % per_cell
    each = torch.arange(len(places), device=slots.device)
    found = [head.maps[name][places.frames, :, row, column] for name in OBJECT_MAPS[head.kind] if name in head.maps]
    return torch.cat(
        [values.view(len(places), per_cell, values.shape[1] // per_cell)[each, slots] for values in found], dim=1
    )


def cells_near(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Rows of one anchor a cell (cells, 7) that could touch any of the boxes (N, 7), however turned: (C,)."""
    reach = (torch.linalg.vector_norm(anchors[:1, 3:5], dim=1) + torch.linalg.vector_norm(boxes[:, 3:5], dim=1)) / 2
    near = ((anchors[:, None, :2] - boxes[None, :, :2]).abs() <= reach[:, None]).all(dim=2)
    return near.any(dim=1).nonzero()[:, 0]


def _largest(parts: Sequence[tuple[Tensor, Tensor, Tensor]], most: int | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, objects and overlaps of each class -> the rows of the largest overlaps and their objects, by row."""
    if not parts:
        return like.new_zeros(0), like.new_zeros(0)
    rows, objects, overlaps = (torch.cat(column) for column in zip(*parts, strict=True))
    kept = torch.argsort(overlaps, descending=True, stable=True)[:most]
    kept = kept[torch.argsort(rows[kept])]
    return rows[kept], objects[kept]


def _joined(found: Sequence[tuple[Tensor, Tensor]]) -> ObjectRows:
    frames = [torch.full_like(rows, frame) for frame, (rows, _) in enumerate(found)]
    return ObjectRows(
        torch.cat(frames), torch.cat([rows for rows, _ in found]), torch.cat([objects for _, objects in found])
    )
