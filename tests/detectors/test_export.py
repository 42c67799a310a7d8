"""What an export traces: the dense part of a detector, and the pillar encoder on padded pillars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import preset
from lidistill.detectors.encoders.pillars import PillarEncoderConfig
from lidistill.types import InputError
from tests.detectors.small import small_batch, small_config

TRACED = ["pointpillars", "second", "centerpoint-pillar", "centerpoint-voxel"]


def trained(detector):
    """The detector with running statistics and norms that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(3)
    for module in detector.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for values, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.weight, -0.5)):
                values.data.copy_(torch.rand(values.shape, generator=generator) + low)
    return detector.eval()


def padded(voxels, slots):
    """(M, S, F) points of voxels, NaN behind the kept ones: nothing may read them."""
    points = torch.full((len(voxels.counts), slots, voxels.points.shape[1]), torch.nan)
    place = torch.cat([torch.arange(count) for count in voxels.counts.tolist()])
    points[voxels.voxel_index, place] = voxels.points
    return points.nan_to_num(nan=7e5)


@pytest.mark.parametrize("name", TRACED)
def test_the_dense_part_is_the_network_behind_the_encoder(name):
    detector = trained(preset(name, "simulated").build()).for_inference()
    batch = small_batch()
    with torch.no_grad():
        inputs = detector.prepare(batch)
        expected = detector(batch, inputs)
        found = detector.dense(detector.encoder(inputs)[1].dense())
    assert set(found) == {f"head.{i}.{name}" for i, head in enumerate(expected.heads) for name in head.maps}
    for index, head in enumerate(expected.heads):
        for part, values in head.maps.items():
            torch.testing.assert_close(found[f"head.{index}.{part}"], values, rtol=1e-4, atol=1e-4)


def test_torch_export_traces_the_dense_part():
    detector = trained(small_config().build()).for_inference()

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.detector = detector

        def forward(self, canvas):
            return self.detector.dense(canvas)

    width, height, _ = detector.grid.shape
    canvas = torch.randn(1, detector.config.encoder.map_channels(detector.grid), height, width)
    with torch.no_grad():
        program = torch.export.export(Dense(), (canvas,))
        expected, found = detector.dense(canvas), program.module()(canvas)
    assert expected
    for part, values in expected.items():
        torch.testing.assert_close(found[part], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (6,)])
@pytest.mark.parametrize("empty_slots", ["counted", "absent"])
@pytest.mark.parametrize("legacy", [False, True])
def test_padded_pillars_are_those_of_the_encoder(hidden, empty_slots, legacy):
    config = small_config()
    encoder = PillarEncoderConfig(8, legacy_features=legacy, hidden_channels=hidden, empty_slots=empty_slots)
    detector = trained(replace(config, encoder=encoder).build())
    voxels = detector.prepare(small_batch()).of_frame(0)
    assert (voxels.counts < config.grid.max_points_per_voxel).any()
    with torch.no_grad():
        expected = detector.encoder(voxels)[1].dense()
        exportable = detector.encoder.exportable()
        found = exportable(padded(voxels, config.grid.max_points_per_voxel), voxels.counts, voxels.coords)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_torch_export_traces_padded_pillars_for_any_number_of_them():
    detector = trained(small_config().build())
    voxels = detector.prepare(small_batch()).of_frame(0)
    given = (padded(voxels, detector.grid.max_points_per_voxel), voxels.counts, voxels.coords)
    pillars = torch.export.Dim("pillars", min=2, max=10_000)
    exportable = detector.encoder.exportable()
    program = torch.export.export(exportable, given, dynamic_shapes=({0: pillars},) * 3)
    fewer = tuple(values[:5] for values in given)
    torch.testing.assert_close(program.module()(*fewer), exportable(*fewer))


def test_pillars_padded_to_another_number_of_slots_are_refused():
    detector = small_config().build()
    with pytest.raises(InputError, match="pad to"):
        detector.encoder.exportable()(torch.zeros(3, 2, 4), torch.ones(3), torch.zeros(3, 4, dtype=torch.int64))


def test_a_sparse_encoder_says_that_it_cannot_be_exported():
    with pytest.raises(InputError, match="export only the dense part"):
        preset("second", "simulated").build().encoder.exportable()


def test_the_grid_of_the_export_is_that_of_the_encoder():
    exportable = small_config().build().encoder.exportable()
    grid = small_config().grid
    assert isinstance(grid, VoxelGrid)
    assert (exportable.width, exportable.height) == grid.shape[:2]
