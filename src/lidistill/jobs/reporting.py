"""Time runs in turns, and write a report about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lidistill.datasets import PROTOCOLS
from lidistill.deploy.latency_comparison import MOST_TURNS, Turns, take_turns
from lidistill.deploy.profile import device_name
from lidistill.detectors.detector import Detector
from lidistill.files import prepared
from lidistill.jobs.devices import pick_device
from lidistill.jobs.trained_runs import load_run
from lidistill.progress import progress
from lidistill.report.measures.runs import Run, read_runs
from lidistill.report.measures.samples import load_samples
from lidistill.report.measures.timing import Timing
from lidistill.report.render.page import build_page, write_page
from lidistill.run_folder import write_json
from lidistill.types import Frame, InputError

THREADS = 1


@dataclass(frozen=True)
class Report:
    """A written report: the path of its HTML page, and the page's headline."""

    path: Path
    headline: str


def report(runs: Sequence[str | Path], out: str | Path, *, timing: bool = True, device: str = "auto") -> Report:
    """Compare run folders on one page.

    With `timing`, their detectors are timed first: they take turns on the sample frames of the run folders, with one
    CPU thread each. The milliseconds of every turn are written to `timing.json`. Timing takes under a minute for
    published networks on one core, and seconds for the simulator's. Without `timing`, the page makes no statement on
    speed. InputError if a folder is not a run, or two runs cannot be compared.
    """
    out = Path(out)
    with prepared(out):
        where = pick_device(device)
        read = read_runs(runs, PROTOCOLS)
        measured = time_runs(read, where) if timing else None
        page = build_page(read, measured)
        written = write_page(page, out)
        if measured is not None:
            write_json(out / "timing.json", measured.to_dict())
    return Report(written, page.headline)


def time_runs(runs: Sequence[Run], device: torch.device) -> Timing:
    """Measure the times per frame of the runs, in turns. A run without weights or sample frames is left out, with the
    reason.
    """
    detectors: dict[str, Detector] = {}
    frames: dict[str, Sequence[Frame]] = {}
    left_out: dict[str, str] = {}
    for run in runs:
        try:
            kept = load_samples(run.folder.samples).frames
            detector = load_run(run.folder.path).detector.for_inference()  # the form that predicts
        except InputError as error:
            left_out[run.label] = str(error)
            continue
        first = next(iter(frames.values()), kept)
        if not kept or [frame.id for frame in kept] != [frame.id for frame in first]:
            left_out[run.label] = (
                f"{run.folder.samples}: holds no frames, or different ones than the first run's; run `lidistill "
                "evaluate` on both again"
            )
            continue
        detectors[run.label], frames[run.label] = detector, kept
    turns: Turns = {}
    if detectors:
        with progress(f"time {len(detectors)} networks in turns", MOST_TURNS) as advance:
            turns = take_turns(detectors, frames, device, THREADS, advance=advance)
    return Timing(device_name(device), THREADS, len(next(iter(frames.values()), ())), turns, left_out)
