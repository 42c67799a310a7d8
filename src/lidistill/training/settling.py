"""BatchNorm's running statistics after a training too short for them.

They start at 0 and 1 and move by `momentum` a batch. Until some hundred batches have passed they describe no data, and
a detector in evaluation mode predicts nonsense with them, surely: after 30 steps of 0.01 three quarters of the start
are left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import nn

from lidistill.detectors.detector import Detector
from lidistill.types import Batch

LEAST_SHARE = 0.01  # of the start that settled statistics may still hold
MOST_BATCHES = 100  # enough for a mean; a training has as many steps for its own

Norm: TypeAlias = nn.modules.batchnorm._BatchNorm


def batches_to_settle(detector: Detector) -> int:
    """Batches that should make the running statistics anew: those of the training, at most MOST_BATCHES; 0 where they
    are settled.
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
    """Make the running statistics of every BatchNorm the mean of what `batches` show to the final weights.

    The weights stay as they are.
    """
    norms = _norms(detector)
    before = [(norm.momentum, {key: value.clone() for key, value in norm.state_dict().items()}) for norm in norms]
    training = detector.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches alike
    detector.train()
    for batch in batches:
        detector(batch)
    detector.train(training)
    for norm, (momentum, state) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not norm.num_batches_tracked:  # no batch had rows for it
            norm.load_state_dict(state)


def _norms(detector: Detector) -> list[Norm]:
    return [module for module in detector.modules() if isinstance(module, Norm)]
