"""The students of a comparison, trained one after another, several at a time, or on a cluster."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lidistill.experiment import Experiment
from lidistill.jobs.training import train
from lidistill.progress import progress
from lidistill.run_folder import RunFolder
from lidistill.stopping import Stopped, held_back, interruptible, listen_for_parent
from lidistill.training.finite_check import NotFinite
from lidistill.types import InputError

ORPHAN_CHECK_S = 1.0


@dataclass(frozen=True)
class Cell:
    """One student of a comparison."""

    row: str
    seed: int
    experiment: Experiment
    folder: Path

    @property
    def done(self) -> bool:
        return RunFolder(self.folder).scores.is_file()


def run_cells(cells: Sequence[Cell], *, processes: int = 1, device: str = "auto", ray: str | None = None) -> None:
    """Train and score every cell that is not done. One that fails does not stop the others; all failures are named at
    the end.

    The teacher is not examined here, since it is the same for all.
    """
    if processes < 1:
        raise InputError(f"processes is {processes}; give 1 or more")
    todo = [cell for cell in cells if not cell.done]
    if ray is not None:
        _on_cluster(todo, ray, device)
    elif processes == 1:
        _one_by_one(todo, device)
    else:
        _side_by_side(todo, processes, device)


def _one_by_one(cells: Sequence[Cell], device: str) -> None:
    failed: list[tuple[Cell, BaseException]] = []
    for number, cell in enumerate(cells, start=1):
        Console(stderr=True).print(f"[bold]{number}/{len(cells)}[/bold] {cell.row}, seed {cell.seed}")
        try:
            train(cell.experiment, cell.folder, resume=True, device=device, certificate=False)
        except Exception as error:
            failed.append((cell, error))
    _raise_failed(failed)


def _side_by_side(cells: Sequence[Cell], processes: int, device: str) -> None:
    threads = max(1, (os.cpu_count() or 1) // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with, initargs=(os.getpid(),)) as pool:
        with held_back():  # this process tells the others to stop, so that each hears of it once
            futures: dict[Future[None], Cell] = {
                pool.submit(train_cell, cell.experiment.to_dict(), str(cell.folder), device, threads): cell
                for cell in cells
            }
        failed: list[tuple[Cell, BaseException]] = []
        try:
            with progress("students", len(cells)) as advance:
                for number, future in enumerate(as_completed(futures), start=1):
                    cell = futures[future]
                    error = future.exception()
                    if error is not None:
                        failed.append((cell, error))
                    advance(number, f"{cell.row}, seed {cell.seed}" + (" failed" if error else ""))
        except Stopped as stop:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise Stopped(
                stop.signum,
                f"stopped with {sum(cell.done for cell in cells)} of {len(cells)} students done, the others saved",
            ) from None
    _raise_failed(failed)


def _on_cluster(cells: Sequence[Cell], address: str, device: str) -> None:
    """The same through Ray, which must be installed (`pip install lidistill[cluster]`); run folders lie on a shared
    file system.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--ray needs Ray; install it with `pip install lidistill[cluster]`, or use --processes on one machine"
        ) from error
    ray.init(address=None if address == "local" else address, ignore_reinit_error=True, log_to_driver=False)
    gpus = 1 if ray.cluster_resources().get("GPU") and device != "cpu" else 0
    task = ray.remote(num_gpus=gpus, max_retries=0)(train_cell)
    waiting = {task.remote(cell.experiment.to_dict(), str(cell.folder.resolve()), device, 1): cell for cell in cells}
    failed: list[tuple[Cell, BaseException]] = []
    total = len(waiting)
    with progress("students", total) as advance:
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(reference)
            before = len(failed)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                failed.append((cell, getattr(error, "cause", None) or error))
            advance(total - len(waiting), f"{cell.row}, seed {cell.seed}" + (" failed" if len(failed) > before else ""))
    _raise_failed(failed)


def train_cell(content: dict[str, Any], folder: str, device: str, threads: int) -> None:
    """Train one cell in a process of its own, silently."""
    torch.set_num_threads(threads)
    with _quiet(), interruptible():
        train(Experiment.from_dict(content, folder), folder, resume=True, device=device, certificate=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Several progress lines at once would only garble each other; errors travel as exceptions."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _leave_with(parent: int) -> None:
    """End this process when the one that started it is gone, so that nobody writes into run folders behind a later
    comparison's back.

    Where that one asks it to stop, it finishes its step, saves and takes nothing new.
    """
    listen_for_parent()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _raise_failed(failed: Sequence[tuple[Cell, BaseException]]) -> None:
    """One sentence about all failures. Unexpected exceptions are chained to keep their traceback."""
    if not failed:
        return
    sentences = "; ".join(f"{cell.row}, seed {cell.seed}: {_in_words(error)}" for cell, error in failed)
    unexpected = next((error for _, error in failed if not isinstance(error, InputError)), None)
    raise InputError(f"{len(failed)} students could not be trained, the others are done: {sentences}") from unexpected


def _in_words(error: BaseException) -> str:
    # whose remedy, for this one alone, would make it another training than the others'
    if isinstance(error, NotFinite):
        return f"{error.finding}; lower training.learning_rate for all rows, in another --out"
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, BrokenProcessPool):
        return "its process was ended from outside, perhaps for want of memory; use fewer --processes"
    if isinstance(error, Stopped):
        return f"{error} by a signal from outside; run the comparison again to go on"
    return f"{type(error).__name__}: {error}"
