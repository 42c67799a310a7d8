"""Disparity between two networks' crops of the same regions, and the mask of the regions that differ enough to be
distilled (RDD, ICCV 2023, sections 3.2 and 3.3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SQUARE_FLOOR = 1e-12  # added under the root of a distance, whose gradient at zero would be infinite
LEAST_UNEXPLAINED = 1e-6  # least unexplained share of a variance: bounds the information of identical patches


def softened(crops: Tensor, temperature: float, over: str = "channel") -> Tensor:
    """Crops (N, P, C) -> softmax of crops / temperature over each place's channels (equation 2), or over each channel's
    places ("spatial").
    """
    return torch.softmax(crops / temperature, dim={"channel": 2, "spatial": 1}[over])


def patch_distance(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distance of patches (N, P, C), pair by pair, over places and channels (norm of equation 8): (N,)."""
    return (one - other).square().sum(dim=(1, 2)).add(SQUARE_FLOOR).sqrt()


def gaussian_information(one: Tensor, other: Tensor) -> Tensor:
    """Mutual information of two patches (N, P, C) in nats, as if their values were jointly Gaussian: -log(1 - r^2) / 2
    with their correlation r, (N,).

    It is 0 if a patch is constant, and 6.9 instead of infinity for identical patches.
    """
    one, other = (patch.flatten(1) - patch.flatten(1).mean(dim=1, keepdim=True) for patch in (one, other))
    norms = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    correlation = (one * other).sum(dim=1) / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    return -0.5 * (1 - correlation.square()).clamp_min(LEAST_UNEXPLAINED).log()


def threshold(disparity: Tensor, least: float, mode: str) -> Tensor:
    """Threshold that a disparity (N,) must exceed, a scalar: `least` itself ("absolute"), or the value that leaves out
    the share `least` of the pairs ("quantile").
    """
    if mode == "absolute":
        return disparity.new_tensor(least)
    num_left_out = math.floor(least * len(disparity) + 1e-9)  # 0.29 * 100 is 28.999...
    return disparity.sort().values[num_left_out - 1] if num_left_out else disparity.new_tensor(-math.inf)


def hard_mask(disparity: Tensor, above: Tensor) -> Tensor:
    """1 where disparity (N,) exceeds `above`, else 0: the exact minimum of sum m_i (above - d_i) over m in [0, 1]^N."""
    return (disparity > above).to(disparity.dtype)


def soft_mask(disparity: Tensor, above: Tensor, ramp: float) -> Tensor:
    """Rises from 0 at `above` to 1 at `above` + ramp: the minimum of the sum in `hard_mask` plus ramp / 2 |m|^2."""
    return ((disparity - above) / ramp).clamp(0, 1)


def top_mask(disparity: Tensor, share: float) -> Tensor:
    """1 for the `share` of the pairs with the largest disparity (N,), rounded up, else 0; ties go to the earlier pair
    (IDa-Det, ECCV 2022: 0.6).
    """
    chosen = torch.sort(disparity, descending=True, stable=True).indices[: math.ceil(share * len(disparity) - 1e-9)]
    return torch.zeros_like(disparity).index_fill(0, chosen, 1.0)


def descended_mask(disparity: Tensor, above: Tensor, steps: int, rate: float) -> Tensor:
    """Mask after `steps` of gradient descent from m = 1 on sum m_i (above - d_i), clipped to [0, 1].

    The gradient is constant, so all steps are taken as one.
    """
    return (1 - steps * rate * (above - disparity)).clamp(0, 1)
