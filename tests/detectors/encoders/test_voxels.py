"""The sparse encoder against the same network on a dense grid, its sites counted by hand, and voxels that few layers
expect.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid, Voxels
from lidistill.detectors.encoders.voxels import SparseEncoder, SparseEncoderConfig, flattened, points_under, voxel_means
from lidistill.detectors.norms import RowNorm
from lidistill.detectors.width import WidthRule
from lidistill.ops.kernels.sparse_convolution import densified
from lidistill.ops.kernels.voxelise import voxelise
from lidistill.types import InputError
from tests.reference.sparse_encoder import dense_encoder

GRID = VoxelGrid((0.0, -0.6, -3.0, 1.6, 0.6, 1.0), (0.05, 0.05, 0.1), max_points_per_voxel=5)  # 32 x 24 x 40
PLAIN = SparseEncoderConfig(stage_channels=(4, 6, 8, 8), channels=10)
RESIDUAL = SparseEncoderConfig(
    "residual", stage_channels=(4, 6, 8, 12), stage_blocks=(2, 2, 2, 2), channels=10, bias=True
)
KINDS = {"plain": PLAIN, "residual": RESIDUAL, "residual without bias": replace(RESIDUAL, bias=False)}


def cloud(seed: int = 0, num_points: int = 120, frames: int = 2, grid: VoxelGrid = GRID) -> Voxels:
    """Points in a few clumps, so that voxels have neighbours, on a grid as the detector would make it."""
    draw = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(grid.point_range[:3]), torch.tensor(grid.point_range[3:])
    clumps = torch.rand(8, 3, generator=draw) * (high - low) + low
    places = clumps[torch.randint(8, (num_points,), generator=draw)] + 0.08 * torch.randn(num_points, 3, generator=draw)
    points = torch.cat([places, torch.rand(num_points, 1, generator=draw)], dim=1)
    return voxelise(points, torch.arange(num_points) * frames // num_points, frames, grid, training=True)


def voxels_at(*coords: tuple[int, int, int, int], counts: tuple[int, ...] | None = None, batch_size: int = 1) -> Voxels:
    """Voxels at coords (batch z y x) whose points lie in their middle."""
    table = torch.tensor(coords, dtype=torch.int64).reshape(-1, 4)
    number = torch.ones(len(table), dtype=torch.int64) if counts is None else torch.tensor(counts)
    rows = torch.repeat_interleave(torch.arange(len(table)), number)
    middle = torch.tensor(GRID.point_range[:3]) + (table[rows][:, [3, 2, 1]] + 0.5) * torch.tensor(GRID.voxel_size)
    return Voxels(torch.cat([middle, torch.full((len(rows), 1), 0.5)], dim=1), rows, number, table, GRID, batch_size)


def encoder_of(config: SparseEncoderConfig, training: bool = True) -> SparseEncoder:
    """In double precision, with statistics and scales that no layer can ignore."""
    torch.manual_seed(1)
    encoder = config.build(GRID, 1).double().train(training)
    for module in encoder.modules():
        if isinstance(module, RowNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    return encoder


def double(voxels: Voxels) -> Voxels:
    return replace(voxels, points=voxels.points.double())


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_its_dense_twin(kind, training):
    encoder, voxels = encoder_of(KINDS[kind], training), double(cloud())
    dense, mask = dense_encoder(encoder, voxels)
    rows, canvas = encoder(voxels)
    canvas = canvas.dense()
    torch.testing.assert_close(canvas, dense.flatten(1, 2), rtol=1e-9, atol=1e-9)
    assert canvas.shape == (2, 10 * 2, 3, 4)
    assert len(rows.features) == int(mask.sum()) > 10
    assert rows.features.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_those_of_the_dense_twin(kind):
    encoder, voxels = encoder_of(KINDS[kind]), double(cloud())
    pull = torch.randn(2, 20, 3, 4, dtype=torch.float64)
    points = voxels.points.clone().requires_grad_()
    wanted = [points, *encoder.parameters()]
    voxels = replace(voxels, points=points)
    expected = torch.autograd.grad((dense_encoder(encoder, voxels)[0].flatten(1, 2) * pull).sum(), wanted)
    given = torch.autograd.grad((encoder(voxels)[1].dense() * pull).sum(), wanted)
    for ours, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


def test_the_map_has_channels_outside_and_height_inside():
    """Channel c of layer d is c * depth + d, as the published trunks expect it."""
    encoder = encoder_of(PLAIN, training=False)
    rows, canvas = encoder(double(cloud()))
    canvas = canvas.dense()
    sites = encoder.index_maps(cloud())[1].coords
    for row in (0, len(sites) // 2, len(sites) - 1):
        batch, depth, y, x = sites[row].tolist()
        assert torch.equal(canvas[batch, depth::2, y, x], rows.features[row])


def test_the_flat_map_is_the_dense_one_with_its_layers_inside_the_channels():
    rows, _ = encoder_of(PLAIN, training=False)(double(cloud()))
    sites = encoder_of(PLAIN).index_maps(cloud())[1]
    canvas = flattened(rows.features, sites).dense()
    assert torch.equal(canvas, densified(rows.features, sites).flatten(1, 2))
    assert canvas.is_contiguous(memory_format=torch.channels_last)


def test_a_voxels_feature_is_the_mean_of_its_points_in_every_column():
    points = torch.tensor([[0.01, 0.02, 0.0, 0.2], [0.03, 0.0, 0.05, 0.6], [1.0, 0.1, -1.0, 0.1]])
    voxels = voxelise(points, torch.zeros(3, dtype=torch.int64), 1, GRID, training=True)
    torch.testing.assert_close(voxel_means(voxels), torch.tensor([[0.02, 0.01, 0.025, 0.4], [1.0, 0.1, -1.0, 0.1]]))


def test_the_published_grid_has_two_layers_and_256_channels():
    grid = VoxelGrid((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1))
    config = SparseEncoderConfig()
    assert (config.stride, config.depth(40), config.map_channels(grid)) == (8, 2, 256)
    assert config.paddings == ((1, 1, 1), (1, 1, 1), (0, 1, 1))


def test_sites_of_a_single_voxel_counted_by_hand():
    """An even index has one site below it after a strided convolution with padding, an odd one two."""
    encoder = encoder_of(PLAIN, training=False)
    levels, last, _ = encoder.index_maps(voxels_at((0, 16, 8, 8)))
    assert [level.sites.coords.tolist() for level in levels] == [
        [[0, 16, 8, 8]],
        [[0, 8, 4, 4]],
        [[0, 4, 2, 2]],
        [[0, 1, 1, 1], [0, 2, 1, 1]],  # along z without padding, site o sees 2 o to 2 o + 2
    ]
    assert last.coords.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    levels, _, _ = encoder.index_maps(voxels_at((0, 16, 8, 9)))
    assert levels[1].sites.coords.tolist() == [[0, 8, 4, 4], [0, 8, 4, 5]]


def test_positions_are_the_middle_of_what_a_site_sees():
    encoder = encoder_of(PLAIN, training=False)
    centres = encoder.receptive_centres(torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]]))
    # along x and y, site 0 looks at voxel 0; along z, its middle is voxel 12 and the next one's voxel 28
    expected = torch.tensor(
        [[0.025, -0.575, -3.0 + 12.5 * 0.1], [0.025 + 3 * 0.4, -0.575 + 2 * 0.4, -3.0 + 28.5 * 0.1]]
    )
    torch.testing.assert_close(centres, expected)


@pytest.mark.parametrize(
    ("axis", "cells", "site", "middle", "reach"),
    [(1, 41, [0, 0, 1, 1], 12, 15), (1, 41, [0, 1, 1, 1], 28, 15), (3, 32, [0, 0, 1, 2], 16, 7)],
)
def test_a_site_sees_as_far_to_both_sides_of_its_middle(axis, cells, site, middle, reach):
    encoder = encoder_of(PLAIN, training=False)
    seen = []
    for index in range(cells):
        place = [0, 12 if site[1] == 0 else 28, 8, 8]
        place[axis] = index
        if site in encoder.index_maps(voxels_at(tuple(place)))[1].coords.tolist():
            seen.append(index)
    assert seen == list(range(max(0, middle - reach), min(cells, middle + reach + 1)))


def test_each_point_is_counted_at_one_site():
    encoder = encoder_of(PLAIN, training=False)
    voxels = voxels_at(
        (0, 3, 8, 8), (0, 15, 15, 15), (0, 16, 8, 8), (0, 39, 8, 9), (1, 0, 0, 0), counts=(1, 2, 3, 4, 5), batch_size=2
    )
    rows, _ = encoder(double(voxels))
    sites = encoder.index_maps(voxels)[1]
    counted = {
        tuple(site): count for site, count in zip(sites.coords.tolist(), rows.occupancy.tolist(), strict=True) if count
    }
    assert counted == {(0, 0, 1, 1): 3, (0, 1, 1, 1): 7, (1, 0, 0, 0): 5}


@pytest.mark.parametrize("seed", range(5))
def test_no_point_is_left_out_of_the_counts(seed):
    voxels = cloud(seed, num_points=200)
    encoder = encoder_of(PLAIN)
    sites = encoder.index_maps(voxels)[1]
    assert int(points_under(voxels, sites, 8).sum()) == int(voxels.counts.sum())


def test_rows_are_in_the_order_of_the_frames():
    rows, _ = encoder_of(PLAIN)(double(cloud()))
    assert (rows.batch_index.diff() >= 0).all()
    assert rows.batch_index.unique().tolist() == [0, 1]
    assert rows.features.shape == (len(rows.positions), 10)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_do_not_disturb_each_other_in_evaluation(kind):
    encoder, together = encoder_of(KINDS[kind], training=False), double(cloud())
    canvas = encoder(together)[1].dense()
    for frame in (0, 1):
        mine = together.coords[:, 0] == frame
        index = torch.cumsum(mine, 0) - 1
        coords = together.coords[mine].clone()
        coords[:, 0] = 0
        of_points = mine[together.voxel_index]
        alone = Voxels(
            together.points[of_points], index[together.voxel_index[of_points]], together.counts[mine], coords, GRID, 1
        )
        torch.testing.assert_close(encoder(alone)[1].dense()[0], canvas[frame])


def test_moving_the_scene_by_the_stride_moves_the_map_by_a_cell():
    encoder = encoder_of(PLAIN, training=False)
    place = [(0, 12, 5, 6), (0, 13, 6, 6), (0, 14, 6, 7)]
    near, far = voxels_at(*place), voxels_at(*[(b, z, y + 8, x + 16) for b, z, y, x in place])
    far = replace(far, points=near.points)  # the features know their place, so they are kept
    first, second = encoder(double(near))[1].dense(), encoder(double(far))[1].dense()
    assert first.abs().sum() > 0
    torch.testing.assert_close(second[:, :, 1:3, 2:4], first[:, :, 0:2, 0:2])


HARD = {
    "no voxel": voxels_at(),
    "no voxel in three frames": voxels_at(batch_size=3),
    "one voxel": voxels_at((0, 12, 8, 8)),
    "a voxel at the lowest corner": voxels_at((0, 0, 0, 0)),
    "a voxel at the highest corner": voxels_at((0, 39, 23, 31)),
    "all in the last frame": voxels_at((2, 12, 8, 8), (2, 12, 8, 9), (2, 13, 9, 9), batch_size=3),
    "two voxels far apart": voxels_at((0, 1, 1, 1), (0, 38, 22, 30)),
    "two like each other": voxels_at((0, 12, 8, 8), (1, 12, 8, 8), batch_size=2),
}


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize("name", HARD)
def test_hard_voxels_give_finite_maps_gradients_and_statistics(name, kind, training):
    encoder = KINDS[kind].build(GRID, 1).train(training)
    rows, canvas = encoder(HARD[name])
    canvas = canvas.dense()
    assert canvas.shape == (HARD[name].batch_size, 20, 3, 4)
    assert canvas.isfinite().all()
    (canvas.sum() + rows.features.sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
    assert all(value.isfinite().all() for value in encoder.state_dict().values())
    assert (rows.features.shape, rows.positions.shape) == ((len(rows.occupancy), 10), (len(rows.occupancy), 3))
    if len(HARD[name].counts) == 0:
        assert not canvas.any()


def test_training_on_nothing_changes_no_statistics():
    encoder = PLAIN.build(GRID, 1).train()
    before = copy.deepcopy(encoder.state_dict())
    encoder(HARD["no voxel"])
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_single_row_is_normalised_with_the_running_statistics():
    norm = RowNorm(3).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    row = torch.tensor([[3.0, 2.0, 2.5]])
    torch.testing.assert_close(norm(row), torch.tensor([[1.0, 0.0, -1.0]]), rtol=1e-2, atol=1e-3)
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]


def test_rows_are_normalised_as_by_batch_norm():
    ours, theirs = RowNorm(5), torch.nn.BatchNorm1d(5, eps=1e-3, momentum=0.01)
    rows = torch.randn(40, 5) * 3 + 1
    torch.testing.assert_close(ours(rows), theirs(rows))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_half_precision_around_the_encoder_changes_nothing():
    encoder, voxels = PLAIN.build(GRID, 1).eval(), cloud()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder(voxels)[1].dense()
    assert inside.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(inside, encoder(voxels)[1].dense())


def test_the_order_of_the_voxels_is_irrelevant():
    encoder, voxels = encoder_of(RESIDUAL, training=False), double(cloud(frames=1))
    order = torch.randperm(len(voxels.counts))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    index, rows = torch.sort(place[voxels.voxel_index], stable=True)
    shuffled = replace(
        voxels, points=voxels.points[rows], voxel_index=index, counts=voxels.counts[order], coords=voxels.coords[order]
    )
    torch.testing.assert_close(encoder(shuffled)[1].dense(), encoder(voxels)[1].dense())


def test_names_of_the_weights_are_those_that_importers_know():
    names = {name for name in PLAIN.build(GRID, 1).state_dict() if name.endswith("conv.weight")}
    blocks = {0: 2, 1: 3, 2: 3, 3: 3}
    assert names == {
        f"stages.{stage}.{index}.conv.weight" for stage, count in blocks.items() for index in range(count)
    } | {"output.conv.weight"}
    names = {name for name in RESIDUAL.build(GRID, 1).state_dict() if ".conv." in name}
    halves = {
        f"stages.{s}.{i}.{half}.conv.{kind}"
        for s in range(4)
        for i in (1, 2)
        for half in ("first", "second")
        for kind in ("weight", "bias")
    }
    assert names == halves | {f"stages.{stage}.0.conv.weight" for stage in range(4)} | {"output.conv.weight"}
    assert PLAIN.build(GRID, 1).stages[1][0].conv.weight.shape == (27, 4, 6)
    assert PLAIN.build(GRID, 1).output.conv.weight.shape == (3, 8, 10)


RESIDUAL_NUSCENES = SparseEncoderConfig("residual", (16, 32, 64, 128), (2, 2, 2, 2), bias=True)


@pytest.mark.parametrize(
    ("name", "prefix", "config", "features"),
    [
        ("mmdet3d_second_kitti", "middle_encoder.", SparseEncoderConfig(), 1),
        ("openpcdet_second_kitti", "backbone_3d.", SparseEncoderConfig(), 1),
        ("openpcdet_centerpoint_waymo", "backbone_3d.", SparseEncoderConfig(), 2),
        ("openpcdet_centerpoint_voxel01_nus", "backbone_3d.", RESIDUAL_NUSCENES, 2),
        ("mmdet3d_centerpoint_voxel01_nus", "pts_middle_encoder.", replace(RESIDUAL_NUSCENES, bias=False), 2),
    ],
)
def test_layers_are_those_of_the_published_networks(reference, name, prefix, config, features):
    keys = json.loads(reference("checkpoints", f"{name}.keys.json").read_text(encoding="utf-8"))
    published = sorted(math.prod(entry[0]) for key, entry in keys.items() if key.startswith(prefix))
    grid = VoxelGrid((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1))
    assert sorted(value.numel() for value in config.build(grid, features).state_dict().values()) == published


def test_students_have_the_published_widths():
    teacher = SparseEncoderConfig()
    four, sixteen = (teacher.thinner(WidthRule.for_compression(factor)) for factor in (4, 16))
    assert (four.stage_channels, four.channels) == ((8, 16, 32, 32), 64)
    assert (sixteen.stage_channels, sixteen.channels) == ((4, 8, 16, 16), 32)
    assert teacher.thinner(WidthRule(encoder=0.75)).stage_channels == (12, 24, 48, 48)
    assert RESIDUAL.thinner(WidthRule.for_compression(4)).kind == "residual"


def test_a_grid_too_flat_is_refused_with_the_smallest_that_fits():
    flat = VoxelGrid((0.0, -0.6, -3.0, 1.6, 0.6, 1.0), (0.05, 0.05, 0.4))
    with pytest.raises(
        InputError,
        match=r"10 cells along z are too few .* needs 24; set the voxel height to 0\.166667 m or .* z to 6\.6 m",
    ):
        PLAIN.check_grid(flat)
    PLAIN.check_grid(replace(flat, point_range=(0.0, -0.6, -3.0, 1.6, 0.6, 6.6)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage_blocks": (1, 2)}, "stage_blocks has 2 entries for 4 stages"),
        ({"channels": 0}, "encoder.channels is 0; give 1 or more"),
        ({"stage_channels": (4, 0, 8, 8)}, "encoder.stage_channels.1 is 0; give 1 or more"),
        ({"stage_channels": (), "stage_blocks": ()}, r"encoder.stage_channels is \(\); give at least 1 of them"),
        ({"stage_blocks": (1, -1, 2, 2)}, "encoder.stage_blocks.1 is -1; give 0 or more"),
        ({"kind": "dense"}, "kind is 'dense'; use one of plain, residual"),
        ({"bias": True}, "only residual blocks have a bias"),
    ],
)
def test_settings_that_make_no_network_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(PLAIN, **change)
