import torch
from torch import nn

from lidistill.distillation.normalised_adapter import NormalisedAdapter


def test_the_adapter_is_a_convolution_and_a_batch_norm():
    module = NormalisedAdapter(3, 5)
    with torch.no_grad():
        module.scale.uniform_(0.5, 2)
        module.shift.normal_()
    plain = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.BatchNorm2d(5))
    with torch.no_grad():
        plain[0].weight.copy_(module.convolution.weight[:, :, None, None])
        plain[1].weight.copy_(module.scale)
        plain[1].bias.copy_(module.shift)
    features = (torch.randn(2, 3, 6, 7) + 2).requires_grad_()
    weight, bias = module(features)
    found, expected = torch.einsum("dc,bchw->bdhw", weight, features) + bias[:, None, None], plain(features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    slopes = torch.randn_like(found)
    own = torch.autograd.grad((found * slopes).sum(), [features, module.convolution.weight, module.scale, module.shift])
    others = torch.autograd.grad((expected * slopes).sum(), [features, plain[0].weight, plain[1].weight, plain[1].bias])
    for one, other in zip(own, others, strict=True):
        torch.testing.assert_close(one.flatten(), other.flatten(), rtol=1e-3, atol=1e-4)
