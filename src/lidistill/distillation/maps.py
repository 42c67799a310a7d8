"""One map of both networks, ready to be compared."""

from __future__ import annotations

from lidistill.distillation.parts import find_tap
from lidistill.ops.precision import as_full
from lidistill.types import DetectorOutput, FeatureMap, InputError


def paired_maps(method: str, tap: str, teacher: DetectorOutput, student: DetectorOutput) -> tuple[FeatureMap, FeatureMap]:
    """The teacher's map `tap`, without gradient, and the student's, both at least in float32 and each on its own grid."""
    taught, learnt = find_tap(teacher, method, tap), find_tap(student, method, tap)
    if not (isinstance(taught, FeatureMap) and isinstance(learnt, FeatureMap)):
        raise InputError(f"{method}: the tap {tap!r} is no map; choose a map such as 'neck'")
    return FeatureMap(as_full(taught.features.detach()), taught.origin, taught.cell), FeatureMap(as_full(learnt.features), learnt.origin, learnt.cell)
