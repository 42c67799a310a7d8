"""The benchmark that trains on real frames: its rows, what it refuses, and the passage that shows its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lidistill import jobs
from lidistill.datasets.kitti.metric import match_frames
from lidistill.detectors.width import WidthRule
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import save_weights
from lidistill.types import InputError
from tests.datasets.kitti.conftest import CAR, WALKER, KittiFolder
from tests.datasets.kitti.tracking_folder import write_sequence
from tests.evaluation.kitti_scenes import objects
from tests.journeys.conftest import TINY

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("Car", "Pedestrian", "Cyclist")


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    """The folder of benchmarks as a place to import from."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def teacher(tmp_path) -> Path:
    """A run folder with random weights."""
    experiment = jobs.supervised("pointpillars", data="simulated", overrides=TINY)
    folder = RunFolder(tmp_path / "teacher")
    folder.write_experiment(experiment.to_dict())
    save_weights(folder.checkpoint, experiment.detector.build())
    return folder.path


@pytest.fixture
def kitti(tmp_path) -> KittiFolder:
    """A car in 000000, a walker in 000001, and the scan of 000000 again as 000002."""
    folder = KittiFolder(tmp_path / "kitti")
    points = folder.add("000000", np.array([CAR]), ["Car"])
    folder.add("000001", np.array([WALKER]), ["Pedestrian"])
    folder.add("000002", np.array([CAR]), ["Car"], points)
    return folder


def test_rows_differ_in_frames_labels_and_start(teacher, kitti):
    from train_on_real_frames import ROWS, experiments

    rows = experiments(teacher, kitti.root, kitti.root, 30, 1)
    base = jobs.load_run(teacher).experiment
    assert list(rows) == [name for name in ROWS if name != "both"]  # this teacher's streets are not the default ones
    assert {row.training.steps for row in rows.values()} == {30}
    assert {row.seed for row in rows.values()} == {1}
    tuned, alone, same, thinner = rows.values()
    assert tuned.detector == alone.detector == same.detector == base.detector
    assert thinner.detector == base.detector.thinner(WidthRule.for_compression(4))
    assert [row.initial_weights is not None for row in rows.values()] == [True, False, False, False]
    for row in (tuned, alone):
        assert row.augmentation.paste == dict.fromkeys(CLASSES, 15)
        assert row.distillation is None
    for row in (same, thinner):
        assert row.augmentation.paste == {}
        assert row.distillation.labelled_share == 0
        assert row.distillation.teacher_labels == 0.3
        assert row.distillation.initialise == "first"
        assert row.distillation.methods == ()
    rates = [row.training.learning_rate / base.training.learning_rate for row in rows.values()]
    assert rates == pytest.approx([0.1, 1, 0.1, 1])
    assert list(experiments(teacher, kitti.root, None, 30, 1)) == ["fine-tuned", "real-alone"]


def test_simulated_frames_can_be_mixed_in(tmp_path, kitti):
    from train_on_real_frames import experiments

    folder = RunFolder(tmp_path / "long")
    streets = f"simulated:{tmp_path / 'streets'}"
    experiment = jobs.supervised("pointpillars", data=streets)
    folder.write_experiment(experiment.to_dict())
    save_weights(folder.checkpoint, experiment.detector.build())
    kitti.list_frames("train.txt", ["000000", "000001"])
    both = experiments(folder.path, kitti.root, None, 30, 1)["both"]
    assert both.data.parts == (streets, f"kitti:{kitti.root}")
    assert both.data.repeats == (1, 600)  # 1200 simulated frames, two real ones
    assert both.augmentation.paste == {}
    assert both.initial_weights is not None


def test_a_drive_may_be_in_either_layout(teacher, kitti, tmp_path):
    from train_on_real_frames import drive_source

    write_sequence(tmp_path / "tracking", "0000", kitti.training, ["000000", "000001"], speed_m_s=None)
    for folder, count in ((kitti.root, 3), (tmp_path / "tracking", 2)):
        source, settings = drive_source(folder)
        data = jobs.supervised(str(teacher), data=source, overrides=settings).data
        assert len(data.open("train")) == len(data.open("val")) == count
    with pytest.raises(InputError, match="velodyne: no such folder"):
        drive_source(tmp_path)


