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
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lidistill.files import write_text
from lidistill.types import InputError


@dataclass(frozen=True)
class RunFolder:
    path: Path

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

    def read_experiment(self) -> dict[str, Any]:
        """The resolved settings as plain containers."""
        if not self.experiment.is_file():
            raise InputError(f"{self.path}: not a run folder (no {self.experiment.name}); give the --out folder of an earlier train or distill")
        try:
            content = yaml.safe_load(self.experiment.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise InputError(f"{self.experiment}: not valid YAML ({error}); restore it from the run's backup or train again") from error
        if not isinstance(content, dict):
            raise InputError(f"{self.experiment}: holds no settings; train again or restore the file")
        return content

    def write_experiment(self, settings: dict[str, Any]) -> None:
        write_text(self.experiment, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def read_log(self) -> list[dict[str, Any]]:
        """Logged steps in order; a line cut off by a kill is left out."""
        if not self.log.is_file():
            return []
        rows = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an InputError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; run `lidistill evaluate` on its folder first") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} is not valid JSON; write it again with `lidistill evaluate`") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; write it again with `lidistill evaluate`")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
