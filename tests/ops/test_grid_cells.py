"""Numbers of cells."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.ops.grid_cells import cell_numbers, numbered_cells


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(1, 3))
def test_numbers_count_the_cells_of_all_frames_in_order_and_lead_back(shape, batch_size):
    cells = torch.ones(batch_size, *shape).nonzero()
    numbers = cell_numbers(cells, shape)
    assert numbers.tolist() == list(range(len(cells)))
    assert torch.equal(numbered_cells(numbers, shape), cells)


def test_a_number_beyond_int32_leads_back():
    cells = torch.tensor([[2, 49_999, 499_999, 499_999]])
    assert torch.equal(
        numbered_cells(cell_numbers(cells, (50_000, 500_000, 500_000)), (50_000, 500_000, 500_000)), cells
    )


def test_no_cells_have_no_numbers():
    none = torch.zeros((0, 4), dtype=torch.int64)
    assert cell_numbers(none, (2, 3, 4)).shape == (0,)
    assert numbered_cells(torch.zeros(0, dtype=torch.int64), (2, 3, 4)).shape == (0, 4)
