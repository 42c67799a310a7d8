"""What a student is taught, as a person writes it, and whether two networks can be taught so.

`pointdistiller`; several methods at once, `pointdistiller+logits`; or one from outside the package, `my_module:Config`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from lidistill.detectors.detector import Detector
from lidistill.external import look_in_working_folder
from lidistill.training.objective import Distilled
from lidistill.types import Batch, Boxes, Frame, InputError, collate

NO_METHOD = "none"  # the plain student, or the teacher's labels or its start alone


def method_names(text: str) -> tuple[str, ...]:
    """The methods that `text`, from a command line, joins by `+`; none for "none".

    Modules of methods are found in the working folder, too.
    """
    if "," in text:
        raise InputError(
            f"--method {text!r}: join methods by +, as in --method "
            f"{'+'.join(part.strip() for part in text.split(',') if part.strip())}"
        )
    names = tuple(text.split("+"))
    if not all(names):
        raise InputError(f"--method {text!r} names nothing on one side of a +; write --method pointdistiller+logits")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--method {text!r} lists {', '.join(twice)} twice; list each method once and set its weight")
    if NO_METHOD in names and len(names) > 1:
        raise InputError(f"--method {text!r} joins {NO_METHOD} with methods; leave out {NO_METHOD}")
    if any(":" in name for name in names):
        look_in_working_folder()
    return () if names == (NO_METHOD,) else names


def one_lesson(given: Sequence[str]) -> tuple[str, ...]:
    """The methods of the one student that `distill` trains, from the values of its --method."""
    if len(given) > 1:
        raise InputError(
            f"--method is given {len(given)} times, and distill trains one student: to teach it by all of them, join "
            "them, as in "
            f"--method {'+'.join(given)}; to train a student by each, use `lidistill compare`"
        )
    return method_names(given[0])


def check_pairing(objective: Distilled) -> None:
    """Run the lesson once on a made-up frame, so that methods that cannot pair the two networks say so before anything
    is trained.

    Nothing of the objective changes, its random numbers and BatchNorm statistics included.
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
    """A frame with a block of points in the middle of the detector's range and an object of each class there."""
    low, high = torch.tensor(detector.config.point_range).view(2, 3)
    middle = (low + high) / 2
    reach = torch.minimum((high - low) / 2, torch.tensor([4.0, 4.0, 1.0])) * 0.99
    draw = torch.Generator().manual_seed(0)
    places = middle + reach * (2 * torch.rand(256, 3, generator=draw) - 1)
    features = torch.rand(256, len(detector.config.point_features), generator=draw)
    classes = torch.arange(len(detector.config.classes))
    boxes = torch.cat([middle, torch.tensor([3.9, 1.6, 1.5, 0.0])]).repeat(len(classes), 1)
    return collate([Frame("made up", torch.cat([places, features], dim=1), Boxes(boxes, classes))])
