"""The command line: one function a command, no logic. The jobs behind it are in `lidistill.jobs`."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lidistill import __version__
from lidistill.catalogue import catalogue
from lidistill.errors import InputError
from lidistill.stopping import Stopped, end_children, listening

if TYPE_CHECKING:
    from lidistill.evaluation.scores import Scores

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Data = Annotated[
    str | None, typer.Option(help="Where the frames come from: simulated, simulated:FOLDER or kitti:FOLDER.")
]
Precision = Annotated[
    str, typer.Option(help="Of the network: 32, bf16, fp16, or auto for bf16 where the device has units for it.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")]
Student = Annotated[
    str | None,
    typer.Option(
        help="The student's network, where it is not the teacher's made thinner: a detector (pointpillars), a YAML "
        "file or a run's folder."
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the interrupted run in --out, by its own settings, to the weights of an uninterrupted one.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Dotted overrides, for example training.steps=300 detector.grid.voxel_size=[0.32,0.32,4]."),
]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
MultipleOf = Annotated[
    int,
    typer.Option(
        help="With --compression: round the student's widths to multiples of this, such as 8, which accelerators "
        "prefer."
    ),
]
Certificate = Annotated[bool, typer.Option(help="Examine the teacher first and refuse a sick one.")]

DETECTOR_NAMES = ", ".join(catalogue().detectors)
METHOD_NAMES = ", ".join(method.name for method in catalogue().methods)

# Jobs import torch and Lightning, which takes seconds; a command imports the one it needs, so that --help answers at
# once.


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lidistill {__version__}")
        raise typer.Exit


@app.callback()
def lidistill(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a heavy LiDAR 3D detector into a small, fast student by knowledge distillation, and prove the result."""


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    anew: Annotated[
        bool, typer.Option("--anew", help="Remove the demo of other settings that the folder holds, and make it anew.")
    ] = False,
    device: Device = "auto",
) -> None:
    """From nothing to a report on the simulator: teacher, plain student, distilled student."""
    from lidistill.jobs.demonstration import demo as job

    print(f"report: {job(out, seed=seed, overrides=overrides or (), anew=anew, device=device)}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write, in KITTI's layout.")],
    frames: Annotated[int, typer.Option(help="Number of frames.")] = 100,
    preset: Annotated[str, typer.Option(help="Sensor: kitti, kitti-lite, nuscenes or waymo.")] = "kitti",
    seed: Annotated[int, typer.Option(help="Seed of the streets.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: one a core.")] = 0,
) -> None:
    """Write simulated frames as a standard KITTI folder that any other tool can read."""
    from lidistill.jobs.simulation import simulate as job

    print(f"{frames} simulated frames in {job(out, frames=frames, preset=preset, seed=seed, workers=workers)}")


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="The other tool's checkpoint file.")],
    source: Annotated[str, typer.Option("--from", help="openpcdet, mmdet3d or det3d.")],
    model: Annotated[
        str, typer.Option(help="Which detector it is: pointpillars, second, centerpoint-pillar or centerpoint-voxel.")
    ],
    data: Annotated[str, typer.Option(help="The data it was trained for, for example kitti:/data/kitti.")],
    out: Out,
    overrides: Overrides = None,
) -> None:
    """Turn a checkpoint of OpenPCDet, mmdetection3d or det3d into a run folder."""
    from lidistill.jobs.import_checkpoint import import_run as job

    folder = job(checkpoint, source=source, model=model, data=data, out=out, overrides=overrides or ())
    print(
        f"{folder.path}: ready; score it with `lidistill evaluate {folder.path}`, distil it with `lidistill distill "
        f"{folder.path}`"
    )


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
    _show(job(experiment, out, resume=resume, device=device))


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
    _show(job(experiment, out, resume=resume, device=device, certificate=certificate))


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


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, for all of its settings; leave it out for the table of all methods.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The tables of docs/methods.md.")] = False,
) -> None:
    """Show the distillation methods: what they teach and need, on which detectors they run, and their settings."""
    from lidistill.jobs.method_tables import methods_as_markdown, print_method, print_methods

    if markdown and name is not None:
        raise InputError(f"--markdown prints the tables of all methods; leave out {name}, or --markdown")
    if markdown:
        print(methods_as_markdown())
    elif name is None:
        print_methods()
    else:
        print_method(name)


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="A run folder; leave it out with --predictions.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Predictions made elsewhere: a folder of KITTI result files, or a predictions.npz."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="With --predictions: where the labels come from, for example kitti:/data/kitti.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of the dataset; scores of another one than val go into a folder of its name.")
    ] = "val",
    out: Annotated[Path | None, typer.Option(help="With --predictions: folder for the scores.")] = None,
    device: Device = "auto",
    precision: Precision = "32",
) -> None:
    """Score a run by its dataset's official metric, or predictions made elsewhere."""
    from lidistill.datasets import parse_source
    from lidistill.jobs.evaluation import evaluate as job
    from lidistill.jobs.evaluation import evaluate_predictions
    from lidistill.run_folder import VALIDATION

    if predictions is not None:
        if run is not None:
            raise InputError(f"--predictions are scored by themselves; leave out {run}, or leave out --predictions")
        if data is None:
            raise InputError("--predictions needs --data, for example --data kitti:/data/kitti, to know the truth")
        _show(evaluate_predictions(predictions, parse_source(data), split=split, out=out))
    elif run is not None:
        if out is not None or data is not None:
            raise InputError(
                "a run is scored on its own data, in its own folder; --data and --out go with --predictions"
            )
        _show(job(run, split=split, device=device, precision=precision))
        if split != VALIDATION:
            print(
                f"written to {run / split}; the run's own scores, which reports read, are those of the split "
                f"{VALIDATION}"
            )
    else:
        raise InputError("give a run folder, or --predictions with --data")


