"""Distillation methods, one file per paper. A method depends on the outputs of detectors, not on any detector."""

from lidistill.distillation.attention_transfer import AttentionTransferConfig
from lidistill.distillation.certificate import Certificate, Check, certify
from lidistill.distillation.channelwise import ChannelwiseConfig
from lidistill.distillation.crd import CrdConfig
from lidistill.distillation.fine_grained import FineGrainedConfig
from lidistill.distillation.fitnets import FitNetsConfig
from lidistill.distillation.fkd import FkdConfig
from lidistill.distillation.gid import GidConfig
from lidistill.distillation.hinton import HintonConfig
from lidistill.distillation.itkd import ItkdConfig
from lidistill.distillation.lad import LadConfig
from lidistill.distillation.logits import LogitsConfig
from lidistill.distillation.method import DistillationMethod, MethodConfig
from lidistill.distillation.mimic import MimicConfig
from lidistill.distillation.overhaul import OverhaulConfig
from lidistill.distillation.pointdistiller import PointDistillerConfig
from lidistill.distillation.rdd import RddConfig
from lidistill.distillation.relational import RelationalConfig
from lidistill.distillation.se_ssd import SeSsdConfig
from lidistill.distillation.similarity import SimilarityConfig
from lidistill.distillation.sparsekd import SparseKDConfig

METHODS: dict[str, type[MethodConfig]] = {
    "attention_transfer": AttentionTransferConfig,
    "channelwise": ChannelwiseConfig,
    "crd": CrdConfig,
    "fine_grained": FineGrainedConfig,
    "fitnets": FitNetsConfig,
    "fkd": FkdConfig,
    "gid": GidConfig,
    "hinton": HintonConfig,
    "itkd": ItkdConfig,
    "lad": LadConfig,
    "logits": LogitsConfig,
    "mimic": MimicConfig,
    "overhaul": OverhaulConfig,
    "pointdistiller": PointDistillerConfig,
    "rdd": RddConfig,
    "relational": RelationalConfig,
    "se_ssd": SeSsdConfig,
    "similarity": SimilarityConfig,
    "sparsekd": SparseKDConfig,
}

__all__ = ["METHODS", "Certificate", "Check", "DistillationMethod", "MethodConfig", "certify"]
