import dataclasses

import numpy as np
import pytest

from lidistill.datasets.kitti.score_names import AP
from lidistill.evaluation.estimate import Estimate
from lidistill.report.measures.gains import Pair
from lidistill.report.measures.seed_spreads import seed_spreads, spread_of

MAIN = "strict/3d/mean/R40/moderate"


def seeded(runs, seed, gain, plain_seed=None, **lessons):
    _, plain, distilled = runs
    plain = dataclasses.replace(
        plain, experiment={**plain.experiment, "seed": seed if plain_seed is None else plain_seed}
    )
    settings = {**distilled.experiment["distillation"], **lessons}
    distilled = dataclasses.replace(
        distilled, experiment={**distilled.experiment, "seed": seed, "distillation": settings}
    )
    return Pair(plain, distilled, None, {MAIN: Estimate(gain, scale=AP)}, MAIN)


def test_interval_over_three_seeds_is_students_t_by_hand(runs):
    spread = seed_spreads([seeded(runs, seed, gain) for seed, gain in enumerate((1.0, 2.0, 3.0))])[0]
    half = 4.302653 * 1.0 / np.sqrt(3)  # t of 2 degrees of freedom at 97.5 %, deviation 1
    assert spread.mean.value == 2.0
    assert spread.mean.low == pytest.approx(2 - half, abs=1e-5)
    assert spread.mean.high == pytest.approx(2 + half, abs=1e-5)
    assert spread.mean.verdict == "unproven"
    assert "includes zero" in spread.sentence


@pytest.mark.parametrize(("sign", "verdict", "word"), [(1, "gain", "lifts"), (-1, "loss", "lowers")])
def test_gains_that_agree_are_a_verdict(runs, sign, verdict, word):
    spread = seed_spreads([seeded(runs, seed, sign * gain) for seed, gain in enumerate((2.0, 2.1, 1.9))])[0]
    assert spread.mean.verdict == verdict
    assert f"{word} the student by 2.0 AP on average" in spread.sentence
    assert spread.sentence.startswith("Over 3 seeds")


def test_a_spread_is_judged_as_it_is_printed(runs):
    """An interval from 0.02 reads 0.0 and includes zero, over seeds as over frames."""
    half = (1.0 - 0.02) / 4.302653 * np.sqrt(3)
    spread = seed_spreads([seeded(runs, seed, 1.0 + half * place) for seed, place in enumerate((-1, 0, 1))])[0]
    assert 0 < spread.mean.low < 0.05
    assert spread.mean.verdict == "unproven"
    assert (
        spread.sentence
        == "Over 3 seeds, no gain is shown: +1.0 AP on average, and the 95% interval over seeds 0.0 to +2.0 includes "
        "zero."
    )


def test_one_seed_is_no_spread(runs):
    assert seed_spreads([seeded(runs, 0, 1.0)]) == []
    assert seed_spreads([seeded(runs, 0, 1.0), seeded(runs, 0, 2.0)]) == []
    assert seed_spreads([]) == []


def test_other_methods_are_not_mixed_but_other_copies_of_the_teacher_are(runs):
    pairs = [
        seeded(runs, 0, 1.0),
        seeded(runs, 1, 2.0, teacher="another/folder"),
        seeded(runs, 2, 3.0, methods=[{"name": "fitnets"}]),
    ]
    spreads = seed_spreads(pairs)
    assert [spread.gains for spread in spreads] == [(1.0, 2.0)]
    assert spread_of(pairs[1], spreads) is spreads[0]
    assert spread_of(pairs[2], spreads) is None


def test_a_pair_of_two_seeds_or_without_a_gain_does_not_count(runs):
    assert seed_spreads([seeded(runs, 0, 1.0), seeded(runs, 1, 2.0, plain_seed=0)]) == []
    assert seed_spreads([seeded(runs, 0, 1.0), seeded(runs, 1, None)]) == []
