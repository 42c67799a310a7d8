"""The gradient of each distillation method relative to that of the detection loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lidistill.types import Losses


def pulls(losses: Losses, parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """Return `pull/<method>`: the norm of the gradient of the method's terms divided by that of the detection loss.

    Gradients are taken with respect to the student's `parameters`. Terms named `<method>/<part>` belong to the method,
    all others to the detection loss. No gradient is accumulated in the parameters, and the graph can still be used for
    the backward pass. Empty if there are no detection terms or no method's terms.
    """
    groups: dict[str, list[Tensor]] = {}
    for name, term in losses.terms.items():
        groups.setdefault(name.partition("/")[0] if "/" in name else "", []).append(term)
    detection = groups.pop("", [])
    if not detection or not groups:
        return {}
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    scale = _norm(detection, trainable).clamp_min(1e-12)
    return {f"pull/{name}": _norm(terms, trainable) / scale for name, terms in groups.items()}


def _norm(terms: list[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    total = torch.stack([term.float() for term in terms]).sum()
    if not total.requires_grad:
        return total.detach() * 0
    gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else total.detach() * 0
