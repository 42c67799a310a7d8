import pytest
import torch

from lidistill.distillation.non_local import NonLocalBlock
from tests.reference import fkd as slow


def block(channels: int, pool: int) -> NonLocalBlock:
    torch.manual_seed(0)
    module = NonLocalBlock(channels, 4, pool).double()
    torch.nn.init.normal_(module.output.scale)
    torch.nn.init.normal_(module.output.shift)
    return module


def output(module: NonLocalBlock, maps: torch.Tensor) -> torch.Tensor:
    relations, weight, bias = module(maps)
    return maps + torch.einsum("cr,brhw->bchw", weight, relations) + bias[:, None, None]


def maps_of(case: str) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 5, 7, generator=draw, dtype=torch.float64)
    return {
        "random": maps,
        "one cell": maps[..., :1, :1].clone(),
        "one row": maps[:, :, :1].clone(),
        "one frame": maps[:1].clone(),
        "tied": maps[..., :1].expand_as(maps).clone(),
        "dead": torch.zeros_like(maps),
        "hostile": 1e4 * maps.sign(),
    }[case]


@pytest.mark.parametrize("pool", [1, 3, 8])
@pytest.mark.parametrize("case", ["random", "one cell", "one row", "one frame", "tied", "dead", "hostile"])
def test_values_and_gradients_are_those_of_all_pairs_of_cells(case, pool):
    module, results = block(3, pool), []
    for form in (output, lambda own, maps: slow.related(maps, own, pool)):
        leaf = maps_of(case).requires_grad_()
        found = form(module, leaf)
        slopes = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        leaves = [leaf, *module.parameters()]
        gradients = torch.autograd.grad((found * slopes).sum(), leaves, allow_unused=True, materialize_grads=True)
        results.append([found.detach(), *gradients])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-8 * max(1.0, other.abs().max().item()))


def test_it_starts_as_the_identity_and_learns_to_leave_it():
    module = NonLocalBlock(3, 4, 2)
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(output(module, maps), maps)
    output(module, maps).square().sum().backward()
    assert module.output.scale.grad.abs().min() > 0


def test_every_cell_hears_of_every_block():
    module, maps = block(3, 2), maps_of("random")[:1]
    module.output.eval()
    before = module(maps)[0]
    maps[0, :, 4, 6] += 100.0  # the last cell, a block of its own at the ragged edge
    assert (module(maps)[0] - before).abs().amin(dim=1).min() > 0
