"""Features at scattered places and on maps, through the same verbs."""

from __future__ import annotations

import pytest
import torch

from lidistill.outputs import FeatureMap, FeatureSet
from lidistill.types import Boxes, InputError, MapGrid

GRID = MapGrid((0.0, -2.0), (1.0, 1.0), (6, 4))
PLACES = torch.tensor([[0.5, -1.5, 9.0], [1.5, -1.5, 0.0], [4.5, 1.5, 0.0], [0.5, -1.5, 0.0], [5.5, 1.5, 0.0]])
FRAMES = torch.tensor([0, 0, 0, 1, 1])


def rows(features=None, positions=PLACES, frames=FRAMES):
    return FeatureSet(torch.arange(10.0).view(5, 2) if features is None else features, frames, positions)


def boxes(*places):
    """Boxes of 2 x 2 m, 1 m high, on the ground."""
    geometry = torch.tensor([[x, y, 0.0, 2.0, 2.0, 1.0, 0.0] for x, y in places]).view(-1, 7)
    return Boxes(geometry, torch.zeros(len(places)).long())


def test_rows_are_an_image_without_a_copy():
    image = rows().image()
    assert image.shape == (1, 2, 5, 1)
    own = torch.randn(5, 2)
    assert rows(own).image().data_ptr() == own.data_ptr()
    assert [part.shape for part in rows().frame_images()] == [(1, 2, 3, 1), (1, 2, 2, 1)]
    assert torch.equal(torch.cat([part[0, :, :, 0].T for part in rows().frame_images()]), rows().features)


def test_means_of_frames_counted_by_hand():
    assert rows().frame_means(3).tolist() == [[2.0, 3.0], [7.0, 8.0], [0.0, 0.0]]
    a_map = FeatureMap(torch.arange(48.0).view(1, 2, 4, 6), GRID)
    assert a_map.frame_means(1).tolist() == [[11.5, 35.5]]
    assert a_map.frame_vectors(1).shape == (1, 48)


def test_rows_inside_boxes_of_their_own_frame_count_whatever_their_height():
    assert rows().inside((boxes((0.6, -1.4)), boxes())).flatten().tolist() == [True, True, False, False, False]
    assert rows().inside((boxes(), boxes((5.0, 1.0)))).flatten().tolist() == [False, False, False, False, True]


def test_objects_without_a_row_are_left_out():
    frames, geometry = rows().objects_on((boxes((9.0, 9.0), (0.5, -1.5), (4.5, 1.5)), boxes((0.5, -1.5))))
    assert frames.tolist() == [0, 0, 1]
    assert geometry[:, :2].tolist() == [[0.5, -1.5], [4.5, 1.5], [0.5, -1.5]]
    assert rows().objects_on((boxes((0.5, -1.5), (4.5, 1.5)), boxes()), most=1)[0].tolist() == [0]


def test_a_region_of_rows_is_the_mean_of_those_inside():
    regions = torch.tensor([[0.0, -2.0, 2.0, -1.0], [0.0, -2.0, 2.0, -1.0], [9.0, 9.0, 10.0, 10.0]])
    reading = rows().region_reading(regions, torch.tensor([0, 1, 0]), 7)
    assert reading.pooled(reading.rows_of(rows().image())).tolist() == [[[1.0, 2.0]], [[6.0, 7.0]], [[0.0, 0.0]]]
    nothing = rows().region_reading(regions[2:], torch.tensor([0]), 7)
    assert nothing.pooled(nothing.rows_of(rows().image())).tolist() == [[[0.0, 0.0]]]
    empty = rows(torch.zeros(0, 2), torch.zeros(0, 3), torch.zeros(0).long())
    reading = empty.region_reading(regions, torch.tensor([0, 1, 0]), 7)
    assert reading.pooled(reading.rows_of(empty.image())).shape == (3, 1, 2)


def test_the_gradient_of_a_region_reaches_its_rows_alone():
    own = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    reading = rows(own).region_reading(torch.tensor([[0.0, -2.0, 2.0, -1.0]]), torch.tensor([0]), 7)
    assert torch.autograd.gradcheck(lambda features: reading.pooled(reading.rows_of(rows(features).image())), (own,))
    reading.pooled(reading.rows_of(rows(own).image())).sum().backward()
    assert own.grad.tolist() == [[0.5, 0.5], [0.5, 0.5], [0, 0], [0, 0], [0, 0]]


def test_inside_boxes_every_row_is_read_once():
    geometry = boxes((0.6, -1.4), (0.5, -1.5)).geometry
    reading = rows().box_reading(geometry, torch.tensor([0, 0]), 7)
    assert reading.pooled(reading.rows_of(rows().image())).tolist() == [[[0.0, 1.0]], [[2.0, 3.0]]]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (rows(), ""),
        (rows(positions=PLACES + 1e-5), ""),
        (rows(positions=PLACES + 0.1), "at other places"),
        (rows(frames=torch.tensor([0, 0, 1, 1, 1])), "at other places"),
        (rows(torch.zeros(4, 2), PLACES[:4], FRAMES[:4]), "5 rows in the teacher and 4 in the student"),
        (FeatureMap(torch.zeros(1, 2, 4, 6), GRID), "scattered rows in the teacher and a map in the student"),
    ],
)
def test_rows_are_compared_at_the_same_places_only(other, reason):
    assert reason in rows().places_apart(other)
    assert bool(rows().places_apart(other)) is bool(reason)


def test_maps_are_compared_with_maps_whatever_their_grid():
    a_map = FeatureMap(torch.zeros(1, 2, 4, 6), GRID)
    assert a_map.places_apart(FeatureMap(torch.zeros(1, 2, 2, 3), MapGrid((0.0, -2.0), (2.0, 2.0), (3, 2)))) == ""
    assert "a map in the teacher and scattered rows" in a_map.places_apart(rows())


SMALL = MapGrid((10.0, -1.0), (2.0, 1.0), (3, 2))  # x 10..16, y -1..1


def test_the_rows_of_a_map_know_where_they_are():
    rows = FeatureMap(torch.arange(24.0).view(2, 2, 2, 3), SMALL).as_set()
    assert torch.equal(rows.positions[:6, :2], SMALL.centres().reshape(-1, 2))
    assert torch.equal(rows.positions[6:], rows.positions[:6])
    assert not rows.positions[:, 2].any()
    assert rows.features[4].tolist() == [4.0, 10.0]
    assert rows.batch_index.tolist() == [0] * 6 + [1] * 6


def test_a_map_that_does_not_fit_its_grid_is_refused():
    with pytest.raises(InputError, match=r"a map of 3 x 2 cells does not fit a grid of 2 x 3 \(rows x columns\)"):
        FeatureMap(torch.zeros(1, 1, 3, 2), SMALL)
