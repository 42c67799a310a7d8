"""The models that come with the project load and find what they were trained to find."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lidistill import jobs
from lidistill.evaluation.detection_errors import detection_errors
from lidistill.types import collate

MODELS = sorted(path.parent for path in (Path(__file__).resolve().parents[1] / "models").glob("*/experiment.yaml"))


def test_models_are_there():
    assert MODELS


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_model_finds_most_cars_on_streets_that_it_has_not_seen(folder, tmp_path):
    loaded = jobs.load_run(folder)
    data = loaded.experiment.data
    assert data.root == ""
    assert (folder / "README.md").is_file()
    frames = type(data)(root=str(tmp_path), train_frames=1, val_frames=6, seed=7, workers=1).open("val")
    found = cars = 0
    with torch.inference_mode():
        for frame in frames:
            near = frame.boxes[(frame.boxes.labels == 0) & (frame.boxes.difficulty >= 0)]
            boxes = loaded.detector.decode(loaded.detector(collate([frame])))[0]
            matched = detection_errors(boxes[boxes.scores >= 0.3], near)
            found, cars = found + len(matched.found), cars + len(near)
    assert cars >= 10
    assert found >= 0.8 * cars
