"""Work between two steps of a run: logging, validation, saving the resume file, and stopping."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lidistill.detectors.detector import Detector
from lidistill.files import written_aside
from lidistill.progress import Advance, progress
from lidistill.run_folder import RunFolder
from lidistill.stopping import Stopped, check, keep_listening, requested
from lidistill.training.module import TrainingModule
from lidistill.training.resume_file import sign
from lidistill.training.training_settings import TrainingSettings

# Detector -> figures; the first figure decides which weights are best. Without figures no weights are chosen.
Validate = Callable[[Detector], Mapping[str, float]]


class RunWatcher(Callback):
    """Logs, validates, saves resume files and stops, all between steps."""

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainingSettings,
        total: int,
        name: str,
        validate: Validate | None,
        higher_is_better: bool,
        identity: str,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.total = total
        self.name = name
        self.validate = validate
        self.sign = 1.0 if higher_is_better else -1.0
        self.identity = identity
        self.stack = ExitStack()
        self.advance: Advance = lambda done, note="": None
        self.notes: dict[str, str] = {}  # shown at the end of the progress line
        self.best = float("-inf")  # first figure of a validation, negated if lower is better
        self.best_state: dict[str, Tensor] | None = None
        self.spent_s = 0.0
        self.since = time.monotonic()

    def begin(self, first_step: int) -> None:
        self.advance = self.stack.enter_context(progress(f"train {self.name}", self.total, first_step))
        self.since = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        keep_listening()  # Lightning's own handlers would stop at the next batch without saving
        check(f"{self.name}: stopped before step {trainer.global_step + 1} of {self.total}")

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % self.settings.accumulate:
            return
        assert isinstance(module, TrainingModule)
        last = step == self.total
        if step % self.settings.log_every == 0 or step == 1 or last:
            figures = {name: float(value) for name, value in module.last.items()}
            figures["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
            self._log(trainer, step, "train", figures)
            self.notes["loss"] = f"loss {figures['loss']:.3f}"
        self.advance(step, ", ".join(self.notes.values()))
        if (
            self.validate is not None
            and self.settings.validate_every
            and (step % self.settings.validate_every == 0)
            and not last
        ):
            self._validate(trainer, module, step)
        asked = _asked_anywhere(trainer)
        if (step % self.settings.save_every == 0) or last or asked:
            self._save(trainer)
        if asked:
            self._stop(trainer, step)

    def _stop(self, trainer: Trainer, step: int) -> None:
        if not trainer.is_global_zero:
            # only the first process reports; Lightning would kill it if another process ended with an error
            raise SystemExit(0)
        raise Stopped(requested() or signal.SIGTERM, f"{self.name}: stopped at step {step} of {self.total}")

    def _validate(self, trainer: Trainer, module: TrainingModule, step: int) -> None:
        if trainer.is_global_zero and self.validate is not None:
            detector = module.objective.student
            figures = dict(self.validate(detector))  # type: ignore[arg-type]
            self._log(trainer, step, "validation", figures)
            main = next(iter(figures.values()), None)
            if main is not None:
                self.notes["score"] = f"score {main:.3g} at step {step}"
            if main is not None and self.sign * main > self.best:
                self.best = self.sign * main
                assert isinstance(detector, nn.Module)
                self.best_state = {key: value.detach().clone() for key, value in detector.state_dict().items()}
        trainer.strategy.barrier()

    def _log(self, trainer: Trainer, step: int, kind: str, figures: Mapping[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        spent_s = round(self.spent_s + time.monotonic() - self.since, 3)
        row = {"step": step, "kind": kind, "time_s": spent_s} | {key: _plain(value) for key, value in figures.items()}
        self.folder.path.mkdir(parents=True, exist_ok=True)
        with self.folder.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        for logger in trainer.loggers:
            logger.log_metrics({f"{kind}/{key}": value for key, value in figures.items()}, step=step)

    def _save(self, trainer: Trainer) -> None:
        """Save the resume file, whole or not at all; every rank takes part."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.folder.resume)  # other ranks take part but write nothing
            return
        with written_aside(self.folder.resume) as aside:
            trainer.save_checkpoint(aside)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        sign(checkpoint, self.identity)  # callbacks that change the checkpoint come before this one

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_state": self.best_state,
            "spent_s": self.spent_s + time.monotonic() - self.since,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_state, self.spent_s = state_dict["best"], state_dict["best_state"], state_dict["spent_s"]


def _asked_anywhere(trainer: Trainer) -> bool:
    """Whether any process of the run received a stop signal; all stop at the same step."""
    asked = requested() is not None
    return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked


def _plain(value: float) -> float | None:
    """Replace NaN and infinity, which JSON lacks, by None."""
    return value if math.isfinite(value) else None
