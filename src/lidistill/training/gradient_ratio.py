"""How strongly each distillation method pulls at the student, beside its detection loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lidistill.types import Losses


def pulls(losses: Losses, parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """`pull/<method>`: the norm of the gradient of its terms over that of the detection loss, on the student's
    parameters.

    Terms named `<method>/<part>` are the method's, the others the detection loss. Nothing is accumulated into the
    parameters, and the graph can still be walked. Empty without detection terms, and for a student that learns from
    labels alone.
    """
    groups: dict[str, list[Tensor]] = {}
    for name, term in losses.terms.items():
        groups.setdefault(name.partition("/")[0] if "/" in name else "", []).append(term)
    detection = groups.pop("", [])
    if not detection or not groups:
        return {}
    learnt = [parameter for parameter in parameters if parameter.requires_grad]
    scale = _norm(detection, learnt).clamp_min(1e-12)
    return {f"pull/{name}": _norm(terms, learnt) / scale for name, terms in groups.items()}


def _norm(terms: list[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    total = torch.stack([term.float() for term in terms]).sum()
    if not total.requires_grad:
        return total.detach() * 0
    gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else total.detach() * 0
