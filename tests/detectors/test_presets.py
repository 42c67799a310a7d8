"""The published networks, their sizes, and their students'."""

from __future__ import annotations

import pytest

from lidistill.detectors import DETECTORS, WidthRule, count_parameters, preset
from lidistill.detectors.presets import PRESETS
from lidistill.types import InputError


def test_the_kitti_network_has_the_published_size_and_geometry():
    config = preset("pointpillars", "kitti")
    assert count_parameters(config.build()) == 4_834_888
    assert config.grid.shape == (432, 496, 1)
    assert (config.grid.max_points_per_voxel, config.grid.max_voxels_train, config.grid.max_voxels_eval) == (32, 16000, 40000)
    assert config.classes == ("Car", "Pedestrian", "Cyclist")


@pytest.mark.parametrize(("factor", "parameters"), [(4, 1_217_352), (16, 308_680)])
def test_students_of_the_kitti_network_have_the_published_sizes(factor, parameters):
    assert count_parameters(preset("pointpillars", "kitti").thinner(WidthRule.for_compression(factor)).build()) == parameters


@pytest.mark.parametrize("names", PRESETS)
def test_every_preset_builds_and_belongs_to_its_table(names):
    config = preset(*names)
    assert isinstance(config, DETECTORS[names[0]])
    assert set(config.build().tap_specs) >= {"encoder", "neck"}


@pytest.mark.parametrize("names", PRESETS)
def test_compression_keeps_everything_but_widths(names):
    teacher = preset(*names)
    student = teacher.thinner(WidthRule.for_compression(4))
    assert student.grid == teacher.grid
    assert student.classes == teacher.classes
    assert student.head == teacher.head
    assert count_parameters(student.build()) < 0.3 * count_parameters(teacher.build())
    assert teacher.thinner(WidthRule()) == teacher


def test_an_unknown_pair_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'pointpillars kitti'"):
        preset("pointpillar", "kitti")
