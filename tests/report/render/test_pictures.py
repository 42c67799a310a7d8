import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from lidistill.datasets import PROTOCOLS
from lidistill.evaluation.predict import Predictions
from lidistill.report.measures.runs import read_runs
from lidistill.report.page_blocks import Gallery, Missing
from lidistill.report.render.pictures import LEAST_SIDE_M, MINIMUM_SCORE, _by_frame, gallery, view_of
from lidistill.types import Boxes

RANGE = (0.0, -40.0, -3.0, 70.0, 40.0, 1.0)


def boxes_at(*places):
    geometry = torch.zeros(len(places), 7)
    geometry[:, :2] = torch.tensor(places, dtype=torch.float32).reshape(-1, 2)
    return Boxes(geometry, torch.zeros(len(places), dtype=torch.int64))


def inside(view, x, y):
    return view[0] <= x <= view[3] and view[1] <= y <= view[4]


def test_a_picture_for_each_frame_and_run(runs, pair):
    [pictures] = gallery(runs, [pair])
    assert isinstance(pictures, Gallery)
    assert pictures.columns == ("Teacher", "Plain student", "Distilled student")
    assert pictures.runs == (0, 1, 2)
    assert len(pictures.rows) == 4
    names = [figure.name for _, row in pictures.rows for figure in row]
    assert len(set(names)) == 12
    assert all(figure.png.startswith(b"\x89PNG") for _, row in pictures.rows for figure in row)
    assert len({figure.png for figure in pictures.rows[0][1]}) == 3


def test_what_is_missing_is_said_with_the_command(trio, tmp_path):
    folders = [shutil.copytree(path, tmp_path / path.name) for path in trio]
    (folders[1] / "predictions.npz").unlink()
    pictures, missing = gallery(read_runs(folders, PROTOCOLS), [])
    assert pictures.columns == ("Teacher", "Distilled student")
    assert pictures.runs == (0, 2)
    assert missing == Missing(
        "Plain student: no predictions.npz, so it is not pictured.", f"lidistill evaluate {folders[1]}"
    )
    for folder in folders:
        (folder / "samples.npz").unlink()
    [missing] = gallery(read_runs(folders, PROTOCOLS), [])
    assert "No sample frames" in missing.text


def test_predictions_on_another_version_of_the_frames_are_not_pictured(trio, tmp_path):
    folders = [shutil.copytree(path, tmp_path / path.name) for path in trio]
    for folder, version in zip(folders, ("simulator 3", "simulator 4", ""), strict=True):
        scores = json.loads((folder / "scores.json").read_text())
        (folder / "scores.json").write_text(json.dumps({**scores, "dataset_version": "simulator 3"}))
        predictions = Predictions.load(folder / "predictions.npz")
        dataclasses.replace(predictions, dataset_version=version).save(folder / "predictions.npz")
    pictures, missing = gallery(read_runs(folders, PROTOCOLS), [])
    assert pictures.columns == ("Teacher", "Distilled student")
    assert missing == Missing(
        "Plain student: predictions.npz is on frames of 'simulator 4', but the scores are not, so it is not pictured.",
        f"lidistill evaluate {folders[1]}",
    )


def test_at_most_four_runs_and_the_headline_pair_first(runs, pair):
    more = [dataclasses.replace(runs[1], label=f"plain {number}") for number in range(4)]
    [pictures] = gallery([runs[0], *more, *runs[1:]], [pair])
    assert len(pictures.columns) == 4
    assert {"Teacher", "Plain student", "Distilled student"} <= set(pictures.columns)


def test_weak_detections_are_left_out_and_labels_follow_the_class_names():
    found = Boxes(torch.rand(3, 7), torch.tensor([0, 1, 2]), torch.tensor([MINIMUM_SCORE, MINIMUM_SCORE - 0.01, 0.9]))
    shown = _by_frame(Predictions(("a",), (found,), ("Cyclist", "Car", "Tram")), ("Car", "Cyclist"))["a"]
    assert shown.labels.tolist() == [1, 2]  # Cyclist, and one past the end for a class the samples do not know
    assert shown.scores.tolist() == pytest.approx([MINIMUM_SCORE, 0.9])


@pytest.mark.parametrize(
    "places", [[], [(10.0, 0.0)], [(60.0, 30.0), (5.0, -35.0)], [(20.0, 10.0), (25.0, 12.0)], [(69.0, 39.0)]]
)
def test_the_view_holds_every_box_and_the_sensor_within_the_range(places):
    view = view_of([boxes_at(*places)], RANGE)
    assert all(inside(view, x, y) for x, y in places)
    assert inside(view, 0.0, 0.0)
    assert view[0] >= RANGE[0] - 1e-9
    assert view[4] <= RANGE[4] + 1e-9
    assert min(view[3] - view[0], view[4] - view[1]) >= LEAST_SIDE_M * 0.99
    assert (view[3] - view[0]) / (view[4] - view[1]) == pytest.approx(70 / 80)


def test_boxes_far_outside_or_not_finite_do_not_widen_the_view():
    near = view_of([boxes_at((10.0, 0.0))], RANGE)
    assert view_of([boxes_at((10.0, 0.0), (np.nan, 0.0))], RANGE) == near
    far = view_of([boxes_at((10.0, 0.0), (1e6, 0.0))], RANGE)
    assert far[3] <= RANGE[3] + 1e-9
