"""The main job on the simulator, from nothing to a report: teacher, plain student, distilled student."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lidistill.datasets.simulated.folder import MANIFEST
from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.experiment import Experiment
from lidistill.files import claimed
from lidistill.jobs.reporting import report
from lidistill.jobs.setup import distilled, plain_student, supervised
from lidistill.jobs.trained_runs import pick_device, read_experiment
from lidistill.jobs.training import train
from lidistill.progress import Whole
from lidistill.run_folder import RunFolder
from lidistill.types import InputError

COMPRESSION = 4.0
LESSONS = ("pointdistiller", "logits")
# A demo frame has about 1,700 pillars where a KITTI frame has 7,000: fewer graphs with fewer edges, in proportion.
LESSON_SETTINGS = ("methods.pointdistiller.num_queries=300", "methods.pointdistiller.num_neighbours=32")


SCORED_WHILE_TRAINING = "training.validate_every=400"  # steps; it changes no weight

# Expected of each stage on two cores; only their proportions matter.
SECONDS = {"data": 25.0, "teacher": 185.0, "plain": 235.0, "distilled": 255.0, "report": 20.0}


def demo(
    out: str | Path, *, seed: int = 0, overrides: Sequence[str] = (), anew: bool = False, device: str = "auto"
) -> Path:
    """Simulate, train a teacher, a plain and a distilled 4x student on the same schedule, compare; returns the HTML
    report.

    Finished stages are kept, an interrupted one goes on: run it again and it ends where an uninterrupted demo would
    have. A demo of other settings is refused; with `anew` it is removed first.
    """
    pick_device(device)
    with claimed(out):
        return _demo(Path(out), seed, overrides, anew, device)


def _demo(out: Path, seed: int, overrides: Sequence[str], anew: bool, device: str) -> Path:
    console = Console(stderr=True)
    base = supervised(
        "pointpillars", data=f"simulated:{out / 'data'}", seed=seed, overrides=[SCORED_WHILE_TRAINING]
    ).overridden(overrides)
    data = base.data
    assert isinstance(data, SimulatedData)
    if anew:
        _remove(out, data)
    stages = _Stages(out, device)
    stages.check(base, "teacher")
    with stages.whole.stage("data"):
        console.print(
            f"[bold]1/5[/bold] simulated streets: {data.train_frames} frames to train on, {data.val_frames} to score on"
        )
        data.open("train")
        data.open("val")
    console.print("[bold]2/5[/bold] the teacher")
    teacher = stages.run(base, "teacher")
    console.print(f"[bold]3/5[/bold] the plain {COMPRESSION:g}x student, on the teacher's schedule")
    plain = stages.run(plain_student(str(teacher), compression=COMPRESSION), "plain")
    console.print(f"[bold]4/5[/bold] the same student, distilled by {' and '.join(LESSONS)}")
    student = stages.run(
        distilled(str(teacher), compression=COMPRESSION, methods=LESSONS, overrides=LESSON_SETTINGS), "distilled"
    )
    console.print("[bold]5/5[/bold] the report")
    with stages.whole.stage("report"):
        written = report([teacher, plain, student], out / "report", device=device)
    console.print(written.headline, highlight=False)
    return written.path


class _Stages:
    """The runs of a demo, each made once."""

    def __init__(self, out: Path, device: str) -> None:
        self.out = out
        self.device = device
        self.whole = Whole("demo", SECONDS)

    def run(self, experiment: Experiment, name: str) -> Path:
        self.check(experiment, name)
        folder = RunFolder(self.out / name)
        if folder.scores.is_file():
            self.whole.skip(name)
        else:
            with self.whole.stage(name):
                train(experiment, folder.path, resume=True, device=self.device)
        return folder.path

    def check(self, experiment: Experiment, name: str) -> None:
        """InputError where the folder holds a run of other settings."""
        folder = RunFolder(self.out / name)
        if not folder.experiment.is_file():
            return
        before, now = (_of_any_folder(settings).to_dict() for settings in (read_experiment(folder), experiment))
        changed = [key for key, value in now.items() if before.get(key) != value]
        if changed:
            raise InputError(
                f"{self.out} holds a demo made with other settings ({', '.join(changed)}); make it anew with --anew, "
                "which removes that one, "
                "or choose another --out"
            )


def _of_any_folder(experiment: Experiment) -> Experiment:
    """Without the folders in it, which are the same ones however they are written."""
    lessons = experiment.distillation
    return replace(
        experiment,
        data=replace(experiment.data, root="") if isinstance(experiment.data, SimulatedData) else experiment.data,
        distillation=None if lessons is None else replace(lessons, teacher="teacher"),
    )


def _remove(out: Path, data: SimulatedData) -> None:
    """What a demo has written into `out`; streets that the next one would simulate again are kept."""
    if not (out / "data" / MANIFEST).is_file():  # written first: without it, this is no demo's folder
        return
    for name in ("teacher", "plain", "distilled", "report"):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    if not data.fits_folder():
        shutil.rmtree(out / "data")
