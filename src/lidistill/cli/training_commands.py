"""Commands that train: a detector, a distilled student, a comparison of many."""

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
            help=f"A detector ({DETECTOR_NAMES}), a YAML file of settings, or an earlier run's folder, of which the "
            "settings are taken "
            "and not the weights. Left out with --resume; with --from it may be."
        ),
    ] = None,
    overrides: Overrides = None,
    data: Data = None,
    compression: Annotated[
        float | None,
        typer.Option(
            help="Train the thinner student of a teacher's run (the start) instead, alone: the plain baseline."
        ),
    ] = None,
    student: Student = None,
    multiple_of: MultipleOf = 1,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Fine-tune: start from the weights of this trained or imported run, not from random ones."
        ),
    ] = None,
    seed: Seed = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Train a detector without a teacher: from scratch, or from the weights of an earlier run (--from)."""
    from lidistill.jobs.fine_tuning import fine_tuned
    from lidistill.jobs.resumption import in_agreement, resumed
    from lidistill.jobs.setup import plain_student, supervised
    from lidistill.jobs.training import train as job

    start, words = _start_and_overrides(start, overrides)
    if weights is not None:
        if compression is not None or student is not None:
            raise InputError(
                f"--from takes all weights of {weights}, and --compression and --student make another network; "
                "for a thinner student that starts from some of its channels: "
                f"lidistill distill {weights} --method none distillation.initialise=first"
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
        _say(f"from scratch, with the settings of {start} and none of its weights (--from {start} would take them)")
    show_scores(job(experiment, out, resume=resume, device=device))


@app.command()
def distill(
    out: Out,
    teacher: Annotated[str | None, typer.Argument(help="The teacher's run folder. Not with --resume.")] = None,
    overrides: Overrides = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What teaches: {METHOD_NAMES}; several at once, itkd+logits; or one of your own, my_module:Config. "
            "Default: pointdistiller."
        ),
    ] = None,
    compression: Annotated[
        float | None,
        typer.Option(
            help="By how much to divide the parameters: 2, 4, 8, 16. [default: 4; with --student: not at all]"
        ),
    ] = None,
    student: Student = None,
    multiple_of: MultipleOf = 1,
    data: Data = None,
    seed: Seed = None,
    resume: Resume = False,
    certificate: Certificate = True,
    device: Device = "auto",
) -> None:
    """Train a student with a teacher's lessons: the teacher's network made thinner, or another detector (--student)."""
    from lidistill.jobs.chosen_methods import one_lesson
    from lidistill.jobs.resumption import in_agreement, resumed
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
            raise InputError(f"{out} is no distilled run; go on with `lidistill train --resume --out {out}`")
    else:
        lesson = one_lesson(method or ["pointdistiller"])
        experiment = distilled(
            teacher,
            compression=compression,
            student=student,
            multiple_of=multiple_of,
            methods=lesson,
            data=data,
            seed=seed,
            overrides=words,
        )
    experiment = in_agreement(experiment, out, words) if resume else experiment
    show_scores(job(experiment, out, resume=resume, device=device, certificate=certificate))


@app.command()
def compare(
    start: Annotated[
        str, typer.Argument(help="A teacher's run folder; a detector to train a teacher of; or a recipe (YAML).")
    ],
    out: Out,
    overrides: Overrides = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="One row of the table: itkd, or several methods at once, itkd+logits; give it again for more rows."
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="With a recipe: a finished teacher's run folder, instead of training the recipe's own."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds each row is trained from; 3 unless a recipe says otherwise.")
    ] = None,
    compression: Annotated[
        float | None, typer.Option(help="By how much to divide the parameters; 4 unless a recipe says otherwise.")
    ] = None,
    multiple_of: MultipleOf = 1,
    data: Data = None,
    processes: Annotated[int, typer.Option(help="Students trained at a time.")] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster that trains them, or local.")] = None,
    certificate: Certificate = True,
    device: Device = "auto",
) -> None:
    """Train students by several methods and seeds under one budget, and write one table.

    Run it again after an interruption.
    """
    from lidistill.jobs.comparison import Comparison, Row, first_seeds
    from lidistill.jobs.comparison import compare as job

    if start.endswith((".yaml", ".yml")) and not method:
        if compression is not None or multiple_of != 1 or data is not None:
            raise InputError(
                "a recipe says itself which --compression, --multiple-of and --data; change them in the file"
            )
        plan = Comparison.read(start).changed(teacher=teacher, seeds=seeds, overrides=overrides or ())
    else:
        if teacher is not None:
            raise InputError("--teacher goes with a recipe; give the teacher's run folder as the first word instead")
        rows = tuple(Row.of(text) for text in method or ("logits", "fitnets", "pointdistiller"))
        own_seeds = first_seeds(3 if seeds is None else seeds)
        factor = 4.0 if compression is None else compression
        plan = Comparison(start, rows, own_seeds, factor, data, tuple(overrides or ()), multiple_of)
    print(f"comparison: {job(plan, out, processes=processes, device=device, ray=ray, certificate=certificate)}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _start_and_overrides(start: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """The first word may be an override already, since --resume needs no start."""
    if start is not None and "=" in start and not Path(start).exists():
        return None, [start, *(overrides or [])]
    return start, overrides or []


def _only_resumed(resume: bool, options: dict[str, object]) -> None:
    """InputError unless a command without a start goes on with a run, all of whose settings stand in its folder."""
    given = [name for name, value in options.items() if value is not None]
    if not resume:
        raise InputError(
            "nothing says what to train; name a start first (see --help), or go on with a run: --resume --out RUN"
        )
    if given:
        raise InputError(
            f"{', '.join(given)}: --resume takes the run's own settings; leave out "
            f"{'it' if len(given) == 1 else 'them'}"
        )
