import dataclasses

import numpy as np
import pytest

from lidistill.datasets.kitti.metric import evaluate_objects, match_frames
from lidistill.datasets.kitti.score_names import AP, MAIN
from lidistill.evaluation.intervals import bootstrap, mean_gain, paired_bootstrap
from lidistill.evaluation.protocol import Resamplable
from lidistill.evaluation.scale import Scale
from lidistill.types import InputError
from tests.evaluation.kitti_scenes import objects, street

CLASSES = ("Car", "Pedestrian", "Cyclist")
KEY = "loose/bev/Car/R40/hard"


@pytest.fixture(scope="module")
def frames():
    return street(np.random.default_rng(8), 40, digits=6)


@pytest.fixture(scope="module")
def teacher(frames):
    return match_frames(*frames, CLASSES)


@pytest.fixture(scope="module")
def student(frames):
    """The same detections with some of them lost."""
    truths, found = frames
    rng = np.random.default_rng(0)
    return match_frames(truths, [frame[rng.random(len(frame)) < 0.7] for frame in found], CLASSES)


def test_every_draw_is_the_whole_metric_on_the_drawn_frames(frames, teacher):
    truths, found = frames
    rng = np.random.default_rng(11)
    values = []
    for _ in range(20):
        rows = rng.integers(40, size=40)
        values.append(evaluate_objects([truths[i] for i in rows], [found[i] for i in rows], CLASSES).values[KEY])
    spread = bootstrap(teacher, KEY, resamples=20, seed=11, level=0.8)
    assert (spread.low, spread.high) == pytest.approx(tuple(np.quantile(values, [0.1, 0.9])), abs=1e-12)
    assert spread.value == pytest.approx(evaluate_objects(truths, found, CLASSES).values[KEY], abs=1e-12)


def test_a_run_gains_nothing_over_itself(teacher):
    interval = paired_bootstrap(teacher, teacher, MAIN, resamples=50)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_exchanging_the_runs_turns_the_interval_round(teacher, student):
    forth, back = (paired_bootstrap(*pair, KEY, resamples=200) for pair in ((student, teacher), (teacher, student)))
    assert forth.value == pytest.approx(-back.value) and forth.value > 0
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.low <= forth.high


def test_the_same_frames_are_drawn_for_both_runs(teacher, student):
    """So the gain is surer than the difference of two runs that are drawn apart."""
    paired = paired_bootstrap(student, teacher, KEY, resamples=300)
    apart = [bootstrap(run, KEY, resamples=300) for run in (student, teacher)]
    assert paired.high - paired.low < sum(spread.high - spread.low for spread in apart)


def test_the_order_of_frames_does_not_matter(frames, teacher, student):
    truths, found = frames
    order = np.random.default_rng(3).permutation(40)
    shuffled = match_frames([truths[i] for i in order], [found[i] for i in order], CLASSES, [f"{i:06d}" for i in order])
    assert paired_bootstrap(student, shuffled, KEY, resamples=30) == paired_bootstrap(
        student, teacher, KEY, resamples=30
    )


def test_a_seed_gives_the_same_interval_and_another_seed_another(teacher, student):
    first = paired_bootstrap(student, teacher, KEY, resamples=50, seed=1)
    assert first == paired_bootstrap(student, teacher, KEY, resamples=50, seed=1)
    other = paired_bootstrap(student, teacher, KEY, resamples=50, seed=2)
    assert other.value == first.value and (other.low, other.high) != (first.low, first.high)


def test_a_wider_level_gives_a_wider_interval(teacher):
    narrow, wide = (bootstrap(teacher, KEY, resamples=200, level=level) for level in (0.5, 0.99))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert wide.level == 0.99


def test_a_class_that_is_seldom_detected_counts_0_where_it_is_not_drawn():
    rows = [("Car", {})]
    matches = match_frames([objects(*rows)] * 10, [objects(*rows, scores=[0.9])] + [objects(scores=[])] * 9, ["Car"])
    spread = bootstrap(matches, "strict/3d/Car/R11/easy", resamples=200)
    assert spread.low == 0 < spread.value


