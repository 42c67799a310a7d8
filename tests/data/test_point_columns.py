import numpy as np
import pytest

from lidistill.data.point_columns import check_columns
from lidistill.simulate import SimulatorSettings, simulate_frame
from lidistill.types import InputError


@pytest.fixture(scope="module")
def points():
    return simulate_frame(SimulatorSettings(sensor="kitti-lite"), seed=0, index=0).points.astype(np.float32)


def more(points, columns):
    """Points with ring, time and what else scanners add."""
    spare = np.stack(
        [np.arange(len(points)) // 500, np.linspace(0, 0.1, len(points)), np.ones(len(points)), np.zeros(len(points))],
        axis=1,
    )
    return np.concatenate([points, spare], axis=1)[:, :columns].astype(np.float32)


@pytest.mark.parametrize("order", ["as scanned", "shuffled"])
def test_points_of_four_values_pass(points, order):
    rows = np.random.default_rng(0).permutation(len(points)) if order == "shuffled" else slice(None)
    check_columns("scan.bin", points[rows])


@pytest.mark.parametrize("columns", [3, 5, 6])
def test_points_of_other_lengths_read_as_four_are_told(points, columns):
    values = more(points, columns).ravel()
    with pytest.raises(
        InputError, match=f"scan.bin: looks like {columns} values per point, not 4; give --columns {columns}"
    ):
        check_columns("scan.bin", values[: len(values) // 60 * 60].reshape(-1, 4))


def test_a_handful_of_points_says_nothing():
    check_columns("scan.bin", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    check_columns("scan.bin", np.zeros((0, 4), dtype=np.float32))


def test_real_scans_pass_and_tell_the_columns_of_others(real_samples):
    check_columns("waymo", np.fromfile(next(real_samples("kitti").rglob("velodyne/*.bin")), dtype="<f4").reshape(-1, 4))
    values = np.fromfile(next(real_samples("nuscenes").glob("*LIDAR_TOP*.bin")), dtype="<f4")
    with pytest.raises(InputError, match="looks like 5 values per point, not 4"):
        check_columns("nuscenes", values[: len(values) // 20 * 20].reshape(-1, 4))
