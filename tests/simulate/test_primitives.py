import numpy as np
import pytest

from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, Part, Pose, assemble, extent


def test_parts_are_turned_and_moved_with_their_thing():
    part = Part(BOX, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, yaw=0.25)
    primitives = assemble([(Pose(10.0, -3.0, -1.7, np.pi / 2), (part,), 4)])
    np.testing.assert_allclose(primitives.centre, [[9.0, -1.0, -1.2]])
    np.testing.assert_allclose(primitives.yaw, [np.pi / 2 + 0.25])
    np.testing.assert_allclose(primitives.half, [[0.3, 0.2, 0.1]])
    assert primitives.thing.tolist() == [4]


def test_all_columns_arrive_where_they_belong():
    part = Part(
        ELLIPSOID, 0, 0, 0, 1, 2, 3, reflectance=0.4, loss=0.5, density=0.6, yaw=0.7, front=0.8, rear=0.9, side=1.1
    )
    primitives = assemble([(Pose(0, 0, 0, 0), (part, part), -1)])
    assert len(primitives) == 2
    assert primitives.kind.tolist() == [ELLIPSOID] * 2
    assert (primitives.reflectance[0], primitives.loss[0], primitives.density[0], primitives.yaw[0]) == (
        0.4,
        0.5,
        0.6,
        0.7,
    )
    assert primitives.taper[1].tolist() == [0.8, 0.9, 1.1]


def test_nothing_assembles_to_no_row():
    primitives = assemble([])
    assert len(primitives) == 0
    assert primitives.centre.shape == (0, 3)


@pytest.mark.parametrize("kind", [BOX, CYLINDER, ELLIPSOID])
@pytest.mark.parametrize("yaw", [0.0, 0.5, 2.0, -1.2])
def test_the_extent_is_that_of_many_points_on_the_surface(kind, yaw):
    half = np.array([1.0, 0.3, 0.5])
    if kind == BOX:
        local = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3) * half
    else:
        angle = np.linspace(0, 2 * np.pi, 3001)
        ring = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)
        poles = np.array([[0, 0, 1.0], [0, 0, -1.0]])
        local = np.concatenate([ring, poles]) * half
    cos, sin = np.cos(yaw), np.sin(yaw)
    points = local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [2.0, -1.0, 0.7]
    found = extent([Part(kind, 2.0, -1.0, 0.7, *half, yaw=yaw)])
    np.testing.assert_allclose(found, np.stack([points.min(axis=0), points.max(axis=0)], axis=-1).ravel(), atol=1e-4)


def test_the_extent_below_a_height_leaves_out_what_hangs_above():
    trunk, crown = Part(CYLINDER, 0, 0, 1, 0.1, 0.1, 1), Part(ELLIPSOID, 0, 0, 4, 2, 2, 1.5)
    assert extent([trunk, crown]).x_max == 2
    assert extent([trunk, crown], below=1.9).x_max == 0.1