def test_a_scan_is_not_trained_on_and_scored_under_two_names(kitti):
    from train_on_real_frames import check_apart

    from lidistill.datasets.kitti.frames import KittiData

    for name, ids in (("scored", ["000000"]), ("other", ["000001"]), ("same", ["000001", "000002"])):
        kitti.list_frames(f"{name}.txt", ids)
    data = KittiData(root=str(kitti.root))
    check_apart(data.open("scored"), {"other": data.open("other")})
    with pytest.raises(InputError, match="same would be trained on the scan 000002, which is 000000 of the list val"):
        check_apart(data.open("scored"), {"other": data.open("other"), "same": data.open("same")})


def test_runs_of_another_teacher_or_other_frames_are_not_mixed(teacher, kitti, tmp_path):
    from train_on_real_frames import check_inputs

    from lidistill.datasets.kitti.frames import KittiData

    frames = KittiData(root=str(kitti.root)).open("all")
    check_inputs(tmp_path / "work", teacher, frames)
    check_inputs(tmp_path / "work", teacher, frames)
    kitti.add("000003", np.array([CAR]), ["Car"])
    with pytest.raises(InputError, match="work: was made with another frames"):
        check_inputs(tmp_path / "work", teacher, KittiData(root=str(kitti.root)).open("all"))


def test_a_class_that_is_never_detected_is_known_as_such():
    from bench_real_kitti import is_detected

    truths = [objects(("Car", {}), ("Pedestrian", {}))]
    matches = match_frames(truths, [objects(("Car", {}), scores=[0.9])], CLASSES, ["000000"])
    assert is_detected(matches, "strict/3d/Car/R40/moderate")
    assert not is_detected(matches, "strict/3d/Pedestrian/R40/moderate")


KEYS = [f"{score}/Car/R40/moderate" for score in ("strict/bev", "loose/3d", "strict/3d")]


def figures(parameters: int, **training) -> dict:
    """The recorded figures of one run."""
    return {
        "seed": 0,
        "range_m": 32.0,
        "objects": 9,
        "objects_in_range": 7,
        "ap": {key: [40.0 + row, 30.0, 50.0] for row, key in enumerate(KEYS)},
        "box_errors": {"Car": {"boxes": 5, "along": [0.125, 0.2], "length": [-0.25, 0.1]}},
        "false_positives": {"Car": {"background": 3, "duplicate": 1}},
        "training": {"data": {}, "steps": 800, "learning_rate": 6e-4, "parameters": parameters, **training},
    }


def test_the_passage_shows_every_run_its_gain_and_its_conditions(monkeypatch):
    import passages

    tuned = figures(1234, frames=56, labels="recorded", initial_weights="those of the teacher")
    blind = figures(56, frames=154, labels="detections of the teacher", initial_weights="random")
    results = {
        "frames": 36,
        "objects": {"Car": 178},
        "score_threshold": 0.3,
        "runs": {
            "simulated": figures(1234, data={"version": "simulator 3"}),
            "tuned": {**tuned, "gain": {key: [4.0, -1.0, 9.0] for key in KEYS}},
            "blind": {**blind, "gain": {}, "box_errors": {"Car": {"boxes": 0}}},
        },
    }
    monkeypatch.setattr(passages, "read", lambda name: ({"real_training": results}[name], "somewhere"))
    text = passages.with_passages("<!-- measured: real_training -->\n<!-- end -->\n", "simulator.md")
    scores, _, conditions = text.split("\n\n")
    rows = [line.split(" | ") for line in scores.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == [
        "| simulated",
        "| tuned",
        "| gain of tuned over simulated",
        "| blind",
        "| gain of blind over simulated",
    ]
    for table in (scores, conditions):
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1
    assert rows[1][1:] == ["32 m", *(f"{40 + row}.0 (30.0 to 50.0)" for row in range(3)), "0.12 m", "-0.25 m", "4 |"]
    assert rows[3][2] == "+4.0 (-1.0 to +9.0)"
    assert rows[4][5:7] == rows[5][2:4] == ["–", "–"]
    assert conditions.splitlines()[2:5] == [
        "| simulated | 1,234 | – | frames of simulator 3 | simulated | 800 | 0.0006 |",
        "| tuned | 1,234 | those of the teacher | 56 real frames | recorded | 800 | 0.0006 |",
        "| blind | 56 | random | 154 real frames | detections of the teacher | 800 | 0.0006 |",
    ]
    said = " ".join(text.split())
    assert "36 frames, with 178 cars" in said
    assert "of 178 labelled objects, 7 within 32 m" in said
