"""Reading raw point files, good and bad."""

import numpy as np
import pytest

from lidistill.data.point_files import read_bin
from lidistill.types import InputError


def written(tmp_path, values) -> str:
    path = tmp_path / "000000.bin"
    np.asarray(values, dtype="<f4").tofile(path)
    return str(path)


@pytest.mark.parametrize("columns", [3, 4, 5])
def test_points_come_back_as_written(tmp_path, columns):
    points = np.random.default_rng(0).normal(size=(7, columns)).astype(np.float32)
    read = read_bin(written(tmp_path, points), columns)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, points)


def test_empty_file_holds_no_point(tmp_path):
    assert read_bin(written(tmp_path, []), 5).shape == (0, 5)


def test_truncated_file_says_its_size_and_what_fits(tmp_path):
    path = tmp_path / "000000.bin"
    path.write_bytes(bytes(16 * 10 + 7))
    with pytest.raises(InputError, match=r"000000\.bin: 167 bytes .* 160 bytes would be 10 points.*copy it again"):
        read_bin(path)


def test_file_of_another_width_says_how_many_columns_fit(tmp_path):
    path = written(tmp_path, np.zeros((3, 5)))
    with pytest.raises(InputError, match=r"60 bytes .* the size fits 3 or 5 columns"):
        read_bin(path, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 3])
def test_nonfinite_point_is_named_by_its_first_row(tmp_path, bad, column):
    points = np.ones((6, 4))
    points[[4, 5], column] = bad
    with pytest.raises(
        InputError, match=r"000000\.bin: 2 points hold NaN or infinite values, the first in row 4; .*drop_nonfinite"
    ):
        read_bin(written(tmp_path, points))


def test_nonfinite_points_can_be_left_out(tmp_path):
    points = np.arange(24, dtype=np.float32).reshape(6, 4)
    points[2, 1] = np.nan
    np.testing.assert_array_equal(read_bin(written(tmp_path, points), drop_nonfinite=True), points[[0, 1, 3, 4, 5]])


def test_finite_values_whose_sum_overflows_are_points(tmp_path):
    points = np.full((6, 4), 3e38, dtype=np.float32)
    np.testing.assert_array_equal(read_bin(written(tmp_path, points)), points)


def test_missing_file_is_an_input_error_with_its_name(tmp_path):
    with pytest.raises(InputError, match=r"absent\.bin: the points file is missing"):
        read_bin(tmp_path / "absent.bin")


def test_folder_in_place_of_a_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="a folder, not a file"):
        read_bin(tmp_path)
