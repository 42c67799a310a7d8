"""A student started from its teacher computes what the teacher would with its other channels silenced."""

import copy
from dataclasses import replace

import pytest
import torch

from lidistill.detectors import WidthRule
from lidistill.detectors.backbones import BevConfig
from lidistill.distillation.initialisation import CHOICES, chosen_channels, initialised
from lidistill.ops.layer_graph import INPUT, ChannelBlock, Layer
from lidistill.types import InputError
from tests.detectors import test_centerpoint, test_second
from tests.detectors.small import small_batch, small_config
from tests.reference.responses import dropped_channels

WIDE = BevConfig(channels=(8, 16), layers=(1, 1), strides=(2, 2), neck_channels=(8, 8), neck_strides=(1, 2))
CONFIGS = {
    "pointpillars": small_config(),
    "second": test_second.small_config(),
    "second, residual": test_second.small_config(kind="residual", bias=True),
    "centerpoint-pillar": test_centerpoint.PILLARS,
    "centerpoint-voxel": test_centerpoint.FORMS["voxels"],
}
HALF = WidthRule(0.5, 0.5, 0.5)
each_detector = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
each_choice = pytest.mark.parametrize("choice", CHOICES)


def trained(config, seed=0):
    """A detector whose BatchNorms have scales, shifts and statistics of their own, none of them zero."""
    torch.manual_seed(seed)
    detector = config.build()
    for module in detector.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.3)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.3, 1.0)
            module.num_batches_tracked.fill_(7)
    for weight in detector.head.parameters():
        if weight.ndim == 4:  # which start so small that the bias is all that an anchor head says
            torch.nn.init.normal_(weight, std=0.2)
    return detector.eval()


def started(student, teacher, choice):
    state = initialised(
        student.state_dict(), teacher.state_dict(), student.layer_graph(), teacher.layer_graph(), choice
    )
    student.load_state_dict(state)
    return student.eval()


def maps(detector):
    with torch.no_grad():
        output = detector(small_batch())
    return {f"{index} {name}": values for index, head in enumerate(output.heads) for name, values in head.maps.items()}


def assert_same_maps(one, other, **tolerances):
    found, expected = maps(one), maps(other)
    assert list(found) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=lambda text, name=name: f"{name}: {text}", **tolerances)


@each_choice
@each_detector
def test_a_student_of_equal_width_is_the_teacher(config, choice):
    teacher, student = trained(config), started(trained(config, seed=1), trained(config), choice)
    for name, value in teacher.state_dict().items():
        assert torch.equal(student.state_dict()[name], value), name
    assert_same_maps(student, teacher, rtol=0, atol=0)


def worth(teacher, layer, choice):
    """Of each output channel; None where the place decides."""
    state = teacher.state_dict()
    if choice == "bn_scale":
        return state[f"{layer.norm}.weight"].abs().tolist()
    weight = state[f"{layer.name}.weight"].movedim(layer.axes[0], 0)
    return None if choice == "first" else [channel.abs().sum().item() for channel in weight]


def silenced(teacher, student, choice):
    """The teacher with its left-out channels at zero: their BatchNorms say nothing."""
    twin = copy.deepcopy(teacher)
    norms = dict(twin.named_modules())
    chosen = {}
    for layer, thin in zip(teacher.layer_graph(), student.layer_graph(), strict=True):
        if layer.norm is None:
            continue
        assert layer.output == thin.output
        norm, kept = norms[layer.norm], dict(student.named_modules())[layer.norm].num_features
        # The order in which channels were written is the order in which they are chosen.
        dropped = chosen.setdefault(
            layer.output, dropped_channels(kept, norm.num_features, worth(teacher, layer, choice))
        )
        with torch.no_grad():
            norm.weight[dropped] = 0
            norm.bias[dropped] = 0
    return twin


@each_choice
@each_detector
def test_a_thinner_student_is_the_teacher_with_its_other_channels_silenced(config, choice):
    teacher = trained(config)
    student = started(config.thinner(HALF).build(), teacher, choice)
    twin = silenced(teacher, student, choice)
    assert_same_maps(student, twin, rtol=1e-4, atol=1e-4)
    different = [
        not torch.allclose(values, maps(teacher)[name], rtol=1e-2, atol=1e-3) for name, values in maps(twin).items()
    ]
    assert all(different)


@each_detector
def test_statistics_and_counters_come_along_and_nothing_of_the_teacher_is_shared(config):
    teacher, student = trained(config), config.thinner(HALF).build()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    state = initialised(
        student.state_dict(), teacher.state_dict(), student.layer_graph(), teacher.layer_graph(), "first"
    )
    assert state.keys() == student.state_dict().keys()
    counters = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert counters and all(value == 7 for value in counters)
    for value in state.values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@each_detector