@app.command()
def predict(
    run: Run,
    scans: Annotated[Path, typer.Argument(help="A .bin file, or a folder of them.")],
    out: Out = Path("predictions"),
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="KITTI calib file, or a folder with one a scan. Default: the folder calib beside that of the scans."
        ),
    ] = None,
    columns: Annotated[
        int | None, typer.Option(help="Values a point in the files, where they are more than the detector takes.")
    ] = None,
    minimum_score: Annotated[float, typer.Option(help="Lowest score to draw.")] = 0.3,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report scans that cannot be read and leave them out.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "32",
) -> None:
    """Write the boxes of scans as KITTI text and JSON, with a picture of each."""
    from lidistill.jobs.prediction import predict as job

    written = job(
        run,
        scans,
        out,
        calibration=calibration,
        columns=columns,
        minimum_score=minimum_score,
        skip_bad=skip_bad,
        device=device,
        precision=precision,
    )
    print(f"{len(written)} scans in {out}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders: teacher, plain student, distilled students.")],
    out: Out = Path("report"),
    timing: Annotated[
        bool, typer.Option(help="Time the runs beside each other first; without it the page says nothing about speed.")
    ] = True,
    device: Device = "auto",
) -> None:
    """Write one page that compares runs."""
    from lidistill.jobs.reporting import report as job

    written = job(runs, out, timing=timing, device=device)
    print(written.headline)
    print(f"report: {written.path}")


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


def _show(scores: Scores | None) -> None:
    from lidistill.report.render.console import print_scores

    if scores is not None:
        print_scores(scores)


def main() -> None:
    """Run a command and say how it ended.

    Bad input and trouble with files: one sentence and exit code 2. A signal: how far the work was and how to go on, and
    128 + the signal's number. Unexpected exceptions keep their traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that are not UTF-8
    with listening():
        try:
            try:
                app()
            finally:
                sys.stdout.flush()
        except Stopped as stop:
            end_children()
            _end(f"{stop}; {_how_to_go_on(sys.argv[1:])}", 128 + stop.signum)
        except InputError as error:
            _end(str(error), 2)
        except SystemExit as end:
            # which both the terminal's and the command line's library turn into this
            if not isinstance(end.__context__, BrokenPipeError):
                raise
            _end_without_reader()
        except BrokenPipeError:
            _end_without_reader()
        except OSError as error:
            if error.strerror is None:
                raise
            what = f"{error.filename}: " if error.filename else ""
            _end(
                f"{what}{error.strerror}; check that there is space and that the place may be written to, then run "
                "the command again",
                2,
            )


def _how_to_go_on(words: list[str]) -> str:
    command = words[0] if words else ""
    if command in ("train", "distill") and "--resume" not in words:
        words = [*words, "--resume"]
    again = shlex.join(["lidistill", *words])
    return (
        f"go on with: {again}"
        if command in ("train", "distill", "demo", "compare", "simulate")
        else f"start again with: {again}"
    )


def _end_without_reader() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # what is still unwritten would be an error again when Python ends
    _end("whoever read the output has closed it", 128 + signal.SIGPIPE)


def _end(sentence: str, code: int) -> None:
    with suppress(OSError):
        print(f"lidistill: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
