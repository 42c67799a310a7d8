"""Simulated streets that move: what is written beside KITTI's files, and sweeps made of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.data.points_in_boxes import rows_inside
from lidistill.data.sweeps import SweptFrames
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.simulated import folder as simulated_folder
from lidistill.datasets.simulated.folder import write_folder
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.datasets.simulated.sequences import SequenceFrames, read_motion
from lidistill.simulate import Motion, SimulatorSettings, simulate_frame
from lidistill.types import InputError

MOVING = SimulatorSettings(
    sensor="kitti-lite", azimuth_step_deg=1.0, motion=Motion(num_frames=3, interval_s=0.2, ego_speed_m_s=(5.0, 9.0))
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    made = SimulatedData(root=str(root), train_frames=4, val_frames=3, seed=2, workers=1, simulator=MOVING)
    made.open("all")
    return made


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_frames_carry_what_the_simulator_knows(data):
    frames = data.open("train")
    assert isinstance(frames, SequenceFrames) and len(frames) == 4
    for index, frame in enumerate(frames):
        scan = simulate_frame(MOVING, 2, index)
        assert (frame.sequence, frame.time_s) == (f"{index // 3:06d}", pytest.approx(0.2 * (index % 3)))
        np.testing.assert_array_equal(frame.world_from_lidar.numpy(), scan.world_from_lidar)
        assert frame.world_from_lidar.dtype == torch.float64 and frame.boxes.velocity.dtype == torch.float32
        assert len(frame.boxes) > 0
        for box, velocity, label in zip(frame.boxes.geometry, frame.boxes.velocity, frame.boxes.labels, strict=True):
            row = np.linalg.norm(scan.objects.geometry[:, :3] - box[:3].numpy(), axis=1).argmin()
            assert scan.objects.names[row] == data.classes[label]
            np.testing.assert_allclose(velocity.numpy(), scan.objects.velocity[row], rtol=1e-6)


def test_some_labelled_objects_move_and_some_stand(data):
    speed = torch.cat([frame.boxes.velocity.norm(dim=1) for frame in data.open("all")])
    assert (speed > 1).any() and (speed == 0).any()


def test_velocities_follow_the_chosen_classes(data):
    of_cyclists = [frame.boxes for frame in data.with_classes(("Cyclist", "Car")).open("train")]
    for boxes, frame in zip(of_cyclists, data.open("train"), strict=True):
        for label, name in enumerate(("Cyclist", "Car")):
            expected = frame.boxes.velocity[frame.boxes.labels == data.classes.index(name)]
            assert torch.equal(boxes.velocity[boxes.labels == label], expected)


def test_no_street_is_in_both_splits(data):
    train, val = ({frame.sequence for frame in data.open(split)} for split in ("train", "val"))
    assert data.open("train").ids == ("000000", "000001", "000002", "000003")
    assert data.open("val").ids == (
        "000006",
        "000007",
        "000008",
    )  # 000004 and 000005 see a street of the training split
    assert not train & val


def test_other_tools_read_the_folder_as_kitti(data):
    frames = KittiData(root=data.root, train_split="all").open("train")
    assert frames.ids == data.open("all").ids
    for plain, moving in zip(frames, data.open("all"), strict=True):
        assert torch.equal(plain.points, moving.points) and torch.equal(plain.boxes.geometry, moving.boxes.geometry)


def test_a_folder_of_moving_streets_is_completed_and_whole_sequences_are_validated_on(tmp_path, monkeypatch):
    out = tmp_path / "kitti"
    write_folder(out, 10, MOVING, workers=1, val_share=0.3, progress=False)
    assert (out / "ImageSets/val.txt").read_text().split() == [f"{index:06d}" for index in (6, 7, 8, 9)]
    before = contents(out)
    assert sum(name.startswith("training/motion/") for name in before) == 10
    (out / "training/motion/000003.json").unlink()
    rendered = []
    monkeypatch.setattr(
        simulated_folder,
        "simulate_frame",
        lambda *arguments: rendered.append(arguments[2]) or simulate_frame(*arguments),
    )
    write_folder(out, 10, MOVING, workers=1, val_share=0.3, progress=False)
    assert rendered == [3] and contents(out) == before


def test_the_fingerprint_follows_the_motion_files(data):
    frames = data.open("train")
    before = frames.fingerprint()
    path = frames.frames.folder / "motion" / "000001.json"
    text = path.read_text()
    path.write_text(text + "\n")
    assert frames.fingerprint() != before
    path.unlink()
    without = frames.fingerprint()
    assert without != before
    with pytest.raises(InputError, match=r"000001\.json: the frame's motion is missing"):
        frames[1]
    path.write_text(text)
    assert frames.fingerprint() not in (before, without)  # written at another time


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"time_s": None}, "time_s is None, which is not a number within 1e.06; delete it"),
        ({"time_s": "soon"}, "time_s is 'soon', which is not a number within 1e"),
        ({"time_s": [1.0]}, "time_s is"),
        ({"sequence": 3}, "sequence is 3, which is not text"),
        ({"world_from_lidar": [[1, 0, 0, 0]] * 3}, "world_from_lidar is .*, which is not 4 x 4 numbers"),
        ({"world_from_lidar": [[1, 0, 0]] * 4}, "world_from_lidar is"),
        ({"world_from_lidar": [[1, 0, 0, None]] * 4}, "world_from_lidar is"),
        ({"world_from_lidar": "here"}, "world_from_lidar is 'here'"),
        ({"world_from_lidar": {"x": 1}}, "world_from_lidar is"),
        ({"velocities": [[1.0]]}, "velocities is .*, which is not N x 2 numbers"),
        ({"velocities": [[1.0, 2.0], [1.0]]}, "velocities is"),
        ({"velocities": 3}, "velocities is 3"),
        ({"velocities": [[1.0, 1e300]]}, "velocities is"),
        ({"velocities": []}, r"has 0 velocities for \d+ labels with a 3D box; delete it"),
        ("velocities", "has no velocities; delete it and open the dataset again"),
    ],
)
def test_a_damaged_motion_file_is_a_sentence_that_names_it(data, tmp_path, change, sentence):
    write_folder(tmp_path, 1, MOVING, seed=2, workers=1, progress=False)
    path = tmp_path / "training" / "motion" / "000000.json"
    content = json.loads(path.read_text())
    if isinstance(change, str):
        del content[change]
    else:
        content |= change
    path.write_text(json.dumps(content))
    frames = SequenceFrames(KittiData(root=str(tmp_path), train_split="all").open("train"))
    with pytest.raises(InputError, match=rf"000000\.json: {sentence}"):
        frames[0]


def test_the_motion_file_is_exact(data):
    scan = simulate_frame(MOVING, 2, 2)
    motion = read_motion(data.folder / "training" / "motion" / "000002.json")
    assert np.array_equal(motion.world_from_lidar, scan.world_from_lidar) and motion.time_s == scan.time_s


# Sweeps.


def test_sweeps_are_joined_where_the_settings_ask_for_them(data):
    swept = replace(data, sweeps=3)
    assert swept.spec == replace(data.spec, point_features=("intensity", "time")) and swept.folder == data.folder
    frames = swept.open("train")
    assert isinstance(frames, SweptFrames) and frames.spec == swept.spec
    single = data.open("train")
    assert [len(frame.points) for frame in frames] == [
        len(single[0].points),
        len(single[1].points) + len(single[0].points),
        sum(len(single[row].points) for row in range(3)),
        len(single[3].points),  # the next street
    ]
    assert frames[2].points[:, 4].unique().tolist() == pytest.approx([0.0, 0.2, 0.4])
    assert all(
        torch.equal(frame.points[: len(one.points), :4], one.points) for frame, one in zip(frames, single, strict=True)
    )


def test_sweeps_make_still_streets_move_by_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path))
    still = SimulatedData()
    swept = replace(still, sweeps=3)
    assert swept.streets == replace(still.simulator, motion=Motion()) and still.streets == still.simulator
    assert swept.folder not in (still.folder, replace(still, seed=1).folder)
    assert swept.folder == replace(still, sweeps=10).folder  # the scans are the same


def test_a_moving_object_trails_behind_by_velocity_times_age(data):
    """Its older points lie where it was then, not where it will be; other things may stand there."""
    settings = replace(MOVING, azimuth_step_deg=0.3, motion=replace(MOVING.motion, interval_s=0.5))
    made = replace(data, root=f"{data.root}-trails", train_frames=12, val_frames=0, simulator=settings, sweeps=3)
    behind = ahead = 0
    for frame in made.open("train"):
        for box, velocity in zip(frame.boxes.geometry, frame.boxes.velocity, strict=True):
            if velocity.norm() < 4:
                continue
            for age in frame.points[:, 4].unique()[1:]:
                points = frame.points[frame.points[:, 4] == age].numpy()
                then, later = box.clone(), box.clone()
                then[:2] -= age * velocity
                later[:2] += age * velocity
                was, will_be = rows_inside(points, torch.stack([then, later]).numpy())
                behind, ahead = behind + len(was), ahead + len(will_be)
    assert behind > 300 and behind > 4 * ahead


@pytest.mark.parametrize("sweeps", [0, -1, 101, 1.5])
def test_impossible_numbers_of_sweeps_are_errors(sweeps):
    with pytest.raises(InputError, match=r"data\.sweeps is"):
        SimulatedData(sweeps=sweeps)
