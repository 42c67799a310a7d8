"""Find the taps of two networks, pair them, and read one network's tap at the places of the other's."""

from __future__ import annotations

from lidistill.ops.precision import as_full
from lidistill.outputs import DetectorOutput, FeatureMap, Features, FeatureSet
from lidistill.types import InputError


def find_tap(output: DetectorOutput, method: str, tap: str) -> FeatureMap | FeatureSet:
    """The tap of this name. Raises InputError with the names of the output's taps if it is missing, although the specs
    promised it.
    """
    if tap not in output.taps:
        raise InputError(
            f"{method}: the output holds no tap {tap!r}, only {', '.join(map(repr, output.taps)) or 'none'}; fix the "
            "detector's tap_specs"
        )
    return output.taps[tap]


def paired_taps(method: str, tap: str, teacher: DetectorOutput, student: DetectorOutput) -> tuple[Features, Features]:
    """The teacher's tap, detached, and the student's, both at least in float32, each at its own places."""
    pair = find_tap(teacher, method, tap), find_tap(student, method, tap)
    return pair[0].with_features(as_full(pair[0].features.detach())), pair[1].with_features(as_full(pair[1].features))


def comparable_taps(
    method: str, tap: str, teacher: DetectorOutput, student: DetectorOutput
) -> tuple[Features, Features]:
    """As `paired_taps`. Raises InputError if the taps are scattered rows at different places."""
    teacher_tap, student_tap = paired_taps(method, tap, teacher, student)
    reason = teacher_tap.places_apart(student_tap)
    if reason:
        raise InputError(
            f"{method}: {tap!r} cannot be compared, since {reason}; give both networks one grid and the same voxels or "
            "points, or choose a map tap such as 'neck'"
        )
    return teacher_tap, student_tap


def paired_places(method: str, tap: str, teacher: DetectorOutput, student: DetectorOutput) -> tuple[Features, Features]:
    """As `comparable_taps`, but with the student's tap read at the teacher's places."""
    teacher_tap, student_tap = comparable_taps(method, tap, teacher, student)
    return teacher_tap, student_tap.at_places_of(teacher_tap)


def paired_maps(
    method: str, tap: str, teacher: DetectorOutput, student: DetectorOutput
) -> tuple[FeatureMap, FeatureMap]:
    """As `paired_taps`, for maps. Raises InputError if either tap is not a map."""
    teacher_map, student_map = paired_taps(method, tap, teacher, student)
    if not (isinstance(teacher_map, FeatureMap) and isinstance(student_map, FeatureMap)):
        raise InputError(f"{method}: the tap {tap!r} is not a map; choose a map such as 'neck'")
    return teacher_map, student_map


def resampled(source: FeatureMap, like: FeatureMap) -> FeatureMap:
    """`source` read bilinearly at the cell centres of `like`, matched in metres (`FeatureMap.on_grid`)."""
    return source.on_grid(like.grid)
