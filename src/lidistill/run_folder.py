"""The layout of a run folder. Each command reads only what earlier commands wrote here.

experiment.yaml    complete settings, seed, versions, commit, device
checkpoint.pt      weights of the detector only
resume.ckpt        everything needed to resume after an interruption
log.jsonl          one line per logged step: {"step": 10, "kind": "train" or "validation", "time_s": ..., term: ...}
tensorboard/       the same values for TensorBoard
predictions.npz    boxes on the validation frames
matches.npz        matches of each frame, for intervals of scores and of differences between runs
scores.json        scores by the dataset's protocol, with dataset, split, metric, overlaps, seed, commit and device
profile.json       parameters, multiply-accumulates, latency
samples.npz        points and ground-truth boxes of a few validation frames, for pictures
step.json          time, memory and extra parameters of a training step, if measured
certificate.json   of a student: the checks of its teacher, with results
DATASET-SPLIT/     predictions.npz, matches.npz and scores.json of a split of another dataset
SPLIT/             predictions.npz, matches.npz and scores.json of a split other than the validation split
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
VALIDATION = "val"  # the split whose scores are in the run folder itself


@dataclass(frozen=True)
class RunFolder:
    path: Path

    def of_split(self, split: str) -> RunFolder:
        """Return the folder of the predictions, matches and scores of `split`; InputError if it is no plain name."""
        if split == VALIDATION:
            return self
        if Path(split).name != split:
            raise InputError(f"split {split!r} also names the folder of its scores; give a plain name such as train")
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
        """Return the command that resumes the run, whichever command started it."""
        return f"`{shlex.join(['lidistill', 'train', '--resume', '--out', str(self.path), *overrides])}`"

    def read_experiment(self) -> dict[str, Any]:
        """Return the complete settings as plain containers; InputError if the file is missing or malformed."""
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
        """Return the logged steps in order, without an incomplete last line, which a killed process may leave.

        InputError names a line that is not a logged step.
        """
        if not self.log.exists():
            return []
        rows = parsing.read_json_lines(self.log, LOG_REMEDY)
        for row in rows:
            _check_step(self.log, row)
        return rows


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; InputError names the file."""
    return parsing.read_json(path, "write it with `lidistill evaluate`")


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _check_step(path: Path, row: dict[str, Any]) -> None:
    """Raise InputError unless a row has a whole number as its step, a text as its kind, and numbers as other values.

    Null stands for a value that was not finite.
    """
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise InputError(
            f"{path}: a line has the step {step!r}, which is not a whole number of 0 or more; {LOG_REMEDY}"
        )
    for key, value in row.items():
        kinds: tuple[type, ...] = (str,) if key == "kind" else (int, float, type(None))
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InputError(
                f"{path}: at step {step} the value of {key!r} is {value!r}, which is not valid there; {LOG_REMEDY}"
            )
