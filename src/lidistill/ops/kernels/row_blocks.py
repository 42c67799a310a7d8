"""Maps read as rows of cells, and rows taken in blocks that stay in a cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Elements that a block holds: the second-level cache of a CPU core; on a GPU enough to keep it busy.
BLOCK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 25}


def block_elements(device: torch.device) -> int:
    """Elements that a block holds on this device."""
    return BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"])


def row_blocks(num_rows: int, width: int, elements: int) -> Iterator[slice]:
    """Consecutive slices that cover `num_rows` rows of `width` columns, each of about `elements` elements."""
    step = max(1, elements // max(1, width))
    return (slice(start, start + step) for start in range(0, num_rows, step))


def cell_rows(values: Tensor) -> Tensor:
    """A map (C, H, W) as its cells (H * W, C): a view, contiguous if the map is channels_last."""
    return values.flatten(1).T
