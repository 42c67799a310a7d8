"""Taps of two networks: found, checked, paired, and read at each other's places."""

from __future__ import annotations

import torch.nn.functional as F

from lidistill.ops.precision import as_full
from lidistill.types import DetectorOutput, FeatureMap, FeatureSet, InputError


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
    return taught.with_features(as_full(taught.features.detach())), learnt.with_features(as_full(learnt.features))


def resampled(source: FeatureMap, like: FeatureMap) -> FeatureMap:
    """`source` read bilinearly at the cell centres of `like`, place for place in metres; cells outside of `source`
    repeat its border.
    """
    if source.grid.same_as(like.grid):
        return source
    places = source.grid.in_cells(like.grid.centres(source.features.device))
    relative = 2 * places / places.new_tensor(source.grid.size) - 1  # -1 and 1 are the outer edges
    features = F.grid_sample(
        source.features,
        relative.to(source.features.dtype).expand(source.features.shape[0], *relative.shape),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return like.with_features(features)
