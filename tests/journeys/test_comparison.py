"""Many students under one budget: the table, what is refused, and a kill in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill import jobs
from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.files import claimed
from lidistill.jobs.comparison import Comparison, Row
from lidistill.jobs.comparison_plan import check_alike, plan_student_runs
from lidistill.jobs.trained_runs import read_experiment
from lidistill.run_folder import RunFolder, read_json
from lidistill.training.checkpoint import read_weights
from lidistill.training.module import TrainingModule
from lidistill.types import InputError

ROWS = (Row.of("logits"), Row("fitnets-half", ("fitnets",), ("methods.fitnets.weight=0.5",)))
SEEDS = (0, 1)


def plan_for(journey, **changes) -> Comparison:
    return Comparison(**{"start": str(journey.teacher), "rows": ROWS, "seeds": SEEDS, **changes})


@pytest.fixture(scope="module")
def compared(journey, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compared") / "comparison"
    jobs.compare(plan_for(journey), out, processes=2, device="cpu", certificate=False)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_weights(folder / "checkpoint.pt"))


def test_every_row_and_seed_is_a_run_folder_beside_one_table(compared):
    made = {path.parent.name for path in compared.glob("*/scores.json")}
    assert made == {f"{row}-seed{seed}" for row in ("none", "logits", "fitnets-half") for seed in SEEDS}
    text = (compared / "comparison.md").read_text()
    assert "Simulated data" in text
    assert "| plain |" in text
    assert "| fitnets-half |" in text
    assert (compared / "report" / "report.html").is_file()


def test_the_table_carries_its_conditions_and_one_score_a_seed(compared):
    content = read_json(compared / "comparison.json")
    assert content["simulated"] is True
    assert content["split"] == "val"
    assert content["commit"] and content["device"] and content["overlap"]
    for row in content["rows"]:
        assert row["seeds"] == list(SEEDS)
        for seed, value in zip(SEEDS, row["scores"][content["main"]], strict=True):
            assert value == read_json(compared / f"{row['name']}-seed{seed}" / "scores.json")["values"][content["main"]]
    plain, logits, fitnets = content["rows"]
    assert plain["gain"] is None
    assert len(logits["interval_over_seeds"]) == len(logits["interval_over_frames"]) == 2
    assert plain["step"]["extra_parameters"] == logits["step"]["extra_parameters"] == 0
    assert fitnets["step"]["extra_parameters"] > 0
    assert fitnets["step"]["memory_bytes"] > plain["step"]["memory_bytes"] > 0


def test_steps_are_compared_turn_by_turn_with_the_plain_student(compared):
    plain, *others = (row["step"] for row in read_json(compared / "comparison.json")["rows"])
    assert plain["over_plain"] is None and plain["step_ms"] == {}
    for step in others:
        assert step["turns"] == 9
        assert 0 < step["over_plain"]["low"] <= step["over_plain"]["value"] <= step["over_plain"]["high"]
    table = (compared / "comparison.md").read_text().rpartition("One training step")[2]
    assert "measured in turns" in table
    assert " ms" not in table


def test_every_table_of_scores_says_that_the_data_are_simulated(compared):
    captions = [
        line
        for line in (compared / "comparison.md").read_text().splitlines()
        if line.endswith(":") and "percent" in line
    ]
    assert len(captions) == 2
    assert all("simulated data" in caption for caption in captions)


def test_seeds_differ(compared):
    first, second = (weights(compared / f"none-seed{seed}") for seed in SEEDS)
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_gains_and_intervals_are_those_computed_by_hand(compared):
    content = read_json(compared / "comparison.json")
    main = content["main"]
    row = content["rows"][1]
    scores = {
        name: [read_json(compared / f"{name}-seed{seed}" / "scores.json")["values"][main] for seed in SEEDS]
        for name in ("none", row["name"])
    }
    gains = [taught - alone for taught, alone in zip(scores[row["name"]], scores["none"], strict=True)]
    assert row["gain"] == pytest.approx(sum(gains) / 2, abs=1e-6)
    # Two seeds a row: each row's variance is half of its squared difference, with one degree of freedom. The standard
    # error of the gain of one row over another is the root of the mean variance.
    every = [[entry["scores"][main][seed] for seed in range(2)] for entry in content["rows"]]
    error = np.sqrt(np.mean([(a - b) ** 2 / 2 for a, b in every]))
    assert content["spread_between_seeds"] == pytest.approx(error, rel=1e-3, abs=1e-6)
    half = 3.182 * error  # Student, three degrees of freedom
    assert row["interval_over_seeds"] == pytest.approx([row["gain"] - half, row["gain"] + half], rel=1e-3, abs=1e-3)
    low, high = row["interval_over_seeds_adjusted"]
    assert low <= row["interval_over_seeds"][0]
    assert high >= row["interval_over_seeds"][1]
    assert row["found_in_8_of_10"] >= 0
    matches = {
        (name, seed): FrameMatches.load(compared / f"{name}-seed{seed}" / "matches.npz")
        for name in scores
        for seed in SEEDS
    }
    generator = np.random.default_rng(0)
    frames = len(matches["none", 0].frame_ids)
    draws = []
    for _ in range(1000):
        times = np.bincount(generator.integers(frames, size=frames), minlength=frames)
        drawn = {key: found.estimator(main)(times) or 0.0 for key, found in matches.items()}
        draws.append(np.mean([drawn[row["name"], seed] - drawn["none", seed] for seed in SEEDS]))
    assert row["interval_over_frames"] == pytest.approx(list(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def test_every_row_starts_from_the_same_weights_and_sees_the_same_frames(compared, journey, tmp_path, monkeypatch):
    seen = {}

    def first_step(module, batch, _index):
        student = {key: value.clone() for key, value in module.objective.student.state_dict().items()}
        seen[row] = (
            batch,
            student,
            [layer.momentum for layer in module.objective.student.modules() if hasattr(layer, "momentum")],
        )
        raise InputError("enough")

    monkeypatch.setattr(TrainingModule, "training_step", first_step)
    for row in ("none", "logits", "fitnets-half"):
        experiment = read_experiment(RunFolder(compared / f"{row}-seed1"))
        with pytest.raises(InputError, match="enough"):
            jobs.train(experiment, tmp_path / row, device="cpu", certificate=False)
    batch, student, momenta = seen["none"]
    for other_batch, other_student, other_momenta in (seen["logits"], seen["fitnets-half"]):
        assert other_batch.frame_ids == batch.frame_ids
        assert torch.equal(other_batch.points, batch.points)
        assert all(torch.equal(other_student[key], student[key]) for key in student)
        assert other_momenta == momenta


def test_a_finished_comparison_is_not_trained_again(compared, journey):
    before = {path: path.stat().st_mtime_ns for path in compared.glob("*/checkpoint.pt")}
    table = (compared / "comparison.md").read_text()
    jobs.compare(plan_for(journey), compared, device="cpu", certificate=False)
    assert {path: path.stat().st_mtime_ns for path in compared.glob("*/checkpoint.pt")} == before
    assert (compared / "comparison.md").read_text() == table


def test_another_plan_in_the_same_folder_is_refused(compared, journey):
    with pytest.raises(InputError, match="holds another plan"):
        jobs.compare(plan_for(journey, seeds=(0,)), compared, device="cpu", certificate=False)


def test_a_kill_in_the_middle_changes_no_weight(compared, journey, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT, str(journey.teacher), str(out)]
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(out.glob("*/resume.ckpt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(out.glob("*/resume.ckpt"))
    assert len(list(out.glob("*/scores.json"))) < len(ROWS) * len(SEEDS) + len(SEEDS)
    time.sleep(2.5)  # orphaned workers notice within a second that nobody waits for them
    jobs.compare(plan_for(journey), out, device="cpu", certificate=False)
    for folder in compared.glob("*-seed*"):
        ours, theirs = weights(out / folder.name), weights(folder)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), folder.name


SCRIPT = """
import sys

