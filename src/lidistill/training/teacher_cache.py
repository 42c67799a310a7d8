"""The cached teacher: its outputs are computed once, stored on disk, and reused when the same input occurs again.

The output of a frozen teacher in evaluation mode depends only on its input. It is stored under a digest of this input:
the points of the frame as the student sees them, the voxels, the kind of device and the precision. A frame that changed
in any way is a different input, so an outdated output is never reused. A cache is useful only if inputs repeat, which
`count_views` checks: no augmentation, or flips only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from lidistill.data.augment import Augmentation
from lidistill.detector_inputs import Inputs
from lidistill.detectors.detector import Detector
from lidistill.files import cache_folder
from lidistill.outputs import DetectorOutput, FeatureMap, FeatureSet, HeadOutput
from lidistill.training.cache_files import FrameRecord, Part, join, record_of
from lidistill.training.cache_folder import OutputStore
from lidistill.training.cache_keys import frame_key, teacher_description
from lidistill.types import Batch, Boxes, InputError

CachePrecision = Literal["float32", "float16"]
PRECISIONS = get_args(CachePrecision)
HEADS, BOXES = "heads", "boxes"  # the parts of an output besides its taps


def count_views(augmentation: Augmentation) -> int:
    """Return how many versions of a frame the training can see: 1, 2 or 4.

    Raises InputError if every step sees a new version, so that no output could be reused.
    """
    changes = {
        "paste={}": any(augmentation.paste.values()),
        "object_noise=null": augmentation.object_noise is not None,
        "rotation=0": augmentation.rotation != 0,
        "scale=[1,1]": augmentation.scale != (1, 1),
        "translation_std=[0,0,0]": any(augmentation.translation_std),
        # changes the last bits even below the voxel caps, because the points of a pillar are summed in their order
        "shuffle=false": augmentation.shuffle,
    }
    remedies = [f"augmentation.{remedy}" for remedy, changed in changes.items() if changed]
    if remedies:
        raise InputError(
            "distillation.cache_teacher reuses the teacher's outputs, but this augmentation makes every input a new "
            "one; "
            f"set {' '.join(remedies)}, or distillation.cache_teacher=false"
        )
    return 2 ** sum(0 < chance < 1 for chance in (augmentation.flip_y, augmentation.flip_x))


def check_batch_free(teacher_bn: str) -> None:
    """Raise InputError unless the teacher's output on a frame is independent of the other frames of the batch."""
    if teacher_bn != "eval":
        raise InputError(
            f"distillation.cache_teacher cannot be used with distillation.teacher_bn={teacher_bn}, because an "
            "output then depends on the whole batch; "
            "set distillation.teacher_bn=eval, or distillation.cache_teacher=false"
        )


def default_folder() -> Path:
    """`teachers` in the folder LIDISTILL_CACHE, by default ~/.cache/lidistill."""
    return cache_folder("teachers")


