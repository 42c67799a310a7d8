"""Attention-guided and non-local distillation, FKD (Zhang and Ma, ICLR 2021): imitate the teacher's map most where
either network has high activations, and imitate the relations between its cells.

Three terms for each map. "feature" is the distance of the maps, weighted by masks over cells and over channels, which
are softmaxes of the mean absolute values in both networks. "attention" is the distance of these mean values. "relation"
is the distance of the maps behind a non-local block of each network's own. A small layer adapts each of the student's
sides. Every distance is a root of a sum of squares, as published.

Differences from the released code:

* a distance is taken frame by frame and averaged; there it is taken over the whole batch, which for two frames is 1.4
  times as much;
* "attention" compares mean absolute values, as in the paper; there it compares means, which are the same behind a ReLU;
* non-local blocks relate means of blocks of cells by default, because a map from above has as many cells as the largest
  published ones, and the published form makes the whole method cost three times as much; `relation_stride` 1 is
  that form;
* the published networks are equally wide. The channels of a thinner student have no counterpart in the teacher, so the
  mask over channels is then the teacher's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vector_norm

from lidistill.distillation.important_rows import effective_number
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.non_local import NonLocalBlock
from lidistill.distillation.tap_checks import check_maps
from lidistill.distillation.taps import paired_maps, resampled
from lidistill.ops.kernels.adapted_error import adapted_squared_error
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput
from lidistill.settings import Channels, NonNegative, Side, Softness, Taps
from lidistill.types import Batch, InputError, Losses

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FkdConfig(MethodConfig):
    """Defaults are the released code's values for one-stage detectors, with relations between blocks of cells.
    `PUBLISHED` has those between cells, and the values for two stages.
    """

    name: ClassVar[str] = "fkd"
    paper: ClassVar[str] = "Improve object detection with feature-based knowledge distillation, ICLR 2021"
    taps: Taps = ("neck",)  # any maps that both networks have
    feature_weight: NonNegative = 4.2e-4  # of the maps under the masks
    attention_weight: NonNegative = 2.4e-2  # of the mean absolute values, over channels and over cells alike
    relation_weight: NonNegative = 4.2e-4  # of the maps behind the non-local blocks
    temperature: Softness = 0.1  # of both masks; in the unit of the features
    # side in cells of the blocks of a map whose means are related to each other; published is 1
    relation_stride: Side = 4
    pool: Side = 2  # keys and values of the relations are maxima over pool x pool such blocks
    relation_channels: Channels = 64  # inside of the non-local blocks; as for the largest published maps

    def __post_init__(self) -> None:
        if self.feature_weight == self.attention_weight == self.relation_weight == 0:
            raise InputError(
                f"{self.name}: all of its weights are 0; leave one of feature_weight, attention_weight and "
                "relation_weight above 0"
            )

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Fkd:
        check_maps(self.name, self.taps, teacher_specs, student_specs, "attention and relations are those of its cells")
        return Fkd(self, teacher_specs, student_specs)


# With the inner width of the non-local blocks, and their pooling, of the largest published maps.
PUBLISHED = {
    "one-stage detectors": FkdConfig(relation_stride=1, pool=8),
    "two-stage detectors": FkdConfig(
        feature_weight=7e-5,
        attention_weight=4e-3,
        relation_weight=7e-5,
        temperature=0.5,
        relation_stride=1,
        pool=8,
    ),
}


class Fkd(DistillationMethod):
    """The layers of each term and tap; a term with weight 0 has none."""

    def __init__(self, config: FkdConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.features, self.attentions, self.relations = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for tap in config.taps:
            widths = student_specs[tap].channels, teacher_specs[tap].channels
            if config.feature_weight > 0:
                self.features.append(nn.Linear(*widths))
            if config.attention_weight > 0:
                self.attentions.append(AttentionAdapter(*widths))
            if config.relation_weight > 0:
                self.relations.append(RelationComparison(*widths, config))

    def no_decay(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.named_parameters() if name.endswith(("output.scale", "output.shift")))

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms, logs = {}, {}
        for row, tap in enumerate(self.config.taps):
            teacher_map, student_map = paired_maps(self.config.name, tap, teacher, student)
            name = f"{self.config.name}/{tap}"
            with full_precision(student_map.features):
                maps = teacher_map.features, resampled(student_map, teacher_map).features
                attentions = attention(maps[0]), attention(maps[1])
                masks = [mask(both, self.config.temperature) for both in zip(*attentions, strict=True)]
                parts = dict(self._terms(row, maps, attentions, masks))
            terms.update({f"{name}.{part}": self.config.weight * term for part, term in parts.items()})
            logs[f"{name}.effective_share"] = torch.stack(
                [effective_number(cells.flatten()) / cells.numel() for cells in masks[0]]
            ).mean()
            if self.relations:
                scale = self.get_parameter(f"relations.{row}.teacher.output.scale")
                logs[f"{name}.teacher_scale"] = scale.detach().abs().mean()
        return Losses(terms, logs)

    def _terms(
        self, row: int, maps: Pair, attentions: tuple[Pair, Pair], masks: Sequence[Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """The terms of one tap, before the weight of the method. Pairs are of teacher and student; attentions and masks
        are over cells and over channels.
        """
        config = self.config
        if config.feature_weight > 0:
            weight, bias = self.features[row].parameters()
            yield "feature", config.feature_weight * map_distance(maps[1], weight, bias, maps[0], *masks)
        if config.attention_weight > 0:
            yield "attention", config.attention_weight * self.attentions[row](*attentions)
        if config.relation_weight > 0:
            yield "relation", config.relation_weight * self.relations[row](*maps)


class AttentionAdapter(nn.Module):
    """Distance of the teacher's attention from the student's behind a 3x3 convolution and a linear layer."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.over_cells = nn.Conv2d(1, 1, 3, padding=1)
        self.over_channels = nn.Linear(student_channels, teacher_channels)

    def forward(self, teacher: Pair, student: Pair) -> Tensor:
        """Distances of attention over cells (B, H, W) and over channels (B, D) and (B, C), added; mean over frames."""
        cells = self.over_cells(student[0][:, None])[:, 0] - teacher[0]
        channels = self.over_channels(student[1]) - teacher[1]
        return vector_norm(cells, dim=(1, 2)).mean() + vector_norm(channels, dim=1).mean()


