"""The training run: Lightning's Trainer with our order of frames, logs and resume files."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lidistill.data.training_frames import StepBatches
from lidistill.files import write_text
from lidistill.run_folder import RunFolder
from lidistill.stopping import finishing, held_back
from lidistill.training.finite_check import NotFinite
from lidistill.training.module import TrainingModule
from lidistill.training.resume_file import read_resume, saved_step
from lidistill.training.run_watcher import RunWatcher, Validate
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import Frame, InputError, collate

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
    higher_is_better: bool = True,
    undecayed: Collection[str] = (),
    resume: bool = False,
    identity: str = "",
) -> None:
    """Train `objective` until the last step; afterwards it holds the final weights.

    `objective` maps a batch to Losses and has the detector as `.student`. `frames` has a length and is indexed by
    (epoch, row). With `resume`, the run continues from `folder.resume` and ends with the weights of an uninterrupted
    run. `higher_is_better` describes the first figure of `validate`. `undecayed` names parameters of `objective`
    without weight decay. `identity` distinguishes experiments: only the experiment that saved a resume file can resume
    from it.

    After a signal, the current step is finished and saved; then `Stopped` is raised. NotFinite is raised if a loss or a
    gradient becomes NaN or infinite, and InputError if the resume file does not fit this run.
    """
    if settings.norm_momentum:
        for layer in objective.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.momentum = settings.norm_momentum
    if settings.precision not in _PRECISION:
        raise InputError(
            f"training.precision is {settings.precision!r} at the start of a run; resolve it for the device to 32, "
            "bf16 or fp16 first"
        )
    num_frames = len(frames)  # type: ignore[arg-type]
    total = settings.total_steps(num_frames)
    module = TrainingModule(objective, settings, total, seed, undecayed)
    watcher = RunWatcher(folder, settings, total, name, validate, higher_is_better, identity)
    callbacks: list[Callback] = [watcher]
    if settings.ema_decay:
        callbacks.insert(0, EMAWeightAveraging(decay=settings.ema_decay))
    _quiet_lightning()
    kind, _, index = device.partition(":")  # "cuda:1" is that device only
    with ExitStack() as stack, finishing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
        watcher.stack = stack
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
                watcher.load_state_dict(saved["callbacks"][watcher.state_key])
                _load_best(watcher, objective, settings)
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
            watcher.begin(first_step)
        try:
            trainer.fit(module, loader, ckpt_path=str(folder.resume) if first_step else None, weights_only=True)
        except NotFinite as error:
            raise NotFinite(error.finding, f"{error.remedy} {_way_on(folder, settings, module.global_step)}") from error
        except InputError as error:
            # A loader process puts its traceback into the message; our sentence is at the end.
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
    _load_best(watcher, objective, settings)


class _Batches(StepBatches):
    """The remaining batches; the length is that of the whole run, because Lightning counts on from the saved step."""

    def __len__(self) -> int:
        return self.stop_step


class _Loader(DataLoader[Frame]):
    """Its worker processes ignore stop signals: the current step needs them, and they end with this process."""

    def __iter__(self) -> Any:
        with held_back():
            return super().__iter__()


def _load_best(watcher: RunWatcher, objective: nn.Module, settings: TrainingSettings) -> None:
    if settings.keep_best and watcher.best_state is not None:
        objective.student.load_state_dict(watcher.best_state)  # type: ignore[union-attr]


def _way_on(folder: RunFolder, settings: TrainingSettings, failed_step: int) -> str:
    """Say how a run that failed at a step can be resumed with a lower learning rate."""
    lower = f"training.learning_rate={settings.learning_rate / 3:.1g}"
    if failed_step and saved_step(folder.resume) == failed_step:
        return f"and start again with another --out: the weights of the last saved step, {failed_step}, fail at once"
    return f"and resume, for example with {folder.resume_command(lower)}"


def _forget_log_after(folder: RunFolder, step: int) -> None:
    """Remove lines of steps that will be repeated."""
    rows = [row for row in folder.read_log() if row["step"] <= step]
    write_text(folder.log, "".join(json.dumps(row) + "\n" for row in rows))


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
