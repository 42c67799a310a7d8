"""Attention between the channels of a head at the labelled objects, compared between two networks (itKD, CVPR 2023).

The attention is computed from the objects of a frame, once over all channels of a head (inter-head) and once within
each of its maps (intra-head). One linear layer, shared by teacher and student, fuses both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lidistill.distillation.head_comparison import check_same_parts, check_same_rows, paired_heads
from lidistill.ops.precision import as_full
from lidistill.outputs import HeadOutput, ObjectRows
from lidistill.types import Boxes

FEW = 1e-4  # keeps the mean finite if there is no object; the released code's value


class HeadAttention(nn.Module):
    """One fusion layer for each width of a head. It has no bias, which would cancel in the difference of the two
    outputs.
    """

    def __init__(self, widths: Sequence[int], most: int, squash: bool) -> None:
        """`widths` of the heads' vectors; `most` objects per frame, which is also the M in the scale of the attention.
        `squash` applies a sigmoid to the class logits first.
        """
        super().__init__()
        self.most, self.squash = most, squash
        self.fusion = nn.ModuleDict(
            {str(width): nn.Linear(2 * width, width, bias=False) for width in sorted(set(widths))}
        )

    def forward(
        self, teacher_heads: Sequence[HeadOutput], student_heads: Sequence[HeadOutput], boxes: Sequence[Boxes]
    ) -> Tensor:
        """Absolute difference of the fused outputs at an object, summed over channels, as a mean over objects, then
        over heads: a scalar.

        No gradient reaches the teacher. Raises InputError if the heads cannot be compared.
        """
        instead = "set itkd.attention_weight=0"
        pairs = paired_heads(teacher_heads, student_heads, "itkd", instead)
        for pair in pairs:
            check_same_parts(*pair, "itkd", instead)
        check_same_rows([pair for pair in pairs if not pair[0].has_peaks], "itkd", instead)
        return torch.stack([self._compare(*pair, boxes) for pair in pairs]).mean()

    def fusion_norm(self) -> Tensor:
        """Norm of the fusion weights. At zero, all outputs agree trivially."""
        return torch.stack([parameter.detach().norm() for parameter in self.parameters()]).norm()

    def _compare(self, teacher_head: HeadOutput, student_head: HeadOutput, boxes: Sequence[Boxes]) -> Tensor:
        own, others = teacher_head.paired_positives(student_head, boxes, self.most)
        fused = [
            self._fused(teacher_head, teacher_head.vectors(own).detach(), own, len(boxes)),
            self._fused(teacher_head, student_head.vectors(others), others, len(boxes)),
        ]
        return (fused[1] - fused[0]).abs().sum() / (len(own) + FEW)

    def _fused(self, head: HeadOutput, vectors: Tensor, places: ObjectRows, num_frames: int) -> Tensor:
        """Vectors (P, C) at objects, with the channel groups of `head` -> fused (B, M, C)."""
        vectors, num_classes = as_full(vectors), len(head.classes)
        if self.squash:
            vectors = torch.cat([vectors[:, :num_classes].sigmoid(), vectors[:, num_classes:]], dim=1)
        objects = by_frame(vectors, places, num_frames)
        return self.fusion[str(vectors.shape[1])](attended(objects, head.channel_groups, self.most))


def attended(objects: Tensor, parts: Sequence[int], most: int) -> Tensor:
    """Objects (B, M, C) -> (B, M, 2C): attention over all channels, then within each of `parts`, channel counts that
    add up to C.
    """
    within = [channel_attention(part, most) for part in objects.split(list(parts), dim=2)]
    return torch.cat([channel_attention(objects, most), *within], dim=2)


def channel_attention(objects: Tensor, most: int) -> Tensor:
    """x A of objects x (B, M, C) with A = softmax(x^T x / sqrt(most)) over the first axis of (C, C), so that the
    columns of A add up to one.

    Rows of zeros stay zero and change nothing, so they may pad a frame.
    """
    return objects @ torch.softmax(objects.transpose(1, 2) @ objects / most**0.5, dim=1)


def by_frame(vectors: Tensor, places: ObjectRows, num_frames: int) -> Tensor:
    """Rows (P, C) of all frames -> (B, M, C), padded with zeros, M the largest number of rows in a frame."""
    counts = torch.bincount(places.frames, minlength=num_frames)
    slots = torch.arange(len(places), device=counts.device) - (counts.cumsum(dim=0) - counts)[places.frames]
    padded = vectors.new_zeros(num_frames, int(counts.max()), vectors.shape[1])
    return padded.index_put((places.frames, slots), vectors)
