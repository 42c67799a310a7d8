"""Match the teacher's scores and boxes where both the teacher and the labels have an object (SparseKD, NeurIPS 2022,
arXiv 2205.15156).

Nearly all of a head's map is background, so only pivotal positions are distilled. A cell of a centre head has as weight
the teacher's score there times the Gaussian of a labelled object; a positive anchor of an anchor head has the weight 1.
At these positions the student's scores, and at the objects its boxes, are fitted to the teacher's.

If the student has another grid, its scores are read at the teacher's cells in metres (the released code resizes the
array), and boxes are not compared, as in the released code. The two other parts of SparseKD are settings of any
distillation: label distillation (`distillation.teacher_labels=0.6`) and initialisation from the teacher's weights
(`distillation.initialise=first`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.distillation.head_comparison import paired_heads
from lidistill.distillation.logits import smooth_error
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import comparable_stage
from lidistill.ops.precision import as_full, full_precision
from lidistill.outputs import DetectorOutput, HeadOutput, ObjectRows
from lidistill.settings import CellsOrNone, InnerShare, NonNegative, Softness
from lidistill.types import Batch, Boxes, Losses

SCORE_FLOOR = 1e-4  # scores are kept this far from 0 and 1, as in the detection loss
MASK_FLOOR = 1e-6  # added to the sum of the mask
VELOCITY_WEIGHT = 0.2  # of velocity errors relative to the other codes, as in CenterPoint's own loss


@dataclass(frozen=True)
class SparseKDConfig(MethodConfig):
    """Defaults are those of the S student of CenterPoint on voxels and of the public form for anchor heads; `PUBLISHED`
    has the other students.
    """

    name: ClassVar[str] = "sparsekd"
    paper: ClassVar[str] = (
        "Towards efficient 3D object detection with knowledge distillation, NeurIPS 2022, arXiv 2205.15156"
    )
    needs: ClassVar[tuple[str, ...]] = ("boxes", "predictions")
    heatmap_weight: NonNegative = 10.0  # of centre heads' scores
    class_weight: NonNegative = 15.0  # of other heads' scores
    box_weight: NonNegative = 0.2  # of the boxes at objects
    # of other heads: error from which smooth L1 is linear, as in the detection loss
    box_beta: Softness = 1 / 9
    # sets the radius of the Gaussians around labelled objects, as in the targets of a centre head
    gaussian_overlap: InnerShare = 0.1
    min_radius: CellsOrNone = 2  # least such radius, in cells

    def build(self, teacher_specs: Specs, student_specs: Specs) -> SparseKD:
        return SparseKD(self, comparable_stage(self.name, teacher_specs, student_specs))


# Students of CenterPoint on Waymo: on voxels by size, on pillars of any size.
PUBLISHED = {
    "centerpoint-voxel-s": SparseKDConfig(heatmap_weight=10.0),
    "centerpoint-voxel-xs": SparseKDConfig(heatmap_weight=15.0),
    "centerpoint-voxel-xxs": SparseKDConfig(heatmap_weight=15.0),
    "centerpoint-pillar": SparseKDConfig(heatmap_weight=7.0),
}


class SparseKD(DistillationMethod):
    """Has no parameters.

    Terms `class` and `box`, means over the heads; logs `pivotal`, the sum of the mask per frame.
    """

    def __init__(self, config: SparseKDConfig, stage: int) -> None:
        """`stage` is the stage whose heads are compared."""
        super().__init__()
        self.config = config
        self.stage = stage

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name, terms, pivotal = self.config.name, [], []
        for teacher_head, student_head in paired_heads(
            teacher.stages[self.stage], student.stages[self.stage], name, "choose a method on taps"
        ):
            with full_precision(next(iter(student_head.tensors().values()))):
                compare = self._compare_peaks if teacher_head.has_peaks else self._compare_rows
                scores, boxes, count = compare(teacher_head, student_head, batch.boxes)
            terms.append(torch.stack([scores, boxes]))
            pivotal.append(count)
        scores, boxes = self.config.weight * torch.stack(terms).mean(dim=0)
        return Losses(
            {f"{name}/class": scores, f"{name}/box": boxes},
            {f"{name}/pivotal": torch.stack(pivotal).sum() / batch.size},
        )

    def _compare_peaks(
        self, teacher_head: HeadOutput, student_head: HeadOutput, boxes: tuple[Boxes, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted terms of heads with a heat map, and the sum of their mask."""
        config = self.config
        places, weights = teacher_head.object_weights(boxes, config.gaussian_overlap, config.min_radius)
        wanted = teacher_head.scores_at(teacher_head, places, SCORE_FLOOR).detach()
        mask = (wanted * weights).amax(dim=1)
        scores = masked_error(student_head.scores_at(teacher_head, places, SCORE_FLOOR), wanted, mask)
        if teacher_head.is_at(student_head):
            error = shared_code_error(teacher_head, student_head, teacher_head.positives(boxes))
        else:
            error = scores * 0
        return config.heatmap_weight * scores, config.box_weight * error, mask.sum()

    def _compare_rows(
        self, teacher_head: HeadOutput, student_head: HeadOutput, boxes: tuple[Boxes, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted terms of heads without a heat map, and the number of positive rows."""
        config = self.config
        places = teacher_head.positives(boxes)
        own_places = teacher_head.counterparts(student_head, places)
        divided_by = max(1, len(places))
        apart = (
            student_head.scores_at(student_head, own_places, SCORE_FLOOR)
            - teacher_head.scores_at(teacher_head, places, SCORE_FLOOR).detach()
        )
        scores = apart.square().sum() / divided_by
        codes = (
            teacher_head.codes(as_full(teacher_head.vectors(places).detach())),
            student_head.codes(as_full(student_head.vectors(own_places))),
        )
        error = smooth_error(teacher_head.code_differences(*codes), config.box_beta).sum() / divided_by
        if not teacher_head.is_at(student_head):
            error = error * 0
        return config.class_weight * scores, config.box_weight * error, scores.new_tensor(len(places))


def masked_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error of scores (P, K), summed over classes; mean over places, weighted by mask (P,)."""
    return (mask[:, None] * (student - teacher).square()).sum() / (mask.sum() + MASK_FLOOR)


def shared_code_error(teacher_head: HeadOutput, student_head: HeadOutput, places: ObjectRows) -> Tensor:
    """Absolute difference of the codes that both heads have, at the cells of the objects: summed over codes, mean over
    objects. Errors of velocities are multiplied by VELOCITY_WEIGHT.
    """
    shared = [part for part in list(teacher_head.parts)[1:] if part in student_head.parts]
    total = as_full(student_head.class_logits()).sum() * 0
    for part in shared:
        wanted, own = (as_full(head.values(part, places)) for head in (teacher_head, student_head))
        total = total + (VELOCITY_WEIGHT if part == "velocity" else 1.0) * (own - wanted.detach()).abs().sum()
    return total / max(1, len(places))
