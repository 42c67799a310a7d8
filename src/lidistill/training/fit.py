"""The training run: Lightning's Trainer, with our order of frames, our logs and our points of resumption."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lidistill.data.training_frames import StepBatches
from lidistill.detectors.detector import Detector
from lidistill.files import write_text, written_aside
from lidistill.progress import Advance, progress
from lidistill.run_folder import RunFolder
from lidistill.stopping import Stopped, check, finishing, held_back, keep_listening, requested
from lidistill.training.finite_check import NotFinite
from lidistill.training.module import TrainingModule
from lidistill.training.resume_file import read_resume, saved_step, sign
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import Frame, InputError, collate

# detector -> figures; the first one decides which weights are best
Validate = Callable[[Detector], Mapping[str, float]]

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def fit(
    objective: nn.Module,
    frames: Dataset[Frame],
    settings: TrainingSettings,
    folder: RunFolder,
    *,
    seed: int,
    name: str,
    device: str = "auto",
    validate: Validate | None = None,
    undecayed: Collection[str] = (),
    resume: bool = False,
    identity: str = "",
) -> None:
    """Train `objective` (batch -> Losses, with the detector as `.student`) until the last step; on return it holds the
    final weights.

    `frames` is addressed by (epoch, row) and has a length. With `resume`, the run goes on from `folder.resume` and ends
    with the weights of an uninterrupted run. `undecayed` names parameters of `objective` that take no weight decay.
    `identity` tells experiments apart: a point of resumption is only taken up by the one that saved it.

    A signal that asks to stop is heard at the end of a step: the point to go on from is saved, then `Stopped` raised.
    """
    if settings.norm_momentum:
        for layer in objective.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.momentum = settings.norm_momentum
    if settings.precision not in _PRECISION:
        raise InputError(
            f"training.precision is {settings.precision!r} where a run begins; settle it for the device first, to "
            "32, bf16 or fp16"
        )
    num_frames = len(frames)  # type: ignore[arg-type]
    total = settings.total_steps(num_frames)
    module = TrainingModule(objective, settings, total, seed, undecayed)
    watch = _Watch(folder, settings, total, name, validate, identity)
    callbacks: list[Callback] = [watch]
    if settings.ema_decay:
        callbacks.insert(0, EMAWeightAveraging(decay=settings.ema_decay))
    _quiet_lightning()
    kind, _, index = device.partition(":")  # "cuda:1" is that device alone
    with ExitStack() as stack, finishing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
        watch.stack = stack
        trainer = Trainer(
            accelerator={"auto": "auto", "cuda": "gpu", "cpu": "cpu"}.get(kind, "auto"),
            devices=[int(index)] if index else settings.devices,
            num_nodes=settings.nodes,
            strategy=settings.strategy,
            precision=_PRECISION[settings.precision],  # type: ignore[arg-type]
            max_steps=total,
            max_epochs=-1,
            accumulate_grad_batches=settings.accumulate,
            logger=TensorBoardLogger(save_dir=folder.path, name="tensorboard", version=""),
            callbacks=callbacks,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=settings.log_every,
        )
        first_step = 0
        if resume and folder.resume.is_file():
            saved = read_resume(folder.resume, identity, module.state_dict(), total)
            first_step = saved["global_step"]
            if trainer.is_global_zero:
                _forget_log_after(folder, first_step)
            if first_step >= total:
                module.load_state_dict(saved["state_dict"])
                watch.load_state_dict(saved["callbacks"][watch.state_key])
                _hand_on_best(watch, objective, settings)
                return
        elif trainer.is_global_zero:
            folder.log.unlink(missing_ok=True)
        loader = _Loader(
            frames,
            batch_sampler=_Batches(
                num_frames,
                settings.batch_size * trainer.world_size,
                seed,
                first_step * settings.accumulate,
                total * settings.accumulate,
                trainer.global_rank,
                trainer.world_size,
            ),
            collate_fn=collate,
            num_workers=settings.workers,
            persistent_workers=settings.workers > 0,
            pin_memory=trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
        )
        if trainer.is_global_zero:
            watch.begin(first_step)
        try:
            trainer.fit(module, loader, ckpt_path=str(folder.resume) if first_step else None, weights_only=True)
        except NotFinite as error:
            raise NotFinite(error.finding, f"{error.remedy} {_way_on(folder, settings, module.global_step)}") from error
        except InputError as error:
            # A loader process hands its traceback on inside the message; the sentence is behind it.
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
    _hand_on_best(watch, objective, settings)


class _Batches(StepBatches):
    """The rest of the run. Its length is that of the whole run, because Lightning goes on counting where the
    interrupted run stopped.
    """

    def __len__(self) -> int:
        return self.stop_step


class _Loader(DataLoader[Frame]):
    """Its processes do not see the signals that ask to stop: the step that is under way needs them, and they end with
    this process.
    """

    def __iter__(self) -> Any:
        with held_back():
            return super().__iter__()


class _Watch(Callback):
    """Logs, validates, saves points of resumption and stops, all at step boundaries."""

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainingSettings,
        total: int,
        name: str,
        validate: Validate | None,
        identity: str,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.total = total
        self.name = name
        self.validate = validate
        self.identity = identity
        self.stack = ExitStack()
        self.advance: Advance = lambda done, note="": None
        self.notes: dict[str, str] = {}  # what stands behind the line of progress
        self.best = float("-inf")
        self.best_state: dict[str, Tensor] | None = None
        self.spent_s = 0.0
        self.since = time.monotonic()

    def begin(self, first_step: int) -> None:
        self.advance = self.stack.enter_context(progress(f"train {self.name}", self.total, first_step))
        self.since = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        keep_listening()  # Lightning would end at the next batch, without a point to go on from
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
            # the first process speaks for all, and Lightning kills it where another one ends with an error
            raise SystemExit(0)
        raise Stopped(requested() or signal.SIGTERM, f"{self.name}: stopped at step {step} of {self.total}")

    def _validate(self, trainer: Trainer, module: TrainingModule, step: int) -> None:
        if trainer.is_global_zero and self.validate is not None:
            detector = module.objective.student
            figures = dict(self.validate(detector))  # type: ignore[arg-type]
            self._log(trainer, step, "validation", figures)
            main = next(iter(figures.values()), 0.0)
            self.notes["score"] = f"score {main:.1f} at step {step}"
            if main > self.best:
                self.best = main
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
        """Every rank takes part; the file appears whole or not at all."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.folder.resume)  # takes part, writes nothing
            return
        with written_aside(self.folder.resume) as aside:
            trainer.save_checkpoint(aside)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        sign(checkpoint, self.identity)  # the callbacks that change it come first

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_state": self.best_state,
            "spent_s": self.spent_s + time.monotonic() - self.since,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_state, self.spent_s = state_dict["best"], state_dict["best_state"], state_dict["spent_s"]


def _hand_on_best(watch: _Watch, objective: nn.Module, settings: TrainingSettings) -> None:
    if settings.keep_best and watch.best_state is not None:
        objective.student.load_state_dict(watch.best_state)  # type: ignore[union-attr]


def _asked_anywhere(trainer: Trainer) -> bool:
    """Whether any process of the run was asked to stop; all of them stop at the same step."""
    asked = requested() is not None
    return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked


def _plain(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _way_on(folder: RunFolder, settings: TrainingSettings, failed_step: int) -> str:
    """How a run that failed at a step can go on with another learning rate."""
    lower = f"training.learning_rate={settings.learning_rate / 3:.1g}"
    if failed_step and saved_step(folder.resume) == failed_step:
        return (
            f"and start again with another --out: the weights of the last saved point, step {failed_step}, fail at once"
        )
    return f"and go on, for example with {folder.resume_command(lower)}"


def _forget_log_after(folder: RunFolder, step: int) -> None:
    """Drop lines of steps that will be taken again."""
    rows = [row for row in folder.read_log() if row["step"] <= step]
    write_text(folder.log, "".join(json.dumps(row) + "\n" for row in rows))


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
