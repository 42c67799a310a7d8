"""Commands to start with: the demo, simulated frames, and the import of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lidistill.catalogue import catalogue
from lidistill.cli.app import (
    SOURCE,
    Device,
    Out,
    Overrides,
    app,
)

SENSORS = catalogue().sensors


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    anew: Annotated[
        bool, typer.Option("--anew", help="Remove a demo with other settings from the folder, and start again.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Train a teacher, a plain student and a distilled student on simulated frames, and write a report."""
    from lidistill.jobs.demonstration import demo as job

    print(f"report: {job(out, seed=seed, overrides=overrides or (), anew=anew, device=device)}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    frames: Annotated[int, typer.Option(help="Number of frames.")] = 100,
    preset: Annotated[str, typer.Option(help=f"Sensor: {', '.join(SENSORS)}.")] = SENSORS[0],
    seed: Annotated[int, typer.Option(help="Seed of the streets.")] = 0,
    workers: Annotated[int, typer.Option(help="Number of processes; 0: one per core.")] = 0,
) -> None:
    """Write simulated frames as a KITTI folder that other tools can read."""
    from lidistill.jobs.simulation import simulate as job

    print(f"{frames} simulated frames in {job(out, frames=frames, preset=preset, seed=seed, workers=workers)}")


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="The other tool's checkpoint file.")],
    source: Annotated[str, typer.Option("--from", help="openpcdet, mmdet3d or det3d.")],
    model: Annotated[
        str, typer.Option(help="Its detector: pointpillars, second, centerpoint-pillar or centerpoint-voxel.")
    ],
    data: Annotated[str, typer.Option(help=f"The dataset it was trained on, for example {SOURCE}.")],
    out: Out,
    overrides: Overrides = None,
) -> None:
    """Turn a checkpoint of OpenPCDet, mmdetection3d or det3d into a run folder."""
    from lidistill.jobs.import_checkpoint import import_run as job

    folder = job(checkpoint, source=source, model=model, data=data, out=out, overrides=overrides or ())
    print(
        f"{folder.path}: ready; score it with `lidistill evaluate {folder.path}`, use it as a teacher with "
        f"`lidistill distill {folder.path}`"
    )
