"""What every distillation method is: frozen settings that build a module, and a module that turns two outputs into
losses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from lidistill.outputs import DetectorOutput, TapSpec
from lidistill.settings import NonNegative, Settings, Share
from lidistill.types import Batch, Losses

Specs = Mapping[str, TapSpec]

NEEDS = {"boxes": "labelled boxes", "predictions": "predictions"}


class DistillationMethod(nn.Module, ABC):
    """Adapters and the loss between a teacher's and a student's output. It holds neither network and adds no detection
    loss.

    Nothing of it is part of the student: its parameters are trained beside the student's and thrown away after
    training.
    """

    config: Any  # the MethodConfig that built it
    # Whether the teacher decides which places stand for objects in the student's own loss. Such a method may have no
    # term of its own.
    assigns: ClassVar[bool] = False

    @abstractmethod
    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        """Weighted scalar terms named `<method>/<part>`, in float32.

        No gradient reaches the teacher. A batch with nothing to learn from gives zeros that stay connected to the
        autograd graph.
        """

    def no_decay(self) -> frozenset[str]:
        """Names of own parameters that weight decay must leave alone, such as normalisation scales, whose decay would
        help an adapter collapse.
        """
        return frozenset()


@dataclass(frozen=True)
class MethodConfig(Settings, ABC):
    """Settings of one method. `lidistill methods` prints its class variables beside them."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""  # title, venue, year, and arXiv number where there is one
    needs: ClassVar[tuple[str, ...]] = ()  # required besides the taps, at default settings; keys of NEEDS
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
        """The module, its adapters sized from the specs.

        An InputError where the method cannot work on these taps or heads, with the reason.
        """
