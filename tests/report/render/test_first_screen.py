import dataclasses

import pytest

from lidistill.datasets.kitti.score_names import AP
from lidistill.evaluation.estimate import Estimate
from lidistill.report.measures.seed_spreads import seed_spreads
from lidistill.report.render.first_screen import headline, key_figures
from tests.report.fake_runs import timing_of


def lifted(pair, **changes):
    """The pair with a gain of 3.4 that its interval shows, and another plain student."""
    plain = dataclasses.replace(pair.plain, experiment={**pair.plain.experiment, **changes})
    return dataclasses.replace(pair, plain=plain, gains={key: Estimate(3.4, 1.2, 5.4, scale=AP) for key in pair.gains})


def test_the_headline_says_that_there_is_one_seed(runs, pair):
    assert headline(runs, [lifted(pair)], []) == (
        "From one seed, distillation lifts the student by 3.4 AP (95% interval over frames +1.2 to +5.4).",
        "gain",
    )
    assert key_figures([lifted(pair)], [], None)[0].note == "one seed; 95% interval over frames +1.2 to +5.4"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 3, "seed: 3 and 0"),
        ("training", {"steps": 350, "batch_size": 2, "keep_best": False}, "training.steps: 350 and 700"),
        ("data", {"name": "simulated", "root": "other"}, "data.root: other and data"),
        (
            "detector",
            {"name": "pointpillars", "classes": ["Car", "Pedestrian", "Cyclist"], "width": 0.5},
            "detector.width: 0.5 and 0.25",
        ),
        (
            "provenance",
            {"commit": "fedcba987654", "device": "Example CPU, 1 threads"},
            "commit: fedcba987654 and 0123456789ab",
        ),
        (
            "provenance",
            {"commit": "0123456789ab", "device": "Example GPU"},
            "device: Example GPU and Example CPU, 1 threads",
        ),
    ],
)
def test_the_headline_says_in_what_else_the_students_differ(runs, pair, key, value, said):
    sentence, verdict = headline(runs, [lifted(pair, **{key: value})], [])
    assert sentence == (
        "From one seed, the distilled student differs from the plain one by +3.4 AP (95% interval over frames +1.2 to "
        f"+5.4), but the two differ in more than distillation (plain first): {said}."
    )
    assert verdict == "unproven"
    tiles = key_figures([lifted(pair, **{key: value})], [], None)
    assert tiles[0].name == "AP difference from the plain student, whose settings differ"
    assert "of the teacher's lead" not in [tile.name for tile in tiles]


def test_many_differences_are_counted_and_those_of_any_seed_are_said(runs, pair):
    training = {"steps": 1, "batch_size": 1, "keep_best": True, "learning_rate": 1}
    assert headline(runs, [lifted(pair, training=training)], [])[0].endswith(
        "training.keep_best: True and False; and 1 more."
    )
    pairs = [
        dataclasses.replace(
            lifted(pair, seed=seed, training={"steps": 700 - 50 * seed, "batch_size": 2, "keep_best": False}),
            distilled=dataclasses.replace(pair.distilled, experiment={**pair.distilled.experiment, "seed": seed}),
        )
        for seed in (0, 1)
    ]
    assert headline(runs, pairs, seed_spreads(pairs))[0].endswith("training.steps: 650 and 700.")


@pytest.mark.parametrize(
    ("student", "claimed"),
    [
        ([10.0, 11.0, 9.0] * 3, True),
        ([20.0, 21.0, 19.0] * 3, False),
        ([30.0] * 9, False),
        ([19.9, 20.1] * 4 + [20.0], False),
    ],
)
def test_a_tile_claims_a_speed_up_only_where_the_interval_excludes_one(runs, pair, student, claimed):
    timing = timing_of(runs, teacher=[20.0] * 9, distilled=student)
    tiles = [figure for figure in key_figures([pair], [], timing) if "fast" in figure.name]
    assert bool(tiles) == claimed
    if claimed:
        assert tiles[0].value == "2.00×"
        assert tiles[0].note == "10.0 ms instead of 20.0 ms; 95% interval 1.82× to 2.22×"


def test_nothing_is_said_of_speed_that_was_not_measured_beside_each_other(runs, pair):
    assert not [figure for figure in key_figures([pair], [], None) if "fast" in figure.name]
