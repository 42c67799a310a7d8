"""KITTI's tracking layout, from small folders and from a real drive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill.data.source import MissingSplit
from lidistill.datasets.kitti.frames import KittiFrames
from lidistill.datasets.kitti.tracking import KittiTrackingData
from lidistill.datasets.kitti.tracking_files import read_poses, read_track_labels
from lidistill.types import InputError
from tests.datasets.kitti.conftest import CAR, WALKER, KittiFolder
from tests.datasets.kitti.tracking_folder import LIDAR_FROM_IMU, oxts_row, write_sequence

IDS = ["000000", "000001", "000002"]


@pytest.fixture
def tracking(tmp_path) -> Path:
    """Sequence 0003 of three frames: a car and a walker; nothing; a car. Sequence 0004 of two."""
    folder = KittiFolder(tmp_path / "objects")
    folder.add("000000", np.array([CAR, WALKER]), ["Car", "Person_sitting"])
    folder.add("000001", np.zeros((0, 7)), [])
    folder.add("000002", np.array([CAR]), ["Car"])
    write_sequence(tmp_path / "tracking", "0003", folder.training, IDS)
    write_sequence(tmp_path / "tracking", "0004", folder.training, IDS[:2], speed_m_s=None)
    return tmp_path / "tracking"


def data(root: Path, **settings) -> KittiTrackingData:
    return KittiTrackingData(root=str(root), train_sequences=("0003",), val_sequences=("0004",), **settings)


def test_frames_are_those_of_the_object_layout(tracking, tmp_path):
    source = data(tracking).open("train")
    assert source.ids == ("0003_000000", "0003_000001", "0003_000002")
    objects = KittiFrames(tmp_path / "objects" / "training", IDS, source.spec)
    for frame, other in zip(source, objects, strict=True):
        assert torch.equal(frame.points, other.points)
        assert torch.equal(frame.boxes.geometry, other.boxes.geometry)
        assert torch.equal(frame.boxes.labels, other.boxes.labels)
        np.testing.assert_array_equal(frame.truth.objects.names, other.truth.objects.names)
    assert list(source[0].truth.objects.names) == ["Car", "Person_sitting"]


def test_frames_know_their_time_and_place(tracking):
    """The unit drives north at 5 m/s and turns; the LiDAR's axes are turned and moved against the unit's."""
    frames = list(data(tracking).open("train"))
    assert [frame.sequence for frame in frames] == ["0003"] * 3
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.1, 0.2])
    assert torch.equal(frames[0].world_from_lidar, torch.eye(4, dtype=torch.float64))
    imu_from_lidar = np.linalg.inv(LIDAR_FROM_IMU)
    for number, frame in enumerate(frames):
        cos, sin = np.cos(0.01 * number), np.sin(0.01 * number)
        ahead = np.array([[cos, -sin, 0, 0.5 * number], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        np.testing.assert_allclose(frame.world_from_lidar, LIDAR_FROM_IMU @ ahead @ imu_from_lidar, atol=1e-5)


def test_scans_of_a_drive_are_joined(tracking):
    swept = data(tracking, sweeps=2).open("train")
    assert swept.spec.point_features == ("intensity", "time")
    single = data(tracking).open("train")
    assert len(swept[1].points) == len(single[1].points) + len(single[0].points)
    assert swept[1].points[:, 4].unique().tolist() == pytest.approx([0.0, 0.1])


def test_without_an_oxts_file_frames_have_no_place(tracking):
    assert data(tracking).open("val")[0].world_from_lidar is None
    with pytest.raises(InputError, match="frame 0004_000001: has no pose"):
        data(tracking, sweeps=2).open("val")[1]


def test_splits_are_sequences(tracking):
    both = data(tracking)
    assert len(both.open("all")) == 5
    assert both.open("0004").ids == ("0004_000000", "0004_000001")
    with pytest.raises(InputError, match=r"has no sequence 0007 for the split '0007'; set the split to .* 0003, 0004"):
        both.open("0007")
    with pytest.raises(
        MissingSplit, match=r"has no sequence 0000, 0002, .* set data.train_sequences to some"
    ) as caught:
        KittiTrackingData(root=str(tracking)).open("train")
    assert caught.value.with_option.endswith(
        "give --split all, or --split with one of those that are there: 0003, 0004"
    )
    with pytest.raises(InputError, match="testing/velodyne: no such folder"):
        both.open("test")
    (tracking / "training").rename(tracking / "testing")
    assert both.open("test")[0].boxes is None


def test_scans_in_the_object_layout_are_told_from_sequences(tracking, tmp_path):
    with pytest.raises(InputError, match=r"velodyne: has no folder of a sequence; .* with kitti:.*objects"):
        data(tmp_path / "objects").open("train")


def test_a_missing_scan_leaves_the_others_where_they_are(tracking):
    (tracking / "training" / "velodyne" / "0003" / "000001.bin").unlink()
    first, last = data(tracking).open("train")
    assert (last.id, last.time_s) == ("0003_000002", pytest.approx(0.2))
    assert len(last.boxes) == 1
    assert not torch.equal(first.world_from_lidar, last.world_from_lidar)


def test_truncation_is_a_level_and_dont_care_has_no_size(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(
        "0 -1 DontCare -1 -1 -10 10 20 30 40 -1000 -1000 -1000 -1000 -1000 -1000 -10\n"
        "2 7 Car 1 2 0.1 10 20 30 40 1.5 1.6 3.9 1 2 20 0.3\n"
        "2 8 Person 2 0 0.1 10 20 30 40 1.3 0.6 0.8 1 2 20 0.3\n"
    )
    found = read_track_labels(path)
    assert sorted(found) == [0, 2]
    assert found[0].sizes.tolist() == [[-1, -1, -1]]
    assert list(found[2].names) == ["Car", "Person_sitting"]
    assert found[2].truncation.tolist() == [0.25, 0.7]
    assert found[2].occlusion.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 1 Car 0 0", r"labels.txt:1: 5 columns; a label row of the tracking benchmark has 17"),
        ("x 1 Car 0 0 0.1 10 20 30 40 1.5 1.6 3.9 1 2 20 0.3", "labels.txt:1: the frame is 'x'"),
        ("0 1 Car 0.5 0 0.1 10 20 30 40 1.5 1.6 3.9 1 2 20 0.3", "truncation is '0.5'; write one of the levels"),
        ("0 1 Cat 0 0 0.1 10 20 30 40 1.5 1.6 3.9 1 2 20 0.3", "labels.txt:1: unknown class 'Cat'; did you mean 'Car'"),
        ("0 1 Car 0 0 0.1 10 20 30 40 1.5 1.6 nan 1 2 20 0.3", "labels.txt:1: length is 'nan'; write a finite number"),
        ("0 1 Car 0 0 0.1 10 20 30 40 1.5 1.6 -1000 1 2 20 0.3", "labels.txt:1: length is -1000 m"),
    ],
)
def test_a_malformed_label_is_named(tmp_path, row, reason):
    path = tmp_path / "labels.txt"
    path.write_text(f"{row}\n")
    with pytest.raises(InputError, match=reason):
        read_track_labels(path)


@pytest.mark.parametrize("row", ["1 2 3", "north " + "0 " * 29, "nan " + "0 " * 29, "90 " + "0 " * 29])
def test_a_malformed_pose_is_named(tmp_path, row):
    path = tmp_path / "oxts.txt"
    path.write_text(f"{oxts_row(0, 1.0)}{row}\n")
    with pytest.raises(InputError, match=r"oxts.txt:2: not a row of 30 numbers"):
        read_poses(path)


def test_poses_for_fewer_frames_than_scans_are_refused(tracking):
    (tracking / "training" / "oxts" / "0003.txt").write_text(oxts_row(0, 1.0))
    with pytest.raises(InputError, match=r"0003.txt: 1 rows for scans up to number 2"):
        data(tracking).open("train")


def test_rotations_are_in_the_order_of_the_development_kit(tmp_path):
    """Rz(yaw) Ry(pitch) Rx(roll), by hand: with a pitch of a quarter turn down, forward is down."""
    path = tmp_path / "oxts.txt"
    for angles, forward in (
        ((0, 0, 0), (1, 0, 0)),
        ((0, 0, np.pi / 2), (0, 1, 0)),
        ((0.3, np.pi / 2, 1.0), (0, 0, -1)),
    ):
        path.write_text(" ".join(map(str, [49.0, 8.4, 112.0, *angles, *[0.0] * 24])) + "\n")
        np.testing.assert_allclose(read_poses(path)[0, :3, 0], forward, atol=1e-12)


def test_the_fingerprint_follows_labels_and_poses(tracking):
    before = data(tracking).open("train").fingerprint()
    for part in ("oxts", "label_02"):
        path = tracking / "training" / part / "0003.txt"
        path.write_text(path.read_text() + "\n")
        after = data(tracking).open("train").fingerprint()
        assert after != before
        before = after


def test_a_real_drive_reads_as_its_frames_in_the_object_layout(shared_drives, tmp_path):
    objects = shared_drives("tracking_0000", "training")
    ids = sorted(path.stem for path in (objects / "velodyne").iterdir())[:12]
    write_sequence(tmp_path, "0000", objects, ids)
    source = KittiTrackingData(root=str(tmp_path), train_sequences=("0000",)).open("train")
    frames = KittiFrames(objects, ids, source.spec)
    num_objects = 0
    for frame, other in zip(source, frames, strict=True):
        assert torch.equal(frame.points, other.points)
        assert torch.equal(frame.boxes.geometry, other.boxes.geometry)
        assert torch.equal(frame.boxes.difficulty, other.boxes.difficulty)
        num_objects += len(frame.boxes)
    assert num_objects > 10
