"""Taps of two networks: found, checked, paired, and read at each other's places."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lidistill.ops.precision import as_full
from lidistill.types import DetectorOutput, FeatureMap, FeatureSet, InputError

# Two maps lie on one grid when no corner is further apart than this share of a cell.
SAME_GRID_TOLERANCE = 1e-3


def find_tap(output: DetectorOutput, method: str, tap: str) -> FeatureMap | FeatureSet:
    """The tap, or an InputError that lists what the output holds (the specs had promised it)."""
    if tap not in output.taps:
        raise InputError(
            f"{method}: the output holds no tap {tap!r}, only {', '.join(map(repr, output.taps)) or 'none'}; fix the "
            "detector's tap_specs"
        )
    return output.taps[tap]


def paired_maps(
    method: str, tap: str, teacher: DetectorOutput, student: DetectorOutput
) -> tuple[FeatureMap, FeatureMap]:
    """The teacher's map `tap`, detached, and the student's, both at least in float32, each on its own grid."""
    taught, learnt = find_tap(teacher, method, tap), find_tap(student, method, tap)
    if not (isinstance(taught, FeatureMap) and isinstance(learnt, FeatureMap)):
        raise InputError(f"{method}: the tap {tap!r} is no map; choose a map such as 'neck'")
    return FeatureMap(as_full(taught.features.detach()), taught.origin, taught.cell), FeatureMap(
        as_full(learnt.features), learnt.origin, learnt.cell
    )


def same_grid(one: FeatureMap, other: FeatureMap) -> bool:
    """Whether both maps have the same cells in the same places (metres)."""
    if one.features.shape[2:] != other.features.shape[2:]:
        return False
    height, width = one.features.shape[2:]
    slack = SAME_GRID_TOLERANCE * min(one.cell)
    near = max(abs(a - b) for a, b in zip(one.origin, other.origin, strict=True))
    far = max(
        abs(a + n * da - b - n * db)
        for a, da, b, db, n in zip(one.origin, one.cell, other.origin, other.cell, (width, height), strict=True)
    )
    return near <= slack and far <= slack


def resampled(source: FeatureMap, like: FeatureMap) -> FeatureMap:
    """`source` read bilinearly at the cell centres of `like`, place for place in metres; cells outside of `source`
    repeat its border.
    """
    if same_grid(source, like):
        return source
    height, width = source.features.shape[2:]
    places = cell_centres(like)[..., :2]
    extent = places.new_tensor([width * source.cell[0], height * source.cell[1]])
    relative = 2 * (places - places.new_tensor(source.origin)) / extent - 1  # -1 and 1 are the outer edges
    features = F.grid_sample(
        source.features,
        relative.to(source.features.dtype).expand(source.features.shape[0], *relative.shape),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return FeatureMap(features=features, origin=like.origin, cell=like.cell)


def cell_centres(like: FeatureMap) -> Tensor:
    """Centres of the map's cells: (H, W, 3) metres, z zero."""
    return (
        FeatureMap(like.features[:1, :1], like.origin, like.cell).as_set().positions.view(*like.features.shape[2:], 3)
    )
