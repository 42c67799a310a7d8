"""What do a few real frames add to a detector that was trained on the simulator?

Each row is a detector, scored on the real KITTI frames of the list val as in bench_real_kitti.py; gains are over the
first row.

simulated       the teacher, trained on the simulator alone
fine-tuned      the teacher, trained further on the labelled real frames of the list train
real-alone      the same network, trained on these frames from random weights
both            the teacher, trained further on these frames and as many of its own simulated ones
label-free      the same network, started as the teacher and trained on a drive, with the teacher's detections as labels
label-free-4x   the same with a quarter of the parameters, started from a part of the teacher's channels

    python benchmarks/train_on_real_frames.py KITTI_FOLDER TEACHER [--drive DRIVE_FOLDER] [--steps 800]
        [--only fine-tuned ...] [--work runs/real-training] [--out docs/results/real_training.json]

Objects of the real frames are pasted into others, where the frames are alone. Everything else follows the teacher's
settings; networks that start as the teacher learn at a tenth of its rate. Labels of the drive are not used: it may be
in the layout of KITTI's object set or of its tracking set. Finished trainings and scores in `--work` are kept, and
interrupted ones are resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench_real_kitti import ScoredRun, print_tables, side_by_side
from measure import record

from lidistill.data.source import DataSettings, FrameSource
from lidistill.datasets import parse_source
from lidistill.datasets.joined import JoinedFrames
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.experiment import Experiment
from lidistill.files import claimed
from lidistill.jobs import distilled, fine_tuned, supervised, train
from lidistill.jobs.provenance import recorded_data
from lidistill.jobs.trained_runs import read_experiment
from lidistill.reading import sha256_of
from lidistill.run_folder import RunFolder, read_json, write_json
from lidistill.training.cache_keys import digest_of
from lidistill.types import InputError

SIMULATED = "simulated"
# row that is trained -> its initial weights
ROWS = {
    "fine-tuned": "those of the teacher",
    "real-alone": "random",
    "both": "those of the teacher",
    "label-free": "those of the teacher",
    "label-free-4x": "a part of the teacher's channels",
}
SPLIT = "val"
PASTED = 15  # target count of objects of each class, as in the public toolboxes
TEACHER_SCORE = 0.3  # lowest score at which a detection of the teacher becomes a label
GENTLE = 0.1  # learning rate of networks that start as the teacher, relative to the teacher's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kitti", type=Path, help="folder that holds training/ and ImageSets/train.txt and val.txt")
    parser.add_argument("teacher", type=Path, help="run folder of a detector that was trained on the simulator")
    parser.add_argument("--drive", type=Path, help="folder of a drive, for the rows without labels")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="rows besides the first; default: all")
    parser.add_argument("--steps", type=int, default=800, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/real-training"), help="folder of runs and scores")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    teacher, kitti = arguments.teacher.resolve(), arguments.kitti.resolve()
    drive = arguments.drive.resolve() if arguments.drive else None
    every = experiments(teacher, kitti, drive, arguments.steps, arguments.seed)
    if absent := sorted(set(arguments.only or ()) - every.keys()):
        parser.error(
            f"{', '.join(absent)}: without labels give the folder of a drive (--drive), for both a teacher of streets "
            "with default settings"
        )
    rows = {name: experiment for name, experiment in every.items() if name in (arguments.only or every)}
    data = KittiData(root=str(kitti), classes=read_experiment(RunFolder(teacher)).detector.classes)
    with claimed(arguments.work):
        check_apart(data.open(SPLIT), {name: row.data.open("train") for name, row in rows.items()})
        check_inputs(arguments.work, teacher, data.open(SPLIT))
        runs = [ScoredRun(SIMULATED, teacher, RunFolder(arguments.work / SIMULATED))]
        for name, experiment in rows.items():
            folder = RunFolder(arguments.work / name)
            train_once(experiment, folder)
            runs.append(ScoredRun(name, folder.path, folder.of_split(f"{data.name}-{SPLIT}")))
        content = side_by_side(runs, data, SPLIT)
        for row in runs:
            content["runs"][row.name]["training"] = conditions(row.name, RunFolder(row.run))
    print_tables(content)
    if arguments.out:
        record(arguments.out, "real_training", {"teacher_score": TEACHER_SCORE, "pasted": PASTED, **content})


def experiments(teacher: Path, kitti: Path, drive: Path | None, steps: int, seed: int) -> dict[str, Experiment]:
    """Return the experiment of each row that can be trained: on simulated frames too only if the teacher's streets have
    default settings, and without labels only with a drive.
    """
    base = read_experiment(RunFolder(teacher))
    every = [f"training.steps={steps}", "training.validate_every=0", "training.workers=0"]
    gentle = f"training.learning_rate={base.training.learning_rate * GENTLE:g}"
    paste = ", ".join(f"{name}: {PASTED}" for name in base.detector.classes)
    frames, labelled = f"kitti:{kitti}", [*every, f"augmentation.paste={{{paste}}}"]
    rows = {
        "fine-tuned": fine_tuned(teacher, data=frames, seed=seed, overrides=[*labelled, gentle]),
        "real-alone": supervised(str(teacher), data=frames, seed=seed, overrides=labelled),
    }
    if (streets := streets_of(base.data)) is not None:
        share = max(1, round(streets.train_frames / len(KittiData(root=str(kitti)).open("train"))))
        both = [*every, gentle, "augmentation.paste={}", f"data.repeats=[1,{share}]"]
        source = f"joined:{streets.name}:{streets.root}+{frames}"
        rows["both"] = fine_tuned(teacher, data=source, seed=seed, overrides=both)
    if drive is None:
        return rows
    scans, all_scans = drive_source(drive)
    unlabelled = [
        *every,
        *all_scans,
        "augmentation.paste={}",
        "distillation.labelled_share=0",
        f"distillation.teacher_labels={TEACHER_SCORE}",
        "distillation.initialise=first",
    ]
    student = partial(distilled, str(teacher), methods=(), data=scans, seed=seed)
    return {
        **rows,
        "label-free": student(compression=1, overrides=[*unlabelled, gentle]),
        "label-free-4x": student(compression=4, overrides=unlabelled),
    }


def streets_of(data: DataSettings) -> SimulatedData | None:
    """Return the teacher's streets if they can be joined: if they have no settings but those of their name."""
    return data if isinstance(data, SimulatedData) and parse_source(f"{data.name}:{data.root}") == data else None


