import math

import pytest
import torch

from lidistill.distillation.channelwise import ChannelwiseConfig
from lidistill.types import InputError
from tests.distillation import fakes
from tests.distillation.pairs import build, compare, grid


def test_hand_counted_divergence_of_two_cells():
    taught, learnt = grid(torch.tensor([[[[math.log(3), 0.0]]]])), grid(torch.zeros(1, 1, 1, 2))
    assert compare(ChannelwiseConfig(weight=1.0), taught, learnt).total.item() == pytest.approx(0.13081, abs=1e-5)


def test_an_equal_student_has_nothing_to_learn():
    features = torch.randn(2, 3, 4, 5)
    assert compare(ChannelwiseConfig(), grid(features), grid(features.clone())).total.item() == 0


def test_only_other_widths_need_an_adapter():
    assert not list(
        build(ChannelwiseConfig(), grid(torch.zeros(1, 3, 1, 1)), grid(torch.zeros(1, 3, 1, 1))).parameters()
    )
    method = ChannelwiseConfig(taps=("bev.0", "neck")).build(fakes.specs(8), fakes.specs(5))
    assert [tuple(parameter.shape) for parameter in method.parameters()] == [(8, 5), (24, 15)]


def test_a_senseless_temperature_is_refused():
    with pytest.raises(InputError, match=r"channelwise.temperature is 0.0; give 0.001 or more"):
        ChannelwiseConfig(temperature=0.0)
