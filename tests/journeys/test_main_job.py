"""Simulate, train, distil, evaluate, predict, report: each step reads what the one before wrote."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill import jobs
from lidistill.datasets import PROTOCOLS
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.object_files import write_objects
from lidistill.datasets.kitti.projection import camera_objects
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.detectors import WidthRule, count_parameters
from lidistill.evaluation.predict import Predictions
from lidistill.files import write_text
from lidistill.half_precision import settled
from lidistill.jobs.evaluation import evaluate_predictions
from lidistill.jobs.trained_runs import load_run
from lidistill.report.render.page import write_report
from lidistill.run_folder import RunFolder, read_json
from lidistill.simulate import SIMULATOR_VERSION
from lidistill.training.checkpoint import read_weights
from lidistill.types import InputError
from tests.journeys.conftest import TINY


def test_a_run_folder_describes_itself(journey):
    folder = RunFolder(journey.student)
    for path in (
        folder.checkpoint,
        folder.resume,
        folder.log,
        folder.predictions,
        folder.matches,
        folder.scores,
        folder.profile,
        folder.samples,
    ):
        assert path.is_file(), path
    content = folder.read_experiment()
    assert content["role"] == "distilled"
    assert [method["name"] for method in content["distillation"]["methods"]] == ["pointdistiller", "logits", "fitnets"]
    assert content["provenance"]["device"]
    scores = read_json(folder.scores)
    assert {
        "dataset",
        "simulated",
        "split",
        "frames",
        "protocol",
        "seed",
        "commit",
        "device",
        "main",
        "values",
    } <= scores.keys()
    assert scores["simulated"] is True
    assert scores["frames"] == 6


def test_the_exported_student_is_the_plain_student_and_nothing_more(journey):
    plain, student = (
        read_weights(RunFolder(journey.plain).checkpoint),
        read_weights(RunFolder(journey.student).checkpoint),
    )
    assert {key: value.shape for key, value in plain.items()} == {key: value.shape for key, value in student.items()}
    assert any(not torch.equal(plain[key], student[key]) for key in plain)
    config = jobs.load_run(journey.teacher).experiment.detector.thinner(WidthRule.for_compression(4))
    assert config.build().state_dict().keys() == student.keys()


def test_plain_and_distilled_student_start_from_the_same_weights_and_frames(journey):
    losses = [RunFolder(path).read_log()[0] for path in (journey.plain, journey.student)]
    assert losses[0]["step"] == losses[1]["step"] == 1
    assert losses[0]["loss/class"] == pytest.approx(losses[1]["loss/class"], rel=1e-5)


def test_every_term_of_every_method_is_logged(journey):
    names = RunFolder(journey.student).read_log()[0].keys()
    for method in ("pointdistiller", "logits", "fitnets"):
        assert any(name.startswith(f"loss/{method}/") for name in names)


def test_distillation_leaves_the_teacher_as_it_was(journey, tmp_path):
    before = read_weights(RunFolder(journey.teacher).checkpoint)
    teacher = jobs.load_run(journey.teacher)
    assert all(torch.equal(value, teacher.detector.state_dict()[key]) for key, value in before.items())


def test_evaluating_again_gives_the_same_scores(journey, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(journey.student, copy)
    before = read_json(RunFolder(copy).scores)["values"]
    assert dict(jobs.evaluate(copy, device="cpu").values) == before


def test_scores_of_another_split_leave_those_of_the_run_alone(journey, tmp_path):
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(journey.student, copy.path)
    before = {path.name: path.read_bytes() for path in copy.path.iterdir() if path.is_file()}
    jobs.evaluate(copy.path, split="train", device="cpu")
    assert {path.name: path.read_bytes() for path in copy.path.iterdir() if path.is_file()} == before
    scores = read_json(copy.path / "train" / "scores.json")
    assert (scores["split"], scores["frames"], scores["name"]) == ("train", 8, "copy")
    with pytest.raises(InputError, match="give a plain name such as train"):
        jobs.evaluate(copy.path, split="../elsewhere", device="cpu")


def test_a_run_is_scored_on_frames_of_another_dataset(journey, tmp_path, capsys):
    copy = RunFolder(tmp_path / "copy")
    shutil.copytree(journey.student, copy.path)
    own = read_json(copy.scores)
    before = {path.name: path.read_bytes() for path in copy.path.iterdir() if path.is_file()}
    # the simulated frames, which lie in a folder of KITTI's layout, and the same without the simulator's record
    for name, simulated in (("streets", True), ("recorded", False)):
        folder = tmp_path / name
        shutil.copytree(journey.data, folder)
        if not simulated:
            (folder / "simulated.json").unlink()
        jobs.evaluate(copy.path, data=KittiData(root=str(folder)), out=tmp_path / f"{name}-scores", device="cpu")
        scores = read_json(tmp_path / f"{name}-scores" / "scores.json")
        assert scores["values"] == own["values"]
        assert (scores["dataset"], scores["simulated"], scores["split"]) == ("kitti", simulated, "val")
        assert scores.get("dataset_version") == (f"simulator {SIMULATOR_VERSION}" if simulated else None)
        assert scores["trained_on_version"] == own["trained_on_version"] == f"simulator {SIMULATOR_VERSION}"
        assert (scores["trained_on"], scores["trained_on_simulated"]) == ("simulated", True)
        assert 0 < scores["objects_in_range"] < scores["objects"]
    assert "was trained on simulated" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in copy.path.iterdir() if path.is_file()} == before
    jobs.evaluate(copy.path, data=KittiData(root=str(tmp_path / "recorded")), split="train", device="cpu")
    assert read_json(copy.path / "kitti-train" / "scores.json")["frames"] == 8


def test_scores_on_other_frames_are_never_replaced_unasked(journey, tmp_path):
    copy = RunFolder(shutil.copytree(journey.student, tmp_path / "copy"))
    first, second = (KittiData(root=str(tmp_path / name)) for name in ("first", "second"))
    shutil.copytree(journey.data, first.root)
    shutil.copytree(journey.data, second.root)
    for label in Path(second.root, "training", "label_2").iterdir():
        label.write_text("")
    scored = copy.path / "kitti-val"

    jobs.evaluate(copy.path, data=first, device="cpu")
    before = {path.name: path.read_bytes() for path in scored.iterdir()}
    (scored / "matches.npz").unlink()
    jobs.evaluate(copy.path, data=first, device="cpu")
    assert {path.name for path in scored.iterdir()} == before.keys()

    before = {path.name: path.read_bytes() for path in scored.iterdir()}
    with pytest.raises(
        InputError,
        match="kitti-val: holds scores on other frames, or on these before .*; give another folder with --out",
    ):
        jobs.evaluate(copy.path, data=second, device="cpu")
    with pytest.raises(InputError, match="copy: holds scores that do not record their frames"):
        jobs.evaluate(copy.path, data=second, out=copy.path, device="cpu")
    assert {path.name: path.read_bytes() for path in scored.iterdir()} == before
    jobs.evaluate(copy.path, data=second, out=tmp_path / "out", device="cpu")
    assert read_json(tmp_path / "out" / "scores.json")["objects"] == 0

    (scored / "scores.json").write_text("{")
    with pytest.raises(
        InputError, match=r"scores.json: line 1 is not valid JSON; .* or delete .*scores.json to replace"
    ):
        jobs.evaluate(copy.path, data=first, device="cpu")
    (scored / "scores.json").unlink()
    jobs.evaluate(copy.path, data=second, device="cpu")
    assert read_json(scored / "scores.json")["objects"] == 0


def test_a_run_is_not_scored_on_frames_that_do_not_fit_its_detector(journey, tmp_path):
    folder = tmp_path / "behind"
    shutil.copytree(journey.data, folder)
    for path in (folder / "training" / "velodyne").iterdir():
        points = np.fromfile(path, dtype=np.float32).reshape(-1, 4)
        (points * [-1, 1, 1, 1]).astype(np.float32).tofile(path)
    behind = KittiData(root=str(folder), camera_view_only=False)
    with pytest.raises(InputError, match=r"student: the detector's range \[0.0, .* holds no point of kitti's frames"):
        jobs.evaluate(journey.student, data=behind, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_split_without_labels_or_frames_is_refused_before_anything_is_predicted(journey, tmp_path, monkeypatch):
    monkeypatch.setattr("lidistill.jobs.evaluation.predict", None)
    folder = tmp_path / "kitti"
    shutil.copytree(journey.data, folder)
    (folder / "training").rename(folder / "testing")
    with pytest.raises(InputError, match="student: frame 000000 has no labels to score on; choose a split that has"):
        jobs.evaluate(journey.student, data=KittiData(root=str(folder)), split="test", device="cpu")
    nothing = SimulatedData(root=str(tmp_path / "nothing"), train_frames=1, val_frames=0, workers=1)
    with pytest.raises(InputError, match="student: the split has no frame of simulated to score on"):
        jobs.evaluate(journey.student, data=nothing, device="cpu")


def test_a_missing_list_is_answered_with_an_option_of_evaluate(journey, tmp_path):
    folder = tmp_path / "kitti"
    shutil.copytree(journey.data, folder)
    (folder / "ImageSets" / "val.txt").unlink()
    data = KittiData(root=str(folder))
    remedy = r"val\.txt: no list of frames for the split 'val'; .* or give --split all to use every frame"
    with pytest.raises(InputError, match=remedy):
        jobs.evaluate(journey.student, data=data, out=tmp_path / "out", device="cpu")
    with pytest.raises(InputError, match=remedy):
        evaluate_predictions(RunFolder(journey.student).predictions, data)
    jobs.evaluate(journey.student, data=data, split="all", out=tmp_path / "out", device="cpu")
    assert read_json(tmp_path / "out" / "scores.json")["frames"] == 14


def test_scores_and_cost_say_in_which_precision_they_were_taken(journey, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(journey.plain, copy)
    jobs.evaluate(copy, device="cpu", precision="bf16")
    assert read_json(RunFolder(copy).scores)["precision"] == read_json(RunFolder(copy).profile)["precision"] == "bf16"
    assert read_json(RunFolder(journey.plain).scores)["precision"] == "32"


def test_a_run_keeps_the_precision_it_was_trained_in_and_never_auto(journey, tmp_path):
    automatic = jobs.supervised(
        "pointpillars", data=f"simulated:{journey.data}", overrides=[*TINY, "training.precision=auto"]
    )
    jobs.train(automatic, tmp_path, device="cpu")
    assert RunFolder(tmp_path).read_experiment()["training"]["precision"] == settled("auto", torch.device("cpu"))[0]
    jobs.train(automatic, tmp_path, device="cpu", resume=True)  # "auto" goes on with what ran


def test_parameters_are_counted_before_norms_are_folded(journey):
    run = load_run(journey.plain)
    assert read_json(run.folder.profile)["parameters"] == count_parameters(run.detector)


def test_predictions_as_kitti_text_score_as_the_run_does(journey, tmp_path):
    run = jobs.load_run(journey.student)
    source = run.experiment.data.open("val")
    predictions = Predictions.load(run.folder.predictions)
    for frame, boxes in zip(source, predictions.boxes, strict=True):
        names = np.array([predictions.classes[label] for label in boxes.labels.tolist()], dtype=str)
        objects = camera_objects(frame.truth.calibration, boxes.geometry.numpy(), names, boxes.scores.numpy())
        area = (objects.boxes_2d[:, 2:] - objects.boxes_2d[:, :2]).prod(axis=1)
        write_objects(tmp_path / f"{frame.id}.txt", objects[area > 0])
    scores = evaluate_predictions(tmp_path, run.experiment.data, out=tmp_path / "scored")
    own = read_json(run.folder.scores)["values"]
    for key, value in scores.values.items():
        assert (value is None) == (own[key] is None)
        assert value is None or value == pytest.approx(own[key], abs=3.0), key  # the text keeps two decimals
    assert RunFolder(tmp_path / "scored").scores.is_file()


def test_predictions_on_another_version_of_the_frames_are_refused(journey, tmp_path):
    run = jobs.load_run(journey.student)
    predictions = Predictions.load(run.folder.predictions)
    assert (predictions.dataset, predictions.dataset_version) == ("simulated", f"simulator {SIMULATOR_VERSION}")
    path = tmp_path / "predictions.npz"
    for version, said in (("simulator 1", "'simulator 1'"), ("", "no recorded version")):
        replace(predictions, dataset_version=version).save(path)
        with pytest.raises(
            InputError, match=f"holds predictions on frames of {said}, .* of 'simulator .*'; set --data"
        ):
            evaluate_predictions(path, run.experiment.data)
    replace(predictions, dataset="", dataset_version="").save(path)  # of another tool
    assert evaluate_predictions(path, run.experiment.data).values == read_json(run.folder.scores)["values"]


def test_predict_writes_text_json_and_a_picture_for_each_scan(journey, tmp_path):
    scans = journey.data / "training" / "velodyne"
    written = jobs.predict(
        journey.student, scans, tmp_path, calibration=journey.data / "training" / "calib", device="cpu"
    )
    assert len(written) == 14
    for path in written:
        content = json.loads(path.read_text())
        assert content["frame"] == path.stem
        assert path.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(path.with_suffix(".txt").read_text().splitlines()) == len(content["boxes"])


def test_predict_says_which_camera_and_columns_it_took(journey, tmp_path, capsys):
    recorded = journey.data / "training" / "velodyne"
    name = min(path.stem for path in recorded.glob("*.bin"))
    jobs.predict(journey.student, recorded / f"{name}.bin", tmp_path / "beside", device="cpu")
    said = capsys.readouterr().out
    assert "points: 4 values each, the first are x, y, z, intensity" in said
    assert f"calibration: one file per scan from {(journey.data / 'training' / 'calib').resolve()}" in said
    jobs.predict(
        journey.student,
        recorded / f"{name}.bin",
        tmp_path / "told",
        calibration=recorded.parent / "calib",
        device="cpu",
    )
    assert (tmp_path / "beside" / f"{name}.txt").read_text() == (tmp_path / "told" / f"{name}.txt").read_text()

    alone = tmp_path / "alone" / "scan.bin"
    alone.parent.mkdir()
    points = np.fromfile(recorded / f"{name}.bin", dtype="<f4").reshape(-1, 4)
    np.concatenate([points, np.arange(len(points), dtype="<f4")[:, None] // 500], axis=1)[
        : len(points) // 4 * 4
    ].tofile(alone)
    capsys.readouterr()
    with pytest.raises(InputError, match="looks like 5 values per point, not 4; give --columns 5"):
        jobs.predict(journey.student, alone, tmp_path / "x", device="cpu")
    assert "calibration: KITTI's nominal camera" in capsys.readouterr().out
    jobs.predict(journey.student, alone, tmp_path / "five", columns=5, device="cpu")
    points[: len(points) // 4 * 4].tofile(alone)
    jobs.predict(journey.student, alone, tmp_path / "four", device="cpu")
    assert (tmp_path / "five" / "scan.json").read_text() == (tmp_path / "four" / "scan.json").read_text()
    with pytest.raises(InputError, match="--columns 3: the detector reads 4 values per point"):
        jobs.predict(journey.student, alone, tmp_path / "x", columns=3, device="cpu")


def test_a_bad_scan_stops_predict_unless_the_user_asked_to_skip_it(journey, tmp_path, capsys):
    scans = tmp_path / "scans"
    scans.mkdir()
    good = sorted((journey.data / "training" / "velodyne").glob("*.bin"))[0]
    shutil.copy(good, scans / "000001.bin")
    (scans / "000002.bin").write_bytes(good.read_bytes()[:-3])
    (scans / "000003.bin").mkdir()
    (scans / "000004.bin").symlink_to("nowhere")
    np.full((50, 4), np.inf, dtype=np.float32).tofile(scans / "000005.bin")
    np.full((5000, 4), 3e38, dtype=np.float32).tofile(scans / "000006.bin")
    shutil.copy(good, scans / "000007.bin")
    with pytest.raises(InputError, match=r"000002.bin.*--skip-bad"):
        jobs.predict(journey.student, scans, tmp_path / "out", device="cpu")
    written = jobs.predict(journey.student, scans, tmp_path / "out", device="cpu", skip_bad=True)
    assert [path.stem for path in written] == ["000001", "000006", "000007"]
    said = capsys.readouterr().out
    assert "left out 4 of 7 scans" in said
    assert all(f"{name}.bin" in said for name in ("000002", "000003", "000004", "000005"))


@pytest.mark.parametrize(
    "content", [b"", np.full((5, 4), 500.0, dtype=np.float32).tobytes()], ids=["empty", "all out of range"]
)
def test_a_scan_without_a_point_in_range_gives_no_box_and_no_error(journey, tmp_path, content):
    scan = tmp_path / "scan.bin"
    scan.write_bytes(content)
    (written,) = jobs.predict(journey.student, scan, tmp_path / "out", device="cpu")
    assert isinstance(json.loads(written.read_text())["boxes"], list)


def test_the_report_compares_the_three_runs(journey, tmp_path):
    page = write_report([journey.teacher, journey.plain, journey.student], tmp_path, PROTOCOLS)
    text = page.read_text()
    assert "simulated" in text.lower()
    for name in ("teacher", "plain", "student"):
        assert name in text
    assert (tmp_path / "report.md").is_file()


def test_the_runs_of_a_report_are_timed_in_turns_when_it_is_made(journey, tmp_path):
    runs = [journey.teacher, journey.plain, journey.student]
    written = jobs.report(runs, tmp_path / "timed", device="cpu")
    timing = read_json(tmp_path / "timed" / "timing.json")
    assert timing["turns"].keys() == {"Teacher", "Plain student", "Distilled student"}
    assert len({len(times) for stages in timing["turns"].values() for times in stages.values()}) == 1
    assert (timing["threads"], timing["frames"]) == (1, 6)
    assert timing["left_out"] == {}
    text = written.path.read_text()
    assert written.headline in text
    assert f"Timed on {timing['device']}, 1 CPU thread" in text
    untimed = jobs.report(runs, tmp_path / "untimed", timing=False)
    assert "it makes no statement on speed" in untimed.path.read_text()
    assert not (tmp_path / "untimed" / "timing.json").exists()


def test_a_run_that_cannot_be_timed_is_left_out_with_the_reason(journey, tmp_path):
    copies = [shutil.copytree(path, tmp_path / path.name) for path in (journey.teacher, journey.plain, journey.student)]
    RunFolder(copies[1]).checkpoint.unlink()
    written = jobs.report(copies, tmp_path / "report", device="cpu")
    left_out = read_json(tmp_path / "report" / "timing.json")["left_out"]
    assert left_out.keys() == {"Plain student"}
    assert "Plain student: not timed" in written.path.read_text()


def test_a_finished_run_is_never_overwritten(journey):
    experiment = jobs.load_run(journey.plain).experiment
    with pytest.raises(InputError, match="already holds a run; resume it with `lidistill train --resume --out"):
        jobs.train(experiment, journey.plain)


def test_a_run_is_not_resumed_with_other_settings(journey):
    experiment = jobs.load_run(journey.plain).experiment.overridden(["training.weight_decay=0.5"])
    with pytest.raises(
        InputError,
        match="cannot resume with other settings .training.weight_decay is 0.01 in the run and would become 0.5",
    ):
        jobs.train(experiment, journey.plain, resume=True)


def test_an_untrained_teacher_is_refused_with_the_reason(journey, tmp_path):
    with pytest.raises(InputError, match="refused as a teacher.*--no-certificate"):
        jobs.train(
            jobs.distilled(str(journey.teacher), compression=4, methods=["logits"]), tmp_path / "x", device="cpu"
        )
    findings = read_json(RunFolder(tmp_path / "x").certificate)
    assert findings["passed"] is False
    assert not RunFolder(tmp_path / "x").checkpoint.exists()


def test_a_teacher_of_other_classes_is_refused(journey, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(journey.teacher, other)
    text = RunFolder(other).experiment.read_text()
    write_text(RunFolder(other).experiment, text.replace("Pedestrian", "Walker"))
    with pytest.raises(InputError):
        jobs.train(jobs.distilled(str(other), compression=4, methods=["logits"]), tmp_path / "x", device="cpu")


def test_a_checkpoint_of_another_width_is_refused_with_its_keys(journey, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(journey.teacher, mixed)
    shutil.copy(RunFolder(journey.plain).checkpoint, RunFolder(mixed).checkpoint)
    with pytest.raises(InputError, match="does not fit this detector"):
        jobs.load_run(mixed)


def test_a_checkpoint_that_would_run_code_is_not_opened(journey, tmp_path):
    import pickle

    class Code:
        def __reduce__(self):
            return (print, ("executed",))

    other = tmp_path / "other"
    shutil.copytree(journey.teacher, other)
    RunFolder(other).checkpoint.write_bytes(pickle.dumps(Code()))
    with pytest.raises(InputError, match="not a checkpoint with weights only"):
        jobs.load_run(other)


def test_the_same_seed_gives_the_same_student(journey, tmp_path):
    experiment = jobs.supervised(
        "pointpillars", data=f"simulated:{journey.data}", overrides=[*TINY, "training.steps=3"]
    )
    for name in ("a", "b"):
        jobs.train(experiment, tmp_path / name, device="cpu")
    a, b = (read_weights(RunFolder(tmp_path / name).checkpoint) for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)
