"""Targets of centre heads against a slow twin, against a published head's, and for boxes that are none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.detectors.heads.center.targets import CenterTargetSettings, center_targets
from lidistill.ops.box_codes import decode_centers
from lidistill.types import Boxes, InputError, MapGrid
from tests.reference.centers import targets as slow_targets

SIZE, ORIGIN, CELL = (20, 12), (0.0, -4.8), (0.8, 0.8)
GRID = MapGrid(ORIGIN, CELL, SIZE)
SETTINGS = CenterTargetSettings()


def crowd(num: int, seed: int = 0, num_classes: int = 4) -> Boxes:
    """Boxes on and around the map, of all sizes."""
    rng = np.random.default_rng(seed)
    geometry = np.hstack(
        [rng.uniform([-2, -6, -2], [18, 6, 1], (num, 3)), rng.uniform(0.3, 12, (num, 3)), rng.uniform(-4, 4, (num, 1))]
    )
    return Boxes(torch.from_numpy(geometry).float(), torch.from_numpy(rng.integers(num_classes, size=num)))


def targets_of(*frames: Boxes, classes=(0, 1), settings=SETTINGS):
    return center_targets(frames, classes, GRID, settings)


def one(*values: float, label: int = 0) -> Boxes:
    return Boxes(torch.tensor([values]), torch.tensor([label]))


@pytest.mark.parametrize("settings", [SETTINGS, CenterTargetSettings(0.5, 0), CenterTargetSettings(max_objects=4)])
@pytest.mark.parametrize("classes", [(0,), (3, 1), (0, 1, 2, 3)])
def test_targets_are_those_of_the_slow_twin(settings, classes):
    frames = (crowd(50), Boxes.empty(), crowd(15, seed=1))
    ours = targets_of(*frames, classes=classes, settings=settings)
    start = 0
    for index, frame in enumerate(frames):
        limits = (settings.gaussian_overlap, settings.min_radius, settings.max_objects)
        heatmaps, objects = slow_targets(
            frame.geometry.tolist(), frame.labels.tolist(), classes, SIZE, ORIGIN, CELL, *limits
        )
        torch.testing.assert_close(ours.heatmap[index], torch.tensor(heatmaps), rtol=1e-5, atol=1e-7)
        mine = slice(start, start + len(objects))
        assert ours.frames[mine].tolist() == [index] * len(objects)
        assert ours.cells[mine].tolist() == [[row, column] for row, column, _ in objects]
        torch.testing.assert_close(
            ours.codes[mine], torch.tensor([codes for _, _, codes in objects]).view(-1, 8), rtol=1e-4, atol=1e-5
        )
        start += len(objects)
    assert start == len(ours.codes) > 5


def test_codes_decode_to_the_boxes():
    ours = targets_of(crowd(40), classes=(0, 1, 2, 3))
    boxes = decode_centers(ours.codes, ours.cells, GRID)
    torch.testing.assert_close(boxes[:, :6], ours.boxes[:, :6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cos(boxes[:, 6] - ours.boxes[:, 6]), torch.ones(len(boxes)))


def test_peaks_are_exactly_one_at_the_objects_and_nowhere_else():
    ours = targets_of(crowd(30), classes=(2,))
    peaks = {tuple(place) for place in (ours.heatmap == 1).nonzero()[:, [0, 2, 3]].tolist()}
    assert peaks == {(frame, *cell) for frame, cell in zip(ours.frames.tolist(), ours.cells.tolist(), strict=True)}


def test_frames_in_a_batch_do_not_see_each_other():
    first, second = crowd(12), crowd(9, seed=5)
    both, alone = targets_of(first, second), targets_of(second)
    assert torch.equal(both.heatmap[1:], alone.heatmap)
    assert torch.equal(both.codes[both.frames == 1], alone.codes)


@pytest.mark.parametrize("axis", range(7))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_box_with_a_nan_or_an_infinity_is_skipped(axis, value):
    box = [4.0, 0, 0, 4, 2, 1.5, 0.3]
    box[axis] = value
    ours = targets_of(one(*box))
    assert len(ours.codes) == 0 and not ours.heatmap.any()


@pytest.mark.parametrize("axis", [3, 4, 5])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_box_without_volume_is_skipped(axis, value):
    box = [4.0, 0, 0, 4, 2, 1.5, 0.3]
    box[axis] = value
    assert len(targets_of(one(*box)).codes) == 0


def test_huge_boxes_far_away_and_here_give_finite_targets():
    far = one(3e38, -3e38, 0, 4, 2, 1.5, 0)
    here = one(4.0, 0, 0, 3e38, 3e38, 3e38, 0)
    for outside in ("skip", "border"):
        ours = targets_of(far, here, settings=CenterTargetSettings(outside=outside))
        assert torch.isfinite(ours.codes).all() and torch.isfinite(ours.heatmap).all()
        assert ours.frames.tolist() == ([1] if outside == "skip" else [0, 1])


def test_classes_of_no_task_and_unknown_labels_are_skipped():
    boxes = Boxes(crowd(3).geometry, torch.tensor([7, -1, 1]))
    assert len(targets_of(boxes, classes=(0,)).codes) == 0


def test_boxes_off_the_map_are_skipped_or_moved_to_its_border():
    off = Boxes(
        torch.tensor([[-3.0, 0.1, 0, 4, 2, 1, 0], [5.0, 9.0, 0, 4, 2, 1, 0], [16.0, -4.8, 0, 4, 2, 1, 0]]),
        torch.tensor([0, 0, 0]),
    )
    assert len(targets_of(off).codes) == 0
    border = targets_of(off, settings=CenterTargetSettings(outside="border"))
    assert border.cells.tolist() == [[6, 0], [11, 6], [0, 19]]
    torch.testing.assert_close(
        border.codes[:, :2], torch.tensor([[0, 0.125], [0.25, 0.5], [0.5, 0]]), atol=1e-5, rtol=0
    )
    assert torch.equal(border.boxes, off.geometry)  # the objects themselves stay where they are


def test_the_low_edge_of_the_map_is_inside_and_the_high_one_is_not():
    edges = Boxes(torch.tensor([[0.0, -4.8, 0, 4, 2, 1, 0], [16.0, -4.8, 0, 4, 2, 1, 0]]), torch.tensor([0, 0]))
    assert targets_of(edges).cells.tolist() == [[0, 0]]


def test_two_objects_in_one_cell_keep_their_own_codes():
    pair = Boxes(torch.tensor([[4.1, 0.1, 0, 4, 2, 1, 0], [4.2, 0.2, 0, 1, 1, 1, 1]]), torch.tensor([0, 0]))
    ours = targets_of(pair)
    assert ours.cells.tolist() == [[6, 5], [6, 5]]
    assert (ours.heatmap == 1).sum() == 1
    assert not torch.equal(ours.codes[0], ours.codes[1])


def test_velocities_come_along_and_are_nan_where_a_frame_has_none():
    moving = replace(crowd(5), velocity=torch.arange(10.0).view(5, 2))
    ours = targets_of(moving, crowd(5, seed=2), classes=(0, 1, 2, 3))
    known = ours.frames == 0
    rows = [(moving.geometry == box).all(dim=1).nonzero().item() for box in ours.boxes[known]]
    assert len(rows) > 1 and torch.equal(ours.velocity[known], moving.velocity[rows])
    assert ours.velocity[~known].isnan().all() and (~known).any()


def test_a_thousand_objects_on_a_map_of_one_cell():
    many = Boxes(torch.tensor([[0.5, 0.5, 0, 40, 40, 1, 0]]).repeat(1000, 1), torch.zeros(1000, dtype=torch.int64))
    ours = center_targets([many], (0,), MapGrid((0.0, 0.0), (1.0, 1.0), (1, 1)), SETTINGS)
    assert ours.heatmap.tolist() == [[[[1.0]]]]
    assert len(ours.codes) == 500


@pytest.mark.parametrize(
    "wrong", [{"gaussian_overlap": 0.0}, {"gaussian_overlap": 1.0}, {"min_radius": -1}, {"max_objects": 0}]
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"head\.targets"):
        CenterTargetSettings(**wrong)


@pytest.mark.parametrize("outside", ["skip", "border"])
def test_targets_are_those_of_the_published_head(reference, outside):
    """OpenPCDet's targets for its nuScenes network; its codes hold cosine before sine."""
    golden = np.load(reference("checkpoints", "openpcdet_centerpoint_voxel01_nus.npz"), allow_pickle=False)
    truth = torch.from_numpy(golden["gt"])
    boxes = Boxes(truth[:, :7], truth[:, 9].long() - 1, velocity=truth[:, 7:9])
    found = 0
    for task, classes in enumerate([(0,), (1, 2), (3, 4), (5,), (6, 7), (8, 9)]):
        grid = MapGrid((-51.2, -51.2), (0.8, 0.8), (128, 128))
        ours = center_targets([boxes], classes, grid, CenterTargetSettings(outside=outside))
        prefix = "train.target.target_dicts"
        heatmap = f"{prefix}.heatmaps.{task}"
        assert ours.heatmap.shape == tuple(golden[f"{heatmap}:shape"])
        torch.testing.assert_close(
            ours.heatmap.flatten()[:: golden[f"{heatmap}:stride"]], torch.from_numpy(golden[f"{heatmap}:flat"])
        )
        sums = [ours.heatmap.sum().item(), ours.heatmap.abs().sum().item(), ours.heatmap.double().square().sum().item()]
        assert sums == pytest.approx(golden[f"{heatmap}:stats"].tolist(), rel=1e-5)

        mask = golden[f"{prefix}.masks.{task}"][0].astype(bool)
        places = golden[f"{prefix}.inds.{task}"][0][mask]
        assert (ours.cells[:, 0] * 128 + ours.cells[:, 1]).tolist() == places.tolist()
        padded = torch.zeros(500, 10)
        padded[: len(ours.codes)] = torch.cat([ours.codes[:, [0, 1, 2, 3, 4, 5, 7, 6]], ours.velocity], dim=1)
        wanted = f"{prefix}.target_boxes.{task}"
        stored = torch.from_numpy(golden[f"{wanted}:flat"])
        torch.testing.assert_close(padded.flatten()[:: golden[f"{wanted}:stride"]], stored, rtol=1e-5, atol=2e-5)
        found += len(places)
    assert found == len(truth)
