"""How the outputs of a head at the objects attend to each other, compared between two networks (itKD).

The objects of a frame say together which numbers of a head go with which: attention between its channels, once over all
of them (inter-head) and once within each of its maps (intra-head), both joined by one layer that teacher and student
share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lidistill.distillation.head_comparison import check_same_maps, object_maps, paired_heads
from lidistill.distillation.object_places import ObjectRows, object_cells, object_vectors, positive_anchors
from lidistill.ops.precision import as_full
from lidistill.types import Boxes, DetectorOutput, HeadOutput

BOX_PARTS = (3, 3, 1)  # position, size and yaw within the codes of an anchor
FEW = 1e-4  # keeps the mean over no object finite; the released code's


class HeadAttention(nn.Module):
    """One fusion layer for every width of a head, without bias, which the difference of two outputs would cancel."""

    def __init__(self, widths: Sequence[int], most: int, squash: bool) -> None:
        """`most` objects a frame, which is also the M of the attention's scale; `squash` passes class scores through a
        sigmoid.
        """
        super().__init__()
        self.most, self.squash = most, squash
        self.fusion = nn.ModuleDict(
            {str(width): nn.Linear(2 * width, width, bias=False) for width in sorted(set(widths))}
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, boxes: Sequence[Boxes]) -> Tensor:
        """Mean over the heads of the absolute differences at an object, summed over channels.

        No gradient reaches the teacher.
        """
        instead = "set itkd.attention_weight=0"
        pairs = paired_heads(teacher, student, "itkd", instead)
        for pair in pairs:
            check_same_maps(*pair, object_maps(*pair), "itkd", instead, any_grid=pair[0].kind == "center")
        return torch.stack([self._compare(taught, learnt, boxes) for taught, learnt in pairs]).mean()

    def fusion_norm(self) -> Tensor:
        """Norm of the fusion weights. At zero all outputs agree: a perfect match that says nothing."""
        return torch.stack([parameter.detach().norm() for parameter in self.parameters()]).norm()

    def _compare(self, taught: HeadOutput, learnt: HeadOutput, boxes: Sequence[Boxes]) -> Tensor:
        if taught.kind == "anchor":
            positives = positive_anchors(taught, boxes, self.most)
            places = positives, positives
        else:
            places = _common_cells(taught, learnt, boxes, self.most)
        vectors = object_vectors(taught, places[0]).detach(), object_vectors(learnt, places[1])
        fused = [self._fused(taught, values, rows, len(boxes)) for values, rows in zip(vectors, places, strict=True)]
        return (fused[1] - fused[0]).abs().sum() / (len(places[0]) + FEW)

    def _fused(self, head: HeadOutput, vectors: Tensor, places: ObjectRows, num_frames: int) -> Tensor:
        """Vectors (P, C) of objects that `head` describes -> (B, M, C)."""
        vectors, num_classes = as_full(vectors), len(head.classes)
        if self.squash:
            vectors = torch.cat([vectors[:, :num_classes].sigmoid(), vectors[:, num_classes:]], dim=1)
        objects = by_frame(vectors, places, num_frames)
        return self.fusion[str(vectors.shape[1])](attended(objects, head_parts(head), self.most))


def attended(objects: Tensor, parts: Sequence[int], most: int) -> Tensor:
    """Objects (B, M, C) -> (B, M, 2C): attention over all channels, then within each of `parts`, channel counts that
    add up to C.
    """
    within = [channel_attention(part, most) for part in objects.split(list(parts), dim=2)]
    return torch.cat([channel_attention(objects, most), *within], dim=2)


def channel_attention(objects: Tensor, most: int) -> Tensor:
    """x A of objects x (B, M, C) with A = softmax(x^T x / sqrt(most)) over the first axis of (C, C), so that the
    columns of A add up to one.

    Rows of zeros stay zero and change nothing: they may pad a frame.
    """
    return objects @ torch.softmax(objects.transpose(1, 2) @ objects / most**0.5, dim=1)


def by_frame(vectors: Tensor, places: ObjectRows, num_frames: int) -> Tensor:
    """Rows (P, C) of all frames -> (B, M, C), M the largest number in a frame, zeros where a frame has fewer."""
    counts = torch.bincount(places.frames, minlength=num_frames)
    slots = torch.arange(len(places), device=counts.device) - (counts.cumsum(dim=0) - counts)[places.frames]
    padded = vectors.new_zeros(num_frames, int(counts.max()), vectors.shape[1])
    return padded.index_put((places.frames, slots), vectors)


def head_parts(head: HeadOutput) -> list[int]:
    """Channels of the parts within which a head attends: class scores, then position, size, yaw, direction, or the maps
    of a centre head.
    """
    if head.kind == "anchor":
        return [len(head.classes), *BOX_PARTS, *([2] if "direction" in head.maps else [])]
    return [head.maps[name].shape[1] for name in object_maps(head)]


def _common_cells(
    taught: HeadOutput, learnt: HeadOutput, boxes: Sequence[Boxes], most: int
) -> tuple[ObjectRows, ObjectRows]:
    """The cells of the objects that lie on both maps, each network's on its own grid."""
    own, other = object_cells(taught, boxes, most), object_cells(learnt, boxes, most)
    span = max(len(labelled) for labelled in boxes)
    named, other_named = (places.frames * span + places.objects for places in (own, other))
    return own[torch.isin(named, other_named)], other[torch.isin(other_named, named)]
