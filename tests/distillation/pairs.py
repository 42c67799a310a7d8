"""One map of a teacher and one of a student, compared by a method."""

from __future__ import annotations

import torch

from lidistill.distillation.method import DistillationMethod, MethodConfig
from lidistill.outputs import DetectorOutput, FeatureMap, MapSpec
from lidistill.types import Batch, Losses
from tests.distillation import fakes

METHOD_BATCH = fakes.make_batch()


def grid(features: torch.Tensor, origin=fakes.ORIGIN, cell=(1.0, 1.0)) -> FeatureMap:
    return FeatureMap.at(features, origin, cell)


def compare(
    config: MethodConfig, taught: FeatureMap, learnt: FeatureMap, batch: Batch = METHOD_BATCH, change=None
) -> Losses:
    """Losses of the tap `neck` of both networks; `change` may alter the built method."""
    method = build(config, taught, learnt)
    if change is not None:
        change(method)
    return method(DetectorOutput({"neck": taught}, ()), DetectorOutput({"neck": learnt}, ()), batch)


def build(config: MethodConfig, taught: FeatureMap, learnt: FeatureMap) -> DistillationMethod:
    specs = [{"neck": MapSpec(tap.features.shape[1])} for tap in (taught, learnt)]
    return config.build(*specs)
