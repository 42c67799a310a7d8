"""The teacher chooses the positive anchors or cells of the labelled objects (LAD, WACV 2022, arXiv 2108.10520).

It chooses those with the lowest teacher loss. At these, the student is trained on the labels, with its own loss;
neither features nor scores are distilled. So this method has no loss term: it only sets `assigns`, and the detector's
loss takes the teacher's ranking (`Detector.loss`, `ranked_by`).

Where we differ: the paper fits two Gaussians to the costs of an image's candidates; here the 9 anchors of lowest cost
are the positives of an object. For a centre head, the positive is the cell of lowest cost among the 3 x 3 cells around
the object's centre, and the peak of the heat map moves there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import comparable_stage, heads_of
from lidistill.outputs import DetectorOutput
from lidistill.types import Batch, InputError, Losses


@dataclass(frozen=True)
class LadConfig(MethodConfig):
    """Has no settings of its own: the cost is the teacher's loss with the weights of the student's head."""

    name: ClassVar[str] = "lad"
    paper: ClassVar[str] = "Improving object detection by label assignment distillation, WACV 2022, arXiv 2108.10520"
    needs: ClassVar[tuple[str, ...]] = ("boxes", "predictions")

    def __post_init__(self) -> None:
        if self.weight != 1 or self.warmup_share != 0:
            raise InputError("lad adds no loss, so it takes no weight; leave lad.weight at 1 and lad.warmup_share at 0")

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Lad:
        heads = [tuple(heads_of(specs)) for specs in (teacher_specs, student_specs)]
        if not heads[0] or heads[0] != heads[1]:
            raise InputError(
                f"lad: the teacher has the heads {', '.join(heads[0]) or 'none'} and the student "
                f"{', '.join(heads[1]) or 'none'}, so it cannot assign the student's labels; build both for one "
                "dataset with one kind of head"
            )
        comparable_stage(self.name, teacher_specs, student_specs)
        return Lad(self)


class Lad(DistillationMethod):
    """Has no parameters and no loss term."""

    assigns: ClassVar[bool] = True

    def __init__(self, config: LadConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        return Losses({})
