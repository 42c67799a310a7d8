"""Writes simulated frames as a KITTI folder, in parallel; an interrupted run can be continued.

    training/velodyne/ID.bin   x y z intensity, float32
    training/label_2/ID.txt    labels
    training/calib/ID.txt      calibration
    training/motion/ID.json    time, pose and velocities (sequences.py), only with `settings.motion`
    ImageSets/NAME.txt         the frames of each split
    simulated.json             what the folder was made from

A frame is complete when all of its files exist. Each file is written whole or not at all.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lidistill.datasets.kitti.frames import SIMULATOR_RECORD
from lidistill.datasets.kitti.object_files import write_objects
from lidistill.datasets.simulated.labels import annotated, calibration_text, camera_calibration, label_rows
from lidistill.datasets.simulated.sequences import FOLDER as MOTION
from lidistill.datasets.simulated.sequences import motion_of, motion_text
from lidistill.files import write_text, written_aside
from lidistill.parsing import read_json
from lidistill.progress import progress as progress_line
from lidistill.reading import read_text
from lidistill.simulate import SIMULATOR_VERSION, SimulatorSettings, simulate_frame
from lidistill.stopping import Stopped, held_back
from lidistill.types import InputError

MANIFEST = SIMULATOR_RECORD
PARTS = {"calib": "txt", "label_2": "txt", "velodyne": "bin", MOTION: "json"}
FRAMES_WORTH_A_PROCESS = 100  # starting a process takes as long as rendering about this many frames


def frame_id(index: int) -> str:
    return f"{index:06d}"


def manifest(settings: SimulatorSettings, seed: int) -> dict[str, Any]:
    """Everything that the frames depend on, as plain containers.

    Without motion there is no key `motion`, as in folders written before the setting existed.
    """
    simulator = asdict(settings)
    if settings.motion is None:
        del simulator["motion"]
    return json.loads(json.dumps({"simulator_version": SIMULATOR_VERSION, "seed": seed, "simulator": simulator}))


def claim_folder(out: Path, content: Mapping[str, Any]) -> None:
    """Mark the folder `out` as made from `content`; InputError if it was made from anything else."""
    path = out / MANIFEST
    if path.exists():
        found = read_json(path, "delete the folder, or choose another one")
        if found != content:
            different = sorted(key for key in {*found, *content} if found.get(key) != content.get(key))
            raise InputError(
                f"{path}: this folder was made with other settings ({', '.join(different)}); choose another folder, "
                "or delete this one"
            )
        return
    if (out / "training").exists():
        raise InputError(f"{out}: contains frames that the simulator did not write; choose another folder")
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_frames(
    out: Path, indices: Iterable[int], settings: SimulatorSettings, seed: int, workers: int = 0, progress: bool = True
) -> int:
    """Render those of the frames `indices` that are missing in out/training; return how many were rendered.

    `workers` is the number of processes, 0 for one per core; few frames are rendered by fewer processes.
    """
    training, parts = out / "training", _parts(settings)
    missing = [index for index in indices if not all(_file(training, part, index).is_file() for part in parts)]
    if not missing:
        return 0
    processes = min(workers or _cores(), math.ceil(len(missing) / FRAMES_WORTH_A_PROCESS))
    write = partial(_write_frame, training, settings, seed)
    with progress_line("simulated frames", len(missing)) if progress else nullcontext(lambda done: None) as advance:
        for done, _ in enumerate(_mapped(write, missing, processes), start=1):
            advance(done)
    return len(missing)


def write_folder(
    out: Path,
    frames: int,
    settings: SimulatorSettings,
    seed: int = 0,
    workers: int = 0,
    val_share: float = 0.2,
    progress: bool = True,
) -> None:
    """Write frames 0..frames-1 as a standard KITTI folder.

    About the last `val_share` (0..1) of them are the validation split, which shares no sequence with the training
    split. Called again after an interruption, the function continues. InputError if the folder was made with different
    settings, seed, `frames` or `val_share`.
    """
    if frames < 1:
        raise InputError(f"{frames} frames cannot be simulated; ask for at least one")
    if not 0 <= val_share <= 1:
        raise InputError(f"val_share is {val_share}; give a number from 0 to 1")
    claim_folder(out, manifest(settings, seed) | {"frames": frames, "val_share": val_share})
    together = settings.frames_per_sequence
    train = min(frames, together * round((frames - round(frames * val_share)) / together))
    write_lists(out, {"train": range(train), "val": range(train, frames), "trainval": range(frames)})
    write_frames(out, range(frames), settings, seed, workers, progress)


def write_lists(out: Path, splits: Mapping[str, Sequence[int]]) -> None:
    """Write the lists of frames under ImageSets; files that already have this content are not written again."""
    for name, indices in splits.items():
        path, text = out / "ImageSets" / f"{name}.txt", "".join(f"{frame_id(index)}\n" for index in indices)
        if not path.exists() or read_text(path, "delete it, and it is written again") != text:
            write_text(path, text)


def _write_frame(training: Path, settings: SimulatorSettings, seed: int, index: int) -> None:
    scan = simulate_frame(settings, seed, index)
    calibration = camera_calibration()
    write_text(_file(training, "calib", index), calibration_text(calibration))
    write_objects(_file(training, "label_2", index), label_rows(scan.objects, calibration))
    if settings.motion is not None:
        labelled, _ = annotated(scan.objects, calibration)
        motion = motion_of(scan, frame_id(index // settings.frames_per_sequence), labelled)
        write_text(_file(training, MOTION, index), motion_text(motion))
    with written_aside(_file(training, "velodyne", index)) as aside:
        scan.points.astype("<f4").tofile(aside)


def _file(training: Path, part: str, index: int) -> Path:
    return training / part / f"{frame_id(index)}.{PARTS[part]}"


def _parts(settings: SimulatorSettings) -> list[str]:
    """The folders that contain a file per frame."""
    return [part for part in PARTS if part != MOTION or settings.motion is not None]


def _mapped(write: partial[None], indices: Sequence[int], processes: int) -> Iterator[None]:
    if processes <= 1:
        yield from map(write, indices)
        return
    # Spawned rather than forked, because the parent may have threads of torch.
    with ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        with held_back():  # signals reach only this process; the workers finish their frames first
            written = pool.map(write, indices, chunksize=8)
        try:
            yield from written
        except Stopped:
            pool.shutdown(cancel_futures=True)
            raise


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
