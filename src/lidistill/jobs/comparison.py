"""Trains many students of one teacher on the same schedule: every method, every seed, one table.

Rows differ in seed and distillation only: data, order of frames, schedule, augmentation, network and post-processing
are the same, and this is checked. Each student has an ordinary run folder. Finished students are kept, interrupted ones
resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from rich.console import Console

from lidistill.configuration import plain, read_yaml
from lidistill.datasets import PROTOCOLS
from lidistill.experiment import Experiment
from lidistill.files import claimed, write_text
from lidistill.jobs.comparison_plan import (
    Comparison,
    Row,
    check_alike,
    check_distillations,
    first_seeds,
    plan_student_runs,
)
from lidistill.jobs.devices import pick_device, with_precision
from lidistill.jobs.reporting import report
from lidistill.jobs.setup import supervised
from lidistill.jobs.step_cost import measure_steps
from lidistill.jobs.student_runs import StudentRun, train_students
from lidistill.jobs.trained_runs import load_run, read_experiment
from lidistill.jobs.training import examine_teacher, train
from lidistill.reading import is_folder, read_text, sha256_of
from lidistill.report.measures.compared_rows import ComparedRow
from lidistill.report.measures.comparison_tables import write_comparison
from lidistill.report.render.console import print_table
from lidistill.run_folder import RunFolder, read_json
from lidistill.settings import AtLeastOneProcess, checked
from lidistill.types import InputError

__all__ = ["Comparison", "Row", "compare", "first_seeds"]


def compare(
    plan: Comparison,
    out: str | Path,
    *,
    processes: int = 1,
    device: str = "auto",
    ray: str | None = None,
    certificate: bool = True,
) -> Path:
    """Train the teacher, unless the plan names a finished one, then one student per row and seed.

    Returns the path of the table in Markdown. `processes` students are trained at a time, each with an equal share of
    the processor's cores. `ray` is the address of a Ray cluster that trains them instead; its machines must share the
    file system of `out`. `certificate=False` skips the check of the teacher.

    InputError if the rows cannot be compared fairly, `out` holds another plan or other runs, the teacher has no scores
    or fails its check, or students could not be trained.
    """
    out = Path(out)
    processes = checked(AtLeastOneProcess, processes, "--processes")
    finished = is_folder(plan.start)
    teacher = Path(plan.start) if finished else out / "teacher"
    teacher_experiment = supervised(
        plan.start,
        data=plan.data,
        seed=None if finished else plan.seeds[0],
        overrides=() if finished else plan.overrides,
    )
    cells = plan_student_runs(plan, teacher_experiment, teacher, out)
    check_alike(cells, teacher_experiment)
    training = with_precision(cells[0].experiment, pick_device(device)).training
    cells = [replace(cell, experiment=replace(cell.experiment, training=training)) for cell in cells]
    check_distillations(cells, teacher_experiment)
    if finished and not RunFolder(teacher).scores.is_file():
        raise InputError(
            f"{teacher}: the teacher has no scores to compare with; run `lidistill evaluate {teacher}` first"
        )
    with claimed(out):
        _keep_plan(out, plan)
        console = Console(stderr=True)
        if not RunFolder(teacher).scores.is_file():
            console.print("[bold]the teacher[/bold]")
            train(teacher_experiment, teacher, resume=True, device=device)
        _keep_teacher(out, teacher)
        if certificate:
            _examine(cells, teacher, out, device)
        _check_finished(cells)
        rows = list(dict.fromkeys(cell.row for cell in cells))
        console.print(
            f"[bold]{len(cells)} students[/bold]: {len(rows)} rows, including the plain student, with "
            f"{len(plan.seeds)} seeds each"
        )
        train_students(cells, processes=processes, device=device, ray=ray)
        first = [cell for cell in cells if cell.seed == plan.seeds[0]]
        measure_steps({cell.folder: cell.experiment for cell in first}, device)
        report([teacher, *(cell.folder for cell in first)], out / "report", device=device)
        compared = [ComparedRow(name, tuple(cell.folder for cell in cells if cell.row == name)) for name in rows]
        written = write_comparison(compared, teacher, out, PROTOCOLS)
    print_table(written.gains)
    return written.path


def _keep_plan(out: Path, plan: Comparison) -> None:
    """Write the plan beside the runs; InputError if the runs there were made for another plan."""
    path = out / "comparison.yaml"
    content = plain(asdict(plan))
    if path.is_file() and read_yaml(path) != content:
        raise InputError(
            f"{path} holds another plan; resume with the same rows, seeds and settings, or choose another --out"
        )
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def _keep_teacher(out: Path, teacher: Path) -> None:
    """Write the hash of the teacher's weights; InputError if the students in `out` had another teacher."""
    path = out / "teacher.sha256"
    digest = sha256_of(RunFolder(teacher).checkpoint, "train the teacher again, or restore its folder")
    if path.exists() and read_text(path, "choose another --out").strip() != digest:
        raise InputError(
            f"{teacher}: the teacher's weights have changed since the first students here were trained; choose "
            "another --out"
        )
    write_text(path, digest + "\n")


def _examine(cells: Sequence[StudentRun], teacher: Path, out: Path, device: str) -> None:
    """Check the teacher once, before the first student; InputError if it fails."""
    folder = RunFolder(out)
    experiment = next(cell.experiment for cell in cells if cell.experiment.distillation is not None)
    distillation = experiment.distillation
    assert distillation is not None
    if not (folder.certificate.is_file() and read_json(folder.certificate).get("passed") is True):
        examine_teacher(load_run(teacher), experiment, distillation, folder, experiment.data.open("val"), device)


def _check_finished(cells: Sequence[StudentRun]) -> None:
    """Raise InputError if a run was trained with other settings than the plan's, this version's defaults included."""
    for cell in cells:
        folder = RunFolder(cell.folder)
        if folder.experiment.is_file():
            before: Experiment = read_experiment(folder)
            if before != cell.experiment:
                raise InputError(
                    f"{cell.folder} was trained with other settings than the plan now asks for; remove it, or choose "
                    "another --out"
                )
