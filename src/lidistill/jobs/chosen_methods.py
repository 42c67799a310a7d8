"""The distillation methods that a user names, and a check that they work for a pair of networks.

A name is `pointdistiller`, or `pointdistiller+logits` for several methods at once, or `my_module:Config` for a method
from outside the package.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from lidistill.detectors.detector import Detector
from lidistill.external_methods import look_in_working_folder
from lidistill.training.objective import Distilled
from lidistill.types import Batch, Boxes, Frame, InputError, collate

NO_METHOD = "none"  # the plain student, or a student that uses only the teacher's labels or weights


def method_names(text: str) -> tuple[str, ...]:
    """Split the text of --method into the methods that it joins by `+`; "none" gives none.

    Modules of methods are searched in the working folder, too.
    """
    if "," in text:
        raise InputError(
            f"--method {text!r}: join methods by +, as in --method "
            f"{'+'.join(part.strip() for part in text.split(',') if part.strip())}"
        )
    names = tuple(text.split("+"))
    if not all(names):
        raise InputError(f"--method {text!r} has no name on one side of a +; write --method pointdistiller+logits")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--method {text!r} lists {', '.join(twice)} twice; list each method once and set its weight")
    if NO_METHOD in names and len(names) > 1:
        raise InputError(f"--method {text!r} joins {NO_METHOD} with methods; leave out {NO_METHOD}")
    if any(":" in name for name in names):
        look_in_working_folder()
    return () if names == (NO_METHOD,) else names


def methods_of_one_student(given: Sequence[str]) -> tuple[str, ...]:
    """Return the methods of the single student that `distill` trains, from the values of its --method."""
    if len(given) > 1:
        raise InputError(
            f"--method is given {len(given)} times, but distill trains one student: to use all methods at once, join "
            f"them, as in --method {'+'.join(given)}; to train one student per method, use `lidistill compare`"
        )
    return method_names(given[0])


def check_pairing(objective: Distilled) -> None:
    """Compute the loss once on a made-up frame; InputError if a method cannot work with the two networks.

    The objective stays unchanged, and so do its BatchNorm statistics and torch's random numbers.
    """
    trial = Distilled(
        objective.student,
        objective.teacher,
        copy.deepcopy(list(objective.methods)),
        objective.teacher_bn,
        objective.teacher_labels,
    )
    training = objective.student.training
    device = next(objective.student.parameters()).device
    try:
        with torch.random.fork_rng(), torch.no_grad():
            trial.eval()(made_up_batch(objective.student).to(device))
    finally:
        objective.student.train(training)


def made_up_batch(detector: Detector) -> Batch:
    """Make a batch of one frame: 256 points around the middle of the detector's range, and one object of each class."""
    low, high = torch.tensor(detector.config.point_range).view(2, 3)
    middle = (low + high) / 2
    reach = torch.minimum((high - low) / 2, torch.tensor([4.0, 4.0, 1.0])) * 0.99
    draw = torch.Generator().manual_seed(0)
    places = middle + reach * (2 * torch.rand(256, 3, generator=draw) - 1)
    features = torch.rand(256, len(detector.config.point_features), generator=draw)
    classes = torch.arange(len(detector.config.classes))
    boxes = torch.cat([middle, torch.tensor([3.9, 1.6, 1.5, 0.0])]).repeat(len(classes), 1)
    return collate([Frame("made up", torch.cat([places, features], dim=1), Boxes(boxes, classes))])
