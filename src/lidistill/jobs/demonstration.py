"""The main job on the simulator, from nothing to a report: teacher, plain student, distilled student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lidistill.data.simulated import SimulatedData
from lidistill.experiment import Experiment
from lidistill.files import claimed
from lidistill.jobs.reporting import report
from lidistill.jobs.setup import distilled, plain_student, supervised
from lidistill.jobs.training import train
from lidistill.run_folder import RunFolder

COMPRESSION = 4.0
LESSONS = ("pointdistiller", "logits")
# A demo frame has about 1,700 pillars where a KITTI frame has 7,000: fewer graphs with fewer edges, in proportion.
LESSON_SETTINGS = ("methods.pointdistiller.num_queries=300", "methods.pointdistiller.num_neighbours=32")


def demo(out: str | Path, *, seed: int = 0, overrides: Sequence[str] = (), device: str = "auto") -> Path:
    """Simulate, train a teacher, a plain and a distilled 4x student on the same schedule, compare; returns the HTML report.

    Finished stages are kept, an interrupted one goes on: run it again and it ends where an uninterrupted demo would have.
    """
    with claimed(out):
        return _demo(Path(out), seed, overrides, device)


def _demo(out: Path, seed: int, overrides: Sequence[str], device: str) -> Path:
    console = Console(stderr=True)
    base = supervised("pointpillars", data=f"simulated:{out / 'data'}", seed=seed, overrides=overrides)
    data = base.data
    assert isinstance(data, SimulatedData)
    console.print(f"[bold]1/5[/bold] simulated streets: {data.train_frames} frames to train on, {data.val_frames} to score on")
    data.open("train")
    data.open("val")
    console.print("[bold]2/5[/bold] the teacher")
    teacher = _stage(base, out / "teacher", device)
    console.print(f"[bold]3/5[/bold] the plain {COMPRESSION:g}x student, on the teacher's schedule")
    plain = _stage(plain_student(str(teacher), compression=COMPRESSION), out / "plain", device)
    console.print(f"[bold]4/5[/bold] the same student, distilled by {' and '.join(LESSONS)}")
    student = _stage(distilled(str(teacher), compression=COMPRESSION, methods=LESSONS, overrides=LESSON_SETTINGS), out / "distilled", device)
    console.print("[bold]5/5[/bold] the report")
    written = report([teacher, plain, student], out / "report", device=device)
    console.print(written.headline, highlight=False)
    return written.path


def _stage(experiment: Experiment, path: Path, device: str) -> Path:
    if not RunFolder(path).scores.is_file():
        train(experiment, path, resume=True, device=device)
    return path