def drive_source(drive: Path) -> tuple[str, list[str]]:
    """Return the source of a drive's frames, and the settings with which all of them are trained on.

    A training is scored on the validation split of its own dataset, so that split has the same frames. This score says
    little and is not shown.
    """
    scans = drive / "training" / "velodyne"
    if not scans.is_dir():
        raise InputError(f"{scans}: no such folder; give the folder of a drive, which contains training/velodyne")
    sequences = sorted(path.name for path in scans.iterdir() if path.is_dir())
    if not sequences:
        return f"kitti:{drive}", ["data.train_split=all", "data.val_split=all"]
    listed = ", ".join(f'"{name}"' for name in sequences)
    return f"kitti-tracking:{drive}", [f"data.train_sequences=[{listed}]", f"data.val_sequences=[{listed}]"]


def check_apart(scored: FrameSource, trained: Mapping[str, FrameSource]) -> None:
    """Raise InputError if a frame is both scored and trained on: one scan has other names in KITTI's other sets."""
    held_out = {digest_of(frame.points): frame.id for frame in scored}
    for name, source in trained.items():
        for frame in source:
            if (same := held_out.get(digest_of(frame.points))) is not None:
                raise InputError(f"{name} would be trained on the scan {frame.id}, which is {same} of the list {SPLIT}")


def check_inputs(work: Path, teacher: Path, scored: FrameSource) -> None:
    """Raise InputError if the runs and scores in `work` had another teacher or were scored on other frames."""
    path = work / "inputs.json"
    inputs = {"teacher": sha256_of(RunFolder(teacher).checkpoint), "frames": scored.fingerprint()}
    if path.is_file() and (differing := [key for key, value in read_json(path).items() if inputs.get(key) != value]):
        raise InputError(f"{work}: was made with another {' and other '.join(differing)}; choose another --work")
    write_json(path, inputs)


def train_once(experiment: Experiment, folder: RunFolder) -> None:
    """Train and score a run, or resume it; a finished one stays as it is. InputError if it had other settings."""
    if folder.scores.is_file():
        if read_experiment(folder) != experiment:
            raise InputError(f"{folder.path}: was trained with other settings; remove it, or choose another --work")
        return
    # The check of a teacher needs labels of the drive, which counts as unlabelled.
    train(experiment, folder.path, resume=True, certificate=False)


def conditions(name: str, folder: RunFolder) -> dict[str, Any]:
    """Return how the run of a row was trained."""
    own = read_experiment(folder)
    provenance = folder.read_experiment().get("provenance", {})
    found = {
        "data": dict(recorded_data(folder)),
        "steps": own.training.steps,
        "batch_size": own.training.batch_size,
        "learning_rate": own.training.learning_rate,
        "seed": own.seed,
        **{key: provenance.get(key) for key in ("commit", "device", "created")},
        "parameters": read_json(folder.profile)["parameters"],
        "seconds": folder.read_log()[-1]["time_s"],
    }
    if name == SIMULATED:
        return found
    return {
        **found,
        **training_frames(own.data.open("train")),
        "labels": "recorded" if own.distillation is None else "detections of the teacher",
        "initial_weights": ROWS[name],
    }


def training_frames(source: FrameSource) -> dict[str, int]:
    """Return the number of real frames, and of simulated ones beside them."""
    if not isinstance(source, JoinedFrames):
        return {"frames": len(source)}
    simulated, *real = source.sources
    return {"frames": len(real[0]), "repeats": len(real), "simulated_frames": len(simulated)}


if __name__ == "__main__":
    main()
