"""itKD, interchange transfer-based distillation (CVPR 2023, arXiv 2205.15531): each map is reconstructed from the other
network's code by a shared autoencoder.

One channel-wise autoencoder compresses the maps of both networks. Their codes should agree, and each map should equal
its reconstruction from the *other* network's code. At labelled objects, the attention between the channels of the heads
should agree too.

The paper and the released code differ in where they apply the mask of objects, and in where they change from the
teacher's to the student's width; `variant` chooses. The default is "released", because only its parts are completely
defined; this file is tested against its numbers.

In the paper, both codes are masked by the objects and compared by S, an absolute difference averaged over a map. It
does not say whether the masked cells count in that average. Here ("paper") they do not: it is the mean over the
objects' cells. These are about one of a thousand cells, so an average over all cells would be a thousandth of the
unmasked loss, and would change with the size of the map and the number of objects.

The released total is 0.5 * (detection loss) + 0.5 * (the three terms). Methods here do not change the detection loss,
so the same total, up to a factor of two, is the detection loss + 1.0 * (the three terms): the default `weight` of 1. A
balance of lambda is a weight of lambda / (1 - lambda).

Where we differ: the released attention uses the student's heat map after its sigmoid and the teacher's before it (a
mistake: the detection loss changes the student's in place). Here both are probabilities, or with `heatmap="logits"`
both are logits. The released code handles one task with eleven channels, and adds the same loss once per task; here all
tasks, velocities and anchor heads are compared, and all terms count once. Anchor heads are compared at their positive
anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lidistill.distillation.head_attention import HeadAttention
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.shared_autoencoder import Path, SharedAutoencoder
from lidistill.distillation.tap_checks import check_maps, comparable_stage, heads_of
from lidistill.distillation.taps import paired_maps, resampled
from lidistill.ops.kernels.interchanged_difference import Shares, interchanged_difference
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput, FeatureMap, ObjectRows, object_cells
from lidistill.settings import BoxCount, NonNegative, Text, Widths
from lidistill.types import Batch, InputError, Losses, MapGrid

PARTS = ("interchange", "compressed", "attention")


@dataclass(frozen=True)
class ItkdConfig(MethodConfig):
    """Defaults are those of the released code. A part with weight 0 is not computed and has no layers."""

    name: ClassVar[str] = "itkd"
    paper: ClassVar[str] = "itKD, CVPR 2023, arXiv 2205.15531"
    needs: ClassVar[tuple[str, ...]] = ("boxes", "predictions")
    variant: Literal["paper", "released"] = "released"  # or "paper"
    tap: Text = "neck"  # any map that both networks have
    widths: Widths = (128, 64, 32)  # of the encoder's layers; the last is the code, and the decoder is its mirror
    # each map against its reconstruction; 0 leaves the part out, with its layers
    interchange_weight: NonNegative = 1.0
    compressed_weight: NonNegative = 1.0  # of the codes' difference; 0 leaves it out
    attention_weight: NonNegative = 1.0  # of the heads' attention at objects; 0 leaves it out, with its layers
    # True: the student's map gets no gradient as the target of the reconstruction from the teacher's code
    detach_target: bool = False
    # class scores in the attention: probabilities in both networks, or "logits" in both
    heatmap: Literal["sigmoid", "logits"] = "sigmoid"
    # per frame; also the divisor of means over objects, and the M in the scale of the attention
    max_objects: BoxCount = 500

    def __post_init__(self) -> None:
        if not any(getattr(self, f"{part}_weight") for part in PARTS):
            raise InputError(
                f"{self.name}: every part has weight 0; give at least one of {', '.join(PARTS)} a positive weight"
            )

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Itkd:
        check_maps(self.name, (self.tap,), teacher_specs, student_specs, "its autoencoder reads the cells of objects")
        stage, heads = 0, {}
        if self.attention_weight > 0:
            if not heads_of(teacher_specs):
                raise InputError(
                    f"{self.name}: the teacher has no detection head to attend to; set {self.name}.attention_weight=0"
                )
            stage = comparable_stage(self.name, teacher_specs, student_specs)
            heads = heads_of(teacher_specs, stage)
        widths = [spec.channels for spec in heads.values()]
        return Itkd(self, teacher_specs, student_specs, widths, stage)


class Itkd(DistillationMethod):
    """The shared autoencoder and the attention's fusion layers.

    Logs the number of objects per frame and the norm of the fusion weights.
    """

    def __init__(
        self, config: ItkdConfig, teacher_specs: Specs, student_specs: Specs, head_widths: list[int], stage: int = 0
    ) -> None:
        """`head_widths` are the vector widths of the heads of `stage`, which are compared."""
        super().__init__()
        self.config = config
        self.stage = stage
        self.autoencoder: SharedAutoencoder | None = None
        if config.interchange_weight > 0 or config.compressed_weight > 0:
            ends = teacher_specs[config.tap].channels, student_specs[config.tap].channels
            self.autoencoder = SharedAutoencoder(
                *ends, config.widths, config.variant == "paper", with_decoder=config.interchange_weight > 0
            )
        self.attention: HeadAttention | None = None
        if config.attention_weight > 0:
            self.attention = HeadAttention(head_widths, config.max_objects, squash=config.heatmap == "sigmoid")

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config = self.config
        terms: dict[str, Tensor] = {}
        teacher_map, student_map = paired_maps(config.name, config.tap, teacher, student)
        with full_precision(student_map.features):
            places = object_cells(teacher_map.grid, batch.boxes, config.max_objects)
            logs = {"objects": len(places) / teacher_map.features.new_tensor(batch.size, dtype=torch.float32)}
            if self.autoencoder is not None:
                terms |= self._compare_maps(teacher_map, student_map, places, self.autoencoder.paths())
            if self.attention is not None:
                heads = teacher.stages[self.stage], student.stages[self.stage]
                terms["attention"] = config.weight * config.attention_weight * self.attention(*heads, batch.boxes)
                logs["fusion_norm"] = self.attention.fusion_norm()
        return Losses(
            {f"{config.name}/{part}": value for part, value in terms.items()},
            {f"{config.name}/{part}": value for part, value in logs.items()},
        )

    def no_decay(self) -> frozenset[str]:
        """The fusion weights: decay would draw them to zero, where everything agrees. Empty in the released form, whose
        optimiser decayed them.
        """
        if self.config.variant == "released":
            return frozenset()
        return frozenset(name for name, _ in self.named_parameters() if name.startswith("attention."))

    def _compare_maps(
        self, teacher_map: FeatureMap, student_map: FeatureMap, places: ObjectRows, paths: tuple[Path, Path]
    ) -> dict[str, Tensor]:
        """Weighted terms of the autoencoder."""
        config = self.config
        student_features = resampled(student_map, teacher_map).features
        wide, narrow = (_at(each, places, teacher_map.grid) for each in (teacher_map.features, student_features))
        released = config.variant == "released"
        shares = Shares(config.interchange_weight, config.compressed_weight if released else 0.0, config.detach_target)
        terms: dict[str, Tensor] = {}
        if shares.interchange > 0 or shares.codes > 0:
            interchange, compressed = interchanged_difference(teacher_map.features, student_features, paths, shares)
            terms = ({"interchange": interchange} if shares.interchange > 0 else {}) | (
                {"compressed": compressed} if shares.codes > 0 else {}
            )
        if released and config.interchange_weight > 0:
            at_objects = self._interchanged_at_objects(wide, narrow, paths, teacher_map.features.shape[0])
            terms["interchange"] = terms["interchange"] + config.interchange_weight * at_objects
        if not released and config.compressed_weight > 0:
            terms["compressed"] = config.compressed_weight * mean_or_zero(
                (paths[1].encode(narrow) - paths[0].encode(wide)).abs()
            )
        return {part: config.weight * value for part, value in terms.items()}

    def _interchanged_at_objects(
        self, wide: Tensor, narrow: Tensor, paths: tuple[Path, Path], num_frames: int
    ) -> Tensor:
        """Squared error of both reconstructions at objects, rows (P, C_T) and (P, C_S): mean over channels, then over
        `max_objects` slots per frame, including the empty ones.
        """
        teacher, student = paths
        target = narrow.detach() if self.config.detach_target else narrow
        errors = student.decode(student.encode(narrow)) - wide, teacher.decode(teacher.encode(wide)) - target
        return torch.stack([error.square().mean(dim=1).sum() for error in errors]).sum() / (
            num_frames * self.config.max_objects
        )


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean of all values; if there are none, a zero connected to the autograd graph."""
    return values.sum() / max(1, values.numel())


def _at(features: Tensor, places: ObjectRows, grid: MapGrid) -> Tensor:
    """Rows (P, C) of a map (B, C, H, W) at `places`."""
    row, column = grid.numbered(places.rows).unbind(dim=1)
    return features[places.frames, :, row, column]
