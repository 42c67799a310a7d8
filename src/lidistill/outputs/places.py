"""Rows of a detector's output that belong to labelled objects: cells, anchors, points or proposals, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.types import Boxes, MapGrid


@dataclass(frozen=True)
class ObjectRows:
    """Rows of objects, frame by frame."""

    frames: Tensor  # (P,) int64, ascending
    rows: Tensor  # (P,) int64, within the frame: a cell (y-major), an anchor, a point or a proposal
    objects: Tensor  # (P,) int64, within the frame: row of its boxes

    @staticmethod
    def at(frames: Tensor, rows: Tensor) -> ObjectRows:
        """Rows without a labelled object; `objects` is 0."""
        return ObjectRows(frames, rows, torch.zeros_like(rows))

    @staticmethod
    def joined(found: Sequence[tuple[Tensor, Tensor]]) -> ObjectRows:
        """From the (rows, objects) of each frame."""
        return ObjectRows(
            torch.cat([torch.full_like(rows, frame) for frame, (rows, _) in enumerate(found)]),
            torch.cat([rows for rows, _ in found]),
            torch.cat([objects for _, objects in found]),
        )

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, chosen: Tensor) -> ObjectRows:
        """The places at `chosen`, a mask or ascending indices."""
        return ObjectRows(self.frames[chosen], self.rows[chosen], self.objects[chosen])

    def within(self, rows_per_frame: int) -> Tensor:
        """Rows (P,) counted over all frames, if every frame has `rows_per_frame` rows."""
        return self.frames * rows_per_frame + self.rows

    def of(self, boxes: Sequence[Boxes]) -> Boxes:
        """The labelled object of each row: boxes (P). `boxes` has one entry per frame."""
        starts = torch.tensor([0, *(len(frame) for frame in boxes)], device=self.rows.device).cumsum(dim=0)
        return Boxes.joined(boxes)[starts[self.frames] + self.objects]


def object_cells(
    grid: MapGrid, boxes: Sequence[Boxes], most: int | None = None, classes: Sequence[int] | None = None
) -> ObjectRows:
    """The cell that holds the centre of each object, in the order of the labels.

    Objects with their centre off the map are left out, and those of other classes than `classes`, if given. Of the
    remaining ones, a frame keeps the first `most`.
    """
    found = []
    for labelled in boxes:
        cells, inside = grid.cells_of(labelled.geometry[:, :2])
        if classes is not None:
            inside &= torch.isin(labelled.labels, labelled.labels.new_tensor(classes))
        objects = inside.nonzero()[:most, 0]
        found.append((grid.numbers_of(cells[objects]), objects))
    return ObjectRows.joined(found)


def worthiest(rows: Tensor, objects: Tensor, worth: Tensor, most: int | None) -> tuple[Tensor, Tensor]:
    """Of rows (P,) with objects (P,), the `most` with the largest worth (P,), in the order of their rows; ties go to
    the first. None keeps all.
    """
    kept = torch.argsort(worth, descending=True, stable=True)[:most]
    kept = kept[torch.argsort(rows[kept])]
    return rows[kept], objects[kept]
