"""The channel-wise autoencoder of itKD (CVPR 2023): one encoder and one decoder for the maps of teacher and student.

Every layer works cell by cell. Layers that follow each other without a ReLU are multiplied together before they are
applied (`SharedAutoencoder.paths`). The maps are compared in `ops/kernels/interchanged_difference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from lidistill.ops.kernels.interchanged_difference import Affine, Path


class SharedAutoencoder(nn.Module):
    """Encoder from the teacher's width to a code, decoder back, and the layers that change between the student's width
    and the teacher's.

    `widths` are the output widths of the encoder's layers. `buffer_last` sets where the width changes after the
    decoder. False (released code): the decoder ends in the student's width, and the student's reconstruction goes
    through its `widening` a second time. True (the paper's figure): it ends in the teacher's width, and the teacher's
    reconstruction goes through a `narrowing` of its own.
    """

    def __init__(
        self,
        teacher_width: int,
        student_width: int,
        widths: Sequence[int],
        buffer_last: bool,
        with_decoder: bool = True,
    ) -> None:
        super().__init__()
        self.widening = nn.Linear(student_width, teacher_width)
        self.encoder: Sequence[nn.Linear] = nn.ModuleList(
            nn.Linear(a, b) for a, b in pairwise((teacher_width, *widths))
        )  # type: ignore[assignment]
        self.narrowing = nn.Linear(teacher_width, student_width) if with_decoder and buffer_last else None
        out = teacher_width if buffer_last else student_width
        ends = (*reversed(widths), out) if with_decoder else ()
        layers = (nn.Linear(a, b) for a, b in pairwise(ends))
        self.decoder: Sequence[nn.Linear] = nn.ModuleList(layers)  # type: ignore[assignment]

    def paths(self) -> tuple[Path, Path]:
        """The layers that the teacher's rows pass, and those that the student's rows pass."""
        encoder, decoder = [_affine(module) for module in self.encoder], [_affine(module) for module in self.decoder]
        widening = _affine(self.widening)
        student_encoder = (_composed(encoder[0], widening), *encoder[1:])
        if not decoder:
            return Path(tuple(encoder)), Path(student_encoder)
        if self.narrowing is None:
            student_decoder = (*decoder[:-1], _composed(widening, decoder[-1]))
            return Path(tuple(encoder), tuple(decoder)), Path(student_encoder, student_decoder)
        teacher_decoder = (*decoder[:-1], _composed(_affine(self.narrowing), decoder[-1]))
        return Path(tuple(encoder), teacher_decoder), Path(student_encoder, tuple(decoder))


def _composed(outer: Affine, inner: Affine) -> Affine:
    """The layer that equals `inner` followed by `outer`."""
    return outer[0] @ inner[0], torch.mv(outer[0], inner[1]) + outer[1]


def _affine(module: nn.Linear) -> Affine:
    return module.weight, module.bias
