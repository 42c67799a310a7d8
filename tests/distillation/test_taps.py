import pytest
import torch

from lidistill.distillation.taps import resampled
from lidistill.ops.precision import as_full
from lidistill.outputs import FeatureMap


def make_map(size, cell, origin=(2.0, -8.0), features=None):
    return FeatureMap.at(torch.randn(2, 3, *size) if features is None else features, origin, cell)


def bilinear(source, x, y):
    """One place of a map, read from the four cells around it; the border goes on for ever."""
    height, width = source.features.shape[2:]
    column, row = (
        (place - low) / size - 0.5
        for place, low, size in zip((x, y), source.grid.origin, source.grid.cell, strict=True)
    )
    column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
    left, top = min(int(column), max(width - 2, 0)), min(int(row), max(height - 2, 0))
    value = 0
    for i, share_y in ((top, 1 - (row - top)), (min(top + 1, height - 1), row - top)):
        for j, share_x in ((left, 1 - (column - left)), (min(left + 1, width - 1), column - left)):
            value = value + share_y * share_x * source.features[:, :, i, j]
    return value


@pytest.mark.parametrize(
    ("source", "like"),
    [
        (((4, 6), (1.0, 1.0), (2.0, -8.0)), ((8, 12), (0.5, 0.5), (2.0, -8.0))),  # to finer
        (((8, 12), (0.5, 0.5), (2.0, -8.0)), ((4, 6), (1.0, 1.0), (2.0, -8.0))),  # to coarser
        (((5, 7), (0.8, 1.2), (0.0, -9.0)), ((6, 5), (1.1, 0.7), (3.0, -7.0))),  # shifted, other aspect
        (((1, 1), (4.0, 4.0), (2.0, -8.0)), ((3, 2), (1.0, 1.0), (2.0, -8.0))),  # a single cell
    ],
)
def test_resampling_reads_the_source_at_the_places_of_the_target(source, like):
    given, target = make_map(*source), make_map(*like)
    found = resampled(given, target)
    assert found.grid == target.grid
    centres = target.grid.centres()
    for row in range(like[0][0]):
        for column in range(like[0][1]):
            x, y = centres[row, column].tolist()
            torch.testing.assert_close(found.features[:, :, row, column], bilinear(given, x, y), rtol=1e-4, atol=1e-5)


def test_a_map_on_the_same_grid_comes_back_itself():
    given = make_map((4, 6), (0.16, 0.16))
    assert resampled(given, make_map((4, 6), (0.16 + 1e-9, 0.16))) is given


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_half_precision_becomes_single_and_double_stays(given, wanted):
    assert as_full(torch.zeros(2, dtype=given)).dtype == wanted
