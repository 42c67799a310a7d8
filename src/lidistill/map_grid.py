"""The grid of a bird's-eye-view (BEV) map, in metres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Two grids are the same if their corners differ by at most this share of a cell.
SAME_GRID_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MapGrid:
    """The grid of a bird's-eye-view (BEV) map: rows along y, columns along x.

    A cell is given by (row, column), or by its number: row * width + column.
    """

    origin: tuple[float, float]  # x, y of the outer corner of cell (0, 0), metres
    cell: tuple[float, float]  # size of a cell along x and y, metres
    size: tuple[int, int]  # width and height: cells along x and y

    @staticmethod
    def over(point_range: tuple[float, ...], size: tuple[int, int]) -> MapGrid:
        """The grid of `size` (width, height) cells over the range x_min y_min z_min x_max y_max z_max, metres."""
        width, height = size
        cell = (point_range[3] - point_range[0]) / width, (point_range[4] - point_range[1]) / height
        return MapGrid((point_range[0], point_range[1]), cell, (width, height))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width: the last two dimensions of a map's features."""
        return self.size[1], self.size[0]

    @property
    def num_cells(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def far_corner(self) -> tuple[float, float]:
        """x, y of the outer corner opposite to the origin, metres."""
        return self.origin[0] + self.size[0] * self.cell[0], self.origin[1] + self.size[1] * self.cell[1]

    def in_cells(self, places: Tensor) -> Tensor:
        """Convert points (N, 2: x, y) or rectangles (N, 4: x, y, x, y) from metres to cells from the origin.

        The shape and precision stay. Cell (0, 0) reaches from 0 to 1 along both axes.
        """
        pairs = places.shape[-1] // 2
        return (places - places.new_tensor(self.origin * pairs)) / places.new_tensor(self.cell * pairs)

    def in_metres(self, places: Tensor) -> Tensor:
        """The inverse of `in_cells`: from cells to metres."""
        pairs = places.shape[-1] // 2
        return places * places.new_tensor(self.cell * pairs) + places.new_tensor(self.origin * pairs)

    def cells_of(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The cells (N, 2: row, column) int64 of points (N, 2: x, y) in metres, and whether each point is inside the
        map, (N,) bool.

        A point outside the map gets the nearest cell. NaN and infinity are outside, too.
        """
        where = self.in_cells(places.double())
        size = where.new_tensor(self.size)
        inside = ((where >= 0) & (where < size)).all(dim=1)  # false for NaN
        # clamped as floating-point numbers, because huge values overflow int64
        nearest = torch.minimum(where.nan_to_num(nan=0.0).floor().clamp(min=0), size - 1)
        return nearest.long().flip(1), inside

    def numbers_of(self, cells: Tensor) -> Tensor:
        """The numbers (N,) of cells (N, 2: row, column)."""
        return cells[:, 0] * self.size[0] + cells[:, 1]

    def numbered(self, numbers: Tensor) -> Tensor:
        """The inverse of `numbers_of`: cells (N, 2: row, column) of numbers (N,)."""
        return torch.stack([torch.div(numbers, self.size[0], rounding_mode="floor"), numbers % self.size[0]], dim=1)

    def centres(self, device: torch.device | str = "cpu") -> Tensor:
        """The centre of each cell: (H, W, 2: x, y) in metres, float32."""
        x, y = (
            low + (torch.arange(count, device=device) + 0.5) * step
            for low, step, count in zip(self.origin, self.cell, self.size, strict=True)
        )
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return torch.stack([columns, rows], dim=-1)

    def same_as(self, other: MapGrid) -> bool:
        """Whether both grids have the same cells at the same positions, within SAME_GRID_TOLERANCE."""
        if self.size != other.size:
            return False
        slack = SAME_GRID_TOLERANCE * min(self.cell)
        return all(
            abs(own - others) <= slack
            for one, another in ((self.origin, other.origin), (self.far_corner, other.far_corner))
            for own, others in zip(one, another, strict=True)
        )
