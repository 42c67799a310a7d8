"""Many students of one teacher under one budget: every method, every seed, one table.

Everything but the lesson is the same in all rows (data, order of frames, schedule, augmentation, network, post-processing), and that is checked, not
hoped for. Each cell is an ordinary run folder; what is finished is kept, what was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from lidistill.configuration import plain, read_yaml, settings_from
from lidistill.experiment import Experiment
from lidistill.files import write_text
from lidistill.jobs.cells import Cell, run_cells
from lidistill.jobs.runs import read_experiment
from lidistill.jobs.setup import distilled, plain_student, supervised
from lidistill.jobs.step_cost import measure_step
from lidistill.jobs.training import train
from lidistill.report.comparison import ComparedRow, write_comparison
from lidistill.report.page import write_report
from lidistill.run_folder import RunFolder
from lidistill.types import InputError, Settings

PLAIN = "none"


@dataclass(frozen=True)
class Row(Settings):
    """One kind of student."""

    name: str
    methods: tuple[str, ...] = ()  # none: the plain student, or the teacher's labels alone
    overrides: tuple[str, ...] = ()  # of the lessons only, for example methods.pointdistiller.reweight=false

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\ "):
            raise InputError(f"row name {self.name!r}: it names a folder, so leave out spaces and slashes")
        for override in self.overrides:
            if not override.startswith(("methods.", "distillation.")):
                raise InputError(f"row {self.name}: {override!r} would change more than the lesson; set it for all rows instead")

    @staticmethod
    def of(text: str) -> Row:
        """ "itkd" or "itkd+logits"; "none" is the plain student."""
        names = tuple(part for part in text.split("+") if part)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"row {text!r} lists {', '.join(twice)} twice; list each method once and set its weight")
        return Row(text, () if names == (PLAIN,) else names)


@dataclass(frozen=True)
class Comparison(Settings):
    """What to compare, and under which budget."""

    start: str  # the teacher's run folder; or a detector's name or a YAML file, from which a teacher is trained first
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    compression: float = 4.0
    data: str | None = None
    overrides: tuple[str, ...] = ()  # of every run, the teacher's own training included

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"rows {', '.join(twice)} are listed twice; name each row once")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds are {list(self.seeds)}; give at least one, each once")
        if not [row for row in self.rows if row.name != PLAIN]:
            raise InputError("nothing to compare with the plain student; name at least one method")

    @staticmethod
    def read(path: str | Path) -> Comparison:
        """A recipe in YAML."""
        return settings_from(Comparison, read_yaml(Path(path)), str(path))

    def changed(self, *, teacher: str | Path | None, seeds: int | None, overrides: Sequence[str]) -> Comparison:
        """With another teacher (and its data), so many seeds, and more overrides; None and nothing keep the recipe's own."""
        return replace(
            self,
            start=self.start if teacher is None else str(teacher),
            data=self.data if teacher is None else None,
            seeds=self.seeds if seeds is None else tuple(range(seeds)),
            overrides=(*self.overrides, *overrides),
        )


def compare(plan: Comparison, out: str | Path, *, processes: int = 1, device: str = "auto", ray: str | None = None, certificate: bool = True) -> Path:
    """Train the teacher (or take it), the plain student and a student a row and seed; returns the table in Markdown.

    `processes` students are trained at a time, each with its share of the processor's cores; `ray` is the address of a Ray cluster that does it
    instead, on a file system that all of its machines share. `certificate=False` skips the examination of the teacher.
    """
    out = Path(out)
    _claim(out, plan)
    console = Console(stderr=True)
    teacher = _teacher(plan, out, device, console)
    cells = plan_cells(plan, teacher, out, certificate)
    check_alike(cells, read_experiment(RunFolder(teacher)))
    console.print(f"[bold]{len(cells)} students[/bold]: {len(plan.rows)} rows of {len(plan.seeds)} seeds, and the plain ones")
    run_cells(cells, processes=processes, device=device, ray=ray)
    for cell in cells:
        if cell.seed == plan.seeds[0]:
            measure_step(cell.experiment, cell.folder, device)
    rows = [ComparedRow(name, tuple(cell.folder for cell in cells if cell.row == name)) for name in dict.fromkeys(cell.row for cell in cells)]
    write_report([teacher, *(cell.folder for cell in cells if cell.seed == plan.seeds[0])], out / "report")
    return write_comparison(rows, teacher, out)


def plan_cells(plan: Comparison, teacher: Path, out: Path, certificate: bool = True) -> list[Cell]:
    """Every student to train, the plain ones first."""
    rows = [Row(PLAIN), *(row for row in plan.rows if row.name != PLAIN)]
    cells = []
    for row in rows:
        for seed in plan.seeds:
            experiment: Experiment
            if row.name == PLAIN:
                experiment = plain_student(str(teacher), compression=plan.compression, data=plan.data, seed=seed, overrides=plan.overrides)
            else:
                experiment = distilled(
                    str(teacher),
                    compression=plan.compression,
                    methods=row.methods or (PLAIN,),
                    data=plan.data,
                    seed=seed,
                    overrides=(*plan.overrides, *row.overrides),
                )
            # The teacher is the same for all: one examination for each row is enough.
            cells.append(Cell(row.name, seed, experiment, out / f"{row.name}-seed{seed}", certificate and seed == plan.seeds[0]))
    return cells


def check_alike(cells: Sequence[Cell], teacher: Experiment) -> None:
    """An InputError unless the students differ in seed and lesson alone, and the teacher's boxes are taken from its maps as theirs are."""
    first = _terms(cells[0].experiment)
    for cell in cells[1:]:
        for key, value in _terms(cell.experiment).items():
            if value != first[key]:
                raise InputError(
                    f"{cells[0].row} and {cell.row} would be compared under other terms: their {key} settings differ; set them for all rows"
                )
    own, others = (experiment.to_dict()["detector"]["head"].get("post") for experiment in (teacher, cells[0].experiment))
    if own != others:
        raise InputError("the teacher's boxes are post-processed otherwise than the students' (detector.head.post); use the same settings for both")


def _terms(experiment: Experiment) -> dict[str, Any]:
    content = experiment.to_dict()
    return {key: content[key] for key in ("data", "detector", "training", "augmentation")}


def _claim(out: Path, plan: Comparison) -> None:
    """Write the plan beside the runs, or make sure that it is the one the runs there were made for."""
    path = out / "comparison.yaml"
    content = plain(asdict(plan))
    if path.is_file() and read_yaml(path) != content:
        raise InputError(f"{path} holds another plan; go on with the same rows, seeds and settings, or choose another --out")
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def _teacher(plan: Comparison, out: Path, device: str, console: Console) -> Path:
    if Path(plan.start).is_dir():
        return Path(plan.start)
    folder = out / "teacher"
    if not RunFolder(folder).scores.is_file():
        console.print("[bold]the teacher[/bold]")
        experiment = supervised(plan.start, data=plan.data, seed=plan.seeds[0], overrides=plan.overrides)
        train(experiment, folder, resume=True, device=device)
    return folder
