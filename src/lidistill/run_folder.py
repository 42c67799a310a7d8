"""The layout of a run folder: every step reads only what the step before wrote here.

experiment.yaml    resolved settings, seed, versions, commit, device
checkpoint.pt      weights of the detector alone
resume.ckpt        everything needed to go on after an interruption
log.jsonl          one line a logged step: {"step": 10, "kind": "train" | "validation", "time_s": ..., term: value, ...}
tensorboard/       the same for TensorBoard
predictions.npz    boxes on the validation frames, saved before they are scored
matches.npz        per-frame matches, from which intervals between two runs are computed
scores.json        what the protocol says, with dataset, split, metric, overlaps, seed, commit and device
profile.json       parameters, multiply-accumulates, latency
samples.npz        a few validation frames (points, truth) for pictures
step.json          time, memory and extra parameters of a training step, where they were compared
certificate.json   for a student: what was checked of its teacher
SPLIT/             predictions.npz, matches.npz and scores.json of another split than the validation split
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lidistill import parsing, reading
from lidistill.files import write_text
from lidistill.types import InputError

LOG_REMEDY = "delete that line: the log is for curves only"
VALIDATION = "val"  # the split whose scores are the run's


@dataclass(frozen=True)
class RunFolder:
    path: Path

    def of_split(self, split: str) -> RunFolder:
        """Where what was found on `split` lies."""
        if split == VALIDATION:
            return self
        if Path(split).name != split:
            raise InputError(f"split {split!r} names a folder of the scores, so give a plain name such as train")
        return RunFolder(self.path / split)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def resume(self) -> Path:
        return self.path / "resume.ckpt"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def matches(self) -> Path:
        return self.path / "matches.npz"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def profile(self) -> Path:
        return self.path / "profile.json"

    @property
    def step(self) -> Path:
        return self.path / "step.json"

    @property
    def samples(self) -> Path:
        return self.path / "samples.npz"

    @property
    def certificate(self) -> Path:
        return self.path / "certificate.json"

    def resume_command(self, *overrides: str) -> str:
        """What goes on with the run, whichever command began it."""
        return f"`{shlex.join(['lidistill', 'train', '--resume', '--out', str(self.path), *overrides])}`"

    def read_experiment(self) -> dict[str, Any]:
        """The resolved settings as plain containers."""
        try:
            return parsing.read_yaml(self.experiment, "restore the file from a backup, or train again")
        except reading.MissingFile as error:
            raise InputError(
                f"{self.path}: not a run folder (no {self.experiment.name}); give the --out folder of an earlier "
                "train or distill"
            ) from error

    def write_experiment(self, settings: dict[str, Any]) -> None:
        write_text(self.experiment, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def read_log(self) -> list[dict[str, Any]]:
        """Logged steps in order; a last line cut off by a kill is left out.

        InputError names a line that is no logged step.
        """
        if not self.log.exists():
            return []
        rows = parsing.read_json_lines(self.log, LOG_REMEDY)
        for row in rows:
            _check_step(self.log, row)
        return rows


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an InputError that names the file."""
    return parsing.read_json(path, "write it with `lidistill evaluate`")


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _check_step(path: Path, row: dict[str, Any]) -> None:
    """A row of the log has a whole number as its step, a text as its kind and numbers for the rest; null stands for one
    that was not finite.
    """
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise InputError(f"{path}: a line has the step {step!r}, which is no whole number from 0 up; {LOG_REMEDY}")
    for key, value in row.items():
        kinds: tuple[type, ...] = (str,) if key == "kind" else (int, float, type(None))
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InputError(f"{path}: at step {step} {key!r} is {value!r}, which no log holds there; {LOG_REMEDY}")
