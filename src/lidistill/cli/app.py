"""The typer application, and the options that several commands share."""

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
Data = Annotated[str | None, typer.Option(help=f"Source of the frames: {', '.join(catalogue().sources)}.")]
Precision = Annotated[
    str, typer.Option(help="Precision of the network: 32, bf16, fp16, or auto for bf16 if the device has units for it.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the weights, the order of frames and the augmentation.")]
Student = Annotated[
    str | None,
    typer.Option(
        help="The student's detector, if it is not a thinner form of the teacher's: a name (pointpillars), a YAML file "
        "or a run folder."
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the interrupted run in --out with its own settings; it ends with the weights of an uninterrupted "
        "run.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Dotted overrides, for example training.steps=300 detector.grid.voxel_size=[0.32,0.32,4]."),
]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
MultipleOf = Annotated[
    int,
    typer.Option(help="With --compression: round the student's widths to multiples of this number; GPUs prefer 8."),
]
Certificate = Annotated[bool, typer.Option(help="Check the teacher first, and refuse one that fails.")]

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
