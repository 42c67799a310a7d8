"""The validation score that is logged while a detector trains."""

from __future__ import annotations

from collections.abc import Mapping

from lidistill.data.source import FrameSource
from lidistill.detectors.detector import Detector
from lidistill.evaluation.predict import predict
from lidistill.experiment import Experiment
from lidistill.jobs.evaluation import score_frames, spread
from lidistill.types import Frame


class Validation:
    """Scores a detector on a part of the validation split while it trains.

    A call returns the headline score by its name. If there is none, it returns the worst value of the scale, or nothing
    if the scale has no worst value.
    """

    def __init__(self, experiment: Experiment, source: FrameSource, device: str) -> None:
        self.frames: list[Frame] = [source[row] for row in spread(len(source), experiment.training.validation_frames)]
        self.spec = source.spec
        self.batch_size = experiment.training.batch_size
        self.device = device

    def __call__(self, detector: Detector) -> Mapping[str, float]:
        predictions = predict(detector.for_inference(), self.frames, device=self.device, batch_size=self.batch_size)
        scores, _ = score_frames(self.spec, predictions, self.frames)
        value = scores.scale.worst if scores.headline is None else scores.headline
        return {} if value is None else {scores.main: value}
