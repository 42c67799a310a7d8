"""Training the students of a comparison: one after another, several at a time, or on a cluster."""

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
class StudentRun:
    """One student of a comparison."""

    row: str
    seed: int
    experiment: Experiment
    folder: Path

    @property
    def done(self) -> bool:
        return RunFolder(self.folder).scores.is_file()


def train_students(
    runs: Sequence[StudentRun], *, processes: int = 1, device: str = "auto", ray: str | None = None
) -> None:
    """Train and score every student that is not done yet.

    A failed student does not stop the others; the error at the end names all failures. The teacher is not examined
    here, because it is the same for all students.
    """
    if processes < 1:
        raise InputError(f"processes is {processes}; give 1 or more")
    todo = [run for run in runs if not run.done]
    if ray is not None:
        _on_cluster(todo, ray, device)
    elif processes == 1:
        _one_by_one(todo, device)
    else:
        _side_by_side(todo, processes, device)


def _one_by_one(runs: Sequence[StudentRun], device: str) -> None:
    failed: list[tuple[StudentRun, BaseException]] = []
    for number, run in enumerate(runs, start=1):
        Console(stderr=True).print(f"[bold]{number}/{len(runs)}[/bold] {run.row}, seed {run.seed}")
        try:
            train(run.experiment, run.folder, resume=True, device=device, certificate=False)
        except Exception as error:
            failed.append((run, error))
    _raise_failed(failed)


def _side_by_side(runs: Sequence[StudentRun], processes: int, device: str) -> None:
    threads = max(1, (os.cpu_count() or 1) // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with, initargs=(os.getpid(),)) as pool:
        with held_back():  # this process tells the others to stop, so each receives one signal
            futures: dict[Future[None], StudentRun] = {
                pool.submit(train_student, run.experiment.to_dict(), str(run.folder), device, threads): run
                for run in runs
            }
        failed: list[tuple[StudentRun, BaseException]] = []
        try:
            with progress("students", len(runs)) as advance:
                for number, future in enumerate(as_completed(futures), start=1):
                    run = futures[future]
                    error = future.exception()
                    if error is not None:
                        failed.append((run, error))
                    advance(number, f"{run.row}, seed {run.seed}" + (" failed" if error else ""))
        except Stopped as stop:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise Stopped(
                stop.signum,
                f"stopped with {sum(run.done for run in runs)} of {len(runs)} students done, the others saved",
            ) from None
    _raise_failed(failed)


def _on_cluster(runs: Sequence[StudentRun], address: str, device: str) -> None:
    """Train through Ray, which must be installed (`pip install lidistill[cluster]`).

    The run folders must lie on a file system that all machines share.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--ray needs Ray; install it with `pip install lidistill[cluster]`, or use --processes on one machine"
        ) from error
    ray.init(address=None if address == "local" else address, ignore_reinit_error=True, log_to_driver=False)
    gpus = 1 if ray.cluster_resources().get("GPU") and device != "cpu" else 0
    task = ray.remote(num_gpus=gpus, max_retries=0)(train_student)
    waiting = {task.remote(run.experiment.to_dict(), str(run.folder.resolve()), device, 1): run for run in runs}
    failed: list[tuple[StudentRun, BaseException]] = []
    total = len(waiting)
    with progress("students", total) as advance:
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            run = waiting.pop(reference)
            before = len(failed)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                failed.append((run, getattr(error, "cause", None) or error))
            advance(total - len(waiting), f"{run.row}, seed {run.seed}" + (" failed" if len(failed) > before else ""))
    _raise_failed(failed)


def train_student(content: dict[str, Any], folder: str, device: str, threads: int) -> None:
    """Train one student in a process of its own, silently."""
    torch.set_num_threads(threads)
    with _quiet(), interruptible():
        train(Experiment.from_dict(content, folder), folder, resume=True, device=device, certificate=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard standard error: progress lines of several processes would mix. Errors are raised as exceptions."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone, so that it does not write to the run folders of a later comparison.

    If the parent asks it to stop, it finishes its step, saves, and begins no other student.
    """
    listen_for_parent()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _raise_failed(failed: Sequence[tuple[StudentRun, BaseException]]) -> None:
    """Raise one error about all failures. Unexpected exceptions are chained to keep their traceback."""
    if not failed:
        return
    sentences = "; ".join(f"{run.row}, seed {run.seed}: {_in_words(error)}" for run, error in failed)
    unexpected = next((error for _, error in failed if not isinstance(error, InputError)), None)
    raise InputError(f"{len(failed)} students could not be trained, the others are done: {sentences}") from unexpected


def _in_words(error: BaseException) -> str:
    if isinstance(error, NotFinite):  # its own remedy would change this student alone and make it incomparable
        return f"{error.finding}; lower training.learning_rate for all rows, in another --out"
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, BrokenProcessPool):
        return "its process was killed, perhaps because memory ran out; use fewer --processes"
    if isinstance(error, Stopped):
        return f"{error} by a signal; run the comparison again to resume"
    return f"{type(error).__name__}: {error}"
