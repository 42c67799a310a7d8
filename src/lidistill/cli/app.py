"""The command line's program, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lidistill import __version__
from lidistill.catalogue import catalogue

if TYPE_CHECKING:
    from lidistill.evaluation.scores import Scores

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Data = Annotated[str | None, typer.Option(help=f"Where the frames come from: {', '.join(catalogue().sources)}.")]
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
SOURCE = catalogue().sources[0]  # the form of an example
METHOD_NAMES = ", ".join(method.name for method in catalogue().methods)


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


def show_scores(scores: Scores | None) -> None:
    from lidistill.report.render.console import print_scores

    if scores is not None:
        print_scores(scores)
