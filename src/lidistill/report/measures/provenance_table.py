"""Where each figure of a report comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lidistill.report.measures.runs import Run
from lidistill.report.number_format import MISSING
from lidistill.report.page_blocks import Table


def provenance_table(runs: Sequence[Run]) -> Table:
    """Where each figure comes from, one column per run."""
    rows = [(name, *(_text(read(run)) for run in runs)) for name, read in _PROVENANCE.items()]
    return Table(
        ("", *(run.label for run in runs)),
        tuple(row for row in rows if any(cell != MISSING for cell in row[1:])),
        text_columns=len(runs) + 1,
    )


def _text(value: Any) -> str:
    if value is None or value == "" or value == {}:
        return MISSING
    if isinstance(value, Mapping):
        if any(isinstance(item, Mapping) for item in value.values()):
            return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


_PROVENANCE = {
    "Folder": lambda run: run.folder.path,
    "Dataset": lambda run: run.conditions.get("dataset") or run.setting("data", "name"),
    "Version of the dataset": lambda run: run.conditions.get("dataset_version"),
    "Split": lambda run: run.conditions.get("split"),
    "Frames": lambda run: run.conditions.get("frames"),
    "Metric": lambda run: run.conditions.get("protocol"),
    "Headline score": lambda run: run.conditions.get("main"),
    "Overlap": lambda run: run.conditions.get("overlap"),
    "Detector": lambda run: run.setting("detector", "name"),
    "Distillation": lambda run: ", ".join(run.methods),
    "Teacher's BatchNorm": lambda run: run.setting("distillation", "teacher_bn"),
    "Training steps": lambda run: run.setting("training", "steps"),
    "Batch size": lambda run: run.setting("training", "batch_size"),
    "Seed": lambda run: run.seed,
    "Trained on": lambda run: run.setting("provenance", "device"),
    "Scored on": lambda run: run.conditions.get("device"),
    "lidistill": lambda run: run.setting("provenance", "version"),
    "Commit": lambda run: run.setting("provenance", "commit") or run.conditions.get("commit"),
    "Versions": lambda run: run.setting("provenance", "versions"),
    "Trained at": lambda run: run.setting("provenance", "created"),
}
