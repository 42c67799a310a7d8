"""Boxes seen from above, and angles.

All boxes are (N, 7): x y z length width height yaw in metres and radians, z at the centre, yaw zero along +x and
counter-clockwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FACE_TOLERANCE_M = 1e-6  # a point this close to a face lies on it: float32 resolves no finer at a distance of 10 m


def corners_bev(boxes: Tensor) -> Tensor:
    """Corners of boxes (N, 7) seen from above: (N, 4, 2), counter-clockwise from front left."""
    half_length, half_width = boxes[:, 3:4] / 2, boxes[:, 4:5] / 2
    along = torch.cat([half_length, -half_length, -half_length, half_length], dim=1)
    across = torch.cat([half_width, half_width, -half_width, -half_width], dim=1)
    cos, sin = torch.cos(boxes[:, 6:7]), torch.sin(boxes[:, 6:7])
    return torch.stack([along * cos - across * sin, along * sin + across * cos], dim=-1) + boxes[:, None, :2]


def envelopes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest axis-aligned boxes around boxes (N, 7): lower (N, 3) and upper (N, 3) corners, float64."""
    boxes = boxes.double()
    cos, sin = torch.cos(boxes[:, 6]).abs(), torch.sin(boxes[:, 6]).abs()
    length, width, height = boxes[:, 3:6].unbind(dim=-1)
    reach = torch.stack([length * cos + width * sin, length * sin + width * cos, height], dim=-1) / 2
    return boxes[:, :3] - reach, boxes[:, :3] + reach


def wrap_angle(angle: Tensor) -> Tensor:
    """Angles (...) in radians, wrapped to [-pi, pi) in their own precision. Angles in this range are unchanged."""
    pi = float(torch.tensor(math.pi, dtype=angle.dtype))  # float32 rounds pi up
    wide = angle.double()
    wrapped = (wide - torch.floor((wide + pi) / (2 * math.pi)) * (2 * math.pi)).to(angle.dtype)
    return torch.where((angle >= -pi) & (angle < pi), angle, torch.where(wrapped >= pi, -pi, wrapped.clamp(min=-pi)))


def limit_period(angle: Tensor, offset: float, period: float) -> Tensor:
    """Angles (...) in radians, wrapped to [-offset * period, (1 - offset) * period), as in SECOND, OpenPCDet and
    mmdetection3d.
    """
    return angle - torch.floor(angle / period + offset) * period
