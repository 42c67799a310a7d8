"""The matches of each frame, in a small form that scores any multiset of frames by the KITTI metric exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lidistill.array_files import Kind
from lidistill.datasets.kitti.curves import FrameCounts, average
from lidistill.datasets.kitti.greedy_matching import Steps
from lidistill.datasets.kitti.score_names import AP, DIFFICULTIES, MEAN, PROTOCOL, ScoreKey
from lidistill.errors import shown
from lidistill.evaluation.labelled_arrays import load_labelled, save_labelled
from lidistill.evaluation.protocol import Estimator, Resamplable
from lidistill.evaluation.scale import Scale
from lidistill.types import InputError

# The overlaps that are matched separately. Image boxes have no loose limit, and orientation uses the image matches, so
# they share the first entry.
MATCHED = (("bbox", "strict"), ("bev", "strict"), ("3d", "strict"), ("bev", "loose"), ("3d", "loose"))
SEEN_IN = ("bbox", "bev", "3d")

Curve = Callable[[np.ndarray], "np.ndarray | None"]

FORMAT = 1  # of the file; files of earlier versions have no number


@dataclass(frozen=True)
class MatchedBlock:
    """The matches of a block of frames; see FrameMatches for the shapes."""

    truths: np.ndarray
    seen: np.ndarray
    orientation_unknown: np.ndarray
    detection_frame: np.ndarray
    detection_score: np.ndarray
    cases: Sequence[Steps]


@dataclass(frozen=True)
class FrameMatches(Resamplable):
    """Step functions of F frames, C classes, 3 difficulties and the 5 overlaps of `MATCHED`; N detections.

    A case is one overlap, class and difficulty; the K cases are in this order. The K + 1 offsets give the start of each
    case in the flat arrays.
    """

    frame_ids: tuple[str, ...]
    classes: tuple[str, ...]
    truths: np.ndarray  # (F, C, 3) int32, number of ground-truth objects that count
    seen: np.ndarray  # (F, C, 3) bool, whether the class is detected with a box in the image, in BEV, in 3D
    orientation_unknown: np.ndarray  # (F,) bool, whether a detection has an alpha of -10
    detection_frame: np.ndarray  # (N,) int32, row of the frame
    detection_score: np.ndarray  # (N,) float64
    hit_offsets: np.ndarray  # (K + 1,) int64
    hit_detection: np.ndarray  # (H,) int32, see greedy_matching.Steps
    step_offsets: np.ndarray  # (K + 1,) int64
    step_detection: np.ndarray  # (S,) int32
    step_hits: np.ndarray  # (S,) int32
    step_misses: np.ndarray  # (S,) int32
    step_similarity: np.ndarray  # (S',) float64, for the image cases only, which come first

    @staticmethod
    def joined(frame_ids: Sequence[str], classes: Sequence[str], blocks: Sequence[MatchedBlock]) -> FrameMatches:
        """The matches of all `blocks` of frames, in order; at least one block, which may have no frames."""
        first_frame = np.cumsum([0, *(len(block.truths) for block in blocks)])
        first_detection = np.cumsum([0, *(len(block.detection_score) for block in blocks)])
        # ordered by case, then by block
        cases = [case for parts in zip(*(block.cases for block in blocks), strict=True) for case in parts]
        case_start = np.tile(first_detection[:-1], len(cases) // len(blocks))
        in_image = cases[: len(classes) * len(DIFFICULTIES) * len(blocks)]
        return FrameMatches(
            frame_ids=tuple(frame_ids),
            classes=tuple(classes),
            truths=np.concatenate([block.truths for block in blocks]).astype(np.int32),
            seen=np.concatenate([block.seen for block in blocks]),
            orientation_unknown=np.concatenate([block.orientation_unknown for block in blocks]),
            detection_frame=_joined(
                [block.detection_frame + start for block, start in zip(blocks, first_frame, strict=False)]
            ),
            detection_score=np.concatenate([block.detection_score for block in blocks]),
            hit_offsets=_offsets([len(case.first_hits) for case in cases], len(blocks)),
            hit_detection=_joined([case.first_hits + start for case, start in zip(cases, case_start, strict=True)]),
            step_offsets=_offsets([len(case.detections) for case in cases], len(blocks)),
            step_detection=_joined([case.detections + start for case, start in zip(cases, case_start, strict=True)]),
            step_hits=_joined([case.hits for case in cases]),
            step_misses=_joined([case.misses for case in cases]),
            step_similarity=_joined([case.similarity for case in in_image], np.float64),
        )

    def save(self, path: str | Path) -> None:
        """Write to a .npz file; InputError if it cannot be written."""
        names = {"frame_ids": np.array(self.frame_ids, dtype=str), "classes": np.array(self.classes, dtype=str)}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        save_labelled(path, {**names, **arrays}, version=FORMAT, origin="protocol", name=PROTOCOL)

    @staticmethod
    def load(path: str | Path) -> FrameMatches:
        """Read what `save` wrote. InputError if the file is missing, damaged, inconsistent, or of another protocol or
        format.
        """
        remedy = "run `lidistill evaluate` on its folder again"
        arrays, protocol = load_labelled(path, _KINDS, remedy, version=FORMAT, origin="protocol")
        if protocol != PROTOCOL:
            raise InputError(f"{path}: written by the protocol {shown(protocol)}, not {PROTOCOL}; {remedy}")
        matches = FrameMatches(
            frame_ids=tuple(arrays["frame_ids"].astype(str).tolist()),
            classes=tuple(arrays["classes"].astype(str).tolist()),
            **{name: arrays[name] for name in _ARRAYS},
        )
        for names in (matches.frame_ids, matches.classes):
            if len(set(names)) != len(names):
                raise InputError(f"{path}: a frame or a class is listed twice; {remedy}")
        if not matches._fits_together():
            raise InputError(f"{path}: its arrays do not fit together; {remedy}")
        return matches

    def scale(self, key: str) -> Scale:
        return AP

    def estimator(self, key: str) -> Estimator:
        """The score `key` as a function of how often each frame is taken: weights (F,) int64 -> percent, or None if it
        is not evaluated. InputError for an unknown key.
        """
        wanted = ScoreKey.parse(key, self.classes)
        if wanted.name == MEAN:
            curves = [self.curve(wanted.level, wanted.metric, name, wanted.difficulty) for name in self.classes]
            return lambda weights: self.mean([curve(weights) for curve in curves], wanted, weights)
        curve = self.curve(wanted.level, wanted.metric, wanted.name, wanted.difficulty)
        return lambda weights: percent(curve(weights), wanted.points)

    def curve(self, level: str, metric: str, name: str, difficulty: str) -> Curve:
        """The curve (41,) in 0..1 of a class as a function of how often each frame is taken, weights (F,); None if it
        is not evaluated.

        As in the official program, a class is evaluated if it is detected at least once, and orientation if no
        detection of any class has an alpha of -10.
        """
        counts = self._counts(level, metric, name, difficulty)
        seen = self.seen[:, self.classes.index(name), _seen_in(metric)]

        def value(weights: np.ndarray) -> np.ndarray | None:
            if not weights[seen].any() or (metric == "aos" and weights[self.orientation_unknown].any()):
                return None
            return counts.orientation(weights) if metric == "aos" else counts.precision(weights)

        return value

    def mean(self, curves: Sequence[np.ndarray | None], key: ScoreKey, weights: np.ndarray) -> float | None:
        """Mean over the classes that have ground-truth objects, in percent; `curves` has one entry per class.

        A class that is never detected counts as 0 here; otherwise finding nothing would score better than finding a
        little. None if no class has objects, or if the detections lack the 3D boxes or angles that the metric needs.
        """
        present = weights @ self.truths[:, :, DIFFICULTIES.index(key.difficulty)] > 0
        seen = np.asarray(self.seen[weights > 0].any(axis=(0, 1)))
        lacking = seen.any() and not seen[_seen_in(key.metric)]
        if not present.any() or lacking or (key.metric == "aos" and weights[self.orientation_unknown].any()):
            return None
        return float(
            np.mean(
                [percent(curve, key.points) or 0.0 for curve, counts in zip(curves, present, strict=True) if counts]
            )
        )

    def _counts(self, level: str, metric: str, name: str, difficulty: str) -> FrameCounts:
        """The steps of one case, sorted by score."""
        matched = 0 if metric in ("bbox", "aos") else MATCHED.index((metric, level))
        class_index, difficulty_index = self.classes.index(name), DIFFICULTIES.index(difficulty)
        case = (matched * len(self.classes) + class_index) * len(DIFFICULTIES) + difficulty_index
        hits = self.hit_detection[self.hit_offsets[case] : self.hit_offsets[case + 1]]
        hits = hits[np.argsort(-self.detection_score[hits], kind="stable")]
        steps = slice(self.step_offsets[case], self.step_offsets[case + 1])
        detections = self.step_detection[steps]
        order = np.argsort(-self.detection_score[detections], kind="stable")
        detections = detections[order]
        return FrameCounts(
            truths=self.truths[:, class_index, difficulty_index].astype(np.int64),
            hit_scores=self.detection_score[hits],
            hit_frames=self.detection_frame[hits],
            step_scores=self.detection_score[detections],
            step_frames=self.detection_frame[detections],
            step_hits=self.step_hits[steps][order].astype(np.int64),
            step_misses=self.step_misses[steps][order].astype(np.int64),
            step_similarity=self.step_similarity[steps][order] if matched == 0 else None,
        )

    def _fits_together(self) -> bool:
        frames, classes, cases = (
            len(self.frame_ids),
            len(self.classes),
            len(MATCHED) * len(self.classes) * len(DIFFICULTIES),
        )
        shapes = {name: getattr(self, name).shape for name in _ARRAYS}
        steps = shapes["step_detection"]
        return (
            shapes["truths"] == (frames, classes, len(DIFFICULTIES))
            and shapes["seen"] == (frames, classes, len(SEEN_IN))
            and shapes["orientation_unknown"] == (frames,)
            and shapes["detection_frame"] == shapes["detection_score"]
            and len(shapes["detection_frame"]) == 1
            and shapes["step_hits"] == shapes["step_misses"] == steps
            and _are_offsets(self.hit_offsets, cases, len(self.hit_detection))
            and _are_offsets(self.step_offsets, cases, len(self.step_detection))
            and shapes["step_similarity"] == (self.step_offsets[classes * len(DIFFICULTIES)],)
            and _are_rows(self.detection_frame, frames)
            and _are_rows(self.hit_detection, len(self.detection_score))
            and _are_rows(self.step_detection, len(self.detection_score))
            and bool(
                (self.truths >= 0).all()
                and np.isfinite(self.detection_score).all()
                and np.isfinite(self.step_similarity).all()
            )
        )


_KINDS: dict[str, Kind] = {
    "frame_ids": ("U", 1),
    "classes": ("U", 1),
    "truths": ("iu", 3),
    "seen": ("b", 3),
    "orientation_unknown": ("b", 1),
    "detection_frame": ("iu", 1),
    "detection_score": ("f", 1),
    "hit_offsets": ("iu", 1),
    "hit_detection": ("iu", 1),
    "step_offsets": ("iu", 1),
    "step_detection": ("iu", 1),
    "step_hits": ("iu", 1),
    "step_misses": ("iu", 1),
    "step_similarity": ("f", 1),
}
_ARRAYS = tuple(field.name for field in dataclasses.fields(FrameMatches) if field.name not in ("frame_ids", "classes"))


def percent(curve: np.ndarray | None, points: str) -> float | None:
    """The average of a curve over the "R11" or "R40" points, in percent; None without a curve."""
    return None if curve is None else average(curve, points)


def _seen_in(metric: str) -> int:
    return SEEN_IN.index("bbox" if metric == "aos" else metric)


def _joined(parts: Sequence[np.ndarray], dtype: type = np.int32) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts]).astype(dtype)


def _offsets(lengths: Sequence[int], blocks: int) -> np.ndarray:
    """The start of each case, and the end of the last one: (K + 1,) int64."""
    return np.concatenate([[0], np.cumsum(np.reshape(lengths, (-1, blocks)).sum(axis=1))]).astype(np.int64)


def _are_offsets(offsets: np.ndarray, parts: int, total: int) -> bool:
    integers = offsets.shape == (parts + 1,) and np.issubdtype(offsets.dtype, np.integer)
    return bool(integers and offsets[0] == 0 and offsets[-1] == total and (np.diff(offsets) >= 0).all())


def _are_rows(rows: np.ndarray, total: int) -> bool:
    return bool(rows.ndim == 1 and np.issubdtype(rows.dtype, np.integer) and ((rows >= 0) & (rows < total)).all())
