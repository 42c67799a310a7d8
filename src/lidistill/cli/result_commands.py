"""Commands that show methods, and that score, use and compare trained runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidistill.cli.app import (
    SOURCE,
    Device,
    Out,
    Precision,
    Run,
    app,
    show_scores,
)
from lidistill.errors import InputError


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, to show its settings; without it, a table of all methods.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/methods.md.")] = False,
) -> None:
    """Show the distillation methods: their ideas, needs and settings, and the detectors on which they run."""
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
    run: Annotated[Path | None, typer.Argument(help="A run folder; not with --predictions.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Predictions of another tool: a predictions.npz, or files in the benchmark's own format."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"Frames to score on, for example {SOURCE}; needed with --predictions. Default of a run: its own data."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of the dataset; scores of a split other than val go into a folder of its name.")
    ] = "val",
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --data: folder for the scores. Default of a run: the folder DATASET-SPLIT in it, unless it "
            "holds scores on other frames."
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "32",
) -> None:
    """Score a run, or predictions of another tool, by the official metric of the dataset."""
    from lidistill.datasets import parse_source
    from lidistill.jobs.evaluation import evaluate as job
    from lidistill.jobs.evaluation import evaluate_predictions
    from lidistill.run_folder import VALIDATION

    if predictions is not None:
        if run is not None:
            raise InputError(f"--predictions are scored without a run; leave out {run}, or leave out --predictions")
        if data is None:
            raise InputError(f"--predictions needs --data, the source of the labels, for example --data {SOURCE}")
        show_scores(evaluate_predictions(predictions, parse_source(data), split=split, out=out))
    elif run is not None:
        if data is None and out is not None:
            raise InputError("the scores of a run on its own data lie in its folder; give --out only with --data")
        show_scores(
            job(
                run,
                data=None if data is None else parse_source(data),
                split=split,
                out=out,
                device=device,
                precision=precision,
            )
        )
        if data is None and split != VALIDATION:
            print(f"written to {run / split}; reports read the scores of the split {VALIDATION}, in {run}")
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
            help="Calibration for files in the benchmark's own format: a file, or a folder with one per scan. Default: "
            "the folder calib beside the folder of the scans."
        ),
    ] = None,
    columns: Annotated[
        int | None, typer.Option(help="Values per point in the files, if there are more than the detector reads.")
    ] = None,
    minimum_score: Annotated[float, typer.Option(help="Lowest score of the boxes in the pictures.")] = 0.3,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Report scans that cannot be read, and leave them out.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "32",
) -> None:
    """Detect objects in scans; write the boxes as KITTI text and JSON, and a picture of each scan."""
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
        bool, typer.Option(help="Measure the runs' latency in turns first; without it, the page shows no latency.")
    ] = True,
    device: Device = "auto",
) -> None:
    """Write one HTML page that compares runs."""
    from lidistill.jobs.reporting import report as job

    written = job(runs, out, timing=timing, device=device)
    print(written.headline)
    print(f"report: {written.path}")
