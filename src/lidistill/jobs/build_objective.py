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
    """Build the objective of an experiment: the student's own loss, alone or with that of its teacher.

    If `distillation.initialise` asks for it, the weights of `student` are replaced by channels of the teacher.
    `num_frames` is the size of the training split. If it is given and `distillation.cache_teacher` is set, the
    teacher's outputs are cached and replayed; otherwise the teacher runs in every step.
    """
    distillation = experiment.distillation
    if distillation is None:
        return Supervised(student)
    teacher = load_run(distillation.teacher).detector
    if distillation.initialise != RANDOM:  # in a resumed run, the checkpoint overwrites these weights
        states = student.state_dict(), teacher.state_dict()
        student.load_state_dict(
            initialised(*states, student.layer_graph(), teacher.layer_graph(), distillation.initialise)
        )
        if distillation.is_start_alone:
            return Supervised(student)
    if distillation.teacher_bn == "eval":  # the faster copy has the same taps, up to rounding
        teacher = teacher.for_inference()
    torch.manual_seed(experiment.seed)  # adapters get the same initial weights, whatever was built before
    methods = [method.build(teacher.tap_specs, student.tap_specs) for method in distillation.methods]
    cache = None
    if distillation.cache_teacher and num_frames is not None:
        cache = CachedTeacher(
            teacher, default_folder(), num_frames, count_views(experiment.augmentation), distillation.cache_precision
        )
    return Distilled(student, teacher, methods, distillation.teacher_bn, distillation.teacher_labels, cache)
