"""Distillation methods: one paper, one file. They know a detector's output and no detector."""

from lidistill.distillation.base import DistillationMethod, MethodConfig
from lidistill.distillation.certificate import Certificate, Check, certify
from lidistill.distillation.fitnets import FitNetsConfig
from lidistill.distillation.itkd import ItkdConfig
from lidistill.distillation.logits import LogitsConfig
from lidistill.distillation.pointdistiller import PointDistillerConfig

METHODS: dict[str, type[MethodConfig]] = {
    "fitnets": FitNetsConfig,
    "itkd": ItkdConfig,
    "logits": LogitsConfig,
    "pointdistiller": PointDistillerConfig,
}

__all__ = ["METHODS", "Certificate", "Check", "DistillationMethod", "MethodConfig", "certify"]
