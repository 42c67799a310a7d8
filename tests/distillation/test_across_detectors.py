"""A teacher of one kind and a student of another: maps are compared place for place, and rows that differ never are."""

from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import WidthRule, preset
from lidistill.distillation import METHODS
from lidistill.distillation.pointdistiller import PUBLISHED
from lidistill.types import Boxes, Frame, InputError, collate

PAIRS = [("second", "pointpillars"), ("pointpillars", "second")]
BOX = torch.tensor([[6.0, 1.0, -1.0, 3.9, 1.6, 1.5, 0.3]])


def small(name):
    """A detector's settings for simulated scenes, on a patch of 12.8 m."""
    config = preset(name, "simulated")
    (x, _, low, _, _, high), size = config.grid.point_range, config.grid.voxel_size
    return replace(config, grid=VoxelGrid((x, -6.4, low, x + 12.8, 6.4, high), size, config.grid.max_points_per_voxel))


@pytest.fixture(scope="module")
def batch():
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(2, 400, 4, generator=draw) * torch.tensor([12.8, 12.8, 2.0, 1.0]) + torch.tensor(
        [0.0, -6.4, -2.0, 0.0]
    )
    return collate(
        [Frame(str(index), cloud, Boxes(BOX, torch.zeros(1, dtype=torch.int64))) for index, cloud in enumerate(points)]
    )


def pair(names, batch):
    torch.manual_seed(0)
    teacher, student = small(names[0]).build().eval(), small(names[1]).build().train()
    with torch.no_grad():
        taught = teacher(batch)
    return teacher, student, taught, student(batch)


@pytest.mark.parametrize("names", PAIRS, ids=" to ".join)
def test_pointdistiller_falls_back_to_maps_that_both_have(names, batch):
    teacher, student, taught, learnt = pair(names, batch)
    method = METHODS["pointdistiller"](num_queries=20, num_neighbours=8).build(teacher.tap_specs, student.tap_specs)
    assert method.taps == ("bev.0", "bev.1")
    losses = method(taught, learnt, batch)
    assert losses.total > 0
    losses.total.backward()
    assert (
        student.encoder.stages[0][0].conv.weight.grad.any()
        if names[1] == "second"
        else student.encoder.layers[0].linear.weight.grad.any()
    )


@pytest.mark.parametrize(
    "settings",
    [
        PUBLISHED["second"],
        replace(PUBLISHED["second"], reweight=False),
        replace(PUBLISHED["second"], taps=("encoder",)),
    ],
)
def test_pointdistillers_published_settings_teach_second(settings, batch):
    torch.manual_seed(0)
    teacher, student = (
        small("second").build().eval(),
        small("second").thinner(WidthRule.for_compression(4)).build().train(),
    )
    voxels = student.prepare(batch)
    with torch.no_grad():
        taught = teacher(batch, voxels)
    method = settings.build(teacher.tap_specs, student.tap_specs)
    losses = method(taught, student(batch, voxels), batch)
    assert list(losses.terms) == [f"pointdistiller/{tap}" for tap in settings.taps]
    assert all(term > 0 for term in losses.terms.values())
    losses.total.backward()
    assert student.encoder.output.conv.weight.grad.any()


@pytest.mark.parametrize("names", PAIRS, ids=" to ".join)
def test_pointdistiller_refuses_to_pair_voxels_with_pillars(names, batch):
    teacher, student, _, _ = pair(names, batch)
    with pytest.raises(
        InputError,
        match="'encoder' has rows that stand for cells . voxels wide in the teacher and . in the student; choose",
    ):
        METHODS["pointdistiller"](taps=("encoder",)).build(teacher.tap_specs, student.tap_specs)


@pytest.mark.parametrize("tap", ["bev.0", "bev.1", "neck"])
@pytest.mark.parametrize("names", PAIRS, ids=" to ".join)
def test_maps_of_the_two_are_mimicked_place_for_place(names, tap, batch):
    teacher, student, taught, learnt = pair(names, batch)
    losses = METHODS["fitnets"](taps=(tap,)).build(teacher.tap_specs, student.tap_specs)(taught, learnt, batch)
    assert losses.total > 0
    losses.total.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.encoder.parameters())


def test_both_see_an_object_at_the_same_place():
    """Without training, the maps of both are strongest where the points are: resampling mixes up no axes."""
    points = torch.rand(300, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [1.0, 1.0, 1.0, 1.0]
    ) + torch.tensor([9.0, -4.0, -1.5, 0.0])
    batch = collate([Frame("a", points, Boxes.empty())])
    places = []
    for name in ("second", "pointpillars"):
        torch.manual_seed(0)
        with torch.no_grad():
            tap = small(name).build().eval()(batch).taps["bev.0"]
        strength = (tap.features - tap.features[..., :1, :1]).abs().sum(dim=1).flatten()  # against an empty corner
        positions = tap.as_set().positions
        places.append(positions[strength.argsort(descending=True)[:20], :2].mean(dim=0))
    for place in places:
        torch.testing.assert_close(place, torch.tensor([9.5, -3.5]), rtol=0, atol=0.8)
