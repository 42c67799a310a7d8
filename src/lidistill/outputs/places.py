"""Where labelled objects are in a detector's output: rows of cells, anchors, points or proposals, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.types import Boxes, MapGrid


@dataclass(frozen=True)
class ObjectRows:
    """Places of objects, frame by frame."""

    frames: Tensor  # (P,) int64, ascending
    rows: Tensor  # (P,) int64, within the frame: a cell (y-major), an anchor, a point or a proposal
    objects: Tensor  # (P,) int64, within the frame: row of its boxes

    @staticmethod
    def at(frames: Tensor, rows: Tensor) -> ObjectRows:
        """Places that stand for no particular object."""
        return ObjectRows(frames, rows, torch.zeros_like(rows))

    @staticmethod
    def joined(found: Sequence[tuple[Tensor, Tensor]]) -> ObjectRows:
        """Rows and objects of each frame, side by side."""
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
        """Rows (P,) of the frames laid one after the other."""
        return self.frames * rows_per_frame + self.rows

    def of(self, boxes: Sequence[Boxes]) -> Boxes:
        """The object of each place: boxes (P)."""
        starts = torch.tensor([0, *(len(frame) for frame in boxes)], device=self.rows.device).cumsum(dim=0)
        return Boxes.joined(boxes)[starts[self.frames] + self.objects]


def object_cells(
    grid: MapGrid, boxes: Sequence[Boxes], most: int | None = None, classes: Sequence[int] | None = None
) -> ObjectRows:
    """The cell that holds the centre of each object, in the order of the labels; an object with its centre off the map
    is left out.

    With `classes` only objects of these classes count. A frame has the first `most` of its objects.
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
    """Rows (P,) with their objects (P,) -> the `most` of largest worth (P,), in the order of their rows; of equal ones
    the first.
    """
    kept = torch.argsort(worth, descending=True, stable=True)[:most]
    kept = kept[torch.argsort(rows[kept])]
    return rows[kept], objects[kept]