def test_bad_requests_are_named(frames, teacher, student):
    truths, found = frames
    fewer = match_frames(truths[:-1], found[:-1], CLASSES)
    with pytest.raises(InputError, match=r"different frames \(40 and 39; 000039 only in one\)"):
        paired_bootstrap(teacher, fewer, MAIN)
    with pytest.raises(InputError, match="different frames"):
        paired_bootstrap(teacher, dataclasses.replace(student, frame_ids=tuple(f"x{i}" for i in range(40))), MAIN)
    with pytest.raises(InputError, match="unknown score"):
        bootstrap(teacher, "strict/3d/Tram/R40/easy")
    with pytest.raises(InputError, match="resamples is 0"):
        bootstrap(teacher, MAIN, resamples=0)
    with pytest.raises(InputError, match="level is 95"):
        bootstrap(teacher, MAIN, level=95)
    blind = match_frames(truths, [frame[:0] for frame in found], CLASSES)
    with pytest.raises(InputError, match="the second run has no strict/3d/Car/R40/easy"):
        paired_bootstrap(teacher, blind, "strict/3d/Car/R40/easy")
    with pytest.raises(InputError, match="the run has no"):
        bootstrap(match_frames([], [], CLASSES), MAIN)


def test_a_run_that_finds_nothing_can_still_be_compared_by_the_mean(frames, teacher):
    truths, found = frames
    blind = match_frames(truths, [frame[:0] for frame in found], CLASSES)
    assert paired_bootstrap(blind, teacher, MAIN, resamples=20).value > 0


def test_the_mean_gain_of_one_pair_is_its_paired_bootstrap(teacher, student):
    assert mean_gain([(student, teacher)], MAIN) == paired_bootstrap(student, teacher, MAIN)


def test_the_mean_gain_of_pairs_is_the_mean_of_their_gains_on_common_draws(teacher, student):
    there, back = (student, teacher), (teacher, student)
    both = mean_gain([there, back, there], MAIN)
    assert both.value == pytest.approx(paired_bootstrap(*there, MAIN).value / 3)
    # A pair and its reverse cancel out on every draw, so the rest is a third of the single pair's interval.
    single = paired_bootstrap(*there, MAIN)
    assert (both.low, both.high) == pytest.approx((single.low / 3, single.high / 3))


def test_no_pair_is_refused():
    with pytest.raises(InputError, match="no pair of runs"):
        mean_gain([], MAIN)


class MeanOfFirst(Resamplable):
    """The mean of a figure over the frames that have one."""

    def __init__(self, values, worst):
        self.frame_ids = tuple(f"f{row}" for row in range(len(values)))
        self.values, self.worst = np.array(values, dtype=float), worst

    def estimator(self, key):
        known = ~np.isnan(self.values)

        def value(weights):
            count = weights[known].sum()
            return float((weights * np.nan_to_num(self.values)).sum() / count) if count else None

        return value

    def scale(self, key):
        return Scale("m", decimals=2, higher_is_better=False, worst=self.worst)

    def save(self, path):
        raise NotImplementedError


def test_a_draw_without_a_score_counts_the_worst_there_is():
    rare = [3.0] + [np.nan] * 5
    spread = bootstrap(MeanOfFirst(rare, worst=9.0), "x", resamples=200)
    assert (spread.value, spread.low, spread.high) == (3.0, 3.0, 9.0)


def test_where_there_is_no_worst_a_draw_without_a_score_is_left_out():
    rare = [3.0] + [np.nan] * 5
    spread = bootstrap(MeanOfFirst(rare, worst=None), "x", resamples=200)
    assert (spread.value, spread.low, spread.high) == (3.0, 3.0, 3.0)
    gain = paired_bootstrap(MeanOfFirst(rare, None), MeanOfFirst([1.0, *rare[1:]], None), "x", resamples=200)
    assert (gain.value, gain.low, gain.high) == (-2.0, -2.0, -2.0)
    assert gain.verdict == "gain"


def test_without_any_draw_that_has_a_score_there_is_no_interval():
    rare = [3.0] + [np.nan] * 500
    spread = bootstrap(MeanOfFirst(rare, worst=None), "x", resamples=1, seed=1)
    assert spread.value == 3.0
    assert not spread.has_interval


def test_an_interval_has_the_scale_of_its_score(teacher, student):
    assert paired_bootstrap(student, teacher, MAIN, resamples=2).scale == AP
