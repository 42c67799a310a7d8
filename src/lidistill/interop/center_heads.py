"""Centre heads of another tool: sizes come from the weights, conventions become settings, box codes become ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from lidistill.detectors.heads.center.head import CenterHeadConfig
from lidistill.interop.box_conventions import (
    CENTER_CONVENTIONS,
    EQUAL,
    with_our_codes,
)
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import check_classes, indices, read
from lidistill.types import InputError


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

    The tasks are those of the file. `known` are the classes of the dataset. Raises InputError if the classes do not fit
    the file or the dataset.
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
    return config, order, with_our_codes(weights, convention)


def _order(checkpoint: ForeignCheckpoint, usual: tuple[str, ...], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes in the order of the scores, task by task; mmdetection3d records them in another order."""
    if classes is None and checkpoint.classes is not None and set(checkpoint.classes) != set(usual):
        raise InputError(
            f"{checkpoint.path}: trained on {', '.join(checkpoint.classes)}, which are not the classes of the "
            "published network; give the names in the order of the file's scores, task by task (classes)"
        )
    return usual if classes is None else tuple(classes)
