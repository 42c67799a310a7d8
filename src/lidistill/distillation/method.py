"""What every distillation method is: frozen settings that build a module, and a module that turns two outputs into
losses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import nn

from lidistill.settings import NonNegative, Settings, Share
from lidistill.types import Batch, DetectorOutput, InputError, Losses, TapSpec

Specs = Mapping[str, TapSpec]

NEEDS = {"boxes": "labelled boxes", "predictions": "predictions"}


class DistillationMethod(nn.Module, ABC):
    """Adapters and the loss between a teacher's and a student's output. It holds neither network and adds no detection
    loss.

    Nothing of it is part of the student: its parameters are trained beside the student's and thrown away after
    training.
    """

    config: Any  # the MethodConfig that built it
    assigns: ClassVar[bool] = (
        # whether the teacher decides which places stand for objects in the student's own loss; it may have no term then
        False
    )

    @abstractmethod
    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        """Weighted scalar terms named `<method>/<part>`, in float32.

        No gradient reaches the teacher. A batch with nothing to learn from gives zeros that still belong to the graph.
        """

    def no_decay(self) -> frozenset[str]:
        """Names of own parameters that weight decay must leave alone, such as normalisation scales, whose decay would
        help an adapter collapse.
        """
        return frozenset()


@dataclass(frozen=True)
class MethodConfig(Settings, ABC):
    """Settings of one method. What is said of it beside its settings is what `lidistill methods` prints."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""  # title, venue, year, and arXiv number where there is one
    needs: ClassVar[tuple[str, ...]] = ()  # at its defaults, beside its taps: of NEEDS
    weight: NonNegative = 1.0  # multiplies all of its terms
    warmup_share: Share = 0.0  # share of the training over which the weight grows from 0

    def __init_subclass__(cls) -> None:
        cls.place = f"methods.{getattr(cls, 'name', cls.__name__)}"

    def share_of_weight(self, progress: float) -> float:
        """By how much the weight has grown when the share `progress` of the training is done: a straight line from 0 to
        1 over the warm-up.
        """
        return 1.0 if progress >= self.warmup_share else progress / self.warmup_share

    @abstractmethod
    def build(self, teacher_specs: Specs, student_specs: Specs) -> DistillationMethod:
        """The module, its adapters sized from the specs. A tap that one of the two lacks is an InputError."""


def shared_taps(method: str, preferences: Sequence[str], teacher_specs: Specs, student_specs: Specs) -> tuple[str, ...]:
    """Names of the taps that the first of `preferences` found in both networks stands for; a preference may be a
    pattern such as "bev.*".
    """
    for preference in preferences:
        found = tuple(name for name in _taps(teacher_specs) if fnmatchcase(name, preference) and name in student_specs)
        if found:
            return found
    wanted = " or ".join(repr(preference) for preference in preferences)
    raise InputError(
        f"{method} needs the tap {wanted} in both networks; {_offers('teacher', teacher_specs)}, "
        f"{_offers('student', student_specs)}"
    )


def check_taps(
    method: str, taps: Sequence[str], teacher_specs: Specs, student_specs: Specs, kind: str | None = None
) -> None:
    """An InputError unless both networks offer all `taps`, each of one kind in both (`kind`, where given)."""
    for tap in taps:
        for role, specs in (("teacher", teacher_specs), ("student", student_specs)):
            if tap not in (specs if kind == "head" else _taps(specs)):
                raise InputError(
                    f"{method} needs the tap {tap!r}; {_offers(role, specs, 'head' if kind == 'head' else None)}"
                )
            if kind is not None and specs[tap].kind != kind:
                raise InputError(
                    f"{method} works on a {kind} and {tap!r} is a {specs[tap].kind} in the {role}; "
                    f"{_offers(role, specs, kind)} of that kind"
                )
        if teacher_specs[tap].kind != student_specs[tap].kind:
            raise InputError(
                f"{method}: {tap!r} is a {teacher_specs[tap].kind} in the teacher and a {student_specs[tap].kind} in "
                "the student; choose another tap"
            )


def _taps(specs: Specs) -> Specs:
    """The specs without those of heads."""
    return {name: spec for name, spec in specs.items() if spec.kind != "head"}


def _offers(role: str, specs: Specs, kind: str | None = None) -> str:
    names = [
        repr(name)
        for name, spec in (specs if kind == "head" else _taps(specs)).items()
        if kind is None or spec.kind == kind
    ]
    return f"the {role} offers {', '.join(names) or 'none'}"
