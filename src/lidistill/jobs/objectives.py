"""What the student of an experiment minimises."""

from __future__ import annotations

import torch

from lidistill.detectors.detector import Detector
from lidistill.distillation.initialisation import RANDOM, initialised
from lidistill.experiment import Experiment
from lidistill.jobs.trained_runs import load_run
from lidistill.training.objective import Distilled, Supervised
from lidistill.training.teacher_cache import CachedTeacher, count_views, default_folder


def build_objective(experiment: Experiment, student: Detector, num_frames: int | None = None) -> Supervised | Distilled:
    """What the student minimises: its own loss, or with the teacher that the experiment names. `student` may be given a
    start from that teacher.

    With `num_frames`, those of the training split, the teacher's outputs are kept and replayed where the experiment
    wants it; else the teacher runs.
    """
    distillation = experiment.distillation
    if distillation is None:
        return Supervised(student)
    teacher = load_run(distillation.teacher).detector
    if distillation.initialise != RANDOM:  # a run that is resumed overwrites this with its checkpoint
        states = student.state_dict(), teacher.state_dict()
        student.load_state_dict(
            initialised(*states, student.layer_graph(), teacher.layer_graph(), distillation.initialise)
        )
        if distillation.is_start_alone:
            return Supervised(student)
    if distillation.teacher_bn == "eval":  # all taps stay the same to rounding, and none needs the norms
        teacher = teacher.for_inference()
    torch.manual_seed(experiment.seed)  # adapters start the same whatever was built before them
    methods = [method.build(teacher.tap_specs, student.tap_specs) for method in distillation.methods]
    cache = None
    if distillation.cache_teacher and num_frames is not None:
        cache = CachedTeacher(
            teacher, default_folder(), num_frames, count_views(experiment.augmentation), distillation.cache_precision
        )
    return Distilled(student, teacher, methods, distillation.teacher_bn, distillation.teacher_labels, cache)
