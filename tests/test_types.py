"""The nouns keep their promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import preset
from lidistill.types import Boxes, Frame, InputError, Losses, collate, unknown_name


def test_boxes_select_every_column():
    boxes = Boxes(torch.arange(21.0).view(3, 7), torch.tensor([0, 1, 2]), scores=torch.tensor([0.1, 0.2, 0.3]))
    kept = boxes[torch.tensor([True, False, True])]
    assert kept.labels.tolist() == [0, 2]
    assert kept.scores.tolist() == pytest.approx([0.1, 0.3])
    assert kept.velocity is None


def test_joined_boxes_keep_their_order_and_what_all_of_them_have():
    plain = Boxes(torch.ones(2, 7), torch.tensor([0, 1]), scores=torch.tensor([0.5, 0.6]))
    moving = Boxes(torch.zeros(1, 7), torch.tensor([2]), velocity=torch.tensor([[3.0, 4.0]]))
    joined = Boxes.joined([plain, moving])
    assert joined.labels.tolist() == [0, 1, 2]
    assert joined.geometry.sum(dim=1).tolist() == [7.0, 7.0, 0.0]
    assert joined.scores is None
    assert joined.velocity[:2].isnan().all()
    assert joined.velocity[2].tolist() == [3.0, 4.0]
    twice = Boxes.joined([plain, plain])
    assert twice.scores.tolist() == pytest.approx([0.5, 0.6, 0.5, 0.6])
    assert twice.velocity is None
    assert len(Boxes.joined([Boxes.empty(), Boxes.empty()])) == 0


def test_collate_keeps_frames_apart_and_gives_unlabelled_ones_no_box():
    frames = [
        Frame("a", torch.zeros((2, 4))),
        Frame("b", torch.ones((0, 4))),
        Frame("c", torch.ones((3, 4)), Boxes(torch.ones((1, 7)), torch.zeros(1).long())),
    ]
    batch = collate(frames)
    assert batch.batch_index.tolist() == [0, 0, 2, 2, 2]
    assert [len(boxes) for boxes in batch.boxes] == [0, 0, 1]
    assert batch.size == 3


POINTS = np.zeros((5, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: Frame("a", POINTS), r"frame a: the points are a numpy array; .* torch.from_numpy"),
        (
            lambda: Frame("a", torch.zeros(5, 4), world_from_lidar=np.eye(4)),
            r"frame a: world_from_lidar is a numpy array; .* torch.from_numpy",
        ),
        (lambda: Boxes(np.zeros((1, 7)), torch.zeros(1).long()), "boxes: geometry is a numpy array"),
        (lambda: collate([POINTS]), r"collate joins frames, but was given a numpy array; .*Frame\(id"),
        (lambda: collate([torch.zeros(5, 4)]), "was given a Tensor"),
        (
            lambda: preset("pointpillars", "simulated").build()(POINTS),
            r"a detector takes a Batch, but was given a numpy array; .*collate",
        ),
        (
            lambda: preset("pointpillars", "simulated").build()(Frame("a", torch.zeros(5, 4))),
            "was given a Frame; make one from frames",
        ),
    ],
    ids=["Frame", "Frame pose", "Boxes", "collate", "collate tensors", "detector", "detector frame"],
)
def test_what_is_no_tensor_or_no_frame_gets_a_sentence(use, message):
    with pytest.raises(InputError, match=message):
        use()


@pytest.mark.parametrize(
    "size, message",
    [
        ((0.3, 0.5, 1.0), "0.3 m voxels do not divide the x range 0.0..1.0 m .* 0.333333 m or a maximum of 0.9 m"),
        ((0.5, -1.0, 1.0), "grid.voxel_size.1 is -1.0; give a number above 0"),
    ],
)
def test_a_grid_that_does_not_divide_names_the_axis_and_the_nearest_valid_values(size, message):
    with pytest.raises(InputError, match=message):
        VoxelGrid((0.0, 0.0, 0.0, 1.0, 1.0, 1.0), size)


def test_the_published_grids_divide_despite_rounding():
    assert VoxelGrid((0, -39.68, -3, 69.12, 39.68, 1), (0.16, 0.16, 4)).shape == (432, 496, 1)
    assert VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1)).shape == (1408, 1600, 40)


def test_losses_add_up_and_refuse_a_name_twice():
    a, b = Losses({"x": torch.tensor(1.0)}), Losses({"y": torch.tensor(2.0)}, {"note": torch.tensor(7.0)})
    assert (a + b).total.item() == 3.0
    with pytest.raises(InputError, match="named twice: x"):
        _ = a + a


def test_an_unknown_name_comes_with_the_nearest_known_one():
    assert (
        str(unknown_name("method", "itdk", ["itkd", "fitnets"]))
        == "unknown method 'itdk'; did you mean 'itkd'? Known: fitnets, itkd"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"max_points_per_voxel": 0}, "max_points_per_voxel is 0; give 1 or more"),
        ({"max_voxels_train": -3}, "max_voxels_train is -3; give 1 or more"),
        ({"point_range": (0.0, 0.0, 0.0, 2.0, -1.0, 2.0)}, "the y range 0.0..-1.0 m is empty"),
        ({"point_range": (0.0, 0.0, 0.0, 4000.0, 4000.0, 2.0)}, "4000 x 4000 x 2 voxels are too many"),
        ({"point_range": (0.0, 0.0, 0.0, 2000.0, 2000.0, 200.0)}, "400,000,000 in all"),
        ({"max_voxels_eval": 0}, "max_voxels_eval is 0; give 1 or more"),
        ({"point_range": (0.0, 0.0, 0.0, float("inf"), 1.0, 1.0)}, "grid.point_range.3 is inf; give a finite number"),
        ({"voxel_size": (float("nan"), 1.0, 1.0)}, "grid.voxel_size.0 is nan; give a finite number"),
    ],
)
def test_a_grid_without_room_or_end_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        VoxelGrid(**{"point_range": (0.0, 0.0, 0.0, 2.0, 2.0, 2.0), "voxel_size": (1.0, 1.0, 1.0), **change})
