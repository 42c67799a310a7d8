"""What the protocol of a benchmark gives: scores, their layout, and enough of each frame to resample them."""

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

# How often each frame is taken (F,) int64 -> the score, or None where it is not evaluated on these frames.
Estimator = Callable[[np.ndarray], "float | None"]


class Resamplable(ABC):
    """Enough of each frame to score any multiset of the frames exactly. Intervals are made from it."""

    frame_ids: tuple[str, ...]

    @abstractmethod
    def estimator(self, key: str) -> Estimator:
        """The score `key` as a function of how often each frame is taken; InputError where there is no such score."""

    @abstractmethod
    def scale(self, key: str) -> Scale:
        """The scale of the score `key`."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write to a file that the protocol's `load` reads."""


class Protocol(ABC):
    """The official metric of a benchmark, as an entry of `datasets.PROTOCOLS`."""

    name: ClassVar[str]  # its key in the table
    scale: ClassVar[Scale]  # of the headline score
    # In the unit of the headline. A teacher with a worse score is refused, unless the user sets another limit; None: no
    # score is too bad.
    worst_teacher: ClassVar[float | None] = None
    foreign_form: ClassVar[str] = ""  # what `evaluate_foreign` reads: "a folder of result files"

    @abstractmethod
    def evaluate(self, predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, Resamplable]:
        """Scores of `predictions` against the labels of `frames`, which are read once, and what is kept to resample
        them.

        InputError where a frame lacks what the metric needs, or where the frames are not those predicted.
        """

    @abstractmethod
    def load(self, path: str | Path) -> Resamplable:
        """Read what `Resamplable.save` wrote; InputError naming file and remedy where another protocol or another
        version wrote it, or where it is damaged.
        """

    def evaluate_foreign(
        self, path: Path, classes: Sequence[str], frames: Iterable[Frame]
    ) -> tuple[Scores, Resamplable]:
        """The same for predictions that another tool wrote to `path`, in the benchmark's own form."""
        raise InputError(
            f"{path}: the protocol {self.name} reads predictions of no other tool; give {self.accepted_forms}"
        )

    def result_writer(self, scans: Path, calibration: str | Path | None) -> ResultWriter | None:
        """What writes the boxes of `scans` (a file or a folder) in the benchmark's own form; None if it has none.

        `calibration` is a file or folder that the user names for it.
        """
        if calibration is not None:
            raise InputError(
                f"{calibration}: the protocol {self.name} writes no files of its own that need a calibration; leave "
                "out --calibration"
            )
        return None

    @property
    def accepted_forms(self) -> str:
        """The forms of predictions that can be scored, in words."""
        own = "a predictions.npz, as `lidistill evaluate` writes it"
        return f"{self.foreign_form}, or {own}" if self.foreign_form else own


def paired(predictions: Predictions, frames: Iterable[Frame]) -> Iterable[tuple[Frame, int]]:
    """Every frame with the row of its predictions; InputError unless the frames are exactly those predicted."""
    row_of = {frame_id: row for row, frame_id in enumerate(predictions.frame_ids)}
    for frame in frames:
        if frame.id not in row_of:
            raise InputError(
                f"frame {frame.id}: no predictions; predict every frame of the split, an empty entry where nothing "
                "is found"
            )
        yield frame, row_of.pop(frame.id)
    if row_of:
        raise InputError(
            f"predictions hold {len(row_of)} frames that are not in the split, such as {min(row_of)}; evaluate the "
            "split that was predicted"
        )
