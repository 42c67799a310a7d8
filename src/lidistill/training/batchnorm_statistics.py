"""Recomputing BatchNorm's running statistics after a short training.

They start at mean 0 and variance 1 and move by `momentum` per batch. For the first few hundred batches they do not
describe the data: after 30 steps with momentum 0.01, three quarters of the start values are left. A detector in
evaluation mode then predicts confident nonsense.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import nn

from lidistill.detectors.detector import Detector
from lidistill.types import Batch

LEAST_SHARE = 0.01  # statistics are settled if at most this share of their start values is left
MOST_BATCHES = 100  # enough for a stable mean

Norm: TypeAlias = nn.modules.batchnorm._BatchNorm


def batches_to_settle(detector: Detector) -> int:
    """Return the number of batches from which to recompute the running statistics; 0 if they are settled.

    It is the number of batches that the training had, at most MOST_BATCHES.
    """
    counts = [0]
    for norm in _norms(detector):
        assert norm.num_batches_tracked is not None
        seen = int(norm.num_batches_tracked)
        if norm.momentum is not None and (1 - norm.momentum) ** seen > LEAST_SHARE:
            counts.append(min(seen, MOST_BATCHES))
    return max(counts)


@torch.no_grad()
def settle(detector: Detector, batches: Iterable[Batch]) -> None:
    """Set the running statistics of every BatchNorm to their mean over `batches`; the weights stay as they are."""
    norms = _norms(detector)
    before = [(norm.momentum, {key: value.clone() for key, value in norm.state_dict().items()}) for norm in norms]
    training = detector.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: the plain mean over all batches
    detector.train()
    for batch in batches:
        detector(batch)
    detector.train(training)
    for norm, (momentum, state) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:  # no batch had values for this norm
            norm.load_state_dict(state)


def _norms(detector: Detector) -> list[Norm]:
    return [module for module in detector.modules() if isinstance(module, Norm)]
