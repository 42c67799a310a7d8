"""Checks that the taps and heads of two networks suit a method, made when the method is built."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lidistill.distillation.method import Specs
from lidistill.outputs import HeadSpec, TapSpec
from lidistill.types import InputError


def shared_taps(method: str, preferences: Sequence[str], teacher_specs: Specs, student_specs: Specs) -> tuple[str, ...]:
    """Names of the taps of both networks that match the first preference with any match; a preference may be a pattern
    such as "bev.*".

    Raises InputError if no preference matches.
    """
    for preference in preferences:
        found = tuple(name for name in _taps(teacher_specs) if fnmatchcase(name, preference) and name in student_specs)
        if found:
            return found
    wanted = " or ".join(repr(preference) for preference in preferences)
    raise InputError(
        f"{method} needs the tap {wanted} in both networks; {_offers('teacher', _taps(teacher_specs))}, "
        f"{_offers('student', _taps(student_specs))}"
    )


def check_taps(method: str, taps: Sequence[str], teacher_specs: Specs, student_specs: Specs) -> None:
    """Raise InputError unless both networks have all `taps`, each as a map in both or as a set in both."""
    for tap in taps:
        for role, specs in (("teacher", teacher_specs), ("student", student_specs)):
            if tap not in _taps(specs):
                raise InputError(f"{method} needs the tap {tap!r}; {_offers(role, _taps(specs))}")
        reason = teacher_specs[tap].unlike(student_specs[tap])
        if reason:
            raise InputError(f"{method}: {tap!r} {reason}; choose another tap")


def check_places(method: str, taps: Sequence[str], teacher_specs: Specs, student_specs: Specs) -> None:
    """Raise InputError unless both networks have all `taps`, and each can be compared place by place."""
    check_taps(method, taps, teacher_specs, student_specs)
    for tap in taps:
        reason = teacher_specs[tap].apart_from(student_specs[tap])
        if reason:
            raise InputError(f"{method} compares place by place, and {tap!r} {reason}; {_others(tap, teacher_specs)}")


def check_maps(method: str, taps: Sequence[str], teacher_specs: Specs, student_specs: Specs, why: str = "") -> None:
    """Raise InputError unless both networks have all `taps` as maps; the error gives `why` the method needs a map."""
    check_taps(method, taps, teacher_specs, student_specs)
    for tap in taps:
        if not teacher_specs[tap].is_map:
            maps = {name: spec for name, spec in _taps(teacher_specs).items() if spec.is_map}
            raise InputError(
                f"{method} works on a map{why and f' ({why})'} and {tap!r} is a {teacher_specs[tap].kind} in the "
                f"teacher; {_offers('teacher', maps)} of that kind"
            )


def check_heads(method: str, teacher_specs: Specs, student_specs: Specs) -> None:
    """Raise InputError unless both networks have a detection head."""
    for role, specs in (("teacher", teacher_specs), ("student", student_specs)):
        if not heads_of(specs):
            raise InputError(
                f"{method} compares predictions, and the {role} has no detection head; choose a method on features"
            )


def comparable_stage(method: str, teacher_specs: Specs, student_specs: Specs) -> int:
    """The last stage whose heads predict at the same places in both networks, an index into `DetectorOutput.stages`.

    The heads of a second stage predict at the proposals of their own network's first stage, so they are not comparable.
    Raises InputError if no stage is comparable.
    """
    check_heads(method, teacher_specs, student_specs)
    reasons = []
    for stage in sorted({spec.stage for spec in heads_of(teacher_specs).values()}, reverse=True):
        own, others = (heads_of(specs, stage) for specs in (teacher_specs, student_specs))
        if len(own) != len(others):
            reasons.append(
                f"the teacher has {len(own)} heads and the student {len(others)}; build both for one dataset"
            )
            continue
        apart = [
            (name, spec.apart_from(other)) for (name, spec), other in zip(own.items(), others.values(), strict=True)
        ]
        found = [f"{name!r} {reason}" for name, reason in apart if reason]
        if not found:
            return stage
        reasons.append(f"{found[0]}; choose a method on taps, or se_ssd")
    raise InputError(f"{method} compares heads place by place, and {reasons[0]}")


def heads_of(specs: Specs, stage: int | None = None) -> dict[str, HeadSpec]:
    """The specs of the heads of one stage, or of all stages."""
    heads = {name: spec for name, spec in specs.items() if isinstance(spec, HeadSpec)}
    return {name: spec for name, spec in heads.items() if stage is None or spec.stage == stage}


def _taps(specs: Specs) -> dict[str, TapSpec]:
    """The specs except those of heads."""
    return {name: spec for name, spec in specs.items() if not spec.is_head}


def _offers(role: str, specs: Specs) -> str:
    return f"the {role} offers {', '.join(map(repr, specs)) or 'none'}"


def _others(tap: str, specs: Specs) -> str:
    """A remedy that names the other taps."""
    others = [repr(name) for name in _taps(specs) if name != tap]
    return f"choose another tap: {', '.join(others)}" if others else "choose a method on predictions"
