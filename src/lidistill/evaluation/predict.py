"""Runs a detector over frames and collects its detections, without scoring them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lidistill.array_files import Kind
from lidistill.evaluation.labelled_arrays import load_labelled, save_labelled
from lidistill.half_precision import autocast
from lidistill.types import Batch, Boxes, Frame, InputError, collate

FORMAT = 1  # of the file; files of earlier versions have no number
_KINDS: dict[str, Kind] = {
    "frame_ids": ("U", 1),
    "classes": ("U", 1),
    "counts": ("iu", 1),
    "geometry": ("f", 2),
    "labels": ("iu", 1),
    "scores": ("f", 1),
    "velocity": ("f", 2),
    "dataset_version": ("U", 0),
}


@dataclass(frozen=True)
class Predictions:
    """Detections in a set of frames: LiDAR boxes with scores, on the CPU. InputError if the parts are inconsistent."""

    frame_ids: tuple[str, ...]
    boxes: tuple[Boxes, ...]  # one entry per frame
    classes: tuple[str, ...]  # class names; the labels of the boxes index them
    dataset: str = ""  # name of the dataset; empty if unknown
    dataset_version: str = ""  # which edition of its frames; empty if there is only one

    def __post_init__(self) -> None:
        if len(self.frame_ids) != len(self.boxes):
            raise InputError(
                f"predictions name {len(self.frame_ids)} frames but have boxes of {len(self.boxes)}; give one entry "
                "per frame"
            )
        if len(set(self.frame_ids)) != len(self.frame_ids):
            twice = next(frame_id for row, frame_id in enumerate(self.frame_ids) if frame_id in self.frame_ids[:row])
            raise InputError(f"predictions name frame {twice!r} twice; predict each frame once")
        if len(set(self.classes)) != len(self.classes):
            raise InputError(
                f"predictions name a class twice ({', '.join(self.classes)}); name each once, in the detector's order"
            )
        for frame_id, boxes in zip(self.frame_ids, self.boxes, strict=True):
            if boxes.scores is None:
                raise InputError(f"predictions of frame {frame_id!r} have no scores; decode boxes with scores")
            if ((boxes.labels < 0) | (boxes.labels >= len(self.classes))).any():
                raise InputError(
                    f"predictions of frame {frame_id!r} have a label outside 0..{len(self.classes) - 1}; give all "
                    "classes, in the detector's order"
                )

    def save(self, path: str | Path) -> None:
        """Write to a .npz file: dataset, version, geometry, labels, scores; and velocities if every frame has them."""
        arrays = {
            "dataset_version": np.array(self.dataset_version, dtype=str),
            "frame_ids": np.array(self.frame_ids, dtype=str),
            "classes": np.array(self.classes, dtype=str),
            "counts": np.array([len(boxes) for boxes in self.boxes], dtype=np.int64),
            "geometry": _rows([boxes.geometry for boxes in self.boxes], (7,)),
            "labels": _rows([boxes.labels for boxes in self.boxes], (), np.int64),
            "scores": _rows([boxes.scores for boxes in self.boxes if boxes.scores is not None], ()),
        }
        velocities = [boxes.velocity for boxes in self.boxes if boxes.velocity is not None]
        if velocities and len(velocities) == len(self.boxes):
            arrays["velocity"] = _rows(velocities, (2,))
        save_labelled(path, arrays, version=FORMAT, origin="dataset", name=self.dataset)

    @staticmethod
    def load(path: str | Path) -> Predictions:
        """Read what `save` wrote. InputError if the file is missing, damaged, inconsistent or of another format."""
        remedy = "predict again with `lidistill evaluate`"
        optional = ("velocity", "dataset_version")  # files of earlier versions of the package name no dataset_version
        arrays, dataset = load_labelled(path, _KINDS, remedy, version=FORMAT, origin="dataset", optional=optional)
        counts = arrays["counts"].astype(np.int64)
        total = int(counts.sum()) if (counts >= 0).all() else -1
        shapes = {
            "frame_ids": (counts.size,),
            "geometry": (total, 7),
            "labels": (total,),
            "scores": (total,),
            "velocity": (total, 2),
        }
        for name, shape in shapes.items():
            if name in arrays and arrays[name].shape != shape:
                raise InputError(
                    f"{path}: {name} has shape {arrays[name].shape}, but the counts require {shape}; {remedy}"
                )
        sizes = arrays["geometry"][:, 3:6]
        if (sizes < 0).any():
            raise InputError(f"{path}: a box has the size {sizes.min():g} m; {remedy}")
        arrays["labels"] = arrays["labels"].astype(np.int64)
        columns = {
            name: torch.from_numpy(arrays[name]).split(counts.tolist())
            for name in ("geometry", "labels", "scores", "velocity")
            if name in arrays
        }
        boxes = tuple(Boxes(**dict(zip(columns, parts, strict=True))) for parts in zip(*columns.values(), strict=True))
        frame_ids, classes = (tuple(arrays[name].astype(str).tolist()) for name in ("frame_ids", "classes"))
        return Predictions(frame_ids, boxes, classes, dataset, str(arrays.get("dataset_version", "")))


class Decoder(Protocol):
    """What `predict` needs of a detector: a torch module with `decode`, and a config with `classes`."""

    @property
    def config(self) -> Any: ...
    def __call__(self, batch: Batch) -> Any: ...
    def decode(self, output: Any) -> list[Boxes]: ...
    def eval(self) -> nn.Module: ...
    def modules(self) -> Iterator[nn.Module]: ...


def predict(
    detector: Decoder,
    frames: Iterable[Frame],
    device: torch.device | str = "cpu",
    batch_size: int = 4,
    progress: Callable[[int], None] | None = None,
    classes: Sequence[str] | None = None,
    precision: str = "32",
) -> Predictions:
    """The detections of `detector`, already on `device`, in each frame.

    The detector runs in evaluation mode and without gradients; afterwards the modes of its modules are restored.
    `frames` are read once, `batch_size` at a time. `progress` is called with the number of frames done. `classes`
    defaults to those of the detector's config. `precision` is that of the network: "32", "bf16" or "fp16"; boxes are
    decoded in single precision. InputError if `batch_size` is below 1 or `decode` does not return one entry per frame.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; give 1 or more")
    frame_ids: list[str] = []
    found: list[Boxes] = []
    modes = [(module, module.training) for module in detector.modules()]
    detector.eval()
    try:
        with torch.no_grad():
            for batch in _batches(frames, batch_size):
                with autocast(precision, torch.device(device)):
                    output = detector(batch.to(device))
                decoded = detector.decode(output)
                if len(decoded) != batch.size:
                    raise InputError(
                        f"the detector decoded {len(decoded)} frames of a batch of {batch.size}; decode must return "
                        "one entry per frame"
                    )
                found += [boxes.to("cpu") for boxes in decoded]
                frame_ids += batch.frame_ids
                if progress is not None:
                    progress(len(frame_ids))
    finally:
        for module, training in modes:
            module.training = training
    return Predictions(tuple(frame_ids), tuple(found), tuple(detector.config.classes if classes is None else classes))


def _batches(frames: Iterable[Frame], size: int) -> Iterator[Batch]:
    remaining = iter(frames)
    while chunk := list(islice(remaining, size)):
        yield collate(chunk)


def _rows(columns: Sequence[Tensor], width: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    empty: np.ndarray = np.zeros((0, *width), dtype=dtype)
    return np.concatenate([empty, *(column.detach().cpu().numpy().astype(dtype) for column in columns)])
