"""Settings that make no sense, given on the command line: each number, text and mapping of a run, spoiled in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from lidistill import jobs

STARTS = {
    "pointpillars": jobs.supervised("pointpillars", data="simulated").to_dict(),
    "second": jobs.supervised("second", data="simulated").to_dict(),
    "centerpoint-voxel": jobs.supervised("centerpoint-voxel", data="simulated").to_dict(),
}
NUMBERS = (".nan", "-.inf", "1e300", "-1e300", "{}", "some", "[[]]")


def leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested settings, with their values."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        elif key not in ("name", "format"):
            yield f"{path}{key}", value


def spoiled_settings() -> Iterator[tuple[str, str, str]]:
    """(detector, key, value) for every number of every start, two of NUMBERS each in turn; and a mapping for every
    other setting.
    """
    turn = 0
    seen = set()
    for start, content in STARTS.items():
        for key, value in leaves(content, ""):
            if key in seen:
                continue
            seen.add(key)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            for _ in range(2 if numeric else 1):
                yield start, key, NUMBERS[turn % len(NUMBERS)] if numeric else "{a: {b: 5}}"
                turn += 1


@pytest.mark.parametrize(("start", "key", "value"), list(spoiled_settings()))
def test_a_setting_without_sense_is_refused_by_name(lidistill, tmp_path, start, key, value):
    out = tmp_path / "run"
    data = f"simulated:{tmp_path / 'streets'}"
    ended = lidistill("train", start, "--data", data, "--out", out, f"{key}={value}")
    ended.refused(key.rpartition(".")[2])
    assert not out.exists()
    assert not (tmp_path / "streets").exists()


OTHERS = [
    "training.steps=5.5",
    "training.steps.a=5",
    "training.steps=-1",
    "training.epochs=0",
    "training.learning_rate=-1",
    "training.learning_rate=0",
    "training.momentum=[0.95]",
    "training.momentum=[2,0.85]",
    "training.beta2=1",
    "training.weight_decay=-0.1",
    "training.clip_norm=-1",
    "training.validate_every=-1",
    "training.ema_decay=2",
    "training.workers=-1",
    "training.batch_size=1000000000000",
    "training.batch_size=0",
    "training.strategy=somehow",
    "training.precision=64",
    "training.devices=0",
    "seed=-1",
    "seed=1.5",
    "seed=null",
    "role=boss",
    "role=distilled",
    "augmentation.rotation=-1",
    "augmentation.scale=[1]",
    "augmentation.scale=[2,1]",
    "augmentation.flip_y=2",
    "augmentation.paste={Car: -5}",
    "augmentation.paste={Car: .nan}",
    "detector.grid.voxel_size=[0,0.16,4]",
    "detector.grid.voxel_size=[1e-9,0.16,4]",
    "detector.grid.voxel_size=[0.15,0.16,4]",
    "detector.grid.max_voxels_train=1000000000000",
    "detector.bev.channels=[]",
    "detector.bev.channels=[0,0,0]",
    "detector.bev.channels=[1000000000,8,8]",
    "detector.bev.layers=[1]",
    "detector.classes=[]",
    "detector.classes=[Car,Car]",
    "detector.name=none",
    "data.classes=[Pedestrian,Car,Cyclist]",
    "data.classes=[Horse]",
    "data.classes=[]",
    "data.train_frames=0",
    "data.train_frames=1000000000000",
    "data.name=nothing",
    "data.simulator.azimuth_step_deg=1e-9",
    "data.simulator.sensor=eye",
    "distillation=5",
    "distillation={teacher: 5, methods: []}",
    "distillation={teacher: nowhere}",
    "methods.pointdistiller.temperature=0",
    "training=5",
    "training=[]",
    "training=null",
    "detector=5",
    "data=5",
    "augmentation=5",
    "nothing=5",
    "training.nothing=5",
    "=5",
    "training.=5",
    "..=5",
    "training..steps=5",
    "steps",
    "training.steps=[",
    "training.steps=&a [*a]",
    "training.steps=!!python/object:os.system",
    "training.steps=2026-02-31",
    f"training.steps={'9' * 5000}",
    f"training.steps={'[' * 5000}",
    f"{'a.' * 5000}b=1",
]


@pytest.mark.parametrize("override", OTHERS, ids=lambda text: text[:60])
def test_an_override_without_sense_is_refused(lidistill, tmp_path, override):
    out = tmp_path / "run"
    lidistill("train", "pointpillars", "--data", f"simulated:{tmp_path / 'streets'}", "--out", out, override).refused()
    assert not out.exists()
    assert not (tmp_path / "streets").exists()


METHOD_SETTINGS = [
    *(
        f"methods.{name}.weight={value}"
        for name in ("pointdistiller", "itkd", "rdd", "logits")
        for value in (".nan", "-1", "x")
    ),
    "methods.pointdistiller.num_queries=0",
    "methods.pointdistiller.num_neighbours=-5",
    "methods.pointdistiller.num_queries=1000000000000",
    "methods.itkd.nothing=5",
    "methods.fitnets.weight=1",
    "methods=5",
    "methods=[]",
    "methods=[5]",
    "methods=[{name: nothing}]",
    "distillation.teacher_bn=sometimes",
    "distillation.labelled_share=2",
    "distillation.labelled_share=.nan",
    "distillation.labelled_share=0.5",
    "distillation.teacher_labels=-1",
    "distillation.minimum_score=.nan",
    "distillation.initialise=last",
    "distillation.cache_precision=int8",
    "distillation.cache_teacher=true",
    "distillation.teacher=5",
]


@pytest.mark.parametrize("override", METHOD_SETTINGS)
def test_a_lesson_without_sense_is_refused(lidistill, good, tmp_path, override):
    out = tmp_path / "run"
    methods = [word for name in ("pointdistiller", "itkd", "rdd", "logits") for word in ("--method", name)]
    lidistill(
        "distill", good.teacher, *methods, "--no-certificate", "--out", out, override, "training.steps=1"
    ).refused()
    assert not out.exists()


def test_every_number_of_a_run_is_among_the_cases():
    tried = {key for _, key, _ in spoiled_settings()}
    for content in STARTS.values():
        for key, value in leaves(content, ""):
            assert key in tried, key
            assert not isinstance(value, float) or math.isfinite(value)
