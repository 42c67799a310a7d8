"""The trunk's input: a sparse bird's-eye view map with features at the occupied cells and zero everywhere else.

On a KITTI frame, 2 % of the cells of PointPillars and 8 % of those of SECOND are occupied. On a CPU, the trunk's first
convolution therefore uses only these cells. To rounding, it has the values and gradients of the dense convolution, with
a fraction of the multiplications and memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lidistill.ops.kernels.sparse_convolution import Sites, sparse_convolution, strided_map


@dataclass(frozen=True)
class Canvas:
    """A map (B, C, H, W), stored as its occupied cells."""

    rows: Tensor  # (N, C) features of the occupied cells
    sites: Sites  # the N occupied cells, on a grid of shape (1, H, W)

    def dense(self, background: Tensor | None = None) -> Tensor:
        """Return the dense map (B, C, H, W) in channels_last order.

        Empty cells hold `background` (C,), or zero if it is None.
        """
        _, height, width = self.sites.shape
        batch, _, y, x = self.sites.coords.unbind(dim=1)
        num_cells, channels = self.sites.batch_size * height * width, self.rows.shape[1]
        table = (
            self.rows.new_zeros((num_cells, channels))
            if background is None
            else background.expand(num_cells, channels).clone()
        )
        table = table.index_copy_(0, (batch * height + y) * width + x, self.rows)
        return table.view(self.sites.batch_size, height, width, channels).permute(0, 3, 1, 2)

    def convolved(self, convolution: nn.Conv2d) -> Tensor:
        """Apply `convolution` to the map: -> (B, C', H', W') in channels_last order."""
        # On a GPU the dense convolution is fast, and to find the pairs of the sparse one the host would have to wait.
        if self.rows.device.type != "cpu":
            return convolution(self.dense())
        (down, right), pad = convolution.stride, convolution.padding
        assert not isinstance(pad, str)
        height, width = convolution.kernel_size
        sites, pairs = strided_map(self.sites, (1, height, width), (1, down, right), (0, pad[0], pad[1]))
        weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (cells of the kernel, C, C')
        rows = sparse_convolution(self.rows, weight, pairs, convolution.bias)
        return Canvas(rows, sites).dense(None if convolution.bias is None else convolution.bias.to(rows.dtype))
