import dataclasses

import pytest

from lidistill.evaluation.estimate import Estimate
from lidistill.report.measures.fairness import differences
from lidistill.report.measures.seed_spreads import SeedSpread
from lidistill.report.render.caveats import commands, notes
from tests.report.fake_runs import timing_of


def said(runs, pairs, spreads=(), timing=None):
    return "\n".join(notes(runs, pairs, spreads, timing))


def real(run, **changes):
    data = {"data": {"name": "kitti"}}
    return dataclasses.replace(
        run,
        conditions={**run.conditions, "simulated": False, "dataset": "kitti"},
        experiment={**run.experiment, **data},
        **changes,
    )


def test_simulated_data_is_the_first_thing_said(runs, pair):
    assert notes(runs, [pair], [])[0].startswith("Every figure is from simulated streets")
    assert "simulated" not in said([real(run) for run in runs], [])


def test_the_fair_pair_differs_in_nothing(pair, runs):
    assert differences(pair) == []
    assert "differ in more than distillation" not in said(runs, [pair])


def test_an_unfair_pair_is_called_out_by_setting(pair, runs):
    training = {**pair.plain.experiment["training"], "steps": 350}
    plain = dataclasses.replace(pair.plain, experiment={**pair.plain.experiment, "training": training, "seed": 3})
    unfair = dataclasses.replace(pair, plain=plain)
    assert differences(unfair) == ["seed: 3 and 0", "training.steps: 350 and 700"]
    assert "differ in more than distillation (seed: 3 and 0; training.steps: 350 and 700)" in said(runs, [unfair])


@pytest.mark.parametrize(("frames", "warned"), [(30, True), (5000, False)])
def test_few_frames_are_called_few(runs, frames, warned):
    changed = [dataclasses.replace(run, conditions={**run.conditions, "frames": frames}) for run in runs]
    assert ("rest on" in said(changed, [])) == warned


def test_one_seed_is_not_enough_and_many_are_listed(runs, pair):
    assert "Another seed would give" in said(runs, [pair])
    spread = SeedSpread((pair,), (1.0, 2.0), Estimate(1.5, -4.9, 7.9))
    assert "Another seed would give" not in said(runs, [pair], [spread])
    assert "Single seeds: +1.0, +2.0." in said(runs, [pair], [spread])


def test_an_unexamined_teacher_is_named(runs, pair, tmp_path):
    assert "was not examined" not in said(runs, [pair])
    moved = dataclasses.replace(runs[2], folder=type(runs[2].folder)(tmp_path))
    assert "Distilled student: its teacher was not examined" in said([*runs[:2], moved], [])


def test_weights_chosen_on_the_validation_frames_are_admitted(runs):
    chosen = dataclasses.replace(runs[0], experiment={**runs[0].experiment, "training": {"keep_best": True}})
    assert "keep_best" in said([chosen], [])
    assert "keep_best" not in said(runs, [])


def test_not_evaluated_is_explained_where_it_occurs(runs):
    assert "n/a means that" not in said(runs, [])
    scores = dataclasses.replace(runs[0].scores, values={**runs[0].scores.values, "strict/3d/Car/R40/easy": None})
    assert "n/a means that" in said([dataclasses.replace(runs[0], scores=scores)], [])


def test_one_network_with_two_speeds_says_how_much_speeds_mean(runs, pair):
    assert "are the same network" not in said(
        runs, [pair], timing=timing_of(runs, plain=[10, 11, 9] * 3, distilled=[11, 9, 10] * 3)
    )
    apart = timing_of(runs, plain=[12.0] * 9, distilled=[10.0] * 9)
    assert "the first was 1.20× (1.20× to 1.20×) as fast" in said(runs, [pair], timing=apart)
    other = dataclasses.replace(pair, plain=dataclasses.replace(pair.plain, experiment={"detector": {"name": "other"}}))
    assert "are the same network" not in said(runs, [other], timing=apart)


def test_commands_can_be_pasted(runs, tmp_path):
    spaced = dataclasses.replace(runs[0], folder=type(runs[0].folder)(tmp_path / "a b"))
    lines = commands([spaced, runs[2]]).text.splitlines()
    assert lines[0] == f"lidistill train '{tmp_path}/a b/experiment.yaml' --out '{tmp_path}/a b-again'"
    assert lines[-1] == f"lidistill report '{tmp_path}/a b-again' {runs[2].folder.path}-again --out report-again"
