"""The teacher's certificate: checks before a student is distilled from it. A faulty teacher is refused, with the
reason.

A student repeats its teacher's mistakes, and the common ones raise no error: a checkpoint that was loaded only in part,
the box convention of another toolbox, classes in another order, BatchNorm statistics that never saw data. Each is
detected here from plain values: scores, boxes and weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lidistill.ops.kernels.overlap import overlap_pairs_3d
from lidistill.types import Boxes, InputError

TEACHER_BN = ("eval", "train-frozen")
# between centres in bird's-eye view: no box convention moves these, and neighbours in a crowd are farther apart
MATCH_RADIUS_M = 1.0
FEWEST_MATCHES = 5  # with fewer matches, boxes and labels are not judged: chance would decide
CLEARLY_BETTER = 0.1  # gain in mean overlap from which another box convention is named as the right one
LABELS_AGREE = 0.5  # share of matched objects whose class must be right
# relative difference of outputs with running and with batch statistics, above which the running ones belong to other
# data
BATCH_NORM_GAP = 0.5

YAW_READINGS = ("", "yaw negated", "quarter turn", "yaw negated and a quarter turn")
HEIGHT_READINGS = ("", "z is the bottom of the box instead of its centre", "z lies half a height above the centre")


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    detail: str  # one sentence


@dataclass(frozen=True)
class Certificate:
    passed: bool
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "passed": self.passed,
            "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks],
        }

    def sentence(self) -> str:
        """Why the teacher is refused: the failed checks, each with its remedy. Empty if all passed."""
        return "; ".join(f"{check.name.replace('_', ' ')}: {check.detail}" for check in self.checks if not check.passed)


def certify(
    *,
    scores: Mapping[str, float | None],
    main: str,
    limit: float | None,
    unit: str = "",
    higher_is_better: bool = True,
    teacher_classes: Sequence[str],
    dataset_classes: Sequence[str],
    detections: Sequence[Boxes],
    truths: Sequence[Boxes],
    state: Mapping[str, Tensor],
    missing_keys: Collection[str],
    unexpected_keys: Collection[str],
    teacher_bn: str,
    outputs_eval_vs_batch: tuple[Tensor, Tensor] | None = None,
) -> Certificate:
    """Run all checks on a teacher.

    `scores[main]`, in `unit`, must be as good as `limit` or better; if `limit` is None, any finite score passes.
    `detections` and `truths` have one entry per frame. `state` holds the teacher's tensors as it runs, and the key
    lists are the missing and unexpected keys of its checkpoint. `outputs_eval_vs_batch` are raw outputs of one shape,
    with running and with batch statistics. Raises InputError if detections and truths differ in their number of frames.
    """
    if len(detections) != len(truths):
        raise InputError(
            f"certificate: detections of {len(detections)} frames and labels of {len(truths)}; give one entry a "
            "frame in both"
        )
    found, meant = _matched(detections, truths)
    checks = (
        _check_score(main, scores.get(main), limit, unit, higher_is_better),
        _check_weights(state, missing_keys, unexpected_keys),
        _check_batch_norm(state, teacher_bn, outputs_eval_vs_batch),
        _check_detections(detections, truths),
        _check_classes(teacher_classes, dataset_classes, found, meant),
        _check_boxes(found, meant),
    )
    return Certificate(passed=all(check.passed for check in checks), checks=checks)


def _check_score(main: str, score: float | None, limit: float | None, unit: str, higher_is_better: bool) -> Check:
    if score is None or not math.isfinite(score):
        return Check(
            "score", False, f"{main} has no value, so the teacher cannot be judged; score it on labelled frames"
        )
    found = f"{main} is {_measured(score, unit)}"
    if limit is None:
        return Check("score", True, f"{found}, with no limit set")
    is_worse = score < limit if higher_is_better else score > limit
    bound = _measured(limit, unit)
    if not is_worse:
        return Check("score", True, f"{found}, {'at least' if higher_is_better else 'at most'} {bound}")
    fault = f"below the minimum of {bound}" if higher_is_better else f"above the maximum of {bound}"
    mend = "lower the minimum" if higher_is_better else "raise the maximum"
    return Check("score", False, f"{found}, {fault}; train the teacher longer or {mend} (distillation.minimum_score)")


def _measured(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()


def _check_weights(state: Mapping[str, Tensor], missing: Collection[str], unexpected: Collection[str]) -> Check:
    if missing or unexpected:
        lists = [
            f"{len(keys)} {word} ({_few(keys)})"
            for keys, word in ((missing, "missing"), (unexpected, "unexpected"))
            if keys
        ]
        return Check(
            "weights",
            False,
            f"the checkpoint has {' and '.join(lists)} keys; load the checkpoint that belongs to these settings",
        )
    sick = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if sick:
        return Check(
            "weights",
            False,
            f"{len(sick)} tensors hold NaN or infinite values ({_few(sick)}); take an earlier checkpoint",
        )
    if not state:
        return Check("weights", False, "the teacher has none; load a checkpoint")
    return Check("weights", True, f"{len(state)} tensors, every key of the checkpoint used, all values finite")


def _check_batch_norm(state: Mapping[str, Tensor], teacher_bn: str, outputs: tuple[Tensor, Tensor] | None) -> Check:
    if teacher_bn not in TEACHER_BN:
        return Check("batch_norm", False, f"the mode {teacher_bn!r} is unknown; use one of {', '.join(TEACHER_BN)}")
    variances = {name: value for name, value in state.items() if name.endswith("running_var")}
    for name, value in variances.items():
        # A single channel with zero variance is dead and does no harm. A layer in which all have zero variance never
        # saw data.
        if not value.isfinite().all() or (value < 0).any() or not (value > 0).any():
            return Check(
                "batch_norm",
                False,
                f"the running variances of {name} are not finite and positive; take another checkpoint",
            )
    unfed = [name for name, value in state.items() if name.endswith("num_batches_tracked") and int(value) == 0]
    if unfed and teacher_bn == "eval":
        return Check(
            "batch_norm",
            False,
            f"{len(unfed)} layers have seen no batch ({_few(unfed)}) and have no statistics; train the teacher first",
        )
    detail = f"{len(variances)} layers, mode {teacher_bn}"
    if outputs is not None:
        running, own = (value.detach().double() for value in outputs)
        gap = float((running - own).norm() / own.norm().clamp_min(1e-12))
        detail += f", outputs with running and batch statistics differ by {100 * gap:.3g} %"
        if teacher_bn == "eval" and not gap <= BATCH_NORM_GAP:
            return Check(
                "batch_norm",
                False,
                f"{detail}: the running statistics describe other data; train on or use teacher_bn=train-frozen",
            )
    return Check("batch_norm", True, detail)


def _check_detections(detections: Sequence[Boxes], truths: Sequence[Boxes]) -> Check:
    found, meant = sum(map(len, detections)), sum(map(len, truths))
    if found == 0:
        return Check(
            "detections",
            False,
            f"the teacher detects nothing in {len(truths)} frames with {meant} labelled objects; train it first",
        )
    sick = sum(int((~boxes.geometry.isfinite().all(dim=1)).sum()) for boxes in detections)
    if sick:
        return Check(
            "detections",
            False,
            f"{sick} of {found} detections have NaN or infinite coordinates; look for overflow in its weights",
        )
    return Check("detections", True, f"{found} detections and {meant} labelled objects in {len(truths)} frames")


def _check_classes(teacher: Sequence[str], dataset: Sequence[str], found: Boxes, meant: Boxes) -> Check:
    if tuple(teacher) != tuple(dataset):
        return Check(
            "classes",
            False,
            f"the teacher's classes are {', '.join(teacher)} and the dataset's {', '.join(dataset)}; they must agree, "
            "also in order",
        )
    if len(found) < FEWEST_MATCHES:
        return Check("classes", True, f"{', '.join(teacher)}; too few detections lie on objects to compare labels")
    agree = float((found.labels == meant.labels).double().mean())
    if agree < LABELS_AGREE:
        wrong = found.labels != meant.labels
        pairs, counts = torch.stack([meant.labels[wrong], found.labels[wrong]], dim=1).unique(dim=0, return_counts=True)
        was, called = (_class_name(dataset, index) for index in pairs[counts.argmax()].tolist())
        return Check(
            "classes",
            False,
            f"only {100 * agree:.0f} % of the matches have the right class ({was} is detected as {called}); check the "
            "order of classes",
        )
    return Check(
        "classes", True, f"{', '.join(teacher)}; {100 * agree:.0f} % of the {len(found)} matches have the right class"
    )


def _check_boxes(found: Boxes, meant: Boxes) -> Check:
    """Check whether the detections would fit the labels clearly better under another box convention."""
    if len(found) < FEWEST_MATCHES:
        return Check("box_convention", True, "too few detections lie on objects to judge")
    overlaps = {
        (turn, lift): float(overlap_pairs_3d(_read(found.geometry, turn, lift), meant.geometry).mean())
        for lift, turn in product(range(len(HEIGHT_READINGS)), range(len(YAW_READINGS)))
    }
    given = overlaps[0, 0]
    turn, lift = best = max(overlaps, key=lambda reading: overlaps[reading])
    if overlaps[best] < given + CLEARLY_BETTER:
        return Check(
            "box_convention",
            True,
            f"mean overlap {given:.2f} over {len(found)} matched objects; no other box convention fits clearly better",
        )
    mistakes = [_name_turn(turn, found, meant), HEIGHT_READINGS[lift]]
    return Check(
        "box_convention",
        False,
        f"mean overlap {given:.2f} over {len(found)} matched objects would be {overlaps[best]:.2f} in another "
        "box convention; "
        f"likely {' and '.join(filter(None, mistakes))}; convert the teacher's boxes",
    )


def _matched(detections: Sequence[Boxes], truths: Sequence[Boxes]) -> tuple[Boxes, Boxes]:
    """The labelled objects that have a detection within a metre, and the best such detection of each: detections (P)
    and objects (P), in float64.
    """
    found, meant = [Boxes.empty()], [Boxes.empty()]
    for detected, truth in zip(detections, truths, strict=True):
        rank = (
            torch.arange(len(detected))
            if detected.scores is None
            else detected.scores.cpu().argsort(descending=True, stable=True)
        )
        detected, truth = detected.to("cpu")[rank], truth.to("cpu")
        near = torch.cdist(truth.geometry[:, :2].double(), detected.geometry[:, :2].double()) <= MATCH_RADIUS_M
        rows = near.any(dim=1).nonzero().squeeze(1)
        found.append(detected[near[rows].double().argmax(dim=1)] if len(rows) else Boxes.empty())
        meant.append(truth[rows])
    joined = Boxes.joined(found), Boxes.joined(meant)
    return replace(joined[0], geometry=joined[0].geometry.double()), replace(
        joined[1], geometry=joined[1].geometry.double()
    )


def _read(geometry: Tensor, turn: int, lift: int) -> Tensor:
    """Boxes (P, 7) converted from another convention, by its index in YAW_READINGS and in HEIGHT_READINGS."""
    x, y, z, length, width, height, yaw = geometry.unbind(dim=1)
    yaw = (-yaw if turn in (1, 3) else yaw) + (math.pi / 2 if turn in (2, 3) else 0.0)
    z = z + (0.0, 0.5, -0.5)[lift] * height
    return torch.stack([x, y, z, length, width, height, yaw], dim=1)


def _name_turn(turn: int, found: Boxes, meant: Boxes) -> str:
    """Name of the mistake in the yaw. A quarter turn and swapped sides give the same box; the sizes of the labels tell
    which it is.
    """
    if turn < 2:
        return YAW_READINGS[turn]
    sides, true_sides = found.geometry[:, 3:5], meant.geometry[:, 3:5]
    swapped = (sides.flip(1) - true_sides).abs().sum() < (sides - true_sides).abs().sum()
    quarter = "length and width are swapped" if swapped else "the yaw is off by 90 degrees"
    return quarter if turn == 2 else f"{quarter} and the yaw is negated"


def _class_name(classes: Sequence[str], index: int) -> str:
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _few(names: Collection[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
