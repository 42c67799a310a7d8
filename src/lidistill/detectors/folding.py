"""Folding BatchNorm into the convolution before it.

With running statistics, BatchNorm is an affine map of each channel, so the convolution's weights and bias can include
it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lidistill.detectors.encoders.sparse_blocks import SparseConvolution

Convolution = nn.Conv2d | nn.ConvTranspose2d | SparseConvolution


def fold_norms(network: nn.Module) -> None:
    """Fold every BatchNorm that directly follows a convolution in the same module into that convolution, and put an
    identity in its place.

    `network` is changed. To rounding, its outputs are then those that it had in evaluation mode; it can no longer be
    trained.
    """
    for block in list(network.modules()):
        for (place, layer), (norm_place, norm) in pairwise(list(block.named_children())):
            if isinstance(layer, Convolution) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                setattr(block, place, folded(layer, norm))
                setattr(block, norm_place, nn.Identity())


@torch.no_grad()
def folded(layer: Convolution, norm: nn.modules.batchnorm._BatchNorm) -> Convolution:
    """Fold `norm`, with its running statistics, into the weight and bias of `layer`, which is changed and returned."""
    assert norm.running_mean is not None and norm.running_var is not None
    # in double precision, so that only the result is rounded
    scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    before = 0.0 if layer.bias is None else layer.bias.double()
    bias = norm.bias.double() + (before - norm.running_mean.double()) * scale
    weight = layer.weight.double() * _by_output(scale, layer)
    layer.weight = _frozen(weight, like=layer.weight)
    layer.bias = _frozen(bias, like=layer.weight)
    return layer


def _by_output(scale: Tensor, layer: Convolution) -> Tensor:
    """Reshape `scale` (C,) so that it broadcasts over the output channels of the layer's weight."""
    axis = 2 if isinstance(layer, SparseConvolution) else int(isinstance(layer, nn.ConvTranspose2d))
    return scale.view([-1 if place == axis else 1 for place in range(layer.weight.dim())])


def _frozen(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(like.dtype), requires_grad=False)
