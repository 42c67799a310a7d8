import dataclasses

import numpy as np
import pytest
import torch

from lidistill.datasets import PROTOCOLS
from lidistill.datasets.kitti.metric import evaluate_objects
from lidistill.datasets.kitti.object_files import read_objects
from lidistill.datasets.kitti.projection import camera_objects, lidar_boxes
from lidistill.datasets.kitti.protocol import camera_detections
from lidistill.datasets.kitti.records import CameraCalibration, KittiTruth
from lidistill.evaluation.predict import Predictions
from lidistill.types import Boxes, Frame, InputError

CLASSES = ("Car", "Pedestrian")
CALIBRATION = CameraCalibration(
    image_from_camera=np.array([[700.0, 0, 620, 0], [0, 700, 187, 0], [0, 0, 1, 0]]),
    camera_from_lidar=np.array([[0.0, -1, 0, 0.05], [0, 0, -1, -0.1], [1, 0, 0, -0.3], [0, 0, 0, 1]]),
    image_size=(1242, 375),
)


def labelled(frame_id, geometry, labels):
    objects = camera_objects(CALIBRATION, geometry, np.array(CLASSES)[labels])
    visible = dataclasses.replace(
        objects, truncation=np.zeros(len(objects)), occlusion=np.zeros(len(objects), dtype=np.int64)
    )
    return Frame(frame_id, torch.zeros(0, 4), truth=KittiTruth(CALIBRATION, visible))


def found(geometry, labels, scores):
    return Boxes(
        torch.tensor(geometry, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float32),
    )


@pytest.fixture
def street():
    """60 frames of a car and a pedestrian, and what a detector that sees everything says of them."""
    rng = np.random.default_rng(0)
    frames, boxes = [], []
    for row in range(60):
        geometry = np.array(
            [
                [rng.uniform(10, 25), rng.uniform(-5, 5), -0.9, 3.9, 1.6, 1.5, rng.uniform(-3, 3)],
                [15, 7, -0.8, 0.8, 0.6, 1.8, 1],
            ]
        )
        frames.append(labelled(f"{row:06d}", geometry, [0, 1]))
        boxes.append(found(geometry, [0, 1], [0.9, 0.8]))
    return Predictions(tuple(frame.id for frame in frames), tuple(boxes), CLASSES), frames


def test_lidar_boxes_of_the_labels_score_100(street):
    predictions, frames = street
    scores, matches = PROTOCOLS["kitti"].evaluate(predictions, frames)
    assert scores.headline == pytest.approx(100)
    assert scores.values["strict/aos/Car/R40/easy"] == pytest.approx(100)
    assert scores.counts["Car/moderate"] == 60
    assert matches.frame_ids == predictions.frame_ids


def test_predictions_find_their_frames_by_name(street):
    predictions, frames = street
    scores, matches = PROTOCOLS["kitti"].evaluate(predictions, frames)
    turned, turned_matches = PROTOCOLS["kitti"].evaluate(predictions, iter(frames[::-1]))
    assert turned.values == pytest.approx(scores.values)
    assert turned_matches.frame_ids == matches.frame_ids[::-1]


def test_detections_outside_the_image_are_left_out(street):
    frame = street[1][0]
    behind, aside, ahead = [-10, 0, -1, 4, 2, 1.5, 0], [5, 40, -1, 4, 2, 1.5, 0], [20, 0, -1, 4, 2, 1.5, 0]
    rows = camera_detections(found([behind, aside, ahead], [0, 0, 1], [0.9, 0.8, 0.7]), CLASSES, frame)
    assert rows.names.tolist() == ["Pedestrian"]
    np.testing.assert_allclose(lidar_boxes(CALIBRATION, rows), [ahead], atol=1e-6)


