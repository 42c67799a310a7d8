"""Centre heads of another tool: sizes come from the weights, conventions become settings, box codes become ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from lidistill.detectors.heads.center.head import CenterHeadConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import check_classes, indices, read
from lidistill.types import InputError

Row = tuple[int, int]  # of a branch's last convolution: the file's row, and -1 to change its sign or 1

Weights = tuple[float, float, float, float, float, float, float, float, float, float]
ON_ROTATION: Weights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2, 1.0, 1.0)
EQUAL: Weights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
ON_VELOCITY: Weights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)


@dataclass(frozen=True)
class CenterConvention:
    """How one tool stores, trains and decodes its centre heads."""

    rows: Mapping[str, tuple[Row, ...]]  # branch -> our rows; the rows of other branches stay as they are
    code_weights: Weights  # of networks with velocities
    outside: Literal["skip", "border"]
    max_candidates: tuple[int, int]  # with velocities (nuScenes) and without (Waymo)
    notes: tuple[str, ...]


# Checked against OpenPCDet 8caccce and mmdetection3d 1.4.0; for CenterPoint (det3d), taken from its code and settings.
CENTER_CONVENTIONS = {
    "openpcdet": CenterConvention(
        rows={"rotation": ((1, 1), (0, 1))},
        code_weights=ON_ROTATION,
        outside="border",
        max_candidates=(500, 500),
        notes=(
            "the file's rotation is (cosine, sine); the two rows of its last convolution are swapped",
            "with velocities, the code weights of sine and cosine are 0.2",
            "objects whose centre is off the map are moved to its border",
        ),
    ),
    "mmdet3d": CenterConvention(
        rows={},
        code_weights=ON_VELOCITY,
        outside="skip",
        max_candidates=(500, 500),
        notes=("the code weights of the velocity are 0.2", "objects whose centre is off the map are left out"),
    ),
    "det3d": CenterConvention(
        # Its boxes are width, length, height with a yaw of -pi/2 minus ours: sin = -cos(ours), cos = -sin(ours).
        rows={"size": ((1, 1), (0, 1), (2, 1)), "rotation": ((1, -1), (0, -1))},
        code_weights=ON_VELOCITY,
        outside="skip",
        max_candidates=(1000, 4096),
        notes=(
            "the file's boxes are (width, length, height) and their yaw is -pi/2 minus ours; rows of the last "
            "convolutions are reordered and change sign",
            "the code weights of the velocity are 0.2",
            "objects whose centre is off the map are left out",
        ),
    ),
}


def convert_center_head(
    checkpoint: ForeignCheckpoint,
    weights: Mapping[str, Tensor],
    base: CenterHeadConfig,
    known: tuple[str, ...],
    dataset: str,
    model: str,
    classes: Sequence[str] | None,
) -> tuple[CenterHeadConfig, tuple[str, ...], dict[str, Tensor]]:
    """Return the head's settings, the classes in the order of the file's scores, and the weights.

    The tasks are those of the file. `known` are the classes of the dataset.
    """
    tasks = indices(weights, r"head\.tasks\.(\d+)\.heatmap\.output\.weight")
    counts = [read(weights, f"head.tasks.{task}.heatmap.output.weight", checkpoint, model, 4)[0] for task in tasks]
    order = _order(checkpoint, tuple(name for task in base.tasks_of(known) for name in task), classes)
    check_classes(checkpoint, order, sum(counts), known, dataset)
    hidden = indices(weights, r"head\.tasks\.0\.heatmap\.hidden\.(\d+)\.conv\.weight")
    shared = read(weights, "head.shared.conv.weight", checkpoint, model, 4)[0]
    width = read(weights, "head.tasks.0.heatmap.hidden.0.conv.weight", checkpoint, model, 4)[0]
    with_velocity = "head.tasks.0.velocity.output.weight" in weights
    convention = CENTER_CONVENTIONS[checkpoint.source]
    config = replace(
        base,
        tasks=tuple(order[sum(counts[:task]) : sum(counts[: task + 1])] for task in range(len(counts))),
        shared_channels=shared,
        head_channels=width,
        hidden_layers=len(hidden),
        bias_before_norm="head.shared.conv.bias" in weights,
        with_velocity=with_velocity,
        with_overlap="head.tasks.0.overlap.output.weight" in weights,
        code_weights=convention.code_weights if with_velocity else EQUAL,
        targets=replace(base.targets, outside=convention.outside),
        post=replace(base.post, max_candidates=convention.max_candidates[0 if with_velocity else 1]),
    )
    return config, order, _with_our_codes(weights, convention)


def _order(checkpoint: ForeignCheckpoint, usual: tuple[str, ...], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes in the order of the scores, task by task; mmdetection3d records them in another order."""
    if classes is None and checkpoint.classes is not None and set(checkpoint.classes) != set(usual):
        raise InputError(
            f"{checkpoint.path}: trained on {', '.join(checkpoint.classes)}, which are not the classes of the "
            "published network; give the names in the order of the file's scores, task by task (classes)"
        )
    return usual if classes is None else tuple(classes)


def _with_our_codes(weights: Mapping[str, Tensor], convention: CenterConvention) -> dict[str, Tensor]:
    """Return the weights with the rows of the last convolutions in the order of our box codes."""
    moved = dict(weights)
    for key, value in weights.items():
        parts = key.split(".")
        rows = convention.rows.get(parts[3], ()) if key.startswith("head.tasks.") and parts[4] == "output" else ()
        if rows and len(value) == len(rows):  # check_shapes reports another number of rows
            sign = value.new_tensor([turned for _, turned in rows]).view(-1, *[1] * (value.dim() - 1))
            moved[key] = value[[row for row, _ in rows]] * sign
    return moved
