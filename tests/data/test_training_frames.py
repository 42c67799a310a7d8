"""The order of training frames, and that their random numbers follow from their place alone."""

import pickle
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from lidistill.data.augment import Augmentation, ObjectNoise
from lidistill.data.object_database import build_database
from lidistill.data.source import parse_list
from lidistill.data.training_frames import StepBatches, TrainingFrames, epoch_order
from lidistill.types import Boxes, Frame, InputError, collate
from tests.data.conftest import SPEC, MadeUpFrames

RECIPE = Augmentation(paste={"Car": 6, "Pedestrian": 6}, object_noise=ObjectNoise())


def training_frames(source, seed=0, recipe=RECIPE) -> TrainingFrames:
    return TrainingFrames(source, recipe, build_database(source), SPEC.point_range, seed)


def assert_same(first: Frame, second: Frame):
    assert first.id == second.id
    assert torch.equal(first.points, second.points)
    assert torch.equal(first.boxes.geometry, second.boxes.geometry)


@pytest.mark.parametrize(("num_frames", "batch_size"), [(10, 3), (10, 5), (7, 1), (4, 9)])
def test_every_epoch_visits_every_frame_once(num_frames, batch_size):
    steps = num_frames * 3  # batch_size epochs times three
    keys = [key for batch in StepBatches(num_frames, batch_size, 5, 0, steps) for key in batch]
    assert set(Counter(keys).values()) == {1}
    assert {key[0] for key in keys} == set(range(3 * batch_size))
    for epoch in range(3 * batch_size):
        assert sorted(row for at, row in keys if at == epoch) == list(range(num_frames))


def test_every_batch_is_full_and_epochs_follow_each_other():
    batches = list(StepBatches(10, 4, 0, 0, 20))
    assert {len(batch) for batch in batches} == {4}
    epochs = [epoch for batch in batches for epoch, _ in batch]
    assert epochs == sorted(epochs)


@pytest.mark.parametrize("stop", [0, 1, 7, 19])
def test_a_resumed_run_sees_the_same_batches(stop):
    whole = list(StepBatches(11, 3, 2, 0, 20))
    assert whole[:stop] + list(StepBatches(11, 3, 2, stop, 20)) == whole


def test_order_depends_on_the_seed_and_the_epoch():
    orders = {tuple(epoch_order(20, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("world", [2, 3, 6])
def test_ranks_share_each_batch_without_overlap(world):
    whole = list(StepBatches(11, 6, 2, 4, 15))
    shares = [list(StepBatches(11, 6, 2, 4, 15, rank, world)) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert [key for share in shares for key in share[step]] == batch


def test_number_of_steps_is_the_length():
    assert len(StepBatches(5, 2, 0, 3, 10)) == len(list(StepBatches(5, 2, 0, 3, 10))) == 7
    assert len(StepBatches(5, 2, 0, 10, 3)) == len(list(StepBatches(5, 2, 0, 10, 3))) == 0


@pytest.mark.parametrize(("num_frames", "batch_size", "world"), [(0, 2, 1), (5, 0, 1), (5, 3, 2)])
def test_impossible_batches_are_refused(num_frames, batch_size, world):
    with pytest.raises(InputError, match=r"has no frames|cannot be shared"):
        StepBatches(num_frames, batch_size, 0, 0, 1, 0, world)


def test_a_frame_follows_from_seed_epoch_and_row_alone(made_up):
    keys = [(epoch, row) for epoch in range(2) for row in range(len(made_up))]
    straight = training_frames(made_up)
    first = {key: straight[key] for key in keys}
    other_process = pickle.loads(pickle.dumps(training_frames(made_up)))
    for key in reversed(keys):
        assert_same(other_process[key], first[key])


@pytest.mark.parametrize("other", [{"key": (1, 2)}, {"key": (0, 3)}, {"seed": 1}])
def test_another_seed_epoch_or_row_varies_the_frame_differently(made_up, other):
    alike = MadeUpFrames([made_up.frames[0]] * 6)
    base = training_frames(alike)[0, 2]
    varied = training_frames(alike, other.get("seed", 0))[other.get("key", (0, 2))]
    assert varied.points.shape != base.points.shape or not torch.equal(varied.points, base.points)


def test_points_and_boxes_outside_the_range_are_dropped(made_up):
    low, high = torch.tensor(SPEC.point_range[:3]), torch.tensor(SPEC.point_range[3:])
    for row in range(len(made_up)):
        frame = training_frames(made_up)[0, row]
        assert (frame.points[:, :3] >= low).all()
        assert (frame.points[:, :3] < high).all()
        assert (frame.boxes.geometry[:, :2] >= low[:2]).all()
        assert (frame.boxes.geometry[:, :2] < high[:2]).all()


def test_points_are_shuffled_only_on_request(made_up):
    plain = TrainingFrames(made_up, Augmentation.none(), None, SPEC.point_range, 0)[0, 1]
    assert torch.equal(plain.points, made_up.frames[1].points)
    mixed = TrainingFrames(made_up, Augmentation(paste={}), None, SPEC.point_range, 0)[0, 1]
    assert (mixed.points[:200, 3] == 1).any()  # made-up frames begin with 200 points of ground, whose intensity is 0


def test_a_loader_gives_the_batches_of_the_sampler(made_up):
    dataset = training_frames(made_up)
    sampler = StepBatches(len(made_up), 4, 0, 0, 3)
    batches = list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate))
    assert [batch.size for batch in batches] == [4, 4, 4]
    for batch, keys in zip(batches, sampler, strict=True):
        assert batch.frame_ids == tuple(made_up.ids[row] for _, row in keys)
        torch.testing.assert_close(batch.points, torch.cat([dataset[key].points for key in keys]), atol=0, rtol=0)


def test_empty_frames_can_be_batched():
    far = Frame("far", torch.full((5, 4), 900.0), Boxes(torch.full((1, 7), 900.0), torch.zeros(1, dtype=torch.int64)))
    source = MadeUpFrames(
        [far, Frame("empty", torch.zeros(0, 4), Boxes.empty()), Frame("unlabelled", torch.zeros(0, 4))]
    )
    dataset = training_frames(source)
    batch = collate([dataset[0, row] for row in range(3)])
    assert batch.size == 3
    assert batch.points.shape == (0, 4)
    assert [len(boxes) for boxes in batch.boxes] == [0, 0, 0]


def test_lists_hold_one_id_a_line():
    assert parse_list("a\n\n b # why\n# no\nc") == ("a", "b", "c")
