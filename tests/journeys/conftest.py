"""One small journey through every command, made once: simulated frames, a teacher, a plain and a distilled student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lidistill import jobs

TINY = [
    "data.train_frames=8",
    "data.val_frames=6",
    "data.workers=1",
    "detector.grid.point_range=[0,-12.8,-3,25.6,12.8,1]",
    "detector.encoder.channels=8",
    "detector.bev.channels=[8,16,16]",
    "detector.bev.layers=[1,1,1]",
    "detector.bev.neck_channels=[8,8,8]",
    "training.steps=12",
    "training.save_every=5",
    "training.log_every=3",
]


@dataclass(frozen=True)
class Journey:
    data: Path
    teacher: Path
    plain: Path
    student: Path


@pytest.fixture(scope="session")
def journey(tmp_path_factory) -> Journey:
    base = tmp_path_factory.mktemp("journey")
    made = Journey(base / "data", base / "teacher", base / "plain", base / "student")
    teacher = jobs.supervised("pointpillars", data=f"simulated:{made.data}", overrides=TINY)
    jobs.train(teacher, made.teacher, device="cpu")
    jobs.train(jobs.plain_student(str(made.teacher), compression=4), made.plain, device="cpu")
    student = jobs.distilled(str(made.teacher), compression=4, methods=["pointdistiller", "logits", "fitnets"])
    jobs.train(student, made.student, device="cpu", certificate=False)
    return made
