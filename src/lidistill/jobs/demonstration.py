"""The demo: a teacher, a plain student and a distilled student on simulated frames, and a report about them."""

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
from lidistill.jobs.devices import pick_device
from lidistill.jobs.reporting import report
from lidistill.jobs.setup import distilled, plain_student, supervised
from lidistill.jobs.trained_runs import read_experiment
from lidistill.jobs.training import train
from lidistill.progress import StagedWork
from lidistill.run_folder import RunFolder
from lidistill.types import InputError

COMPRESSION = 4.0
DEMO_METHODS = ("pointdistiller", "logits")
# A demo frame has about 1,700 pillars and a KITTI frame 7,000, so PointDistiller's graphs are fewer and smaller
# in proportion.
DEMO_METHOD_SETTINGS = ("methods.pointdistiller.num_queries=300", "methods.pointdistiller.num_neighbours=32")

SCORED_WHILE_TRAINING = "training.validate_every=400"  # steps; scoring changes no weight

# Expected time of each stage on two cores; only the proportions matter.
SECONDS = {"data": 25.0, "teacher": 185.0, "plain": 235.0, "distilled": 255.0, "report": 20.0}


def demo(
    out: str | Path, *, seed: int = 0, overrides: Sequence[str] = (), anew: bool = False, device: str = "auto"
) -> Path:
    """Simulate frames, train a teacher and two students with a quarter of its parameters, and compare the three.

    Returns the path of the HTML report. All three are trained on the same schedule; one student is trained alone, the
    other is distilled. After an interruption, run it again: finished stages are kept, the interrupted one is resumed,
    and the result equals that of an uninterrupted demo. InputError if `out` holds a demo with other settings; with
    `anew` that demo is removed first.
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
    with stages.work.stage("data"):
        console.print(
            f"[bold]1/5[/bold] simulated streets: {data.train_frames} frames to train on, {data.val_frames} to score on"
        )
        data.open("train")
        data.open("val")
    console.print("[bold]2/5[/bold] the teacher")
    teacher = stages.run(base, "teacher")
    console.print(f"[bold]3/5[/bold] the plain {COMPRESSION:g}x student, on the teacher's schedule")
    plain = stages.run(plain_student(str(teacher), compression=COMPRESSION), "plain")
    console.print(f"[bold]4/5[/bold] the same student, distilled by {' and '.join(DEMO_METHODS)}")
    student = stages.run(
        distilled(str(teacher), compression=COMPRESSION, methods=DEMO_METHODS, overrides=DEMO_METHOD_SETTINGS),
        "distilled",
    )
    console.print("[bold]5/5[/bold] the report")
    with stages.work.stage("report"):
        written = report([teacher, plain, student], out / "report", device=device)
    console.print(written.headline, highlight=False)
    return written.path


class _Stages:
    """The runs of a demo, each trained once."""

    def __init__(self, out: Path, device: str) -> None:
        self.out = out
        self.device = device
        self.work = StagedWork("demo", SECONDS)

    def run(self, experiment: Experiment, name: str) -> Path:
        self.check(experiment, name)
        folder = RunFolder(self.out / name)
        if folder.scores.is_file():
            self.work.skip(name)
        else:
            with self.work.stage(name):
                train(experiment, folder.path, resume=True, device=self.device)
        return folder.path

    def check(self, experiment: Experiment, name: str) -> None:
        """Raise InputError if the folder holds a run with other settings."""
        folder = RunFolder(self.out / name)
        if not folder.experiment.is_file():
            return
        before, now = (_of_any_folder(settings).to_dict() for settings in (read_experiment(folder), experiment))
        changed = [key for key, value in now.items() if before.get(key) != value]
        if changed:
            raise InputError(
                f"{self.out} holds a demo made with other settings ({', '.join(changed)}); replace it with "
                "--anew, or choose another --out"
            )


def _of_any_folder(experiment: Experiment) -> Experiment:
    """Leave out the paths of folders, because one folder can be written in several ways."""
    distillation = experiment.distillation
    return replace(
        experiment,
        data=replace(experiment.data, root="") if isinstance(experiment.data, SimulatedData) else experiment.data,
        distillation=None if distillation is None else replace(distillation, teacher="teacher"),
    )


def _remove(out: Path, data: SimulatedData) -> None:
    """Remove what a demo has written to `out`, except simulated frames that the next demo can use."""
    if not (out / "data" / MANIFEST).is_file():  # the demo writes it first, so without it the folder is not a demo's
        return
    for name in ("teacher", "plain", "distilled", "report"):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
    if not data.fits_folder():
        shutil.rmtree(out / "data")
