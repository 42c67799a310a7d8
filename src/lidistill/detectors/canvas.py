"""A bird's-eye view map on its way into the trunk: rows at the cells that hold something, zero everywhere else.

Few cells do: 2 % of those of PointPillars and 8 % of those of SECOND on a KITTI frame. So the first convolution of the
trunk is done on those rows alone: it has the values and gradients of the dense one, to rounding, at a fraction of its
products and memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lidistill.ops.kernels.sparse_convolution import Sites, sparse_convolution, strided_map


@dataclass(frozen=True)
class Canvas:
    """A map (B, C, H, W) by its occupied cells."""

    rows: Tensor  # (N, C)
    sites: Sites  # N places on a grid of one layer: (1, H, W)

    def dense(self, background: Tensor | None = None) -> Tensor:
        """The map (B, C, H, W) in channels_last order, with `background` (C,) at the cells without a row; zero where it
        is None.
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
        """The map that `convolution` makes of this one: (B, C', H', W') in channels_last order."""
        # the dense one is fast there, and finding the pairs would wait for the device
        if self.rows.device.type != "cpu":
            return convolution(self.dense())
        (down, right), pad = convolution.stride, convolution.padding
        assert not isinstance(pad, str)
        height, width = convolution.kernel_size
        sites, pairs = strided_map(self.sites, (1, height, width), (1, down, right), (0, pad[0], pad[1]))
        weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (cells of the kernel, C, C')
        rows = sparse_convolution(self.rows, weight, pairs, convolution.bias)
        return Canvas(rows, sites).dense(None if convolution.bias is None else convolution.bias.to(rows.dtype))