class CachedTeacher:
    """Replaces forward and decode of a frozen teacher. A part of its output is loaded, or computed and stored, when it
    is first read.

    Therefore only parts that some method reads are stored. Methods that read the same part share it, and so do all
    students of one teacher. The teacher's folder is named by a digest of its weights, its settings, `precision` and the
    versions of this package and of torch.

    For a missing part of a frame, the teacher runs on that frame alone. In a larger batch, matrix products would round
    the rows of the frame differently, and the stored output would depend on the batch. A training therefore ends with
    the same weights no matter what was stored before. It differs from a training with the running teacher by this
    rounding (about 1e-6 of a feature), and with a batch size of one not at all.

    With `precision` "float16", maps are rounded to 11 significant bits (relative error up to 4.9e-4 for values above
    6e-5) before they are used, whether they come from disk or from the teacher. Sets and boxes are never rounded.
    """

    def __init__(
        self, teacher: Detector, folder: Path, num_frames: int, num_views: int = 1, precision: str = "float32"
    ) -> None:
        """`folder` holds the caches of all teachers. There will be `num_frames` * `num_views` outputs.

        Raises InputError for an unknown `precision`.
        """
        if precision not in PRECISIONS:
            raise InputError(f"distillation.cache_precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
        self.teacher = teacher
        self.half = precision == "float16"
        self.store = OutputStore(folder, teacher_description(teacher, precision), num_frames, num_views)
        # heads of each stage without frames: what does not depend on the input; None until the teacher has run
        self.heads_like: list[list[HeadOutput]] | None = None

    @property
    def folder(self) -> Path:
        """Where this teacher's outputs are stored."""
        return self.store.folder

    def __call__(self, batch: Batch, inputs: Inputs | None = None) -> DetectorOutput:
        """Return the teacher's output; its parts are loaded or computed when they are read.

        Raises InputError if the disk cannot hold all outputs, as estimated from the first batch.
        """
        self.store.announce()
        return _Recalled(_BatchOutput(self, batch, inputs))

    def decode(self, output: DetectorOutput) -> list[Boxes]:
        """Return the teacher's detections, one entry per frame."""
        assert isinstance(output, _Recalled)
        return output.source.part(BOXES)


class _BatchOutput:
    """The parts of the teacher's output on one batch that have been read."""

    def __init__(self, cache: CachedTeacher, batch: Batch, inputs: Inputs | None) -> None:
        self.cache = cache
        self.device = batch.points.device
        self.precision = _Precision.now(self.device.type)
        self.frames = _single_frames(batch, inputs)
        self.keys = [frame_key(*frame, f"{self.device.type} {self.precision.name}") for frame in self.frames]
        self.parts: dict[str, Any] = {}
        self.live: dict[int, DetectorOutput] = {}

    def part(self, name: str) -> Any:
        """Return a tap, the heads or the boxes of all frames of the batch."""
        if name not in self.parts:
            self.parts[name] = self._joined([self._record(name, row) for row in range(len(self.frames))])
        return self.parts[name]

    def _record(self, name: str, row: int) -> FrameRecord:
        record = self.cache.store.load(self.keys[row], name)
        if record is None:
            record = record_of(self._made(name, row))
            if self.cache.half:
                record = record.halved()
            self.cache.store.store(self.keys[row], name, record)
        return record

    def _made(self, name: str, row: int) -> Part:
        if name == BOXES:
            stages = self.stages(self._joined([self._record(HEADS, row)]))
            with self.precision.restored():
                return self.cache.teacher.decode(DetectorOutput({}, stages[-1], stages[:-1]))
        return (
            tuple(head for stage in self._run(row).stages for head in stage)
            if name == HEADS
            else self._run(row).taps[name]
        )

    def stages(self, heads: tuple[HeadOutput, ...]) -> tuple[tuple[HeadOutput, ...], ...]:
        """Split all heads, in order, into those of each stage."""
        ends = list(accumulate(map(len, self.cache.heads_like or [])))
        return tuple(heads[start:end] for start, end in pairwise([0, *ends]))

    def _joined(self, records: list[FrameRecord]) -> Any:
        if records[0].about["kind"] == HEADS and self.cache.heads_like is None:
            self._run(0)
        return join(records, self.device, [head for stage in self.cache.heads_like or [] for head in stage])

    def _run(self, row: int) -> DetectorOutput:
        """Run the teacher on one frame in the precision of the step, even if a method has switched autocast off."""
        if row not in self.live:
            with self.precision.restored():
                self.live[row] = self.cache.teacher(*self.frames[row])
            self.cache.heads_like = [[_emptied(head) for head in stage] for stage in self.live[row].stages]
        return self.live[row]


class _Recalled(DetectorOutput):
    """A DetectorOutput whose parts are loaded or computed when they are read."""

    def __init__(self, source: _BatchOutput) -> None:
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "taps", _Taps(source))

    source: _BatchOutput

    @property
    def heads(self) -> tuple[HeadOutput, ...]:
        return self.source.stages(self.source.part(HEADS))[-1]

    @property
    def earlier(self) -> tuple[tuple[HeadOutput, ...], ...]:
        return self.source.stages(self.source.part(HEADS))[:-1]


class _Taps(Mapping[str, FeatureMap | FeatureSet]):
    def __init__(self, source: _BatchOutput) -> None:
        self.source = source
        self.names = tuple(name for name, spec in source.cache.teacher.tap_specs.items() if not spec.is_head)

    def __getitem__(self, name: str) -> FeatureMap | FeatureSet:
        if name not in self.names:
            raise KeyError(name)
        return self.source.part(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names  # without reading the tap

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Precision:
    """The autocast state of the training step; a method may read a part after it has switched autocast off."""

    def __init__(self, device_type: str, enabled: bool, dtype: torch.dtype) -> None:
        self.device_type, self.enabled, self.dtype = device_type, enabled, dtype

    @staticmethod
    def now(device_type: str) -> _Precision:
        return _Precision(device_type, torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type))

    @property
    def name(self) -> str:
        return str(self.dtype) if self.enabled else "full"

    @contextmanager
    def restored(self) -> Iterator[None]:
        with torch.no_grad(), torch.autocast(self.device_type, self.dtype, self.enabled):
            yield


def _emptied(head: HeadOutput) -> HeadOutput:
    """The head without rows or frames, so that it holds no memory."""
    return head.with_tensors({name: values[:0].clone() for name, values in head.tensors().items()}, [])


def _single_frames(batch: Batch, inputs: Inputs | None) -> list[tuple[Batch, Inputs | None]]:
    """Each frame as a batch of one, with its inputs."""
    points = batch.points.split(torch.bincount(batch.batch_index, minlength=batch.size).tolist())
    alone = [
        Batch((frame_id,), rows, torch.zeros(len(rows), dtype=torch.int64, device=rows.device), (boxes,))
        for frame_id, rows, boxes in zip(batch.frame_ids, points, batch.boxes, strict=True)
    ]
    return [(frame, None if inputs is None else inputs.of_frame(row)) for row, frame in enumerate(alone)]
