"""Targets of a centre head: one heat map per class, and box codes at the cells that hold the objects' centres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lidistill.ops.box_codes import encode_centers
from lidistill.ops.heatmaps import draw_gaussians, gaussian_radius
from lidistill.settings import BoxCount, CellsOrNone, InnerShare, Settings
from lidistill.types import Boxes, MapGrid

LARGEST_RADIUS = 1 << 30  # cells: wider than any map, and its square still fits into an int64


@dataclass(frozen=True)
class CenterTargetSettings(Settings):
    """How objects become targets; the defaults are those of every published CenterPoint."""

    place: ClassVar[str] = "head.targets"

    gaussian_overlap: InnerShare = 0.1  # see ops.heatmaps.gaussian_radius
    min_radius: CellsOrNone = 2  # cells
    max_objects: BoxCount = 500  # per frame and task; only the first ones count
    # objects whose centre is off the map: left out (mmdetection3d), or moved to its border (OpenPCDet)
    outside: Literal["skip", "border"] = "skip"


@dataclass(frozen=True)
class CenterTargets:
    """Targets of one task for a batch with N objects, grouped by frame."""

    heatmap: Tensor  # (B, K, H, W) in [0, 1], 1 at the centres
    frames: Tensor  # (N,) int64
    cells: Tensor  # (N, 2) int64: row, column
    codes: Tensor  # (N, 8), see ops.box_codes.encode_centers
    boxes: Tensor  # (N, 7) the objects themselves
    velocity: Tensor  # (N, 2) metres per second, NaN where unknown


def center_targets(
    boxes: Sequence[Boxes],
    classes: Sequence[int],
    grid: MapGrid,
    settings: CenterTargetSettings,
    move: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> CenterTargets:
    """Targets of the task that predicts `classes` on a map with the cells of `grid`; `boxes` has one entry per frame.

    Boxes of other classes, boxes with a NaN or infinite value and boxes without volume are skipped. Two objects in one
    cell share its peak, but each has its own target codes there. `move` may move the peaks: it takes frames (N,),
    channels (N,), cells (N, 2) and codes (N, 8), and returns the cells (N, 2) of the map to use instead. Matches
    `CenterHead.assign_targets` of OpenPCDet and `get_targets` of mmdetection3d.
    """
    objects = Boxes.joined(boxes)
    geometry, labels = objects.geometry.float(), objects.labels
    # NaN if the dataset has no velocities
    velocity = (
        geometry.new_full((len(objects), 2), torch.nan)
        if objects.velocity is None
        else objects.velocity.to(geometry.dtype)
    )
    counts = torch.tensor([len(frame) for frame in boxes], device=geometry.device)
    frames = torch.repeat_interleave(torch.arange(len(boxes), device=geometry.device), counts)

    # Positions on the map are compared as floats, not as whole cells: a huge one does not fit into an int64.
    edges = geometry.new_tensor(grid.size)
    places = grid.in_cells(geometry[:, :2])
    of_class = labels[:, None] == torch.tensor(classes, device=labels.device)  # (all boxes, K)
    usable = of_class.any(dim=1) & torch.isfinite(geometry).all(dim=1) & (geometry[:, 3:6] > 0).all(dim=1)
    if settings.outside == "skip":
        usable &= ((places >= 0) & (places < edges)).all(dim=1)
    rows = usable.nonzero()[:, 0]
    rows = rows[_place_in_group(frames[rows], len(boxes)) < settings.max_objects]
    geometry, frames, places = geometry[rows], frames[rows], places[rows]

    centred = geometry
    # moved to the outer edge of the first cell or to the middle of the last one, as in OpenPCDet
    if settings.outside == "border":
        nearest = torch.minimum(places.clamp(min=0), edges - 0.5)
        moved_there = grid.in_metres(nearest)
        centred = torch.cat([torch.where(nearest == places, geometry[:, :2], moved_there), geometry[:, 2:]], dim=1)
    cells, codes = encode_centers(centred, grid)

    radius = gaussian_radius(geometry[:, 3] / grid.cell[0], geometry[:, 4] / grid.cell[1], settings.gaussian_overlap)
    radii = radius.clamp(max=LARGEST_RADIUS).long().clamp(min=settings.min_radius)
    channels = of_class[rows].int().argmax(dim=1)
    if move is not None:
        moved = move(frames, channels, cells, codes)
        codes = torch.cat([codes[:, :2] + (cells - moved).flip(1), codes[:, 2:]], dim=1)
        cells = moved
    heatmap = draw_gaussians(
        geometry.new_zeros((len(boxes) * len(classes), *grid.shape)), frames * len(classes) + channels, cells, radii
    )
    return CenterTargets(
        heatmap.view(len(boxes), len(classes), *grid.shape), frames, cells, codes, geometry, velocity[rows]
    )


def _place_in_group(groups: Tensor, num_groups: int) -> Tensor:
    """For each row of ascending groups (N,), how many rows of its group come before it: (N,)."""
    counts = torch.bincount(groups, minlength=num_groups)
    return torch.arange(len(groups), device=groups.device) - (torch.cumsum(counts, dim=0) - counts)[groups]
