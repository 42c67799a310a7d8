"""The folder in which a teacher's outputs are stored, frame by frame and part by part."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from lidistill.files import write_text
from lidistill.training.cache_files import FrameRecord, read_record, write_record
from lidistill.training.cache_keys import digest
from lidistill.training.process_rank import is_first_process
from lidistill.types import InputError


class OutputStore:
    """Stores records by key and part. If the folder cannot be written, it warns, and the training continues."""

    def __init__(self, folder: Path, description: Mapping[str, Any], num_frames: int, num_views: int) -> None:
        """`folder` holds the stores of all teachers; this one is named by a digest of `description`, which identifies
        the teacher.

        There will be `num_frames` * `num_views` outputs.
        """
        self.folder = folder / digest(json.dumps(description, sort_keys=True).encode())
        self.num_frames, self.num_views = num_frames, num_views
        self.sizes: dict[str, list[int]] = {}  # part -> bytes of each file of the first batch
        self.has_announced = False
        self.writes = True
        try:
            write_text(self.folder / "teacher.json", json.dumps(description, indent=2, sort_keys=True) + "\n")
        except InputError as error:
            self._stop(error)

    def load(self, key: str, part: str) -> FrameRecord | None:
        """Return the stored record, or None."""
        record = read_record(self._path(key, part))
        if record is not None:
            self._note_size(key, part)
        return record

    def store(self, key: str, part: str, record: FrameRecord) -> None:
        """Store a record. If it cannot be written, warn and store nothing from then on."""
        if not self.writes:
            return
        try:
            write_record(self._path(key, part), record)
        except InputError as error:
            self._stop(error)
        else:
            self._note_size(key, part)

    def _path(self, key: str, part: str) -> Path:
        return self.folder / key[:2] / f"{key}.{part}.npz"

    def _stop(self, error: InputError) -> None:
        self.writes = False
        warnings.warn(f"the teacher's outputs are not stored, so it runs for each missing one: {error}", stacklevel=3)

    def _note_size(self, key: str, part: str) -> None:
        if self.has_announced:
            return
        with suppress(OSError):  # another process may have removed the file
            self.sizes.setdefault(part, []).append(self._path(key, part).stat().st_size)

    def announce(self) -> None:
        """Print how much space all outputs will take, estimated from what the methods read of the first batch.

        Raises InputError if the disk cannot hold them.
        """
        if not self.sizes or self.has_announced:
            return
        self.has_announced = True
        if not self.writes:
            return
        whole = sum(mean(sizes) for sizes in self.sizes.values()) * self.num_frames * self.num_views
        present = sum(path.stat().st_size for part in self.sizes for path in self.folder.glob(f"??/*.{part}.npz"))
        free = shutil.disk_usage(self.folder).free
        views = f"{self.num_frames} frames x {self.num_views} view{'s' if self.num_views > 1 else ''}"
        space = f"{_readable(whole)} for {views}, {_readable(present)} already stored, {_readable(free)} free"
        if is_first_process():
            Console(stderr=True).print(
                f"teacher's outputs in {self.folder}: {space}", highlight=False, markup=False, soft_wrap=True
            )
        if whole - present > free:
            raise InputError(
                f"{self.folder}: the teacher's outputs do not fit ({space}); set LIDISTILL_CACHE to a larger disk, "
                "distillation.cache_precision=float16 to halve them, or distillation.cache_teacher=false"
            )


def _readable(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
