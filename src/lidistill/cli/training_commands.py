"""Commands that train: one detector, one distilled student, or the students of a comparison."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lidistill.cli.app import (
    DETECTOR_NAMES,
    METHOD_NAMES,
    Certificate,
    Data,
    Device,
    MultipleOf,
    Out,
    Overrides,
    Resume,
    Seed,
    Student,
    app,
    show_scores,
)
from lidistill.errors import InputError


@app.command()
def train(
    out: Out,
    start: Annotated[
        str | None,
        typer.Argument(
            help=f"A detector ({DETECTOR_NAMES}), a YAML file of settings, or an earlier run's folder, whose settings "
            "are used but not its weights. Not needed with --resume or --from."
        ),
    ] = None,
    overrides: Overrides = None,
    data: Data = None,
    compression: Annotated[
        float | None,
        typer.Option(help="Train a thinner student of the run START without distillation: the plain baseline."),
    ] = None,
    student: Student = None,
    multiple_of: MultipleOf = 1,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Fine-tune: start from the weights of this trained or imported run instead of random ones."
        ),
    ] = None,
    seed: Seed = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Train a detector without a teacher: from scratch, or from the weights of an earlier run (--from)."""
    from lidistill.jobs.fine_tuning import fine_tuned
    from lidistill.jobs.resume_settings import in_agreement, resumed
    from lidistill.jobs.setup import plain_student, supervised
    from lidistill.jobs.training import train as job

    start, words = _start_and_overrides(start, overrides)
    if weights is not None:
        if compression is not None or student is not None:
            raise InputError(
                f"--from uses all weights of {weights}, but --compression and --student change the network; for a "
                "thinner student that starts from some of its channels, use "
                f"`lidistill distill {weights} --method none distillation.initialise=first`"
            )
        experiment = fine_tuned(weights, start=start, data=data, seed=seed, overrides=words)
    elif start is None:
        _only_resumed(resume, {"--data": data, "--compression": compression, "--student": student, "--seed": seed})
        experiment = resumed(out, words)
    elif compression is None and student is None:
        experiment = supervised(start, data=data, seed=seed, overrides=words)
    else:
        experiment = plain_student(
            start,
            compression=compression,
            student=student,
            multiple_of=multiple_of,
            data=data,
            seed=seed,
            overrides=words,
        )
    if resume:
        experiment = in_agreement(experiment, out, words)
    elif weights is not None:
        _say(f"from the weights of {weights}, with the settings of {start or weights}")
    elif start is not None and Path(start).is_dir():
        _say(f"from scratch, with the settings of {start} but not its weights (--from {start} would use them)")
    show_scores(job(experiment, out, resume=resume, device=device))


@app.command()
def distill(
    out: Out,
    teacher: Annotated[str | None, typer.Argument(help="The teacher's run folder. Not with --resume.")] = None,
    overrides: Overrides = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Distillation method: {METHOD_NAMES}; several at once, itkd+logits; or your own, my_module:Config. "
            "Default: pointdistiller."
        ),
    ] = None,
    compression: Annotated[
        float | None,
        typer.Option(help="Divide the number of parameters by this: 2, 4, 8, 16. [default: 4; with --student: 1]"),
    ] = None,
    student: Student = None,
    multiple_of: MultipleOf = 1,
    data: Data = None,
    seed: Seed = None,
    resume: Resume = False,
    certificate: Certificate = True,
    device: Device = "auto",
) -> None:
    """Distil a teacher into a student: a thinner form of the teacher, or another detector (--student)."""
    from lidistill.jobs.chosen_methods import methods_of_one_student
    from lidistill.jobs.resume_settings import in_agreement, resumed
    from lidistill.jobs.setup import distilled
    from lidistill.jobs.training import train as job

    teacher, words = _start_and_overrides(teacher, overrides)
    if teacher is None:
        _only_resumed(
            resume,
            {"--method": method, "--data": data, "--compression": compression, "--student": student, "--seed": seed},
        )
        experiment = resumed(out, words)
        if experiment.distillation is None:
            raise InputError(f"{out} is not a distilled run; resume it with `lidistill train --resume --out {out}`")
    else:
        experiment = distilled(
            teacher,
            compression=compression,
            student=student,
            multiple_of=multiple_of,
            methods=methods_of_one_student(method or ["pointdistiller"]),
            data=data,
            seed=seed,
            overrides=words,
        )
    experiment = in_agreement(experiment, out, words) if resume else experiment
    show_scores(job(experiment, out, resume=resume, device=device, certificate=certificate))


@app.command()
def compare(
    start: Annotated[
        str, typer.Argument(help="A teacher's run folder, a detector for a new teacher, or a recipe (YAML).")
    ],
    out: Out,
    overrides: Overrides = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="One row of the table: itkd, or several methods at once, itkd+logits; repeat it for more rows."
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="With a recipe: a finished teacher's run folder, instead of training the teacher of the recipe."
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Number of seeds per row; 3 unless a recipe says otherwise.")
    ] = None,
    compression: Annotated[
        float | None, typer.Option(help="Divide the number of parameters by this; 4 unless a recipe says otherwise.")
    ] = None,
    multiple_of: MultipleOf = 1,
    data: Data = None,
    processes: Annotated[int, typer.Option(help="Number of students trained at a time.")] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to train on, or local.")] = None,
    certificate: Certificate = True,
    device: Device = "auto",
) -> None:
    """Train students with several methods and seeds on the same schedule, and write one table.

    After an interruption, run the command again.
    """
    from lidistill.jobs.comparison import Comparison, Row, first_seeds
    from lidistill.jobs.comparison import compare as job

    if start.endswith((".yaml", ".yml")) and not method:
        if compression is not None or multiple_of != 1 or data is not None:
            raise InputError("a recipe sets --compression, --multiple-of and --data itself; change them in the file")
        plan = Comparison.read(start).changed(teacher=teacher, seeds=seeds, overrides=overrides or ())
    else:
        if teacher is not None:
            raise InputError(
                "--teacher belongs to a recipe; give the teacher's run folder as the first argument instead"
            )
        rows = tuple(Row.of(text) for text in method or ("logits", "fitnets", "pointdistiller"))
        own_seeds = first_seeds(3 if seeds is None else seeds)
        factor = 4.0 if compression is None else compression
        plan = Comparison(start, rows, own_seeds, factor, data, tuple(overrides or ()), multiple_of)
    print(f"comparison: {job(plan, out, processes=processes, device=device, ray=ray, certificate=certificate)}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _start_and_overrides(start: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """Separate the start from the overrides: the first argument may be an override, since --resume needs no start."""
    if start is not None and "=" in start and not Path(start).exists():
        return None, [start, *(overrides or [])]
    return start, overrides or []


def _only_resumed(resume: bool, options: dict[str, object]) -> None:
    """Raise InputError unless a command without a start resumes a run, and leaves all settings to the run."""
    given = [name for name, value in options.items() if value is not None]
    if not resume:
        raise InputError("nothing to train: give a start (see --help), or resume a run with --resume --out RUN")
    if given:
        raise InputError(
            f"{', '.join(given)}: --resume uses the run's own settings; leave out {'it' if len(given) == 1 else 'them'}"
        )