def test_the_layer_graph_names_every_tensor_once_and_only_what_came_before(config):
    detector = config.build()
    named = [key for layer in detector.layer_graph() for key in (layer.name, layer.norm) if key is not None]
    assert len(named) == len(set(named))
    assert {key.rpartition(".")[0] for key in detector.state_dict()} == set(named)
    known = {INPUT}
    for layer in detector.layer_graph():
        assert all(block.source in known for block in layer.inputs), layer.name
        known.add(layer.output)


def test_chosen_channels_by_hand():
    layer = Layer("conv", "norm", (ChannelBlock(INPUT),), "out")
    state = {
        "conv.weight": torch.tensor([[1.0, -3.0], [2.0, 2.5], [0.1, 0.1], [-4.0, 0.5]]),
        "norm.weight": torch.tensor([0.1, -0.9, 0.9, 0.2]),
    }
    assert chosen_channels(layer, state, 2, "first").tolist() == [0, 1]
    assert chosen_channels(layer, state, 2, "bn_scale").tolist() == [1, 2]
    assert chosen_channels(layer, state, 2, "l1").tolist() == [1, 3]
    assert chosen_channels(layer, state, 3, "l1").tolist() == [0, 1, 3]
    sparse = {"conv.weight": state["conv.weight"].T[None]}  # kernel, input, output
    assert chosen_channels(replace(layer, axes=(2, 1)), sparse, 2, "l1").tolist() == [1, 3]
    tied = {"conv.weight": torch.ones(4, 2)}
    assert chosen_channels(layer, tied, 2, "l1").tolist() == [0, 1]


def test_flattened_and_joined_channels_are_cut_block_by_block():
    layers = (
        Layer("a", None, (ChannelBlock(INPUT),), "a"),
        Layer("b", None, (ChannelBlock(INPUT),), "b"),
        Layer("c", None, (ChannelBlock("a", copies=2), ChannelBlock("b")), None),
    )
    weights = {
        "a.weight": torch.eye(3),
        "b.weight": torch.tensor([[1.0] * 3, [5.0] * 3]),
        "c.weight": torch.arange(8.0)[None],
    }
    student = {"a.weight": torch.zeros(2, 3), "b.weight": torch.zeros(1, 3), "c.weight": torch.zeros(1, 5)}
    assert initialised(student, weights, layers, layers, "first")["c.weight"].tolist() == [[0, 1, 2, 3, 6]]
    assert initialised(student, weights, layers, layers, "l1")["c.weight"].tolist() == [[0, 1, 2, 3, 7]]


def refused(match, student, teacher, choice="first"):
    with pytest.raises(InputError, match=match):
        started(student, teacher, choice)


def test_networks_that_do_not_match_are_refused():
    teacher = trained(small_config())
    narrow = small_config().thinner(HALF).build()
    refused(
        r"the student's layer encoder.layers.0.linear has 8 channels, more than the teacher's 4; give the student",
        teacher,
        narrow,
    )
    deeper = replace(small_config(), bev=replace(WIDE, layers=(2, 1)))
    refused(
        r"trunk.stages.0.6 and the teacher's trunk.stages.1.0 do not match: the networks differ in depth or in kind",
        deeper.build(),
        teacher,
    )
    refused(
        "and the teacher's encoder.stages.0.0.conv do not match: the networks differ in depth or in kind",
        teacher,
        test_second.small_config().build(),
    )
    refused("distillation.initialise is 'last'; use one of random, first, bn_scale, l1", teacher, teacher, "last")
    fewer = replace(
        small_config(), classes=("Car",), head=replace(small_config().head, anchors=small_config().head.anchors[:1])
    )
    refused("the student's layer head.conv_class has 2 channels, not all of the teacher's 18", fewer.build(), teacher)
    features = replace(small_config(), point_features=("intensity", "elongation"))
    refused(
        "the student's encoder.layers.0.linear.weight is 8x11, and the teacher's values for it are 8x10",
        features.build(),
        teacher,
    )


def test_another_number_of_layers_along_z_is_refused():
    config = test_second.small_config()
    low = config.grid.point_range
    taller = replace(config, grid=replace(config.grid, point_range=(*low[:5], low[2] + 2 * (low[5] - low[2]))))
    assert taller.encoder.map_channels(taller.grid) != config.encoder.map_channels(config.grid)
    refused(
        "the layer trunk.stages.0.0 has other inputs in the student than in the teacher",
        taller.build(),
        config.build(),
    )


def test_a_detector_that_does_not_say_how_it_is_connected_is_refused():
    with pytest.raises(InputError, match="the detector does not list how its layers are connected"):
        initialised({}, {}, (), (), "first")
    layers = (Layer("a", None, (ChannelBlock(INPUT),), "a"),)
    state = {"a.weight": torch.eye(2), "b.weight": torch.eye(2)}
    with pytest.raises(InputError, match=r"the detector does not list the layer of its tensor b.weight"):
        initialised(state, state, layers, layers, "first")
    with pytest.raises(InputError, match=r"the teacher has no tensor a.bias, which the student has"):
        initialised({**state, "a.bias": torch.zeros(2)}, state, layers, layers, "first")