from lidistill import jobs
from lidistill.jobs.comparison_plan import Comparison
from tests.journeys.test_comparison import ROWS, SEEDS

if __name__ == "__main__":
    jobs.compare(Comparison(sys.argv[1], ROWS, SEEDS), sys.argv[2], processes=2, device="cpu", certificate=False)
"""


def test_a_row_that_cannot_work_is_refused_before_anything_is_written(journey, tmp_path):
    for row, sentence in (
        (Row("bad", ("fitnets",), ("methods.fitnets.taps=[nowhere]",)), "row bad: fitnets needs the tap 'nowhere'"),
        (Row("idle", (), ()), "row idle distils nothing"),
        (Row.of("itdk"), "did you mean 'itkd'"),
    ):
        with pytest.raises(InputError, match=sentence):
            jobs.compare(plan_for(journey, rows=(row,)), tmp_path / "c", device="cpu")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_cell_that_fails_is_named_and_the_others_are_finished(journey, tmp_path, processes):
    broken = (Row("bad", ("lad",), ("distillation.labelled_share=0",)), Row.of("logits"))
    with pytest.raises(InputError, match="1 students could not be trained.*bad, seed 0: .*there is no loss"):
        jobs.compare(
            plan_for(journey, rows=broken, seeds=(0,)),
            tmp_path / "c",
            processes=processes,
            device="cpu",
            certificate=False,
        )
    assert (tmp_path / "c" / "logits-seed0" / "scores.json").is_file()


def cells_for(journey, out, **changes):
    return plan_student_runs(
        plan_for(journey, **changes), read_experiment(RunFolder(journey.teacher)), journey.teacher, out
    )


def test_rows_under_unequal_conditions_are_refused(journey, tmp_path):
    teacher = read_experiment(RunFolder(journey.teacher))
    cells = cells_for(journey, tmp_path)
    check_alike(cells, teacher)
    longer = [*cells[:-1], cells_for(journey, tmp_path, overrides=("training.steps=13",))[-1]]
    message = "none and fitnets-half would be compared under unequal conditions: their training settings differ"
    with pytest.raises(InputError, match=message):
        check_alike(longer, teacher)
    stricter = cells_for(journey, tmp_path, overrides=("detector.head.post.score_threshold=0.2",))
    with pytest.raises(InputError, match="teacher's and the students' boxes are post-processed differently"):
        check_alike(stricter, teacher)


def test_an_override_of_widths_does_not_undo_the_compression(journey, tmp_path):
    wide = cells_for(journey, tmp_path, overrides=("detector.bev.channels=[32,32,32]",))
    assert {cell.experiment.detector.bev.channels for cell in wide} == {(16, 16, 16)}


def test_students_of_other_settings_or_of_another_teacher_are_not_mixed_in(compared, journey, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(compared, out)
    (out / "teacher.sha256").write_text("0" * 64)
    with pytest.raises(InputError, match="the teacher's weights have changed"):
        jobs.compare(plan_for(journey), out, device="cpu", certificate=False)
    shutil.copy(compared / "teacher.sha256", out)
    settings = out / "logits-seed1" / "experiment.yaml"
    settings.write_text(settings.read_text().replace("temperature: 1.0", "temperature: 3.0"))
    with pytest.raises(InputError, match="logits-seed1 was trained with other settings"):
        jobs.compare(plan_for(journey), out, device="cpu", certificate=False)


def test_two_processes_do_not_share_a_folder(journey, tmp_path):
    holding = (
        "import sys, time; from lidistill.files import claimed\nwith claimed(sys.argv[1]):\n    print('in', "
        "flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holding, str(tmp_path / "c")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="another process is writing here"):
            jobs.compare(plan_for(journey), tmp_path / "c", device="cpu", certificate=False)
    finally:
        process.kill()
        process.communicate()
    with claimed(tmp_path / "c"):  # a killed process leaves nothing behind
        pass


def test_a_teacher_without_scores_is_refused(journey, tmp_path):
    shutil.copytree(journey.teacher, tmp_path / "teacher")
    (tmp_path / "teacher" / "scores.json").unlink()
    with pytest.raises(InputError, match="the teacher has no scores to compare with"):
        jobs.compare(plan_for(journey, start=str(tmp_path / "teacher")), tmp_path / "c", device="cpu")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": (Row.of("logits"), Row.of("logits"))}, "rows logits are listed twice"),
        ({"rows": (Row.of("none"),)}, "nothing to compare"),
        ({"seeds": ()}, "give at least one"),
        ({"seeds": (1, 1)}, "each once"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        Comparison(**{"start": "pointpillars", "rows": ROWS, **change})


def test_a_row_changes_the_lesson_and_nothing_else():
    assert Row.of("fitnets+logits").methods == ("fitnets", "logits")
    assert Row.of("none").methods == ()
    with pytest.raises(InputError, match="lists logits twice"):
        Row.of("logits+logits")
    with pytest.raises(InputError, match="would change more than the distillation"):
        Row("longer", ("logits",), ("training.steps=5",))
    with pytest.raises(InputError, match="would change more than the distillation"):
        Row("elsewhere", ("logits",), ("distillation.teacher=runs/other",))
    with pytest.raises(InputError, match="is not distilled"):
        Row("none", ("logits",))
    with pytest.raises(InputError, match="names a folder"):
        Row("a/b", ("logits",))


def test_a_recipe_is_read_from_yaml_and_a_wrong_key_is_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "start: pointpillars\nseeds: [3]\nrows:\n  - {name: soft, methods: [logits], overrides: "
        "[methods.logits.temperature=2]}\n"
    )
    plan = Comparison.read(path)
    assert plan.rows == (Row("soft", ("logits",), ("methods.logits.temperature=2",)),)
    assert plan.seeds == (3,)
    path.write_text("start: pointpillars\nrowz: []\nrows: []\n")
    with pytest.raises(InputError, match="unknown key 'rowz'; did you mean 'rows'"):
        Comparison.read(path)


def test_a_cluster_trains_the_cells_or_its_absence_is_one_sentence(journey, tmp_path):
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"--ray needs Ray; install it"):
            jobs.compare(plan_for(journey, seeds=(0,)), tmp_path / "c", ray="local", device="cpu", certificate=False)
    else:
        jobs.compare(
            plan_for(journey, rows=(Row.of("logits"),), seeds=(0,)),
            tmp_path / "c",
            ray="local",
            device="cpu",
            certificate=False,
        )
        assert (tmp_path / "c" / "logits-seed0" / "scores.json").is_file()


def test_a_recipe_can_be_run_with_a_finished_teacher_and_fewer_seeds():
    plan = Comparison("pointpillars", ROWS, (0, 1, 2), data="simulated", overrides=("training.steps=9",))
    changed = plan.changed(teacher="runs/teacher", seeds=1, overrides=["training.batch_size=1"])
    assert (changed.start, changed.data, changed.seeds) == ("runs/teacher", None, (0,))
    assert changed.overrides == ("training.steps=9", "training.batch_size=1")
    assert plan.changed(teacher=None, seeds=None, overrides=()) == plan