class RelationComparison(nn.Module):
    """A non-local block for each network, and a 1x1 convolution from the student's output to the teacher's width."""

    def __init__(self, student_channels: int, teacher_channels: int, config: FkdConfig) -> None:
        super().__init__()
        self.stride = config.relation_stride
        self.student = NonLocalBlock(student_channels, config.relation_channels, config.pool)
        self.teacher = NonLocalBlock(teacher_channels, config.relation_channels, config.pool)
        self.adapter = nn.Linear(student_channels, teacher_channels)

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Distance of the blocks' outputs for maps (B, D, H, W) and (B, C, H, W), mean over frames. A mean of
        stride x stride cells counts as that many.

        The difference A (s + W_s y_s + b_s) + a - (t + W_t y_t + b_t) is affine in s, y_s and y_t, so neither output is
        stored.
        """
        if self.stride > 1:
            teacher, student = (F.avg_pool2d(maps, self.stride, ceil_mode=True) for maps in (teacher, student))
        own, own_weight, own_bias = self.student(student)
        wanted, wanted_weight, wanted_bias = self.teacher(teacher)
        adapter = self.adapter.weight
        weight = torch.cat([adapter, adapter @ own_weight, -wanted_weight], dim=1)
        bias = self.adapter.bias + adapter @ own_bias - wanted_bias
        return self.stride * map_distance(torch.cat([student, own, wanted], dim=1), weight, bias, teacher)


def attention(features: Tensor) -> Pair:
    """Mean absolute value of (B, C, H, W) over the channels, (B, H, W), and over the cells, (B, C) (equation 1)."""
    sizes = (frame.abs() for frame in features.unbind())  # frame by frame: they need as much memory as the map
    over_channels, over_cells = zip(*((size.mean(dim=0), size.mean(dim=(1, 2))) for size in sizes), strict=True)
    return torch.stack(over_channels), torch.stack(over_cells)


def mask(attentions: Pair, temperature: float) -> Tensor:
    """Softmax of attention (B, ...) over all but the frames, scaled to a mean of one, then the mean of both networks'
    (equations 2 and 3); without gradient. Of channels of different number, the teacher's alone.
    """
    teacher, student = (
        values[0].numel() * torch.softmax(values.detach().flatten(1) / temperature, dim=1).view_as(values)
        for values in attentions
    )
    return (teacher + student) / 2 if teacher.shape == student.shape else teacher


def map_distance(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    cells: Tensor | None = None,
    channels: Tensor | None = None,
) -> Tensor:
    """Root of the sum of squared differences of weight (D, C) @ features (B, C, H, W) + bias (D,) from target
    (B, D, H, W), mean over frames: a scalar. With both masks, of cells (B, H, W) and channels (B, D), the squares are
    weighted by them (equation 4).
    """
    distances = []
    for frame, (own, wanted) in enumerate(zip(features.split(1), target.split(1), strict=True)):
        if cells is None or channels is None:
            squared = adapted_squared_error(own, weight, bias, wanted) * wanted.numel()
        else:
            root = channels[frame].sqrt()
            mean = adapted_squared_error(
                own, weight * root[:, None], bias * root, wanted, cells[frame : frame + 1], prepare=root.mul
            )
            squared = mean * wanted.shape[1]
        distances.append(_root(squared))
    return torch.stack(distances).mean()


def _root(squared: Tensor) -> Tensor:
    """Square root, whose gradient is 0 at 0."""
    is_zero = squared <= 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared).sqrt())
