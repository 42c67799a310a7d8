"""The interface of every distillation method: frozen settings that build a module, and a module that turns two outputs
into losses.
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
    """Adapters, and the loss between a teacher's and a student's output. It holds neither network and adds no detection
    loss.

    Its parameters are trained together with the student's and discarded after training; the student contains none of
    them.
    """

    config: Any  # the MethodConfig that built it
    # Whether the teacher chooses the positive anchors or cells of the student's own loss. Such a method may have no
    # loss term.
    assigns: ClassVar[bool] = False

    @abstractmethod
    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        """Weighted scalar terms named `<method>/<part>`, in float32.

        No gradient reaches the teacher. If a batch has nothing to distil, the terms are zeros connected to the autograd
        graph.
        """

    def no_decay(self) -> frozenset[str]:
        """Names of the method's parameters to exclude from weight decay, such as normalisation scales: decaying these
        would help an adapter collapse.
        """
        return frozenset()


@dataclass(frozen=True)
class MethodConfig(Settings, ABC):
    """Settings of one method. `lidistill methods` prints them together with the class variables."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""  # title, venue, year, and arXiv number if it has one
    needs: ClassVar[tuple[str, ...]] = ()  # required besides the taps, at default settings; keys of NEEDS
    weight: NonNegative = 1.0  # multiplies all terms of the method
    warmup_share: Share = 0.0  # share of the training over which the weight grows from 0

    def __init_subclass__(cls) -> None:
        cls.place = f"methods.{getattr(cls, 'name', cls.__name__)}"

    def share_of_weight(self, progress: float) -> float:
        """Factor of the weight after the share `progress` of the training: it rises linearly from 0 to 1 over the
        warm-up.
        """
        return 1.0 if progress >= self.warmup_share else progress / self.warmup_share

    @abstractmethod
    def build(self, teacher_specs: Specs, student_specs: Specs) -> DistillationMethod:
        """Build the module, with adapters sized from the specs.

        Raises InputError, with the reason, if the method cannot work on these taps or heads.
        """
