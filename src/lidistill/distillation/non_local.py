"""A non-local block (Wang et al., CVPR 2018, arXiv 1711.07971): every cell of a map receives values from all cells,
weighted by how well its query matches their keys.

This is the dot-product form, whose weights are not normalised by a softmax. The sum over cells can then be taken before
the queries are known, so no matrix over pairs of cells is computed, and the cost grows with the number of cells, not
with its square.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.distillation.normalised_adapter import NormalisedAdapter
from lidistill.ops.kernels.matmul import linear
from lidistill.ops.kernels.row_blocks import cell_rows


class NonLocalBlock(nn.Module):
    """From features x (B, C, H, W) to x + BN(W y), with y of `inner` channels at each cell i:

        y_i = 1 / N sum over j of <query(x_i), key_j> value_j = K^T query(x_i)
        K   = 1 / N sum over j of key_j value_j^T

    Keys and values are maxima over blocks of `pool` x `pool` cells, N of them; incomplete blocks at the edge count. The
    normalisation uses the statistics of the batch and starts with a scale of zero, so the block starts as the identity.
    """

    def __init__(self, channels: int, inner: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.output = NormalisedAdapter(inner, channels)
        nn.init.zeros_(self.output.scale)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Relations y (B, inner, H, W), weight (C, inner) and bias (C,).

        The output of the block is features + weight @ y + bias. It is left to the caller, who need not store it.
        """
        sums = self._sums(features)
        weights = torch.einsum("bkv,kc->bvc", sums, self.query.weight)
        biases = torch.einsum("bkv,k->bv", sums, self.query.bias)
        frames = zip(features.unbind(), weights, biases, strict=True)
        rows = torch.stack([linear(cell_rows(frame), weight, bias) for frame, weight, bias in frames])
        relations = rows.transpose(1, 2).unflatten(2, features.shape[2:])
        return relations, *self.output(relations)

    def _sums(self, features: Tensor) -> Tensor:
        """K of each frame: (B, inner, inner), keys first."""
        keys, values = (
            F.max_pool2d(
                F.conv2d(features, layer.weight[:, :, None, None], layer.bias), self.pool, ceil_mode=True
            ).flatten(2)
            for layer in (self.key, self.value)
        )
        return keys @ values.transpose(1, 2) / keys.shape[2]
