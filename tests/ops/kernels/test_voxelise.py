"""Hard voxelisation."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lidistill.detector_inputs import VoxelGrid
from lidistill.ops.kernels import voxelise as kernel
from lidistill.ops.kernels.voxelise import padded, voxelise
from tests.reference import voxels as slow

GRID = VoxelGrid((-4, -3, -1, 4, 3, 1), (0.5, 0.5, 1), max_points_per_voxel=3, max_voxels_train=20, max_voxels_eval=100)


@pytest.fixture(autouse=True, params=["numpy", "torch"])
def form(request, monkeypatch):
    """Every test sees both forms: numpy's, which the CPU takes, and torch's, which other devices take."""
    if request.param == "torch":
        monkeypatch.setattr(kernel, "_is_for_packing", lambda *_: False)


def cloud(num, num_frames=1, seed=0, spread=5.0):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(0, 1, (num, 4)) * [spread / 3, spread / 3, 1, 1]).float()
    return points, torch.from_numpy(np.sort(rng.integers(num_frames, size=num)))


def assert_equals_twin(points, batch_index, batch_size, grid, training):
    result = voxelise(points, batch_index, batch_size, grid, training)
    cap = grid.max_voxels_train if training else grid.max_voxels_eval
    expected = slow.voxelise(points.numpy(), batch_index.numpy(), batch_size, grid, cap)
    assert result.coords.tolist() == [list(cell) for cell, _ in expected]
    assert result.counts.tolist() == [len(rows) for _, rows in expected]
    assert torch.equal(result.points, points[[row for _, rows in expected for row in rows]])
    assert result.voxel_index.tolist() == [number for number, (_, rows) in enumerate(expected) for _ in rows]
    return result


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_voxels_agree_with_the_slow_twin(training, num_frames):
    result = assert_equals_twin(*cloud(2000, num_frames), num_frames, GRID, training)
    assert result.counts.max() == GRID.max_points_per_voxel
    assert not training or len(result.counts) == num_frames * GRID.max_voxels_train


coordinate = st.sampled_from(
    [-4.0, -3.999, -3.5, -3.0, -1.0, 0.0, 0.25, 0.5, 0.999, 1.0, 2.999, 3.0, 3.5, 4.0, np.nan, np.inf, -np.inf, 1e30]
)
rows = st.lists(st.tuples(coordinate, coordinate, st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.just(7.0)), max_size=40)


@given(rows, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_voxels_of_any_points_agree_with_the_slow_twin(values, num_frames, max_points, max_voxels):
    grid = VoxelGrid((-4, -3, -1, 4, 3, 1), (0.5, 0.5, 1), max_points, max_voxels, max_voxels)
    points = torch.tensor(values, dtype=torch.float32).reshape(-1, 4)
    batch_index = torch.arange(len(points)) % num_frames  # frames interleaved
    assert_equals_twin(points, batch_index, num_frames, grid, True)


def test_voxels_by_hand():
    points = torch.tensor(
        [
            [0.1, 0.1, 0.1, 1],
            [3.9, 2.9, 0.9, 2],
            [0.2, 0.2, 0.2, 3],
            [0.3, 0.3, 0.3, 4],
            [0.4, 0.4, 0.4, 5],
            [9.0, 0, 0, 6],
        ]
    )
    result = voxelise(points, torch.zeros(6, dtype=torch.int64), 1, GRID, False)
    assert result.coords.tolist() == [[0, 1, 6, 8], [0, 1, 11, 15]]
    assert result.counts.tolist() == [3, 1]
    assert result.points[:, 3].tolist() == [1, 3, 4, 2]
    assert result.voxel_index.tolist() == [0, 0, 0, 1]


def test_a_full_frame_drops_new_voxels_but_fills_old_ones():
    grid = VoxelGrid((0, 0, 0, 4, 1, 1), (1, 1, 1), max_points_per_voxel=2, max_voxels_train=2, max_voxels_eval=9)
    points = torch.tensor([[x + 0.5, 0.5, 0.5] for x in (3, 1, 2, 3, 0, 1, 1)])
    batch_index = torch.zeros(7, dtype=torch.int64)
    assert voxelise(points, batch_index, 1, grid, True).coords[:, 3].tolist() == [3, 1]
    assert voxelise(points, batch_index, 1, grid, True).counts.tolist() == [2, 2]
    assert voxelise(points, batch_index, 1, grid, False).coords[:, 3].tolist() == [3, 1, 2, 0]


def test_the_cap_counts_each_frame_alone():
    points, _ = cloud(800, spread=9.0)
    both = voxelise(torch.cat([points, points]), torch.arange(2).repeat_interleave(800), 2, GRID, True)
    alone = voxelise(points, torch.zeros(800, dtype=torch.int64), 1, GRID, True)
    assert len(alone.counts) == GRID.max_voxels_train
    assert torch.equal(both.coords[:20, 1:], alone.coords[:, 1:]) and torch.equal(
        both.coords[20:, 1:], alone.coords[:, 1:]
    )
    assert torch.equal(both.coords[:, 0], torch.arange(2).repeat_interleave(20))


def test_cells_are_half_open():
    points = torch.tensor([[-4.0, -3, -1], [4.0, 0, 0], [0, 3.0, 0], [0, 0, 1.0], [-4.0001, 0, 0]])
    result = voxelise(points, torch.zeros(5, dtype=torch.int64), 1, GRID, False)
    assert result.coords.tolist() == [[0, 0, 0, 0]]


def test_points_with_a_bad_value_are_dropped():
    points = torch.zeros(7, 4)
    for row, (column, value) in enumerate(
        [(0, np.nan), (1, np.inf), (2, -np.inf), (3, np.nan), (3, np.inf), (0, 1e38)]
    ):
        points[row, column] = value
    result = voxelise(points, torch.zeros(7, dtype=torch.int64), 1, GRID, False)
    assert result.points.shape == (1, 4) and result.counts.tolist() == [1]


@pytest.mark.parametrize("batch_size", [0, 1, 3])
def test_no_points_make_no_voxels(batch_size):
    for points in (torch.zeros(0, 5), torch.full((4, 5), 100.0)):
        result = voxelise(points, torch.zeros(len(points), dtype=torch.int64), batch_size, GRID, True)
        assert result.coords.shape == (0, 4) and result.points.shape == (0, 5) and result.counts.shape == (0,)
        assert result.batch_size == batch_size and padded(result).shape == (0, 3, 5)


def test_a_frame_without_points_between_two_others():
    points, _ = cloud(50)
    result = assert_equals_twin(points, torch.tensor([0] * 20 + [2] * 30), 4, GRID, False)
    assert set(result.coords[:, 0].tolist()) == {0, 2}


def test_padding_holds_every_point_and_zeros_after_it():
    result = voxelise(*cloud(500, 2), 2, GRID, False)
    table = padded(result)
    filled = torch.arange(GRID.max_points_per_voxel) < result.counts[:, None]
    assert torch.equal(table[filled], result.points)
    assert (table[~filled] == 0).all() and (~filled).any()


def test_a_grid_of_more_cells_than_int32_counts():
    grid = VoxelGrid((-100, -100, -5, 100, 100, 5), (0.1, 0.1, 0.1), 5, 1000, 1000)  # as many as a grid may have
    assert 8 * math.prod(grid.shape) > 2**31
    points = (
        torch.rand(200, 4, dtype=torch.float64)
        .mul(torch.tensor([180.0, 180, 9, 1]))
        .sub(torch.tensor([90.0, 90, 4.5, 0]))
        .float()
    )
    assert_equals_twin(points, torch.arange(8).repeat_interleave(25), 8, grid, True)


def test_points_of_many_pieces_and_frames_agree_with_the_slow_twin(monkeypatch):
    monkeypatch.setattr(kernel, "POINTS_AT_ONCE", 64)
    points, _ = cloud(1000)
    assert_equals_twin(points, torch.arange(1000) % 3, 3, GRID, True)


def test_points_beyond_all_numbers_of_cells_are_outside():
    points = torch.tensor([[3e38, 0, 0, 1], [-3e38, 0, 0, 1], [0.1, 0.1, 0.1, 1]])
    assert len(voxelise(points, torch.zeros(3, dtype=torch.int64), 1, GRID, True).coords) == 1


def test_cells_and_rows_that_do_not_fit_side_by_side_are_told():
    grid = VoxelGrid((-100, -100, -5, 100, 100, 5), (0.1, 0.1, 0.1), 5, 1000, 1000)
    assert kernel.packing_fits(2**33 - 1, 2, grid)
    assert not kernel.packing_fits(2**33, 3, grid)


@pytest.mark.parametrize("num_points", [1, 100])
def test_arguments_are_left_alone(num_points):
    points, batch_index = cloud(num_points)
    before = points.clone(), batch_index.clone()
    padded(voxelise(points, batch_index, 1, GRID, True))
    assert torch.equal(points, before[0]) and torch.equal(batch_index, before[1])


def test_points_in_double_precision_have_the_cells_of_their_float32_values():
    points, batch_index = cloud(300)
    narrow, wide = (voxelise(values, batch_index, 1, GRID, False) for values in (points, points.double()))
    assert torch.equal(wide.points, narrow.points.double()) and torch.equal(wide.coords, narrow.coords)


PILLARS = VoxelGrid((0, -39.68, -3, 69.12, 39.68, 1), (0.16, 0.16, 4), 32, 16000, 40000)
SECOND = VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1), 5, 16000, 40000)
CENTERPOINT = VoxelGrid((-51.2, -51.2, -5, 51.2, 51.2, 3), (0.1, 0.1, 0.2), 10, 120000, 120000)


@pytest.mark.parametrize(
    ("name", "grid", "frame"),
    [
        ("mmdet3d_pointpillars_kitti", PILLARS, "kitti_000008"),
        ("openpcdet_pointpillar_kitti", PILLARS, "kitti_000008"),
        ("mmdet3d_second_kitti", SECOND, "kitti_000008"),
        ("openpcdet_centerpoint_voxel01_nus", CENTERPOINT, "nuscenes_demo"),
    ],
)
def test_voxels_of_real_frames_are_those_of_the_public_tools(reference, name, grid, frame):
    golden = np.load(reference("checkpoints", f"{name}.npz"), allow_pickle=False)
    points = torch.from_numpy(np.load(reference("checkpoints", "inputs", f"{frame}.npz"), allow_pickle=False)["points"])
    result = voxelise(points, torch.zeros(len(points), dtype=torch.int64), 1, grid, training=False)
    coords = np.ascontiguousarray(result.coords[:, 1:].numpy().astype(np.int32))
    assert np.array_equal(coords, golden["voxel.coords_zyx"])
    assert hashlib.sha256(coords.tobytes()).hexdigest() == str(golden["voxel.coords_sha256"])
    assert np.array_equal(result.counts.numpy(), golden["voxel.num_points"])
    # the pillar encoder of that mmdetection3d model overwrites x, y, z of its input with offsets before they are stored
    columns = slice(3, None) if name == "mmdet3d_pointpillars_kitti" else slice(None)
    table = padded(result).numpy()
    assert np.array_equal(table[:16, :, columns], golden["voxel.first16"][:, :, columns])
    assert np.allclose(table.sum(axis=(0, 1), dtype=np.float64)[columns], golden["voxel.sum"][columns], rtol=1e-9)
