"""KITTI's own frames: labels, calibration and points fit together."""

import numpy as np
import pytest
import torch

from lidistill.data.augment import Augmentation, ObjectNoise
from lidistill.data.object_database import build_database
from lidistill.data.training_frames import TrainingFrames
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.projection import camera_objects, image_boxes, in_view, project, to_camera
from lidistill.ops.kernels.points_in_boxes import count_points
from lidistill.types import collate
from tests.real.parity import with_centred_z

IMAGE_SIZES = {"000000": (1224, 370), "000001": (1242, 375)}


@pytest.fixture(scope="module")
def source(real_samples):
    return KittiData(str(real_samples("kitti", "training").parent), train_split="all").open("train")


@pytest.fixture(scope="module")
def frames(source):
    return [source[row] for row in range(len(source))]


def test_all_frames_are_found(source):
    assert len(source) == 12
    assert source.ids[0] == "000000"


def test_the_number_of_objects_is_that_of_the_labels(frames):
    labels = torch.cat([frame.boxes.labels for frame in frames])
    assert torch.bincount(labels, minlength=3).tolist() == [52, 2, 4]


def test_image_sizes_come_from_the_images(frames):
    for frame in frames:
        if frame.id in IMAGE_SIZES:
            assert frame.truth.calibration.image_size == IMAGE_SIZES[frame.id]


def test_points_are_finite_in_the_image_and_of_the_size_of_a_cropped_scan(frames):
    for frame in frames:
        assert 15_000 < len(frame.points) < 22_000
        assert torch.isfinite(frame.points).all()
        assert in_view(frame.truth.calibration, frame.points[:, :3].numpy()).all()
        assert 0 <= frame.points[:, 3].min() <= frame.points[:, 3].max() <= 1


def test_nearly_every_box_holds_points(frames):
    counts = torch.cat([count_points(frame.points, frame.boxes.geometry) for frame in frames])
    assert (counts > 0).float().mean() > 0.95
    assert counts.max() > 1500


def test_the_centre_of_a_box_projects_into_its_2d_box(frames):
    for frame in frames:
        calibration, objects = frame.truth.calibration, frame.truth.objects
        named = objects[np.isin(objects.names, ("Car", "Pedestrian", "Cyclist"))]
        pixels = project(calibration, to_camera(calibration, frame.boxes.geometry[:, :3].double().numpy()))
        whole = named.truncation < 0.15  # a truncated 2D box does not reach round the centre
        left, top, right, bottom = named.boxes_2d[whole].T
        u, v = pixels[whole].T
        assert ((left <= u) & (u <= right) & (top <= v) & (v <= bottom)).all(), frame.id


def test_boxes_that_mmdetection3d_read_go_back_to_the_numbers_of_the_label_file(reference, frames):
    """Its boxes of frame 000008 stand on their z. Label files have two decimals, so the right way back ends there."""
    with np.load(reference("checkpoints", "mmdet3d_pointpillars_kitti.npz"), allow_pickle=False) as stored:
        geometry = with_centred_z(stored["gt.boxes"].astype(np.float64))
    ends = [
        camera_objects(frame.truth.calibration, geometry, np.full(len(geometry), "Car")).locations for frame in frames
    ]
    off = [np.abs(end - end.round(2)).max() for end in ends]  # most frames of KITTI share that frame's calibration
    assert min(off) < 5e-6


def test_projected_boxes_fit_the_2d_labels(frames):
    gaps = []
    for frame in frames:
        objects = frame.truth.objects
        named = objects[np.isin(objects.names, ("Car", "Pedestrian", "Cyclist"))]
        projected, _ = image_boxes(frame.truth.calibration, frame.boxes.geometry.numpy())
        whole = named.truncation < 0.15
        gaps.append(np.abs(projected[whole] - named.boxes_2d[whole]))
    assert np.median(np.concatenate(gaps)) < 3
    assert np.concatenate(gaps).max() < 40


def test_real_frames_can_be_augmented_and_batched(source, frames):
    database = build_database(source)
    assert len(database) >= 0.95 * sum(len(frame.boxes) for frame in frames)
    dataset = TrainingFrames(
        source, Augmentation(object_noise=ObjectNoise()), database, source.spec.point_range, seed=0
    )
    batch = collate([dataset[0, row] for row in range(4)])
    assert batch.size == 4
    assert torch.isfinite(batch.points).all()
    for at, boxes in enumerate(batch.boxes):
        assert len(boxes) > 0
        held = count_points(batch.points[batch.batch_index == at], boxes.geometry) > 0
        assert held.float().mean() > 0.8