def test_the_protocol_scores_what_its_camera_rows_score(street):
    predictions, frames = street
    shifted = tuple(
        dataclasses.replace(boxes, geometry=boxes.geometry + torch.tensor([0.2, 0.1, 0, 0, 0, 0, 0.05]))
        for boxes in predictions.boxes
    )
    moved = dataclasses.replace(predictions, boxes=shifted)
    rows = [camera_detections(boxes, CLASSES, frame) for boxes, frame in zip(shifted, frames, strict=True)]
    expected = evaluate_objects([frame.truth.objects for frame in frames], rows, CLASSES)
    scores, _ = PROTOCOLS["kitti"].evaluate(moved, frames)
    assert scores == expected
    assert 0 < scores.values["strict/aos/Car/R40/easy"] < 100


def test_no_detection_anywhere_scores_0(street):
    predictions, frames = street
    blind = dataclasses.replace(predictions, boxes=(Boxes.empty(with_scores=True),) * 60)
    assert PROTOCOLS["kitti"].evaluate(blind, frames)[0].headline == 0


def test_what_a_frame_lacks_is_named(street, tmp_path):
    predictions, frames = street

    def evaluate(truth=None, **changes):
        first = frames[0] if truth is None else dataclasses.replace(frames[0], truth=truth)
        return PROTOCOLS["kitti"].evaluate(dataclasses.replace(predictions, **changes), [first, *frames[1:]])

    with pytest.raises(InputError, match="frame 000000: no calibration"):
        evaluate(KittiTruth(None, frames[0].truth.objects))
    with pytest.raises(InputError, match="frame 000000: no labelled objects"):
        evaluate(KittiTruth(CALIBRATION, None))
    with pytest.raises(InputError, match="frame 000000: no labelled objects"):
        unlabelled = dataclasses.replace(frames[0], truth=KittiTruth(CALIBRATION, None))
        PROTOCOLS["kitti"].evaluate_foreign(tmp_path, predictions.classes, [unlabelled])
    with pytest.raises(InputError, match="frame 000000: no predictions"):
        evaluate(frame_ids=("other", *predictions.frame_ids[1:]))
    with pytest.raises(InputError, match="1 frames that are not in the split, such as other"):
        evaluate(frame_ids=(*predictions.frame_ids, "other"), boxes=(*predictions.boxes, predictions.boxes[0]))
    wild = dataclasses.replace(predictions.boxes[0], geometry=predictions.boxes[0].geometry * float("nan"))
    with pytest.raises(InputError, match="frame 000000: a detection is not finite"):
        evaluate(boxes=(wild, *predictions.boxes[1:]))


def test_real_labels_as_detections_hit_all_that_counts(real_samples):
    """Real labels, through LiDAR axes and back; with so few objects no recall step but the first few can be reached."""
    folder = real_samples("kitti", "training")
    frames, boxes, names = [], [], []
    for file in sorted((folder / "label_2").glob("*.txt")):
        lines = (folder / "calib" / file.name).read_text().splitlines()
        values = {
            key: np.array(row.split(), dtype=float)
            for key, row in (line.split(":", 1) for line in lines if ":" in line)
        }
        rectified, lidar = np.eye(4), np.eye(4)
        rectified[:3, :3], lidar[:3] = values["R0_rect"].reshape(3, 3), values["Tr_velo_to_cam"].reshape(3, 4)
        calibration = CameraCalibration(values["P2"].reshape(3, 4), rectified @ lidar, (1242, 375))
        objects = read_objects(file, scores=False)
        frames.append(Frame(file.stem, torch.zeros(0, 4), truth=KittiTruth(calibration, objects)))
        cars = objects[objects.names == "Car"]
        boxes.append(found(lidar_boxes(calibration, cars), [0] * len(cars), [0.9] * len(cars)))
        names.append(file.stem)
    scores, _ = PROTOCOLS["kitti"].evaluate(Predictions(tuple(names), tuple(boxes), ("Car",)), frames)
    reached = 100 * min(11, 1 + (scores.counts["Car/moderate"] - 1) // 4) / 11
    for metric in ("bev", "3d"):
        assert scores.values[f"strict/{metric}/Car/R11/moderate"] == pytest.approx(reached)
    # image boxes were drawn by hand, not projected
    assert scores.values["strict/bbox/Car/R11/moderate"] > 0.9 * reached
