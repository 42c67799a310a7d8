"""The interface of a benchmark's protocol: scores, their layout, and data to score resampled frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.result_writer import ResultWriter
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.scores import Scores
from lidistill.types import Frame, InputError

# How often each frame is taken, (F,) int64 -> the score, or None if it is not evaluated on these frames.
Estimator = Callable[[np.ndarray], "float | None"]


class Resamplable(ABC):
    """Enough data of each frame to score any multiset of the frames exactly. Bootstrap intervals need it."""

    frame_ids: tuple[str, ...]

    @abstractmethod
    def estimator(self, key: str) -> Estimator:
        """The score `key` as a function of how often each frame is taken; InputError if there is no such score."""

    @abstractmethod
    def scale(self, key: str) -> Scale:
        """The scale of the score `key`."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write to a file that the protocol's `load` reads; InputError if it cannot be written."""


class Protocol(ABC):
    """The official metric of a benchmark, as an entry of `datasets.PROTOCOLS`."""

    name: ClassVar[str]  # its key in the table
    scale: ClassVar[Scale]  # of the headline score
    # Limit on a teacher's headline score. A teacher with a worse score is refused, unless the user sets another limit.
    # None: no limit.
    worst_teacher: ClassVar[float | None] = None
    foreign_form: ClassVar[str] = ""  # input of `evaluate_foreign` in words: "a folder of result files"

    @abstractmethod
    def evaluate(self, predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, Resamplable]:
        """Scores of `predictions` against the labels of `frames` (read once), and the data to resample them.

        InputError if a frame lacks what the metric needs, or if the frames are not those predicted.
        """

    @abstractmethod
    def load(self, path: str | Path) -> Resamplable:
        """Read what `Resamplable.save` wrote. InputError with file and remedy if another protocol or version wrote it,
        or if it is damaged.
        """

    def evaluate_foreign(
        self, path: Path, classes: Sequence[str], frames: Iterable[Frame]
    ) -> tuple[Scores, Resamplable]:
        """Like `evaluate`, for predictions that another tool wrote to `path` in the benchmark's own format.

        InputError if the protocol does not support this.
        """
        raise InputError(
            f"{path}: the protocol {self.name} cannot read predictions of other tools; give {self.accepted_forms}"
        )

    def result_writer(self, scans: Path, calibration: str | Path | None) -> ResultWriter | None:
        """A writer of detections in `scans` (a file or a folder) in the benchmark's own format; None if it has none.

        `calibration` is a file or folder from the user; InputError if the protocol needs no calibration.
        """
        if calibration is not None:
            raise InputError(
                f"{calibration}: the protocol {self.name} writes no files that need a calibration; leave out "
                "--calibration"
            )
        return None

    @property
    def accepted_forms(self) -> str:
        """The formats of predictions that can be scored, in words."""
        own = "a predictions.npz, as `lidistill evaluate` writes it"
        return f"{self.foreign_form}, or {own}" if self.foreign_form else own


def paired(predictions: Predictions, frames: Iterable[Frame]) -> Iterable[tuple[Frame, int]]:
    """Every frame with the row of its predictions; InputError unless the frames are exactly those predicted."""
    row_of = {frame_id: row for row, frame_id in enumerate(predictions.frame_ids)}
    for frame in frames:
        if frame.id not in row_of:
            raise InputError(
                f"frame {frame.id}: no predictions; predict every frame of the split, with an empty entry if nothing "
                "is found"
            )
        yield frame, row_of.pop(frame.id)
    if row_of:
        raise InputError(
            f"predictions contain {len(row_of)} frames that are not in the split, such as {min(row_of)}; evaluate the "
            "split that was predicted"
        )
