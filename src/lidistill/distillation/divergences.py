"""Kullback-Leibler divergences of a student's distribution from a teacher's, both given by logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def binary_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(sigmoid(teacher / T) || sigmoid(student / T)) of logits of one shape, elementwise; zero where they agree."""
    teacher, student = teacher / temperature, student / temperature
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return yes + no


def categorical_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) of logits (N, D): (N,)."""
    teacher, student = (F.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    return (teacher.exp() * (teacher - student)).sum(dim=1)
